// SPDX-License-Identifier: BSD-3-Clause
// Copyright (c) 2026 the espgw authors

// A growing text that may hold keys: memory is wiped before it is given back, also when it grows.
// A failure to allocate is remembered, so that only the end of a text needs a check.

#ifndef ESPGW_CLIENT_TEXT_H
#define ESPGW_CLIENT_TEXT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct espgw_text {
	char *bytes; // not terminated
	size_t length, capacity;
	bool failed; // no memory; further additions are ignored
};

// Room for `more` bytes behind `length`; false without memory.
bool espgw_text_reserve(struct espgw_text *text, size_t more);
void espgw_text_add(struct espgw_text *text, const char *bytes, size_t length);
void espgw_text_add_format(struct espgw_text *text, const char *format, ...)
	__attribute__((format(printf, 2, 3)));
// As a JSON string, quoted and escaped (RFC 8259, section 7).
void espgw_text_add_string(struct espgw_text *text, const char *string);
// As a JSON string of hex digits.
void espgw_text_add_hex(struct espgw_text *text, const uint8_t *bytes, size_t length);
// Wipes and frees; the text is empty and usable again.
void espgw_text_wipe(struct espgw_text *text);

#endif
