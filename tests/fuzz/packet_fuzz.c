// SPDX-License-Identifier: BSD-3-Clause
// Copyright (c) 2026 the espgw authors

// Any bytes as an IP packet: what packet_ip_check lets through, the other functions handle within
// its length, and they keep it right.

#include <stdlib.h>
#include <string.h>

#include "packet/packet.h"

int LLVMFuzzerTestOneInput(const uint8_t *input, size_t size);

static void require(bool condition)
{
	if (!condition)
		abort();
}

// What is read as an echo request is read as its reply once it is answered.
static void answer_echo(uint8_t *data, uint32_t length)
{
	struct packet_echo echo, answer;
	if (!packet_echo_read(data, length, &echo))
		return;
	require(echo.payload + echo.size == data + length);
	if (echo.is_reply)
		return;
	packet_echo_answer(data);
	require(packet_echo_read(data, length, &answer) && answer.is_reply);
	require(answer.identifier == echo.identifier && answer.size == echo.size);
}

static void change_header(uint8_t *data, uint32_t size)
{
	uint32_t length;
	uint8_t dscp = packet_ip_traffic_class(data) & PACKET_IP_DSCP_MASK;
	// As it came, the checksum may be wrong: it is right after the changes when it was before.
	bool right = packet_ip_check(data, size, true, &length) == DROP_NONE;
	for (uint8_t ecn = 0; ecn <= PACKET_IP_ECN_MASK; ecn++) {
		packet_ip_set_ecn(data, ecn);
		require(packet_ip_traffic_class(data) == (dscp | ecn));
		require((packet_ip_check(data, size, true, &length) == DROP_NONE) == right);
	}
	uint8_t *ttl = data + (data[0] >> 4 == 4 ? offsetof(struct rte_ipv4_hdr, time_to_live)
						 : offsetof(struct rte_ipv6_hdr, hop_limits));
	uint8_t before = *ttl;
	bool alive = packet_ip_decrement_ttl(data);
	require(alive == (before > 1) && *ttl == before - alive);
	require((packet_ip_check(data, size, true, &length) == DROP_NONE) == right);
}

// Also with the checksum made right, which nobody who sends would get wrong.
static void read_too_big(uint8_t *data, uint32_t length, const struct packet_ip_view *view)
{
	struct packet_too_big message = {0};
	if (!packet_is_too_big_message(data, length, view))
		return;
	if (!packet_too_big_parse(data, length, view, &message)) {
		uint8_t *icmp = data + view->header;
		uint32_t sum = 0, size = length - view->header;
		icmp[2] = icmp[3] = 0;
		for (uint32_t i = 8; data[0] >> 4 != 4 && i < 40; i++)
			sum += i % 2 == 0 ? (uint32_t)data[i] << 8 : data[i];
		for (uint32_t i = 0; i < size; i++)
			sum += i % 2 == 0 ? (uint32_t)icmp[i] << 8 : icmp[i];
		sum += data[0] >> 4 != 4 ? size + 58 : 0;
		uint16_t checksum = packet_checksum_fold(sum);
		icmp[2] = (uint8_t)(checksum >> 8);
		icmp[3] = (uint8_t)checksum;
		if (!packet_too_big_parse(data, length, view, &message))
			return;
	}
	require(message.source.family == message.destination.family);
	require(message.source.family == (data[0] >> 4 == 4 ? 4 : 6));
	require((message.udp_source | message.udp_destination) == 0 ||
		length >= view->header + 8 + 20 + 8 + 8);
}

int LLVMFuzzerTestOneInput(const uint8_t *input, size_t size)
{
	if (size > UINT16_MAX)
		return 0;
	// A copy of exactly this size, so that the sanitizer sees a read behind the end.
	uint8_t *data = malloc(size);
	if (data == NULL)
		return 0;
	if (size > 0)
		memcpy(data, input, size);
	uint32_t length = 0;
	if (packet_ip_check(data, (uint32_t)size, false, &length) == DROP_NONE) {
		require(length >= sizeof(struct rte_ipv4_hdr) && length <= size);
		// The packet alone, without what follows it.
		data = realloc(data, length);
		require(data != NULL);
		struct packet_ip_view view;
		if (packet_ip_view(data, length, &view)) {
			require(view.header >= sizeof(struct rte_ipv4_hdr));
			require(view.header <= length);
			require(view.is_first || view.is_fragment);
			read_too_big(data, length, &view);
		}
		uint32_t hash = packet_flow_hash(data, length);
		change_header(data, length);
		require(packet_flow_hash(data, length) == hash);
		answer_echo(data, length);
	}
	free(data);
	return 0;
}
