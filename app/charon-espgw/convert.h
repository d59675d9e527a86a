// SPDX-License-Identifier: GPL-2.0-or-later
// Copyright (c) 2026 the espgw authors

// From charon's types to those of the control protocol.

#ifndef CHARON_ESPGW_CONVERT_H
#define CHARON_ESPGW_CONVERT_H

#include "compat.h"
#include "traps.h"

// "203.0.113.1", without the port.
void convert_host(char text[INET6_ADDRSTRLEN], host_t *host);
void convert_outer(struct sa_outer *outer, host_t *source, host_t *destination, bool encap);
// False: espgw has no such SA; why is logged, with what to write in swanctl.conf instead.
// The caller wipes `sa` in any case.
bool convert_sa(struct sa *sa, const kernel_ipsec_sa_id_t *id, const kernel_ipsec_add_sa_t *data);
// False: the policy is not a trap.
bool convert_trap(struct trap *trap, const kernel_ipsec_policy_id_t *id,
	const kernel_ipsec_manage_policy_t *data);

#endif
