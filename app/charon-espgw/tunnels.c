// SPDX-License-Identifier: GPL-2.0-or-later
// Copyright (c) 2026 the espgw authors

#include <stdlib.h>
#include <string.h>

#include "json.h"
#include "tunnels.h"

enum espgw_status tunnels_load(
	struct tunnels *tunnels, struct espgw_client *client, struct espgw_error *error)
{
	json_t *entries;
	enum espgw_status status =
		espgw_client_list(client, "tunnel.list", NULL, "tunnels", &entries, error);
	if (status != ESPGW_OK)
		return status;
	size_t count = json_array_size(entries);
	struct tunnel *list = calloc(count + 1, sizeof(*list));
	if (list == NULL) {
		json_decref(entries);
		*error = (struct espgw_error){.status = ESPGW_MEMORY, .message = "no memory"};
		return ESPGW_MEMORY;
	}
	for (size_t i = 0; i < count; i++) {
		const json_t *entry = json_array_get(entries, i);
		json_copy_text(list[i].name, sizeof(list[i].name), entry, "name");
		json_copy_text(list[i].gateway_endpoint, sizeof(list[i].gateway_endpoint), entry,
			"gateway_endpoint");
		json_copy_text(list[i].customer_endpoint, sizeof(list[i].customer_endpoint), entry,
			"customer_endpoint");
		list[i].if_id = (uint32_t)json_integer_value(json_object_get(entry, "if_id"));
	}
	json_decref(entries);
	tunnels_clear(tunnels);
	*tunnels = (struct tunnels){.list = list, .count = count};
	return ESPGW_OK;
}

void tunnels_clear(struct tunnels *tunnels)
{
	free(tunnels->list);
	*tunnels = (struct tunnels){0};
}

static bool tunnel_has_ends(const struct tunnel *tunnel, const char *local, const char *remote)
{
	return strcmp(tunnel->gateway_endpoint, local) == 0 &&
	       strcmp(tunnel->customer_endpoint, remote) == 0;
}

const struct tunnel *tunnels_find(
	const struct tunnels *tunnels, uint32_t if_id, const char *local, const char *remote)
{
	const struct tunnel *found = NULL;
	for (size_t i = 0; i < tunnels->count; i++) {
		const struct tunnel *tunnel = &tunnels->list[i];
		if (if_id != 0 ? tunnel->if_id != if_id : !tunnel_has_ends(tunnel, local, remote))
			continue;
		if (found != NULL)
			return NULL;
		found = tunnel;
	}
	return found;
}

bool tunnels_end_at(const struct tunnels *tunnels, const char *address)
{
	for (size_t i = 0; i < tunnels->count; i++) {
		if (strcmp(tunnels->list[i].gateway_endpoint, address) == 0)
			return true;
	}
	return false;
}

const struct tunnel *tunnels_find_name(const struct tunnels *tunnels, const char *name)
{
	for (size_t i = 0; i < tunnels->count; i++) {
		if (strcmp(tunnels->list[i].name, name) == 0)
			return &tunnels->list[i];
	}
	return NULL;
}
