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
// Steps of eight rows, and a last one of up to ten, keep the AES units busy. These are what bounds
// Intel's cores, and the multiplier (GHASH) AMD's. Both work at a time: beside the rounds of a
// step's rows a step's ciphertext is hashed, its own when decrypting, else that of the step before.
// There is one reduction a step.
//
// Nothing branches on or addresses by data or keys, only by lengths.

#include <immintrin.h>

#include "gcm_avx512.h"

// LAST_ROWS: so many that its blocks and the lengths have powers of their own.
enum { STEP_ROWS = 8, STEP_BLOCKS = 4 * STEP_ROWS, STEP_BYTES = STEP_ROWS * ROW_BYTES };
enum { LAST_ROWS = 10, LAST_BYTES = LAST_ROWS * ROW_BYTES };
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
	__m512i nonce;             // with counters 0 to 3, under the first round key
	__m512i hash;              // of what precedes the blocks, in the first lane; else zero
	__m512i blocks[LAST_ROWS]; // ciphertext that is to be hashed, reversed
	__m128i tag_mask;
};

// Where in its message a step is.
enum place { ONLY, FIRST, MIDDLE, LAST };

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

INLINE void add_row(
	struct sum *sum, const struct message *message, unsigned int row, const uint8_t *powers)
{
	__m512i blocks = message->blocks[row];
	// The first goes last, because the hash of what precedes it comes late.
	if (row == 0)
		blocks = _mm512_xor_si512(blocks, message->hash);
	add_product(sum, blocks, _mm512_loadu_si512(powers + (size_t)row * ROW_BYTES));
}

// The lanes' sum, in the first lane; the others are zero.
INLINE __m512i add_lanes(__m512i row)
{
	__m256i half =
		_mm256_xor_si256(_mm512_castsi512_si256(row), _mm512_extracti64x4_epi64(row, 1));
	return _mm512_zextsi128_si512(
		_mm_xor_si128(_mm256_castsi256_si128(half), _mm256_extracti128_si256(half, 1)));
}

// The hash as struct message has it.
INLINE __m512i reduce_lanes(const struct sum *sum)
{
	struct sum lane = {add_lanes(sum->low), add_lanes(sum->middle), add_lanes(sum->high)};
	return reduce(&lane);
}

// The AAD at its place, reversed; else zero.
INLINE __m512i place_aad(const struct gcm_job *job)
{
	__mmask64 mask = (UINT64_C(0xffff) << (16 - job->aad_length) & 0xffff) << GCM_BLOCK_SIZE;
	return _mm512_maskz_shuffle_epi8(
		mask, _mm512_broadcast_i32x4(load16(job->aad)), byte_order());
}

// ---- steps ----

// AES of `count` rows, and beside it the hash of `hashed` rows of blocks.
INLINE void cipher(const struct message *message, __m512i *rows, unsigned int count,
	unsigned int hashed, const uint8_t *powers, struct sum *sum)
{
	const uint8_t *keys = message->job->key->schedule.expanded_keys;
	_Pragma("GCC unroll 15") for (unsigned int round = 1; round <= ROUNDS; round++)
	{
		__m512i key = round_key(keys, round);
		EACH(i, count)
		rows[i] = cipher_round(rows[i], key, round);
		// Rows 1 to 7 are spread evenly, the few others go between.
		unsigned int row = round % 2 == 1 ? 1 + round / 2 : STEP_ROWS - 1 + round / 2;
		if (row < hashed)
			add_row(sum, message, row, powers);
	}
	if (hashed != 0)
		add_row(sum, message, 0, powers);
}

INLINE bool is_first(enum place place)
{
	return place == ONLY || place == FIRST;
}

INLINE bool is_last(enum place place)
{
	return place == ONLY || place == LAST;
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

INLINE void load_blocks(struct message *message, unsigned int count, enum place place)
{
	EACH(i, count)
	message->blocks[i] = reverse(_mm512_maskz_loadu_epi8(
		row_mask(message, i, count, place), message->data + (size_t)i * ROW_BYTES));
}

// In place. When encrypting, what is to be hashed is there only then.
INLINE void pass_rows(struct message *message, const __m512i *rows, unsigned int count,
	enum place place, bool encrypt)
{
	EACH(i, count)
	{
		uint8_t *data = message->data + (size_t)i * ROW_BYTES;
		__mmask64 mask = row_mask(message, i, count, place);
		__m512i out = _mm512_xor_si512(_mm512_maskz_loadu_epi8(mask, data), rows[i]);
		_mm512_mask_storeu_epi8(data, mask, out);
		if (encrypt)
			message->blocks[i] = reverse(_mm512_maskz_mov_epi8(mask, out));
	}
}

INLINE __m512i length_bits(const struct message *message)
{
	return _mm512_slli_epi64(_mm512_broadcast_i32x4(load16(&message->job->length)), 3);
}

// What is hashed besides data: the AAD before it, and the lengths behind the last block, unless
// that was a row's last.
INLINE void place_others(struct message *message, unsigned int count, enum place place)
{
	if (is_first(place))
		message->blocks[0] = _mm512_or_si512(message->blocks[0], place_aad(message->job));
	if (!is_last(place))
		return;
	uint64_t lane = block_count(message->left) - 4 * (count - 1);
	message->blocks[count - 1] = _mm512_mask_mov_epi64(
		message->blocks[count - 1], (__mmask8)(3u << 2 * lane), length_bits(message));
}

// `sum`: of the last rows.
INLINE void write_tag(const struct message *message, struct sum *sum)
{
	const struct gcm_job *job = message->job;
	if (block_count(message->left) % 4 == 0)
		add_product(sum, _mm512_maskz_mov_epi64(3, length_bits(message)),
			_mm512_loadu_si512(power(job, 1)));
	__m128i tag = _mm512_castsi512_si128(reverse(reduce_lanes(sum)));
	_mm_storeu_si128((__m128i *)job->tag, _mm_xor_si128(tag, message->tag_mask));
}

// The ciphertext of a step is hashed beside the next step's cipher.
INLINE struct sum encrypt_rows(
	struct message *message, __m512i *rows, unsigned int count, enum place place)
{
	const struct sum zero = {
		_mm512_setzero_si512(), _mm512_setzero_si512(), _mm512_setzero_si512()};
	struct sum sum = zero;
	cipher(message, rows, count, is_first(place) ? 0 : STEP_ROWS,
		power(message->job, STEP_BLOCKS), &sum);
	if (!is_first(place))
		message->hash = reduce_lanes(&sum);
	pass_rows(message, rows, count, place, true);
	place_others(message, count, place);
	sum = zero;
	if (!is_last(place))
		return sum;
	const uint8_t *powers = power(message->job, block_count(message->left) + 1);
	EACH(i, count - 1)
	add_row(&sum, message, i + 1, powers);
	add_row(&sum, message, 0, powers);
	return sum;
}

// It is there before, and hashed beside its own.
INLINE struct sum decrypt_rows(
	struct message *message, __m512i *rows, unsigned int count, enum place place)
{
	struct sum sum = {_mm512_setzero_si512(), _mm512_setzero_si512(), _mm512_setzero_si512()};
	load_blocks(message, count, place);
	place_others(message, count, place);
	cipher(message, rows, count, count,
		power(message->job, is_last(place) ? block_count(message->left) + 1 : STEP_BLOCKS),
		&sum);
	pass_rows(message, rows, count, place, false);
	if (!is_last(place))
		message->hash = reduce_lanes(&sum);
	return sum;
}

INLINE void pass_step(struct message *message, unsigned int count, enum place place, bool encrypt)
{
	__m512i rows[LAST_ROWS];
	start_rows(message, rows, count);
	struct sum sum = encrypt ? encrypt_rows(message, rows, count, place)
				 : decrypt_rows(message, rows, count, place);
	if (is_first(place))
		message->tag_mask = _mm512_extracti32x4_epi32(rows[0], 1);
	if (is_last(place)) {
		write_tag(message, &sum);
		return;
	}
	message->data += STEP_BYTES;
	message->left -= STEP_BYTES;
	message->counter += STEP_BLOCKS;
}

#define STEP(count, place)                                  \
	case count:                                         \
		pass_step(&message, count, place, encrypt); \
		break

INLINE void pass(const struct gcm_job *job, bool encrypt)
{
	struct message message = {
		.job = job,
		.data = job->data - HEAD_BYTES,
		.left = job->length + HEAD_BYTES,
		.nonce = start_nonce(job),
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
	pass_step(&message, STEP_ROWS, FIRST, encrypt);
	while (message.left > LAST_BYTES)
		pass_step(&message, STEP_ROWS, MIDDLE, encrypt);
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
	for (unsigned int i = 0; i < count; i++)
		pass(jobs[i], true);
}

void gcm_avx512_decrypt_alone(const struct gcm_job *const *jobs, unsigned int count)
{
	for (unsigned int i = 0; i < count; i++)
		pass(jobs[i], false);
}
