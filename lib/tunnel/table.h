// SPDX-License-Identifier: BSD-3-Clause
// Copyright (c) 2026 the espgw authors

// What the files of lib/tunnel share.

#pragma once

#include "tunnel/spi_table.h"
#include "tunnel/tunnel.h"

LIST_HEAD(sa_bucket, sa);

struct tunnel_table {
	// Read by workers; written at creation only, but for the slots and the
	// count.
	struct spi_table spis;
	struct tunnel *tunnels;
	unsigned int tunnel_count; // one more than the highest index that was ever used
	unsigned int room;
	_Atomic unsigned int narrow_count; // inbound SAs with windows under TUNNEL_WINDOW_NARROW
	// Control's.
	const struct config *config;
	struct reclaim *reclaim;
	TAILQ_HEAD(, sa) sas; // in the order they were added
	unsigned int sa_count;
	uint64_t next_id;
	struct sa_bucket *buckets; // SAs by SPI, both directions
	uint32_t bucket_mask;
	uint32_t *reserved; // SPIs that are handed out, in no order
	unsigned int reserved_count;
	unsigned int paths; // tunnels whose path's MTU is known
	uint64_t path_unknown;
	tunnel_resolve resolve;
	void *resolve_argument;
};

// The MTU that a tunnel offers by this outbound SA, whose outer header is as control's record has
// it: what fits the outside port, and the path as far as it is known.
uint32_t tunnel_sa_mtu(const struct sa *sa);
// What workers may send from now on, whichever SA they use.
void tunnel_publish_mtu(struct tunnel *tunnel);
// Frees an SA that is in no list and that no worker holds; wipes its keys.
void sa_destroy(struct sa *sa);
// The tunnel has its configuration, another one, or none any more: what it offers, and whether what
// was learnt of its path holds.
void path_configure(struct tunnel_table *table, struct tunnel *tunnel);
