// SPDX-License-Identifier: BSD-3-Clause
// Copyright (c) 2026 the espgw authors

// Where the cycles of a worker go: stages, and busy or not.

#include <rte_cycles.h>

#include "telemetry/telemetry.h"

static const struct {
	const char *name, *sentence;
} stages[STAGE_COUNT] = {
#define X(NAME, name, sentence) [STAGE_##NAME] = {name, sentence},
	TELEMETRY_STAGES(X)
#undef X
};

const char *stage_name(enum stage stage)
{
	return stage < STAGE_COUNT ? stages[stage].name : "invalid";
}

const char *stage_sentence(enum stage stage)
{
	return stage < STAGE_COUNT ? stages[stage].sentence : "invalid";
}

enum stage stage_switch(struct stage_clock *clock, enum stage stage, unsigned int packets)
{
	enum stage before = clock->current;
	uint64_t now = rte_rdtsc();
	clock->counters[before].cycles += now - clock->since;
	clock->counters[stage].bursts += packets != 0;
	clock->counters[stage].packets += packets;
	clock->current = stage;
	clock->since = now;
	return before;
}

void stage_count_received(struct stage_clock *clock, unsigned int packets)
{
	if (packets == 0) {
		clock->current = STAGE_IDLE; // since STAGE_RECEIVE was entered
		return;
	}
	clock->counters[STAGE_RECEIVE].bursts++;
	clock->counters[STAGE_RECEIVE].packets += packets;
}

void stage_clock_set(struct stage_clock *clock, bool on)
{
	if (clock->on && !on)
		stage_switch(clock, STAGE_IDLE, 0);
	clock->on = on;
	clock->current = STAGE_IDLE;
	clock->since = rte_rdtsc();
}

uint64_t telemetry_busy_cycles(const struct telemetry_slot *slot)
{
	int64_t busy = __atomic_load_n(&slot->busy, __ATOMIC_RELAXED);
	return (uint64_t)(busy < 0 ? busy + (int64_t)rte_rdtsc() : busy);
}

void telemetry_begin_busy(struct telemetry_slot *slot)
{
	__atomic_store_n(&slot->busy, slot->busy - (int64_t)rte_rdtsc(), __ATOMIC_RELAXED);
}

void telemetry_end_busy(struct telemetry_slot *slot)
{
	__atomic_store_n(&slot->busy, slot->busy + (int64_t)rte_rdtsc(), __ATOMIC_RELAXED);
}
