// SPDX-License-Identifier: BSD-3-Clause
// Copyright (c) 2026 the espgw authors

// The C client of espgw's control socket: for IKE agents and tools. Every method of the gateway
// (docs/control-protocol.md) can be called with espgw_client_call(); those that an agent needs at
// each negotiation have a function of their own, which also sees to it that key material is wiped.
//
// Link with `pkg-config --libs espgw-client`. Needs jansson and nothing else.
//
// Threads: a client is used by one thread at a time; it has no lock of its own. Clients are
// independent of each other, so give each thread its own, or put your own lock around a shared one.
// No function installs a signal handler, and none raises SIGPIPE.
//
// Time: timeouts are milliseconds; 0 = do not wait, negative = wait for ever.
//
// Numbers (SPI, ports, lifetimes) are in host byte order. Addresses and prefixes are text.

#ifndef ESPGW_CLIENT_H
#define ESPGW_CLIENT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <jansson.h>

#ifdef __cplusplus
extern "C" {
#endif

#define ESPGW_CLIENT_API      __attribute__((visibility("default")))
#define ESPGW_CLIENT_PROTOCOL 1                         // the protocol's major version
#define ESPGW_CLIENT_SOCKET   "/run/espgw/control.sock" // where the gateway listens by default

struct espgw_client;

// What became of a call.
enum espgw_status {
	ESPGW_OK = 0,
	ESPGW_REFUSED,     // the gateway answered with an error; struct espgw_error tells which
	ESPGW_UNREACHABLE, // nothing listens on the socket, or access to it is denied
	ESPGW_CLOSED,      // the gateway closed the connection, now or before: connect again
	ESPGW_TIMEOUT,     // no answer (or event) in time. The call may still be carried out
	ESPGW_PROTOCOL,    // what arrived is not the protocol; the connection is not used further
	ESPGW_ARGUMENT,    // the caller's arguments can't be sent; nothing was
	ESPGW_MEMORY,      // no memory
};

// Filled by each function that fails. Every function takes NULL for it.
struct espgw_error {
	enum espgw_status status;
	int code;           // ESPGW_REFUSED: the JSON-RPC error code; else 0
	char name[48];      // ESPGW_REFUSED: the error's name such as "key_seen", or ""
	char parameter[64]; // the parameter at fault, or ""
	char message[512];  // a sentence for people; never holds key material
};

// ---- connection ----

// What the gateway said of itself.
struct espgw_server {
	int protocol;
	char server[32];  // "espgw"
	char version[32]; // "0.1.0"
	char epoch[33];   // random at each start of the gateway: another epoch = all SAs are gone
	char name[64];    // the gateway's name in its configuration
};

// Connects to the socket at `path` (NULL: ESPGW_CLIENT_SOCKET) and says hello as `name`, such as
// "myagent/1.0" (at most 64 bytes). `timeout_ms` holds for the connection and then for each call.
// On ESPGW_OK *client is to be given to espgw_client_close(); else it is NULL.
ESPGW_CLIENT_API enum espgw_status espgw_client_connect(const char *path, const char *name,
	int timeout_ms, struct espgw_client **client, struct espgw_error *error);

// The same on a stream socket that is connected already. The client owns `fd` from the call on,
// whatever is returned, and makes it non-blocking.
ESPGW_CLIENT_API enum espgw_status espgw_client_connect_fd(int fd, const char *name, int timeout_ms,
	struct espgw_client **client, struct espgw_error *error);

// Wipes and frees everything; NULL is ignored.
ESPGW_CLIENT_API void espgw_client_close(struct espgw_client *client);

// Valid until the client is closed.
ESPGW_CLIENT_API const struct espgw_server *espgw_client_server(const struct espgw_client *client);

ESPGW_CLIENT_API void espgw_client_set_timeout(struct espgw_client *client, int timeout_ms);

// ---- any method ----

// Calls `method` with `params` (an object; NULL for none; borrowed). With ESPGW_OK, *result is a
// new reference of the caller's; else NULL. `result` may be NULL. Events that arrive meanwhile
// wait for espgw_client_event_next(). The request's text is wiped after sending, but jansson does
// not wipe `params`: put key material through espgw_client_sa_add().
ESPGW_CLIENT_API enum espgw_status espgw_client_call(struct espgw_client *client,
	const char *method, json_t *params, json_t **result, struct espgw_error *error);

// Calls a method that lists in pages (sa.list, tunnel.list, route.list) until the last page.
// *entries is a new reference to the array of all that `member` ("sas", "tunnels", "routes") held.
ESPGW_CLIENT_API enum espgw_status espgw_client_list(struct espgw_client *client,
	const char *method, json_t *params, const char *member, json_t **entries,
	struct espgw_error *error);

// ---- events ----

// Asks for events by name; `count` 0 asks for all. Whoever subscribes has to read: an agent that
// takes nothing for 30 seconds is disconnected.
ESPGW_CLIENT_API enum espgw_status espgw_client_subscribe(struct espgw_client *client,
	const char *const *events, size_t count, struct espgw_error *error);

// The next event: *event is a new reference to an object with the member "event" (its name) and
// what belongs to it. ESPGW_TIMEOUT when none came in time. An agent that is so slow that the
// client itself has to drop events gets {"event":"events.lost","count":N} in their place.
ESPGW_CLIENT_API enum espgw_status espgw_client_event_next(
	struct espgw_client *client, int timeout_ms, json_t **event, struct espgw_error *error);

// For poll() and event loops: readable when something arrived or the gateway closed. Then, and
// after each call made on this client (which may have read events), take events with a timeout of
// 0 until ESPGW_TIMEOUT. Do not read it, write it or close it.
ESPGW_CLIENT_API int espgw_client_fd(const struct espgw_client *client);

// ---- security associations ----

enum espgw_direction {
	ESPGW_IN, // customer endpoint to gateway endpoint: decapsulated here
	ESPGW_OUT // gateway endpoint to customer endpoint: encapsulated here
};

// 0, and anything from 2^63 on, = no limit.
struct espgw_lifetime {
	uint64_t seconds, bytes, packets;
};

// From the lowest to the highest; `last` 0 = all. For ICMP: type * 256 + code.
struct espgw_ports {
	uint16_t first, last;
};

// Inner prefixes as "10.0.0.0/8": `local` on the gateway's inside, `remote` behind the tunnel; both
// of one family. What a packet has to be like; one of an SA's selectors is enough.
struct espgw_selector {
	const char *local, *remote;
	uint8_t protocol;                             // of the upper layer; 0 = any
	struct espgw_ports local_ports, remote_ports; // with a protocol that has ports
};

#define ESPGW_KEY_BYTES  32
#define ESPGW_SALT_BYTES 4

#define ESPGW_REPLAY_WINDOW_OF_TUNNEL 0 // as the tunnel is configured
#define ESPGW_REPLAY_WINDOW_OFF       (-1)

// An SA to add; AES-256-GCM with a 16-byte ICV (RFC 4106). Start from all zero and set what is
// needed. The strings are borrowed for the call.
struct espgw_sa {
	const char *tunnel; // its name in the configuration
	enum espgw_direction direction;
	uint32_t spi;                           // in: one of espgw_client_spi_reserve()
	const char *source;                     // outer addresses; NULL = the tunnel's
	const char *destination;                //
	uint8_t key[ESPGW_KEY_BYTES];           // the first 32 bytes of the key material
	uint8_t salt[ESPGW_SALT_BYTES];         // and the last 4
	bool esn;                               // 64-bit sequence numbers
	int32_t replay_window;                  // in: packets, or one of the above
	uint16_t udp_source_port;               // UDP encapsulation (RFC 3948);
	uint16_t udp_destination_port;          // both 0 = plain ESP
	struct espgw_lifetime soft, hard;       // soft raises an event, hard stops the SA
	const struct espgw_selector *selectors; // NULL = any
	size_t selector_count;
};

// Adds an SA. *id is the gateway's number for it; *already tells that this very SA was there.
// Either may be NULL. `sa` is not changed: wipe it with espgw_client_sa_wipe() when done.
// The errors that an agent has to know: "key_seen" (never send this key again; negotiate anew),
// "no_record" (an inbound key of before a restart; negotiate anew), "duplicate_spi".
ESPGW_CLIENT_API enum espgw_status espgw_client_sa_add(struct espgw_client *client,
	const struct espgw_sa *sa, uint64_t *id, bool *already, struct espgw_error *error);

// Wipes key and salt in a way that the compiler does not leave out.
ESPGW_CLIENT_API void espgw_client_sa_wipe(struct espgw_sa *sa);

// Reserves `count` random SPIs for inbound SAs of a tunnel. Those that no SA was added with are
// given back 60 seconds after this connection ends. The gateway hands out at most 256 at a time.
ESPGW_CLIENT_API enum espgw_status espgw_client_spi_reserve(struct espgw_client *client,
	const char *tunnel, uint32_t *spis, size_t count, struct espgw_error *error);

// Gives an unused one back.
ESPGW_CLIENT_API enum espgw_status espgw_client_spi_release(
	struct espgw_client *client, uint32_t spi, struct espgw_error *error);

// An SA is named by direction and SPI, and, where two outbound SAs to different far ends have the
// same SPI, the destination address; it may be NULL.
struct espgw_sa_name {
	enum espgw_direction direction;
	uint32_t spi;
	const char *destination;
};

ESPGW_CLIENT_API enum espgw_status espgw_client_sa_delete(
	struct espgw_client *client, const struct espgw_sa_name *name, struct espgw_error *error);

// New outer addresses or ports of an SA, such as after the peer moved behind a NAT.
struct espgw_sa_change {
	const char *source;            // NULL = stays
	const char *destination;       // NULL = stays
	bool set_udp;                  // take the two ports below
	uint16_t udp_source_port;      // both 0 = plain ESP from now on
	uint16_t udp_destination_port; //
};

ESPGW_CLIENT_API enum espgw_status espgw_client_sa_update(struct espgw_client *client,
	const struct espgw_sa_name *name, const struct espgw_sa_change *change,
	struct espgw_error *error);

struct espgw_sa_use {
	uint64_t bytes, packets; // since the SA was added
	bool used;               // false: no packet yet, idle_seconds says nothing
	uint64_t idle_seconds;   // since the last packet
};

ESPGW_CLIENT_API enum espgw_status espgw_client_sa_query(struct espgw_client *client,
	const struct espgw_sa_name *name, struct espgw_sa_use *use, struct espgw_error *error);

#ifdef __cplusplus
}
#endif

#endif
