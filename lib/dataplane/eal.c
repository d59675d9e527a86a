// SPDX-License-Identifier: BSD-3-Clause
// Copyright (c) 2026 the espgw authors

// DPDK's EAL from the configuration.

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <rte_eal.h>
#include <rte_errno.h>

#include "internal.h"

uint64_t dataplane_now(void)
{
	struct timespec now;
	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

int dataplane_fail(struct dataplane_error *error, const char *format, ...)
{
	va_list arguments;
	va_start(arguments, format);
	vsnprintf(error->text, sizeof(error->text), format, arguments);
	va_end(arguments);
	return -1;
}

#define ARGUMENTS_MAX (32 + 2 * CONFIG_PORTS)

struct arguments {
	int count;
	char *list[ARGUMENTS_MAX + 1];
};

static void __attribute__((format(printf, 2, 3)))
add(struct arguments *arguments, const char *format, ...)
{
	va_list values;
	va_start(values, format);
	char *text = NULL;
	if (vasprintf(&text, format, values) >= 0 && arguments->count < ARGUMENTS_MAX)
		arguments->list[arguments->count++] = text;
	else
		free(text);
	va_end(values);
}

static bool is_worker_core(const struct config *config, long core)
{
	for (unsigned int i = 0; i < config->worker_count; i++)
		if (config->workers[i].core == (unsigned long)core)
			return true;
	return false;
}

// "0@(control's cores),1@core of worker 0,..." : lcore 0 is control, lcore i + 1 is worker i.
static void add_lcores(struct arguments *arguments, const struct config *config)
{
	char text[4096] = "";
	size_t used = 0;
	long cores = sysconf(_SC_NPROCESSORS_CONF);
	if (config->control_core >= 0) {
		used += (size_t)snprintf(text, sizeof(text), "0@%d", config->control_core);
	} else {
		bool any = false;
		used += (size_t)snprintf(text, sizeof(text), "0@(");
		for (long core = 0; core < cores && used < sizeof(text) - 64; core++) {
			if (is_worker_core(config, core) && cores > config->worker_count)
				continue;
			used += (size_t)snprintf(
				text + used, sizeof(text) - used, "%s%ld", any ? "," : "", core);
			any = true;
		}
		used += (size_t)snprintf(text + used, sizeof(text) - used, ")");
	}
	for (unsigned int i = 0; i < config->worker_count && used < sizeof(text); i++)
		used += (size_t)snprintf(
			text + used, sizeof(text) - used, ",%u@%u", i + 1, config->workers[i].core);
	add(arguments, "--lcores");
	add(arguments, "%s", text);
	add(arguments, "--main-lcore");
	add(arguments, "0");
}

static bool is_vdev(const struct config_port *port)
{
	return strncmp(port->device, "net_", 4) == 0;
}

static bool is_kind(const struct config_port *port, const char *kind)
{
	return strncmp(port->device, kind, strlen(kind)) == 0;
}

// Shares packet memory with another process, which finds it by file.
static bool shares_memory(const struct config_port *port)
{
	return is_kind(port, "net_virtio_user") || is_kind(port, "net_vhost") ||
	       is_kind(port, "net_memif");
}

// Gives another process its packet memory by one file, which must therefore be one.
static bool gives_memory(const struct config_port *port, bool hugepages)
{
	// Without it a virtio_user port beside hugepages passes nothing, and says nothing.
	if (is_kind(port, "net_virtio_user"))
		return hugepages;
	return is_kind(port, "net_memif") && strstr(port->device, ",zero-copy=yes") != NULL;
}

static void add_devices(struct arguments *arguments, const struct config *config)
{
	bool any_pci = false, any_gives = false, any_shares = false;
	for (unsigned int i = 0; i < config->port_count; i++) {
		const struct config_port *port = &config->ports[i];
		any_pci |= !is_vdev(port);
		any_gives |= gives_memory(port, config->gateway.hugepages);
		any_shares |= shares_memory(port);
		add(arguments, is_vdev(port) ? "--vdev=%s" : "--allow=%s", port->device);
	}
	if (!any_pci)
		add(arguments, "--no-pci");
	// Hugepages hold keys. Without their files they go, wiped, when the process does.
	if (config->gateway.hugepages && !any_shares)
		add(arguments, "--huge-unlink=always");
	if (any_gives)
		add(arguments, "--single-file-segments");
}

int dataplane_eal_start(const struct config *config, struct dataplane_error *error)
{
	static const char *const levels[] = {"error", "error", "warning", "info"};
	// EAL keeps pointers to the strings, and overwrites one in the array that it is given.
	static struct arguments arguments, given;
	add(&arguments, "espgw");
	add_lcores(&arguments, config);
	add(&arguments, "--file-prefix=espgw-%s", config->gateway.name);
	add(&arguments, "--no-telemetry");
	add(&arguments, "--log-level=%s", levels[config->gateway.log_level]);
	if (!config->gateway.hugepages) {
		add(&arguments, "--no-huge");
		add(&arguments, "-m");
		add(&arguments, "%u", config->gateway.memory_mb);
	}
	add_devices(&arguments, config);
	given = arguments;
	if (rte_eal_init(given.count, given.list) >= 0)
		return 0;
	const char *hint =
		config->gateway.hugepages
			? "are hugepages reserved (scripts/hugepages) and the devices bound?"
			: "is there a device of each name, and is gateway.memory_mb free?";
	return dataplane_fail(error, "DPDK did not start: %s; %s", rte_strerror(rte_errno), hint);
}
