// SPDX-License-Identifier: BSD-3-Clause
// Copyright (c) 2026 the espgw authors

// The last step: Ethernet header, and out of the port.

#include "internal.h"

static void append(struct worker *worker, const struct port *port, struct rte_mbuf *packet)
{
	struct worker_output *output = &worker->output[port->index];
	if (unlikely(output->count == RTE_DIM(output->packets)))
		transmit_flush(worker);
	output->packets[output->count++] = packet;
	worker->outputs |= UINT64_C(1) << port->index;
}

void transmit_frame(struct worker *worker, struct rte_mbuf *packet, const struct port *port)
{
	if (unlikely(!atomic_load_explicit(&port->usable, memory_order_relaxed)))
		worker_drop(worker, packet, DROP_PORT_DOWN);
	else
		append(worker, port, packet);
}

static void want(struct worker *worker, struct adjacency *adjacency, uint32_t index)
{
	if (!atomic_exchange_explicit(&adjacency->wanted, true, memory_order_relaxed))
		worker_event(worker, WORKER_EVENT_WANTED, index, NULL);
}

void transmit_ip(struct worker *worker, struct rte_mbuf *packet, uint32_t index, uint32_t tunnel)
{
	struct adjacency *adjacency = &worker->dataplane->adjacencies[index];
	uint64_t link = atomic_load_explicit(&adjacency->link, memory_order_relaxed);
	const struct port *port = &worker->dataplane->ports[adjacency_link_port(link)];
	if (unlikely(!(link & ADJACENCY_RESOLVED))) {
		want(worker, adjacency, index);
		worker_drop_of_tunnel(worker, packet, DROP_NEIGHBOUR_UNRESOLVED, tunnel);
		return;
	}
	if (unlikely(packet->pkt_len > port->mtu)) {
		worker_drop_of_tunnel(worker, packet, DROP_TOO_BIG, tunnel);
		return;
	}
	if (unlikely(!atomic_load_explicit(&adjacency->used, memory_order_relaxed)))
		atomic_store_explicit(&adjacency->used, true, memory_order_relaxed);
	// There is room: either the packet came with an Ethernet header, or it comes from a TUN,
	// whose packets are given headroom for all headers.
	bool is_ipv4 = *rte_pktmbuf_mtod(packet, const uint8_t *) >> 4 == 4;
	struct rte_ether_hdr *ethernet =
		(struct rte_ether_hdr *)rte_pktmbuf_prepend(packet, ETHERNET_SIZE);
	if (unlikely(ethernet == NULL)) {
		worker_drop_of_tunnel(worker, packet, DROP_NO_HEADROOM, tunnel);
		return;
	}
	memcpy(&ethernet->dst_addr, &link, sizeof(ethernet->dst_addr));
	ethernet->src_addr = port->mac;
	ethernet->ether_type =
		is_ipv4 ? RTE_BE16(RTE_ETHER_TYPE_IPV4) : RTE_BE16(RTE_ETHER_TYPE_IPV6);
	transmit_frame(worker, packet, port);
}

static void flush_port(struct worker *worker, unsigned int index)
{
	struct worker_output *output = &worker->output[index];
	struct telemetry_queue *queue = &worker->slot->queues[index];
	uint16_t port = worker->dataplane->ports[index].id;
	uint64_t bytes = 0;
	unsigned int sent = 0;
	for (unsigned int i = 0; i < output->count; i++)
		bytes += output->packets[i]->pkt_len;
	while (sent < output->count) {
		uint16_t taken = rte_eth_tx_burst(port, (uint16_t)worker->index,
			output->packets + sent, (uint16_t)(output->count - sent));
		if (taken == 0)
			break;
		sent += taken;
	}
	worker->source->forwarded += sent;
	for (unsigned int i = sent; i < output->count; i++) {
		bytes -= output->packets[i]->pkt_len;
		worker_drop(worker, output->packets[i], DROP_TX_FULL);
	}
	queue->tx_packets += sent;
	queue->tx_bytes += bytes;
	output->count = 0;
}

void transmit_flush(struct worker *worker)
{
	for (; worker->outputs != 0; worker->outputs &= worker->outputs - 1)
		flush_port(worker, (unsigned int)__builtin_ctzll(worker->outputs));
}
