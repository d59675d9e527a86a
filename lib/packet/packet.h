// SPDX-License-Identifier: BSD-3-Clause
// Copyright (c) 2026 the espgw authors

// Addresses, and reading and changing packet headers: Ethernet, IPv4, IPv6, UDP.
// Knows bytes, not ports, tunnels or SAs.

#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <rte_branch_prediction.h>
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

// Text to address. False when the text is neither an IPv4 nor an IPv6 address. This and the other
// parsers take the whole text (no space around it) and write nothing when false.
bool packet_address_parse(const char *text, struct packet_address *address);
// "address/length". False when malformed. Host bits are kept: packet_prefix_has_host_bits tells.
bool packet_interface_address_parse(const char *text, struct packet_interface_address *result);
// Whether a bit is set after the prefix length, as in 192.168.192.1/26.
bool packet_prefix_has_host_bits(const struct packet_interface_address *address);
// As packet_interface_address_parse, but refuses host bits too (false).
bool packet_prefix_parse(const char *text, struct packet_prefix *prefix);
// "aa:bb:cc:dd:ee:ff", in either case.
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
// The prefix of `length` bits (at most the address's) around an address: host bits cleared.
struct packet_prefix packet_prefix_of(const struct packet_address *address, uint8_t length);
bool packet_prefix_contains(
	const struct packet_prefix *prefix, const struct packet_address *address);
bool packet_address_is_multicast(const struct packet_address *address);
// Never crosses a router: 224.0.0.0/24, 255.255.255.255, ff01::/16, ff02::/16, fe80::/10.
bool packet_address_is_link_scope(const struct packet_address *address);
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
// The halves are added by adding the halves the other way round: the carry out of the lower half is
// the end-around carry of the upper one, which is the result.
static inline uint16_t packet_checksum_fold(uint32_t sum)
{
	return (uint16_t) ~((sum + (sum << 16 | sum >> 16)) >> 16);
}

// Adds with the end-around carry of 64 bits.
static inline uint64_t packet_checksum_add(uint64_t sum, uint64_t words)
{
	uint64_t total = sum + words;
	return total + (total < sum);
}

// The unfolded sum of an IPv4 header of 20 to 60 bytes (a multiple of 4) as stored, the checksum
// included: a right header's folds to 0. Reads 64-bit words, which sum to the same (RFC 1071 2(C)).
static inline uint32_t packet_ipv4_sum(const uint8_t *header, uint32_t size)
{
	uint64_t sum, second;
	uint32_t word;
	memcpy(&sum, header, sizeof(sum));
	memcpy(&second, header + 8, sizeof(second));
	memcpy(&word, header + 16, sizeof(word));
	sum = packet_checksum_add(sum, second);
	// Without options, which is nearly always, there is no loop.
	for (uint32_t i = sizeof(struct rte_ipv4_hdr); unlikely(i < size); i += sizeof(word)) {
		sum = packet_checksum_add(sum, word);
		memcpy(&word, header + i, sizeof(word));
	}
	sum = packet_checksum_add(sum, word);
	return (uint32_t)((sum + (sum << 32 | sum >> 32)) >> 32);
}

// What the first byte of an IPv4 address can say (RFC 1122 section 3.2.1.3): multicast is
// 224.0.0.0/4, loopback 127.0.0.0/8, reserved 240.0.0.0/4, 255.255.255.255 may follow 255, and
// 0.0.0.0/8 is this network. The kind 0 is a host's.
enum {
	PACKET_IPV4_MULTICAST = 1,
	PACKET_IPV4_LOOPBACK = 2,
	PACKET_IPV4_BROADCAST = 4,
	PACKET_IPV4_RESERVED = 8,
	PACKET_IPV4_THIS_NETWORK = 16
};
extern const uint8_t packet_ipv4_kinds[256];

// Whether the checksum of an IPv4 header without options is right: ones' complement sums are sums
// modulo 65535, in words of any size (RFC 1071), and so are those of 64 bits with their carries
// added. A multiple of 65535, and nothing else, becomes small by the factor that is 1/65535 modulo
// 2^64.
static inline bool packet_ipv4_sum_is_right(const uint8_t *header)
{
	const uint64_t inverse = UINT64_C(0xfffefffefffeffff);
	uint64_t sum, word;
	uint32_t last;
	memcpy(&sum, header, sizeof(sum));
	memcpy(&word, header + sizeof(sum), sizeof(word));
	memcpy(&last, header + sizeof(sum) + sizeof(word), sizeof(last));
	sum += word;
	sum += sum < word;
	sum += last;
	sum += sum < last;
	return sum * inverse <= UINT64_MAX / 0xffff;
}

// Whether both addresses of an IPv4 header are those of hosts.
static inline bool packet_ipv4_are_hosts(const uint8_t *data)
{
	return (packet_ipv4_kinds[data[offsetof(struct rte_ipv4_hdr, src_addr)]] |
		       packet_ipv4_kinds[data[offsetof(struct rte_ipv4_hdr, dst_addr)]]) == 0;
}

// A look at an IPv4 header without options, of which there are at least `least` bytes, 20 or more:
// true, and *length as packet_ip_check has it, when that says DROP_NONE, *length is `least` or more
// and both addresses are those of hosts. False: packet_ip_check has to look.
static inline bool packet_ipv4_is_plain(
	const uint8_t *data, uint32_t size, uint32_t least, bool verify_checksum, uint32_t *length)
{
	const struct rte_ipv4_hdr *ip = (const struct rte_ipv4_hdr *)data;
	uint32_t total = rte_be_to_cpu_16(ip->total_length);
	*length = total;
	return likely(total - least <= size - least) && likely(packet_ipv4_are_hosts(data)) &&
	       likely(!verify_checksum || packet_ipv4_sum_is_right(data));
}

// The rest of packet_ip_check for an IPv4 header of `header` bytes, of which there are 20 at least.
static inline enum drop_reason packet_ipv4_check_fields(
	const uint8_t *data, uint32_t header, uint32_t size, bool verify_checksum, uint32_t *length)
{
	const struct rte_ipv4_hdr *ip = (const struct rte_ipv4_hdr *)data;
	uint32_t total = rte_be_to_cpu_16(ip->total_length);
	if (total < header || total > size)
		return DROP_BAD_HEADER;
	uint8_t source = packet_ipv4_kinds[data[offsetof(struct rte_ipv4_hdr, src_addr)]] &
			 (PACKET_IPV4_MULTICAST | PACKET_IPV4_LOOPBACK | PACKET_IPV4_BROADCAST);
	uint8_t destination = packet_ipv4_kinds[data[offsetof(struct rte_ipv4_hdr, dst_addr)]];
	if (unlikely((source | (destination & PACKET_IPV4_LOOPBACK)) != 0) &&
		(source != PACKET_IPV4_BROADCAST || ip->src_addr == UINT32_MAX ||
			(destination & PACKET_IPV4_LOOPBACK) != 0))
		return DROP_BAD_HEADER;
	if (verify_checksum && packet_checksum_fold(packet_ipv4_sum(data, header)) != 0)
		return DROP_BAD_CHECKSUM;
	*length = total;
	return DROP_NONE;
}

// The two halves of packet_ip_check. The first byte's version has been read, and there are 20
// bytes.
static inline enum drop_reason packet_ipv4_check(
	const uint8_t *data, uint32_t size, bool verify_checksum, uint32_t *length)
{
	const uint32_t least = sizeof(struct rte_ipv4_hdr);
	if (likely(data[0] == RTE_IPV4_VHL_DEF)) // so that it is a constant where it is inlined
		return packet_ipv4_check_fields(data, least, size, verify_checksum, length);
	uint32_t header = (data[0] & 0x0fu) * 4;
	if (header < least)
		return DROP_BAD_HEADER;
	return packet_ipv4_check_fields(data, header, size, verify_checksum, length);
}

static inline enum drop_reason packet_ipv6_check(
	const uint8_t *data, uint32_t size, uint32_t *length)
{
	const struct rte_ipv6_hdr *ip = (const struct rte_ipv6_hdr *)data;
	if (size < sizeof(*ip))
		return DROP_BAD_HEADER;
	uint32_t total = (uint32_t)sizeof(*ip) + rte_be_to_cpu_16(ip->payload_len);
	if (total > size)
		return DROP_BAD_HEADER;
	static const uint8_t loopback[16] = {[15] = 1};
	if (ip->src_addr[0] == 0xff || memcmp(ip->src_addr, loopback, 16) == 0 ||
		memcmp(ip->dst_addr, loopback, 16) == 0)
		return DROP_BAD_HEADER;
	*length = total;
	return DROP_NONE;
}

// Reads the IPv4 or IPv6 header at `data` with `size` bytes behind it and says what is wrong with
// it: DROP_NONE, DROP_BAD_HEADER or, for IPv4 when `verify_checksum`, DROP_BAD_CHECKSUM.
// On DROP_NONE, *length is the whole length of the IP packet (header and payload, <= size);
// otherwise it is not written.
// Refused are: another version, IHL under 5 or over the length, length 0 or over size, source
// addresses that no packet may have (multicast, loopback, broadcast), and loopback destinations.
// Needs no alignment of `data`. Inline, because it runs for each packet.
static inline enum drop_reason packet_ip_check(
	const uint8_t *data, uint32_t size, bool verify_checksum, uint32_t *length)
{
	if (size < sizeof(struct rte_ipv4_hdr))
		return DROP_BAD_HEADER;
	if (data[0] >> 4 == 4)
		return packet_ipv4_check(data, size, verify_checksum, length);
	if (data[0] >> 4 == 6)
		return packet_ipv6_check(data, size, length);
	return DROP_BAD_HEADER;
}

// Whether a router may pass a packet on that has the source of this checked header: not 0.0.0.0/8
// (RFC 1812 section 5.3.7), nor a link-local IPv6 address or none (RFC 4291 sections 2.5.2, 2.5.6).
static inline bool packet_source_has_scope(const uint8_t *data)
{
	static const uint8_t none[16] = {0};
	if (data[0] >> 4 == 4)
		return data[offsetof(struct rte_ipv4_hdr, src_addr)] != 0;
	const uint8_t *source = ((const struct rte_ipv6_hdr *)data)->src_addr;
	bool is_link_local = source[0] == 0xfe && (source[1] & 0xc0) == 0x80;
	return !is_link_local && memcmp(source, none, sizeof(none)) != 0;
}

// Decrements TTL or hop limit of a checked IP header, with the checksum (RFC 1624): of one that is
// known to be IPv4, or of any. False, and nothing changed, when it is 0 or 1.
static inline bool packet_ipv4_decrement_ttl(uint8_t *data)
{
	uint8_t *field = data + offsetof(struct rte_ipv4_hdr, time_to_live);
	uint32_t word; // TTL, protocol and checksum, read and written as one
	memcpy(&word, field, sizeof(word));
	word = rte_le_to_cpu_32(word);
	if ((word & 0xff) <= 1)
		return false;
	// The word TTL|protocol goes down by 0x0100, so the checksum, whose first byte is the
	// word's third, goes up by it, with the end-around carry.
	uint32_t changed;
	uint32_t carry = __builtin_add_overflow(word, 0x10000 - 1, &changed);
	changed = rte_cpu_to_le_32(changed + (carry << 16));
	memcpy(field, &changed, sizeof(changed));
	return true;
}
static inline bool packet_ip_decrement_ttl(uint8_t *data)
{
	if (likely(data[0] == RTE_IPV4_VHL_DEF) || data[0] >> 4 == 4)
		return packet_ipv4_decrement_ttl(data);
	struct rte_ipv6_hdr *ip = (struct rte_ipv6_hdr *)data;
	if (ip->hop_limits <= 1)
		return false;
	ip->hop_limits--;
	return true;
}

// The unfolded sum of an ICMP or ICMPv6 message of `size` bytes, its checksum field as it stands,
// in a packet with this IP header: ICMPv6 adds the pseudo header (RFC 8200 section 8.1). It folds
// to 0 where the checksum is right.
uint32_t packet_icmp_sum(const uint8_t *ip, const uint8_t *icmp, uint32_t size);

struct packet_ip_fields {
	const struct packet_address *source, *destination; // of one family
	uint8_t protocol, ttl, traffic_class;
	uint32_t size; // bytes behind the header
};

// Writes an IP header without options or extension headers; IPv4 with DF, and so without
// identification (RFC 6864). Returns its bytes.
uint32_t packet_ip_write(uint8_t *data, const struct packet_ip_fields *fields);

// Source and destination of a checked IP header.
struct packet_address packet_ip_source(const uint8_t *data);
struct packet_address packet_ip_destination(const uint8_t *data);
// Traffic class of a checked IP header (DSCP and ECN).
static inline uint8_t packet_ip_traffic_class(const uint8_t *data)
{
	if ((data[0] >> 4) == 4)
		return data[1];
	return (uint8_t)(data[0] << 4 | data[1] >> 4);
}

// Sets the ECN field (0 to 3) of a checked IP header, with the checksum (RFC 1624).
void packet_ip_set_ecn(uint8_t *data, uint8_t ecn);

// What an IP packet carries, so far as the gateway has to know.
struct packet_ip_view {
	uint32_t header;  // bytes before the upper-layer header (extension headers included)
	uint8_t protocol; // of the upper layer
	bool is_fragment; // not a whole packet: offset not 0 or more fragments follow
	bool is_first;    // the upper-layer header is here (offset 0)
};

// Extension headers that are walked at most, so that a packet made of them costs no more than one
// of a sane sender (RFC 8883 section 3 lets a node set such limits).
#define PACKET_IPV6_EXTENSIONS 8

// The IPv6 half of packet_ip_view.
bool packet_ipv6_view(const uint8_t *data, uint32_t length, struct packet_ip_view *view);

// Walks the headers of a checked IP packet of `length` bytes (as packet_ip_check said). False when
// an IPv6 extension header runs over the end, or there are over PACKET_IPV6_EXTENSIONS of them. AH
// counts as an upper layer, and so does "no next header" (59). The view may end at the packet's
// end: header == length, with nothing of the upper layer there.
static inline bool packet_ip_view(const uint8_t *data, uint32_t length, struct packet_ip_view *view)
{
	if (data[0] >> 4 != 4)
		return packet_ipv6_view(data, length, view);
	const struct rte_ipv4_hdr *ip = (const struct rte_ipv4_hdr *)data;
	uint16_t fragment = rte_be_to_cpu_16(ip->fragment_offset);
	view->header = (data[0] & 0x0fu) * 4;
	view->protocol = ip->next_proto_id;
	view->is_fragment = fragment & (RTE_IPV4_HDR_MF_FLAG | RTE_IPV4_HDR_OFFSET_MASK);
	view->is_first = (fragment & RTE_IPV4_HDR_OFFSET_MASK) == 0;
	return true;
}

// Of the flow that a checked IP packet of `length` bytes belongs to: of its addresses and, where it
// is TCP or UDP, of its ports. All fragments of a packet have the same hash, because no ports are
// taken from the first either; it may be another one than whole packets of their flow have. All
// bits are equally good.
uint32_t packet_flow_hash(const uint8_t *ip, uint32_t length);

// A fragment (RFC 791 section 3.2, RFC 8200 section 4.5). The whole packet is the first fragment's
// `header` bytes, changed, and the pieces of all one after the other.
struct packet_fragment {
	uint32_t header;      // bytes that stand before the pieces of the whole packet
	uint32_t begin, size; // where in this packet its piece is, bytes
	uint32_t offset;      // where the piece belongs, counted from behind the header
	uint32_t id;          // as it stands in the packet
	bool more;            // it is not the last
	uint8_t protocol;     // of the pieces; IPv6: what the fragment header says
	uint32_t link;        // IPv6: the byte in `header` that announces the fragment header
};

// Reads a checked IP packet of `length` bytes. False when it is no fragment, and where
// packet_ip_view is false.
bool packet_fragment_view(const uint8_t *data, uint32_t length, struct packet_fragment *fragment);

// Makes `header`, a copy of what stands before the first fragment's piece, that of the whole packet
// with `size` bytes behind it; header and size are 65,535 bytes together at most.
void packet_fragment_finish(uint8_t *header, const struct packet_fragment *first, uint32_t size);

// What a router says of a packet of ours that was too large for its next link: ICMP "fragmentation
// needed" (RFC 1191) or ICMPv6 "packet too big" (RFC 8201), quoting ESP. Nothing of it is
// authenticated.
struct packet_too_big {
	struct packet_address sender;              // of the message
	uint32_t mtu;                              // of the next link, as told
	struct packet_address source, destination; // of the packet quoted
	uint32_t size;                             // of that packet, bytes
	uint16_t udp_source, udp_destination;      // host order; 0 and 0 = plain ESP
	uint32_t spi, sequence;                    // host order; the sequence number's low half
};

// Whether a checked IP packet of `length` bytes is such a message, whatever it quotes. `view`: its
// packet_ip_view.
bool packet_is_too_big_message(
	const uint8_t *ip, uint32_t length, const struct packet_ip_view *view);
// Reads such a message. False when its checksum is wrong, or when it does not quote ESP up to the
// sequence number.
bool packet_too_big_parse(const uint8_t *ip, uint32_t length, const struct packet_ip_view *view,
	struct packet_too_big *message);

// ---- ICMP echo (echo.c) ----

#define PACKET_ECHO_HEADER   8
#define PACKET_ECHO_OVERHEAD (sizeof(struct rte_ipv6_hdr) + PACKET_ECHO_HEADER)
#define PACKET_ECHO_TTL      64

// An ICMP echo request or reply (RFC 792, RFC 4443 section 4).
struct packet_echo {
	bool is_reply;
	uint16_t identifier, sequence; // host order
	const uint8_t *payload;
	uint32_t size; // of it
};

// Reads a checked IP packet of `length` bytes (as packet_ip_check said). True when it is an echo
// request or reply, whole (no fragment), without IPv4 options or IPv6 extension headers, and with
// the right checksum.
bool packet_echo_read(const uint8_t *data, uint32_t length, struct packet_echo *echo);
// Makes the request that packet_echo_read has read the reply to it, in place: addresses change
// places, TTL or hop limit is 64, and so are the checksums. Identification and DF of IPv4 stay.
void packet_echo_answer(uint8_t *data);
// Writes an IP packet with this message at `data`, which has room for PACKET_ECHO_OVERHEAD bytes
// and the payload, and returns its length. The addresses are of one family. TTL 64, with DF.
uint32_t packet_echo_write(uint8_t *data, const struct packet_address *source,
	const struct packet_address *destination, const struct packet_echo *echo,
	uint8_t traffic_class);

// The part of this face that is about packets which are too large.
#include "packet/size.h"
