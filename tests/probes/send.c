// SPDX-License-Identifier: BSD-3-Clause
// Copyright (c) 2026 the espgw authors

#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "probes.h"

// A sender that was off the CPU for long catches up with at most so many times its rate, so that it
// does not itself overflow a queue on the way.
#define CATCH_UP 4

static socklen_t address_length(const struct sockaddr_storage *address)
{
	return address->ss_family == AF_INET6 ? sizeof(struct sockaddr_in6)
					      : sizeof(struct sockaddr_in);
}

static bool stream_open(struct stream_to_send *stream)
{
	stream->socket = socket(stream->to.ss_family, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (stream->socket < 0) {
		perror("probes: socket");
		return false;
	}
	if (stream->from.ss_family != AF_UNSPEC &&
		bind(stream->socket, (struct sockaddr *)&stream->from,
			address_length(&stream->from)) < 0) {
		perror("probes: --source");
		return false;
	}
	if (connect(stream->socket, (struct sockaddr *)&stream->to, address_length(&stream->to)) <
		0) {
		perror("probes: --to");
		return false;
	}
	return true;
}

// Sends `count` probes in batches. What the kernel does not take now is due again at the next tick.
static void stream_send(struct stream_to_send *stream, uint64_t count, unsigned size)
{
	static uint8_t zeros[UINT16_MAX];
	struct probe probes[PROBES_BATCH];
	struct iovec parts[PROBES_BATCH][2];
	struct mmsghdr messages[PROBES_BATCH];
	unsigned i, batch;
	int taken;

	while (count > 0) {
		uint64_t now = clock_ns(CLOCK_REALTIME);

		batch = count < PROBES_BATCH ? (unsigned)count : PROBES_BATCH;
		memset(messages, 0, sizeof(messages));
		for (i = 0; i < batch; i++) {
			probes[i] = (struct probe){PROBES_MAGIC, stream->id, stream->sent + i, now};
			parts[i][0] = (struct iovec){&probes[i], sizeof(probes[i])};
			parts[i][1] = (struct iovec){zeros, size - sizeof(probes[i])};
			messages[i].msg_hdr.msg_iov = parts[i];
			messages[i].msg_hdr.msg_iovlen = 2;
		}
		taken = sendmmsg(stream->socket, messages, batch, MSG_DONTWAIT);
		if (taken <= 0) {
			stream->failed++;
			return;
		}
		stream->sent += (uint64_t)taken;
		count -= (uint64_t)taken;
	}
}

static void print_result(const struct send_options *options, double seconds)
{
	unsigned i;

	printf("{\"seconds\":%.3f,\"streams\":[", seconds);
	for (i = 0; i < options->stream_count; i++) {
		const struct stream_to_send *stream = &options->streams[i];
		uint64_t due = (uint64_t)(options->rate * seconds);

		printf("%s{\"stream\":%llu,\"sent\":%llu,\"unsent\":%llu,\"failed_calls\":%llu}",
			i > 0 ? "," : "", (unsigned long long)stream->id,
			(unsigned long long)stream->sent,
			(unsigned long long)(due > stream->sent ? due - stream->sent : 0),
			(unsigned long long)stream->failed);
	}
	puts("]}");
}

int probes_send(struct send_options *options)
{
	const uint64_t at_once =
		(uint64_t)(CATCH_UP * options->rate * PROBES_TICK_NS / NS_PER_SECOND) + 1;
	uint64_t begin, now, tick;
	double elapsed = 0;
	unsigned i;

	for (i = 0; i < options->stream_count; i++) {
		if (!stream_open(&options->streams[i]))
			return EXIT_FAILURE;
	}
	begin = tick = clock_ns(CLOCK_MONOTONIC);
	while (!probes_stopping && (options->seconds == 0 || elapsed < options->seconds)) {
		tick += PROBES_TICK_NS;
		sleep_until(tick);
		now = clock_ns(CLOCK_MONOTONIC);
		if (now > tick)
			tick = now - (now - begin) % PROBES_TICK_NS;
		elapsed = (double)(now - begin) / NS_PER_SECOND;
		if (options->seconds > 0 && elapsed > options->seconds)
			elapsed = options->seconds;
		for (i = 0; i < options->stream_count; i++) {
			struct stream_to_send *stream = &options->streams[i];
			uint64_t due = (uint64_t)(options->rate * elapsed);
			uint64_t count = due > stream->sent ? due - stream->sent : 0;

			stream_send(stream, count < at_once ? count : at_once, options->size);
		}
	}
	print_result(options, elapsed);
	return EXIT_SUCCESS;
}
