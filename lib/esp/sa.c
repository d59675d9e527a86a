// SPDX-License-Identifier: BSD-3-Clause
// Copyright (c) 2026 the espgw authors

#include "sa.h"

#include <string.h>

#include <rte_ip.h>
#include <rte_malloc.h>
#include <rte_prefetch.h>
#include <rte_udp.h>

#define DEFAULT_TTL 64

static IMB_MGR *new_manager(void)
{
	IMB_MGR *manager = alloc_mb_mgr(0);
	if (manager == NULL)
		return NULL;
	init_mb_mgr_auto(manager, NULL);
	if (imb_get_errno(manager) != 0) { // no AES-NI, say
		free_mb_mgr(manager);
		return NULL;
	}
	return manager;
}

// Expands a key on the control thread, which is no hot path: a manager for one call.
static bool expand_key(const uint8_t key[ESP_KEY_SIZE], struct gcm_key *expanded)
{
	IMB_MGR *manager = new_manager();
	if (manager == NULL)
		return false;
	gcm_key_expand(manager, expanded, key);
	imb_clear_mem(manager, sizeof(*manager));
	free_mb_mgr(manager);
	return true;
}

enum esp_crypto_problem esp_crypto_choose(enum esp_crypto wanted, enum esp_crypto *chosen)
{
	enum esp_crypto_problem problem = ESP_CRYPTO_FINE;
	struct gcm gcm;
	*chosen = ESP_CRYPTO_IPSEC_MB;
	IMB_MGR *manager = new_manager();
	if (manager == NULL || !gcm_choose(&gcm, manager, wanted))
		problem = ESP_CRYPTO_UNSUPPORTED;
	else if (gcm.variant != NULL && !gcm_self_test(&gcm))
		problem = ESP_CRYPTO_WRONG;
	else if (gcm.variant != NULL)
		*chosen = ESP_CRYPTO_BURST;
	if (manager != NULL)
		free_mb_mgr(manager);
	return problem;
}

// Of contexts that nobody has given another. Never on, so never written.
static struct stage_clock no_stages;

struct esp_context *esp_context_create(unsigned int worker, enum esp_crypto crypto)
{
	struct esp_context *context =
		rte_zmalloc("esp_context", sizeof(*context), RTE_CACHE_LINE_SIZE);
	if (context == NULL)
		return NULL;
	context->worker = worker;
	context->stages = &no_stages;
	context->manager = new_manager();
	if (context->manager == NULL || !gcm_choose(&context->gcm, context->manager, crypto)) {
		esp_context_destroy(context);
		return NULL;
	}
	return context;
}

void esp_context_set_stages(struct esp_context *context, struct stage_clock *stages)
{
	context->stages = stages;
}

void esp_context_destroy(struct esp_context *context)
{
	if (context == NULL)
		return;
	if (context->manager != NULL)
		free_mb_mgr(context->manager);
	imb_clear_mem(context, sizeof(*context));
	rte_free(context);
}

static void build_udp(struct esp_outer *outer, uint16_t source, uint16_t destination)
{
	if (source == 0 && destination == 0)
		return;
	outer->udp = true;
	outer->size += sizeof(struct rte_udp_hdr);
	struct rte_udp_hdr udp = {
		.src_port = rte_cpu_to_be_16(source),
		.dst_port = rte_cpu_to_be_16(destination),
	};
	memcpy(outer->bytes + ESP_OUTER_SIZE - sizeof(udp), &udp, sizeof(udp));
	memcpy(&outer->udp_ports, &udp, sizeof(udp));
}

static void build_ipv4(struct esp_outer *outer, const struct esp_sa_out *sa,
	const struct packet_address *source, const struct packet_address *destination)
{
	outer->df = sa->df == ESP_DF_SET;
	outer->copy_df = sa->df == ESP_DF_COPY;
	struct rte_ipv4_hdr ip = {
		.version_ihl = RTE_IPV4_VHL_DEF,
		.type_of_service = sa->class_set,
		.fragment_offset = outer->df ? ESP_IPV4_DF : 0,
		.time_to_live = sa->ttl,
		.next_proto_id = outer->udp ? IPPROTO_UDP : IPPROTO_ESP,
	};
	memcpy(&ip.src_addr, source->bytes, sizeof(ip.src_addr));
	memcpy(&ip.dst_addr, destination->bytes, sizeof(ip.dst_addr));
	bool plain = outer->df && !outer->udp && sa->class_mask == UINT8_MAX;
	outer->kind = plain ? ESP_OUTER_PLAIN : ESP_OUTER_IPV4;
	outer->size += sizeof(ip);
	outer->partial_checksum = rte_raw_cksum(&ip, sizeof(ip));
	memcpy(&outer->ipv4_first, &ip, sizeof(outer->ipv4_first));
	memcpy(&outer->ipv4_second, &ip.time_to_live, sizeof(outer->ipv4_second));
	outer->ipv4_destination = ip.dst_addr;
}

// The flow label is 0: one made of the inner headers would tell an observer which packets are of
// one flow, and let routers that share by it turn the order of an SA's packets.
static void build_ipv6(struct esp_outer *outer, const struct esp_sa_out *sa,
	const struct packet_address *source, const struct packet_address *destination)
{
	outer->ipv6_first = UINT32_C(6) << 28 | (uint32_t)sa->class_set << 20;
	struct rte_ipv6_hdr ip = {
		.vtc_flow = rte_cpu_to_be_32(outer->ipv6_first),
		.proto = outer->udp ? IPPROTO_UDP : IPPROTO_ESP,
		.hop_limits = sa->ttl,
	};
	memcpy(&ip.src_addr, source->bytes, sizeof(ip.src_addr));
	memcpy(&ip.dst_addr, destination->bytes, sizeof(ip.dst_addr));
	outer->kind = ESP_OUTER_IPV6;
	outer->size += sizeof(ip);
	memcpy(outer->bytes + ESP_OUTER_SIZE - outer->size, &ip, sizeof(ip));
}

static struct esp_outer build_outer(const struct esp_sa_out *sa,
	const struct packet_address *source, const struct packet_address *destination,
	uint16_t udp_source, uint16_t udp_destination)
{
	struct esp_outer outer = {.class_mask = sa->class_mask};
	build_udp(&outer, udp_source, udp_destination);
	if (source->family == 4)
		build_ipv4(&outer, sa, source, destination);
	else
		build_ipv6(&outer, sa, source, destination);
	return outer;
}

// False without memory. *set is NULL where nothing has to be looked at.
static bool copy_selectors(
	const struct esp_selector *selectors, unsigned int count, struct selector_set **set)
{
	*set = NULL;
	if (selectors_allow_all(selectors, count))
		return true;
	*set = selectors_create(selectors, count);
	return *set != NULL;
}

struct esp_sa_out *esp_sa_out_create(const struct esp_sa_out_parameters *parameters)
{
	size_t size = sizeof(struct esp_sa_out) + parameters->workers * sizeof(struct esp_counters);
	struct esp_sa_out *sa = rte_zmalloc("esp_sa_out", size, RTE_CACHE_LINE_SIZE);
	if (sa == NULL)
		return NULL;
	sa->workers = parameters->workers;
	sa->spi_be = rte_cpu_to_be_32(parameters->spi);
	memcpy(sa->salt, parameters->salt, ESP_SALT_SIZE);
	sa->esn = parameters->esn;
	sa->ttl = parameters->ttl != 0 ? parameters->ttl : DEFAULT_TTL;
	sa->df = (uint8_t)parameters->df;
	sa->class_mask = parameters->set_dscp ? PACKET_IP_ECN_MASK : UINT8_MAX;
	sa->class_set = parameters->set_dscp ? (uint8_t)(parameters->dscp << 2) : 0;
	sa->last_sequence = parameters->esn ? ESP_SEQUENCE_END_ESN : ESP_SEQUENCE_END;
	if (parameters->last_sequence != 0 && parameters->last_sequence < sa->last_sequence)
		sa->last_sequence = parameters->last_sequence;
	atomic_init(&sa->next_sequence,
		parameters->first_sequence != 0 ? parameters->first_sequence : 1);
	sa->outer[0] = build_outer(sa, &parameters->source, &parameters->destination,
		parameters->udp_source, parameters->udp_destination);
	bool complete =
		copy_selectors(parameters->selectors, parameters->selector_count, &sa->selectors);
	if (!complete || !expand_key(parameters->key, &sa->key)) {
		esp_sa_out_destroy(sa);
		return NULL;
	}
	return sa;
}

void esp_sa_out_set_outer(struct esp_sa_out *sa, const struct packet_address *source,
	const struct packet_address *destination, uint16_t udp_source, uint16_t udp_destination)
{
	unsigned int other = 1 - atomic_load_explicit(&sa->outer_index, memory_order_relaxed);
	sa->outer[other] = build_outer(sa, source, destination, udp_source, udp_destination);
	atomic_store_explicit(&sa->outer_index, other, memory_order_release);
}

struct esp_sa_in *esp_sa_in_create(const struct esp_sa_in_parameters *parameters)
{
	size_t size = sizeof(struct esp_sa_in) + parameters->workers * sizeof(struct esp_counters);
	struct esp_sa_in *sa = rte_zmalloc("esp_sa_in", size, RTE_CACHE_LINE_SIZE);
	if (sa == NULL)
		return NULL;
	sa->workers = (uint16_t)parameters->workers;
	sa->spi_be = rte_cpu_to_be_32(parameters->spi);
	memcpy(sa->salt, parameters->salt, ESP_SALT_SIZE);
	bool complete =
		copy_selectors(parameters->selectors, parameters->selector_count, &sa->selectors);
	sa->selective = sa->selectors != NULL;
	esp_sa_in_set_sender(sa, &parameters->source, parameters->udp_source);
	if (!complete ||
		!replay_create(&sa->window, parameters->window, parameters->esn, parameters->top) ||
		!expand_key(parameters->key, &sa->key)) {
		esp_sa_in_destroy(sa);
		return NULL;
	}
	return sa;
}

void esp_sa_out_destroy(struct esp_sa_out *sa)
{
	if (sa == NULL)
		return;
	imb_clear_mem(&sa->key, sizeof(sa->key));
	imb_clear_mem(sa->salt, sizeof(sa->salt));
	selectors_free(sa->selectors);
	rte_free(sa);
}

void esp_sa_in_destroy(struct esp_sa_in *sa)
{
	if (sa == NULL)
		return;
	replay_destroy(&sa->window);
	imb_clear_mem(&sa->key, sizeof(sa->key));
	imb_clear_mem(sa->salt, sizeof(sa->salt));
	selectors_free(sa->selectors);
	rte_free(sa);
}

uint32_t esp_sa_out_spi(const struct esp_sa_out *sa)
{
	return rte_be_to_cpu_32(sa->spi_be);
}

uint32_t esp_sa_in_spi(const struct esp_sa_in *sa)
{
	return rte_be_to_cpu_32(sa->spi_be);
}

uint64_t esp_sa_out_next_sequence(const struct esp_sa_out *sa)
{
	// Workers that find the end may have added beyond it.
	uint64_t next = atomic_load_explicit(&sa->next_sequence, memory_order_relaxed);
	return next > sa->last_sequence ? sa->last_sequence + 1 : next;
}

bool esp_sa_out_exhausted(const struct esp_sa_out *sa)
{
	return atomic_load_explicit(&sa->next_sequence, memory_order_relaxed) > sa->last_sequence;
}

uint64_t esp_sa_in_top(const struct esp_sa_in *sa)
{
	return atomic_load_explicit(sa->window.top, memory_order_relaxed);
}

static struct esp_counters sum_counters(const struct esp_counters *counters, unsigned int workers)
{
	struct esp_counters sum = {0};
	for (unsigned int i = 0; i < workers; i++) {
		sum.packets += __atomic_load_n(&counters[i].packets, __ATOMIC_RELAXED);
		sum.bytes += __atomic_load_n(&counters[i].bytes, __ATOMIC_RELAXED);
		uint64_t last_use = __atomic_load_n(&counters[i].last_use, __ATOMIC_RELAXED);
		if (last_use > sum.last_use)
			sum.last_use = last_use;
	}
	return sum;
}

struct esp_counters esp_sa_out_counters(const struct esp_sa_out *sa)
{
	return sum_counters(sa->counters, sa->workers);
}

struct esp_counters esp_sa_in_counters(const struct esp_sa_in *sa)
{
	return sum_counters(sa->counters, sa->workers);
}

uint32_t esp_sa_out_outer_size(const struct esp_sa_out *sa, uint32_t inner)
{
	unsigned int index = atomic_load_explicit(&sa->outer_index, memory_order_acquire);
	return sa->outer[index].size + ESP_HEADER_SIZE + ESP_IV_SIZE +
	       RTE_ALIGN_CEIL(inner + 2, 4) + ESP_ICV_SIZE;
}

bool esp_sa_out_has_sent(const struct esp_sa_out *sa, uint32_t sequence)
{
	const uint32_t recent = 1u << 20;
	uint64_t next = esp_sa_out_next_sequence(sa);
	uint32_t ago = (uint32_t)next - sequence; // of the low halves
	return ago >= 1 && ago <= recent && ago < next;
}

void esp_sa_out_prefetch(const struct esp_context *context, struct esp_sa_out *sa)
{
	rte_prefetch0(sa);
	for (unsigned int i = 0; i < sizeof(sa->outer[0]); i += RTE_CACHE_LINE_SIZE)
		rte_prefetch0((const uint8_t *)&sa->outer[0] + i);
	rte_prefetch0_write(&sa->next_sequence);
	rte_prefetch0_write(&sa->counters[context->worker]);
}

void esp_sa_in_prefetch(const struct esp_context *context, struct esp_sa_in *sa)
{
	rte_prefetch0(sa);
	rte_prefetch0_write(&sa->counters[context->worker]);
}
