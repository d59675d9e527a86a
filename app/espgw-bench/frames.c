// SPDX-License-Identifier: BSD-3-Clause
// Copyright (c) 2026 the espgw authors

// UDP packets between hosts behind the gateway (10.1.0.0/16) and hosts behind the far side, by a
// route that is drawn anew for each packet of each round, and an SA that goes with it.

#include <string.h>

#include <rte_ether.h>
#include <rte_ip.h>
#include <rte_udp.h>

#include "bench.h"
#include "packet/packet.h"

// rte_ipsec keeps the AAD behind the ICV while it works.
#define TAILROOM   (ESP_TAILROOM_MAX + 16)
#define OUTER_SIZE (sizeof(struct rte_ipv4_hdr) + ESP_HEADER_SIZE + ESP_IV_SIZE)

const char *const bench_sizes[BENCH_SIZES] = {"64", "256", "512", "1024", "1400", "imix"};

uint32_t bench_buffer_size(enum bench_size size)
{
	static const uint32_t largest[BENCH_SIZES] = {64, 256, 512, 1024, 1400, 1400};
	uint32_t frame =
		(uint32_t)(sizeof(struct rte_ether_hdr) + OUTER_SIZE) + largest[size] + TAILROOM;
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

enum bench_path bench_frame_path(enum bench_path path, unsigned int index, unsigned int count)
{
	if (path != BENCH_BOTH)
		return path;
	return index < count / 2 ? BENCH_ENCAP : BENCH_DECAP;
}

// The same number for the same packet of the same round (the finalizer of MurmurHash3).
static uint32_t draw(const struct bench_frames *frames, unsigned int index)
{
	uint32_t word = frames->round * UINT32_C(0x9e3779b9) + index;
	word = (word ^ word >> 16) * UINT32_C(0x85ebca6b);
	word = (word ^ word >> 13) * UINT32_C(0xc2b2ae35);
	return word ^ word >> 16;
}

// The route that leads packet `index` to the far side, or that its source lies on. Workers have
// routes of their own, and so SAs of their own if there are several.
static unsigned int draw_route(
	const struct bench_gateway *gateway, const struct bench_frames *frames, unsigned int index)
{
	unsigned int workers = gateway->worker_count;
	return draw(frames, index) % (gateway->routes / workers) * workers + frames->worker;
}

static unsigned int draw_sa(const struct bench_gateway *gateway, const struct bench_frames *frames,
	enum bench_path path, unsigned int index)
{
	return draw_route(gateway, frames, index) %
	       (path == BENCH_ENCAP ? gateway->tunnels : gateway->sas);
}

static void write_inner(const struct bench_gateway *gateway, const struct bench_frames *frames,
	uint8_t *data, enum bench_path path, uint32_t size, unsigned int index)
{
	uint32_t near = RTE_IPV4(10, 1, 0, 1 + index % 250);
	uint32_t far = bench_route_address(draw_route(gateway, frames, index), index);
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
	const struct bench_gateway *gateway, const struct bench_frames *frames, unsigned int begin)
{
	struct esp_sa_out *sas[BENCH_CALL_MAX];
	uint8_t drops[BENCH_CALL_MAX];
	unsigned int refused = 0;
	for (unsigned int i = begin, call; i < frames->count; i += call) {
		call = RTE_MIN(frames->count - i, (unsigned int)BENCH_CALL_MAX);
		for (unsigned int j = 0; j < call; j++)
			sas[j] = gateway->far_out[frames->sas[i + j]];
		refused += esp_encapsulate(gateway->workers[frames->worker].far,
			frames->packets + i, sas, drops, call);
	}
	return refused == 0 ? 0 : -1;
}

static unsigned int first_esp(enum bench_path path, unsigned int count)
{
	return path == BENCH_ENCAP ? count : path == BENCH_DECAP ? 0 : count / 2;
}

int bench_frames_make(struct bench_gateway *gateway, enum bench_path path, enum bench_size size,
	struct bench_frames *frames)
{
	frames->round = ++gateway->round;
	for (unsigned int i = 0; i < frames->count; i++) {
		enum bench_path way = bench_frame_path(path, i, frames->count);
		uint32_t bytes = bench_inner_size(size, i);
		// The frame starts at the buffer's usual place, where a driver would put it.
		reset(frames->packets[i],
			sizeof(struct rte_ether_hdr) + (way == BENCH_ENCAP ? 0 : OUTER_SIZE),
			bytes);
		frames->sas[i] = (uint16_t)draw_sa(gateway, frames, way, i);
		write_inner(gateway, frames, rte_pktmbuf_mtod(frames->packets[i], uint8_t *), way,
			bytes, i);
	}
	if (far_encapsulate(gateway, frames, first_esp(path, frames->count)) != 0)
		return -1;
	for (unsigned int i = 0; i < frames->count; i++) {
		bool encap = bench_frame_path(path, i, frames->count) == BENCH_ENCAP;
		prepend_ethernet(
			frames->packets[i], &gateway->macs[encap ? BENCH_INSIDE : BENCH_OUTSIDE]);
	}
	return 0;
}

static int far_decapsulate(const struct bench_gateway *gateway, const struct bench_frames *frames,
	unsigned int index, struct bench_error *error)
{
	struct rte_mbuf *packet = frames->packets[index];
	const uint8_t traffic_class = 0;
	uint8_t drop = DROP_NONE;
	rte_pktmbuf_adj(packet, sizeof(struct rte_ipv4_hdr));
	// Where tunnels share a route, the gateway has chosen one.
	unsigned int used =
		bench_sa_index(rte_be_to_cpu_32(*rte_pktmbuf_mtod(packet, const rte_be32_t *)));
	if (used >= gateway->tunnels || (gateway->shared == 1 && used != frames->sas[index]))
		return bench_fail(error, "the ESP is of another SA than the route's");
	struct esp_sa_in *sa = gateway->far_in[used];
	if (esp_decapsulate(gateway->workers[frames->worker].far, &packet, &sa, &traffic_class,
		    &drop, 1) != 0)
		return bench_fail(
			error, "the far side refuses the ESP: %s", drop_reason_sentence(drop));
	return 0;
}

int bench_frames_check(const struct bench_gateway *gateway, enum bench_path path,
	enum bench_size size, const struct bench_frames *frames, bool by_gateway,
	struct bench_error *error)
{
	for (unsigned int i = 0; i < frames->count; i++) {
		struct rte_mbuf *packet = frames->packets[i];
		enum bench_path way = bench_frame_path(path, i, frames->count);
		uint8_t expected[BENCH_INNER_MAX];
		uint32_t bytes = bench_inner_size(size, i);
		write_inner(gateway, frames, expected, way, bytes, i);
		if (by_gateway) {
			packet_ip_decrement_ttl(expected);
			rte_pktmbuf_adj(packet, sizeof(struct rte_ether_hdr));
		}
		if (way == BENCH_ENCAP && far_decapsulate(gateway, frames, i, error) != 0)
			return -1;
		if (packet->data_len != bytes ||
			memcmp(rte_pktmbuf_mtod(packet, void *), expected, bytes) != 0)
			return bench_fail(error, "%s%s: a packet of %u bytes came out wrong",
				by_gateway ? "" : "rte_ipsec: ", bench_paths[way], bytes);
	}
	return 0;
}
