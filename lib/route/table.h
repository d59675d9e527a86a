// SPDX-License-Identifier: BSD-3-Clause
// Copyright (c) 2026 the espgw authors

// What the files of lib/route share.

#pragma once

#include "group.h"
#include "route/route.h"
#include "trie.h"

// Families, as indexes.
enum { ROUTE_IPV4, ROUTE_IPV6, ROUTE_FAMILIES };

// IPv4 tables hold few prefixes of more than 24 bits: one read for most, for 64 MB of which only
// the pages in use are touched. IPv6 prefixes are longer than any root could be.
#define ROUTE_ROOT4_BYTES 3
#define ROUTE_ROOT6_BYTES 2

// The route of last resort is no part of the trie, or it would fill the whole root. It is a version
// (high half) and a group (low half): the version shows a worker that the route changed while it
// looked.
typedef _Atomic uint64_t route_default;

struct route_table {
	// Read by workers.
	struct route_trie tries[ROUTE_FAMILIES];
	struct route_groups groups;
	route_default defaults[ROUTE_FAMILIES];
	// Control's.
	struct route_nodes nodes;
	struct reclaim *reclaim;
	void *prefixes; // tsearch(3) tree of struct route_prefix
	uint32_t prefix_count, max_prefixes;
	uint32_t lengths[ROUTE_FAMILIES][129]; // how many prefixes have this length
	uint64_t generation;
};

// Worker or control. The first of those that a target with ROUTE_SHARED stands for.
struct route_target route_shared_first(const struct route_table *table, struct route_target shared);
