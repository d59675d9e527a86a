// SPDX-License-Identifier: BSD-3-Clause
// Copyright (c) 2026 the espgw authors

// AES-256-GCM (NIST SP 800-38D) of two short messages at once, with AVX2, VAES and VPCLMULQDQ, for
// CPUs that lack AVX-512.
//
// A register holds two blocks, one of each message: a column.
//
//              tags   0 1 2 3 4 5   6 7 8 ...
//   message 0   J0    1 2 3 4 5 6   7 8 9
//   message 1   J0    1 2 3 4 5 6   7 8 9
//
// Columns go in batches of six, enough to keep the AES units busy; the last batch is what is left
// and the blocks that mask the tags. No lane is idle when both messages have the same number of
// blocks; a shorter message's missing blocks are masked.
//
// GHASH: every block is multiplied by its own power of the hash key, the products are summed, and
// there is one reduction for both tags. AAD and lengths are columns, too. A message with more
// blocks than there are powers is hashed in parts, with a reduction after each.
//
// Nothing branches on or addresses by data or keys, only by lengths.

#include <rte_branch_prediction.h>

#include "gcm_wide.h"

// STACK_SIZE: more than the largest frame of a shape; the build fails when one is larger.
enum { BATCH = 6, BATCH_BYTES = BATCH * GCM_BLOCK_SIZE, STACK_SIZE = 1024 };
// A part of a message that is longer than the powers reach: whole batches.
enum { PART_BATCHES = 5, PART_BLOCKS = PART_BATCHES * BATCH };
_Static_assert(PART_BLOCKS + GCM_MIX_BLOCKS <= GCM_OWN_POWER_BLOCKS, "the last part's powers");

// All loops over columns are unrolled, so that their registers are registers.
#define EACH(column, count) \
	_Pragma("GCC unroll 8") for (unsigned int column = 0; column < (count); column++)

// The two messages, and how far they are.
struct pair {
	const struct gcm_job *const *jobs;
	const uint8_t *keys[2];   // round keys
	const uint8_t *powers[2]; // of the next block; they go down as the data goes on
	uint8_t *data[2];
	uint64_t left[2]; // bytes of data
	bool alike;       // one key and one number of blocks
	bool encrypt;
};

// Products of blocks before their reduction, added up.
struct sum {
	__m256i low, middle, high;
};

// A column from two addresses.
INLINE __m256i gather(const void *a, const void *b)
{
	return _mm256_inserti128_si256(_mm256_castsi128_si256(load16(a)), load16(b), 1);
}

// `same`: the two addresses hold the same.
INLINE __m256i gather_or_broadcast(const void *a, const void *b, bool same)
{
	return same ? _mm256_broadcastsi128_si256(load16(a)) : gather(a, b);
}

INLINE void scatter(uint8_t *a, uint8_t *b, __m256i column)
{
	_mm_storeu_si128((__m128i *)a, _mm256_castsi256_si128(column));
	_mm_storeu_si128((__m128i *)b, _mm256_extracti128_si256(column, 1));
}

// Reverses the bytes of each block: GHASH is big-endian.
INLINE __m256i reverse(__m256i blocks)
{
	const __m256i order = _mm256_broadcastsi128_si256(
		_mm_set_epi8(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15));
	return _mm256_shuffle_epi8(blocks, order);
}

// The first `count` bytes of a block, at most all.
INLINE const uint8_t *first_bytes(uint64_t count)
{
	static const uint8_t bytes[2 * GCM_BLOCK_SIZE] = {[0 ... GCM_BLOCK_SIZE - 1] = 0xff};
	return bytes + GCM_BLOCK_SIZE - (count < GCM_BLOCK_SIZE ? count : GCM_BLOCK_SIZE);
}

// ---- counter mode ----

// Nonces with zero for a counter.
INLINE __m256i load_nonces(const struct gcm_job *const *jobs)
{
	return _mm256_blend_epi32(
		gather(jobs[0]->nonce, jobs[1]->nonce), _mm256_setzero_si256(), 0x88);
}

// Counters are in the last words (big-endian; they stay below 256).
INLINE __m256i counter(unsigned int value)
{
	const int word = (int)(value << 24);
	return _mm256_set_epi32(word, 0, 0, 0, word, 0, 0, 0);
}

INLINE __m256i cipher_round(__m256i state, __m256i key, unsigned int round)
{
	if (round == 0)
		return _mm256_xor_si256(state, key);
	return round < ROUNDS ? _mm256_aesenc_epi128(state, key)
			      : _mm256_aesenclast_epi128(state, key);
}

INLINE void cipher(const struct pair *pair, __m256i *columns, unsigned int count)
{
	_Pragma("GCC unroll 15") for (unsigned int round = 0; round <= ROUNDS; round++)
	{
		const unsigned int offset = GCM_BLOCK_SIZE * round;
		__m256i key = gather_or_broadcast(
			pair->keys[0] + offset, pair->keys[1] + offset, pair->alike);
		EACH(i, count)
		columns[i] = cipher_round(columns[i], key, round);
	}
}

// ---- GHASH ----

INLINE void add_product(struct sum *sum, __m256i blocks, __m256i powers)
{
	sum->low = _mm256_xor_si256(sum->low, _mm256_clmulepi64_epi128(blocks, powers, 0x00));
	sum->middle = _mm256_xor_si256(sum->middle, _mm256_clmulepi64_epi128(blocks, powers, 0x01));
	sum->middle = _mm256_xor_si256(sum->middle, _mm256_clmulepi64_epi128(blocks, powers, 0x10));
	sum->high = _mm256_xor_si256(sum->high, _mm256_clmulepi64_epi128(blocks, powers, 0x11));
}

// Modulo x^128 + x^7 + x^2 + x + 1, reflected: twice the low 64 bits are folded upwards.
INLINE __m256i reduce(const struct sum *sum)
{
	const __m256i polynomial = _mm256_set1_epi64x((long long)0xc200000000000000);
	__m256i middle = _mm256_xor_si256(sum->middle, _mm256_shuffle_epi32(sum->low, 0x4e));
	middle = _mm256_xor_si256(middle, _mm256_clmulepi64_epi128(polynomial, sum->low, 0x00));
	__m256i high = _mm256_xor_si256(sum->high, _mm256_shuffle_epi32(middle, 0x4e));
	return _mm256_xor_si256(high, _mm256_clmulepi64_epi128(polynomial, middle, 0x00));
}

// `ahead` bytes ahead of where the messages are.
INLINE __m256i powers_at(const struct pair *pair, int ahead)
{
	return gather_or_broadcast(pair->powers[0] + ahead, pair->powers[1] + ahead, pair->alike);
}

INLINE void add_aads(struct sum *sum, const struct pair *pair)
{
	const struct gcm_job *const *jobs = pair->jobs;
	__m256i mask = gather(first_bytes(jobs[0]->aad_length), first_bytes(jobs[1]->aad_length));
	__m256i aads = _mm256_and_si256(gather(jobs[0]->aad, jobs[1]->aad), mask);
	// The AAD precedes the data.
	add_product(sum, reverse(aads), powers_at(pair, -GCM_BLOCK_SIZE));
}

INLINE void add_lengths(struct sum *sum, const struct pair *pair)
{
	const struct gcm_job *const *jobs = pair->jobs;
	__m256i bytes = gather(&jobs[0]->length, &jobs[1]->length);
	add_product(sum, _mm256_slli_epi64(bytes, 3),
		gather_or_broadcast(power(jobs[0], 1), power(jobs[1], 1), pair->alike));
}

// ---- data ----

// `parts`: still to come before the last one. The last data block's power is the second, before
// that of the lengths.
INLINE void set_powers(struct pair *pair, unsigned int parts)
{
	EACH(i, 2)
	{
		uint64_t blocks = block_count(pair->left[i]);
		pair->powers[i] = power(pair->jobs[i], parts != 0 ? PART_BLOCKS : blocks + 1);
	}
}

INLINE struct pair start(
	const struct gcm_job *const *jobs, unsigned int parts, bool alike, bool encrypt)
{
	struct pair pair = {.jobs = jobs, .alike = alike, .encrypt = encrypt};
	EACH(i, 2)
	{
		pair.keys[i] = jobs[i]->key->schedule.expanded_keys;
		pair.data[i] = jobs[i]->data;
		pair.left[i] = jobs[i]->length;
	}
	set_powers(&pair, parts);
	return pair;
}

// After a part: its hash goes with the block that follows.
INLINE void fold(struct sum *sum, struct pair *pair, unsigned int parts)
{
	__m256i hash = reduce(sum);
	*sum = (struct sum){0};
	set_powers(pair, parts);
	add_product(sum, hash, powers_at(pair, 0));
}

// A column, in place, and into the sum.
INLINE void pass_whole_column(
	const struct pair *pair, unsigned int ahead, __m256i key_stream, struct sum *sum)
{
	uint8_t *a = pair->data[0] + ahead, *b = pair->data[1] + ahead;
	__m256i in = gather(a, b), out = _mm256_xor_si256(in, key_stream);
	scatter(a, b, out);
	add_product(sum, reverse(pair->encrypt ? out : in), powers_at(pair, (int)ahead));
}

// The same where a message may end. Bytes behind are read, and written as they are.
INLINE void pass_last_column(
	const struct pair *pair, unsigned int ahead, __m256i key_stream, struct sum *sum)
{
	uint8_t *data[2];
	const uint8_t *masks[2];
	EACH(i, 2)
	{
		// A message that has ended must not be read further than a block beyond.
		uint64_t begin = ahead < pair->left[i] ? ahead : pair->left[i];
		data[i] = pair->data[i] + begin;
		masks[i] = first_bytes(pair->left[i] - begin);
	}
	__m256i mask = gather(masks[0], masks[1]), in = gather(data[0], data[1]);
	__m256i out = _mm256_xor_si256(in, _mm256_and_si256(mask, key_stream));
	scatter(data[0], data[1], out);
	__m256i ciphertext = _mm256_and_si256(mask, pair->encrypt ? out : in);
	add_product(sum, reverse(ciphertext), powers_at(pair, (int)ahead));
}

// `first`: the counter block of the first column.
INLINE void pass_batch(struct pair *pair, __m256i first, struct sum *sum)
{
	__m256i columns[BATCH];
	EACH(i, BATCH)
	columns[i] = _mm256_add_epi32(first, counter(i));
	cipher(pair, columns, BATCH);
	if (pair->alike || likely(pair->left[0] >= BATCH_BYTES && pair->left[1] >= BATCH_BYTES))
		EACH(i, BATCH)
	pass_whole_column(pair, GCM_BLOCK_SIZE * i, columns[i], sum);
	else EACH(i, BATCH) pass_last_column(pair, GCM_BLOCK_SIZE * i, columns[i], sum);
	EACH(i, 2)
	{
		uint64_t done = pair->left[i] < BATCH_BYTES ? pair->left[i] : BATCH_BYTES;
		pair->data[i] += done;
		pair->left[i] -= done;
		pair->powers[i] += BATCH_BYTES;
	}
}

// `parts`: before the last one. `batches` and `rest`: of the last part, and its columns after them.
INLINE void pass(const struct gcm_job *const *jobs, unsigned int parts, unsigned int batches,
	unsigned int rest, bool alike, bool encrypt)
{
	struct pair pair = start(jobs, parts, alike, encrypt);
	const __m256i nonces = load_nonces(jobs);
	__m256i next = _mm256_add_epi32(nonces, counter(2));
	struct sum sum = {0};
	add_aads(&sum, &pair);
	for (;; parts--) {
		for (unsigned int i = parts != 0 ? PART_BATCHES : batches; i != 0; i--) {
			pass_batch(&pair, next, &sum);
			next = _mm256_add_epi32(next, counter(BATCH));
		}
		if (likely(parts == 0))
			break;
		fold(&sum, &pair, parts - 1);
	}

	__m256i columns[1 + BATCH]; // the first for the tags
	columns[0] = _mm256_add_epi32(nonces, counter(1));
	EACH(i, rest)
	columns[1 + i] = _mm256_add_epi32(next, counter(i));
	cipher(&pair, columns, 1 + rest);
	add_lengths(&sum, &pair);
	EACH(i, rest)
	if (alike && i + 1 < rest)
		pass_whole_column(&pair, GCM_BLOCK_SIZE * i, columns[1 + i], &sum);
	else
		pass_last_column(&pair, GCM_BLOCK_SIZE * i, columns[1 + i], &sum);
	scatter(jobs[0]->tag, jobs[1]->tag, _mm256_xor_si256(reverse(reduce(&sum)), columns[0]));
}

// ---- compiled by shape ----

typedef void (*shape)(const struct gcm_job *const *jobs, unsigned int parts, unsigned int batches);

#define SHAPE(name, rest, alike, encrypt)                                                    \
	static __attribute__((noinline)) void name(                                          \
		const struct gcm_job *const *jobs, unsigned int parts, unsigned int batches) \
	{                                                                                    \
		pass(jobs, parts, batches, rest, alike, encrypt);                            \
	}

#define SHAPES(name, alike, encrypt)           \
	SHAPE(name##_0, 0, alike, encrypt)     \
	SHAPE(name##_1, 1, alike, encrypt)     \
	SHAPE(name##_2, 2, alike, encrypt)     \
	SHAPE(name##_3, 3, alike, encrypt)     \
	SHAPE(name##_4, 4, alike, encrypt)     \
	SHAPE(name##_5, 5, alike, encrypt)     \
	SHAPE(name##_6, 6, alike, encrypt)     \
	static const shape name[BATCH + 1] = { \
		name##_0, name##_1, name##_2, name##_3, name##_4, name##_5, name##_6};

SHAPES(encrypt_alike, true, true)
SHAPES(decrypt_alike, true, false)
SHAPES(encrypt_mixed, false, true)
SHAPES(decrypt_mixed, false, false)

INLINE bool are_alike(const struct gcm_job *const *jobs)
{
	return jobs[0]->key == jobs[1]->key &&
	       block_count(jobs[0]->length) == block_count(jobs[1]->length);
}

// Parts before the last one: whole in both messages, each of which has something left.
INLINE unsigned int count_parts(const struct gcm_job *const *jobs, unsigned int blocks)
{
	if (blocks <= GCM_OWN_POWER_BLOCKS)
		return 0;
	uint64_t a = jobs[0]->length, b = jobs[1]->length;
	return (unsigned int)((block_count(a < b ? a : b) - 1) / PART_BLOCKS);
}

// The last block, which may be partial, is in no batch of messages that are alike.
INLINE void pass_blocks(const struct gcm_job *const *jobs, unsigned int blocks, const shape *shapes)
{
	unsigned int parts = count_parts(jobs, blocks);
	unsigned int last = blocks - parts * PART_BLOCKS;
	unsigned int batches = last == 0 ? 0 : (last - 1) / BATCH;
	shapes[last - batches * BATCH](jobs, parts, batches);
}

void gcm_avx2_encrypt(const struct gcm_job *const *jobs, unsigned int blocks)
{
	pass_blocks(jobs, blocks, are_alike(jobs) ? encrypt_alike : encrypt_mixed);
}

void gcm_avx2_decrypt(const struct gcm_job *const *jobs, unsigned int blocks)
{
	pass_blocks(jobs, blocks, are_alike(jobs) ? decrypt_alike : decrypt_mixed);
}

// Registers, and the stack that the functions above may have spilled to: this one's frame takes the
// place of theirs.
#pragma GCC diagnostic ignored "-Wframe-larger-than="
__attribute__((noinline)) void gcm_avx2_wipe(void)
{
	__m256i spilled[STACK_SIZE / sizeof(__m256i)];
	_Pragma("GCC unroll 8") for (unsigned int i = 0; i < STACK_SIZE / sizeof(__m256i); i++)
		spilled[i] = _mm256_setzero_si256();
	__asm__ volatile("" : : "r"(spilled) : "memory");
	__asm__ volatile("vzeroall" ::
				 : "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7",
			 "xmm8", "xmm9", "xmm10", "xmm11", "xmm12", "xmm13", "xmm14", "xmm15");
}
