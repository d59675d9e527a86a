// SPDX-License-Identifier: BSD-3-Clause
// Copyright (c) 2026 the espgw authors

// hello, SPI reservations, and the subscription to events.

#include <stdlib.h>
#include <string.h>

#include "control/internal.h"

static json_t *method_hello(struct request *request)
{
	struct scope scope = {request, request->params, ""};
	uint64_t protocol = 0;
	const char *client = "";
	if (!scope_number(&scope, "protocol", REQUIRED, 0, UINT32_MAX, &protocol) ||
		!scope_text(&scope, "client", OPTIONAL, &client))
		return NULL;
	if (strlen(client) > 64) {
		request_fail_parameter(request, "", "client", "give at most 64 bytes");
		return NULL;
	}
	if (protocol != CONTROL_PROTOCOL) {
		request_fail(request, RPC_PROTOCOL,
			"protocol %u is not supported; this gateway speaks version %d",
			(unsigned int)protocol, CONTROL_PROTOCOL);
		return NULL;
	}
	struct control *control = request->control;
	request->session->greeted = true;
	json_t *result = json_object();
	json_put_number(result, "protocol", CONTROL_PROTOCOL);
	json_put_text(result, "server", "espgw");
	json_put_text(result, "version", ESPGW_VERSION);
	json_put_text(result, "epoch", control->epoch);
	json_put_text(result, "name", control->parts.config->gateway.name);
	return result;
}

// ---- reservations ----

static void release(struct control *control, struct reservation *reservation)
{
	TAILQ_REMOVE(&control->reservations, reservation, in_all);
	control->reservation_count--;
	tunnel_spi_release(control->parts.tunnels, reservation->spi);
	free(reservation);
}

static struct reservation *find_reservation(const struct control *control, uint32_t spi)
{
	struct reservation *reservation;
	TAILQ_FOREACH (reservation, &control->reservations, in_all)
		if (reservation->spi == spi)
			return reservation;
	return NULL;
}

void reservations_taken(struct control *control, uint32_t spi)
{
	struct reservation *reservation = find_reservation(control, spi);
	if (reservation != NULL)
		release(control, reservation);
}

void reservations_session_ended(struct control *control, uint64_t session)
{
	struct reservation *reservation;
	TAILQ_FOREACH (reservation, &control->reservations, in_all)
		if (reservation->session == session && reservation->expires == 0)
			reservation->expires = control_now() + CONTROL_RESERVE_HOLD * NANOSECONDS;
}

void reservations_expire(struct control *control)
{
	uint64_t now = control_now();
	struct reservation *reservation, *next;
	for (reservation = TAILQ_FIRST(&control->reservations); reservation != NULL;
		reservation = next) {
		next = TAILQ_NEXT(reservation, in_all);
		if (reservation->expires != 0 && reservation->expires <= now)
			release(control, reservation);
	}
}

void reservations_destroy(struct control *control)
{
	while (!TAILQ_EMPTY(&control->reservations))
		release(control, TAILQ_FIRST(&control->reservations));
}

static struct reservation *reserve(struct control *control, uint64_t session)
{
	struct reservation *reservation = calloc(1, sizeof(*reservation));
	if (reservation == NULL)
		return NULL;
	reservation->spi = tunnel_spi_reserve(control->parts.tunnels);
	if (reservation->spi == 0) {
		free(reservation);
		return NULL;
	}
	reservation->session = session;
	TAILQ_INSERT_TAIL(&control->reservations, reservation, in_all);
	control->reservation_count++;
	return reservation;
}

static json_t *method_spi_reserve(struct request *request)
{
	struct control *control = request->control;
	struct scope scope = {request, request->params, ""};
	struct tunnel *tunnel = NULL;
	uint64_t count = 1;
	if (!scope_tunnel(&scope, "tunnel", OPTIONAL, &tunnel) ||
		!scope_number(&scope, "count", OPTIONAL, 1, CONTROL_RESERVE_MAX, &count))
		return NULL;
	json_t *spis = json_array();
	for (uint64_t i = 0; i < count; i++) {
		const struct reservation *reservation = reserve(control, request->session->id);
		if (reservation != NULL) {
			char text[16];
			snprintf(text, sizeof(text), "0x%08x", reservation->spi);
			json_append(spis, json_string(text));
			continue;
		}
		while (i-- > 0) // all or none
			release(control, TAILQ_LAST(&control->reservations, reservation_list));
		json_decref(spis);
		request_fail(request, RPC_NO_SPI, "%u SPIs are reserved and unused, no more fit",
			control->reservation_count);
		return NULL;
	}
	json_t *result = json_object();
	json_put(result, "spis", spis);
	return result;
}

static json_t *method_spi_release(struct request *request)
{
	struct scope scope = {request, request->params, ""};
	uint32_t spi = 0;
	if (!scope_spi(&scope, "spi", &spi))
		return NULL;
	struct reservation *reservation = find_reservation(request->control, spi);
	if (reservation == NULL) {
		request_fail(request, RPC_SPI_NOT_RESERVED, "SPI 0x%08x is not reserved", spi);
		return NULL;
	}
	release(request->control, reservation);
	json_t *result = json_object();
	json_put_spi(result, "spi", spi);
	return result;
}

// ---- events ----

// An entry that names no event; NULL: it is no text.
static bool fail_event(struct request *request, const char *parameter, const char *text)
{
	const char *nearest = text == NULL ? NULL : nearest_name(text, event_names);
	if (nearest != NULL)
		return request_fail_parameter(request, "", parameter,
			"there is no event \"%s\"; did you mean \"%s\"?", text, nearest);
	char names[256] = "";
	for (size_t kind = 0, length = 0; kind < EVENT_COUNT && length < sizeof(names); kind++)
		length += (size_t)snprintf(names + length, sizeof(names) - length, "%s%s",
			kind == 0 ? "" : ", ", event_names[kind]);
	if (text == NULL || strlen(text) >= 32)
		return request_fail_parameter(
			request, "", parameter, "give the name of an event: %s", names);
	return request_fail_parameter(
		request, "", parameter, "there is no event \"%s\"; there are %s", text, names);
}

static bool parse_event(
	struct request *request, size_t index, const json_t *entry, uint32_t *events)
{
	char name[32];
	snprintf(name, sizeof(name), "events[%zu]", index);
	const char *text = json_string_value(entry);
	for (unsigned int kind = 0; text != NULL && kind < EVENT_COUNT; kind++)
		if (strcmp(text, event_names[kind]) == 0) {
			*events |= UINT32_C(1) << kind;
			return true;
		}
	return fail_event(request, name, text);
}

static json_t *method_events_subscribe(struct request *request)
{
	struct scope scope = {request, request->params, ""};
	bool ok;
	uint32_t events = 0;
	const json_t *list = scope_get(&scope, "events", OPTIONAL, &ok);
	if (list == NULL)
		events = (UINT32_C(1) << EVENT_COUNT) - 1;
	else if (!json_is_array(list)) {
		request_fail_parameter(request, "", "events", "give an array of names of events");
		return NULL;
	}
	for (size_t i = 0; i < json_array_size(list); i++)
		if (!parse_event(request, i, json_array_get(list, i), &events))
			return NULL;
	request->session->events = events;
	json_t *names = json_array();
	for (unsigned int kind = 0; kind < EVENT_COUNT; kind++)
		if ((events & UINT32_C(1) << kind) != 0)
			json_append(names, json_string(event_names[kind]));
	json_t *result = json_object();
	json_put(result, "events", names);
	return result;
}

static const char *const hello_parameters[] = {"protocol", "client", NULL};
static const char *const reserve_parameters[] = {"tunnel", "count", NULL};
static const char *const release_parameters[] = {"spi", NULL};
static const char *const subscribe_parameters[] = {"events", NULL};

const struct method methods_session[] = {
	{"hello", method_hello, hello_parameters},
	{"spi.reserve", method_spi_reserve, reserve_parameters},
	{"spi.release", method_spi_release, release_parameters},
	{"events.subscribe", method_events_subscribe, subscribe_parameters},
	{NULL, NULL, NULL},
};
