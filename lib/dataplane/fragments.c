// SPDX-License-Identifier: BSD-3-Clause
// Copyright (c) 2026 the espgw authors

// Fragments that came in at an outside port and may be of ESP: to the worker whose table has the
// others of their packet.
//
// A NIC need not put all fragments of a packet on one queue: the first one has ports or an SPI to
// choose by, the others have addresses only. And a burst may be run by another worker than the one
// that received it (share.c). So the packet says which worker it is: by a hash of what all its
// fragments have in common. Whoever has a fragment of another's hands it over by a ring.

#include <rte_cycles.h>
#include <rte_malloc.h>

#include "internal.h"

#define RING_SIZE 256

static void end_fragment(void *argument, struct rte_mbuf *fragment, enum drop_reason reason)
{
	struct worker *worker = argument;
	struct telemetry_source *before = worker->source;
	worker->source = &worker->slot->sources[fragment->port];
	if (reason == DROP_NONE) {
		worker->source->joined++;
		rte_pktmbuf_free(fragment);
	} else {
		worker_drop(worker, fragment, reason);
	}
	worker->source = before;
}

bool fragments_create(struct worker *worker)
{
	const struct dataplane *dataplane = worker->dataplane;
	const struct config_gateway *config = &dataplane->config->gateway;
	const struct reassembly_parameters parameters = {
		.packets = config->reassembly_packets,
		.timeout = rte_get_tsc_hz() / 1000 * config->reassembly_timeout_ms,
		.pool = dataplane->ports[0].pool,
		.keys = dataplane->fragment_keys,
		.end = end_fragment,
		.argument = worker,
	};
	worker->reassembly = reassembly_create(&parameters);
	if (worker->reassembly == NULL || dataplane->worker_count == 1)
		return worker->reassembly != NULL;
	char name[RTE_RING_NAMESIZE];
	snprintf(name, sizeof(name), "fragments_%u", worker->index);
	// "Relaxed tail": a worker that lost its core while it put something in holds up no other,
	// and with the whole ring as limit none waits for it either.
	worker->fragments = rte_ring_create(
		name, RING_SIZE, (int)rte_socket_id(), RING_F_MP_RTS_ENQ | RING_F_SC_DEQ);
	if (worker->fragments != NULL)
		rte_ring_set_prod_htd_max(worker->fragments, RING_SIZE);
	return worker->fragments != NULL;
}

void fragments_destroy(struct worker *worker)
{
	reassembly_destroy(worker->reassembly);
	rte_ring_free(worker->fragments);
}

// What the first fragment's upper-layer header makes of the packet. False: it is too short to tell.
static bool read_content(
	const uint8_t *ip, const struct packet_fragment *fragment, enum reassembly_content *content)
{
	const uint8_t *piece = ip + fragment->begin;
	const struct rte_udp_hdr *udp = (const struct rte_udp_hdr *)piece;
	static const uint8_t non_esp_marker[4];
	*content = REASSEMBLY_CONTENT_LATER;
	if (fragment->offset != 0)
		return true;
	*content = REASSEMBLY_CONTENT_ESP;
	if (fragment->protocol == IPPROTO_ESP)
		return true;
	if (fragment->size < sizeof(*udp))
		return false;
	*content = REASSEMBLY_CONTENT_HOST;
	if (udp->dst_port == RTE_BE16(PACKET_UDP_IKE))
		*content = REASSEMBLY_CONTENT_HOST_URGENT;
	if (udp->dst_port != RTE_BE16(PACKET_UDP_ESP))
		return true;
	if (fragment->size < sizeof(*udp) + sizeof(non_esp_marker))
		return false;
	*content = memcmp(udp + 1, non_esp_marker, sizeof(non_esp_marker)) == 0
			   ? REASSEMBLY_CONTENT_HOST_URGENT
			   : REASSEMBLY_CONTENT_ESP;
	return true;
}

static const uint8_t *ip_of(const struct rte_mbuf *frame)
{
	return rte_pktmbuf_mtod_offset(frame, const uint8_t *, ETHERNET_SIZE);
}

static void give_to_host(struct worker *worker, const struct reassembly_result *result)
{
	struct telemetry_source *before = worker->source;
	for (unsigned int i = 0; i < result->count; i++) {
		struct rte_mbuf *frame = result->packets[i];
		worker->source = &worker->slot->sources[frame->port];
		punt_frame(worker, frame, &worker->dataplane->ports[frame->port], result->urgent);
	}
	worker->source = before;
}

// A fragment of a packet that is this worker's to put together. The whole frame, or NULL.
static struct rte_mbuf *add(
	struct worker *worker, struct rte_mbuf *frame, const struct packet_fragment *fragment)
{
	enum reassembly_content content;
	struct reassembly_result result;
	if (!read_content(ip_of(frame), fragment, &content)) {
		end_fragment(worker, frame, DROP_FRAGMENT_BAD);
		return NULL;
	}
	reassembly_add(worker->reassembly, frame, fragment, content, rte_rdtsc(), &result);
	give_to_host(worker, &result);
	return result.whole;
}

// The worker that puts this fragment's packet together.
static struct worker *owner_of(
	struct worker *worker, const uint8_t *ip, const struct packet_fragment *fragment)
{
	const struct dataplane *dataplane = worker->dataplane;
	struct reassembly_key key = reassembly_key(ip, fragment);
	uint64_t hash = reassembly_hash(dataplane->fragment_keys, &key);
	return dataplane->workers[hash * dataplane->worker_count >> 32];
}

struct rte_mbuf *fragment_take(
	struct worker *worker, const struct port *port, struct rte_mbuf *frame)
{
	struct packet_fragment fragment;
	const uint8_t *ip = ip_of(frame);
	frame->port = port->index;
	if (!packet_fragment_view(ip, frame->data_len - ETHERNET_SIZE, &fragment) ||
		(fragment.protocol != IPPROTO_ESP && fragment.protocol != IPPROTO_UDP)) {
		end_fragment(worker, frame, DROP_ESP_FRAGMENT);
		return NULL;
	}
	struct worker *owner = owner_of(worker, ip, &fragment);
	if (owner == worker)
		return add(worker, frame, &fragment);
	if (rte_ring_enqueue(owner->fragments, frame) != 0)
		end_fragment(worker, frame, DROP_FRAGMENT_RING_FULL);
	return NULL;
}

unsigned int fragments_receive(struct worker *worker)
{
	struct rte_mbuf *frames[BURST_MAX];
	unsigned int count =
		rte_ring_sc_dequeue_burst(worker->fragments, (void **)frames, BURST_MAX, NULL);
	worker_note_busy(worker);
	stage_enter(&worker->stages, STAGE_CLASSIFY, count);
	for (unsigned int i = 0; i < count; i++) {
		struct packet_fragment fragment;
		const uint32_t size = frames[i]->data_len - (uint32_t)ETHERNET_SIZE;
		packet_fragment_view(ip_of(frames[i]), size, &fragment); // it is one
		struct rte_mbuf *whole = add(worker, frames[i], &fragment);
		if (whole != NULL)
			receive_whole(worker, &worker->dataplane->ports[whole->port], whole);
	}
	worker_free_drops(worker);
	return count;
}

void fragments_expire(struct worker *worker)
{
	reassembly_expire(worker->reassembly, rte_rdtsc());
	worker_free_drops(worker);
}

void fragments_stop(struct worker *worker)
{
	struct rte_mbuf *frame;
	reassembly_drop_all(worker->reassembly, DROP_STOPPED);
	while (worker->fragments != NULL &&
		rte_ring_sc_dequeue(worker->fragments, (void **)&frame) == 0)
		end_fragment(worker, frame, DROP_STOPPED);
	worker_free_drops(worker);
}
