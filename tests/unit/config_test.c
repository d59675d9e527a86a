// SPDX-License-Identifier: BSD-3-Clause
// Copyright (c) 2026 the espgw authors

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "config/config.h"

// A right file, whose lines the tests change one at a time. Line numbers matter.
static const char base[] =
	"gateway = { name = \"gw\"; };\n"                                                 // 1
	"workers = { cores = [ 0 ]; };\n"                                                 // 2
	"ports = (\n"                                                                     // 3
	"  { name = \"inside\"; device = \"net_null0\"; side = \"inside\";\n"             // 4
	"    addresses = [ \"10.1.0.1/24\", \"fd10::1/64\" ]; },\n"                       // 5
	"  { name = \"outside\"; device = \"0000:3b:00.1\"; side = \"outside\";\n"        // 6
	"    addresses = [ \"192.0.2.1/24\", \"2001:db8::1/64\" ]; }\n"                   // 7
	");\n"                                                                            // 8
	"tunnels = (\n"                                                                   // 9
	"  { name = \"tunnel01\";\n"                                                      // 10
	"    gateway_endpoint = \"192.0.2.1\";\n"                                         // 11
	"    customer_endpoint = \"198.51.100.1\";\n"                                     // 12
	"    interface_address = \"169.254.244.2/30\"; },\n"                              // 13
	"  { name = \"tunnel02\";\n"                                                      // 14
	"    gateway_endpoint = \"2001:db8::1\";\n"                                       // 15
	"    customer_endpoint = \"2001:db8:1::1\";\n"                                    // 16
	"    interface_address = \"fd00::2/126\"; }\n"                                    // 17
	");\n"                                                                            // 18
	"routes = (\n"                                                                    // 19
	"  { prefix = \"192.168.192.0/26\"; tunnel = \"tunnel01\"; },\n"                  // 20
	"  { prefix = \"0.0.0.0/0\"; port = \"outside\"; next_hop = \"192.0.2.254\"; }\n" // 21
	");\n"                                                                            // 22
	"neighbours = (\n"                                                                // 23
	"  { port = \"inside\"; address = \"10.1.0.2\"; mac = \"02:00:00:00:00:02\"; }\n" // 24
	");\n";                                                                           // 25

// Parses text; *errors is what was written, which the caller frees.
static struct config *parse(const char *text, char **errors)
{
	size_t size;
	FILE *stream = open_memstream(errors, &size);
	assert_non_null(stream);
	struct config *config = config_parse(text, "t.conf", stream);
	fclose(stream);
	return config;
}

// The base with the first `from` replaced by `to`. The caller frees it.
static char *edited(const char *text, const char *from, const char *to)
{
	const char *at = strstr(text, from);
	if (at == NULL)
		fail_msg("the text has no %s", from);
	size_t before = (size_t)(at - text), size = strlen(text) + strlen(to) + 1;
	char *result = malloc(size);
	assert_non_null(result);
	snprintf(result, size, "%.*s%s%s", (int)before, text, to, at + strlen(from));
	return result;
}

static void expect_errors(const char *text, const char *expected)
{
	char *errors;
	struct config *config = parse(text, &errors);
	if (strcmp(errors, expected) != 0)
		fail_msg("expected:\n%sgot:\n%s", expected, errors);
	assert_true((config == NULL) == (expected[0] != '\0'));
	config_free(config);
	free(errors);
}

struct error_case {
	const char *from, *to, *expected; // expected: all errors, without "t.conf:"
};

static void expect_cases(const struct error_case *cases, size_t count)
{
	for (size_t i = 0; i < count; i++) {
		char *text = edited(base, cases[i].from, cases[i].to), *expected;
		assert_true(asprintf(&expected, "t.conf:%s\n", cases[i].expected) > 0);
		expect_errors(text, expected);
		free(expected);
		free(text);
	}
}

#define EXPECT_CASES(cases) expect_cases(cases, sizeof(cases) / sizeof((cases)[0]))

static struct config *right(const char *text)
{
	char *errors;
	struct config *config = parse(text, &errors);
	if (config == NULL)
		fail_msg("%s", errors);
	assert_string_equal(errors, "");
	free(errors);
	return config;
}

static struct config *right_edited(const char *from, const char *to)
{
	char *text = edited(base, from, to);
	struct config *config = right(text);
	free(text);
	return config;
}

static void assert_address(const struct packet_address *address, const char *expected)
{
	char text[PACKET_ADDRESS_TEXT];
	assert_string_equal(packet_address_format(address, text), expected);
}

static void test_defaults(void **state)
{
	(void)state;
	struct config *config = right_edited("gateway = { name = \"gw\"; };", "");
	const struct config_gateway *gateway = &config->gateway;
	assert_string_equal(gateway->name, "espgw");
	assert_string_equal(gateway->control_socket, "/run/espgw/control.sock");
	assert_int_equal(gateway->control_socket_mode, 0600);
	assert_string_equal(gateway->run_directory, "/run/espgw");
	assert_string_equal(gateway->state_directory, "/var/lib/espgw");
	assert_int_equal(gateway->log_level, CONFIG_LOG_INFO);
	assert_true(gateway->hugepages);
	assert_int_equal(gateway->memory_mb, 512);
	assert_int_equal(gateway->max_sas, 1024);
	assert_int_equal(gateway->max_tunnels, 0);
	assert_int_equal(gateway->max_routes, 4096);
	assert_int_equal(gateway->max_neighbours, 1024);
	assert_int_equal(gateway->max_clients, 64);
	assert_int_equal(gateway->host_rate, 10000);
	assert_int_equal(gateway->reassembly_packets, 256);
	assert_int_equal(gateway->reassembly_timeout_ms, 2000);
	assert_int_equal(gateway->buffers, 0);
	assert_int_equal(gateway->buffer_size, 0);
	assert_int_equal(config->control_core, -1);
	assert_int_equal(config->worker_priority, CONFIG_PRIORITY_NORMAL);
	assert_int_equal(config->crypto, CONFIG_CRYPTO_AUTO);
	assert_int_equal(config->burst, 32);
	assert_int_equal(config->port_count, 2);
	const struct config_port *port = &config->ports[1];
	assert_int_equal(port->mtu, 1500);
	assert_int_equal(port->rx_queues, 1);
	assert_int_equal(port->tx_queues, 1);
	assert_int_equal(port->rx_descriptors, 1024);
	assert_int_equal(port->tx_descriptors, 1024);
	assert_false(port->has_mac);
	const struct config_tunnel *tunnel = &config->tunnels[0];
	assert_int_equal(tunnel->if_id, 1);
	assert_int_equal(config->tunnels[1].if_id, 2);
	assert_int_equal(tunnel->far_side, CONFIG_FAR_SIDE_ANY);
	assert_true(tunnel->replay_protection);
	assert_int_equal(tunnel->replay_window, 4096);
	assert_int_equal(tunnel->packets_per_key, UINT32_MAX);
	assert_true(tunnel->pmtu);
	assert_int_equal(tunnel->pmtu_floor, 0);
	assert_true(tunnel->udp_encapsulation);
	assert_int_equal(tunnel->df, CONFIG_DF_SET);
	assert_int_equal(tunnel->dscp, CONFIG_DSCP_COPY);
	assert_int_equal(tunnel->ttl, 64);
	assert_true(tunnel->health.enabled);
	assert_int_equal(tunnel->health.type, CONFIG_HEALTH_REQUEST);
	assert_int_equal(tunnel->health.direction, CONFIG_HEALTH_BIDIRECTIONAL);
	assert_int_equal(tunnel->health.rate, 500);
	assert_int_equal(tunnel->health.timeout, 250);
	assert_int_equal(tunnel->health.down_failures, 3);
	assert_int_equal(config->routes[0].priority, 100);
	assert_int_equal(config->routes[0].weight, 1);
	config_free(config);
}

static void test_values_arrive(void **state)
{
	(void)state;
	struct config *config = right(base);
	assert_string_equal(config->gateway.name, "gw");
	assert_int_equal(config->worker_count, 1);
	assert_int_equal(config->workers[0].core, 0);
	assert_int_equal(config->workers[0].queues[0], 1);
	assert_int_equal(config->workers[0].queues[1], 1);
	assert_int_equal(config->ports[0].line, 4);
	assert_int_equal(config->ports[0].side, CONFIG_SIDE_INSIDE);
	assert_int_equal(config->ports[1].side, CONFIG_SIDE_OUTSIDE);
	assert_string_equal(config->ports[1].device, "0000:3b:00.1");
	assert_int_equal(config->ports[0].address_count, 2);
	assert_address(&config->ports[0].addresses[1].address, "fd10::1");
	assert_int_equal(config->ports[0].addresses[1].length, 64);
	assert_int_equal(config->tunnel_count, 2);
	assert_string_equal(config->tunnels[1].name, "tunnel02");
	assert_int_equal(config->tunnels[1].line, 14);
	assert_address(&config->tunnels[0].gateway_endpoint, "192.0.2.1");
	assert_address(&config->tunnels[0].customer_endpoint, "198.51.100.1");
	assert_address(&config->tunnels[0].interface_address.address, "169.254.244.2");
	assert_address(&config->tunnels[0].peer_address, "169.254.244.1");
	assert_address(&config->tunnels[0].health.target, "169.254.244.1");
	assert_address(&config->tunnels[1].peer_address, "fd00::1");
	assert_int_equal(config->route_count, 2);
	assert_int_equal(config->routes[0].tunnel, 0);
	assert_int_equal(config->routes[0].port, -1);
	assert_int_equal(config->routes[0].prefix.length, 26);
	assert_int_equal(config->routes[1].tunnel, -1);
	assert_int_equal(config->routes[1].port, 1);
	assert_int_equal(config->routes[1].line, 21);
	assert_address(&config->routes[1].next_hop, "192.0.2.254");
	assert_int_equal(config->neighbour_count, 1);
	assert_int_equal(config->neighbours[0].port, 0);
	assert_address(&config->neighbours[0].address, "10.1.0.2");
	assert_int_equal(config->neighbours[0].mac.addr_bytes[5], 2);
	config_free(config);
	config_free(NULL);
}

static void test_the_peer_is_the_other_address_of_the_block(void **state)
{
	(void)state;
	static const char *const cases[][2] = {
		{"10.9.0.1/30", "10.9.0.2"},
		{"10.9.0.2/30", "10.9.0.1"},
		{"10.9.0.0/31", "10.9.0.1"},
		{"10.9.0.255/31", "10.9.0.254"},
		{"fd01::1/126", "fd01::2"},
		{"fd01::/127", "fd01::1"},
		{"fd01::f/127", "fd01::e"},
	};
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct config *config = right_edited("169.254.244.2/30", cases[i][0]);
		assert_address(&config->tunnels[0].peer_address, cases[i][1]);
		config_free(config);
	}
}

static void test_the_mtu_is_the_largest_that_fits(void **state)
{
	(void)state;
	static const struct {
		const char *port, *tunnel;
		uint32_t first, second; // outer IPv4, outer IPv6
	} cases[] = {
		// facts: 1446 in ESP, 1438 in UDP over IPv4 and 1500 bytes.
		{"", "udp_encapsulation = false;", 1446, 1418},
		{"", "udp_encapsulation = true;", 1438, 1418},
		{"", "mtu = 0;", 1438, 1418},
		{"", "mtu = 1000;", 1000, 1418},
		{"", "mtu = 1438;", 1438, 1418},
		{"mtu = 1501;", "", 1438, 1418},
		{"mtu = 1503;", "", 1438, 1418},
		{"mtu = 1504;", "", 1442, 1422},
		{"mtu = 9000;", "", 8938, 8918},
	};
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		char port[80], tunnel[80];
		snprintf(port, sizeof(port), "%s addresses = [ \"192", cases[i].port);
		snprintf(tunnel, sizeof(tunnel), "%s gateway_endpoint", cases[i].tunnel);
		char *with_port = edited(base, "addresses = [ \"192", port);
		char *text = edited(with_port, "gateway_endpoint", tunnel);
		struct config *config = right(text);
		assert_int_equal(config->tunnels[0].mtu, cases[i].first);
		assert_int_equal(config->tunnels[1].mtu, cases[i].second);
		config_free(config);
		free(with_port);
		free(text);
	}
}

static void test_mss_is_a_word_or_a_number(void **state)
{
	(void)state;
	static const struct {
		const char *text;
		uint32_t mss;
	} cases[] = {{"", CONFIG_MSS_AUTO}, {"mss = \"auto\";", CONFIG_MSS_AUTO},
		{"mss = \"off\";", CONFIG_MSS_OFF}, {"mss = 1360;", 1360}, {"mss = 88;", 88}};
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		char tunnel[80];
		snprintf(tunnel, sizeof(tunnel), "%s clear_df = true; gateway_endpoint",
			cases[i].text);
		struct config *config = right_edited("gateway_endpoint", tunnel);
		assert_int_equal(config->tunnels[0].mss, cases[i].mss);
		assert_true(config->tunnels[0].clear_df);
		assert_int_equal(config->tunnels[1].mss, CONFIG_MSS_AUTO);
		assert_false(config->tunnels[1].clear_df);
		config_free(config);
	}
}

// The SA in use decides, unless the file has an MTU.
static void test_the_mtu_of_an_sa(void **state)
{
	(void)state;
	struct config_tunnel tunnel = {.mtu = 1438, .mtu_is_computed = true, .outer_mtu = 1500};
	assert_int_equal(config_tunnel_mtu(&tunnel, 4, false), 1446);
	assert_int_equal(config_tunnel_mtu(&tunnel, 4, true), 1438);
	assert_int_equal(config_tunnel_mtu(&tunnel, 6, false), 1426);
	assert_int_equal(config_tunnel_mtu(&tunnel, 6, true), 1418);
	tunnel.mtu_is_computed = false;
	assert_int_equal(config_tunnel_mtu(&tunnel, 4, false), 1438);
	struct config *config = right_edited("gateway_endpoint", "mtu = 1300; gateway_endpoint");
	assert_int_equal(config_tunnel_mtu(&config->tunnels[0], 4, false), 1300);
	assert_int_equal(config_tunnel_mtu(&config->tunnels[1], 6, false), 1426);
	config_free(config);
}

// Independent of the formula: build the packet's size up from the inner one.
static void test_the_computed_mtu_fits_and_one_more_does_not(void **state)
{
	(void)state;
	for (uint32_t mtu = 1400; mtu < 1450; mtu++) {
		for (uint32_t udp = 0; udp <= 8; udp += 8) {
			char to[80];
			snprintf(to, sizeof(to), "mtu = %u; addresses = [ \"192", mtu);
			char *with_mtu = edited(base, "addresses = [ \"192", to);
			char *text = edited(with_mtu, "gateway_endpoint",
				udp ? "udp_encapsulation = true; gateway_endpoint"
				    : "udp_encapsulation = false; gateway_endpoint");
			struct config *config = right(text);
			uint32_t inner = config->tunnels[0].mtu;
			for (uint32_t more = 0; more <= 1; more++) {
				uint32_t padded = (inner + more + 2 + 3) / 4 * 4;
				assert_int_equal(20 + udp + 8 + 8 + padded + 16 <= mtu, more == 0);
			}
			config_free(config);
			free(with_mtu);
			free(text);
		}
	}
}

static void test_unknown_missing_and_mistyped_settings(void **state)
{
	(void)state;
	static const struct error_case cases[] = {
		{"customer_endpoint = \"198", "customer_end_point = \"198",
			"10: tunnels[0].customer_endpoint: is missing; write an IPv4 or IPv6 "
			"address such as \"192.0.2.1\"\n"
			"t.conf:12: tunnels[0].customer_end_point = \"198.51.100.1\": unknown "
			"setting; did you mean \"customer_endpoint\"?"},
		{"name = \"gw\"", "MTU = 1",
			"1: gateway.MTU = 1: unknown setting; known here are name, "
			"control_socket, control_socket_mode, run_directory, state_directory, "
			"log_level, hugepages, memory_mb, max_sas, max_tunnels, max_routes, "
			"max_neighbours, max_clients, host_rate, reassembly_packets, "
			"reassembly_timeout_ms, icmp_rate, buffers, buffer_size"},
		{"gateway = {", "gatewy = {",
			"1: gatewy = { ... }: unknown setting; did you mean \"gateway\"?"},
		{"workers = { cores = [ 0 ]; };", "",
			"1: workers: is missing; write a group: { name = value; ... }"},
		{"workers = { cores = [ 0 ]; };", "workers = { };",
			"2: workers.cores: is missing; write 1 to 64 core numbers, such as "
			"[ 2, 3 ]"},
		{"{ name = \"gw\"; }", "( )",
			"1: gateway = ( ): is a list; write a group: { name = value; ... }"},
		{"routes = (", "routes = { }; more = (",
			"19: more = ( ... ): unknown setting; known here are gateway, ports, "
			"workers, tunnels, routes, neighbours\n"
			"t.conf:19: routes = { }: is a group; write a list of groups: "
			"( { prefix = ...; }, { prefix = ...; } )"},
		{"routes = (", "routes = ( 5,",
			"19: routes[0] = 5: is a number; write a group: { name = value; ... }"},
		{"name = \"gw\"", "name = 5",
			"1: gateway.name = 5: is a number; write a name of 1 to 15 of the "
			"characters A-Z a-z 0-9 . _ -"},
		{"name = \"gw\"", "hugepages = \"yes\"",
			"1: gateway.hugepages = \"yes\": is a string; write true or false"},
		{"name = \"gw\"", "max_sas = 1.5",
			"1: gateway.max_sas = 1.5: is a number with a point; write a whole number "
			"from 2 to 1048576"},
		{"name = \"gw\"", "log_level = \"verbose\"",
			"1: gateway.log_level = \"verbose\": is not one of the choices; write "
			"\"error\", \"warning\", \"info\" or \"debug\""},
		{"gateway_endpoint = \"192", "health = 5; gateway_endpoint = \"192",
			"11: tunnels[0].health = 5: is a number; write a group: { name = value; "
			"... }"},
		{"gateway_endpoint = \"192", "health = { typ = \"x\"; }; gateway_endpoint = \"192",
			"11: tunnels[0].health.typ = \"x\": unknown setting; did you mean "
			"\"type\"?"},
		{"addresses = [ \"192.0.2.1/24\", \"2001:db8::1/64\" ];",
			"addresses = [ \"192.0.2.1/24\", \"2001:db8::1/64\" ]; lines = "
			"\"a\\nb\\\"\";",
			"7: ports[1].lines = \"a\\x0ab\\\"\": unknown setting; known "
			"here are name, device, side, addresses, mtu, rx_queues, tx_queues, "
			"rx_descriptors, tx_descriptors, mac, vlan, service_vlan"},
	};
	EXPECT_CASES(cases);
}

static void test_gateway_errors(void **state)
{
	(void)state;
	static const struct error_case cases[] = {
		{"name = \"gw\"", "memory_mb = 255",
			"1: gateway.memory_mb = 255: is too small; write a whole number from 256 "
			"to 1048576"},
		{"name = \"gw\"", "max_clients = 2000",
			"1: gateway.max_clients = 2000: is too large; write a whole number from 1 "
			"to 1024"},
		{"name = \"gw\"", "max_sas = -1",
			"1: gateway.max_sas = -1: is too small; write a whole number from 2 to "
			"1048576"},
		{"name = \"gw\"", "control_socket = \"run/x\"",
			"1: gateway.control_socket = \"run/x\": is not absolute; write a path that "
			"begins with / and has at most 107 bytes"},
		{"name = \"gw\"", "control_socket_mode = 0600",
			"1: gateway.control_socket_mode = 600: is a number; write a file mode in "
			"octal and in quotes, such as \"0660\""},
		{"name = \"gw\"", "control_socket_mode = \"0800\"",
			"1: gateway.control_socket_mode = \"0800\": is no file mode from 0000 to "
			"0777; write a file mode in octal and in quotes, such as \"0660\""},
		{"name = \"gw\"", "control_socket_mode = \"7777\"",
			"1: gateway.control_socket_mode = \"7777\": is no file mode from 0000 to "
			"0777; write a file mode in octal and in quotes, such as \"0660\""},
		{"name = \"gw\"", "buffer_size = 1600",
			"1: gateway.buffer_size = 1600: does not hold a packet of port \"inside\" "
			"(MTU 1500); write at least 1646, or 0 to have it computed\n"
			"t.conf:1: gateway.buffer_size = 1600: does not hold a packet of port "
			"\"outside\" (MTU 1500); write at least 1646, or 0 to have it computed"},
		{"name = \"gw\"", "max_sas = 4294967298",
			"1: 4294967298: is too large; numbers are at most 4294967295"},
		{"name = \"gw\"", "max_sas = 4294967297",
			"1: 4294967297: is too large; numbers are at most 4294967295\n"
			"t.conf:1: gateway.max_sas = 1: is too small; write a whole number from 2 "
			"to 1048576"},
		{"name = \"gw\"", "max_sas = 2147483648",
			"1: 2147483648: has no L at its end, as numbers over 2147483647 must; "
			"write 2147483648L\n"
			"t.conf:1: gateway.max_sas = -2147483648: is too small; write a whole "
			"number from 2 to 1048576"},
		{"name = \"gw\"", "max_sas = 0x100000002L",
			"1: 0x100000002: is too large; numbers are at most 4294967295\n"
			"t.conf:1: gateway.max_sas = 4294967298: is too large; write a whole "
			"number "
			"from 2 to 1048576"},
	};
	EXPECT_CASES(cases);
	struct config *config = right_edited("name = \"gw\"",
		"control_socket_mode = \"0660\"; buffer_size = 1646; log_level = \"debug\"; "
		"hugepages = false; memory_mb = 256; max_sas = 0x10; "
		"/* 99999999999 */ host_rate = 100L; # 99999999999\n"
		"state_directory = \"/99999999999\"");
	assert_int_equal(config->gateway.control_socket_mode, 0660);
	assert_int_equal(config->gateway.buffer_size, 1646);
	assert_int_equal(config->gateway.log_level, CONFIG_LOG_DEBUG);
	assert_int_equal(config->gateway.max_sas, 16);
	assert_int_equal(config->gateway.host_rate, 100);
	assert_false(config->gateway.hugepages);
	config_free(config);
	// VLAN tags take room, too.
	char *small = edited(base, "name = \"gw\"", "name = \"gw\"; buffer_size = 1646");
	char *tagged = edited(small, "side = \"inside\"", "side = \"inside\"; vlan = 5");
	expect_errors(small, "");
	expect_errors(tagged,
		"t.conf:1: gateway.buffer_size = 1646: does not hold a packet of port \"inside\" "
		"(MTU 1500); write at least 1650, or 0 to have it computed\n");
	free(tagged);
	free(small);
}

static void test_a_socket_path_fits_the_kernels_limit(void **state)
{
	(void)state;
	char path[CONFIG_PATH_SIZE + 1], to[200], expected[400];
	memset(path, 'a', sizeof(path));
	path[0] = '/';
	path[CONFIG_PATH_SIZE - 1] = '\0';
	snprintf(to, sizeof(to), "control_socket = \"%s\"", path);
	config_free(right_edited("name = \"gw\"", to));
	path[CONFIG_PATH_SIZE - 1] = 'a';
	path[CONFIG_PATH_SIZE] = '\0';
	snprintf(to, sizeof(to), "control_socket = \"%s\"", path);
	snprintf(expected, sizeof(expected),
		"t.conf:1: gateway.control_socket = \"%.80s...\": has 108 bytes; write a path that "
		"begins with / and has at most 107 bytes\n",
		path);
	char *text = edited(base, "name = \"gw\"", to);
	expect_errors(text, expected);
	free(text);
}

#define NAME_RULE "; write a name of 1 to 15 of the characters A-Z a-z 0-9 . _ -"

static void test_name_errors(void **state)
{
	(void)state;
	static const struct error_case cases[] = {
		{"name = \"tunnel02\"", "name = \"tunnel-number-02\"",
			"14: tunnels[1].name = \"tunnel-number-02\": has 16 characters, more than "
			"an interface's name can have" NAME_RULE},
		{"name = \"tunnel02\"", "name = \"\"",
			"14: tunnels[1].name = \"\": is empty" NAME_RULE},
		{"name = \"tunnel02\"", "name = \"a/b\"",
			"14: tunnels[1].name = \"a/b\": has the character '/'" NAME_RULE},
		{"name = \"tunnel02\"", "name = \"tun%d\"",
			"14: tunnels[1].name = \"tun%d\": has the character '%'" NAME_RULE},
		{"name = \"tunnel02\"", "name = \"a b\"",
			"14: tunnels[1].name = \"a b\": has the character ' '" NAME_RULE},
		{"name = \"tunnel02\"", "name = \"a\\tb\"",
			"14: tunnels[1].name = \"a\\x09b\": has a character that can't be "
			"printed" NAME_RULE},
		{"name = \"tunnel02\"", "name = \"lo\"",
			"14: tunnels[1].name = \"lo\": is reserved by the kernel" NAME_RULE},
		{"name = \"tunnel02\"", "name = \"tunnel01\"",
			"14: tunnels[1].name = \"tunnel01\": the tunnel of line 10 has this name; "
			"write another"},
		{"name = \"tunnel02\"", "name = \"inside\"",
			"14: tunnels[1].name = \"inside\": the port of line 4 has this name, and "
			"both become interfaces of the kernel; write another"},
		{"name = \"outside\"; device", "name = \"inside\"; device",
			"6: ports[1].name = \"inside\": the port of line 4 has this name; write "
			"another\n"
			"t.conf:21: routes[1].port = \"outside\": no such port; did you mean "
			"\"inside\"?"},
	};
	EXPECT_CASES(cases);
	config_free(right_edited("name = \"tunnel02\"", "name = \"tunnel-nr.02_ab\""));
}

#define DEVICE_RULE                                                                    \
	"; write a PCI address such as \"0000:3b:00.0\", or a virtual device such as " \
	"\"net_af_packet0,iface=eth1\""

static void test_port_errors(void **state)
{
	(void)state;
	static const struct error_case cases[] = {
		{"\"net_null0\"", "\"3b:00.1\"",
			"6: ports[1].device = \"0000:3b:00.1\": port \"inside\" has this device; "
			"write another"},
		{"\"net_null0\"", "\"0000:3B:00.1,arg=1\"",
			"6: ports[1].device = \"0000:3b:00.1\": port \"inside\" has this device; "
			"write another"},
		{"\"net_null0\"", "\"eth0\"",
			"4: ports[0].device = \"eth0\": is no device" DEVICE_RULE},
		{"\"net_null0\"", "\"0000:3b:00.8\"",
			"4: ports[0].device = \"0000:3b:00.8\": is no device" DEVICE_RULE},
		{"\"net_null0\"", "\"net_null0, size=64\"",
			"4: ports[0].device = \"net_null0, size=64\": has a space in "
			"it" DEVICE_RULE},
		{"side = \"inside\"", "side = \"in\"",
			"4: ports[0].side = \"in\": is not one of the choices; write \"inside\" or "
			"\"outside\""},
		{"side = \"inside\"", "side = \"outside\"",
			"3: ports = ( ... ): there is no inside port; add one with side = "
			"\"inside\""},
		{"side = \"inside\"", "side = \"inside\"; mtu = 67",
			"4: ports[0].mtu = 67: is too small; write a whole number from 68 to 9216"},
		{"side = \"inside\"", "side = \"inside\"; mtu = 9217",
			"4: ports[0].mtu = 9217: is too large; write a whole number from 68 to "
			"9216"},
		{"side = \"inside\"", "side = \"inside\"; mtu = 1279",
			"4: ports[0].mtu = 1279: is too small for the port's IPv6 address; write "
			"at least 1280"},
		{"side = \"inside\"", "side = \"inside\"; mac = \"01:00:00:00:00:01\"",
			"4: ports[0].mac = \"01:00:00:00:00:01\": is a multicast MAC address (the "
			"first byte is odd); write a MAC address such as \"02:00:00:00:00:01\""},
		{"side = \"inside\"", "side = \"inside\"; vlan = 4095",
			"4: ports[0].vlan = 4095: is too large; write a whole number from 1 to "
			"4094"},
		{"side = \"inside\"", "side = \"inside\"; service_vlan = 7",
			"4: ports[0].service_vlan = 7: is a tag around that of vlan, which is "
			"missing; write vlan = N too, or only that"},
		{"side = \"inside\"", "side = \"inside\"; mac = \"00:00:00:00:00:00\"",
			"4: ports[0].mac = \"00:00:00:00:00:00\": is all zeros; write a MAC "
			"address such as \"02:00:00:00:00:01\""},
		{"side = \"inside\"", "side = \"inside\"; rx_descriptors = 1000",
			"4: ports[0].rx_descriptors = 1000: is no power of two; write a power of "
			"two from 32 to 32768"},
		{"\"10.1.0.1/24\"", "\"10.1.0.1\"",
			"5: ports[0].addresses[0] = \"10.1.0.1\": has no prefix length; write an "
			"address with prefix length such as \"192.0.2.1/24\"\n"
			"t.conf:24: neighbours[0].address = \"10.1.0.2\": is on no network of port "
			"\"inside\"; write an address of one, or add the network to the port's "
			"addresses"},
		{"\"10.1.0.1/24\", \"fd10::1/64\"", "\"10.1.0.1/24\", \"fd10::/64\"",
			"5: ports[0].addresses[1] = \"fd10::/64\": is the network fd10::/64 "
			"itself; write the port's own address in it"},
		{"\"fd10::1/64\"", "\"10.2.0.127/25\"",
			"5: ports[0].addresses[1] = \"10.2.0.127/25\": is the broadcast address of "
			"10.2.0.0/25; write the port's own address in it"},
		{"\"fd10::1/64\"", "\"224.0.0.1/24\"",
			"5: ports[0].addresses[1] = \"224.0.0.1/24\": is a multicast address; "
			"write an address with prefix length such as \"192.0.2.1/24\""},
		{"\"fd10::1/64\"", "\"10.1.0.1/16\"",
			"5: ports[0].addresses[1] = \"10.1.0.1/16\": port \"inside\" has this "
			"address already; write another"},
		{"\"2001:db8::1/64\"", "\"2001:db8::1/64\", \"10.1.0.9/24\"",
			"7: ports[1].addresses[2] = \"10.1.0.9/24\": port \"inside\" is on this "
			"network too; give each port a network of its own"},
		{"[ \"10.1.0.1/24\", \"fd10::1/64\" ]", "\"10.1.0.1/24\"",
			"5: ports[0].addresses = \"10.1.0.1/24\": is a string; write an array: "
			"[ ..., ... ]\n"
			"t.conf:24: neighbours[0].address = \"10.1.0.2\": port \"inside\" has no "
			"addresses; give it one on the network of this one"},
	};
	EXPECT_CASES(cases);
}

static void test_two_ports_on_one_interface(void **state)
{
	(void)state;
	char *one = edited(base, "net_null0", "net_af_packet0,iface=eth0,qpairs=1");
	char *text = edited(one, "0000:3b:00.1", "net_af_packet1,iface=eth0");
	expect_errors(text, "t.conf:6: ports[1].device = \"net_af_packet1,iface=eth0\": port "
			    "\"inside\" has this "
			    "device; write another\n");
	free(text);
	text = edited(one, "0000:3b:00.1", "net_af_packet1,iface=eth01");
	config_free(right(text));
	free(text);
	free(one);
}

static void test_too_many_ports(void **state)
{
	(void)state;
	char *text = strdup(base);
	for (unsigned int i = 0; i < CONFIG_PORTS - 1; i++) {
		char to[120];
		snprintf(to, sizeof(to),
			"]; },\n{ name = \"p%u\"; device = \"net_null1%u\"; side = \"inside\"; "
			"addresses = [ ]; }\n);\ntunnels",
			i, i);
		char *more = edited(text, "]; }\n);\ntunnels", to);
		free(text);
		text = more;
	}
	expect_errors(
		text, "t.conf:3: ports = ( ... ): has 17 elements; at most 16 are supported\n");
	free(text);
}

static void test_worker_errors(void **state)
{
	(void)state;
	char core[160];
	long cores = sysconf(_SC_NPROCESSORS_CONF);
	const char *name = "workers.cores[1] = ";
	snprintf(core, sizeof(core),
		"2: %s999: this machine has no such core; write a number from 0 to %ld", name,
		cores - 1);
	const struct error_case cases[] = {
		{"[ 0 ]", "[ 0, 0 ]",
			"2: workers.cores[1] = 0: is there twice; each worker has a core for "
			"itself, write another"},
		{"[ 0 ]", "[ 0, 999 ]", core},
		{"[ 0 ]", "( 0, \"1\" )",
			"2: workers.cores[1] = \"1\": is no core number; write one such as 2"},
		{"[ 0 ]", "[ ]",
			"2: workers.cores = [ ]: has no core; write at least one, such as [ 2 ]"},
		{"[ 0 ]", "0", "2: workers.cores = 0: is a number; write an array: [ ..., ... ]"},
		{"[ 0 ]", "[ 0 ]; control_core = 0",
			"2: workers.control_core = 0: is a worker's core; write another or leave "
			"the setting out"},
		{"[ 0 ]", "[ 0 ]; burst = 48",
			"2: workers.burst = 48: is no power of two; write 32 or 64"},
		{"[ 0 ]", "[ 0 ]; priority = \"idle\"",
			"2: workers.priority = \"idle\": is not one of the choices; write "
			"\"normal\" or \"low\""},
		{"[ 0 ]", "[ 0 ]; crypto = \"fast\"",
			"2: workers.crypto = \"fast\": is not one of the choices; write "
			"\"auto\", \"ipsec-mb\" or \"burst\""},
		{"side = \"inside\"", "rx_queues = 2; side = \"inside\"",
			"4: ports[0].rx_queues = 2: no worker polls queue 1: by default worker i "
			"polls queue i, and there is 1; write at most 1, or workers.queues"},
	};
	EXPECT_CASES(cases);
}

static void test_too_many_workers(void **state)
{
	(void)state;
	char list[400] = "[ 0";
	for (unsigned int i = 0; i < CONFIG_WORKERS; i++)
		strcat(list, ", 0");
	strcat(list, " ]");
	char *text = edited(base, "[ 0 ]", list), *errors;
	assert_null(parse(text, &errors));
	assert_non_null(strstr(errors,
		"t.conf:2: workers.cores = [ ... ]: has 65 elements; at most 64 are supported\n"));
	free(errors);
	free(text);
}

// On a machine with one core the second is an error of its own, so all lines are not compared.
static void expect_error_line(const char *text, const char *line)
{
	char *errors;
	struct config *config = parse(text, &errors);
	if (strstr(errors, line) == NULL)
		fail_msg("expected:\n%sin:\n%s", line, errors);
	config_free(config);
	free(errors);
}

static void test_queues_of_two_workers(void **state)
{
	(void)state;
	char *two = edited(base, "[ 0 ];", "[ 0, 1 ]; /* more */"), *text;
	if (sysconf(_SC_NPROCESSORS_CONF) > 1) {
		struct config *config = right(two);
		assert_int_equal(config->ports[0].rx_queues, 2);
		assert_int_equal(config->ports[0].tx_queues, 2);
		assert_int_equal(config->workers[1].queues[0], 2);
		assert_int_equal(config->workers[1].queues[1], 2);
		config_free(config);
		text = edited(two, "/* more */",
			"queues = ( [ \"inside:1\", \"inside:0\" ], ( \"outside:0\", \"outside:1\" "
			") );");
		config = right(text);
		assert_int_equal(config->workers[0].queues[0], 3);
		assert_int_equal(config->workers[0].queues[1], 0);
		assert_int_equal(config->workers[1].queues[0], 0);
		assert_int_equal(config->workers[1].queues[1], 3);
		config_free(config);
		free(text);
	}
	text = edited(two, "side = \"inside\"", "tx_queues = 1; side = \"inside\"");
	expect_error_line(text,
		"t.conf:4: ports[0].tx_queues = 1: there are 2 workers, and each sends on a queue "
		"of its own; write at least 2\n");
	free(text);
	static const char *const cases[][2] = {
		{"queues = ( [ \"inside:0\" ] );",
			"t.conf:2: workers.queues = ( ... ): write a list of 2 arrays, one for "
			"each of the cores: ( [ ... ], ... )\n"},
		{"queues = ( [ \"inside:0\", \"inside:1\", \"outside:0\" ], [ ] );",
			"t.conf:2: workers.queues = ( ... ): no worker polls queue 1 of port "
			"\"outside\"; add \"outside:1\"\n"},
		{"queues = ( [ \"inside:0\" ], [ \"inside:0\" ] );",
			"t.conf:2: workers.queues[1][0] = \"inside:0\": worker 0 polls this queue "
			"too; each queue has one worker, write it once\n"},
		{"queues = ( [ \"inside:0\", \"inside:0\" ], [ ] );",
			"t.conf:2: workers.queues[0][1] = \"inside:0\": is there twice; write it "
			"once\n"},
		{"queues = ( [ \"inside:2\" ], [ ] );",
			"t.conf:2: workers.queues[0][0] = \"inside:2\": port \"inside\" has no "
			"such queue; write a number from 0 to 1\n"},
		{"queues = ( [ \"inside:99999999999999999999\" ], [ ] );",
			"t.conf:2: workers.queues[0][0] = \"inside:99999999999999999999\": port "
			"\"inside\" has no such queue; write a number from 0 to 1\n"},
		{"queues = ( [ \"inide:0\" ], [ ] );",
			"t.conf:2: workers.queues[0][0] = \"inide:0\": no such port; write perhaps "
			"inside before the colon\n"},
		{"queues = ( [ \"inside\" ], 5 );",
			"t.conf:2: workers.queues[0][0] = \"inside\": is no queue; write the "
			"port's name, a colon and the queue's number\n"
			"t.conf:2: workers.queues[1] = 5: write an array of queues, such as "
			"[ \"inside:1\" ]\n"},
	};
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		text = edited(two, "/* more */", cases[i][0]);
		expect_error_line(text, cases[i][1]);
		free(text);
	}
	free(two);
}

static void test_endpoint_errors(void **state)
{
	(void)state;
	static const struct error_case cases[] = {
		{"\"198.51.100.1\"", "\"2001:db8:1::2\"",
			"12: tunnels[0].customer_endpoint = \"2001:db8:1::2\": is of another "
			"family than gateway_endpoint; write an IPv4 address"},
		{"gateway_endpoint = \"192.0.2.1\"", "gateway_endpoint = \"192.0.2.2\"",
			"11: tunnels[0].gateway_endpoint = \"192.0.2.2\": is no outside port's "
			"address; write \"192.0.2.1\" or \"2001:db8::1\""},
		{"gateway_endpoint = \"192.0.2.1\"", "gateway_endpoint = \"10.1.0.1\"",
			"11: tunnels[0].gateway_endpoint = \"10.1.0.1\": is an address of the "
			"inside port \"inside\"; write \"192.0.2.1\" or \"2001:db8::1\""},
		{"gateway_endpoint = \"192.0.2.1\"", "gateway_endpoint = \"192.0.2.1/24\"",
			"11: tunnels[0].gateway_endpoint = \"192.0.2.1/24\": has a prefix length; "
			"write \"192.0.2.1\""},
		{"\"198.51.100.1\"", "\"192.0.2.1\"",
			"12: tunnels[0].customer_endpoint = \"192.0.2.1\": is this gateway's own "
			"address (port \"outside\"); write the far side's"},
		{"\"198.51.100.1\"", "\"198.51.100\"",
			"12: tunnels[0].customer_endpoint = \"198.51.100\": is no address; write "
			"an IPv4 or IPv6 address such as \"192.0.2.1\""},
		{"\"198.51.100.1\"", "\"255.255.255.255\"",
			"12: tunnels[0].customer_endpoint = \"255.255.255.255\": is the broadcast "
			"address; write an IPv4 or IPv6 address such as \"192.0.2.1\""},
		{"\"198.51.100.1\"", "\"127.0.0.1\"",
			"12: tunnels[0].customer_endpoint = \"127.0.0.1\": is a loopback address; "
			"write an IPv4 or IPv6 address such as \"192.0.2.1\""},
		{"\"198.51.100.1\"", "\"0.0.0.0\"",
			"12: tunnels[0].customer_endpoint = \"0.0.0.0\": is the unspecified "
			"address; write an IPv4 or IPv6 address such as \"192.0.2.1\""},
	};
	EXPECT_CASES(cases);
}

#define INTERFACE "13: tunnels[0].interface_address = "
#define CLOUDFLARE_RULE                                                                   \
	": is not in 10.0.0.0/8, 172.16.0.0/12, 192.168.0.0/16 or 169.254.240.0/20, and " \
	"Cloudflare takes no other; write an address of them"

static void test_interface_address_errors(void **state)
{
	(void)state;
	static const struct error_case cases[] = {
		{"169.254.244.2/30", "169.254.244.2/29",
			INTERFACE "\"169.254.244.2/29\": is in a /29; write an address in a /30 or "
				  "/31"},
		{"169.254.244.2/30", "169.254.244.2/32",
			INTERFACE "\"169.254.244.2/32\": is in a /32; write an address in a /30 or "
				  "/31"},
		{"169.254.244.2/30", "fd01::1/64",
			INTERFACE "\"fd01::1/64\": is in a /64; write an address in a /126 or "
				  "/127"},
		{"169.254.244.2/30", "169.254.244.4/30",
			INTERFACE "\"169.254.244.4/30\": is the network address of "
				  "169.254.244.4/30; write \"169.254.244.5/30\" or "
				  "\"169.254.244.6/30\""},
		{"169.254.244.2/30", "169.254.244.7/30",
			INTERFACE "\"169.254.244.7/30\": is the broadcast address of "
				  "169.254.244.4/30; write \"169.254.244.5/30\" or "
				  "\"169.254.244.6/30\""},
		{"169.254.244.2/30", "fd01::/126",
			INTERFACE "\"fd01::/126\": is the network address of fd01::/126; write "
				  "\"fd01::1/126\" or \"fd01::2/126\""},
		{"169.254.244.2/30", "169.254.244.2",
			INTERFACE "\"169.254.244.2\": has no prefix length; write an address in a "
				  "/30 or /31 (IPv6: /126 or /127), such as \"169.254.244.2/30\""},
		{"169.254.244.2/30\"", "10.0.0.1/30\"; far_side = \"aws\"",
			INTERFACE "\"10.0.0.1/30\": is not in 169.254.0.0/16, and AWS takes no "
				  "other; write an address of it"},
		{"169.254.244.2/30\"", "2001:db8:9::1/126\"; far_side = \"aws\"",
			INTERFACE "\"2001:db8:9::1/126\": is not in fd00::/8, and AWS takes no "
				  "other; write an address of it"},
		{"169.254.244.2/30\"", "fc00::1/126\"; far_side = \"aws\"",
			INTERFACE "\"fc00::1/126\": is not in fd00::/8, and AWS takes no other; "
				  "write an address of it"},
		{"169.254.244.2/30\"", "169.254.169.254/30\"; far_side = \"aws\"",
			INTERFACE "\"169.254.169.254/30\": is in a block that AWS reserves; write "
				  "one of another /30 of 169.254.0.0/16"},
		{"169.254.244.2/30\"", "169.254.244.2/31\"; far_side = \"aws\"",
			INTERFACE "\"169.254.244.2/31\": is in a /31, and AWS takes a /30 only; "
				  "write that"},
		{"169.254.244.2/30\"", "fd01::2/127\"; far_side = \"aws\"",
			INTERFACE "\"fd01::2/127\": is in a /127, and AWS takes a /126 only; write "
				  "that"},
		{"169.254.244.2/30\"", "169.254.239.253/30\"; far_side = \"cloudflare\"",
			INTERFACE "\"169.254.239.253/30\"" CLOUDFLARE_RULE},
		{"169.254.244.2/30\"", "172.32.0.1/31\"; far_side = \"cloudflare\"",
			INTERFACE "\"172.32.0.1/31\"" CLOUDFLARE_RULE},
		{"\"fd00::2/126\"", "\"169.254.244.1/30\"",
			"17: tunnels[1].interface_address = \"169.254.244.1/30\": tunnel "
			"\"tunnel01\" has the block 169.254.244.0/30 too; write an address of "
			"another block"},
		{"\"fd00::2/126\"", "\"169.254.244.3/31\"",
			"17: tunnels[1].interface_address = \"169.254.244.3/31\": tunnel "
			"\"tunnel01\" has the block 169.254.244.2/31 too; write an address of "
			"another block"},
		{"169.254.244.2/30", "192.0.2.9/30",
			INTERFACE "\"192.0.2.9/30\": the network of port \"outside\" holds the "
				  "block 192.0.2.8/30; write an address of another block"},
		{"gateway_endpoint = \"192",
			"health = { target = \"fd00::1\"; };\n gateway_endpoint = \"192",
			"11: tunnels[0].health.target = \"fd00::1\": is of another family than "
			"interface_address; write an IPv4 address"},
	};
	EXPECT_CASES(cases);
}

#define HEALTH(settings) \
	"gateway_endpoint = \"192", "health = { " settings " };\n gateway_endpoint = \"192"

static void test_health_errors(void **state)
{
	(void)state;
	static const struct error_case cases[] = {
		{HEALTH("rate = \"fast\";"),
			"11: tunnels[0].health.rate = \"fast\": is not one of the choices; write "
			"\"low\", \"mid\" or \"high\", or a whole number of milliseconds from "
			"20 to 60000"},
		{HEALTH("rate = 19;"),
			"11: tunnels[0].health.rate = 19: is too small; write \"low\", \"mid\" "
			"or \"high\", or a whole number of milliseconds from 20 to 60000"},
		{HEALTH("rate = 20; timeout = 674;"),
			"11: tunnels[0].health.timeout = 674: with 2 retries and a probe every 20 "
			"ms, over 100 probes would be under way at once; write at most 666"},
		{HEALTH("direction = \"unidirectional\"; target = \"fd00::1\";"),
			"11: tunnels[0].health.target = \"fd00::1\": is of another family than "
			"gateway_endpoint; write an IPv4 address"},
		{HEALTH("down_failures = 17;"),
			"11: tunnels[0].health.down_failures = 17: is too large; write a whole "
			"number from 1 to 16"},
	};
	EXPECT_CASES(cases);
}

static void test_health_rates_and_targets(void **state)
{
	(void)state;
	static const struct {
		const char *rate;
		unsigned int milliseconds;
	} cases[] = {{"\"low\"", 1000}, {"\"mid\"", 500}, {"\"high\"", 100}, {"75", 75}};
	for (unsigned int i = 0; i < 4; i++) {
		char settings[160];
		snprintf(settings, sizeof(settings),
			"health = { direction = \"unidirectional\"; rate = %s; }; "
			"gateway_endpoint = \"192",
			cases[i].rate);
		struct config *config = right_edited("gateway_endpoint = \"192", settings);
		assert_int_equal(config->tunnels[0].health.rate, cases[i].milliseconds);
		assert_address(&config->tunnels[0].health.target, "198.51.100.1");
		config_free(config);
	}
}

static void test_far_sides_take_their_blocks(void **state)
{
	(void)state;
	static const char *const reserved[] = {"169.254.0.1", "169.254.1.2", "169.254.2.1",
		"169.254.3.1", "169.254.4.1", "169.254.5.2", "169.254.169.253"};
	for (size_t i = 0; i < sizeof(reserved) / sizeof(reserved[0]); i++) {
		char to[80];
		snprintf(to, sizeof(to), "%s/30\"; far_side = \"aws\"", reserved[i]);
		char *text = edited(base, "169.254.244.2/30\"", to);
		expect_error_line(text, "is in a block that AWS reserves");
		free(text);
	}
	static const char *const good[] = {"169.254.0.5/30\"; far_side = \"aws\"",
		"169.254.6.1/30\"; far_side = \"aws\"", "169.254.255.254/30\"; far_side = \"aws\"",
		"fd12::1/126\"; far_side = \"aws\"",
		"10.255.255.254/31\"; far_side = \"cloudflare\"",
		"172.31.255.253/30\"; far_side = \"cloudflare\"",
		"192.168.0.1/31\"; far_side = \"cloudflare\"",
		"169.254.240.1/30\"; far_side = \"cloudflare\"",
		"169.254.255.254/31\"; far_side = \"cloudflare\"",
		"8.8.8.9/30\"; far_side = \"any\""};
	for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++)
		config_free(right_edited("169.254.244.2/30\"", good[i]));
}

static void test_if_ids(void **state)
{
	(void)state;
	static const char range[] = "a whole number from 1 to 4294967295, with an L at its end "
				    "from 2147483648 on";
	struct config *config = right_edited("gateway_endpoint", "if_id = 7; gateway_endpoint");
	assert_int_equal(config->tunnels[0].if_id, 7);
	assert_int_equal(config->tunnels[1].if_id, 2);
	config_free(config);
	config = right_edited("gateway_endpoint", "if_id = 4294967295L; gateway_endpoint");
	assert_int_equal(config->tunnels[0].if_id, UINT32_MAX);
	config_free(config);
	config = right_edited("gateway_endpoint", "if_id = 0xffffffffL; gateway_endpoint");
	assert_int_equal(config->tunnels[0].if_id, UINT32_MAX);
	config_free(config);
	char too_small[200], too_large[200], text[200];
	snprintf(too_small, sizeof(too_small), "11: tunnels[0].if_id = 0: is too small; write %s",
		range);
	snprintf(too_large, sizeof(too_large),
		"11: 4294967296: is too large; numbers are at most 4294967295\n"
		"t.conf:11: tunnels[0].if_id = 4294967296: is too large; write %s",
		range);
	snprintf(text, sizeof(text), "11: tunnels[0].if_id = \"x\": is a string; write %s", range);
	const struct error_case cases[] = {
		{"gateway_endpoint", "if_id = 0; gateway_endpoint", too_small},
		{"gateway_endpoint", "if_id = 4294967296L; gateway_endpoint", too_large},
		{"gateway_endpoint", "if_id = \"x\"; gateway_endpoint", text},
		// With a default, both ways round.
		{"gateway_endpoint", "if_id = 2; gateway_endpoint",
			"14: tunnels[1].if_id: is 2 by the position in the list, and tunnel "
			"\"tunnel01\" of line 10 has this number; write another"},
		{"gateway_endpoint = \"2001", "if_id = 1; gateway_endpoint = \"2001",
			"15: tunnels[1].if_id = 1: tunnel \"tunnel01\" of line 10 has this number "
			"by its position in the list; write another"},
	};
	EXPECT_CASES(cases);
	char *first = edited(base, "gateway_endpoint", "if_id = 5; gateway_endpoint");
	char *both =
		edited(first, "gateway_endpoint = \"2001", "if_id = 5; gateway_endpoint = \"2001");
	expect_errors(both, "t.conf:15: tunnels[1].if_id = 5: tunnel \"tunnel01\" of line 10 has "
			    "this number; write another\n");
	free(first);
	free(both);
}

static void test_window_and_mtu_errors(void **state)
{
	(void)state;
	static const struct error_case cases[] = {
		{"interface_address = \"169", "replay_window = 1000; interface_address = \"169",
			"13: tunnels[0].replay_window = 1000: is no power of two; write a power of "
			"two from 32 to 65536"},
		{"interface_address = \"169", "replay_window = 16; interface_address = \"169",
			"13: tunnels[0].replay_window = 16: is too small; write a power of two "
			"from 32 to 65536"},
		{"interface_address = \"169", "replay_window = 131072; interface_address = \"169",
			"13: tunnels[0].replay_window = 131072: is too large; write a power of two "
			"from 32 to 65536"},
		{"interface_address = \"169", "replay_window = 0; interface_address = \"169",
			"13: tunnels[0].replay_window = 0: is too small; write a power of two from "
			"32 to 65536"},
		{"interface_address = \"169", "packets_per_key = 1023; interface_address = \"169",
			"13: tunnels[0].packets_per_key = 1023: is too small; write a whole number "
			"from 1024 to 4294967295, with an L at its end from 2147483648 on"},
		{"interface_address = \"169",
			"packets_per_key = 4294967295; interface_address = \"169",
			"13: 4294967295: has no L at its end, as numbers over 2147483647 must; "
			"write 4294967295L\n"
			"t.conf:13: tunnels[0].packets_per_key = -1: is too small; write a whole "
			"number from 1024 to 4294967295, with an L at its end from 2147483648 on"},
		{"interface_address = \"169", "mtu = 67; interface_address = \"169",
			"13: tunnels[0].mtu = 67: is too small; write 0 or a whole number from 68 "
			"to 9216"},
		{"interface_address = \"169", "mtu = 1439; interface_address = \"169",
			"13: tunnels[0].mtu = 1439: port \"outside\" has MTU 1500, which leaves "
			"1438 bytes in ESP in UDP; write at most 1438, or leave the setting out"},
		{"interface_address = \"169",
			"udp_encapsulation = false; mtu = 1447; interface_address = \"169",
			"13: tunnels[0].mtu = 1447: port \"outside\" has MTU 1500, which leaves "
			"1446 bytes in ESP; write at most 1446, or leave the setting out"},
		{"interface_address = \"169", "mss = 87; interface_address = \"169",
			"13: tunnels[0].mss = 87: is too small; write \"auto\", \"off\" or a whole "
			"number from 88 to 9176"},
		{"interface_address = \"169", "mss = \"on\"; interface_address = \"169",
			"13: tunnels[0].mss = \"on\": is not one of the choices; write \"auto\", "
			"\"off\" or a whole number from 88 to 9176"},
		{"interface_address = \"169", "mss = true; interface_address = \"169",
			"13: tunnels[0].mss = true: is a boolean; write \"auto\", \"off\" or a "
			"whole "
			"number from 88 to 9176"},
		{"interface_address = \"fd", "mtu = 1279; interface_address = \"fd",
			"17: tunnels[1].mtu = 1279: is too small for the IPv6 interface_address; "
			"write at least 1280"},
		{"addresses = [ \"192", "mtu = 1300; addresses = [ \"192",
			"14: tunnels[1].mtu: port \"outside\" with MTU 1300 leaves 1218 bytes in "
			"ESP in UDP, and IPv6 needs 1280; give the port a larger MTU"},
		{"interface_address = \"169", "dscp = 64; interface_address = \"169",
			"13: tunnels[0].dscp = 64: is too large; write \"copy\" or a whole number "
			"from 0 to 63"},
		{"interface_address = \"169", "dscp = \"46\"; interface_address = \"169",
			"13: tunnels[0].dscp = \"46\": is not one of the choices; write \"copy\" "
			"or a whole "
			"number from 0 to 63"},
		{"interface_address = \"169", "tfc = 1439; interface_address = \"169",
			"13: tunnels[0].tfc = 1439: is larger than the MTU of the tunnel; write at "
			"most 1438"},
		{"interface_address = \"169", "ttl = 0; interface_address = \"169",
			"13: tunnels[0].ttl = 0: is too small; write a whole number from 1 to 255"},
		// Nothing is left at all: no number below zero.
		{"addresses = [ \"192", "mtu = 82; addresses = [ \"192",
			"7: ports[1].mtu = 82: is too small for the port's IPv6 address; write at "
			"least 1280\n"
			"t.conf:10: tunnels[0].mtu: port \"outside\" with MTU 82 leaves 18 bytes "
			"in "
			"ESP in UDP, and IPv4 needs 68; give the port a larger MTU\n"
			"t.conf:14: tunnels[1].mtu: port \"outside\" with MTU 82 leaves 0 bytes in "
			"ESP in UDP, and IPv6 needs 1280; give the port a larger MTU"},
	};
	EXPECT_CASES(cases);
	struct config *config = right_edited("interface_address = \"169",
		"replay_protection = false; replay_window = 32; df = \"copy\"; interface_address = "
		"\"169");
	assert_false(config->tunnels[0].replay_protection);
	assert_int_equal(config->tunnels[0].replay_window, 32);
	assert_int_equal(config->tunnels[0].df, CONFIG_DF_COPY);
	config_free(config);
	config = right_edited(
		"interface_address = \"169", "dscp = 63; ttl = 255; interface_address = \"169");
	assert_int_equal(config->tunnels[0].dscp, 63);
	assert_int_equal(config->tunnels[0].ttl, 255);
	config_free(config);
	config = right_edited("interface_address = \"169",
		"tfc = 1438; dummy_interval_ms = 10; nat_keepalive = 20; interface_address = "
		"\"169");
	assert_int_equal(config->tunnels[0].tfc, 1438);
	assert_int_equal(config->tunnels[0].dummy_interval_ms, 10);
	assert_int_equal(config->tunnels[0].nat_keepalive, 20);
	config_free(config);
	config = right_edited(
		"interface_address = \"169", "dscp = \"copy\"; interface_address = \"169");
	assert_int_equal(config->tunnels[0].dscp, CONFIG_DSCP_COPY);
	config_free(config);
	config_free(right_edited(
		"interface_address = \"169", "replay_window = 65536; interface_address = \"169"));
}

static void test_route_errors(void **state)
{
	(void)state;
	static const struct error_case cases[] = {
		{"192.168.192.0/26", "192.168.192.1/26",
			"20: routes[0].prefix = \"192.168.192.1/26\": has host bits set; write "
			"\"192.168.192.0/26\""},
		{"192.168.192.0/26", "192.168.192.0",
			"20: routes[0].prefix = \"192.168.192.0\": has no prefix length; for this "
			"address alone write \"192.168.192.0/32\""},
		{"192.168.192.0/26", "192.168.192.0/33",
			"20: routes[0].prefix = \"192.168.192.0/33\": is no prefix; write a prefix "
			"such as \"192.168.192.0/26\""},
		{"192.168.192.0/26", "224.0.0.0/4",
			"20: routes[0].prefix = \"224.0.0.0/4\": is multicast, which is not "
			"routed; write a prefix such as \"192.168.192.0/26\""},
		{"tunnel = \"tunnel01\"", "tunnel = \"tunel01\"",
			"20: routes[0].tunnel = \"tunel01\": no such tunnel; did you mean "
			"\"tunnel01\"?"},
		{"tunnel = \"tunnel01\"", "tunnel = \"aws\"",
			"20: routes[0].tunnel = \"aws\": no such tunnel; there are \"tunnel01\", "
			"\"tunnel02\""},
		{"tunnel = \"tunnel01\"", "tunnel = 1",
			"20: routes[0].tunnel = 1: is a number; write the name of a tunnel"},
		{"port = \"outside\"; next", "port = \"outsde\"; next",
			"21: routes[1].port = \"outsde\": no such port; did you mean \"outside\"?"},
		{"tunnel = \"tunnel01\"", "tunnel = \"tunnel01\"; port = \"inside\"",
			"20: routes[0].port = \"inside\": the route has a tunnel too; write "
			"either, or two routes"},
		{"tunnel = \"tunnel01\";", "",
			"20: routes[0] = { ... }: the route leads nowhere; write tunnel = \"...\" "
			"or port = \"...\""},
		{"tunnel = \"tunnel01\"", "tunnel = \"tunnel01\"; next_hop = \"10.1.0.2\"",
			"20: routes[0].next_hop = \"10.1.0.2\": a route into a tunnel has no next "
			"hop; leave it out"},
		{"\"192.0.2.254\"", "\"2001:db8::2\"",
			"21: routes[1].next_hop = \"2001:db8::2\": is of another family than the "
			"prefix; write an IPv4 address"},
		{"\"192.0.2.254\"", "\"192.0.3.254\"",
			"21: routes[1].next_hop = \"192.0.3.254\": is on no network of port "
			"\"outside\"; write an address of one, or add the network to the port's "
			"addresses"},
		{"\"192.0.2.254\"", "\"192.0.2.1\"",
			"21: routes[1].next_hop = \"192.0.2.1\": is the address of port "
			"\"outside\" itself; write the neighbour's"},
		{"tunnel = \"tunnel01\"", "tunnel = \"tunnel01\"; weight = 257",
			"20: routes[0].weight = 257: is too large; write a whole number from 1 to "
			"256"},
		{"routes = (",
			"routes = ( { prefix = \"192.168.192.0/26\"; tunnel = \"tunnel01\"; },",
			"20: routes[1].prefix = \"192.168.192.0/26\": the route of line 19 has the "
			"same prefix and target; keep one of them"},
	};
	EXPECT_CASES(cases);
	config_free(right_edited("routes = (",
		"routes = ( { prefix = \"192.168.192.0/26\"; tunnel = \"tunnel02\"; },"));
	config_free(right_edited("\"0.0.0.0/0\"; port = \"outside\"; next_hop = \"192.0.2.254\"",
		"\"::/0\"; port = \"outside\"; next_hop = \"fe80::1\""));
}

static void test_neighbour_errors(void **state)
{
	(void)state;
	static const struct error_case cases[] = {
		{"port = \"inside\"; address", "port = \"insid\"; address",
			"24: neighbours[0].port = \"insid\": no such port; did you mean "
			"\"inside\"?"},
		{"\"10.1.0.2\"", "\"10.1.1.2\"",
			"24: neighbours[0].address = \"10.1.1.2\": is on no network of port "
			"\"inside\"; write an address of one, or add the network to the port's "
			"addresses"},
		{"\"10.1.0.2\"", "\"10.1.0.1\"",
			"24: neighbours[0].address = \"10.1.0.1\": is the address of port "
			"\"inside\" itself; write the neighbour's"},
		{"\"02:00:00:00:00:02\"", "\"02:00:00:00:00\"",
			"24: neighbours[0].mac = \"02:00:00:00:00\": is no MAC address; write a "
			"MAC address such as \"02:00:00:00:00:01\""},
		{"mac = \"02:00:00:00:00:02\";", "",
			"24: neighbours[0].mac: is missing; write a MAC address such as "
			"\"02:00:00:00:00:01\""},
		{"neighbours = (",
			"neighbours = ( { port = \"inside\"; address = \"10.1.0.2\"; mac = "
			"\"02:00:00:00:00:03\"; },",
			"24: neighbours[1].address = \"10.1.0.2\": the neighbour of line 23 has "
			"this address; keep one of them"},
	};
	EXPECT_CASES(cases);
}

static void test_syntax_errors(void **state)
{
	(void)state;
	static const struct error_case cases[] = {
		{"cores = [ 0 ];", "cores = [ 0;",
			"2: syntax error; look here and on the lines before for a missing quote, "
			"bracket or \"=\""},
		{"name = \"gw\";", "name = \"gw\"; name = \"gw\";",
			"1: a setting of this name is in this group already; keep one of them"},
		{"[ \"10.1.0.1/24\", ", "[ 5, ",
			"5: the elements of an array [ ... ] must be of one type; write all in "
			"quotes or none"},
		{"gateway", "@include \"other.conf\"\ngateway",
			"1: @include \"other.conf\": files are not included here; write the "
			"settings"},
	};
	EXPECT_CASES(cases);
	expect_errors("", "t.conf:1: ports: is missing; write a list of 2 to 16 groups: ( { name = "
			  "...; }, { name = ...; } )\n"
			  "t.conf:1: workers: is missing; write a group: { name = value; ... }\n");
}

static void test_all_errors_are_shown_by_line(void **state)
{
	(void)state;
	char *one = edited(base, "mac = \"02:00:00:00:00:02\"", "mac = \"02\"");
	char *two = edited(one, "192.168.192.0/26", "192.168.192.7/26");
	char *three = edited(two, "name = \"tunnel01\"", "name = \"tunnel 1\"");
	char *four = edited(three, "[ 0 ]", "[ 0, 0 ]");
	expect_errors(four,
		"t.conf:2: workers.cores[1] = 0: is there twice; each worker has a core for "
		"itself, "
		"write another\n"
		"t.conf:10: tunnels[0].name = \"tunnel 1\": has the character ' '" NAME_RULE "\n"
		"t.conf:20: routes[0].prefix = \"192.168.192.7/26\": has host bits set; write "
		"\"192.168.192.0/26\"\n"
		"t.conf:20: routes[0].tunnel = \"tunnel01\": no such tunnel; did you mean "
		"\"tunnel02\"?\n"
		"t.conf:24: neighbours[0].mac = \"02\": is no MAC address; write a MAC address "
		"such "
		"as \"02:00:00:00:00:01\"\n");
	free(one);
	free(two);
	free(three);
	free(four);
}

// Files, in a directory of their own.
static char directory[] = "/tmp/espgw-config-test-XXXXXX";

static void file_write(const char *name, const char *text)
{
	char path[100];
	snprintf(path, sizeof(path), "%s/%s", directory, name);
	FILE *stream = fopen(path, "w");
	assert_non_null(stream);
	fputs(text, stream);
	fclose(stream);
}

static void file_remove(const char *name)
{
	char path[100];
	snprintf(path, sizeof(path), "%s/%s", directory, name);
	assert_int_equal(remove(path), 0);
}

// Loads a file of the directory; the directory's name is left out of what is compared.
static void expect_load(const char *name, const char *expected)
{
	char path[100], *errors = NULL, *at;
	size_t size;
	snprintf(path, sizeof(path), "%s/%s", directory, name);
	FILE *stream = open_memstream(&errors, &size);
	struct config *config = config_load(path, stream);
	fclose(stream);
	while ((at = strstr(errors, directory)) != NULL) {
		const char *rest = at + strlen(directory);
		rest += *rest == '/';
		memmove(at, rest, strlen(rest) + 1);
	}
	if (strcmp(errors, expected) != 0)
		fail_msg("expected:\n%sgot:\n%s", expected, errors);
	assert_true((config == NULL) == (expected[0] != '\0'));
	config_free(config);
	free(errors);
}

static void test_included_files(void **state)
{
	(void)state;
	assert_non_null(mkdtemp(directory));
	char *main_file =
		edited(base, "gateway = { name = \"gw\"; };", "@include \"gateway.conf\"");
	file_write("main.conf", main_file);
	expect_load("main.conf", "main.conf:1: @include \"gateway.conf\": gateway.conf cannot be "
				 "read: No such file or directory\n");
	file_write("gateway.conf", "\ngateway = { log_level = \"debug\"; };\n");
	expect_load("main.conf", "");
	file_write("gateway.conf", "\ngateway = { max_sas = 99999999999; };\n");
	expect_load("main.conf",
		"gateway.conf:2: 99999999999: is too large; numbers are at most 4294967295\n"
		"gateway.conf:2: gateway.max_sas = 1215752191: is too large; write a whole number "
		"from 2 to 1048576\n");
	file_write("gateway.conf", "\ngateway = { log_leve = \"debug\"; };\n");
	expect_load("main.conf", "gateway.conf:2: gateway.log_leve = \"debug\": unknown setting; "
				 "did you mean \"log_level\"?\n");
	file_write("gateway.conf", "\ngateway = = 5;\n");
	expect_load("main.conf",
		"gateway.conf:2: syntax error; look here and on the lines before for "
		"a missing quote, bracket or \"=\"\n");
	file_remove("gateway.conf");
	file_write("main.conf", "@include \".\"\n");
	expect_load("main.conf", "main.conf:1: @include \".\": . cannot be read: Is a directory\n");
	file_write("main.conf", "\n  @include \"/etc/hostname\"\n");
	expect_load("main.conf", "main.conf:2: @include \"/etc/hostname\": the path is absolute; "
				 "write it relative to \"\"\n");
	free(main_file);
	file_write("loop.conf", "@include \"loop.conf\"\n");
	expect_load("loop.conf", "loop.conf:1: @include \"loop.conf\": more than 10 files include "
				 "each other; does a file include itself?\n");
	file_remove("loop.conf");
	file_remove("main.conf");
	expect_load("none.conf", "none.conf:1: cannot be read: No such file or directory\n");
	rmdir(directory);
}

static char *source_path(const char *name)
{
	const char *vectors = getenv("ESPGW_TEST_DATA");
	char *path;
	assert_true(asprintf(&path, "%s/../../%s", vectors != NULL ? vectors : "tests/vectors",
			    name) > 0);
	return path;
}

static struct config *example(const char *name)
{
	char *path = source_path(name);
	struct config *config = config_load(path, stderr);
	if (config == NULL)
		fail_msg("%s does not load", path);
	free(path);
	return config;
}

static void test_the_examples_load(void **state)
{
	(void)state;
	struct config *config = example("config/aws-transit-gateway.conf");
	assert_int_equal(config->tunnel_count, 2);
	assert_string_equal(config->tunnels[0].name, "tunnel01");
	assert_int_equal(config->tunnels[0].far_side, CONFIG_FAR_SIDE_AWS);
	assert_int_equal(config->tunnels[0].mtu, 1438);
	assert_true(config->gateway.hugepages);
	assert_int_equal(config->routes[0].priority, 100);
	assert_int_equal(config->routes[1].priority, 200);
	assert_true(packet_prefix_equal(&config->routes[0].prefix, &config->routes[1].prefix));
	config_free(config);
	config = example("config/laptop-veth.conf");
	assert_false(config->gateway.hugepages);
	assert_int_equal(config->worker_priority, CONFIG_PRIORITY_LOW);
	assert_int_equal(config->tunnels[0].mtu, 1446);
	config_free(config);
	config = example("config/pktgen.conf");
	struct config *far = example("config/pktgen-far.conf");
	assert_int_equal(config->neighbour_count, 2);
	assert_true(packet_address_equal(
		&config->tunnels[0].customer_endpoint, &far->tunnels[0].gateway_endpoint));
	assert_true(packet_address_equal(
		&config->tunnels[0].gateway_endpoint, &far->tunnels[0].customer_endpoint));
	config_free(far);
	config_free(config);
}

// The tables of docs/configuration.md are those that the program writes.
static void test_the_documentation_has_every_setting(void **state)
{
	(void)state;
	char *path = source_path("docs/configuration.md"), *reference, *text;
	size_t size;
	FILE *stream = open_memstream(&reference, &size);
	config_describe(stream);
	fclose(stream);
	stream = fopen(path, "r");
	assert_non_null(stream);
	text = calloc(1, 1 << 20);
	assert_true(fread(text, 1, (1 << 20) - 1, stream) > 0);
	fclose(stream);
	char *rest = reference;
	for (char *line = strsep(&rest, "\n"); line != NULL; line = strsep(&rest, "\n")) {
		if (strstr(text, line) == NULL)
			fail_msg("docs/configuration.md lacks: %s", line);
	}
	free(reference);
	free(text);
	free(path);
}

// ---- one configuration and the next ----

#define ROOM 8

// The base, and the same edited and placed by it.
struct succession {
	struct config *before, *after;
	struct config_diff *diff;
	char *text; // the changes, a line each
	char *refusals;
};

static void write_change(
	const struct config_diff *diff, const struct config_change *change, FILE *stream)
{
	static const char kinds[] = {'+', '-', '~'};
	char name[CONFIG_CHANGE_TEXT];
	fprintf(stream, "%c%s %s", kinds[change->kind], config_part_name(change->part),
		config_change_name(diff, change, name));
	for (unsigned int i = 0; i < change->setting_count; i++) {
		const struct config_setting_change *setting = &change->settings[i];
		fprintf(stream, " %s%s%s=%s>%s%s", setting->group,
			setting->group[0] == '\0' ? "" : ".", setting->name, setting->before,
			setting->after, setting->effect == CONFIG_NEXT_SA ? "*" : "");
	}
	fputc('\n', stream);
}

static struct succession succeed(const char *from, const char *to)
{
	bool taken[ROOM] = {true, true};
	size_t size;
	struct succession two = {.before = right(base), .after = right_edited(from, to)};
	assert_true(config_place(two.after, two.before, taken, ROOM));
	two.diff = config_compare(two.before, two.after);
	assert_non_null(two.diff);
	FILE *stream = open_memstream(&two.text, &size);
	for (unsigned int i = 0; i < two.diff->count; i++)
		write_change(two.diff, &two.diff->changes[i], stream);
	fclose(stream);
	stream = open_memstream(&two.refusals, &size);
	config_diff_refusals(two.diff, stream);
	fclose(stream);
	return two;
}

static void succession_free(struct succession *two)
{
	config_diff_free(two->diff);
	config_free(two->before);
	config_free(two->after);
	free(two->text);
	free(two->refusals);
}

static void test_differences(void **state)
{
	(void)state;
	static const struct {
		const char *from, *to, *changes, *refusals;
	} cases[] = {
		{"tunnel01", "tunnel01", "", ""},
		{"fd00::2/126\"; }", "fd00::2/126\"; mtu = 1300; df = \"copy\"; }",
			"~tunnel tunnel02 mtu=1418>1300 df=set>copy*\n", ""},
		{"fd00::2/126\"; }", "fd00::2/126\"; dscp = 46; ttl = 3; tfc = 100; }",
			"~tunnel tunnel02 dscp=copy>46* ttl=64>3* tfc=0>100\n", ""},
		{"fd00::2/126\"; }", "fd00::2/126\"; health = { rate = \"high\"; }; }",
			"~tunnel tunnel02 health.rate=mid>high\n", ""},
		{"  { prefix = \"192.168.192.0/26\"; tunnel = \"tunnel01\"; },",
			"  { prefix = \"192.168.192.0/26\"; tunnel = \"tunnel02\"; },",
			"-route 192.168.192.0/26 by tunnel01\n"
			"+route 192.168.192.0/26 by tunnel02\n",
			""},
		{"next_hop = \"192.0.2.254\"", "next_hop = \"192.0.2.254\"; priority = 7",
			"~route 0.0.0.0/0 by outside, 192.0.2.254 priority=100>7\n", ""},
		{"02:00:00:00:00:02", "02:00:00:00:00:03",
			"~neighbour 10.1.0.2 on inside mac=02:00:00:00:00:02>02:00:00:00:00:03\n",
			""},
		{"10.1.0.2", "10.1.0.3",
			"-neighbour 10.1.0.2 on inside\n+neighbour 10.1.0.3 on inside\n", ""},
		{"name = \"gw\"", "name = \"gw\"; max_sas = 7; log_level = \"debug\"",
			"~gateway  log_level=info>debug max_sas=1024>7\n",
			"gateway: max_sas from 1024 to 7 needs a restart\n"},
		{"\"192.0.2.1/24\", ", "\"192.0.2.1/24\", \"192.0.3.1/24\", ",
			"~port outside addresses=192.0.2.1/24, 2001:db8::1/64>"
			"192.0.2.1/24, 192.0.3.1/24, 2001:db8::1/64\n",
			"port outside: addresses from 192.0.2.1/24, 2001:db8::1/64 to "
			"192.0.2.1/24, "
			"192.0.3.1/24, 2001:db8::1/64 needs a restart\n"},
		{"cores = [ 0 ]", "cores = [ 0 ]; control_core = 1; share = \"off\"",
			"~workers  control_core=none>1 share=auto>off\n",
			"workers: control_core from none to 1 needs a restart\n"
			"workers: share from auto to off needs a restart\n"},
		{"\"2001:db8::1/64\" ]; }\n",
			"\"2001:db8::1/64\" ]; },\n"
			"{ name = \"third\"; device = \"net_null1\"; side = \"inside\"; }\n",
			"+port third\n", "port third: to add a port needs a restart\n"},
	};
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct succession two = succeed(cases[i].from, cases[i].to);
		assert_string_equal(two.text, cases[i].changes);
		assert_string_equal(two.refusals, cases[i].refusals);
		succession_free(&two);
	}
}

// The base with its ports and tunnels the other way round, and one tunnel more between them.
static const char turned[] =
	"gateway = { name = \"gw\"; };\n"
	"workers = { cores = [ 0 ]; };\n"
	"ports = (\n"
	"  { name = \"outside\"; device = \"0000:3b:00.1\"; side = \"outside\";\n"
	"    addresses = [ \"192.0.2.1/24\", \"2001:db8::1/64\" ]; },\n"
	"  { name = \"inside\"; device = \"net_null0\"; side = \"inside\";\n"
	"    addresses = [ \"10.1.0.1/24\", \"fd10::1/64\" ]; }\n"
	");\n"
	"tunnels = (\n"
	"  { name = \"tunnel02\"; gateway_endpoint = \"2001:db8::1\"; if_id = 2;\n"
	"    customer_endpoint = \"2001:db8:1::1\"; interface_address = \"fd00::2/126\"; },\n"
	"  { name = \"new\"; gateway_endpoint = \"192.0.2.1\"; if_id = 3;\n"
	"    customer_endpoint = \"198.51.100.3\"; interface_address = \"10.9.0.1/31\"; },\n"
	"  { name = \"tunnel01\"; gateway_endpoint = \"192.0.2.1\"; if_id = 1;\n"
	"    customer_endpoint = \"198.51.100.1\"; interface_address = \"169.254.244.2/30\"; }\n"
	");\n"
	"routes = (\n"
	"  { prefix = \"10.5.0.0/16\"; tunnel = \"new\"; },\n"
	"  { prefix = \"192.168.192.0/26\"; tunnel = \"tunnel01\"; },\n"
	"  { prefix = \"0.0.0.0/0\"; port = \"outside\"; next_hop = \"192.0.2.254\"; }\n"
	");\n"
	"neighbours = (\n"
	"  { port = \"inside\"; address = \"10.1.0.2\"; mac = \"02:00:00:00:00:02\"; }\n"
	");\n";

static void test_tunnels_keep_their_indexes(void **state)
{
	(void)state;
	struct config *before = right(base), *after = right(turned);
	bool taken[ROOM] = {true, true, true}; // 2 had a tunnel not long ago
	assert_true(config_place(after, before, taken, ROOM));
	assert_int_equal(after->tunnel_count, 4);
	assert_string_equal(after->tunnels[0].name, "tunnel01");
	assert_string_equal(after->tunnels[1].name, "tunnel02");
	assert_false(config_is_tunnel(&after->tunnels[2]));
	assert_string_equal(after->tunnels[3].name, "new");
	assert_string_equal(after->ports[0].name, "inside");
	assert_int_equal(after->routes[0].tunnel, 3);
	assert_int_equal(after->routes[1].tunnel, 0);
	assert_int_equal(after->routes[2].port, 1);
	assert_int_equal(after->neighbours[0].port, 0);
	struct config_diff *diff = config_compare(before, after);
	assert_int_equal(diff->count, 2);
	assert_int_equal(diff->counts[CONFIG_PART_TUNNEL][CONFIG_ADDED], 1);
	assert_int_equal(diff->counts[CONFIG_PART_ROUTE][CONFIG_ADDED], 1);
	config_diff_free(diff);
	// And back, with a hole where the tunnel was.
	struct config *again = right(base);
	bool all[ROOM] = {true, true, true, true, true, true, true, true};
	assert_true(config_place(again, after, all, ROOM));
	assert_int_equal(again->tunnel_count, 2);
	diff = config_compare(after, again);
	assert_int_equal(diff->count, 2);
	assert_int_equal(diff->counts[CONFIG_PART_TUNNEL][CONFIG_REMOVED], 1);
	config_diff_free(diff);
	// No index is left for a new one.
	struct config *more = right(turned);
	assert_false(config_place(more, again, all, ROOM));
	assert_string_equal(more->tunnels[0].name, "tunnel02");
	config_free(more);
	config_free(again);
	config_free(before);
	config_free(after);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_differences),
		cmocka_unit_test(test_tunnels_keep_their_indexes),
		cmocka_unit_test(test_defaults),
		cmocka_unit_test(test_values_arrive),
		cmocka_unit_test(test_the_peer_is_the_other_address_of_the_block),
		cmocka_unit_test(test_the_mtu_is_the_largest_that_fits),
		cmocka_unit_test(test_the_computed_mtu_fits_and_one_more_does_not),
		cmocka_unit_test(test_mss_is_a_word_or_a_number),
		cmocka_unit_test(test_the_mtu_of_an_sa),
		cmocka_unit_test(test_unknown_missing_and_mistyped_settings),
		cmocka_unit_test(test_gateway_errors),
		cmocka_unit_test(test_a_socket_path_fits_the_kernels_limit),
		cmocka_unit_test(test_name_errors),
		cmocka_unit_test(test_port_errors),
		cmocka_unit_test(test_two_ports_on_one_interface),
		cmocka_unit_test(test_too_many_ports),
		cmocka_unit_test(test_worker_errors),
		cmocka_unit_test(test_too_many_workers),
		cmocka_unit_test(test_queues_of_two_workers),
		cmocka_unit_test(test_endpoint_errors),
		cmocka_unit_test(test_interface_address_errors),
		cmocka_unit_test(test_far_sides_take_their_blocks),
		cmocka_unit_test(test_health_errors),
		cmocka_unit_test(test_health_rates_and_targets),
		cmocka_unit_test(test_if_ids),
		cmocka_unit_test(test_window_and_mtu_errors),
		cmocka_unit_test(test_route_errors),
		cmocka_unit_test(test_neighbour_errors),
		cmocka_unit_test(test_syntax_errors),
		cmocka_unit_test(test_all_errors_are_shown_by_line),
		cmocka_unit_test(test_included_files),
		cmocka_unit_test(test_the_examples_load),
		cmocka_unit_test(test_the_documentation_has_every_setting),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
