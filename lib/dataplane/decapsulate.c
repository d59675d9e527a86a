// SPDX-License-Identifier: BSD-3-Clause
// Copyright (c) 2026 the espgw authors

// ESP to inner packets: the SA by SPI, then lib/esp, then on to forwarding.

#include <rte_prefetch.h>

#include "group.h"
#include "internal.h"

// The outer header still stands before the SPI: it says who sent this.
static struct packet_address outer_source(const uint8_t *spi, uint16_t outer_size)
{
	return packet_ip_source(spi - outer_size);
}

static void refuse_unknown_spi(
	struct worker *worker, struct rte_mbuf *packet, uint32_t spi, uint16_t outer_size)
{
	struct packet_address sender =
		outer_source(rte_pktmbuf_mtod(packet, const uint8_t *), outer_size);
	worker_event(worker, WORKER_EVENT_UNKNOWN_SPI, rte_be_to_cpu_32(spi), &sender, 0);
	worker_drop(worker, packet, DROP_UNKNOWN_SPI);
}

// Drops the packets without SA and closes the gaps; returns how many are left.
static __attribute__((noinline)) unsigned int refuse_unknown(struct worker *worker,
	struct rte_mbuf **packets, struct outer_headers *outer, struct esp_sa_in **sas,
	uint32_t *tunnels, unsigned int count)
{
	unsigned int known = 0;
	for (unsigned int i = 0; i < count; i++) {
		if (sas[i] == NULL) {
			refuse_unknown_spi(worker, packets[i], outer->spis[i], outer->sizes[i]);
			continue;
		}
		sas[known] = sas[i];
		tunnels[known] = tunnels[i];
		outer->classes[known] = outer->classes[i];
		outer->sizes[known] = outer->sizes[i];
		outer->senders[known] = outer->senders[i];
		packets[known++] = packets[i];
	}
	return known;
}

// Keeps the packets whose SPI names an SA, in order; returns how many.
static unsigned int find_sas(struct worker *worker, struct rte_mbuf **packets,
	struct outer_headers *outer, struct esp_sa_in **sas, uint32_t *tunnels, unsigned int count)
{
	struct tunnel_table *table = worker->dataplane->tunnels;
	const bool one = are_equal(outer->spis, count);
	unsigned int unknown =
		tunnel_lookup_spis(table, outer->spis, sas, tunnels, one ? 1 : count);
	for (unsigned int i = 1; one && i < count; i++) {
		sas[i] = sas[0];
		tunnels[i] = tunnels[0];
	}
	if (likely(unknown == 0))
		return count;
	return refuse_unknown(worker, packets, outer, sas, tunnels, count);
}

// Tells control of the packets (a bit each) that came from another sender than their SA knows.
// Their data starts at the inner packet: before it are the IV, the ESP header and, since they came
// in UDP, the UDP header.
static void report_moved(struct worker *worker, struct rte_mbuf *const *packets,
	const struct outer_headers *outer, struct esp_sa_in *const *sas, uint64_t moved)
{
	for (; moved != 0; moved &= moved - 1) {
		unsigned int i = (unsigned int)__builtin_ctzll(moved);
		const uint8_t *spi = rte_pktmbuf_mtod(packets[i], const uint8_t *) - ESP_IV_SIZE -
				     ESP_HEADER_SIZE;
		const struct rte_udp_hdr *udp =
			(const struct rte_udp_hdr *)(spi - sizeof(struct rte_udp_hdr));
		struct packet_address source = outer_source(spi, outer->sizes[i]);
		worker_event(worker, WORKER_EVENT_PEER_MOVED, esp_sa_in_spi(sas[i]), &source,
			rte_be_to_cpu_16(udp->src_port));
	}
}

// Drops what decapsulation refused and closes the gaps; returns how many are left.
static unsigned int drop_refused(struct worker *worker, struct rte_mbuf **packets,
	uint32_t *tunnels, const uint8_t *drops, unsigned int count)
{
	unsigned int good = 0;
	for (unsigned int i = 0; i < count; i++) {
		if (drops[i] != DROP_NONE) {
			worker_drop_of_tunnel(worker, packets[i], drops[i], tunnels[i]);
			continue;
		}
		tunnels[good] = tunnels[i];
		packets[good++] = packets[i];
	}
	return good;
}

static inline void count_tunnel(
	struct worker *worker, uint32_t tunnel, unsigned int packets, uint64_t bytes)
{
	worker->slot->tunnels[tunnel].in_packets += packets;
	worker->slot->tunnels[tunnel].in_bytes += bytes;
}

// Once per run of neighbours that share a tunnel.
static void count_runs(struct worker *worker, struct rte_mbuf *const *packets,
	const uint32_t *tunnels, unsigned int count)
{
	for (unsigned int begin = 0, end; begin < count; begin = end) {
		uint64_t bytes = 0;
		for (end = begin; end < count && tunnels[end] == tunnels[begin]; end++)
			bytes += packets[end]->pkt_len;
		count_tunnel(worker, tunnels[begin], end - begin, bytes);
	}
}

// A burst of known SAs.
struct arriving {
	struct rte_mbuf *packets[BURST_MAX];
	struct esp_sa_in *sas[BURST_MAX];
	uint32_t tunnels[BURST_MAX];
	struct outer_headers outer;
};

static __attribute__((noinline)) void group(struct rte_mbuf **packets,
	const struct outer_headers *outer, struct esp_sa_in *const *sas, const uint32_t *tunnels,
	const uint8_t *order, unsigned int count, struct arriving *grouped)
{
	for (unsigned int i = 0; i < count; i++) {
		unsigned int from = order[i];
		grouped->packets[i] = packets[from];
		grouped->sas[i] = sas[from];
		grouped->tunnels[i] = tunnels[from];
		grouped->outer.senders[i] = outer->senders[from];
		grouped->outer.sizes[i] = outer->sizes[from];
		grouped->outer.classes[i] = outer->classes[from];
	}
	grouped->outer.any_sender = outer->any_sender;
}

// `groups`: how many tunnels there are, or more.
static void decapsulate_grouped(struct worker *worker, struct rte_mbuf **packets,
	const struct outer_headers *outer, struct esp_sa_in *const *sas, uint32_t *tunnels,
	unsigned int count, unsigned int groups)
{
	uint8_t drops[BURST_MAX];
	unsigned int refused =
		esp_decapsulate(worker->esp, packets, sas, outer->classes, drops, count);
	if (outer->any_sender != 0) {
		uint64_t moved = esp_find_moved(worker->esp, sas, outer->senders, drops, count);
		if (unlikely(moved != 0))
			report_moved(worker, packets, outer, sas, moved);
	}
	if (unlikely(refused != 0))
		count = drop_refused(worker, packets, tunnels, drops, count);
	if (count == 0)
		return;
	const struct esp_accepted accepted = esp_accepted(worker->esp);
	if (groups == 1)
		count_tunnel(worker, tunnels[0], count, accepted.bytes);
	else
		count_runs(worker, packets, tunnels, count);
	forward_decapsulated(worker, packets, tunnels, count, accepted.plain);
}

void decapsulate_burst(struct worker *worker, struct rte_mbuf **packets,
	struct outer_headers *outer, unsigned int count)
{
	struct esp_sa_in *sas[BURST_MAX];
	uint32_t tunnels[BURST_MAX];
	uint8_t order[BURST_MAX];

	stage_enter(&worker->stages, STAGE_DECAPSULATE, count);
	count = find_sas(worker, packets, outer, sas, tunnels, count);
	if (count == 0)
		return;
	unsigned int groups = group_by_tunnel(tunnels, count, order);
	if (likely(groups == 1)) {
		decapsulate_grouped(worker, packets, outer, sas, tunnels, count, groups);
		return;
	}
	for (unsigned int i = 0; groups > GROUPS_FEW && i < count; i++)
		esp_sa_in_prefetch(worker->esp, sas[i]);
	struct arriving grouped;
	group(packets, outer, sas, tunnels, order, count, &grouped);
	decapsulate_grouped(worker, grouped.packets, &grouped.outer, grouped.sas, grouped.tunnels,
		count, groups);
}
