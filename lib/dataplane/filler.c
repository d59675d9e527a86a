// SPDX-License-Identifier: BSD-3-Clause
// Copyright (c) 2026 the espgw authors

// Packets that carry nothing: dummy packets, so that an observer can't tell how much traffic there
// is (RFC 4303 sections 2.6 and 2.7), and NAT keepalives, so that a NAT does not forget a peer
// (RFC 3948 sections 2.3 and 4). Control makes them by the clock; a worker sends them. They count
// for the source "gateway", never for a tunnel's traffic.

#include <stdlib.h>

#include "internal.h"

#define DUMMY_SIZE_LEAST 64 // bytes of a dummy where the tunnel has no `tfc`
#define NANOSECONDS_A_MS UINT64_C(1000000)
#define KEEPALIVE_BYTE   0xff

// What control remembers of a tunnel.
struct filler {
	uint64_t next_dummy;      // nanoseconds
	uint64_t sent, sent_last; // packets of the SA when it was looked at; and when it last sent
	const struct sa *sa;      // of those
};

// ---- Control ----

static struct rte_mbuf *new_packet(struct dataplane *dataplane, uint32_t size)
{
	struct telemetry_slot *slot = dataplane->telemetry->slot[dataplane->worker_count];
	struct telemetry_source *counters = &slot->sources[TELEMETRY_SOURCE_GATEWAY];
	struct rte_mbuf *packet = rte_pktmbuf_alloc(dataplane->ports[0].pool);
	counters->received++;
	counters->received_bytes += size;
	if (packet != NULL && rte_pktmbuf_append(packet, (uint16_t)size) != NULL) {
		packet->port = TELEMETRY_SOURCE_GATEWAY;
		return packet;
	}
	rte_pktmbuf_free(packet);
	counters->drops[DROP_NO_BUFFER]++;
	return NULL;
}

static void hand_over(
	struct dataplane *dataplane, struct rte_mbuf *packet, uint32_t tunnel, uint32_t kind)
{
	struct worker *worker = dataplane->workers[tunnel % dataplane->worker_count];
	packet->hash.usr = tunnel | kind;
	host_path_give(dataplane, worker->from_host, packet, tunnel);
}

// Of the size that the tunnel's padded packets have, so that it looks like one of them. What it
// holds nobody reads: zeros.
static void send_dummy(struct dataplane *dataplane, const struct tunnel *tunnel)
{
	uint32_t size = RTE_MAX(tunnel->config->tfc, (uint32_t)DUMMY_SIZE_LEAST);
	size = RTE_MIN(size, tunnel_offered_mtu(tunnel, tunnel->current->egress));
	struct rte_mbuf *packet = new_packet(dataplane, size);
	if (packet == NULL)
		return;
	memset(rte_pktmbuf_mtod(packet, void *), 0, size);
	hand_over(dataplane, packet, tunnel->index, HOST_DUMMY);
}

// One byte in UDP, between the addresses and ports of the SA; over IPv4 without checksum.
static void send_keepalive(struct dataplane *dataplane, const struct sa *sa)
{
	const uint32_t udp_size = sizeof(struct rte_udp_hdr) + 1;
	bool is_ipv4 = sa->source.family == 4;
	struct rte_mbuf *packet = new_packet(dataplane,
		udp_size + (is_ipv4 ? sizeof(struct rte_ipv4_hdr) : sizeof(struct rte_ipv6_hdr)));
	if (packet == NULL)
		return;
	uint8_t *data = rte_pktmbuf_mtod(packet, uint8_t *);
	const struct packet_ip_fields fields = {
		.source = &sa->source,
		.destination = &sa->destination,
		.protocol = IPPROTO_UDP,
		.ttl = (uint8_t)sa->tunnel->config->ttl,
		.size = udp_size,
	};
	uint32_t header = packet_ip_write(data, &fields);
	struct rte_udp_hdr udp = {
		.src_port = rte_cpu_to_be_16(sa->udp_source),
		.dst_port = rte_cpu_to_be_16(sa->udp_destination),
		.dgram_len = rte_cpu_to_be_16((uint16_t)udp_size),
	};
	memcpy(data + header, &udp, sizeof(udp));
	data[header + sizeof(udp)] = KEEPALIVE_BYTE;
	if (!is_ipv4) {
		struct rte_udp_hdr *written = (struct rte_udp_hdr *)(data + header);
		written->dgram_cksum =
			rte_ipv6_udptcp_cksum((const struct rte_ipv6_hdr *)data, written);
	}
	hand_over(dataplane, packet, sa->tunnel->index, HOST_KEEPALIVE);
}

// Nothing was sent by the tunnel's outbound SA for a while: what matters is the NAT, so that what
// goes to the same place by another SA, which is rare, is not looked at.
static void keep_alive(struct dataplane *dataplane, struct filler *filler,
	const struct tunnel *tunnel, uint64_t now)
{
	const struct sa *sa = tunnel->current;
	uint64_t wait = tunnel->config->nat_keepalive * NANOSECONDS_A_MS * 1000;
	if (wait == 0 || sa == NULL || sa->udp_source == 0) {
		filler->sa = NULL;
		return;
	}
	uint64_t sent = sa_counters(sa).packets;
	if (filler->sa != sa || filler->sent != sent) {
		filler->sa = sa;
		filler->sent = sent;
		filler->sent_last = now;
	} else if (now - filler->sent_last >= wait) {
		send_keepalive(dataplane, sa);
		filler->sent_last = now;
	}
}

void filler_second(struct dataplane *dataplane)
{
	uint64_t now = dataplane_now();
	dataplane->any_dummies = false;
	for (unsigned int i = 0; i < tunnel_count(dataplane->tunnels); i++) {
		const struct tunnel *tunnel = tunnel_get(dataplane->tunnels, i);
		if (tunnel->config == NULL)
			continue;
		dataplane->any_dummies |= tunnel->config->dummy_interval_ms != 0;
		keep_alive(dataplane, &dataplane->fillers[i], tunnel, now);
	}
}

void filler_chore(struct dataplane *dataplane)
{
	uint64_t now = dataplane_now();
	if (!dataplane->any_dummies)
		return;
	for (unsigned int i = 0; i < tunnel_count(dataplane->tunnels); i++) {
		const struct tunnel *tunnel = tunnel_get(dataplane->tunnels, i);
		struct filler *filler = &dataplane->fillers[i];
		if (tunnel->config == NULL || tunnel->config->dummy_interval_ms == 0 ||
			tunnel->current == NULL || now < filler->next_dummy)
			continue;
		uint64_t interval = tunnel->config->dummy_interval_ms * NANOSECONDS_A_MS;
		// In step, unless there was a pause.
		filler->next_dummy = now - filler->next_dummy < interval
					     ? filler->next_dummy + interval
					     : now + interval;
		send_dummy(dataplane, tunnel);
	}
}

bool filler_create(struct dataplane *dataplane)
{
	dataplane->fillers = calloc(tunnel_room(dataplane->tunnels), sizeof(struct filler));
	return dataplane->fillers != NULL;
}

// ---- Worker ----

// What its tunnel's SA encapsulates goes out as a dummy: whoever has the key discards it.
static enum drop_reason encapsulate_dummy(
	struct worker *worker, struct rte_mbuf *packet, struct esp_sa_out *sa)
{
	uint8_t drop;
	esp_encapsulate_dummies(worker->esp, &packet, &sa, &drop, 1);
	return drop;
}

void filler_send(struct worker *worker, struct rte_mbuf *packet)
{
	bool is_dummy = (packet->hash.usr & HOST_DUMMY) != 0;
	uint32_t tunnel = packet->hash.usr & ~(HOST_DUMMY | HOST_KEEPALIVE);
	const struct tunnel_egress *egress = atomic_load_explicit(
		&tunnel_get(worker->dataplane->tunnels, tunnel)->egress, memory_order_acquire);
	enum drop_reason reason = DROP_NO_SA; // it went meanwhile
	uint32_t adjacency = TUNNEL_NO_PATH;
	if (egress != NULL) {
		adjacency = atomic_load_explicit(&egress->adjacency, memory_order_acquire);
		reason = adjacency == TUNNEL_NO_PATH ? DROP_NO_PATH : DROP_NONE;
	}
	if (reason == DROP_NONE && is_dummy)
		reason = encapsulate_dummy(worker, packet, egress->sa);
	if (reason == DROP_NONE)
		transmit_run(worker, adjacency, &packet, &tunnel, 1, TRANSMIT_ESP);
	else
		worker_drop_of_tunnel(worker, packet, reason, tunnel);
}
