// SPDX-License-Identifier: BSD-3-Clause
// Copyright (c) 2026 the espgw authors

// A worker's part in health checks: sends the probes that control made (health.c), recognises what
// answers them, and answers the far side's. Nothing of this counts as a tunnel's traffic.

#include <rte_cycles.h>

#include "internal.h"

// Encapsulation counts the packet as traffic, which is taken back where it was sent.
static void send_by_tunnel(
	struct worker *worker, struct rte_mbuf *packet, uint32_t tunnel, bool is_own)
{
	struct telemetry_tunnel *counters = &worker->slot->tunnels[tunnel];
	uint64_t packets = counters->out_packets, bytes = counters->out_bytes;
	encapsulate_burst(worker, &packet, &tunnel, 1);
	*(is_own ? &counters->probes_sent : &counters->echoes_answered) +=
		counters->out_packets - packets;
	counters->out_packets = packets;
	counters->out_bytes = bytes;
}

// A packet of `bytes` that came by this tunnel is no traffic of its after all.
static void uncount(struct worker *worker, uint32_t bytes, uint32_t tunnel)
{
	struct telemetry_tunnel *counters = &worker->slot->tunnels[tunnel];
	counters->in_packets--;
	counters->in_bytes -= bytes;
}

// ---- our own probes ----

// Frames that a full TX queue did not take go first in the next loop, when it has room again.
static void send_late(struct worker *worker)
{
	unsigned int left = 0;
	for (unsigned int i = 0; i < worker->late_count; i++) {
		struct late_frame frame = worker->late[i];
		const struct port *port = &worker->dataplane->ports[frame.port];
		struct telemetry_queue *queue = &worker->slot->queues[frame.port];
		uint32_t size = frame.packet->pkt_len;
		if (!atomic_load_explicit(&port->usable, memory_order_relaxed)) {
			worker_drop_of_tunnel(worker, frame.packet, DROP_PORT_DOWN, frame.tunnel);
		} else if (rte_eth_tx_burst(port->id, (uint16_t)worker->index, &frame.packet, 1) ==
			   1) {
			worker->source->forwarded++;
			queue->tx_packets++;
			queue->tx_bytes += size;
		} else {
			worker->late[left++] = frame;
		}
	}
	worker->late_count = left;
}

unsigned int probe_burst(struct worker *worker)
{
	struct rte_mbuf *packets[BURST_MAX];
	worker->source = &worker->slot->sources[TELEMETRY_SOURCE_GATEWAY];
	stage_enter(&worker->stages, STAGE_HOST, 0);
	if (worker->late_count != 0)
		send_late(worker);
	unsigned int count =
		rte_ring_sc_dequeue_burst(worker->probes, (void **)packets, BURST_MAX, NULL);
	for (unsigned int i = 0; i < count; i++) {
		stage_enter(&worker->stages, STAGE_HOST, 1);
		send_by_tunnel(worker, packets[i], packets[i]->hash.usr, true);
	}
	worker->keeps_late = true;
	transmit_flush(worker);
	worker->keeps_late = false;
	worker_free_drops(worker);
	return count;
}

void probe_drain(struct worker *worker)
{
	probe_burst(worker);
	for (unsigned int i = 0; i < worker->late_count; i++)
		worker_drop_of_tunnel(
			worker, worker->late[i].packet, DROP_TX_FULL, worker->late[i].tunnel);
	worker->late_count = 0;
	worker_free_drops(worker);
}

// What this process' probes hold, and nobody else's.
static bool is_own(const struct dataplane *dataplane, const struct packet_echo *echo,
	struct probe_payload *payload)
{
	if (echo->identifier != dataplane->probe_identifier || echo->size != sizeof(*payload))
		return false;
	memcpy(payload, echo->payload, sizeof(*payload));
	return payload->magic == dataplane->probe_magic;
}

// `arrived`: the tunnel, or NO_TUNNEL when the answer came in clear. Whether such is expected of
// the probe's tunnel is control's to see.
static bool take_answer(struct worker *worker, struct rte_mbuf *packet,
	const struct packet_echo *echo, uint32_t arrived)
{
	struct probe_payload payload;
	if (!echo->is_reply || !is_own(worker->dataplane, echo, &payload))
		return false;
	struct probe_answer answer = {
		.received = rte_rdtsc(),
		.cookie = payload.cookie,
		.tunnel = payload.tunnel,
		.arrived = arrived,
		.probe = echo->sequence,
	};
	if (rte_ring_sp_enqueue_elem(worker->answers, &answer, sizeof(answer)) != 0) {
		worker_drop(worker, packet, DROP_HOST_RING_FULL);
		return true;
	}
	worker->source->to_host++; // it has reached whom it was for
	worker_free_later(worker, packet);
	return true;
}

bool probe_take_clear(struct worker *worker, struct rte_mbuf *packet, uint32_t size)
{
	struct packet_echo echo;
	const uint8_t *ip = rte_pktmbuf_mtod_offset(packet, const uint8_t *, ETHERNET_SIZE);
	return packet_echo_read(ip, size, &echo) && take_answer(worker, packet, &echo, NO_TUNNEL);
}

// ---- what comes by a tunnel ----

// An echo request to a tunnel's interface address. The answer goes where its source is routed to.
static bool answer_request(struct worker *worker, struct rte_mbuf *packet,
	struct route_target source, struct route_target target, uint32_t arrived)
{
	if (target.kind != ROUTE_LOCAL_TUNNEL || source.kind != ROUTE_TUNNEL)
		return false;
	uncount(worker, packet->pkt_len, arrived);
	packet_echo_answer(rte_pktmbuf_mtod(packet, uint8_t *));
	send_by_tunnel(worker, packet, source.index, false);
	return true;
}

// A probe of the type "reply": an echo reply from our own interface address, which goes back into
// the tunnel that it came by, as it is routed there. The TTL ends it where both ends do so.
static bool return_reply(struct worker *worker, struct rte_mbuf *packet, struct route_target source,
	struct route_target target, uint32_t arrived)
{
	if (source.kind != ROUTE_LOCAL_TUNNEL || source.index != arrived ||
		target.kind != ROUTE_TUNNEL || target.index != arrived ||
		!packet_ip_decrement_ttl(rte_pktmbuf_mtod(packet, uint8_t *)))
		return false;
	uncount(worker, packet->pkt_len, arrived);
	send_by_tunnel(worker, packet, arrived, false);
	return true;
}

static bool take_reply(struct worker *worker, struct rte_mbuf *packet,
	const struct packet_echo *echo, struct route_target source, struct route_target target,
	uint32_t arrived)
{
	uint32_t size = packet->pkt_len; // it may be gone afterwards
	if (target.kind != ROUTE_LOCAL_TUNNEL || target.index != arrived)
		return return_reply(worker, packet, source, target, arrived);
	if (!take_answer(worker, packet, echo, arrived))
		return false;
	uncount(worker, size, arrived);
	return true;
}

bool probe_take(struct worker *worker, struct rte_mbuf *packet, struct route_target source,
	struct route_target target, uint32_t arrived)
{
	struct packet_echo echo;
	const uint8_t *ip = rte_pktmbuf_mtod(packet, const uint8_t *);
	if (!packet_echo_read(ip, packet->pkt_len, &echo))
		return false;
	enum stage before = stage_enter(&worker->stages, STAGE_HOST, 1);
	bool taken = echo.is_reply ? take_reply(worker, packet, &echo, source, target, arrived)
				   : answer_request(worker, packet, source, target, arrived);
	stage_resume(&worker->stages, before);
	return taken;
}
