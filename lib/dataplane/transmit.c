// SPDX-License-Identifier: BSD-3-Clause
// Copyright (c) 2026 the espgw authors

// The last step: Ethernet header, and out of the port.

#include "group.h"
#include "internal.h"

// Room for `count` frames more of this port, count <= BURST_MAX.
static struct worker_output *make_room(
	struct worker *worker, const struct port *port, unsigned int count)
{
	struct worker_output *output = &worker->output[port->index];
	if (unlikely(output->count + count > RTE_DIM(output->packets)))
		transmit_flush(worker);
	worker->outputs |= UINT64_C(1) << port->index;
	return output;
}

void transmit_frame(struct worker *worker, struct rte_mbuf *packet, const struct port *port)
{
	if (unlikely(!atomic_load_explicit(&port->usable, memory_order_relaxed))) {
		worker_drop(worker, packet, DROP_PORT_DOWN);
		return;
	}
	if (unlikely(port->tags_size != 0)) {
		if (packet->data_off < port->tags_size) {
			worker_drop(worker, packet, DROP_NO_HEADROOM);
			return;
		}
		vlan_add(port, packet);
	}
	struct worker_output *output = make_room(worker, port, 1);
	output->tunnels[output->count] = NO_TUNNEL;
	output->packets[output->count++] = packet;
}

// Tells control once that an adjacency's MAC is needed.
static void want(struct worker *worker, struct adjacency *adjacency, uint32_t index)
{
	if (!atomic_exchange_explicit(&adjacency->wanted, true, memory_order_relaxed))
		worker_event(worker, WORKER_EVENT_WANTED, index, NULL, 0);
}

// What leads to an adjacency, read once for neighbours in a burst that share it.
struct next_hop {
	const struct port *port;
	uint64_t destination; // MAC, and the first two bytes of the port's own: 8 bytes of header
	uint64_t source[2];   // the port's own MAC and an EtherType: the last 8, for IPv4 and IPv6
	uint32_t size_limit;  // of a packet
	uint16_t headroom;    // bytes that the frame's header takes
	enum drop_reason refusal; // why nothing goes this way, or DROP_NONE
};

static struct next_hop read_next_hop(
	struct worker *worker, uint32_t index, enum transmit_content content)
{
	struct adjacency *adjacency = &worker->dataplane->adjacencies[index];
	uint64_t link = atomic_load_explicit(&adjacency->link, memory_order_relaxed);
	const struct port *port = &worker->dataplane->ports[adjacency_link_port(link)];
	struct next_hop hop = {
		.port = port,
		.destination = (link & ADJACENCY_MAC) | port->mac_word << 48,
		.source = {port->mac_word | (uint64_t)RTE_BE16(RTE_ETHER_TYPE_IPV4) << 48,
			port->mac_word | (uint64_t)RTE_BE16(RTE_ETHER_TYPE_IPV6) << 48},
		.size_limit = port->mtu,
		.headroom = (uint16_t)(ETHERNET_SIZE + port->tags_size),
	};
	if (unlikely(content == TRANSMIT_CLEARTEXT && port->is_outside)) {
		hop.refusal = DROP_CLEARTEXT_TO_OUTSIDE;
	} else if (unlikely(!(link & ADJACENCY_RESOLVED))) {
		want(worker, adjacency, index);
		hop.refusal = DROP_NEIGHBOUR_UNRESOLVED;
	} else {
		if (unlikely(!atomic_load_explicit(&adjacency->used, memory_order_relaxed)))
			atomic_store_explicit(&adjacency->used, true, memory_order_relaxed);
		if (unlikely(!atomic_load_explicit(&port->usable, memory_order_relaxed)))
			hop.refusal = DROP_PORT_DOWN;
	}
	if (unlikely(hop.refusal != DROP_NONE))
		hop.size_limit = 0; // nothing fits
	return hop;
}

// Packets come with an Ethernet header or, from a TUN, with room for all headers; but encapsulation
// may have taken what a device's own headroom left.
static inline bool fits(const struct next_hop *hop, const struct rte_mbuf *packet)
{
	return packet->pkt_len <= hop->size_limit && packet->data_off >= hop->headroom;
}

static enum drop_reason why_not(const struct next_hop *hop, const struct rte_mbuf *packet)
{
	if (hop->refusal != DROP_NONE)
		return hop->refusal;
	return packet->pkt_len > hop->size_limit ? DROP_TOO_BIG : DROP_NO_HEADROOM;
}

// What is too big for its next hop leaves in fragments or is told of; only cleartext, since an ESP
// packet's sender is the gateway itself.
static __attribute__((noinline)) void refuse(struct worker *worker, struct rte_mbuf *packet,
	const struct next_hop *hop, uint32_t adjacency, uint32_t tunnel,
	enum transmit_content content)
{
	enum drop_reason reason = why_not(hop, packet);
	if (reason != DROP_TOO_BIG || content != TRANSMIT_CLEARTEXT) {
		worker_drop_of_tunnel(worker, packet, reason, tunnel);
		return;
	}
	const uint8_t *ip = rte_pktmbuf_mtod(packet, const uint8_t *);
	if (packet_ipv4_may_split(ip) && later_split(worker, packet, LATER_SPLIT_TO_PORT, adjacency,
						 hop->size_limit, tunnel))
		return;
	icmp_refuse(
		worker, packet, DROP_TOO_BIG, tunnel, PACKET_ICMP_TOO_BIG, hop->size_limit, tunnel);
}

// Two overlapping words make the 14 bytes. The versions 4 and 6 differ in one bit.
static inline void write_ethernet(struct rte_mbuf *packet, const struct next_hop *hop)
{
	uint8_t *ip = rte_pktmbuf_mtod(packet, uint8_t *);
	const uint64_t *source = &hop->source[ip[0] >> 5 & 1];
	memcpy(ip - ETHERNET_SIZE, &hop->destination, sizeof(hop->destination));
	memcpy(ip - sizeof(*source), source, sizeof(*source));
	packet->data_off = (uint16_t)(packet->data_off - ETHERNET_SIZE);
	packet->pkt_len += ETHERNET_SIZE;
	packet->data_len = (uint16_t)packet->pkt_len; // one segment
}

// Gives packets their Ethernet headers, up to the first one that does not fit; returns which that
// is.
static inline unsigned int write_headers(
	const struct next_hop *hop, struct rte_mbuf *const *packets, unsigned int count)
{
	unsigned int i;
	for (i = 0; i < count && likely(fits(hop, packets[i])); i++)
		write_ethernet(packets[i], hop);
	return i;
}

// The same from packet `begin` on, but refuses those that do not fit and closes the gaps; returns
// how many are left of all.
static __attribute__((noinline)) unsigned int refuse_some(struct worker *worker,
	const struct next_hop *hop, uint32_t adjacency, struct rte_mbuf **packets,
	uint32_t *tunnels, unsigned int begin, unsigned int count, enum transmit_content content)
{
	unsigned int left = begin;
	for (unsigned int i = begin; i < count; i++) {
		if (!fits(hop, packets[i])) {
			refuse(worker, packets[i], hop, adjacency, tunnels[i], content);
			continue;
		}
		write_ethernet(packets[i], hop);
		packets[left] = packets[i];
		tunnels[left++] = tunnels[i];
	}
	return left;
}

void transmit_run(struct worker *worker, uint32_t adjacency, struct rte_mbuf **packets,
	uint32_t *tunnels, unsigned int count, enum transmit_content content)
{
	const struct next_hop hop = read_next_hop(worker, adjacency, content);
	unsigned int fitting = write_headers(&hop, packets, count);
	if (unlikely(fitting != count))
		count = refuse_some(
			worker, &hop, adjacency, packets, tunnels, fitting, count, content);
	if (unlikely(hop.port->tags_size != 0))
		for (unsigned int i = 0; i < count; i++)
			vlan_add(hop.port, packets[i]);
	struct worker_output *output = make_room(worker, hop.port, count);
	memcpy(output->packets + output->count, packets, count * sizeof(*packets));
	memcpy(output->tunnels + output->count, tunnels, count * sizeof(*tunnels));
	output->count += count;
}

void transmit_burst(struct worker *worker, struct rte_mbuf **packets, const uint32_t *adjacencies,
	uint32_t *tunnels, unsigned int count)
{
	stage_enter(&worker->stages, STAGE_TRANSMIT, count);
	const bool one = are_equal(adjacencies, count);
	for (unsigned int begin = 0, end; begin < count; begin = end) {
		end = one ? count : begin + 1;
		while (end < count && adjacencies[end] == adjacencies[begin])
			end++;
		transmit_run(worker, adjacencies[begin], packets + begin, tunnels + begin,
			end - begin, TRANSMIT_CLEARTEXT);
	}
}

// A health probe that the queue did not take has another try.
static bool keep_late(
	struct worker *worker, unsigned int port, struct rte_mbuf *packet, uint32_t tunnel)
{
	if (!worker->keeps_late || worker->late_count == LATE_MAX)
		return false;
	worker->late[worker->late_count++] = (struct late_frame){packet, tunnel, port};
	return true;
}

static void flush_port(struct worker *worker, unsigned int index)
{
	struct worker_output *output = &worker->output[index];
	struct telemetry_queue *queue = &worker->slot->queues[index];
	uint16_t port = worker->dataplane->ports[index].id;
	uint64_t bytes = 0;
	unsigned int sent = 0;
	enum stage before = stage_enter(&worker->stages, STAGE_SEND, output->count);
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
		if (keep_late(worker, index, output->packets[i], output->tunnels[i]))
			continue;
		worker_drop_of_tunnel(worker, output->packets[i], DROP_TX_FULL, output->tunnels[i]);
	}
	queue->tx_packets += sent;
	queue->tx_bytes += bytes;
	output->count = 0;
	stage_resume(&worker->stages, before);
}

void transmit_flush(struct worker *worker)
{
	for (; worker->outputs != 0; worker->outputs &= worker->outputs - 1)
		flush_port(worker, (unsigned int)__builtin_ctzll(worker->outputs));
}
