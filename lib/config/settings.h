// SPDX-License-Identifier: BSD-3-Clause
// Copyright (c) 2026 the espgw authors

// The specification of all settings: one table for each group of the file. It drives the parsing,
// the detection of unknown and missing settings, and the tables of docs/configuration.md.

#pragma once

#include "config/reader.h"

enum setting_type {
	// Stored at the offset:
	SETTING_INTEGER,           // uint32_t; with `choices` also SETTING_WORD of one of these
	SETTING_BOOLEAN,           // bool
	SETTING_CHOICE,            // an enum: the index into `choices`
	SETTING_RATE,              // uint32_t: one of `choices`, by `values`, or an integer
	SETTING_NAME,              // char[CONFIG_NAME_SIZE]
	SETTING_PATH,              // char[size]
	SETTING_MODE,              // uint32_t
	SETTING_DEVICE,            // char[CONFIG_DEVICE_SIZE]
	SETTING_ADDRESS,           // struct packet_address, unicast
	SETTING_INTERFACE_ADDRESS, // struct packet_interface_address, unicast
	SETTING_PREFIX,            // struct packet_prefix
	SETTING_MAC,               // struct rte_ether_addr, unicast
	SETTING_GROUP,             // by the group's own table, into the same object
	// Not stored; the part's own code reads them:
	SETTING_REFERENCE, // a string
	SETTING_ARRAY,     // of scalars
	SETTING_LIST,      // of groups or arrays
};

// What an integer is when it was given by word: the word's index in `choices`.
#define SETTING_WORD(index) (UINT32_MAX - (index))

struct setting_group;

struct setting {
	const char *name;
	enum setting_type type;
	bool required;
	size_t offset, size;
	int64_t minimum, maximum; // of integers
	bool zero;                // 0 is allowed besides
	bool power_of_two;        // of integers
	const char *const *choices;
	const uint32_t *values;    // of the choices of a rate
	const char *fallback;      // the value when the setting is absent, as text
	const char *fallback_note; // the same in words, where a number would say nothing
	const char *expected;      // what is right, where the type does not say it
	const char *meaning;
	// What a change of it needs while the gateway runs. Left out: a restart.
	enum config_effect effect;
	const struct setting_group *group;
};

struct setting_group {
	const char *title; // path of the group in the file
	const struct setting *settings;
	unsigned int count;
	size_t object_size; // of the struct that one list element becomes
};

extern const struct setting_group settings_root, settings_gateway, settings_ports, settings_workers,
	settings_tunnels, settings_health, settings_routes, settings_neighbours;

// Reads a group by its table into the object. Absent settings get their defaults; what is wrong is
// reported and has the default too, or zeros. `setting` NULL: the defaults only.
void settings_read(struct reader *reader, const config_setting_t *setting,
	const struct setting_group *group, void *object);
// Reads the root's list of this name: *objects becomes an array of one object for each element,
// which the caller frees. Objects begin with `int line`. Returns how many.
unsigned int settings_read_list(struct reader *reader, const char *name,
	const struct setting_group *group, unsigned int maximum, void **objects);
// The scalars of an array or list, each by `each` with its index. Anything else is reported.
void settings_read_array(struct reader *reader, const config_setting_t *group, const char *name,
	unsigned int maximum,
	void (*each)(struct reader *reader, const config_setting_t *element, unsigned int index,
		void *argument),
	void *argument);
// Writes a value by its table row. False when it is wrong, which is reported.
bool settings_set(struct reader *reader, const config_setting_t *value,
	const struct setting *setting, void *object);
// The value as it is written in the file, without quotes; returns `text`.
#define SETTING_VALUE_TEXT (CONFIG_DEVICE_SIZE + 8)
char *settings_format(
	const struct setting *setting, const void *object, char text[SETTING_VALUE_TEXT]);
// What a right value is, in words; returns `text`.
#define SETTING_TEXT 200
char *settings_expected(const struct setting *setting, char text[SETTING_TEXT]);
