// SPDX-License-Identifier: BSD-3-Clause
// Copyright (c) 2026 the espgw authors

#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bench.h"
#include "config/config.h"
#include "route/route.h"

#define EXIT_USAGE     2
#define ROUNDS_DEFAULT 1001
#define ROUNDS_MAX     20000 // with all rows, the SAs' sequence numbers last longer
#define SECONDS_MAX    3600
#define CORE_MAX       1023

const char *const bench_paths[BENCH_PATHS] = {"encap", "decap", "both"};
const unsigned int bench_bursts[BENCH_BURSTS] = {32, 256};
const char *const bench_ciphers[BENCH_CIPHERS] = {"burst", "ipsec-mb"};
const char *const bench_ways[BENCH_WAYS] = {
	"espgw/burst", "espgw/ipsec-mb", "rte_ipsec", "raw/burst", "raw/ipsec-mb"};

static const char help[] =
	"Usage: espgw-bench [OPTION]...\n"
	"\n"
	"Measures what the gateway costs: cycles of the TSC per packet from a received Ethernet\n"
	"frame to a frame ready to be sent, without a NIC, beside AES-256-GCM alone over the same\n"
	"payloads and beside DPDK's rte_ipsec on the same packets, in turns of one run. Needs\n"
	"root: it works in a network namespace of its own. Keep the core free of other work.\n"
	"\n"
	"  --path PATH      encap, decap or both: a burst is encapsulated, then one is\n"
	"                   decapsulated, and the cycles are those of two packets (default:\n"
	"                   encap and decap)\n"
	"  --size SIZE      inner IP packet: 64, 256, 512, 1024, 1400 or imix (default: all)\n"
	"  --burst BURST    32 or 256 (default: both); the gateway takes 256 as four calls of 64\n"
	"  --crypto CIPHER  burst or ipsec-mb (default: those that the CPU can do)\n"
	"  --no-rte-ipsec   leave DPDK's rte_ipsec out\n"
	"  --avx2           the ciphers alone, as on a CPU that has VAES but no AVX-512\n"
	"  --workers N      1 or 2 (default: 1), each on a core of its own; without rte_ipsec\n"
	"  --sas N          SAs each way, 1 to 10000 (default: 1); packets use them at random;\n"
	"                   each has a tunnel of its own\n"
	"  --routes N       routes to the far side, 10 to 1000000 (default: 10, or as many as\n"
	"                   SAs); packets take them at random\n"
	"  --shared N       tunnels that share the flows of each route, 1 to 64 and no more than\n"
	"                   SAs (default: 1)\n"
	"  --cold           so many packets that they do not fit in the L2 cache\n"
	"  --cores          instead: what two workers on two cores cost each other, in which\n"
	"                   order they send packets of one SA, and one inbound SA shared by both\n"
	"  --rounds N       rounds of each row (default: 1001)\n"
	"  --seconds S      end after about so long, with at least 11 rounds of each row\n"
	"  --allow-noise    print rows (with --cores: figures) whose rounds differ too much, too\n"
	"  --core N         core to measure on (default: the last one); a second worker takes the\n"
	"                   last of the others\n"
	"  --hugepages      take memory from hugepages\n"
	"  --buffer-size N  bytes of a packet buffer, headroom included (default: as few as the\n"
	"                   packets need; the gateway's own default is 2176)\n"
	"  --json           print JSON\n"
	"  -h, --help       this text\n"
	"  -V, --version    the version\n"
	"\n"
	"--path, --size, --burst and --crypto may be given several times.\n"
	"\n"
	"Examples:\n"
	"  espgw-bench\n"
	"  espgw-bench --path encap --size 64 --burst 32\n"
	"  espgw-bench --path both --sas 1000 --routes 100000 --cold\n"
	"  espgw-bench --seconds 5 --json\n"
	"\n"
	"Exit status: 0 measured, and every packet came out right; 1 not so; 2 the command line "
	"is\n"
	"wrong; 3 some rows (with --cores: figures) are too noisy to be reported: the middle half "
	"of\n"
	"their rounds spreads over more than 10 % of the median.\n";

enum {
	OPTION_PATH = 256,
	OPTION_SIZE,
	OPTION_BURST,
	OPTION_CRYPTO,
	OPTION_NO_RTE_IPSEC,
	OPTION_AVX2,
	OPTION_WORKERS,
	OPTION_SAS,
	OPTION_ROUTES,
	OPTION_SHARED,
	OPTION_COLD,
	OPTION_CORES,
	OPTION_ROUNDS,
	OPTION_SECONDS,
	OPTION_ALLOW_NOISE,
	OPTION_CORE,
	OPTION_HUGEPAGES,
	OPTION_BUFFER_SIZE,
	OPTION_JSON
};

static const struct option long_options[] = {
	{"path", required_argument, NULL, OPTION_PATH},
	{"size", required_argument, NULL, OPTION_SIZE},
	{"burst", required_argument, NULL, OPTION_BURST},
	{"crypto", required_argument, NULL, OPTION_CRYPTO},
	{"no-rte-ipsec", no_argument, NULL, OPTION_NO_RTE_IPSEC},
	{"avx2", no_argument, NULL, OPTION_AVX2},
	{"workers", required_argument, NULL, OPTION_WORKERS},
	{"sas", required_argument, NULL, OPTION_SAS},
	{"routes", required_argument, NULL, OPTION_ROUTES},
	{"shared", required_argument, NULL, OPTION_SHARED},
	{"cold", no_argument, NULL, OPTION_COLD},
	{"cores", no_argument, NULL, OPTION_CORES},
	{"rounds", required_argument, NULL, OPTION_ROUNDS},
	{"seconds", required_argument, NULL, OPTION_SECONDS},
	{"allow-noise", no_argument, NULL, OPTION_ALLOW_NOISE},
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
	fprintf(stderr, "espgw-bench: --%s %s: it must be a number from %.10g to %.10g\n", option,
		optarg, minimum, maximum);
	return false;
}

static bool take_count(
	const char *option, unsigned int minimum, unsigned int maximum, unsigned int *count)
{
	double number;
	if (!take_number(option, minimum, maximum, &number))
		return false;
	*count = (unsigned int)number;
	return true;
}

static bool take_choice(int option, struct bench_options *options)
{
	static const char *const bursts[BENCH_BURSTS] = {"32", "256"};
	switch (option) {
	case OPTION_PATH:
		return take_name("path", bench_paths, BENCH_PATHS, &options->paths);
	case OPTION_SIZE:
		return take_name("size", bench_sizes, BENCH_SIZES, &options->sizes);
	case OPTION_BURST:
		return take_name("burst", bursts, BENCH_BURSTS, &options->bursts);
	case OPTION_CRYPTO:
		return take_name("crypto", bench_ciphers, BENCH_CIPHERS, &options->ciphers);
	default: // getopt has said what is wrong
		return false;
	}
}

static bool take_value(int option, struct bench_options *options)
{
	unsigned int core;
	switch (option) {
	case OPTION_WORKERS:
		return take_count("workers", 1, BENCH_WORKERS_MAX, &options->workers);
	case OPTION_SAS:
		return take_count("sas", 1, BENCH_SAS_MAX, &options->sas);
	case OPTION_ROUTES:
		return take_count("routes", BENCH_ROUTES_MIN, BENCH_ROUTES_MAX, &options->routes);
	case OPTION_SHARED:
		return take_count("shared", 1, ROUTE_SHARES_MAX, &options->shared);
	case OPTION_ROUNDS:
		return take_count("rounds", 1, ROUNDS_MAX, &options->rounds);
	case OPTION_SECONDS:
		options->rounds = ROUNDS_MAX;
		return take_number("seconds", 0.01, SECONDS_MAX, &options->seconds);
	case OPTION_CORE:
		if (!take_count("core", 0, CORE_MAX, &core))
			return false;
		options->core = (int)core;
		return true;
	case OPTION_BUFFER_SIZE:
		return take_count("buffer-size", 1, UINT16_MAX, &options->buffer_size);
	default:
		return take_choice(option, options);
	}
}

static bool take(int option, struct bench_options *options)
{
	switch (option) {
	case OPTION_NO_RTE_IPSEC:
		options->rte_ipsec = false;
		return true;
	case OPTION_AVX2:
		options->avx2 = true;
		return true;
	case OPTION_COLD:
		options->cold = true;
		return true;
	case OPTION_CORES:
		options->two_cores = true;
		options->workers = BENCH_WORKERS_MAX;
		return true;
	case OPTION_ALLOW_NOISE:
		options->allow_noise = true;
		return true;
	case OPTION_HUGEPAGES:
		options->hugepages = true;
		return true;
	case OPTION_JSON:
		options->json = true;
		return true;
	default:
		return take_value(option, options);
	}
}

// What was not given; and what does not go together.
static bool complete(struct bench_options *options)
{
	if (options->paths == 0)
		options->paths = 1u << BENCH_ENCAP | 1u << BENCH_DECAP;
	if (options->sizes == 0)
		options->sizes = (1u << BENCH_SIZES) - 1;
	if (options->bursts == 0)
		options->bursts = (1u << BENCH_BURSTS) - 1;
	if (options->routes == 0)
		options->routes = RTE_MAX(options->sas, (unsigned int)BENCH_ROUTES_MIN);
	if (options->routes < options->sas) {
		fprintf(stderr, "espgw-bench: --routes %u: fewer than SAs (%u)\n", options->routes,
			options->sas);
		return false;
	}
	if (options->shared > options->sas) {
		fprintf(stderr, "espgw-bench: --shared %u: more than SAs (%u)\n", options->shared,
			options->sas);
		return false;
	}
	if (options->avx2 && options->two_cores) {
		fputs("espgw-bench: --avx2: --cores measures no cipher alone\n", stderr);
		return false;
	}
	if (options->avx2 && (options->sas != 1 || options->routes > BENCH_ROUTES_MIN ||
				     options->shared != 1 || options->ciphers != 0)) {
		fputs("espgw-bench: --avx2: both ciphers are measured, with one key and no "
		      "gateway: not with --crypto, --sas, --routes or --shared\n",
			stderr);
		return false;
	}
	// Of workers, only one thread at a time may use an inbound SA of its.
	if (options->workers > 1 || options->avx2)
		options->rte_ipsec = false;
	if (options->cold && options->sas < options->workers && !options->two_cores) {
		fprintf(stderr, "espgw-bench: --cold: two workers need two SAs, or the packets of "
				"one are too old for the window\n");
		return false;
	}
	return true;
}

static struct bench_options stop_with(int status)
{
	return (struct bench_options){.exit = true, .exit_status = status};
}

struct bench_options bench_options_parse(int argc, char **argv)
{
	struct bench_options options = {.core = -1,
		.workers = 1,
		.sas = 1,
		.shared = 1,
		.rte_ipsec = true,
		.rounds = ROUNDS_DEFAULT};
	bool right = true;
	int option;
	while (right && (option = getopt_long(argc, argv, "hV", long_options, NULL)) != -1) {
		if (option == 'h' || option == 'V') {
			fputs(option == 'h' ? help : "espgw-bench " ESPGW_VERSION "\n", stdout);
			return stop_with(EXIT_SUCCESS);
		}
		right = take(option, &options);
	}
	if (right && optind < argc) {
		fprintf(stderr, "espgw-bench: %s: unknown argument\n", argv[optind]);
		right = false;
	}
	if (right && complete(&options))
		return options;
	fputs("Try espgw-bench --help.\n", stderr);
	return stop_with(EXIT_USAGE);
}
