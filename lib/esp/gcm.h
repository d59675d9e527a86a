// SPDX-License-Identifier: BSD-3-Clause
// Copyright (c) 2026 the espgw authors

// AES-256-GCM over bursts (private to lib/esp, and to its tests and benchmark).
//
// intel-ipsec-mb enciphers one message a call, and a short one spends most of that on latency and
// set-up. On CPUs with wide AES, short messages of a burst are therefore enciphered several at a
// time (gcm_avx512.c: four, gcm_avx2.c: two). Long messages, and short ones that nothing goes
// together with, are enciphered one after the other: by gcm_avx512_alone.c where that is faster
// than ipsec-mb, else by ipsec-mb, which also does all of them elsewhere. All give the same bytes.

#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <intel-ipsec-mb.h>

#include "esp/esp.h"

#define GCM_KEY_SIZE   32
#define GCM_NONCE_SIZE 12
#define GCM_TAG_SIZE   16
#define GCM_SLOT_SIZE  16 // bytes that are read at a nonce and at an AAD
#define GCM_BURST_MAX  ESP_BURST_MAX
#define GCM_BLOCK_SIZE 16
// The longest message that any variant enciphers with others, in blocks: Ethernet's. Its counters
// fit a byte.
#define GCM_SHORT_BLOCKS 96
// The longest that has a power for every block, and powers for its AAD and the lengths. Those of
// five blocks, which packets of 64 bytes have, begin where a cache line does.
#define GCM_OWN_POWER_BLOCKS 40
#define GCM_POWERS           (GCM_OWN_POWER_BLOCKS + 2)
#define GCM_MIX_BLOCKS       4 // how many blocks messages that go together may differ by
#define GCM_TOGETHER_MAX     4
#define GCM_VARIANTS         2

// An expanded key. `powers` are those of the hash key, highest first, each times x^-1 as the
// reflected product wants it; what follows the first power may be read, and is zero.
struct gcm_key {
	struct gcm_key_data schedule; // ipsec-mb's
	uint8_t powers[GCM_POWERS + 2 * GCM_MIX_BLOCKS][GCM_BLOCK_SIZE]
		__attribute__((aligned(64)));
};

// One message, in place. Nonce and AAD must be written in one piece each, or well before the call:
// a read that follows a narrower write at once stalls.
struct gcm_job {
	uint8_t nonce[GCM_SLOT_SIZE]
		__attribute__((aligned(GCM_SLOT_SIZE))); // GCM_NONCE_SIZE bytes
	uint8_t aad[GCM_SLOT_SIZE];
	const struct gcm_key *key;
	uint8_t *data;       // a block more may be read, and written as it is, before the tag
	uint64_t length;     // of data, without the tag
	uint64_t aad_length; // at most 16; right behind `length`, they are read as one
	uint8_t *tag;        // GCM_TAG_SIZE bytes, written by both directions
};

// Messages of at most `blocks` blocks, and of at most GCM_MIX_BLOCKS less.
typedef void (*gcm_together)(const struct gcm_job *const *jobs, unsigned int blocks);

// One or more messages of any length, one after the other.
typedef void (*gcm_alone)(const struct gcm_job *const *jobs, unsigned int count);

// A cipher of several short messages at once, and maybe one of single messages.
struct gcm_variant {
	const char *name; // of the vector instructions
	bool (*supported)(void);
	unsigned int together; // how many, at most GCM_TOGETHER_MAX
	unsigned int longest;  // blocks; what is longer goes alone
	gcm_together encrypt, decrypt;
	gcm_alone encrypt_alone, decrypt_alone; // NULL: there are none
	void (*wipe)(void); // registers and stack, after the last call of a burst
};

// Best first.
extern const struct gcm_variant gcm_variants[GCM_VARIANTS];

// How bursts are enciphered; chosen once, then read by all workers.
struct gcm {
	const IMB_MGR *manager;
	const struct gcm_variant *variant; // NULL: ipsec-mb for all
	bool alone; // single messages are the variant's, which has functions for them; else
		    // ipsec-mb's
	// Blocks, at most the variant's `longest`: longer messages go alone.
	unsigned int longest_encrypted, longest_decrypted;
};

// What this CPU and `crypto` call for. `manager` is borrowed for the life of *gcm. False: the CPU
// lacks what ESP_CRYPTO_BURST needs. The first call that chooses a variant measures, see
// gcm_measure. Control thread.
bool gcm_choose(struct gcm *gcm, const IMB_MGR *manager, enum esp_crypto crypto);
// Chooses the ways of messages for gcm->variant, if there is one, by what is faster here: whose the
// single messages are, the variant's or ipsec-mb's, and from which length on messages go alone.
// Takes about a millisecond.
void gcm_measure(struct gcm *gcm);
// Compares *gcm with ipsec-mb, both directions, over lengths, keys and mixtures of them; takes
// milliseconds. False: they differ, or memory is short.
bool gcm_self_test(const struct gcm *gcm);

// Control thread.
void gcm_key_expand(const IMB_MGR *manager, struct gcm_key *key, const uint8_t bytes[GCM_KEY_SIZE]);

// Worker. count <= GCM_BURST_MAX.
void gcm_encrypt_burst(const struct gcm *gcm, const struct gcm_job *jobs, unsigned int count);
// Decrypts and writes the tag that the message should have; comparing is the caller's, who must not
// use the data when it differs.
void gcm_decrypt_burst(const struct gcm *gcm, const struct gcm_job *jobs, unsigned int count);

// Only to be called on a CPU that has what their names say, besides VAES, VPCLMULQDQ and BMI2.
void gcm_avx512_encrypt(const struct gcm_job *const *jobs, unsigned int blocks);
void gcm_avx512_decrypt(const struct gcm_job *const *jobs, unsigned int blocks);
void gcm_avx512_encrypt_alone(const struct gcm_job *const *jobs, unsigned int count);
void gcm_avx512_decrypt_alone(const struct gcm_job *const *jobs, unsigned int count);
void gcm_avx512_wipe(void); // after any of the four
void gcm_avx2_encrypt(const struct gcm_job *const *jobs, unsigned int blocks);
void gcm_avx2_decrypt(const struct gcm_job *const *jobs, unsigned int blocks);
void gcm_avx2_wipe(void);
