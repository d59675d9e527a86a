// SPDX-License-Identifier: BSD-3-Clause
// Copyright (c) 2026 the espgw authors

// Requests about SAs. They are written as text straight into a buffer that is wiped, because a
// JSON library would leave copies of the keys behind.

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "client_private.h"

static void add_raw(struct espgw_text *text, const char *raw)
{
	espgw_text_add(text, raw, strlen(raw));
}

// The members below begin with a comma: `direction` comes first in every request.
static void add_name(struct espgw_text *text, enum espgw_direction direction, uint32_t spi)
{
	espgw_text_add_format(text, "{\"direction\":\"%s\",\"spi\":\"0x%08" PRIx32 "\"",
		direction == ESPGW_IN ? "in" : "out", spi);
}

static void add_string_member(struct espgw_text *text, const char *key, const char *value)
{
	if (value == NULL)
		return;
	espgw_text_add_format(text, ",\"%s\":", key);
	espgw_text_add_string(text, value);
}

static void add_udp_member(struct espgw_text *text, uint16_t source_port, uint16_t destination_port)
{
	if (source_port == 0 && destination_port == 0)
		add_raw(text, ",\"udp_encapsulation\":null");
	else
		espgw_text_add_format(text,
			",\"udp_encapsulation\":{\"source_port\":%u,\"destination_port\":%u}",
			source_port, destination_port);
}

static void add_limit(struct espgw_text *text, const char **comma, const char *key, uint64_t limit)
{
	if (limit == 0 || limit > INT64_MAX)
		return;
	espgw_text_add_format(text, "%s\"%s\":%" PRIu64, *comma, key, limit);
	*comma = ",";
}

static void add_lifetime(struct espgw_text *text, const struct espgw_lifetime *lifetime)
{
	const char *comma = "";
	add_raw(text, "{");
	add_limit(text, &comma, "seconds", lifetime->seconds);
	add_limit(text, &comma, "bytes", lifetime->bytes);
	add_limit(text, &comma, "packets", lifetime->packets);
	add_raw(text, "}");
}

static void add_ports(struct espgw_text *text, const char *name, const struct espgw_ports *ports)
{
	if (ports->last != 0)
		espgw_text_add_format(text, ",\"%s\":{\"first\":%u,\"last\":%u}", name,
			ports->first, ports->last);
}

static void add_selectors(struct espgw_text *text, const struct espgw_sa *sa)
{
	add_raw(text, ",\"selectors\":[");
	for (size_t i = 0; i < sa->selector_count; i++) {
		add_raw(text, i == 0 ? "{\"local\":" : ",{\"local\":");
		espgw_text_add_string(text, sa->selectors[i].local);
		add_raw(text, ",\"remote\":");
		espgw_text_add_string(text, sa->selectors[i].remote);
		if (sa->selectors[i].protocol != 0)
			espgw_text_add_format(text, ",\"protocol\":%u", sa->selectors[i].protocol);
		add_ports(text, "local_ports", &sa->selectors[i].local_ports);
		add_ports(text, "remote_ports", &sa->selectors[i].remote_ports);
		add_raw(text, "}");
	}
	add_raw(text, "]");
}

static void add_sa(struct espgw_text *text, const struct espgw_sa *sa)
{
	add_name(text, sa->direction, sa->spi);
	add_string_member(text, "tunnel", sa->tunnel);
	add_string_member(text, "source", sa->source);
	add_string_member(text, "destination", sa->destination);
	add_raw(text, ",\"key\":");
	espgw_text_add_hex(text, sa->key, sizeof(sa->key));
	add_raw(text, ",\"salt\":");
	espgw_text_add_hex(text, sa->salt, sizeof(sa->salt));
	espgw_text_add_format(text, ",\"esn\":%s", sa->esn ? "true" : "false");
	if (sa->replay_window != ESPGW_REPLAY_WINDOW_OF_TUNNEL)
		espgw_text_add_format(text, ",\"replay_window\":%" PRId32,
			sa->replay_window == ESPGW_REPLAY_WINDOW_OFF ? 0 : sa->replay_window);
	add_udp_member(text, sa->udp_source_port, sa->udp_destination_port);
	add_raw(text, ",\"lifetime\":{\"soft\":");
	add_lifetime(text, &sa->soft);
	add_raw(text, ",\"hard\":");
	add_lifetime(text, &sa->hard);
	add_raw(text, "}");
	add_selectors(text, sa);
	add_raw(text, "}");
}

enum espgw_status espgw_client_sa_add(struct espgw_client *client, const struct espgw_sa *sa,
	uint64_t *id, bool *already, struct espgw_error *error)
{
	if (sa->tunnel == NULL)
		return espgw_fail(error, ESPGW_ARGUMENT, "tunnel", "an SA needs a tunnel");
	struct espgw_text request = {0};
	espgw_request_begin(client, &request, "sa.add");
	add_sa(&request, sa);
	add_raw(&request, "}\n");
	json_t *result;
	enum espgw_status status = espgw_client_exchange(client, &request, &result, error);
	if (status != ESPGW_OK)
		return status;
	if (id != NULL)
		*id = (uint64_t)json_integer_value(json_object_get(result, "id"));
	if (already != NULL)
		*already = json_is_true(json_object_get(result, "already"));
	json_decref(result);
	return ESPGW_OK;
}

void espgw_client_sa_wipe(struct espgw_sa *sa)
{
	explicit_bzero(sa->key, sizeof(sa->key));
	explicit_bzero(sa->salt, sizeof(sa->salt));
}

// ---- SPIs ----

static bool parse_spi(const json_t *value, uint32_t *spi)
{
	const char *text = json_string_value(value);
	if (text == NULL || strncmp(text, "0x", 2) != 0)
		return false;
	char *end;
	unsigned long number = strtoul(text + 2, &end, 16);
	if (*end != '\0' || end == text + 2 || number > UINT32_MAX)
		return false;
	*spi = (uint32_t)number;
	return true;
}

enum espgw_status espgw_client_spi_reserve(struct espgw_client *client, const char *tunnel,
	uint32_t *spis, size_t count, struct espgw_error *error)
{
	struct espgw_text request = {0};
	espgw_request_begin(client, &request, "spi.reserve");
	espgw_text_add_format(&request, "{\"count\":%zu", count);
	add_string_member(&request, "tunnel", tunnel);
	add_raw(&request, "}}\n");
	json_t *result;
	enum espgw_status status = espgw_client_exchange(client, &request, &result, error);
	if (status != ESPGW_OK)
		return status;
	const json_t *reserved = json_object_get(result, "spis");
	bool good = json_array_size(reserved) == count;
	for (size_t i = 0; good && i < count; i++)
		good = parse_spi(json_array_get(reserved, i), &spis[i]);
	json_decref(result);
	if (!good)
		return espgw_fail(error, ESPGW_PROTOCOL, NULL,
			"the gateway's answer to spi.reserve does not hold %zu SPIs", count);
	return ESPGW_OK;
}

enum espgw_status espgw_client_spi_release(
	struct espgw_client *client, uint32_t spi, struct espgw_error *error)
{
	struct espgw_text request = {0};
	espgw_request_begin(client, &request, "spi.release");
	espgw_text_add_format(&request, "{\"spi\":\"0x%08" PRIx32 "\"}}\n", spi);
	return espgw_client_exchange(client, &request, NULL, error);
}

// ---- SAs that exist ----

static void begin_named(struct espgw_client *client, struct espgw_text *request, const char *method,
	const struct espgw_sa_name *name)
{
	espgw_request_begin(client, request, method);
	add_name(request, name->direction, name->spi);
	add_string_member(request, "destination", name->destination);
}

enum espgw_status espgw_client_sa_delete(
	struct espgw_client *client, const struct espgw_sa_name *name, struct espgw_error *error)
{
	struct espgw_text request = {0};
	begin_named(client, &request, "sa.delete", name);
	add_raw(&request, "}}\n");
	return espgw_client_exchange(client, &request, NULL, error);
}

enum espgw_status espgw_client_sa_update(struct espgw_client *client,
	const struct espgw_sa_name *name, const struct espgw_sa_change *change,
	struct espgw_error *error)
{
	struct espgw_text request = {0};
	begin_named(client, &request, "sa.update", name);
	add_string_member(&request, "source", change->source);
	add_string_member(&request, "new_destination", change->destination);
	if (change->set_udp)
		add_udp_member(&request, change->udp_source_port, change->udp_destination_port);
	add_raw(&request, "}}\n");
	return espgw_client_exchange(client, &request, NULL, error);
}

enum espgw_status espgw_client_sa_query(struct espgw_client *client,
	const struct espgw_sa_name *name, struct espgw_sa_use *use, struct espgw_error *error)
{
	*use = (struct espgw_sa_use){0};
	struct espgw_text request = {0};
	begin_named(client, &request, "sa.show", name);
	add_raw(&request, "}}\n");
	json_t *result;
	enum espgw_status status = espgw_client_exchange(client, &request, &result, error);
	if (status != ESPGW_OK)
		return status;
	const json_t *sa = json_object_get(result, "sa");
	const json_t *idle = json_object_get(sa, "idle_seconds");
	if (!json_is_object(sa))
		status = espgw_fail(error, ESPGW_PROTOCOL, NULL,
			"the gateway's answer to sa.show does not hold an SA");
	use->bytes = (uint64_t)json_integer_value(json_object_get(sa, "bytes"));
	use->packets = (uint64_t)json_integer_value(json_object_get(sa, "packets"));
	use->used = json_is_integer(idle);
	use->idle_seconds = (uint64_t)json_integer_value(idle);
	json_decref(result);
	return status;
}
