// SPDX-License-Identifier: BSD-3-Clause
// Copyright (c) 2026 the espgw authors

// The socket, its clients, and what each may take of memory and of the control thread's time.

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <event2/event.h>
#include <event2/listener.h>

#include "control/internal.h"

#define BACKLOG       128
#define OUTPUT_MAX    (1024 * 1024) // waiting bytes from which a client's requests wait too
#define EVENTS_MAX    (256 * 1024)  // waiting bytes from which events are dropped
#define OUTPUT_LOW    (64 * 1024)   // waiting bytes at which both go on
#define WRITE_TIMEOUT 30            // seconds
#define HELLO_TIMEOUT 10            // seconds
#define GROUPS_MAX    64            // supplementary groups of a peer that are looked at

static const struct timeval at_once = {0, 0};
static const struct timeval accept_pause = {0, 100000};

struct client {
	TAILQ_ENTRY(client) in_server;
	struct server *server;
	struct bufferevent *connection;
	struct event *again; // fires when another line may be there
	struct session session;
	size_t scanned; // bytes of the input that hold no line feed
	bool skipping;  // the rest of a line that was too long
	bool ended;     // the client sends no more
	uint64_t lost;  // events not sent since it is too slow
};

struct server {
	struct control *control;
	struct event_base *base;
	struct evconnlistener *listener;
	struct event *accept_again;
	TAILQ_HEAD(, client) clients;
	unsigned int client_count;
	uint64_t next_session;
	char path[CONFIG_PATH_SIZE];
	struct stat status;          // of the socket file
	char line[CONTROL_LINE_MAX]; // the request that is carried out; may hold a key
};

// ---- input and output ----

// Moves bytes out of the buffer and wipes them there: what libevent drains, it leaves in memory.
static void take_input(struct evbuffer *input, size_t size, char *destination)
{
	while (size > 0) {
		struct evbuffer_iovec chunk;
		if (evbuffer_peek(input, (ev_ssize_t)size, NULL, &chunk, 1) < 1)
			return;
		size_t part = chunk.iov_len < size ? chunk.iov_len : size;
		if (destination != NULL) {
			memcpy(destination, chunk.iov_base, part);
			destination += part;
		}
		explicit_bzero(chunk.iov_base, part);
		evbuffer_drain(input, part);
		size -= part;
	}
}

static size_t output_length(const struct client *client)
{
	return evbuffer_get_length(bufferevent_get_output(client->connection));
}

static bool send_text(struct client *client, const char *text)
{
	struct evbuffer *output = bufferevent_get_output(client->connection);
	return evbuffer_add(output, text, strlen(text)) == 0 && evbuffer_add(output, "\n", 1) == 0;
}

// Takes `text`. False: the reply can't be given, so the connection is of no use any more.
static bool send_reply(struct client *client, char *text)
{
	bool sent = text != NULL && send_text(client, text);
	if (text != NULL)
		control_free(text);
	return sent;
}

static void close_client(struct client *client)
{
	struct server *server = client->server;
	reservations_session_ended(server->control, client->session.id);
	stages_session_ended(server->control, &client->session);
	TAILQ_REMOVE(&server->clients, client, in_server);
	server->client_count--;
	event_free(client->again);
	bufferevent_free(client->connection); // closes the socket
	free(client);
}

// ---- lines ----

enum line_result { LINE_NONE, LINE_DONE, LINE_FAILED };

static enum line_result refuse_long_line(struct client *client)
{
	char *text = rpc_error_line(RPC_LINE_TOO_LONG, "a request has at most 65,536 bytes");
	return send_reply(client, text) ? LINE_DONE : LINE_FAILED;
}

// No line feed so far: either the rest of the line is still to come, or it is too long already.
static enum line_result wait_or_skip(struct client *client, struct evbuffer *input)
{
	size_t length = evbuffer_get_length(input);
	bool was_skipping = client->skipping;
	client->scanned = length;
	if (!was_skipping && length <= CONTROL_LINE_MAX)
		return LINE_NONE;
	take_input(input, length, NULL);
	client->scanned = 0;
	client->skipping = true;
	return was_skipping ? LINE_NONE : refuse_long_line(client);
}

static enum line_result handle_request(struct client *client, size_t length)
{
	struct server *server = client->server;
	bool greeted = client->session.greeted;
	char *text = request_handle(server->control, &client->session, server->line, length);
	explicit_bzero(server->line, length);
	if (client->session.greeted && !greeted)
		// From now on it may be silent as long as it likes.
		bufferevent_set_timeouts(client->connection, NULL,
			&(struct timeval){server->control->parts.write_timeout, 0});
	return send_reply(client, text) ? LINE_DONE : LINE_FAILED;
}

static enum line_result handle_line(struct client *client)
{
	struct evbuffer *input = bufferevent_get_input(client->connection);
	struct evbuffer_ptr start, end;
	if (evbuffer_get_length(input) == 0)
		return LINE_NONE;
	evbuffer_ptr_set(input, &start, client->scanned, EVBUFFER_PTR_SET);
	end = evbuffer_search_eol(input, &start, NULL, EVBUFFER_EOL_LF);
	if (end.pos < 0)
		return wait_or_skip(client, input);
	size_t length = (size_t)end.pos;
	bool skip = client->skipping, too_long = length > CONTROL_LINE_MAX;
	take_input(input, length, skip || too_long ? NULL : client->server->line);
	evbuffer_drain(input, 1);
	client->scanned = 0;
	client->skipping = false;
	if (skip)
		return LINE_DONE;
	return too_long ? refuse_long_line(client) : handle_request(client, length);
}

// One line at a time, then the event loop's turn, so that no client keeps the others waiting. May
// close the client.
static void run_client(struct client *client)
{
	if (output_length(client) > OUTPUT_MAX)
		return; // written() goes on
	enum line_result result = handle_line(client);
	if (result == LINE_FAILED)
		close_client(client);
	else if (result == LINE_DONE)
		evtimer_add(client->again, &at_once);
	else if (client->ended && output_length(client) == 0)
		close_client(client);
}

static void send_lost(struct client *client)
{
	json_t *members = json_object();
	json_put_number(members, "count", client->lost);
	if (send_reply(client, event_line(EVENT_EVENTS_LOST, members)))
		client->lost = 0;
}

// ---- callbacks ----

static void read_some(struct bufferevent *connection, void *argument)
{
	(void)connection;
	run_client(argument);
}

static void written(struct bufferevent *connection, void *argument)
{
	struct client *client = argument;
	(void)connection;
	if (client->lost != 0)
		send_lost(client);
	run_client(client);
}

static void state_changed(struct bufferevent *connection, short what, void *argument)
{
	struct client *client = argument;
	if ((what & BEV_EVENT_EOF) == 0) { // an error, or too long silent
		close_client(client);
		return;
	}
	// What it sent is still carried out, and answered: it may have closed one direction only.
	client->ended = true;
	bufferevent_setwatermark(connection, EV_WRITE, 0, 0);
	run_client(client);
}

static void run_again(evutil_socket_t fd, short what, void *argument)
{
	(void)fd;
	(void)what;
	run_client(argument);
}

// ---- accept ----

bool server_admits(const struct peer *peer, uid_t own_uid, mode_t mode, gid_t socket_group)
{
	if (peer->uid == 0 || peer->uid == own_uid || (mode & S_IWOTH) != 0)
		return true;
	if ((mode & S_IWGRP) == 0)
		return false;
	bool member = peer->gid == socket_group;
	for (unsigned int i = 0; i < peer->group_count; i++)
		member = member || peer->groups[i] == socket_group;
	return member;
}

// *is_root: of root, or of the daemon's own user.
static bool is_admitted(const struct server *server, int fd, bool *is_root)
{
	struct ucred credentials;
	gid_t groups[GROUPS_MAX];
	socklen_t size = sizeof(credentials), groups_size = sizeof(groups);
	if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &credentials, &size) != 0)
		return false;
	if (getsockopt(fd, SOL_SOCKET, SO_PEERGROUPS, groups, &groups_size) != 0)
		groups_size = 0;
	struct peer peer = {
		credentials.uid, credentials.gid, groups, groups_size / sizeof(groups[0])};
	*is_root = peer.uid == 0 || peer.uid == geteuid();
	return server_admits(&peer, geteuid(), server->status.st_mode, server->status.st_gid);
}

static void turn_away(int fd, enum rpc_error_kind kind, const char *message)
{
	char *text = rpc_error_line(kind, message);
	if (text != NULL) {
		struct iovec parts[] = {{text, strlen(text)}, {(void *)(uintptr_t) "\n", 1}};
		struct msghdr whole = {.msg_iov = parts, .msg_iovlen = 2};
		(void)sendmsg(fd, &whole, MSG_DONTWAIT | MSG_NOSIGNAL); // a courtesy
		control_free(text);
	}
	close(fd);
}

static struct client *new_client(struct server *server, int fd)
{
	struct client *client = calloc(1, sizeof(*client));
	if (client == NULL)
		return NULL;
	client->server = server;
	client->session.id = ++server->next_session;
	client->connection = bufferevent_socket_new(server->base, fd, BEV_OPT_CLOSE_ON_FREE);
	client->again = evtimer_new(server->base, run_again, client);
	if (client->connection != NULL && client->again != NULL)
		return client;
	if (client->again != NULL)
		event_free(client->again);
	if (client->connection != NULL)
		bufferevent_free(client->connection);
	else
		close(fd);
	free(client);
	return NULL;
}

static void accepted(struct evconnlistener *listener, evutil_socket_t fd, struct sockaddr *address,
	int address_size, void *argument)
{
	struct server *server = argument;
	const struct control_parts *parts = &server->control->parts;
	(void)listener;
	(void)address;
	(void)address_size;
	bool is_root = false;
	if (!is_admitted(server, fd, &is_root)) {
		turn_away(fd, RPC_NOT_PERMITTED, "this user may not control the gateway");
		return;
	}
	if (server->client_count >= parts->config->gateway.max_clients) {
		turn_away(fd, RPC_TOO_MANY_CLIENTS,
			"as many clients are connected as gateway.max_clients allows");
		return;
	}
	struct client *client = new_client(server, fd);
	if (client == NULL)
		return;
	client->session.is_root = is_root;
	TAILQ_INSERT_TAIL(&server->clients, client, in_server);
	server->client_count++;
	bufferevent_setcb(client->connection, read_some, written, state_changed, client);
	bufferevent_setwatermark(client->connection, EV_READ, 0, CONTROL_LINE_MAX + 1);
	bufferevent_setwatermark(client->connection, EV_WRITE, OUTPUT_LOW, 0);
	bufferevent_set_timeouts(client->connection, &(struct timeval){parts->hello_timeout, 0},
		&(struct timeval){parts->write_timeout, 0});
	bufferevent_enable(client->connection, EV_READ | EV_WRITE);
}

// Out of file descriptors, say: the waiting connection stays readable, so trying again at once
// would be a busy loop.
static void accept_failed(struct evconnlistener *listener, void *argument)
{
	struct server *server = argument;
	control_log(server->control, CONFIG_LOG_WARNING, "%s: accept: %s", server->path,
		strerror(errno));
	evconnlistener_disable(listener);
	evtimer_add(server->accept_again, &accept_pause);
}

static void accept_again(evutil_socket_t fd, short what, void *argument)
{
	struct server *server = argument;
	(void)fd;
	(void)what;
	evconnlistener_enable(server->listener);
}

// ---- events ----

void server_send_event(struct server *server, enum event_kind kind, const char *text)
{
	struct client *client;
	TAILQ_FOREACH (client, &server->clients, in_server) {
		if ((client->session.events & UINT32_C(1) << kind) == 0)
			continue;
		if (client->lost != 0 || output_length(client) > EVENTS_MAX ||
			!send_text(client, text))
			client->lost++;
	}
}

// ---- start and end ----

static int fail(struct control_error *error, const char *path, const char *what)
{
	snprintf(error->text, sizeof(error->text), "%s: %s: %s", path, what, strerror(errno));
	return -1;
}

static struct sockaddr_un address_of(const char *path)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	snprintf(address.sun_path, sizeof(address.sun_path), "%s", path);
	return address;
}

int server_check_path(const char *path, struct control_error *error)
{
	struct stat status;
	if (lstat(path, &status) != 0)
		return errno == ENOENT ? 0 : fail(error, path, "can't be looked at");
	if (!S_ISSOCK(status.st_mode)) {
		snprintf(error->text, sizeof(error->text),
			"%s: exists and is no socket; remove it, or choose another control_socket",
			path);
		return -1;
	}
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return fail(error, path, "no socket");
	struct sockaddr_un address = address_of(path);
	int result = connect(fd, (struct sockaddr *)&address, sizeof(address));
	int reason = errno;
	close(fd);
	// EAGAIN: somebody listens, with a full queue.
	if (result == 0 || reason == EAGAIN) {
		snprintf(error->text, sizeof(error->text), "another espgw answers on %s", path);
		return -1;
	}
	errno = reason;
	return reason == ECONNREFUSED || reason == ENOENT
		       ? 0
		       : fail(error, path, "can't tell whether another espgw answers");
}

// The file has its final mode from the moment it can be seen.
static int bind_with_mode(int fd, const char *path, mode_t mode)
{
	struct sockaddr_un address = address_of(path);
	mode_t before = umask(~mode & 0777);
	int result = bind(fd, (struct sockaddr *)&address, sizeof(address));
	umask(before);
	return result;
}

static int open_socket(struct server *server, mode_t mode, struct control_error *error)
{
	if (server_check_path(server->path, error) != 0)
		return -1;
	if (unlink(server->path) != 0 && errno != ENOENT) // nobody answers on it
		return fail(error, server->path, "the old socket can't be removed");
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return fail(error, server->path, "no socket");
	if (bind_with_mode(fd, server->path, mode) != 0 ||
		lstat(server->path, &server->status) != 0 || listen(fd, BACKLOG) != 0) {
		fail(error, server->path, "can't listen");
		close(fd);
		return -1;
	}
	return fd;
}

struct server *server_create(
	struct control *control, struct event_base *base, struct control_error *error)
{
	const struct config_gateway *gateway = &control->parts.config->gateway;
	struct server *server = calloc(1, sizeof(*server));
	if (server == NULL) {
		snprintf(error->text, sizeof(error->text), "no memory for the control socket");
		return NULL;
	}
	if (control->parts.write_timeout == 0)
		control->parts.write_timeout = WRITE_TIMEOUT;
	if (control->parts.hello_timeout == 0)
		control->parts.hello_timeout = HELLO_TIMEOUT;
	server->control = control;
	server->base = base;
	TAILQ_INIT(&server->clients);
	snprintf(server->path, sizeof(server->path), "%s", gateway->control_socket);
	int fd = open_socket(server, gateway->control_socket_mode, error);
	if (fd < 0) {
		free(server);
		return NULL;
	}
	server->accept_again = evtimer_new(base, accept_again, server);
	server->listener = evconnlistener_new(
		base, accepted, server, LEV_OPT_CLOSE_ON_FREE | LEV_OPT_CLOSE_ON_EXEC, 0, fd);
	if (server->accept_again == NULL || server->listener == NULL) {
		snprintf(error->text, sizeof(error->text), "no memory for the control socket");
		if (server->listener == NULL)
			close(fd);
		server_destroy(server);
		return NULL;
	}
	evconnlistener_set_error_cb(server->listener, accept_failed);
	return server;
}

void server_destroy(struct server *server)
{
	if (server == NULL)
		return;
	while (!TAILQ_EMPTY(&server->clients))
		close_client(TAILQ_FIRST(&server->clients));
	if (server->listener != NULL)
		evconnlistener_free(server->listener);
	if (server->accept_again != NULL)
		event_free(server->accept_again);
	// Somebody may have put another socket there.
	struct stat now;
	if (lstat(server->path, &now) == 0 && now.st_ino == server->status.st_ino &&
		now.st_dev == server->status.st_dev)
		unlink(server->path);
	explicit_bzero(server->line, sizeof(server->line));
	free(server);
}
