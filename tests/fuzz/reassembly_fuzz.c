// SPDX-License-Identifier: BSD-3-Clause
// Copyright (c) 2026 the espgw authors

// Fragments as anybody may send them, in any order: no buffer is lost, what becomes whole is a
// right IP packet with each byte in its place, and the table keeps its limits.

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "../unit/eal.h"
#include "dataplane/reassembly.h"

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { BUFFERS = 255, PACKETS = 4, DATA_ROOM = 2048, TIMEOUT = 64, RECORD = 5, PIECE_MAX = 1500 };

static struct rte_mempool *pool;
static struct reassembly *table;
static unsigned int alive; // fragments given to the table that have not come back

static void require(bool condition)
{
	if (!condition)
		abort();
}

static void on_end(void *argument, struct rte_mbuf *fragment, enum drop_reason reason)
{
	(void)argument;
	require(reason < DROP_COUNT);
	alive--;
	rte_pktmbuf_free(fragment);
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	(void)argc;
	(void)argv;
	static const uint64_t keys[REASSEMBLY_WORDS] = {3, 5, 7, 11, 13, 17, 19, 23, 29, 31};
	require(test_eal_start("64") == 0);
	pool = rte_pktmbuf_pool_create(
		"packets", BUFFERS, 0, 0, RTE_PKTMBUF_HEADROOM + DATA_ROOM, 0);
	const struct reassembly_parameters parameters = {
		.packets = PACKETS, .timeout = TIMEOUT, .pool = pool, .keys = keys, .end = on_end};
	table = pool == NULL ? NULL : reassembly_create(&parameters);
	require(table != NULL);
	return 0;
}

static uint8_t byte_at(uint32_t offset)
{
	return (uint8_t)(offset * 31 + offset / 256 + 1);
}

// What a record stands for. Flags: bit 0 family, 1 more, 2 to 3 content, 4 to 5 id, 6 to 7 clock.
struct record {
	uint8_t flags;
	uint16_t offset, size;
};

static uint32_t write_ipv4(const struct record *record, uint8_t *ip)
{
	struct rte_ipv4_hdr *header = (struct rte_ipv4_hdr *)ip;
	header->version_ihl = RTE_IPV4_VHL_DEF;
	header->total_length = rte_cpu_to_be_16((uint16_t)(sizeof(*header) + record->size));
	header->packet_id = record->flags >> 4 & 3;
	header->fragment_offset =
		rte_cpu_to_be_16((uint16_t)((record->offset & RTE_IPV4_HDR_OFFSET_MASK) |
					    (record->flags & 2 ? RTE_IPV4_HDR_MF_FLAG : 0)));
	header->next_proto_id = 50;
	header->src_addr = RTE_BE32(0x0a000001);
	header->dst_addr = RTE_BE32(0x0a000002);
	header->hdr_checksum = packet_checksum_fold(packet_ipv4_sum(ip, sizeof(*header)));
	return sizeof(*header);
}

static uint32_t write_ipv6(const struct record *record, uint8_t *ip)
{
	struct rte_ipv6_hdr *header = (struct rte_ipv6_hdr *)ip;
	uint8_t *extension = ip + sizeof(*header);
	uint16_t field = (uint16_t)(record->offset << 3 | (record->flags >> 1 & 1));
	ip[0] = 0x60;
	header->payload_len = rte_cpu_to_be_16((uint16_t)(8 + record->size));
	header->proto = 44;
	extension[0] = 50;
	extension[2] = (uint8_t)(field >> 8);
	extension[3] = (uint8_t)field;
	extension[4] = record->flags >> 4 & 3;
	return sizeof(*header) + 8;
}

static void check_whole(struct rte_mbuf *whole)
{
	const uint8_t *ip = rte_pktmbuf_mtod_offset(whole, const uint8_t *, RTE_ETHER_HDR_LEN);
	uint32_t size = whole->data_len - (uint32_t)RTE_ETHER_HDR_LEN, length = 0;
	struct packet_fragment fragment;
	struct packet_ip_view view;
	require(whole->data_off + whole->data_len <= whole->buf_len && whole->nb_segs == 1);
	require(packet_ip_check(ip, size, true, &length) == DROP_NONE && length == size);
	require(!packet_fragment_view(ip, length, &fragment));
	require(packet_ip_view(ip, length, &view) && !view.is_fragment && view.protocol == 50);
	for (uint32_t i = view.header; i < length; i++)
		require(ip[i] == byte_at(i - view.header));
	rte_pktmbuf_free(whole);
}

static void add(const struct record *record, uint64_t now)
{
	struct rte_mbuf *frame = rte_pktmbuf_alloc(pool);
	struct packet_fragment fragment;
	struct reassembly_result result;
	require(frame != NULL);
	uint8_t *ip = rte_pktmbuf_mtod_offset(frame, uint8_t *, RTE_ETHER_HDR_LEN);
	memset(ip, 0, 60);
	uint32_t header = record->flags & 1 ? write_ipv6(record, ip) : write_ipv4(record, ip);
	for (uint32_t i = 0; i < record->size; i++)
		ip[header + i] = byte_at((record->offset & RTE_IPV4_HDR_OFFSET_MASK) * 8u + i);
	frame->data_len = (uint16_t)(RTE_ETHER_HDR_LEN + header + record->size);
	frame->pkt_len = frame->data_len;
	if (!packet_fragment_view(ip, header + record->size, &fragment)) {
		rte_pktmbuf_free(frame);
		return;
	}
	enum reassembly_content content = REASSEMBLY_CONTENT_LATER;
	if (fragment.offset == 0)
		content = (record->flags & 0xc) == 0xc ? REASSEMBLY_CONTENT_HOST
						       : REASSEMBLY_CONTENT_ESP;
	alive++;
	reassembly_add(table, frame, &fragment, content, now, &result);
	for (unsigned int i = 0; i < result.count; i++)
		rte_pktmbuf_free(result.packets[i]);
	alive -= result.count;
	if (result.whole != NULL) {
		alive--; // it has the first one's place
		check_whole(result.whole);
	}
	require(table->held == alive && table->packets <= PACKETS);
	require(table->held <= PACKETS * REASSEMBLY_MEAN_FRAGMENTS);
}

// Bytes of any kind as an IP packet: what is read of it lies within it.
static void view_raw(const uint8_t *data, size_t size)
{
	uint8_t *copy = malloc(size);
	uint32_t length = 0;
	struct packet_fragment fragment;
	struct packet_ip_view view;
	require(copy != NULL);
	memcpy(copy, data, size);
	if (packet_ip_check(copy, (uint32_t)size, false, &length) == DROP_NONE &&
		packet_ip_view(copy, length, &view) &&
		packet_fragment_view(copy, length, &fragment)) {
		require(view.is_fragment);
		require(fragment.begin + fragment.size == length);
		require(fragment.header <= fragment.begin && fragment.link < fragment.header);
		packet_fragment_finish(copy, &fragment, fragment.size);
	}
	free(copy);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	uint64_t now = 0;
	if (size > 0)
		view_raw(data, RTE_MIN(size, (size_t)UINT16_MAX));
	for (; size >= RECORD; data += RECORD, size -= RECORD) {
		struct record record = {.flags = data[0],
			.offset = (uint16_t)(data[1] << 8 | data[2]),
			.size = (uint16_t)((data[3] << 8 | data[4]) % PIECE_MAX)};
		now += (uint64_t)(record.flags >> 6) * (TIMEOUT / 8);
		add(&record, now);
	}
	reassembly_drop_all(table, DROP_STOPPED);
	require(alive == 0 && rte_mempool_avail_count(pool) == BUFFERS);
	return 0;
}
