// SPDX-License-Identifier: BSD-3-Clause
// Copyright (c) 2026 the espgw authors

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "text.h"

#define SMALLEST_CAPACITY 1024

bool espgw_text_reserve(struct espgw_text *text, size_t more)
{
	if (text->failed)
		return false;
	if (more <= text->capacity - text->length)
		return true;
	size_t capacity = text->capacity == 0 ? SMALLEST_CAPACITY : text->capacity;
	while (capacity - text->length < more) {
		if (capacity > SIZE_MAX / 2) {
			text->failed = true;
			return false;
		}
		capacity *= 2;
	}
	// Not realloc: it would leave the old copy behind unwiped.
	char *bytes = malloc(capacity);
	if (bytes == NULL) {
		text->failed = true;
		return false;
	}
	if (text->bytes != NULL) {
		memcpy(bytes, text->bytes, text->length);
		explicit_bzero(text->bytes, text->capacity);
		free(text->bytes);
	}
	text->bytes = bytes;
	text->capacity = capacity;
	return true;
}

void espgw_text_add(struct espgw_text *text, const char *bytes, size_t length)
{
	if (!espgw_text_reserve(text, length))
		return;
	memcpy(text->bytes + text->length, bytes, length);
	text->length += length;
}

void espgw_text_add_format(struct espgw_text *text, const char *format, ...)
{
	char line[128];
	va_list arguments;
	va_start(arguments, format);
	int length = vsnprintf(line, sizeof(line), format, arguments);
	va_end(arguments);
	if (length < 0 || (size_t)length >= sizeof(line))
		text->failed = true;
	else
		espgw_text_add(text, line, length);
}

void espgw_text_add_string(struct espgw_text *text, const char *string)
{
	espgw_text_add(text, "\"", 1);
	for (const char *c = string; *c != '\0'; c++) {
		if (*c == '"' || *c == '\\') {
			espgw_text_add(text, "\\", 1);
			espgw_text_add(text, c, 1);
		} else if ((unsigned char)*c < 0x20) {
			espgw_text_add_format(text, "\\u%04x", (unsigned char)*c);
		} else {
			espgw_text_add(text, c, 1);
		}
	}
	espgw_text_add(text, "\"", 1);
}

void espgw_text_add_hex(struct espgw_text *text, const uint8_t *bytes, size_t length)
{
	static const char digits[] = "0123456789abcdef";
	espgw_text_add(text, "\"", 1);
	for (size_t i = 0; i < length; i++) {
		// Straight into the text, so that no copy of a key is left on the stack.
		espgw_text_add(text, &digits[bytes[i] >> 4], 1);
		espgw_text_add(text, &digits[bytes[i] & 15], 1);
	}
	espgw_text_add(text, "\"", 1);
}

void espgw_text_wipe(struct espgw_text *text)
{
	if (text->bytes != NULL) {
		explicit_bzero(text->bytes, text->capacity);
		free(text->bytes);
	}
	*text = (struct espgw_text){0};
}
