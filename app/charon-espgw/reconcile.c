// SPDX-License-Identifier: GPL-2.0-or-later
// Copyright (c) 2026 the espgw authors

// Makes the gateway's SAs those of the table.

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "gateway_private.h"
#include "json.h"

// A lost SA is reported to charon at once, and again in case that it was busy with this very SA
// then: it does not queue such reports.
#define EXPIRE_AGAIN_MS     3000
#define EXPIRE_AGAIN_MS_MAX 30000
#define EXPIRES_MAX         20
// How long packets to an old inbound SA may be on their way.
#define STRANGER_LINGER_MS 10000

// ---- strangers ----

static void strangers_clear(struct gateway *gateway)
{
	struct stranger *stranger;
	while ((stranger = TAILQ_FIRST(&gateway->strangers)) != NULL) {
		TAILQ_REMOVE(&gateway->strangers, stranger, link);
		free(stranger);
	}
}

static void strangers_add(struct gateway *gateway, const json_t *entry)
{
	struct stranger *stranger = calloc(1, sizeof(*stranger));
	if (stranger == NULL)
		return;
	stranger->direction = json_direction(entry);
	stranger->spi = json_spi(entry);
	json_copy_text(stranger->tunnel, sizeof(stranger->tunnel), entry, "tunnel");
	json_copy_text(stranger->destination, sizeof(stranger->destination), entry, "destination");
	TAILQ_INSERT_TAIL(&gateway->strangers, stranger, link);
}

// Our SAs carry the tunnel's traffic both ways: those of an earlier charon are in the way.
static void strangers_retire(struct gateway *gateway, const char *tunnel)
{
	if (TAILQ_EMPTY(&gateway->strangers) || !sa_table_tunnel_works(&gateway->sas, tunnel))
		return;
	int64_t now = gateway_now_ms();
	struct stranger *stranger;
	TAILQ_FOREACH (stranger, &gateway->strangers, link) {
		if (stranger->due_ms == 0 && strcmp(stranger->tunnel, tunnel) == 0)
			stranger->due_ms =
				now + (stranger->direction == ESPGW_IN ? STRANGER_LINGER_MS : 0);
	}
	gateway_wake(gateway);
}

static void stranger_delete(struct gateway *gateway, struct stranger *stranger)
{
	const struct espgw_sa_name name = {
		.direction = stranger->direction,
		.spi = stranger->spi,
		.destination = stranger->direction == ESPGW_OUT ? stranger->destination : NULL,
	};
	struct espgw_error error;
	enum espgw_status status = espgw_client_sa_delete(gateway->calls, &name, &error);
	if (!gateway_answered(gateway, status, &error))
		return; // the next listing tells whether it is still there
	gateway_log(gateway, 1,
		"deleted the %s SA 0x%08" PRIx32 " that an earlier charon left in %s",
		stranger->direction == ESPGW_IN ? "inbound" : "outbound", stranger->spi,
		stranger->tunnel);
	TAILQ_REMOVE(&gateway->strangers, stranger, link);
	free(stranger);
}

// ---- SAs that the gateway lost ----

static void lose(struct gateway *gateway, struct sa *sa)
{
	sa->state = SA_LOST;
	sa->expires = 0;
	sa->expire_ms = gateway_now_ms();
	sa_wipe_key(sa);
	gateway_wake(gateway);
}

static void lose_because(struct gateway *gateway, struct sa *sa, const char *why)
{
	char text[DESCRIPTION_BYTES];
	gateway_log(gateway, 1, "%s: the %s has to be rekeyed", why,
		sa_describe(sa, text, sizeof(text)));
	lose(gateway, sa);
}

// Tells charon of a lost SA. Rekeying the child SA by its outbound one replaces both.
static void lost_expire(struct gateway *gateway, struct sa *sa)
{
	int64_t now = gateway_now_ms();
	bool hard =
		sa->hard.seconds != 0 && (uint64_t)(now - sa->added_ms) / 1000 >= sa->hard.seconds;
	int64_t again_ms = EXPIRE_AGAIN_MS << (sa->expires < 4 ? sa->expires : 4);
	sa->expires++;
	sa->expire_ms = now + (again_ms < EXPIRE_AGAIN_MS_MAX ? again_ms : EXPIRE_AGAIN_MS_MAX);
	if (sa->direction == ESPGW_OUT || !sa_table_partner_lost(&gateway->sas, sa))
		notice_expire(gateway, sa, hard);
}

// ---- calls ----

// What to do about it, for those refusals that somebody can do something about.
static const char *advice(const struct espgw_error *error)
{
	static const struct {
		const char *name, *text;
	} advices[] = {
		{"key_seen", "it is rekeyed"},
		{"no_record", "it is rekeyed"},
		{"too_many_sas", "raise gateway.max_sas in espgw.conf"},
		{"store_unavailable", "see to gateway.state_directory of espgw.conf"},
		{"no_such_tunnel",
			"the tunnels of espgw.conf and their if_id have to fit swanctl.conf"},
		{"bad_parameter", "espgw.conf and swanctl.conf have to fit"},
	};
	for (size_t i = 0; i < sizeof(advices) / sizeof(advices[0]); i++) {
		if (strcmp(advices[i].name, error->name) == 0)
			return advices[i].text;
	}
	return "see espgw's log";
}

static bool resolve(struct gateway *gateway, struct sa *sa)
{
	bool in = sa->direction == ESPGW_IN;
	const struct tunnel *tunnel = tunnels_find(&gateway->tunnels, sa->if_id,
		in ? sa->outer.destination : sa->outer.source,
		in ? sa->outer.source : sa->outer.destination);
	if (tunnel == NULL)
		return false;
	memcpy(sa->tunnel, tunnel->name, sizeof(sa->tunnel));
	return true;
}

static void push_refused(struct gateway *gateway, struct sa *sa, const struct espgw_error *error)
{
	char text[DESCRIPTION_BYTES];
	gateway_log(gateway, 1, "espgw refuses the %s: %s (%s): %s",
		sa_describe(sa, text, sizeof(text)), error->message, error->name, advice(error));
	lose(gateway, sa);
}

static void push(struct gateway *gateway, struct sa *sa)
{
	char text[DESCRIPTION_BYTES];
	if (!resolve(gateway, sa)) {
		gateway_log(gateway, 1,
			"espgw has no tunnel for the %s between %s and %s: give if_id_in and "
			"if_id_out in swanctl.conf the if_id of a tunnel in espgw.conf",
			sa_describe(sa, text, sizeof(text)), sa->outer.source,
			sa->outer.destination);
		lose(gateway, sa);
		return;
	}
	struct espgw_selector selectors[SELECTORS_MAX];
	struct espgw_sa request;
	struct espgw_error error;
	sa_fill_request(sa, &request, selectors);
	memcpy(sa->there, sa->outer.destination, sizeof(sa->there));
	// From here on the key may be with the gateway, whatever the answer.
	sa->state = SA_DOUBTFUL;
	if (sa->direction == ESPGW_OUT)
		sa_wipe_key(sa);
	enum espgw_status status =
		espgw_client_sa_add(gateway->calls, &request, NULL, NULL, &error);
	espgw_client_sa_wipe(&request);
	if (!gateway_answered(gateway, status, &error))
		return;
	if (status != ESPGW_OK) {
		push_refused(gateway, sa, &error);
		return;
	}
	sa->state = SA_INSTALLED;
	strangers_retire(gateway, sa->tunnel);
}

void reconcile_push(struct gateway *gateway, uint32_t if_id)
{
	struct sa *sa;
	TAILQ_FOREACH (sa, &gateway->sas, link) {
		if (gateway->calls == NULL)
			return;
		if (sa->state == SA_WANTED && sa->if_id == if_id)
			push(gateway, sa);
	}
}

bool reconcile_delete(struct gateway *gateway, const struct sa *sa)
{
	struct espgw_sa_name name = sa_name(sa);
	struct espgw_error error;
	// Refused: it is gone already.
	return gateway_answered(
		gateway, espgw_client_sa_delete(gateway->calls, &name, &error), &error);
}

bool reconcile_update(struct gateway *gateway, struct sa *sa)
{
	if (gateway->calls == NULL)
		return false;
	char text[DESCRIPTION_BYTES];
	struct espgw_sa_name name = sa_name(sa);
	const struct espgw_sa_change change = {
		.source = sa->outer.source,
		.destination = sa->outer.destination,
		.set_udp = true,
		.udp_source_port = sa->outer.source_port,
		.udp_destination_port = sa->outer.destination_port,
	};
	struct espgw_error error;
	enum espgw_status status = espgw_client_sa_update(gateway->calls, &name, &change, &error);
	if (!gateway_answered(gateway, status, &error))
		return false;
	sa->moved = false;
	if (status == ESPGW_OK)
		memcpy(sa->there, sa->outer.destination, sizeof(sa->there));
	else
		gateway_log(gateway, 1, "espgw refuses new addresses of the %s: %s",
			sa_describe(sa, text, sizeof(text)), error.message);
	return true;
}

// ---- comparing ----

// The gateway was restarted: its SAs are gone. Inbound keys are given to it again, which keeps a
// record of what was received with them; outbound keys never.
static void restart(struct gateway *gateway)
{
	struct sa *sa = TAILQ_FIRST(&gateway->sas);
	while (sa != NULL) {
		struct sa *next = TAILQ_NEXT(sa, link);
		sa->moved = false;
		if (sa->state == SA_UNWANTED) {
			sa_table_remove(&gateway->sas, sa);
		} else if (sa->state == SA_INSTALLED || sa->state == SA_DOUBTFUL) {
			sa->base_bytes = sa->bytes;
			sa->base_packets = sa->packets;
			sa->state = SA_WANTED;
			if (sa->direction == ESPGW_OUT)
				lose_because(gateway, sa, "espgw was restarted");
		}
		sa = next;
	}
}

static void compare_one(struct gateway *gateway, const json_t *entry)
{
	struct sa *sa = sa_table_find_in_tunnel(
		&gateway->sas, json_text(entry, "tunnel"), json_direction(entry), json_spi(entry));
	if (sa == NULL) {
		strangers_add(gateway, entry);
		return;
	}
	struct sa_outer outer;
	json_outer(&outer, entry);
	sa->listed = true;
	memcpy(sa->there, outer.destination, sizeof(sa->there));
	if (sa->state == SA_UNWANTED)
		return;
	sa->state = SA_INSTALLED;
	sa->moved = !sa_outer_equal(&outer, &sa->outer);
	const char *state = json_text(entry, "state");
	if (strcmp(state, "active") != 0)
		notice_expire(gateway, sa, strcmp(state, "hard-expired") == 0);
}

static void compare_missing(struct gateway *gateway)
{
	struct sa *sa = TAILQ_FIRST(&gateway->sas);
	while (sa != NULL) {
		struct sa *next = TAILQ_NEXT(sa, link);
		if (sa->listed || sa->state == SA_WANTED || sa->state == SA_LOST) {
			// as it should be, or being seen to
		} else if (sa->state == SA_UNWANTED) {
			sa_table_remove(&gateway->sas, sa);
		} else if (sa->direction == ESPGW_IN) {
			sa->state = SA_WANTED;
		} else {
			lose_because(gateway, sa, "it is not in espgw");
		}
		sa = next;
	}
}

static void retire_all(struct gateway *gateway)
{
	for (size_t i = 0; i < gateway->tunnels.count; i++)
		strangers_retire(gateway, gateway->tunnels.list[i].name);
}

static void expire_lost(struct gateway *gateway)
{
	int64_t now = gateway_now_ms();
	struct sa *sa;
	TAILQ_FOREACH (sa, &gateway->sas, link) {
		if (sa->state == SA_LOST && sa->expire_ms <= now)
			lost_expire(gateway, sa);
	}
}

bool reconcile_begin(struct gateway *gateway, const char *epoch)
{
	struct espgw_error error;
	json_t *entries;
	if (strcmp(gateway->epoch, epoch) != 0) {
		restart(gateway);
		snprintf(gateway->epoch, sizeof(gateway->epoch), "%s", epoch);
	}
	expire_lost(gateway); // first, so that IKE does its part while we do ours
	if (!gateway_answered(
		    gateway, tunnels_load(&gateway->tunnels, gateway->calls, &error), &error))
		return false;
	enum espgw_status status =
		espgw_client_list(gateway->calls, "sa.list", NULL, "sas", &entries, &error);
	if (!gateway_answered(gateway, status, &error) || status != ESPGW_OK)
		return false;
	strangers_clear(gateway);
	struct sa *sa;
	TAILQ_FOREACH (sa, &gateway->sas, link)
		sa->listed = false;
	size_t i;
	json_t *entry;
	json_array_foreach (entries, i, entry)
		compare_one(gateway, entry);
	json_decref(entries);
	compare_missing(gateway);
	retire_all(gateway);
	return true;
}

// ---- what is left to do ----

static bool step_sa(struct gateway *gateway, struct sa *sa)
{
	if (sa->state == SA_WANTED)
		push(gateway, sa);
	else if (sa->state == SA_UNWANTED && reconcile_delete(gateway, sa))
		sa_table_remove(&gateway->sas, sa);
	else if (sa->state == SA_INSTALLED && sa->moved)
		reconcile_update(gateway, sa);
	else
		return false;
	return true;
}

// The first that is due, and when the next will be.
static int step_lost(struct gateway *gateway)
{
	int64_t now = gateway_now_ms(), next = INT64_MAX;
	struct sa *sa = TAILQ_FIRST(&gateway->sas);
	while (sa != NULL) {
		struct sa *following = TAILQ_NEXT(sa, link);
		if (sa->state == SA_LOST && sa->expire_ms <= now && sa->expires >= EXPIRES_MAX) {
			sa_table_remove(&gateway->sas, sa);
		} else if (sa->state == SA_LOST) {
			if (sa->expire_ms <= now)
				lost_expire(gateway, sa);
			next = sa->expire_ms < next ? sa->expire_ms : next;
		}
		sa = following;
	}
	return next == INT64_MAX ? -1 : (int)(next - now);
}

static int step_strangers(struct gateway *gateway)
{
	int64_t now = gateway_now_ms(), next = INT64_MAX;
	struct stranger *stranger;
	TAILQ_FOREACH (stranger, &gateway->strangers, link) {
		if (stranger->due_ms != 0 && stranger->due_ms <= now) {
			stranger_delete(gateway, stranger);
			return 0;
		}
		if (stranger->due_ms != 0 && stranger->due_ms < next)
			next = stranger->due_ms;
	}
	return next == INT64_MAX ? -1 : (int)(next - now);
}

int reconcile_step(struct gateway *gateway)
{
	struct sa *sa;
	TAILQ_FOREACH (sa, &gateway->sas, link) {
		if (step_sa(gateway, sa))
			return 0;
	}
	int strangers_ms = step_strangers(gateway);
	int lost_ms = step_lost(gateway);
	if (strangers_ms < 0 || lost_ms < 0)
		return strangers_ms < 0 ? lost_ms : strangers_ms;
	return strangers_ms < lost_ms ? strangers_ms : lost_ms;
}
