// SPDX-License-Identifier: BSD-3-Clause
// Copyright (c) 2026 the espgw authors

// route.add, route.delete, route.list.

#include <string.h>

#include "control/internal.h"

#define DEFAULT_PRIORITY 100
#define DEFAULT_WEIGHT   1
// Health adds up to 1,000,000 to a priority; this leaves it room in 32 bits.
#define PRIORITY_MAX 1000000000
#define WEIGHT_MAX   256

static bool parse_port(const struct scope *scope, const char *name, struct config_route *route)
{
	const struct config *config = scope->request->control->parts.config;
	for (unsigned int i = 0; i < config->port_count; i++)
		if (strcmp(config->ports[i].name, name) == 0) {
			route->port = (int)i;
			return true;
		}
	return request_fail(scope->request, RPC_NO_SUCH_PORT, "there is no port \"%s\"",
		strlen(name) < CONFIG_NAME_SIZE ? name : "(a long name)");
}

static bool parse_target(const struct scope *scope, struct config_route *route)
{
	struct tunnel *tunnel = NULL;
	const char *port = NULL;
	if (!scope_tunnel(scope, "tunnel", OPTIONAL, &tunnel) ||
		!scope_text(scope, "port", OPTIONAL, &port) ||
		!scope_address(scope, "next_hop", &route->next_hop))
		return false;
	if ((tunnel == NULL) == (port == NULL))
		return request_fail_parameter(
			scope->request, "", "tunnel", "give either tunnel or port");
	if (tunnel != NULL && route->next_hop.family != 0)
		return request_fail_parameter(
			scope->request, "", "next_hop", "goes with port, not with tunnel");
	if (route->next_hop.family != 0 && route->next_hop.family != route->prefix.address.family)
		return request_fail_parameter(scope->request, "", "next_hop",
			"is not of the prefix's family; give an IPv%u address",
			route->prefix.address.family);
	if (port != NULL)
		return parse_port(scope, port, route);
	route->tunnel = (int)tunnel->index;
	return true;
}

static bool parse_route(struct request *request, struct config_route *route)
{
	struct scope scope = {request, request->params, ""};
	uint64_t priority = DEFAULT_PRIORITY, weight = DEFAULT_WEIGHT;
	*route = (struct config_route){.tunnel = -1, .port = -1};
	if (!scope_prefix(&scope, "prefix", &route->prefix) || !parse_target(&scope, route) ||
		!scope_number(&scope, "priority", OPTIONAL, 0, PRIORITY_MAX, &priority) ||
		!scope_number(&scope, "weight", OPTIONAL, 1, WEIGHT_MAX, &weight))
		return false;
	route->priority = (uint32_t)priority;
	route->weight = (uint32_t)weight;
	return true;
}

static json_t *prefix_result(const struct packet_prefix *prefix)
{
	json_t *result = json_object();
	json_put_prefix(result, "prefix", prefix);
	return result;
}

static json_t *method_route_add(struct request *request)
{
	const struct control_parts *parts = &request->control->parts;
	struct config_route route;
	struct dataplane_error error = {"it was refused"};
	if (!parse_route(request, &route))
		return NULL;
	if (parts->route_add(parts->argument, &route, ROUTE_ORIGIN_AGENT, &error) != 0) {
		request_fail(
			request, RPC_ROUTE_REFUSED, "the route can't be added: %.400s", error.text);
		return NULL;
	}
	return prefix_result(&route.prefix);
}

static json_t *method_route_delete(struct request *request)
{
	const struct control_parts *parts = &request->control->parts;
	struct config_route route;
	struct dataplane_error error = {"there is no such route"};
	if (!parse_route(request, &route))
		return NULL;
	if (parts->route_delete(parts->argument, &route, ROUTE_ORIGIN_AGENT, &error) != 0) {
		request_fail(request, RPC_NO_SUCH_ROUTE, "the route can't be deleted: %.400s",
			error.text);
		return NULL;
	}
	return prefix_result(&route.prefix);
}

// ---- list ----

struct listing {
	const struct control *control;
	json_t *list;
	uint64_t limit, left;                     // entries, and prefixes that are looked at
	struct packet_prefix after, last, within; // family 0 = none
	const struct tunnel *tunnel;              // NULL = any
	bool more;
};

// Prefixes that one request looks at: a filter that lets few through must not take long.
#define LOOKED_AT_MAX 1000

static void put_target(
	const struct control *control, json_t *object, const struct route_target *target)
{
	const struct config *config = control->parts.config;
	unsigned int port = target->index;
	struct packet_address next_hop = {0};
	const char *kind = "local";
	bool is_tunnel = target->kind == ROUTE_TUNNEL || target->kind == ROUTE_LOCAL_TUNNEL;
	if (target->kind == ROUTE_TUNNEL)
		kind = "tunnel";
	else if (target->kind == ROUTE_CONNECTED)
		kind = "connected";
	else if (target->kind == ROUTE_ADJACENCY) {
		kind = "port";
		if (!control->parts.adjacency(
			    control->parts.argument, target->index, &port, &next_hop))
			port = config->port_count;
	}
	json_put_text(object, "kind", kind);
	if (is_tunnel && target->index < config->tunnel_count)
		json_put_text(object, "tunnel", config->tunnels[target->index].name);
	if (!is_tunnel && port < config->port_count)
		json_put_text(object, "port", config->ports[port].name);
	if (next_hop.family != 0)
		json_put_address(object, "next_hop", &next_hop);
}

static bool list_one(const struct packet_prefix *prefix, const struct route_path *path, bool best,
	void *argument)
{
	static const char *const origins[] = {
		[ROUTE_ORIGIN_GATEWAY] = "gateway",
		[ROUTE_ORIGIN_NEIGHBOUR] = "neighbour",
		[ROUTE_ORIGIN_CONFIG] = "config",
		[ROUTE_ORIGIN_AGENT] = "agent",
		[ROUTE_ORIGIN_KERNEL] = "kernel",
	};
	struct listing *listing = argument;
	if (listing->within.address.family != 0 &&
		!packet_prefix_contains(&listing->within, &prefix->address))
		return false; // they stand together
	// A page ends between two prefixes, never within one.
	if (!packet_prefix_equal(prefix, &listing->last)) {
		if (json_array_size(listing->list) >= listing->limit || listing->left-- == 0) {
			listing->more = true;
			return false;
		}
		listing->last = *prefix;
	}
	bool is_tunnel =
		path->target.kind == ROUTE_TUNNEL || path->target.kind == ROUTE_LOCAL_TUNNEL;
	if (listing->tunnel != NULL && !(is_tunnel && path->target.index == listing->tunnel->index))
		return true;
	json_t *object = json_object();
	json_put_prefix(object, "prefix", prefix);
	put_target(listing->control, object, &path->target);
	json_put_text(object, "origin", origins[path->origin]);
	uint32_t penalty = route_penalty(listing->control->parts.routes, &path->target);
	json_put_number(object, "priority", path->priority);
	json_put_number(object, "penalty", penalty);
	json_put_number(
		object, "effective_priority", route_effective_priority(path->priority, penalty));
	json_put_number(object, "weight", path->weight);
	json_put(object, "best", json_boolean(best));
	json_append(listing->list, object);
	return true;
}

// What stands before the first prefix within this one: the same address, shorter. Of a default
// route it is nothing, or what IPv4 ends with.
static struct packet_prefix before_all_within(const struct packet_prefix *within)
{
	struct packet_prefix before = *within;
	if (before.length > 0)
		before.length--;
	else if (before.address.family == 4)
		before = (struct packet_prefix){0};
	else
		before = (struct packet_prefix){.address = {.family = 4}, .length = UINT8_MAX};
	if (within->length == 0 && within->address.family == 6)
		memset(before.address.bytes, 0xff, sizeof(before.address.bytes));
	return before;
}

static json_t *method_route_list(struct request *request)
{
	struct scope scope = {request, request->params, ""};
	struct listing listing = {.control = request->control, .left = LOOKED_AT_MAX};
	struct tunnel *tunnel = NULL;
	bool ok;
	if (!page_limit(request, &listing.limit) ||
		!scope_tunnel(&scope, "tunnel", OPTIONAL, &tunnel))
		return NULL;
	listing.tunnel = tunnel;
	if (scope_get(&scope, "prefix", OPTIONAL, &ok) != NULL) {
		if (!scope_prefix(&scope, "prefix", &listing.within))
			return NULL;
		listing.after = before_all_within(&listing.within);
	}
	if (scope_get(&scope, "after", OPTIONAL, &ok) != NULL &&
		!scope_prefix(&scope, "after", &listing.after))
		return NULL;
	listing.list = json_array();
	route_walk_after(request->control->parts.routes, &listing.after, list_one, &listing);
	json_t *result = json_object();
	json_put(result, "routes", listing.list);
	if (listing.more)
		json_put_prefix(result, "next", &listing.last);
	return result;
}

static const char *const change_parameters[] = {
	"prefix", "tunnel", "port", "next_hop", "priority", "weight", NULL};
static const char *const list_parameters[] = {"limit", "after", "prefix", "tunnel", NULL};

const struct method methods_route[] = {
	{"route.add", method_route_add, change_parameters},
	{"route.delete", method_route_delete, change_parameters},
	{"route.list", method_route_list, list_parameters},
	{NULL, NULL, NULL},
};
