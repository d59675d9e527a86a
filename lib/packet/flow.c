// SPDX-License-Identifier: BSD-3-Clause
// Copyright (c) 2026 the espgw authors

#include <string.h>

#include <rte_hash_crc.h>

#include "packet/packet.h"

// A CRC is linear: flows that differ in a few bits could all agree in those that are used.
static inline uint32_t finish(uint32_t hash)
{
	hash *= UINT32_C(0x9e3779b1);
	hash = (hash ^ hash >> 15) * UINT32_C(0x85ebca77);
	return hash ^ hash >> 13;
}

static inline uint32_t add_word(uint32_t hash, const uint8_t *data)
{
	uint64_t word;
	memcpy(&word, data, sizeof(word));
	return rte_hash_crc_8byte(word, hash);
}

static inline uint32_t add_ports(uint32_t hash, const uint8_t *data)
{
	uint32_t ports;
	memcpy(&ports, data, sizeof(ports));
	return rte_hash_crc_4byte(ports, hash);
}

static inline bool has_ports(uint8_t protocol)
{
	return protocol == IPPROTO_TCP || protocol == IPPROTO_UDP;
}

static __attribute__((noinline)) uint32_t hash_any(const uint8_t *ip, uint32_t length)
{
	bool is_ipv4 = ip[0] >> 4 == 4;
	const uint8_t *addresses = ip + (is_ipv4 ? offsetof(struct rte_ipv4_hdr, src_addr)
						 : offsetof(struct rte_ipv6_hdr, src_addr));
	uint32_t hash = 0;
	for (unsigned int i = 0; i < (is_ipv4 ? 1 : 4); i++)
		hash = add_word(hash, addresses + 8 * i);
	struct packet_ip_view view;
	if (packet_ip_view(ip, length, &view) && !view.is_fragment && has_ports(view.protocol) &&
		view.header + 4 <= length)
		hash = add_ports(hash, ip + view.header);
	return finish(hash);
}

uint32_t packet_flow_hash(const uint8_t *ip, uint32_t length)
{
	const struct rte_ipv4_hdr *header = (const struct rte_ipv4_hdr *)ip;
	if (header->version_ihl != RTE_IPV4_VHL_DEF)
		return hash_any(ip, length);
	// As nearly all are: hash_any would come to the same.
	uint32_t hash = add_word(0, ip + offsetof(struct rte_ipv4_hdr, src_addr));
	bool is_whole = (header->fragment_offset & ~RTE_BE16(RTE_IPV4_HDR_DF_FLAG | 0x8000)) == 0;
	if (is_whole && has_ports(header->next_proto_id) && sizeof(*header) + 4 <= length)
		hash = add_ports(hash, ip + sizeof(*header));
	return finish(hash);
}
