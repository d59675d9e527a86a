// SPDX-License-Identifier: BSD-3-Clause
// Copyright (c) 2026 the espgw authors

// Key files: text of two lines, in any order, with blank lines and `#` comments between them:
//
//   key = 64 hex digits (32 bytes, AES-256)
//   salt = 8 hex digits (4 bytes)
//
// Keys never come from the command line, where every user of the machine can read them.

#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "client/client.h"

// Reads a key file, or stdin when `path` is "-". Refuses a file that group or others can read.
// On false `why` holds a sentence, which never repeats the file's content, and both are wiped.
bool keys_read(const char *path, uint8_t key[ESPGW_KEY_BYTES], uint8_t salt[ESPGW_SALT_BYTES],
	char *why, size_t why_size);

// Parses the text of a key file; as above.
bool keys_parse(const char *text, size_t length, uint8_t key[ESPGW_KEY_BYTES],
	uint8_t salt[ESPGW_SALT_BYTES], char *why, size_t why_size);

// Writes a fresh random key to a new file of mode 0600. Never overwrites.
bool keys_generate(const char *path, char *why, size_t why_size);
