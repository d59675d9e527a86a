// SPDX-License-Identifier: GPL-2.0-or-later
// Copyright (c) 2026 the espgw authors

// Which tunnel of the gateway an SA belongs to: the one with its if_id (if_id_in and if_id_out in
// swanctl.conf), or, for an SA without, the only one with its outer addresses.

#ifndef CHARON_ESPGW_TUNNELS_H
#define CHARON_ESPGW_TUNNELS_H

#include "sa_table.h"

struct tunnel {
	char name[TUNNEL_BYTES];
	uint32_t if_id;
	char gateway_endpoint[INET6_ADDRSTRLEN], customer_endpoint[INET6_ADDRSTRLEN];
};

struct tunnels {
	struct tunnel *list;
	size_t count;
};

// Asks the gateway; what was known before stays when that fails.
enum espgw_status tunnels_load(
	struct tunnels *tunnels, struct espgw_client *client, struct espgw_error *error);
void tunnels_clear(struct tunnels *tunnels);
// `local` and `remote`: the outer addresses, asked for when if_id is 0. NULL: there is none.
const struct tunnel *tunnels_find(
	const struct tunnels *tunnels, uint32_t if_id, const char *local, const char *remote);
// `address` is the gateway's end of a tunnel.
bool tunnels_end_at(const struct tunnels *tunnels, const char *address);
const struct tunnel *tunnels_find_name(const struct tunnels *tunnels, const char *name);

#endif
