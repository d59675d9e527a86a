// SPDX-License-Identifier: BSD-3-Clause
// Copyright (c) 2026 the espgw authors

// The control socket: JSON-RPC methods, events, lifetimes of SAs, the store of key fingerprints and
// the replay records. The protocol is docs/control-protocol.md. Control thread throughout.

#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "config/config.h"
#include "dataplane/dataplane.h"
#include "reclaim/reclaim.h"
#include "route/route.h"
#include "telemetry/telemetry.h"
#include "tunnel/tunnel.h"

struct event_base;
struct control;

struct control_error {
	char text[512];
};

// What control works on. Everything is borrowed and must outlive the control server. The functions
// are called with `argument`; they mean the same as those of dataplane.h.
struct control_parts {
	const struct config *config;
	struct tunnel_table *tunnels;
	struct route_table *routes;
	struct telemetry *telemetry;
	struct reclaim *reclaim;
	const char *crypto; // "burst" or "ipsec-mb"
	void *argument;
	void (*port_state)(void *argument, unsigned int port, struct dataplane_port_state *state);
	int (*route_add)(void *argument, const struct config_route *route, enum route_origin origin,
		struct dataplane_error *error);
	int (*route_delete)(void *argument, const struct config_route *route,
		enum route_origin origin, struct dataplane_error *error);
	bool (*adjacency)(void *argument, uint32_t adjacency, unsigned int *port,
		struct packet_address *next_hop);
	// NULL: no tunnel's health is checked.
	bool (*health)(void *argument, unsigned int tunnel, struct health_report *report);
	const char *config_file; // what the gateway was started with; NULL: no file
	int (*place)(void *argument, struct config *next, struct dataplane_error *error);
	int (*apply)(void *argument, struct config *next, const struct config_diff *diff,
		dataplane_tunnel_leaves leaves, void *leaves_argument,
		struct dataplane_error *error);
	// One line without a line feed; NULL = standard error.
	void (*log)(void *argument, enum config_log_level level, const char *line);
	// Seconds without progress after which a client that does not read is disconnected, and
	// within which it has to say hello. 0 = the documented ones (30 and 10).
	unsigned int write_timeout, hello_timeout;
};

// The parts of a real data plane.
struct control_parts control_parts_of(struct dataplane *dataplane);

// Makes jansson and libevent wipe what they free, since key material passes through both. To be
// called before any use of either; main does so first thing.
void control_memory_init(void);

// Makes the directories and files that are missing, takes up replay records and key fingerprints,
// and listens on the configuration's socket; a socket file that nobody answers on is replaced.
// SIGPIPE is ignored from here on. `parts` is copied. NULL with *error set, "another espgw ..."
// among the reasons. A damaged key store is no reason: it is logged, and sa.add is refused.
struct control *control_create(
	const struct control_parts *parts, struct event_base *base, struct control_error *error);

// Closes all connections and removes the socket file. Deletes all SAs, since inbound ones hold
// pointers into the replay records, and waits until no worker holds one.
void control_destroy(struct control *control);

// Reads the gateway's own configuration file again and applies what changed in it, as the method
// config.apply does; what came of it is logged.
void control_reload(struct control *control);

// For dataplane_set_event_handler: tells the subscribers. `control` is the struct control.
void control_dataplane_event(void *control, const struct dataplane_event *event);
