// SPDX-License-Identifier: BSD-3-Clause
// Copyright (c) 2026 the espgw authors

// The process itself: secrecy of its memory, its one instance, its privileges.

#pragma once

#include "config/config.h"

// Keeps keys out of core dumps, of other processes' sight and of swap. Before any key is read.
void process_protect_memory(void);
// Each tunnel's TUN is an open file. 0, or -1 with a message on stderr.
int process_raise_files(const struct config *config);
// Makes the directories and takes the lock of the gateway's name. 0, or -1 with a message on
// stderr.
int process_lock(const struct config *config);
// Lets the calling thread, control, run ahead of other programs on its cores. It wakes twice a
// millisecond for a few microseconds: so the host path is quick on a busy machine. And on
// Linux 6.18 with scheduling by session, a thread of normal priority that wakes so often beside a
// busy worker kept other sessions, and the kernel's own threads, off that core for a minute.
// Nothing may wait for a worker without sleeping meanwhile.
void process_raise_priority(void);
void process_lower_priority(void);
// Gives up all capabilities but those that the running gateway needs. 0 or -1 with a message.
int process_drop_privileges(void);
