// SPDX-License-Identifier: BSD-3-Clause
// Copyright (c) 2026 the espgw authors

// A whole data plane, whose worker is the test itself: what becomes of packets, also when buffers
// or the room of a TX queue run out, and when the kernel refuses what a configuration wants. It has
// a network namespace of its own, which takes root (else all is skipped). Its ports are net_null
// devices, whose sending is the test's; what the kernel refuses is, too, and so is what calloc
// gives.

#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>
#include <event2/event.h>

#include "dataplane/internal.h"

enum { INSIDE, OUTSIDE, FRAMES = 256, PACKET_SIZE = 1500, FRAGMENT_MTU = 576, FRAGMENTS = 3 };

static const char *const TUNNEL = "{ name = \"one\"; gateway_endpoint = \"198.51.100.1\"; "
				  "customer_endpoint = \"203.0.113.1\";";
static const char *const BEFORE = "interface_address = \"169.254.10.2/30\"; mtu = 576; "
				  "health = { rate = 100; timeout = 100; }; }";

static struct dataplane *dataplane;
static struct worker *worker;
static struct config *first;
static struct rte_mempool *pool;
static unsigned int buffers; // of the pool, when nobody has one

// ---- What the device takes ----

static struct rte_mbuf *sent[FRAMES];
static unsigned int sent_count, tx_room;

static uint16_t take_frames(void *queue, struct rte_mbuf **packets, uint16_t count)
{
	uint16_t taken = 0;
	(void)queue;
	for (; taken < count && tx_room != 0; taken++, tx_room--) {
		assert_true(sent_count < FRAMES);
		sent[sent_count++] = packets[taken];
	}
	return taken;
}

static void forget_sent(void)
{
	rte_pktmbuf_free_bulk(sent, sent_count);
	sent_count = 0;
}

static uint32_t esp_sequence(const struct rte_mbuf *frame)
{
	rte_be32_t sequence;
	memcpy(&sequence, rte_pktmbuf_mtod_offset(frame, const uint8_t *, ETHERNET_SIZE + 20 + 4),
		sizeof(sequence));
	return rte_be_to_cpu_32(sequence);
}

// ---- What the kernel refuses, and what is freed ----

static unsigned int mtu_calls_until_refusal; // 0 = none is refused
static bool routes_are_refused;
static unsigned int allocations_until_failure; // 0 = none fails
static const struct config *freed[8];
static unsigned int freed_count;

int __real_host_interface_set_mtu(
	struct host *, const struct host_interface *, uint32_t, struct host_error *);
int __wrap_host_interface_set_mtu(struct host *host, const struct host_interface *interface,
	uint32_t mtu, struct host_error *error);
int __real_host_route_install(struct host *, unsigned int, const struct packet_prefix *,
	const struct packet_address *, uint32_t, struct host_error *);
int __wrap_host_route_install(struct host *host, unsigned int interface,
	const struct packet_prefix *prefix, const struct packet_address *gateway, uint32_t metric,
	struct host_error *error);
void __real_config_free(struct config *);
void __wrap_config_free(struct config *config);
void *__real_calloc(size_t, size_t);
void *__wrap_calloc(size_t count, size_t size);

static int refuse(struct host_error *error)
{
	snprintf(error->text, sizeof(error->text), "refused by the test");
	return -1;
}

int __wrap_host_interface_set_mtu(struct host *host, const struct host_interface *interface,
	uint32_t mtu, struct host_error *error)
{
	if (mtu_calls_until_refusal != 0 && --mtu_calls_until_refusal == 0)
		return refuse(error);
	return __real_host_interface_set_mtu(host, interface, mtu, error);
}

int __wrap_host_route_install(struct host *host, unsigned int interface,
	const struct packet_prefix *prefix, const struct packet_address *gateway, uint32_t metric,
	struct host_error *error)
{
	if (routes_are_refused)
		return refuse(error);
	return __real_host_route_install(host, interface, prefix, gateway, metric, error);
}

void *__wrap_calloc(size_t count, size_t size)
{
	if (allocations_until_failure != 0 && --allocations_until_failure == 0)
		return NULL;
	return __real_calloc(count, size);
}

void __wrap_config_free(struct config *config)
{
	if (config != NULL && freed_count < RTE_DIM(freed))
		freed[freed_count++] = config;
	__real_config_free(config);
}

static bool is_freed(const struct config *config)
{
	for (unsigned int i = 0; i < freed_count; i++)
		if (freed[i] == config)
			return true;
	return false;
}

// ---- The gateway ----

static struct config *make_config(const char *tunnel, const char *more_routes)
{
	char text[4096];
	snprintf(text, sizeof(text),
		"gateway = { name = \"dp%d\"; log_level = \"error\"; hugepages = false; "
		"memory_mb = 384; max_sas = 16; max_routes = 256; max_neighbours = 64; };\n"
		"workers = { cores = [ 0 ]; };\n"
		"ports = ( { name = \"inside\"; device = \"net_null0,no-rx=1\"; side = \"inside\"; "
		"addresses = [ \"10.0.0.1/24\" ]; }, "
		"{ name = \"outside\"; device = \"net_null1,no-rx=1\"; side = \"outside\"; "
		"addresses = [ \"198.51.100.1/24\" ]; } );\n"
		"tunnels = ( %s %s );\n"
		"routes = ( { prefix = \"10.1.0.0/16\"; port = \"inside\"; next_hop = "
		"\"10.0.0.2\"; }, "
		"{ prefix = \"0.0.0.0/0\"; port = \"outside\"; next_hop = \"198.51.100.2\"; }, "
		"{ prefix = \"10.9.0.0/16\"; tunnel = \"one\"; } %s );\n"
		"neighbours = ( { port = \"inside\"; address = \"10.0.0.2\"; "
		"mac = \"02:00:00:00:00:02\"; }, "
		"{ port = \"outside\"; address = \"198.51.100.2\"; mac = \"02:00:00:00:00:03\"; } "
		");\n",
		(int)getpid(), TUNNEL, tunnel, more_routes);
	struct config *config = config_parse(text, "dataplane_test", stderr);
	assert_non_null(config);
	return config;
}

// The same key both ways.
static void add_sa(enum sa_direction direction)
{
	static uint64_t top;
	bool in = direction == SA_INBOUND;
	struct sa_parameters parameters = {
		.direction = direction, .spi = 0x1000, .key = {1}, .window = 65536, .top = &top};
	struct tunnel_error error;
	assert_true(packet_address_parse(
		"198.51.100.1", in ? &parameters.destination : &parameters.source));
	assert_true(packet_address_parse(
		"203.0.113.1", in ? &parameters.source : &parameters.destination));
	assert_non_null(
		sa_add(dataplane->tunnels, tunnel_get(dataplane->tunnels, 0), &parameters, &error));
}

// Once for all tests: DPDK starts once in a process.
static void require_gateway(void)
{
	struct dataplane_error error = {{0}};
	if (dataplane != NULL)
		return;
	if (unshare(CLONE_NEWNET) != 0 || access("/dev/net/tun", R_OK | W_OK) != 0) {
		print_message("needs root for a network namespace and TAPs: skipped\n");
		skip();
	}
	first = make_config(BEFORE, "");
	if (dataplane_eal_start(first, &error) != 0 ||
		(dataplane = dataplane_create(first, &error)) == NULL ||
		// Started for its ports to be up; stopped for its worker to leave them to us.
		dataplane_start(dataplane, event_base_new(), &error) != 0)
		fail_msg("%s", error.text);
	dataplane_stop(dataplane);
	worker = dataplane->workers[0];
	pool = dataplane->ports[0].pool;
	for (unsigned int i = INSIDE; i <= OUTSIDE; i++)
		rte_eth_fp_ops[dataplane->ports[i].id].tx_pkt_burst = take_frames;
	add_sa(SA_OUTBOUND);
	add_sa(SA_INBOUND);
	buffers = rte_mempool_avail_count(pool);
}

static struct rte_mbuf *hoard; // a list, by `next`

static void give_back(void)
{
	while (hoard != NULL) {
		struct rte_mbuf *packet = hoard;
		hoard = packet->next;
		packet->next = NULL;
		rte_pktmbuf_free(packet);
	}
}

static bool in_a_loop; // the worker, as it seems to control

// What the test before may have left goes; counters start again.
static void begin(void)
{
	require_gateway();
	if (in_a_loop)
		reclaim_worker_offline(dataplane->reclaim, 0);
	in_a_loop = false;
	give_back();
	health_stop(dataplane);
	probe_drain(worker);
	forget_sent();
	for (unsigned int i = 0; i < dataplane->telemetry->slots; i++) {
		struct telemetry_slot *slot = dataplane->telemetry->slot[i];
		memset(slot->sources, 0, sizeof(slot->sources));
		memset(slot->tunnels, 0, sizeof(slot->tunnels[0]));
	}
	worker->punt.tokens = worker->punt.size;
	worker->icmp.tokens = worker->icmp.size;
	tx_room = FRAMES;
	freed_count = 0;
	mtu_calls_until_refusal = 0;
	routes_are_refused = false;
	allocations_until_failure = 0;
}

static struct telemetry_source sum_of(unsigned int source)
{
	struct telemetry_source sum;
	telemetry_sum_source(dataplane->telemetry, source, &sum);
	return sum;
}

static uint64_t tunnel_drops(enum drop_reason reason)
{
	struct telemetry_tunnel sum;
	telemetry_sum_tunnel(dataplane->telemetry, 0, &sum);
	return sum.drops[reason];
}

// Every packet has one end, and every buffer is back.
static void assert_nothing_is_held(void)
{
	forget_sent();
	for (unsigned int i = 0; i < TELEMETRY_SOURCES; i++) {
		struct telemetry_source sum = sum_of(i);
		assert_int_equal(telemetry_source_held(&sum), 0);
	}
	assert_int_equal(rte_mempool_avail_count(pool), buffers);
}

// ---- An empty pool ----

// Leaves `count` buffers in the pool, or as many as there are.
static void hoard_all_but(unsigned int count)
{
	struct rte_mbuf *packet;
	while ((packet = rte_pktmbuf_alloc(pool)) != NULL) {
		packet->next = hoard;
		hoard = packet;
	}
	for (unsigned int i = 0; i < count && hoard != NULL; i++) {
		packet = hoard;
		hoard = packet->next;
		packet->next = NULL;
		rte_pktmbuf_free(packet);
	}
}

// An IPv4 packet of UDP without DF, in a frame to the inside port.
static struct rte_mbuf *make_frame(const char *destination)
{
	struct rte_mbuf *packet = rte_pktmbuf_alloc(pool);
	assert_non_null(packet);
	struct rte_ether_hdr *ethernet =
		(struct rte_ether_hdr *)rte_pktmbuf_append(packet, ETHERNET_SIZE + PACKET_SIZE);
	struct rte_ipv4_hdr *ip = (struct rte_ipv4_hdr *)(ethernet + 1);
	struct packet_address to;
	assert_true(packet_address_parse(destination, &to));
	memset(ethernet, 0, ETHERNET_SIZE + PACKET_SIZE);
	ethernet->dst_addr = dataplane->ports[INSIDE].mac;
	ethernet->ether_type = RTE_BE16(RTE_ETHER_TYPE_IPV4);
	*ip = (struct rte_ipv4_hdr){
		.version_ihl = RTE_IPV4_VHL_DEF,
		.total_length = RTE_BE16(PACKET_SIZE),
		.packet_id = RTE_BE16(7),
		.time_to_live = 64,
		.next_proto_id = IPPROTO_UDP,
		.src_addr = RTE_BE32(RTE_IPV4(10, 1, 0, 5)),
	};
	memcpy(&ip->dst_addr, to.bytes, sizeof(ip->dst_addr));
	ip->hdr_checksum = rte_ipv4_cksum(ip);
	return packet;
}

// As after a burst.
static void end_burst(void)
{
	transmit_flush(worker);
	worker_free_drops(worker);
	later_run(worker);
}

static void split_into_the_tunnel(struct rte_mbuf *frame)
{
	dataplane_worker_receive(dataplane, 0, INSIDE, &frame, 1);
	end_burst();
}

// To the next hop inside, as if it had come by the tunnel.
static void split_to_the_port(struct rte_mbuf *frame)
{
	struct packet_address hop;
	packet_address_parse("10.0.0.2", &hop);
	worker->source = &worker->slot->sources[OUTSIDE];
	worker->source->received++;
	rte_pktmbuf_adj(frame, ETHERNET_SIZE);
	assert_true(later_split(worker, frame, LATER_SPLIT_TO_PORT,
		neighbour_find(dataplane, INSIDE, &hop), FRAGMENT_MTU, 0));
	end_burst();
}

static void check_split(void (*split)(struct rte_mbuf *), unsigned int source, unsigned int free)
{
	unsigned int made = RTE_MIN(free, (unsigned int)FRAGMENTS);
	bool whole = made == FRAGMENTS;
	struct rte_mbuf *frame = make_frame("10.9.0.1");
	hoard_all_but(free);
	split(frame);
	struct telemetry_source sum = sum_of(source);
	assert_int_equal(sum.received, 1);
	assert_int_equal(sum.forwarded, made);
	assert_int_equal(sent_count, made);
	assert_int_equal(sum.split, whole ? made - 1 : made);
	assert_int_equal(sum.drops[DROP_NO_BUFFER], whole ? 0 : 1);
	assert_int_equal(tunnel_drops(DROP_NO_BUFFER), whole ? 0 : 1);
	give_back();
	assert_nothing_is_held();
}

static void test_an_empty_pool_while_splitting(void **state)
{
	(void)state;
	for (unsigned int free = 0; free <= FRAGMENTS + 1; free++) {
		begin();
		check_split(split_into_the_tunnel, INSIDE, free);
		begin();
		check_split(split_to_the_port, OUTSIDE, free);
	}
}

// The fragments are made, and none finds room to leave.
static void test_fragments_before_a_full_queue(void **state)
{
	(void)state;
	begin();
	tx_room = 1;
	split_into_the_tunnel(make_frame("10.9.0.1"));
	struct telemetry_source sum = sum_of(INSIDE);
	assert_int_equal(sum.forwarded, 1);
	assert_int_equal(sum.split, FRAGMENTS - 1);
	assert_int_equal(sum.drops[DROP_TX_FULL], FRAGMENTS - 1);
	assert_nothing_is_held();
}

static uint64_t wait_for_attempts(uint64_t more)
{
	struct health_report report;
	assert_true(dataplane_health(dataplane, 0, &report));
	uint64_t before = report.attempts;
	for (unsigned int i = 0; i < 2000 && report.attempts - before < more; i++) {
		usleep(1000);
		health_tick(dataplane);
		assert_true(dataplane_health(dataplane, 0, &report));
	}
	assert_true(report.attempts - before >= more);
	return report.attempts - before;
}

// The probes that control found no buffer for are counted, as all that does not leave.
static void test_an_empty_pool_while_probing(void **state)
{
	(void)state;
	struct dataplane_error error;
	begin();
	assert_int_equal(health_start(dataplane, &error), 0);
	hoard_all_but(0);
	uint64_t attempts = wait_for_attempts(2);
	struct telemetry_source sum = sum_of(TELEMETRY_SOURCE_GATEWAY);
	assert_int_equal(sum.received, attempts);
	assert_int_equal(sum.drops[DROP_NO_BUFFER], attempts);
	assert_int_equal(tunnel_drops(DROP_NO_BUFFER), attempts);
	give_back();
	health_stop(dataplane);
	assert_nothing_is_held();
}

// ---- A full TX queue ----

static void add_probes(unsigned int count)
{
	for (unsigned int i = 0; i < count; i++) {
		struct packet_address own = tunnel_own_address(tunnel_get(dataplane->tunnels, 0));
		const struct packet_echo echo = {.payload = (const uint8_t *)"probe", .size = 5};
		struct rte_mbuf *packet = rte_pktmbuf_alloc(pool);
		assert_non_null(packet);
		uint32_t size = packet_echo_write(
			rte_pktmbuf_mtod(packet, uint8_t *), &own, &own, &echo, 0);
		packet->data_len = (uint16_t)size;
		packet->pkt_len = size;
		packet->hash.usr = 0;
		packet->port = TELEMETRY_SOURCE_GATEWAY;
		dataplane->telemetry->slot[1]->sources[TELEMETRY_SOURCE_GATEWAY].received++;
		host_path_give(dataplane, worker->probes, packet, 0);
	}
}

static void assert_sent_in_order(void)
{
	for (unsigned int i = 1; i < sent_count; i++)
		assert_true(esp_sequence(sent[i]) > esp_sequence(sent[i - 1]));
}

static void test_probes_before_a_full_queue(void **state)
{
	(void)state;
	struct telemetry_source sum;
	begin();
	tx_room = 0;
	add_probes(LATE_MAX + 36);
	probe_burst(worker);
	probe_burst(worker);
	// As many as there is room for are kept; the others are drops, of the tunnel too.
	sum = sum_of(TELEMETRY_SOURCE_GATEWAY);
	assert_int_equal(worker->late_count, LATE_MAX);
	assert_int_equal(sum.drops[DROP_TX_FULL], 36);
	assert_int_equal(tunnel_drops(DROP_TX_FULL), 36);
	assert_int_equal(telemetry_source_held(&sum), LATE_MAX);
	// Traffic takes none of their room.
	split_into_the_tunnel(make_frame("10.9.0.1"));
	assert_int_equal(worker->late_count, LATE_MAX);
	assert_int_equal(sum_of(INSIDE).drops[DROP_TX_FULL], FRAGMENTS);
	// They go first, the oldest before all, and those that come now behind them.
	tx_room = 10;
	add_probes(1);
	probe_burst(worker);
	assert_int_equal(sent_count, 10);
	assert_int_equal(worker->late_count, LATE_MAX - 9);
	tx_room = FRAMES;
	probe_burst(worker);
	assert_int_equal(worker->late_count, 0);
	assert_int_equal(sent_count, LATE_MAX + 1);
	assert_sent_in_order();
	assert_int_equal(sum_of(TELEMETRY_SOURCE_GATEWAY).forwarded, LATE_MAX + 1);
	assert_nothing_is_held();
}

static void test_late_probes_and_a_port_that_goes(void **state)
{
	(void)state;
	begin();
	tx_room = 0;
	add_probes(3);
	probe_burst(worker);
	assert_int_equal(worker->late_count, 3);
	atomic_store(&dataplane->ports[OUTSIDE].usable, false);
	probe_burst(worker);
	atomic_store(&dataplane->ports[OUTSIDE].usable, true);
	assert_int_equal(worker->late_count, 0);
	assert_int_equal(sum_of(TELEMETRY_SOURCE_GATEWAY).drops[DROP_PORT_DOWN], 3);
	assert_int_equal(tunnel_drops(DROP_PORT_DOWN), 3);
	assert_nothing_is_held();
}

static void test_late_probes_at_the_end(void **state)
{
	(void)state;
	begin();
	tx_room = 0;
	add_probes(3);
	probe_drain(worker);
	assert_int_equal(worker->late_count, 0);
	assert_int_equal(sum_of(TELEMETRY_SOURCE_GATEWAY).drops[DROP_TX_FULL], 3);
	assert_nothing_is_held();
}

// ---- All that can arrive, while all is scarce ----

enum { BURSTS = 20000, SHORTAGE_BURSTS = 64 };

static uint64_t seed;

// Xorshift: the same in each run.
static uint32_t random_number(uint32_t below)
{
	seed ^= seed << 13;
	seed ^= seed >> 7;
	seed ^= seed << 17;
	return (uint32_t)((seed >> 32) * below >> 32);
}

static bool once_in(uint32_t times)
{
	return random_number(times) == 0;
}

static void put_address(uint8_t *at, const char *text)
{
	struct packet_address address;
	assert_true(packet_address_parse(text, &address));
	memcpy(at, address.bytes, address.family == 4 ? 4 : 16);
}

// Hosts on either side, the gateway itself, nowhere, and what no packet may have.
static void put_random4(uint8_t *at)
{
	static const char *const addresses[] = {"10.1.0.5", "10.0.0.2", "10.0.0.77", "10.0.0.1",
		"10.9.0.1", "169.254.10.1", "169.254.10.2", "198.51.100.1", "203.0.113.1",
		"8.8.8.8", "224.0.0.5", "239.1.1.1", "255.255.255.255", "0.0.0.0", "10.0.0.255",
		"127.0.0.1"};
	put_address(at, addresses[random_number(RTE_DIM(addresses))]);
}

static void put_random6(uint8_t *at)
{
	static const char *const addresses[] = {"fe80::1", "ff02::1", "ff05::1", "2001:db8:1::5",
		"2001:db8:9::1", "2001:db8::1", "2001:db8::2", "::", "::1", "3fff::1"};
	put_address(at, addresses[random_number(RTE_DIM(addresses))]);
}

// Bytes of the header.
static uint32_t write_random4(uint8_t *data, uint32_t size)
{
	static const uint8_t protocols[] = {
		IPPROTO_ICMP, IPPROTO_ICMP, IPPROTO_TCP, IPPROTO_UDP, IPPROTO_ESP, IPPROTO_GRE};
	static const uint16_t fragments[] = {
		0, 0, 0, RTE_IPV4_HDR_DF_FLAG, RTE_IPV4_HDR_MF_FLAG, 100, 8191};
	struct rte_ipv4_hdr *ip = (struct rte_ipv4_hdr *)data;
	uint32_t header = once_in(6) ? 20 + 4 * random_number(11) : 20;
	ip->version_ihl = (uint8_t)(0x40 | header / 4);
	ip->total_length = rte_cpu_to_be_16((uint16_t)RTE_MAX(size, header));
	ip->fragment_offset = rte_cpu_to_be_16(fragments[random_number(RTE_DIM(fragments))]);
	ip->time_to_live = (uint8_t)(once_in(4) ? random_number(3) : 64);
	ip->next_proto_id = protocols[random_number(RTE_DIM(protocols))];
	put_random4(data + offsetof(struct rte_ipv4_hdr, src_addr));
	put_random4(data + offsetof(struct rte_ipv4_hdr, dst_addr));
	if (once_in(2)) { // from the far side to us, or to a host inside
		put_address(data + offsetof(struct rte_ipv4_hdr, src_addr), "169.254.10.1");
		put_address(data + offsetof(struct rte_ipv4_hdr, dst_addr),
			once_in(2) ? "169.254.10.2" : "10.1.0.5");
	}
	ip->hdr_checksum = 0;
	ip->hdr_checksum = rte_cpu_to_be_16(packet_checksum_fold(packet_ipv4_sum(data, header)));
	return header;
}

static uint32_t write_random6(uint8_t *data, uint32_t size)
{
	static const uint8_t protocols[] = {IPPROTO_ICMPV6, IPPROTO_ICMPV6, IPPROTO_TCP,
		IPPROTO_UDP, IPPROTO_ESP, IPPROTO_FRAGMENT, IPPROTO_HOPOPTS, IPPROTO_DSTOPTS,
		IPPROTO_ROUTING};
	struct rte_ipv6_hdr *ip = (struct rte_ipv6_hdr *)data;
	uint32_t payload = RTE_MAX(size, (uint32_t)sizeof(*ip)) - (uint32_t)sizeof(*ip);
	ip->vtc_flow = RTE_BE32(UINT32_C(6) << 28);
	ip->payload_len = rte_cpu_to_be_16((uint16_t)payload);
	ip->proto = protocols[random_number(RTE_DIM(protocols))];
	ip->hop_limits = (uint8_t)(once_in(4) ? random_number(3) : 64);
	put_random6(ip->src_addr);
	put_random6(ip->dst_addr);
	return sizeof(*ip);
}

// Any message whose checksum is right, or the beginning of a TCP connection.
static void write_random_upper(uint8_t *ip, uint8_t *upper, uint8_t protocol, uint32_t size)
{
	static const uint8_t types[] = {0, 3, 5, 8, 8, 11, 128, 128, 129, 1, 2};
	if ((protocol == IPPROTO_ICMP || protocol == IPPROTO_ICMPV6) && size >= 8) {
		upper[0] = types[random_number(RTE_DIM(types))];
		upper[1] = (uint8_t)(once_in(4) ? random_number(5) : 0);
		upper[2] = upper[3] = 0;
		uint16_t sum = packet_checksum_fold(packet_icmp_sum(ip, upper, size));
		upper[2] = (uint8_t)(sum >> 8);
		upper[3] = (uint8_t)sum;
	} else if (protocol == IPPROTO_TCP && size >= 20) {
		upper[12] = (uint8_t)(random_number(16) << 4);
		upper[13] = PACKET_TCP_SYN;
	}
}

static struct rte_mbuf *random_packet(uint32_t size)
{
	struct rte_mbuf *packet = rte_pktmbuf_alloc(pool);
	if (packet == NULL)
		return NULL;
	uint8_t *ip = rte_pktmbuf_mtod(packet, uint8_t *);
	bool six = once_in(3);
	for (uint32_t i = 0; i < size; i++)
		ip[i] = once_in(2) ? 0 : (uint8_t)random_number(256);
	uint32_t header = six ? write_random6(ip, size) : write_random4(ip, size);
	size = RTE_MAX(size, header);
	write_random_upper(ip, ip + header, six ? ip[6] : ip[9], size - header);
	if (once_in(20))
		ip[random_number(RTE_MIN(size, 64u))] ^= (uint8_t)(1 << random_number(8));
	packet->data_len = (uint16_t)size;
	packet->pkt_len = size;
	return packet;
}

// From the far side, whose SA has our outbound one's key.
static struct rte_mbuf *random_esp(uint32_t size)
{
	struct rte_mbuf *packet = random_packet(RTE_MIN(size, 1400u));
	struct esp_sa_out *sa = tunnel_get(dataplane->tunnels, 0)->current->out;
	uint8_t drop;
	if (packet == NULL)
		return NULL;
	assert_int_equal(esp_encapsulate(worker->esp, &packet, &sa, &drop, 1), 0);
	uint8_t *ip = rte_pktmbuf_mtod(packet, uint8_t *);
	put_address(ip + offsetof(struct rte_ipv4_hdr, src_addr), "203.0.113.1");
	put_address(ip + offsetof(struct rte_ipv4_hdr, dst_addr), "198.51.100.1"); // same checksum
	if (once_in(20))
		ip[20 + random_number(packet->pkt_len - 20)] ^= 1;
	return packet;
}

static void put_ethernet(struct rte_mbuf *packet, unsigned int port)
{
	bool four = *rte_pktmbuf_mtod(packet, const uint8_t *) >> 4 == 4;
	struct rte_ether_hdr *ethernet =
		(struct rte_ether_hdr *)rte_pktmbuf_prepend(packet, ETHERNET_SIZE);
	memset(ethernet, 0, sizeof(*ethernet));
	ethernet->dst_addr = dataplane->ports[port].mac;
	ethernet->ether_type = four ? RTE_BE16(RTE_ETHER_TYPE_IPV4) : RTE_BE16(RTE_ETHER_TYPE_IPV6);
}

static void pass_random_burst(void)
{
	struct rte_mbuf *packets[BURST_MAX];
	unsigned int count = 0, wanted = 1 + random_number(once_in(4) ? BURST_MAX : 4);
	unsigned int port = random_number(2);
	while (count < wanted) {
		uint32_t size = 20 + random_number(once_in(3) ? 1481 : 100);
		struct rte_mbuf *packet =
			port == OUTSIDE && !once_in(4) ? random_esp(size) : random_packet(size);
		if (packet == NULL)
			break;
		put_ethernet(packet, port);
		packets[count++] = packet;
	}
	if (count != 0)
		dataplane_worker_receive(dataplane, 0, port, packets, count);
	end_burst();
}

// Only ESP leaves outside, and what leaves inside is no group's.
static void check_sent(void)
{
	for (unsigned int i = 0; i < sent_count; i++) {
		const struct rte_ether_hdr *ethernet =
			rte_pktmbuf_mtod(sent[i], const struct rte_ether_hdr *);
		const uint8_t *ip = (const uint8_t *)(ethernet + 1);
		uint32_t size = sent[i]->data_len - ETHERNET_SIZE, length;
		bool outside = ethernet->dst_addr.addr_bytes[5] == 3; // its neighbour's
		assert_int_equal(packet_ip_check(ip, size, outside, &length), DROP_NONE);
		assert_int_equal(length, size);
		assert_true(sent[i]->pkt_len == sent[i]->data_len && size <= 1500);
		if (outside)
			assert_true(ip[0] == RTE_IPV4_VHL_DEF && ip[9] == IPPROTO_ESP);
		else
			assert_true(ip[0] >> 4 == 4 ? ip[16] < 224 : ip[24] != 0xff);
	}
	forget_sent();
}

static void test_all_that_can_arrive_while_all_is_scarce(void **state)
{
	(void)state;
	begin();
	seed = UINT64_C(88172645463325252);
	for (unsigned int i = 0; i < BURSTS; i++) {
		if (i % SHORTAGE_BURSTS == 0) {
			give_back();
			hoard_all_but(once_in(2) ? random_number(80) : buffers);
		}
		tx_room = once_in(4) ? random_number(8) : FRAMES;
		pass_random_burst();
		check_sent();
		if (once_in(64))
			host_path_drain(dataplane);
	}
	give_back();
	while (!rte_ring_empty(worker->to_host))
		host_path_drain(dataplane);
	reassembly_drop_all(worker->reassembly, DROP_STOPPED);
	worker_free_drops(worker);
	// All of this has come about.
	struct telemetry_source inside = sum_of(INSIDE), outside = sum_of(OUTSIDE);
	struct telemetry_tunnel tunnel;
	telemetry_sum_tunnel(dataplane->telemetry, 0, &tunnel);
	assert_true(inside.forwarded != 0 && inside.split != 0 && inside.to_host != 0);
	assert_true(outside.forwarded != 0 && outside.to_host != 0);
	assert_true(tunnel.out_packets != 0 && tunnel.in_packets != 0);
	assert_true(tunnel.echoes_answered != 0);
	assert_true(sum_of(TELEMETRY_SOURCE_GATEWAY).forwarded != 0); // ICMP errors
	assert_nothing_is_held();
}

// A packet of UDP, whose payload is 8 bytes of `number`.
static struct rte_mbuf *make_packet(
	const char *source, const char *destination, uint8_t ttl, uint8_t number)
{
	struct rte_mbuf *packet = rte_pktmbuf_alloc(pool);
	struct packet_address from, to;
	assert_non_null(packet);
	assert_true(packet_address_parse(source, &from));
	assert_true(packet_address_parse(destination, &to));
	const struct packet_ip_fields fields = {.source = &from,
		.destination = &to,
		.protocol = IPPROTO_UDP,
		.ttl = ttl,
		.size = 8};
	uint8_t *ip = rte_pktmbuf_mtod(packet, uint8_t *);
	packet->data_len = (uint16_t)(packet_ip_write(ip, &fields) + fields.size);
	packet->pkt_len = packet->data_len;
	memset(ip + 20, number, fields.size);
	return packet;
}

// The same as a frame of the far side's, in ESP.
static struct rte_mbuf *make_esp(
	const char *source, const char *destination, uint8_t ttl, uint8_t number)
{
	struct rte_mbuf *packet = make_packet(source, destination, ttl, number);
	struct esp_sa_out *sa = tunnel_get(dataplane->tunnels, 0)->current->out;
	uint8_t drop;
	assert_int_equal(esp_encapsulate(worker->esp, &packet, &sa, &drop, 1), 0);
	uint8_t *ip = rte_pktmbuf_mtod(packet, uint8_t *);
	put_address(ip + offsetof(struct rte_ipv4_hdr, src_addr), "203.0.113.1");
	put_address(ip + offsetof(struct rte_ipv4_hdr, dst_addr), "198.51.100.1"); // same checksum
	put_ethernet(packet, OUTSIDE);
	return packet;
}

static void receive_from_tunnel(const char *destination)
{
	struct rte_mbuf *packet = make_esp("169.254.10.1", destination, 64, 0);
	dataplane_worker_receive(dataplane, 0, OUTSIDE, &packet, 1);
	end_burst();
}

// ---- Bursts that go one way ----

enum { WAY_BURST = 8 };
static const uint8_t way_ttls[WAY_BURST] = {1, 64, 2, 0, 1, 3, 64, 1};
static const uint8_t way_numbers[] = {1, 2, 5, 6}; // those that have not expired

// `ip`: of a packet from make_packet that was forwarded.
static void check_way(const uint8_t *ip, unsigned int index)
{
	uint8_t number = way_numbers[index];
	uint32_t length;
	assert_int_equal(packet_ip_check(ip, 28, true, &length), DROP_NONE);
	assert_int_equal(length, 28);
	assert_int_equal(ip[offsetof(struct rte_ipv4_hdr, time_to_live)], way_ttls[number] - 1);
	assert_int_equal(ip[20], number);
}

static void check_way_counters(unsigned int port)
{
	struct telemetry_tunnel tunnel;
	telemetry_sum_tunnel(dataplane->telemetry, 0, &tunnel);
	const unsigned int passed = RTE_DIM(way_numbers);
	assert_int_equal(sum_of(port).forwarded, passed);
	assert_int_equal(sum_of(port).drops[DROP_TTL_EXPIRED], WAY_BURST - passed);
	if (port == INSIDE) {
		assert_int_equal(tunnel.out_packets, passed);
		assert_int_equal(tunnel.out_bytes, passed * 28);
	} else {
		assert_int_equal(tunnel.in_packets, WAY_BURST);
		assert_int_equal(tunnel.in_bytes, WAY_BURST * 28);
		assert_int_equal(tunnel.drops[DROP_TTL_EXPIRED], WAY_BURST - passed);
	}
}

// Packets that have expired are refused one by one; the others keep their order.
static void test_a_burst_into_a_tunnel_with_expired_packets(void **state)
{
	(void)state;
	struct rte_mbuf *packets[WAY_BURST];
	begin();
	for (unsigned int i = 0; i < WAY_BURST; i++) {
		packets[i] = make_packet("10.1.0.5", "10.9.0.1", way_ttls[i], (uint8_t)i);
		put_ethernet(packets[i], INSIDE);
	}
	dataplane_worker_receive(dataplane, 0, INSIDE, packets, WAY_BURST);
	end_burst();
	struct esp_sa_in *sa = sa_find(dataplane->tunnels, SA_INBOUND, 0x1000, NULL)->in;
	unsigned int passed = 0;
	for (unsigned int i = 0; i < sent_count; i++) {
		uint8_t traffic_class = 0, drop = DROP_NONE;
		if (*rte_pktmbuf_mtod_offset(sent[i], const uint8_t *, 5) != 3)
			continue; // to the inside: ICMP errors
		rte_pktmbuf_adj(sent[i], ETHERNET_SIZE + 20);
		assert_int_equal(
			esp_decapsulate(worker->esp, &sent[i], &sa, &traffic_class, &drop, 1), 0);
		check_way(rte_pktmbuf_mtod(sent[i], const uint8_t *), passed++);
	}
	assert_int_equal(passed, RTE_DIM(way_numbers));
	check_way_counters(INSIDE);
	assert_nothing_is_held();
}

static void test_a_burst_out_of_a_tunnel_with_expired_packets(void **state)
{
	(void)state;
	struct rte_mbuf *packets[WAY_BURST];
	begin();
	for (unsigned int i = 0; i < WAY_BURST; i++)
		packets[i] = make_esp("10.9.0.1", "10.1.0.5", way_ttls[i], (uint8_t)i);
	dataplane_worker_receive(dataplane, 0, OUTSIDE, packets, WAY_BURST);
	end_burst();
	unsigned int passed = 0;
	for (unsigned int i = 0; i < sent_count; i++)
		if (*rte_pktmbuf_mtod_offset(sent[i], const uint8_t *, 5) ==
			2) // else an ICMP error
			check_way(rte_pktmbuf_mtod_offset(sent[i], const uint8_t *, ETHERNET_SIZE),
				passed++);
	assert_int_equal(passed, RTE_DIM(way_numbers));
	check_way_counters(OUTSIDE);
	assert_nothing_is_held();
}

// ---- What ends here, and what is not passed on ----

// `all` takes everything to where it is said to; NULL: the configuration's, out of the outside
// port.
static void check_groups(struct config_route *all)
{
	struct dataplane_error error;
	begin();
	if (all != NULL) {
		assert_true(packet_prefix_parse("0.0.0.0/0", &all->prefix));
		assert_int_equal(
			dataplane_route_add(dataplane, all, ROUTE_ORIGIN_AGENT, &error), 0);
		receive_from_tunnel("8.8.8.8");
		assert_int_equal(sent_count, 1);
		forget_sent();
	}
	receive_from_tunnel("239.1.1.1");
	assert_int_equal(tunnel_drops(DROP_NO_ROUTE), 1);
	receive_from_tunnel("224.0.0.5");
	receive_from_tunnel("255.255.255.255");
	assert_int_equal(sent_count, 0);
	host_path_drain(dataplane);
	assert_int_equal(sum_of(OUTSIDE).to_host, 2);
	// Among others, which go on.
	struct rte_mbuf *packets[] = {make_esp("10.9.0.1", "10.1.0.5", 64, 0),
		make_esp("10.9.0.1", "239.1.1.1", 64, 1), make_esp("10.9.0.1", "10.1.0.5", 64, 2)};
	dataplane_worker_receive(dataplane, 0, OUTSIDE, packets, RTE_DIM(packets));
	end_burst();
	assert_int_equal(sent_count, 2);
	assert_int_equal(tunnel_drops(DROP_NO_ROUTE), 2);
	if (all != NULL)
		assert_int_equal(
			dataplane_route_delete(dataplane, all, ROUTE_ORIGIN_AGENT, &error), 0);
	assert_nothing_is_held();
}

// Wherever a route takes them.
static void test_groups_out_of_a_tunnel_are_not_forwarded(void **state)
{
	(void)state;
	struct config_route tunnel = {.tunnel = 0, .port = -1, .priority = 10, .weight = 1};
	struct config_route inside = {.tunnel = -1, .port = INSIDE, .priority = 10, .weight = 1};
	assert_true(packet_address_parse("10.0.0.2", &inside.next_hop));
	check_groups(NULL);
	check_groups(&tunnel);
	check_groups(&inside);
}

static void test_sources_of_this_network_are_not_passed_on(void **state)
{
	(void)state;
	begin();
	struct rte_mbuf *inside[] = {make_packet("0.0.0.0", "10.9.0.1", 64, 0),
		make_packet("10.1.0.5", "10.9.0.1", 64, 1),
		make_packet("0.1.2.3", "10.9.0.1", 64, 2)};
	for (unsigned int i = 0; i < RTE_DIM(inside); i++)
		put_ethernet(inside[i], INSIDE);
	dataplane_worker_receive(dataplane, 0, INSIDE, inside, RTE_DIM(inside));
	end_burst();
	assert_int_equal(sent_count, 1);
	assert_int_equal(sum_of(INSIDE).drops[DROP_SOURCE_SCOPE], 2);
	forget_sent();

	struct dataplane_error error;
	struct config_route all = {.tunnel = 0, .port = -1, .priority = 10, .weight = 1};
	assert_true(packet_prefix_parse("0.0.0.0/0", &all.prefix));
	assert_int_equal(dataplane_route_add(dataplane, &all, ROUTE_ORIGIN_AGENT, &error), 0);
	struct rte_mbuf *outside[] = {
		make_esp("0.1.2.3", "10.1.0.5", 64, 0), make_esp("10.9.0.1", "10.1.0.5", 64, 1)};
	dataplane_worker_receive(dataplane, 0, OUTSIDE, outside, RTE_DIM(outside));
	end_burst();
	assert_int_equal(sent_count, 1);
	assert_int_equal(tunnel_drops(DROP_SOURCE_SCOPE), 1);
	assert_int_equal(dataplane_route_delete(dataplane, &all, ROUTE_ORIGIN_AGENT, &error), 0);
	assert_nothing_is_held();
}

// ---- What the host sends ----

static struct rte_mbuf *make_syn(uint16_t mss)
{
	struct rte_mbuf *packet = rte_pktmbuf_alloc(pool);
	assert_non_null(packet);
	uint8_t *ip = rte_pktmbuf_mtod(packet, uint8_t *), *tcp = ip + 20;
	struct packet_address from, to;
	assert_true(packet_address_parse("169.254.10.2", &from));
	assert_true(packet_address_parse("169.254.10.1", &to));
	const struct packet_ip_fields fields = {.source = &from,
		.destination = &to,
		.protocol = IPPROTO_TCP,
		.ttl = 64,
		.size = 24};
	packet->data_len = (uint16_t)(packet_ip_write(ip, &fields) + fields.size);
	packet->pkt_len = packet->data_len;
	memset(tcp, 0, fields.size);
	tcp[12] = 6 << 4;
	tcp[13] = PACKET_TCP_SYN;
	memcpy(tcp + 20, (uint8_t[]){2, 4, (uint8_t)(mss >> 8), (uint8_t)mss}, 4);
	return packet;
}

// Decrypts what was sent.
static uint16_t mss_sent(void)
{
	struct esp_sa_in *sa = sa_find(dataplane->tunnels, SA_INBOUND, 0x1000, NULL)->in;
	uint8_t traffic_class = 0, drop = DROP_NONE;
	assert_int_equal(sent_count, 1);
	rte_pktmbuf_adj(sent[0], ETHERNET_SIZE + 20);
	assert_int_equal(esp_decapsulate(worker->esp, &sent[0], &sa, &traffic_class, &drop, 1), 0);
	const uint8_t *option = rte_pktmbuf_mtod_offset(sent[0], const uint8_t *, 20 + 20);
	forget_sent();
	return (uint16_t)(option[2] << 8 | option[3]);
}

static void test_the_mss_of_what_the_host_sends_is_lowered(void **state)
{
	(void)state;
	static const uint16_t sizes[] = {1398, 537, 536, 500}; // 576 less two headers is 536
	begin();
	for (size_t i = 0; i < RTE_DIM(sizes); i++) {
		struct rte_mbuf *packet = make_syn(sizes[i]);
		packet->port = TELEMETRY_SOURCE_TUN;
		packet->hash.usr = HOST_TUNNEL;
		dataplane->telemetry->slot[1]->sources[TELEMETRY_SOURCE_TUN].received++;
		host_path_give(dataplane, worker->from_host, packet, 0);
		inject_burst(worker);
		assert_int_equal(mss_sent(), RTE_MIN(sizes[i], 536));
	}
	assert_nothing_is_held();
}

// ---- Another configuration ----

static void no_sas(void *argument, struct tunnel *tunnel)
{
	(void)argument;
	(void)tunnel;
}

static unsigned int failing_allocation; // of the next apply; 0 = none
static bool memory_was_short;

// As control does it: what is not applied is freed.
static int apply(struct config *next)
{
	struct dataplane_error error;
	assert_int_equal(dataplane_place(dataplane, next, &error), 0);
	struct config_diff *diff = config_compare(dataplane->config, next);
	assert_non_null(diff);
	assert_int_equal(config_diff_refusals(diff, stderr), 0);
	assert_true(diff->count != 0);
	allocations_until_failure = failing_allocation;
	int result = dataplane_apply(dataplane, next, diff, no_sas, NULL, &error);
	if (failing_allocation != 0)
		memory_was_short = allocations_until_failure == 0;
	allocations_until_failure = 0;
	config_diff_free(diff);
	if (result != 0)
		config_free(next);
	return result;
}

static void test_the_old_configuration_stays_while_workers_may_read_it(void **state)
{
	(void)state;
	begin();
	struct config *second =
		make_config(BEFORE, ", { prefix = \"10.8.0.0/16\"; tunnel = \"one\"; }");
	struct config *third = make_config(BEFORE, "");
	assert_int_equal(apply(second), 0);
	assert_ptr_equal(dataplane->config, second);
	// A worker is in its loop, where it reads config->burst.
	reclaim_worker_online(dataplane->reclaim, 0);
	in_a_loop = true;
	assert_int_equal(apply(third), 0);
	reclaim_poll(dataplane->reclaim);
	assert_false(is_freed(second));
	reclaim_quiescent(dataplane->reclaim, 0);
	assert_int_equal(reclaim_poll(dataplane->reclaim), 0);
	assert_true(is_freed(second));
	assert_false(is_freed(third));
	assert_false(is_freed(first)); // its owner's
}

static struct route_target target_of(const char *text)
{
	struct packet_address address;
	assert_true(packet_address_parse(text, &address));
	return route_lookup(dataplane->routes, &address, NULL);
}

// The destination of the next probe.
static void next_probe_goes_to(const char *text)
{
	struct packet_address expected;
	struct rte_mbuf *packet = NULL;
	assert_true(packet_address_parse(text, &expected));
	while (rte_ring_sc_dequeue(worker->probes, (void **)&packet) == 0)
		rte_pktmbuf_free(packet);
	wait_for_attempts(1);
	assert_int_equal(rte_ring_sc_dequeue(worker->probes, (void **)&packet), 0);
	struct packet_address to = packet_ip_destination(rte_pktmbuf_mtod(packet, const uint8_t *));
	assert_true(packet_address_equal(&to, &expected));
	rte_pktmbuf_free(packet);
}

static void assert_tunnel_is_as_before(const struct config *running)
{
	const struct tunnel *tunnel = tunnel_get(dataplane->tunnels, 0);
	struct packet_address own = tunnel_own_address(tunnel);
	assert_ptr_equal(dataplane->config, running);
	assert_ptr_equal(tunnel->config, &running->tunnels[0]);
	assert_int_equal(tunnel_offered_mtu(tunnel, tunnel->egress), 576);
	assert_true(packet_address_equal(&own, &running->tunnels[0].interface_address.address));
	assert_int_equal(target_of("169.254.10.2").kind, ROUTE_LOCAL_TUNNEL);
	assert_int_equal(target_of("169.254.10.1").kind, ROUTE_TUNNEL);
	assert_int_not_equal(target_of("169.254.20.2").kind, ROUTE_LOCAL_TUNNEL);
	next_probe_goes_to("169.254.10.1");
}

static void check_failed_apply(bool undo_fails)
{
	const char *after = "interface_address = \"169.254.20.2/30\"; mtu = 600; "
			    "health = { rate = 100; timeout = 100; }; }";
	struct dataplane_error error;
	begin();
	const struct config *running = dataplane->config;
	assert_int_equal(health_start(dataplane, &error), 0);
	next_probe_goes_to("169.254.10.1");
	struct config *next =
		make_config(after, ", { prefix = \"10.8.0.0/16\"; tunnel = \"one\"; }");
	// The tunnel changes, and then the kernel refuses the route; and to change the tunnel back.
	routes_are_refused = true;
	mtu_calls_until_refusal = undo_fails ? 2 : 0;
	assert_int_equal(apply(next), -1);
	assert_int_equal(mtu_calls_until_refusal, 0);
	assert_true(is_freed(next));
	assert_tunnel_is_as_before(running);
	health_stop(dataplane);
	// The kernel's part is made right by the next one that it takes.
	routes_are_refused = false;
	assert_int_equal(apply(make_config(after, "")), 0);
	assert_int_equal(apply(make_config(BEFORE, "")), 0);
	reclaim_poll(dataplane->reclaim);
}

static void test_a_failed_apply_is_undone(void **state)
{
	(void)state;
	check_failed_apply(false);
}

static void test_a_failed_apply_whose_undo_fails(void **state)
{
	(void)state;
	check_failed_apply(true);
}

static const char *const SECOND = "{ name = \"two\"; gateway_endpoint = \"198.51.100.1\"; "
				  "customer_endpoint = \"203.0.113.2\"; "
				  "interface_address = \"169.254.30.2/30\"; }";
static const char *const THIRD = "{ name = \"three\"; gateway_endpoint = \"198.51.100.1\"; "
				 "customer_endpoint = \"203.0.113.3\"; "
				 "interface_address = \"169.254.40.2/30\"; }";

static struct config *make_config_of_two(const char *second, const char *name)
{
	char tunnels[1024], routes[256];
	snprintf(tunnels, sizeof(tunnels), "%s, %s", BEFORE, second);
	snprintf(routes, sizeof(routes), ", { prefix = \"10.8.0.0/16\"; tunnel = \"%s\"; }", name);
	return make_config(tunnels, routes);
}

static bool count_path(const struct packet_prefix *prefix, const struct route_path *path, bool best,
	void *argument)
{
	unsigned int *counts = argument;
	(void)prefix;
	(void)best;
	if (path->target.kind == ROUTE_TUNNEL || path->target.kind == ROUTE_LOCAL_TUNNEL)
		counts[path->target.index]++;
	return true;
}

// Paths into each of the first four tunnels.
static void count_paths(unsigned int counts[4])
{
	memset(counts, 0, 4 * sizeof(counts[0]));
	route_walk(dataplane->routes, count_path, counts);
}

// An agent has a route into the tunnel that goes. Whichever allocation fails: all is as it was, or
// all is as it is to be.
static void check_apply_without_memory(unsigned int failing)
{
	struct dataplane_error error;
	unsigned int before[4], now[4];
	assert_int_equal(apply(make_config_of_two(SECOND, "two")), 0);
	const struct config *running = dataplane->config;
	int two = tunnel_find(dataplane->tunnels, "two")->index;
	struct config_route agents = {.tunnel = two, .port = -1, .priority = 100, .weight = 1};
	assert_true(packet_prefix_parse("10.7.0.0/16", &agents.prefix));
	assert_int_equal(dataplane_route_add(dataplane, &agents, ROUTE_ORIGIN_AGENT, &error), 0);
	count_paths(before);
	failing_allocation = failing;
	int result = apply(make_config_of_two(THIRD, "three"));
	failing_allocation = 0;
	count_paths(now);
	if (result != 0) {
		assert_true(memory_was_short);
		assert_ptr_equal(dataplane->config, running);
		assert_memory_equal(now, before, sizeof(now));
		assert_ptr_equal(
			tunnel_get(dataplane->tunnels, two)->config, &running->tunnels[two]);
		assert_null(tunnel_find(dataplane->tunnels, "three"));
	} else {
		assert_int_equal(now[two], 0);
		assert_null(tunnel_find(dataplane->tunnels, "two"));
		assert_int_equal(target_of("10.8.0.1").index,
			tunnel_find(dataplane->tunnels, "three")->index);
		assert_int_equal(
			target_of("10.7.0.1").kind, ROUTE_ADJACENCY); // the default route's
	}
	assert_int_equal(apply(make_config(BEFORE, "")), 0);
	reclaim_poll(dataplane->reclaim);
}

static void test_an_apply_whose_memory_ends(void **state)
{
	(void)state;
	begin();
	unsigned int failing = 0;
	do {
		check_apply_without_memory(++failing);
	} while (memory_was_short);
	assert_true(failing > 3);
}

static int tear_down(void **state)
{
	(void)state;
	if (dataplane == NULL)
		return 0;
	begin();
	struct event_base *base = dataplane->base;
	dataplane_destroy(dataplane);
	event_base_free(base);
	rte_eal_cleanup();
	config_free(first);
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_an_empty_pool_while_splitting),
		cmocka_unit_test(test_fragments_before_a_full_queue),
		cmocka_unit_test(test_an_empty_pool_while_probing),
		cmocka_unit_test(test_probes_before_a_full_queue),
		cmocka_unit_test(test_late_probes_and_a_port_that_goes),
		cmocka_unit_test(test_late_probes_at_the_end),
		cmocka_unit_test(test_all_that_can_arrive_while_all_is_scarce),
		cmocka_unit_test(test_a_burst_into_a_tunnel_with_expired_packets),
		cmocka_unit_test(test_a_burst_out_of_a_tunnel_with_expired_packets),
		cmocka_unit_test(test_groups_out_of_a_tunnel_are_not_forwarded),
		cmocka_unit_test(test_sources_of_this_network_are_not_passed_on),
		cmocka_unit_test(test_the_mss_of_what_the_host_sends_is_lowered),
		cmocka_unit_test(test_the_old_configuration_stays_while_workers_may_read_it),
		cmocka_unit_test(test_a_failed_apply_is_undone),
		cmocka_unit_test(test_a_failed_apply_whose_undo_fails),
		cmocka_unit_test(test_an_apply_whose_memory_ends),
	};
	return cmocka_run_group_tests(tests, NULL, tear_down);
}
