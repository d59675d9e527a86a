// SPDX-License-Identifier: GPL-2.0-or-later
// Copyright (c) 2026 the espgw authors

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "traps.h"

struct entry {
	TAILQ_ENTRY(entry) link;
	struct trap trap;
};

struct traps {
	pthread_mutex_t mutex;
	TAILQ_HEAD(, entry) entries; // newest first
};

struct traps *traps_create(void)
{
	struct traps *traps = calloc(1, sizeof(*traps));
	if (traps == NULL)
		return NULL;
	pthread_mutex_init(&traps->mutex, NULL);
	TAILQ_INIT(&traps->entries);
	return traps;
}

void traps_destroy(struct traps *traps)
{
	traps_clear(traps);
	pthread_mutex_destroy(&traps->mutex);
	free(traps);
}

bool traps_add(struct traps *traps, const struct trap *trap)
{
	struct entry *entry = malloc(sizeof(*entry));
	if (entry == NULL)
		return false;
	entry->trap = *trap;
	pthread_mutex_lock(&traps->mutex);
	TAILQ_INSERT_HEAD(&traps->entries, entry, link);
	pthread_mutex_unlock(&traps->mutex);
	return true;
}

static bool trap_equal(const struct trap *a, const struct trap *b)
{
	return a->if_id == b->if_id && a->reqid == b->reqid && strcmp(a->local, b->local) == 0 &&
	       strcmp(a->remote, b->remote) == 0;
}

void traps_remove(struct traps *traps, const struct trap *trap)
{
	struct entry *entry;
	pthread_mutex_lock(&traps->mutex);
	TAILQ_FOREACH (entry, &traps->entries, link) {
		if (trap_equal(&entry->trap, trap)) {
			TAILQ_REMOVE(&traps->entries, entry, link);
			free(entry);
			break;
		}
	}
	pthread_mutex_unlock(&traps->mutex);
}

void traps_clear(struct traps *traps)
{
	struct entry *entry;
	pthread_mutex_lock(&traps->mutex);
	while ((entry = TAILQ_FIRST(&traps->entries)) != NULL) {
		TAILQ_REMOVE(&traps->entries, entry, link);
		free(entry);
	}
	pthread_mutex_unlock(&traps->mutex);
}

static bool trap_is_for(const struct trap *trap, const struct tunnel *tunnel)
{
	if (trap->if_id != 0)
		return trap->if_id == tunnel->if_id;
	return strcmp(trap->local, tunnel->gateway_endpoint) == 0 &&
	       strcmp(trap->remote, tunnel->customer_endpoint) == 0;
}

uint32_t traps_find(struct traps *traps, const struct tunnel *tunnel)
{
	uint32_t reqid = 0;
	const struct entry *entry;
	pthread_mutex_lock(&traps->mutex);
	TAILQ_FOREACH (entry, &traps->entries, link) {
		if (trap_is_for(&entry->trap, tunnel)) {
			reqid = entry->trap.reqid;
			break;
		}
	}
	pthread_mutex_unlock(&traps->mutex);
	return reqid;
}
