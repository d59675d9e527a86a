// SPDX-License-Identifier: BSD-3-Clause
// Copyright (c) 2026 the espgw authors

#include "selector.h"

#include <netinet/in.h>
#include <string.h>

#include <rte_malloc.h>

// An address as two words; of IPv4 the second one and half of the first are 0.
struct address {
	uint64_t words[2];
};

struct masked {
	struct address value, mask;
};

// Host order. For ICMP the number is type * 256 + code (RFC 7296 section 3.13.1).
struct range {
	uint16_t first, last;
};

struct selector {
	bool is_ipv4;
	bool any_ports;
	uint8_t protocol; // 0 = any
	struct masked local, remote;
	struct range local_ports, remote_ports;
};

struct selector_set {
	bool all_ipv4, all_ipv6; // nothing of the family is left out
	bool protocols;          // one of the selectors asks for the protocol
	unsigned int count;
	struct selector selectors[];
};

// What a packet shows of itself.
struct shown {
	bool is_ipv4;
	bool has_ports;
	uint8_t protocol; // 0 = none is shown
	struct address local, remote;
	uint16_t local_port, remote_port;
};

// ---- Control ----

static struct range range_of(const struct esp_ports *ports)
{
	if (ports->last == 0)
		return (struct range){0, UINT16_MAX};
	return (struct range){ports->first, ports->last};
}

static bool is_all(struct range range)
{
	return range.first == 0 && range.last == UINT16_MAX;
}

static struct masked masked_of(const struct packet_prefix *prefix)
{
	uint8_t mask[16] = {0};
	struct masked masked = {0};
	for (unsigned int bit = 0; bit < prefix->length; bit++)
		mask[bit / 8] |= (uint8_t)(0x80 >> bit % 8);
	memcpy(&masked.mask, mask, sizeof(masked.mask));
	memcpy(&masked.value, prefix->address.bytes, sizeof(masked.value));
	masked.value.words[0] &= masked.mask.words[0];
	masked.value.words[1] &= masked.mask.words[1];
	return masked;
}

static struct selector selector_of(const struct esp_selector *given)
{
	struct selector selector = {
		.is_ipv4 = given->local.address.family == 4,
		.protocol = given->protocol,
		.local = masked_of(&given->local),
		.remote = masked_of(&given->remote),
		.local_ports = range_of(&given->local_ports),
		.remote_ports = range_of(&given->remote_ports),
	};
	selector.any_ports = is_all(selector.local_ports) && is_all(selector.remote_ports);
	return selector;
}

static bool allows_all(const struct esp_selector *given)
{
	return given->local.length == 0 && given->remote.length == 0 && given->protocol == 0 &&
	       is_all(range_of(&given->local_ports)) && is_all(range_of(&given->remote_ports));
}

static bool family_is_all(const struct esp_selector *selectors, unsigned int count, uint8_t family)
{
	for (unsigned int i = 0; i < count; i++)
		if (selectors[i].local.address.family == family && allows_all(&selectors[i]))
			return true;
	return false;
}

bool selectors_allow_all(const struct esp_selector *selectors, unsigned int count)
{
	return count == 0 ||
	       (family_is_all(selectors, count, 4) && family_is_all(selectors, count, 6));
}

struct selector_set *selectors_create(const struct esp_selector *selectors, unsigned int count)
{
	struct selector_set *set = rte_zmalloc(
		"selectors", sizeof(*set) + count * sizeof(set->selectors[0]), RTE_CACHE_LINE_SIZE);
	if (set == NULL)
		return NULL;
	set->all_ipv4 = family_is_all(selectors, count, 4);
	set->all_ipv6 = family_is_all(selectors, count, 6);
	set->count = count;
	for (unsigned int i = 0; i < count; i++) {
		set->selectors[i] = selector_of(&selectors[i]);
		set->protocols |= selectors[i].protocol != 0;
	}
	return set;
}

void selectors_free(struct selector_set *set)
{
	rte_free(set);
}

// ---- Worker ----

// Source and destination address become the local and the remote one.
static void read_addresses(struct shown *shown, const uint8_t *ip, bool outbound)
{
	struct address source = {0}, destination = {0};
	if (shown->is_ipv4) {
		const struct rte_ipv4_hdr *header = (const struct rte_ipv4_hdr *)ip;
		memcpy(&source, &header->src_addr, sizeof(header->src_addr));
		memcpy(&destination, &header->dst_addr, sizeof(header->dst_addr));
	} else {
		const struct rte_ipv6_hdr *header = (const struct rte_ipv6_hdr *)ip;
		memcpy(&source, header->src_addr, sizeof(source));
		memcpy(&destination, header->dst_addr, sizeof(destination));
	}
	shown->local = outbound ? source : destination;
	shown->remote = outbound ? destination : source;
}

// What the upper layer begins with, where that is there.
static void read_ports(struct shown *shown, const uint8_t *upper, uint32_t size, bool outbound)
{
	uint16_t source, destination;
	switch (shown->protocol) {
	case IPPROTO_TCP:
	case IPPROTO_UDP:
	case IPPROTO_DCCP:
	case IPPROTO_SCTP:
	case IPPROTO_UDPLITE:
		if (size < 4)
			return;
		source = (uint16_t)(upper[0] << 8 | upper[1]);
		destination = (uint16_t)(upper[2] << 8 | upper[3]);
		break;
	case IPPROTO_ICMP:
	case IPPROTO_ICMPV6:
		if (size < 2)
			return;
		source = destination = (uint16_t)(upper[0] << 8 | upper[1]);
		break;
	default:
		return;
	}
	shown->has_ports = true;
	shown->local_port = outbound ? source : destination;
	shown->remote_port = outbound ? destination : source;
}

static void read_upper(struct shown *shown, const uint8_t *ip, uint32_t length, bool outbound)
{
	struct packet_ip_view view;
	if (!packet_ip_view(ip, length, &view))
		return;
	shown->protocol = view.protocol;
	if (view.is_first && view.header <= length)
		read_ports(shown, ip + view.header, length - view.header, outbound);
}

static bool is_within(const struct address *address, const struct masked *masked)
{
	uint64_t difference =
		((address->words[0] & masked->mask.words[0]) ^ masked->value.words[0]) |
		((address->words[1] & masked->mask.words[1]) ^ masked->value.words[1]);
	return difference == 0;
}

static bool is_in_range(uint16_t port, struct range range)
{
	return port >= range.first && port <= range.last;
}

static bool selector_matches(const struct selector *selector, const struct shown *shown)
{
	if (selector->is_ipv4 != shown->is_ipv4 || !is_within(&shown->local, &selector->local) ||
		!is_within(&shown->remote, &selector->remote))
		return false;
	if (selector->protocol == 0)
		return true;
	if (shown->protocol != selector->protocol)
		return false;
	return selector->any_ports ||
	       (shown->has_ports && is_in_range(shown->local_port, selector->local_ports) &&
		       is_in_range(shown->remote_port, selector->remote_ports));
}

bool selectors_match(
	const struct selector_set *set, const uint8_t *ip, uint32_t length, bool outbound)
{
	struct shown shown = {.is_ipv4 = ip[0] >> 4 == 4};
	if (shown.is_ipv4 ? set->all_ipv4 : set->all_ipv6)
		return true;
	read_addresses(&shown, ip, outbound);
	if (set->protocols)
		read_upper(&shown, ip, length, outbound);
	for (unsigned int i = 0; i < set->count; i++)
		if (selector_matches(&set->selectors[i], &shown))
			return true;
	return false;
}
