// SPDX-License-Identifier: BSD-3-Clause
// Copyright (c) 2026 the espgw authors

// The workers' side. An IPv4 lookup reads one entry, or two where a prefix of more than 24 bits is
// near; an IPv6 lookup reads one for the first two bytes and one for each byte more that it needs.

#include <rte_branch_prediction.h>
#include <rte_common.h>

#include "table.h"

// The target of an entry; `seen` is the default route.
static inline struct route_target resolve(
	const route_choice *choices, uint64_t seen, uint32_t entry)
{
	uint32_t group = entry & ROUTE_ENTRY_NUMBER;
	group = group != ROUTE_GROUP_NONE ? group : (uint32_t)seen;
	return route_choice_read(&choices[group]);
}

// False when the default route changed since `seen` was read, so that an empty entry and the
// default may never have been in force together.
static inline bool default_is(const struct route_table *table, unsigned int family, uint64_t seen)
{
	return atomic_load_explicit(&table->defaults[family], memory_order_acquire) == seen;
}

void route_lookup4(const struct route_table *table, const uint32_t *addresses,
	struct route_target *targets, unsigned int count)
{
	const struct route_trie *trie = &table->tries[ROUTE_IPV4];
	const route_entry *root = trie->root;
	const route_choice *choices = table->groups.choices;
	uint64_t seen;
	do {
		seen = atomic_load_explicit(&table->defaults[ROUTE_IPV4], memory_order_acquire);
		for (unsigned int i = 0; i < count; i++) {
			uint32_t entry = route_entry_read(&root[addresses[i] >> 8]);
			if (unlikely((entry & ROUTE_ENTRY_NODE) != 0))
				entry = route_entry_read(
					&route_trie_node(trie, entry)[addresses[i] & 0xff]);
			targets[i] = resolve(choices, seen, entry);
		}
	} while (unlikely(!default_is(table, ROUTE_IPV4, seen)));
}

#define LANES 8

// What lies below an entry, by the next byte of its address. Without a branch: who is at a leaf
// reads node 0 and keeps his leaf.
static inline uint32_t descend(const struct route_trie *trie, uint32_t entry, uint8_t byte)
{
	uint32_t is_node = -(entry >> 31);
	uint32_t next = route_entry_read(&route_trie_node(trie, entry & is_node)[byte]);
	return (next & is_node) | (entry & ~is_node);
}

// Eight addresses go down a byte at a time together, so that their cache misses overlap and the
// differing lengths of their ways cost no mispredicted branch. `last` stands in for the addresses
// that a shorter burst lacks.
static inline void walk6(const struct route_trie *trie, const uint8_t (*addresses)[16],
	unsigned int last, uint32_t *entries)
{
	const uint8_t *address[LANES];
	uint32_t entry[LANES], any = 0;
	for (unsigned int i = 0; i < LANES; i++) {
		address[i] = addresses[RTE_MIN(i, last)];
		entry[i] = route_entry_read(&trie->root[address[i][0] << 8 | address[i][1]]);
		any |= entry[i];
	}
	for (unsigned int byte = ROUTE_ROOT6_BYTES; (any & ROUTE_ENTRY_NODE) != 0; byte++) {
		any = 0;
		for (unsigned int i = 0; i < LANES; i++) {
			entry[i] = descend(trie, entry[i], address[i][byte]);
			any |= entry[i];
		}
	}
	for (unsigned int i = 0; i < LANES; i++)
		entries[RTE_MIN(i, last)] = entry[i];
}

void route_lookup6(const struct route_table *table, const uint8_t (*addresses)[16],
	struct route_target *targets, unsigned int count)
{
	const struct route_trie *trie = &table->tries[ROUTE_IPV6];
	uint32_t entries[ROUTE_BURST_MAX];
	uint64_t seen;
	do {
		seen = atomic_load_explicit(&table->defaults[ROUTE_IPV6], memory_order_acquire);
		for (unsigned int i = 0; i < count; i += LANES)
			walk6(trie, addresses + i, count - i - 1, entries + i);
		for (unsigned int i = 0; i < count; i++)
			targets[i] = resolve(table->groups.choices, seen, entries[i]);
	} while (unlikely(!default_is(table, ROUTE_IPV6, seen)));
}

static const struct route_shares *shares_of(
	const struct route_table *table, struct route_target shared)
{
	return atomic_load_explicit(
		&table->groups.groups[shared.index].shares, memory_order_acquire);
}

struct route_target route_shared_first(const struct route_table *table, struct route_target shared)
{
	return shares_of(table, shared)->targets[0];
}

struct route_target route_choose(
	const struct route_table *table, struct route_target shared, uint32_t hash)
{
	return route_shares_get(shares_of(table, shared), hash);
}
