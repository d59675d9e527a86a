// SPDX-License-Identifier: BSD-3-Clause
// Copyright (c) 2026 the espgw authors

// Decapsulation of a burst (RFC 4303 section 3.4, RFC 4106), in passes over the burst: replay
// check, cipher, integrity check, replay window, inner packet.

#include <string.h>

#include <rte_cycles.h>

#include "sa.h"

#define RUNT_SIZE (ESP_HEADER_SIZE + ESP_IV_SIZE + 2 + ESP_ICV_SIZE)

// Checks packet i before the cipher and makes its job.
static inline enum drop_reason prepare(struct esp_context *context, unsigned int job_index,
	const struct rte_mbuf *packet, const struct esp_sa_in *sa, uint64_t *sequence)
{
	if (unlikely(packet->nb_segs != 1))
		return DROP_NOT_LINEAR;
	if (unlikely(packet->data_len < RUNT_SIZE))
		return DROP_RUNT;
	uint8_t *esp = rte_pktmbuf_mtod(packet, uint8_t *);
	uint32_t spi, low; // as received: the ICV covers both
	uint64_t iv;
	memcpy(&spi, esp, sizeof(spi));
	memcpy(&low, esp + 4, sizeof(low));
	memcpy(&iv, esp + ESP_HEADER_SIZE, sizeof(iv));
	enum drop_reason reason = replay_check(&sa->window, rte_be_to_cpu_32(low), sequence);
	if (unlikely(reason != DROP_NONE))
		return reason;

	uint32_t salt;
	memcpy(&salt, sa->salt, sizeof(salt));
	__m128i nonce = _mm_set_epi64x((int64_t)(iv >> 32), (int64_t)(iv << 32 | salt));
	_mm_store_si128((__m128i *)context->nonces[job_index], nonce);
	uint32_t high = rte_cpu_to_be_32((uint32_t)(*sequence >> 32));
	bool esn = sa->window.esn;
	uint64_t second = esn ? high : low;
	__m128i aad = _mm_set_epi64x(low, (int64_t)(second << 32 | spi));
	_mm_store_si128((__m128i *)context->aads[job_index], aad);
	uint32_t length = packet->data_len - ESP_HEADER_SIZE - ESP_IV_SIZE - ESP_ICV_SIZE;
	struct gcm_job *job = &context->jobs[job_index];
	job->key = &sa->key;
	job->aad_length = esn ? 12 : 8;
	job->data = esp + ESP_HEADER_SIZE + ESP_IV_SIZE;
	job->length = length;
	job->tag = context->tags[job_index];
	return DROP_NONE;
}

// Compares in constant time.
static bool icv_is_right(const struct gcm_job *job)
{
	uint64_t computed[2], received[2];
	memcpy(computed, job->tag, sizeof(computed));
	memcpy(received, job->data + job->length, sizeof(received));
	return ((computed[0] ^ received[0]) | (computed[1] ^ received[1])) == 0;
}

// Moves the windows: one call per run of neighbours that share an SA. Packets that were refused
// stand in a run without effect.
static void commit_windows(struct esp_context *context, struct esp_sa_in *const *sas,
	uint8_t *drops, unsigned int count)
{
	for (unsigned int begin = 0; begin < count;) {
		unsigned int end = begin + 1;
		while (end < count && sas[end] == sas[begin])
			end++;
		context->tops[begin] = replay_commit(&sas[begin]->window,
			&context->sequences[begin], &drops[begin], end - begin);
		begin = end;
	}
}

// The padding is 1,2,3... (RFC 4303 section 2.4): bytes that are there are `length` from `data` on.
static bool padding_is_right(const uint8_t *data, uint32_t length)
{
	for (uint32_t i = 0; i < length; i++)
		if (data[i] != i + 1)
			return false;
	return true;
}

// Reads pad length and next header at the end of the plaintext. DROP_NONE, and the bytes before the
// padding. Usual padding is compared at once: a loop over 0 to 3 bytes is mispredicted. (Before the
// plaintext stands the IV, so eight bytes can be read whatever its length.)
static inline enum drop_reason check_trailer(
	const uint8_t *data, uint32_t length, uint32_t *inner, uint8_t *next_header)
{
	uint64_t end; // padding, pad length, next header
	memcpy(&end, data + length - sizeof(end), sizeof(end));
	uint32_t padding = end >> 48 & 0xff;
	*next_header = (uint8_t)(end >> 56);
	if (unlikely(padding + 2 > length))
		return DROP_BAD_PADDING;
	*inner = length - 2 - padding;
	if (likely(padding < 4)) {
		uint64_t expected = UINT64_C(0x030201) << (48 - 8 * padding);
		uint64_t mask = UINT64_C(0xffffffffffff) << (48 - 8 * padding);
		bool right = ((end ^ expected) & mask & UINT64_C(0xffffffffffff)) == 0;
		return likely(right) ? DROP_NONE : DROP_BAD_PADDING;
	}
	return padding_is_right(data + *inner, padding) ? DROP_NONE : DROP_BAD_PADDING;
}

// RFC 6040 section 4.2, figure 4: [inner][outer] ECN field; 4 = drop.
enum { NOT_ECT, ECT1, ECT0, CE, ECN_DROP };
static const uint8_t ecn_results[4][4] = {
	[NOT_ECT] = {NOT_ECT, NOT_ECT, NOT_ECT, ECN_DROP},
	[ECT1] = {ECT1, ECT1, ECT1, CE},
	[ECT0] = {ECT0, ECT1, ECT0, CE},
	[CE] = {CE, CE, CE, CE},
};

static enum drop_reason propagate_ecn(uint8_t *inner, uint8_t outer_traffic_class)
{
	uint8_t inner_ecn = packet_ip_traffic_class(inner) & PACKET_IP_ECN_MASK;
	uint8_t result = ecn_results[inner_ecn][outer_traffic_class & PACKET_IP_ECN_MASK];
	if (likely(result == inner_ecn))
		return DROP_NONE;
	if (result == ECN_DROP)
		return DROP_ECN;
	packet_ip_set_ecn(inner, result);
	return DROP_NONE;
}

// What an authenticated packet holds: cuts the mbuf down to the inner packet.
static enum drop_reason extract_inner(struct rte_mbuf *packet, uint8_t outer_traffic_class)
{
	uint8_t *data = rte_pktmbuf_mtod_offset(packet, uint8_t *, ESP_HEADER_SIZE + ESP_IV_SIZE);
	uint32_t length = packet->data_len - ESP_HEADER_SIZE - ESP_IV_SIZE - ESP_ICV_SIZE;
	uint32_t inner = 0, ip_length = 0;
	uint8_t next_header;
	enum drop_reason reason = check_trailer(data, length, &inner, &next_header);
	if (unlikely(reason != DROP_NONE))
		return reason;
	if (unlikely(next_header != IPPROTO_IPIP && next_header != IPPROTO_IPV6))
		return next_header == IPPROTO_NONE ? DROP_DUMMY : DROP_BAD_NEXT_HEADER;
	// The far side vouches for the packet: its checksum is for the end host to judge.
	if (unlikely(packet_ip_check(data, inner, false, &ip_length) != DROP_NONE ||
		     (data[0] >> 4 == 4) != (next_header == IPPROTO_IPIP)))
		return DROP_BAD_INNER;
	reason = propagate_ecn(data, outer_traffic_class);
	packet->data_off = (uint16_t)(packet->data_off + ESP_HEADER_SIZE + ESP_IV_SIZE);
	packet->data_len = (uint16_t)ip_length; // TFC padding goes here
	packet->pkt_len = ip_length;
	return reason;
}

// Adds to each SA's counters, once per run of neighbours that share it.
static void count_packets(const struct esp_context *context, struct rte_mbuf *const *packets,
	struct esp_sa_in *const *sas, const uint8_t *drops, unsigned int count)
{
	uint64_t now = rte_rdtsc();
	for (unsigned int i = 0; i < count;) {
		struct esp_sa_in *sa = sas[i];
		uint64_t good = 0, bytes = 0;
		for (; i < count && sas[i] == sa; i++) {
			good += drops[i] == DROP_NONE;
			bytes += drops[i] == DROP_NONE ? packets[i]->data_len : 0;
		}
		if (good == 0)
			continue;
		struct esp_counters *counters = &sa->counters[context->worker];
		counters->packets += good;
		counters->bytes += bytes;
		counters->last_use = now;
	}
}

unsigned int esp_decapsulate(struct esp_context *context, struct rte_mbuf *const *packets,
	struct esp_sa_in *const *sas, const uint8_t *traffic_classes, uint8_t *drops,
	unsigned int count)
{
	unsigned int jobs = 0;
	for (unsigned int i = 0; i < count; i++) {
		drops[i] =
			(uint8_t)prepare(context, jobs, packets[i], sas[i], &context->sequences[i]);
		context->job_packets[jobs] = (uint8_t)i;
		jobs += drops[i] == DROP_NONE;
	}
	gcm_decrypt_burst(&context->gcm, context->jobs, jobs);
	for (unsigned int job = 0; job < jobs; job++)
		if (unlikely(!icv_is_right(&context->jobs[job])))
			drops[context->job_packets[job]] = DROP_ICV;
	commit_windows(context, sas, drops, count);

	unsigned int refused = 0;
	for (unsigned int i = 0; i < count; i++) {
		if (likely(drops[i] == DROP_NONE))
			drops[i] = (uint8_t)extract_inner(packets[i], traffic_classes[i]);
		refused += drops[i] != DROP_NONE;
	}
	count_packets(context, packets, sas, drops, count);
	return refused;
}
