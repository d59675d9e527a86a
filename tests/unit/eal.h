// SPDX-License-Identifier: BSD-3-Clause
// Copyright (c) 2026 the espgw authors

// Starts DPDK's EAL for unit tests: no hugepages, no devices, one main lcore, nothing shared. So
// tests run for any user, beside a running gateway.

#pragma once

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <rte_eal.h>
#include <rte_log.h>

static inline int test_eal_start(const char *memory_mb)
{
	static char prefix[32];
	snprintf(prefix, sizeof(prefix), "espgw-test-%d", (int)getpid());
	const char *arguments[] = {"test", "--no-huge", "-m", memory_mb, "--no-pci",
		"--no-telemetry", "--no-shconf", "--file-prefix", prefix, "--lcores", "0@(0-1)",
		"--log-level", "error"};
	// rte_eal_init takes no const, but leaves the strings alone.
	char **argv = (char **)(uintptr_t)arguments;
	return rte_eal_init((int)(sizeof(arguments) / sizeof(arguments[0])), argv) < 0 ? -1 : 0;
}
