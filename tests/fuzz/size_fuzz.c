// SPDX-License-Identifier: BSD-3-Clause
// Copyright (c) 2026 the espgw authors

// Any bytes as an IP packet that is too large, a TCP SYN, or what an ICMP error is about. The first
// four bytes are the numbers that the gateway would choose.

#include <stdlib.h>
#include <string.h>

#include "packet/size.h"

int LLVMFuzzerTestOneInput(const uint8_t *input, size_t size);

static void require(bool condition)
{
	if (!condition)
		abort();
}

static void clamp(uint8_t *data, uint32_t length, uint16_t mss)
{
	uint8_t *before = calloc(1, length + 80); // the guess reads behind short packets
	require(before != NULL);
	memcpy(before, data, length);
	bool changed = packet_tcp_clamp_mss(data, length, mss);
	require(changed == (memcmp(before, data, length) != 0));
	require(!changed || packet_guess_syn(before) != 0);
	require(!changed || before[0] != RTE_IPV4_VHL_DEF || packet_plain_guess_syn(before) != 0);
	require(!packet_tcp_clamp_mss(data, length, mss)); // once is enough
	memcpy(data, before, length);
	free(before);
}

static void split(const uint8_t *data, uint32_t length, uint32_t mtu, uint16_t identification)
{
	struct packet_split split;
	uint32_t size, payload = 0, ignored;
	if (!packet_split_begin(&split, data, length, mtu, identification))
		return;
	uint8_t *fragment = malloc(mtu);
	require(fragment != NULL);
	while ((size = packet_split_next(&split, fragment)) != 0) {
		require(size <= mtu);
		require(packet_ip_check(fragment, size, true, &ignored) == DROP_NONE);
		require(ignored == size && packet_ipv4_may_split(fragment));
		payload += size - (fragment[0] & 0x0fu) * 4;
	}
	require(payload == length - (data[0] & 0x0fu) * 4);
	free(fragment);
}

static void answer(const uint8_t *data, uint32_t length, uint32_t mtu)
{
	if (!packet_icmp_may_answer(data, length))
		return;
	uint32_t before = data[0] >> 4 == 4 ? PACKET_ICMP_V4_BEFORE : PACKET_ICMP_V6_BEFORE;
	uint32_t most = data[0] >> 4 == 4 ? PACKET_ICMP_V4_SIZE : PACKET_ICMP_V6_SIZE, ignored;
	struct packet_address source = {.family = data[0] >> 4, .bytes = {10, 1, 0, 1}};
	uint8_t *message = malloc(before + length);
	require(message != NULL);
	for (unsigned int error = 0; error <= PACKET_ICMP_TOO_BIG; error++) {
		memcpy(message + before, data, length);
		uint32_t size = packet_icmp_build(message + before, length, error, mtu, &source, 1);
		require(size <= most && size <= before + length);
		require(packet_ip_check(message, size, true, &ignored) == DROP_NONE);
		require(ignored == size && !packet_icmp_may_answer(message, size));
	}
	free(message);
}

int LLVMFuzzerTestOneInput(const uint8_t *input, size_t size)
{
	uint16_t numbers[2];
	uint32_t length = 0;
	if (size < sizeof(numbers) || size > UINT16_MAX)
		return 0;
	memcpy(numbers, input, sizeof(numbers));
	size -= sizeof(numbers);
	if (packet_ip_check(input + sizeof(numbers), (uint32_t)size, false, &length) != DROP_NONE)
		return 0;
	// A copy of exactly this size, so that the sanitizer sees a read behind the end.
	uint8_t *data = malloc(length);
	require(data != NULL);
	memcpy(data, input + sizeof(numbers), length);
	clamp(data, length, numbers[0]);
	if (data[0] >> 4 == 4)
		split(data, length, RTE_MAX(numbers[1], (uint16_t)68), numbers[0]);
	answer(data, length, numbers[1]);
	free(data);
	return 0;
}
