// SPDX-License-Identifier: GPL-2.0-or-later
// Copyright (c) 2026 the espgw authors

#include <errno.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#include "gateway_private.h"

#define CLIENT_NAME      "charon-espgw/" ESPGW_VERSION
#define RETRY_MS_FIRST   50
#define RETRY_MS_MAX     1000
#define EVENTS_AT_A_TIME 256

void gateway_lock(struct gateway *gateway)
{
	pthread_mutex_lock(&gateway->turn);
	pthread_mutex_lock(&gateway->mutex);
	pthread_mutex_unlock(&gateway->turn);
}

void gateway_unlock(struct gateway *gateway)
{
	pthread_mutex_unlock(&gateway->mutex);
}

int64_t gateway_now_ms(void)
{
	struct timespec now;
	clock_gettime(CLOCK_MONOTONIC, &now);
	return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

void gateway_log(const struct gateway *gateway, int level, const char *format, ...)
{
	char text[1024];
	va_list arguments;
	va_start(arguments, format);
	vsnprintf(text, sizeof(text), format, arguments);
	va_end(arguments);
	gateway->hooks.log(level, text);
}

// ---- notices ----

static struct notice *notice_new(struct gateway *gateway)
{
	struct notice *notice = calloc(1, sizeof(*notice));
	if (notice != NULL)
		STAILQ_INSERT_TAIL(&gateway->notices, notice, link);
	return notice;
}

static struct notice *notice_new_for(struct gateway *gateway, const struct sa *sa)
{
	struct notice *notice = notice_new(gateway);
	if (notice == NULL)
		return NULL;
	notice->spi = sa->spi;
	memcpy(notice->destination, sa->outer.destination, sizeof(notice->destination));
	return notice;
}

void notice_expire(struct gateway *gateway, const struct sa *sa, bool hard)
{
	struct notice *notice = notice_new_for(gateway, sa);
	if (notice != NULL)
		notice->kind = hard ? NOTICE_HARD : NOTICE_SOFT;
}

void notice_acquire(struct gateway *gateway, uint32_t reqid)
{
	struct notice *notice = notice_new(gateway);
	if (notice == NULL)
		return;
	notice->kind = NOTICE_ACQUIRE;
	notice->reqid = reqid;
}

void notice_mapping(struct gateway *gateway, const struct sa *sa, const char *source, uint16_t port)
{
	struct notice *notice = notice_new_for(gateway, sa);
	if (notice == NULL)
		return;
	notice->kind = NOTICE_MAPPING;
	snprintf(notice->source, sizeof(notice->source), "%s", source);
	notice->port = port;
}

static void notice_tell(const struct gateway *gateway, const struct notice *notice)
{
	const struct gateway_hooks *hooks = &gateway->hooks;
	switch (notice->kind) {
	case NOTICE_SOFT:
	case NOTICE_HARD:
		hooks->expire(notice->spi, notice->destination, notice->kind == NOTICE_HARD);
		break;
	case NOTICE_ACQUIRE:
		hooks->acquire(notice->reqid);
		break;
	case NOTICE_MAPPING:
		hooks->mapping(notice->spi, notice->destination, notice->source, notice->port);
		break;
	}
}

static struct notice *notice_take(struct gateway *gateway)
{
	gateway_lock(gateway);
	struct notice *notice = STAILQ_FIRST(&gateway->notices);
	if (notice != NULL)
		STAILQ_REMOVE_HEAD(&gateway->notices, link);
	gateway_unlock(gateway);
	return notice;
}

static void notices_tell(struct gateway *gateway)
{
	struct notice *notice;
	while ((notice = notice_take(gateway)) != NULL) {
		notice_tell(gateway, notice);
		free(notice);
	}
}

// ---- connections ----

void gateway_wake(struct gateway *gateway)
{
	uint64_t one = 1;
	while (write(gateway->wake_fd, &one, sizeof(one)) < 0 && errno == EINTR)
		;
}

// Says so once, until something changes.
static void gateway_log_trouble(struct gateway *gateway, const char *message)
{
	if (strcmp(gateway->trouble, message) == 0)
		return;
	snprintf(gateway->trouble, sizeof(gateway->trouble), "%s", message);
	gateway_log(gateway, 1, "no connection to espgw at %s, trying on: %s", gateway->socket,
		message);
}

void gateway_disconnect(struct gateway *gateway, const char *why)
{
	if (gateway->calls == NULL)
		return;
	espgw_client_close(gateway->calls);
	gateway->calls = NULL;
	gateway_log_trouble(gateway, why);
	gateway_wake(gateway);
}

bool gateway_answered(
	struct gateway *gateway, enum espgw_status status, const struct espgw_error *error)
{
	if (status == ESPGW_OK || status == ESPGW_REFUSED || status == ESPGW_ARGUMENT)
		return true;
	gateway_disconnect(gateway, error->message);
	return false;
}

// Both connections, to the same start of the gateway. They are made without the lock.
static enum espgw_status gateway_open(struct gateway *gateway, struct espgw_client **events,
	struct espgw_client **calls, struct espgw_error *error)
{
	*calls = NULL;
	enum espgw_status status = espgw_client_connect(
		gateway->socket, CLIENT_NAME, gateway->timeout_ms, events, error);
	if (status == ESPGW_OK)
		status = event_subscribe(*events, error);
	if (status == ESPGW_OK)
		status = espgw_client_connect(
			gateway->socket, CLIENT_NAME, gateway->timeout_ms, calls, error);
	if (status == ESPGW_OK && strcmp(espgw_client_server(*events)->epoch,
					  espgw_client_server(*calls)->epoch) != 0) {
		snprintf(error->message, sizeof(error->message), "it was just restarted");
		status = ESPGW_CLOSED;
	}
	if (status != ESPGW_OK) {
		espgw_client_close(*events);
		espgw_client_close(*calls);
	}
	return status;
}

static bool gateway_connect(struct gateway *gateway)
{
	struct espgw_client *events, *calls;
	struct espgw_error error;
	enum espgw_status status = gateway_open(gateway, &events, &calls, &error);
	gateway_lock(gateway);
	if (status != ESPGW_OK) {
		gateway_log_trouble(gateway, error.message);
		gateway_unlock(gateway);
		return false;
	}
	const struct espgw_server *server = espgw_client_server(calls);
	gateway->events = events;
	gateway->calls = calls;
	bool ready = reconcile_begin(gateway, server->epoch);
	if (ready) {
		gateway->trouble[0] = '\0';
		gateway_log(gateway, 1, "connected to %s %s \"%s\" at %s", server->server,
			server->version, server->name, gateway->socket);
	}
	gateway_unlock(gateway);
	notices_tell(gateway);
	return ready;
}

// ---- the thread ----

static void gateway_wait(struct gateway *gateway, int timeout_ms)
{
	struct pollfd polled[] = {
		{.fd = gateway->wake_fd, .events = POLLIN},
		{.fd = gateway->events == NULL ? -1 : espgw_client_fd(gateway->events),
			.events = POLLIN},
	};
	if (poll(polled, 2, timeout_ms) <= 0 || polled[0].revents == 0)
		return;
	uint64_t count;
	while (read(gateway->wake_fd, &count, sizeof(count)) < 0 && errno == EINTR)
		;
}

// Takes what has come. False: the connection is gone.
static bool gateway_take_events(struct gateway *gateway)
{
	for (int i = 0; i < EVENTS_AT_A_TIME; i++) {
		json_t *event;
		struct espgw_error error;
		enum espgw_status status =
			espgw_client_event_next(gateway->events, 0, &event, &error);
		if (status == ESPGW_TIMEOUT)
			return true;
		gateway_lock(gateway);
		if (status == ESPGW_OK)
			event_handle(gateway, event);
		else
			gateway_disconnect(gateway, error.message);
		gateway_unlock(gateway);
		if (status != ESPGW_OK)
			return false;
		json_decref(event);
	}
	return true;
}

// What has to be done while there is a connection; false when it is gone. *wait_ms: until the next.
static bool gateway_work(struct gateway *gateway, int *wait_ms)
{
	bool there = gateway_take_events(gateway);
	gateway_lock(gateway);
	*wait_ms = gateway->calls == NULL ? 0 : reconcile_step(gateway);
	there = there && gateway->calls != NULL;
	gateway_unlock(gateway);
	notices_tell(gateway);
	return there;
}

void gateway_run(struct gateway *gateway)
{
	int retry_ms = RETRY_MS_FIRST;
	while (!atomic_load(&gateway->stopping)) {
		int wait_ms = 0;
		if (gateway->events == NULL && gateway_connect(gateway))
			retry_ms = RETRY_MS_FIRST;
		if (gateway->events == NULL || !gateway_work(gateway, &wait_ms)) {
			espgw_client_close(gateway->events);
			gateway->events = NULL;
			wait_ms = retry_ms;
			retry_ms = retry_ms * 2 < RETRY_MS_MAX ? retry_ms * 2 : RETRY_MS_MAX;
		}
		gateway_wait(gateway, wait_ms);
	}
}

void gateway_stop(struct gateway *gateway)
{
	atomic_store(&gateway->stopping, true);
	gateway_wake(gateway);
}

// ---- life ----

struct gateway *gateway_create(const struct gateway_settings *settings,
	const struct gateway_hooks *hooks, struct traps *traps)
{
	struct gateway *gateway = calloc(1, sizeof(*gateway));
	char *path = strdup(settings->socket);
	int wake_fd = eventfd(0, EFD_CLOEXEC);
	if (gateway == NULL || path == NULL || wake_fd < 0) {
		free(gateway);
		free(path);
		if (wake_fd >= 0)
			close(wake_fd);
		return NULL;
	}
	gateway->socket = path;
	gateway->timeout_ms = settings->timeout_ms;
	gateway->repeat_ms = settings->repeat_ms;
	gateway->hooks = *hooks;
	gateway->traps = traps;
	gateway->wake_fd = wake_fd;
	pthread_mutex_init(&gateway->turn, NULL);
	pthread_mutex_init(&gateway->mutex, NULL);
	TAILQ_INIT(&gateway->sas);
	TAILQ_INIT(&gateway->strangers);
	STAILQ_INIT(&gateway->notices);
	return gateway;
}

void gateway_destroy(struct gateway *gateway)
{
	espgw_client_close(gateway->events);
	espgw_client_close(gateway->calls);
	sa_table_clear(&gateway->sas);
	tunnels_clear(&gateway->tunnels);
	struct stranger *stranger;
	while ((stranger = TAILQ_FIRST(&gateway->strangers)) != NULL) {
		TAILQ_REMOVE(&gateway->strangers, stranger, link);
		free(stranger);
	}
	struct notice *notice;
	while ((notice = STAILQ_FIRST(&gateway->notices)) != NULL) {
		STAILQ_REMOVE_HEAD(&gateway->notices, link);
		free(notice);
	}
	pthread_mutex_destroy(&gateway->mutex);
	pthread_mutex_destroy(&gateway->turn);
	close(gateway->wake_fd);
	free(gateway->socket);
	free(gateway);
}
