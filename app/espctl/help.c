// SPDX-License-Identifier: BSD-3-Clause
// Copyright (c) 2026 the espgw authors

#include <string.h>

#include "command.h"
#include "table.h"

#define NAME_WIDTH  27 // of commands and options in the lists
#define INDENT      2
#define TEXT_COLUMN (INDENT + NAME_WIDTH + 1)

static bool is_option(const struct argument *argument)
{
	return argument->name[0] == '-';
}

// One entry of a list: a name, and what it is about in lines that fit.
static void print_entry(FILE *stream, const char *name, const char *text)
{
	fprintf(stream, "%*s%-*s ", INDENT, "", NAME_WIDTH, name);
	print_wrapped(stream, text, TEXT_COLUMN, TEXT_COLUMN);
}

static void name_command(char *name, size_t size, const struct command *command)
{
	snprintf(name, size, "%s%s%s", command->group, command->verb == NULL ? "" : " ",
		command->verb == NULL ? "" : command->verb);
}

static void print_commands(FILE *stream, const char *group)
{
	for (const struct command *c = commands; c->group != NULL; c++) {
		if (group != NULL && strcmp(c->group, group) != 0)
			continue;
		char name[64];
		name_command(name, sizeof(name), c);
		print_entry(stream, name, c->summary);
	}
}

static void print_arguments(
	FILE *stream, const char *heading, const struct argument *arguments, bool options)
{
	bool any = false;
	for (const struct argument *a = arguments; a->name != NULL; a++) {
		if (is_option(a) != options)
			continue;
		if (!any)
			fprintf(stream, "\n%s:\n", heading);
		any = true;
		char name[64];
		snprintf(name, sizeof(name), "%s%s%s", a->name, a->value == NULL ? "" : " ",
			a->value == NULL ? "" : a->value);
		print_entry(stream, name, a->help);
	}
}

void help_print_overview(FILE *stream)
{
	fputs("Usage: espctl [--socket PATH] [--json] COMMAND ...\n\n"
	      "Looks at a running espgw gateway and changes it, through its control socket.\n\n"
	      "Commands (`espctl COMMAND --help` or `espctl help COMMAND` tells more):\n",
		stream);
	print_commands(stream, NULL);
	print_arguments(stream, "Options of all commands", global_options, true);
	fputs("\nExit codes:\n", stream);
	print_entry(stream, "0", "done");
	print_entry(stream, "1", "the gateway said no");
	print_entry(stream, "2", "the command line, or a file that it names, is wrong");
	print_entry(stream, "3", "no gateway at the socket, or no answer from it");
}

bool help_print_group(FILE *stream, const char *group)
{
	bool known = false;
	for (const struct command *c = commands; c->group != NULL; c++)
		known |= strcmp(c->group, group) == 0;
	if (!known)
		return false;
	fputs("Commands:\n", stream);
	print_commands(stream, group);
	return true;
}

// Paragraphs that begin with a blank are printed as they are.
static void print_details(const char *details)
{
	while (*details != '\0') {
		char paragraph[1024];
		size_t length = strcspn(details, "\n");
		snprintf(paragraph, sizeof(paragraph), "%.*s", (int)length, details);
		if (paragraph[0] == ' ')
			puts(paragraph);
		else
			print_wrapped(stdout, paragraph, 0, 0);
		details += length + (details[length] == '\n');
	}
}

// " (--one VALUE | --other)": the options of which exactly one is to be given.
static void print_either(const struct command *command)
{
	for (int e = 0; e < 2; e++) {
		const struct argument *a = command->arguments;
		while (strcmp(a->name, command->either[e]) != 0)
			a++;
		printf("%s%s%s%s", e == 0 ? " (" : " | ", a->name, a->value == NULL ? "" : " ",
			a->value == NULL ? "" : a->value);
	}
	putchar(')');
}

void help_print_command(const struct command *command)
{
	char name[64];
	name_command(name, sizeof(name), command);
	printf("Usage: espctl %s", name);
	bool options = false;
	for (const struct argument *a = command->arguments; a->name != NULL; a++) {
		if (!is_option(a))
			printf(" %s", a->name);
		else if (a->required)
			printf(" %s %s", a->name, a->value);
		else
			options = true;
	}
	if (command->either[0] != NULL)
		print_either(command);
	printf("%s\n\n%s: ", options ? " [OPTION]..." : "", name);
	print_wrapped(stdout, command->summary, (unsigned int)strlen(name) + 2, 0);
	if (command->details != NULL) {
		putchar('\n');
		print_details(command->details);
	}
	print_arguments(stdout, "Arguments", command->arguments, false);
	print_arguments(stdout, "Options", command->arguments, true);
	print_arguments(stdout, "Options of all commands", global_options, true);
	printf("\nExamples:\n%s", command->examples);
}
