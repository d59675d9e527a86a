// SPDX-License-Identifier: BSD-3-Clause
// Copyright (c) 2026 the espgw authors

// The traffic selectors of an SA (RFC 4301 section 4.4.1.1), as workers compare packets with them
// (private to lib/esp). A set never changes; it lives and dies with its SA.

#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "esp/esp.h"

struct selector_set;

// Control. True: every packet is within the selectors, so that none need be looked at: there are
// none, or those of each family leave nothing out.
bool selectors_allow_all(const struct esp_selector *selectors, unsigned int count);
// Control. A copy in a form for workers. NULL when there is no memory; selectors_free takes NULL.
struct selector_set *selectors_create(const struct esp_selector *selectors, unsigned int count);
void selectors_free(struct selector_set *set);

// Worker. Whether a checked IP packet of `length` bytes (packet_ip_check) is within one of the
// selectors. `outbound`: its source is on the local side; otherwise its destination is.
//
// Fragments (RFC 4301 section 7): what a packet does not show, it does not match. Fragments but the
// first have no ports and no ICMP type, so that only selectors with all ports take them; neither
// has a packet that ends before them. An IPv6 packet whose extension headers can't be followed to
// the end (packet_ip_view) has no protocol, and only selectors with any protocol take it.
bool selectors_match(
	const struct selector_set *set, const uint8_t *ip, uint32_t length, bool outbound);
