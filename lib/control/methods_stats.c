// SPDX-License-Identifier: BSD-3-Clause
// Copyright (c) 2026 the espgw authors

// port.list, stats, drops.

#include <inttypes.h>
#include <stdio.h>

#include <rte_cycles.h>

#include "control/internal.h"

// Tunnels that one drop reason lists at most, so that a reply stays within bounds.
#define DROP_TUNNELS_MAX 1000

// ---- ports ----

static void put_queue(json_t *object, const struct telemetry_queue *queue)
{
	json_put_number(object, "rx_packets", queue->rx_packets);
	json_put_number(object, "rx_bytes", queue->rx_bytes);
	json_put_number(object, "tx_packets", queue->tx_packets);
	json_put_number(object, "tx_bytes", queue->tx_bytes);
}

static void put_queues(const struct control *control, unsigned int port, json_t *object)
{
	const struct telemetry *telemetry = control->parts.telemetry;
	struct telemetry_queue sum = {0};
	json_t *list = json_array();
	for (unsigned int i = 0; i + 1 < telemetry->slots; i++) { // the last is control's own
		struct telemetry_queue queue = telemetry->slot[i]->queues[port];
		json_t *entry = json_object();
		json_put_number(entry, "worker", i);
		put_queue(entry, &queue);
		json_append(list, entry);
		sum.rx_packets += queue.rx_packets;
		sum.rx_bytes += queue.rx_bytes;
		sum.tx_packets += queue.tx_packets;
		sum.tx_bytes += queue.tx_bytes;
	}
	put_queue(object, &sum);
	json_put(object, "queues", list);
}

static void put_port_settings(const struct config_port *port, json_t *object)
{
	json_put_text(object, "name", port->name);
	json_put_text(object, "device", port->device);
	json_put_text(object, "side", port->side == CONFIG_SIDE_INSIDE ? "inside" : "outside");
	json_put_number(object, "mtu", port->mtu);
	json_put(object, "vlan", port->vlan == 0 ? json_null() : json_number(port->vlan));
	json_put(object, "service_vlan",
		port->service_vlan == 0 ? json_null() : json_number(port->service_vlan));
	json_t *addresses = json_array();
	for (unsigned int i = 0; i < port->address_count; i++) {
		struct packet_prefix address = {
			port->addresses[i].address, port->addresses[i].length};
		char text[PACKET_PREFIX_TEXT];
		json_append(addresses, json_string(packet_prefix_format(&address, text)));
	}
	json_put(object, "addresses", addresses);
}

static json_t *port_json(const struct control *control, unsigned int port)
{
	struct dataplane_port_state state = {0};
	control->parts.port_state(control->parts.argument, port, &state);
	const uint8_t *mac = state.mac.addr_bytes;
	char text[18];
	snprintf(text, sizeof(text), "%02x:%02x:%02x:%02x:%02x:%02x", mac[0], mac[1], mac[2],
		mac[3], mac[4], mac[5]);
	json_t *object = json_object();
	put_port_settings(&control->parts.config->ports[port], object);
	json_put_text(object, "mac", text);
	json_put_text(object, "driver", state.driver);
	json_put(object, "present", json_boolean(state.present));
	json_put(object, "link_up", json_boolean(state.link_up));
	json_put(object, "link_mbps",
		state.link_mbps == 0 ? json_null() : json_number(state.link_mbps));
	json_put_number(object, "rx_queues", state.rx_queues);
	json_put_number(object, "tx_queues", state.tx_queues);
	json_put_number(object, "rx_missed", state.rx_missed);
	json_put_number(object, "rx_errors", state.rx_errors);
	json_put_number(object, "rx_no_buffer", state.rx_no_buffer);
	json_put_number(object, "tx_errors", state.tx_errors);
	put_queues(control, port, object);
	return object;
}

static json_t *method_port_list(struct request *request)
{
	const struct control *control = request->control;
	json_t *list = json_array();
	for (unsigned int i = 0; i < control->parts.config->port_count; i++)
		json_append(list, port_json(control, i));
	json_t *result = json_object();
	json_put(result, "ports", list);
	return result;
}

// ---- what became of the packets ----

static uint64_t dropped(const struct telemetry_source *sum)
{
	uint64_t total = 0;
	for (unsigned int reason = DROP_NONE + 1; reason < DROP_COUNT; reason++)
		total += sum->drops[reason];
	return total;
}

static void put_source_sums(json_t *object, const struct telemetry_source *sum)
{
	json_put_number(object, "received", sum->received);
	json_put_number(object, "received_bytes", sum->received_bytes);
	json_put_number(object, "forwarded", sum->forwarded);
	json_put_number(object, "to_host", sum->to_host);
	json_put_number(object, "split", sum->split);
	json_put_number(object, "joined", sum->joined);
	json_put_number(object, "dropped", dropped(sum));
	// The counters are not of one instant, so that under load it may seem negative.
	int64_t held = (int64_t)telemetry_source_held(sum);
	json_put_number(object, "held", held < 0 ? 0 : (uint64_t)held);
}

static void add_to_totals(struct telemetry_source *totals, const struct telemetry_source *sum)
{
	totals->received += sum->received;
	totals->received_bytes += sum->received_bytes;
	totals->forwarded += sum->forwarded;
	totals->to_host += sum->to_host;
	totals->split += sum->split;
	totals->joined += sum->joined;
	for (unsigned int reason = 0; reason < DROP_COUNT; reason++)
		totals->drops[reason] += sum->drops[reason];
}

static json_t *source_json(
	const struct control *control, unsigned int source, struct telemetry_source *totals)
{
	const struct config *config = control->parts.config;
	struct telemetry_source sum;
	telemetry_sum_source(control->parts.telemetry, source, &sum);
	add_to_totals(totals, &sum);
	json_t *object = json_object();
	if (source == TELEMETRY_SOURCE_GATEWAY)
		json_put_text(object, "source", "gateway");
	else if (source == TELEMETRY_SOURCE_TUN)
		json_put_text(object, "source", "tun");
	else {
		json_put_text(object, "source", source < TELEMETRY_PORTS ? "port" : "tap");
		json_put_text(object, "port", config->ports[source % TELEMETRY_PORTS].name);
	}
	put_source_sums(object, &sum);
	json_t *drops = json_object();
	for (unsigned int reason = DROP_NONE + 1; reason < DROP_COUNT; reason++)
		if (sum.drops[reason] != 0)
			json_put_number(drops, drop_reason_name(reason), sum.drops[reason]);
	json_put(object, "drops", drops);
	return object;
}

static json_t *worker_json(const struct control *control, unsigned int worker)
{
	const struct telemetry_slot *slot = control->parts.telemetry->slot[worker];
	json_t *entry = json_object();
	json_put_number(entry, "worker", worker);
	json_put_number(entry, "core", control->parts.config->workers[worker].core);
	json_put_number(entry, "loops", slot->loops);
	json_put_number(entry, "busy_loops", slot->busy_loops);
	json_put_number(entry, "shared_packets", slot->shared_packets);
	json_put_number(entry, "helped_packets", slot->helped_packets);
	// In this order, so that it was never busy for longer than it has run.
	json_put_number(entry, "busy_cycles", telemetry_busy_cycles(slot));
	json_put_number(entry, "cycles", slot->started == 0 ? 0 : rte_rdtsc() - slot->started);
	return entry;
}

static json_t *workers_json(const struct control *control)
{
	json_t *list = json_array();
	for (unsigned int i = 0; i + 1 < control->parts.telemetry->slots; i++)
		json_append(list, worker_json(control, i));
	return list;
}

static json_t *method_stats(struct request *request)
{
	const struct control *control = request->control;
	unsigned int ports = control->parts.config->port_count;
	struct telemetry_source totals = {0};
	json_t *sources = json_array();
	for (unsigned int i = 0; i < ports; i++) {
		json_append(sources, source_json(control, i, &totals));
		json_append(sources, source_json(control, TELEMETRY_SOURCE_TAP + i, &totals));
	}
	json_append(sources, source_json(control, TELEMETRY_SOURCE_TUN, &totals));
	json_append(sources, source_json(control, TELEMETRY_SOURCE_GATEWAY, &totals));
	json_t *sums = json_object();
	put_source_sums(sums, &totals);
	json_t *result = json_object();
	json_put_number(result, "uptime_seconds", (control_now() - control->started) / NANOSECONDS);
	json_put(result, "sources", sources);
	json_put(result, "totals", sums);
	json_put_text(result, "crypto", control->parts.crypto);
	json_put_number(result, "path_mtu_unknown", tunnel_path_unknown(control->parts.tunnels));
	json_put(result, "workers", workers_json(control));
	return result;
}

// ---- drops ----

static uint64_t tunnel_drops(
	const struct telemetry *telemetry, unsigned int tunnel, enum drop_reason reason)
{
	uint64_t sum = 0;
	for (unsigned int i = 0; i < telemetry->slots; i++)
		sum += telemetry->slot[i]->tunnels[tunnel].drops[reason];
	return sum;
}

static json_t *tunnels_json(const struct control *control, enum drop_reason reason)
{
	json_t *tunnels = json_object();
	for (unsigned int i = 0; i < control->parts.config->tunnel_count &&
				 json_object_size(tunnels) < DROP_TUNNELS_MAX;
		i++) {
		uint64_t count = tunnel_drops(control->parts.telemetry, i, reason);
		if (count != 0 && config_is_tunnel(&control->parts.config->tunnels[i]))
			json_put_number(tunnels, control->parts.config->tunnels[i].name, count);
	}
	return tunnels;
}

static json_t *method_drops(struct request *request)
{
	struct scope scope = {request, request->params, ""};
	bool all = false;
	if (!scope_boolean(&scope, "all", &all))
		return NULL;
	struct telemetry_source totals = {0};
	for (unsigned int i = 0; i < TELEMETRY_SOURCES; i++) {
		struct telemetry_source sum;
		telemetry_sum_source(request->control->parts.telemetry, i, &sum);
		add_to_totals(&totals, &sum);
	}
	json_t *list = json_array();
	for (unsigned int reason = DROP_NONE + 1; reason < DROP_COUNT; reason++) {
		if (totals.drops[reason] == 0 && !all)
			continue;
		json_t *entry = json_object();
		json_put_text(entry, "reason", drop_reason_name(reason));
		json_put_text(entry, "sentence", drop_reason_sentence(reason));
		json_put_number(entry, "packets", totals.drops[reason]);
		json_put(entry, "tunnels", tunnels_json(request->control, reason));
		json_append(list, entry);
	}
	json_t *result = json_object();
	json_put(result, "drops", list);
	return result;
}

static const char *const no_parameters[] = {NULL};
static const char *const drops_parameters[] = {"all", NULL};

const struct method methods_stats[] = {
	{"port.list", method_port_list, no_parameters},
	{"stats", method_stats, no_parameters},
	{"drops", method_drops, drops_parameters},
	{NULL, NULL, NULL},
};
