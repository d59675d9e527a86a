// SPDX-License-Identifier: BSD-3-Clause
// Copyright (c) 2026 the espgw authors

#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

#include "client_private.h"

#define READ_BYTES (16 * 1024)
// The longest line that the protocol lets the gateway send.
#define LINE_BYTES_MAX (4 * 1024 * 1024)

static int64_t monotonic_ms(void)
{
	struct timespec now;
	clock_gettime(CLOCK_MONOTONIC, &now);
	return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

int64_t espgw_deadline(int timeout_ms)
{
	return timeout_ms < 0 ? -1 : monotonic_ms() + timeout_ms;
}

bool espgw_deadline_passed(int64_t deadline)
{
	return deadline >= 0 && monotonic_ms() >= deadline;
}

void espgw_connection_break(struct espgw_client *client)
{
	client->broken = true;
	shutdown(client->fd, SHUT_RDWR);
}

// Waits for any of `events`; ESPGW_TIMEOUT at the deadline.
static enum espgw_status connection_wait(
	struct espgw_client *client, short events, int64_t deadline, struct espgw_error *error)
{
	for (;;) {
		int64_t left = deadline < 0 ? -1 : deadline - monotonic_ms();
		if (deadline >= 0 && left < 0)
			left = 0;
		struct pollfd pollfd = {.fd = client->fd, .events = events};
		int ready = poll(&pollfd, 1, left > INT_MAX ? INT_MAX : (int)left);
		if (ready > 0)
			return ESPGW_OK;
		if (ready == 0 && (deadline < 0 || left < INT_MAX))
			return espgw_fail(error, ESPGW_TIMEOUT, NULL,
				"nothing came from the gateway in time");
		if (ready < 0 && errno != EINTR)
			return espgw_fail(error, ESPGW_CLOSED, NULL, "poll: %s", strerror(errno));
	}
}

// Takes in what has arrived, at most READ_BYTES. ESPGW_TIMEOUT: nothing has.
static enum espgw_status connection_read(struct espgw_client *client, struct espgw_error *error)
{
	struct espgw_text *received = &client->received;
	if (client->start > 0) {
		memmove(received->bytes, received->bytes + client->start,
			received->length - client->start);
		received->length -= client->start;
		client->searched -= client->start;
		client->start = 0;
	}
	if (!espgw_text_reserve(received, READ_BYTES)) {
		espgw_connection_break(client);
		return espgw_fail(error, ESPGW_MEMORY, NULL, "no memory");
	}
	ssize_t length;
	do
		length = recv(
			client->fd, received->bytes + received->length, READ_BYTES, MSG_DONTWAIT);
	while (length < 0 && errno == EINTR);
	if (length > 0) {
		received->length += length;
		return ESPGW_OK;
	}
	if (length < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
		return ESPGW_TIMEOUT;
	const char *why = length < 0 ? strerror(errno) : "end of stream";
	espgw_connection_break(client);
	return espgw_fail(error, ESPGW_CLOSED, NULL, "the gateway closed the connection (%s)", why);
}

// Waits until there may be room to send, and meanwhile reads.
static enum espgw_status connection_await_room(
	struct espgw_client *client, int64_t deadline, struct espgw_error *error)
{
	enum espgw_status status = connection_wait(client, POLLIN | POLLOUT, deadline, error);
	if (status != ESPGW_OK)
		return status;
	status = connection_read(client, error);
	return status == ESPGW_TIMEOUT ? ESPGW_OK : status;
}

enum espgw_status espgw_connection_send(struct espgw_client *client, const struct espgw_text *text,
	int64_t deadline, struct espgw_error *error)
{
	size_t sent = 0;
	while (sent < text->length) {
		ssize_t length = send(client->fd, text->bytes + sent, text->length - sent,
			MSG_NOSIGNAL | MSG_DONTWAIT);
		if (length >= 0) {
			sent += length;
			continue;
		}
		if (errno == EINTR)
			continue;
		enum espgw_status status = ESPGW_CLOSED;
		if (errno == EAGAIN || errno == EWOULDBLOCK)
			status = connection_await_room(client, deadline, error);
		// The gateway may have said why it closed: whoever receives will see.
		if (status == ESPGW_CLOSED)
			return ESPGW_OK;
		if (status != ESPGW_OK) {
			// Half a request is out, and nothing sensible can follow it.
			espgw_connection_break(client);
			return status;
		}
	}
	return ESPGW_OK;
}

enum espgw_status espgw_connection_receive(struct espgw_client *client, const char **line,
	size_t *length, int64_t deadline, struct espgw_error *error)
{
	struct espgw_text *received = &client->received;
	for (;;) {
		const char *end = NULL;
		if (received->length > client->searched)
			end = memchr(received->bytes + client->searched, '\n',
				received->length - client->searched);
		if (end != NULL) {
			*line = received->bytes + client->start;
			*length = end - *line;
			client->start += *length + 1;
			client->searched = client->start;
			return ESPGW_OK;
		}
		client->searched = received->length;
		if (received->length - client->start > LINE_BYTES_MAX) {
			espgw_connection_break(client);
			return espgw_fail(error, ESPGW_PROTOCOL, NULL,
				"the gateway sent a line of more than %d bytes", LINE_BYTES_MAX);
		}
		if (client->broken)
			return espgw_fail(
				error, ESPGW_CLOSED, NULL, "the connection is closed already");
		enum espgw_status status = connection_read(client, error);
		if (status == ESPGW_TIMEOUT)
			status = connection_wait(client, POLLIN, deadline, error);
		if (status != ESPGW_OK)
			return status;
	}
}
