// SPDX-License-Identifier: BSD-3-Clause
// Copyright (c) 2026 the espgw authors

// --cores: what two cores cost each other. Cache lines that they share, the order of one outbound
// SA's packets, and one inbound SA shared.

#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

#include <jansson.h>
#include <rte_cycles.h>
#include <rte_pause.h>

#include "bench.h"

#define LINE_ROUNDS 20000
#define LINE_RUNS   101

// ---- Lines ----

static struct {
	_Atomic uint64_t word __rte_cache_aligned;
	_Atomic uint64_t other __rte_cache_aligned;
	double cycles[BENCH_WORKERS_MAX]; // of a run
	bool both;
} line;

// A task: the word goes to and fro, so that a line moves twice in each round.
static void pass_ball(void *argument, unsigned int worker)
{
	(void)argument;
	bench_team_meet();
	uint64_t begin = rte_rdtsc();
	for (uint64_t i = 0; i < LINE_ROUNDS; i++) {
		while (atomic_load_explicit(&line.word, memory_order_acquire) != 2 * i + worker)
			;
		atomic_store_explicit(&line.word, 2 * i + worker + 1, memory_order_release);
	}
	line.cycles[worker] = (double)(rte_rdtsc() - begin);
}

// A task: an addition to one counter, as often as it goes.
static void add_many(void *argument, unsigned int worker)
{
	_Atomic uint64_t *counter = line.both || worker == 0 ? &line.word : &line.other;
	(void)argument;
	bench_team_meet();
	uint64_t begin = rte_rdtsc();
	for (unsigned int i = 0; i < LINE_ROUNDS; i++)
		atomic_fetch_add_explicit(counter, 1, memory_order_relaxed);
	line.cycles[worker] = (double)(rte_rdtsc() - begin);
}

// `events`: of a round, whose cycles are wanted.
static struct bench_figure run_line_task(bench_task task, bool both, unsigned int events)
{
	double cycles[LINE_RUNS];
	line.both = both;
	for (unsigned int i = 0; i < LINE_RUNS; i++) {
		atomic_store(&line.word, 0);
		bench_team_run_all(task, NULL);
		cycles[i] = RTE_MAX(line.cycles[0], line.cycles[1]) / LINE_ROUNDS / events;
	}
	return bench_summarize(cycles, LINE_RUNS);
}

static void measure_lines(struct bench_figure *lines)
{
	lines[BENCH_LINE_TRANSFER] = run_line_task(pass_ball, true, 2);
	lines[BENCH_LINE_ADD_ALONE] = run_line_task(add_many, false, 1);
	lines[BENCH_LINE_ADD_BOTH] = run_line_task(add_many, true, BENCH_WORKERS_MAX);
}

// ---- All of it ----

int bench_cores_measure(struct bench_gateway *gateway, const struct bench_options *options,
	struct bench_cores *cores, struct bench_error *error)
{
	int result = bench_team_create(gateway, error);
	if (result == 0)
		measure_lines(cores->lines);
	for (unsigned int size = 0; size < BENCH_SIZES && result == 0; size++) {
		if (!(options->sizes >> size & 1))
			continue;
		cores->order[cores->count].size = cores->share[cores->count].size = size;
		result = bench_order_measure(gateway, &cores->order[cores->count], error);
		if (result == 0)
			result = bench_share_measure(
				gateway, options, &cores->share[cores->count], error);
		cores->count++;
	}
	bench_team_destroy();
	return result;
}

// ---- Report ----

static void print_order(const char *label, const char *size, const struct bench_lateness *lateness)
{
	printf("%5s  %-11s %9lu", size, label, lateness->packets);
	for (unsigned int i = 0; i < BENCH_ORDER_WINDOWS; i++)
		printf(" %8.4f", 100.0 * (double)lateness->outside[i] / (double)lateness->packets);
	printf(" %8u\n", lateness->most);
}

static bool share_is_noisy(const struct bench_share *row)
{
	return bench_is_noisy(&row->alone) || bench_is_noisy(&row->shared);
}

unsigned int bench_cores_count_noisy(const struct bench_cores *cores)
{
	unsigned int noisy = 0;
	for (unsigned int i = 0; i < BENCH_LINES; i++)
		noisy += bench_is_noisy(&cores->lines[i]);
	for (unsigned int i = 0; i < cores->count; i++)
		noisy += share_is_noisy(&cores->share[i]);
	return noisy;
}

static void print_lines(const struct bench_cores *cores, bool allow_noise)
{
	static const char *const labels[BENCH_LINES] = {
		"from one core to the other",
		"atomic addition, own line",
		"atomic addition, both cores at it",
	};
	printf("%-34s %8s %8s %8s %7s\n", "lines that two cores share", "cycles", "q1", "q3",
		"spread");
	for (unsigned int i = 0; i < BENCH_LINES; i++) {
		const struct bench_figure *figure = &cores->lines[i];
		if (bench_is_noisy(figure) && !allow_noise)
			printf("%-34s %8s %8s %8s %7.1f\n", labels[i], "noisy", "-", "-",
				100 * bench_spread(figure));
		else
			printf("%-34s %8.1f %8.1f %8.1f %7.1f\n", labels[i], figure->median,
				figure->quartile1, figure->quartile3, 100 * bench_spread(figure));
	}
}

static void print_share(const struct bench_share *row, bool allow_noise)
{
	double mhz = (double)rte_get_tsc_hz() / 1e6;
	printf("%5s", bench_sizes[row->size]);
	if (share_is_noisy(row) && !allow_noise)
		printf(" %8s %8s %7.1f %8s %8s %7.1f %6s", "noisy", "-",
			100 * bench_spread(&row->alone), "noisy", "-",
			100 * bench_spread(&row->shared), "-");
	else
		printf(" %8.1f %8.1f %7.1f %8.1f %8.1f %7.1f %6.2f", row->alone.median,
			row->alone.quartile1, 100 * bench_spread(&row->alone), row->shared.median,
			row->shared.quartile1, 100 * bench_spread(&row->shared),
			row->alone.median / row->shared.median);
	printf(" %7.2f %7.2f\n", row->helped, mhz / row->shared.median);
}

void bench_cores_print(const struct bench_cores *cores, const struct bench_options *options)
{
	bench_print_machine(options);
	puts("\nTSC cycles: medians, quartiles, their spread in % of the median\n");
	print_lines(cores, options->allow_noise);
	puts("\nTwo workers encapsulate for one SA at once: % of the packets that a replay window\n"
	     "of so many packets refuses, and the most that one is late. Undisturbed: without the\n"
	     "bursts during which a worker lost its core.\n");
	printf("%5s  %-11s %9s %8s %8s %8s %8s %8s\n", "size", "bursts", "packets", "64", "128",
		"1024", "4096", "latest");
	for (unsigned int i = 0; i < cores->count; i++) {
		const struct bench_order *row = &cores->order[i];
		print_order("all", bench_sizes[row->size], &row->all);
		print_order("undisturbed", bench_sizes[row->size], &row->undisturbed);
	}
	puts("\nOne worker receives one SA from one queue, alone and with an idle one's help: TSC\n"
	     "cycles per packet; helped: share of the packets.\n");
	printf("%5s %8s %8s %7s %8s %8s %7s %6s %7s %7s\n", "size", "alone", "q1", "spread",
		"shared", "q1", "spread", "gain", "helped", "Mpps");
	for (unsigned int i = 0; i < cores->count; i++)
		print_share(&cores->share[i], options->allow_noise);
}

static json_t *lateness_object(const struct bench_lateness *lateness)
{
	json_t *outside = json_array();
	for (unsigned int i = 0; i < BENCH_ORDER_WINDOWS; i++)
		json_array_append_new(outside, json_integer((json_int_t)lateness->outside[i]));
	return json_pack("{s:I, s:o, s:i}", "packets", (json_int_t)lateness->packets,
		"outside_64_128_1024_4096", outside, "latest", (int)lateness->most);
}

static json_t *line_object(const struct bench_figure *figure, bool allow_noise)
{
	return bench_figure_object(figure, bench_is_noisy(figure) && !allow_noise);
}

static json_t *order_object(const struct bench_order *row)
{
	return json_pack("{s:s, s:o, s:o}", "size", bench_sizes[row->size], "all",
		lateness_object(&row->all), "undisturbed", lateness_object(&row->undisturbed));
}

static json_t *share_object(const struct bench_share *row, bool allow_noise)
{
	bool noisy = share_is_noisy(row), refused = noisy && !allow_noise;
	return json_pack("{s:s, s:b, s:o, s:o, s:f}", "size", bench_sizes[row->size], "noisy",
		noisy, "alone", bench_figure_object(&row->alone, refused), "shared",
		bench_figure_object(&row->shared, refused), "helped", row->helped);
}

int bench_cores_print_json(const struct bench_cores *cores, const struct bench_options *options)
{
	bool allow_noise = options->allow_noise;
	json_t *order = json_array(), *share = json_array();
	for (unsigned int i = 0; i < cores->count; i++) {
		json_array_append_new(order, order_object(&cores->order[i]));
		json_array_append_new(share, share_object(&cores->share[i], allow_noise));
	}
	return bench_print_json(json_pack("{s:o, s:{s:o, s:o, s:o}, s:o, s:o}", "machine",
		bench_machine_object(options), "lines", "transfer",
		line_object(&cores->lines[BENCH_LINE_TRANSFER], allow_noise), "add_alone",
		line_object(&cores->lines[BENCH_LINE_ADD_ALONE], allow_noise), "add_both",
		line_object(&cores->lines[BENCH_LINE_ADD_BOTH], allow_noise), "order", order,
		"share", share));
}
