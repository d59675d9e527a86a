// SPDX-License-Identifier: BSD-3-Clause
// Copyright (c) 2026 the espgw authors

// A thread for each worker beyond the first. They take tasks from one word that they poll, as a
// worker polls its queues: no system call disturbs what is measured.

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>

#include <rte_pause.h>

#include "bench.h"

struct member {
	unsigned int worker;
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

static int start(struct member *member, int core)
{
	cpu_set_t one;
	pthread_attr_t attributes;
	CPU_ZERO(&one);
	CPU_SET((size_t)core, &one);
	if (pthread_attr_init(&attributes) != 0)
		return -1;
	int result = pthread_attr_setaffinity_np(&attributes, sizeof(one), &one);
	if (result == 0)
		result = pthread_create(&member->thread, &attributes, serve, member);
	pthread_attr_destroy(&attributes);
	return result;
}

int bench_team_create(const struct bench_gateway *gateway, struct bench_error *error)
{
	team_size = gateway->worker_count;
	for (unsigned int i = 1; i < team_size; i++) {
		members[i].worker = i;
		members[i].started = start(&members[i], gateway->workers[i].core) == 0;
		if (!members[i].started)
			return bench_fail(error, "worker %u does not start on core %d", i,
				gateway->workers[i].core);
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
