// SPDX-License-Identifier: BSD-3-Clause
// Copyright (c) 2026 the espgw authors

// What the tests and fuzzers of lib/esp share: packets in plain memory, an own encapsulation and
// its reverse that use nothing of lib/esp (a model to hold it against), and vector files.

#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <intel-ipsec-mb.h>
#include <rte_mbuf.h>

#include "eal.h"
#include "esp/esp.h"
#include "esp/gcm.h"

#define TEST_HEADROOM    128
#define TEST_TAILROOM    64
#define TEST_INNER_MAX   9000
#define TEST_SPI         0xc1234567
#define TEST_PROTOCOL_V4 4
#define TEST_PROTOCOL_V6 41
#define TEST_DUMMY       59

// For main: starts EAL. NULL when that or the context fails.
static inline struct esp_context *test_esp_start(enum esp_crypto crypto)
{
	return test_eal_start("64") == 0 ? esp_context_create(0, crypto) : NULL;
}

// Runs tests with ipsec-mb only (NULL) and with each variant of the burst cipher that this CPU has,
// once with single messages left to ipsec-mb, and once with its own functions for these (`alone`);
// returns how many failed.
static inline int test_each_cipher(
	int (*run)(const char *name, const struct gcm_variant *variant, bool alone))
{
	int failed = run("ipsec-mb", NULL, false);
	for (unsigned int i = 0; i < GCM_VARIANTS; i++) {
		const struct gcm_variant *variant = &gcm_variants[i];
		if (!variant->supported()) {
			printf("the burst cipher with %s is not for this CPU\n", variant->name);
			continue;
		}
		failed += run(variant->name, variant, false);
		if (variant->encrypt_alone == NULL)
			continue;
		char name[64];
		snprintf(name, sizeof(name), "%s, single messages too", variant->name);
		failed += run(name, variant, true);
	}
	return failed;
}

// The ways of messages as tests want them, whatever is faster here.
static inline struct gcm test_gcm(
	const IMB_MGR *manager, const struct gcm_variant *variant, bool alone)
{
	unsigned int longest = variant == NULL ? 0 : alone ? 12 : variant->longest;
	return (struct gcm){manager, variant, alone, longest, longest};
}

// splitmix64: small, and the same on every machine.
static inline uint64_t test_random(uint64_t *state)
{
	uint64_t z = (*state += UINT64_C(0x9e3779b97f4a7c15));
	z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
	z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
	return z ^ z >> 31;
}

static inline void test_shuffle(uint32_t *values, uint32_t count, uint64_t *state)
{
	for (uint32_t i = count; i > 1; i--) {
		uint32_t j = (uint32_t)(test_random(state) % i);
		uint32_t value = values[i - 1];
		values[i - 1] = values[j];
		values[j] = value;
	}
}

// An mbuf over a buffer of its own from malloc, so that the address sanitizer sees each byte beyond
// it, and no DPDK code that the thread sanitizer can't look into takes part.
static inline struct rte_mbuf *test_packet_new(
	const uint8_t *data, uint32_t size, uint32_t headroom, uint32_t tailroom)
{
	struct rte_mbuf *packet = calloc(1, sizeof(*packet));
	packet->buf_len = (uint16_t)(headroom + size + tailroom);
	packet->buf_addr = malloc((size_t)packet->buf_len + 1);
	packet->data_off = (uint16_t)headroom;
	packet->data_len = (uint16_t)size;
	packet->pkt_len = size;
	packet->nb_segs = 1;
	packet->refcnt = 1;
	memset(packet->buf_addr, 0xee, (size_t)packet->buf_len + 1);
	if (size != 0)
		memcpy(rte_pktmbuf_mtod(packet, uint8_t *), data, size);
	return packet;
}

static inline struct rte_mbuf *test_packet(const uint8_t *data, uint32_t size)
{
	return test_packet_new(data, size, TEST_HEADROOM, TEST_TAILROOM);
}

static inline void test_packet_set(struct rte_mbuf *packet, const uint8_t *data, uint32_t size)
{
	packet->data_off = TEST_HEADROOM;
	packet->data_len = (uint16_t)size;
	packet->pkt_len = size;
	memcpy(rte_pktmbuf_mtod(packet, uint8_t *), data, size);
}

static inline void test_packet_free(struct rte_mbuf *packet)
{
	free(packet->buf_addr);
	free(packet);
}

static inline uint8_t *test_data(const struct rte_mbuf *packet)
{
	return rte_pktmbuf_mtod(packet, uint8_t *);
}

static inline void test_put16(uint8_t *at, uint16_t value)
{
	at[0] = (uint8_t)(value >> 8);
	at[1] = (uint8_t)value;
}

static inline void test_put32(uint8_t *at, uint32_t value)
{
	test_put16(at, (uint16_t)(value >> 16));
	test_put16(at + 2, (uint16_t)value);
}

static inline uint16_t test_get16(const uint8_t *at)
{
	return (uint16_t)(at[0] << 8 | at[1]);
}

static inline uint32_t test_get32(const uint8_t *at)
{
	return (uint32_t)test_get16(at) << 16 | test_get16(at + 2);
}

// Sum of big-endian words, folded; a header with its right checksum sums up to 0xffff.
static inline uint16_t test_sum(const uint8_t *data, uint32_t size, uint32_t sum)
{
	for (uint32_t i = 0; i < size; i++)
		sum += i % 2 == 0 ? (uint32_t)data[i] << 8 : data[i];
	while (sum > 0xffff)
		sum = (sum & 0xffff) + (sum >> 16);
	return (uint16_t)sum;
}

static inline void test_fill(uint8_t *data, uint32_t size, uint64_t seed)
{
	for (uint32_t i = 0; i < size; i += 8) {
		uint64_t value = test_random(&seed);
		memcpy(data + i, &value, size - i < 8 ? size - i : 8);
	}
}

// Inner packets from 10.1.2.3 to 10.4.5.6 and from 2001:db8:1::3 to 2001:db8:2::6, `size` bytes in
// all, with a payload that depends on size.
static inline void test_inner_v4(uint8_t *data, uint32_t size, uint8_t tos, bool df)
{
	static const uint8_t header[20] = {
		0x45, 0, 0, 0, 0x12, 0x34, 0, 0, 63, 17, 0, 0, 10, 1, 2, 3, 10, 4, 5, 6};
	memcpy(data, header, sizeof(header));
	data[1] = tos;
	test_put16(data + 2, (uint16_t)size);
	data[6] = df ? 0x40 : 0;
	test_put16(data + 10, (uint16_t)~test_sum(data, sizeof(header), 0));
	test_fill(data + sizeof(header), size - (uint32_t)sizeof(header), size);
}

static inline void test_inner_v6(uint8_t *data, uint32_t size, uint8_t traffic_class)
{
	static const uint8_t header[40] = {0x60, 0, 0, 0, 0, 0, 17, 63, 0x20, 1, 0xd, 0xb8, 0, 1, 0,
		0, 0, 0, 0, 0, 0, 0, 0, 3, 0x20, 1, 0xd, 0xb8, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 6};
	memcpy(data, header, sizeof(header));
	data[0] |= traffic_class >> 4;
	data[1] = (uint8_t)(traffic_class << 4 | 5);
	test_put16(data + 4, (uint16_t)(size - sizeof(header)));
	test_fill(data + sizeof(header), size - (uint32_t)sizeof(header), size);
}

// Keys of the tests: each byte differs from its neighbours.
static inline void test_key(uint8_t key[ESP_KEY_SIZE], uint8_t salt[ESP_SALT_SIZE], uint8_t seed)
{
	for (unsigned int i = 0; i < ESP_KEY_SIZE; i++)
		key[i] = (uint8_t)(seed + 7 * i);
	for (unsigned int i = 0; i < ESP_SALT_SIZE; i++)
		salt[i] = (uint8_t)(seed ^ (0xa0 + i));
}

// The model: what it takes to make and open an ESP packet, by ipsec-mb alone.
struct test_cipher {
	struct gcm_key_data key __rte_cache_aligned; // its type alone doesn't ask for it
	IMB_MGR *manager;
	uint8_t salt[ESP_SALT_SIZE];
	uint32_t spi;
	bool esn;
};

static inline struct test_cipher *test_cipher_new(
	const uint8_t key[ESP_KEY_SIZE], const uint8_t salt[ESP_SALT_SIZE], uint32_t spi, bool esn)
{
	struct test_cipher *cipher = aligned_alloc(RTE_CACHE_LINE_SIZE, sizeof(*cipher));
	cipher->manager = alloc_mb_mgr(0);
	init_mb_mgr_auto(cipher->manager, NULL);
	IMB_AES256_GCM_PRE(cipher->manager, key, &cipher->key);
	memcpy(cipher->salt, salt, ESP_SALT_SIZE);
	cipher->spi = spi;
	cipher->esn = esn;
	return cipher;
}

static inline void test_cipher_free(struct test_cipher *cipher)
{
	free_mb_mgr(cipher->manager);
	free(cipher);
}

static inline uint32_t test_aad(
	const struct test_cipher *cipher, uint64_t sequence, uint8_t aad[12])
{
	test_put32(aad, cipher->spi);
	if (!cipher->esn) {
		test_put32(aad + 4, (uint32_t)sequence);
		return 8;
	}
	test_put32(aad + 4, (uint32_t)(sequence >> 32));
	test_put32(aad + 8, (uint32_t)sequence);
	return 12;
}

// Makes an ESP packet of any plaintext, trailer included, however odd. Returns its size.
static inline uint32_t test_forge(const struct test_cipher *cipher, uint64_t sequence,
	const uint8_t *plaintext, uint32_t size, uint8_t *esp)
{
	struct gcm_context_data context;
	uint8_t nonce[16] = {0}, aad[16] = {0};
	uint64_t iv = sequence * UINT64_C(0x9e3779b97f4a7c15); // as good as any other
	uint32_t aad_size = test_aad(cipher, sequence, aad);
	memcpy(nonce, cipher->salt, ESP_SALT_SIZE);
	memcpy(nonce + ESP_SALT_SIZE, &iv, sizeof(iv));
	test_put32(esp, cipher->spi);
	test_put32(esp + 4, (uint32_t)sequence);
	memcpy(esp + ESP_HEADER_SIZE, &iv, sizeof(iv));
	uint8_t *data = esp + ESP_HEADER_SIZE + ESP_IV_SIZE;
	IMB_AES256_GCM_ENC(cipher->manager, &cipher->key, &context, data, plaintext, size, nonce,
		aad, aad_size, data + size, ESP_ICV_SIZE);
	return ESP_HEADER_SIZE + ESP_IV_SIZE + size + ESP_ICV_SIZE;
}

// Adds padding and trailer to `inner` bytes at data. Returns the size of all.
static inline uint32_t test_trailer(
	uint8_t *data, uint32_t inner, uint8_t padding, uint8_t next_header)
{
	for (unsigned int i = 0; i < padding; i++)
		data[inner + i] = (uint8_t)(i + 1);
	data[inner + padding] = padding;
	data[inner + padding + 1] = next_header;
	return inner + padding + 2;
}

// An ESP packet that holds an inner packet as it should.
static inline uint32_t test_forge_inner(const struct test_cipher *cipher, uint64_t sequence,
	const uint8_t *inner, uint32_t size, uint8_t *esp)
{
	uint8_t plaintext[TEST_INNER_MAX + 8];
	memcpy(plaintext, inner, size);
	uint8_t next_header = inner[0] >> 4 == 4 ? TEST_PROTOCOL_V4 : TEST_PROTOCOL_V6;
	uint32_t total = test_trailer(plaintext, size, (uint8_t)(-(size + 2) & 3), next_header);
	return test_forge(cipher, sequence, plaintext, total, esp);
}

// Opens an ESP packet. Returns the size of the plaintext, trailer included, or -1 when the ICV is
// wrong.
static inline int test_open(const struct test_cipher *cipher, uint64_t sequence, const uint8_t *esp,
	uint32_t size, uint8_t *plaintext)
{
	struct gcm_context_data context;
	uint8_t nonce[16] = {0}, aad[16] = {0}, icv[ESP_ICV_SIZE];
	uint32_t aad_size = test_aad(cipher, sequence, aad);
	uint32_t length = size - ESP_HEADER_SIZE - ESP_IV_SIZE - ESP_ICV_SIZE;
	const uint8_t *data = esp + ESP_HEADER_SIZE + ESP_IV_SIZE;
	memcpy(nonce, cipher->salt, ESP_SALT_SIZE);
	memcpy(nonce + ESP_SALT_SIZE, esp + ESP_HEADER_SIZE, ESP_IV_SIZE);
	IMB_AES256_GCM_DEC(cipher->manager, &cipher->key, &context, plaintext, data, length, nonce,
		aad, aad_size, icv, ESP_ICV_SIZE);
	return memcmp(icv, data + length, ESP_ICV_SIZE) == 0 ? (int)length : -1;
}

static inline struct packet_address test_address(const char *text)
{
	struct packet_address address;
	if (!packet_address_parse(text, &address))
		abort();
	return address;
}

// An outbound SA from 198.51.100.1 to 72.21.209.193, or from 2001:db8:ffff::1 to ::2.
static inline struct esp_sa_out_parameters test_out_parameters(uint8_t family)
{
	struct esp_sa_out_parameters parameters = {
		.spi = TEST_SPI,
		.source = test_address(family == 4 ? "198.51.100.1" : "2001:db8:ffff::1"),
		.destination = test_address(family == 4 ? "72.21.209.193" : "2001:db8:ffff::2"),
		.workers = 1,
	};
	test_key(parameters.key, parameters.salt, 1);
	return parameters;
}

static inline struct esp_sa_in_parameters test_in_parameters(uint32_t window)
{
	struct esp_sa_in_parameters parameters = {.spi = TEST_SPI, .window = window, .workers = 1};
	test_key(parameters.key, parameters.salt, 1);
	return parameters;
}

// One packet through lib/esp: the reason why it was refused, or DROP_NONE.
static inline uint8_t test_encapsulate(
	struct esp_context *context, struct esp_sa_out *sa, struct rte_mbuf *packet)
{
	uint8_t drop = DROP_COUNT;
	unsigned int refused = esp_encapsulate(context, &packet, &sa, &drop, 1);
	return refused == (drop != DROP_NONE) ? drop : DROP_COUNT;
}

static inline uint8_t test_decapsulate(struct esp_context *context, struct esp_sa_in *sa,
	struct rte_mbuf *packet, uint8_t traffic_class)
{
	uint8_t drop = DROP_COUNT;
	unsigned int refused = esp_decapsulate(context, &packet, &sa, &traffic_class, &drop, 1);
	return refused == (drop != DROP_NONE) ? drop : DROP_COUNT;
}

// Vector files: records of "name = value" lines with an empty line after each; '#' comments.
#define TEST_FIELDS 16

struct test_record {
	char *text[TEST_FIELDS]; // "name = value", each from malloc
	unsigned int count;
};

static inline FILE *test_vectors_open(const char *name)
{
	const char *folder = getenv("ESPGW_TEST_DATA");
	char path[4096];
	snprintf(path, sizeof(path), "%s/%s", folder != NULL ? folder : "tests/vectors", name);
	return fopen(path, "r");
}

static inline void test_record_clear(struct test_record *record)
{
	while (record->count > 0)
		free(record->text[--record->count]);
}

static inline bool test_record_read(FILE *file, struct test_record *record)
{
	char *line = NULL;
	size_t size = 0;
	ssize_t length;
	test_record_clear(record);
	while ((length = getline(&line, &size, file)) > 0) {
		if (line[0] == '#')
			continue;
		if (line[0] == '\n') {
			if (record->count > 0)
				break;
			continue;
		}
		if (record->count == TEST_FIELDS)
			abort();
		line[strcspn(line, "\n")] = '\0';
		record->text[record->count++] = strdup(line);
	}
	free(line);
	return record->count > 0;
}

// "" when the record has no such field.
static inline const char *test_record_text(const struct test_record *record, const char *name)
{
	size_t length = strlen(name);
	for (unsigned int i = 0; i < record->count; i++)
		if (strncmp(record->text[i], name, length) == 0 &&
			strncmp(record->text[i] + length, " = ", 3) == 0)
			return record->text[i] + length + 3;
	return "";
}

static inline uint64_t test_record_number(const struct test_record *record, const char *name)
{
	return strtoull(test_record_text(record, name), NULL, 16);
}

static inline uint32_t test_record_bytes(
	const struct test_record *record, const char *name, uint8_t *bytes, uint32_t room)
{
	const char *text = test_record_text(record, name);
	uint32_t size = (uint32_t)strlen(text) / 2;
	if (size > room)
		abort();
	for (uint32_t i = 0; i < size; i++) {
		unsigned int value;
		if (sscanf(text + 2 * i, "%2x", &value) != 1)
			abort();
		bytes[i] = (uint8_t)value;
	}
	return size;
}
