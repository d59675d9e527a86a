// SPDX-License-Identifier: BSD-3-Clause
// Copyright (c) 2026 the espgw authors

// ICMP errors, made of the packet that they are about.

#include <netinet/icmp6.h>
#include <netinet/in.h>
#include <netinet/ip_icmp.h>

#include "packet/size.h"

#define ICMP_HEADER        8
#define ICMP_TTL           64
#define ICMP_TRAFFIC_CLASS 0xc0 // internetwork control (RFC 1812 section 4.3.2.5)

// ---- About which packets ----

// A single host: not "this network", loopback, a group or reserved (RFC 1122 section 3.2.1.3).
static bool is_host4(uint32_t address)
{
	uint32_t first = rte_be_to_cpu_32(address) >> 24;
	return first != 0 && first != 127 && first < 224;
}

// Such a sender is on some link, and routes do not say on which.
static bool is_link_local6(const uint8_t *address)
{
	return address[0] == 0xfe && (address[1] & 0xc0) == 0x80;
}

static bool is_host6(const uint8_t *address)
{
	static const uint8_t unspecified[16];
	return address[0] != 0xff && memcmp(address, unspecified, sizeof(unspecified)) != 0;
}

// An ICMP error or redirect, or too short to tell.
static bool is_icmp4_error(const uint8_t *icmp, uint32_t size)
{
	if (size == 0)
		return true;
	switch (icmp[0]) {
	case ICMP_DEST_UNREACH:
	case ICMP_SOURCE_QUENCH:
	case ICMP_REDIRECT:
	case ICMP_TIME_EXCEEDED:
	case ICMP_PARAMETERPROB:
		return true;
	default:
		return false;
	}
}

static bool is_icmp6_error(const uint8_t *icmp, uint32_t size)
{
	return size == 0 || (icmp[0] & ICMP6_INFOMSG_MASK) == 0 || icmp[0] == ND_REDIRECT;
}

bool packet_icmp_may_answer(const uint8_t *data, uint32_t length)
{
	struct packet_ip_view view;
	if (!packet_ip_view(data, length, &view) || !view.is_first)
		return false;
	const uint8_t *upper = data + view.header;
	if (data[0] >> 4 == 4) {
		const struct rte_ipv4_hdr *ip = (const struct rte_ipv4_hdr *)data;
		return is_host4(ip->src_addr) && is_host4(ip->dst_addr) &&
		       !(view.protocol == IPPROTO_ICMP &&
			       is_icmp4_error(upper, length - view.header));
	}
	const struct rte_ipv6_hdr *ip = (const struct rte_ipv6_hdr *)data;
	return is_host6(ip->src_addr) && !is_link_local6(ip->src_addr) && is_host6(ip->dst_addr) &&
	       !(view.protocol == IPPROTO_ICMPV6 && is_icmp6_error(upper, length - view.header));
}

// ---- Building them ----

// Type, code, checksum 0 and the four bytes after it (RFC 792, RFC 1191 section 4; RFC 4443
// section 3): those that nothing uses are 0.
static void write_icmp(uint8_t *icmp, uint8_t type, uint8_t code, uint32_t last)
{
	last = rte_cpu_to_be_32(last);
	memset(icmp, 0, ICMP_HEADER - sizeof(last));
	icmp[0] = type;
	icmp[1] = code;
	memcpy(icmp + ICMP_HEADER - sizeof(last), &last, sizeof(last));
}

static uint32_t build4(uint8_t *data, uint32_t length, enum packet_icmp_error error, uint32_t mtu,
	const struct packet_address *source, uint16_t identification)
{
	static const struct {
		uint8_t type, code;
	} codes[] = {
		[PACKET_ICMP_NO_ROUTE] = {ICMP_DEST_UNREACH, ICMP_NET_UNREACH},
		[PACKET_ICMP_TIME_EXCEEDED] = {ICMP_TIME_EXCEEDED, ICMP_EXC_TTL},
		[PACKET_ICMP_TOO_BIG] = {ICMP_DEST_UNREACH, ICMP_FRAG_NEEDED},
	};
	uint8_t *icmp = data - ICMP_HEADER;
	uint32_t size = RTE_MIN(length + PACKET_ICMP_V4_BEFORE, (uint32_t)PACKET_ICMP_V4_SIZE);
	struct rte_ipv4_hdr header = {
		.version_ihl = RTE_IPV4_VHL_DEF,
		.type_of_service = ICMP_TRAFFIC_CLASS,
		.total_length = rte_cpu_to_be_16((uint16_t)size),
		.packet_id = rte_cpu_to_be_16(identification),
		.time_to_live = ICMP_TTL,
		.next_proto_id = IPPROTO_ICMP,
		.dst_addr = ((const struct rte_ipv4_hdr *)data)->src_addr,
	};
	memcpy(&header.src_addr, source->bytes, sizeof(header.src_addr));
	header.hdr_checksum = rte_ipv4_cksum(&header);
	write_icmp(icmp, codes[error].type, codes[error].code,
		error == PACKET_ICMP_TOO_BIG ? RTE_MIN(mtu, (uint32_t)UINT16_MAX) : 0);
	uint16_t sum = rte_raw_cksum(icmp, size - sizeof(header));
	sum = (uint16_t)~sum;
	memcpy(icmp + offsetof(struct icmphdr, checksum), &sum, sizeof(sum));
	memcpy(data - PACKET_ICMP_V4_BEFORE, &header, sizeof(header));
	return size;
}

static uint32_t build6(uint8_t *data, uint32_t length, enum packet_icmp_error error, uint32_t mtu,
	const struct packet_address *source)
{
	static const struct {
		uint8_t type, code;
	} codes[] = {
		[PACKET_ICMP_NO_ROUTE] = {ICMP6_DST_UNREACH, ICMP6_DST_UNREACH_NOROUTE},
		[PACKET_ICMP_TIME_EXCEEDED] = {ICMP6_TIME_EXCEEDED, ICMP6_TIME_EXCEED_TRANSIT},
		[PACKET_ICMP_TOO_BIG] = {ICMP6_PACKET_TOO_BIG, 0},
	};
	uint8_t *icmp = data - ICMP_HEADER;
	uint32_t size = RTE_MIN(length + PACKET_ICMP_V6_BEFORE, (uint32_t)PACKET_ICMP_V6_SIZE);
	struct rte_ipv6_hdr header = {
		.vtc_flow = rte_cpu_to_be_32(UINT32_C(6) << 28 | ICMP_TRAFFIC_CLASS << 20),
		.payload_len = rte_cpu_to_be_16((uint16_t)(size - sizeof(header))),
		.proto = IPPROTO_ICMPV6,
		.hop_limits = ICMP_TTL,
	};
	memcpy(header.src_addr, source->bytes, sizeof(header.src_addr));
	memcpy(header.dst_addr, ((const struct rte_ipv6_hdr *)data)->src_addr,
		sizeof(header.dst_addr));
	write_icmp(
		icmp, codes[error].type, codes[error].code, error == PACKET_ICMP_TOO_BIG ? mtu : 0);
	uint16_t sum = rte_ipv6_udptcp_cksum(&header, icmp);
	memcpy(icmp + offsetof(struct icmp6_hdr, icmp6_cksum), &sum, sizeof(sum));
	memcpy(data - PACKET_ICMP_V6_BEFORE, &header, sizeof(header));
	return size;
}

uint32_t packet_icmp_build(uint8_t *data, uint32_t length, enum packet_icmp_error error,
	uint32_t mtu, const struct packet_address *source, uint16_t identification)
{
	if (data[0] >> 4 == 4)
		return build4(data, length, error, mtu, source, identification);
	return build6(data, length, error, mtu, source);
}
