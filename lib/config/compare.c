// SPDX-License-Identifier: BSD-3-Clause
// Copyright (c) 2026 the espgw authors

// The difference of two configurations. The tables of the specification tell which settings there
// are, and what a change of each needs.

#include <errno.h>
#include <stdlib.h>

#include "config/settings.h"

struct comparison {
	struct config_diff *diff;
	unsigned int room;
	bool failed;
};

// ---- changes ----

static struct config_change *change_add(struct comparison *comparison, enum config_part part,
	enum config_change_kind kind, unsigned int before, unsigned int after)
{
	struct config_diff *diff = comparison->diff;
	if (diff->count == comparison->room) {
		unsigned int room = comparison->room != 0 ? 2 * comparison->room : 16;
		void *grown = reallocarray(diff->changes, room, sizeof(diff->changes[0]));
		if (grown == NULL) {
			comparison->failed = true;
			return NULL;
		}
		diff->changes = grown;
		comparison->room = room;
	}
	diff->changes[diff->count] = (struct config_change){part, kind, before, after, 0, NULL};
	diff->counts[part][kind]++;
	return &diff->changes[diff->count++];
}

// One change of the diff that is being made of a group's settings.
struct settings_difference {
	unsigned int count;
	struct config_setting_change *settings;
	bool failed;
};

static void difference_add(struct settings_difference *difference, const char *group,
	const struct setting *setting, const char *before, const char *after)
{
	void *grown = reallocarray(
		difference->settings, difference->count + 1, sizeof(difference->settings[0]));
	if (grown == NULL) {
		difference->failed = true;
		return;
	}
	difference->settings = grown;
	struct config_setting_change *change = &difference->settings[difference->count++];
	*change = (struct config_setting_change){
		group, setting->name, setting->effect, strdup(before), strdup(after)};
	difference->failed |= change->before == NULL || change->after == NULL;
}

static void settings_compare(struct settings_difference *difference,
	const struct setting_group *group, const char *name, const void *before, const void *after)
{
	char old_text[SETTING_VALUE_TEXT], new_text[SETTING_VALUE_TEXT];
	for (unsigned int i = 0; i < group->count; i++) {
		const struct setting *setting = &group->settings[i];
		const char *x = (const char *)before + setting->offset;
		const char *y = (const char *)after + setting->offset;
		if (setting->type == SETTING_GROUP)
			settings_compare(difference, setting->group, setting->name, x, y);
		if (setting->type >= SETTING_GROUP || memcmp(x, y, setting->size) == 0)
			continue;
		settings_format(setting, before, old_text);
		settings_format(setting, after, new_text);
		if (strcmp(old_text, new_text) != 0) // else what stands after a text's end differs
			difference_add(difference, name, setting, old_text, new_text);
	}
}

static const struct setting *row_of(const struct setting_group *group, const char *name)
{
	unsigned int i = 0;
	while (strcmp(group->settings[i].name, name) != 0)
		i++;
	return &group->settings[i];
}

// Takes over what was found of a part that both configurations have.
static void change_of_settings(struct comparison *comparison, enum config_part part,
	unsigned int before, unsigned int after, struct settings_difference *difference)
{
	struct config_change *change = NULL;
	comparison->failed |= difference->failed;
	if (difference->count != 0)
		change = change_add(comparison, part, CONFIG_CHANGED, before, after);
	if (change != NULL) {
		change->setting_count = difference->count;
		change->settings = difference->settings;
		return;
	}
	for (unsigned int i = 0; i < difference->count; i++) {
		free(difference->settings[i].before);
		free(difference->settings[i].after);
	}
	free(difference->settings);
}

// ---- gateway, workers, ports ----

static void cores_write(const struct config *config, FILE *stream)
{
	for (unsigned int i = 0; i < config->worker_count; i++)
		fprintf(stream, "%s%u", i == 0 ? "" : ", ", config->workers[i].core);
}

static void queues_write(const struct config *config, FILE *stream)
{
	for (unsigned int w = 0; w < config->worker_count; w++) {
		fprintf(stream, "%s[", w == 0 ? "" : ", ");
		for (unsigned int p = 0; p < config->port_count; p++)
			for (unsigned int q = 0; q < 64; q++)
				if (config->workers[w].queues[p] >> q & 1)
					fprintf(stream, " %s:%u", config->ports[p].name, q);
		fputs(" ]", stream);
	}
}

static void addresses_write(const struct config_port *port, FILE *stream)
{
	for (unsigned int i = 0; i < port->address_count; i++) {
		struct packet_prefix address = {
			port->addresses[i].address, port->addresses[i].length};
		char text[PACKET_PREFIX_TEXT];
		fprintf(stream, "%s%s", i == 0 ? "" : ", ", packet_prefix_format(&address, text));
	}
}

// A setting that is a list: compared as text.
#define LIST_COMPARE(difference, group, name, write, before, after)                  \
	do {                                                                         \
		char *texts[2] = {NULL, NULL};                                       \
		size_t sizes[2];                                                     \
		for (int which = 0; which < 2; which++) {                            \
			FILE *stream = open_memstream(&texts[which], &sizes[which]); \
			if (stream == NULL)                                          \
				break;                                               \
			write(which == 0 ? (before) : (after), stream);              \
			fclose(stream);                                              \
		}                                                                    \
		list_compare(difference, row_of(group, name), texts);                \
	} while (0)

static void list_compare(
	struct settings_difference *difference, const struct setting *setting, char *texts[2])
{
	if (texts[0] == NULL || texts[1] == NULL)
		difference->failed = true;
	else if (strcmp(texts[0], texts[1]) != 0)
		difference_add(difference, "", setting, texts[0], texts[1]);
	free(texts[0]);
	free(texts[1]);
}

static void workers_compare(struct comparison *comparison)
{
	const struct config *before = comparison->diff->before, *after = comparison->diff->after;
	struct settings_difference difference = {0};
	LIST_COMPARE(&difference, &settings_workers, "cores", cores_write, before, after);
	if (before->port_count == after->port_count)
		LIST_COMPARE(&difference, &settings_workers, "queues", queues_write, before, after);
	settings_compare(&difference, &settings_workers, "", before, after);
	change_of_settings(comparison, CONFIG_PART_WORKERS, 0, 0, &difference);
}

static const struct config_port *port_at(
	const struct config *config, unsigned int index, const char *name)
{
	// Placed: the same name is at the same index, or the ports differ anyway.
	if (index < config->port_count && strcmp(config->ports[index].name, name) == 0)
		return &config->ports[index];
	return NULL;
}

static void ports_compare(struct comparison *comparison)
{
	const struct config *before = comparison->diff->before, *after = comparison->diff->after;
	for (unsigned int i = 0; i < before->port_count; i++) {
		const struct config_port *old = &before->ports[i];
		const struct config_port *new = port_at(after, i, old->name);
		struct settings_difference difference = {0};
		if (new == NULL) {
			change_add(comparison, CONFIG_PART_PORT, CONFIG_REMOVED, i, 0);
			continue;
		}
		settings_compare(&difference, &settings_ports, "", old, new);
		LIST_COMPARE(&difference, &settings_ports, "addresses", addresses_write, old, new);
		change_of_settings(comparison, CONFIG_PART_PORT, i, i, &difference);
	}
	for (unsigned int i = 0; i < after->port_count; i++)
		if (port_at(before, i, after->ports[i].name) == NULL)
			change_add(comparison, CONFIG_PART_PORT, CONFIG_ADDED, 0, i);
}

// ---- tunnels ----

static bool has_tunnel(const struct config *config, unsigned int index)
{
	return index < config->tunnel_count && config_is_tunnel(&config->tunnels[index]);
}

static void tunnels_compare(struct comparison *comparison)
{
	const struct config *before = comparison->diff->before, *after = comparison->diff->after;
	for (unsigned int i = 0; i < RTE_MAX(before->tunnel_count, after->tunnel_count); i++) {
		bool had = has_tunnel(before, i), has = has_tunnel(after, i);
		struct settings_difference difference = {0};
		if (had && !has)
			change_add(comparison, CONFIG_PART_TUNNEL, CONFIG_REMOVED, i, i);
		if (has && !had)
			change_add(comparison, CONFIG_PART_TUNNEL, CONFIG_ADDED, i, i);
		if (!had || !has)
			continue;
		settings_compare(&difference, &settings_tunnels, "", &before->tunnels[i],
			&after->tunnels[i]);
		change_of_settings(comparison, CONFIG_PART_TUNNEL, i, i, &difference);
	}
}

// ---- routes and neighbours: lists without names ----

typedef int (*element_order)(const void *a, const void *b);

static int neighbour_order(const void *a, const void *b)
{
	const struct config_neighbour *x = *(const struct config_neighbour *const *)a;
	const struct config_neighbour *y = *(const struct config_neighbour *const *)b;
	int order = (x->port > y->port) - (x->port < y->port);
	return order != 0 ? order : memcmp(&x->address, &y->address, sizeof(x->address));
}

struct elements {
	const char *first;
	unsigned int count;
	const char **sorted;
};

static struct elements elements_sort(
	const void *first, unsigned int count, size_t size, element_order order)
{
	struct elements elements = {
		first, count, calloc((size_t)count + 1, sizeof(elements.sorted[0]))};
	for (unsigned int i = 0; elements.sorted != NULL && i < count; i++)
		elements.sorted[i] = elements.first + i * size;
	if (elements.sorted != NULL)
		qsort(elements.sorted, count, sizeof(elements.sorted[0]), order);
	return elements;
}

static void elements_compare(struct comparison *comparison, enum config_part part,
	const struct setting_group *group, struct elements *old, struct elements *new,
	element_order order)
{
	unsigned int i = 0, j = 0;
	comparison->failed |= old->sorted == NULL || new->sorted == NULL;
	while (!comparison->failed && (i < old->count || j < new->count)) {
		int which = i == old->count   ? 1
			    : j == new->count ? -1
					      : order(&old->sorted[i], &new->sorted[j]);
		unsigned int before = 0, after = 0;
		if (which <= 0)
			before = (unsigned int)((size_t)(old->sorted[i] - old->first) /
						group->object_size);
		if (which >= 0)
			after = (unsigned int)((size_t)(new->sorted[j] - new->first) /
					       group->object_size);
		if (which < 0) {
			change_add(comparison, part, CONFIG_REMOVED, before, 0);
		} else if (which > 0) {
			change_add(comparison, part, CONFIG_ADDED, 0, after);
		} else {
			struct settings_difference difference = {0};
			settings_compare(&difference, group, "", old->sorted[i], new->sorted[j]);
			change_of_settings(comparison, part, before, after, &difference);
		}
		i += which <= 0;
		j += which >= 0;
	}
	free(old->sorted);
	free(new->sorted);
}

static void lists_compare(struct comparison *comparison)
{
	const struct config *before = comparison->diff->before, *after = comparison->diff->after;
	struct elements old = elements_sort(
		before->routes, before->route_count, sizeof(before->routes[0]), routes_compare);
	struct elements new = elements_sort(
		after->routes, after->route_count, sizeof(after->routes[0]), routes_compare);
	elements_compare(
		comparison, CONFIG_PART_ROUTE, &settings_routes, &old, &new, routes_compare);
	old = elements_sort(before->neighbours, before->neighbour_count,
		sizeof(before->neighbours[0]), neighbour_order);
	new = elements_sort(after->neighbours, after->neighbour_count, sizeof(after->neighbours[0]),
		neighbour_order);
	elements_compare(comparison, CONFIG_PART_NEIGHBOUR, &settings_neighbours, &old, &new,
		neighbour_order);
}

// ---- all together ----

struct config_diff *config_compare(const struct config *before, const struct config *after)
{
	struct comparison comparison = {.diff = calloc(1, sizeof(struct config_diff))};
	struct settings_difference difference = {0};
	if (comparison.diff == NULL)
		return NULL;
	comparison.diff->before = before;
	comparison.diff->after = after;
	settings_compare(&difference, &settings_gateway, "", &before->gateway, &after->gateway);
	change_of_settings(&comparison, CONFIG_PART_GATEWAY, 0, 0, &difference);
	workers_compare(&comparison);
	ports_compare(&comparison);
	tunnels_compare(&comparison);
	lists_compare(&comparison);
	if (!comparison.failed)
		return comparison.diff;
	config_diff_free(comparison.diff);
	return NULL;
}

void config_diff_free(struct config_diff *diff)
{
	if (diff == NULL)
		return;
	for (unsigned int i = 0; i < diff->count; i++) {
		struct config_change *change = &diff->changes[i];
		for (unsigned int j = 0; j < change->setting_count; j++) {
			free(change->settings[j].before);
			free(change->settings[j].after);
		}
		free(change->settings);
	}
	free(diff->changes);
	free(diff);
}

const char *config_part_name(enum config_part part)
{
	static const char *const names[] = {
		[CONFIG_PART_GATEWAY] = "gateway",
		[CONFIG_PART_WORKERS] = "workers",
		[CONFIG_PART_PORT] = "port",
		[CONFIG_PART_TUNNEL] = "tunnel",
		[CONFIG_PART_ROUTE] = "route",
		[CONFIG_PART_NEIGHBOUR] = "neighbour",
	};
	return names[part];
}

static void route_name(const struct config *config, const struct config_route *route,
	char text[CONFIG_CHANGE_TEXT])
{
	char prefix[PACKET_PREFIX_TEXT], next_hop[PACKET_ADDRESS_TEXT];
	packet_prefix_format(&route->prefix, prefix);
	if (route->tunnel >= 0)
		snprintf(text, CONFIG_CHANGE_TEXT, "%s by %s", prefix,
			config->tunnels[route->tunnel].name);
	else if (route->next_hop.family == 0)
		snprintf(text, CONFIG_CHANGE_TEXT, "%s on %s", prefix,
			config->ports[route->port].name);
	else
		snprintf(text, CONFIG_CHANGE_TEXT, "%s by %s, %s", prefix,
			config->ports[route->port].name,
			packet_address_format(&route->next_hop, next_hop));
}

char *config_change_name(const struct config_diff *diff, const struct config_change *change,
	char text[CONFIG_CHANGE_TEXT])
{
	bool removed = change->kind == CONFIG_REMOVED;
	const struct config *config = removed ? diff->before : diff->after;
	unsigned int index = removed ? change->before : change->after;
	char address[PACKET_ADDRESS_TEXT];
	text[0] = '\0';
	switch (change->part) {
	case CONFIG_PART_PORT:
		snprintf(text, CONFIG_CHANGE_TEXT, "%s", config->ports[index].name);
		break;
	case CONFIG_PART_TUNNEL:
		snprintf(text, CONFIG_CHANGE_TEXT, "%s", config->tunnels[index].name);
		break;
	case CONFIG_PART_ROUTE:
		route_name(config, &config->routes[index], text);
		break;
	case CONFIG_PART_NEIGHBOUR:
		snprintf(text, CONFIG_CHANGE_TEXT, "%s on %s",
			packet_address_format(&config->neighbours[index].address, address),
			config->ports[config->neighbours[index].port].name);
		break;
	default: // there is one
		break;
	}
	return text;
}

static unsigned int settings_refuse(
	const struct config_change *change, const char *what, FILE *stream)
{
	unsigned int refused = 0;
	for (unsigned int i = 0; i < change->setting_count; i++) {
		const struct config_setting_change *setting = &change->settings[i];
		if (setting->effect != CONFIG_RESTART)
			continue;
		fprintf(stream, "%s: %s%s%s from %s to %s needs a restart\n", what, setting->group,
			setting->group[0] == '\0' ? "" : ".", setting->name, setting->before,
			setting->after);
		refused++;
	}
	return refused;
}

unsigned int config_diff_refusals(const struct config_diff *diff, FILE *stream)
{
	unsigned int refused = 0;
	for (unsigned int i = 0; i < diff->count; i++) {
		const struct config_change *change = &diff->changes[i];
		char name[CONFIG_CHANGE_TEXT], what[CONFIG_CHANGE_TEXT + 16];
		config_change_name(diff, change, name);
		snprintf(what, sizeof(what), "%s%s%s", config_part_name(change->part),
			name[0] == '\0' ? "" : " ", name);
		if (change->kind == CONFIG_CHANGED) {
			refused += settings_refuse(change, what, stream);
		} else if (change->part == CONFIG_PART_PORT) {
			fprintf(stream, "%s: to %s a port needs a restart\n", what,
				change->kind == CONFIG_ADDED ? "add" : "remove");
			refused++;
		}
	}
	return refused;
}
