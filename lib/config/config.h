// SPDX-License-Identifier: BSD-3-Clause
// Copyright (c) 2026 the espgw authors

// The configuration file (libconfig), read and checked whole into one struct before anything
// starts. The file's reference is docs/configuration.md. Needs no EAL; any one thread.

#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "packet/packet.h"

#define CONFIG_NAME_SIZE   16  // tunnel and port names: 1 to 15 characters, and the end
#define CONFIG_PATH_SIZE   108 // of a Unix socket (sun_path), with the end
#define CONFIG_WORKERS     64
#define CONFIG_PORTS       16
#define CONFIG_TUNNELS     16384
#define CONFIG_ADDRESSES   8 // per port
#define CONFIG_DEVICE_SIZE 256

enum config_side { CONFIG_SIDE_INSIDE, CONFIG_SIDE_OUTSIDE };
enum config_far_side { CONFIG_FAR_SIDE_ANY, CONFIG_FAR_SIDE_AWS, CONFIG_FAR_SIDE_CLOUDFLARE };
// What TCP's MSS is lowered to in SYN segments that go or come by a tunnel; else it is a number.
#define CONFIG_MSS_AUTO UINT32_MAX       // what fits the tunnel's MTU
#define CONFIG_MSS_OFF  (UINT32_MAX - 1) // it stays as it is
// What the outer header's DF bit becomes (RFC 4301 section 8.1).
enum config_df { CONFIG_DF_SET, CONFIG_DF_CLEAR, CONFIG_DF_COPY };

// The outer header's DSCP is the inner packet's (RFC 2983 section 3.1, RFC 4301 section 5.1.2.1).
#define CONFIG_DSCP_COPY UINT32_MAX
enum config_log_level { CONFIG_LOG_ERROR, CONFIG_LOG_WARNING, CONFIG_LOG_INFO, CONFIG_LOG_DEBUG };
enum config_health_type { CONFIG_HEALTH_REQUEST, CONFIG_HEALTH_REPLY };
enum config_health_direction { CONFIG_HEALTH_BIDIRECTIONAL, CONFIG_HEALTH_UNIDIRECTIONAL };
// A worker thread's weight against other programs on its core, set once at start.
enum config_priority { CONFIG_PRIORITY_NORMAL, CONFIG_PRIORITY_LOW };
enum config_share { CONFIG_SHARE_AUTO, CONFIG_SHARE_OFF };
enum config_crypto { CONFIG_CRYPTO_AUTO, CONFIG_CRYPTO_IPSEC_MB, CONFIG_CRYPTO_BURST };

// gateway = { ... }
struct config_gateway {
	char name[CONFIG_NAME_SIZE]; // "espgw"; instances on one machine need different ones
	char control_socket[CONFIG_PATH_SIZE]; // "/run/espgw/control.sock"
	uint32_t control_socket_mode;          // 0600
	char run_directory[256];               // "/run/espgw": replay records, locks
	char state_directory[256];             // "/var/lib/espgw": key fingerprints
	enum config_log_level log_level;
	bool hugepages;          // false: run without, from memory of `memory_mb`
	uint32_t memory_mb;      // taken at start when hugepages = false; default 512
	uint32_t max_sas;        // both directions together; default 1024
	uint32_t max_tunnels;    // 0 = by the number of those configured: config_tunnel_room
	uint32_t max_routes;     // default 4096
	uint32_t max_neighbours; // default 1024
	uint32_t max_clients;    // of the control socket; default 64
	uint32_t host_rate;      // packets a second to the host at most; default 10000
	uint32_t icmp_rate;      // ICMP errors a second at most; default 1000
	uint32_t buffers;        // packet buffers; 0 = computed from queues
	uint32_t buffer_size;    // data room of one buffer in bytes; 0 = computed from the MTUs

	// ESP in fragments: packets that a worker puts together at once; default 256, and 2000.
	uint32_t reassembly_packets, reassembly_timeout_ms;
};

// ports = ( { ... }, ... )
struct config_port {
	int line;
	char name[CONFIG_NAME_SIZE];     // also the name of its TAP in the kernel
	char device[CONFIG_DEVICE_SIZE]; // PCI address, or a DPDK vdev string "net_...,key=value"
	enum config_side side;
	struct packet_interface_address addresses[CONFIG_ADDRESSES];
	unsigned int address_count;
	uint32_t mtu;                            // IP bytes; 1500
	uint32_t rx_queues;                      // default: one per worker
	uint32_t tx_queues;                      // default: one per worker
	uint32_t rx_descriptors, tx_descriptors; // default 1024
	bool has_mac;                            // default: the device's own
	struct rte_ether_addr mac;
	uint32_t vlan;         // 802.1Q VLAN of the port's frames; 0 = untagged
	uint32_t service_vlan; // 802.1ad VLAN around that; 0 = none
};

// workers = { cores = [ 2, 3 ]; ... }
struct config_worker {
	unsigned int core;
	// The RX queues that the worker polls: bit q of queues[p] is queue q of port p (ports in
	// file order). Default: worker i polls queue i of each port that has one. Each queue of
	// each port is polled by exactly one worker.
	uint64_t queues[CONFIG_PORTS];
};

// Health checks of a tunnel. The rules are lib/tunnel/health.h's.
struct config_health {
	bool enabled;
	enum config_health_type type;
	enum config_health_direction direction;
	uint32_t rate;                // a probe starts every so many milliseconds; default 500
	struct packet_address target; // default: the far side's interface address; unidirectional:
				      // the customer endpoint
	uint32_t timeout;             // of an attempt, milliseconds; default 250
	uint32_t retries;             // default 2
	uint32_t degraded_window;     // seconds; default 300
	uint32_t degraded_failures;   // default 2
	uint32_t degraded_per_mille;  // default 1
	uint32_t down_window;         // milliseconds; default 1000
	uint32_t down_failures;       // default 3
	uint32_t recovery_successes;  // default 3
	uint32_t recovery_probes;     // default 30
	uint32_t recovery_per_mille;  // default 1
	uint32_t unhealthy_time;      // seconds; default 300
};

// Probes of one tunnel that can be under way at once.
#define CONFIG_HEALTH_PROBES 100

// tunnels = ( { ... }, ... )
struct config_tunnel {
	int line;
	char name[CONFIG_NAME_SIZE]; // also the name of its TUN in the kernel
	uint32_t if_id;              // what an IKE agent calls it; 1 or more, no two the same
	struct packet_address gateway_endpoint;            // this gateway's outside address
	struct packet_address customer_endpoint;           // the far side's outside address
	struct packet_interface_address interface_address; // /30 or /31 (IPv6: /126 or /127)
	struct packet_address peer_address; // the other address of that block, derived
	enum config_far_side far_side;
	bool replay_protection;
	uint32_t replay_window;   // packets; power of two, 32 to 65536; default 4096
	uint32_t packets_per_key; // outbound, 1024 to UINT32_MAX, which is no limit with ESN
	uint32_t mtu;         // inner IP bytes; 0 in the file or absent: computed, so never 0 here
	bool mtu_is_computed; // from outer_mtu
	uint32_t outer_mtu;   // of the outside port that has the gateway's endpoint
	bool udp_encapsulation; // reckoned with in the computed MTU (default true)
	bool clear_df;          // too large IPv4 packets with DF are split too (default false)
	uint32_t mss;           // bytes, CONFIG_MSS_AUTO or CONFIG_MSS_OFF
	enum config_df df;
	uint32_t dscp;       // of the outer header, 0 to 63; or CONFIG_DSCP_COPY (default)
	uint32_t ttl;        // of the outer header, hop limit over IPv6; default 64
	bool pmtu;           // ICMP may lower the MTU; default true
	uint32_t pmtu_floor; // outer bytes, which ICMP can't get it under; 0 = 576, IPv6 1280
	uint32_t tfc;        // bytes that inner packets are padded to; 0 = off (default)
	uint32_t dummy_interval_ms; // a dummy packet is sent so often; 0 = never (default)
	uint32_t nat_keepalive;     // seconds without a packet in UDP; 0 = never (default)
	struct config_health health;
};

// routes = ( { prefix = ...; tunnel = ...; }, { prefix; port; next_hop; } )
struct config_route {
	int line;
	struct packet_prefix prefix;
	int tunnel;                     // index into tunnels, or -1
	int port;                       // index into ports when tunnel is -1
	struct packet_address next_hop; // with port; family 0 = connected to the port
	uint32_t priority;              // lower is better; default 100
	uint32_t weight;                // 1 to 256; default 1
};

// neighbours = ( { port; address; mac; } ): static ones
struct config_neighbour {
	int line;
	int port;
	struct packet_address address;
	struct rte_ether_addr mac;
};

struct config {
	struct config_gateway gateway;
	struct config_port *ports;
	unsigned int port_count;
	struct config_worker workers[CONFIG_WORKERS];
	unsigned int worker_count;
	int control_core; // -1: any core that is not a worker's
	enum config_priority worker_priority;
	enum config_crypto crypto;
	enum config_share share;
	unsigned int burst; // packets a receive asks for: 32 or 64; default 32
	struct config_tunnel *tunnels;
	unsigned int tunnel_count;
	struct config_route *routes;
	unsigned int route_count;
	struct config_neighbour *neighbours;
	unsigned int neighbour_count;
};

// The largest inner packet whose ESP packet has at most `outer_mtu` bytes, outer header of this
// family (4 or 6) included, with or without UDP encapsulation. 0 when there is none.
uint32_t config_largest_inner(uint32_t outer_mtu, uint8_t family, bool udp);
// The MTU that a tunnel offers by an SA with outer addresses of this family (4 or 6), with or
// without UDP encapsulation: as configured, or the largest inner packet whose ESP packet fits the
// outside port.
uint32_t config_tunnel_mtu(const struct config_tunnel *tunnel, uint8_t family, bool udp);

// Reads and checks the file. Every error is written to `errors` as a line of its own, by line:
//   FILE:LINE: PATH = VALUE: what is wrong; what would be right
// NULL when there was any. The caller frees with config_free.
struct config *config_load(const char *file, FILE *errors);
// As config_load, from text, which includes no files; `name` stands for the file in messages. For
// tests and fuzzing.
struct config *config_parse(const char *text, const char *name, FILE *errors);
// Also for NULL.
void config_free(struct config *config);

// ---- from one configuration to the next, while the gateway runs ----
//
// Tunnels of a running configuration keep their indexes, which routes, SAs and counters go by. So
// its array has holes where tunnels were removed: elements whose name is empty.

static inline bool config_is_tunnel(const struct config_tunnel *tunnel)
{
	return tunnel->name[0] != '\0';
}

// How many indexes of tunnels a gateway has that starts with this configuration.
static inline unsigned int config_tunnel_room(const struct config *config)
{
	unsigned int wanted = RTE_MAX(2 * config->tunnel_count, 64u);
	if (config->gateway.max_tunnels != 0)
		wanted = config->gateway.max_tunnels;
	return RTE_MAX(RTE_MIN(wanted, (unsigned int)CONFIG_TUNNELS), config->tunnel_count);
}

// Brings the ports and tunnels of `next` into the order of `running`: what has the same name gets
// the same index, and a new tunnel one of those below `room` that are not taken[]. Routes and
// neighbours are led to the new indexes. Ports stay as they are unless all have the same names.
// False when there are too few indexes, or no memory: nothing has changed then.
bool config_place(
	struct config *next, const struct config *running, const bool *taken, unsigned int room);

// What a change needs.
enum config_effect {
	CONFIG_RESTART, // can't be had while the gateway runs
	CONFIG_LIVE,    // is there at once
	CONFIG_NEXT_SA, // holds for SAs that are added from now on
};

enum config_part {
	CONFIG_PART_GATEWAY,
	CONFIG_PART_WORKERS,
	CONFIG_PART_PORT,
	CONFIG_PART_TUNNEL,
	CONFIG_PART_ROUTE,
	CONFIG_PART_NEIGHBOUR,
	CONFIG_PARTS
};

enum config_change_kind { CONFIG_ADDED, CONFIG_REMOVED, CONFIG_CHANGED };

struct config_setting_change {
	const char *group; // "health", or "" for the part's own
	const char *name;
	enum config_effect effect;
	char *before, *after;
};

// Something that is in one configuration and not in the other, or differs.
struct config_change {
	enum config_part part;
	enum config_change_kind kind;
	unsigned int before, after; // indexes in either configuration
	unsigned int setting_count; // of CONFIG_CHANGED
	struct config_setting_change *settings;
};

struct config_diff {
	const struct config *before, *after; // borrowed
	unsigned int count;
	struct config_change *changes; // by part, then removed, changed and added ones as they come
	// Changes by part and kind.
	unsigned int counts[CONFIG_PARTS][3];
};

// The difference of two configurations, of which `after` has been placed. Tunnels and ports are the
// same by name, routes by prefix and target, neighbours by port and address. NULL without memory.
struct config_diff *config_compare(const struct config *before, const struct config *after);
// Also for NULL.
void config_diff_free(struct config_diff *diff);
const char *config_part_name(enum config_part part); // "tunnel"
// What was changed, in words such as "10.0.0.0/8 by tunnel01"; returns `text`. Empty for the parts
// of which there is one.
#define CONFIG_CHANGE_TEXT 160
char *config_change_name(const struct config_diff *diff, const struct config_change *change,
	char text[CONFIG_CHANGE_TEXT]);
// Writes a line for each thing that needs a restart. Returns how many.
unsigned int config_diff_refusals(const struct config_diff *diff, FILE *stream);

// Writes the reference of all settings as Markdown tables: what docs/configuration.md holds.
void config_describe(FILE *stream);
