// SPDX-License-Identifier: BSD-3-Clause
// Copyright (c) 2026 the espgw authors

// Encapsulation, held byte by byte against an own model of RFC 4303 and RFC 4106, and the way back.

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "esp_helpers.h"

static struct esp_context *context;

// An outbound SA, what it was made of, and the model that opens what it makes.
struct sender {
	struct esp_sa_out_parameters parameters;
	struct esp_sa_out *sa;
	struct test_cipher *cipher;
	uint64_t sequence; // the next one
};

static struct sender sender_new(const struct esp_sa_out_parameters *parameters)
{
	struct sender sender = {.parameters = *parameters};
	sender.sa = esp_sa_out_create(parameters);
	assert_non_null(sender.sa);
	sender.cipher = test_cipher_new(
		parameters->key, parameters->salt, parameters->spi, parameters->esn);
	sender.sequence = parameters->first_sequence != 0 ? parameters->first_sequence : 1;
	return sender;
}

static void sender_free(struct sender *sender)
{
	esp_sa_out_destroy(sender->sa);
	test_cipher_free(sender->cipher);
}

static uint8_t traffic_class_of(const uint8_t *ip)
{
	return ip[0] >> 4 == 4 ? ip[1] : (uint8_t)(ip[0] << 4 | ip[1] >> 4);
}

// The DSCP is the tunnel's or the inner packet's (RFC 2983), the ECN field always the inner
// packet's (RFC 6040 section 4.1, normal mode).
static uint8_t class_expected(const struct esp_sa_out_parameters *parameters, const uint8_t *inner)
{
	uint8_t inners = traffic_class_of(inner);
	return parameters->set_dscp ? (uint8_t)(parameters->dscp << 2 | (inners & 3)) : inners;
}

static bool df_expected(enum esp_df df, const uint8_t *inner)
{
	// IPv6 has no such bit, because its routers never fragment.
	if (df == ESP_DF_COPY)
		return inner[0] >> 4 == 6 || (inner[6] & 0x40) != 0;
	return df == ESP_DF_SET;
}

static void check_outer_v4(const struct esp_sa_out_parameters *parameters, const uint8_t *outer,
	uint32_t size, const uint8_t *inner)
{
	bool udp = parameters->udp_source != 0;
	assert_int_equal(outer[0], 0x45);
	assert_int_equal(outer[1], class_expected(parameters, inner));
	assert_int_equal(test_get16(outer + 2), size);
	assert_int_equal(test_get16(outer + 6), df_expected(parameters->df, inner) ? 0x4000 : 0);
	assert_int_equal(outer[8], parameters->ttl != 0 ? parameters->ttl : 64);
	assert_int_equal(outer[9], udp ? 17 : 50);
	assert_int_equal(test_sum(outer, 20, 0), 0xffff);
	assert_memory_equal(outer + 12, parameters->source.bytes, 4);
	assert_memory_equal(outer + 16, parameters->destination.bytes, 4);
	if (udp)
		assert_int_equal(test_get16(outer + 26), 0); // RFC 3948 section 2.1
}

static void check_outer_v6(const struct esp_sa_out_parameters *parameters, const uint8_t *outer,
	uint32_t size, const uint8_t *inner)
{
	bool udp = parameters->udp_source != 0;
	assert_int_equal(outer[0] >> 4, 6);
	assert_int_equal(traffic_class_of(outer), class_expected(parameters, inner));
	assert_int_equal(test_get32(outer) & 0xfffff, 0); // flow label
	assert_int_equal(test_get16(outer + 4), size - 40);
	assert_int_equal(outer[6], udp ? 17 : 50);
	assert_int_equal(outer[7], parameters->ttl != 0 ? parameters->ttl : 64);
	assert_memory_equal(outer + 8, parameters->source.bytes, 16);
	assert_memory_equal(outer + 24, parameters->destination.bytes, 16);
	if (!udp)
		return;
	// Pseudo-header: addresses, length, next header (RFC 8200 section 8.1).
	uint32_t sum = test_sum(outer + 8, 32, size - 40 + 17);
	assert_int_equal(test_sum(outer + 40, size - 40, sum), 0xffff);
	assert_int_not_equal(test_get16(outer + 46), 0);
}

static uint32_t outer_header_size(const struct esp_sa_out_parameters *parameters)
{
	return (parameters->source.family == 4 ? 20 : 40) + (parameters->udp_source != 0 ? 8 : 0);
}

// All that is left of `size` bytes of ESP when sequence number and inner packet are known.
static void check_esp(const struct sender *sender, const uint8_t *esp, uint32_t size,
	const uint8_t *inner, uint32_t inner_size)
{
	static uint8_t plaintext[TEST_INNER_MAX + 64];
	assert_int_equal(test_get32(esp), sender->parameters.spi);
	assert_int_equal(test_get32(esp + 4), (uint32_t)sender->sequence);
	uint32_t padding = -(inner_size + 2) & 3;
	assert_int_equal(size, 8 + 8 + inner_size + padding + 2 + 16);
	int length = test_open(sender->cipher, sender->sequence, esp, size, plaintext);
	assert_int_equal(length, inner_size + padding + 2);
	assert_memory_equal(plaintext, inner, inner_size);
	for (uint32_t i = 0; i < padding; i++)
		assert_int_equal(plaintext[inner_size + i], i + 1);
	assert_int_equal(plaintext[length - 2], padding);
	assert_int_equal(plaintext[length - 1], inner[0] >> 4 == 4 ? 4 : 41);
}

static void check_packet(struct sender *sender, const struct rte_mbuf *packet, const uint8_t *inner,
	uint32_t inner_size)
{
	const struct esp_sa_out_parameters *parameters = &sender->parameters;
	const uint8_t *outer = test_data(packet);
	uint32_t header = outer_header_size(parameters);
	assert_int_equal(packet->pkt_len, packet->data_len);
	assert_int_equal(packet->data_len, esp_sa_out_outer_size(sender->sa, inner_size));
	if (parameters->source.family == 4)
		check_outer_v4(parameters, outer, packet->data_len, inner);
	else
		check_outer_v6(parameters, outer, packet->data_len, inner);
	if (parameters->udp_source != 0) {
		const uint8_t *udp = outer + header - 8;
		assert_int_equal(test_get16(udp), parameters->udp_source);
		assert_int_equal(test_get16(udp + 2), parameters->udp_destination);
		assert_int_equal(test_get16(udp + 4), packet->data_len - (header - 8));
	}
	check_esp(sender, outer + header, packet->data_len - header, inner, inner_size);
	sender->sequence++;
}

static uint32_t inner_any(uint8_t *inner, bool v4, uint32_t size, uint8_t traffic_class, bool df)
{
	if (v4)
		test_inner_v4(inner, size, traffic_class, df);
	else
		test_inner_v6(inner, size, traffic_class);
	return size;
}

static void check_traffic_classes(const struct esp_sa_out_parameters *parameters)
{
	uint8_t inner[64];
	struct sender sender = sender_new(parameters);
	struct rte_mbuf *packet = test_packet(inner, sizeof(inner));
	for (unsigned int i = 0; i < 256 * 4; i++) {
		inner_any(inner, (i & 1) == 0, sizeof(inner), (uint8_t)(i / 4), (i & 2) != 0);
		test_packet_set(packet, inner, sizeof(inner));
		assert_int_equal(test_encapsulate(context, sender.sa, packet), DROP_NONE);
		check_packet(&sender, packet, inner, sizeof(inner));
	}
	test_packet_free(packet);
	sender_free(&sender);
}

// Families, UDP, ESN, DF policies, TTL, and each traffic class (RFC 6040
// section 4.1, normal mode, and RFC 2983: the outer header has the inner one's).
static void test_outer_header(void **state)
{
	(void)state;
	for (unsigned int choice = 0; choice < 8; choice++) {
		for (enum esp_df df = ESP_DF_SET; df <= ESP_DF_COPY; df++) {
			struct esp_sa_out_parameters parameters =
				test_out_parameters((choice & 1) != 0 ? 6 : 4);
			parameters.udp_source = (choice & 2) != 0 ? 4500 : 0;
			parameters.udp_destination = (choice & 2) != 0 ? 61234 : 0;
			parameters.esn = (choice & 4) != 0;
			parameters.df = df;
			parameters.ttl = (uint8_t)(df == ESP_DF_CLEAR ? 7 : 0);
			check_traffic_classes(&parameters);
		}
	}
}

// Each DSCP that a tunnel can set, with each traffic class of the inner packet.
static void test_dscp_is_set(void **state)
{
	(void)state;
	for (unsigned int choice = 0; choice < 8; choice++) {
		for (unsigned int dscp = 0; dscp < 64; dscp += choice < 2 ? 1 : 21) {
			struct esp_sa_out_parameters parameters =
				test_out_parameters((choice & 1) != 0 ? 6 : 4);
			parameters.udp_source = (choice & 2) != 0 ? 4500 : 0;
			parameters.udp_destination = parameters.udp_source;
			parameters.df = (choice & 4) != 0 ? ESP_DF_COPY : ESP_DF_SET;
			parameters.set_dscp = true;
			parameters.dscp = (uint8_t)dscp;
			check_traffic_classes(&parameters);
		}
	}
}

// Where routers may fragment, packets of one pair of addresses need different identifications (RFC
// 6864 section 4).
static void test_identification_differs_without_df(void **state)
{
	(void)state;
	static bool seen[65536];
	uint8_t inner[40];
	struct esp_sa_out_parameters parameters = test_out_parameters(4);
	parameters.df = ESP_DF_CLEAR;
	struct sender sender = sender_new(&parameters);
	test_inner_v4(inner, sizeof(inner), 0, false);
	struct rte_mbuf *packet = test_packet(inner, sizeof(inner));
	for (unsigned int i = 0; i < 5000; i++) {
		test_packet_set(packet, inner, sizeof(inner));
		assert_int_equal(test_encapsulate(context, sender.sa, packet), DROP_NONE);
		uint16_t identification = test_get16(test_data(packet) + 4);
		assert_false(seen[identification]);
		seen[identification] = true;
	}
	test_packet_free(packet);
	sender_free(&sender);
}

static void check_iv_is_unique(bool esn, uint64_t first)
{
	enum { PACKETS = 2000 };
	static uint64_t ivs[PACKETS];
	uint8_t inner[40];
	struct esp_sa_out_parameters parameters = test_out_parameters(4);
	parameters.esn = esn;
	parameters.first_sequence = first;
	struct sender sender = sender_new(&parameters);
	test_inner_v4(inner, sizeof(inner), 0, false);
	struct rte_mbuf *packet = test_packet(inner, sizeof(inner));
	for (unsigned int i = 0; i < PACKETS; i++) {
		test_packet_set(packet, inner, sizeof(inner));
		assert_int_equal(test_encapsulate(context, sender.sa, packet), DROP_NONE);
		memcpy(&ivs[i], test_data(packet) + 28, sizeof(ivs[i]));
		for (unsigned int j = 0; j < i; j++)
			assert_true(ivs[i] != ivs[j]);
	}
	test_packet_free(packet);
	sender_free(&sender);
}

static void test_iv_never_repeats(void **state)
{
	(void)state;
	check_iv_is_unique(false, 1);
	check_iv_is_unique(true, UINT64_C(0xfffffc00)); // the lower half starts again on the way
}

struct round_trip {
	struct sender sender;
	struct esp_sa_in *receiver;
};

static struct round_trip round_trip_new(uint8_t family, bool udp, bool esn)
{
	struct esp_sa_out_parameters out = test_out_parameters(family);
	struct esp_sa_in_parameters in = test_in_parameters(64);
	out.udp_source = out.udp_destination = udp ? 4500 : 0;
	out.esn = in.esn = esn;
	struct round_trip trip = {sender_new(&out), esp_sa_in_create(&in)};
	assert_non_null(trip.receiver);
	return trip;
}

static void round_trip_free(struct round_trip *trip)
{
	sender_free(&trip->sender);
	esp_sa_in_destroy(trip->receiver);
}

static void round_trip_run(
	struct round_trip *trip, struct rte_mbuf *packet, const uint8_t *inner, uint32_t size)
{
	test_packet_set(packet, inner, size);
	assert_int_equal(test_encapsulate(context, trip->sender.sa, packet), DROP_NONE);
	check_packet(&trip->sender, packet, inner, size);
	rte_pktmbuf_adj(packet, (uint16_t)outer_header_size(&trip->sender.parameters));
	assert_int_equal(test_decapsulate(context, trip->receiver, packet, 0), DROP_NONE);
	assert_int_equal(packet->data_len, size);
	assert_int_equal(packet->pkt_len, size);
	assert_memory_equal(test_data(packet), inner, size);
}

// All inner sizes, so all padding residues, in every kind of outer header.
static void test_every_size_there_and_back(void **state)
{
	(void)state;
	static uint8_t inner[TEST_INNER_MAX];
	struct round_trip trips[] = {
		round_trip_new(4, false, false),
		round_trip_new(4, true, true),
		round_trip_new(6, false, true),
		round_trip_new(6, true, false),
	};
	memset(inner, 0, sizeof(inner));
	struct rte_mbuf *packet = test_packet(inner, sizeof(inner));
	for (uint32_t size = 20; size <= TEST_INNER_MAX; size++) {
		test_inner_v4(inner, size, 0, true);
		for (unsigned int i = 0; i < RTE_DIM(trips); i++)
			round_trip_run(&trips[i], packet, inner, size);
		if (size < 40)
			continue;
		test_inner_v6(inner, size, 0);
		for (unsigned int i = 0; i < RTE_DIM(trips); i++)
			round_trip_run(&trips[i], packet, inner, size);
	}
	test_packet_free(packet);
	for (unsigned int i = 0; i < RTE_DIM(trips); i++)
		round_trip_free(&trips[i]);
}

// Encapsulates a packet that must be refused, and sees that nothing of it has changed.
static void check_refused(struct esp_sa_out *sa, struct rte_mbuf *packet, const uint8_t *inner,
	uint32_t size, int why)
{
	struct rte_mbuf before = *packet;
	assert_int_equal(test_encapsulate(context, sa, packet), why);
	assert_memory_equal(packet, &before, sizeof(before));
	assert_memory_equal(test_data(packet), inner, size);
}

static void check_room(uint8_t family, bool udp)
{
	uint8_t inner[41];
	struct esp_sa_out_parameters parameters = test_out_parameters(family);
	parameters.udp_source = parameters.udp_destination = udp ? 4500 : 0;
	struct sender sender = sender_new(&parameters);
	uint32_t header = outer_header_size(&parameters) + 16;
	test_inner_v4(inner, sizeof(inner), 0, false);
	uint32_t trailer = 1 + 2 + 16;
	for (uint32_t headroom = 0; headroom < header; headroom++) {
		struct rte_mbuf *packet = test_packet_new(inner, sizeof(inner), headroom, 64);
		check_refused(sender.sa, packet, inner, sizeof(inner), DROP_NO_HEADROOM);
		test_packet_free(packet);
	}
	for (uint32_t tailroom = 0; tailroom < trailer; tailroom++) {
		struct rte_mbuf *packet = test_packet_new(inner, sizeof(inner), 128, tailroom);
		check_refused(sender.sa, packet, inner, sizeof(inner), DROP_NO_HEADROOM);
		test_packet_free(packet);
	}
	struct rte_mbuf *packet =
		test_packet_new(inner, sizeof(inner), ESP_HEADROOM_MAX, ESP_TAILROOM_MAX);
	assert_int_equal(test_encapsulate(context, sender.sa, packet), DROP_NONE);
	check_packet(&sender, packet, inner, sizeof(inner)); // no number was lost on the others
	test_packet_free(packet);
	sender_free(&sender);
}

static void test_no_room(void **state)
{
	(void)state;
	check_room(4, false);
	check_room(4, true);
	check_room(6, false);
	check_room(6, true);
}

static void test_chained_buffers_are_refused(void **state)
{
	(void)state;
	uint8_t inner[40];
	struct esp_sa_out_parameters parameters = test_out_parameters(4);
	struct sender sender = sender_new(&parameters);
	test_inner_v4(inner, sizeof(inner), 0, false);
	struct rte_mbuf *packet = test_packet(inner, 30);
	struct rte_mbuf *second = test_packet(inner + 30, 10);
	packet->next = second;
	packet->nb_segs = 2;
	packet->pkt_len = 40;
	check_refused(sender.sa, packet, inner, 30, DROP_NOT_LINEAR);
	assert_int_equal(esp_sa_out_next_sequence(sender.sa), 1);
	test_packet_free(packet);
	test_packet_free(second);
	sender_free(&sender);
}

// Sends bursts of `burst` packets until `last` is used up and a while longer.
static void check_end(bool esn, uint64_t first, uint64_t last, unsigned int burst)
{
	uint8_t inner[40];
	struct esp_sa_out_parameters parameters = test_out_parameters(4);
	parameters.esn = esn;
	parameters.first_sequence = first;
	parameters.last_sequence = last;
	uint64_t left = (last != 0    ? last
				: esn ? ESP_SEQUENCE_END_ESN
				      : ESP_SEQUENCE_END) -
			first + 1;
	struct sender sender = sender_new(&parameters);
	struct rte_mbuf *packets[ESP_BURST_MAX];
	struct esp_sa_out *sas[ESP_BURST_MAX];
	uint8_t drops[ESP_BURST_MAX];
	test_inner_v4(inner, sizeof(inner), 0, false);
	for (unsigned int i = 0; i < burst; i++) {
		packets[i] = test_packet(inner, sizeof(inner));
		sas[i] = sender.sa;
	}
	for (unsigned int round = 0; round < 5; round++) {
		for (unsigned int i = 0; i < burst; i++)
			test_packet_set(packets[i], inner, sizeof(inner));
		unsigned int expected = left < burst ? (unsigned int)left : burst;
		unsigned int refused = esp_encapsulate(context, packets, sas, drops, burst);
		assert_int_equal(refused, burst - expected);
		for (unsigned int i = 0; i < burst; i++) {
			if (i < expected) {
				assert_int_equal(drops[i], DROP_NONE);
				check_packet(&sender, packets[i], inner, sizeof(inner));
				continue;
			}
			assert_int_equal(drops[i], DROP_SEQUENCE_EXHAUSTED);
			assert_int_equal(packets[i]->data_len, sizeof(inner));
			assert_memory_equal(test_data(packets[i]), inner, sizeof(inner));
		}
		left -= expected;
		assert_int_equal(esp_sa_out_exhausted(sender.sa), left == 0);
		assert_true(esp_sa_out_next_sequence(sender.sa) == sender.sequence);
	}
	assert_int_equal(left, 0);
	assert_int_equal(esp_sa_out_counters(sender.sa).packets, sender.sequence - first);
	for (unsigned int i = 0; i < burst; i++)
		test_packet_free(packets[i]);
	sender_free(&sender);
}

static void test_sequence_ends_for_good(void **state)
{
	(void)state;
	check_end(false, 1, 5, 3);
	check_end(false, 1, 64, 64);
	check_end(false, 1, 1, 1);
	check_end(false, UINT64_C(0xfffffff0), 0, 7);
	check_end(false, UINT64_C(0xffffffff), 0, 64);
	check_end(true, ESP_SEQUENCE_END_ESN - 9, 0, 4);
	check_end(true, UINT64_C(0xfffffffe), UINT64_C(0x100000004), 2); // across the halves
	// A limit beyond the format's end doesn't move that.
	check_end(false, UINT64_C(0xfffffffc), UINT64_C(0xffffffff), 2);
}

static void test_limit_beyond_the_format(void **state)
{
	(void)state;
	uint8_t inner[40];
	struct esp_sa_out_parameters parameters = test_out_parameters(4);
	parameters.first_sequence = ESP_SEQUENCE_END;
	parameters.last_sequence = UINT64_C(0x1000000000);
	struct sender sender = sender_new(&parameters);
	test_inner_v4(inner, sizeof(inner), 0, false);
	struct rte_mbuf *packet = test_packet(inner, sizeof(inner));
	assert_int_equal(test_encapsulate(context, sender.sa, packet), DROP_NONE);
	test_packet_set(packet, inner, sizeof(inner));
	check_refused(sender.sa, packet, inner, sizeof(inner), DROP_SEQUENCE_EXHAUSTED);
	test_packet_free(packet);
	sender_free(&sender);
}

enum { MIXED_SAS = 3 };

struct mixed {
	struct round_trip trips[MIXED_SAS];
	unsigned int which[ESP_BURST_MAX];
	uint8_t inner[ESP_BURST_MAX][200];
	uint32_t sizes[ESP_BURST_MAX];
	struct rte_mbuf *packets[ESP_BURST_MAX];
	uint8_t drops[ESP_BURST_MAX], expected[ESP_BURST_MAX], classes[ESP_BURST_MAX];
	struct esp_sa_out *out[ESP_BURST_MAX];
	struct esp_sa_in *in[ESP_BURST_MAX];
};

static void mixed_fill(struct mixed *mixed, unsigned int count, uint64_t *seed)
{
	for (unsigned int i = 0; i < count; i++) {
		uint64_t random = test_random(seed);
		mixed->which[i] = (unsigned int)(random % MIXED_SAS);
		mixed->out[i] = mixed->trips[mixed->which[i]].sender.sa;
		mixed->in[i] = mixed->trips[mixed->which[i]].receiver;
		mixed->sizes[i] = inner_any(mixed->inner[i], (random >> 8 & 1) != 0,
			(uint32_t)(40 + (random >> 16) % 160), 0, false);
		mixed->expected[i] = DROP_NONE;
		uint32_t headroom = TEST_HEADROOM;
		if ((random >> 32) % 16 == 0) {
			mixed->expected[i] = DROP_NO_HEADROOM;
			headroom = 20;
		}
		mixed->packets[i] =
			test_packet_new(mixed->inner[i], mixed->sizes[i], headroom, TEST_TAILROOM);
		if ((random >> 36) % 16 == 0) {
			mixed->expected[i] = DROP_NOT_LINEAR;
			mixed->packets[i]->nb_segs = 2;
		}
	}
}

static void mixed_check_out(struct mixed *mixed, unsigned int count)
{
	unsigned int expected = 0;
	unsigned int refused =
		esp_encapsulate(context, mixed->packets, mixed->out, mixed->drops, count);
	for (unsigned int i = 0; i < count; i++) {
		struct sender *sender = &mixed->trips[mixed->which[i]].sender;
		assert_int_equal(mixed->drops[i], mixed->expected[i]);
		if (mixed->expected[i] != DROP_NONE) {
			expected++;
			assert_memory_equal(
				test_data(mixed->packets[i]), mixed->inner[i], mixed->sizes[i]);
			continue;
		}
		check_packet(sender, mixed->packets[i], mixed->inner[i], mixed->sizes[i]);
		rte_pktmbuf_adj(
			mixed->packets[i], (uint16_t)outer_header_size(&sender->parameters));
	}
	assert_int_equal(refused, expected);
}

// What was refused on the way out goes in as it is: too short, or chained, or not by its number.
static void mixed_check_in(struct mixed *mixed, unsigned int count)
{
	esp_decapsulate(context, mixed->packets, mixed->in, mixed->classes, mixed->drops, count);
	for (unsigned int i = 0; i < count; i++) {
		if (mixed->expected[i] != DROP_NONE) {
			assert_int_not_equal(mixed->drops[i], DROP_NONE);
			continue;
		}
		assert_int_equal(mixed->drops[i], DROP_NONE);
		assert_int_equal(mixed->packets[i]->data_len, mixed->sizes[i]);
		assert_memory_equal(test_data(mixed->packets[i]), mixed->inner[i], mixed->sizes[i]);
	}
}

// Bursts of all lengths, their packets of several SAs and each SA in many places, some refused.
static void test_mixed_bursts(void **state)
{
	(void)state;
	static struct mixed mixed;
	uint64_t seed = 4;
	mixed.trips[0] = round_trip_new(4, false, false);
	mixed.trips[1] = round_trip_new(4, true, true);
	mixed.trips[2] = round_trip_new(6, true, false);
	for (unsigned int round = 0; round < 40 * ESP_BURST_MAX; round++) {
		unsigned int count = round % ESP_BURST_MAX + 1;
		mixed_fill(&mixed, count, &seed);
		mixed_check_out(&mixed, count);
		mixed_check_in(&mixed, count);
		for (unsigned int i = 0; i < count; i++)
			test_packet_free(mixed.packets[i]);
	}
	for (unsigned int i = 0; i < MIXED_SAS; i++)
		round_trip_free(&mixed.trips[i]);
}

static void test_counters_are_summed_over_workers(void **state)
{
	(void)state;
	uint8_t inner[100];
	struct esp_sa_out_parameters parameters = test_out_parameters(4);
	parameters.workers = 2;
	struct esp_sa_out *sa = esp_sa_out_create(&parameters);
	struct esp_context *other = esp_context_create(1, ESP_CRYPTO_AUTO);
	assert_non_null(sa);
	assert_non_null(other);
	assert_int_equal(esp_sa_out_spi(sa), TEST_SPI);
	assert_int_equal(esp_sa_out_counters(sa).packets, 0);
	assert_int_equal(esp_sa_out_counters(sa).last_use, 0);
	test_inner_v4(inner, sizeof(inner), 0, false);
	struct rte_mbuf *packet = test_packet(inner, sizeof(inner));
	for (unsigned int i = 0; i < 10; i++) {
		uint64_t before = esp_sa_out_counters(sa).last_use;
		test_packet_set(packet, inner, sizeof(inner));
		struct esp_context *used = i % 3 == 0 ? other : context;
		assert_int_equal(test_encapsulate(used, sa, packet), DROP_NONE);
		assert_true(esp_sa_out_counters(sa).last_use > before);
	}
	packet->nb_segs = 2;
	assert_int_equal(test_encapsulate(context, sa, packet), DROP_NOT_LINEAR);
	assert_int_equal(esp_sa_out_counters(sa).packets, 10);
	assert_int_equal(esp_sa_out_counters(sa).bytes, 1000);
	test_packet_free(packet);
	esp_context_destroy(other);
	esp_sa_out_destroy(sa);
}

// A peer that moves gets packets with another outer header, whose sequence goes on.
static void test_outer_header_changes(void **state)
{
	(void)state;
	uint8_t inner[77];
	struct esp_sa_out_parameters parameters = test_out_parameters(4);
	parameters.ttl = 9;
	parameters.df = ESP_DF_COPY;
	parameters.set_dscp = true;
	parameters.dscp = 10;
	struct sender sender = sender_new(&parameters);
	test_inner_v4(inner, sizeof(inner), 0x2e, false);
	struct rte_mbuf *packet = test_packet(inner, sizeof(inner));
	for (unsigned int i = 0; i < 6; i++) {
		test_packet_set(packet, inner, sizeof(inner));
		assert_int_equal(test_encapsulate(context, sender.sa, packet), DROP_NONE);
		check_packet(&sender, packet, inner, sizeof(inner));
		struct esp_sa_out_parameters *now = &sender.parameters;
		uint8_t family = i % 2 == 0 ? 6 : 4;
		now->source = test_address(family == 4 ? "192.0.2.1" : "2001:db8::77");
		now->destination = test_address(family == 4 ? "192.0.2.2" : "2001:db8::78");
		now->udp_source = i % 3 == 0 ? 4500 : 0;
		now->udp_destination = (uint16_t)(i % 3 == 0 ? 1024 + i : 0);
		esp_sa_out_set_outer(sender.sa, &now->source, &now->destination, now->udp_source,
			now->udp_destination);
	}
	test_packet_free(packet);
	sender_free(&sender);
}

int main(void)
{
	context = test_esp_start(ESP_CRYPTO_AUTO);
	if (context == NULL)
		return 1;
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_outer_header),
		cmocka_unit_test(test_dscp_is_set),
		cmocka_unit_test(test_identification_differs_without_df),
		cmocka_unit_test(test_iv_never_repeats),
		cmocka_unit_test(test_every_size_there_and_back),
		cmocka_unit_test(test_no_room),
		cmocka_unit_test(test_chained_buffers_are_refused),
		cmocka_unit_test(test_sequence_ends_for_good),
		cmocka_unit_test(test_limit_beyond_the_format),
		cmocka_unit_test(test_mixed_bursts),
		cmocka_unit_test(test_counters_are_summed_over_workers),
		cmocka_unit_test(test_outer_header_changes),
	};
	int failed = cmocka_run_group_tests(tests, NULL, NULL);
	esp_context_destroy(context);
	return failed;
}
