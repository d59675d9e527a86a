// SPDX-License-Identifier: BSD-3-Clause
// Copyright (c) 2026 the espgw authors

// Encapsulation of a burst (RFC 4303 section 3.3, RFC 4106), in three passes: room for all, headers
// and trailers of all, cipher for all. A packet costs little more than the cipher, so what the
// packets of a run have in common is read once, and what each gets of its own is written in words.

#include <string.h>

#include <rte_cycles.h>
#include <rte_prefetch.h>
#include <rte_vect.h>

#include "sa.h"

static inline bool has_room(const struct rte_mbuf *packet)
{
	return likely(packet->nb_segs == 1) && likely(packet->data_off >= ESP_HEADROOM_MAX) &&
	       likely(packet->data_off + packet->data_len + ESP_TAILROOM_MAX <= packet->buf_len);
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

// Padding 1,2,3, pad length and next header, by pad length.
#define TRAILERS(next_header)                                                         \
	{                                                                             \
		(uint64_t)(next_header) << 8, (uint64_t)(next_header) << 16 | 0x0101, \
			(uint64_t)(next_header) << 24 | 0x020201,                     \
			(uint64_t)(next_header) << 32 | 0x03030201                    \
	}
enum { NEXT_HEADER_IPV4 = 4, NEXT_HEADER_IPV6 = 41 };

// Writes the trailer behind the inner packet with one store; what that writes beyond it the ICV
// overwrites. Bytes written that count.
static inline uint32_t write_trailer(uint8_t *end, uint32_t inner, bool is_ipv4)
{
	static const uint64_t trailers[2][4] = {
		TRAILERS(NEXT_HEADER_IPV6),
		TRAILERS(NEXT_HEADER_IPV4),
	};
	uint32_t padding = -(inner + 2) & 3;
	memcpy(end, &trailers[is_ipv4][padding], sizeof(trailers[0][0]));
	return padding + 2;
}

// What the packets of a run have in common.
struct common {
	const struct gcm_key *key;
	const struct esp_outer *outer;
	__m128i spi, salt; // in the first four bytes
	__m128i aad_order; // how the AAD shuffles a sequence number
	uint32_t aad_length;
	uint32_t before; // bytes before the inner packet
};

// What the outer header wants to know of a packet.
struct inner {
	const uint8_t *header;
	bool is_ipv4;
	uint8_t traffic_class;
};

static inline struct inner read_inner(const uint8_t *header)
{
	uint16_t first; // both families' class lies in the first two bytes
	memcpy(&first, header, sizeof(first));
	bool is_ipv4 = (first & 0xf0) == 0x40;
	uint8_t ipv6_class = (uint8_t)(first << 4 | first >> 12);
	return (struct inner){header, is_ipv4, is_ipv4 ? (uint8_t)(first >> 8) : ipv6_class};
}

// Flags of the outer IPv4 header that the template does not have, and its identification, as they
// lie in the header's second word.
static inline uint32_t fragment_word(
	const struct esp_outer *outer, const struct inner *inner, uint64_t sequence)
{
	uint16_t flags = outer->copy_df ? ESP_IPV4_DF : 0; // IPv6 routers never fragment
	if (outer->copy_df && inner->is_ipv4)
		flags = ((const struct rte_ipv4_hdr *)inner->header)->fragment_offset & ESP_IPV4_DF;
	// Without DF routers may fragment: an identification is needed (RFC 6864).
	return flags != 0 || outer->df ? (uint32_t)flags << 16 : (uint16_t)sequence;
}

// `end` is where the ESP header begins. `plain`: see ESP_OUTER_PLAIN. A store for each word.
static __rte_always_inline void write_outer_ipv4(uint8_t *end, const struct esp_outer *outer,
	bool plain, const struct inner *inner, uint64_t sequence, uint32_t size)
{
	uint8_t inners = plain ? inner->traffic_class : inner->traffic_class & outer->class_mask;
	uint64_t class_word = (uint64_t)inners << 8;
	uint64_t length = rte_bswap16((uint16_t)size);
	uint64_t first = outer->ipv4_first | class_word | length << 16;
	uint32_t sum = outer->partial_checksum + (uint32_t)class_word + (uint32_t)length;
	if (!plain) {
		uint32_t fragment = fragment_word(outer, inner, sequence);
		first |= (uint64_t)fragment << 32;
		sum += (fragment & 0xffff) + (fragment >> 16);
	}
	if (!plain && outer->udp) {
		uint64_t udp_length = rte_bswap16((uint16_t)(size - sizeof(struct rte_ipv4_hdr)));
		uint64_t word = outer->udp_ports | udp_length << 32; // no checksum (RFC 3948)
		end -= sizeof(word);
		memcpy(end, &word, sizeof(word));
	}
	uint64_t second = outer->ipv4_second | (uint64_t)packet_checksum_fold(sum) << 16;
	uint8_t *header = end - sizeof(struct rte_ipv4_hdr);
	memcpy(header, &first, sizeof(first));
	memcpy(header + 8, &second, sizeof(second));
	memcpy(header + 16, &outer->ipv4_destination, sizeof(outer->ipv4_destination));
}

static inline void write_outer_ipv6(
	uint8_t *end, const struct esp_outer *outer, const struct inner *inner, uint32_t size)
{
	rte_mov16(end - 48, outer->bytes);
	rte_mov16(end - 32, outer->bytes + 16);
	rte_mov16(end - 16, outer->bytes + 32);
	struct rte_ipv6_hdr *ip = (struct rte_ipv6_hdr *)(end - outer->size);
	uint16_t payload = rte_cpu_to_be_16((uint16_t)(size - sizeof(*ip)));
	uint32_t inners = inner->traffic_class & outer->class_mask;
	ip->vtc_flow = rte_cpu_to_be_32(outer->ipv6_first | inners << 20);
	ip->payload_len = payload;
	if (outer->udp)
		((struct rte_udp_hdr *)(ip + 1))->dgram_len = payload;
}

// Where the bytes of a sequence number stand, 7 being its first in network order. Others are 0.
#define NUMBER     7, 6, 5, 4, 3, 2, 1, 0
#define NUMBER_LOW 3, 2, 1, 0
#define ZEROS      -1, -1, -1, -1

// ESP header and IV, nonce, and AAD are one 16-byte store each: the cipher reads them soon, and
// wide. The IV is the sequence number.
static __rte_always_inline void write_esp_header(
	const struct common *common, __m128i sequence, uint8_t *esp, struct gcm_job *job)
{
	const __m128i esp_order = _mm_setr_epi8(ZEROS, NUMBER_LOW, NUMBER);
	const __m128i nonce_order = _mm_setr_epi8(ZEROS, NUMBER, ZEROS);
	__m128i esp_bytes = _mm_or_si128(common->spi, _mm_shuffle_epi8(sequence, esp_order));
	__m128i nonce_bytes = _mm_or_si128(common->salt, _mm_shuffle_epi8(sequence, nonce_order));
	__m128i aad_bytes =
		_mm_or_si128(common->spi, _mm_shuffle_epi8(sequence, common->aad_order));
	_mm_storeu_si128((__m128i *)esp, esp_bytes);
	_mm_store_si128((__m128i *)job->nonce, nonce_bytes);
	_mm_store_si128((__m128i *)job->aad, aad_bytes);
}

// Writes everything but the ciphertext and the ICV. `kind` is a constant where this is inlined.
// Bytes to encipher.
static __rte_always_inline uint32_t write_around(uint8_t *data, uint32_t inner_size,
	const struct common *common, enum esp_outer_kind kind, uint64_t sequence)
{
	const struct inner inner = read_inner(data);
	uint8_t *esp = data - ESP_HEADER_SIZE - ESP_IV_SIZE;
	uint32_t length = inner_size + write_trailer(data + inner_size, inner_size, inner.is_ipv4);
	uint32_t size = common->before + length + ESP_ICV_SIZE;
	if (kind == ESP_OUTER_IPV6)
		write_outer_ipv6(esp, common->outer, &inner, size);
	else
		write_outer_ipv4(
			esp, common->outer, kind == ESP_OUTER_PLAIN, &inner, sequence, size);
	return length;
}

// `count` packets that lie one after the other, numbered from `sequence` on, and their jobs from
// number `first` on. Bytes of the inner packets.
static __rte_always_inline uint64_t prepare_packets(struct esp_context *context, unsigned int first,
	struct rte_mbuf *const *packets, unsigned int count, const struct common *common,
	enum esp_outer_kind kind, uint64_t sequence)
{
	__m128i number = _mm_cvtsi64_si128((int64_t)sequence);
	struct gcm_job *job = &context->jobs[first];
	uint64_t bytes = 0;
	for (unsigned int i = 0; i < count; i++, job++) {
		struct rte_mbuf *packet = packets[i];
		uint8_t *data = rte_pktmbuf_mtod(packet, uint8_t *);
		uint32_t inner_size = packet->data_len;
		uint32_t length = write_around(data, inner_size, common, kind, sequence + i);
		write_esp_header(common, number, data - ESP_HEADER_SIZE - ESP_IV_SIZE, job);
		job->key = common->key;
		job->data = data;
		set_lengths(job, length, common->aad_length);
		job->tag = data + length;
		uint32_t size = common->before + length + ESP_ICV_SIZE;
		packet->data_off = (uint16_t)(packet->data_off - common->before);
		packet->data_len = (uint16_t)size;
		packet->pkt_len = size;
		bytes += inner_size;
		number = _mm_add_epi64(number, _mm_cvtsi32_si128(1));
	}
	return bytes;
}

// RFC 3948 lets the checksum be 0 over IPv4 only; over IPv6 it covers the ciphertext.
static void finish_udp6(struct rte_mbuf *packet)
{
	struct rte_ipv6_hdr *ip = rte_pktmbuf_mtod(packet, struct rte_ipv6_hdr *);
	struct rte_udp_hdr *udp = (struct rte_udp_hdr *)(ip + 1);
	udp->dgram_cksum = rte_ipv6_udptcp_cksum(ip, udp);
}

static uint64_t prepare_kind(struct esp_context *context, unsigned int first,
	struct rte_mbuf *const *packets, unsigned int count, const struct common *common,
	uint64_t sequence)
{
	switch (common->outer->kind) {
	case ESP_OUTER_PLAIN:
		return prepare_packets(
			context, first, packets, count, common, ESP_OUTER_PLAIN, sequence);
	case ESP_OUTER_IPV4:
		return prepare_packets(
			context, first, packets, count, common, ESP_OUTER_IPV4, sequence);
	default:
		return prepare_packets(
			context, first, packets, count, common, ESP_OUTER_IPV6, sequence);
	}
}

// Drops all but the first `granted` packets of the run; returns those.
static __attribute__((noinline)) uint64_t cut_run(
	uint64_t run, unsigned int granted, uint8_t *drops)
{
	uint64_t left = run;
	for (; granted > 0; granted--)
		left &= left - 1;
	for (uint64_t refused = left; refused != 0; refused &= refused - 1)
		drops[__builtin_ctzll(refused)] = DROP_SEQUENCE_EXHAUSTED;
	return run & ~left;
}

// Drops what the SA's selectors leave out; returns the others.
static __attribute__((noinline)) uint64_t select_packets(const struct selector_set *selectors,
	struct rte_mbuf *const *packets, uint64_t run, uint8_t *drops)
{
	uint64_t selected = run;
	for (uint64_t left = run; left != 0; left &= left - 1) {
		unsigned int i = (unsigned int)__builtin_ctzll(left);
		const uint8_t *ip = rte_pktmbuf_mtod(packets[i], const uint8_t *);
		if (selectors_match(selectors, ip, packets[i]->pkt_len, true))
			continue;
		drops[i] = DROP_SELECTOR;
		selected &= ~(UINT64_C(1) << i);
	}
	return selected;
}

static inline struct common read_common(const struct esp_sa_out *sa)
{
	unsigned int index = atomic_load_explicit(&sa->outer_index, memory_order_acquire);
	const struct esp_outer *outer = &sa->outer[index];
	uint32_t salt;
	memcpy(&salt, sa->salt, sizeof(salt));
	return (struct common){
		.key = &sa->key,
		.outer = outer,
		.spi = _mm_cvtsi32_si128((int)sa->spi_be),
		.salt = _mm_cvtsi32_si128((int)salt),
		.aad_order = sa->esn ? _mm_setr_epi8(ZEROS, NUMBER, ZEROS)
				     : _mm_setr_epi8(ZEROS, NUMBER_LOW, ZEROS, ZEROS),
		.aad_length = sa->esn ? 12 : 8,
		.before = outer->size + ESP_HEADER_SIZE + ESP_IV_SIZE,
	};
}

// Takes the first bits that are neighbours out of *run, which is not 0; returns how many.
static inline unsigned int take_neighbours(uint64_t *run)
{
	uint64_t first = *run & -*run, behind = *run + first; // the carry stops behind the last
	unsigned int end = behind != 0 ? (unsigned int)__builtin_ctzll(behind) : 64;
	*run &= behind;
	return end - (unsigned int)__builtin_ctzll(first);
}

// The packets of `run` (a bit each) are all of one SA. Returns jobs after adding theirs; adds the
// packets that finish_udp6 is for to *udp6.
static unsigned int prepare_run(struct esp_context *context, struct rte_mbuf *const *packets,
	struct esp_sa_out *sa, uint64_t run, uint64_t now, uint8_t *drops, unsigned int jobs,
	uint64_t *udp6)
{
	if (unlikely(sa->selectors != NULL) && !context->dummies) {
		run = select_packets(sa->selectors, packets, run, drops);
		if (run == 0)
			return jobs;
	}
	const struct common common = read_common(sa);
	unsigned int count = (unsigned int)__builtin_popcountll(run);
	uint64_t sequence = 0, bytes = 0;
	unsigned int granted = reserve_sequence(sa, count, &sequence);
	if (unlikely(granted != count)) {
		run = cut_run(run, granted, drops);
		if (granted == 0)
			return jobs;
	}
	if (unlikely(common.outer->kind == ESP_OUTER_IPV6 && common.outer->udp))
		*udp6 |= run;
	while (run != 0) { // once, unless some were refused
		unsigned int begin = (unsigned int)__builtin_ctzll(run);
		unsigned int neighbours = take_neighbours(&run);
		bytes +=
			prepare_kind(context, jobs, packets + begin, neighbours, &common, sequence);
		jobs += neighbours;
		sequence += neighbours;
	}
	struct esp_counters *counters = &sa->counters[context->worker];
	counters->packets += granted;
	counters->bytes += bytes;
	counters->last_use = now;
	return jobs;
}

// The packets that have no room (a bit each). Fetches their ends, where the trailer goes.
static inline uint64_t check_rooms(
	struct rte_mbuf *const *packets, uint8_t *drops, unsigned int count)
{
	uint64_t without = 0;
	memset(drops, DROP_NONE, count);
	for (unsigned int i = 0; i < count; i++) {
		const struct rte_mbuf *packet = packets[i];
		rte_prefetch0_write(rte_pktmbuf_mtod_offset(packet, uint8_t *, packet->data_len));
		if (likely(has_room(packet)))
			continue;
		drops[i] = packet->nb_segs != 1 ? DROP_NOT_LINEAR : DROP_NO_HEADROOM;
		without |= UINT64_C(1) << i;
	}
	return without;
}

// The next header is the last byte of the trailer.
static __attribute__((noinline)) void mark_dummies(
	const struct esp_context *context, unsigned int jobs)
{
	for (unsigned int i = 0; i < jobs; i++)
		context->jobs[i].data[context->jobs[i].length - 1] = IPPROTO_NONE;
}

unsigned int esp_encapsulate(struct esp_context *context, struct rte_mbuf *const *packets,
	struct esp_sa_out *const *sas, uint8_t *drops, unsigned int count)
{
	uint64_t udp6 = 0, without = check_rooms(packets, drops, count), now = rte_rdtsc();
	const bool one = is_one_sa(sas, count);
	unsigned int jobs = 0;
	for (unsigned int begin = 0, end; begin < count; begin = end) {
		end = one ? count : end_of_run(sas, begin, count);
		uint64_t run = UINT64_MAX >> (ESP_BURST_MAX - (end - begin)) << begin & ~without;
		if (likely(run != 0))
			jobs = prepare_run(
				context, packets, sas[begin], run, now, drops, jobs, &udp6);
	}
	if (unlikely(context->dummies))
		mark_dummies(context, jobs);
	esp_encrypt_jobs(context, jobs);
	for (; udp6 != 0; udp6 &= udp6 - 1)
		finish_udp6(packets[__builtin_ctzll(udp6)]);
	return count - jobs;
}

unsigned int esp_encapsulate_dummies(struct esp_context *context, struct rte_mbuf *const *packets,
	struct esp_sa_out *const *sas, uint8_t *drops, unsigned int count)
{
	context->dummies = true;
	unsigned int refused = esp_encapsulate(context, packets, sas, drops, count);
	context->dummies = false;
	return refused;
}
