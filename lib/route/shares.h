// SPDX-License-Identifier: BSD-3-Clause
// Copyright (c) 2026 the espgw authors

// How equally good paths share traffic. A flow's hash leads to one of ROUTE_SLOTS slots, and a slot
// to a path. Each slot has gone to the path that scores best for it (weighted rendezvous hashing):
// scores depend on slot, target and weight alone, so a path that goes leaves its own slots and no
// others, and gets the same ones when it comes back. A share differs from what the weights say as
// the number of heads in ROUTE_SLOTS throws does: by more than 3 * sqrt(p * (1 - p) / ROUTE_SLOTS)
// rarely, which is 50 % +- 1.7 for two equal paths.

#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "route/route.h"

#define ROUTE_SLOT_BITS 13
#define ROUTE_SLOTS     (1u << ROUTE_SLOT_BITS)

struct route_share {
	struct route_target target;
	uint32_t weight;
};

struct route_shares {
	// Read by workers.
	struct route_target targets[ROUTE_SHARES_MAX];
	uint8_t slots[ROUTE_SLOTS]; // to an index of targets
	// Control's.
	unsigned int count;
	uint32_t weights[ROUTE_SHARES_MAX];
};

// Control. `count` is 2 to ROUTE_SHARES_MAX; weights are 1 to 256. NULL when there is no memory;
// for free(3).
struct route_shares *route_shares_create(const struct route_share *shares, unsigned int count);
// Control. Whether these are the shares that it was made for.
bool route_shares_are(
	const struct route_shares *shares, const struct route_share *wanted, unsigned int count);

// Worker. All bits of the hash must be equally good.
static inline struct route_target route_shares_get(const struct route_shares *shares, uint32_t hash)
{
	return shares->targets[shares->slots[hash >> (32 - ROUTE_SLOT_BITS)]];
}
