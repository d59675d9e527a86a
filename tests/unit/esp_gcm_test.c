// SPDX-License-Identifier: BSD-3-Clause
// Copyright (c) 2026 the espgw authors

// The burst cipher, each variant of it that this CPU can run, gives the same bytes as ipsec-mb, and
// touches no others.

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "esp/gcm.h"
#include "esp_helpers.h"

#define LENGTH_MAX 9216
#define MARGIN     64 // bytes around each message that must stay as they are
#define KEYS       5
#define SHORT_MAX  (GCM_SHORT_BLOCKS * GCM_BLOCK_SIZE)

struct message {
	uint8_t bytes[MARGIN + LENGTH_MAX + 2 * MARGIN];
	uint8_t tag[GCM_TAG_SIZE];
};

enum contents { RANDOM, ZEROS, ONES };

static struct gcm burst, reference;
static struct gcm_key keys[KEYS];
static struct message messages[GCM_BURST_MAX], expected[GCM_BURST_MAX];
static struct gcm_job jobs[GCM_BURST_MAX];
static uint64_t state = 88172645463325252u;

static uint64_t draw(void)
{
	return test_random(&state);
}

static void fill(uint8_t *bytes, size_t size, enum contents contents)
{
	if (contents != RANDOM)
		memset(bytes, contents == ZEROS ? 0 : 0xff, size);
	else
		for (size_t i = 0; i < size; i += 8) {
			uint64_t value = draw();
			memcpy(bytes + i, &value, size - i < 8 ? size - i : 8);
		}
}

static void set_message(unsigned int i, uint64_t length, uint64_t aad_length,
	const struct gcm_key *key, enum contents contents)
{
	struct message *message = &messages[i];
	fill(message->bytes, MARGIN + length + 2 * MARGIN, contents);
	memcpy(&expected[i], message, sizeof(*message));
	jobs[i] = (struct gcm_job){
		.key = key,
		.data = message->bytes + MARGIN,
		.length = length,
		.aad_length = aad_length,
		.tag = message->tag,
	};
	fill(jobs[i].nonce, sizeof(jobs[i].nonce), contents);
	fill(jobs[i].aad, sizeof(jobs[i].aad), contents);
}

// The reference computes each message by itself, so that nothing of the burst is in it.
static void compare(unsigned int count, bool encrypt)
{
	for (unsigned int i = 0; i < count; i++) {
		struct gcm_job job = jobs[i];
		job.data = (uint8_t *)&expected[i] + (jobs[i].data - (uint8_t *)&messages[i]);
		job.tag = (uint8_t *)&expected[i] + (jobs[i].tag - (uint8_t *)&messages[i]);
		if (encrypt)
			gcm_encrypt_burst(&reference, &job, 1);
		else
			gcm_decrypt_burst(&reference, &job, 1);
		size_t size = MARGIN + job.length + 2 * MARGIN;
		if (memcmp(messages[i].bytes, expected[i].bytes, size) != 0 ||
			memcmp(messages[i].tag, expected[i].tag, GCM_TAG_SIZE) != 0)
			fail_msg("%s of message %u of %u differs: %lu bytes, AAD of %lu",
				encrypt ? "encryption" : "decryption", i, count, job.length,
				job.aad_length);
	}
}

static void check(unsigned int count, bool encrypt)
{
	if (encrypt)
		gcm_encrypt_burst(&burst, jobs, count);
	else
		gcm_decrypt_burst(&burst, jobs, count);
	compare(count, encrypt);
}

// All of a length go together. What is short goes with different keys, too.
static void test_every_length(void **unused)
{
	(void)unused;
	for (uint64_t length = 0; length <= LENGTH_MAX; length++) {
		for (unsigned int i = 0; i < 4; i++)
			set_message(i, length, i % 2 == 0 ? 8 : 12, &keys[0], RANDOM);
		check(4, length % 2 == 0);
		if (length > SHORT_MAX + 64)
			continue;
		for (unsigned int i = 0; i < 4; i++)
			set_message(i, length, 8, &keys[i], RANDOM);
		check(4, length % 2 != 0);
	}
}

// A message by itself, as what nothing goes together with; its place in memory varies.
static void test_single_messages(void **unused)
{
	(void)unused;
	for (uint64_t length = 0; length <= LENGTH_MAX; length++)
		for (enum contents contents = RANDOM; contents <= ONES; contents++) {
			set_message(0, length, length % 2 == 0 ? 12 : 8, &keys[length % KEYS],
				contents);
			jobs[0].data += length % (MARGIN / 2);
			check(1, (length / 2 + contents) % 2 == 0);
		}
}

// Single messages of a burst have nothing to do with each other: each number of rows after each.
static void test_single_messages_in_turn(void **unused)
{
	(void)unused;
	enum { ROW = 4 * GCM_BLOCK_SIZE, ROWS = 28 };
	for (unsigned int round = 0; round < 2 * ROWS * ROWS; round++) {
		unsigned int rows[2] = {round / 2 % ROWS, round / 2 / ROWS};
		for (unsigned int i = 0; i < 2; i++)
			set_message(i, rows[i] * ROW + draw() % ROW, 8, &keys[i], RANDOM);
		check(2, round % 2 == 0);
	}
}

// Lengths that differ within those that go together, each position the shortest once, in both
// directions, with one key and with several.
static void test_neighbouring_lengths(void **unused)
{
	(void)unused;
	for (uint64_t length = 0; length <= SHORT_MAX + 32; length++)
		for (unsigned int round = 0; round < 4; round++) {
			for (unsigned int i = 0; i < 4; i++)
				set_message(i, length + (i == length % 4 ? 0 : draw() % 70),
					8 + 4 * (draw() % 2), &keys[round / 2 * i], RANDOM);
			check(4, round % 2 == 0);
		}
}

// gcm.c gives the shortest first; the variants don't depend on it.
static void test_any_order(void **unused)
{
	(void)unused;
	const struct gcm_variant *variant = burst.variant;
	if (variant == NULL)
		return;
	const struct gcm_job *pointers[GCM_TOGETHER_MAX];
	for (uint64_t length = 0; length <= variant->longest * GCM_BLOCK_SIZE; length++) {
		for (unsigned int i = 0; i < variant->together; i++) {
			uint64_t less = i * GCM_MIX_BLOCKS * GCM_BLOCK_SIZE / variant->together;
			set_message(i, length < less ? 0 : length - less, 8, &keys[length % 2 * i],
				RANDOM);
			pointers[i] = &jobs[i];
		}
		unsigned int blocks = (unsigned int)(length + GCM_BLOCK_SIZE - 1) / GCM_BLOCK_SIZE;
		(length % 3 == 0 ? variant->encrypt : variant->decrypt)(pointers, blocks);
		compare(variant->together, length % 3 == 0);
	}
}

// As packets have it: the tag right behind the data, which begins anywhere.
static void move_message(unsigned int i)
{
	jobs[i].data += draw() % (MARGIN / 2);
	jobs[i].tag = jobs[i].data + jobs[i].length;
}

static uint64_t random_length(void)
{
	switch (draw() % 9) {
	case 0:
	case 1:
		return draw() % 80;
	case 2:
	case 3:
		return draw() % (SHORT_MAX + 20);
	case 4:
	case 5:
		return 68;
	case 6:
		return draw() % (LENGTH_MAX + 1);
	default:
		return draw() % 1500;
	}
}

static void test_mixtures(void **unused)
{
	(void)unused;
	for (unsigned int round = 0; round < 12000; round++) {
		unsigned int count = 1 + round % GCM_BURST_MAX;
		bool one_key = draw() % 3 == 0;
		enum contents contents = draw() % 8 == 0 ? ZEROS : draw() % 8 == 0 ? ONES : RANDOM;
		for (unsigned int i = 0; i < count; i++)
			set_message(i, random_length(), 8 + 4 * (draw() % 2),
				&keys[one_key ? 0 : draw() % KEYS], contents);
		for (unsigned int i = 0; round % 2 == 0 && i < count; i++)
			move_message(i);
		check(count, draw() % 2 == 0);
	}
}

static void test_aad_lengths(void **unused)
{
	(void)unused;
	for (uint64_t length = 0; length < 200; length++) {
		for (unsigned int i = 0; i <= GCM_SLOT_SIZE; i++)
			set_message(i, length, i, &keys[0], RANDOM);
		check(GCM_SLOT_SIZE + 1, length % 2 == 0);
	}
}

// Keys whose hash key has few bits are no better than others: the all-zero and all-one ones, and
// one bit each.
static void test_odd_keys(void **unused)
{
	(void)unused;
	static struct gcm_key odd;
	for (unsigned int bit = 0; bit < 8 * GCM_KEY_SIZE + 2; bit++) {
		uint8_t bytes[GCM_KEY_SIZE] = {0};
		if (bit < 8 * GCM_KEY_SIZE)
			bytes[bit / 8] = (uint8_t)(1u << bit % 8);
		else if (bit == 8 * GCM_KEY_SIZE)
			memset(bytes, 0xff, sizeof(bytes));
		gcm_key_expand(burst.manager, &odd, bytes);
		for (unsigned int i = 0; i < 16; i++)
			set_message(i, bit + 16 * i, 8, &odd, (enum contents)(bit % 3));
		check(16, bit % 2 == 0);
	}
}

// Right behind the tag there is no memory: nothing further is touched.
static void test_end_of_memory(void **unused)
{
	(void)unused;
	enum { PAGE = 4096 };
	uint8_t *pages[4];
	for (unsigned int i = 0; i < 4; i++) {
		pages[i] = mmap(
			NULL, 2 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		assert_true(pages[i] != MAP_FAILED);
		assert_int_equal(mprotect(pages[i] + PAGE, PAGE, PROT_NONE), 0);
	}
	for (uint64_t round = 0; round < 2 * SHORT_MAX; round++) {
		uint64_t length = round / 2;
		for (unsigned int i = 0; i < 4; i++) {
			uint64_t less = round % 2 == 0 ? i * 16 : i % 2 * 64;
			uint64_t shorter = length - (less < length ? less : length);
			set_message(i, shorter, 8, &keys[0], RANDOM);
			jobs[i].data = pages[i] + PAGE - GCM_TAG_SIZE - shorter;
			jobs[i].tag = jobs[i].data + shorter;
		}
		gcm_encrypt_burst(&burst, jobs, 4);
		gcm_decrypt_burst(&burst, jobs, 4);
	}
	for (unsigned int i = 0; i < 4; i++)
		munmap(pages[i], 2 * PAGE);
}

// Nor right before the data, be it that of a single message, of which the tag is elsewhere.
static void test_start_of_memory(void **unused)
{
	(void)unused;
	enum { PAGE = 4096 };
	uint8_t *pages =
		mmap(NULL, 2 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	assert_true(pages != MAP_FAILED);
	assert_int_equal(mprotect(pages, PAGE, PROT_NONE), 0);
	for (uint64_t length = 0; length < SHORT_MAX; length++) {
		set_message(0, length, 8, &keys[0], RANDOM);
		jobs[0].data = pages + PAGE;
		gcm_encrypt_burst(&burst, jobs, 1);
		gcm_decrypt_burst(&burst, jobs, 1);
	}
	munmap(pages, 2 * PAGE);
}

// As one whose counters of 32 bits were of eight.
static void forget_carry(const struct gcm_job *const *singles, unsigned int count)
{
	burst.variant->decrypt_alone(singles, count);
	for (unsigned int i = 0; i < count; i++)
		if (singles[i]->length > 254 * GCM_BLOCK_SIZE)
			singles[i]->data[254 * GCM_BLOCK_SIZE] ^= 1;
}

static void test_self_test(void **unused)
{
	(void)unused;
	assert_true(gcm_self_test(&burst));
	if (burst.variant == NULL)
		return;
	// One that encrypts where it should decrypt.
	struct gcm_variant variant = *burst.variant;
	variant.decrypt = variant.encrypt;
	struct gcm wrong = burst;
	wrong.variant = &variant;
	assert_false(gcm_self_test(&wrong));
	if (!burst.alone)
		return;
	variant = *burst.variant;
	variant.decrypt_alone = variant.encrypt_alone;
	assert_false(gcm_self_test(&wrong));
	variant.decrypt_alone = forget_carry;
	assert_false(gcm_self_test(&wrong));
}

static void test_choice(void **unused)
{
	(void)unused;
	const struct gcm_variant *best = NULL;
	for (unsigned int i = 0; i < GCM_VARIANTS && best == NULL; i++)
		if (gcm_variants[i].supported())
			best = &gcm_variants[i];
	struct gcm gcm;
	assert_true(gcm_choose(&gcm, burst.manager, ESP_CRYPTO_AUTO));
	assert_ptr_equal(gcm.variant, best);
	assert_true(!gcm.alone || best->encrypt_alone != NULL);
	assert_int_equal(gcm_choose(&gcm, burst.manager, ESP_CRYPTO_BURST), best != NULL);
	assert_true(gcm_choose(&gcm, burst.manager, ESP_CRYPTO_IPSEC_MB));
	assert_null(gcm.variant);
	assert_false(gcm.alone);
	// Measured once: the same again.
	struct gcm second;
	assert_true(gcm_choose(&gcm, burst.manager, ESP_CRYPTO_AUTO));
	assert_true(gcm_choose(&second, burst.manager, ESP_CRYPTO_AUTO));
	assert_int_equal(second.alone, gcm.alone);
	assert_int_equal(second.longest_encrypted, gcm.longest_encrypted);
	assert_int_equal(second.longest_decrypted, gcm.longest_decrypted);

	enum esp_crypto chosen;
	assert_int_equal(esp_crypto_choose(ESP_CRYPTO_IPSEC_MB, &chosen), ESP_CRYPTO_FINE);
	assert_int_equal(chosen, ESP_CRYPTO_IPSEC_MB);
	assert_int_equal(esp_crypto_choose(ESP_CRYPTO_AUTO, &chosen), ESP_CRYPTO_FINE);
	assert_int_equal(chosen, best != NULL ? ESP_CRYPTO_BURST : ESP_CRYPTO_IPSEC_MB);
	assert_int_equal(esp_crypto_choose(ESP_CRYPTO_BURST, &chosen),
		best != NULL ? ESP_CRYPTO_FINE : ESP_CRYPTO_UNSUPPORTED);
}

// One message of them, by ipsec-mb, which no sanitizer slows down.
static void pass_fast(const struct gcm_job *const *singles, unsigned int count)
{
	(void)count;
	gcm_encrypt_burst(&reference, singles[0], 1);
}

static void together_at_once(const struct gcm_job *const *four, unsigned int blocks)
{
	(void)four, (void)blocks;
}

static void pass_slowly(const struct gcm_job *const *singles, unsigned int count)
{
	for (unsigned int i = 0; i < 16; i++)
		burst.variant->encrypt_alone(singles, count);
}

static void together_slowly(const struct gcm_job *const *four, unsigned int blocks)
{
	for (unsigned int i = 0; i < 64; i++)
		burst.variant->encrypt(four, blocks);
}

static void check_measured(const struct gcm_variant *variant, bool alone, unsigned int encrypted,
	unsigned int decrypted)
{
	struct gcm gcm = {.manager = burst.manager, .variant = variant};
	gcm_measure(&gcm);
	assert_int_equal(gcm.alone, alone);
	assert_int_equal(gcm.longest_encrypted, encrypted);
	assert_int_equal(gcm.longest_decrypted, decrypted);
}

static void test_measurement(void **unused)
{
	(void)unused;
	if (burst.variant == NULL)
		return;
	struct gcm_variant variant = *burst.variant;
	variant.encrypt_alone = variant.decrypt_alone = NULL;
	check_measured(&variant, false, variant.longest, variant.longest);
	if (!burst.alone)
		return;
	variant.encrypt_alone = variant.decrypt_alone = pass_slowly;
	check_measured(&variant, false, variant.longest, variant.longest);
	variant.encrypt_alone = variant.decrypt_alone = pass_fast;
	variant.encrypt = together_slowly;
	variant.decrypt = together_slowly;
	check_measured(&variant, true, 8, 8);
	variant.encrypt = together_at_once;
	check_measured(&variant, true, variant.longest, 8);
}

// `variant`: NULL for ipsec-mb against itself.
static int run(const char *name, const struct gcm_variant *variant, bool alone)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_every_length),
		cmocka_unit_test(test_single_messages),
		cmocka_unit_test(test_single_messages_in_turn),
		cmocka_unit_test(test_neighbouring_lengths),
		cmocka_unit_test(test_any_order),
		cmocka_unit_test(test_mixtures),
		cmocka_unit_test(test_aad_lengths),
		cmocka_unit_test(test_odd_keys),
		cmocka_unit_test(test_end_of_memory),
		cmocka_unit_test(test_start_of_memory),
		cmocka_unit_test(test_self_test),
		cmocka_unit_test(test_choice),
		cmocka_unit_test(test_measurement),
	};
	burst = test_gcm(burst.manager, variant, alone);
	return cmocka_run_group_tests_name(name, tests, NULL, NULL);
}

int main(void)
{
	IMB_MGR *manager = alloc_mb_mgr(0);
	init_mb_mgr_auto(manager, NULL);
	reference.manager = burst.manager = manager;
	for (unsigned int i = 0; i < KEYS; i++) {
		uint8_t bytes[GCM_KEY_SIZE];
		fill(bytes, sizeof(bytes), RANDOM);
		gcm_key_expand(manager, &keys[i], bytes);
	}
	int failed = test_each_cipher(run);
	free_mb_mgr(manager);
	return failed;
}
