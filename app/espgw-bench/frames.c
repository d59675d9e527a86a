// SPDX-License-Identifier: BSD-3-Clause
// Copyright (c) 2026 the espgw authors

// UDP packets between hosts behind the gateway (10.1.0.0/16) and hosts behind the far side
// (192.168.192.0/26).

#include <string.h>

#include <rte_ether.h>
#include <rte_ip.h>
#include <rte_udp.h>

#include "bench.h"
#include "packet/packet.h"

#define OUTER_SIZE (sizeof(struct rte_ipv4_hdr) + ESP_HEADER_SIZE + ESP_IV_SIZE)

const char *const bench_sizes[BENCH_SIZES] = {"64", "256", "512", "1024", "1400", "imix"};

uint32_t bench_buffer_size(enum bench_size size)
{
	static const uint32_t largest[BENCH_SIZES] = {64, 256, 512, 1024, 1400, 1400};
	uint32_t frame = (uint32_t)(sizeof(struct rte_ether_hdr) + OUTER_SIZE) + largest[size] +
			 ESP_TAILROOM_MAX;
	return RTE_PKTMBUF_HEADROOM + RTE_ALIGN_CEIL(frame, RTE_CACHE_LINE_SIZE);
}

uint32_t bench_inner_size(enum bench_size size, unsigned int index)
{
	static const uint32_t sizes[BENCH_SIZES] = {64, 256, 512, 1024, 1400};
	// The simple IMIX, 7:4:1, spread.
	static const uint16_t mix[12] = {64, 570, 64, 64, 570, 64, 1400, 64, 570, 64, 64, 570};
	if (size != BENCH_IMIX)
		return sizes[size];
	// Every twelve packets start at another place, so that the core can't learn the order.
	return mix[(index + index / 12 * 7) % 12];
}

// Inner packet `index`: 62 hosts there, 250 here.
static void write_inner(uint8_t *data, enum bench_path path, uint32_t size, unsigned int index)
{
	uint32_t near = RTE_IPV4(10, 1, 0, 1 + index % 250);
	uint32_t far = RTE_IPV4(192, 168, 192, 1 + index % 62);
	struct rte_ipv4_hdr ip = {
		.version_ihl = RTE_IPV4_VHL_DEF,
		.total_length = rte_cpu_to_be_16((uint16_t)size),
		.time_to_live = 64,
		.next_proto_id = IPPROTO_UDP,
		.src_addr = rte_cpu_to_be_32(path == BENCH_ENCAP ? near : far),
		.dst_addr = rte_cpu_to_be_32(path == BENCH_ENCAP ? far : near),
	};
	ip.hdr_checksum = rte_ipv4_cksum(&ip);
	struct rte_udp_hdr udp = {
		.src_port = rte_cpu_to_be_16((uint16_t)(1024 + index)),
		.dst_port = rte_cpu_to_be_16(5001),
		.dgram_len = rte_cpu_to_be_16((uint16_t)(size - sizeof(ip))),
	};
	memcpy(data, &ip, sizeof(ip));
	memcpy(data + sizeof(ip), &udp, sizeof(udp));
	memset(data + sizeof(ip) + sizeof(udp), (int)(index & 0xff),
		size - sizeof(ip) - sizeof(udp));
}

// The buffer becomes an inner packet with `room` bytes before it.
static void reset(struct rte_mbuf *packet, uint32_t room, uint32_t size)
{
	rte_pktmbuf_reset(packet);
	packet->data_off = (uint16_t)(packet->data_off + room);
	packet->data_len = (uint16_t)size;
	packet->pkt_len = size;
}

static void prepend_ethernet(struct rte_mbuf *packet, const struct rte_ether_addr *destination)
{
	struct rte_ether_hdr *ethernet =
		(struct rte_ether_hdr *)rte_pktmbuf_prepend(packet, sizeof(*ethernet));
	*ethernet = (struct rte_ether_hdr){
		.dst_addr = *destination,
		.src_addr = {{0x02, 0, 0, 0, 0, 0x77}},
		.ether_type = RTE_BE16(RTE_ETHER_TYPE_IPV4),
	};
}

static int far_encapsulate(
	const struct bench_gateway *gateway, struct rte_mbuf **packets, unsigned int count)
{
	struct esp_sa_out *sas[BENCH_CALL_MAX];
	uint8_t drops[BENCH_CALL_MAX];
	unsigned int refused = 0;
	for (unsigned int i = 0; i < BENCH_CALL_MAX; i++)
		sas[i] = gateway->far_out;
	for (unsigned int i = 0; i < count; i += BENCH_CALL_MAX)
		refused += esp_encapsulate(gateway->far, packets + i, sas, drops,
			RTE_MIN(count - i, (unsigned int)BENCH_CALL_MAX));
	return refused == 0 ? 0 : -1;
}

int bench_frames_make(const struct bench_gateway *gateway, enum bench_path path,
	enum bench_size size, struct rte_mbuf **packets, unsigned int count)
{
	bool encap = path == BENCH_ENCAP;
	unsigned int port = encap ? BENCH_INSIDE : BENCH_OUTSIDE;
	// The frame starts at the buffer's usual place, where a driver would put it.
	uint32_t room = sizeof(struct rte_ether_hdr) + (encap ? 0 : (uint32_t)OUTER_SIZE);
	for (unsigned int i = 0; i < count; i++) {
		uint32_t bytes = bench_inner_size(size, i);
		reset(packets[i], room, bytes);
		write_inner(rte_pktmbuf_mtod(packets[i], uint8_t *), path, bytes, i);
	}
	if (!encap && far_encapsulate(gateway, packets, count) != 0)
		return -1;
	for (unsigned int i = 0; i < count; i++)
		prepend_ethernet(packets[i], &gateway->macs[port]);
	return 0;
}

static int far_decapsulate(
	const struct bench_gateway *gateway, struct rte_mbuf *packet, struct bench_error *error)
{
	struct esp_sa_in *sa = gateway->far_in;
	const uint8_t traffic_class = 0;
	uint8_t drop = DROP_NONE;
	rte_pktmbuf_adj(packet, sizeof(struct rte_ipv4_hdr));
	if (esp_decapsulate(gateway->far, &packet, &sa, &traffic_class, &drop, 1) != 0)
		return bench_fail(error, "the far side refuses the gateway's ESP: %s",
			drop_reason_sentence(drop));
	return 0;
}

int bench_frames_check(const struct bench_gateway *gateway, enum bench_path path,
	enum bench_size size, struct rte_mbuf **packets, unsigned int count,
	struct bench_error *error)
{
	for (unsigned int i = 0; i < count; i++) {
		uint8_t expected[BENCH_INNER_MAX];
		uint32_t bytes = bench_inner_size(size, i);
		write_inner(expected, path, bytes, i);
		packet_ip_decrement_ttl(expected);
		rte_pktmbuf_adj(packets[i], sizeof(struct rte_ether_hdr));
		if (path == BENCH_ENCAP && far_decapsulate(gateway, packets[i], error) != 0)
			return -1;
		if (packets[i]->data_len != bytes ||
			memcmp(rte_pktmbuf_mtod(packets[i], void *), expected, bytes) != 0)
			return bench_fail(error, "%s: a packet of %u bytes came out wrong",
				bench_paths[path], bytes);
	}
	return 0;
}
