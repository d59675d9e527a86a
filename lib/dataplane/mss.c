// SPDX-License-Identifier: BSD-3-Clause
// Copyright (c) 2026 the espgw authors

// TCP's MSS, lowered in the SYN segments of both directions: what either end sends then fits the
// tunnel, even where no ICMP message tells it so.

#include "internal.h"

// IP and TCP headers without options, which the MSS is exclusive of (RFC 6691).
enum { HEADERS_V4 = 20 + 20, HEADERS_V6 = 40 + 20 };

// 0 = it stays as it is.
static uint32_t mss_of(const struct worker *worker, uint32_t index, bool is_ipv4)
{
	const struct tunnel *tunnel = tunnel_get(worker->dataplane->tunnels, index);
	uint32_t mss = __atomic_load_n(&tunnel->mss, __ATOMIC_RELAXED);
	if (mss != CONFIG_MSS_AUTO)
		return mss == CONFIG_MSS_OFF ? 0 : mss;
	uint32_t mtu = tunnel_offered_mtu(
		tunnel, atomic_load_explicit(&tunnel->egress, memory_order_acquire));
	uint32_t headers = is_ipv4 ? HEADERS_V4 : HEADERS_V6;
	return mtu > headers ? mtu - headers : 0;
}

__attribute__((noinline)) void mss_clamp(struct worker *worker, struct rte_mbuf *const *packets,
	const uint32_t *tunnels, unsigned int count)
{
	for (unsigned int i = 0; i < count; i++) {
		uint8_t *ip = rte_pktmbuf_mtod(packets[i], uint8_t *);
		bool is_ipv4 = ip[0] >> 4 == 4;
		if (packet_guess_syn(ip) == 0)
			continue;
		uint32_t mss = mss_of(worker, tunnels[i], is_ipv4);
		if (mss != 0)
			packet_tcp_clamp_mss(ip, packets[i]->data_len, (uint16_t)mss);
	}
}
