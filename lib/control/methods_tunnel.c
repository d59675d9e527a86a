// SPDX-License-Identifier: BSD-3-Clause
// Copyright (c) 2026 the espgw authors

// tunnel.list, tunnel.show.

#include <fnmatch.h>
#include <string.h>

#include "control/internal.h"

struct sa_summary {
	unsigned int in, out, working_in, working_out;
	uint64_t last_in, last_out;   // TSC; 0 = never
	const struct sa *newest_in;   // that works, or NULL
	const struct sa *current_out; // or NULL
};

static struct sa_summary summarize(const struct tunnel *tunnel)
{
	struct sa_summary summary = {0};
	const struct sa *sa;
	TAILQ_FOREACH (sa, &tunnel->sas, in_tunnel) {
		bool inbound = sa->direction == SA_INBOUND;
		uint64_t *last = inbound ? &summary.last_in : &summary.last_out;
		uint64_t last_use = sa_counters(sa).last_use;
		if (last_use > *last)
			*last = last_use;
		*(inbound ? &summary.in : &summary.out) += 1;
		*(inbound ? &summary.working_in : &summary.working_out) += sa_works(sa);
		if (inbound && sa_works(sa))
			summary.newest_in = sa; // the list has the oldest first
	}
	summary.current_out = tunnel->current;
	return summary;
}

static const char *state_name(const struct sa_summary *summary)
{
	if (summary->working_in != 0 && summary->working_out != 0)
		return "up";
	return summary->working_in != 0 || summary->working_out != 0 ? "half" : "down";
}

static void put_drops(json_t *object, const uint64_t drops[DROP_COUNT])
{
	json_t *reasons = json_object();
	uint64_t total = 0;
	for (unsigned int reason = DROP_NONE + 1; reason < DROP_COUNT; reason++) {
		if (drops[reason] != 0)
			json_put_number(reasons, drop_reason_name(reason), drops[reason]);
		total += drops[reason];
	}
	json_put(object, "drops", reasons);
	json_put_number(object, "drop_total", total);
}

static json_t *age_json(const struct sa *sa, uint64_t now)
{
	return sa == NULL ? json_null() : json_number((now - sa->added) / NANOSECONDS);
}

// Seconds that are left of a lifetime, rounded up, so that 0 means past; UINT64_MAX: no limit.
static uint64_t seconds_left(const struct sa *sa, uint64_t limit, uint64_t now)
{
	if (sa == NULL || limit == 0)
		return UINT64_MAX;
	uint64_t age = (now - sa->added) / NANOSECONDS;
	return age >= limit ? 0 : limit - age;
}

static json_t *first_limit_json(uint64_t in, uint64_t out)
{
	uint64_t first = in < out ? in : out;
	return first == UINT64_MAX ? json_null() : json_number(first);
}

// What an operator wants to know of the SAs that carry the traffic now.
static void put_ages(json_t *object, const struct sa_summary *summary)
{
	const struct sa *in = summary->newest_in, *out = summary->current_out;
	uint64_t now = control_now();
	json_put(object, "in_age_seconds", age_json(in, now));
	json_put(object, "out_age_seconds", age_json(out, now));
	json_put(object, "rekey_in_seconds",
		first_limit_json(seconds_left(in, in == NULL ? 0 : in->soft.seconds, now),
			seconds_left(out, out == NULL ? 0 : out->soft.seconds, now)));
	json_put(object, "expiry_in_seconds",
		first_limit_json(seconds_left(in, in == NULL ? 0 : in->hard.seconds, now),
			seconds_left(out, out == NULL ? 0 : out->hard.seconds, now)));
}

static void put_round_trip(json_t *object, const char *name, uint64_t nanoseconds)
{
	json_put(object, name, nanoseconds == 0 ? json_null() : json_number(nanoseconds / 1000));
}

static json_t *health_json(const struct control *control, const struct tunnel *tunnel)
{
	struct health_report report;
	if (control->parts.health == NULL ||
		!control->parts.health(control->parts.argument, tunnel->index, &report))
		return json_null();
	json_t *object = json_object();
	json_put_text(object, "state", health_state_name(report.state));
	json_put_number(object, "since_seconds", (control_now() - report.since) / NANOSECONDS);
	json_put(object, "loss",
		report.window_probes == 0
			? json_null()
			: json_real((double)report.window_failed / (double)report.window_probes));
	json_put_number(object, "window_probes", report.window_probes);
	json_put_number(object, "window_failed", report.window_failed);
	put_round_trip(object, "rtt_us", report.rtt);
	put_round_trip(object, "rtt_smoothed_us", report.rtt_smoothed);
	json_put_number(object, "attempts", report.attempts);
	json_put_number(object, "answered", report.answered);
	json_put_number(object, "failed", report.failed);
	json_put_number(object, "changes", report.changes);
	return object;
}

static void put_path(json_t *object, const struct tunnel_path *path)
{
	json_put(object, "path_mtu", path->mtu == 0 ? json_null() : json_number(path->mtu));
	json_put_number(object, "path_mtu_believed", path->believed);
	json_put_number(object, "path_mtu_refused", path->refused);
}

static json_t *tunnel_json(const struct control *control, const struct tunnel *tunnel)
{
	static const char *const far_sides[] = {
		[CONFIG_FAR_SIDE_ANY] = "any",
		[CONFIG_FAR_SIDE_AWS] = "aws",
		[CONFIG_FAR_SIDE_CLOUDFLARE] = "cloudflare",
	};
	const struct config_tunnel *config = tunnel->config;
	struct sa_summary summary = summarize(tunnel);
	struct telemetry_tunnel sum;
	telemetry_sum_tunnel(control->parts.telemetry, tunnel->index, &sum);
	// Formatted as a prefix, which keeps the host bits.
	struct packet_prefix interface = {
		config->interface_address.address, config->interface_address.length};
	json_t *object = json_object();
	json_put_text(object, "name", config->name);
	json_put_number(object, "if_id", config->if_id);
	json_put_address(object, "gateway_endpoint", &config->gateway_endpoint);
	json_put_address(object, "customer_endpoint", &config->customer_endpoint);
	json_put_prefix(object, "interface_address", &interface);
	json_put_text(object, "far_side", far_sides[config->far_side]);
	json_put_number(object, "mtu", tunnel_offered_mtu(tunnel, tunnel->egress));
	put_path(object, &tunnel->path);
	json_put_text(object, "state", state_name(&summary));
	json_put_number(object, "sas_in", summary.in);
	json_put_number(object, "sas_out", summary.out);
	put_ages(object, &summary);
	json_put(object, "health", health_json(control, tunnel));
	json_put_number(object, "probes_sent", sum.probes_sent);
	json_put_number(object, "echoes_answered", sum.echoes_answered);
	json_put_number(object, "out_packets", sum.out_packets);
	json_put_number(object, "out_bytes", sum.out_bytes);
	json_put_number(object, "in_packets", sum.in_packets);
	json_put_number(object, "in_bytes", sum.in_bytes);
	put_drops(object, sum.drops);
	json_put(object, "last_out_seconds", seconds_since_tsc(summary.last_out));
	json_put(object, "last_in_seconds", seconds_since_tsc(summary.last_in));
	return object;
}

// Which tunnels a list is to have.
struct tunnel_filter {
	const char *name, *state; // NULL = any; the name is a pattern of the shell
};

static bool parse_filter(struct request *request, struct tunnel_filter *filter)
{
	static const char *const states[] = {"up", "half", "down", NULL};
	struct scope scope = {request, request->params, ""};
	if (!scope_text(&scope, "name", OPTIONAL, &filter->name) ||
		!scope_text(&scope, "state", OPTIONAL, &filter->state))
		return false;
	// Patterns can take long: names have at most 15 characters.
	if (filter->name != NULL && strlen(filter->name) > 32)
		return request_fail_parameter(request, "", "name", "give at most 32 characters");
	for (unsigned int i = 0; filter->state != NULL && states[i] != NULL; i++)
		if (strcmp(filter->state, states[i]) == 0)
			return true;
	return filter->state == NULL ||
	       request_fail_parameter(request, "", "state", "give \"up\", \"half\" or \"down\"");
}

static bool passes(const struct tunnel_filter *filter, const struct tunnel *tunnel)
{
	if (tunnel->config == NULL ||
		(filter->name != NULL && fnmatch(filter->name, tunnel->config->name, 0) != 0))
		return false;
	if (filter->state == NULL)
		return true;
	struct sa_summary summary = summarize(tunnel);
	return strcmp(state_name(&summary), filter->state) == 0;
}

// Tunnels that one request looks at.
#define LOOKED_AT_MAX 1000

static json_t *method_tunnel_list(struct request *request)
{
	struct scope scope = {request, request->params, ""};
	const struct tunnel_table *table = request->control->parts.tunnels;
	struct tunnel_filter filter = {NULL, NULL};
	uint64_t limit, after = 0; // indexes before this one were listed
	if (!page_limit(request, &limit) ||
		!scope_number(&scope, "after", OPTIONAL, 0, UINT32_MAX, &after) ||
		!parse_filter(request, &filter))
		return NULL;
	uint64_t i = after;
	json_t *list = json_array(), *result = json_object();
	for (; i < tunnel_count(table) && json_array_size(list) < limit &&
		i - after < LOOKED_AT_MAX;
		i++) {
		const struct tunnel *tunnel = tunnel_get(table, (unsigned int)i);
		if (passes(&filter, tunnel))
			json_append(list, tunnel_json(request->control, tunnel));
	}
	json_put(result, "tunnels", list);
	if (i < tunnel_count(table))
		json_put_number(result, "next", i);
	return result;
}

static json_t *method_tunnel_show(struct request *request)
{
	struct scope scope = {request, request->params, ""};
	struct tunnel *tunnel = NULL;
	if (!scope_tunnel(&scope, "tunnel", REQUIRED, &tunnel))
		return NULL;
	json_t *result = json_object();
	json_put(result, "tunnel", tunnel_json(request->control, tunnel));
	return result;
}

static const char *const list_parameters[] = {"limit", "after", "name", "state", NULL};
static const char *const show_parameters[] = {"tunnel", NULL};

const struct method methods_tunnel[] = {
	{"tunnel.list", method_tunnel_list, list_parameters},
	{"tunnel.show", method_tunnel_show, show_parameters},
	{NULL, NULL, NULL},
};
