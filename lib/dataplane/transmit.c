// SPDX-License-Identifier: BSD-3-Clause
// Copyright (c) 2026 the espgw authors

// The last step: Ethernet header, and out of the port.

#include "internal.h"

static inline void append(
	struct worker *worker, const struct port *port, struct rte_mbuf *packet, uint32_t tunnel)
{
	struct worker_output *output = &worker->output[port->index];
	if (unlikely(output->count == RTE_DIM(output->packets)))
		transmit_flush(worker);
	output->tunnels[output->count] = tunnel;
	output->packets[output->count++] = packet;
	worker->outputs |= UINT64_C(1) << port->index;
}

void transmit_frame(struct worker *worker, struct rte_mbuf *packet, const struct port *port)
{
	if (unlikely(!atomic_load_explicit(&port->usable, memory_order_relaxed)))
		worker_drop(worker, packet, DROP_PORT_DOWN);
	else
		append(worker, port, packet, NO_TUNNEL);
}

// Tells control once that an adjacency's MAC is needed.
static void want(struct worker *worker, struct adjacency *adjacency, uint32_t index)
{
	if (!atomic_exchange_explicit(&adjacency->wanted, true, memory_order_relaxed))
		worker_event(worker, WORKER_EVENT_WANTED, index, NULL, 0);
}

// The Ethernet header that leads to an adjacency, but for the type.
struct next_hop {
	uint64_t link;
	const struct port *port;
	bool usable;
};

static struct next_hop read_next_hop(struct worker *worker, uint32_t index)
{
	struct adjacency *adjacency = &worker->dataplane->adjacencies[index];
	uint64_t link = atomic_load_explicit(&adjacency->link, memory_order_relaxed);
	const struct port *port = &worker->dataplane->ports[adjacency_link_port(link)];
	if (unlikely(!(link & ADJACENCY_RESOLVED)))
		want(worker, adjacency, index);
	else if (unlikely(!atomic_load_explicit(&adjacency->used, memory_order_relaxed)))
		atomic_store_explicit(&adjacency->used, true, memory_order_relaxed);
	return (struct next_hop){
		link, port, atomic_load_explicit(&port->usable, memory_order_relaxed)};
}

static inline enum drop_reason check_next_hop(
	const struct next_hop *hop, const struct rte_mbuf *packet)
{
	if (unlikely(!(hop->link & ADJACENCY_RESOLVED)))
		return DROP_NEIGHBOUR_UNRESOLVED;
	if (unlikely(!hop->usable))
		return DROP_PORT_DOWN;
	if (unlikely(packet->pkt_len > hop->port->mtu))
		return DROP_TOO_BIG;
	// Packets come with an Ethernet header or, from a TUN, with room for all headers; but
	// encapsulation may have taken what a device's own headroom left.
	if (unlikely(rte_pktmbuf_headroom(packet) < ETHERNET_SIZE))
		return DROP_NO_HEADROOM;
	return DROP_NONE;
}

static inline void write_ethernet(struct rte_mbuf *packet, const struct next_hop *hop)
{
	bool is_ipv4 = *rte_pktmbuf_mtod(packet, const uint8_t *) >> 4 == 4;
	packet->data_off -= ETHERNET_SIZE;
	packet->data_len += ETHERNET_SIZE;
	packet->pkt_len += ETHERNET_SIZE;
	struct rte_ether_hdr *ethernet = rte_pktmbuf_mtod(packet, struct rte_ether_hdr *);
	memcpy(&ethernet->dst_addr, &hop->link, sizeof(ethernet->dst_addr));
	ethernet->src_addr = hop->port->mac;
	ethernet->ether_type =
		is_ipv4 ? RTE_BE16(RTE_ETHER_TYPE_IPV4) : RTE_BE16(RTE_ETHER_TYPE_IPV6);
}

void transmit_burst(struct worker *worker, struct rte_mbuf **packets, const uint32_t *adjacencies,
	const uint32_t *tunnels, unsigned int count)
{
	uint32_t read = UINT32_MAX; // no adjacency
	struct next_hop hop = {0};
	for (unsigned int i = 0; i < count; i++) {
		if (adjacencies[i] != read) {
			read = adjacencies[i];
			hop = read_next_hop(worker, read);
		}
		enum drop_reason reason = check_next_hop(&hop, packets[i]);
		if (unlikely(reason != DROP_NONE)) {
			worker_drop_of_tunnel(worker, packets[i], reason, tunnels[i]);
			continue;
		}
		write_ethernet(packets[i], &hop);
		append(worker, hop.port, packets[i], tunnels[i]);
	}
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
		worker_drop_of_tunnel(worker, output->packets[i], DROP_TX_FULL, output->tunnels[i]);
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
