// SPDX-License-Identifier: BSD-3-Clause
// Copyright (c) 2026 the espgw authors

#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bench.h"

#define EXIT_USAGE     2
#define ROUNDS_DEFAULT 1001
#define ROUNDS_MAX     100000 // the SAs' sequence numbers last longer
#define SECONDS_MAX    3600

const char *const bench_paths[BENCH_PATHS] = {"encap", "decap"};
const unsigned int bench_bursts[BENCH_BURSTS] = {32, 256};

static const char help[] =
	"Usage: espgw-bench [OPTION]...\n"
	"\n"
	"Measures what the gateway costs: cycles of the TSC per packet from a received Ethernet\n"
	"frame to a frame ready to be sent, without a NIC, beside ipsec-mb's own AES-256-GCM call\n"
	"over the same payloads in the same run. Needs root: it works in a network namespace of\n"
	"its own. Keep the core free of other work.\n"
	"\n"
	"  --path PATH      encap or decap (default: both)\n"
	"  --size SIZE      inner IP packet: 64, 256, 512, 1024, 1400 or imix (default: all)\n"
	"  --burst BURST    32 or 256 (default: both); the gateway takes 256 as four calls of 64\n"
	"  --rounds N       rounds of each line of the table (default: 1001)\n"
	"  --seconds S      end after about so long, with at least 11 rounds of each line\n"
	"  --core N         core to measure on (default: the last one)\n"
	"  --hugepages      take memory from hugepages\n"
	"  --buffer-size N  bytes of a packet buffer, headroom included (default: as few as the\n"
	"                   packets need; the gateway's own default is 2176)\n"
	"  --json           print JSON\n"
	"  -h, --help       this text\n"
	"  -V, --version    the version\n"
	"\n"
	"--path, --size and --burst may be given several times.\n"
	"\n"
	"Examples:\n"
	"  espgw-bench\n"
	"  espgw-bench --path encap --size 64 --burst 32\n"
	"  espgw-bench --seconds 5 --json\n"
	"\n"
	"Exit status: 0 measured, and every packet came out right; 1 not so; 2 the command line "
	"is\n"
	"wrong.\n";

enum {
	OPTION_PATH = 256,
	OPTION_SIZE,
	OPTION_BURST,
	OPTION_ROUNDS,
	OPTION_SECONDS,
	OPTION_CORE,
	OPTION_HUGEPAGES,
	OPTION_BUFFER_SIZE,
	OPTION_JSON
};

static const struct option long_options[] = {
	{"path", required_argument, NULL, OPTION_PATH},
	{"size", required_argument, NULL, OPTION_SIZE},
	{"burst", required_argument, NULL, OPTION_BURST},
	{"rounds", required_argument, NULL, OPTION_ROUNDS},
	{"seconds", required_argument, NULL, OPTION_SECONDS},
	{"core", required_argument, NULL, OPTION_CORE},
	{"hugepages", no_argument, NULL, OPTION_HUGEPAGES},
	{"buffer-size", required_argument, NULL, OPTION_BUFFER_SIZE},
	{"json", no_argument, NULL, OPTION_JSON},
	{"help", no_argument, NULL, 'h'},
	{"version", no_argument, NULL, 'V'},
	{0},
};

// The bit of a name in a list; 0 when it is not there.
static unsigned int find_name(const char *const *names, unsigned int count, const char *name)
{
	for (unsigned int i = 0; i < count; i++)
		if (strcmp(names[i], name) == 0)
			return 1u << i;
	return 0;
}

static bool take_name(
	const char *option, const char *const *names, unsigned int count, unsigned int *chosen)
{
	unsigned int bit = find_name(names, count, optarg);
	*chosen |= bit;
	if (bit != 0)
		return true;
	fprintf(stderr, "espgw-bench: --%s %s: it must be", option, optarg);
	for (unsigned int i = 0; i < count; i++)
		fprintf(stderr, "%s %s", i == 0 ? "" : i + 1 == count ? " or" : ",", names[i]);
	fputc('\n', stderr);
	return false;
}

static bool take_number(const char *option, double minimum, double maximum, double *number)
{
	char *end;
	errno = 0;
	*number = strtod(optarg, &end);
	if (errno == 0 && end != optarg && *end == '\0' && *number >= minimum && *number <= maximum)
		return true;
	fprintf(stderr, "espgw-bench: --%s %s: it must be a number from %g to %g\n", option, optarg,
		minimum, maximum);
	return false;
}

static bool take(int option, struct bench_options *options)
{
	static const char *const bursts[BENCH_BURSTS] = {"32", "256"};
	double number;
	switch (option) {
	case OPTION_PATH:
		return take_name("path", bench_paths, BENCH_PATHS, &options->paths);
	case OPTION_SIZE:
		return take_name("size", bench_sizes, BENCH_SIZES, &options->sizes);
	case OPTION_BURST:
		return take_name("burst", bursts, BENCH_BURSTS, &options->bursts);
	case OPTION_ROUNDS:
		if (!take_number("rounds", 1, ROUNDS_MAX, &number))
			return false;
		options->limits.rounds = (unsigned int)number;
		return true;
	case OPTION_SECONDS:
		options->limits.rounds = ROUNDS_MAX;
		return take_number("seconds", 0.01, SECONDS_MAX, &options->limits.seconds);
	case OPTION_CORE:
		if (!take_number("core", 0, 1023, &number))
			return false;
		options->core = (int)number;
		return true;
	case OPTION_HUGEPAGES:
		options->hugepages = true;
		return true;
	case OPTION_BUFFER_SIZE:
		if (!take_number("buffer-size", 1, UINT16_MAX, &number))
			return false;
		options->limits.buffer_size = (uint32_t)number;
		return true;
	case OPTION_JSON:
		options->json = true;
		return true;
	default: // getopt has said what is wrong
		return false;
	}
}

static struct bench_options stop_with(int status)
{
	return (struct bench_options){.exit = true, .exit_status = status};
}

struct bench_options bench_options_parse(int argc, char **argv)
{
	struct bench_options options = {.core = -1, .limits.rounds = ROUNDS_DEFAULT};
	int option;
	while ((option = getopt_long(argc, argv, "hV", long_options, NULL)) != -1) {
		if (option == 'h' || option == 'V') {
			fputs(option == 'h' ? help : "espgw-bench " ESPGW_VERSION "\n", stdout);
			return stop_with(EXIT_SUCCESS);
		}
		if (!take(option, &options)) {
			fputs("Try espgw-bench --help.\n", stderr);
			return stop_with(EXIT_USAGE);
		}
	}
	if (optind < argc) {
		fprintf(stderr, "espgw-bench: %s: unknown argument\nTry espgw-bench --help.\n",
			argv[optind]);
		return stop_with(EXIT_USAGE);
	}
	if (options.paths == 0)
		options.paths = (1u << BENCH_PATHS) - 1;
	if (options.sizes == 0)
		options.sizes = (1u << BENCH_SIZES) - 1;
	if (options.bursts == 0)
		options.bursts = (1u << BENCH_BURSTS) - 1;
	return options;
}
