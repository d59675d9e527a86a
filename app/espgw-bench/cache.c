// SPDX-License-Identifier: BSD-3-Clause
// Copyright (c) 2026 the espgw authors

// How many packets a round has. What is measured is a packet that is no longer in the L1 cache but
// still in L2, or, cold, in neither; that depends on how much L2 there is.

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "bench.h"

#define L2_DEFAULT (2L << 20) // where the system does not say
#define WARM_PARTS 2          // warm packets take at most one of so many parts of the L2 cache
#define COLD_TIMES 4          // cold ones take so many times the L2 cache
#define COLD_STEP  384        // both halves of it hold whole mixes (12 packets) and calls (64)
#define LIST_SIZE  256

// Which CPUs share something with this one, as the kernel lists them ("0,4").
static bool read_list(int core, const char *what, char list[LIST_SIZE])
{
	char path[128];
	snprintf(path, sizeof(path), "/sys/devices/system/cpu/cpu%d/%s", core, what);
	FILE *file = fopen(path, "re");
	if (file == NULL)
		return false;
	bool complete = fgets(list, LIST_SIZE, file) != NULL;
	fclose(file);
	return complete;
}

// Virtual machines often say nothing of caches. Threads of one core share its L2 in any case.
static bool cores_share_cache(int core, int other)
{
	static const char *const lists[] = {
		"cache/index2/shared_cpu_list", "topology/thread_siblings_list"};
	char mine[LIST_SIZE], theirs[LIST_SIZE];
	for (unsigned int i = 0; i < RTE_DIM(lists); i++)
		if (read_list(core, lists[i], mine) && read_list(other, lists[i], theirs))
			return strcmp(mine, theirs) == 0;
	return false;
}

long bench_cache_share(const struct bench_gateway *gateway)
{
	long cache = sysconf(_SC_LEVEL2_CACHE_SIZE);
	long sharers = 1;
	for (unsigned int i = 1; i < gateway->worker_count; i++)
		sharers += cores_share_cache(gateway->workers[0].core, gateway->workers[i].core);
	return (cache > 0 ? cache : L2_DEFAULT) / sharers;
}

// Of a packet with its mbuf, headers and ICV, on average.
static long bytes_of_packet(enum bench_size size)
{
	long mix = 0;
	for (unsigned int i = 0; i < COLD_STEP; i++)
		mix += bench_inner_size(size, i);
	return (long)sizeof(struct rte_mbuf) + RTE_CACHE_LINE_SIZE + mix / COLD_STEP;
}

unsigned int bench_count_frames(long cache, bool cold, enum bench_size size)
{
	long packet = bytes_of_packet(size);
	if (cold)
		return (unsigned int)RTE_ALIGN_MUL_CEIL(COLD_TIMES * cache / packet, COLD_STEP);
	long wanted = RTE_ALIGN_FLOOR(cache / WARM_PARTS / packet, (long)BENCH_BURST_MAX);
	wanted = RTE_MIN(wanted, (long)BENCH_FRAMES_WARM);
	return (unsigned int)RTE_MAX(wanted, (long)BENCH_BURST_MAX);
}
