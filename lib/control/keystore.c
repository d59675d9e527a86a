// SPDX-License-Identifier: BSD-3-Clause
// Copyright (c) 2026 the espgw authors

#include "control/keystore.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <intel-ipsec-mb.h>
#include <rte_hash_crc.h>

#define MAGIC       "espgw keys 1"
#define SHA_BLOCK   64 // bytes, RFC 2104's B
#define FIRST_SLOTS 4096

// What a hash is of, so that no message of one kind is one of another.
enum message_kind { MESSAGE_KEY = 'K', MESSAGE_IDENTITY = 'I', MESSAGE_HEADER = 'H' };

struct file_header {
	char magic[16];
	uint8_t tag[KEYSTORE_HASH_SIZE]; // ties the file to its secret
	uint8_t zero[12];
	uint32_t checksum;
};

struct file_record {
	uint8_t fingerprint[KEYSTORE_HASH_SIZE];
	uint64_t number; // counts from 0
	int64_t time;    // seconds since 1970, for people who look into the file
	uint32_t direction;
	uint32_t zero[2];
	uint32_t checksum;
};

_Static_assert(sizeof(struct file_header) == 64, "as the file has it");
_Static_assert(sizeof(struct file_record) == 64, "as the file has it");

// 128 bits of a fingerprint are plenty to tell keys apart; the lowest two bits give way to the
// directions. Directions 0: the slot is free.
struct slot {
	uint64_t high, low;
};

struct keystore {
	IMB_MGR *manager;
	uint8_t secret[KEYSTORE_SECRET_SIZE];
	char directory[256];
	int directory_fd, keys_fd;
	char fault[384];
	uint64_t count; // records in the file
	struct slot *slots;
	uint64_t mask, used; // slots - 1
};

void keystore_hmac(struct IMB_MGR *manager, const uint8_t secret[KEYSTORE_SECRET_SIZE],
	const void *message, size_t size, uint8_t result[KEYSTORE_HASH_SIZE])
{
	uint8_t inner[SHA_BLOCK + KEYSTORE_MESSAGE_MAX], outer[SHA_BLOCK + KEYSTORE_HASH_SIZE];
	memset(inner, 0x36, SHA_BLOCK);
	memset(outer, 0x5c, SHA_BLOCK);
	for (unsigned int i = 0; i < KEYSTORE_SECRET_SIZE; i++) {
		inner[i] ^= secret[i];
		outer[i] ^= secret[i];
	}
	memcpy(inner + SHA_BLOCK, message, size);
	IMB_SHA256(manager, inner, SHA_BLOCK + size, outer + SHA_BLOCK);
	IMB_SHA256(manager, outer, sizeof(outer), result);
	explicit_bzero(inner, sizeof(inner));
	explicit_bzero(outer, sizeof(outer));
}

static void hash(const struct keystore *store, enum message_kind kind, const uint8_t *data,
	size_t size, uint8_t result[KEYSTORE_HASH_SIZE])
{
	uint8_t message[KEYSTORE_MESSAGE_MAX];
	message[0] = (uint8_t)kind;
	memcpy(message + 1, data, size);
	keystore_hmac(store->manager, store->secret, message, size + 1, result);
	explicit_bzero(message, sizeof(message));
}

void keystore_fingerprint(const struct keystore *store, const uint8_t key[ESP_KEY_SIZE],
	uint8_t fingerprint[KEYSTORE_HASH_SIZE])
{
	hash(store, MESSAGE_KEY, key, ESP_KEY_SIZE, fingerprint);
}

void keystore_identity(const struct keystore *store, const uint8_t key[ESP_KEY_SIZE],
	const uint8_t salt[ESP_SALT_SIZE], uint8_t identity[KEYSTORE_HASH_SIZE])
{
	uint8_t both[ESP_KEY_SIZE + ESP_SALT_SIZE];
	memcpy(both, key, ESP_KEY_SIZE);
	memcpy(both + ESP_KEY_SIZE, salt, ESP_SALT_SIZE);
	hash(store, MESSAGE_IDENTITY, both, sizeof(both), identity);
	explicit_bzero(both, sizeof(both));
}

// ---- the set in memory ----

static struct slot slot_of(const uint8_t fingerprint[KEYSTORE_HASH_SIZE])
{
	struct slot slot;
	memcpy(&slot, fingerprint, sizeof(slot));
	slot.low &= ~UINT64_C(3);
	return slot;
}

static struct slot *find_slot(struct slot *slots, uint64_t mask, const struct slot *wanted)
{
	uint64_t i = wanted->high & mask;
	while ((slots[i].low & 3) != 0 &&
		(slots[i].high != wanted->high || ((slots[i].low ^ wanted->low) & ~UINT64_C(3))))
		i = (i + 1) & mask;
	return &slots[i];
}

// At most three quarters of the slots are used, so that a search ends soon.
static bool make_room(struct keystore *store)
{
	if (store->slots != NULL && (store->used + 1) * 4 <= (store->mask + 1) * 3)
		return true;
	uint64_t size = store->slots == NULL ? FIRST_SLOTS : (store->mask + 1) * 2;
	struct slot *slots = calloc(size, sizeof(*slots));
	if (slots == NULL)
		return false;
	for (uint64_t i = 0; store->slots != NULL && i <= store->mask; i++)
		if ((store->slots[i].low & 3) != 0)
			*find_slot(slots, size - 1, &store->slots[i]) = store->slots[i];
	free(store->slots);
	store->slots = slots;
	store->mask = size - 1;
	return true;
}

// There has to be room.
static void remember(struct keystore *store, const uint8_t *fingerprint, unsigned int direction)
{
	struct slot wanted = slot_of(fingerprint);
	struct slot *slot = find_slot(store->slots, store->mask, &wanted);
	if ((slot->low & 3) == 0) {
		*slot = wanted;
		store->used++;
	}
	slot->low |= direction;
}

unsigned int keystore_seen(
	const struct keystore *store, const uint8_t fingerprint[KEYSTORE_HASH_SIZE])
{
	if (store->slots == NULL)
		return 0;
	struct slot wanted = slot_of(fingerprint);
	return find_slot(store->slots, store->mask, &wanted)->low & 3;
}

// ---- the files ----

static int fault(struct keystore *store, const char *format, ...)
	__attribute__((format(printf, 2, 3)));

static int fault(struct keystore *store, const char *format, ...)
{
	va_list arguments;
	va_start(arguments, format);
	vsnprintf(store->fault, sizeof(store->fault), format, arguments);
	va_end(arguments);
	return -1;
}

static int fault_file(struct keystore *store, const char *file, const char *what)
{
	return fault(store, "%s/%s: %s: %s", store->directory, file, what, strerror(errno));
}

// Whole or not at all: a name that can be seen has its contents on the disk.
static int create_file(struct keystore *store, const char *name, const void *data, size_t size)
{
	char temporary[32];
	snprintf(temporary, sizeof(temporary), "%s.new", name);
	(void)unlinkat(store->directory_fd, temporary, 0); // left over from a crash
	int fd = openat(
		store->directory_fd, temporary, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (fd < 0)
		return fault_file(store, temporary, "can't be created");
	bool written = write(fd, data, size) == (ssize_t)size && fsync(fd) == 0;
	close(fd);
	if (!written)
		return fault_file(store, temporary, "can't be written");
	if (renameat(store->directory_fd, temporary, store->directory_fd, name) != 0 ||
		fsync(store->directory_fd) != 0)
		return fault_file(store, name, "can't be created");
	return 0;
}

static struct file_header make_header(const struct keystore *store)
{
	struct file_header header = {.magic = MAGIC};
	hash(store, MESSAGE_HEADER, (const uint8_t *)header.magic, sizeof(header.magic),
		header.tag);
	header.checksum = rte_hash_crc(&header, offsetof(struct file_header, checksum), 0xffffffff);
	return header;
}

// The secret comes last: without it, the two of them are made anew at the next start.
static int create_files(struct keystore *store)
{
	if (getrandom(store->secret, sizeof(store->secret), 0) != sizeof(store->secret))
		return fault(store, "no random numbers: %s", strerror(errno));
	struct file_header header = make_header(store);
	if (create_file(store, "keys", &header, sizeof(header)) != 0)
		return -1;
	return create_file(store, "secret", store->secret, sizeof(store->secret));
}

static int read_secret(struct keystore *store)
{
	int fd = openat(store->directory_fd, "secret", O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	if (fd < 0)
		return fault_file(store, "secret", "can't be opened");
	uint8_t buffer[KEYSTORE_SECRET_SIZE + 1];
	ssize_t size = read(fd, buffer, sizeof(buffer));
	close(fd);
	if (size == KEYSTORE_SECRET_SIZE)
		memcpy(store->secret, buffer, KEYSTORE_SECRET_SIZE);
	explicit_bzero(buffer, sizeof(buffer));
	if (size < 0)
		return fault_file(store, "secret", "can't be read");
	if (size != KEYSTORE_SECRET_SIZE)
		return fault(store, "%s/secret: damaged: its size is not %d bytes",
			store->directory, KEYSTORE_SECRET_SIZE);
	return 0;
}

static bool record_is_good(const struct file_record *record, uint64_t number)
{
	return record->number == number &&
	       (record->direction == KEYSTORE_IN || record->direction == KEYSTORE_OUT) &&
	       record->checksum ==
		       rte_hash_crc(record, offsetof(struct file_record, checksum), 0xffffffff);
}

static int cut(struct keystore *store, uint64_t records)
{
	off_t size = (off_t)(sizeof(struct file_header) + records * sizeof(struct file_record));
	if (ftruncate(store->keys_fd, size) != 0 || fdatasync(store->keys_fd) != 0)
		return fault_file(store, "keys", "its torn end can't be removed");
	return 0;
}

// `count` whole records, and `torn` bytes of one more.
static int read_records(struct keystore *store, uint64_t count, uint64_t torn)
{
	struct file_record block[512];
	for (uint64_t i = 0; i < count; i++) {
		uint64_t in_block = i % RTE_DIM(block);
		uint64_t left = RTE_MIN(count - i, RTE_DIM(block));
		off_t offset = (off_t)(sizeof(struct file_header) + i * sizeof(*block));
		if (in_block == 0 && pread(store->keys_fd, block, left * sizeof(*block), offset) !=
					     (ssize_t)(left * sizeof(*block)))
			return fault_file(store, "keys", "can't be read");
		if (!record_is_good(&block[in_block], i)) {
			if (i + 1 < count || torn != 0)
				return fault(store,
					"%s/keys: damaged at record %llu: restore it from a "
					"backup, or remove it and `secret` when no key that was "
					"used so far can come again",
					store->directory, (unsigned long long)i);
			torn = sizeof(*block);
			count = i;
			break;
		}
		if (!make_room(store))
			return fault(store, "no memory for the key fingerprints");
		remember(store, block[in_block].fingerprint, block[in_block].direction);
	}
	store->count = count;
	return torn == 0 ? 0 : cut(store, count);
}

static int read_keys(struct keystore *store)
{
	store->keys_fd = openat(store->directory_fd, "keys", O_RDWR | O_CLOEXEC | O_NOFOLLOW);
	struct stat status;
	if (store->keys_fd < 0 || fstat(store->keys_fd, &status) != 0)
		return fault_file(store, "keys", "can't be opened");
	struct file_header header, expected = make_header(store);
	if (pread(store->keys_fd, &header, sizeof(header), 0) != sizeof(header) ||
		memcmp(header.magic, expected.magic, sizeof(header.magic)) != 0)
		return fault(store, "%s/keys: damaged: it does not begin as a key store does",
			store->directory);
	if (memcmp(&header, &expected, sizeof(header)) != 0)
		return fault(store, "%s/keys: damaged, or does not belong to %s/secret",
			store->directory, store->directory);
	uint64_t size = (uint64_t)status.st_size - sizeof(header);
	return read_records(
		store, size / sizeof(struct file_record), size % sizeof(struct file_record));
}

// Both files, or neither: one without the other means that somebody removed it.
static int open_files(struct keystore *store)
{
	struct stat secret, keys;
	bool has_secret = fstatat(store->directory_fd, "secret", &secret, AT_SYMLINK_NOFOLLOW) == 0;
	bool has_keys = fstatat(store->directory_fd, "keys", &keys, AT_SYMLINK_NOFOLLOW) == 0;
	if (!has_secret && has_keys && keys.st_size > (off_t)sizeof(struct file_header))
		return fault(store, "%s/secret is missing: without it %s/keys can't be read",
			store->directory, store->directory);
	if (has_secret && !has_keys)
		return fault(store,
			"%s/keys is missing: restore it, or remove %s/secret too when no key that "
			"was used so far can come again",
			store->directory, store->directory);
	if (has_secret ? read_secret(store) != 0 : create_files(store) != 0)
		return -1;
	return read_keys(store);
}

// 1: locked by another.
static int lock_directory(struct keystore *store)
{
	if (mkdir(store->directory, 0700) != 0 && errno != EEXIST)
		return fault(store, "%s: can't be made: %s", store->directory, strerror(errno));
	store->directory_fd = open(store->directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (store->directory_fd < 0)
		return fault(store, "%s: can't be opened: %s", store->directory, strerror(errno));
	if (flock(store->directory_fd, LOCK_EX | LOCK_NB) == 0)
		return 0;
	if (errno == EWOULDBLOCK)
		return 1;
	return fault(store, "%s: can't be locked: %s", store->directory, strerror(errno));
}

struct keystore *keystore_open(const char *directory, struct control_error *error)
{
	struct keystore *store = calloc(1, sizeof(*store));
	IMB_MGR *manager = alloc_mb_mgr(0);
	if (store == NULL || manager == NULL) {
		snprintf(error->text, sizeof(error->text), "no memory for the key store");
		free(store);
		if (manager != NULL)
			free_mb_mgr(manager);
		return NULL;
	}
	init_mb_mgr_auto(manager, NULL);
	store->manager = manager;
	store->directory_fd = store->keys_fd = -1;
	snprintf(store->directory, sizeof(store->directory), "%s", directory);
	int result = lock_directory(store);
	if (result == 1) {
		snprintf(error->text, sizeof(error->text),
			"another espgw uses %s; give each its own state_directory", directory);
		keystore_close(store);
		return NULL;
	}
	if (result == 0)
		(void)open_files(store); // a failure is kept as the fault
	return store;
}

void keystore_close(struct keystore *store)
{
	if (store == NULL)
		return;
	if (store->keys_fd >= 0)
		close(store->keys_fd);
	if (store->directory_fd >= 0)
		close(store->directory_fd); // and so unlocked
	imb_clear_mem(store->manager, sizeof(*store->manager));
	free_mb_mgr(store->manager);
	free(store->slots);
	explicit_bzero(store, sizeof(*store));
	free(store);
}

const char *keystore_fault(const struct keystore *store)
{
	return store->fault[0] == 0 ? NULL : store->fault;
}

uint64_t keystore_count(const struct keystore *store)
{
	return store->count;
}

// A record written to a file that has been removed or replaced meanwhile would be lost.
static int check_file(struct keystore *store)
{
	struct stat open_file, named_file;
	off_t size =
		(off_t)(sizeof(struct file_header) + store->count * sizeof(struct file_record));
	if (fstat(store->keys_fd, &open_file) != 0 ||
		fstatat(store->directory_fd, "keys", &named_file, AT_SYMLINK_NOFOLLOW) != 0)
		return fault_file(store, "keys", "has gone");
	if (open_file.st_ino != named_file.st_ino || open_file.st_dev != named_file.st_dev ||
		open_file.st_size != size)
		return fault(store, "%s/keys was changed by somebody else", store->directory);
	return 0;
}

// 0; -1 with errno when this record could not be written, and the file is as before.
static int append(struct keystore *store, const struct file_record *record)
{
	off_t offset = (off_t)(sizeof(struct file_header) + store->count * sizeof(*record));
	errno = ENOSPC; // what a short write means
	if (pwrite(store->keys_fd, record, sizeof(*record), offset) != sizeof(*record)) {
		int reason = errno;
		(void)cut(store, store->count);
		errno = reason;
		return -1;
	}
	// After a failure here nobody knows what is on the disk, and a second try may lie.
	if (fdatasync(store->keys_fd) != 0)
		return fault_file(store, "keys", "can't be written to the disk");
	return 0;
}

int keystore_add(struct keystore *store, const uint8_t fingerprint[KEYSTORE_HASH_SIZE],
	unsigned int direction, struct control_error *error)
{
	struct file_record record = {
		.number = store->count, .time = time(NULL), .direction = direction};
	memcpy(record.fingerprint, fingerprint, sizeof(record.fingerprint));
	record.checksum = rte_hash_crc(&record, offsetof(struct file_record, checksum), 0xffffffff);
	if (store->fault[0] == 0 && (keystore_seen(store, fingerprint) & direction) != 0)
		return 0;
	if (store->fault[0] == 0 && !make_room(store)) {
		snprintf(error->text, sizeof(error->text), "no memory for another key fingerprint");
		return -1;
	}
	if (store->fault[0] == 0 && check_file(store) == 0 && append(store, &record) == 0) {
		store->count++;
		remember(store, fingerprint, direction);
		return 0;
	}
	if (store->fault[0] != 0)
		snprintf(error->text, sizeof(error->text), "%s", store->fault);
	else
		snprintf(error->text, sizeof(error->text), "%s/keys can't be written: %s",
			store->directory, strerror(errno));
	return -1;
}
