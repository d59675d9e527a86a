// SPDX-License-Identifier: BSD-3-Clause
// Copyright (c) 2026 the espgw authors

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "command.h"

#define TIMEOUT_SECONDS_MAX 86400
#define NAME_SIZE           64 // of a command's name, as typed or in the table
#define NAME_DISTANCE       2  // wrong letters until another name was hardly meant

enum exit_code usage_error(const struct invocation *invocation, const char *format, ...)
{
	fputs("espctl: ", stderr);
	va_list arguments;
	va_start(arguments, format);
	vfprintf(stderr, format, arguments);
	va_end(arguments);
	const struct command *command = invocation->command;
	if (command == NULL)
		fputs("\nSee `espctl --help`.\n", stderr);
	else
		fprintf(stderr, "\nSee `espctl %s%s%s --help`.\n", command->group,
			command->verb == NULL ? "" : " ",
			command->verb == NULL ? "" : command->verb);
	return EXIT_USAGE;
}

// ---- values ----

static bool parse_number(const char *text, uint64_t most, uint64_t *number)
{
	if (text[0] < '0' || text[0] > '9')
		return false;
	bool hexadecimal = text[0] == '0' && (text[1] == 'x' || text[1] == 'X');
	char *end;
	errno = 0;
	*number = strtoull(text, &end, hexadecimal ? 16 : 10);
	return errno == 0 && *end == '\0' && *number <= most;
}

// SOURCE_PORT:DESTINATION_PORT
static json_t *parse_udp(const char *text)
{
	if (strcmp(text, "none") == 0)
		return json_null();
	char source[8];
	const char *colon = strchr(text, ':');
	if (colon == NULL || colon - text >= (ptrdiff_t)sizeof(source))
		return NULL;
	memcpy(source, text, (size_t)(colon - text));
	source[colon - text] = '\0';
	uint64_t from, to;
	if (!parse_number(source, UINT16_MAX, &from) || !parse_number(colon + 1, UINT16_MAX, &to) ||
		from == 0 || to == 0)
		return NULL;
	return json_pack(
		"{s:I, s:I}", "source_port", (json_int_t)from, "destination_port", (json_int_t)to);
}

// The two sides of `text`, which is changed. False when one is not there.
static bool split_sides(char *text, const char **local, const char **remote)
{
	char *equals = strchr(text, '=');
	if (equals == NULL || equals == text || equals[1] == '\0')
		return false;
	*equals = '\0';
	*local = text;
	*remote = equals + 1;
	return true;
}

// A number, or the name of a protocol that selectors are often about.
static bool parse_protocol(const char *text, uint64_t *protocol)
{
	static const struct {
		const char *name;
		uint8_t number;
	} known[] = {{"icmp", 1}, {"tcp", 6}, {"udp", 17}, {"icmpv6", 58}, {"sctp", 132}};
	for (unsigned int i = 0; i < sizeof(known) / sizeof(known[0]); i++) {
		if (strcmp(text, known[i].name) == 0) {
			*protocol = known[i].number;
			return true;
		}
	}
	return parse_number(text, UINT8_MAX, protocol) && *protocol != 0;
}

// `*`, PORT or FIRST-LAST; into the selector's member.
static bool add_ports(json_t *selector, const char *member, const char *text)
{
	char first[8];
	uint64_t from, to;
	if (strcmp(text, "*") == 0)
		return true;
	size_t length = strcspn(text, "-");
	if (length >= sizeof(first))
		return false;
	memcpy(first, text, length);
	first[length] = '\0';
	if (!parse_number(first, UINT16_MAX, &from) ||
		!parse_number(text[length] == '-' ? text + length + 1 : first, UINT16_MAX, &to) ||
		to == 0)
		return false;
	json_object_set_new(selector, member,
		json_pack("{s:I, s:I}", "first", (json_int_t)from, "last", (json_int_t)to));
	return true;
}

// LOCAL=REMOTE, then, after commas, a protocol and LOCAL_PORTS=REMOTE_PORTS.
static json_t *parse_selector(const char *text)
{
	char copy[160];
	if (strlen(text) >= sizeof(copy))
		return NULL;
	strcpy(copy, text);
	char *rest = copy;
	char *prefixes = strsep(&rest, ","), *protocol = strsep(&rest, ","), *ports = rest;
	const char *local, *remote;
	uint64_t number;
	if (!split_sides(prefixes, &local, &remote))
		return NULL;
	json_t *selector = json_pack("{s:s, s:s}", "local", local, "remote", remote);
	if (protocol == NULL)
		return selector;
	bool right = parse_protocol(protocol, &number);
	if (right)
		json_object_set_new(selector, "protocol", json_integer((json_int_t)number));
	if (right && ports != NULL)
		right = split_sides(ports, &local, &remote) &&
			add_ports(selector, "local_ports", local) &&
			add_ports(selector, "remote_ports", remote);
	if (right)
		return selector;
	json_decref(selector);
	return NULL;
}

static json_t *parse_spi(const char *text)
{
	uint64_t number;
	if (!parse_number(text, UINT32_MAX, &number))
		return NULL;
	return json_sprintf("0x%08" PRIx32, (uint32_t)number);
}

// A new reference, or NULL with a sentence of what is right in *wanted.
static json_t *parse_value(enum argument_kind kind, const char *text, const char **wanted)
{
	uint64_t number;
	switch (kind) {
	case ARGUMENT_NUMBER:
		*wanted = "a number from 0";
		return parse_number(text, INT64_MAX, &number) ? json_integer((json_int_t)number)
							      : NULL;
	case ARGUMENT_SPI:
		*wanted = "an SPI such as 0xc1234567";
		return parse_spi(text);
	case ARGUMENT_DIRECTION:
		*wanted = "`in` or `out`";
		return strcmp(text, "in") == 0 || strcmp(text, "out") == 0 ? json_string(text)
									   : NULL;
	case ARGUMENT_UDP:
		*wanted = "two ports such as 4500:4500, or `none`";
		return parse_udp(text);
	case ARGUMENT_SELECTOR:
		*wanted = "two prefixes such as 10.0.0.0/8=192.168.192.0/26, and with "
			  "\",tcp\" or \",tcp,*=443\" behind them a protocol and ports";
		return parse_selector(text);
	case ARGUMENT_FLAG:
		return json_true();
	case ARGUMENT_TEXT:
	case ARGUMENT_LIST:
		break;
	}
	*wanted = "UTF-8 text that is not empty";
	return text[0] == '\0' ? NULL : json_string(text);
}

// ---- where they go ----

// The object that holds `path`'s last member, made when it isn't there; *last: that member.
static json_t *find_parent(json_t *object, const char *path, const char **last)
{
	const char *dot;
	while ((dot = strchr(path, '.')) != NULL) {
		char member[32];
		snprintf(member, sizeof(member), "%.*s", (int)(dot - path), path);
		if (json_object_get(object, member) == NULL)
			json_object_set_new(object, member, json_object());
		object = json_object_get(object, member);
		path = dot + 1;
	}
	*last = path;
	return object;
}

static enum exit_code set_argument(
	struct invocation *invocation, const struct argument *argument, const char *text)
{
	const char *wanted = "";
	json_t *value = parse_value(argument->kind, text, &wanted);
	if (value == NULL)
		return usage_error(
			invocation, "%s is `%s`, but has to be %s", argument->name, text, wanted);
	const char *member = argument->name;
	json_t *parent = argument->parameter == NULL ? invocation->own
						     : find_parent(invocation->parameters,
							       argument->parameter, &member);
	bool *given = &invocation->given[argument - invocation->command->arguments];
	if (argument->kind == ARGUMENT_SELECTOR || argument->kind == ARGUMENT_LIST) {
		if (!*given)
			json_object_set_new(parent, member, json_array());
		json_array_append_new(json_object_get(parent, member), value);
	} else if (*given) {
		json_decref(value);
		return usage_error(invocation, "%s is given twice", argument->name);
	} else {
		json_object_set_new(parent, member, value);
	}
	*given = true;
	return EXIT_DONE;
}

// ---- the line ----

static bool is_option(const struct argument *argument)
{
	return argument->name[0] == '-';
}

const struct argument global_options[] = {
	{.name = "--socket",
		.value = "PATH",
		.help = "the gateway's control socket; by default the variable ESPGW_SOCKET, "
			"or " ESPGW_CLIENT_SOCKET},
	{.name = "--timeout",
		.value = "SECONDS",
		.help = "how long to wait for an answer; by default 10"},
	{.name = "--json", .kind = ARGUMENT_FLAG, .help = "print the result as JSON"},
	{.name = "--help", .kind = ARGUMENT_FLAG, .help = "print help, also for one command"},
	{.name = "--version", .kind = ARGUMENT_FLAG, .help = "print the version of espctl"},
	{0},
};

static const struct argument *find_option(const struct argument *arguments, const char *name)
{
	for (const struct argument *a = arguments; a->name != NULL; a++)
		if (is_option(a) && strcmp(a->name, name) == 0)
			return a;
	return NULL;
}

static enum exit_code set_global(
	struct invocation *invocation, const struct argument *option, const char *value)
{
	uint64_t seconds;
	if (strcmp(option->name, "--json") == 0)
		invocation->json = true;
	else if (strcmp(option->name, "--help") == 0)
		invocation->help = true;
	else if (strcmp(option->name, "--version") == 0)
		invocation->version = true;
	else if (strcmp(option->name, "--socket") == 0)
		invocation->socket = value;
	else if (!parse_number(value, TIMEOUT_SECONDS_MAX, &seconds) || seconds == 0)
		return usage_error(invocation, "--timeout is `%s`, but has to be 1 to %d seconds",
			value, TIMEOUT_SECONDS_MAX);
	else
		invocation->timeout_ms = (int)seconds * 1000;
	return EXIT_DONE;
}

// Takes the option at argv[*next], `--name value` or `--name=value`, and moves *next behind it.
static enum exit_code take_option(struct invocation *invocation, int argc, char **argv, int *next)
{
	const char *text = argv[(*next)++];
	const char *value = strchr(text, '=');
	char name[32];
	snprintf(name, sizeof(name), "%.*s",
		value == NULL ? (int)sizeof(name) : (int)(value - text), text);
	if (strcmp(name, "-h") == 0)
		strcpy(name, "--help");
	else if (strcmp(name, "-V") == 0)
		strcpy(name, "--version");
	const struct argument *global = find_option(global_options, name);
	const struct argument *option = global;
	if (option == NULL && invocation->command != NULL)
		option = find_option(invocation->command->arguments, name);
	if (option == NULL)
		return usage_error(invocation, "there is no option %s here", name);
	if (option->kind == ARGUMENT_FLAG && value != NULL)
		return usage_error(invocation, "%s takes no value", name);
	if (option->kind == ARGUMENT_FLAG)
		value = "";
	else if (value != NULL)
		value++;
	else if (*next < argc)
		value = argv[(*next)++];
	else
		return usage_error(invocation, "%s needs a value: %s", name, option->value);
	return global != NULL ? set_global(invocation, global, value)
			      : set_argument(invocation, option, value);
}

// The command of this name; with `verb` NULL only one that has none.
static const struct command *find_command(const char *group, const char *verb)
{
	for (const struct command *c = commands; c->group != NULL; c++)
		if (strcmp(c->group, group) == 0 &&
			(verb == NULL ? c->verb == NULL
				      : c->verb != NULL && strcmp(c->verb, verb) == 0))
			return c;
	return NULL;
}

static bool is_group(const char *name)
{
	for (const struct command *c = commands; c->group != NULL; c++)
		if (strcmp(c->group, name) == 0)
			return true;
	return false;
}

static unsigned int least(unsigned int a, unsigned int b)
{
	return a < b ? a : b;
}

// How many letters have to be put in, taken out or changed to make one name of the other.
static unsigned int name_distance(const char *a, const char *b)
{
	unsigned int row[NAME_SIZE];
	size_t length = strlen(b);
	if (strlen(a) >= NAME_SIZE || length >= NAME_SIZE)
		return NAME_SIZE;
	for (size_t j = 0; j <= length; j++)
		row[j] = (unsigned int)j;
	for (size_t i = 0; a[i] != '\0'; i++) {
		unsigned int diagonal = row[0];
		row[0]++;
		for (size_t j = 0; j < length; j++) {
			unsigned int changed = diagonal + (a[i] != b[j]);
			diagonal = row[j + 1];
			row[j + 1] = least(changed, least(row[j], row[j + 1]) + 1);
		}
	}
	return row[length];
}

// The name of a command, or of a group where `typed` is one word, that was perhaps meant.
static bool nearest_command(const char *typed, char nearest[NAME_SIZE])
{
	bool words = strchr(typed, ' ') != NULL;
	unsigned int best = NAME_DISTANCE + 1;
	for (const struct command *c = commands; c->group != NULL; c++) {
		char name[NAME_SIZE];
		snprintf(name, sizeof(name), "%s%s%s", c->group,
			words && c->verb != NULL ? " " : "",
			words && c->verb != NULL ? c->verb : "");
		unsigned int distance = name_distance(typed, name);
		if (distance < best && distance < strlen(typed) / 2) {
			best = distance;
			strcpy(nearest, name);
		}
	}
	return best <= NAME_DISTANCE;
}

// What was typed is no command; with `verb` NULL it was one word.
static enum exit_code unknown_command(
	struct invocation *invocation, const char *group, const char *verb)
{
	if (verb == NULL && is_group(group)) {
		if (invocation->help) {
			invocation->group = group;
			return EXIT_DONE;
		}
		fprintf(stderr, "espctl: `%s` is not a whole command\n", group);
		help_print_group(stderr, group);
		return EXIT_USAGE;
	}
	char typed[NAME_SIZE], nearest[NAME_SIZE];
	snprintf(typed, sizeof(typed), "%s%s%s", group, verb == NULL ? "" : " ",
		verb == NULL ? "" : verb);
	if (nearest_command(typed, nearest))
		return usage_error(
			invocation, "there is no command `%s`; did you mean `%s`?", typed, nearest);
	if (!is_group(group))
		return usage_error(invocation, "there is no command `%s`", typed);
	fprintf(stderr, "espctl: there is no command `%s`\n", typed);
	help_print_group(stderr, group);
	return EXIT_USAGE;
}

static enum exit_code check_complete(const struct invocation *invocation)
{
	const struct command *command = invocation->command;
	int given = 0;
	for (int i = 0; command->arguments[i].name != NULL; i++) {
		const struct argument *argument = &command->arguments[i];
		bool here = invocation->given[i];
		if (!here && (argument->required || !is_option(argument)))
			return usage_error(
				invocation, "%s is missing: %s", argument->name, argument->help);
		for (int e = 0; e < 2 && command->either[e] != NULL; e++)
			given += here && strcmp(command->either[e], argument->name) == 0;
	}
	if (command->either[0] != NULL && given != 1)
		return usage_error(invocation, "give one of %s and %s", command->either[0],
			command->either[1]);
	return EXIT_DONE;
}

// The words after the command's name, in the order of its arguments.
static enum exit_code take_word(struct invocation *invocation, const char *word)
{
	const struct command *command = invocation->command;
	for (int i = 0; command->arguments[i].name != NULL; i++)
		if (!is_option(&command->arguments[i]) && !invocation->given[i])
			return set_argument(invocation, &command->arguments[i], word);
	return usage_error(invocation, "`%s` is too much", word);
}

// The words before the command is known, which is after one or two of them.
static enum exit_code take_name(struct invocation *invocation, const char **group, const char *word)
{
	const char *verb = *group == NULL ? NULL : word;
	if (*group == NULL && strcmp(word, "help") == 0) {
		invocation->help = true;
		return EXIT_DONE;
	}
	if (*group == NULL)
		*group = word;
	invocation->command = find_command(*group, verb);
	if (invocation->command == NULL && verb != NULL)
		return unknown_command(invocation, *group, verb);
	return EXIT_DONE;
}

enum exit_code arguments_parse(struct invocation *invocation, int argc, char **argv)
{
	const char *group = NULL;
	bool options = true; // until a word of two dashes
	enum exit_code code = EXIT_DONE;
	for (int next = 1; next < argc && code == EXIT_DONE;) {
		const char *word = argv[next];
		if (options && word[0] == '-' && word[1] != '\0' && strcmp(word, "--") != 0) {
			code = take_option(invocation, argc, argv, &next);
			continue;
		}
		next++;
		if (options && strcmp(word, "--") == 0)
			options = false;
		else if (invocation->command == NULL)
			code = take_name(invocation, &group, word);
		else
			code = take_word(invocation, word);
	}
	if (code != EXIT_DONE || invocation->version)
		return code;
	if (invocation->command == NULL && group != NULL)
		return unknown_command(invocation, group, NULL);
	if (invocation->command == NULL || invocation->help)
		return EXIT_DONE;
	return check_complete(invocation);
}
