// SPDX-License-Identifier: BSD-3-Clause
// Copyright (c) 2026 the espgw authors

// What to do about packets that are too large: ICMP errors that say so (and other ICMP errors),
// IPv4 fragments, and TCP's MSS lowered beforehand. Knows bytes only; any thread.

#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "packet/packet.h"

// ---- ICMP errors (RFC 792, RFC 1191, RFC 1812 section 4.3.2, RFC 4443) ----

enum packet_icmp_error {
	PACKET_ICMP_NO_ROUTE,      // destination unreachable: no route
	PACKET_ICMP_TIME_EXCEEDED, // in transit
	PACKET_ICMP_TOO_BIG,       // fragmentation needed and DF set; IPv6: packet too big
};

#define PACKET_ICMP_V4_SIZE 576  // bytes of a whole message at most (RFC 1812 section 4.3.2.3)
#define PACKET_ICMP_V6_SIZE 1280 // (RFC 4443 section 2.4 (c))
// Bytes of the message before the packet that it quotes: IP and ICMP headers.
#define PACKET_ICMP_V4_BEFORE (20 + 8)
#define PACKET_ICMP_V6_BEFORE (40 + 8)

// Whether an ICMP error may be sent about a checked IP packet of `length` bytes (RFC 1812 section
// 4.3.2.7, RFC 4443 section 2.4 (e)). Not about ICMP errors and redirects, fragments but the first,
// destinations that are groups or reserved, sources that are no single host or of one link only
// (RFC 4291 section 2.5.6); nor where the upper layer can't be found.
bool packet_icmp_may_answer(const uint8_t *data, uint32_t length);

// Makes an ICMP error about the checked IP packet at `data`, in place: it begins
// PACKET_ICMP_V4_BEFORE or _V6_BEFORE bytes, by the packet's family, before `data`, and those have
// to be there. It goes from `source`, of the packet's family, to the packet's source. `mtu`
// belongs to PACKET_ICMP_TOO_BIG. `identification` is that of the IPv4 header, host order. Returns
// the bytes of the message, of which there are never more than before and packet together.
uint32_t packet_icmp_build(uint8_t *data, uint32_t length, enum packet_icmp_error error,
	uint32_t mtu, const struct packet_address *source, uint16_t identification);

// ---- IPv4 fragments (RFC 791 section 3.2) ----

// A packet on its way into fragments. All but `data` is packet_split's own.
struct packet_split {
	const uint8_t *data; // the payload not yet handed out
	uint32_t left;       // bytes of it
	uint32_t room;       // bytes of payload in a fragment that is not the last; a multiple of 8
	uint32_t later_room; // the same after the first
	uint32_t header_size, later_size;
	uint16_t offset;    // of the next fragment, in units of 8 bytes
	bool more;          // the packet itself is a fragment, and not the last
	uint8_t header[60]; // of the next fragment, but for length, offset and checksum
	uint8_t later[60];  // of the fragments after it: with the options that are copied
};

// Begins with a checked IPv4 packet of `length` bytes, which has to stay as it is until the last
// fragment was made. A DF bit is ignored; if there was one and the packet has no identification,
// as such packets may (RFC 6864), it gets `identification` (host order). The packet may be a
// fragment itself. False when it can't be split: `mtu` does not hold its header and 8 bytes, its
// options are malformed, or as a fragment it ends behind 65,535 bytes.
bool packet_split_begin(struct packet_split *split, const uint8_t *data, uint32_t length,
	uint32_t mtu, uint16_t identification);
// Writes the next fragment, of at most the MTU's bytes, to `to`. Returns its length, 0 when the
// last one was made.
uint32_t packet_split_next(struct packet_split *split, uint8_t *to);

// An IPv4 packet without DF, checked.
static inline bool packet_ipv4_may_split(const uint8_t *data)
{
	const struct rte_ipv4_hdr *ip = (const struct rte_ipv4_hdr *)data;
	return data[0] >> 4 == 4 && (ip->fragment_offset & RTE_BE16(RTE_IPV4_HDR_DF_FLAG)) == 0;
}

// ---- TCP MSS (RFC 9293 section 3.7.1) ----

// Lowers the MSS option of a TCP SYN segment, and changes the checksum with it (RFC 1624). Whatever
// else the checked IP packet of `length` bytes is stays as it is: other segments, fragments but the
// first, a segment without the option, one whose TCP header does not lie in the packet. An MSS is
// never raised. Returns whether the packet was changed.
bool packet_tcp_clamp_mss(uint8_t *data, uint32_t length, uint16_t mss);

#define PACKET_TCP_SYN 0x02

// A cheap guess for each packet, without branches: 0 when packet_tcp_clamp_mss would do nothing
// because this is no SYN, else not 0. `data` is a checked IP header; up to 74 bytes from there are
// read, so they have to belong to the buffer, though not to the packet. The plain guess is for IPv4
// without options; of others it says anything, and packet_guess_syn is right for all.
static inline uint8_t packet_plain_guess_syn(const uint8_t *data)
{
	uint8_t is_tcp = data[offsetof(struct rte_ipv4_hdr, next_proto_id)] == 6;
	return (uint8_t)(is_tcp * PACKET_TCP_SYN) & data[sizeof(struct rte_ipv4_hdr) + 13];
}

static inline uint8_t packet_guess_syn(const uint8_t *data)
{
	if (data[0] >> 4 == 4) {
		bool is_tcp = data[offsetof(struct rte_ipv4_hdr, next_proto_id)] == 6;
		return is_tcp ? data[(data[0] & 0x0fu) * 4 + 13] & PACKET_TCP_SYN : 0;
	}
	uint8_t next = data[offsetof(struct rte_ipv6_hdr, proto)];
	if (next == 6)
		return data[sizeof(struct rte_ipv6_hdr) + 13] & PACKET_TCP_SYN;
	return next != 17 && next != 58 &&
	       next != 50; // all but UDP, ICMPv6 and ESP may be a header
}
