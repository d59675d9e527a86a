// SPDX-License-Identifier: BSD-3-Clause
// Copyright (c) 2026 the espgw authors

// Peers that move: behind a NAT, the outer source of their packets changes (RFC 3948, RFC 7296
// section 2.23). The gateway only tells; the agent decides.

#include <rte_byteorder.h>
#include <rte_cycles.h>

#include "sa.h"

void esp_sa_in_set_sender(
	struct esp_sa_in *sa, const struct packet_address *source, uint16_t udp_source)
{
	uint16_t port = rte_cpu_to_be_16(udp_source);
	uint32_t address;
	uint64_t sender = 0;
	memcpy(&address, source->bytes, sizeof(address));
	if (port != 0)
		sender = source->family == 4 ? esp_sender_v4(address, port)
					     : esp_sender_v6(source->bytes, port);
	atomic_store_explicit(&sa->sender, sender, memory_order_relaxed);
}

// Whether packet i moved the top of its SA's window, and none after it has.
static bool is_newest(
	const struct esp_context *context, struct esp_sa_in *const *sas, unsigned int i)
{
	const struct esp_sa_in *sa = sas[i];
	unsigned int begin = i;
	while (begin > 0 && sas[begin - 1] == sa)
		begin--;
	uint64_t top = atomic_load_explicit(sa->window.top, memory_order_relaxed);
	return context->sequences[i] > context->tops[begin] && context->sequences[i] == top;
}

// True once a second, for one worker.
static bool may_tell(struct esp_sa_in *sa)
{
	uint64_t now = rte_rdtsc();
	uint64_t last = atomic_load_explicit(&sa->moved, memory_order_relaxed);
	if (last != 0 && now - last < rte_get_tsc_hz())
		return false;
	return atomic_compare_exchange_strong_explicit(
		&sa->moved, &last, now, memory_order_relaxed, memory_order_relaxed);
}

uint64_t esp_find_moved(const struct esp_context *context, struct esp_sa_in *const *sas,
	const uint64_t *senders, const uint8_t *drops, unsigned int count)
{
	uint64_t moved = 0;
	for (unsigned int i = 0; i < count; i++) {
		uint64_t known = atomic_load_explicit(&sas[i]->sender, memory_order_relaxed);
		if (likely(senders[i] == known || senders[i] == 0))
			continue;
		if (drops[i] == DROP_NONE && is_newest(context, sas, i) && may_tell(sas[i]))
			moved |= UINT64_C(1) << i;
	}
	return moved;
}
