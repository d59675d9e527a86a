// SPDX-License-Identifier: BSD-3-Clause
// Copyright (c) 2026 the espgw authors

// Why workers need no lock.
//
// Control writes `tunnel` and `sa` of a slot first and its `spi` last, with release; a worker reads
// `spi` with acquire. So who sees an SPI sees the SA and the tunnel that were written before it.
//
// What may go wrong is a worker that has seen SPI X in a slot and reads `sa` only after control has
// given the slot to SPI Y. It can't: a removed slot is HELD, its other fields untouched, until
// every worker has passed a quiescent state. The worker's loads come before its quiescent state (a
// release), which control has seen (an acquire) before it writes the slot again. In the other
// direction, control's HELD comes before the token of the grace period (a release), which the
// worker's quiescent state reads (an acquire): after it no worker finds X here any more.
//
// A probe ends at an EMPTY slot. A slot becomes EMPTY again only when the next one is, so that no
// SPI lies behind it. A worker that still sees an older EMPTY has looked before the SPI behind it
// was added.

#include "tunnel/spi_table.h"

#include <errno.h>

#include <rte_byteorder.h>
#include <rte_common.h>
#include <rte_malloc.h>

#include "esp/esp.h"

// Slots per SA: a quarter full at most, a probe seldom needs a second slot.
#define SLOTS_PER_SA 4
#define SLOTS_MIN    64

_Static_assert(sizeof(struct spi_slot) == 16, "four slots a cache line");
_Static_assert(SPI_SLOT_FREE < ESP_SPI_MIN, "no SPI looks like a slot's state");

int spi_table_create(struct spi_table *table, uint32_t max_sas)
{
	uint64_t slots = rte_align64pow2(RTE_MAX((uint64_t)max_sas * SLOTS_PER_SA, SLOTS_MIN));
	if (slots > UINT32_MAX)
		return -ENOMEM;
	*table = (struct spi_table){
		.slots = rte_zmalloc(
			"spi_table", slots * sizeof(struct spi_slot), RTE_CACHE_LINE_SIZE),
		.mask = (uint32_t)slots - 1,
		.shift = 32 - rte_log2_u32((uint32_t)slots),
	};
	return table->slots == NULL ? -ENOMEM : 0;
}

void spi_table_destroy(struct spi_table *table)
{
	rte_free(table->slots);
}

// Multiplicative mix by 2^32 over the golden ratio (Knuth, TAOCP 6.4): SPIs that an agent counts up
// or chooses by hand spread as well as random ones.
static inline uint32_t home_slot(const struct spi_table *table, uint32_t spi)
{
	return (spi * UINT32_C(0x9e3779b1)) >> table->shift;
}

// Control is the only writer, so what it reads back needs no ordering.
static uint32_t slot_state(const struct spi_table *table, uint32_t slot)
{
	return atomic_load_explicit(&table->slots[slot & table->mask].spi, memory_order_relaxed);
}

static void set_slot_state(struct spi_table *table, uint32_t slot, uint32_t state)
{
	atomic_store_explicit(&table->slots[slot & table->mask].spi, state, memory_order_release);
}

bool spi_table_insert(struct spi_table *table, uint32_t spi, struct esp_sa_in *sa, uint32_t tunnel,
	uint32_t *slot)
{
	uint32_t home = home_slot(table, spi);
	for (uint32_t i = 0; i <= table->mask; i++) {
		uint32_t at = (home + i) & table->mask;
		uint32_t state = slot_state(table, at);
		if (state != SPI_SLOT_EMPTY && state != SPI_SLOT_FREE)
			continue;
		if (state == SPI_SLOT_EMPTY)
			table->used++;
		struct spi_slot *entry = &table->slots[at];
		atomic_store_explicit(&entry->tunnel, tunnel, memory_order_relaxed);
		atomic_store_explicit(&entry->sa, sa, memory_order_relaxed);
		set_slot_state(table, at, spi);
		*slot = at;
		return true;
	}
	return false;
}

void spi_table_remove(struct spi_table *table, uint32_t slot)
{
	set_slot_state(table, slot, SPI_SLOT_HELD);
}

void spi_table_release(struct spi_table *table, uint32_t slot)
{
	set_slot_state(table, slot, SPI_SLOT_FREE);
	if (slot_state(table, slot + 1) != SPI_SLOT_EMPTY)
		return;
	for (; slot_state(table, slot) == SPI_SLOT_FREE; slot--) {
		set_slot_state(table, slot, SPI_SLOT_EMPTY);
		table->used--;
	}
}

bool spi_table_is_crowded(const struct spi_table *table)
{
	return table->used > table->mask / 2;
}

// The slot with this SPI, or NULL. Nearly always it is the first one.
static inline const struct spi_slot *find(const struct spi_table *table, uint32_t spi)
{
	uint32_t home = home_slot(table, spi);
	const struct spi_slot *slot = &table->slots[home];
	uint32_t seen = atomic_load_explicit(&slot->spi, memory_order_acquire);
	// The bound only guards against a table without an empty slot.
	for (uint32_t i = 1; unlikely(seen != spi) && i <= table->mask; i++) {
		if (seen == SPI_SLOT_EMPTY)
			return NULL;
		slot = &table->slots[(home + i) & table->mask];
		seen = atomic_load_explicit(&slot->spi, memory_order_acquire);
	}
	return seen == spi ? slot : NULL;
}

unsigned int spi_table_lookup(const struct spi_table *table, const uint32_t *spis,
	struct esp_sa_in **sas, uint32_t *tunnels, unsigned int count)
{
	unsigned int unknown = 0;
	for (unsigned int i = 0; i < count; i++) {
		uint32_t spi = rte_be_to_cpu_32(spis[i]);
		// What is no SPI could match a slot's state.
		const struct spi_slot *slot = likely(spi >= ESP_SPI_MIN) ? find(table, spi) : NULL;
		if (unlikely(slot == NULL)) {
			sas[i] = NULL;
			tunnels[i] = 0;
			unknown++;
			continue;
		}
		sas[i] = atomic_load_explicit(&slot->sa, memory_order_relaxed);
		tunnels[i] = atomic_load_explicit(&slot->tunnel, memory_order_relaxed);
	}
	return unknown;
}
