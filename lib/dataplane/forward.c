// SPDX-License-Identifier: BSD-3-Clause
// Copyright (c) 2026 the espgw authors

// Where an IP packet goes next: into a tunnel, out of an inside port, or to the host.

#include <rte_vect.h>

#include "internal.h"

// The IPv6 packets of a burst (a bit each). Packet i's target is targets[i * stride].
static __attribute__((noinline)) void look_up6(const struct route_table *routes,
	struct rte_mbuf *const *packets, size_t address_offset, uint64_t which,
	struct route_target *targets, unsigned int stride)
{
	uint8_t addresses[BURST_MAX][16];
	struct route_target found[BURST_MAX];
	unsigned int count = 0;
	for (uint64_t left = which; left != 0; left &= left - 1)
		memcpy(addresses[count++],
			rte_pktmbuf_mtod_offset(
				packets[__builtin_ctzll(left)], const uint8_t *, address_offset),
			16);
	route_lookup6(routes, (const uint8_t(*)[16])addresses, found, count);
	for (unsigned int i = 0; which != 0; which &= which - 1)
		targets[(unsigned int)__builtin_ctzll(which) * stride] = found[i++];
}

// In the place of an IPv6 address some IPv4 address is looked up, and the result written over.
static void look_up_destinations(const struct route_table *routes, struct rte_mbuf *const *packets,
	const struct destinations *destinations, struct route_target *targets, unsigned int count)
{
	route_lookup4(routes, destinations->ipv4, targets, count);
	if (unlikely(destinations->look.ipv6 != 0))
		look_up6(routes, packets, offsetof(struct rte_ipv6_hdr, dst_addr),
			destinations->look.ipv6, targets, 1);
}

// Where a decapsulated packet is to go, and where it comes from: what its two addresses lead to.
struct both {
	struct route_target destination, source;
} __rte_aligned(16);
_Static_assert(sizeof(struct both) == 2 * sizeof(struct route_target), "an array of targets");

// `plain`: all packets are; a constant.
static __rte_always_inline struct burst_look look_up_both(const struct route_table *routes,
	struct rte_mbuf *const *packets, struct both *results, unsigned int count, bool plain)
{
	struct burst_look look = {0};
	struct route_target *targets = (struct route_target *)results;
	uint32_t addresses[2 * BURST_MAX]; // as in struct both
	unsigned int i = 0;
	do { // a burst is not empty
		const uint8_t *ip = rte_pktmbuf_mtod(packets[i], const uint8_t *);
		uint64_t pair; // source and destination; byte order and their order change at once
		memcpy(&pair, ip + offsetof(struct rte_ipv4_hdr, src_addr), sizeof(pair));
		pair = rte_bswap64(pair);
		memcpy(&addresses[2 * i], &pair, sizeof(pair));
		if (plain)
			burst_look_plain(&look, ip);
		else
			burst_look_any(&look, i, ip);
	} while (++i < count);
	route_lookup4(routes, addresses, targets, 2 * count);
	if (unlikely(look.ipv6 != 0)) {
		look_up6(routes, packets, offsetof(struct rte_ipv6_hdr, dst_addr), look.ipv6,
			targets, 2);
		look_up6(routes, packets, offsetof(struct rte_ipv6_hdr, src_addr), look.ipv6,
			targets + 1, 2);
	}
	return look;
}

static struct packet_address destination_of(const struct rte_mbuf *packet)
{
	return packet_ip_destination(rte_pktmbuf_mtod(packet, const uint8_t *));
}

// Packets gathered to go on as one burst: in `tunnels` into tunnel to[i], in `ports` to adjacency
// to[i]. arrived[i] is the tunnel a packet came by, or NO_TUNNEL; only `ports` need it.
struct gathered {
	unsigned int count;
	struct rte_mbuf *packets[BURST_MAX];
	uint32_t to[BURST_MAX];
	uint32_t arrived[BURST_MAX];
};

struct forwarding {
	struct gathered tunnels, ports;
	uint8_t syn; // 0 = no packet is a TCP SYN segment
};

static void refuse_expired(struct worker *worker, struct rte_mbuf *packet, uint32_t arrived)
{
	icmp_refuse(
		worker, packet, DROP_TTL_EXPIRED, arrived, PACKET_ICMP_TIME_EXCEEDED, 0, arrived);
}

static inline void gather(struct worker *worker, struct gathered *gathered, struct rte_mbuf *packet,
	uint32_t to, uint32_t arrived, bool keep_arrived)
{
	if (unlikely(!packet_ip_decrement_ttl(rte_pktmbuf_mtod(packet, uint8_t *)))) {
		refuse_expired(worker, packet, arrived);
		return;
	}
	unsigned int i = gathered->count++;
	gathered->to[i] = to;
	if (keep_arrived)
		gathered->arrived[i] = arrived;
	gathered->packets[i] = packet;
}

static inline void forward_to_tunnel(struct worker *worker, struct gathered *gathered,
	struct rte_mbuf *packet, uint32_t tunnel, uint32_t arrived)
{
	gather(worker, gathered, packet, tunnel, arrived, false);
}

// Out of a port in clear: transmit_burst refuses an outside one.
static inline void forward_to_port(struct worker *worker, struct gathered *gathered,
	struct rte_mbuf *packet, uint32_t adjacency, uint32_t arrived)
{
	gather(worker, gathered, packet, adjacency, arrived, true);
}

// Takes the expired packet `index` out of a burst.
static __attribute__((noinline)) void take_out_expired(struct worker *worker,
	struct rte_mbuf **packets, uint32_t *tunnels, unsigned int index, unsigned int count,
	bool arrived)
{
	unsigned int behind = count - index - 1;
	refuse_expired(worker, packets[index], arrived ? tunnels[index] : NO_TUNNEL);
	memmove(packets + index, packets + index + 1, behind * sizeof(*packets));
	memmove(tunnels + index, tunnels + index + 1, behind * sizeof(*tunnels));
}

// Of a burst of plain packets that arrived by tunnels[i], or else are to go into tunnels[i]. Takes
// the expired ones out; returns how many are left.
static inline unsigned int decrement_ttls(struct worker *worker, struct rte_mbuf **packets,
	uint32_t *tunnels, unsigned int count, bool arrived)
{
	for (unsigned int i = 0; i < count;) {
		uint8_t *ip = rte_pktmbuf_mtod(packets[i], uint8_t *);
		if (likely(packet_ipv4_decrement_ttl(ip)))
			i++;
		else
			take_out_expired(worker, packets, tunnels, i, count--, arrived);
	}
	return count;
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

// Into a tunnel, whichever of those that share the flows.
static inline bool is_tunnel(struct route_target target)
{
	return (uint8_t)target.kind == ROUTE_TUNNEL; // kinds are less than ROUTE_SHARED
}

// Where paths share the flows, the one of this packet's.
static struct route_target target_of_flow(
	const struct worker *worker, const struct rte_mbuf *packet, struct route_target target)
{
	if ((target.kind & ROUTE_SHARED) == 0)
		return target;
	uint32_t hash =
		packet_flow_hash(rte_pktmbuf_mtod(packet, const uint8_t *), packet->data_len);
	return route_choose(worker->dataplane->routes, target, hash);
}

static void send_gathered(struct worker *worker, struct forwarding *forwarding)
{
	struct gathered *tunnels = &forwarding->tunnels, *ports = &forwarding->ports;
	if (unlikely(forwarding->syn != 0))
		mss_clamp(worker, tunnels->packets, tunnels->to, tunnels->count);
	if (tunnels->count != 0)
		encapsulate_burst(worker, tunnels->packets, tunnels->to, tunnels->count);
	if (ports->count != 0)
		transmit_burst(worker, ports->packets, ports->to, ports->arrived, ports->count);
}

// What came in at an inside port and does not go into the one tunnel of its prefix.
static __attribute__((noinline)) void forward_inside_elsewhere(struct worker *worker,
	const struct port *port, struct forwarding *forwarding, struct rte_mbuf *packet,
	struct route_target target)
{
	target = target_of_flow(worker, packet, target);
	switch (target.kind) {
	case ROUTE_TUNNEL:
		forward_to_tunnel(worker, &forwarding->tunnels, packet, target.index, NO_TUNNEL);
		break;
	case ROUTE_ADJACENCY:
		forward_to_port(worker, &forwarding->ports, packet, target.index, NO_TUNNEL);
		break;
	case ROUTE_CONNECTED:
		refuse_unresolved(worker, packet, target.index, NO_TUNNEL);
		break;
	case ROUTE_LOCAL_PORT: // another port's address, or a tunnel's
	case ROUTE_LOCAL_TUNNEL:
		// The Ethernet header still stands before the packet.
		rte_pktmbuf_prepend(packet, ETHERNET_SIZE);
		punt_frame(worker, packet, port, false);
		break;
	default:
		icmp_refuse(worker, packet, DROP_NO_ROUTE, NO_TUNNEL, PACKET_ICMP_NO_ROUTE, 0,
			NO_TUNNEL);
	}
}

static bool are_equal_targets(const struct route_target *targets, unsigned int count)
{
	uint64_t differences = 0, first, target;
	memcpy(&first, targets, sizeof(first));
	for (unsigned int i = 0; i < count; i++) {
		memcpy(&target, &targets[i], sizeof(target));
		differences |= target ^ first;
	}
	return differences == 0;
}

// Of an unusual packet: whether it was refused because its source is none that is passed on. What
// is for the host itself may have any.
static bool refuse_scope(struct worker *worker, struct rte_mbuf *packet, struct route_target target,
	uint32_t arrived)
{
	if (target.kind == ROUTE_LOCAL_PORT || target.kind == ROUTE_LOCAL_TUNNEL ||
		packet_source_has_scope(rte_pktmbuf_mtod(packet, const uint8_t *)))
		return false;
	worker_drop_of_tunnel(worker, packet, DROP_SOURCE_SCOPE, arrived);
	return true;
}

// Bursts whose packets go different ways, or are unusual.
static __attribute__((noinline)) void forward_inside_each(struct worker *worker,
	const struct port *port, struct rte_mbuf **packets, const struct route_target *targets,
	const struct burst_look *look, unsigned int count)
{
	struct forwarding forwarding;
	forwarding.tunnels.count = forwarding.ports.count = 0;
	forwarding.syn = look->syn;
	for (unsigned int i = 0; i < count; i++) {
		struct route_target target = targets[i];
		if (unlikely(look->unusual) && refuse_scope(worker, packets[i], target, NO_TUNNEL))
			continue;
		if (likely(target.kind == ROUTE_TUNNEL))
			forward_to_tunnel(
				worker, &forwarding.tunnels, packets[i], target.index, NO_TUNNEL);
		else
			forward_inside_elsewhere(worker, port, &forwarding, packets[i], target);
	}
	send_gathered(worker, &forwarding);
}

void forward_inside(struct worker *worker, const struct port *port, struct rte_mbuf **packets,
	const struct destinations *destinations, unsigned int count)
{
	struct route_target targets[BURST_MAX];
	const struct burst_look *look = &destinations->look;
	stage_enter(&worker->stages, STAGE_FORWARD, count);
	look_up_destinations(worker->dataplane->routes, packets, destinations, targets, count);
	if (unlikely(look->unusual || look->syn != 0 || targets[0].kind != ROUTE_TUNNEL) ||
		!are_equal_targets(targets, count)) {
		forward_inside_each(worker, port, packets, targets, look, count);
		return;
	}
	uint32_t tunnels[BURST_MAX];
	for (unsigned int i = 0; i < count; i++)
		tunnels[i] = targets[0].index;
	count = decrement_ttls(worker, packets, tunnels, count, false);
	if (likely(count != 0))
		encapsulate_burst(worker, packets, tunnels, count);
}

// Of an unusual packet that came by a tunnel: whether it went no further, wherever a route leads.
// What is of link scope (OSPF and the like over the tunnel) is the host's business, other groups
// are not routed.
static bool end_group(struct worker *worker, struct rte_mbuf *packet, uint32_t arrived)
{
	struct packet_address destination = destination_of(packet);
	if (packet_address_is_link_scope(&destination)) {
		punt_ip(worker, packet, arrived);
		return true;
	}
	if (packet_address_is_multicast(&destination)) {
		worker_drop_of_tunnel(worker, packet, DROP_NO_ROUTE, arrived);
		return true;
	}
	return false;
}

// What came by a tunnel and does not go to the one next hop of its prefix.
static __attribute__((noinline)) void forward_decapsulated_elsewhere(struct worker *worker,
	struct forwarding *forwarding, struct rte_mbuf *packet, struct route_target source,
	struct route_target target, uint32_t arrived)
{
	target = target_of_flow(worker, packet, target);
	switch (target.kind) {
	case ROUTE_ADJACENCY:
		forward_to_port(worker, &forwarding->ports, packet, target.index, arrived);
		break;
	case ROUTE_CONNECTED:
		refuse_unresolved(worker, packet, target.index, arrived);
		break;
	case ROUTE_TUNNEL:
		forward_to_tunnel(worker, &forwarding->tunnels, packet, target.index, arrived);
		break;
	case ROUTE_LOCAL_TUNNEL:
		if (probe_take(worker, packet, source, target, arrived))
			break;
		__attribute__((fallthrough));
	case ROUTE_LOCAL_PORT:
		punt_ip(worker, packet, arrived);
		break;
	default:
		icmp_refuse(
			worker, packet, DROP_NO_ROUTE, arrived, PACKET_ICMP_NO_ROUTE, 0, arrived);
	}
}

// No tunnel leads to the source, so the far side can't be its way: unless it is of a health check.
static __attribute__((noinline)) void refuse_source(struct worker *worker, struct rte_mbuf *packet,
	struct route_target source, struct route_target target, uint32_t arrived)
{
	if (!probe_take(worker, packet, source, target, arrived))
		worker_drop_of_tunnel(worker, packet, DROP_INNER_SOURCE, arrived);
}

// Whether all packets are from tunnels and go to one adjacency.
static bool go_one_way(const struct both *looked_up, unsigned int count)
{
	const __m128i first = _mm_load_si128((const __m128i *)looked_up);
	const __m128i mask = _mm_setr_epi32(-1, -1, UINT8_MAX, 0); // of a source, see is_tunnel
	__m128i differences = _mm_setzero_si128();
	for (unsigned int i = 0; i < count; i++)
		differences = _mm_or_si128(differences,
			_mm_xor_si128(first, _mm_load_si128((const __m128i *)&looked_up[i])));
	return looked_up[0].destination.kind == ROUTE_ADJACENCY && is_tunnel(looked_up[0].source) &&
	       _mm_testz_si128(differences, mask);
}

// Bursts whose packets go different ways, or are unusual.
static __attribute__((noinline)) void forward_decapsulated_each(struct worker *worker,
	struct rte_mbuf **packets, const uint32_t *tunnels, const struct both *looked_up,
	const struct burst_look *look, unsigned int count)
{
	struct forwarding forwarding;
	forwarding.tunnels.count = forwarding.ports.count = 0;
	forwarding.syn = look->syn;
	for (unsigned int i = 0; i < count; i++) {
		struct route_target source = looked_up[i].source;
		struct route_target target = looked_up[i].destination;
		// Any tunnel will do: the far side may answer by another one than we send by.
		if (unlikely(!is_tunnel(source)))
			refuse_source(worker, packets[i], source, target, tunnels[i]);
		else if (unlikely(look->unusual) &&
			 (end_group(worker, packets[i], tunnels[i]) ||
				 refuse_scope(worker, packets[i], target, tunnels[i])))
			continue;
		else if (likely(target.kind == ROUTE_ADJACENCY))
			forward_to_port(
				worker, &forwarding.ports, packets[i], target.index, tunnels[i]);
		else
			forward_decapsulated_elsewhere(
				worker, &forwarding, packets[i], source, target, tunnels[i]);
	}
	send_gathered(worker, &forwarding);
}

void forward_decapsulated(struct worker *worker, struct rte_mbuf **packets, uint32_t *tunnels,
	unsigned int count, bool plain)
{
	const struct route_table *routes = worker->dataplane->routes;
	struct both looked_up[BURST_MAX];
	stage_enter(&worker->stages, STAGE_FORWARD, count);
	const struct burst_look look =
		likely(plain) ? look_up_both(routes, packets, looked_up, count, true)
			      : look_up_both(routes, packets, looked_up, count, false);
	if (unlikely(look.syn != 0))
		mss_clamp(worker, packets, tunnels, count);
	if (unlikely(look.unusual) || !go_one_way(looked_up, count)) {
		forward_decapsulated_each(worker, packets, tunnels, looked_up, &look, count);
		return;
	}
	uint32_t adjacency = looked_up[0].destination.index;
	count = decrement_ttls(worker, packets, tunnels, count, true);
	stage_enter(&worker->stages, STAGE_TRANSMIT, count);
	if (likely(count != 0))
		transmit_run(worker, adjacency, packets, tunnels, count, TRANSMIT_CLEARTEXT);
}

void forward_own(struct worker *worker, struct rte_mbuf *packet)
{
	struct packet_address destination = destination_of(packet);
	struct route_target target = route_lookup(worker->dataplane->routes, &destination, NULL);
	uint32_t no_tunnel = NO_TUNNEL;
	switch (target.kind) {
	case ROUTE_TUNNEL:
		encapsulate_burst(worker, &packet, &target.index, 1);
		break;
	case ROUTE_ADJACENCY:
		transmit_burst(worker, &packet, &target.index, &no_tunnel, 1);
		break;
	case ROUTE_CONNECTED:
		refuse_unresolved(worker, packet, target.index, NO_TUNNEL);
		break;
	default:
		worker_drop(worker, packet, DROP_NO_ROUTE);
	}
}
