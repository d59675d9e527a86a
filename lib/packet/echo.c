// SPDX-License-Identifier: BSD-3-Clause
// Copyright (c) 2026 the espgw authors

// ICMP and ICMPv6 echo messages.

#include <netinet/in.h>

#include "packet/packet.h"

#define ICMP4_REPLY   0
#define ICMP4_REQUEST 8
#define ICMP6_REQUEST 128
#define ICMP6_REPLY   129

#define TYPE     0 // offsets in the ICMP header
#define CODE     1
#define CHECKSUM 2
#define ID       4
#define SEQUENCE 6

static uint16_t read16(const uint8_t *at)
{
	return (uint16_t)(at[0] << 8 | at[1]);
}

static void write16(uint8_t *at, uint16_t value)
{
	at[0] = (uint8_t)(value >> 8);
	at[1] = (uint8_t)value;
}

// The ICMP message of a plain packet. NULL when it is none, or its header is not all there.
static const uint8_t *find_message(const uint8_t *data, uint32_t length)
{
	uint32_t header = sizeof(struct rte_ipv4_hdr);
	if (data[0] >> 4 == 4) {
		const struct rte_ipv4_hdr *ip = (const struct rte_ipv4_hdr *)data;
		if (data[0] != RTE_IPV4_VHL_DEF || ip->next_proto_id != IPPROTO_ICMP ||
			(ip->fragment_offset & ~RTE_BE16(RTE_IPV4_HDR_DF_FLAG)) != 0)
			return NULL;
	} else {
		header = sizeof(struct rte_ipv6_hdr);
		if (((const struct rte_ipv6_hdr *)data)->proto != IPPROTO_ICMPV6)
			return NULL;
	}
	return length < header + PACKET_ECHO_HEADER ? NULL : data + header;
}

bool packet_echo_read(const uint8_t *data, uint32_t length, struct packet_echo *echo)
{
	bool six = data[0] >> 4 == 6;
	const uint8_t *icmp = find_message(data, length);
	if (icmp == NULL || icmp[CODE] != 0)
		return false;
	echo->is_reply = icmp[TYPE] == (six ? ICMP6_REPLY : ICMP4_REPLY);
	if (!echo->is_reply && icmp[TYPE] != (six ? ICMP6_REQUEST : ICMP4_REQUEST))
		return false;
	uint32_t size = length - (uint32_t)(icmp - data);
	if (packet_checksum_fold(packet_icmp_sum(data, icmp, size)) != 0)
		return false;
	echo->identifier = read16(icmp + ID);
	echo->sequence = read16(icmp + SEQUENCE);
	echo->payload = icmp + PACKET_ECHO_HEADER;
	echo->size = size - PACKET_ECHO_HEADER;
	return true;
}

// The type is the only thing in the message that changes, and the pseudo header is the same the
// other way round (RFC 1624 equation 3).
static void set_type(uint8_t *icmp, uint8_t type)
{
	uint32_t sum = (uint16_t)~read16(icmp + CHECKSUM);
	sum += (uint16_t) ~((uint32_t)icmp[TYPE] << 8) + ((uint32_t)type << 8);
	write16(icmp + CHECKSUM, packet_checksum_fold(sum));
	icmp[TYPE] = type;
}

void packet_echo_answer(uint8_t *data)
{
	if (data[0] >> 4 == 4) {
		struct rte_ipv4_hdr *ip = (struct rte_ipv4_hdr *)data;
		rte_be32_t source = ip->src_addr;
		ip->src_addr = ip->dst_addr;
		ip->dst_addr = source;
		ip->time_to_live = PACKET_ECHO_TTL;
		ip->hdr_checksum = 0;
		ip->hdr_checksum = rte_ipv4_cksum(ip);
		uint8_t *icmp = (uint8_t *)(ip + 1);
		set_type(icmp, ICMP4_REPLY);
		// A message of zeros, with nothing else to sum: the update gives 0, and right is
		// 0xffff. It gives 0 for others too, and there it is right.
		if (read16(icmp + CHECKSUM) == 0) {
			uint32_t size = rte_be_to_cpu_16(ip->total_length) - (uint32_t)sizeof(*ip);
			write16(icmp + CHECKSUM,
				packet_checksum_fold(packet_icmp_sum(data, icmp, size)));
		}
		return;
	}
	struct rte_ipv6_hdr *ip = (struct rte_ipv6_hdr *)data;
	uint8_t source[16];
	memcpy(source, ip->src_addr, 16);
	memcpy(ip->src_addr, ip->dst_addr, 16);
	memcpy(ip->dst_addr, source, 16);
	ip->hop_limits = PACKET_ECHO_TTL;
	set_type((uint8_t *)(ip + 1), ICMP6_REPLY);
}

uint32_t packet_echo_write(uint8_t *data, const struct packet_address *source,
	const struct packet_address *destination, const struct packet_echo *echo,
	uint8_t traffic_class)
{
	uint32_t size = PACKET_ECHO_HEADER + echo->size;
	bool six = source->family == 6;
	const struct packet_ip_fields fields = {
		.source = source,
		.destination = destination,
		.protocol = six ? IPPROTO_ICMPV6 : IPPROTO_ICMP,
		.ttl = PACKET_ECHO_TTL,
		.traffic_class = traffic_class,
		.size = size,
	};
	uint8_t *icmp = data + packet_ip_write(data, &fields);
	if (six)
		icmp[TYPE] = echo->is_reply ? ICMP6_REPLY : ICMP6_REQUEST;
	else
		icmp[TYPE] = echo->is_reply ? ICMP4_REPLY : ICMP4_REQUEST;
	icmp[CODE] = 0;
	write16(icmp + CHECKSUM, 0);
	write16(icmp + ID, echo->identifier);
	write16(icmp + SEQUENCE, echo->sequence);
	memcpy(icmp + PACKET_ECHO_HEADER, echo->payload, echo->size);
	write16(icmp + CHECKSUM, packet_checksum_fold(packet_icmp_sum(data, icmp, size)));
	return (uint32_t)(icmp - data) + size;
}
