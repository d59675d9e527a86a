// SPDX-License-Identifier: BSD-3-Clause
// Copyright (c) 2026 the espgw authors

// Packets of one tunnel become neighbours, and keep their order.

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>

#include <cmocka.h>

#include "dataplane/group.h"

static uint64_t state = 88172645463325252u;

static uint32_t draw(uint32_t below)
{
	state ^= state << 13;
	state ^= state >> 7;
	state ^= state << 17;
	return (uint32_t)(state % below);
}

// Each packet is there once, and those of one tunnel in their order. How often the tunnel changes.
static unsigned int check_order(const uint32_t *tunnels, const uint8_t *order, unsigned int count)
{
	uint64_t seen = 0;
	unsigned int changes = 0;
	for (unsigned int i = 0; i < count; i++) {
		assert_true(order[i] < count);
		assert_int_equal(seen >> order[i] & 1, 0);
		seen |= UINT64_C(1) << order[i];
		for (unsigned int j = 0; j < i; j++)
			if (tunnels[order[j]] == tunnels[order[i]])
				assert_true(order[j] < order[i]);
		changes += i != 0 && tunnels[order[i]] != tunnels[order[i - 1]];
	}
	return changes;
}

static unsigned int count_tunnels(const uint32_t *tunnels, unsigned int count)
{
	unsigned int different = 0;
	for (unsigned int i = 0; i < count; i++) {
		unsigned int j = 0;
		while (tunnels[j] != tunnels[i])
			j++;
		different += j == i;
	}
	return different;
}

static void test_neighbours(void **unused)
{
	(void)unused;
	uint32_t tunnels[ESP_BURST_MAX];
	uint8_t order[ESP_BURST_MAX];
	for (unsigned int round = 0; round < 20000; round++) {
		unsigned int count = 1 + draw(ESP_BURST_MAX), most = 1 + draw(64);
		for (unsigned int i = 0; i < count; i++)
			tunnels[i] = draw(most); // no two of them share a bucket
		unsigned int different = count_tunnels(tunnels, count);
		assert_int_equal(group_by_tunnel(tunnels, count, order), different);
		if (different != 1)
			assert_int_equal(check_order(tunnels, order, count), different - 1);
	}
}

static void test_tunnels_of_one_bucket(void **unused)
{
	(void)unused;
	uint32_t tunnels[ESP_BURST_MAX];
	uint8_t order[ESP_BURST_MAX];
	for (unsigned int round = 0; round < 20000; round++) {
		unsigned int count = 2 + draw(ESP_BURST_MAX - 1);
		for (unsigned int i = 0; i < count; i++)
			tunnels[i] = draw(3) * 64 + draw(2) + draw(2) * 4000;
		unsigned int different = count_tunnels(tunnels, count);
		unsigned int groups = group_by_tunnel(tunnels, count, order);
		assert_true(groups >= different);
		assert_int_equal(groups == 1, different == 1);
		if (groups != 1)
			check_order(tunnels, order, count);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_neighbours),
		cmocka_unit_test(test_tunnels_of_one_bucket),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
