// SPDX-License-Identifier: BSD-3-Clause
// Copyright (c) 2026 the espgw authors

// Inner packets to ESP: the tunnel's outbound SA, lib/esp, and on to the next hop's MAC.

#include "group.h"
#include "internal.h"

// What a tunnel's packets need; read once for neighbours that share it.
struct way {
	struct esp_sa_out *sa;
	uint32_t adjacency, mtu;
	uint32_t tfc;            // bytes that packets are padded to
	enum drop_reason reason; // why nothing goes this way, or DROP_NONE
};

static struct way read_way(struct worker *worker, uint32_t index)
{
	const struct tunnel *tunnel = tunnel_get(worker->dataplane->tunnels, index);
	const struct tunnel_egress *egress =
		atomic_load_explicit(&tunnel->egress, memory_order_acquire);
	struct way way = {.mtu = tunnel_offered_mtu(tunnel, egress), .reason = DROP_NO_SA};
	if (unlikely(egress == NULL)) {
		worker_event(worker, WORKER_EVENT_NO_SA, index, NULL, 0);
		return way;
	}
	way.sa = egress->sa;
	way.tfc = __atomic_load_n(&tunnel->tfc, __ATOMIC_RELAXED);
	way.adjacency = atomic_load_explicit(&egress->adjacency, memory_order_acquire);
	way.reason = way.adjacency == TUNNEL_NO_PATH ? DROP_NO_PATH : DROP_NONE;
	return way;
}

// Neighbours in a burst that share a tunnel, and what it is for them.
struct run {
	uint32_t tunnel, adjacency;
	unsigned int count; // packets that leave
	uint64_t bytes;     // of these, before encapsulation
};

// A burst on its way: packet i of it leaves by tunnels[i].
struct leaving {
	unsigned int count, run_count;
	struct rte_mbuf **packets;
	uint32_t *tunnels;
	struct esp_sa_out *sas[BURST_MAX];
	struct run runs[BURST_MAX];
};

// Leaves in fragments if it may, or its sender is told.
static void refuse_too_big(
	struct worker *worker, struct rte_mbuf *packet, uint32_t index, const struct way *way)
{
	const struct tunnel *tunnel = tunnel_get(worker->dataplane->tunnels, index);
	const uint8_t *ip = rte_pktmbuf_mtod(packet, const uint8_t *);
	bool may_split = packet_ipv4_may_split(ip) ||
			 (__atomic_load_n(&tunnel->clear_df, __ATOMIC_RELAXED) && ip[0] >> 4 == 4);
	if (!may_split)
		icmp_refuse(worker, packet, DROP_TOO_BIG, index, PACKET_ICMP_TOO_BIG, way->mtu,
			NO_TUNNEL);
	else if (way->reason != DROP_NONE)
		worker_drop_of_tunnel(worker, packet, way->reason, index);
	else if (!later_split(worker, packet, LATER_SPLIT_TO_TUNNEL, index, way->mtu, index))
		worker_drop_of_tunnel(worker, packet, DROP_TOO_BIG, index);
}

// Drops the packets of [begin, end) that can't go this way, and moves the others to `at`, where
// leaving->count then ends. Bytes of those.
static __attribute__((noinline)) uint64_t refuse_some(struct worker *worker,
	struct leaving *leaving, const struct way *way, unsigned int begin, unsigned int end,
	unsigned int at)
{
	uint64_t bytes = 0;
	for (unsigned int i = begin; i < end; i++) {
		struct rte_mbuf *packet = leaving->packets[i];
		uint32_t tunnel = leaving->tunnels[i];
		if (packet->pkt_len > way->mtu) {
			refuse_too_big(worker, packet, tunnel, way);
		} else if (way->reason != DROP_NONE) {
			worker_drop_of_tunnel(worker, packet, way->reason, tunnel);
		} else {
			bytes += packet->pkt_len;
			leaving->packets[at] = packet;
			leaving->tunnels[at++] = tunnel;
		}
	}
	leaving->count = at;
	return bytes;
}

// Pads the packets from `at` on behind the inner packet (TFC padding, RFC 4303 section 2.7), as far
// as the MTU lets them be. Their pkt_len stays that of the inner packet, until encapsulation. One
// whose buffer has no room for it is refused there (NO_HEADROOM): it must not show its size.
static __attribute__((noinline)) void pad(
	const struct leaving *leaving, const struct way *way, unsigned int at)
{
	uint32_t size = RTE_MIN(way->tfc, way->mtu);
	for (unsigned int i = at; i < leaving->count; i++) {
		struct rte_mbuf *packet = leaving->packets[i];
		if (packet->data_len >= size || packet->nb_segs != 1)
			continue;
		if (packet->data_off + size <= packet->buf_len)
			memset(rte_pktmbuf_mtod_offset(packet, void *, packet->data_len), 0,
				size - packet->data_len);
		packet->data_len = (uint16_t)size;
	}
}

static unsigned int end_of_run(const uint32_t *tunnels, unsigned int begin, unsigned int count)
{
	unsigned int end = begin + 1;
	while (end < count && tunnels[end] == tunnels[begin])
		end++;
	return end;
}

// Finds the way of packets [begin, end), which share a tunnel. All before leaving->count have one.
static inline void find_way(struct worker *worker, struct leaving *leaving, unsigned int begin,
	unsigned int end, bool prefetch)
{
	struct way way = read_way(worker, leaving->tunnels[begin]);
	if (prefetch && way.sa != NULL)
		esp_sa_out_prefetch(worker->esp, way.sa);
	const unsigned int at = leaving->count, count = end - begin;
	struct rte_mbuf *const *packets = leaving->packets + begin;
	struct esp_sa_out **sas = leaving->sas + at;
	uint32_t largest = 0;
	uint64_t bytes = 0;
	for (unsigned int i = 0; i < count; i++) {
		uint32_t size = packets[i]->pkt_len;
		bytes += size;
		largest = RTE_MAX(largest, size);
	}
	for (unsigned int i = 0; i < count; i++)
		sas[i] = way.sa;
	leaving->count = at + count;
	if (unlikely(largest > way.mtu || way.reason != DROP_NONE || at != begin))
		bytes = refuse_some(worker, leaving, &way, begin, end, at);
	if (unlikely(way.tfc != 0))
		pad(leaving, &way, at);
	leaving->runs[leaving->run_count++] = (struct run){
		.tunnel = leaving->tunnels[begin],
		.adjacency = way.adjacency,
		.count = leaving->count - at,
		.bytes = bytes,
	};
}

// Drops what encapsulation refused, which is as it was, and closes the gaps.
static __attribute__((noinline)) void drop_refused(
	struct worker *worker, const uint8_t *drops, struct leaving *leaving)
{
	unsigned int good = 0, i = 0;
	for (unsigned int r = 0; r < leaving->run_count; r++) {
		struct run *run = &leaving->runs[r];
		for (unsigned int end = i + run->count; i < end; i++) {
			struct rte_mbuf *packet = leaving->packets[i];
			if (drops[i] == DROP_NONE) {
				leaving->tunnels[good] = run->tunnel;
				leaving->packets[good++] = packet;
				continue;
			}
			run->count--;
			run->bytes -= packet->pkt_len;
			worker_drop_of_tunnel(worker, packet, drops[i], run->tunnel);
		}
	}
	leaving->count = good;
}

// Tunnels often have one next hop: their runs are sent together.
static void send_runs(struct worker *worker, const struct leaving *leaving)
{
	unsigned int begin = 0;
	stage_enter(&worker->stages, STAGE_TRANSMIT, leaving->count);
	for (unsigned int i = 0; i < leaving->run_count;) {
		const uint32_t adjacency = leaving->runs[i].adjacency;
		unsigned int count = 0;
		for (; i < leaving->run_count && leaving->runs[i].adjacency == adjacency; i++) {
			const struct run *run = &leaving->runs[i];
			worker->slot->tunnels[run->tunnel].out_packets += run->count;
			worker->slot->tunnels[run->tunnel].out_bytes += run->bytes;
			count += run->count;
		}
		if (unlikely(count == 0))
			continue;
		transmit_run(worker, adjacency, leaving->packets + begin, leaving->tunnels + begin,
			count, TRANSMIT_ESP);
		begin += count;
	}
}

// `groups`: how many tunnels there are, or more.
static void encapsulate_grouped(struct worker *worker, struct rte_mbuf **packets, uint32_t *tunnels,
	unsigned int count, unsigned int groups)
{
	struct leaving leaving;
	uint8_t drops[BURST_MAX];
	leaving.count = leaving.run_count = 0;
	leaving.packets = packets;
	leaving.tunnels = tunnels;
	for (unsigned int begin = 0, end; begin < count; begin = end) {
		end = groups == 1 ? count : end_of_run(tunnels, begin, count);
		find_way(worker, &leaving, begin, end, groups > GROUPS_FEW);
	}
	if (unlikely(leaving.count == 0))
		return;
	if (unlikely(esp_encapsulate(worker->esp, packets, leaving.sas, drops, leaving.count) != 0))
		drop_refused(worker, drops, &leaving);
	send_runs(worker, &leaving);
}

void encapsulate_burst(
	struct worker *worker, struct rte_mbuf **packets, uint32_t *tunnels, unsigned int count)
{
	struct rte_mbuf *grouped[BURST_MAX];
	uint32_t their_tunnels[BURST_MAX];
	uint8_t order[BURST_MAX];
	stage_enter(&worker->stages, STAGE_ENCAPSULATE, count);
	unsigned int groups = group_by_tunnel(tunnels, count, order);
	if (likely(groups == 1)) {
		encapsulate_grouped(worker, packets, tunnels, count, groups);
		return;
	}
	for (unsigned int i = 0; i < count; i++) {
		grouped[i] = packets[order[i]];
		their_tunnels[i] = tunnels[order[i]];
	}
	encapsulate_grouped(worker, grouped, their_tunnels, count, groups);
}
