// SPDX-License-Identifier: BSD-3-Clause
// Copyright (c) 2026 the espgw authors

#include "reclaim/reclaim.h"

#include <stdlib.h>
#include <sys/queue.h>
#include <time.h>

#include <rte_malloc.h>

// Between two looks at the workers: a burst takes them a few microseconds.
enum { WAIT_NANOSECONDS = 50000 };

struct deferred {
	STAILQ_ENTRY(deferred) next;
	uint64_t token;
	void (*function)(void *);
	void *argument;
};

struct reclaim {
	struct rte_rcu_qsbr *qsbr;     // first: reclaim_qsbr reads it
	STAILQ_HEAD(, deferred) queue; // tokens never decrease from head to tail
	unsigned int waiting;
};

struct reclaim *reclaim_create(unsigned int workers)
{
	struct reclaim *reclaim = calloc(1, sizeof(*reclaim));
	if (reclaim == NULL)
		return NULL;
	STAILQ_INIT(&reclaim->queue);
	reclaim->qsbr =
		rte_zmalloc("reclaim", rte_rcu_qsbr_get_memsize(workers), RTE_CACHE_LINE_SIZE);
	if (reclaim->qsbr == NULL || rte_rcu_qsbr_init(reclaim->qsbr, workers) != 0) {
		rte_free(reclaim->qsbr);
		free(reclaim);
		return NULL;
	}
	return reclaim;
}

static void run_head(struct reclaim *reclaim)
{
	struct deferred *deferred = STAILQ_FIRST(&reclaim->queue);
	STAILQ_REMOVE_HEAD(&reclaim->queue, next);
	reclaim->waiting--;
	deferred->function(deferred->argument);
	free(deferred);
}

void reclaim_destroy(struct reclaim *reclaim)
{
	if (reclaim == NULL)
		return;
	while (!STAILQ_EMPTY(&reclaim->queue))
		run_head(reclaim);
	rte_free(reclaim->qsbr);
	free(reclaim);
}

void reclaim_defer(struct reclaim *reclaim, void (*function)(void *), void *argument)
{
	struct deferred *deferred = malloc(sizeof(*deferred));
	if (deferred == NULL) {
		// Waiting is the one thing left that is safe; what was deferred earlier goes first.
		reclaim_synchronize(reclaim);
		function(argument);
		return;
	}
	*deferred = (struct deferred){
		.token = rte_rcu_qsbr_start(reclaim->qsbr),
		.function = function,
		.argument = argument,
	};
	STAILQ_INSERT_TAIL(&reclaim->queue, deferred, next);
	reclaim->waiting++;
}

unsigned int reclaim_poll(struct reclaim *reclaim)
{
	struct deferred *deferred;
	while ((deferred = STAILQ_FIRST(&reclaim->queue)) != NULL &&
		rte_rcu_qsbr_check(reclaim->qsbr, deferred->token, false) == 1)
		run_head(reclaim);
	return reclaim->waiting;
}

void reclaim_synchronize(struct reclaim *reclaim)
{
	reclaim_wait(reclaim, rte_rcu_qsbr_start(reclaim->qsbr));
	reclaim_poll(reclaim);
}

void reclaim_wait(struct reclaim *reclaim, uint64_t token)
{
	const struct timespec pause = {.tv_nsec = WAIT_NANOSECONDS};
	while (rte_rcu_qsbr_check(reclaim->qsbr, token, false) == 0)
		nanosleep(&pause, NULL);
}

void reclaim_worker_online(struct reclaim *reclaim, unsigned int worker)
{
	rte_rcu_qsbr_thread_register(reclaim->qsbr, worker);
	rte_rcu_qsbr_thread_online(reclaim->qsbr, worker);
}

void reclaim_worker_offline(struct reclaim *reclaim, unsigned int worker)
{
	rte_rcu_qsbr_thread_offline(reclaim->qsbr, worker);
	rte_rcu_qsbr_thread_unregister(reclaim->qsbr, worker);
}
