// SPDX-License-Identifier: BSD-3-Clause
// Copyright (c) 2026 the espgw authors

// In which order the packets of one outbound SA leave that several workers send at once. Each
// worker encapsulates burst after burst and notes when each is ready to be sent and which numbers
// it has; a NIC that takes bursts in this order would send them so.

#include <stdlib.h>
#include <string.h>

#include <rte_byteorder.h>
#include <rte_cycles.h>
#include <rte_ether.h>
#include <rte_ip.h>

#include "bench.h"

#define BURSTS          20000 // of each worker
#define BURST           32
#define HEAD_SIZE       64 // of a frame: all that encapsulation needs to find as it was
#define DISTURBED_TIMES 10 // a burst that took so many times the median was interrupted

static const uint32_t windows[BENCH_ORDER_WINDOWS] = {64, 128, 1024, 4096};

struct sent_burst {
	uint64_t begun, sent; // TSC
	uint32_t first;       // sequence number; the others follow
};

static struct {
	struct bench_gateway *gateway;
	struct rte_mbuf *packets[BENCH_WORKERS_MAX][BURST];
	uint8_t heads[BENCH_WORKERS_MAX][BURST][HEAD_SIZE];
	uint16_t lengths[BENCH_WORKERS_MAX][BURST];
	struct sent_burst *bursts; // [worker][BURSTS]
	bool failed[BENCH_WORKERS_MAX];
} order;

// What arrives next: the same frames again. (Payloads are what encryption has made of them.)
static void restore(unsigned int worker)
{
	for (unsigned int i = 0; i < BURST; i++) {
		struct rte_mbuf *packet = order.packets[worker][i];
		packet->data_off = RTE_PKTMBUF_HEADROOM;
		packet->data_len = order.lengths[worker][i];
		packet->pkt_len = packet->data_len;
		memcpy(rte_pktmbuf_mtod(packet, void *), order.heads[worker][i], HEAD_SIZE);
	}
}

static uint32_t sequence_of(const struct rte_mbuf *packet)
{
	uint32_t sequence;
	memcpy(&sequence,
		rte_pktmbuf_mtod_offset(packet, const uint8_t *,
			sizeof(struct rte_ether_hdr) + sizeof(struct rte_ipv4_hdr) + 4),
		sizeof(sequence));
	return rte_be_to_cpu_32(sequence);
}

// A task of all.
static void send_many(void *argument, unsigned int worker)
{
	struct sent_burst *bursts = order.bursts + (size_t)worker * BURSTS;
	(void)argument;
	bench_team_meet();
	for (unsigned int i = 0; i < BURSTS; i++) {
		restore(worker);
		bursts[i].begun = rte_rdtsc();
		if (bench_gateway_pass(
			    order.gateway, worker, BENCH_ENCAP, order.packets[worker], BURST) != 0)
			order.failed[worker] = true;
		bursts[i].sent = rte_rdtsc();
		bursts[i].first = sequence_of(order.packets[worker][0]);
	}
}

static int compare_sent(const void *a, const void *b)
{
	const struct sent_burst *x = a, *y = b;
	return (x->sent > y->sent) - (x->sent < y->sent);
}

static int compare_numbers(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
	return (x > y) - (x < y);
}

static uint64_t median_duration(unsigned int count)
{
	uint64_t *durations = calloc(count, sizeof(*durations));
	if (durations == NULL)
		return 0;
	for (unsigned int i = 0; i < count; i++)
		durations[i] = order.bursts[i].sent - order.bursts[i].begun;
	qsort(durations, count, sizeof(*durations), compare_numbers);
	uint64_t median = durations[count / 2];
	free(durations);
	return median;
}

// A packet is late by how far its number is below the highest before it; a window of so many
// packets or fewer refuses it.
static void count_late(
	struct bench_lateness *lateness, const struct sent_burst *burst, uint32_t highest)
{
	for (uint32_t number = burst->first; number < burst->first + BURST; number++) {
		uint32_t late = highest > number ? highest - number : 0;
		for (unsigned int i = 0; i < BENCH_ORDER_WINDOWS; i++)
			lateness->outside[i] += late >= windows[i];
		lateness->most = RTE_MAX(lateness->most, late);
	}
	lateness->packets += BURST;
}

static void judge(struct bench_order *row, unsigned int count)
{
	uint64_t median = median_duration(count);
	uint32_t highest = 0;
	qsort(order.bursts, count, sizeof(*order.bursts), compare_sent);
	for (unsigned int i = 0; i < count; i++) {
		const struct sent_burst *burst = &order.bursts[i];
		count_late(&row->all, burst, highest);
		if (burst->sent - burst->begun < DISTURBED_TIMES * median)
			count_late(&row->undisturbed, burst, highest);
		highest = RTE_MAX(highest, burst->first + BURST - 1);
	}
}

static int take_frames(struct bench_order *row, unsigned int worker, struct rte_mempool *pool,
	struct bench_error *error)
{
	uint16_t sas[BURST];
	struct bench_frames frames = {
		.worker = worker, .count = BURST, .packets = order.packets[worker], .sas = sas};
	if (rte_pktmbuf_alloc_bulk(pool, frames.packets, BURST) != 0 ||
		bench_frames_make(order.gateway, BENCH_ENCAP, row->size, &frames) != 0)
		return bench_fail(error, "no memory for the frames");
	for (unsigned int i = 0; i < BURST; i++) {
		memcpy(order.heads[worker][i], rte_pktmbuf_mtod(frames.packets[i], void *),
			HEAD_SIZE);
		order.lengths[worker][i] = frames.packets[i]->data_len;
	}
	return 0;
}

static int run(struct bench_order *row, unsigned int workers, struct rte_mempool *pool,
	struct bench_error *error)
{
	if (pool == NULL || order.bursts == NULL)
		return bench_fail(error, "no memory for the frames");
	for (unsigned int i = 0; i < workers; i++)
		if (take_frames(row, i, pool, error) != 0)
			return -1;
	bench_team_run_all(send_many, NULL);
	for (unsigned int i = 0; i < workers; i++)
		if (order.failed[i])
			return bench_fail(error, "not all packets were sent");
	judge(row, workers * BURSTS);
	return 0;
}

int bench_order_measure(
	struct bench_gateway *gateway, struct bench_order *row, struct bench_error *error)
{
	unsigned int workers = gateway->worker_count;
	memset(&order, 0, sizeof(order));
	order.gateway = gateway;
	order.bursts = calloc((size_t)workers * BURSTS, sizeof(*order.bursts));
	struct rte_mempool *pool = rte_pktmbuf_pool_create("order", workers * BURST, 0, 0,
		(uint16_t)bench_buffer_size(row->size), (int)rte_socket_id());
	int result = run(row, workers, pool, error);
	rte_mempool_free(pool);
	free(order.bursts);
	return result;
}
