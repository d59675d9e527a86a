// SPDX-License-Identifier: BSD-3-Clause
// Copyright (c) 2026 the espgw authors

// One configuration in the place of another. First comes all that can fail: what is added, and what
// is changed. A failure takes back what was done so far. Then what is not there any more goes.

#include <stdlib.h>
#include <time.h>

#include "internal.h"

#define PLACE_TRIES 200 // with a millisecond between

static bool try_to_place(struct dataplane *dataplane, struct config *next, bool *retiring)
{
	unsigned int room = tunnel_room(dataplane->tunnels);
	bool *taken = calloc(room + 1, sizeof(*taken));
	*retiring = false;
	for (unsigned int i = 0; taken != NULL && i < room; i++) {
		*retiring |= dataplane->retiring[i];
		taken[i] =
			dataplane->retiring[i] || tunnel_get(dataplane->tunnels, i)->config != NULL;
	}
	bool placed = taken != NULL && config_place(next, dataplane->config, taken, room);
	free(taken);
	return placed;
}

int dataplane_place(struct dataplane *dataplane, struct config *next, struct dataplane_error *error)
{
	const struct timespec pause = {.tv_nsec = 1000000};
	bool retiring;
	for (unsigned int i = 0; i < PLACE_TRIES; i++) {
		if (try_to_place(dataplane, next, &retiring))
			return 0;
		if (!retiring)
			break;
		// Tunnels have just gone, and their indexes are not free yet.
		host_path_drain(dataplane);
		reclaim_poll(dataplane->reclaim);
		nanosleep(&pause, NULL);
	}
	return dataplane_fail(error,
		"the gateway started with room for %u tunnels (gateway.max_tunnels), and the new "
		"ones do not fit beside those that are to go; remove some first, or restart",
		tunnel_room(dataplane->tunnels));
}

// ---- what can fail ----

static int come(struct dataplane *dataplane, const struct config_diff *diff,
	const struct config_change *change, struct dataplane_error *error)
{
	const struct config *next = diff->after;
	if (change->kind == CONFIG_REMOVED)
		return 0;
	switch (change->part) {
	case CONFIG_PART_TUNNEL:
		if (change->kind == CONFIG_ADDED)
			return dataplane_tunnel_add(
				dataplane, change->after, &next->tunnels[change->after], error);
		return dataplane_tunnel_change(
			dataplane, change->after, &next->tunnels[change->after], error);
	case CONFIG_PART_ROUTE:
		return dataplane_route_add(
			dataplane, &next->routes[change->after], ROUTE_ORIGIN_CONFIG, error);
	case CONFIG_PART_NEIGHBOUR:
		return dataplane_neighbour_set(dataplane, &next->neighbours[change->after], error);
	default:
		return 0;
	}
}

static void take_back(struct dataplane *dataplane, const struct config_diff *diff,
	const struct config_change *change)
{
	const struct config *before = diff->before, *next = diff->after;
	struct dataplane_error ignored;
	bool added = change->kind == CONFIG_ADDED;
	if (change->kind == CONFIG_REMOVED)
		return;
	switch (change->part) {
	case CONFIG_PART_TUNNEL:
		if (added)
			dataplane_tunnel_remove(dataplane, change->after);
		else
			tunnel_restore(dataplane, change->before, &before->tunnels[change->before]);
		break;
	case CONFIG_PART_ROUTE:
		if (added)
			dataplane_route_delete(dataplane, &next->routes[change->after],
				ROUTE_ORIGIN_CONFIG, &ignored);
		else
			dataplane_route_add(dataplane, &before->routes[change->before],
				ROUTE_ORIGIN_CONFIG, &ignored);
		break;
	case CONFIG_PART_NEIGHBOUR:
		if (added)
			dataplane_neighbour_remove(dataplane, &next->neighbours[change->after]);
		else
			dataplane_neighbour_set(
				dataplane, &before->neighbours[change->before], &ignored);
		break;
	default:
		break;
	}
}

// Routes of agents and of the kernel go with their tunnels: all that lead into one that is to go.
// NULL without memory.
static struct path_list *list_leaving(
	const struct dataplane *dataplane, const struct config_diff *diff)
{
	bool *leaving = calloc(tunnel_room(dataplane->tunnels) + 1, sizeof(*leaving));
	if (leaving == NULL)
		return NULL;
	for (unsigned int i = 0; i < diff->count; i++)
		if (diff->changes[i].part == CONFIG_PART_TUNNEL &&
			diff->changes[i].kind == CONFIG_REMOVED)
			leaving[diff->changes[i].before] = true;
	struct path_list *paths = path_list_tunnels(dataplane, leaving);
	free(leaving);
	return paths;
}

static int come_all(
	struct dataplane *dataplane, const struct config_diff *diff, struct dataplane_error *error)
{
	unsigned int done = 0;
	while (done < diff->count && come(dataplane, diff, &diff->changes[done], error) == 0)
		done++;
	if (done == diff->count)
		return 0;
	while (done-- > 0)
		take_back(dataplane, diff, &diff->changes[done]);
	return -1;
}

// ---- what can't ----

static void free_far_ends(void *far_ends)
{
	free(far_ends);
}

static void free_config(void *config)
{
	config_free(config);
}

// Everything that points into the old configuration points into the new one from now on; but the
// tunnels that go, which do so later.
static void swap(
	struct dataplane *dataplane, const struct config *next, const struct far_ends *far_ends)
{
	for (unsigned int i = 0; i < next->tunnel_count; i++)
		if (config_is_tunnel(&next->tunnels[i]))
			tunnel_configure(dataplane->tunnels, i, &next->tunnels[i]);
	__atomic_store_n(&dataplane->config, next, __ATOMIC_RELEASE);
	const struct far_ends *before = atomic_exchange(&dataplane->far_ends, far_ends);
	reclaim_defer(dataplane->reclaim, free_far_ends, (void *)(uintptr_t)before);
}

static void go(struct dataplane *dataplane, const struct config_diff *diff, enum config_part part,
	dataplane_tunnel_leaves leaves, void *argument)
{
	struct dataplane_error ignored;
	for (unsigned int i = 0; i < diff->count; i++) {
		const struct config_change *change = &diff->changes[i];
		unsigned int index = change->before;
		if (change->kind != CONFIG_REMOVED || change->part != part)
			continue;
		if (part == CONFIG_PART_ROUTE) {
			dataplane_route_delete(dataplane, &diff->before->routes[index],
				ROUTE_ORIGIN_CONFIG, &ignored);
		} else if (part == CONFIG_PART_NEIGHBOUR) {
			dataplane_neighbour_remove(dataplane, &diff->before->neighbours[index]);
		} else {
			leaves(argument, tunnel_get(dataplane->tunnels, index));
			dataplane_tunnel_remove(dataplane, index);
		}
	}
}

int dataplane_apply(struct dataplane *dataplane, struct config *next,
	const struct config_diff *diff, dataplane_tunnel_leaves leaves, void *argument,
	struct dataplane_error *error)
{
	bool some_leave = diff->counts[CONFIG_PART_TUNNEL][CONFIG_REMOVED] != 0;
	struct path_list *leaving = some_leave ? list_leaving(dataplane, diff) : NULL;
	struct far_ends *far_ends = far_ends_create(next);
	int result;
	if (far_ends == NULL || (some_leave && leaving == NULL))
		result = dataplane_fail(error, "no memory for another configuration");
	else
		result = come_all(dataplane, diff, error);
	if (result != 0) {
		free(far_ends);
		path_list_free(leaving);
		return -1;
	}
	swap(dataplane, next, far_ends);
	go(dataplane, diff, CONFIG_PART_ROUTE, leaves, argument);
	go(dataplane, diff, CONFIG_PART_NEIGHBOUR, leaves, argument);
	if (some_leave)
		path_list_delete(dataplane, leaving);
	go(dataplane, diff, CONFIG_PART_TUNNEL, leaves, argument);
	path_list_free(leaving);
	// Far ends may be reached by another way now.
	dataplane->underlay_changed = true;
	// A worker may be about to read the old one.
	if (dataplane->owned != NULL)
		reclaim_defer(dataplane->reclaim, free_config, dataplane->owned);
	dataplane->owned = next;
	return 0;
}
