// SPDX-License-Identifier: BSD-3-Clause
// Copyright (c) 2026 the espgw authors

// Where an IP packet goes next: into a tunnel, out of an inside port, or to the host.

#include "internal.h"

enum { BY_SOURCE, BY_DESTINATION };

// Looks up the source or destination of each packet of the burst.
static void look_up(const struct route_table *routes, struct rte_mbuf *const *packets, int by,
	struct route_target *targets, unsigned int count)
{
	uint32_t addresses4[BURST_MAX];
	uint8_t addresses6[BURST_MAX][16], which6[BURST_MAX], which4[BURST_MAX];
	struct route_target found[BURST_MAX];
	unsigned int count4 = 0, count6 = 0;
	for (unsigned int i = 0; i < count; i++) {
		const uint8_t *ip = rte_pktmbuf_mtod(packets[i], const uint8_t *);
		if (likely(ip[0] >> 4 == 4)) {
			const struct rte_ipv4_hdr *ip4 = (const struct rte_ipv4_hdr *)ip;
			uint32_t address = by == BY_SOURCE ? ip4->src_addr : ip4->dst_addr;
			which4[count4] = (uint8_t)i;
			addresses4[count4++] = rte_be_to_cpu_32(address);
		} else {
			const struct rte_ipv6_hdr *ip6 = (const struct rte_ipv6_hdr *)ip;
			which6[count6] = (uint8_t)i;
			memcpy(addresses6[count6++],
				by == BY_SOURCE ? ip6->src_addr : ip6->dst_addr, 16);
		}
	}
	if (likely(count4 == count)) {
		route_lookup4(routes, addresses4, targets, count);
		return;
	}
	route_lookup4(routes, addresses4, found, count4);
	for (unsigned int i = 0; i < count4; i++)
		targets[which4[i]] = found[i];
	route_lookup6(routes, (const uint8_t(*)[16])addresses6, found, count6);
	for (unsigned int i = 0; i < count6; i++)
		targets[which6[i]] = found[i];
}

static struct packet_address destination_of(const struct rte_mbuf *packet)
{
	const uint8_t *ip = rte_pktmbuf_mtod(packet, const uint8_t *);
	if (ip[0] >> 4 == 4)
		return packet_address_v4(((const struct rte_ipv4_hdr *)ip)->dst_addr);
	return packet_address_v6(((const struct rte_ipv6_hdr *)ip)->dst_addr);
}

// Packets gathered to go on as one burst: in `tunnels` into tunnel to[i], in `ports` to adjacency
// to[i]. arrived[i] is the tunnel a packet came by, or NO_TUNNEL.
struct gathered {
	unsigned int count;
	struct rte_mbuf *packets[BURST_MAX];
	uint32_t to[BURST_MAX];
	uint32_t arrived[BURST_MAX];
};

struct forwarding {
	struct gathered tunnels, ports;
};

static inline void gather(struct worker *worker, struct gathered *gathered, struct rte_mbuf *packet,
	uint32_t to, uint32_t arrived)
{
	if (unlikely(!packet_ip_decrement_ttl(rte_pktmbuf_mtod(packet, uint8_t *)))) {
		worker_drop_of_tunnel(worker, packet, DROP_TTL_EXPIRED, arrived);
		return;
	}
	gathered->to[gathered->count] = to;
	gathered->arrived[gathered->count] = arrived;
	gathered->packets[gathered->count++] = packet;
}

// Out of a port in clear: an inside one only.
static inline void forward_to_port(struct worker *worker, struct gathered *gathered,
	struct rte_mbuf *packet, uint32_t adjacency, uint32_t arrived)
{
	const struct dataplane *dataplane = worker->dataplane;
	uint64_t link =
		atomic_load_explicit(&dataplane->adjacencies[adjacency].link, memory_order_relaxed);
	if (unlikely(dataplane->ports[adjacency_link_port(link)].is_outside))
		worker_drop_of_tunnel(worker, packet, DROP_CLEARTEXT_TO_OUTSIDE, arrived);
	else
		gather(worker, gathered, packet, adjacency, arrived);
}

// The destination is on the port's own network, and its MAC is not known.
static void refuse_unresolved(
	struct worker *worker, struct rte_mbuf *packet, unsigned int port, uint32_t arrived)
{
	struct packet_address address = destination_of(packet);
	if (worker->dataplane->ports[port].is_outside) {
		worker_drop_of_tunnel(worker, packet, DROP_CLEARTEXT_TO_OUTSIDE, arrived);
		return;
	}
	worker_event(worker, WORKER_EVENT_CONNECTED, port, &address, 0);
	worker_drop_of_tunnel(worker, packet, DROP_NEIGHBOUR_UNRESOLVED, arrived);
}

static void send_gathered(struct worker *worker, struct forwarding *forwarding)
{
	struct gathered *tunnels = &forwarding->tunnels, *ports = &forwarding->ports;
	if (tunnels->count != 0)
		encapsulate_burst(worker, tunnels->packets, tunnels->to, tunnels->count);
	if (ports->count != 0)
		transmit_burst(worker, ports->packets, ports->to, ports->arrived, ports->count);
}

void forward_inside(struct worker *worker, const struct port *port, struct rte_mbuf **packets,
	unsigned int count)
{
	struct route_target targets[BURST_MAX];
	struct forwarding forwarding;
	forwarding.tunnels.count = forwarding.ports.count = 0;

	look_up(worker->dataplane->routes, packets, BY_DESTINATION, targets, count);
	for (unsigned int i = 0; i < count; i++) {
		switch (targets[i].kind) {
		case ROUTE_TUNNEL:
			gather(worker, &forwarding.tunnels, packets[i], targets[i].index,
				NO_TUNNEL);
			break;
		case ROUTE_ADJACENCY:
			forward_to_port(
				worker, &forwarding.ports, packets[i], targets[i].index, NO_TUNNEL);
			break;
		case ROUTE_CONNECTED:
			refuse_unresolved(worker, packets[i], targets[i].index, NO_TUNNEL);
			break;
		case ROUTE_LOCAL_PORT: // another port's address, or a tunnel's
		case ROUTE_LOCAL_TUNNEL:
			// The Ethernet header still stands before the packet.
			rte_pktmbuf_prepend(packets[i], ETHERNET_SIZE);
			punt_frame(worker, packets[i], port, false);
			break;
		default:
			worker_drop(worker, packets[i], DROP_NO_ROUTE);
		}
	}
	send_gathered(worker, &forwarding);
}

// Link-local groups (OSPF and the like over the tunnel) are the host's business.
static bool is_link_scope(const struct rte_mbuf *packet)
{
	struct packet_address destination = destination_of(packet);
	return packet_address_is_link_scope(&destination);
}

void forward_decapsulated(struct worker *worker, struct rte_mbuf **packets, const uint32_t *tunnels,
	unsigned int count)
{
	struct route_target sources[BURST_MAX], targets[BURST_MAX];
	struct forwarding forwarding;
	forwarding.tunnels.count = forwarding.ports.count = 0;

	look_up(worker->dataplane->routes, packets, BY_SOURCE, sources, count);
	look_up(worker->dataplane->routes, packets, BY_DESTINATION, targets, count);
	for (unsigned int i = 0; i < count; i++) {
		// Any tunnel will do: the far side may answer by another one than we send by.
		if (unlikely(sources[i].kind != ROUTE_TUNNEL)) {
			worker_drop_of_tunnel(worker, packets[i], DROP_INNER_SOURCE, tunnels[i]);
			continue;
		}
		switch (targets[i].kind) {
		case ROUTE_ADJACENCY:
			forward_to_port(worker, &forwarding.ports, packets[i], targets[i].index,
				tunnels[i]);
			break;
		case ROUTE_CONNECTED:
			refuse_unresolved(worker, packets[i], targets[i].index, tunnels[i]);
			break;
		case ROUTE_TUNNEL:
			if (is_link_scope(packets[i])) // as when the tunnel takes everything
				punt_ip(worker, packets[i], tunnels[i]);
			else
				gather(worker, &forwarding.tunnels, packets[i], targets[i].index,
					tunnels[i]);
			break;
		case ROUTE_LOCAL_PORT:
		case ROUTE_LOCAL_TUNNEL:
			punt_ip(worker, packets[i], tunnels[i]);
			break;
		default:
			if (is_link_scope(packets[i]))
				punt_ip(worker, packets[i], tunnels[i]);
			else
				worker_drop_of_tunnel(
					worker, packets[i], DROP_NO_ROUTE, tunnels[i]);
		}
	}
	send_gathered(worker, &forwarding);
}
