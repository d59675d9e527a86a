// SPDX-License-Identifier: BSD-3-Clause
// Copyright (c) 2026 the espgw authors

// ICMP that says a packet of ours was too large for a link on its way.

#include <netinet/in.h>

#include "packet/packet.h"

#define ICMP4_UNREACHABLE   3 // RFC 792
#define ICMP4_FRAGMENTATION 4
#define ICMP6_TOO_BIG       2 // RFC 4443 section 3.2
#define ICMP_HEADER         8
#define ESP_QUOTED          8 // SPI and sequence number

bool packet_is_too_big_message(
	const uint8_t *ip, uint32_t length, const struct packet_ip_view *view)
{
	const uint8_t *icmp = ip + view->header;
	if (view->is_fragment || length - view->header < ICMP_HEADER)
		return false;
	return ip[0] >> 4 == 4 ? view->protocol == IPPROTO_ICMP && icmp[0] == ICMP4_UNREACHABLE &&
					 icmp[1] == ICMP4_FRAGMENTATION
			       : view->protocol == IPPROTO_ICMPV6 && icmp[0] == ICMP6_TOO_BIG;
}

// The header of the packet that is quoted; *header: its size. The end may be missing, so that its
// length is not held against what is there.
static bool read_quoted_ip(const uint8_t *data, uint32_t size, struct packet_too_big *message,
	uint32_t *header, uint8_t *protocol)
{
	if (data[0] >> 4 == 4) {
		const struct rte_ipv4_hdr *ip = (const struct rte_ipv4_hdr *)data;
		if (size < sizeof(*ip))
			return false;
		*header = (data[0] & 0x0fu) * 4;
		*protocol = ip->next_proto_id;
		message->source = packet_address_v4(ip->src_addr);
		message->destination = packet_address_v4(ip->dst_addr);
		message->size = rte_be_to_cpu_16(ip->total_length);
		return *header >= sizeof(*ip) &&
		       (ip->fragment_offset & RTE_BE16(RTE_IPV4_HDR_OFFSET_MASK)) == 0;
	}
	const struct rte_ipv6_hdr *ip = (const struct rte_ipv6_hdr *)data;
	if (size < sizeof(*ip) || data[0] >> 4 != 6)
		return false;
	*header = sizeof(*ip); // we send no extension headers
	*protocol = ip->proto;
	message->source = packet_address_v6(ip->src_addr);
	message->destination = packet_address_v6(ip->dst_addr);
	message->size = (uint32_t)sizeof(*ip) + rte_be_to_cpu_16(ip->payload_len);
	return true;
}

static bool read_quote(const uint8_t *data, uint32_t size, struct packet_too_big *message)
{
	uint32_t at;
	uint8_t protocol;
	if (size == 0 || !read_quoted_ip(data, size, message, &at, &protocol))
		return false;
	message->udp_source = message->udp_destination = 0;
	if (protocol == IPPROTO_UDP) {
		const struct rte_udp_hdr *udp = (const struct rte_udp_hdr *)(data + at);
		if (at + sizeof(*udp) > size)
			return false;
		message->udp_source = rte_be_to_cpu_16(udp->src_port);
		message->udp_destination = rte_be_to_cpu_16(udp->dst_port);
		at += (uint32_t)sizeof(*udp);
	} else if (protocol != IPPROTO_ESP) {
		return false;
	}
	if (at + ESP_QUOTED > size)
		return false;
	memcpy(&message->spi, data + at, sizeof(message->spi));
	memcpy(&message->sequence, data + at + sizeof(message->spi), sizeof(message->sequence));
	message->spi = rte_be_to_cpu_32(message->spi);
	message->sequence = rte_be_to_cpu_32(message->sequence);
	return true;
}

bool packet_too_big_parse(const uint8_t *ip, uint32_t length, const struct packet_ip_view *view,
	struct packet_too_big *message)
{
	if (!packet_is_too_big_message(ip, length, view))
		return false;
	const uint8_t *icmp = ip + view->header;
	uint32_t size = length - view->header;
	bool is_ipv4 = ip[0] >> 4 == 4;
	if (packet_checksum_fold(packet_icmp_sum(ip, icmp, size)) != 0 ||
		!read_quote(icmp + ICMP_HEADER, size - ICMP_HEADER, message) ||
		message->source.family != (is_ipv4 ? 4 : 6))
		return false;
	uint32_t mtu; // 16 bits in ICMP for IPv4 (RFC 1191 section 4), 32 in ICMPv6
	memcpy(&mtu, icmp + 4, sizeof(mtu));
	message->mtu = rte_be_to_cpu_32(mtu) & (is_ipv4 ? UINT16_MAX : UINT32_MAX);
	message->sender = packet_ip_source(ip);
	return true;
}
