// SPDX-License-Identifier: BSD-3-Clause
// Copyright (c) 2026 the espgw authors

// sa.add, sa.update, sa.delete, sa.list, sa.show, sa.flush.

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <rte_cycles.h>

#include "control/internal.h"

bool sa_works(const struct sa *sa)
{
	return sa->state != SA_HARD_EXPIRED;
}

// ---- add ----

struct addition {
	struct request *request;
	const struct sa_request *parsed;
	uint8_t fingerprint[KEYSTORE_HASH_SIZE], identity[KEYSTORE_HASH_SIZE];
	struct record *record; // inbound
	bool new_record;
};

static bool is_identical(const struct sa *sa, const struct addition *addition)
{
	const struct sa_parameters *wanted = &addition->parsed->parameters;
	const struct control_sa *own = sa->control;
	return sa->tunnel == addition->parsed->tunnel &&
	       packet_address_equal(&sa->source, &wanted->source) &&
	       packet_address_equal(&sa->destination, &wanted->destination) &&
	       sa->esn == wanted->esn && sa->window == wanted->window &&
	       sa->udp_source == wanted->udp_source &&
	       sa->udp_destination == wanted->udp_destination &&
	       memcmp(own->identity, addition->identity, sizeof(own->identity)) == 0;
}

static json_t *add_result(const struct sa *sa, bool already)
{
	json_t *result = json_object();
	json_put_number(result, "id", sa->id);
	json_put(result, "already", json_boolean(already));
	return result;
}

static bool refuse_duplicate(struct request *request, const struct sa *sa)
{
	if (!sa_works(sa))
		return request_fail(request, RPC_DUPLICATE_SPI,
			"the SA with SPI 0x%08x has expired; delete it and add one with a new key",
			sa->spi);
	return request_fail(request, RPC_DUPLICATE_SPI,
		"tunnel %s has another %s SA with SPI 0x%08x", sa->tunnel->config->name,
		sa->direction == SA_INBOUND ? "inbound" : "outbound", sa->spi);
}

// The rules of docs/control-protocol.md, "Keys and restarts".
static bool check_key(const struct addition *addition, unsigned int seen)
{
	struct request *request = addition->request;
	const char *fault = keystore_fault(request->control->keystore);
	if (fault != NULL)
		return request_fail(request, RPC_STORE_UNAVAILABLE,
			"no SA can be added, since its key can't be recorded: %s", fault);
	if (addition->parsed->parameters.direction == SA_OUTBOUND && seen != 0)
		return request_fail(request, RPC_KEY_SEEN,
			"this key has been used before, %s; an outbound SA needs a new one",
			(seen & KEYSTORE_OUT) != 0 ? "outbound" : "inbound");
	if (addition->parsed->parameters.direction == SA_INBOUND && (seen & KEYSTORE_OUT) != 0)
		return request_fail(request, RPC_KEY_SEEN,
			"this key has been used for an outbound SA; each direction needs its own");
	return true;
}

static void send_no_record(const struct addition *addition)
{
	const struct sa_parameters *wanted = &addition->parsed->parameters;
	json_t *members = json_object();
	json_put_text(members, "tunnel", addition->parsed->tunnel->config->name);
	json_put_text(members, "direction", "in");
	json_put_spi(members, "spi", wanted->spi);
	json_put_address(members, "source", &wanted->source);
	json_put_address(members, "destination", &wanted->destination);
	event_send(addition->request->control, EVENT_SA_NO_RECORD, members);
}

// Finds or makes the replay record of an inbound SA. What can still fail comes before it.
static bool take_record(struct addition *addition, unsigned int seen)
{
	struct control *control = addition->request->control;
	struct records *records = control->records;
	struct record *record = records_find(records, addition->fingerprint);
	// A worker may still hold the SA that was just deleted, and store into the record.
	if (record != NULL && records_is_live(records, record))
		reclaim_synchronize(control->parts.reclaim);
	if (record != NULL && records_is_live(records, record))
		return request_fail(addition->request, RPC_KEY_SEEN,
			"another inbound SA has this key; each SA needs its own");
	if (record == NULL && (seen & KEYSTORE_IN) != 0) {
		send_no_record(addition);
		return request_fail(addition->request, RPC_NO_RECORD,
			"the key was used before, and nothing tells which packets were received "
			"with it; rekey");
	}
	addition->new_record = record == NULL;
	if (record == NULL)
		record = records_take(records, addition->fingerprint);
	if (record == NULL) {
		reclaim_synchronize(control->parts.reclaim);
		record = records_take(records, addition->fingerprint);
	}
	if (record == NULL)
		return request_fail(addition->request, RPC_TOO_MANY_SAS,
			"all %u replay records are in use",
			2 * control->parts.config->gateway.max_sas);
	records_set_live(records, record, true);
	addition->record = record;
	return true;
}

static void give_record_back(const struct addition *addition, bool key_is_stored)
{
	struct records *records = addition->request->control->records;
	if (addition->record == NULL)
		return;
	if (addition->new_record && !key_is_stored)
		records_drop(records, addition->record);
	else
		records_set_live(records, addition->record, false);
}

static bool store_key(const struct addition *addition)
{
	struct control_error error;
	bool inbound = addition->parsed->parameters.direction == SA_INBOUND;
	if (keystore_add(addition->request->control->keystore, addition->fingerprint,
		    inbound ? KEYSTORE_IN : KEYSTORE_OUT, &error) == 0)
		return true;
	control_log(addition->request->control, CONFIG_LOG_ERROR, "%s", error.text);
	return request_fail(addition->request, RPC_STORE_UNAVAILABLE,
		"the SA was not added, since its key could not be recorded: %s", error.text);
}

static struct sa *publish(const struct addition *addition)
{
	struct control *control = addition->request->control;
	struct control_sa *own = calloc(1, sizeof(*own));
	struct sa_parameters parameters = addition->parsed->parameters;
	struct tunnel_error error = {"no memory for the SA"};
	struct sa *sa = NULL;
	if (addition->record != NULL)
		parameters.top = &addition->record->top;
	errno = ENOMEM;
	if (own != NULL)
		sa = sa_add(control->parts.tunnels, addition->parsed->tunnel, &parameters, &error);
	explicit_bzero(&parameters, sizeof(parameters));
	if (sa == NULL) {
		free(own);
		request_fail(addition->request, errno == ENOMEM ? RPC_INTERNAL : RPC_BAD_PARAMETER,
			"%s", error.text);
		return NULL;
	}
	own->sa = sa;
	own->records = control->records;
	own->record = addition->record;
	memcpy(own->identity, addition->identity, sizeof(own->identity));
	memcpy(sa->fingerprint, addition->fingerprint, sizeof(sa->fingerprint));
	sa->control = own;
	lifetimes_watch(control, own);
	return sa;
}

// Every check comes before the key is recorded, and that before the SA works.
static json_t *add(struct addition *addition)
{
	struct request *request = addition->request;
	struct control *control = request->control;
	const struct sa_parameters *wanted = &addition->parsed->parameters;
	keystore_fingerprint(control->keystore, wanted->key, addition->fingerprint);
	keystore_identity(control->keystore, wanted->key, wanted->salt, addition->identity);
	const struct sa *other = sa_find(
		control->parts.tunnels, wanted->direction, wanted->spi, &wanted->destination);
	if (other != NULL && sa_works(other) && is_identical(other, addition))
		return add_result(other, true);
	unsigned int seen = keystore_seen(control->keystore, addition->fingerprint);
	if (other != NULL) {
		refuse_duplicate(request, other);
		return NULL;
	}
	if (!check_key(addition, seen))
		return NULL;
	if (sa_count(control->parts.tunnels) >= control->parts.config->gateway.max_sas) {
		request_fail(request, RPC_TOO_MANY_SAS,
			"the gateway has %u SAs, as many as gateway.max_sas allows",
			control->parts.config->gateway.max_sas);
		return NULL;
	}
	if (wanted->direction == SA_INBOUND && !take_record(addition, seen))
		return NULL;
	if (!store_key(addition)) {
		give_record_back(addition, false);
		return NULL;
	}
	const struct sa *sa = publish(addition);
	if (sa == NULL) {
		give_record_back(addition, true);
		return NULL;
	}
	if (wanted->direction == SA_INBOUND)
		reservations_taken(control, wanted->spi);
	return add_result(sa, false);
}

static json_t *method_sa_add(struct request *request)
{
	struct sa_request parsed;
	struct addition addition = {.request = request, .parsed = &parsed};
	json_t *result = NULL;
	if (sa_request_parse(request, &parsed))
		result = add(&addition);
	sa_request_wipe(&parsed);
	return result;
}

// ---- find ----

// By direction, SPI and, where needed, destination. NULL with the error set.
static struct sa *find(struct request *request)
{
	struct scope scope = {request, request->params, ""};
	struct tunnel_table *table = request->control->parts.tunnels;
	enum sa_direction direction;
	uint32_t spi;
	struct packet_address destination = {0};
	if (!scope_direction(&scope, &direction) || !scope_spi(&scope, "spi", &spi) ||
		!scope_address(&scope, "destination", &destination))
		return NULL;
	struct sa *found = NULL;
	for (struct sa *sa = sa_next(table, NULL); sa != NULL; sa = sa_next(table, sa)) {
		if (sa->direction != direction || sa->spi != spi ||
			(destination.family != 0 &&
				!packet_address_equal(&destination, &sa->destination)))
			continue;
		if (found != NULL) {
			request_fail(request, RPC_AMBIGUOUS_SA,
				"several outbound SAs have SPI 0x%08x; give destination", spi);
			return NULL;
		}
		found = sa;
	}
	if (found == NULL)
		request_fail(request, RPC_NO_SUCH_SA, "there is no %s SA with SPI 0x%08x%s",
			direction == SA_INBOUND ? "inbound" : "outbound", spi,
			destination.family != 0 ? " and this destination" : "");
	return found;
}

static json_t *id_result(uint64_t id)
{
	json_t *result = json_object();
	json_put_number(result, "id", id);
	return result;
}

// ---- update ----

static json_t *method_sa_update(struct request *request)
{
	struct scope scope = {request, request->params, ""};
	struct tunnel_table *table = request->control->parts.tunnels;
	struct sa *sa = find(request);
	if (sa == NULL)
		return NULL;
	struct packet_address source = sa->source, destination = sa->destination;
	struct udp_ports ports;
	if (!scope_address(&scope, "source", &source) ||
		!scope_address(&scope, "new_destination", &destination) ||
		!udp_ports_parse(&scope, &ports))
		return NULL;
	if (!ports.given && json_object_get(request->params, "source") == NULL &&
		json_object_get(request->params, "new_destination") == NULL) {
		request_fail_parameter(request, "", "new_destination",
			"give it, source or udp_encapsulation: there is nothing to update");
		return NULL;
	}
	if (!sa_check_outer(
		    request, sa->tunnel, sa->direction, &source, &destination, "new_destination"))
		return NULL;
	if (!ports.given) {
		ports.source = sa->udp_source;
		ports.destination = sa->udp_destination;
	}
	const struct sa *other = sa_find(table, sa->direction, sa->spi, &destination);
	if (other != NULL && other != sa) {
		refuse_duplicate(request, other);
		return NULL;
	}
	struct tunnel_error error;
	if (sa_update(table, sa, &source, &destination, ports.source, ports.destination, &error) !=
		0) {
		request_fail(request, RPC_BAD_PARAMETER, "%s", error.text);
		return NULL;
	}
	return id_result(sa->id);
}

// ---- delete ----

static void release_record(void *argument)
{
	struct control_sa *own = argument;
	records_set_live(own->records, own->record, false);
	free(own);
}

void sa_remove(struct control *control, struct sa *sa)
{
	struct control_sa *own = sa->control;
	lifetimes_forget(control, own);
	sa_delete(control->parts.tunnels, sa);
	// Until no worker holds the SA, its record must not be another's.
	if (own->record != NULL)
		reclaim_defer(control->parts.reclaim, release_record, own);
	else
		free(own);
}

static json_t *method_sa_delete(struct request *request)
{
	struct sa *sa = find(request);
	if (sa == NULL)
		return NULL;
	uint64_t id = sa->id;
	sa_remove(request->control, sa);
	return id_result(id);
}

unsigned int control_flush_tunnel(struct control *control, struct tunnel *tunnel)
{
	unsigned int deleted = 0;
	struct sa *sa;
	for (; (sa = TAILQ_FIRST(&tunnel->sas)) != NULL; deleted++)
		sa_remove(control, sa);
	return deleted;
}

static json_t *method_sa_flush(struct request *request)
{
	struct scope scope = {request, request->params, ""};
	struct tunnel_table *table = request->control->parts.tunnels;
	struct tunnel *tunnel = NULL;
	if (!scope_tunnel(&scope, "tunnel", OPTIONAL, &tunnel))
		return NULL;
	uint64_t deleted = 0;
	struct sa *sa;
	if (tunnel != NULL)
		deleted = control_flush_tunnel(request->control, tunnel);
	else
		for (; (sa = sa_next(table, NULL)) != NULL; deleted++)
			sa_remove(request->control, sa);
	json_t *result = json_object();
	json_put_number(result, "deleted", deleted);
	return result;
}

// ---- list and show ----

json_t *seconds_since_tsc(uint64_t tsc)
{
	if (tsc == 0)
		return json_null();
	uint64_t now = rte_get_tsc_cycles();
	return json_number(now > tsc ? (now - tsc) / rte_get_tsc_hz() : 0);
}

static json_t *limits_json(const struct sa_lifetime *limits)
{
	json_t *object = json_object();
	if (limits->seconds != 0)
		json_put_number(object, "seconds", limits->seconds);
	if (limits->bytes != 0)
		json_put_number(object, "bytes", limits->bytes);
	if (limits->packets != 0)
		json_put_number(object, "packets", limits->packets);
	return object;
}

static void put_ports(json_t *object, const char *name, const struct esp_ports *ports)
{
	json_t *range = json_object();
	json_put_number(range, "first", ports->first);
	json_put_number(range, "last", ports->last);
	json_put(object, name, range);
}

static json_t *selector_json(const struct esp_selector *selector)
{
	json_t *object = json_object();
	json_put_prefix(object, "local", &selector->local);
	json_put_prefix(object, "remote", &selector->remote);
	if (selector->protocol != 0)
		json_put_number(object, "protocol", selector->protocol);
	if (selector->local_ports.last != 0)
		put_ports(object, "local_ports", &selector->local_ports);
	if (selector->remote_ports.last != 0)
		put_ports(object, "remote_ports", &selector->remote_ports);
	return object;
}

static void put_settings(json_t *object, const struct sa *sa)
{
	json_put_number(object, "id", sa->id);
	json_put_text(object, "tunnel", sa->tunnel->config->name);
	json_put_text(object, "direction", sa->direction == SA_INBOUND ? "in" : "out");
	json_put_spi(object, "spi", sa->spi);
	json_put_address(object, "source", &sa->source);
	json_put_address(object, "destination", &sa->destination);
	json_put(object, "esn", json_boolean(sa->esn));
	json_put(object, "replay_window",
		sa->direction == SA_INBOUND ? json_number(sa->window) : json_null());
	json_t *udp = json_null();
	if (sa->udp_source != 0) {
		udp = json_object();
		json_put_number(udp, "source_port", sa->udp_source);
		json_put_number(udp, "destination_port", sa->udp_destination);
	}
	json_put(object, "udp_encapsulation", udp);
	json_t *lifetime = json_object();
	json_put(lifetime, "soft", limits_json(&sa->soft));
	json_put(lifetime, "hard", limits_json(&sa->hard));
	json_put(object, "lifetime", lifetime);
	json_t *selectors = json_array();
	for (unsigned int i = 0; i < sa->selector_count; i++)
		json_append(selectors, selector_json(&sa->selectors[i]));
	json_put(object, "selectors", selectors);
}

static json_t *sa_json(const struct sa *sa)
{
	static const char *const states[] = {
		[SA_ACTIVE] = "active",
		[SA_SOFT_EXPIRED] = "soft-expired",
		[SA_HARD_EXPIRED] = "hard-expired",
	};
	struct esp_counters counters = sa_counters(sa);
	json_t *object = json_object();
	put_settings(object, sa);
	json_put_text(object, "state", states[sa->state]);
	json_put(object, "current", json_boolean(sa->tunnel->current == sa));
	json_put_number(object, "age_seconds", (control_now() - sa->added) / NANOSECONDS);
	json_put(object, "idle_seconds", seconds_since_tsc(counters.last_use));
	json_put_number(object, "packets", counters.packets);
	json_put_number(object, "bytes", counters.bytes);
	json_put_number(object, "sequence",
		sa->direction == SA_INBOUND ? esp_sa_in_top(sa->in) : sa_last_sequence(sa));
	return object;
}

static json_t *method_sa_list(struct request *request)
{
	struct scope scope = {request, request->params, ""};
	struct tunnel_table *table = request->control->parts.tunnels;
	struct tunnel *tunnel = NULL;
	uint64_t limit, after = 0, last = 0;
	if (!scope_tunnel(&scope, "tunnel", OPTIONAL, &tunnel) || !page_limit(request, &limit) ||
		!scope_number(&scope, "after", OPTIONAL, 0, INT64_MAX, &after))
		return NULL;
	json_t *list = json_array(), *result = json_object();
	struct sa *sa = tunnel != NULL ? TAILQ_FIRST(&tunnel->sas) : sa_next(table, NULL);
	for (; sa != NULL; sa = tunnel != NULL ? TAILQ_NEXT(sa, in_tunnel) : sa_next(table, sa)) {
		if (sa->id <= after)
			continue;
		if (json_array_size(list) == limit) {
			json_put_number(result, "next", last);
			break;
		}
		json_append(list, sa_json(sa));
		last = sa->id;
	}
	json_put(result, "sas", list);
	return result;
}

static json_t *method_sa_show(struct request *request)
{
	const struct sa *sa = find(request);
	if (sa == NULL)
		return NULL;
	json_t *result = json_object();
	json_put(result, "sa", sa_json(sa));
	return result;
}

static const char *const find_parameters[] = {"direction", "spi", "destination", NULL};
static const char *const update_parameters[] = {
	"direction", "spi", "destination", "source", "new_destination", "udp_encapsulation", NULL};
static const char *const flush_parameters[] = {"tunnel", NULL};
static const char *const list_parameters[] = {"tunnel", "limit", "after", NULL};

const struct method methods_sa[] = {
	{"sa.add", method_sa_add, sa_add_parameters},
	{"sa.update", method_sa_update, update_parameters},
	{"sa.delete", method_sa_delete, find_parameters},
	{"sa.list", method_sa_list, list_parameters},
	{"sa.show", method_sa_show, find_parameters},
	{"sa.flush", method_sa_flush, flush_parameters},
	{NULL, NULL, NULL},
};
