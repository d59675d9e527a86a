// SPDX-License-Identifier: BSD-3-Clause
// Copyright (c) 2026 the espgw authors

// From the SPI of a packet to its inbound SA and tunnel: an open-addressing table that control
// changes while workers read it without locks. A known SPI costs one 16-byte slot.

#pragma once

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

struct esp_sa_in;

// Values of `spi` in a slot that holds none. All lie under ESP_SPI_MIN, so no SPI can be mistaken
// for one.
enum spi_slot_state {
	SPI_SLOT_EMPTY, // ends a probe
	SPI_SLOT_HELD,  // deleted, but a worker may still be reading it
	SPI_SLOT_FREE,  // deleted, may be used again
};

struct spi_slot {
	_Atomic uint32_t spi; // host order, or spi_slot_state
	_Atomic uint32_t tunnel;
	_Atomic(struct esp_sa_in *) sa;
};

struct spi_table {
	struct spi_slot *slots;
	uint32_t mask;
	uint32_t shift; // of the 32-bit mix
	uint32_t used;  // slots that are not empty
};

// Room for `max_sas` SPIs. 0 or -ENOMEM. Control thread; needs EAL.
int spi_table_create(struct spi_table *table, uint32_t max_sas);
void spi_table_destroy(struct spi_table *table);

// Control. The caller knows that the SPI is not in the table. False when no slot is free.
bool spi_table_insert(struct spi_table *table, uint32_t spi, struct esp_sa_in *sa, uint32_t tunnel,
	uint32_t *slot);
// Control. Workers that look up from now on don't find the SPI.
void spi_table_remove(struct spi_table *table, uint32_t slot);
// Control. Gives a removed slot back. A grace period must have passed since spi_table_remove.
void spi_table_release(struct spi_table *table, uint32_t slot);
// Control. So many slots are used that probes get long: released ones are needed.
bool spi_table_is_crowded(const struct spi_table *table);

// Worker. SPIs in network order. sas[i] is NULL when the SPI is unknown; returns how many are.
unsigned int spi_table_lookup(const struct spi_table *table, const uint32_t *spis,
	struct esp_sa_in **sas, uint32_t *tunnels, unsigned int count);
