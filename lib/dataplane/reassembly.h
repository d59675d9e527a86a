// SPDX-License-Identifier: BSD-3-Clause
// Copyright (c) 2026 the espgw authors

// Fragments to whole packets (RFC 791 section 3.2, RFC 8200 section 4.5), for ESP that must be
// whole before it can be decrypted (RFC 4303 section 3.4.1). Private to lib/dataplane.
//
// A table holds the fragments of a bounded number of packets. It is one worker's: no locks.
//
// - What is incomplete after the timeout is dropped. When there is no room for a new packet, the
//   oldest goes: so a flood of fragments that never become whole shortens the time that others
//   have, and does not stop them.
// - Fragments that overlap or contradict each other lose the whole packet, with all that still
//   comes of it (RFC 5722 section 4, which IPv4 gets here too). An exact duplicate is dropped
//   alone.
// - A packet may turn out to be for the host (UDP says it in the first fragment only): then the
//   fragments are given back as they came.
// - DPDK's librte_ip_frag was not taken: it knows no overlaps, and its packets are chains, which
//   the cipher does not take.

#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/queue.h>

#include <rte_mbuf.h>

#include "packet/packet.h"
#include "telemetry/telemetry.h"

// Of one packet. 9,216 bytes, the largest MTU of a port, in pieces that every IPv6 network carries
// (1,232 bytes) are 8; in pieces of IPv4's 576, 17.
#define REASSEMBLY_FRAGMENTS 32
// Fragments that a table holds for each packet that it can hold.
#define REASSEMBLY_MEAN_FRAGMENTS 4

// What a fragment says about the packet as a whole.
enum reassembly_content {
	REASSEMBLY_CONTENT_LATER, // not the first fragment: it does not say
	REASSEMBLY_CONTENT_ESP,   // to be put together
	REASSEMBLY_CONTENT_HOST,  // not for us
	REASSEMBLY_CONTENT_HOST_URGENT,
};

// Told of each fragment that the table is done with, but for those given back: why it was dropped,
// or DROP_NONE when it went into a whole packet that has another one's place. Owns it then.
typedef void (*reassembly_end)(void *argument, struct rte_mbuf *fragment, enum drop_reason reason);

struct reassembly_parameters {
	unsigned int packets;     // at once, at most; over 0
	uint64_t timeout;         // TSC cycles from a packet's first arrival
	struct rte_mempool *pool; // of whole packets: room for one, and RTE_PKTMBUF_HEADROOM
	const uint64_t *keys;     // [REASSEMBLY_WORDS], random; must outlive the table
	reassembly_end end;
	void *argument;
};

// Source and destination, identification, family and protocol.
#define REASSEMBLY_WORDS 10

struct reassembly_key {
	uint32_t words[REASSEMBLY_WORDS];
};

struct reassembly_packet;
TAILQ_HEAD(reassembly_queue, reassembly_packet);
LIST_HEAD(reassembly_bucket, reassembly_packet);

struct reassembly {
	unsigned int packets; // that are in the table
	unsigned int held;    // fragments
	unsigned int held_max;
	uint32_t room; // bytes of a whole packet without its header, at most
	uint32_t bucket_mask;
	struct reassembly_parameters parameters;
	struct reassembly_queue by_age, unused;
	struct reassembly_bucket *buckets;
	struct reassembly_packet *all;
};

// What reassembly_add gives back.
struct reassembly_result {
	struct rte_mbuf *whole; // a whole packet in one buffer, with the first fragment's Ethernet
				// header and the mbuf->port of the one just added; NULL = none
	// Fragments that are for the host, in the order in which they came.
	bool urgent;
	unsigned int count;
	struct rte_mbuf *packets[REASSEMBLY_FRAGMENTS + 1];
};

// What tells packets apart: IPv4 by protocol too; IPv6 not (RFC 8200 section 4.5).
struct reassembly_key reassembly_key(const uint8_t *ip, const struct packet_fragment *fragment);
// 32 bits that nobody can steer who does not know the keys (multilinear hashing): two packets have
// the same upper 16, say, by a chance of 2^-16.
uint32_t reassembly_hash(const uint64_t keys[REASSEMBLY_WORDS], const struct reassembly_key *key);

// Control thread; needs EAL. NULL when there is no memory.
struct reassembly *reassembly_create(const struct reassembly_parameters *parameters);
// Frees what it holds; nobody is told.
void reassembly_destroy(struct reassembly *reassembly);

// Worker. A fragment: an Ethernet frame, its IP packet checked and the frame's end; and what
// packet_fragment_view said of it. The mbuf is the table's from now on. `now`: TSC.
void reassembly_add(struct reassembly *reassembly, struct rte_mbuf *frame,
	const struct packet_fragment *fragment, enum reassembly_content content, uint64_t now,
	struct reassembly_result *result);
// Worker. Drops what is too old. For each loop, so that nothing waits for traffic.
void reassembly_expire(struct reassembly *reassembly, uint64_t now);
// The owner, at the end: drops all under this reason.
void reassembly_drop_all(struct reassembly *reassembly, enum drop_reason reason);
// Whether there is anything to expire.
static inline bool reassembly_is_empty(const struct reassembly *reassembly)
{
	return reassembly->packets == 0;
}
