// SPDX-License-Identifier: BSD-3-Clause
// Copyright (c) 2026 the espgw authors

// Numbers 0 to capacity - 1 that control hands out and takes back. A number taken back is handed
// out again only when no worker can hold it any more. Control thread.

#pragma once

#include <stdint.h>

#include "reclaim/reclaim.h"

struct route_pool_item {
	uint32_t number;
	uint64_t token; // of the grace period that began when the number was given back
};

struct route_pool {
	struct reclaim *reclaim;
	struct route_pool_item *items; // a ring; longest free first
	uint32_t capacity, head, free;
};

// 0 or -ENOMEM.
int route_pool_create(struct route_pool *pool, uint32_t capacity, struct reclaim *reclaim);
void route_pool_destroy(struct route_pool *pool);
// One must be free. Waits for the workers only when all that is left was given back just now.
uint32_t route_pool_take(struct route_pool *pool);
// No worker can find the number any more.
void route_pool_give(struct route_pool *pool, uint32_t number);
