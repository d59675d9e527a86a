// SPDX-License-Identifier: BSD-3-Clause
// Copyright (c) 2026 the espgw authors

// A thread for each worker beyond the first. They take tasks from one word that they poll, as a
// worker polls its queues: no system call disturbs what is measured.

#include <pthread.h>
#include <stdatomic.h>

#include <rte_pause.h>

#include "bench.h"

struct member {
	unsigned int worker;
	int core;
	pthread_t thread;
	bool started;
	_Atomic(bench_task) task; // NULL = nothing to do
	_Atomic bool stop;
} __rte_cache_aligned;

static struct member members[BENCH_WORKERS_MAX];
static unsigned int team_size;
static void *task_argument;
static _Atomic unsigned int arrivals __rte_cache_aligned; // counts on over all meetings

static void *serve(void *argument)
{
	struct member *self = argument;
	struct bench_error ignored;
	bench_pin_to(self->core, &ignored); // the first one of that core could be pinned, too
	while (!atomic_load(&self->stop)) {
		bench_task task = atomic_load_explicit(&self->task, memory_order_acquire);
		if (task != NULL) {
			task(task_argument, self->worker);
			atomic_store_explicit(&self->task, NULL, memory_order_release);
		}
		rte_pause();
	}
	return NULL;
}

int bench_team_create(const struct bench_gateway *gateway, struct bench_error *error)
{
	team_size = gateway->worker_count;
	for (unsigned int i = 1; i < team_size; i++) {
		members[i].worker = i;
		members[i].core = gateway->workers[i].core;
		if (pthread_create(&members[i].thread, NULL, serve, &members[i]) != 0)
			return bench_fail(error, "no thread for worker %u", i);
		members[i].started = true;
	}
	return 0;
}

void bench_team_destroy(void)
{
	for (unsigned int i = 1; i < team_size; i++) {
		if (!members[i].started)
			continue;
		atomic_store(&members[i].stop, true);
		pthread_join(members[i].thread, NULL);
	}
}

static void wait_for(struct member *member)
{
	while (atomic_load_explicit(&member->task, memory_order_acquire) != NULL)
		rte_pause();
}

void bench_team_run_one(bench_task task, void *argument, unsigned int worker)
{
	if (worker == 0) {
		task(argument, 0);
		return;
	}
	task_argument = argument;
	atomic_store_explicit(&members[worker].task, task, memory_order_release);
	wait_for(&members[worker]);
}

void bench_team_run_all(bench_task task, void *argument)
{
	task_argument = argument;
	for (unsigned int i = 1; i < team_size; i++)
		atomic_store_explicit(&members[i].task, task, memory_order_release);
	task(argument, 0);
	for (unsigned int i = 1; i < team_size; i++)
		wait_for(&members[i]);
}

void bench_team_meet(void)
{
	unsigned int mine = atomic_fetch_add(&arrivals, 1);
	unsigned int all = (mine / team_size + 1) * team_size;
	while (atomic_load(&arrivals) < all)
		rte_pause();
}
