// SPDX-License-Identifier: BSD-3-Clause
// Copyright (c) 2026 the espgw authors

// Routes and static neighbours.

#include <stdlib.h>

#include "config/settings.h"

#define ROUTES_MAX     (1u << 20)
#define NEIGHBOURS_MAX 4096u

// Whether the address is on a network of the port, and not the port's own.
static void on_link_check(struct reader *reader, const config_setting_t *element,
	const char *member, const struct config_port *port, const struct packet_address *address)
{
	struct packet_prefix link_local;
	bool on_link = packet_prefix_parse("fe80::/10", &link_local) &&
		       packet_prefix_contains(&link_local, address);
	for (unsigned int i = 0; i < port->address_count; i++) {
		const struct packet_interface_address *own = &port->addresses[i];
		struct packet_prefix network = packet_prefix_of(&own->address, own->length);
		on_link |= packet_prefix_contains(&network, address);
		if (!packet_address_equal(&own->address, address))
			continue;
		reader_member_error(reader, element, member,
			"is the address of port \"%s\" itself; write the neighbour's", port->name);
		return;
	}
	if (!on_link && port->address_count > 0)
		reader_member_error(reader, element, member,
			"is on no network of port \"%s\"; write an address of one, or add the "
			"network to the port's addresses",
			port->name);
	else if (!on_link)
		reader_member_error(reader, element, member,
			"port \"%s\" has no addresses; give it one on the network of this one",
			port->name);
}

static void port_route_check(
	struct reader *reader, const config_setting_t *element, const struct config_route *route)
{
	if (route->next_hop.family == 0)
		return;
	if (route->prefix.address.family != 0 &&
		route->prefix.address.family != route->next_hop.family) {
		reader_member_error(reader, element, "next_hop",
			"is of another family than the prefix; write an IPv%u address",
			route->prefix.address.family);
		return;
	}
	on_link_check(
		reader, element, "next_hop", &reader->config->ports[route->port], &route->next_hop);
}

static void route_check(
	struct reader *reader, const config_setting_t *element, struct config_route *route)
{
	bool has_tunnel = config_setting_get_member(element, "tunnel") != NULL;
	bool has_port = config_setting_get_member(element, "port") != NULL;
	route->tunnel = reader_tunnel_reference(reader, element, "tunnel");
	route->port = reader_port_reference(reader, element, "port");
	if (has_tunnel && has_port)
		reader_member_error(reader, element, "port",
			"the route has a tunnel too; write either, or two routes");
	else if (!has_tunnel && !has_port)
		reader_error(reader, element,
			"the route leads nowhere; write tunnel = \"...\" or port = \"...\"");
	else if (has_tunnel && config_setting_get_member(element, "next_hop") != NULL)
		reader_member_error(reader, element, "next_hop",
			"a route into a tunnel has no next hop; leave it out");
	else if (route->port >= 0)
		port_route_check(reader, element, route);
}

int routes_compare(const void *a, const void *b)
{
	const struct config_route *x = *(const struct config_route *const *)a;
	const struct config_route *y = *(const struct config_route *const *)b;
	int order = memcmp(&x->prefix, &y->prefix, sizeof(x->prefix));
	if (order == 0)
		order = (x->tunnel > y->tunnel) - (x->tunnel < y->tunnel);
	if (order == 0)
		order = (x->port > y->port) - (x->port < y->port);
	return order != 0 ? order : memcmp(&x->next_hop, &y->next_hop, sizeof(x->next_hop));
}

static int route_order(const void *a, const void *b)
{
	int order = routes_compare(a, b);
	const struct config_route *x = *(const struct config_route *const *)a;
	const struct config_route *y = *(const struct config_route *const *)b;
	return order != 0 ? order : (x > y) - (x < y);
}

static void duplicates_check(struct reader *reader)
{
	const struct config *config = reader->config;
	if (config->route_count == 0)
		return;
	const struct config_route **sorted = calloc(config->route_count, sizeof(sorted[0]));
	if (sorted == NULL) {
		reader->out_of_memory = true;
		return;
	}
	for (unsigned int i = 0; i < config->route_count; i++)
		sorted[i] = &config->routes[i];
	qsort(sorted, config->route_count, sizeof(sorted[0]), route_order);
	for (unsigned int i = 1; i < config->route_count; i++) {
		const struct config_route *route = sorted[i];
		if (route->prefix.address.family == 0 || (route->tunnel < 0 && route->port < 0) ||
			routes_compare(&sorted[i - 1], &sorted[i]) != 0)
			continue;
		unsigned int index = (unsigned int)(route - config->routes);
		reader_member_error(reader, reader_element(reader, "routes", index), "prefix",
			"the route of line %d has the same prefix and target; keep one of them",
			sorted[i - 1]->line);
	}
	free(sorted);
}

void routes_read(struct reader *reader)
{
	struct config *config = reader->config;
	void *routes = NULL;
	config->route_count =
		settings_read_list(reader, "routes", &settings_routes, ROUTES_MAX, &routes);
	config->routes = routes;
	for (unsigned int i = 0; i < config->route_count; i++) {
		struct config_route *route = &config->routes[i];
		const config_setting_t *element = reader_element(reader, "routes", i);
		route->tunnel = route->port = -1;
		if (config_setting_is_group(element))
			route_check(reader, element, route);
	}
	duplicates_check(reader);
}

static void neighbour_check(struct reader *reader, const config_setting_t *element,
	const struct config_neighbour *neighbour)
{
	const struct config *config = reader->config;
	const struct config_port *port = &config->ports[neighbour->port];
	on_link_check(reader, element, "address", port, &neighbour->address);
	if (port->has_mac && rte_is_same_ether_addr(&port->mac, &neighbour->mac))
		reader_member_error(reader, element, "mac",
			"is the MAC address of port \"%s\" itself; write the neighbour's",
			port->name);
	for (const struct config_neighbour *other = config->neighbours; other < neighbour;
		other++) {
		if (other->port != neighbour->port ||
			!packet_address_equal(&other->address, &neighbour->address))
			continue;
		reader_member_error(reader, element, "address",
			"the neighbour of line %d has this address; keep one of them", other->line);
		return;
	}
}

void neighbours_read(struct reader *reader)
{
	struct config *config = reader->config;
	void *neighbours = NULL;
	config->neighbour_count = settings_read_list(
		reader, "neighbours", &settings_neighbours, NEIGHBOURS_MAX, &neighbours);
	config->neighbours = neighbours;
	for (unsigned int i = 0; i < config->neighbour_count; i++) {
		struct config_neighbour *neighbour = &config->neighbours[i];
		const config_setting_t *element = reader_element(reader, "neighbours", i);
		neighbour->port = -1;
		if (!config_setting_is_group(element))
			continue;
		neighbour->port = reader_port_reference(reader, element, "port");
		if (neighbour->port >= 0 && neighbour->address.family != 0)
			neighbour_check(reader, element, neighbour);
	}
}
