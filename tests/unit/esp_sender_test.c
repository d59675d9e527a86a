// SPDX-License-Identifier: BSD-3-Clause
// Copyright (c) 2026 the espgw authors

// Which packets tell that a peer has moved.

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <rte_cycles.h>

#include "esp/sa.h"
#include "esp_helpers.h"

#define PORT       4500
#define INNER_SIZE 40

static struct esp_context *context;
static struct esp_sa_in *sa;
static struct test_cipher *cipher;
static uint64_t home, away; // the sender that the SA knows, and another

static uint64_t sender(const char *text, uint16_t port)
{
	struct packet_address address = test_address(text);
	uint32_t four;
	memcpy(&four, address.bytes, sizeof(four));
	return address.family == 4 ? esp_sender_v4(four, rte_cpu_to_be_16(port))
				   : esp_sender_v6(address.bytes, rte_cpu_to_be_16(port));
}

static int setup_window(uint32_t window)
{
	struct esp_sa_in_parameters parameters = test_in_parameters(window);
	parameters.source = test_address("198.51.100.1");
	parameters.udp_source = PORT;
	sa = esp_sa_in_create(&parameters);
	cipher = test_cipher_new(parameters.key, parameters.salt, parameters.spi, false);
	home = sender("198.51.100.1", PORT);
	away = sender("198.51.100.1", 61000);
	return sa == NULL;
}

static int setup(void **state)
{
	(void)state;
	return setup_window(64);
}

static int setup_without_window(void **state)
{
	(void)state;
	return setup_window(0);
}

static int teardown(void **state)
{
	(void)state;
	esp_sa_in_destroy(sa);
	test_cipher_free(cipher);
	return 0;
}

struct arrival {
	uint32_t sequence;
	uint64_t sender;
	uint8_t drop; // why it is refused, or DROP_NONE
};

// Decapsulates a burst; the bits of those that tell of a move. A second has passed since the last.
static uint64_t receive(const struct arrival *arrivals, unsigned int count)
{
	uint8_t inner[INNER_SIZE + 4], esp[200];
	uint8_t drops[ESP_BURST_MAX], classes[ESP_BURST_MAX] = {0};
	struct rte_mbuf *packets[ESP_BURST_MAX];
	struct esp_sa_in *sas[ESP_BURST_MAX];
	uint64_t senders[ESP_BURST_MAX];
	test_inner_v4(inner, INNER_SIZE, 0, false);
	for (unsigned int i = 0; i < count; i++) {
		uint8_t protocol = arrivals[i].drop == DROP_DUMMY ? TEST_DUMMY : TEST_PROTOCOL_V4;
		uint32_t size = test_trailer(inner, INNER_SIZE, 2, protocol);
		size = test_forge(cipher, arrivals[i].sequence, inner, size, esp);
		if (arrivals[i].drop == DROP_ICV)
			esp[size - 1] ^= 1;
		packets[i] = test_packet(esp, size);
		sas[i] = sa;
		senders[i] = arrivals[i].sender;
	}
	atomic_store(&sa->moved, 0);
	memset(context->tops, 0xff, sizeof(context->tops)); // nothing is left of bursts before
	esp_decapsulate(context, packets, sas, classes, drops, count);
	uint64_t moved = esp_find_moved(context, sas, senders, drops, count);
	for (unsigned int i = 0; i < count; i++) {
		assert_int_equal(drops[i], arrivals[i].drop);
		test_packet_free(packets[i]);
	}
	return moved;
}

#define RECEIVE(...)                                   \
	receive((const struct arrival[]){__VA_ARGS__}, \
		sizeof((const struct arrival[]){__VA_ARGS__}) / sizeof(struct arrival))

static void test_who_is_no_stranger(void **state)
{
	(void)state;
	assert_int_equal(RECEIVE({1, home, 0}, {2, home, 0}, {3, 0, 0}), 0); // 0: plain ESP
	assert_int_equal(RECEIVE({4, 0, 0}), 0);
}

static void test_another_port_or_address(void **state)
{
	(void)state;
	assert_int_equal(RECEIVE({1, away, 0}), 1);
	assert_int_equal(RECEIVE({2, sender("198.51.100.2", PORT), 0}), 1);
	assert_int_equal(RECEIVE({3, sender("2001:db8::1", PORT), 0}), 1);
	assert_int_equal(RECEIVE({4, home, 0}), 0);
}

static void test_what_is_refused_tells_nothing(void **state)
{
	(void)state;
	assert_int_equal(RECEIVE({1, home, 0}, {2, away, DROP_ICV}), 0);
	assert_int_equal(RECEIVE({1, away, DROP_REPLAY}), 0);
	assert_int_equal(RECEIVE({100, home, 0}, {101, home, 0}), 0);
	assert_int_equal(RECEIVE({2, away, DROP_TOO_OLD}), 0);
	assert_int_equal(RECEIVE({102, away, DROP_DUMMY}), 0); // authentic, but no packet
	assert_int_equal(RECEIVE({101, away, DROP_REPLAY}), 0);
}

// After the move the old place's packets may still be on their way.
static void test_late_packets_tell_nothing(void **state)
{
	(void)state;
	assert_int_equal(RECEIVE({10, home, 0}), 0);
	assert_int_equal(RECEIVE({9, away, 0}), 0);
	// In one burst: packet 12 is late as well, though newer than all of the burst before.
	assert_int_equal(RECEIVE({13, home, 0}, {12, away, 0}), 0);
	assert_int_equal(RECEIVE({15, away, 0}, {14, home, 0}), 1);
	assert_int_equal(RECEIVE({16, away, 0}, {17, home, 0}), 0);
	assert_int_equal(RECEIVE({18, home, 0}, {19, away, 0}, {20, away, 0}), 4);
}

// Without replay protection a captured packet is accepted again, but tells of no move.
static void test_repeated_packets_tell_nothing(void **state)
{
	(void)state;
	assert_int_equal(RECEIVE({10, home, 0}), 0);
	assert_int_equal(RECEIVE({10, away, 0}), 0);
	assert_int_equal(RECEIVE({9, away, 0}), 0);
	assert_int_equal(RECEIVE({11, away, 0}), 1);
}

static void test_the_agent_follows(void **state)
{
	(void)state;
	struct packet_address address = test_address("198.51.100.1");
	assert_int_equal(RECEIVE({1, away, 0}), 1);
	esp_sa_in_set_sender(sa, &address, 61000);
	assert_int_equal(RECEIVE({2, away, 0}), 0);
	assert_int_equal(RECEIVE({3, home, 0}), 1);
	// Plain ESP from now on: any packet in UDP is news.
	esp_sa_in_set_sender(sa, &address, 0);
	assert_int_equal(RECEIVE({4, home, 0}), 1);
	assert_int_equal(RECEIVE({5, 0, 0}), 0);
	address = test_address("2001:db8::1");
	esp_sa_in_set_sender(sa, &address, PORT);
	assert_int_equal(RECEIVE({6, sender("2001:db8::1", PORT), 0}), 0);
	assert_int_equal(RECEIVE({7, sender("2001:db8::2", PORT), 0}), 1);
}

static uint64_t move_once(uint32_t sequence)
{
	uint8_t inner[40], esp[200], drop, class = 0;
	test_inner_v4(inner, sizeof(inner), 0, false);
	struct rte_mbuf *packet =
		test_packet(esp, test_forge_inner(cipher, sequence, inner, sizeof(inner), esp));
	esp_decapsulate(context, &packet, &sa, &class, &drop, 1);
	assert_int_equal(drop, DROP_NONE);
	uint64_t moved = esp_find_moved(context, &sa, &away, &drop, 1);
	test_packet_free(packet);
	return moved;
}

static void test_once_a_second(void **state)
{
	(void)state;
	uint64_t start = rte_rdtsc();
	assert_int_equal(move_once(1), 1);
	for (uint32_t sequence = 2; sequence < 1000; sequence++)
		assert_int_equal(move_once(sequence), 0);
	assert_true(rte_rdtsc() - start < rte_get_tsc_hz()); // else it proves nothing
	atomic_fetch_sub(&sa->moved, rte_get_tsc_hz());
	assert_int_equal(move_once(1000), 1);
	assert_int_equal(move_once(1001), 0);
}

// Runs of neighbours that share an SA, each with a top of its own.
static void test_two_sas_in_one_burst(void **state)
{
	(void)state;
	struct esp_sa_in *first = sa;
	struct esp_sa_in_parameters parameters = test_in_parameters(64);
	parameters.source = test_address("198.51.100.1");
	parameters.udp_source = PORT;
	struct esp_sa_in *second = esp_sa_in_create(&parameters);
	struct esp_sa_in *sas[] = {first, first, second, first, second};
	static const uint32_t sequences[] = {50, 51, 2, 52, 1};
	const uint64_t senders[] = {home, home, away, away, home};
	struct rte_mbuf *packets[5];
	uint8_t inner[40], esp[200], drops[5], classes[5] = {0};
	test_inner_v4(inner, sizeof(inner), 0, false);
	for (unsigned int i = 0; i < 5; i++)
		packets[i] = test_packet(
			esp, test_forge_inner(cipher, sequences[i], inner, sizeof(inner), esp));
	assert_int_equal(esp_decapsulate(context, packets, sas, classes, drops, 5), 0);
	assert_int_equal(
		esp_find_moved(context, sas, senders, drops, 5), UINT64_C(1) << 2 | 1 << 3);
	for (unsigned int i = 0; i < 5; i++)
		test_packet_free(packets[i]);
	esp_sa_in_destroy(second);
}

static void test_senders_differ(void **state)
{
	(void)state;
	static const char *const addresses[] = {"0.0.0.0", "198.51.100.1", "198.51.100.2",
		"::", "::1", "::8000:0", "0:0:0:80::", "0:0:0:80::1", "2001:db8::1", "2001:db9::1",
		"2001:db8::2", "2001:db8:0:80::1"};
	static const uint16_t ports[] = {1, 2, 4500, 4501, 61000, 65535};
	enum { COUNT = RTE_DIM(addresses) * RTE_DIM(ports) };
	uint64_t senders[COUNT];
	for (unsigned int i = 0; i < COUNT; i++) {
		senders[i] = sender(addresses[i / RTE_DIM(ports)], ports[i % RTE_DIM(ports)]);
		assert_int_not_equal(senders[i], 0);
		for (unsigned int j = 0; j < i; j++)
			assert_int_not_equal(senders[i], senders[j]);
	}
	static const uint8_t nowhere[16];
	assert_int_not_equal(esp_sender_v6(nowhere, 0), 0);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	context = test_esp_start(ESP_CRYPTO_AUTO);
	if (context == NULL)
		return 1;
	const struct CMUnitTest tests[] = {
		TEST(test_who_is_no_stranger),
		TEST(test_another_port_or_address),
		TEST(test_what_is_refused_tells_nothing),
		TEST(test_late_packets_tell_nothing),
		cmocka_unit_test_setup_teardown(
			test_repeated_packets_tell_nothing, setup_without_window, teardown),
		TEST(test_the_agent_follows),
		TEST(test_once_a_second),
		TEST(test_two_sas_in_one_burst),
		cmocka_unit_test(test_senders_differ),
	};
	int failed = cmocka_run_group_tests(tests, NULL, NULL);
	esp_context_destroy(context);
	return failed;
}
