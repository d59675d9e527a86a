// SPDX-License-Identifier: BSD-3-Clause
// Copyright (c) 2026 the espgw authors

// Other people's vectors and packets: tests/vectors says whose.

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "esp/sa.h"
#include "esp_helpers.h"

#define VECTOR_MAX  1024
#define VECTORS_MAX 128 // of a file

static struct esp_context *context;

struct gcm_vector {
	struct gcm_key key;
	uint8_t nonce[16], aad[520], plaintext[VECTOR_MAX], ciphertext[VECTOR_MAX];
	uint8_t data[VECTOR_MAX], tag[GCM_TAG_SIZE], computed[GCM_TAG_SIZE];
	uint32_t length, aad_length;
	bool fails;
};

// A vector whose names of fields differ between files.
struct gcm_names {
	const char *nonce[2]; // parts of it, in order; the second may be absent
	const char *aad[2];
	const char *tag;
};

static uint32_t read_parts(
	const struct test_record *record, const char *const names[2], uint8_t *bytes, uint32_t room)
{
	uint32_t size = 0;
	for (unsigned int i = 0; i < 2 && names[i] != NULL; i++)
		size += test_record_bytes(record, names[i], bytes + size, room - size);
	return size;
}

static void read_vector(const struct test_record *record, const struct gcm_names *names,
	IMB_MGR *manager, struct gcm_vector *vector)
{
	uint8_t key[ESP_KEY_SIZE];
	memset(vector, 0, sizeof(*vector));
	assert_int_equal(test_record_bytes(record, "key", key, sizeof(key)), sizeof(key));
	assert_int_equal(read_parts(record, names->nonce, vector->nonce, 16), GCM_NONCE_SIZE);
	assert_int_equal(
		test_record_bytes(record, names->tag, vector->tag, GCM_TAG_SIZE), GCM_TAG_SIZE);
	vector->aad_length = read_parts(record, names->aad, vector->aad, sizeof(vector->aad));
	vector->length = test_record_bytes(record, "ciphertext", vector->ciphertext, VECTOR_MAX);
	vector->fails = strcmp(test_record_text(record, "result"), "fail") == 0;
	uint32_t plain = test_record_bytes(record, "plaintext", vector->plaintext, VECTOR_MAX);
	assert_int_equal(plain, vector->fails ? 0 : vector->length);
	gcm_key_expand(manager, &vector->key, key);
}

static struct gcm_job vector_job(struct gcm_vector *vector)
{
	struct gcm_job job = {
		.key = &vector->key,
		.aad_length = vector->aad_length,
		.data = vector->data,
		.length = vector->length,
		.tag = vector->computed,
	};
	memcpy(job.nonce, vector->nonce, GCM_NONCE_SIZE);
	memcpy(job.aad, vector->aad, sizeof(job.aad));
	return job;
}

static void check_vectors(const struct gcm *gcm, struct gcm_vector *vectors, unsigned int count)
{
	struct gcm_job jobs[ESP_BURST_MAX] = {0};
	for (unsigned int i = 0; i < count; i++) {
		memcpy(vectors[i].data, vectors[i].ciphertext, vectors[i].length);
		jobs[i] = vector_job(&vectors[i]);
	}
	gcm_decrypt_burst(gcm, jobs, count);
	for (unsigned int i = 0; i < count; i++) {
		struct gcm_vector *vector = &vectors[i];
		if (vector->fails) {
			assert_memory_not_equal(vector->computed, vector->tag, GCM_TAG_SIZE);
			continue;
		}
		assert_memory_equal(vector->computed, vector->tag, GCM_TAG_SIZE);
		assert_memory_equal(vector->data, vector->plaintext, vector->length);
		memset(vector->computed, 0, GCM_TAG_SIZE);
	}
	gcm_encrypt_burst(gcm, jobs, count);
	for (unsigned int i = 0; i < count; i++) {
		struct gcm_vector *vector = &vectors[i];
		if (vector->fails)
			continue;
		assert_memory_equal(vector->computed, vector->tag, GCM_TAG_SIZE);
		assert_memory_equal(vector->data, vector->ciphertext, vector->length);
	}
}

// The vector at each place of messages that the burst cipher takes together, the others of one to
// three blocks more and with keys of their own.
static void check_places(const struct gcm *gcm, struct gcm_vector *vector, struct gcm_key *other)
{
	static struct gcm_vector group[GCM_TOGETHER_MAX];
	unsigned int count = gcm->variant != NULL ? gcm->variant->together : 1;
	for (unsigned int place = 0; place < count; place++) {
		for (unsigned int i = 0; i < count; i++) {
			group[i] = *vector;
			if (i == place)
				continue;
			group[i].key = *other;
			group[i].length += GCM_BLOCK_SIZE * (1 + i % 3);
			group[i].fails = true; // only its place is of interest
		}
		check_vectors(gcm, group, count);
	}
}

// A vector whose AAD is longer than a job of ours can have.
static void check_long_aad(const struct gcm *gcm, struct gcm_vector *vector)
{
	struct gcm_context_data context_data;
	gcm->manager->gcm256_dec(&vector->key.schedule, &context_data, vector->data,
		vector->ciphertext, vector->length, vector->nonce, vector->aad, vector->aad_length,
		vector->computed, GCM_TAG_SIZE);
	if (vector->fails) {
		assert_memory_not_equal(vector->computed, vector->tag, GCM_TAG_SIZE);
		return;
	}
	assert_memory_equal(vector->computed, vector->tag, GCM_TAG_SIZE);
	assert_memory_equal(vector->data, vector->plaintext, vector->length);
	gcm->manager->gcm256_enc(&vector->key.schedule, &context_data, vector->data, vector->data,
		vector->length, vector->nonce, vector->aad, vector->aad_length, vector->computed,
		GCM_TAG_SIZE);
	assert_memory_equal(vector->computed, vector->tag, GCM_TAG_SIZE);
	assert_memory_equal(vector->data, vector->ciphertext, vector->length);
}

// Each vector once, in bursts as large as can be; each by itself four times, which the burst cipher
// takes together; and each among others. Those whose AAD is longer than ESP's are for ipsec-mb
// alone: returns how many were checked.
static unsigned int check_gcm(const struct gcm *gcm, struct gcm_vector *vectors, unsigned int count,
	struct gcm_key *other)
{
	static struct gcm_vector some[VECTORS_MAX];
	unsigned int fit = 0, long_ones = 0;
	for (unsigned int i = 0; i < count; i++) {
		if (vectors[i].aad_length <= GCM_SLOT_SIZE) {
			some[fit++] = vectors[i];
		} else if (gcm->variant == NULL) {
			check_long_aad(gcm, &vectors[i]);
			long_ones++;
		}
	}
	for (unsigned int i = 0; i < fit; i += ESP_BURST_MAX)
		check_vectors(gcm, some + i, RTE_MIN(fit - i, (unsigned int)ESP_BURST_MAX));
	for (unsigned int i = 0; i < fit; i++) {
		struct gcm_vector four[4] = {some[i], some[i], some[i], some[i]};
		check_vectors(gcm, four, 1);
		four[0] = some[i];
		check_vectors(gcm, four, 4);
		check_places(gcm, &some[i], other);
	}
	return fit + long_ones;
}

// `expected`: how many records the file has; `expected_short`: with an AAD as short as ESP's.
static void check_gcm_file(const char *name, const struct gcm_names *names, unsigned int expected,
	unsigned int expected_short)
{
	static struct gcm_vector vectors[VECTORS_MAX];
	static struct gcm_key other;
	static const uint8_t other_bytes[ESP_KEY_SIZE] = "key of the others in the burst";
	IMB_MGR *manager = alloc_mb_mgr(0);
	init_mb_mgr_auto(manager, NULL);
	gcm_key_expand(manager, &other, other_bytes);
	FILE *file = test_vectors_open(name);
	assert_non_null(file);
	struct test_record record = {0};
	unsigned int count = 0;
	while (test_record_read(file, &record)) {
		assert_true(count < VECTORS_MAX);
		read_vector(&record, names, manager, &vectors[count++]);
	}
	fclose(file);
	assert_int_equal(count, expected);
	struct gcm gcm = context->gcm;
	gcm.manager = manager;
	unsigned int checked = check_gcm(&gcm, vectors, count, &other);
	assert_int_equal(checked, gcm.variant != NULL ? expected_short : expected);
	free_mb_mgr(manager);
}

static void test_nist_gcm(void **state)
{
	(void)state;
	const struct gcm_names names = {{"iv", NULL}, {"aad", NULL}, "tag"};
	check_gcm_file("gcm_nist.txt", &names, 19, 15);
}

static void test_wycheproof_gcm(void **state)
{
	(void)state;
	const struct gcm_names names = {{"iv", NULL}, {"aad", NULL}, "tag"};
	check_gcm_file("gcm_wycheproof.txt", &names, 66, 53);
}

static void test_draft_gcm(void **state)
{
	(void)state;
	const struct gcm_names names = {{"salt", "iv"}, {"spi", "sequence"}, "icv"};
	check_gcm_file("esp_gcm_draft.txt", &names, 4, 4);
}

static struct esp_sa_in *sa_of_record(const struct test_record *record, uint64_t *top)
{
	struct esp_sa_in_parameters parameters = {
		.spi = (uint32_t)test_record_number(record, "spi"),
		.esn = test_record_number(record, "esn") != 0,
		.window = 1024,
		.top = top,
		.workers = 1,
	};
	*top = test_record_number(record, "sequence") - 1;
	assert_int_equal(
		test_record_bytes(record, "key", parameters.key, ESP_KEY_SIZE), ESP_KEY_SIZE);
	assert_int_equal(
		test_record_bytes(record, "salt", parameters.salt, ESP_SALT_SIZE), ESP_SALT_SIZE);
	struct esp_sa_in *sa = esp_sa_in_create(&parameters);
	assert_non_null(sa);
	assert_true(esp_sa_in_spi(sa) == parameters.spi);
	return sa;
}

static uint8_t receive(struct esp_sa_in *sa, const uint8_t *esp, uint32_t size)
{
	struct rte_mbuf *packet = test_packet_new(esp, size, 0, 0);
	uint8_t drop = test_decapsulate(context, sa, packet, 0);
	test_packet_free(packet);
	return drop;
}

static void check_draft_packet(const struct test_record *record)
{
	uint8_t esp[VECTOR_MAX];
	uint64_t top;
	struct esp_sa_in *sa = sa_of_record(record, &top);
	uint64_t sequence = top + 1;
	test_put32(esp, esp_sa_in_spi(sa));
	test_put32(esp + 4, (uint32_t)sequence);
	uint32_t size = 8 + test_record_bytes(record, "iv", esp + 8, 8);
	size += test_record_bytes(record, "ciphertext", esp + size, VECTOR_MAX - size);
	size += test_record_bytes(record, "icv", esp + size, VECTOR_MAX - size);
	esp[size - 1] ^= 1;
	assert_int_equal(receive(sa, esp, size), DROP_ICV);
	esp[size - 1] ^= 1;
	// Authentic and padded well, but "ICMP" is no next header of tunnel mode.
	assert_int_equal(receive(sa, esp, size), DROP_BAD_NEXT_HEADER);
	assert_true(top == sequence);
	assert_int_equal(receive(sa, esp, size), DROP_REPLAY);
	esp_sa_in_destroy(sa);
}

static void test_draft_packets(void **state)
{
	(void)state;
	FILE *file = test_vectors_open("esp_gcm_draft.txt");
	assert_non_null(file);
	struct test_record record = {0};
	while (test_record_read(file, &record))
		check_draft_packet(&record);
	fclose(file);
}

static void check_scapy_packet(const struct test_record *record)
{
	uint8_t outer[VECTOR_MAX], inner[VECTOR_MAX];
	uint64_t top;
	struct esp_sa_in *sa = sa_of_record(record, &top);
	uint32_t size = test_record_bytes(record, "outer", outer, sizeof(outer));
	uint32_t inner_size = test_record_bytes(record, "inner", inner, sizeof(inner));
	uint32_t offset = (uint32_t)atoi(test_record_text(record, "offset"));
	struct rte_mbuf *packet = test_packet_new(outer + offset, size - offset, 0, 0);
	assert_int_equal(test_decapsulate(context, sa, packet, 0x28), DROP_NONE);
	assert_int_equal(packet->data_len, inner_size);
	assert_memory_equal(test_data(packet), inner, inner_size);
	assert_true(top == test_record_number(record, "sequence"));
	assert_int_equal(receive(sa, outer + offset, size - offset), DROP_REPLAY);
	assert_int_equal(esp_sa_in_counters(sa).bytes, inner_size);
	test_packet_free(packet);
	esp_sa_in_destroy(sa);
}

static void test_scapy_packets(void **state)
{
	(void)state;
	FILE *file = test_vectors_open("esp_scapy.txt");
	assert_non_null(file);
	struct test_record record = {0};
	unsigned int count = 0;
	for (; test_record_read(file, &record); count++)
		check_scapy_packet(&record);
	fclose(file);
	assert_int_equal(count, 100);
}

// `variant`: NULL for ipsec-mb.
static int run(const char *name, const struct gcm_variant *variant, bool alone)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_nist_gcm),
		cmocka_unit_test(test_wycheproof_gcm),
		cmocka_unit_test(test_draft_gcm),
		cmocka_unit_test(test_draft_packets),
		cmocka_unit_test(test_scapy_packets),
	};
	context->gcm = test_gcm(context->gcm.manager, variant, alone);
	return cmocka_run_group_tests_name(name, tests, NULL, NULL);
}

int main(void)
{
	context = test_esp_start(ESP_CRYPTO_IPSEC_MB);
	if (context == NULL)
		return 1;
	int failed = test_each_cipher(run);
	esp_context_destroy(context);
	return failed;
}
