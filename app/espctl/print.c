// SPDX-License-Identifier: BSD-3-Clause
// Copyright (c) 2026 the espgw authors

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "command.h"
#include "table.h"

#define LABEL_WIDTH 20 // of an object's members

static int64_t member_integer(const json_t *object, const char *member)
{
	return json_integer_value(json_object_get(object, member));
}

static const char *member_text(const json_t *object, const char *member)
{
	const char *text = json_string_value(json_object_get(object, member));
	return text == NULL ? "" : text;
}

// ---- values ----

static bool ends_with(const char *text, const char *end)
{
	size_t length = strlen(text), end_length = strlen(end);
	return length >= end_length && strcmp(text + length - end_length, end) == 0;
}

// A value of a list, in a cell. Without a value the cell is empty.
static void format_cell(char *text, size_t size, enum column_kind kind, const json_t *value)
{
	bool is_time = kind == COLUMN_AGO || kind == COLUMN_AGE || kind == COLUMN_IN;
	if (value == NULL)
		text[0] = '\0';
	else if (json_is_string(value))
		snprintf(text, size, "%s", json_string_value(value));
	else if (is_time && json_is_null(value))
		snprintf(text, size, "%s", kind == COLUMN_AGO ? "never" : "-");
	else if (kind == COLUMN_IN && json_integer_value(value) == 0)
		snprintf(text, size, "now");
	else if (is_time)
		human_seconds(text, size, json_integer_value(value));
	else if (kind == COLUMN_BYTES)
		human_amount(text, size, json_integer_value(value), "B");
	else if (kind == COLUMN_COUNT)
		human_amount(text, size, json_integer_value(value), "");
	else if (kind == COLUMN_YES)
		snprintf(text, size, "%s", json_is_true(value) ? "yes" : "");
	else
		text[0] = '\0';
}

// The value of `member`, which may name two: "a|b".
static const json_t *find_member(const json_t *object, const char *member)
{
	char first[32];
	const char *bar = strchr(member, '|');
	if (bar == NULL)
		return json_object_get(object, member);
	snprintf(first, sizeof(first), "%.*s", (int)(bar - member), member);
	const json_t *value = json_object_get(object, first);
	return value != NULL ? value : json_object_get(object, bar + 1);
}

static void print_list_within(
	unsigned int width, const struct column *columns, const json_t *entries)
{
	if (json_array_size(entries) == 0) {
		puts("none");
		return;
	}
	struct table table = {.width = width};
	for (const struct column *c = columns; c->heading != NULL; c++)
		table_add_column(
			&table, c->heading, c->kind != COLUMN_TEXT && c->kind != COLUMN_YES);
	size_t index;
	const json_t *entry;
	json_array_foreach (entries, index, entry) {
		char(*cells)[TABLE_CELL_BYTES] = table_add_row(&table);
		for (const struct column *c = columns; c->heading != NULL; c++)
			format_cell(
				*cells++, TABLE_CELL_BYTES, c->kind, find_member(entry, c->member));
	}
	table_print(&table);
	table_free(&table);
}

static void print_list(const struct column *columns, const json_t *entries)
{
	print_list_within(TABLE_WIDTH, columns, entries);
}

// ---- objects ----

// A value on a line of its own, exact, and for people beside it.
static void print_value(const char *member, const json_t *value)
{
	char human[64] = "";
	int64_t number = json_integer_value(value);
	if (json_is_integer(value) && ends_with(member, "seconds") && number >= 60)
		human_seconds(human, sizeof(human), number);
	else if (json_is_integer(value) && ends_with(member, "bytes") && number >= 1000)
		human_amount(human, sizeof(human), number, "B");
	if (json_is_string(value))
		puts(json_string_value(value));
	else if (json_is_integer(value) && human[0] != '\0')
		printf("%" PRId64 " (%s)\n", number, human);
	else if (json_is_integer(value))
		printf("%" PRId64 "\n", number);
	else if (json_is_boolean(value))
		puts(json_is_true(value) ? "yes" : "no");
	else if (json_is_null(value))
		puts(ends_with(member, "seconds") && !ends_with(member, "age_seconds") ? "never"
										       : "none");
	else {
		json_dumpf(value, stdout, JSON_COMPACT | JSON_ENCODE_ANY);
		putchar('\n');
	}
}

// Members of members are named with a dot between.
static void print_object(const char *before, const json_t *object)
{
	const char *member;
	json_t *value;
	json_object_foreach ((json_t *)(uintptr_t)object, member, value) {
		char label[128];
		snprintf(label, sizeof(label), "%s%s%s", before, before[0] == '\0' ? "" : ".",
			member);
		if (json_is_object(value) && json_object_size(value) > 0) {
			print_object(label, value);
			continue;
		}
		if (json_is_array(value) && json_is_object(json_array_get(value, 0))) {
			for (size_t i = 0; i < json_array_size(value); i++) {
				char numbered[160];
				snprintf(numbered, sizeof(numbered), "%s[%zu]", label, i);
				print_object(numbered, json_array_get(value, i));
			}
			continue;
		}
		printf("%-*s  ", LABEL_WIDTH, label);
		if ((json_is_object(value) || json_is_array(value)) &&
			json_object_size(value) + json_array_size(value) == 0)
			puts("none");
		else
			print_value(member, value);
	}
}

void print_result(const struct invocation *invocation, const json_t *result)
{
	const struct command *command = invocation->command;
	if (invocation->json) {
		json_dumpf(result, stdout, JSON_INDENT(2));
		putchar('\n');
		return;
	}
	if (command->print != NULL)
		command->print(invocation, result);
	else if (command->columns != NULL)
		print_list(command->columns, json_object_get(result, command->member));
	else
		print_object("", command->member == NULL
					 ? result
					 : json_object_get(result, command->member));
}

// ---- single results ----

void print_nothing(const struct invocation *invocation, const json_t *result)
{
	(void)invocation;
	(void)result;
}

void print_sa_id(const struct invocation *invocation, const json_t *result)
{
	printf("SA %" PRId64 " %s\n", member_integer(result, "id"),
		strcmp(invocation->command->verb, "delete") == 0 ? "deleted" : "updated");
}

void print_flushed(const struct invocation *invocation, const json_t *result)
{
	(void)invocation;
	int64_t deleted = member_integer(result, "deleted");
	printf("%" PRId64 " SA%s deleted\n", deleted, deleted == 1 ? "" : "s");
}

void print_spis(const struct invocation *invocation, const json_t *result)
{
	(void)invocation;
	size_t index;
	json_t *spi;
	json_array_foreach (json_object_get(result, "spis"), index, spi)
		puts(json_string_value(spi));
}

// ---- tunnels ----

static const struct column tunnel_columns[] = {
	{"TUNNEL", "label", COLUMN_TEXT},
	{"STATE", "state", COLUMN_TEXT},
	{"REKEY IN", "rekey_in_seconds", COLUMN_IN},
	{"EXPIRES", "expiry_in_seconds", COLUMN_IN},
	{"DROPS", "drop_total", COLUMN_COUNT},
	{"DIR", "direction", COLUMN_TEXT},
	{"FROM", "from", COLUMN_TEXT},
	{"SA AGE", "age", COLUMN_AGE},
	{"PACKETS", "packets", COLUMN_COUNT},
	{"BYTES", "bytes", COLUMN_BYTES},
	{"LAST", "last", COLUMN_AGO},
	{0},
};

// What of a tunnel's members a line shows.
struct tunnel_line {
	const char *column, *member;
};

// A line is ended by a column of NULL.
static json_t *pick_members(const struct tunnel_line *line, const json_t *tunnel)
{
	json_t *picked = json_object();
	for (; line->column != NULL; line++)
		json_object_set(picked, line->column, json_object_get(tunnel, line->member));
	return picked;
}

static void format_loss(char text[32], const json_t *loss)
{
	double percent = 100 * json_real_value(loss);
	if (json_is_null(loss))
		snprintf(text, 32, "-");
	else
		snprintf(text, 32, "%.*f %%", percent > 0 && percent < 10 ? 2 : 0, percent);
}

static void format_round_trip(char text[32], const json_t *microseconds)
{
	double milliseconds = (double)json_integer_value(microseconds) / 1000;
	if (!json_is_integer(microseconds))
		snprintf(text, 32, "-");
	else
		snprintf(text, 32, "%.*f ms", milliseconds < 100 ? 2 : 0, milliseconds);
}

// Under the state of a tunnel's keys stands that of its health, and so on.
static void add_health(json_t *entry, const json_t *health)
{
	char loss[32] = "-", round_trip[32] = "-";
	bool checked = json_is_object(health);
	if (checked) {
		format_loss(loss, json_object_get(health, "loss"));
		format_round_trip(round_trip, json_object_get(health, "rtt_smoothed_us"));
	}
	json_object_set_new(
		entry, "state", json_string(checked ? member_text(health, "state") : "-"));
	json_object_set_new(entry, "rekey_in_seconds", json_string(loss));
	json_object_set_new(entry, "expiry_in_seconds", json_string(round_trip));
}

// All that there is to see of a tunnel is too wide for one line: one for each direction, and two of
// headings.
void print_tunnels(const struct invocation *invocation, const json_t *result)
{
	static const struct tunnel_line lines[2][12] = {
		{{"label", "name"}, {"state", "state"}, {"rekey_in_seconds", "rekey_in_seconds"},
			{"expiry_in_seconds", "expiry_in_seconds"}, {"drop_total", "drop_total"},
			{"from", "gateway_endpoint"}, {"age", "out_age_seconds"},
			{"packets", "out_packets"}, {"bytes", "out_bytes"},
			{"last", "last_out_seconds"}},
		{{"label", "interface_address"}, {"from", "customer_endpoint"},
			{"age", "in_age_seconds"}, {"packets", "in_packets"}, {"bytes", "in_bytes"},
			{"last", "last_in_seconds"}},
	};
	json_t *entries = json_array();
	size_t index;
	const json_t *tunnel;
	if (json_array_size(json_object_get(result, invocation->command->member)) != 0)
		json_array_append_new(entries,
			json_pack("{s:s, s:s, s:s, s:s}", "label", "ADDRESS", "state", "HEALTH",
				"rekey_in_seconds", "LOSS", "expiry_in_seconds", "RTT"));
	json_array_foreach (json_object_get(result, invocation->command->member), index, tunnel) {
		for (unsigned int i = 0; i < 2; i++) {
			json_t *entry = pick_members(lines[i], tunnel);
			if (i == 1)
				add_health(entry, json_object_get(tunnel, "health"));
			json_object_set_new(entry, "direction", json_string(i == 0 ? "out" : "in"));
			json_array_append_new(entries, entry);
		}
	}
	print_list_within(TABLE_WIDTH_TUNNELS, tunnel_columns, entries);
	json_decref(entries);
}

// ---- ports ----

static const struct column queue_columns[] = {
	{"PORT", "port", COLUMN_TEXT},
	{"WORKER", "worker", COLUMN_COUNT},
	{"RECEIVED", "rx_packets", COLUMN_COUNT},
	{"BYTES", "rx_bytes", COLUMN_BYTES},
	{"SENT", "tx_packets", COLUMN_COUNT},
	{"BYTES", "tx_bytes", COLUMN_BYTES},
	{0},
};

static const struct column port_columns[] = {
	{"PORT", "name", COLUMN_TEXT},
	{"SIDE", "side", COLUMN_TEXT},
	{"VLAN", "tags", COLUMN_TEXT},
	{"LINK", "link", COLUMN_TEXT},
	{"MTU", "mtu", COLUMN_COUNT},
	{"RECEIVED", "rx_packets", COLUMN_COUNT},
	{"BYTES", "rx_bytes", COLUMN_BYTES},
	{"SENT", "tx_packets", COLUMN_COUNT},
	{"BYTES", "tx_bytes", COLUMN_BYTES},
	{"MISSED", "rx_missed", COLUMN_COUNT},
	{"ERRORS", "errors", COLUMN_COUNT},
	{0},
};

static json_t *describe_link(const json_t *port)
{
	if (!json_is_true(json_object_get(port, "present")))
		return json_string("removed");
	return json_string(json_is_true(json_object_get(port, "link_up")) ? "up" : "down");
}

// "-", "100", or "300.100" with a service VLAN.
static json_t *describe_vlan(const json_t *port)
{
	const json_t *vlan = json_object_get(port, "vlan");
	const json_t *service = json_object_get(port, "service_vlan");
	if (!json_is_integer(vlan))
		return json_string("-");
	if (!json_is_integer(service))
		return json_sprintf("%d", (int)json_integer_value(vlan));
	return json_sprintf(
		"%d.%d", (int)json_integer_value(service), (int)json_integer_value(vlan));
}

void print_ports(const struct invocation *invocation, const json_t *result)
{
	json_t *ports = json_array(), *queues = json_array();
	size_t p, q;
	json_t *port, *queue;
	json_array_foreach (json_object_get(result, "ports"), p, port) {
		json_t *line = json_copy(port);
		json_object_set_new(line, "link", describe_link(port));
		json_object_set_new(line, "tags", describe_vlan(port));
		json_object_set_new(line, "errors",
			json_integer(member_integer(port, "rx_errors") +
				     member_integer(port, "rx_no_buffer") +
				     member_integer(port, "tx_errors")));
		json_array_append_new(ports, line);
		json_array_foreach (json_object_get(port, "queues"), q, queue) {
			line = json_copy(queue);
			json_object_set(line, "port", json_object_get(port, "name"));
			json_array_append_new(queues, line);
		}
	}
	print_list(port_columns, ports);
	if (json_object_get(invocation->own, "--queues") != NULL) {
		putchar('\n');
		print_list(queue_columns, queues);
	}
	json_decref(ports);
	json_decref(queues);
}

// ---- statistics ----

static const struct column source_columns[] = {
	{"SOURCE", "name", COLUMN_TEXT},
	{"RECEIVED", "received", COLUMN_COUNT},
	{"BYTES", "received_bytes", COLUMN_BYTES},
	{"FORWARDED", "forwarded", COLUMN_COUNT},
	{"TO HOST", "to_host", COLUMN_COUNT},
	{"SPLIT", "split", COLUMN_COUNT},
	{"JOINED", "joined", COLUMN_COUNT},
	{"DROPPED", "dropped", COLUMN_COUNT},
	{"HELD", "held", COLUMN_COUNT},
	{0},
};

static json_t *name_source(const json_t *source, const char *name)
{
	json_t *line = json_copy((json_t *)(uintptr_t)source);
	json_object_set_new(line, "name", json_string(name));
	return line;
}

static void print_sources(const json_t *result)
{
	json_t *lines = json_array();
	size_t index;
	const json_t *source;
	json_array_foreach (json_object_get(result, "sources"), index, source) {
		char name[64];
		snprintf(name, sizeof(name), "%s %s", member_text(source, "source"),
			member_text(source, "port"));
		json_array_append_new(lines, name_source(source, name));
	}
	json_array_append_new(lines, name_source(json_object_get(result, "totals"), "all"));
	print_list(source_columns, lines);
	json_decref(lines);
}

static void print_workers(const json_t *workers)
{
	struct table table = {0};
	table_add_column(&table, "WORKER", true);
	table_add_column(&table, "CORE", true);
	table_add_column(&table, "LOOPS", true);
	table_add_column(&table, "BUSY", true);
	table_add_column(&table, "SHARED", true);
	table_add_column(&table, "HELPED", true);
	size_t index;
	const json_t *worker;
	json_array_foreach (workers, index, worker) {
		char(*cells)[TABLE_CELL_BYTES] = table_add_row(&table);
		int64_t cycles = member_integer(worker, "cycles");
		int64_t busy = member_integer(worker, "busy_cycles");
		snprintf(cells[0], TABLE_CELL_BYTES, "%" PRId64, member_integer(worker, "worker"));
		snprintf(cells[1], TABLE_CELL_BYTES, "%" PRId64, member_integer(worker, "core"));
		human_amount(cells[2], TABLE_CELL_BYTES, member_integer(worker, "loops"), "");
		snprintf(cells[3], TABLE_CELL_BYTES, "%.1f %%",
			cycles == 0 ? 0.0 : 100.0 * (double)busy / (double)cycles);
		human_amount(
			cells[4], TABLE_CELL_BYTES, member_integer(worker, "shared_packets"), "");
		human_amount(
			cells[5], TABLE_CELL_BYTES, member_integer(worker, "helped_packets"), "");
	}
	table_print(&table);
	table_free(&table);
}

void print_stats(const struct invocation *invocation, const json_t *result)
{
	(void)invocation;
	char uptime[64];
	human_seconds(uptime, sizeof(uptime), member_integer(result, "uptime_seconds"));
	printf("Up for %s. What became of the packets, by where they entered:\n\n", uptime);
	print_sources(result);
	printf("\nWorkers (AES-256-GCM: %s). Busy is the share of the time in which one had "
	       "packets;\n"
	       "shared: packets of its queues that other workers ran; helped: that it ran for "
	       "others:\n\n",
		member_text(result, "crypto"));
	print_workers(json_object_get(result, "workers"));
}

// ---- drops ----

#define DROP_INDENT 13

void print_drops(const struct invocation *invocation, const json_t *result)
{
	const json_t *drops = json_object_get(result, invocation->command->member);
	if (json_array_size(drops) == 0)
		puts("No packet was dropped.");
	size_t index;
	const json_t *drop;
	json_array_foreach (drops, index, drop) {
		char text[512];
		snprintf(text, sizeof(text), "%s: %s", member_text(drop, "reason"),
			member_text(drop, "sentence"));
		printf("%*" PRId64 "  ", DROP_INDENT - 2, member_integer(drop, "packets"));
		print_wrapped(stdout, text, DROP_INDENT, DROP_INDENT);
		const char *tunnel;
		json_t *packets;
		json_object_foreach (json_object_get(drop, "tunnels"), tunnel, packets)
			printf("%*s%s: %" PRId64 "\n", DROP_INDENT + 2, "", tunnel,
				(int64_t)json_integer_value(packets));
	}
}

// ---- events ----

void print_event(const struct invocation *invocation, const json_t *event)
{
	if (invocation->json) {
		json_dumpf(event, stdout, JSON_COMPACT);
		putchar('\n');
		return;
	}
	char when[32];
	time_t now = time(NULL);
	struct tm local;
	strftime(when, sizeof(when), "%F %T", localtime_r(&now, &local));
	printf("%s  %s", when, member_text(event, "event"));
	const char *member;
	json_t *value;
	json_object_foreach ((json_t *)(uintptr_t)event, member, value) {
		if (strcmp(member, "event") == 0)
			continue;
		printf("  %s=", member);
		if (json_is_string(value))
			fputs(json_string_value(value), stdout);
		else
			json_dumpf(value, stdout, JSON_COMPACT | JSON_ENCODE_ANY);
	}
	putchar('\n');
}
