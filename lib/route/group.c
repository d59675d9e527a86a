// SPDX-License-Identifier: BSD-3-Clause
// Copyright (c) 2026 the espgw authors

#include "group.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <rte_common.h>
#include <rte_jhash.h>
#include <rte_malloc.h>

_Static_assert(sizeof(struct route_member) == 12, "members are hashed and compared as bytes");

int route_groups_create(struct route_groups *groups, uint32_t count, struct reclaim *reclaim)
{
	uint32_t buckets = rte_align32pow2(count);
	groups->bucket_mask = buckets - 1;
	groups->buckets = calloc(buckets, sizeof(*groups->buckets));
	groups->groups = rte_zmalloc(
		"route_groups", ((size_t)count + 1) * sizeof(*groups->groups), RTE_CACHE_LINE_SIZE);
	if (groups->buckets == NULL || groups->groups == NULL)
		return -ENOMEM;
	return route_pool_create(&groups->pool, count, reclaim);
}

void route_groups_destroy(struct route_groups *groups)
{
	for (uint32_t i = 1; i <= groups->pool.capacity; i++)
		free(groups->groups[i].members);
	rte_free(groups->groups);
	free(groups->buckets);
	route_pool_destroy(&groups->pool);
}

static int compare_members(const void *left, const void *right)
{
	const struct route_member *a = left, *b = right;
	if (a->target.kind != b->target.kind)
		return a->target.kind < b->target.kind ? -1 : 1;
	return a->target.index < b->target.index ? -1 : a->target.index > b->target.index;
}

static uint32_t *bucket_of(
	const struct route_groups *groups, const struct route_member *members, uint32_t count)
{
	uint32_t hash = rte_jhash(members, count * sizeof(*members), 0);
	return &groups->buckets[hash & groups->bucket_mask];
}

int route_group_acquire(
	struct route_groups *groups, struct route_member *members, uint32_t count, uint32_t *number)
{
	size_t size = count * sizeof(*members);
	qsort(members, count, sizeof(*members), compare_members);
	uint32_t *bucket = bucket_of(groups, members, count);
	for (uint32_t i = *bucket; i != ROUTE_GROUP_NONE; i = groups->groups[i].next) {
		struct route_group *group = &groups->groups[i];
		if (group->count == count && memcmp(group->members, members, size) == 0) {
			group->references++;
			*number = i;
			return 0;
		}
	}
	if (groups->pool.free == 0)
		return -ENOSPC;
	struct route_member *copy = malloc(size);
	if (copy == NULL)
		return -ENOMEM;
	memcpy(copy, members, size);
	*number = route_pool_take(&groups->pool) + 1;
	groups->groups[*number] = (struct route_group){
		.first = copy[0].target,
		.references = 1,
		.next = *bucket,
		.count = count,
		.members = copy,
	};
	*bucket = *number;
	return 0;
}

void route_group_release(struct route_groups *groups, uint32_t number)
{
	struct route_group *group = &groups->groups[number];
	if (--group->references > 0)
		return;
	uint32_t *link = bucket_of(groups, group->members, group->count);
	while (*link != number)
		link = &groups->groups[*link].next;
	*link = group->next;
	// Workers may read `first` until the pool hands the number out again.
	free(group->members);
	group->members = NULL;
	route_pool_give(&groups->pool, number - 1);
}
