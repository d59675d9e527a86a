// SPDX-License-Identifier: BSD-3-Clause
// Copyright (c) 2026 the espgw authors

// What the ciphers for AVX-512 share (private to gcm_avx512.c and gcm_avx512_alone.c).

#pragma once

#include <immintrin.h>

#include "gcm_wide.h"

enum { ROW_BYTES = 4 * GCM_BLOCK_SIZE };

INLINE __m512i xor3(__m512i a, __m512i b, __m512i c)
{
	return _mm512_ternarylogic_epi64(a, b, c, 0x96);
}

// Reverses the bytes of each block: GHASH is big-endian.
INLINE __m512i byte_order(void)
{
	return _mm512_broadcast_i32x4(
		_mm_set_epi8(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15));
}

// ---- counter mode ----

INLINE __m512i round_key(const uint8_t *keys, unsigned int round)
{
	return _mm512_broadcast_i32x4(load16(keys + GCM_BLOCK_SIZE * round));
}

INLINE __m512i cipher_round(__m512i state, __m512i key, unsigned int round)
{
	if (round == 0)
		return _mm512_xor_si512(state, key);
	return round < ROUNDS ? _mm512_aesenc_epi128(state, key)
			      : _mm512_aesenclast_epi128(state, key);
}

INLINE __mmask64 first_bytes(uint64_t length, uint64_t offset, uint64_t most)
{
	uint64_t left = length > offset ? length - offset : 0;
	return _bzhi_u64(~UINT64_C(0), (unsigned int)(left < most ? left : most));
}

// ---- GHASH ----

// Products of blocks before their reduction, added up.
struct sum {
	__m512i low, middle, high;
};

INLINE void add_product(struct sum *sum, __m512i blocks, __m512i powers)
{
	sum->low = _mm512_xor_si512(sum->low, _mm512_clmulepi64_epi128(blocks, powers, 0x00));
	sum->middle = xor3(sum->middle, _mm512_clmulepi64_epi128(blocks, powers, 0x01),
		_mm512_clmulepi64_epi128(blocks, powers, 0x10));
	sum->high = _mm512_xor_si512(sum->high, _mm512_clmulepi64_epi128(blocks, powers, 0x11));
}

// Modulo x^128 + x^7 + x^2 + x + 1, reflected: twice the low 64 bits are folded upwards.
INLINE __m512i reduce(const struct sum *sum)
{
	const __m512i polynomial = _mm512_set1_epi64((long long)0xc200000000000000);
	__m512i middle = xor3(sum->middle, _mm512_shuffle_epi32(sum->low, 0x4e),
		_mm512_clmulepi64_epi128(polynomial, sum->low, 0x00));
	return xor3(sum->high, _mm512_shuffle_epi32(middle, 0x4e),
		_mm512_clmulepi64_epi128(polynomial, middle, 0x00));
}
