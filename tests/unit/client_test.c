// SPDX-License-Identifier: BSD-3-Clause
// Copyright (c) 2026 the espgw authors

// The client library against a scripted gateway: a thread at the other end of a socket pair that
// reads and writes what its script says, and keeps the requests for the test to look at.

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <poll.h>
#include <pthread.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "client/client.h"

#define TIMEOUT_MS 3000
#define HELLO                                                                            \
	"{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":{\"protocol\":1,\"server\":\"espgw\"," \
	"\"version\":\"0.1.0\",\"epoch\":\"00112233445566aa\",\"name\":\"gw\"}}\n"
#define RESULT(id, result) "{\"jsonrpc\":\"2.0\",\"id\":" #id ",\"result\":" result "}\n"
#define EVENT(name) \
	"{\"jsonrpc\":\"2.0\",\"method\":\"event\",\"params\":{\"event\":\"" name "\"}}\n"

// ---- the gateway ----

enum act {
	ACT_END,
	ACT_READ,   // a request line, kept
	ACT_WRITE,  // text
	ACT_SLOWLY, // text, one byte at a time
	ACT_REPEAT, // text, `number` times
	ACT_FILL,   // `number` KiB of 'x' without a line feed
	ACT_WAIT,   // `number` milliseconds
	ACT_CLOSE,
};

struct step {
	enum act act;
	const char *text;
	int number;
};

#define REQUESTS_MAX 8

struct gateway {
	int fd;
	const struct step *script;
	char *requests[REQUESTS_MAX];
	int request_count;
	pthread_t thread;
	bool finished;
	struct espgw_client *client;
	struct espgw_error error;
};

static void sleep_ms(int ms)
{
	struct timespec time = {.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000L};
	nanosleep(&time, NULL);
}

static void gateway_write(struct gateway *gateway, const char *text, size_t length)
{
	while (length > 0) {
		ssize_t sent = send(gateway->fd, text, length, MSG_NOSIGNAL);
		if (sent <= 0)
			return;
		text += sent;
		length -= sent;
	}
}

static void gateway_read(struct gateway *gateway)
{
	char *line = calloc(1, 128 * 1024);
	for (size_t i = 0; i < 128 * 1024 - 1; i++)
		if (recv(gateway->fd, &line[i], 1, 0) != 1 || line[i] == '\n')
			break;
	gateway->requests[gateway->request_count++] = line;
}

static void *gateway_run(void *argument)
{
	struct gateway *gateway = argument;
	char kib[1024];
	memset(kib, 'x', sizeof(kib));
	for (const struct step *step = gateway->script; step->act != ACT_END; step++) {
		size_t length = step->text == NULL ? 0 : strlen(step->text);
		if (step->act == ACT_READ)
			gateway_read(gateway);
		else if (step->act == ACT_WRITE)
			gateway_write(gateway, step->text, length);
		else if (step->act == ACT_SLOWLY)
			for (size_t i = 0; i < length; i++) {
				gateway_write(gateway, step->text + i, 1);
				sleep_ms(i % 16 == 0);
			}
		else if (step->act == ACT_REPEAT)
			for (int i = 0; i < step->number; i++)
				gateway_write(gateway, step->text, length);
		else if (step->act == ACT_FILL)
			for (int i = 0; i < step->number; i++)
				gateway_write(gateway, kib, sizeof(kib));
		else if (step->act == ACT_WAIT)
			sleep_ms(step->number);
		else if (step->act == ACT_CLOSE)
			shutdown(gateway->fd, SHUT_RDWR);
	}
	return NULL;
}

// Starts the script and connects to it. Every script but the ones of hello begins with the first
// two steps that greet.
static enum espgw_status gateway_start(
	struct gateway *gateway, const struct step *script, int timeout_ms)
{
	*gateway = (struct gateway){.script = script};
	int fds[2];
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
	gateway->fd = fds[1];
	// The smallest buffers that there are, so that requests go out in parts.
	int small = 1;
	setsockopt(fds[0], SOL_SOCKET, SO_SNDBUF, &small, sizeof(small));
	assert_int_equal(pthread_create(&gateway->thread, NULL, gateway_run, gateway), 0);
	return espgw_client_connect_fd(
		fds[0], "test/1", timeout_ms, &gateway->client, &gateway->error);
}

// Waits until the script is through.
static void gateway_finish(struct gateway *gateway)
{
	if (!gateway->finished)
		pthread_join(gateway->thread, NULL);
	gateway->finished = true;
}

static void gateway_stop(struct gateway *gateway)
{
	espgw_client_close(gateway->client);
	gateway_finish(gateway);
	close(gateway->fd);
	for (int i = 0; i < gateway->request_count; i++)
		free(gateway->requests[i]);
}

static json_t *gateway_request(struct gateway *gateway, int number)
{
	assert_true(number < gateway->request_count);
	json_t *request = json_loads(gateway->requests[number], JSON_REJECT_DUPLICATES, NULL);
	assert_non_null(request);
	return request;
}

static enum espgw_status call(struct gateway *gateway, const char *method, json_t **result)
{
	return espgw_client_call(gateway->client, method, NULL, result, &gateway->error);
}

#define GREET                                   \
	{.act = ACT_READ},                      \
	{                                       \
		.act = ACT_WRITE, .text = HELLO \
	}
#define END                    \
	{                      \
		.act = ACT_END \
	}

// ---- the wiped memory ----

static const char key_hex[] = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";
static int wiped_keys;

// Stands in for the C library's: sees which memory is wiped.
void explicit_bzero(void *memory, size_t length)
{
	const char *seen;
	// Its declaration says "written only", so the compiler must not know that this is `memory`.
	__asm__("" : "=r"(seen) : "0"(memory));
	if (memmem(seen, length, key_hex, strlen(key_hex)) != NULL)
		wiped_keys++;
	memset(memory, 0, length);
	__asm__ volatile("" : : "r"(memory) : "memory");
}

// ---- hello ----

static void test_hello_tells_who_the_gateway_is(void **state)
{
	(void)state;
	const struct step script[] = {{.act = ACT_READ}, {.act = ACT_SLOWLY, .text = HELLO}, END};
	struct gateway gateway;
	assert_int_equal(gateway_start(&gateway, script, TIMEOUT_MS), ESPGW_OK);
	const struct espgw_server *server = espgw_client_server(gateway.client);
	assert_int_equal(server->protocol, 1);
	assert_string_equal(server->server, "espgw");
	assert_string_equal(server->version, "0.1.0");
	assert_string_equal(server->epoch, "00112233445566aa");
	assert_string_equal(server->name, "gw");
	json_t *request = gateway_request(&gateway, 0);
	json_t *params = json_object_get(request, "params");
	assert_string_equal(json_string_value(json_object_get(request, "method")), "hello");
	assert_int_equal(json_integer_value(json_object_get(params, "protocol")), 1);
	assert_string_equal(json_string_value(json_object_get(params, "client")), "test/1");
	json_decref(request);
	gateway_stop(&gateway);
}

static void test_refusal_without_an_id_is_the_answer_to_hello(void **state)
{
	(void)state;
	const struct step script[] = {
		{.act = ACT_WRITE,
			.text = "{\"jsonrpc\":\"2.0\",\"id\":null,\"error\":{\"code\":-32002,"
				"\"message\":\"full\",\"data\":{\"name\":\"too_many_clients\"}}}"
				"\n"},
		{.act = ACT_CLOSE}, END};
	struct gateway gateway;
	// Either way round: the gateway has closed before or after the hello is sent.
	assert_int_equal(gateway_start(&gateway, script, TIMEOUT_MS), ESPGW_REFUSED);
	assert_null(gateway.client);
	assert_int_equal(gateway.error.code, -32002);
	assert_string_equal(gateway.error.name, "too_many_clients");
	gateway_stop(&gateway);
}

static void test_another_protocol_is_no_hello(void **state)
{
	(void)state;
	const struct step script[] = {{.act = ACT_READ},
		{.act = ACT_WRITE, .text = RESULT(1, "{\"protocol\":2,\"epoch\":\"1\"}")}, END};
	struct gateway gateway;
	assert_int_equal(gateway_start(&gateway, script, TIMEOUT_MS), ESPGW_PROTOCOL);
	gateway_stop(&gateway);
}

// ---- calls ----

static void test_call_returns_result_or_error(void **state)
{
	(void)state;
	const struct step script[] = {GREET, {.act = ACT_READ},
		{.act = ACT_SLOWLY, .text = RESULT(2, "{\"uptime_seconds\":7}")}, {.act = ACT_READ},
		{.act = ACT_WRITE,
			.text = "{\"jsonrpc\":\"2.0\",\"id\":3,\"error\":{\"code\":-32602,"
				"\"message\":\"no prefix\",\"data\":{\"name\":\"bad_parameter\","
				"\"parameter\":\"selectors[2].local\"}}}\n"},
		END};
	struct gateway gateway;
	assert_int_equal(gateway_start(&gateway, script, TIMEOUT_MS), ESPGW_OK);
	json_t *result;
	assert_int_equal(call(&gateway, "stats", &result), ESPGW_OK);
	assert_int_equal(json_integer_value(json_object_get(result, "uptime_seconds")), 7);
	json_decref(result);
	assert_int_equal(call(&gateway, "sa.add", &result), ESPGW_REFUSED);
	assert_null(result);
	assert_int_equal(gateway.error.status, ESPGW_REFUSED);
	assert_int_equal(gateway.error.code, -32602);
	assert_string_equal(gateway.error.name, "bad_parameter");
	assert_string_equal(gateway.error.parameter, "selectors[2].local");
	assert_string_equal(gateway.error.message, "no prefix");
	gateway_stop(&gateway);
}

static void test_closing_is_told_and_raises_no_signal(void **state)
{
	(void)state;
	const struct step script[] = {GREET, {.act = ACT_READ},
		{.act = ACT_WRITE, .text = "{\"jsonrpc\":\"2.0\",\"id\":2,"}, {.act = ACT_CLOSE},
		END};
	struct gateway gateway;
	assert_int_equal(gateway_start(&gateway, script, TIMEOUT_MS), ESPGW_OK);
	assert_int_equal(call(&gateway, "stats", NULL), ESPGW_CLOSED);
	for (int i = 0; i < 3; i++)
		assert_int_equal(call(&gateway, "stats", NULL), ESPGW_CLOSED);
	json_t *event;
	assert_int_equal(espgw_client_event_next(gateway.client, 0, &event, NULL), ESPGW_CLOSED);
	assert_null(event);
	gateway_stop(&gateway);
}

static void test_closed_before_the_request_is_sent(void **state)
{
	(void)state;
	const struct step script[] = {
		GREET, {.act = ACT_WRITE, .text = EVENT("port.state")}, {.act = ACT_CLOSE}, END};
	struct gateway gateway;
	assert_int_equal(gateway_start(&gateway, script, TIMEOUT_MS), ESPGW_OK);
	gateway_finish(&gateway);
	assert_int_equal(call(&gateway, "stats", NULL), ESPGW_CLOSED);
	// What came before the end is still there.
	json_t *event;
	assert_int_equal(espgw_client_event_next(gateway.client, 0, &event, NULL), ESPGW_OK);
	json_decref(event);
	gateway_stop(&gateway);
}

static void check_distrusted(const char *garbage)
{
	// What comes behind the garbage must not be taken for an event.
	char text[256];
	snprintf(text, sizeof(text), "%s%s", garbage, EVENT("one"));
	const struct step script[] = {
		GREET, {.act = ACT_READ}, {.act = ACT_WRITE, .text = text}, END};
	struct gateway gateway;
	assert_int_equal(gateway_start(&gateway, script, TIMEOUT_MS), ESPGW_OK);
	assert_int_equal(call(&gateway, "stats", NULL), ESPGW_PROTOCOL);
	assert_int_equal(call(&gateway, "stats", NULL), ESPGW_CLOSED);
	json_t *event;
	assert_int_equal(espgw_client_event_next(gateway.client, 0, &event, NULL), ESPGW_CLOSED);
	gateway_stop(&gateway);
}

static void test_garbage_ends_the_connection(void **state)
{
	(void)state;
	check_distrusted("hello\n");
	check_distrusted("\n");
	check_distrusted("[]\n");
	check_distrusted("{}\n");
	check_distrusted("{\"id\":\"2\",\"result\":{}}\n");
	check_distrusted("{\"id\":2}\n");
	check_distrusted("{\"id\":2,\"id\":2,\"result\":{}}\n");
	check_distrusted("{\"id\":2,\"result\":{\"a\":\"\xff\"}}\n");
}

static void test_late_answer_is_not_taken_for_the_next(void **state)
{
	(void)state;
	const struct step script[] = {GREET, {.act = ACT_READ}, {.act = ACT_READ},
		{.act = ACT_WRITE, .text = RESULT(2, "{\"n\":2}") RESULT(3, "{\"n\":3}")}, END};
	struct gateway gateway;
	assert_int_equal(gateway_start(&gateway, script, TIMEOUT_MS), ESPGW_OK);
	espgw_client_set_timeout(gateway.client, 20);
	assert_int_equal(call(&gateway, "stats", NULL), ESPGW_TIMEOUT);
	espgw_client_set_timeout(gateway.client, TIMEOUT_MS);
	json_t *result;
	assert_int_equal(call(&gateway, "stats", &result), ESPGW_OK);
	assert_int_equal(json_integer_value(json_object_get(result, "n")), 3);
	json_decref(result);
	gateway_stop(&gateway);
}

static void test_long_lines(void **state)
{
	(void)state;
	const struct step script[] = {GREET, {.act = ACT_READ},
		{.act = ACT_WRITE, .text = "{\"id\":2,\"result\":{\"a\":\""},
		{.act = ACT_FILL, .number = 300}, {.act = ACT_WRITE, .text = "\"}}\n"},
		{.act = ACT_READ}, {.act = ACT_FILL, .number = 4200}, {.act = ACT_CLOSE}, END};
	struct gateway gateway;
	assert_int_equal(gateway_start(&gateway, script, 60000), ESPGW_OK);
	json_t *result;
	assert_int_equal(call(&gateway, "sa.list", &result), ESPGW_OK);
	assert_int_equal(json_string_length(json_object_get(result, "a")), 300 * 1024);
	json_decref(result);
	assert_int_equal(call(&gateway, "sa.list", NULL), ESPGW_PROTOCOL);
	gateway_stop(&gateway);
}

static enum espgw_status call_with_text(struct gateway *gateway, size_t length)
{
	char *text = malloc(length + 1);
	memset(text, 'y', length);
	text[length] = '\0';
	json_t *params = json_pack("{s:s}", "text", text);
	enum espgw_status status =
		espgw_client_call(gateway->client, "x", params, NULL, &gateway->error);
	json_decref(params);
	free(text);
	return status;
}

static void test_large_request_while_events_flood(void **state)
{
	(void)state;
	// The gateway writes more than all socket buffers hold before it reads.
	const struct step script[] = {GREET,
		{.act = ACT_REPEAT, .text = EVENT("spi.unknown"), .number = 20000},
		{.act = ACT_READ}, {.act = ACT_WRITE, .text = RESULT(3, "{}")}, END};
	struct gateway gateway;
	assert_int_equal(gateway_start(&gateway, script, 20000), ESPGW_OK);
	assert_int_equal(call_with_text(&gateway, 65536), ESPGW_ARGUMENT);
	assert_int_equal(call_with_text(&gateway, 65000), ESPGW_OK);
	assert_int_equal(strlen(gateway.requests[1]),
		65000 + strlen("{\"jsonrpc\":\"2.0\","
			       "\"id\":3,\"method\":\"x\",\"params\":{\"text\":\"\"}}\n"));
	// The events that were too many for the client are told as one, in their place.
	json_t *event;
	for (int i = 0; i < 4096; i++) {
		assert_int_equal(
			espgw_client_event_next(gateway.client, 0, &event, NULL), ESPGW_OK);
		assert_string_equal(
			json_string_value(json_object_get(event, "event")), "spi.unknown");
		json_decref(event);
	}
	assert_int_equal(espgw_client_event_next(gateway.client, 0, &event, NULL), ESPGW_OK);
	assert_string_equal(json_string_value(json_object_get(event, "event")), "events.lost");
	assert_int_equal(json_integer_value(json_object_get(event, "count")), 20000 - 4096);
	json_decref(event);
	assert_int_equal(espgw_client_event_next(gateway.client, 0, &event, NULL), ESPGW_TIMEOUT);
	gateway_stop(&gateway);
}

static void test_gateway_that_never_reads(void **state)
{
	(void)state;
	const struct step script[] = {GREET, {.act = ACT_WAIT, .number = 200}, END};
	struct gateway gateway;
	assert_int_equal(gateway_start(&gateway, script, TIMEOUT_MS), ESPGW_OK);
	espgw_client_set_timeout(gateway.client, 50);
	assert_int_equal(call_with_text(&gateway, 65000), ESPGW_TIMEOUT);
	// Half a request is on the way: nothing may follow.
	assert_int_equal(call(&gateway, "stats", NULL), ESPGW_CLOSED);
	gateway_stop(&gateway);
}

static void test_pages_become_one_list(void **state)
{
	(void)state;
	const struct step script[] = {GREET, {.act = ACT_READ},
		{.act = ACT_WRITE, .text = RESULT(2, "{\"sas\":[1,2],\"next\":17}")},
		{.act = ACT_READ}, {.act = ACT_WRITE, .text = RESULT(3, "{\"sas\":[3]}")},
		{.act = ACT_READ},
		{.act = ACT_WRITE, .text = RESULT(4, "{\"sas\":[1],\"next\":\"a\"}")},
		{.act = ACT_READ},
		{.act = ACT_WRITE, .text = RESULT(5, "{\"sas\":[1],\"next\":\"a\"}")}, END};
	struct gateway gateway;
	assert_int_equal(gateway_start(&gateway, script, TIMEOUT_MS), ESPGW_OK);
	json_t *params = json_pack("{s:s}", "tunnel", "tunnel01");
	json_t *sas;
	assert_int_equal(
		espgw_client_list(gateway.client, "sa.list", params, "sas", &sas, NULL), ESPGW_OK);
	assert_int_equal(json_array_size(sas), 3);
	assert_null(json_object_get(params, "after"));
	json_decref(sas);
	json_t *request = gateway_request(&gateway, 2);
	json_t *expected = json_pack("{s:s, s:i}", "tunnel", "tunnel01", "after", 17);
	assert_true(json_equal(json_object_get(request, "params"), expected));
	json_decref(expected);
	json_decref(request);
	json_decref(params);
	// A list that never ends is not believed.
	assert_int_equal(espgw_client_list(gateway.client, "sa.list", NULL, "sas", &sas, NULL),
		ESPGW_PROTOCOL);
	assert_null(sas);
	gateway_stop(&gateway);
}

// ---- events ----

static void test_events_come_between_answers(void **state)
{
	(void)state;
	const struct step script[] = {GREET, {.act = ACT_READ},
		{.act = ACT_WRITE, .text = RESULT(2, "{}")}, {.act = ACT_READ},
		{.act = ACT_WRITE,
			.text = EVENT("one") EVENT("two") RESULT(3, "{}") EVENT("three")},
		{.act = ACT_WAIT, .number = 50}, {.act = ACT_SLOWLY, .text = EVENT("four")}, END};
	struct gateway gateway;
	assert_int_equal(gateway_start(&gateway, script, TIMEOUT_MS), ESPGW_OK);
	const char *names[] = {"one", "two"};
	assert_int_equal(espgw_client_subscribe(gateway.client, names, 2, NULL), ESPGW_OK);
	assert_int_equal(call(&gateway, "stats", NULL), ESPGW_OK);
	const char *expected[] = {"one", "two", "three"};
	json_t *event;
	for (int i = 0; i < 3; i++) {
		assert_int_equal(
			espgw_client_event_next(gateway.client, 0, &event, NULL), ESPGW_OK);
		assert_string_equal(
			json_string_value(json_object_get(event, "event")), expected[i]);
		json_decref(event);
	}
	assert_int_equal(espgw_client_event_next(gateway.client, 0, &event, NULL), ESPGW_TIMEOUT);
	assert_null(event);
	struct pollfd pollfd = {.fd = espgw_client_fd(gateway.client), .events = POLLIN};
	assert_int_equal(poll(&pollfd, 1, 0), 0);
	assert_int_equal(poll(&pollfd, 1, TIMEOUT_MS), 1);
	assert_int_equal(
		espgw_client_event_next(gateway.client, TIMEOUT_MS, &event, NULL), ESPGW_OK);
	assert_string_equal(json_string_value(json_object_get(event, "event")), "four");
	json_decref(event);
	json_t *request = gateway_request(&gateway, 1);
	json_t *wanted = json_pack("{s:[s, s]}", "events", "one", "two");
	assert_true(json_equal(json_object_get(request, "params"), wanted));
	json_decref(wanted);
	json_decref(request);
	gateway_stop(&gateway);
}

// ---- security associations ----

static const struct espgw_selector selectors[] = {
	{.local = "0.0.0.0/0",
		.remote = "192.168.192.0/26",
		.protocol = 6,
		.local_ports = {0, 1023},
		.remote_ports = {443, 443}},
	{.local = "a\"b\\c\n\x01", .remote = "\xc3\xa9"}, // whatever the text: one sound JSON line
};

static struct espgw_sa example_sa(void)
{
	struct espgw_sa sa = {.tunnel = "tunnel01",
		.direction = ESPGW_IN,
		.spi = 0xc1,
		.source = "198.51.100.1",
		.esn = true,
		.replay_window = 2048,
		.udp_source_port = 4500,
		.udp_destination_port = 61000,
		.soft = {.seconds = 3000, .bytes = UINT64_MAX},
		.hard = {.packets = 4000000000},
		.selectors = selectors,
		.selector_count = 2,
		.salt = {0xde, 0xad, 0xbe, 0xef}};
	for (int i = 0; i < ESPGW_KEY_BYTES; i++)
		sa.key[i] = (uint8_t)i;
	return sa;
}

static void test_sa_add_sends_everything_and_wipes_it(void **state)
{
	(void)state;
	const struct step script[] = {GREET, {.act = ACT_READ},
		{.act = ACT_WRITE, .text = RESULT(2, "{\"id\":12,\"already\":true}")}, END};
	struct gateway gateway;
	assert_int_equal(gateway_start(&gateway, script, TIMEOUT_MS), ESPGW_OK);
	struct espgw_sa sa = example_sa();
	uint64_t id = 0;
	bool already = false;
	wiped_keys = 0;
	assert_int_equal(
		espgw_client_sa_add(gateway.client, &sa, &id, &already, &gateway.error), ESPGW_OK);
	assert_true(wiped_keys > 0);
	assert_int_equal(id, 12);
	assert_true(already);
	json_t *request = gateway_request(&gateway, 1);
	json_t *expected = json_pack("{s:s, s:s, s:s, s:s, s:s, s:s, s:b, s:i, s:{s:i, s:i},"
				     " s:{s:{s:i}, s:{s:I}}, s:[{s:s, s:s, s:i, s:{s:i, s:i},"
				     " s:{s:i, s:i}}, {s:s, s:s}]}",
		"tunnel", "tunnel01", "direction", "in", "spi", "0x000000c1", "source",
		"198.51.100.1", "key", key_hex, "salt", "deadbeef", "esn", 1, "replay_window", 2048,
		"udp_encapsulation", "source_port", 4500, "destination_port", 61000, "lifetime",
		"soft", "seconds", 3000, "hard", "packets", (json_int_t)4000000000, "selectors",
		"local", selectors[0].local, "remote", selectors[0].remote, "protocol", 6,
		"local_ports", "first", 0, "last", 1023, "remote_ports", "first", 443, "last", 443,
		"local", selectors[1].local, "remote", selectors[1].remote);
	assert_non_null(expected);
	assert_true(json_equal(json_object_get(request, "params"), expected));
	json_decref(expected);
	json_decref(request);
	espgw_client_sa_wipe(&sa);
	for (int i = 0; i < ESPGW_KEY_BYTES; i++)
		assert_int_equal(sa.key[i], 0);
	assert_int_equal(sa.salt[0] | sa.salt[1] | sa.salt[2] | sa.salt[3], 0);
	gateway_stop(&gateway);
}

static void test_sa_add_wipes_when_it_fails_and_when_it_grows(void **state)
{
	(void)state;
	const struct step script[] = {GREET, {.act = ACT_CLOSE}, END};
	struct gateway gateway;
	assert_int_equal(gateway_start(&gateway, script, TIMEOUT_MS), ESPGW_OK);
	struct espgw_sa sa = example_sa();
	struct espgw_selector many[100];
	for (int i = 0; i < 100; i++)
		many[i] =
			(struct espgw_selector){.local = "0.0.0.0/0", .remote = "192.168.192.0/26"};
	sa.selectors = many;
	sa.selector_count = 100;
	wiped_keys = 0;
	assert_int_equal(
		espgw_client_sa_add(gateway.client, &sa, NULL, NULL, &gateway.error), ESPGW_CLOSED);
	// 1, 2, 4 KiB and the last one of 8: each copy that the growing text left.
	assert_int_equal(wiped_keys, 4);
	assert_null(strstr(gateway.error.message, "0001"));
	gateway_stop(&gateway);
}

static void check_request(
	struct gateway *gateway, int number, const char *method, const char *expected_params)
{
	json_t *request = gateway_request(gateway, number);
	json_t *expected = json_loads(expected_params, 0, NULL);
	assert_string_equal(json_string_value(json_object_get(request, "method")), method);
	assert_true(json_equal(json_object_get(request, "params"), expected));
	json_decref(expected);
	json_decref(request);
}

static void test_the_other_sa_functions(void **state)
{
	(void)state;
	const struct step script[] = {GREET, {.act = ACT_READ},
		{.act = ACT_WRITE, .text = RESULT(2, "{\"id\":1}")}, {.act = ACT_READ},
		{.act = ACT_WRITE, .text = RESULT(3, "{\"id\":1}")}, {.act = ACT_READ},
		{.act = ACT_WRITE, .text = RESULT(4, "{\"id\":1}")}, END};
	struct gateway gateway;
	assert_int_equal(gateway_start(&gateway, script, TIMEOUT_MS), ESPGW_OK);
	struct espgw_sa_name out = {
		.direction = ESPGW_OUT, .spi = 0xffffffff, .destination = "2001:db8::7"};
	struct espgw_sa_name in = {.direction = ESPGW_IN, .spi = 256};
	assert_int_equal(espgw_client_sa_delete(gateway.client, &out, NULL), ESPGW_OK);
	struct espgw_sa_change moved = {.destination = "198.51.100.9",
		.set_udp = true,
		.udp_source_port = 4500,
		.udp_destination_port = 1};
	assert_int_equal(espgw_client_sa_update(gateway.client, &out, &moved, NULL), ESPGW_OK);
	struct espgw_sa_change plain = {.source = "198.51.100.9", .set_udp = true};
	assert_int_equal(espgw_client_sa_update(gateway.client, &in, &plain, NULL), ESPGW_OK);
	check_request(&gateway, 1, "sa.delete",
		"{\"direction\":\"out\",\"spi\":\"0xffffffff\",\"destination\":\"2001:db8::7\"}");
	check_request(&gateway, 2, "sa.update",
		"{\"direction\":\"out\",\"spi\":\"0xffffffff\",\"destination\":\"2001:db8::7\","
		"\"new_destination\":\"198.51.100.9\","
		"\"udp_encapsulation\":{\"source_port\":4500,\"destination_port\":1}}");
	check_request(&gateway, 3, "sa.update",
		"{\"direction\":\"in\",\"spi\":\"0x00000100\",\"source\":\"198.51.100.9\","
		"\"udp_encapsulation\":null}");
	gateway_stop(&gateway);
}

static void test_query_tells_use(void **state)
{
	(void)state;
	const struct step script[] = {GREET, {.act = ACT_READ},
		{.act = ACT_WRITE,
			.text = RESULT(2, "{\"sa\":{\"packets\":5,\"bytes\":5000000000,"
					  "\"idle_seconds\":3}}")},
		{.act = ACT_READ},
		{.act = ACT_WRITE,
			.text = RESULT(
				3, "{\"sa\":{\"packets\":0,\"bytes\":0,\"idle_seconds\":null}}")},
		{.act = ACT_READ}, {.act = ACT_WRITE, .text = RESULT(4, "{}")}, END};
	struct gateway gateway;
	assert_int_equal(gateway_start(&gateway, script, TIMEOUT_MS), ESPGW_OK);
	struct espgw_sa_name in = {.direction = ESPGW_IN, .spi = 256};
	struct espgw_sa_use use;
	assert_int_equal(espgw_client_sa_query(gateway.client, &in, &use, NULL), ESPGW_OK);
	assert_int_equal(use.packets, 5);
	assert_int_equal(use.bytes, 5000000000);
	assert_true(use.used);
	assert_int_equal(use.idle_seconds, 3);
	assert_int_equal(espgw_client_sa_query(gateway.client, &in, &use, NULL), ESPGW_OK);
	assert_false(use.used);
	assert_int_equal(espgw_client_sa_query(gateway.client, &in, &use, NULL), ESPGW_PROTOCOL);
	gateway_stop(&gateway);
}

static void test_reserve_parses_spis(void **state)
{
	(void)state;
	const struct step script[] = {GREET, {.act = ACT_READ},
		{.act = ACT_WRITE, .text = RESULT(2, "{\"spis\":[\"0xc1234567\",\"0x00000100\"]}")},
		{.act = ACT_READ}, {.act = ACT_WRITE, .text = RESULT(3, "{\"spis\":[\"0xc12\"]}")},
		{.act = ACT_READ}, {.act = ACT_WRITE, .text = RESULT(4, "{\"spis\":[\"0x1g\"]}")},
		{.act = ACT_READ}, {.act = ACT_WRITE, .text = RESULT(5, "{\"spi\":\"0x1\"}")}, END};
	struct gateway gateway;
	assert_int_equal(gateway_start(&gateway, script, TIMEOUT_MS), ESPGW_OK);
	uint32_t spis[2] = {0};
	assert_int_equal(
		espgw_client_spi_reserve(gateway.client, "tunnel01", spis, 2, NULL), ESPGW_OK);
	assert_int_equal(spis[0], 0xc1234567);
	assert_int_equal(spis[1], 0x100);
	assert_int_equal(
		espgw_client_spi_reserve(gateway.client, NULL, spis, 2, NULL), ESPGW_PROTOCOL);
	assert_int_equal(
		espgw_client_spi_reserve(gateway.client, NULL, spis, 1, NULL), ESPGW_PROTOCOL);
	assert_int_equal(espgw_client_spi_release(gateway.client, 0xc1234567, NULL), ESPGW_OK);
	check_request(&gateway, 1, "spi.reserve", "{\"count\":2,\"tunnel\":\"tunnel01\"}");
	check_request(&gateway, 4, "spi.release", "{\"spi\":\"0xc1234567\"}");
	gateway_stop(&gateway);
}

// ---- sockets by path ----

static void test_connect_by_path(void **state)
{
	(void)state;
	struct espgw_client *client;
	struct espgw_error error;
	char folder[] = "/tmp/espgw-client-test-XXXXXX";
	assert_non_null(mkdtemp(folder));
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	snprintf(address.sun_path, sizeof(address.sun_path), "%s/socket", folder);
	assert_int_equal(espgw_client_connect(address.sun_path, "test/1", 50, &client, &error),
		ESPGW_UNREACHABLE);
	assert_non_null(strstr(error.message, address.sun_path));

	int listener = socket(AF_UNIX, SOCK_STREAM, 0);
	assert_int_equal(bind(listener, (struct sockaddr *)&address, sizeof(address)), 0);
	assert_int_equal(listen(listener, 0), 0);
	// The kernel takes the connection, but nobody says hello.
	assert_int_equal(espgw_client_connect(address.sun_path, "test/1", 50, &client, &error),
		ESPGW_TIMEOUT);
	// Now its queue is full.
	assert_int_equal(espgw_client_connect(address.sun_path, "test/1", 50, &client, &error),
		ESPGW_UNREACHABLE);
	assert_null(client);
	close(listener);
	unlink(address.sun_path);
	rmdir(folder);

	char path[200];
	memset(path, 'a', sizeof(path));
	path[sizeof(path) - 1] = '\0';
	assert_int_equal(espgw_client_connect(path, "test/1", 50, &client, NULL), ESPGW_ARGUMENT);
	assert_int_equal(espgw_client_connect("", "test/1", 50, &client, NULL), ESPGW_ARGUMENT);
	espgw_client_close(NULL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_hello_tells_who_the_gateway_is),
		cmocka_unit_test(test_refusal_without_an_id_is_the_answer_to_hello),
		cmocka_unit_test(test_another_protocol_is_no_hello),
		cmocka_unit_test(test_call_returns_result_or_error),
		cmocka_unit_test(test_closing_is_told_and_raises_no_signal),
		cmocka_unit_test(test_closed_before_the_request_is_sent),
		cmocka_unit_test(test_garbage_ends_the_connection),
		cmocka_unit_test(test_late_answer_is_not_taken_for_the_next),
		cmocka_unit_test(test_long_lines),
		cmocka_unit_test(test_large_request_while_events_flood),
		cmocka_unit_test(test_gateway_that_never_reads),
		cmocka_unit_test(test_pages_become_one_list),
		cmocka_unit_test(test_events_come_between_answers),
		cmocka_unit_test(test_sa_add_sends_everything_and_wipes_it),
		cmocka_unit_test(test_sa_add_wipes_when_it_fails_and_when_it_grows),
		cmocka_unit_test(test_the_other_sa_functions),
		cmocka_unit_test(test_query_tells_use),
		cmocka_unit_test(test_reserve_parses_spis),
		cmocka_unit_test(test_connect_by_path),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
