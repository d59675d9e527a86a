// SPDX-License-Identifier: BSD-3-Clause
// Copyright (c) 2026 the espgw authors

// Private to lib/host: the mirror's state and what its messages are read into.

#pragma once

#include "host/netlink.h"
#include "host/route_table.h"

struct host_watched {
	unsigned int interface;
	unsigned int flags; // IFF_UP and so on, as last heard
	bool fresh;         // what was announced before `flags` is still to come
	bool changed;       // its link, or may have; so the kernel may have dropped its routes
};

struct host {
	struct host_callbacks callbacks;
	struct netlink events;    // multicast groups, non-blocking
	struct netlink requests;  // everything that is asked for
	struct netlink next_hops; // next hop objects, asked for in the middle of a dump of routes
	int fd;                   // epoll over the events and the timer
	int timer;                // a dump that failed is tried again
	bool stale;               // a dump is due
	bool resolves;            // a route in the table came without its next hops
	struct route_table routes;
	struct host_watched *watched; // sorted
	unsigned int watched_count;
};

// NULL when the interface is not watched.
struct host_watched *host_find_watched(const struct host *host, unsigned int interface);

// Reads RTM_NEWNEIGH or RTM_DELNEIGH. False: malformed, or of no interest (proxies, bridges,
// multicast).
bool neighbour_read(const struct nlmsghdr *message, struct host_neighbour *neighbour);

// Reads RTM_NEWROUTE or RTM_DELROUTE. False: malformed, or of no interest (another table, cached,
// by source or type of service, link-local or multicast prefixes).
bool route_read(const struct nlmsghdr *message, struct route_message *route);
// Fills in the next hops of a message that has a next hop object's id only. When the object is gone
// meanwhile there are none.
void route_resolve(struct netlink *next_hops, struct route_message *route);
// Dumps the main table of both families into the table, which is cleared first. Sets *resolves when
// an object had to be asked for. 0 or -errno; -EINTR: changed meanwhile, try again.
int route_dump(struct netlink *requests, struct netlink *next_hops, struct route_table *table,
	bool *resolves);
// Times that a dump is tried when the kernel's tables change under it.
#define DUMP_TRIES 16

// What the kernel says of an interface.
struct link_state {
	unsigned int index;
	unsigned int flags;
	char kind[IFNAMSIZ]; // "tun", "veth", ...; "" for a device of hardware
	uint8_t tun_type;    // IFF_TUN or IFF_TAP, or 0
	bool multi_queue;
};

// By index, or by name when index is 0. 0 or -errno (-ENODEV). Also a barrier: when it returns, the
// kernel has done everything that belongs to changes of interfaces which it has announced.
int link_get(
	struct netlink *requests, unsigned int index, const char *name, struct link_state *state);
