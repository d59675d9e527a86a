// SPDX-License-Identifier: BSD-3-Clause
// Copyright (c) 2026 the espgw authors

// IPv4 packets into fragments.

#include "packet/size.h"

enum { UNIT = 8, OPTION_END = 0, OPTION_NOP = 1, OPTION_COPIED = 0x80 };

// The header of fragments after the first: of the options those that say so (RFC 791 section 3.1).
// 0 when the options are malformed.
static uint32_t copy_header(const uint8_t *header, uint32_t size, uint8_t *later)
{
	uint32_t written = sizeof(struct rte_ipv4_hdr);
	memcpy(later, header, written);
	for (uint32_t i = written; i < size && header[i] != OPTION_END;) {
		if (header[i] == OPTION_NOP) {
			i++;
			continue;
		}
		if (i + 1 == size || header[i + 1] < 2 || header[i + 1] > size - i)
			return 0;
		if ((header[i] & OPTION_COPIED) != 0) {
			memcpy(later + written, header + i, header[i + 1]);
			written += header[i + 1];
		}
		i += header[i + 1];
	}
	while (written % 4 != 0)
		later[written++] = OPTION_END;
	later[0] = (uint8_t)(0x40 | written / 4);
	return written;
}

bool packet_split_begin(struct packet_split *split, const uint8_t *data, uint32_t length,
	uint32_t mtu, uint16_t identification)
{
	const struct rte_ipv4_hdr *ip = (const struct rte_ipv4_hdr *)data;
	uint16_t fragment = rte_be_to_cpu_16(ip->fragment_offset);
	split->header_size = (data[0] & 0x0fu) * 4;
	memcpy(split->header, data, split->header_size);
	split->later_size = copy_header(data, split->header_size, split->later);
	if (split->later_size == 0 || mtu < split->header_size + UNIT)
		return false;
	if ((fragment & RTE_IPV4_HDR_DF_FLAG) != 0 && ip->packet_id == 0) {
		uint16_t id = rte_cpu_to_be_16(identification);
		memcpy(split->header + offsetof(struct rte_ipv4_hdr, packet_id), &id, sizeof(id));
		memcpy(split->later + offsetof(struct rte_ipv4_hdr, packet_id), &id, sizeof(id));
	}
	split->data = data + split->header_size;
	split->left = length - split->header_size;
	split->room = RTE_ALIGN_FLOOR(mtu - split->header_size, (uint32_t)UNIT);
	split->later_room = RTE_ALIGN_FLOOR(mtu - split->later_size, (uint32_t)UNIT);
	split->offset = fragment & RTE_IPV4_HDR_OFFSET_MASK;
	if (split->offset * (uint32_t)UNIT + length > UINT16_MAX)
		return false; // it would end behind the longest packet that there can be
	split->more = fragment & RTE_IPV4_HDR_MF_FLAG;
	return true;
}

uint32_t packet_split_next(struct packet_split *split, uint8_t *to)
{
	if (split->left == 0)
		return 0;
	uint32_t header = split->header_size;
	uint32_t size = RTE_MIN(split->left, split->room);
	bool more = split->more || size < split->left;
	struct rte_ipv4_hdr *ip = (struct rte_ipv4_hdr *)to;
	memcpy(to, split->header, header);
	memcpy(to + header, split->data, size);
	ip->total_length = rte_cpu_to_be_16((uint16_t)(header + size));
	ip->fragment_offset =
		rte_cpu_to_be_16((uint16_t)(split->offset | (more ? RTE_IPV4_HDR_MF_FLAG : 0)));
	ip->hdr_checksum = 0;
	ip->hdr_checksum = packet_checksum_fold(packet_ipv4_sum(to, header));
	split->data += size;
	split->left -= size;
	split->offset = (uint16_t)(split->offset + size / UNIT);
	memcpy(split->header, split->later, split->later_size);
	split->header_size = split->later_size;
	split->room = split->later_room;
	return header + size;
}
