// SPDX-License-Identifier: BSD-3-Clause
// Copyright (c) 2026 the espgw authors

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

static struct machine find_machine(void)
{
	struct machine machine = {.tsc_mhz = (double)rte_get_tsc_hz() / 1e6};
	find_cpu_model(machine.cpu, sizeof(machine.cpu));
	IMB_MGR *manager = alloc_mb_mgr(0);
	if (manager == NULL)
		return machine;
	init_mb_mgr_auto(manager, NULL);
	snprintf(machine.cipher, sizeof(machine.cipher), "%s", architecture(manager));
	free_mb_mgr(manager);
	return machine;
}

void bench_report_table(const struct bench_row *rows, unsigned int count, bool hugepages)
{
	struct machine machine = find_machine();
	printf("CPU:    %s, TSC %.0f MHz\n", machine.cpu, machine.tsc_mhz);
	printf("espgw:  %s, %s, memory %s hugepages\n", ESPGW_VERSION, rte_version(),
		hugepages ? "from" : "without");
	printf("cipher: ipsec-mb %s, %s\n", imb_get_version_str(), machine.cipher);
	printf("\nTSC cycles per packet, medians of rounds of %d packets; Mpps of one core\n\n",
		BENCH_FRAMES);
	printf("%-6s %5s %6s %8s %8s %8s %8s %7s %7s\n", "path", "size", "burst", "rounds",
		"cycles", "raw", "over", "ratio", "Mpps");
	for (unsigned int i = 0; i < count; i++) {
		const struct bench_row *row = &rows[i];
		printf("%-6s %5s %6u %8u %8.1f %8.1f %8.1f %7.2f %7.2f\n", bench_paths[row->path],
			bench_sizes[row->size], bench_bursts[row->burst], row->rounds, row->cycles,
			row->raw, row->cycles - row->raw, row->cycles / row->raw,
			machine.tsc_mhz / row->cycles);
	}
}

static json_t *row_object(const struct bench_row *row)
{
	return json_pack("{s:s, s:s, s:i, s:i, s:f, s:f, s:f, s:f}", "path", bench_paths[row->path],
		"size", bench_sizes[row->size], "burst", (int)bench_bursts[row->burst], "rounds",
		(int)row->rounds, "cycles", row->cycles, "raw", row->raw, "ratio",
		row->cycles / row->raw, "over", row->cycles - row->raw);
}

int bench_report_json(const struct bench_row *rows, unsigned int count, bool hugepages)
{
	struct machine machine = find_machine();
	json_t *list = json_array();
	for (unsigned int i = 0; i < count; i++)
		json_array_append_new(list, row_object(&rows[i]));
	json_t *result = json_pack("{s:{s:s, s:f, s:s, s:s, s:s, s:s, s:b, s:i}, s:o}", "machine",
		"cpu", machine.cpu, "tsc_mhz", machine.tsc_mhz, "espgw", ESPGW_VERSION, "dpdk",
		rte_version(), "ipsec_mb", imb_get_version_str(), "ipsec_mb_architecture",
		machine.cipher, "hugepages", hugepages, "buffers", BENCH_FRAMES, "rows", list);
	if (result == NULL)
		return -1;
	int failed = json_dumpf(result, stdout, JSON_INDENT(1) | JSON_REAL_PRECISION(6));
	putchar('\n');
	json_decref(result);
	return failed != 0 || fflush(stdout) != 0 ? -1 : 0;
}
