// SPDX-License-Identifier: BSD-3-Clause
// Copyright (c) 2026 the espgw authors

// What the readers of the parts of a configuration share: the settings that libconfig parsed, the
// configuration being made of them, and the errors found so far.

#pragma once

#include <libconfig.h>

#include "config/config.h"

struct reader_error {
	char *file;
	unsigned int line;
	char *text; // without file and line
};

// Elements of a list by a hash of something of theirs: those that may have the same.
struct reader_index {
	uint32_t mask;
	int *heads; // [mask + 1] the element that was added last, or -1
	int *next;  // [element] the one before with this hash
};

struct reader {
	const char *name; // of the file
	struct reader_index tunnel_names, tunnel_if_ids, tunnel_blocks;
	const config_setting_t *root;
	struct config *config;
	struct reader_error *errors;
	unsigned int error_count;
	bool out_of_memory;
};

// An error at a place of a file, whatever is there.
void reader_error_at(struct reader *reader, const char *file, unsigned int line, const char *format,
	...) __attribute__((format(printf, 4, 5)));
// An error of a setting: "PATH = VALUE: " comes before the text.
void reader_error(struct reader *reader, const config_setting_t *setting, const char *format, ...)
	__attribute__((format(printf, 3, 4)));
// An error of the setting `member` of a group, or of an element of a list of groups. The setting
// may be absent: then the path is given without value, with the group's line.
void reader_member_error(struct reader *reader, const config_setting_t *group, const char *member,
	const char *format, ...) __attribute__((format(printf, 4, 5)));
// Writes the errors by file and line, and frees them. Returns how many there were.
unsigned int reader_errors_write(struct reader *reader, FILE *stream);

// Element `index` of the root's list of this name, which exists.
const config_setting_t *reader_element(
	const struct reader *reader, const char *list, unsigned int index);

// The best match of a misspelt word among candidates.
#define READER_WORD_MAX 64
struct reader_nearest {
	const char *word;
	const char *best; // NULL: none is near
	unsigned int distance;
};
void reader_nearest_try(struct reader_nearest *nearest, const char *candidate);

// Room for so many elements. False without memory, which is reported.
bool reader_index_create(struct reader *reader, struct reader_index *index, unsigned int elements);
void reader_index_destroy(struct reader_index *index);
void reader_index_add(struct reader_index *index, uint32_t hash, unsigned int element);
// An element with this hash, then the next ones by index->next; -1 at the end.
int reader_index_first(const struct reader_index *index, uint32_t hash);
uint32_t reader_hash(const void *bytes, size_t size);

// Index of the port or tunnel of this name, or -1.
int reader_find_port(const struct reader *reader, const char *name);
int reader_find_tunnel(const struct reader *reader, const char *name);
// Index of the port or tunnel that the member names; -1 when there is none, which is reported, or
// when the member is absent or no string, which is not.
int reader_port_reference(struct reader *reader, const config_setting_t *group, const char *member);
int reader_tunnel_reference(
	struct reader *reader, const config_setting_t *group, const char *member);

// The parts, in the order in which they need each other. Each reads its settings and checks them
// against those before.
void workers_read(struct reader *reader);
void ports_read(struct reader *reader);
void queues_read(struct reader *reader);
void tunnels_read(struct reader *reader);
// Order of two (struct config_route *) by what makes a route that route: prefix and target.
int routes_compare(const void *a, const void *b);
void routes_read(struct reader *reader);
void neighbours_read(struct reader *reader);

// Reads a text for what libconfig does not tell: integers that it would cut to 32 bits, and files
// to include, of which there may be none. False when libconfig must not read it.
bool scan_text(struct reader *reader, const char *file, const char *text);
// As scan_text, of a file, and of those that it includes relative to `directory`. False also when
// one can't be read.
bool scan_file(struct reader *reader, const char *file, const char *directory);
