// SPDX-License-Identifier: BSD-3-Clause
// Copyright (c) 2026 the espgw authors

// espctl stats --stages: where the cycles of the workers go, from two looks at their counters.

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "command.h"
#include "table.h"

#define METHOD           "stats.stages"
#define SECONDS_MAX      3600
#define PROGRESS_SECONDS 2  // what takes longer shows that it goes on
#define BAR_WIDTH        32 // of a stage that takes all the time
// Workers begin to count before their next burst. Where they share cores with other programs, that
// is when it is their turn again.
#define START_MS 20

#define COUNTERS 3
static const char *const counters[COUNTERS] = {"cycles", "bursts", "packets"};

static json_int_t number_of(const json_t *object, const char *member)
{
	return json_integer_value(json_object_get(object, member));
}

static void sleep_ms(unsigned int milliseconds)
{
	struct timespec time = {milliseconds / 1000, milliseconds % 1000 * 1000000L};
	while (nanosleep(&time, &time) != 0)
		;
}

// ---- measuring ----

static void wait_seconds(unsigned int seconds)
{
	bool shown = seconds > PROGRESS_SECONDS && isatty(STDERR_FILENO);
	for (unsigned int passed = 0; passed < seconds; passed++) {
		if (shown)
			fprintf(stderr, "\rMeasuring: %u of %u s", passed, seconds);
		sleep_ms(1000);
	}
	if (shown)
		fprintf(stderr, "\r%*s\r", 40, "");
}

// The gateway stops counting by itself when we are gone.
static enum espgw_status measure(struct invocation *invocation, unsigned int seconds,
	json_t **before, json_t **after, struct espgw_error *error)
{
	json_t *enable = json_pack("{s:b}", "enable", 1);
	enum espgw_status status =
		espgw_client_call(invocation->client, METHOD, enable, NULL, error);
	json_decref(enable);
	if (status != ESPGW_OK)
		return status;
	sleep_ms(START_MS);
	status = espgw_client_call(invocation->client, METHOD, NULL, before, error);
	if (status != ESPGW_OK)
		return status;
	wait_seconds(seconds);
	return espgw_client_call(invocation->client, METHOD, NULL, after, error);
}

// ---- what it says ----

// What a worker's stages took between the two looks.
static json_t *subtract_stages(const json_t *before, const json_t *after)
{
	json_t *stages = json_array();
	size_t index;
	const json_t *now;
	json_array_foreach (after, index, now) {
		const json_t *then = json_array_get(before, index);
		json_t *stage = json_object();
		json_object_set(stage, "stage", json_object_get(now, "stage"));
		for (size_t i = 0; i < COUNTERS; i++)
			json_object_set_new(stage, counters[i],
				json_integer(number_of(now, counters[i]) -
					     number_of(then, counters[i])));
		json_array_append_new(stages, stage);
	}
	return stages;
}

static void add_stages(json_t *sum, const json_t *stages)
{
	size_t index;
	json_t *stage;
	json_array_foreach (stages, index, stage) {
		json_t *to = json_array_get(sum, index);
		if (to == NULL) {
			json_array_append_new(sum, json_copy(stage));
			continue;
		}
		for (size_t i = 0; i < COUNTERS; i++)
			json_object_set_new(to, counters[i],
				json_integer(number_of(to, counters[i]) +
					     number_of(stage, counters[i])));
	}
}

// Null when there is nothing to divide by.
static json_t *quotient(json_int_t amount, json_int_t by)
{
	return by == 0 ? json_null() : json_real((double)amount / (double)by);
}

// Adds shares and quotients; returns the share of all stages but "idle".
static double derive_shares(const json_t *stages)
{
	json_int_t all = 0, idle = 0;
	size_t index;
	json_t *stage;
	json_array_foreach (stages, index, stage)
		all += number_of(stage, "cycles");
	json_array_foreach (stages, index, stage) {
		json_int_t cycles = number_of(stage, "cycles");
		const char *name = json_string_value(json_object_get(stage, "stage"));
		if (name != NULL && strcmp(name, "idle") == 0)
			idle = cycles;
		json_object_set_new(
			stage, "share", json_real(all == 0 ? 0.0 : (double)cycles / (double)all));
		json_object_set_new(
			stage, "cycles_per_packet", quotient(cycles, number_of(stage, "packets")));
		json_object_set_new(
			stage, "cycles_per_burst", quotient(cycles, number_of(stage, "bursts")));
	}
	return all == 0 ? 0.0 : (double)(all - idle) / (double)all;
}

// A worker, or (`from` NULL) the sum over all. Takes the reference to `stages`.
static json_t *describe(const json_t *from, json_int_t cycles, json_t *stages)
{
	json_t *entry = json_object();
	if (from != NULL) {
		json_object_set(entry, "worker", json_object_get(from, "worker"));
		json_object_set(entry, "core", json_object_get(from, "core"));
	}
	json_object_set_new(entry, "cycles", json_integer(cycles));
	json_object_set_new(entry, "busy", json_real(derive_shares(stages)));
	json_object_set_new(entry, "stages", stages);
	return entry;
}

static json_t *compare(const json_t *before, const json_t *after)
{
	json_t *workers = json_array(), *sum = json_array();
	const json_t *before_workers = json_object_get(before, "workers");
	json_int_t all = 0, first = 0;
	size_t index;
	const json_t *now;
	json_array_foreach (json_object_get(after, "workers"), index, now) {
		const json_t *then = json_array_get(before_workers, index);
		json_t *stages = subtract_stages(
			json_object_get(then, "stages"), json_object_get(now, "stages"));
		json_int_t cycles = number_of(now, "tsc") - number_of(then, "tsc");
		add_stages(sum, stages);
		all += cycles;
		if (index == 0)
			first = cycles;
		json_array_append_new(workers, describe(now, cycles, stages));
	}
	json_int_t hz = number_of(after, "tsc_hz");
	json_t *result = json_object();
	json_object_set_new(result, "seconds", quotient(first, hz));
	json_object_set_new(result, "tsc_hz", json_integer(hz));
	json_object_set_new(result, "workers", workers);
	json_object_set_new(result, "sum", describe(NULL, all, sum));
	return result;
}

// ---- for people ----

static void draw_bar(char *text, double share)
{
	unsigned int length = (unsigned int)(share * BAR_WIDTH + 0.5);
	if (length > BAR_WIDTH)
		length = BAR_WIDTH;
	memset(text, '#', length);
	// A stage that takes little is still seen to be there.
	strcpy(text + length, length == 0 && share > 0 ? "." : "");
}

static void format_quotient(char *text, const json_t *value, int digits)
{
	if (json_is_null(value))
		strcpy(text, "-");
	else
		snprintf(text, TABLE_CELL_BYTES, "%.*f", digits, json_real_value(value));
}

static void print_table(const json_t *stages)
{
	struct table table = {0};
	table_add_column(&table, "STAGE", false);
	table_add_column(&table, "TIME", true);
	table_add_column(&table, "CYCLES/PACKET", true);
	table_add_column(&table, "CYCLES/BURST", true);
	table_add_column(&table, "PACKETS", true);
	table_add_column(&table, "", false);
	size_t index;
	const json_t *stage;
	json_array_foreach (stages, index, stage) {
		char(*cells)[TABLE_CELL_BYTES] = table_add_row(&table);
		const char *name = json_string_value(json_object_get(stage, "stage"));
		double share = json_real_value(json_object_get(stage, "share"));
		snprintf(cells[0], TABLE_CELL_BYTES, "%s", name == NULL ? "" : name);
		snprintf(cells[1], TABLE_CELL_BYTES, "%.1f %%", 100 * share);
		format_quotient(cells[2], json_object_get(stage, "cycles_per_packet"), 1);
		format_quotient(cells[3], json_object_get(stage, "cycles_per_burst"), 0);
		human_amount(cells[4], TABLE_CELL_BYTES, number_of(stage, "packets"), "");
		draw_bar(cells[5], share);
	}
	table_print(&table);
	table_free(&table);
}

static void print_share(const json_t *entry)
{
	printf("%.1f %% busy\n\n", 100 * json_real_value(json_object_get(entry, "busy")));
	print_table(json_object_get(entry, "stages"));
}

static void print_stages(const json_t *result)
{
	const json_t *workers = json_object_get(result, "workers");
	printf("Measured for %.2f s. Cycles are those of the TSC, %.0f MHz.\n",
		json_real_value(json_object_get(result, "seconds")),
		(double)number_of(result, "tsc_hz") / 1e6);
	size_t index;
	const json_t *worker;
	json_array_foreach (workers, index, worker) {
		printf("\nWorker %" JSON_INTEGER_FORMAT ", core %" JSON_INTEGER_FORMAT ": ",
			number_of(worker, "worker"), number_of(worker, "core"));
		print_share(worker);
	}
	if (json_array_size(workers) > 1) {
		printf("\nAll workers: ");
		print_share(json_object_get(result, "sum"));
	}
}

// ---- the command ----

static enum exit_code run_stages(struct invocation *invocation, unsigned int seconds)
{
	struct espgw_error error;
	json_t *before = NULL, *after = NULL;
	if (measure(invocation, seconds, &before, &after, &error) != ESPGW_OK) {
		json_decref(before);
		return report_failure(invocation, &error);
	}
	json_t *result = compare(before, after);
	if (invocation->json) {
		json_dumpf(result, stdout, JSON_INDENT(2) | JSON_REAL_PRECISION(6));
		putchar('\n');
	} else {
		print_stages(result);
	}
	json_decref(before);
	json_decref(after);
	json_decref(result);
	return EXIT_DONE;
}

enum exit_code run_stats(struct invocation *invocation)
{
	const json_t *given = json_object_get(invocation->own, "--seconds");
	json_int_t seconds = given == NULL ? 1 : json_integer_value(given);
	if (json_object_get(invocation->own, "--stages") != NULL) {
		if (seconds < 1 || seconds > SECONDS_MAX)
			return usage_error(invocation,
				"--seconds is `%" JSON_INTEGER_FORMAT "`, but has to be 1 to %d",
				seconds, SECONDS_MAX);
		return run_stages(invocation, (unsigned int)seconds);
	}
	if (given != NULL)
		return usage_error(invocation, "--seconds goes with --stages");
	return run_call(invocation);
}
