// SPDX-License-Identifier: BSD-3-Clause
// Copyright (c) 2026 the espgw authors

// Routes into the table, and the way to tunnel endpoints.
//
// ESP must find its way to a tunnel's far end by an outside port even where a tunnel's prefix
// covers that address (0.0.0.0/0 by a tunnel, say), so routes by outside ports are kept a second
// time, as the underlay. And such a route within a tunnel's prefix stays out of the workers' table:
// else the host could send cleartext for the tunnel by it.
//
// There may be hundreds of thousands of routes into tunnels, and few by outside ports: nothing here
// looks at all of the former.

#include <errno.h>
#include <stdlib.h>

#include "internal.h"

struct underlay_route {
	struct packet_prefix prefix;
	struct route_path path;
	bool in_table;
};

static bool is_outside(const struct dataplane *dataplane, const struct route_target *target)
{
	unsigned int port;
	struct packet_address next_hop;
	if (target->kind == ROUTE_CONNECTED)
		return dataplane->ports[target->index].is_outside;
	if (target->kind == ROUTE_ADJACENCY &&
		dataplane_adjacency(dataplane, target->index, &port, &next_hop))
		return dataplane->ports[port].is_outside;
	return false;
}

static bool covers(const struct packet_prefix *outer, const struct packet_prefix *inner)
{
	return outer->length <= inner->length && packet_prefix_contains(outer, &inner->address);
}

static bool is_hidden(const struct dataplane *dataplane, const struct underlay_route *route)
{
	// The prefix of a port itself is never hidden: its neighbours are the way to the peers.
	if (route->path.origin == ROUTE_ORIGIN_GATEWAY)
		return false;
	return route_covers(dataplane->routes, &route->prefix, ROUTE_TUNNEL);
}

static void reconcile_one(struct dataplane *dataplane, struct underlay_route *route)
{
	bool wanted = !is_hidden(dataplane, route);
	if (wanted && !route->in_table) {
		route->in_table = route_add(dataplane->routes, &route->prefix, &route->path) == 0;
		dataplane->underlay_incomplete |= !route->in_table;
	} else if (!wanted && route->in_table) {
		route_delete(
			dataplane->routes, &route->prefix, &route->path.target, route->path.origin);
		route->in_table = false;
	}
}

// Brings the workers' table in line with which ways are hidden, after a tunnel's prefix has come or
// gone.
static void reconcile(struct dataplane *dataplane, const struct packet_prefix *tunnels)
{
	for (unsigned int i = 0; i < dataplane->underlay_count; i++)
		if (covers(tunnels, &dataplane->underlay[i].prefix))
			reconcile_one(dataplane, &dataplane->underlay[i]);
}

static struct underlay_route *find(struct dataplane *dataplane, const struct packet_prefix *prefix,
	const struct route_target *target, enum route_origin origin)
{
	for (unsigned int i = 0; i < dataplane->underlay_count; i++) {
		struct underlay_route *route = &dataplane->underlay[i];
		if (route->path.origin == origin && route->path.target.kind == target->kind &&
			route->path.target.index == target->index &&
			packet_prefix_equal(&route->prefix, prefix))
			return route;
	}
	return NULL;
}

static struct underlay_route *append(struct dataplane *dataplane)
{
	if (dataplane->underlay_count == dataplane->underlay_room) {
		unsigned int room =
			dataplane->underlay_room != 0 ? 2 * dataplane->underlay_room : 16;
		void *grown = realloc(dataplane->underlay, room * sizeof(*dataplane->underlay));
		if (grown == NULL)
			return NULL;
		dataplane->underlay = grown;
		dataplane->underlay_room = room;
	}
	return &dataplane->underlay[dataplane->underlay_count++];
}

// A next hop stays as long as routes lead to it.
static void count_route(struct dataplane *dataplane, const struct route_target *target, int change)
{
	if (target->kind == ROUTE_ADJACENCY)
		dataplane->adjacencies[target->index].route_count += (uint32_t)change;
}

static int add_tunnel(struct dataplane *dataplane, const struct packet_prefix *prefix,
	const struct route_path *path)
{
	int result = route_add(dataplane->routes, prefix, path);
	if (result != 0)
		return result;
	reconcile(dataplane, prefix);
	neighbours_reroute(dataplane, prefix);
	return 0;
}

static int add_way(struct dataplane *dataplane, const struct packet_prefix *prefix,
	const struct route_path *path)
{
	struct underlay_route *route = find(dataplane, prefix, &path->target, path->origin);
	bool is_new = route == NULL;
	if (is_new)
		route = append(dataplane);
	if (route == NULL)
		return -ENOMEM;
	bool in_table = !is_new && route->in_table;
	*route = (struct underlay_route){*prefix, *path, in_table};
	if (!is_hidden(dataplane, route)) {
		int result = route_add(dataplane->routes, prefix, path);
		if (result != 0) {
			if (is_new)
				dataplane->underlay_count--;
			return result;
		}
		route->in_table = true;
	}
	if (is_new)
		count_route(dataplane, &path->target, 1);
	dataplane->underlay_changed = true;
	return 0;
}

static int add_inside(struct dataplane *dataplane, const struct packet_prefix *prefix,
	const struct route_path *path)
{
	uint32_t priority;
	bool had = route_find(dataplane->routes, prefix, &path->target, path->origin, &priority);
	int result = route_add(dataplane->routes, prefix, path);
	if (result == 0 && !had)
		count_route(dataplane, &path->target, 1);
	return result;
}

int path_add(struct dataplane *dataplane, const struct packet_prefix *prefix,
	const struct route_path *path)
{
	if (path->target.kind == ROUTE_TUNNEL)
		return add_tunnel(dataplane, prefix, path);
	if (is_outside(dataplane, &path->target))
		return add_way(dataplane, prefix, path);
	return add_inside(dataplane, prefix, path);
}

int path_delete(struct dataplane *dataplane, const struct packet_prefix *prefix,
	const struct route_target *target, enum route_origin origin)
{
	if (target->kind == ROUTE_TUNNEL) {
		int result = route_delete(dataplane->routes, prefix, target, origin);
		reconcile(dataplane, prefix);
		return result;
	}
	struct underlay_route *route = find(dataplane, prefix, target, origin);
	if (route == NULL) {
		int result = route_delete(dataplane->routes, prefix, target, origin);
		if (result == 0)
			count_route(dataplane, target, -1);
		return result;
	}
	count_route(dataplane, target, -1);
	if (route->in_table)
		route_delete(dataplane->routes, prefix, target, origin);
	*route = dataplane->underlay[--dataplane->underlay_count];
	dataplane->underlay_changed = true;
	return 0;
}

// Paths into tunnels that go, found on a walk that must not change anything.
struct path_list {
	const bool *tunnels;
	struct path_listed {
		struct packet_prefix prefix;
		struct route_target target;
		enum route_origin origin;
	} * paths;
	unsigned int count, room;
};

static bool note_path(const struct packet_prefix *prefix, const struct route_path *path, bool best,
	void *argument)
{
	struct path_list *list = argument;
	const struct route_target *target = &path->target;
	(void)best;
	if ((target->kind != ROUTE_TUNNEL && target->kind != ROUTE_LOCAL_TUNNEL) ||
		!list->tunnels[target->index])
		return true;
	if (list->count == list->room) {
		unsigned int room = list->room != 0 ? 2 * list->room : 64;
		void *grown = reallocarray(list->paths, room, sizeof(list->paths[0]));
		if (grown == NULL)
			return false;
		list->paths = grown;
		list->room = room;
	}
	list->paths[list->count++] = (struct path_listed){*prefix, *target, path->origin};
	return true;
}

void path_list_free(struct path_list *list)
{
	if (list != NULL)
		free(list->paths);
	free(list);
}

struct path_list *path_list_tunnels(const struct dataplane *dataplane, const bool *tunnels)
{
	struct path_list *list = calloc(1, sizeof(*list));
	if (list == NULL)
		return NULL;
	list->tunnels = tunnels;
	bool complete = route_walk(dataplane->routes, note_path, list);
	list->tunnels = NULL; // the caller's
	if (complete)
		return list;
	path_list_free(list);
	return NULL;
}

void path_list_delete(struct dataplane *dataplane, const struct path_list *list)
{
	for (unsigned int i = 0; i < list->count; i++)
		path_delete(dataplane, &list->paths[i].prefix, &list->paths[i].target,
			list->paths[i].origin);
}

void path_retry(struct dataplane *dataplane)
{
	if (!dataplane->underlay_incomplete)
		return;
	dataplane->underlay_incomplete = false;
	for (unsigned int i = 0; i < dataplane->underlay_count; i++)
		reconcile_one(dataplane, &dataplane->underlay[i]);
}

bool path_priority(struct dataplane *dataplane, const struct packet_prefix *prefix,
	const struct route_target *target, enum route_origin origin, uint32_t *priority)
{
	const struct underlay_route *route =
		target->kind == ROUTE_TUNNEL ? NULL : find(dataplane, prefix, target, origin);
	if (route == NULL)
		return route_find(dataplane->routes, prefix, target, origin, priority);
	*priority = route->path.priority;
	return true;
}

// Longest prefix, then lowest priority.
static const struct underlay_route *best_way(
	const struct dataplane *dataplane, const struct packet_address *destination)
{
	const struct underlay_route *best = NULL;
	for (unsigned int i = 0; i < dataplane->underlay_count; i++) {
		const struct underlay_route *route = &dataplane->underlay[i];
		if (!packet_prefix_contains(&route->prefix, destination))
			continue;
		if (best == NULL || route->prefix.length > best->prefix.length ||
			(route->prefix.length == best->prefix.length &&
				route->path.priority < best->path.priority))
			best = route;
	}
	return best;
}

uint32_t path_resolve(void *argument, const struct packet_address *destination)
{
	struct dataplane *dataplane = argument;
	const struct underlay_route *way = best_way(dataplane, destination);
	if (way == NULL)
		return TUNNEL_NO_PATH;
	if (way->path.target.kind == ROUTE_ADJACENCY)
		return way->path.target.index;
	return neighbour_get(dataplane, way->path.target.index, destination, true);
}
