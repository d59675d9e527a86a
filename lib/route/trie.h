// SPDX-License-Identifier: BSD-3-Clause
// Copyright (c) 2026 the espgw authors

// A multibit trie from address to group: a root array over the first bits, then nodes of 256
// entries, one per byte. Control changes it in place while workers walk it.
//
// An entry is one 32-bit word, read and written whole. It is a leaf (a group, and the length of the
// prefix that put it there), empty (0), or the number of a node that decides by the next byte.
// Leaves are pushed down: where a node stands, it holds the answer for all of its addresses.

#pragma once

#include <stdatomic.h>
#include <stdint.h>

#include "pool.h"

#define ROUTE_ENTRY_NODE   UINT32_C(0x80000000) // the low bits are a node
#define ROUTE_ENTRY_NUMBER UINT32_C(0x00ffffff) // group, or node
#define ROUTE_NODE_ENTRIES 256

typedef _Atomic uint32_t route_entry;

// Nodes are shared by the tries of both families.
struct route_nodes {
	route_entry *entries; // ROUTE_NODE_ENTRIES for each node
	struct route_pool pool;
};

struct route_trie {
	route_entry *root;
	route_entry *nodes; // as in route_nodes, for the workers
	struct route_nodes *shared;
	unsigned int root_bytes;
};

// 0 or -ENOMEM. `name` tells the memory's use to DPDK. Control thread; needs EAL.
int route_nodes_create(
	struct route_nodes *nodes, const char *name, uint32_t count, struct reclaim *reclaim);
void route_nodes_destroy(struct route_nodes *nodes);
// The root decides by the first `root_bytes` of an address.
int route_trie_create(struct route_trie *trie, const char *name, struct route_nodes *nodes,
	unsigned int root_bytes);
void route_trie_destroy(struct route_trie *trie);

// Control. Maps a prefix of 1 or more bits (no host bits) to a group, 1 to ROUTE_ENTRY_NUMBER; or
// to another one, which never fails. 0, or -ENOSPC with nothing changed when nodes are short.
int route_trie_insert(
	struct route_trie *trie, const uint8_t *address, unsigned int length, uint32_t group);
// Control. Forgets a prefix that is there. `covering` is the longest shorter prefix around it, with
// its group; length 0: there is none.
void route_trie_remove(struct route_trie *trie, const uint8_t *address, unsigned int length,
	unsigned int covering_length, uint32_t covering_group);

// Worker. Acquire: what a group or node holds was written before an entry named it.
static inline uint32_t route_entry_read(const route_entry *entry)
{
	return atomic_load_explicit(entry, memory_order_acquire);
}
static inline const route_entry *route_trie_node(const struct route_trie *trie, uint32_t entry)
{
	return trie->nodes + (size_t)(entry & ROUTE_ENTRY_NUMBER) * ROUTE_NODE_ENTRIES;
}
