// SPDX-License-Identifier: BSD-3-Clause
// Copyright (c) 2026 the espgw authors

// AES-256-GCM (NIST SP 800-38D) of four short messages at once, with AVX-512, VAES and VPCLMULQDQ.
//
// A register holds four blocks, and it is a row or a column:
//
//              row 0         row 1        column 0   column 1
//   message 0  1 2 3 4       5 6 7 8         J0         9
//   message 1  1 2 3 4       5 6 7 8         J0         9
//   message 2  1 2 3 4       5 6 7 8         J0         9
//   message 3  1 2 3 4       5 6 7 8         J0         9
//
// A row is four successive blocks of one message, so each message has its own register per row. A
// column is one block of each message, so all four share a register: column 0 are the blocks that
// mask the tags, the others what is left of the data after whole rows. No lane is idle when the
// four messages have the same number of blocks; a shorter message's missing blocks are masked.
//
// GHASH: every block is multiplied by its own power of the hash key, the products are summed, and
// there is one reduction for the four tags. AAD and lengths are columns, too. The sums of the rows
// are transposed to columns before they are added.
//
// Nothing branches on or addresses by data or keys, only by lengths.

#include <immintrin.h>

#include <rte_branch_prediction.h>

#include "gcm_avx512.h"

// All loops over messages and columns are unrolled, so that their registers are registers.
#define FOUR(message) _Pragma("GCC unroll 4") for (unsigned int message = 0; message < 4; message++)

// STACK_SIZE: more than the largest frame of a shape; the build fails when one is larger.
enum { STACK_SIZE = 2048 };

// The four messages.
struct four {
	const struct gcm_job *const *jobs;
	const uint8_t *keys[4]; // round keys
	uint8_t *data[4];
	const uint8_t *powers[4]; // of the first data block; they go down as the data goes on
};

// A column from four addresses.
INLINE __m512i gather(const void *a, const void *b, const void *c, const void *d)
{
	__m512i column = _mm512_castsi128_si512(load16(a));
	column = _mm512_mask_broadcast_i32x4(column, 0x00f0, load16(b));
	column = _mm512_mask_broadcast_i32x4(column, 0x0f00, load16(c));
	return _mm512_mask_broadcast_i32x4(column, 0xf000, load16(d));
}

INLINE void scatter(uint8_t *a, uint8_t *b, uint8_t *c, uint8_t *d, __m512i column)
{
	_mm_storeu_si128((__m128i *)a, _mm512_castsi512_si128(column));
	_mm_storeu_si128((__m128i *)b, _mm512_extracti32x4_epi32(column, 1));
	_mm_storeu_si128((__m128i *)c, _mm512_extracti32x4_epi32(column, 2));
	_mm_storeu_si128((__m128i *)d, _mm512_extracti32x4_epi32(column, 3));
}

// ---- counter mode ----

// Nonces with the counters in their last words (big-endian; they stay below 256).
INLINE __m512i with_counters(__m512i nonces, __m512i counters)
{
	const __m512i last_word = _mm512_broadcast_i32x4(_mm_set_epi32(-1, 0, 0, 0));
	return _mm512_ternarylogic_epi32(last_word, counters, nonces, 0xca);
}

INLINE __m512i column_counter(unsigned int counter)
{
	return _mm512_set1_epi32((int)(counter << 24));
}

INLINE __m512i row_counters(unsigned int first)
{
	const __m512i steps =
		_mm512_set_epi32(3 << 24, 0, 0, 0, 2 << 24, 0, 0, 0, 1 << 24, 0, 0, 0, 0, 0, 0, 0);
	return _mm512_add_epi32(steps, column_counter(first));
}

// AES of a row of each message, if `rows` is not NULL, and of some columns. `one_key`: the four
// messages' keys are the same.
INLINE void cipher(const struct four *four, __m512i *rows, __m512i *columns,
	unsigned int column_count, bool one_key)
{
	const uint8_t *const *keys = four->keys;
#pragma GCC unroll 15
	for (unsigned int round = 0; round <= ROUNDS; round++) {
		const unsigned int offset = GCM_BLOCK_SIZE * round;
		__m512i column_key = _mm512_setzero_si512();
		if (one_key)
			column_key = round_key(keys[0], round);
		else if (column_count != 0)
			column_key = gather(keys[0] + offset, keys[1] + offset, keys[2] + offset,
				keys[3] + offset);
		if (rows != NULL)
			FOUR(i)
		rows[i] = cipher_round(
			rows[i], one_key ? column_key : round_key(keys[i], round), round);
#pragma GCC unroll 4
		for (unsigned int i = 0; i < column_count; i++)
			columns[i] = cipher_round(columns[i], column_key, round);
	}
}

INLINE void start_rows(const struct four *four, __m512i rows[4], unsigned int row)
{
	FOUR(i)
	rows[i] = with_counters(
		_mm512_broadcast_i32x4(load16(four->jobs[i]->nonce)), row_counters(2 + 4 * row));
}

// ---- GHASH ----

// Four rows, one of each message, to the column of their lanes' sums.
INLINE __m512i transpose(__m512i a, __m512i b, __m512i c, __m512i d)
{
	__m512i ab = _mm512_xor_si512(
		_mm512_shuffle_i64x2(a, b, 0x44), _mm512_shuffle_i64x2(a, b, 0xee));
	__m512i cd = _mm512_xor_si512(
		_mm512_shuffle_i64x2(c, d, 0x44), _mm512_shuffle_i64x2(c, d, 0xee));
	return _mm512_xor_si512(
		_mm512_shuffle_i64x2(ab, cd, 0x88), _mm512_shuffle_i64x2(ab, cd, 0xdd));
}

INLINE void add_rows(struct sum *column, const struct sum rows[4])
{
	column->low = _mm512_xor_si512(
		column->low, transpose(rows[0].low, rows[1].low, rows[2].low, rows[3].low));
	column->middle = _mm512_xor_si512(column->middle,
		transpose(rows[0].middle, rows[1].middle, rows[2].middle, rows[3].middle));
	column->high = _mm512_xor_si512(
		column->high, transpose(rows[0].high, rows[1].high, rows[2].high, rows[3].high));
}

INLINE void add_aads(struct sum *sum, const struct four *four)
{
	const struct gcm_job *const *jobs = four->jobs;
	__mmask64 mask = 0; // of the bytes in reverse order
	FOUR(i)
	mask |= (UINT64_C(0xffff) << (16 - jobs[i]->aad_length) & 0xffff) << 16 * i;
	__m512i aads = gather(jobs[0]->aad, jobs[1]->aad, jobs[2]->aad, jobs[3]->aad);
	// The AAD precedes the data.
	__m512i powers = gather(four->powers[0] - GCM_BLOCK_SIZE, four->powers[1] - GCM_BLOCK_SIZE,
		four->powers[2] - GCM_BLOCK_SIZE, four->powers[3] - GCM_BLOCK_SIZE);
	add_product(sum, _mm512_maskz_shuffle_epi8(mask, aads, byte_order()), powers);
}

INLINE void add_lengths(struct sum *sum, const struct four *four, bool one_key)
{
	const struct gcm_job *const *jobs = four->jobs;
	__m512i bytes =
		gather(&jobs[0]->length, &jobs[1]->length, &jobs[2]->length, &jobs[3]->length);
	__m512i powers = one_key ? _mm512_broadcast_i32x4(load16(power(jobs[0], 1)))
				 : gather(power(jobs[0], 1), power(jobs[1], 1), power(jobs[2], 1),
					   power(jobs[3], 1));
	add_product(sum, _mm512_slli_epi64(bytes, 3), powers);
}

// ---- data ----

INLINE struct four start(const struct gcm_job *const jobs[4])
{
	struct four four = {.jobs = jobs};
	FOUR(i)
	{
		four.keys[i] = jobs[i]->key->schedule.expanded_keys;
		four.data[i] = jobs[i]->data;
		// The last data block's is the second.
		four.powers[i] = power(jobs[i], block_count(jobs[i]->length) + 1);
	}
	return four;
}

// The row at `offset`: in place, and into the sums. `whole`: all four messages reach its end.
INLINE void pass_row(const struct four *four, uint64_t offset, const __m512i key_stream[4],
	struct sum sums[4], bool whole, bool encrypt)
{
	FOUR(i)
	{
		uint8_t *data = four->data[i] + offset;
		__mmask64 mask = ~UINT64_C(0);
		if (!whole)
			mask = first_bytes(four->jobs[i]->length, offset, ROW_BYTES);
		__m512i in = _mm512_maskz_loadu_epi8(mask, data);
		__m512i out = _mm512_maskz_mov_epi8(mask, _mm512_xor_si512(in, key_stream[i]));
		_mm512_mask_storeu_epi8(data, mask, out);
		add_product(&sums[i], _mm512_shuffle_epi8(encrypt ? out : in, byte_order()),
			_mm512_loadu_si512(four->powers[i] + offset));
	}
}

// Bytes behind the end of the data are read, and written as they are.
INLINE void pass_column(
	const struct four *four, uint64_t offset, __m512i key_stream, struct sum *sum, bool encrypt)
{
	uint8_t *data[4];
	const uint8_t *powers[4];
	__mmask64 mask = 0;
	FOUR(i)
	{
		uint64_t length = four->jobs[i]->length;
		// A message that has ended must not be read further than a block beyond.
		data[i] = four->data[i] + (offset < length ? offset : length);
		powers[i] = four->powers[i] + offset;
		mask |= first_bytes(length, offset, GCM_BLOCK_SIZE) << 16 * i;
	}
	__m512i in = gather(data[0], data[1], data[2], data[3]);
	__m512i out = _mm512_xor_si512(in, _mm512_maskz_mov_epi8(mask, key_stream));
	scatter(data[0], data[1], data[2], data[3], out);
	__m512i ciphertext = _mm512_maskz_mov_epi8(mask, encrypt ? out : in);
	add_product(sum, _mm512_shuffle_epi8(ciphertext, byte_order()),
		gather(powers[0], powers[1], powers[2], powers[3]));
}

INLINE uint64_t shortest(const struct four *four)
{
	uint64_t length = four->jobs[0]->length;
	FOUR(i)
	length = four->jobs[i]->length < length ? four->jobs[i]->length : length;
	return length;
}

// The cipher of a row is under way while the one before is hashed. Returns the offset after them.
INLINE uint64_t pass_rows(const struct four *four, __m512i rows[4], unsigned int row_count,
	struct sum sums[4], bool one_key, bool encrypt)
{
	const uint64_t whole = shortest(four);
	uint64_t offset = 0;
	for (unsigned int row = 1;; row++) {
		__m512i next[4] = {rows[0], rows[1], rows[2], rows[3]};
		if (row < row_count) {
			start_rows(four, next, row);
			cipher(four, next, NULL, 0, one_key);
		}
		if (likely(offset + ROW_BYTES <= whole))
			pass_row(four, offset, rows, sums, true, encrypt);
		else
			pass_row(four, offset, rows, sums, false, encrypt);
		offset += ROW_BYTES;
		if (row >= row_count)
			return offset;
		FOUR(i)
		rows[i] = next[i];
	}
}

// `column_count`: with that of the tags.
INLINE void pass(const struct gcm_job *const jobs[4], unsigned int row_count,
	unsigned int column_count, bool one_key, bool encrypt)
{
	struct four four = start(jobs);
	__m512i rows[4], columns[4];
	__m512i nonces = gather(jobs[0]->nonce, jobs[1]->nonce, jobs[2]->nonce, jobs[3]->nonce);
	columns[0] = with_counters(nonces, column_counter(1));
#pragma GCC unroll 3
	for (unsigned int i = 1; i < column_count; i++)
		columns[i] = with_counters(nonces, column_counter(4 * row_count + i + 1));
	if (row_count != 0)
		start_rows(&four, rows, 0);
	cipher(&four, row_count != 0 ? rows : NULL, columns, column_count, one_key);

	const struct sum zero = {
		_mm512_setzero_si512(), _mm512_setzero_si512(), _mm512_setzero_si512()};
	struct sum sum = zero, row_sums[4] = {zero, zero, zero, zero};
	add_aads(&sum, &four);
	add_lengths(&sum, &four, one_key);
	uint64_t offset = 0;
	if (row_count != 0)
		offset = pass_rows(&four, rows, row_count, row_sums, one_key, encrypt);
#pragma GCC unroll 3
	for (unsigned int i = 1; i < column_count; i++)
		pass_column(&four, offset + (i - 1) * GCM_BLOCK_SIZE, columns[i], &sum, encrypt);
	if (row_count != 0)
		add_rows(&sum, row_sums);
	scatter(jobs[0]->tag, jobs[1]->tag, jobs[2]->tag, jobs[3]->tag,
		_mm512_xor_si512(_mm512_shuffle_epi8(reduce(&sum), byte_order()), columns[0]));
}

// ---- compiled by shape ----

#define SHAPE(name, rows, columns, one_key, encrypt)                         \
	static __attribute__((noinline)) void name(                          \
		const struct gcm_job *const jobs[4], unsigned int row_count) \
	{                                                                    \
		(void)row_count;                                             \
		pass(jobs, rows, columns, one_key, encrypt);                 \
	}
typedef void (*shape)(const struct gcm_job *const jobs[4], unsigned int row_count);

// So that the compiler need not test for none in each round.
INLINE unsigned int two_or_more(unsigned int row_count)
{
	if (row_count < 2)
		__builtin_unreachable();
	return row_count;
}

#define SHAPES(name, one_key, encrypt)                                 \
	SHAPE(name##_0_1, 0, 1, one_key, encrypt)                      \
	SHAPE(name##_0_2, 0, 2, one_key, encrypt)                      \
	SHAPE(name##_0_3, 0, 3, one_key, encrypt)                      \
	SHAPE(name##_0_4, 0, 4, one_key, encrypt)                      \
	SHAPE(name##_1_1, 1, 1, one_key, encrypt)                      \
	SHAPE(name##_1_2, 1, 2, one_key, encrypt)                      \
	SHAPE(name##_1_3, 1, 3, one_key, encrypt)                      \
	SHAPE(name##_n_1, two_or_more(row_count), 1, one_key, encrypt) \
	SHAPE(name##_n_2, two_or_more(row_count), 2, one_key, encrypt) \
	static const shape name[3][4] = {                              \
		{name##_0_1, name##_0_2, name##_0_3, name##_0_4},      \
		{name##_1_1, name##_1_2, name##_1_3},                  \
		{name##_n_1, name##_n_2},                              \
	};

SHAPES(encrypt_one_key, true, true)
SHAPES(decrypt_one_key, true, false)
SHAPES(encrypt_keys, false, true)
SHAPES(decrypt_keys, false, false)

INLINE bool share_key(const struct gcm_job *const jobs[4])
{
	return jobs[1]->key == jobs[0]->key && jobs[2]->key == jobs[0]->key &&
	       jobs[3]->key == jobs[0]->key;
}

INLINE void pass_blocks(
	const struct gcm_job *const jobs[4], unsigned int blocks, const shape (*shapes)[4])
{
	unsigned int rows = blocks / 4, left = blocks % 4;
	// After some rows, one more that is not full costs less than three columns, and after two
	// less than two columns.
	if (left == 3 ? rows >= 1 : left == 2 && rows >= 2) {
		rows++;
		left = 0;
	}
	shapes[rows < 2 ? rows : 2][left](jobs, rows);
}

void gcm_avx512_encrypt(const struct gcm_job *const *jobs, unsigned int blocks)
{
	pass_blocks(jobs, blocks, share_key(jobs) ? encrypt_one_key : encrypt_keys);
}

void gcm_avx512_decrypt(const struct gcm_job *const *jobs, unsigned int blocks)
{
	pass_blocks(jobs, blocks, share_key(jobs) ? decrypt_one_key : decrypt_keys);
}

#define WIPE(number)                                                                   \
	__asm__ volatile("vpxorq %%zmm" #number ", %%zmm" #number ", %%zmm" #number :: \
				 : "xmm" #number)

// Registers, and the stack that the functions above may have spilled to: this one's frame takes the
// place of theirs.
#pragma GCC diagnostic ignored "-Wframe-larger-than="
__attribute__((noinline)) void gcm_avx512_wipe(void)
{
	__m512i spilled[STACK_SIZE / sizeof(__m512i)];
#pragma GCC unroll 4
	for (unsigned int i = 0; i < STACK_SIZE / sizeof(__m512i); i++)
		spilled[i] = _mm512_setzero_si512();
	__asm__ volatile("" : : "r"(spilled) : "memory");
	__asm__ volatile("vzeroall" ::
				 : "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7",
			 "xmm8", "xmm9", "xmm10", "xmm11", "xmm12", "xmm13", "xmm14", "xmm15");
	// vzeroall leaves the upper sixteen as they are.
	WIPE(16);
	WIPE(17);
	WIPE(18);
	WIPE(19);
	WIPE(20);
	WIPE(21);
	WIPE(22);
	WIPE(23);
	WIPE(24);
	WIPE(25);
	WIPE(26);
	WIPE(27);
	WIPE(28);
	WIPE(29);
	WIPE(30);
	WIPE(31);
}
