// SPDX-License-Identifier: BSD-3-Clause
// Copyright (c) 2026 the espgw authors

// One SA and several threads: no sequence number is used twice, none is accepted twice, and none in
// the window is lost. To be run under the thread sanitizer too.

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>

#include "eal.h"
#include "esp_helpers.h"

enum { THREADS = 4 };

static struct esp_context *contexts[THREADS];

// Runs `body` in all threads at once; its argument is the thread's number. cmocka's assertions
// belong to the main thread, so threads only record.
static void run_threads(void *(*body)(void *))
{
	pthread_t threads[THREADS];
	for (uintptr_t i = 0; i < THREADS; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, body, (void *)i), 0);
	for (unsigned int i = 0; i < THREADS; i++)
		pthread_join(threads[i], NULL);
}

// A burst of packets of its own for a thread.
struct burst {
	struct rte_mbuf *packets[ESP_BURST_MAX];
	uint8_t drops[ESP_BURST_MAX], classes[ESP_BURST_MAX];
};

static struct burst *burst_new(void)
{
	static const uint8_t empty[256];
	struct burst *burst = calloc(1, sizeof(*burst));
	for (unsigned int i = 0; i < ESP_BURST_MAX; i++)
		burst->packets[i] = test_packet(empty, sizeof(empty));
	return burst;
}

static void burst_free(struct burst *burst)
{
	for (unsigned int i = 0; i < ESP_BURST_MAX; i++)
		test_packet_free(burst->packets[i]);
	free(burst);
}

enum { SENT_EACH = 60000, SENT_ALL = THREADS * SENT_EACH, SENDERS = 2 };

static struct {
	struct esp_sa_out *sas[SENDERS];
	uint64_t last[SENDERS], first;
	struct test_cipher *cipher;
	bool esn;
	_Atomic uint8_t used[SENDERS][2 * SENT_ALL]; // [][number - first]: how often
	uint64_t ivs[SENDERS][2 * SENT_ALL];
	unsigned int sent[THREADS], wrong[THREADS];
} out;

// What left: takes note of its number, and opens one in 16, so that number, IV and ICV fit together
// whatever the other threads were doing.
static void note_sent(unsigned int thread, unsigned int which, const struct rte_mbuf *packet)
{
	const uint8_t *esp = test_data(packet) + 20;
	uint64_t sequence = test_get32(esp + 4);
	if (out.esn && sequence < (uint32_t)out.first)
		sequence |= ((out.first >> 32) + 1) << 32;
	else
		sequence |= out.first >> 32 << 32;
	uint64_t index = sequence - out.first;
	if (index >= 2 * SENT_ALL) {
		out.wrong[thread]++;
		return;
	}
	atomic_fetch_add_explicit(&out.used[which][index], 1, memory_order_relaxed);
	memcpy(&out.ivs[which][index], esp + ESP_HEADER_SIZE, ESP_IV_SIZE);
	uint8_t plaintext[300];
	if (sequence % 16 == 0 &&
		test_open(out.cipher, sequence, esp, packet->data_len - 20u, plaintext) < 0)
		out.wrong[thread]++;
	out.sent[thread]++;
}

static void note_refused(unsigned int thread, const struct rte_mbuf *packet, uint8_t drop,
	const uint8_t *inner, uint32_t size)
{
	if (drop != DROP_SEQUENCE_EXHAUSTED || packet->data_len != size ||
		memcmp(test_data(packet), inner, size) != 0)
		out.wrong[thread]++;
}

static void *send_many(void *argument)
{
	unsigned int thread = (unsigned int)(uintptr_t)argument;
	uint64_t seed = thread + 1;
	uint8_t inner[60];
	struct burst *burst = burst_new();
	test_inner_v4(inner, sizeof(inner), 0, false);
	for (unsigned int sent = 0; sent < SENT_EACH;) {
		unsigned int count = 1 + (unsigned int)(test_random(&seed) % ESP_BURST_MAX);
		struct esp_sa_out *sas[ESP_BURST_MAX];
		unsigned int which[ESP_BURST_MAX];
		for (unsigned int i = 0; i < count; i++) {
			which[i] = test_random(&seed) % SENDERS;
			sas[i] = out.sas[which[i]];
			test_packet_set(burst->packets[i], inner, sizeof(inner));
		}
		unsigned int refused =
			esp_encapsulate(contexts[thread], burst->packets, sas, burst->drops, count);
		for (unsigned int i = 0; i < count; i++) {
			refused -= burst->drops[i] != DROP_NONE;
			if (burst->drops[i] == DROP_NONE)
				note_sent(thread, which[i], burst->packets[i]);
			else
				note_refused(thread, burst->packets[i], burst->drops[i], inner,
					sizeof(inner));
		}
		out.wrong[thread] += refused != 0;
		// Numbers are looked at meanwhile, as the control thread does.
		out.wrong[thread] += esp_sa_out_next_sequence(out.sas[0]) > out.last[0] + 1;
		sent += count;
	}
	burst_free(burst);
	return NULL;
}

static int compare_ivs(const void *a, const void *b)
{
	return memcmp(a, b, ESP_IV_SIZE);
}

static void check_ivs(uint64_t *ivs, uint64_t count)
{
	qsort(ivs, count, sizeof(*ivs), compare_ivs);
	for (uint64_t i = 1; i < count; i++)
		assert_true(ivs[i] != ivs[i - 1]);
}

// All numbers from first on must have been used once, up to the limit if there is one that matters.
static void check_senders(uint64_t first, uint64_t limit, bool esn)
{
	struct esp_sa_out_parameters parameters = test_out_parameters(4);
	parameters.esn = esn;
	parameters.first_sequence = out.first = first;
	parameters.last_sequence = limit;
	parameters.workers = THREADS;
	memset(out.used, 0, sizeof(out.used));
	memset(out.sent, 0, sizeof(out.sent));
	out.esn = esn;
	out.cipher = test_cipher_new(parameters.key, parameters.salt, parameters.spi, esn);
	for (unsigned int i = 0; i < SENDERS; i++) {
		out.sas[i] = esp_sa_out_create(&parameters);
		assert_non_null(out.sas[i]);
		out.last[i] = limit != 0 ? limit : esn ? ESP_SEQUENCE_END_ESN : ESP_SEQUENCE_END;
	}
	run_threads(send_many);
	uint64_t counted = 0, sent = 0;
	for (unsigned int i = 0; i < THREADS; i++) {
		assert_int_equal(out.wrong[i], 0);
		sent += out.sent[i];
	}
	for (unsigned int i = 0; i < SENDERS; i++) {
		uint64_t packets = esp_sa_out_counters(out.sas[i]).packets;
		if (limit != 0) {
			assert_true(packets == limit - first + 1);
			assert_true(esp_sa_out_exhausted(out.sas[i]));
		}
		for (uint64_t index = 0; index < 2 * SENT_ALL; index++)
			assert_int_equal(out.used[i][index], index < packets);
		check_ivs(out.ivs[i], packets);
		assert_true(esp_sa_out_next_sequence(out.sas[i]) == first + packets);
		counted += packets;
		esp_sa_out_destroy(out.sas[i]);
	}
	assert_true(counted == sent);
	test_cipher_free(out.cipher);
}

static void test_no_number_is_used_twice(void **state)
{
	(void)state;
	check_senders(1, 0, false);
	check_senders(UINT64_C(0x100000000) - SENT_ALL / 5, 0, true); // across the halves
}

static void test_exhaustion_with_threads(void **state)
{
	(void)state;
	check_senders(1, SENT_ALL / 4, false);
	check_senders(1, 1, false);
	check_senders(UINT64_C(0x100000000) - SENT_ALL / 5, UINT64_C(0xffffffff), false);
	check_senders(UINT64_C(0x100000000) - SENT_ALL / 5, UINT64_C(0x100000123), true);
}

enum { ENDS = 32, END_ROUNDS = 20, END_LAST = 5, END_EACH = 2 };

static struct {
	struct esp_sa_out *sas[ENDS];
	_Atomic unsigned int arrived;
	_Atomic uint8_t used[ENDS][END_LAST + 1];
	unsigned int wrong[2];
} ends;

// Spins, so that both leave it within nanoseconds; yields, in case there is one core.
static void meet(unsigned int target)
{
	atomic_fetch_add(&ends.arrived, 1);
	for (unsigned int i = 1; atomic_load(&ends.arrived) < target; i++)
		if (i % 1000 == 0)
			sched_yield();
}

// Two packets a time to each of many SAs that are about to end, in step with the other thread.
static void *send_last(void *argument)
{
	unsigned int thread = (unsigned int)(uintptr_t)argument;
	uint8_t inner[20];
	struct esp_sa_out *sas[ENDS * END_EACH];
	if (thread >= RTE_DIM(ends.wrong))
		return NULL;
	for (unsigned int i = 0; i < ENDS * END_EACH; i++)
		sas[i] = ends.sas[i % ENDS];
	struct burst *burst = burst_new();
	test_inner_v4(inner, sizeof(inner), 0, false);
	for (unsigned int round = 1; round <= 3; round++) {
		for (unsigned int i = 0; i < ENDS * END_EACH; i++)
			test_packet_set(burst->packets[i], inner, sizeof(inner));
		meet(round * RTE_DIM(ends.wrong));
		esp_encapsulate(
			contexts[thread], burst->packets, sas, burst->drops, ENDS * END_EACH);
		for (unsigned int i = 0; i < ENDS * END_EACH; i++) {
			uint32_t sequence = test_get32(test_data(burst->packets[i]) + 24);
			if (burst->drops[i] != DROP_NONE)
				continue;
			if (sequence == 0 || sequence > END_LAST)
				ends.wrong[thread]++;
			else
				atomic_fetch_add(&ends.used[i % ENDS][sequence], 1);
		}
	}
	burst_free(burst);
	return NULL;
}

// The moment of the end, many times over: two threads take the last number together.
static void test_race_for_the_last_number(void **state)
{
	(void)state;
	struct esp_sa_out_parameters parameters = test_out_parameters(4);
	parameters.last_sequence = END_LAST;
	parameters.workers = THREADS;
	for (unsigned int round = 0; round < END_ROUNDS; round++) {
		memset(&ends, 0, sizeof(ends));
		for (unsigned int i = 0; i < ENDS; i++) {
			ends.sas[i] = esp_sa_out_create(&parameters);
			assert_non_null(ends.sas[i]);
		}
		run_threads(send_last);
		assert_int_equal(ends.wrong[0] + ends.wrong[1], 0);
		for (unsigned int i = 0; i < ENDS; i++) {
			for (unsigned int number = 1; number <= END_LAST; number++)
				assert_int_equal(ends.used[i][number], 1);
			esp_sa_out_destroy(ends.sas[i]);
		}
	}
}

static struct {
	struct esp_sa_out *sa;
	_Atomic unsigned int packets[2]; // with the old outer header, with the new one
	_Atomic bool moved;
	unsigned int wrong[THREADS];
} move;

// Which of the two outer headers a packet has: 0 or 1, or -1 when it is a mixture.
static int outer_of(const struct rte_mbuf *packet)
{
	static const uint8_t old_peer[4] = {72, 21, 209, 193}, new_peer[4] = {192, 0, 2, 2};
	const uint8_t *ip = test_data(packet);
	if (test_sum(ip, 20, 0) != 0xffff)
		return -1;
	if (memcmp(ip + 16, old_peer, 4) == 0 && ip[9] == 50)
		return 0;
	bool udp = ip[9] == 17 && test_get16(ip + 22) == 61000 &&
		   test_get16(ip + 24) == packet->data_len - 20;
	return memcmp(ip + 16, new_peer, 4) == 0 && udp ? 1 : -1;
}

// Thread 0 is the control thread, and moves the peer once; the others send until they see it.
static void *send_while_peer_moves(void *argument)
{
	unsigned int thread = (unsigned int)(uintptr_t)argument;
	const struct packet_address source = test_address("192.0.2.1");
	const struct packet_address destination = test_address("192.0.2.2");
	uint8_t inner[60];
	if (thread == 0) {
		while (atomic_load(&move.packets[0]) < 1000)
			sched_yield();
		esp_sa_out_set_outer(move.sa, &source, &destination, 4500, 61000);
		atomic_store(&move.moved, true);
		return NULL;
	}
	struct burst *burst = burst_new();
	struct esp_sa_out *sas[ESP_BURST_MAX];
	test_inner_v4(inner, sizeof(inner), 0, false);
	for (unsigned int after = 0; after < 20; after += atomic_load(&move.moved)) {
		bool moved = atomic_load(&move.moved);
		for (unsigned int i = 0; i < ESP_BURST_MAX; i++) {
			sas[i] = move.sa;
			test_packet_set(burst->packets[i], inner, sizeof(inner));
		}
		esp_encapsulate(contexts[thread], burst->packets, sas, burst->drops, ESP_BURST_MAX);
		for (unsigned int i = 0; i < ESP_BURST_MAX; i++) {
			int outer = outer_of(burst->packets[i]);
			if (outer < 0 || burst->drops[i] != DROP_NONE || (moved && outer == 0))
				move.wrong[thread]++;
			else
				atomic_fetch_add(&move.packets[outer], 1);
		}
	}
	burst_free(burst);
	return NULL;
}

static void test_peer_moves_under_traffic(void **state)
{
	(void)state;
	struct esp_sa_out_parameters parameters = test_out_parameters(4);
	parameters.workers = THREADS;
	for (unsigned int round = 0; round < 30; round++) {
		memset(&move, 0, sizeof(move));
		move.sa = esp_sa_out_create(&parameters);
		assert_non_null(move.sa);
		run_threads(send_while_peer_moves);
		for (unsigned int i = 0; i < THREADS; i++)
			assert_int_equal(move.wrong[i], 0);
		assert_true(move.packets[0] >= 1000 && move.packets[1] > 0);
		esp_sa_out_destroy(move.sa);
	}
}

enum { PACKET_SIZE = 8 + 8 + 20 + 2 + 2 + 16 };

static struct {
	struct esp_sa_in *sa;
	uint32_t window, rounds, numbers; // numbers: of one round
	uint64_t top;
	uint8_t *packets;          // [round][number], of PACKET_SIZE
	_Atomic uint8_t *accepted; // [round][number]
	pthread_barrier_t barrier;
	unsigned int lost[THREADS], wrong[THREADS];
	bool synchronous;
} in;

static void receive_burst(unsigned int thread, struct burst *burst, const uint32_t *order,
	uint32_t round, unsigned int count)
{
	struct esp_sa_in *sas[ESP_BURST_MAX];
	for (unsigned int i = 0; i < count; i++) {
		size_t index = (size_t)round * in.numbers + order[i];
		test_packet_set(burst->packets[i], in.packets + index * PACKET_SIZE, PACKET_SIZE);
		sas[i] = in.sa;
	}
	unsigned int refused = esp_decapsulate(
		contexts[thread], burst->packets, sas, burst->classes, burst->drops, count);
	for (unsigned int i = 0; i < count; i++) {
		size_t index = (size_t)round * in.numbers + order[i];
		refused -= burst->drops[i] != DROP_NONE;
		if (burst->drops[i] == DROP_NONE)
			atomic_fetch_add_explicit(&in.accepted[index], 1, memory_order_relaxed);
		else if (in.synchronous && burst->drops[i] != DROP_REPLAY)
			in.lost[thread]++; // it was in the window
		else if (burst->drops[i] != DROP_REPLAY && burst->drops[i] != DROP_TOO_OLD)
			in.wrong[thread]++;
	}
	in.wrong[thread] += refused != 0;
}

// Each thread has each packet of each round, in an order of its own; the next round begins when all
// are through with this one.
static void *receive_many(void *argument)
{
	unsigned int thread = (unsigned int)(uintptr_t)argument;
	uint64_t seed = thread + 100, highest = 0;
	uint32_t *order = calloc(in.numbers, sizeof(*order));
	struct burst *burst = burst_new();
	for (uint32_t i = 0; i < in.numbers; i++)
		order[i] = i;
	for (uint32_t round = 0; round < in.rounds; round++) {
		test_shuffle(order, in.numbers, &seed);
		if (in.synchronous)
			pthread_barrier_wait(&in.barrier);
		for (uint32_t done = 0; done < in.numbers;) {
			uint32_t count = 1 + (uint32_t)(test_random(&seed) % ESP_BURST_MAX);
			count = RTE_MIN(count, in.numbers - done);
			receive_burst(thread, burst, order + done, round, count);
			done += count;
			uint64_t top = esp_sa_in_top(in.sa);
			in.wrong[thread] += top < highest; // the top never goes back
			highest = top;
		}
	}
	burst_free(burst);
	free(order);
	return NULL;
}

static void receivers_prepare(uint32_t window, uint32_t rounds, uint64_t top, bool esn)
{
	struct esp_sa_in_parameters parameters = test_in_parameters(window);
	uint8_t inner[20];
	parameters.esn = esn;
	parameters.top = &in.top;
	parameters.workers = THREADS;
	in.top = top;
	in.window = window;
	in.numbers = window;
	in.rounds = rounds;
	in.sa = esp_sa_in_create(&parameters);
	assert_non_null(in.sa);
	size_t all = (size_t)rounds * in.numbers;
	in.packets = malloc(all * PACKET_SIZE);
	in.accepted = calloc(all, sizeof(*in.accepted));
	test_inner_v4(inner, sizeof(inner), 0, false);
	struct test_cipher *cipher =
		test_cipher_new(parameters.key, parameters.salt, parameters.spi, esn);
	for (size_t i = 0; i < all; i++)
		assert_int_equal(test_forge_inner(cipher, top + 1 + i, inner, sizeof(inner),
					 in.packets + i * PACKET_SIZE),
			PACKET_SIZE);
	test_cipher_free(cipher);
	memset(in.lost, 0, sizeof(in.lost));
	memset(in.wrong, 0, sizeof(in.wrong));
}

// With barriers all numbers of a round lie in the window all the time, so each must pass, and once.
// Without them a thread can fall behind the window: then at most once.
static void check_receivers(
	uint32_t window, uint32_t rounds, uint64_t top, bool esn, bool synchronous)
{
	receivers_prepare(window, rounds, top, esn);
	in.synchronous = synchronous;
	pthread_barrier_init(&in.barrier, NULL, THREADS);
	run_threads(receive_many);
	pthread_barrier_destroy(&in.barrier);
	size_t all = (size_t)rounds * in.numbers;
	uint64_t accepted = 0;
	for (size_t i = 0; i < all; i++) {
		assert_true(in.accepted[i] <= 1);
		accepted += in.accepted[i];
	}
	for (unsigned int i = 0; i < THREADS; i++) {
		assert_int_equal(in.lost[i], 0);
		assert_int_equal(in.wrong[i], 0);
	}
	if (synchronous)
		assert_int_equal(accepted, all);
	assert_true(in.top == top + all);
	assert_true(esp_sa_in_counters(in.sa).packets == accepted);
	assert_true(esp_sa_in_counters(in.sa).bytes == 20 * accepted);
	esp_sa_in_destroy(in.sa);
	free(in.packets);
	free((void *)(uintptr_t)in.accepted);
}

static void test_each_number_is_accepted_once(void **state)
{
	(void)state;
	for (uint32_t window = ESP_WINDOW_MIN; window <= ESP_WINDOW_MAX; window *= 2) {
		uint32_t rounds = RTE_MAX(65536 / window, 2u);
		check_receivers(window, rounds, 0, false, true);
		check_receivers(window, rounds, UINT64_C(0x100000000) - window - 5, true, true);
	}
}

static void test_none_is_accepted_twice_by_threads_that_race(void **state)
{
	(void)state;
	for (uint32_t window = ESP_WINDOW_MIN; window <= ESP_WINDOW_MAX; window *= 8) {
		uint32_t rounds = RTE_MAX(65536 / window, 2u);
		check_receivers(window, rounds, 0, false, false);
	}
}

int main(void)
{
	if (test_eal_start("64") != 0)
		return 1;
	for (unsigned int i = 0; i < THREADS; i++) {
		contexts[i] = esp_context_create(i, ESP_CRYPTO_AUTO);
		if (contexts[i] == NULL)
			return 1;
	}
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_no_number_is_used_twice),
		cmocka_unit_test(test_exhaustion_with_threads),
		cmocka_unit_test(test_race_for_the_last_number),
		cmocka_unit_test(test_peer_moves_under_traffic),
		cmocka_unit_test(test_each_number_is_accepted_once),
		cmocka_unit_test(test_none_is_accepted_twice_by_threads_that_race),
	};
	int failed = cmocka_run_group_tests(tests, NULL, NULL);
	for (unsigned int i = 0; i < THREADS; i++)
		esp_context_destroy(contexts[i]);
	return failed;
}
