// SPDX-License-Identifier: BSD-3-Clause
// Copyright (c) 2026 the espgw authors

// The replay window and the ESN high half, by what packets pass: held against a plain model.

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "esp_helpers.h"

static struct esp_context *context;

// The model: all numbers that were accepted, as a set, and the highest.
#define SET_SLOTS (1u << 17)

struct model {
	uint64_t top, restored;
	uint32_t window;
	bool esn;
	uint64_t set[SET_SLOTS]; // 0 = free
};

static struct model model;

static void model_reset(uint64_t top, uint32_t window, bool esn)
{
	memset(&model, 0, sizeof(model));
	model.top = model.restored = top;
	model.window = window;
	model.esn = esn;
}

static uint64_t *model_slot(uint64_t sequence)
{
	uint64_t i = sequence * UINT64_C(0x9e3779b97f4a7c15) >> 40;
	while (model.set[i % SET_SLOTS] != 0 && model.set[i % SET_SLOTS] != sequence)
		i++;
	return &model.set[i % SET_SLOTS];
}

static bool model_has(uint64_t sequence)
{
	return sequence <= model.restored || *model_slot(sequence) == sequence;
}

static void model_accept(uint64_t sequence)
{
	*model_slot(sequence) = sequence;
	if (sequence > model.top)
		model.top = sequence;
}

// What Appendix A of RFC 4303 comes to: the one number with these lower 32 bits among the 2^32 that
// begin at the bottom of the window. False when that lies before 0.
static bool model_infer(uint32_t low, uint64_t *sequence)
{
	*sequence = low;
	if (!model.esn)
		return true;
	uint64_t below = model.window - 1;
	if (model.top < below)
		return low < (UINT64_C(1) << 32) - (below - model.top);
	uint64_t bottom = model.top - below;
	*sequence = bottom + (uint32_t)(low - (uint32_t)bottom);
	return true;
}

// The verdict on an authentic packet with the number `sequence`, or on one with a wrong ICV.
static uint8_t model_verdict(uint64_t sequence, bool authentic)
{
	uint64_t inferred;
	if (!model_infer((uint32_t)sequence, &inferred) || inferred == 0)
		return DROP_TOO_OLD;
	if (inferred <= model.top && model.top - inferred >= model.window)
		return DROP_TOO_OLD;
	if (model_has(inferred))
		return DROP_REPLAY;
	return authentic && inferred == sequence ? DROP_NONE : DROP_ICV;
}

// An SA beside the model, and a packet to try it with.
struct receiver {
	struct esp_sa_in_parameters parameters;
	struct esp_sa_in *sa;
	struct test_cipher *cipher;
	struct rte_mbuf *packet;
	uint64_t top;
};

static struct receiver receiver;

static void receiver_new(uint64_t top, uint32_t window, bool esn)
{
	uint8_t empty[200] = {0};
	receiver.parameters = test_in_parameters(window);
	receiver.parameters.esn = esn;
	receiver.parameters.top = &receiver.top;
	receiver.top = top;
	receiver.sa = esp_sa_in_create(&receiver.parameters);
	assert_non_null(receiver.sa);
	receiver.cipher = test_cipher_new(
		receiver.parameters.key, receiver.parameters.salt, receiver.parameters.spi, esn);
	receiver.packet = test_packet(empty, sizeof(empty));
	model_reset(top, window, esn);
}

static void receiver_free(void)
{
	esp_sa_in_destroy(receiver.sa);
	test_cipher_free(receiver.cipher);
	test_packet_free(receiver.packet);
}

static void packet_forge(struct rte_mbuf *packet, uint64_t sequence, bool authentic)
{
	uint8_t inner[20], esp[200];
	test_inner_v4(inner, sizeof(inner), 0, false);
	uint32_t size = test_forge_inner(receiver.cipher, sequence, inner, sizeof(inner), esp);
	esp[size - 1] ^= (uint8_t)!authentic;
	test_packet_set(packet, esp, size);
}

static uint8_t receive(uint64_t sequence, bool authentic)
{
	packet_forge(receiver.packet, sequence, authentic);
	return test_decapsulate(context, receiver.sa, receiver.packet, 0);
}

// One packet through both.
static void compare(uint64_t sequence, bool authentic)
{
	uint8_t expected = model_verdict(sequence, authentic);
	assert_int_equal(receive(sequence, authentic), expected);
	if (expected == DROP_NONE)
		model_accept(sequence);
	assert_true(receiver.top == model.top);
	assert_true(esp_sa_in_top(receiver.sa) == model.top);
}

// A number about the window's edges, in it, or beyond, never below 0.
static uint64_t any_sequence(uint64_t *seed)
{
	uint64_t random = test_random(seed);
	uint64_t window = model.window, top = model.top, more = random >> 16;
	uint64_t back = 0, ahead = 0;
	switch (random % 16) {
	case 0:
	case 1:
	case 2: // in the window, or just out of it
		back = more % (window + window / 4);
		break;
	case 3: // its bottom
		back = window - 2 + more % 4;
		break;
	case 4: // a long way back
		back = more % (8 * window);
		break;
	case 5: // a loss of many
		ahead = 1 + more % (3 * window);
		break;
	case 6: // about a whole number of windows
		ahead = window * (1 + more % 3) - 2 + (more >> 8) % 4;
		break;
	case 7: // the same again, and its neighbours
		back = more % 3;
		break;
	default:
		ahead = 1 + more % 3;
	}
	uint64_t sequence = back > top ? 0 : top - back + ahead;
	return !model.esn && sequence > UINT32_MAX ? UINT32_MAX : sequence;
}

static void check_random_walk(uint64_t top, uint32_t window, bool esn, uint64_t *seed)
{
	receiver_new(top, window, esn);
	for (unsigned int i = 0; i < 4000; i++) {
		bool authentic = test_random(seed) % 8 != 0;
		compare(any_sequence(seed), authentic);
	}
	receiver_free();
}

static void test_random_walks_without_esn(void **state)
{
	(void)state;
	static const uint64_t tops[] = {
		0, 1, 30, 31, 32, 70001, 0x7fffffff, 0xfffff000, 0xfffffffe, 0xffffffff};
	uint64_t seed = 1;
	for (uint32_t window = ESP_WINDOW_MIN; window <= ESP_WINDOW_MAX; window *= 2)
		for (unsigned int i = 0; i < RTE_DIM(tops); i++)
			check_random_walk(tops[i], window, false, &seed);
}

static void test_random_walks_with_esn(void **state)
{
	(void)state;
	static const uint64_t tops[] = {0, 1, 31, 70001, 0x7fffffff, 0xfffff000, 0xffffffff,
		0x100000000, 0x100000001, 0x100000fff, 0x4ffffff80, 0xfffffffff, 0x1000000000,
		UINT64_C(0xfffffffeffffff00)};
	uint64_t seed = 2;
	for (uint32_t window = ESP_WINDOW_MIN; window <= ESP_WINDOW_MAX; window *= 2)
		for (unsigned int i = 0; i < RTE_DIM(tops); i++)
			check_random_walk(tops[i], window, true, &seed);
}

// Numbers so far off that the inferred one is another: then the ICV is wrong. All jumps of one SA
// stay below 2^36 together; a ring that misses more than that in all its words would lose numbers.
static void check_far_jumps(uint32_t window, uint64_t *seed)
{
	receiver_new(UINT64_C(0x300000000), window, true);
	for (unsigned int i = 0; i < 15; i++) {
		uint64_t random = test_random(seed);
		uint64_t span = UINT64_C(1) << random % 35;
		uint64_t distance = (random >> 8) % span;
		if ((random & 0x80) != 0 && distance < model.top)
			compare(model.top - distance, true);
		else
			compare(model.top + distance, true);
	}
	receiver_free();
}

static void test_esn_far_jumps(void **state)
{
	(void)state;
	uint64_t seed = 3;
	for (uint32_t window = ESP_WINDOW_MIN; window <= ESP_WINDOW_MAX; window *= 2)
		for (unsigned int i = 0; i < 40; i++)
			check_far_jumps(window, &seed);
}

// Appendix A2.2, both cases, for a window of 64: which number `low` means when `top` is the
// highest.
static void test_esn_appendix_a(void **state)
{
	(void)state;
	static const struct {
		uint64_t top;
		uint32_t low;
		uint64_t means;
	} cases[] = {
		// Case A, top low 1000, bottom 937: the window lies within one range.
		{0x5000003e8, 937, 0x5000003a9},
		{0x5000003e8, 999, 0x5000003e7},
		{0x5000003e8, 1001, 0x5000003e9},
		{0x5000003e8, 0xffffffff, 0x5ffffffff},
		{0x5000003e8, 936, 0x6000003a8},
		{0x5000003e8, 0, 0x600000000},
		{0x50000003f, 0, 0x600000000}, // bottom exactly 0, which was received long ago
		{0x5ffffffff, 0, 0x600000000},
		{0x5ffffffff, 63, 0x60000003f},
		{0x5ffffffff, 0xffffffc0, 0x5ffffffc0},
		{0x5ffffffff, 0xffffffbf, 0x6ffffffbf},
		// Case B, top low 10, bottom 2^32 - 53: it reaches into the range before.
		{0x50000000a, 0xffffffcb, 0x4ffffffcb},
		{0x50000000a, 0xffffffff, 0x4ffffffff},
		{0x50000000a, 0xffffffca, 0x5ffffffca},
		{0x50000000a, 0, 0x500000000},
		{0x50000000a, 11, 0x50000000b},
		{0x50000003e, 0xffffffff, 0x4ffffffff}, // one below case A
		// Start-up: nothing lies before 0.
		{0, 1, 1},
		{0, 0xffffffc0, 0xffffffc0},
		{10, 0xffffffca, 0xffffffca},
		{62, 0xfffffffe, 0xfffffffe},
		{63, 0xffffffff, 0xffffffff},
	};
	for (unsigned int i = 0; i < RTE_DIM(cases); i++) {
		uint64_t top = cases[i].top, means = cases[i].means;
		// The SA first hears of 64 numbers before the top, so that they are in its window
		// but not taken as received; it must not matter to the inference.
		receiver_new(top > 100 ? top - 100 : 0, 64, true);
		if (top != 0)
			compare(top, true);
		if (cases[i].top == 0x50000003f) // bit 0 of its window, still free
			means = 0x500000000;
		compare(means ^ UINT64_C(1) << 32, true); // the right bits with another half
		assert_true(receiver.top == top);
		bool received = means == top;
		assert_int_equal(receive(means, true), received ? DROP_REPLAY : DROP_NONE);
		assert_true(receiver.top == (means > top ? means : top));
		receiver_free();
	}
}

static void test_numbers_before_the_first(void **state)
{
	(void)state;
	for (uint32_t window = ESP_WINDOW_MIN; window <= ESP_WINDOW_MAX; window *= 2) {
		for (unsigned int esn = 0; esn < 2; esn++) {
			receiver_new(0, window, esn != 0);
			assert_int_equal(receive(0, true), DROP_TOO_OLD);
			assert_int_equal(receive(0, false), DROP_TOO_OLD);
			// With ESN these lie before 0, whatever half they were made with.
			for (uint32_t i = 1; esn != 0 && i < window; i *= 2) {
				assert_int_equal(receive(UINT32_MAX - i + 1, true), DROP_TOO_OLD);
				assert_int_equal(receive((uint64_t)0 - i, true), DROP_TOO_OLD);
			}
			assert_true(receiver.top == 0);
			compare(1, true);
			compare(1, true);
			compare(0, true);
			receiver_free();
		}
	}
}

// At the end of 64 bits nothing starts again.
static void test_end_of_esn(void **state)
{
	(void)state;
	receiver_new(UINT64_MAX - 1, 64, true);
	assert_int_equal(receive(UINT64_MAX, true), DROP_NONE);
	for (uint64_t sequence = 0; sequence < 1000; sequence++)
		assert_int_not_equal(receive(sequence, true), DROP_NONE);
	assert_int_equal(receive(UINT64_MAX, true), DROP_REPLAY);
	assert_true(receiver.top == UINT64_MAX);
	receiver_free();
}

enum { BURST = 48 };

static void receive_burst(const uint64_t *sequences, unsigned int count, uint8_t *drops)
{
	static struct rte_mbuf *packets[BURST];
	struct esp_sa_in *sas[BURST];
	uint8_t classes[BURST] = {0}, empty[200] = {0};
	for (unsigned int i = 0; i < count; i++) {
		packets[i] = test_packet(empty, sizeof(empty));
		packet_forge(packets[i], sequences[i], true);
		sas[i] = receiver.sa;
	}
	unsigned int refused = esp_decapsulate(context, packets, sas, classes, drops, count);
	for (unsigned int i = 0; i < count; i++) {
		refused -= drops[i] != DROP_NONE;
		test_packet_free(packets[i]);
	}
	assert_int_equal(refused, 0);
}

// In a burst the verdicts may be those of any order: but none is accepted twice, and none that is
// in the window of the highest number is lost.
static void check_random_bursts(uint64_t top, uint32_t window, bool esn, uint64_t *seed)
{
	uint64_t sequences[BURST];
	uint8_t drops[BURST];
	receiver_new(top, window, esn);
	for (unsigned int round = 0; round < 150; round++) {
		unsigned int count = 1 + (unsigned int)(test_random(seed) % BURST);
		for (unsigned int i = 0; i < count; i++)
			sequences[i] = any_sequence(seed);
		receive_burst(sequences, count, drops);
		for (unsigned int i = 0; i < count; i++) {
			if (drops[i] != DROP_NONE)
				continue;
			assert_false(model_has(sequences[i]));
			model_accept(sequences[i]);
		}
		assert_true(receiver.top == model.top);
		for (unsigned int i = 0; i < count; i++)
			if (drops[i] != DROP_NONE)
				assert_true(sequences[i] <= model.top &&
					    (model_has(sequences[i]) ||
						    model.top - sequences[i] >= window));
	}
	receiver_free();
}

static void test_random_bursts(void **state)
{
	(void)state;
	static const uint64_t tops[] = {0, 70001, 0xfffff800};
	uint64_t seed = 6;
	for (uint32_t window = ESP_WINDOW_MIN; window <= ESP_WINDOW_MAX; window *= 2) {
		for (unsigned int i = 0; i < RTE_DIM(tops); i++) {
			check_random_bursts(tops[i], window, false, &seed);
			check_random_bursts(tops[i], window, true, &seed);
		}
	}
}

// Numbers in an order that never goes back by the window or more: all pass. Then none of them does.
static void check_reordering(uint32_t window, uint64_t top, bool esn, uint64_t *seed)
{
	uint32_t blocks = window < 1024 ? 20 : 3;
	uint32_t *order = calloc(window, sizeof(*order));
	receiver_new(top, window, esn);
	for (uint32_t block = 0; block < blocks; block++) {
		for (uint32_t i = 0; i < window; i++)
			order[i] = i;
		test_shuffle(order, window, seed);
		uint64_t first = top + 1 + (uint64_t)block * window;
		for (uint32_t i = 0; i < window; i++)
			assert_int_equal(receive(first + order[i], true), DROP_NONE);
	}
	uint64_t last = top + (uint64_t)blocks * window;
	assert_true(receiver.top == last);
	// With ESN what lies before the window is taken for one of the next range.
	uint8_t before = esn ? DROP_ICV : DROP_TOO_OLD;
	for (uint64_t sequence = last; sequence > top; sequence--)
		assert_int_equal(
			receive(sequence, true), last - sequence < window ? DROP_REPLAY : before);
	assert_int_equal(esp_sa_in_counters(receiver.sa).packets, last - top);
	receiver_free();
	free(order);
}

static void test_reordering_within_the_window(void **state)
{
	(void)state;
	uint64_t seed = 8;
	for (uint32_t window = ESP_WINDOW_MIN; window <= ESP_WINDOW_MAX; window *= 2) {
		check_reordering(window, 0, false, &seed);
		check_reordering(window, UINT64_C(0x100000000) - window - 7, true, &seed);
	}
}

// A value found behind `top` stands for all numbers up to it.
static void check_restored(uint64_t top, uint32_t window, bool esn)
{
	receiver_new(top, window, esn);
	assert_true(esp_sa_in_top(receiver.sa) == top);
	uint64_t back = top < 2 * (uint64_t)window ? top : 2 * (uint64_t)window;
	for (uint64_t i = 0; i <= back; i++)
		assert_int_equal(receive(top - i, true), model_verdict(top - i, true));
	assert_true(receiver.top == top);
	if (esn || top < UINT32_MAX) {
		compare(top + 1, true);
		compare(top + 1, true);
		compare(top, true);
	}
	receiver_free();
}

static void test_restored_top(void **state)
{
	(void)state;
	static const uint64_t tops[] = {1, 2, 31, 32, 33, 63, 64, 65, 1000, 0x12345678, 0xfffffffe,
		0xffffffff, 0x100000000, 0x10000001f, 0x700000020, UINT64_C(0x8000000000000000)};
	for (uint32_t window = ESP_WINDOW_MIN; window <= ESP_WINDOW_MAX; window *= 8) {
		for (unsigned int i = 0; i < RTE_DIM(tops); i++) {
			check_restored(tops[i], window, true);
			if (tops[i] <= UINT32_MAX)
				check_restored(tops[i], window, false);
		}
	}
}

// The process ends, and another one makes the SA again from what is left: the mapping.
static void test_restart_opens_nothing(void **state)
{
	(void)state;
	enum { CAPTURED = 3000 };
	static uint64_t captured[CAPTURED];
	uint64_t seed = 12;
	receiver_new(0, 256, false);
	for (unsigned int life = 0; life < 20; life++) {
		for (unsigned int i = 0; i < CAPTURED; i++) {
			captured[i] = any_sequence(&seed);
			compare(captured[i], true);
		}
		uint64_t top = receiver.top;
		esp_sa_in_destroy(receiver.sa);
		assert_true(receiver.top == top); // what is left stays
		receiver.sa = esp_sa_in_create(&receiver.parameters);
		assert_non_null(receiver.sa);
		for (unsigned int i = 0; i < CAPTURED; i++)
			assert_int_not_equal(receive(captured[i], true), DROP_NONE);
		assert_true(receiver.top == top);
		model_reset(top, 256, false);
	}
	receiver_free();
}

// A top in the SA itself.
static void test_no_mapping(void **state)
{
	(void)state;
	receiver_new(0, 64, false);
	struct esp_sa_in *mapped = receiver.sa;
	receiver.parameters.top = NULL;
	receiver.sa = esp_sa_in_create(&receiver.parameters);
	assert_non_null(receiver.sa);
	assert_int_equal(esp_sa_in_top(receiver.sa), 0);
	assert_int_equal(receive(77, true), DROP_NONE);
	assert_int_equal(receive(77, true), DROP_REPLAY);
	assert_int_equal(receive(13, true), DROP_TOO_OLD);
	assert_int_equal(receive(14, true), DROP_NONE);
	assert_int_equal(esp_sa_in_top(receiver.sa), 77);
	assert_int_equal(receiver.top, 0);
	esp_sa_in_destroy(mapped);
	receiver_free();
}

int main(void)
{
	context = test_esp_start(ESP_CRYPTO_AUTO);
	if (context == NULL)
		return 1;
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_random_walks_without_esn),
		cmocka_unit_test(test_random_walks_with_esn),
		cmocka_unit_test(test_esn_far_jumps),
		cmocka_unit_test(test_esn_appendix_a),
		cmocka_unit_test(test_numbers_before_the_first),
		cmocka_unit_test(test_end_of_esn),
		cmocka_unit_test(test_random_bursts),
		cmocka_unit_test(test_reordering_within_the_window),
		cmocka_unit_test(test_restored_top),
		cmocka_unit_test(test_restart_opens_nothing),
		cmocka_unit_test(test_no_mapping),
	};
	int failed = cmocka_run_group_tests(tests, NULL, NULL);
	esp_context_destroy(context);
	return failed;
}
