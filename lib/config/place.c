// SPDX-License-Identifier: BSD-3-Clause
// Copyright (c) 2026 the espgw authors

// Gives the ports and tunnels of a new configuration the indexes that they have in the running one.

#include <stdlib.h>

#include "config/config.h"

#define NOWHERE UINT_MAX

static int compare_names(const void *a, const void *b)
{
	const struct config_tunnel *const *x = a, *const *y = b;
	return strcmp((*x)->name, (*y)->name);
}

// The tunnels of the running configuration by name, without the holes.
struct by_name {
	const struct config_tunnel **sorted;
	unsigned int count;
};

static bool sort_by_name(struct by_name *by_name, const struct config *config)
{
	by_name->count = 0;
	by_name->sorted = calloc(config->tunnel_count + 1, sizeof(by_name->sorted[0]));
	if (by_name->sorted == NULL)
		return false;
	for (unsigned int i = 0; i < config->tunnel_count; i++)
		if (config_is_tunnel(&config->tunnels[i]))
			by_name->sorted[by_name->count++] = &config->tunnels[i];
	qsort(by_name->sorted, by_name->count, sizeof(by_name->sorted[0]), compare_names);
	return true;
}

// Where each tunnel of `next` is to stand; *end: one more than the highest index.
static bool choose_places(const struct config *next, const struct config *running,
	const bool *taken, unsigned int room, unsigned int *places, unsigned int *end)
{
	struct by_name by_name;
	unsigned int free_place = 0;
	bool complete = sort_by_name(&by_name, running);
	*end = 0;
	for (unsigned int i = 0; i < next->tunnel_count && complete; i++) {
		const struct config_tunnel *tunnel = &next->tunnels[i];
		const struct config_tunnel **same = bsearch(&tunnel, by_name.sorted, by_name.count,
			sizeof(by_name.sorted[0]), compare_names);
		if (same != NULL) {
			places[i] = (unsigned int)(*same - running->tunnels);
		} else {
			while (free_place < room && taken[free_place])
				free_place++;
			complete = free_place < room;
			places[i] = free_place++;
		}
		*end = RTE_MAX(*end, places[i] + 1);
	}
	free(by_name.sorted);
	return complete;
}

static bool place_tunnels(
	struct config *next, const struct config *running, const bool *taken, unsigned int room)
{
	unsigned int end;
	unsigned int *places = calloc(next->tunnel_count + 1, sizeof(*places));
	if (places == NULL || !choose_places(next, running, taken, room, places, &end)) {
		free(places);
		return false;
	}
	struct config_tunnel *placed = calloc(end + 1, sizeof(*placed));
	for (unsigned int i = 0; placed != NULL && i < next->tunnel_count; i++)
		placed[places[i]] = next->tunnels[i];
	for (unsigned int i = 0; placed != NULL && i < next->route_count; i++)
		if (next->routes[i].tunnel >= 0)
			next->routes[i].tunnel = (int)places[next->routes[i].tunnel];
	free(places);
	if (placed == NULL)
		return false;
	free(next->tunnels);
	next->tunnels = placed;
	next->tunnel_count = end;
	return true;
}

static unsigned int find_port(const struct config *config, const char *name)
{
	for (unsigned int i = 0; i < config->port_count; i++)
		if (strcmp(config->ports[i].name, name) == 0)
			return i;
	return NOWHERE;
}

static void place_ports(struct config *next, const struct config *running)
{
	unsigned int places[CONFIG_PORTS];
	struct config_port ports[CONFIG_PORTS];
	struct config_worker workers[CONFIG_WORKERS];
	if (next->port_count != running->port_count)
		return;
	for (unsigned int i = 0; i < next->port_count; i++) {
		places[i] = find_port(running, next->ports[i].name);
		if (places[i] == NOWHERE)
			return;
	}
	memcpy(workers, next->workers, sizeof(workers));
	memcpy(ports, next->ports, next->port_count * sizeof(ports[0]));
	for (unsigned int i = 0; i < next->port_count; i++) {
		next->ports[places[i]] = ports[i];
		for (unsigned int w = 0; w < next->worker_count; w++)
			next->workers[w].queues[places[i]] = workers[w].queues[i];
	}
	for (unsigned int i = 0; i < next->route_count; i++)
		if (next->routes[i].port >= 0)
			next->routes[i].port = (int)places[next->routes[i].port];
	for (unsigned int i = 0; i < next->neighbour_count; i++)
		next->neighbours[i].port = (int)places[next->neighbours[i].port];
}

bool config_place(
	struct config *next, const struct config *running, const bool *taken, unsigned int room)
{
	if (!place_tunnels(next, running, taken, room))
		return false;
	place_ports(next, running);
	return true;
}
