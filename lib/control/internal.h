// SPDX-License-Identifier: BSD-3-Clause
// Copyright (c) 2026 the espgw authors

// What the files of lib/control share.

#pragma once

#include <stdarg.h>
#include <sys/queue.h>
#include <sys/types.h>

#include <jansson.h>

#include "control/control.h"
#include "control/keystore.h"
#include "control/records.h"

#define CONTROL_PROTOCOL     1
#define CONTROL_LINE_MAX     65536 // bytes of a request, line feed not counted
#define CONTROL_PAGE_MAX     100   // entries of a page: about 1 ms of the control thread
#define CONTROL_TICK_MS      10
#define CONTROL_RESERVE_MAX  256 // SPIs in one spi.reserve
#define CONTROL_RESERVE_HOLD 60  // seconds that reservations outlive their connection

#define NANOSECONDS UINT64_C(1000000000)

struct client;

// ---- errors (json.c) ----

// X(NAME, code, "name")
#define RPC_ERRORS(X)                                     \
	X(PARSE, -32700, "parse_error")                   \
	X(LINE_TOO_LONG, -32700, "line_too_long")         \
	X(INVALID_REQUEST, -32600, "invalid_request")     \
	X(UNKNOWN_METHOD, -32601, "unknown_method")       \
	X(BAD_PARAMETER, -32602, "bad_parameter")         \
	X(INTERNAL, -32603, "internal")                   \
	X(HELLO_FIRST, -32000, "hello_first")             \
	X(PROTOCOL, -32001, "protocol_unsupported")       \
	X(TOO_MANY_CLIENTS, -32002, "too_many_clients")   \
	X(NO_SUCH_TUNNEL, -32003, "no_such_tunnel")       \
	X(NO_SUCH_SA, -32004, "no_such_sa")               \
	X(DUPLICATE_SPI, -32005, "duplicate_spi")         \
	X(KEY_SEEN, -32006, "key_seen")                   \
	X(NO_RECORD, -32007, "no_record")                 \
	X(STORE_UNAVAILABLE, -32008, "store_unavailable") \
	X(TOO_MANY_SAS, -32009, "too_many_sas")           \
	X(NO_SUCH_ROUTE, -32010, "no_such_route")         \
	X(ROUTE_REFUSED, -32011, "route_refused")         \
	X(NO_SUCH_PORT, -32012, "no_such_port")           \
	X(NO_SPI, -32013, "no_spi")                       \
	X(NOT_PERMITTED, -32014, "not_permitted")         \
	X(AMBIGUOUS_SA, -32015, "ambiguous_sa")           \
	X(SPI_NOT_RESERVED, -32016, "spi_not_reserved")

enum rpc_error_kind {
#define X(NAME, code, name) RPC_##NAME,
	RPC_ERRORS(X)
#undef X
};

struct rpc_error {
	enum rpc_error_kind kind;
	char parameter[64]; // path of the parameter, or ""
	char message[512];
};

// What a connection has said so far.
struct session {
	uint64_t id;
	bool greeted;
	uint32_t events; // subscribed: bit 1 << enum event_kind
	bool stages;     // wants the workers to count stages
	bool is_root;    // is of root or of the daemon's own user
};

struct request {
	struct control *control;
	struct session *session;
	json_t *params; // an object
	struct rpc_error error;
};

// Fill the error; both return false (or NULL) so that callers can return them.
bool request_fail(struct request *request, enum rpc_error_kind kind, const char *format, ...)
	__attribute__((format(printf, 3, 4)));
bool request_fail_parameter(struct request *request, const char *path, const char *name,
	const char *format, ...) __attribute__((format(printf, 4, 5)));
json_t *rpc_error_reply(json_t *id, const struct rpc_error *error);
// An error that answers no request of its own; to be freed with control_free.
char *rpc_error_line(enum rpc_error_kind kind, const char *message);

// ---- JSON (json.c) ----

// Sets a member; a failure (no memory) is remembered until json_memory_failed asks.
void json_put(json_t *object, const char *name, json_t *value);
void json_put_number(json_t *object, const char *name, uint64_t value);
void json_put_text(json_t *object, const char *name, const char *value);
void json_put_spi(json_t *object, const char *name, uint32_t spi);
void json_put_address(json_t *object, const char *name, const struct packet_address *address);
void json_put_prefix(json_t *object, const char *name, const struct packet_prefix *prefix);
void json_append(json_t *array, json_t *value);
bool json_memory_failed(void);
json_t *json_number(uint64_t value);

// ---- parameters (parameters.c) ----

// An object whose members are parameters; `path` is "" or like "lifetime.soft.".
struct scope {
	struct request *request;
	json_t *object;
	const char *path;
};

enum need { OPTIONAL, REQUIRED };

// Each returns false with the request's error set when the parameter is malformed, or missing
// though REQUIRED. When it is OPTIONAL and absent (or null), *value is left alone.
bool scope_check_names(const struct scope *scope, const char *const *names);
json_t *scope_get(const struct scope *scope, const char *name, enum need need, bool *ok);
// An object inside; *found.object is NULL when it is absent.
bool scope_object(const struct scope *scope, const char *name, const char *const *names,
	char path[64], struct scope *found);
bool scope_text(const struct scope *scope, const char *name, enum need need, const char **value);
bool scope_number(const struct scope *scope, const char *name, enum need need, uint64_t least,
	uint64_t most, uint64_t *value);
bool scope_boolean(const struct scope *scope, const char *name, bool *value);
bool scope_spi(const struct scope *scope, const char *name, uint32_t *value);
bool scope_direction(const struct scope *scope, enum sa_direction *value);
bool scope_address(const struct scope *scope, const char *name, struct packet_address *value);
bool scope_prefix(const struct scope *scope, const char *name, struct packet_prefix *value);
// Key material: exactly `size` bytes in hex; never in a message.
bool scope_secret(const struct scope *scope, const char *name, uint8_t *value, size_t size);
bool scope_tunnel(
	const struct scope *scope, const char *name, enum need need, struct tunnel **value);
// The entry of `names` nearest to a misspelt one, or NULL.
const char *nearest_name(const char *name, const char *const *names);

// ---- requests (request.c) ----

struct method {
	const char *name;
	json_t *(*call)(struct request *request); // NULL with the error set
	const char *const *parameters;            // names, NULL at the end
};

extern const struct method methods_session[], methods_sa[], methods_tunnel[], methods_route[],
	methods_stats[], methods_stages[], methods_config[]; // each ends with a NULL name

// Carries out one line and returns the reply, both without line feed. The line is the caller's to
// wipe, the reply to be freed with control_free; NULL when there is no memory for one.
char *request_handle(
	struct control *control, struct session *session, const char *line, size_t length);
void control_free(void *text); // what jansson allocated

// ---- events (events.c) ----

// X(NAME, "name")
#define EVENTS(X)                                         \
	X(SA_SOFT_EXPIRED, "sa.soft_expired")             \
	X(SA_HARD_EXPIRED, "sa.hard_expired")             \
	X(SA_SEQUENCE_EXHAUSTED, "sa.sequence_exhausted") \
	X(SA_NO_RECORD, "sa.no_record")                   \
	X(SA_PEER_MOVED, "sa.peer_moved")                 \
	X(TUNNEL_NO_SA, "tunnel.no_sa")                   \
	X(TUNNEL_HEALTH, "tunnel.health")                 \
	X(TUNNEL_MTU, "tunnel.mtu")                       \
	X(SPI_UNKNOWN, "spi.unknown")                     \
	X(PORT_STATE, "port.state")                       \
	X(CONFIG_APPLIED, "config.applied")               \
	X(EVENTS_LOST, "events.lost")

enum event_kind {
#define X(NAME, name) EVENT_##NAME,
	EVENTS(X)
#undef X
		EVENT_COUNT
};

extern const char *const event_names[]; // NULL at the end

// Sends to all who subscribed. Takes the reference to `members`.
void event_send(struct control *control, enum event_kind kind, json_t *members);
// The notification's text; NULL when there is no memory. Takes the reference to `members`.
char *event_line(enum event_kind kind, json_t *members);
// limit: "seconds", "bytes", "packets", or NULL for events without.
void event_send_sa(
	struct control *control, enum event_kind kind, const struct sa *sa, const char *limit);

// ---- SAs (methods_sa.c, sa_parameters.c, lifetimes.c) ----

// Control's own part of an SA, at sa->control.
struct control_sa {
	TAILQ_ENTRY(control_sa) in_limited;
	struct sa *sa;
	struct records *records;
	struct record *record;                // inbound; else NULL
	uint8_t identity[KEYSTORE_HASH_SIZE]; // of key and salt
	bool limited;                         // is in the list of those with limits
};

TAILQ_HEAD(control_sa_list, control_sa);

struct sa_request {
	struct tunnel *tunnel;
	struct sa_parameters parameters; // holds the key: sa_request_wipe
};

bool sa_request_parse(struct request *request, struct sa_request *parsed);
void sa_request_wipe(struct sa_request *parsed);
extern const char *const sa_add_parameters[];

struct udp_ports {
	bool given; // false: the parameter was left out
	uint16_t source, destination;
};

bool udp_ports_parse(const struct scope *scope, struct udp_ports *ports);
// The outer addresses of an SA of this tunnel, checked.
bool sa_check_outer(struct request *request, const struct tunnel *tunnel,
	enum sa_direction direction, const struct packet_address *source,
	const struct packet_address *destination, const char *destination_name);

void sa_remove(struct control *control, struct sa *sa);
bool sa_works(const struct sa *sa);
// Seconds since a TSC value; NULL object (JSON null) for 0 = never.
json_t *seconds_since_tsc(uint64_t tsc);

void lifetimes_watch(struct control *control, struct control_sa *own);
void lifetimes_forget(struct control *control, struct control_sa *own);
void lifetimes_check(struct control *control);
// For outbound SAs: the last sequence number used.
uint64_t sa_last_sequence(const struct sa *sa);

// ---- SPI reservations (methods_session.c) ----

struct reservation {
	TAILQ_ENTRY(reservation) in_all;
	uint32_t spi;
	uint64_t session;
	uint64_t expires; // CLOCK_MONOTONIC, nanoseconds; 0 = its connection lives
};

TAILQ_HEAD(reservation_list, reservation);

void reservations_taken(struct control *control, uint32_t spi);
void reservations_session_ended(struct control *control, uint64_t session);
void reservations_expire(struct control *control);
void reservations_destroy(struct control *control);

// ---- stages (methods_stages.c) ----

void stages_session_ended(struct control *control, struct session *session);

// ---- pages (json.c) ----

bool page_limit(struct request *request, uint64_t *limit);

// ---- the server (server.c) ----

struct server;
// Whether a socket can be made at this path: -1 with *error set when something else is there, or
// a gateway answers.
int server_check_path(const char *path, struct control_error *error);
struct server *server_create(
	struct control *control, struct event_base *base, struct control_error *error);
void server_destroy(struct server *server);
void server_send_event(struct server *server, enum event_kind kind, const char *text);

struct peer {
	uid_t uid;
	gid_t gid;
	const gid_t *groups; // supplementary ones
	unsigned int group_count;
};
// Root, the daemon's own user, and those who may write to a socket of this mode and group.
bool server_admits(const struct peer *peer, uid_t own_uid, mode_t mode, gid_t socket_group);

// ---- all together (control.c) ----

struct control {
	struct control_parts parts;
	struct keystore *keystore;
	struct records *records;
	struct server *server;
	struct event *tick;
	struct control_sa_list limited;
	struct reservation_list reservations;
	unsigned int reservation_count;
	unsigned int stages_sessions; // how many want the workers to count stages
	uint64_t started;             // CLOCK_MONOTONIC, nanoseconds
	uint64_t next_expiry;         // of SPI reservations, the same
	char epoch[17];
};

// Without a socket: for the fuzzer, which calls request_handle itself.
struct control *control_create_unconnected(
	const struct control_parts *parts, struct control_error *error);

// All SAs of a tunnel. Returns how many.
unsigned int control_flush_tunnel(struct control *control, struct tunnel *tunnel);

uint64_t control_now(void); // CLOCK_MONOTONIC, nanoseconds
void control_log(const struct control *control, enum config_log_level level, const char *format,
	...) __attribute__((format(printf, 3, 4)));
