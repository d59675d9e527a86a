// SPDX-License-Identifier: BSD-3-Clause
// Copyright (c) 2026 the espgw authors

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <time.h>

#include "command.h"
#include "keys.h"

#define COUNTED_FROM  20 // entries: a longer list ends with their number
#define SELECTORS_MAX 16 // as many as sa.add takes

// ---- failures ----

static void print_failure_json(const struct espgw_error *error)
{
	json_t *object = json_pack("{s:{s:i, s:s, s:s, s:s}}", "error", "code", error->code, "name",
		error->name, "parameter", error->parameter, "message", error->message);
	if (object != NULL)
		json_dumpf(object, stdout, JSON_INDENT(2));
	putchar('\n');
	json_decref(object);
}

enum exit_code report_failure(const struct invocation *invocation, const struct espgw_error *error)
{
	if (invocation->json)
		print_failure_json(error);
	if (error->status == ESPGW_ARGUMENT)
		return usage_error(invocation, "%s", error->message);
	if (error->status == ESPGW_REFUSED) {
		fprintf(stderr, "espctl: the gateway refuses: %s\n", error->message);
		return EXIT_REFUSED;
	}
	fprintf(stderr, "espctl: %s\n", error->message);
	fprintf(stderr,
		"The control socket is %s.\n"
		"Does the gateway run? See `systemctl status espgw`.\n"
		"Another socket is chosen with --socket PATH or the variable ESPGW_SOCKET; the\n"
		"configuration's gateway.control_socket_mode says who may use it.\n",
		invocation->socket);
	return EXIT_UNREACHABLE;
}

enum exit_code run_connect(struct invocation *invocation)
{
	struct espgw_error error;
	if (espgw_client_connect(invocation->socket, "espctl/" ESPGW_VERSION,
		    invocation->timeout_ms, &invocation->client, &error) != ESPGW_OK)
		return report_failure(invocation, &error);
	return EXIT_DONE;
}

// ---- commands of one call ----

// Pages until there are so many entries.
static enum espgw_status list_some(const struct invocation *invocation, size_t limit,
	json_t **entries, struct espgw_error *error)
{
	const struct command *command = invocation->command;
	json_t *request = json_copy(invocation->parameters), *page;
	enum espgw_status status = ESPGW_OK;
	*entries = json_array();
	for (bool more = true; more && json_array_size(*entries) < limit;) {
		status = espgw_client_call(
			invocation->client, command->method, request, &page, error);
		if (status != ESPGW_OK)
			break;
		json_t *next = json_object_get(page, "next");
		more = next != NULL && json_object_set(request, "after", next) == 0;
		json_array_extend(*entries, json_object_get(page, command->member));
		json_decref(page);
	}
	json_decref(request);
	while (json_array_size(*entries) > limit)
		json_array_remove(*entries, json_array_size(*entries) - 1);
	if (status != ESPGW_OK)
		json_decref(*entries);
	return status;
}

static const char *sort_member; // of qsort's elements

static int compare_entries(const void *a, const void *b)
{
	const json_t *x = json_object_get(*(json_t *const *)a, sort_member);
	const json_t *y = json_object_get(*(json_t *const *)b, sort_member);
	if (json_is_string(x) && json_is_string(y))
		return strcmp(json_string_value(x), json_string_value(y));
	json_int_t m = json_integer_value(x), n = json_integer_value(y);
	return (m < n) - (m > n); // the most first
}

// False: without memory.
static bool sort_entries(json_t *entries, const char *member)
{
	size_t count = json_array_size(entries);
	json_t **sorted = calloc(count + 1, sizeof(sorted[0]));
	if (sorted == NULL)
		return false;
	for (size_t i = 0; i < count; i++)
		sorted[i] = json_incref(json_array_get(entries, i));
	sort_member = member;
	qsort(sorted, count, sizeof(sorted[0]), compare_entries);
	for (size_t i = 0; i < count; i++)
		json_array_set_new(entries, i, sorted[i]);
	free(sorted);
	return true;
}

// The member that --sort names; NULL: none, or *wrong.
static const char *sort_choice(const struct invocation *invocation, bool *wrong)
{
	static const char *const choices[][2] = {{"drops", "drop_total"}, {"out", "out_bytes"},
		{"in", "in_bytes"}, {"name", "name"}};
	const char *by = json_string_value(json_object_get(invocation->own, "--sort"));
	*wrong = false;
	for (size_t i = 0; by != NULL && i < sizeof(choices) / sizeof(choices[0]); i++)
		if (strcmp(by, choices[i][0]) == 0)
			return choices[i][1];
	*wrong = by != NULL;
	return NULL;
}

static enum exit_code run_list(struct invocation *invocation)
{
	const struct command *command = invocation->command;
	const json_t *given = json_object_get(invocation->own, "--limit");
	size_t limit = given == NULL ? SIZE_MAX : (size_t)json_integer_value(given);
	struct espgw_error error;
	json_t *entries;
	bool wrong;
	const char *sort = sort_choice(invocation, &wrong);
	if (wrong)
		return usage_error(invocation, "--sort: give drops, out, in or name");
	enum espgw_status status =
		sort != NULL || given == NULL
			? espgw_client_list(invocation->client, command->method,
				  invocation->parameters, command->member, &entries, &error)
			: list_some(invocation, limit, &entries, &error);
	if (status != ESPGW_OK)
		return report_failure(invocation, &error);
	if (sort != NULL)
		sort_entries(entries, sort);
	while (json_array_size(entries) > limit)
		json_array_remove(entries, json_array_size(entries) - 1);
	json_t *result = json_pack("{s:o}", command->member, entries);
	print_result(invocation, result);
	if (!invocation->json && json_array_size(entries) > COUNTED_FROM)
		printf("%zu %s\n", json_array_size(entries), command->member);
	json_decref(result);
	return EXIT_DONE;
}

enum exit_code run_call(struct invocation *invocation)
{
	const struct command *command = invocation->command;
	struct espgw_error error;
	json_t *result;
	enum espgw_status status;
	if (command->pages)
		return run_list(invocation);
	status = espgw_client_call(
		invocation->client, command->method, invocation->parameters, &result, &error);
	if (status != ESPGW_OK)
		return report_failure(invocation, &error);
	print_result(invocation, result);
	json_decref(result);
	return EXIT_DONE;
}

enum exit_code run_hello(struct invocation *invocation)
{
	const struct espgw_server *server = espgw_client_server(invocation->client);
	json_t *hello = json_pack("{s:s, s:s, s:s, s:i, s:s}", "name", server->name, "server",
		server->server, "version", server->version, "protocol", server->protocol, "epoch",
		server->epoch);
	print_result(invocation, hello);
	json_decref(hello);
	return EXIT_DONE;
}

enum exit_code run_version(struct invocation *invocation)
{
	if (invocation->json)
		printf("{\"espctl\": \"%s\", \"protocol\": %d}\n", ESPGW_VERSION,
			ESPGW_CLIENT_PROTOCOL);
	else
		printf("espctl %s, control protocol %d\n", ESPGW_VERSION, ESPGW_CLIENT_PROTOCOL);
	return EXIT_DONE;
}

// ---- keys ----

static const char *own_text(const struct invocation *invocation, const char *name)
{
	return json_string_value(json_object_get(invocation->own, name));
}

static const char *parameter_text(const struct invocation *invocation, const char *name)
{
	return json_string_value(json_object_get(invocation->parameters, name));
}

static enum exit_code report_key_file(
	const struct invocation *invocation, const char *path, const char *why)
{
	return usage_error(
		invocation, "key file %s: %s", strcmp(path, "-") == 0 ? "from stdin" : path, why);
}

static struct espgw_lifetime lifetime_of(const json_t *limits)
{
	return (struct espgw_lifetime){
		.seconds = (uint64_t)json_integer_value(json_object_get(limits, "seconds")),
		.bytes = (uint64_t)json_integer_value(json_object_get(limits, "bytes")),
		.packets = (uint64_t)json_integer_value(json_object_get(limits, "packets")),
	};
}

static enum exit_code set_replay_window(const struct invocation *invocation, struct espgw_sa *sa)
{
	const json_t *window = json_object_get(invocation->parameters, "replay_window");
	if (window == NULL)
		return EXIT_DONE;
	json_int_t packets = json_integer_value(window);
	if (packets > INT32_MAX)
		return usage_error(invocation, "--replay-window is too large");
	sa->replay_window = packets == 0 ? ESPGW_REPLAY_WINDOW_OFF : (int32_t)packets;
	return EXIT_DONE;
}

static struct espgw_ports ports_of(const json_t *range)
{
	return (struct espgw_ports){
		.first = (uint16_t)json_integer_value(json_object_get(range, "first")),
		.last = (uint16_t)json_integer_value(json_object_get(range, "last")),
	};
}

// The texts belong to the JSON.
static struct espgw_selector selector_of(const json_t *selector)
{
	return (struct espgw_selector){
		.local = json_string_value(json_object_get(selector, "local")),
		.remote = json_string_value(json_object_get(selector, "remote")),
		.protocol = (uint8_t)json_integer_value(json_object_get(selector, "protocol")),
		.local_ports = ports_of(json_object_get(selector, "local_ports")),
		.remote_ports = ports_of(json_object_get(selector, "remote_ports")),
	};
}

// Everything but the keys; the texts belong to the invocation.
static enum exit_code fill_sa(
	const struct invocation *invocation, struct espgw_sa *sa, struct espgw_selector *selectors)
{
	const json_t *parameters = invocation->parameters;
	const json_t *udp = json_object_get(parameters, "udp_encapsulation");
	const json_t *lifetime = json_object_get(parameters, "lifetime");
	sa->tunnel = parameter_text(invocation, "tunnel");
	sa->direction =
		strcmp(parameter_text(invocation, "direction"), "in") == 0 ? ESPGW_IN : ESPGW_OUT;
	sa->spi = (uint32_t)strtoul(parameter_text(invocation, "spi"), NULL, 16);
	sa->source = parameter_text(invocation, "source");
	sa->destination = parameter_text(invocation, "destination");
	sa->esn = json_is_true(json_object_get(parameters, "esn"));
	sa->udp_source_port = (uint16_t)json_integer_value(json_object_get(udp, "source_port"));
	sa->udp_destination_port =
		(uint16_t)json_integer_value(json_object_get(udp, "destination_port"));
	sa->soft = lifetime_of(json_object_get(lifetime, "soft"));
	sa->hard = lifetime_of(json_object_get(lifetime, "hard"));
	size_t index;
	const json_t *selector;
	json_array_foreach (json_object_get(parameters, "selectors"), index, selector) {
		if (index == SELECTORS_MAX)
			return usage_error(
				invocation, "at most %d --selector can be given", SELECTORS_MAX);
		selectors[index] = selector_of(selector);
		sa->selector_count = index + 1;
	}
	sa->selectors = selectors;
	return set_replay_window(invocation, sa);
}

static enum exit_code add_sa(struct invocation *invocation, const struct espgw_sa *sa)
{
	uint64_t id;
	bool already;
	struct espgw_error error;
	enum espgw_status status =
		espgw_client_sa_add(invocation->client, sa, &id, &already, &error);
	if (status != ESPGW_OK)
		return report_failure(invocation, &error);
	if (invocation->json)
		printf("{\"id\": %llu, \"already\": %s}\n", (unsigned long long)id,
			already ? "true" : "false");
	else
		printf("SA %llu %s\n", (unsigned long long)id,
			already ? "was there already" : "added");
	return EXIT_DONE;
}

enum exit_code run_sa_add(struct invocation *invocation)
{
	char why[256];
	struct espgw_selector selectors[SELECTORS_MAX];
	struct espgw_sa sa = {0};
	enum exit_code code = fill_sa(invocation, &sa, selectors);
	if (code != EXIT_DONE)
		return code;
	const char *path = own_text(invocation, "--keys");
	prctl(PR_SET_DUMPABLE, 0); // no key in a core file
	if (!keys_read(path, sa.key, sa.salt, why, sizeof(why)))
		return report_key_file(invocation, path, why);
	code = run_connect(invocation);
	if (code == EXIT_DONE)
		code = add_sa(invocation, &sa);
	espgw_client_sa_wipe(&sa);
	return code;
}

enum exit_code run_key_generate(struct invocation *invocation)
{
	char why[256];
	const char *path = own_text(invocation, "FILE");
	prctl(PR_SET_DUMPABLE, 0);
	if (!keys_generate(path, why, sizeof(why)))
		return report_key_file(invocation, path, why);
	if (invocation->json) {
		json_t *result = json_pack("{s:s}", "file", path);
		print_result(invocation, result);
		json_decref(result);
	} else {
		printf("wrote %s; it is a secret\n", path);
	}
	return EXIT_DONE;
}

// ---- events ----

static int64_t now_ms(void)
{
	struct timespec now;
	clock_gettime(CLOCK_MONOTONIC, &now);
	return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static enum espgw_status subscribe(struct invocation *invocation, struct espgw_error *error)
{
	const json_t *chosen = json_object_get(invocation->own, "--event");
	json_t *parameters = json_object();
	if (chosen != NULL)
		json_object_set(parameters, "events", (json_t *)(uintptr_t)chosen);
	enum espgw_status status = espgw_client_call(
		invocation->client, invocation->command->method, parameters, NULL, error);
	json_decref(parameters);
	return status;
}

enum exit_code run_events(struct invocation *invocation)
{
	const json_t *count = json_object_get(invocation->own, "--count");
	const json_t *seconds = json_object_get(invocation->own, "--seconds");
	int64_t end = now_ms() + json_integer_value(seconds) * 1000;
	struct espgw_error error;
	enum espgw_status status = subscribe(invocation, &error);
	for (json_int_t seen = 0; status == ESPGW_OK; seen++) {
		if (count != NULL && seen >= json_integer_value(count))
			return EXIT_DONE;
		int64_t left = end - now_ms();
		json_t *event;
		status = espgw_client_event_next(invocation->client,
			seconds == NULL ? -1 : (int)(left < 0 ? 0 : left), &event, &error);
		if (status == ESPGW_TIMEOUT)
			return EXIT_DONE;
		if (status == ESPGW_OK) {
			print_event(invocation, event);
			json_decref(event);
		}
		// Whoever reads our output sees each event when it comes, or is gone.
		if (fflush(stdout) != 0)
			return EXIT_DONE;
	}
	return report_failure(invocation, &error);
}
