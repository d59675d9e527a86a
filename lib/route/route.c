// SPDX-License-Identifier: BSD-3-Clause
// Copyright (c) 2026 the espgw authors

// Control's side: which paths each prefix has, and what the workers' tries say about it.

#include "route/route.h"

#include <errno.h>
#include <search.h>
#include <stdlib.h>
#include <string.h>

#include <rte_common.h>

#include "table.h"

// Nodes are shared by both families. An IPv4 prefix over 24 bits needs one, an IPv6 prefix of 48
// bits four of its own at worst; neighbours' host routes share most of theirs.
#define NODES_PER_ROUTE 4
#define NODES_MIN       4096
#define NODES_MAX       262144 // 256 MB

// A prefix takes its new group before it leaves the old one; a few more, so that no change has to
// wait for the workers to leave a group.
#define GROUPS_SPARE 256

struct route_prefix {
	struct packet_prefix prefix; // first: the key
	uint32_t group;              // its paths
};

static const struct route_group *group_of(
	const struct route_table *table, const struct route_prefix *prefix)
{
	return &table->groups.groups[prefix->group];
}

static unsigned int family_of(const struct packet_address *address)
{
	return address->family == 4 ? ROUTE_IPV4 : ROUTE_IPV6;
}

// By family, address, length.
static int compare_prefixes(const void *left, const void *right)
{
	const struct packet_prefix *a = left, *b = right;
	if (a->address.family != b->address.family)
		return a->address.family < b->address.family ? -1 : 1;
	int order = memcmp(a->address.bytes, b->address.bytes, sizeof(a->address.bytes));
	return order != 0 ? order : (int)a->length - (int)b->length;
}

static struct route_prefix *find(
	const struct route_table *table, const struct packet_prefix *prefix)
{
	struct route_prefix **found = tfind(prefix, &table->prefixes, compare_prefixes);
	return found == NULL ? NULL : *found;
}

// The longest prefix of at most `length` bits around an address.
static struct route_prefix *find_covering(
	const struct route_table *table, const struct packet_address *address, int length)
{
	const uint32_t *lengths = table->lengths[family_of(address)];
	for (; length >= 0; length--) {
		if (lengths[length] == 0)
			continue;
		struct packet_prefix prefix = packet_prefix_of(address, (uint8_t)length);
		struct route_prefix *found = find(table, &prefix);
		if (found != NULL)
			return found;
	}
	return NULL;
}

struct route_table *route_table_create(
	const char *name, uint32_t max_routes, struct reclaim *reclaim)
{
	struct route_table *table = calloc(1, sizeof(*table));
	if (table == NULL)
		return NULL;
	table->reclaim = reclaim;
	table->max_prefixes = max_routes;
	uint64_t nodes = RTE_MIN((uint64_t)max_routes * NODES_PER_ROUTE + NODES_MIN, NODES_MAX);

	uint32_t groups = RTE_MIN(max_routes, ROUTE_ENTRY_NUMBER - GROUPS_SPARE) + GROUPS_SPARE;
	if (route_nodes_create(&table->nodes, name, (uint32_t)nodes, reclaim) != 0 ||
		route_trie_create(
			&table->tries[ROUTE_IPV4], name, &table->nodes, ROUTE_ROOT4_BYTES) != 0 ||
		route_trie_create(
			&table->tries[ROUTE_IPV6], name, &table->nodes, ROUTE_ROOT6_BYTES) != 0 ||
		route_groups_create(&table->groups, groups, reclaim) != 0) {
		route_table_destroy(table);
		return NULL;
	}
	return table;
}

void route_table_destroy(struct route_table *table)
{
	if (table == NULL)
		return;
	tdestroy(table->prefixes, free);
	route_groups_destroy(&table->groups);
	route_trie_destroy(&table->tries[ROUTE_IPV4]);
	route_trie_destroy(&table->tries[ROUTE_IPV6]);
	route_nodes_destroy(&table->nodes);
	free(table);
}

static void set_default(struct route_table *table, unsigned int family, uint32_t group)
{
	route_default *where = &table->defaults[family];
	uint64_t version = atomic_load_explicit(where, memory_order_relaxed) >> 32;
	atomic_store_explicit(where, (version + 1) << 32 | group, memory_order_release);
}

// Shows the workers a prefix's group. Only a prefix that is new to them can be refused.
static int show(struct route_table *table, const struct packet_prefix *prefix, uint32_t group)
{
	unsigned int family = family_of(&prefix->address);
	if (prefix->length == 0) {
		set_default(table, family, group);
		return 0;
	}
	return route_trie_insert(
		&table->tries[family], prefix->address.bytes, prefix->length, group);
}

static void hide(struct route_table *table, const struct packet_prefix *prefix)
{
	unsigned int family = family_of(&prefix->address);
	if (prefix->length == 0) {
		set_default(table, family, ROUTE_GROUP_NONE);
		return;
	}
	const struct route_prefix *covering =
		find_covering(table, &prefix->address, prefix->length - 1);
	route_trie_remove(&table->tries[family], prefix->address.bytes, prefix->length,
		covering == NULL ? 0 : covering->prefix.length,
		covering == NULL ? ROUTE_GROUP_NONE : covering->group);
}

// Gives a prefix these paths, which it sorts. On an error nothing has changed.
static int set_paths(struct route_table *table, struct route_prefix *prefix,
	struct route_path *paths, unsigned int count)
{
	uint32_t old = prefix->group, group;
	int result = route_group_acquire(&table->groups, paths, count, &group);
	if (result != 0)
		return result;
	if (group != old) {
		result = show(table, &prefix->prefix, group);
		if (result != 0) {
			route_group_release(&table->groups, group);
			return result;
		}
		table->generation += !route_groups_agree(&table->groups, old, group);
	}
	if (old != ROUTE_GROUP_NONE)
		route_group_release(&table->groups, old);
	prefix->group = group;
	return 0;
}

static struct route_prefix *create_prefix(
	struct route_table *table, const struct packet_prefix *prefix)
{
	struct route_prefix *created = calloc(1, sizeof(*created));
	if (created == NULL)
		return NULL;
	created->prefix = *prefix;
	if (tsearch(created, &table->prefixes, compare_prefixes) == NULL) {
		free(created);
		return NULL;
	}
	table->prefix_count++;
	table->lengths[family_of(&prefix->address)][prefix->length]++;
	return created;
}

// Forgets a prefix that the workers don't know any more.
static void destroy_prefix(struct route_table *table, struct route_prefix *prefix)
{
	tdelete(prefix, &table->prefixes, compare_prefixes);
	table->prefix_count--;
	table->lengths[family_of(&prefix->prefix.address)][prefix->prefix.length]--;
	free(prefix);
}

static bool same_target(const struct route_target *a, const struct route_target *b)
{
	return a->kind == b->kind && a->index == b->index;
}

// Index of the path with this target and origin, or the group's count.
static unsigned int path_index(const struct route_group *group, const struct route_target *target,
	enum route_origin origin)
{
	unsigned int i = 0;
	while (i < group->count &&
		(group->paths[i].origin != origin || !same_target(&group->paths[i].target, target)))
		i++;
	return i;
}

static bool is_valid(const struct packet_prefix *prefix, const struct route_path *path)
{
	if (prefix->address.family != 4 && prefix->address.family != 6)
		return false;
	if (prefix->length > packet_address_bits(&prefix->address))
		return false;
	struct packet_prefix cleared = packet_prefix_of(&prefix->address, prefix->length);
	return packet_prefix_equal(&cleared, prefix) && path->target.kind != ROUTE_NONE &&
	       path->target.kind <= ROUTE_LOCAL_TUNNEL && path->origin < ROUTE_ORIGINS &&
	       path->weight >= 1 && path->weight <= 256;
}

static int add_path(
	struct route_table *table, struct route_prefix *prefix, const struct route_path *path)
{
	const struct route_group *group = group_of(table, prefix);
	struct route_path paths[ROUTE_PATHS_MAX];
	unsigned int at = path_index(group, &path->target, path->origin);
	unsigned int count = group->count + (at == group->count);
	if (count > ROUTE_PATHS_MAX)
		return -ENOSPC;
	for (unsigned int i = 0; i < group->count; i++)
		paths[i] = group->paths[i];
	paths[at] = *path;
	return set_paths(table, prefix, paths, count);
}

int route_add(struct route_table *table, const struct packet_prefix *prefix,
	const struct route_path *path)
{
	if (!is_valid(prefix, path))
		return -EINVAL;
	struct route_prefix *found = find(table, prefix);
	if (found != NULL)
		return add_path(table, found, path);
	if (table->prefix_count >= table->max_prefixes)
		return -ENOSPC;
	found = create_prefix(table, prefix);
	if (found == NULL)
		return -ENOMEM;
	int result = add_path(table, found, path);
	if (result != 0)
		destroy_prefix(table, found);
	return result;
}

// Leaves a prefix these paths, if any, of those it has.
static int keep_paths(struct route_table *table, struct route_prefix *prefix,
	struct route_path *paths, unsigned int count)
{
	if (count > 0)
		return set_paths(table, prefix, paths, count);
	hide(table, &prefix->prefix);
	route_group_release(&table->groups, prefix->group);
	table->generation++;
	destroy_prefix(table, prefix);
	return 0;
}

typedef bool (*path_match)(const struct route_path *path, const void *wanted);

// Deletes the paths that match, and sets *deleted to how many.
static int remove_paths(struct route_table *table, struct route_prefix *prefix, path_match match,
	const void *wanted, unsigned int *deleted)
{
	const struct route_group *group = group_of(table, prefix);
	struct route_path kept[ROUTE_PATHS_MAX];
	unsigned int count = 0;
	for (unsigned int i = 0; i < group->count; i++)
		if (!match(&group->paths[i], wanted))
			kept[count++] = group->paths[i];
	*deleted = group->count - count;
	return *deleted == 0 ? 0 : keep_paths(table, prefix, kept, count);
}

static bool is_path(const struct route_path *path, const void *wanted)
{
	const struct route_path *other = wanted;
	return path->origin == other->origin && same_target(&path->target, &other->target);
}

int route_delete(struct route_table *table, const struct packet_prefix *prefix,
	const struct route_target *target, enum route_origin origin)
{
	struct route_path wanted = {.target = *target, .origin = origin};
	struct route_prefix *found = find(table, prefix);
	unsigned int deleted;
	if (found == NULL)
		return -ENOENT;
	int result = remove_paths(table, found, is_path, &wanted, &deleted);
	return result == 0 && deleted == 0 ? -ENOENT : result;
}

// The prefixes in order, in an array, so that they may be deleted on the way.
struct listing {
	struct route_prefix **prefixes;
	uint32_t count;
};

static void list_prefix(const void *node, VISIT visit, void *argument)
{
	struct listing *listing = argument;
	// Each node once: inner nodes between their two children.
	if (visit == postorder || visit == leaf)
		listing->prefixes[listing->count++] = *(struct route_prefix *const *)node;
}

static struct listing list_prefixes(const struct route_table *table)
{
	struct listing listing = {
		.prefixes = calloc(table->prefix_count + 1, sizeof(*listing.prefixes))};
	if (listing.prefixes != NULL)
		twalk_r(table->prefixes, list_prefix, &listing);
	return listing;
}

static unsigned int delete_matching(struct route_table *table, path_match match, const void *wanted)
{
	unsigned int total = 0, deleted;
	struct listing listing = list_prefixes(table);
	for (uint32_t i = 0; i < listing.count; i++)
		if (remove_paths(table, listing.prefixes[i], match, wanted, &deleted) == 0)
			total += deleted;
	free(listing.prefixes);
	return total;
}

static bool has_origin(const struct route_path *path, const void *wanted)
{
	return path->origin == *(const enum route_origin *)wanted;
}

unsigned int route_delete_origin(struct route_table *table, enum route_origin origin)
{
	return delete_matching(table, has_origin, &origin);
}

static bool has_target(const struct route_path *path, const void *wanted)
{
	return same_target(&path->target, wanted);
}

unsigned int route_delete_target(struct route_table *table, const struct route_target *target)
{
	return delete_matching(table, has_target, target);
}

unsigned int route_count(const struct route_table *table)
{
	return table->prefix_count;
}

uint64_t route_generation(const struct route_table *table)
{
	return table->generation;
}

int route_set_penalty(
	struct route_table *table, const struct route_target *target, uint32_t penalty)
{
	bool changed;
	int result = route_groups_set_penalty(&table->groups, target, penalty, &changed);
	table->generation += changed;
	return result;
}

uint32_t route_penalty(const struct route_table *table, const struct route_target *target)
{
	return route_groups_penalty(&table->groups, target);
}

static bool walk_paths(const struct route_table *table, const struct route_prefix *prefix,
	route_each each, void *argument)
{
	const struct route_group *group = group_of(table, prefix);
	uint8_t best[ROUTE_SHARES_MAX];
	unsigned int used = route_group_best(group, best);
	bool go_on = true;
	for (unsigned int i = 0, next = 0; i < group->count && go_on; i++) {
		bool is_best = next < used && best[next] == i;
		next += is_best;
		go_on = each(&prefix->prefix, &group->paths[i], is_best, argument);
	}
	return go_on;
}

bool route_walk(const struct route_table *table, route_each each, void *argument)
{
	struct listing listing = list_prefixes(table);
	bool go_on = listing.prefixes != NULL;
	for (uint32_t i = 0; i < listing.count && go_on; i++)
		go_on = walk_paths(table, listing.prefixes[i], each, argument);
	free(listing.prefixes);
	return go_on;
}

static struct route_target lookup_prefix(const struct route_table *table,
	const struct packet_address *address, struct packet_prefix *prefix)
{
	const struct route_prefix *found =
		find_covering(table, address, packet_address_bits(address));
	if (found == NULL)
		return (struct route_target){ROUTE_NONE, 0};
	*prefix = found->prefix;
	return route_choice_read(&table->groups.choices[found->group]);
}

static struct route_target lookup_any(const struct route_table *table,
	const struct packet_address *address, struct packet_prefix *prefix)
{
	struct route_target target;
	if (prefix != NULL)
		return lookup_prefix(table, address, prefix);
	if (address->family == 4) {
		uint32_t word = packet_address_v4_host(address);
		route_lookup4(table, &word, &target, 1);
	} else {
		route_lookup6(table, &address->bytes, &target, 1);
	}
	return target;
}

struct route_target route_lookup(const struct route_table *table,
	const struct packet_address *address, struct packet_prefix *prefix)
{
	if (address->family != 4 && address->family != 6)
		return (struct route_target){ROUTE_NONE, 0};
	struct route_target target = lookup_any(table, address, prefix);
	return target.kind & ROUTE_SHARED ? route_shared_first(table, target) : target;
}

bool route_find(const struct route_table *table, const struct packet_prefix *prefix,
	const struct route_target *target, enum route_origin origin, uint32_t *priority)
{
	const struct route_prefix *found = find(table, prefix);
	unsigned int at = found == NULL ? 0 : path_index(group_of(table, found), target, origin);
	if (found == NULL || at == group_of(table, found)->count)
		return false;
	*priority = group_of(table, found)->paths[at].priority;
	return true;
}

bool route_covers(
	const struct route_table *table, const struct packet_prefix *prefix, enum route_kind kind)
{
	int length = prefix->length;
	const struct route_prefix *found;
	while ((found = find_covering(table, &prefix->address, length)) != NULL) {
		const struct route_group *group = group_of(table, found);
		for (unsigned int i = 0; i < group->count; i++)
			if (group->paths[i].target.kind == kind)
				return true;
		length = found->prefix.length - 1;
	}
	return false;
}

// Control is one thread.
static const struct route_prefix *successor;

// As if the key stood just after its equal: tfind goes down to where that would be, past what
// follows.
static int compare_to_follow(const void *key, const void *node)
{
	if (compare_prefixes(key, node) >= 0)
		return 1;
	successor = node;
	return -1;
}

void route_walk_after(const struct route_table *table, const struct packet_prefix *after,
	route_each each, void *argument)
{
	struct packet_prefix last = *after;
	for (;;) {
		successor = NULL;
		tfind(&last, &table->prefixes, compare_to_follow);
		if (successor == NULL || !walk_paths(table, successor, each, argument))
			return;
		last = successor->prefix;
	}
}
