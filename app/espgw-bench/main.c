// SPDX-License-Identifier: BSD-3-Clause
// Copyright (c) 2026 the espgw authors

// espgw-bench: what the gateway costs over the cipher. docs/performance.md says what is measured.

#include <stdio.h>
#include <stdlib.h>

#include "bench.h"

static unsigned int choose_rows(const struct bench_options *options, struct bench_row *rows)
{
	unsigned int count = 0;
	for (unsigned int path = 0; path < BENCH_PATHS; path++)
		for (unsigned int size = 0; size < BENCH_SIZES; size++)
			for (unsigned int burst = 0; burst < BENCH_BURSTS; burst++)
				if (options->paths >> path & options->sizes >> size &
					options->bursts >> burst & 1)
					rows[count++] = (struct bench_row){
						.path = path, .size = size, .burst = burst};
	return count;
}

int main(int argc, char **argv)
{
	struct bench_row rows[BENCH_PATHS * BENCH_SIZES * BENCH_BURSTS];
	struct bench_gateway gateway;
	struct bench_error error;
	struct bench_options options = bench_options_parse(argc, argv);
	if (options.exit)
		return options.exit_status;
	unsigned int count = choose_rows(&options, rows);
	int result = bench_gateway_create(&gateway, options.core, options.hugepages, &error);
	if (result == 0)
		result = bench_measure(&gateway, rows, count, &options.limits, &error);
	if (result != 0)
		fprintf(stderr, "espgw-bench: %s\n", error.text);
	else if (!options.json)
		bench_report_table(rows, count, options.hugepages);
	else
		result = bench_report_json(rows, count, options.hugepages);
	if (gateway.config != NULL)
		bench_gateway_destroy(&gateway);
	return result == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
