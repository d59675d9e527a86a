// SPDX-License-Identifier: BSD-3-Clause
// Copyright (c) 2026 the espgw authors

// The SAs as workers use them (private to lib/esp).

#pragma once

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <rte_byteorder.h>
#include <rte_common.h>
#include <rte_ip.h>
#include <rte_vect.h>

#include "esp/esp.h"
#include "gcm.h"
#include "replay.h"
#include "selector.h"

#define ESP_OUTER_SIZE 48 // IPv6 and UDP, the longest outer header
#define ESP_IPV4_DF    RTE_BE16(RTE_IPV4_HDR_DF_FLAG)

// How much of an outer header differs between packets. PLAIN: IPv4 with DF, without UDP, and with
// the inner packet's whole traffic class.
enum esp_outer_kind { ESP_OUTER_PLAIN, ESP_OUTER_IPV4, ESP_OUTER_IPV6 };

// The outer header, prebuilt; fields that differ between packets are zero.
struct esp_outer {
	uint16_t size; // bytes of it
	uint8_t kind;  // enum esp_outer_kind
	bool udp;
	bool df, copy_df;          // IPv4: DF in all packets, or the inner header's
	uint8_t class_mask;        // what the traffic class has of the inner packet's
	uint16_t partial_checksum; // IPv4: sum of the header's words, as they lie in memory
	// IPv4, as words.
	uint64_t ipv4_first, ipv4_second;
	uint32_t ipv4_destination;
	uint32_t ipv6_first; // IPv6: version and traffic class, in host order
	uint64_t udp_ports;  // UDP: both ports; length and checksum zero
	// IPv6, right-aligned: the ESP header follows byte 47.
	uint8_t bytes[ESP_OUTER_SIZE];
} __rte_cache_aligned;

struct esp_sa_out {
	// Read by every burst, changed by nobody but esp_sa_out_set_outer.
	uint32_t spi_be;
	uint8_t salt[ESP_SALT_SIZE];
	uint64_t last_sequence;
	bool esn;
	uint8_t ttl;
	uint8_t df;
	uint8_t class_mask, class_set; // traffic class: (inner & mask) | set
	unsigned int workers;
	_Atomic unsigned int outer_index; // which of `outer` is in force
	struct selector_set *selectors;   // NULL = any packet
	struct esp_outer outer[2];
	struct gcm_key key __rte_cache_aligned;
	// Changed by every burst of every worker.
	_Atomic uint64_t next_sequence __rte_cache_aligned;
	struct esp_counters counters[] __rte_cache_aligned; // [worker]
};

struct esp_sa_in {
	uint32_t spi_be;
	uint8_t salt[ESP_SALT_SIZE];
	uint16_t workers;
	bool selective;              // has `selectors`
	struct replay_window window; // its own_top shares this line only when there is no mapping
	_Atomic uint64_t sender;     // whom packets should come from, see esp_sender_v4
	struct gcm_key key __rte_cache_aligned;
	_Atomic uint64_t moved; // TSC when a move was told last; 0 = never
	struct selector_set *selectors;
	struct esp_counters counters[] __rte_cache_aligned; // [worker]
};

// What decapsulation reads of an SA is one line, and the key schedule.
_Static_assert(offsetof(struct esp_sa_in, key) == RTE_CACHE_LINE_SIZE, "one line");

struct esp_context {
	IMB_MGR *manager;
	struct gcm gcm;
	unsigned int worker;
	bool dummies;               // the burst under way is one of dummies
	struct stage_clock *stages; // of the worker; never NULL
	struct gcm_job jobs[ESP_BURST_MAX] __rte_cache_aligned;
	uint8_t tags[ESP_BURST_MAX][16];
	uint64_t sequences[ESP_BURST_MAX];
	uint64_t tops[ESP_BURST_MAX]; // at the first of neighbours that share an SA: the top before
	struct esp_accepted accepted; // of the burst that came last
	uint8_t job_packets[ESP_BURST_MAX]; // which packet of the burst a job is
};

// Bursts whose packets have SAs: `sas` is an array of `count` pointers to SAs of either kind.
static inline uintptr_t sa_address(const void *sas, unsigned int index)
{
	uintptr_t address;
	memcpy(&address, (const uint8_t *)sas + index * sizeof(address), sizeof(address));
	return address;
}

// Whether all have one SA; there is one packet at least. Without a branch for each, so that the
// compiler takes several a step.
static inline bool is_one_sa(const void *sas, unsigned int count)
{
	uintptr_t first = sa_address(sas, 0), differences = 0;
	for (unsigned int i = 0; i < count; i++)
		differences |= sa_address(sas, i) ^ first;
	return differences == 0;
}

// As one store: the cipher soon reads them as one.
static inline void set_lengths(struct gcm_job *job, uint64_t length, uint64_t aad_length)
{
	__m128i both = _mm_unpacklo_epi64(
		_mm_cvtsi64_si128((int64_t)length), _mm_cvtsi64_si128((int64_t)aad_length));
	_mm_store_si128((__m128i *)&job->length, both);
}
_Static_assert(offsetof(struct gcm_job, length) % 16 == 0, "stored as one");
_Static_assert(offsetof(struct gcm_job, aad_length) == offsetof(struct gcm_job, length) + 8,
	"stored as one");

// The first packet behind `begin` that has another SA, or `count`.
static inline unsigned int end_of_run(const void *sas, unsigned int begin, unsigned int count)
{
	unsigned int end = begin + 1;
	while (end < count && sa_address(sas, end) == sa_address(sas, begin))
		end++;
	return end;
}

// cipher.c: the first `jobs` of context->jobs, in place.
void esp_encrypt_jobs(struct esp_context *context, unsigned int jobs);
void esp_decrypt_jobs(struct esp_context *context, unsigned int jobs);
