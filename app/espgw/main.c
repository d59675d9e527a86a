// SPDX-License-Identifier: BSD-3-Clause
// Copyright (c) 2026 the espgw authors

// The daemon: wiring only.

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>

#include <event2/event.h>
#include <rte_eal.h>
#include <systemd/sd-daemon.h>

#include "config/config.h"
#include "control/control.h"
#include "dataplane/dataplane.h"
#include "options.h"
#include "process.h"

static int check(const struct config *config, const char *file)
{
	printf("%s: fine: %u ports, %u workers, %u tunnels, %u routes\n", file, config->port_count,
		config->worker_count, config->tunnel_count, config->route_count);
	return EXIT_SUCCESS;
}

static void on_signal(evutil_socket_t signal, short events, void *base)
{
	(void)events;
	fprintf(stderr, "espgw: %s: stopping\n", signal == SIGTERM ? "SIGTERM" : "SIGINT");
	event_base_loopbreak(base);
}

static void say_ready(const struct config *config)
{
	fprintf(stderr, "espgw: ready: %u ports, %u workers, %u tunnels; control socket %s\n",
		config->port_count, config->worker_count, config->tunnel_count,
		config->gateway.control_socket);
	sd_notify(0, "READY=1");
}

// What passed, for the journal.
static void say_totals(struct dataplane *dataplane)
{
	uint64_t received = 0, forwarded = 0, to_host = 0, joined = 0, held = 0;
	for (unsigned int i = 0; i < TELEMETRY_SOURCES; i++) {
		struct telemetry_source sum;
		telemetry_sum_source(dataplane_telemetry(dataplane), i, &sum);
		received += sum.received;
		forwarded += sum.forwarded;
		to_host += sum.to_host;
		joined += sum.joined;
		held += telemetry_source_held(&sum);
	}
	fprintf(stderr,
		"espgw: stopped: received %lu, forwarded %lu, to host %lu, joined %lu, dropped "
		"%lu, unaccounted %lu packets\n",
		received, forwarded, to_host, joined,
		received - forwarded - to_host - joined - held, held);
}

static void on_reload(evutil_socket_t signal, short events, void *control)
{
	(void)signal;
	(void)events;
	control_reload(control);
}

static int run_loop(const struct config *config, struct event_base *base)
{
	process_raise_priority();
	if (process_drop_privileges() != 0)
		return EXIT_FAILURE;
	say_ready(config);
	event_base_dispatch(base);
	sd_notify(0, "STOPPING=1");
	// Stopping waits for workers, which may need this core.
	process_lower_priority();
	return EXIT_SUCCESS;
}

// Everything that runs on the event loop, and the loop itself.
static int serve(const struct config *config, const char *file, struct dataplane *dataplane,
	struct event_base *base)
{
	struct dataplane_error error;
	struct control_error control_error;
	struct control_parts parts = control_parts_of(dataplane);
	parts.config_file = file;
	struct control *control = control_create(&parts, base, &control_error);
	if (control == NULL) {
		fprintf(stderr, "espgw: %s\n", control_error.text);
		return EXIT_FAILURE;
	}
	dataplane_set_event_handler(dataplane, control_dataplane_event, control);
	struct event *terminate = evsignal_new(base, SIGTERM, on_signal, base);
	struct event *interrupt = evsignal_new(base, SIGINT, on_signal, base);
	struct event *reload = evsignal_new(base, SIGHUP, on_reload, control);
	int status = EXIT_FAILURE;
	if (dataplane_start(dataplane, base, &error) != 0) {
		fprintf(stderr, "espgw: %s\n", error.text);
	} else if (evsignal_add(terminate, NULL) == 0 && evsignal_add(interrupt, NULL) == 0 &&
		   evsignal_add(reload, NULL) == 0) {
		status = run_loop(config, base);
	}
	event_free(terminate);
	event_free(interrupt);
	event_free(reload);
	dataplane_stop(dataplane);
	dataplane_set_event_handler(dataplane, NULL, NULL);
	control_destroy(control);
	say_totals(dataplane);
	return status;
}

static int run(const struct config *config, const char *file)
{
	struct dataplane_error error;
	if (process_raise_files(config) != 0 || process_lock(config) != 0)
		return EXIT_FAILURE;
	struct dataplane *dataplane = NULL;
	if (dataplane_eal_start(config, &error) == 0)
		dataplane = dataplane_create(config, &error);
	if (dataplane == NULL) {
		fprintf(stderr, "espgw: %s\n", error.text);
		return EXIT_FAILURE;
	}
	struct event_base *base = event_base_new();
	int status = EXIT_FAILURE;
	if (base != NULL) {
		status = serve(config, file, dataplane, base);
		event_base_free(base);
	}
	dataplane_destroy(dataplane);
	rte_eal_cleanup();
	return status;
}

int main(int argc, char **argv)
{
	control_memory_init();
	struct options options = options_parse(argc, argv);
	if (options.action == ACTION_EXIT)
		return options.exit_status;
	struct config *config = config_load(options.file, stderr);
	if (config == NULL)
		return EXIT_FAILURE;
	int status;
	switch (options.action) {
	case ACTION_CHECK:
		status = check(config, options.file);
		break;
	case ACTION_REMOVE_INTERFACES:
		status = dataplane_remove_interfaces(config, stdout) == 0 ? EXIT_SUCCESS
									  : EXIT_FAILURE;
		break;
	default:
		process_protect_memory();
		status = run(config, options.file);
	}
	config_free(config);
	return status;
}
