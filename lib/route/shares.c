// SPDX-License-Identifier: BSD-3-Clause
// Copyright (c) 2026 the espgw authors

#include "shares.h"

#include <math.h>
#include <stdlib.h>

// A bijection in which every bit of the result depends on every bit of x (the finalizer of
// splitmix64).
static uint64_t mix(uint64_t x)
{
	x = (x ^ x >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
	x = (x ^ x >> 27) * UINT64_C(0x94d049bb133111eb);
	return x ^ x >> 31;
}

static uint64_t seed_of(const struct route_target *target)
{
	return mix((uint64_t)target->kind << 32 | target->index);
}

// The lowest wins. It is exponentially distributed with a rate of `weight`, so the path wins as
// often as its weight's part of all weights.
static double score(uint64_t seed, uint32_t slot, uint32_t weight)
{
	const double unit = 1.0 / 9007199254740992.0; // 2^-53
	uint64_t random = mix(seed + slot * UINT64_C(0x9e3779b97f4a7c15)) >> 11;
	return -log(((double)random + 1) * unit) / weight;
}

struct route_shares *route_shares_create(const struct route_share *shares, unsigned int count)
{
	struct route_shares *created = calloc(1, sizeof(*created));
	if (created == NULL)
		return NULL;
	created->count = count;
	double best[ROUTE_SLOTS];
	for (unsigned int i = 0; i < count; i++) {
		uint64_t seed = seed_of(&shares[i].target);
		created->targets[i] = shares[i].target;
		created->weights[i] = shares[i].weight;
		for (uint32_t slot = 0; slot < ROUTE_SLOTS; slot++) {
			double own = score(seed, slot, shares[i].weight);
			if (i != 0 && own >= best[slot])
				continue;
			best[slot] = own;
			created->slots[slot] = (uint8_t)i;
		}
	}
	return created;
}

bool route_shares_are(
	const struct route_shares *shares, const struct route_share *wanted, unsigned int count)
{
	if (shares == NULL || shares->count != count)
		return false;
	for (unsigned int i = 0; i < count; i++)
		if (shares->targets[i].kind != wanted[i].target.kind ||
			shares->targets[i].index != wanted[i].target.index ||
			shares->weights[i] != wanted[i].weight)
			return false;
	return true;
}
