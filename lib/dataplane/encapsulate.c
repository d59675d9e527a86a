// SPDX-License-Identifier: BSD-3-Clause
// Copyright (c) 2026 the espgw authors

// Inner packets to ESP: the tunnel's outbound SA, lib/esp, and on to the next hop's MAC.

#include "internal.h"

// What a tunnel's packets need; read once for neighbours that share it.
struct way {
	struct esp_sa_out *sa;
	uint32_t adjacency, mtu;
	enum drop_reason reason; // why nothing goes this way, or DROP_NONE
};

static struct way read_way(struct worker *worker, uint32_t index)
{
	const struct tunnel *tunnel = tunnel_get(worker->dataplane->tunnels, index);
	const struct tunnel_egress *egress =
		atomic_load_explicit(&tunnel->egress, memory_order_acquire);
	struct way way = {.mtu = tunnel->mtu, .reason = DROP_NO_SA};
	if (unlikely(egress == NULL)) {
		worker_event(worker, WORKER_EVENT_NO_SA, index, NULL, 0);
		return way;
	}
	way.sa = egress->sa;
	way.adjacency = atomic_load_explicit(&egress->adjacency, memory_order_acquire);
	way.reason = way.adjacency == TUNNEL_NO_PATH ? DROP_NO_PATH : DROP_NONE;
	return way;
}

// Counts what was encapsulated, once per run of neighbours that share a tunnel.
static void count_packets(
	struct worker *worker, const uint32_t *tunnels, const uint32_t *sizes, unsigned int count)
{
	for (unsigned int i = 0; i < count;) {
		uint32_t tunnel = tunnels[i];
		unsigned int begin = i;
		uint64_t bytes = 0;
		for (; i < count && tunnels[i] == tunnel; i++)
			bytes += sizes[i];
		worker->slot->tunnels[tunnel].out_packets += i - begin;
		worker->slot->tunnels[tunnel].out_bytes += bytes;
	}
}

// A burst on its way: packet i of it leaves by tunnels[i].
struct leaving {
	unsigned int count;
	struct esp_sa_out *sas[BURST_MAX];
	uint32_t adjacencies[BURST_MAX], tunnels[BURST_MAX], sizes[BURST_MAX];
};

// Keeps the packets that have a way, in order.
static void find_ways(struct worker *worker, struct rte_mbuf **packets, const uint32_t *tunnels,
	unsigned int count, struct leaving *leaving)
{
	uint32_t read = NO_TUNNEL;
	struct way way = {0};
	leaving->count = 0;
	for (unsigned int i = 0; i < count; i++) {
		if (tunnels[i] != read) {
			read = tunnels[i];
			way = read_way(worker, read);
		}
		uint32_t size = packets[i]->pkt_len;
		enum drop_reason reason = size > way.mtu ? DROP_TOO_BIG : way.reason;
		if (unlikely(reason != DROP_NONE)) {
			worker_drop_of_tunnel(worker, packets[i], reason, tunnels[i]);
			continue;
		}
		unsigned int at = leaving->count++;
		leaving->sas[at] = way.sa;
		leaving->adjacencies[at] = way.adjacency;
		leaving->tunnels[at] = tunnels[i];
		leaving->sizes[at] = size;
		packets[at] = packets[i];
	}
}

// Drops what encapsulation refused and closes the gaps.
static void drop_refused(struct worker *worker, struct rte_mbuf **packets, const uint8_t *drops,
	struct leaving *leaving)
{
	unsigned int good = 0;
	for (unsigned int i = 0; i < leaving->count; i++) {
		if (drops[i] != DROP_NONE) {
			worker_drop_of_tunnel(worker, packets[i], drops[i], leaving->tunnels[i]);
			continue;
		}
		leaving->adjacencies[good] = leaving->adjacencies[i];
		leaving->tunnels[good] = leaving->tunnels[i];
		leaving->sizes[good] = leaving->sizes[i];
		packets[good++] = packets[i];
	}
	leaving->count = good;
}

void encapsulate_burst(struct worker *worker, struct rte_mbuf **packets, const uint32_t *tunnels,
	unsigned int count)
{
	struct leaving leaving;
	uint8_t drops[BURST_MAX];
	find_ways(worker, packets, tunnels, count, &leaving);
	if (leaving.count == 0)
		return;
	if (unlikely(esp_encapsulate(worker->esp, packets, leaving.sas, drops, leaving.count) != 0))
		drop_refused(worker, packets, drops, &leaving);
	count_packets(worker, leaving.tunnels, leaving.sizes, leaving.count);
	transmit_burst(worker, packets, leaving.adjacencies, leaving.tunnels, leaving.count);
}
