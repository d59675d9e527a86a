// SPDX-License-Identifier: BSD-3-Clause
// Copyright (c) 2026 the espgw authors

// What the files of espgw-bench share. A row of the result is one path (encap or decap), one size
// and one burst; each of its rounds sends every frame once through the gateway, then every payload
// once through ipsec-mb's own call. Making the frames is not timed.

#pragma once

#include <stdbool.h>
#include <stdint.h>

#include <intel-ipsec-mb.h>
#include <rte_mbuf.h>

#include "esp/esp.h"

// Frames of a round, each in a buffer of its own. So many that no frame is in the L1 cache any more
// when its turn comes, and so few that those of 1400 bytes stay in 2 MB of L2. A multiple of 12
// (the mix) and of 64.
#define BENCH_FRAMES    768
#define BENCH_BURST_MAX 256
#define BENCH_CALL_MAX  64 // what the gateway takes at once
#define BENCH_INNER_MAX 1400

enum bench_path { BENCH_ENCAP, BENCH_DECAP, BENCH_PATHS };
enum bench_size { BENCH_64, BENCH_256, BENCH_512, BENCH_1024, BENCH_1400, BENCH_IMIX, BENCH_SIZES };
enum bench_burst { BENCH_BURST_32, BENCH_BURST_256, BENCH_BURSTS };

extern const char *const bench_paths[BENCH_PATHS];
extern const char *const bench_sizes[BENCH_SIZES];
extern const unsigned int bench_bursts[BENCH_BURSTS];

struct bench_error {
	char text[512];
};

// Writes the message; returns -1.
int bench_fail(struct bench_error *error, const char *format, ...)
	__attribute__((format(printf, 2, 3)));

// ---- gateway.c: a gateway in a network namespace of its own, and the far side of its tunnel ----

enum { BENCH_INSIDE, BENCH_OUTSIDE, BENCH_PORTS };

struct bench_gateway {
	struct config *config;
	struct dataplane *dataplane;
	struct event_base *base;
	bool eal_started;
	struct rte_ether_addr macs[BENCH_PORTS];
	// The far side's ends of the gateway's SAs.
	struct esp_context *far;
	struct esp_sa_out *far_out;
	struct esp_sa_in *far_in;
	uint64_t received[BENCH_PORTS]; // frames given to the gateway, for the check at the end
};

// Moves the process into a new network namespace, starts DPDK and the gateway, and pins the calling
// thread to `core` (-1: the last one that the process may use). Once a process; needs root.
int bench_gateway_create(
	struct bench_gateway *gateway, int core, bool hugepages, struct bench_error *error);
void bench_gateway_destroy(struct bench_gateway *gateway);
// Through the worker's whole way, in calls of at most BENCH_CALL_MAX frames: in at one port, out at
// the other. `packets` come back as the frames that would be sent. 0, or -1 when the gateway did
// not send all of them.
int bench_gateway_pass(struct bench_gateway *gateway, enum bench_path path,
	struct rte_mbuf **packets, unsigned int count, unsigned int call);
// Whether the gateway's counters tell of exactly the frames that it was given, all forwarded.
int bench_gateway_check(const struct bench_gateway *gateway, struct bench_error *error);

// ---- frames.c: the packets ----

// Bytes of a buffer, headroom included, that any packet of this size fits in, inner or outer.
uint32_t bench_buffer_size(enum bench_size size);
// Bytes of inner packet `index` of a round.
uint32_t bench_inner_size(enum bench_size size, unsigned int index);
// Makes the buffers the frames that arrive: cleartext at the inside port, or ESP of the far side
// (with fresh sequence numbers) at the outside port. 0, or -1 when the far side can't.
int bench_frames_make(const struct bench_gateway *gateway, enum bench_path path,
	enum bench_size size, struct rte_mbuf **packets, unsigned int count);
// Whether the frames that the gateway made of them are right, byte by byte: the inner packet with a
// TTL lower by one, as ESP that the far side accepts, or in clear.
int bench_frames_check(const struct bench_gateway *gateway, enum bench_path path,
	enum bench_size size, struct rte_mbuf **packets, unsigned int count,
	struct bench_error *error);

// ---- raw.c: ipsec-mb's own call at its best ----

struct bench_raw {
	IMB_MGR *manager;
	// Ready beforehand, and few: a burst's, used again by the next one.
	uint8_t nonces[BENCH_BURST_MAX][16] __rte_cache_aligned;
	uint8_t aads[BENCH_BURST_MAX][16];
	uint8_t tags[BENCH_BURST_MAX][16];
	uint8_t *payloads[BENCH_FRAMES]; // 64-byte aligned
	uint64_t lengths[BENCH_FRAMES];
	struct gcm_key_data key __rte_cache_aligned;
};

int bench_raw_create(struct bench_raw *raw, struct bench_error *error);
void bench_raw_destroy(struct bench_raw *raw);
// Puts the payloads into these buffers, BENCH_FRAMES of them.
void bench_raw_use(struct bench_raw *raw, struct rte_mbuf *const *buffers);
// Writes payloads as long as those of the ESP packets of this size.
void bench_raw_make(struct bench_raw *raw, enum bench_size size);
void bench_raw_pass(struct bench_raw *raw, enum bench_path path, unsigned int burst);

// ---- measure.c ----

// Cycles are those of the TSC, per packet; the medians of the rounds.
struct bench_row {
	enum bench_path path;
	enum bench_size size;
	enum bench_burst burst;
	unsigned int rounds;
	double cycles;
	double raw;
};

struct bench_limits {
	unsigned int rounds;  // of each row, at most
	double seconds;       // in all; 0 = no limit
	uint32_t buffer_size; // bytes, headroom included; 0 = as small as the packets allow
};

// Measures rows[0..count-1], whose path, size and burst are set.
int bench_measure(struct bench_gateway *gateway, struct bench_row *rows, unsigned int count,
	const struct bench_limits *limits, struct bench_error *error);

// ---- options.c ----

struct bench_options {
	bool exit;
	int exit_status;
	bool json;
	bool hugepages;
	int core;
	unsigned int paths, sizes, bursts; // bits of what to measure
	struct bench_limits limits;
};

struct bench_options bench_options_parse(int argc, char **argv);

// ---- report.c ----

void bench_report_table(const struct bench_row *rows, unsigned int count, bool hugepages);
// 0, or -1 when memory or the output fails.
int bench_report_json(const struct bench_row *rows, unsigned int count, bool hugepages);
