// SPDX-License-Identifier: BSD-3-Clause
// Copyright (c) 2026 the espgw authors

// Adjacencies: next hops with their MACs. The kernel resolves and keeps them fresh; this table
// mirrors it for the workers. A neighbour on a connected prefix gets a host route to its adjacency.

#include <stdlib.h>

#include <rte_jhash.h>
#include <rte_malloc.h>

#include "internal.h"

#define IDLE_MAX  6 // agings, a minute together, that a resolved neighbour stays unused
#define ASK_AGAIN UINT64_C(500000000) // nanoseconds between two requests for one neighbour

struct key {
	uint8_t port, family, zero[2];
	uint8_t bytes[16];
};

static struct key key_of(unsigned int port, const struct packet_address *address)
{
	struct key key = {.port = (uint8_t)port, .family = address->family};
	memcpy(key.bytes, address->bytes, sizeof(key.bytes));
	return key;
}

int neighbours_create(struct dataplane *dataplane, struct dataplane_error *error)
{
	uint32_t count = dataplane->config->gateway.max_neighbours;
	struct rte_hash_parameters parameters = {
		.name = "adjacencies",
		.entries = RTE_MAX(count, 8u),
		.key_len = sizeof(struct key),
		.hash_func = rte_jhash,
		.socket_id = (int)rte_socket_id(),
	};
	dataplane->adjacency_index = rte_hash_create(&parameters);
	if (dataplane->adjacency_index != NULL) {
		// Positions in the hash are the adjacencies' indices, and there may be more of
		// them than were asked for.
		uint32_t room = (uint32_t)rte_hash_max_key_id(dataplane->adjacency_index) + 1;
		dataplane->adjacencies = rte_calloc(
			"adjacencies", room, sizeof(struct adjacency), RTE_CACHE_LINE_SIZE);
	}
	if (dataplane->adjacencies == NULL)
		return dataplane_fail(
			error, "no memory for %u neighbours; lower gateway.max_neighbours", count);
	return 0;
}

void neighbours_destroy(struct dataplane *dataplane)
{
	rte_hash_free(dataplane->adjacency_index);
	rte_free(dataplane->adjacencies);
}

uint32_t neighbour_find(
	const struct dataplane *dataplane, unsigned int port, const struct packet_address *address)
{
	struct key key = key_of(port, address);
	int32_t position = rte_hash_lookup(dataplane->adjacency_index, &key);
	if (position < 0 || !dataplane->adjacencies[position].in_table)
		return TUNNEL_NO_PATH;
	return (uint32_t)position;
}

static uint32_t insert(
	struct dataplane *dataplane, unsigned int port, const struct packet_address *address)
{
	struct key key = key_of(port, address);
	int32_t position = rte_hash_add_key(dataplane->adjacency_index, &key);
	if (position < 0)
		return TUNNEL_NO_PATH;
	struct adjacency *adjacency = &dataplane->adjacencies[position];
	dataplane->adjacency_end = RTE_MAX(dataplane->adjacency_end, (uint32_t)position + 1);
	adjacency->in_table = true;
	adjacency->port = (uint8_t)port;
	adjacency->address = *address;
	adjacency->pinned = adjacency->is_static = adjacency->has_route = false;
	adjacency->managed = false;
	adjacency->idle = 0;
	adjacency->asked = 0;
	atomic_store(&adjacency->wanted, false);
	atomic_store(&adjacency->used, true);
	atomic_store(&adjacency->link, adjacency_link((uint8_t)port, NULL));
	return (uint32_t)position;
}

// The place may be used again when no worker can hold its index any more.
struct released {
	struct dataplane *dataplane;
	uint32_t index;
};

static void release_place(void *argument)
{
	struct released *released = argument;
	struct dataplane *dataplane = released->dataplane;
	const struct adjacency *adjacency = &dataplane->adjacencies[released->index];
	if (!adjacency->in_table) { // it may have come back meanwhile
		struct key key = key_of(adjacency->port, &adjacency->address);
		rte_hash_del_key(dataplane->adjacency_index, &key);
	}
	free(released);
}

static struct packet_prefix host_prefix(const struct packet_address *address)
{
	return packet_prefix_of(address, packet_address_bits(address));
}

static void drop_adjacency(struct dataplane *dataplane, uint32_t index)
{
	struct adjacency *adjacency = &dataplane->adjacencies[index];
	struct released *released = malloc(sizeof(*released));
	if (released == NULL)
		return; // stays until the next time
	if (adjacency->has_route) {
		struct packet_prefix prefix = host_prefix(&adjacency->address);
		struct route_target target = {ROUTE_ADJACENCY, index};
		route_delete(dataplane->routes, &prefix, &target, ROUTE_ORIGIN_NEIGHBOUR);
	}
	if (adjacency->managed)
		host_neighbour_release(dataplane->host, dataplane->ports[adjacency->port].tap.index,
			&adjacency->address);
	adjacency->in_table = false;
	*released = (struct released){dataplane, index};
	reclaim_defer(dataplane->reclaim, release_place, released);
}

static void ask(struct dataplane *dataplane, struct adjacency *adjacency)
{
	uint64_t now = dataplane_now();
	if (adjacency->is_static || dataplane->host == NULL ||
		(adjacency->asked != 0 && now - adjacency->asked < ASK_AGAIN))
		return;
	adjacency->asked = now;
	adjacency->managed = true;
	host_neighbour_resolve(
		dataplane->host, dataplane->ports[adjacency->port].tap.index, &adjacency->address);
}

// A host route, where the neighbour's address is routed by its port's connected prefix and nothing
// more specific: so an entry in the kernel's cache can't draw a tunnel's traffic away.
static void add_host_route(struct dataplane *dataplane, uint32_t index)
{
	struct adjacency *adjacency = &dataplane->adjacencies[index];
	if (adjacency->has_route)
		return;
	struct route_target now = route_lookup(dataplane->routes, &adjacency->address, NULL);
	if (now.kind != ROUTE_CONNECTED || now.index != adjacency->port)
		return;
	struct packet_prefix prefix = host_prefix(&adjacency->address);
	struct route_path path = {
		.target = {ROUTE_ADJACENCY, index}, .origin = ROUTE_ORIGIN_NEIGHBOUR, .weight = 1};
	adjacency->has_route = route_add(dataplane->routes, &prefix, &path) == 0;
}

void neighbours_reroute(struct dataplane *dataplane, const struct packet_prefix *prefix)
{
	uint32_t count = dataplane->adjacency_end;
	for (uint32_t i = 0; i < count && prefix->length != 0; i++) {
		struct adjacency *adjacency = &dataplane->adjacencies[i];
		if (!adjacency->in_table || !adjacency->has_route ||
			!packet_prefix_contains(prefix, &adjacency->address))
			continue;
		struct packet_prefix host = host_prefix(&adjacency->address);
		struct route_target target = {ROUTE_ADJACENCY, i};
		route_delete(dataplane->routes, &host, &target, ROUTE_ORIGIN_NEIGHBOUR);
		adjacency->has_route = false;
		add_host_route(dataplane, i); // unless the tunnel's prefix is the longer one now
	}
}

uint32_t neighbour_get(struct dataplane *dataplane, unsigned int port,
	const struct packet_address *address, bool pin)
{
	uint32_t index = neighbour_find(dataplane, port, address);
	if (index == TUNNEL_NO_PATH)
		index = insert(dataplane, port, address);
	if (index == TUNNEL_NO_PATH)
		return index;
	struct adjacency *adjacency = &dataplane->adjacencies[index];
	if (pin && !adjacency->pinned) {
		adjacency->pinned = true;
		ask(dataplane, adjacency);
	}
	return index;
}

void neighbour_report(struct dataplane *dataplane, unsigned int port,
	const struct packet_address *address, const struct rte_ether_addr *mac)
{
	uint32_t index = neighbour_find(dataplane, port, address);
	if (index == TUNNEL_NO_PATH) {
		if (mac == NULL)
			return;
		index = insert(dataplane, port, address);
		if (index == TUNNEL_NO_PATH)
			return;
	}
	struct adjacency *adjacency = &dataplane->adjacencies[index];
	if (adjacency->is_static)
		return;
	adjacency->reported = true;
	atomic_store(&adjacency->link, adjacency_link((uint8_t)port, mac));
	atomic_store(&adjacency->wanted, false);
	if (mac != NULL)
		add_host_route(dataplane, index);
	// One that is unresolved may be just that moment asked for: age takes it if it stays so.
}

bool neighbour_set_static(struct dataplane *dataplane, unsigned int port,
	const struct packet_address *address, const struct rte_ether_addr *mac)
{
	uint32_t index = neighbour_get(dataplane, port, address, false);
	if (index == TUNNEL_NO_PATH)
		return false;
	struct adjacency *adjacency = &dataplane->adjacencies[index];
	adjacency->is_static = adjacency->pinned = true;
	atomic_store(&adjacency->link, adjacency_link((uint8_t)port, mac));
	add_host_route(dataplane, index);
	return true;
}

// Its MAC holds until the kernel says otherwise. Ageing finds out whether it is still pinned.
void neighbour_unset_static(
	struct dataplane *dataplane, unsigned int port, const struct packet_address *address)
{
	uint32_t index = neighbour_find(dataplane, port, address);
	if (index == TUNNEL_NO_PATH)
		return;
	struct adjacency *adjacency = &dataplane->adjacencies[index];
	adjacency->is_static = false;
	adjacency->asked = 0;
	ask(dataplane, adjacency);
}

void neighbour_connected(
	struct dataplane *dataplane, unsigned int port, const struct packet_address *address)
{
	// Whoever sweeps a whole network must not take the room of those that answer.
	if (neighbour_find(dataplane, port, address) == TUNNEL_NO_PATH &&
		(uint32_t)rte_hash_count(dataplane->adjacency_index) >
			dataplane->config->gateway.max_neighbours / 2)
		return;
	uint32_t index = neighbour_get(dataplane, port, address, false);
	if (index == TUNNEL_NO_PATH)
		return;
	add_host_route(dataplane, index);
	ask(dataplane, &dataplane->adjacencies[index]);
}

void neighbour_wanted(struct dataplane *dataplane, uint32_t index)
{
	struct adjacency *adjacency = &dataplane->adjacencies[index];
	if (adjacency->in_table)
		ask(dataplane, adjacency);
	// Told again by the next packet, should the kernel not find it.
	atomic_store(&adjacency->wanted, false);
}

static void pin(struct dataplane *dataplane, uint32_t index)
{
	if (index != TUNNEL_NO_PATH)
		dataplane->adjacencies[index].pinned = true;
}

// Pins what routes and tunnels lead to now, and nothing else.
static void pin_next_hops(struct dataplane *dataplane, uint32_t count)
{
	for (uint32_t i = 0; i < count; i++) {
		struct adjacency *adjacency = &dataplane->adjacencies[i];
		adjacency->pinned = adjacency->is_static || adjacency->route_count != 0;
	}
	for (unsigned int i = 0; i < tunnel_count(dataplane->tunnels); i++) {
		const struct tunnel_egress *egress =
			atomic_load(&tunnel_get(dataplane->tunnels, i)->egress);
		if (egress != NULL)
			pin(dataplane, atomic_load(&egress->adjacency));
	}
}

void neighbours_age(struct dataplane *dataplane)
{
	uint32_t count = (uint32_t)rte_hash_max_key_id(dataplane->adjacency_index) + 1;
	pin_next_hops(dataplane, count);
	for (uint32_t i = 0; i < count; i++) {
		struct adjacency *adjacency = &dataplane->adjacencies[i];
		if (!adjacency->in_table || adjacency->pinned)
			continue;
		bool resolved = atomic_load(&adjacency->link) & ADJACENCY_RESOLVED;
		adjacency->idle =
			atomic_exchange(&adjacency->used, false) ? 0 : adjacency->idle + 1;
		if (adjacency->idle >= (resolved ? IDLE_MAX : 1))
			drop_adjacency(dataplane, i);
		else if (!adjacency->managed)
			ask(dataplane, adjacency); // the kernel learned it by itself
	}
}

void neighbours_begin_dump(struct dataplane *dataplane)
{
	uint32_t count = (uint32_t)rte_hash_max_key_id(dataplane->adjacency_index) + 1;
	for (uint32_t i = 0; i < count; i++)
		dataplane->adjacencies[i].reported = false;
}

void neighbours_end_dump(struct dataplane *dataplane)
{
	uint32_t count = (uint32_t)rte_hash_max_key_id(dataplane->adjacency_index) + 1;
	for (uint32_t i = 0; i < count; i++) {
		struct adjacency *adjacency = &dataplane->adjacencies[i];
		if (!adjacency->in_table || adjacency->reported)
			continue;
		adjacency->asked = 0; // a lost answer must not delay the next request
		neighbour_report(dataplane, adjacency->port, &adjacency->address, NULL);
	}
}

bool dataplane_adjacency(const struct dataplane *dataplane, uint32_t index, unsigned int *port,
	struct packet_address *next_hop)
{
	if (index > (uint32_t)rte_hash_max_key_id(dataplane->adjacency_index) ||
		!dataplane->adjacencies[index].in_table)
		return false;
	*port = dataplane->adjacencies[index].port;
	*next_hop = dataplane->adjacencies[index].address;
	return true;
}
