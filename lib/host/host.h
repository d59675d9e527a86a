// SPDX-License-Identifier: BSD-3-Clause
// Copyright (c) 2026 the espgw authors

// The host's kernel: TAP and TUN interfaces, their addresses and routes, and a mirror of its
// neighbours and routes, all over /dev/net/tun and netlink (libmnl). Control thread only. Knows no
// mbufs, ports or tunnels: interfaces are known by their names and kernel indices.

#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <net/if.h>

#include "packet/packet.h"

#define HOST_ROUTE_PROTOCOL 229 // rtm_protocol of the routes that the gateway installs
#define HOST_ERROR_SIZE     256

// What went wrong, as a sentence with the interface's name and what to do.
struct host_error {
	char text[HOST_ERROR_SIZE];
};

enum host_interface_type { HOST_TAP, HOST_TUN };

struct host_interface {
	char name[IFNAMSIZ];
	enum host_interface_type type;
	int fd; // non-blocking: read and write one frame (TAP) or IP packet (TUN) a call
	unsigned int index; // of the kernel
};

// Opens the persistent interface, making it when it is not there. An interface of that name that is
// no TAP or TUN of the wanted type, or that another program holds open, is an error. 0 or -errno.
int host_interface_open(struct host_interface *interface, const char *name,
	enum host_interface_type type, struct host_error *error);
// Closes the descriptor; the interface and its addresses stay.
void host_interface_close(struct host_interface *interface);
// Closes the descriptor, and the interface goes with it.
void host_interface_discard(struct host_interface *interface);
// Removes a persistent TAP or TUN of this name; an interface of another kind is left alone
// (-ENOTSUP); -ENODEV when there is none.
int host_interface_remove(const char *name, struct host_error *error);

// A netlink mirror and the requests that go with it.
struct host;

// What the mirror reports. An interface is named by its kernel index. Only interfaces that were
// given to host_watch are reported.
struct host_neighbour {
	unsigned int interface;
	struct packet_address address;
	struct rte_ether_addr mac;
	bool resolved; // false: gone, failed or incomplete
};

struct host_next_hop {
	unsigned int interface;
	struct packet_address gateway; // family 0: on the link
	uint32_t weight;               // 1 to 256
};

#define HOST_NEXT_HOPS 64
// A unicast route of the main table, known by its prefix and metric. Where the kernel has several
// of one prefix and metric, the first that leads over a watched interface is meant. Next hops that
// are down are left out, and a route that has no other is not reported. Nor are link-local and
// multicast prefixes, and routes for a type of service or a source. The kernel's own routes to
// connected networks are reported (protocol RTPROT_KERNEL).
struct host_route {
	struct packet_prefix prefix;
	uint32_t metric;
	uint8_t protocol; // rtm_protocol; the gateway's own routes are not reported
	unsigned int next_hop_count;
	struct host_next_hop next_hops[HOST_NEXT_HOPS]; // those over watched interfaces
};

// None of them may call host_receive, host_dump or host_destroy.
struct host_callbacks {
	void (*neighbour)(void *argument, const struct host_neighbour *neighbour);
	void (*route_added)(void *argument, const struct host_route *route); // or changed
	void (*route_deleted)(void *argument, const struct host_route *route);
	// A dump begins: everything that was reported is void unless it is reported again before
	// dump_ended. Happens at start and after an overrun of the socket's buffer.
	void (*dump_began)(void *argument);
	void (*dump_ended)(void *argument);
	void *argument;
};

struct host *host_create(const struct host_callbacks *callbacks, struct host_error *error);
void host_destroy(struct host *host);
// To be watched for reading; then call host_receive, which handles what is waiting (a bounded
// amount; the descriptor stays readable when there is more) and never blocks. When announcements
// were lost, or do not tell all, it dumps anew; a dump that fails is tried again 100 ms later.
int host_fd(const struct host *host);
void host_receive(struct host *host);
// Reports this interface's neighbours and routes from now on (after the next host_dump). Watching
// it again does nothing. 0, -EINVAL or -ENOMEM.
int host_watch(struct host *host, unsigned int interface);
// An interface that was made and brought up while the mirror runs, and watched since: that it came
// up is no news. 0 or -errno.
int host_watch_is_up(struct host *host, unsigned int interface);
// Whether its link may have gone down since host_links_settled: then the kernel has dropped its
// routes, and a dump has been reported since.
bool host_link_changed(const struct host *host, unsigned int interface);
void host_links_settled(struct host *host);
// Reports nothing of it any more. Its routes that were reported are not taken back.
void host_unwatch(struct host *host, unsigned int interface);
// Dumps links, neighbours and routes anew and reports them before it returns, between dump_began
// and dump_ended. 0, or -errno and nothing is reported or void.
int host_dump(struct host *host, struct host_error *error);

// Sets MAC (TAP only; NULL keeps), MTU, and brings the interface up. Switches IPv6
// autoconfiguration (router advertisements) off on it and, for a TUN, address generation too. 0 or
// -errno.
int host_interface_configure(struct host *host, const struct host_interface *interface,
	const struct rte_ether_addr *mac, uint32_t mtu, struct host_error *error);
int host_interface_set_mtu(struct host *host, const struct host_interface *interface, uint32_t mtu,
	struct host_error *error);
// Makes the interface's addresses exactly these (link-local IPv6 ones stay). IPv6 ones are added
// without duplicate address detection.
int host_interface_set_addresses(struct host *host, const struct host_interface *interface,
	const struct packet_interface_address *addresses, unsigned int count,
	struct host_error *error);
// Removes them all, which the kernel announces, with the routes that go by it. It does not when an
// interface goes.
int host_interface_clear_addresses(
	struct host *host, const struct host_interface *interface, struct host_error *error);
// Installs or removes a route on the interface under HOST_ROUTE_PROTOCOL with this metric.
// `gateway`: next hop on that interface, taken as on the link whatever its prefix; NULL or family 0
// for none. To install one that is there, or remove one that is not, is no error. A foreign route
// of the same prefix and metric stays, and may go before this one; so the metric should be one that
// nobody else uses. The interface must be up.
int host_route_install(struct host *host, unsigned int interface,
	const struct packet_prefix *prefix, const struct packet_address *gateway, uint32_t metric,
	struct host_error *error);
int host_route_remove(struct host *host, unsigned int interface, const struct packet_prefix *prefix,
	const struct packet_address *gateway, uint32_t metric, struct host_error *error);
// Removes all routes under HOST_ROUTE_PROTOCOL on watched interfaces (left over from an earlier
// run).
int host_route_remove_all(struct host *host, struct host_error *error);
// Has the kernel resolve the neighbour now, and keep it fresh from then on (NTF_EXT_MANAGED; where
// the kernel is older than 5.16, NTF_USE: ask again periodically). Does not wait. A permanent entry
// becomes an ordinary one: not for addresses given to host_neighbour_set. 0 or -errno.
int host_neighbour_resolve(
	struct host *host, unsigned int interface, const struct packet_address *address);
// No longer kept fresh. 0 or -errno; 0 also when there is no such entry.
int host_neighbour_release(
	struct host *host, unsigned int interface, const struct packet_address *address);
// Removes the entry, a permanent one too. 0 or -errno; 0 also when there is none.
int host_neighbour_remove(
	struct host *host, unsigned int interface, const struct packet_address *address);
// A permanent neighbour entry, in place of any other. 0 or -errno.
int host_neighbour_set(struct host *host, unsigned int interface,
	const struct packet_address *address, const struct rte_ether_addr *mac);
