// SPDX-License-Identifier: BSD-3-Clause
// Copyright (c) 2026 the espgw authors

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>

#include <event2/event.h>
#include <intel-ipsec-mb.h>
#include <jansson.h>

#include "control/internal.h"
#include "control_world.h"
#include "eal.h"
#include "esp/sa.h"
#include "esp_helpers.h"

#define SALT "a1b2c3d4"

// ---- a gateway and its clients in one thread ----

struct gateway {
	struct world world;
	struct event_base *base;
	struct control *control;
};

static void gateway_start(struct gateway *gateway, const char *directory)
{
	struct control_error error;
	world_start(&gateway->world, directory);
	gateway->base = event_base_new();
	gateway->control = control_create(&gateway->world.parts, gateway->base, &error);
	if (gateway->control == NULL)
		fail_msg("%s", error.text);
}

static void gateway_stop(struct gateway *gateway)
{
	control_destroy(gateway->control);
	event_base_free(gateway->base);
	world_stop(&gateway->world);
}

// A new process on the same directories.
static void gateway_restart(struct gateway *gateway)
{
	char directory[64];
	snprintf(directory, sizeof(directory), "%s", gateway->world.directory);
	gateway_stop(gateway);
	gateway_start(gateway, directory);
}

static int setup(void **state)
{
	struct gateway *gateway = calloc(1, sizeof(*gateway));
	if (gateway == NULL)
		return -1;
	gateway_start(gateway, NULL);
	*state = gateway;
	return 0;
}

static int teardown(void **state)
{
	struct gateway *gateway = *state;
	gateway_stop(gateway);
	world_remove_files(&gateway->world);
	struct stat status;
	assert_int_not_equal(stat(gateway->world.directory, &status), 0); // nothing is left
	free(gateway);
	return 0;
}

static int connect_raw(const struct gateway *gateway)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	snprintf(address.sun_path, sizeof(address.sun_path), "%s",
		gateway->world.config.gateway.control_socket);
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0);
	assert_true(fd >= 0);
	assert_int_equal(connect(fd, (struct sockaddr *)&address, sizeof(address)), 0);
	return fd;
}

static void run_for(struct gateway *gateway, unsigned int milliseconds)
{
	uint64_t end = control_now() + milliseconds * UINT64_C(1000000);
	do {
		event_base_loop(gateway->base, EVLOOP_NONBLOCK);
		usleep(200);
	} while (control_now() < end);
}

static void send_all(struct gateway *gateway, int fd, const char *text, size_t size)
{
	while (size > 0) {
		ssize_t sent = send(fd, text, size, MSG_NOSIGNAL);
		if (sent > 0) {
			text += sent;
			size -= (size_t)sent;
		} else {
			assert_int_equal(errno, EAGAIN);
		}
		event_base_loop(gateway->base, EVLOOP_NONBLOCK);
	}
}

// The next line as JSON; NULL when the connection ended. Fails after 20 s.
static json_t *receive(struct gateway *gateway, int fd)
{
	static char line[4 << 20];
	size_t length = 0;
	uint64_t end = control_now() + 20 * NANOSECONDS;
	while (control_now() < end) {
		event_base_loop(gateway->base, EVLOOP_NONBLOCK);
		ssize_t got = recv(fd, line + length, 1, 0);
		if (got == 0 || (got < 0 && errno != EAGAIN))
			return NULL;
		if (got < 0 || line[length++] != '\n')
			continue;
		json_error_t error;
		json_t *object = json_loadb(line, length, 0, &error);
		assert_non_null(object);
		return object;
	}
	fail_msg("no answer within 20 s");
	return NULL;
}

// Nothing is there to be received.
static void assert_silence(struct gateway *gateway, int fd)
{
	char byte;
	run_for(gateway, 40);
	assert_int_equal(recv(fd, &byte, 1, 0), -1);
	assert_int_equal(errno, EAGAIN);
}

static json_t *exchange(struct gateway *gateway, int fd, const char *line)
{
	send_all(gateway, fd, line, strlen(line));
	send_all(gateway, fd, "\n", 1);
	return receive(gateway, fd);
}

// Calls a method; the reply's "result" (a new reference), or fails the test.
static json_t *call(struct gateway *gateway, int fd, const char *method, const char *params)
{
	char line[8192];
	snprintf(line, sizeof(line),
		"{\"jsonrpc\":\"2.0\",\"id\":7,\"method\":\"%s\",\"params\":%s}", method, params);
	json_t *reply = exchange(gateway, fd, line);
	assert_non_null(reply);
	json_t *result = json_object_get(reply, "result");
	if (result == NULL)
		fail_msg("%s %s: %s", method, params, json_dumps(reply, 0));
	assert_int_equal(json_integer_value(json_object_get(reply, "id")), 7);
	json_incref(result);
	json_decref(reply);
	return result;
}

static void call_done(struct gateway *gateway, int fd, const char *method, const char *params)
{
	json_decref(call(gateway, fd, method, params));
}

static const char *text_of(const json_t *object, const char *name)
{
	const char *text = json_string_value(json_object_get(object, name));
	return text == NULL ? "(no text)" : text;
}

static json_int_t number_of(const json_t *object, const char *name)
{
	assert_true(json_is_integer(json_object_get(object, name)));
	return json_integer_value(json_object_get(object, name));
}

// The error of a reply, which is given up.
static void assert_error(json_t *reply, int code, const char *name, const char *parameter)
{
	assert_non_null(reply);
	json_t *error = json_object_get(reply, "error");
	if (error == NULL)
		fail_msg("no error but %s", json_dumps(reply, 0));
	json_t *data = json_object_get(error, "data");
	if (strcmp(text_of(data, "name"), name) != 0)
		fail_msg("not %s but %s", name, json_dumps(reply, 0));
	assert_int_equal(number_of(error, "code"), code);
	assert_true(strlen(text_of(error, "message")) > 10);
	if (parameter != NULL)
		assert_string_equal(text_of(data, "parameter"), parameter);
	json_decref(reply);
}

static void call_fails(struct gateway *gateway, int fd, const char *method, const char *params,
	int code, const char *name, const char *parameter)
{
	char line[8192];
	snprintf(line, sizeof(line),
		"{\"jsonrpc\":\"2.0\",\"id\":\"x\",\"method\":\"%s\",\"params\":%s}", method,
		params);
	assert_error(exchange(gateway, fd, line), code, name, parameter);
}

static int connect_client(struct gateway *gateway)
{
	int fd = connect_raw(gateway);
	call_done(gateway, fd, "hello", "{\"protocol\":1,\"client\":\"test/1\"}");
	return fd;
}

// Key number n in hex.
static const char *key_text(unsigned int n)
{
	static char text[65];
	for (unsigned int i = 0; i < 32; i++)
		snprintf(text + 2 * i, 3, "%02x", (n * 7 + i) & 0xff);
	snprintf(text, 9, "%08x", n);
	text[8] = '1';
	return text;
}

static void key_bytes(unsigned int n, uint8_t key[ESP_KEY_SIZE])
{
	const char *text = key_text(n);
	for (unsigned int i = 0; i < ESP_KEY_SIZE; i++) {
		unsigned int byte;
		sscanf(text + 2 * i, "%2x", &byte);
		key[i] = (uint8_t)byte;
	}
}

static const char *sa_params(
	const char *direction, uint32_t spi, unsigned int key, const char *more)
{
	static char text[4096];
	snprintf(text, sizeof(text),
		"{\"tunnel\":\"tunnel01\",\"direction\":\"%s\",\"spi\":%u,\"key\":\"%s\","
		"\"salt\":\"" SALT "\"%s%s}",
		direction, spi, key_text(key), more[0] != 0 ? "," : "", more);
	return text;
}

static void add_sa(struct gateway *gateway, int fd, const char *direction, uint32_t spi,
	unsigned int key, const char *more)
{
	json_t *result = call(gateway, fd, "sa.add", sa_params(direction, spi, key, more));
	assert_true(json_is_false(json_object_get(result, "already")));
	json_decref(result);
}

static void add_sa_fails(struct gateway *gateway, int fd, const char *direction, uint32_t spi,
	unsigned int key, int code, const char *name)
{
	call_fails(gateway, fd, "sa.add", sa_params(direction, spi, key, ""), code, name, NULL);
}

// ---- hello and the envelope ----

static void test_hello_comes_first(void **state)
{
	struct gateway *gateway = *state;
	int fd = connect_raw(gateway);
	call_fails(gateway, fd, "sa.list", "{}", -32000, "hello_first", NULL);
	call_fails(gateway, fd, "hello", "{}", -32602, "bad_parameter", "protocol");
	json_t *reply = exchange(gateway, fd,
		"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"hello\",\"params\":{\"protocol\":2}}");
	json_t *data = json_object_get(json_object_get(reply, "error"), "data");
	assert_int_equal(
		json_integer_value(json_array_get(json_object_get(data, "supported"), 0)), 1);
	assert_error(reply, -32001, "protocol_unsupported", NULL);
	call_fails(gateway, fd, "sa.list", "{}", -32000, "hello_first", NULL);
	json_t *result = call(gateway, fd, "hello", "{\"protocol\":1}");
	assert_string_equal(text_of(result, "server"), "espgw");
	assert_string_equal(text_of(result, "version"), ESPGW_VERSION);
	assert_string_equal(text_of(result, "name"), "test");
	assert_int_equal(strlen(text_of(result, "epoch")), 16);
	char epoch[17];
	snprintf(epoch, sizeof(epoch), "%s", text_of(result, "epoch"));
	json_decref(result);
	call_done(gateway, fd, "sa.list", "{}");
	close(fd);
	gateway_restart(gateway);
	fd = connect_raw(gateway);
	result = call(gateway, fd, "hello", "{\"protocol\":1}");
	assert_string_not_equal(text_of(result, "epoch"), epoch);
	json_decref(result);
	close(fd);
}

static void test_bad_requests(void **state)
{
	static const struct {
		const char *line, *name;
		int code;
	} cases[] = {
		{"", "parse_error", -32700},
		{"{", "parse_error", -32700},
		{"nonsense", "parse_error", -32700},
		{"{\"a\":1,\"a\":2}", "parse_error", -32700},
		{"{\"a\":\"\xff\"}", "parse_error", -32700},
		{"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"stats\"} x", "parse_error", -32700},
		{"{\"id\":99999999999999999999}", "parse_error", -32700},
		{"[]", "invalid_request", -32600},
		{"17", "parse_error", -32700},
		{"{}", "invalid_request", -32600},
		{"{\"jsonrpc\":\"2.0\",\"method\":\"stats\"}", "invalid_request", -32600},
		{"{\"jsonrpc\":\"2.0\",\"id\":null,\"method\":\"stats\"}", "invalid_request",
			-32600},
		{"{\"jsonrpc\":\"2.0\",\"id\":1.5,\"method\":\"stats\"}", "invalid_request",
			-32600},
		{"{\"jsonrpc\":\"1.0\",\"id\":1,\"method\":\"stats\"}", "invalid_request", -32600},
		{"{\"jsonrpc\":\"2.0\",\"id\":1}", "invalid_request", -32600},
		{"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":5}", "invalid_request", -32600},
		{"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"stats\",\"params\":[]}",
			"invalid_request", -32600},
		{"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"stats\",\"parms\":{}}",
			"invalid_request", -32600},
		{"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"sa.remove\"}", "unknown_method",
			-32601},
		{"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"stats\",\"params\":{\"all\":true}}",
			"bad_parameter", -32602},
	};
	struct gateway *gateway = *state;
	int fd = connect_client(gateway);
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
		assert_error(
			exchange(gateway, fd, cases[i].line), cases[i].code, cases[i].name, NULL);
	json_t *reply =
		exchange(gateway, fd, "{\"jsonrpc\":\"2.0\",\"id\":\"a\",\"method\":\"sa.lst\"}");
	assert_non_null(strstr(
		text_of(json_object_get(reply, "error"), "message"), "did you mean \"sa.list\""));
	assert_string_equal(text_of(reply, "id"), "a");
	json_decref(reply);
	char nested[5000];
	memset(nested, '[', sizeof(nested) - 1);
	nested[sizeof(nested) - 1] = 0;
	assert_error(exchange(gateway, fd, nested), -32700, "parse_error", NULL);
	call_done(gateway, fd, "stats", "{}"); // the connection goes on
	close(fd);
}

static void test_long_lines(void **state)
{
	struct gateway *gateway = *state;
	static char line[300000];
	int fd = connect_client(gateway);
	// 65,536 bytes are just right; white space fills them up.
	const char *request = "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"sa.list\"}";
	memset(line, ' ', sizeof(line));
	memcpy(line, request, strlen(request));
	line[CONTROL_LINE_MAX] = '\n';
	send_all(gateway, fd, line, CONTROL_LINE_MAX + 1);
	json_t *reply = receive(gateway, fd);
	assert_non_null(json_object_get(reply, "result"));
	json_decref(reply);
	// One more is not; nor are many more. One error each.
	line[CONTROL_LINE_MAX] = ' ';
	line[CONTROL_LINE_MAX + 1] = '\n';
	send_all(gateway, fd, line, CONTROL_LINE_MAX + 2);
	assert_error(receive(gateway, fd), -32700, "line_too_long", NULL);
	line[CONTROL_LINE_MAX + 1] = ' ';
	line[sizeof(line) - 1] = '\n';
	send_all(gateway, fd, line, sizeof(line));
	assert_error(receive(gateway, fd), -32700, "line_too_long", NULL);
	assert_silence(gateway, fd);
	call_done(gateway, fd, "stats", "{}");
	close(fd);
}

static void test_many_requests_at_once_keep_their_order(void **state)
{
	struct gateway *gateway = *state;
	int fd = connect_client(gateway);
	char text[64 * 1024] = "";
	size_t used = 0;
	for (int i = 0; i < 500; i++)
		used += (size_t)snprintf(text + used, sizeof(text) - used,
			"{\"jsonrpc\":\"2.0\",\"id\":%d,\"method\":\"sa.list\"}\n", i);
	send_all(gateway, fd, text, used);
	shutdown(fd, SHUT_WR); // what was sent is answered all the same
	for (int i = 0; i < 500; i++) {
		json_t *reply = receive(gateway, fd);
		assert_int_equal(number_of(reply, "id"), i);
		json_decref(reply);
	}
	assert_null(receive(gateway, fd)); // and then the connection ends
	close(fd);
}

// ---- SPIs ----

static void test_spi_reservations(void **state)
{
	struct gateway *gateway = *state;
	int fd = connect_client(gateway);
	json_t *result = call(gateway, fd, "spi.reserve", "{\"tunnel\":\"tunnel01\",\"count\":3}");
	json_t *spis = json_object_get(result, "spis");
	assert_int_equal(json_array_size(spis), 3);
	uint32_t spi[3];
	for (unsigned int i = 0; i < 3; i++) {
		const char *text = json_string_value(json_array_get(spis, i));
		assert_int_equal(strlen(text), 10);
		spi[i] = (uint32_t)strtoul(text, NULL, 16);
		assert_true(spi[i] >= ESP_SPI_MIN);
		assert_true(tunnel_spi_is_reserved(gateway->world.parts.tunnels, spi[i]));
	}
	json_decref(result);
	add_sa(gateway, fd, "in", spi[0], 1, "");
	assert_int_equal(gateway->control->reservation_count, 2);
	char params[64];
	snprintf(params, sizeof(params), "{\"spi\":\"0x%x\"}", spi[1]);
	call_done(gateway, fd, "spi.release", params);
	assert_false(tunnel_spi_is_reserved(gateway->world.parts.tunnels, spi[1]));
	call_fails(gateway, fd, "spi.release", params, -32016, "spi_not_reserved", "(no text)");
	call_fails(gateway, fd, "spi.reserve", "{\"count\":0}", -32602, "bad_parameter", "count");
	call_fails(gateway, fd, "spi.reserve", "{\"count\":257}", -32602, "bad_parameter", "count");
	call_fails(
		gateway, fd, "spi.reserve", "{\"tunnel\":\"x\"}", -32003, "no_such_tunnel", NULL);
	// All or none: 299 more would go, 300 SPIs in all.
	call_done(gateway, fd, "spi.reserve", "{\"count\":256}");
	call_fails(gateway, fd, "spi.reserve", "{\"count\":100}", -32013, "no_spi", NULL);
	assert_int_equal(gateway->control->reservation_count, 257);
	// A minute after the connection's end they are free again.
	close(fd);
	run_for(gateway, 20);
	assert_int_equal(gateway->control->reservation_count, 257);
	struct reservation *reservation;
	TAILQ_FOREACH (reservation, &gateway->control->reservations, in_all) {
		assert_true(reservation->expires > control_now() + 50 * NANOSECONDS);
		reservation->expires = 1;
	}
	for (unsigned int i = 0; i < 100 && gateway->control->reservation_count != 0; i++)
		run_for(gateway, 100);
	assert_int_equal(gateway->control->reservation_count, 0);
	assert_false(tunnel_spi_is_reserved(gateway->world.parts.tunnels, spi[2]));
}

// ---- sa.add and its errors ----

static void test_sa_add_show_list_delete(void **state)
{
	struct gateway *gateway = *state;
	int fd = connect_client(gateway);
	add_sa(gateway, fd, "in", 0xc1234567, 1,
		"\"replay_window\":1024,\"esn\":true,"
		"\"udp_encapsulation\":{\"source_port\":4500,\"destination_port\":4501},"
		"\"lifetime\":{\"soft\":{\"seconds\":3000},\"hard\":{\"packets\":77}},"
		"\"selectors\":[{\"local\":\"0.0.0.0/0\",\"remote\":\"192.168.192.0/26\"},"
		"{\"local\":\"::/0\",\"remote\":\"::/0\",\"protocol\":17,"
		"\"local_ports\":{\"first\":0,\"last\":53}}]");
	json_t *result =
		call(gateway, fd, "sa.show", "{\"direction\":\"in\",\"spi\":\"0xC1234567\"}");
	json_t *sa = json_object_get(result, "sa");
	char *dumped = json_dumps(sa, JSON_COMPACT);
	assert_null(strstr(dumped, SALT));
	assert_null(strstr(dumped, key_text(1)));
	assert_string_equal(dumped,
		"{\"id\":1,\"tunnel\":\"tunnel01\",\"direction\":\"in\",\"spi\":\"0xc1234567\","
		"\"source\":\"198.51.100.1\",\"destination\":\"203.0.113.1\",\"esn\":true,"
		"\"replay_window\":1024,"
		"\"udp_encapsulation\":{\"source_port\":4500,\"destination_port\":4501},"
		"\"lifetime\":{\"soft\":{\"seconds\":3000},\"hard\":{\"packets\":77}},"
		"\"selectors\":[{\"local\":\"0.0.0.0/0\",\"remote\":\"192.168.192.0/26\"},"
		"{\"local\":\"::/0\",\"remote\":\"::/0\",\"protocol\":17,"
		"\"local_ports\":{\"first\":0,\"last\":53}}],"
		"\"state\":\"active\",\"current\":false,\"age_seconds\":0,\"idle_seconds\":null,"
		"\"packets\":0,\"bytes\":0,\"sequence\":0}");
	control_free(dumped);
	json_decref(result);
	// Outbound: the newest is current; the soft limit near the end is given by itself.
	add_sa(gateway, fd, "out", 0xc1234567, 2, "");
	add_sa(gateway, fd, "out", 0x2000, 3, "\"lifetime\":{\"hard\":{\"packets\":1000}}");
	result = call(gateway, fd, "sa.list", "{\"tunnel\":\"tunnel01\"}");
	json_t *list = json_object_get(result, "sas");
	assert_int_equal(json_array_size(list), 3);
	assert_null(json_object_get(result, "next"));
	sa = json_array_get(list, 1);
	assert_string_equal(text_of(sa, "source"), "203.0.113.1");
	assert_string_equal(text_of(sa, "destination"), "198.51.100.1");
	assert_true(json_is_null(json_object_get(sa, "replay_window")));
	assert_true(json_is_false(json_object_get(sa, "current")));
	assert_true(json_is_true(json_object_get(json_array_get(list, 2), "current")));
	json_t *soft = json_object_get(json_object_get(sa, "lifetime"), "soft");
	assert_int_equal(number_of(soft, "packets"), 3758096384);
	soft = json_object_get(json_object_get(json_array_get(list, 2), "lifetime"), "soft");
	assert_int_equal(json_object_size(soft), 0);
	json_decref(result);
	result = call(gateway, fd, "sa.list", "{\"tunnel\":\"tunnel02\"}");
	assert_int_equal(json_array_size(json_object_get(result, "sas")), 0);
	json_decref(result);
	// Delete the current one: the one before takes over.
	call_done(gateway, fd, "sa.delete", "{\"direction\":\"out\",\"spi\":8192}");
	result = call(gateway, fd, "sa.show", "{\"direction\":\"out\",\"spi\":3240314215}");
	assert_true(json_is_true(json_object_get(json_object_get(result, "sa"), "current")));
	json_decref(result);
	call_fails(gateway, fd, "sa.delete", "{\"direction\":\"out\",\"spi\":8192}", -32004,
		"no_such_sa", NULL);
	result = call(gateway, fd, "sa.flush", "{\"tunnel\":\"tunnel02\"}");
	assert_int_equal(number_of(result, "deleted"), 0);
	json_decref(result);
	result = call(gateway, fd, "sa.flush", "{}");
	assert_int_equal(number_of(result, "deleted"), 2);
	json_decref(result);
	close(fd);
}

static void test_pages(void **state)
{
	struct gateway *gateway = *state;
	int fd = connect_client(gateway);
	for (unsigned int i = 0; i < 250; i++)
		add_sa(gateway, fd, i % 2 == 0 ? "in" : "out", 0x1000 + i, 100 + i, "");
	json_int_t after = 0, expected = 1;
	unsigned int pages = 0;
	for (bool more = true; more; pages++) {
		char params[64];
		snprintf(params, sizeof(params), "{\"after\":%d}", (int)after);
		json_t *result = call(gateway, fd, "sa.list", params);
		json_t *list = json_object_get(result, "sas");
		for (size_t i = 0; i < json_array_size(list); i++)
			assert_int_equal(number_of(json_array_get(list, i), "id"), expected++);
		more = json_object_get(result, "next") != NULL;
		if (more)
			after = number_of(result, "next");
		json_decref(result);
	}
	assert_int_equal(pages, 3);
	assert_int_equal(expected, 251);
	close(fd);
}

#define SELECTOR(more) \
	"\"selectors\":[{\"local\":\"10.0.0.0/8\",\"remote\":\"0.0.0.0/0\"," more "}]"

static void test_sa_add_refuses_bad_parameters(void **state)
{
	static const struct {
		const char *direction, *more, *parameter;
	} cases[] = {
		{"in", "\"replay_windw\":64", "replay_windw"},
		{"in", "\"replay_window\":63", "replay_window"},
		{"in", "\"replay_window\":131072", "replay_window"},
		{"in", "\"replay_window\":\"64\"", "replay_window"},
		{"out", "\"replay_window\":64", "replay_window"},
		{"in", "\"esn\":1", "esn"},
		{"in", "\"esn\":true,\"replay_window\":0", "esn"},
		{"in", "\"source\":\"300.1.1.1\"", "source"},
		{"in", "\"source\":\"224.0.0.1\"", "source"},
		{"in", "\"source\":\"2001:db8::1\"", "source"},
		{"in", "\"destination\":\"203.0.113.9\"", "destination"},
		{"out", "\"source\":\"203.0.113.9\"", "source"},
		{"out", "\"destination\":\"2001:db8::1\"", "destination"},
		{"out", "\"udp_encapsulation\":4500", "udp_encapsulation"},
		{"out", "\"udp_encapsulation\":{\"source_port\":4500}",
			"udp_encapsulation.destination_port"},
		{"out", "\"udp_encapsulation\":{\"source_port\":0,\"destination_port\":1}",
			"udp_encapsulation.source_port"},
		{"out", "\"udp_encapsulation\":{\"port\":1}", "udp_encapsulation.port"},
		{"out", "\"lifetime\":[]", "lifetime"},
		{"out", "\"lifetime\":{\"hard\":{\"seconds\":-1}}", "lifetime.hard.seconds"},
		{"out", "\"lifetime\":{\"hard\":{\"seconds\":1.5}}", "lifetime.hard.seconds"},
		{"out", "\"lifetime\":{\"hard\":{\"second\":1}}", "lifetime.hard.second"},
		{"out", "\"lifetime\":{\"soft\":{\"bytes\":2},\"hard\":{\"bytes\":1}}",
			"lifetime.soft.bytes"},
		{"in", "\"selectors\":{}", "selectors"},
		{"in", "\"selectors\":[1]", "selectors[0]"},
		{"in", "\"selectors\":[{\"local\":\"10.0.0.0/8\"}]", "selectors[0].remote"},
		{"in", "\"selectors\":[{\"local\":\"10.0.0.1/8\",\"remote\":\"::/0\"}]",
			"selectors[0].local"},
		{"in", "\"selectors\":[{\"local\":\"10.0.0.0/8\",\"remote\":\"::/0\"}]",
			"selectors[0].remote"},
		{"in", SELECTOR("\"protocol\":256"), "selectors[0].protocol"},
		{"in", SELECTOR("\"ports\":1"), "selectors[0].ports"},
		{"in", SELECTOR("\"local_ports\":[1,2]"), "selectors[0].local_ports"},
		{"in", SELECTOR("\"local_ports\":{\"first\":1}"), "selectors[0].local_ports.last"},
		{"in", SELECTOR("\"local_ports\":{\"first\":2,\"last\":1}"),
			"selectors[0].local_ports.first"},
		{"in", SELECTOR("\"local_ports\":{\"first\":2,\"last\":65536}"),
			"selectors[0].local_ports.last"},
		// Ports of no protocol, and of one that has none.
		{"in", SELECTOR("\"remote_ports\":{\"first\":1,\"last\":2}"),
			"selectors[0].remote_ports"},
		{"in", SELECTOR("\"protocol\":50,\"local_ports\":{\"first\":1,\"last\":2}"),
			"selectors[0].local_ports"},
	};
	struct gateway *gateway = *state;
	int fd = connect_client(gateway);
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
		call_fails(gateway, fd, "sa.add",
			sa_params(cases[i].direction, 0x1000, 1, cases[i].more), -32602,
			"bad_parameter", cases[i].parameter);
	for (uint32_t spi = 0; spi < 256; spi += 51)
		call_fails(gateway, fd, "sa.add", sa_params("in", spi, 1, ""), -32602,
			"bad_parameter", "spi");
	// Nothing was half applied: no SA, no key recorded.
	assert_int_equal(sa_count(gateway->world.parts.tunnels), 0);
	assert_int_equal(keystore_count(gateway->control->keystore), 0);
	add_sa(gateway, fd, "out", 256, 1, "");
	close(fd);
}

static void test_spis_as_text(void **state)
{
	static const char *const bad[] = {"\"1000\"", "\"0x\"", "\"0x123456789\"", "\"0x10 \"",
		"\"0xff\"", "-1", "4294967296", "true", "null", "1e3"};
	struct gateway *gateway = *state;
	int fd = connect_client(gateway);
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		char params[96];
		snprintf(params, sizeof(params), "{\"direction\":\"in\",\"spi\":%s}", bad[i]);
		call_fails(gateway, fd, "sa.show", params, -32602, "bad_parameter", "spi");
	}
	call_fails(gateway, fd, "sa.show", "{\"direction\":\"IN\",\"spi\":256}", -32602,
		"bad_parameter", "direction");
	call_fails(gateway, fd, "sa.show", "{\"spi\":256}", -32602, "bad_parameter", "direction");
	close(fd);
}

#define OTHER_KEY                                                                       \
	"\"key\":\"00000000000000000000000000000000000000000000000000000000000000aa\"," \
	"\"salt\":\"00000000\","

static void test_keys_are_never_repeated_in_errors(void **state)
{
	// Around the first `digits` of the key.
	static const struct {
		const char *before;
		int digits;
		const char *after;
	} cases[] = {
		{"\"key\":\"", 64, "00\",\"salt\":\"" SALT "\""}, // the salt counted in, say
		{"\"key\":\"", 63, "g\",\"salt\":\"" SALT "\""},
		{"\"key\":\"", 63, "\",\"salt\":\"" SALT "\""},
		{"\"key\":\"", 64, "\",\"salt\":\"" SALT "e\""},
		{"\"key\":\"", 64, "\",\"salt\":\"a1b2c3dg\""},
		{"\"keys\":\"", 64, "\""},
		{OTHER_KEY "\"esn\":\"", 64, "\""},
		{"\"key\":[\"", 64, "\"]"},
		{OTHER_KEY "\"source\":\"", 64, "\""},
		{OTHER_KEY "\"udp_encapsulation\":\"", 64, "\""},
		{"\"", 64, "\":1"},
	};
	struct gateway *gateway = *state;
	int fd = connect_client(gateway);
	assert_non_null(strstr(key_text(5), "2b2c2d2e"));
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		char line[512];
		snprintf(line, sizeof(line),
			"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"sa.add\",\"params\":"
			"{\"tunnel\":\"tunnel01\",\"direction\":\"in\",\"spi\":4096,%s%.*s%s}}",
			cases[i].before, cases[i].digits, key_text(5), cases[i].after);
		json_t *reply = exchange(gateway, fd, line);
		char *dumped = json_dumps(reply, 0);
		assert_null(strstr(dumped, "2b2c2d2e")); // a piece of the key
		assert_null(strstr(dumped, "a1b2c3d"));
		assert_non_null(json_object_get(reply, "error"));
		control_free(dumped);
		json_decref(reply);
	}
	// Nor does broken JSON bring it back.
	char line[512];
	snprintf(line, sizeof(line), "{\"key\":\"%s\" \"salt\":\"" SALT "\"}", key_text(5));
	json_t *reply = exchange(gateway, fd, line);
	char *dumped = json_dumps(reply, 0);
	assert_null(strstr(dumped, "2b2c2d2e"));
	control_free(dumped);
	assert_error(reply, -32700, "parse_error", NULL);
	close(fd);
}

static void test_repeated_and_conflicting_adds(void **state)
{
	struct gateway *gateway = *state;
	int fd = connect_client(gateway);
	add_sa(gateway, fd, "in", 0x1000, 1, "");
	json_t *result = call(gateway, fd, "sa.add", sa_params("in", 0x1000, 1, ""));
	assert_true(json_is_true(json_object_get(result, "already")));
	assert_int_equal(number_of(result, "id"), 1);
	json_decref(result);
	add_sa_fails(gateway, fd, "in", 0x1000, 2, -32005, "duplicate_spi");
	call_fails(gateway, fd, "sa.add", sa_params("in", 0x1000, 1, "\"replay_window\":128"),
		-32005, "duplicate_spi", NULL);
	char other_salt[512];
	snprintf(other_salt, sizeof(other_salt),
		"{\"tunnel\":\"tunnel01\",\"direction\":\"in\",\"spi\":4096,\"key\":\"%s\","
		"\"salt\":\"00000000\"}",
		key_text(1));
	call_fails(gateway, fd, "sa.add", other_salt, -32005, "duplicate_spi", NULL);
	add_sa(gateway, fd, "out", 0x1000, 3, "");
	result = call(gateway, fd, "sa.add", sa_params("out", 0x1000, 3, ""));
	assert_true(json_is_true(json_object_get(result, "already")));
	json_decref(result);
	// Key 2 was only ever in a refused add: it is not burnt.
	add_sa(gateway, fd, "out", 0x1001, 2, "");
	// The same SPI to another far end is another outbound SA, and has to be told apart.
	add_sa(gateway, fd, "out", 0x1000, 4, "\"destination\":\"198.51.100.77\"");
	call_fails(gateway, fd, "sa.show", "{\"direction\":\"out\",\"spi\":4096}", -32015,
		"ambiguous_sa", NULL);
	result = call(gateway, fd, "sa.show",
		"{\"direction\":\"out\",\"spi\":4096,\"destination\":\"198.51.100.77\"}");
	assert_int_equal(number_of(json_object_get(result, "sa"), "id"), 4);
	json_decref(result);
	close(fd);
}

static void test_too_many_sas(void **state)
{
	struct gateway *gateway = *state;
	gateway->world.config.gateway.max_sas = 3; // the table's room is larger
	int fd = connect_client(gateway);
	for (unsigned int i = 0; i < 3; i++)
		add_sa(gateway, fd, "in", 0x1000 + i, i + 1, "");
	add_sa_fails(gateway, fd, "in", 0x2000, 9, -32009, "too_many_sas");
	assert_int_equal(keystore_count(gateway->control->keystore), 3);
	call_done(gateway, fd, "sa.delete", "{\"direction\":\"in\",\"spi\":4096}");
	add_sa(gateway, fd, "in", 0x2000, 9, "");
	close(fd);
}

static void test_sa_update(void **state)
{
	struct gateway *gateway = *state;
	int fd = connect_client(gateway);
	add_sa(gateway, fd, "out", 0x1000, 1, "");
	call_fails(gateway, fd, "sa.update", "{\"direction\":\"out\",\"spi\":4096}", -32602,
		"bad_parameter", "new_destination");
	call_fails(gateway, fd, "sa.update",
		"{\"direction\":\"out\",\"spi\":4096,\"new_destination\":\"2001:db8::1\"}", -32602,
		"bad_parameter", "new_destination");
	call_fails(gateway, fd, "sa.update",
		"{\"direction\":\"out\",\"spi\":4096,\"source\":\"198.51.100.7\"}", -32602,
		"bad_parameter", "source");
	call_fails(gateway, fd, "sa.update",
		"{\"direction\":\"out\",\"spi\":4097,\"udp_encapsulation\":null}", -32004,
		"no_such_sa", NULL);
	call_done(gateway, fd, "sa.update",
		"{\"direction\":\"out\",\"spi\":4096,\"new_destination\":\"198.51.100.99\","
		"\"udp_encapsulation\":{\"source_port\":4500,\"destination_port\":61000}}");
	const struct packet_address moved = world_address("198.51.100.99");
	const struct sa *sa = sa_find(gateway->world.parts.tunnels, SA_OUTBOUND, 0x1000, &moved);
	assert_non_null(sa);
	assert_int_equal(sa->udp_destination, 61000);
	// A new destination alone leaves the ports; null takes the encapsulation off.
	call_done(gateway, fd, "sa.update",
		"{\"direction\":\"out\",\"spi\":4096,\"new_destination\":\"198.51.100.98\"}");
	assert_int_equal(sa->udp_destination, 61000);
	call_done(gateway, fd, "sa.update",
		"{\"direction\":\"out\",\"spi\":4096,\"udp_encapsulation\":null}");
	assert_int_equal(sa->udp_destination, 0);
	add_sa(gateway, fd, "out", 0x1000, 2, "");
	call_fails(gateway, fd, "sa.update",
		"{\"direction\":\"out\",\"spi\":4096,\"destination\":\"198.51.100.98\","
		"\"new_destination\":\"198.51.100.1\"}",
		-32005, "duplicate_spi", NULL);
	close(fd);
}

// ---- keys across restarts ----

static void test_rules_for_keys(void **state)
{
	struct gateway *gateway = *state;
	int fd = connect_client(gateway);
	add_sa(gateway, fd, "in", 0x1000, 1, "");
	add_sa(gateway, fd, "out", 0x1001, 2, "");
	add_sa_fails(gateway, fd, "in", 0x2000, 1, -32006, "key_seen");  // another live SA
	add_sa_fails(gateway, fd, "out", 0x2000, 1, -32006, "key_seen"); // was inbound
	add_sa_fails(gateway, fd, "out", 0x2000, 2, -32006, "key_seen"); // was outbound
	add_sa_fails(gateway, fd, "in", 0x2000, 2, -32006, "key_seen");
	call_done(gateway, fd, "sa.flush", "{}");
	add_sa_fails(gateway, fd, "out", 0x1001, 2, -32006, "key_seen");
	add_sa(gateway, fd, "in", 0x1000, 1, ""); // at once, though it was just deleted
	close(fd);
	gateway_restart(gateway);
	fd = connect_client(gateway);
	assert_int_equal(keystore_count(gateway->control->keystore), 2);
	add_sa_fails(gateway, fd, "out", 0x2000, 1, -32006, "key_seen");
	add_sa_fails(gateway, fd, "out", 0x1001, 2, -32006, "key_seen");
	add_sa_fails(gateway, fd, "in", 0x1001, 2, -32006, "key_seen");
	add_sa(gateway, fd, "in", 0x1000, 1, "");
	close(fd);
}

static void test_a_key_without_record_is_refused(void **state)
{
	struct gateway *gateway = *state;
	int fd = connect_client(gateway);
	add_sa(gateway, fd, "in", 0x1000, 1, "");
	char path[128], directory[64];
	snprintf(directory, sizeof(directory), "%s", gateway->world.directory);
	snprintf(path, sizeof(path), "%s/run/replay", directory);
	close(fd);
	gateway_stop(gateway);
	assert_int_equal(unlink(path), 0); // as a reboot does
	gateway_start(gateway, directory);
	fd = connect_client(gateway);
	call_done(gateway, fd, "events.subscribe", "{\"events\":[\"sa.no_record\"]}");
	char line[8192];
	snprintf(line, sizeof(line),
		"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"sa.add\",\"params\":%s}",
		sa_params("in", 0x1000, 1, ""));
	json_t *event = exchange(gateway, fd, line);
	json_t *params = json_object_get(event, "params");
	assert_string_equal(text_of(event, "method"), "event");
	assert_string_equal(text_of(params, "event"), "sa.no_record");
	assert_string_equal(text_of(params, "spi"), "0x00001000");
	assert_string_equal(text_of(params, "tunnel"), "tunnel01");
	json_decref(event);
	assert_error(receive(gateway, fd), -32007, "no_record", NULL);
	close(fd);
}

static void test_records_are_reused_oldest_first(void **state)
{
	struct gateway *gateway = *state;
	int fd = connect_client(gateway);
	unsigned int room = 2 * gateway->world.config.gateway.max_sas;
	add_sa(gateway, fd, "in", 0x1000, 1, ""); // stays
	for (unsigned int i = 0; i < room; i++) {
		add_sa(gateway, fd, "in", 0x2000, 2 + i, "");
		call_done(gateway, fd, "sa.delete", "{\"direction\":\"in\",\"spi\":8192}");
	}
	// The oldest deleted one has given way, the one after it and the live one have not.
	add_sa_fails(gateway, fd, "in", 0x2000, 2, -32007, "no_record");
	add_sa(gateway, fd, "in", 0x2000, 3, "");
	call_done(gateway, fd, "sa.delete", "{\"direction\":\"in\",\"spi\":4096}");
	add_sa(gateway, fd, "in", 0x1000, 1, "");
	close(fd);
}

static void test_records_outlive_a_smaller_configuration(void **state)
{
	const struct gateway *gateway = *state;
	char directory[96], file[112];
	struct control_error error;
	uint8_t fingerprint[RECORD_FINGERPRINT] = {0};
	snprintf(directory, sizeof(directory), "%s/small", gateway->world.directory);
	snprintf(file, sizeof(file), "%s/replay", directory);
	struct records *records = records_open(directory, 10, &error);
	assert_non_null(records);
	for (uint8_t i = 0; i < 10; i++) {
		fingerprint[0] = i;
		struct record *record = records_take(records, fingerprint);
		record->top = UINT64_C(1000) + i;
		records_set_live(records, record, true);
	}
	fingerprint[0] = 10;
	assert_null(records_take(records, fingerprint)); // all live
	records_close(records);
	records = records_open(directory, 2, &error);
	for (uint8_t i = 0; i < 10; i++) {
		fingerprint[0] = i;
		assert_int_equal(records_find(records, fingerprint)->top, 1000 + i);
	}
	records_close(records);
	// What is no such file holds no records.
	assert_int_equal(truncate(file, 0), 0);
	records = records_open(directory, 2, &error);
	assert_null(records_find(records, fingerprint));
	records_close(records);
	assert_int_equal(unlink(file), 0);
	assert_int_equal(rmdir(directory), 0);
}

static off_t file_size(const char *path)
{
	struct stat status;
	assert_int_equal(stat(path, &status), 0);
	return status.st_size;
}

static void write_at(const char *path, off_t offset, const void *data, size_t size)
{
	int fd = open(path, O_WRONLY);
	assert_true(fd >= 0);
	assert_int_equal(pwrite(fd, data, size, offset), size);
	close(fd);
}

static void test_store_after_a_crash(void **state)
{
	struct gateway *gateway = *state;
	int fd = connect_client(gateway);
	for (unsigned int i = 1; i <= 5; i++)
		add_sa(gateway, fd, "out", 0x1000 + i, i, "");
	close(fd);
	char path[128], directory[64];
	snprintf(directory, sizeof(directory), "%s", gateway->world.directory);
	snprintf(path, sizeof(path), "%s/state/keys", directory);
	// Whatever part of the last record reached the disk, the four before it count.
	for (off_t torn = 64 + 5 * 64 - 1; torn > 64 + 4 * 64 - 1; torn -= 9) {
		gateway_stop(gateway);
		assert_int_equal(truncate(path, torn), 0);
		gateway_start(gateway, directory);
		assert_null(keystore_fault(gateway->control->keystore));
		assert_int_equal(keystore_count(gateway->control->keystore), 4);
		assert_int_equal(file_size(path), 64 + 4 * 64);
		fd = connect_client(gateway);
		add_sa_fails(gateway, fd, "out", 0x1004, 4, -32006, "key_seen");
		add_sa(gateway, fd, "out", 0x1005, 5, "");
		close(fd);
	}
	// Its size may have reached the disk without its contents.
	gateway_stop(gateway);
	static const char zeros[64];
	write_at(path, 64 + 4 * 64, zeros, sizeof(zeros));
	gateway_start(gateway, directory);
	assert_int_equal(keystore_count(gateway->control->keystore), 4);
}

static void assert_store_is_unavailable(struct gateway *gateway, const char *directory)
{
	gateway_start(gateway, directory);
	assert_non_null(keystore_fault(gateway->control->keystore));
	assert_non_null(strstr(keystore_fault(gateway->control->keystore), directory));
	assert_true(gateway->world.store_is_logged);
	int fd = connect_client(gateway);
	add_sa_fails(gateway, fd, "in", 0x1000, 900, -32008, "store_unavailable");
	add_sa_fails(gateway, fd, "out", 0x1000, 901, -32008, "store_unavailable");
	assert_int_equal(sa_count(gateway->world.parts.tunnels), 0);
	call_done(gateway, fd, "sa.list", "{}"); // the rest works
	close(fd);
	gateway_stop(gateway);
}

static void test_a_damaged_store_refuses(void **state)
{
	struct gateway *gateway = *state;
	int fd = connect_client(gateway);
	for (unsigned int i = 1; i <= 3; i++)
		add_sa(gateway, fd, "out", 0x1000 + i, i, "");
	close(fd);
	char keys[128], secret[128], kept[160], directory[64];
	snprintf(directory, sizeof(directory), "%s", gateway->world.directory);
	snprintf(keys, sizeof(keys), "%s/state/keys", directory);
	snprintf(secret, sizeof(secret), "%s/state/secret", directory);
	snprintf(kept, sizeof(kept), "%s.kept", keys);
	gateway_stop(gateway);
	struct stat status;
	assert_int_equal(stat(secret, &status), 0);
	assert_int_equal(status.st_mode & 0777, 0600);
	assert_int_equal(status.st_size, 32);
	// A bit in each part of the file: header, records, but not the last one (see above).
	int file = open(keys, O_RDWR);
	for (off_t offset = 0; offset < 64 + 2 * 64; offset += 17) {
		uint8_t byte, flipped;
		assert_int_equal(pread(file, &byte, 1, offset), 1);
		flipped = byte ^ 4;
		assert_int_equal(pwrite(file, &flipped, 1, offset), 1);
		assert_store_is_unavailable(gateway, directory);
		assert_int_equal(pwrite(file, &byte, 1, offset), 1);
	}
	close(file);
	// A file that is missing.
	assert_int_equal(rename(keys, kept), 0);
	assert_store_is_unavailable(gateway, directory);
	assert_int_equal(rename(kept, keys), 0);
	assert_int_equal(rename(secret, kept), 0);
	assert_store_is_unavailable(gateway, directory);
	assert_int_equal(rename(kept, secret), 0);
	// Another secret.
	uint8_t bytes[32];
	file = open(secret, O_RDWR);
	assert_int_equal(pread(file, bytes, 32, 0), 32);
	bytes[5] ^= 1;
	assert_int_equal(pwrite(file, bytes, 32, 0), 32);
	assert_store_is_unavailable(gateway, directory);
	bytes[5] ^= 1;
	assert_int_equal(pwrite(file, bytes, 32, 0), 32);
	close(file);
	// All is well again.
	gateway_start(gateway, directory);
	assert_null(keystore_fault(gateway->control->keystore));
	assert_int_equal(keystore_count(gateway->control->keystore), 3);
}

static void test_a_store_that_is_removed_while_it_runs(void **state)
{
	struct gateway *gateway = *state;
	int fd = connect_client(gateway);
	add_sa(gateway, fd, "in", 0x1000, 1, "");
	char keys[128];
	snprintf(keys, sizeof(keys), "%s/state/keys", gateway->world.directory);
	assert_int_equal(unlink(keys), 0);
	add_sa_fails(gateway, fd, "in", 0x1001, 2, -32008, "store_unavailable");
	assert_int_equal(sa_count(gateway->world.parts.tunnels), 1);
	uint8_t key[ESP_KEY_SIZE], fingerprint[KEYSTORE_HASH_SIZE];
	key_bytes(2, key);
	keystore_fingerprint(gateway->control->keystore, key, fingerprint);
	assert_null(records_find(gateway->control->records, fingerprint));
	// What works goes on, and repeating it is still no error.
	call_done(gateway, fd, "sa.add", sa_params("in", 0x1000, 1, ""));
	close(fd);
}

static void test_hmac_vectors(void **state)
{
	// RFC 4231 test cases 1 and 2; keys shorter than a block are filled with zeros.
	static const uint8_t first[32] = {0xb0, 0x34, 0x4c, 0x61, 0xd8, 0xdb, 0x38, 0x53, 0x5c,
		0xa8, 0xaf, 0xce, 0xaf, 0x0b, 0xf1, 0x2b, 0x88, 0x1d, 0xc2, 0x00, 0xc9, 0x83, 0x3d,
		0xa7, 0x26, 0xe9, 0x37, 0x6c, 0x2e, 0x32, 0xcf, 0xf7};
	static const uint8_t second[32] = {0x5b, 0xdc, 0xc1, 0x46, 0xbf, 0x60, 0x75, 0x4e, 0x6a,
		0x04, 0x24, 0x26, 0x08, 0x95, 0x75, 0xc7, 0x5a, 0x00, 0x3f, 0x08, 0x9d, 0x27, 0x39,
		0x83, 0x9d, 0xec, 0x58, 0xb9, 0x64, 0xec, 0x38, 0x43};
	(void)state;
	IMB_MGR *manager = alloc_mb_mgr(0);
	init_mb_mgr_auto(manager, NULL);
	uint8_t secret[32] = {0}, result[32];
	memset(secret, 0x0b, 20);
	keystore_hmac(manager, secret, "Hi There", 8, result);
	assert_memory_equal(result, first, 32);
	memset(secret, 0, sizeof(secret));
	memcpy(secret, "Jefe", 4);
	keystore_hmac(manager, secret, "what do ya want for nothing?", 28, result);
	assert_memory_equal(result, second, 32);
	free_mb_mgr(manager);
}

// ---- replay across a restart ----

#define CAPTURE_PACKETS 200

struct capture {
	uint32_t size[CAPTURE_PACKETS];
	uint8_t esp[CAPTURE_PACKETS][256];
};

// What the peer sends with key 1, sequence numbers from 1.
static void capture_make(struct capture *capture)
{
	uint8_t key[ESP_KEY_SIZE], salt[ESP_SALT_SIZE] = {0xa1, 0xb2, 0xc3, 0xd4}, inner[100];
	key_bytes(1, key);
	test_inner_v4(inner, sizeof(inner), 0, false);
	struct test_cipher *cipher = test_cipher_new(key, salt, 0x1000, false);
	for (uint32_t i = 0; i < CAPTURE_PACKETS; i++)
		capture->size[i] =
			test_forge_inner(cipher, i + 1, inner, sizeof(inner), capture->esp[i]);
	test_cipher_free(cipher);
}

// Sends packets [from, to) in; returns how many are accepted.
static unsigned int capture_send(
	struct gateway *gateway, const struct capture *capture, unsigned int from, unsigned int to)
{
	struct sa *sa = sa_find(gateway->world.parts.tunnels, SA_INBOUND, 0x1000, NULL);
	assert_non_null(sa);
	struct esp_context *context = esp_context_create(0, ESP_CRYPTO_AUTO);
	assert_non_null(context);
	unsigned int accepted = 0;
	for (unsigned int i = from; i < to; i++) {
		struct rte_mbuf *packet = test_packet(capture->esp[i], capture->size[i]);
		accepted += test_decapsulate(context, sa->in, packet, 0) == DROP_NONE;
		test_packet_free(packet);
	}
	esp_context_destroy(context);
	return accepted;
}

static void test_a_restart_does_not_reopen_replay(void **state)
{
	struct gateway *gateway = *state;
	static struct capture capture;
	capture_make(&capture);
	int fd = connect_client(gateway);
	add_sa(gateway, fd, "in", 0x1000, 1, "");
	assert_int_equal(capture_send(gateway, &capture, 0, 100), 100);
	assert_int_equal(capture_send(gateway, &capture, 0, 100), 0);
	// Deleted and added again.
	call_done(gateway, fd, "sa.delete", "{\"direction\":\"in\",\"spi\":4096}");
	add_sa(gateway, fd, "in", 0x1000, 1, "");
	assert_int_equal(capture_send(gateway, &capture, 0, 100), 0);
	assert_int_equal(capture_send(gateway, &capture, 0, 120), 20);
	close(fd);
	gateway_restart(gateway);
	fd = connect_client(gateway);
	add_sa(gateway, fd, "in", 0x1000, 1, "");
	assert_int_equal(capture_send(gateway, &capture, 0, 120), 0);
	assert_int_equal(capture_send(gateway, &capture, 0, CAPTURE_PACKETS), 80);
	close(fd);
}

// The first life of the gateway: it takes 150 packets and is killed without any warning.
static void live_and_be_killed(const char *directory)
{
	struct gateway gateway;
	static struct capture capture;
	if (test_eal_start("256") != 0)
		_exit(1);
	capture_make(&capture);
	gateway_start(&gateway, directory);
	int fd = connect_client(&gateway);
	add_sa(&gateway, fd, "in", 0x1000, 1, "");
	add_sa(&gateway, fd, "out", 0x1001, 2, "");
	if (capture_send(&gateway, &capture, 0, 150) == 150)
		kill(getpid(), SIGKILL);
	_exit(1);
}

static char killed_directory[] = "/tmp/espgw-killed-XXXXXX";

static void test_a_killed_gateway(void **state)
{
	static struct capture capture;
	struct gateway gateway;
	(void)state;
	capture_make(&capture);
	gateway_start(&gateway, killed_directory); // its socket file is still there
	int fd = connect_client(&gateway);
	add_sa_fails(&gateway, fd, "out", 0x1001, 2, -32006, "key_seen");
	add_sa(&gateway, fd, "in", 0x1000, 1, "");
	assert_int_equal(capture_send(&gateway, &capture, 0, 150), 0);
	assert_int_equal(capture_send(&gateway, &capture, 0, CAPTURE_PACKETS), 50);
	close(fd);
	gateway_stop(&gateway);
	world_remove_files(&gateway.world);
}

// ---- lifetimes and events ----

static void assert_event(json_t *event, const char *name, const char *limit)
{
	const json_t *params = json_object_get(event, "params");
	assert_string_equal(text_of(event, "method"), "event");
	assert_null(json_object_get(event, "id"));
	assert_string_equal(text_of(params, "event"), name);
	assert_string_equal(text_of(params, "limit"), limit);
	json_decref(event);
}

static void assert_state(
	struct gateway *gateway, int fd, const char *direction, uint32_t spi, const char *expected)
{
	char params[64];
	snprintf(params, sizeof(params), "{\"direction\":\"%s\",\"spi\":%u}", direction, spi);
	json_t *result = call(gateway, fd, "sa.show", params);
	assert_string_equal(text_of(json_object_get(result, "sa"), "state"), expected);
	json_decref(result);
}

static void test_lifetime_in_seconds(void **state)
{
	struct gateway *gateway = *state;
	int fd = connect_client(gateway);
	add_sa(gateway, fd, "in", 0x1000, 1,
		"\"lifetime\":{\"soft\":{\"seconds\":1},\"hard\":{\"seconds\":3}}");
	add_sa(gateway, fd, "in", 0x1001, 2, ""); // has no limits
	call_done(gateway, fd, "events.subscribe", "{}");
	assert_state(gateway, fd, "in", 0x1000, "active");
	uint64_t begin = control_now();
	assert_event(receive(gateway, fd), "sa.soft_expired", "seconds");
	assert_state(gateway, fd, "in", 0x1000, "soft-expired");
	assert_event(receive(gateway, fd), "sa.hard_expired", "seconds");
	assert_true(control_now() - begin > NANOSECONDS);
	assert_state(gateway, fd, "in", 0x1000, "hard-expired");
	assert_state(gateway, fd, "in", 0x1001, "active");
	assert_silence(gateway, fd); // each once
	// Expired, it can't be added again as if it worked.
	add_sa_fails(gateway, fd, "in", 0x1000, 1, -32005, "duplicate_spi");
	close(fd);
}

// How many of `count` packets an outbound SA takes.
static unsigned int encapsulate(struct gateway *gateway, uint32_t spi, unsigned int count)
{
	uint8_t inner[100];
	test_inner_v4(inner, sizeof(inner), 0, false);
	const struct packet_address to = world_address("198.51.100.1");
	struct sa *sa = sa_find(gateway->world.parts.tunnels, SA_OUTBOUND, spi, &to);
	struct esp_context *context = esp_context_create(0, ESP_CRYPTO_AUTO);
	unsigned int taken = 0;
	for (unsigned int i = 0; i < count; i++) {
		struct rte_mbuf *packet = test_packet(inner, sizeof(inner));
		taken += test_encapsulate(context, sa->out, packet) == DROP_NONE;
		test_packet_free(packet);
	}
	esp_context_destroy(context);
	return taken;
}

static void test_lifetime_in_packets_and_bytes(void **state)
{
	struct gateway *gateway = *state;
	int fd = connect_client(gateway);
	call_done(gateway, fd, "events.subscribe", "{}");
	add_sa(gateway, fd, "out", 0x1000, 1,
		"\"lifetime\":{\"soft\":{\"packets\":3},\"hard\":{\"packets\":5}}");
	assert_int_equal(encapsulate(gateway, 0x1000, 2), 2);
	assert_silence(gateway, fd);
	assert_int_equal(encapsulate(gateway, 0x1000, 1), 1);
	assert_event(receive(gateway, fd), "sa.soft_expired", "packets");
	// Exact without waiting for the timer.
	assert_int_equal(encapsulate(gateway, 0x1000, 10), 2);
	assert_event(receive(gateway, fd), "sa.hard_expired", "packets");
	assert_state(gateway, fd, "out", 0x1000, "hard-expired");
	json_t *result = call(gateway, fd, "sa.list", "{}");
	const json_t *sa = json_array_get(json_object_get(result, "sas"), 0);
	assert_int_equal(number_of(sa, "sequence"), 5);
	assert_int_equal(number_of(sa, "packets"), 5);
	assert_int_equal(number_of(sa, "bytes"), 500);
	assert_int_equal(number_of(sa, "idle_seconds"), 0);
	assert_true(json_is_false(json_object_get(sa, "current")));
	json_decref(result);
	add_sa(gateway, fd, "out", 0x1001, 2,
		"\"lifetime\":{\"soft\":{\"bytes\":300},\"hard\":{\"bytes\":500}}");
	assert_int_equal(encapsulate(gateway, 0x1001, 3), 3);
	assert_event(receive(gateway, fd), "sa.soft_expired", "bytes");
	assert_int_equal(encapsulate(gateway, 0x1001, 2), 2);
	assert_event(receive(gateway, fd), "sa.hard_expired", "bytes");
	// A soft limit that is passed together with the hard one is not told any more.
	add_sa(gateway, fd, "out", 0x1002, 3,
		"\"lifetime\":{\"soft\":{\"packets\":3},\"hard\":{\"packets\":5}}");
	assert_int_equal(encapsulate(gateway, 0x1002, 9), 5);
	assert_event(receive(gateway, fd), "sa.hard_expired", "packets");
	assert_silence(gateway, fd);
	close(fd);
}

static void test_sequence_numbers_end(void **state)
{
	struct gateway *gateway = *state;
	int fd = connect_client(gateway);
	call_done(gateway, fd, "events.subscribe", "{}");
	add_sa(gateway, fd, "out", 0x1000, 1, "");
	const struct packet_address to = world_address("198.51.100.1");
	struct sa *sa = sa_find(gateway->world.parts.tunnels, SA_OUTBOUND, 0x1000, &to);
	atomic_store(&sa->out->next_sequence, 3758096384);
	run_for(gateway, 30);
	assert_int_equal(sa->state, SA_ACTIVE);
	assert_int_equal(encapsulate(gateway, 0x1000, 1), 1);
	assert_event(receive(gateway, fd), "sa.soft_expired", "packets");
	atomic_store(&sa->out->next_sequence, UINT64_C(0xfffffffd));
	assert_int_equal(encapsulate(gateway, 0x1000, 10), 3);
	assert_event(receive(gateway, fd), "sa.sequence_exhausted", "(no text)");
	assert_state(gateway, fd, "out", 0x1000, "hard-expired");
	assert_int_equal(sa_last_sequence(sa), UINT32_MAX);
	assert_silence(gateway, fd);
	close(fd);
}

static void assert_limits(
	struct gateway *gateway, int fd, uint32_t spi, json_int_t soft, json_int_t hard)
{
	char params[64];
	snprintf(params, sizeof(params), "{\"direction\":\"out\",\"spi\":%u}", spi);
	json_t *result = call(gateway, fd, "sa.show", params);
	const json_t *lifetime = json_object_get(json_object_get(result, "sa"), "lifetime");
	assert_int_equal(
		json_integer_value(json_object_get(json_object_get(lifetime, "soft"), "packets")),
		soft);
	assert_int_equal(
		json_integer_value(json_object_get(json_object_get(lifetime, "hard"), "packets")),
		hard);
	json_decref(result);
}

static void test_packets_per_key(void **state)
{
	struct gateway *gateway = *state;
	static const struct {
		const char *more;
		json_int_t soft, hard; // 0 = none
	} cases[] = {
		{"", 896, 0},
		{"\"esn\":true", 896, 0},
		// Of the agent's limits and the configured one the smaller wins.
		{"\"lifetime\":{\"soft\":{\"packets\":100}}", 100, 0},
		{"\"lifetime\":{\"soft\":{\"packets\":1023}}", 1023, 0},
		{"\"lifetime\":{\"soft\":{\"packets\":1024}}", 896, 0},
		{"\"lifetime\":{\"soft\":{\"packets\":1000000}}", 896, 0},
		{"\"lifetime\":{\"soft\":{\"packets\":2000},\"hard\":{\"packets\":3000}}", 896,
			1024},
		{"\"lifetime\":{\"soft\":{\"packets\":500},\"hard\":{\"packets\":600}}", 500, 600},
		{"\"lifetime\":{\"hard\":{\"packets\":900}}", 896, 900},
		{"\"lifetime\":{\"hard\":{\"packets\":800}}", 0, 800},
	};
	int fd = connect_client(gateway);
	gateway->world.tunnels[0].packets_per_key = 1024;
	call_done(gateway, fd, "events.subscribe", "{}");
	for (unsigned int i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		add_sa(gateway, fd, "out", 0x1000 + i, i + 1, cases[i].more);
		assert_limits(gateway, fd, 0x1000 + i, cases[i].soft, cases[i].hard);
	}
	assert_int_equal(encapsulate(gateway, 0x1000, 895), 895);
	assert_silence(gateway, fd);
	assert_int_equal(encapsulate(gateway, 0x1000, 1), 1);
	assert_event(receive(gateway, fd), "sa.soft_expired", "packets");
	assert_int_equal(encapsulate(gateway, 0x1000, 200), 128);
	assert_event(receive(gateway, fd), "sa.sequence_exhausted", "(no text)");
	assert_state(gateway, fd, "out", 0x1000, "hard-expired");
	// With a hard limit of the agent's own the event is that one's, at the same number.
	assert_int_equal(encapsulate(gateway, 0x1006, 2000), 1024);
	assert_event(receive(gateway, fd), "sa.hard_expired", "packets");
	assert_silence(gateway, fd);
	gateway->world.tunnels[0].packets_per_key = UINT32_MAX;
	add_sa(gateway, fd, "out", 0x2000, 100, "\"esn\":true");
	assert_limits(gateway, fd, 0x2000, 0, 0);
	add_sa(gateway, fd, "out", 0x2001, 101, "");
	assert_limits(gateway, fd, 0x2001, 3758096384, 0);
	close(fd);
}

static bool fake_health(void *argument, unsigned int tunnel, struct health_report *report)
{
	(void)argument;
	if (tunnel != 1)
		return false;
	*report = (struct health_report){
		.state = HEALTH_DEGRADED,
		.since = control_now() - 7 * NANOSECONDS,
		.window_probes = 200,
		.window_failed = 3,
		.rtt_smoothed = 1234567,
		.attempts = 9,
		.answered = 8,
		.failed = 7,
		.changes = 6,
	};
	return true;
}

static void test_the_health_of_a_tunnel_is_shown_and_told(void **state)
{
	struct gateway *gateway = *state;
	int fd = connect_client(gateway);
	gateway->control->parts.health = fake_health;
	json_t *result = call(gateway, fd, "tunnel.show", "{\"tunnel\":\"tunnel02\"}");
	json_t *health = json_object_get(json_object_get(result, "tunnel"), "health");
	char *dumped = json_dumps(health, JSON_COMPACT | JSON_REAL_PRECISION(6));
	assert_string_equal(dumped,
		"{\"state\":\"degraded\",\"since_seconds\":7,\"loss\":0.015,"
		"\"window_probes\":200,\"window_failed\":3,\"rtt_us\":null,"
		"\"rtt_smoothed_us\":1234,\"attempts\":9,\"answered\":8,\"failed\":7,"
		"\"changes\":6}");
	control_free(dumped);
	json_decref(result);
	result = call(gateway, fd, "tunnel.show", "{\"tunnel\":\"tunnel01\"}");
	assert_true(json_is_null(json_object_get(json_object_get(result, "tunnel"), "health")));
	json_decref(result);
	call_done(gateway, fd, "events.subscribe", "{\"events\":[\"tunnel.health\"]}");
	struct dataplane_event event = {.kind = DATAPLANE_TUNNEL_HEALTH,
		.tunnel = 1,
		.health = {HEALTH_HEALTHY, HEALTH_DOWN, HEALTH_CAUSE_NO_ANSWER}};
	control_dataplane_event(gateway->control, &event);
	json_t *got = receive(gateway, fd);
	json_t *told = json_object_get(got, "params");
	assert_string_equal(text_of(told, "tunnel"), "tunnel02");
	assert_string_equal(text_of(told, "from"), "healthy");
	assert_string_equal(text_of(told, "to"), "down");
	assert_string_equal(text_of(told, "cause"), "no_answer");
	assert_event(got, "tunnel.health", "(no text)");
	close(fd);
}

static void test_data_plane_events_reach_subscribers(void **state)
{
	struct gateway *gateway = *state;
	int all = connect_client(gateway), some = connect_client(gateway),
	    none = connect_client(gateway);
	call_done(gateway, all, "events.subscribe", "{}");
	json_t *result = call(gateway, some, "events.subscribe",
		"{\"events\":[\"tunnel.no_sa\",\"port.state\"]}");
	assert_int_equal(json_array_size(json_object_get(result, "events")), 2);
	json_decref(result);
	call_fails(gateway, none, "events.subscribe", "{\"events\":[\"sa.soft_expird\"]}", -32602,
		"bad_parameter", "events[0]");
	call_fails(gateway, none, "events.subscribe", "{\"events\":[3]}", -32602, "bad_parameter",
		"events[0]");
	call_fails(gateway, none, "events.subscribe", "{\"events\":\"all\"}", -32602,
		"bad_parameter", "events");
	struct dataplane_event event = {.kind = DATAPLANE_UNKNOWN_SPI,
		.spi = 0xabcd,
		.address = world_address("192.0.2.9")};
	control_dataplane_event(gateway->control, &event);
	event = (struct dataplane_event){.kind = DATAPLANE_NO_SA, .tunnel = 1};
	control_dataplane_event(gateway->control, &event);
	event = (struct dataplane_event){.kind = DATAPLANE_PORT_STATE, .port = 1};
	control_dataplane_event(gateway->control, &event);
	json_t *got = receive(gateway, all);
	assert_string_equal(text_of(json_object_get(got, "params"), "spi"), "0x0000abcd");
	assert_string_equal(text_of(json_object_get(got, "params"), "source"), "192.0.2.9");
	assert_event(got, "spi.unknown", "(no text)");
	for (int i = 0; i < 2; i++) {
		int fd = i == 0 ? all : some;
		got = receive(gateway, fd);
		assert_string_equal(text_of(json_object_get(got, "params"), "tunnel"), "tunnel02");
		assert_event(got, "tunnel.no_sa", "(no text)");
		got = receive(gateway, fd);
		assert_string_equal(text_of(json_object_get(got, "params"), "port"), "lan");
		assert_true(
			json_is_false(json_object_get(json_object_get(got, "params"), "link_up")));
		assert_event(got, "port.state", "(no text)");
	}
	call_done(gateway, all, "events.subscribe", "{\"events\":[]}");
	control_dataplane_event(gateway->control, &event);
	assert_silence(gateway, all);
	assert_silence(gateway, none);
	close(all);
	close(some);
	close(none);
}

static void test_a_move_is_told(void **state)
{
	struct gateway *gateway = *state;
	int fd = connect_client(gateway);
	call_done(gateway, fd, "events.subscribe", "{\"events\":[\"sa.peer_moved\"]}");
	const struct dataplane_event event = {.kind = DATAPLANE_PEER_MOVED,
		.spi = 0x1000,
		.address = world_address("198.51.100.9"),
		.udp_source = 61000};
	control_dataplane_event(gateway->control, &event); // the SA is gone already
	assert_silence(gateway, fd);
	add_sa(gateway, fd, "in", 0x1000, 1, "");
	control_dataplane_event(gateway->control, &event);
	json_t *got = receive(gateway, fd);
	char *dumped = json_dumps(json_object_get(got, "params"), JSON_COMPACT);
	assert_string_equal(dumped,
		"{\"id\":1,\"tunnel\":\"tunnel01\","
		"\"direction\":\"in\",\"spi\":\"0x00001000\",\"source\":\"198.51.100.1\","
		"\"destination\":\"203.0.113.1\",\"udp_source_port\":null,"
		"\"new_source\":\"198.51.100.9\",\"new_udp_source_port\":61000,"
		"\"event\":\"sa.peer_moved\"}");
	control_free(dumped);
	json_decref(got);
	call_done(gateway, fd, "sa.update",
		"{\"direction\":\"in\",\"spi\":4096,\"source\":\"198.51.100.9\","
		"\"udp_encapsulation\":{\"source_port\":4500,\"destination_port\":4500}}");
	control_dataplane_event(gateway->control, &event);
	got = receive(gateway, fd);
	assert_int_equal(number_of(json_object_get(got, "params"), "udp_source_port"), 4500);
	json_decref(got);
	// Told before the agent had followed, arrived after it.
	call_done(gateway, fd, "sa.update",
		"{\"direction\":\"in\",\"spi\":4096,\"udp_encapsulation\":"
		"{\"source_port\":61000,\"destination_port\":4500}}");
	control_dataplane_event(gateway->control, &event);
	assert_silence(gateway, fd);
	close(fd);
}

// ---- clients that misbehave ----

static void test_a_slow_subscriber_gets_one_events_lost(void **state)
{
	struct gateway *gateway = *state;
	int fd = connect_client(gateway), other = connect_client(gateway);
	call_done(gateway, fd, "events.subscribe", "{}");
	const struct dataplane_event event = {.kind = DATAPLANE_NO_SA};
	enum { SENT = 20000 };
	for (unsigned int i = 0; i < SENT; i++) {
		control_dataplane_event(gateway->control, &event);
		event_base_loop(gateway->base, EVLOOP_NONBLOCK);
	}
	call_done(gateway, other, "stats", "{}"); // the others are unharmed
	unsigned int received = 0;
	json_int_t lost = 0;
	while (received + lost < SENT) {
		json_t *got = receive(gateway, fd);
		const json_t *params = json_object_get(got, "params");
		if (strcmp(text_of(params, "event"), "events.lost") == 0) {
			assert_int_equal(lost, 0);
			lost = number_of(params, "count");
		} else {
			received++;
		}
		json_decref(got);
	}
	assert_int_equal(received + lost, SENT);
	assert_true(lost > 1000);
	control_dataplane_event(gateway->control, &event); // and it goes on
	assert_event(receive(gateway, fd), "tunnel.no_sa", "(no text)");
	close(fd);
	close(other);
}

static void test_a_client_that_never_reads(void **state)
{
	struct gateway *gateway = *state;
	gateway->control->parts.write_timeout = 1;
	int fd = connect_client(gateway), other = connect_client(gateway);
	static const char request[] =
		"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"drops\",\"params\":{\"all\":true}}\n";
	static char requests[100 * sizeof(request)];
	for (unsigned int i = 0; i < 100; i++)
		strcat(requests, request);
	uint64_t begin = control_now(), sent_bytes = 0;
	bool ended = false;
	while (!ended && control_now() - begin < 20 * NANOSECONDS) {
		const char *rest = requests + sent_bytes % strlen(request);
		ssize_t sent = send(fd, rest, strlen(rest), MSG_NOSIGNAL);
		ended = sent < 0 && errno != EAGAIN;
		sent_bytes += sent > 0 ? (uint64_t)sent : 0;
		event_base_loop(gateway->base, EVLOOP_NONBLOCK);
	}
	// It was disconnected, and had not been let send more than the buffers of both hold.
	assert_true(ended);
	assert_true(sent_bytes < 600000);
	call_done(gateway, other, "stats", "{}");
	close(fd);
	close(other);
}

static void test_a_client_that_never_says_hello(void **state)
{
	struct gateway *gateway = *state;
	gateway->control->parts.hello_timeout = 1;
	int fd = connect_raw(gateway), polite = connect_client(gateway);
	assert_null(receive(gateway, fd));
	run_for(gateway, 1200); // who said it may be silent
	call_done(gateway, polite, "stats", "{}");
	close(fd);
	close(polite);
}

static void test_hundreds_of_clients(void **state)
{
	enum { CLIENTS = 300 };
	struct gateway *gateway = *state;
	int fds[CLIENTS];
	for (unsigned int i = 0; i < CLIENTS; i++)
		fds[i] = connect_client(gateway);
	for (unsigned int i = 0; i < 20; i++) {
		int fd = connect_raw(gateway);
		assert_error(receive(gateway, fd), -32002, "too_many_clients", NULL);
		assert_null(receive(gateway, fd));
		close(fd);
	}
	for (unsigned int i = 0; i < CLIENTS; i++)
		call_done(gateway, fds[i], "tunnel.list", "{}");
	for (unsigned int i = 0; i < CLIENTS; i++)
		close(fds[i]);
	run_for(gateway, 20);
	int fd = connect_client(gateway); // there is room again
	close(fd);
}

// ---- access, and other instances ----

static void test_who_is_admitted(void **state)
{
	(void)state;
	const gid_t groups[] = {20, 30};
	const struct peer peer = {.uid = 1000, .gid = 10, .groups = groups, .group_count = 2};
	const struct peer root = {0};
	assert_true(server_admits(&root, 500, 0600, 0));
	assert_true(server_admits(&peer, 1000, 0600, 0));
	assert_false(server_admits(&peer, 500, 0600, 10));
	assert_true(server_admits(&peer, 500, 0660, 10));
	assert_true(server_admits(&peer, 500, 0660, 30));
	assert_false(server_admits(&peer, 500, 0640, 30));
	assert_false(server_admits(&peer, 500, 0660, 40));
	assert_true(server_admits(&peer, 500, 0666, 40));
}

static void test_socket_file(void **state)
{
	struct gateway *gateway = *state;
	const char *path = gateway->world.config.gateway.control_socket;
	struct stat status;
	assert_int_equal(stat(path, &status), 0);
	assert_int_equal(status.st_mode & 07777, 0600);
	// A second instance says so, and harms nothing.
	struct control_error error;
	assert_null(control_create(&gateway->world.parts, gateway->base, &error));
	assert_non_null(strstr(error.text, "another espgw answers on "));
	assert_non_null(strstr(error.text, path));
	// With another socket, the shared directories tell.
	char kept[CONFIG_PATH_SIZE];
	snprintf(kept, sizeof(kept), "%s", path);
	snprintf(gateway->world.config.gateway.control_socket, CONFIG_PATH_SIZE, "%s/second.sock",
		gateway->world.directory);
	assert_null(control_create(&gateway->world.parts, gateway->base, &error));
	assert_non_null(strstr(error.text, "another espgw uses "));
	// What is no socket is not touched.
	int file = open(path, O_CREAT | O_WRONLY, 0600);
	close(file);
	assert_null(control_create(&gateway->world.parts, gateway->base, &error));
	assert_non_null(strstr(error.text, "is no socket"));
	assert_int_equal(unlink(path), 0);
	snprintf(gateway->world.config.gateway.control_socket, CONFIG_PATH_SIZE, "%s", kept);
	int fd = connect_client(gateway);
	call_done(gateway, fd, "stats", "{}");
	close(fd);
	// The file goes with the server.
	char directory[64];
	snprintf(directory, sizeof(directory), "%s", gateway->world.directory);
	gateway_stop(gateway);
	assert_int_not_equal(stat(kept, &status), 0);
	gateway_start(gateway, directory);
}

// ---- tunnels, routes, ports, counters ----

static void test_tunnels(void **state)
{
	struct gateway *gateway = *state;
	int fd = connect_client(gateway);
	struct telemetry_tunnel *counters = &gateway->world.telemetry->slot[0]->tunnels[0];
	counters->out_packets = 11;
	counters->in_bytes = 22;
	counters->drops[DROP_REPLAY] = 3;
	counters->drops[DROP_ICV] = 4;
	counters->probes_sent = 5;
	counters->echoes_answered = 6;
	json_t *result = call(gateway, fd, "tunnel.show", "{\"tunnel\":\"tunnel01\"}");
	char *dumped = json_dumps(json_object_get(result, "tunnel"), JSON_COMPACT);
	assert_string_equal(dumped,
		"{\"name\":\"tunnel01\",\"if_id\":101,\"gateway_endpoint\":\"203.0.113.1\","
		"\"customer_endpoint\":\"198.51.100.1\",\"interface_address\":"
		"\"169.254.244.2/30\",\"far_side\":\"aws\",\"mtu\":1438,\"path_mtu\":null,"
		"\"path_mtu_believed\":0,\"path_mtu_refused\":0,\"state\":\"down\","
		"\"sas_in\":0,\"sas_out\":0,\"in_age_seconds\":null,\"out_age_seconds\":null,"
		"\"rekey_in_seconds\":null,\"expiry_in_seconds\":null,\"health\":null,"
		"\"probes_sent\":5,\"echoes_answered\":6,\"out_packets\":11,\"out_"
		"bytes\":0,\"in_packets\":0,"
		"\"in_bytes\":22,\"drops\":{\"replay\":3,\"icv\":4},\"drop_total\":7,"
		"\"last_out_seconds\":null,\"last_in_seconds\":null}");
	control_free(dumped);
	json_decref(result);
	add_sa(gateway, fd, "out", 0x1000, 1, "\"lifetime\":{\"hard\":{\"packets\":1}}");
	result = call(gateway, fd, "tunnel.show", "{\"tunnel\":\"tunnel01\"}");
	assert_string_equal(text_of(json_object_get(result, "tunnel"), "state"), "half");
	json_decref(result);
	add_sa(gateway, fd, "in", 0x1000, 2, "");
	assert_int_equal(encapsulate(gateway, 0x1000, 1), 1);
	result = call(gateway, fd, "tunnel.list", "{\"limit\":1}");
	const json_t *tunnel = json_array_get(json_object_get(result, "tunnels"), 0);
	assert_string_equal(text_of(tunnel, "state"), "up");
	assert_int_equal(number_of(tunnel, "last_out_seconds"), 0);
	char params[64];
	snprintf(params, sizeof(params), "{\"limit\":1,\"after\":%d}",
		(int)number_of(result, "next"));
	json_decref(result);
	result = call(gateway, fd, "tunnel.list", params);
	assert_null(json_object_get(result, "next"));
	tunnel = json_array_get(json_object_get(result, "tunnels"), 0);
	assert_string_equal(text_of(tunnel, "name"), "tunnel02");
	json_decref(result);
	run_for(gateway, 30); // the outbound SA has used its only packet
	result = call(gateway, fd, "tunnel.show", "{\"tunnel\":\"tunnel01\"}");
	assert_string_equal(text_of(json_object_get(result, "tunnel"), "state"), "half");
	json_decref(result);
	call_fails(gateway, fd, "tunnel.show", "{\"tunnel\":\"tunnel03\"}", -32003,
		"no_such_tunnel", NULL);
	call_fails(gateway, fd, "tunnel.show", "{}", -32602, "bad_parameter", "tunnel");
	close(fd);
}

static void make_older(
	struct gateway *gateway, enum sa_direction direction, uint32_t spi, uint64_t nanoseconds)
{
	sa_find(gateway->world.parts.tunnels, direction, spi, NULL)->added -= nanoseconds;
}

static void assert_ages(struct gateway *gateway, int fd, const char *expected)
{
	static const char *const names[] = {
		"in_age_seconds", "out_age_seconds", "rekey_in_seconds", "expiry_in_seconds"};
	json_t *result = call(gateway, fd, "tunnel.show", "{\"tunnel\":\"tunnel01\"}");
	char text[128] = "";
	for (unsigned int i = 0; i < 4; i++) {
		const json_t *value = json_object_get(json_object_get(result, "tunnel"), names[i]);
		size_t used = strlen(text);
		if (json_is_integer(value))
			snprintf(text + used, sizeof(text) - used, "%lld ",
				(long long)json_integer_value(value));
		else
			snprintf(text + used, sizeof(text) - used, "%s ",
				json_is_null(value) ? "null" : "missing");
	}
	json_decref(result);
	assert_string_equal(text, expected);
}

static void test_ages_of_a_tunnels_sas(void **state)
{
	struct gateway *gateway = *state;
	int fd = connect_client(gateway);
	assert_ages(gateway, fd, "null null null null ");
	add_sa(gateway, fd, "out", 0x1000, 1, "");
	assert_ages(gateway, fd, "null 0 null null ");
	add_sa(gateway, fd, "out", 0x1001, 2,
		"\"lifetime\":{\"soft\":{\"seconds\":3000},\"hard\":{\"seconds\":3600}}");
	make_older(gateway, SA_OUTBOUND, 0x1000, 500 * NANOSECONDS);
	make_older(gateway, SA_OUTBOUND, 0x1001, 100 * NANOSECONDS);
	assert_ages(gateway, fd, "null 100 2900 3500 ");
	add_sa(gateway, fd, "in", 0x1000, 3,
		"\"lifetime\":{\"soft\":{\"seconds\":2000},\"hard\":{\"seconds\":7200}}");
	make_older(gateway, SA_INBOUND, 0x1000, 200 * NANOSECONDS);
	assert_ages(gateway, fd, "200 100 1800 3500 ");
	// The newest inbound SA counts, though the older one works on.
	add_sa(gateway, fd, "in", 0x1001, 4, "\"lifetime\":{\"hard\":{\"seconds\":600}}");
	make_older(gateway, SA_INBOUND, 0x1001, 10 * NANOSECONDS);
	assert_ages(gateway, fd, "10 100 2900 590 ");
	make_older(gateway, SA_OUTBOUND, 0x1001, 2900 * NANOSECONDS);
	assert_ages(gateway, fd, "10 3000 0 590 ");
	// Hard-expired ones do not count.
	make_older(gateway, SA_INBOUND, 0x1001, 590 * NANOSECONDS);
	make_older(gateway, SA_OUTBOUND, 0x1001, 600 * NANOSECONDS);
	run_for(gateway, 30);
	assert_ages(gateway, fd, "200 500 1800 7000 ");
	call_done(gateway, fd, "sa.flush", "{}");
	assert_ages(gateway, fd, "null null null null ");
	close(fd);
}

static void test_routes(void **state)
{
	static const struct {
		const char *params;
		int code;
		const char *name, *parameter;
	} bad[] = {
		{"{\"prefix\":\"10.0.0.0/8\"}", -32602, "bad_parameter", "tunnel"},
		{"{\"prefix\":\"10.0.0.1/8\",\"tunnel\":\"tunnel01\"}", -32602, "bad_parameter",
			"prefix"},
		{"{\"prefix\":\"10.0.0.0/8\",\"tunnel\":\"tunnel01\",\"port\":\"lan\"}", -32602,
			"bad_parameter", "tunnel"},
		{"{\"prefix\":\"10.0.0.0/8\",\"tunnel\":\"tunnel01\",\"next_hop\":\"10.0.0.1\"}",
			-32602, "bad_parameter", "next_hop"},
		{"{\"prefix\":\"10.0.0.0/8\",\"port\":\"lan\",\"next_hop\":\"::1\"}", -32602,
			"bad_parameter", "next_hop"},
		{"{\"prefix\":\"10.0.0.0/8\",\"port\":\"lan\",\"next_hop\":\"2001:db8::1\"}",
			-32602, "bad_parameter", "next_hop"},
		{"{\"prefix\":\"10.0.0.0/8\",\"tunnel\":\"tunnel01\",\"weight\":0}", -32602,
			"bad_parameter", "weight"},
		{"{\"prefix\":\"10.0.0.0/8\",\"tunnel\":\"tunnel01\",\"priority\":1000000001}",
			-32602, "bad_parameter", "priority"},
		{"{\"prefix\":\"10.0.0.0/8\",\"tunnel\":\"t\"}", -32003, "no_such_tunnel", NULL},
		{"{\"prefix\":\"10.0.0.0/8\",\"port\":\"dmz\"}", -32012, "no_such_port", NULL},
	};
	struct gateway *gateway = *state;
	int fd = connect_client(gateway);
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		call_fails(gateway, fd, "route.add", bad[i].params, bad[i].code, bad[i].name,
			bad[i].parameter);
	call_done(gateway, fd, "route.add",
		"{\"prefix\":\"192.168.192.0/26\",\"tunnel\":\"tunnel01\"}");
	call_done(gateway, fd, "route.add",
		"{\"prefix\":\"192.168.192.0/26\",\"tunnel\":\"tunnel02\",\"priority\":200}");
	call_done(gateway, fd, "route.add",
		"{\"prefix\":\"0.0.0.0/0\",\"port\":\"wan\",\"next_hop\":\"203.0.113.254\"}");
	call_done(gateway, fd, "route.add", "{\"prefix\":\"2001:db8::/32\",\"port\":\"lan\"}");
	struct route_target unhealthy = {ROUTE_TUNNEL, 0};
	assert_int_equal(route_set_penalty(gateway->world.routes, &unhealthy, 500000), 0);
	json_t *result = call(gateway, fd, "route.list", "{\"limit\":2}");
	assert_string_equal(text_of(result, "next"), "192.168.192.0/26");
	const json_t *list = json_object_get(result, "routes");
	assert_int_equal(json_array_size(list), 3); // a prefix is never cut in two
	char *dumped = json_dumps(list, JSON_COMPACT);
	assert_string_equal(dumped,
		"[{\"prefix\":\"0.0.0.0/0\",\"kind\":\"port\",\"port\":\"wan\",\"next_hop\":"
		"\"203.0.113.254\",\"origin\":\"agent\",\"priority\":100,\"penalty\":0,"
		"\"effective_priority\":100,\"weight\":1,\"best\":true},"
		"{\"prefix\":\"192.168.192.0/26\",\"kind\":\"tunnel\",\"tunnel\":\"tunnel01\","
		"\"origin\":\"agent\",\"priority\":100,\"penalty\":500000,"
		"\"effective_priority\":500100,\"weight\":1,\"best\":false},"
		"{\"prefix\":\"192.168.192.0/26\",\"kind\":\"tunnel\",\"tunnel\":\"tunnel02\","
		"\"origin\":\"agent\",\"priority\":200,\"penalty\":0,"
		"\"effective_priority\":200,\"weight\":1,\"best\":true}]");
	control_free(dumped);
	json_decref(result);
	result = call(gateway, fd, "route.list", "{\"after\":\"192.168.192.0/26\"}");
	list = json_object_get(result, "routes");
	assert_int_equal(json_array_size(list), 1);
	assert_string_equal(text_of(json_array_get(list, 0), "kind"), "connected");
	assert_null(json_object_get(result, "next"));
	json_decref(result);
	call_done(gateway, fd, "route.delete",
		"{\"prefix\":\"192.168.192.0/26\",\"tunnel\":\"tunnel01\"}");
	call_fails(gateway, fd, "route.delete",
		"{\"prefix\":\"192.168.192.0/26\",\"tunnel\":\"tunnel01\"}", -32010,
		"no_such_route", NULL);
	close(fd);
}

static void test_a_route_that_does_not_fit(void **state)
{
	struct gateway *gateway = *state;
	int fd = connect_client(gateway);
	for (unsigned int i = 0; i < 1000; i++) {
		char params[96];
		snprintf(params, sizeof(params),
			"{\"prefix\":\"10.%u.%u.0/24\",\"tunnel\":\"tunnel01\"}", i / 256, i % 256);
		call_done(gateway, fd, "route.add", params);
	}
	call_fails(gateway, fd, "route.add",
		"{\"prefix\":\"172.16.0.0/12\",\"tunnel\":\"tunnel01\"}", -32011, "route_refused",
		NULL);
	close(fd);
}

static void test_ports_and_counters(void **state)
{
	struct gateway *gateway = *state;
	int fd = connect_client(gateway);
	struct telemetry_slot *slot = gateway->world.telemetry->slot[0];
	slot->sources[0] = (struct telemetry_source){.received = 100,
		.received_bytes = 9000,
		.forwarded = 53,
		.to_host = 20,
		.split = 3};
	slot->sources[0].drops[DROP_REPLAY] = 25;
	slot->sources[TELEMETRY_SOURCE_TAP + 1].received = 7;
	slot->sources[TELEMETRY_SOURCE_TAP + 1].forwarded = 7;
	slot->queues[1].tx_packets = 57;
	slot->tunnels[1].drops[DROP_REPLAY] = 25;
	slot->loops = 1000;
	slot->busy = 5000;
	slot->started = rte_rdtsc() - 1000000;
	json_t *result = call(gateway, fd, "port.list", "{}");
	const json_t *port = json_array_get(json_object_get(result, "ports"), 1);
	assert_string_equal(text_of(port, "name"), "lan");
	assert_string_equal(text_of(port, "side"), "inside");
	assert_string_equal(text_of(port, "driver"), "net_test");
	assert_true(json_is_false(json_object_get(port, "link_up")));
	assert_int_equal(number_of(port, "tx_packets"), 57);
	assert_int_equal(json_array_size(json_object_get(port, "queues")), 1);
	json_decref(result);
	result = call(gateway, fd, "stats", "{}");
	const json_t *sources = json_object_get(result, "sources");
	assert_int_equal(json_array_size(sources), 6);
	const json_t *source = json_array_get(sources, 0);
	assert_string_equal(text_of(source, "source"), "port");
	assert_string_equal(text_of(source, "port"), "wan");
	assert_int_equal(number_of(source, "held"), 5);
	assert_int_equal(number_of(source, "split"), 3);
	assert_int_equal(number_of(json_object_get(source, "drops"), "replay"), 25);
	const json_t *totals = json_object_get(result, "totals");
	assert_int_equal(number_of(totals, "received"), 107);
	assert_int_equal(number_of(totals, "dropped"), 25);
	assert_int_equal(number_of(totals, "split"), 3);
	const json_t *worker = json_array_get(json_object_get(result, "workers"), 0);
	assert_int_equal(number_of(worker, "core"), 7);
	assert_int_equal(number_of(worker, "loops"), 1000);
	assert_int_equal(number_of(worker, "busy_cycles"), 5000);
	assert_true(number_of(worker, "cycles") >= 1000000);
	assert_string_equal(text_of(result, "crypto"), "ipsec-mb");
	json_decref(result);
	result = call(gateway, fd, "drops", "{}");
	const json_t *drops = json_object_get(result, "drops");
	assert_int_equal(json_array_size(drops), 1);
	const json_t *drop = json_array_get(drops, 0);
	assert_string_equal(text_of(drop, "reason"), "replay");
	assert_int_equal(number_of(drop, "packets"), 25);
	assert_int_equal(number_of(json_object_get(drop, "tunnels"), "tunnel02"), 25);
	json_decref(result);
	result = call(gateway, fd, "drops", "{\"all\":true}");
	assert_int_equal(json_array_size(json_object_get(result, "drops")), DROP_COUNT - 1);
	json_decref(result);
	call_fails(gateway, fd, "drops", "{\"all\":1}", -32602, "bad_parameter", "all");
	close(fd);
}

static bool stages_enabled(struct gateway *gateway, int fd, const char *parameters)
{
	json_t *result = call(gateway, fd, "stats.stages", parameters);
	bool enabled = json_is_true(json_object_get(result, "enabled"));
	// What is said is what the workers see.
	assert_int_equal(enabled, atomic_load(&gateway->world.telemetry->stages_wanted));
	json_decref(result);
	return enabled;
}

static void test_stages_are_counted_while_a_connection_wants_it(void **state)
{
	struct gateway *gateway = *state;
	int one = connect_client(gateway), two = connect_client(gateway);
	assert_false(stages_enabled(gateway, one, "{}"));
	assert_true(stages_enabled(gateway, one, "{\"enable\":true}"));
	assert_true(stages_enabled(gateway, one, "{\"enable\":true}"));
	assert_true(stages_enabled(gateway, one, "{}"));
	assert_true(stages_enabled(gateway, two, "{}")); // it only looks
	assert_true(stages_enabled(gateway, two, "{\"enable\":true}"));
	assert_true(stages_enabled(gateway, one, "{\"enable\":false}"));
	assert_true(stages_enabled(gateway, one, "{\"enable\":false}")); // two's is two's
	assert_false(stages_enabled(gateway, two, "{\"enable\":false}"));
	assert_true(stages_enabled(gateway, one, "{\"enable\":true}"));
	assert_true(stages_enabled(gateway, two, "{\"enable\":true}"));
	close(one);
	run_for(gateway, 20);
	assert_true(stages_enabled(gateway, two, "{}"));
	close(two);
	run_for(gateway, 20);
	assert_false(atomic_load(&gateway->world.telemetry->stages_wanted));
	int three = connect_client(gateway);
	assert_false(stages_enabled(gateway, three, "{}"));
	call_fails(gateway, three, "stats.stages", "{\"enable\":1}", -32602, "bad_parameter",
		"enable");
	close(three);
}

static void test_stages_are_listed(void **state)
{
	struct gateway *gateway = *state;
	int fd = connect_client(gateway);
	gateway->world.telemetry->slot[0]->stages[STAGE_ENCRYPT] =
		(struct telemetry_stage){.cycles = 64000, .bursts = 20, .packets = 640};
	json_t *result = call(gateway, fd, "stats.stages", "{}");
	assert_int_equal(number_of(result, "tsc_hz"), rte_get_tsc_hz());
	const json_t *workers = json_object_get(result, "workers");
	assert_int_equal(json_array_size(workers), 1);
	const json_t *worker = json_array_get(workers, 0);
	assert_int_equal(number_of(worker, "core"), 7);
	assert_in_range(rte_rdtsc() - number_of(worker, "tsc"), 0, rte_get_tsc_hz());
	const json_t *stages = json_object_get(worker, "stages");
	assert_int_equal(json_array_size(stages), STAGE_COUNT);
	assert_string_equal(text_of(json_array_get(stages, STAGE_IDLE), "stage"), "idle");
	const json_t *stage = json_array_get(stages, STAGE_ENCRYPT);
	assert_string_equal(text_of(stage, "stage"), "encrypt");
	assert_int_equal(number_of(stage, "cycles"), 64000);
	assert_int_equal(number_of(stage, "bursts"), 20);
	assert_int_equal(number_of(stage, "packets"), 640);
	json_decref(result);
	close(fd);
}

// ---- wiping ----

static void test_freed_memory_is_wiped(void **state)
{
	(void)state;
	json_malloc_t allocate;
	json_free_t release;
	json_get_alloc_funcs(&allocate, &release);
	// A block large enough that malloc keeps no list inside it but at its very start.
	char *block = allocate(4000);
	memset(block, 'k', 4000);
	char *inside = block + 1000;
	__asm__("" : "+r"(inside)); // the compiler must not know what it points to
	release(block);
#if !defined(__SANITIZE_ADDRESS__)
	for (unsigned int i = 0; i < 2000; i++)
		assert_int_equal(inside[i], 0);
#endif
}

// Before this process starts DPDK, another one does, and is killed.
static int kill_a_gateway(void)
{
	if (mkdtemp(killed_directory) == NULL)
		return -1;
	pid_t child = fork();
	if (child == 0)
		live_and_be_killed(killed_directory);
	int status;
	if (child < 0 || waitpid(child, &status, 0) != child)
		return -1;
	return WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL ? 0 : -1;
}

// What config.apply says, as "outcome changes errors".
static void assert_apply(struct gateway *gateway, int fd, const char *params, const char *outcome,
	unsigned int changes, unsigned int errors)
{
	json_t *result = call(gateway, fd, "config.apply", params);
	assert_string_equal(text_of(result, "outcome"), outcome);
	if (json_object_get(result, "change_count") != NULL)
		assert_int_equal(number_of(result, "change_count"), changes);
	assert_int_equal(number_of(result, "error_count"), errors);
	json_decref(result);
}

// The world's configuration in words, with one tunnel, or with two.
static char *world_text(const struct world *world, bool two, const char *more)
{
	const struct config_gateway *gateway = &world->config.gateway;
	char *text;
	int size = asprintf(&text,
		"{\"file\":\"t\",\"text\":\"gateway={name=\\\"test\\\";control_socket=\\\"%s\\\";"
		"run_directory=\\\"%s\\\";state_directory=\\\"%s\\\";max_sas=300;"
		"max_clients=300;%s};workers={cores=[0];};ports=({name=\\\"wan\\\";"
		"device=\\\"net_null0\\\";side=\\\"outside\\\";addresses=[\\\"203.0.113.1/"
		"24\\\"];},"
		"{name=\\\"lan\\\";device=\\\"net_null1\\\";side=\\\"inside\\\";});tunnels=("
		"{name=\\\"tunnel01\\\";if_id=101;gateway_endpoint=\\\"203.0.113.1\\\";"
		"customer_endpoint=\\\"198.51.100.1\\\";interface_address=\\\"169.254.244.2/"
		"30\\\";}"
		"%s);\"}",
		gateway->control_socket, gateway->run_directory, gateway->state_directory, more,
		two ? ",{name=\\\"tunnel02\\\";gateway_endpoint=\\\"203.0.113.1\\\";"
		      "customer_endpoint=\\\"198.51.100.2\\\";"
		      "interface_address=\\\"169.254.244.6/30\\\";}"
		    : "");
	assert_true(size > 0);
	return text;
}

static void test_config_apply(void **state)
{
	struct gateway *gateway = *state;
	struct world *world = &gateway->world;
	int fd = connect_client(gateway);
	call_fails(gateway, fd, "config.apply", "{}", -32602, "bad_parameter", "file");
	call_fails(gateway, fd, "config.apply", "{\"file\":\"relative\"}", -32602, "bad_parameter",
		"file");
	assert_apply(gateway, fd, "{\"file\":\"/nowhere\"}", "invalid", 0, 1);
	assert_apply(gateway, fd, "{\"text\":\"x = 1; y = 2;\"}", "invalid", 0, 4);
	// What differs from the world's in more than tunnels needs a restart.
	char *one = world_text(world, false, ""), *two = world_text(world, true, "");
	json_t *result = call(gateway, fd, "config.apply", two);
	assert_string_equal(text_of(result, "outcome"), "refused");
	assert_true(number_of(result, "error_count") > 3); // core, devices, memory, ...
	json_decref(result);
	// So the text's own becomes what runs.
	json_error_t error;
	json_t *params = json_loads(two, 0, &error);
	struct config *own = config_parse(text_of(params, "text"), "t", stderr);
	assert_non_null(own);
	json_decref(params);
	world->running = own;
	gateway->control->parts.config = own;
	assert_apply(gateway, fd, two, "unchanged", 0, 0);

	add_sa(gateway, fd, "in", 0x1000, 1, "");
	call_done(gateway, fd, "events.subscribe", "{\"events\":[\"config.applied\"]}");
	world->fail_apply = true;
	assert_apply(gateway, fd, one, "failed", 1, 1);
	world->fail_apply = false;
	params = json_loads(one, 0, &error);
	json_object_set_new(params, "check", json_true());
	char *check = json_dumps(params, JSON_COMPACT);
	assert_apply(gateway, fd, check, "checked", 1, 0);
	control_free(check);
	json_decref(params);
	result = call(gateway, fd, "tunnel.show", "{\"tunnel\":\"tunnel02\"}");
	json_decref(result);

	// The reply may come before the event or after it.
	char *line;
	assert_true(asprintf(&line,
			    "{\"jsonrpc\":\"2.0\",\"id\":9,\"method\":\"config.apply\","
			    "\"params\":%s}\n",
			    one) > 0);
	send_all(gateway, fd, line, strlen(line));
	bool replied = false, told = false;
	for (int i = 0; i < 2; i++) {
		json_t *message = receive(gateway, fd);
		const json_t *reply = json_object_get(message, "result");
		replied |= reply != NULL && strcmp(text_of(reply, "outcome"), "applied") == 0;
		told |= reply == NULL &&
			strcmp(text_of(json_object_get(message, "params"), "event"),
				"config.applied") == 0;
		json_decref(message);
	}
	assert_true(replied && told);
	call_fails(gateway, fd, "tunnel.show", "{\"tunnel\":\"tunnel02\"}", -32003,
		"no_such_tunnel", NULL);
	free(line);
	free(one);
	free(two);
	close(fd);
}

// A file is read with the gateway's rights: not for everybody who may use the socket.
static void test_only_root_names_a_file(void **state)
{
	struct gateway *gateway = *state;
	struct session session = {.greeted = true};
	static const char line[] = "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"config.apply\","
				   "\"params\":{\"file\":\"/etc/shadow\"}}";
	char *reply = request_handle(gateway->control, &session, line, strlen(line));
	assert_non_null(strstr(reply, "not_permitted"));
	control_free(reply);
	session.is_root = true;
	reply = request_handle(gateway->control, &session, line, strlen(line));
	assert_non_null(strstr(reply, "\"invalid\""));
	control_free(reply);
}

#define TEST(function) cmocka_unit_test_setup_teardown(function, setup, teardown)

int main(void)
{
	control_memory_init();
	if (kill_a_gateway() != 0 || test_eal_start("256") != 0)
		return 1;
	const struct CMUnitTest tests[] = {
		TEST(test_hello_comes_first),
		TEST(test_bad_requests),
		TEST(test_long_lines),
		TEST(test_many_requests_at_once_keep_their_order),
		TEST(test_spi_reservations),
		TEST(test_sa_add_show_list_delete),
		TEST(test_pages),
		TEST(test_sa_add_refuses_bad_parameters),
		TEST(test_spis_as_text),
		TEST(test_keys_are_never_repeated_in_errors),
		TEST(test_repeated_and_conflicting_adds),
		TEST(test_too_many_sas),
		TEST(test_sa_update),
		TEST(test_rules_for_keys),
		TEST(test_a_key_without_record_is_refused),
		TEST(test_records_are_reused_oldest_first),
		TEST(test_records_outlive_a_smaller_configuration),
		TEST(test_store_after_a_crash),
		TEST(test_a_damaged_store_refuses),
		TEST(test_a_store_that_is_removed_while_it_runs),
		cmocka_unit_test(test_hmac_vectors),
		TEST(test_a_restart_does_not_reopen_replay),
		cmocka_unit_test(test_a_killed_gateway),
		TEST(test_lifetime_in_seconds),
		TEST(test_lifetime_in_packets_and_bytes),
		TEST(test_sequence_numbers_end),
		TEST(test_packets_per_key),
		TEST(test_the_health_of_a_tunnel_is_shown_and_told),
		TEST(test_data_plane_events_reach_subscribers),
		TEST(test_a_move_is_told),
		TEST(test_a_slow_subscriber_gets_one_events_lost),
		TEST(test_a_client_that_never_reads),
		TEST(test_a_client_that_never_says_hello),
		TEST(test_hundreds_of_clients),
		cmocka_unit_test(test_who_is_admitted),
		TEST(test_socket_file),
		TEST(test_tunnels),
		TEST(test_ages_of_a_tunnels_sas),
		TEST(test_routes),
		TEST(test_a_route_that_does_not_fit),
		TEST(test_ports_and_counters),
		TEST(test_config_apply),
		TEST(test_only_root_names_a_file),
		TEST(test_stages_are_counted_while_a_connection_wants_it),
		TEST(test_stages_are_listed),
		cmocka_unit_test(test_freed_memory_is_wiped),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
