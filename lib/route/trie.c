// SPDX-License-Identifier: BSD-3-Clause
// Copyright (c) 2026 the espgw authors

// Why workers need no lock: every word that control stores leaves each address with its old answer
// or its new one.
// - A node is filled with the leaf that it replaces before its number is stored (release).
// - A leaf that changes is one word.
// - A node is taken away only when all its entries are the same leaf, which then takes its place.
//   It stays as it is until every worker has passed a quiescent state (struct route_pool), so who
//   still walks it finds that same answer.

#include "trie.h"

#include <errno.h>
#include <stdbool.h>

#include <rte_common.h>
#include <rte_malloc.h>

#define LENGTH_SHIFT 24
#define LEVELS_MAX   16 // bytes of an address

int route_nodes_create(
	struct route_nodes *nodes, const char *name, uint32_t count, struct reclaim *reclaim)
{
	// Zeroed memory comes untouched from the kernel: what no route uses costs no page.
	nodes->entries = rte_zmalloc(name, (size_t)count * ROUTE_NODE_ENTRIES * sizeof(route_entry),
		RTE_CACHE_LINE_SIZE);
	if (nodes->entries == NULL)
		return -ENOMEM;
	return route_pool_create(&nodes->pool, count, reclaim);
}

void route_nodes_destroy(struct route_nodes *nodes)
{
	rte_free(nodes->entries);
	route_pool_destroy(&nodes->pool);
}

int route_trie_create(struct route_trie *trie, const char *name, struct route_nodes *nodes,
	unsigned int root_bytes)
{
	trie->root =
		rte_zmalloc(name, sizeof(route_entry) << (8 * root_bytes), RTE_CACHE_LINE_SIZE);
	trie->nodes = nodes->entries;
	trie->shared = nodes;
	trie->root_bytes = root_bytes;

	return trie->root == NULL ? -ENOMEM : 0;
}

void route_trie_destroy(struct route_trie *trie)
{
	rte_free(trie->root);
}

// A length fits 7 bits, for prefixes in a trie have at least one bit.
static uint32_t make_leaf(unsigned int length, uint32_t group)
{
	return length == 0 ? 0 : (uint32_t)(length - 1) << LENGTH_SHIFT | group;
}

static unsigned int leaf_length(uint32_t leaf)
{
	return leaf == 0 ? 0 : (leaf >> LENGTH_SHIFT) + 1;
}

// Control is the only writer, so what it reads back needs no ordering.
static uint32_t read_back(const route_entry *entry)
{
	return atomic_load_explicit(entry, memory_order_relaxed);
}

static void publish(route_entry *entry, uint32_t value)
{
	atomic_store_explicit(entry, value, memory_order_release);
}

static route_entry *node_entries(const struct route_trie *trie, uint32_t entry)
{
	return trie->nodes + (size_t)(entry & ROUTE_ENTRY_NUMBER) * ROUTE_NODE_ENTRIES;
}

// A place on the way down to a prefix.
struct step {
	route_entry *entries; // of the root or a node
	unsigned int begin;   // bits decided before it
	unsigned int end;     // bits decided with it
};

static struct step first_step(const struct route_trie *trie)
{
	return (struct step){trie->root, 0, 8 * trie->root_bytes};
}

static route_entry *entry_at(const struct step *step, const uint8_t *address)
{
	uint32_t index = 0;
	for (unsigned int byte = step->begin / 8; byte < step->end / 8; byte++)
		index = index << 8 | address[byte];
	return &step->entries[index];
}

static struct step next_step(const struct route_trie *trie, const struct step *step, uint32_t entry)
{
	return (struct step){node_entries(trie, entry), step->end, step->end + 8};
}

static uint32_t missing_nodes(
	const struct route_trie *trie, const uint8_t *address, unsigned int length)
{
	struct step step = first_step(trie);
	while (length > step.end) {
		uint32_t entry = read_back(entry_at(&step, address));
		if ((entry & ROUTE_ENTRY_NODE) == 0)
			return (length - step.end + 7) / 8;
		step = next_step(trie, &step, entry);
	}
	return 0;
}

// Puts a node in the place of a leaf that answers for too many addresses.
static uint32_t split(struct route_trie *trie, route_entry *entry)
{
	uint32_t leaf = read_back(entry);
	uint32_t node = ROUTE_ENTRY_NODE | route_pool_take(&trie->shared->pool);
	route_entry *entries = node_entries(trie, node);
	for (unsigned int i = 0; i < ROUTE_NODE_ENTRIES; i++)
		atomic_store_explicit(&entries[i], leaf, memory_order_relaxed);
	publish(entry, node);
	return node;
}

// Stores a leaf wherever one of a prefix with `shortest` to `longest` bits stands, in all nodes
// below too.
static void cover(const struct route_trie *trie, route_entry *entries, uint32_t count,
	unsigned int shortest, unsigned int longest, uint32_t leaf)
{
	for (uint32_t i = 0; i < count; i++) {
		uint32_t entry = read_back(&entries[i]);
		if ((entry & ROUTE_ENTRY_NODE) != 0)
			cover(trie, node_entries(trie, entry), ROUTE_NODE_ENTRIES, shortest,
				longest, leaf);
		else if (leaf_length(entry) >= shortest && leaf_length(entry) <= longest)
			publish(&entries[i], leaf);
	}
}

int route_trie_insert(
	struct route_trie *trie, const uint8_t *address, unsigned int length, uint32_t group)
{
	if (missing_nodes(trie, address, length) > trie->shared->pool.free)
		return -ENOSPC;
	struct step step = first_step(trie);
	while (length > step.end) {
		route_entry *entry = entry_at(&step, address);
		uint32_t node = read_back(entry);
		if ((node & ROUTE_ENTRY_NODE) == 0)
			node = split(trie, entry);
		step = next_step(trie, &step, node);
	}
	cover(trie, entry_at(&step, address), UINT32_C(1) << (step.end - length), 0, length,
		make_leaf(length, group));
	return 0;
}

// True when one leaf answers for the whole node: no prefix ends in it any more.
static bool is_uniform(const route_entry *entries)
{
	uint32_t leaf = read_back(&entries[0]);
	for (unsigned int i = 1; i < ROUTE_NODE_ENTRIES; i++)
		if (read_back(&entries[i]) != leaf)
			return false;
	return (leaf & ROUTE_ENTRY_NODE) == 0;
}

void route_trie_remove(struct route_trie *trie, const uint8_t *address, unsigned int length,
	unsigned int covering_length, uint32_t covering_group)
{
	route_entry *parents[LEVELS_MAX];
	unsigned int depth = 0;
	struct step step = first_step(trie);
	while (length > step.end) {
		parents[depth] = entry_at(&step, address);
		step = next_step(trie, &step, read_back(parents[depth]));
		depth++;
	}
	cover(trie, entry_at(&step, address), UINT32_C(1) << (step.end - length), length, length,
		make_leaf(covering_length, covering_group));
	while (depth > 0) {
		route_entry *parent = parents[--depth];
		uint32_t node = read_back(parent);
		const route_entry *entries = node_entries(trie, node);
		if (!is_uniform(entries))
			break;
		publish(parent, read_back(&entries[0]));
		route_pool_give(&trie->shared->pool, node & ROUTE_ENTRY_NUMBER);
	}
}
