// SPDX-License-Identifier: BSD-3-Clause
// Copyright (c) 2026 the espgw authors

// Groups: the sets of paths that prefixes have. Prefixes with equal sets share one group, and which
// of its paths are used is decided once for all of them. So a target's new penalty costs a look at
// each group that has a path to it, however many prefixes there are, and one store for those whose
// choice changes.
//
// A worker that is held up between a trie's entry and the group it names may find a choice there
// that the group has made since the address left it: by the paths of then and the penalties of now.

#pragma once

#include <stdatomic.h>
#include <stdint.h>
#include <sys/queue.h>

#include "pool.h"
#include "route/route.h"
#include "shares.h"

#define ROUTE_GROUP_NONE 0 // the group of what has no route
#define ROUTE_PATHS_MAX  256

// A target that paths lead to, or that has a penalty.
struct route_via {
	struct route_target target; // first: the key
	uint32_t penalty;
	LIST_HEAD(, route_link) links; // the paths of groups that lead to it
};

struct route_link {
	LIST_ENTRY(route_link) next;
	struct route_via *via;
	uint32_t group;
};

struct route_group {
	// Read by workers when the choice is shared; else left from when it last was, or NULL.
	_Atomic(struct route_shares *) shares;
	// Control's.
	uint32_t references; // prefixes
	uint32_t next;       // in its bucket
	uint32_t count;
	struct route_path *paths; // by target and origin
	struct route_link *links; // [count], as the paths
};

// A struct route_target as one word, so that workers see all of a change or nothing.
typedef _Atomic uint64_t route_choice;

struct route_groups {
	route_choice *choices;      // [number]; what a lookup gives, read by workers
	struct route_group *groups; // [number]
	// Control's.
	struct reclaim *reclaim;
	struct route_pool pool; // of numbers less one: 0 is ROUTE_GROUP_NONE
	uint32_t *buckets;      // by paths; first number or 0
	uint32_t bucket_mask;
	void *vias; // tsearch(3) tree of struct route_via
};

// Room for `count` groups. 0 or -ENOMEM. Control thread; needs EAL.
int route_groups_create(struct route_groups *groups, uint32_t count, struct reclaim *reclaim);
void route_groups_destroy(struct route_groups *groups);
// Control. The group of these paths, of which there is one at least, with one reference more; sorts
// `paths`. -ENOMEM or -ENOSPC.
int route_group_acquire(
	struct route_groups *groups, struct route_path *paths, uint32_t count, uint32_t *number);
// Control. No entry that a worker can find leads to it for this reference any more.
void route_group_release(struct route_groups *groups, uint32_t number);

// Control. Which of a group's paths are used now: sets best[0] and those that follow to indexes of
// its paths, and returns how many, ROUTE_SHARES_MAX at most.
unsigned int route_group_best(const struct route_group *group, uint8_t *best);
// Control. What is added to the priorities of paths to this target.
uint32_t route_groups_penalty(const struct route_groups *groups, const struct route_target *target);
// Control. Sets that, and brings every group's choice in line with it. Sets *changed when a lookup
// may give another result. 0 or -ENOMEM: some that should share don't.
int route_groups_set_penalty(struct route_groups *groups, const struct route_target *target,
	uint32_t penalty, bool *changed);
// Control. Whether the two groups give the same results. One may be ROUTE_GROUP_NONE.
bool route_groups_agree(const struct route_groups *groups, uint32_t one, uint32_t other);

static inline struct route_target route_choice_read(const route_choice *choice)
{
	// Acquire: what a choice names was written before it.
	uint64_t word = atomic_load_explicit(choice, memory_order_acquire);
	return (struct route_target){.kind = (uint32_t)word, .index = (uint32_t)(word >> 32)};
}
