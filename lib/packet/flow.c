// SPDX-License-Identifier: BSD-3-Clause
// Copyright (c) 2026 the espgw authors

#include <string.h>

#include <rte_hash_crc.h>

#include "packet/packet.h"

static uint32_t hash_addresses(const uint8_t *ip)
{
	uint64_t words[4];
	if (ip[0] >> 4 == 4) {
		memcpy(words, ip + offsetof(struct rte_ipv4_hdr, src_addr), sizeof(words[0]));
		return rte_hash_crc_8byte(words[0], 0);
	}
	memcpy(words, ip + offsetof(struct rte_ipv6_hdr, src_addr), sizeof(words));
	uint32_t hash = 0;
	for (unsigned int i = 0; i < RTE_DIM(words); i++)
		hash = rte_hash_crc_8byte(words[i], hash);
	return hash;
}

uint32_t packet_flow_hash(const uint8_t *ip, uint32_t length)
{
	uint32_t hash = hash_addresses(ip), ports;
	struct packet_ip_view view;
	if (packet_ip_view(ip, length, &view) && !view.is_fragment &&
		(view.protocol == IPPROTO_TCP || view.protocol == IPPROTO_UDP) &&
		view.header + sizeof(ports) <= length) {
		memcpy(&ports, ip + view.header, sizeof(ports));
		hash = rte_hash_crc_4byte(ports, hash);
	}
	// A CRC is linear: flows that differ in a few bits could all agree in those that are used.
	hash *= UINT32_C(0x9e3779b1);
	hash = (hash ^ hash >> 15) * UINT32_C(0x85ebca77);
	return hash ^ hash >> 13;
}
