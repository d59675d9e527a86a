// SPDX-License-Identifier: BSD-3-Clause
// Copyright (c) 2026 the espgw authors

// Deferred reclamation: control unlinks an object that workers may still hold, and frees it after
// every worker has passed a quiescent state (rte_rcu_qsbr). Control never waits for a worker.

#pragma once

#include <rte_rcu_qsbr.h>

struct reclaim;

// NULL when there is no memory. Control thread. Needs EAL.
struct reclaim *reclaim_create(unsigned int workers);
// Runs everything that is still deferred; no worker may run any more.
void reclaim_destroy(struct reclaim *reclaim);

// Control thread: calls function(argument) in some later reclaim_poll, when no worker can hold a
// reference that it took before now. The object must be unlinked already.
void reclaim_defer(struct reclaim *reclaim, void (*function)(void *), void *argument);
// Control thread, every few milliseconds: runs what is due. Returns how many still wait.
unsigned int reclaim_poll(struct reclaim *reclaim);
// Control thread: waits until every worker has passed a quiescent state, then runs all that is due.
void reclaim_synchronize(struct reclaim *reclaim);

// Control thread: waits until every worker has passed a quiescent state since rte_rcu_qsbr_start
// gave this token. Sleeps between looks: a worker may share the core and need it to get on.
void reclaim_wait(struct reclaim *reclaim, uint64_t token);

// Worker thread: from _online to _offline it must call _quiescent between bursts.
void reclaim_worker_online(struct reclaim *reclaim, unsigned int worker);
void reclaim_worker_offline(struct reclaim *reclaim, unsigned int worker);
static inline struct rte_rcu_qsbr *reclaim_qsbr(struct reclaim *reclaim)
{
	return *(struct rte_rcu_qsbr **)reclaim; // the first member
}
static inline void reclaim_quiescent(struct reclaim *reclaim, unsigned int worker)
{
	rte_rcu_qsbr_quiescent(reclaim_qsbr(reclaim), worker);
}
