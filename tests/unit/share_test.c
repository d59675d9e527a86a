// SPDX-License-Identifier: BSD-3-Clause
// Copyright (c) 2026 the espgw authors

// The list of bursts that workers share, with threads that race and helpers that stall. Run it
// under the thread sanitizer too.

#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>

#include <cmocka.h>

#include "dataplane/share.h"

enum { HELPERS = 3, BURSTS = 20000, DEPTHS = 8 };

static struct share_list *list;
static _Atomic bool over;
static _Atomic unsigned int runs[BURSTS]; // how often each burst was run
static unsigned int wrong[HELPERS], helped[HELPERS];

// What running a burst makes of its number, which stands in its first packet pointer.
static uint32_t result_of(uint64_t number)
{
	return (uint32_t)number * 2654435761u;
}

static void fill_in(struct share_burst *burst, uint64_t number)
{
	burst->packets[0] = (struct rte_mbuf *)(uintptr_t)number;
	burst->received = (uint8_t)(number % ESP_BURST_MAX);
	burst->tunnels[0] = 0;
}

static bool run(struct share_burst *burst, uint64_t number)
{
	bool right = (uintptr_t)burst->packets[0] == number && burst->tunnels[0] == 0 &&
		     burst->received == number % ESP_BURST_MAX;
	atomic_fetch_add_explicit(&runs[number], 1, memory_order_relaxed);
	burst->count = burst->received;
	burst->tunnels[0] = result_of(number);
	return right;
}

static bool is_run(const struct share_burst *burst, uint64_t number)
{
	return (uintptr_t)burst->packets[0] == number && burst->tunnels[0] == result_of(number) &&
	       burst->count == number % ESP_BURST_MAX;
}

// Sometimes loses its core with a burst in hand.
static void *help(void *argument)
{
	unsigned int helper = (unsigned int)(uintptr_t)argument;
	while (!atomic_load(&over)) {
		uint64_t number;
		struct share_burst *burst = share_list_claim(list, &number);
		if (burst == NULL) {
			sched_yield();
			continue;
		}
		wrong[helper] += !run(burst, number);
		if (number % 61 == helper)
			sched_yield();
		share_burst_finish(burst);
		helped[helper]++;
	}
	return NULL;
}

static unsigned int send_ready(uint64_t *sent)
{
	unsigned int faults = 0;
	struct share_burst *burst;
	while ((burst = share_list_ready(list)) != NULL) {
		faults += !is_run(burst, *sent) || *sent != list->sent;
		(*sent)++;
		share_list_next(list);
	}
	return faults;
}

static void receive_all(unsigned int depth)
{
	uint64_t offered = 0, sent = 0, number;
	unsigned int faults = 0;
	while (sent < BURSTS) {
		struct share_burst *burst;
		while (offered < BURSTS && (burst = share_list_room(list, depth)) != NULL) {
			fill_in(burst, offered++);
			share_list_offer(list);
		}
		faults += offered - sent > depth;
		// Every other time, so that all have some.
		burst = offered % 2 == 0 ? share_list_claim(list, &number) : NULL;
		if (burst != NULL) {
			faults += !run(burst, number);
			share_burst_finish(burst);
		} else {
			sched_yield();
		}
		faults += send_ready(&sent);
		if (offered == BURSTS && (burst = share_list_claim(list, &number)) != NULL) {
			faults += !run(burst, number);
			share_burst_finish(burst);
		}
	}
	assert_int_equal(faults, 0);
	assert_true(share_list_is_empty(list));
}

static int create_list(void **state)
{
	(void)state;
	list = aligned_alloc(RTE_CACHE_LINE_SIZE, sizeof(*list));
	if (list == NULL)
		return -1;
	memset(list, 0, sizeof(*list));
	return 0;
}

static int destroy_list(void **state)
{
	(void)state;
	free(list);
	return 0;
}

static void test_each_burst_is_run_once_and_sent_in_order(void **state)
{
	(void)state;
	unsigned int all = 0;
	for (unsigned int depth = 1; depth <= DEPTHS; depth *= 2) {
		pthread_t threads[HELPERS];
		destroy_list(NULL);
		assert_int_equal(create_list(NULL), 0);
		memset(runs, 0, sizeof(runs));
		atomic_store(&over, false);
		for (unsigned int i = 0; i < HELPERS; i++)
			assert_int_equal(
				pthread_create(&threads[i], NULL, help, (void *)(uintptr_t)i), 0);
		receive_all(depth);
		atomic_store(&over, true);
		for (unsigned int i = 0; i < HELPERS; i++) {
			pthread_join(threads[i], NULL);
			assert_int_equal(wrong[i], 0);
			all += helped[i];
		}
		for (unsigned int i = 0; i < BURSTS; i++)
			assert_int_equal(runs[i], 1);
	}
	assert_true(all > 0);
}

// A helper that stalls with the oldest burst holds up what is sent, and nothing else: the receiver
// runs the others, and finds the list full.
static void test_a_stalled_helper_does_not_stop_the_receiver(void **state)
{
	(void)state;
	uint64_t number, sent = 0;
	for (uint64_t i = 0; i < SHARE_BURSTS; i++) {
		fill_in(share_list_room(list, SHARE_BURSTS), i);
		share_list_offer(list);
	}
	assert_null(share_list_room(list, SHARE_BURSTS));
	struct share_burst *stalled = share_list_claim(list, &number);
	assert_int_equal(number, 0);
	for (unsigned int i = 1; i < SHARE_BURSTS; i++) {
		struct share_burst *burst = share_list_claim(list, &number);
		assert_int_equal(number, i);
		assert_true(run(burst, number));
		share_burst_finish(burst);
		assert_null(share_list_ready(list));
	}
	assert_null(share_list_claim(list, &number));
	assert_null(share_list_room(list, SHARE_BURSTS));
	assert_false(share_list_is_empty(list));
	assert_true(run(stalled, 0));
	share_burst_finish(stalled);
	assert_int_equal(send_ready(&sent), 0);
	assert_int_equal(sent, SHARE_BURSTS);
	assert_true(share_list_is_empty(list));
	assert_non_null(share_list_room(list, 1));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(
			test_each_burst_is_run_once_and_sent_in_order, create_list, destroy_list),
		cmocka_unit_test_setup_teardown(test_a_stalled_helper_does_not_stop_the_receiver,
			create_list, destroy_list),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
