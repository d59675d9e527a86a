// SPDX-License-Identifier: BSD-3-Clause
// Copyright (c) 2026 the espgw authors

// A burst cipher that fails its self-test: the data plane starts nevertheless, with ipsec-mb for
// all packets, and says so. The self-test's result is the test's. It has a network namespace of its
// own, which takes root (else it is skipped).

#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>
#include <event2/event.h>

#include "dataplane/internal.h"
#include "esp/gcm.h"

static struct config *make_config(void)
{
	char text[1024];
	snprintf(text, sizeof(text),
		"gateway = { name = \"fb%d\"; log_level = \"error\"; hugepages = false; "
		"memory_mb = 256; max_sas = 16; max_routes = 256; max_neighbours = 64; };\n"
		"workers = { cores = [ 0 ]; crypto = \"burst\"; };\n"
		"ports = ( { name = \"inside\"; device = \"net_null0,no-rx=1\"; side = \"inside\"; "
		"addresses = [ \"10.0.0.1/24\" ]; }, "
		"{ name = \"outside\"; device = \"net_null1,no-rx=1\"; side = \"outside\"; "
		"addresses = [ \"198.51.100.1/24\" ]; } );\n"
		"tunnels = ( { name = \"one\"; gateway_endpoint = \"198.51.100.1\"; "
		"customer_endpoint = \"203.0.113.1\"; interface_address = \"169.254.10.2/30\"; } "
		");\n",
		(int)getpid());
	struct config *config = config_parse(text, "crypto_fallback_test", stderr);
	assert_non_null(config);
	return config;
}

static unsigned int self_tests;

bool __wrap_gcm_self_test(const struct gcm *gcm);

bool __wrap_gcm_self_test(const struct gcm *gcm)
{
	assert_non_null(gcm->variant);
	self_tests++;
	return false;
}

// What dataplane_create says on standard error.
static struct dataplane *create(const struct config *config, char *said, size_t size)
{
	struct dataplane_error error = {{0}};
	FILE *file = tmpfile();
	int before = dup(STDERR_FILENO);
	assert_non_null(file);
	fflush(stderr);
	dup2(fileno(file), STDERR_FILENO);
	struct dataplane *dataplane = dataplane_create(config, &error);
	fflush(stderr);
	dup2(before, STDERR_FILENO);
	close(before);
	rewind(file);
	said[fread(said, 1, size - 1, file)] = '\0';
	fclose(file);
	if (dataplane == NULL)
		fail_msg("%s", error.text);
	return dataplane;
}

static void test_a_failed_self_test(void **unused)
{
	(void)unused;
	struct dataplane_error error = {{0}};
	struct gcm gcm;
	char said[4096];
	IMB_MGR *manager = alloc_mb_mgr(0);
	init_mb_mgr_auto(manager, NULL);
	bool has_burst = gcm_choose(&gcm, manager, ESP_CRYPTO_BURST);
	free_mb_mgr(manager);
	if (!has_burst || unshare(CLONE_NEWNET) != 0 || access("/dev/net/tun", R_OK | W_OK) != 0) {
		print_message("needs a CPU with VAES, and root for a network namespace and TAPs: "
			      "skipped\n");
		skip();
	}
	struct config *config = make_config();
	if (dataplane_eal_start(config, &error) != 0)
		fail_msg("%s", error.text);
	struct dataplane *dataplane = create(config, said, sizeof(said));
	assert_int_equal(self_tests, 1);
	assert_string_equal(dataplane_crypto(dataplane), "ipsec-mb");
	assert_non_null(strstr(said, "warning: the burst cipher failed its self-test"));
	dataplane_destroy(dataplane);
	rte_eal_cleanup();
	config_free(config);
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_a_failed_self_test)};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
