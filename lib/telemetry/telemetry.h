// SPDX-License-Identifier: BSD-3-Clause
// Copyright (c) 2026 the espgw authors

// Counters and drop reasons.
//
// Every counter belongs to one thread, its slot: workers 0..n-1 have slots 0..n-1, the control
// thread has slot n. A slot is written by its thread alone, with plain stores, and summed over all
// slots when read, so that counting never costs a shared cache line.
//
// Every packet has a source, the place where it entered the gateway, and ends in exactly one way:
//   received + split = forwarded + to_host + joined + sum(drops) + still held
// per source. "Held" is derived, never stored. Of a packet that left in n fragments, n - 1 count as
// split; of one that came in n fragments, n - 1 as joined.

#pragma once

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include <rte_branch_prediction.h>
#include <rte_common.h>

// X(NAME, "name", "sentence that tells a user what happened and what to look at")
#define TELEMETRY_DROP_REASONS(X)                                                               \
	/* arrival */                                                                           \
	X(BAD_FRAME, "bad_frame", "the frame is shorter than its Ethernet or IP header says")   \
	X(OTHER_MAC, "other_mac", "the frame is for another station's MAC address")             \
	X(ETHERTYPE, "ethertype", "neither IPv4, IPv6 nor ARP")                                 \
	X(VLAN, "vlan", "the frame's VLAN tags are not those of the port (ports[].vlan)")       \
	X(BAD_HEADER, "bad_header", "the IP header is invalid (version, length, or address)")   \
	X(BAD_CHECKSUM, "bad_checksum", "the IPv4 header checksum is wrong")                    \
	X(NOT_LINEAR, "not_linear", "the frame is larger than a packet buffer")                 \
	/* forwarding */                                                                        \
	X(NO_ROUTE, "no_route", "no route matches the destination")                             \
	X(TTL_EXPIRED, "ttl_expired", "the TTL or hop limit is used up")                        \
	X(TOO_BIG, "too_big", "the packet is larger than the MTU of its tunnel or port")        \
	X(NEIGHBOUR_UNRESOLVED, "neighbour_unresolved",                                         \
		"the MAC address of the next hop is not known yet; it has been asked for")      \
	X(SOURCE_SCOPE, "source_scope",                                                         \
		"the source address is of its own link or network only, or none")               \
	X(CLEARTEXT_TO_OUTSIDE, "cleartext_to_outside",                                         \
		"the route leads out of an outside port in clear, which is never done")         \
	X(CLEARTEXT_FROM_OUTSIDE, "cleartext_from_outside",                                     \
		"cleartext that came in at an outside port and is not for the gateway itself")  \
	X(PORT_DOWN, "port_down", "the port to send from is gone or its link is down")          \
	X(TX_FULL, "tx_full", "the transmit queue of the port is full")                         \
	/* encapsulation */                                                                     \
	X(NO_SA, "no_sa", "the tunnel has no outbound SA")                                      \
	X(SELECTOR, "selector", "the packet is outside the selectors of the SA")                \
	X(NO_PATH, "no_path", "no route leads to the far end of the tunnel by an outside port") \
	X(SEQUENCE_EXHAUSTED, "sequence_exhausted",                                             \
		"the outbound SA has used its last sequence number; it must be replaced")       \
	X(NO_HEADROOM, "no_headroom",                                                           \
		"no room in the buffer for the outer headers or the trailer")                   \
	/* decapsulation */                                                                     \
	X(RUNT, "runt", "too short to be an ESP packet")                                        \
	X(ESP_FRAGMENT, "esp_fragment",                                                         \
		"a fragment of ESP with IPv6 extension headers before the ESP header")          \
	X(FRAGMENT_BAD, "fragment_bad",                                                         \
		"the fragment's length or offset can't be, or it is too short to tell what of") \
	X(FRAGMENT_DUPLICATE, "fragment_duplicate", "the same fragment is there already")       \
	X(FRAGMENT_OVERLAP, "fragment_overlap",                                                 \
		"fragments of one packet overlap or contradict each other: forged, or damaged") \
	X(FRAGMENT_TIMEOUT, "fragment_timeout",                                                 \
		"the other fragments of the packet did not arrive in time")                     \
	X(FRAGMENT_TABLE_FULL, "fragment_table_full",                                           \
		"fragments of too many packets arrived at once: those of the oldest went")      \
	X(FRAGMENT_TOO_BIG, "fragment_too_big",                                                 \
		"put together, the packet would not fit a buffer (gateway.buffer_size)")        \
	X(FRAGMENT_TOO_MANY, "fragment_too_many", "the packet came in more than 32 fragments")  \
	X(FRAGMENT_RING_FULL, "fragment_ring_full",                                             \
		"the ring to the worker that puts the packet together is full")                 \
	X(UNKNOWN_SPI, "unknown_spi", "no inbound SA has this SPI")                             \
	X(REPLAY, "replay", "the sequence number was received before")                          \
	X(TOO_OLD, "too_old", "the sequence number lies before the replay window")              \
	X(ICV, "icv", "the integrity check failed: forged, damaged, or another key")            \
	X(BAD_PADDING, "bad_padding",                                                           \
		"the ESP padding is not 1, 2, 3... or longer than the packet")                  \
	X(BAD_NEXT_HEADER, "bad_next_header", "the ESP next header is neither IPv4 nor IPv6")   \
	X(DUMMY, "dummy", "a dummy packet (next header 59), discarded as it should be")         \
	X(BAD_INNER, "bad_inner", "the inner IP header is invalid or longer than the packet")   \
	X(INNER_SOURCE, "inner_source",                                                         \
		"the inner source address does not belong behind a tunnel")                     \
	X(ECN, "ecn", "congestion was marked on the way of a packet that can't carry the mark") \
	X(KEEPALIVE, "keepalive", "a NAT keepalive, discarded as it should be")                 \
	/* host path */                                                                         \
	X(HOST_CLEARTEXT, "host_cleartext",                                                     \
		"the host's kernel sent cleartext for a tunnel's prefix to an outside port")    \
	X(HOST_RATE, "host_rate", "more packets for the host than its rate limit allows")       \
	X(HOST_RING_FULL, "host_ring_full", "the ring between worker and host path is full")    \
	X(HOST_REFUSED, "host_refused", "the kernel did not take the packet for the host")      \
	X(NO_BUFFER, "no_buffer", "no packet buffer was free")                                  \
	X(STOPPED, "stopped", "still held when the gateway stopped")

enum drop_reason {
	DROP_NONE = 0, // not dropped
#define X(NAME, name, sentence) DROP_##NAME,
	TELEMETRY_DROP_REASONS(X)
#undef X
		DROP_COUNT
};

const char *drop_reason_name(enum drop_reason reason);
const char *drop_reason_sentence(enum drop_reason reason);

#define TELEMETRY_PORTS 16 // ports the gateway can have at most
#define TELEMETRY_SLOTS 65 // 64 workers and control

// Sources: port p is source p; its TAP is TELEMETRY_PORTS + p; then all TUNs; then the gateway.
enum {
	TELEMETRY_SOURCE_TAP = TELEMETRY_PORTS,
	TELEMETRY_SOURCE_TUN = 2 * TELEMETRY_PORTS,
	TELEMETRY_SOURCE_GATEWAY,
	TELEMETRY_SOURCES
};

struct telemetry_source {
	uint64_t received; // packets
	uint64_t received_bytes;
	uint64_t forwarded;
	uint64_t to_host; // its kernel, and answers to the gateway's own health probes
	uint64_t split;   // fragments that were made, but for the one that has the packet's place
	uint64_t joined;  // fragments that went into a packet which has another one's place
	uint64_t drops[DROP_COUNT]; // [DROP_NONE] stays 0
};

// A worker counts what it received and sent on its own queue of each port.
struct telemetry_queue {
	uint64_t rx_packets, rx_bytes, tx_packets, tx_bytes;
};

struct telemetry_tunnel {
	uint64_t out_packets, out_bytes; // inner packets and bytes before encapsulation
	uint64_t in_packets, in_bytes;   // inner packets and bytes after decapsulation
	// Health checks, which are none of the above:
	uint64_t probes_sent;     // packets of our own
	uint64_t echoes_answered; // the far side's, to our interface address
	uint64_t drops[DROP_COUNT];
};

// ---- stages: where the cycles of a worker go ----

// X(NAME, "name", "what a worker does in it")
#define TELEMETRY_STAGES(X)                                                               \
	X(IDLE, "idle", "looking at queues that hold nothing")                            \
	X(RECEIVE, "receive", "the driver hands over packets")                            \
	X(CLASSIFY, "classify", "check of the Ethernet and IP headers")                   \
	X(DECAPSULATE, "decapsulate", "ESP in but for the cipher: SA, window, inner IP")  \
	X(DECRYPT, "decrypt", "AES-256-GCM of ESP that came in")                          \
	X(FORWARD, "forward", "route lookup, TTL")                                        \
	X(ENCAPSULATE, "encapsulate", "ESP out but for the cipher: SA, number, outer IP") \
	X(ENCRYPT, "encrypt", "AES-256-GCM of ESP that goes out")                         \
	X(TRANSMIT, "transmit", "Ethernet header of the next hop")                        \
	X(SEND, "send", "the driver takes over packets")                                  \
	X(HOST, "host", "packets from and to the host's kernel")                          \
	X(DROP, "drop", "buffers of dropped packets are given back")

enum stage {
#define X(NAME, name, sentence) STAGE_##NAME,
	TELEMETRY_STAGES(X)
#undef X
		STAGE_COUNT
};

const char *stage_name(enum stage stage);
const char *stage_sentence(enum stage stage);

struct telemetry_stage {
	uint64_t cycles;  // of the TSC
	uint64_t bursts;  // how often packets came into this stage,
	uint64_t packets; // and how many in all; both stay 0 for STAGE_IDLE
};

// A worker's own. It is in one stage at a time, and each cycle counts for that one: a stage that
// calls another does not count what passes meanwhile. Entering a stage ends the one before, so what
// is left to do after a call counts for the stage called; stage_resume where that matters.
struct stage_clock {
	bool on;
	enum stage current;
	uint64_t since;                   // TSC at which `current` was entered
	struct telemetry_stage *counters; // [STAGE_COUNT]
};

// For use by those below. The stage that was current.
enum stage stage_switch(struct stage_clock *clock, enum stage stage, unsigned int packets);
void stage_count_received(struct stage_clock *clock, unsigned int packets);

// Worker. `packets` of a burst come into this stage. Returns the stage before, for stage_resume.
// Switched off it costs one branch; on, a reading of the TSC and a few additions.
static inline enum stage stage_enter(
	struct stage_clock *clock, enum stage stage, unsigned int packets)
{
	return unlikely(clock->on) ? stage_switch(clock, stage, packets) : stage;
}

// Worker. Back to a stage that was left in between.
static inline void stage_resume(struct stage_clock *clock, enum stage stage)
{
	stage_enter(clock, stage, 0);
}

// Worker. What STAGE_RECEIVE, entered with 0 packets, has brought. Nothing: it was idling.
static inline void stage_received(struct stage_clock *clock, unsigned int packets)
{
	if (unlikely(clock->on))
		stage_count_received(clock, packets);
}

// Worker, between two bursts: starts and stops the clock.
void stage_clock_set(struct stage_clock *clock, bool on);

// ---- all of a thread ----

struct telemetry_slot {
	struct telemetry_source sources[TELEMETRY_SOURCES];
	struct telemetry_queue queues[TELEMETRY_PORTS];
	uint64_t loops, busy_loops;       // worker loops, those that found packets
	uint64_t shared_packets;          // of its queues, that other workers ran
	uint64_t helped_packets;          // of other workers, that it ran
	uint64_t started;                 // TSC when the worker began; 0 = not yet
	int64_t busy;                     // see telemetry_busy_cycles
	struct telemetry_tunnel *tunnels; // [tunnel index]
	struct telemetry_stage stages[STAGE_COUNT];
} __rte_cache_aligned;

struct telemetry {
	_Atomic bool stages_wanted; // by control; each worker follows before its next burst
	unsigned int slots, tunnels;
	struct telemetry_slot *slot[TELEMETRY_SLOTS];
};

// Takes memory for `workers` + 1 slots and `tunnels` tunnels. NULL when there is none. Needs EAL.
struct telemetry *telemetry_create(unsigned int workers, unsigned int tunnels);
void telemetry_destroy(struct telemetry *telemetry);

// Sums over all slots; any thread. The values are each exact, but not of one instant.
void telemetry_sum_source(
	const struct telemetry *telemetry, unsigned int source, struct telemetry_source *sum);
void telemetry_sum_tunnel(
	const struct telemetry *telemetry, unsigned int tunnel, struct telemetry_tunnel *sum);
// Cycles in which the worker of this slot had packets; any thread. A busy time begins when a burst
// is received and ends with the first loop that receives none. While it lasts, slot->busy is less
// by the TSC at which it began, which makes it negative: being one word, it is never seen half
// changed. Only the two ends of a busy time read the TSC, so a worker under full load never does.
uint64_t telemetry_busy_cycles(const struct telemetry_slot *slot);
// Worker.
void telemetry_begin_busy(struct telemetry_slot *slot);
void telemetry_end_busy(struct telemetry_slot *slot);
static inline bool telemetry_is_busy(const struct telemetry_slot *slot)
{
	return slot->busy < 0;
}

// Packets of this source that have neither left nor been dropped yet.
uint64_t telemetry_source_held(const struct telemetry_source *sum);
