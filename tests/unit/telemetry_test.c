// SPDX-License-Identifier: BSD-3-Clause
// Copyright (c) 2026 the espgw authors

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include <rte_cycles.h>

#include "eal.h"
#include "telemetry/telemetry.h"

static void test_every_reason_has_a_name_and_a_sentence(void **state)
{
	(void)state;
	for (unsigned int i = 0; i < DROP_COUNT; i++) {
		assert_non_null(drop_reason_name(i));
		assert_true(strlen(drop_reason_sentence(i)) > 5);
		for (unsigned int j = 0; j < i; j++)
			assert_string_not_equal(drop_reason_name(i), drop_reason_name(j));
	}
	assert_string_equal(drop_reason_name(DROP_COUNT), "invalid");
}

static void test_slots_are_summed(void **state)
{
	(void)state;
	struct telemetry *telemetry = telemetry_create(2, 3);
	assert_non_null(telemetry);
	assert_int_equal(telemetry->slots, 3);
	for (unsigned int i = 0; i < 3; i++) {
		struct telemetry_source *source =
			&telemetry->slot[i]->sources[TELEMETRY_SOURCE_TUN];
		source->received = 100;
		source->forwarded = 50 + i;
		source->to_host = 20;
		source->joined = 3;
		source->drops[DROP_ICV] = 7;
		source->drops[DROP_STOPPED] = 10;
		source->split = 4;
		telemetry->slot[i]->tunnels[2].drops[DROP_REPLAY] = i;
		telemetry->slot[i]->tunnels[2].out_bytes = 1000;
	}
	struct telemetry_source source;
	telemetry_sum_source(telemetry, TELEMETRY_SOURCE_TUN, &source);
	assert_int_equal(source.received, 300);
	assert_int_equal(source.drops[DROP_ICV], 21);
	assert_int_equal(telemetry_source_held(&source), 300 + 12 - 153 - 60 - 9 - 51);
	struct telemetry_tunnel tunnel;
	telemetry_sum_tunnel(telemetry, 2, &tunnel);
	assert_int_equal(tunnel.drops[DROP_REPLAY], 3);
	assert_int_equal(tunnel.out_bytes, 3000);
	telemetry_sum_tunnel(telemetry, 1, &tunnel);
	assert_int_equal(tunnel.out_bytes, 0);
	telemetry_destroy(telemetry);
}

static void test_every_stage_has_a_name_and_a_sentence(void **state)
{
	(void)state;
	for (unsigned int i = 0; i < STAGE_COUNT; i++) {
		assert_true(strlen(stage_sentence(i)) > 5);
		for (unsigned int j = 0; j < i; j++)
			assert_string_not_equal(stage_name(i), stage_name(j));
	}
	assert_string_equal(stage_name(STAGE_COUNT), "invalid");
}

static void spin(uint64_t cycles)
{
	uint64_t end = rte_rdtsc() + cycles;
	while (rte_rdtsc() < end)
		;
}

// A burst of three packets as the steps of a worker pass it on, with the cipher inside a step.
static void pass_burst(struct stage_clock *clock)
{
	stage_enter(clock, STAGE_RECEIVE, 0);
	stage_received(clock, 3);
	stage_enter(clock, STAGE_ENCAPSULATE, 3);
	spin(10000);
	enum stage before = stage_enter(clock, STAGE_ENCRYPT, 2);
	spin(1000000);
	stage_resume(clock, before);
	spin(10000);
	stage_enter(clock, STAGE_RECEIVE, 0);
	spin(50000);
	stage_received(clock, 0);
}

static uint64_t sum_cycles(const struct telemetry_stage *stages)
{
	uint64_t sum = 0;
	for (unsigned int i = 0; i < STAGE_COUNT; i++)
		sum += stages[i].cycles;
	return sum;
}

static void test_each_cycle_is_in_one_stage(void **state)
{
	(void)state;
	struct telemetry_stage stages[STAGE_COUNT] = {0};
	struct stage_clock clock = {.counters = stages};
	uint64_t outside = rte_rdtsc();
	stage_clock_set(&clock, true);
	uint64_t inside = rte_rdtsc();
	pass_burst(&clock);
	pass_burst(&clock);
	inside = rte_rdtsc() - inside;
	stage_clock_set(&clock, false);
	outside = rte_rdtsc() - outside;
	assert_in_range(sum_cycles(stages), inside, outside);
	assert_in_range(stages[STAGE_ENCRYPT].cycles, 2000000, inside - 140000);
	assert_in_range(stages[STAGE_ENCAPSULATE].cycles, 40000, inside - 2100000);
	assert_true(stages[STAGE_IDLE].cycles >= 100000); // queues that held nothing
	assert_int_equal(stages[STAGE_ENCRYPT].bursts, 2);
	assert_int_equal(stages[STAGE_ENCRYPT].packets, 4);
	assert_int_equal(stages[STAGE_ENCAPSULATE].bursts, 2);
	assert_int_equal(stages[STAGE_ENCAPSULATE].packets, 6);
	assert_int_equal(stages[STAGE_RECEIVE].bursts, 2);
	assert_int_equal(stages[STAGE_RECEIVE].packets, 6);
	assert_int_equal(stages[STAGE_IDLE].bursts, 0);
}

static void test_a_clock_that_is_off_counts_nothing(void **state)
{
	(void)state;
	struct telemetry_stage stages[STAGE_COUNT] = {0};
	struct stage_clock clock = {.counters = stages};
	pass_burst(&clock);
	assert_int_equal(sum_cycles(stages), 0);
	assert_int_equal(stages[STAGE_ENCRYPT].packets, 0);
	stage_clock_set(&clock, true);
	stage_clock_set(&clock, false);
	uint64_t counted = sum_cycles(stages);
	pass_burst(&clock);
	// What passed meanwhile is not counted later either.
	stage_clock_set(&clock, true);
	stage_clock_set(&clock, false);
	assert_true(sum_cycles(stages) < counted + 1000000);
}

static void test_busy_cycles(void **state)
{
	(void)state;
	struct telemetry_slot slot = {0};
	uint64_t outside = rte_rdtsc();
	assert_false(telemetry_is_busy(&slot));
	telemetry_begin_busy(&slot);
	spin(100000);
	assert_true(telemetry_is_busy(&slot));
	uint64_t so_far = telemetry_busy_cycles(&slot);
	assert_true(so_far >= 100000);
	telemetry_end_busy(&slot);
	outside = rte_rdtsc() - outside;
	assert_false(telemetry_is_busy(&slot));
	uint64_t busy = telemetry_busy_cycles(&slot);
	assert_in_range(busy, so_far, outside);
	spin(100000);
	assert_int_equal(telemetry_busy_cycles(&slot), busy);
	telemetry_begin_busy(&slot);
	assert_true(telemetry_busy_cycles(&slot) >= busy);
}

int main(void)
{
	if (test_eal_start("64") != 0)
		return 1;
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_every_reason_has_a_name_and_a_sentence),
		cmocka_unit_test(test_slots_are_summed),
		cmocka_unit_test(test_every_stage_has_a_name_and_a_sentence),
		cmocka_unit_test(test_each_cycle_is_in_one_stage),
		cmocka_unit_test(test_a_clock_that_is_off_counts_nothing),
		cmocka_unit_test(test_busy_cycles),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
