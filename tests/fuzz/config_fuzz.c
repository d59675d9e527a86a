// SPDX-License-Identifier: BSD-3-Clause
// Copyright (c) 2026 the espgw authors

// Any text as a configuration: either errors are written and there is no configuration, or the
// other way round; and what is accepted keeps the promises of config.h.

#include <stdlib.h>
#include <string.h>

#include "config/config.h"

int LLVMFuzzerTestOneInput(const uint8_t *input, size_t size);

// libconfig 1.5 itself loses the last string before a syntax error; only leaks of ours count here.
const char *__lsan_default_suppressions(void);
const char *__lsan_default_suppressions(void)
{
	return "leak:libconfig.so\n";
}
const char *__lsan_default_options(void);
const char *__lsan_default_options(void)
{
	return "print_suppressions=0";
}

static void require(bool condition)
{
	if (!condition)
		abort();
}

static void promises_check(const struct config *config)
{
	require(config->worker_count >= 1 && config->worker_count <= CONFIG_WORKERS);
	require(config->port_count >= 2 && config->port_count <= CONFIG_PORTS);
	for (unsigned int p = 0; p < config->port_count; p++) {
		uint64_t polled = 0;
		for (unsigned int i = 0; i < config->worker_count; i++) {
			require((polled & config->workers[i].queues[p]) == 0);
			polled |= config->workers[i].queues[p];
		}
		require(polled == UINT64_MAX >> (64 - config->ports[p].rx_queues));
		require(config->ports[p].tx_queues >= config->worker_count);
		require(config->ports[p].name[0] != '\0' && config->ports[p].device[0] != '\0');
	}
	for (unsigned int i = 0; i < config->tunnel_count; i++) {
		const struct config_tunnel *tunnel = &config->tunnels[i];
		require(tunnel->gateway_endpoint.family == tunnel->customer_endpoint.family);
		require(tunnel->peer_address.family == tunnel->interface_address.address.family);
		require(tunnel->mtu >= 68 && tunnel->mtu <= 9216);
		require((tunnel->replay_window & (tunnel->replay_window - 1)) == 0);
	}
	for (unsigned int i = 0; i < config->route_count; i++) {
		const struct config_route *route = &config->routes[i];
		require((route->tunnel >= 0) != (route->port >= 0));
		require(route->tunnel < (int)config->tunnel_count);
		require(route->port < (int)config->port_count);
	}
	for (unsigned int i = 0; i < config->neighbour_count; i++)
		require((unsigned int)config->neighbours[i].port < config->port_count);
}

int LLVMFuzzerTestOneInput(const uint8_t *input, size_t size)
{
	char *text = strndup((const char *)input, size), *errors = NULL;
	size_t errors_size = 0;
	FILE *stream = open_memstream(&errors, &errors_size);
	if (text == NULL || stream == NULL)
		abort();
	struct config *config = config_parse(text, "fuzz.conf", stream);
	fclose(stream);
	require((config == NULL) == (errors_size > 0));
	if (config != NULL)
		promises_check(config);
	config_free(config);
	free(errors);
	free(text);
	return 0;
}
