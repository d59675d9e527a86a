// SPDX-License-Identifier: GPL-2.0-or-later
// Copyright (c) 2026 the espgw authors

// Trap policies: a tunnel without an outbound SA for which there is traffic asks charon for keys,
// if charon wants to be asked (start_action = trap).
//
// Threads: any; the table has a lock of its own, so that policies never wait for the gateway.

#ifndef CHARON_ESPGW_TRAPS_H
#define CHARON_ESPGW_TRAPS_H

#include "tunnels.h"

// charon adds one policy for each pair of selectors; each is added and removed by itself.
struct trap {
	uint32_t if_id, reqid;
	char local[INET6_ADDRSTRLEN], remote[INET6_ADDRSTRLEN]; // outer addresses
};

struct traps;

struct traps *traps_create(void);
void traps_destroy(struct traps *traps);
bool traps_add(struct traps *traps, const struct trap *trap);
void traps_remove(struct traps *traps, const struct trap *trap);
void traps_clear(struct traps *traps);
// The reqid of the tunnel's newest trap; 0 = none.
uint32_t traps_find(struct traps *traps, const struct tunnel *tunnel);

#endif
