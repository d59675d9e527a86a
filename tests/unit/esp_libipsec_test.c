// SPDX-License-Identifier: BSD-3-Clause
// Copyright (c) 2026 the espgw authors

// Packets captured between strongSwan's libipsec and espgw: those of libipsec are decapsulated, and
// those that libipsec took from espgw are made again, byte for byte.

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "esp_helpers.h"

#define OUTER_MAX 1500

static struct esp_context *context;

struct capture {
	uint8_t key[ESP_KEY_SIZE], salt[ESP_SALT_SIZE];
	uint8_t outer[OUTER_MAX], inner[OUTER_MAX];
	uint32_t outer_size, inner_size, offset, spi;
	uint64_t sequence;
	bool by_espgw;
};

static bool read_capture(FILE *file, struct test_record *record, struct capture *capture)
{
	if (!test_record_read(file, record))
		return false;
	assert_int_equal(
		test_record_bytes(record, "key", capture->key, ESP_KEY_SIZE), ESP_KEY_SIZE);
	assert_int_equal(
		test_record_bytes(record, "salt", capture->salt, ESP_SALT_SIZE), ESP_SALT_SIZE);
	capture->outer_size = test_record_bytes(record, "outer", capture->outer, OUTER_MAX);
	capture->inner_size = test_record_bytes(record, "inner", capture->inner, OUTER_MAX);
	capture->offset = (uint32_t)atoi(test_record_text(record, "offset"));
	capture->spi = (uint32_t)test_record_number(record, "spi");
	capture->sequence = test_record_number(record, "sequence");
	capture->by_espgw = strcmp(test_record_text(record, "by"), "espgw") == 0;
	return true;
}

static void check_decapsulation(const struct capture *capture)
{
	struct esp_sa_in_parameters parameters = {.spi = capture->spi, .window = 128, .workers = 1};
	memcpy(parameters.key, capture->key, ESP_KEY_SIZE);
	memcpy(parameters.salt, capture->salt, ESP_SALT_SIZE);
	struct esp_sa_in *sa = esp_sa_in_create(&parameters);
	assert_non_null(sa);
	const uint8_t *esp = capture->outer + capture->offset;
	uint32_t size = capture->outer_size - capture->offset;
	struct rte_mbuf *packet = test_packet_new(esp, size, 0, 0);
	assert_int_equal(test_decapsulate(context, sa, packet, capture->outer[1]), DROP_NONE);
	assert_int_equal(packet->data_len, capture->inner_size);
	assert_memory_equal(test_data(packet), capture->inner, capture->inner_size);
	assert_true(esp_sa_in_top(sa) == capture->sequence);
	test_packet_free(packet);
	esp_sa_in_destroy(sa);
}

static struct packet_address address_at(const uint8_t *bytes)
{
	struct packet_address address = {.family = 4};
	memcpy(address.bytes, bytes, 4);
	return address;
}

// All but the identification of the outer header, and its checksum with it.
static void check_encapsulation(const struct capture *capture)
{
	const uint8_t *outer = capture->outer;
	struct esp_sa_out_parameters parameters = {
		.spi = capture->spi,
		.source = address_at(outer + 12),
		.destination = address_at(outer + 16),
		.udp_source = test_get16(outer + 20),
		.udp_destination = test_get16(outer + 22),
		.df = ESP_DF_COPY,
		.first_sequence = capture->sequence,
		.workers = 1,
	};
	memcpy(parameters.key, capture->key, ESP_KEY_SIZE);
	memcpy(parameters.salt, capture->salt, ESP_SALT_SIZE);
	struct esp_sa_out *sa = esp_sa_out_create(&parameters);
	assert_non_null(sa);
	struct rte_mbuf *packet = test_packet(capture->inner, capture->inner_size);
	assert_int_equal(test_encapsulate(context, sa, packet), DROP_NONE);
	assert_int_equal(packet->data_len, capture->outer_size);
	const uint8_t *made = test_data(packet);
	assert_memory_equal(made, outer, 4);
	assert_int_equal(made[8], outer[8]); // TTL
	assert_int_equal(made[9], outer[9]);
	assert_memory_equal(made + 12, outer + 12, capture->outer_size - 12);
	test_packet_free(packet);
	esp_sa_out_destroy(sa);
}

static void test_captures(void **state)
{
	(void)state;
	FILE *file = test_vectors_open("strongswan-libipsec.txt");
	assert_non_null(file);
	struct test_record record = {0};
	static struct capture capture;
	unsigned int by_libipsec = 0, by_espgw = 0;
	while (read_capture(file, &record, &capture)) {
		check_decapsulation(&capture);
		if (capture.by_espgw)
			check_encapsulation(&capture);
		capture.by_espgw ? by_espgw++ : by_libipsec++;
	}
	fclose(file);
	assert_int_equal(by_libipsec, 8);
	assert_int_equal(by_espgw, 8);
}

int main(void)
{
	context = test_esp_start(ESP_CRYPTO_AUTO);
	if (context == NULL)
		return 1;
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_captures)};
	int failed = cmocka_run_group_tests(tests, NULL, NULL);
	esp_context_destroy(context);
	return failed;
}
