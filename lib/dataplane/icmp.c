// SPDX-License-Identifier: BSD-3-Clause
// Copyright (c) 2026 the espgw authors

// Tells a packet's sender why it was dropped. The dropped packet counts under its reason, as ever;
// its buffer becomes the ICMP message, which is a packet of the gateway's own.

#include "internal.h"

// The port's address in the network of `peer`, or else its first one of that family; NULL when it
// has none.
static const struct packet_address *address_of_port(
	const struct port *port, const struct packet_address *peer)
{
	const struct packet_address *found = NULL;
	for (unsigned int i = 0; i < port->config->address_count; i++) {
		const struct packet_interface_address *own = &port->config->addresses[i];
		if (own->address.family != peer->family)
			continue;
		struct packet_prefix network = packet_prefix_of(&own->address, own->length);
		if (packet_prefix_contains(&network, peer))
			return &own->address;
		if (found == NULL)
			found = &own->address;
	}
	return found;
}

// An address of the interface that the packet arrived by, so that traceroute shows the way it took:
// of the tunnel, or of the inside port. A tunnel whose interface address is of the other family
// lends one from the first inside port that has one. Family 0: there is none, or the packet is the
// host's.
static struct packet_address choose_source(
	const struct worker *worker, uint32_t arrived, const struct packet_address *peer)
{
	const struct dataplane *dataplane = worker->dataplane;
	const struct packet_address *found = NULL;
	ptrdiff_t source = worker->source - worker->slot->sources;
	if (arrived != NO_TUNNEL) {
		struct packet_address own =
			tunnel_own_address(tunnel_get(dataplane->tunnels, arrived));
		if (own.family == peer->family)
			return own;
		for (unsigned int i = 0; found == NULL && i < dataplane->port_count; i++)
			if (!dataplane->ports[i].is_outside)
				found = address_of_port(&dataplane->ports[i], peer);
	} else if (source < (ptrdiff_t)dataplane->port_count) {
		found = address_of_port(&dataplane->ports[source], peer);
	}
	return found != NULL ? *found : (struct packet_address){0};
}

// Whether a message can go to `peer` at all: not to the gateway itself, not in clear to the
// outside, not into a tunnel without SA. *arrived is set to the tunnel that leads there when the
// packet came by a tunnel that is not known.
static bool find_way_back(
	const struct worker *worker, const struct packet_address *peer, uint32_t *arrived)
{
	const struct dataplane *dataplane = worker->dataplane;
	struct route_target target = route_lookup(dataplane->routes, peer, NULL);
	ptrdiff_t source = worker->source - worker->slot->sources;
	switch (target.kind) {
	case ROUTE_TUNNEL:
		if (*arrived == NO_TUNNEL && source < (ptrdiff_t)dataplane->port_count &&
			dataplane->ports[source].is_outside)
			*arrived = target.index;
		return atomic_load_explicit(&tunnel_get(dataplane->tunnels, target.index)->egress,
			       memory_order_relaxed) != NULL;
	case ROUTE_ADJACENCY: {
		uint64_t link = atomic_load_explicit(
			&dataplane->adjacencies[target.index].link, memory_order_relaxed);
		return !dataplane->ports[adjacency_link_port(link)].is_outside;
	}
	case ROUTE_CONNECTED:
		return !dataplane->ports[target.index].is_outside;
	default:
		return false;
	}
}

// Makes the message of the packet. False, and the packet as it was, when none may be sent.
static bool build(struct worker *worker, struct rte_mbuf *packet, enum packet_icmp_error error,
	uint32_t mtu, uint32_t arrived)
{
	uint8_t *ip = rte_pktmbuf_mtod(packet, uint8_t *);
	bool is_ipv4 = ip[0] >> 4 == 4;
	uint32_t before = is_ipv4 ? PACKET_ICMP_V4_BEFORE : PACKET_ICMP_V6_BEFORE;
	struct packet_address peer = packet_ip_source(ip);
	if (worker->later_count == LATER_MAX || packet->data_off < before ||
		!packet_icmp_may_answer(ip, packet->data_len) ||
		!find_way_back(worker, &peer, &arrived))
		return false;
	const struct packet_address own = choose_source(worker, arrived, &peer);
	if (own.family == 0 || !token_take(&worker->icmp, 0))
		return false;
	uint32_t size =
		packet_icmp_build(ip, packet->data_len, error, mtu, &own, worker->identification++);
	packet->data_off = (uint16_t)(packet->data_off - before);
	packet->data_len = (uint16_t)size;
	packet->pkt_len = size;
	return true;
}

__attribute__((noinline)) void icmp_refuse(struct worker *worker, struct rte_mbuf *packet,
	enum drop_reason reason, uint32_t tunnel, enum packet_icmp_error error, uint32_t mtu,
	uint32_t arrived)
{
	if (!build(worker, packet, error, mtu, arrived)) {
		worker_drop_of_tunnel(worker, packet, reason, tunnel);
		return;
	}
	if (tunnel != NO_TUNNEL)
		worker->slot->tunnels[tunnel].drops[reason]++;
	worker->source->drops[reason]++;
	worker->later[worker->later_count++] =
		(struct later){.packet = packet, .kind = LATER_MESSAGE};
}
