// SPDX-License-Identifier: BSD-3-Clause
// Copyright (c) 2026 the espgw authors

#include <errno.h>
#include <linux/sock_diag.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "probes.h"

#define SOCKET_BUFFER (64 << 20) // bytes; holds more than a second at 50,000 packets a second
#define RANGES_SHOWN  10         // of missing numbers, per stream
#define WORD_BITS     64

struct stream {
	uint64_t id;
	uint64_t *words;     // one bit per number: it came
	uint64_t *word_time; // when the first number of the word came, 0: none did
	uint64_t word_count;
	uint64_t received, duplicated, reordered;
	uint64_t highest;                   // number
	uint64_t first_time, last_time;     // of arrival
	uint64_t longest_gap, longest_wait; // between two arrivals; from sending to arrival
	uint64_t longest_gap_time;          // when it ended
};

struct receiver {
	struct stream streams[PROBES_STREAMS];
	unsigned stream_count;
	uint64_t received;
	uint64_t foreign; // packets that are no probes, or of too many streams
	int socket;
};

// All times are CLOCK_REALTIME in nanoseconds: the kernel's stamp of arrival, which does not depend
// on when this program gets to read.
struct batch {
	struct probe probes[PROBES_BATCH];
	struct iovec parts[PROBES_BATCH];
	struct mmsghdr messages[PROBES_BATCH];
	union {
		char bytes[CMSG_SPACE(sizeof(struct timespec))];
		struct cmsghdr aligned;
	} control[PROBES_BATCH];
};

static bool receiver_open(struct receiver *receiver, uint16_t port)
{
	const int on = 1, off = 0, size = SOCKET_BUFFER;
	// IPv4 comes as mapped addresses.
	struct sockaddr_in6 any = {.sin6_family = AF_INET6, .sin6_port = htons(port)};

	receiver->socket = socket(AF_INET6, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (receiver->socket < 0 ||
		setsockopt(receiver->socket, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof(off)) < 0) {
		perror("probes: socket");
		return false;
	}
	if (setsockopt(receiver->socket, SOL_SOCKET, SO_RCVBUFFORCE, &size, sizeof(size)) < 0) {
		perror("probes: SO_RCVBUFFORCE (are you root?)");
		return false;
	}
	if (setsockopt(receiver->socket, SOL_SOCKET, SO_TIMESTAMPNS, &on, sizeof(on)) < 0 ||
		bind(receiver->socket, (struct sockaddr *)&any, sizeof(any)) < 0) {
		perror("probes: --port");
		return false;
	}
	return true;
}

static struct stream *receiver_stream(struct receiver *receiver, uint64_t id)
{
	unsigned i;

	for (i = 0; i < receiver->stream_count; i++) {
		if (receiver->streams[i].id == id)
			return &receiver->streams[i];
	}
	if (i == PROBES_STREAMS)
		return NULL;
	receiver->stream_count++;
	receiver->streams[i].id = id;
	return &receiver->streams[i];
}

static void stream_make_room(struct stream *stream, uint64_t number)
{
	uint64_t wanted = number / WORD_BITS + 1, had = stream->word_count;

	if (wanted <= had)
		return;
	if (wanted < 2 * had)
		wanted = 2 * had;
	stream->words = reallocarray(stream->words, wanted, sizeof(*stream->words));
	stream->word_time = reallocarray(stream->word_time, wanted, sizeof(*stream->word_time));
	if (stream->words == NULL || stream->word_time == NULL) {
		fprintf(stderr, "probes: no memory\n");
		exit(EXIT_FAILURE);
	}
	memset(&stream->words[had], 0, (wanted - had) * sizeof(*stream->words));
	memset(&stream->word_time[had], 0, (wanted - had) * sizeof(*stream->word_time));
	stream->word_count = wanted;
}

static void stream_take_time(struct stream *stream, const struct probe *probe, uint64_t now)
{
	if (stream->received == 0)
		stream->first_time = stream->last_time = now;
	if (now > stream->last_time && now - stream->last_time > stream->longest_gap) {
		stream->longest_gap = now - stream->last_time;
		stream->longest_gap_time = now;
	}
	if (now > stream->last_time)
		stream->last_time = now;
	if (now > probe->sent_ns && now - probe->sent_ns > stream->longest_wait)
		stream->longest_wait = now - probe->sent_ns;
}

static void stream_take(struct stream *stream, const struct probe *probe, uint64_t now)
{
	uint64_t word = probe->number / WORD_BITS, bit = 1ull << probe->number % WORD_BITS;

	stream_make_room(stream, probe->number);
	if (stream->words[word] & bit) {
		stream->duplicated++;
		return;
	}
	stream->words[word] |= bit;
	if (stream->word_time[word] == 0)
		stream->word_time[word] = now;
	stream_take_time(stream, probe, now);
	if (probe->number < stream->highest)
		stream->reordered++;
	else
		stream->highest = probe->number;
	stream->received++;
}

static uint64_t arrival_time(struct msghdr *message)
{
	struct cmsghdr *part;
	struct timespec time;

	for (part = CMSG_FIRSTHDR(message); part != NULL; part = CMSG_NXTHDR(message, part)) {
		if (part->cmsg_level == SOL_SOCKET && part->cmsg_type == SCM_TIMESTAMPNS) {
			memcpy(&time, CMSG_DATA(part), sizeof(time));
			return (uint64_t)time.tv_sec * NS_PER_SECOND + (uint64_t)time.tv_nsec;
		}
	}
	return clock_ns(CLOCK_REALTIME);
}

// Takes what waits at the socket; returns how many packets that were.
static unsigned receiver_drain(struct receiver *receiver, struct batch *batch)
{
	unsigned i, sum = 0;
	int count;

	do {
		for (i = 0; i < PROBES_BATCH; i++) {
			batch->parts[i] =
				(struct iovec){&batch->probes[i], sizeof(batch->probes[i])};
			batch->messages[i].msg_hdr = (struct msghdr){
				.msg_iov = &batch->parts[i],
				.msg_iovlen = 1,
				.msg_control = &batch->control[i],
				.msg_controllen = sizeof(batch->control[i]),
			};
		}
		count = recvmmsg(
			receiver->socket, batch->messages, PROBES_BATCH, MSG_DONTWAIT, NULL);
		for (i = 0; count > 0 && i < (unsigned)count; i++) {
			const struct probe *probe = &batch->probes[i];
			struct stream *stream = NULL;

			if (batch->messages[i].msg_len == sizeof(*probe) &&
				probe->magic == PROBES_MAGIC && probe->number <= PROBES_LAST_NUMBER)
				stream = receiver_stream(receiver, probe->stream);
			if (stream != NULL)
				stream_take(
					stream, probe, arrival_time(&batch->messages[i].msg_hdr));
			else
				receiver->foreign++;
		}
		sum += count > 0 ? (unsigned)count : 0;
	} while (count == PROBES_BATCH);
	receiver->received += sum;
	return sum;
}

// When `number` would have come: the last time noted before it.
static uint64_t stream_time_at(const struct stream *stream, uint64_t number)
{
	uint64_t word = number / WORD_BITS;

	while (word > 0 && stream->word_time[word] == 0)
		word--;
	return stream->word_time[word] != 0 ? stream->word_time[word] : stream->first_time;
}

static bool stream_has(const struct stream *stream, uint64_t number)
{
	return stream->words[number / WORD_BITS] >> number % WORD_BITS & 1;
}

// Numbers below the highest one that did not come; prints the first ranges as it goes.
static uint64_t stream_print_missing(const struct stream *stream)
{
	uint64_t number, first, missing = 0;
	unsigned ranges = 0;

	printf("\"missing_ranges\":[");
	for (number = 0; number < stream->highest; number++) {
		if (stream_has(stream, number))
			continue;
		first = number;
		while (!stream_has(stream, number + 1)) // the highest one is there
			number++;
		missing += number - first + 1;
		if (ranges < RANGES_SHOWN)
			printf("%s{\"first\":%llu,\"last\":%llu,\"time\":%.3f}",
				ranges > 0 ? "," : "", (unsigned long long)first,
				(unsigned long long)number,
				(double)stream_time_at(stream, first) / NS_PER_SECOND);
		ranges++;
	}
	printf("],\"missing_range_count\":%u,", ranges);
	return missing;
}

static void stream_print(const struct stream *stream)
{
	const double ms = 1e6, second = NS_PER_SECOND;
	uint64_t missing;

	printf("{\"stream\":%llu,\"received\":%llu,\"duplicated\":%llu,\"reordered\":%llu,"
	       "\"highest\":%llu,",
		(unsigned long long)stream->id, (unsigned long long)stream->received,
		(unsigned long long)stream->duplicated, (unsigned long long)stream->reordered,
		(unsigned long long)stream->highest);
	missing = stream_print_missing(stream);
	printf("\"missing\":%llu,", (unsigned long long)missing);
	printf("\"first_time\":%.3f,\"last_time\":%.3f,\"longest_gap_ms\":%.3f,"
	       "\"longest_gap_time\":%.3f,\"longest_delay_ms\":%.3f}",
		(double)stream->first_time / second, (double)stream->last_time / second,
		(double)stream->longest_gap / ms, (double)stream->longest_gap_time / second,
		(double)stream->longest_wait / ms);
}

static void receiver_print(const struct receiver *receiver)
{
	uint32_t memory[SK_MEMINFO_VARS] = {0};
	socklen_t length = sizeof(memory);
	unsigned i;

	getsockopt(receiver->socket, SOL_SOCKET, SO_MEMINFO, memory, &length);
	printf("{\"received\":%llu,\"lost_at_socket\":%u,\"foreign\":%llu,\"streams\":[",
		(unsigned long long)receiver->received, memory[SK_MEMINFO_DROPS],
		(unsigned long long)receiver->foreign);
	for (i = 0; i < receiver->stream_count; i++) {
		if (i > 0)
			printf(",");
		stream_print(&receiver->streams[i]);
	}
	puts("]}");
}

int probes_receive(const struct receive_options *options)
{
	static struct receiver receiver;
	static struct batch batch;
	uint64_t now, last;

	if (!receiver_open(&receiver, options->port))
		return EXIT_FAILURE;
	fprintf(stderr, "probes: listening\n");
	last = clock_ns(CLOCK_MONOTONIC);
	do {
		// Sleeping between batches costs less than being woken for each packet.
		now = clock_ns(CLOCK_MONOTONIC);
		sleep_until(now + PROBES_TICK_NS);
		if (receiver_drain(&receiver, &batch) > 0)
			last = now;
	} while (!probes_stopping &&
		 (double)(now - last) / NS_PER_SECOND <
			 (receiver.received > 0 ? options->idle : options->first));
	receiver_drain(&receiver, &batch);
	receiver_print(&receiver);
	return EXIT_SUCCESS;
}
