// SPDX-License-Identifier: GPL-2.0-or-later
// Copyright (c) 2026 the espgw authors

// What the charon plugin does with a gateway that goes away, stalls, restarts and loses answers.
// The gateway is a thread that keeps SAs, and obeys the test; charon is the test itself.

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
#include <stdatomic.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "gateway.h"

#define CALL_MS     300 // the plugin's timeout of a call
#define PATIENCE_MS 8000
#define REPEAT_MS   3000 // as the plugin has it
#define PEERS_MAX   16
#define SAS_MAX     32
#define LINE_BYTES  65536
#define LOCAL       "203.0.113.1"
#define REMOTE      "203.0.113.11"

// For all that is static here. Its owner is known, so that what fails under it does not block.
static pthread_mutex_t mutex = PTHREAD_ERRORCHECK_MUTEX_INITIALIZER_NP;

// ---- the gateway ----

// What becomes of the next sa.add of an outbound SA.
enum fate {
	FATE_GOOD,
	FATE_IGNORED, // neither carried out nor answered
	FATE_UNTOLD,  // carried out, but not answered, and nothing is from then on
	FATE_REFUSED,
};

struct peer {
	int fd;
	bool subscribed;
	char line[LINE_BYTES];
	size_t length;
};

static struct {
	char path[108];
	int listener; // -1 = away
	int epoch;
	enum fate fate;
	bool silent;  // answers nothing at all
	int stalls;   // so many sa.delete are carried out by nobody, and make it silent
	int refusals; // so many sa.list are refused
	struct peer *peers[PEERS_MAX];
	json_t *sas;    // those it has
	json_t *writes; // every sa.add that came, with its key
	json_t *calls;  // names of all other methods that change something, with their parameters
	bool stop;
	pthread_t thread;
} fake;

static void send_line(int fd, json_t *message)
{
	char *text = json_dumps(message, JSON_COMPACT);
	dprintf(fd, "%s\n", text);
	free(text);
	json_decref(message);
}

static void answer(const struct peer *peer, json_int_t id, json_t *result)
{
	send_line(peer->fd,
		json_pack("{s:s, s:I, s:o}", "jsonrpc", "2.0", "id", id, "result", result));
}

static void refuse(const struct peer *peer, json_int_t id, const char *name)
{
	send_line(
		peer->fd, json_pack("{s:s, s:I, s:{s:i, s:s, s:{s:s}}}", "jsonrpc", "2.0", "id", id,
				  "error", "code", -32006, "message", "no", "data", "name", name));
}

// Its place among the gateway's SAs; json_array_size() = it is not there.
static size_t fake_find(const json_t *params)
{
	size_t i;
	const json_t *sa;
	json_array_foreach (fake.sas, i, sa) {
		if (json_equal(json_object_get(sa, "spi"), json_object_get(params, "spi")) &&
			json_equal(json_object_get(sa, "direction"),
				json_object_get(params, "direction")))
			break;
	}
	return i;
}

static void fake_take(const json_t *params)
{
	json_t *sa = json_deep_copy(params);
	json_object_del(sa, "key");
	json_object_del(sa, "salt");
	json_object_set_new(sa, "state", json_string("active"));
	json_array_append_new(fake.sas, sa);
}

static void fake_add(const struct peer *peer, json_int_t id, const json_t *params)
{
	json_array_append_new(fake.writes, json_deep_copy(params));
	bool out = strcmp(json_string_value(json_object_get(params, "direction")), "out") == 0;
	enum fate fate = out ? fake.fate : FATE_GOOD;
	if (out)
		fake.fate = FATE_GOOD;
	if (fate == FATE_REFUSED)
		refuse(peer, id, "key_seen");
	if (fate == FATE_GOOD || fate == FATE_UNTOLD)
		fake_take(params);
	fake.silent = fate == FATE_UNTOLD;
	if (fate == FATE_GOOD)
		answer(peer, id, json_pack("{s:i, s:b}", "id", 1, "already", 0));
}

static void fake_change(
	const struct peer *peer, json_int_t id, const char *method, const json_t *params)
{
	json_array_append_new(
		fake.calls, json_pack("{s:s, s:O}", "method", method, "params", params));
	bool is_delete = strcmp(method, "sa.delete") == 0;
	if (is_delete && fake.stalls > 0) {
		fake.stalls--;
		fake.silent = true;
		return;
	}
	size_t place = fake_find(params);
	if (place == json_array_size(fake.sas)) {
		refuse(peer, id, "no_such_sa");
		return;
	}
	json_t *sa = json_array_get(fake.sas, place);
	if (is_delete) {
		json_array_remove(fake.sas, place);
	} else {
		json_object_set(sa, "source", json_object_get(params, "source"));
		json_object_set(sa, "destination", json_object_get(params, "new_destination"));
		json_object_set(
			sa, "udp_encapsulation", json_object_get(params, "udp_encapsulation"));
	}
	answer(peer, id, json_object());
}

static json_t *fake_tunnels(void)
{
	return json_pack("{s:[{s:s, s:i, s:s, s:s}, {s:s, s:i, s:s, s:s}]}", "tunnels", "name",
		"tunnel01", "if_id", 1, "gateway_endpoint", LOCAL, "customer_endpoint", REMOTE,
		"name", "tunnel02", "if_id", 2, "gateway_endpoint", LOCAL, "customer_endpoint",
		"203.0.113.12");
}

static void fake_carry_out(
	struct peer *peer, json_int_t id, const char *method, const json_t *params)
{
	char epoch[17];
	snprintf(epoch, sizeof(epoch), "%016d", fake.epoch);
	if (strcmp(method, "hello") == 0) {
		answer(peer, id,
			json_pack("{s:i, s:s, s:s, s:s, s:s}", "protocol", 1, "server", "espgw",
				"version", "0", "epoch", epoch, "name", "fake"));
	} else if (strcmp(method, "events.subscribe") == 0) {
		peer->subscribed = true;
		answer(peer, id, json_object());
	} else if (strcmp(method, "tunnel.list") == 0) {
		answer(peer, id, fake_tunnels());
	} else if (strcmp(method, "sa.list") == 0 && fake.refusals > 0) {
		fake.refusals--;
		refuse(peer, id, "internal");
	} else if (strcmp(method, "sa.list") == 0) {
		answer(peer, id, json_pack("{s:O}", "sas", fake.sas));
	} else if (strcmp(method, "sa.show") == 0) {
		answer(peer, id,
			json_pack("{s:{s:i, s:i, s:i}}", "sa", "bytes", 1000, "packets", 10,
				"idle_seconds", 1));
	} else if (strcmp(method, "sa.add") == 0) {
		fake_add(peer, id, params);
	} else if (strcmp(method, "sa.delete") == 0 || strcmp(method, "sa.update") == 0) {
		fake_change(peer, id, method, params);
	} else if (strcmp(method, "spi.release") == 0) {
		json_array_append_new(
			fake.calls, json_pack("{s:s, s:O}", "method", method, "params", params));
		answer(peer, id, json_object());
	} else {
		refuse(peer, id, "unknown_method");
	}
}

static void fake_line(struct peer *peer)
{
	json_t *request = json_loads(peer->line, 0, NULL);
	if (!fake.silent)
		fake_carry_out(peer, json_integer_value(json_object_get(request, "id")),
			json_string_value(json_object_get(request, "method")),
			json_object_get(request, "params"));
	json_decref(request);
}

static void peer_close(struct peer **peer)
{
	close((*peer)->fd);
	free(*peer);
	*peer = NULL;
}

static void peer_read(struct peer **peer)
{
	char byte;
	while (recv(((*peer)->fd), &byte, 1, MSG_DONTWAIT) == 1) {
		if (byte != '\n') {
			(*peer)->line[(*peer)->length++] = byte;
			continue;
		}
		(*peer)->line[(*peer)->length] = '\0';
		(*peer)->length = 0;
		fake_line(*peer);
	}
	if (recv((*peer)->fd, &byte, 1, MSG_DONTWAIT | MSG_PEEK) == 0)
		peer_close(peer);
}

static void fake_accept(void)
{
	int fd = fake.listener < 0 ? -1 : accept4(fake.listener, NULL, NULL, SOCK_NONBLOCK);
	for (size_t i = 0; fd >= 0 && i < PEERS_MAX; i++) {
		if (fake.peers[i] == NULL) {
			fake.peers[i] = calloc(1, sizeof(struct peer));
			fake.peers[i]->fd = fd;
			return;
		}
	}
}

static void *fake_run(void *unused)
{
	(void)unused;
	for (;;) {
		pthread_mutex_lock(&mutex);
		bool stop = fake.stop;
		fake_accept();
		for (size_t i = 0; i < PEERS_MAX; i++) {
			if (fake.peers[i] != NULL)
				peer_read(&fake.peers[i]);
		}
		pthread_mutex_unlock(&mutex);
		if (stop)
			return NULL;
		poll(NULL, 0, 1);
	}
}

static void fake_leave(void)
{
	pthread_mutex_lock(&mutex);
	close(fake.listener);
	fake.listener = -1;
	unlink(fake.path);
	for (size_t i = 0; i < PEERS_MAX; i++) {
		if (fake.peers[i] != NULL)
			peer_close(&fake.peers[i]);
	}
	pthread_mutex_unlock(&mutex);
}

static void fake_come(void)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	strcpy(address.sun_path, fake.path);
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0);
	assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof(address)), 0);
	assert_int_equal(listen(fd, PEERS_MAX), 0);
	pthread_mutex_lock(&mutex);
	fake.listener = fd;
	pthread_mutex_unlock(&mutex);
}

// As a process that is killed and started.
static void fake_restart(void)
{
	fake_leave();
	pthread_mutex_lock(&mutex);
	fake.epoch++;
	json_array_clear(fake.sas);
	pthread_mutex_unlock(&mutex);
	fake_come();
}

static void fake_event(json_t *event)
{
	pthread_mutex_lock(&mutex);
	for (size_t i = 0; i < PEERS_MAX; i++) {
		if (fake.peers[i] != NULL && fake.peers[i]->subscribed)
			send_line(fake.peers[i]->fd, json_pack("{s:s, s:s, s:O}", "jsonrpc", "2.0",
							     "method", "event", "params", event));
	}
	pthread_mutex_unlock(&mutex);
	json_decref(event);
}

// ---- charon ----

static struct {
	int soft, hard, acquired, mapped; // how often
	uint32_t spi, reqid;              // of the last
	char destination[INET6_ADDRSTRLEN], source[INET6_ADDRSTRLEN];
	uint16_t port;
	int repeat_ms;
	struct gateway *gateway;
	struct traps *traps;
	pthread_t thread;
} agent;

static void tell_expire(uint32_t spi, const char *destination, bool hard)
{
	pthread_mutex_lock(&mutex);
	*(hard ? &agent.hard : &agent.soft) += 1;
	agent.spi = spi;
	snprintf(agent.destination, sizeof(agent.destination), "%s", destination);
	pthread_mutex_unlock(&mutex);
}

static void tell_acquire(uint32_t reqid)
{
	pthread_mutex_lock(&mutex);
	agent.acquired++;
	agent.reqid = reqid;
	pthread_mutex_unlock(&mutex);
}

static void tell_mapping(uint32_t spi, const char *destination, const char *source, uint16_t port)
{
	pthread_mutex_lock(&mutex);
	agent.mapped++;
	agent.spi = spi;
	agent.port = port;
	snprintf(agent.destination, sizeof(agent.destination), "%s", destination);
	snprintf(agent.source, sizeof(agent.source), "%s", source);
	pthread_mutex_unlock(&mutex);
}

static atomic_bool key_logged;
static atomic_int duplicates_logged;

static void write_log(int level, const char *text)
{
	if (getenv("CHARON_ESPGW_LOG") != NULL)
		fprintf(stderr, "%d %s\n", level, text);
	if (strstr(text, "4242424242") != NULL)
		atomic_store(&key_logged, true);
	if (strstr(text, "there is another one with this SPI") != NULL)
		atomic_fetch_add(&duplicates_logged, 1);
}

static void *agent_run(void *unused)
{
	(void)unused;
	gateway_run(agent.gateway);
	return NULL;
}

static void agent_start(void)
{
	const struct gateway_hooks hooks = {.expire = tell_expire,
		.acquire = tell_acquire,
		.mapping = tell_mapping,
		.log = write_log};
	const struct gateway_settings settings = {
		.socket = fake.path, .timeout_ms = CALL_MS, .repeat_ms = agent.repeat_ms};
	agent.traps = traps_create();
	agent.gateway = gateway_create(&settings, &hooks, agent.traps);
	assert_non_null(agent.gateway);
	pthread_create(&agent.thread, NULL, agent_run, NULL);
}

static void agent_stop(void)
{
	gateway_stop(agent.gateway);
	pthread_join(agent.thread, NULL);
	gateway_destroy(agent.gateway);
	traps_destroy(agent.traps);
}

// ---- what the tests say ----

static int setup(void **state)
{
	(void)state;
	memset(&agent, 0, sizeof(agent));
	memset(&fake, 0, sizeof(fake));
	agent.repeat_ms = REPEAT_MS;
	atomic_store(&duplicates_logged, 0);
	snprintf(fake.path, sizeof(fake.path), "/tmp/charon_espgw_test.%d", getpid());
	fake.listener = -1;
	fake.epoch = 1;
	fake.sas = json_array();
	fake.writes = json_array();
	fake.calls = json_array();
	pthread_create(&fake.thread, NULL, fake_run, NULL);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	pthread_mutex_lock(&mutex); // refused to a test that failed while it had it
	pthread_mutex_unlock(&mutex);
	agent_stop();
	pthread_mutex_lock(&mutex);
	fake.stop = true;
	pthread_mutex_unlock(&mutex);
	pthread_join(fake.thread, NULL);
	fake_leave();
	json_decref(fake.sas);
	json_decref(fake.writes);
	json_decref(fake.calls);
	return atomic_load(&key_logged) ? -1 : 0;
}

// Waits until `condition`, which is looked at under the lock.
#define WAIT_UNTIL(condition)                                                      \
	do {                                                                       \
		bool met = false;                                                  \
		for (int waited = 0; !met && waited < PATIENCE_MS; waited += 5) {  \
			pthread_mutex_lock(&mutex);                                \
			met = (condition);                                         \
			pthread_mutex_unlock(&mutex);                              \
			if (!met)                                                  \
				poll(NULL, 0, 5);                                  \
		}                                                                  \
		if (!met)                                                          \
			fail_msg("not within %d ms: %s", PATIENCE_MS, #condition); \
	} while (0)

// Two connections, and so the plugin is ready.
static int connected(void)
{
	int count = 0;
	for (size_t i = 0; i < PEERS_MAX; i++)
		count += fake.peers[i] != NULL;
	return count;
}

static void both_start(void)
{
	fake_come();
	agent_start();
	WAIT_UNTIL(connected() == 2);
	// A call that is answered: the connection is in use.
	uint32_t spi;
	while (gateway_reserve_spi(agent.gateway, &spi))
		;
	poll(NULL, 0, 50);
}

static int written(uint32_t spi)
{
	char text[16];
	int count = 0;
	size_t i;
	const json_t *params;
	snprintf(text, sizeof(text), "0x%08x", spi);
	json_array_foreach (fake.writes, i, params)
		count += strcmp(json_string_value(json_object_get(params, "spi")), text) == 0;
	return count;
}

static int called(const char *method, uint32_t spi)
{
	char text[16];
	int count = 0;
	size_t i;
	const json_t *call;
	snprintf(text, sizeof(text), "0x%08x", spi);
	json_array_foreach (fake.calls, i, call) {
		const json_t *params = json_object_get(call, "params");
		count += strcmp(json_string_value(json_object_get(call, "method")), method) == 0 &&
			 strcmp(json_string_value(json_object_get(params, "spi")), text) == 0;
	}
	return count;
}

static bool add_living(enum espgw_direction direction, uint32_t spi,
	const struct espgw_lifetime *soft, const struct espgw_lifetime *hard)
{
	struct sa sa = {.direction = direction,
		.spi = spi,
		.if_id = 1,
		.reqid = 7,
		.soft = *soft,
		.hard = *hard};
	bool in = direction == ESPGW_IN;
	strcpy(sa.outer.source, in ? REMOTE : LOCAL);
	strcpy(sa.outer.destination, in ? LOCAL : REMOTE);
	memset(sa.key, 0x42, sizeof(sa.key));
	return gateway_add_sa(agent.gateway, &sa);
}

static bool add(enum espgw_direction direction, uint32_t spi)
{
	const struct espgw_lifetime endless = {0};
	return add_living(direction, spi, &endless, &endless);
}

// What the newest sa.add gave; 0 = no limit.
static json_int_t written_limit(const char *kind, const char *unit)
{
	const json_t *params = json_array_get(fake.writes, json_array_size(fake.writes) - 1);
	const json_t *lifetime = json_object_get(params, "lifetime");
	return json_integer_value(json_object_get(json_object_get(lifetime, kind), unit));
}

static bool known(uint32_t spi, const char *destination)
{
	uint64_t bytes, packets;
	int64_t used_at;
	return gateway_query_sa(agent.gateway, spi, destination, &bytes, &packets, &used_at);
}

static void stranger(const char *tunnel, const char *direction, uint32_t spi)
{
	char text[16];
	snprintf(text, sizeof(text), "0x%08x", spi);
	json_array_append_new(
		fake.sas, json_pack("{s:s, s:s, s:s, s:s, s:s, s:s}", "tunnel", tunnel, "direction",
				  direction, "spi", text, "source", LOCAL, "destination", REMOTE,
				  "state", "active"));
}

static size_t held(void)
{
	return json_array_size(fake.sas);
}

static json_t *sa_event(const char *event, const char *direction, const char *spi)
{
	return json_pack("{s:s, s:s, s:s, s:s, s:s, s:i}", "event", event, "tunnel", "tunnel01",
		"direction", direction, "spi", spi, "new_source", "198.51.100.7",
		"new_udp_source_port", 61000);
}

// ---- tests ----

static void test_add_and_delete(void **state)
{
	(void)state;
	both_start();
	assert_true(add(ESPGW_IN, 0x1001));
	assert_true(add(ESPGW_OUT, 0x2001));
	pthread_mutex_lock(&mutex);
	assert_int_equal(held(), 2);
	const json_t *out = json_array_get(fake.writes, 1);
	assert_string_equal(json_string_value(json_object_get(out, "tunnel")), "tunnel01");
	assert_string_equal(json_string_value(json_object_get(out, "key")),
		"4242424242424242424242424242424242424242424242424242424242424242");
	pthread_mutex_unlock(&mutex);
	assert_false(add(ESPGW_OUT, 0x2001)); // it is there already
	assert_int_equal(atomic_load(&duplicates_logged), 1);
	assert_true(gateway_delete_sa(agent.gateway, 0x2001, REMOTE));
	assert_true(gateway_delete_sa(agent.gateway, 0x1001, LOCAL));
	assert_false(gateway_delete_sa(agent.gateway, 0x1001, LOCAL));
	pthread_mutex_lock(&mutex);
	assert_int_equal(held(), 0);
	pthread_mutex_unlock(&mutex);
}

static void test_refusal_is_told(void **state)
{
	(void)state;
	both_start();
	pthread_mutex_lock(&mutex);
	fake.fate = FATE_REFUSED;
	pthread_mutex_unlock(&mutex);
	assert_false(add(ESPGW_OUT, 0x2001));
	assert_false(gateway_delete_sa(agent.gateway, 0x2001, REMOTE));
}

static void test_kept_while_away(void **state)
{
	(void)state;
	agent_start();
	assert_true(add(ESPGW_IN, 0x1001));
	assert_true(add(ESPGW_OUT, 0x2001));
	assert_true(add(ESPGW_OUT, 0x2002));
	fake_come();
	WAIT_UNTIL(held() == 3);
	pthread_mutex_lock(&mutex);
	// In the order they came: the newest outbound one carries the traffic.
	assert_string_equal(json_string_value(json_object_get(json_array_get(fake.sas, 2), "spi")),
		"0x00002002");
	assert_int_equal(written(0x2001) + written(0x2002), 2);
	assert_int_equal(agent.soft, 0);
	pthread_mutex_unlock(&mutex);
}

// The gateway never got it, or did it? Its key must not be written again either way.
static void test_unanswered_add(void **state)
{
	(void)state;
	both_start();
	assert_true(add(ESPGW_IN, 0x1001));
	pthread_mutex_lock(&mutex);
	fake.fate = FATE_IGNORED;
	pthread_mutex_unlock(&mutex);
	assert_true(add(ESPGW_OUT, 0x2001));
	WAIT_UNTIL(agent.soft == 1);
	pthread_mutex_lock(&mutex);
	assert_int_equal(agent.spi, 0x2001);
	assert_string_equal(agent.destination, REMOTE);
	pthread_mutex_unlock(&mutex);
	// charon may have been busy with this very SA: it is told again.
	WAIT_UNTIL(agent.soft == 2);
	assert_int_equal(written(0x2001), 1);
	assert_int_equal(written(0x1001), 1);
}

static void test_unanswered_add_that_worked(void **state)
{
	(void)state;
	both_start();
	pthread_mutex_lock(&mutex);
	fake.fate = FATE_UNTOLD;
	pthread_mutex_unlock(&mutex);
	assert_true(add(ESPGW_OUT, 0x2001));
	// What is changed before the outcome is known is made up for.
	struct sa_outer outer = {LOCAL, REMOTE, 4500, 61000};
	assert_true(gateway_update_sa(agent.gateway, 0x2001, REMOTE, &outer));
	pthread_mutex_lock(&mutex);
	fake.silent = false;
	pthread_mutex_unlock(&mutex);
	WAIT_UNTIL(called("sa.update", 0x2001) == 1);
	assert_true(add(ESPGW_IN, 0x1001));
	WAIT_UNTIL(held() == 2);
	poll(NULL, 0, 200);
	pthread_mutex_lock(&mutex);
	assert_int_equal(written(0x2001), 1);
	assert_int_equal(called("sa.update", 0x2001), 1);
	assert_int_equal(agent.soft, 0);
	pthread_mutex_unlock(&mutex);
	assert_true(gateway_delete_sa(agent.gateway, 0x2001, REMOTE));
	WAIT_UNTIL(called("sa.delete", 0x2001) == 1);
}

static void test_restart_of_the_gateway(void **state)
{
	(void)state;
	both_start();
	assert_true(add(ESPGW_IN, 0x1001));
	assert_true(add(ESPGW_OUT, 0x2001));
	uint64_t bytes, packets;
	int64_t used_at;
	assert_true(gateway_query_sa(agent.gateway, 0x1001, LOCAL, &bytes, &packets, &used_at));
	assert_int_equal(bytes, 1000);
	fake_restart();
	WAIT_UNTIL(agent.soft == 1);
	WAIT_UNTIL(written(0x1001) == 2);
	pthread_mutex_lock(&mutex);
	assert_int_equal(agent.spi, 0x2001); // one for the child SA, by its outbound SA
	assert_int_equal(written(0x2001), 1);
	assert_int_equal(held(), 1);
	pthread_mutex_unlock(&mutex);
	// Its count goes on from where it was.
	WAIT_UNTIL(connected() == 2);
	assert_true(gateway_query_sa(agent.gateway, 0x1001, LOCAL, &bytes, &packets, &used_at));
	assert_int_equal(bytes, 2000);
	assert_int_equal(packets, 20);
	// charon's rekeying replaces the lost one: that is the end of it.
	assert_true(add(ESPGW_OUT, 0x2002));
	assert_true(gateway_delete_sa(agent.gateway, 0x2001, REMOTE));
	poll(NULL, 0, 3200);
	pthread_mutex_lock(&mutex);
	assert_int_equal(agent.soft, 1);
	assert_int_equal(written(0x2002), 1);
	pthread_mutex_unlock(&mutex);
}

// The same gateway, another connection: what charon did meanwhile is done now.
static void test_changes_while_away(void **state)
{
	(void)state;
	both_start();
	assert_true(add(ESPGW_IN, 0x1001));
	assert_true(add(ESPGW_IN, 0x1002));
	assert_true(add(ESPGW_OUT, 0x2001));
	fake_leave();
	assert_true(gateway_delete_sa(agent.gateway, 0x1001, LOCAL));
	struct sa_outer outer = {LOCAL, "198.51.100.7", 4500, 61000};
	assert_true(gateway_update_sa(agent.gateway, 0x2001, REMOTE, &outer));
	fake_come();
	WAIT_UNTIL(called("sa.delete", 0x1001) == 1);
	WAIT_UNTIL(called("sa.update", 0x2001) == 1);
	pthread_mutex_lock(&mutex);
	assert_int_equal(held(), 2);
	const json_t *update = NULL, *call;
	size_t i;
	json_array_foreach (fake.calls, i, call) {
		if (strcmp(json_string_value(json_object_get(call, "method")), "sa.update") == 0)
			update = json_object_get(call, "params");
	}
	assert_string_equal(json_string_value(json_object_get(update, "destination")), REMOTE);
	assert_string_equal(
		json_string_value(json_object_get(update, "new_destination")), "198.51.100.7");
	assert_int_equal(written(0x2001), 1);
	assert_int_equal(agent.soft, 0);
	pthread_mutex_unlock(&mutex);
	assert_true(gateway_delete_sa(agent.gateway, 0x2001, "198.51.100.7"));
}

static void test_lost_behind_our_back(void **state)
{
	(void)state;
	both_start();
	assert_true(add(ESPGW_IN, 0x1001));
	assert_true(add(ESPGW_OUT, 0x2001));
	assert_true(known(0x1001, LOCAL)); // 1000 bytes
	fake_leave();
	pthread_mutex_lock(&mutex);
	json_array_clear(fake.sas);
	pthread_mutex_unlock(&mutex);
	fake_come();
	WAIT_UNTIL(agent.soft == 1 && written(0x1001) == 2);
	assert_int_equal(written(0x2001), 1);
	// The new one counts from 0.
	WAIT_UNTIL(connected() == 2);
	uint64_t bytes, packets;
	int64_t used_at;
	assert_true(gateway_query_sa(agent.gateway, 0x1001, LOCAL, &bytes, &packets, &used_at));
	assert_int_equal(bytes, 2000);
}

// SAs of an earlier charon carry traffic until ours do, both ways.
static void test_strangers(void **state)
{
	(void)state;
	stranger("tunnel01", "in", 0x3001);
	stranger("tunnel01", "out", 0x3002);
	stranger("tunnel02", "out", 0x3003);
	both_start();
	assert_true(add(ESPGW_IN, 0x1001));
	poll(NULL, 0, 100);
	pthread_mutex_lock(&mutex);
	assert_int_equal(json_array_size(fake.calls), 0);
	pthread_mutex_unlock(&mutex);
	assert_true(add(ESPGW_OUT, 0x2001));
	WAIT_UNTIL(called("sa.delete", 0x3002) == 1);
	poll(NULL, 0, 100);
	pthread_mutex_lock(&mutex);
	assert_int_equal(called("sa.delete", 0x3001), 0); // packets may be on their way to it
	assert_int_equal(called("sa.delete", 0x3003), 0); // not charon's tunnel
	pthread_mutex_unlock(&mutex);
}

static void test_silent_gateway(void **state)
{
	(void)state;
	both_start();
	assert_true(add(ESPGW_IN, 0x1001));
	pthread_mutex_lock(&mutex);
	fake.silent = true;
	pthread_mutex_unlock(&mutex);
	struct timespec before, after;
	clock_gettime(CLOCK_MONOTONIC, &before);
	for (uint32_t spi = 0x2001; spi < 0x2010; spi++)
		assert_true(add(ESPGW_OUT, spi));
	clock_gettime(CLOCK_MONOTONIC, &after);
	// Only the first one waits.
	int64_t took_ms =
		(after.tv_sec - before.tv_sec) * 1000 + (after.tv_nsec - before.tv_nsec) / 1000000;
	assert_in_range(took_ms, CALL_MS - 10, CALL_MS * 3);
	pthread_mutex_lock(&mutex);
	fake.silent = false;
	pthread_mutex_unlock(&mutex);
	WAIT_UNTIL(held() == 15); // all but the first outbound one, which is in doubt for ever
	WAIT_UNTIL(agent.soft >= 1);
	assert_int_equal(agent.spi, 0x2001);
	for (uint32_t spi = 0x2002; spi < 0x2010; spi++)
		assert_int_equal(written(spi), 1);
}

static void test_events(void **state)
{
	(void)state;
	both_start();
	const struct trap trap = {.if_id = 1, .reqid = 9};
	assert_true(traps_add(agent.traps, &trap));
	assert_true(add(ESPGW_IN, 0x1001));
	assert_true(add(ESPGW_OUT, 0x2001));
	fake_event(sa_event("sa.soft_expired", "in", "0x00001001"));
	WAIT_UNTIL(agent.soft == 1 && agent.spi == 0x1001);
	fake_event(sa_event("sa.hard_expired", "in", "0x00001001"));
	WAIT_UNTIL(agent.hard == 1);
	fake_event(sa_event("sa.sequence_exhausted", "out", "0x00002001"));
	WAIT_UNTIL(agent.hard == 2 && agent.spi == 0x2001);
	fake_event(sa_event("sa.peer_moved", "in", "0x00001001"));
	WAIT_UNTIL(agent.mapped == 1);
	assert_string_equal(agent.source, "198.51.100.7");
	assert_string_equal(agent.destination, LOCAL);
	assert_int_equal(agent.port, 61000);
	assert_true(gateway_delete_sa(agent.gateway, 0x2001, REMOTE));
	// Not ours, and a tunnel without a trap.
	fake_event(sa_event("sa.soft_expired", "in", "0x00009999"));
	fake_event(json_pack("{s:s, s:s}", "event", "tunnel.no_sa", "tunnel", "tunnel02"));
	fake_event(json_pack("{s:s, s:s}", "event", "tunnel.no_sa", "tunnel", "tunnel01"));
	WAIT_UNTIL(agent.acquired == 1);
	assert_int_equal(agent.reqid, 9);
	assert_int_equal(agent.soft, 1);
	traps_remove(agent.traps, &trap);
	fake_event(json_pack("{s:s, s:s}", "event", "tunnel.no_sa", "tunnel", "tunnel01"));
	fake_event(sa_event("sa.soft_expired", "in", "0x00001001"));
	WAIT_UNTIL(agent.soft == 2);
	assert_int_equal(agent.acquired, 1);
}

// charon is rekeying the lost SA already: another child SA is not asked for.
static void test_traffic_for_a_lost_sa(void **state)
{
	(void)state;
	const struct trap trap = {.if_id = 1, .reqid = 7};
	both_start();
	assert_true(traps_add(agent.traps, &trap));
	assert_true(add(ESPGW_IN, 0x1001));
	assert_true(add(ESPGW_OUT, 0x2001));
	fake_restart();
	WAIT_UNTIL(agent.soft == 1);
	WAIT_UNTIL(connected() == 2 && written(0x1001) == 2);
	fake_event(json_pack("{s:s, s:s}", "event", "tunnel.no_sa", "tunnel", "tunnel01"));
	fake_event(sa_event("sa.soft_expired", "in", "0x00001001")); // comes after it
	WAIT_UNTIL(agent.soft == 2);
	pthread_mutex_lock(&mutex);
	assert_int_equal(agent.acquired, 0);
	pthread_mutex_unlock(&mutex);
	assert_true(gateway_delete_sa(agent.gateway, 0x2001, REMOTE));
	fake_event(json_pack("{s:s, s:s}", "event", "tunnel.no_sa", "tunnel", "tunnel01"));
	WAIT_UNTIL(agent.acquired == 1);
}

// What happened while nobody listened is in the listing.
static void test_missed_events(void **state)
{
	(void)state;
	both_start();
	assert_true(add(ESPGW_IN, 0x1001));
	pthread_mutex_lock(&mutex);
	json_object_set_new(json_array_get(fake.sas, 0), "state", json_string("soft-expired"));
	pthread_mutex_unlock(&mutex);
	fake_event(json_pack("{s:s, s:i}", "event", "events.lost", "count", 3));
	WAIT_UNTIL(agent.soft == 1 && agent.spi == 0x1001);
}

static void test_flush(void **state)
{
	(void)state;
	stranger("tunnel02", "out", 0x3003);
	both_start();
	assert_true(add(ESPGW_IN, 0x1001));
	assert_true(add(ESPGW_OUT, 0x2001));
	gateway_flush_sas(agent.gateway);
	pthread_mutex_lock(&mutex);
	assert_int_equal(held(), 1); // the stranger
	pthread_mutex_unlock(&mutex);
}

// The gateway stalls while charon deletes a child SA, and again whenever it has been listed.
static void test_stalled_deletes(void **state)
{
	(void)state;
	both_start();
	assert_true(add(ESPGW_IN, 0x1001));
	assert_true(add(ESPGW_OUT, 0x2001));
	pthread_mutex_lock(&mutex);
	fake.stalls = 3;
	pthread_mutex_unlock(&mutex);
	assert_true(gateway_delete_sa(agent.gateway, 0x1001, LOCAL));
	assert_true(gateway_delete_sa(agent.gateway, 0x2001, REMOTE));
	assert_true(add(ESPGW_OUT, 0x2002)); // another one has to wait for it
	for (int stalls = 2; stalls >= 0; stalls--) {
		WAIT_UNTIL(fake.stalls == stalls && fake.silent);
		pthread_mutex_lock(&mutex);
		fake.silent = false;
		pthread_mutex_unlock(&mutex);
	}
	WAIT_UNTIL(called("sa.delete", 0x1001) >= 3 && held() == 1);
	WAIT_UNTIL(written(0x2002) == 1);
}

// The same while SAs of somebody else are due, which are next in turn.
static void test_stalled_delete_before_strangers(void **state)
{
	(void)state;
	both_start();
	assert_true(add(ESPGW_IN, 0x1001));
	assert_true(add(ESPGW_IN, 0x1002));
	assert_true(add(ESPGW_OUT, 0x2001));
	pthread_mutex_lock(&mutex);
	fake.stalls = 3;
	pthread_mutex_unlock(&mutex);
	assert_true(gateway_delete_sa(agent.gateway, 0x1002, LOCAL));
	for (int stalls = 2; stalls >= 0; stalls--) {
		WAIT_UNTIL(fake.stalls == stalls && fake.silent);
		pthread_mutex_lock(&mutex);
		if (stalls == 2)
			stranger("tunnel01", "out", 0x3001);
		fake.silent = false;
		pthread_mutex_unlock(&mutex);
	}
	WAIT_UNTIL(held() == 2 && called("sa.delete", 0x3001) == 1);
}

// Its report goes out until charon deletes it: soft at first, and hard when that did not help.
static void test_lost_for_long(void **state)
{
	(void)state;
	agent.repeat_ms = 5;
	both_start();
	assert_true(add(ESPGW_OUT, 0x2001));
	fake_restart();
	WAIT_UNTIL(agent.hard >= 3);
	pthread_mutex_lock(&mutex);
	assert_int_equal(agent.soft, 20);
	assert_int_equal(agent.spi, 0x2001);
	pthread_mutex_unlock(&mutex);
	assert_true(known(0x2001, REMOTE));
	assert_true(gateway_delete_sa(agent.gateway, 0x2001, REMOTE));
	poll(NULL, 0, 20); // one may be on its way
	pthread_mutex_lock(&mutex);
	int told = agent.hard;
	pthread_mutex_unlock(&mutex);
	poll(NULL, 0, 200);
	pthread_mutex_lock(&mutex);
	assert_int_equal(agent.hard, told);
	assert_int_equal(written(0x2001), 1);
	pthread_mutex_unlock(&mutex);
}

// At the end of its own lifetime, not at the next report: those are after 0, 3, 9 s.
static void test_lost_until_its_end(void **state)
{
	(void)state;
	const struct espgw_lifetime soft = {.seconds = 3}, hard = {.seconds = 4};
	both_start();
	assert_true(add_living(ESPGW_OUT, 0x2001, &soft, &hard));
	fake_restart();
	WAIT_UNTIL(agent.soft == 1);
	WAIT_UNTIL(agent.hard == 1);
	assert_true(known(0x2001, REMOTE));
}

// What is given late lives as long as charon said, no longer.
static void test_late_lifetimes(void **state)
{
	(void)state;
	const struct espgw_lifetime one = {.seconds = 1}, two = {.seconds = 2};
	const struct espgw_lifetime soft = {.seconds = 100, .packets = 50};
	const struct espgw_lifetime hard = {.seconds = 200};
	agent_start();
	assert_true(add_living(ESPGW_IN, 0x1001, &one, &hard));
	assert_true(add_living(ESPGW_OUT, 0x2001, &one, &two));
	assert_true(add_living(ESPGW_OUT, 0x2002, &soft, &hard));
	poll(NULL, 0, 2100);
	fake_come();
	WAIT_UNTIL(written(0x2002) == 1);
	pthread_mutex_lock(&mutex);
	assert_in_range(written_limit("soft", "seconds"), 90, 98);
	assert_in_range(written_limit("hard", "seconds"), 190, 198);
	assert_int_equal(written_limit("soft", "packets"), 50);
	assert_int_equal(written_limit("hard", "packets"), 0);
	assert_int_equal(written(0x2001), 0);
	// The inbound one is past its soft limit, and works on.
	assert_int_equal(written(0x1001), 1);
	const json_t *first = json_object_get(json_array_get(fake.writes, 0), "lifetime");
	assert_int_equal(
		json_integer_value(json_object_get(json_object_get(first, "soft"), "seconds")), 1);
	pthread_mutex_unlock(&mutex);
	WAIT_UNTIL(agent.hard == 1 && agent.soft == 1);
}

static void test_lifetimes_over_a_restart(void **state)
{
	(void)state;
	const struct espgw_lifetime soft = {.bytes = 900, .packets = 100};
	const struct espgw_lifetime hard = {.bytes = 1500, .packets = 200};
	both_start();
	assert_true(add_living(ESPGW_IN, 0x1001, &soft, &hard));
	assert_true(known(0x1001, LOCAL)); // 1000 bytes in 10 packets
	fake_restart();
	WAIT_UNTIL(written(0x1001) == 2);
	WAIT_UNTIL(agent.soft == 1);
	pthread_mutex_lock(&mutex);
	assert_int_equal(written_limit("soft", "bytes"), 1); // reached
	assert_int_equal(written_limit("hard", "bytes"), 500);
	assert_int_equal(written_limit("soft", "packets"), 90);
	assert_int_equal(written_limit("hard", "packets"), 190);
	pthread_mutex_unlock(&mutex);
	WAIT_UNTIL(connected() == 2);
	assert_true(known(0x1001, LOCAL)); // 2000 in all: that is too much
	fake_restart();
	WAIT_UNTIL(agent.hard == 1);
	pthread_mutex_lock(&mutex);
	assert_int_equal(written(0x1001), 2);
	pthread_mutex_unlock(&mutex);
}

static void test_refused_listing(void **state)
{
	(void)state;
	pthread_mutex_lock(&mutex);
	stranger("tunnel01", "out", 0x3001);
	fake.refusals = 2;
	pthread_mutex_unlock(&mutex);
	both_start();
	WAIT_UNTIL(fake.refusals == 0 && connected() == 2);
	poll(NULL, 0, 50);
	assert_true(add(ESPGW_IN, 0x1001));
	assert_true(add(ESPGW_OUT, 0x2001));
	// It was seen after all.
	WAIT_UNTIL(called("sa.delete", 0x3001) == 1);
}

// A reserved inbound SPI is given back; an outbound one of the same number is the peer's.
static void test_release(void **state)
{
	(void)state;
	both_start();
	assert_false(gateway_delete_sa(agent.gateway, 0x1001, REMOTE));
	assert_false(gateway_delete_sa(agent.gateway, 0x1002, LOCAL));
	pthread_mutex_lock(&mutex);
	assert_int_equal(called("spi.release", 0x1001), 0);
	assert_int_equal(called("spi.release", 0x1002), 1);
	pthread_mutex_unlock(&mutex);
}

// The gateway may carry out an sa.add after the listing that did not have it.
static void test_deleted_in_doubt(void **state)
{
	(void)state;
	both_start();
	pthread_mutex_lock(&mutex);
	fake.fate = FATE_IGNORED;
	pthread_mutex_unlock(&mutex);
	assert_true(add(ESPGW_OUT, 0x2001));
	WAIT_UNTIL(agent.soft == 1 && connected() == 2);
	pthread_mutex_lock(&mutex);
	stranger("tunnel01", "out", 0x2001); // now
	pthread_mutex_unlock(&mutex);
	assert_true(gateway_delete_sa(agent.gateway, 0x2001, REMOTE));
	WAIT_UNTIL(called("sa.delete", 0x2001) == 1 && held() == 0);
	// The same if charon deletes it before the listing.
	pthread_mutex_lock(&mutex);
	fake.fate = FATE_IGNORED;
	pthread_mutex_unlock(&mutex);
	assert_true(add(ESPGW_OUT, 0x2002));
	fake_leave();
	assert_true(gateway_delete_sa(agent.gateway, 0x2002, REMOTE));
	fake_come();
	WAIT_UNTIL(called("sa.delete", 0x2002) == 1);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_add_and_delete),
		TEST(test_refusal_is_told),
		TEST(test_kept_while_away),
		TEST(test_unanswered_add),
		TEST(test_unanswered_add_that_worked),
		TEST(test_restart_of_the_gateway),
		TEST(test_changes_while_away),
		TEST(test_lost_behind_our_back),
		TEST(test_strangers),
		TEST(test_silent_gateway),
		TEST(test_events),
		TEST(test_missed_events),
		TEST(test_traffic_for_a_lost_sa),
		TEST(test_flush),
		TEST(test_stalled_deletes),
		TEST(test_stalled_delete_before_strangers),
		TEST(test_lost_for_long),
		TEST(test_lost_until_its_end),
		TEST(test_late_lifetimes),
		TEST(test_lifetimes_over_a_restart),
		TEST(test_refused_listing),
		TEST(test_release),
		TEST(test_deleted_in_doubt),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
