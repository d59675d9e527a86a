// SPDX-License-Identifier: BSD-3-Clause
// Copyright (c) 2026 the espgw authors

// One inbound SA on one queue: by one worker alone, and shared with an idle second one. The
// workers' own loops run; only the driver is a stand-in. It hands out the frames of a round in
// bursts, and writes and reads of each mbuf what a driver would.

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include <rte_cycles.h>
#include <rte_ethdev.h>
#include <rte_pause.h>
#include <rte_prefetch.h>

#include "bench.h"
#include "dataplane/dataplane.h"

#define LEAD        384    // packets before the clock starts: sharing has begun by then
#define IDLE_CYCLES 100000 // that the helper runs before: it is idle by then

// The driver's, and worker 0's alone but for `end`.
static struct {
	struct rte_mbuf **packets;
	unsigned int count, received, sent;
	bool wrong;     // a packet left out of order
	uint64_t begun; // when LEAD packets had been sent
	uint16_t ports[BENCH_PORTS];
	void *queue; // of the outside port, that has the frames
	_Atomic bool end __rte_cache_aligned;
} driver;

static uint16_t receive_frames(void *queue, struct rte_mbuf **packets, uint16_t wanted)
{
	if (queue != driver.queue)
		return 0;
	unsigned int count = RTE_MIN(wanted, driver.count - driver.received);
	struct rte_mbuf **from = driver.packets + driver.received;
	for (unsigned int i = 0; i < count; i++)
		rte_prefetch0_write(from[i]);
	for (unsigned int i = 0; i < count; i++) {
		// Descriptors tell lengths and offload results: the mbuf's first line is written.
		from[i]->ol_flags = 0;
		from[i]->nb_segs = 1;
		packets[i] = from[i];
	}
	driver.received += count;
	return (uint16_t)count;
}

static uint16_t send_frames(void *queue, struct rte_mbuf **packets, uint16_t count)
{
	(void)queue;
	for (unsigned int i = 0; i < count; i++)
		driver.wrong |= packets[i] != driver.packets[driver.sent + i] ||
				packets[i]->pkt_len == 0; // read, as for a descriptor
	if (driver.sent < LEAD && driver.sent + count >= LEAD)
		driver.begun = rte_rdtsc();
	driver.sent += count;
	return count;
}

static int replace_driver(struct bench_error *error)
{
	static const char *const devices[BENCH_PORTS] = {"net_null0", "net_null1"};
	for (unsigned int i = 0; i < BENCH_PORTS; i++) {
		uint16_t *port = &driver.ports[i];
		if (rte_eth_dev_get_port_by_name(devices[i], port) != 0)
			return bench_fail(error, "there is no %s", devices[i]);
		rte_eth_fp_ops[*port].rx_pkt_burst = receive_frames;
		rte_eth_fp_ops[*port].tx_pkt_burst = send_frames;
	}
	driver.queue = rte_eth_fp_ops[driver.ports[BENCH_OUTSIDE]].rxq.data[0];
	return 0;
}

struct round {
	struct bench_gateway *gateway;
	bool shared;
	double cycles; // per packet, without the lead
};

static void help_until_end(struct dataplane *dataplane)
{
	while (!atomic_load_explicit(&driver.end, memory_order_relaxed))
		dataplane_worker_loop(dataplane, 1);
}

// A task of both.
static void pass(void *argument, unsigned int worker)
{
	struct round *round = argument;
	struct dataplane *dataplane = round->gateway->dataplane;
	bench_team_meet();
	if (worker == 1 && round->shared)
		help_until_end(dataplane);
	if (worker == 0) {
		for (uint64_t begin = rte_rdtsc(); rte_rdtsc() - begin < IDLE_CYCLES;)
			rte_pause();
		while (driver.sent < driver.count)
			dataplane_worker_loop(dataplane, 0);
		uint64_t cycles = rte_rdtsc() - driver.begun;
		round->cycles = (double)cycles / (driver.count - LEAD);
		atomic_store(&driver.end, true);
	}
	dataplane_worker_drain(dataplane, worker);
}

static int run_round(struct bench_gateway *gateway, enum bench_size size,
	struct bench_frames *frames, bool shared, double *cycles, struct bench_error *error)
{
	struct round round = {.gateway = gateway, .shared = shared};
	if (bench_frames_make(gateway, BENCH_DECAP, size, frames) != 0)
		return bench_fail(error, "the far side can't send: its SA is at an end");
	driver.packets = frames->packets;
	driver.count = frames->count;
	driver.received = driver.sent = 0;
	driver.wrong = false;
	atomic_store(&driver.end, false);
	bench_team_run_all(pass, &round);
	gateway->workers[0].received[BENCH_OUTSIDE] += frames->count;
	*cycles = round.cycles;
	return driver.wrong ? bench_fail(error, "packets were sent out of order") : 0;
}

static uint64_t count_helped(const struct bench_gateway *gateway)
{
	return dataplane_telemetry(gateway->dataplane)->slot[1]->helped_packets;
}

static int run_rounds(struct bench_gateway *gateway, const struct bench_options *options,
	struct bench_share *row, struct bench_frames *frames, struct bench_error *error)
{
	uint64_t helped = count_helped(gateway);
	double *cycles[2] = {
		calloc(options->rounds, sizeof(double)), calloc(options->rounds, sizeof(double))};
	int result = cycles[0] == NULL || cycles[1] == NULL ? bench_fail(error, "no memory") : 0;
	for (unsigned int i = 0; i < options->rounds && result == 0; i++)
		for (unsigned int shared = 0; shared < 2 && result == 0; shared++)
			result = run_round(
				gateway, row->size, frames, shared == 1, &cycles[shared][i], error);
	if (result == 0)
		result = bench_frames_check(gateway, BENCH_DECAP, row->size, frames, true, error);
	if (result == 0) {
		row->alone = bench_summarize(cycles[0], options->rounds);
		row->shared = bench_summarize(cycles[1], options->rounds);
		row->helped = (double)(count_helped(gateway) - helped) /
			      ((double)frames->count * options->rounds);
	}
	free(cycles[0]);
	free(cycles[1]);
	return result;
}

// As many for each size, so that the lead is a part of them: warm, those of 1400 bytes may lie in
// L3.
static unsigned int count_frames(const struct bench_gateway *gateway,
	const struct bench_options *options, enum bench_size size)
{
	return options->cold ? bench_count_frames(bench_cache_share(gateway), true, size)
			     : BENCH_FRAMES_WARM;
}

int bench_share_measure(struct bench_gateway *gateway, const struct bench_options *options,
	struct bench_share *row, struct bench_error *error)
{
	struct bench_frames frames = {
		.count = LEAD + count_frames(gateway, options, row->size),
	};
	if (driver.queue == NULL && replace_driver(error) != 0)
		return -1;
	frames.packets = calloc(frames.count, sizeof(struct rte_mbuf *));
	frames.sas = calloc(frames.count, sizeof(*frames.sas));
	struct rte_mempool *pool = rte_pktmbuf_pool_create("share", frames.count, 0, 0,
		(uint16_t)bench_buffer_size(row->size), (int)rte_socket_id());
	int result = -1;
	if (frames.packets == NULL || frames.sas == NULL || pool == NULL ||
		rte_pktmbuf_alloc_bulk(pool, frames.packets, frames.count) != 0)
		bench_fail(error, "no memory for the buffers");
	else
		result = run_rounds(gateway, options, row, &frames, error);
	rte_mempool_free(pool);
	free(frames.packets);
	free(frames.sas);
	return result;
}
