// SPDX-License-Identifier: BSD-3-Clause
// Copyright (c) 2026 the espgw authors

// The kernel's neighbours and routes on TAPs and TUNs, mirrored into adjacencies and the route
// table.

#include <search.h>
#include <stdlib.h>

#include "internal.h"

// One route of the kernel, as it was mirrored: what a change or a deletion must take back.
struct mirrored {
	struct packet_prefix prefix;
	uint32_t metric;
	bool reported; // in the dump under way
	unsigned int count;
	struct route_target targets[HOST_NEXT_HOPS];
	uint32_t weights[HOST_NEXT_HOPS];
};

static void *mirrored_routes; // tsearch: control thread, one data plane a process

static int compare(const void *a, const void *b)
{
	const struct mirrored *x = a, *y = b;
	int result = memcmp(&x->prefix, &y->prefix, sizeof(x->prefix));
	if (result != 0)
		return result;
	return (x->metric > y->metric) - (x->metric < y->metric);
}

static const struct mirrored *at_least; // set on the way that tfind takes down the tree

// Finds the route of the key's prefix with the lowest metric that is not under the key's.
static int compare_at_least(const void *key, const void *node)
{
	const struct mirrored *x = key, *y = node;
	int result = memcmp(&x->prefix, &y->prefix, sizeof(x->prefix));
	if (result != 0)
		return result;
	if (y->metric < x->metric)
		return 1;
	at_least = y;
	return -1;
}

// Index of the target among the route's, or count.
static unsigned int target_index(const struct mirrored *mirrored, const struct route_target *target)
{
	unsigned int i = 0;
	while (i < mirrored->count && (mirrored->targets[i].kind != target->kind ||
					      mirrored->targets[i].index != target->index))
		i++;
	return i;
}

// The kernel may have a prefix by one next hop under several metrics, but the table knows one path
// for them: it gets the lowest metric that is left, or goes with the last.
static int settle(struct dataplane *dataplane, const struct packet_prefix *prefix,
	const struct route_target *target)
{
	struct mirrored key = {.prefix = *prefix};
	do {
		at_least = NULL;
		tfind(&key, &mirrored_routes, compare_at_least);
		if (at_least == NULL)
			break;
		unsigned int i = target_index(at_least, target);
		if (i < at_least->count) {
			struct route_path path = {.target = *target,
				.origin = ROUTE_ORIGIN_KERNEL,
				.priority = at_least->metric,
				.weight = at_least->weights[i]};
			return path_add(dataplane, prefix, &path);
		}
		key.metric = at_least->metric + 1;
	} while (key.metric != 0);
	return path_delete(dataplane, prefix, target, ROUTE_ORIGIN_KERNEL);
}

static void take_back(struct dataplane *dataplane, struct mirrored *mirrored)
{
	unsigned int count = mirrored->count;
	mirrored->count = 0;
	for (unsigned int i = 0; i < count; i++)
		settle(dataplane, &mirrored->prefix, &mirrored->targets[i]);
}

static bool find_target(
	struct dataplane *dataplane, const struct host_next_hop *hop, struct route_target *target)
{
	for (unsigned int i = 0; i < dataplane->port_count; i++) {
		if (dataplane->ports[i].tap.index != hop->interface)
			continue;
		if (hop->gateway.family == 0) {
			*target = (struct route_target){ROUTE_CONNECTED, i};
			return true;
		}
		uint32_t index = neighbour_get(dataplane, i, &hop->gateway, true);
		*target = (struct route_target){ROUTE_ADJACENCY, index};
		return index != TUNNEL_NO_PATH;
	}
	*target =
		(struct route_target){ROUTE_TUNNEL, host_path_find_tun(dataplane, hop->interface)};
	return target->index != NO_TUNNEL;
}

static bool is_local_scope(const struct packet_prefix *prefix)
{
	const uint8_t *bytes = prefix->address.bytes;
	if (packet_address_is_multicast(&prefix->address))
		return true;
	return prefix->address.family == 6 && bytes[0] == 0xfe && (bytes[1] & 0xc0) == 0x80;
}

static struct mirrored *find_mirrored(const struct host_route *route, bool create)
{
	struct mirrored key = {.metric = route->metric};
	// The prefix is compared as bytes, padding included.
	memset(&key.prefix, 0, sizeof(key.prefix));
	key.prefix.length = route->prefix.length;
	key.prefix.address.family = route->prefix.address.family;
	memcpy(key.prefix.address.bytes, route->prefix.address.bytes, 16);
	struct mirrored **found = tfind(&key, &mirrored_routes, compare);
	if (found != NULL)
		return *found;
	if (!create)
		return NULL;
	struct mirrored *mirrored = malloc(sizeof(*mirrored));
	if (mirrored == NULL)
		return NULL;
	*mirrored = key;
	if (tsearch(mirrored, &mirrored_routes, compare) == NULL) {
		free(mirrored);
		return NULL;
	}
	return mirrored;
}

static void on_route_added(void *argument, const struct host_route *route)
{
	struct dataplane *dataplane = argument;
	if (is_local_scope(&route->prefix))
		return;
	struct mirrored *mirrored = find_mirrored(route, true);
	if (mirrored == NULL)
		return;
	struct mirrored before = *mirrored;
	mirrored->reported = true;
	mirrored->count = 0;
	for (unsigned int i = 0; i < route->next_hop_count; i++) {
		struct route_target target;
		if (!find_target(dataplane, &route->next_hops[i], &target))
			continue;
		mirrored->targets[mirrored->count] = target;
		mirrored->weights[mirrored->count++] = route->next_hops[i].weight;
		if (settle(dataplane, &route->prefix, &target) != 0)
			mirrored->count--;
	}
	// New ways stand before old ones go, so that no packet meets a gap.
	for (unsigned int i = 0; i < before.count; i++) {
		bool kept = false;
		for (unsigned int j = 0; j < mirrored->count; j++)
			kept |= memcmp(&before.targets[i], &mirrored->targets[j],
					sizeof(before.targets[i])) == 0;
		if (!kept)
			settle(dataplane, &before.prefix, &before.targets[i]);
	}
}

static void forget(struct dataplane *dataplane, struct mirrored *mirrored)
{
	take_back(dataplane, mirrored);
	tdelete(mirrored, &mirrored_routes, compare);
	free(mirrored);
}

static void on_route_deleted(void *argument, const struct host_route *route)
{
	struct mirrored *mirrored = find_mirrored(route, false);
	if (mirrored != NULL)
		forget(argument, mirrored);
}

static void on_neighbour(void *argument, const struct host_neighbour *neighbour)
{
	struct dataplane *dataplane = argument;
	for (unsigned int i = 0; i < dataplane->port_count; i++)
		if (dataplane->ports[i].tap.index == neighbour->interface)
			neighbour_report(dataplane, i, &neighbour->address,
				neighbour->resolved ? &neighbour->mac : NULL);
}

static void mark_unreported(const void *node, VISIT visit, int depth)
{
	(void)depth;
	if (visit == preorder || visit == leaf)
		(*(struct mirrored *const *)node)->reported = false;
}

static struct mirrored *unreported; // found by the walk below

static void find_unreported(const void *node, VISIT visit, int depth)
{
	(void)depth;
	struct mirrored *mirrored = *(struct mirrored *const *)node;
	if ((visit == preorder || visit == leaf) && !mirrored->reported)
		unreported = mirrored;
}

static void on_dump_began(void *argument)
{
	neighbours_begin_dump(argument);
	twalk(mirrored_routes, mark_unreported);
}

static void on_dump_ended(void *argument)
{
	struct dataplane *dataplane = argument;
	neighbours_end_dump(dataplane);
	// A dump follows a change of links, and a link that goes down takes its routes with it.
	dataplane->reinstall = dataplane->running;
	for (;;) {
		unreported = NULL;
		twalk(mirrored_routes, find_unreported);
		if (unreported == NULL)
			return;
		forget(argument, unreported);
	}
}

int mirror_create(struct dataplane *dataplane, struct dataplane_error *error)
{
	struct host_callbacks callbacks = {
		.neighbour = on_neighbour,
		.route_added = on_route_added,
		.route_deleted = on_route_deleted,
		.dump_began = on_dump_began,
		.dump_ended = on_dump_ended,
		.argument = dataplane,
	};
	struct host_error cause;
	dataplane->host = host_create(&callbacks, &cause);
	if (dataplane->host == NULL)
		return dataplane_fail(error, "%s", cause.text);
	return 0;
}

void mirror_destroy(struct dataplane *dataplane)
{
	host_destroy(dataplane->host);
	tdestroy(mirrored_routes, free);
	mirrored_routes = NULL;
}
