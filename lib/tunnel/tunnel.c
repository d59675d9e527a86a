// SPDX-License-Identifier: BSD-3-Clause
// Copyright (c) 2026 the espgw authors

#include "tunnel/tunnel.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include <rte_malloc.h>

#include "tunnel/table.h"

static int allocate(struct tunnel_table *table)
{
	uint32_t max_sas = table->config->gateway.max_sas;
	uint32_t buckets = rte_align32pow2(RTE_MAX(max_sas, 1u));
	table->bucket_mask = buckets - 1;
	table->buckets = calloc(buckets, sizeof(*table->buckets));
	table->reserved = calloc(RTE_MAX(max_sas, 1u), sizeof(*table->reserved));
	table->tunnels = rte_zmalloc(
		"tunnels", RTE_MAX(table->room, 1u) * sizeof(struct tunnel), RTE_CACHE_LINE_SIZE);
	if (table->buckets == NULL || table->reserved == NULL || table->tunnels == NULL)
		return -ENOMEM;
	return spi_table_create(&table->spis, max_sas);
}

struct tunnel_table *tunnel_table_create(const struct config *config, struct reclaim *reclaim)
{
	struct tunnel_table *table = calloc(1, sizeof(*table));
	if (table == NULL)
		return NULL;
	table->config = config;
	table->reclaim = reclaim;
	table->room = config_tunnel_room(config);
	table->next_id = 1;
	TAILQ_INIT(&table->sas);
	if (allocate(table) != 0) {
		tunnel_table_destroy(table);
		return NULL;
	}
	for (unsigned int i = 0; i < table->room; i++) {
		table->tunnels[i].index = i;
		TAILQ_INIT(&table->tunnels[i].sas);
	}
	for (unsigned int i = 0; i < config->tunnel_count; i++)
		tunnel_configure(table, i, &config->tunnels[i]);
	return table;
}

void tunnel_table_destroy(struct tunnel_table *table)
{
	if (table == NULL)
		return;
	// Deleted SAs still give their slots back to the table.
	reclaim_synchronize(table->reclaim);
	struct sa *sa;
	while ((sa = TAILQ_FIRST(&table->sas)) != NULL) {
		TAILQ_REMOVE(&table->sas, sa, in_table);
		sa_destroy(sa);
	}
	spi_table_destroy(&table->spis);
	rte_free(table->tunnels);
	free(table->reserved);
	free(table->buckets);
	free(table);
}

// Workers need it, and the configuration goes when there is another one.
static void store_own_address(struct tunnel *tunnel, const struct packet_address *address)
{
	uint64_t words[RTE_DIM(tunnel->own)];
	memcpy(words, address->bytes, sizeof(words));
	for (unsigned int i = 0; i < RTE_DIM(words); i++)
		__atomic_store_n(&tunnel->own[i], words[i], __ATOMIC_RELAXED);
	__atomic_store_n(&tunnel->own_family, address->family, __ATOMIC_RELAXED);
}

struct packet_address tunnel_own_address(const struct tunnel *tunnel)
{
	struct packet_address address = {
		.family = __atomic_load_n(&tunnel->own_family, __ATOMIC_RELAXED)};
	uint64_t words[RTE_DIM(tunnel->own)];
	for (unsigned int i = 0; i < RTE_DIM(words); i++)
		words[i] = __atomic_load_n(&tunnel->own[i], __ATOMIC_RELAXED);
	memcpy(address.bytes, words, sizeof(words));
	return address;
}

void tunnel_configure(
	struct tunnel_table *table, unsigned int index, const struct config_tunnel *config)
{
	struct tunnel *tunnel = &table->tunnels[index];
	tunnel->config = config;
	path_configure(table, tunnel);
	if (config == NULL)
		return;
	store_own_address(tunnel, &config->interface_address.address);
	__atomic_store_n(&tunnel->mss, config->mss, __ATOMIC_RELAXED);
	__atomic_store_n(&tunnel->clear_df, config->clear_df, __ATOMIC_RELAXED);
	__atomic_store_n(&tunnel->tfc, config->tfc, __ATOMIC_RELAXED);
	table->tunnel_count = RTE_MAX(table->tunnel_count, index + 1);
}

unsigned int tunnel_room(const struct tunnel_table *table)
{
	return table->room;
}

unsigned int tunnel_count(const struct tunnel_table *table)
{
	return table->tunnel_count;
}

struct tunnel *tunnel_get(const struct tunnel_table *table, unsigned int index)
{
	return &table->tunnels[index];
}

struct tunnel *tunnel_find(const struct tunnel_table *table, const char *name)
{
	for (unsigned int i = 0; i < table->tunnel_count; i++)
		if (table->tunnels[i].config != NULL &&
			strcmp(table->tunnels[i].config->name, name) == 0)
			return &table->tunnels[i];
	return NULL;
}

uint64_t tunnel_sequence_end(const struct tunnel *tunnel, bool esn)
{
	uint32_t packets = tunnel->config->packets_per_key;
	// The most that can be configured is what 32 bits can count, and no wish.
	return esn && packets == UINT32_MAX ? ESP_SEQUENCE_END_ESN : packets;
}

unsigned int tunnel_lookup_spis(const struct tunnel_table *table, const uint32_t *spis,
	struct esp_sa_in **sas, uint32_t *tunnels, unsigned int count)
{
	return spi_table_lookup(&table->spis, spis, sas, tunnels, count);
}

// Index into reserved, or reserved_count.
static unsigned int reservation_of(const struct tunnel_table *table, uint32_t spi)
{
	unsigned int i = 0;
	while (i < table->reserved_count && table->reserved[i] != spi)
		i++;
	return i;
}

bool tunnel_spi_is_reserved(const struct tunnel_table *table, uint32_t spi)
{
	return reservation_of(table, spi) < table->reserved_count;
}

void tunnel_spi_release(struct tunnel_table *table, uint32_t spi)
{
	unsigned int i = reservation_of(table, spi);
	if (i < table->reserved_count)
		table->reserved[i] = table->reserved[--table->reserved_count];
}

uint32_t tunnel_spi_reserve(struct tunnel_table *table)
{
	if (table->reserved_count == table->config->gateway.max_sas)
		return 0;
	for (;;) {
		uint32_t spi;
		ssize_t got = getrandom(&spi, sizeof(spi), 0);
		if (got < 0 && errno != EINTR)
			return 0;
		if (got != sizeof(spi) || spi < ESP_SPI_MIN ||
			sa_find(table, SA_INBOUND, spi, NULL) != NULL ||
			tunnel_spi_is_reserved(table, spi))
			continue;
		table->reserved[table->reserved_count++] = spi;
		return spi;
	}
}
