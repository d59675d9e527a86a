// SPDX-License-Identifier: BSD-3-Clause
// Copyright (c) 2026 the espgw authors

// The SAs of the gateway, the far side's ends of them, and the routes to the far side. A tunnel has
// one outbound SA, since only the newest of a tunnel is used; inbound SAs are spread over them.

#include <stdlib.h>
#include <string.h>

#include "bench.h"
#include "config/config.h"
#include "dataplane/dataplane.h"

#define SPI_OUT UINT32_C(0xc0000001)
#define SPI_IN  UINT32_C(0xd0000001)

// The far side's networks: blocks of 256 addresses out of 32.0.0.0/4.
#define FAR_BASE    RTE_IPV4(32, 0, 0, 0)
#define FAR_BLOCKS  (UINT32_C(1) << 20)
#define FAR_SCATTER UINT32_C(0x9e377) // odd: neighbouring routes lie apart, no two on one block
// Every so many routes one is longer than /24, which is a step more for a lookup.
#define LONG_EVERY  16
#define LONG_LENGTH 28

_Static_assert(BENCH_ROUTES_MAX <= FAR_BLOCKS, "a block for each route");

const uint8_t bench_sa_salt[ESP_SALT_SIZE] = {0x10, 0x20, 0x30, 0x40};

uint32_t bench_sa_spi(bool inbound, unsigned int index)
{
	return (inbound ? SPI_IN : SPI_OUT) + index;
}

unsigned int bench_sa_index(uint32_t spi)
{
	return spi - SPI_OUT;
}

// As IKE would make them, only not random. They never leave this process.
void bench_sa_key(bool inbound, unsigned int index, uint8_t key[ESP_KEY_SIZE])
{
	memset(key, 0, ESP_KEY_SIZE);
	key[0] = inbound ? 2 : 1;
	memcpy(key + 1, &index, sizeof(index));
}

static int add_sa(
	struct bench_gateway *gateway, bool inbound, unsigned int index, struct bench_error *error)
{
	struct tunnel_table *tunnels = dataplane_tunnels(gateway->dataplane);
	struct tunnel *tunnel = tunnel_get(tunnels, index % gateway->tunnels);
	const struct config_tunnel *config = tunnel->config;
	struct sa_parameters parameters = {
		.direction = inbound ? SA_INBOUND : SA_OUTBOUND,
		.spi = bench_sa_spi(inbound, index),
		.source = inbound ? config->customer_endpoint : config->gateway_endpoint,
		.destination = inbound ? config->gateway_endpoint : config->customer_endpoint,
		.window = inbound ? BENCH_WINDOW : 0,
		.top = inbound ? &gateway->tops[index].top : NULL,
	};
	struct tunnel_error cause;
	bench_sa_key(inbound, index, parameters.key);
	memcpy(parameters.salt, bench_sa_salt, sizeof(parameters.salt));
	if (sa_add(tunnels, tunnel, &parameters, &cause) == NULL)
		return bench_fail(error, "%s", cause.text);
	return 0;
}

static struct esp_sa_out *create_far_out(const struct bench_gateway *gateway, unsigned int index)
{
	const struct config_tunnel *config = &gateway->config->tunnels[index % gateway->tunnels];
	struct esp_sa_out_parameters parameters = {
		.spi = bench_sa_spi(true, index),
		.source = config->customer_endpoint,
		.destination = config->gateway_endpoint,
		.workers = gateway->worker_count,
	};
	bench_sa_key(true, index, parameters.key);
	memcpy(parameters.salt, bench_sa_salt, sizeof(parameters.salt));
	return esp_sa_out_create(&parameters);
}

// Without a window: it takes what the gateway and rte_ipsec number alike.
static struct esp_sa_in *create_far_in(const struct bench_gateway *gateway, unsigned int index)
{
	struct esp_sa_in_parameters parameters = {
		.spi = bench_sa_spi(false, index), .workers = gateway->worker_count};
	bench_sa_key(false, index, parameters.key);
	memcpy(parameters.salt, bench_sa_salt, sizeof(parameters.salt));
	return esp_sa_in_create(&parameters);
}

static int create_far_side(struct bench_gateway *gateway, struct bench_error *error)
{
	bool complete = true;
	for (unsigned int i = 0; i < gateway->worker_count; i++) {
		gateway->workers[i].far = esp_context_create(i, ESP_CRYPTO_AUTO);
		complete &= gateway->workers[i].far != NULL;
	}
	gateway->far_out = calloc(gateway->sas, sizeof(struct esp_sa_out *));
	gateway->far_in = calloc(gateway->tunnels, sizeof(struct esp_sa_in *));
	if (!complete || gateway->far_out == NULL || gateway->far_in == NULL)
		return bench_fail(error, "no memory for the far side");
	for (unsigned int i = 0; i < gateway->sas; i++)
		complete &= (gateway->far_out[i] = create_far_out(gateway, i)) != NULL;
	for (unsigned int i = 0; i < gateway->tunnels; i++)
		complete &= (gateway->far_in[i] = create_far_in(gateway, i)) != NULL;
	return complete ? 0 : bench_fail(error, "no memory for the far side's SAs");
}

int bench_sas_create(struct bench_gateway *gateway, struct bench_error *error)
{
	gateway->tops = aligned_alloc(RTE_CACHE_LINE_SIZE, gateway->sas * sizeof(*gateway->tops));
	if (gateway->tops == NULL)
		return bench_fail(error, "no memory for %u replay records", gateway->sas);
	memset(gateway->tops, 0, gateway->sas * sizeof(*gateway->tops));
	for (unsigned int i = 0; i < gateway->sas; i++)
		if (add_sa(gateway, true, i, error) != 0)
			return -1;
	for (unsigned int i = 0; i < gateway->tunnels; i++)
		if (add_sa(gateway, false, i, error) != 0)
			return -1;
	return create_far_side(gateway, error);
}

void bench_sas_destroy(struct bench_gateway *gateway)
{
	for (unsigned int i = 0; gateway->far_out != NULL && i < gateway->sas; i++)
		esp_sa_out_destroy(gateway->far_out[i]);
	for (unsigned int i = 0; gateway->far_in != NULL && i < gateway->tunnels; i++)
		esp_sa_in_destroy(gateway->far_in[i]);
	free(gateway->far_out);
	free(gateway->far_in);
	for (unsigned int i = 0; i < gateway->worker_count; i++)
		esp_context_destroy(gateway->workers[i].far);
}

static uint8_t route_length(unsigned int index)
{
	return index % LONG_EVERY == 0 ? LONG_LENGTH : 24;
}

static uint32_t route_network(unsigned int index)
{
	return FAR_BASE + index * FAR_SCATTER % FAR_BLOCKS * 256;
}

uint32_t bench_route_address(unsigned int index, uint32_t random)
{
	uint32_t hosts = (UINT32_C(1) << (32 - route_length(index))) - 2;
	return route_network(index) + 1 + random % hosts;
}

// Right into the workers' table: through the configuration each would go to the kernel too.
int bench_routes_create(struct bench_gateway *gateway, struct bench_error *error)
{
	struct route_table *table = dataplane_routes(gateway->dataplane);
	for (unsigned int i = 0; i < gateway->routes * gateway->shared; i++) {
		unsigned int route = i / gateway->shared;
		struct packet_address network =
			packet_address_v4(rte_cpu_to_be_32(route_network(route)));
		struct packet_prefix prefix = packet_prefix_of(&network, route_length(route));
		struct route_path path = {
			.target = {ROUTE_TUNNEL, (route + i % gateway->shared) % gateway->tunnels},
			.origin = ROUTE_ORIGIN_AGENT,
			.priority = 100,
			.weight = 1,
		};
		if (route_add(table, &prefix, &path) != 0)
			return bench_fail(error, "route %u finds no room", route);
	}
	return 0;
}
