// SPDX-License-Identifier: BSD-3-Clause
// Copyright (c) 2026 the espgw authors

// Control's part in health checks: drives the state machines of lib/tunnel/health.h, makes their
// probes, and acts on what becomes of the tunnels. Tunnels that have something to do wait in a
// wheel of milliseconds, so that a tick looks only at those.

#include <stdlib.h>
#include <sys/queue.h>
#include <sys/random.h>

#include <rte_cycles.h>

#include "internal.h"

#define WHEEL_SLOTS    1024
#define MILLISECOND    UINT64_C(1000000)
#define SECOND         UINT64_C(1000000000)
#define COOKIES        32
#define ANSWERS_A_TICK 512u
#define PROBE_CLASS    0xc0 // CS6, network control (RFC 4594 section 3.1)

struct checked {
	LIST_ENTRY(checked) in_slot;
	struct dataplane *dataplane;
	struct health *health;
	uint64_t due; // nanoseconds; it may turn out that nothing is
	uint32_t tunnel;
	bool in_clear; // where the answers come
	bool is_reply; // what is sent
	struct packet_address source, target;
};

LIST_HEAD(wheel_slot, checked);

struct prober {
	struct checked **checked; // [tunnel]; NULL = not checked
	uint64_t turned;          // milliseconds: slots up to here have been looked at
	struct wheel_slot slots[WHEEL_SLOTS];
	unsigned int cookies_left;
	uint64_t cookies[COOKIES];
};

// ---- the wheel ----

static void schedule(struct prober *prober, struct checked *checked)
{
	checked->due = health_next(checked->health);
	uint64_t slot = (checked->due + MILLISECOND - 1) / MILLISECOND;
	if (slot <= prober->turned)
		slot = prober->turned + 1;
	LIST_INSERT_HEAD(&prober->slots[slot % WHEEL_SLOTS], checked, in_slot);
}

static void run_slot(struct prober *prober, struct wheel_slot *slot, uint64_t now)
{
	struct wheel_slot due = LIST_HEAD_INITIALIZER(due);
	struct checked *checked, *next;
	for (checked = LIST_FIRST(slot); checked != NULL; checked = next) {
		next = LIST_NEXT(checked, in_slot);
		if (checked->due > now)
			continue; // a later turn's
		LIST_REMOVE(checked, in_slot);
		LIST_INSERT_HEAD(&due, checked, in_slot);
	}
	while ((checked = LIST_FIRST(&due)) != NULL) {
		LIST_REMOVE(checked, in_slot);
		health_poll(checked->health, now);
		schedule(prober, checked);
	}
}

static void turn(struct prober *prober, uint64_t now)
{
	uint64_t end = now / MILLISECOND;
	if (end - prober->turned > WHEEL_SLOTS)
		prober->turned = end - WHEEL_SLOTS; // each slot once is enough
	while (prober->turned < end) {
		prober->turned++;
		run_slot(prober, &prober->slots[prober->turned % WHEEL_SLOTS], now);
	}
}

// ---- probes ----

static uint64_t next_cookie(struct prober *prober)
{
	// Up to so many bytes come whole, whatever signal arrives meanwhile (getrandom(2)).
	_Static_assert(sizeof(prober->cookies) <= 256, "asked for in one call");
	if (prober->cookies_left == 0) {
		// Cannot fail for want of entropy once the system is up.
		if (getrandom(prober->cookies, sizeof(prober->cookies), 0) !=
			sizeof(prober->cookies))
			abort();
		prober->cookies_left = COOKIES;
	}
	return prober->cookies[--prober->cookies_left];
}

static void hand_over(struct checked *checked, struct rte_mbuf *packet)
{
	struct dataplane *dataplane = checked->dataplane;
	struct worker *worker = dataplane->workers[checked->tunnel % dataplane->worker_count];
	packet->port = TELEMETRY_SOURCE_GATEWAY;
	packet->hash.usr = checked->tunnel;
	host_path_give(dataplane, worker->probes, packet, checked->tunnel);
}

// A tunnel without outbound SA sends nothing, and so gets no answer. Nor does it ask for an SA: a
// probe is no traffic that wants to go there.
static uint64_t send_probe(void *argument, uint16_t probe)
{
	struct checked *checked = argument;
	struct dataplane *dataplane = checked->dataplane;
	struct telemetry_slot *slot = dataplane->telemetry->slot[dataplane->worker_count];
	struct telemetry_source *counters = &slot->sources[TELEMETRY_SOURCE_GATEWAY];
	struct probe_payload payload = {
		.magic = dataplane->probe_magic,
		.cookie = next_cookie(dataplane->prober),
		.tunnel = checked->tunnel,
	};
	const struct packet_echo echo = {
		.is_reply = checked->is_reply,
		.identifier = dataplane->probe_identifier,
		.sequence = probe,
		.payload = (const uint8_t *)&payload,
		.size = sizeof(payload),
	};
	if (tunnel_get(dataplane->tunnels, checked->tunnel)->current == NULL)
		return payload.cookie;
	counters->received++;
	struct rte_mbuf *packet = rte_pktmbuf_alloc(dataplane->ports[0].pool);
	if (packet == NULL) {
		counters->drops[DROP_NO_BUFFER]++;
		slot->tunnels[checked->tunnel].drops[DROP_NO_BUFFER]++;
		return payload.cookie;
	}
	// A reply-type probe is what the far side would send, and is routed back (Cloudflare WAN,
	// "Tunnel health checks").
	const struct packet_address *own = &checked->source, *far = &checked->target;
	uint32_t size = packet_echo_write(rte_pktmbuf_mtod(packet, uint8_t *),
		checked->is_reply ? far : own, checked->is_reply ? own : far, &echo, PROBE_CLASS);
	packet->data_len = (uint16_t)size;
	packet->pkt_len = size;
	counters->received_bytes += size;
	hand_over(checked, packet);
	return payload.cookie;
}

// ---- answers ----

static void take_answer(
	struct dataplane *dataplane, const struct probe_answer *answer, uint64_t now, uint64_t tsc)
{
	struct prober *prober = dataplane->prober;
	if (answer->tunnel >= tunnel_room(dataplane->tunnels))
		return;
	struct checked *checked = prober->checked[answer->tunnel];
	if (checked == NULL || answer->arrived != (checked->in_clear ? NO_TUNNEL : checked->tunnel))
		return;
	// How long ago, in nanoseconds; cores' TSCs may differ by a little.
	uint64_t ago = answer->received < tsc ? tsc - answer->received : 0;
	ago = (uint64_t)((double)ago * (double)SECOND / (double)rte_get_tsc_hz());
	health_answer(checked->health, answer->probe, answer->cookie, now - ago);
	if (health_next(checked->health) < checked->due) {
		LIST_REMOVE(checked, in_slot);
		schedule(prober, checked);
	}
}

static void drain_answers(struct dataplane *dataplane, uint64_t now)
{
	uint64_t tsc = rte_rdtsc();
	for (unsigned int i = 0; i < dataplane->worker_count; i++) {
		struct rte_ring *answers = dataplane->workers[i]->answers;
		struct probe_answer answer;
		for (unsigned int j = 0;
			j < ANSWERS_A_TICK &&
			rte_ring_sc_dequeue_elem(answers, &answer, sizeof(answer)) == 0;
			j++)
			take_answer(dataplane, &answer, now, tsc);
	}
}

// Answers first: they came before what is due now, be control ever so late.
void health_tick(struct dataplane *dataplane)
{
	uint64_t now = dataplane_now();
	drain_answers(dataplane, now);
	turn(dataplane->prober, now);
}

// ---- what follows ----

// The routes that lead into the tunnel are so much worse now. Without memory they are, too, but
// paths that should share a prefix don't.
static void set_penalty(struct dataplane *dataplane, uint32_t tunnel, uint32_t penalty)
{
	const struct route_target target = {ROUTE_TUNNEL, tunnel};
	route_set_penalty(dataplane->routes, &target, penalty);
}

static void on_change(void *argument, const struct health_change *change)
{
	struct checked *checked = argument;
	struct dataplane *dataplane = checked->dataplane;
	struct dataplane_event event = {
		.kind = DATAPLANE_TUNNEL_HEALTH, .tunnel = checked->tunnel, .health = *change};
	set_penalty(dataplane, checked->tunnel, health_penalty(change->to));
	if (dataplane->handler != NULL)
		dataplane->handler(dataplane->handler_argument, &event);
}

// ---- life ----

static struct health_settings settings_of(const struct config_health *config)
{
	return (struct health_settings){
		.interval = config->rate * MILLISECOND,
		.timeout = config->timeout * MILLISECOND,
		.retries = config->retries,
		.degraded_window = config->degraded_window * SECOND,
		.degraded_failures = config->degraded_failures,
		.degraded_per_mille = config->degraded_per_mille,
		.down_window = config->down_window * MILLISECOND,
		.down_failures = config->down_failures,
		.recovery_successes = config->recovery_successes,
		.recovery_probes = config->recovery_probes,
		.recovery_per_mille = config->recovery_per_mille,
		.unhealthy_time = config->unhealthy_time * SECOND,
	};
}

static void set_addresses(struct checked *checked, const struct config_tunnel *tunnel)
{
	const struct config_health *config = &tunnel->health;
	checked->is_reply = config->type == CONFIG_HEALTH_REPLY;
	checked->in_clear = config->direction == CONFIG_HEALTH_UNIDIRECTIONAL;
	checked->source =
		checked->in_clear ? tunnel->gateway_endpoint : tunnel->interface_address.address;
	checked->target = config->target;
}

static struct checked *create_checked(
	struct dataplane *dataplane, uint32_t tunnel, const struct health_settings *settings)
{
	struct checked *checked = calloc(1, sizeof(*checked));
	if (checked == NULL)
		return NULL;
	struct health_actions actions = {send_probe, on_change, checked};
	uint64_t now = dataplane_now();
	// Not all at once: the fractions of the golden ratio's multiples are spread evenly.
	uint64_t phase = (uint64_t)(tunnel * UINT32_C(0x9e3779b1)) * settings->interval >> 32;
	checked->dataplane = dataplane;
	checked->tunnel = tunnel;
	checked->health = health_create(settings, &actions, now, now + phase);
	if (checked->health == NULL) {
		free(checked);
		return NULL;
	}
	return checked;
}

void health_tunnel_remove(struct dataplane *dataplane, unsigned int tunnel)
{
	if (dataplane->prober == NULL || dataplane->prober->checked[tunnel] == NULL)
		return;
	struct checked *checked = dataplane->prober->checked[tunnel];
	dataplane->prober->checked[tunnel] = NULL;
	LIST_REMOVE(checked, in_slot);
	health_destroy(checked->health);
	free(checked);
	set_penalty(dataplane, tunnel, 0);
}

int health_tunnel_configure(
	struct dataplane *dataplane, unsigned int tunnel, const struct config_tunnel *config)
{
	struct prober *prober = dataplane->prober;
	struct health_settings settings = settings_of(&config->health);
	if (prober == NULL)
		return 0; // health_start will
	struct checked *checked = prober->checked[tunnel];
	if (!config->health.enabled) {
		health_tunnel_remove(dataplane, tunnel);
		return 0;
	}
	if (checked != NULL) {
		if (!health_configure(checked->health, &settings, dataplane_now()))
			return -1;
		LIST_REMOVE(checked, in_slot);
	} else {
		checked = create_checked(dataplane, tunnel, &settings);
		if (checked == NULL)
			return -1;
		prober->checked[tunnel] = checked;
	}
	set_addresses(checked, config);
	schedule(prober, checked);
	return 0;
}

bool dataplane_health(
	struct dataplane *dataplane, unsigned int tunnel, struct health_report *report)
{
	struct prober *prober = dataplane->prober;
	if (prober == NULL || prober->checked[tunnel] == NULL)
		return false;
	health_report(prober->checked[tunnel]->health, dataplane_now(), report);
	return true;
}

int health_start(struct dataplane *dataplane, struct dataplane_error *error)
{
	unsigned int room = tunnel_room(dataplane->tunnels);
	struct prober *prober = calloc(1, sizeof(*prober));
	if (prober != NULL)
		prober->checked = calloc(room + 1, sizeof(struct checked *));
	if (prober == NULL || prober->checked == NULL) {
		free(prober);
		return dataplane_fail(error, "no memory for health checks");
	}
	dataplane->prober = prober;
	prober->turned = dataplane_now() / MILLISECOND;
	dataplane->probe_magic = next_cookie(prober);
	dataplane->probe_identifier = (uint16_t)next_cookie(prober);
	for (unsigned int i = 0; i < room; i++) {
		const struct config_tunnel *config = tunnel_get(dataplane->tunnels, i)->config;
		if (config != NULL && health_tunnel_configure(dataplane, i, config) != 0)
			return dataplane_fail(error, "no memory for health checks");
	}
	return 0;
}

void health_stop(struct dataplane *dataplane)
{
	struct prober *prober = dataplane->prober;
	if (prober == NULL)
		return;
	for (unsigned int i = 0; i < tunnel_room(dataplane->tunnels); i++)
		health_tunnel_remove(dataplane, i);
	free(prober->checked);
	free(prober);
	dataplane->prober = NULL;
}
