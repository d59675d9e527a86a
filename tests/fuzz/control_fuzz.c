// SPDX-License-Identifier: BSD-3-Clause
// Copyright (c) 2026 the espgw authors

// Lines as a client sends them, to the handler of requests. The first byte chooses: whole lines,
// or the parameters of one method, so that the fuzzer gets past the envelope at once.

#include <stddef.h>
#include <stdint.h>

#include "../unit/control_world.h"
#include "../unit/eal.h"
#include "control/internal.h"

#define FUZZ_LINE_MAX 8192

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct world world;
static struct control *control;

static const struct method *const tables[] = {
	methods_session, methods_sa, methods_tunnel, methods_route, methods_stats};

static void stop(void)
{
	control_destroy(control);
	world_stop(&world);
	world_remove_files(&world);
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	(void)argc;
	(void)argv;
	// In memory: each new key is written to the store.
	static char directory[] = "/dev/shm/espgw-control-fuzz-XXXXXX";
	struct control_error error;
	control_memory_init();
	if (test_eal_start("256") != 0 || mkdtemp(directory) == NULL)
		abort();
	world_start(&world, directory);
	control = control_create_unconnected(&world.parts, &error);
	if (control == NULL)
		abort();
	return atexit(stop);
}

static void handle(struct session *session, const char *line, size_t size)
{
	char *reply = request_handle(control, session, line, size);
	if (reply == NULL)
		abort(); // memory is not short
	json_error_t error;
	json_t *object = json_loads(reply, 0, &error);
	if (object == NULL || strchr(reply, '\n') != NULL)
		abort();
	json_decref(object);
	control_free(reply);
}

static const char *method_name(uint8_t choice)
{
	unsigned int count = 0;
	for (size_t i = 0; i < sizeof(tables) / sizeof(tables[0]); i++)
		for (const struct method *method = tables[i]; method->name != NULL; method++)
			if (++count == choice)
				return method->name;
	return NULL;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct session session = {.id = 1, .greeted = true};
	if (size == 0 || size > FUZZ_LINE_MAX / 2)
		return 0;
	const char *method = method_name(data[0]), *text = (const char *)data + 1;
	size--;
	if (method != NULL) {
		char line[FUZZ_LINE_MAX];
		int used = snprintf(line, sizeof(line),
			"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"%s\",\"params\":%.*s}", method,
			(int)size, text);
		handle(&session, line, (size_t)used);
	} else {
		session.greeted = data[0] != 0xff;
		while (size > 0) {
			const char *end = memchr(text, '\n', size);
			size_t length = end == NULL ? size : (size_t)(end - text);
			handle(&session, text, length);
			text += end == NULL ? length : length + 1;
			size -= end == NULL ? length : length + 1;
		}
	}
	lifetimes_check(control);
	for (unsigned int i = 0; i < 2; i++) {
		const struct tunnel *tunnel = tunnel_get(world.parts.tunnels, i);
		const struct sa *sa;
		TAILQ_FOREACH (sa, &tunnel->sas, in_tunnel)
			if (sa->spi < ESP_SPI_MIN || sa->control == NULL)
				abort();
	}
	while (sa_next(world.parts.tunnels, NULL) != NULL && sa_count(world.parts.tunnels) > 100)
		sa_remove(control, sa_next(world.parts.tunnels, NULL));
	// The leak sanitizer does not see what only DPDK's memory points to.
	route_delete_origin(world.routes, ROUTE_ORIGIN_AGENT);
	reclaim_poll(world.reclaim);
	return 0;
}
