// SPDX-License-Identifier: BSD-3-Clause
// Copyright (c) 2026 the espgw authors

// Longest-prefix-match tables for IPv4 and IPv6: from destination to where the packet goes next.
//
// Control adds and deletes paths, and gives targets penalties for their health; the paths of a
// prefix form a group, whose best ones (lowest priority number) are used, and the tables map a
// prefix to its group. Workers look up bursts at the same time: they see the table before a change
// or after it, never between.

#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "packet/packet.h"
#include "reclaim/reclaim.h"

// Where a path leads. `index` depends on the kind.
enum route_kind {
	ROUTE_NONE,         // no route
	ROUTE_TUNNEL,       // index: tunnel
	ROUTE_ADJACENCY,    // index: adjacency of the data plane (a port and its next hop's MAC)
	ROUTE_CONNECTED,    // index: port; the destination itself is the next hop, not known yet
	ROUTE_LOCAL_PORT,   // index: port; the destination is this port's own address
	ROUTE_LOCAL_TUNNEL, // index: tunnel; the destination is its interface address
};

// Beside the kind, ROUTE_TUNNEL or ROUTE_ADJACENCY: there are several such, each for a part of the
// flows, and route_choose tells which. Only burst lookups give it.
#define ROUTE_SHARED 0x100

struct route_target {
	uint32_t kind; // enum route_kind, perhaps with ROUTE_SHARED
	uint32_t index;
};

// Who added a path. Where priorities are equal, the lower origin wins the prefix.
enum route_origin {
	ROUTE_ORIGIN_GATEWAY,   // own addresses, connected prefixes, tunnel interface blocks
	ROUTE_ORIGIN_NEIGHBOUR, // host routes of resolved neighbours
	ROUTE_ORIGIN_CONFIG,    // the configuration file
	ROUTE_ORIGIN_AGENT,     // route.add on the control socket
	ROUTE_ORIGIN_KERNEL,    // mirrored from the kernel
	ROUTE_ORIGINS
};

struct route_path {
	struct route_target target;
	enum route_origin origin;
	uint32_t priority; // lower is better
	uint32_t weight;   // 1 to 256: share among equally good paths
};

// Paths of one prefix with the same priority (penalty included) and origin share its traffic, as
// their weights say, when all lead into tunnels or all to adjacencies; where they differ, the lower
// kind is used alone, so tunnels before ports. No more than this many share: those of the lowest
// indexes, and the others stand by.
#define ROUTE_SHARES_MAX 64

// A priority with what is added to it for the health of its target (route_set_penalty). The worst
// there is ends it.
static inline uint32_t route_effective_priority(uint32_t priority, uint32_t penalty)
{
	return penalty > UINT32_MAX - priority ? UINT32_MAX : priority + penalty;
}

struct route_table;

// Room for `max_routes` prefixes of both families together. Control thread; needs EAL. NULL when
// memory is short.
struct route_table *route_table_create(
	const char *name, uint32_t max_routes, struct reclaim *reclaim);
// No worker may look up any more.
void route_table_destroy(struct route_table *table);

// Control thread. A path is identified by prefix, target and origin: adding it again changes its
// priority and weight. 0, or -ENOSPC (max_routes reached, more than 256 paths of one prefix, or no
// room for so many long prefixes), -ENOMEM, -EINVAL. Nothing has changed on an error.
int route_add(struct route_table *table, const struct packet_prefix *prefix,
	const struct route_path *path);
// 0 or -ENOENT, or -ENOMEM with nothing changed.
int route_delete(struct route_table *table, const struct packet_prefix *prefix,
	const struct route_target *target, enum route_origin origin);
// Deletes every path of an origin (before a new dump of the kernel's, say). Returns how many.
unsigned int route_delete_origin(struct route_table *table, enum route_origin origin);
// Deletes every path to this target. Returns how many.
unsigned int route_delete_target(struct route_table *table, const struct route_target *target);

// Control thread. Adds `penalty` to the priority of every path to this target, those to come too,
// in the place of an earlier penalty; a sum over UINT32_MAX counts as that. No path is removed by
// it: of paths that all have penalties the best are used. It takes effect at once, for all prefixes
// together: microseconds, where two tunnels have half a million prefixes. 0, or -ENOMEM: paths that
// should share then don't, and one of them has all.
#define ROUTE_PENALTY_DEGRADED 500000
#define ROUTE_PENALTY_DOWN     1000000
int route_set_penalty(
	struct route_table *table, const struct route_target *target, uint32_t penalty);
uint32_t route_penalty(const struct route_table *table, const struct route_target *target);

// Control thread. The priority of the path that prefix, target and origin name. False: there is
// none.
bool route_find(const struct route_table *table, const struct packet_prefix *prefix,
	const struct route_target *target, enum route_origin origin, uint32_t *priority);
// Control thread. Whether this prefix, or a shorter one around it, has a path of this kind.
bool route_covers(
	const struct route_table *table, const struct packet_prefix *prefix, enum route_kind kind);
// Prefixes of both families.
unsigned int route_count(const struct route_table *table);
// Changes whenever a lookup may give another result; control derives from it what to resolve anew.
uint64_t route_generation(const struct route_table *table);

// Calls `each` for every path, in the order of prefixes (family, address, length), then of targets.
// `best`: the path is used by lookups now. `path` is as it was added, without its target's penalty.
// A false result ends it. False: it was ended, or memory is short and nothing was called. Control
// thread.
typedef bool (*route_each)(const struct packet_prefix *prefix, const struct route_path *path,
	bool best, void *argument);
bool route_walk(const struct route_table *table, route_each each, void *argument);
// The same from the first prefix after `after` on (family 0: from the first one), without looking
// at those before it.
void route_walk_after(const struct route_table *table, const struct packet_prefix *after,
	route_each each, void *argument);

// One lookup by address; control thread or worker. kind ROUTE_NONE when there is no route. Of paths
// that share, the first.
// `prefix`, when not NULL, is set to the prefix that matched (control thread only).
struct route_target route_lookup(const struct route_table *table,
	const struct packet_address *address, struct packet_prefix *prefix);

// Bursts of any `count`, of IPv6 up to ROUTE_BURST_MAX. Worker threads, inside a quiescent period,
// in which what has ROUTE_SHARED must be chosen from too.
#define ROUTE_BURST_MAX 64
// addresses[i]: destination in host byte order.
void route_lookup4(const struct route_table *table, const uint32_t *addresses,
	struct route_target *targets, unsigned int count);
// addresses[i]: 16 bytes in network order.
void route_lookup6(const struct route_table *table, const uint8_t (*addresses)[16],
	struct route_target *targets, unsigned int count);
// Which of those that a target with ROUTE_SHARED stands for a flow takes. `hash` is the flow's
// (packet_flow_hash); the result is the same for the same hash as long as the same paths share.
struct route_target route_choose(
	const struct route_table *table, struct route_target shared, uint32_t hash);
