// SPDX-License-Identifier: BSD-3-Clause
// Copyright (c) 2026 the espgw authors

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <rte_tcp.h>

#include "packet/size.h"

#define ROOM 4096

static uint8_t buffer[ROOM + 64];
static uint8_t *const packet = buffer + 64; // messages are built before it

static struct packet_address address_of(const char *text)
{
	struct packet_address address;
	if (!packet_address_parse(text, &address))
		fail_msg("%s does not parse", text);
	return address;
}

// An IPv4 packet with these options (a multiple of 4 bytes) and a payload that tells its place.
static uint32_t make4(uint32_t payload, uint8_t protocol, uint16_t fragment, const uint8_t *options,
	uint32_t size)
{
	uint32_t header = 20 + size;
	struct rte_ipv4_hdr ip = {
		.version_ihl = (uint8_t)(0x40 | header / 4),
		.total_length = rte_cpu_to_be_16((uint16_t)(header + payload)),
		.packet_id = rte_cpu_to_be_16(0x1234),
		.fragment_offset = rte_cpu_to_be_16(fragment),
		.time_to_live = 9,
		.next_proto_id = protocol,
		.src_addr = rte_cpu_to_be_32(0x0a010002),
		.dst_addr = rte_cpu_to_be_32(0xc0a8c00a),
	};
	memcpy(packet, &ip, sizeof(ip));
	if (size != 0)
		memcpy(packet + sizeof(ip), options, size);
	uint16_t sum = packet_checksum_fold(packet_ipv4_sum(packet, header));
	memcpy(packet + offsetof(struct rte_ipv4_hdr, hdr_checksum), &sum, sizeof(sum));
	for (uint32_t i = 0; i < payload; i++)
		packet[header + i] = (uint8_t)(i * 7 + i / 256);
	return header + payload;
}

static uint32_t make6(uint32_t payload, uint8_t protocol)
{
	struct rte_ipv6_hdr ip = {
		.vtc_flow = rte_cpu_to_be_32(UINT32_C(6) << 28),
		.payload_len = rte_cpu_to_be_16((uint16_t)payload),
		.proto = protocol,
		.hop_limits = 9,
	};
	struct packet_address source = address_of("2001:db8:1::2"),
			      destination = address_of("2001:db8:2::2");
	memcpy(ip.src_addr, source.bytes, 16);
	memcpy(ip.dst_addr, destination.bytes, 16);
	memcpy(packet, &ip, sizeof(ip));
	for (uint32_t i = 0; i < payload; i++)
		packet[sizeof(ip) + i] = (uint8_t)(i * 7 + i / 256);
	return sizeof(ip) + payload;
}

// ---- Fragments ----

// Splits the packet, checks each fragment, and puts the payload together by their offsets alone.
// Returns how many there are.
static unsigned int split_and_join(uint32_t length, uint32_t mtu, uint16_t base, bool more_follow)
{
	struct packet_split split;
	uint8_t fragment[ROOM], joined[ROOM];
	unsigned int count = 0;
	uint32_t size, header = (packet[0] & 0x0fu) * 4, end = 0, ignored;
	assert_true(packet_split_begin(&split, packet, length, mtu, 0));
	while ((size = packet_split_next(&split, fragment)) != 0) {
		const struct rte_ipv4_hdr *ip = (const struct rte_ipv4_hdr *)fragment;
		uint16_t field = rte_be_to_cpu_16(ip->fragment_offset);
		uint32_t its_header = (fragment[0] & 0x0fu) * 4;
		assert_int_equal(packet_ip_check(fragment, size, true, &ignored), DROP_NONE);
		assert_int_equal(ignored, size);
		assert_true(size <= mtu);
		assert_int_equal(ip->packet_id, rte_cpu_to_be_16(0x1234));
		assert_int_equal(field & RTE_IPV4_HDR_DF_FLAG, 0);
		uint32_t offset = (uint32_t)(field & RTE_IPV4_HDR_OFFSET_MASK) - base;
		assert_int_equal(offset * 8, end);
		memcpy(joined + end, fragment + its_header, size - its_header);
		end += size - its_header;
		bool last = end == length - header;
		assert_int_equal((field & RTE_IPV4_HDR_MF_FLAG) != 0, !last || more_follow);
		// The most that fits, in units of 8 bytes.
		assert_true(last || size + 8 > mtu);
		count++;
	}
	assert_int_equal(end, length - header);
	assert_memory_equal(joined, packet + header, end);
	return count;
}

static void test_fragments_join_to_the_packet(void **state)
{
	(void)state;
	for (uint32_t mtu = 68; mtu < 1500; mtu += mtu < 100 ? 1 : 97) {
		uint32_t room = (mtu - 20) / 8 * 8;
		for (uint32_t payload = room - 9; payload < 3 * room && payload < 3000;
			payload += 5) {
			uint32_t length = make4(payload, 17, 0, NULL, 0);
			assert_int_equal(
				split_and_join(length, mtu, 0, false), (payload + room - 1) / room);
		}
	}
}

static void test_fragments_are_split_further(void **state)
{
	(void)state;
	// In the middle, and the last one; and a packet whose DF the caller chose to ignore.
	uint32_t length = make4(1480, 17, 100 | RTE_IPV4_HDR_MF_FLAG, NULL, 0);
	assert_int_equal(split_and_join(length, 800, 100, true), 2);
	length = make4(1477, 17, 100, NULL, 0);
	assert_int_equal(split_and_join(length, 100, 100, false), 19);
	length = make4(1477, 17, RTE_IPV4_HDR_DF_FLAG, NULL, 0);
	assert_int_equal(split_and_join(length, 1000, 0, false), 2);
	// Behind the longest packet that there can be.
	struct packet_split split;
	length = make4(1477, 17, 8191 | RTE_IPV4_HDR_MF_FLAG, NULL, 0);
	assert_false(packet_split_begin(&split, packet, length, 1000, 0));
}

static void test_only_copied_options_are_in_later_fragments(void **state)
{
	(void)state;
	// NOP; record route, 7 bytes; router alert (copied), 4 bytes; stream (copied), 4; end.
	static const uint8_t options[] = {
		1, 7, 7, 4, 0, 0, 0, 0, 0x94, 4, 0, 0, 0x88, 4, 9, 9, 0, 0x94, 4, 0};
	static const uint8_t later[] = {0x94, 4, 0, 0, 0x88, 4, 9, 9};
	uint8_t fragment[ROOM];
	struct packet_split split;
	uint32_t length = make4(1000, 17, 0, options, sizeof(options));
	assert_true(packet_split_begin(&split, packet, length, 400, 0));
	assert_int_equal(packet_split_next(&split, fragment), 40 + 360);
	assert_memory_equal(fragment + 20, options, sizeof(options));
	for (unsigned int i = 0; i < 2; i++) {
		uint32_t size = packet_split_next(&split, fragment);
		assert_int_equal(size, 28 + (i == 0 ? 368 : 272));
		assert_memory_equal(fragment + 20, later, sizeof(later));
	}
	assert_int_equal(packet_split_next(&split, fragment), 0);
	assert_int_equal(split_and_join(length, 400, 0, false), 3);
	assert_int_equal(split_and_join(length, 48, 0, false), 1 + 62);
	// No room for the header and 8 bytes; lengths that can't be.
	assert_false(packet_split_begin(&split, packet, length, 47, 0));
	static const uint8_t bad[][4] = {
		{0x94, 0}, {0x94, 1}, {0x94, 5}, {7, 255}, {1, 1, 1, 7}, {1, 1, 7, 3}};
	for (size_t i = 0; i < RTE_DIM(bad); i++) {
		length = make4(1000, 17, 0, bad[i], 4);
		assert_false(packet_split_begin(&split, packet, length, 400, 0));
	}
}

static void test_identification_is_added_only_where_there_is_none(void **state)
{
	(void)state;
	struct packet_split split;
	uint8_t fragment[ROOM];
	static const struct {
		uint16_t flags, own, expected;
	} cases[] = {{RTE_IPV4_HDR_DF_FLAG, 0, 0xabcd}, {RTE_IPV4_HDR_DF_FLAG, 77, 77}, {0, 0, 0},
		{0, 77, 77}};
	for (size_t i = 0; i < RTE_DIM(cases); i++) {
		uint32_t length = make4(100, 17, cases[i].flags, NULL, 0);
		uint16_t own = rte_cpu_to_be_16(cases[i].own);
		memcpy(packet + offsetof(struct rte_ipv4_hdr, packet_id), &own, sizeof(own));
		assert_true(packet_split_begin(&split, packet, length, 68, 0xabcd));
		while (packet_split_next(&split, fragment) != 0)
			assert_int_equal(((struct rte_ipv4_hdr *)fragment)->packet_id,
				rte_cpu_to_be_16(cases[i].expected));
	}
}

// ---- ICMP ----

// Ones' complement sum of big-endian words, the plain way.
static uint32_t sum_of(const uint8_t *data, uint32_t size)
{
	uint32_t sum = 0;
	for (uint32_t i = 0; i < size; i++)
		sum += i % 2 == 0 ? (uint32_t)data[i] << 8 : data[i];
	while (sum >> 16 != 0)
		sum = (sum & 0xffff) + (sum >> 16);
	return sum;
}

static void test_icmp_errors_quote_what_fits(void **state)
{
	(void)state;
	struct packet_address own = address_of("10.1.0.1"), own6 = address_of("2001:db8:1::1");
	static const uint8_t expected[][2] = {{3, 0}, {11, 0}, {3, 4}};
	static const uint8_t expected6[][2] = {{1, 0}, {3, 0}, {2, 0}};
	uint8_t before[ROOM];
	uint32_t ignored;
	for (uint32_t payload = 0; payload < 1600; payload += payload < 8 ? 1 : 53) {
		for (unsigned int error = 0; error < 3; error++) {
			uint32_t length = make4(payload, 17, RTE_IPV4_HDR_DF_FLAG, NULL, 0);
			memcpy(before, packet, length);
			uint32_t size = packet_icmp_build(packet, length, error, 1234, &own, 99);
			const uint8_t *message = packet - PACKET_ICMP_V4_BEFORE;
			const struct rte_ipv4_hdr *ip = (const struct rte_ipv4_hdr *)message;
			assert_int_equal(size, RTE_MIN(length + 28, 576u));
			assert_int_equal(packet_ip_check(message, size, true, &ignored), 0);
			assert_memory_equal(&ip->src_addr, own.bytes, 4);
			assert_memory_equal(&ip->dst_addr, before + 12, 4);
			assert_int_equal(sum_of(message + 20, size - 20), 0xffff);
			assert_memory_equal(message + 20, expected[error], 2);
			assert_int_equal(message[26] << 8 | message[27], error == 2 ? 1234 : 0);
			assert_memory_equal(message + 28, before, size - 28);

			length = make6(payload, 17);
			memcpy(before, packet, length);
			size = packet_icmp_build(packet, length, error, 70000, &own6, 99);
			message = packet - PACKET_ICMP_V6_BEFORE;
			assert_int_equal(size, RTE_MIN(length + 48, 1280u));
			assert_int_equal(packet_ip_check(message, size, true, &ignored), 0);
			assert_memory_equal(message + 8, own6.bytes, 16);
			assert_memory_equal(message + 24, before + 8, 16);
			uint32_t sum = sum_of(message + 8, size - 8) + (size - 40) + 58;
			assert_int_equal((sum & 0xffff) + (sum >> 16), 0xffff);
			assert_memory_equal(message + 40, expected6[error], 2);
			uint32_t mtu;
			memcpy(&mtu, message + 44, 4);
			assert_int_equal(rte_be_to_cpu_32(mtu), error == 2 ? 70000 : 0);
			assert_memory_equal(message + 48, before, size - 48);
		}
	}
}

static void test_about_which_packets_icmp_errors_are(void **state)
{
	(void)state;
	for (unsigned int type = 0; type < 256; type++) {
		uint32_t length = make4(8, 1, 0, NULL, 0);
		packet[20] = (uint8_t)type;
		bool is_error = type == 3 || type == 4 || type == 5 || type == 11 || type == 12;
		assert_int_equal(packet_icmp_may_answer(packet, length), !is_error);
		length = make6(8, 58);
		packet[40] = (uint8_t)type;
		assert_int_equal(
			packet_icmp_may_answer(packet, length), type >= 128 && type != 137);
	}
	assert_false(packet_icmp_may_answer(packet, make4(0, 1, 0, NULL, 0)));
	assert_false(packet_icmp_may_answer(packet, make6(0, 58)));
	assert_true(packet_icmp_may_answer(packet, make4(0, 17, 0, NULL, 0)));
	assert_false(packet_icmp_may_answer(packet, make4(8, 17, 1, NULL, 0)));
	assert_true(packet_icmp_may_answer(packet, make4(8, 17, RTE_IPV4_HDR_MF_FLAG, NULL, 0)));
	static const struct {
		uint32_t address;
		bool is_host;
	} addresses[] = {{0, false}, {0x00ffffff, false}, {0x01000000, true}, {0x7f000001, false},
		{0xdfffffff, true}, {0xe0000001, false}, {0xf0000001, false}, {0xffffffff, false}};
	for (size_t i = 0; i < RTE_DIM(addresses); i++) {
		uint32_t address = rte_cpu_to_be_32(addresses[i].address);
		for (unsigned int at = 12; at <= 16; at += 4) { // source, destination
			uint32_t length = make4(8, 17, 0, NULL, 0);
			memcpy(packet + at, &address, 4);
			assert_int_equal(
				packet_icmp_may_answer(packet, length), addresses[i].is_host);
		}
	}
	for (unsigned int at = 8; at <= 24; at += 16) {
		uint32_t length = make6(8, 17);
		packet[at] = 0xff;
		assert_false(packet_icmp_may_answer(packet, length));
		memset(packet + at, 0, 16);
		assert_false(packet_icmp_may_answer(packet, length));
	}
	for (unsigned int second = 0; second < 256; second++) { // fe80::/10
		uint32_t length = make6(8, 17);
		packet[8] = 0xfe;
		packet[9] = (uint8_t)second;
		assert_int_equal(
			packet_icmp_may_answer(packet, length), second < 0x80 || second > 0xbf);
	}
}

// ---- MSS ----

// A TCP segment with these options, its checksum right, in IPv4 or IPv6.
static uint32_t make_tcp(bool six, uint8_t flags, const uint8_t *options, uint32_t size)
{
	uint32_t length = six ? make6(20 + size + 3, 6) : make4(20 + size + 3, 6, 0, NULL, 0);
	uint8_t *at = packet + (six ? 40 : 20);
	struct rte_tcp_hdr tcp = {.sent_seq = 0x11223344,
		.data_off = (uint8_t)((20 + size) / 4 << 4),
		.tcp_flags = flags,
		.rx_win = 0xffff};
	memcpy(at, &tcp, sizeof(tcp));
	memcpy(at + sizeof(tcp), options, size);
	uint16_t sum = six ? rte_ipv6_udptcp_cksum((const struct rte_ipv6_hdr *)packet, at)
			   : rte_ipv4_udptcp_cksum((const struct rte_ipv4_hdr *)packet, at);
	memcpy(at + offsetof(struct rte_tcp_hdr, cksum), &sum, sizeof(sum));
	return length;
}

static bool sum_is_right(bool six)
{
	const uint8_t *at = packet + (six ? 40 : 20);
	return six ? rte_ipv6_udptcp_cksum_verify((const struct rte_ipv6_hdr *)packet, at) == 0
		   : rte_ipv4_udptcp_cksum_verify((const struct rte_ipv4_hdr *)packet, at) == 0;
}

static void test_mss_is_lowered_wherever_it_stands(void **state)
{
	(void)state;
	static const struct {
		uint8_t options[12];
		uint32_t at; // of the value, 0: nothing is to be found
	} cases[] = {
		{{2, 4, 5, 180, 1, 1, 4, 2, 3, 3, 7, 0}, 2}, {{1, 2, 4, 5, 180}, 3},
		{{3, 3, 7, 2, 4, 5, 180}, 5}, {{4, 2, 3, 3, 7, 1, 1, 1, 2, 4, 5, 180}, 10},
		{{4, 2, 1, 1}, 0}, {{0, 2, 4, 5, 180}, 0}, // behind the end
		{{8, 1, 2, 4, 5, 180}, 0},                 // a length under 2
		{{8, 0, 2, 4, 5, 180}, 0},                 // the same: no endless loop
		{{8, 20, 2, 4, 5, 180}, 0},                // over the header's end
		{{2, 3, 5, 2, 4, 5, 180}, 6 - 1},          // an "MSS" of another length is none
		{{1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 2}, 0}, // no room for a length
	};
	for (size_t i = 0; i < RTE_DIM(cases); i++) {
		for (unsigned int six = 0; six < 2; six++) {
			for (uint32_t mss = 536; mss < 1500; mss += 231) {
				uint32_t length = make_tcp(six, 0x02, cases[i].options, 12);
				const uint8_t *value = packet + (six ? 60 : 40) + cases[i].at;
				bool changes = cases[i].at != 0 && mss < 1460;
				assert_true(packet_guess_syn(packet));
				assert_int_equal(
					packet_tcp_clamp_mss(packet, length, (uint16_t)mss),
					changes);
				assert_true(sum_is_right(six));
				if (cases[i].at != 0)
					assert_int_equal(
						value[0] << 8 | value[1], RTE_MIN(mss, 1460u));
			}
		}
	}
}

static void test_other_packets_keep_their_mss(void **state)
{
	(void)state;
	static const uint8_t mss[] = {2, 4, 5, 180};
	static const uint8_t kept[] = {0x00, 0x10, 0x11, 0x04, 0x18}; // no SYN among them
	for (size_t i = 0; i < RTE_DIM(kept); i++) {
		uint32_t length = make_tcp(i % 2, kept[i], mss, 4);
		assert_false(packet_guess_syn(packet));
		assert_false(packet_tcp_clamp_mss(packet, length, 1000));
	}
	uint32_t length = make_tcp(false, 0x12, mss, 4);
	assert_true(packet_plain_guess_syn(packet) && packet_guess_syn(packet));
	packet[9] = 17; // UDP
	assert_false(packet_plain_guess_syn(packet) || packet_guess_syn(packet));
	assert_false(packet_tcp_clamp_mss(packet, length, 1000));
	packet[9] = 6;
	packet[7] = 1; // not the first fragment
	assert_false(packet_tcp_clamp_mss(packet, length, 1000));
	packet[6] = 0x20; // the first
	packet[7] = 0;
	assert_true(packet_tcp_clamp_mss(packet, length, 1000));
	// A header that does not lie in the packet, or is shorter than it can be.
	for (uint32_t shorter = 1; shorter <= 27; shorter++) {
		length = make_tcp(false, 0x02, mss, 4);
		bool whole = length - shorter >= 44;
		assert_int_equal(packet_tcp_clamp_mss(packet, length - shorter, 1000), whole);
	}
	length = make_tcp(false, 0x02, mss, 4);
	packet[32] = 4 << 4;
	assert_false(packet_tcp_clamp_mss(packet, length, 1000));
	packet[32] = 15 << 4;
	assert_false(packet_tcp_clamp_mss(packet, length, 1000));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_fragments_join_to_the_packet),
		cmocka_unit_test(test_fragments_are_split_further),
		cmocka_unit_test(test_only_copied_options_are_in_later_fragments),
		cmocka_unit_test(test_identification_is_added_only_where_there_is_none),
		cmocka_unit_test(test_icmp_errors_quote_what_fits),
		cmocka_unit_test(test_about_which_packets_icmp_errors_are),
		cmocka_unit_test(test_mss_is_lowered_wherever_it_stands),
		cmocka_unit_test(test_other_packets_keep_their_mss),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
