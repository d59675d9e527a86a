// SPDX-License-Identifier: BSD-3-Clause
// Copyright (c) 2026 the espgw authors

#include "control/control.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/random.h>
#include <time.h>

#include <event2/event.h>

#include "control/internal.h"

uint64_t control_now(void)
{
	struct timespec now;
	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * NANOSECONDS + (uint64_t)now.tv_nsec;
}

void control_log(
	const struct control *control, enum config_log_level level, const char *format, ...)
{
	char line[640];
	va_list arguments;
	va_start(arguments, format);
	vsnprintf(line, sizeof(line), format, arguments);
	va_end(arguments);
	if (control->parts.log != NULL)
		control->parts.log(control->parts.argument, level, line);
	else if (level <= control->parts.config->gateway.log_level)
		fprintf(stderr, "espgw: %s\n", line);
}

static void tick(evutil_socket_t fd, short what, void *argument)
{
	struct control *control = argument;
	(void)fd;
	(void)what;
	lifetimes_check(control);
	uint64_t now = control_now();
	if (now < control->next_expiry)
		return;
	control->next_expiry = now + NANOSECONDS;
	reservations_expire(control);
}

static int start_tick(struct control *control, struct event_base *base, struct control_error *error)
{
	const struct timeval interval = {0, CONTROL_TICK_MS * 1000};
	control->tick = event_new(base, -1, EV_PERSIST, tick, control);
	if (control->tick != NULL && event_add(control->tick, &interval) == 0)
		return 0;
	snprintf(error->text, sizeof(error->text), "no memory for the lifetime timer");
	return -1;
}

static int make_epoch(struct control *control, struct control_error *error)
{
	uint64_t random;
	if (getrandom(&random, sizeof(random), 0) != sizeof(random)) {
		snprintf(error->text, sizeof(error->text), "no random numbers");
		return -1;
	}
	snprintf(control->epoch, sizeof(control->epoch), "%016llx", (unsigned long long)random);
	return 0;
}

static int open_stores(struct control *control, struct control_error *error)
{
	const struct config_gateway *gateway = &control->parts.config->gateway;
	control->keystore = keystore_open(gateway->state_directory, error);
	if (control->keystore == NULL)
		return -1;
	if (keystore_fault(control->keystore) != NULL)
		control_log(control, CONFIG_LOG_ERROR, "no SA can be added: %s",
			keystore_fault(control->keystore));
	// Twice as many as SAs, so that the keys of deleted ones can be added again for a while.
	control->records = records_open(gateway->run_directory, 2 * gateway->max_sas, error);
	return control->records == NULL ? -1 : 0;
}

struct control *control_create_unconnected(
	const struct control_parts *parts, struct control_error *error)
{
	struct control *control = calloc(1, sizeof(*control));
	if (control == NULL) {
		snprintf(error->text, sizeof(error->text), "no memory for the control server");
		return NULL;
	}
	control->parts = *parts;
	control->started = control_now();
	TAILQ_INIT(&control->limited);
	TAILQ_INIT(&control->reservations);
	if (make_epoch(control, error) != 0 || open_stores(control, error) != 0) {
		control_destroy(control);
		return NULL;
	}
	return control;
}

struct control *control_create(
	const struct control_parts *parts, struct event_base *base, struct control_error *error)
{
	// First, so that a second instance hears of the first rather than of a locked directory.
	if (server_check_path(parts->config->gateway.control_socket, error) != 0)
		return NULL;
	struct control *control = control_create_unconnected(parts, error);
	if (control == NULL)
		return NULL;
	signal(SIGPIPE, SIG_IGN); // a client that went away is an error of write
	control->server = server_create(control, base, error);
	if (control->server == NULL || start_tick(control, base, error) != 0) {
		control_destroy(control);
		return NULL;
	}
	return control;
}

static void delete_all_sas(struct control *control)
{
	struct tunnel_table *table = control->parts.tunnels;
	struct sa *sa;
	while ((sa = sa_next(table, NULL)) != NULL)
		sa_remove(control, sa);
	// No worker may store into the replay records once they are unmapped.
	reclaim_synchronize(control->parts.reclaim);
}

void control_destroy(struct control *control)
{
	if (control == NULL)
		return;
	server_destroy(control->server);
	if (control->tick != NULL)
		event_free(control->tick);
	delete_all_sas(control);
	reservations_destroy(control);
	records_close(control->records);
	keystore_close(control->keystore);
	free(control);
}
