// SPDX-License-Identifier: BSD-3-Clause
// Copyright (c) 2026 the espgw authors

// Rounds, and the medians over them. Gateway and ipsec-mb take turns round by round, so that what
// disturbs the machine meets both.

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

struct bench {
	struct bench_gateway *gateway;
	struct rte_mempool *pool;
	struct rte_mbuf *frames[BENCH_FRAMES];
	struct rte_mbuf *raw_buffers[BENCH_FRAMES];
	struct bench_raw raw;
	double *cycles, *raw_cycles; // [rounds]
	uint64_t begun, shown;       // TSC
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

// One round: the gateway, then ipsec-mb. Cycles per packet.
static int run_round(struct bench *bench, const struct bench_row *row, double *cycles, double *raw)
{
	unsigned int burst = bench_bursts[row->burst];
	unsigned int call = RTE_MIN(burst, (unsigned int)BENCH_CALL_MAX);
	if (bench_frames_make(bench->gateway, row->path, row->size, bench->frames, BENCH_FRAMES) !=
		0)
		return -1;
	uint64_t begin = start_clock();
	int result =
		bench_gateway_pass(bench->gateway, row->path, bench->frames, BENCH_FRAMES, call);
	uint64_t end = stop_clock();
	*cycles = (double)(end - begin) / BENCH_FRAMES;

	bench_raw_make(&bench->raw, row->size);
	begin = start_clock();
	bench_raw_pass(&bench->raw, row->path, burst);
	end = stop_clock();
	*raw = (double)(end - begin) / BENCH_FRAMES;
	return result;
}

static int compare(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;
	return (x > y) - (x < y);
}

static double median(double *values, unsigned int count)
{
	qsort(values, count, sizeof(*values), compare);
	return (values[count / 2] + values[(count - 1) / 2]) / 2;
}

// A burst more, looked at byte by byte.
static int check_row(struct bench *bench, const struct bench_row *row, struct bench_error *error)
{
	if (bench_frames_make(
		    bench->gateway, row->path, row->size, bench->frames, BENCH_CALL_MAX) != 0 ||
		bench_gateway_pass(bench->gateway, row->path, bench->frames, BENCH_CALL_MAX,
			BENCH_CALL_MAX) != 0)
		return bench_fail(error, "the gateway did not send all packets");
	return bench_frames_check(
		bench->gateway, row->path, row->size, bench->frames, BENCH_CALL_MAX, error);
}

static int run_rounds(struct bench *bench, struct bench_row *rows, unsigned int index,
	unsigned int count, const struct bench_limits *limits, struct bench_error *error)
{
	struct bench_row *row = &rows[index];
	double share = limits->seconds / count, ignored;
	uint64_t begin = rte_rdtsc();
	for (unsigned int i = 0; i < ROUNDS_WARM_UP; i++)
		if (run_round(bench, row, &ignored, &ignored) != 0)
			return bench_fail(error, "the gateway did not send all packets");
	unsigned int round = 0;
	while (round < limits->rounds) {
		if (share > 0 && round >= ROUNDS_MIN && seconds_since(begin) >= share)
			break;
		if (run_round(bench, row, &bench->cycles[round], &bench->raw_cycles[round]) != 0)
			return bench_fail(error, "the gateway did not send all packets");
		round++;
		show_progress(bench, index, count, row, round);
	}
	row->rounds = round;
	row->cycles = median(bench->cycles, round);
	row->raw = median(bench->raw_cycles, round);
	return check_row(bench, row, error);
}

// Buffers no larger than need be, so that they lie on few pages: with 4 KB pages, what large ones
// cost each packet is the machine's address translation rather than the gateway's work.
static int create_buffers(
	struct bench *bench, enum bench_size size, uint32_t wanted, struct bench_error *error)
{
	uint32_t bytes = bench_buffer_size(size);
	if (wanted != 0 && wanted < bytes)
		return bench_fail(error, "--buffer-size %u: packets of %s bytes need %u", wanted,
			bench_sizes[size], bytes);
	if (wanted != 0)
		bytes = wanted;
	bench->pool = rte_pktmbuf_pool_create(
		"bench", 2 * BENCH_FRAMES, 0, 0, (uint16_t)bytes, (int)rte_socket_id());
	if (bench->pool == NULL ||
		rte_pktmbuf_alloc_bulk(bench->pool, bench->frames, BENCH_FRAMES) != 0 ||
		rte_pktmbuf_alloc_bulk(bench->pool, bench->raw_buffers, BENCH_FRAMES) != 0)
		return bench_fail(error, "no memory for the buffers");
	bench_raw_use(&bench->raw, bench->raw_buffers);
	return 0;
}

static int measure_row(struct bench *bench, struct bench_row *rows, unsigned int index,
	unsigned int count, const struct bench_limits *limits, struct bench_error *error)
{
	int result = create_buffers(bench, rows[index].size, limits->buffer_size, error);
	if (result == 0)
		result = run_rounds(bench, rows, index, count, limits, error);
	rte_mempool_free(bench->pool);
	bench->pool = NULL;
	return result;
}

static int create(struct bench *bench, unsigned int rounds, struct bench_error *error)
{
	bench->cycles = calloc(rounds, sizeof(*bench->cycles));
	bench->raw_cycles = calloc(rounds, sizeof(*bench->raw_cycles));
	if (bench->cycles == NULL || bench->raw_cycles == NULL)
		return bench_fail(error, "no memory for %u rounds", rounds);
	return bench_raw_create(&bench->raw, error);
}

int bench_measure(struct bench_gateway *gateway, struct bench_row *rows, unsigned int count,
	const struct bench_limits *limits, struct bench_error *error)
{
	static struct bench bench;
	bench.gateway = gateway;
	bench.begun = bench.shown = rte_rdtsc();
	int result = create(&bench, limits->rounds, error);
	for (unsigned int i = 0; result == 0 && i < count; i++)
		result = measure_row(&bench, rows, i, count, limits, error);
	end_progress(&bench);
	bench_raw_destroy(&bench.raw);
	free(bench.cycles);
	free(bench.raw_cycles);
	// Counters know why a packet did not come out.
	struct bench_error cause;
	if (bench_gateway_check(gateway, &cause) != 0) {
		*error = cause;
		return -1;
	}
	return result;
}
