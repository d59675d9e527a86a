// SPDX-License-Identifier: BSD-3-Clause
// Copyright (c) 2026 the espgw authors

// Tunnels and the SA database: which SAs a tunnel has, which outbound one carries its traffic,
// which inbound SA an SPI names. Control changes it while workers read.

#pragma once

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/queue.h>

#include "config/config.h"
#include "esp/esp.h"
#include "packet/packet.h"
#include "reclaim/reclaim.h"
#include "tunnel/health.h" // the part of this face that is about health checks

#define TUNNEL_NO_PATH UINT32_MAX

// What a worker needs to send by a tunnel. One per outbound SA; the SA never changes, the adjacency
// does when the way to the SA's outer destination changes.
struct tunnel_egress {
	struct esp_sa_out *sa;
	_Atomic uint32_t adjacency; // of the data plane, towards the SA's outer destination; or
				    // TUNNEL_NO_PATH. Read it once per packet or burst.
	_Atomic uint32_t mtu;       // largest inner packet in bytes that the tunnel offers
};

enum sa_direction { SA_INBOUND, SA_OUTBOUND };

// 0 = no limit.
struct sa_lifetime {
	uint64_t seconds, bytes, packets;
};

#define SA_SELECTORS 16

// As the agent gives it.
struct sa_parameters {
	enum sa_direction direction;
	uint32_t spi;                              // host order
	struct packet_address source, destination; // outer
	uint8_t key[ESP_KEY_SIZE];
	uint8_t salt[ESP_SALT_SIZE];
	bool esn;
	uint32_t window;                      // inbound: packets, 0 = off
	uint16_t udp_source, udp_destination; // 0 and 0 = none
	struct sa_lifetime soft, hard;
	unsigned int selector_count; // 0 = any
	struct esp_selector selectors[SA_SELECTORS];
	uint64_t *top; // inbound: see esp_sa_in_parameters
};

enum sa_state {
	SA_ACTIVE,
	SA_SOFT_EXPIRED, // works on; the agent has been asked for a new one
	SA_HARD_EXPIRED, // stopped: carries nothing; stays listed until the agent deletes it
};

// Control's record of one SA.
struct sa {
	TAILQ_ENTRY(sa) in_tunnel, in_table;
	uint64_t id; // counts up over the life of the process; newer SAs have higher ones
	struct tunnel *tunnel;
	enum sa_direction direction;
	uint32_t spi;
	struct packet_address source, destination;
	bool esn;
	uint32_t window;
	uint16_t udp_source, udp_destination;
	struct sa_lifetime soft, hard;
	unsigned int selector_count;
	struct esp_selector *selectors;
	enum sa_state state;
	uint64_t added;          // CLOCK_MONOTONIC, nanoseconds
	int64_t added_clock;     // CLOCK_REALTIME, seconds
	uint8_t fingerprint[32]; // of key and direction, for the key store; set by control
	struct esp_sa_in *in;
	struct esp_sa_out *out;
	struct tunnel_egress *egress; // outbound: what is published when it is the current one
	void *control;                // control's own
	// The table's own.
	LIST_ENTRY(sa) in_bucket;
	struct tunnel_table *table;
	uint32_t slot;  // inbound: where the SPI stands in the lookup table
	uint64_t moved; // outbound: grace period of the last change of the outer header
};

// What routers told of the way to the far end; control's.
struct tunnel_path {
	uint32_t mtu;                 // outer bytes; 0 = nothing is known
	uint64_t learnt;              // CLOCK_MONOTONIC, nanoseconds
	struct packet_address sender; // who told
	uint64_t believed, refused;   // messages
};

struct tunnel {
	// Read by workers.
	_Atomic(struct tunnel_egress *) egress; // NULL = no outbound SA
	uint32_t index;
	// What control may change at any time:
	uint32_t mtu;       // largest inner packet in bytes while there is no outbound SA
	uint32_t mss;       // as configured; see config_tunnel
	uint32_t tfc;       // bytes that inner packets are padded to; 0 = off
	bool clear_df;      // IPv4 packets over the MTU are split even if they have DF
	uint8_t own_family; // of the interface address, see tunnel_own_address
	uint64_t own[2];
	// Control's.
	const struct config_tunnel *config; // NULL: there is no tunnel of this index
	TAILQ_HEAD(sa_list, sa) sas;        // oldest first
	struct sa *current;                 // outbound SA in use
	struct tunnel_path path;
} __rte_cache_aligned;

// Worker or control: the largest inner packet in bytes. `egress` is what was read of the tunnel.
static inline uint32_t tunnel_offered_mtu(
	const struct tunnel *tunnel, const struct tunnel_egress *egress)
{
	return egress == NULL ? tunnel->mtu
			      : atomic_load_explicit(&egress->mtu, memory_order_acquire);
}

// Worker or control: the interface address. A worker that asks while control changes it may get one
// that is put together of both.
struct packet_address tunnel_own_address(const struct tunnel *tunnel);

struct tunnel_table;

struct tunnel_error {
	char text[256];
};

// One tunnel per configured one, same indexes, and room for config_tunnel_room of them; the
// configuration must outlive the table. Control thread; needs EAL. NULL when memory is short.
struct tunnel_table *tunnel_table_create(const struct config *config, struct reclaim *reclaim);
// Frees all SAs, wiping their keys. No worker may run any more.
void tunnel_table_destroy(struct tunnel_table *table);
// One more than the highest index that a tunnel has or had. Not each index below is a tunnel's: see
// tunnel->config.
unsigned int tunnel_count(const struct tunnel_table *table);
unsigned int tunnel_room(const struct tunnel_table *table);
// Control. Gives a tunnel its configuration, which must outlive it or the next call: a new one, or
// another in the place of the one before. NULL: there is no such tunnel any more; it has no SA, and
// its index must not be used again before all workers have passed a quiescent state.
void tunnel_configure(
	struct tunnel_table *table, unsigned int index, const struct config_tunnel *config);
// Worker or control. `index` < tunnel_room.
struct tunnel *tunnel_get(const struct tunnel_table *table, unsigned int index);
// Control. NULL when there is none.
struct tunnel *tunnel_find(const struct tunnel_table *table, const char *name);

// Worker: inbound SAs and their tunnel's index for a burst of SPIs (network order, count <=
// ESP_BURST_MAX). sas[i] is NULL for an unknown SPI; returns how many are. Valid until the worker's
// quiescent state.
unsigned int tunnel_lookup_spis(const struct tunnel_table *table, const uint32_t *spis,
	struct esp_sa_in **sas, uint32_t *tunnels, unsigned int count);

#define TUNNEL_WINDOW_NARROW 1024 // packets

// Worker: whether an inbound SA has a replay window (not: none) that is smaller than this.
bool tunnel_has_narrow_window(const struct tunnel_table *table);

// The last sequence number that an outbound SA of the tunnel can have: the end of the format, or
// packets_per_key. The hard limit of the SA may lower it further.
uint64_t tunnel_sequence_end(const struct tunnel *tunnel, bool esn);

// Control: a random SPI of at least 256 that no inbound SA has and that was not handed out; it
// stays reserved until an inbound SA takes it or tunnel_spi_release. At most max_sas are reserved
// at a time. 0 when no room is left.
uint32_t tunnel_spi_reserve(struct tunnel_table *table);
void tunnel_spi_release(struct tunnel_table *table, uint32_t spi);
bool tunnel_spi_is_reserved(const struct tunnel_table *table, uint32_t spi);

// Control. Adds an SA: an inbound one works at once beside the old ones; an outbound one takes over
// at once. NULL with *error set (and errno EEXIST, EINVAL, ENOSPC, ENOMEM): duplicate SPI (inbound:
// among inbound; outbound: same SPI and destination), SPI under 256, families that differ, window
// not a power of two from 32 to 65536, ESN without window, one UDP port only, max_sas reached. The
// caller wipes the parameters.
struct sa *sa_add(struct tunnel_table *table, struct tunnel *tunnel,
	const struct sa_parameters *parameters, struct tunnel_error *error);
// Outbound: another destination, source or UDP port, without touching key or sequence (a peer has
// moved). Inbound: the record, and whom its packets are expected from. A NULL address leaves the
// old one; ports 0 and 0 = no UDP. 0, or -EINVAL or -EEXIST with *error set and nothing changed.
int sa_update(struct tunnel_table *table, struct sa *sa, const struct packet_address *source,
	const struct packet_address *destination, uint16_t udp_source, uint16_t udp_destination,
	struct tunnel_error *error);
// Stops the SA for good (hard expiry): workers no longer find it; it stays listed.
void sa_stop(struct tunnel_table *table, struct sa *sa);
// Unlinks the SA at once and frees it, keys wiped, when no worker holds it. If it carried its
// tunnel's traffic, the newest outbound SA left that is not stopped takes over.
void sa_delete(struct tunnel_table *table, struct sa *sa);
// `destination` is compared for outbound SAs only; NULL takes any. NULL when there is none.
struct sa *sa_find(const struct tunnel_table *table, enum sa_direction direction, uint32_t spi,
	const struct packet_address *destination);
unsigned int sa_count(const struct tunnel_table *table);
// The SA after `previous` in the order they were added; NULL starts, NULL ends.
struct sa *sa_next(const struct tunnel_table *table, const struct sa *previous);
struct esp_counters sa_counters(const struct sa *sa);

// Called by the table when an outbound SA's outer destination needs an adjacency (new SA, update):
// returns it, or TUNNEL_NO_PATH. Set once by the data plane; without it everything is NO_PATH.
typedef uint32_t (*tunnel_resolve)(void *argument, const struct packet_address *destination);
void tunnel_set_resolver(struct tunnel_table *table, tunnel_resolve resolve, void *argument);
// Resolves every current outbound SA's destination anew and publishes what changed.
void tunnel_resolve_all(struct tunnel_table *table);

// ---- The path's MTU (RFC 4301 section 8.2), learnt from ICMP. Control; `now` as in tunnel_path.
// ----

// After so long a larger MTU is tried again (RFC 1191 section 6.3, RFC 8201 section 4).
#define TUNNEL_PATH_AGE UINT64_C(600000000000) // nanoseconds

enum tunnel_path_verdict {
	TUNNEL_PATH_REFUSED,   // it can't be about a packet that a tunnel sent lately, or is not
			       // wanted
	TUNNEL_PATH_UNCHANGED, // as likely as not, but the tunnel's MTU is small enough
	TUNNEL_PATH_LOWERED,   // tunnel->mtu is smaller now
};

// Nothing in an ICMP message is authenticated. It is believed when it quotes a packet that an
// outbound SA may just have sent (outer addresses, UDP ports, SPI, a sequence number of late) that
// was larger than the MTU it tells, and when that MTU is not under the tunnel's pmtu_floor. It can
// only lower the MTU. *of is the tunnel whose SA is meant, or NULL.
enum tunnel_path_verdict tunnel_path_consider(struct tunnel_table *table,
	const struct packet_too_big *message, uint64_t now, struct tunnel **of);
// What was learnt does not hold any more: the way is another. True when tunnel->mtu has changed.
bool tunnel_path_forget(struct tunnel_table *table, struct tunnel *tunnel);
// Forgets what is too old, up to the first tunnel whose MTU is larger again, which it returns;
// NULL: there is none left.
struct tunnel *tunnel_path_expire(struct tunnel_table *table, uint64_t now);
// Messages that named no SA.
uint64_t tunnel_path_unknown(const struct tunnel_table *table);
