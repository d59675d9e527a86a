// SPDX-License-Identifier: BSD-3-Clause
// Copyright (c) 2026 the espgw authors

// Private to lib/host: netlink sockets, requests and their answers, and strict reading of
// attributes.

#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <libmnl/libmnl.h>
#include <linux/rtnetlink.h>

#include "host/host.h"

// A dump comes in pieces of up to 32 KiB; one route with hundreds of next hops fits too.
#define NETLINK_RECEIVE_SIZE 65536
// The largest request: a route or address with a handful of attributes.
#define NETLINK_REQUEST_SIZE 512
#define NETLINK_REASON_SIZE  128

struct netlink {
	struct mnl_socket *socket;
	uint32_t sequence;
	uint8_t *buffer; // NETLINK_RECEIVE_SIZE
	// The kernel's own words about the last failure, or "".
	char reason[NETLINK_REASON_SIZE];
};

struct netlink_request {
	union {
		struct nlmsghdr header;
		uint8_t bytes[NETLINK_REQUEST_SIZE];
	};
};

// Sees one message whose length has been checked against the datagram.
typedef void (*netlink_visitor)(const struct nlmsghdr *message, void *argument);

// 0 or -errno. A blocking socket for requests, or a non-blocking one for multicast groups.
int netlink_open(struct netlink *netlink, bool blocking);
void netlink_close(struct netlink *netlink);

// Clears the request, sets its type and flags and appends `size` zeroed bytes for the type's own
// header, which is returned.
void *netlink_request_begin(
	struct netlink_request *request, uint16_t type, uint16_t flags, size_t size);
void netlink_put_address(
	struct netlink_request *request, uint16_t type, const struct packet_address *address);
// Sends the request, has `visitor` (or NULL) see the answers, and waits for the acknowledgement or
// the end of the dump. 0 or -errno; -EINTR when the kernel's table changed during the dump, whose
// answers are then incomplete.
int netlink_run(struct netlink *netlink, struct netlink_request *request, netlink_visitor visitor,
	void *argument);
// Reads one datagram, from the kernel only, and has `visitor` see its messages. 0, or -EAGAIN when
// there is none, or -ENOBUFS when messages were lost.
int netlink_receive(struct netlink *netlink, netlink_visitor visitor, void *argument);

// The payload after the type's own header of `size` bytes as a table of attributes, indexed by
// type up to `maximum`; NULL where there is none. False when anything is malformed.
bool netlink_read_message(const struct nlmsghdr *message, size_t size, const struct nlattr *table[],
	unsigned int maximum);
bool netlink_read_attributes(
	const void *data, size_t size, const struct nlattr *table[], unsigned int maximum);
bool netlink_read_u32(const struct nlattr *attribute, uint32_t *value);
// `family` is AF_INET or AF_INET6.
bool netlink_read_address(
	const struct nlattr *attribute, uint8_t family, struct packet_address *address);

uint8_t netlink_family(const struct packet_address *address); // AF_INET or AF_INET6

// Writes the sentence "WHAT: the error (the kernel's words)" and returns `result`, a -errno.
int netlink_fail(const struct netlink *netlink, struct host_error *error, int result,
	const char *format, ...) __attribute__((format(printf, 4, 5)));
