// SPDX-License-Identifier: BSD-3-Clause
// Copyright (c) 2026 the espgw authors

#include "reassembly.h"

#include <string.h>

#include <rte_common.h>
#include <rte_malloc.h>

#define ECN_NOT_CAPABLE (1u << 0)
#define ECN_CONGESTION  (1u << 3)

struct piece {
	struct rte_mbuf *frame;
	struct packet_fragment fragment;
};

// A packet in the table. All fragments of one have the same key.
struct reassembly_packet {
	TAILQ_ENTRY(reassembly_packet) in_queue; // by_age or unused
	LIST_ENTRY(reassembly_packet) in_bucket;
	struct reassembly_key key;
	uint64_t deadline; // TSC
	uint8_t content;   // enum reassembly_content; LATER: the first has not come
	uint8_t refusal;   // enum drop_reason of all that still comes, or DROP_NONE
	uint8_t ecn;       // bit f: a fragment had ECN field f
	unsigned int count;
	uint32_t bytes; // of the pieces
	uint32_t end;   // of the piece that ends last
	uint32_t total; // where the last piece ends; 0 = it has not come
	struct piece pieces[REASSEMBLY_FRAGMENTS];
};

struct reassembly_key reassembly_key(const uint8_t *ip, const struct packet_fragment *fragment)
{
	struct reassembly_key key = {.words[8] = fragment->id};
	if (ip[0] >> 4 == 4) {
		const struct rte_ipv4_hdr *ip4 = (const struct rte_ipv4_hdr *)ip;
		key.words[0] = ip4->src_addr;
		key.words[4] = ip4->dst_addr;
		key.words[9] = 4u << 8 | fragment->protocol;
	} else {
		const struct rte_ipv6_hdr *ip6 = (const struct rte_ipv6_hdr *)ip;
		memcpy(&key.words[0], ip6->src_addr, sizeof(ip6->src_addr));
		memcpy(&key.words[4], ip6->dst_addr, sizeof(ip6->dst_addr));
		key.words[9] = 6u << 8;
	}
	return key;
}

uint32_t reassembly_hash(const uint64_t keys[REASSEMBLY_WORDS], const struct reassembly_key *key)
{
	uint64_t sum = 0;
	for (unsigned int i = 0; i < REASSEMBLY_WORDS; i++)
		sum += keys[i] * key->words[i];
	return (uint32_t)(sum >> 32);
}

struct reassembly *reassembly_create(const struct reassembly_parameters *parameters)
{
	struct reassembly *reassembly =
		rte_zmalloc("reassembly", sizeof(*reassembly), RTE_CACHE_LINE_SIZE);
	if (reassembly == NULL)
		return NULL;
	uint32_t buckets = rte_align32pow2(parameters->packets);
	reassembly->parameters = *parameters;
	reassembly->held_max = REASSEMBLY_MEAN_FRAGMENTS * parameters->packets;
	reassembly->room =
		(uint32_t)rte_pktmbuf_data_room_size(parameters->pool) - RTE_PKTMBUF_HEADROOM;
	reassembly->bucket_mask = buckets - 1;
	reassembly->buckets =
		rte_calloc("reassembly_buckets", buckets, sizeof(*reassembly->buckets), 0);
	reassembly->all =
		rte_calloc("reassembly_packets", parameters->packets, sizeof(*reassembly->all), 0);
	if (reassembly->buckets == NULL || reassembly->all == NULL) {
		reassembly_destroy(reassembly);
		return NULL;
	}
	TAILQ_INIT(&reassembly->by_age);
	TAILQ_INIT(&reassembly->unused);
	for (unsigned int i = 0; i < parameters->packets; i++)
		TAILQ_INSERT_TAIL(&reassembly->unused, &reassembly->all[i], in_queue);
	return reassembly;
}

void reassembly_destroy(struct reassembly *reassembly)
{
	if (reassembly == NULL)
		return;
	if (reassembly->all != NULL && reassembly->buckets != NULL) {
		struct reassembly_packet *packet;
		TAILQ_FOREACH (packet, &reassembly->by_age, in_queue)
			for (unsigned int i = 0; i < packet->count; i++)
				rte_pktmbuf_free(packet->pieces[i].frame);
	}
	rte_free(reassembly->buckets);
	rte_free(reassembly->all);
	rte_free(reassembly);
}

static void end_fragment(
	struct reassembly *reassembly, struct rte_mbuf *frame, enum drop_reason reason)
{
	reassembly->parameters.end(reassembly->parameters.argument, frame, reason);
}

// The packet keeps its place in the table, and holds nothing any more.
static void end_pieces(
	struct reassembly *reassembly, struct reassembly_packet *packet, enum drop_reason reason)
{
	reassembly->held -= packet->count;
	for (unsigned int i = 0; i < packet->count; i++)
		end_fragment(reassembly, packet->pieces[i].frame, reason);
	packet->count = 0;
}

static void remove_packet(struct reassembly *reassembly, struct reassembly_packet *packet)
{
	TAILQ_REMOVE(&reassembly->by_age, packet, in_queue);
	LIST_REMOVE(packet, in_bucket);
	TAILQ_INSERT_HEAD(&reassembly->unused, packet, in_queue);
	reassembly->packets--;
}

static void drop_oldest(struct reassembly *reassembly, enum drop_reason reason)
{
	struct reassembly_packet *oldest = TAILQ_FIRST(&reassembly->by_age);
	end_pieces(reassembly, oldest, reason);
	remove_packet(reassembly, oldest);
}

void reassembly_expire(struct reassembly *reassembly, uint64_t now)
{
	const struct reassembly_packet *oldest;
	while ((oldest = TAILQ_FIRST(&reassembly->by_age)) != NULL &&
		(int64_t)(now - oldest->deadline) >= 0)
		drop_oldest(reassembly, DROP_FRAGMENT_TIMEOUT);
}

void reassembly_drop_all(struct reassembly *reassembly, enum drop_reason reason)
{
	while (!TAILQ_EMPTY(&reassembly->by_age))
		drop_oldest(reassembly, reason);
}

static struct reassembly_packet *find(
	const struct reassembly_bucket *bucket, const struct reassembly_key *key)
{
	struct reassembly_packet *packet;
	LIST_FOREACH (packet, bucket, in_bucket)
		if (memcmp(&packet->key, key, sizeof(*key)) == 0)
			return packet;
	return NULL;
}

static struct reassembly_packet *create_packet(struct reassembly *reassembly,
	struct reassembly_bucket *bucket, const struct reassembly_key *key, uint64_t now)
{
	if (TAILQ_EMPTY(&reassembly->unused))
		drop_oldest(reassembly, DROP_FRAGMENT_TABLE_FULL);
	struct reassembly_packet *packet = TAILQ_FIRST(&reassembly->unused);
	TAILQ_REMOVE(&reassembly->unused, packet, in_queue);
	packet->key = *key;
	packet->deadline = now + reassembly->parameters.timeout;
	packet->content = REASSEMBLY_CONTENT_LATER;
	packet->refusal = DROP_NONE;
	packet->ecn = 0;
	packet->count = 0;
	packet->bytes = packet->end = packet->total = 0;
	TAILQ_INSERT_TAIL(&reassembly->by_age, packet, in_queue);
	LIST_INSERT_HEAD(bucket, packet, in_bucket);
	reassembly->packets++;
	return packet;
}

// All is lost, and so is what still comes.
static void refuse(
	struct reassembly *reassembly, struct reassembly_packet *packet, enum drop_reason reason)
{
	packet->refusal = (uint8_t)reason;
	end_pieces(reassembly, packet, reason);
}

// A fragment that none can be, by itself (RFC 8200 section 4.5).
static bool is_bad(const struct packet_fragment *fragment)
{
	return fragment->size == 0 || (fragment->more && fragment->size % 8 != 0) ||
	       fragment->header + fragment->offset + fragment->size > UINT16_MAX;
}

// DROP_NONE, or what is wrong with the fragment beside those that are held.
static enum drop_reason compare(
	const struct reassembly_packet *packet, const struct packet_fragment *fragment)
{
	uint32_t begin = fragment->offset, end = begin + fragment->size;
	if (packet->total != 0 && (end > packet->total || fragment->more == (end == packet->total)))
		return DROP_FRAGMENT_OVERLAP;
	for (unsigned int i = 0; i < packet->count; i++) {
		const struct packet_fragment *other = &packet->pieces[i].fragment;
		uint32_t other_end = other->offset + other->size;
		if (begin == other->offset && end == other_end && fragment->more == other->more)
			return DROP_FRAGMENT_DUPLICATE;
		if ((begin < other_end && other->offset < end) ||
			(!fragment->more && other_end > end))
			return DROP_FRAGMENT_OVERLAP;
	}
	return DROP_NONE;
}

static void hold(struct reassembly *reassembly, struct reassembly_packet *packet,
	struct rte_mbuf *frame, const struct packet_fragment *fragment)
{
	const uint8_t *ip = rte_pktmbuf_mtod_offset(frame, const uint8_t *, RTE_ETHER_HDR_LEN);
	packet->pieces[packet->count++] = (struct piece){frame, *fragment};
	packet->ecn |= (uint8_t)(1u << (packet_ip_traffic_class(ip) & PACKET_IP_ECN_MASK));
	packet->bytes += fragment->size;
	packet->end = RTE_MAX(packet->end, fragment->offset + fragment->size);
	if (!fragment->more)
		packet->total = fragment->offset + fragment->size;
	reassembly->held++;
}

static const struct piece *first_piece(const struct reassembly_packet *packet)
{
	const struct piece *piece = packet->pieces;
	while (piece->fragment.offset != 0)
		piece++;
	return piece;
}

// One buffer: what stood before the first piece, and all pieces. A mark of congestion on any of
// them is one on the whole (RFC 3168 section 5.3).
static void build(const struct reassembly_packet *packet, struct rte_mbuf *whole)
{
	const struct piece *first = first_piece(packet);
	const uint32_t header = RTE_ETHER_HDR_LEN + first->fragment.header;
	whole->data_off = (uint16_t)(RTE_PKTMBUF_HEADROOM - header);
	whole->data_len = (uint16_t)(header + packet->total);
	whole->pkt_len = whole->data_len;
	uint8_t *data = rte_pktmbuf_mtod(whole, uint8_t *);
	memcpy(data, rte_pktmbuf_mtod(first->frame, const void *), header);
	for (unsigned int i = 0; i < packet->count; i++) {
		const struct piece *piece = &packet->pieces[i];
		memcpy(data + header + piece->fragment.offset,
			rte_pktmbuf_mtod_offset(piece->frame, const void *,
				RTE_ETHER_HDR_LEN + piece->fragment.begin),
			piece->fragment.size);
	}
	packet_fragment_finish(data + RTE_ETHER_HDR_LEN, &first->fragment, packet->total);
	if ((packet->ecn & ECN_CONGESTION) != 0)
		packet_ip_set_ecn(data + RTE_ETHER_HDR_LEN, PACKET_IP_ECN_MASK);
}

// The whole packet has the place of the fragment that completed it, and so belongs to the burst
// under way.
static void join(struct reassembly *reassembly, struct reassembly_packet *packet,
	struct reassembly_result *result)
{
	enum drop_reason reason = DROP_NONE;
	if ((packet->ecn & ECN_CONGESTION) != 0 && (packet->ecn & ECN_NOT_CAPABLE) != 0)
		reason = DROP_ECN;
	else if ((result->whole = rte_pktmbuf_alloc(reassembly->parameters.pool)) == NULL)
		reason = DROP_NO_BUFFER;
	if (reason == DROP_NONE) {
		build(packet, result->whole);
		struct rte_mbuf *last = packet->pieces[--packet->count].frame;
		result->whole->port = last->port;
		rte_pktmbuf_free(last);
		reassembly->held--;
	}
	end_pieces(reassembly, packet, reason);
	remove_packet(reassembly, packet);
}

static void give_back(struct reassembly *reassembly, struct reassembly_packet *packet,
	struct rte_mbuf *frame, struct reassembly_result *result)
{
	for (unsigned int i = 0; i < packet->count; i++)
		result->packets[result->count++] = packet->pieces[i].frame;
	result->packets[result->count++] = frame;
	result->urgent = packet->content == REASSEMBLY_CONTENT_HOST_URGENT;
	reassembly->held -= packet->count;
	packet->count = 0;
}

// DROP_NONE, or why the packet can't be put together: what is known now will not change.
static enum drop_reason check_room(
	const struct reassembly *reassembly, const struct reassembly_packet *packet)
{
	if (packet->end > reassembly->room)
		return DROP_FRAGMENT_TOO_BIG;
	return first_piece(packet)->fragment.header + RTE_ETHER_HDR_LEN > RTE_PKTMBUF_HEADROOM
		       ? DROP_FRAGMENT_BAD
		       : DROP_NONE;
}

// The fragment is of an ESP packet, or its packet's first has not come.
static void take(struct reassembly *reassembly, struct reassembly_packet *packet,
	struct rte_mbuf *frame, const struct packet_fragment *fragment,
	struct reassembly_result *result)
{
	enum drop_reason reason = compare(packet, fragment);
	if (reason == DROP_NONE && packet->count == REASSEMBLY_FRAGMENTS)
		reason = DROP_FRAGMENT_TOO_MANY;
	if (reason != DROP_NONE)
		end_fragment(reassembly, frame, reason);
	else
		hold(reassembly, packet, frame, fragment);
	if (reason == DROP_NONE && packet->content == REASSEMBLY_CONTENT_ESP)
		reason = check_room(reassembly, packet);
	if (reason != DROP_NONE && reason != DROP_FRAGMENT_DUPLICATE)
		refuse(reassembly, packet, reason);
	else if (packet->content == REASSEMBLY_CONTENT_ESP && packet->bytes == packet->total)
		join(reassembly, packet, result);
}

void reassembly_add(struct reassembly *reassembly, struct rte_mbuf *frame,
	const struct packet_fragment *fragment, enum reassembly_content content, uint64_t now,
	struct reassembly_result *result)
{
	result->whole = NULL;
	result->count = 0;
	if (is_bad(fragment)) {
		end_fragment(reassembly, frame, DROP_FRAGMENT_BAD);
		return;
	}
	reassembly_expire(reassembly, now);
	// Packets that were refused or are for the host hold nothing.
	while (reassembly->held == reassembly->held_max)
		drop_oldest(reassembly, DROP_FRAGMENT_TABLE_FULL);
	struct reassembly_key key = reassembly_key(
		rte_pktmbuf_mtod_offset(frame, const uint8_t *, RTE_ETHER_HDR_LEN), fragment);
	struct reassembly_bucket *bucket =
		&reassembly->buckets[reassembly_hash(reassembly->parameters.keys, &key) &
				     reassembly->bucket_mask];
	struct reassembly_packet *packet = find(bucket, &key);
	if (packet == NULL)
		packet = create_packet(reassembly, bucket, &key, now);
	if (packet->content == REASSEMBLY_CONTENT_LATER)
		packet->content = (uint8_t)content;
	if (packet->refusal != DROP_NONE)
		end_fragment(reassembly, frame, packet->refusal);
	else if (packet->content >= REASSEMBLY_CONTENT_HOST)
		give_back(reassembly, packet, frame, result);
	else
		take(reassembly, packet, frame, fragment, result);
}
