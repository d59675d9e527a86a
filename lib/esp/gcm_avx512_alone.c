// SPDX-License-Identifier: BSD-3-Clause
// Copyright (c) 2026 the espgw authors

// AES-256-GCM (NIST SP 800-38D) of messages one after the other, with AVX-512, VAES and VPCLMULQDQ:
// long ones, and short ones that nothing goes together with.
//
// A register is a row, four successive blocks. The counters of a row begin with a multiple of four,
// so that a block's place is where its counter is, and what goes before the data has a place, too:
//
//           counters      enciphers       hashes
//   row 0    0  1  2  3   - tag 1 2       - AAD 1 2
//   row 1    4  5  6  7   3  4  5 6       3  4  5 6
//   ...
//   the last              59 60 - -       59 60 lengths -
//
// Steps of eight rows, and a last one of up to ten, keep the AES units busy, which bound Intel's
// cores and AMD's Zen 4; on Zen 5 it is the multiplier (GHASH). Both work at a time: beside the
// rounds of a step's rows a step's ciphertext is hashed, its own when decrypting, else that of the
// step before, which may be the last of the message before. There is one reduction a step.
// Meanwhile the next message is fetched, to be written: it may lie in another core's cache.
//
// Nothing branches on or addresses by data or keys, only by lengths.

#include <immintrin.h>

#include <rte_common.h>

#include "gcm_avx512.h"

// LAST_ROWS: so many that its blocks and the lengths have powers of their own.
enum { STEP_ROWS = 8, STEP_BLOCKS = 4 * STEP_ROWS, STEP_BYTES = STEP_ROWS * ROW_BYTES };
enum { LAST_ROWS = 10, LAST_BYTES = LAST_ROWS * ROW_BYTES };
enum { HASHED_ROWS = LAST_ROWS + 1 };     // the lengths may have one of their own
enum { HEAD_BYTES = 2 * GCM_BLOCK_SIZE }; // what precedes the data in the first row
_Static_assert(4 * LAST_ROWS + 1 <= GCM_POWERS, "the last step's powers");

// All loops over rows are unrolled, so that their registers are registers.
#define EACH(row, count) _Pragma("GCC unroll 10") for (unsigned int row = 0; row < (count); row++)

// A message, and how far it is.
struct message {
	const struct gcm_job *job;
	uint8_t *data; // of the step; the first row's begins with HEAD_BYTES that are none
	uint64_t left; // bytes from there
	unsigned int counter;
	__m512i nonce;                    // with counters 0 to 3, under the first round key
	const uint8_t *ahead, *ahead_end; // what is left of the next message to be fetched
};

// What of a message is to be hashed next: a step's blocks, with what goes before and behind them.
struct hashing {
	const struct gcm_job *job;   // NULL: nothing is
	struct sum before;           // products of the steps before
	__m512i blocks[HASHED_ROWS]; // reversed
	unsigned int rows;
	const uint8_t *powers; // of the first row
	__m128i tag_mask;
};

// Where in its message a step is.
enum place { ONLY, FIRST, MIDDLE, LAST };

INLINE bool is_first(enum place place)
{
	return place == ONLY || place == FIRST;
}

INLINE bool is_last(enum place place)
{
	return place == ONLY || place == LAST;
}

INLINE struct sum no_sum(void)
{
	return (struct sum){_mm512_setzero_si512(), _mm512_setzero_si512(), _mm512_setzero_si512()};
}

// ---- counter mode ----

// Of a block, big-endian.
INLINE __m512i counter_words(unsigned int counter)
{
	return _mm512_maskz_set1_epi32(0x8888, (int)__builtin_bswap32(counter));
}

INLINE __m512i start_nonce(const struct gcm_job *job)
{
	const __m512i counters =
		_mm512_set_epi32(3 << 24, 0, 0, 0, 2 << 24, 0, 0, 0, 1 << 24, 0, 0, 0, 0, 0, 0, 0);
	__m128i nonce = _mm_blend_epi32(load16(job->nonce), _mm_setzero_si128(), 8);
	__m128i key = load16(job->key->schedule.expanded_keys);
	return _mm512_xor_si512(counters, _mm512_broadcast_i32x4(_mm_xor_si128(nonce, key)));
}

// The counter of a step is a multiple of its rows' 32 blocks: adding to it is xoring.
INLINE void start_rows(const struct message *message, __m512i *rows, unsigned int count)
{
	static const uint32_t steps[STEP_ROWS][4] __attribute__((aligned(64))) = {{0, 0, 0, 0},
		{0, 0, 0, 4 << 24}, {0, 0, 0, 8 << 24}, {0, 0, 0, 12 << 24}, {0, 0, 0, 16 << 24},
		{0, 0, 0, 20 << 24}, {0, 0, 0, 24 << 24}, {0, 0, 0, 28 << 24}};
	__m512i first = _mm512_xor_si512(message->nonce, counter_words(message->counter));
	__m512i next =
		_mm512_xor_si512(message->nonce, counter_words(message->counter + STEP_BLOCKS));
	EACH(i, count)
	rows[i] = _mm512_xor_si512(
		i < STEP_ROWS ? first : next, _mm512_broadcast_i32x4(load16(steps[i % STEP_ROWS])));
}

// ---- GHASH ----

INLINE __m512i reverse(__m512i blocks)
{
	return _mm512_shuffle_epi8(blocks, byte_order());
}

INLINE void add_row(struct sum *sum, const struct hashing *hashing, unsigned int row)
{
	add_product(sum, hashing->blocks[row],
		_mm512_loadu_si512(hashing->powers + (size_t)row * ROW_BYTES));
}

// The lanes' sum, in the first lane; the others are zero.
INLINE __m512i add_lanes(__m512i row)
{
	__m256i half =
		_mm256_xor_si256(_mm512_castsi512_si256(row), _mm512_extracti64x4_epi64(row, 1));
	return _mm512_zextsi128_si512(
		_mm_xor_si128(_mm256_castsi256_si128(half), _mm256_extracti128_si256(half, 1)));
}

// To the first block.
INLINE void add_before(struct hashing *hashing)
{
	hashing->blocks[0] =
		_mm512_xor_si512(hashing->blocks[0], add_lanes(reduce(&hashing->before)));
}

// The AAD at its place, reversed; else zero.
INLINE __m512i place_aad(const struct gcm_job *job)
{
	__mmask64 mask = (UINT64_C(0xffff) << (16 - job->aad_length) & 0xffff) << GCM_BLOCK_SIZE;
	return _mm512_maskz_shuffle_epi8(
		mask, _mm512_broadcast_i32x4(load16(job->aad)), byte_order());
}

INLINE __m512i length_bits(const struct gcm_job *job)
{
	return _mm512_slli_epi64(_mm512_broadcast_i32x4(load16(&job->length)), 3);
}

// Besides a step's blocks the AAD is hashed, before them, and the lengths, behind.
INLINE void place_others(struct hashing *hashing, const struct message *message, unsigned int count,
	enum place place)
{
	const struct gcm_job *job = message->job;
	if (is_first(place)) {
		hashing->before = no_sum();
		hashing->blocks[0] = _mm512_or_si512(hashing->blocks[0], place_aad(job));
	}
	hashing->rows = count;
	hashing->powers = power(job, STEP_BLOCKS);
	if (!is_last(place))
		return;
	uint64_t blocks = block_count(message->left);
	hashing->powers = power(job, blocks + 1);
	__mmask8 behind = (__mmask8)(3u << 2 * (blocks % 4));
	if (blocks % 4 != 0)
		hashing->blocks[count - 1] =
			_mm512_mask_mov_epi64(hashing->blocks[count - 1], behind, length_bits(job));
	else
		hashing->blocks[hashing->rows++] = _mm512_maskz_mov_epi64(behind, length_bits(job));
}

INLINE void write_tag(const struct hashing *hashing, const struct sum *sum)
{
	__m128i tag = _mm512_castsi512_si128(reverse(add_lanes(reduce(sum))));
	_mm_storeu_si128((__m128i *)hashing->job->tag, _mm_xor_si128(tag, hashing->tag_mask));
}

// ---- steps ----

// What is hashed beside a step: at least and at most so many rows, and maybe what is before them.
struct beside {
	unsigned int least, most;
	bool before;
};

// AES of `count` rows. Returns the products of what is hashed beside it.
INLINE struct sum cipher(const struct message *message, __m512i *rows, unsigned int count,
	struct hashing *hashing, struct beside beside)
{
	const uint8_t *keys = message->job->key->schedule.expanded_keys;
	struct sum sum = no_sum();
	// The compiler must not take hashing that many steps have in common out of them: it would
	// not be beside their cipher any more.
	__asm__ volatile("" : "+r"(hashing->powers));
	const uint8_t *fetched =
		message->ahead < message->ahead_end ? message->ahead : message->data;
	_Pragma("GCC unroll 15") for (unsigned int round = 1; round <= ROUNDS; round++)
	{
		__m512i key = round_key(keys, round);
		EACH(i, count)
		rows[i] = cipher_round(rows[i], key, round);
		if (round <= count)
			__builtin_prefetch(fetched + (size_t)(round - 1) * ROW_BYTES, 1);
		if (beside.before && round == 4)
			add_before(hashing);
		// Rows 1 to 7 are spread evenly, the few others go between.
		unsigned int row = round % 2 == 1 ? 1 + round / 2 : STEP_ROWS - 1 + round / 2;
		if (row < beside.least || (row < beside.most && row < hashing->rows))
			add_row(&sum, hashing, row);
	}
	if (beside.most != 0)
		add_row(&sum, hashing, 0);
	return sum;
}

// The bytes of a row that are data.
INLINE __mmask64 row_mask(
	const struct message *message, unsigned int row, unsigned int count, enum place place)
{
	__mmask64 mask = ~UINT64_C(0);
	if (is_last(place) && row == count - 1)
		mask = first_bytes(message->left, (uint64_t)row * ROW_BYTES, ROW_BYTES);
	if (is_first(place) && row == 0)
		mask &= ~UINT64_C(0) << HEAD_BYTES;
	return mask;
}

INLINE void load_blocks(struct hashing *hashing, const struct message *message, unsigned int count,
	enum place place)
{
	EACH(i, count)
	hashing->blocks[i] = reverse(_mm512_maskz_loadu_epi8(
		row_mask(message, i, count, place), message->data + (size_t)i * ROW_BYTES));
}

// In place. When encrypting, what is to be hashed is there only then.
INLINE void pass_rows(struct hashing *hashing, const struct message *message, const __m512i *rows,
	unsigned int count, enum place place, bool encrypt)
{
	EACH(i, count)
	{
		uint8_t *data = message->data + (size_t)i * ROW_BYTES;
		__mmask64 mask = row_mask(message, i, count, place);
		__m512i out = _mm512_xor_si512(_mm512_maskz_loadu_epi8(mask, data), rows[i]);
		_mm512_mask_storeu_epi8(data, mask, out);
		if (encrypt)
			hashing->blocks[i] = reverse(_mm512_maskz_mov_epi8(mask, out));
	}
}

INLINE void begin_tag(struct hashing *hashing, const struct message *message, __m512i first_row)
{
	hashing->job = message->job;
	hashing->tag_mask = _mm512_extracti32x4_epi32(first_row, 1);
}

// The ciphertext of a step is hashed beside the next step's cipher, that of a message's last one
// beside the next message's first.
INLINE void encrypt_step(
	struct message *message, struct hashing *hashing, unsigned int count, enum place place)
{
	__m512i rows[LAST_ROWS];
	start_rows(message, rows, count);
	if (is_first(place)) {
		struct sum sum = cipher(message, rows, count, hashing,
			(struct beside){.most = HASHED_ROWS, .before = true});
		if (hashing->job != NULL)
			write_tag(hashing, &sum);
		begin_tag(hashing, message, rows[0]);
	} else {
		hashing->before = cipher(
			message, rows, count, hashing, (struct beside){STEP_ROWS, STEP_ROWS, true});
	}
	pass_rows(hashing, message, rows, count, place, true);
	place_others(hashing, message, count, place);
}

INLINE void finish(struct hashing *hashing)
{
	struct sum sum = no_sum();
	add_before(hashing);
	for (unsigned int row = 0; row < hashing->rows; row++)
		add_row(&sum, hashing, row);
	write_tag(hashing, &sum);
}

// It is there before, and hashed beside its own.
INLINE void decrypt_step(
	struct message *message, struct hashing *hashing, unsigned int count, enum place place)
{
	__m512i rows[LAST_ROWS];
	start_rows(message, rows, count);
	load_blocks(hashing, message, count, place);
	place_others(hashing, message, count, place);
	struct sum sum = cipher(message, rows, count, hashing,
		(struct beside){count, count + is_last(place), !is_first(place)});
	if (is_first(place))
		begin_tag(hashing, message, rows[0]);
	pass_rows(hashing, message, rows, count, place, false);
	if (is_last(place))
		write_tag(hashing, &sum);
	else
		hashing->before = sum;
}

INLINE void pass_step(struct message *message, struct hashing *hashing, unsigned int count,
	enum place place, bool encrypt)
{
	if (encrypt)
		encrypt_step(message, hashing, count, place);
	else
		decrypt_step(message, hashing, count, place);
	message->data += STEP_BYTES;
	message->left -= STEP_BYTES;
	message->counter += STEP_BLOCKS;
	message->ahead += STEP_BYTES;
}

#define STEP(count, place)                                           \
	case count:                                                  \
		pass_step(&message, hashing, count, place, encrypt); \
		break

// `next`: the message after it, or itself.
INLINE void pass(const struct gcm_job *job, const struct gcm_job *next, struct hashing *hashing,
	bool encrypt)
{
	struct message message = {
		.job = job,
		.data = job->data - HEAD_BYTES,
		.left = job->length + HEAD_BYTES,
		.nonce = start_nonce(job),
		.ahead = next->data,
		.ahead_end = next->data + next->length,
	};
	if (message.left <= LAST_BYTES) {
		switch ((message.left + ROW_BYTES - 1) / ROW_BYTES) {
			STEP(1, ONLY);
			STEP(2, ONLY);
			STEP(3, ONLY);
			STEP(4, ONLY);
			STEP(5, ONLY);
			STEP(6, ONLY);
			STEP(7, ONLY);
			STEP(8, ONLY);
			STEP(9, ONLY);
			STEP(10, ONLY);
		}
		return;
	}
	pass_step(&message, hashing, STEP_ROWS, FIRST, encrypt);
	while (message.left > LAST_BYTES)
		pass_step(&message, hashing, STEP_ROWS, MIDDLE, encrypt);
	// Less than three rows would have been taken into the step before.
	switch ((message.left + ROW_BYTES - 1) / ROW_BYTES) {
		STEP(3, LAST);
		STEP(4, LAST);
		STEP(5, LAST);
		STEP(6, LAST);
		STEP(7, LAST);
		STEP(8, LAST);
		STEP(9, LAST);
		STEP(10, LAST);
	}
}

void gcm_avx512_encrypt_alone(const struct gcm_job *const *jobs, unsigned int count)
{
	struct hashing hashing; // as a whole it would be zeroed in vain
	hashing.job = NULL;
	hashing.before = no_sum();
	hashing.blocks[0] = _mm512_setzero_si512();
	hashing.rows = 0;
	hashing.powers = power(jobs[0], 1);
	hashing.tag_mask = _mm_setzero_si128();
	for (unsigned int i = 0; i < count; i++)
		pass(jobs[i], jobs[RTE_MIN(i + 1, count - 1)], &hashing, true);
	finish(&hashing);
}

void gcm_avx512_decrypt_alone(const struct gcm_job *const *jobs, unsigned int count)
{
	struct hashing hashing;
	for (unsigned int i = 0; i < count; i++)
		pass(jobs[i], jobs[RTE_MIN(i + 1, count - 1)], &hashing, false);
}
