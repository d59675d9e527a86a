// SPDX-License-Identifier: BSD-3-Clause
// Copyright (c) 2026 the espgw authors

#include "dataplane/group.h"

#include <string.h>

#include <rte_branch_prediction.h>

enum { BUCKETS = 64, NONE = UINT8_MAX };

// Lists of packets, by their index in the burst.
struct groups {
	unsigned int count;
	uint8_t bucket[BUCKETS]; // the latest group of the tunnels that fall there
	uint8_t first[ESP_BURST_MAX], last[ESP_BURST_MAX];
	uint8_t next[ESP_BURST_MAX];
};

// A tunnel whose bucket another one has taken meanwhile gets a second group, after its first: the
// order among its packets stays.
static inline void add(struct groups *groups, const uint32_t *tunnels, uint8_t index)
{
	uint8_t *bucket = &groups->bucket[tunnels[index] % BUCKETS];
	uint8_t group = *bucket;
	groups->next[index] = NONE;
	if (group != NONE && tunnels[groups->first[group]] == tunnels[index]) {
		groups->next[groups->last[group]] = index;
	} else {
		group = *bucket = (uint8_t)groups->count++;
		groups->first[group] = index;
	}
	groups->last[group] = index;
}

unsigned int group_by_tunnel(const uint32_t *tunnels, unsigned int count, uint8_t *order)
{
	if (likely(are_equal(tunnels, count)))
		return 1;
	struct groups groups;
	groups.count = 0;
	memset(groups.bucket, NONE, sizeof(groups.bucket));
	for (unsigned int i = 0; i < count; i++)
		add(&groups, tunnels, (uint8_t)i);
	for (unsigned int group = 0, at = 0; group < groups.count; group++)
		for (uint8_t i = groups.first[group]; i != NONE; i = groups.next[i])
			order[at++] = i;
	return groups.count;
}
