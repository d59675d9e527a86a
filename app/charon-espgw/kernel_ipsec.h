// SPDX-License-Identifier: GPL-2.0-or-later
// Copyright (c) 2026 the espgw authors

#ifndef CHARON_ESPGW_KERNEL_IPSEC_H
#define CHARON_ESPGW_KERNEL_IPSEC_H

#include "compat.h"

// charon's IPsec kernel interface, carried out by espgw.
kernel_ipsec_t *kernel_espgw_ipsec_create(void);

#endif
