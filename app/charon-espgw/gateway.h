// SPDX-License-Identifier: GPL-2.0-or-later
// Copyright (c) 2026 the espgw authors

// The gateway as the plugin sees it: what charon wants is kept in a table, and one thread sees to
// it that the gateway has it, too, now or when it is back. Knows nothing of charon's types.
//
// Threads: gateway_run() is the body of the plugin's thread. All others may be called by any thread
// at any time. None blocks for longer than the timeout of a call, and while the gateway is away
// none blocks at all. Hooks are called without the lock.

#ifndef CHARON_ESPGW_GATEWAY_H
#define CHARON_ESPGW_GATEWAY_H

#include "traps.h"

struct gateway_hooks {
	// An SA has to be replaced, or, `hard`, deleted. `destination` is its outer one.
	void (*expire)(uint32_t spi, const char *destination, bool hard);
	// There is traffic for a trap.
	void (*acquire)(uint32_t reqid);
	// The far end of an inbound SA sends from another address or port now.
	void (*mapping)(uint32_t spi, const char *destination, const char *source, uint16_t port);
	// A line for the log: level 1 for everybody, 2 for who looks for a fault.
	void (*log)(int level, const char *text);
};

struct gateway_settings {
	const char *socket;
	int timeout_ms; // of one call
	// After this a lost SA is reported again, then more and more rarely, down to once in ten
	// times this.
	int repeat_ms;
};

struct gateway;

// `traps` is borrowed. NULL without memory.
struct gateway *gateway_create(const struct gateway_settings *settings,
	const struct gateway_hooks *hooks, struct traps *traps);
// Until gateway_stop(); call it once.
void gateway_run(struct gateway *gateway);
void gateway_stop(struct gateway *gateway);
// After gateway_run() has returned. SAs of the gateway stay there.
void gateway_destroy(struct gateway *gateway);

// An SPI for an inbound SA. False: the gateway is away, so that it has to be chosen at random.
bool gateway_reserve_spi(struct gateway *gateway, uint32_t *spi);
// Adds an SA, now or when the gateway is back. False: the gateway refuses it, which is logged. Set
// all of `wanted` that charon wants and nothing else; wipe it afterwards.
bool gateway_add_sa(struct gateway *gateway, const struct sa *wanted);
// False from here on: there is no such SA.
bool gateway_update_sa(struct gateway *gateway, uint32_t spi, const char *destination,
	const struct sa_outer *outer);
// Adds nothing up: what the SA has carried since it was added, the last known values while the
// gateway is away. *used_at: seconds of the monotonic clock, 0 = never.
bool gateway_query_sa(struct gateway *gateway, uint32_t spi, const char *destination,
	uint64_t *bytes, uint64_t *packets, int64_t *used_at);
// Of a reserved SPI that no SA was added with: gives it back, if `destination` is the gateway's end
// of a tunnel. Else it is the peer's SPI, and only by chance one that is reserved here, too.
bool gateway_delete_sa(struct gateway *gateway, uint32_t spi, const char *destination);
// All that charon added.
void gateway_flush_sas(struct gateway *gateway);

#endif
