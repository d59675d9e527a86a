// SPDX-License-Identifier: BSD-3-Clause
// Copyright (c) 2026 the espgw authors

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>

#include "eal.h"
#include "reclaim/reclaim.h"

static unsigned int order[8], calls;

static void record(void *argument)
{
	order[calls++] = *(unsigned int *)argument;
}

static int reset(void **state)
{
	*state = reclaim_create(2);
	calls = 0;
	return *state == NULL ? -1 : 0;
}

static unsigned int one = 1, two = 2, three = 3;

static void test_without_workers_everything_is_due_at_once(void **state)
{
	struct reclaim *reclaim = *state;
	reclaim_defer(reclaim, record, &one);
	reclaim_defer(reclaim, record, &two);
	assert_int_equal(calls, 0);
	assert_int_equal(reclaim_poll(reclaim), 0);
	assert_int_equal(calls, 2);
	assert_true(order[0] == 1 && order[1] == 2);
	reclaim_defer(reclaim, record, &three);
	reclaim_synchronize(reclaim);
	assert_true(calls == 3 && order[2] == 3);
	reclaim_destroy(reclaim);
}

static void test_every_online_worker_is_waited_for(void **state)
{
	struct reclaim *reclaim = *state;
	reclaim_worker_online(reclaim, 0);
	reclaim_worker_online(reclaim, 1);
	reclaim_defer(reclaim, record, &one);
	reclaim_quiescent(reclaim, 0);
	assert_int_equal(reclaim_poll(reclaim), 1);
	reclaim_defer(reclaim, record, &two);
	reclaim_quiescent(reclaim, 1);
	assert_int_equal(reclaim_poll(reclaim), 1); // worker 0 may hold the second
	assert_int_equal(calls, 1);
	reclaim_quiescent(reclaim, 0);
	assert_int_equal(reclaim_poll(reclaim), 0);
	reclaim_defer(reclaim, record, &three);
	reclaim_worker_offline(reclaim, 0);
	assert_int_equal(reclaim_poll(reclaim), 1);
	reclaim_worker_offline(reclaim, 1);
	assert_int_equal(reclaim_poll(reclaim), 0);
	assert_true(calls == 3 && order[2] == 3);
	reclaim_destroy(reclaim);
}

static void test_destroy_runs_what_is_left(void **state)
{
	struct reclaim *reclaim = *state;
	reclaim_worker_online(reclaim, 0);
	reclaim_defer(reclaim, record, &one);
	reclaim_defer(reclaim, record, &two);
	assert_int_equal(reclaim_poll(reclaim), 2);
	reclaim_destroy(reclaim);
	assert_true(calls == 2 && order[0] == 1 && order[1] == 2);
}

#define SWAPS 20000

static _Atomic(unsigned int *) published;
static atomic_bool stop;

static void bury(void *argument)
{
	*(unsigned int *)argument = UINT32_MAX;
	free(argument);
}

static unsigned int *value(unsigned int number)
{
	unsigned int *result = malloc(sizeof(*result));
	assert_non_null(result);
	*result = number;
	return result;
}

static void *read_until_stopped(void *argument)
{
	struct reclaim *reclaim = argument;
	uintptr_t wrong = 0;
	unsigned int last = 0;
	reclaim_worker_online(reclaim, 1);
	while (!atomic_load_explicit(&stop, memory_order_relaxed)) {
		const unsigned int *seen = atomic_load(&published);
		for (unsigned int i = 0; i < 50; i++)
			wrong += *(const volatile unsigned int *)seen > SWAPS;
		wrong += *seen < last;
		last = *seen;
		reclaim_quiescent(reclaim, 1);
	}
	reclaim_worker_offline(reclaim, 1);
	return (void *)wrong;
}

static void test_a_reader_never_sees_a_freed_object(void **state)
{
	struct reclaim *reclaim = *state;
	pthread_t reader;
	void *wrong;
	atomic_store(&published, value(0));
	atomic_store(&stop, false);
	assert_int_equal(pthread_create(&reader, NULL, read_until_stopped, reclaim), 0);
	for (unsigned int i = 1; i <= SWAPS; i++) {
		reclaim_defer(reclaim, bury, atomic_exchange(&published, value(i)));
		reclaim_poll(reclaim);
	}
	// Not reclaim_synchronize: it waits in DPDK's library, where ThreadSanitizer sees nothing.
	while (reclaim_poll(reclaim) > 0)
		sched_yield();
	atomic_store(&stop, true);
	pthread_join(reader, &wrong);
	assert_null(wrong);
	free(atomic_load(&published));
	reclaim_destroy(reclaim);
}

int main(void)
{
	if (test_eal_start("64") != 0)
		return 1;
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(test_without_workers_everything_is_due_at_once, reset),
		cmocka_unit_test_setup(test_every_online_worker_is_waited_for, reset),
		cmocka_unit_test_setup(test_destroy_runs_what_is_left, reset),
		cmocka_unit_test_setup(test_a_reader_never_sees_a_freed_object, reset),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
