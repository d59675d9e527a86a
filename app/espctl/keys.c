// SPDX-License-Identifier: BSD-3-Clause
// Copyright (c) 2026 the espgw authors

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include "keys.h"

#define FILE_BYTES_MAX 4096

static int hex_digit(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	c = (char)tolower((unsigned char)c);
	return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static bool parse_hex(const char *text, size_t length, uint8_t *bytes, size_t count)
{
	if (length != 2 * count)
		return false;
	for (size_t i = 0; i < count; i++) {
		int high = hex_digit(text[2 * i]), low = hex_digit(text[2 * i + 1]);
		if (high < 0 || low < 0)
			return false;
		bytes[i] = (uint8_t)(high << 4 | low);
	}
	return true;
}

// Cuts blanks off both ends.
static void trim(const char **text, size_t *length)
{
	while (*length > 0 && isspace((unsigned char)(*text)[0])) {
		(*text)++;
		(*length)--;
	}
	while (*length > 0 && isspace((unsigned char)(*text)[*length - 1]))
		(*length)--;
}

// What a key file is to hold.
struct field {
	const char *name;
	uint8_t *bytes;
	size_t count;
	bool found;
};

static bool parse_line(const char *line, size_t length, unsigned int number, struct field *fields,
	char *why, size_t why_size)
{
	trim(&line, &length);
	if (length == 0 || line[0] == '#')
		return true;
	const char *equals = memchr(line, '=', length);
	size_t name_length = equals == NULL ? 0 : (size_t)(equals - line);
	const char *name = line;
	trim(&name, &name_length);
	struct field *field = NULL;
	for (int i = 0; i < 2; i++)
		if (name_length == strlen(fields[i].name) &&
			memcmp(name, fields[i].name, name_length) == 0)
			field = &fields[i];
	if (field == NULL) {
		snprintf(why, why_size, "line %u is neither `key = ...` nor `salt = ...`", number);
		return false;
	}
	if (field->found) {
		snprintf(why, why_size, "line %u: a second `%s`", number, field->name);
		return false;
	}
	const char *value = equals + 1;
	size_t value_length = length - (size_t)(value - line);
	trim(&value, &value_length);
	if (!parse_hex(value, value_length, field->bytes, field->count)) {
		snprintf(why, why_size, "line %u: `%s` has to be %zu hex digits, and these are %zu",
			number, field->name, 2 * field->count, value_length);
		if (value_length == 2 * field->count)
			snprintf(why, why_size,
				"line %u: `%s` has a character that is no hex digit", number,
				field->name);
		return false;
	}
	field->found = true;
	return true;
}

bool keys_parse(const char *text, size_t length, uint8_t key[ESPGW_KEY_BYTES],
	uint8_t salt[ESPGW_SALT_BYTES], char *why, size_t why_size)
{
	struct field fields[] = {{.name = "key", .bytes = key, .count = ESPGW_KEY_BYTES},
		{.name = "salt", .bytes = salt, .count = ESPGW_SALT_BYTES}};
	bool good = true;
	const char *end = text + length;
	for (unsigned int number = 1; good && text < end; number++) {
		const char *feed = memchr(text, '\n', (size_t)(end - text));
		size_t line_length = (size_t)((feed == NULL ? end : feed) - text);
		good = parse_line(text, line_length, number, fields, why, why_size);
		text += line_length + 1;
	}
	for (int i = 0; good && i < 2; i++)
		if (!fields[i].found) {
			snprintf(why, why_size, "there is no line `%s = <%zu hex digits>`",
				fields[i].name, 2 * fields[i].count);
			good = false;
		}
	if (!good) {
		explicit_bzero(key, ESPGW_KEY_BYTES);
		explicit_bzero(salt, ESPGW_SALT_BYTES);
	}
	return good;
}

// The whole file into `text`. -1: `why` says why.
static ssize_t read_all(int fd, char *text, size_t size, char *why, size_t why_size)
{
	size_t length = 0;
	while (length < size) {
		ssize_t got = read(fd, text + length, size - length);
		if (got == 0)
			return (ssize_t)length;
		if (got > 0)
			length += (size_t)got;
		else if (errno != EINTR) {
			snprintf(why, why_size, "%s", strerror(errno));
			return -1;
		}
	}
	snprintf(why, why_size, "this is no key file: it is longer than %zu bytes", size - 1);
	return -1;
}

static int open_private(const char *path, char *why, size_t why_size)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	struct stat status;
	if (fd < 0 || fstat(fd, &status) != 0) {
		snprintf(why, why_size, "%s", strerror(errno));
	} else if ((status.st_mode & 077) != 0) {
		snprintf(why, why_size,
			"others than its owner can use it (mode %04o); run `chmod 600 %s`, and "
			"think about whether the key is still a secret",
			(unsigned int)(status.st_mode & 07777), path);
	} else {
		return fd;
	}
	if (fd >= 0)
		close(fd);
	return -1;
}

bool keys_read(const char *path, uint8_t key[ESPGW_KEY_BYTES], uint8_t salt[ESPGW_SALT_BYTES],
	char *why, size_t why_size)
{
	bool from_stdin = strcmp(path, "-") == 0;
	int fd = from_stdin ? STDIN_FILENO : open_private(path, why, why_size);
	if (fd < 0)
		return false;
	char text[FILE_BYTES_MAX + 1];
	ssize_t length = read_all(fd, text, sizeof(text), why, why_size);
	if (!from_stdin)
		close(fd);
	bool good = length >= 0 && keys_parse(text, (size_t)length, key, salt, why, why_size);
	explicit_bzero(text, sizeof(text));
	return good;
}

// ---- fresh keys ----

static size_t add_hex(char *text, const uint8_t *bytes, size_t count)
{
	static const char digits[] = "0123456789abcdef";
	for (size_t i = 0; i < count; i++) {
		text[2 * i] = digits[bytes[i] >> 4];
		text[2 * i + 1] = digits[bytes[i] & 15];
	}
	return 2 * count;
}

static bool write_all(int fd, const char *text, size_t length)
{
	while (length > 0) {
		ssize_t written = write(fd, text, length);
		if (written < 0 && errno != EINTR)
			return false;
		if (written > 0) {
			text += written;
			length -= (size_t)written;
		}
	}
	return true;
}

bool keys_generate(const char *path, char *why, size_t why_size)
{
	static const char head[] = "# espgw key, AES-256-GCM-16. For one direction of one tunnel, "
				   "and for one time.\nkey = ";
	static const char middle[] = "\nsalt = ";
	int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (fd < 0) {
		snprintf(why, why_size, "%s", strerror(errno));
		return false;
	}
	uint8_t random[ESPGW_KEY_BYTES + ESPGW_SALT_BYTES];
	char text[512];
	bool good = getrandom(random, sizeof(random), 0) == (ssize_t)sizeof(random);
	size_t length = sizeof(head) - 1;
	memcpy(text, head, length);
	length += add_hex(text + length, random, ESPGW_KEY_BYTES);
	memcpy(text + length, middle, sizeof(middle) - 1);
	length += sizeof(middle) - 1;
	length += add_hex(text + length, random + ESPGW_KEY_BYTES, ESPGW_SALT_BYTES);
	text[length++] = '\n';
	good = good && write_all(fd, text, length);
	explicit_bzero(random, sizeof(random));
	explicit_bzero(text, sizeof(text));
	if (close(fd) != 0)
		good = false;
	if (!good) {
		snprintf(why, why_size, "%s", strerror(errno));
		unlink(path);
	}
	return good;
}
