// SPDX-License-Identifier: BSD-3-Clause
// Copyright (c) 2026 the espgw authors

// The replay window of an inbound SA (RFC 4303 section 3.4.3, RFC 6479), safe for several workers
// at once without a lock, and the inference of the ESN high half (RFC 4303 Appendix A2).
//
// A ring of 64-bit words, each holding 32 bits of the window in its lower half and, in its upper
// half, the number (modulo 2^32) of the block of 32 sequence numbers that these bits stand for. A
// word changes by compare-and-swap only, and its block number only grows:
// - a number is accepted by the one swap that sets its bit, so never twice;
// - a swap that brings a newer block into a word discards an older block, which lies wholly outside
//   the window of that newer number, because the ring has at least window / 32 + 1 words. A worker
//   that is late with a number of the discarded block finds a newer block number: too old.
// So no order of events clears a bit that another worker has just set, which is the fault of a ring
// whose words are cleared before they are used again.
// Block numbers modulo 2^32 are told apart as long as two that meet in a word differ by less than
// 2^31 blocks, 2^36 packets; without ESN there are only 2^27 blocks.

#pragma once

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include <rte_branch_prediction.h>

#include "telemetry/telemetry.h"

#define REPLAY_BLOCK_BITS  32
#define REPLAY_BLOCK_SHIFT 5

struct replay_window {
	_Atomic uint64_t
		*top; // highest authenticated sequence number: own_top, or a shared mapping
	_Atomic uint64_t *words;
	uint32_t size; // usable packets; 0 = no replay protection
	uint32_t mask; // words - 1
	bool esn;
	_Atomic uint64_t own_top;
};

static inline bool replay_word_is(uint64_t word, uint64_t block)
{
	return (uint32_t)(word >> 32) == (uint32_t)block;
}

static inline bool replay_word_is_newer(uint64_t word, uint64_t block)
{
	return (int32_t)((uint32_t)(word >> 32) - (uint32_t)block) > 0;
}

// The 64-bit number whose lower half is `low`, nearest to the window that ends with `top`
// (Appendix A2.2). False when it would lie before 0.
static inline bool replay_infer_sequence(
	uint64_t top, uint32_t window, uint32_t low, uint64_t *sequence)
{
	uint32_t top_low = (uint32_t)top;
	uint32_t bottom = top_low - window + 1; // modulo 2^32
	uint64_t high = top >> 32;
	if (top_low >= window - 1) { // case A: the window lies in one 2^32 range
		if (low < bottom)
			high++;
	} else if (low >= bottom) { // case B: it reaches into the range before
		if (high == 0)
			return false;
		high--;
	}
	*sequence = high << 32 | low;
	return true;
}

// The highest number that has been taken, for replay_check; one look will do for many packets.
static inline uint64_t replay_top(const struct replay_window *window)
{
	return atomic_load_explicit(window->top, memory_order_relaxed);
}

// Worker, before decryption: may this number be new? DROP_NONE and the whole number, DROP_REPLAY or
// DROP_TOO_OLD. Changes nothing. `low`: host order. `esn`: the window's, which is a constant where
// this is inlined.
static inline __attribute__((always_inline)) enum drop_reason replay_check(
	const struct replay_window *window, bool esn, uint64_t top, uint32_t low,
	uint64_t *sequence)
{
	*sequence = low;
	if (esn && !replay_infer_sequence(top, window->size, low, sequence))
		return DROP_TOO_OLD;
	if (likely(*sequence > top))
		return DROP_NONE;
	if (*sequence == 0)
		return DROP_TOO_OLD; // the first number is 1
	if (window->size == 0)
		return DROP_NONE;
	if (top - *sequence >= window->size)
		return DROP_TOO_OLD;
	uint64_t block = *sequence >> REPLAY_BLOCK_SHIFT;
	uint64_t word =
		atomic_load_explicit(&window->words[block & window->mask], memory_order_relaxed);
	if (replay_word_is(word, block))
		return word >> (*sequence % REPLAY_BLOCK_BITS) & 1 ? DROP_REPLAY : DROP_NONE;
	return replay_word_is_newer(word, block) ? DROP_TOO_OLD : DROP_NONE;
}

// Worker, after the ICV has been found right: takes the numbers of `count` packets of one SA, in
// order. drops[i] is set where number i turned out to be taken or too old meanwhile; packets whose
// drops[i] is set already are passed over. Returns the top before.
uint64_t replay_commit(struct replay_window *window, const uint64_t *sequences, uint8_t *drops,
	unsigned int count);

// Control. False when memory is short. `top`: see esp_sa_in_parameters.
bool replay_create(struct replay_window *window, uint32_t size, bool esn, uint64_t *top);
void replay_destroy(struct replay_window *window);
