// SPDX-License-Identifier: BSD-3-Clause
// Copyright (c) 2026 the espgw authors

// Interfaces' state, configuration and addresses over netlink.

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <linux/if_addr.h>
#include <linux/if_link.h>

#include "host/mirror.h"

static bool link_read_kind(const struct nlattr *nest, struct link_state *state)
{
	const struct nlattr *info[IFLA_INFO_MAX + 1];
	if (!netlink_read_attributes(mnl_attr_get_payload(nest), mnl_attr_get_payload_len(nest),
		    info, IFLA_INFO_MAX))
		return false;
	const struct nlattr *kind = info[IFLA_INFO_KIND];
	if (!kind)
		return true;
	snprintf(state->kind, sizeof(state->kind), "%.*s", mnl_attr_get_payload_len(kind),
		(const char *)mnl_attr_get_payload(kind));
	const struct nlattr *data = info[IFLA_INFO_DATA];
	if (strcmp(state->kind, "tun") != 0 || !data)
		return true;
	const struct nlattr *tun[IFLA_TUN_MAX + 1];
	if (!netlink_read_attributes(
		    mnl_attr_get_payload(data), mnl_attr_get_payload_len(data), tun, IFLA_TUN_MAX))
		return false;
	if (tun[IFLA_TUN_TYPE] && mnl_attr_get_payload_len(tun[IFLA_TUN_TYPE]) == 1)
		state->tun_type = mnl_attr_get_u8(tun[IFLA_TUN_TYPE]);
	if (tun[IFLA_TUN_MULTI_QUEUE] && mnl_attr_get_payload_len(tun[IFLA_TUN_MULTI_QUEUE]) == 1)
		state->multi_queue = mnl_attr_get_u8(tun[IFLA_TUN_MULTI_QUEUE]);
	return true;
}

static void link_visit(const struct nlmsghdr *message, void *argument)
{
	struct link_state *state = argument;
	const struct ifinfomsg *header = mnl_nlmsg_get_payload(message);
	const struct nlattr *table[IFLA_MAX + 1];
	if (message->nlmsg_type != RTM_NEWLINK ||
		mnl_nlmsg_get_payload_len(message) < sizeof(*header) || header->ifi_index <= 0 ||
		!netlink_read_message(message, sizeof(*header), table, IFLA_MAX))
		return;
	if (table[IFLA_LINKINFO] && !link_read_kind(table[IFLA_LINKINFO], state))
		return;
	state->index = (unsigned int)header->ifi_index;
	state->flags = header->ifi_flags;
}

int link_get(
	struct netlink *requests, unsigned int index, const char *name, struct link_state *state)
{
	struct netlink_request request;
	struct ifinfomsg *header = netlink_request_begin(&request, RTM_GETLINK, 0, sizeof(*header));
	header->ifi_index = (int)index;
	if (index == 0)
		mnl_attr_put_strz(&request.header, IFLA_IFNAME, name);
	memset(state, 0, sizeof(*state));
	int result = netlink_run(requests, &request, link_visit, state);
	return result == 0 && state->index == 0 ? -EBADMSG : result;
}

static struct ifinfomsg *link_request_begin(
	struct netlink_request *request, const struct host_interface *interface)
{
	struct ifinfomsg *header = netlink_request_begin(request, RTM_NEWLINK, 0, sizeof(*header));
	header->ifi_index = (int)interface->index;
	return header;
}

static int link_set_mac(struct host *host, const struct host_interface *interface,
	const struct rte_ether_addr *mac, struct host_error *error)
{
	if (!mac || interface->type != HOST_TAP)
		return 0;
	struct netlink_request request;
	link_request_begin(&request, interface);
	mnl_attr_put(&request.header, IFLA_ADDRESS, RTE_ETHER_ADDR_LEN, mac->addr_bytes);
	int result = netlink_run(&host->requests, &request, NULL, NULL);
	if (result == 0)
		return 0;
	return netlink_fail(&host->requests, error, result,
		"interface %s: cannot set the MAC address " RTE_ETHER_ADDR_PRT_FMT, interface->name,
		RTE_ETHER_ADDR_BYTES(mac));
}

int host_interface_set_mtu(struct host *host, const struct host_interface *interface, uint32_t mtu,
	struct host_error *error)
{
	struct netlink_request request;
	link_request_begin(&request, interface);
	mnl_attr_put_u32(&request.header, IFLA_MTU, mtu);
	int result = netlink_run(&host->requests, &request, NULL, NULL);
	if (result == 0)
		return 0;
	return netlink_fail(&host->requests, error, result, "interface %s: cannot set the MTU %u",
		interface->name, mtu);
}

static int link_set_up(
	struct host *host, const struct host_interface *interface, struct host_error *error)
{
	struct netlink_request request;
	struct ifinfomsg *header = link_request_begin(&request, interface);
	header->ifi_flags = IFF_UP;
	header->ifi_change = IFF_UP;
	int result = netlink_run(&host->requests, &request, NULL, NULL);
	if (result == 0)
		return 0;
	return netlink_fail(&host->requests, error, result, "interface %s: cannot bring it up",
		interface->name);
}

// No link-local address of the kernel's own making on a TUN.
static int link_stop_address_generation(
	struct host *host, const struct host_interface *interface, struct host_error *error)
{
	if (interface->type != HOST_TUN)
		return 0;
	struct netlink_request request;
	link_request_begin(&request, interface);
	struct nlattr *families = mnl_attr_nest_start(&request.header, IFLA_AF_SPEC);
	struct nlattr *inet6 = mnl_attr_nest_start(&request.header, AF_INET6);
	mnl_attr_put_u8(&request.header, IFLA_INET6_ADDR_GEN_MODE, IN6_ADDR_GEN_MODE_NONE);
	mnl_attr_nest_end(&request.header, inet6);
	mnl_attr_nest_end(&request.header, families);
	int result = netlink_run(&host->requests, &request, NULL, NULL);
	if (result == 0)
		return 0;
	return netlink_fail(&host->requests, error, result,
		"interface %s: cannot stop IPv6 address generation", interface->name);
}

// Writes 0 to a setting of the interface's IPv6, in the current network namespace. A setting that
// is 0 is not written: the files may be read-only for a service. -ENOENT: no IPv6 there.
static int link_clear_setting(const char *name, const char *setting, struct host_error *error)
{
	char path[128];
	snprintf(path, sizeof(path), "/proc/sys/net/ipv6/conf/%s/%s", name, setting);
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0 && errno == ENOENT)
		return -ENOENT;
	char value[2] = "";
	bool cleared = fd >= 0 && read(fd, value, sizeof(value)) > 0 && value[0] == '0';
	if (fd >= 0)
		close(fd);
	if (cleared)
		return 0;
	fd = open(path, O_WRONLY | O_CLOEXEC);
	int result = fd >= 0 && write(fd, "0\n", 2) == 2 ? 0 : -errno;
	if (fd >= 0)
		close(fd);
	return result ? netlink_fail(NULL, error, result, "cannot write 0 to %s", path) : 0;
}

static int link_stop_autoconfiguration(
	struct host *host, const struct host_interface *interface, struct host_error *error)
{
	int result = link_clear_setting(interface->name, "accept_ra", error);
	// With an MTU under 1280, or without IPv6 in the kernel, there is nothing to switch off.
	if (result == -ENOENT)
		return 0;
	if (result == 0)
		result = link_clear_setting(interface->name, "autoconf", error);
	if (result == 0)
		result = link_stop_address_generation(host, interface, error);
	return result;
}

int host_interface_configure(struct host *host, const struct host_interface *interface,
	const struct rte_ether_addr *mac, uint32_t mtu, struct host_error *error)
{
	int result = link_set_mac(host, interface, mac, error);
	if (result == 0)
		result = host_interface_set_mtu(host, interface, mtu, error);
	// Before the interface comes up, which is when the kernel would begin with both.
	if (result == 0)
		result = link_stop_autoconfiguration(host, interface, error);
	if (result == 0)
		result = link_set_up(host, interface, error);
	return result;
}

#define ADDRESSES_A_DUMP 64

struct link_address {
	struct packet_address local;
	struct packet_address peer; // the same as local but on a point-to-point interface
	uint8_t length;
};

struct address_list {
	unsigned int interface;
	const struct packet_interface_address *wanted;
	unsigned int wanted_count;
	struct link_address unwanted[ADDRESSES_A_DUMP];
	unsigned int unwanted_count;
};

static bool address_read(
	const struct nlmsghdr *message, unsigned int interface, struct link_address *address)
{
	const struct ifaddrmsg *header = mnl_nlmsg_get_payload(message);
	const struct nlattr *table[IFA_MAX + 1];
	if (message->nlmsg_type != RTM_NEWADDR ||
		mnl_nlmsg_get_payload_len(message) < sizeof(*header) ||
		!netlink_read_message(message, sizeof(*header), table, IFA_MAX))
		return false;
	if (header->ifa_index != interface ||
		(header->ifa_family != AF_INET && header->ifa_family != AF_INET6) ||
		(header->ifa_family == AF_INET6 && header->ifa_scope == RT_SCOPE_LINK))
		return false;
	const struct nlattr *local = table[IFA_LOCAL] ? table[IFA_LOCAL] : table[IFA_ADDRESS];
	const struct nlattr *peer = table[IFA_ADDRESS] ? table[IFA_ADDRESS] : local;
	address->length = header->ifa_prefixlen;
	return local && netlink_read_address(local, header->ifa_family, &address->local) &&
	       netlink_read_address(peer, header->ifa_family, &address->peer);
}

static void address_visit(const struct nlmsghdr *message, void *argument)
{
	struct address_list *list = argument;
	struct link_address address;
	if (!address_read(message, list->interface, &address) ||
		list->unwanted_count == ADDRESSES_A_DUMP)
		return;
	for (unsigned int i = 0; i < list->wanted_count; i++)
		if (packet_address_equal(&address.local, &list->wanted[i].address) &&
			packet_address_equal(&address.local, &address.peer) &&
			address.length == list->wanted[i].length)
			return;
	list->unwanted[list->unwanted_count++] = address;
}

static struct ifaddrmsg *address_request_begin(struct netlink_request *request, uint16_t type,
	uint16_t flags, unsigned int interface, const struct link_address *address)
{
	struct ifaddrmsg *header = netlink_request_begin(request, type, flags, sizeof(*header));
	header->ifa_family = netlink_family(&address->local);
	header->ifa_prefixlen = address->length;
	header->ifa_index = interface;
	netlink_put_address(request, IFA_LOCAL, &address->local);
	netlink_put_address(request, IFA_ADDRESS, &address->peer);
	return header;
}

static int address_find_unwanted(struct host *host, struct address_list *list)
{
	int result = -EINTR;
	for (unsigned int i = 0; i < DUMP_TRIES && result == -EINTR; i++) {
		list->unwanted_count = 0;
		struct netlink_request request;
		struct ifaddrmsg *header =
			netlink_request_begin(&request, RTM_GETADDR, NLM_F_DUMP, sizeof(*header));
		header->ifa_index = list->interface;
		result = netlink_run(&host->requests, &request, address_visit, list);
	}
	return result;
}

static int address_remove_unwanted(struct host *host, const struct host_interface *interface,
	struct address_list *list, struct host_error *error)
{
	do {
		int result = address_find_unwanted(host, list);
		if (result)
			return netlink_fail(&host->requests, error, result,
				"interface %s: cannot read its addresses", interface->name);
		for (unsigned int i = 0; i < list->unwanted_count; i++) {
			struct netlink_request request;
			address_request_begin(
				&request, RTM_DELADDR, 0, interface->index, &list->unwanted[i]);
			result = netlink_run(&host->requests, &request, NULL, NULL);
			// Gone already: an IPv4 address takes the others of its network along.
			if (result == 0 || result == -EADDRNOTAVAIL)
				continue;
			char text[PACKET_ADDRESS_TEXT];
			packet_address_format(&list->unwanted[i].local, text);
			return netlink_fail(&host->requests, error, result,
				"interface %s: cannot remove the address %s", interface->name,
				text);
		}
		// There may be more than one list holds.
	} while (list->unwanted_count == ADDRESSES_A_DUMP);
	return 0;
}

static int address_add(struct host *host, const struct host_interface *interface,
	const struct packet_interface_address *wanted, struct host_error *error)
{
	struct link_address address = {
		.local = wanted->address, .peer = wanted->address, .length = wanted->length};
	struct netlink_request request;
	address_request_begin(
		&request, RTM_NEWADDR, NLM_F_CREATE | NLM_F_REPLACE, interface->index, &address);
	if (wanted->address.family == 6)
		mnl_attr_put_u32(&request.header, IFA_FLAGS, IFA_F_NODAD);
	int result = netlink_run(&host->requests, &request, NULL, NULL);
	if (result == 0)
		return 0;
	char text[PACKET_ADDRESS_TEXT];
	return netlink_fail(&host->requests, error, result,
		"interface %s: cannot add the address %s/%u", interface->name,
		packet_address_format(&wanted->address, text), wanted->length);
}

int host_interface_clear_addresses(
	struct host *host, const struct host_interface *interface, struct host_error *error)
{
	struct address_list list = {.interface = interface->index};
	return address_remove_unwanted(host, interface, &list, error);
}

int host_interface_set_addresses(struct host *host, const struct host_interface *interface,
	const struct packet_interface_address *addresses, unsigned int count,
	struct host_error *error)
{
	struct address_list list = {
		.interface = interface->index, .wanted = addresses, .wanted_count = count};
	int result = address_remove_unwanted(host, interface, &list, error);
	// After the removals, which may have taken a wanted address along.
	for (unsigned int i = 0; i < count && result == 0; i++)
		result = address_add(host, interface, &addresses[i], error);
	return result;
}
