// SPDX-License-Identifier: BSD-3-Clause
// Copyright (c) 2026 the espgw authors

// What the files of espgw-bench share. A row of the result is one path, one size and one burst. It
// is measured in several ways: the gateway with either cipher, DPDK's rte_ipsec, and the ciphers
// alone. Each round of a row sends every frame once in each way. Making the frames is not timed.

#pragma once

#include <stdbool.h>
#include <stdint.h>

#include <jansson.h>
#include <rte_mbuf.h>

#include "esp/esp.h"
#include "esp/gcm.h"

// Frames of a round, each in a buffer of its own: whole bursts, and no more than this unless they
// are to be cold.
#define BENCH_FRAMES_WARM 768
#define BENCH_BURST_MAX   256
#define BENCH_CALL_MAX    64 // what the gateway takes at once
#define BENCH_INNER_MAX   1400
#define BENCH_WORKERS_MAX 2
#define BENCH_SAS_MAX     10000 // each way
#define BENCH_ROUTES_MIN  10
#define BENCH_ROUTES_MAX  1000000
#define BENCH_WINDOW      4096 // packets
#define BENCH_NOISE_LIMIT 0.1  // quartile spread over the median, above which a row is refused

// BOTH: a burst is encapsulated, then one is decapsulated, and so on.
enum bench_path { BENCH_ENCAP, BENCH_DECAP, BENCH_BOTH, BENCH_PATHS };
enum bench_size { BENCH_64, BENCH_256, BENCH_512, BENCH_1024, BENCH_1400, BENCH_IMIX, BENCH_SIZES };
enum bench_burst { BENCH_BURST_32, BENCH_BURST_256, BENCH_BURSTS };
enum bench_cipher { BENCH_CIPHER_BURST, BENCH_CIPHER_IPSEC_MB, BENCH_CIPHERS };
enum bench_way {
	BENCH_ESPGW_BURST, // + enum bench_cipher
	BENCH_ESPGW_IPSEC_MB,
	BENCH_RTE_IPSEC,
	BENCH_RAW_BURST,    // + enum bench_cipher
	BENCH_RAW_IPSEC_MB, // what the others are compared with
	BENCH_WAYS
};

extern const char *const bench_paths[BENCH_PATHS];
extern const char *const bench_sizes[BENCH_SIZES];
extern const unsigned int bench_bursts[BENCH_BURSTS];
extern const char *const bench_ciphers[BENCH_CIPHERS];
extern const char *const bench_ways[BENCH_WAYS];

struct bench_error {
	char text[512];
};

// Writes the message; returns -1.
int bench_fail(struct bench_error *error, const char *format, ...)
	__attribute__((format(printf, 2, 3)));

// ---- options.c ----

struct bench_options {
	bool exit;
	int exit_status;
	bool json;
	bool hugepages;
	bool cold; // frames that do not fit in L2
	bool allow_noise;
	bool two_cores; // --cores, instead of rows
	int core;
	unsigned int workers;
	unsigned int sas;                  // each way
	unsigned int routes;               // to the far side
	unsigned int shared;               // tunnels of each route
	unsigned int paths, sizes, bursts; // bits of what to measure
	unsigned int ciphers;              // 0 = those that the CPU can do
	bool rte_ipsec;
	bool avx2;            // only the raw ciphers, without AVX-512
	unsigned int rounds;  // of each row, at most
	double seconds;       // in all; 0 = no limit
	uint32_t buffer_size; // bytes, headroom included; 0 = as small as the packets allow
};

struct bench_options bench_options_parse(int argc, char **argv);

// ---- gateway.c: a gateway in a network namespace of its own ----

enum { BENCH_INSIDE, BENCH_OUTSIDE, BENCH_PORTS };

// Where the records of the replay windows stand, as in the daemon's mapping: outside of the SAs.
struct bench_top {
	uint64_t top;
} __rte_cache_aligned;

// What belongs to one worker of the gateway.
struct bench_gateway_worker {
	int core;
	// The ESP contexts to choose from; NULL = the CPU can't. `own` is the one it came with.
	struct esp_context *contexts[BENCH_CIPHERS], *own;
	struct esp_context *far;        // the far side's
	uint64_t received[BENCH_PORTS]; // frames given to the worker, for the check at the end
} __rte_cache_aligned;

struct bench_gateway {
	struct config *config;
	struct dataplane *dataplane;
	struct event_base *base;
	bool eal_started;
	struct rte_ether_addr macs[BENCH_PORTS];
	unsigned int tunnels, sas, routes, shared;
	uint32_t round; // counts the makings of frames
	unsigned int worker_count;
	struct bench_gateway_worker workers[BENCH_WORKERS_MAX];
	struct bench_top *tops; // [sas]
	// The far side's ends of the gateway's SAs.
	struct esp_sa_out **far_out; // [sas]
	struct esp_sa_in **far_in;   // [tunnels]
};

// Moves the process into a new network namespace, starts DPDK and the gateway, and pins the calling
// thread to the first worker's core. Once a process; needs root.
int bench_gateway_create(struct bench_gateway *gateway, const struct bench_options *options,
	struct bench_error *error);
void bench_gateway_destroy(struct bench_gateway *gateway);
// `path`: BENCH_ENCAP or BENCH_DECAP, here and in the other passes. Through the worker's whole way,
// count <= BENCH_CALL_MAX: in at one port, out at the other. `packets` come back as the frames that
// would be sent. 0, or -1 when the gateway did not send all of them.
int bench_gateway_pass(struct bench_gateway *gateway, unsigned int worker, enum bench_path path,
	struct rte_mbuf **packets, unsigned int count);
void bench_gateway_use(
	struct bench_gateway *gateway, unsigned int worker, enum bench_cipher cipher);
// Whether the gateway's counters tell of exactly the frames that it was given, all forwarded.
int bench_gateway_check(const struct bench_gateway *gateway, struct bench_error *error);

// ---- sas.c: SAs, both ends of them, and the routes ----

// Adds them to the gateway and makes the far side's ends.
int bench_sas_create(struct bench_gateway *gateway, struct bench_error *error);
void bench_sas_destroy(struct bench_gateway *gateway);
int bench_routes_create(struct bench_gateway *gateway, struct bench_error *error);
// An address that route `index` leads to, by `random`. Host order.
uint32_t bench_route_address(unsigned int index, uint32_t random);
// What identifies SA `index`: inbound is from the far side to the gateway.
uint32_t bench_sa_spi(bool inbound, unsigned int index);
// The index of an outbound one.
unsigned int bench_sa_index(uint32_t spi);
void bench_sa_key(bool inbound, unsigned int index, uint8_t key[ESP_KEY_SIZE]);
extern const uint8_t bench_sa_salt[ESP_SALT_SIZE];

// ---- frames.c: the packets ----

// The buffers of a round and what is in them.
struct bench_frames {
	unsigned int worker; // whose they are
	uint32_t round;      // decides what is in them
	unsigned int count;
	struct rte_mbuf **packets; // [count]
	uint16_t *sas;             // [count] index of the SA that it uses
};

// Bytes of a buffer, headroom included, that any packet of this size fits in, inner or outer.
uint32_t bench_buffer_size(enum bench_size size);
// Bytes of inner packet `index` of a round.
uint32_t bench_inner_size(enum bench_size size, unsigned int index);
// Which way frame `index` of `count` goes: BENCH_ENCAP or BENCH_DECAP. Of both, the first half is
// encapsulated.
enum bench_path bench_frame_path(enum bench_path path, unsigned int index, unsigned int count);
// Makes the buffers the frames that arrive: cleartext at the inside port, or ESP of the far side
// (with fresh sequence numbers) at the outside port. 0, or -1 when the far side can't.
int bench_frames_make(struct bench_gateway *gateway, enum bench_path path, enum bench_size size,
	struct bench_frames *frames);
// Whether the packets that were made of them are right, byte by byte: the inner packet as ESP that
// the far side accepts, or in clear. `by_gateway`: with an Ethernet header, and a TTL lower by one.
int bench_frames_check(const struct bench_gateway *gateway, enum bench_path path,
	enum bench_size size, const struct bench_frames *frames, bool by_gateway,
	struct bench_error *error);

// ---- cache.c: how many packets the L2 cache holds ----

// Bytes of L2 that a worker of the gateway has for itself.
long bench_cache_share(const struct bench_gateway *gateway);
// Frames of a round of each worker, when a worker has `cache` bytes of L2. Warm: they and their
// mbufs take at most half of it, but for the least number; the rest is for what is used beside
// them. Cold: they take it several times.
unsigned int bench_count_frames(long cache, bool cold, enum bench_size size);

// ---- raw.c: the ciphers at their best ----

struct bench_raw {
	IMB_MGR *manager;
	struct gcm gcm; // the burst cipher, if the CPU can
	// Ready beforehand, and few: a burst's, used again by the next one.
	uint8_t nonces[BENCH_BURST_MAX][16] __rte_cache_aligned;
	uint8_t aads[BENCH_BURST_MAX][16];
	uint8_t tags[BENCH_BURST_MAX][16];
	unsigned int sas;
	struct gcm_key *keys; // [sas]
	struct gcm_job *jobs; // [frames]; data is 64-byte aligned
};

// ipsec-mb as options->avx2 wants it.
void bench_init_manager(IMB_MGR *manager, const struct bench_options *options);
int bench_raw_create(struct bench_raw *raw, const struct bench_options *options,
	unsigned int frames, struct bench_error *error);
void bench_raw_destroy(struct bench_raw *raw);
// Writes payloads as long as those of the ESP packets of this size into the buffers.
void bench_raw_make(struct bench_raw *raw, enum bench_size size, const struct bench_frames *frames);
// Payloads begin..begin + count - 1, count <= BENCH_BURST_MAX.
void bench_raw_pass(struct bench_raw *raw, enum bench_cipher cipher, enum bench_path path,
	unsigned int begin, unsigned int count);

// ---- rte_ipsec.c: DPDK's own ESP ----

struct rte_ipsec_session;

struct bench_rte_ipsec {
	uint8_t device;
	unsigned int sas;
	struct rte_mempool *pool;
	struct rte_ipsec_session *sessions[2];   // [BENCH_ENCAP, BENCH_DECAP][sas]
	const struct rte_ipsec_session **chosen; // [frames] that this frame uses
};

// 1 when DPDK's driver for it is not installed.
int bench_rte_ipsec_create(struct bench_rte_ipsec *rte, unsigned int sas, unsigned int frames,
	struct bench_error *error);
void bench_rte_ipsec_destroy(struct bench_rte_ipsec *rte);
// Makes frames what rte_ipsec takes: without Ethernet header, header lengths filled in, sessions
// found.
void bench_rte_ipsec_prepare(
	struct bench_rte_ipsec *rte, enum bench_path path, const struct bench_frames *frames);
// Packets begin..begin + count - 1, count <= BENCH_CALL_MAX. 0, or -1 when some were refused.
int bench_rte_ipsec_pass(struct bench_rte_ipsec *rte, const struct bench_frames *frames,
	unsigned int begin, unsigned int count);

// ---- team.c: a thread for each worker, on its core ----

// What a thread does as worker `worker`.
typedef void (*bench_task)(void *argument, unsigned int worker);

// The calling thread is worker 0. The others wait in a busy loop between tasks.
int bench_team_create(const struct bench_gateway *gateway, struct bench_error *error);
void bench_team_destroy(void);
// As one worker, or as all at once. Returns when they are done.
void bench_team_run_one(bench_task task, void *argument, unsigned int worker);
void bench_team_run_all(bench_task task, void *argument);
// In a task of all: returns when all have come here.
void bench_team_meet(void);

// ---- measure.c ----

// Cycles of the TSC that a worker takes per packet over the rounds; per pair of packets, one each
// way, with BENCH_BOTH.
struct bench_figure {
	double median, quartile1, quartile3;
};

struct bench_row {
	enum bench_path path;
	enum bench_size size;
	enum bench_burst burst;
	unsigned int rounds;
	unsigned int frames; // of a round, of each worker
	struct bench_figure cycles[BENCH_WAYS];
};

struct bench_result {
	unsigned int ways; // bits of what was measured
	unsigned int count;
	struct bench_row rows[BENCH_PATHS * BENCH_SIZES * BENCH_BURSTS];
};

// Measures the rows of *result, whose path, size and burst are set.
int bench_measure(struct bench_gateway *gateway, const struct bench_options *options,
	struct bench_result *result, struct bench_error *error);

static inline double bench_spread(const struct bench_figure *figure)
{
	return (figure->quartile3 - figure->quartile1) / figure->median;
}

static inline bool bench_is_noisy(const struct bench_figure *figure)
{
	return bench_spread(figure) > BENCH_NOISE_LIMIT;
}

// Whether any figure of the row is noisy.
bool bench_row_is_noisy(const struct bench_result *result, const struct bench_row *row);

struct bench_figure bench_summarize(double *values, unsigned int count); // sorts them

// ---- order.c: the order of one outbound SA's packets ----

#define BENCH_ORDER_WINDOWS 4 // 64, 128, 1024 and 4096 packets

struct bench_lateness {
	uint64_t packets, outside[BENCH_ORDER_WINDOWS]; // that a window refuses
	uint32_t most;                                  // packets that one is late
};

struct bench_order {
	enum bench_size size;
	struct bench_lateness all;
	struct bench_lateness undisturbed; // without bursts during which the worker lost its core
};

// All workers at once, on one SA. The team exists.
int bench_order_measure(
	struct bench_gateway *gateway, struct bench_order *row, struct bench_error *error);

// ---- share.c: one inbound SA, one queue, and an idle worker ----

struct bench_share {
	enum bench_size size;
	struct bench_figure alone, shared; // TSC cycles per packet
	double helped;                     // share of the bursts that the idle worker ran
};

// Replaces the ports' driver. The team exists.
int bench_share_measure(struct bench_gateway *gateway, const struct bench_options *options,
	struct bench_share *row, struct bench_error *error);

// ---- cores.c ----

// A cache line from one core to the other; an atomic addition on an own line, and on one that both
// cores add to. TSC cycles.
enum bench_line { BENCH_LINE_TRANSFER, BENCH_LINE_ADD_ALONE, BENCH_LINE_ADD_BOTH, BENCH_LINES };

struct bench_cores {
	struct bench_figure lines[BENCH_LINES];
	unsigned int count;
	struct bench_order order[BENCH_SIZES];
	struct bench_share share[BENCH_SIZES];
};

int bench_cores_measure(struct bench_gateway *gateway, const struct bench_options *options,
	struct bench_cores *cores, struct bench_error *error);
// How many figures of lines and rows of sharing spread over more than BENCH_NOISE_LIMIT.
unsigned int bench_cores_count_noisy(const struct bench_cores *cores);
// Noisy figures are left out unless options->allow_noise.
void bench_cores_print(const struct bench_cores *cores, const struct bench_options *options);
int bench_cores_print_json(const struct bench_cores *cores, const struct bench_options *options);

// ---- report.c ----

// The machine, as the head of a table and as an object.
void bench_print_machine(const struct bench_options *options);
json_t *bench_machine_object(const struct bench_options *options);
json_t *bench_figure_object(const struct bench_figure *figure, bool refused); // its spread alone
// Figures of noisy rows are left out unless options->allow_noise.
void bench_report_table(const struct bench_result *result, const struct bench_options *options);
// Prints and frees it. 0, or -1 when it is NULL for want of memory, or the output fails.
int bench_print_json(json_t *report);
// 0, or -1 when memory or the output fails.
int bench_report_json(const struct bench_result *result, const struct bench_options *options);
