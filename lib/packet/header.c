// SPDX-License-Identifier: BSD-3-Clause
// Copyright (c) 2026 the espgw authors

#include <netinet/in.h>

#include "packet/packet.h"

const uint8_t packet_ipv4_kinds[256] = {
	[0] = PACKET_IPV4_THIS_NETWORK,
	[127] = PACKET_IPV4_LOOPBACK,
	[224 ... 239] = PACKET_IPV4_MULTICAST,
	[240 ... 254] = PACKET_IPV4_RESERVED,
	[255] = PACKET_IPV4_BROADCAST,
};

void packet_ip_set_ecn(uint8_t *data, uint8_t ecn)
{
	if (data[0] >> 4 != 4) {
		// The ECN field is bits 4 and 5 of the second byte (RFC 8200 section 3).
		data[1] = (uint8_t)((data[1] & ~(PACKET_IP_ECN_MASK << 4)) | ecn << 4);
		return;
	}
	struct rte_ipv4_hdr *ip = (struct rte_ipv4_hdr *)data;
	uint8_t old = ip->type_of_service;
	ip->type_of_service = (uint8_t)((old & PACKET_IP_DSCP_MASK) | ecn);
	// HC' = ~(~HC + ~m + m') (RFC 1624 equation 3), with m the word whose low byte changes.
	uint32_t sum = (uint16_t)~rte_be_to_cpu_16(ip->hdr_checksum);
	sum += (uint16_t)~old;
	sum += ip->type_of_service;
	ip->hdr_checksum = rte_cpu_to_be_16(packet_checksum_fold(sum));
}

static bool is_extension(uint8_t protocol)
{
	switch (protocol) {
	case IPPROTO_HOPOPTS:
	case IPPROTO_ROUTING:
	case IPPROTO_FRAGMENT:
	case IPPROTO_DSTOPTS:
	case IPPROTO_MH:
	case 139: // HIP, RFC 7401
	case 140: // Shim6, RFC 5533
		return true;
	default:
		return false;
	}
}

static bool ipv6_fragment_view(
	const uint8_t *data, uint32_t length, struct packet_fragment *fragment)
{
	const uint32_t unit = 8;
	uint32_t offset = sizeof(struct rte_ipv6_hdr);
	uint32_t link = offsetof(struct rte_ipv6_hdr, proto);
	for (unsigned int i = 0; data[link] != IPPROTO_FRAGMENT; i++) {
		if (i == PACKET_IPV6_EXTENSIONS || !is_extension(data[link]) ||
			offset + unit > length)
			return false;
		link = offset;
		offset += (data[offset + 1] + 1) * unit;
	}
	if (offset + unit > length)
		return false;
	const uint8_t *extension = data + offset;
	uint16_t field = (uint16_t)(extension[2] << 8 | extension[3]);
	*fragment = (struct packet_fragment){
		.header = offset,
		.begin = offset + unit,
		.size = length - offset - unit,
		.offset = field & 0xfff8,
		.more = field & 1,
		.protocol = extension[0],
		.link = link,
	};
	memcpy(&fragment->id, extension + 4, sizeof(fragment->id));
	return fragment->more || fragment->offset != 0; // else "atomic" (RFC 6946)
}

bool packet_fragment_view(const uint8_t *data, uint32_t length, struct packet_fragment *fragment)
{
	if (data[0] >> 4 != 4)
		return ipv6_fragment_view(data, length, fragment);
	const struct rte_ipv4_hdr *ip = (const struct rte_ipv4_hdr *)data;
	uint16_t field = rte_be_to_cpu_16(ip->fragment_offset);
	uint32_t header = (data[0] & 0x0fu) * 4;
	*fragment = (struct packet_fragment){
		.header = header,
		.begin = header,
		.size = length - header,
		.offset = (field & RTE_IPV4_HDR_OFFSET_MASK) * 8u,
		.id = ip->packet_id,
		.more = field & RTE_IPV4_HDR_MF_FLAG,
		.protocol = ip->next_proto_id,
	};
	return fragment->more || fragment->offset != 0;
}

void packet_fragment_finish(uint8_t *header, const struct packet_fragment *first, uint32_t size)
{
	if (header[0] >> 4 != 4) {
		struct rte_ipv6_hdr *ip = (struct rte_ipv6_hdr *)header;
		ip->payload_len = rte_cpu_to_be_16(
			(uint16_t)(first->header - sizeof(struct rte_ipv6_hdr) + size));
		header[first->link] = first->protocol;
		return;
	}
	struct rte_ipv4_hdr *ip = (struct rte_ipv4_hdr *)header;
	ip->total_length = rte_cpu_to_be_16((uint16_t)(first->header + size));
	ip->fragment_offset &= RTE_BE16(RTE_IPV4_HDR_DF_FLAG);
	ip->hdr_checksum = 0;
	ip->hdr_checksum = packet_checksum_fold(packet_ipv4_sum(header, first->header));
}

bool packet_ipv6_view(const uint8_t *data, uint32_t length, struct packet_ip_view *view)
{
	const uint32_t unit = 8; // extension headers come in multiples of it (RFC 8200 section 4)
	uint32_t offset = sizeof(struct rte_ipv6_hdr);
	uint8_t protocol = ((const struct rte_ipv6_hdr *)data)->proto;
	*view = (struct packet_ip_view){.is_first = true};
	for (unsigned int i = 0; is_extension(protocol) && view->is_first; i++) {
		if (i == PACKET_IPV6_EXTENSIONS || offset + unit > length)
			return false;
		const uint8_t *extension = data + offset;
		uint32_t size = unit;
		if (protocol == IPPROTO_FRAGMENT) {
			uint16_t fragment = (uint16_t)(extension[2] << 8 | extension[3]);
			// An "atomic" fragment, alone and whole, is no fragment (RFC 6946).
			view->is_fragment |= (fragment & 0xfff9) != 0;
			view->is_first = fragment >> 3 == 0;
		} else {
			size += extension[1] * unit;
		}
		if (offset + size > length)
			return false;
		offset += size;
		protocol = extension[0];
	}
	view->header = offset;
	view->protocol = protocol;
	return true;
}

struct packet_address packet_ip_source(const uint8_t *data)
{
	if (data[0] >> 4 == 4)
		return packet_address_v4(((const struct rte_ipv4_hdr *)data)->src_addr);
	return packet_address_v6(((const struct rte_ipv6_hdr *)data)->src_addr);
}

struct packet_address packet_ip_destination(const uint8_t *data)
{
	if (data[0] >> 4 == 4)
		return packet_address_v4(((const struct rte_ipv4_hdr *)data)->dst_addr);
	return packet_address_v6(((const struct rte_ipv6_hdr *)data)->dst_addr);
}

// Of big-endian words; a last odd byte is the high half of one. An IP packet is too short to
// overflow it.
static uint32_t sum_words(const uint8_t *data, uint32_t size)
{
	uint32_t sum = 0;
	for (uint32_t i = 0; i + 1 < size; i += 2)
		sum += (uint32_t)data[i] << 8 | data[i + 1];
	if (size % 2 != 0)
		sum += (uint32_t)data[size - 1] << 8;
	return sum;
}

uint32_t packet_icmp_sum(const uint8_t *ip, const uint8_t *icmp, uint32_t size)
{
	uint32_t sum = sum_words(icmp, size);
	if (ip[0] >> 4 == 6)
		sum += sum_words(ip + offsetof(struct rte_ipv6_hdr, src_addr), 32) + size +
		       IPPROTO_ICMPV6;
	return sum;
}

static uint32_t write_ipv4(uint8_t *data, const struct packet_ip_fields *fields)
{
	struct rte_ipv4_hdr ip = {
		.version_ihl = RTE_IPV4_VHL_DEF,
		.type_of_service = fields->traffic_class,
		.total_length = rte_cpu_to_be_16((uint16_t)(sizeof(ip) + fields->size)),
		.fragment_offset = RTE_BE16(RTE_IPV4_HDR_DF_FLAG),
		.time_to_live = fields->ttl,
		.next_proto_id = fields->protocol,
	};
	memcpy(&ip.src_addr, fields->source->bytes, sizeof(ip.src_addr));
	memcpy(&ip.dst_addr, fields->destination->bytes, sizeof(ip.dst_addr));
	ip.hdr_checksum = rte_ipv4_cksum(&ip);
	memcpy(data, &ip, sizeof(ip));
	return sizeof(ip);
}

static uint32_t write_ipv6(uint8_t *data, const struct packet_ip_fields *fields)
{
	struct rte_ipv6_hdr ip = {
		.vtc_flow =
			rte_cpu_to_be_32(UINT32_C(6) << 28 | (uint32_t)fields->traffic_class << 20),
		.payload_len = rte_cpu_to_be_16((uint16_t)fields->size),
		.proto = fields->protocol,
		.hop_limits = fields->ttl,
	};
	memcpy(ip.src_addr, fields->source->bytes, sizeof(ip.src_addr));
	memcpy(ip.dst_addr, fields->destination->bytes, sizeof(ip.dst_addr));
	memcpy(data, &ip, sizeof(ip));
	return sizeof(ip);
}

uint32_t packet_ip_write(uint8_t *data, const struct packet_ip_fields *fields)
{
	return fields->source->family == 4 ? write_ipv4(data, fields) : write_ipv6(data, fields);
}
