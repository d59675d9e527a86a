// SPDX-License-Identifier: BSD-3-Clause
// Copyright (c) 2026 the espgw authors

#include "tunnel/health.h"

#include <stdlib.h>
#include <string.h>

// A probe counts for degraded_window at least, and for a bucket more at most.
#define BUCKETS (HEALTH_BUCKETS + 1)

struct probe {
	uint64_t sent; // the attempt under way
	uint64_t cookie;
	unsigned int attempts; // so far; 0 = not under way
};

struct bucket {
	uint32_t ended, failed;
};

struct health {
	struct health_settings settings;
	struct health_actions actions;
	enum health_state state;
	uint64_t since;
	bool was_healthy;
	uint64_t unhealthy_since;
	uint64_t next_start;
	uint16_t next_probe;
	uint16_t probe_mask; // probe n is probes[n & probe_mask]; their number is a power of two
	struct probe *probes;
	// Since the last success: the ends of the last failures, the newest at
	// failures[failure_count - 1], modulo their number.
	uint64_t failures[HEALTH_FAILURES_MAX];
	uint64_t failure_count;
	bool has_success;
	uint64_t last_success;
	unsigned int successes; // in succession
	uint64_t recent;        // the last outcomes, the newest in bit 0; 1 = failed
	unsigned int recent_count;
	struct bucket buckets[BUCKETS];
	uint64_t bucket; // number of the newest: time over its length
	uint64_t window_ended, window_failed;
	uint64_t rtt, rtt_smoothed;
	uint64_t attempts, answered, failed, changes;
};

const char *health_state_name(enum health_state state)
{
	static const char *const names[HEALTH_STATES] = {
		[HEALTH_UNKNOWN] = "unknown",
		[HEALTH_HEALTHY] = "healthy",
		[HEALTH_DEGRADED] = "degraded",
		[HEALTH_DOWN] = "down",
	};
	return names[state];
}

const char *health_cause_name(enum health_cause cause)
{
	static const char *const names[HEALTH_CAUSES] = {
		[HEALTH_CAUSE_FIRST_ANSWER] = "first_answer",
		[HEALTH_CAUSE_LOSS] = "loss",
		[HEALTH_CAUSE_NO_ANSWER] = "no_answer",
		[HEALTH_CAUSE_ANSWERS] = "answers",
		[HEALTH_CAUSE_RECOVERED] = "recovered",
	};
	return names[cause];
}

uint32_t health_penalty(enum health_state state)
{
	if (state == HEALTH_DOWN)
		return 2 * HEALTH_PENALTY_UNIT;
	return state == HEALTH_DEGRADED ? HEALTH_PENALTY_UNIT : 0;
}

// Those that start within one probe's longest life, one that starts as it ends, and the two that
// follow a first success at once.
uint64_t health_probes_at_once(const struct health_settings *settings)
{
	uint64_t life = settings->timeout * (settings->retries + 1);
	return (life + settings->interval - 1) / settings->interval + 1 +
	       settings->recovery_successes;
}

static uint64_t down_window(const struct health *health)
{
	uint64_t intervals = health->settings.down_failures * health->settings.interval;
	return intervals > health->settings.down_window ? intervals : health->settings.down_window;
}

static uint16_t slots_for(const struct health_settings *settings)
{
	uint64_t wanted = health_probes_at_once(settings);
	uint16_t slots = 4;
	while (slots < wanted && slots < HEALTH_PROBES_MAX)
		slots *= 2;
	return slots;
}

// ---- the window that loss is counted in ----

static uint64_t bucket_length(const struct health *health)
{
	uint64_t length = health->settings.degraded_window / HEALTH_BUCKETS;
	return length == 0 ? 1 : length;
}

static void clear_window(struct health *health, uint64_t now)
{
	memset(health->buckets, 0, sizeof(health->buckets));
	health->bucket = now / bucket_length(health);
	health->window_ended = health->window_failed = 0;
}

// Forgets the buckets that have left the window.
static void advance_window(struct health *health, uint64_t now)
{
	uint64_t bucket = now / bucket_length(health);
	if (bucket > health->bucket + BUCKETS)
		clear_window(health, now);
	while (health->bucket < bucket) {
		struct bucket *oldest = &health->buckets[++health->bucket % BUCKETS];
		health->window_ended -= oldest->ended;
		health->window_failed -= oldest->failed;
		*oldest = (struct bucket){0};
	}
}

static void count_in_window(struct health *health, bool failed, uint64_t now)
{
	advance_window(health, now);
	struct bucket *bucket = &health->buckets[health->bucket % BUCKETS];
	bucket->ended++;
	bucket->failed += failed;
	health->window_ended++;
	health->window_failed += failed;
}

// ---- the rules ----

static void change(
	struct health *health, enum health_state to, enum health_cause cause, uint64_t now)
{
	struct health_change change = {health->state, to, cause};
	if (health->state == HEALTH_HEALTHY)
		health->unhealthy_since = now;
	if (to == HEALTH_HEALTHY) {
		health->was_healthy = true;
		clear_window(health, now);
	}
	health->state = to;
	health->since = now;
	health->changes++;
	health->actions.changed(health->actions.argument, &change);
}

// When the last of the failures that Down needs ended; 0 = there were not so many.
static uint64_t oldest_needed_failure(const struct health *health)
{
	unsigned int needed = health->settings.down_failures;
	if (health->failure_count < needed)
		return 0;
	return health->failures[(health->failure_count - needed) % HEALTH_FAILURES_MAX];
}

// Whether all within (now - window, now] failed, and enough. Failures before the last success do
// not matter: they lie farther back than it.
static bool is_down(const struct health *health, uint64_t now)
{
	uint64_t window = down_window(health), failure = oldest_needed_failure(health);
	return failure != 0 && failure + window > now &&
	       (!health->has_success || health->last_success + window <= now);
}

static bool is_lossy(const struct health *health)
{
	const struct health_settings *settings = &health->settings;
	return health->window_failed >= settings->degraded_failures &&
	       health->window_failed * 1000 >= health->window_ended * settings->degraded_per_mille;
}

static bool has_recovered(const struct health *health, uint64_t now)
{
	const struct health_settings *settings = &health->settings;
	unsigned int probes = settings->recovery_probes;
	uint64_t last = probes >= 64 ? UINT64_MAX : (UINT64_C(1) << probes) - 1;
	unsigned int failed = (unsigned int)__builtin_popcountll(health->recent & last);
	// An answer may be from before the moment at which a failure was found out.
	if (health->was_healthy &&
		(now < health->unhealthy_since ||
			now - health->unhealthy_since < settings->unhealthy_time))
		return false;
	return health->recent_count >= probes &&
	       (uint64_t)failed * 1000 < (uint64_t)probes * settings->recovery_per_mille;
}

static void judge(struct health *health, uint64_t now)
{
	switch (health->state) {
	case HEALTH_DOWN:
		if (health->successes >= health->settings.recovery_successes)
			change(health, HEALTH_DEGRADED, HEALTH_CAUSE_ANSWERS, now);
		return;
	case HEALTH_UNKNOWN:
		if (health->successes > 0)
			change(health, HEALTH_HEALTHY, HEALTH_CAUSE_FIRST_ANSWER, now);
		break;
	case HEALTH_DEGRADED:
		if (has_recovered(health, now))
			change(health, HEALTH_HEALTHY, HEALTH_CAUSE_RECOVERED, now);
		break;
	default:
		break;
	}
	if (is_down(health, now))
		change(health, HEALTH_DOWN, HEALTH_CAUSE_NO_ANSWER, now);
	else if (health->state == HEALTH_HEALTHY && is_lossy(health))
		change(health, HEALTH_DEGRADED, HEALTH_CAUSE_LOSS, now);
}

static void end_probe(struct health *health, struct probe *probe, bool failed, uint64_t now)
{
	probe->attempts = 0;
	count_in_window(health, failed, now);
	health->recent = health->recent << 1 | failed;
	if (health->recent_count < HEALTH_RECENT_MAX)
		health->recent_count++;
	if (failed) {
		health->failed++;
		health->successes = 0;
		health->failures[health->failure_count++ % HEALTH_FAILURES_MAX] = now;
	} else {
		health->answered++;
		health->successes++;
		health->failure_count = 0;
		health->has_success = true;
		health->last_success = now;
	}
	judge(health, now);
}

// ---- probes ----

static void send_attempt(struct health *health, struct probe *probe, uint16_t number, uint64_t now)
{
	probe->attempts++;
	probe->sent = now;
	probe->cookie = health->actions.send(health->actions.argument, number);
	health->attempts++;
}

static void start_probe(struct health *health, uint64_t now)
{
	uint16_t number = health->next_probe++;
	struct probe *probe = &health->probes[number & health->probe_mask];
	// Only when time made a leap is there one in its place that has not ended.
	if (probe->attempts != 0)
		end_probe(health, probe, true, now);
	send_attempt(health, probe, number, now);
}

// The number of the probe that stands at `slot`.
static uint16_t number_of(const struct health *health, uint16_t slot)
{
	uint16_t last = (uint16_t)(health->next_probe - 1);
	return (uint16_t)(last - ((last - slot) & health->probe_mask));
}

static void time_out(struct health *health, uint16_t slot, uint64_t now)
{
	struct probe *probe = &health->probes[slot];
	if (probe->attempts <= health->settings.retries)
		send_attempt(health, probe, number_of(health, slot), now);
	else
		end_probe(health, probe, true, now);
}

void health_poll(struct health *health, uint64_t now)
{
	for (uint16_t slot = 0; slot <= health->probe_mask; slot++) {
		const struct probe *probe = &health->probes[slot];
		if (probe->attempts != 0 && probe->sent + health->settings.timeout <= now)
			time_out(health, slot, now);
	}
	if (health->next_start <= now) {
		start_probe(health, now);
		// Starts that were missed are not made up for; the rhythm stays.
		uint64_t missed = (now - health->next_start) / health->settings.interval;
		health->next_start += (missed + 1) * health->settings.interval;
	}
	if (health->state != HEALTH_DOWN)
		judge(health, now); // the last success may have left the window
}

uint64_t health_next(const struct health *health)
{
	uint64_t next = health->next_start;
	for (uint16_t slot = 0; slot <= health->probe_mask; slot++) {
		const struct probe *probe = &health->probes[slot];
		uint64_t end = probe->sent + health->settings.timeout;
		if (probe->attempts != 0 && end < next)
			next = end;
	}
	// From when on enough failures are alone in the window.
	uint64_t alone = health->last_success + down_window(health);
	uint64_t failure = oldest_needed_failure(health);
	if (health->state != HEALTH_DOWN && health->has_success && failure != 0 &&
		failure + down_window(health) > alone && alone < next)
		next = alone;
	return next;
}

static void note_round_trip(struct health *health, uint64_t rtt)
{
	health->rtt = rtt;
	// The smoothing of RFC 6298 section 2.
	if (health->rtt_smoothed == 0)
		health->rtt_smoothed = rtt;
	else
		health->rtt_smoothed += (uint64_t)(((int64_t)(rtt - health->rtt_smoothed)) / 8);
}

bool health_answer(struct health *health, uint16_t number, uint64_t cookie, uint64_t at)
{
	uint16_t slot = (uint16_t)(number & health->probe_mask);
	struct probe *probe = &health->probes[slot];
	if (probe->attempts == 0 || number_of(health, slot) != number || probe->cookie != cookie ||
		at >= probe->sent + health->settings.timeout)
		return false;
	if (at < probe->sent) // taken by a worker, whose TSC may be a little behind
		at = probe->sent;
	note_round_trip(health, at == probe->sent ? 1 : at - probe->sent);
	end_probe(health, probe, false, at);
	// A tunnel that comes back need not wait for the next probe.
	if (health->state == HEALTH_DOWN && health->next_start > at)
		health->next_start = at;
	return true;
}

// ---- life ----

bool health_configure(struct health *health, const struct health_settings *settings, uint64_t now)
{
	uint16_t count = slots_for(settings);
	struct probe *probes = calloc(count, sizeof(*probes));
	if (probes == NULL)
		return false;
	free(health->probes);
	health->probes = probes;
	health->probe_mask = (uint16_t)(count - 1);
	bool other_window = settings->degraded_window != health->settings.degraded_window;
	health->settings = *settings;
	if (other_window)
		clear_window(health, now);
	if (health->next_start > now + settings->interval)
		health->next_start = now + settings->interval;
	return true;
}

struct health *health_create(const struct health_settings *settings,
	const struct health_actions *actions, uint64_t now, uint64_t first)
{
	struct health *health = calloc(1, sizeof(*health));
	if (health == NULL)
		return NULL;
	health->actions = *actions;
	health->since = now;
	health->next_start = first;
	if (!health_configure(health, settings, now)) {
		free(health);
		return NULL;
	}
	health->next_start = first;
	return health;
}

void health_destroy(struct health *health)
{
	if (health == NULL)
		return;
	free(health->probes);
	free(health);
}

void health_report(struct health *health, uint64_t now, struct health_report *report)
{
	advance_window(health, now);
	*report = (struct health_report){
		.state = health->state,
		.since = health->since,
		.window_probes = health->window_ended,
		.window_failed = health->window_failed,
		.rtt = health->rtt,
		.rtt_smoothed = health->rtt_smoothed,
		.attempts = health->attempts,
		.answered = health->answered,
		.failed = health->failed,
		.changes = health->changes,
	};
}
