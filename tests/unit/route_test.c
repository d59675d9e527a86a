// SPDX-License-Identifier: BSD-3-Clause
// Copyright (c) 2026 the espgw authors

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <math.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>

#include "eal.h"
#include "route/route.h"
#include "route/table.h"

#define MAX_ROUTES 1000

static struct reclaim *reclaim;
static struct route_table *table;

static void create_with(uint32_t max_routes)
{
	reclaim = reclaim_create(2);
	assert_non_null(reclaim);
	table = route_table_create("routes", max_routes, reclaim);
	assert_non_null(table);
}

static int set_up(void **state)
{
	(void)state;
	create_with(MAX_ROUTES);
	return 0;
}

static int tear_down(void **state)
{
	(void)state;
	// Whatever a test did: once all routes are gone, all nodes and groups are back.
	for (unsigned int origin = 0; origin < ROUTE_ORIGINS; origin++)
		route_delete_origin(table, origin);
	assert_int_equal(route_count(table), 0);
	assert_int_equal(table->nodes.pool.free, table->nodes.pool.capacity);
	assert_int_equal(table->groups.pool.free, table->groups.pool.capacity);
	assert_null(table->groups.vias);
	route_table_destroy(table);
	reclaim_destroy(reclaim);
	return 0;
}

static struct packet_prefix prefix_of(const char *text)
{
	struct packet_prefix prefix;
	assert_true(packet_prefix_parse(text, &prefix));
	return prefix;
}

static struct route_path path_to(uint32_t tunnel)
{
	return (struct route_path){
		.target = {ROUTE_TUNNEL, tunnel},
		.origin = ROUTE_ORIGIN_CONFIG,
		.priority = 100,
		.weight = 1,
	};
}

static void add_path(const char *prefix, struct route_path path)
{
	struct packet_prefix parsed = prefix_of(prefix);
	assert_int_equal(route_add(table, &parsed, &path), 0);
}

static void add(const char *prefix, uint32_t tunnel)
{
	add_path(prefix, path_to(tunnel));
}

static int delete (const char *prefix, uint32_t tunnel, enum route_origin origin)
{
	struct packet_prefix parsed = prefix_of(prefix);
	struct route_target target = {ROUTE_TUNNEL, tunnel};
	return route_delete(table, &parsed, &target, origin);
}

#define NO_ROUTE UINT32_MAX

static uint32_t look_up(const char *text)
{
	struct packet_address address;
	struct packet_prefix matched;
	assert_true(packet_address_parse(text, &address));
	struct route_target worker = route_lookup(table, &address, NULL);
	struct route_target control = route_lookup(table, &address, &matched);
	assert_int_equal(worker.kind, control.kind);
	assert_int_equal(worker.index, control.index);
	if (worker.kind != ROUTE_NONE)
		assert_true(packet_prefix_contains(&matched, &address));
	return worker.kind == ROUTE_NONE ? NO_ROUTE : worker.index;
}

static void test_the_longest_prefix_wins(void **state)
{
	(void)state;
	assert_int_equal(look_up("10.1.2.3"), NO_ROUTE);
	add("10.0.0.0/8", 1);
	add("10.1.2.3/32", 4);
	add("10.1.2.0/24", 3);
	add("10.1.0.0/16", 2);
	add("10.1.2.128/25", 5);
	assert_int_equal(look_up("10.1.2.3"), 4);
	assert_int_equal(look_up("10.1.2.4"), 3);
	assert_int_equal(look_up("10.1.2.200"), 5);
	assert_int_equal(look_up("10.1.3.1"), 2);
	assert_int_equal(look_up("10.255.255.255"), 1);
	assert_int_equal(look_up("11.0.0.0"), NO_ROUTE);
	assert_int_equal(delete ("10.1.2.0/24", 3, ROUTE_ORIGIN_CONFIG), 0);
	assert_int_equal(look_up("10.1.2.3"), 4);
	assert_int_equal(look_up("10.1.2.4"), 2);
	assert_int_equal(delete ("10.1.2.3/32", 4, ROUTE_ORIGIN_CONFIG), 0);
	assert_int_equal(look_up("10.1.2.3"), 2);
	add("2001:db8::/32", 11);
	add("2001:db8::1/128", 12);
	add("2001:db8:0:0:8000::/65", 13);
	assert_int_equal(look_up("2001:db8::1"), 12);
	assert_int_equal(look_up("2001:db8::2"), 11);
	assert_int_equal(look_up("2001:db8::8000:0:0:1"), 13);
	assert_int_equal(look_up("2001:db9::"), NO_ROUTE);
	assert_int_equal(route_count(table), 6);
}

static void test_default_routes(void **state)
{
	(void)state;
	add("0.0.0.0/0", 1);
	assert_int_equal(look_up("192.0.2.1"), 1);
	assert_int_equal(look_up("255.255.255.255"), 1);
	assert_int_equal(look_up("::1"), NO_ROUTE);
	add("::/0", 2);
	assert_int_equal(look_up("::1"), 2);
	assert_int_equal(look_up("0.0.0.0"), 1);
	add("192.0.2.0/31", 3);
	add("128.0.0.0/1", 4);
	assert_int_equal(look_up("192.0.2.1"), 3);
	assert_int_equal(look_up("192.0.2.2"), 4);
	assert_int_equal(look_up("127.255.255.255"), 1);
	assert_int_equal(delete ("192.0.2.0/31", 3, ROUTE_ORIGIN_CONFIG), 0);
	assert_int_equal(delete ("128.0.0.0/1", 4, ROUTE_ORIGIN_CONFIG), 0);
	assert_int_equal(look_up("192.0.2.1"), 1);
	assert_int_equal(delete ("0.0.0.0/0", 1, ROUTE_ORIGIN_CONFIG), 0);
	assert_int_equal(look_up("192.0.2.1"), NO_ROUTE);
	assert_int_equal(look_up("ff02::1"), 2);
}

static void test_priority_then_origin_decide(void **state)
{
	(void)state;
	struct route_path path = path_to(1);
	add_path("10.0.0.0/8", path);
	path.target.index = 2;
	path.priority = 50;
	path.origin = ROUTE_ORIGIN_KERNEL;
	add_path("10.0.0.0/8", path);
	assert_int_equal(look_up("10.0.0.1"), 2);
	path.target.index = 3;
	path.origin = ROUTE_ORIGIN_AGENT;
	add_path("10.0.0.0/8", path);
	assert_int_equal(look_up("10.0.0.1"), 3);
	assert_int_equal(route_count(table), 1);
	// Added again with another priority: changed, not doubled.
	path.priority = 200;
	add_path("10.0.0.0/8", path);
	assert_int_equal(look_up("10.0.0.1"), 2);
	assert_int_equal(delete ("10.0.0.0/8", 2, ROUTE_ORIGIN_AGENT), -ENOENT);
	assert_int_equal(delete ("10.0.0.0/8", 2, ROUTE_ORIGIN_KERNEL), 0);
	assert_int_equal(look_up("10.0.0.1"), 1);
	assert_int_equal(delete ("10.0.0.0/8", 1, ROUTE_ORIGIN_CONFIG), 0);
	assert_int_equal(look_up("10.0.0.1"), 3);
	assert_int_equal(delete ("10.0.0.0/8", 3, ROUTE_ORIGIN_AGENT), 0);
	assert_int_equal(delete ("10.0.0.0/8", 3, ROUTE_ORIGIN_AGENT), -ENOENT);
	assert_int_equal(look_up("10.0.0.1"), NO_ROUTE);
}

static void test_generation_tells_when_lookups_change(void **state)
{
	(void)state;
	uint64_t before = route_generation(table);
	add("10.0.0.0/8", 1);
	assert_int_not_equal(route_generation(table), before);
	before = route_generation(table);
	add("10.0.0.0/8", 1);
	struct route_path standby = path_to(2);
	standby.priority = 500;
	add_path("10.0.0.0/8", standby);
	assert_int_equal(delete ("10.0.0.0/8", 2, ROUTE_ORIGIN_CONFIG), 0);
	assert_int_equal(route_generation(table), before);
	assert_int_equal(delete ("10.0.0.0/8", 1, ROUTE_ORIGIN_CONFIG), 0);
	assert_int_not_equal(route_generation(table), before);
}

static void test_equal_sets_of_paths_share_a_group(void **state)
{
	(void)state;
	uint32_t before = table->groups.pool.free;
	add("10.0.0.0/8", 1);
	add("10.0.0.0/8", 2);
	add("11.0.0.0/8", 2);
	add("11.0.0.0/8", 1);
	add("2001:db8::/32", 1);
	add("2001:db8::/32", 2);
	assert_int_equal(before - table->groups.pool.free, 1);
	struct route_path heavy = path_to(2);
	heavy.weight = 7;
	add_path("11.0.0.0/8", heavy);
	assert_int_equal(before - table->groups.pool.free, 2);
	assert_int_equal(look_up("11.0.0.1"), 1);
}

struct walk {
	char text[512];
	unsigned int stop;
};

static bool note(const struct packet_prefix *prefix, const struct route_path *path, bool best,
	void *argument)
{
	struct walk *walk = argument;
	char text[PACKET_PREFIX_TEXT];
	size_t used = strlen(walk->text);
	snprintf(walk->text + used, sizeof(walk->text) - used, "%s %u%s;",
		packet_prefix_format(prefix, text), path->target.index, best ? "*" : "");
	return --walk->stop > 0;
}

static int set_penalty(uint32_t tunnel, uint32_t penalty)
{
	struct route_target target = {ROUTE_TUNNEL, tunnel};
	int result = route_set_penalty(table, &target, penalty);
	assert_int_equal(route_penalty(table, &target), penalty);
	return result;
}

static void add_two_tunnels(const char *prefix)
{
	add(prefix, 1);
	struct route_path standby = path_to(2);
	standby.priority = 200;
	add_path(prefix, standby);
}

// Cloudflare's example: 100 becomes 1,000,100, then 500,100, then 100 again, beside a standby of
// 200.
static void test_a_penalty_moves_traffic_to_the_standby(void **state)
{
	(void)state;
	add_two_tunnels("192.168.192.0/26");
	add_two_tunnels("0.0.0.0/0");
	static const struct {
		uint32_t tunnel, penalty, used;
	} steps[] = {
		{1, ROUTE_PENALTY_DOWN, 2},
		{1, ROUTE_PENALTY_DEGRADED, 2},
		{2, ROUTE_PENALTY_DEGRADED, 1}, // both the same: the priorities decide
		{2, ROUTE_PENALTY_DOWN, 1},
		{1, ROUTE_PENALTY_DOWN, 1},
		{2, ROUTE_PENALTY_DEGRADED, 2}, // the best of those that are unhealthy
		{2, 0, 2},
		{1, 0, 1},
		{1, 99, 1},
		{1, 101, 2},
		{1, 0, 1},
		{7, ROUTE_PENALTY_DOWN, 1}, // no path leads there
		{7, 0, 1},
	};
	uint32_t before = 1;
	for (unsigned int i = 0; i < RTE_DIM(steps); i++) {
		uint64_t generation = route_generation(table);
		assert_int_equal(set_penalty(steps[i].tunnel, steps[i].penalty), 0);
		assert_int_equal(look_up("192.168.192.1"), steps[i].used);
		assert_int_equal(look_up("192.0.2.1"), steps[i].used);
		assert_int_equal(route_generation(table) != generation, steps[i].used != before);
		before = steps[i].used;
	}
}

static void test_a_penalty_stays_with_the_target(void **state)
{
	(void)state;
	assert_int_equal(set_penalty(1, ROUTE_PENALTY_DOWN), 0);
	add_two_tunnels("10.0.0.0/8");
	assert_int_equal(look_up("10.0.0.1"), 2);
	assert_int_equal(delete ("10.0.0.0/8", 2, ROUTE_ORIGIN_CONFIG), 0);
	assert_int_equal(look_up("10.0.0.1"), 1); // never removed
	assert_int_equal(delete ("10.0.0.0/8", 1, ROUTE_ORIGIN_CONFIG), 0);
	add_two_tunnels("10.0.0.0/8");
	assert_int_equal(look_up("10.0.0.1"), 2);
	struct route_path worst = path_to(2);
	worst.priority = UINT32_MAX - 5;
	add_path("11.0.0.0/8", worst);
	worst.target.index = 1;
	add_path("11.0.0.0/8", worst); // its sum is over what 32 bits hold
	assert_int_equal(look_up("11.0.0.1"), 2);
	assert_int_equal(set_penalty(1, 0), 0);
	assert_int_equal(look_up("10.0.0.1"), 1);
	assert_int_equal(look_up("11.0.0.1"), 1);
	struct walk walk = {.stop = 100};
	assert_int_equal(set_penalty(1, ROUTE_PENALTY_DEGRADED), 0);
	route_walk(table, note, &walk);
	assert_string_equal(walk.text, "10.0.0.0/8 1;10.0.0.0/8 2*;11.0.0.0/8 1;11.0.0.0/8 2*;");
	assert_int_equal(set_penalty(1, 0), 0);
}

static void test_a_penalty_changes_one_group_for_all_its_prefixes(void **state)
{
	(void)state;
	uint32_t before = table->groups.pool.free;
	for (unsigned int i = 0; i < 250; i++) {
		char text[PACKET_PREFIX_TEXT];
		snprintf(text, sizeof(text), "10.%u.0.0/16", i);
		add_two_tunnels(text);
	}
	assert_int_equal(before - table->groups.pool.free, 1);
	assert_int_equal(set_penalty(1, ROUTE_PENALTY_DOWN), 0);
	assert_int_equal(before - table->groups.pool.free, 1);
	assert_int_equal(look_up("10.0.0.1"), 2);
	assert_int_equal(look_up("10.249.0.1"), 2);
	assert_int_equal(set_penalty(1, 0), 0);
}

// ---- Sharing ----

struct shares_case {
	unsigned int count;
	struct route_share shares[ROUTE_SHARES_MAX];
};

static struct shares_case random_shares(unsigned int count)
{
	struct shares_case random = {.count = count};
	for (unsigned int i = 0; i < count; i++)
		random.shares[i] = (struct route_share){
			{ROUTE_TUNNEL, i * 7 + (uint32_t)rand() % 7},
			rand() % 2 == 0 ? 1 : 1 + (uint32_t)rand() % 256,
		};
	return random;
}

static void assert_shares_are_as_the_weights(const struct shares_case *wanted)
{
	struct route_shares *shares = route_shares_create(wanted->shares, wanted->count);
	double total = 0;
	unsigned int slots[ROUTE_SHARES_MAX] = {0};
	for (unsigned int i = 0; i < wanted->count; i++)
		total += wanted->shares[i].weight;
	for (unsigned int slot = 0; slot < ROUTE_SLOTS; slot++)
		slots[shares->slots[slot]]++;
	for (unsigned int i = 0; i < wanted->count; i++) {
		double part = wanted->shares[i].weight / total;
		double error = slots[i] / (double)ROUTE_SLOTS - part;
		double bound = 4 * sqrt(part * (1 - part) / ROUTE_SLOTS);
		if (fabs(error) > bound)
			fail_msg("of %u: a part of %f is off by %f", wanted->count, part, error);
	}
	free(shares);
}

static void test_shares_are_as_the_weights_say(void **state)
{
	(void)state;
	struct shares_case equal = {
		.count = 2, .shares = {{{ROUTE_TUNNEL, 0}, 1}, {{ROUTE_TUNNEL, 1}, 1}}};
	assert_shares_are_as_the_weights(&equal);
	equal.shares[1].weight = 3;
	assert_shares_are_as_the_weights(&equal);
	equal.shares[1].weight = 256;
	assert_shares_are_as_the_weights(&equal);
	srand(21);
	static const unsigned int counts[] = {2, 2, 2, 3, 3, 4, 8, 16, ROUTE_SHARES_MAX};
	for (unsigned int i = 0; i < RTE_DIM(counts); i++) {
		struct shares_case random = random_shares(counts[i]);
		assert_shares_are_as_the_weights(&random);
	}
}

// Slots by `before` that lead elsewhere by `after`: each must have led to target `from`, or lead to
// target `to` now. Returns how many.
static unsigned int count_moved(const struct shares_case *before, const struct shares_case *after,
	const struct route_target *from, const struct route_target *to)
{
	struct route_shares *one = route_shares_create(before->shares, before->count);
	struct route_shares *two = route_shares_create(after->shares, after->count);
	unsigned int moved = 0;
	for (uint32_t slot = 0; slot < ROUTE_SLOTS; slot++) {
		uint32_t hash = slot << (32 - ROUTE_SLOT_BITS);
		struct route_target was = route_shares_get(one, hash);
		struct route_target is = route_shares_get(two, hash);
		if (was.index == is.index)
			continue;
		moved++;
		assert_true((from != NULL && was.index == from->index) ||
			    (to != NULL && is.index == to->index));
	}
	free(one);
	free(two);
	return moved;
}

static void test_only_the_flows_that_must_move_do(void **state)
{
	(void)state;
	srand(22);
	for (unsigned int count = 3; count <= ROUTE_SHARES_MAX; count += 1 + count / 2) {
		struct shares_case all = random_shares(count), fewer = all, heavier = all;
		unsigned int at = (unsigned int)rand() % count;
		struct route_target target = all.shares[at].target;
		fewer.count--;
		memmove(&fewer.shares[at], &fewer.shares[at + 1],
			(count - at - 1) * sizeof(fewer.shares[0]));
		struct route_shares *shares = route_shares_create(all.shares, all.count);
		unsigned int own = 0;
		for (unsigned int slot = 0; slot < ROUTE_SLOTS; slot++)
			own += shares->slots[slot] == at;
		free(shares);
		assert_int_equal(count_moved(&all, &fewer, &target, NULL), own);
		assert_int_equal(count_moved(&fewer, &all, NULL, &target), own);
		heavier.shares[at].weight += 256;
		assert_true(count_moved(&all, &heavier, NULL, &target) > 0);
		assert_true(count_moved(&heavier, &all, &target, NULL) > 0);
	}
}

#define FLOWS 2000

static void map_flows(const char *destination, struct route_target *flows)
{
	struct packet_address address;
	struct route_target target;
	assert_true(packet_address_parse(destination, &address));
	uint32_t word = packet_address_v4_host(&address);
	route_lookup4(table, &word, &target, 1);
	for (uint32_t i = 0; i < FLOWS; i++)
		flows[i] = target.kind & ROUTE_SHARED ? route_choose(table, target, i * 2654435761u)
						      : target;
}

static unsigned int count_flows(const struct route_target *flows, uint32_t tunnel)
{
	unsigned int count = 0;
	for (unsigned int i = 0; i < FLOWS; i++)
		count += flows[i].kind == ROUTE_TUNNEL && flows[i].index == tunnel;
	return count;
}

static void test_flows_come_back_to_where_they_were(void **state)
{
	(void)state;
	struct route_target before[FLOWS], now[FLOWS];
	for (uint32_t i = 1; i <= 3; i++) {
		add("10.0.0.0/8", i);
		add("11.0.0.0/8", 4 - i); // in another order
	}
	map_flows("10.0.0.1", before);
	for (uint32_t i = 1; i <= 3; i++)
		assert_in_range(count_flows(before, i), FLOWS / 3 - 100, FLOWS / 3 + 100);
	map_flows("11.0.0.1", now);
	assert_memory_equal(before, now, sizeof(now));
	assert_int_equal(set_penalty(2, ROUTE_PENALTY_DOWN), 0);
	map_flows("10.0.0.1", now);
	for (unsigned int i = 0; i < FLOWS; i++)
		assert_true(
			before[i].index == 2 ? now[i].index != 2 : now[i].index == before[i].index);
	assert_int_equal(set_penalty(3, ROUTE_PENALTY_DEGRADED), 0);
	map_flows("10.0.0.1", now);
	assert_int_equal(count_flows(now, 1), FLOWS);
	assert_int_equal(set_penalty(2, 0), 0);
	assert_int_equal(set_penalty(3, 0), 0);
	map_flows("10.0.0.1", now);
	assert_memory_equal(before, now, sizeof(now));
	assert_int_equal(delete ("10.0.0.0/8", 1, ROUTE_ORIGIN_CONFIG), 0);
	map_flows("10.0.0.1", now);
	assert_int_equal(count_flows(now, 1), 0);
	add("10.0.0.0/8", 1);
	map_flows("10.0.0.1", now);
	assert_memory_equal(before, now, sizeof(now));
}

static void test_who_shares(void **state)
{
	(void)state;
	struct route_target flows[FLOWS];
	struct route_path path = path_to(1);
	add("10.0.0.0/8", 1);
	path.target.index = 2;
	path.origin = ROUTE_ORIGIN_AGENT; // gives way to the configuration's
	add_path("10.0.0.0/8", path);
	path.target.index = 3;
	path.origin = ROUTE_ORIGIN_CONFIG;
	path.priority = 101;
	add_path("10.0.0.0/8", path);
	path.target = (struct route_target){ROUTE_ADJACENCY, 1};
	path.priority = 100;
	add_path("10.0.0.0/8", path); // not into a tunnel
	map_flows("10.0.0.1", flows);
	assert_int_equal(count_flows(flows, 1), FLOWS);
	path.target.index = 2;
	add_path("10.0.0.0/8", path);
	assert_int_equal(delete ("10.0.0.0/8", 1, ROUTE_ORIGIN_CONFIG), 0);
	map_flows("10.0.0.1", flows); // by two next hops on ports
	unsigned int first = 0;
	for (unsigned int i = 0; i < FLOWS; i++) {
		assert_int_equal(flows[i].kind, ROUTE_ADJACENCY);
		first += flows[i].index == 1;
	}
	assert_in_range(first, FLOWS / 2 - 100, FLOWS / 2 + 100);
	path.target = (struct route_target){ROUTE_CONNECTED, 0};
	add_path("11.0.0.0/8", path);
	path.target.index = 1; // two ports on one network: no flow could be told apart
	add_path("11.0.0.0/8", path);
	map_flows("11.0.0.1", flows);
	for (unsigned int i = 0; i < FLOWS; i++)
		assert_true(flows[i].kind == ROUTE_CONNECTED && flows[i].index == 0);
}

static bool count_used(const struct packet_prefix *prefix, const struct route_path *path, bool best,
	void *argument)
{
	(void)prefix;
	(void)path;
	*(unsigned int *)argument += best;
	return true;
}

static void test_64_share_and_no_more(void **state)
{
	(void)state;
	struct route_target flows[FLOWS];
	for (uint32_t i = 70; i > 0; i--)
		add("10.0.0.0/8", i);
	map_flows("10.0.0.1", flows);
	for (uint32_t i = 1; i <= 64; i++)
		assert_int_not_equal(count_flows(flows, i), 0);
	for (uint32_t i = 65; i <= 70; i++)
		assert_int_equal(count_flows(flows, i), 0);
	unsigned int used = 0;
	route_walk(table, count_used, &used);
	assert_int_equal(used, 64);
	assert_int_equal(set_penalty(1, ROUTE_PENALTY_DEGRADED), 0);
	map_flows("10.0.0.1", flows);
	assert_int_equal(count_flows(flows, 1), 0);
	assert_int_not_equal(count_flows(flows, 65), 0); // takes its place
	assert_int_equal(set_penalty(1, 0), 0);
}

static void assert_invalid(const char *prefix, struct route_path path)
{
	struct packet_prefix parsed = prefix_of(prefix);
	assert_int_equal(route_add(table, &parsed, &path), -EINVAL);
	assert_int_equal(route_count(table), 0);
}

static void test_bad_paths_are_refused(void **state)
{
	(void)state;
	struct route_path path = path_to(1);
	path.weight = 0;
	assert_invalid("10.0.0.0/8", path);
	path.weight = 257;
	assert_invalid("10.0.0.0/8", path);
	path = path_to(1);
	path.target.kind = ROUTE_NONE;
	assert_invalid("10.0.0.0/8", path);
	path.target.kind = ROUTE_LOCAL_TUNNEL + 1;
	assert_invalid("10.0.0.0/8", path);
	path = path_to(1);
	path.origin = ROUTE_ORIGINS;
	assert_invalid("10.0.0.0/8", path);
	path = path_to(1);
	struct packet_prefix prefix = prefix_of("10.0.0.0/8");
	prefix.address.bytes[1] = 1;
	assert_int_equal(route_add(table, &prefix, &path), -EINVAL);
	prefix = prefix_of("10.0.0.0/8");
	prefix.length = 33;
	assert_int_equal(route_add(table, &prefix, &path), -EINVAL);
	prefix.address.family = 0;
	assert_int_equal(route_add(table, &prefix, &path), -EINVAL);
	struct packet_address none = {0};
	assert_int_equal(route_lookup(table, &none, NULL).kind, ROUTE_NONE);
}

static void test_paths_go_by_origin_and_by_target(void **state)
{
	(void)state;
	struct route_path kernel = path_to(1);
	kernel.origin = ROUTE_ORIGIN_KERNEL;
	kernel.priority = 5;
	for (unsigned int i = 0; i < 100; i++) {
		char text[PACKET_PREFIX_TEXT];
		snprintf(text, sizeof(text), "10.%u.0.0/16", i);
		add_path(text, kernel);
		add(text, 2);
		add(text, 3);
	}
	add_path("2001:db8::/32", kernel);
	assert_int_equal(look_up("10.7.0.1"), 1);
	assert_int_equal(route_delete_origin(table, ROUTE_ORIGIN_KERNEL), 101);
	assert_int_equal(look_up("10.7.0.1"), 2);
	assert_int_equal(look_up("2001:db8::1"), NO_ROUTE);
	struct route_target target = {ROUTE_TUNNEL, 2};
	assert_int_equal(route_delete_target(table, &target), 100);
	assert_int_equal(look_up("10.7.0.1"), 3);
	assert_int_equal(route_delete_target(table, &target), 0);
	target.index = 3;
	assert_int_equal(route_delete_target(table, &target), 100);
	assert_int_equal(route_count(table), 0);
}

static void test_walk_goes_in_order(void **state)
{
	(void)state;
	add("2001:db8::/32", 6);
	add("10.0.0.0/8", 2);
	add("0.0.0.0/0", 1);
	add("::/0", 5);
	add("192.0.2.0/24", 4);
	add("10.0.0.0/16", 3);
	struct route_path standby = path_to(9);
	standby.priority = 200;
	add_path("10.0.0.0/8", standby);
	add("10.0.0.0/8", 8);
	struct walk walk = {.stop = 100};
	route_walk(table, note, &walk);
	assert_string_equal(walk.text, "0.0.0.0/0 1*;10.0.0.0/8 2*;10.0.0.0/8 8*;10.0.0.0/8 9;"
				       "10.0.0.0/16 3*;192.0.2.0/24 4*;::/0 5*;2001:db8::/32 6*;");
	walk = (struct walk){.stop = 2};
	route_walk(table, note, &walk);
	assert_string_equal(walk.text, "0.0.0.0/0 1*;10.0.0.0/8 2*;");
}

static struct packet_prefix random_host6(void)
{
	struct packet_prefix prefix = {.address.family = 6, .length = 128};
	for (unsigned int i = 0; i < 16; i++)
		prefix.address.bytes[i] = (uint8_t)rand();
	return prefix;
}

static void test_paths_are_found_and_what_covers_them(void **state)
{
	(void)state;
	struct packet_prefix prefix;
	struct route_path port = {.target = {ROUTE_CONNECTED, 1}, .priority = 7, .weight = 1};
	struct route_target tunnel = {ROUTE_TUNNEL, 3};
	uint32_t priority = 0;
	packet_prefix_parse("10.1.0.0/16", &prefix);
	assert_false(route_find(table, &prefix, &port.target, ROUTE_ORIGIN_GATEWAY, &priority));
	assert_int_equal(route_add(table, &prefix, &port), 0);
	assert_true(route_find(table, &prefix, &port.target, ROUTE_ORIGIN_GATEWAY, &priority));
	assert_int_equal(priority, 7);
	assert_false(route_find(table, &prefix, &port.target, ROUTE_ORIGIN_AGENT, &priority));
	assert_false(route_find(table, &prefix, &tunnel, ROUTE_ORIGIN_GATEWAY, &priority));
	// Shorter ones cover it, and itself does; longer ones and others don't.
	assert_false(route_covers(table, &prefix, ROUTE_TUNNEL));
	assert_true(route_covers(table, &prefix, ROUTE_CONNECTED));
	add("10.1.2.0/24", 1);
	add("10.2.0.0/16", 1);
	assert_false(route_covers(table, &prefix, ROUTE_TUNNEL));
	add("0.0.0.0/0", 1);
	assert_true(route_covers(table, &prefix, ROUTE_TUNNEL));
}

static void test_no_more_than_max_routes(void **state)
{
	(void)state;
	struct route_path path = path_to(1);
	for (uint32_t i = 0; i < MAX_ROUTES; i++) {
		struct packet_address address = packet_address_v4(rte_cpu_to_be_32(i << 12));
		struct packet_prefix prefix = packet_prefix_of(&address, 24);
		assert_int_equal(route_add(table, &prefix, &path), 0);
	}
	struct packet_prefix more = prefix_of("192.0.2.0/24");
	assert_int_equal(route_add(table, &more, &path), -ENOSPC);
	assert_int_equal(look_up("192.0.2.1"), NO_ROUTE);
	more = prefix_of("::/0");
	assert_int_equal(route_add(table, &more, &path), -ENOSPC);
	add("0.0.0.0/24", 2); // a second path of a known prefix
	assert_int_equal(route_count(table), MAX_ROUTES);
	assert_int_equal(delete ("0.0.16.0/24", 1, ROUTE_ORIGIN_CONFIG), 0);
	add("192.0.2.0/24", 1);
	assert_int_equal(look_up("192.0.2.1"), 1);
}

static void test_one_prefix_has_256_paths_at_most(void **state)
{
	(void)state;
	for (uint32_t i = 0; i < 256; i++)
		add("10.0.0.0/8", 1000 - i);
	struct packet_prefix prefix = prefix_of("10.0.0.0/8");
	struct route_path path = path_to(1);
	assert_int_equal(route_add(table, &prefix, &path), -ENOSPC);
	assert_int_equal(look_up("10.0.0.1"), 745);
	add("10.0.0.0/8", 745);
}

// Adds scattered host routes, each of which needs 13 nodes, until nodes run out.
static unsigned int fill_nodes(void)
{
	srand(11);
	struct route_path path = path_to(1);
	for (unsigned int added = 0;; added++) {
		struct packet_prefix prefix = random_host6();
		uint32_t free = table->nodes.pool.free;
		uint64_t generation = route_generation(table);
		int result = route_add(table, &prefix, &path);
		if (result == 0)
			continue;
		assert_int_equal(result, -ENOSPC);
		assert_int_equal(table->nodes.pool.free, free);
		assert_int_equal(route_generation(table), generation);
		assert_int_equal(route_count(table), added);
		assert_int_equal(route_lookup(table, &prefix.address, NULL).kind, ROUTE_NONE);
		return added;
	}
}

static void test_a_full_trie_refuses_and_stays_whole(void **state)
{
	(void)state;
	assert_int_equal(tear_down(NULL), 0);
	create_with(5000);
	unsigned int added = fill_nodes();
	assert_true(added > 1000 && added < 5000);
	srand(11);
	for (unsigned int i = 0; i < added; i++) {
		struct packet_prefix prefix = random_host6();
		assert_int_equal(route_lookup(table, &prefix.address, NULL).kind, ROUTE_TUNNEL);
	}
	// Down to the last node: a prefix of 24 bits needs one at most.
	struct route_path path = path_to(3);
	while (table->nodes.pool.free > 0) {
		struct packet_address address = random_host6().address;
		struct packet_prefix prefix = packet_prefix_of(&address, 24);
		assert_int_equal(route_add(table, &prefix, &path), 0);
	}
	struct packet_prefix prefix = prefix_of("fe80:1200::/24");
	assert_int_equal(table->nodes.pool.free, 0);
	assert_int_equal(route_add(table, &prefix, &path), -ENOSPC);
	struct route_target target = path.target;
	route_delete_target(table, &target);
	add("10.0.0.0/24", 2); // needs no node
	assert_int_equal(look_up("10.0.0.1"), 2);
	assert_int_equal(route_delete_origin(table, ROUTE_ORIGIN_CONFIG), added + 1);
	assert_int_equal(fill_nodes(), added);
}

static atomic_bool taken;

static void *take(void *pool)
{
	route_pool_take(pool);
	atomic_store(&taken, true);
	return NULL;
}

static void test_a_number_is_reused_only_after_its_grace_period(void **state)
{
	(void)state;
	struct route_pool pool;
	pthread_t control;
	assert_int_equal(route_pool_create(&pool, 1, reclaim), 0);
	atomic_store(&taken, false);
	reclaim_worker_online(reclaim, 0);
	route_pool_give(&pool, route_pool_take(&pool));
	assert_int_equal(pthread_create(&control, NULL, take, &pool), 0);
	usleep(20000);
	assert_false(atomic_load(&taken));
	reclaim_quiescent(reclaim, 0);
	pthread_join(control, NULL);
	assert_true(atomic_load(&taken));
	reclaim_worker_offline(reclaim, 0);
	route_pool_destroy(&pool);
}

// A plain model: all paths in an array, searched from end to end.

#define MODEL_PATHS 300

struct model_path {
	struct packet_prefix prefix;
	struct route_path path;
};

struct model {
	struct model_path paths[MODEL_PATHS];
	unsigned int count;
};

static uint32_t model_penalties[ROUTE_ADJACENCY + 1][8]; // by kind and index

static uint32_t model_priority(const struct model_path *path)
{
	const struct route_target *target = &path->path.target;
	return path->path.priority + model_penalties[target->kind][target->index];
}

static bool model_is_better(const struct model_path *a, const struct model_path *b)
{
	if (a->prefix.length != b->prefix.length)
		return a->prefix.length > b->prefix.length;
	if (model_priority(a) != model_priority(b))
		return model_priority(a) < model_priority(b);
	if (a->path.origin != b->path.origin)
		return a->path.origin < b->path.origin;
	if (a->path.target.kind != b->path.target.kind)
		return a->path.target.kind < b->path.target.kind;
	return a->path.target.index < b->path.target.index;
}

static uint32_t bit_of(struct route_target target)
{
	if (target.kind == ROUTE_NONE)
		return 0;
	return 1u << (target.index + (target.kind == ROUTE_ADJACENCY ? 8 : 0));
}

// The targets that share the address's flows, a bit for each: of index i with kind ROUTE_TUNNEL bit
// i, with ROUTE_ADJACENCY bit 8 + i. 0: no route.
static uint32_t model_look_up(const struct model *model, const struct packet_address *address)
{
	const struct model_path *best = NULL;
	uint32_t targets = 0;
	for (unsigned int i = 0; i < model->count; i++) {
		const struct model_path *path = &model->paths[i];
		if (packet_prefix_contains(&path->prefix, address) &&
			(best == NULL || model_is_better(path, best)))
			best = path;
	}
	for (unsigned int i = 0; best != NULL && i < model->count; i++) {
		const struct model_path *path = &model->paths[i];
		if (packet_prefix_equal(&path->prefix, &best->prefix) &&
			model_priority(path) == model_priority(best) &&
			path->path.origin == best->path.origin &&
			path->path.target.kind == best->path.target.kind)
			targets |= bit_of(path->path.target);
	}
	return targets;
}

static unsigned int model_find(const struct model *model, const struct model_path *wanted)
{
	unsigned int i = 0;
	for (; i < model->count; i++)
		if (packet_prefix_equal(&model->paths[i].prefix, &wanted->prefix) &&
			model->paths[i].path.origin == wanted->path.origin &&
			model->paths[i].path.target.kind == wanted->path.target.kind &&
			model->paths[i].path.target.index == wanted->path.target.index)
			break;
	return i;
}

// Few values for each byte, so that prefixes lie in each other and addresses meet them.
static struct packet_address random_address(uint8_t family)
{
	static const uint8_t values[] = {0, 10, 10, 10, 11, 127, 128, 255};
	struct packet_address address = {.family = family};
	for (unsigned int i = 0; i < (family == 4 ? 4 : 16); i++)
		address.bytes[i] = values[rand() % 8];
	return address;
}

// Very short prefixes write millions of entries, so the test takes few of them.
static uint8_t random_length(uint8_t family)
{
	int length = rand() % (family == 4 ? 33 : 129);
	return (uint8_t)(length >= 1 && length < 8 && rand() % 32 != 0 ? length + 8 : length);
}

static struct model_path random_path(uint8_t family)
{
	struct packet_address address = random_address(family);
	struct model_path path = {
		.prefix = packet_prefix_of(&address, random_length(family)),
		.path = {.target = {ROUTE_TUNNEL + (unsigned int)rand() % 2, (uint32_t)rand() % 3},
			.origin = (enum route_origin)(rand() % ROUTE_ORIGINS),
			.priority = (uint32_t)rand() % 3,
			.weight = 1 + (uint32_t)rand() % 2},
	};
	return path;
}

static void change_both(struct model *model, uint8_t family)
{
	struct model_path path = random_path(family);
	if (rand() % 4 == 0) {
		uint32_t penalty = (uint32_t)rand() % 3;
		struct route_target *target = &path.path.target;
		model_penalties[target->kind][target->index] = penalty;
		assert_int_equal(route_set_penalty(table, target, penalty), 0);
		return;
	}
	if (model->count > 0 && (model->count == MODEL_PATHS || rand() % 2 == 0)) {
		unsigned int at = (unsigned int)rand() % model->count;
		path = model->paths[at];
		model->paths[at] = model->paths[--model->count];
		assert_int_equal(
			route_delete(table, &path.prefix, &path.path.target, path.path.origin), 0);
		return;
	}
	// Another path of a known prefix now and then.
	if (model->count > 0 && rand() % 3 == 0)
		path.prefix = model->paths[(unsigned int)rand() % model->count].prefix;
	unsigned int at = model_find(model, &path);
	model->paths[at] = path;
	model->count += at == model->count;
	assert_int_equal(route_add(table, &path.prefix, &path.path), 0);
}

// For a flow of any kind.
static struct route_target choose(struct route_target target)
{
	uint32_t hash = (uint32_t)rand() * 2654435761u;
	return target.kind & ROUTE_SHARED ? route_choose(table, target, hash) : target;
}

static void compare_burst(const struct model *model, uint8_t family)
{
	struct packet_address addresses[ROUTE_BURST_MAX];
	uint32_t words[ROUTE_BURST_MAX];
	uint8_t bytes[ROUTE_BURST_MAX][16];
	struct route_target targets[ROUTE_BURST_MAX];
	unsigned int count = (unsigned int)rand() % 20;
	for (unsigned int i = 0; i < count; i++) {
		addresses[i] = random_address(family);
		if (model->count > 0 && i % 2 == 0)
			addresses[i] =
				model->paths[(unsigned int)rand() % model->count].prefix.address;
		addresses[i].family = family;
		if (family == 4)
			memset(addresses[i].bytes + 4, 0, 12);
		words[i] = packet_address_v4_host(&addresses[i]);
		memcpy(bytes[i], addresses[i].bytes, 16);
	}
	if (family == 4)
		route_lookup4(table, words, targets, count);
	else
		route_lookup6(table, (const uint8_t(*)[16])bytes, targets, count);
	for (unsigned int i = 0; i < count; i++) {
		uint32_t expected = model_look_up(model, &addresses[i]);
		bool is_shared = targets[i].kind & ROUTE_SHARED;
		assert_int_equal(is_shared, __builtin_popcount(expected) > 1);
		uint32_t chosen = bit_of(choose(targets[i]));
		assert_int_equal(chosen & expected, chosen);
		assert_int_equal(chosen == 0, expected == 0);
		struct packet_prefix matched;
		uint32_t control = bit_of(route_lookup(table, &addresses[i], &matched));
		assert_int_equal(control, expected & -expected); // the first
	}
}

static void forget_penalties(void)
{
	for (uint32_t kind = 0; kind <= ROUTE_ADJACENCY; kind++)
		for (uint32_t index = 0; index < 8; index++) {
			struct route_target target = {kind, index};
			model_penalties[kind][index] = 0;
			assert_int_equal(route_set_penalty(table, &target, 0), 0);
		}
}

static void test_lookups_agree_with_a_plain_model(void **state)
{
	(void)state;
	static struct model models[2];
	srand(12);
	for (unsigned int step = 0; step < 10000; step++) {
		unsigned int family = (unsigned int)rand() % 2;
		change_both(&models[family], family == 0 ? 4 : 6);
		compare_burst(&models[0], 4);
		compare_burst(&models[1], 6);
	}
	// Down to nothing, in random order.
	for (unsigned int family = 0; family < 2; family++) {
		struct model *model = &models[family];
		while (model->count > 0) {
			struct model_path path = model->paths[--model->count];
			assert_int_equal(route_delete(table, &path.prefix, &path.path.target,
						 path.path.origin),
				0);
			compare_burst(model, family == 0 ? 4 : 6);
		}
	}
	forget_penalties();
}

// Control toggles overlapping prefixes, some of them shared by several tunnels, and the tunnels'
// penalties. Before each step it notes which tunnels each watched address has paths to after it,
// and which tunnels have penalties. A reader's result must be the best by the paths of one step and
// the penalties of the same or a later one, both between the step that was done before he looked
// and the one that may have been under way when he had finished.

#define STEPS   10000
#define WATCHED 8
#define NOWHERE (1u << 30) // no route

static const char *const watched4[WATCHED] = {"10.1.2.3", "10.1.2.200", "10.1.3.1", "10.9.9.9",
	"192.0.2.1", "10.1.2.4", "0.0.0.0", "255.255.255.255"};
static const char *const watched6[WATCHED] = {"2001:db8::1", "2001:db8::ff", "2001:db8:1::1",
	"2001:db8:1:2:3:4:5:6", "::", "ff02::1", "2001:db8:1:2::1", "2001:db8:8000::"};
static const char *const toggled[] = {"0.0.0.0/0", "10.0.0.0/8", "10.1.0.0/16", "10.1.2.0/24",
	"10.1.2.128/25", "10.1.2.3/32", "10.1.2.0/30", "0.0.0.0/6", "192.0.2.0/24", "::/0",
	"2001:db8::/32", "2001:db8::/128", "2001:db8::1/128", "2001:db8::/120", "2001:db8:1::/48",
	"2001:db8:1:2::/64", "2001:db8:1:2:3:4:5:6/128", "2000::/3"};

static _Atomic uint32_t history[2][STEPS + 2][WATCHED]; // a bit for each tunnel, or NOWHERE
static _Atomic uint32_t unhealthy[STEPS + 2];           // a bit for each tunnel
static atomic_uint steps_done;

static uint32_t best_of(uint32_t paths, uint32_t penalised)
{
	return (paths & ~penalised) != 0 ? paths & ~penalised : paths;
}

static bool is_legal(
	unsigned int family, unsigned int i, unsigned int first, unsigned int last, uint32_t seen)
{
	for (unsigned int step = first; step <= last + 1; step++)
		for (unsigned int later = step; later <= last + 1; later++)
			if (best_of(history[family][step][i], unhealthy[later]) & seen)
				return true;
	return false;
}

static uint32_t seen_of(struct route_target target, uint32_t hash)
{
	if (target.kind & ROUTE_SHARED)
		target = route_choose(table, target, hash);
	return target.kind == ROUTE_NONE ? NOWHERE : bit_of(target);
}

static void *watch(void *argument)
{
	unsigned int worker = *(unsigned int *)argument;
	uint32_t words[WATCHED];
	uint8_t bytes[WATCHED][16];
	struct route_target targets[2][WATCHED];
	uint32_t seen[2 * WATCHED], hash = worker;
	uintptr_t wrong = 0;
	for (unsigned int i = 0; i < WATCHED; i++) {
		struct packet_address address;
		packet_address_parse(watched4[i], &address);
		words[i] = packet_address_v4_host(&address);
		packet_address_parse(watched6[i], &address);
		memcpy(bytes[i], address.bytes, 16);
	}
	reclaim_worker_online(reclaim, worker);
	for (unsigned int first = 0; first < STEPS;) {
		first = atomic_load(&steps_done);
		route_lookup4(table, words, targets[0], WATCHED);
		route_lookup6(table, (const uint8_t(*)[16])bytes, targets[1], WATCHED);
		for (unsigned int i = 0; i < 2 * WATCHED; i++)
			seen[i] = seen_of(targets[i / WATCHED][i % WATCHED], hash += 2654435761u);
		unsigned int last = atomic_load(&steps_done);
		for (unsigned int i = 0; i < 2 * WATCHED; i++)
			wrong += !is_legal(i / WATCHED, i % WATCHED, first, last, seen[i]);
		reclaim_quiescent(reclaim, worker);
	}
	reclaim_worker_offline(reclaim, worker);
	return (void *)wrong;
}

static uint32_t penalised; // what the last step left

static void note_history(const struct model *model, unsigned int step)
{
	for (unsigned int i = 0; i < 2 * WATCHED; i++) {
		struct packet_address address;
		packet_address_parse(i < WATCHED ? watched4[i] : watched6[i - WATCHED], &address);
		uint32_t targets = model_look_up(model, &address);
		history[i / WATCHED][step][i % WATCHED] = targets == 0 ? NOWHERE : targets;
	}
	unhealthy[step] = penalised;
}

static void toggle_penalty(struct model *model, unsigned int step)
{
	struct route_target target = {ROUTE_TUNNEL, (uint32_t)rand() % 3};
	penalised ^= bit_of(target);
	note_history(model, step);
	uint32_t penalty = penalised & bit_of(target) ? ROUTE_PENALTY_DOWN : 0;
	assert_int_equal(route_set_penalty(table, &target, penalty), 0);
	atomic_store(&steps_done, step);
}

static void toggle_one(struct model *model, unsigned int step)
{
	if (rand() % 4 == 0) {
		toggle_penalty(model, step);
		return;
	}
	struct model_path path = {
		.prefix = prefix_of(toggled[(unsigned int)rand() % RTE_DIM(toggled)]),
		.path = path_to((uint32_t)rand() % 3),
	};
	unsigned int at = model_find(model, &path);
	bool is_new = at == model->count;
	if (!is_new) {
		path = model->paths[at];
		model->paths[at] = model->paths[--model->count];
	} else {
		model->paths[model->count++] = path;
	}
	note_history(model, step);
	int result =
		is_new ? route_add(table, &path.prefix, &path.path)
		       : route_delete(table, &path.prefix, &path.path.target, path.path.origin);
	assert_int_equal(result, 0);
	atomic_store(&steps_done, step);
}

static void test_workers_look_up_while_control_changes(void **state)
{
	(void)state;
	static struct model model;
	pthread_t threads[2];
	unsigned int workers[2] = {0, 1};
	for (unsigned int i = 0; i < 2 * (STEPS + 2) * WATCHED; i++)
		history[i / WATCHED / (STEPS + 2)][i / WATCHED % (STEPS + 2)][i % WATCHED] = 0;
	note_history(&model, 0);
	for (unsigned int i = 0; i < 2; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, watch, &workers[i]), 0);
	srand(13);
	for (unsigned int step = 1; step <= STEPS; step++)
		toggle_one(&model, step);
	for (unsigned int i = 0; i < 2; i++) {
		void *wrong;
		pthread_join(threads[i], &wrong);
		assert_null(wrong);
	}
	forget_penalties();
}

int main(void)
{
	if (test_eal_start("192") != 0)
		return 1;
#define TEST(function) cmocka_unit_test_setup_teardown(function, set_up, tear_down)
	const struct CMUnitTest tests[] = {
		TEST(test_the_longest_prefix_wins),
		TEST(test_default_routes),
		TEST(test_priority_then_origin_decide),
		TEST(test_generation_tells_when_lookups_change),
		TEST(test_equal_sets_of_paths_share_a_group),
		TEST(test_a_penalty_moves_traffic_to_the_standby),
		TEST(test_a_penalty_stays_with_the_target),
		TEST(test_a_penalty_changes_one_group_for_all_its_prefixes),
		TEST(test_shares_are_as_the_weights_say),
		TEST(test_only_the_flows_that_must_move_do),
		TEST(test_flows_come_back_to_where_they_were),
		TEST(test_who_shares),
		TEST(test_64_share_and_no_more),
		TEST(test_bad_paths_are_refused),
		TEST(test_paths_go_by_origin_and_by_target),
		TEST(test_walk_goes_in_order),
		TEST(test_paths_are_found_and_what_covers_them),
		TEST(test_no_more_than_max_routes),
		TEST(test_one_prefix_has_256_paths_at_most),
		TEST(test_a_full_trie_refuses_and_stays_whole),
		TEST(test_a_number_is_reused_only_after_its_grace_period),
		TEST(test_lookups_agree_with_a_plain_model),
		TEST(test_workers_look_up_while_control_changes),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
