// SPDX-License-Identifier: BSD-3-Clause
// Copyright (c) 2026 the espgw authors

// What the host's kernel sends: frames from a port's TAP go out of that port, packets from a
// tunnel's TUN go into that tunnel.

#include "internal.h"

// DROP_NONE, or why a frame of the host must not leave an outside port: cleartext for a tunnel's
// prefix, or something that could hide such.
static enum drop_reason check_outside(const struct worker *worker, const struct rte_mbuf *packet)
{
	const struct rte_ether_hdr *ethernet =
		rte_pktmbuf_mtod(packet, const struct rte_ether_hdr *);
	const uint8_t *ip = (const uint8_t *)(ethernet + 1);
	uint32_t size = packet->data_len - ETHERNET_SIZE;
	struct packet_address destination;
	switch (rte_be_to_cpu_16(ethernet->ether_type)) {
	case RTE_ETHER_TYPE_ARP:
		return DROP_NONE;
	case RTE_ETHER_TYPE_IPV4:
		if (size < sizeof(struct rte_ipv4_hdr))
			return DROP_BAD_FRAME;
		destination = packet_address_v4(((const struct rte_ipv4_hdr *)ip)->dst_addr);
		break;
	case RTE_ETHER_TYPE_IPV6:
		if (size < sizeof(struct rte_ipv6_hdr))
			return DROP_BAD_FRAME;
		destination = packet_address_v6(((const struct rte_ipv6_hdr *)ip)->dst_addr);
		break;
	case RTE_ETHER_TYPE_VLAN:
	case RTE_ETHER_TYPE_QINQ:
		return DROP_VLAN;
	default:
		return DROP_ETHERTYPE;
	}
	if (packet_address_is_link_scope(&destination))
		return DROP_NONE; // ND, OSPF: no tunnel's, even if it takes all traffic
	struct route_target target = route_lookup(worker->dataplane->routes, &destination, NULL);
	if ((target.kind == ROUTE_TUNNEL || target.kind == ROUTE_LOCAL_TUNNEL) &&
		!far_ends_have(worker->dataplane, &destination)) // an IKE daemon must reach it
		return DROP_HOST_CLEARTEXT;
	return DROP_NONE;
}

static void inject_frame(struct worker *worker, struct rte_mbuf *packet)
{
	const struct port *port = &worker->dataplane->ports[packet->hash.usr];
	enum drop_reason reason = DROP_NONE;
	if (packet->data_len < ETHERNET_SIZE)
		reason = DROP_BAD_FRAME;
	else if (port->is_outside)
		reason = check_outside(worker, packet);
	if (reason != DROP_NONE)
		worker_drop(worker, packet, reason);
	else
		transmit_frame(worker, packet, port);
}

static void inject_ip(struct worker *worker, struct rte_mbuf *packet)
{
	uint32_t tunnel = packet->hash.usr & ~HOST_TUNNEL;
	uint32_t length;
	enum drop_reason reason = packet_ip_check(
		rte_pktmbuf_mtod(packet, const uint8_t *), packet->data_len, true, &length);
	if (reason != DROP_NONE) {
		worker_drop_of_tunnel(worker, packet, reason, tunnel);
		return;
	}
	packet->data_len = (uint16_t)length;
	packet->pkt_len = length;
	mss_clamp(worker, &packet, &tunnel, 1);
	encapsulate_burst(worker, &packet, &tunnel, 1);
}

unsigned int inject_burst(struct worker *worker)
{
	struct rte_mbuf *packets[BURST_MAX];
	unsigned int count =
		rte_ring_sc_dequeue_burst(worker->from_host, (void **)packets, BURST_MAX, NULL);
	for (unsigned int i = 0; i < count; i++) {
		stage_enter(&worker->stages, STAGE_HOST, 1);
		struct telemetry_source *source = &worker->slot->sources[packets[i]->port];
		if (source != worker->source) {
			transmit_flush(worker); // what is sent counts for its own source
			worker->source = source;
		}
		if (unlikely(packets[i]->hash.usr & (HOST_DUMMY | HOST_KEEPALIVE)))
			filler_send(worker, packets[i]);
		else if (packets[i]->hash.usr & HOST_TUNNEL)
			inject_ip(worker, packets[i]);
		else
			inject_frame(worker, packets[i]);
	}
	if (count != 0) {
		transmit_flush(worker);
		worker_free_drops(worker);
	}
	return count;
}
