// SPDX-License-Identifier: BSD-3-Clause
// Copyright (c) 2026 the espgw authors

// Replay records: the highest sequence number received with each inbound key, in a file under the
// run directory that is mapped and shared, so that it outlives the process (not the machine's
// reboot). Workers store into `top` without a system call (lib/esp does).
//
// Records of deleted SAs are kept, since their keys may be added again, and are given to new keys
// only when no other is free, oldest first. The directory is locked as long as the file is open.

#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "control/control.h"

#define RECORD_FINGERPRINT 32

struct record {
	uint8_t fingerprint[RECORD_FINGERPRINT];
	uint64_t top;   // written by workers while an SA is live
	uint64_t order; // grows with every use; the lowest is the oldest
	uint64_t used;  // 0 = free: written last when a record is made, first when it is cleared
	uint64_t spare;
};

struct records;

// Room for `count` records at least. NULL with *error set.
struct records *records_open(
	const char *directory, unsigned int count, struct control_error *error);
// No worker may hold an SA with a record.
void records_close(struct records *records);
// The record of this key, or NULL.
struct record *records_find(struct records *records, const uint8_t fingerprint[RECORD_FINGERPRINT]);
// A new record with top 0. NULL when all belong to live SAs.
struct record *records_take(struct records *records, const uint8_t fingerprint[RECORD_FINGERPRINT]);
// A live record belongs to an SA, or to a deleted one that a worker may still hold.
bool records_is_live(const struct records *records, const struct record *record);
void records_set_live(struct records *records, struct record *record, bool live);
// Frees a record whose key was not recorded after all.
void records_drop(struct records *records, struct record *record);
