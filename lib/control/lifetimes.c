// SPDX-License-Identifier: BSD-3-Clause
// Copyright (c) 2026 the espgw authors

// Lifetimes of SAs (RFC 4301 section 4.4.2.1). A timer looks at the SAs that have limits; outbound
// ones all have, since their sequence numbers end.

#include "control/internal.h"

static bool has_limits(const struct sa *sa)
{
	const struct sa_lifetime *soft = &sa->soft, *hard = &sa->hard;
	return sa->direction == SA_OUTBOUND || soft->seconds != 0 || soft->bytes != 0 ||
	       soft->packets != 0 || hard->seconds != 0 || hard->bytes != 0 || hard->packets != 0;
}

void lifetimes_watch(struct control *control, struct control_sa *own)
{
	if (!has_limits(own->sa))
		return;
	own->limited = true;
	TAILQ_INSERT_TAIL(&control->limited, own, in_limited);
}

void lifetimes_forget(struct control *control, struct control_sa *own)
{
	if (own->limited)
		TAILQ_REMOVE(&control->limited, own, in_limited);
	own->limited = false;
}

uint64_t sa_last_sequence(const struct sa *sa)
{
	return esp_sa_out_next_sequence(sa->out) - 1;
}

struct usage {
	uint64_t seconds, bytes, packets;
};

static struct usage usage_of(const struct sa *sa, uint64_t now)
{
	struct esp_counters counters = sa_counters(sa);
	struct usage usage = {(now - sa->added) / NANOSECONDS, counters.bytes, counters.packets};
	if (sa->direction == SA_OUTBOUND)
		usage.packets = sa_last_sequence(sa);
	return usage;
}

// The name of the limit that is reached, or NULL.
static const char *reached(const struct sa_lifetime *limits, const struct usage *usage)
{
	if (limits->seconds != 0 && usage->seconds >= limits->seconds)
		return "seconds";
	if (limits->bytes != 0 && usage->bytes >= limits->bytes)
		return "bytes";
	if (limits->packets != 0 && usage->packets >= limits->packets)
		return "packets";
	return NULL;
}

static void stop(struct control *control, struct control_sa *own)
{
	lifetimes_forget(control, own);
	sa_stop(control->parts.tunnels, own->sa);
}

static void check_one(struct control *control, struct control_sa *own, uint64_t now)
{
	struct sa *sa = own->sa;
	struct usage usage = usage_of(sa, now);
	const char *limit = reached(&sa->hard, &usage);
	if (limit != NULL) {
		stop(control, own);
		event_send_sa(control, EVENT_SA_HARD_EXPIRED, sa, limit);
		return;
	}
	if (sa->direction == SA_OUTBOUND && esp_sa_out_exhausted(sa->out)) {
		stop(control, own);
		event_send_sa(control, EVENT_SA_SEQUENCE_EXHAUSTED, sa, NULL);
		return;
	}
	limit = sa->state == SA_ACTIVE ? reached(&sa->soft, &usage) : NULL;
	if (limit != NULL) {
		sa->state = SA_SOFT_EXPIRED;
		event_send_sa(control, EVENT_SA_SOFT_EXPIRED, sa, limit);
	}
}

void lifetimes_check(struct control *control)
{
	uint64_t now = control_now();
	struct control_sa *own, *next;
	for (own = TAILQ_FIRST(&control->limited); own != NULL; own = next) {
		next = TAILQ_NEXT(own, in_limited); // check_one may take `own` out
		check_one(control, own, now);
	}
}
