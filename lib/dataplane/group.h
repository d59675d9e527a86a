// SPDX-License-Identifier: BSD-3-Clause
// Copyright (c) 2026 the espgw authors

// Bursts in which tunnels alternate (private to lib/dataplane). Most steps read once what
// neighbours of one tunnel share, and a change of tunnel costs them a branch that can't be
// predicted, an atomic operation and more. So packets of one tunnel are brought together first.
// Among them they keep their order; packets of different tunnels belong to different flows.

#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "esp/esp.h"

// With more tunnels than this in a burst, their SAs are fetched beforehand: they will be in no near
// cache.
#define GROUPS_FEW 8

// Whether all values, of which there is one at least, are the same. Without a branch for each, so
// that the compiler takes four a step.
static inline bool are_equal(const uint32_t *values, unsigned int count)
{
	uint32_t differences = 0;
	for (unsigned int i = 0; i < count; i++)
		differences |= values[i] ^ values[0];
	return differences == 0;
}

// Worker. The order in which packets of one tunnel are neighbours: packet order[i] comes i-th. How
// many groups there are; with 1, nothing is written. count is 1 to ESP_BURST_MAX.
unsigned int group_by_tunnel(const uint32_t *tunnels, unsigned int count, uint8_t *order);
