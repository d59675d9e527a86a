// SPDX-License-Identifier: BSD-3-Clause
// Copyright (c) 2026 the espgw authors

// Fragments to packets: every order, duplicates, overlaps (beside a model), every limit, a clock of
// the test's own. After each test all buffers are back.

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "dataplane/reassembly.h"
#include "esp_helpers.h"

enum {
	BUFFERS = 511,
	PACKETS = 16, // of the table
	DATA_ROOM = 2048,
	ROOM = DATA_ROOM, // of a whole packet behind its header
	TIMEOUT = 1000,   // of the test's clock
	PORT = 3,
	OPTIONS = 4, // bytes of IPv4 options in the tests' headers
};

static struct rte_mempool *pool;
static struct reassembly *table;
static uint64_t keys[REASSEMBLY_WORDS];
static uint64_t ended[DROP_COUNT]; // [DROP_NONE]: joined
static uint64_t now;

static void on_end(void *argument, struct rte_mbuf *fragment, enum drop_reason reason)
{
	assert_ptr_equal(argument, &ended);
	assert_true(fragment->port == PORT || fragment->port == PORT + 1);
	ended[reason]++;
	rte_pktmbuf_free(fragment);
}

static int set_up(void **state)
{
	(void)state;
	const struct reassembly_parameters parameters = {.packets = PACKETS,
		.timeout = TIMEOUT,
		.pool = pool,
		.keys = keys,
		.end = on_end,
		.argument = &ended};
	memset(ended, 0, sizeof(ended));
	now = UINT64_MAX - 500; // it may wrap
	table = reassembly_create(&parameters);
	return table == NULL ? -1 : 0;
}

static int tear_down(void **state)
{
	(void)state;
	reassembly_destroy(table);
	return rte_mempool_avail_count(pool) == BUFFERS ? 0 : -1;
}

static void check_ended(enum drop_reason reason, uint64_t count)
{
	if (ended[reason] != count)
		fail_msg("%s: %lu, not %lu", drop_reason_name(reason), ended[reason], count);
	ended[reason] = 0;
}

static void check_nothing_else(void)
{
	for (unsigned int reason = 0; reason < DROP_COUNT; reason++)
		check_ended(reason, 0);
}

// ---- packets of the tests ----

struct shape {
	uint8_t family;
	uint32_t id;
	uint8_t protocol;
	uint8_t ecn;
};

static const struct shape v4 = {.family = 4, .id = 0x1234, .protocol = IPPROTO_ESP};
static const struct shape v6 = {.family = 6, .id = 0xdeadbeef, .protocol = IPPROTO_ESP};

// The IP header of a packet of this shape, whole; IPv6 with a hop-by-hop header of 8 bytes.
static uint32_t write_header(const struct shape *shape, uint32_t payload, uint8_t *at)
{
	memset(at, 0, 60);
	if (shape->family == 4) {
		const uint32_t size = sizeof(struct rte_ipv4_hdr) + OPTIONS;
		struct rte_ipv4_hdr *ip = (struct rte_ipv4_hdr *)at;
		ip->version_ihl = (uint8_t)(4 << 4 | size / 4);
		ip->type_of_service = (uint8_t)(0xb8 | shape->ecn);
		ip->total_length = rte_cpu_to_be_16((uint16_t)(size + payload));
		ip->packet_id = (uint16_t)shape->id;
		ip->time_to_live = 60;
		ip->next_proto_id = shape->protocol;
		ip->src_addr = RTE_BE32(0xc6336415);
		ip->dst_addr = RTE_BE32(0xcb007101);
		memset(at + sizeof(*ip), 1, OPTIONS); // no operation
		ip->hdr_checksum = packet_checksum_fold(packet_ipv4_sum(at, size));
		return size;
	}
	struct rte_ipv6_hdr *ip = (struct rte_ipv6_hdr *)at;
	ip->vtc_flow = rte_cpu_to_be_32(6u << 28 | (uint32_t)(0xb8 | shape->ecn) << 20);
	ip->payload_len = rte_cpu_to_be_16((uint16_t)(8 + payload));
	ip->proto = IPPROTO_HOPOPTS;
	ip->hop_limits = 60;
	ip->src_addr[0] = 0x20;
	ip->src_addr[15] = 1;
	ip->dst_addr[0] = 0x20;
	ip->dst_addr[15] = 2;
	at[sizeof(*ip)] = shape->protocol;
	at[sizeof(*ip) + 2] = 1; // PadN
	at[sizeof(*ip) + 3] = 4;
	return sizeof(*ip) + 8;
}

static uint8_t byte_at(uint32_t offset)
{
	return (uint8_t)(offset * 31 + offset / 256 + 1);
}

// A fragment with bytes [offset, offset + size) of a packet's payload, in a buffer.
static struct rte_mbuf *fragment_new(
	const struct shape *shape, uint32_t offset, uint32_t size, bool more)
{
	struct rte_mbuf *frame = rte_pktmbuf_alloc(pool);
	assert_non_null(frame);
	uint8_t *data = rte_pktmbuf_mtod(frame, uint8_t *);
	memset(data, 0x5e, RTE_ETHER_HDR_LEN);
	uint8_t *ip = data + RTE_ETHER_HDR_LEN;
	uint32_t header = write_header(shape, size, ip);
	if (shape->family == 4) {
		struct rte_ipv4_hdr *ip4 = (struct rte_ipv4_hdr *)ip;
		ip4->fragment_offset = rte_cpu_to_be_16(
			(uint16_t)(offset / 8 | (more ? RTE_IPV4_HDR_MF_FLAG : 0)));
		ip4->hdr_checksum = 0;
		ip4->hdr_checksum = packet_checksum_fold(packet_ipv4_sum(ip, header));
	} else {
		uint16_t field = (uint16_t)(offset | more);
		uint8_t extension[8] = {shape->protocol, 0, (uint8_t)(field >> 8), (uint8_t)field};
		memcpy(extension + 4, &shape->id, 4);
		memcpy(ip + header, extension, 8);
		ip[header - 8] = IPPROTO_FRAGMENT;
		header += 8;
		((struct rte_ipv6_hdr *)ip)->payload_len =
			rte_cpu_to_be_16((uint16_t)(header - sizeof(struct rte_ipv6_hdr) + size));
	}
	for (uint32_t i = 0; i < size && i < DATA_ROOM - 200; i++)
		ip[header + i] = byte_at(offset + i);
	frame->data_len = (uint16_t)(RTE_ETHER_HDR_LEN + header + size);
	frame->pkt_len = frame->data_len;
	frame->port = PORT;
	return frame;
}

static struct reassembly_result add_frame(struct rte_mbuf *frame, enum reassembly_content content)
{
	struct packet_fragment fragment;
	struct reassembly_result result;
	const uint8_t *ip = rte_pktmbuf_mtod_offset(frame, const uint8_t *, RTE_ETHER_HDR_LEN);
	uint32_t length = 0;
	// Bytes behind the buffer are not there; the length alone matters then.
	assert_int_equal(
		packet_ip_check(ip, frame->data_len - RTE_ETHER_HDR_LEN, true, &length), DROP_NONE);
	assert_true(packet_fragment_view(ip, length, &fragment));
	if (fragment.offset != 0)
		content = REASSEMBLY_CONTENT_LATER;
	reassembly_add(table, frame, &fragment, content, now, &result);
	return result;
}

// Of an ESP packet. The whole packet, or NULL.
static struct rte_mbuf *add(const struct shape *shape, uint32_t offset, uint32_t size, bool more)
{
	struct reassembly_result result =
		add_frame(fragment_new(shape, offset, size, more), REASSEMBLY_CONTENT_ESP);
	assert_int_equal(result.count, 0);
	return result.whole;
}

static void check_whole(struct rte_mbuf *whole, const struct shape *shape, uint32_t size)
{
	uint8_t header[60];
	uint32_t length = 0, header_size = write_header(shape, size, header);
	assert_non_null(whole);
	assert_int_equal(whole->nb_segs, 1);
	assert_int_equal(whole->port, PORT);
	assert_int_equal(whole->data_len, RTE_ETHER_HDR_LEN + header_size + size);
	assert_int_equal(whole->pkt_len, whole->data_len);
	const uint8_t *data = rte_pktmbuf_mtod(whole, const uint8_t *);
	for (unsigned int i = 0; i < RTE_ETHER_HDR_LEN; i++)
		assert_int_equal(data[i], 0x5e);
	data += RTE_ETHER_HDR_LEN;
	assert_int_equal(packet_ip_check(data, header_size + size, true, &length), DROP_NONE);
	assert_memory_equal(data, header, header_size);
	for (uint32_t i = 0; i < size; i++)
		assert_int_equal(data[header_size + i], byte_at(i));
	rte_pktmbuf_free(whole);
}

static void check_empty(void)
{
	assert_int_equal(table->packets, 0);
	assert_int_equal(table->held, 0);
	assert_true(reassembly_is_empty(table));
	check_nothing_else();
}

// ---- tests ----

enum { PIECES = 4, PIECE = 360, SIZE = PIECES * PIECE - 3 };

static struct rte_mbuf *add_piece(const struct shape *shape, unsigned int i)
{
	bool more = i < PIECES - 1;
	return add(shape, i * PIECE, more ? PIECE : PIECE - 3, more);
}

// Calls `each` with every order of PIECES pieces.
static void permute(unsigned int *order, unsigned int done, const void *argument,
	void (*each)(const unsigned int *, const void *))
{
	if (done == PIECES) {
		each(order, argument);
		return;
	}
	for (unsigned int i = done; i < PIECES; i++) {
		unsigned int first = order[done], other = order[i];
		order[done] = other;
		order[i] = first;
		permute(order, done + 1, argument, each);
		order[done] = first;
		order[i] = other;
	}
}

static void join_in_order(const unsigned int *order, const void *shape)
{
	for (unsigned int i = 0; i < PIECES - 1; i++)
		assert_null(add_piece(shape, order[i]));
	assert_int_equal(table->held, PIECES - 1);
	check_whole(add_piece(shape, order[PIECES - 1]), shape, SIZE);
	check_ended(DROP_NONE, PIECES - 1);
	check_empty();
}

static void test_every_order(void **state)
{
	(void)state;
	unsigned int order[PIECES] = {0, 1, 2, 3};
	permute(order, 0, &v4, join_in_order);
	permute(order, 0, &v6, join_in_order);
}

static void join_with_duplicates(const unsigned int *order, const void *shape)
{
	for (unsigned int i = 0; i < PIECES - 1; i++)
		for (unsigned int time = 0; time < 2; time++)
			assert_null(add_piece(shape, order[i]));
	check_ended(DROP_FRAGMENT_DUPLICATE, PIECES - 1);
	check_whole(add_piece(shape, order[PIECES - 1]), shape, SIZE);
	check_ended(DROP_NONE, PIECES - 1);
	check_empty();
}

static void test_duplicates_are_dropped_alone(void **state)
{
	(void)state;
	unsigned int order[PIECES] = {0, 1, 2, 3};
	permute(order, 0, &v4, join_with_duplicates);
	permute(order, 0, &v6, join_with_duplicates);
	// One that comes after the packet was whole begins a new one, which gets old.
	assert_null(add_piece(&v4, 0));
	now += TIMEOUT;
	reassembly_expire(table, now);
	check_ended(DROP_FRAGMENT_TIMEOUT, 1);
	check_empty();
}

// Packets at once: by address, id and (IPv4) protocol. None takes another's piece.
static void test_packets_are_told_apart(void **state)
{
	(void)state;
	const struct shape shapes[] = {v4, v6, {.family = 4, .id = 0x1235, .protocol = IPPROTO_ESP},
		{.family = 4, .id = 0x1234, .protocol = IPPROTO_UDP},
		{.family = 6, .id = 0xdeadbee0, .protocol = IPPROTO_ESP}};
	for (unsigned int i = 0; i < PIECES - 1; i++)
		for (unsigned int j = 0; j < RTE_DIM(shapes); j++)
			assert_null(add_piece(&shapes[j], i));
	for (unsigned int j = 0; j < RTE_DIM(shapes); j++)
		check_whole(add_piece(&shapes[j], PIECES - 1), &shapes[j], SIZE);
	check_ended(DROP_NONE, RTE_DIM(shapes) * (PIECES - 1));
	check_empty();
}

// Each source of packets balances: the whole one counts for that of the fragment that completed it.
static void test_the_last_one_says_where_from(void **state)
{
	(void)state;
	struct rte_mbuf *last = fragment_new(&v4, 0, 8, true);
	last->port = PORT + 1;
	assert_null(add(&v4, 8, 8, false));
	struct reassembly_result result = add_frame(last, REASSEMBLY_CONTENT_ESP);
	assert_non_null(result.whole);
	assert_int_equal(result.whole->port, PORT + 1);
	result.whole->port = PORT;
	check_whole(result.whole, &v4, 16);
	check_ended(DROP_NONE, 1);
}

// RFC 8200 section 4.5: the first fragment's next header holds, whatever the others say.
static void test_ipv6_takes_the_first_fragments_next_header(void **state)
{
	(void)state;
	struct shape odd = v6;
	odd.protocol = IPPROTO_UDP;
	assert_null(add(&odd, 8, 8, false));
	check_whole(add(&v6, 0, 8, true), &v6, 16);
	check_ended(DROP_NONE, 1);
	check_empty();
}

enum { MODEL_UNITS = 8, MODEL_ROUNDS = 20000 };

// What is known of one packet, by units of eight bytes.
struct model {
	unsigned int count, end; // 0 = the last has not come
	bool refused, covered[MODEL_UNITS];
	struct {
		unsigned int begin, end;
		bool more;
	} pieces[MODEL_UNITS];
};

static enum drop_reason model_add(
	struct model *model, unsigned int begin, unsigned int end, bool more, bool *whole)
{
	bool overlap = false, duplicate = false;
	unsigned int covered = 0;
	*whole = false;
	if (model->refused)
		return DROP_FRAGMENT_OVERLAP;
	for (unsigned int i = 0; i < model->count; i++)
		duplicate |= model->pieces[i].begin == begin && model->pieces[i].end == end &&
			     model->pieces[i].more == more;
	if (duplicate)
		return DROP_FRAGMENT_DUPLICATE;
	for (unsigned int i = begin; i < end; i++)
		overlap |= model->covered[i];
	for (unsigned int i = end; i < MODEL_UNITS; i++)
		overlap |= !more && model->covered[i]; // something behind the end
	overlap |= model->end != 0 && (end > model->end || (!more && end != model->end));
	overlap |= model->end != 0 && more && end == model->end;
	if (overlap) {
		model->refused = true;
		return DROP_FRAGMENT_OVERLAP;
	}
	model->pieces[model->count].begin = begin;
	model->pieces[model->count].end = end;
	model->pieces[model->count++].more = more;
	for (unsigned int i = begin; i < end; i++)
		model->covered[i] = true;
	if (!more)
		model->end = end;
	for (unsigned int i = 0; i < MODEL_UNITS; i++)
		covered += model->covered[i];
	*whole = model->end != 0 && covered == model->end;
	return DROP_NONE;
}

static void test_overlaps_beside_a_model(void **state)
{
	(void)state;
	uint64_t random = 1, wholes = 0, overlaps = 0, duplicates = 0;
	for (unsigned int round = 0; round < MODEL_ROUNDS; round++) {
		struct model model = {0};
		bool whole = false;
		for (unsigned int step = 0; step < 8 && !whole; step++) {
			unsigned int begin = (unsigned int)(test_random(&random) % 4);
			unsigned int end = begin + 1 + (unsigned int)(test_random(&random) % 2);
			bool more = test_random(&random) % 3 != 0;
			// A first one that is the last, too, is no fragment.
			if (begin == 0 && !more)
				continue;
			unsigned int held = model.count;
			bool was_refused = model.refused;
			enum drop_reason reason = model_add(&model, begin, end, more, &whole);
			struct rte_mbuf *got =
				add(round & 1 ? &v6 : &v4, begin * 8, (end - begin) * 8, more);
			assert_true((got != NULL) == whole);
			if (whole)
				check_whole(got, round & 1 ? &v6 : &v4, model.end * 8);
			check_ended(DROP_NONE, whole ? model.count - 1 : 0);
			check_ended(DROP_FRAGMENT_DUPLICATE, reason == DROP_FRAGMENT_DUPLICATE);
			check_ended(DROP_FRAGMENT_OVERLAP, reason != DROP_FRAGMENT_OVERLAP ? 0
							   : was_refused                   ? 1
									 : held + 1);
			check_nothing_else();
			overlaps += reason == DROP_FRAGMENT_OVERLAP;
			duplicates += reason == DROP_FRAGMENT_DUPLICATE;
			wholes += whole;
		}
		reassembly_drop_all(table, DROP_STOPPED);
		check_ended(DROP_STOPPED, whole || model.refused ? 0 : model.count);
		assert_true(reassembly_is_empty(table));
	}
	assert_true(wholes > 500 && overlaps > 1000 && duplicates > 1000);
}

static void test_timeout_counts_from_the_first_arrival(void **state)
{
	(void)state;
	assert_null(add_piece(&v4, 0));
	now += TIMEOUT - 1;
	reassembly_expire(table, now);
	assert_null(add_piece(&v4, 1));
	assert_null(add_piece(&v6, 0));
	check_nothing_else();
	now += 1;
	reassembly_expire(table, now);
	check_ended(DROP_FRAGMENT_TIMEOUT, 2);
	assert_int_equal(table->packets, 1);
	// Too late: it begins anew. An arrival alone makes old ones go, too.
	assert_null(add_piece(&v4, 2));
	now += TIMEOUT - 1;
	assert_null(add_piece(&v4, 3));
	check_ended(DROP_FRAGMENT_TIMEOUT, 1);
	assert_int_equal(table->held, 2);
	reassembly_drop_all(table, DROP_STOPPED);
	check_ended(DROP_STOPPED, 2);
	check_empty();
}

// What was refused stays so until its time is over.
static void test_a_refused_packet_is_forgotten_in_time(void **state)
{
	(void)state;
	assert_null(add_piece(&v4, 0));
	assert_null(add(&v4, 8, 16, true));
	check_ended(DROP_FRAGMENT_OVERLAP, 2);
	for (unsigned int i = 1; i < PIECES; i++)
		assert_null(add_piece(&v4, i));
	check_ended(DROP_FRAGMENT_OVERLAP, PIECES - 1);
	now += TIMEOUT;
	for (unsigned int i = 0; i < PIECES - 1; i++)
		assert_null(add_piece(&v4, i));
	check_whole(add_piece(&v4, PIECES - 1), &v4, SIZE);
	check_ended(DROP_NONE, PIECES - 1);
	check_empty();
}

static void test_a_full_table_loses_the_oldest(void **state)
{
	(void)state;
	struct shape shape = v4;
	for (shape.id = 0; shape.id < PACKETS; shape.id++)
		assert_null(add_piece(&shape, 0));
	check_nothing_else();
	for (unsigned int i = 1; i < PIECES; i++) {
		struct rte_mbuf *whole = add_piece(&v6, i - 1);
		assert_null(whole);
	}
	check_ended(DROP_FRAGMENT_TABLE_FULL, 1);
	check_whole(add_piece(&v6, PIECES - 1), &v6, SIZE);
	check_ended(DROP_NONE, PIECES - 1);
	// The one with id 0 went, and no other.
	shape.id = 1;
	for (unsigned int i = 1; i < PIECES - 1; i++)
		assert_null(add_piece(&shape, i));
	check_whole(add_piece(&shape, PIECES - 1), &shape, SIZE);
	check_ended(DROP_NONE, PIECES - 1);
	assert_int_equal(table->packets, PACKETS - 2);
}

static void test_fragments_are_bounded_in_all(void **state)
{
	(void)state;
	struct shape shape = v6;
	const unsigned int most = PACKETS * REASSEMBLY_MEAN_FRAGMENTS;
	for (shape.id = 0; shape.id < PACKETS / 2; shape.id++)
		for (unsigned int i = 0; i < 2 * REASSEMBLY_MEAN_FRAGMENTS; i++)
			assert_null(add(&shape, i * 8, 8, true));
	check_nothing_else();
	assert_int_equal(table->held, most);
	assert_null(add_piece(&v4, 0));
	check_ended(DROP_FRAGMENT_TABLE_FULL, 2 * REASSEMBLY_MEAN_FRAGMENTS);
	assert_int_equal(table->held, most - 2 * REASSEMBLY_MEAN_FRAGMENTS + 1);
}

// The oldest packets may be refused ones, which hold none.
static void test_fragments_are_bounded_beside_refused_packets(void **state)
{
	(void)state;
	struct shape shape = v4;
	assert_null(add_piece(&shape, 0));
	assert_null(add(&shape, 8, 16, true));
	check_ended(DROP_FRAGMENT_OVERLAP, 2);
	test_fragments_are_bounded_in_all(state);
	assert_int_equal(table->packets, PACKETS / 2);
}

static void test_too_many_fragments(void **state)
{
	(void)state;
	for (unsigned int i = 0; i < REASSEMBLY_FRAGMENTS; i++)
		assert_null(add(&v4, i * 8, 8, true));
	check_nothing_else();
	assert_null(add(&v4, REASSEMBLY_FRAGMENTS * 8, 8, true));
	check_ended(DROP_FRAGMENT_TOO_MANY, REASSEMBLY_FRAGMENTS + 1);
	assert_null(add(&v4, 800, 8, false));
	check_ended(DROP_FRAGMENT_TOO_MANY, 1);
	// As many as are allowed make one.
	for (unsigned int i = 0; i < REASSEMBLY_FRAGMENTS - 1; i++)
		assert_null(add(&v6, i * 8, 8, true));
	check_whole(add(&v6, (REASSEMBLY_FRAGMENTS - 1) * 8, 5, false), &v6,
		REASSEMBLY_FRAGMENTS * 8 - 3);
	check_ended(DROP_NONE, REASSEMBLY_FRAGMENTS - 1);
}

static void test_the_largest_packet_and_larger(void **state)
{
	(void)state;
	assert_int_equal(table->room, ROOM);
	assert_null(add(&v4, 1024, ROOM - 1024, false));
	check_whole(add(&v4, 0, 1024, true), &v4, ROOM);
	check_ended(DROP_NONE, 1);
	check_empty();
	// Known as soon as the first fragment has said that it is ESP.
	assert_null(add(&v6, ROOM, 8, true));
	check_nothing_else();
	assert_null(add(&v6, 0, 1024, true));
	check_ended(DROP_FRAGMENT_TOO_BIG, 2);
	assert_null(add(&v6, 1024, 8, true));
	check_ended(DROP_FRAGMENT_TOO_BIG, 1);
	assert_null(add(&v4, 0, 1024, true));
	assert_null(add(&v4, ROOM - 8, 9, false));
	check_ended(DROP_FRAGMENT_TOO_BIG, 2);
}

static void test_impossible_fragments(void **state)
{
	(void)state;
	assert_null(add(&v4, 0, 12, true)); // not in units of eight
	assert_null(add(&v4, 64, 0, true)); // nothing in it
	assert_null(add(&v6, 64, 0, false));
	assert_null(add(&v4, 65528, 1000, false)); // behind the largest packet
	assert_null(add(&v6, 65528, 1000, false));
	check_ended(DROP_FRAGMENT_BAD, 5);
	check_empty();
}

// UDP may be IKE: the first fragment says it, and then all go to the host.
static void test_fragments_for_the_host_are_given_back(void **state)
{
	(void)state;
	struct shape udp = v4;
	udp.protocol = IPPROTO_UDP;
	// Longer than a buffer: it is not put together.
	struct rte_mbuf *frames[] = {fragment_new(&udp, 1400, 1400, true),
		fragment_new(&udp, 2800, 100, false), fragment_new(&udp, 0, 1400, true)};
	for (unsigned int i = 0; i < 2; i++) {
		struct reassembly_result held = add_frame(frames[i], REASSEMBLY_CONTENT_LATER);
		assert_int_equal(held.count, 0);
		assert_null(held.whole);
	}
	struct reassembly_result result = add_frame(frames[2], REASSEMBLY_CONTENT_HOST_URGENT);
	assert_int_equal(result.count, 3);
	assert_true(result.urgent);
	assert_null(result.whole);
	for (unsigned int i = 0; i < 3; i++) {
		assert_ptr_equal(result.packets[i], frames[i]);
		rte_pktmbuf_free(frames[i]);
	}
	assert_int_equal(table->held, 0);
	// What comes later goes the same way.
	struct rte_mbuf *later = fragment_new(&udp, 3000, 8, false);
	result = add_frame(later, REASSEMBLY_CONTENT_LATER);
	assert_int_equal(result.count, 1);
	assert_ptr_equal(result.packets[0], later);
	rte_pktmbuf_free(later);
	udp.id++;
	later = fragment_new(&udp, 0, 8, true);
	result = add_frame(later, REASSEMBLY_CONTENT_HOST);
	assert_int_equal(result.count, 1);
	assert_false(result.urgent);
	rte_pktmbuf_free(later);
	check_nothing_else();
}

// RFC 3168 section 5.3.
static void test_congestion_marks(void **state)
{
	(void)state;
	for (uint8_t a = 0; a < 4; a++) {
		for (uint8_t b = 0; b < 4; b++) {
			struct shape first = v4, last = v4;
			first.ecn = a;
			last.ecn = b;
			assert_null(add(&last, 8, 8, false));
			struct rte_mbuf *whole = add(&first, 0, 8, true);
			if ((a == 3 || b == 3) && (a == 0 || b == 0)) {
				assert_null(whole);
				check_ended(DROP_ECN, 2);
				continue;
			}
			if (b == 3)
				first.ecn = 3;
			check_whole(whole, &first, 16);
			check_ended(DROP_NONE, 1);
		}
	}
	check_empty();
}

static void test_no_buffer(void **state)
{
	(void)state;
	static struct rte_mbuf *taken[BUFFERS];
	unsigned int count = 0;
	assert_null(add_piece(&v4, 0));
	struct rte_mbuf *last = fragment_new(&v4, PIECE, 8, false);
	while ((taken[count] = rte_pktmbuf_alloc(pool)) != NULL)
		count++;
	assert_null(add_frame(last, REASSEMBLY_CONTENT_LATER).whole);
	check_ended(DROP_NO_BUFFER, 2);
	rte_pktmbuf_free_bulk(taken, count);
	check_empty();
}

// What is left when the table goes is freed: tear_down counts.
static void test_destroy_frees_what_is_held(void **state)
{
	(void)state;
	assert_null(add_piece(&v4, 0));
	assert_null(add_piece(&v6, 1));
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_every_order),
		TEST(test_duplicates_are_dropped_alone),
		TEST(test_packets_are_told_apart),
		TEST(test_the_last_one_says_where_from),
		TEST(test_ipv6_takes_the_first_fragments_next_header),
		TEST(test_overlaps_beside_a_model),
		TEST(test_timeout_counts_from_the_first_arrival),
		TEST(test_a_refused_packet_is_forgotten_in_time),
		TEST(test_a_full_table_loses_the_oldest),
		TEST(test_fragments_are_bounded_in_all),
		TEST(test_fragments_are_bounded_beside_refused_packets),
		TEST(test_too_many_fragments),
		TEST(test_the_largest_packet_and_larger),
		TEST(test_impossible_fragments),
		TEST(test_fragments_for_the_host_are_given_back),
		TEST(test_congestion_marks),
		TEST(test_no_buffer),
		TEST(test_destroy_frees_what_is_held),
	};
	uint64_t seed = 7;
	if (test_eal_start("64") != 0)
		return 1;
	for (unsigned int i = 0; i < REASSEMBLY_WORDS; i++)
		keys[i] = test_random(&seed);
	pool = rte_pktmbuf_pool_create(
		"packets", BUFFERS, 0, 0, RTE_PKTMBUF_HEADROOM + DATA_ROOM, 0);
	return pool == NULL ? 1 : cmocka_run_group_tests(tests, NULL, NULL);
}
