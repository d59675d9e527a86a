// SPDX-License-Identifier: BSD-3-Clause
// Copyright (c) 2026 the espgw authors

// Which packets are within an SA's selectors (RFC 4301 sections 4.4.1.1 and 7), and what becomes of
// those that are not.

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "esp/selector.h"
#include "esp_helpers.h"

#define LOCAL4  "10.1.0.0/24"
#define REMOTE4 "192.168.192.0/26"
#define LOCAL6  "2001:db8:1::/64"
#define REMOTE6 "2001:db8:190::/45"

static struct esp_context *context;

static struct esp_selector selector(const char *local, const char *remote, uint8_t protocol)
{
	struct esp_selector selector = {.protocol = protocol};
	assert_true(packet_prefix_parse(local, &selector.local));
	assert_true(packet_prefix_parse(remote, &selector.remote));
	return selector;
}

// A packet that is sent from inside; turned round, it is the answer.
struct sample {
	const char *source, *destination;
	uint8_t protocol;
	uint16_t source_port, destination_port; // ICMP: type * 256 + code, and nothing
	int cut;           // bytes of the upper layer that there are; 0 = enough
	uint16_t fragment; // as in the IPv4 header, host order
	bool options;      // 4 bytes of IPv4 options, or an extension header of IPv6
};

#define SAMPLE(from, to, upper, from_port, to_port, ...)                                 \
	{                                                                                \
		.source = (from), .destination = (to), .protocol = (upper),              \
		.source_port = (from_port), .destination_port = (to_port), ##__VA_ARGS__ \
	}

static uint32_t put_ipv4(uint8_t *ip, const struct sample *sample, uint32_t upper)
{
	uint32_t header = sample->options ? 24 : 20;
	struct packet_address from = test_address(sample->source),
			      to = test_address(sample->destination);
	struct rte_ipv4_hdr fields = {
		.version_ihl = (uint8_t)(0x40 | header / 4),
		.total_length = rte_cpu_to_be_16((uint16_t)(header + upper)),
		.fragment_offset = rte_cpu_to_be_16(sample->fragment),
		.time_to_live = 9,
		.next_proto_id = sample->protocol,
	};
	memcpy(&fields.src_addr, from.bytes, 4);
	memcpy(&fields.dst_addr, to.bytes, 4);
	memcpy(ip, &fields, sizeof(fields));
	memset(ip + 20, 1, header - 20); // no operation
	return header;
}

static uint32_t put_ipv6(uint8_t *ip, const struct sample *sample, uint32_t upper)
{
	struct packet_address from = test_address(sample->source),
			      to = test_address(sample->destination);
	uint32_t header = 40;
	uint8_t *next = ip + 6;
	memset(ip, 0, 40);
	ip[0] = 0x60;
	ip[7] = 9;
	memcpy(ip + 8, from.bytes, 16);
	memcpy(ip + 24, to.bytes, 16);
	if (sample->options) { // destination options of 8 bytes: one PadN
		static const uint8_t extension[8] = {0, 0, 1, 4};
		*next = 60;
		next = memcpy(ip + header, extension, 8);
		header += 8;
	}
	if (sample->fragment != 0) {
		uint16_t offset = (uint16_t)((sample->fragment & 0x1fff) << 3 |
					     (sample->fragment & 0x2000) >> 13);
		const uint8_t extension[8] = {0, 0, (uint8_t)(offset >> 8), (uint8_t)offset};
		*next = 44;
		next = memcpy(ip + header, extension, 8);
		header += 8;
	}
	*next = sample->protocol;
	ip[5] = (uint8_t)(header - 40 + upper);
	return header;
}

// Bytes of it.
static uint32_t put_sample(uint8_t *ip, const struct sample *sample)
{
	uint32_t upper = sample->cut > 0 ? (uint32_t)sample->cut : sample->cut < 0 ? 0 : 20;
	uint32_t header = test_address(sample->source).family == 4 ? put_ipv4(ip, sample, upper)
								   : put_ipv6(ip, sample, upper);
	const uint8_t ports[4] = {(uint8_t)(sample->source_port >> 8), (uint8_t)sample->source_port,
		(uint8_t)(sample->destination_port >> 8), (uint8_t)sample->destination_port};
	memset(ip + header, 0, upper);
	memcpy(ip + header, ports, RTE_MIN(upper, (uint32_t)sizeof(ports)));
	return header + upper;
}

// The same packet on its way back.
static struct sample turned(const struct sample *sample)
{
	struct sample back = *sample;
	back.source = sample->destination;
	back.destination = sample->source;
	if (sample->protocol == 1 || sample->protocol == 58)
		return back;
	back.source_port = sample->destination_port;
	back.destination_port = sample->source_port;
	return back;
}

static bool matches(const struct selector_set *set, const struct sample *sample, bool outbound)
{
	static uint8_t buffer[256];
	uint32_t size = put_sample(buffer, sample), length = 0;
	uint8_t *ip = malloc(size); // so that the address sanitizer sees where it ends
	memcpy(ip, buffer, size);
	assert_int_equal(packet_ip_check(ip, size, false, &length), DROP_NONE);
	bool result = selectors_match(set, ip, length, outbound);
	free(ip);
	return result;
}

#define IN4  "10.1.0.2"
#define FAR4 "192.168.192.10"
#define IN6  "2001:db8:1::2"
#define FAR6 "2001:db8:197::a"

static void test_samples(void **state)
{
	(void)state;
	// HTTPS and DNS to the far side, SSH from it; ping and "too big"; all ESP; IPv6 TCP to high
	// ports, and anything between two hosts.
	struct esp_selector selectors[] = {
		selector(LOCAL4, REMOTE4, 6),
		selector(LOCAL4, REMOTE4, 17),
		selector(LOCAL4, REMOTE4, 6),
		selector(LOCAL4, REMOTE4, 1),
		selector(LOCAL4, REMOTE4, 50),
		selector(LOCAL6, REMOTE6, 6),
		selector("2001:db8:1::2/128", "2001:db8:9::9/128", 0),
		selector(LOCAL6, REMOTE6, 58),
	};
	selectors[0].remote_ports = (struct esp_ports){443, 443};
	selectors[1].remote_ports = (struct esp_ports){53, 53};
	selectors[1].local_ports = (struct esp_ports){1024, 65535};
	selectors[2].local_ports = (struct esp_ports){22, 22};
	selectors[3].local_ports = (struct esp_ports){8 << 8, 8 << 8};
	selectors[5].remote_ports = (struct esp_ports){1024, 2047};
	static const struct {
		struct sample sample;
		bool within;
	} cases[] = {
		{SAMPLE(IN4, FAR4, 6, 40000, 443), true},
		{SAMPLE(IN4, FAR4, 6, 40000, 444), false},
		{SAMPLE(IN4, FAR4, 6, 443, 40000), false}, // the port of the other side
		{SAMPLE(IN4, FAR4, 6, 22, 40000), true},
		{SAMPLE(IN4, FAR4, 17, 40000, 443), false}, // another protocol
		{SAMPLE(IN4, FAR4, 17, 1024, 53), true},
		{SAMPLE(IN4, FAR4, 17, 65535, 53), true},
		{SAMPLE(IN4, FAR4, 17, 1023, 53), false}, // both ports count
		{SAMPLE(IN4, FAR4, 6, 40000, 443, .options = true), true},
		{SAMPLE(IN4, FAR4, 6, 40000, 444, .options = true), false},
		{SAMPLE("10.1.0.0", "192.168.192.63", 6, 40000, 443), true},
		{SAMPLE("10.1.1.0", FAR4, 6, 40000, 443), false},
		{SAMPLE("10.0.255.255", FAR4, 6, 40000, 443), false},
		{SAMPLE(IN4, "192.168.192.64", 6, 40000, 443), false},
		// Fragments: the first has its ports, the others have none.
		{SAMPLE(IN4, FAR4, 6, 40000, 443, .fragment = 0x2000), true},
		{SAMPLE(IN4, FAR4, 6, 40000, 443, .fragment = 0x2001), false},
		{SAMPLE(IN4, FAR4, 6, 40000, 443, .fragment = 0x0001), false},
		{SAMPLE(IN4, FAR4, 50, 1, 2, .fragment = 0x0001), true}, // all ports
		// Too short to have ports.
		{SAMPLE(IN4, FAR4, 6, 40000, 443, .cut = 4), true},
		{SAMPLE(IN4, FAR4, 6, 40000, 443, .cut = 3), false},
		{SAMPLE(IN4, FAR4, 6, 40000, 443, .cut = -1), false},
		{SAMPLE(IN4, FAR4, 50, 0, 0, .cut = -1), true},
		// ICMP: type and code.
		{SAMPLE(IN4, FAR4, 1, 8 << 8, 0), true},
		{SAMPLE(IN4, FAR4, 1, 0, 0), false},
		{SAMPLE(IN4, FAR4, 1, 8 << 8 | 1, 0), false},
		{SAMPLE(IN4, FAR4, 1, 8 << 8, 0, .cut = 2), true},
		{SAMPLE(IN4, FAR4, 1, 8 << 8, 0, .cut = 1), false},
		{SAMPLE(IN4, FAR4, 1, 8 << 8, 0, .fragment = 0x0001), false},
		{SAMPLE(IN6, FAR6, 6, 1, 1024), true},
		{SAMPLE(IN6, FAR6, 6, 1, 2047), true},
		{SAMPLE(IN6, FAR6, 6, 1, 2048), false},
		{SAMPLE(IN6, FAR6, 17, 1, 1024), false},
		{SAMPLE(IN6, FAR6, 6, 1, 1024, .options = true), true},
		{SAMPLE(IN6, FAR6, 6, 1, 1023, .options = true), false},
		{SAMPLE(IN6, FAR6, 6, 1, 1024, .fragment = 0x2000), true},
		{SAMPLE(IN6, FAR6, 6, 1, 1024, .fragment = 0x2000, .options = true), true},
		{SAMPLE(IN6, FAR6, 6, 1, 1024, .fragment = 0x0001), false},
		{SAMPLE(IN6, FAR6, 58, 128 << 8, 0, .fragment = 0x0001), true},
		{SAMPLE(IN6, "2001:db8:198::a", 6, 1, 1024), false},
		{SAMPLE("2001:db8:1:1::2", FAR6, 6, 1, 1024), false},
		{SAMPLE(IN6, "2001:db8:9::9", 17, 1, 2), true},
		{SAMPLE(IN6, "2001:db8:9::9", 200, 0, 0, .fragment = 0x0007), true},
		{SAMPLE(IN6, "2001:db8:9::8", 17, 1, 2), false},
	};
	struct selector_set *set = selectors_create(selectors, RTE_DIM(selectors));
	assert_non_null(set);
	for (size_t i = 0; i < RTE_DIM(cases); i++) {
		struct sample back = turned(&cases[i].sample);
		if (matches(set, &cases[i].sample, true) != cases[i].within)
			fail_msg("outbound case %zu", i);
		if (matches(set, &back, false) != cases[i].within)
			fail_msg("inbound case %zu", i);
	}
	selectors_free(set);
}

// An IPv6 packet of more extension headers than are walked shows no protocol.
static void test_headers_that_are_not_walked(void **state)
{
	(void)state;
	struct esp_selector only_tcp = selector("::/0", "::/0", 6),
			    any = selector("::/0", LOCAL6, 0);
	struct selector_set *tcp = selectors_create(&only_tcp, 1), *all = selectors_create(&any, 1);
	const struct sample sample = SAMPLE(FAR6, IN6, 6, 1, 2);
	uint8_t ip[40 + 9 * 8 + 20] = {0};
	put_ipv6(ip, &sample, 20 + 9 * 8);
	for (unsigned int i = 0; i < 9; i++)
		ip[40 + 8 * i] = i < 8 ? 60 : 6;
	ip[6] = 60;
	assert_false(selectors_match(tcp, ip, sizeof(ip), true));
	assert_true(selectors_match(all, ip, sizeof(ip), true));
	ip[6] = 6;
	assert_true(selectors_match(tcp, ip, sizeof(ip), true));
	selectors_free(tcp);
	selectors_free(all);
}

static void test_nothing_left_out(void **state)
{
	(void)state;
	struct esp_selector both[] = {
		selector("0.0.0.0/0", "0.0.0.0/0", 0), selector("::/0", "::/0", 0)};
	assert_true(selectors_allow_all(NULL, 0));
	assert_true(selectors_allow_all(both, 2));
	assert_false(selectors_allow_all(both, 1));
	assert_false(selectors_allow_all(both + 1, 1));
	struct selector_set *set = selectors_create(both, 1);
	const struct sample four = SAMPLE("1.2.3.4", "5.6.7.8", 6, 1, 2),
			    six = SAMPLE(IN6, FAR6, 6, 1, 2);
	assert_true(matches(set, &four, true));
	assert_false(matches(set, &six, true));
	selectors_free(set);
	both[1].protocol = 6;
	assert_false(selectors_allow_all(both, 2));
	both[1] = selector("::/0", "::/1", 0);
	assert_false(selectors_allow_all(both, 2));
}

// A burst of which some are left out: those get no sequence number, and are unchanged; the others
// come through the tunnel, and on the way in the same rule holds.
static void test_bursts(void **state)
{
	(void)state;
	enum { BURST = 8 };
	struct esp_selector ours = selector(LOCAL4, REMOTE4, 17),
			    theirs = selector(REMOTE4, LOCAL4, 17);
	ours.remote_ports = theirs.local_ports = (struct esp_ports){0, 4};
	struct esp_sa_out_parameters out = test_out_parameters(4);
	struct esp_sa_in_parameters in = test_in_parameters(64);
	out.selectors = &ours;
	out.selector_count = 1;
	struct esp_sa_out *sa_out = esp_sa_out_create(&out), *sa_any;
	struct esp_sa_in *sa_in, *sa_in_any = esp_sa_in_create(&in);
	in.selectors = &theirs;
	in.selector_count = 1;
	sa_in = esp_sa_in_create(&in);
	out.selector_count = 0;
	sa_any = esp_sa_out_create(&out);
	assert_non_null(sa_out);
	assert_non_null(sa_in);
	for (unsigned int round = 0; round < 2; round++) {
		struct rte_mbuf *packets[BURST];
		struct esp_sa_out *sas[BURST];
		struct esp_sa_in *receivers[BURST];
		uint8_t drops[BURST], classes[BURST] = {0}, ip[64];
		uint32_t size = 0;
		for (unsigned int i = 0; i < BURST; i++) {
			struct sample sample = SAMPLE(IN4, FAR4, 17, 9, (uint16_t)i);
			size = put_sample(ip, &sample);
			packets[i] = test_packet(ip, size);
			sas[i] = round == 0 ? sa_out : sa_any;
			receivers[i] = round == 0 ? sa_in_any : sa_in;
		}
		assert_int_equal(
			esp_encapsulate(context, packets, sas, drops, BURST), round == 0 ? 3 : 0);
		for (unsigned int i = 0; i < BURST; i++) {
			bool refused = round == 0 && i > 4;
			assert_int_equal(drops[i], refused ? DROP_SELECTOR : DROP_NONE);
			if (refused) {
				assert_memory_equal(test_data(packets[i]), ip, 22);
				assert_int_equal(packets[i]->pkt_len, size);
			} else {
				rte_pktmbuf_adj(packets[i], 20); // as receive does
			}
		}
		unsigned int sent = round == 0 ? 5 : BURST;
		assert_int_equal(esp_sa_out_next_sequence(sas[0]), sent + 1);
		assert_int_equal(esp_sa_out_counters(sas[0]).packets, sent);
		assert_int_equal(esp_decapsulate(context, packets, receivers, classes, drops, sent),
			round == 0 ? 0 : 3);
		assert_int_equal(esp_accepted(context).bytes, 5 * size);
		for (unsigned int i = 0; i < sent; i++)
			assert_int_equal(drops[i], i > 4 ? DROP_SELECTOR : DROP_NONE);
		struct esp_counters counters = esp_sa_in_counters(receivers[0]);
		assert_int_equal(counters.packets, 5);
		assert_int_equal(counters.bytes, 5 * size);
		assert_int_equal(esp_sa_in_top(receivers[0]), sent); // they were authentic
		for (unsigned int i = 0; i < BURST; i++)
			test_packet_free(packets[i]);
	}
	esp_sa_out_destroy(sa_out);
	esp_sa_out_destroy(sa_any);
	esp_sa_in_destroy(sa_in);
	esp_sa_in_destroy(sa_in_any);
}

int main(void)
{
	context = test_esp_start(ESP_CRYPTO_AUTO);
	if (context == NULL)
		return 1;
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_samples),
		cmocka_unit_test(test_headers_that_are_not_walked),
		cmocka_unit_test(test_nothing_left_out),
		cmocka_unit_test(test_bursts),
	};
	int failed = cmocka_run_group_tests(tests, NULL, NULL);
	esp_context_destroy(context);
	return failed;
}
