// SPDX-License-Identifier: BSD-3-Clause
// Copyright (c) 2026 the espgw authors

#include "control/control.h"

static void part_port_state(void *argument, unsigned int port, struct dataplane_port_state *state)
{
	dataplane_port_state(argument, port, state);
}

static int part_route_add(void *argument, const struct config_route *route,
	enum route_origin origin, struct dataplane_error *error)
{
	return dataplane_route_add(argument, route, origin, error);
}

static int part_route_delete(void *argument, const struct config_route *route,
	enum route_origin origin, struct dataplane_error *error)
{
	return dataplane_route_delete(argument, route, origin, error);
}

static bool part_adjacency(
	void *argument, uint32_t index, unsigned int *port, struct packet_address *next_hop)
{
	return dataplane_adjacency(argument, index, port, next_hop);
}

static bool part_health(void *argument, unsigned int tunnel, struct health_report *report)
{
	return dataplane_health(argument, tunnel, report);
}

static int part_place(void *argument, struct config *next, struct dataplane_error *error)
{
	return dataplane_place(argument, next, error);
}

static int part_apply(void *argument, struct config *next, const struct config_diff *diff,
	dataplane_tunnel_leaves leaves, void *leaves_argument, struct dataplane_error *error)
{
	return dataplane_apply(argument, next, diff, leaves, leaves_argument, error);
}

struct control_parts control_parts_of(struct dataplane *dataplane)
{
	return (struct control_parts){
		.config = dataplane_config(dataplane),
		.tunnels = dataplane_tunnels(dataplane),
		.routes = dataplane_routes(dataplane),
		.telemetry = dataplane_telemetry(dataplane),
		.reclaim = dataplane_reclaim(dataplane),
		.crypto = dataplane_crypto(dataplane),
		.argument = dataplane,
		.port_state = part_port_state,
		.route_add = part_route_add,
		.route_delete = part_route_delete,
		.adjacency = part_adjacency,
		.health = part_health,
		.place = part_place,
		.apply = part_apply,
	};
}
