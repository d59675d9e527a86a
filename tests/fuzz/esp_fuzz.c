// SPDX-License-Identifier: BSD-3-Clause
// Copyright (c) 2026 the espgw authors

// Decapsulation of arbitrary bytes: as they come from the wire, and authenticated, as from a peer
// that has the key and means harm. What passes must be a sane inner packet within its buffer.

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "../unit/eal.h"
#include "../unit/esp_helpers.h"
#include "esp/selector.h"

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { SAS = 3, INPUT_MAX = 2000 };

static struct esp_context *context;
static struct esp_sa_in *sas[SAS];
static struct test_cipher *ciphers[SAS];
static struct selector_set *selectors;

// The leak sanitizer doesn't look for pointers in DPDK's memory.
static void clean_up(void)
{
	esp_context_destroy(context);
	selectors_free(selectors);
	context = NULL;
	selectors = NULL;
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	(void)argc;
	(void)argv;
	static const uint32_t windows[SAS] = {0, 64, 4096};
	if (test_eal_start("64") != 0 || atexit(clean_up) != 0)
		abort();
	context = esp_context_create(0, ESP_CRYPTO_AUTO);
	for (unsigned int i = 0; i < SAS; i++) {
		struct esp_sa_in_parameters parameters = test_in_parameters(windows[i]);
		parameters.esn = i == 2;
		sas[i] = esp_sa_in_create(&parameters);
		ciphers[i] = test_cipher_new(
			parameters.key, parameters.salt, parameters.spi, parameters.esn);
		if (context == NULL || sas[i] == NULL)
			abort();
	}
	static const struct esp_ports some = {0x0101, 0x8080};
	struct esp_selector given[] = {
		{.protocol = 6, .local_ports = some}, {.protocol = 58, .remote_ports = some}};
	given[0].local.address.family = given[0].remote.address.family = 4;
	given[1].local.address.family = given[1].remote.address.family = 6;
	selectors = selectors_create(given, RTE_DIM(given));
	if (selectors == NULL)
		abort();
	return 0;
}

// Nothing beyond the packet is read: it has a buffer of its own.
static void fuzz_selectors(const uint8_t *data, uint32_t size)
{
	uint32_t length = 0;
	uint8_t *ip = malloc(size);
	memcpy(ip, data, size);
	if (packet_ip_check(ip, size, false, &length) == DROP_NONE) {
		uint8_t *whole = malloc(length);
		memcpy(whole, ip, length);
		selectors_match(selectors, whole, length, true);
		selectors_match(selectors, whole, length, false);
		free(whole);
	}
	free(ip);
}

static void check_accepted(const struct rte_mbuf *packet, const struct rte_mbuf *before)
{
	uint32_t length = 0;
	const uint8_t *data = test_data(packet);
	if (packet->data_off < before->data_off ||
		packet->data_off + packet->data_len > before->data_off + before->data_len ||
		packet->pkt_len != packet->data_len)
		abort();
	if (packet_ip_check(data, packet->data_len, false, &length) != DROP_NONE ||
		length != packet->data_len)
		abort();
}

static uint8_t decapsulate(
	struct esp_sa_in *sa, const uint8_t *esp, uint32_t size, uint8_t traffic_class)
{
	struct rte_mbuf *packet = test_packet_new(esp, size, 0, 0);
	struct rte_mbuf before = *packet;
	uint8_t drop = test_decapsulate(context, sa, packet, traffic_class);
	if (drop >= DROP_COUNT)
		abort();
	if (drop == DROP_NONE)
		check_accepted(packet, &before);
	test_packet_free(packet);
	return drop;
}

// A peer that has the key: each input under the next number. What it authenticates is refused for
// what it holds, if at all, and once received it is a replay.
static void fuzz_authenticated(
	unsigned int which, const uint8_t *plaintext, uint32_t size, uint8_t traffic_class)
{
	static uint8_t esp[INPUT_MAX + 64];
	uint64_t sequence = esp_sa_in_top(sas[which]) + 1;
	if (!ciphers[which]->esn && sequence > UINT32_MAX)
		return;
	uint32_t total = test_forge(ciphers[which], sequence, plaintext, size, esp);
	uint8_t drop = decapsulate(sas[which], esp, total, traffic_class);
	if (drop == DROP_ICV || drop == DROP_RUNT || drop == DROP_REPLAY || drop == DROP_TOO_OLD)
		abort();
	if (which != 0 && decapsulate(sas[which], esp, total, traffic_class) != DROP_REPLAY)
		abort();
}

// The first byte chooses: SA, outer ECN field, and whether the rest is a packet as it comes, a
// plaintext to be authenticated, or one that gets a good trailer first.
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	if (size < 1 || size > INPUT_MAX - 8)
		return 0;
	unsigned int which = data[0] % SAS;
	uint8_t traffic_class = data[0] >> 6;
	uint32_t rest = (uint32_t)size - 1;
	if ((data[0] & 0x20) != 0) {
		if (decapsulate(sas[which], data + 1, rest, traffic_class) == DROP_NONE)
			abort(); // the ICV was guessed
		return 0;
	}
	fuzz_selectors(data + 1, rest);
	uint8_t plaintext[INPUT_MAX] = {0};
	memcpy(plaintext, data + 1, rest);
	if ((data[0] & 0x10) != 0)
		rest = test_trailer(plaintext, rest, (uint8_t)(-(rest + 2) & 3),
			plaintext[0] >> 4 == 4 ? TEST_PROTOCOL_V4 : TEST_PROTOCOL_V6);
	// Less than pad length and next header would be a runt.
	if (rest >= 2)
		fuzz_authenticated(which, plaintext, rest, traffic_class);
	return 0;
}
