// SPDX-License-Identifier: BSD-3-Clause
// Copyright (c) 2026 the espgw authors

// Tunnels that come, change and go while the gateway runs.
//
// A tunnel is an index into several tables. Workers hold indexes: in a burst under way, and in the
// packets on the rings to and from the host's kernel. So the index of a tunnel that went is used
// again only when all workers have passed a quiescent state and what the rings held has left them:
// else a packet of one tunnel could end in another one.

#include <stdlib.h>
#include <time.h>

#include <rte_jhash.h>

#include "internal.h"

int tunnels_create(struct dataplane *dataplane, struct dataplane_error *error)
{
	dataplane->retiring =
		calloc(tunnel_room(dataplane->tunnels) + 1, sizeof(*dataplane->retiring));
	struct far_ends *far_ends = far_ends_create(dataplane->config);
	atomic_init(&dataplane->far_ends, far_ends);
	if (dataplane->retiring == NULL || far_ends == NULL)
		return dataplane_fail(error, "no memory for the tunnels");
	return 0;
}

void tunnels_destroy(struct dataplane *dataplane)
{
	free((void *)(uintptr_t)atomic_load(&dataplane->far_ends));
	free(dataplane->retiring);
	config_free(dataplane->owned);
}

// ---- far ends ----

static uint32_t far_end_place(const struct far_ends *far_ends, const struct packet_address *address)
{
	// The hash reads words, and addresses lie anywhere.
	uint32_t words[RTE_ALIGN_CEIL(sizeof(*address), 4) / 4] = {0};
	memcpy(words, address, sizeof(*address));
	uint32_t place = rte_jhash_32b(words, RTE_DIM(words), 0) & far_ends->mask;
	while (far_ends->addresses[place].family != 0 &&
		!packet_address_equal(&far_ends->addresses[place], address))
		place = (place + 1) & far_ends->mask;
	return place;
}

struct far_ends *far_ends_create(const struct config *config)
{
	uint32_t size = rte_align32pow2(2 * config->tunnel_count + 2);
	struct far_ends *far_ends =
		calloc(1, sizeof(*far_ends) + size * sizeof(far_ends->addresses[0]));
	if (far_ends == NULL)
		return NULL;
	far_ends->mask = size - 1;
	for (unsigned int i = 0; i < config->tunnel_count; i++) {
		const struct config_tunnel *tunnel = &config->tunnels[i];
		if (config_is_tunnel(tunnel))
			far_ends->addresses[far_end_place(far_ends, &tunnel->customer_endpoint)] =
				tunnel->customer_endpoint;
	}
	return far_ends;
}

bool far_ends_have(const struct dataplane *dataplane, const struct packet_address *address)
{
	const struct far_ends *far_ends =
		atomic_load_explicit(&dataplane->far_ends, memory_order_acquire);
	return far_ends->addresses[far_end_place(far_ends, address)].family != 0;
}

// ---- own routes ----

struct own_prefixes {
	struct packet_prefix block, single;
};

static struct own_prefixes own_prefixes(const struct config_tunnel *config)
{
	const struct packet_interface_address *own = &config->interface_address;
	return (struct own_prefixes){packet_prefix_of(&own->address, own->length),
		packet_prefix_of(&own->address, packet_address_bits(&own->address))};
}

// But those that `kept`, which may be NULL, has too.
static void delete_own_routes(struct dataplane *dataplane, unsigned int tunnel,
	const struct config_tunnel *config, const struct config_tunnel *kept)
{
	struct own_prefixes own = own_prefixes(config), others = {0};
	struct route_target into = {ROUTE_TUNNEL, tunnel}, local = {ROUTE_LOCAL_TUNNEL, tunnel};
	if (kept != NULL)
		others = own_prefixes(kept);
	if (!packet_prefix_equal(&own.block, &others.block))
		path_delete(dataplane, &own.block, &into, ROUTE_ORIGIN_GATEWAY);
	if (!packet_prefix_equal(&own.single, &others.single))
		path_delete(dataplane, &own.single, &local, ROUTE_ORIGIN_GATEWAY);
}

int tunnel_add_own_routes(struct dataplane *dataplane, unsigned int tunnel,
	const struct config_tunnel *config, struct dataplane_error *error)
{
	const struct packet_interface_address *own = &config->interface_address;
	uint8_t bits = packet_address_bits(&own->address);
	if (dataplane_add_own(dataplane, &own->address, own->length, ROUTE_TUNNEL, tunnel) == 0 &&
		dataplane_add_own(dataplane, &own->address, bits, ROUTE_LOCAL_TUNNEL, tunnel) == 0)
		return 0;
	delete_own_routes(dataplane, tunnel, config, NULL);
	return dataplane_fail(error, "tunnel %s: the route table is full; raise gateway.max_routes",
		config->name);
}

// ---- add, change, remove ----

int dataplane_tunnel_add(struct dataplane *dataplane, unsigned int index,
	const struct config_tunnel *config, struct dataplane_error *error)
{
	struct host_error cause;
	if (host_path_open_tun(dataplane, index, config, &cause) != 0)
		return dataplane_fail(error, "%s", cause.text);
	if (tunnel_add_own_routes(dataplane, index, config, error) != 0) {
		host_path_close_tun(dataplane, index, true);
		return -1;
	}
	if (health_tunnel_configure(dataplane, index, config) != 0) {
		delete_own_routes(dataplane, index, config, NULL);
		host_path_close_tun(dataplane, index, true);
		return dataplane_fail(
			error, "tunnel %s: no memory for its health checks", config->name);
	}
	tunnel_configure(dataplane->tunnels, index, config);
	return 0;
}

// The kernel drops all routes of an interface with its last address, so the new one comes first.
static int move_addresses(struct dataplane *dataplane, unsigned int index,
	const struct config_tunnel *before, const struct config_tunnel *after,
	struct host_error *error)
{
	const struct host_interface *tun = &dataplane->tuns[index];
	struct packet_interface_address both[] = {
		before->interface_address, after->interface_address};
	int result = host_interface_set_addresses(dataplane->host, tun, both, 2, error);
	if (result == 0)
		result = host_interface_set_addresses(
			dataplane->host, tun, &after->interface_address, 1, error);
	return result;
}

// Makes the tunnel's interface and routes those of `after`; all steps, should one fail.
static int move(struct dataplane *dataplane, unsigned int index, const struct config_tunnel *before,
	const struct config_tunnel *after, struct dataplane_error *error)
{
	struct host_error cause;
	int result = 0;
	if (before->mtu != after->mtu &&
		host_path_set_tun_mtu(dataplane, index, after->mtu, &cause) != 0)
		result = dataplane_fail(error, "%s", cause.text);
	if (memcmp(&before->interface_address, &after->interface_address,
		    sizeof(before->interface_address)) == 0)
		return result;
	if (move_addresses(dataplane, index, before, after, &cause) != 0)
		result = dataplane_fail(error, "%s", cause.text);
	if (tunnel_add_own_routes(dataplane, index, after, error) != 0)
		result = -1;
	delete_own_routes(dataplane, index, before, after);
	return result;
}

int dataplane_tunnel_change(struct dataplane *dataplane, unsigned int index,
	const struct config_tunnel *config, struct dataplane_error *error)
{
	const struct config_tunnel *before = tunnel_get(dataplane->tunnels, index)->config;
	struct dataplane_error ignored;
	int result = move(dataplane, index, before, config, error);
	if (result == 0 && health_tunnel_configure(dataplane, index, config) != 0)
		result = dataplane_fail(
			error, "tunnel %s: no memory for its health checks", config->name);
	if (result != 0) {
		move(dataplane, index, config, before, &ignored);
		return -1;
	}
	tunnel_configure(dataplane->tunnels, index, config);
	return 0;
}

// Should the kernel refuse something, the interface is not all that it was; but what it is changed
// to goes in any case, so that nothing of the gateway's own may stay as that says.
void tunnel_restore(
	struct dataplane *dataplane, unsigned int index, const struct config_tunnel *config)
{
	struct dataplane_error ignored;
	move(dataplane, index, tunnel_get(dataplane->tunnels, index)->config, config, &ignored);
	health_tunnel_configure(dataplane, index, config);
	tunnel_configure(dataplane->tunnels, index, config);
}

// An index that waits until it can be used again.
struct retired {
	struct dataplane *dataplane;
	unsigned int tunnel;
	// Of the rings of each worker: how far they were filled when the tunnel went.
	uint32_t to_host[CONFIG_WORKERS], from_host[CONFIG_WORKERS], probes[CONFIG_WORKERS];
};

static bool has_passed(const struct rte_ring *ring, uint32_t filled)
{
	return (int32_t)(__atomic_load_n(&ring->cons.tail, __ATOMIC_ACQUIRE) - filled) >= 0;
}

static bool rings_passed(const struct retired *retired)
{
	const struct dataplane *dataplane = retired->dataplane;
	// Once the workers have stopped, what the rings hold is dropped.
	for (unsigned int i = 0; dataplane->running && i < dataplane->worker_count; i++)
		if (!has_passed(dataplane->workers[i]->to_host, retired->to_host[i]) ||
			!has_passed(dataplane->workers[i]->from_host, retired->from_host[i]) ||
			!has_passed(dataplane->workers[i]->probes, retired->probes[i]))
			return false;
	return true;
}

static void release_index(void *argument)
{
	struct retired *retired = argument;
	struct dataplane *dataplane = retired->dataplane;
	struct telemetry *telemetry = dataplane->telemetry;
	for (unsigned int i = 0; i < telemetry->slots; i++)
		memset(&telemetry->slot[i]->tunnels[retired->tunnel], 0,
			sizeof(telemetry->slot[i]->tunnels[0]));
	dataplane->no_sa_reported[retired->tunnel] = 0;
	dataplane->retiring[retired->tunnel] = false;
	free(retired);
}

// The workers have left the tunnel: from now on nothing new of it comes onto the rings.
static void wait_for_rings(void *argument)
{
	struct retired *retired = argument;
	if (rings_passed(retired))
		reclaim_defer(retired->dataplane->reclaim, release_index, retired);
	else
		reclaim_defer(retired->dataplane->reclaim, wait_for_rings, retired);
}

static void note_rings(void *argument)
{
	struct retired *retired = argument;
	const struct dataplane *dataplane = retired->dataplane;
	for (unsigned int i = 0; i < dataplane->worker_count && dataplane->running; i++) {
		const struct worker *worker = dataplane->workers[i];
		retired->to_host[i] =
			__atomic_load_n(&worker->to_host->prod.tail, __ATOMIC_ACQUIRE);
		retired->from_host[i] = worker->from_host->prod.tail; // control's own
		retired->probes[i] = worker->probes->prod.tail;
	}
	wait_for_rings(retired);
}

static void retire_index(struct dataplane *dataplane, unsigned int tunnel)
{
	struct retired *retired = calloc(1, sizeof(*retired));
	dataplane->retiring[tunnel] = true;
	if (retired == NULL)
		return; // it is never used again
	retired->dataplane = dataplane;
	retired->tunnel = tunnel;
	reclaim_defer(dataplane->reclaim, note_rings, retired);
}

void dataplane_tunnel_remove(struct dataplane *dataplane, unsigned int index)
{
	health_tunnel_remove(dataplane, index);
	delete_own_routes(dataplane, index, tunnel_get(dataplane->tunnels, index)->config, NULL);
	host_path_close_tun(dataplane, index, true);
	route_set_penalty(dataplane->routes, &(struct route_target){ROUTE_TUNNEL, index}, 0);
	tunnel_configure(dataplane->tunnels, index, NULL);
	retire_index(dataplane, index);
}
