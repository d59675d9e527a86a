// SPDX-License-Identifier: BSD-3-Clause
// Copyright (c) 2026 the espgw authors

// Groups: the sets of best paths. Prefixes with equal sets share one group.

#pragma once

#include <stdint.h>

#include "pool.h"
#include "route/route.h"

#define ROUTE_GROUP_NONE 0 // the group of what has no route

struct route_member {
	struct route_target target;
	uint32_t weight;
};

struct route_group {
	struct route_target first; // what a lookup gives; read by workers
	// Control's.
	uint32_t references; // prefixes
	uint32_t next;       // in its bucket
	uint32_t count;
	struct route_member *members; // in order of target
};

struct route_groups {
	struct route_group *groups; // [number]
	struct route_pool pool;     // of numbers less one: 0 is ROUTE_GROUP_NONE
	uint32_t *buckets;          // by members; first number or 0
	uint32_t bucket_mask;
};

// Room for `count` groups. 0 or -ENOMEM. Control thread; needs EAL.
int route_groups_create(struct route_groups *groups, uint32_t count, struct reclaim *reclaim);
void route_groups_destroy(struct route_groups *groups);
// Control. The group of these members, with one reference more; sorts `members`. -ENOMEM or
// -ENOSPC.
int route_group_acquire(struct route_groups *groups, struct route_member *members, uint32_t count,
	uint32_t *number);
// Control. No entry that a worker can find leads to it for this reference any more.
void route_group_release(struct route_groups *groups, uint32_t number);
