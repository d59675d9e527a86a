// SPDX-License-Identifier: BSD-3-Clause
// Copyright (c) 2026 the espgw authors

// What libconfig does not tell: it cuts integers to 32 bits silently, ends the process when an
// included "file" is a directory, and does not say which include failed.

#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "config/reader.h"

#define FILE_MAX    (256 << 20) // bytes of one file
#define INCLUDE_MAX 10          // libconfig's own limit of nesting
#define INCLUDE     "@include"

struct scan {
	struct reader *reader;
	const char *file;
	const char *directory; // NULL: no includes
	unsigned int depth;
	const char *at, *end;
	unsigned int line;
	bool failed; // libconfig must not read it
};

static bool file_scan(struct reader *reader, const char *file, const char *name,
	const char *directory, unsigned int depth, const char *from, unsigned int from_line);

// An include's path is between quotes; the line is left where it ends.
static void include_scan(struct scan *scan)
{
	const char *start = scan->at + strlen(INCLUDE);
	while (start < scan->end && (*start == ' ' || *start == '\t'))
		start++;
	scan->at = start;
	if (start == scan->end || *start != '"')
		return; // libconfig reports it as a syntax error
	const char *stop = ++start;
	while (stop < scan->end && *stop != '"' && *stop != '\n')
		stop++;
	scan->at = stop < scan->end && *stop == '"' ? stop + 1 : stop;
	char *name = strndup(start, (size_t)(stop - start)), *path = NULL;
	unsigned int errors = scan->reader->error_count;
	if (name == NULL)
		scan->reader->out_of_memory = true;
	else if (scan->directory == NULL)
		reader_error_at(scan->reader, scan->file, scan->line,
			INCLUDE " \"%s\": files are not included here; write the settings", name);
	else if (name[0] == '/')
		reader_error_at(scan->reader, scan->file, scan->line,
			INCLUDE " \"%s\": the path is absolute; write it relative to \"%s\"", name,
			scan->directory);
	else if (scan->depth == INCLUDE_MAX)
		reader_error_at(scan->reader, scan->file, scan->line,
			INCLUDE " \"%s\": more than %d files include each other; does a file "
				"include itself?",
			name, INCLUDE_MAX);
	else if (asprintf(&path, "%s/%s", scan->directory, name) < 0)
		scan->reader->out_of_memory = true;
	else if (file_scan(scan->reader, path, name, scan->directory, scan->depth + 1, scan->file,
			 scan->line))
		errors = scan->reader->error_count; // of other kinds
	scan->failed |= scan->reader->error_count > errors || scan->reader->out_of_memory;
	free(name);
	free(path);
}

static void string_skip(struct scan *scan)
{
	scan->at++;
	while (scan->at < scan->end && *scan->at != '"') {
		if (*scan->at == '\n')
			scan->line++;
		if (*scan->at == '\\' && scan->at + 1 < scan->end && scan->at[1] != '\n')
			scan->at++;
		scan->at++;
	}
	if (scan->at < scan->end)
		scan->at++;
}

// True when a comment was there.
static bool comment_skip(struct scan *scan)
{
	const char *at = scan->at;
	bool pair = scan->end - at >= 2;
	if (*at == '#' || (pair && at[0] == '/' && at[1] == '/')) {
		while (scan->at < scan->end && *scan->at != '\n')
			scan->at++;
		return true;
	}
	if (!pair || at[0] != '/' || at[1] != '*')
		return false;
	for (scan->at += 2; scan->at < scan->end; scan->at++) {
		if (*scan->at == '\n')
			scan->line++;
		if (scan->end - scan->at >= 2 && scan->at[0] == '*' && scan->at[1] == '/') {
			scan->at += 2;
			return true;
		}
	}
	return true;
}

static bool is_name_character(char c)
{
	return isalnum((unsigned char)c) || c == '_' || c == '-' || c == '*';
}

// What libconfig would cut: from 2^31 on a number needs an L at its end, which makes 64 bits of it.
static void number_check(const struct scan *scan, const char *start, uint64_t number)
{
	bool is_long = scan->at < scan->end && *scan->at == 'L';
	int size = (int)RTE_MIN(scan->at - start, (ptrdiff_t)40);
	if (number > UINT32_MAX)
		reader_error_at(scan->reader, scan->file, scan->line,
			"%.*s: is too large; numbers are at most %u", size, start, UINT32_MAX);
	else if (number > INT32_MAX && !is_long)
		reader_error_at(scan->reader, scan->file, scan->line,
			"%.*s: has no L at its end, as numbers over %d must; write %.*sL", size,
			start, INT32_MAX, size, start);
}

static void number_scan(struct scan *scan)
{
	const char *start = scan->at;
	unsigned int base = 10;
	uint64_t number = 0;
	if (scan->end - start > 2 && start[0] == '0' && tolower((unsigned char)start[1]) == 'x') {
		base = 16;
		scan->at += 2;
	}
	for (; scan->at < scan->end && isxdigit((unsigned char)*scan->at); scan->at++) {
		unsigned int digit =
			isdigit((unsigned char)*scan->at)
				? (unsigned int)(*scan->at - '0')
				: (unsigned int)(tolower((unsigned char)*scan->at) - 'a' + 10);
		if (digit >= base)
			break;
		if (number <= UINT32_MAX)
			number = number * base + digit;
	}
	number_check(scan, start, number);
	while (scan->at < scan->end && (is_name_character(*scan->at) || *scan->at == '.'))
		scan->at++;
}

static void scan_run(struct scan *scan)
{
	bool line_start = true;
	while (scan->at < scan->end) {
		char c = *scan->at;
		size_t rest = (size_t)(scan->end - scan->at);
		if (line_start && rest > strlen(INCLUDE) &&
			memcmp(scan->at, INCLUDE, strlen(INCLUDE)) == 0) {
			include_scan(scan);
			line_start = false;
			continue;
		}
		line_start = c == '\n' || (line_start && (c == ' ' || c == '\t'));
		if (c == '"') {
			string_skip(scan);
		} else if (comment_skip(scan)) {
			continue;
		} else if (isdigit((unsigned char)c)) {
			number_scan(scan);
		} else if (isalpha((unsigned char)c) || c == '*') {
			while (scan->at < scan->end && is_name_character(*scan->at))
				scan->at++;
		} else {
			scan->line += c == '\n';
			scan->at++;
		}
	}
}

bool scan_text(struct reader *reader, const char *file, const char *text)
{
	struct scan scan = {
		.reader = reader, .file = file, .at = text, .end = text + strlen(text), .line = 1};
	scan_run(&scan);
	return !scan.failed;
}

// The file's contents, which the caller frees; NULL with errno.
static char *file_read(const char *file, size_t *size)
{
	FILE *stream = fopen(file, "re");
	struct stat status;
	char *text = NULL;
	int error = 0;
	if (stream == NULL)
		return NULL;
	if (fstat(fileno(stream), &status) != 0)
		error = errno;
	else if (!S_ISREG(status.st_mode))
		error = S_ISDIR(status.st_mode) ? EISDIR : EINVAL;
	else if (status.st_size > FILE_MAX)
		error = EFBIG;
	else if ((text = malloc((size_t)status.st_size + 1)) == NULL)
		error = ENOMEM;
	else
		*size = fread(text, 1, (size_t)status.st_size, stream);
	fclose(stream);
	errno = error;
	return text;
}

static bool file_scan(struct reader *reader, const char *file, const char *name,
	const char *directory, unsigned int depth, const char *from, unsigned int from_line)
{
	size_t size = 0;
	char *text = file_read(file, &size);
	if (text == NULL) {
		const char *reason = errno == EINVAL ? "it is no regular file" : strerror(errno);
		if (depth == 0)
			reader_error_at(reader, from, from_line, "cannot be read: %s", reason);
		else
			reader_error_at(reader, from, from_line,
				INCLUDE " \"%s\": %s cannot be read: %s", name, file, reason);
		return false;
	}
	struct scan scan = {.reader = reader,
		.file = name,
		.directory = directory,
		.depth = depth,
		.at = text,
		.end = text + size,
		.line = 1};
	scan_run(&scan);
	free(text);
	return !scan.failed;
}

bool scan_file(struct reader *reader, const char *file, const char *directory)
{
	return file_scan(reader, file, file, directory, 0, file, 1);
}
