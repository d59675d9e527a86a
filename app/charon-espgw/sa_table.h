// SPDX-License-Identifier: GPL-2.0-or-later
// Copyright (c) 2026 the espgw authors

// The plugin's record of every SA that charon wants. The gateway may be away or restart at any
// time: what is written here is what it is brought back to.
//
// Threads: no lock of its own; struct gateway's is held around every use.

#ifndef CHARON_ESPGW_SA_TABLE_H
#define CHARON_ESPGW_SA_TABLE_H

#include <netinet/in.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/queue.h>

#include <client/client.h>

#define SELECTORS_MAX 16 // of one SA, as the control protocol has it
#define PREFIX_BYTES  (INET6_ADDRSTRLEN + 4)
#define TUNNEL_BYTES  64

// What is known of an SA in the gateway. An outbound key is written to the socket at most once in
// its life: a second gateway, or the same one restarted, would number its packets from 1 again, and
// AES-GCM does not survive two packets with the same key and number.
enum sa_state {
	SA_WANTED,    // to be added; the key of an outbound one was never written
	SA_DOUBTFUL,  // sa.add was written, and its answer is not known
	SA_INSTALLED, // the gateway has it
	SA_LOST,      // the gateway has not, and is not to be given it (again): rekey it
	SA_UNWANTED,  // charon deleted it; the gateway may have it still
};

// The outer header.
struct sa_outer {
	char source[INET6_ADDRSTRLEN], destination[INET6_ADDRSTRLEN];
	uint16_t source_port, destination_port; // UDP encapsulation; both 0 = plain ESP
};

struct sa_prefixes {
	char local[PREFIX_BYTES], remote[PREFIX_BYTES];
	uint8_t protocol;                             // 0 = any
	struct espgw_ports local_ports, remote_ports; // as in struct espgw_selector
};

struct sa {
	TAILQ_ENTRY(sa) link;
	// What charon wants.
	enum espgw_direction direction;
	uint32_t spi; // host byte order
	uint32_t if_id, reqid;
	struct sa_outer outer;
	uint8_t key[ESPGW_KEY_BYTES], salt[ESPGW_SALT_BYTES]; // outbound: wiped when written
	bool esn;
	int32_t replay_window; // as in struct espgw_sa
	struct espgw_lifetime soft, hard;
	struct sa_prefixes selectors[SELECTORS_MAX];
	size_t selector_count;

	// What is known of the gateway.
	enum sa_state state;
	char tunnel[TUNNEL_BYTES];    // its name; "" until it is known
	char there[INET6_ADDRSTRLEN]; // the destination that the gateway knows it by
	bool moved;                   // the gateway has other outer addresses or ports
	bool listed;                  // seen in the listing that is being compared
	// sa.add was written to this start of the gateway, and was not refused: whatever the
	// listing says, it may yet be carried out.
	bool written;

	// Use, never going back: `base` is what earlier starts of the gateway counted.
	uint64_t bytes, packets, base_bytes, base_packets;
	int64_t used_at; // seconds of the monotonic clock; 0 = never

	int64_t added_ms;     // milliseconds of the monotonic clock
	int64_t expire_ms;    // SA_LOST: when to tell charon (again)
	unsigned int expires; // how often it was told
};

TAILQ_HEAD(sa_table, sa);

// Takes a copy of `wanted` to the end of the table; NULL without memory.
struct sa *sa_table_add(struct sa_table *table, const struct sa *wanted);
// Wipes and frees.
void sa_table_remove(struct sa_table *table, struct sa *sa);
void sa_table_clear(struct sa_table *table);

// As charon names SAs, which tells the direction by the destination. NULL: there is none, or it is
// unwanted.
struct sa *sa_table_find(const struct sa_table *table, uint32_t spi, const char *destination);
// As the gateway's listing and events name SAs. Unwanted ones are found as well.
struct sa *sa_table_find_in_tunnel(const struct sa_table *table, const char *tunnel,
	enum espgw_direction direction, uint32_t spi);
// The tunnel has working SAs of ours in both directions.
bool sa_table_tunnel_works(const struct sa_table *table, const char *tunnel);
// An outbound SA of the same child SA, so far as that can be told, is lost.
bool sa_table_partner_lost(const struct sa_table *table, const struct sa *inbound);

void sa_wipe_key(struct sa *sa);
// At `now_ms`, as far as is known: a soft or hard limit is reached.
bool sa_past_soft(const struct sa *sa, int64_t now_ms);
bool sa_past_hard(const struct sa *sa, int64_t now_ms);
// When the hard limit of seconds is reached; INT64_MAX = there is none.
int64_t sa_end_ms(const struct sa *sa);
// With what is left of the lifetimes at `now_ms`; the hard limits are not reached. A soft limit
// that is becomes the smallest there is. For libespgw-client; the strings of `sa` are borrowed,
// `selectors` has room for SELECTORS_MAX. The caller wipes `request`.
void sa_fill_request(const struct sa *sa, int64_t now_ms, struct espgw_sa *request,
	struct espgw_selector *selectors);
struct espgw_sa_name sa_name(const struct sa *sa);
bool sa_outer_equal(const struct sa_outer *a, const struct sa_outer *b);
// "outbound SA 0x0e000001 of if_id 1"; in `text`, which is returned.
const char *sa_describe(const struct sa *sa, char *text, size_t size);

#endif
