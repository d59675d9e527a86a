// SPDX-License-Identifier: BSD-3-Clause
// Copyright (c) 2026 the espgw authors

// ICMP that says a packet was too large: what is read of it, and which of it is believed.

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "eal.h"
#include "esp/sa.h"
#include "tunnel/tunnel.h"

#define SECOND UINT64_C(1000000000)

enum { SPI = 0x12345678, SENT = 5000, MTU = 1438 };

static struct config_tunnel tunnels[2];
static struct config config;
static struct reclaim *reclaim;
static struct tunnel_table *table;
static struct tunnel *tunnel;
static uint64_t now = 1000 * SECOND;

static struct packet_address address(const char *text)
{
	struct packet_address result;
	assert_true(packet_address_parse(text, &result));
	return result;
}

static struct sa *add(unsigned int index, const char *source, const char *destination, uint32_t spi,
	uint16_t udp_destination)
{
	const struct sa_parameters parameters = {
		.direction = SA_OUTBOUND,
		.spi = spi,
		.source = address(source),
		.destination = address(destination),
		.key = {(uint8_t)spi},
		.udp_source = udp_destination == 0 ? 0 : 4500,
		.udp_destination = udp_destination,
	};
	struct tunnel_error error;
	struct sa *sa = sa_add(table, tunnel_get(table, index), &parameters, &error);
	assert_non_null(sa);
	atomic_store(&sa->out->next_sequence, SENT + 1);
	return sa;
}

static int set_up(void **state)
{
	(void)state;
	memset(tunnels, 0, sizeof(tunnels));
	for (unsigned int i = 0; i < 2; i++) {
		snprintf(tunnels[i].name, sizeof(tunnels[i].name), "tunnel0%u", i + 1);
		tunnels[i].mtu = MTU;
		tunnels[i].packets_per_key = UINT32_MAX;
		tunnels[i].udp_encapsulation = true;
		tunnels[i].pmtu = true;
	}
	tunnels[0].customer_endpoint = address("198.51.100.1");
	tunnels[1].customer_endpoint = address("2001:db8::2");
	config.gateway.max_sas = 16;
	config.worker_count = 1;
	config.tunnels = tunnels;
	config.tunnel_count = 2;
	reclaim = reclaim_create(1);
	table = tunnel_table_create(&config, reclaim);
	tunnel = tunnel_get(table, 0);
	add(0, "203.0.113.1", "198.51.100.1", SPI, 0);
	add(1, "2001:db8::1", "2001:db8::2", SPI, 4501);
	return 0;
}

static int tear_down(void **state)
{
	(void)state;
	tunnel_table_destroy(table);
	reclaim_destroy(reclaim);
	return 0;
}

// ---- what is believed ----

static const struct packet_too_big good = {
	.mtu = 1400,
	.size = 1496,
	.spi = SPI,
	.sequence = SENT,
};

static struct packet_too_big good4(void)
{
	struct packet_too_big message = good;
	message.sender = address("192.0.2.9");
	message.source = address("203.0.113.1");
	message.destination = address("198.51.100.1");
	return message;
}

static struct packet_too_big good6(void)
{
	struct packet_too_big message = good;
	message.sender = address("2001:db8::9");
	message.source = address("2001:db8::1");
	message.destination = address("2001:db8::2");
	message.udp_source = 4500;
	message.udp_destination = 4501;
	return message;
}

static enum tunnel_path_verdict consider(const struct packet_too_big *message)
{
	struct tunnel *of;
	return tunnel_path_consider(table, message, now, &of);
}

static void check_refused(const struct packet_too_big *message)
{
	uint32_t first = tunnel->mtu, second = tunnel_get(table, 1)->mtu;
	uint64_t refused = tunnel->path.refused + tunnel_get(table, 1)->path.refused +
			   tunnel_path_unknown(table);
	assert_int_equal(consider(message), TUNNEL_PATH_REFUSED);
	assert_int_equal(tunnel->mtu, first);
	assert_int_equal(tunnel_get(table, 1)->mtu, second);
	assert_int_equal(tunnel->path.refused + tunnel_get(table, 1)->path.refused +
				 tunnel_path_unknown(table),
		refused + 1);
}

static void test_a_plausible_message_lowers_the_mtu(void **state)
{
	(void)state;
	struct packet_too_big message = good4();
	struct tunnel *of;
	assert_int_equal(tunnel_path_consider(table, &message, now, &of), TUNNEL_PATH_LOWERED);
	assert_ptr_equal(of, tunnel);
	// 1400 less 20 (IP), 8 (UDP, reckoned with), 8 (ESP), 8 (IV), 16 (ICV): 1340, less 2.
	assert_int_equal(tunnel->mtu, 1338);
	assert_int_equal(tunnel->path.mtu, 1400);
	assert_true(packet_address_equal(&tunnel->path.sender, &message.sender));
	assert_int_equal(tunnel_get(table, 1)->mtu, MTU);
	struct packet_too_big six = good6();
	assert_int_equal(consider(&six), TUNNEL_PATH_LOWERED);
	assert_int_equal(tunnel_get(table, 1)->mtu, 1318);
	// The same again, and a larger one, change nothing; a smaller one does.
	now += SECOND;
	assert_int_equal(consider(&message), TUNNEL_PATH_UNCHANGED);
	message.mtu = 1450;
	assert_int_equal(consider(&message), TUNNEL_PATH_UNCHANGED);
	assert_int_equal(tunnel->mtu, 1338);
	message.mtu = 1300;
	assert_int_equal(consider(&message), TUNNEL_PATH_LOWERED);
	assert_int_equal(tunnel->mtu, 1238);
	assert_int_equal(tunnel->path.believed, 4);
	assert_int_equal(tunnel->path.refused, 0);
}

// As when a configuration is applied: to a tunnel that stays, that changes, that goes.
static void test_another_configuration_keeps_what_was_learnt(void **state)
{
	(void)state;
	struct packet_too_big message = good4();
	struct config_tunnel next = tunnels[0];
	assert_int_equal(consider(&message), TUNNEL_PATH_LOWERED);
	tunnel_configure(table, 0, &next);
	assert_int_equal(tunnel->mtu, 1338);
	next.mtu = 1300;
	tunnel_configure(table, 0, &next);
	assert_int_equal(tunnel->mtu, 1300);
	struct config_tunnel deaf = tunnels[0];
	deaf.pmtu = false;
	tunnel_configure(table, 0, &deaf);
	assert_int_equal(tunnel->mtu, MTU);
	assert_int_equal(tunnel->path.mtu, 0);
	now += SECOND;
	tunnel_configure(table, 0, &tunnels[0]);
	assert_int_equal(consider(&message), TUNNEL_PATH_LOWERED);
	sa_delete(table, sa_find(table, SA_OUTBOUND, SPI, &message.destination));
	tunnel_configure(table, 0, NULL);
	now += TUNNEL_PATH_AGE + SECOND;
	assert_null(tunnel_path_expire(table, now));
	// The next tunnel of this index starts anew.
	tunnel_configure(table, 0, &tunnels[0]);
	assert_int_equal(tunnel->mtu, MTU);
	assert_int_equal(tunnel->path.believed, 0);
}

static void test_what_does_not_fit_an_sa_is_refused(void **state)
{
	(void)state;
	struct packet_too_big message = good4();
#define REFUSED(member, value)           \
	do {                             \
		message = good4();       \
		message.member = value;  \
		check_refused(&message); \
	} while (0)
	REFUSED(spi, SPI + 1);
	REFUSED(source, address("203.0.113.2"));
	REFUSED(destination, address("198.51.100.2"));
	REFUSED(destination, address("2001:db8::2"));
	REFUSED(udp_destination, 4500);
	REFUSED(udp_source, 4500);
	REFUSED(sequence, 0);
	REFUSED(sequence, SENT + 1);
	REFUSED(sequence, UINT32_MAX);
	REFUSED(mtu, 575);
	REFUSED(mtu, 0);
	REFUSED(mtu, 1496); // it would have fitted
	REFUSED(mtu, UINT32_MAX);
	message = good6();
	message.udp_destination = 4500;
	check_refused(&message);
	message = good6();
	message.mtu = 1279;
	check_refused(&message);
	tunnels[0].pmtu_floor = 1401;
	message = good4();
	check_refused(&message);
	tunnels[0].pmtu_floor = 300;
	tunnels[1].pmtu_floor = 300; // IPv6 has its own
	message = good6();
	message.mtu = 1279;
	check_refused(&message);
	tunnels[0].pmtu = false;
	message = good4();
	check_refused(&message);
	tunnels[0].pmtu = true;
	message.mtu = 300;
	assert_int_equal(consider(&message), TUNNEL_PATH_LOWERED);
	assert_int_equal(tunnel->mtu, 238);
}

static void test_only_numbers_of_late_are_believed(void **state)
{
	(void)state;
	const struct sa *sa = tunnel->current;
	const uint32_t recent = 1u << 20;
	static const uint64_t nexts[] = {
		1, 2, SENT, recent, recent + 1, recent + 2, UINT32_MAX, ESP_SEQUENCE_END + 1};
	for (unsigned int i = 0; i < RTE_DIM(nexts); i++) {
		uint64_t next = nexts[i], oldest = next > recent ? next - recent : 1;
		atomic_store(&sa->out->next_sequence, next);
		assert_int_equal(esp_sa_out_has_sent(sa->out, (uint32_t)(next - 1)), next > 1);
		assert_int_equal(esp_sa_out_has_sent(sa->out, (uint32_t)oldest), next > 1);
		assert_false(esp_sa_out_has_sent(sa->out, (uint32_t)(oldest - 1)));
		assert_false(esp_sa_out_has_sent(sa->out, (uint32_t)next));
	}
}

static void test_changes_are_not_too_many(void **state)
{
	(void)state;
	struct packet_too_big message = good4();
	for (unsigned int i = 0; i < 100; i++, now += SECOND / 100) {
		consider(&message);
		message.mtu--;
	}
	assert_true(tunnel->path.believed <= 11);
}

static void test_it_is_forgotten_in_time(void **state)
{
	(void)state;
	struct packet_too_big message = good4();
	assert_null(tunnel_path_expire(table, now));
	consider(&message);
	assert_null(tunnel_path_expire(table, now + TUNNEL_PATH_AGE - 1));
	assert_int_equal(tunnel->mtu, 1338);
	assert_ptr_equal(tunnel_path_expire(table, now + TUNNEL_PATH_AGE), tunnel);
	assert_int_equal(tunnel->mtu, MTU);
	assert_int_equal(tunnel->path.mtu, 0);
	assert_null(tunnel_path_expire(table, now + TUNNEL_PATH_AGE));
	// And learnt again.
	assert_int_equal(consider(&message), TUNNEL_PATH_LOWERED);
	// Another far end is another way.
	struct packet_address moved = address("198.51.100.7");
	struct tunnel_error error;
	assert_int_equal(sa_update(table, tunnel->current, NULL, &moved, 4500, 4500, &error), 0);
	assert_int_equal(tunnel->mtu, MTU);
	check_refused(&message);
}

// Another configuration while the gateway runs.
static void test_it_follows_the_configuration(void **state)
{
	(void)state;
	struct packet_too_big message = good4();
	struct config_tunnel other = tunnels[0];
	consider(&message);
	other.mtu = 1300;
	tunnel_configure(table, 0, &other);
	assert_int_equal(tunnel->mtu, 1300);
	tunnel_configure(table, 0, &tunnels[0]);
	assert_int_equal(tunnel->mtu, 1338);
	other = tunnels[0];
	other.pmtu = false;
	tunnel_configure(table, 0, &other);
	assert_int_equal(tunnel->mtu, MTU);
	tunnel_configure(table, 0, &tunnels[0]);
	assert_int_equal(tunnel->mtu, MTU);
	assert_int_equal(consider(&message), TUNNEL_PATH_LOWERED);
	other.pmtu = true;
	other.pmtu_floor = 1401;
	tunnel_configure(table, 0, &other);
	assert_int_equal(tunnel->mtu, MTU);
	assert_int_equal(tunnel->path.mtu, 0);
	assert_null(tunnel_path_expire(table, now + TUNNEL_PATH_AGE));
}

// A rekey: packets of the SA before are on their way still, and the MTU stays.
static void test_the_sa_may_have_been_replaced(void **state)
{
	(void)state;
	struct packet_too_big message = good4();
	add(0, "203.0.113.1", "198.51.100.1", SPI + 1, 0);
	assert_int_equal(consider(&message), TUNNEL_PATH_LOWERED);
	struct sa *old = sa_find(table, SA_OUTBOUND, SPI, &message.destination);
	sa_stop(table, old);
	now += SECOND;
	message.mtu = 1300;
	check_refused(&message);
	sa_delete(table, old);
	check_refused(&message);
	assert_int_equal(tunnel->mtu, 1338);
}

static void test_the_largest_inner_packet_fits_and_one_more_does_not(void **state)
{
	(void)state;
	const struct sa *plain = tunnel->current, *udp = tunnel_get(table, 1)->current;
	for (uint32_t outer = 0; outer < 10000; outer++) {
		uint32_t inner = config_largest_inner(outer, 4, false);
		assert_true(esp_sa_out_outer_size(plain->out, inner) <= outer || inner == 0);
		assert_true(esp_sa_out_outer_size(plain->out, inner + 1) > outer);
		inner = config_largest_inner(outer, 6, true);
		assert_true(esp_sa_out_outer_size(udp->out, inner) <= outer || inner == 0);
		assert_true(esp_sa_out_outer_size(udp->out, inner + 1) > outer);
	}
}

// ---- what is read ----

// 192.0.2.9 to 203.0.113.1, quoting 203.0.113.1 to 198.51.100.1, ESP 0x12345678, number 5000, of
// 1,496 bytes; MTU 1400.
static const uint8_t icmp4[] = {0x45, 0, 0, 64, 0, 0, 0, 0, 60, 1, 0, 0, 192, 0, 2, 9, 203, 0, 113,
	1, 3, 4, 0, 0, 0, 0, 0x05, 0x78, 0x45, 0, 0x05, 0xd8, 0, 0, 0x40, 0, 61, 50, 0, 0, 203, 0,
	113, 1, 198, 51, 100, 1, 0x12, 0x34, 0x56, 0x78, 0, 0, 0x13, 0x88, 1, 2, 3, 4, 5, 6, 7, 8};
enum { ICMP4 = 20, QUOTE4 = ICMP4 + 8 };

// Sums big-endian words; independent of the library's.
static void fix_icmp(uint8_t *ip, uint32_t length, uint32_t at)
{
	uint32_t sum = 0;
	ip[at + 2] = ip[at + 3] = 0;
	if (ip[0] >> 4 == 6) {
		for (uint32_t i = 8; i < 40; i += 2)
			sum += (uint32_t)(ip[i] << 8 | ip[i + 1]);
		sum += length - at + 58;
	}
	for (uint32_t i = at; i < length; i += 2)
		sum += (uint32_t)(ip[i] << 8 | (i + 1 < length ? ip[i + 1] : 0));
	while (sum > 0xffff)
		sum = (sum & 0xffff) + (sum >> 16);
	ip[at + 2] = (uint8_t)(~sum >> 8);
	ip[at + 3] = (uint8_t)~sum;
}

static bool parse(const uint8_t *ip, uint32_t length, struct packet_too_big *message)
{
	struct packet_ip_view view;
	return packet_ip_view(ip, length, &view) &&
	       packet_too_big_parse(ip, length, &view, message);
}

static void test_messages_are_read(void **state)
{
	(void)state;
	uint8_t ip[128];
	struct packet_too_big message, expected = good4();
	memset(&message, 0xaa, sizeof(message));
	memcpy(ip, icmp4, sizeof(icmp4));
	fix_icmp(ip, sizeof(icmp4), ICMP4);
	assert_true(parse(ip, sizeof(icmp4), &message));
	assert_true(packet_address_equal(&message.sender, &expected.sender));
	assert_true(packet_address_equal(&message.source, &expected.source));
	assert_true(packet_address_equal(&message.destination, &expected.destination));
	assert_int_equal(message.mtu, 1400);
	assert_int_equal(message.size, 1496);
	assert_int_equal(message.spi, SPI);
	assert_int_equal(message.sequence, SENT);
	assert_int_equal(message.udp_source, 0);
	assert_int_equal(message.udp_destination, 0);
	// RFC 792's eight bytes of the quoted packet are enough; one less is not. An odd size, too.
	for (uint32_t length = QUOTE4; length <= sizeof(icmp4); length++) {
		ip[3] = (uint8_t)length;
		fix_icmp(ip, length, ICMP4);
		assert_int_equal(parse(ip, length, &message), length >= QUOTE4 + 28);
	}
}

static void test_other_messages_are_not(void **state)
{
	(void)state;
	static const struct {
		uint32_t at;
		uint8_t value;
	} changes[] = {
		{9, 6},           // no ICMP
		{6, 0x20},        // a fragment
		{ICMP4, 11},      // another type
		{ICMP4 + 1, 3},   // another code
		{QUOTE4, 0x65},   // of the other family, or none
		{QUOTE4, 0x44},   // a header under 20 bytes
		{QUOTE4, 0x4f},   // one that is not there
		{QUOTE4 + 7, 1},  // a later fragment
		{QUOTE4 + 9, 6},  // TCP
		{QUOTE4 + 9, 17}, // UDP, whose end is missing
	};
	struct packet_too_big message;
	for (unsigned int i = 0; i < RTE_DIM(changes); i++) {
		uint8_t ip[sizeof(icmp4)];
		uint32_t length = changes[i].value == 17 ? QUOTE4 + 35 : sizeof(icmp4);
		memcpy(ip, icmp4, sizeof(icmp4));
		ip[changes[i].at] = changes[i].value;
		ip[3] = (uint8_t)length;
		fix_icmp(ip, length, ICMP4);
		assert_false(parse(ip, length, &message));
	}
	// Damaged anywhere.
	for (uint32_t at = ICMP4; at < sizeof(icmp4); at++) {
		uint8_t ip[sizeof(icmp4)];
		memcpy(ip, icmp4, sizeof(icmp4));
		fix_icmp(ip, sizeof(icmp4), ICMP4);
		ip[at] ^= 0x10;
		assert_false(parse(ip, sizeof(icmp4), &message));
	}
}

static void test_messages_over_ipv6_are_read(void **state)
{
	(void)state;
	uint8_t ip[40 + 8 + 40 + 8 + 8] = {0x60, 0, 0, 0, 0, 64, 58, 60};
	uint8_t *quote = ip + 48;
	struct packet_too_big message, expected = good6();
	memcpy(ip + 8, expected.sender.bytes, 16);
	memcpy(ip + 24, expected.source.bytes, 16);
	memcpy(ip + 40, (const uint8_t[]){2, 0, 0, 0, 0, 0, 0x05, 0x78}, 8);
	memcpy(quote, (const uint8_t[]){0x60, 0, 0, 0, 0x05, 0xb0, 17, 60}, 8);
	memcpy(quote + 8, expected.source.bytes, 16);
	memcpy(quote + 24, expected.destination.bytes, 16);
	memcpy(quote + 40,
		(const uint8_t[]){0x11, 0x94, 0x11, 0x95, 0x05, 0xb0, 0, 0, 0x12, 0x34, 0x56, 0x78,
			0, 0, 0x13, 0x88},
		16);
	fix_icmp(ip, sizeof(ip), 40);
	assert_true(parse(ip, sizeof(ip), &message));
	assert_int_equal(message.size, 1496);
	assert_int_equal(message.mtu, 1400);
	assert_int_equal(message.udp_source, 4500);
	assert_int_equal(message.udp_destination, 4501);
	assert_int_equal(consider(&message), TUNNEL_PATH_LOWERED);
	// The MTU has 32 bits here.
	ip[44] = 1;
	fix_icmp(ip, sizeof(ip), 40);
	assert_true(parse(ip, sizeof(ip), &message));
	assert_int_equal(message.mtu, 0x01000578);
	ip[24 + 15] ^= 3; // another destination: the pseudo-header's sum is wrong
	assert_false(parse(ip, sizeof(ip), &message));
}

int main(void)
{
	if (test_eal_start("64") != 0)
		return 1;
#define TEST(function) cmocka_unit_test_setup_teardown(function, set_up, tear_down)
	const struct CMUnitTest tests[] = {
		TEST(test_a_plausible_message_lowers_the_mtu),
		TEST(test_another_configuration_keeps_what_was_learnt),
		TEST(test_what_does_not_fit_an_sa_is_refused),
		TEST(test_only_numbers_of_late_are_believed),
		TEST(test_changes_are_not_too_many),
		TEST(test_it_is_forgotten_in_time),
		TEST(test_it_follows_the_configuration),
		TEST(test_the_sa_may_have_been_replaced),
		TEST(test_the_largest_inner_packet_fits_and_one_more_does_not),
		TEST(test_messages_are_read),
		TEST(test_other_messages_are_not),
		TEST(test_messages_over_ipv6_are_read),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
