// SPDX-License-Identifier: BSD-3-Clause
// Copyright (c) 2026 the espgw authors

// Which keys this machine has ever been given, and in which direction, across restarts: a key that
// encrypted must never encrypt again, since its nonces would repeat (RFC 4106 section 3.1, 10).
// Fingerprints only, HMAC-SHA256 under a secret of the machine.
//
// DIRECTORY/secret: 32 random bytes. DIRECTORY/keys: a header and one record per key and direction,
// appended. A record that a crash left half written at the end is removed: its sa.add was never
// answered. Anything else that is not as it was written makes the store unavailable.
// The directory is locked as long as the store is open.

#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "control/control.h"

struct IMB_MGR;

#define KEYSTORE_HASH_SIZE 32

#define KEYSTORE_IN  1u
#define KEYSTORE_OUT 2u

struct keystore;

// Makes what is missing. NULL with *error set when the directory is another's or memory is short.
// When the store can't be used for another reason it is opened all the same and
// keystore_fault tells why.
struct keystore *keystore_open(const char *directory, struct control_error *error);
void keystore_close(struct keystore *store);
// Why no key can be recorded, naming the file; NULL when all is well.
const char *keystore_fault(const struct keystore *store);

void keystore_fingerprint(const struct keystore *store, const uint8_t key[ESP_KEY_SIZE],
	uint8_t fingerprint[KEYSTORE_HASH_SIZE]);
// Tells two SAs' key material apart, salt included; for comparison within one run.
void keystore_identity(const struct keystore *store, const uint8_t key[ESP_KEY_SIZE],
	const uint8_t salt[ESP_SALT_SIZE], uint8_t identity[KEYSTORE_HASH_SIZE]);
// KEYSTORE_IN and KEYSTORE_OUT, as far as the key was used so.
unsigned int keystore_seen(
	const struct keystore *store, const uint8_t fingerprint[KEYSTORE_HASH_SIZE]);
// Records a key; it is on the disk on return. Nothing to do when it was recorded so before.
// 0 or -1 with *error set, and then nothing is recorded.
int keystore_add(struct keystore *store, const uint8_t fingerprint[KEYSTORE_HASH_SIZE],
	unsigned int direction, struct control_error *error);
uint64_t keystore_count(const struct keystore *store); // records

// HMAC-SHA256 (RFC 2104) with a secret of 32 bytes, for messages of at most KEYSTORE_MESSAGE_MAX
// bytes.
#define KEYSTORE_MESSAGE_MAX 128
#define KEYSTORE_SECRET_SIZE 32
void keystore_hmac(struct IMB_MGR *manager, const uint8_t secret[KEYSTORE_SECRET_SIZE],
	const void *message, size_t size, uint8_t result[KEYSTORE_HASH_SIZE]);
