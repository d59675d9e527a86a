// SPDX-License-Identifier: BSD-3-Clause
// Copyright (c) 2026 the espgw authors

#include <ctype.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <sys/socket.h>
#include <sys/time.h>

#include "host/netlink.h"

// The kernel answers within its send call; the limit is there so that nothing can hang the caller.
#define ANSWER_SECONDS 5

static int netlink_set_options(struct netlink *netlink, bool blocking)
{
	int one = 1;
	// Kernels that lack one of these answer all the same: with fewer words, or unfiltered.
	mnl_socket_setsockopt(netlink->socket, NETLINK_EXT_ACK, &one, sizeof(one));
	mnl_socket_setsockopt(netlink->socket, NETLINK_CAP_ACK, &one, sizeof(one));
	mnl_socket_setsockopt(netlink->socket, NETLINK_GET_STRICT_CHK, &one, sizeof(one));
	if (!blocking)
		return 0;
	struct timeval limit = {.tv_sec = ANSWER_SECONDS};
	return setsockopt(
		mnl_socket_get_fd(netlink->socket), SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
}

int netlink_open(struct netlink *netlink, bool blocking)
{
	memset(netlink, 0, sizeof(*netlink));
	netlink->buffer = malloc(NETLINK_RECEIVE_SIZE);
	if (!netlink->buffer)
		return -ENOMEM;
	netlink->socket =
		mnl_socket_open2(NETLINK_ROUTE, SOCK_CLOEXEC | (blocking ? 0 : SOCK_NONBLOCK));
	if (!netlink->socket || mnl_socket_bind(netlink->socket, 0, MNL_SOCKET_AUTOPID) != 0 ||
		netlink_set_options(netlink, blocking) != 0) {
		int result = -errno;
		netlink_close(netlink);
		return result;
	}
	return 0;
}

void netlink_close(struct netlink *netlink)
{
	if (netlink->socket)
		mnl_socket_close(netlink->socket);
	free(netlink->buffer);
	memset(netlink, 0, sizeof(*netlink));
}

void *netlink_request_begin(
	struct netlink_request *request, uint16_t type, uint16_t flags, size_t size)
{
	memset(request, 0, sizeof(*request));
	struct nlmsghdr *header = mnl_nlmsg_put_header(request->bytes);
	header->nlmsg_type = type;
	header->nlmsg_flags = NLM_F_REQUEST | flags;
	return mnl_nlmsg_put_extra_header(header, size);
}

void netlink_put_address(
	struct netlink_request *request, uint16_t type, const struct packet_address *address)
{
	mnl_attr_put(&request->header, type, address->family == 4 ? 4 : 16, address->bytes);
}

// Reads one datagram into the buffer. Its size, or -errno.
static ssize_t netlink_read(struct netlink *netlink)
{
	struct sockaddr_nl sender;
	struct iovec vector = {.iov_base = netlink->buffer, .iov_len = NETLINK_RECEIVE_SIZE};
	for (;;) {
		struct msghdr header = {.msg_name = &sender,
			.msg_namelen = sizeof(sender),
			.msg_iov = &vector,
			.msg_iovlen = 1};
		ssize_t size = recvmsg(mnl_socket_get_fd(netlink->socket), &header, 0);
		if (size < 0 && errno == EINTR)
			continue;
		if (size < 0)
			return -errno;
		// Another process can send to this socket too, if it has the privileges.
		if (header.msg_namelen != sizeof(sender) || sender.nl_pid != 0)
			continue;
		if (header.msg_flags & MSG_TRUNC)
			return -ENOBUFS;
		return size;
	}
}

int netlink_receive(struct netlink *netlink, netlink_visitor visitor, void *argument)
{
	ssize_t size = netlink_read(netlink);
	if (size < 0)
		return (int)size;
	int left = (int)size;
	for (const struct nlmsghdr *message = (const void *)netlink->buffer;
		mnl_nlmsg_ok(message, left); message = mnl_nlmsg_next(message, &left))
		visitor(message, argument);
	return 0;
}

// Keeps the kernel's words from the attributes behind an error or the end of a dump.
static void netlink_keep_reason(
	struct netlink *netlink, const struct nlmsghdr *message, size_t offset)
{
	if (!(message->nlmsg_flags & NLM_F_ACK_TLVS))
		return;
	const struct nlattr *table[NLMSGERR_ATTR_MSG + 1];
	if (!netlink_read_message(message, offset, table, NLMSGERR_ATTR_MSG))
		return;
	const struct nlattr *text = table[NLMSGERR_ATTR_MSG];
	if (!text)
		return;
	size_t size = mnl_attr_get_payload_len(text);
	const char *bytes = mnl_attr_get_payload(text);
	size_t length = 0;
	for (; length < size && length < NETLINK_REASON_SIZE - 1 && bytes[length]; length++)
		netlink->reason[length] =
			isprint((unsigned char)bytes[length]) ? bytes[length] : '?';
	netlink->reason[length] = '\0';
}

enum answer { ANSWER_MORE, ANSWER_END };

// What one message of an answer means. *result is set when it is the last one.
static enum answer netlink_read_answer(
	struct netlink *netlink, const struct nlmsghdr *message, int *result)
{
	if (message->nlmsg_type == NLMSG_ERROR) {
		if (mnl_nlmsg_get_payload_len(message) < sizeof(struct nlmsgerr)) {
			*result = -EBADMSG;
			return ANSWER_END;
		}
		const struct nlmsgerr *answer = mnl_nlmsg_get_payload(message);
		size_t offset = sizeof(*answer);
		if (!(message->nlmsg_flags & NLM_F_CAPPED))
			offset += answer->msg.nlmsg_len - MNL_NLMSG_HDRLEN;
		*result = answer->error;
		netlink_keep_reason(netlink, message, offset);
		return ANSWER_END;
	}
	if (message->nlmsg_type == NLMSG_DONE) {
		int32_t code = 0;
		if (mnl_nlmsg_get_payload_len(message) >= sizeof(code)) {
			memcpy(&code, mnl_nlmsg_get_payload(message), sizeof(code));
			netlink_keep_reason(netlink, message, sizeof(code));
		}
		*result = code < 0 ? code : 0;
		return ANSWER_END;
	}
	return ANSWER_MORE;
}

static int netlink_await(struct netlink *netlink, netlink_visitor visitor, void *argument)
{
	bool interrupted = false;
	for (;;) {
		ssize_t size = netlink_read(netlink);
		if (size < 0)
			return size == -EAGAIN ? -ETIMEDOUT : (int)size;
		int left = (int)size;
		for (const struct nlmsghdr *message = (const void *)netlink->buffer;
			mnl_nlmsg_ok(message, left); message = mnl_nlmsg_next(message, &left)) {
			// What is left of an answer that was given up.
			if (message->nlmsg_seq != netlink->sequence)
				continue;
			if (message->nlmsg_flags & NLM_F_DUMP_INTR)
				interrupted = true;
			int result = 0;
			if (netlink_read_answer(netlink, message, &result) == ANSWER_END)
				return result == 0 && interrupted ? -EINTR : result;
			if (message->nlmsg_type >= NLMSG_MIN_TYPE && visitor)
				visitor(message, argument);
		}
	}
}

int netlink_run(struct netlink *netlink, struct netlink_request *request, netlink_visitor visitor,
	void *argument)
{
	struct nlmsghdr *header = &request->header;
	if ((header->nlmsg_flags & NLM_F_DUMP) != NLM_F_DUMP)
		header->nlmsg_flags |= NLM_F_ACK;
	header->nlmsg_seq = ++netlink->sequence;
	netlink->reason[0] = '\0';
	if (mnl_socket_sendto(netlink->socket, header, header->nlmsg_len) < 0)
		return -errno;
	return netlink_await(netlink, visitor, argument);
}

bool netlink_read_attributes(
	const void *data, size_t size, const struct nlattr *table[], unsigned int maximum)
{
	memset(table, 0, (maximum + 1) * sizeof(table[0]));
	const uint8_t *next = data;
	while (size >= MNL_ATTR_HDRLEN) {
		const struct nlattr *attribute = (const void *)next;
		if (attribute->nla_len < MNL_ATTR_HDRLEN || attribute->nla_len > size)
			return false;
		unsigned int type = mnl_attr_get_type(attribute);
		if (type <= maximum)
			table[type] = attribute;
		size_t step = MNL_ALIGN((size_t)attribute->nla_len);
		if (step >= size)
			return true;
		next += step;
		size -= step;
	}
	return size == 0;
}

bool netlink_read_message(const struct nlmsghdr *message, size_t size, const struct nlattr *table[],
	unsigned int maximum)
{
	size_t payload = mnl_nlmsg_get_payload_len(message);
	size_t offset = MNL_ALIGN(size);
	if (payload < offset) {
		memset(table, 0, (maximum + 1) * sizeof(table[0]));
		return payload >= size;
	}
	return netlink_read_attributes((const uint8_t *)mnl_nlmsg_get_payload(message) + offset,
		payload - offset, table, maximum);
}

bool netlink_read_u32(const struct nlattr *attribute, uint32_t *value)
{
	if (mnl_attr_get_payload_len(attribute) != sizeof(*value))
		return false;
	*value = mnl_attr_get_u32(attribute);
	return true;
}

bool netlink_read_address(
	const struct nlattr *attribute, uint8_t family, struct packet_address *address)
{
	uint16_t size = family == AF_INET ? 4 : 16;
	memset(address, 0, sizeof(*address));
	if (mnl_attr_get_payload_len(attribute) != size)
		return false;
	address->family = family == AF_INET ? 4 : 6;
	memcpy(address->bytes, mnl_attr_get_payload(attribute), size);
	return true;
}

uint8_t netlink_family(const struct packet_address *address)
{
	return address->family == 4 ? AF_INET : AF_INET6;
}

static void netlink_append(char text[HOST_ERROR_SIZE], const char *more)
{
	strncat(text, more, HOST_ERROR_SIZE - 1 - strlen(text));
}

int netlink_fail(const struct netlink *netlink, struct host_error *error, int result,
	const char *format, ...)
{
	char *text = error->text;
	va_list arguments;
	va_start(arguments, format);
	vsnprintf(text, HOST_ERROR_SIZE, format, arguments);
	va_end(arguments);
	netlink_append(text, ": ");
	netlink_append(text, strerror(-result));
	if (netlink && netlink->reason[0]) {
		netlink_append(text, " (");
		netlink_append(text, netlink->reason);
		netlink_append(text, ")");
	}
	if (result == -EPERM)
		netlink_append(text, "; this needs CAP_NET_ADMIN");
	return result;
}
