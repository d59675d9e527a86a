// SPDX-License-Identifier: BSD-3-Clause
// Copyright (c) 2026 the espgw authors

// Runs in network namespaces of its own, which takes root (else most is skipped). What the kernel
// should know is told and asked with iproute2.

#include <errno.h>
#include <poll.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <sys/ioctl.h>

#include <cmocka.h>

#include "host/host.h"
#include "host/mirror.h"

#define SEEN_MAXIMUM 4096
#define WAIT_MS      5000

static struct host_error error;

// What the mirror has reported and not taken back.
static struct seen {
	struct {
		struct host_route route;
		bool stale;
	} routes[SEEN_MAXIMUM];
	unsigned int route_count;
	struct {
		struct host_neighbour neighbour;
		bool stale;
	} neighbours[64];
	unsigned int neighbour_count;
	unsigned int dumps;
	unsigned int reports; // of routes
	bool dumping;
} seen;

// Begins the test in a new namespace, so that one that fails leaves nothing to the next.
static void require_namespace(void)
{
	if (unshare(CLONE_NEWNET) != 0 || access("/dev/net/tun", R_OK | W_OK) != 0) {
		print_message("needs root for a network namespace and TAPs: skipped\n");
		skip();
	}
}

static int seen_find_route(const struct packet_prefix *prefix, uint32_t metric)
{
	for (unsigned int i = 0; i < seen.route_count; i++)
		if (packet_prefix_equal(&seen.routes[i].route.prefix, prefix) &&
			seen.routes[i].route.metric == metric)
			return (int)i;
	return -1;
}

static void on_route_added(void *argument, const struct host_route *route)
{
	(void)argument;
	int i = seen_find_route(&route->prefix, route->metric);
	if (i < 0) {
		assert_true(seen.route_count < SEEN_MAXIMUM);
		i = (int)seen.route_count++;
	}
	seen.routes[i].route = *route;
	seen.routes[i].stale = false;
	seen.reports++;
	assert_true(route->next_hop_count >= 1);
}

static void on_route_deleted(void *argument, const struct host_route *route)
{
	(void)argument;
	int i = seen_find_route(&route->prefix, route->metric);
	assert_true(i >= 0);
	seen.routes[i] = seen.routes[--seen.route_count];
	seen.reports++;
}

static int seen_find_neighbour(const struct packet_address *address)
{
	for (unsigned int i = 0; i < seen.neighbour_count; i++)
		if (packet_address_equal(&seen.neighbours[i].neighbour.address, address))
			return (int)i;
	return -1;
}

static void on_neighbour(void *argument, const struct host_neighbour *neighbour)
{
	(void)argument;
	int i = seen_find_neighbour(&neighbour->address);
	if (i < 0) {
		assert_true(seen.neighbour_count < 64);
		i = (int)seen.neighbour_count++;
	}
	seen.neighbours[i].neighbour = *neighbour;
	seen.neighbours[i].stale = false;
}

static void on_dump_began(void *argument)
{
	(void)argument;
	assert_false(seen.dumping);
	seen.dumping = true;
	for (unsigned int i = 0; i < seen.route_count; i++)
		seen.routes[i].stale = true;
	for (unsigned int i = 0; i < seen.neighbour_count; i++)
		seen.neighbours[i].stale = true;
}

static void on_dump_ended(void *argument)
{
	(void)argument;
	assert_true(seen.dumping);
	seen.dumping = false;
	seen.dumps++;
	for (unsigned int i = seen.route_count; i-- > 0;)
		if (seen.routes[i].stale)
			seen.routes[i] = seen.routes[--seen.route_count];
	for (unsigned int i = seen.neighbour_count; i-- > 0;)
		if (seen.neighbours[i].stale)
			seen.neighbours[i] = seen.neighbours[--seen.neighbour_count];
}

static struct host *mirror_start(void)
{
	static const struct host_callbacks callbacks = {
		.neighbour = on_neighbour,
		.route_added = on_route_added,
		.route_deleted = on_route_deleted,
		.dump_began = on_dump_began,
		.dump_ended = on_dump_ended,
	};
	memset(&seen, 0, sizeof(seen));
	struct host *host = host_create(&callbacks, &error);
	if (!host)
		fail_msg("%s", error.text);
	return host;
}

// Runs a command of iproute2 or the like; `format` is the whole command line.
static int __attribute__((format(printf, 1, 2))) run(const char *format, ...)
{
	char line[512];
	va_list arguments;
	va_start(arguments, format);
	vsnprintf(line, sizeof(line), format, arguments);
	va_end(arguments);
	return system(line);
}

#define RUN(...) assert_int_equal(run(__VA_ARGS__), 0)

static void output(const char *line, char *text, size_t size)
{
	FILE *pipe = popen(line, "r");
	assert_non_null(pipe);
	size_t length = fread(text, 1, size - 1, pipe);
	text[length] = '\0';
	pclose(pipe);
}

static struct packet_address address_of(const char *text)
{
	struct packet_address address;
	assert_true(packet_address_parse(text, &address));
	return address;
}

static struct packet_prefix prefix_of(const char *text)
{
	struct packet_prefix prefix;
	assert_true(packet_prefix_parse(text, &prefix));
	return prefix;
}

static int64_t now_ms(void)
{
	struct timespec time;
	clock_gettime(CLOCK_MONOTONIC, &time);
	return time.tv_sec * 1000 + time.tv_nsec / 1000000;
}

// Lets the mirror work until nothing is waiting for it.
static void drain(struct host *host)
{
	struct pollfd poll_fd = {.fd = host_fd(host), .events = POLLIN};
	while (poll(&poll_fd, 1, 0) > 0)
		host_receive(host);
}

static const struct host_route *route_seen(const char *prefix_text, uint32_t metric)
{
	struct packet_prefix prefix = prefix_of(prefix_text);
	int i = seen_find_route(&prefix, metric);
	return i < 0 ? NULL : &seen.routes[i].route;
}

static struct host_interface open_interface(const char *name, enum host_interface_type type)
{
	struct host_interface interface;
	if (host_interface_open(&interface, name, type, &error) != 0)
		fail_msg("%s", error.text);
	return interface;
}

static void remove_interface(struct host_interface *interface)
{
	host_interface_close(interface);
	assert_int_equal(host_interface_remove(interface->name, &error), 0);
}

// A TAP that is up, with these addresses, and watched.
static struct host_interface open_port(
	struct host *host, const char *name, const char *ipv4, const char *ipv6)
{
	struct host_interface interface = open_interface(name, HOST_TAP);
	struct rte_ether_addr mac = {{2, 0, 0, 0, 0, (uint8_t)name[strlen(name) - 1]}};
	struct packet_interface_address addresses[2];
	unsigned int count = 0;
	if (ipv4)
		assert_true(packet_interface_address_parse(ipv4, &addresses[count++]));
	if (ipv6)
		assert_true(packet_interface_address_parse(ipv6, &addresses[count++]));
	if (host_interface_configure(host, &interface, &mac, 1500, &error) != 0 ||
		host_interface_set_addresses(host, &interface, addresses, count, &error) != 0 ||
		host_watch(host, interface.index) != 0)
		fail_msg("%s", error.text);
	return interface;
}

static void dump(struct host *host)
{
	if (host_dump(host, &error) != 0)
		fail_msg("%s", error.text);
}

static void test_names_are_checked(void **state)
{
	(void)state;
	const char *names[] = {"", ".", "..", "sixteen-letters!", "a/b", "tap%d", "a b", "a:b"};
	for (unsigned int i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		struct host_interface interface;
		assert_int_equal(
			host_interface_open(&interface, names[i], HOST_TAP, &error), -EINVAL);
		assert_non_null(strstr(error.text, "valid name"));
		assert_int_equal(host_interface_remove(names[i], &error), -ENODEV);
	}
}

static void test_interface_stays_and_is_reopened(void **state)
{
	(void)state;
	require_namespace();
	const enum host_interface_type types[] = {HOST_TAP, HOST_TUN};
	for (unsigned int i = 0; i < 2; i++) {
		struct host_interface interface = open_interface("keep0", types[i]);
		assert_int_equal(interface.index, if_nametoindex("keep0"));
		uint8_t frame[64];
		assert_int_equal(read(interface.fd, frame, sizeof(frame)), -1);
		assert_true(errno == EAGAIN || errno == EIO); // EIO: not up
		RUN("ip address add 192.0.2.1/24 dev keep0");
		host_interface_close(&interface);
		assert_int_equal(interface.fd, -1);
		struct host_interface again = open_interface("keep0", types[i]);
		assert_int_equal(again.index, interface.index);
		RUN("ip -o address show dev keep0 | grep -q 192.0.2.1/24");
		host_interface_close(&again);
		assert_int_equal(host_interface_remove("keep0", &error), 0);
		assert_int_equal(if_nametoindex("keep0"), 0);
		assert_int_equal(host_interface_remove("keep0", &error), -ENODEV);
	}
}

static void test_interface_of_others_is_refused(void **state)
{
	(void)state;
	require_namespace();
	struct host_interface held = open_interface("held0", HOST_TAP);
	struct host_interface other;
	assert_int_equal(host_interface_open(&other, "held0", HOST_TAP, &error), -EBUSY);
	assert_non_null(strstr(error.text, "held0"));
	assert_non_null(strstr(error.text, "another program"));
	assert_int_equal(host_interface_remove("held0", &error), -EBUSY);
	assert_int_equal(host_interface_open(&other, "held0", HOST_TUN, &error), -EINVAL);
	assert_non_null(strstr(error.text, "is a TAP, not a TUN"));
	remove_interface(&held);

	RUN("ip link add other0 type veth peer name other1");
	assert_int_equal(host_interface_open(&other, "other0", HOST_TAP, &error), -EINVAL);
	assert_non_null(strstr(error.text, "is a veth, not a TAP"));
	assert_int_equal(host_interface_remove("other0", &error), -ENOTSUP);
	RUN("ip link delete other0");

	RUN("ip tuntap add multi0 mode tun multi_queue");
	assert_int_equal(host_interface_open(&other, "multi0", HOST_TUN, &error), -EINVAL);
	assert_non_null(strstr(error.text, "multi-queue TUN"));
	assert_int_equal(host_interface_remove("multi0", &error), -ENOTSUP);
	RUN("ip link delete multi0");
}

static bool interface_request(const char *name, unsigned long what, struct ifreq *request)
{
	memset(request, 0, sizeof(*request));
	snprintf(request->ifr_name, sizeof(request->ifr_name), "%s", name);
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	bool good = ioctl(fd, what, request) == 0;
	close(fd);
	return good;
}

static void test_interface_is_configured(void **state)
{
	(void)state;
	require_namespace();
	struct host *host = mirror_start();
	struct host_interface tap = open_interface("port0", HOST_TAP);
	struct host_interface tun = open_interface("tun0", HOST_TUN);
	struct rte_ether_addr mac = {{2, 1, 2, 3, 4, 5}};
	struct ifreq request;
	for (uint32_t mtu = 1400; mtu <= 9000; mtu += 7600) {
		assert_int_equal(host_interface_configure(host, &tap, &mac, mtu, &error), 0);
		assert_true(interface_request("port0", SIOCGIFHWADDR, &request));
		assert_memory_equal(request.ifr_hwaddr.sa_data, mac.addr_bytes, 6);
		assert_true(interface_request("port0", SIOCGIFMTU, &request));
		assert_int_equal(request.ifr_mtu, mtu);
		assert_true(interface_request("port0", SIOCGIFFLAGS, &request));
		assert_true(request.ifr_flags & IFF_UP);
		mac.addr_bytes[5]++;
	}
	assert_int_equal(host_interface_configure(host, &tun, &mac, 1446, &error), 0);
	RUN("grep -qx 0 /proc/sys/net/ipv6/conf/port0/accept_ra");
	RUN("grep -qx 0 /proc/sys/net/ipv6/conf/port0/autoconf");
	RUN("grep -qx 0 /proc/sys/net/ipv6/conf/tun0/accept_ra");
	RUN("ip -6 address show dev port0 | grep -q fe80:");
	RUN("! ip -6 address show dev tun0 | grep -q fe80:");
	// Too small for IPv6.
	assert_int_equal(host_interface_configure(host, &tun, NULL, 600, &error), 0);

	assert_int_equal(host_interface_configure(host, &tap, NULL, 100000, &error), -EINVAL);
	assert_non_null(strstr(error.text, "port0"));
	assert_non_null(strstr(error.text, "100000"));
	assert_non_null(strstr(error.text, "mtu greater than device maximum")); // kernel's words
	struct rte_ether_addr multicast = {{1, 0, 0, 0, 0, 1}};
	assert_int_not_equal(host_interface_configure(host, &tap, &multicast, 1500, &error), 0);
	assert_non_null(strstr(error.text, "01:00:00:00:00:01"));
	remove_interface(&tap);
	remove_interface(&tun);
	host_destroy(host);
}

static void set_addresses(struct host *host, const struct host_interface *interface,
	const char *const texts[], unsigned int count)
{
	struct packet_interface_address addresses[8] = {0};
	for (unsigned int i = 0; i < count; i++)
		assert_true(packet_interface_address_parse(texts[i], &addresses[i]));
	if (host_interface_set_addresses(host, interface, addresses, count, &error) != 0)
		fail_msg("%s", error.text);
	char all[2048];
	char line[64];
	snprintf(line, sizeof(line), "ip -o address show dev %s", interface->name);
	output(line, all, sizeof(all));
	unsigned int found = 0;
	for (char *text = strstr(all, " inet"); text; text = strstr(text + 1, " inet"))
		found += !strstr(text, "fe80:") || strstr(text, "fe80:") > strchr(text, '\n');
	assert_int_equal(found, count);
	for (unsigned int i = 0; i < count; i++)
		assert_non_null(strstr(all, texts[i]));
	assert_null(strstr(all, "tentative"));
	assert_null(strstr(all, " peer "));
}

static void test_addresses_are_exactly_these(void **state)
{
	(void)state;
	require_namespace();
	struct host *host = mirror_start();
	struct host_interface tun = open_interface("tun0", HOST_TUN);
	assert_int_equal(host_interface_configure(host, &tun, NULL, 1446, &error), 0);
	const char *first[] = {"169.254.244.2/30", "fd00::2/126"};
	set_addresses(host, &tun, first, 2);
	set_addresses(host, &tun, first, 2);
	// In one network the second address goes with the first, wanted or not.
	RUN("ip address add 10.1.0.1/24 dev tun0");
	const char *second[] = {"10.1.0.2/24", "169.254.244.2/31", "2001:db8::1/64"};
	RUN("ip address add 10.1.0.2/24 dev tun0");
	RUN("ip address add 10.9.0.1 peer 10.9.0.2/32 dev tun0");
	set_addresses(host, &tun, second, 3);
	// The same address with another length, and as one end of a point-to-point link.
	RUN("ip address flush dev tun0");
	RUN("ip address add 10.1.0.2 peer 10.1.0.9/24 dev tun0");
	set_addresses(host, &tun, second, 3);
	for (unsigned int i = 0; i < 100; i++)
		RUN("ip address add 10.2.%u.1/24 dev tun0", i);
	set_addresses(host, &tun, NULL, 0);
	RUN("ip link set tun0 mtu 1000");
	struct packet_interface_address v6 = {.address = address_of("fd00::1"), .length = 64};
	assert_int_not_equal(host_interface_set_addresses(host, &tun, &v6, 1, &error), 0);
	assert_non_null(strstr(error.text, "tun0"));
	assert_non_null(strstr(error.text, "fd00::1/64"));
	remove_interface(&tun);
	host_destroy(host);
}

static void test_own_routes_are_installed_and_not_mirrored(void **state)
{
	(void)state;
	require_namespace();
	struct host *host = mirror_start();
	struct host_interface one = open_port(host, "port1", "10.0.1.1/24", "fd01::1/64");
	struct host_interface two = open_port(host, "port2", "10.0.2.1/24", NULL);
	dump(host);
	const struct packet_prefix v4 = prefix_of("192.168.192.0/26");
	const struct packet_prefix v6 = prefix_of("2001:db8:1::/48");
	const struct packet_prefix all = prefix_of("0.0.0.0/0");
	const struct packet_address gateway = address_of("10.0.2.9");
	for (unsigned int i = 0; i < 2; i++) {
		assert_int_equal(host_route_install(host, one.index, &v4, NULL, 500, &error), 0);
		assert_int_equal(
			host_route_install(host, two.index, &v4, &gateway, 500, &error), 0);
		assert_int_equal(host_route_install(host, one.index, &v6, NULL, 500, &error), 0);
		assert_int_equal(
			host_route_install(host, two.index, &all, &gateway, 500, &error), 0);
	}
	RUN("test $(ip route show proto %d | wc -l) = 3", HOST_ROUTE_PROTOCOL);
	RUN("ip route get 192.168.192.1 | grep -q port1");
	RUN("ip -6 route get 2001:db8:1::1 | grep -q port1");
	RUN("ip route show default | grep -q 'via 10.0.2.9 dev port2 .*metric 500'");
	// A foreign route of the same prefix and metric is not taken away, and behind ours is seen.
	RUN("ip route append 192.168.192.0/26 via 10.0.1.7 metric 500");
	drain(host);
	const struct host_route *route = route_seen("192.168.192.0/26", 500);
	assert_non_null(route);
	assert_int_equal(route->next_hop_count, 1);
	assert_null(route_seen("2001:db8:1::/48", 500));
	assert_null(route_seen("0.0.0.0/0", 500));
	dump(host);
	assert_null(route_seen("2001:db8:1::/48", 500));
	assert_non_null(route_seen("192.168.192.0/26", 500));

	assert_int_equal(host_route_remove(host, one.index, &v4, NULL, 500, &error), 0);
	assert_int_equal(host_route_remove(host, one.index, &v4, NULL, 500, &error), 0);
	RUN("ip route show 192.168.192.0/26 | grep -q 'via 10.0.1.7'");
	RUN("ip route show 192.168.192.0/26 proto %d | grep -q 'via 10.0.2.9'",
		HOST_ROUTE_PROTOCOL);
	assert_int_equal(host_route_remove_all(host, &error), 0);
	RUN("test $(ip route show proto %d | wc -l) = 0", HOST_ROUTE_PROTOCOL);
	RUN("test $(ip -6 route show proto %d | wc -l) = 0", HOST_ROUTE_PROTOCOL);
	RUN("ip route show 192.168.192.0/26 | grep -q 'via 10.0.1.7'");

	RUN("ip link set port1 down");
	assert_int_not_equal(host_route_install(host, one.index, &v4, NULL, 500, &error), 0);
	assert_non_null(strstr(error.text, "port1"));
	assert_non_null(strstr(error.text, "192.168.192.0/26"));
	assert_non_null(strstr(error.text, "Device for nexthop is not up")); // kernel's words
	remove_interface(&one);
	remove_interface(&two);
	host_destroy(host);
}

static void assert_hop(const struct host_next_hop *hop, unsigned int interface, const char *gateway,
	uint32_t weight)
{
	assert_int_equal(hop->interface, interface);
	assert_int_equal(hop->weight, weight);
	if (!gateway) {
		assert_int_equal(hop->gateway.family, 0);
		return;
	}
	struct packet_address wanted = address_of(gateway);
	assert_true(packet_address_equal(&hop->gateway, &wanted));
}

static void test_foreign_ipv4_routes_are_mirrored(void **state)
{
	(void)state;
	require_namespace();
	struct host *host = mirror_start();
	struct host_interface one = open_port(host, "port1", "10.0.1.1/24", NULL);
	struct host_interface two = open_port(host, "port2", "10.0.2.1/24", NULL);
	RUN("ip link add aside0 type veth peer name aside1 && ip link set aside0 up");
	RUN("ip address add 10.0.3.1/24 dev aside0");
	RUN("ip route add 172.16.0.0/12 via 10.0.1.2");
	dump(host);
	const struct host_route *route = route_seen("10.0.1.0/24", 0);
	assert_non_null(route);
	assert_int_equal(route->protocol, RTPROT_KERNEL);
	assert_hop(&route->next_hops[0], one.index, NULL, 1);
	assert_non_null(route_seen("172.16.0.0/12", 0));
	assert_null(route_seen("10.0.3.0/24", 0)); // not watched

	RUN("ip route add default via 10.0.1.254 metric 7");
	drain(host);
	assert_non_null(route = route_seen("0.0.0.0/0", 7));
	assert_hop(&route->next_hops[0], one.index, "10.0.1.254", 1);
	RUN("ip route replace default via 10.0.2.254 metric 7");
	drain(host);
	assert_non_null(route = route_seen("0.0.0.0/0", 7));
	assert_int_equal(route->next_hop_count, 1);
	assert_hop(&route->next_hops[0], two.index, "10.0.2.254", 1);
	RUN("ip route delete default metric 7");
	drain(host);
	assert_null(route_seen("0.0.0.0/0", 7));
	RUN("ip link delete aside0");
	remove_interface(&one);
	remove_interface(&two);
	drain(host);
	assert_int_equal(seen.route_count, 0);
	host_destroy(host);
}

static void test_foreign_ipv4_next_hops_are_mirrored(void **state)
{
	(void)state;
	require_namespace();
	struct host *host = mirror_start();
	struct host_interface one = open_port(host, "port1", "10.0.1.1/24", NULL);
	struct host_interface two = open_port(host, "port2", "10.0.2.1/24", NULL);
	RUN("ip link add aside0 type veth peer name aside1 && ip link set aside0 up");
	RUN("ip address add 10.0.3.1/24 dev aside0");
	dump(host);
	const struct host_route *route;
	RUN("ip route add 198.51.100.0/24 nexthop via 10.0.1.5 weight 3 nexthop via 10.0.2.5 "
	    "nexthop via 10.0.3.5");
	drain(host);
	assert_non_null(route = route_seen("198.51.100.0/24", 0));
	assert_int_equal(route->next_hop_count, 2);
	assert_hop(&route->next_hops[0], one.index, "10.0.1.5", 3);
	assert_hop(&route->next_hops[1], two.index, "10.0.2.5", 1);
	RUN("ip route replace 198.51.100.0/24 via 10.0.3.5");
	drain(host);
	assert_null(route_seen("198.51.100.0/24", 0));
	RUN("ip route replace 198.51.100.0/24 via inet6 fe80::9 dev port2");
	drain(host);
	assert_non_null(route = route_seen("198.51.100.0/24", 0));
	assert_hop(&route->next_hops[0], two.index, "fe80::9", 1);
	RUN("ip route replace blackhole 198.51.100.0/24");
	drain(host);
	assert_null(route_seen("198.51.100.0/24", 0));

	// Of no interest: another table, a type of service.
	RUN("ip route add 203.0.113.0/24 via 10.0.1.2 table 100");
	RUN("ip route add 203.0.113.0/24 via 10.0.1.2 tos 0x10");
	drain(host);
	assert_null(route_seen("203.0.113.0/24", 0));
	RUN("ip link delete aside0");
	remove_interface(&one);
	remove_interface(&two);
	drain(host);
	assert_int_equal(seen.route_count, 0);
	host_destroy(host);
}

static void test_of_equal_ipv4_routes_the_first_counts(void **state)
{
	(void)state;
	require_namespace();
	struct host *host = mirror_start();
	struct host_interface one = open_port(host, "port1", "10.0.1.1/24", NULL);
	struct host_interface two = open_port(host, "port2", "10.0.2.1/24", NULL);
	dump(host);
	unsigned int dumps = seen.dumps;
	RUN("ip route add 192.0.2.0/24 via 10.0.1.2");
	RUN("ip route append 192.0.2.0/24 via 10.0.2.2");
	drain(host);
	assert_hop(&route_seen("192.0.2.0/24", 0)->next_hops[0], one.index, "10.0.1.2", 1);
	RUN("ip route prepend 192.0.2.0/24 via 10.0.2.3");
	drain(host);
	assert_hop(&route_seen("192.0.2.0/24", 0)->next_hops[0], two.index, "10.0.2.3", 1);
	RUN("ip route delete 192.0.2.0/24 via 10.0.2.3");
	drain(host);
	assert_hop(&route_seen("192.0.2.0/24", 0)->next_hops[0], one.index, "10.0.1.2", 1);
	RUN("ip route delete 192.0.2.0/24 via 10.0.1.2");
	drain(host);
	assert_hop(&route_seen("192.0.2.0/24", 0)->next_hops[0], two.index, "10.0.2.2", 1);
	RUN("ip route append 192.0.2.0/24 via 10.0.1.2");
	RUN("ip route replace 192.0.2.0/24 via 10.0.1.4");
	drain(host);
	assert_hop(&route_seen("192.0.2.0/24", 0)->next_hops[0], one.index, "10.0.1.4", 1);
	RUN("ip route delete 192.0.2.0/24 via 10.0.1.4");
	drain(host);
	assert_hop(&route_seen("192.0.2.0/24", 0)->next_hops[0], one.index, "10.0.1.2", 1);
	assert_int_equal(seen.dumps, dumps);
	remove_interface(&one);
	remove_interface(&two);
	host_destroy(host);
}

static void test_foreign_ipv6_routes_are_mirrored(void **state)
{
	(void)state;
	require_namespace();
	struct host *host = mirror_start();
	struct host_interface one = open_port(host, "port1", NULL, "fd01::1/64");
	struct host_interface two = open_port(host, "port2", NULL, "fd02::1/64");
	dump(host);
	RUN("! ip -6 address show dev port1 scope global | grep -q tentative");
	const struct host_route *route = route_seen("fd01::/64", 256);
	assert_non_null(route);
	assert_hop(&route->next_hops[0], one.index, NULL, 1);
	assert_null(route_seen("fe80::/64", 256));
	unsigned int dumps = seen.dumps;
	RUN("ip -6 route add 2001:db8::/32 nexthop via fd01::2 weight 5 nexthop via fd02::2");
	drain(host);
	assert_non_null(route = route_seen("2001:db8::/32", 1024));
	assert_int_equal(route->next_hop_count, 2);
	assert_hop(&route->next_hops[0], one.index, "fd01::2", 5);
	assert_hop(&route->next_hops[1], two.index, "fd02::2", 1);
	// One next hop more, and one less.
	RUN("ip -6 route append 2001:db8::/32 via fd02::3");
	drain(host);
	assert_int_equal(route_seen("2001:db8::/32", 1024)->next_hop_count, 3);
	RUN("ip -6 route delete 2001:db8::/32 via fd01::2");
	drain(host);
	assert_non_null(route = route_seen("2001:db8::/32", 1024));
	assert_int_equal(route->next_hop_count, 2);
	assert_int_equal(route->next_hops[0].interface, two.index);
	assert_int_equal(route->next_hops[1].interface, two.index);
	RUN("ip -6 route replace 2001:db8::/32 via fd01::4");
	drain(host);
	assert_non_null(route = route_seen("2001:db8::/32", 1024));
	assert_int_equal(route->next_hop_count, 1);
	assert_hop(&route->next_hops[0], one.index, "fd01::4", 1);
	RUN("ip -6 route delete 2001:db8::/32");
	RUN("ip -6 route add default via fe80::1 dev port2");
	drain(host);
	assert_null(route_seen("2001:db8::/32", 1024));
	assert_non_null(route = route_seen("::/0", 1024));
	assert_hop(&route->next_hops[0], two.index, "fe80::1", 1);
	assert_int_equal(seen.dumps, dumps);
	remove_interface(&one);
	remove_interface(&two);
	drain(host);
	assert_int_equal(seen.route_count, 0);
	host_destroy(host);
}

// Which of several IPv6 routes was replaced is not told: the mirror asks.
static void test_of_equal_ipv6_routes_the_first_counts(void **state)
{
	(void)state;
	require_namespace();
	struct host *host = mirror_start();
	struct host_interface one = open_port(host, "port1", NULL, "fd01::1/64");
	struct host_interface two = open_port(host, "port2", NULL, "fd02::1/64");
	dump(host);
	const struct host_route *route;
	RUN("ip -6 route add 2001:db8:9::/48 dev port1");
	RUN("ip -6 route append 2001:db8:9::/48 dev port2");
	RUN("ip -6 route append 2001:db8:9::/48 via fd01::2");
	drain(host);
	RUN("ip -6 route replace 2001:db8:9::/48 via fd02::2");
	drain(host);
	assert_hop(&route_seen("2001:db8:9::/48", 1024)->next_hops[0], one.index, NULL, 1);
	RUN("ip -6 route delete 2001:db8:9::/48 dev port1");
	RUN("ip -6 route delete 2001:db8:9::/48 dev port2");
	drain(host);
	assert_non_null(route = route_seen("2001:db8:9::/48", 1024));
	assert_int_equal(route->next_hop_count, 1);
	assert_hop(&route->next_hops[0], two.index, "fd02::2", 1);
	remove_interface(&one);
	remove_interface(&two);
	drain(host);
	assert_int_equal(seen.route_count, 0);
	host_destroy(host);
}

static void test_routes_that_go_silently_are_noticed(void **state)
{
	(void)state;
	require_namespace();
	struct host *host = mirror_start();
	struct host_interface one = open_port(host, "port1", "10.0.1.1/24", NULL);
	struct host_interface two = open_port(host, "port2", "10.0.2.1/24", NULL);
	RUN("ip address add 10.0.2.77/32 dev port2");
	dump(host);
	RUN("ip route add 192.0.2.0/24 nexthop via 10.0.1.2 nexthop via 10.0.2.2");
	RUN("ip route add 198.51.100.0/24 via 10.0.1.2");
	RUN("ip route add 203.0.113.0/24 via 10.0.2.2 src 10.0.2.77");
	drain(host);
	assert_int_equal(route_seen("192.0.2.0/24", 0)->next_hop_count, 2);
	assert_non_null(route_seen("203.0.113.0/24", 0));
	RUN("ip link set port1 down");
	drain(host);
	assert_null(route_seen("198.51.100.0/24", 0));
	assert_int_equal(route_seen("192.0.2.0/24", 0)->next_hop_count, 1);
	RUN("ip link set port1 up");
	drain(host);
	assert_int_equal(route_seen("192.0.2.0/24", 0)->next_hop_count, 2);
	RUN("ip address delete 10.0.2.77/32 dev port2");
	drain(host);
	assert_null(route_seen("203.0.113.0/24", 0));
	remove_interface(&one);
	remove_interface(&two);
	host_destroy(host);
}

// Next hop objects, with and without the kernel's telling what is in them.
static void check_next_hop_objects(bool told)
{
	struct host *host = mirror_start();
	struct host_interface one = open_port(host, "port1", "10.0.1.1/24", "fd01::1/64");
	struct host_interface two = open_port(host, "port2", "10.0.2.1/24", NULL);
	RUN("echo %d >/proc/sys/net/ipv4/nexthop_compat_mode", told);
	dump(host);
	RUN("ip nexthop add id 1 via 10.0.1.2 dev port1");
	RUN("ip nexthop add id 2 via 10.0.2.2 dev port2");
	RUN("ip nexthop add id 3 via fd01::2 dev port1");
	RUN("ip nexthop add id 10 group 1,4/2");
	RUN("ip route add 192.0.2.0/24 nhid 10");
	RUN("ip -6 route add 2001:db8::/32 nhid 3");
	for (unsigned int i = 0; i < 2; i++) {
		drain(host);
		const struct host_route *route = route_seen("192.0.2.0/24", 0);
		assert_non_null(route);
		assert_int_equal(route->next_hop_count, 2);
		assert_hop(&route->next_hops[0], one.index, "10.0.1.2", 4);
		assert_hop(&route->next_hops[1], two.index, "10.0.2.2", 1);
		assert_non_null(route = route_seen("2001:db8::/32", 1024));
		assert_hop(&route->next_hops[0], one.index, "fd01::2", 1);
		dump(host);
	}
	RUN("ip nexthop replace id 1 via 10.0.1.3 dev port1");
	drain(host);
	assert_hop(&route_seen("192.0.2.0/24", 0)->next_hops[0], one.index, "10.0.1.3", 4);
	RUN("ip nexthop replace id 10 group 2");
	drain(host);
	assert_int_equal(route_seen("192.0.2.0/24", 0)->next_hop_count, 1);
	RUN("ip nexthop delete id 10");
	RUN("ip nexthop delete id 3");
	drain(host);
	assert_null(route_seen("192.0.2.0/24", 0));
	assert_null(route_seen("2001:db8::/32", 1024));
	remove_interface(&one);
	remove_interface(&two);
	host_destroy(host);
}

static void test_next_hop_objects(void **state)
{
	(void)state;
	require_namespace();
	if (access("/proc/sys/net/ipv4/nexthop_compat_mode", F_OK) != 0)
		skip();
	check_next_hop_objects(true);
	check_next_hop_objects(false);
	RUN("echo 1 >/proc/sys/net/ipv4/nexthop_compat_mode");
}

// Reads frames from the TAP until one asks for `wanted`, and answers it from `mac`.
static bool answer_one(
	int fd, const struct packet_address *wanted, const struct rte_ether_addr *mac)
{
	uint8_t frame[2048];
	ssize_t size = read(fd, frame, sizeof(frame));
	if (size < 42)
		return false;
	struct rte_ether_hdr *ethernet = (struct rte_ether_hdr *)frame;
	if (wanted->family == 4) {
		// ARP: the sender's MAC and address at 22 and 28, the target's at 32 and 38.
		if (ethernet->ether_type != rte_cpu_to_be_16(RTE_ETHER_TYPE_ARP) ||
			memcmp(frame + 38, wanted->bytes, 4) != 0)
			return false;
		uint8_t asker[10];
		memcpy(asker, frame + 22, 10);
		frame[21] = 2; // reply
		memcpy(frame + 22, mac, 6);
		memcpy(frame + 28, wanted->bytes, 4);
		memcpy(frame + 32, asker, 10);
		memcpy(frame, asker, 6);
		memcpy(frame + 6, mac, 6);
		return write(fd, frame, 42) == 42;
	}
	// Neighbour solicitation (RFC 4861, 4.3): the target at 8 of the ICMPv6 message.
	if (ethernet->ether_type != rte_cpu_to_be_16(RTE_ETHER_TYPE_IPV6) || size < 14 + 40 + 24 ||
		frame[20] != 58 || frame[54] != 135 || memcmp(frame + 62, wanted->bytes, 16) != 0)
		return false;
	uint8_t reply[86];
	memcpy(reply, frame + 6, 6);
	memcpy(reply + 6, mac, 6);
	memcpy(reply + 12, "\x86\xdd\x60\x00\x00\x00\x00\x20\x3a\xff", 10);
	memcpy(reply + 22, wanted->bytes, 16);
	memcpy(reply + 38, frame + 22, 16);
	memcpy(reply + 54, "\x88\x00\x00\x00\x60\x00\x00\x00", 8); // solicited, override
	memcpy(reply + 62, wanted->bytes, 16);
	memcpy(reply + 78, "\x02\x01", 2);
	memcpy(reply + 80, mac, 6);
	const struct rte_ipv6_hdr *ip = (const struct rte_ipv6_hdr *)(reply + 14);
	uint16_t checksum = rte_ipv6_udptcp_cksum(ip, reply + 54);
	memcpy(reply + 56, &checksum, 2);
	return write(fd, reply, sizeof(reply)) == (ssize_t)sizeof(reply);
}

static const struct host_neighbour *neighbour_seen(const char *text)
{
	struct packet_address address = address_of(text);
	int i = seen_find_neighbour(&address);
	return i < 0 ? NULL : &seen.neighbours[i].neighbour;
}

// Until the mirror says so of the neighbour; `mac`, when not NULL, answers for it.
static bool await_neighbour(struct host *host, const struct host_interface *port, const char *text,
	const struct rte_ether_addr *mac, bool resolved)
{
	struct packet_address address = address_of(text);
	for (int64_t end = now_ms() + WAIT_MS; now_ms() < end;) {
		struct pollfd fds[] = {{.fd = host_fd(host), .events = POLLIN},
			{.fd = mac ? port->fd : -1, .events = POLLIN}};
		poll(fds, 2, 100);
		host_receive(host);
		if (mac)
			answer_one(port->fd, &address, mac);
		const struct host_neighbour *neighbour = neighbour_seen(text);
		if (neighbour && neighbour->resolved == resolved)
			return neighbour->interface == port->index;
	}
	return false;
}

static void test_neighbours_are_resolved(void **state)
{
	(void)state;
	require_namespace();
	struct host *host = mirror_start();
	struct host_interface port = open_port(host, "port1", "10.0.1.1/24", "fd01::1/64");
	dump(host);
	const char *texts[] = {"10.0.1.9", "fd01::9"};
	struct rte_ether_addr mac = {{2, 9, 9, 9, 9, 1}};
	for (unsigned int i = 0; i < 2; i++) {
		struct packet_address address = address_of(texts[i]);
		assert_int_equal(host_neighbour_resolve(host, port.index, &address), 0);
		assert_true(await_neighbour(host, &port, texts[i], &mac, true));
		assert_memory_equal(&neighbour_seen(texts[i])->mac, &mac, 6);
		RUN("ip neighbour show %s dev port1 | grep -q managed", texts[i]);
		// A resolved one stays so when it is asked for again.
		assert_int_equal(host_neighbour_resolve(host, port.index, &address), 0);
		drain(host);
		assert_true(neighbour_seen(texts[i])->resolved);
		assert_int_equal(host_neighbour_release(host, port.index, &address), 0);
		RUN("! ip neighbour show %s dev port1 | grep -q managed", texts[i]);
		mac.addr_bytes[5]++;
	}
	memset(&seen, 0, sizeof(seen));
	dump(host);
	assert_true(neighbour_seen("10.0.1.9")->resolved);
	assert_true(neighbour_seen("fd01::9")->resolved);
	RUN("ip neighbour flush dev port1");
	drain(host);
	assert_false(neighbour_seen("10.0.1.9")->resolved);
	assert_false(neighbour_seen("fd01::9")->resolved);
	struct packet_address unknown = address_of("10.0.1.200");
	assert_int_equal(host_neighbour_release(host, port.index, &unknown), 0);
	remove_interface(&port);
	host_destroy(host);
}

static void test_neighbour_fails_and_comes_back(void **state)
{
	(void)state;
	require_namespace();
	struct host *host = mirror_start();
	struct host_interface port = open_port(host, "port1", "10.0.1.1/24", NULL);
	dump(host);
	RUN("echo 50 >/proc/sys/net/ipv4/neigh/port1/retrans_time_ms");
	struct packet_address address = address_of("10.0.1.9");
	assert_int_equal(host_neighbour_resolve(host, port.index, &address), 0);
	assert_true(await_neighbour(host, &port, "10.0.1.9", NULL, false));
	struct rte_ether_addr mac = {{2, 9, 9, 9, 9, 1}};
	assert_int_equal(host_neighbour_resolve(host, port.index, &address), 0);
	assert_true(await_neighbour(host, &port, "10.0.1.9", &mac, true));
	// Gone with its interface: reported so, or void after a dump.
	remove_interface(&port);
	drain(host);
	const struct host_neighbour *neighbour = neighbour_seen("10.0.1.9");
	assert_true(!neighbour || !neighbour->resolved);
	host_destroy(host);
}

static void test_neighbour_is_set(void **state)
{
	(void)state;
	require_namespace();
	struct host *host = mirror_start();
	struct host_interface port = open_port(host, "port1", "10.0.1.1/24", NULL);
	RUN("ip link add aside0 type veth peer name aside1 && ip link set aside0 up");
	RUN("ip neighbour add 10.0.9.9 lladdr 02:00:00:00:00:77 dev aside0");
	dump(host);
	assert_null(neighbour_seen("10.0.9.9"));
	struct packet_address address = address_of("10.0.1.9");
	struct rte_ether_addr mac = {{2, 9, 9, 9, 9, 1}};
	for (unsigned int i = 0; i < 2; i++) {
		assert_int_equal(host_neighbour_set(host, port.index, &address, &mac), 0);
		drain(host);
		assert_true(neighbour_seen("10.0.1.9")->resolved);
		assert_memory_equal(&neighbour_seen("10.0.1.9")->mac, &mac, 6);
		mac.addr_bytes[5]++;
	}
	RUN("ip neighbour show 10.0.1.9 | grep -q PERMANENT");
	RUN("ip link delete aside0");
	remove_interface(&port);
	host_destroy(host);
}

// Adds and deletes `count` routes in one go of iproute2.
static void change_routes(unsigned int count, const char *verb, unsigned int octet, uint8_t gateway)
{
	FILE *pipe = popen("ip -batch -", "w");
	assert_non_null(pipe);
	for (unsigned int i = 0; i < count; i++)
		fprintf(pipe, "route %s 172.%u.%u.0/24 via 10.0.1.%u\n", verb, octet + i / 256,
			i % 256, gateway);
	assert_int_equal(pclose(pipe), 0);
}

static void assert_mirror_is_the_kernels(void)
{
	char text[16];
	output("ip route show | grep -c ^172", text, sizeof(text));
	unsigned int wanted = (unsigned int)atoi(text);
	unsigned int found = 0;
	for (unsigned int i = 0; i < seen.route_count; i++) {
		const struct host_route *route = &seen.routes[i].route;
		if (route->prefix.address.bytes[0] != 172)
			continue;
		found++;
		assert_int_equal(route->next_hops[0].gateway.bytes[3],
			route->prefix.address.bytes[1] == 16 ? 7 : 2);
	}
	assert_int_equal(found, wanted);
}

static void test_overrun_ends_equal(void **state)
{
	(void)state;
	require_namespace();
	struct host *host = mirror_start();
	struct host_interface port = open_port(host, "port1", "10.0.1.1/24", NULL);
	RUN("ip neighbour add 10.0.1.50 lladdr 02:00:00:00:00:77 dev port1");
	dump(host);
	assert_true(neighbour_seen("10.0.1.50")->resolved);
	int size = 1;
	assert_int_equal(setsockopt(mnl_socket_get_fd(host->events.socket), SOL_SOCKET, SO_RCVBUF,
				 &size, sizeof(size)),
		0);
	unsigned int dumps = seen.dumps;
	change_routes(600, "add", 16, 2);
	change_routes(256, "replace", 16, 7);
	change_routes(100, "delete", 17, 2);
	RUN("ip neighbour delete 10.0.1.50 dev port1");
	drain(host);
	assert_true(seen.dumps > dumps);
	assert_mirror_is_the_kernels();
	// The one that went meanwhile is not reported again.
	const struct host_neighbour *neighbour = neighbour_seen("10.0.1.50");
	assert_true(!neighbour || !neighbour->resolved);
	// And it goes on from there.
	RUN("ip route add 172.31.0.0/16 via 10.0.1.2");
	drain(host);
	assert_non_null(route_seen("172.31.0.0/16", 0));
	remove_interface(&port);
	host_destroy(host);
}

static void test_changes_need_no_dump(void **state)
{
	(void)state;
	require_namespace();
	struct host *host = mirror_start();
	struct host_interface port = open_port(host, "port1", "10.0.1.1/24", NULL);
	dump(host);
	assert_int_equal(host_watch(host, port.index), 0);
	dump(host);
	assert_int_equal(seen.route_count, 1);
	unsigned int dumps = seen.dumps;
	change_routes(600, "add", 16, 2);
	change_routes(256, "replace", 16, 7);
	change_routes(100, "delete", 17, 2);
	drain(host);
	assert_int_equal(seen.dumps, dumps);
	assert_mirror_is_the_kernels();
	assert_int_equal(seen.reports, 2 + 600 + 256 + 100);
	remove_interface(&port);
	drain(host);
	assert_int_equal(seen.route_count, 0);
	host_destroy(host);
}

static void test_dump_that_fails_is_tried_again(void **state)
{
	(void)state;
	require_namespace();
	struct host *host = mirror_start();
	struct host_interface port = open_port(host, "port1", "10.0.1.1/24", NULL);
	dump(host);
	// As if the kernel gave no answer: the requests go nowhere.
	struct mnl_socket *kernel = host->requests.socket;
	host->requests.socket = mnl_socket_open2(NETLINK_GENERIC, SOCK_CLOEXEC);
	assert_non_null(host->requests.socket);
	unsigned int dumps = seen.dumps;
	RUN("ip link set port1 down");
	host_receive(host);
	assert_int_equal(seen.dumps, dumps);
	assert_non_null(route_seen("10.0.1.0/24", 0));
	mnl_socket_close(host->requests.socket);
	host->requests.socket = kernel;
	struct pollfd poll_fd = {.fd = host_fd(host), .events = POLLIN};
	assert_int_equal(poll(&poll_fd, 1, WAIT_MS), 1);
	host_receive(host);
	assert_true(seen.dumps > dumps);
	assert_null(route_seen("10.0.1.0/24", 0));
	remove_interface(&port);
	host_destroy(host);
}

// A route as the kernel would send it, with two next hops.
static void make_route_message(struct netlink_request *request)
{
	struct rtmsg *header = netlink_request_begin(request, RTM_NEWROUTE, 0, sizeof(*header));
	header->rtm_family = AF_INET6;
	header->rtm_dst_len = 32;
	header->rtm_table = RT_TABLE_MAIN;
	header->rtm_type = RTN_UNICAST;
	struct packet_address address = address_of("2001:db8::");
	netlink_put_address(request, RTA_DST, &address);
	mnl_attr_put_u32(&request->header, RTA_TABLE, RT_TABLE_MAIN);
	mnl_attr_put_u32(&request->header, RTA_PRIORITY, 1024);
	struct nlattr *nest = mnl_attr_nest_start(&request->header, RTA_MULTIPATH);
	for (int i = 1; i <= 2; i++) {
		struct rtnexthop *hop = mnl_nlmsg_get_payload_tail(&request->header);
		hop->rtnh_ifindex = i;
		hop->rtnh_hops = (uint8_t)i;
		hop->rtnh_len = sizeof(*hop) + MNL_ATTR_HDRLEN + 16;
		request->header.nlmsg_len += sizeof(*hop);
		netlink_put_address(request, RTA_GATEWAY, &address);
	}
	mnl_attr_nest_end(&request->header, nest);
}

static void test_malformed_messages_are_refused(void **state)
{
	(void)state;
	struct netlink_request request;
	struct route_message route;
	make_route_message(&request);
	assert_true(route_read(&request.header, &route));
	assert_int_equal(route.hop_count, 2);
	assert_int_equal(route.hops[1].hop.weight, 3);
	// Cut at every byte, in memory of just that size.
	uint32_t size = request.header.nlmsg_len;
	for (uint32_t cut = sizeof(struct nlmsghdr); cut < size; cut++) {
		struct nlmsghdr *message = malloc(cut);
		assert_non_null(message);
		memcpy(message, &request, cut);
		message->nlmsg_len = cut;
		struct host_neighbour neighbour;
		if (route_read(message, &route))
			assert_true(route.hop_count == 0);
		neighbour_read(message, &neighbour);
		free(message);
	}
	// Every byte changed to something else.
	for (uint32_t at = sizeof(struct nlmsghdr); at < size; at++)
		for (unsigned int value = 0; value < 256; value++) {
			struct nlmsghdr *message = malloc(size);
			assert_non_null(message);
			memcpy(message, &request, size);
			((uint8_t *)message)[at] = (uint8_t)value;
			struct host_neighbour neighbour;
			if (route_read(message, &route))
				assert_true(route.hop_count <= ROUTE_MESSAGE_NEXT_HOPS);
			neighbour_read(message, &neighbour);
			free(message);
		}
}

static void test_errors_are_sentences(void **state)
{
	(void)state;
	struct netlink netlink = {.reason = "the kernel's words"};
	struct host_error text;
	assert_int_equal(netlink_fail(&netlink, &text, -EPERM, "cannot do %s", "it"), -EPERM);
	assert_string_equal(text.text, "cannot do it: Operation not permitted (the kernel's "
				       "words); this needs CAP_NET_ADMIN");
	char name[2 * HOST_ERROR_SIZE];
	memset(name, 'x', sizeof(name));
	name[sizeof(name) - 1] = '\0';
	netlink_fail(&netlink, &text, -EPERM, "%s", name);
	assert_int_equal(strlen(text.text), HOST_ERROR_SIZE - 1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_names_are_checked),
		cmocka_unit_test(test_interface_stays_and_is_reopened),
		cmocka_unit_test(test_interface_of_others_is_refused),
		cmocka_unit_test(test_interface_is_configured),
		cmocka_unit_test(test_addresses_are_exactly_these),
		cmocka_unit_test(test_own_routes_are_installed_and_not_mirrored),
		cmocka_unit_test(test_foreign_ipv4_routes_are_mirrored),
		cmocka_unit_test(test_foreign_ipv4_next_hops_are_mirrored),
		cmocka_unit_test(test_of_equal_ipv4_routes_the_first_counts),
		cmocka_unit_test(test_foreign_ipv6_routes_are_mirrored),
		cmocka_unit_test(test_of_equal_ipv6_routes_the_first_counts),
		cmocka_unit_test(test_routes_that_go_silently_are_noticed),
		cmocka_unit_test(test_next_hop_objects),
		cmocka_unit_test(test_neighbours_are_resolved),
		cmocka_unit_test(test_neighbour_fails_and_comes_back),
		cmocka_unit_test(test_neighbour_is_set),
		cmocka_unit_test(test_overrun_ends_equal),
		cmocka_unit_test(test_changes_need_no_dump),
		cmocka_unit_test(test_dump_that_fails_is_tried_again),
		cmocka_unit_test(test_malformed_messages_are_refused),
		cmocka_unit_test(test_errors_are_sentences),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
