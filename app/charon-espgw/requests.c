// SPDX-License-Identifier: GPL-2.0-or-later
// Copyright (c) 2026 the espgw authors

// charon's calls: the table first, then the gateway if it is there.

#include <string.h>

#include "gateway_private.h"

bool gateway_reserve_spi(struct gateway *gateway, uint32_t *spi)
{
	bool reserved = false;
	gateway_lock(gateway);
	if (gateway->calls != NULL) {
		struct espgw_error error;
		enum espgw_status status =
			espgw_client_spi_reserve(gateway->calls, NULL, spi, 1, &error);
		reserved = gateway_answered(gateway, status, &error) && status == ESPGW_OK;
	}
	gateway_unlock(gateway);
	return reserved;
}

bool gateway_add_sa(struct gateway *gateway, const struct sa *wanted)
{
	char text[DESCRIPTION_BYTES];
	bool taken = false;
	gateway_lock(gateway);
	struct sa *sa = NULL;
	if (sa_table_find(&gateway->sas, wanted->spi, wanted->outer.destination) == NULL)
		sa = sa_table_add(&gateway->sas, wanted);
	else
		gateway_log(gateway, 1,
			"the %s is refused: there is another one with this SPI to %s",
			sa_describe(wanted, text, sizeof(text)), wanted->outer.destination);
	if (sa != NULL) {
		sa->state = SA_WANTED;
		sa->added_ms = gateway_now_ms();
		memcpy(sa->there, sa->outer.destination, sizeof(sa->there));
		reconcile_push(gateway, sa->if_id);
		taken = sa->state != SA_LOST;
		if (sa->state == SA_WANTED)
			gateway_log(gateway, 1, "espgw is away: the %s is kept for it",
				sa_describe(sa, text, sizeof(text)));
		if (!taken)
			sa_table_remove(&gateway->sas, sa);
	}
	gateway_unlock(gateway);
	return taken;
}

bool gateway_update_sa(struct gateway *gateway, uint32_t spi, const char *destination,
	const struct sa_outer *outer)
{
	gateway_lock(gateway);
	struct sa *sa = sa_table_find(&gateway->sas, spi, destination);
	if (sa != NULL) {
		sa->outer = *outer;
		if (sa->state == SA_INSTALLED) {
			sa->moved = true;
			reconcile_update(gateway, sa);
		}
	}
	gateway_unlock(gateway);
	return sa != NULL;
}

// Neither counts nor the time of use go back, whatever the gateway says.
static void note_use(struct sa *sa, const struct espgw_sa_use *use)
{
	if (sa->base_bytes + use->bytes > sa->bytes)
		sa->bytes = sa->base_bytes + use->bytes;
	if (sa->base_packets + use->packets > sa->packets)
		sa->packets = sa->base_packets + use->packets;
	int64_t used_at = gateway_now_ms() / 1000 - (int64_t)use->idle_seconds;
	if (use->used && used_at > sa->used_at)
		sa->used_at = used_at;
}

bool gateway_query_sa(struct gateway *gateway, uint32_t spi, const char *destination,
	uint64_t *bytes, uint64_t *packets, int64_t *used_at)
{
	gateway_lock(gateway);
	struct sa *sa = sa_table_find(&gateway->sas, spi, destination);
	if (sa != NULL && sa->state == SA_INSTALLED && gateway->calls != NULL) {
		struct espgw_sa_name name = sa_name(sa);
		struct espgw_sa_use use;
		struct espgw_error error;
		enum espgw_status status =
			espgw_client_sa_query(gateway->calls, &name, &use, &error);
		if (gateway_answered(gateway, status, &error) && status == ESPGW_OK)
			note_use(sa, &use);
	}
	if (sa != NULL) {
		*bytes = sa->bytes;
		*packets = sa->packets;
		*used_at = sa->used_at;
	}
	gateway_unlock(gateway);
	return sa != NULL;
}

// Takes an SA out of the table, at once or when the gateway has deleted it.
static void forget(struct gateway *gateway, struct sa *sa)
{
	bool there = sa->written;
	sa_wipe_key(sa);
	sa->state = SA_UNWANTED;
	if (gateway->calls != NULL)
		there = there && !reconcile_delete(gateway, sa);
	if (!there)
		sa_table_remove(&gateway->sas, sa);
}

bool gateway_delete_sa(struct gateway *gateway, uint32_t spi, const char *destination)
{
	gateway_lock(gateway);
	struct sa *sa = sa_table_find(&gateway->sas, spi, destination);
	if (sa != NULL) {
		forget(gateway, sa);
	} else if (gateway->calls != NULL && tunnels_end_at(&gateway->tunnels, destination)) {
		struct espgw_error error;
		gateway_answered(
			gateway, espgw_client_spi_release(gateway->calls, spi, &error), &error);
	}
	gateway_unlock(gateway);
	return sa != NULL;
}

void gateway_flush_sas(struct gateway *gateway)
{
	gateway_lock(gateway);
	struct sa *sa = TAILQ_FIRST(&gateway->sas);
	while (sa != NULL) {
		struct sa *next = TAILQ_NEXT(sa, link);
		if (sa->state != SA_UNWANTED)
			forget(gateway, sa);
		sa = next;
	}
	gateway_unlock(gateway);
}
