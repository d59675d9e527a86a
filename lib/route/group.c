// SPDX-License-Identifier: BSD-3-Clause
// Copyright (c) 2026 the espgw authors

#include "group.h"

#include <errno.h>
#include <search.h>
#include <stdlib.h>
#include <string.h>

#include <rte_common.h>
#include <rte_jhash.h>
#include <rte_malloc.h>

_Static_assert(sizeof(struct route_path) == 20, "paths are hashed and compared as bytes");

int route_groups_create(struct route_groups *groups, uint32_t count, struct reclaim *reclaim)
{
	uint32_t buckets = rte_align32pow2(count);
	groups->reclaim = reclaim;
	groups->bucket_mask = buckets - 1;
	groups->buckets = calloc(buckets, sizeof(*groups->buckets));
	groups->groups = calloc((size_t)count + 1, sizeof(*groups->groups));
	// ROUTE_GROUP_NONE's is ROUTE_NONE: zero.
	groups->choices = rte_zmalloc("route_choices",
		((size_t)count + 1) * sizeof(*groups->choices), RTE_CACHE_LINE_SIZE);
	if (groups->buckets == NULL || groups->groups == NULL || groups->choices == NULL)
		return -ENOMEM;
	return route_pool_create(&groups->pool, count, reclaim);
}

void route_groups_destroy(struct route_groups *groups)
{
	for (uint32_t i = 1; groups->groups != NULL && i <= groups->pool.capacity; i++) {
		if (groups->groups[i].paths == NULL) // the shares are gone, or will be
			continue;
		free(groups->groups[i].paths);
		free(atomic_load(&groups->groups[i].shares));
	}
	tdestroy(groups->vias, free);
	rte_free(groups->choices);
	free(groups->groups);
	free(groups->buckets);
	route_pool_destroy(&groups->pool);
}

static int compare_targets(const void *left, const void *right)
{
	const struct route_target *a = left, *b = right;
	if (a->kind != b->kind)
		return a->kind < b->kind ? -1 : 1;
	return a->index < b->index ? -1 : a->index > b->index;
}

static int compare_paths(const void *left, const void *right)
{
	const struct route_path *a = left, *b = right;
	int order = compare_targets(&a->target, &b->target);
	return order != 0 ? order : (a->origin > b->origin) - (a->origin < b->origin);
}

// ---- Targets and their penalties ----

static struct route_via *find_via(
	const struct route_groups *groups, const struct route_target *target)
{
	struct route_via **found = tfind(target, &groups->vias, compare_targets);
	return found == NULL ? NULL : *found;
}

static struct route_via *get_via(struct route_groups *groups, const struct route_target *target)
{
	struct route_via *via = find_via(groups, target);
	if (via != NULL)
		return via;
	via = calloc(1, sizeof(*via));
	if (via == NULL)
		return NULL;
	via->target = *target;
	LIST_INIT(&via->links);
	if (tsearch(via, &groups->vias, compare_targets) != NULL)
		return via;
	free(via);
	return NULL;
}

static void drop_unused_via(struct route_groups *groups, struct route_via *via)
{
	if (via->penalty != 0 || !LIST_EMPTY(&via->links))
		return;
	tdelete(via, &groups->vias, compare_targets);
	free(via);
}

static void unlink_paths(struct route_groups *groups, struct route_link *links, uint32_t count)
{
	for (uint32_t i = 0; i < count; i++) {
		LIST_REMOVE(&links[i], next);
		drop_unused_via(groups, links[i].via);
	}
}

// False when there is no memory, with nothing linked.
static bool link_paths(struct route_groups *groups, struct route_group *group, uint32_t number)
{
	for (uint32_t i = 0; i < group->count; i++) {
		struct route_link *link = &group->links[i];
		*link = (struct route_link){
			.via = get_via(groups, &group->paths[i].target), .group = number};
		if (link->via == NULL) {
			unlink_paths(groups, group->links, i);
			return false;
		}
		LIST_INSERT_HEAD(&link->via->links, link, next);
	}
	return true;
}

// ---- Which paths are used ----

// Priority with the penalty in the high half, then origin: the lower the better.
static uint64_t rank_of(const struct route_group *group, uint32_t path)
{
	uint64_t priority = route_effective_priority(
		group->paths[path].priority, group->links[path].via->penalty);
	return priority << 32 | group->paths[path].origin;
}

static bool can_share(const struct route_target *a, const struct route_target *b)
{
	return a->kind == b->kind && (a->kind == ROUTE_TUNNEL || a->kind == ROUTE_ADJACENCY);
}

unsigned int route_group_best(const struct route_group *group, uint8_t *best)
{
	uint64_t lowest = UINT64_MAX;
	unsigned int count = 0;
	// In order of kind and index, so the first of a rank is the one that is used at any rate.
	for (uint32_t i = 0; i < group->count; i++) {
		uint64_t rank = rank_of(group, i);
		if (rank < lowest)
			count = 0;
		else if (rank > lowest || count == ROUTE_SHARES_MAX ||
			 !can_share(&group->paths[best[0]].target, &group->paths[i].target))
			continue;
		lowest = rank;
		best[count++] = (uint8_t)i;
	}
	return count;
}

static uint64_t choice_of(uint32_t kind, uint32_t index)
{
	return (uint64_t)index << 32 | kind;
}

static unsigned int list_shares(const struct route_group *group, struct route_share *shares)
{
	uint8_t best[ROUTE_SHARES_MAX];
	unsigned int count = route_group_best(group, best);
	for (unsigned int i = 0; i < count; i++)
		shares[i] = (struct route_share){
			group->paths[best[i]].target, group->paths[best[i]].weight};
	return count;
}

// Makes the group's shares these. -ENOMEM with nothing changed.
static int set_shares(struct route_groups *groups, struct route_group *group,
	const struct route_share *shares, unsigned int count)
{
	struct route_shares *old = atomic_load_explicit(&group->shares, memory_order_relaxed);
	struct route_shares *created = route_shares_create(shares, count);
	if (created == NULL)
		return -ENOMEM;
	atomic_store_explicit(&group->shares, created, memory_order_release);
	if (old != NULL)
		reclaim_defer(groups->reclaim, free, old);
	return 0;
}

// Makes the workers see the group's best paths. Sets *changed, or leaves it, when they are others.
// On -ENOMEM the first of those that should share is used.
//
// A worker may have read that the group is shared just before it is not any more, or is by others.
// It gets an answer from before or after the change all the same: old shares stay until others take
// their place, and are freed after its quiescent period.
static int choose(struct route_groups *groups, uint32_t number, bool *changed)
{
	struct route_group *group = &groups->groups[number];
	struct route_share shares[ROUTE_SHARES_MAX];
	unsigned int count = list_shares(group, shares);
	uint64_t before = atomic_load_explicit(&groups->choices[number], memory_order_relaxed);
	uint64_t choice = choice_of(shares[0].target.kind, shares[0].target.index);
	int result = 0;
	if (count > 1) {
		if (!route_shares_are(group->shares, shares, count)) {
			result = set_shares(groups, group, shares, count);
			*changed = true;
		}
		if (result == 0)
			choice = choice_of(shares[0].target.kind | ROUTE_SHARED, number);
	}
	*changed |= choice != before;
	atomic_store_explicit(&groups->choices[number], choice, memory_order_release);
	return result;
}

uint32_t route_groups_penalty(const struct route_groups *groups, const struct route_target *target)
{
	const struct route_via *via = find_via(groups, target);
	return via == NULL ? 0 : via->penalty;
}

int route_groups_set_penalty(struct route_groups *groups, const struct route_target *target,
	uint32_t penalty, bool *changed)
{
	struct route_via *via = get_via(groups, target);
	struct route_link *link;
	int result = 0;
	*changed = false;
	if (via == NULL)
		return -ENOMEM;
	via->penalty = penalty;
	LIST_FOREACH (link, &via->links, next)
		if (choose(groups, link->group, changed) != 0)
			result = -ENOMEM;
	drop_unused_via(groups, via);
	return result;
}

bool route_groups_agree(const struct route_groups *groups, uint32_t one, uint32_t other)
{
	struct route_share shares[ROUTE_SHARES_MAX], others[ROUTE_SHARES_MAX];
	if (one == ROUTE_GROUP_NONE || other == ROUTE_GROUP_NONE)
		return one == other;
	unsigned int count = list_shares(&groups->groups[one], shares);
	return count == list_shares(&groups->groups[other], others) &&
	       memcmp(shares, others, count * sizeof(*shares)) == 0;
}

// ---- Groups ----

static uint32_t *bucket_of(
	const struct route_groups *groups, const struct route_path *paths, uint32_t count)
{
	uint32_t hash = rte_jhash(paths, count * sizeof(*paths), 0);
	return &groups->buckets[hash & groups->bucket_mask];
}

// With its paths, and room for their links behind them.
static bool fill_group(struct route_group *group, const struct route_path *paths, uint32_t count)
{
	size_t size = RTE_ALIGN_CEIL(count * sizeof(*paths), sizeof(void *));
	struct route_path *copy = malloc(size + count * sizeof(struct route_link));
	if (copy == NULL)
		return false;
	memcpy(copy, paths, count * sizeof(*paths));
	*group = (struct route_group){
		.references = 1,
		.count = count,
		.paths = copy,
		.links = (struct route_link *)(void *)((char *)copy + size),
	};
	return true;
}

static int create_group(struct route_groups *groups, const struct route_path *paths, uint32_t count,
	uint32_t *number)
{
	struct route_group created;
	if (groups->pool.free == 0)
		return -ENOSPC;
	if (!fill_group(&created, paths, count))
		return -ENOMEM;
	*number = route_pool_take(&groups->pool) + 1;
	groups->groups[*number] = created;
	bool changed = false;
	if (link_paths(groups, &groups->groups[*number], *number)) {
		if (choose(groups, *number, &changed) == 0)
			return 0;
		unlink_paths(groups, groups->groups[*number].links, count);
	}
	free(created.paths);
	groups->groups[*number].paths = NULL;
	route_pool_give(&groups->pool, *number - 1);
	return -ENOMEM;
}

int route_group_acquire(
	struct route_groups *groups, struct route_path *paths, uint32_t count, uint32_t *number)
{
	qsort(paths, count, sizeof(*paths), compare_paths);
	uint32_t *bucket = bucket_of(groups, paths, count);
	for (uint32_t i = *bucket; i != ROUTE_GROUP_NONE; i = groups->groups[i].next) {
		struct route_group *group = &groups->groups[i];
		if (group->count == count &&
			memcmp(group->paths, paths, count * sizeof(*paths)) == 0) {
			group->references++;
			*number = i;
			return 0;
		}
	}
	int result = create_group(groups, paths, count, number);
	if (result != 0)
		return result;
	groups->groups[*number].next = *bucket;
	*bucket = *number;
	return 0;
}

void route_group_release(struct route_groups *groups, uint32_t number)
{
	struct route_group *group = &groups->groups[number];
	if (--group->references > 0)
		return;
	uint32_t *link = bucket_of(groups, group->paths, group->count);
	while (*link != number)
		link = &groups->groups[*link].next;
	*link = group->next;
	// Workers may read choice and shares until the pool hands the number out again.
	struct route_shares *shares = atomic_load_explicit(&group->shares, memory_order_relaxed);
	if (shares != NULL)
		reclaim_defer(groups->reclaim, free, shares);
	unlink_paths(groups, group->links, group->count);
	free(group->paths);
	group->paths = NULL;
	route_pool_give(&groups->pool, number - 1);
}
