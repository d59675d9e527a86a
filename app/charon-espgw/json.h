// SPDX-License-Identifier: GPL-2.0-or-later
// Copyright (c) 2026 the espgw authors

// Members of the gateway's answers and events. A missing one reads as "" or 0.

#ifndef CHARON_ESPGW_JSON_H
#define CHARON_ESPGW_JSON_H

#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <client/client.h>

#include "sa_table.h"

static inline const char *json_text(const json_t *object, const char *member)
{
	const char *text = json_string_value(json_object_get(object, member));
	return text == NULL ? "" : text;
}

static inline void json_copy_text(char *to, size_t size, const json_t *object, const char *member)
{
	const char *text = json_text(object, member);
	size_t length = strnlen(text, size - 1);
	memcpy(to, text, length);
	to[length] = '\0';
}

static inline enum espgw_direction json_direction(const json_t *object)
{
	return strcmp(json_text(object, "direction"), "in") == 0 ? ESPGW_IN : ESPGW_OUT;
}

// The protocol gives SPIs as "0x%08x".
static inline uint32_t json_spi(const json_t *object)
{
	return (uint32_t)strtoul(json_text(object, "spi"), NULL, 16);
}

static inline uint16_t json_port(const json_t *object, const char *member)
{
	return (uint16_t)json_integer_value(json_object_get(object, member));
}

// The outer header of an SA as listed.
static inline void json_outer(struct sa_outer *outer, const json_t *object)
{
	const json_t *udp = json_object_get(object, "udp_encapsulation");
	*outer = (struct sa_outer){
		.source_port = json_port(udp, "source_port"),
		.destination_port = json_port(udp, "destination_port"),
	};
	json_copy_text(outer->source, sizeof(outer->source), object, "source");
	json_copy_text(outer->destination, sizeof(outer->destination), object, "destination");
}

#endif
