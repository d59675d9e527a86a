// SPDX-License-Identifier: BSD-3-Clause
// Copyright (c) 2026 the espgw authors

#include <limits.h>
#include <stdio.h>
#include <string.h>

#include <jansson.h>
#include <rte_cycles.h>
#include <rte_version.h>

#include "bench.h"

struct machine {
	char cpu[128];
	double tsc_mhz;
	char cipher[64]; // what ipsec-mb uses of the CPU
};

static void find_cpu_model(char *text, size_t size)
{
	char line[256];
	snprintf(text, size, "unknown");
	FILE *file = fopen("/proc/cpuinfo", "re");
	if (file == NULL)
		return;
	while (fgets(line, sizeof(line), file) != NULL) {
		const char *value = strstr(line, ": ");
		if (strncmp(line, "model name", strlen("model name")) != 0 || value == NULL)
			continue;
		line[strcspn(line, "\n")] = '\0';
		snprintf(text, size, "%s", value + 2);
		break;
	}
	fclose(file);
}

static const char *architecture(const IMB_MGR *manager)
{
	switch (manager->used_arch) {
	case IMB_ARCH_SSE:
		return "SSE";
	case IMB_ARCH_AVX:
		return "AVX";
	case IMB_ARCH_AVX2:
		return "AVX2";
	case IMB_ARCH_AVX512:
		return manager->features & IMB_FEATURE_VAES ? "AVX512 with VAES" : "AVX512";
	default:
		return "another architecture";
	}
}

static struct machine find_machine(const struct bench_options *options)
{
	struct machine machine = {.tsc_mhz = (double)rte_get_tsc_hz() / 1e6};
	find_cpu_model(machine.cpu, sizeof(machine.cpu));
	IMB_MGR *manager = alloc_mb_mgr(0);
	if (manager == NULL)
		return machine;
	bench_init_manager(manager, options);
	snprintf(machine.cipher, sizeof(machine.cipher), "%s", architecture(manager));
	free_mb_mgr(manager);
	return machine;
}

// Of a round: the least and the most that any row had.
static void find_packets(const struct bench_result *result, unsigned int *least, unsigned int *most)
{
	*least = UINT_MAX;
	*most = 0;
	for (unsigned int i = 0; i < result->count; i++) {
		*least = RTE_MIN(*least, result->rows[i].frames);
		*most = RTE_MAX(*most, result->rows[i].frames);
	}
}

static void print_packets(const struct bench_result *result, const struct bench_options *options)
{
	unsigned int least, most;
	find_packets(result, &least, &most);
	printf("packets of a round: %s", options->cold ? "cold in L2, " : "");
	if (least < most)
		printf("%u to ", least);
	printf("%u\n", most);
}

void bench_print_machine(const struct bench_options *options)
{
	struct machine machine = find_machine(options);
	printf("CPU:    %s, TSC %.0f MHz\n", machine.cpu, machine.tsc_mhz);
	printf("espgw:  %s, %s, memory %s hugepages\n", ESPGW_VERSION, rte_version(),
		options->hugepages ? "from" : "without");
	printf("cipher: ipsec-mb %s, %s\n", imb_get_version_str(), machine.cipher);
}

static void print_head(const struct bench_result *result, const struct bench_options *options)
{
	bench_print_machine(options);
	printf("load:   workers: %u, SAs each way: %u, routes: %u (tunnels each: %u), ",
		options->workers, options->sas, options->routes, options->shared);
	print_packets(result, options);
	puts("\nTSC cycles per packet (both: per two packets, one each way): medians of the "
	     "rounds,\n"
	     "quartiles, their spread in % of the median; over and ratio: beside raw/ipsec-mb;\n"
	     "Mpps of all workers\n");
	printf("%-6s %5s %6s %7s  %-14s %8s %8s %8s %7s %8s %6s %7s\n", "path", "size", "burst",
		"rounds", "way", "cycles", "q1", "q3", "spread", "over", "ratio", "Mpps");
}

static void print_line(const struct bench_row *row, enum bench_way way, bool refused,
	unsigned int workers, double mhz)
{
	const struct bench_figure *figure = &row->cycles[way];
	double raw = row->cycles[BENCH_RAW_IPSEC_MB].median;
	double packets = (row->path == BENCH_BOTH ? 2 : 1) * workers;
	printf("%-6s %5s %6u %7u  %-14s ", bench_paths[row->path], bench_sizes[row->size],
		bench_bursts[row->burst], row->rounds, bench_ways[way]);
	if (refused)
		printf("%8s %8s %8s %7.1f %8s %6s %7s\n", "noisy", "-", "-",
			100 * bench_spread(figure), "-", "-", "-");
	else
		printf("%8.1f %8.1f %8.1f %7.1f %8.1f %6.2f %7.2f\n", figure->median,
			figure->quartile1, figure->quartile3, 100 * bench_spread(figure),
			figure->median - raw, figure->median / raw, packets * mhz / figure->median);
}

void bench_report_table(const struct bench_result *result, const struct bench_options *options)
{
	double mhz = (double)rte_get_tsc_hz() / 1e6;
	print_head(result, options);
	for (unsigned int i = 0; i < result->count; i++) {
		const struct bench_row *row = &result->rows[i];
		bool refused = !options->allow_noise && bench_row_is_noisy(result, row);
		for (unsigned int way = 0; way < BENCH_WAYS; way++)
			if (result->ways >> way & 1)
				print_line(row, way, refused, options->workers, mhz);
	}
}

json_t *bench_figure_object(const struct bench_figure *figure, bool refused)
{
	if (refused)
		return json_pack("{s:f}", "spread", bench_spread(figure));
	return json_pack("{s:f, s:f, s:f, s:f}", "cycles", figure->median, "quartile1",
		figure->quartile1, "quartile3", figure->quartile3, "spread", bench_spread(figure));
}

static json_t *way_object(const struct bench_row *row, enum bench_way way, bool refused)
{
	const struct bench_figure *figure = &row->cycles[way];
	double raw = row->cycles[BENCH_RAW_IPSEC_MB].median;
	json_t *object = bench_figure_object(figure, refused);
	if (refused)
		return object;
	json_object_set_new(object, "over", json_real(figure->median - raw));
	json_object_set_new(object, "ratio", json_real(figure->median / raw));
	return object;
}

// The gateway as it is by default on this CPU, beside ipsec-mb's call.
static void put_gateway(
	json_t *object, const struct bench_result *result, const struct bench_row *row)
{
	if ((result->ways & (1u << BENCH_ESPGW_BURST | 1u << BENCH_ESPGW_IPSEC_MB)) == 0)
		return;
	bool burst = (result->ways >> BENCH_ESPGW_BURST & 1) != 0;
	double cycles = row->cycles[burst ? BENCH_ESPGW_BURST : BENCH_ESPGW_IPSEC_MB].median;
	double raw = row->cycles[BENCH_RAW_IPSEC_MB].median;
	json_object_set_new(object, "cycles", json_real(cycles));
	json_object_set_new(object, "raw", json_real(raw));
	json_object_set_new(object, "ratio", json_real(cycles / raw));
}

static json_t *row_object(const struct bench_result *result, const struct bench_row *row,
	const struct bench_options *options)
{
	bool noisy = bench_row_is_noisy(result, row), refused = noisy && !options->allow_noise;
	json_t *ways = json_object();
	for (unsigned int way = 0; way < BENCH_WAYS; way++)
		if (result->ways >> way & 1)
			json_object_set_new(ways, bench_ways[way], way_object(row, way, refused));
	json_t *object = json_pack("{s:s, s:s, s:i, s:i, s:i, s:b, s:o}", "path",
		bench_paths[row->path], "size", bench_sizes[row->size], "burst",
		(int)bench_bursts[row->burst], "packets", (int)row->frames, "rounds",
		(int)row->rounds, "noisy", noisy, "ways", ways);
	if (!refused)
		put_gateway(object, result, row);
	return object;
}

json_t *bench_machine_object(const struct bench_options *options)
{
	struct machine machine = find_machine(options);
	return json_pack("{s:s, s:f, s:s, s:s, s:s, s:s, s:b}", "cpu", machine.cpu, "tsc_mhz",
		machine.tsc_mhz, "espgw", ESPGW_VERSION, "dpdk", rte_version(), "ipsec_mb",
		imb_get_version_str(), "ipsec_mb_architecture", machine.cipher, "hugepages",
		options->hugepages);
}

int bench_print_json(json_t *report)
{
	if (report == NULL)
		return -1;
	int failed = json_dumpf(report, stdout, JSON_INDENT(1) | JSON_REAL_PRECISION(6));
	putchar('\n');
	json_decref(report);
	return failed != 0 || fflush(stdout) != 0 ? -1 : 0;
}

int bench_report_json(const struct bench_result *result, const struct bench_options *options)
{
	json_t *rows = json_array();
	unsigned int least, most;
	find_packets(result, &least, &most);
	for (unsigned int i = 0; i < result->count; i++)
		json_array_append_new(rows, row_object(result, &result->rows[i], options));
	json_t *report = json_pack("{s:o, s:{s:i, s:i, s:i, s:i, s:b, s:i}, s:o}", "machine",
		bench_machine_object(options), "load", "workers", (int)options->workers, "sas",
		(int)options->sas, "routes", (int)options->routes, "shared", (int)options->shared,
		"cold", options->cold, "packets", (int)most, "rows", rows);
	return bench_print_json(report);
}
