// SPDX-License-Identifier: BSD-3-Clause
// Copyright (c) 2026 the espgw authors

#include "config/settings.h"

#define COUNT(array)      (sizeof(array) / sizeof((array)[0]))
#define AT(type, member)  .offset = offsetof(type, member), .size = sizeof(((type *)0)->member)
#define RANGE(low, high)  .minimum = (low), .maximum = (high)
#define GROUP(path, rows) .title = (path), .settings = (rows), .count = COUNT(rows)

static const char *const log_levels[] = {"error", "warning", "info", "debug", NULL};
static const char *const sides[] = {"inside", "outside", NULL};
static const char *const far_sides[] = {"any", "aws", "cloudflare", NULL};
static const char *const dscp_words[] = {"copy", NULL};       // CONFIG_DSCP_COPY
static const char *const mss_words[] = {"auto", "off", NULL}; // CONFIG_MSS_AUTO, CONFIG_MSS_OFF
static const char *const df_policies[] = {"set", "clear", "copy", NULL};
static const char *const priorities[] = {"normal", "low", NULL};
static const char *const shares[] = {"auto", "off", NULL};
static const char *const cryptos[] = {"auto", "ipsec-mb", "burst", NULL};
static const char *const health_types[] = {"request", "reply", NULL};
static const char *const health_directions[] = {"bidirectional", "unidirectional", NULL};
static const char *const health_rates[] = {"low", "mid", "high", NULL};
static const uint32_t health_intervals[] = {1000, 500, 100};

static const struct setting gateway_rows[] = {
	{.name = "name",
		.type = SETTING_NAME,
		AT(struct config_gateway, name),
		.fallback = "espgw",
		.meaning = "Name of this gateway. Gateways on one machine need different names."},
	{.name = "control_socket",
		.type = SETTING_PATH,
		AT(struct config_gateway, control_socket),
		.fallback = "/run/espgw/control.sock",
		.meaning = "Unix socket of the control protocol."},
	{.name = "control_socket_mode",
		.type = SETTING_MODE,
		AT(struct config_gateway, control_socket_mode),
		.fallback = "0600",
		.meaning = "File mode of that socket. Who may open it may set keys."},
	{.name = "run_directory",
		.type = SETTING_PATH,
		AT(struct config_gateway, run_directory),
		.fallback = "/run/espgw",
		.meaning = "Directory of the replay records and locks. It must outlive a restart "
			   "of the gateway, but not one of the machine."},
	{.name = "state_directory",
		.type = SETTING_PATH,
		AT(struct config_gateway, state_directory),
		.fallback = "/var/lib/espgw",
		.meaning = "Directory of the fingerprints of used keys. It must outlive a restart "
			   "of the machine."},
	{.name = "log_level",
		.type = SETTING_CHOICE,
		.effect = CONFIG_LIVE,
		AT(struct config_gateway, log_level),
		.choices = log_levels,
		.fallback = "info",
		.meaning = "What is logged."},
	{.name = "hugepages",
		.type = SETTING_BOOLEAN,
		AT(struct config_gateway, hugepages),
		.fallback = "true",
		.meaning = "Whether memory comes from hugepages. Without them the gateway is "
			   "slower; leave it on for PCI devices."},
	{.name = "memory_mb",
		.type = SETTING_INTEGER,
		AT(struct config_gateway, memory_mb),
		RANGE(256, 1048576),
		.fallback = "512",
		.meaning = "Memory in MB that is taken at start when `hugepages = false`."},
	{.name = "max_sas",
		.type = SETTING_INTEGER,
		AT(struct config_gateway, max_sas),
		RANGE(2, 1048576),
		.fallback = "1024",
		.meaning = "SAs at most, both directions together. A rekey needs both the old and "
			   "the new ones."},
	{.name = "max_tunnels",
		.type = SETTING_INTEGER,
		AT(struct config_gateway, max_tunnels),
		RANGE(1, CONFIG_TUNNELS),
		.zero = true,
		.fallback = "0",
		.fallback_note = "twice the file's tunnels, at least 64",
		.meaning = "Tunnels at most, those that are added while the gateway runs "
			   "included."},
	{.name = "max_routes",
		.type = SETTING_INTEGER,
		AT(struct config_gateway, max_routes),
		RANGE(16, 1048576),
		.fallback = "4096",
		.meaning = "Prefixes at most: configured ones, those of agents, those mirrored "
			   "from the kernel."},
	{.name = "max_neighbours",
		.type = SETTING_INTEGER,
		AT(struct config_gateway, max_neighbours),
		RANGE(16, 65536),
		.fallback = "1024",
		.meaning = "Neighbours (next hops with a MAC address) at most."},
	{.name = "max_clients",
		.type = SETTING_INTEGER,
		.effect = CONFIG_LIVE,
		AT(struct config_gateway, max_clients),
		RANGE(1, 1024),
		.fallback = "64",
		.meaning = "Connections to the control socket at most."},
	{.name = "host_rate",
		.type = SETTING_INTEGER,
		AT(struct config_gateway, host_rate),
		RANGE(100, 10000000),
		.fallback = "10000",
		.meaning = "Packets a second that go to the host's kernel at most."},
	{.name = "reassembly_packets",
		.type = SETTING_INTEGER,
		AT(struct config_gateway, reassembly_packets),
		RANGE(16, 65536),
		.fallback = "256",
		.meaning = "ESP packets that a worker puts together from fragments at once, at "
			   "most; of more, the oldest are dropped."},
	{.name = "reassembly_timeout_ms",
		.type = SETTING_INTEGER,
		AT(struct config_gateway, reassembly_timeout_ms),
		RANGE(10, 60000),
		.fallback = "2000",
		.meaning = "Milliseconds that fragments wait for the others of their packet."},
	{.name = "icmp_rate",
		.type = SETTING_INTEGER,
		AT(struct config_gateway, icmp_rate),
		RANGE(1, 10000000),
		.fallback = "1000",
		.meaning = "ICMP errors (too big, time exceeded, no route) that are sent a second "
			   "at most."},
	{.name = "buffers",
		.type = SETTING_INTEGER,
		AT(struct config_gateway, buffers),
		RANGE(1024, 16777216),
		.zero = true,
		.fallback = "0",
		.fallback_note = "computed from the queues",
		.meaning = "Packet buffers in all."},
	{.name = "buffer_size",
		.type = SETTING_INTEGER,
		AT(struct config_gateway, buffer_size),
		RANGE(512, 65535),
		.zero = true,
		.fallback = "0",
		.fallback_note = "computed from the MTUs",
		.meaning = "Bytes of one packet buffer, its headroom included."},
};

static const struct setting port_rows[] = {
	{.name = "name",
		.type = SETTING_NAME,
		.required = true,
		AT(struct config_port, name),
		.meaning = "Name of the port, and of its TAP interface in the kernel."},
	{.name = "device",
		.type = SETTING_DEVICE,
		.required = true,
		AT(struct config_port, device),
		.meaning =
			"The DPDK device: a PCI address, or a virtual device with its arguments."},
	{.name = "side",
		.type = SETTING_CHOICE,
		.required = true,
		AT(struct config_port, side),
		.choices = sides,
		.meaning = "`inside`: cleartext. `outside`: ESP; cleartext for a tunnel never "
			   "leaves here."},
	{.name = "addresses",
		.type = SETTING_ARRAY,
		.expected = "up to 8 addresses with prefix length, such as [ \"192.0.2.1/24\" ]",
		.fallback_note = "none",
		.meaning = "Addresses of the port with the prefix lengths of their networks."},
	{.name = "mtu",
		.type = SETTING_INTEGER,
		AT(struct config_port, mtu),
		RANGE(68, 9216),
		.fallback = "1500",
		.meaning = "Largest IP packet in bytes, without Ethernet header. At least 1280 "
			   "with an IPv6 address."},
	{.name = "rx_queues",
		.type = SETTING_INTEGER,
		AT(struct config_port, rx_queues),
		RANGE(1, 64),
		.fallback_note = "one per worker",
		.meaning = "Receive queues."},
	{.name = "tx_queues",
		.type = SETTING_INTEGER,
		AT(struct config_port, tx_queues),
		RANGE(1, 64),
		.fallback_note = "one per worker",
		.meaning = "Transmit queues. At least one per worker."},
	{.name = "rx_descriptors",
		.type = SETTING_INTEGER,
		AT(struct config_port, rx_descriptors),
		RANGE(32, 32768),
		.power_of_two = true,
		.fallback = "1024",
		.meaning = "Packets that one receive queue holds."},
	{.name = "tx_descriptors",
		.type = SETTING_INTEGER,
		AT(struct config_port, tx_descriptors),
		RANGE(32, 32768),
		.power_of_two = true,
		.fallback = "1024",
		.meaning = "Packets that one transmit queue holds."},
	{.name = "mac",
		.type = SETTING_MAC,
		AT(struct config_port, mac),
		.fallback_note = "the device's own",
		.meaning = "MAC address of the port."},
	{.name = "vlan",
		.type = SETTING_INTEGER,
		AT(struct config_port, vlan),
		RANGE(1, 4094),
		.fallback_note = "none: untagged",
		.meaning = "VLAN (802.1Q) of the port: its frames have this tag, and others are "
			   "not taken."},
	{.name = "service_vlan",
		.type = SETTING_INTEGER,
		AT(struct config_port, service_vlan),
		RANGE(1, 4094),
		.fallback_note = "none",
		.meaning = "Service VLAN (802.1ad, QinQ) that the tag of `vlan` is inside of."},
};

static const struct setting worker_rows[] = {
	{.name = "cores",
		.type = SETTING_ARRAY,
		.required = true,
		.expected = "1 to 64 core numbers, such as [ 2, 3 ]",
		.meaning = "One worker runs on each of these cores, and nothing else should."},
	{.name = "queues",
		.type = SETTING_LIST,
		.expected =
			"one array per worker, such as ( [ \"in:0\", \"out:0\" ], [ \"in:1\" ] )",
		.fallback_note = "worker i polls queue i of each port that has one",
		.meaning = "The receive queues that each worker polls, as `PORT:QUEUE`, in the "
			   "order of `cores`. Every queue has exactly one worker."},
	{.name = "control_core",
		.type = SETTING_INTEGER,
		AT(struct config, control_core),
		RANGE(0, 1023),
		.fallback_note = "any core that is no worker's",
		.meaning = "Core of the control thread."},
	{.name = "priority",
		.type = SETTING_CHOICE,
		AT(struct config, worker_priority),
		.choices = priorities,
		.fallback = "normal",
		.meaning = "`low` lets other programs on the cores go first. For demonstrations "
			   "on machines with few cores."},
	{.name = "crypto",
		.type = SETTING_CHOICE,
		AT(struct config, crypto),
		.choices = cryptos,
		.fallback = "auto",
		.meaning = "How AES-256-GCM is computed. `burst`: short packets several at a "
			   "time, which needs a CPU with VAES, VPCLMULQDQ and AVX-512 or AVX2; "
			   "others each by itself, by whichever is measured to be faster at start, "
			   "code of espgw's own (AVX-512 only) or ipsec-mb; `ipsec-mb`: each by "
			   "itself, by ipsec-mb; `auto`: `burst` where the CPU can."},
	{.name = "share",
		.type = SETTING_CHOICE,
		AT(struct config, share),
		.choices = shares,
		.fallback = "auto",
		.meaning =
			"`auto`: when a worker does not keep up with a queue of an outside port, "
			"idle workers take bursts of it over. `off`: each queue is its worker's "
			"alone."},
	{.name = "burst",
		.type = SETTING_INTEGER,
		AT(struct config, burst),
		RANGE(32, 64),
		.power_of_two = true,
		.expected = "32 or 64",
		.fallback = "32",
		.meaning = "Packets that a worker asks of a queue at once."},
};

static const struct setting health_rows[] = {
	{.name = "enabled",
		.type = SETTING_BOOLEAN,
		.effect = CONFIG_LIVE,
		AT(struct config_tunnel, health.enabled),
		.fallback = "true",
		.meaning = "Whether the tunnel is probed."},
	{.name = "type",
		.type = SETTING_CHOICE,
		.effect = CONFIG_LIVE,
		AT(struct config_tunnel, health.type),
		.choices = health_types,
		.fallback = "request",
		.meaning = "ICMP message that is sent: an echo `request`, or a `reply` that the "
			   "far side routes back."},
	{.name = "direction",
		.type = SETTING_CHOICE,
		.effect = CONFIG_LIVE,
		AT(struct config_tunnel, health.direction),
		.choices = health_directions,
		.fallback = "bidirectional",
		.meaning = "The answer comes back through the tunnel (`bidirectional`) or in clear "
			   "(`unidirectional`)."},
	{.name = "rate",
		.type = SETTING_RATE,
		.effect = CONFIG_LIVE,
		AT(struct config_tunnel, health.rate),
		.choices = health_rates,
		.values = health_intervals,
		RANGE(20, 60000),
		.fallback = "mid",
		.meaning = "How often a probe starts: every 1000 ms (`low`), 500 ms (`mid`), 100 "
			   "ms (`high`), or so many milliseconds."},
	{.name = "target",
		.type = SETTING_ADDRESS,
		.effect = CONFIG_LIVE,
		AT(struct config_tunnel, health.target),
		.fallback_note = "the other address of the interface's block; with "
				 "`unidirectional` the `customer_endpoint`",
		.meaning = "Address that is probed."},
	{.name = "timeout",
		.type = SETTING_INTEGER,
		.effect = CONFIG_LIVE,
		AT(struct config_tunnel, health.timeout),
		RANGE(10, 10000),
		.fallback = "250",
		.meaning = "Milliseconds after which an attempt has failed; more than the round "
			   "trip."},
	{.name = "retries",
		.type = SETTING_INTEGER,
		.effect = CONFIG_LIVE,
		AT(struct config_tunnel, health.retries),
		RANGE(0, 9),
		.fallback = "2",
		.meaning = "How often a failed attempt of a probe is repeated, at once. The probe "
			   "fails with the last."},
	{.name = "degraded_window",
		.type = SETTING_INTEGER,
		.effect = CONFIG_LIVE,
		AT(struct config_tunnel, health.degraded_window),
		RANGE(1, 3600),
		.fallback = "300",
		.meaning = "Seconds in which failures count for `degraded`."},
	{.name = "degraded_failures",
		.type = SETTING_INTEGER,
		.effect = CONFIG_LIVE,
		AT(struct config_tunnel, health.degraded_failures),
		RANGE(1, 1000),
		.fallback = "2",
		.meaning = "A tunnel is degraded when at least so many probes failed within "
			   "`degraded_window`,"},
	{.name = "degraded_per_mille",
		.type = SETTING_INTEGER,
		.effect = CONFIG_LIVE,
		AT(struct config_tunnel, health.degraded_per_mille),
		RANGE(0, 1000),
		.fallback = "1",
		.meaning = "... and at least so many of a thousand."},
	{.name = "down_window",
		.type = SETTING_INTEGER,
		.effect = CONFIG_LIVE,
		AT(struct config_tunnel, health.down_window),
		RANGE(10, 60000),
		.fallback = "1000",
		.meaning = "Milliseconds. A tunnel is down when all probes that ended within them "
			   "failed,"},
	{.name = "down_failures",
		.type = SETTING_INTEGER,
		.effect = CONFIG_LIVE,
		AT(struct config_tunnel, health.down_failures),
		RANGE(1, 16),
		.fallback = "3",
		.meaning = "... and at least so many. The window is so many intervals long at "
			   "least."},
	{.name = "recovery_successes",
		.type = SETTING_INTEGER,
		.effect = CONFIG_LIVE,
		AT(struct config_tunnel, health.recovery_successes),
		RANGE(1, 64),
		.fallback = "3",
		.meaning = "So many answered probes in succession end `down`."},
	{.name = "recovery_probes",
		.type = SETTING_INTEGER,
		.effect = CONFIG_LIVE,
		AT(struct config_tunnel, health.recovery_probes),
		RANGE(1, 64),
		.fallback = "30",
		.meaning = "A degraded tunnel becomes healthy when of its last so many probes"},
	{.name = "recovery_per_mille",
		.type = SETTING_INTEGER,
		.effect = CONFIG_LIVE,
		AT(struct config_tunnel, health.recovery_per_mille),
		RANGE(1, 1000),
		.fallback = "1",
		.meaning = "... less than so many of a thousand failed,"},
	{.name = "unhealthy_time",
		.type = SETTING_INTEGER,
		.effect = CONFIG_LIVE,
		AT(struct config_tunnel, health.unhealthy_time),
		RANGE(0, 86400),
		.fallback = "300",
		.meaning = "... and it has not been healthy for so many seconds."},
};

static const struct setting tunnel_rows[] = {
	{.name = "name",
		.type = SETTING_NAME,
		.required = true,
		AT(struct config_tunnel, name),
		.meaning = "Name of the tunnel, and of its TUN interface in the kernel."},
	{.name = "if_id",
		.type = SETTING_INTEGER,
		.effect = CONFIG_LIVE,
		AT(struct config_tunnel, if_id),
		RANGE(1, UINT32_MAX),
		.fallback_note = "the tunnel's position in the list, from 1",
		.meaning = "Number by which an IKE daemon names the tunnel: `if_id_in` and "
			   "`if_id_out` of swanctl.conf. No two tunnels have the same."},
	{.name = "gateway_endpoint",
		.type = SETTING_ADDRESS,
		.effect = CONFIG_NEXT_SA,
		.required = true,
		AT(struct config_tunnel, gateway_endpoint),
		.meaning =
			"This gateway's outside address, always: an address of an outside port."},
	{.name = "customer_endpoint",
		.type = SETTING_ADDRESS,
		.effect = CONFIG_NEXT_SA,
		.required = true,
		AT(struct config_tunnel, customer_endpoint),
		.meaning = "The far side's outside address (AWS: \"Outside IP address\")."},
	{.name = "interface_address",
		.type = SETTING_INTERFACE_ADDRESS,
		.effect = CONFIG_LIVE,
		.required = true,
		AT(struct config_tunnel, interface_address),
		.expected = "an address in a /30 or /31 (IPv6: /126 or /127), such as "
			    "\"169.254.244.2/30\"",
		.meaning = "This gateway's address inside the tunnel. The far side has the other "
			   "address of the block."},
	{.name = "far_side",
		.type = SETTING_CHOICE,
		.effect = CONFIG_LIVE,
		AT(struct config_tunnel, far_side),
		.choices = far_sides,
		.fallback = "any",
		.meaning = "What is at the far side. It decides which interface addresses are "
			   "right."},
	{.name = "replay_protection",
		.type = SETTING_BOOLEAN,
		.effect = CONFIG_NEXT_SA,
		AT(struct config_tunnel, replay_protection),
		.fallback = "true",
		.meaning = "Whether packets that arrive twice are refused. Switch it off only for "
			   "a far side that numbers one tunnel's packets on several machines."},
	{.name = "replay_window",
		.type = SETTING_INTEGER,
		.effect = CONFIG_NEXT_SA,
		AT(struct config_tunnel, replay_window),
		RANGE(32, 65536),
		.power_of_two = true,
		.fallback = "4096",
		.meaning = "How many packets late a packet may arrive."},
	{.name = "packets_per_key",
		.type = SETTING_INTEGER,
		.effect = CONFIG_NEXT_SA,
		AT(struct config_tunnel, packets_per_key),
		RANGE(1024, UINT32_MAX),
		.fallback = "4294967295",
		.meaning = "Packets that an outbound SA encrypts at most; then it stops. After 7/8 "
			   "of them it asks to be replaced."},
	{.name = "mtu",
		.type = SETTING_INTEGER,
		.effect = CONFIG_LIVE,
		AT(struct config_tunnel, mtu),
		RANGE(68, 9216),
		.zero = true,
		.fallback = "0",
		.fallback_note = "the largest that fits the outside port",
		.meaning = "Largest inner packet in bytes. At least 1280 with an IPv6 interface "
			   "address."},
	{.name = "udp_encapsulation",
		.type = SETTING_BOOLEAN,
		.effect = CONFIG_LIVE,
		AT(struct config_tunnel, udp_encapsulation),
		.fallback = "true",
		.meaning = "Whether the MTU reckons with UDP encapsulation (NAT-T) where no SA "
			   "says whether it is used: while there is none, and on the tunnel's "
			   "interface in the kernel."},
	{.name = "clear_df",
		.type = SETTING_BOOLEAN,
		.effect = CONFIG_LIVE,
		AT(struct config_tunnel, clear_df),
		.fallback = "false",
		.meaning = "Whether IPv4 packets over the MTU are split before encryption even if "
			   "they have DF. Those without DF always are."},
	{.name = "mss",
		.type = SETTING_INTEGER,
		.effect = CONFIG_LIVE,
		AT(struct config_tunnel, mss),
		RANGE(88, 9176),
		.choices = mss_words,
		.fallback = "auto",
		.meaning = "What the MSS of TCP connections through the tunnel is lowered to, both "
			   "ways. `auto`: the MTU less 40 for IPv4, less 60 for IPv6. `off`: it "
			   "stays."},
	{.name = "df",
		.type = SETTING_CHOICE,
		.effect = CONFIG_NEXT_SA,
		AT(struct config_tunnel, df),
		.choices = df_policies,
		.fallback = "set",
		.meaning = "The outer header's DF bit: always set, always clear, or copied from "
			   "the inner packet."},
	{.name = "dscp",
		.type = SETTING_INTEGER,
		.effect = CONFIG_NEXT_SA,
		AT(struct config_tunnel, dscp),
		RANGE(0, 63),
		.choices = dscp_words,
		.fallback = "copy",
		.meaning = "The outer header's DSCP: copied from the inner packet, or always this "
			   "number. The ECN field is copied in either case."},
	{.name = "ttl",
		.type = SETTING_INTEGER,
		.effect = CONFIG_NEXT_SA,
		AT(struct config_tunnel, ttl),
		RANGE(1, 255),
		.fallback = "64",
		.meaning = "The outer header's TTL, or hop limit over IPv6."},
	{.name = "pmtu",
		.type = SETTING_BOOLEAN,
		.effect = CONFIG_LIVE,
		AT(struct config_tunnel, pmtu),
		.fallback = "true",
		.meaning = "Whether ICMP (\"fragmentation needed\", \"packet too big\") that "
			   "quotes an ESP packet of this tunnel lowers the MTU, for ten minutes."},
	{.name = "pmtu_floor",
		.type = SETTING_INTEGER,
		.effect = CONFIG_LIVE,
		AT(struct config_tunnel, pmtu_floor),
		RANGE(256, 9216),
		.zero = true,
		.fallback = "0",
		.fallback_note = "576, over IPv6 1280",
		.meaning = "ICMP that tells of a smaller MTU of the outer path, in bytes, is "
			   "ignored. Never under 1280 over IPv6."},
	{.name = "tfc",
		.type = SETTING_INTEGER,
		.effect = CONFIG_LIVE,
		AT(struct config_tunnel, tfc),
		RANGE(64, 9216),
		.zero = true,
		.fallback = "0",
		.fallback_note = "off",
		.meaning = "Inner packets of fewer bytes are padded to this size, so that their "
			   "own does not show. At most `mtu`."},
	{.name = "dummy_interval_ms",
		.type = SETTING_INTEGER,
		.effect = CONFIG_LIVE,
		AT(struct config_tunnel, dummy_interval_ms),
		RANGE(10, 3600000),
		.zero = true,
		.fallback = "0",
		.fallback_note = "off",
		.meaning = "So often a dummy packet is sent, which the far side discards."},
	{.name = "nat_keepalive",
		.type = SETTING_INTEGER,
		.effect = CONFIG_LIVE,
		AT(struct config_tunnel, nat_keepalive),
		RANGE(1, 3600),
		.zero = true,
		.fallback = "0",
		.fallback_note = "off",
		.meaning = "Seconds without a packet after which a NAT keepalive is sent, where "
			   "the SA is UDP-encapsulated. strongSwan sends them by itself."},
	{.name = "health",
		.type = SETTING_GROUP,
		.group = &settings_health,
		.fallback_note = "the defaults of its settings",
		.meaning = "Health check of the tunnel."},
};

static const struct setting route_rows[] = {
	{.name = "prefix",
		.type = SETTING_PREFIX,
		.required = true,
		AT(struct config_route, prefix),
		.meaning = "Destinations. The longest prefix wins."},
	{.name = "tunnel",
		.type = SETTING_REFERENCE,
		.expected = "the name of a tunnel",
		.fallback_note = "none",
		.meaning = "Packets go into this tunnel."},
	{.name = "port",
		.type = SETTING_REFERENCE,
		.expected = "the name of a port",
		.fallback_note = "none",
		.meaning = "Packets leave this port in clear. A route has either a tunnel or a "
			   "port."},
	{.name = "next_hop",
		.type = SETTING_ADDRESS,
		AT(struct config_route, next_hop),
		.fallback_note = "the destination itself, connected to the port",
		.meaning = "Router on the port's network. With `port` only."},
	{.name = "priority",
		.type = SETTING_INTEGER,
		.effect = CONFIG_LIVE,
		AT(struct config_route, priority),
		RANGE(0, 1000000000),
		.fallback = "100",
		.meaning = "Among routes of one prefix, the lowest number wins."},
	{.name = "weight",
		.type = SETTING_INTEGER,
		.effect = CONFIG_LIVE,
		AT(struct config_route, weight),
		RANGE(1, 256),
		.fallback = "1",
		.meaning = "Share of the flows among routes of equal priority."},
};

static const struct setting neighbour_rows[] = {
	{.name = "port",
		.type = SETTING_REFERENCE,
		.required = true,
		.expected = "the name of a port",
		.meaning = "Port that the neighbour is on."},
	{.name = "address",
		.type = SETTING_ADDRESS,
		.required = true,
		AT(struct config_neighbour, address),
		.meaning = "Its IP address."},
	{.name = "mac",
		.type = SETTING_MAC,
		.effect = CONFIG_LIVE,
		.required = true,
		AT(struct config_neighbour, mac),
		.meaning = "Its MAC address, which is then never asked for."},
};

static const struct setting root_rows[] = {
	{.name = "gateway",
		.type = SETTING_GROUP,
		.group = &settings_gateway,
		AT(struct config, gateway),
		.fallback_note = "the defaults of its settings",
		.meaning = "The gateway as a whole."},
	{.name = "ports",
		.type = SETTING_LIST,
		.required = true,
		.expected = "a list of 2 to 16 groups: ( { name = ...; }, { name = ...; } )",
		.meaning = "Network devices."},
	{.name = "workers",
		.type = SETTING_GROUP,
		.required = true,
		.group = &settings_workers,
		.meaning = "The cores that move packets."},
	{.name = "tunnels",
		.type = SETTING_LIST,
		.expected = "a list of groups: ( { name = ...; }, { name = ...; } )",
		.fallback_note = "none",
		.meaning = "Tunnels."},
	{.name = "routes",
		.type = SETTING_LIST,
		.expected = "a list of groups: ( { prefix = ...; }, { prefix = ...; } )",
		.fallback_note = "none",
		.meaning = "Routes. The ports' own networks need none."},
	{.name = "neighbours",
		.type = SETTING_LIST,
		.expected = "a list of groups: ( { port = ...; }, { port = ...; } )",
		.fallback_note = "none",
		.meaning = "Neighbours whose MAC address is given instead of asked for."},
};

const struct setting_group settings_root = {GROUP("", root_rows)};
const struct setting_group settings_gateway = {GROUP("gateway", gateway_rows)};
const struct setting_group settings_ports = {
	GROUP("ports", port_rows), .object_size = sizeof(struct config_port)};
const struct setting_group settings_workers = {GROUP("workers", worker_rows)};
const struct setting_group settings_tunnels = {
	GROUP("tunnels", tunnel_rows), .object_size = sizeof(struct config_tunnel)};
const struct setting_group settings_health = {GROUP("tunnels.health", health_rows)};
const struct setting_group settings_routes = {
	GROUP("routes", route_rows), .object_size = sizeof(struct config_route)};
const struct setting_group settings_neighbours = {
	GROUP("neighbours", neighbour_rows), .object_size = sizeof(struct config_neighbour)};

static void describe_group(const struct setting_group *group, FILE *stream)
{
	char expected[SETTING_TEXT];
	fprintf(stream, "### %s\n\n| Setting | Value | Default | Meaning |\n|---|---|---|---|\n",
		group->title[0] != '\0' ? group->title : "The file");
	for (unsigned int i = 0; i < group->count; i++) {
		const struct setting *row = &group->settings[i];
		const char *fallback =
			row->fallback_note != NULL ? row->fallback_note : row->fallback;
		const char *quote = row->fallback_note == NULL && row->fallback != NULL ? "`" : "";
		fprintf(stream, "| `%s` | %s | %s%s%s | %s |\n", row->name,
			settings_expected(row, expected), quote,
			row->required ? "(required)" : fallback, quote, row->meaning);
	}
	fputc('\n', stream);
}

static void effects_write(
	const struct setting_group *group, enum config_effect effect, FILE *stream)
{
	bool any = false;
	for (unsigned int i = 0; i < group->count; i++) {
		if (group->settings[i].effect != effect)
			continue;
		fprintf(stream, "%s`%s`", any ? ", " : "", group->settings[i].name);
		any = true;
	}
	fputs(any ? " |" : "none |", stream);
}

// What can be changed while the gateway runs.
static void describe_effects(const struct setting_group *group, FILE *stream)
{
	fprintf(stream, "| `%s` | ", group->title);
	effects_write(group, CONFIG_LIVE, stream);
	fputc(' ', stream);
	effects_write(group, CONFIG_NEXT_SA, stream);
	fputc('\n', stream);
}

void config_describe(FILE *stream)
{
	static const struct setting_group *const changing[] = {&settings_gateway, &settings_tunnels,
		&settings_health, &settings_routes, &settings_neighbours};
	static const struct setting_group *const groups[] = {&settings_root, &settings_gateway,
		&settings_workers, &settings_ports, &settings_tunnels, &settings_health,
		&settings_routes, &settings_neighbours};
	for (unsigned int i = 0; i < COUNT(groups); i++)
		describe_group(groups[i], stream);
	for (unsigned int i = 0; i < COUNT(changing); i++)
		describe_effects(changing[i], stream);
}
