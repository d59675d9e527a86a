// SPDX-License-Identifier: BSD-3-Clause
// Copyright (c) 2026 the espgw authors

// Addresses, and reading and changing packet headers: Ethernet, IPv4, IPv6, UDP.
// Knows bytes, not ports, tunnels or SAs.

#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <rte_byteorder.h>
#include <rte_ether.h>
#include <rte_ip.h>
#include <rte_udp.h>

#include "telemetry/telemetry.h"

#define PACKET_IP_DSCP_MASK 0xfc
#define PACKET_IP_ECN_MASK  0x03
#define PACKET_UDP_ESP      4500 // RFC 3948
#define PACKET_UDP_IKE      500

// family 4 or 6; 0 = no address. Bytes in network order; an IPv4 address in the first four, the
// rest zero, so that addresses compare with memcmp.
struct packet_address {
	uint8_t family;
	uint8_t bytes[16];
};

struct packet_prefix {
	struct packet_address address; // with no bit set after `length`
	uint8_t length;
};

// An address together with the prefix length of its network, as in 169.254.244.2/30.
struct packet_interface_address {
	struct packet_address address;
	uint8_t length;
};

#define PACKET_ADDRESS_TEXT 48 // "ffff:...:255.255.255.255" and its end
#define PACKET_PREFIX_TEXT  52

// Text to address. False when the text is neither an IPv4 nor an IPv6 address.
bool packet_address_parse(const char *text, struct packet_address *address);
// "address/length". False when malformed. Host bits are kept: packet_prefix_has_host_bits tells.
bool packet_interface_address_parse(const char *text, struct packet_interface_address *result);
// As above, but refuses host bits too (false).
bool packet_prefix_parse(const char *text, struct packet_prefix *prefix);
// "aa:bb:cc:dd:ee:ff".
bool packet_mac_parse(const char *text, struct rte_ether_addr *mac);
// Writes at most PACKET_ADDRESS_TEXT bytes with the end; returns `text`. Family 0 becomes "-".
char *packet_address_format(const struct packet_address *address, char text[PACKET_ADDRESS_TEXT]);
char *packet_prefix_format(const struct packet_prefix *prefix, char text[PACKET_PREFIX_TEXT]);

struct packet_address packet_address_v4(uint32_t big_endian);
struct packet_address packet_address_v6(const uint8_t bytes[16]);
bool packet_address_equal(const struct packet_address *a, const struct packet_address *b);
bool packet_prefix_equal(const struct packet_prefix *a, const struct packet_prefix *b);
// 32 or 128.
uint8_t packet_address_bits(const struct packet_address *address);
// The prefix of `length` bits around an address: host bits cleared.
struct packet_prefix packet_prefix_of(const struct packet_address *address, uint8_t length);
bool packet_prefix_contains(
	const struct packet_prefix *prefix, const struct packet_address *address);
bool packet_address_is_multicast(const struct packet_address *address);
// 0.0.0.0 or ::, or family 0.
bool packet_address_is_unspecified(const struct packet_address *address);
bool packet_address_is_loopback(const struct packet_address *address);
// The IPv4 address as host-order number.
static inline uint32_t packet_address_v4_host(const struct packet_address *address)
{
	uint32_t word;
	memcpy(&word, address->bytes, sizeof(word));
	return rte_be_to_cpu_32(word);
}

// Ones' complement arithmetic (RFC 1071). A sum is 32 bits of unfolded big-endian 16-bit words.
static inline uint16_t packet_checksum_fold(uint32_t sum)
{
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return (uint16_t)~sum;
}

// Reads the IPv4 or IPv6 header at `data` with `size` bytes behind it and says what is wrong with
// it: DROP_NONE, DROP_BAD_HEADER or, for IPv4 when `verify_checksum`, DROP_BAD_CHECKSUM.
// On DROP_NONE, *length is the whole length of the IP packet (header and payload, <= size).
// Refused are: another version, IHL under 5 or over the length, length 0 or over size, and source
// addresses that no packet may have (multicast, loopback, broadcast).
enum drop_reason packet_ip_check(
	const uint8_t *data, uint32_t size, bool verify_checksum, uint32_t *length);

// Decrements TTL or hop limit of a checked IP header, with the checksum (RFC 1624).
// False, and nothing changed, when it is 0 or 1.
static inline bool packet_ip_decrement_ttl(uint8_t *data)
{
	if ((data[0] >> 4) == 4) {
		struct rte_ipv4_hdr *ip = (struct rte_ipv4_hdr *)data;
		if (ip->time_to_live <= 1)
			return false;
		ip->time_to_live--;
		// The word TTL|protocol goes down by 0x0100, so the checksum goes up by it.
		uint32_t sum = ip->hdr_checksum + rte_cpu_to_be_16(0x0100);
		ip->hdr_checksum = (uint16_t)(sum + (sum >> 16));
		return true;
	}
	struct rte_ipv6_hdr *ip = (struct rte_ipv6_hdr *)data;
	if (ip->hop_limits <= 1)
		return false;
	ip->hop_limits--;
	return true;
}

// Traffic class of a checked IP header (DSCP and ECN).
static inline uint8_t packet_ip_traffic_class(const uint8_t *data)
{
	if ((data[0] >> 4) == 4)
		return data[1];
	return (uint8_t)(data[0] << 4 | data[1] >> 4);
}

// Sets the ECN field of a checked IP header, with the checksum.
void packet_ip_set_ecn(uint8_t *data, uint8_t ecn);

// What an IP packet carries, so far as the gateway has to know.
struct packet_ip_view {
	uint32_t header;  // bytes before the upper-layer header (extension headers included)
	uint8_t protocol; // of the upper layer
	bool is_fragment; // not a whole packet: offset not 0 or more fragments follow
	bool is_first;    // the upper-layer header is here (offset 0)
};

// Walks a checked IP header of `length` bytes. False when an extension header runs over the end.
bool packet_ip_view(const uint8_t *data, uint32_t length, struct packet_ip_view *view);
