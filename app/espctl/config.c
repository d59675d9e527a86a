// SPDX-License-Identifier: BSD-3-Clause
// Copyright (c) 2026 the espgw authors

// config apply, config reload.

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "command.h"

#define TIMEOUT_MS 120000 // at least: hundreds of thousands of routes take seconds
// A request has at most 65,536 bytes. What is longer, or includes other files, the gateway reads
// itself.
#define TEXT_MAX 60000

static enum exit_code report_file(
	const struct invocation *invocation, const char *path, const char *why)
{
	return usage_error(invocation, "%s: %s", path, why);
}

// The file's text when it can be sent; NULL when the gateway has to read the file.
static json_t *text_to_send(FILE *stream)
{
	char *text = malloc(TEXT_MAX + 1);
	size_t size = text == NULL ? 0 : fread(text, 1, TEXT_MAX + 1, stream);
	json_t *value = NULL;
	if (text != NULL && size <= TEXT_MAX && memmem(text, size, "@include", 8) == NULL)
		value = json_stringn(text, size);
	free(text);
	char *dumped = value == NULL ? NULL : json_dumps(value, JSON_ENCODE_ANY);
	if (dumped == NULL || strlen(dumped) > TEXT_MAX) {
		json_decref(value);
		value = NULL;
	}
	free(dumped);
	return value;
}

// What the gateway gets of the file that the command line names.
static enum exit_code set_file(struct invocation *invocation)
{
	const char *path = json_string_value(json_object_get(invocation->own, "FILE"));
	if (path == NULL)
		return EXIT_DONE; // the gateway's own
	FILE *stream = fopen(path, "re");
	if (stream == NULL)
		return report_file(invocation, path, strerror(errno));
	json_t *text = text_to_send(stream);
	char *whole = realpath(path, NULL);
	fclose(stream);
	if (text == NULL && whole == NULL)
		return report_file(invocation, path, strerror(errno));
	// Messages name a text by what the user called it.
	json_object_set_new(
		invocation->parameters, "file", json_string(text != NULL ? path : whole));
	if (text != NULL)
		json_object_set_new(invocation->parameters, "text", text);
	free(whole);
	return EXIT_DONE;
}

static const char *text_of(const json_t *object, const char *member)
{
	const char *text = json_string_value(json_object_get(object, member));
	return text == NULL ? "" : text;
}

static void print_change(const json_t *change)
{
	const char *kind = text_of(change, "change"), *name = text_of(change, "name");
	size_t index;
	const json_t *setting;
	printf("%c %s%s%s",
		*kind == 'a'   ? '+'
		: *kind == 'r' ? '-'
			       : '~',
		text_of(change, "part"), name[0] == '\0' ? "" : " ", name);
	json_array_foreach (json_object_get(change, "settings"), index, setting) {
		const char *effect = text_of(setting, "effect");
		printf("%s %s %s -> %s%s", index == 0 ? ":" : ",", text_of(setting, "name"),
			text_of(setting, "before"), text_of(setting, "after"),
			strcmp(effect, "next_sa") == 0   ? " (for SAs added from now on)"
			: strcmp(effect, "restart") == 0 ? " (needs a restart)"
							 : "");
	}
	putchar('\n');
}

// As in "2 tunnels added, 1 route removed".
static void print_counts(const json_t *counts)
{
	static const char *const parts[][2] = {{"gateway", "settings of the gateway"},
		{"workers", "settings of the workers"}, {"port", "ports"}, {"tunnel", "tunnels"},
		{"route", "routes"}, {"neighbour", "neighbours"}};
	static const char *const kinds[] = {"added", "removed", "changed"};
	const char *joint = "";
	for (size_t i = 0; i < sizeof(parts) / sizeof(parts[0]); i++)
		for (size_t k = 0; k < sizeof(kinds) / sizeof(kinds[0]); k++) {
			json_int_t count = json_integer_value(
				json_object_get(json_object_get(counts, parts[i][0]), kinds[k]));
			if (count == 0)
				continue;
			bool one = count == 1 && i > 1;
			if (i > 1)
				printf("%s%lld %s %s", joint, count, parts[i][one ? 0 : 1],
					kinds[k]);
			else
				printf("%s%s %s", joint, parts[i][1], kinds[k]);
			joint = ", ";
		}
}

static void print_outcome(const json_t *result)
{
	const char *outcome = text_of(result, "outcome");
	const json_t *changes = json_object_get(result, "changes");
	json_int_t more = json_integer_value(json_object_get(result, "change_count")) -
			  (json_int_t)json_array_size(changes);
	size_t index;
	const json_t *entry;
	json_array_foreach (changes, index, entry)
		print_change(entry);
	if (more > 0)
		printf("... and %lld more\n", more);
	json_array_foreach (json_object_get(result, "errors"), index, entry)
		fprintf(stderr, "%s\n", json_string_value(entry));
	if (strcmp(outcome, "applied") == 0 || strcmp(outcome, "checked") == 0) {
		fputs(*outcome == 'a' ? "Applied: " : "Would be applied: ", stdout);
		print_counts(json_object_get(result, "counts"));
		puts(".");
	} else if (strcmp(outcome, "unchanged") == 0) {
		puts("Nothing to change: the gateway runs with this configuration.");
	} else {
		fprintf(stderr, "espctl: %s %s; nothing was changed\n", text_of(result, "file"),
			strcmp(outcome, "invalid") == 0 ? "has errors"
			: strcmp(outcome, "refused") == 0
				? "cannot be applied while the gateway runs"
				: "could not be applied");
	}
}

enum exit_code run_config(struct invocation *invocation)
{
	json_t *result;
	struct espgw_error error;
	enum exit_code code = set_file(invocation);
	if (invocation->timeout_ms < TIMEOUT_MS)
		invocation->timeout_ms = TIMEOUT_MS;
	if (code == EXIT_DONE)
		code = run_connect(invocation);
	if (code != EXIT_DONE)
		return code;
	if (espgw_client_call(invocation->client, invocation->command->method,
		    invocation->parameters, &result, &error) != ESPGW_OK)
		return report_failure(invocation, &error);
	const char *outcome = text_of(result, "outcome");
	bool fine = strcmp(outcome, "applied") == 0 || strcmp(outcome, "checked") == 0 ||
		    strcmp(outcome, "unchanged") == 0;
	if (invocation->json)
		print_result(invocation, result);
	else
		print_outcome(result);
	json_decref(result);
	return fine ? EXIT_DONE : EXIT_REFUSED;
}
