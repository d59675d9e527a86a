// SPDX-License-Identifier: BSD-3-Clause
// Copyright (c) 2026 the espgw authors

// What a burst leaves to be done after it, because it makes packets of its own or more packets than
// there were: ICMP messages to send, and packets to split into fragments.

#include "internal.h"

bool later_split(struct worker *worker, struct rte_mbuf *packet, enum later_kind kind,
	uint32_t index, uint32_t mtu, uint32_t tunnel)
{
	if (worker->later_count == LATER_MAX)
		return false;
	worker->later[worker->later_count++] = (struct later){
		.packet = packet,
		.source = worker->source,
		.kind = kind,
		.index = index,
		.mtu = mtu,
		.tunnel = tunnel,
	};
	return true;
}

static void send_fragments(struct worker *worker, const struct later *later,
	struct rte_mbuf **packets, unsigned int count)
{
	uint32_t tunnels[BURST_MAX];
	for (unsigned int i = 0; i < count; i++)
		tunnels[i] = later->kind == LATER_SPLIT_TO_TUNNEL ? later->index : later->tunnel;
	if (later->kind == LATER_SPLIT_TO_TUNNEL)
		encapsulate_burst(worker, packets, tunnels, count);
	else
		transmit_run(worker, later->index, packets, tunnels, count, TRANSMIT_CLEARTEXT);
}

// A buffer of its own for each fragment: encryption changes them in place, so they can't share the
// packet's.
static struct rte_mbuf *make_fragment(struct worker *worker, struct packet_split *split)
{
	struct rte_mbuf *fragment = rte_pktmbuf_alloc(worker->dataplane->ports[0].pool);
	if (fragment == NULL)
		return NULL;
	uint32_t size = packet_split_next(split, rte_pktmbuf_mtod(fragment, uint8_t *));
	fragment->data_len = (uint16_t)size;
	fragment->pkt_len = size;
	return fragment;
}

// Makes a burst of fragments at a time. The packet's own place in the balance is the last one's, or
// the drop's when no buffer is free; the others count as split.
static void split(struct worker *worker, const struct later *later)
{
	struct packet_split split;
	struct rte_mbuf *fragments[BURST_MAX];
	struct rte_mbuf *packet = later->packet;
	if (!packet_split_begin(&split, rte_pktmbuf_mtod(packet, const uint8_t *), packet->data_len,
		    later->mtu, worker->identification++)) {
		worker_drop_of_tunnel(worker, packet, DROP_TOO_BIG, later->tunnel);
		return;
	}
	while (split.left != 0) {
		unsigned int count = 0;
		struct rte_mbuf *fragment = NULL;
		while (count < BURST_MAX && split.left != 0 &&
			(fragment = make_fragment(worker, &split)) != NULL)
			fragments[count++] = fragment;
		worker->source->split += count;
		if (count != 0)
			send_fragments(worker, later, fragments, count);
		if (fragment == NULL) {
			worker_drop_of_tunnel(worker, packet, DROP_NO_BUFFER, later->tunnel);
			return;
		}
	}
	worker->source->split--;
	rte_pktmbuf_free(packet);
}

static void run(struct worker *worker, const struct later *later)
{
	struct telemetry_source *source = &worker->slot->sources[TELEMETRY_SOURCE_GATEWAY];
	if (later->kind != LATER_MESSAGE)
		source = later->source;
	if (source != worker->source) {
		transmit_flush(worker); // what is sent counts for its own source
		worker->source = source;
	}
	if (later->kind != LATER_MESSAGE) {
		split(worker, later);
		return;
	}
	source->received++;
	source->received_bytes += later->packet->pkt_len;
	forward_own(worker, later->packet);
}

// The list may grow meanwhile: a tunnel's MTU can have shrunk since.
void later_run(struct worker *worker)
{
	stage_enter(&worker->stages, STAGE_FORWARD, worker->later_count);
	for (unsigned int i = 0; i < worker->later_count; i++) {
		const struct later later = worker->later[i];
		run(worker, &later);
	}
	worker->later_count = 0;
	transmit_flush(worker);
	worker_free_drops(worker);
}
