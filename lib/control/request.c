// SPDX-License-Identifier: BSD-3-Clause
// Copyright (c) 2026 the espgw authors

// From a line to its reply.

#include <stdio.h>
#include <string.h>

#include "control/internal.h"

#define ID_MAX 128 // bytes of a request's id when it is a string

static const struct method *const tables[] = {methods_session, methods_sa, methods_tunnel,
	methods_route, methods_stats, methods_stages, methods_config};

static const struct method *find_method(const char *name)
{
	for (size_t i = 0; i < sizeof(tables) / sizeof(tables[0]); i++)
		for (const struct method *method = tables[i]; method->name != NULL; method++)
			if (strcmp(method->name, name) == 0)
				return method;
	return NULL;
}

static bool fail_unknown_method(struct request *request, const char *name)
{
	const char *names[32];
	unsigned int count = 0;
	for (size_t i = 0; i < sizeof(tables) / sizeof(tables[0]); i++)
		for (const struct method *method = tables[i]; method->name != NULL; method++)
			names[count++] = method->name;
	names[count] = NULL;
	const char *nearest = nearest_name(name, names);
	if (strlen(name) >= 32)
		return request_fail(request, RPC_UNKNOWN_METHOD, "there is no such method");
	if (nearest != NULL)
		return request_fail(request, RPC_UNKNOWN_METHOD,
			"there is no method \"%s\"; did you mean \"%s\"?", name, nearest);
	return request_fail(request, RPC_UNKNOWN_METHOD, "there is no method \"%s\"", name);
}

// jansson's own message would repeat what stands near the error, perhaps a key.
static bool fail_parse(struct request *request, const json_error_t *error)
{
	const char *what = "a syntax error";
	switch (json_error_code(error)) {
	case json_error_premature_end_of_input:
		what = "the line ends too early";
		break;
	case json_error_end_of_input_expected:
		what = "something follows the object";
		break;
	case json_error_invalid_utf8:
		what = "it is not UTF-8";
		break;
	case json_error_duplicate_key:
		what = "a member occurs twice";
		break;
	case json_error_stack_overflow:
		what = "it is nested too deeply";
		break;
	case json_error_numeric_overflow:
		what = "a number is too large";
		break;
	default:
		break;
	}
	return request_fail(request, RPC_PARSE, "not valid JSON at byte %d: %s",
		error->position < 0 ? 0 : error->position, what);
}

static bool id_is_valid(const json_t *id)
{
	return json_is_integer(id) || (json_is_string(id) && json_string_length(id) <= ID_MAX);
}

// Checks what every request has in common. NULL with the error set.
static const struct method *check_envelope(struct request *request, json_t *root, json_t **id)
{
	static const char *const members[] = {"jsonrpc", "id", "method", "params", NULL};
	if (!json_is_object(root)) {
		request_fail(request, RPC_INVALID_REQUEST,
			"a request is an object; batches of requests are not taken");
		return NULL;
	}
	json_t *given_id = json_object_get(root, "id");
	if (id_is_valid(given_id))
		*id = given_id;
	const char *version = json_string_value(json_object_get(root, "jsonrpc"));
	const char *name = json_string_value(json_object_get(root, "method"));
	json_t *params = json_object_get(root, "params");
	struct scope scope = {request, root, ""};
	if (*id == NULL)
		request_fail(request, RPC_INVALID_REQUEST,
			"a request needs an id, an integer or a string of at most %d bytes",
			ID_MAX);
	else if (version == NULL || strcmp(version, "2.0") != 0)
		request_fail(request, RPC_INVALID_REQUEST, "jsonrpc has to be \"2.0\"");
	else if (name == NULL)
		request_fail(request, RPC_INVALID_REQUEST, "method has to be a string");
	else if (params != NULL && !json_is_object(params))
		request_fail(request, RPC_INVALID_REQUEST, "params has to be an object");
	else if (!scope_check_names(&scope, members))
		request->error.kind = RPC_INVALID_REQUEST;
	else {
		const struct method *method = find_method(name);
		request->params = params;
		if (method == NULL)
			fail_unknown_method(request, name);
		return method;
	}
	return NULL;
}

static json_t *carry_out(struct request *request, const struct method *method)
{
	json_t *none = NULL;
	if (!request->session->greeted && strcmp(method->name, "hello") != 0) {
		request_fail(request, RPC_HELLO_FIRST, "the first request has to be \"hello\"");
		return NULL;
	}
	if (request->params == NULL)
		request->params = none = json_object();
	struct scope scope = {request, request->params, ""};
	json_t *result = NULL;
	if (request->params != NULL && scope_check_names(&scope, method->parameters))
		result = method->call(request);
	json_decref(none);
	return result;
}

// Takes the reference.
static char *dump(json_t *object)
{
	char *text = json_memory_failed() ? NULL : json_dumps(object, JSON_COMPACT);
	json_decref(object);
	return text;
}

char *request_handle(
	struct control *control, struct session *session, const char *line, size_t length)
{
	struct request request = {
		.control = control, .session = session, .error = {.kind = RPC_INTERNAL}};
	snprintf(request.error.message, sizeof(request.error.message), "memory is short");
	json_error_t parse_error;
	json_t *id = NULL, *result = NULL;
	json_t *root = json_loadb(line, length, JSON_REJECT_DUPLICATES, &parse_error);
	(void)json_memory_failed(); // what an event left
	if (root == NULL) {
		fail_parse(&request, &parse_error);
	} else {
		const struct method *method = check_envelope(&request, root, &id);
		if (method != NULL)
			result = carry_out(&request, method);
	}
	json_t *reply;
	if (result == NULL) {
		reply = rpc_error_reply(id, &request.error);
	} else {
		reply = json_object();
		json_put_text(reply, "jsonrpc", "2.0");
		json_put(reply, "id", json_incref(id));
		json_put(reply, "result", result);
	}
	json_decref(root); // wiped by the allocator
	return dump(reply);
}

char *rpc_error_line(enum rpc_error_kind kind, const char *message)
{
	struct rpc_error error = {.kind = kind};
	snprintf(error.message, sizeof(error.message), "%s", message);
	return dump(rpc_error_reply(NULL, &error));
}

char *event_line(enum event_kind kind, json_t *members)
{
	json_put_text(members, "event", event_names[kind]);
	json_t *object = json_object();
	json_put_text(object, "jsonrpc", "2.0");
	json_put_text(object, "method", "event");
	json_put(object, "params", members);
	return dump(object);
}

void control_free(void *text)
{
	json_free_t release;
	json_get_alloc_funcs(NULL, &release);
	release(text);
}
