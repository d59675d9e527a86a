// SPDX-License-Identifier: BSD-3-Clause
// Copyright (c) 2026 the espgw authors

#include "telemetry/telemetry.h"

#include <stdlib.h>
#include <string.h>

#include <rte_malloc.h>

static const struct {
	const char *name, *sentence;
} reasons[DROP_COUNT] = {[DROP_NONE] = {"none", "not dropped"},
#define X(NAME, name, sentence) [DROP_##NAME] = {name, sentence},
	TELEMETRY_DROP_REASONS(X)
#undef X
};

const char *drop_reason_name(enum drop_reason reason)
{
	return reason < DROP_COUNT ? reasons[reason].name : "invalid";
}

const char *drop_reason_sentence(enum drop_reason reason)
{
	return reason < DROP_COUNT ? reasons[reason].sentence : "invalid";
}

struct telemetry *telemetry_create(unsigned int workers, unsigned int tunnels)
{
	if (workers + 1 > TELEMETRY_SLOTS)
		return NULL;
	struct telemetry *telemetry = rte_zmalloc("telemetry", sizeof(*telemetry), 0);
	if (telemetry == NULL)
		return NULL;
	telemetry->slots = workers + 1;
	telemetry->tunnels = tunnels;
	for (unsigned int i = 0; i < telemetry->slots; i++) {
		struct telemetry_slot *slot =
			rte_zmalloc("telemetry_slot", sizeof(*slot), RTE_CACHE_LINE_SIZE);
		telemetry->slot[i] = slot;
		if (slot != NULL)
			slot->tunnels = rte_calloc("telemetry_tunnels", tunnels ? tunnels : 1,
				sizeof(*slot->tunnels), RTE_CACHE_LINE_SIZE);
		if (slot == NULL || slot->tunnels == NULL) {
			telemetry_destroy(telemetry);
			return NULL;
		}
	}
	return telemetry;
}

void telemetry_destroy(struct telemetry *telemetry)
{
	if (telemetry == NULL)
		return;
	for (unsigned int i = 0; i < telemetry->slots; i++) {
		if (telemetry->slot[i] != NULL)
			rte_free(telemetry->slot[i]->tunnels);
		rte_free(telemetry->slot[i]);
	}
	rte_free(telemetry);
}

// Both sums treat their struct as the array of 64-bit counters that it is.
static void add_counters(void *sum, const void *part, size_t size)
{
	uint64_t *to = sum;
	const uint64_t *from = part;
	for (size_t i = 0; i < size / sizeof(uint64_t); i++)
		to[i] += __atomic_load_n(&from[i], __ATOMIC_RELAXED);
}

void telemetry_sum_source(
	const struct telemetry *telemetry, unsigned int source, struct telemetry_source *sum)
{
	memset(sum, 0, sizeof(*sum));
	for (unsigned int i = 0; i < telemetry->slots; i++)
		add_counters(sum, &telemetry->slot[i]->sources[source], sizeof(*sum));
}

void telemetry_sum_tunnel(
	const struct telemetry *telemetry, unsigned int tunnel, struct telemetry_tunnel *sum)
{
	memset(sum, 0, sizeof(*sum));
	for (unsigned int i = 0; i < telemetry->slots; i++)
		add_counters(sum, &telemetry->slot[i]->tunnels[tunnel], sizeof(*sum));
}

uint64_t telemetry_source_held(const struct telemetry_source *sum)
{
	uint64_t ended = sum->forwarded + sum->to_host + sum->joined;
	for (unsigned int reason = 0; reason < DROP_COUNT; reason++)
		ended += sum->drops[reason];
	return sum->received + sum->split - ended;
}
