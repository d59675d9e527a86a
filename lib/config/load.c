// SPDX-License-Identifier: BSD-3-Clause
// Copyright (c) 2026 the espgw authors

#include <libgen.h>
#include <stdlib.h>

#include <rte_mbuf_core.h>

#include "config/settings.h"

// Of DPDK's headroom and the frame around the IP packet (header and CRC).
#define BUFFER_OVERHEAD (RTE_PKTMBUF_HEADROOM + RTE_ETHER_HDR_LEN + RTE_ETHER_CRC_LEN)

#define VLAN_TAG_SIZE 4

static void limits_check(struct reader *reader)
{
	const struct config *config = reader->config;
	const config_setting_t *gateway = config_setting_get_member(reader->root, "gateway");
	if (gateway == NULL)
		return;
	if (config->gateway.max_tunnels != 0 && config->tunnel_count > config->gateway.max_tunnels)
		reader_member_error(reader, gateway, "max_tunnels",
			"the file alone has %u tunnels; write more, or leave it out",
			config->tunnel_count);
	if (config->route_count > config->gateway.max_routes)
		reader_member_error(reader, gateway, "max_routes",
			"the file alone has %u routes; write more", config->route_count);
	if (config->neighbour_count > config->gateway.max_neighbours)
		reader_member_error(reader, gateway, "max_neighbours",
			"the file alone has %u neighbours; write more", config->neighbour_count);
	for (unsigned int i = 0; i < config->port_count; i++) {
		const struct config_port *port = &config->ports[i];
		uint32_t tags = (port->vlan != 0) + (port->service_vlan != 0);
		uint32_t needed = port->mtu + tags * VLAN_TAG_SIZE + BUFFER_OVERHEAD;
		if (config->gateway.buffer_size == 0 || config->gateway.buffer_size >= needed)
			continue;
		reader_member_error(reader, gateway, "buffer_size",
			"does not hold a packet of port \"%s\" (MTU %u); write at least %u, or 0 "
			"to have it computed",
			port->name, port->mtu, needed);
	}
}

static void root_read(struct reader *reader)
{
	// -1 can't be written in the file: the default only.
	reader->config->control_core = -1;
	settings_read(reader, reader->root, &settings_root, reader->config);
	workers_read(reader);
	ports_read(reader);
	queues_read(reader);
	tunnels_read(reader);
	routes_read(reader);
	neighbours_read(reader);
	limits_check(reader);
}

static void parse_error_report(struct reader *reader, const config_t *parsed)
{
	static const struct {
		const char *text, *better;
	} known[] = {
		{"syntax error",
			"syntax error; look here and on the lines before for a missing quote, "
			"bracket or \"=\""},
		{"duplicate setting name",
			"a setting of this name is in this group already; keep one of them"},
		{"mismatched element type in array",
			"the elements of an array [ ... ] must be of one type; write all in quotes "
			"or none"},
	};
	const char *text = config_error_text(parsed), *file = config_error_file(parsed);
	for (unsigned int i = 0; text != NULL && i < RTE_DIM(known); i++) {
		if (strcmp(text, known[i].text) == 0)
			text = known[i].better;
	}
	reader_error_at(reader, file != NULL ? file : reader->name,
		(unsigned int)config_error_line(parsed), "%s", text != NULL ? text : "unreadable");
}

// Makes the configuration of what libconfig parsed; or writes the errors.
static struct config *finish(
	struct reader *reader, const config_t *parsed, bool is_parsed, FILE *errors)
{
	if (is_parsed) {
		reader->root = config_root_setting(parsed);
		reader->config = calloc(1, sizeof(*reader->config));
		if (reader->config == NULL)
			reader->out_of_memory = true;
		else
			root_read(reader);
	}
	reader_index_destroy(&reader->tunnel_names);
	reader_index_destroy(&reader->tunnel_if_ids);
	reader_index_destroy(&reader->tunnel_blocks);
	if (reader_errors_write(reader, errors) == 0)
		return reader->config;
	config_free(reader->config);
	return NULL;
}

struct config *config_load(const char *file, FILE *errors)
{
	struct reader reader = {.name = file};
	config_t parsed;
	bool is_parsed = false;
	config_init(&parsed);
	char *copy = strdup(file); // dirname changes it
	const char *directory = copy != NULL ? dirname(copy) : NULL;
	if (directory == NULL) {
		reader.out_of_memory = true;
	} else if (scan_file(&reader, file, directory)) {
		config_set_include_dir(&parsed, directory);
		is_parsed = config_read_file(&parsed, file) == CONFIG_TRUE;
		if (!is_parsed)
			parse_error_report(&reader, &parsed);
	}
	struct config *config = finish(&reader, &parsed, is_parsed, errors);
	config_destroy(&parsed);
	free(copy);
	return config;
}

struct config *config_parse(const char *text, const char *name, FILE *errors)
{
	struct reader reader = {.name = name};
	config_t parsed;
	bool is_parsed = false;
	config_init(&parsed);
	if (scan_text(&reader, name, text)) {
		is_parsed = config_read_string(&parsed, text) == CONFIG_TRUE;
		if (!is_parsed)
			parse_error_report(&reader, &parsed);
	}
	struct config *config = finish(&reader, &parsed, is_parsed, errors);
	config_destroy(&parsed);
	return config;
}

void config_free(struct config *config)
{
	if (config == NULL)
		return;
	free(config->ports);
	free(config->tunnels);
	free(config->routes);
	free(config->neighbours);
	free(config);
}
