// SPDX-License-Identifier: BSD-3-Clause
// Copyright (c) 2026 the espgw authors

// espctl: the gateway's control socket for people and scripts.

#include <stdio.h>
#include <stdlib.h>

#include "command.h"

#define TIMEOUT_MS 10000

static enum exit_code run(struct invocation *invocation)
{
	const struct command *command = invocation->command;
	enum exit_code code = command->connects_itself ? EXIT_DONE : run_connect(invocation);
	if (code == EXIT_DONE)
		code = command->run != NULL ? command->run(invocation) : run_call(invocation);
	espgw_client_close(invocation->client);
	return code;
}

int main(int argc, char **argv)
{
	const char *variable = getenv("ESPGW_SOCKET");
	struct invocation invocation = {
		.socket = variable != NULL && variable[0] != '\0' ? variable : ESPGW_CLIENT_SOCKET,
		.timeout_ms = TIMEOUT_MS,
		.parameters = json_object(),
		.own = json_object(),
	};
	enum exit_code code = arguments_parse(&invocation, argc, argv);
	if (code == EXIT_DONE && invocation.version) {
		code = run_version(&invocation);
	} else if (code == EXIT_DONE && invocation.group != NULL) {
		help_print_group(stdout, invocation.group);
	} else if (code == EXIT_DONE && invocation.help && invocation.command != NULL) {
		help_print_command(invocation.command);
	} else if (code == EXIT_DONE && invocation.command == NULL) {
		// Help that was asked for is a result; else it tells what is missing.
		help_print_overview(invocation.help ? stdout : stderr);
		code = invocation.help ? EXIT_DONE : EXIT_USAGE;
	} else if (code == EXIT_DONE) {
		code = run(&invocation);
	}
	json_decref(invocation.parameters);
	json_decref(invocation.own);
	return code;
}
