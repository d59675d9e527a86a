// SPDX-License-Identifier: BSD-3-Clause
// Copyright (c) 2026 the espgw authors

// The process itself: secrecy of its memory, its one instance, its privileges.

#pragma once

#include "config/config.h"

// Keeps keys out of core dumps, of other processes' sight and of swap. Before any key is read.
void process_protect_memory(void);
// Makes the directories and takes the lock of the gateway's name. 0, or -1 with a message on
// stderr.
int process_lock(const struct config *config);
// Gives up all capabilities but those that the running gateway needs. 0 or -1 with a message.
int process_drop_privileges(void);
