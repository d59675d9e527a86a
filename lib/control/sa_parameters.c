// SPDX-License-Identifier: BSD-3-Clause
// Copyright (c) 2026 the espgw authors

// What sa.add and sa.update give of an SA, checked.

#include <netinet/in.h>
#include <stdio.h>
#include <string.h>

#include <rte_common.h>

#include "control/internal.h"

const char *const sa_add_parameters[] = {"tunnel", "direction", "spi", "source", "destination",
	"key", "salt", "esn", "replay_window", "udp_encapsulation", "lifetime", "selectors", NULL};

void sa_request_wipe(struct sa_request *parsed)
{
	explicit_bzero(parsed, sizeof(*parsed));
}

bool udp_ports_parse(const struct scope *scope, struct udp_ports *ports)
{
	static const char *const names[] = {"source_port", "destination_port", NULL};
	char path[64];
	struct scope inner;
	uint64_t source = 0, destination = 0;
	ports->given = json_object_get(scope->object, "udp_encapsulation") != NULL;
	ports->source = ports->destination = 0;
	if (!scope_object(scope, "udp_encapsulation", names, path, &inner))
		return false;
	if (inner.object == NULL)
		return true;
	if (!scope_number(&inner, "source_port", REQUIRED, 1, UINT16_MAX, &source) ||
		!scope_number(&inner, "destination_port", REQUIRED, 1, UINT16_MAX, &destination))
		return false;
	ports->source = (uint16_t)source;
	ports->destination = (uint16_t)destination;
	return true;
}

bool sa_check_outer(struct request *request, const struct tunnel *tunnel,
	enum sa_direction direction, const struct packet_address *source,
	const struct packet_address *destination, const char *destination_name)
{
	const struct packet_address *ours = direction == SA_OUTBOUND ? source : destination;
	const char *name = direction == SA_OUTBOUND ? "source" : destination_name;
	char text[PACKET_ADDRESS_TEXT], right[PACKET_ADDRESS_TEXT];
	if (!packet_address_equal(ours, &tunnel->config->gateway_endpoint))
		return request_fail_parameter(request, "", name,
			"%s is not the gateway_endpoint of tunnel %s; give %s",
			packet_address_format(ours, text), tunnel->config->name,
			packet_address_format(&tunnel->config->gateway_endpoint, right));
	name = direction == SA_OUTBOUND ? destination_name : "source";
	if (source->family != destination->family)
		return request_fail_parameter(request, "", name,
			"is not of the family of the gateway_endpoint; give an IPv%u address",
			ours->family);
	return true;
}

static bool parse_addresses(const struct scope *scope, struct sa_request *parsed)
{
	struct sa_parameters *parameters = &parsed->parameters;
	const struct config_tunnel *tunnel = parsed->tunnel->config;
	bool out = parameters->direction == SA_OUTBOUND;
	parameters->source = out ? tunnel->gateway_endpoint : tunnel->customer_endpoint;
	parameters->destination = out ? tunnel->customer_endpoint : tunnel->gateway_endpoint;
	if (!scope_address(scope, "source", &parameters->source) ||
		!scope_address(scope, "destination", &parameters->destination))
		return false;
	struct udp_ports ports;
	if (!udp_ports_parse(scope, &ports))
		return false;
	parameters->udp_source = ports.source;
	parameters->udp_destination = ports.destination;
	return sa_check_outer(scope->request, parsed->tunnel, parameters->direction,
		&parameters->source, &parameters->destination, "destination");
}

static bool parse_window(const struct scope *scope, struct sa_request *parsed)
{
	struct sa_parameters *parameters = &parsed->parameters;
	const struct config_tunnel *tunnel = parsed->tunnel->config;
	uint64_t window = tunnel->replay_protection ? tunnel->replay_window : 0;
	bool ok;
	bool given = scope_get(scope, "replay_window", OPTIONAL, &ok) != NULL;
	if (parameters->direction == SA_OUTBOUND)
		return !given || request_fail_parameter(scope->request, "", "replay_window",
					 "is for inbound SAs; leave it out");
	if (!scope_number(scope, "replay_window", OPTIONAL, 0, UINT32_MAX, &window))
		return false;
	if (window != 0 &&
		(window < ESP_WINDOW_MIN || window > ESP_WINDOW_MAX || !rte_is_power_of_2(window)))
		return request_fail_parameter(scope->request, "", "replay_window",
			"%u is not right; give a power of two from %u to %u, or 0 for none",
			(unsigned int)window, ESP_WINDOW_MIN, ESP_WINDOW_MAX);
	if (window == 0 && parameters->esn)
		return request_fail_parameter(scope->request, "", "esn",
			"needs a replay window: the high half of the sequence number is inferred "
			"from it; give replay_window");
	parameters->window = (uint32_t)window;
	return true;
}

static bool parse_limits(const struct scope *lifetime, const char *name, struct sa_lifetime *limits)
{
	static const char *const names[] = {"seconds", "bytes", "packets", NULL};
	char path[64];
	struct scope inner;
	if (!scope_object(lifetime, name, names, path, &inner))
		return false;
	if (inner.object == NULL)
		return true;
	return scope_number(&inner, "seconds", OPTIONAL, 0, INT64_MAX, &limits->seconds) &&
	       scope_number(&inner, "bytes", OPTIONAL, 0, INT64_MAX, &limits->bytes) &&
	       scope_number(&inner, "packets", OPTIONAL, 0, INT64_MAX, &limits->packets);
}

static bool check_soft_is_not_above(
	struct request *request, const char *name, uint64_t soft, uint64_t hard)
{
	if (soft == 0 || hard == 0 || soft <= hard)
		return true;
	return request_fail_parameter(request, "lifetime.soft.", name,
		"is above lifetime.hard.%s, so that it would never be reached", name);
}

// Where an end is in sight and the agent gives no soft packet limit, or one that lies at the end or
// behind it, the SA asks to be replaced after 7/8 of its sequence numbers. Without ESN the rest
// lasts 90 s at 6 million packets a second.
static void bound_packets(const struct tunnel *tunnel, struct sa_parameters *parameters)
{
	uint64_t end = tunnel_sequence_end(tunnel, parameters->esn), soft = end - end / 8;
	uint64_t hard = parameters->hard.packets;
	if (hard > end)
		parameters->hard.packets = end;
	if (end == ESP_SEQUENCE_END_ESN)
		return;
	if (parameters->soft.packets >= end ||
		(parameters->soft.packets == 0 && (hard == 0 || hard > soft)))
		parameters->soft.packets = soft;
}

static bool parse_lifetime(const struct scope *scope, struct sa_request *parsed)
{
	struct sa_parameters *parameters = &parsed->parameters;
	static const char *const names[] = {"soft", "hard", NULL};
	struct sa_lifetime *soft = &parameters->soft, *hard = &parameters->hard;
	char path[64];
	struct scope inner;
	if (!scope_object(scope, "lifetime", names, path, &inner))
		return false;
	if (inner.object != NULL &&
		(!parse_limits(&inner, "soft", soft) || !parse_limits(&inner, "hard", hard)))
		return false;
	struct request *request = scope->request;
	if (!check_soft_is_not_above(request, "seconds", soft->seconds, hard->seconds) ||
		!check_soft_is_not_above(request, "bytes", soft->bytes, hard->bytes) ||
		!check_soft_is_not_above(request, "packets", soft->packets, hard->packets))
		return false;
	if (parameters->direction == SA_OUTBOUND)
		bound_packets(parsed->tunnel, parameters);
	return true;
}

// {"first":N,"last":N}
static bool parse_ports(const struct scope *selector, const char *name, struct esp_ports *ports)
{
	static const char *const names[] = {"first", "last", NULL};
	char path[64];
	struct scope inner;
	uint64_t first = 0, last = 0;
	if (!scope_object(selector, name, names, path, &inner))
		return false;
	if (inner.object == NULL)
		return true;
	if (!scope_number(&inner, "first", REQUIRED, 0, UINT16_MAX, &first) ||
		!scope_number(&inner, "last", REQUIRED, 1, UINT16_MAX, &last))
		return false;
	if (first > last)
		return request_fail_parameter(selector->request, path, "first",
			"is above last; give the lowest and the highest port");
	*ports = (struct esp_ports){(uint16_t)first, (uint16_t)last};
	return true;
}

static bool has_ports(uint8_t protocol)
{
	static const uint8_t with[] = {IPPROTO_ICMP, IPPROTO_TCP, IPPROTO_UDP, IPPROTO_DCCP,
		IPPROTO_ICMPV6, IPPROTO_SCTP, IPPROTO_UDPLITE};
	return memchr(with, protocol, sizeof(with)) != NULL;
}

static bool parse_upper_layer(const struct scope *scope, struct esp_selector *selector)
{
	uint64_t protocol = 0;
	if (!scope_number(scope, "protocol", OPTIONAL, 0, UINT8_MAX, &protocol) ||
		!parse_ports(scope, "local_ports", &selector->local_ports) ||
		!parse_ports(scope, "remote_ports", &selector->remote_ports))
		return false;
	selector->protocol = (uint8_t)protocol;
	bool wants_ports = selector->local_ports.last != 0 || selector->remote_ports.last != 0;
	// RFC 4301 section 4.4.1.1: with any protocol, the ports are any.
	if (wants_ports && !has_ports(selector->protocol))
		return request_fail_parameter(scope->request, scope->path,
			selector->local_ports.last != 0 ? "local_ports" : "remote_ports",
			"needs a protocol that has ports: 1 and 58 (ICMP; type * 256 + code), 6 "
			"(TCP), 17 (UDP), 33, 132 or 136");
	return true;
}

static bool parse_selector(
	const struct scope *scope, size_t index, json_t *entry, struct esp_selector *selector)
{
	static const char *const names[] = {
		"local", "remote", "protocol", "local_ports", "remote_ports", NULL};
	char path[64];
	snprintf(path, sizeof(path), "selectors[%zu]", index);
	struct scope inner = {scope->request, entry, ""};
	if (!json_is_object(entry))
		return request_fail_parameter(scope->request, "", path,
			"give an object with the prefixes local and remote");
	snprintf(path, sizeof(path), "selectors[%zu].", index);
	inner.path = path;
	if (!scope_check_names(&inner, names) || !scope_prefix(&inner, "local", &selector->local) ||
		!scope_prefix(&inner, "remote", &selector->remote) ||
		!parse_upper_layer(&inner, selector))
		return false;
	if (selector->local.address.family != selector->remote.address.family)
		return request_fail_parameter(scope->request, path, "remote",
			"is not of the family of local; give two IPv4 or two IPv6 prefixes");
	return true;
}

static bool parse_selectors(const struct scope *scope, struct sa_parameters *parameters)
{
	bool ok;
	const json_t *list = scope_get(scope, "selectors", OPTIONAL, &ok);
	if (list == NULL)
		return true;
	if (!json_is_array(list) || json_array_size(list) > SA_SELECTORS)
		return request_fail_parameter(scope->request, "", "selectors",
			"give an array of at most %d selectors", SA_SELECTORS);
	for (size_t i = 0; i < json_array_size(list); i++)
		if (!parse_selector(scope, i, json_array_get(list, i), &parameters->selectors[i]))
			return false;
	parameters->selector_count = (unsigned int)json_array_size(list);
	return true;
}

bool sa_request_parse(struct request *request, struct sa_request *parsed)
{
	struct scope scope = {request, request->params, ""};
	struct sa_parameters *parameters = &parsed->parameters;
	*parsed = (struct sa_request){0};
	return scope_tunnel(&scope, "tunnel", REQUIRED, &parsed->tunnel) &&
	       scope_direction(&scope, &parameters->direction) &&
	       scope_spi(&scope, "spi", &parameters->spi) &&
	       scope_secret(&scope, "key", parameters->key, sizeof(parameters->key)) &&
	       scope_secret(&scope, "salt", parameters->salt, sizeof(parameters->salt)) &&
	       scope_boolean(&scope, "esn", &parameters->esn) && parse_addresses(&scope, parsed) &&
	       parse_window(&scope, parsed) && parse_lifetime(&scope, parsed) &&
	       parse_selectors(&scope, parameters);
}
