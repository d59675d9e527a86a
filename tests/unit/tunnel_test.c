// SPDX-License-Identifier: BSD-3-Clause
// Copyright (c) 2026 the espgw authors

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>

#include <rte_byteorder.h>

#include "eal.h"
#include "esp/sa.h"
#include "tunnel/spi_table.h"
#include "tunnel/tunnel.h"

#define MAX_SAS 16

static struct config_tunnel tunnels[2];
static struct config config;
static struct reclaim *reclaim;
static struct tunnel_table *table;
static struct tunnel_error error;

static struct packet_address address(const char *text)
{
	struct packet_address result;
	assert_true(packet_address_parse(text, &result));
	return result;
}

static void create_with(uint32_t max_sas)
{
	config.gateway.max_sas = max_sas;
	config.worker_count = 2;
	config.tunnels = tunnels;
	config.tunnel_count = 2;
	strcpy(tunnels[0].name, "tunnel01");
	strcpy(tunnels[1].name, "tunnel02");
	tunnels[0].mtu = 1438;
	tunnels[1].mtu = 1400;
	tunnels[0].packets_per_key = tunnels[1].packets_per_key = UINT32_MAX;
	reclaim = reclaim_create(2);
	assert_non_null(reclaim);
	table = tunnel_table_create(&config, reclaim);
	assert_non_null(table);
}

static int set_up(void **state)
{
	(void)state;
	create_with(MAX_SAS);
	return 0;
}

static int tear_down(void **state)
{
	(void)state;
	// A test that failed half-way leaves its worker online, who would be waited for.
	reclaim_worker_offline(reclaim, 0);
	tunnel_table_destroy(table);
	reclaim_destroy(reclaim);
	return 0;
}

static struct sa_parameters parameters_of(enum sa_direction direction, uint32_t spi)
{
	return (struct sa_parameters){
		.direction = direction,
		.spi = spi,
		.source = address("198.51.100.1"),
		.destination = address("203.0.113.1"),
		.key = {1, 2, 3},
		.window = 1024,
	};
}

static struct sa *add(unsigned int tunnel, enum sa_direction direction, uint32_t spi)
{
	struct sa_parameters parameters = parameters_of(direction, spi);
	struct sa *sa = sa_add(table, tunnel_get(table, tunnel), &parameters, &error);
	if (sa == NULL)
		print_error("%s\n", error.text);
	assert_non_null(sa);
	return sa;
}

static struct esp_sa_in *look_up(uint32_t spi, uint32_t *tunnel)
{
	uint32_t spi_be = rte_cpu_to_be_32(spi);
	struct esp_sa_in *sa;
	tunnel_lookup_spis(table, &spi_be, &sa, tunnel, 1);
	return sa;
}

static void assert_unknown(uint32_t spi)
{
	uint32_t tunnel;
	assert_null(look_up(spi, &tunnel));
}

static uint32_t current_spi(unsigned int tunnel)
{
	struct tunnel_egress *egress = atomic_load(&tunnel_get(table, tunnel)->egress);
	return egress == NULL ? 0 : esp_sa_out_spi(egress->sa);
}

static void test_tunnels_are_as_configured(void **state)
{
	(void)state;
	assert_int_equal(tunnel_count(table), 2);
	assert_ptr_equal(tunnel_find(table, "tunnel02"), tunnel_get(table, 1));
	assert_null(tunnel_find(table, "tunnel03"));
	assert_int_equal(tunnel_get(table, 1)->index, 1);
	assert_int_equal(tunnel_get(table, 1)->mtu, 1400);
	struct config_tunnel moved = tunnels[1];
	const char *const own[] = {"169.254.244.6", "2001:db8::6", "169.254.244.10"};
	for (size_t i = 0; i < RTE_DIM(own); i++) {
		moved.interface_address.address = address(own[i]);
		tunnel_configure(table, 1, &moved);
		struct packet_address read = tunnel_own_address(tunnel_get(table, 1));
		assert_true(packet_address_equal(&read, &moved.interface_address.address));
	}
	tunnel_configure(table, 1, &tunnels[1]);
	assert_int_equal(current_spi(0), 0);
	assert_null(sa_next(table, NULL));
}

static uint32_t offered(unsigned int index)
{
	const struct tunnel *tunnel = tunnel_get(table, index);
	return tunnel_offered_mtu(tunnel, atomic_load(&tunnel->egress));
}

// Over all that an outer header can be: what is offered fits the port, and one byte more does not.
static void test_the_offered_mtu_is_exact(void **state)
{
	(void)state;
	for (uint32_t port = 576; port <= 9216; port += port < 600 ? 1 : 431) {
		for (unsigned int way = 0; way < 4; way++) {
			bool udp = way % 2 != 0, six = way / 2 != 0;
			tunnels[0].mtu_is_computed = true;
			tunnels[0].outer_mtu = port;
			struct sa_parameters parameters = parameters_of(SA_OUTBOUND, 0x2000);
			if (six) {
				parameters.source = address("2001:db8::1");
				parameters.destination = address("2001:db8::2");
			}
			parameters.udp_source = parameters.udp_destination = udp ? 4500 : 0;
			struct sa *sa = sa_add(table, tunnel_get(table, 0), &parameters, &error);
			assert_non_null(sa);
			uint32_t mtu = offered(0);
			assert_true(esp_sa_out_outer_size(sa->out, mtu) <= port);
			assert_true(esp_sa_out_outer_size(sa->out, mtu + 1) > port);
			// A peer that moves behind a NAT, and back.
			for (unsigned int i = 1; i <= 2; i++) {
				uint16_t ports = (udp + i) % 2 != 0 ? 4500 : 0;
				assert_int_equal(
					sa_update(table, sa, NULL, NULL, ports, ports, &error), 0);
				mtu = offered(0);
				assert_true(esp_sa_out_outer_size(sa->out, mtu) <= port);
				assert_true(esp_sa_out_outer_size(sa->out, mtu + 1) > port);
			}
			sa_delete(table, sa);
			reclaim_poll(reclaim);
		}
	}
	tunnels[0].mtu_is_computed = false;
	assert_int_equal(offered(0), 1438); // without an SA, and by configuration
	add(0, SA_OUTBOUND, 0x2001);
	assert_int_equal(offered(0), 1438);
}

static void test_inbound_sas_work_beside_each_other_until_deleted(void **state)
{
	(void)state;
	struct sa *first = add(0, SA_INBOUND, 0x1000);
	struct sa *second = add(1, SA_INBOUND, 0x1001);
	uint32_t spis[] = {rte_cpu_to_be_32(0x1001), rte_cpu_to_be_32(0x1002),
		rte_cpu_to_be_32(0x1000), 0x1000};
	struct esp_sa_in *sas[4];
	uint32_t indexes[4];
	tunnel_lookup_spis(table, spis, sas, indexes, 4);
	assert_ptr_equal(sas[0], second->in);
	assert_int_equal(indexes[0], 1);
	assert_null(sas[1]);
	assert_ptr_equal(sas[2], first->in);
	assert_int_equal(indexes[2], 0);
	assert_null(sas[3]);
	assert_int_equal(current_spi(0), 0);
	assert_true(second->id > first->id);
	assert_ptr_equal(sa_next(table, NULL), first);
	assert_ptr_equal(sa_next(table, first), second);
	assert_ptr_equal(sa_find(table, SA_INBOUND, 0x1001, NULL), second);
	assert_null(sa_find(table, SA_OUTBOUND, 0x1001, NULL));
	assert_int_equal(sa_counters(first).packets, 0);
	sa_delete(table, first);
	assert_unknown(0x1000);
	assert_int_equal(sa_count(table), 1);
	uint32_t index;
	assert_ptr_equal(look_up(0x1001, &index), second->in);
}

static void test_reserved_spis_are_unknown_whatever_the_slots_hold(void **state)
{
	(void)state;
	// A worker that passes a quiescent state seldom keeps deleted slots held.
	reclaim_worker_online(reclaim, 0);
	for (unsigned int i = 0; i < 64; i++) {
		sa_delete(table, add(0, SA_INBOUND, 0x100 + i));
		for (uint32_t spi = 0; spi < 256; spi++)
			assert_unknown(spi);
		if (i % 16 == 15) {
			reclaim_quiescent(reclaim, 0);
			reclaim_poll(reclaim);
		}
	}
	reclaim_worker_offline(reclaim, 0);
}

static void test_a_stopped_sa_stays_listed_and_its_spi_taken(void **state)
{
	(void)state;
	struct sa *sa = add(0, SA_INBOUND, 0x5000);
	sa_stop(table, sa);
	assert_int_equal(sa->state, SA_HARD_EXPIRED);
	assert_unknown(0x5000);
	assert_ptr_equal(sa_next(table, NULL), sa);
	struct sa_parameters parameters = parameters_of(SA_INBOUND, 0x5000);
	assert_null(sa_add(table, tunnel_get(table, 0), &parameters, &error));
	assert_int_equal(errno, EEXIST);
	sa_stop(table, sa);
	sa_delete(table, sa);
	reclaim_synchronize(reclaim);
	add(0, SA_INBOUND, 0x5000);
	uint32_t tunnel;
	assert_non_null(look_up(0x5000, &tunnel));
}

static void refused(const struct sa_parameters *parameters, int code, const char *text)
{
	unsigned int count = sa_count(table);
	errno = 0;
	assert_null(sa_add(table, tunnel_get(table, 0), parameters, &error));
	assert_int_equal(errno, code);
	if (strstr(error.text, text) == NULL)
		fail_msg("\"%s\" lacks \"%s\"", error.text, text);
	assert_int_equal(sa_count(table), count);
}

static void test_bad_sas_are_refused(void **state)
{
	(void)state;
	add(0, SA_INBOUND, 0x4000);
	add(0, SA_OUTBOUND, 0x4000);
	const struct sa_parameters in = parameters_of(SA_INBOUND, 0x4001);
	const struct sa_parameters out = parameters_of(SA_OUTBOUND, 0x4001);
	struct sa_parameters bad = in;
	bad.spi = 255;
	refused(&bad, EINVAL, "SPI 0x000000ff");
	bad.spi = 0;
	refused(&bad, EINVAL, "reserved");
	bad.spi = 0x4000;
	refused(&bad, EEXIST, "tunnel01");
	bad = out;
	bad.spi = 0x4000;
	refused(&bad, EEXIST, "outbound");
	bad = in;
	bad.destination = address("2001:db8::1");
	refused(&bad, EINVAL, "family");
	bad.source.family = 0;
	refused(&bad, EINVAL, "source");
	for (uint32_t window = 1; window <= 131072; window++) {
		if (window >= 32 && window <= 65536 && (window & (window - 1)) == 0)
			continue;
		bad = in;
		bad.window = window;
		refused(&bad, EINVAL, "power of two");
	}
	bad = in;
	bad.window = 0;
	bad.esn = true;
	refused(&bad, EINVAL, "ESN");
	bad = out;
	bad.udp_source = 4500;
	refused(&bad, EINVAL, "UDP");
	bad = out;
	bad.selector_count = SA_SELECTORS + 1;
	refused(&bad, EINVAL, "selectors");
	assert_int_equal(current_spi(0), 0x4000);
	assert_unknown(0x4001);
}

// Workers must not share bursts from the moment on that such an SA can be found, until none holds
// it.
static void test_narrow_windows_are_known(void **state)
{
	(void)state;
	static const struct {
		enum sa_direction direction;
		uint32_t window;
		bool narrow;
	} cases[] = {
		{SA_INBOUND, 0, false},
		{SA_INBOUND, 32, true},
		{SA_INBOUND, TUNNEL_WINDOW_NARROW / 2, true},
		{SA_INBOUND, TUNNEL_WINDOW_NARROW, false},
		{SA_INBOUND, 65536, false},
		{SA_OUTBOUND, 0, false},
	};
	assert_false(tunnel_has_narrow_window(table));
	for (unsigned int i = 0; i < RTE_DIM(cases); i++) {
		struct sa_parameters parameters = parameters_of(cases[i].direction, 0x6000);
		struct sa *sas[2];
		parameters.window = cases[i].window;
		for (unsigned int j = 0; j < 2; j++) {
			parameters.spi = 0x6000 + j;
			sas[j] = sa_add(table, tunnel_get(table, j), &parameters, &error);
			assert_non_null(sas[j]);
			assert_true(tunnel_has_narrow_window(table) == cases[i].narrow);
		}
		sa_delete(table, sas[0]);
		reclaim_synchronize(reclaim);
		assert_true(tunnel_has_narrow_window(table) == cases[i].narrow);
		reclaim_worker_online(reclaim, 0);
		sa_delete(table, sas[1]);
		assert_int_not_equal(reclaim_poll(reclaim), 0);
		assert_true(tunnel_has_narrow_window(table) == cases[i].narrow);
		reclaim_worker_offline(reclaim, 0);
		reclaim_synchronize(reclaim);
		assert_false(tunnel_has_narrow_window(table));
	}
}

static void test_no_more_than_max_sas(void **state)
{
	(void)state;
	for (unsigned int i = 0; i < MAX_SAS; i++)
		add(0, i % 2 == 0 ? SA_INBOUND : SA_OUTBOUND, 0x1000 + i);
	struct sa_parameters parameters = parameters_of(SA_INBOUND, 0x2000);
	refused(&parameters, ENOSPC, "max_sas");
	sa_delete(table, sa_find(table, SA_OUTBOUND, 0x1001, NULL));
	add(0, SA_INBOUND, 0x2000);
}

static void test_the_newest_outbound_sa_carries_the_traffic(void **state)
{
	(void)state;
	struct sa *first = add(0, SA_OUTBOUND, 0x1001);
	assert_int_equal(current_spi(0), 0x1001);
	struct sa *second = add(0, SA_OUTBOUND, 0x1002);
	struct sa *third = add(0, SA_OUTBOUND, 0x1003);
	struct sa *fourth = add(0, SA_OUTBOUND, 0x1004);
	add(0, SA_INBOUND, 0x1005);
	add(1, SA_OUTBOUND, 0x1006);
	assert_int_equal(current_spi(0), 0x1004);
	assert_ptr_equal(tunnel_get(table, 0)->current, fourth);
	sa_delete(table, first);
	assert_int_equal(current_spi(0), 0x1004);
	sa_stop(table, third);
	assert_int_equal(current_spi(0), 0x1004);
	sa_delete(table, fourth);
	assert_int_equal(current_spi(0), 0x1002);
	sa_stop(table, second);
	assert_int_equal(current_spi(0), 0);
	assert_null(tunnel_get(table, 0)->current);
	sa_delete(table, second);
	sa_delete(table, third);
	assert_int_equal(current_spi(0), 0);
	assert_int_equal(current_spi(1), 0x1006);
}

static uint32_t last_byte(void *argument, const struct packet_address *destination)
{
	return *(uint32_t *)argument + destination->bytes[3];
}

static uint32_t adjacency_of(unsigned int tunnel)
{
	return atomic_load(&atomic_load(&tunnel_get(table, tunnel)->egress)->adjacency);
}

static void test_paths_are_resolved(void **state)
{
	(void)state;
	uint32_t base = 100;
	struct sa *early = add(0, SA_OUTBOUND, 0x1001);
	assert_int_equal(adjacency_of(0), TUNNEL_NO_PATH);
	tunnel_set_resolver(table, last_byte, &base);
	tunnel_resolve_all(table);
	assert_int_equal(adjacency_of(0), 101);
	struct sa *late = add(0, SA_OUTBOUND, 0x1002);
	base = 200;
	tunnel_resolve_all(table);
	assert_int_equal(adjacency_of(0), 201);
	struct packet_address moved = address("203.0.113.9");
	assert_int_equal(sa_update(table, late, NULL, &moved, 4500, 4501, &error), 0);
	assert_int_equal(adjacency_of(0), 209);
	assert_true(packet_address_equal(&late->destination, &moved));
	assert_int_equal(late->udp_destination, 4501);
	// An SA that was not current meanwhile is resolved when it becomes so.
	sa_delete(table, late);
	assert_ptr_equal(tunnel_get(table, 0)->current, early);
	assert_int_equal(adjacency_of(0), 201);
	struct packet_address other = address("203.0.113.1");
	add(1, SA_OUTBOUND, 0x1002);
	assert_ptr_equal(sa_find(table, SA_OUTBOUND, 0x1002, &other)->tunnel, tunnel_get(table, 1));
}

static void test_last_sequence_numbers(void **state)
{
	(void)state;
	static const struct {
		uint32_t per_key;
		bool esn;
		uint64_t hard, last;
	} cases[] = {
		{UINT32_MAX, false, 0, UINT32_MAX},
		{UINT32_MAX, false, 77, 77},
		{UINT32_MAX, true, 0, ESP_SEQUENCE_END_ESN},
		{UINT32_MAX, true, 5000000000, 5000000000},
		{1024, false, 0, 1024},
		{1024, true, 0, 1024},
		{1024, false, 1023, 1023},
		{1024, true, 1025, 1024},
	};
	for (uint32_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct sa_parameters parameters = parameters_of(SA_OUTBOUND, 0x1000 + i);
		tunnels[0].packets_per_key = cases[i].per_key;
		parameters.esn = cases[i].esn;
		parameters.hard.packets = cases[i].hard;
		const struct sa *sa = sa_add(table, tunnel_get(table, 0), &parameters, &error);
		assert_non_null(sa);
		assert_true(sa->out->last_sequence == cases[i].last);
	}
}

static void test_updates_are_checked_first(void **state)
{
	(void)state;
	struct sa *out = add(0, SA_OUTBOUND, 0x1001);
	struct sa_parameters elsewhere = parameters_of(SA_OUTBOUND, 0x1001);
	elsewhere.destination = address("203.0.113.2");
	assert_non_null(sa_add(table, tunnel_get(table, 1), &elsewhere, &error));
	struct packet_address six = address("2001:db8::1"), far = elsewhere.destination;
	assert_int_equal(sa_update(table, out, NULL, &six, 0, 0, &error), -EINVAL);
	assert_int_equal(sa_update(table, out, NULL, NULL, 4500, 0, &error), -EINVAL);
	assert_int_equal(sa_update(table, out, NULL, &far, 0, 0, &error), -EEXIST);
	assert_true(out->destination.bytes[3] == 1 && out->udp_source == 0);
	assert_ptr_equal(sa_find(table, SA_OUTBOUND, 0x1001, &far)->tunnel, tunnel_get(table, 1));
	struct sa *in = add(0, SA_INBOUND, 0x1001);
	assert_int_equal(sa_update(table, in, &far, &far, 4500, 4500, &error), 0);
	assert_true(packet_address_equal(&in->source, &far));
	uint32_t sender;
	memcpy(&sender, far.bytes, sizeof(sender));
	assert_true(in->in->sender == esp_sender_v4(sender, rte_cpu_to_be_16(4500)));
	assert_int_equal(sa_update(table, in, NULL, NULL, 0, 0, &error), 0);
	assert_true(in->in->sender == 0);
	assert_ptr_equal(sa_find(table, SA_INBOUND, 0x1001, NULL), in);
}

static void test_spis_are_handed_out_once(void **state)
{
	(void)state;
	uint32_t spis[MAX_SAS];
	for (unsigned int i = 0; i < MAX_SAS; i++) {
		spis[i] = tunnel_spi_reserve(table);
		assert_true(spis[i] >= 256);
		assert_true(tunnel_spi_is_reserved(table, spis[i]));
		for (unsigned int j = 0; j < i; j++)
			assert_int_not_equal(spis[i], spis[j]);
	}
	assert_int_equal(tunnel_spi_reserve(table), 0);
	tunnel_spi_release(table, spis[3]);
	assert_false(tunnel_spi_is_reserved(table, spis[3]));
	tunnel_spi_release(table, spis[3]);
	add(0, SA_OUTBOUND, spis[4]);
	assert_true(tunnel_spi_is_reserved(table, spis[4]));
	add(0, SA_INBOUND, spis[4]);
	assert_false(tunnel_spi_is_reserved(table, spis[4]));
	for (unsigned int i = 5; i < MAX_SAS; i++)
		assert_true(tunnel_spi_is_reserved(table, spis[i]));
	assert_int_not_equal(tunnel_spi_reserve(table), 0);
}

// Any pointer does for a table that never looks behind it.
static struct esp_sa_in *token(uintptr_t number)
{
	return (struct esp_sa_in *)(number << 4);
}

static struct esp_sa_in *look_up_in(const struct spi_table *spis, uint32_t spi)
{
	uint32_t spi_be = rte_cpu_to_be_32(spi), tunnel;
	struct esp_sa_in *sa;
	spi_table_lookup(spis, &spi_be, &sa, &tunnel, 1);
	return sa;
}

// SPIs that begin at one slot, found by inserting them alone into an empty table.
static void find_colliding(struct spi_table *spis, uint32_t *found, unsigned int count)
{
	uint32_t home = UINT32_MAX, slot;
	for (uint32_t spi = 256, i = 0; i < count; spi++) {
		assert_true(spi_table_insert(spis, spi, token(spi), 0, &slot));
		spi_table_remove(spis, slot);
		spi_table_release(spis, slot);
		if (home == UINT32_MAX)
			home = slot;
		if (slot == home)
			found[i++] = spi;
	}
	assert_int_equal(spis->used, 0);
}

static void test_a_slot_is_reused_only_after_its_grace_period(void **state)
{
	(void)state;
	struct spi_table spis;
	assert_int_equal(spi_table_create(&spis, MAX_SAS), 0);
	uint32_t spi[4], slots[4];
	find_colliding(&spis, spi, 4);
	for (unsigned int i = 0; i < 3; i++)
		assert_true(spi_table_insert(&spis, spi[i], token(i + 1), 0, &slots[i]));
	spi_table_remove(&spis, slots[1]);
	assert_null(look_up_in(&spis, spi[1]));
	assert_ptr_equal(look_up_in(&spis, spi[2]), token(3)); // found past the deleted one
	assert_true(spi_table_insert(&spis, spi[3], token(4), 0, &slots[3]));
	assert_int_not_equal(slots[3], slots[1]);
	// What a worker may still read there is untouched.
	assert_ptr_equal(atomic_load(&spis.slots[slots[1]].sa), token(2));
	spi_table_release(&spis, slots[1]);
	assert_ptr_equal(look_up_in(&spis, spi[2]), token(3));
	uint32_t slot;
	assert_true(spi_table_insert(&spis, spi[1], token(5), 0, &slot));
	assert_int_equal(slot, slots[1]);
	assert_int_equal(spis.used, 4);
	// Released from front to back, the marks of all are cleaned with the last.
	for (unsigned int i = 0; i < 4; i++)
		spi_table_remove(&spis, slots[i]);
	for (unsigned int i = 0; i < 3; i++)
		spi_table_release(&spis, slots[i]);
	assert_int_equal(spis.used, 4);
	spi_table_release(&spis, slots[3]);
	assert_int_equal(spis.used, 0);
	spi_table_destroy(&spis);
}

static void test_a_full_spi_table_still_ends_its_probes(void **state)
{
	(void)state;
	struct spi_table spis;
	assert_int_equal(spi_table_create(&spis, 1), 0);
	uint32_t slot, spi = 1000;
	while (spi_table_insert(&spis, spi, token(spi), 0, &slot))
		spi++;
	assert_int_equal(spis.used, spis.mask + 1);
	assert_true(spi_table_is_crowded(&spis));
	assert_null(look_up_in(&spis, spi));
	for (uint32_t i = 1000; i < spi; i++)
		assert_ptr_equal(look_up_in(&spis, i), token(i));
	spi_table_destroy(&spis);
}

// Deleted SAs are not freed for long, because nobody polls.
static void test_many_sas_come_and_go_within_a_grace_period(void **state)
{
	(void)state;
	struct sa *stays = add(1, SA_INBOUND, 0x77777777);
	uint32_t tunnel;
	for (uint32_t i = 0; i < 1000; i++) {
		sa_delete(table, add(0, SA_INBOUND, 0x1000 + i));
		assert_unknown(0x1000 + i);
		assert_ptr_equal(look_up(0x77777777, &tunnel), stays->in);
		assert_int_equal(tunnel, 1);
	}
}

#define MODEL_SPIS 24

static void test_lookups_agree_with_a_plain_model(void **state)
{
	(void)state;
	struct sa *model[MODEL_SPIS] = {NULL};
	srand(4);
	for (unsigned int step = 0; step < 20000; step++) {
		unsigned int i = (unsigned int)rand() % MODEL_SPIS;
		uint32_t spi = 0x100 + i * 0x10000;
		if (model[i] != NULL) {
			sa_delete(table, model[i]);
			model[i] = NULL;
		} else if (sa_count(table) < MAX_SAS) {
			model[i] = add(i % 2, SA_INBOUND, spi);
		}
		if (rand() % 8 == 0)
			reclaim_poll(reclaim);
		for (unsigned int j = 0; j < MODEL_SPIS; j++) {
			uint32_t tunnel;
			struct esp_sa_in *seen = look_up(0x100 + j * 0x10000, &tunnel);
			assert_ptr_equal(seen, model[j] == NULL ? NULL : model[j]->in);
			if (model[j] != NULL)
				assert_int_equal(tunnel, j % 2);
		}
	}
}

#define CHURN_SPIS   64
#define CHURN_STEPS  20000
#define STEADY_SPIS  8
#define STEADY_FIRST 0x2000
#define CHURN_FIRST  0x1000

struct reader {
	pthread_t thread;
	unsigned int worker;
	uint64_t found, wrong;
};

static atomic_bool stop_readers;

// Each SPI's tunnel follows from the SPI, and the SA must be the SPI's own and alive.
static void read_burst(struct reader *reader, unsigned int *seed)
{
	uint32_t spis[ESP_BURST_MAX], indexes[ESP_BURST_MAX];
	struct esp_sa_in *sas[ESP_BURST_MAX];
	for (unsigned int i = 0; i < ESP_BURST_MAX; i++) {
		uint32_t spi = i < STEADY_SPIS ? STEADY_FIRST + i
					       : CHURN_FIRST + (uint32_t)rand_r(seed) % CHURN_SPIS;
		spis[i] = rte_cpu_to_be_32(spi);
	}
	tunnel_lookup_spis(table, spis, sas, indexes, ESP_BURST_MAX);
	for (unsigned int i = 0; i < ESP_BURST_MAX; i++) {
		uint32_t spi = rte_be_to_cpu_32(spis[i]);
		if (sas[i] == NULL) {
			reader->wrong += i < STEADY_SPIS;
			continue;
		}
		reader->found++;
		reader->wrong += esp_sa_in_spi(sas[i]) != spi || indexes[i] != spi % 2;
	}
	struct tunnel_egress *egress = atomic_load(&tunnel_get(table, 0)->egress);
	if (egress == NULL)
		return;
	uint32_t out = esp_sa_out_spi(egress->sa);
	reader->wrong += out < CHURN_FIRST || out >= CHURN_FIRST + CHURN_SPIS ||
			 atomic_load(&egress->adjacency) != 8;
}

static void *read_until_stopped(void *argument)
{
	struct reader *reader = argument;
	unsigned int seed = reader->worker;
	reclaim_worker_online(reclaim, reader->worker);
	while (!atomic_load_explicit(&stop_readers, memory_order_relaxed)) {
		read_burst(reader, &seed);
		reclaim_quiescent(reclaim, reader->worker);
	}
	reclaim_worker_offline(reclaim, reader->worker);
	return NULL;
}

static void toggle(struct sa **sa, enum sa_direction direction, uint32_t spi)
{
	if (*sa == NULL) {
		*sa = add(direction == SA_OUTBOUND ? 0 : spi % 2, direction, spi);
		return;
	}
	if (direction == SA_INBOUND && spi % 3 == 0)
		sa_stop(table, *sa);
	sa_delete(table, *sa);
	*sa = NULL;
}

static void test_workers_look_up_while_control_changes(void **state)
{
	(void)state;
	uint32_t base = 7;
	tunnel_table_destroy(table);
	reclaim_destroy(reclaim);
	create_with(160);
	tunnel_set_resolver(table, last_byte, &base);
	for (unsigned int i = 0; i < STEADY_SPIS; i++)
		add(i % 2, SA_INBOUND, STEADY_FIRST + i);
	struct sa *in[CHURN_SPIS] = {NULL}, *out[CHURN_SPIS] = {NULL};
	struct reader readers[2] = {{.worker = 0}, {.worker = 1}};
	atomic_store(&stop_readers, false);
	for (unsigned int i = 0; i < 2; i++)
		assert_int_equal(
			pthread_create(&readers[i].thread, NULL, read_until_stopped, &readers[i]),
			0);
	srand(5);
	for (unsigned int step = 0; step < CHURN_STEPS; step++) {
		unsigned int i = (unsigned int)rand() % CHURN_SPIS;
		if (rand() % 2 == 0)
			toggle(&in[i], SA_INBOUND, CHURN_FIRST + i);
		else
			toggle(&out[i], SA_OUTBOUND, CHURN_FIRST + i);
		reclaim_poll(reclaim);
	}
	atomic_store(&stop_readers, true);
	for (unsigned int i = 0; i < 2; i++) {
		pthread_join(readers[i].thread, NULL);
		assert_int_equal(readers[i].wrong, 0);
		assert_true(readers[i].found > 0);
	}
}

int main(void)
{
	if (test_eal_start("64") != 0)
		return 1;
#define TEST(function) cmocka_unit_test_setup_teardown(function, set_up, tear_down)
	const struct CMUnitTest tests[] = {
		TEST(test_tunnels_are_as_configured),
		TEST(test_the_offered_mtu_is_exact),
		TEST(test_inbound_sas_work_beside_each_other_until_deleted),
		TEST(test_reserved_spis_are_unknown_whatever_the_slots_hold),
		TEST(test_a_stopped_sa_stays_listed_and_its_spi_taken),
		TEST(test_bad_sas_are_refused),
		TEST(test_narrow_windows_are_known),
		TEST(test_no_more_than_max_sas),
		TEST(test_the_newest_outbound_sa_carries_the_traffic),
		TEST(test_paths_are_resolved),
		TEST(test_last_sequence_numbers),
		TEST(test_updates_are_checked_first),
		TEST(test_spis_are_handed_out_once),
		TEST(test_a_slot_is_reused_only_after_its_grace_period),
		TEST(test_a_full_spi_table_still_ends_its_probes),
		TEST(test_many_sas_come_and_go_within_a_grace_period),
		TEST(test_lookups_agree_with_a_plain_model),
		TEST(test_workers_look_up_while_control_changes),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
