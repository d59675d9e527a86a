// SPDX-License-Identifier: BSD-3-Clause
// Copyright (c) 2026 the espgw authors

// The floor: AES-256-GCM and nothing else, by ipsec-mb's direct call and by the gateway's burst
// call, in the best case that they can meet. Nonces, AADs and tags lie ready in arrays that stay in
// the L1 cache, payloads are aligned to cache lines. Decryption computes the tag and does not
// compare it.

#include <stdlib.h>
#include <string.h>

#include "bench.h"

static int create_keys(struct bench_raw *raw, unsigned int sas)
{
	raw->sas = sas;
	raw->keys = aligned_alloc(RTE_CACHE_LINE_SIZE, sas * sizeof(*raw->keys));
	if (raw->keys == NULL)
		return -1;
	memset(raw->keys, 0, sas * sizeof(*raw->keys));
	for (unsigned int i = 0; i < sas; i++) {
		uint8_t key[ESP_KEY_SIZE];
		bench_sa_key(false, i, key);
		gcm_key_expand(raw->manager, &raw->keys[i], key);
	}
	return 0;
}

void bench_init_manager(IMB_MGR *manager, const struct bench_options *options)
{
	if (options->avx2)
		init_mb_mgr_avx2(manager);
	else
		init_mb_mgr_auto(manager, NULL);
}

// The burst cipher of a CPU without AVX-512.
static int choose_avx2(struct bench_raw *raw, struct bench_error *error)
{
	raw->gcm = (struct gcm){.manager = raw->manager};
	for (unsigned int i = 0; i < GCM_VARIANTS; i++)
		if (gcm_variants[i].encrypt == gcm_avx2_encrypt && gcm_variants[i].supported())
			raw->gcm.variant = &gcm_variants[i];
	gcm_measure(&raw->gcm);
	return raw->gcm.variant != NULL
		       ? 0
		       : bench_fail(error, "--avx2: this CPU lacks VAES, VPCLMULQDQ or AVX2");
}

int bench_raw_create(struct bench_raw *raw, const struct bench_options *options,
	unsigned int frames, struct bench_error *error)
{
	*raw = (struct bench_raw){0};
	raw->manager = alloc_mb_mgr(0);
	raw->jobs = calloc(frames, sizeof(*raw->jobs));
	if (raw->manager == NULL || raw->jobs == NULL)
		return bench_fail(error, "no memory for the raw cipher");
	bench_init_manager(raw->manager, options);
	if (!options->avx2)
		gcm_choose(&raw->gcm, raw->manager, ESP_CRYPTO_AUTO);
	else if (choose_avx2(raw, error) != 0)
		return -1;
	if (create_keys(raw, options->sas) != 0)
		return bench_fail(error, "no memory for %u keys", options->sas);
	for (unsigned int i = 0; i < BENCH_BURST_MAX; i++) {
		memcpy(raw->nonces[i], &i, sizeof(i));
		memcpy(raw->aads[i], &i, sizeof(i));
	}
	return 0;
}

void bench_raw_destroy(struct bench_raw *raw)
{
	if (raw->manager != NULL)
		free_mb_mgr(raw->manager);
	free(raw->keys);
	free(raw->jobs);
}

void bench_raw_make(struct bench_raw *raw, enum bench_size size, const struct bench_frames *frames)
{
	for (unsigned int i = 0; i < frames->count; i++) {
		unsigned int slot = i % BENCH_BURST_MAX;
		struct gcm_job *job = &raw->jobs[i];
		*job = (struct gcm_job){
			.key = &raw->keys[frames->sas[i]],
			.data = RTE_PTR_ALIGN(rte_pktmbuf_mtod(frames->packets[i], uint8_t *),
				RTE_CACHE_LINE_SIZE),
			// The ESP payload with padding, pad length and next header (RFC 4303 2.4).
			.length = RTE_ALIGN_CEIL(bench_inner_size(size, i) + 2, 4),
			.aad_length = ESP_HEADER_SIZE,
			.tag = raw->tags[slot],
		};
		memcpy(job->nonce, raw->nonces[slot], sizeof(job->nonce));
		memcpy(job->aad, raw->aads[slot], sizeof(job->aad));
		memset(job->data, (int)(i & 0xff), job->length);
	}
}

// One loop per direction: `pass` is a constant where this is inlined.
static inline __attribute__((always_inline)) void run(
	const struct bench_raw *raw, aes_gcm_enc_dec_t pass, unsigned int begin, unsigned int count)
{
	struct gcm_context_data context __rte_cache_aligned;
	for (unsigned int i = begin; i < begin + count; i++) {
		const struct gcm_job *job = &raw->jobs[i];
		pass(&job->key->schedule, &context, job->data, job->data, job->length,
			raw->nonces[i % BENCH_BURST_MAX], raw->aads[i % BENCH_BURST_MAX],
			ESP_HEADER_SIZE, job->tag, ESP_ICV_SIZE);
	}
}

static void run_bursts(const struct bench_raw *raw, enum bench_path path,
	const struct gcm_job *jobs, unsigned int count)
{
	for (unsigned int i = 0; i < count; i += GCM_BURST_MAX) {
		unsigned int call = RTE_MIN(count - i, (unsigned int)GCM_BURST_MAX);
		if (path == BENCH_ENCAP)
			gcm_encrypt_burst(&raw->gcm, jobs + i, call);
		else
			gcm_decrypt_burst(&raw->gcm, jobs + i, call);
	}
}

void bench_raw_pass(struct bench_raw *raw, enum bench_cipher cipher, enum bench_path path,
	unsigned int begin, unsigned int count)
{
	if (cipher == BENCH_CIPHER_BURST)
		run_bursts(raw, path, raw->jobs + begin, count);
	else if (path == BENCH_ENCAP)
		run(raw, raw->manager->gcm256_enc, begin, count);
	else
		run(raw, raw->manager->gcm256_dec, begin, count);
}
