// SPDX-License-Identifier: BSD-3-Clause
// Copyright (c) 2026 the espgw authors

// TAP and TUN interfaces over /dev/net/tun.

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <sys/ioctl.h>

#include <linux/if_tun.h>

#include "host/mirror.h"

static const char *type_name(enum host_interface_type type)
{
	return type == HOST_TAP ? "TAP" : "TUN";
}

static int interface_fail(struct host_error *error, int result, const char *name, const char *what)
{
	snprintf(error->text, sizeof(error->text), "interface %.64s: %s", name, what);
	return result;
}

// As the kernel checks names, and no '%', from which the kernel would make up a name.
static bool interface_name_is_valid(const char *name)
{
	size_t length = strlen(name);
	if (length == 0 || length >= IFNAMSIZ || !strcmp(name, ".") || !strcmp(name, ".."))
		return false;
	for (size_t i = 0; i < length; i++)
		if (!isgraph((unsigned char)name[i]) || strchr("/:%", name[i]))
			return false;
	return true;
}

static int interface_get(const char *name, struct link_state *state)
{
	struct netlink requests;
	int result = netlink_open(&requests, true);
	if (result)
		return result;
	result = link_get(&requests, 0, name, state);
	netlink_close(&requests);
	return result;
}

// The kernel's EINVAL: there is a device of this name, but not such a one.
static int interface_fail_kind(struct host_error *error, const char *name, const char *wanted)
{
	struct link_state state;
	char what[128];
	if (interface_get(name, &state) != 0)
		return interface_fail(error, -EINVAL, name, "refused by /dev/net/tun");
	const char *kind = state.kind[0] ? state.kind : "network card";
	if (state.tun_type)
		kind = state.tun_type == IFF_TAP ? "TAP" : "TUN";
	snprintf(what, sizeof(what),
		"exists, but is a %s%s, not a %s: remove it or choose another name",
		state.multi_queue ? "multi-queue " : "", kind, wanted);
	return interface_fail(error, -EINVAL, name, what);
}

static int interface_fail_attach(
	struct host_error *error, int result, const char *name, const char *wanted)
{
	switch (result) {
	case -EBUSY:
		return interface_fail(error, result, name,
			"is held open by another program: stop that first, or choose another name");
	case -EINVAL:
		return interface_fail_kind(error, name, wanted);
	case -EPERM:
		return interface_fail(error, result, name, "needs CAP_NET_ADMIN");
	default:
		return interface_fail(error, result, name, strerror(-result));
	}
}

// Attaches a new descriptor to the interface, which is made when there is none. Descriptor or
// -errno.
static int interface_attach(
	const char *name, enum host_interface_type type, struct host_error *error)
{
	int fd = open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC);
	if (fd < 0 && (errno == ENOENT || errno == ENODEV || errno == ENXIO))
		return interface_fail(error, -errno, name,
			"no /dev/net/tun: load the module with \"modprobe tun\"");
	if (fd < 0) {
		int result = -errno;
		char what[128];
		snprintf(what, sizeof(what), "cannot open /dev/net/tun: %s", strerror(-result));
		return interface_fail(error, result, name, what);
	}
	struct ifreq request = {
		.ifr_flags = (short)((type == HOST_TAP ? IFF_TAP : IFF_TUN) | IFF_NO_PI)};
	memcpy(request.ifr_name, name, strlen(name) + 1);
	if (ioctl(fd, TUNSETIFF, &request) == 0)
		return fd;
	int result = -errno;
	close(fd);
	return interface_fail_attach(error, result, name, type_name(type));
}

int host_interface_open(struct host_interface *interface, const char *name,
	enum host_interface_type type, struct host_error *error)
{
	if (!interface_name_is_valid(name))
		return interface_fail(error, -EINVAL, name,
			"no valid name: 1 to 15 visible characters without '/', ':' and '%'");
	int fd = interface_attach(name, type, error);
	if (fd < 0)
		return fd;
	// An earlier holder may have left offloads switched on; whole packets are wanted here.
	unsigned int index = 0;
	if (ioctl(fd, TUNSETOFFLOAD, 0UL) != 0 || ioctl(fd, TUNSETPERSIST, 1UL) != 0 ||
		(index = if_nametoindex(name)) == 0) {
		int result = -errno;
		close(fd);
		return interface_fail(error, result, name, strerror(-result));
	}
	*interface = (struct host_interface){.type = type, .fd = fd, .index = index};
	memcpy(interface->name, name, strlen(name) + 1);
	return 0;
}

void host_interface_close(struct host_interface *interface)
{
	if (interface->fd >= 0)
		close(interface->fd);
	interface->fd = -1;
}

void host_interface_discard(struct host_interface *interface)
{
	if (interface->fd >= 0)
		ioctl(interface->fd, TUNSETPERSIST, 0UL);
	host_interface_close(interface);
}

int host_interface_remove(const char *name, struct host_error *error)
{
	struct link_state state;
	int result = interface_name_is_valid(name) ? interface_get(name, &state) : -ENODEV;
	if (result)
		return interface_fail(error, result, name, strerror(-result));
	if (!state.tun_type)
		return interface_fail(error, -ENOTSUP, name, "is no TAP or TUN: left alone");
	enum host_interface_type type = state.tun_type == IFF_TAP ? HOST_TAP : HOST_TUN;
	int fd = interface_attach(name, type, error);
	if (fd < 0)
		return fd == -EINVAL ? -ENOTSUP : fd;
	// The interface goes when its descriptor is closed.
	result = ioctl(fd, TUNSETPERSIST, 0UL) == 0 ? 0 : -errno;
	close(fd);
	return result ? interface_fail(error, result, name, strerror(-result)) : 0;
}
