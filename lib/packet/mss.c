// SPDX-License-Identifier: BSD-3-Clause
// Copyright (c) 2026 the espgw authors

// TCP's MSS option on SYN segments.

#include <netinet/in.h>

#include <rte_tcp.h>

#include "packet/size.h"

enum { OPTION_END = 0, OPTION_NOP = 1, OPTION_MSS = 2, OPTION_MSS_SIZE = 4 };

// The TCP header of a SYN segment, all of which lies in the packet; NULL when this is none.
static uint8_t *find_syn(uint8_t *data, uint32_t length, uint32_t *header)
{
	struct packet_ip_view view;
	if (!packet_ip_view(data, length, &view) || view.protocol != IPPROTO_TCP || !view.is_first)
		return NULL;
	uint32_t room = length - view.header;
	if (room < sizeof(struct rte_tcp_hdr))
		return NULL;
	uint8_t *tcp = data + view.header;
	const struct rte_tcp_hdr *fields = (const struct rte_tcp_hdr *)tcp;
	*header = (fields->data_off >> 4) * 4u;
	if (*header < sizeof(*fields) || *header > room ||
		(fields->tcp_flags & RTE_TCP_SYN_FLAG) == 0)
		return NULL;
	return tcp;
}

// Bytes, because the option stands anywhere. At an odd place its bytes are halves of two words of
// the sum, which adds up to the same with the bytes of both values swapped.
static void lower(uint8_t *tcp, uint32_t at, uint16_t old, uint16_t mss)
{
	tcp[at] = (uint8_t)(mss >> 8);
	tcp[at + 1] = (uint8_t)mss;
	if (at % 2 != 0) {
		old = (uint16_t)(old << 8 | old >> 8);
		mss = (uint16_t)(mss << 8 | mss >> 8);
	}
	struct rte_tcp_hdr *fields = (struct rte_tcp_hdr *)tcp;
	uint32_t sum = (uint16_t)~rte_be_to_cpu_16(fields->cksum); // RFC 1624 equation 3
	sum += (uint16_t)~old;
	sum += mss;
	fields->cksum = rte_cpu_to_be_16(packet_checksum_fold(sum));
}

bool packet_tcp_clamp_mss(uint8_t *data, uint32_t length, uint16_t mss)
{
	uint32_t header;
	bool changed = false;
	uint8_t *tcp = find_syn(data, length, &header);
	if (tcp == NULL)
		return false;
	for (uint32_t i = sizeof(struct rte_tcp_hdr); i < header && tcp[i] != OPTION_END;) {
		if (tcp[i] == OPTION_NOP) {
			i++;
			continue;
		}
		if (i + 1 == header || tcp[i + 1] < 2 || tcp[i + 1] > header - i)
			break; // malformed: what follows can't be told
		uint16_t value =
			(uint16_t)(tcp[i + 1] == OPTION_MSS_SIZE ? tcp[i + 2] << 8 | tcp[i + 3]
								 : 0);
		if (tcp[i] == OPTION_MSS && value > mss) {
			lower(tcp, i + 2, value, mss);
			changed = true;
		}
		i += tcp[i + 1];
	}
	return changed;
}
