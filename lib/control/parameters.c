// SPDX-License-Identifier: BSD-3-Clause
// Copyright (c) 2026 the espgw authors

// Reading of parameters. Messages say what was wrong and what is right; they repeat short values,
// but no text that is long enough to be a key, whatever parameter it was put into.

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "control/internal.h"

#define SHOWN_MAX 52 // bytes of a value that a message repeats: a prefix, not a key's 64 digits

// ---- names ----

// Edits that make `a` of `b` (Levenshtein), for names of at most 31 bytes.
static unsigned int edit_distance(const char *a, const char *b)
{
	unsigned int row[32];
	size_t width = strlen(b);
	if (width >= 32 || strlen(a) >= 32)
		return 32;
	for (unsigned int j = 0; j <= width; j++)
		row[j] = j;
	for (unsigned int i = 0; a[i] != 0; i++) {
		unsigned int diagonal = row[0];
		row[0] = i + 1;
		for (unsigned int j = 0; j < width; j++) {
			unsigned int replaced = diagonal + (a[i] != b[j]);
			unsigned int shorter = row[j] < row[j + 1] ? row[j] : row[j + 1];
			diagonal = row[j + 1];
			row[j + 1] = replaced < shorter + 1 ? replaced : shorter + 1;
		}
	}
	return row[width];
}

const char *nearest_name(const char *name, const char *const *names)
{
	const char *nearest = NULL;
	unsigned int least = 4; // farther off, it is another word
	for (; *names != NULL; names++) {
		unsigned int distance = edit_distance(name, *names);
		if (distance < least && distance < strlen(*names)) {
			least = distance;
			nearest = *names;
		}
	}
	return nearest;
}

static bool fail_unknown(const struct scope *scope, const char *name, const char *const *names)
{
	const char *nearest = nearest_name(name, names);
	if (strlen(name) >= 32)
		return request_fail_parameter(
			scope->request, scope->path, "", "a parameter of an unknown, long name");
	if (nearest != NULL)
		return request_fail_parameter(scope->request, scope->path, name,
			"unknown parameter; did you mean \"%s\"?", nearest);
	char known[256] = "";
	for (size_t used = 0; *names != NULL && used < sizeof(known); names++)
		used += (size_t)snprintf(
			known + used, sizeof(known) - used, "%s%s", used == 0 ? "" : ", ", *names);
	return request_fail_parameter(scope->request, scope->path, name,
		"unknown parameter; known are: %s", known[0] == 0 ? "none" : known);
}

bool scope_check_names(const struct scope *scope, const char *const *names)
{
	for (void *i = json_object_iter(scope->object); i != NULL;
		i = json_object_iter_next(scope->object, i)) {
		const char *const *known = names;
		while (*known != NULL && strcmp(*known, json_object_iter_key(i)) != 0)
			known++;
		if (*known == NULL)
			return fail_unknown(scope, json_object_iter_key(i), names);
	}
	return true;
}

// ---- values ----

// The value as a message shows it.
static const char *shown(const json_t *value, char text[SHOWN_MAX + 16])
{
	static const char *const types[] = {
		[JSON_OBJECT] = "an object",
		[JSON_ARRAY] = "an array",
		[JSON_REAL] = "a fraction",
		[JSON_TRUE] = "true",
		[JSON_FALSE] = "false",
		[JSON_NULL] = "null",
	};
	if (json_is_string(value) && json_string_length(value) > SHOWN_MAX)
		snprintf(text, SHOWN_MAX + 16, "a string of %zu bytes", json_string_length(value));
	else if (json_is_string(value))
		snprintf(text, SHOWN_MAX + 16, "\"%s\"", json_string_value(value));
	else if (json_is_integer(value))
		snprintf(text, SHOWN_MAX + 16, "%" JSON_INTEGER_FORMAT, json_integer_value(value));
	else
		return types[json_typeof(value)];
	return text;
}

static bool fail_value(
	const struct scope *scope, const char *name, const json_t *value, const char *right)
{
	char text[SHOWN_MAX + 16];
	return request_fail_parameter(scope->request, scope->path, name, "%s is not right; %s",
		shown(value, text), right);
}

json_t *scope_get(const struct scope *scope, const char *name, enum need need, bool *ok)
{
	json_t *value = json_object_get(scope->object, name);
	*ok = true;
	if (value != NULL && !json_is_null(value))
		return value;
	if (need == REQUIRED)
		*ok = request_fail_parameter(scope->request, scope->path, name, "is missing");
	return NULL;
}

bool scope_object(const struct scope *scope, const char *name, const char *const *names,
	char path[64], struct scope *found)
{
	bool ok;
	snprintf(path, 64, "%s%s.", scope->path, name);
	*found = (struct scope){scope->request, scope_get(scope, name, OPTIONAL, &ok), path};
	if (found->object == NULL)
		return true;
	if (!json_is_object(found->object))
		return fail_value(scope, name, found->object, "give an object");
	return scope_check_names(found, names);
}

bool scope_text(const struct scope *scope, const char *name, enum need need, const char **value)
{
	bool ok;
	json_t *found = scope_get(scope, name, need, &ok);
	if (found == NULL)
		return ok;
	if (!json_is_string(found))
		return fail_value(scope, name, found, "give a string");
	*value = json_string_value(found);
	return true;
}

bool scope_number(const struct scope *scope, const char *name, enum need need, uint64_t least,
	uint64_t most, uint64_t *value)
{
	bool ok;
	json_t *found = scope_get(scope, name, need, &ok);
	if (found == NULL)
		return ok;
	json_int_t number = json_integer_value(found);
	if (!json_is_integer(found) || number < 0 || (uint64_t)number < least ||
		(uint64_t)number > most) {
		char right[80];
		snprintf(right, sizeof(right), "give an integer from %" PRIu64 " to %" PRIu64,
			least, most);
		return fail_value(scope, name, found, right);
	}
	*value = (uint64_t)number;
	return true;
}

bool scope_boolean(const struct scope *scope, const char *name, bool *value)
{
	bool ok;
	json_t *found = scope_get(scope, name, OPTIONAL, &ok);
	if (found == NULL)
		return ok;
	if (!json_is_boolean(found))
		return fail_value(scope, name, found, "give true or false");
	*value = json_is_true(found);
	return true;
}

static bool parse_spi_text(const char *text, uint32_t *spi)
{
	if (text[0] != '0' || (text[1] != 'x' && text[1] != 'X'))
		return false;
	size_t digits = strspn(text + 2, "0123456789abcdefABCDEF");
	if (digits == 0 || digits > 8 || text[2 + digits] != 0)
		return false;
	*spi = (uint32_t)strtoul(text + 2, NULL, 16);
	return true;
}

bool scope_spi(const struct scope *scope, const char *name, uint32_t *value)
{
	bool ok;
	json_t *found = scope_get(scope, name, REQUIRED, &ok);
	if (found == NULL)
		return ok;
	bool valid = json_is_string(found) && parse_spi_text(json_string_value(found), value);
	if (json_is_integer(found) && json_integer_value(found) >= 0 &&
		json_integer_value(found) <= UINT32_MAX) {
		*value = (uint32_t)json_integer_value(found);
		valid = true;
	}
	if (!valid)
		return fail_value(
			scope, name, found, "give a number or a string such as \"0xc1234567\"");
	if (*value < ESP_SPI_MIN)
		return fail_value(scope, name, found,
			"0 to 255 are reserved (RFC 4303 section 2.1); give 256 to 4294967295");
	return true;
}

bool scope_direction(const struct scope *scope, enum sa_direction *value)
{
	bool ok;
	json_t *found = scope_get(scope, "direction", REQUIRED, &ok);
	if (found == NULL)
		return ok;
	const char *text = json_is_string(found) ? json_string_value(found) : "";
	if (strcmp(text, "in") != 0 && strcmp(text, "out") != 0)
		return fail_value(scope, "direction", found, "give \"in\" or \"out\"");
	*value = strcmp(text, "in") == 0 ? SA_INBOUND : SA_OUTBOUND;
	return true;
}

bool scope_address(const struct scope *scope, const char *name, struct packet_address *value)
{
	bool ok;
	json_t *found = scope_get(scope, name, OPTIONAL, &ok);
	if (found == NULL)
		return ok;
	struct packet_address address;
	if (!json_is_string(found) || !packet_address_parse(json_string_value(found), &address))
		return fail_value(scope, name, found, "give an IPv4 or IPv6 address");
	if (packet_address_is_multicast(&address) || packet_address_is_unspecified(&address) ||
		packet_address_is_loopback(&address))
		return fail_value(scope, name, found, "give the address of one machine");
	*value = address;
	return true;
}

bool scope_prefix(const struct scope *scope, const char *name, struct packet_prefix *value)
{
	bool ok;
	json_t *found = scope_get(scope, name, REQUIRED, &ok);
	if (found == NULL)
		return ok;
	if (!json_is_string(found) || !packet_prefix_parse(json_string_value(found), value))
		return fail_value(scope, name, found,
			"give a prefix such as \"192.168.192.0/26\", no bit set after its length");
	return true;
}

// A branch or a table per digit would tell its value to a process that shares the core's caches:
// 0..15, or 0xff for what is no digit.
static uint8_t hex_digit(uint8_t c)
{
	// Each mask is all ones when c lies in its range: neither difference borrows.
	uint32_t digit = c, lower = digit | 0x20;
	uint32_t is_digit = ~((digit - '0') | ('9' - digit)) >> 31;
	uint32_t is_letter = ~((lower - 'a') | ('f' - lower)) >> 31;
	uint32_t value = (-is_digit & (digit - '0')) | (-is_letter & (lower - 'a' + 10));
	return (uint8_t)(value | (is_digit | is_letter ? 0 : 0xff));
}

bool scope_secret(const struct scope *scope, const char *name, uint8_t *value, size_t size)
{
	bool ok;
	json_t *found = scope_get(scope, name, REQUIRED, &ok);
	if (found == NULL)
		return ok;
	size_t length = json_is_string(found) ? json_string_length(found) : 0;
	if (length != 2 * size)
		return request_fail_parameter(scope->request, scope->path, name,
			"has %zu hex digits; give exactly %zu%s", length, 2 * size,
			size == ESP_KEY_SIZE ? ": the key alone, without the salt" : "");
	const uint8_t *text = (const uint8_t *)json_string_value(found);
	uint8_t wrong = 0;
	for (size_t i = 0; i < size; i++) {
		uint8_t high = hex_digit(text[2 * i]), low = hex_digit(text[2 * i + 1]);
		wrong |= (high | low) & 0xf0;
		value[i] = (uint8_t)(high << 4 | (low & 0x0f));
	}
	if (wrong != 0)
		return request_fail_parameter(
			scope->request, scope->path, name, "has a character that is no hex digit");
	return true;
}

bool scope_tunnel(
	const struct scope *scope, const char *name, enum need need, struct tunnel **value)
{
	const char *text = NULL;
	if (!scope_text(scope, name, need, &text))
		return false;
	if (text == NULL)
		return true;
	*value = tunnel_find(scope->request->control->parts.tunnels, text);
	if (*value == NULL)
		return request_fail(scope->request, RPC_NO_SUCH_TUNNEL, "there is no tunnel \"%s\"",
			strlen(text) <= SHOWN_MAX ? text : "(a long name)");
	return true;
}
