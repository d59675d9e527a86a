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
#define REPEAT_TIMES_MAX 10 // of gateway.repeat_ms
#define SOFT_EXPIRES_MAX 20 // charon can't replace it: then it has to be deleted
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
	if (gateway->calls == NULL)
		return;
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

// A report of the outbound SA is one of the child SA, too: one is enough.
static bool told_by_partner(const struct gateway *gateway, const struct sa *sa)
{
	return sa->direction == ESPGW_IN && sa_table_partner_lost(&gateway->sas, sa);
}

// Tells charon of a lost SA, until charon deletes it. Rekeying the child SA by its outbound one
// replaces both.
static void lost_expire(struct gateway *gateway, struct sa *sa)
{
	int64_t now = gateway_now_ms();
	bool hard = sa_past_hard(sa, now) || sa->expires >= SOFT_EXPIRES_MAX;
	int64_t times = INT64_C(1) << (sa->expires < 4 ? sa->expires : 4);
	int64_t end_ms = sa_end_ms(sa);
	sa->expires++;
	sa->expire_ms =
		now + gateway->repeat_ms * (times < REPEAT_TIMES_MAX ? times : REPEAT_TIMES_MAX);
	if (end_ms > now && end_ms < sa->expire_ms)
		sa->expire_ms = end_ms;
	if (!told_by_partner(gateway, sa))
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
	sa->written = false;
	lose(gateway, sa);
}

// False: its time is over. Lifetimes began when charon added it.
static bool push_in_time(struct gateway *gateway, struct sa *sa, int64_t now_ms)
{
	char text[DESCRIPTION_BYTES];
	if (!sa_past_hard(sa, now_ms)) {
		if (sa_past_soft(sa, now_ms) && !told_by_partner(gateway, sa))
			notice_expire(gateway, sa, false);
		return true;
	}
	gateway_log(gateway, 1,
		"the %s reached its hard limit before espgw was there for it: it is not used any "
		"more",
		sa_describe(sa, text, sizeof(text)));
	lose(gateway, sa);
	return false;
}

static void push(struct gateway *gateway, struct sa *sa)
{
	char text[DESCRIPTION_BYTES];
	int64_t now_ms = gateway_now_ms();
	if (gateway->calls == NULL || !push_in_time(gateway, sa, now_ms))
		return;
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
	sa_fill_request(sa, now_ms, &request, selectors);
	memcpy(sa->there, sa->outer.destination, sizeof(sa->there));
	// From here on the key may be with the gateway, whatever the answer.
	sa->state = SA_DOUBTFUL;
	sa->written = true;
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
	if (gateway->calls == NULL)
		return false;
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

// The gateway counts from 0 again.
static void want_again(struct sa *sa)
{
	sa->base_bytes = sa->bytes;
	sa->base_packets = sa->packets;
	sa->state = SA_WANTED;
}

// The gateway was restarted: its SAs are gone. Inbound keys are given to it again, which keeps a
// record of what was received with them; outbound keys never.
static void restart(struct gateway *gateway)
{
	struct sa *sa = TAILQ_FIRST(&gateway->sas);
	while (sa != NULL) {
		struct sa *next = TAILQ_NEXT(sa, link);
		sa->moved = false;
		sa->written = false;
		if (sa->state == SA_UNWANTED) {
			sa_table_remove(&gateway->sas, sa);
		} else if (sa->state == SA_INSTALLED || sa->state == SA_DOUBTFUL) {
			want_again(sa);
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
	sa->written = true;
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
	struct sa *sa;
	TAILQ_FOREACH (sa, &gateway->sas, link) {
		if (sa->listed || (sa->state != SA_INSTALLED && sa->state != SA_DOUBTFUL))
			continue; // as it should be, or being seen to
		if (sa->direction == ESPGW_IN)
			want_again(sa);
		else
			lose_because(gateway, sa, "it is not in espgw");
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

// All of the gateway's tunnels and SAs, or it is tried again with another connection.
static json_t *load(struct gateway *gateway)
{
	struct espgw_error error;
	json_t *entries = NULL;
	enum espgw_status status = tunnels_load(&gateway->tunnels, gateway->calls, &error);
	if (status == ESPGW_OK)
		status =
			espgw_client_list(gateway->calls, "sa.list", NULL, "sas", &entries, &error);
	if (status == ESPGW_OK)
		return entries;
	gateway_disconnect(gateway, error.message);
	return NULL;
}

bool reconcile_begin(struct gateway *gateway, const char *epoch)
{
	if (strcmp(gateway->epoch, epoch) != 0) {
		restart(gateway);
		snprintf(gateway->epoch, sizeof(gateway->epoch), "%s", epoch);
	}
	expire_lost(gateway); // first, so that IKE does its part while we do ours
	json_t *entries = load(gateway);
	if (entries == NULL)
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

// True: there was something to do; done or not, the connection may be gone.
static bool step_sa(struct gateway *gateway, struct sa *sa)
{
	if (sa->state == SA_WANTED) {
		push(gateway, sa);
	} else if (sa->state == SA_UNWANTED) {
		if (reconcile_delete(gateway, sa))
			sa_table_remove(&gateway->sas, sa);
	} else if (sa->state == SA_INSTALLED && sa->moved) {
		reconcile_update(gateway, sa);
	} else {
		return false;
	}
	return true;
}

// Those that are due, and when the next will be.
static int step_lost(struct gateway *gateway)
{
	expire_lost(gateway);
	int64_t now = gateway_now_ms(), next = INT64_MAX;
	const struct sa *sa;
	TAILQ_FOREACH (sa, &gateway->sas, link) {
		if (sa->state == SA_LOST && sa->expire_ms < next)
			next = sa->expire_ms;
	}
	if (next < now)
		return 0;
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
		if (step_sa(gateway, sa) || gateway->calls == NULL)
			return 0;
	}
	int strangers_ms = step_strangers(gateway);
	int lost_ms = step_lost(gateway);
	if (strangers_ms < 0 || lost_ms < 0)
		return strangers_ms < 0 ? lost_ms : strangers_ms;
	return strangers_ms < lost_ms ? strangers_ms : lost_ms;
}
