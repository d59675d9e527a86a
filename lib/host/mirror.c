// SPDX-License-Identifier: BSD-3-Clause
// Copyright (c) 2026 the espgw authors

// The mirror: follows the kernel's announcements, and dumps anew where they do not tell all.

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <sys/epoll.h>
#include <sys/timerfd.h>

#include <linux/nexthop.h>

#include "host/mirror.h"

#define RECEIVE_BUFFER   (8 * 1024 * 1024) // bytes of announcements that may wait
#define RECEIVE_MESSAGES 1024              // datagrams a call, so that others get their turn
#define RETRY_NS         100000000         // after a dump that failed
// Of an interface's flags, those on which next hops depend.
#define LINK_FLAGS (IFF_UP | IFF_RUNNING)

static int host_join_groups(struct host *host)
{
	static const int groups[] = {RTNLGRP_NEIGH, RTNLGRP_IPV4_ROUTE, RTNLGRP_IPV6_ROUTE,
		RTNLGRP_LINK, RTNLGRP_IPV4_IFADDR, RTNLGRP_NEXTHOP};
	for (unsigned int i = 0; i < sizeof(groups) / sizeof(groups[0]); i++) {
		int group = groups[i];
		// A kernel that has no next hop objects has no such group either.
		if (mnl_socket_setsockopt(host->events.socket, NETLINK_ADD_MEMBERSHIP, &group,
			    sizeof(group)) != 0 &&
			group != RTNLGRP_NEXTHOP)
			return -errno;
	}
	int size = RECEIVE_BUFFER;
	int fd = mnl_socket_get_fd(host->events.socket);
	// Beyond the system's limit only with privileges; with less, overruns come sooner.
	if (setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &size, sizeof(size)) != 0)
		setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &size, sizeof(size));
	return 0;
}

static int host_open_poll(struct host *host)
{
	host->timer = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
	host->fd = epoll_create1(EPOLL_CLOEXEC);
	struct epoll_event event = {.events = EPOLLIN};
	if (host->timer < 0 || host->fd < 0 ||
		epoll_ctl(host->fd, EPOLL_CTL_ADD, host->timer, &event) != 0 ||
		epoll_ctl(host->fd, EPOLL_CTL_ADD, mnl_socket_get_fd(host->events.socket),
			&event) != 0)
		return -errno;
	return 0;
}

static int host_open(struct host *host)
{
	int result = netlink_open(&host->events, false);
	if (result == 0)
		result = netlink_open(&host->requests, true);
	if (result == 0)
		result = netlink_open(&host->next_hops, true);
	if (result == 0)
		result = host_join_groups(host);
	if (result == 0)
		result = host_open_poll(host);
	return result;
}

struct host *host_create(const struct host_callbacks *callbacks, struct host_error *error)
{
	struct host *host = calloc(1, sizeof(*host));
	int result = -ENOMEM;
	if (host) {
		host->callbacks = *callbacks;
		host->fd = -1;
		host->timer = -1;
		result = host_open(host);
	}
	if (result == 0)
		return host;
	netlink_fail(NULL, error, result, "cannot follow the kernel's routes and neighbours");
	host_destroy(host);
	return NULL;
}

void host_destroy(struct host *host)
{
	if (!host)
		return;
	if (host->fd >= 0)
		close(host->fd);
	if (host->timer >= 0)
		close(host->timer);
	netlink_close(&host->events);
	netlink_close(&host->requests);
	netlink_close(&host->next_hops);
	route_table_clear(&host->routes);
	free(host->watched);
	free(host);
}

int host_fd(const struct host *host)
{
	return host->fd;
}

static int host_compare_watched(const void *a, const void *b)
{
	const struct host_watched *left = a;
	const struct host_watched *right = b;
	return left->interface < right->interface ? -1 : left->interface > right->interface;
}

struct host_watched *host_find_watched(const struct host *host, unsigned int interface)
{
	struct host_watched key = {.interface = interface};
	if (host->watched_count == 0)
		return NULL;
	return bsearch(&key, host->watched, host->watched_count, sizeof(key), host_compare_watched);
}

int host_watch(struct host *host, unsigned int interface)
{
	if (interface == 0)
		return -EINVAL;
	if (host_find_watched(host, interface))
		return 0;
	size_t size = (host->watched_count + 1) * sizeof(host->watched[0]);
	struct host_watched *watched = realloc(host->watched, size);
	if (!watched)
		return -ENOMEM;
	host->watched = watched;
	// New interfaces have the highest numbers, as a rule.
	unsigned int at = host->watched_count++;
	for (; at > 0 && watched[at - 1].interface > interface; at--)
		watched[at] = watched[at - 1];
	watched[at] = (struct host_watched){.interface = interface};
	return 0;
}

int host_watch_is_up(struct host *host, unsigned int interface)
{
	struct host_watched *watched = host_find_watched(host, interface);
	struct link_state state;
	if (watched == NULL)
		return -EINVAL;
	int result = link_get(&host->requests, interface, NULL, &state);
	watched->flags = result ? 0 : state.flags & LINK_FLAGS;
	watched->fresh = result == 0;
	return result;
}

bool host_link_changed(const struct host *host, unsigned int interface)
{
	const struct host_watched *watched = host_find_watched(host, interface);
	return watched != NULL && watched->changed;
}

void host_links_settled(struct host *host)
{
	for (unsigned int i = 0; i < host->watched_count; i++)
		host->watched[i].changed = false;
}

// Announcements were lost.
static void host_doubt_links(struct host *host)
{
	for (unsigned int i = 0; i < host->watched_count; i++)
		host->watched[i].changed = true;
}

// Whether the message tells of another state of a watched interface's link.
static bool host_note_link(struct host_watched *watched, bool gone, unsigned int flags)
{
	if (watched->fresh && !gone) {
		watched->fresh = watched->flags != flags;
		return false;
	}
	if (!gone && watched->flags == flags)
		return false;
	watched->flags = flags;
	watched->changed = true;
	return true;
}

void host_unwatch(struct host *host, unsigned int interface)
{
	struct host_watched *found = host_find_watched(host, interface);
	if (found == NULL)
		return;
	size_t after = host->watched_count - (size_t)(found - host->watched) - 1;
	memmove(found, found + 1, after * sizeof(*found));
	host->watched_count--;
}

// What is reported of the routes of one prefix and metric: the first that leads over a watched
// interface, as the kernel uses the first. False: nothing.
static bool host_get_route(
	const struct host *host, const struct route_group *group, struct host_route *route)
{
	const struct route_entry *entry;
	if (!group)
		return false;
	TAILQ_FOREACH (entry, &group->entries, link) {
		if (!entry->unicast || entry->protocol == HOST_ROUTE_PROTOCOL)
			continue;
		memset(route, 0, sizeof(*route));
		for (unsigned int i = 0; i < entry->hop_count; i++) {
			const struct route_hop *hop = &entry->hops[i];
			if (hop->usable && route->next_hop_count < HOST_NEXT_HOPS &&
				host_find_watched(host, hop->hop.interface))
				route->next_hops[route->next_hop_count++] = hop->hop;
		}
		if (route->next_hop_count == 0)
			continue;
		route->prefix = group->prefix;
		route->metric = group->metric;
		route->protocol = entry->protocol;
		return true;
	}
	return false;
}

static bool host_route_equal(const struct host_route *a, const struct host_route *b)
{
	if (a->protocol != b->protocol || a->next_hop_count != b->next_hop_count)
		return false;
	for (unsigned int i = 0; i < a->next_hop_count; i++)
		if (a->next_hops[i].interface != b->next_hops[i].interface ||
			a->next_hops[i].weight != b->next_hops[i].weight ||
			!packet_address_equal(&a->next_hops[i].gateway, &b->next_hops[i].gateway))
			return false;
	return true;
}

static enum route_change host_route_change(
	const struct nlmsghdr *message, const struct route_message *route)
{
	if (message->nlmsg_type == RTM_DELROUTE)
		return ROUTE_CHANGE_DELETE;
	if (message->nlmsg_flags & NLM_F_REPLACE)
		return ROUTE_CHANGE_REPLACE;
	// IPv6 knows no other place among equals than the last.
	if ((message->nlmsg_flags & NLM_F_APPEND) || route->prefix.address.family == 6)
		return ROUTE_CHANGE_APPEND;
	return ROUTE_CHANGE_INSERT;
}

static void host_receive_route(struct host *host, const struct nlmsghdr *message)
{
	struct route_message change;
	if (!route_read(message, &change))
		return;
	if (change.resolve && message->nlmsg_type == RTM_NEWROUTE) {
		route_resolve(&host->next_hops, &change);
		host->resolves = true;
	}
	struct host_route before;
	struct host_route after;
	bool had = host_get_route(
		host, route_table_find(&host->routes, &change.prefix, change.metric), &before);
	if (route_table_change(&host->routes, &change, host_route_change(message, &change)) != 0) {
		host->stale = true;
		return;
	}
	bool has = host_get_route(
		host, route_table_find(&host->routes, &change.prefix, change.metric), &after);
	if (has && (!had || !host_route_equal(&before, &after)))
		host->callbacks.route_added(host->callbacks.argument, &after);
	else if (had && !has)
		host->callbacks.route_deleted(host->callbacks.argument, &before);
}

static void host_receive_neighbour(struct host *host, const struct nlmsghdr *message)
{
	struct host_neighbour neighbour;
	if (neighbour_read(message, &neighbour) && host_find_watched(host, neighbour.interface))
		host->callbacks.neighbour(host->callbacks.argument, &neighbour);
}

struct host_usage {
	unsigned int interface;
	uint32_t next_hop_id;
	bool used;
};

static void host_look_for_use(const struct route_group *group, void *argument)
{
	struct host_usage *usage = argument;
	const struct route_entry *entry;
	TAILQ_FOREACH (entry, &group->entries, link) {
		if (usage->next_hop_id && entry->next_hop_id == usage->next_hop_id)
			usage->used = true;
		for (unsigned int i = 0; usage->interface && i < entry->hop_count; i++)
			if (entry->hops[i].hop.interface == usage->interface)
				usage->used = true;
	}
}

// The kernel does not announce each IPv4 route that goes, or each next hop that dies or comes back
// to life, with an interface.
static void host_receive_link(struct host *host, const struct nlmsghdr *message)
{
	const struct ifinfomsg *header = mnl_nlmsg_get_payload(message);
	if (mnl_nlmsg_get_payload_len(message) < sizeof(*header) || header->ifi_index <= 0)
		return;
	bool gone = message->nlmsg_type == RTM_DELLINK && header->ifi_family == AF_UNSPEC;
	unsigned int flags = gone ? 0 : header->ifi_flags & LINK_FLAGS;
	struct host_watched *watched = host_find_watched(host, (unsigned int)header->ifi_index);
	if (watched) {
		host->stale |= host_note_link(watched, gone, flags);
		return;
	}
	if (!gone && !(header->ifi_change & IFF_UP))
		return;
	struct host_usage usage = {.interface = (unsigned int)header->ifi_index};
	route_table_walk(&host->routes, host_look_for_use, &usage);
	if (usage.used)
		host->stale = true;
}

// Routes go silently with their next hop object. And those whose next hops had to be asked for
// change silently with it.
static void host_receive_next_hop(struct host *host, const struct nlmsghdr *message)
{
	const struct nlattr *table[NHA_MAX + 1];
	struct host_usage usage = {.used = host->resolves};
	if (mnl_nlmsg_get_payload_len(message) < sizeof(struct nhmsg) ||
		!netlink_read_message(message, sizeof(struct nhmsg), table, NHA_MAX) ||
		!table[NHA_ID] || !netlink_read_u32(table[NHA_ID], &usage.next_hop_id))
		return;
	if (message->nlmsg_type == RTM_DELNEXTHOP && !usage.used)
		route_table_walk(&host->routes, host_look_for_use, &usage);
	if (usage.used)
		host->stale = true;
}

static void host_receive_message(const struct nlmsghdr *message, void *argument)
{
	struct host *host = argument;
	switch (message->nlmsg_type) {
	case RTM_NEWROUTE:
	case RTM_DELROUTE:
		host_receive_route(host, message);
		break;
	case RTM_NEWNEIGH:
	case RTM_DELNEIGH:
		host_receive_neighbour(host, message);
		break;
	case RTM_NEWLINK:
	case RTM_DELLINK:
		host_receive_link(host, message);
		break;
	case RTM_NEWNEXTHOP:
	case RTM_DELNEXTHOP:
		host_receive_next_hop(host, message);
		break;
	case RTM_DELADDR:
		// Routes with this source address go silently.
		host->stale = true;
		break;
	default:
		break;
	}
}

void host_receive(struct host *host)
{
	uint64_t expirations;
	bool retry = read(host->timer, &expirations, sizeof(expirations)) > 0;
	int result = 0;
	for (unsigned int i = 0; i < RECEIVE_MESSAGES && result == 0; i++)
		result = netlink_receive(&host->events, host_receive_message, host);
	if (result != 0 && result != -EAGAIN) {
		host->stale = true;
		host_doubt_links(host);
	}
	struct host_error error;
	if (host->stale || retry)
		host_dump(host, &error);
}

struct neighbour_list {
	struct host *host;
	struct host_neighbour *neighbours;
	size_t count;
	size_t room;
	int result;
};

static void host_visit_neighbour(const struct nlmsghdr *message, void *argument)
{
	struct neighbour_list *list = argument;
	struct host_neighbour neighbour;
	if (message->nlmsg_type != RTM_NEWNEIGH || !neighbour_read(message, &neighbour) ||
		!host_find_watched(list->host, neighbour.interface))
		return;
	if (list->count == list->room) {
		size_t room = list->room ? 2 * list->room : 64;
		void *grown = realloc(list->neighbours, room * sizeof(neighbour));
		if (!grown) {
			list->result = -ENOMEM;
			return;
		}
		list->neighbours = grown;
		list->room = room;
	}
	list->neighbours[list->count++] = neighbour;
}

static int host_dump_neighbours(struct host *host, struct neighbour_list *list)
{
	int result = -EINTR;
	for (unsigned int i = 0; i < DUMP_TRIES && result == -EINTR; i++) {
		list->count = 0;
		struct netlink_request request;
		netlink_request_begin(&request, RTM_GETNEIGH, NLM_F_DUMP, sizeof(struct ndmsg));
		result = netlink_run(&host->requests, &request, host_visit_neighbour, list);
	}
	return result ? result : list->result;
}

static int host_dump_routes(struct host *host)
{
	struct route_table fresh = {NULL};
	bool resolves = false;
	int result = -EINTR;
	for (unsigned int i = 0; i < DUMP_TRIES && result == -EINTR; i++)
		result = route_dump(&host->requests, &host->next_hops, &fresh, &resolves);
	if (result) {
		route_table_clear(&fresh);
		return result;
	}
	route_table_clear(&host->routes);
	host->routes = fresh;
	host->resolves = resolves;
	return 0;
}

// But a link that went down and came up again has cost the kernel routes.
static void host_discard(const struct nlmsghdr *message, void *argument)
{
	struct host *host = argument;
	const struct ifinfomsg *header = mnl_nlmsg_get_payload(message);
	bool gone = message->nlmsg_type == RTM_DELLINK;
	if ((message->nlmsg_type != RTM_NEWLINK && !gone) ||
		mnl_nlmsg_get_payload_len(message) < sizeof(*header) || header->ifi_index <= 0)
		return;
	struct host_watched *watched = host_find_watched(host, (unsigned int)header->ifi_index);
	if (watched)
		host_note_link(watched, gone, header->ifi_flags & LINK_FLAGS);
}

// What was announced before the dump is in the dump.
static void host_discard_events(struct host *host)
{
	int result = 0;
	while (result == 0 || result == -ENOBUFS) {
		result = netlink_receive(&host->events, host_discard, host);
		if (result == -ENOBUFS)
			host_doubt_links(host);
	}
}

static int host_dump_links(struct host *host)
{
	for (unsigned int i = 0; i < host->watched_count; i++) {
		struct link_state state;
		int result = link_get(&host->requests, host->watched[i].interface, NULL, &state);
		if (result != 0 && result != -ENODEV)
			return result;
		unsigned int flags = result ? 0 : state.flags & LINK_FLAGS;
		struct host_watched *watched = &host->watched[i];
		watched->changed |= watched->flags != flags;
		watched->flags = flags;
		watched->fresh = false;
	}
	return 0;
}

static void host_report_group(const struct route_group *group, void *argument)
{
	struct host *host = argument;
	struct host_route route;
	if (host_get_route(host, group, &route))
		host->callbacks.route_added(host->callbacks.argument, &route);
}

int host_dump(struct host *host, struct host_error *error)
{
	struct neighbour_list list = {.host = host};
	host_discard_events(host);
	int result = host_dump_links(host);
	if (result == 0)
		result = host_dump_neighbours(host, &list);
	if (result == 0)
		result = host_dump_routes(host);
	host->stale = result != 0;
	if (result) {
		struct itimerspec delay = {.it_value.tv_nsec = RETRY_NS};
		timerfd_settime(host->timer, 0, &delay, NULL);
		free(list.neighbours);
		return netlink_fail(&host->requests, error, result,
			"cannot read the kernel's routes and neighbours");
	}
	void *argument = host->callbacks.argument;
	host->callbacks.dump_began(argument);
	for (size_t i = 0; i < list.count; i++)
		host->callbacks.neighbour(argument, &list.neighbours[i]);
	free(list.neighbours);
	route_table_walk(&host->routes, host_report_group, host);
	host->callbacks.dump_ended(argument);
	return 0;
}
