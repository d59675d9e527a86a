// SPDX-License-Identifier: BSD-3-Clause
// Copyright (c) 2026 the espgw authors

#include "options.h"

#include <getopt.h>
#include <stdio.h>

#define DEFAULT_FILE "/etc/espgw/espgw.conf"
#define EXIT_USAGE   2

static const char help[] =
	"Usage: espgw [--config FILE]\n"
	"       espgw --check FILE\n"
	"       espgw --remove-interfaces [--config FILE]\n"
	"\n"
	"The ESP gateway: carries AES-256-GCM ESP tunnels on DPDK ports. Runs in the foreground "
	"and\n"
	"stops on SIGTERM or SIGINT. Keys come over the control socket: see espctl --help.\n"
	"\n"
	"  -c, --config FILE        configuration (default: " DEFAULT_FILE ")\n"
	"      --check FILE         check the configuration, print every error, start nothing\n"
	"      --remove-interfaces  remove the TAP and TUN interfaces that the configuration "
	"names;\n"
	"                           a gateway that stops leaves them, so that their addresses "
	"stay\n"
	"  -h, --help               this text\n"
	"  -V, --version            the version\n"
	"\n"
	"Examples:\n"
	"  espgw --check /etc/espgw/espgw.conf\n"
	"  espgw --config /etc/espgw/espgw.conf\n"
	"  espctl tunnel list\n"
	"\n"
	"Exit status: 0 done or stopped by a signal; 1 it could not start, or the configuration "
	"has\n"
	"errors; 2 the command line is wrong.\n";

enum { OPTION_CHECK = 256, OPTION_REMOVE };

static const struct option long_options[] = {
	{"config", required_argument, NULL, 'c'},
	{"check", required_argument, NULL, OPTION_CHECK},
	{"remove-interfaces", no_argument, NULL, OPTION_REMOVE},
	{"help", no_argument, NULL, 'h'},
	{"version", no_argument, NULL, 'V'},
	{0},
};

static struct options stop_with(int status)
{
	return (struct options){.action = ACTION_EXIT, .exit_status = status};
}

struct options options_parse(int argc, char **argv)
{
	struct options options = {.action = ACTION_RUN, .file = DEFAULT_FILE};
	int option;
	while ((option = getopt_long(argc, argv, "c:hV", long_options, NULL)) != -1) {
		switch (option) {
		case OPTION_CHECK:
			options.action = ACTION_CHECK;
			options.file = optarg;
			break;
		case 'c':
			options.file = optarg;
			break;
		case OPTION_REMOVE:
			options.action = ACTION_REMOVE_INTERFACES;
			break;
		case 'h':
			fputs(help, stdout);
			return stop_with(0);
		case 'V':
			puts("espgw " ESPGW_VERSION);
			return stop_with(0);
		default: // getopt has said what is wrong
			fputs("Try espgw --help.\n", stderr);
			return stop_with(EXIT_USAGE);
		}
	}
	if (optind == argc)
		return options;
	fprintf(stderr, "espgw: %s: no such argument. Try espgw --help.\n", argv[optind]);
	return stop_with(EXIT_USAGE);
}
