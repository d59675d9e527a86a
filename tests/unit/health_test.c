// SPDX-License-Identifier: BSD-3-Clause
// Copyright (c) 2026 the espgw authors

// The health of a tunnel, by a clock that the tests set.

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "tunnel/health.h"

#define MS     UINT64_C(1000000)
#define SECOND UINT64_C(1000000000)
#define START  (100 * SECOND) // less than unhealthy_time

static const struct health_settings defaults = {
	.interval = 100 * MS,
	.timeout = 250 * MS,
	.retries = 2,
	.degraded_window = 300 * SECOND,
	.degraded_failures = 2,
	.degraded_per_mille = 1,
	.down_window = SECOND,
	.down_failures = 3,
	.recovery_successes = 3,
	.recovery_probes = 30,
	.recovery_per_mille = 1,
	.unhealthy_time = 300 * SECOND,
};

// What becomes of an attempt: by its probe's number and which of its attempts it is, from 0.
struct path {
	bool cut;
	uint64_t rtt;
	unsigned int lost_attempts; // of each probe, the first ones
	unsigned int lose_every;    // each so manieth probe is lost whole; 0 = none
};

struct flight {
	uint64_t arrives; // 0 = free
	uint16_t probe;
	uint64_t cookie;
};

struct world {
	struct health *health;
	uint64_t now;
	struct path path;
	unsigned int tries[65536]; // attempts of each probe
	struct flight flights[256];
	uint64_t cookies;
	unsigned int sent, changed;
	uint64_t sent_at[16];
	struct health_change last;
	uint64_t changed_at;
	unsigned int entered[HEALTH_STATES];
};

static bool is_lost(struct world *world, uint16_t probe, unsigned int attempt)
{
	const struct path *path = &world->path;
	return path->cut || attempt < path->lost_attempts ||
	       (path->lose_every != 0 && probe % path->lose_every == 0);
}

static uint64_t send(void *argument, uint16_t probe)
{
	struct world *world = argument;
	uint64_t cookie = ++world->cookies;
	if (world->sent < 16)
		world->sent_at[world->sent] = world->now;
	world->sent++;
	if (is_lost(world, probe, world->tries[probe]++))
		return cookie;
	for (unsigned int i = 0;; i++) {
		assert_true(i < 256);
		if (world->flights[i].arrives != 0)
			continue;
		world->flights[i] = (struct flight){world->now + world->path.rtt, probe, cookie};
		return cookie;
	}
}

static void changed(void *argument, const struct health_change *change)
{
	struct world *world = argument;
	world->last = *change;
	world->changed++;
	world->changed_at = world->now;
	world->entered[change->to]++;
}

static struct world world;

static void begin(const struct health_settings *settings)
{
	struct health_actions actions = {send, changed, &world};
	memset(&world, 0, sizeof(world));
	world.now = START;
	world.path.rtt = 5 * MS;
	world.health = health_create(settings, &actions, START, START);
	assert_non_null(world.health);
}

static struct health_report report(void)
{
	struct health_report seen;
	health_report(world.health, world.now, &seen);
	return seen;
}

static struct flight *next_flight(void)
{
	struct flight *next = NULL;
	for (unsigned int i = 0; i < 256; i++) {
		struct flight *flight = &world.flights[i];
		if (flight->arrives != 0 && (next == NULL || flight->arrives < next->arrives))
			next = flight;
	}
	return next;
}

// All that happens until `end`, each thing at its very time.
static void run_until(uint64_t end)
{
	for (;;) {
		struct flight *flight = next_flight();
		uint64_t due = health_next(world.health);
		bool answer = flight != NULL && flight->arrives <= due;
		uint64_t at = answer ? flight->arrives : due;
		if (at > end)
			break;
		assert_true(answer || at > world.now || world.sent == 0 || due == world.now);
		world.now = at > world.now ? at : world.now;
		if (answer) {
			flight->arrives = 0;
			health_answer(world.health, flight->probe, flight->cookie, at);
		} else {
			health_poll(world.health, world.now);
		}
		// Numbers come again after 65,536 probes.
		world.tries[(uint16_t)(report().answered + report().failed + 30000)] = 0;
	}
	world.now = end;
}

static void run_for(uint64_t time)
{
	run_until(world.now + time);
}

static void end(void)
{
	health_destroy(world.health);
}

static void assert_state(enum health_state state)
{
	assert_string_equal(health_state_name(report().state), health_state_name(state));
}

static void test_first_answer_makes_it_healthy(void **state)
{
	(void)state;
	begin(&defaults);
	assert_state(HEALTH_UNKNOWN);
	run_for(4 * MS);
	assert_state(HEALTH_UNKNOWN);
	run_for(1 * MS);
	assert_state(HEALTH_HEALTHY);
	assert_int_equal(world.last.cause, HEALTH_CAUSE_FIRST_ANSWER);
	assert_int_equal(report().rtt, 5 * MS);
	run_for(10 * SECOND);
	assert_int_equal(world.changed, 1);
	assert_int_equal(world.sent, 101);
	end();
}

static void test_probes_start_by_the_rhythm(void **state)
{
	(void)state;
	begin(&defaults);
	run_for(505 * MS);
	for (unsigned int i = 0; i <= 5; i++)
		assert_int_equal(world.sent_at[i], START + i * 100 * MS);
	// A standstill is not made up for, and the rhythm is the same after it.
	world.now += 1225 * MS;
	unsigned int before = world.sent;
	health_poll(world.health, world.now);
	assert_int_equal(world.sent, before + 1);
	assert_int_equal(health_next(world.health), START + 1800 * MS);
	end();
}

static void test_attempts_are_retried_at_once(void **state)
{
	(void)state;
	struct health_settings slow = defaults;
	slow.interval = 10 * SECOND;
	begin(&slow);
	world.path.lost_attempts = 2; // the third is answered
	run_for(750 * MS);
	assert_int_equal(world.sent, 3);
	assert_int_equal(world.sent_at[1], START + 250 * MS);
	assert_int_equal(world.sent_at[2], START + 500 * MS);
	struct health_report seen = report();
	assert_int_equal(seen.answered, 1);
	assert_int_equal(seen.failed, 0);
	assert_int_equal(seen.rtt, 5 * MS); // of the attempt that was answered
	assert_int_equal(seen.state, HEALTH_HEALTHY);
	world.path.lost_attempts = 3;
	run_until(START + 10 * SECOND + 750 * MS - 1);
	assert_int_equal(report().failed, 0);
	run_for(1);
	assert_int_equal(report().failed, 1);
	assert_int_equal(world.sent, 6);
	end();
}

static void test_an_answer_just_in_time_and_one_too_late(void **state)
{
	(void)state;
	struct health_settings settings = defaults;
	settings.retries = 0;
	settings.interval = 10 * SECOND;
	begin(&settings);
	world.path.rtt = 250 * MS - 1;
	run_for(SECOND);
	assert_int_equal(report().answered, 1);
	world.path.rtt = 250 * MS;
	run_for(10 * SECOND);
	assert_int_equal(report().answered, 1);
	assert_int_equal(report().failed, 1);
	end();
}

static void test_foreign_answers_are_ignored(void **state)
{
	(void)state;
	begin(&defaults);
	world.path.cut = true;
	health_poll(world.health, START);
	assert_false(health_answer(world.health, 0, world.cookies + 1, START + MS));
	assert_false(health_answer(world.health, 1, world.cookies, START + MS));
	assert_false(health_answer(world.health, 4, world.cookies, START + MS)); // the same slot
	assert_state(HEALTH_UNKNOWN);
	assert_true(health_answer(world.health, 0, world.cookies, START + MS));
	assert_false(health_answer(world.health, 0, world.cookies, START + MS)); // again
	assert_int_equal(report().answered, 1);
	end();
}

// An answer of the first attempt that comes while the second is under way is too late.
static void test_an_older_attempt_does_not_count(void **state)
{
	(void)state;
	struct health_settings settings = defaults;
	settings.interval = 10 * SECOND;
	begin(&settings);
	world.path.rtt = 260 * MS;
	run_for(2 * SECOND);
	assert_int_equal(report().answered, 0);
	assert_int_equal(report().failed, 1);
	end();
}

// ---- down ----

// From the cut to "down", for a cut at this time after a probe has been answered.
static uint64_t time_to_down(const struct health_settings *settings, uint64_t offset)
{
	begin(settings);
	run_for(20 * settings->interval + world.path.rtt + offset);
	world.path.cut = true;
	memset(world.flights, 0, sizeof(world.flights));
	uint64_t cut = world.now;
	run_for(20 * SECOND);
	assert_state(HEALTH_DOWN);
	assert_int_equal(world.last.cause, HEALTH_CAUSE_NO_ANSWER);
	uint64_t time = world.changed_at - cut;
	end();
	return time;
}

// The earliest right moment: the last success is a second old, and the third probe has failed.
static void test_down_as_early_as_the_rules_allow(void **state)
{
	(void)state;
	uint64_t longest = 0;
	for (uint64_t offset = 0; offset <= 94 * MS; offset += MS) {
		// The probe after the last answer starts 95 ms after it.
		uint64_t third_failure = 95 * MS - offset + 950 * MS;
		uint64_t alone = SECOND - offset;
		uint64_t expected = third_failure > alone ? third_failure : alone;
		uint64_t time = time_to_down(&defaults, offset);
		assert_int_equal(time, expected);
		longest = time > longest ? time : longest;
	}
	assert_in_range(longest, SECOND, 1050 * MS);
}

// Here the third failure comes before the last success has left the window, so time alone decides.
static void test_down_by_the_passing_of_time(void **state)
{
	(void)state;
	struct health_settings settings = defaults;
	settings.timeout = 100 * MS;
	begin(&settings);
	run_for(2 * SECOND + 5 * MS);
	world.path.cut = true;
	run_for(SECOND - 1);
	assert_int_not_equal(report().state, HEALTH_DOWN);
	assert_true(report().failed >= 3);
	run_for(1);
	assert_state(HEALTH_DOWN);
	end();
}

static void test_down_needs_three_samples(void **state)
{
	(void)state;
	struct health_settings settings = defaults;
	settings.degraded_failures = 100;
	begin(&settings);
	world.path.cut = true;
	run_for(950 * MS - 1); // two have failed, and nothing has been answered
	assert_int_equal(report().failed, 2);
	assert_state(HEALTH_UNKNOWN);
	run_for(1);
	assert_state(HEALTH_DOWN);
	end();
}

// A failure that is as old as the window is long is not in it any more.
static void test_failures_leave_the_down_window(void **state)
{
	(void)state;
	struct health_settings settings = defaults;
	settings.interval = SECOND; // so the window is three seconds long
	settings.timeout = 100 * MS;
	settings.retries = 0;
	begin(&settings);
	world.path.cut = true;
	run_for(1500 * MS);     // failures at 0.1 and 1.1
	world.now += 1500 * MS; // and then a standstill
	health_poll(world.health, world.now);
	run_for(100 * MS);
	assert_int_equal(report().failed, 3);
	assert_state(HEALTH_UNKNOWN);
	run_for(SECOND); // at 4.1, with that of 1.1
	assert_int_equal(report().failed, 4);
	assert_state(HEALTH_UNKNOWN);
	run_for(SECOND);
	assert_state(HEALTH_DOWN);
	end();
}

static void test_one_answer_in_the_window_prevents_down(void **state)
{
	(void)state;
	begin(&defaults);
	run_for(2 * SECOND);
	for (unsigned int i = 0; i < 20; i++) { // an answer every 900 ms, all else lost
		world.path.cut = true;
		run_for(800 * MS);
		world.path.cut = false;
		run_for(100 * MS);
	}
	assert_state(HEALTH_DEGRADED);
	assert_int_equal(world.entered[HEALTH_DOWN], 0);
	end();
}

static void test_the_window_widens_to_three_intervals(void **state)
{
	(void)state;
	struct health_settings low = defaults, mid = defaults;
	low.interval = SECOND;
	mid.interval = 500 * MS;
	// The last answer is 5 ms after a start. Low: failures at 1.75, 2.75, 3.75 of it.
	assert_int_equal(time_to_down(&low, 0), 995 * MS + 2750 * MS);
	assert_int_equal(time_to_down(&mid, 0), 495 * MS + 1750 * MS);
	// Just before the next start, the window is what counts: 3 s since the last answer.
	assert_int_equal(time_to_down(&low, 994 * MS), 2751 * MS);
}

static void test_a_delay_over_the_timeout_is_down(void **state)
{
	(void)state;
	begin(&defaults);
	run_for(5 * SECOND);
	assert_state(HEALTH_HEALTHY);
	world.path.rtt = 300 * MS;
	run_for(2 * SECOND);
	assert_state(HEALTH_DOWN);
	end();
}

// ---- degraded ----

// One probe only is lost: that which starts next. For settings whose probes do not overlap.
static void lose_one(void)
{
	uint64_t failed = report().failed;
	world.path.cut = true;
	while (report().failed == failed)
		run_for(1 * MS);
	world.path.cut = false;
}

static void test_degraded_needs_two_failures(void **state)
{
	(void)state;
	struct health_settings settings = defaults;
	settings.interval = SECOND; // probes do not overlap: 300 in the window
	begin(&settings);
	run_for(400 * SECOND);
	lose_one();
	assert_int_equal(report().window_failed, 1);
	assert_state(HEALTH_HEALTHY);
	run_for(299 * SECOND);
	assert_int_equal(report().window_failed, 1);
	lose_one(); // the first is still in the window
	assert_state(HEALTH_DEGRADED);
	assert_int_equal(world.last.cause, HEALTH_CAUSE_LOSS);
	assert_int_equal(world.last.from, HEALTH_HEALTHY);
	end();
}

static void test_failures_leave_the_window(void **state)
{
	(void)state;
	struct health_settings settings = defaults;
	settings.interval = SECOND;
	begin(&settings);
	run_for(400 * SECOND);
	for (unsigned int i = 0; i < 5; i++) {
		lose_one();
		run_for(306 * SECOND); // five minutes, and a bucket more
		assert_int_equal(report().window_failed, 0);
		assert_in_range(report().window_probes, 300, 306);
	}
	assert_state(HEALTH_HEALTHY);
	end();
}

// At rate high the window holds 3,000 probes, so that two failures are under 0.1 %.
static void test_degraded_needs_its_share(void **state)
{
	(void)state;
	struct health_settings settings = defaults;
	settings.timeout = 20 * MS; // probes do not overlap
	begin(&settings);
	run_for(310 * SECOND);
	assert_in_range(report().window_probes, 3000, 3050);
	lose_one();
	run_for(SECOND);
	lose_one();
	run_for(SECOND);
	lose_one();
	assert_int_equal(report().window_failed, 3);
	assert_state(HEALTH_HEALTHY); // 3 of 3,001 or more
	run_for(SECOND);
	lose_one();
	assert_state(HEALTH_DEGRADED);
	end();
}

static void test_the_share_is_met_exactly(void **state)
{
	(void)state;
	struct health_settings settings = defaults;
	settings.interval = SECOND;
	settings.degraded_per_mille = 100;
	begin(&settings);
	run_for(18 * SECOND + 500 * MS); // the first answer is not counted: it begins the window
	assert_int_equal(report().window_probes, 18);
	lose_one();
	assert_state(HEALTH_HEALTHY);
	lose_one(); // 2 of 20
	assert_int_equal(report().window_probes, 20);
	assert_state(HEALTH_DEGRADED);
	end();
}

// ---- recovery ----

static void go_down(void)
{
	run_for(5 * SECOND);
	assert_state(HEALTH_HEALTHY);
	world.path.cut = true;
	run_for(2 * SECOND);
	assert_state(HEALTH_DOWN);
}

static void test_three_answers_end_down(void **state)
{
	(void)state;
	struct health_settings settings = defaults;
	settings.interval = SECOND;
	begin(&settings);
	run_for(5 * SECOND);
	world.path.cut = true;
	run_for(6 * SECOND + 300 * MS);
	assert_state(HEALTH_DOWN);
	uint64_t answered = report().answered;
	world.path.cut = false;
	while (report().answered == answered)
		run_for(MS);
	assert_state(HEALTH_DOWN);
	// After the first answer the next two probes do not wait for the rhythm.
	run_for(11 * MS);
	assert_int_equal(report().answered, answered + 3);
	assert_state(HEALTH_DEGRADED);
	assert_int_equal(world.last.cause, HEALTH_CAUSE_ANSWERS);
	end();
}

static void test_a_failure_between_starts_the_count_anew(void **state)
{
	(void)state;
	begin(&defaults);
	go_down();
	struct health_settings settings = defaults;
	settings.retries = 0;
	settings.timeout = 50 * MS; // so that outcomes come in the order of the probes
	assert_true(health_configure(world.health, &settings, world.now));
	world.path.cut = false;
	world.path.lose_every = 3;
	run_for(30 * SECOND); // two answers, a failure, two answers
	assert_state(HEALTH_DOWN);
	world.path.lose_every = 4;
	run_for(SECOND);
	assert_state(HEALTH_DEGRADED);
	end();
}

static void test_down_passes_through_degraded_for_five_minutes(void **state)
{
	(void)state;
	begin(&defaults);
	go_down();
	assert_int_equal(world.entered[HEALTH_DEGRADED], 1); // loss is seen before
	world.path.cut = false;
	run_for(60 * SECOND);
	assert_state(HEALTH_DEGRADED);
	assert_int_equal(world.entered[HEALTH_DEGRADED], 2);
	run_until(START + 5 * SECOND + 300 * SECOND);
	assert_state(HEALTH_DEGRADED);
	run_for(3 * SECOND);
	assert_state(HEALTH_HEALTHY);
	assert_int_equal(world.last.from, HEALTH_DEGRADED);
	assert_int_equal(world.last.cause, HEALTH_CAUSE_RECOVERED);
	run_for(600 * SECOND); // and stays so, though failures were within five minutes
	assert_state(HEALTH_HEALTHY);
	assert_int_equal(world.entered[HEALTH_HEALTHY], 2);
	end();
}

static void test_the_last_thirty_must_be_answered(void **state)
{
	(void)state;
	struct health_settings settings = defaults;
	settings.unhealthy_time = 0;
	settings.interval = SECOND;
	begin(&settings);
	run_for(5 * SECOND);
	lose_one();
	lose_one();
	assert_state(HEALTH_DEGRADED);
	uint64_t answered = report().answered;
	while (report().answered < answered + 29)
		run_for(MS);
	assert_state(HEALTH_DEGRADED);
	while (report().answered < answered + 30)
		run_for(MS);
	assert_state(HEALTH_HEALTHY);
	end();
}

// A tunnel whose keys come late was down meanwhile; it has no five minutes to serve.
static void test_what_was_never_healthy_becomes_so_without_delay(void **state)
{
	(void)state;
	begin(&defaults);
	world.path.cut = true;
	run_for(10 * SECOND);
	assert_state(HEALTH_DOWN);
	assert_int_equal(world.last.from, HEALTH_UNKNOWN);
	world.path.cut = false;
	run_for(SECOND);
	assert_state(HEALTH_DEGRADED);
	run_for(3 * SECOND);
	assert_state(HEALTH_HEALTHY);
	end();
}

static void test_degraded_goes_down_as_well(void **state)
{
	(void)state;
	begin(&defaults);
	run_for(SECOND);
	world.path.lose_every = 2;
	run_for(2 * SECOND);
	assert_state(HEALTH_DEGRADED);
	world.path.cut = true;
	run_for(2 * SECOND);
	assert_state(HEALTH_DOWN);
	assert_int_equal(world.last.from, HEALTH_DEGRADED);
	end();
}

// ---- life ----

static void test_other_settings_keep_the_state(void **state)
{
	(void)state;
	begin(&defaults);
	go_down();
	struct health_settings slow = defaults;
	slow.interval = 2 * SECOND;
	assert_true(health_configure(world.health, &slow, world.now));
	assert_state(HEALTH_DOWN);
	unsigned int before = world.sent;
	run_for(20 * SECOND);
	assert_in_range(world.sent - before, 10 * 3 - 2, 11 * 3);
	world.path.cut = false;
	run_for(10 * SECOND);
	assert_state(HEALTH_DEGRADED);
	end();
}

static void test_probe_numbers_wrap(void **state)
{
	(void)state;
	struct health_settings fast = defaults;
	fast.interval = 20 * MS;
	begin(&fast);
	run_for(70000 * 20 * MS);
	struct health_report seen = report();
	assert_in_range(seen.answered, 69999, 70001);
	assert_int_equal(seen.failed, 0);
	assert_state(HEALTH_HEALTHY);
	end();
}

static void test_probes_at_once(void **state)
{
	(void)state;
	struct health_settings settings = defaults;
	assert_int_equal(health_probes_at_once(&settings), 8 + 1 + 3);
	settings.interval = 10 * SECOND;
	assert_int_equal(health_probes_at_once(&settings), 1 + 1 + 3);
}

static void test_penalties(void **state)
{
	(void)state;
	assert_int_equal(health_penalty(HEALTH_UNKNOWN), 0);
	assert_int_equal(health_penalty(HEALTH_HEALTHY), 0);
	assert_int_equal(health_penalty(HEALTH_DEGRADED), 500000);
	assert_int_equal(health_penalty(HEALTH_DOWN), 1000000);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_first_answer_makes_it_healthy),
		cmocka_unit_test(test_probes_start_by_the_rhythm),
		cmocka_unit_test(test_attempts_are_retried_at_once),
		cmocka_unit_test(test_an_answer_just_in_time_and_one_too_late),
		cmocka_unit_test(test_foreign_answers_are_ignored),
		cmocka_unit_test(test_an_older_attempt_does_not_count),
		cmocka_unit_test(test_down_as_early_as_the_rules_allow),
		cmocka_unit_test(test_down_by_the_passing_of_time),
		cmocka_unit_test(test_down_needs_three_samples),
		cmocka_unit_test(test_failures_leave_the_down_window),
		cmocka_unit_test(test_one_answer_in_the_window_prevents_down),
		cmocka_unit_test(test_the_window_widens_to_three_intervals),
		cmocka_unit_test(test_a_delay_over_the_timeout_is_down),
		cmocka_unit_test(test_degraded_needs_two_failures),
		cmocka_unit_test(test_failures_leave_the_window),
		cmocka_unit_test(test_degraded_needs_its_share),
		cmocka_unit_test(test_the_share_is_met_exactly),
		cmocka_unit_test(test_three_answers_end_down),
		cmocka_unit_test(test_a_failure_between_starts_the_count_anew),
		cmocka_unit_test(test_down_passes_through_degraded_for_five_minutes),
		cmocka_unit_test(test_the_last_thirty_must_be_answered),
		cmocka_unit_test(test_what_was_never_healthy_becomes_so_without_delay),
		cmocka_unit_test(test_degraded_goes_down_as_well),
		cmocka_unit_test(test_other_settings_keep_the_state),
		cmocka_unit_test(test_probe_numbers_wrap),
		cmocka_unit_test(test_probes_at_once),
		cmocka_unit_test(test_penalties),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
