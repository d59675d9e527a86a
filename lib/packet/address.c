// SPDX-License-Identifier: BSD-3-Clause
// Copyright (c) 2026 the espgw authors

#include <arpa/inet.h>
#include <stdio.h>

#include "packet/packet.h"

bool packet_address_parse(const char *text, struct packet_address *address)
{
	struct packet_address parsed = {0};
	if (inet_pton(AF_INET, text, parsed.bytes) == 1)
		parsed.family = 4;
	else if (inet_pton(AF_INET6, text, parsed.bytes) == 1)
		parsed.family = 6;
	else
		return false;
	*address = parsed;
	return true;
}

// A prefix length as people write it: no sign, no space, no leading zero.
static bool length_parse(const char *text, uint8_t bits, uint8_t *length)
{
	unsigned int number = 0;
	size_t digits = strspn(text, "0123456789");
	if (digits < 1 || digits > 3 || text[digits] != '\0' || (digits > 1 && text[0] == '0'))
		return false;
	for (size_t i = 0; i < digits; i++)
		number = number * 10 + (unsigned int)(text[i] - '0');
	if (number > bits)
		return false;
	*length = (uint8_t)number;
	return true;
}

bool packet_interface_address_parse(const char *text, struct packet_interface_address *result)
{
	const char *slash = strchr(text, '/');
	char address[PACKET_ADDRESS_TEXT];
	if (slash == NULL || (size_t)(slash - text) >= sizeof(address))
		return false;
	memcpy(address, text, (size_t)(slash - text));
	address[slash - text] = '\0';
	struct packet_interface_address parsed;
	if (!packet_address_parse(address, &parsed.address) ||
		!length_parse(slash + 1, packet_address_bits(&parsed.address), &parsed.length))
		return false;
	*result = parsed;
	return true;
}

bool packet_prefix_has_host_bits(const struct packet_interface_address *address)
{
	struct packet_prefix prefix = packet_prefix_of(&address->address, address->length);
	return !packet_address_equal(&prefix.address, &address->address);
}

bool packet_prefix_parse(const char *text, struct packet_prefix *prefix)
{
	struct packet_interface_address parsed;
	if (!packet_interface_address_parse(text, &parsed) || packet_prefix_has_host_bits(&parsed))
		return false;
	prefix->address = parsed.address;
	prefix->length = parsed.length;
	return true;
}

static int hex_digit(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'a' && c <= 'f')
		return c - 'a' + 10;
	if (c >= 'A' && c <= 'F')
		return c - 'A' + 10;
	return -1;
}

bool packet_mac_parse(const char *text, struct rte_ether_addr *mac)
{
	struct rte_ether_addr parsed;
	if (strlen(text) != 3 * RTE_ETHER_ADDR_LEN - 1)
		return false;
	for (unsigned int i = 0; i < RTE_ETHER_ADDR_LEN; i++, text += 3) {
		int high = hex_digit(text[0]), low = hex_digit(text[1]);
		char end = i + 1 < RTE_ETHER_ADDR_LEN ? ':' : '\0';
		if (high < 0 || low < 0 || text[2] != end)
			return false;
		parsed.addr_bytes[i] = (uint8_t)(high << 4 | low);
	}
	*mac = parsed;
	return true;
}

char *packet_address_format(const struct packet_address *address, char text[PACKET_ADDRESS_TEXT])
{
	int family = address->family == 4 ? AF_INET : AF_INET6;
	if (address->family == 0 ||
		inet_ntop(family, address->bytes, text, PACKET_ADDRESS_TEXT) == NULL)
		strcpy(text, "-");
	return text;
}

char *packet_prefix_format(const struct packet_prefix *prefix, char text[PACKET_PREFIX_TEXT])
{
	packet_address_format(&prefix->address, text);
	if (prefix->address.family != 0) {
		size_t used = strlen(text);
		snprintf(text + used, PACKET_PREFIX_TEXT - used, "/%u", prefix->length);
	}
	return text;
}

struct packet_address packet_address_v4(uint32_t big_endian)
{
	struct packet_address address = {.family = 4};
	memcpy(address.bytes, &big_endian, sizeof(big_endian));
	return address;
}

struct packet_address packet_address_v6(const uint8_t bytes[16])
{
	struct packet_address address = {.family = 6};
	memcpy(address.bytes, bytes, sizeof(address.bytes));
	return address;
}

bool packet_address_equal(const struct packet_address *a, const struct packet_address *b)
{
	return memcmp(a, b, sizeof(*a)) == 0;
}

bool packet_prefix_equal(const struct packet_prefix *a, const struct packet_prefix *b)
{
	return a->length == b->length && packet_address_equal(&a->address, &b->address);
}

uint8_t packet_address_bits(const struct packet_address *address)
{
	return address->family == 4 ? 32 : 128;
}

struct packet_prefix packet_prefix_of(const struct packet_address *address, uint8_t length)
{
	struct packet_prefix prefix = {.address = *address, .length = length};
	unsigned int byte = length / 8;
	if (length % 8 != 0)
		prefix.address.bytes[byte++] &= (uint8_t)(0xff00 >> length % 8);
	memset(prefix.address.bytes + byte, 0, sizeof(prefix.address.bytes) - byte);
	return prefix;
}

bool packet_prefix_contains(
	const struct packet_prefix *prefix, const struct packet_address *address)
{
	if (prefix->address.family != address->family)
		return false;
	struct packet_prefix around = packet_prefix_of(address, prefix->length);
	return packet_prefix_equal(&around, prefix);
}

bool packet_address_is_multicast(const struct packet_address *address)
{
	if (address->family == 4)
		return address->bytes[0] >> 4 == 14;
	return address->family == 6 && address->bytes[0] == 0xff;
}

bool packet_address_is_link_scope(const struct packet_address *address)
{
	const uint8_t *bytes = address->bytes;
	if (address->family == 4)
		return packet_address_v4_host(address) == UINT32_MAX ||
		       (bytes[0] == 224 && bytes[1] == 0 && bytes[2] == 0);
	if (bytes[0] == 0xff)
		return (bytes[1] & 0x0f) <= 2;
	return bytes[0] == 0xfe && (bytes[1] & 0xc0) == 0x80;
}

bool packet_address_is_unspecified(const struct packet_address *address)
{
	static const uint8_t zero[sizeof(address->bytes)];
	return memcmp(address->bytes, zero, sizeof(zero)) == 0;
}

bool packet_address_is_loopback(const struct packet_address *address)
{
	static const uint8_t loopback[sizeof(address->bytes)] = {[15] = 1};
	if (address->family == 4)
		return address->bytes[0] == 127;
	return address->family == 6 && memcmp(address->bytes, loopback, sizeof(loopback)) == 0;
}
