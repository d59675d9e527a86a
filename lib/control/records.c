// SPDX-License-Identifier: BSD-3-Clause
// Copyright (c) 2026 the espgw authors

#include "control/records.h"

#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define MAGIC "espgw replay 1"

// As large as a record, in the place of the first.
struct records_header {
	char magic[16];
	uint8_t zero[48];
};

_Static_assert(sizeof(struct record) == 64, "as the file has it");
_Static_assert(sizeof(struct records_header) == sizeof(struct record), "as the file has it");

struct records {
	int directory_fd;
	void *mapping;
	size_t size; // bytes of the mapping
	struct record *all;
	unsigned int count;
	bool *live;
	uint64_t order; // the highest in use
};

static int fail(struct control_error *error, const char *directory, const char *what)
{
	snprintf(error->text, sizeof(error->text), "%s: %s: %s", directory, what, strerror(errno));
	return -1;
}

static int lock_directory(
	struct records *records, const char *directory, struct control_error *error)
{
	if (mkdir(directory, 0755) != 0 && errno != EEXIST)
		return fail(error, directory, "can't be made");
	records->directory_fd = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (records->directory_fd < 0)
		return fail(error, directory, "can't be opened");
	if (flock(records->directory_fd, LOCK_EX | LOCK_NB) == 0)
		return 0;
	if (errno != EWOULDBLOCK)
		return fail(error, directory, "can't be locked");
	snprintf(error->text, sizeof(error->text),
		"another espgw uses %s; give each its own run_directory", directory);
	return -1;
}

// Never smaller than it was: the records at its end may still be asked for.
static int size_file(struct records *records, int fd, unsigned int count)
{
	struct stat status;
	if (fstat(fd, &status) != 0)
		return -1;
	size_t size = ((size_t)count + 1) * sizeof(struct record);
	if ((size_t)status.st_size > size)
		size = (size_t)status.st_size / sizeof(struct record) * sizeof(struct record);
	// The room is taken now, since a full disk would mean SIGBUS in a worker later.
	int result = posix_fallocate(fd, 0, (off_t)size);
	if (result != 0) {
		errno = result;
		return -1;
	}
	records->size = size;
	records->count = (unsigned int)(size / sizeof(struct record) - 1);
	return 0;
}

static int map_file(struct records *records, const char *directory, unsigned int count,
	struct control_error *error)
{
	int fd = openat(
		records->directory_fd, "replay", O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (fd < 0)
		return fail(error, directory, "replay can't be opened");
	if (size_file(records, fd, count) != 0) {
		fail(error, directory, "there is no room for replay");
		close(fd);
		return -1;
	}
	records->mapping =
		mmap(NULL, records->size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, fd, 0);
	close(fd);
	if (records->mapping == MAP_FAILED) {
		records->mapping = NULL;
		return fail(error, directory, "replay can't be mapped");
	}
	return 0;
}

// A file that is not ours or of another version holds no records: the keys that were known will be
// refused, which is the safe side.
static void take_up(struct records *records)
{
	struct records_header *header = records->mapping;
	records->all = (struct record *)records->mapping + 1;
	if (memcmp(header->magic, MAGIC, sizeof(MAGIC)) != 0) {
		memset(records->mapping, 0, records->size);
		memcpy(header->magic, MAGIC, sizeof(MAGIC));
	}
	for (unsigned int i = 0; i < records->count; i++)
		if (records->all[i].used && records->all[i].order > records->order)
			records->order = records->all[i].order;
}

struct records *records_open(const char *directory, unsigned int count, struct control_error *error)
{
	struct records *records = calloc(1, sizeof(*records));
	if (records == NULL) {
		snprintf(error->text, sizeof(error->text), "no memory for the replay records");
		return NULL;
	}
	records->directory_fd = -1;
	if (lock_directory(records, directory, error) != 0 ||
		map_file(records, directory, count, error) != 0) {
		records_close(records);
		return NULL;
	}
	records->live = calloc(records->count, sizeof(*records->live));
	if (records->live == NULL) {
		snprintf(error->text, sizeof(error->text), "no memory for the replay records");
		records_close(records);
		return NULL;
	}
	take_up(records);
	return records;
}

void records_close(struct records *records)
{
	if (records == NULL)
		return;
	if (records->mapping != NULL)
		munmap(records->mapping, records->size);
	if (records->directory_fd >= 0)
		close(records->directory_fd); // and so unlocked
	free(records->live);
	free(records);
}

struct record *records_find(struct records *records, const uint8_t fingerprint[RECORD_FINGERPRINT])
{
	for (unsigned int i = 0; i < records->count; i++) {
		struct record *record = &records->all[i];
		if (record->used &&
			memcmp(record->fingerprint, fingerprint, RECORD_FINGERPRINT) == 0)
			return record;
	}
	return NULL;
}

// Free ones first, then the one that was last used longest ago.
static struct record *find_reusable(struct records *records)
{
	struct record *oldest = NULL;
	for (unsigned int i = 0; i < records->count; i++) {
		struct record *record = &records->all[i];
		if (records->live[i])
			continue;
		if (!record->used)
			return record;
		if (oldest == NULL || record->order < oldest->order)
			oldest = record;
	}
	return oldest;
}

struct record *records_take(struct records *records, const uint8_t fingerprint[RECORD_FINGERPRINT])
{
	struct record *record = find_reusable(records);
	if (record == NULL)
		return NULL;
	// The process may be killed between any two stores; the fences keep their order.
	record->used = 0;
	atomic_thread_fence(memory_order_seq_cst);
	memcpy(record->fingerprint, fingerprint, RECORD_FINGERPRINT);
	record->top = 0;
	record->order = ++records->order;
	atomic_thread_fence(memory_order_seq_cst);
	record->used = 1;
	return record;
}

bool records_is_live(const struct records *records, const struct record *record)
{
	return records->live[record - records->all];
}

void records_set_live(struct records *records, struct record *record, bool live)
{
	records->live[record - records->all] = live;
	record->order = ++records->order;
}

void records_drop(struct records *records, struct record *record)
{
	records->live[record - records->all] = false;
	record->used = 0;
}
