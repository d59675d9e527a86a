// SPDX-License-Identifier: BSD-3-Clause
// Copyright (c) 2026 the espgw authors

#include <errno.h>
#include <search.h>
#include <stdlib.h>
#include <string.h>

#include "host/route_table.h"

static int route_group_compare(const void *a, const void *b)
{
	const struct route_group *left = a;
	const struct route_group *right = b;
	int order = memcmp(&left->prefix, &right->prefix, sizeof(left->prefix));
	if (order)
		return order;
	return left->metric < right->metric ? -1 : left->metric > right->metric;
}

static struct route_group *route_table_search(
	const struct route_table *table, const struct packet_prefix *prefix, uint32_t metric)
{
	struct route_group key = {.prefix = *prefix, .metric = metric};
	struct route_group **node = tfind(&key, &table->root, route_group_compare);
	return node ? *node : NULL;
}

const struct route_group *route_table_find(
	const struct route_table *table, const struct packet_prefix *prefix, uint32_t metric)
{
	return route_table_search(table, prefix, metric);
}

static struct route_group *route_table_add_group(
	struct route_table *table, const struct packet_prefix *prefix, uint32_t metric)
{
	struct route_group *group = calloc(1, sizeof(*group));
	if (!group)
		return NULL;
	group->prefix = *prefix;
	group->metric = metric;
	TAILQ_INIT(&group->entries);
	if (tsearch(group, &table->root, route_group_compare))
		return group;
	free(group);
	return NULL;
}

static void route_table_remove_entry(
	struct route_table *table, struct route_group *group, struct route_entry *entry)
{
	TAILQ_REMOVE(&group->entries, entry, link);
	free(entry);
	if (!TAILQ_EMPTY(&group->entries))
		return;
	tdelete(group, &table->root, route_group_compare);
	free(group);
}

static struct route_entry *route_entry_create(const struct route_message *message)
{
	struct route_entry *entry =
		malloc(sizeof(*entry) + message->hop_count * sizeof(entry->hops[0]));
	if (!entry)
		return NULL;
	entry->protocol = message->protocol;
	entry->unicast = message->unicast;
	entry->next_hop_id = message->next_hop_id;
	entry->hop_count = message->hop_count;
	memcpy(entry->hops, message->hops, message->hop_count * sizeof(entry->hops[0]));
	return entry;
}

static bool route_hop_same(const struct route_hop *a, const struct route_hop *b)
{
	return a->hop.interface == b->hop.interface &&
	       packet_address_equal(&a->hop.gateway, &b->hop.gateway);
}

// Whether the message speaks of this route. A next hop object may have changed since.
static bool route_entry_is(const struct route_entry *entry, const struct route_message *message)
{
	if (entry->protocol != message->protocol || entry->unicast != message->unicast ||
		entry->next_hop_id != message->next_hop_id)
		return false;
	if (entry->next_hop_id)
		return true;
	if (entry->hop_count != message->hop_count)
		return false;
	for (unsigned int i = 0; i < entry->hop_count; i++)
		if (!route_hop_same(&entry->hops[i], &message->hops[i]))
			return false;
	return true;
}

static struct route_entry *route_group_find(
	const struct route_group *group, const struct route_message *message)
{
	struct route_entry *entry;
	TAILQ_FOREACH (entry, &group->entries, link)
		if (route_entry_is(entry, message))
			return entry;
	return NULL;
}

static bool route_hops_have_gateways(const struct route_hop *hops, unsigned int count)
{
	for (unsigned int i = 0; i < count; i++)
		if (hops[i].hop.gateway.family == 0)
			return false;
	return count > 0;
}

// The IPv6 route that the kernel takes the message's next hops into: all those of one prefix and
// metric that have gateways are next hops of one route.
static struct route_entry *route_group_find_siblings(
	const struct route_group *group, const struct route_message *message)
{
	if (message->prefix.address.family != 6 || message->next_hop_id ||
		!route_hops_have_gateways(message->hops, message->hop_count))
		return NULL;
	struct route_entry *entry;
	TAILQ_FOREACH (entry, &group->entries, link)
		if (!entry->next_hop_id && route_hops_have_gateways(entry->hops, entry->hop_count))
			return entry;
	return NULL;
}

static int route_hop_index(
	const struct route_hop *hops, unsigned int count, const struct route_hop *wanted)
{
	for (unsigned int i = 0; i < count; i++)
		if (route_hop_same(&hops[i], wanted))
			return (int)i;
	return -1;
}

// The siblings' next hops and the message's, which may repeat some of them with news.
static int route_message_join(struct route_message *joined, const struct route_entry *siblings)
{
	for (unsigned int i = 0; i < siblings->hop_count; i++) {
		if (route_hop_index(joined->hops, joined->hop_count, &siblings->hops[i]) >= 0)
			continue;
		if (joined->hop_count == ROUTE_MESSAGE_NEXT_HOPS)
			return -ESTALE;
		joined->hops[joined->hop_count++] = siblings->hops[i];
	}
	return 0;
}

static int route_group_put(struct route_group *group, struct route_entry *old,
	const struct route_message *message, enum route_change change)
{
	struct route_entry *entry = route_entry_create(message);
	if (!entry)
		return -ENOMEM;
	if (old) {
		TAILQ_INSERT_AFTER(&group->entries, old, entry, link);
		TAILQ_REMOVE(&group->entries, old, link);
		free(old);
	} else if (change == ROUTE_CHANGE_INSERT) {
		TAILQ_INSERT_HEAD(&group->entries, entry, link);
	} else {
		TAILQ_INSERT_TAIL(&group->entries, entry, link);
	}
	return 0;
}

static int route_group_replace(struct route_group *group, const struct route_message *message)
{
	struct route_entry *first = TAILQ_FIRST(&group->entries);
	// A change of a next hop object is told for each route that uses it, wherever it stands.
	struct route_entry *same = message->next_hop_id ? route_group_find(group, message) : NULL;
	if (same)
		return route_group_put(group, same, message, ROUTE_CHANGE_REPLACE);
	// IPv4 replaces the first. Which one IPv6 replaces depends on what it can make siblings of.
	if (message->prefix.address.family == 6 && first && TAILQ_NEXT(first, link))
		return -ESTALE;
	return route_group_put(group, first, message, ROUTE_CHANGE_REPLACE);
}

static int route_group_add(
	struct route_group *group, const struct route_message *message, enum route_change change)
{
	if (change == ROUTE_CHANGE_REPLACE)
		return route_group_replace(group, message);
	struct route_entry *siblings = route_group_find_siblings(group, message);
	if (!siblings)
		return route_group_put(group, route_group_find(group, message), message, change);
	struct route_message joined = *message;
	int result = route_message_join(&joined, siblings);
	return result ? result : route_group_put(group, siblings, &joined, change);
}

static int route_table_add(
	struct route_table *table, const struct route_message *message, enum route_change change)
{
	struct route_group *group = route_table_search(table, &message->prefix, message->metric);
	if (group)
		return route_group_add(group, message, change);
	group = route_table_add_group(table, &message->prefix, message->metric);
	if (!group)
		return -ENOMEM;
	int result = route_group_add(group, message, change);
	if (result) {
		tdelete(group, &table->root, route_group_compare);
		free(group);
	}
	return result;
}

// Takes the message's next hops out of the siblings, and the route out when none is left.
static int route_table_remove_siblings(struct route_table *table, struct route_group *group,
	struct route_entry *siblings, const struct route_message *message)
{
	for (unsigned int i = 0; i < message->hop_count; i++) {
		int index = route_hop_index(siblings->hops, siblings->hop_count, &message->hops[i]);
		if (index < 0)
			continue;
		siblings->hop_count--;
		memmove(&siblings->hops[index], &siblings->hops[index + 1],
			(siblings->hop_count - (unsigned int)index) * sizeof(siblings->hops[0]));
	}
	if (siblings->hop_count == 0)
		route_table_remove_entry(table, group, siblings);
	return 0;
}

static int route_table_remove(struct route_table *table, const struct route_message *message)
{
	struct route_group *group = route_table_search(table, &message->prefix, message->metric);
	if (!group)
		return 0;
	struct route_entry *siblings = route_group_find_siblings(group, message);
	if (siblings)
		return route_table_remove_siblings(table, group, siblings, message);
	struct route_entry *entry = route_group_find(group, message);
	// Nothing of that kind known: the table has missed something.
	if (!entry)
		return -ESTALE;
	route_table_remove_entry(table, group, entry);
	return 0;
}

int route_table_change(
	struct route_table *table, const struct route_message *message, enum route_change change)
{
	if (change == ROUTE_CHANGE_DELETE)
		return route_table_remove(table, message);
	return route_table_add(table, message, change);
}

struct route_walk {
	void (*visitor)(const struct route_group *group, void *argument);
	void *argument;
};

static void route_table_visit(const void *node, VISIT visit, void *closure)
{
	const struct route_walk *walk = closure;
	if (visit == postorder || visit == leaf)
		walk->visitor(*(struct route_group *const *)node, walk->argument);
}

void route_table_walk(const struct route_table *table,
	void (*visitor)(const struct route_group *group, void *argument), void *argument)
{
	struct route_walk walk = {.visitor = visitor, .argument = argument};
	twalk_r(table->root, route_table_visit, &walk);
}

static void route_group_destroy(void *node)
{
	struct route_group *group = node;
	struct route_entry *entry;
	while ((entry = TAILQ_FIRST(&group->entries))) {
		TAILQ_REMOVE(&group->entries, entry, link);
		free(entry);
	}
	free(group);
}

void route_table_clear(struct route_table *table)
{
	tdestroy(table->root, route_group_destroy);
	table->root = NULL;
}
