// SPDX-License-Identifier: BSD-3-Clause
// Copyright (c) 2026 the espgw authors

// A gateway like any other, but for its ports: they are net_null devices, and frames pass by hand.

#include <errno.h>
#include <sched.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include <event2/event.h>
#include <rte_eal.h>

#include "bench.h"
#include "config/config.h"
#include "dataplane/dataplane.h"

#define MEMORY_MB       640   // the tables, and the buffers of a working set that is not cold
#define MEMORY_COLD_MB  256   // on top
#define MEMORY_SAS      20    // SAs each way that a megabyte is enough for, with all their ends
#define ROUTES_SPARE    16384 // the gateway's own, and what it mirrors from the kernel
#define TEXT_PER_TUNNEL 256

int bench_fail(struct bench_error *error, const char *format, ...)
{
	va_list arguments;
	va_start(arguments, format);
	vsnprintf(error->text, sizeof(error->text), format, arguments);
	va_end(arguments);
	return -1;
}

// The first worker's core is `wanted`, or (-1) the last one that the process may use; the others'
// are the last ones left.
static int choose_cores(struct bench_gateway *gateway, int wanted, struct bench_error *error)
{
	cpu_set_t allowed;
	CPU_ZERO(&allowed);
	sched_getaffinity(0, sizeof(allowed), &allowed);
	unsigned int chosen = 0;
	if (wanted >= 0) {
		gateway->workers[chosen++].core = wanted;
		CPU_CLR((size_t)wanted, &allowed);
	}
	for (int core = CPU_SETSIZE - 1; core >= 0 && chosen < gateway->worker_count; core--)
		if (CPU_ISSET((size_t)core, &allowed))
			gateway->workers[chosen++].core = core;
	if (chosen < gateway->worker_count)
		return bench_fail(error, "there are not %u cores", gateway->worker_count);
	return 0;
}

static void write_cores(FILE *text, const struct bench_gateway *gateway)
{
	fputs("workers = { cores = [", text);
	for (unsigned int i = 0; i < gateway->worker_count; i++)
		fprintf(text, "%s %d", i == 0 ? "" : ",", gateway->workers[i].core);
	fputs(" ]; };\n", text);
}

static void write_settings(FILE *text, const struct bench_options *options)
{
	unsigned int memory =
		MEMORY_MB + (options->cold ? MEMORY_COLD_MB : 0) + options->sas / MEMORY_SAS;
	// Outbound and inbound, and the least that the setting takes.
	unsigned int sas = 2 * options->sas + 2;
	fprintf(text,
		"gateway = { name = \"bench%d\"; log_level = \"error\"; hugepages = %s;\n"
		"  memory_mb = %u; max_sas = %u; max_routes = %u; };\n",
		(int)getpid(), options->hugepages ? "true" : "false", memory, sas,
		options->routes + ROUTES_SPARE);
}

static void write_ports(FILE *text)
{
	fputs("ports = (\n"
	      "  { name = \"inside\"; device = \"net_null0,no-rx=1\"; side = \"inside\";\n"
	      "    addresses = [ \"10.0.0.1/24\" ]; },\n"
	      "  { name = \"outside\"; device = \"net_null1,no-rx=1\"; side = \"outside\";\n"
	      "    addresses = [ \"198.51.100.1/24\" ]; }\n"
	      ");\n"
	      "routes = (\n"
	      "  { prefix = \"10.1.0.0/16\"; port = \"inside\"; next_hop = \"10.0.0.2\"; },\n"
	      "  { prefix = \"0.0.0.0/0\"; port = \"outside\"; next_hop = \"198.51.100.2\"; }\n"
	      ");\n"
	      "neighbours = (\n"
	      "  { port = \"inside\"; address = \"10.0.0.2\"; mac = \"02:00:00:00:00:02\"; },\n"
	      "  { port = \"outside\"; address = \"198.51.100.2\"; "
	      "mac = \"02:00:00:00:00:03\"; }\n"
	      ");\n",
		text);
}

// Endpoints out of 203.0.0.0/16, interface addresses out of 169.254.0.0/16.
static void write_tunnels(FILE *text, unsigned int tunnels)
{
	fputs("tunnels = (\n", text);
	for (unsigned int i = 0; i < tunnels; i++) {
		unsigned int block = 4 * i;
		fprintf(text,
			"  { name = \"tunnel%u\"; gateway_endpoint = \"198.51.100.1\";\n"
			"    customer_endpoint = \"203.0.%u.%u\";\n"
			"    interface_address = \"169.254.%u.%u/30\"; }%s\n",
			i, i / 250, 1 + i % 250, block / 256, block % 256 + 2,
			i + 1 < tunnels ? "," : "");
	}
	fputs(");\n", text);
}

static struct config *make_config(
	const struct bench_gateway *gateway, const struct bench_options *options)
{
	char *text = NULL;
	size_t size;
	FILE *stream = open_memstream(&text, &size);
	if (stream == NULL)
		return NULL;
	write_settings(stream, options);
	write_cores(stream, gateway);
	write_ports(stream);
	write_tunnels(stream, gateway->tunnels);
	struct config *config =
		fclose(stream) == 0 ? config_parse(text, "espgw-bench", stderr) : NULL;
	free(text);
	return config;
}

// Each tunnel's interface is a descriptor.
static void raise_descriptor_limit(void)
{
	struct rlimit limit;
	if (getrlimit(RLIMIT_NOFILE, &limit) != 0)
		return;
	limit.rlim_cur = limit.rlim_max;
	setrlimit(RLIMIT_NOFILE, &limit);
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

static int pin_to(int core, struct bench_error *error)
{
	cpu_set_t one;
	CPU_ZERO(&one);
	CPU_SET((size_t)core, &one);
	if (sched_setaffinity(0, sizeof(one), &one) != 0)
		return bench_fail(error, "can't run on core %d: %s", core, strerror(errno));
	return 0;
}

static int create_context(struct bench_gateway *gateway, enum bench_cipher cipher, bool wanted,
	struct bench_error *error)
{
	enum esp_crypto crypto =
		cipher == BENCH_CIPHER_BURST ? ESP_CRYPTO_BURST : ESP_CRYPTO_IPSEC_MB;
	enum esp_crypto chosen;
	if (esp_crypto_choose(crypto, &chosen) != ESP_CRYPTO_FINE)
		return !wanted ? 0
			       : bench_fail(error,
					 "--crypto %s: this CPU can't, or the cipher's self-test "
					 "failed",
					 bench_ciphers[cipher]);
	for (unsigned int i = 0; i < gateway->worker_count; i++) {
		gateway->workers[i].contexts[cipher] = esp_context_create(i, crypto);
		if (gateway->workers[i].contexts[cipher] == NULL)
			return bench_fail(error, "no memory for an ESP context");
	}
	return 0;
}

// For each cipher that is wanted; by default, for each that the CPU can do.
static int create_contexts(
	struct bench_gateway *gateway, unsigned int wanted, struct bench_error *error)
{
	for (unsigned int i = 0; i < BENCH_CIPHERS; i++)
		if ((wanted == 0 || wanted >> i & 1) &&
			create_context(gateway, i, wanted != 0, error) != 0)
			return -1;
	return 0;
}

int bench_gateway_create(struct bench_gateway *gateway, const struct bench_options *options,
	struct bench_error *error)
{
	*gateway = (struct bench_gateway){
		.sas = options->sas,
		.tunnels = options->sas,
		.routes = options->routes,
		.shared = options->shared,
		.worker_count = options->workers,
	};
	// The gateway makes TAPs, routes and neighbours. In a namespace of their own they disturb
	// nobody, and go with the process.
	if (unshare(CLONE_NEWNET) != 0)
		return bench_fail(error, "can't make a network namespace: %s%s", strerror(errno),
			errno == EPERM ? "; run it as root" : "");
	raise_descriptor_limit();
	if (choose_cores(gateway, options->core, error) != 0)
		return -1;
	gateway->config = make_config(gateway, options);
	if (gateway->config == NULL)
		return bench_fail(error, "the configuration is refused");
	if (start_dataplane(gateway, error) != 0 || bench_sas_create(gateway, error) != 0 ||
		bench_routes_create(gateway, error) != 0 ||
		create_contexts(gateway, options->ciphers, error) != 0)
		return -1;
	return pin_to(gateway->workers[0].core, error);
}

static void destroy_contexts(struct bench_gateway *gateway)
{
	for (unsigned int i = 0; i < gateway->worker_count; i++) {
		struct bench_gateway_worker *worker = &gateway->workers[i];
		if (worker->own != NULL)
			dataplane_worker_set_context(gateway->dataplane, i, worker->own);
		for (unsigned int j = 0; j < BENCH_CIPHERS; j++)
			esp_context_destroy(worker->contexts[j]);
	}
}

void bench_gateway_destroy(struct bench_gateway *gateway)
{
	destroy_contexts(gateway);
	bench_sas_destroy(gateway);
	dataplane_destroy(gateway->dataplane);
	free(gateway->tops);
	if (gateway->base != NULL)
		event_base_free(gateway->base);
	if (gateway->eal_started)
		rte_eal_cleanup();
	config_free(gateway->config);
}

void bench_gateway_use(struct bench_gateway *gateway, unsigned int worker, enum bench_cipher cipher)
{
	struct bench_gateway_worker *user = &gateway->workers[worker];
	struct esp_context *before =
		dataplane_worker_set_context(gateway->dataplane, worker, user->contexts[cipher]);
	if (user->own == NULL)
		user->own = before;
}

int bench_gateway_pass(struct bench_gateway *gateway, unsigned int worker, enum bench_path path,
	struct rte_mbuf **packets, unsigned int count)
{
	unsigned int in = path == BENCH_ENCAP ? BENCH_INSIDE : BENCH_OUTSIDE;
	unsigned int out = path == BENCH_ENCAP ? BENCH_OUTSIDE : BENCH_INSIDE;
	struct rte_mbuf *frames[2 * BENCH_CALL_MAX];
	memcpy(frames, packets, count * sizeof(frames[0])); // as a driver hands them out
	dataplane_worker_receive(gateway->dataplane, worker, in, frames, count);
	gateway->workers[worker].received[in] += count;
	return dataplane_worker_output(gateway->dataplane, worker, out, frames) == count ? 0 : -1;
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
	for (unsigned int port = 0; port < BENCH_PORTS; port++) {
		uint64_t received = 0;
		for (unsigned int i = 0; i < gateway->worker_count; i++)
			received += gateway->workers[i].received[port];
		if (check_source(telemetry, gateway->config->ports[port].name, port, received,
			    error) != 0)
			return -1;
	}
	return 0;
}
