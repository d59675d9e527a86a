// SPDX-License-Identifier: BSD-3-Clause
// Copyright (c) 2026 the espgw authors

// ESP (RFC 4303) in tunnel mode with AES-256-GCM-16 (RFC 4106): security associations, sequence
// numbers, replay windows, and encapsulation and decapsulation of bursts of mbufs, in place.
// Knows mbufs and intel-ipsec-mb; no ports, tunnels or sockets.
//
// An outbound SA may be used by several workers at once, and so may an inbound one.

#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include <rte_mbuf.h>

#include "packet/packet.h"
#include "telemetry/telemetry.h"

#define ESP_BURST_MAX   64
#define ESP_KEY_SIZE    32
#define ESP_SALT_SIZE   4
#define ESP_IV_SIZE     8
#define ESP_ICV_SIZE    16
#define ESP_HEADER_SIZE 8   // SPI and sequence number
#define ESP_SPI_MIN     256 // 1 to 255 are reserved, 0 is never on the wire (RFC 4303 section 2.1)
#define ESP_WINDOW_MIN  32
#define ESP_WINDOW_MAX  65536

// Last sequence numbers. Without ESN the 32-bit number ends here; with ESN the counter stops 2^32
// before the end of 64 bits, so that workers which reserve at the end at once can't wrap it.
#define ESP_SEQUENCE_END     UINT64_C(0xffffffff)
#define ESP_SEQUENCE_END_ESN UINT64_C(0xffffffff00000000)

// Most that encapsulation adds before and after the inner packet: IPv6, UDP, ESP, IV; and padding
// with its length and next header, ICV.
#define ESP_HEADROOM_MAX (40 + 8 + ESP_HEADER_SIZE + ESP_IV_SIZE)
#define ESP_TAILROOM_MAX (3 + 2 + ESP_ICV_SIZE)

// How AES-256-GCM is computed. BURST: short packets of a burst several at a time, which needs VAES
// and VPCLMULQDQ with AVX-512 or AVX2; IPSEC_MB: each by itself; AUTO: BURST where the CPU can.
enum esp_crypto { ESP_CRYPTO_AUTO, ESP_CRYPTO_IPSEC_MB, ESP_CRYPTO_BURST };

enum esp_df { ESP_DF_SET, ESP_DF_CLEAR, ESP_DF_COPY }; // outer IPv4 header (RFC 4301 8.1)

// Ports from `first` to `last`, host order; `last` 0 = all. For ICMP: type * 256 + code.
struct esp_ports {
	uint16_t first, last;
};

// A traffic selector (RFC 4301 section 4.4.1.1): both prefixes are of one family. Ports need a
// protocol that has them: ICMP, TCP, UDP, DCCP, SCTP, UDP-Lite.
struct esp_selector {
	struct packet_prefix local, remote; // inner addresses; local: on this gateway's inside
	uint8_t protocol;                   // 0 = any, and then all ports
	struct esp_ports local_ports, remote_ports;
};

// Packets and bytes of one SA as one worker counted them; written by that worker alone.
struct esp_counters {
	uint64_t packets;
	uint64_t bytes;    // of inner packets
	uint64_t last_use; // TSC; 0 = never
} __rte_cache_aligned;

struct esp_sa_out;
struct esp_sa_in;

struct esp_sa_out_parameters {
	uint32_t spi; // host order
	uint8_t key[ESP_KEY_SIZE];
	uint8_t salt[ESP_SALT_SIZE];
	bool esn;
	struct packet_address source, destination; // outer, of one family
	uint16_t udp_source, udp_destination;      // host order; 0 and 0 = no UDP encapsulation
	enum esp_df df;
	uint8_t ttl;   // of the outer header; 0 = 64
	bool set_dscp; // the outer header's DSCP is `dscp` (0 to 63); otherwise the
	uint8_t dscp;  // inner packet's (RFC 2983). ECN is the inner packet's (RFC 6040).
	const struct esp_selector *selectors; // copied
	unsigned int selector_count;          // 0 = any packet
	uint64_t first_sequence;              // 0 = 1, as it must be but in tests
	uint64_t last_sequence;               // hard packet limit; 0 = the end of the format
	unsigned int workers;
};

struct esp_sa_in_parameters {
	uint32_t spi; // host order
	uint8_t key[ESP_KEY_SIZE];
	uint8_t salt[ESP_SALT_SIZE];
	bool esn;        // needs a window: the high half is inferred from it (RFC 4303 App. A)
	uint32_t window; // usable packets, power of two; 0 = no replay protection
	uint64_t *top;   // 8 bytes that hold the highest authenticated sequence number, in a
			 // mapping that outlives the process; NULL = inside the SA. Everything
			 // up to the value found there is taken as received. The SA does not
			 // own it.
	struct packet_address source;         // outer, and the UDP source port in host order: where
	uint16_t udp_source;                  // packets should come from; 0 = not UDP-encapsulated
	const struct esp_selector *selectors; // copied
	unsigned int selector_count;          // 0 = any packet
	unsigned int workers;
};

// Control thread. NULL when there is no memory. The parameters' key is copied into an expanded key
// schedule; the caller wipes his own copy.
struct esp_sa_out *esp_sa_out_create(const struct esp_sa_out_parameters *parameters);
struct esp_sa_in *esp_sa_in_create(const struct esp_sa_in_parameters *parameters);
// Control thread. Another outer header from the next burst on: a peer has moved. Between two calls
// for one SA every worker must have passed a quiescent state.
void esp_sa_out_set_outer(struct esp_sa_out *sa, const struct packet_address *source,
	const struct packet_address *destination, uint16_t udp_source, uint16_t udp_destination);
// Control thread. Another outer source or UDP source port from the next packet on: the peer has
// moved, and the agent said so.
void esp_sa_in_set_sender(
	struct esp_sa_in *sa, const struct packet_address *source, uint16_t udp_source);
// Wipes the key schedule. No worker may hold the SA any more.
void esp_sa_out_destroy(struct esp_sa_out *sa);
void esp_sa_in_destroy(struct esp_sa_in *sa);

uint32_t esp_sa_out_spi(const struct esp_sa_out *sa);
uint32_t esp_sa_in_spi(const struct esp_sa_in *sa);
// The next number to be used, and whether the last one has been used. Any thread.
uint64_t esp_sa_out_next_sequence(const struct esp_sa_out *sa);
bool esp_sa_out_exhausted(const struct esp_sa_out *sa);
uint64_t esp_sa_in_top(const struct esp_sa_in *sa);
// Sums over the workers; last_use is the latest. Any thread.
struct esp_counters esp_sa_out_counters(const struct esp_sa_out *sa);
struct esp_counters esp_sa_in_counters(const struct esp_sa_in *sa);
// Bytes that encapsulation of an inner packet of `inner` bytes makes of it, outer IP header
// included.
uint32_t esp_sa_out_outer_size(const struct esp_sa_out *sa, uint32_t inner);

// Whether `sequence` (its low half) was used lately: it is one of the last 2^20 numbers. Any
// thread.
bool esp_sa_out_has_sent(const struct esp_sa_out *sa, uint32_t sequence);

enum esp_crypto_problem {
	ESP_CRYPTO_FINE,
	ESP_CRYPTO_UNSUPPORTED, // this CPU can't do what was wanted
	ESP_CRYPTO_WRONG,       // bursts were computed otherwise than ipsec-mb does, or no memory
};

// Control, once at start: tests on this CPU what `wanted` stands for, against ipsec-mb; takes
// milliseconds. *chosen is what to create contexts with: ESP_CRYPTO_BURST or ESP_CRYPTO_IPSEC_MB.
enum esp_crypto_problem esp_crypto_choose(enum esp_crypto wanted, enum esp_crypto *chosen);

// A worker's scratch memory and cipher handle.
struct esp_context;
// `worker`: index of its counters in every SA. NULL when memory is short or the CPU is unfit.
struct esp_context *esp_context_create(unsigned int worker, enum esp_crypto crypto);
void esp_context_destroy(struct esp_context *context);
// Makes the cipher count as STAGE_ENCRYPT and STAGE_DECRYPT of this clock, which has to outlive the
// context.
void esp_context_set_stages(struct esp_context *context, struct stage_clock *stages);

// Worker. Fetches the lines of an SA that a burst will read and write, but for the key. Pays where
// SAs are so many that they are in no near cache.
void esp_sa_out_prefetch(const struct esp_context *context, struct esp_sa_out *sa);
void esp_sa_in_prefetch(const struct esp_context *context, struct esp_sa_in *sa);

// Worker. Encapsulates packets[0..count-1] (count <= ESP_BURST_MAX), each with its SA, in place.
// Here and in decapsulation neighbours that share an SA cost less than SAs that alternate. In: data
// starts at a checked inner IP header and ends with the inner packet (packet_ip_check's length: no
// link-layer padding). Out: data starts at the outer IP header. drops[i] is DROP_NONE, or why
// packet i was refused (NOT_LINEAR, NO_HEADROOM, SELECTOR, SEQUENCE_EXHAUSTED); it is then
// unchanged. All
// mbufs stay the caller's. Returns how many were refused.
unsigned int esp_encapsulate(struct esp_context *context, struct rte_mbuf *const *packets,
	struct esp_sa_out *const *sas, uint8_t *drops, unsigned int count);

// Worker. As esp_encapsulate, but the packets become dummies (next header 59, RFC 4303
// section 2.6), whatever they hold; 2 bytes at least. Selectors do not concern them.
unsigned int esp_encapsulate_dummies(struct esp_context *context, struct rte_mbuf *const *packets,
	struct esp_sa_out *const *sas, uint8_t *drops, unsigned int count);

// Worker. Decapsulates packets[0..count-1], each with its SA, in place. In: data starts at the SPI
// and ends with the ICV; traffic_classes[i] is that of the outer IP header (ECN, RFC 6040). Out:
// data is exactly the inner IP packet, its header checked (packet_ip_check), padding and TFC
// padding trimmed. drops[i] is DROP_NONE, or why packet i was refused (NOT_LINEAR, RUNT, REPLAY,
// TOO_OLD, ICV, BAD_PADDING, BAD_NEXT_HEADER, DUMMY, BAD_INNER, ECN, SELECTOR); its contents are
// then undefined. All mbufs stay the caller's. Returns how many were refused.
unsigned int esp_decapsulate(struct esp_context *context, struct rte_mbuf *const *packets,
	struct esp_sa_in *const *sas, const uint8_t *traffic_classes, uint8_t *drops,
	unsigned int count);
// Worker, after esp_decapsulate and before another burst: the inner packets that it accepted.
struct esp_accepted {
	uint64_t bytes;
	bool plain; // all are of IPv4 without options, between hosts (packet_ipv4_is_plain)
};
struct esp_accepted esp_accepted(const struct esp_context *context);

// Who sent a UDP-encapsulated packet, in one word: outer source address and UDP source port, both
// in network order. Never 0, which stands for packets without UDP. Over IPv4 equal words are equal
// senders. Over IPv6 so are words that differ in the port alone, or in either half of the address
// alone; else two senders share a word by a chance of 2^-64, and a move between them is not seen.
static inline uint64_t esp_sender_v4(uint32_t source, uint16_t udp_source)
{
	return UINT64_C(1) << 48 | (uint64_t)udp_source << 32 | source;
}

static inline uint64_t esp_sender_v6(const uint8_t source[16], uint16_t udp_source)
{
	uint64_t halves[2];
	memcpy(halves, source, sizeof(halves));
	// Odd factors: distinct halves and ports stay distinct.
	uint64_t word = halves[0] * UINT64_C(0x9e3779b97f4a7c15) +
			halves[1] * UINT64_C(0xc2b2ae3d27d4eb4f) +
			udp_source * UINT64_C(0x165667b19e3779f9);
	return word != 0 ? word : 1;
}

// Worker, right after esp_decapsulate of the same burst and before another: the packets (bit i for
// packet i) that tell of a move (RFC 3948, RFC 7296 section 2.23). Such a packet was accepted, came
// in UDP (senders[i] is not 0) from another sender than its SA knows, and is the newest of its SA:
// its number moved the top of the window, so that neither a packet that is late from before a move
// nor, without replay protection, one that comes again tells of one. At most one a second and SA.
uint64_t esp_find_moved(const struct esp_context *context, struct esp_sa_in *const *sas,
	const uint64_t *senders, const uint8_t *drops, unsigned int count);
