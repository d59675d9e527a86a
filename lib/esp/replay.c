// SPDX-License-Identifier: BSD-3-Clause
// Copyright (c) 2026 the espgw authors

#include "replay.h"

#include <rte_branch_prediction.h>
#include <rte_common.h>
#include <rte_malloc.h>

// Everything up to the top counts as received: fills the ring with the blocks that end there.
static void fill_ring(struct replay_window *window, uint64_t top)
{
	uint64_t last = top >> REPLAY_BLOCK_SHIFT;
	uint64_t words = (uint64_t)window->mask + 1;
	uint64_t first = last >= words ? last - words + 1 : 0;
	for (uint64_t block = first; block <= last; block++) {
		uint32_t bits = UINT32_MAX;
		if (block == last)
			bits >>= REPLAY_BLOCK_BITS - 1 - top % REPLAY_BLOCK_BITS;
		atomic_init(&window->words[block & window->mask], block << 32 | bits);
	}
}

bool replay_create(struct replay_window *window, uint32_t size, bool esn, uint64_t *top)
{
	window->size = size;
	window->esn = esn;
	atomic_init(&window->own_top, 0);
	window->top = top != NULL ? (_Atomic uint64_t *)top : &window->own_top;
	if (size == 0)
		return true;
	uint32_t words = rte_align32pow2(size / REPLAY_BLOCK_BITS + 1);
	window->mask = words - 1;
	window->words = rte_zmalloc("replay", words * sizeof(*window->words), RTE_CACHE_LINE_SIZE);
	if (window->words == NULL)
		return false;
	fill_ring(window, atomic_load_explicit(window->top, memory_order_relaxed));
	return true;
}

void replay_destroy(struct replay_window *window)
{
	rte_free((void *)(uintptr_t)window->words);
	window->words = NULL;
}

enum { MARK_TOO_OLD = -1 };

// Sets bits of one block. Which of them had been set before, or MARK_TOO_OLD.
static int64_t mark_block(struct replay_window *window, uint64_t block, uint32_t bits)
{
	_Atomic uint64_t *slot = &window->words[block & window->mask];
	uint64_t word = atomic_load_explicit(slot, memory_order_relaxed);
	uint64_t before, marked;
	do {
		if (replay_word_is_newer(word, block))
			return MARK_TOO_OLD;
		before = replay_word_is(word, block) ? (uint32_t)word : 0;
		marked = block << 32 | before | bits;
	} while (!atomic_compare_exchange_weak_explicit(
		slot, &word, marked, memory_order_acq_rel, memory_order_relaxed));
	return (int64_t)(before & bits);
}

static void advance_top(struct replay_window *window, uint64_t sequence)
{
	uint64_t top = atomic_load_explicit(window->top, memory_order_relaxed);
	while (sequence > top && !atomic_compare_exchange_weak_explicit(window->top, &top, sequence,
					 memory_order_release, memory_order_relaxed))
		;
}

// A run of packets whose numbers lie in one block, so that one swap takes them all.
struct run {
	uint64_t block;
	uint32_t bits;
	unsigned int begin, end; // packets [begin, end)
};

// Starts at packet `begin`; stops before the first number of another block, and before one that the
// run holds already, so that each bit stands for one packet.
static struct run find_run(
	const uint64_t *sequences, const uint8_t *drops, unsigned int begin, unsigned int count)
{
	struct run run = {.block = sequences[begin] >> REPLAY_BLOCK_SHIFT, .begin = begin};
	unsigned int i;
	for (i = begin; i < count; i++) {
		if (drops[i] != DROP_NONE)
			continue;
		uint32_t bit = UINT32_C(1) << sequences[i] % REPLAY_BLOCK_BITS;
		if (sequences[i] >> REPLAY_BLOCK_SHIFT != run.block || (run.bits & bit) != 0)
			break;
		run.bits |= bit;
	}
	run.end = i;
	return run;
}

static void refuse_seen(
	const struct run *run, int64_t seen, const uint64_t *sequences, uint8_t *drops)
{
	for (unsigned int i = run->begin; i < run->end; i++) {
		if (drops[i] != DROP_NONE)
			continue;
		if (seen == MARK_TOO_OLD)
			drops[i] = DROP_TOO_OLD;
		else if (seen >> sequences[i] % REPLAY_BLOCK_BITS & 1)
			drops[i] = DROP_REPLAY;
	}
}

// Whether all packets are good and number on one after the other, as they do when nothing came
// between them on their way.
static inline bool is_in_order(const uint64_t *sequences, const uint8_t *drops, unsigned int count)
{
	uint64_t first = sequences[0], differences = 0;
	for (unsigned int i = 0; i < count; i++)
		differences |= (sequences[i] ^ (first + i)) | drops[i];
	return differences == 0;
}

// Numbers in order, none of them too old: a swap for each block that they reach into.
static void commit_in_order(
	struct replay_window *window, const uint64_t *sequences, uint8_t *drops, unsigned int count)
{
	uint64_t first = sequences[0];
	for (unsigned int begin = 0, end; begin < count; begin = end) {
		uint32_t low = (uint32_t)((first + begin) % REPLAY_BLOCK_BITS);
		uint32_t numbers = RTE_MIN(count - begin, REPLAY_BLOCK_BITS - low);
		end = begin + numbers;
		struct run run = {
			.block = (first + begin) >> REPLAY_BLOCK_SHIFT,
			.bits = (uint32_t)((UINT64_C(1) << numbers) - 1) << low,
			.begin = begin,
			.end = end,
		};
		int64_t seen = mark_block(window, run.block, run.bits);
		if (unlikely(seen != 0))
			refuse_seen(&run, seen, sequences, drops);
	}
}

// Any numbers. Returns the highest that is not too old.
static uint64_t commit_any(struct replay_window *window, uint64_t top, const uint64_t *sequences,
	uint8_t *drops, unsigned int count)
{
	uint64_t highest = 0;
	for (unsigned int i = 0; i < count; i++) {
		if (drops[i] != DROP_NONE)
			continue;
		// The window may have moved on since the check.
		if (window->size != 0 && sequences[i] < top && top - sequences[i] >= window->size)
			drops[i] = DROP_TOO_OLD;
		else if (sequences[i] > highest)
			highest = sequences[i];
	}
	for (unsigned int i = 0; window->size != 0 && i < count;) {
		if (drops[i] != DROP_NONE) {
			i++;
			continue;
		}
		struct run run = find_run(sequences, drops, i, count);
		int64_t seen = mark_block(window, run.block, run.bits);
		if (unlikely(seen != 0))
			refuse_seen(&run, seen, sequences, drops);
		i = run.end;
	}
	return highest;
}

uint64_t replay_commit(
	struct replay_window *window, const uint64_t *sequences, uint8_t *drops, unsigned int count)
{
	uint64_t top = replay_top(window), highest;
	if (likely(drops[0] == DROP_NONE && sequences[0] > top && window->size != 0) &&
		is_in_order(sequences, drops, count)) {
		highest = sequences[count - 1];
		commit_in_order(window, sequences, drops, count);
	} else {
		highest = commit_any(window, top, sequences, drops, count);
	}
	if (highest > top)
		advance_top(window, highest);
	return top;
}
