// SPDX-License-Identifier: BSD-3-Clause
// Copyright (c) 2026 the espgw authors

// The health of one tunnel: when probes are due, and what their outcomes make of its state. Knows
// neither packets nor SAs; whoever drives it sends the probes and hands in the answers. Pure: no
// clock of its own, no system call. One thread.
//
// A probe is an attempt and up to `retries` more, each sent when the one before it has had no
// answer for `timeout`. It succeeds with the first answer in time, and fails with its last attempt.
// Probes start every interval whatever became of those before, so they overlap. The rules:
//
//   unknown -> healthy    the first success
//   healthy -> degraded   at least degraded_failures probes failed within degraded_window, and at
//                         least degraded_per_mille of all
//   any -> down           at least down_failures probes ended within the down window, and all
//                         failed. The window is as long as down_failures intervals at least. A
//                         probe counts when it ends
//   down -> degraded      recovery_successes successes in succession. While a tunnel is down, a
//                         success starts the next probe at once
//   degraded -> healthy   less than recovery_per_mille of the last recovery_probes failed, and it
//                         has not been healthy for unhealthy_time. What was never healthy yet has
//                         no such time to serve
//
// A tunnel that becomes healthy starts counting for degraded_window anew: it has served for what
// was before, and would be degraded again at once.

#pragma once

#include <stdbool.h>
#include <stdint.h>

#define HEALTH_BUCKETS      60  // that degraded_window is counted in
#define HEALTH_FAILURES_MAX 16  // down_failures at most
#define HEALTH_RECENT_MAX   64  // recovery_probes at most
#define HEALTH_PROBES_MAX   128 // under way at once
#define HEALTH_PENALTY_UNIT 500000

enum health_state {
	HEALTH_UNKNOWN, // no probe was answered yet, and not enough have failed
	HEALTH_HEALTHY,
	HEALTH_DEGRADED,
	HEALTH_DOWN,
	HEALTH_STATES
};

enum health_cause {
	HEALTH_CAUSE_FIRST_ANSWER, // unknown -> healthy
	HEALTH_CAUSE_LOSS,         // -> degraded
	HEALTH_CAUSE_NO_ANSWER,    // -> down
	HEALTH_CAUSE_ANSWERS,      // down -> degraded
	HEALTH_CAUSE_RECOVERED,    // degraded -> healthy
	HEALTH_CAUSES
};

const char *health_state_name(enum health_state state);
const char *health_cause_name(enum health_cause cause);
// What a state adds to the priority of a tunnel's routes: 0, 500,000 (degraded), 1,000,000 (down).
uint32_t health_penalty(enum health_state state);

// Times in nanoseconds.
struct health_settings {
	uint64_t interval; // between the starts of two probes
	uint64_t timeout;  // of an attempt
	unsigned int retries;
	uint64_t degraded_window;
	unsigned int degraded_failures, degraded_per_mille;
	uint64_t down_window;
	unsigned int down_failures; // 1 to HEALTH_FAILURES_MAX
	unsigned int recovery_successes;
	unsigned int recovery_probes; // 1 to HEALTH_RECENT_MAX
	unsigned int recovery_per_mille;
	uint64_t unhealthy_time;
};

// Probes that can be under way at once with these settings.
uint64_t health_probes_at_once(const struct health_settings *settings);

struct health_change {
	enum health_state from, to;
	enum health_cause cause;
};

struct health_actions {
	// Sends an attempt of this probe. Returns the cookie that its answer will hold, and no
	// other attempt's.
	uint64_t (*send)(void *argument, uint16_t probe);
	void (*changed)(void *argument, const struct health_change *change);
	void *argument;
};

struct health_report {
	enum health_state state;
	uint64_t since;                        // when it became so
	uint64_t window_probes, window_failed; // that ended within degraded_window
	uint64_t rtt, rtt_smoothed;            // nanoseconds; 0 = no answer yet
	uint64_t attempts, answered, failed;   // attempts sent, probes answered, probes failed
	uint64_t changes;                      // of the state
};

struct health;

// A probe is due at `first`. NULL when there is no memory. `actions` is copied.
struct health *health_create(const struct health_settings *settings,
	const struct health_actions *actions, uint64_t now, uint64_t first);
void health_destroy(struct health *health);
// Other settings from now on; state and statistics stay, probes under way are forgotten. False,
// and nothing changed, when there is no memory.
bool health_configure(struct health *health, const struct health_settings *settings, uint64_t now);

// Does all that is due: sends attempts, lets probes fail, changes the state.
void health_poll(struct health *health, uint64_t now);
// When health_poll is to be called next.
uint64_t health_next(const struct health *health);
// An answer arrived at `at`, which may lie before the last call of health_poll. It is ignored (and
// false returned) unless it is that of an attempt whose time is not over.
bool health_answer(struct health *health, uint16_t probe, uint64_t cookie, uint64_t at);

void health_report(struct health *health, uint64_t now, struct health_report *report);
