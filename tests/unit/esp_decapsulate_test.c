// SPDX-License-Identifier: BSD-3-Clause
// Copyright (c) 2026 the espgw authors

// Decapsulation of what nobody should send: cut, changed, and authenticated but odd packets.

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "esp_helpers.h"

#define ESP_AROUND (ESP_HEADER_SIZE + ESP_IV_SIZE + ESP_ICV_SIZE)

static struct esp_context *context;

// An inbound SA and what forges packets for it.
struct receiver {
	struct esp_sa_in *sa;
	struct test_cipher *cipher;
	uint64_t top;      // as the SA stores it
	uint64_t sequence; // the last one that was forged
};

static struct receiver *receiver_new(bool esn, uint32_t window, uint64_t top)
{
	struct receiver *receiver = calloc(1, sizeof(*receiver));
	struct esp_sa_in_parameters parameters = test_in_parameters(window);
	parameters.esn = esn;
	parameters.top = &receiver->top;
	receiver->top = receiver->sequence = top;
	receiver->sa = esp_sa_in_create(&parameters);
	assert_non_null(receiver->sa);
	receiver->cipher = test_cipher_new(parameters.key, parameters.salt, parameters.spi, esn);
	return receiver;
}

static void receiver_free(struct receiver *receiver)
{
	esp_sa_in_destroy(receiver->sa);
	test_cipher_free(receiver->cipher);
	free(receiver);
}

// Decapsulates a copy of these bytes in a buffer that ends with them. On DROP_NONE the inner packet
// is at `inner`, *inner_size bytes.
static uint8_t receive_class(struct receiver *receiver, const uint8_t *esp, uint32_t size,
	uint8_t traffic_class, uint8_t *inner, uint32_t *inner_size)
{
	struct rte_mbuf *packet = test_packet_new(esp, size, 0, 0);
	uint8_t drop = test_decapsulate(context, receiver->sa, packet, traffic_class);
	if (drop == DROP_NONE && inner != NULL) {
		assert_int_equal(packet->pkt_len, packet->data_len);
		memcpy(inner, test_data(packet), packet->data_len);
		*inner_size = packet->data_len;
	}
	test_packet_free(packet);
	return drop;
}

static uint8_t receive(struct receiver *receiver, const uint8_t *esp, uint32_t size)
{
	return receive_class(receiver, esp, size, 0, NULL, NULL);
}

// Authenticates a plaintext under the next number and hands it in. Whatever comes of it, the number
// is then used up (RFC 4303 section 3.4.3: the window moves when the ICV is right).
static uint8_t receive_plaintext(struct receiver *receiver, const uint8_t *plaintext, uint32_t size)
{
	static uint8_t esp[TEST_INNER_MAX + 512];
	uint32_t total = test_forge(receiver->cipher, ++receiver->sequence, plaintext, size, esp);
	uint8_t drop = receive(receiver, esp, total);
	assert_true(receiver->top == receiver->sequence);
	assert_true(esp_sa_in_top(receiver->sa) == receiver->sequence);
	assert_int_equal(receive(receiver, esp, total), DROP_REPLAY);
	return drop;
}

static void check_truncation(bool esn, bool v4)
{
	uint8_t inner[77], esp[200];
	struct receiver *receiver = receiver_new(esn, 64, 1000);
	if (v4)
		test_inner_v4(inner, sizeof(inner), 0, false);
	else
		test_inner_v6(inner, sizeof(inner), 0);
	uint32_t size = test_forge_inner(receiver->cipher, 1010, inner, sizeof(inner), esp);
	for (uint32_t cut = 0; cut < size; cut++) {
		uint8_t drop = receive(receiver, esp, cut);
		assert_int_equal(drop, cut < ESP_AROUND + 2 ? DROP_RUNT : DROP_ICV);
		assert_true(receiver->top == 1000);
	}
	// From the front too.
	for (uint32_t cut = 1; cut <= size; cut++)
		assert_int_not_equal(receive(receiver, esp + cut, size - cut), DROP_NONE);
	assert_int_equal(esp_sa_in_counters(receiver->sa).packets, 0);
	assert_int_equal(receive(receiver, esp, size), DROP_NONE);
	receiver_free(receiver);
}

static void test_truncated_at_each_byte(void **state)
{
	(void)state;
	check_truncation(false, true);
	check_truncation(true, false);
}

static void check_bit_flips(bool esn, uint64_t top, uint32_t inner_size)
{
	uint8_t inner[400], esp[500], before[500];
	struct receiver *receiver = receiver_new(esn, 64, top);
	test_inner_v4(inner, inner_size, 0, false);
	uint32_t size = test_forge_inner(receiver->cipher, top + 10, inner, inner_size, esp);
	memcpy(before, esp, size);
	for (uint32_t bit = 0; bit < 8 * size; bit++) {
		esp[bit / 8] ^= (uint8_t)(1 << bit % 8);
		uint8_t drop = receive(receiver, esp, size);
		// A changed number may be one that the window refuses by itself.
		if (bit / 8 >= 4 && bit / 8 < 8)
			assert_true(
				drop == DROP_ICV || drop == DROP_TOO_OLD || drop == DROP_REPLAY);
		else
			assert_int_equal(drop, DROP_ICV);
		assert_true(receiver->top == top);
		esp[bit / 8] ^= (uint8_t)(1 << bit % 8);
	}
	assert_memory_equal(esp, before, size);
	assert_int_equal(receive(receiver, esp, size), DROP_NONE);
	assert_int_equal(receive(receiver, esp, size), DROP_REPLAY);
	receiver_free(receiver);
}

static void test_each_bit_flipped(void **state)
{
	(void)state;
	check_bit_flips(false, 0, 20);
	check_bit_flips(false, 1000, 41);
	check_bit_flips(false, UINT64_C(0x7ffffff8), 22);
	check_bit_flips(true, UINT64_C(0x1234500000000), 23);
	check_bit_flips(true, UINT64_C(0x1fffffff8), 333);
}

// The high half isn't on the wire, but a wrong one must not pass.
static void test_wrong_esn_half(void **state)
{
	(void)state;
	uint8_t inner[40], esp[200];
	uint64_t top = UINT64_C(0x500000000) + 1000;
	struct receiver *receiver = receiver_new(true, 64, top);
	test_inner_v4(inner, sizeof(inner), 0, false);
	for (unsigned int bit = 32; bit < 64; bit++) {
		uint64_t wrong = (top + 1) ^ UINT64_C(1) << bit;
		uint32_t size =
			test_forge_inner(receiver->cipher, wrong, inner, sizeof(inner), esp);
		assert_int_equal(receive(receiver, esp, size), DROP_ICV);
		assert_true(receiver->top == top);
	}
	receiver_free(receiver);
}

static void test_other_key_or_salt(void **state)
{
	(void)state;
	uint8_t inner[40], esp[200], key[ESP_KEY_SIZE], salt[ESP_SALT_SIZE];
	struct receiver *receiver = receiver_new(false, 64, 0);
	test_inner_v4(inner, sizeof(inner), 0, false);
	for (unsigned int i = 0; i < ESP_KEY_SIZE + ESP_SALT_SIZE; i++) {
		test_key(key, salt, 1);
		*(i < ESP_KEY_SIZE ? &key[i] : &salt[i - ESP_KEY_SIZE]) ^= 0x10;
		struct test_cipher *cipher = test_cipher_new(key, salt, TEST_SPI, false);
		uint32_t size = test_forge_inner(cipher, 1, inner, sizeof(inner), esp);
		assert_int_equal(receive(receiver, esp, size), DROP_ICV);
		test_cipher_free(cipher);
	}
	receiver_free(receiver);
}

// Lengths 0 to 255 are all allowed (RFC 4303 section 2.4), if the bytes are 1, 2, 3...
static void test_each_padding(void **state)
{
	(void)state;
	uint8_t plaintext[400];
	struct receiver *receiver = receiver_new(false, 64, 0);
	for (unsigned int padding = 0; padding < 256; padding++) {
		uint32_t inner = 20 + (-(20 + padding + 2) & 3);
		test_inner_v4(plaintext, inner, 0, false);
		uint32_t size = test_trailer(plaintext, inner, (uint8_t)padding, TEST_PROTOCOL_V4);
		assert_int_equal(receive_plaintext(receiver, plaintext, size), DROP_NONE);
		for (unsigned int i = 0; i < padding; i++) {
			plaintext[inner + i] ^= (uint8_t)(1 << i % 8);
			assert_int_equal(
				receive_plaintext(receiver, plaintext, size), DROP_BAD_PADDING);
			plaintext[inner + i] ^= (uint8_t)(1 << i % 8);
		}
	}
	assert_int_equal(esp_sa_in_counters(receiver->sa).packets, 256);
	receiver_free(receiver);
}

static void test_padding_longer_than_the_packet(void **state)
{
	(void)state;
	uint8_t plaintext[300];
	struct receiver *receiver = receiver_new(true, 64, 0);
	for (uint32_t size = 2; size <= 258; size += 2) {
		for (uint32_t padding = size - 2 + 1; padding < 256; padding++) {
			for (uint32_t i = 0; i < size; i++)
				plaintext[i] = (uint8_t)(padding - (size - 2) + i + 1);
			plaintext[size - 2] = (uint8_t)padding;
			plaintext[size - 1] = TEST_PROTOCOL_V4;
			assert_int_equal(
				receive_plaintext(receiver, plaintext, size), DROP_BAD_PADDING);
		}
		// Nothing but padding: no inner packet.
		if (size - 2 > 255)
			continue;
		test_trailer(plaintext, 0, (uint8_t)(size - 2), TEST_PROTOCOL_V4);
		assert_int_equal(receive_plaintext(receiver, plaintext, size), DROP_BAD_INNER);
	}
	receiver_free(receiver);
}

// 59 is a dummy, which may hold anything; others than 4 and 41 have no place in tunnel mode.
static void test_next_headers(void **state)
{
	(void)state;
	uint8_t plaintext[100];
	struct receiver *receiver = receiver_new(false, 64, 0);
	for (unsigned int version = 4; version <= 6; version += 2) {
		for (unsigned int next_header = 0; next_header < 256; next_header++) {
			if (version == 4)
				test_inner_v4(plaintext, 60, 0, false);
			else
				test_inner_v6(plaintext, 60, 0);
			uint32_t size = test_trailer(plaintext, 60, 2, (uint8_t)next_header);
			uint8_t expected = DROP_BAD_NEXT_HEADER;
			if (next_header == TEST_PROTOCOL_V4)
				expected = version == 4 ? DROP_NONE : DROP_BAD_INNER;
			else if (next_header == TEST_PROTOCOL_V6)
				expected = version == 6 ? DROP_NONE : DROP_BAD_INNER;
			else if (next_header == TEST_DUMMY)
				expected = DROP_DUMMY;
			assert_int_equal(receive_plaintext(receiver, plaintext, size), expected);
		}
	}
	receiver_free(receiver);
}

static void test_dummy_of_any_content(void **state)
{
	(void)state;
	uint8_t plaintext[260];
	struct receiver *receiver = receiver_new(false, 32, 0);
	uint64_t seed = 9;
	for (uint32_t content = 0; content <= 200; content++) {
		test_fill(plaintext, content, test_random(&seed));
		uint32_t size =
			test_trailer(plaintext, content, (uint8_t)(-(content + 2) & 3), TEST_DUMMY);
		assert_int_equal(receive_plaintext(receiver, plaintext, size), DROP_DUMMY);
	}
	receiver_free(receiver);
}

// TFC padding (RFC 4303 section 2.7) lies between the inner packet and the padding.
static void test_tfc_padding_is_trimmed(void **state)
{
	(void)state;
	uint8_t plaintext[800], esp[900], inner[900];
	uint32_t inner_size;
	struct receiver *receiver = receiver_new(false, 64, 0);
	for (uint32_t tfc = 0; tfc < 600; tfc++) {
		uint32_t ip = 20 + tfc % 41;
		bool v4 = tfc % 2 == 0;
		if (v4)
			test_inner_v4(plaintext, ip, 0, false);
		else
			test_inner_v6(plaintext, ip = 40 + tfc % 41, 0);
		test_fill(plaintext + ip, tfc, tfc);
		uint32_t size = test_trailer(plaintext, ip + tfc, (uint8_t)(-(ip + tfc + 2) & 3),
			v4 ? TEST_PROTOCOL_V4 : TEST_PROTOCOL_V6);
		size = test_forge(receiver->cipher, ++receiver->sequence, plaintext, size, esp);
		assert_int_equal(
			receive_class(receiver, esp, size, 0, inner, &inner_size), DROP_NONE);
		assert_int_equal(inner_size, ip);
		assert_memory_equal(inner, plaintext, ip);
	}
	receiver_free(receiver);
}

// Changes one field of an inner packet of 60 bytes and says what comes of it.
static uint8_t receive_changed(
	struct receiver *receiver, bool v4, uint32_t offset, uint16_t value, uint32_t bytes)
{
	uint8_t plaintext[100];
	if (v4)
		test_inner_v4(plaintext, 60, 0, false);
	else
		test_inner_v6(plaintext, 60, 0);
	if (bytes == 1)
		plaintext[offset] = (uint8_t)value;
	else
		test_put16(plaintext + offset, value);
	if (v4) {
		test_put16(plaintext + 10, 0);
		test_put16(plaintext + 10, (uint16_t)~test_sum(plaintext, 20, 0));
	}
	uint32_t size = test_trailer(plaintext, 60, 2, v4 ? TEST_PROTOCOL_V4 : TEST_PROTOCOL_V6);
	return receive_plaintext(receiver, plaintext, size);
}

static void test_inner_headers(void **state)
{
	(void)state;
	struct receiver *receiver = receiver_new(false, 64, 0);
	for (unsigned int first = 0; first < 256; first++) {
		unsigned int ihl = first & 15;
		uint8_t good = first >> 4 == 4 && ihl >= 5 ? DROP_NONE : DROP_BAD_INNER;
		assert_int_equal(receive_changed(receiver, true, 0, (uint16_t)first, 1), good);
		good = first >> 4 == 6 ? DROP_NONE : DROP_BAD_INNER;
		assert_int_equal(receive_changed(receiver, false, 0, (uint16_t)first, 1), good);
	}
	for (unsigned int length = 0; length < 65536; length += length < 100 ? 1 : 911) {
		uint8_t good = length >= 20 && length <= 60 ? DROP_NONE : DROP_BAD_INNER;
		assert_int_equal(receive_changed(receiver, true, 2, (uint16_t)length, 2), good);
		good = length <= 20 ? DROP_NONE : DROP_BAD_INNER;
		assert_int_equal(receive_changed(receiver, false, 4, (uint16_t)length, 2), good);
	}
	assert_int_equal(receive_changed(receiver, true, 2, 65535, 2), DROP_BAD_INNER);
	assert_int_equal(receive_changed(receiver, false, 4, 65535, 2), DROP_BAD_INNER);
	// Options that reach beyond the total length.
	assert_int_equal(receive_changed(receiver, true, 0, 0x4f, 1), DROP_NONE);
	receiver_free(receiver);
}

// Authenticated, but too short for the header that the next header promises.
static void test_short_inner_packets(void **state)
{
	(void)state;
	uint8_t plaintext[100];
	struct receiver *receiver = receiver_new(false, 64, 0);
	for (uint32_t ip = 0; ip < 40; ip++) {
		test_inner_v6(plaintext, 60, 0);
		uint32_t size =
			test_trailer(plaintext, ip, (uint8_t)(-(ip + 2) & 3), TEST_PROTOCOL_V6);
		assert_int_equal(receive_plaintext(receiver, plaintext, size), DROP_BAD_INNER);
		if (ip >= 20)
			continue;
		test_inner_v4(plaintext, 60, 0, false);
		test_put16(plaintext + 2, (uint16_t)ip);
		size = test_trailer(plaintext, ip, (uint8_t)(-(ip + 2) & 3), TEST_PROTOCOL_V4);
		assert_int_equal(receive_plaintext(receiver, plaintext, size), DROP_BAD_INNER);
	}
	receiver_free(receiver);
}

enum { NOT_ECT, ECT1, ECT0, CE, DROPPED };

static void check_ecn(struct receiver *receiver, bool v4, unsigned int inner_class,
	unsigned int outer_class, unsigned int expected)
{
	uint8_t inner[60], esp[200], result[200];
	uint32_t size;
	if (v4)
		test_inner_v4(inner, sizeof(inner), (uint8_t)inner_class, false);
	else
		test_inner_v6(inner, sizeof(inner), (uint8_t)inner_class);
	size = test_forge_inner(receiver->cipher, ++receiver->sequence, inner, sizeof(inner), esp);
	uint8_t drop = receive_class(receiver, esp, size, (uint8_t)outer_class, result, &size);
	if (expected == DROPPED) {
		assert_int_equal(drop, DROP_ECN);
		return;
	}
	assert_int_equal(drop, DROP_NONE);
	// The same packet, had it had that ECN field from the start: DSCP and all else unchanged.
	unsigned int traffic_class = (inner_class & 0xfc) | expected;
	if (v4)
		test_inner_v4(inner, sizeof(inner), (uint8_t)traffic_class, false);
	else
		test_inner_v6(inner, sizeof(inner), (uint8_t)traffic_class);
	assert_int_equal(size, sizeof(inner));
	assert_memory_equal(result, inner, sizeof(inner));
}

// RFC 6040 section 4.2, figure 4.
static void test_ecn(void **state)
{
	(void)state;
	static const uint8_t table[4][4] = {
		// [inner][outer]
		[NOT_ECT] =
			{[NOT_ECT] = NOT_ECT, [ECT0] = NOT_ECT, [ECT1] = NOT_ECT, [CE] = DROPPED},
		[ECT0] = {[NOT_ECT] = ECT0, [ECT0] = ECT0, [ECT1] = ECT1, [CE] = CE},
		[ECT1] = {[NOT_ECT] = ECT1, [ECT0] = ECT1, [ECT1] = ECT1, [CE] = CE},
		[CE] = {[NOT_ECT] = CE, [ECT0] = CE, [ECT1] = CE, [CE] = CE},
	};
	struct receiver *receiver = receiver_new(false, 64, 0);
	for (unsigned int dscp = 0; dscp < 64; dscp++) {
		for (unsigned int i = 0; i < 16; i++) {
			unsigned int inner = i % 4, outer = i / 4;
			unsigned int inner_class = dscp << 2 | inner;
			unsigned int outer_class = (63 - dscp) << 2 | outer;
			check_ecn(receiver, true, inner_class, outer_class, table[inner][outer]);
			check_ecn(receiver, false, inner_class, outer_class, table[inner][outer]);
		}
	}
	receiver_free(receiver);
}

static void test_chained_buffers_are_refused(void **state)
{
	(void)state;
	uint8_t inner[40], esp[200];
	struct receiver *receiver = receiver_new(false, 64, 0);
	test_inner_v4(inner, sizeof(inner), 0, false);
	uint32_t size = test_forge_inner(receiver->cipher, 1, inner, sizeof(inner), esp);
	struct rte_mbuf *packet = test_packet(esp, size - 10);
	struct rte_mbuf *second = test_packet(esp + size - 10, 10);
	packet->next = second;
	packet->nb_segs = 2;
	packet->pkt_len = size;
	assert_int_equal(test_decapsulate(context, receiver->sa, packet, 0), DROP_NOT_LINEAR);
	assert_int_equal(receive(receiver, esp, size), DROP_NONE);
	test_packet_free(packet);
	test_packet_free(second);
	receiver_free(receiver);
}

enum { COPIES = 4 };

// Each packet COPIES times in one burst: one of them passes.
static void check_replay_in_burst(uint32_t window, uint64_t *seed)
{
	uint8_t inner[40], esp[200];
	uint32_t order[ESP_BURST_MAX];
	struct rte_mbuf *packets[ESP_BURST_MAX];
	struct esp_sa_in *sas[ESP_BURST_MAX];
	uint8_t drops[ESP_BURST_MAX], classes[ESP_BURST_MAX] = {0};
	unsigned int accepted[ESP_BURST_MAX] = {0};
	unsigned int numbers = 1 + (unsigned int)(test_random(seed) % (ESP_BURST_MAX / COPIES));
	unsigned int count = numbers * COPIES;
	struct receiver *receiver = receiver_new(false, window, test_random(seed) % 10000);
	test_inner_v4(inner, sizeof(inner), 0, false);
	for (unsigned int i = 0; i < count; i++)
		order[i] = i % numbers;
	test_shuffle(order, count, seed);
	for (unsigned int i = 0; i < count; i++) {
		uint64_t sequence = receiver->top + 1 + order[i];
		uint32_t size =
			test_forge_inner(receiver->cipher, sequence, inner, sizeof(inner), esp);
		packets[i] = test_packet(esp, size);
		sas[i] = receiver->sa;
	}
	unsigned int refused = esp_decapsulate(context, packets, sas, classes, drops, count);
	assert_int_equal(refused, window == 0 ? 0 : count - numbers);
	assert_int_equal(esp_accepted(context).bytes, (count - refused) * sizeof(inner));
	for (unsigned int i = 0; i < count; i++) {
		accepted[order[i]] += drops[i] == DROP_NONE;
		assert_true(drops[i] == DROP_NONE || drops[i] == DROP_REPLAY);
		test_packet_free(packets[i]);
	}
	for (unsigned int i = 0; i < numbers; i++)
		assert_int_equal(accepted[i], window == 0 ? COPIES : 1);
	receiver_free(receiver);
}

static void test_replay_inside_a_burst(void **state)
{
	(void)state;
	uint64_t seed = 77;
	for (unsigned int i = 0; i < 200; i++)
		check_replay_in_burst(i % 4 == 0 ? 0 : 32u << i % 4, &seed);
}

static void test_replay_protection_off(void **state)
{
	(void)state;
	uint8_t inner[40], esp[200];
	struct receiver *receiver = receiver_new(false, 0, 0);
	test_inner_v4(inner, sizeof(inner), 0, false);
	static const uint32_t sequences[] = {5, 5, 1, 100000, 5, 1, UINT32_MAX, 1, 100000};
	for (unsigned int i = 0; i < RTE_DIM(sequences); i++) {
		uint32_t size =
			test_forge_inner(receiver->cipher, sequences[i], inner, sizeof(inner), esp);
		assert_int_equal(receive(receiver, esp, size), DROP_NONE);
		esp[20] ^= 1;
		assert_int_equal(receive(receiver, esp, size), DROP_ICV);
	}
	assert_int_equal(esp_sa_in_counters(receiver->sa).packets, RTE_DIM(sequences));
	receiver_free(receiver);
}

enum mix {
	MIX_GOOD,
	MIX_FLIPPED,
	MIX_RUNT,
	MIX_CHAINED,
	MIX_DUMMY,
	MIX_ODD,
	MIX_REPLAY,
	MIX_KINDS
};
static const uint8_t mix_drops[MIX_KINDS] = {DROP_NONE, DROP_ICV, DROP_RUNT, DROP_NOT_LINEAR,
	DROP_DUMMY, DROP_BAD_NEXT_HEADER, DROP_REPLAY};

static struct rte_mbuf *mix_packet(
	struct receiver *receiver, enum mix kind, const uint8_t *inner, uint32_t inner_size)
{
	uint8_t plaintext[300], esp[400];
	uint8_t next_header = inner[0] >> 4 == 4 ? TEST_PROTOCOL_V4 : TEST_PROTOCOL_V6;
	memcpy(plaintext, inner, inner_size);
	if (kind == MIX_DUMMY)
		next_header = TEST_DUMMY;
	if (kind == MIX_ODD)
		next_header = 50;
	uint32_t size =
		test_trailer(plaintext, inner_size, (uint8_t)(-(inner_size + 2) & 3), next_header);
	// The number before has always been used here.
	uint64_t sequence = kind == MIX_REPLAY ? receiver->sequence : ++receiver->sequence;
	size = test_forge(receiver->cipher, sequence, plaintext, size, esp);
	if (kind == MIX_FLIPPED)
		esp[size - 1] ^= 0x80;
	struct rte_mbuf *packet = test_packet(esp, kind == MIX_RUNT ? 33 : size);
	if (kind == MIX_CHAINED)
		packet->nb_segs = 2;
	// A number that was refused unused is used next time.
	if (kind == MIX_FLIPPED || kind == MIX_RUNT || kind == MIX_CHAINED)
		receiver->sequence--;
	return packet;
}

enum { MIX_SAS = 3 };

static void check_mixed_burst(struct receiver *receivers[MIX_SAS], unsigned int count,
	uint64_t *seed, struct esp_counters *sum)
{
	static uint8_t inner[ESP_BURST_MAX][256];
	uint32_t sizes[ESP_BURST_MAX];
	struct rte_mbuf *packets[ESP_BURST_MAX];
	struct esp_sa_in *sas[ESP_BURST_MAX];
	uint8_t drops[ESP_BURST_MAX], expected[ESP_BURST_MAX], classes[ESP_BURST_MAX] = {0};
	unsigned int refusals = 0;
	for (unsigned int i = 0; i < count; i++) {
		uint64_t random = test_random(seed);
		struct receiver *receiver = receivers[random % MIX_SAS];
		enum mix kind = (random & 0x300) != 0 ? MIX_GOOD : (random >> 16) % MIX_KINDS;
		sizes[i] = (uint32_t)(40 + (random >> 32) % 200);
		if ((random & 0x1000) != 0)
			test_inner_v4(inner[i], sizes[i], 0, false);
		else
			test_inner_v6(inner[i], sizes[i], 0);
		packets[i] = mix_packet(receiver, kind, inner[i], sizes[i]);
		sas[i] = receiver->sa;
		expected[i] = mix_drops[kind];
		refusals += expected[i] != DROP_NONE;
	}
	unsigned int refused = esp_decapsulate(context, packets, sas, classes, drops, count);
	assert_int_equal(refused, refusals);
	for (unsigned int i = 0; i < count; i++) {
		assert_int_equal(drops[i], expected[i]);
		if (drops[i] == DROP_NONE) {
			assert_int_equal(packets[i]->data_len, sizes[i]);
			assert_memory_equal(test_data(packets[i]), inner[i], sizes[i]);
			sum->packets++;
			sum->bytes += sizes[i];
		}
		test_packet_free(packets[i]);
	}
}

// Bursts of all lengths of several SAs, good packets among refused ones of each kind; and what the
// SAs count at the end.
static void test_mixed_bursts(void **state)
{
	(void)state;
	uint64_t seed = 5;
	struct esp_counters sum = {0}, counted = {0};
	struct receiver *receivers[MIX_SAS] = {
		receiver_new(false, 64, 1000),
		receiver_new(true, 1024, UINT64_C(0xffffffff0)),
		receiver_new(false, 65536, 70000),
	};
	for (unsigned int round = 0; round < 40 * ESP_BURST_MAX; round++)
		check_mixed_burst(receivers, round % ESP_BURST_MAX + 1, &seed, &sum);
	for (unsigned int i = 0; i < MIX_SAS; i++) {
		struct esp_counters counters = esp_sa_in_counters(receivers[i]->sa);
		counted.packets += counters.packets;
		counted.bytes += counters.bytes;
		assert_true(counters.last_use != 0);
		receiver_free(receivers[i]);
	}
	assert_true(counted.packets == sum.packets);
	assert_true(counted.bytes == sum.bytes);
}

int main(void)
{
	context = test_esp_start(ESP_CRYPTO_AUTO);
	if (context == NULL)
		return 1;
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_truncated_at_each_byte),
		cmocka_unit_test(test_each_bit_flipped),
		cmocka_unit_test(test_wrong_esn_half),
		cmocka_unit_test(test_other_key_or_salt),
		cmocka_unit_test(test_each_padding),
		cmocka_unit_test(test_padding_longer_than_the_packet),
		cmocka_unit_test(test_next_headers),
		cmocka_unit_test(test_dummy_of_any_content),
		cmocka_unit_test(test_tfc_padding_is_trimmed),
		cmocka_unit_test(test_inner_headers),
		cmocka_unit_test(test_short_inner_packets),
		cmocka_unit_test(test_ecn),
		cmocka_unit_test(test_chained_buffers_are_refused),
		cmocka_unit_test(test_replay_inside_a_burst),
		cmocka_unit_test(test_replay_protection_off),
		cmocka_unit_test(test_mixed_bursts),
	};
	int failed = cmocka_run_group_tests(tests, NULL, NULL);
	esp_context_destroy(context);
	return failed;
}
