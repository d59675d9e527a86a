// SPDX-License-Identifier: BSD-3-Clause
// Copyright (c) 2026 the espgw authors

// The data plane: ports, queues and workers, the steps a packet goes through, the neighbours, and
// the path between the workers and the host's kernel.

#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "config/config.h"
#include "reclaim/reclaim.h"
#include "route/route.h"
#include "telemetry/telemetry.h"
#include "tunnel/tunnel.h"

struct event_base;
struct rte_mbuf;
struct dataplane;

struct dataplane_error {
	char text[512];
};

// Something a worker saw that control should know of. Called on the control thread.
enum dataplane_event_kind {
	DATAPLANE_UNKNOWN_SPI, // address: who sent it; at most 10 a second
	// An authenticated packet of the inbound SA `spi` came in UDP from `address` and
	// `udp_source`; at most 1 a second and SA.
	DATAPLANE_PEER_MOVED,
	DATAPLANE_NO_SA, // traffic for a tunnel without outbound SA; at most 1 a second a tunnel
	DATAPLANE_TUNNEL_HEALTH, // `tunnel` went from one state to another: health
	DATAPLANE_TUNNEL_MTU,    // a tunnel's MTU has changed: see its `path`
	DATAPLANE_PORT_STATE,    // a port's link went up or down, or the device was removed
};

struct dataplane_event {
	enum dataplane_event_kind kind;
	uint32_t spi;    // host order
	uint32_t tunnel; // index
	unsigned int port;
	struct packet_address address;
	uint16_t udp_source; // host order
	struct health_change health;
};

typedef void (*dataplane_event_handler)(void *argument, const struct dataplane_event *event);

// State of a port, for people and scripts.
struct dataplane_port_state {
	const struct config_port *config;
	bool present; // false: the device was removed
	bool link_up;
	uint32_t link_mbps; // 0 = unknown
	struct rte_ether_addr mac;
	uint16_t rx_queues, tx_queues;
	char driver[32];
	uint64_t rx_missed, rx_errors, rx_no_buffer, tx_errors; // as the driver counts them
};

// Starts DPDK's EAL for this configuration (hugepages or not, devices, cores). Once a process. The
// calling thread becomes the control thread. 0 or -1 with *error set.
int dataplane_eal_start(const struct config *config, struct dataplane_error *error);

// Opens the ports, makes TAPs and TUNs, routes and neighbours of the configuration; starts nothing
// yet. NULL with *error set. The configuration must outlive the data plane.
struct dataplane *dataplane_create(const struct config *config, struct dataplane_error *error);
// Launches the workers and hangs the host path, netlink and timers into the control thread's event
// loop. 0 or -1.
int dataplane_start(
	struct dataplane *dataplane, struct event_base *base, struct dataplane_error *error);
void dataplane_set_event_handler(
	struct dataplane *dataplane, dataplane_event_handler handler, void *argument);
// Stops the workers after they have drained what they hold, and the ports. Interfaces stay.
void dataplane_stop(struct dataplane *dataplane);
void dataplane_destroy(struct dataplane *dataplane);
// Removes the TAPs and TUNs that this configuration names. Returns how many could not be removed.
unsigned int dataplane_remove_interfaces(const struct config *config, FILE *messages);

// What control works on. Control thread.
const struct config *dataplane_config(const struct dataplane *dataplane);
struct tunnel_table *dataplane_tunnels(struct dataplane *dataplane);
struct route_table *dataplane_routes(struct dataplane *dataplane);
struct telemetry *dataplane_telemetry(struct dataplane *dataplane);
struct reclaim *dataplane_reclaim(struct dataplane *dataplane);
unsigned int dataplane_workers(const struct dataplane *dataplane);
// "burst" or "ipsec-mb": how AES-256-GCM is computed (see workers.crypto).
const char *dataplane_crypto(const struct dataplane *dataplane);
void dataplane_port_state(
	struct dataplane *dataplane, unsigned int port, struct dataplane_port_state *state);

// Adds or deletes a route to a tunnel, or to a port and next hop, on behalf of `origin`; tunnel
// routes are installed on the tunnel's TUN in the kernel too. `route` is as in the configuration.
// 0 or -1 with *error set.
int dataplane_route_add(struct dataplane *dataplane, const struct config_route *route,
	enum route_origin origin, struct dataplane_error *error);
int dataplane_route_delete(struct dataplane *dataplane, const struct config_route *route,
	enum route_origin origin, struct dataplane_error *error);

// Control. The health of a tunnel. False when it is not checked.
bool dataplane_health(
	struct dataplane *dataplane, unsigned int tunnel, struct health_report *report);

// ---- another configuration while it runs; control thread ----

// One function for each thing that can happen to a tunnel. Whoever keeps something for each tunnel
// (probers, path MTUs) hangs it in here.
//
// Tunnel `index`, which config_place has chosen, comes: TUN, own routes, room for SAs. `config`
// must outlive it, or the next change. -1 with *error set and nothing left behind.
int dataplane_tunnel_add(struct dataplane *dataplane, unsigned int index,
	const struct config_tunnel *config, struct dataplane_error *error);
// It gets another configuration, with the same name. -1 with *error set and nothing changed.
int dataplane_tunnel_change(struct dataplane *dataplane, unsigned int index,
	const struct config_tunnel *config, struct dataplane_error *error);
// It goes, with its TUN and its own routes. It has no SAs, and nobody else's routes lead into it
// any more. Its index is not used again
// before all workers have forgotten it, and its counters are zero by then.
void dataplane_tunnel_remove(struct dataplane *dataplane, unsigned int index);

// Gives the tunnels of `next` their indexes. -1 with *error set: there are too few.
int dataplane_place(
	struct dataplane *dataplane, struct config *next, struct dataplane_error *error);

// Called with a tunnel that goes, before dataplane_tunnel_remove: its SAs must be deleted.
typedef void (*dataplane_tunnel_leaves)(void *argument, struct tunnel *tunnel);

// Puts the placed configuration in the place of the one that runs; `diff` is their difference, with
// nothing in it that needs a restart. What did not change goes on without a gap, and what comes
// stands before anything goes. 0, and the configuration is the data plane's; or -1 with *error set,
// and nothing has changed.
int dataplane_apply(struct dataplane *dataplane, struct config *next,
	const struct config_diff *diff, dataplane_tunnel_leaves leaves, void *argument,
	struct dataplane_error *error);

// The port and next hop of an adjacency target, for listing routes. False when it is none.
bool dataplane_adjacency(const struct dataplane *dataplane, uint32_t adjacency, unsigned int *port,
	struct packet_address *next_hop);

// For tests and benchmarks: a worker's whole way without a port's queues, on the calling thread,
// while no worker runs. Frames go in as if received (count <= 64)...
void dataplane_worker_receive(struct dataplane *dataplane, unsigned int worker, unsigned int port,
	struct rte_mbuf **packets, unsigned int count);
// ... and come out as they would be sent; the caller owns them. `packets` has room for 128.
unsigned int dataplane_worker_output(struct dataplane *dataplane, unsigned int worker,
	unsigned int port, struct rte_mbuf **packets);
// For benchmarks, while no worker runs: one loop of a worker, on the calling thread, one thread a
// worker. Returns packets received. And what a worker does at its end, as often as wanted.
unsigned int dataplane_worker_loop(struct dataplane *dataplane, unsigned int worker);
void dataplane_worker_drain(struct dataplane *dataplane, unsigned int worker);
// Puts another ESP context in the place of the worker's, which is returned: to compare ciphers on
// one gateway. Both are the caller's to keep until he has put the worker's own one back.
struct esp_context *dataplane_worker_set_context(
	struct dataplane *dataplane, unsigned int worker, struct esp_context *context);
