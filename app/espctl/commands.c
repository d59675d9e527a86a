// SPDX-License-Identifier: BSD-3-Clause
// Copyright (c) 2026 the espgw authors

#include "command.h"

// ---- arguments that several commands share ----

#define DIRECTION                                                                          \
	{                                                                                  \
		.name = "DIRECTION", .kind = ARGUMENT_DIRECTION, .parameter = "direction", \
		.help = "in (the gateway decrypts) or out (it encrypts)"                   \
	}
#define SPI                                                              \
	{                                                                \
		.name = "SPI", .kind = ARGUMENT_SPI, .parameter = "spi", \
		.help = "such as 0xc1234567, or decimal"                 \
	}
#define TUNNEL                                                                                   \
	{                                                                                        \
		.name = "TUNNEL", .parameter = "tunnel", .help = "its name in the configuration" \
	}
#define ONLY_TUNNEL(what)                                                                \
	{                                                                                \
		.name = "--tunnel", .value = "NAME", .parameter = "tunnel", .help = what \
	}
#define WHICH_DESTINATION                                                                \
	{                                                                                \
		.name = "--destination", .value = "ADDRESS", .parameter = "destination", \
		.help = "which SA, when several outbound ones have this SPI"             \
	}
#define LIMIT(when, unit, what)                                                    \
	{                                                                          \
		.name = "--" when "-" unit, .value = "N", .kind = ARGUMENT_NUMBER, \
		.parameter = "lifetime." when "." unit, .help = what               \
	}
#define UDP_ENCAPSULATION(what)                                                          \
	{                                                                                \
		.name = "--udp-encapsulation", .value = "FROM:TO", .kind = ARGUMENT_UDP, \
		.parameter = "udp_encapsulation", .help = what                           \
	}
#define PREFIX                                                                              \
	{                                                                                   \
		.name = "PREFIX", .parameter = "prefix", .help = "such as 192.168.192.0/26" \
	}
#define PORT(what)                                                                   \
	{                                                                            \
		.name = "--port", .value = "NAME", .parameter = "port", .help = what \
	}
#define NEXT_HOP(what)                                                                          \
	{                                                                                       \
		.name = "--next-hop", .value = "ADDRESS", .parameter = "next_hop", .help = what \
	}

// ---- lists ----

static const struct column sa_columns[] = {
	{"TUNNEL", "tunnel", COLUMN_TEXT},
	{"DIR", "direction", COLUMN_TEXT},
	{"SPI", "spi", COLUMN_TEXT},
	{"STATE", "state", COLUMN_TEXT},
	{"CURRENT", "current", COLUMN_YES},
	{"AGE", "age_seconds", COLUMN_AGO},
	{"IDLE", "idle_seconds", COLUMN_AGO},
	{"PACKETS", "packets", COLUMN_COUNT},
	{"BYTES", "bytes", COLUMN_BYTES},
	{0},
};

static const struct column route_columns[] = {
	{"PREFIX", "prefix", COLUMN_TEXT},
	{"KIND", "kind", COLUMN_TEXT},
	{"TO", "tunnel|port", COLUMN_TEXT},
	{"NEXT HOP", "next_hop", COLUMN_TEXT},
	{"ORIGIN", "origin", COLUMN_TEXT},
	{"PRIORITY", "priority", COLUMN_COUNT},
	{"PENALTY", "penalty", COLUMN_COUNT},
	{"WEIGHT", "weight", COLUMN_COUNT},
	{"BEST", "best", COLUMN_YES},
	{0},
};

// ---- the commands ----

const struct command commands[] = {
	{
		.group = "sa",
		.verb = "add",
		.summary = "add a security association (SA)",
		.details =
			"Key and salt come from a key file or from stdin, never from the command "
			"line, where every user of the machine could read them. A key file is "
			"text of two lines,\n\n"
			"    key = <64 hex digits>\n"
			"    salt = <8 hex digits>\n\n"
			"readable by its owner alone; lines that begin with # are comments. "
			"`espctl key generate` makes one. A key serves one direction of one "
			"tunnel, once: the gateway refuses an outbound key that it has ever "
			"seen.",
		.arguments = {TUNNEL, DIRECTION,
			{.name = "SPI",
				.kind = ARGUMENT_SPI,
				.parameter = "spi",
				.help = "in: from `spi reserve` or your choice; out: the far "
					"end's"},
			{.name = "--keys",
				.value = "FILE",
				.required = true,
				.help = "key file, or - for stdin"},
			{.name = "--source",
				.value = "ADDRESS",
				.parameter = "source",
				.help = "outer source; by default the tunnel's, by direction"},
			{.name = "--destination",
				.value = "ADDRESS",
				.parameter = "destination",
				.help = "outer destination; likewise"},
			{.name = "--esn",
				.kind = ARGUMENT_FLAG,
				.parameter = "esn",
				.help = "64-bit sequence numbers"},
			{.name = "--replay-window",
				.value = "N",
				.kind = ARGUMENT_NUMBER,
				.parameter = "replay_window",
				.help = "in: packets, 0 = no check; by default the tunnel's"},
			UDP_ENCAPSULATION("UDP ports, such as 4500:4500; by default plain ESP"),
			LIMIT("soft", "seconds", "soft limit: an event asks for a new SA"),
			LIMIT("soft", "bytes", "the same by inner bytes"),
			LIMIT("soft", "packets", "the same by packets"),
			LIMIT("hard", "seconds", "hard limit: the SA stops"),
			LIMIT("hard", "bytes", "the same by inner bytes"),
			LIMIT("hard", "packets", "the same by packets"),
			{.name = "--selector",
				.value = "LOCAL=REMOTE[,PROTOCOL[,PORTS=PORTS]]",
				.kind = ARGUMENT_SELECTOR,
				.parameter = "selectors",
				.help = "inner packets that the SA is for; may be repeated"}},
		.connects_itself = true, // not before the keys are read
		.run = run_sa_add,
		.examples = "  espctl sa add tunnel01 out 0x0e000001 --keys out.key\n"
			    "  gpg --decrypt in.key.gpg | espctl sa add tunnel01 in 0xc1234567 "
			    "--keys - \\\n"
			    "      --hard-seconds 3600 --udp-encapsulation 4500:4500\n",
	},
	{
		.group = "sa",
		.verb = "delete",
		.method = "sa.delete",
		.summary = "delete an SA at once",
		.arguments = {DIRECTION, SPI, WHICH_DESTINATION},
		.print = print_sa_id,
		.examples = "  espctl sa delete in 0xc1234567\n",
	},
	{
		.group = "sa",
		.verb = "list",
		.method = "sa.list",
		.summary = "list the SAs, oldest first",
		.arguments = {ONLY_TUNNEL("only those of this tunnel"),
			{.name = "--limit",
				.value = "N",
				.kind = ARGUMENT_NUMBER,
				.help = "show N at most"}},
		.member = "sas",
		.pages = true,
		.columns = sa_columns,
		.examples =
			"  espctl sa list\n"
			"  espctl sa list --tunnel tunnel01\n"
			"  espctl --json sa list | jq '.sas[] | select(.state != \"active\")'\n",
	},
	{
		.group = "sa",
		.verb = "show",
		.method = "sa.show",
		.summary = "show all about an SA (never its key)",
		.arguments = {DIRECTION, SPI, WHICH_DESTINATION},
		.member = "sa",
		.examples = "  espctl sa show out 0x0e000001\n",
	},
	{
		.group = "sa",
		.verb = "update",
		.method = "sa.update",
		.summary = "change the outer addresses or UDP ports of an SA",
		.arguments = {DIRECTION, SPI, WHICH_DESTINATION,
			{.name = "--source",
				.value = "ADDRESS",
				.parameter = "source",
				.help = "the new source address"},
			{.name = "--new-destination",
				.value = "ADDRESS",
				.parameter = "new_destination",
				.help = "the new destination address"},
			UDP_ENCAPSULATION("the new UDP ports; none = plain ESP from now on")},
		.print = print_sa_id,
		.examples = "  espctl sa update out 0x0e000001 --new-destination 198.51.100.99 \\\n"
			    "      --udp-encapsulation 4500:61000\n",
	},
	{
		.group = "sa",
		.verb = "flush",
		.method = "sa.flush",
		.summary = "delete all SAs of a tunnel, or of the gateway",
		.arguments = {ONLY_TUNNEL("of this tunnel"),
			{.name = "--all", .kind = ARGUMENT_FLAG, .help = "of all tunnels"}},
		.either = {"--tunnel", "--all"},
		.print = print_flushed,
		.examples = "  espctl sa flush --tunnel tunnel01\n"
			    "  espctl sa flush --all\n",
	},
	{
		.group = "spi",
		.verb = "reserve",
		.method = "spi.reserve",
		.summary = "let the gateway choose SPIs for inbound SAs",
		.details = "Prints one SPI a line. They stay reserved for 60 seconds, unless an SA "
			   "is added with them.",
		.arguments = {TUNNEL, {.name = "--count",
					      .value = "N",
					      .kind = ARGUMENT_NUMBER,
					      .parameter = "count",
					      .help = "how many, 1 to 256; by default 1"}},
		.print = print_spis,
		.examples = "  spi=$(espctl spi reserve tunnel01)\n",
	},
	{
		.group = "spi",
		.verb = "release",
		.method = "spi.release",
		.summary = "give a reserved SPI back",
		.arguments = {SPI},
		.print = print_nothing,
		.examples = "  espctl spi release 0xc1234567\n",
	},
	{
		.group = "tunnel",
		.verb = "list",
		.method = "tunnel.list",
		.summary = "list the tunnels with their SAs and traffic",
		.details = "Two lines a tunnel. The first begins with its name and ends with what "
			   "goes out; the second begins with the address of its interface and ends "
			   "with what comes in. REKEY IN and EXPIRES IN tell when the first of the "
			   "two SAs in use reaches its soft and its hard limit in seconds. SA AGE "
			   "counts from when the agent gave the SA. LAST: since the last packet. "
			   "STATE: up has an SA in each direction, half in one of them, down in "
			   "none. The table has up to 132 columns.",
		.arguments = {{.name = "--name",
				      .value = "PATTERN",
				      .parameter = "name",
				      .help = "only those whose name matches, such as 'site1*'"},
			{.name = "--state",
				.value = "STATE",
				.parameter = "state",
				.help = "only those that are up, half or down"},
			{.name = "--sort",
				.value = "BY",
				.help = "drops, out or in (bytes), the most first; or name"},
			{.name = "--limit",
				.value = "N",
				.kind = ARGUMENT_NUMBER,
				.help = "show N at most"}},
		.member = "tunnels",
		.pages = true,
		.print = print_tunnels,
		.examples = "  espctl tunnel list\n"
			    "  espctl tunnel list --name 'site1*' --state down\n"
			    "  espctl tunnel list --sort drops --limit 10\n",
	},
	{
		.group = "tunnel",
		.verb = "show",
		.method = "tunnel.show",
		.summary = "show all about a tunnel",
		.arguments = {TUNNEL},
		.member = "tunnel",
		.examples = "  espctl tunnel show tunnel01\n",
	},
	{
		.group = "route",
		.verb = "list",
		.method = "route.list",
		.summary = "list the routes by prefix",
		.arguments = {{.name = "--prefix",
				      .value = "PREFIX",
				      .parameter = "prefix",
				      .help = "only prefixes within this one"},
			ONLY_TUNNEL("only routes into this tunnel"),
			{.name = "--limit",
				.value = "N",
				.kind = ARGUMENT_NUMBER,
				.help = "show N at most"}},
		.member = "routes",
		.pages = true,
		.columns = route_columns,
		.examples = "  espctl route list\n"
			    "  espctl route list --prefix 10.0.0.0/8 --tunnel tunnel01\n",
	},
	{
		.group = "route",
		.verb = "add",
		.method = "route.add",
		.summary = "route a prefix to a tunnel or to a port",
		.details =
			"The longest prefix wins, then the lowest priority; routes of equal "
			"priority share the flows by weight. Such a route is gone after a restart; "
			"permanent ones belong into the configuration.",
		.arguments = {PREFIX,
			{.name = "--tunnel",
				.value = "NAME",
				.parameter = "tunnel",
				.help = "send through this tunnel"},
			PORT("send from this port"),
			NEXT_HOP("with --port: the next router; without: deliver on the port's "
				 "network"),
			{.name = "--priority",
				.value = "N",
				.kind = ARGUMENT_NUMBER,
				.parameter = "priority",
				.help = "lower is better; by default 100"},
			{.name = "--weight",
				.value = "N",
				.kind = ARGUMENT_NUMBER,
				.parameter = "weight",
				.help = "1 to 256; by default 1: share of the flows"}},
		.either = {"--tunnel", "--port"},
		.print = print_nothing,
		.examples = "  espctl route add 192.168.192.0/26 --tunnel tunnel01 --priority 100\n"
			    "  espctl route add 10.20.0.0/16 --port lan --next-hop 10.0.0.254\n",
	},
	{
		.group = "route",
		.verb = "delete",
		.method = "route.delete",
		.summary = "delete a route that `route add` made",
		.arguments = {PREFIX,
			{.name = "--tunnel",
				.value = "NAME",
				.parameter = "tunnel",
				.help = "the route to this tunnel"},
			PORT("the route out of this port"),
			NEXT_HOP("with --port: its next router; without: the route that delivers "
				 "on the port's network")},
		.either = {"--tunnel", "--port"},
		.print = print_nothing,
		.examples = "  espctl route delete 192.168.192.0/26 --tunnel tunnel01\n"
			    "  espctl route delete 10.20.0.0/16 --port lan --next-hop 10.0.0.254\n",
	},
	{
		.group = "port",
		.verb = "list",
		.method = "port.list",
		.summary = "list the ports with their link and counters",
		.arguments = {{.name = "--queues",
			.kind = ARGUMENT_FLAG,
			.help = "also what each worker received and sent"}},
		.member = "ports",
		.print = print_ports,
		.examples = "  espctl port list\n"
			    "  espctl port list --queues\n",
	},
	{
		.group = "stats",
		.method = "stats",
		.summary = "show what became of every packet, and how busy the workers are",
		.details =
			"Packets are counted where they entered: at a port, from the host's kernel "
			"(tap, tun), or made by the gateway. Each line balances: received = "
			"forwarded + to host + dropped + held.\n"
			"\n"
			"With --stages it shows where the workers' cycles go instead. Each cycle "
			"is in one stage, and the bar shows the stage's share of the time:\n"
			"  idle         looking at queues that hold nothing\n"
			"  receive      the driver hands over packets\n"
			"  classify     check of the Ethernet and IP headers\n"
			"  decapsulate  ESP that came in, but for the cipher\n"
			"  decrypt      its AES-256-GCM\n"
			"  forward      route lookup, TTL\n"
			"  encapsulate  ESP that goes out, but for the cipher\n"
			"  encrypt      its AES-256-GCM\n"
			"  transmit     Ethernet header of the next hop\n"
			"  send         the driver takes over packets\n"
			"  host         packets from and to the host's kernel\n"
			"  drop         buffers of dropped packets are given back\n"
			"The workers count this only while somebody measures. Cycles are those of "
			"the TSC (time stamp counter).",
		.arguments = {{.name = "--stages",
				      .kind = ARGUMENT_FLAG,
				      .help = "measure where the workers' cycles go"},
			{.name = "--seconds",
				.value = "N",
				.kind = ARGUMENT_NUMBER,
				.help = "with --stages: measure so long, 1 to 3600; by default 1"}},
		.run = run_stats,
		.print = print_stats,
		.examples = "  espctl stats\n"
			    "  espctl stats --stages --seconds 10\n",
	},
	{
		.group = "drops",
		.method = "drops",
		.summary = "show why packets were dropped",
		.arguments = {{.name = "--all",
			.kind = ARGUMENT_FLAG,
			.parameter = "all",
			.help = "list the reasons that never occurred, too"}},
		.member = "drops",
		.print = print_drops,
		.examples = "  espctl drops\n",
	},
	{
		.group = "events",
		.method = "events.subscribe",
		.summary = "follow the gateway's events",
		.details = "Runs until it is interrupted, or as long as the options say.",
		.arguments = {{.name = "--event",
				      .value = "NAME",
				      .kind = ARGUMENT_LIST,
				      .help = "only these; may be repeated. sa.soft_expired, "
					      "sa.hard_expired, sa.sequence_exhausted, "
					      "sa.no_record, sa.peer_moved, tunnel.no_sa, "
					      "tunnel.health, tunnel.mtu, spi.unknown, "
					      "port.state, "
					      "config.applied"},
			{.name = "--count",
				.value = "N",
				.kind = ARGUMENT_NUMBER,
				.help = "end after N events"},
			{.name = "--seconds",
				.value = "N",
				.kind = ARGUMENT_NUMBER,
				.help = "end after N seconds"}},
		.run = run_events,
		.examples = "  espctl events\n"
			    "  espctl --json events --event sa.soft_expired --count 1\n",
	},
	{
		.group = "config",
		.verb = "apply",
		.method = "config.apply",
		.summary = "change the running gateway to what a file says",
		.details =
			"The file is checked as at a start, compared with what runs, and the "
			"difference is applied: tunnels, routes, neighbours and most of their "
			"settings, without losing a packet of what stays the same. What needs a "
			"restart (ports, workers, limits) is named, and then nothing is changed; "
			"nor is it when anything fails. Each line of the output is a change: + is "
			"added, - is removed, ~ is changed.\n"
			"\n"
			"The next start reads the gateway's own file: put the changes there, and "
			"use `espctl config reload`.",
		.arguments = {{.name = "FILE", .help = "the new configuration"},
			{.name = "--check",
				.kind = ARGUMENT_FLAG,
				.parameter = "check",
				.help = "only show the difference, and what would be refused"}},
		.connects_itself = true, // not before the file is read
		.run = run_config,
		.examples = "  espctl config apply --check new.conf\n"
			    "  espctl config apply new.conf\n",
	},
	{
		.group = "config",
		.verb = "reload",
		.method = "config.apply",
		.summary = "change the running gateway to what its own file says now",
		.details = "As `espctl config apply` with the file that the gateway was started "
			   "with. SIGHUP does the same, and tells the log what came of it.",
		.arguments = {{.name = "--check",
			.kind = ARGUMENT_FLAG,
			.parameter = "check",
			.help = "only show the difference, and what would be refused"}},
		.connects_itself = true,
		.run = run_config,
		.examples = "  espctl config reload\n",
	},
	{
		.group = "key",
		.verb = "generate",
		.summary = "write a fresh random key file",
		.details =
			"For gateways that are set up by hand, and for trials: an IKE daemon makes "
			"its own. The file has mode 0600 and must not exist yet. Make one for "
			"each direction of each tunnel, and take it to both ends by a safe way.",
		.arguments = {{.name = "FILE", .help = "the file to write"}},
		.connects_itself = true,
		.run = run_key_generate,
		.examples = "  espctl key generate a-to-b.key\n"
			    "  espctl sa add tunnel01 out 0x0e000001 --keys a-to-b.key   # at a\n"
			    "  espctl sa add tunnel01 in 0x0e000001 --keys a-to-b.key    # at b\n",
	},
	{
		.group = "hello",
		.summary = "ask who the gateway is, and whether it was restarted (epoch)",
		.run = run_hello,
		.examples = "  espctl hello\n",
	},
	{
		.group = "version",
		.summary = "print the version of espctl",
		.connects_itself = true,
		.run = run_version,
		.examples = "  espctl version\n",
	},
	{0},
};
