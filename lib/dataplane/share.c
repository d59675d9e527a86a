// SPDX-License-Identifier: BSD-3-Clause
// Copyright (c) 2026 the espgw authors

// Several workers for one queue: when it is shared, by whom a burst is run, and sending it on.

#include <rte_cycles.h>
#include <rte_lcore.h>
#include <rte_malloc.h>
#include <rte_pause.h>
#include <rte_prefetch.h>

#include "internal.h"

#define SHARE_IDLE_LOOPS 64   // without a packet: the worker is idle
#define SHARE_END_HZ     1000 // a queue that had no full burst for 1/1000 s is not shared any more

// Packets of the list that can overtake one in its replay window are at most half of the window.
_Static_assert(2 * SHARE_BURSTS * BURST_MAX <= TUNNEL_WINDOW_NARROW, "late packets are not lost");
_Static_assert(CONFIG_WORKERS <= 64, "a bit for each");

// Between sockets, packets would cost more to move than they do to run. Worker i is lcore i + 1.
static uint64_t find_peers(const struct worker *worker)
{
	uint64_t peers = 0;
	for (unsigned int i = 0; i < worker->dataplane->worker_count; i++)
		if (i != worker->index &&
			rte_lcore_to_socket_id(i + 1) == rte_lcore_to_socket_id(worker->index + 1))
			peers |= UINT64_C(1) << i;
	return peers;
}

bool share_create(struct worker *worker)
{
	const struct config *config = worker->dataplane->config;
	if (config->share == CONFIG_SHARE_OFF || config->worker_count == 1)
		return true;
	worker->share = rte_zmalloc("share", sizeof(*worker->share), RTE_CACHE_LINE_SIZE);
	if (worker->share == NULL)
		return false;
	worker->share->peers = find_peers(worker);
	worker->share->end_after = rte_get_tsc_hz() / SHARE_END_HZ;
	return true;
}

static void set_bit(_Atomic uint64_t *word, const struct worker *worker)
{
	atomic_fetch_or_explicit(word, UINT64_C(1) << worker->index, memory_order_relaxed);
}

static void clear_bit(_Atomic uint64_t *word, const struct worker *worker)
{
	atomic_fetch_and_explicit(word, ~(UINT64_C(1) << worker->index), memory_order_relaxed);
}

// ---- Running a burst ----

// Moves what the burst left to send into it.
static void take_output(struct worker *worker, struct share_burst *burst)
{
	burst->count = burst->run_count = 0;
	for (; worker->outputs != 0; worker->outputs &= worker->outputs - 1) {
		uint8_t port = (uint8_t)__builtin_ctzll(worker->outputs);
		struct worker_output *output = &worker->output[port];
		memcpy(burst->packets + burst->count, output->packets,
			output->count * sizeof(burst->packets[0]));
		memcpy(burst->tunnels + burst->count, output->tunnels,
			output->count * sizeof(burst->tunnels[0]));
		burst->run_ports[burst->run_count] = port;
		burst->run_counts[burst->run_count++] = (uint8_t)output->count;
		burst->count = (uint8_t)(burst->count + output->count);
		output->count = 0;
	}
}

// All of a packet's way but sending.
static void run(struct worker *worker, struct share_burst *burst)
{
	struct telemetry_source *source = &worker->slot->sources[burst->port];
	uint64_t bytes = source->received_bytes;
	receive_burst(
		worker, &worker->dataplane->ports[burst->port], burst->packets, burst->received);
	burst->bytes = source->received_bytes - bytes;
}

static void run_for_later(struct worker *worker, struct share_burst *burst, bool helped)
{
	run(worker, burst);
	take_output(worker, burst);
	worker_free_drops(worker);
	burst->helped = helped;
	share_burst_finish(burst);
}

// ---- The receiver ----

static void give_output(struct worker *worker, const struct share_burst *burst)
{
	unsigned int begin = 0;
	for (unsigned int i = 0; i < burst->count; i++)
		rte_prefetch0(burst->packets[i]);
	for (unsigned int i = 0; i < burst->run_count; i++) {
		struct worker_output *output = &worker->output[burst->run_ports[i]];
		unsigned int count = burst->run_counts[i];
		memcpy(output->packets, burst->packets + begin, count * sizeof(burst->packets[0]));
		memcpy(output->tunnels, burst->tunnels + begin, count * sizeof(burst->tunnels[0]));
		output->count = count;
		worker->outputs |= UINT64_C(1) << burst->run_ports[i];
		begin += count;
	}
}

// What the worker's output holds, as this burst's.
static void send_on(struct worker *worker, const struct share_burst *burst)
{
	worker->source = &worker->slot->sources[burst->port];
	transmit_flush(worker);
	worker_free_drops(worker);
	worker->slot->queues[burst->port].rx_bytes += burst->bytes;
	share_list_next(&worker->share->list);
}

static void send_ready(struct worker *worker)
{
	struct share_burst *burst;
	while ((burst = share_list_ready(&worker->share->list)) != NULL) {
		give_output(worker, burst);
		worker->slot->shared_packets += burst->helped ? burst->received : 0;
		send_on(worker, burst);
	}
}

// Runs one burst, if there is one to be taken, and sends all that is ready. One whose turn it is to
// be sent goes out right away.
static void advance(struct worker *worker)
{
	struct share_list *list = &worker->share->list;
	uint64_t number;
	send_ready(worker);
	struct share_burst *burst = share_list_claim(list, &number);
	if (burst == NULL)
		return;
	if (number != list->sent) {
		run_for_later(worker, burst, false);
	} else {
		run(worker, burst);
		send_on(worker, burst);
	}
	send_ready(worker);
}

static unsigned int count_idle(const struct worker *worker)
{
	uint64_t idle = atomic_load_explicit(&worker->dataplane->board.idle, memory_order_relaxed);
	return (unsigned int)__builtin_popcountll(idle & worker->share->peers);
}

// Somebody can help, and no SA can lose packets by it.
static bool may_share(const struct worker *worker)
{
	return count_idle(worker) != 0 && !tunnel_has_narrow_window(worker->dataplane->tunnels);
}

// As many as one call takes: what moves between the cores for a burst is the same for a large one.
static unsigned int fill(
	struct worker *worker, const struct worker_poll *poll, struct share_burst *burst)
{
	unsigned int wanted = worker->dataplane->config->burst, count = 0, received;
	do {
		received = rte_eth_rx_burst(
			poll->port->id, poll->queue, burst->packets + count, (uint16_t)wanted);
		count += received;
	} while (received >= SHARE_FULL && count + wanted <= BURST_MAX);
	burst->port = poll->port->index;
	burst->received = (uint8_t)count;
	return count;
}

unsigned int share_receive(struct worker *worker, const struct worker_poll *poll)
{
	struct share *share = worker->share;
	struct share_burst *burst;
	unsigned int received = 0;
	if (!may_share(worker))
		return 0; // until the list is empty and sharing ends
	// For each worker one burst that it runs and one that is ready for it: what lies longer in
	// the list only leaves the caches.
	unsigned int depth = RTE_MIN(2 * (1 + count_idle(worker)), SHARE_BURSTS);
	while ((burst = share_list_room(&share->list, depth)) != NULL) {
		unsigned int count = fill(worker, poll, burst);
		if (count == 0)
			break;
		share_list_offer(&share->list);
		received += count;
		if (count < SHARE_FULL)
			break;
		share->last_full = rte_rdtsc();
	}
	stage_received(&worker->stages, received);
	if (received == 0)
		return 0;
	worker_note_busy(worker);
	worker->slot->queues[poll->port->index].rx_packets += received;
	return received;
}

void share_consider(struct worker *worker, struct worker_poll *poll)
{
	struct share *share = worker->share;
	// Of cleartext, the outbound SA's numbers would leave out of order.
	if (!poll->port->is_outside || share->poll != NULL || !may_share(worker))
		return;
	poll->full = 0;
	share->poll = poll;
	share->last_full = rte_rdtsc();
	set_bit(&worker->dataplane->board.sharing, worker);
}

static void end(struct worker *worker)
{
	clear_bit(&worker->dataplane->board.sharing, worker);
	worker->share->poll = NULL;
}

// Only with nothing in the list: bursts would overtake each other.
static void end_when_over(struct worker *worker)
{
	const struct share *share = worker->share;
	if (!share_list_is_empty(&share->list))
		return;
	if (rte_rdtsc() - share->last_full < share->end_after && may_share(worker))
		return;
	end(worker);
}

// ---- The helper ----

static void note_load(struct worker *worker, unsigned int count)
{
	struct share *share = worker->share;
	if (count != 0) {
		share->idle_loops = 0;
		if (unlikely(share->is_idle))
			clear_bit(&worker->dataplane->board.idle, worker);
		share->is_idle = false;
	} else if (!share->is_idle && ++share->idle_loops == SHARE_IDLE_LOOPS) {
		set_bit(&worker->dataplane->board.idle, worker);
		share->is_idle = true;
	}
}

// One burst of somebody else's, so that the worker's own queues wait for no more. It looks at the
// receivers in turn.
static unsigned int help(struct worker *worker)
{
	const struct dataplane *dataplane = worker->dataplane;
	struct share *share = worker->share;
	uint64_t sharing = atomic_load_explicit(&dataplane->board.sharing, memory_order_relaxed) &
			   share->peers;
	if (likely(sharing == 0))
		return 0;
	uint64_t later = sharing & ~((UINT64_C(2) << share->helped_last) - 1);
	unsigned int receiver = (unsigned int)__builtin_ctzll(later != 0 ? later : sharing);
	share->helped_last = receiver;
	uint64_t number;
	struct share_burst *burst =
		share_list_claim(&dataplane->workers[receiver]->share->list, &number);
	if (burst == NULL)
		return 0;
	worker_note_busy(worker);
	unsigned int count = burst->received; // once it has been run, it is the receiver's again
	run_for_later(worker, burst, true);
	worker->slot->helped_packets += count;
	return count;
}

unsigned int share_step(struct worker *worker, unsigned int count)
{
	note_load(worker, count);
	if (worker->share->poll != NULL) {
		advance(worker);
		end_when_over(worker);
	}
	return count == 0 ? help(worker) : 0;
}

void share_drain(struct worker *worker)
{
	note_load(worker, 1); // it is idle no more
	while (!share_list_is_empty(&worker->share->list)) {
		advance(worker);
		rte_pause();
	}
	end(worker);
}
