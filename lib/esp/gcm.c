// SPDX-License-Identifier: BSD-3-Clause
// Copyright (c) 2026 the espgw authors

// Which messages of a burst go to which cipher.

#include "gcm.h"

#include <cpuid.h>
#include <stdlib.h>
#include <string.h>
#include <tmmintrin.h>
#include <wmmintrin.h>

#include <rte_common.h>

// x^-1 times the reflected polynomial, and what a product is folded with.
#define POLYNOMIAL UINT64_C(0xc200000000000000)

// ---- key ----

// The product of a block and a power as struct gcm_key has it. Control thread.
static __m128i multiply(__m128i block, __m128i power)
{
	const __m128i polynomial = _mm_set1_epi64x((long long)POLYNOMIAL);
	__m128i low = _mm_clmulepi64_si128(block, power, 0x00);
	__m128i middle = _mm_xor_si128(
		_mm_clmulepi64_si128(block, power, 0x01), _mm_clmulepi64_si128(block, power, 0x10));
	__m128i high = _mm_clmulepi64_si128(block, power, 0x11);
	middle = _mm_xor_si128(middle, _mm_shuffle_epi32(low, 0x4e));
	middle = _mm_xor_si128(middle, _mm_clmulepi64_si128(polynomial, low, 0x00));
	high = _mm_xor_si128(high, _mm_shuffle_epi32(middle, 0x4e));
	return _mm_xor_si128(high, _mm_clmulepi64_si128(polynomial, middle, 0x00));
}

// The hash key: the cipher of a zero block, times x^-1, reflected. It stays in wide registers.
static __m128i hash_key(const uint8_t *round_keys)
{
	enum { ROUNDS = 14 };
	__m128i state = _mm_loadu_si128((const __m128i *)round_keys);
	for (unsigned int round = 1; round < ROUNDS; round++)
		state = _mm_aesenc_si128(
			state, _mm_loadu_si128((const __m128i *)(round_keys + 16 * round)));
	state = _mm_aesenclast_si128(
		state, _mm_loadu_si128((const __m128i *)(round_keys + 16 * ROUNDS)));
	const __m128i order = _mm_set_epi8(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
	state = _mm_shuffle_epi8(state, order);
	const __m128i fold = _mm_set_epi64x((long long)POLYNOMIAL, 1);
	__m128i carry = _mm_and_si128(fold, _mm_shuffle_epi32(_mm_srai_epi32(state, 31), 0xff));
	__m128i upwards = _mm_slli_si128(_mm_srli_epi64(state, 63), 8);
	return _mm_xor_si128(_mm_or_si128(_mm_slli_epi64(state, 1), upwards), carry);
}

// What the hash key and its powers went through.
static void wipe_registers(void)
{
#define WIPE(number) __asm__ volatile("pxor %%xmm" #number ", %%xmm" #number ::: "xmm" #number)
	WIPE(0);
	WIPE(1);
	WIPE(2);
	WIPE(3);
	WIPE(4);
	WIPE(5);
	WIPE(6);
	WIPE(7);
	WIPE(8);
	WIPE(9);
	WIPE(10);
	WIPE(11);
	WIPE(12);
	WIPE(13);
	WIPE(14);
	WIPE(15);
#undef WIPE
}

void gcm_key_expand(const IMB_MGR *manager, struct gcm_key *key, const uint8_t bytes[GCM_KEY_SIZE])
{
	memset(key, 0, sizeof(*key));
	IMB_AES256_GCM_PRE(manager, bytes, &key->schedule);
	__m128i first = hash_key(key->schedule.expanded_keys), power = first;
	for (unsigned int exponent = 1; exponent <= GCM_POWERS; exponent++) {
		_mm_storeu_si128((__m128i *)key->powers[GCM_POWERS - exponent], power);
		power = multiply(power, first);
	}
	wipe_registers();
}

// ---- ipsec-mb ----

static void encrypt_one(const struct gcm *gcm, const struct gcm_job *job)
{
	struct gcm_context_data context;
	gcm->manager->gcm256_enc(&job->key->schedule, &context, job->data, job->data, job->length,
		job->nonce, job->aad, job->aad_length, job->tag, GCM_TAG_SIZE);
}

static void decrypt_one(const struct gcm *gcm, const struct gcm_job *job)
{
	struct gcm_context_data context;
	gcm->manager->gcm256_dec(&job->key->schedule, &context, job->data, job->data, job->length,
		job->nonce, job->aad, job->aad_length, job->tag, GCM_TAG_SIZE);
}

// ---- bursts ----

typedef void (*gcm_one)(const struct gcm *gcm, const struct gcm_job *job);

// Short messages, by their number of blocks, each list in the burst's order.
struct by_blocks {
	uint64_t low, high; // bit n: there are messages of n, of 64 + n blocks
	uint8_t first[GCM_SHORT_BLOCKS + 1], last[GCM_SHORT_BLOCKS + 1];
	uint8_t next[GCM_BURST_MAX];
};

enum { LIST_END = UINT8_MAX };

static inline uint64_t count_blocks(const struct gcm_job *job)
{
	return (job->length + GCM_BLOCK_SIZE - 1) / GCM_BLOCK_SIZE;
}

// Sorts the short messages; the others are enciphered at once.
static inline void sort(const struct gcm *gcm, const struct gcm_job *jobs, unsigned int count,
	gcm_one one, struct by_blocks *sorted)
{
	const unsigned int longest = gcm->variant->longest;
	uint64_t low = 0, high = 0;
	for (unsigned int i = 0; i < count; i++) {
		uint64_t blocks = count_blocks(&jobs[i]);
		if (blocks > longest) {
			one(gcm, &jobs[i]);
			continue;
		}
		uint64_t bit = UINT64_C(1) << blocks % 64;
		sorted->next[i] = LIST_END;
		if (((blocks < 64 ? low : high) & bit) != 0)
			sorted->next[sorted->last[blocks]] = (uint8_t)i;
		else
			sorted->first[blocks] = (uint8_t)i;
		sorted->last[blocks] = (uint8_t)i;
		if (blocks < 64)
			low |= bit;
		else
			high |= bit;
	}
	sorted->low = low;
	sorted->high = high;
}

// Messages that wait to be enciphered together.
struct waiting {
	const struct gcm_job *jobs[GCM_TOGETHER_MAX];
	unsigned int count, least, most; // blocks
};

// Too few are ipsec-mb's.
static inline void flush(
	const struct gcm *gcm, gcm_together pass_together, gcm_one one, struct waiting *waiting)
{
	if (waiting->count == gcm->variant->together)
		pass_together(waiting->jobs, waiting->most);
	else
		for (unsigned int i = 0; i < waiting->count; i++)
			one(gcm, waiting->jobs[i]);
	waiting->count = 0;
}

// The messages of `present`, those of `base` blocks and more.
static inline __attribute__((always_inline)) void pass_lists(const struct gcm *gcm,
	const struct gcm_job *jobs, const struct by_blocks *sorted, uint64_t present,
	unsigned int base, gcm_together pass_together, gcm_one one, struct waiting *waiting)
{
	for (; present != 0; present &= present - 1) {
		unsigned int blocks = base + (unsigned int)__builtin_ctzll(present);
		if (waiting->count != 0 && blocks > waiting->least + GCM_MIX_BLOCKS)
			flush(gcm, pass_together, one, waiting);
		waiting->most = blocks;
		for (unsigned int i = sorted->first[blocks]; i != LIST_END; i = sorted->next[i]) {
			if (waiting->count == 0)
				waiting->least = blocks;
			waiting->jobs[waiting->count++] = &jobs[i];
			if (waiting->count == gcm->variant->together)
				flush(gcm, pass_together, one, waiting);
		}
	}
}

// A burst of messages of one number of blocks, as bursts often are, needs no sorting. False, and
// nothing done: it is not one.
static inline bool pass_uniform(const struct gcm *gcm, const struct gcm_job *jobs,
	unsigned int count, gcm_together pass_together, gcm_one one)
{
	const uint64_t blocks = count_blocks(&jobs[0]);
	if (blocks > gcm->variant->longest)
		return false;
	for (unsigned int i = 1; i < count; i++)
		if (count_blocks(&jobs[i]) != blocks)
			return false;
	struct waiting waiting = {.count = 0, .most = (unsigned int)blocks};
	for (unsigned int i = 0; i < count; i++) {
		waiting.jobs[waiting.count++] = &jobs[i];
		if (waiting.count == gcm->variant->together)
			flush(gcm, pass_together, one, &waiting);
	}
	flush(gcm, pass_together, one, &waiting);
	gcm->variant->wipe();
	return true;
}

static inline void pass_burst(const struct gcm *gcm, const struct gcm_job *jobs, unsigned int count,
	gcm_together pass_together, gcm_one one)
{
	if (count == 0 || pass_uniform(gcm, jobs, count, pass_together, one))
		return;
	struct by_blocks sorted;
	struct waiting waiting = {.count = 0};
	sort(gcm, jobs, count, one, &sorted);
	pass_lists(gcm, jobs, &sorted, sorted.low, 0, pass_together, one, &waiting);
	pass_lists(gcm, jobs, &sorted, sorted.high, 64, pass_together, one, &waiting);
	flush(gcm, pass_together, one, &waiting);
	if ((sorted.low | sorted.high) != 0) // else all were ipsec-mb's, which wipes by itself
		gcm->variant->wipe();
}

void gcm_encrypt_burst(const struct gcm *gcm, const struct gcm_job *jobs, unsigned int count)
{
	if (gcm->variant != NULL)
		pass_burst(gcm, jobs, count, gcm->variant->encrypt, encrypt_one);
	else
		for (unsigned int i = 0; i < count; i++)
			encrypt_one(gcm, &jobs[i]);
}

void gcm_decrypt_burst(const struct gcm *gcm, const struct gcm_job *jobs, unsigned int count)
{
	if (gcm->variant != NULL)
		pass_burst(gcm, jobs, count, gcm->variant->decrypt, decrypt_one);
	else
		for (unsigned int i = 0; i < count; i++)
			decrypt_one(gcm, &jobs[i]);
}

// ---- self-test ----

#define TEST_LENGTH_MAX ((GCM_SHORT_BLOCKS + 8) * GCM_BLOCK_SIZE)

// Messages of one burst of the self-test, and what ipsec-mb makes of them.
struct self_test {
	struct gcm_key keys[3];
	struct gcm_job jobs[GCM_BURST_MAX];
	uint8_t nonces[GCM_BURST_MAX][GCM_SLOT_SIZE], aads[GCM_BURST_MAX][GCM_SLOT_SIZE];
	uint8_t tags[GCM_BURST_MAX][GCM_TAG_SIZE], expected_tags[GCM_BURST_MAX][GCM_TAG_SIZE];
	uint8_t data[GCM_BURST_MAX][TEST_LENGTH_MAX + GCM_BLOCK_SIZE];
	uint8_t expected[GCM_BURST_MAX][TEST_LENGTH_MAX + GCM_BLOCK_SIZE];
	uint64_t state; // of the generator; nothing here is secret
};

static uint64_t draw(struct self_test *test)
{
	test->state ^= test->state << 13;
	test->state ^= test->state >> 7;
	test->state ^= test->state << 17;
	return test->state;
}

// A multiple of eight bytes.
static void fill(struct self_test *test, uint8_t *bytes, size_t size)
{
	for (size_t i = 0; i < size; i += sizeof(uint64_t)) {
		uint64_t value = draw(test);
		memcpy(bytes + i, &value, sizeof(value));
	}
}

// Neighbours are of about one length, so that many go together; every third burst mixes keys.
static void make_burst(struct self_test *test, unsigned int number)
{
	for (unsigned int i = 0; i < GCM_BURST_MAX; i++) {
		uint64_t length = number * 7 % TEST_LENGTH_MAX + draw(test) % 48;
		fill(test, test->nonces[i], GCM_SLOT_SIZE);
		fill(test, test->aads[i], GCM_SLOT_SIZE);
		fill(test, test->data[i], sizeof(test->data[i]));
		memcpy(test->expected[i], test->data[i], sizeof(test->data[i]));
		test->jobs[i] = (struct gcm_job){
			.key = &test->keys[number % 3 == 0 ? draw(test) % 3 : 0],
			.nonce = test->nonces[i],
			.aad = test->aads[i],
			.data = test->data[i],
			.length = length < TEST_LENGTH_MAX ? length : TEST_LENGTH_MAX,
			.aad_length = draw(test) % 2 == 0 ? 8 : 12,
			.tag = test->tags[i],
		};
	}
}

static bool burst_is_equal(const struct gcm *gcm, struct self_test *test, bool encrypt)
{
	if (encrypt)
		gcm_encrypt_burst(gcm, test->jobs, GCM_BURST_MAX);
	else
		gcm_decrypt_burst(gcm, test->jobs, GCM_BURST_MAX);
	for (unsigned int i = 0; i < GCM_BURST_MAX; i++) {
		struct gcm_job job = test->jobs[i];
		job.data = test->expected[i];
		job.tag = test->expected_tags[i];
		(encrypt ? encrypt_one : decrypt_one)(gcm, &job);
	}
	return memcmp(test->tags, test->expected_tags, sizeof(test->tags)) == 0 &&
	       memcmp(test->data, test->expected, sizeof(test->data)) == 0;
}

bool gcm_self_test(const struct gcm *gcm)
{
	struct self_test *test = aligned_alloc(64, RTE_ALIGN_CEIL(sizeof(*test), 64));
	if (test == NULL)
		return false;
	memset(test, 0, sizeof(*test));
	test->state = UINT64_C(0x9e3779b97f4a7c15);
	for (unsigned int i = 0; i < RTE_DIM(test->keys); i++) {
		uint8_t bytes[GCM_KEY_SIZE];
		fill(test, bytes, sizeof(bytes));
		gcm_key_expand(gcm->manager, &test->keys[i], bytes);
	}
	bool equal = true;
	for (unsigned int number = 0; equal && number < 2 * TEST_LENGTH_MAX / 7; number++) {
		make_burst(test, number);
		equal = burst_is_equal(gcm, test, number % 2 == 0);
	}
	free(test);
	return equal;
}

// ---- choice ----

// gcc 12 has no name for VAES.
static bool has_wide_aes(void)
{
	unsigned int a, b, c, d;
	return __get_cpuid_count(7, 0, &a, &b, &c, &d) != 0 && (c & bit_VAES) != 0 &&
	       __builtin_cpu_supports("vpclmulqdq") && __builtin_cpu_supports("bmi2");
}

static bool avx512_supported(void)
{
	return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
	       __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") &&
	       has_wide_aes();
}

static bool avx2_supported(void)
{
	return __builtin_cpu_supports("avx2") && has_wide_aes();
}

const struct gcm_variant gcm_variants[GCM_VARIANTS] = {
	{
		.name = "AVX-512",
		.supported = avx512_supported,
		.together = 4,
		.longest = GCM_OWN_POWER_BLOCKS, // there ipsec-mb is as fast
		.encrypt = gcm_avx512_encrypt,
		.decrypt = gcm_avx512_decrypt,
		.wipe = gcm_avx512_wipe,
	},
	{
		.name = "AVX2",
		.supported = avx2_supported,
		.together = 2,
		.longest = GCM_SHORT_BLOCKS, // ipsec-mb 1.3 is never as fast
		.encrypt = gcm_avx2_encrypt,
		.decrypt = gcm_avx2_decrypt,
		.wipe = gcm_avx2_wipe,
	},
};

bool gcm_choose(struct gcm *gcm, const IMB_MGR *manager, enum esp_crypto crypto)
{
	*gcm = (struct gcm){.manager = manager};
	if (crypto == ESP_CRYPTO_IPSEC_MB)
		return true;
	for (unsigned int i = 0; i < GCM_VARIANTS && gcm->variant == NULL; i++)
		if (gcm_variants[i].supported())
			gcm->variant = &gcm_variants[i];
	return gcm->variant != NULL || crypto == ESP_CRYPTO_AUTO;
}
