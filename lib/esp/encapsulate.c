// SPDX-License-Identifier: BSD-3-Clause
// Copyright (c) 2026 the espgw authors

// Encapsulation of a burst (RFC 4303 section 3.3, RFC 4106), in three passes: room for all, headers
// and trailers of all, cipher for all.

#include <string.h>

#include <rte_cycles.h>
#include <rte_prefetch.h>
#include <rte_vect.h>

#include "sa.h"

static enum drop_reason check_room(const struct rte_mbuf *packet)
{
	if (unlikely(packet->nb_segs != 1))
		return DROP_NOT_LINEAR;
	if (unlikely(packet->data_off < ESP_HEADROOM_MAX ||
		     rte_pktmbuf_tailroom(packet) < ESP_TAILROOM_MAX))
		return DROP_NO_HEADROOM;
	return DROP_NONE;
}

// Takes up to `count` sequence numbers; *first is the first one. How many were left to take.
static unsigned int reserve_sequence(struct esp_sa_out *sa, unsigned int count, uint64_t *first)
{
	// The look beforehand keeps an exhausted counter from being added to for ever.
	if (unlikely(atomic_load_explicit(&sa->next_sequence, memory_order_relaxed) >
		     sa->last_sequence))
		return 0;
	*first = atomic_fetch_add_explicit(&sa->next_sequence, count, memory_order_relaxed);
	if (unlikely(*first > sa->last_sequence))
		return 0;
	uint64_t left = sa->last_sequence - *first + 1;
	return left < count ? (unsigned int)left : count;
}

// Writes padding 1,2,3, pad length and next header behind the inner packet with one store; what it
// writes beyond them the ICV overwrites. Bytes written that count.
static inline uint32_t write_trailer(uint8_t *end, uint32_t inner, bool is_ipv4)
{
	static const uint64_t trailers[4] = {0, 0x0101, 0x020201, 0x03030201}; // by pad length
	uint32_t padding = -(inner + 2) & 3;
	uint64_t next_header = is_ipv4 ? IPPROTO_IPIP : IPPROTO_IPV6;
	uint64_t trailer = trailers[padding] | next_header << 8 * (padding + 1);
	memcpy(end, &trailer, sizeof(trailer));
	return padding + 2;
}

// Fills in what the template leaves open; its first eight bytes are one store.
static inline void fill_outer_ipv4(uint8_t *header, const struct esp_outer *outer,
	const uint8_t *inner, uint64_t sequence, uint32_t size)
{
	uint16_t fragment = outer->fragment;
	if (unlikely(outer->copy_df) && inner[0] >> 4 == 4)
		fragment = ((const struct rte_ipv4_hdr *)inner)->fragment_offset & ESP_IPV4_DF;
	// Without DF routers may fragment: an identification is needed (RFC 6864).
	uint16_t identification = fragment != 0 ? 0 : (uint16_t)sequence;
	uint32_t class_word = (uint32_t)packet_ip_traffic_class(inner) << 8;
	uint16_t length = rte_bswap16((uint16_t)size);
	uint16_t checksum = packet_checksum_fold(
		outer->partial_checksum + class_word + length + identification + fragment);
	uint64_t first = RTE_IPV4_VHL_DEF | class_word | (uint64_t)length << 16 |
			 (uint64_t)identification << 32 | (uint64_t)fragment << 48;
	memcpy(header, &first, sizeof(first));
	memcpy(header + offsetof(struct rte_ipv4_hdr, hdr_checksum), &checksum, sizeof(checksum));
}

static inline void fill_outer_ipv6(uint8_t *header, const uint8_t *inner, uint32_t size)
{
	struct rte_ipv6_hdr *ip = (struct rte_ipv6_hdr *)header;
	uint32_t traffic_class = packet_ip_traffic_class(inner);
	ip->vtc_flow = rte_cpu_to_be_32(UINT32_C(6) << 28 | traffic_class << 20);
	ip->payload_len = rte_cpu_to_be_16((uint16_t)(size - sizeof(*ip)));
}

// Reads what it needs of the inner header first: the outer header of a packet never overlaps it.
static inline void write_outer(uint8_t *esp, const struct esp_outer *outer, const uint8_t *inner,
	uint64_t sequence, uint32_t size)
{
	rte_mov16(esp - 48, outer->bytes);
	rte_mov16(esp - 32, outer->bytes + 16);
	rte_mov16(esp - 16, outer->bytes + 32);
	uint8_t *header = esp - outer->size;
	if (outer->udp) {
		struct rte_udp_hdr *udp = (struct rte_udp_hdr *)(esp - sizeof(*udp));
		uint32_t ip_size = outer->family == 4 ? sizeof(struct rte_ipv4_hdr)
						      : sizeof(struct rte_ipv6_hdr);
		udp->dgram_len = rte_cpu_to_be_16((uint16_t)(size - ip_size));
	}
	if (likely(outer->family == 4))
		fill_outer_ipv4(header, outer, inner, sequence, size);
	else
		fill_outer_ipv6(header, inner, size);
}

// SPI, sequence number and IV are one 16-byte store, and so are nonce and AAD: the cipher reads
// them soon, and wide.
static inline void write_esp_header(
	const struct esp_sa_out *sa, uint64_t sequence, uint8_t *esp, uint8_t *nonce, uint8_t *aad)
{
	uint64_t iv = rte_cpu_to_be_64(sequence);
	uint32_t low = (uint32_t)(iv >> 32); // the low half in network order
	uint32_t salt;
	memcpy(&salt, sa->salt, sizeof(salt));
	__m128i header = _mm_set_epi64x((int64_t)iv, (int64_t)((uint64_t)low << 32 | sa->spi_be));
	_mm_storeu_si128((__m128i *)esp, header);
	__m128i nonce_value = _mm_set_epi64x((int64_t)(iv >> 32), (int64_t)(iv << 32 | salt));
	_mm_store_si128((__m128i *)nonce, nonce_value);
	__m128i aad_value =
		sa->esn ? _mm_set_epi64x(low, (int64_t)(iv << 32 | sa->spi_be)) : header;
	_mm_store_si128((__m128i *)aad, aad_value);
}

// Builds everything but the ciphertext, and the job that makes that.
static inline void prepare(struct esp_context *context, unsigned int job_index,
	struct rte_mbuf *packet, const struct esp_sa_out *sa, const struct esp_outer *outer,
	uint64_t sequence)
{
	uint8_t *inner = rte_pktmbuf_mtod(packet, uint8_t *);
	uint32_t inner_size = packet->data_len;
	uint8_t *esp = inner - ESP_HEADER_SIZE - ESP_IV_SIZE;
	uint32_t trailer = write_trailer(inner + inner_size, inner_size, inner[0] >> 4 == 4);
	uint32_t before = outer->size + ESP_HEADER_SIZE + ESP_IV_SIZE;
	uint32_t size = before + inner_size + trailer + ESP_ICV_SIZE;

	write_outer(esp, outer, inner, sequence, size);
	write_esp_header(sa, sequence, esp, context->nonces[job_index], context->aads[job_index]);
	struct gcm_job *job = &context->jobs[job_index];
	job->key = &sa->key;
	job->aad_length = sa->esn ? 12 : 8;
	job->data = inner;
	job->length = inner_size + trailer;
	job->tag = inner + inner_size + trailer;
	packet->data_off = (uint16_t)(packet->data_off - before);
	packet->data_len = (uint16_t)size;
	packet->pkt_len = size;
}

// RFC 3948 lets the checksum be 0 over IPv4 only; over IPv6 it covers the ciphertext.
static void finish_udp6(struct rte_mbuf *packet)
{
	struct rte_ipv6_hdr *ip = rte_pktmbuf_mtod(packet, struct rte_ipv6_hdr *);
	struct rte_udp_hdr *udp = (struct rte_udp_hdr *)(ip + 1);
	udp->dgram_cksum = rte_ipv6_udptcp_cksum(ip, udp);
}

// The packets of `run` (a bit each) are all of one SA. Returns jobs after adding theirs; adds the
// packets that finish_udp6 is for to *udp6.
static unsigned int prepare_run(struct esp_context *context, struct rte_mbuf *const *packets,
	struct esp_sa_out *sa, uint64_t run, uint8_t *drops, unsigned int jobs, uint64_t *udp6)
{
	unsigned int index = atomic_load_explicit(&sa->outer_index, memory_order_acquire);
	const struct esp_outer *outer = &sa->outer[index];
	uint64_t sequence = 0, bytes = 0;
	unsigned int granted =
		reserve_sequence(sa, (unsigned int)__builtin_popcountll(run), &sequence);
	unsigned int used = 0;
	if (unlikely(outer->udp && outer->family == 6))
		*udp6 |= run;
	for (; run != 0; run &= run - 1) {
		unsigned int i = (unsigned int)__builtin_ctzll(run);
		if (unlikely(used == granted)) {
			drops[i] = DROP_SEQUENCE_EXHAUSTED;
			*udp6 &= ~(UINT64_C(1) << i);
			continue;
		}
		bytes += packets[i]->data_len;
		prepare(context, jobs++, packets[i], sa, outer, sequence + used++);
	}
	if (likely(used != 0)) {
		struct esp_counters *counters = &sa->counters[context->worker];
		counters->packets += used;
		counters->bytes += bytes;
		counters->last_use = rte_rdtsc();
	}
	return jobs;
}

unsigned int esp_encapsulate(struct esp_context *context, struct rte_mbuf *const *packets,
	struct esp_sa_out *const *sas, uint8_t *drops, unsigned int count)
{
	uint64_t pending = 0, udp6 = 0;
	for (unsigned int i = 0; i < count; i++) {
		drops[i] = (uint8_t)check_room(packets[i]);
		pending |= (uint64_t)(drops[i] == DROP_NONE) << i;
		rte_prefetch0_write(
			rte_pktmbuf_mtod_offset(packets[i], uint8_t *, packets[i]->data_len));
	}
	unsigned int jobs = 0;
	while (pending != 0) {
		unsigned int first = (unsigned int)__builtin_ctzll(pending);
		uint64_t run = 0;
		for (unsigned int i = first; i < count; i++)
			run |= (uint64_t)(sas[i] == sas[first]) << i;
		run &= pending;
		pending &= ~run;
		jobs = prepare_run(context, packets, sas[first], run, drops, jobs, &udp6);
	}
	gcm_encrypt_burst(&context->gcm, context->jobs, jobs);
	for (; udp6 != 0; udp6 &= udp6 - 1)
		finish_udp6(packets[__builtin_ctzll(udp6)]);
	return count - jobs;
}
