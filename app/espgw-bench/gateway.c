// SPDX-License-Identifier: BSD-3-Clause
// Copyright (c) 2026 the espgw authors

// A gateway like any other, but for its ports: they are net_null devices, and frames pass by hand.

#include <errno.h>
#include <sched.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <event2/event.h>
#include <rte_eal.h>

#include "bench.h"
#include "config/config.h"
#include "dataplane/dataplane.h"

#define SPI_OUT UINT32_C(0xc0000001)
#define SPI_IN  UINT32_C(0xc0000002)

// A key each way, as IKE would make them. They never leave this process.
static const uint8_t key_out[ESP_KEY_SIZE] = {1}, key_in[ESP_KEY_SIZE] = {2};
static const uint8_t salt[ESP_SALT_SIZE] = {0x10, 0x20, 0x30, 0x40};

static uint64_t replay_top; // as in the daemon's mapping: outside of the SA

int bench_fail(struct bench_error *error, const char *format, ...)
{
	va_list arguments;
	va_start(arguments, format);
	vsnprintf(error->text, sizeof(error->text), format, arguments);
	va_end(arguments);
	return -1;
}

// The last core of those that the process may use.
static int last_core(void)
{
	cpu_set_t allowed;
	CPU_ZERO(&allowed);
	sched_getaffinity(0, sizeof(allowed), &allowed);
	for (int core = CPU_SETSIZE - 1; core > 0; core--)
		if (CPU_ISSET((size_t)core, &allowed))
			return core;
	return 0;
}

static struct config *make_config(int core, bool hugepages)
{
	static const char format[] =
		"gateway = { name = \"bench%d\"; log_level = \"error\"; hugepages = %s; };\n"
		"workers = { cores = [ %d ]; };\n"
		"ports = (\n"
		"  { name = \"inside\"; device = \"net_null0,no-rx=1\"; side = \"inside\";\n"
		"    addresses = [ \"10.0.0.1/24\" ]; },\n"
		"  { name = \"outside\"; device = \"net_null1,no-rx=1\"; side = \"outside\";\n"
		"    addresses = [ \"198.51.100.1/24\" ]; }\n"
		");\n"
		"tunnels = (\n"
		"  { name = \"tunnel01\"; gateway_endpoint = \"198.51.100.1\";\n"
		"    customer_endpoint = \"203.0.113.9\";\n"
		"    interface_address = \"169.254.244.2/30\"; }\n"
		");\n"
		"routes = (\n"
		"  { prefix = \"192.168.192.0/26\"; tunnel = \"tunnel01\"; },\n"
		"  { prefix = \"10.1.0.0/16\"; port = \"inside\"; next_hop = \"10.0.0.2\"; },\n"
		"  { prefix = \"0.0.0.0/0\"; port = \"outside\"; next_hop = \"198.51.100.2\"; }\n"
		");\n"
		"neighbours = (\n"
		"  { port = \"inside\"; address = \"10.0.0.2\"; mac = \"02:00:00:00:00:02\"; },\n"
		"  { port = \"outside\"; address = \"198.51.100.2\"; "
		"mac = \"02:00:00:00:00:03\"; }\n"
		");\n";
	char text[sizeof(format) + 64];
	snprintf(text, sizeof(text), format, (int)getpid(), hugepages ? "true" : "false", core);
	return config_parse(text, "espgw-bench", stderr);
}

static int start_dataplane(struct bench_gateway *gateway, struct bench_error *error)
{
	struct dataplane_error cause;
	if (dataplane_eal_start(gateway->config, &cause) != 0)
		return bench_fail(error, "%s", cause.text);
	gateway->eal_started = true;
	gateway->dataplane = dataplane_create(gateway->config, &cause);
	if (gateway->dataplane == NULL)
		return bench_fail(error, "%s", cause.text);
	gateway->base = event_base_new();
	if (gateway->base == NULL)
		return bench_fail(error, "no memory");
	// Started for its ports to be up; stopped for its workers to leave them to us.
	if (dataplane_start(gateway->dataplane, gateway->base, &cause) != 0)
		return bench_fail(error, "%s", cause.text);
	dataplane_stop(gateway->dataplane);
	for (unsigned int i = 0; i < BENCH_PORTS; i++) {
		struct dataplane_port_state state;
		dataplane_port_state(gateway->dataplane, i, &state);
		gateway->macs[i] = state.mac;
	}
	return 0;
}

static int add_sa(struct bench_gateway *gateway, enum sa_direction direction, uint32_t spi,
	const uint8_t *key, struct bench_error *error)
{
	struct tunnel_table *tunnels = dataplane_tunnels(gateway->dataplane);
	struct tunnel *tunnel = tunnel_get(tunnels, 0);
	const struct config_tunnel *config = tunnel->config;
	bool inbound = direction == SA_INBOUND;
	struct sa_parameters parameters = {
		.direction = direction,
		.spi = spi,
		.source = inbound ? config->customer_endpoint : config->gateway_endpoint,
		.destination = inbound ? config->gateway_endpoint : config->customer_endpoint,
		.window = inbound ? config->replay_window : 0,
		.top = inbound ? &replay_top : NULL,
	};
	struct tunnel_error cause;
	memcpy(parameters.key, key, sizeof(parameters.key));
	memcpy(parameters.salt, salt, sizeof(parameters.salt));
	if (sa_add(tunnels, tunnel, &parameters, &cause) == NULL)
		return bench_fail(error, "%s", cause.text);
	return 0;
}

static int create_far_side(struct bench_gateway *gateway, struct bench_error *error)
{
	const struct config_tunnel *config = &gateway->config->tunnels[0];
	struct esp_sa_out_parameters out = {
		.spi = SPI_IN,
		.source = config->customer_endpoint,
		.destination = config->gateway_endpoint,
		.workers = 1,
	};
	struct esp_sa_in_parameters in = {.spi = SPI_OUT, .workers = 1};
	memcpy(out.key, key_in, sizeof(out.key));
	memcpy(out.salt, salt, sizeof(out.salt));
	memcpy(in.key, key_out, sizeof(in.key));
	memcpy(in.salt, salt, sizeof(in.salt));
	gateway->far = esp_context_create(0, ESP_CRYPTO_AUTO);
	gateway->far_out = esp_sa_out_create(&out);
	gateway->far_in = esp_sa_in_create(&in);
	if (gateway->far == NULL || gateway->far_out == NULL || gateway->far_in == NULL)
		return bench_fail(error, "no memory for the far side");
	return 0;
}

static int pin_to(int core, struct bench_error *error)
{
	cpu_set_t one;
	CPU_ZERO(&one);
	CPU_SET((size_t)core, &one);
	if (sched_setaffinity(0, sizeof(one), &one) != 0)
		return bench_fail(error, "can't run on core %d: %s", core, strerror(errno));
	return 0;
}

int bench_gateway_create(
	struct bench_gateway *gateway, int core, bool hugepages, struct bench_error *error)
{
	*gateway = (struct bench_gateway){0};
	// The gateway makes TAPs, routes and neighbours. In a namespace of their own they disturb
	// nobody, and go with the process.
	if (unshare(CLONE_NEWNET) != 0)
		return bench_fail(error, "can't make a network namespace: %s%s", strerror(errno),
			errno == EPERM ? "; run it as root" : "");
	if (core < 0)
		core = last_core();
	gateway->config = make_config(core, hugepages);
	if (gateway->config == NULL)
		return bench_fail(error, "the configuration is refused");
	if (start_dataplane(gateway, error) != 0 ||
		add_sa(gateway, SA_OUTBOUND, SPI_OUT, key_out, error) != 0 ||
		add_sa(gateway, SA_INBOUND, SPI_IN, key_in, error) != 0)
		return -1;
	if (create_far_side(gateway, error) != 0)
		return -1;
	return pin_to(core, error);
}

void bench_gateway_destroy(struct bench_gateway *gateway)
{
	esp_sa_in_destroy(gateway->far_in);
	esp_sa_out_destroy(gateway->far_out);
	esp_context_destroy(gateway->far);
	dataplane_destroy(gateway->dataplane);
	if (gateway->base != NULL)
		event_base_free(gateway->base);
	if (gateway->eal_started)
		rte_eal_cleanup();
	config_free(gateway->config);
}

int bench_gateway_pass(struct bench_gateway *gateway, enum bench_path path,
	struct rte_mbuf **packets, unsigned int count, unsigned int call)
{
	unsigned int in = path == BENCH_ENCAP ? BENCH_INSIDE : BENCH_OUTSIDE;
	unsigned int out = path == BENCH_ENCAP ? BENCH_OUTSIDE : BENCH_INSIDE;
	unsigned int sent = 0;
	for (unsigned int i = 0; i < count; i += call) {
		struct rte_mbuf *frames[2 * BENCH_CALL_MAX];
		memcpy(frames, packets + i, call * sizeof(frames[0])); // as a driver hands them out
		dataplane_worker_receive(gateway->dataplane, 0, in, frames, call);
		sent += dataplane_worker_output(gateway->dataplane, 0, out, frames);
	}
	gateway->received[in] += count;
	return sent == count ? 0 : -1;
}

static int check_source(const struct telemetry *telemetry, const char *name, unsigned int source,
	uint64_t expected, struct bench_error *error)
{
	struct telemetry_source sum;
	telemetry_sum_source(telemetry, source, &sum);
	for (unsigned int reason = DROP_NONE + 1; reason < DROP_COUNT; reason++)
		if (sum.drops[reason] != 0)
			return bench_fail(error, "port %s: %lu packets dropped: %s", name,
				sum.drops[reason], drop_reason_sentence(reason));
	if (sum.received != expected || sum.forwarded != expected || sum.to_host != 0)
		return bench_fail(error,
			"port %s: given %lu packets, counted %lu received, %lu forwarded, %lu to "
			"the host",
			name, expected, sum.received, sum.forwarded, sum.to_host);
	return 0;
}

int bench_gateway_check(const struct bench_gateway *gateway, struct bench_error *error)
{
	const struct telemetry *telemetry = dataplane_telemetry(gateway->dataplane);
	for (unsigned int port = 0; port < BENCH_PORTS; port++)
		if (check_source(telemetry, gateway->config->ports[port].name, port,
			    gateway->received[port], error) != 0)
			return -1;
	return 0;
}
