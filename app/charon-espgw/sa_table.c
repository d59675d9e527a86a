// SPDX-License-Identifier: GPL-2.0-or-later
// Copyright (c) 2026 the espgw authors

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "sa_table.h"

struct sa *sa_table_add(struct sa_table *table, const struct sa *wanted)
{
	struct sa *sa = malloc(sizeof(*sa));
	if (sa == NULL)
		return NULL;
	*sa = *wanted;
	TAILQ_INSERT_TAIL(table, sa, link);
	return sa;
}

void sa_table_remove(struct sa_table *table, struct sa *sa)
{
	TAILQ_REMOVE(table, sa, link);
	sa_wipe_key(sa);
	free(sa);
}

void sa_table_clear(struct sa_table *table)
{
	struct sa *sa;
	while ((sa = TAILQ_FIRST(table)) != NULL)
		sa_table_remove(table, sa);
}

struct sa *sa_table_find(const struct sa_table *table, uint32_t spi, const char *destination)
{
	struct sa *sa;
	TAILQ_FOREACH (sa, table, link) {
		if (sa->spi == spi && sa->state != SA_UNWANTED &&
			strcmp(sa->outer.destination, destination) == 0)
			return sa;
	}
	return NULL;
}

struct sa *sa_table_find_in_tunnel(const struct sa_table *table, const char *tunnel,
	enum espgw_direction direction, uint32_t spi)
{
	struct sa *sa;
	TAILQ_FOREACH (sa, table, link) {
		if (sa->spi == spi && sa->direction == direction && strcmp(sa->tunnel, tunnel) == 0)
			return sa;
	}
	return NULL;
}

bool sa_table_tunnel_works(const struct sa_table *table, const char *tunnel)
{
	bool works[2] = {false, false};
	const struct sa *sa;
	TAILQ_FOREACH (sa, table, link) {
		if (sa->state == SA_INSTALLED && strcmp(sa->tunnel, tunnel) == 0)
			works[sa->direction == ESPGW_IN] = true;
	}
	return works[0] && works[1];
}

bool sa_table_partner_lost(const struct sa_table *table, const struct sa *inbound)
{
	const struct sa *sa;
	TAILQ_FOREACH (sa, table, link) {
		if (sa->direction == ESPGW_OUT && sa->state == SA_LOST &&
			sa->if_id == inbound->if_id && sa->reqid == inbound->reqid)
			return true;
	}
	return false;
}

void sa_wipe_key(struct sa *sa)
{
	explicit_bzero(sa->key, sizeof(sa->key));
	explicit_bzero(sa->salt, sizeof(sa->salt));
}

// ---- lifetimes ----

// As the client has it.
static bool limited(uint64_t limit)
{
	return limit != 0 && limit <= INT64_MAX;
}

static uint64_t age_seconds(const struct sa *sa, int64_t now_ms)
{
	return now_ms > sa->added_ms ? (uint64_t)(now_ms - sa->added_ms) / 1000 : 0;
}

static bool past(uint64_t limit, uint64_t used)
{
	return limited(limit) && used >= limit;
}

static bool past_any(const struct sa *sa, const struct espgw_lifetime *limits, int64_t now_ms)
{
	return past(limits->seconds, age_seconds(sa, now_ms)) || past(limits->bytes, sa->bytes) ||
	       past(limits->packets, sa->packets);
}

bool sa_past_soft(const struct sa *sa, int64_t now_ms)
{
	return past_any(sa, &sa->soft, now_ms);
}

bool sa_past_hard(const struct sa *sa, int64_t now_ms)
{
	return past_any(sa, &sa->hard, now_ms);
}

int64_t sa_end_ms(const struct sa *sa)
{
	uint64_t most = (uint64_t)(INT64_MAX - sa->added_ms) / 1000;
	if (sa->hard.seconds == 0 || sa->hard.seconds > most)
		return INT64_MAX;
	return sa->added_ms + (int64_t)sa->hard.seconds * 1000;
}

// 0 would be no limit.
static uint64_t rest(uint64_t limit, uint64_t used)
{
	if (!limited(limit))
		return limit;
	return used < limit ? limit - used : 1;
}

static struct espgw_lifetime rest_of(
	const struct sa *sa, const struct espgw_lifetime *limits, int64_t now_ms)
{
	return (struct espgw_lifetime){
		.seconds = rest(limits->seconds, age_seconds(sa, now_ms)),
		.bytes = rest(limits->bytes, sa->base_bytes),
		.packets = rest(limits->packets, sa->base_packets),
	};
}

// ---- for the client ----

void sa_fill_request(const struct sa *sa, int64_t now_ms, struct espgw_sa *request,
	struct espgw_selector *selectors)
{
	for (size_t i = 0; i < sa->selector_count; i++) {
		selectors[i] = (struct espgw_selector){
			.local = sa->selectors[i].local,
			.remote = sa->selectors[i].remote,
			.protocol = sa->selectors[i].protocol,
			.local_ports = sa->selectors[i].local_ports,
			.remote_ports = sa->selectors[i].remote_ports,
		};
	}
	*request = (struct espgw_sa){
		.tunnel = sa->tunnel,
		.direction = sa->direction,
		.spi = sa->spi,
		.source = sa->outer.source,
		.destination = sa->outer.destination,
		.esn = sa->esn,
		.replay_window = sa->replay_window,
		.udp_source_port = sa->outer.source_port,
		.udp_destination_port = sa->outer.destination_port,
		.soft = rest_of(sa, &sa->soft, now_ms),
		.hard = rest_of(sa, &sa->hard, now_ms),
		.selectors = selectors,
		.selector_count = sa->selector_count,
	};
	memcpy(request->key, sa->key, sizeof(request->key));
	memcpy(request->salt, sa->salt, sizeof(request->salt));
}

struct espgw_sa_name sa_name(const struct sa *sa)
{
	return (struct espgw_sa_name){
		.direction = sa->direction,
		.spi = sa->spi,
		.destination = sa->direction == ESPGW_OUT ? sa->there : NULL,
	};
}

bool sa_outer_equal(const struct sa_outer *a, const struct sa_outer *b)
{
	return strcmp(a->source, b->source) == 0 && strcmp(a->destination, b->destination) == 0 &&
	       a->source_port == b->source_port && a->destination_port == b->destination_port;
}

const char *sa_describe(const struct sa *sa, char *text, size_t size)
{
	snprintf(text, size, "%s SA 0x%08" PRIx32 " of if_id %" PRIu32,
		sa->direction == ESPGW_IN ? "inbound" : "outbound", sa->spi, sa->if_id);
	return text;
}
