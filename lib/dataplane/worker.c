// SPDX-License-Identifier: BSD-3-Clause
// Copyright (c) 2026 the espgw authors

// A worker's loop: polls its queues, runs each burst to completion, and reports quiescence.

#include <sys/resource.h>

#include <rte_cycles.h>
#include <rte_lcore.h>

#include "internal.h"

// A tenth of the weight of other programs. Not the lowest, 19: Linux 6.18 was seen to starve kernel
// threads for a minute beside a thread of that weight which never sleeps.
#define LOW_PRIORITY_NICE 10

void worker_free_drops(struct worker *worker)
{
	if (worker->free_count == 0)
		return;
	enum stage before = stage_enter(&worker->stages, STAGE_DROP, worker->free_count);
	rte_pktmbuf_free_bulk(worker->free_packets, worker->free_count);
	worker->free_count = 0;
	stage_resume(&worker->stages, before);
}

// At most one of a kind in an interval.
static bool may_tell(struct worker *worker, enum worker_event_kind kind)
{
	uint64_t now = rte_rdtsc();
	if (now < worker->event_next[kind])
		return false;
	worker->event_next[kind] = now + worker->event_interval;
	return true;
}

void worker_event(struct worker *worker, enum worker_event_kind kind, uint32_t index,
	const struct packet_address *address, uint16_t port)
{
	// An adjacency is wanted once, and a move is told once a second and SA.
	if (kind != WORKER_EVENT_WANTED && kind != WORKER_EVENT_PEER_MOVED &&
		!may_tell(worker, kind))
		return;
	struct worker_event event = {.kind = kind, .index = index, .port = port};
	if (address != NULL)
		event.address = *address;
	// A full ring loses the event: the next packet of its kind tells again.
	if (rte_ring_sp_enqueue_elem(worker->events, &event, sizeof(event)) != 0 &&
		kind == WORKER_EVENT_WANTED)
		atomic_store_explicit(
			&worker->dataplane->adjacencies[index].wanted, false, memory_order_relaxed);
}

// The next packet that is too large brings another one, where one is lost here.
void worker_event_too_big(struct worker *worker, const struct packet_too_big *message)
{
	struct worker_event event = {.kind = WORKER_EVENT_TOO_BIG, .too_big = *message};
	if (may_tell(worker, WORKER_EVENT_TOO_BIG))
		rte_ring_sp_enqueue_elem(worker->events, &event, sizeof(event));
}

// Counts full bursts: when they do not end, the worker does not keep up.
static inline void note_burst(struct worker *worker, struct worker_poll *poll, unsigned int count)
{
	poll->full = count >= SHARE_FULL ? poll->full + 1 : 0;
	if (unlikely(poll->full >= SHARE_AFTER))
		share_consider(worker, poll);
}

static unsigned int poll_queue(struct worker *worker, struct worker_poll *poll)
{
	struct rte_mbuf *packets[BURST_MAX];
	const struct port *port = poll->port;
	if (unlikely(!atomic_load_explicit(&port->usable, memory_order_relaxed)))
		return 0;
	stage_enter(&worker->stages, STAGE_RECEIVE, 0);
	if (unlikely(worker->share != NULL && worker->share->poll == poll))
		return share_receive(worker, poll);
	unsigned int count = rte_eth_rx_burst(
		port->id, poll->queue, packets, (uint16_t)worker->dataplane->config->burst);
	stage_received(&worker->stages, count);
	if (count == 0)
		return 0;
	worker_note_busy(worker);
	struct telemetry_queue *queue = &worker->slot->queues[port->index];
	struct telemetry_source *source = &worker->slot->sources[port->index];
	uint64_t bytes = source->received_bytes;
	receive_burst(worker, port, packets, count);
	transmit_flush(worker);
	worker_free_drops(worker);
	if (unlikely(worker->later_count != 0))
		later_run(worker);
	queue->rx_packets += count;
	queue->rx_bytes += source->received_bytes - bytes;
	if (worker->share != NULL)
		note_burst(worker, poll, count);
	return count;
}

static unsigned int poll_all(struct worker *worker)
{
	unsigned int count = 0;
	for (unsigned int i = 0; i < worker->poll_count; i++)
		count += poll_queue(worker, &worker->polls[i]);
	return count;
}

static unsigned int poll_host(struct worker *worker)
{
	if (rte_ring_empty(worker->from_host))
		return 0;
	worker_note_busy(worker);
	return inject_burst(worker);
}

// First in each loop, so that probes wait for no traffic, and find the room that the TX queue has
// got since the last one.
static unsigned int poll_probes(struct worker *worker)
{
	if (likely(rte_ring_empty(worker->probes) && worker->late_count == 0))
		return 0;
	worker_note_busy(worker);
	return probe_burst(worker);
}

static unsigned int poll_fragments(struct worker *worker)
{
	if (unlikely(!reassembly_is_empty(worker->reassembly)))
		fragments_expire(worker);
	if (likely(worker->fragments == NULL || rte_ring_empty(worker->fragments)))
		return 0;
	return fragments_receive(worker);
}

static inline void follow_stages(struct worker *worker)
{
	bool wanted = atomic_load_explicit(
		&worker->dataplane->telemetry->stages_wanted, memory_order_relaxed);
	if (unlikely(wanted != worker->stages.on))
		stage_clock_set(&worker->stages, wanted);
}

unsigned int worker_loop(struct worker *worker)
{
	unsigned int count = poll_probes(worker);
	count += poll_all(worker);
	count += poll_host(worker);
	count += poll_fragments(worker);
	if (worker->share != NULL)
		count += share_step(worker, count);
	if (unlikely(worker->later_count != 0)) // what else than a poll has left
		later_run(worker);
	return count;
}

void worker_drain(struct worker *worker)
{
	if (worker->share != NULL)
		share_drain(worker);
	while (inject_burst(worker) != 0)
		;
	later_run(worker);
	probe_drain(worker);
}

int worker_main(void *argument)
{
	struct worker *worker = argument;
	struct dataplane *dataplane = worker->dataplane;
	struct telemetry_slot *slot = worker->slot;
	if (dataplane->config->worker_priority == CONFIG_PRIORITY_LOW)
		setpriority(
			PRIO_PROCESS, 0, LOW_PRIORITY_NICE); // of this thread: Linux counts threads
	reclaim_worker_online(dataplane->reclaim, worker->index);
	atomic_store(&worker->running, true);
	slot->started = rte_rdtsc();
	while (!atomic_load_explicit(&dataplane->stopping, memory_order_relaxed)) {
		follow_stages(worker);
		unsigned int count = worker_loop(worker);
		slot->loops++;
		slot->busy_loops += count != 0;
		if (count == 0 && telemetry_is_busy(slot))
			telemetry_end_busy(slot);
		reclaim_quiescent(dataplane->reclaim, worker->index);
	}
	worker_drain(worker);
	reclaim_worker_offline(dataplane->reclaim, worker->index);
	atomic_store(&worker->running, false);
	return 0;
}
