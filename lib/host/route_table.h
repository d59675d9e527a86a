// SPDX-License-Identifier: BSD-3-Clause
// Copyright (c) 2026 the espgw authors

// Private to lib/host: a copy of the kernel's main routing table. It is kept because the kernel's
// messages tell single changes, while what is reported is the state after them: an IPv6 route loses
// one next hop at a time, and of several routes with one prefix and metric only the first is used.

#pragma once

#include <stdbool.h>
#include <stdint.h>

#include <sys/queue.h>

#include "host/host.h"

// More next hops than that in one message are left out.
#define ROUTE_MESSAGE_NEXT_HOPS 256

struct route_hop {
	struct host_next_hop hop;
	bool usable; // false: its interface is down, or it wants an encapsulation of the kernel's
};

// What a route message of the kernel says.
struct route_message {
	struct packet_prefix prefix;
	uint32_t metric;
	uint8_t protocol;
	bool unicast;         // false: blackhole, unreachable and the like; no next hops
	uint32_t next_hop_id; // of a next hop object, or 0
	bool resolve;         // the message has the object's id only
	unsigned int hop_count;
	struct route_hop hops[ROUTE_MESSAGE_NEXT_HOPS];
};

// A route as the kernel holds it. Those of one prefix and metric are in the kernel's order.
struct route_entry {
	TAILQ_ENTRY(route_entry) link;
	uint8_t protocol;
	bool unicast;
	uint32_t next_hop_id;
	unsigned int hop_count;
	struct route_hop hops[];
};

TAILQ_HEAD(route_entries, route_entry);

struct route_group {
	struct packet_prefix prefix;
	uint32_t metric;
	struct route_entries entries; // never empty
};

struct route_table {
	void *root; // of tsearch
};

enum route_change {
	ROUTE_CHANGE_INSERT,  // in front of those with the same prefix and metric
	ROUTE_CHANGE_APPEND,  // behind them
	ROUTE_CHANGE_REPLACE, // in place of the one that is there
	ROUTE_CHANGE_DELETE,
};

// 0, -ENOMEM, or -ESTALE: what the message speaks of is not clear from the table; dump anew.
int route_table_change(
	struct route_table *table, const struct route_message *message, enum route_change change);
// The routes of this prefix and metric, or NULL.
const struct route_group *route_table_find(
	const struct route_table *table, const struct packet_prefix *prefix, uint32_t metric);
void route_table_walk(const struct route_table *table,
	void (*visitor)(const struct route_group *group, void *argument), void *argument);
void route_table_clear(struct route_table *table);
