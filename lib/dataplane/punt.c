// SPDX-License-Identifier: BSD-3-Clause
// Copyright (c) 2026 the espgw authors

// Packets for the host's kernel: rate-limited, then onto the ring that control drains.

#include <rte_cycles.h>

#include "internal.h"

bool token_take(struct token_bucket *bucket, uint32_t reserve)
{
	uint64_t now = rte_rdtsc();
	uint64_t tokens = (now - bucket->refilled) / bucket->cycles_per_token;
	if (tokens != 0) {
		bucket->refilled += tokens * bucket->cycles_per_token;
		tokens += bucket->tokens;
		bucket->tokens = tokens < bucket->size ? (uint32_t)tokens : bucket->size;
	}
	if (bucket->tokens <= reserve)
		return false;
	bucket->tokens--;
	return true;
}

static void punt(struct worker *worker, struct rte_mbuf *packet, uint32_t destination, bool urgent,
	uint32_t tunnel)
{
	enum stage before = stage_enter(&worker->stages, STAGE_HOST, 1);
	packet->port = (uint16_t)(worker->source - worker->slot->sources);
	packet->hash.usr = destination;
	if (unlikely(!token_take(&worker->punt, urgent ? 0 : worker->punt_reserve)))
		worker_drop_of_tunnel(worker, packet, DROP_HOST_RATE, tunnel);
	else if (unlikely(rte_ring_sp_enqueue(worker->to_host, packet) != 0))
		worker_drop_of_tunnel(worker, packet, DROP_HOST_RING_FULL, tunnel);
	stage_resume(&worker->stages, before);
}

void punt_frame(
	struct worker *worker, struct rte_mbuf *packet, const struct port *port, bool urgent)
{
	punt(worker, packet, port->index, urgent, NO_TUNNEL);
}

void punt_ip(struct worker *worker, struct rte_mbuf *packet, uint32_t tunnel)
{
	punt(worker, packet, tunnel | HOST_TUNNEL, false, tunnel);
}
