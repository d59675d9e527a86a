// SPDX-License-Identifier: BSD-3-Clause
// Copyright (c) 2026 the espgw authors

// espgw-bench: what the gateway costs over the cipher. docs/performance.md says what is measured.

#include <stdio.h>
#include <stdlib.h>
#include <sys/personality.h>
#include <unistd.h>

#include "bench.h"

#define EXIT_NOISE 3

static void choose_rows(const struct bench_options *options, struct bench_result *result)
{
	for (unsigned int path = 0; path < BENCH_PATHS; path++)
		for (unsigned int size = 0; size < BENCH_SIZES; size++)
			for (unsigned int burst = 0; burst < BENCH_BURSTS; burst++)
				if (options->paths >> path & options->sizes >> size &
					options->bursts >> burst & 1)
					result->rows[result->count++] = (struct bench_row){
						.path = path, .size = size, .burst = burst};
}

// The exit status.
static int say_noise(unsigned int noisy, unsigned int count, const struct bench_options *options)
{
	if (noisy == 0 || options->allow_noise)
		return EXIT_SUCCESS;
	fprintf(stderr,
		"espgw-bench: %u of %u %s are too noisy to be reported: half of their rounds "
		"spread over more than %.0f %%. Keep other work off the core%s, or see them with "
		"--allow-noise.\n",
		noisy, count, options->two_cores ? "figures" : "rows", 100 * BENCH_NOISE_LIMIT,
		options->two_cores ? "s" : "");
	return EXIT_NOISE;
}

static int report(const struct bench_result *result, const struct bench_options *options)
{
	if (!options->json)
		bench_report_table(result, options);
	else if (bench_report_json(result, options) != 0)
		return EXIT_FAILURE;
	unsigned int noisy = 0;
	for (unsigned int i = 0; i < result->count; i++)
		noisy += bench_row_is_noisy(result, &result->rows[i]);
	return say_noise(noisy, result->count, options);
}

// Starts the program anew with its libraries, heap and stack where they always are: what it costs
// to call through them may differ twofold from place to place. Where that is forbidden, it goes on.
static void fix_addresses(char **argv)
{
	const unsigned long query = 0xffffffff;
	int persona = personality(query);
	if (persona < 0 || persona & ADDR_NO_RANDOMIZE ||
		personality((unsigned long)persona | ADDR_NO_RANDOMIZE) < 0)
		return;
	execv("/proc/self/exe", argv);
}

static int measure_rows(struct bench_gateway *gateway, const struct bench_options *options)
{
	static struct bench_result result;
	struct bench_error error;
	choose_rows(options, &result);
	if (bench_measure(gateway, options, &result, &error) == 0)
		return report(&result, options);
	fprintf(stderr, "espgw-bench: %s\n", error.text);
	return EXIT_FAILURE;
}

static int measure_cores(struct bench_gateway *gateway, const struct bench_options *options)
{
	static struct bench_cores cores;
	struct bench_error error;
	if (bench_cores_measure(gateway, options, &cores, &error) != 0 ||
		bench_gateway_check(gateway, &error) != 0) {
		fprintf(stderr, "espgw-bench: %s\n", error.text);
		return EXIT_FAILURE;
	}
	if (!options->json)
		bench_cores_print(&cores, options);
	else if (bench_cores_print_json(&cores, options) != 0)
		return EXIT_FAILURE;
	return say_noise(bench_cores_count_noisy(&cores), BENCH_LINES + cores.count, options);
}

int main(int argc, char **argv)
{
	struct bench_gateway gateway;
	struct bench_error error;
	struct bench_options options = bench_options_parse(argc, argv);
	if (options.exit)
		return options.exit_status;
	fix_addresses(argv);
	int status = EXIT_FAILURE;
	if (bench_gateway_create(&gateway, &options, &error) == 0)
		status = options.two_cores ? measure_cores(&gateway, &options)
					   : measure_rows(&gateway, &options);
	else
		fprintf(stderr, "espgw-bench: %s\n", error.text);
	if (gateway.config != NULL)
		bench_gateway_destroy(&gateway);
	return status;
}
