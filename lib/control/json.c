// SPDX-License-Identifier: BSD-3-Clause
// Copyright (c) 2026 the espgw authors

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "control/internal.h"

// One control thread, so one flag; request_handle reads and clears it for each request.
static bool memory_failed;

bool json_memory_failed(void)
{
	bool failed = memory_failed;
	memory_failed = false;
	return failed;
}

void json_put(json_t *object, const char *name, json_t *value)
{
	if (json_object_set_new(object, name, value) != 0)
		memory_failed = true;
}

void json_append(json_t *array, json_t *value)
{
	if (json_array_append_new(array, value) != 0)
		memory_failed = true;
}

// JSON integers are signed 64-bit in jansson; no counter gets near their end.
json_t *json_number(uint64_t value)
{
	return json_integer(value > INT64_MAX ? INT64_MAX : (json_int_t)value);
}

void json_put_number(json_t *object, const char *name, uint64_t value)
{
	json_put(object, name, json_number(value));
}

void json_put_text(json_t *object, const char *name, const char *value)
{
	json_put(object, name, json_string(value));
}

void json_put_spi(json_t *object, const char *name, uint32_t spi)
{
	char text[16];
	snprintf(text, sizeof(text), "0x%08" PRIx32, spi);
	json_put_text(object, name, text);
}

void json_put_address(json_t *object, const char *name, const struct packet_address *address)
{
	char text[PACKET_ADDRESS_TEXT];
	json_put_text(object, name, packet_address_format(address, text));
}

void json_put_prefix(json_t *object, const char *name, const struct packet_prefix *prefix)
{
	char text[PACKET_PREFIX_TEXT];
	json_put_text(object, name, packet_prefix_format(prefix, text));
}

bool request_fail(struct request *request, enum rpc_error_kind kind, const char *format, ...)
{
	va_list arguments;
	va_start(arguments, format);
	request->error.kind = kind;
	vsnprintf(request->error.message, sizeof(request->error.message), format, arguments);
	va_end(arguments);
	return false;
}

bool request_fail_parameter(
	struct request *request, const char *path, const char *name, const char *format, ...)
{
	struct rpc_error *error = &request->error;
	error->kind = RPC_BAD_PARAMETER;
	snprintf(error->parameter, sizeof(error->parameter), "%s%s", path, name);
	int used = snprintf(error->message, sizeof(error->message), "%s: ", error->parameter);
	va_list arguments;
	va_start(arguments, format);
	vsnprintf(error->message + used, sizeof(error->message) - (size_t)used, format, arguments);
	va_end(arguments);
	return false;
}

static const struct {
	int code;
	const char *name;
} errors[] = {
#define X(NAME, code, name) {code, name},
	RPC_ERRORS(X)
#undef X
};

json_t *rpc_error_reply(json_t *id, const struct rpc_error *error)
{
	json_t *data = json_object();
	json_put_text(data, "name", errors[error->kind].name);
	if (error->parameter[0] != 0)
		json_put_text(data, "parameter", error->parameter);
	if (error->kind == RPC_PROTOCOL) {
		json_t *supported = json_array();
		json_append(supported, json_integer(CONTROL_PROTOCOL));
		json_put(data, "supported", supported);
	}
	json_t *object = json_object();
	json_put(object, "code", json_integer(errors[error->kind].code));
	json_put_text(object, "message", error->message);
	json_put(object, "data", data);
	json_t *reply = json_object();
	json_put_text(reply, "jsonrpc", "2.0");
	json_put(reply, "id", id == NULL ? json_null() : json_incref(id));
	json_put(reply, "error", object);
	return reply;
}

bool page_limit(struct request *request, uint64_t *limit)
{
	struct scope scope = {request, request->params, ""};
	*limit = CONTROL_PAGE_MAX;
	return scope_number(&scope, "limit", OPTIONAL, 1, CONTROL_PAGE_MAX, limit);
}
