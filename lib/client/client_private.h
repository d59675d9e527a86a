// SPDX-License-Identifier: BSD-3-Clause
// Copyright (c) 2026 the espgw authors

// What the library's own files share: connection.c moves lines, client.c gives them meaning, sa.c
// builds the requests that hold keys.

#ifndef ESPGW_CLIENT_PRIVATE_H
#define ESPGW_CLIENT_PRIVATE_H

#include "client.h"
#include "text.h"

struct espgw_client {
	int fd;
	bool broken; // the stream can't be used any more; nothing is sent or received
	int timeout_ms;
	uint64_t last_id;           // of the newest request; answers to older ones came too late
	struct espgw_text received; // [start, length) has not been taken as a line yet
	size_t start, searched;     // no LF in [start, searched)
	json_t *events;             // array of those not taken yet
	uint64_t events_lost;       // dropped here since the last "events.lost"
	struct espgw_server server;
};

// Fills `error` (may be NULL) and returns `status`.
enum espgw_status espgw_fail(struct espgw_error *error, enum espgw_status status,
	const char *parameter, const char *format, ...) __attribute__((format(printf, 4, 5)));

// When a wait that begins now has to end: milliseconds of the monotonic clock, -1 = never.
int64_t espgw_deadline(int timeout_ms);
bool espgw_deadline_passed(int64_t deadline);

// Sends all of `text`. Reads what arrives meanwhile, so that two full socket buffers can't block
// each other.
enum espgw_status espgw_connection_send(struct espgw_client *client, const struct espgw_text *text,
	int64_t deadline, struct espgw_error *error);

// The next line without its LF; valid until the next call of this function or of send.
enum espgw_status espgw_connection_receive(struct espgw_client *client, const char **line,
	size_t *length, int64_t deadline, struct espgw_error *error);

// No more traffic. The descriptor stays taken until close, so that nobody polls a stranger's.
void espgw_connection_break(struct espgw_client *client);

// Sends `request` (wiped before this returns) that has the id client->last_id, awaits the answer.
enum espgw_status espgw_client_exchange(struct espgw_client *client, struct espgw_text *request,
	json_t **result, struct espgw_error *error);

// Begins a request up to and including `"params":`.
void espgw_request_begin(
	struct espgw_client *client, struct espgw_text *request, const char *method);

#endif
