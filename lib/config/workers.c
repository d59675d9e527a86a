// SPDX-License-Identifier: BSD-3-Clause
// Copyright (c) 2026 the espgw authors

// Workers: their cores, and which receive queues each of them polls.

#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#include "config/settings.h"

static int worker_of_core(const struct config *config, long long core)
{
	for (unsigned int i = 0; i < config->worker_count; i++) {
		if (config->workers[i].core == core)
			return (int)i;
	}
	return -1;
}

// Reports a core that the machine does not have.
static bool core_check(struct reader *reader, const config_setting_t *setting, long long core)
{
	long cores = sysconf(_SC_NPROCESSORS_CONF);
	if (core >= 0 && core < cores)
		return true;
	reader_error(reader, setting, "this machine has no such core; write a number from 0 to %ld",
		cores - 1);
	return false;
}

static void core_read(
	struct reader *reader, const config_setting_t *element, unsigned int index, void *argument)
{
	struct config *config = reader->config;
	(void)index;
	(void)argument;
	int type = config_setting_type(element);
	long long core = config_setting_get_int64(element);
	if (type != CONFIG_TYPE_INT && type != CONFIG_TYPE_INT64)
		reader_error(reader, element, "is no core number; write one such as 2");
	else if (core_check(reader, element, core) && worker_of_core(config, core) >= 0)
		reader_error(reader, element,
			"is there twice; each worker has a core for itself, write another");
	// A wrong core is a worker all the same, so that the checks of queues see the right number.
	config->workers[config->worker_count++].core = (unsigned int)core;
}

void workers_read(struct reader *reader)
{
	struct config *config = reader->config;
	const config_setting_t *workers = config_setting_get_member(reader->root, "workers");
	if (workers == NULL || !config_setting_is_group(workers))
		return;
	const config_setting_t *cores = config_setting_get_member(workers, "cores");
	settings_read_array(reader, workers, "cores", CONFIG_WORKERS, core_read, NULL);
	if (cores != NULL && config_setting_is_aggregate(cores) &&
		config_setting_length(cores) == 0)
		reader_error(reader, cores, "has no core; write at least one, such as [ 2 ]");
	if (config->control_core < 0)
		return;
	const config_setting_t *control = config_setting_get_member(workers, "control_core");
	if (core_check(reader, control, config->control_core) &&
		worker_of_core(config, config->control_core) >= 0)
		reader_error(reader, control,
			"is a worker's core; write another or leave the setting out");
}

// "PORT:QUEUE". False when it is wrong, which is reported.
static bool queue_parse(
	struct reader *reader, const config_setting_t *element, int *port, unsigned int *queue)
{
	const char *text = config_setting_get_string(element);
	const char *colon = text != NULL ? strrchr(text, ':') : NULL;
	char name[CONFIG_NAME_SIZE];
	char *end = NULL;
	if (colon == NULL || colon == text || (size_t)(colon - text) >= sizeof(name) ||
		colon[1] < '0' || colon[1] > '9') {
		reader_error(reader, element,
			"is no queue; write the port's name, a colon and the queue's number");
		return false;
	}
	memcpy(name, text, (size_t)(colon - text));
	name[colon - text] = '\0';
	errno = 0;
	unsigned long number = strtoul(colon + 1, &end, 10);
	*port = reader_find_port(reader, name);
	if (*port < 0) {
		struct reader_nearest nearest = {.word = name};
		for (unsigned int i = 0; i < reader->config->port_count; i++)
			reader_nearest_try(&nearest, reader->config->ports[i].name);
		reader_error(reader, element, "no such port; write %s%s before the colon",
			nearest.best != NULL ? "perhaps " : "the name of one",
			nearest.best != NULL ? nearest.best : "");
		return false;
	}
	uint32_t queues = reader->config->ports[*port].rx_queues;
	if (*end != '\0' || errno != 0 || number >= queues) {
		reader_error(reader, element,
			"port \"%s\" has no such queue; write a number from 0 to %u", name,
			queues - 1);
		return false;
	}
	*queue = (unsigned int)number;
	return true;
}

static int worker_of_queue(const struct config *config, unsigned int port, unsigned int queue)
{
	for (unsigned int i = 0; i < config->worker_count; i++) {
		if (config->workers[i].queues[port] >> queue & 1)
			return (int)i;
	}
	return -1;
}

static void queue_read(struct reader *reader, const config_setting_t *element, unsigned int worker)
{
	struct config *config = reader->config;
	int port = -1;
	unsigned int queue = 0;
	if (!queue_parse(reader, element, &port, &queue))
		return;
	int other = worker_of_queue(config, (unsigned int)port, queue);
	if (other == (int)worker)
		reader_error(reader, element, "is there twice; write it once");
	else if (other >= 0)
		reader_error(reader, element,
			"worker %d polls this queue too; each queue has one worker, write it once",
			other);
	else
		config->workers[worker].queues[port] |= UINT64_C(1) << queue;
}

// One array per worker. Reports what is wrong and says whether all was right.
static bool queues_list_read(struct reader *reader, const config_setting_t *list)
{
	unsigned int before = reader->error_count;
	unsigned int length = (unsigned int)config_setting_length(list);
	if (!config_setting_is_list(list) || length != reader->config->worker_count) {
		reader_error(reader, list,
			"write a list of %u arrays, one for each of the cores: ( [ ... ], ... )",
			reader->config->worker_count);
		return false;
	}
	for (unsigned int i = 0; i < length; i++) {
		const config_setting_t *queues = config_setting_get_elem(list, i);
		if (!config_setting_is_array(queues) && !config_setting_is_list(queues)) {
			reader_error(reader, queues,
				"write an array of queues, such as [ \"inside:%u\" ]", i);
			continue;
		}
		for (int j = 0; j < config_setting_length(queues); j++)
			queue_read(reader, config_setting_get_elem(queues, (unsigned int)j), i);
	}
	return reader->error_count == before;
}

static void queues_default(struct reader *reader)
{
	struct config *config = reader->config;
	for (unsigned int p = 0; p < config->port_count; p++) {
		uint32_t queues = config->ports[p].rx_queues;
		for (unsigned int i = 0; i < RTE_MIN(queues, config->worker_count); i++)
			config->workers[i].queues[p] = UINT64_C(1) << i;
		if (queues > config->worker_count)
			reader_member_error(reader, reader_element(reader, "ports", p), "rx_queues",
				"no worker polls queue %u: by default worker i polls queue i, and "
				"there %s %u; write at most %u, or workers.queues",
				config->worker_count, config->worker_count == 1 ? "is" : "are",
				config->worker_count, config->worker_count);
	}
}

static void queues_check(struct reader *reader, const config_setting_t *list)
{
	const struct config *config = reader->config;
	for (unsigned int p = 0; p < config->port_count; p++) {
		for (unsigned int q = 0; q < config->ports[p].rx_queues; q++) {
			if (worker_of_queue(config, p, q) < 0)
				reader_error(reader, list,
					"no worker polls queue %u of port \"%s\"; add \"%s:%u\"", q,
					config->ports[p].name, config->ports[p].name, q);
		}
	}
}

void queues_read(struct reader *reader)
{
	const config_setting_t *workers = config_setting_get_member(reader->root, "workers");
	if (workers == NULL || reader->config->worker_count == 0)
		return;
	const config_setting_t *list = config_setting_get_member(workers, "queues");
	if (list == NULL)
		queues_default(reader);
	else if (queues_list_read(reader, list))
		queues_check(reader, list);
}
