// SPDX-License-Identifier: BSD-3-Clause
// Copyright (c) 2026 the espgw authors

// Bursts in which tunnels alternate (private to lib/dataplane). Most steps read once what
// neighbours of one tunnel share, and a change of tunnel costs them a branch that can't be
// predicted, an atomic operation and more. So packets of one tunnel are brought together first.
// Among them they keep their order; packets of different tunnels belong to different flows.

#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "esp/esp.h"

// Worker. The order in which packets of one tunnel are neighbours: packet order[i] comes i-th.
// False, and nothing written, when all are of one tunnel. count <= ESP_BURST_MAX.
bool group_by_tunnel(const uint32_t *tunnels, unsigned int count, uint8_t *order);
