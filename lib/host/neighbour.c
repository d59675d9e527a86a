// SPDX-License-Identifier: BSD-3-Clause
// Copyright (c) 2026 the espgw authors

#include <errno.h>
#include <string.h>

#include <linux/neighbour.h>

#include "host/mirror.h"

#define NEIGHBOUR_VALID \
	(NUD_PERMANENT | NUD_NOARP | NUD_REACHABLE | NUD_PROBE | NUD_STALE | NUD_DELAY)

bool neighbour_read(const struct nlmsghdr *message, struct host_neighbour *neighbour)
{
	const struct ndmsg *header = mnl_nlmsg_get_payload(message);
	const struct nlattr *table[NDA_MAX + 1];
	if (mnl_nlmsg_get_payload_len(message) < sizeof(*header) ||
		!netlink_read_message(message, sizeof(*header), table, NDA_MAX))
		return false;
	if (header->ndm_family != AF_INET && header->ndm_family != AF_INET6)
		return false;
	memset(neighbour, 0, sizeof(*neighbour));
	if ((header->ndm_flags & NTF_PROXY) || header->ndm_ifindex <= 0 || !table[NDA_DST] ||
		!netlink_read_address(table[NDA_DST], header->ndm_family, &neighbour->address) ||
		packet_address_is_multicast(&neighbour->address))
		return false;
	neighbour->interface = (unsigned int)header->ndm_ifindex;
	const struct nlattr *mac = table[NDA_LLADDR];
	if (message->nlmsg_type != RTM_NEWNEIGH || !(header->ndm_state & NEIGHBOUR_VALID) || !mac ||
		mnl_attr_get_payload_len(mac) != RTE_ETHER_ADDR_LEN)
		return true;
	memcpy(neighbour->mac.addr_bytes, mnl_attr_get_payload(mac), RTE_ETHER_ADDR_LEN);
	// The kernel's entry for a network's broadcast address has a broadcast MAC.
	neighbour->resolved = !rte_is_multicast_ether_addr(&neighbour->mac);
	return true;
}

static struct ndmsg *neighbour_request_begin(struct netlink_request *request, uint16_t type,
	uint16_t flags, unsigned int interface, const struct packet_address *address)
{
	struct ndmsg *header = netlink_request_begin(request, type, flags, sizeof(*header));
	header->ndm_family = netlink_family(address);
	header->ndm_ifindex = (int)interface;
	netlink_put_address(request, NDA_DST, address);
	return header;
}

static void neighbour_note_permanent(const struct nlmsghdr *message, void *argument)
{
	bool *permanent = argument;
	const struct ndmsg *header = mnl_nlmsg_get_payload(message);
	if (message->nlmsg_type == RTM_NEWNEIGH &&
		mnl_nlmsg_get_payload_len(message) >= sizeof(*header))
		*permanent = header->ndm_state & (NUD_PERMANENT | NUD_NOARP);
}

// An entry that somebody set by hand: asking for it would make the kernel forget its MAC.
static bool neighbour_is_permanent(
	struct host *host, unsigned int interface, const struct packet_address *address)
{
	struct netlink_request request;
	bool permanent = false;
	neighbour_request_begin(&request, RTM_GETNEIGH, 0, interface, address);
	netlink_run(&host->requests, &request, neighbour_note_permanent, &permanent);
	return permanent;
}

int host_neighbour_resolve(
	struct host *host, unsigned int interface, const struct packet_address *address)
{
	if (neighbour_is_permanent(host, interface, address))
		return 0;
	struct netlink_request request;
	struct ndmsg *header = neighbour_request_begin(
		&request, RTM_NEWNEIGH, NLM_F_CREATE | NLM_F_REPLACE, interface, address);
	// NTF_USE alone is what a kernel before 5.16 makes of this: it passes over the attribute.
	header->ndm_flags = NTF_USE;
	mnl_attr_put_u32(&request.header, NDA_FLAGS_EXT, NTF_EXT_MANAGED);
	return netlink_run(&host->requests, &request, NULL, NULL);
}

int host_neighbour_release(
	struct host *host, unsigned int interface, const struct packet_address *address)
{
	if (neighbour_is_permanent(host, interface, address))
		return 0;
	struct netlink_request request;
	struct ndmsg *header =
		neighbour_request_begin(&request, RTM_NEWNEIGH, NLM_F_REPLACE, interface, address);
	// Used, but no longer managed: the entry ages from now on as any other.
	header->ndm_flags = NTF_USE;
	int result = netlink_run(&host->requests, &request, NULL, NULL);
	return result == -ENOENT ? 0 : result;
}

int host_neighbour_remove(
	struct host *host, unsigned int interface, const struct packet_address *address)
{
	struct netlink_request request;
	neighbour_request_begin(&request, RTM_DELNEIGH, 0, interface, address);
	int result = netlink_run(&host->requests, &request, NULL, NULL);
	return result == -ENOENT ? 0 : result;
}

int host_neighbour_set(struct host *host, unsigned int interface,
	const struct packet_address *address, const struct rte_ether_addr *mac)
{
	struct netlink_request request;
	struct ndmsg *header = neighbour_request_begin(
		&request, RTM_NEWNEIGH, NLM_F_CREATE | NLM_F_REPLACE, interface, address);
	header->ndm_state = NUD_PERMANENT;
	mnl_attr_put(&request.header, NDA_LLADDR, RTE_ETHER_ADDR_LEN, mac->addr_bytes);
	return netlink_run(&host->requests, &request, NULL, NULL);
}
