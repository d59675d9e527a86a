// SPDX-License-Identifier: GPL-2.0-or-later
// Copyright (c) 2026 the espgw authors

// Where strongSwan's versions differ. STRONGSWAN_VERSION is 50908 for 5.9.8; it comes, as VERSION,
// from the sources that the plugin is compiled with.

#ifndef CHARON_ESPGW_COMPAT_H
#define CHARON_ESPGW_COMPAT_H

#include <daemon.h>

// query_sa tells when an SA was used; 5.9 takes that for granted when there is no query_policy.
#if STRONGSWAN_VERSION >= 60000
#define FEATURE_SA_USE_TIME KERNEL_SA_USE_TIME
#else
#define FEATURE_SA_USE_TIME 0
#endif

// An acquire that is not for one CPU says so.
#ifdef CPU_ID_MAX
#define ACQUIRE_DATA ((kernel_acquire_data_t){.cpu = CPU_ID_MAX})
#else
#define ACQUIRE_DATA ((kernel_acquire_data_t){0})
#endif

#endif
