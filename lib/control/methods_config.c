// SPDX-License-Identifier: BSD-3-Clause
// Copyright (c) 2026 the espgw authors

// config.apply, and the reload on SIGHUP.

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "control/internal.h"

// What one reply tells at most; the counts tell of all.
#define CHANGES_MAX 1000
#define ERRORS_MAX  100
// Lines of a reload in the log.
#define LOGGED_MAX 20

// Where a new configuration comes from: a file, or a text with a name for messages.
struct source {
	const char *name, *text;
};

// ---- what is told ----

// What stands in a file need not be UTF-8, as JSON must be: then other than ASCII becomes '?'.
static json_t *any_text_json(const char *text, size_t size)
{
	json_t *value = json_stringn(text, size);
	char copy[1024];
	if (value != NULL)
		return value;
	size = size < sizeof(copy) ? size : sizeof(copy);
	for (size_t i = 0; i < size; i++)
		copy[i] = (text[i] & 0x80) != 0 ? '?' : text[i];
	return json_stringn(copy, size);
}

// The lines of a text, as an array of strings.
static void put_lines(json_t *result, const char *text)
{
	json_t *lines = json_array();
	uint64_t count = 0;
	for (const char *end; *text != '\0'; text = *end == '\0' ? end : end + 1) {
		end = strchrnul(text, '\n');
		if (++count <= ERRORS_MAX)
			json_append(lines, any_text_json(text, (size_t)(end - text)));
	}
	json_put(result, "errors", lines);
	json_put_number(result, "error_count", count);
}

static const char *effect_name(enum config_effect effect)
{
	static const char *const names[] = {
		[CONFIG_RESTART] = "restart", [CONFIG_LIVE] = "now", [CONFIG_NEXT_SA] = "next_sa"};
	return names[effect];
}

static const char *kind_name(enum config_change_kind kind)
{
	static const char *const names[] = {[CONFIG_ADDED] = "added",
		[CONFIG_REMOVED] = "removed",
		[CONFIG_CHANGED] = "changed"};
	return names[kind];
}

static json_t *settings_json(const struct config_change *change)
{
	json_t *list = json_array();
	for (unsigned int i = 0; i < change->setting_count; i++) {
		const struct config_setting_change *setting = &change->settings[i];
		char name[64];
		snprintf(name, sizeof(name), "%s%s%s", setting->group,
			setting->group[0] == '\0' ? "" : ".", setting->name);
		json_t *object = json_object();
		json_put_text(object, "name", name);
		json_put(object, "before", any_text_json(setting->before, strlen(setting->before)));
		json_put(object, "after", any_text_json(setting->after, strlen(setting->after)));
		json_put_text(object, "effect", effect_name(setting->effect));
		json_append(list, object);
	}
	return list;
}

static void put_changes(json_t *result, const struct config_diff *diff)
{
	json_t *list = json_array();
	for (unsigned int i = 0; i < diff->count && i < CHANGES_MAX; i++) {
		const struct config_change *change = &diff->changes[i];
		char name[CONFIG_CHANGE_TEXT];
		json_t *object = json_object();
		json_put_text(object, "change", kind_name(change->kind));
		json_put_text(object, "part", config_part_name(change->part));
		if (config_change_name(diff, change, name)[0] != '\0')
			json_put_text(object, "name", name);
		if (change->kind == CONFIG_CHANGED)
			json_put(object, "settings", settings_json(change));
		json_append(list, object);
	}
	json_put(result, "changes", list);
	json_put_number(result, "change_count", diff->count);
	json_t *counts = json_object();
	for (unsigned int part = 0; part < CONFIG_PARTS; part++) {
		json_t *object = json_object();
		for (unsigned int kind = 0; kind < 3; kind++)
			if (diff->counts[part][kind] != 0)
				json_put_number(object, kind_name(kind), diff->counts[part][kind]);
		if (json_object_size(object) != 0)
			json_put(counts, config_part_name(part), object);
		else
			json_decref(object);
	}
	json_put(result, "counts", counts);
}

// ---- what is done ----

static void remove_sas(void *argument, struct tunnel *tunnel)
{
	control_flush_tunnel(argument, tunnel);
}

// The outcome; errors are written to the stream.
static const char *apply_diff(struct control *control, struct config **next,
	const struct config_diff *diff, bool check, FILE *errors)
{
	struct control_parts *parts = &control->parts;
	struct dataplane_error error;
	if (config_diff_refusals(diff, errors) != 0)
		return "refused";
	if (diff->count == 0)
		return "unchanged";
	if (check)
		return "checked";
	if (parts->apply(parts->argument, *next, diff, remove_sas, control, &error) != 0) {
		fprintf(errors, "%s\n", error.text);
		return "failed";
	}
	parts->config = *next;
	*next = NULL; // the data plane's now
	return "applied";
}

static const char *apply_config(
	struct control *control, struct config **next, bool check, json_t *result, FILE *errors)
{
	struct control_parts *parts = &control->parts;
	struct dataplane_error error;
	if (*next == NULL)
		return "invalid";
	if (parts->place(parts->argument, *next, &error) != 0) {
		fprintf(errors, "%s\n", error.text);
		return "refused";
	}
	struct config_diff *diff = config_compare(parts->config, *next);
	if (diff == NULL) {
		fputs("memory is short\n", errors);
		return "failed";
	}
	put_changes(result, diff); // before anything that it names goes
	const char *outcome = apply_diff(control, next, diff, check, errors);
	config_diff_free(diff);
	return outcome;
}

static json_t *run_apply(struct control *control, const struct source *source, bool check)
{
	char *text = NULL;
	size_t size;
	json_t *result = json_object();
	FILE *errors = open_memstream(&text, &size);
	if (errors == NULL) {
		json_decref(result);
		return NULL;
	}
	struct config *next = source->text != NULL
				      ? config_parse(source->text, source->name, errors)
				      : config_load(source->name, errors);
	const char *outcome = apply_config(control, &next, check, result, errors);
	config_free(next);
	json_put_text(result, "outcome", outcome);
	json_put_text(result, "file", source->name);
	if (fclose(errors) == 0)
		put_lines(result, text);
	free(text);
	if (strcmp(outcome, "applied") == 0)
		event_send(control, EVENT_CONFIG_APPLIED, json_object());
	return result;
}

// ---- the log ----

static void log_change(const struct control *control, const json_t *change)
{
	const char *name = json_string_value(json_object_get(change, "name"));
	char settings[400] = "";
	size_t used = 0, index;
	const json_t *setting;
	json_array_foreach (json_object_get(change, "settings"), index, setting) {
		if (used < sizeof(settings))
			used += (size_t)snprintf(settings + used, sizeof(settings) - used,
				"%s %s %s -> %s", index == 0 ? ":" : ",",
				json_string_value(json_object_get(setting, "name")),
				json_string_value(json_object_get(setting, "before")),
				json_string_value(json_object_get(setting, "after")));
	}
	control_log(control, CONFIG_LOG_INFO, "configuration: %s%s%s %s%s",
		json_string_value(json_object_get(change, "part")), name == NULL ? "" : " ",
		name == NULL ? "" : name, json_string_value(json_object_get(change, "change")),
		settings);
}

static void log_result(const struct control *control, const json_t *result)
{
	const char *outcome = json_string_value(json_object_get(result, "outcome"));
	const char *file = json_string_value(json_object_get(result, "file"));
	bool done = strcmp(outcome, "applied") == 0, same = strcmp(outcome, "unchanged") == 0;
	size_t index;
	const json_t *entry;
	if (!done && !same)
		json_array_foreach (json_object_get(result, "errors"), index, entry)
			if (index < LOGGED_MAX)
				control_log(
					control, CONFIG_LOG_ERROR, "%s", json_string_value(entry));
	if (done)
		json_array_foreach (json_object_get(result, "changes"), index, entry)
			if (index < LOGGED_MAX)
				log_change(control, entry);
	control_log(control, done || same ? CONFIG_LOG_INFO : CONFIG_LOG_ERROR,
		"configuration %s: %s, %lld changes", file,
		done || same ? outcome : "not applied, nothing was changed",
		json_integer_value(json_object_get(result, "change_count")));
}

void control_reload(struct control *control)
{
	struct source source = {.name = control->parts.config_file};
	if (source.name == NULL)
		return;
	json_t *result = run_apply(control, &source, false);
	if (json_memory_failed() || result == NULL)
		control_log(control, CONFIG_LOG_ERROR, "no memory to read %s", source.name);
	else
		log_result(control, result);
	json_decref(result);
}

// ---- the method ----

// Whoever may use the socket may give a text. A path is read with the rights of the gateway, and
// what is wrong with the file is told: that is for those who may read any file anyway.
static bool choose_source(struct request *request, struct source *source)
{
	struct scope scope = {request, request->params, ""};
	const char *file = NULL;
	if (!scope_text(&scope, "file", OPTIONAL, &file) ||
		!scope_text(&scope, "text", OPTIONAL, &source->text))
		return false;
	if (file != NULL && strlen(file) > 1024)
		return request_fail_parameter(request, "", "file", "is longer than 1024 bytes");
	source->name = file;
	if (source->text != NULL) {
		source->name = file == NULL ? "text" : file;
		return true;
	}
	if (file == NULL) {
		source->name = request->control->parts.config_file;
		return source->name != NULL ||
		       request_fail_parameter(request, "", "file", "is missing");
	}
	if (file[0] != '/')
		return request_fail_parameter(
			request, "", "file", "give an absolute path, or the text of the file too");
	return request->session->is_root ||
	       request_fail(request, RPC_NOT_PERMITTED,
		       "only root can have the gateway read a file; give its text instead");
}

static json_t *method_config_apply(struct request *request)
{
	struct scope scope = {request, request->params, ""};
	struct source source = {NULL, NULL};
	bool check = false;
	if (!choose_source(request, &source) || !scope_boolean(&scope, "check", &check))
		return NULL;
	json_t *result = run_apply(request->control, &source, check);
	if (result != NULL && !check)
		log_result(request->control, result);
	return result;
}

static const char *const apply_parameters[] = {"file", "text", "check", NULL};

const struct method methods_config[] = {
	{"config.apply", method_config_apply, apply_parameters},
	{NULL, NULL, NULL},
};
