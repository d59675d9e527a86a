// SPDX-License-Identifier: BSD-3-Clause
// Copyright (c) 2026 the espgw authors

// One table of commands (commands.c) drives everything: what is parsed (arguments.c), what the
// help says (help.c), which method is called (main.c) and how its result is shown (print.c).

#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

#include <jansson.h>

#include "client/client.h"

enum exit_code {
	EXIT_DONE = 0,
	EXIT_REFUSED = 1,     // the gateway said no
	EXIT_USAGE = 2,       // the command line, or a file that it names, is wrong
	EXIT_UNREACHABLE = 3, // no gateway at the socket, or no sensible answer from it
};

enum argument_kind {
	ARGUMENT_TEXT,
	ARGUMENT_NUMBER,    // integer from 0
	ARGUMENT_SPI,       // decimal, or hexadecimal after 0x
	ARGUMENT_DIRECTION, // in or out
	ARGUMENT_FLAG,      // takes no value; true
	ARGUMENT_UDP,       // SOURCE_PORT:DESTINATION_PORT, or none
	ARGUMENT_SELECTOR,  // LOCAL=REMOTE; may be repeated
	ARGUMENT_LIST,      // text; may be repeated
};

// Options have a name with two dashes. Those without dashes go by position and must be given.
struct argument {
	const char *name;
	const char *value; // of an option, as the help names it; NULL with a flag
	enum argument_kind kind;
	const char *parameter; // of the method, "a.b" for member b of a; NULL: espctl's own matter
	const char *help;
	bool required;
};

#define ARGUMENTS_MAX 18 // the empty one at the end included

// The options that every command takes; they end with a name of NULL.
extern const struct argument global_options[];

struct column {
	const char *heading;
	const char *member; // "a|b": a, or b when there is no a
	enum column_kind {
		COLUMN_TEXT,
		COLUMN_COUNT, // packets and the like
		COLUMN_BYTES,
		COLUMN_AGO, // seconds; null = never
		COLUMN_AGE, // seconds; null = nothing there
		COLUMN_IN,  // seconds until; 0 = now, null = no limit
		COLUMN_YES, // true = "yes"
	} kind;
};

struct invocation;

struct command {
	const char *group, *verb; // verb NULL: the group's name is the whole command
	const char *method;
	const char *summary;
	const char *details;                      // more for the help, or NULL
	struct argument arguments[ARGUMENTS_MAX]; // ends with a name of NULL
	const char *either[2];                    // options of which exactly one is to be given
	const char *member;   // of the result: what a list lists, what a show shows
	bool pages;           // the result comes in pages
	bool connects_itself; // `run` connects, or needs no gateway
	// What to do; NULL: call `method` with the parameters, then print.
	enum exit_code (*run)(struct invocation *invocation);
	const struct column *columns; // of a list; ends with a heading of NULL
	// How to show a result to people; NULL: as a table, or with no columns as an object.
	void (*print)(const struct invocation *invocation, const json_t *result);
	const char *examples; // each line indented by two spaces
};

extern const struct command commands[]; // ends with a group of NULL

// A command line, taken apart.
struct invocation {
	const struct command *command;
	const char *socket;
	int timeout_ms;
	bool json;
	bool help;
	bool version;
	const char *group; // whose help is wanted; its name is no whole command
	bool given[ARGUMENTS_MAX];
	json_t *parameters; // for the method
	json_t *own;        // argument name to value, of those without a parameter
	struct espgw_client *client;
};

// ---- arguments.c ----

// Takes argv[1..] apart. Says on stderr what is wrong and returns EXIT_USAGE.
enum exit_code arguments_parse(struct invocation *invocation, int argc, char **argv);

// A sentence about a misuse, on stderr, with a pointer to the help.
enum exit_code usage_error(const struct invocation *invocation, const char *format, ...)
	__attribute__((format(printf, 2, 3)));

// ---- help.c ----

void help_print_overview(FILE *stream);
// All commands of a group; false when there is none of this name.
bool help_print_group(FILE *stream, const char *group);
void help_print_command(const struct command *command);

// ---- print.c ----

void print_result(const struct invocation *invocation, const json_t *result);
void print_event(const struct invocation *invocation, const json_t *event);
void print_nothing(const struct invocation *invocation, const json_t *result);
void print_sa_id(const struct invocation *invocation, const json_t *result);
void print_flushed(const struct invocation *invocation, const json_t *result);
void print_spis(const struct invocation *invocation, const json_t *result);
void print_tunnels(const struct invocation *invocation, const json_t *result);
void print_ports(const struct invocation *invocation, const json_t *result);
void print_stats(const struct invocation *invocation, const json_t *result);
void print_drops(const struct invocation *invocation, const json_t *result);

// ---- run.c ----

// Says why a call failed, on stderr and with --json on stdout too, and returns the exit code.
enum exit_code report_failure(const struct invocation *invocation, const struct espgw_error *error);

// Connects invocation->client, which main() closes.
enum exit_code run_connect(struct invocation *invocation);

enum exit_code run_call(struct invocation *invocation);
enum exit_code run_sa_add(struct invocation *invocation);
enum exit_code run_stats(struct invocation *invocation); // stages.c
enum exit_code run_events(struct invocation *invocation);
enum exit_code run_hello(struct invocation *invocation);
enum exit_code run_version(struct invocation *invocation);
enum exit_code run_key_generate(struct invocation *invocation);
enum exit_code run_config(struct invocation *invocation); // config.c
