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
#include <rte_cycles.h>

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

// What a burst is passed to.
struct direction {
	gcm_together together;
	gcm_alone alone;
	void (*ipsec_mb)(const struct gcm *gcm, const struct gcm_job *job);
	unsigned int longest; // blocks that go together
};

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

// Messages that go one after the other.
struct singles {
	const struct gcm_job *jobs[GCM_BURST_MAX];
	unsigned int count;
};

static inline void pass_singles(
	const struct gcm *gcm, const struct direction *direction, const struct singles *singles)
{
	if (singles->count == 0)
		return;
	if (gcm->alone)
		direction->alone(singles->jobs, singles->count);
	else
		for (unsigned int i = 0; i < singles->count; i++)
			direction->ipsec_mb(gcm, singles->jobs[i]);
}

// Sorts the short messages; the others are single ones.
static inline void sort(const struct gcm_job *jobs, unsigned int count, unsigned int longest,
	struct by_blocks *sorted, struct singles *singles)
{
	uint64_t low = 0, high = 0;
	for (unsigned int i = 0; i < count; i++) {
		uint64_t blocks = count_blocks(&jobs[i]);
		if (blocks > longest) {
			singles->jobs[singles->count++] = &jobs[i];
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

// Too few are single ones.
static inline void flush(const struct gcm *gcm, const struct direction *direction,
	struct waiting *waiting, struct singles *singles)
{
	if (waiting->count == gcm->variant->together)
		direction->together(waiting->jobs, waiting->most);
	else
		for (unsigned int i = 0; i < waiting->count; i++)
			singles->jobs[singles->count++] = waiting->jobs[i];
	waiting->count = 0;
}

// The messages of `present`, those of `base` blocks and more.
static inline __attribute__((always_inline)) void pass_lists(const struct gcm *gcm,
	const struct gcm_job *jobs, const struct by_blocks *sorted, uint64_t present,
	unsigned int base, const struct direction *direction, struct waiting *waiting,
	struct singles *singles)
{
	for (; present != 0; present &= present - 1) {
		unsigned int blocks = base + (unsigned int)__builtin_ctzll(present);
		if (waiting->count != 0 && blocks > waiting->least + GCM_MIX_BLOCKS)
			flush(gcm, direction, waiting, singles);
		waiting->most = blocks;
		for (unsigned int i = sorted->first[blocks]; i != LIST_END; i = sorted->next[i]) {
			if (waiting->count == 0)
				waiting->least = blocks;
			waiting->jobs[waiting->count++] = &jobs[i];
			if (waiting->count == gcm->variant->together)
				flush(gcm, direction, waiting, singles);
		}
	}
}

// A burst of messages of one number of blocks, as bursts often are, needs no sorting. False, and
// nothing done: it is not one.
static inline bool pass_uniform(const struct gcm *gcm, const struct gcm_job *jobs,
	unsigned int count, const struct direction *direction, struct singles *singles)
{
	const uint64_t blocks = count_blocks(&jobs[0]);
	if (blocks > direction->longest)
		return false;
	for (unsigned int i = 1; i < count; i++)
		if (count_blocks(&jobs[i]) != blocks)
			return false;
	struct waiting waiting = {.count = 0, .most = (unsigned int)blocks};
	for (unsigned int i = 0; i < count; i++) {
		waiting.jobs[waiting.count++] = &jobs[i];
		if (waiting.count == gcm->variant->together)
			flush(gcm, direction, &waiting, singles);
	}
	flush(gcm, direction, &waiting, singles);
	return true;
}

static inline void pass_burst(const struct gcm *gcm, const struct gcm_job *jobs, unsigned int count,
	const struct direction *direction)
{
	struct singles singles;
	singles.count = 0;
	if (count == 0)
		return;
	bool together = pass_uniform(gcm, jobs, count, direction, &singles);
	if (!together) {
		struct by_blocks sorted;
		struct waiting waiting = {.count = 0};
		sort(jobs, count, direction->longest, &sorted, &singles);
		pass_lists(gcm, jobs, &sorted, sorted.low, 0, direction, &waiting, &singles);
		pass_lists(gcm, jobs, &sorted, sorted.high, 64, direction, &waiting, &singles);
		flush(gcm, direction, &waiting, &singles);
		together = (sorted.low | sorted.high) != 0;
	}
	pass_singles(gcm, direction, &singles);
	if (together || gcm->alone) // else all were ipsec-mb's, which wipes by itself
		gcm->variant->wipe();
}

void gcm_encrypt_burst(const struct gcm *gcm, const struct gcm_job *jobs, unsigned int count)
{
	const struct gcm_variant *variant = gcm->variant;
	if (variant == NULL) {
		for (unsigned int i = 0; i < count; i++)
			encrypt_one(gcm, &jobs[i]);
		return;
	}
	const struct direction direction = {
		.together = variant->encrypt,
		.alone = variant->encrypt_alone,
		.ipsec_mb = encrypt_one,
		.longest = gcm->longest_encrypted,
	};
	pass_burst(gcm, jobs, count, &direction);
}

void gcm_decrypt_burst(const struct gcm *gcm, const struct gcm_job *jobs, unsigned int count)
{
	const struct gcm_variant *variant = gcm->variant;
	if (variant == NULL) {
		for (unsigned int i = 0; i < count; i++)
			decrypt_one(gcm, &jobs[i]);
		return;
	}
	const struct direction direction = {
		.together = variant->decrypt,
		.alone = variant->decrypt_alone,
		.ipsec_mb = decrypt_one,
		.longest = gcm->longest_decrypted,
	};
	pass_burst(gcm, jobs, count, &direction);
}

// ---- self-test ----

#define TEST_SHORT_MAX   ((GCM_SHORT_BLOCKS + 8) * GCM_BLOCK_SIZE)
#define TEST_LENGTH_MAX  9216
#define TEST_BURSTS      (2 * TEST_SHORT_MAX / 7)
#define TEST_LONG_BURSTS 8 // bursts of any length, jumbo frames' too

// Messages of one burst of the self-test, and what ipsec-mb makes of them.
struct self_test {
	struct gcm_key keys[3];
	struct gcm_job jobs[GCM_BURST_MAX];
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

// Neighbours are of about one length, so that many go together.
static uint64_t draw_length(struct self_test *test, unsigned int number)
{
	if (number >= TEST_BURSTS)
		return draw(test) % (TEST_LENGTH_MAX + 1);
	uint64_t length = number * 7 % TEST_SHORT_MAX + draw(test) % 48;
	return RTE_MIN(length, (uint64_t)TEST_SHORT_MAX);
}

// What is compared of a message: the block behind it, too.
static size_t compared_size(const struct gcm_job *job)
{
	return RTE_ALIGN_CEIL(job->length, GCM_BLOCK_SIZE) + GCM_BLOCK_SIZE;
}

// Every third burst mixes keys.
static void make_burst(struct self_test *test, unsigned int number)
{
	for (unsigned int i = 0; i < GCM_BURST_MAX; i++) {
		struct gcm_job *job = &test->jobs[i];
		*job = (struct gcm_job){
			.key = &test->keys[number % 3 == 0 ? draw(test) % 3 : 0],
			.data = test->data[i],
			.length = draw_length(test, number),
			.aad_length = draw(test) % 2 == 0 ? 8 : 12,
			.tag = test->tags[i],
		};
		fill(test, job->data, compared_size(job));
		memcpy(test->expected[i], job->data, compared_size(job));
		fill(test, job->nonce, GCM_SLOT_SIZE);
		fill(test, job->aad, GCM_SLOT_SIZE);
	}
}

static bool message_is_equal(
	const struct gcm *gcm, struct self_test *test, unsigned int i, bool encrypt)
{
	struct gcm_job job = test->jobs[i];
	job.data = test->expected[i];
	job.tag = test->expected_tags[i];
	(encrypt ? encrypt_one : decrypt_one)(gcm, &job);
	return memcmp(test->tags[i], test->expected_tags[i], GCM_TAG_SIZE) == 0 &&
	       memcmp(test->data[i], test->expected[i], compared_size(&job)) == 0;
}

static bool burst_is_equal(const struct gcm *gcm, struct self_test *test, bool encrypt)
{
	if (encrypt)
		gcm_encrypt_burst(gcm, test->jobs, GCM_BURST_MAX);
	else
		gcm_decrypt_burst(gcm, test->jobs, GCM_BURST_MAX);
	bool equal = true;
	for (unsigned int i = 0; equal && i < GCM_BURST_MAX; i++)
		equal = message_is_equal(gcm, test, i, encrypt);
	return equal;
}

bool gcm_self_test(const struct gcm *gcm)
{
	struct self_test *test = aligned_alloc(64, RTE_ALIGN_CEIL(sizeof(*test), 64));
	if (test == NULL)
		return false;
	test->state = UINT64_C(0x9e3779b97f4a7c15);
	for (unsigned int i = 0; i < RTE_DIM(test->keys); i++) {
		uint8_t bytes[GCM_KEY_SIZE];
		fill(test, bytes, sizeof(bytes));
		gcm_key_expand(gcm->manager, &test->keys[i], bytes);
	}
	bool equal = true;
	for (unsigned int number = 0; equal && number < TEST_BURSTS + TEST_LONG_BURSTS; number++) {
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
		.encrypt_alone = gcm_avx512_encrypt_alone,
		.decrypt_alone = gcm_avx512_decrypt_alone,
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

// ---- measurement ----

// Few enough for the nearest cache. Medians of many short turns, of which each compares the two
// ways: what interrupts some turns, or slows down all that follow, does not count.
enum { MEASURED_JOBS = 8, MEASURED_TURNS = 51 };
enum { MEASURED_LONG = 88, MEASURED_SHORTER = 44 }; // blocks: Ethernet's longest, and half of them
enum { BORDER_LEAST = 8, BORDER_STEP = 4 };         // blocks; shorter ones always go together
_Static_assert(MEASURED_SHORTER > GCM_OWN_POWER_BLOCKS, "too long for others' company");

struct measurement {
	struct gcm_key key;
	struct gcm_job jobs[MEASURED_JOBS];
	uint8_t tag[GCM_TAG_SIZE];
	uint8_t data[MEASURED_JOBS][(1 + MEASURED_LONG + 1) * GCM_BLOCK_SIZE];
	double ratios[MEASURED_TURNS]; // the second way's cycles by the first one's
};

typedef void (*burst_pass)(const struct gcm *gcm, const struct gcm_job *jobs, unsigned int count);

static int compare_ratios(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;
	return x < y ? -1 : x > y;
}

static double cycles_of(
	burst_pass pass, const struct gcm *way, const struct measurement *measurement)
{
	uint64_t begin = rte_rdtsc();
	pass(way, measurement->jobs, MEASURED_JOBS);
	return (double)(rte_rdtsc() - begin);
}

// How long the second way takes by the first, for messages of so many blocks, every other of
// `others` blocks.
static double compare_ways(struct measurement *measurement, const struct gcm ways[2],
	burst_pass pass, unsigned int blocks, unsigned int others)
{
	for (unsigned int i = 0; i < MEASURED_JOBS; i++)
		measurement->jobs[i].length = (i % 2 == 0 ? blocks : others) * GCM_BLOCK_SIZE;
	for (unsigned int turn = 0; turn < MEASURED_TURNS; turn++) {
		double first = cycles_of(pass, &ways[0], measurement);
		measurement->ratios[turn] = cycles_of(pass, &ways[1], measurement) / first;
	}
	qsort(measurement->ratios, MEASURED_TURNS, sizeof(double), compare_ratios);
	return measurement->ratios[MEASURED_TURNS / 2];
}

static void pass_both(const struct gcm *gcm, const struct gcm_job *jobs, unsigned int count)
{
	gcm_encrypt_burst(gcm, jobs, count);
	gcm_decrypt_burst(gcm, jobs, count);
}

// By however little: beside a busy sibling thread little is left of the gain, and the program may
// start at such a moment.
static bool alone_is_faster(struct measurement *measurement, const struct gcm *gcm)
{
	struct gcm ways[2] = {*gcm, *gcm};
	ways[1].alone = true;
	return gcm->variant->encrypt_alone != NULL &&
	       compare_ways(measurement, ways, pass_both, MEASURED_LONG, MEASURED_SHORTER) < 1;
}

static bool together_is_clearly_faster(struct measurement *measurement, const struct gcm ways[2],
	burst_pass pass, unsigned int blocks)
{
	const double clearly = 0.97; // mixtures gain less than these messages, which are all alike
	return compare_ways(measurement, ways, pass, blocks, blocks) < clearly;
}

// Up to how many blocks messages pass faster together than alone.
static unsigned int find_border(
	struct measurement *measurement, const struct gcm *gcm, burst_pass pass)
{
	struct gcm ways[2] = {*gcm, *gcm};
	ways[0].longest_encrypted = ways[0].longest_decrypted = 0;
	unsigned int blocks = gcm->variant->longest;
	while (blocks > BORDER_LEAST &&
		!together_is_clearly_faster(measurement, ways, pass, blocks - BORDER_STEP))
		blocks -= BORDER_STEP;
	return blocks;
}

static void prepare_measurement(struct measurement *measurement, const IMB_MGR *manager)
{
	static const uint8_t key[GCM_KEY_SIZE] = {0};
	memset(measurement, 0, sizeof(*measurement));
	gcm_key_expand(manager, &measurement->key, key);
	for (unsigned int i = 0; i < MEASURED_JOBS; i++)
		measurement->jobs[i] = (struct gcm_job){
			.key = &measurement->key,
			.data = measurement->data[i] + GCM_BLOCK_SIZE,
			.aad_length = 8,
			.tag = measurement->tag,
		};
}

void gcm_measure(struct gcm *gcm)
{
	gcm->alone = false;
	gcm->longest_encrypted = gcm->longest_decrypted =
		gcm->variant != NULL ? gcm->variant->longest : 0;
	if (gcm->variant == NULL)
		return;
	struct measurement *measurement =
		aligned_alloc(64, RTE_ALIGN_CEIL(sizeof(*measurement), 64));
	if (measurement == NULL)
		return;
	prepare_measurement(measurement, gcm->manager);
	gcm->alone = alone_is_faster(measurement, gcm);
	if (gcm->alone) {
		gcm->longest_encrypted = find_border(measurement, gcm, gcm_encrypt_burst);
		gcm->longest_decrypted = find_border(measurement, gcm, gcm_decrypt_burst);
	}
	free(measurement);
}

bool gcm_choose(struct gcm *gcm, const IMB_MGR *manager, enum esp_crypto crypto)
{
	static struct gcm measured; // once for all workers
	*gcm = (struct gcm){.manager = manager};
	if (crypto == ESP_CRYPTO_IPSEC_MB)
		return true;
	if (measured.variant == NULL) {
		for (unsigned int i = 0; i < GCM_VARIANTS && gcm->variant == NULL; i++)
			if (gcm_variants[i].supported())
				gcm->variant = &gcm_variants[i];
		gcm_measure(gcm);
		measured = *gcm;
	}
	*gcm = measured;
	gcm->manager = manager;
	return gcm->variant != NULL || crypto == ESP_CRYPTO_AUTO;
}
