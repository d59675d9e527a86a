// SPDX-License-Identifier: BSD-3-Clause
// Copyright (c) 2026 the espgw authors

// Numbered UDP packets ("probes") at a steady rate, and what became of them. A stream is a series
// of probes that one sender numbers from 0 on.

#ifndef PROBES_H
#define PROBES_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>
#include <time.h>

#define PROBES_MAGIC       0x657370677770726full
#define PROBES_STREAMS     64         // of one process
#define PROBES_BATCH       64         // packets of one sendmmsg or recvmmsg
#define PROBES_TICK_NS     1000000    // both ends sleep so long between batches
#define PROBES_LAST_NUMBER UINT32_MAX // a receiver keeps a bit for each number
#define NS_PER_SECOND      1000000000ull

// The UDP payload begins with this; zeros follow. Host byte order: both ends are one machine.
struct probe {
	uint64_t magic;
	uint64_t stream;
	uint64_t number;
	uint64_t sent_ns; // CLOCK_REALTIME
};

struct stream_to_send {
	uint64_t id;
	struct sockaddr_storage to, from; // `from` of family AF_UNSPEC: the kernel's choice
	int socket;
	uint64_t sent;   // the next one's number
	uint64_t failed; // calls that the kernel refused; what they should have sent is sent later
};

struct send_options {
	struct stream_to_send streams[PROBES_STREAMS];
	unsigned stream_count;
	double rate;    // of each stream, packets a second
	double seconds; // 0: until a signal
	unsigned size;  // of the UDP payload, bytes
};

struct receive_options {
	uint16_t port;
	double idle;  // seconds without a packet, after the first one, that end it
	double first; // seconds to wait for the first one
};

// Set by SIGINT and SIGTERM: print what there is and end.
extern volatile bool probes_stopping;

// Both print their JSON and return the exit status.
int probes_send(struct send_options *options);
int probes_receive(const struct receive_options *options);

static inline uint64_t clock_ns(clockid_t clock)
{
	struct timespec now;

	clock_gettime(clock, &now);
	return (uint64_t)now.tv_sec * NS_PER_SECOND + (uint64_t)now.tv_nsec;
}

static inline void sleep_until(uint64_t monotonic_ns)
{
	struct timespec then = {
		.tv_sec = (time_t)(monotonic_ns / NS_PER_SECOND),
		.tv_nsec = (long)(monotonic_ns % NS_PER_SECOND),
	};

	// A signal ends the sleep early; whoever calls looks at probes_stopping.
	clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &then, NULL);
}

#endif
