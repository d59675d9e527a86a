// SPDX-License-Identifier: BSD-3-Clause
// Copyright (c) 2026 the espgw authors

#include <arpa/inet.h>
#include <getopt.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "probes.h"

static const char usage[] =
	"Usage: probes send --to ADDRESS:PORT [OPTIONS] [--to ADDRESS:PORT ...]\n"
	"       probes receive --port PORT [OPTIONS]\n"
	"\n"
	"Sends numbered UDP packets at a steady rate, or tells which of them came. Both ends print "
	"one\n"
	"line of JSON at their end, which SIGINT and SIGTERM bring about early.\n"
	"\n"
	"send:\n"
	"  --to ADDRESS:PORT  where to; an IPv6 address in brackets. Each --to begins a stream\n"
	"  --stream ID        number of this stream; by default 1, 2, ... in order\n"
	"  --source ADDRESS   source address of this stream\n"
	"  --rate N           packets a second of each stream; by default 1000\n"
	"  --seconds S        how long; by default until a signal\n"
	"  --size BYTES       of the UDP payload, 32 to 65507; by default 64\n"
	"  Result per stream: sent; unsent (behind the rate at the end); failed_calls (the kernel "
	"took\n"
	"  nothing, and it was tried again).\n"
	"\n"
	"receive:\n"
	"  --port PORT        UDP port, on all addresses\n"
	"  --idle S           ends when nothing has come for so long after the first; by default "
	"2\n"
	"  --first S          ends when nothing at all has come for so long; by default 60\n"
	"  Says \"listening\" on standard error when it does. Result: lost_at_socket (came, but "
	"this\n"
	"  program read too slowly); per stream received, duplicated, reordered, highest number,\n"
	"  missing (below the highest) with the first ranges and when, longest gap between two, "
	"longest\n"
	"  delay from sending. Times are seconds since 1970.\n";

volatile bool probes_stopping;

static void stop(int number)
{
	(void)number;
	probes_stopping = true;
}

static _Noreturn void fail(const char *what, const char *value)
{
	fprintf(stderr, "probes: %s %s: not valid; see probes --help\n", what, value);
	exit(2);
}

static double number_parse(const char *option, const char *text, double least, double most)
{
	char *end;
	double value = strtod(text, &end);

	if (end == text || *end != '\0' || !(value >= least && value <= most))
		fail(option, text);
	return value;
}

static bool address_parse(const char *text, uint16_t port, struct sockaddr_storage *address)
{
	struct sockaddr_in *ipv4 = (struct sockaddr_in *)address;
	struct sockaddr_in6 *ipv6 = (struct sockaddr_in6 *)address;

	memset(address, 0, sizeof(*address));
	if (inet_pton(AF_INET, text, &ipv4->sin_addr) == 1) {
		ipv4->sin_family = AF_INET;
		ipv4->sin_port = htons(port);
		return true;
	}
	if (inet_pton(AF_INET6, text, &ipv6->sin6_addr) == 1) {
		ipv6->sin6_family = AF_INET6;
		ipv6->sin6_port = htons(port);
		return true;
	}
	return false;
}

// ADDRESS:PORT or [ADDRESS]:PORT
static void destination_parse(const char *text, struct sockaddr_storage *address)
{
	const char *colon = strrchr(text, ':');
	char host[INET6_ADDRSTRLEN + 2] = "";
	size_t length = colon != NULL ? (size_t)(colon - text) : 0;
	char *begin = host;

	if (length == 0 || length >= sizeof(host))
		fail("--to", text);
	memcpy(host, text, length);
	if (host[0] == '[' && host[length - 1] == ']') {
		host[length - 1] = '\0';
		begin++;
	}
	if (!address_parse(
		    begin, (uint16_t)number_parse("--to", colon + 1, 1, UINT16_MAX), address))
		fail("--to", text);
}

static void stream_add(struct send_options *options, const char *to)
{
	struct stream_to_send *stream = &options->streams[options->stream_count];

	if (options->stream_count == PROBES_STREAMS)
		fail("--to", "(too many)");
	options->stream_count++;
	stream->id = options->stream_count;
	destination_parse(to, &stream->to);
}

static int send_main(int argc, char **argv)
{
	static const struct option known[] = {
		{"to", required_argument, NULL, 't'},
		{"stream", required_argument, NULL, 'i'},
		{"source", required_argument, NULL, 's'},
		{"rate", required_argument, NULL, 'r'},
		{"seconds", required_argument, NULL, 'e'},
		{"size", required_argument, NULL, 'b'},
		{0},
	};
	static struct send_options options = {.rate = 1000, .size = 64};
	struct stream_to_send *stream = NULL;
	int option;

	while ((option = getopt_long(argc, argv, "", known, NULL)) != -1) {
		if (strchr("is", option) != NULL && stream == NULL)
			fail("--to", "(comes before --stream and --source)");
		if (option == 't') {
			stream_add(&options, optarg);
			stream = &options.streams[options.stream_count - 1];
		} else if (option == 'i') {
			stream->id = (uint64_t)number_parse("--stream", optarg, 0, UINT32_MAX);
		} else if (option == 's') {
			if (!address_parse(optarg, 0, &stream->from))
				fail("--source", optarg);
		} else if (option == 'r') {
			options.rate = number_parse("--rate", optarg, 0.1, 1e7);
		} else if (option == 'e') {
			options.seconds = number_parse("--seconds", optarg, 0.001, 1e6);
		} else if (option == 'b') {
			options.size = (unsigned)number_parse(
				"--size", optarg, sizeof(struct probe), 65507);
		} else {
			return 2;
		}
	}
	if (optind < argc || stream == NULL)
		fail("send", optind < argc ? argv[optind] : "(without --to)");
	return probes_send(&options);
}

static int receive_main(int argc, char **argv)
{
	static const struct option known[] = {
		{"port", required_argument, NULL, 'p'},
		{"idle", required_argument, NULL, 'i'},
		{"first", required_argument, NULL, 'f'},
		{0},
	};
	struct receive_options options = {.idle = 2, .first = 60};
	int option;

	while ((option = getopt_long(argc, argv, "", known, NULL)) != -1) {
		if (option == 'p')
			options.port = (uint16_t)number_parse("--port", optarg, 1, UINT16_MAX);
		else if (option == 'i')
			options.idle = number_parse("--idle", optarg, 0.001, 1e6);
		else if (option == 'f')
			options.first = number_parse("--first", optarg, 0.001, 1e6);
		else
			return 2;
	}
	if (optind < argc || options.port == 0)
		fail("receive", optind < argc ? argv[optind] : "(without --port)");
	return probes_receive(&options);
}

int main(int argc, char **argv)
{
	const struct sigaction on_signal = {.sa_handler = stop};

	sigaction(SIGINT, &on_signal, NULL);
	sigaction(SIGTERM, &on_signal, NULL);
	if (argc >= 2 && strcmp(argv[argc - 1], "--help") == 0) {
		fputs(usage, stdout);
		return EXIT_SUCCESS;
	}
	if (argc >= 2 && strcmp(argv[1], "send") == 0)
		return send_main(argc - 1, argv + 1);
	if (argc >= 2 && strcmp(argv[1], "receive") == 0)
		return receive_main(argc - 1, argv + 1);
	fputs(usage, stderr);
	return 2;
}
