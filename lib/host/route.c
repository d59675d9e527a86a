// SPDX-License-Identifier: BSD-3-Clause
// Copyright (c) 2026 the espgw authors

// Routes of the kernel's main table: reading its messages, dumping them, and the gateway's own.

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include <linux/nexthop.h>

#include "host/mirror.h"

// Where the attributes of one next hop come from: the message itself, or a part of RTA_MULTIPATH.
struct route_hop_source {
	const struct nlattr **table;
	unsigned int interface; // 0: RTA_OIF tells
	unsigned int flags;     // RTNH_F_*
	uint32_t weight;
};

static bool route_read_gateway(
	const struct nlattr *table[], uint8_t family, struct packet_address *gateway)
{
	if (table[RTA_GATEWAY])
		return netlink_read_address(table[RTA_GATEWAY], family, gateway);
	if (!table[RTA_VIA])
		return true;
	// An IPv4 route by way of an IPv6 neighbour (RFC 8950).
	const struct rtvia *via = mnl_attr_get_payload(table[RTA_VIA]);
	if (mnl_attr_get_payload_len(table[RTA_VIA]) != sizeof(*via) + 16 ||
		via->rtvia_family != AF_INET6)
		return false;
	gateway->family = 6;
	memcpy(gateway->bytes, via->rtvia_addr, 16);
	return true;
}

static bool route_read_hop(
	const struct route_hop_source *source, uint8_t family, struct route_message *route)
{
	uint32_t interface = source->interface;
	if (interface == 0 && source->table[RTA_OIF] &&
		!netlink_read_u32(source->table[RTA_OIF], &interface))
		return false;
	struct packet_address gateway = {.family = 0};
	if (!route_read_gateway(source->table, family, &gateway))
		return false;
	if (interface == 0 || route->hop_count == ROUTE_MESSAGE_NEXT_HOPS)
		return true;
	if (packet_address_is_unspecified(&gateway))
		gateway.family = 0;
	struct route_hop *hop = &route->hops[route->hop_count++];
	*hop = (struct route_hop){
		.hop = {.interface = interface, .gateway = gateway, .weight = source->weight},
		.usable = !(source->flags & RTNH_F_DEAD) && !source->table[RTA_ENCAP_TYPE],
	};
	return true;
}

static bool route_read_multipath(
	const struct nlattr *attribute, uint8_t family, struct route_message *route)
{
	const uint8_t *next = mnl_attr_get_payload(attribute);
	size_t left = mnl_attr_get_payload_len(attribute);
	while (left >= sizeof(struct rtnexthop)) {
		const struct rtnexthop *hop = (const void *)next;
		if (hop->rtnh_len < sizeof(*hop) || hop->rtnh_len > left)
			return false;
		const struct nlattr *table[RTA_MAX + 1];
		if (!netlink_read_attributes(hop + 1, hop->rtnh_len - sizeof(*hop), table, RTA_MAX))
			return false;
		struct route_hop_source source = {.table = table,
			.interface = (unsigned int)hop->rtnh_ifindex,
			.flags = hop->rtnh_flags,
			.weight = hop->rtnh_hops + 1u};
		if (!route_read_hop(&source, family, route))
			return false;
		size_t step = RTNH_ALIGN((size_t)hop->rtnh_len);
		if (step >= left)
			return true;
		next += step;
		left -= step;
	}
	return left == 0;
}

static bool route_read_hops(
	const struct rtmsg *header, const struct nlattr *table[], struct route_message *route)
{
	if (table[RTA_NH_ID] && !netlink_read_u32(table[RTA_NH_ID], &route->next_hop_id))
		return false;
	if (!route->unicast)
		return true;
	if (table[RTA_MULTIPATH])
		return route_read_multipath(table[RTA_MULTIPATH], header->rtm_family, route);
	// With net.ipv4.nexthop_compat_mode off, the object's id is all that is told.
	route->resolve = route->next_hop_id && !table[RTA_OIF];
	struct route_hop_source source = {.table = table, .flags = header->rtm_flags, .weight = 1};
	return route_read_hop(&source, header->rtm_family, route);
}

// Link-local and multicast destinations never cross a router (RFC 4291, 2.5.6), and the kernel has
// one such route for every interface.
static bool route_is_local_scope(const struct packet_prefix *prefix)
{
	const uint8_t *bytes = prefix->address.bytes;
	if (prefix->address.family == 6 && prefix->length >= 10 && bytes[0] == 0xfe &&
		(bytes[1] & 0xc0) == 0x80)
		return true;
	return prefix->length >= 4 && packet_address_is_multicast(&prefix->address);
}

static bool route_read_key(
	const struct rtmsg *header, const struct nlattr *table[], struct route_message *route)
{
	struct packet_address address = {.family = header->rtm_family == AF_INET ? 4 : 6};
	if (table[RTA_DST] && !netlink_read_address(table[RTA_DST], header->rtm_family, &address))
		return false;
	if (header->rtm_dst_len > packet_address_bits(&address))
		return false;
	route->prefix = packet_prefix_of(&address, header->rtm_dst_len);
	if (table[RTA_PRIORITY] && !netlink_read_u32(table[RTA_PRIORITY], &route->metric))
		return false;
	route->protocol = header->rtm_protocol;
	route->unicast = header->rtm_type == RTN_UNICAST;
	return !route_is_local_scope(&route->prefix);
}

bool route_read(const struct nlmsghdr *message, struct route_message *route)
{
	const struct rtmsg *header = mnl_nlmsg_get_payload(message);
	const struct nlattr *table[RTA_MAX + 1];
	if (mnl_nlmsg_get_payload_len(message) < sizeof(*header) ||
		!netlink_read_message(message, sizeof(*header), table, RTA_MAX))
		return false;
	if (header->rtm_family != AF_INET && header->rtm_family != AF_INET6)
		return false;
	uint32_t number = header->rtm_table;
	if (table[RTA_TABLE] && !netlink_read_u32(table[RTA_TABLE], &number))
		return false;
	if (number != RT_TABLE_MAIN || header->rtm_src_len || header->rtm_tos ||
		(header->rtm_flags & RTM_F_CLONED))
		return false;
	// All but the next hops, which are counted.
	memset(route, 0, offsetof(struct route_message, hops));
	return route_read_key(header, table, route) && route_read_hops(header, table, route);
}

struct next_hop_answer {
	struct nexthop_grp members[ROUTE_MESSAGE_NEXT_HOPS];
	unsigned int member_count;
	struct route_message *route;
	uint32_t weight;
};

static void route_visit_next_hop(const struct nlmsghdr *message, void *argument)
{
	struct next_hop_answer *answer = argument;
	const struct nhmsg *header = mnl_nlmsg_get_payload(message);
	const struct nlattr *table[NHA_MAX + 1];
	if (message->nlmsg_type != RTM_NEWNEXTHOP ||
		mnl_nlmsg_get_payload_len(message) < sizeof(*header) ||
		!netlink_read_message(message, sizeof(*header), table, NHA_MAX))
		return;
	if (table[NHA_GROUP]) {
		size_t size = mnl_attr_get_payload_len(table[NHA_GROUP]);
		if (size > sizeof(answer->members))
			size = sizeof(answer->members);
		answer->member_count = (unsigned int)(size / sizeof(answer->members[0]));
		memcpy(answer->members, mnl_attr_get_payload(table[NHA_GROUP]), size);
		return;
	}
	const struct nlattr *route_table[RTA_MAX + 1] = {
		[RTA_OIF] = table[NHA_OIF],
		[RTA_ENCAP_TYPE] = table[NHA_ENCAP_TYPE],
	};
	// An IPv4 route may use an IPv6 next hop.
	uint8_t family = header->nh_family;
	if (family == AF_INET || family == AF_INET6)
		route_table[RTA_GATEWAY] = table[NHA_GATEWAY];
	struct route_hop_source source = {
		.table = route_table, .flags = header->nh_flags, .weight = answer->weight};
	route_read_hop(&source, family, answer->route);
}

static void route_ask_next_hop(
	struct netlink *next_hops, uint32_t id, struct next_hop_answer *answer)
{
	struct netlink_request request;
	netlink_request_begin(&request, RTM_GETNEXTHOP, 0, sizeof(struct nhmsg));
	mnl_attr_put_u32(&request.header, NHA_ID, id);
	netlink_run(next_hops, &request, route_visit_next_hop, answer);
}

void route_resolve(struct netlink *next_hops, struct route_message *route)
{
	struct next_hop_answer answer = {.route = route, .weight = 1};
	route_ask_next_hop(next_hops, route->next_hop_id, &answer);
	// The members of a group are no groups themselves.
	for (unsigned int i = 0; i < answer.member_count; i++) {
		struct next_hop_answer member = {
			.route = route, .weight = answer.members[i].weight + 1u};
		route_ask_next_hop(next_hops, answer.members[i].id, &member);
	}
}

struct route_dump {
	struct route_table *table;
	struct netlink *next_hops;
	bool resolves;
	int result;
};

static void route_visit_dumped(const struct nlmsghdr *message, void *argument)
{
	struct route_dump *dump = argument;
	struct route_message route;
	if (dump->result || message->nlmsg_type != RTM_NEWROUTE || !route_read(message, &route))
		return;
	if (route.resolve) {
		route_resolve(dump->next_hops, &route);
		dump->resolves = true;
	}
	dump->result = route_table_change(dump->table, &route, ROUTE_CHANGE_APPEND);
}

static int route_dump_family(struct netlink *requests, uint8_t family, struct route_dump *dump)
{
	struct netlink_request request;
	struct rtmsg *header =
		netlink_request_begin(&request, RTM_GETROUTE, NLM_F_DUMP, sizeof(*header));
	header->rtm_family = family;
	mnl_attr_put_u32(&request.header, RTA_TABLE, RT_TABLE_MAIN);
	int result = netlink_run(requests, &request, route_visit_dumped, dump);
	// The kernel makes a family's table when the first route goes in.
	if (result == -ENOENT)
		result = 0;
	return result ? result : dump->result;
}

int route_dump(struct netlink *requests, struct netlink *next_hops, struct route_table *table,
	bool *resolves)
{
	route_table_clear(table);
	struct route_dump dump = {.table = table, .next_hops = next_hops};
	int result = route_dump_family(requests, AF_INET, &dump);
	if (result == 0)
		result = route_dump_family(requests, AF_INET6, &dump);
	*resolves = dump.resolves;
	return result;
}

static void route_put_gateway(
	struct netlink_request *request, uint8_t family, const struct packet_address *gateway)
{
	if (gateway->family == family) {
		netlink_put_address(request, RTA_GATEWAY, gateway);
		return;
	}
	// An IPv4 route by way of an IPv6 neighbour.
	struct {
		uint16_t family;
		uint8_t address[16];
	} via = {.family = AF_INET6};
	memcpy(via.address, gateway->bytes, sizeof(via.address));
	mnl_attr_put(&request->header, RTA_VIA, sizeof(via), &via);
}

static void route_request_begin(struct netlink_request *request, uint16_t type, uint16_t flags,
	const struct packet_prefix *prefix, const struct host_next_hop *hop, uint32_t metric)
{
	bool has_gateway = hop->gateway.family != 0;
	struct rtmsg *header = netlink_request_begin(request, type, flags, sizeof(*header));
	header->rtm_family = netlink_family(&prefix->address);
	header->rtm_dst_len = prefix->length;
	header->rtm_table = RT_TABLE_MAIN;
	header->rtm_protocol = HOST_ROUTE_PROTOCOL;
	header->rtm_scope =
		prefix->address.family == 4 && !has_gateway ? RT_SCOPE_LINK : RT_SCOPE_UNIVERSE;
	header->rtm_type = RTN_UNICAST;
	netlink_put_address(request, RTA_DST, &prefix->address);
	mnl_attr_put_u32(&request->header, RTA_OIF, hop->interface);
	mnl_attr_put_u32(&request->header, RTA_PRIORITY, metric);
	if (!has_gateway)
		return;
	header->rtm_flags = RTNH_F_ONLINK;
	route_put_gateway(request, prefix->address.family, &hop->gateway);
}

static struct host_next_hop route_own_hop(
	unsigned int interface, const struct packet_address *gateway)
{
	struct host_next_hop hop = {.interface = interface};
	if (gateway)
		hop.gateway = *gateway;
	return hop;
}

static int route_fail(struct host *host, struct host_error *error, int result, const char *verb,
	const struct packet_prefix *prefix, unsigned int interface)
{
	char text[PACKET_PREFIX_TEXT];
	char name[IFNAMSIZ];
	if (!if_indextoname(interface, name))
		snprintf(name, sizeof(name), "%u", interface);
	return netlink_fail(&host->requests, error, result,
		"interface %s: cannot %s the route to %s", name, verb,
		packet_prefix_format(prefix, text));
}

int host_route_install(struct host *host, unsigned int interface,
	const struct packet_prefix *prefix, const struct packet_address *gateway, uint32_t metric,
	struct host_error *error)
{
	struct netlink_request request;
	struct host_next_hop hop = route_own_hop(interface, gateway);
	// Appended, so that neither a foreign route nor one on another interface gives way.
	route_request_begin(
		&request, RTM_NEWROUTE, NLM_F_CREATE | NLM_F_APPEND, prefix, &hop, metric);
	int result = netlink_run(&host->requests, &request, NULL, NULL);
	if (result == 0 || result == -EEXIST)
		return 0;
	return route_fail(host, error, result, "install", prefix, interface);
}

int host_route_remove(struct host *host, unsigned int interface, const struct packet_prefix *prefix,
	const struct packet_address *gateway, uint32_t metric, struct host_error *error)
{
	struct netlink_request request;
	struct host_next_hop hop = route_own_hop(interface, gateway);
	route_request_begin(&request, RTM_DELROUTE, 0, prefix, &hop, metric);
	int result = netlink_run(&host->requests, &request, NULL, NULL);
	if (result == 0 || result == -ESRCH)
		return 0;
	return route_fail(host, error, result, "remove", prefix, interface);
}

struct route_removal {
	struct host *host;
	struct host_error *error;
	int result;
};

static void route_remove_own(const struct route_group *group, void *argument)
{
	struct route_removal *removal = argument;
	const struct route_entry *entry;
	TAILQ_FOREACH (entry, &group->entries, link) {
		if (entry->protocol != HOST_ROUTE_PROTOCOL)
			continue;
		for (unsigned int i = 0; i < entry->hop_count; i++) {
			const struct host_next_hop *hop = &entry->hops[i].hop;
			if (!host_find_watched(removal->host, hop->interface))
				continue;
			int result = host_route_remove(removal->host, hop->interface,
				&group->prefix, &hop->gateway, group->metric, removal->error);
			if (result)
				removal->result = result;
		}
	}
}

int host_route_remove_all(struct host *host, struct host_error *error)
{
	struct route_table table = {NULL};
	bool resolves;
	int result = -EINTR;
	for (unsigned int i = 0; i < DUMP_TRIES && result == -EINTR; i++)
		result = route_dump(&host->requests, &host->next_hops, &table, &resolves);
	struct route_removal removal = {.host = host, .error = error, .result = result};
	if (result)
		netlink_fail(&host->requests, error, result, "cannot read the kernel's routes");
	else
		route_table_walk(&table, route_remove_own, &removal);
	route_table_clear(&table);
	return removal.result;
}
