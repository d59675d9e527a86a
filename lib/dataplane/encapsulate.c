// SPDX-License-Identifier: BSD-3-Clause
// Copyright (c) 2026 the espgw authors

// Inner packets to ESP: the tunnel's outbound SA, lib/esp, and on to the next hop's MAC.

#include "internal.h"

void encapsulate_burst(struct worker *worker, struct rte_mbuf **packets, const uint32_t *tunnels,
	unsigned int count)
{
	struct esp_sa_out *sas[BURST_MAX];
	uint32_t adjacencies[BURST_MAX], by[BURST_MAX];
	uint32_t inner_sizes[BURST_MAX];
	uint8_t drops[BURST_MAX];
	unsigned int ready = 0;

	for (unsigned int i = 0; i < count; i++) {
		const struct tunnel *tunnel = tunnel_get(worker->dataplane->tunnels, tunnels[i]);
		const struct tunnel_egress *egress =
			atomic_load_explicit(&tunnel->egress, memory_order_acquire);
		enum drop_reason reason = DROP_NONE;
		if (unlikely(packets[i]->pkt_len > tunnel->mtu))
			reason = DROP_TOO_BIG;
		else if (unlikely(egress == NULL))
			reason = DROP_NO_SA;
		else if (unlikely(egress->adjacency == TUNNEL_NO_PATH))
			reason = DROP_NO_PATH;
		if (unlikely(reason != DROP_NONE)) {
			if (reason == DROP_NO_SA)
				worker_event(worker, WORKER_EVENT_NO_SA, tunnels[i], NULL);
			worker_drop_of_tunnel(worker, packets[i], reason, tunnels[i]);
			continue;
		}
		sas[ready] = egress->sa;
		adjacencies[ready] = egress->adjacency;
		by[ready] = tunnels[i];
		inner_sizes[ready] = packets[i]->pkt_len;
		packets[ready++] = packets[i];
	}
	if (ready == 0)
		return;
	esp_encapsulate(worker->esp, packets, sas, drops, ready);
	for (unsigned int i = 0; i < ready; i++) {
		if (unlikely(drops[i] != DROP_NONE)) {
			worker_drop_of_tunnel(worker, packets[i], drops[i], by[i]);
			continue;
		}
		struct telemetry_tunnel *counters = &worker->slot->tunnels[by[i]];
		counters->out_packets++;
		counters->out_bytes += inner_sizes[i];
		transmit_ip(worker, packets[i], adjacencies[i], by[i]);
	}
}
