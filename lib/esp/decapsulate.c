// SPDX-License-Identifier: BSD-3-Clause
// Copyright (c) 2026 the espgw authors

// Decapsulation of a burst (RFC 4303 section 3.4, RFC 4106), in passes over the burst: replay
// check, cipher, integrity check, replay window, inner packet. Neighbours that share an SA are a
// run: what the SA has for them is read once.

#include <string.h>

#include <rte_cycles.h>
#include <rte_prefetch.h>
#include <rte_vect.h>

#include "sa.h"

#define RUNT_SIZE (ESP_HEADER_SIZE + ESP_IV_SIZE + 2 + ESP_ICV_SIZE)

// What the packets of a run have in common.
struct common {
	const struct replay_window *window;
	uint64_t top; // of the window, before the run
	const struct gcm_key *key;
	__m128i salt; // in the first four bytes
};

// The packet may be decrypted. ESP header and IV are 16 bytes: SPI, lower half of the sequence
// number, IV. `esn`: the SA's, as a constant.
static __rte_always_inline void make_job(struct gcm_job *job, uint8_t *tag, uint8_t *esp,
	uint32_t size, const struct common *common, bool esn, uint64_t sequence)
{
	const __m128i nonce_order =
		_mm_setr_epi8(-1, -1, -1, -1, 8, 9, 10, 11, 12, 13, 14, 15, -1, -1, -1, -1);
	__m128i header = _mm_loadu_si128((const __m128i *)esp);
	__m128i nonce = _mm_or_si128(common->salt, _mm_shuffle_epi8(header, nonce_order));
	__m128i aad = _mm_move_epi64(header); // as received: the ICV covers both
	if (esn) {
		int high = (int)rte_cpu_to_be_32((uint32_t)(sequence >> 32));
		aad = _mm_insert_epi32(_mm_shuffle_epi32(aad, _MM_SHUFFLE(3, 1, 2, 0)), high, 1);
	}
	_mm_store_si128((__m128i *)job->nonce, nonce);
	_mm_store_si128((__m128i *)job->aad, aad);
	job->key = common->key;
	job->data = esp + ESP_HEADER_SIZE + ESP_IV_SIZE;
	set_lengths(job, size - ESP_HEADER_SIZE - ESP_IV_SIZE - ESP_ICV_SIZE, esn ? 12 : 8);
	job->tag = tag;
}

static inline struct common read_common(const struct esp_sa_in *sa)
{
	uint32_t salt;
	memcpy(&salt, sa->salt, sizeof(salt));
	return (struct common){
		.window = &sa->window,
		.top = replay_top(&sa->window),
		.key = &sa->key,
		.salt = _mm_cvtsi32_si128((int)salt),
	};
}

// Checks packets [begin, end), which are a run, before the cipher and makes their jobs. Returns
// jobs after adding theirs. `esn`: the SA's, as a constant.
static __rte_always_inline unsigned int prepare_packets(struct esp_context *context,
	struct rte_mbuf *const *packets, const struct common *common, bool esn, unsigned int begin,
	unsigned int end, uint8_t *drops, unsigned int jobs)
{
	struct gcm_job *job = &context->jobs[jobs];
	uint8_t *tag = context->tags[jobs], *job_packet = &context->job_packets[jobs];
	for (unsigned int i = begin; i < end; i++) {
		const struct rte_mbuf *packet = packets[i];
		uint32_t size = packet->data_len;
		uint64_t sequence = 0;
		if (unlikely(packet->nb_segs != 1 || size < RUNT_SIZE)) {
			drops[i] = packet->nb_segs != 1 ? DROP_NOT_LINEAR : DROP_RUNT;
			continue;
		}
		uint8_t *esp = rte_pktmbuf_mtod(packet, uint8_t *);
		rte_prefetch0_write(esp + size - ESP_ICV_SIZE);
		uint32_t low;
		memcpy(&low, esp + 4, sizeof(low));
		low = rte_be_to_cpu_32(low);
		enum drop_reason reason =
			replay_check(common->window, esn, common->top, low, &sequence);
		if (unlikely(reason != DROP_NONE)) {
			drops[i] = (uint8_t)reason;
			continue;
		}
		context->sequences[i] = sequence;
		make_job(job++, tag, esp, size, common, esn, sequence);
		tag += GCM_TAG_SIZE;
		*job_packet++ = (uint8_t)i;
	}
	return (unsigned int)(job - context->jobs);
}

static unsigned int prepare_run(struct esp_context *context, struct rte_mbuf *const *packets,
	const struct esp_sa_in *sa, unsigned int begin, unsigned int end, uint8_t *drops,
	unsigned int jobs)
{
	const struct common common = read_common(sa);
	if (sa->window.esn)
		return prepare_packets(context, packets, &common, true, begin, end, drops, jobs);
	return prepare_packets(context, packets, &common, false, begin, end, drops, jobs);
}

// 0: the ICV is right. Compares in constant time.
static inline __m128i icv_difference(const struct gcm_job *job)
{
	__m128i computed = _mm_loadu_si128((const __m128i *)job->tag);
	__m128i received = _mm_loadu_si128((const __m128i *)(job->data + job->length));
	return _mm_xor_si128(computed, received);
}

static __attribute__((noinline)) void find_wrong_icvs(
	const struct esp_context *context, unsigned int jobs, uint8_t *drops)
{
	for (unsigned int job = 0; job < jobs; job++) {
		__m128i difference = icv_difference(&context->jobs[job]);
		if (_mm_testz_si128(difference, difference) == 0)
			drops[context->job_packets[job]] = DROP_ICV;
	}
}

static inline void check_icvs(const struct esp_context *context, unsigned int jobs, uint8_t *drops)
{
	__m128i differences = _mm_setzero_si128();
	for (unsigned int job = 0; job < jobs; job++)
		differences = _mm_or_si128(differences, icv_difference(&context->jobs[job]));
	if (unlikely(_mm_testz_si128(differences, differences) == 0))
		find_wrong_icvs(context, jobs, drops);
}

// The padding is 1,2,3... (RFC 4303 section 2.4): bytes that are there are `length` from `data` on.
static bool padding_is_right(const uint8_t *data, uint32_t length)
{
	for (uint32_t i = 0; i < length; i++)
		if (data[i] != i + 1)
			return false;
	return true;
}

// The last eight bytes of the plaintext: padding, pad length, next header. (Before the plaintext
// stands the IV, so they can be read whatever its length.)
static inline uint64_t read_end(const uint8_t *data, uint32_t length)
{
	uint64_t end;
	memcpy(&end, data + length - sizeof(end), sizeof(end));
	return end;
}

// Whether the plaintext that ends so has this padding, of 0 to 3 bytes, and holds an IPv4 packet.
// Compared at once: a loop over so few bytes is mispredicted.
static inline bool trailer_is(uint64_t end, uint32_t padding)
{
	// By pad length: which bytes of `end` are the trailer's, and what they are.
	static const struct {
		uint64_t masks[4], trailers[4];
	} usual = {
		.masks = {UINT64_C(0xffff) << 48, UINT64_C(0xffffff) << 40,
			UINT64_C(0xffffffff) << 32, UINT64_C(0xffffffffff) << 24},
		.trailers = {UINT64_C(0x0400) << 48, UINT64_C(0x040101) << 40,
			UINT64_C(0x04020201) << 32, UINT64_C(0x0403030201) << 24},
	};
	return (end & usual.masks[padding]) == usual.trailers[padding];
}

// Reads pad length and next header. DROP_NONE, and the bytes before the padding.
static enum drop_reason check_trailer(
	const uint8_t *data, uint32_t length, uint32_t *inner, uint8_t *next_header)
{
	uint64_t end = read_end(data, length);
	uint32_t padding = end >> 48 & 0xff;
	*next_header = (uint8_t)(end >> 56);
	if (padding + 2 > length)
		return DROP_BAD_PADDING;
	*inner = length - 2 - padding;
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

static enum drop_reason propagate_ecn(uint8_t *inner, uint8_t inner_ecn, uint8_t outer_ecn)
{
	uint8_t result = ecn_results[inner_ecn][outer_ecn];
	if (result == ECN_DROP)
		return DROP_ECN;
	if (result != inner_ecn)
		packet_ip_set_ecn(inner, result);
	return DROP_NONE;
}

// The header of the inner packet, which has `size` bytes at most. The far side vouches for it: the
// checksum is for the end host to judge.
static enum drop_reason check_inner(
	const uint8_t *inner, uint32_t size, uint8_t next_header, uint32_t *length)
{
	if (next_header != IPPROTO_IPIP && next_header != IPPROTO_IPV6)
		return next_header == IPPROTO_NONE ? DROP_DUMMY : DROP_BAD_NEXT_HEADER;
	if ((inner[0] >> 4 == 4) != (next_header == IPPROTO_IPIP))
		return DROP_BAD_INNER;
	return packet_ip_check(inner, size, false, length);
}

// What an authenticated packet holds, which starts at `data` and has `length` bytes: DROP_NONE and
// the bytes of the inner packet.
static __attribute__((noinline)) enum drop_reason check_any(
	uint8_t *data, uint32_t length, uint8_t outer_traffic_class, uint32_t *ip_length)
{
	uint32_t inner = 0;
	uint8_t next_header;
	enum drop_reason reason = check_trailer(data, length, &inner, &next_header);
	if (reason != DROP_NONE)
		return reason;
	reason = check_inner(data, inner, next_header, ip_length);
	if (reason != DROP_NONE)
		return reason == DROP_BAD_HEADER ? DROP_BAD_INNER : reason;
	return propagate_ecn(data, packet_ip_traffic_class(data) & PACKET_IP_ECN_MASK,
		outer_traffic_class & PACKET_IP_ECN_MASK);
}

// Whether the packet is as nearly all are: IPv4 without options between hosts, padding of 0 to 3
// bytes and none of TFC, the ECN field of the outer header. check_any comes to the same for these;
// what is not so it judges.
static inline bool is_plain(
	const uint8_t *data, uint32_t length, uint8_t outer_traffic_class, uint32_t *ip_length)
{
	uint32_t start; // version and IHL, traffic class, total length
	memcpy(&start, data, sizeof(start));
	const uint32_t mask = 0xff | PACKET_IP_ECN_MASK << 8;
	uint32_t expected = RTE_IPV4_VHL_DEF | (uint32_t)outer_traffic_class << 8;
	uint32_t total = rte_bswap32(start) & 0xffff;
	uint32_t padding = length - 2 - total;
	*ip_length = total;
	return likely(((start ^ expected) & mask) == 0) && likely(padding <= 3) &&
	       likely(total >= sizeof(struct rte_ipv4_hdr)) &&
	       likely(packet_ipv4_are_hosts(data)) &&
	       likely(trailer_is(read_end(data, length), padding));
}

static inline void cut_to_inner(struct rte_mbuf *packet, uint32_t ip_length)
{
	packet->data_off = (uint16_t)(packet->data_off + ESP_HEADER_SIZE + ESP_IV_SIZE);
	packet->data_len = (uint16_t)ip_length; // TFC padding goes here
	packet->pkt_len = ip_length;
}

// An authenticated packet that is not plain. Returns the bytes of the inner packet, or 0 and *drop.
static __attribute__((noinline)) uint32_t extract_any(
	struct rte_mbuf *packet, uint8_t outer_traffic_class, uint8_t *drop)
{
	uint8_t *data = rte_pktmbuf_mtod_offset(packet, uint8_t *, ESP_HEADER_SIZE + ESP_IV_SIZE);
	uint32_t length = packet->data_len - ESP_HEADER_SIZE - ESP_IV_SIZE - ESP_ICV_SIZE;
	uint32_t ip_length = 0;
	enum drop_reason reason = check_any(data, length, outer_traffic_class, &ip_length);
	*drop = (uint8_t)reason;
	if (reason != DROP_NONE)
		return 0;
	cut_to_inner(packet, ip_length);
	return ip_length;
}

// Cuts the mbufs of authenticated packets down to their inner packets, and passes refused ones
// over. Returns the bytes of the inner packets; *plain becomes false where one is not.
static inline uint64_t extract_inners(struct rte_mbuf *const *packets,
	const uint8_t *traffic_classes, uint8_t *drops, unsigned int count, bool *plain)
{
	uint64_t bytes = 0;
	for (unsigned int i = 0; i < count; i++) {
		struct rte_mbuf *packet = packets[i];
		const uint8_t *data = rte_pktmbuf_mtod_offset(
			packet, const uint8_t *, ESP_HEADER_SIZE + ESP_IV_SIZE);
		uint32_t around = ESP_HEADER_SIZE + ESP_IV_SIZE + ESP_ICV_SIZE, ip_length;
		if (unlikely(drops[i] != DROP_NONE))
			continue;
		if (unlikely(!is_plain(
			    data, packet->data_len - around, traffic_classes[i], &ip_length))) {
			bytes += extract_any(packet, traffic_classes[i], &drops[i]);
			*plain = false;
			continue;
		}
		cut_to_inner(packet, ip_length);
		bytes += ip_length;
	}
	return bytes;
}

static inline unsigned int count_refused(const uint8_t *drops, unsigned int count)
{
	unsigned int refused = 0;
	for (unsigned int i = 0; i < count; i++)
		refused += drops[i] != DROP_NONE;
	return refused;
}

// Drops the packets that the SA's selectors leave out (RFC 4301 section 5.2, step 4). Returns their
// bytes.
static __attribute__((noinline)) uint64_t refuse_unselected(const struct selector_set *selectors,
	struct rte_mbuf *const *packets, uint8_t *drops, unsigned int count)
{
	uint64_t bytes = 0;
	for (unsigned int i = 0; i < count; i++) {
		const struct rte_mbuf *packet = packets[i];
		if (drops[i] != DROP_NONE ||
			selectors_match(selectors, rte_pktmbuf_mtod(packet, const uint8_t *),
				packet->pkt_len, false))
			continue;
		drops[i] = DROP_SELECTOR;
		bytes += packet->data_len;
	}
	return bytes;
}

// Moves the window, then takes out the inner packets. Packets that were refused stand in the run
// without effect. Returns how many are refused now.
static inline unsigned int finish_run(struct esp_context *context, struct rte_mbuf *const *packets,
	struct esp_sa_in *sa, unsigned int begin, unsigned int end, const uint8_t *traffic_classes,
	uint64_t now, uint8_t *drops)
{
	const unsigned int count = end - begin;
	packets += begin;
	drops += begin;
	context->tops[begin] = replay_commit(&sa->window, &context->sequences[begin], drops, count);
	uint64_t bytes = extract_inners(
		packets, traffic_classes + begin, drops, count, &context->accepted.plain);
	if (unlikely(sa->selective))
		bytes -= refuse_unselected(sa->selectors, packets, drops, count);
	unsigned int refused = count_refused(drops, count);
	context->accepted.bytes += bytes;
	if (likely(refused != count)) {
		struct esp_counters *counters = &sa->counters[context->worker];
		counters->packets += count - refused;
		counters->bytes += bytes;
		counters->last_use = now;
	}
	return refused;
}

unsigned int esp_decapsulate(struct esp_context *context, struct rte_mbuf *const *packets,
	struct esp_sa_in *const *sas, const uint8_t *traffic_classes, uint8_t *drops,
	unsigned int count)
{
	const bool one = is_one_sa(sas, count);
	unsigned int jobs = 0, refused = 0;
	memset(drops, DROP_NONE, count);
	context->accepted = (struct esp_accepted){.bytes = 0, .plain = true};
	for (unsigned int begin = 0, end; begin < count; begin = end) {
		end = one ? count : end_of_run(sas, begin, count);
		jobs = prepare_run(context, packets, sas[begin], begin, end, drops, jobs);
	}
	esp_decrypt_jobs(context, jobs);
	check_icvs(context, jobs, drops);
	uint64_t now = rte_rdtsc();
	for (unsigned int begin = 0, end; begin < count; begin = end) {
		end = one ? count : end_of_run(sas, begin, count);
		refused += finish_run(
			context, packets, sas[begin], begin, end, traffic_classes, now, drops);
	}
	return refused;
}

struct esp_accepted esp_accepted(const struct esp_context *context)
{
	return context->accepted;
}
