// SPDX-License-Identifier: BSD-3-Clause
// Copyright (c) 2026 the espgw authors

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "eal.h"
#include "telemetry/telemetry.h"

static void test_every_reason_has_a_name_and_a_sentence(void **state)
{
	(void)state;
	for (unsigned int i = 0; i < DROP_COUNT; i++) {
		assert_non_null(drop_reason_name(i));
		assert_true(strlen(drop_reason_sentence(i)) > 5);
		for (unsigned int j = 0; j < i; j++)
			assert_string_not_equal(drop_reason_name(i), drop_reason_name(j));
	}
	assert_string_equal(drop_reason_name(DROP_COUNT), "invalid");
}

static void test_slots_are_summed(void **state)
{
	(void)state;
	struct telemetry *telemetry = telemetry_create(2, 3);
	assert_non_null(telemetry);
	assert_int_equal(telemetry->slots, 3);
	for (unsigned int i = 0; i < 3; i++) {
		struct telemetry_source *source =
			&telemetry->slot[i]->sources[TELEMETRY_SOURCE_TUN];
		source->received = 100;
		source->forwarded = 50 + i;
		source->to_host = 20;
		source->drops[DROP_ICV] = 7;
		source->drops[DROP_STOPPED] = 10;
		telemetry->slot[i]->tunnels[2].drops[DROP_REPLAY] = i;
		telemetry->slot[i]->tunnels[2].out_bytes = 1000;
	}
	struct telemetry_source source;
	telemetry_sum_source(telemetry, TELEMETRY_SOURCE_TUN, &source);
	assert_int_equal(source.received, 300);
	assert_int_equal(source.drops[DROP_ICV], 21);
	assert_int_equal(telemetry_source_held(&source), 300 - 153 - 60 - 51);
	struct telemetry_tunnel tunnel;
	telemetry_sum_tunnel(telemetry, 2, &tunnel);
	assert_int_equal(tunnel.drops[DROP_REPLAY], 3);
	assert_int_equal(tunnel.out_bytes, 3000);
	telemetry_sum_tunnel(telemetry, 1, &tunnel);
	assert_int_equal(tunnel.out_bytes, 0);
	telemetry_destroy(telemetry);
}

int main(void)
{
	if (test_eal_start("64") != 0)
		return 1;
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_every_reason_has_a_name_and_a_sentence),
		cmocka_unit_test(test_slots_are_summed),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
