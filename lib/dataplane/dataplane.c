// SPDX-License-Identifier: BSD-3-Clause
// Copyright (c) 2026 the espgw authors

// Putting the data plane together and taking it apart.

#include <stdio.h>
#include <stdlib.h>
#include <sys/random.h>
#include <unistd.h>

#include <rte_cycles.h>
#include <rte_lcore.h>
#include <rte_malloc.h>
#include <rte_random.h>

#include "internal.h"

#define BUCKET_MIN 64 // packets at once

static struct rte_ring *create_ring(const char *name, unsigned int worker, unsigned int size)
{
	char text[RTE_RING_NAMESIZE];
	snprintf(text, sizeof(text), "%s_%u", name, worker);
	return rte_ring_create(text, size, (int)rte_socket_id(), RING_F_SP_ENQ | RING_F_SC_DEQ);
}

// A worker's share of `rate` packets a second, and up to a tenth of a second's at once.
static void set_up_bucket(struct token_bucket *bucket, uint32_t rate, const struct config *config)
{
	rate = RTE_MAX(rate / config->worker_count, 1u);
	bucket->cycles_per_token = rte_get_tsc_hz() / rate;
	bucket->size = RTE_MAX(rate / 10, (uint32_t)BUCKET_MIN);
	bucket->tokens = bucket->size;
	bucket->refilled = rte_rdtsc();
}

static struct worker *create_worker(struct dataplane *dataplane, unsigned int index)
{
	struct worker *worker = rte_zmalloc("worker", sizeof(*worker), RTE_CACHE_LINE_SIZE);
	if (worker == NULL)
		return NULL;
	const struct config_worker *config = &dataplane->config->workers[index];
	worker->index = index;
	worker->dataplane = dataplane;
	worker->slot = dataplane->telemetry->slot[index];
	worker->stages.counters = worker->slot->stages;
	worker->source = &worker->slot->sources[TELEMETRY_SOURCE_GATEWAY];
	worker->event_interval = rte_get_tsc_hz() / 1000;
	set_up_bucket(&worker->punt, dataplane->config->gateway.host_rate, dataplane->config);
	worker->punt_reserve = worker->punt.size / 4;
	set_up_bucket(&worker->icmp, dataplane->config->gateway.icmp_rate, dataplane->config);
	worker->identification = (uint16_t)rte_rand();
	for (unsigned int port = 0; port < dataplane->port_count; port++)
		for (uint16_t queue = 0; queue < 64; queue++)
			if (config->queues[port] >> queue & 1)
				worker->polls[worker->poll_count++] = (struct worker_poll){
					.port = &dataplane->ports[port], .queue = queue};
	worker->esp = esp_context_create(index, dataplane->crypto);
	if (worker->esp != NULL)
		esp_context_set_stages(worker->esp, &worker->stages);
	worker->to_host = create_ring("to_host", index, HOST_RING_SIZE);
	worker->from_host = create_ring("from_host", index, HOST_RING_SIZE);
	worker->probes = create_ring("probes", index, PROBE_RING_SIZE);
	char name[RTE_RING_NAMESIZE];
	snprintf(name, sizeof(name), "events_%u", index);
	worker->events = rte_ring_create_elem(name, sizeof(struct worker_event), EVENT_RING_SIZE,
		(int)rte_socket_id(), RING_F_SP_ENQ | RING_F_SC_DEQ);
	snprintf(name, sizeof(name), "answers_%u", index);
	worker->answers = rte_ring_create_elem(name, sizeof(struct probe_answer), PROBE_RING_SIZE,
		(int)rte_socket_id(), RING_F_SP_ENQ | RING_F_SC_DEQ);
	return worker;
}

// A wish that the CPU can't fulfil is an error of the configuration; a failed self-test is not, and
// leaves the slower way.
static int choose_crypto(struct dataplane *dataplane, struct dataplane_error *error)
{
	static const enum esp_crypto wishes[] = {
		[CONFIG_CRYPTO_AUTO] = ESP_CRYPTO_AUTO,
		[CONFIG_CRYPTO_IPSEC_MB] = ESP_CRYPTO_IPSEC_MB,
		[CONFIG_CRYPTO_BURST] = ESP_CRYPTO_BURST,
	};
	enum esp_crypto wish = wishes[dataplane->config->crypto];
	enum esp_crypto_problem problem = esp_crypto_choose(wish, &dataplane->crypto);
	if (problem == ESP_CRYPTO_UNSUPPORTED)
		return dataplane_fail(error,
			"workers.crypto = \"burst\": this CPU lacks VAES, VPCLMULQDQ, "
			"AVX2 or BMI2; write \"auto\"");
	if (problem == ESP_CRYPTO_WRONG)
		fprintf(stderr,
			"espgw: warning: the burst cipher failed its self-test on this CPU; "
			"intel-ipsec-mb computes all packets\n");
	return 0;
}

static int create_workers(struct dataplane *dataplane, struct dataplane_error *error)
{
	if (getrandom(dataplane->fragment_keys, sizeof(dataplane->fragment_keys), 0) !=
		sizeof(dataplane->fragment_keys))
		return dataplane_fail(error, "no random numbers");
	for (unsigned int i = 0; i < dataplane->worker_count; i++) {
		struct worker *worker = create_worker(dataplane, i);
		dataplane->workers[i] = worker;
		if (worker == NULL || worker->esp == NULL || worker->to_host == NULL ||
			worker->from_host == NULL || worker->events == NULL ||
			worker->probes == NULL || worker->answers == NULL ||
			!share_create(worker) || !fragments_create(worker))
			return dataplane_fail(error,
				"worker %u: no memory, or a CPU without AES-NI and PCLMULQDQ", i);
	}
	return 0;
}

static void destroy_workers(struct dataplane *dataplane)
{
	for (unsigned int i = 0; i < dataplane->worker_count; i++) {
		struct worker *worker = dataplane->workers[i];
		if (worker == NULL)
			continue;
		esp_context_destroy(worker->esp);
		rte_free(worker->share);
		fragments_destroy(worker);
		rte_ring_free(worker->to_host);
		rte_ring_free(worker->from_host);
		rte_ring_free(worker->events);
		rte_ring_free(worker->probes);
		rte_ring_free(worker->answers);
		rte_free(worker);
	}
}

static int create_tables(struct dataplane *dataplane, struct dataplane_error *error)
{
	const struct config *config = dataplane->config;
	// The gateway's own entries come on top of the user's.
	uint32_t routes = config->gateway.max_routes + config->gateway.max_neighbours +
			  2 * CONFIG_ADDRESSES * config->port_count +
			  2 * config_tunnel_room(config);
	dataplane->reclaim = reclaim_create(config->worker_count);
	dataplane->telemetry = telemetry_create(config->worker_count, config_tunnel_room(config));
	if (dataplane->reclaim != NULL) {
		dataplane->routes = route_table_create("routes", routes, dataplane->reclaim);
		dataplane->tunnels = tunnel_table_create(config, dataplane->reclaim);
	}
	if (dataplane->telemetry == NULL || dataplane->routes == NULL || dataplane->tunnels == NULL)
		return dataplane_fail(error,
			"no memory for the tables; raise gateway.memory_mb or reserve more "
			"hugepages");
	tunnel_set_resolver(dataplane->tunnels, path_resolve, dataplane);
	return neighbours_create(dataplane, error);
}

int dataplane_add_own(struct dataplane *dataplane, const struct packet_address *address,
	uint8_t length, uint32_t kind, uint32_t index)
{
	struct packet_prefix prefix = packet_prefix_of(address, length);
	struct route_path path = {
		.target = {kind, index}, .origin = ROUTE_ORIGIN_GATEWAY, .weight = 1};
	return path_add(dataplane, &prefix, &path);
}

// The gateway's own addresses and the networks they stand in.
static int add_own_routes(struct dataplane *dataplane, struct dataplane_error *error)
{
	const struct config *config = dataplane->config;
	int failed = 0;
	for (unsigned int i = 0; i < config->port_count; i++) {
		for (unsigned int j = 0; j < config->ports[i].address_count; j++) {
			const struct packet_interface_address *own = &config->ports[i].addresses[j];
			uint8_t bits = packet_address_bits(&own->address);
			failed |= dataplane_add_own(
				dataplane, &own->address, own->length, ROUTE_CONNECTED, i);
			failed |= dataplane_add_own(
				dataplane, &own->address, bits, ROUTE_LOCAL_PORT, i);
		}
	}
	if (failed)
		return dataplane_fail(error, "the gateway's own addresses fit no table");
	for (unsigned int i = 0; i < config->tunnel_count; i++)
		if (tunnel_add_own_routes(dataplane, i, &config->tunnels[i], error) != 0)
			return -1;
	return 0;
}

int dataplane_neighbour_set(struct dataplane *dataplane, const struct config_neighbour *neighbour,
	struct dataplane_error *error)
{
	char text[PACKET_ADDRESS_TEXT];
	if (!neighbour_set_static(
		    dataplane, (unsigned int)neighbour->port, &neighbour->address, &neighbour->mac))
		return dataplane_fail(error,
			"neighbour %s finds no room; raise gateway.max_neighbours",
			packet_address_format(&neighbour->address, text));
	host_neighbour_set(dataplane->host, dataplane->ports[neighbour->port].tap.index,
		&neighbour->address, &neighbour->mac);
	return 0;
}

void dataplane_neighbour_remove(
	struct dataplane *dataplane, const struct config_neighbour *neighbour)
{
	host_neighbour_remove(
		dataplane->host, dataplane->ports[neighbour->port].tap.index, &neighbour->address);
	neighbour_unset_static(dataplane, (unsigned int)neighbour->port, &neighbour->address);
}

void dataplane_progress(
	struct dataplane *dataplane, const char *what, unsigned int done, unsigned int all)
{
	uint64_t now = dataplane_now();
	if (now - dataplane->progress_reported < UINT64_C(2000000000))
		return;
	dataplane->progress_reported = now;
	fprintf(stderr, "espgw: starting: %u of %u %s\n", done, all, what);
}

static int add_configured(struct dataplane *dataplane, struct dataplane_error *error)
{
	const struct config *config = dataplane->config;
	for (unsigned int i = 0; i < config->neighbour_count; i++)
		if (dataplane_neighbour_set(dataplane, &config->neighbours[i], error) != 0)
			return -1;
	for (unsigned int i = 0; i < config->route_count; i++) {
		if (dataplane_route_add(
			    dataplane, &config->routes[i], ROUTE_ORIGIN_CONFIG, error) != 0)
			return -1;
		dataplane_progress(dataplane, "routes", i + 1, config->route_count);
	}
	return 0;
}

struct dataplane *dataplane_create(const struct config *config, struct dataplane_error *error)
{
	struct dataplane *dataplane =
		rte_zmalloc("dataplane", sizeof(*dataplane), RTE_CACHE_LINE_SIZE);
	if (dataplane == NULL) {
		dataplane_fail(error, "no memory");
		return NULL;
	}
	dataplane->config = config;
	dataplane->worker_count = config->worker_count;
	dataplane->tick_fd = -1;
	dataplane->progress_reported = dataplane_now();
	struct host_error cause;
	if (create_tables(dataplane, error) != 0 || tunnels_create(dataplane, error) != 0 ||
		ports_open(dataplane, error) != 0 || mirror_create(dataplane, error) != 0 ||
		host_path_open(dataplane, error) != 0 || choose_crypto(dataplane, error) != 0 ||
		create_workers(dataplane, error) != 0 || add_own_routes(dataplane, error) != 0 ||
		add_configured(dataplane, error) != 0) {
		dataplane_destroy(dataplane);
		return NULL;
	}
	if (host_dump(dataplane->host, &cause) != 0) {
		dataplane_fail(error, "%s", cause.text);
		dataplane_destroy(dataplane);
		return NULL;
	}
	host_links_settled(dataplane->host);
	return dataplane;
}

int dataplane_start(
	struct dataplane *dataplane, struct event_base *base, struct dataplane_error *error)
{
	dataplane->base = base;
	if (ports_start(dataplane, error) != 0 || health_start(dataplane, error) != 0 ||
		host_path_start(dataplane, error) != 0)
		return -1;
	tunnel_resolve_all(dataplane->tunnels);
	dataplane->running = true; // from the first worker on there is something to stop
	for (unsigned int i = 0; i < dataplane->worker_count; i++)
		if (rte_eal_remote_launch(worker_main, dataplane->workers[i], i + 1) != 0)
			return dataplane_fail(error, "worker %u does not start", i);
	return 0;
}

// What the rings still hold when everybody has stopped.
static void drop_held(struct dataplane *dataplane, struct rte_ring *ring)
{
	struct telemetry_slot *slot = dataplane->telemetry->slot[dataplane->worker_count];
	struct rte_mbuf *packet;
	while (rte_ring_sc_dequeue(ring, (void **)&packet) == 0) {
		slot->sources[packet->port].drops[DROP_STOPPED]++;
		rte_pktmbuf_free(packet);
	}
}

static void stop_workers(struct dataplane *dataplane)
{
	dataplane->running = false;
	atomic_store(&dataplane->stopping, true);
	rte_eal_mp_wait_lcore();
	for (unsigned int i = 0; i < dataplane->worker_count; i++)
		while (!rte_ring_empty(dataplane->workers[i]->to_host))
			host_path_drain(dataplane);
	for (unsigned int i = 0; i < dataplane->worker_count; i++) {
		drop_held(dataplane, dataplane->workers[i]->from_host);
		drop_held(dataplane, dataplane->workers[i]->probes);
		fragments_stop(dataplane->workers[i]);
	}
}

void dataplane_stop(struct dataplane *dataplane)
{
	if (dataplane->running)
		stop_workers(dataplane);
	host_path_stop(dataplane);
	health_stop(dataplane);
}

void dataplane_destroy(struct dataplane *dataplane)
{
	if (dataplane == NULL)
		return;
	dataplane_stop(dataplane);
	ports_close(dataplane);
	destroy_workers(dataplane);
	if (dataplane->tunnels != NULL)
		tunnel_table_destroy(dataplane->tunnels);
	if (dataplane->adjacency_index != NULL && dataplane->reclaim != NULL)
		reclaim_poll(dataplane->reclaim);
	if (dataplane->host != NULL)
		mirror_destroy(dataplane);
	if (dataplane->routes != NULL)
		route_table_destroy(dataplane->routes);
	reclaim_destroy(dataplane->reclaim);
	neighbours_destroy(dataplane);
	host_path_close(dataplane);
	tunnels_destroy(dataplane);
	free(dataplane->underlay);
	telemetry_destroy(dataplane->telemetry);
	rte_free(dataplane);
}

unsigned int dataplane_remove_interfaces(const struct config *config, FILE *messages)
{
	unsigned int failed = 0, total = config->port_count + config->tunnel_count;
	for (unsigned int i = 0; i < total; i++) {
		const char *name = i < config->port_count
					   ? config->ports[i].name
					   : config->tunnels[i - config->port_count].name;
		struct host_error error;
		int result = host_interface_remove(name, &error);
		if (result == 0)
			fprintf(messages, "%s: removed\n", name);
		else if (result == -ENODEV)
			fprintf(messages, "%s: not there\n", name);
		else
			fprintf(messages, "%s: not removed: %s\n", name, error.text);
		failed += result != 0 && result != -ENODEV;
	}
	return failed;
}

// Where a configured route leads. False when its next hop is not known and finds no room, or,
// without `make`, is not known.
static bool find_target(struct dataplane *dataplane, const struct config_route *route, bool make,
	struct route_target *target)
{
	if (route->tunnel >= 0) {
		*target = (struct route_target){ROUTE_TUNNEL, (uint32_t)route->tunnel};
		return true;
	}
	unsigned int port = (unsigned int)route->port;
	if (route->next_hop.family == 0) {
		*target = (struct route_target){ROUTE_CONNECTED, port};
		return true;
	}
	uint32_t index = make ? neighbour_get(dataplane, port, &route->next_hop, true)
			      : neighbour_find(dataplane, port, &route->next_hop);
	*target = (struct route_target){ROUTE_ADJACENCY, index};
	return index != TUNNEL_NO_PATH;
}

static unsigned int kernel_interface(
	const struct dataplane *dataplane, const struct config_route *route)
{
	return route->tunnel >= 0 ? dataplane->tuns[route->tunnel].index
				  : dataplane->ports[route->port].tap.index;
}

static int install(
	struct dataplane *dataplane, const struct config_route *route, struct host_error *error)
{
	return host_route_install(dataplane->host, kernel_interface(dataplane, route),
		&route->prefix, &route->next_hop, route->priority, error);
}

// Whether the configuration has this very route: then the kernel's is its too.
static bool is_configured(const struct config *config, const struct config_route *route)
{
	for (unsigned int i = 0; i < config->route_count; i++) {
		const struct config_route *other = &config->routes[i];
		if (other->tunnel == route->tunnel &&
			(route->tunnel >= 0 || other->port == route->port) &&
			other->priority == route->priority &&
			packet_prefix_equal(&other->prefix, &route->prefix) &&
			packet_address_equal(&other->next_hop, &route->next_hop))
			return true;
	}
	return false;
}

// Whether an agent has added this very route.
static bool is_agents(
	struct dataplane *dataplane, const struct config_route *route, uint32_t priority)
{
	struct route_target target;
	uint32_t agents;
	return find_target(dataplane, route, false, &target) &&
	       path_priority(dataplane, &route->prefix, &target, ROUTE_ORIGIN_AGENT, &agents) &&
	       agents == priority;
}

static void uninstall(struct dataplane *dataplane, const struct config_route *route,
	uint32_t priority, enum route_origin origin)
{
	struct config_route installed = *route;
	struct host_error ignored; // the kernel's may be gone already
	installed.priority = priority;
	if (origin == ROUTE_ORIGIN_AGENT ? is_configured(dataplane->config, &installed)
					 : is_agents(dataplane, route, priority))
		return;
	host_route_remove(dataplane->host, kernel_interface(dataplane, route), &route->prefix,
		&route->next_hop, priority, &ignored);
}

int dataplane_route_add(struct dataplane *dataplane, const struct config_route *route,
	enum route_origin origin, struct dataplane_error *error)
{
	char text[PACKET_PREFIX_TEXT];
	struct route_path path = {
		.origin = origin, .priority = route->priority, .weight = route->weight};
	struct host_error cause;
	uint32_t before;
	packet_prefix_format(&route->prefix, text);
	if (!find_target(dataplane, route, true, &path.target))
		return dataplane_fail(error,
			"route %s: its next hop finds no room; raise gateway.max_neighbours", text);
	bool had = path_priority(dataplane, &route->prefix, &path.target, origin, &before);
	if (install(dataplane, route, &cause) != 0)
		return dataplane_fail(error, "%s", cause.text);
	int result = path_add(dataplane, &route->prefix, &path);
	if (result != 0) {
		if (!had || before != route->priority)
			uninstall(dataplane, route, route->priority, origin);
		return dataplane_fail(error, "route %s: %s; raise gateway.max_routes", text,
			result == -ENOSPC ? "the route table is full" : strerror(-result));
	}
	if (had && before != route->priority)
		uninstall(dataplane, route, before, origin);
	return 0;
}

int dataplane_route_delete(struct dataplane *dataplane, const struct config_route *route,
	enum route_origin origin, struct dataplane_error *error)
{
	char text[PACKET_PREFIX_TEXT];
	struct route_target target;
	uint32_t priority;
	packet_prefix_format(&route->prefix, text);
	if (!find_target(dataplane, route, false, &target) ||
		!path_priority(dataplane, &route->prefix, &target, origin, &priority) ||
		path_delete(dataplane, &route->prefix, &target, origin) != 0)
		return dataplane_fail(error, "route %s: there is no such route", text);
	uninstall(dataplane, route, priority, origin);
	return 0;
}

// An agent's path, as the route that it was added as.
static bool install_agents(const struct packet_prefix *prefix, const struct route_path *path,
	bool best, void *argument)
{
	struct dataplane *dataplane = argument;
	struct config_route route = {.prefix = *prefix, .tunnel = -1, .priority = path->priority};
	struct host_error ignored;
	unsigned int port = path->target.index;
	(void)best;
	if (path->origin != ROUTE_ORIGIN_AGENT)
		return true;
	if (path->target.kind == ROUTE_TUNNEL)
		route.tunnel = (int)path->target.index;
	else if (path->target.kind == ROUTE_ADJACENCY &&
		 !dataplane_adjacency(dataplane, path->target.index, &port, &route.next_hop))
		return true;
	route.port = (int)port;
	if (host_link_changed(dataplane->host, kernel_interface(dataplane, &route)))
		install(dataplane, &route, &ignored);
	return true;
}

void dataplane_install_routes(struct dataplane *dataplane)
{
	struct host_error ignored; // an interface may still be down: its coming up calls again
	for (unsigned int i = 0; i < dataplane->config->route_count; i++)
		if (host_link_changed(dataplane->host,
			    kernel_interface(dataplane, &dataplane->config->routes[i])))
			install(dataplane, &dataplane->config->routes[i], &ignored);
	route_walk(dataplane->routes, install_agents, dataplane);
	host_links_settled(dataplane->host);
}

void dataplane_set_event_handler(
	struct dataplane *dataplane, dataplane_event_handler handler, void *argument)
{
	dataplane->handler = handler;
	dataplane->handler_argument = argument;
}

const struct config *dataplane_config(const struct dataplane *dataplane)
{
	return dataplane->config;
}

struct tunnel_table *dataplane_tunnels(struct dataplane *dataplane)
{
	return dataplane->tunnels;
}

struct route_table *dataplane_routes(struct dataplane *dataplane)
{
	return dataplane->routes;
}

struct telemetry *dataplane_telemetry(struct dataplane *dataplane)
{
	return dataplane->telemetry;
}

struct reclaim *dataplane_reclaim(struct dataplane *dataplane)
{
	return dataplane->reclaim;
}

unsigned int dataplane_workers(const struct dataplane *dataplane)
{
	return dataplane->worker_count;
}

const char *dataplane_crypto(const struct dataplane *dataplane)
{
	return dataplane->crypto == ESP_CRYPTO_BURST ? "burst" : "ipsec-mb";
}

void dataplane_worker_receive(struct dataplane *dataplane, unsigned int worker, unsigned int port,
	struct rte_mbuf **packets, unsigned int count)
{
	receive_burst(dataplane->workers[worker], &dataplane->ports[port], packets, count);
}

unsigned int dataplane_worker_output(struct dataplane *dataplane, unsigned int worker,
	unsigned int port, struct rte_mbuf **packets)
{
	struct worker *from = dataplane->workers[worker];
	struct worker_output *output = &from->output[port];
	unsigned int count = output->count;
	memcpy(packets, output->packets, count * sizeof(*packets));
	from->source->forwarded += count;
	from->outputs &= ~(UINT64_C(1) << port);
	output->count = 0;
	worker_free_drops(from);
	return count;
}

unsigned int dataplane_worker_loop(struct dataplane *dataplane, unsigned int worker)
{
	return worker_loop(dataplane->workers[worker]);
}

void dataplane_worker_drain(struct dataplane *dataplane, unsigned int worker)
{
	worker_drain(dataplane->workers[worker]);
}

struct esp_context *dataplane_worker_set_context(
	struct dataplane *dataplane, unsigned int worker, struct esp_context *context)
{
	struct esp_context *before = dataplane->workers[worker]->esp;
	esp_context_set_stages(context, &dataplane->workers[worker]->stages);
	dataplane->workers[worker]->esp = context;
	return before;
}
