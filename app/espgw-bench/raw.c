// SPDX-License-Identifier: BSD-3-Clause
// Copyright (c) 2026 the espgw authors

// The floor: ipsec-mb's direct AES-256-GCM call and nothing else, in the best case that it can
// meet. Nonces, AADs and tags lie ready in arrays that stay in the L1 cache, payloads are aligned
// to cache lines, the key schedule is warm. Decryption computes the tag and does not compare it.

#include <string.h>

#include "bench.h"

int bench_raw_create(struct bench_raw *raw, struct bench_error *error)
{
	static const uint8_t key[ESP_KEY_SIZE] = {3};
	*raw = (struct bench_raw){0};
	raw->manager = alloc_mb_mgr(0);
	if (raw->manager == NULL)
		return bench_fail(error, "no memory for ipsec-mb");
	init_mb_mgr_auto(raw->manager, NULL);
	IMB_AES256_GCM_PRE(raw->manager, key, &raw->key);
	for (unsigned int i = 0; i < BENCH_BURST_MAX; i++) {
		memcpy(raw->nonces[i], &i, sizeof(i));
		memcpy(raw->aads[i], &i, sizeof(i));
	}
	return 0;
}

void bench_raw_destroy(struct bench_raw *raw)
{
	free_mb_mgr(raw->manager);
}

// Buffers like the gateway's, so that caches and TLB see the same spread.
void bench_raw_use(struct bench_raw *raw, struct rte_mbuf *const *buffers)
{
	for (unsigned int i = 0; i < BENCH_FRAMES; i++)
		raw->payloads[i] =
			RTE_PTR_ALIGN(rte_pktmbuf_mtod(buffers[i], uint8_t *), RTE_CACHE_LINE_SIZE);
}

void bench_raw_make(struct bench_raw *raw, enum bench_size size)
{
	for (unsigned int i = 0; i < BENCH_FRAMES; i++) {
		// The ESP payload with padding, pad length and next header (RFC 4303 2.4).
		raw->lengths[i] = RTE_ALIGN_CEIL(bench_inner_size(size, i) + 2, 4);
		memset(raw->payloads[i], (int)(i & 0xff), raw->lengths[i]);
	}
}

// One loop per direction: `pass` is a constant where this is inlined.
static inline __attribute__((always_inline)) void run(
	struct bench_raw *raw, aes_gcm_enc_dec_t pass, unsigned int burst)
{
	struct gcm_context_data context;
	for (unsigned int begin = 0; begin < BENCH_FRAMES; begin += burst)
		for (unsigned int i = 0; i < burst; i++)
			pass(&raw->key, &context, raw->payloads[begin + i],
				raw->payloads[begin + i], raw->lengths[begin + i], raw->nonces[i],
				raw->aads[i], ESP_HEADER_SIZE, raw->tags[i], ESP_ICV_SIZE);
}

void bench_raw_pass(struct bench_raw *raw, enum bench_path path, unsigned int burst)
{
	if (path == BENCH_ENCAP)
		run(raw, raw->manager->gcm256_enc, burst);
	else
		run(raw, raw->manager->gcm256_dec, burst);
}
