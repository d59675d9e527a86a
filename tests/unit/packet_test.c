// SPDX-License-Identifier: BSD-3-Clause
// Copyright (c) 2026 the espgw authors

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "packet/packet.h"

static struct packet_address address_of(const char *text)
{
	struct packet_address address;
	if (!packet_address_parse(text, &address))
		fail_msg("%s does not parse", text);
	return address;
}

static void test_addresses_parse_and_format(void **state)
{
	(void)state;
	static const char *const good[][2] = {
		{"0.0.0.0", "0.0.0.0"},
		{"255.255.255.255", "255.255.255.255"},
		{"169.254.244.2", "169.254.244.2"},
		{"::", "::"},
		{"2001:DB8:0:0::1", "2001:db8::1"},
		{"::ffff:1.2.3.4", "::ffff:1.2.3.4"},
		{"ffff:ffff:ffff:ffff:ffff:ffff:255.255.255.255",
			"ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"},
	};
	char text[PACKET_ADDRESS_TEXT];
	for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
		struct packet_address address = address_of(good[i][0]);
		assert_string_equal(packet_address_format(&address, text), good[i][1]);
		struct packet_address again = address_of(text);
		assert_true(packet_address_equal(&address, &again));
	}
	static const char *const bad[] = {"", " ", "1.2.3", "1.2.3.4 ", " 1.2.3.4", "1.2.3.256",
		"1.2.3.04", "1.2.3.4/32", "0x1.2.3.4", "fe80::1%eth0", "1::2::3", "12345::", "a"};
	struct packet_address untouched = address_of("192.0.2.1"), result = untouched;
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		assert_false(packet_address_parse(bad[i], &result));
		assert_true(packet_address_equal(&result, &untouched));
	}
	struct packet_address none = {0};
	assert_string_equal(packet_address_format(&none, text), "-");
}

static void test_an_ipv4_address_has_zeros_behind_it(void **state)
{
	(void)state;
	struct packet_address address, made = packet_address_v4(rte_cpu_to_be_32(0xc0000201));
	memset(&address, 0xff, sizeof(address));
	assert_true(packet_address_parse("192.0.2.1", &address));
	assert_memory_equal(&address, &made, sizeof(address));
	assert_int_equal(packet_address_v4_host(&address), 0xc0000201);
	assert_int_equal(packet_address_bits(&address), 32);
	struct packet_address six = address_of("2001:db8::1"), copy = packet_address_v6(six.bytes);
	assert_true(packet_address_equal(&six, &copy));
	assert_int_equal(packet_address_bits(&six), 128);
	// 0.0.0.0 and :: have the same bytes, but are not the same.
	six = address_of("::");
	address = address_of("0.0.0.0");
	assert_false(packet_address_equal(&six, &address));
}

static void test_prefixes_are_strict(void **state)
{
	(void)state;
	static const char *const bad[] = {"10.0.0.0", "10.0.0.0/", "10.0.0.0/33", "10.0.0.0/08",
		"10.0.0.0/+8", "10.0.0.0/8 ", "10.0.0.0/ 8", "10.0.0.0/-1", "10.0.0.0/8/8",
		"10.0.0.0/255.0.0.0", "10/8", "/8", "2001:db8::/129", "2001:db8::/1280",
		"10.0.0.0/4294967304",
		"0000:0000:0000:0000:0000:0000:0000:0000:0000:0000:0000:0000/8"};
	struct packet_interface_address address;
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		if (packet_interface_address_parse(bad[i], &address))
			fail_msg("%s parses", bad[i]);
	}
	struct packet_prefix prefix;
	assert_true(packet_interface_address_parse("192.168.192.1/26", &address));
	assert_true(packet_prefix_has_host_bits(&address));
	assert_false(packet_prefix_parse("192.168.192.1/26", &prefix));
	assert_false(packet_prefix_parse("2001:db8::1/127", &prefix));
	assert_false(packet_prefix_parse("0.0.0.1/0", &prefix));
	static const char *const good[] = {
		"0.0.0.0/0", "192.168.192.0/26", "10.1.2.3/32", "::/0", "2001:db8::/33"};
	char text[PACKET_PREFIX_TEXT];
	for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
		assert_true(packet_prefix_parse(good[i], &prefix));
		assert_string_equal(packet_prefix_format(&prefix, text), good[i]);
	}
}

static void test_prefix_arithmetic_against_a_bit_by_bit_model(void **state)
{
	(void)state;
	struct packet_address all[2] = {address_of("255.255.255.255"),
		address_of("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff")};
	for (unsigned int f = 0; f < 2; f++) {
		unsigned int bits = packet_address_bits(&all[f]);
		for (unsigned int length = 0; length <= bits; length++) {
			struct packet_prefix prefix = packet_prefix_of(&all[f], (uint8_t)length);
			for (unsigned int bit = 0; bit < 128; bit++) {
				bool set = prefix.address.bytes[bit / 8] >> (7 - bit % 8) & 1;
				assert_int_equal(set, bit < length);
				if (bit >= bits)
					continue;
				struct packet_address flipped = all[f];
				flipped.bytes[bit / 8] ^= (uint8_t)(0x80 >> bit % 8);
				assert_int_equal(
					packet_prefix_contains(&prefix, &flipped), bit >= length);
			}
		}
	}
	struct packet_prefix every = packet_prefix_of(&all[0], 0);
	assert_true(packet_prefix_contains(&every, &all[0]));
	assert_false(packet_prefix_contains(&every, &all[1]));
}

static void test_kinds_of_addresses(void **state)
{
	(void)state;
	static const struct {
		const char *text;
		bool multicast, unspecified, loopback;
	} cases[] = {
		{"0.0.0.0", false, true, false},
		{"::", false, true, false},
		{"127.0.0.1", false, false, true},
		{"127.255.0.3", false, false, true},
		{"::1", false, false, true},
		{"::2", false, false, false},
		{"126.255.255.255", false, false, false},
		{"223.255.255.255", false, false, false},
		{"224.0.0.0", true, false, false},
		{"239.255.255.255", true, false, false},
		{"240.0.0.0", false, false, false},
		{"ff02::1", true, false, false},
		{"fe80::1", false, false, false},
		{"7f00::1", false, false, false},
		{"e000::1", false, false, false},
	};
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct packet_address address = address_of(cases[i].text);
		assert_int_equal(packet_address_is_multicast(&address), cases[i].multicast);
		assert_int_equal(packet_address_is_unspecified(&address), cases[i].unspecified);
		assert_int_equal(packet_address_is_loopback(&address), cases[i].loopback);
	}
	struct packet_address none = {0};
	assert_true(packet_address_is_unspecified(&none));
}

static void test_macs_parse(void **state)
{
	(void)state;
	struct rte_ether_addr mac;
	static const uint8_t expected[] = {0x02, 0xab, 0xCD, 0x00, 0xff, 0x9f};
	assert_true(packet_mac_parse("02:ab:Cd:00:fF:9f", &mac));
	assert_memory_equal(mac.addr_bytes, expected, sizeof(expected));
	static const char *const bad[] = {"", "02:ab:cd:00:ff", "02:ab:cd:00:ff:9",
		"02-ab-cd-00-ff-9f", "02:ab:cd:00:ff:9f ", "02:ab:cd:00:ff:9f:00",
		"02:ab:cd:00:fg:9f", "02:ab:cd:00:+f:9f", "2:ab:cd:00:ff:9f:0", "02ab.cd00.ff9f"};
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		assert_false(packet_mac_parse(bad[i], &mac));
}

// The RFC 1071 sum byte pair by byte pair, as the code under test does not do it.
static uint16_t reference_checksum(const uint8_t *header, unsigned int size)
{
	uint32_t sum = 0;
	for (unsigned int i = 0; i < size; i += 2)
		sum += (uint32_t)(header[i] << 8 | header[i + 1]);
	while (sum >> 16 != 0)
		sum = (sum & 0xffff) + (sum >> 16);
	return (uint16_t)~sum;
}

// An IPv4 packet with `words` words of header and `total` bytes; at an odd address, as nothing
// promises more.
static uint8_t *ipv4_build(uint8_t buffer[256], unsigned int words, unsigned int total)
{
	uint8_t *ip = buffer + 1;
	memset(buffer, 0, 256);
	ip[0] = (uint8_t)(0x40 | words);
	ip[1] = 0xb8;
	ip[2] = (uint8_t)(total >> 8);
	ip[3] = (uint8_t)total;
	ip[8] = 64;
	ip[9] = 6;
	memcpy(ip + 12, "\x0a\x00\x00\x01\xc0\xa8\xc0\x05", 8);
	for (unsigned int i = 20; i < words * 4; i++)
		ip[i] = (uint8_t)(i * 37);
	uint16_t sum = reference_checksum(ip, words * 4);
	ip[10] = (uint8_t)(sum >> 8);
	ip[11] = (uint8_t)sum;
	return ip;
}

static uint8_t *ipv6_build(uint8_t buffer[256], uint8_t protocol, unsigned int payload)
{
	uint8_t *ip = buffer + 1;
	memset(buffer, 0, 256);
	ip[0] = 0x60;
	ip[4] = (uint8_t)(payload >> 8);
	ip[5] = (uint8_t)payload;
	ip[6] = protocol;
	ip[7] = 64;
	struct packet_address source = address_of("2001:db8::1"), to = address_of("2001:db8:1::2");
	memcpy(ip + 8, source.bytes, 16);
	memcpy(ip + 24, to.bytes, 16);
	return ip;
}

static void test_ipv4_headers_are_checked(void **state)
{
	(void)state;
	uint8_t buffer[256];
	uint32_t length = 0;
	for (unsigned int words = 5; words <= 15; words++) {
		uint8_t *ip = ipv4_build(buffer, words, 100);
		assert_int_equal(packet_ip_check(ip, 255, true, &length), DROP_NONE);
		assert_int_equal(length, 100);
		assert_int_equal(packet_ip_check(ip, 100, true, &length), DROP_NONE);
		// Truncated anywhere.
		for (uint32_t size = 0; size < 100; size++)
			assert_int_equal(packet_ip_check(ip, size, true, &length), DROP_BAD_HEADER);
		// One bit of the checksummed header flipped: never right, whatever it is called.
		// (Bit 5 makes the version 6, where there is no checksum.)
		for (unsigned int bit = 0; bit < words * 32; bit++) {
			if (bit == 5)
				continue;
			ip[bit / 8] ^= (uint8_t)(1 << bit % 8);
			assert_int_not_equal(packet_ip_check(ip, 255, true, &length), DROP_NONE);
			ip[bit / 8] ^= (uint8_t)(1 << bit % 8);
		}
		ip[10] ^= 1;
		assert_int_equal(packet_ip_check(ip, 255, true, &length), DROP_BAD_CHECKSUM);
		assert_int_equal(packet_ip_check(ip, 255, false, &length), DROP_NONE);
	}
	for (unsigned int words = 0; words < 5; words++) {
		uint8_t *ip = ipv4_build(buffer, words, 100);
		assert_int_equal(packet_ip_check(ip, 255, false, &length), DROP_BAD_HEADER);
	}
	uint8_t *ip = ipv4_build(buffer, 6, 23); // header over the length
	assert_int_equal(packet_ip_check(ip, 255, true, &length), DROP_BAD_HEADER);
	ip = ipv4_build(buffer, 5, 0);
	assert_int_equal(packet_ip_check(ip, 255, true, &length), DROP_BAD_HEADER);
	ip = ipv4_build(buffer, 5, 20);
	assert_int_equal(packet_ip_check(ip, 20, true, &length), DROP_NONE);
	assert_int_equal(length, 20);
	for (unsigned int version = 0; version < 16; version++) {
		if (version == 4 || version == 6)
			continue;
		ip[0] = (uint8_t)(version << 4 | 5);
		assert_int_equal(packet_ip_check(ip, 255, false, &length), DROP_BAD_HEADER);
	}
}

static void test_impossible_addresses_are_refused(void **state)
{
	(void)state;
	static const struct {
		const char *source, *destination;
		enum drop_reason reason;
	} cases[] = {
		{"10.0.0.1", "192.168.192.5", DROP_NONE},
		{"0.0.0.0", "255.255.255.255", DROP_NONE}, // DHCP
		{"10.0.0.1", "224.0.0.5", DROP_NONE},
		{"240.0.0.1", "10.0.0.1", DROP_NONE},
		{"255.1.2.3", "10.0.0.1", DROP_NONE},
		{"255.1.2.3", "127.0.0.1", DROP_BAD_HEADER},
		{"224.0.0.5", "10.0.0.1", DROP_BAD_HEADER},
		{"239.255.255.255", "10.0.0.1", DROP_BAD_HEADER},
		{"127.0.0.1", "10.0.0.1", DROP_BAD_HEADER},
		{"255.255.255.255", "10.0.0.1", DROP_BAD_HEADER},
		{"10.0.0.1", "127.0.0.1", DROP_BAD_HEADER},
		{"2001:db8::1", "2001:db8::2", DROP_NONE},
		{"::", "ff02::1:ff00:1", DROP_NONE}, // duplicate address detection
		{"fe80::1", "ff02::5", DROP_NONE},
		{"ff02::5", "2001:db8::2", DROP_BAD_HEADER},
		{"::1", "2001:db8::2", DROP_BAD_HEADER},
		{"2001:db8::1", "::1", DROP_BAD_HEADER},
	};
	uint8_t buffer[256];
	uint32_t length;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct packet_address source = address_of(cases[i].source);
		struct packet_address destination = address_of(cases[i].destination);
		bool four = source.family == 4;
		uint8_t *ip = four ? ipv4_build(buffer, 5, 40) : ipv6_build(buffer, 6, 20);
		size_t size = four ? 4 : 16;
		memcpy(ip + (four ? 12 : 8), source.bytes, size);
		memcpy(ip + (four ? 12 : 8) + size, destination.bytes, size);
		if (packet_ip_check(ip, 200, false, &length) != cases[i].reason)
			fail_msg("%s to %s", cases[i].source, cases[i].destination);
	}
}

// Plain is what packet_ip_check passes, between addresses that a host may have; nothing more and
// nothing less, whatever is wrong.
static void test_plain_ipv4_headers_are_those_that_pass(void **state)
{
	(void)state;
	uint8_t buffer[256];
	unsigned int plains = 0;
	srand(1);
	for (unsigned int round = 0; round < 200000; round++) {
		uint8_t *ip = ipv4_build(buffer, 5, (unsigned int)rand() % 64);
		uint32_t size = 20 + (uint32_t)rand() % 64, length = 0, plain_length = 0;
		bool verify = rand() % 2 == 0;
		ip[12] = (uint8_t)rand();
		ip[16] = (uint8_t)rand();
		if (rand() % 4 != 0) { // else wrong, mostly
			ip[10] = ip[11] = 0;
			uint16_t sum = reference_checksum(ip, 20);
			ip[10] = (uint8_t)(sum >> 8);
			ip[11] = (uint8_t)sum;
		}
		bool passes = packet_ip_check(ip, size, verify, &length) == DROP_NONE;
		bool hosts = ip[12] % 127 != 0 && ip[12] < 224 && ip[16] % 127 != 0 && ip[16] < 224;
		bool plain = packet_ipv4_is_plain(ip, size, 20, verify, &plain_length);
		assert_int_equal(plain, passes && hosts);
		if (plain)
			assert_int_equal(plain_length, length);
		plains += plain;
	}
	assert_in_range(plains, 20000, 180000);
}

// Of all values that the field can have, exactly those that packet_ip_check passes.
static void test_every_ipv4_checksum_is_judged_the_same(void **state)
{
	(void)state;
	uint8_t buffer[256];
	srand(2);
	for (unsigned int round = 0; round < 20; round++) {
		uint8_t *ip = ipv4_build(buffer, 5, 40);
		for (unsigned int i = 1; i < 20; i++)
			ip[i] = round == 0 ? 0 : round == 1 ? 0xff : (uint8_t)rand();
		for (unsigned int value = 0; value <= UINT16_MAX; value++) {
			ip[10] = (uint8_t)(value >> 8);
			ip[11] = (uint8_t)value;
			bool right = packet_checksum_fold(packet_ipv4_sum(ip, 20)) == 0;
			assert_int_equal(packet_ipv4_sum_is_right(ip), right);
		}
	}
}

static void test_ipv6_headers_are_checked(void **state)
{
	(void)state;
	uint8_t buffer[256];
	uint32_t length = 0;
	uint8_t *ip = ipv6_build(buffer, 6, 60);
	assert_int_equal(packet_ip_check(ip, 255, true, &length), DROP_NONE);
	assert_int_equal(length, 100);
	for (uint32_t size = 0; size < 100; size++)
		assert_int_equal(packet_ip_check(ip, size, true, &length), DROP_BAD_HEADER);
	ip = ipv6_build(buffer, 59, 0);
	assert_int_equal(packet_ip_check(ip, 40, true, &length), DROP_NONE);
	assert_int_equal(length, 40);
}

static void test_ttl_and_ecn_keep_the_checksum_right(void **state)
{
	(void)state;
	uint8_t buffer[256];
	uint32_t length;
	srand(1);
	for (unsigned int i = 0; i < 100000; i++) {
		uint8_t *ip = ipv4_build(buffer, 5, 100);
		ip[1] = (uint8_t)rand();
		ip[4] = (uint8_t)rand();
		ip[5] = (uint8_t)rand();
		ip[8] = (uint8_t)rand();
		ip[10] = ip[11] = 0;
		uint16_t sum = reference_checksum(ip, 20);
		ip[10] = (uint8_t)(sum >> 8);
		ip[11] = (uint8_t)sum;
		uint8_t ttl = ip[8], dscp = ip[1] & PACKET_IP_DSCP_MASK, ecn = rand() & 3;
		assert_int_equal(packet_ip_traffic_class(ip), ip[1]);
		packet_ip_set_ecn(ip, ecn);
		assert_int_equal(ip[1], dscp | ecn);
		assert_int_equal(packet_ip_check(ip, 100, true, &length), DROP_NONE);
		assert_int_equal(packet_ip_decrement_ttl(ip), ttl > 1);
		assert_int_equal(ip[8], ttl > 1 ? ttl - 1 : ttl);
		assert_int_equal(packet_ip_check(ip, 100, true, &length), DROP_NONE);
	}
	uint8_t *ip = ipv6_build(buffer, 6, 60);
	ip[0] = 0x6a;
	ip[1] = 0xf7; // traffic class 0xaf, flow label begins with 7
	assert_int_equal(packet_ip_traffic_class(ip), 0xaf);
	packet_ip_set_ecn(ip, 1);
	assert_int_equal(packet_ip_traffic_class(ip), 0xad);
	assert_int_equal(ip[1], 0xd7);
	ip[7] = 2;
	assert_true(packet_ip_decrement_ttl(ip));
	assert_int_equal(ip[7], 1);
	assert_false(packet_ip_decrement_ttl(ip));
	assert_int_equal(ip[7], 1);
}

static void test_ipv4_fragments_are_seen(void **state)
{
	(void)state;
	static const struct {
		uint8_t high, low;
		bool is_fragment, is_first;
	} cases[] = {
		{0x00, 0x00, false, true},
		{0x40, 0x00, false, true}, // DF
		{0x80, 0x00, false, true}, // the reserved bit
		{0x20, 0x00, true, true},
		{0x20, 0x01, true, false},
		{0x00, 0x01, true, false},
		{0x1f, 0xff, true, false},
	};
	uint8_t buffer[256];
	struct packet_ip_view view;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		uint8_t *ip = ipv4_build(buffer, 7, 100);
		ip[6] = cases[i].high;
		ip[7] = cases[i].low;
		assert_true(packet_ip_view(ip, 100, &view));
		assert_int_equal(view.header, 28);
		assert_int_equal(view.protocol, 6);
		assert_int_equal(view.is_fragment, cases[i].is_fragment);
		assert_int_equal(view.is_first, cases[i].is_first);
	}
}

static void test_ipv6_extension_headers_are_walked(void **state)
{
	(void)state;
	uint8_t buffer[256];
	struct packet_ip_view view;
	// Hop-by-hop of 16 bytes, routing of 8, destination options of 24, then ESP.
	uint8_t *ip = ipv6_build(buffer, 0, 100);
	memcpy(ip + 40, "\x2b\x01", 2);
	memcpy(ip + 56, "\x3c\x00", 2);
	memcpy(ip + 64, "\x32\x02", 2);
	assert_true(packet_ip_view(ip, 140, &view));
	assert_int_equal(view.header, 88);
	assert_int_equal(view.protocol, 50);
	assert_false(view.is_fragment);
	assert_true(view.is_first);
	for (uint32_t length = 40; length < 88; length++)
		assert_false(packet_ip_view(ip, length, &view));
	assert_true(packet_ip_view(ip, 88, &view));
	ip = ipv6_build(buffer, 0, 100);
	ip[41] = 255; // hop-by-hop over the end
	assert_false(packet_ip_view(ip, 140, &view));
	// AH is an upper layer to us.
	ip = ipv6_build(buffer, 51, 100);
	assert_true(packet_ip_view(ip, 140, &view));
	assert_int_equal(view.header, 40);
	assert_int_equal(view.protocol, 51);
}

static void test_ipv6_fragments_are_seen(void **state)
{
	(void)state;
	static const struct {
		uint8_t high, low;
		bool is_fragment, is_first;
	} cases[] = {
		{0x00, 0x00, false, true}, // atomic
		{0x00, 0x06, false, true}, // its reserved bits
		{0x00, 0x01, true, true},
		{0x00, 0x09, true, false},
		{0x00, 0x08, true, false},
		{0xff, 0xf8, true, false},
	};
	uint8_t buffer[256];
	struct packet_ip_view view;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		uint8_t *ip = ipv6_build(buffer, 44, 100);
		ip[40] = 60; // destination options follow, in the first fragment only
		ip[42] = cases[i].high;
		ip[43] = cases[i].low;
		ip[48] = 17;
		assert_true(packet_ip_view(ip, 140, &view));
		assert_int_equal(view.is_fragment, cases[i].is_fragment);
		assert_int_equal(view.is_first, cases[i].is_first);
		assert_int_equal(view.protocol, cases[i].is_first ? 17 : 60);
		assert_int_equal(view.header, cases[i].is_first ? 56 : 48);
	}
}

static void test_too_many_extension_headers_are_refused(void **state)
{
	(void)state;
	uint8_t buffer[256];
	struct packet_ip_view view;
	for (unsigned int count = 1; count <= PACKET_IPV6_EXTENSIONS + 1; count++) {
		uint8_t *ip = ipv6_build(buffer, 60, 120);
		for (unsigned int i = 0; i < count; i++)
			ip[40 + 8 * i] = i + 1 < count ? 60 : 17;
		assert_int_equal(packet_ip_view(ip, 160, &view), count <= PACKET_IPV6_EXTENSIONS);
	}
}

// Two of the protocol's packets with these ports: whether their flows differ.
static bool ports_tell(uint8_t *ip, unsigned int protocol_at, uint8_t protocol, unsigned int ports)
{
	ip[protocol_at] = protocol;
	uint32_t before = packet_flow_hash(ip, 100);
	ip[ports + 3] ^= 1;
	uint32_t destination = packet_flow_hash(ip, 100);
	ip[ports] ^= 1;
	uint32_t both = packet_flow_hash(ip, 100);
	ip[ports] ^= 1;
	ip[ports + 3] ^= 1;
	assert_int_equal(before != destination, before != both);
	assert_int_equal(packet_flow_hash(ip, 100), before);
	return before != both && destination != both;
}

static void check_flow4(uint8_t *ip, unsigned int ports)
{
	assert_true(ports_tell(ip, 9, IPPROTO_TCP, ports));
	assert_true(ports_tell(ip, 9, IPPROTO_UDP, ports));
	assert_false(ports_tell(ip, 9, IPPROTO_ICMP, ports));
	assert_false(ports_tell(ip, 9, IPPROTO_ESP, ports));
	assert_false(ports_tell(ip, 9, IPPROTO_UDP, ports + 4));
	uint32_t whole = packet_flow_hash(ip, 100);
	for (unsigned int i = 12; i < 20; i++) {
		ip[i] ^= 0x10;
		assert_int_not_equal(packet_flow_hash(ip, 100), whole);
		ip[i] ^= 0x10;
	}
	ip[1] ^= 0xff; // what else is in the header
	ip[5] ^= 1;
	ip[6] ^= 0xc0;
	ip[8]--;
	assert_int_equal(packet_flow_hash(ip, 100), whole);
	uint8_t buffer[256];
	uint8_t *with_options = ipv4_build(buffer, 7, 100);
	with_options[9] = ip[9];
	memcpy(with_options + 28, ip + ports, 4);
	assert_int_equal(packet_flow_hash(with_options, 100), whole);
	// The first fragment has ports, but goes with the others.
	ip[6] = 0x20;
	assert_false(ports_tell(ip, 9, IPPROTO_UDP, ports));
	uint32_t first = packet_flow_hash(ip, 100);
	ip[6] = 0;
	ip[7] = 9;
	memset(ip + ports, 0xa5, 100 - ports);
	assert_int_equal(packet_flow_hash(ip, 100), first);
}

static void test_a_flow_is_addresses_and_ports(void **state)
{
	(void)state;
	uint8_t buffer[256];
	uint32_t whole;
	for (unsigned int words = 5; words <= 15; words += 5)
		check_flow4(ipv4_build(buffer, words, 100), words * 4);
	// No room for ports.
	uint8_t *ip = ipv4_build(buffer, 5, 23);
	ip[9] = IPPROTO_UDP;
	whole = packet_flow_hash(ip, 23);
	ip[20] = 1;
	assert_int_equal(packet_flow_hash(ip, 23), whole);
	ip = ipv6_build(buffer, 60, 100);
	assert_true(ports_tell(ip, 40, IPPROTO_UDP, 48));
	assert_false(ports_tell(ip, 40, IPPROTO_ICMPV6, 48));
	for (unsigned int i = 8; i < 40; i++) {
		whole = packet_flow_hash(ip, 140);
		ip[i] ^= 0x10;
		assert_int_not_equal(packet_flow_hash(ip, 140), whole);
	}
}

// Of 4,096 flows, that differ in one field as a client's connections or a network's hosts do, each
// sixteenth of the hashes gets its part, give or take four times the deviation of chance.
static void test_similar_flows_spread(void **state)
{
	(void)state;
	static const unsigned int fields[] = {14, 18, 20, 22}; // hosts, ports
	for (unsigned int shift = 0; shift <= 28; shift += 7) {
		for (unsigned int field = 0; field < 4; field++) {
			uint8_t buffer[256];
			unsigned int counts[16] = {0};
			uint8_t *ip = ipv4_build(buffer, 5, 100);
			for (unsigned int flow = 0; flow < 4096; flow++) {
				ip[fields[field]] = (uint8_t)(flow >> 8);
				ip[fields[field] + 1] = (uint8_t)flow;
				counts[packet_flow_hash(ip, 100) >> shift & 15]++;
			}
			for (unsigned int i = 0; i < 16; i++)
				assert_in_range(counts[i], 256 - 62, 256 + 62);
		}
	}
}

// The ICMP message behind 20 bytes of IPv4, as RFC 792 has it, and its checksum by the reference.
static uint8_t *echo_build(uint8_t buffer[256], uint8_t type, unsigned int payload)
{
	uint8_t *ip = ipv4_build(buffer, 5, 28 + payload);
	ip[9] = 1;
	memcpy(ip + 20, "\x00\x00\x00\x00\x12\x34\xab\xcd", 8);
	ip[20] = type;
	for (unsigned int i = 0; i < payload; i++)
		ip[28 + i] = (uint8_t)(i * 29 + 1);
	uint16_t sum = reference_checksum(ip + 20, 8 + (payload + 1) / 2 * 2);
	ip[22] = (uint8_t)(sum >> 8);
	ip[23] = (uint8_t)sum;
	ip[10] = ip[11] = 0;
	sum = reference_checksum(ip, 20);
	ip[10] = (uint8_t)(sum >> 8);
	ip[11] = (uint8_t)sum;
	return ip;
}

static void test_echo_messages_are_read(void **state)
{
	(void)state;
	uint8_t buffer[256];
	struct packet_echo echo;
	for (unsigned int payload = 0; payload < 50; payload++) {
		uint8_t *ip = echo_build(buffer, payload % 2 ? 8 : 0, payload);
		assert_true(packet_echo_read(ip, 28 + payload, &echo));
		assert_int_equal(echo.is_reply, payload % 2 == 0);
		assert_int_equal(echo.identifier, 0x1234);
		assert_int_equal(echo.sequence, 0xabcd);
		assert_int_equal(echo.size, payload);
		assert_ptr_equal(echo.payload, ip + 28);
		// Any bit that differs in the message makes the checksum wrong.
		for (unsigned int i = 20; i < 28 + payload; i++) {
			ip[i] ^= 0x10;
			assert_false(packet_echo_read(ip, 28 + payload, &echo));
			ip[i] ^= 0x10;
		}
	}
}

static void test_what_is_no_plain_echo_is_refused(void **state)
{
	(void)state;
	uint8_t buffer[256];
	struct packet_echo echo;
	uint8_t *ip = echo_build(buffer, 8, 20);
	assert_true(packet_echo_read(ip, 48, &echo));
	ip[6] = 0x40; // DF is no fragment
	assert_true(packet_echo_read(ip, 48, &echo));
	ip[6] = 0x20;
	assert_false(packet_echo_read(ip, 48, &echo));
	ip[6] = 0x00;
	ip[7] = 0x01;
	assert_false(packet_echo_read(ip, 48, &echo));
	ip = echo_build(buffer, 8, 20);
	ip[9] = 17;
	assert_false(packet_echo_read(ip, 48, &echo));
	ip = echo_build(buffer, 13, 20); // timestamp
	assert_false(packet_echo_read(ip, 48, &echo));
	ip = echo_build(buffer, 8, 0);
	assert_true(packet_echo_read(ip, 28, &echo));
	assert_false(packet_echo_read(ip, 27, &echo));
	ip[0] = 0x46;
	assert_false(packet_echo_read(ip, 28, &echo));
	ip = echo_build(buffer, 8, 20);
	ip[21] = 1; // the code, with the checksum that fits
	ip[23] = (uint8_t)(ip[23] - 1);
	assert_false(packet_echo_read(ip, 48, &echo));
}

static void test_an_echo_message_is_written_read_and_answered(void **state)
{
	(void)state;
	static const struct {
		const char *here, *there;
		unsigned int header;
	} cases[] = {{"169.254.244.2", "169.254.244.1", 20}, {"fd00::2", "fd00::1", 40}};
	static const uint8_t payload[] = "what was sent";
	for (unsigned int i = 0; i < 2; i++) {
		uint8_t buffer[256] = {0}, *ip = buffer + 1;
		struct packet_address here = address_of(cases[i].here);
		struct packet_address there = address_of(cases[i].there);
		const struct packet_echo sent = {.identifier = 0xfedc,
			.sequence = 0x0123,
			.payload = payload,
			.size = sizeof(payload)};
		struct packet_echo echo;
		uint32_t length = packet_echo_write(ip, &here, &there, &sent, 0xc0), checked;
		assert_int_equal(length, cases[i].header + 8 + sizeof(payload));
		assert_int_equal(packet_ip_check(ip, 200, true, &checked), DROP_NONE);
		assert_int_equal(checked, length);
		assert_int_equal(packet_ip_traffic_class(ip), 0xc0);
		assert_true(packet_echo_read(ip, length, &echo));
		assert_false(echo.is_reply);
		packet_echo_answer(ip);
		assert_int_equal(packet_ip_check(ip, 200, true, &checked), DROP_NONE);
		assert_true(packet_echo_read(ip, length, &echo));
		assert_true(echo.is_reply);
		assert_int_equal(echo.identifier, 0xfedc);
		assert_int_equal(echo.sequence, 0x0123);
		assert_memory_equal(echo.payload, payload, sizeof(payload));
		unsigned int at = i == 0 ? 12 : 8, size = i == 0 ? 4 : 16;
		assert_memory_equal(ip + at, there.bytes, size);
		assert_memory_equal(ip + at + size, here.bytes, size);
	}
}

// The sum of nothing but zeros is the one that no update (RFC 1624) arrives at.
static void test_the_answer_to_zeros_has_the_right_checksum(void **state)
{
	(void)state;
	static const uint8_t zeros[32];
	struct packet_address here = address_of("10.0.0.1"), there = address_of("10.0.0.2");
	for (uint32_t size = 0; size <= sizeof(zeros); size++) {
		uint8_t buffer[256] = {0};
		struct packet_echo echo = {.payload = zeros, .size = size};
		uint32_t length = packet_echo_write(buffer, &here, &there, &echo, 0);
		assert_true(packet_echo_read(buffer, length, &echo));
		packet_echo_answer(buffer);
		assert_true(packet_echo_read(buffer, length, &echo));
		assert_true(echo.is_reply);
		assert_int_equal(buffer[22] << 8 | buffer[23], 0xffff);
	}
	// 0 is right where a sum of other things is all ones.
	for (unsigned int identifier = 0; identifier <= UINT16_MAX; identifier++) {
		uint8_t buffer[256] = {0};
		struct packet_echo echo = {
			.identifier = (uint16_t)identifier, .sequence = 0x8001, .payload = zeros};
		uint32_t length = packet_echo_write(buffer, &here, &there, &echo, 0);
		packet_echo_answer(buffer);
		assert_true(packet_echo_read(buffer, length, &echo));
		uint16_t sum = reference_checksum(buffer + 20, 8); // its own included
		assert_int_equal(sum, 0);
		assert_int_equal((buffer[22] << 8 | buffer[23]) == 0, identifier == 0x7ffe);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_addresses_parse_and_format),
		cmocka_unit_test(test_an_ipv4_address_has_zeros_behind_it),
		cmocka_unit_test(test_prefixes_are_strict),
		cmocka_unit_test(test_prefix_arithmetic_against_a_bit_by_bit_model),
		cmocka_unit_test(test_kinds_of_addresses),
		cmocka_unit_test(test_macs_parse),
		cmocka_unit_test(test_ipv4_headers_are_checked),
		cmocka_unit_test(test_impossible_addresses_are_refused),
		cmocka_unit_test(test_plain_ipv4_headers_are_those_that_pass),
		cmocka_unit_test(test_every_ipv4_checksum_is_judged_the_same),
		cmocka_unit_test(test_ipv6_headers_are_checked),
		cmocka_unit_test(test_ttl_and_ecn_keep_the_checksum_right),
		cmocka_unit_test(test_ipv4_fragments_are_seen),
		cmocka_unit_test(test_ipv6_extension_headers_are_walked),
		cmocka_unit_test(test_ipv6_fragments_are_seen),
		cmocka_unit_test(test_too_many_extension_headers_are_refused),
		cmocka_unit_test(test_a_flow_is_addresses_and_ports),
		cmocka_unit_test(test_similar_flows_spread),
		cmocka_unit_test(test_echo_messages_are_read),
		cmocka_unit_test(test_what_is_no_plain_echo_is_refused),
		cmocka_unit_test(test_an_echo_message_is_written_read_and_answered),
		cmocka_unit_test(test_the_answer_to_zeros_has_the_right_checksum),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
