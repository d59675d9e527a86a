// SPDX-License-Identifier: BSD-3-Clause
// Copyright (c) 2026 the espgw authors

#include <netinet/in.h>

#include "config/settings.h"

#define IPV4_MTU_MIN 68   // RFC 791 section 3.2
#define IPV6_MTU_MIN 1280 // RFC 8200 section 5

#define IPV4_HEADER   20
#define IPV6_HEADER   40
#define UDP_HEADER    8
#define ESP_OVERHEAD  (8 + 8 + 16) // SPI and sequence number, IV, ICV (RFC 4303, RFC 4106)
#define ESP_TRAILER   2            // pad length and next header
#define ESP_ALIGNMENT 4

static struct packet_prefix block_of(const struct config_tunnel *tunnel)
{
	return packet_prefix_of(
		&tunnel->interface_address.address, tunnel->interface_address.length);
}

static uint8_t *last_byte(struct packet_address *address)
{
	return &address->bytes[address->family == 4 ? 3 : 15];
}

// The addresses of a block that hosts have: 2 of the 4 of a /30 or /126, both of a /31 or /127.
static void block_hosts(
	const struct packet_interface_address *address, struct packet_address hosts[2])
{
	struct packet_prefix block = packet_prefix_of(&address->address, address->length);
	bool four = address->length == packet_address_bits(&address->address) - 2;
	hosts[0] = hosts[1] = block.address;
	*last_byte(&hosts[0]) |= four ? 1 : 0;
	*last_byte(&hosts[1]) |= four ? 2 : 1;
}

// Whether the address is a host's in a block of two hosts; then the peer's is the other one.
static bool interface_block_check(
	struct reader *reader, const config_setting_t *element, struct config_tunnel *tunnel)
{
	const struct packet_interface_address *address = &tunnel->interface_address;
	unsigned int bits = packet_address_bits(&address->address);
	char block_text[PACKET_PREFIX_TEXT], first[PACKET_ADDRESS_TEXT],
		second[PACKET_ADDRESS_TEXT];
	if (address->length != bits - 1 && address->length != bits - 2) {
		reader_member_error(reader, element, "interface_address",
			"is in a /%u; write an address in a /%u or /%u", address->length, bits - 2,
			bits - 1);
		return false;
	}
	struct packet_address hosts[2];
	block_hosts(address, hosts);
	for (unsigned int i = 0; i < 2; i++) {
		if (packet_address_equal(&hosts[i], &address->address)) {
			tunnel->peer_address = hosts[1 - i];
			return true;
		}
	}
	struct packet_prefix block = block_of(tunnel);
	bool lowest = packet_address_equal(&block.address, &address->address);
	reader_member_error(reader, element, "interface_address",
		"is the %s address of %s; write \"%s/%u\" or \"%s/%u\"",
		lowest ? "network" : "broadcast", packet_prefix_format(&block, block_text),
		packet_address_format(&hosts[0], first), address->length,
		packet_address_format(&hosts[1], second), address->length);
	return false;
}

static bool in_any(const struct packet_address *address, const char *const *prefixes)
{
	for (unsigned int i = 0; prefixes[i] != NULL; i++) {
		struct packet_prefix prefix;
		if (packet_prefix_parse(prefixes[i], &prefix) &&
			packet_prefix_contains(&prefix, address))
			return true;
	}
	return false;
}

// AWS takes a /30 of 169.254.0.0/16 except those that it reserves, and a /126 of fd00::/8
// (AWS Site-to-Site VPN, "Tunnel options").
static void aws_check(struct reader *reader, const config_setting_t *element,
	const struct packet_interface_address *address)
{
	static const char *const blocks[] = {"169.254.0.0/16", "fd00::/8", NULL};
	static const char *const reserved[] = {"169.254.0.0/30", "169.254.1.0/30", "169.254.2.0/30",
		"169.254.3.0/30", "169.254.4.0/30", "169.254.5.0/30", "169.254.169.252/30", NULL};
	bool four = address->address.family == 4;
	if (!in_any(&address->address, blocks))
		reader_member_error(reader, element, "interface_address",
			"is not in %s, and AWS takes no other; write an address of it",
			four ? blocks[0] : blocks[1]);
	else if (in_any(&address->address, reserved))
		reader_member_error(reader, element, "interface_address",
			"is in a block that AWS reserves; write one of another /30 of %s",
			blocks[0]);
	else if (address->length != (four ? 30 : 126))
		reader_member_error(reader, element, "interface_address",
			"is in a /%u, and AWS takes a %s only; write that", address->length,
			four ? "/30" : "/126");
}

// Cloudflare takes a /31 or /30 of the private blocks and of 169.254.240.0/20 (Cloudflare WAN,
// "Configure tunnel endpoints").
static void cloudflare_check(struct reader *reader, const config_setting_t *element,
	const struct packet_interface_address *address)
{
	static const char *const blocks[] = {
		"10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "169.254.240.0/20", NULL};
	if (address->address.family == 4 && !in_any(&address->address, blocks))
		reader_member_error(reader, element, "interface_address",
			"is not in %s, %s, %s or %s, and Cloudflare takes no other; write an "
			"address of them",
			blocks[0], blocks[1], blocks[2], blocks[3]);
}

static bool overlap(const struct packet_prefix *a, const struct packet_prefix *b)
{
	return packet_prefix_contains(a, &b->address) || packet_prefix_contains(b, &a->address);
}

// The first tunnel before this one that has addresses of its block, or NULL. Blocks are of four
// addresses or of two, so they overlap only within four.
static const struct config_tunnel *find_overlapping(
	struct reader *reader, const struct config_tunnel *tunnel)
{
	const struct config_tunnel *tunnels = reader->config->tunnels, *found = NULL;
	struct reader_index *index = &reader->tunnel_blocks;
	const struct packet_address *address = &tunnel->interface_address.address;
	struct packet_prefix block = block_of(tunnel);
	struct packet_prefix four = packet_prefix_of(address, packet_address_bits(address) - 2);
	uint32_t hash = reader_hash(&four, sizeof(four));
	for (int i = reader_index_first(index, hash); i >= 0; i = index->next[i]) {
		struct packet_prefix others = block_of(&tunnels[i]);
		if (overlap(&block, &others))
			found = &tunnels[i];
	}
	if (index->heads != NULL)
		reader_index_add(index, hash, (unsigned int)(tunnel - tunnels));
	return found;
}

// No other tunnel, and no port, has addresses of the block.
static void block_is_new(
	struct reader *reader, const config_setting_t *element, const struct config_tunnel *tunnel)
{
	const struct config *config = reader->config;
	struct packet_prefix block = block_of(tunnel);
	char text[PACKET_PREFIX_TEXT];
	packet_prefix_format(&block, text);
	const struct config_tunnel *other = find_overlapping(reader, tunnel);
	if (other != NULL) {
		reader_member_error(reader, element, "interface_address",
			"tunnel \"%s\" has the block %s too; write an address of another block",
			other->name, text);
		return;
	}
	for (unsigned int p = 0; p < config->port_count; p++) {
		const struct config_port *port = &config->ports[p];
		for (unsigned int i = 0; i < port->address_count; i++) {
			struct packet_prefix network = packet_prefix_of(
				&port->addresses[i].address, port->addresses[i].length);
			if (overlap(&block, &network))
				reader_member_error(reader, element, "interface_address",
					"the network of port \"%s\" holds the block %s; write an "
					"address of another block",
					port->name, text);
		}
	}
}

static void interface_check(
	struct reader *reader, const config_setting_t *element, struct config_tunnel *tunnel)
{
	const struct packet_interface_address *address = &tunnel->interface_address;
	if (address->address.family == 0 || !interface_block_check(reader, element, tunnel))
		return;
	if (tunnel->far_side == CONFIG_FAR_SIDE_AWS)
		aws_check(reader, element, address);
	if (tunnel->far_side == CONFIG_FAR_SIDE_CLOUDFLARE)
		cloudflare_check(reader, element, address);
	block_is_new(reader, element, tunnel);
}

// The probe's answer comes to the address that it was sent from: inside the tunnel to that of the
// interface, in clear to that of the port.
static void health_check(
	struct reader *reader, const config_setting_t *element, struct config_tunnel *tunnel)
{
	struct config_health *health = &tunnel->health;
	const config_setting_t *group = config_setting_get_member(element, "health");
	bool clear = health->direction == CONFIG_HEALTH_UNIDIRECTIONAL;
	uint8_t family =
		clear ? tunnel->gateway_endpoint.family : tunnel->interface_address.address.family;
	uint32_t life = (health->retries + 1) * health->timeout;
	if (health->target.family == 0)
		health->target = clear ? tunnel->customer_endpoint : tunnel->peer_address;
	else if (family != 0 && health->target.family != family)
		reader_error(reader, config_setting_get_member(group, "target"),
			"is of another family than %s; write an IPv%u address",
			clear ? "gateway_endpoint" : "interface_address", family);
	if (health->rate != 0 && life / health->rate > CONFIG_HEALTH_PROBES)
		reader_member_error(reader, group, "timeout",
			"with %u retries and a probe every %u ms, over %u probes would be under "
			"way at once; write at most %u",
			health->retries, health->rate, CONFIG_HEALTH_PROBES,
			CONFIG_HEALTH_PROBES * health->rate / (health->retries + 1));
}

static const struct config_port *port_of(
	const struct config *config, const struct packet_address *address)
{
	for (unsigned int p = 0; p < config->port_count; p++) {
		const struct config_port *port = &config->ports[p];
		for (unsigned int i = 0; i < port->address_count; i++) {
			if (packet_address_equal(&port->addresses[i].address, address))
				return port;
		}
	}
	return NULL;
}

static void outside_addresses_write(const struct config *config, char *text, size_t size)
{
	size_t used = 0;
	text[0] = '\0';
	for (unsigned int p = 0; p < config->port_count; p++) {
		const struct config_port *port = &config->ports[p];
		for (unsigned int i = 0; i < port->address_count; i++) {
			char address[PACKET_ADDRESS_TEXT];
			if (port->side != CONFIG_SIDE_OUTSIDE || used >= size)
				continue;
			used += (size_t)snprintf(text + used, size - used, "%s\"%s\"",
				used > 0 ? " or " : "",
				packet_address_format(&port->addresses[i].address, address));
		}
	}
	if (used == 0)
		snprintf(text, size, "an address that an outside port has in the file");
}

// The outside port that owns the gateway's endpoint; NULL when there is none.
static const struct config_port *endpoints_check(
	struct reader *reader, const config_setting_t *element, const struct config_tunnel *tunnel)
{
	const struct packet_address *own = &tunnel->gateway_endpoint;
	const struct packet_address *far = &tunnel->customer_endpoint;
	char outside[256];
	if (own->family != 0 && far->family != 0 && own->family != far->family)
		reader_member_error(reader, element, "customer_endpoint",
			"is of another family than gateway_endpoint; write an IPv%u address",
			own->family);
	const struct config_port *port = port_of(reader->config, far);
	if (far->family != 0 && port != NULL)
		reader_member_error(reader, element, "customer_endpoint",
			"is this gateway's own address (port \"%s\"); write the far side's",
			port->name);
	if (own->family == 0)
		return NULL;
	port = port_of(reader->config, own);
	if (port != NULL && port->side == CONFIG_SIDE_OUTSIDE)
		return port;
	outside_addresses_write(reader->config, outside, sizeof(outside));
	if (port != NULL)
		reader_member_error(reader, element, "gateway_endpoint",
			"is an address of the inside port \"%s\"; write %s", port->name, outside);
	else
		reader_member_error(reader, element, "gateway_endpoint",
			"is no outside port's address; write %s", outside);
	return NULL;
}

// Inner packet and trailer fill multiples of 4.
uint32_t config_largest_inner(uint32_t outer_mtu, uint8_t family, bool udp)
{
	uint32_t overhead = ESP_OVERHEAD;
	overhead += family == 4 ? IPV4_HEADER : IPV6_HEADER;
	overhead += udp ? UDP_HEADER : 0;
	if (outer_mtu < overhead + ESP_ALIGNMENT)
		return 0;
	return RTE_ALIGN_FLOOR(outer_mtu - overhead, ESP_ALIGNMENT) - ESP_TRAILER;
}

uint32_t config_tunnel_mtu(const struct config_tunnel *tunnel, uint8_t family, bool udp)
{
	return tunnel->mtu_is_computed ? config_largest_inner(tunnel->outer_mtu, family, udp)
				       : tunnel->mtu;
}

static void mtu_check(struct reader *reader, const config_setting_t *element,
	struct config_tunnel *tunnel, const struct config_port *port)
{
	uint32_t largest = config_largest_inner(
		port->mtu, tunnel->gateway_endpoint.family, tunnel->udp_encapsulation);
	bool six = tunnel->interface_address.address.family == 6;
	uint32_t smallest = six ? IPV6_MTU_MIN : IPV4_MTU_MIN;
	const char *wrapping = tunnel->udp_encapsulation ? "ESP in UDP" : "ESP";
	if (largest < smallest)
		reader_member_error(reader, element, "mtu",
			"port \"%s\" with MTU %u leaves %u bytes in %s, and IPv%d needs %u; give "
			"the port a larger MTU",
			port->name, port->mtu, largest, wrapping, six ? 6 : 4, smallest);
	else if (tunnel->mtu > largest)
		reader_member_error(reader, element, "mtu",
			"port \"%s\" has MTU %u, which leaves %u bytes in %s; write at most %u, or "
			"leave the setting out",
			port->name, port->mtu, largest, wrapping, largest);
	else if (tunnel->mtu != 0 && tunnel->mtu < smallest)
		reader_member_error(reader, element, "mtu",
			"is too small for the IPv6 interface_address; write at least %u", smallest);
	tunnel->outer_mtu = port->mtu;
	tunnel->mtu_is_computed = tunnel->mtu == 0;
	if (tunnel->mtu_is_computed)
		tunnel->mtu = largest;
	if (tunnel->tfc > tunnel->mtu && largest >= smallest)
		reader_member_error(reader, element, "tfc",
			"is larger than the MTU of the tunnel; write at most %u", tunnel->mtu);
}

// Ports and tunnels become interfaces of one kernel.
static void name_check(
	struct reader *reader, const config_setting_t *element, const struct config_tunnel *tunnel)
{
	const struct config *config = reader->config;
	if (tunnel->name[0] == '\0')
		return;
	int port = reader_find_port(reader, tunnel->name);
	if (port >= 0)
		reader_member_error(reader, element, "name",
			"the port of line %d has this name, and both become interfaces of the "
			"kernel; write another",
			config->ports[port].line);
	const struct config_tunnel *first =
		&config->tunnels[reader_find_tunnel(reader, tunnel->name)];
	if (first < tunnel)
		reader_member_error(reader, element, "name",
			"the tunnel of line %d has this name; write another", first->line);
}

static bool has_if_id(const config_setting_t *element)
{
	return config_setting_get_member(element, "if_id") != NULL;
}

// Index of the first tunnel before this one that has its number, or -1.
static int find_if_id(struct reader *reader, const struct config_tunnel *tunnel)
{
	struct reader_index *index = &reader->tunnel_if_ids;
	uint32_t hash = reader_hash(&tunnel->if_id, sizeof(tunnel->if_id));
	int found = -1;
	for (int i = reader_index_first(index, hash); i >= 0; i = index->next[i])
		if (reader->config->tunnels[i].if_id == tunnel->if_id)
			found = i;
	if (index->heads != NULL)
		reader_index_add(index, hash, (unsigned int)(tunnel - reader->config->tunnels));
	return found;
}

// The default is the position, and no other tunnel has the number. An if_id that was wrong by
// itself is 0 here.
static void if_id_check(
	struct reader *reader, const config_setting_t *element, struct config_tunnel *tunnel)
{
	const struct config *config = reader->config;
	unsigned int index = (unsigned int)(tunnel - config->tunnels);
	bool given = has_if_id(element);
	if (!given)
		tunnel->if_id = index + 1;
	if (tunnel->if_id == 0)
		return;
	int first = find_if_id(reader, tunnel);
	if (first >= 0) {
		const struct config_tunnel *other = &config->tunnels[first];
		bool others = has_if_id(reader_element(reader, "tunnels", (unsigned int)first));
		if (given)
			reader_member_error(reader, element, "if_id",
				"tunnel \"%s\" of line %d has this number%s; write another",
				other->name, other->line,
				others ? "" : " by its position in the list");
		else
			reader_member_error(reader, element, "if_id",
				"is %u by the position in the list, and tunnel \"%s\" of line %d "
				"has this number; write another",
				tunnel->if_id, other->name, other->line);
	}
}

void tunnels_read(struct reader *reader)
{
	struct config *config = reader->config;
	void *tunnels = NULL;
	config->tunnel_count =
		settings_read_list(reader, "tunnels", &settings_tunnels, CONFIG_TUNNELS, &tunnels);
	config->tunnels = tunnels;
	if (!reader_index_create(reader, &reader->tunnel_names, config->tunnel_count) ||
		!reader_index_create(reader, &reader->tunnel_if_ids, config->tunnel_count) ||
		!reader_index_create(reader, &reader->tunnel_blocks, config->tunnel_count))
		return;
	for (unsigned int i = 0; i < config->tunnel_count; i++) {
		const char *name = config->tunnels[i].name;
		reader_index_add(&reader->tunnel_names, reader_hash(name, strlen(name)), i);
	}
	for (unsigned int i = 0; i < config->tunnel_count; i++) {
		struct config_tunnel *tunnel = &config->tunnels[i];
		const config_setting_t *element = reader_element(reader, "tunnels", i);
		if (!config_setting_is_group(element))
			continue;
		name_check(reader, element, tunnel);
		if_id_check(reader, element, tunnel);
		interface_check(reader, element, tunnel);
		const struct config_port *port = endpoints_check(reader, element, tunnel);
		health_check(reader, element, tunnel);
		if (port != NULL)
			mtu_check(reader, element, tunnel, port);
	}
}
