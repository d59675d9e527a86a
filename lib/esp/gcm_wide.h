// SPDX-License-Identifier: BSD-3-Clause
// Copyright (c) 2026 the espgw authors

// What the ciphers for wide registers share (private to gcm_avx2.c, gcm_avx512.c and
// gcm_avx512_alone.c).

#pragma once

#include <immintrin.h>

#include "gcm.h"

// Always: a call would pass keys on the stack.
#define INLINE static inline __attribute__((always_inline))

enum { ROUNDS = 14 };

INLINE __m128i load16(const void *address)
{
	return _mm_loadu_si128(address);
}

INLINE uint64_t block_count(uint64_t length)
{
	return (length + GCM_BLOCK_SIZE - 1) / GCM_BLOCK_SIZE;
}

INLINE const uint8_t *power(const struct gcm_job *job, uint64_t exponent)
{
	return job->key->powers[GCM_POWERS - exponent];
}
