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

#define LINE_ROUNDS 100000

// ---- Lines ----

static struct {
	_Atomic uint64_t word __rte_cache_aligned;
	_Atomic uint64_t other __rte_cache_aligned;
	double cycles[BENCH_WORKERS_MAX];
	bool both;
} line;

// A task: the word goes to and fro.
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
	line.cycles[worker] = (double)(rte_rdtsc() - begin) / LINE_ROUNDS;
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
	line.cycles[worker] = (double)(rte_rdtsc() - begin) / LINE_ROUNDS;
}

static double run_line_task(bench_task task, bool both)
{
	double least = 0;
	line.both = both;
	for (unsigned int i = 0; i < 5; i++) {
		atomic_store(&line.word, 0);
		bench_team_run_all(task, NULL);
		double cycles = RTE_MAX(line.cycles[0], line.cycles[1]);
		least = i == 0 ? cycles : RTE_MIN(least, cycles);
	}
	return least;
}

// ---- All of it ----

int bench_cores_measure(struct bench_gateway *gateway, const struct bench_options *options,
	struct bench_cores *cores, struct bench_error *error)
{
	int result = bench_team_create(gateway, error);
	if (result == 0) {
		cores->transfer = run_line_task(pass_ball, true) / 2;
		cores->add_alone = run_line_task(add_many, false);
		cores->add_both = run_line_task(add_many, true) / BENCH_WORKERS_MAX;
	}
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

void bench_cores_print(const struct bench_cores *cores)
{
	double mhz = (double)rte_get_tsc_hz() / 1e6;
	printf("Cache lines that two cores share, TSC cycles:\n"
	       "  from one core to the other   %6.0f\n"
	       "  atomic addition, own line    %6.0f\n"
	       "  atomic addition, both cores  %6.0f each: at most %.1f million a second\n\n",
		cores->transfer, cores->add_alone, cores->add_both, mhz / cores->add_both);
	puts("Two workers encapsulate for one SA at once: % of the packets that a replay window\n"
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
	     "cycles per packet, medians and first quartiles; helped: share of the bursts.\n");
	printf("%5s %8s %8s %8s %8s %6s %7s %7s\n", "size", "alone", "q1", "shared", "q1", "gain",
		"helped", "Mpps");
	for (unsigned int i = 0; i < cores->count; i++) {
		const struct bench_share *row = &cores->share[i];
		printf("%5s %8.1f %8.1f %8.1f %8.1f %6.2f %7.2f %7.2f\n", bench_sizes[row->size],
			row->alone.median, row->alone.quartile1, row->shared.median,
			row->shared.quartile1, row->alone.median / row->shared.median, row->helped,
			mhz / row->shared.median);
	}
}

static json_t *lateness_object(const struct bench_lateness *lateness)
{
	json_t *outside = json_array();
	for (unsigned int i = 0; i < BENCH_ORDER_WINDOWS; i++)
		json_array_append_new(outside, json_integer((json_int_t)lateness->outside[i]));
	return json_pack("{s:I, s:o, s:i}", "packets", (json_int_t)lateness->packets,
		"outside_64_128_1024_4096", outside, "latest", (int)lateness->most);
}

static json_t *figure_object(const struct bench_figure *figure)
{
	return json_pack("{s:f, s:f, s:f}", "cycles", figure->median, "quartile1",
		figure->quartile1, "quartile3", figure->quartile3);
}

int bench_cores_print_json(const struct bench_cores *cores)
{
	json_t *order = json_array(), *share = json_array();
	for (unsigned int i = 0; i < cores->count; i++) {
		const struct bench_order *late = &cores->order[i];
		const struct bench_share *row = &cores->share[i];
		json_array_append_new(
			order, json_pack("{s:s, s:o, s:o}", "size", bench_sizes[late->size], "all",
				       lateness_object(&late->all), "undisturbed",
				       lateness_object(&late->undisturbed)));
		json_array_append_new(
			share, json_pack("{s:s, s:o, s:o, s:f}", "size", bench_sizes[row->size],
				       "alone", figure_object(&row->alone), "shared",
				       figure_object(&row->shared), "helped", row->helped));
	}
	json_t *report = json_pack("{s:f, s:f, s:f, s:o, s:o}", "line_transfer", cores->transfer,
		"add_alone", cores->add_alone, "add_both", cores->add_both, "order", order, "share",
		share);
	return bench_print_json(report);
}
