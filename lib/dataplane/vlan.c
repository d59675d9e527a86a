// SPDX-License-Identifier: BSD-3-Clause
// Copyright (c) 2026 the espgw authors

// VLAN tags (IEEE 802.1Q, and 802.1ad with two tags) of ports that are members of one VLAN. They go
// before anything else looks at a frame, and come when it is complete, so that the steps in between
// know untagged frames only.

#include "internal.h"

#define MACS_SIZE (2 * RTE_ETHER_ADDR_LEN)
#define VLAN_ID   0x0fffu

// As they follow the MAC addresses. A service tag stands first.
static void add_tag(struct port *port, uint16_t type, uint32_t id)
{
	uint16_t fields[2] = {rte_cpu_to_be_16(type), rte_cpu_to_be_16((uint16_t)id)};
	memcpy(port->tags + port->tags_size, fields, sizeof(fields));
	port->tags_size = (uint8_t)(port->tags_size + sizeof(fields));
}

void vlan_set_up(struct port *port)
{
	const struct config_port *config = port->config;
	if (config->service_vlan != 0)
		add_tag(port, RTE_ETHER_TYPE_QINQ, config->service_vlan);
	if (config->vlan != 0)
		add_tag(port, RTE_ETHER_TYPE_VLAN, config->vlan);
}

// Whether the frame has the port's tags, whatever their priority bits. Where the kernel or a NIC
// has taken the outer tag off, its driver puts it back as one of 802.1Q, so a service tag may
// be either.
static bool has_tags(const struct port *port, const uint8_t *tags)
{
	for (unsigned int at = 0; at < port->tags_size; at += VLAN_TAG_SIZE) {
		uint16_t type, fields, wanted;
		memcpy(&type, tags + at, sizeof(type));
		memcpy(&fields, tags + at + sizeof(type), sizeof(fields));
		memcpy(&wanted, port->tags + at + sizeof(type), sizeof(wanted));
		bool may_be_service = at + VLAN_TAG_SIZE < port->tags_size;
		if (type != RTE_BE16(RTE_ETHER_TYPE_VLAN) &&
			!(may_be_service && type == RTE_BE16(RTE_ETHER_TYPE_QINQ)))
			return false;
		if (((fields ^ wanted) & RTE_BE16(VLAN_ID)) != 0)
			return false;
	}
	return true;
}

static enum drop_reason strip(const struct port *port, struct rte_mbuf *packet)
{
	if (packet->data_len < (uint32_t)ETHERNET_SIZE + port->tags_size)
		return packet->nb_segs != 1 ? DROP_NOT_LINEAR : DROP_VLAN;
	uint8_t *frame = rte_pktmbuf_mtod(packet, uint8_t *);
	if (!has_tags(port, frame + MACS_SIZE))
		return DROP_VLAN;
	memmove(frame + port->tags_size, frame, MACS_SIZE);
	packet->data_off = (uint16_t)(packet->data_off + port->tags_size);
	packet->data_len = (uint16_t)(packet->data_len - port->tags_size);
	packet->pkt_len -= port->tags_size;
	return DROP_NONE;
}

unsigned int vlan_strip_burst(struct worker *worker, const struct port *port,
	struct rte_mbuf **packets, unsigned int count)
{
	unsigned int kept = 0;
	for (unsigned int i = 0; i < count; i++) {
		enum drop_reason reason = strip(port, packets[i]);
		if (reason == DROP_NONE) {
			packets[kept++] = packets[i];
			continue;
		}
		worker->source->received++;
		worker->source->received_bytes += packets[i]->pkt_len;
		worker_drop(worker, packets[i], reason);
	}
	return kept;
}

void vlan_add(const struct port *port, struct rte_mbuf *packet)
{
	uint8_t *frame = rte_pktmbuf_mtod(packet, uint8_t *) - port->tags_size;
	memmove(frame, frame + port->tags_size, MACS_SIZE);
	memcpy(frame + MACS_SIZE, port->tags, port->tags_size);
	packet->data_off = (uint16_t)(packet->data_off - port->tags_size);
	packet->data_len = (uint16_t)(packet->data_len + port->tags_size);
	packet->pkt_len += port->tags_size;
}
