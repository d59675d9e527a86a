// SPDX-License-Identifier: BSD-3-Clause
// Copyright (c) 2026 the espgw authors

#include "control/internal.h"

const char *const event_names[] = {
#define X(NAME, name) name,
	EVENTS(X)
#undef X
		NULL,
};

void event_send(struct control *control, enum event_kind kind, json_t *members)
{
	char *text = event_line(kind, members);
	if (text == NULL) {
		control_log(control, CONFIG_LOG_WARNING, "no memory for the event %s",
			event_names[kind]);
		return;
	}
	if (control->server != NULL)
		server_send_event(control->server, kind, text);
	control_free(text);
}

static json_t *sa_members(const struct sa *sa)
{
	json_t *members = json_object();
	json_put_number(members, "id", sa->id);
	json_put_text(members, "tunnel", sa->tunnel->config->name);
	json_put_text(members, "direction", sa->direction == SA_INBOUND ? "in" : "out");
	json_put_spi(members, "spi", sa->spi);
	json_put_address(members, "source", &sa->source);
	json_put_address(members, "destination", &sa->destination);
	return members;
}

void event_send_sa(
	struct control *control, enum event_kind kind, const struct sa *sa, const char *limit)
{
	json_t *members = sa_members(sa);
	if (limit != NULL)
		json_put_text(members, "limit", limit);
	event_send(control, kind, members);
}

static void send_port_state(struct control *control, unsigned int port)
{
	struct dataplane_port_state state = {0};
	control->parts.port_state(control->parts.argument, port, &state);
	json_t *members = json_object();
	json_put_text(members, "port", control->parts.config->ports[port].name);
	json_put(members, "present", json_boolean(state.present));
	json_put(members, "link_up", json_boolean(state.link_up));
	json_put(members, "link_mbps",
		state.link_mbps == 0 ? json_null() : json_number(state.link_mbps));
	event_send(control, EVENT_PORT_STATE, members);
}

// The SA may have gone, or followed, while the event was on its way.
static void send_peer_moved(struct control *control, const struct dataplane_event *event)
{
	const struct sa *sa = sa_find(control->parts.tunnels, SA_INBOUND, event->spi, NULL);
	if (sa == NULL || !sa_works(sa) ||
		(packet_address_equal(&sa->source, &event->address) &&
			sa->udp_source == event->udp_source))
		return;
	json_t *members = sa_members(sa);
	json_put(members, "udp_source_port",
		sa->udp_source == 0 ? json_null() : json_number(sa->udp_source));
	json_put_address(members, "new_source", &event->address);
	json_put_number(members, "new_udp_source_port", event->udp_source);
	event_send(control, EVENT_SA_PEER_MOVED, members);
}

static void send_health(
	struct control *control, const struct tunnel *tunnel, const struct health_change *change)
{
	const char *name = tunnel->config->name;
	const char *from = health_state_name(change->from);
	const char *to = health_state_name(change->to);
	const char *cause = health_cause_name(change->cause);
	bool worse = change->to == HEALTH_DEGRADED || change->to == HEALTH_DOWN;
	control_log(control, worse ? CONFIG_LOG_WARNING : CONFIG_LOG_INFO,
		"tunnel %s: health %s, was %s (%s)", name, to, from, cause);
	json_t *members = json_object();
	json_put_text(members, "tunnel", name);
	json_put_text(members, "from", from);
	json_put_text(members, "to", to);
	json_put_text(members, "cause", cause);
	event_send(control, EVENT_TUNNEL_HEALTH, members);
}

static void send_mtu(struct control *control, const struct tunnel *tunnel)
{
	const struct tunnel_path *path = &tunnel->path;
	const char *name = tunnel->config->name;
	uint32_t mtu = tunnel_offered_mtu(tunnel, tunnel->egress);
	char sender[PACKET_ADDRESS_TEXT];
	json_t *members = json_object();
	json_put_text(members, "tunnel", name);
	json_put_number(members, "mtu", mtu);
	json_put(members, "path_mtu", path->mtu == 0 ? json_null() : json_number(path->mtu));
	if (path->mtu != 0) {
		json_put_address(members, "sender", &path->sender);
		control_log(control, CONFIG_LOG_INFO,
			"tunnel %s: MTU %u: the path takes packets of %u bytes at most, says %s",
			name, mtu, path->mtu, packet_address_format(&path->sender, sender));
	} else {
		control_log(control, CONFIG_LOG_INFO,
			"tunnel %s: MTU %u: whether the path takes larger packets is tried again",
			name, mtu);
	}
	event_send(control, EVENT_TUNNEL_MTU, members);
}

// The tunnel that the event is about; NULL when it is just coming, or going.
static const struct tunnel *tunnel_of(
	const struct control *control, const struct dataplane_event *event)
{
	const struct tunnel_table *tunnels = control->parts.tunnels;
	if (event->tunnel >= tunnel_count(tunnels))
		return NULL;
	const struct tunnel *tunnel = tunnel_get(tunnels, event->tunnel);
	return tunnel->config == NULL ? NULL : tunnel;
}

void control_dataplane_event(void *argument, const struct dataplane_event *event)
{
	struct control *control = argument;
	const struct tunnel *tunnel;
	json_t *members;
	switch (event->kind) {
	case DATAPLANE_UNKNOWN_SPI:
		members = json_object();
		json_put_spi(members, "spi", event->spi);
		json_put_address(members, "source", &event->address);
		event_send(control, EVENT_SPI_UNKNOWN, members);
		break;
	case DATAPLANE_PEER_MOVED:
		send_peer_moved(control, event);
		break;
	case DATAPLANE_NO_SA:
		tunnel = tunnel_of(control, event);
		if (tunnel == NULL)
			break;
		members = json_object();
		json_put_text(members, "tunnel", tunnel->config->name);
		event_send(control, EVENT_TUNNEL_NO_SA, members);
		break;
	case DATAPLANE_TUNNEL_HEALTH:
		tunnel = tunnel_of(control, event);
		if (tunnel != NULL)
			send_health(control, tunnel, &event->health);
		break;
	case DATAPLANE_TUNNEL_MTU:
		tunnel = tunnel_of(control, event);
		if (tunnel != NULL)
			send_mtu(control, tunnel);
		break;
	case DATAPLANE_PORT_STATE:
		if (event->port < control->parts.config->port_count)
			send_port_state(control, event->port);
		break;
	}
}
