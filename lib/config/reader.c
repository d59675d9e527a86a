// SPDX-License-Identifier: BSD-3-Clause
// Copyright (c) 2026 the espgw authors

#include <ctype.h>
#include <stdarg.h>
#include <stdlib.h>

#include "config/reader.h"

#define VALUE_TEXT 80 // longer values are cut in messages
#define LISTED_MAX 8  // names that a message lists

static void error_append(struct reader *reader, const char *file, unsigned int line, char *text)
{
	struct reader_error *more =
		reallocarray(reader->errors, reader->error_count + 1, sizeof(reader->errors[0]));
	char *name = strdup(file);
	if (more != NULL)
		reader->errors = more;
	if (more == NULL || name == NULL || text == NULL) {
		reader->out_of_memory = true;
		free(name);
		free(text);
		return;
	}
	more[reader->error_count++] = (struct reader_error){name, line, text};
}

void reader_error_at(
	struct reader *reader, const char *file, unsigned int line, const char *format, ...)
{
	char *text = NULL;
	va_list arguments;
	va_start(arguments, format);
	if (vasprintf(&text, format, arguments) < 0)
		text = NULL;
	va_end(arguments);
	error_append(reader, file, line, text);
}

// A string in quotes, as one line whatever it holds.
static void string_write(FILE *stream, const char *string)
{
	fputc('"', stream);
	for (size_t i = 0; string[i] != '\0'; i++) {
		unsigned char c = (unsigned char)string[i];
		if (i == VALUE_TEXT) {
			fputs("...", stream);
			break;
		}
		if (c == '"' || c == '\\')
			fprintf(stream, "\\%c", c);
		else if (c < ' ' || c == 0x7f)
			fprintf(stream, "\\x%02x", c);
		else
			fputc(c, stream);
	}
	fputc('"', stream);
}

static void value_write(FILE *stream, const config_setting_t *setting)
{
	switch (config_setting_type(setting)) {
	case CONFIG_TYPE_INT:
	case CONFIG_TYPE_INT64:
		fprintf(stream, "%lld", config_setting_get_int64(setting));
		break;
	case CONFIG_TYPE_FLOAT:
		fprintf(stream, "%g", config_setting_get_float(setting));
		break;
	case CONFIG_TYPE_STRING:
		string_write(stream, config_setting_get_string(setting));
		break;
	case CONFIG_TYPE_BOOL:
		fputs(config_setting_get_bool(setting) ? "true" : "false", stream);
		break;
	case CONFIG_TYPE_ARRAY:
		fputs(config_setting_length(setting) > 0 ? "[ ... ]" : "[ ]", stream);
		break;
	case CONFIG_TYPE_LIST:
		fputs(config_setting_length(setting) > 0 ? "( ... )" : "( )", stream);
		break;
	default:
		fputs(config_setting_length(setting) > 0 ? "{ ... }" : "{ }", stream);
		break;
	}
}

// As in tunnels[0].mtu
static void path_write(FILE *stream, const config_setting_t *setting)
{
	const config_setting_t *parent = config_setting_parent(setting);
	if (parent == NULL)
		return;
	path_write(stream, parent);
	if (config_setting_name(setting) == NULL)
		fprintf(stream, "[%d]", config_setting_index(setting));
	else
		fprintf(stream, "%s%s", config_setting_is_root(parent) ? "" : ".",
			config_setting_name(setting));
}

// `absent`: the setting is a group, and the error one of its member of this name.
__attribute__((format(printf, 4, 0))) static void setting_error(struct reader *reader,
	const config_setting_t *setting, const char *absent, const char *format, va_list arguments)
{
	char *text = NULL;
	size_t size;
	FILE *stream = open_memstream(&text, &size);
	if (stream == NULL) {
		reader->out_of_memory = true;
		return;
	}
	path_write(stream, setting);
	if (absent == NULL) {
		fputs(" = ", stream);
		value_write(stream, setting);
	} else {
		fprintf(stream, "%s%s", config_setting_is_root(setting) ? "" : ".", absent);
	}
	fputs(": ", stream);
	vfprintf(stream, format, arguments);
	if (fclose(stream) != 0) {
		free(text);
		text = NULL;
	}
	const char *file = config_setting_source_file(setting);
	unsigned int line = config_setting_source_line(setting);
	// The root has no line of its own.
	error_append(reader, file != NULL ? file : reader->name, line > 0 ? line : 1, text);
}

void reader_error(struct reader *reader, const config_setting_t *setting, const char *format, ...)
{
	va_list arguments;
	va_start(arguments, format);
	setting_error(reader, setting, NULL, format, arguments);
	va_end(arguments);
}

void reader_member_error(struct reader *reader, const config_setting_t *group, const char *member,
	const char *format, ...)
{
	va_list arguments;
	va_start(arguments, format);
	const config_setting_t *setting = config_setting_get_member(group, member);
	if (setting != NULL)
		setting_error(reader, setting, NULL, format, arguments);
	else
		setting_error(reader, group, member, format, arguments);
	va_end(arguments);
}

static int error_compare(const void *a, const void *b)
{
	const struct reader_error *x = a, *y = b;
	int order = strcmp(x->file, y->file);
	if (order == 0 && x->line != y->line)
		order = x->line < y->line ? -1 : 1;
	return order != 0 ? order : strcmp(x->text, y->text);
}

unsigned int reader_errors_write(struct reader *reader, FILE *stream)
{
	unsigned int count = reader->error_count + reader->out_of_memory;
	if (reader->error_count > 0)
		qsort(reader->errors, reader->error_count, sizeof(reader->errors[0]),
			error_compare);
	for (unsigned int i = 0; i < reader->error_count; i++) {
		struct reader_error *error = &reader->errors[i];
		fprintf(stream, "%s:%u: %s\n", error->file, error->line, error->text);
		free(error->file);
		free(error->text);
	}
	if (reader->out_of_memory)
		fprintf(stream, "%s:1: out of memory\n", reader->name);
	free(reader->errors);
	reader->errors = NULL;
	reader->error_count = 0;
	return count;
}

const config_setting_t *reader_element(
	const struct reader *reader, const char *list, unsigned int index)
{
	return config_setting_get_elem(config_setting_get_member(reader->root, list), index);
}

// Levenshtein's distance without regard to case: insertions, deletions and replacements.
static unsigned int edit_distance(const char *a, const char *b)
{
	unsigned int row[READER_WORD_MAX + 1];
	size_t length = strlen(b);
	for (unsigned int i = 0; i <= length; i++)
		row[i] = i;
	for (; *a != '\0'; a++) {
		unsigned int diagonal = row[0]++;
		for (size_t i = 1; i <= length; i++) {
			bool same = tolower((unsigned char)*a) == tolower((unsigned char)b[i - 1]);
			unsigned int replaced = diagonal + !same;
			diagonal = row[i];
			row[i] = RTE_MIN(replaced, RTE_MIN(row[i], row[i - 1]) + 1);
		}
	}
	return row[length];
}

void reader_nearest_try(struct reader_nearest *nearest, const char *candidate)
{
	size_t size = strlen(nearest->word), other = strlen(candidate);
	if (size > READER_WORD_MAX || other > READER_WORD_MAX)
		return;
	unsigned int distance = edit_distance(nearest->word, candidate);
	// Farther than a third of the word is no slip of the finger.
	if (distance > RTE_MAX(size, other) / 3 + 1 || distance >= RTE_MAX(size, other))
		return;
	if (nearest->best == NULL || distance < nearest->distance) {
		nearest->best = candidate;
		nearest->distance = distance;
	}
}

bool reader_index_create(struct reader *reader, struct reader_index *index, unsigned int elements)
{
	uint32_t size = 16;
	while (size < 2 * elements)
		size *= 2;
	index->mask = size - 1;
	index->heads = malloc(size * sizeof(index->heads[0]));
	index->next = malloc((elements + 1) * sizeof(index->next[0]));
	if (index->heads == NULL || index->next == NULL) {
		reader->out_of_memory = true;
		reader_index_destroy(index);
		return false;
	}
	for (uint32_t i = 0; i < size; i++)
		index->heads[i] = -1;
	return true;
}

void reader_index_destroy(struct reader_index *index)
{
	free(index->heads);
	free(index->next);
	*index = (struct reader_index){0};
}

void reader_index_add(struct reader_index *index, uint32_t hash, unsigned int element)
{
	index->next[element] = index->heads[hash & index->mask];
	index->heads[hash & index->mask] = (int)element;
}

int reader_index_first(const struct reader_index *index, uint32_t hash)
{
	return index->heads == NULL ? -1 : index->heads[hash & index->mask];
}

uint32_t reader_hash(const void *bytes, size_t size) // FNV-1a, and its high half, which is better
{
	const uint8_t *byte = bytes;
	uint64_t hash = UINT64_C(0xcbf29ce484222325);
	for (size_t i = 0; i < size; i++)
		hash = (hash ^ byte[i]) * UINT64_C(0x100000001b3);
	return (uint32_t)(hash >> 32 ^ hash);
}

// Names at the same place of the elements of an array.
struct names {
	const char *kind;
	const char *first;
	size_t stride;
	unsigned int count;
	const struct reader_index *index; // NULL: they are few
};

static struct names port_names(const struct reader *reader)
{
	const struct config_port *ports = reader->config->ports;
	return (struct names){"port", ports != NULL ? ports->name : NULL, sizeof(*ports),
		reader->config->port_count, NULL};
}

static struct names tunnel_names(const struct reader *reader)
{
	const struct config_tunnel *tunnels = reader->config->tunnels;
	return (struct names){"tunnel", tunnels != NULL ? tunnels->name : NULL, sizeof(*tunnels),
		reader->config->tunnel_count, &reader->tunnel_names};
}

// The first of the elements that have this name.
static int indexed_find(const struct names *names, const char *name)
{
	int found = -1;
	for (int i = reader_index_first(names->index, reader_hash(name, strlen(name))); i >= 0;
		i = names->index->next[i]) {
		if (strcmp(names->first + (size_t)i * names->stride, name) == 0)
			found = i; // later ones come first
	}
	return found;
}

static int names_find(const struct names *names, const char *name)
{
	if (names->index != NULL)
		return indexed_find(names, name);
	for (unsigned int i = 0; i < names->count; i++) {
		if (strcmp(names->first + i * names->stride, name) == 0)
			return (int)i;
	}
	return -1;
}

int reader_find_port(const struct reader *reader, const char *name)
{
	struct names names = port_names(reader);
	return names_find(&names, name);
}

int reader_find_tunnel(const struct reader *reader, const char *name)
{
	struct names names = tunnel_names(reader);
	return names_find(&names, name);
}

static void unknown_name_report(struct reader *reader, const config_setting_t *group,
	const char *member, const struct names *names, const char *name)
{
	struct reader_nearest nearest = {.word = name};
	char list[LISTED_MAX * (CONFIG_NAME_SIZE + 5) + 8] = "";
	size_t used = 0;
	for (unsigned int i = 0; i < names->count; i++) {
		const char *known = names->first + i * names->stride;
		reader_nearest_try(&nearest, known);
		if (i < LISTED_MAX)
			used += (size_t)snprintf(list + used, sizeof(list) - used, "%s\"%s\"",
				i > 0 ? ", " : "", known);
	}
	if (names->count > LISTED_MAX)
		snprintf(list + used, sizeof(list) - used, ", ...");
	if (names->count == 0)
		reader_member_error(reader, group, member, "no such %s; the file has no %ss",
			names->kind, names->kind);
	else if (nearest.best != NULL)
		reader_member_error(reader, group, member, "no such %s; did you mean \"%s\"?",
			names->kind, nearest.best);
	else
		reader_member_error(reader, group, member, "no such %s; there %s %s", names->kind,
			names->count == 1 ? "is" : "are", list);
}

static int reference_resolve(struct reader *reader, const config_setting_t *group,
	const char *member, const struct names *names)
{
	const char *name;
	if (!config_setting_lookup_string(group, member, &name))
		return -1;
	int index = names_find(names, name);
	if (index < 0)
		unknown_name_report(reader, group, member, names, name);
	return index;
}

int reader_port_reference(struct reader *reader, const config_setting_t *group, const char *member)
{
	struct names names = port_names(reader);
	return reference_resolve(reader, group, member, &names);
}

int reader_tunnel_reference(
	struct reader *reader, const config_setting_t *group, const char *member)
{
	struct names names = tunnel_names(reader);
	return reference_resolve(reader, group, member, &names);
}
