// SPDX-License-Identifier: BSD-3-Clause
// Copyright (c) 2026 the espgw authors

// What the tests and the fuzzer of lib/control share: a gateway of two ports and two tunnels
// without ports or workers, in directories of its own.

#pragma once

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "control/control.h"

struct world {
	char directory[64];
	struct config config;
	struct config_port ports[2];
	struct config_tunnel tunnels[2];
	struct reclaim *reclaim;
	struct route_table *routes;
	struct telemetry *telemetry;
	struct control_parts parts;
	struct config *running; // `config`, until another one is applied
	bool fail_apply;
	bool store_is_logged; // something was logged as an error
};

static inline struct packet_address world_address(const char *text)
{
	struct packet_address address;
	bool valid = packet_address_parse(text, &address);
	assert(valid);
	(void)valid;
	return address;
}

static inline struct packet_interface_address world_interface(const char *text)
{
	struct packet_interface_address address;
	bool valid = packet_interface_address_parse(text, &address);
	assert(valid);
	(void)valid;
	return address;
}

static inline void world_configure(struct world *world)
{
	struct config_gateway *gateway = &world->config.gateway;
	snprintf(gateway->name, sizeof(gateway->name), "test");
	snprintf(gateway->control_socket, sizeof(gateway->control_socket), "%s/control.sock",
		world->directory);
	snprintf(
		gateway->run_directory, sizeof(gateway->run_directory), "%s/run", world->directory);
	snprintf(gateway->state_directory, sizeof(gateway->state_directory), "%s/state",
		world->directory);
	gateway->control_socket_mode = 0600;
	gateway->max_sas = 300;
	gateway->max_clients = 300;
	snprintf(world->ports[0].name, CONFIG_NAME_SIZE, "wan");
	snprintf(world->ports[1].name, CONFIG_NAME_SIZE, "lan");
	world->ports[0].side = CONFIG_SIDE_OUTSIDE;
	world->ports[0].mtu = world->ports[1].mtu = 1500;
	world->ports[0].address_count = 1;
	world->ports[0].addresses[0] = world_interface("203.0.113.1/24");
	for (unsigned int i = 0; i < 2; i++) {
		struct config_tunnel *tunnel = &world->tunnels[i];
		snprintf(tunnel->name, CONFIG_NAME_SIZE, "tunnel%02u", i + 1);
		tunnel->if_id = i + 101;
		tunnel->gateway_endpoint = world_address("203.0.113.1");
		tunnel->customer_endpoint = world_address(i == 0 ? "198.51.100.1" : "198.51.100.2");
		tunnel->interface_address =
			world_interface(i == 0 ? "169.254.244.2/30" : "169.254.244.6/30");
		tunnel->far_side = CONFIG_FAR_SIDE_AWS;
		tunnel->replay_protection = true;
		tunnel->replay_window = 64;
		tunnel->packets_per_key = UINT32_MAX;
		tunnel->mtu = 1438;
	}
	world->config.ports = world->ports;
	world->config.port_count = 2;
	world->config.tunnels = world->tunnels;
	world->config.tunnel_count = 2;
	world->config.worker_count = 1;
	world->config.workers[0].core = 7;
}

static inline void world_port_state(
	void *argument, unsigned int port, struct dataplane_port_state *state)
{
	(void)argument;
	*state = (struct dataplane_port_state){.present = true,
		.link_up = port == 0,
		.link_mbps = 1000,
		.rx_queues = 1,
		.tx_queues = 1,
		.driver = "net_test"};
}

// Adjacency n is port n without more ado.
static inline struct route_target world_target(const struct config_route *route)
{
	if (route->tunnel >= 0)
		return (struct route_target){ROUTE_TUNNEL, (uint32_t)route->tunnel};
	return (struct route_target){
		route->next_hop.family != 0 ? ROUTE_ADJACENCY : ROUTE_CONNECTED,
		(uint32_t)route->port};
}

static inline int world_route_add(void *argument, const struct config_route *route,
	enum route_origin origin, struct dataplane_error *error)
{
	struct world *world = argument;
	struct route_path path = {world_target(route), origin, route->priority, route->weight};
	int result = route_add(world->routes, &route->prefix, &path);
	if (result != 0)
		snprintf(error->text, sizeof(error->text), "%s", strerror(-result));
	return result == 0 ? 0 : -1;
}

static inline int world_route_delete(void *argument, const struct config_route *route,
	enum route_origin origin, struct dataplane_error *error)
{
	struct world *world = argument;
	struct route_target target = world_target(route);
	int result = route_delete(world->routes, &route->prefix, &target, origin);
	if (result != 0)
		snprintf(error->text, sizeof(error->text), "%s", strerror(-result));
	return result == 0 ? 0 : -1;
}

static inline bool world_adjacency(
	void *argument, uint32_t adjacency, unsigned int *port, struct packet_address *next_hop)
{
	(void)argument;
	*port = adjacency;
	*next_hop = world_address("203.0.113.254");
	return true;
}

// As a gateway that starts anew with it, but for the SAs, would.
static inline int world_place(void *argument, struct config *next, struct dataplane_error *error)
{
	struct world *world = argument;
	bool taken[CONFIG_TUNNELS] = {false};
	for (unsigned int i = 0; i < tunnel_count(world->parts.tunnels); i++)
		taken[i] = tunnel_get(world->parts.tunnels, i)->config != NULL;
	if (config_place(next, world->running, taken, tunnel_room(world->parts.tunnels)))
		return 0;
	snprintf(error->text, sizeof(error->text), "no room for the tunnels");
	return -1;
}

static inline int world_apply(void *argument, struct config *next, const struct config_diff *diff,
	dataplane_tunnel_leaves leaves, void *leaves_argument, struct dataplane_error *error)
{
	struct world *world = argument;
	if (world->fail_apply) {
		snprintf(error->text, sizeof(error->text), "it fails");
		return -1;
	}
	for (unsigned int i = 0; i < diff->count; i++) {
		const struct config_change *change = &diff->changes[i];
		if (change->part != CONFIG_PART_TUNNEL || change->kind != CONFIG_REMOVED)
			continue;
		leaves(leaves_argument, tunnel_get(world->parts.tunnels, change->before));
		tunnel_configure(world->parts.tunnels, change->before, NULL);
	}
	for (unsigned int i = 0; i < next->tunnel_count; i++)
		if (config_is_tunnel(&next->tunnels[i]))
			tunnel_configure(world->parts.tunnels, i, &next->tunnels[i]);
	if (world->running != &world->config)
		config_free(world->running);
	world->running = next;
	return 0;
}

static inline void world_log(void *argument, enum config_log_level level, const char *line)
{
	struct world *world = argument;
	(void)line;
	if (level == CONFIG_LOG_ERROR)
		world->store_is_logged = true;
}

// The tables of a new process. `directory`: NULL for a new one.
static inline void world_start(struct world *world, const char *directory)
{
	memset(world, 0, sizeof(*world));
	const char *name = directory != NULL ? directory : "/tmp/espgw-control-XXXXXX";
	for (size_t i = 0; i < sizeof(world->directory) - 1 && name[i] != 0; i++)
		world->directory[i] = name[i];
	if (directory == NULL && mkdtemp(world->directory) == NULL)
		abort();
	world_configure(world);
	world->reclaim = reclaim_create(1);
	world->routes = route_table_create("control_test", 1000, world->reclaim);
	world->running = &world->config;
	world->telemetry = telemetry_create(1, config_tunnel_room(&world->config));
	world->parts = (struct control_parts){
		.config = &world->config,
		.tunnels = tunnel_table_create(&world->config, world->reclaim),
		.routes = world->routes,
		.telemetry = world->telemetry,
		.reclaim = world->reclaim,
		.crypto = "ipsec-mb",
		.argument = world,
		.port_state = world_port_state,
		.route_add = world_route_add,
		.route_delete = world_route_delete,
		.adjacency = world_adjacency,
		.place = world_place,
		.apply = world_apply,
		.log = world_log,
	};
	if (world->reclaim == NULL || world->routes == NULL || world->telemetry == NULL ||
		world->parts.tunnels == NULL)
		abort();
}

static inline void world_stop(struct world *world)
{
	tunnel_table_destroy(world->parts.tunnels);
	route_table_destroy(world->routes);
	telemetry_destroy(world->telemetry);
	reclaim_destroy(world->reclaim);
	if (world->running != &world->config)
		config_free(world->running);
}

static inline void world_remove_files(const struct world *world)
{
	static const char *const names[] = {
		"run/replay", "run", "state/keys", "state/secret", "state", "control.sock", ""};
	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		char path[128];
		snprintf(path, sizeof(path), "%s/%s", world->directory, names[i]);
		(void)remove(path);
	}
}
