// SPDX-License-Identifier: BSD-3-Clause
// Copyright (c) 2026 the espgw authors

// The SA database (RFC 4301 section 4.4.2): control's records, and what workers are shown of them.

#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <rte_malloc.h>

#include "tunnel/table.h"

static int refuse(struct tunnel_error *error, int code, const char *format, ...)
	__attribute__((format(printf, 3, 4)));

static int refuse(struct tunnel_error *error, int code, const char *format, ...)
{
	va_list arguments;
	va_start(arguments, format);
	vsnprintf(error->text, sizeof(error->text), format, arguments);
	va_end(arguments);
	return -code;
}

static struct sa_bucket *bucket_of(const struct tunnel_table *table, uint32_t spi)
{
	// Control only, and SPIs are random as a rule.
	return &table->buckets[(spi ^ spi >> 16) & table->bucket_mask];
}

struct sa *sa_find(const struct tunnel_table *table, enum sa_direction direction, uint32_t spi,
	const struct packet_address *destination)
{
	struct sa *sa;
	LIST_FOREACH (sa, bucket_of(table, spi), in_bucket) {
		if (sa->spi != spi || sa->direction != direction)
			continue;
		if (direction == SA_INBOUND || destination == NULL ||
			packet_address_equal(&sa->destination, destination))
			return sa;
	}
	return NULL;
}

unsigned int sa_count(const struct tunnel_table *table)
{
	return table->sa_count;
}

struct sa *sa_next(const struct tunnel_table *table, const struct sa *previous)
{
	return previous == NULL ? TAILQ_FIRST(&table->sas) : TAILQ_NEXT(previous, in_table);
}

struct esp_counters sa_counters(const struct sa *sa)
{
	return sa->direction == SA_INBOUND ? esp_sa_in_counters(sa->in)
					   : esp_sa_out_counters(sa->out);
}

static int check_outer(const struct packet_address *source,
	const struct packet_address *destination, uint16_t udp_source, uint16_t udp_destination,
	struct tunnel_error *error)
{
	if (source->family != 4 && source->family != 6)
		return refuse(error, EINVAL, "the SA has no outer source address");
	if (source->family != destination->family)
		return refuse(error, EINVAL,
			"outer source and destination must be of one family, IPv4 or IPv6");
	if ((udp_source == 0) != (udp_destination == 0))
		return refuse(error, EINVAL,
			"UDP encapsulation needs a source and a destination port, both not 0");
	return 0;
}

static int check_window(const struct sa_parameters *parameters, struct tunnel_error *error)
{
	uint32_t window = parameters->window;
	if (parameters->direction != SA_INBOUND)
		return 0;
	if (window != 0 &&
		(window < ESP_WINDOW_MIN || window > ESP_WINDOW_MAX || !rte_is_power_of_2(window)))
		return refuse(error, EINVAL,
			"replay window %u: must be a power of two from %u to %u, or 0 for none",
			window, ESP_WINDOW_MIN, ESP_WINDOW_MAX);
	if (window == 0 && parameters->esn)
		return refuse(error, EINVAL,
			"ESN needs a replay window: the high half is inferred from it");
	return 0;
}

static int check_parameters(const struct tunnel_table *table,
	const struct sa_parameters *parameters, struct tunnel_error *error)
{
	uint32_t max_sas = table->config->gateway.max_sas;
	if (parameters->spi < ESP_SPI_MIN)
		return refuse(error, EINVAL, "SPI 0x%08x: 0 to 255 are reserved; use 256 or more",
			parameters->spi);
	if (parameters->selector_count > SA_SELECTORS)
		return refuse(error, EINVAL, "%u selectors: an SA can have %u at most",
			parameters->selector_count, SA_SELECTORS);
	int result = check_outer(&parameters->source, &parameters->destination,
		parameters->udp_source, parameters->udp_destination, error);
	if (result == 0)
		result = check_window(parameters, error);
	if (result != 0)
		return result;
	const struct sa *other =
		sa_find(table, parameters->direction, parameters->spi, &parameters->destination);
	if (other != NULL)
		return refuse(error, EEXIST, "tunnel %s has an %s SA with SPI 0x%08x already",
			other->tunnel->config->name,
			other->direction == SA_INBOUND ? "inbound" : "outbound", other->spi);
	if (table->sa_count >= max_sas)
		return refuse(error, ENOSPC,
			"the gateway has %u SAs, as many as gateway.max_sas allows", max_sas);
	return 0;
}

static uint64_t clock_nanoseconds(clockid_t clock)
{
	struct timespec now;
	clock_gettime(clock, &now);
	return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

static struct sa *create_record(struct tunnel *tunnel, const struct sa_parameters *parameters)
{
	struct sa *sa = calloc(1, sizeof(*sa));
	if (sa == NULL)
		return NULL;
	sa->tunnel = tunnel;
	sa->direction = parameters->direction;
	sa->spi = parameters->spi;
	sa->source = parameters->source;
	sa->destination = parameters->destination;
	sa->esn = parameters->esn;
	sa->window = parameters->direction == SA_INBOUND ? parameters->window : 0;
	sa->udp_source = parameters->udp_source;
	sa->udp_destination = parameters->udp_destination;
	sa->soft = parameters->soft;
	sa->hard = parameters->hard;
	sa->added = clock_nanoseconds(CLOCK_MONOTONIC);
	sa->added_clock = (int64_t)(clock_nanoseconds(CLOCK_REALTIME) / 1000000000);
	if (parameters->selector_count == 0)
		return sa;
	sa->selectors = calloc(parameters->selector_count, sizeof(*sa->selectors));
	if (sa->selectors == NULL) {
		free(sa);
		return NULL;
	}
	memcpy(sa->selectors, parameters->selectors,
		parameters->selector_count * sizeof(*sa->selectors));
	sa->selector_count = parameters->selector_count;
	return sa;
}

static struct esp_sa_in *create_in(
	const struct tunnel_table *table, const struct sa_parameters *parameters)
{
	struct esp_sa_in_parameters in = {
		.spi = parameters->spi,
		.esn = parameters->esn,
		.window = parameters->window,
		.top = parameters->top,
		.source = parameters->source,
		.udp_source = parameters->udp_source,
		.selectors = parameters->selectors,
		.selector_count = parameters->selector_count,
		.workers = table->config->worker_count,
	};
	memcpy(in.key, parameters->key, sizeof(in.key));
	memcpy(in.salt, parameters->salt, sizeof(in.salt));
	struct esp_sa_in *sa = esp_sa_in_create(&in);
	explicit_bzero(&in, sizeof(in));
	return sa;
}

static enum esp_df esp_df_of(enum config_df df)
{
	switch (df) {
	case CONFIG_DF_CLEAR:
		return ESP_DF_CLEAR;
	case CONFIG_DF_COPY:
		return ESP_DF_COPY;
	case CONFIG_DF_SET:
		break;
	}
	return ESP_DF_SET;
}

static struct esp_sa_out *create_out(const struct tunnel_table *table, const struct tunnel *tunnel,
	const struct sa_parameters *parameters)
{
	uint64_t end = tunnel_sequence_end(tunnel, parameters->esn),
		 hard = parameters->hard.packets;
	struct esp_sa_out_parameters out = {
		.spi = parameters->spi,
		.esn = parameters->esn,
		.source = parameters->source,
		.destination = parameters->destination,
		.udp_source = parameters->udp_source,
		.udp_destination = parameters->udp_destination,
		.df = esp_df_of(tunnel->config->df),
		.ttl = (uint8_t)tunnel->config->ttl,
		.set_dscp = tunnel->config->dscp != CONFIG_DSCP_COPY,
		.dscp = (uint8_t)(tunnel->config->dscp & 63),
		.selectors = parameters->selectors,
		.selector_count = parameters->selector_count,
		// Numbers start at 1, so the hard limit in packets is the last number.
		.last_sequence = hard != 0 && hard < end ? hard : end,
		.workers = table->config->worker_count,
	};
	memcpy(out.key, parameters->key, sizeof(out.key));
	memcpy(out.salt, parameters->salt, sizeof(out.salt));
	struct esp_sa_out *sa = esp_sa_out_create(&out);
	explicit_bzero(&out, sizeof(out));
	return sa;
}

void sa_destroy(struct sa *sa)
{
	if (sa->in != NULL)
		esp_sa_in_destroy(sa->in);
	if (sa->out != NULL)
		esp_sa_out_destroy(sa->out);
	rte_free(sa->egress);
	free(sa->selectors);
	free(sa);
}

// The data plane asks for the way to an SA's far end.
static void resolve_egress(struct sa *sa)
{
	const struct tunnel_table *table = sa->table;
	uint32_t adjacency = TUNNEL_NO_PATH;
	if (table->resolve != NULL)
		adjacency = table->resolve(table->resolve_argument, &sa->destination);
	// Release: what the resolver wrote into the adjacency is there before its index.
	atomic_store_explicit(&sa->egress->adjacency, adjacency, memory_order_release);
}

// The newest outbound SA that is not stopped carries the tunnel's traffic (RFC 7296 section 2.8).
static void select_current(struct tunnel *tunnel)
{
	struct sa *sa = TAILQ_LAST(&tunnel->sas, sa_list);
	while (sa != NULL && (sa->direction != SA_OUTBOUND || sa->state == SA_HARD_EXPIRED))
		sa = TAILQ_PREV(sa, sa_list, in_tunnel);
	if (sa == tunnel->current)
		return;
	// Only the current SA's path is kept up to date.
	if (sa != NULL)
		resolve_egress(sa);
	tunnel->current = sa;
	atomic_store_explicit(
		&tunnel->egress, sa == NULL ? NULL : sa->egress, memory_order_release);
}

static void count_narrow(struct tunnel_table *table, const struct sa *sa, int change)
{
	if (sa->window != 0 && sa->window < TUNNEL_WINDOW_NARROW)
		atomic_fetch_add_explicit(
			&table->narrow_count, (unsigned int)change, memory_order_release);
}

bool tunnel_has_narrow_window(const struct tunnel_table *table)
{
	return atomic_load_explicit(&table->narrow_count, memory_order_relaxed) != 0;
}

static int show_inbound(
	struct tunnel_table *table, struct sa *sa, const struct sa_parameters *parameters)
{
	sa->in = create_in(table, parameters);
	if (sa->in == NULL)
		return -ENOMEM;
	// So many SAs came and went within one grace period that it has to be waited for.
	if (spi_table_is_crowded(&table->spis))
		reclaim_synchronize(table->reclaim);
	// Counted before a worker can find it.
	count_narrow(table, sa, 1);
	if (!spi_table_insert(&table->spis, sa->spi, sa->in, sa->tunnel->index, &sa->slot)) {
		count_narrow(table, sa, -1);
		return -ENOMEM;
	}
	tunnel_spi_release(table, sa->spi);
	return 0;
}

static int prepare_outbound(
	struct tunnel_table *table, struct sa *sa, const struct sa_parameters *parameters)
{
	sa->out = create_out(table, sa->tunnel, parameters);
	// A line of its own: workers read it for every packet.
	sa->egress = rte_zmalloc("tunnel_egress", sizeof(*sa->egress), RTE_CACHE_LINE_SIZE);
	if (sa->out == NULL || sa->egress == NULL)
		return -ENOMEM;
	sa->egress->sa = sa->out;
	atomic_init(&sa->egress->adjacency, TUNNEL_NO_PATH);
	atomic_init(&sa->egress->mtu, tunnel_sa_mtu(sa));
	return 0;
}

struct sa *sa_add(struct tunnel_table *table, struct tunnel *tunnel,
	const struct sa_parameters *parameters, struct tunnel_error *error)
{
	int result = check_parameters(table, parameters, error);
	if (result != 0) {
		errno = -result;
		return NULL;
	}
	struct sa *sa = create_record(tunnel, parameters);
	if (sa != NULL) {
		sa->table = table;
		result = sa->direction == SA_INBOUND ? show_inbound(table, sa, parameters)
						     : prepare_outbound(table, sa, parameters);
	}
	if (sa == NULL || result != 0) {
		if (sa != NULL)
			sa_destroy(sa);
		refuse(error, ENOMEM, "no memory for the SA");
		errno = ENOMEM;
		return NULL;
	}
	sa->id = table->next_id++;
	table->sa_count++;
	TAILQ_INSERT_TAIL(&table->sas, sa, in_table);
	TAILQ_INSERT_TAIL(&tunnel->sas, sa, in_tunnel);
	LIST_INSERT_HEAD(bucket_of(table, sa->spi), sa, in_bucket);
	if (sa->direction == SA_OUTBOUND)
		select_current(tunnel);
	return sa;
}

static void move_outer(const struct tunnel_table *table, struct sa *sa)
{
	struct rte_rcu_qsbr *qsbr = reclaim_qsbr(table->reclaim);
	// lib/esp has two outer headers to alternate between: before one is written again, workers
	// must have left it. Only moves in quick succession make this wait.
	reclaim_wait(table->reclaim, sa->moved);
	// A smaller MTU is there before the larger header is, a larger one after the smaller
	// header.
	uint32_t mtu = tunnel_sa_mtu(sa);
	atomic_store_explicit(
		&sa->egress->mtu, RTE_MIN(mtu, sa->egress->mtu), memory_order_release);
	esp_sa_out_set_outer(
		sa->out, &sa->source, &sa->destination, sa->udp_source, sa->udp_destination);
	atomic_store_explicit(&sa->egress->mtu, mtu, memory_order_release);
	sa->moved = rte_rcu_qsbr_start(qsbr);
	resolve_egress(sa);
}

int sa_update(struct tunnel_table *table, struct sa *sa, const struct packet_address *source,
	const struct packet_address *destination, uint16_t udp_source, uint16_t udp_destination,
	struct tunnel_error *error)
{
	struct packet_address from = source == NULL ? sa->source : *source;
	struct packet_address to = destination == NULL ? sa->destination : *destination;
	int result = check_outer(&from, &to, udp_source, udp_destination, error);
	if (result != 0)
		return result;
	const struct sa *other = sa_find(table, sa->direction, sa->spi, &to);
	if (other != NULL && other != sa)
		return refuse(error, EEXIST,
			"tunnel %s has an outbound SA with SPI 0x%08x to this destination already",
			other->tunnel->config->name, other->spi);
	if (sa == sa->tunnel->current && !packet_address_equal(&sa->destination, &to))
		tunnel_path_forget(table, sa->tunnel);
	sa->source = from;
	sa->destination = to;
	sa->udp_source = udp_source;
	sa->udp_destination = udp_destination;
	if (sa->direction == SA_OUTBOUND)
		move_outer(table, sa);
	else
		esp_sa_in_set_sender(sa->in, &sa->source, sa->udp_source);
	return 0;
}

void sa_stop(struct tunnel_table *table, struct sa *sa)
{
	if (sa->state == SA_HARD_EXPIRED)
		return;
	sa->state = SA_HARD_EXPIRED;
	if (sa->direction == SA_INBOUND)
		spi_table_remove(&table->spis, sa->slot);
	else
		select_current(sa->tunnel);
}

static void destroy_reclaimed(void *argument)
{
	struct sa *sa = argument;
	if (sa->direction == SA_INBOUND) {
		spi_table_release(&sa->table->spis, sa->slot);
		count_narrow(sa->table, sa, -1); // no worker holds it any more
	}
	sa_destroy(sa);
}

void sa_delete(struct tunnel_table *table, struct sa *sa)
{
	sa_stop(table, sa);
	TAILQ_REMOVE(&table->sas, sa, in_table);
	TAILQ_REMOVE(&sa->tunnel->sas, sa, in_tunnel);
	LIST_REMOVE(sa, in_bucket);
	table->sa_count--;
	reclaim_defer(table->reclaim, destroy_reclaimed, sa);
}

void tunnel_set_resolver(struct tunnel_table *table, tunnel_resolve resolve, void *argument)
{
	table->resolve = resolve;
	table->resolve_argument = argument;
}

void tunnel_resolve_all(struct tunnel_table *table)
{
	for (unsigned int i = 0; i < table->tunnel_count; i++)
		if (table->tunnels[i].current != NULL)
			resolve_egress(table->tunnels[i].current);
}
