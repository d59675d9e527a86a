// SPDX-License-Identifier: BSD-3-Clause
// Copyright (c) 2026 the espgw authors

#include "config/settings.h"

#define IPV6_MTU_MIN 1280 // RFC 8200 section 5

static const struct setting address_setting = {
	.name = "addresses", .type = SETTING_INTERFACE_ADDRESS, .offset = 0};

// A port's address is no network or broadcast address of its network. Networks of one or two
// addresses have none (RFC 3021).
static bool address_is_host(struct reader *reader, const config_setting_t *element,
	const struct packet_interface_address *address)
{
	struct packet_prefix network = packet_prefix_of(&address->address, address->length);
	char text[PACKET_PREFIX_TEXT];
	packet_prefix_format(&network, text);
	if (address->length >= packet_address_bits(&address->address) - 1)
		return true;
	if (!packet_prefix_has_host_bits(address)) {
		reader_error(reader, element,
			"is the network %s itself; write the port's own address in it", text);
		return false;
	}
	if (address->address.family == 4 &&
		(packet_address_v4_host(&address->address) |
			UINT32_MAX << (32 - address->length)) == UINT32_MAX) {
		reader_error(reader, element,
			"is the broadcast address of %s; write the port's own address in it", text);
		return false;
	}
	return true;
}

// No address twice, and no network on two ports.
static bool address_is_new(struct reader *reader, const config_setting_t *element,
	const struct config_port *port, const struct packet_interface_address *address)
{
	const struct config *config = reader->config;
	struct packet_prefix network = packet_prefix_of(&address->address, address->length);
	for (const struct config_port *p = config->ports; p <= port; p++) {
		for (unsigned int i = 0; i < p->address_count; i++) {
			const struct packet_interface_address *other = &p->addresses[i];
			struct packet_prefix others =
				packet_prefix_of(&other->address, other->length);
			if (packet_address_equal(&other->address, &address->address)) {
				reader_error(reader, element,
					"port \"%s\" has this address already; write another",
					p->name);
				return false;
			}
			if (p != port && packet_prefix_equal(&network, &others)) {
				reader_error(reader, element,
					"port \"%s\" is on this network too; give each port a "
					"network of its own",
					p->name);
				return false;
			}
		}
	}
	return true;
}

static void address_read(
	struct reader *reader, const config_setting_t *element, unsigned int index, void *argument)
{
	struct config_port *port = argument;
	struct packet_interface_address address;
	(void)index;
	if (!settings_set(reader, element, &address_setting, &address) ||
		!address_is_host(reader, element, &address) ||
		!address_is_new(reader, element, port, &address))
		return;
	port->addresses[port->address_count++] = address;
}

// The value of "iface=" among a device's arguments; *length is 0 when there is none.
static const char *device_interface(const char *device, size_t *length)
{
	const char *key = strstr(device, ",iface=");
	*length = 0;
	if (key == NULL)
		return device;
	key += strlen(",iface=");
	*length = strcspn(key, ",");
	return key;
}

// Without the PCI domain 0000, which may be left out, and without arguments.
static const char *device_name(const char *device, size_t *length)
{
	if (strncmp(device, "0000:", 5) == 0)
		device += 5;
	*length = strcspn(device, ",");
	return device;
}

static bool same_device(const char *a, const char *b)
{
	size_t a_length, b_length;
	const char *a_name = device_name(a, &a_length), *b_name = device_name(b, &b_length);
	if (a_length == b_length && strncasecmp(a_name, b_name, a_length) == 0)
		return true;
	a_name = device_interface(a, &a_length);
	b_name = device_interface(b, &b_length);
	return a_length > 0 && a_length == b_length && memcmp(a_name, b_name, a_length) == 0;
}

static void port_check(struct reader *reader, unsigned int index)
{
	const struct config *config = reader->config;
	const struct config_port *port = &config->ports[index];
	const config_setting_t *element = reader_element(reader, "ports", index);
	bool has_ipv6 = false;
	for (unsigned int i = 0; i < port->address_count; i++)
		has_ipv6 |= port->addresses[i].address.family == 6;
	if (has_ipv6 && port->mtu < IPV6_MTU_MIN)
		reader_member_error(reader, element, "mtu",
			"is too small for the port's IPv6 address; write at least %d",
			IPV6_MTU_MIN);
	if (port->service_vlan != 0 && port->vlan == 0)
		reader_member_error(reader, element, "service_vlan",
			"is a tag around that of vlan, which is missing; write vlan = N too, or "
			"only that");
	if (port->tx_queues < config->worker_count)
		reader_member_error(reader, element, "tx_queues",
			"there are %u workers, and each sends on a queue of its own; write at "
			"least %u",
			config->worker_count, config->worker_count);
	for (const struct config_port *other = config->ports; other < port; other++) {
		if (port->name[0] != '\0' && strcmp(other->name, port->name) == 0)
			reader_member_error(reader, element, "name",
				"the port of line %d has this name; write another", other->line);
		if (port->device[0] != '\0' && same_device(other->device, port->device))
			reader_member_error(reader, element, "device",
				"port \"%s\" has this device; write another", other->name);
	}
}

static void sides_check(struct reader *reader)
{
	bool found[2] = {false, false};
	const config_setting_t *list = config_setting_get_member(reader->root, "ports");
	if (list == NULL || !config_setting_is_list(list))
		return;
	for (unsigned int i = 0; i < reader->config->port_count; i++) {
		const char *side;
		const config_setting_t *element = config_setting_get_elem(list, i);
		if (!config_setting_is_group(element) ||
			!config_setting_lookup_string(element, "side", &side))
			return; // reported; it may be either
		bool is_inside = strcmp(side, "inside") == 0;
		bool is_outside = strcmp(side, "outside") == 0;
		if (!is_inside && !is_outside)
			return;
		found[CONFIG_SIDE_INSIDE] |= is_inside;
		found[CONFIG_SIDE_OUTSIDE] |= is_outside;
	}
	if (!found[CONFIG_SIDE_INSIDE])
		reader_error(
			reader, list, "there is no inside port; add one with side = \"inside\"");
	if (!found[CONFIG_SIDE_OUTSIDE])
		reader_error(
			reader, list, "there is no outside port; add one with side = \"outside\"");
}

void ports_read(struct reader *reader)
{
	struct config *config = reader->config;
	void *ports = NULL;
	unsigned int count =
		settings_read_list(reader, "ports", &settings_ports, CONFIG_PORTS, &ports);
	config->ports = ports;
	config->port_count = count;
	for (unsigned int i = 0; i < count; i++) {
		struct config_port *port = &config->ports[i];
		const config_setting_t *element = reader_element(reader, "ports", i);
		uint32_t queues = RTE_MAX(config->worker_count, 1u);
		port->has_mac = !rte_is_zero_ether_addr(&port->mac);
		if (port->rx_queues == 0)
			port->rx_queues = queues;
		if (port->tx_queues == 0)
			port->tx_queues = queues;
		if (!config_setting_is_group(element))
			continue;
		settings_read_array(
			reader, element, "addresses", CONFIG_ADDRESSES, address_read, port);
		port_check(reader, i);
	}
	sides_check(reader);
}
