// SPDX-License-Identifier: BSD-3-Clause
// Copyright (c) 2026 the espgw authors

// Bursts of one receive queue that several workers run at once (private to lib/dataplane).
//
// A NIC puts all packets of one SA on one queue: SPI and addresses are the same. One worker polls
// it, the receiver. When it can't keep up and other workers are idle, it lists bursts as they
// arrive. Whoever is free, the receiver or a helper, takes the oldest burst that nobody has taken,
// and runs it up to the frames to send. The receiver sends these on in the order of arrival.
//
// - Nobody waits. A burst that no helper takes is the receiver's own. One that was taken is ended
//   by its taker; if that is slow (it may have lost its core), the receiver goes on with the others
//   until the list is full, and then with its other queues, and looks again in each loop.
// - The list is short, so a packet is overtaken in the replay window by few others:
//   SHARE_BURSTS - 1 bursts. Windows that this could matter to forbid sharing (share.c).
// - The list holds mbufs and what the tables said of them as indexes of tunnels and ports, which
//   stay as long as the workers run. A burst's SAs, routes and adjacencies are looked up and left
//   by one worker within one of its loops. So its quiescent states need not be held back by bursts
//   in the list, neither the helper's nor the receiver's: nothing that is reclaimed is reached from
//   it.

#pragma once

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include <rte_common.h>
#include <rte_mbuf.h>

#include "config/config.h"
#include "esp/esp.h"

#define SHARE_BURSTS 8u // in the list at once, at most

struct share_burst {
	_Atomic bool done; // run, and ready to be sent
	bool helped;       // by another worker than the receiver
	uint8_t port;      // where it came in
	uint8_t received;  // packets
	uint8_t count;     // frames to send, once it has been run
	uint8_t run_count; // frames to send lie together by port, in the order of arrival
	uint8_t run_ports[CONFIG_PORTS], run_counts[CONFIG_PORTS];
	uint64_t bytes; // that were received; known once it has been run
	struct rte_mbuf *packets[ESP_BURST_MAX] __rte_cache_aligned;
	uint32_t tunnels[ESP_BURST_MAX] __rte_cache_aligned; // see struct worker_output
} __rte_cache_aligned;

// The three numbers count bursts since the start: sent <= claimed <= offered <= sent +
// SHARE_BURSTS.
struct share_list {
	_Atomic uint64_t offered __rte_cache_aligned; // the receiver's to write
	_Atomic uint64_t claimed __rte_cache_aligned; // everybody's
	uint64_t sent __rte_cache_aligned;            // the receiver's alone
	struct share_burst bursts[SHARE_BURSTS];      // number n is bursts[n % SHARE_BURSTS]
};

// Receiver: the burst to fill in next, or NULL when `depth` (<= SHARE_BURSTS) are in the list.
static inline struct share_burst *share_list_room(struct share_list *list, unsigned int depth)
{
	uint64_t offered = atomic_load_explicit(&list->offered, memory_order_relaxed);
	return offered - list->sent < depth ? &list->bursts[offered % SHARE_BURSTS] : NULL;
}

// Receiver: what share_list_room gave is filled in, and may be taken.
static inline void share_list_offer(struct share_list *list)
{
	uint64_t offered = atomic_load_explicit(&list->offered, memory_order_relaxed);
	struct share_burst *burst = &list->bursts[offered % SHARE_BURSTS];
	atomic_store_explicit(&burst->done, false, memory_order_relaxed);
	atomic_store_explicit(&list->offered, offered + 1, memory_order_release);
}

// Any worker: takes the oldest burst that nobody has taken; NULL when there is none. It is the
// caller's until share_burst_finish.
static inline struct share_burst *share_list_claim(struct share_list *list, uint64_t *number)
{
	uint64_t claimed = atomic_load_explicit(&list->claimed, memory_order_relaxed);
	// It may have grown meanwhile: then the newest is missed, and nothing taken too early.
	uint64_t offered = atomic_load_explicit(&list->offered, memory_order_acquire);
	while ((int64_t)(offered - claimed) > 0) {
		if (!atomic_compare_exchange_weak_explicit(&list->claimed, &claimed, claimed + 1,
			    memory_order_acquire, memory_order_relaxed))
			continue;
		*number = claimed;
		return &list->bursts[claimed % SHARE_BURSTS];
	}
	return NULL;
}

static inline void share_burst_finish(struct share_burst *burst)
{
	atomic_store_explicit(&burst->done, true, memory_order_release);
}

// Receiver: the oldest burst that has not been sent, if it is ready. After sending,
// share_list_next.
static inline struct share_burst *share_list_ready(struct share_list *list)
{
	struct share_burst *burst = &list->bursts[list->sent % SHARE_BURSTS];
	if (list->sent == atomic_load_explicit(&list->offered, memory_order_relaxed) ||
		!atomic_load_explicit(&burst->done, memory_order_acquire))
		return NULL;
	return burst;
}

static inline void share_list_next(struct share_list *list)
{
	list->sent++;
}

static inline bool share_list_is_empty(const struct share_list *list)
{
	return list->sent == atomic_load_explicit(&list->offered, memory_order_relaxed);
}
