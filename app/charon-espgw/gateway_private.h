// SPDX-License-Identifier: GPL-2.0-or-later
// Copyright (c) 2026 the espgw authors

// What the files about the gateway share. gateway.c owns the connections and the thread,
// requests.c carries out charon's calls, reconcile.c makes the gateway's SAs those of the table,
// events.c hears what the gateway says by itself.

#ifndef CHARON_ESPGW_GATEWAY_PRIVATE_H
#define CHARON_ESPGW_GATEWAY_PRIVATE_H

#include <pthread.h>
#include <stdatomic.h>

#include "gateway.h"

#define DESCRIPTION_BYTES 64

// Something to tell charon once the lock is released.
struct notice {
	STAILQ_ENTRY(notice) link;
	enum { NOTICE_SOFT, NOTICE_HARD, NOTICE_ACQUIRE, NOTICE_MAPPING } kind;
	uint32_t spi, reqid;
	char destination[INET6_ADDRSTRLEN], source[INET6_ADDRSTRLEN];
	uint16_t port;
};

// An SA in the gateway that an earlier charon added. It carries traffic until ours take over.
struct stranger {
	TAILQ_ENTRY(stranger) link;
	char tunnel[TUNNEL_BYTES], destination[INET6_ADDRSTRLEN];
	enum espgw_direction direction;
	uint32_t spi;
	int64_t due_ms; // when to delete it; 0 = not yet
};

struct gateway {
	char *socket;
	int timeout_ms, repeat_ms;
	struct gateway_hooks hooks;
	struct traps *traps;
	int wake_fd;
	atomic_bool stopping;

	struct espgw_client *events; // the thread's own

	pthread_mutex_t turn;       // who waits for the next one
	pthread_mutex_t mutex;      // for all below
	struct espgw_client *calls; // NULL = the gateway is away
	char epoch[sizeof(((struct espgw_server *)NULL)->epoch)];
	struct sa_table sas;
	struct tunnels tunnels;
	TAILQ_HEAD(, stranger) strangers;
	STAILQ_HEAD(, notice) notices;
	char trouble[sizeof(((struct espgw_error *)NULL)->message)]; // logged last
};

// Whoever waits gets it next: the thread, which does one call after another, does not keep charon
// waiting for all of them.
void gateway_lock(struct gateway *gateway);
void gateway_unlock(struct gateway *gateway);

int64_t gateway_now_ms(void);
void gateway_log(const struct gateway *gateway, int level, const char *format, ...)
	__attribute__((format(printf, 3, 4)));

// ---- with the lock held ----

// What a call's status means: true, the gateway answered (it may have refused). Else the connection
// is closed, and the thread will find out by reconciling what became of the call.
bool gateway_answered(
	struct gateway *gateway, enum espgw_status status, const struct espgw_error *error);
// Closes the connection for calls, if there is one; the thread connects again.
void gateway_disconnect(struct gateway *gateway, const char *why);
void gateway_wake(struct gateway *gateway);

void notice_expire(struct gateway *gateway, const struct sa *sa, bool hard);
void notice_acquire(struct gateway *gateway, uint32_t reqid);
void notice_mapping(
	struct gateway *gateway, const struct sa *sa, const char *source, uint16_t port);

// Compares the gateway's SAs with the table, after each connection; with another `epoch` than last
// time the gateway was restarted. False: the connection is gone again.
bool reconcile_begin(struct gateway *gateway, const char *epoch);
// Does one thing that is still to be done, at most one call. Returns in how many milliseconds the
// next is due; -1 = nothing is.
int reconcile_step(struct gateway *gateway);
// Adds the SAs of this if_id that wait for it, in the order they came: the newest outbound one
// carries the traffic.
void reconcile_push(struct gateway *gateway, uint32_t if_id);
// Deletes an SA in the gateway. False: the connection is gone; `sa` may be there still.
bool reconcile_delete(struct gateway *gateway, const struct sa *sa);
bool reconcile_update(struct gateway *gateway, struct sa *sa);

void event_handle(struct gateway *gateway, const json_t *event);
enum espgw_status event_subscribe(struct espgw_client *client, struct espgw_error *error);

#endif
