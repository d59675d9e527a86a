// SPDX-License-Identifier: BSD-3-Clause
// Copyright (c) 2026 the espgw authors

// AES-256-GCM over bursts (private to lib/esp, and to its tests and benchmark).

#pragma once

#include <stdint.h>

#include <intel-ipsec-mb.h>

#define GCM_NONCE_SIZE 12
#define GCM_TAG_SIZE   16

// One message, in place. The nonce and the AAD must have been written well before the call: a read
// that follows a narrower write at once stalls.
struct gcm_job {
	const struct gcm_key_data *key;
	const uint8_t *nonce; // GCM_NONCE_SIZE bytes
	const uint8_t *aad;
	uint64_t aad_length;
	uint8_t *data;
	uint64_t length; // of data, without the tag
	uint8_t *tag;    // GCM_TAG_SIZE bytes, written by both directions
};

static inline void gcm_encrypt_burst(
	const IMB_MGR *manager, const struct gcm_job *jobs, unsigned int count)
{
	struct gcm_context_data context;
	for (unsigned int i = 0; i < count; i++) {
		const struct gcm_job *job = &jobs[i];
		manager->gcm256_enc(job->key, &context, job->data, job->data, job->length,
			job->nonce, job->aad, job->aad_length, job->tag, GCM_TAG_SIZE);
	}
}

// Decrypts and writes the tag that the message should have; comparing is the caller's, who must not
// use the data when it differs.
static inline void gcm_decrypt_burst(
	const IMB_MGR *manager, const struct gcm_job *jobs, unsigned int count)
{
	struct gcm_context_data context;
	for (unsigned int i = 0; i < count; i++) {
		const struct gcm_job *job = &jobs[i];
		manager->gcm256_dec(job->key, &context, job->data, job->data, job->length,
			job->nonce, job->aad, job->aad_length, job->tag, GCM_TAG_SIZE);
	}
}
