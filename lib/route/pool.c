// SPDX-License-Identifier: BSD-3-Clause
// Copyright (c) 2026 the espgw authors

#include "pool.h"

#include <errno.h>
#include <stdlib.h>

int route_pool_create(struct route_pool *pool, uint32_t capacity, struct reclaim *reclaim)
{
	*pool = (struct route_pool){
		.reclaim = reclaim,
		.items = calloc(capacity, sizeof(*pool->items)),
		.capacity = capacity,
		.free = capacity,
	};
	if (pool->items == NULL)
		return -ENOMEM;
	// Token 0: its grace period is over.
	for (uint32_t i = 0; i < capacity; i++)
		pool->items[i].number = i;
	return 0;
}

void route_pool_destroy(struct route_pool *pool)
{
	free(pool->items);
}

uint32_t route_pool_take(struct route_pool *pool)
{
	struct route_pool_item item = pool->items[pool->head];
	reclaim_wait(pool->reclaim, item.token);
	pool->head = (pool->head + 1) % pool->capacity;
	pool->free--;
	return item.number;
}

void route_pool_give(struct route_pool *pool, uint32_t number)
{
	uint64_t tail = (uint64_t)pool->head + pool->free;
	pool->items[tail % pool->capacity] = (struct route_pool_item){
		.number = number,
		.token = rte_rcu_qsbr_start(reclaim_qsbr(pool->reclaim)),
	};
	pool->free++;
}
