// SPDX-License-Identifier: BSD-3-Clause
// Copyright (c) 2026 the espgw authors

// Routes into the table, and the way to tunnel endpoints.
//
// ESP must find its way to a tunnel's far end by an outside port even where a tunnel's prefix
// covers that address (0.0.0.0/0 by a tunnel, say), so routes by outside ports are kept a second
// time, as the underlay. And such a route within a tunnel's prefix stays out of the workers' table:
// else the host could send cleartext for the tunnel by it. 0.0.0.0/0 and ::/0 are exempt, or a
// tunnel that takes all traffic would hide its own endpoint from the host's IKE daemon.

#include <errno.h>
#include <stdlib.h>

#include "internal.h"

struct underlay_route {
	struct packet_prefix prefix;
	struct route_path path;
	bool is_tunnel; // not a way, but a tunnel's prefix that hides ways
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
	for (unsigned int i = 0; i < dataplane->underlay_count; i++)
		if (dataplane->underlay[i].is_tunnel &&
			covers(&dataplane->underlay[i].prefix, &route->prefix))
			return true;
	return false;
}

// Brings the workers' table in line with which ways are hidden.
static void reconcile(struct dataplane *dataplane)
{
	for (unsigned int i = 0; i < dataplane->underlay_count; i++) {
		struct underlay_route *route = &dataplane->underlay[i];
		if (route->is_tunnel)
			continue;
		bool wanted = !is_hidden(dataplane, route);
		if (wanted && !route->in_table) {
			route->in_table =
				route_add(dataplane->routes, &route->prefix, &route->path) == 0;
			dataplane->underlay_incomplete |= !route->in_table;
		} else if (!wanted && route->in_table) {
			route_delete(dataplane->routes, &route->prefix, &route->path.target,
				route->path.origin);
			route->in_table = false;
		}
	}
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

int path_add(struct dataplane *dataplane, const struct packet_prefix *prefix,
	const struct route_path *path)
{
	bool is_tunnel = path->target.kind == ROUTE_TUNNEL;
	if (!is_tunnel && !is_outside(dataplane, &path->target))
		return route_add(dataplane->routes, prefix, path);
	struct underlay_route *route = find(dataplane, prefix, &path->target, path->origin);
	bool is_new = route == NULL;
	if (is_new)
		route = append(dataplane);
	if (route == NULL)
		return -ENOMEM;
	bool in_table = !is_new && route->in_table;
	*route = (struct underlay_route){*prefix, *path, is_tunnel, in_table};
	if (is_tunnel || !is_hidden(dataplane, route)) {
		int result = route_add(dataplane->routes, prefix, path);
		if (result != 0) {
			if (is_new)
				dataplane->underlay_count--;
			return result;
		}
		route->in_table = true;
	}
	if (is_tunnel) {
		reconcile(dataplane);
		neighbours_reroute(dataplane, prefix);
	} else {
		dataplane->underlay_changed = true;
	}
	return 0;
}

int path_delete(struct dataplane *dataplane, const struct packet_prefix *prefix,
	const struct route_target *target, enum route_origin origin)
{
	struct underlay_route *route = find(dataplane, prefix, target, origin);
	if (route == NULL)
		return route_delete(dataplane->routes, prefix, target, origin);
	bool is_tunnel = route->is_tunnel;
	if (route->in_table)
		route_delete(dataplane->routes, prefix, target, origin);
	*route = dataplane->underlay[--dataplane->underlay_count];
	if (is_tunnel)
		reconcile(dataplane);
	else
		dataplane->underlay_changed = true;
	return 0;
}

void path_delete_target(struct dataplane *dataplane, const struct route_target *target)
{
	unsigned int kept = 0;
	for (unsigned int i = 0; i < dataplane->underlay_count; i++) {
		const struct route_target *other = &dataplane->underlay[i].path.target;
		if (other->kind != target->kind || other->index != target->index)
			dataplane->underlay[kept++] = dataplane->underlay[i];
	}
	dataplane->underlay_count = kept;
	route_delete_target(dataplane->routes, target);
	reconcile(dataplane);
}

void path_retry(struct dataplane *dataplane)
{
	if (!dataplane->underlay_incomplete)
		return;
	dataplane->underlay_incomplete = false;
	reconcile(dataplane);
}

struct path_search {
	const struct packet_prefix *prefix;
	const struct route_target *target;
	enum route_origin origin;
	uint32_t priority;
	bool found;
};

static bool match_path(const struct packet_prefix *prefix, const struct route_path *path, bool best,
	void *argument)
{
	struct path_search *search = argument;
	(void)best;
	search->found = path->origin == search->origin &&
			path->target.kind == search->target->kind &&
			path->target.index == search->target->index &&
			packet_prefix_equal(prefix, search->prefix);
	search->priority = path->priority;
	return !search->found;
}

bool path_priority(struct dataplane *dataplane, const struct packet_prefix *prefix,
	const struct route_target *target, enum route_origin origin, uint32_t *priority)
{
	const struct underlay_route *route = find(dataplane, prefix, target, origin);
	if (route != NULL) {
		*priority = route->path.priority;
		return true;
	}
	if (target->kind == ROUTE_TUNNEL)
		return false;
	// Next hops inside are few.
	struct path_search search = {.prefix = prefix, .target = target, .origin = origin};
	route_walk(dataplane->routes, match_path, &search);
	*priority = search.priority;
	return search.found;
}

void path_each_adjacency(
	struct dataplane *dataplane, void (*each)(struct dataplane *, uint32_t adjacency))
{
	for (unsigned int i = 0; i < dataplane->underlay_count; i++)
		if (dataplane->underlay[i].path.target.kind == ROUTE_ADJACENCY)
			each(dataplane, dataplane->underlay[i].path.target.index);
}

// Longest prefix, then lowest priority.
static const struct underlay_route *best_way(
	const struct dataplane *dataplane, const struct packet_address *destination)
{
	const struct underlay_route *best = NULL;
	for (unsigned int i = 0; i < dataplane->underlay_count; i++) {
		const struct underlay_route *route = &dataplane->underlay[i];
		if (route->is_tunnel || !packet_prefix_contains(&route->prefix, destination))
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
