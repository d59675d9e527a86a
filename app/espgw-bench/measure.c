// SPDX-License-Identifier: BSD-3-Clause
// Copyright (c) 2026 the espgw authors

// Rounds, and the quartiles over them. All ways take turns round by round, so that what disturbs
// the machine meets them alike.

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <rte_cycles.h>
#include <rte_vect.h>

#include "bench.h"

#define ROUNDS_MIN       11 // however short the time
#define ROUNDS_WARM_UP   3  // not counted
#define PROGRESS_AFTER   2  // seconds
#define PROGRESS_SECONDS 0.2

// What one worker works on.
struct bench_worker {
	struct bench_frames frames, raw_frames; // made anew for each row, in arrays that stay
	struct bench_raw raw;
	double cycles; // of its last pass, over all frames
	int result;
} __rte_cache_aligned;

struct bench {
	struct bench_gateway *gateway;
	const struct bench_options *options;
	unsigned int ways; // bits of what is measured
	long cache;        // bytes of L2 that each worker has
	struct rte_mempool *pool;
	struct bench_worker workers[BENCH_WORKERS_MAX];
	struct bench_rte_ipsec rte_ipsec;
	double *cycles[BENCH_WAYS]; // [rounds]
	uint64_t begun, shown;      // TSC
	// What the workers' tasks are about.
	const struct bench_row *row;
	enum bench_way way;
};

// Neither clock reading lets work of the other side of it overlap: all stores are done before the
// first, all instructions before the second.
static uint64_t start_clock(void)
{
	_mm_mfence();
	_mm_lfence();
	uint64_t now = rte_rdtsc();
	_mm_lfence();
	return now;
}

static uint64_t stop_clock(void)
{
	_mm_lfence();
	uint64_t now = rte_rdtsc();
	_mm_lfence();
	return now;
}

static double seconds_since(uint64_t begin)
{
	return (double)(rte_rdtsc() - begin) / (double)rte_get_tsc_hz();
}

static void show_progress(struct bench *bench, unsigned int row, unsigned int rows,
	const struct bench_row *now, unsigned int round)
{
	if (!isatty(STDERR_FILENO) || seconds_since(bench->begun) < PROGRESS_AFTER ||
		seconds_since(bench->shown) < PROGRESS_SECONDS)
		return;
	bench->shown = rte_rdtsc();
	fprintf(stderr, "\r%u of %u: %s, %s bytes, burst %u: round %u \033[K", row + 1, rows,
		bench_paths[now->path], bench_sizes[now->size], bench_bursts[now->burst], round);
}

static void end_progress(const struct bench *bench)
{
	if (bench->shown != bench->begun)
		fputs("\r\033[K", stderr);
}

// ---- A round ----

static bool is_raw(enum bench_way way)
{
	return way >= BENCH_RAW_BURST;
}

// A task: new frames for this way, untimed. They are then in the cache of the worker's core.
static void prepare(void *argument, unsigned int index)
{
	struct bench *bench = argument;
	struct bench_worker *worker = &bench->workers[index];
	const struct bench_row *row = bench->row;
	worker->result = 0;
	if (is_raw(bench->way)) {
		bench_raw_make(&worker->raw, row->size, &worker->raw_frames);
		return;
	}
	if (bench->way != BENCH_RTE_IPSEC)
		bench_gateway_use(
			bench->gateway, index, (enum bench_cipher)(bench->way - BENCH_ESPGW_BURST));
	worker->result = bench_frames_make(bench->gateway, row->path, row->size, &worker->frames);
	if (bench->way == BENCH_RTE_IPSEC)
		bench_rte_ipsec_prepare(&bench->rte_ipsec, row->path, &worker->frames);
}

// One call, count <= BENCH_CALL_MAX (raw: BENCH_BURST_MAX).
static int pass_call(struct bench *bench, unsigned int index, enum bench_path path,
	unsigned int begin, unsigned int count)
{
	struct bench_worker *worker = &bench->workers[index];
	switch (bench->way) {
	case BENCH_RTE_IPSEC:
		return bench_rte_ipsec_pass(&bench->rte_ipsec, &worker->frames, begin, count);
	case BENCH_RAW_BURST:
	case BENCH_RAW_IPSEC_MB:
		bench_raw_pass(&worker->raw, (enum bench_cipher)(bench->way - BENCH_RAW_BURST),
			path, begin, count);
		return 0;
	default:
		return bench_gateway_pass(
			bench->gateway, index, path, worker->frames.packets + begin, count);
	}
}

static int pass_burst(struct bench *bench, unsigned int index, enum bench_path path,
	unsigned int begin, unsigned int count)
{
	unsigned int call =
		is_raw(bench->way) ? count : RTE_MIN(count, (unsigned int)BENCH_CALL_MAX);
	int result = 0;
	for (unsigned int i = 0; i < count; i += call)
		result |= pass_call(bench, index, path, begin + i, call);
	return result;
}

// All frames once.
static int pass(struct bench *bench, unsigned int index)
{
	const struct bench_row *row = bench->row;
	unsigned int burst = bench_bursts[row->burst], frames = bench->workers[index].frames.count;
	unsigned int second = row->path == BENCH_BOTH ? frames / 2 : 0;
	unsigned int end = frames - second;
	int result = 0;
	for (unsigned int i = 0; i < end; i += burst) {
		unsigned int count = RTE_MIN(burst, end - i);
		if (second == 0) {
			result |= pass_burst(bench, index, row->path, i, count);
			continue;
		}
		result |= pass_burst(bench, index, BENCH_ENCAP, i, count);
		result |= pass_burst(bench, index, BENCH_DECAP, second + i, count);
	}
	return result;
}

// A task of all workers at once.
static void pass_timed(void *argument, unsigned int index)
{
	struct bench *bench = argument;
	struct bench_worker *worker = &bench->workers[index];
	bench_team_meet();
	uint64_t begin = start_clock();
	int result = pass(bench, index);
	uint64_t end = stop_clock();
	worker->result = result;
	worker->cycles = (double)(end - begin);
}

// The cycles of all workers together.
static int run_way(struct bench *bench, const struct bench_row *row, enum bench_way way,
	double *cycles, struct bench_error *error)
{
	unsigned int workers = bench->options->workers;
	bench->row = row;
	bench->way = way;
	// One after the other: the far side's SAs number their packets in this order.
	for (unsigned int i = 0; i < workers; i++) {
		bench_team_run_one(prepare, bench, i);
		if (bench->workers[i].result != 0)
			return bench_fail(error, "the far side can't send: its SA is at an end");
	}
	bench_team_run_all(pass_timed, bench);
	*cycles = 0;
	for (unsigned int i = 0; i < workers; i++) {
		if (bench->workers[i].result != 0)
			return bench_fail(error, "%s did not send all packets", bench_ways[way]);
		*cycles += bench->workers[i].cycles;
	}
	return 0;
}

// One round: every way once. cycles[way]: a worker's, of one packet or of a pair of packets each
// way.
static int run_round(struct bench *bench, const struct bench_row *row, double cycles[BENCH_WAYS],
	struct bench_error *error)
{
	unsigned int units = bench->options->workers * bench->workers[0].frames.count /
			     (row->path == BENCH_BOTH ? 2 : 1);
	for (unsigned int way = 0; way < BENCH_WAYS; way++) {
		if (!(bench->ways >> way & 1))
			continue;
		// The keys of many SAs fill the cache, and which of them are there is the doing of
		// the way before. So each goes twice, and finds what it left itself.
		for (unsigned int times = bench->options->sas > 1 ? 2 : 1; times > 0; times--)
			if (run_way(bench, row, way, &cycles[way], error) != 0)
				return -1;
		cycles[way] /= units;
	}
	return 0;
}

static void set_count(struct bench *bench, unsigned int count)
{
	for (unsigned int i = 0; i < bench->options->workers; i++)
		bench->workers[i].frames.count = bench->workers[i].raw_frames.count = count;
}

// A few packets more, looked at byte by byte.
static int check_row(struct bench *bench, const struct bench_row *row, struct bench_error *error)
{
	unsigned int count = bench->workers[0].frames.count;
	double ignored;
	int result = 0;
	set_count(bench, BENCH_CALL_MAX);
	for (unsigned int way = 0; way < BENCH_WAYS && result == 0; way++) {
		if (!(bench->ways >> way & 1) || is_raw(way))
			continue;
		result = run_way(bench, row, way, &ignored, error);
		for (unsigned int i = 0; i < bench->options->workers && result == 0; i++)
			result = bench_frames_check(bench->gateway, row->path, row->size,
				&bench->workers[i].frames, way != BENCH_RTE_IPSEC, error);
	}
	set_count(bench, count);
	return result;
}

// ---- A row ----

static int compare(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;
	return (x > y) - (x < y);
}

// The value below which this part of the sorted values lies.
static double quantile(const double *values, unsigned int count, double part)
{
	double place = part * (count - 1);
	unsigned int below = (unsigned int)place;
	unsigned int above = RTE_MIN(below + 1, count - 1);
	return values[below] + (place - below) * (values[above] - values[below]);
}

struct bench_figure bench_summarize(double *values, unsigned int count)
{
	qsort(values, count, sizeof(*values), compare);
	return (struct bench_figure){
		.quartile1 = quantile(values, count, 0.25),
		.median = quantile(values, count, 0.5),
		.quartile3 = quantile(values, count, 0.75),
	};
}

bool bench_row_is_noisy(const struct bench_result *result, const struct bench_row *row)
{
	for (unsigned int way = 0; way < BENCH_WAYS; way++)
		if (result->ways >> way & 1 && bench_is_noisy(&row->cycles[way]))
			return true;
	return false;
}

static int run_rounds(struct bench *bench, struct bench_result *result, unsigned int index,
	struct bench_error *error)
{
	struct bench_row *row = &result->rows[index];
	double share = bench->options->seconds / result->count, cycles[BENCH_WAYS] = {0};
	uint64_t begin = rte_rdtsc();
	for (unsigned int i = 0; i < ROUNDS_WARM_UP; i++)
		if (run_round(bench, row, cycles, error) != 0)
			return -1;
	unsigned int round = 0;
	while (round < bench->options->rounds) {
		if (share > 0 && round >= ROUNDS_MIN && seconds_since(begin) >= share)
			break;
		if (run_round(bench, row, cycles, error) != 0)
			return -1;
		for (unsigned int way = 0; way < BENCH_WAYS; way++)
			bench->cycles[way][round] = cycles[way];
		round++;
		show_progress(bench, index, result->count, row, round);
	}
	row->rounds = round;
	for (unsigned int way = 0; way < BENCH_WAYS; way++)
		row->cycles[way] = bench_summarize(bench->cycles[way], round);
	return check_row(bench, row, error);
}

// Buffers no larger than need be, so that they lie on few pages: with 4 KB pages, what large ones
// cost each packet is the machine's address translation rather than the gateway's work.
static int create_buffers(struct bench *bench, enum bench_size size, struct bench_error *error)
{
	uint32_t bytes = bench_buffer_size(size), wanted = bench->options->buffer_size;
	unsigned int count = bench_count_frames(bench->cache, bench->options->cold, size);
	if (wanted != 0 && wanted < bytes)
		return bench_fail(error, "--buffer-size %u: packets of %s bytes need %u", wanted,
			bench_sizes[size], bytes);
	if (wanted != 0)
		bytes = wanted;
	unsigned int workers = bench->options->workers;
	set_count(bench, count);
	bench->pool = rte_pktmbuf_pool_create(
		"bench", 2 * workers * count, 0, 0, (uint16_t)bytes, (int)rte_socket_id());
	bool complete = bench->pool != NULL;
	for (unsigned int i = 0; complete && i < workers; i++) {
		struct bench_worker *worker = &bench->workers[i];
		complete =
			rte_pktmbuf_alloc_bulk(bench->pool, worker->frames.packets, count) == 0 &&
			rte_pktmbuf_alloc_bulk(bench->pool, worker->raw_frames.packets, count) == 0;
	}
	return complete ? 0 : bench_fail(error, "no memory for the buffers");
}

static int measure_row(struct bench *bench, struct bench_result *result, unsigned int index,
	struct bench_error *error)
{
	int status = create_buffers(bench, result->rows[index].size, error);
	result->rows[index].frames = bench->workers[0].frames.count;
	if (status == 0)
		status = run_rounds(bench, result, index, error);
	rte_mempool_free(bench->pool);
	bench->pool = NULL;
	return status;
}

// ---- All of them ----

static int create_worker(
	struct bench *bench, unsigned int index, unsigned int frames, struct bench_error *error)
{
	struct bench_worker *worker = &bench->workers[index];
	worker->frames.worker = worker->raw_frames.worker = index;
	worker->frames.packets = calloc(frames, sizeof(struct rte_mbuf *));
	worker->raw_frames.packets = calloc(frames, sizeof(struct rte_mbuf *));
	// The raw ciphers use the keys of the frames.
	worker->frames.sas = worker->raw_frames.sas = calloc(frames, sizeof(*worker->frames.sas));
	if (worker->frames.packets == NULL || worker->raw_frames.packets == NULL ||
		worker->frames.sas == NULL)
		return bench_fail(error, "no memory for %u packets", frames);
	return bench_raw_create(&worker->raw, bench->options, frames, error);
}

static int create_rounds(struct bench *bench, struct bench_error *error)
{
	for (unsigned int way = 0; way < BENCH_WAYS; way++) {
		bench->cycles[way] = calloc(bench->options->rounds, sizeof(*bench->cycles[way]));
		if (bench->cycles[way] == NULL)
			return bench_fail(error, "no memory for %u rounds", bench->options->rounds);
	}
	return 0;
}

static void destroy(struct bench *bench)
{
	bench_team_destroy();
	for (unsigned int way = 0; way < BENCH_WAYS; way++)
		free(bench->cycles[way]);
	bench_rte_ipsec_destroy(&bench->rte_ipsec);
	for (unsigned int i = 0; i < bench->options->workers; i++) {
		struct bench_worker *worker = &bench->workers[i];
		free(worker->frames.packets);
		free(worker->raw_frames.packets);
		free(worker->frames.sas);
		bench_raw_destroy(&worker->raw);
	}
}

static int create_rte_ipsec(struct bench *bench, unsigned int frames, struct bench_error *error)
{
	int status = bench_rte_ipsec_create(&bench->rte_ipsec, bench->options->sas, frames, error);
	if (status > 0)
		fputs("espgw-bench: DPDK's AES-GCM crypto device (librte_crypto_ipsec_mb) is not "
		      "installed: rte_ipsec is left out\n",
			stderr);
	if (status == 0)
		bench->ways |= 1u << BENCH_RTE_IPSEC;
	return status < 0 ? -1 : 0;
}

// Bits. Those of the gateway are of the ciphers that it has.
static unsigned int choose_ways(const struct bench *bench)
{
	unsigned int ways = 1u << BENCH_RAW_IPSEC_MB;
	if (bench->options->avx2)
		return ways | 1u << BENCH_RAW_BURST;
	for (unsigned int i = 0; i < BENCH_CIPHERS; i++)
		if (bench->gateway->workers[0].contexts[i] != NULL)
			ways |= 1u << (BENCH_ESPGW_BURST + i) | 1u << (BENCH_RAW_BURST + i);
	return ways;
}

static int create(struct bench *bench, struct bench_error *error)
{
	unsigned int frames = 0;
	bench->cache = bench_cache_share(bench->gateway);
	for (unsigned int size = 0; size < BENCH_SIZES; size++)
		frames = RTE_MAX(
			frames, bench_count_frames(bench->cache, bench->options->cold, size));
	bench->ways = choose_ways(bench);
	for (unsigned int i = 0; i < bench->options->workers; i++)
		if (create_worker(bench, i, frames, error) != 0)
			return -1;
	if (create_rounds(bench, error) != 0 || bench_team_create(bench->gateway, error) != 0)
		return -1;
	return bench->options->rte_ipsec ? create_rte_ipsec(bench, frames, error) : 0;
}

int bench_measure(struct bench_gateway *gateway, const struct bench_options *options,
	struct bench_result *result, struct bench_error *error)
{
	static struct bench bench;
	bench.gateway = gateway;
	bench.options = options;
	int status = create(&bench, error);
	bench.begun = bench.shown = rte_rdtsc();
	for (unsigned int i = 0; status == 0 && i < result->count; i++)
		status = measure_row(&bench, result, i, error);
	result->ways = bench.ways;
	end_progress(&bench);
	destroy(&bench);
	// Counters know why a packet did not come out.
	struct bench_error cause;
	if (bench_gateway_check(gateway, &cause) != 0) {
		*error = cause;
		return -1;
	}
	return status;
}
