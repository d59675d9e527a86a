// SPDX-License-Identifier: BSD-3-Clause
// Copyright (c) 2026 the espgw authors

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#include "client_private.h"

// Events kept for a caller that is busy with calls; more are counted as lost.
#define EVENTS_MAX 4096
// The longest request that the gateway reads, without its LF.
#define REQUEST_BYTES_MAX 65536

// ---- errors ----

// snprintf that cuts without a warning: what is cut is text for people.
static void copy_text(char *to, size_t size, const char *from)
{
	size_t length = strnlen(from, size - 1);
	memcpy(to, from, length);
	to[length] = '\0';
}

enum espgw_status espgw_fail(struct espgw_error *error, enum espgw_status status,
	const char *parameter, const char *format, ...)
{
	if (error == NULL)
		return status;
	*error = (struct espgw_error){.status = status};
	copy_text(error->parameter, sizeof(error->parameter), parameter == NULL ? "" : parameter);
	va_list arguments;
	va_start(arguments, format);
	vsnprintf(error->message, sizeof(error->message), format, arguments);
	va_end(arguments);
	return status;
}

static const char *member_text(const json_t *object, const char *key, const char *otherwise)
{
	const char *text = json_string_value(json_object_get(object, key));
	return text == NULL ? otherwise : text;
}

// An error object of JSON-RPC 2.0.
static enum espgw_status refuse(struct espgw_error *error, const json_t *answer)
{
	const json_t *data = json_object_get(answer, "data");
	enum espgw_status status =
		espgw_fail(error, ESPGW_REFUSED, member_text(data, "parameter", ""), "%s",
			member_text(answer, "message", "the gateway gives no reason"));
	if (error != NULL) {
		error->code = (int)json_integer_value(json_object_get(answer, "code"));
		copy_text(error->name, sizeof(error->name), member_text(data, "name", ""));
	}
	return status;
}

// The stream is not the protocol, so nothing that follows can be trusted either.
static enum espgw_status distrust(
	struct espgw_client *client, const char *what, struct espgw_error *error)
{
	espgw_connection_break(client);
	client->start = client->searched = client->received.length;
	return espgw_fail(error, ESPGW_PROTOCOL, NULL, "the gateway's answer is %s", what);
}

// ---- what arrives ----

static void keep_event(struct espgw_client *client, json_t *event)
{
	if (client->events_lost > 0 || json_array_size(client->events) >= EVENTS_MAX ||
		json_array_append(client->events, event) != 0)
		client->events_lost++;
}

// What a line turned out to be.
enum line_kind {
	LINE_OTHER,  // a notification (an event was kept), or an answer that came too late
	LINE_ANSWER, // to the call with the id client->last_id
};

// Takes one line apart. With LINE_ANSWER, *answer is a new reference.
static enum espgw_status take_line(struct espgw_client *client, const char *line, size_t length,
	enum line_kind *kind, json_t **answer, struct espgw_error *error)
{
	*kind = LINE_OTHER;
	json_t *message = json_loadb(line, length, JSON_REJECT_DUPLICATES, NULL);
	if (!json_is_object(message)) {
		json_decref(message);
		return distrust(client, "not a JSON object", error);
	}
	const json_t *method = json_object_get(message, "method");
	const json_t *id = json_object_get(message, "id");
	json_t *event = json_object_get(message, "params");
	if (method != NULL) {
		if (json_is_string(method) && strcmp(json_string_value(method), "event") == 0 &&
			json_is_object(event))
			keep_event(client, event);
	} else if (json_is_integer(id) && (uint64_t)json_integer_value(id) == client->last_id) {
		*kind = LINE_ANSWER;
	} else if (json_is_null(id) && json_is_object(json_object_get(message, "error"))) {
		// The gateway could not read the request's id, or refuses the connection as such.
		*kind = LINE_ANSWER;
	} else if (!json_is_integer(id)) {
		json_decref(message);
		return distrust(client, "neither an answer nor an event", error);
	}
	if (*kind == LINE_ANSWER)
		*answer = message;
	else
		json_decref(message);
	return ESPGW_OK;
}

static enum espgw_status await_answer(
	struct espgw_client *client, json_t **answer, struct espgw_error *error)
{
	int64_t deadline = espgw_deadline(client->timeout_ms);
	for (;;) {
		const char *line;
		size_t length;
		enum line_kind kind;
		enum espgw_status status =
			espgw_connection_receive(client, &line, &length, deadline, error);
		if (status == ESPGW_OK)
			status = take_line(client, line, length, &kind, answer, error);
		if (status != ESPGW_OK || kind == LINE_ANSWER)
			return status;
		// A stream of events must not keep a call from ending.
		if (espgw_deadline_passed(deadline))
			return espgw_fail(
				error, ESPGW_TIMEOUT, NULL, "the gateway did not answer in time");
	}
}

// ---- calls ----

void espgw_request_begin(
	struct espgw_client *client, struct espgw_text *request, const char *method)
{
	espgw_text_add_format(
		request, "{\"jsonrpc\":\"2.0\",\"id\":%" PRIu64 ",\"method\":", ++client->last_id);
	espgw_text_add_string(request, method);
	static const char params[] = ",\"params\":";
	espgw_text_add(request, params, sizeof(params) - 1);
}

enum espgw_status espgw_client_exchange(struct espgw_client *client, struct espgw_text *request,
	json_t **result, struct espgw_error *error)
{
	if (result != NULL)
		*result = NULL;
	enum espgw_status status = ESPGW_OK;
	if (request->failed)
		status = espgw_fail(error, ESPGW_MEMORY, NULL, "no memory");
	else if (request->length > REQUEST_BYTES_MAX + 1)
		status = espgw_fail(error, ESPGW_ARGUMENT, NULL,
			"the request would be longer than %d bytes", REQUEST_BYTES_MAX);
	else if (client->broken)
		status = espgw_fail(error, ESPGW_CLOSED, NULL, "the connection is closed already");
	else
		status = espgw_connection_send(
			client, request, espgw_deadline(client->timeout_ms), error);
	espgw_text_wipe(request);
	if (status != ESPGW_OK)
		return status;

	json_t *answer;
	status = await_answer(client, &answer, error);
	if (status != ESPGW_OK)
		return status;
	const json_t *refusal = json_object_get(answer, "error");
	json_t *value = json_object_get(answer, "result");
	if (json_is_object(refusal))
		status = refuse(error, refusal);
	else if (value == NULL)
		status = distrust(client, "neither a result nor an error", error);
	else if (result != NULL)
		*result = json_incref(value);
	json_decref(answer);
	return status;
}

static int dump_to_text(const char *bytes, size_t length, void *text)
{
	espgw_text_add(text, bytes, length);
	return ((struct espgw_text *)text)->failed ? -1 : 0;
}

enum espgw_status espgw_client_call(struct espgw_client *client, const char *method, json_t *params,
	json_t **result, struct espgw_error *error)
{
	if (result != NULL)
		*result = NULL;
	if (params != NULL && !json_is_object(params))
		return espgw_fail(error, ESPGW_ARGUMENT, NULL, "params must be an object");
	struct espgw_text request = {0};
	espgw_request_begin(client, &request, method);
	if (params == NULL) {
		espgw_text_add(&request, "{}", 2);
	} else if (json_dump_callback(params, dump_to_text, &request, JSON_COMPACT) != 0) {
		espgw_text_wipe(&request);
		return espgw_fail(error, ESPGW_ARGUMENT, NULL, "params can't be written as JSON");
	}
	espgw_text_add(&request, "}\n", 2);
	return espgw_client_exchange(client, &request, result, error);
}

// Appends the entries of a page. False: it is not a page with such a member.
static bool add_page(json_t *entries, const json_t *page, const char *member)
{
	json_t *more = json_object_get(page, member);
	return json_is_array(more) && json_array_extend(entries, more) == 0;
}

enum espgw_status espgw_client_list(struct espgw_client *client, const char *method, json_t *params,
	const char *member, json_t **entries, struct espgw_error *error)
{
	*entries = NULL;
	json_t *listed = json_array();
	json_t *request = params == NULL ? json_object() : json_copy(params);
	enum espgw_status status;
	bool more;
	do {
		json_t *page;
		status = espgw_client_call(client, method, request, &page, error);
		if (status != ESPGW_OK)
			break;
		json_t *next = json_object_get(page, "next");
		more = next != NULL && !json_is_null(next);
		// A page that leads to itself would have no end.
		if (!add_page(listed, page, member) ||
			(more && json_equal(next, json_object_get(request, "after"))))
			status = distrust(client, "not a page of a list", error);
		else if (more && json_object_set(request, "after", next) != 0)
			status = espgw_fail(error, ESPGW_MEMORY, NULL, "no memory");
		json_decref(page);
	} while (status == ESPGW_OK && more);
	json_decref(request);
	if (status == ESPGW_OK)
		*entries = listed;
	else
		json_decref(listed);
	return status;
}

// ---- connection ----

static enum espgw_status say_hello(
	struct espgw_client *client, const char *name, struct espgw_error *error)
{
	json_t *params = json_pack("{s:i, s:s}", "protocol", ESPGW_CLIENT_PROTOCOL, "client", name);
	if (params == NULL)
		return espgw_fail(error, ESPGW_ARGUMENT, "client", "the name is not UTF-8");
	json_t *hello;
	enum espgw_status status = espgw_client_call(client, "hello", params, &hello, error);
	json_decref(params);
	if (status != ESPGW_OK)
		return status;
	struct espgw_server *server = &client->server;
	server->protocol = (int)json_integer_value(json_object_get(hello, "protocol"));
	copy_text(server->server, sizeof(server->server), member_text(hello, "server", ""));
	copy_text(server->version, sizeof(server->version), member_text(hello, "version", ""));
	copy_text(server->epoch, sizeof(server->epoch), member_text(hello, "epoch", ""));
	copy_text(server->name, sizeof(server->name), member_text(hello, "name", ""));
	json_decref(hello);
	if (server->protocol != ESPGW_CLIENT_PROTOCOL || server->epoch[0] == '\0')
		return distrust(client, "not the hello of this protocol", error);
	return ESPGW_OK;
}

enum espgw_status espgw_client_connect_fd(int fd, const char *name, int timeout_ms,
	struct espgw_client **client, struct espgw_error *error)
{
	*client = NULL;
	struct espgw_client *made = calloc(1, sizeof(*made));
	json_t *events = json_array();
	int flags = fcntl(fd, F_GETFL);
	enum espgw_status status = ESPGW_OK;
	if (made == NULL || events == NULL)
		status = espgw_fail(error, ESPGW_MEMORY, NULL, "no memory");
	else if (flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) < 0)
		status = espgw_fail(error, ESPGW_ARGUMENT, NULL, "fcntl: %s", strerror(errno));
	if (status != ESPGW_OK) {
		json_decref(events);
		free(made);
		close(fd);
		return status;
	}
	*made = (struct espgw_client){.fd = fd, .timeout_ms = timeout_ms, .events = events};
	status = say_hello(made, name, error);
	if (status != ESPGW_OK) {
		espgw_client_close(made);
		return status;
	}
	*client = made;
	return ESPGW_OK;
}

// A Unix socket's connect() waits only for room in the listener's queue, as long as it may send.
static int connect_in_time(int fd, const struct sockaddr_un *address, int timeout_ms)
{
	if (timeout_ms >= 0) {
		int wait_ms = timeout_ms == 0 ? 1 : timeout_ms; // a time of 0 means no limit
		struct timeval wait = {.tv_sec = wait_ms / 1000, .tv_usec = wait_ms % 1000 * 1000};
		if (setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &wait, sizeof(wait)) != 0)
			return -1;
	}
	int result;
	do
		result = connect(fd, (const struct sockaddr *)address, sizeof(*address));
	while (result != 0 && errno == EINTR);
	return result;
}

enum espgw_status espgw_client_connect(const char *path, const char *name, int timeout_ms,
	struct espgw_client **client, struct espgw_error *error)
{
	*client = NULL;
	if (path == NULL)
		path = ESPGW_CLIENT_SOCKET;
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	if (path[0] == '\0' || strlen(path) >= sizeof(address.sun_path))
		return espgw_fail(error, ESPGW_ARGUMENT, NULL, "a socket's path has 1 to %zu bytes",
			sizeof(address.sun_path) - 1);
	copy_text(address.sun_path, sizeof(address.sun_path), path);
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return espgw_fail(error, ESPGW_UNREACHABLE, NULL, "socket: %s", strerror(errno));
	if (connect_in_time(fd, &address, timeout_ms) != 0) {
		const char *why = errno == EAGAIN ? "it takes no connection" : strerror(errno);
		espgw_fail(error, ESPGW_UNREACHABLE, NULL, "cannot connect to %s: %s", path, why);
		close(fd);
		return ESPGW_UNREACHABLE;
	}
	return espgw_client_connect_fd(fd, name, timeout_ms, client, error);
}

void espgw_client_close(struct espgw_client *client)
{
	if (client == NULL)
		return;
	close(client->fd);
	espgw_text_wipe(&client->received);
	json_decref(client->events);
	free(client);
}

const struct espgw_server *espgw_client_server(const struct espgw_client *client)
{
	return &client->server;
}

void espgw_client_set_timeout(struct espgw_client *client, int timeout_ms)
{
	client->timeout_ms = timeout_ms;
}

// ---- events ----

enum espgw_status espgw_client_subscribe(struct espgw_client *client, const char *const *events,
	size_t count, struct espgw_error *error)
{
	json_t *names = json_array();
	json_t *params = json_object();
	int failed = names == NULL || params == NULL;
	for (size_t i = 0; i < count; i++)
		failed |= json_array_append_new(names, json_string(events[i]));
	if (count > 0)
		failed |= json_object_set(params, "events", names);
	enum espgw_status status =
		failed ? espgw_fail(error, ESPGW_ARGUMENT, "events", "a name is not UTF-8")
		       : espgw_client_call(client, "events.subscribe", params, NULL, error);
	json_decref(names);
	json_decref(params);
	return status;
}

// The oldest event that was kept, or NULL.
static json_t *take_event(struct espgw_client *client)
{
	json_t *event = json_incref(json_array_get(client->events, 0));
	if (event != NULL) {
		json_array_remove(client->events, 0);
		return event;
	}
	if (client->events_lost > 0) {
		event = json_pack("{s:s, s:I}", "event", "events.lost", "count",
			(json_int_t)client->events_lost);
		client->events_lost = 0;
	}
	return event;
}

enum espgw_status espgw_client_event_next(
	struct espgw_client *client, int timeout_ms, json_t **event, struct espgw_error *error)
{
	int64_t deadline = espgw_deadline(timeout_ms);
	for (;;) {
		*event = take_event(client);
		if (*event != NULL)
			return ESPGW_OK;
		const char *line;
		size_t length;
		enum line_kind kind;
		json_t *answer = NULL;
		enum espgw_status status =
			espgw_connection_receive(client, &line, &length, deadline, error);
		if (status == ESPGW_OK)
			status = take_line(client, line, length, &kind, &answer, error);
		json_decref(answer); // of a call that timed out
		if (status != ESPGW_OK)
			return status;
	}
}

int espgw_client_fd(const struct espgw_client *client)
{
	return client->fd;
}
