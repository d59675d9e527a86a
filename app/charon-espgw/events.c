// SPDX-License-Identifier: GPL-2.0-or-later
// Copyright (c) 2026 the espgw authors

// What the gateway says by itself.

#include <string.h>

#include "gateway_private.h"
#include "json.h"

// sa.no_record is not among them: it only repeats how sa.add was answered.
static const char *const wanted_events[] = {"sa.soft_expired", "sa.hard_expired",
	"sa.sequence_exhausted", "sa.peer_moved", "tunnel.no_sa", "spi.unknown", "config.applied"};

enum espgw_status event_subscribe(struct espgw_client *client, struct espgw_error *error)
{
	return espgw_client_subscribe(
		client, wanted_events, sizeof(wanted_events) / sizeof(wanted_events[0]), error);
}

// NULL: not one of ours.
static struct sa *event_sa(struct gateway *gateway, const json_t *event)
{
	struct sa *sa = sa_table_find_in_tunnel(
		&gateway->sas, json_text(event, "tunnel"), json_direction(event), json_spi(event));
	return sa == NULL || sa->state == SA_UNWANTED ? NULL : sa;
}

static void event_expired(struct gateway *gateway, const json_t *event, bool hard)
{
	const struct sa *sa = event_sa(gateway, event);
	char text[DESCRIPTION_BYTES];
	if (sa == NULL)
		return;
	const char *limit = json_text(event, "limit");
	gateway_log(gateway, 1, "the %s has reached its %s limit%s%s",
		sa_describe(sa, text, sizeof(text)), hard ? "hard" : "soft",
		*limit == '\0' ? "" : " of ", limit);
	notice_expire(gateway, sa, hard);
}

static void event_moved(struct gateway *gateway, const json_t *event)
{
	const struct sa *sa = event_sa(gateway, event);
	if (sa != NULL)
		notice_mapping(gateway, sa, json_text(event, "new_source"),
			json_port(event, "new_udp_source_port"));
}

// charon has keys for the tunnel, or was told that they are lost, or is about to have them carried.
static bool has_outbound(const struct gateway *gateway, const struct tunnel *tunnel)
{
	const struct sa *sa;
	TAILQ_FOREACH (sa, &gateway->sas, link) {
		if (sa->direction != ESPGW_OUT || sa->state == SA_UNWANTED)
			continue;
		if (strcmp(sa->tunnel, tunnel->name) == 0 ||
			tunnels_find(&gateway->tunnels, sa->if_id, sa->outer.source,
				sa->outer.destination) == tunnel)
			return true;
	}
	return false;
}

static void event_acquire(struct gateway *gateway, const json_t *event)
{
	const char *name = json_text(event, "tunnel");
	const struct tunnel *tunnel = tunnels_find_name(&gateway->tunnels, name);
	uint32_t reqid = tunnel == NULL ? 0 : traps_find(gateway->traps, tunnel);
	bool negotiated = reqid != 0 && has_outbound(gateway, tunnel);
	gateway_log(gateway, 2, "there is traffic for %s, which has no SA%s", name,
		reqid == 0   ? " and no trap"
		: negotiated ? ", but charon has one"
			     : "");
	if (reqid != 0 && !negotiated)
		notice_acquire(gateway, reqid);
}

void event_handle(struct gateway *gateway, const json_t *event)
{
	const char *name = json_text(event, "event");
	if (strcmp(name, "sa.soft_expired") == 0) {
		event_expired(gateway, event, false);
	} else if (strcmp(name, "sa.hard_expired") == 0 ||
		   strcmp(name, "sa.sequence_exhausted") == 0) {
		event_expired(gateway, event, true);
	} else if (strcmp(name, "sa.peer_moved") == 0) {
		event_moved(gateway, event);
	} else if (strcmp(name, "tunnel.no_sa") == 0) {
		event_acquire(gateway, event);
	} else if (strcmp(name, "spi.unknown") == 0) {
		gateway_log(gateway, 2, "ESP with the unknown SPI %s came from %s",
			json_text(event, "spi"), json_text(event, "source"));
	} else if (strcmp(name, "config.applied") == 0 && gateway->calls != NULL) {
		gateway_log(gateway, 1, "espgw has another configuration: reading its tunnels");
		reconcile_begin(gateway, gateway->epoch);
	} else if (strcmp(name, "events.lost") == 0 && gateway->calls != NULL) {
		gateway_log(gateway, 1, "events of espgw were lost: comparing its SAs");
		reconcile_begin(gateway, gateway->epoch);
	}
}
