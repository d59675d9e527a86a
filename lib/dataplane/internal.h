// SPDX-License-Identifier: BSD-3-Clause
// Copyright (c) 2026 the espgw authors

// What the files of lib/dataplane share. A packet's way through them:
//
//   receive.c ── classify ──┬─ inside cleartext ─ forward.c ── encapsulate.c ──┐
//   (a burst of one port)   ├─ ESP ─ decapsulate.c ─ forward.c ────────────────┼─ transmit.c
//                           └─ for the host ─ punt.c                           │
//   host_path.c (control) ─ ring ─ inject.c (worker) ──────────────────────────┘
//
// share.c lets other workers run bursts of a queue whose worker does not keep up. fragments.c puts
// ESP together that came in fragments, and receive.c takes it up again.
//
// Each step takes a burst and hands on bursts; what it refuses ends in worker_drop under a reason.

#pragma once

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include <rte_ethdev.h>
#include <rte_hash.h>
#include <rte_mbuf.h>
#include <rte_mempool.h>
#include <rte_ring.h>

#include "dataplane/dataplane.h"
#include "host/host.h"
#include "reassembly.h"
#include "share.h"

#define BURST_MAX       ESP_BURST_MAX
#define HOST_RING_SIZE  1024
#define EVENT_RING_SIZE 256
#define PORT_ENDPOINTS  CONFIG_ADDRESSES
#define NO_TUNNEL       UINT32_MAX
#define PROBE_RING_SIZE 1024
#define LATE_MAX        64
#define ETHERNET_SIZE   RTE_ETHER_HDR_LEN
#define VLAN_TAG_SIZE   4
#define VLAN_TAGS       2 // at most: 802.1ad

_Static_assert(BURST_MAX <= ROUTE_BURST_MAX, "a burst is looked up in one call");
_Static_assert(CONFIG_PORTS <= TELEMETRY_PORTS, "every port is a source");

struct port {
	// Read by workers.
	uint16_t id; // DPDK's
	uint8_t index;
	bool is_outside;
	_Atomic bool usable; // present and link up
	struct rte_ether_addr mac;
	uint64_t mac_word; // the MAC in the first six bytes
	uint32_t mtu;
	uint8_t tags_size;                       // bytes of the port's VLAN tags; 0 = none
	uint8_t tags[VLAN_TAGS * VLAN_TAG_SIZE]; // as they follow the MAC addresses
	uint32_t own4_count;
	uint32_t own4[PORT_ENDPOINTS]; // own IPv4 addresses, network order
	unsigned int own6_count;
	uint8_t own6[PORT_ENDPOINTS][16];
	// Control's.
	const struct config_port *config;
	struct rte_mempool *pool;
	struct host_interface tap;
	struct event *tap_event;
	_Atomic bool removed; // set by DPDK's interrupt thread
	bool was_usable;
	uint16_t rx_queues, tx_queues;
	char driver[32];
	char kernel_device[IFNAMSIZ]; // netdev below the driver, or empty
};

// A next hop on a port. Workers read `link` and set the flags; everything else is control's.
struct adjacency {
	_Atomic uint64_t link; // see adjacency_link
	_Atomic bool wanted;   // traffic waits for its MAC; control has been told
	_Atomic bool used;     // sent to since control looked
	bool in_table;         // control: the entry is taken
	bool pinned;           // a route's or a tunnel's next hop: never aged
	bool is_static;        // configured MAC
	bool has_route;        // a host route leads here
	bool managed;          // the kernel keeps it fresh
	bool reported;         // in the netlink dump under way
	uint32_t route_count;  // routes whose next hop it is, but for its own host route
	uint8_t idle;          // agings since it was used last
	uint8_t port;
	struct packet_address address;
	uint64_t asked; // when the kernel was asked last, nanoseconds
};

// MAC, port and "resolved" in one word, so that a worker sees all of a change or nothing.
#define ADJACENCY_RESOLVED (UINT64_C(1) << 63)
#define ADJACENCY_MAC      ((UINT64_C(1) << 48) - 1)
static inline uint64_t adjacency_link(uint8_t port, const struct rte_ether_addr *mac)
{
	uint64_t link = (uint64_t)port << 48;
	if (mac == NULL)
		return link;
	memcpy(&link, mac->addr_bytes, sizeof(mac->addr_bytes)); // the low six bytes
	return link | ADJACENCY_RESOLVED;
}
static inline uint8_t adjacency_link_port(uint64_t link)
{
	return link >> 48 & 0xff;
}

enum worker_event_kind {
	WORKER_EVENT_CONNECTED, // traffic for a neighbour nobody has asked for yet
	WORKER_EVENT_WANTED,    // traffic for an unresolved adjacency
	WORKER_EVENT_UNKNOWN_SPI,
	WORKER_EVENT_NO_SA,
	WORKER_EVENT_PEER_MOVED,
	WORKER_EVENT_TOO_BIG, // a router says so of ESP that was sent
	WORKER_EVENT_KINDS
};

struct worker_event {
	uint32_t kind;
	uint32_t index; // port, adjacency, SPI or tunnel
	struct packet_address address;
	uint16_t port;                 // UDP, host order
	struct packet_too_big too_big; // WORKER_EVENT_TOO_BIG
};
_Static_assert(sizeof(struct worker_event) % 4 == 0, "as elements of a ring are");

// What the outer headers of a burst's ESP packets said.
struct outer_headers {
	uint64_t senders[BURST_MAX]; // see esp_sender_v4; 0 = no UDP
	uint64_t any_sender;         // 0 = none of the packets came in UDP
	uint32_t spis[BURST_MAX];    // network order
	uint16_t sizes[BURST_MAX];   // from the IP header to the SPI
	uint8_t classes[BURST_MAX];  // traffic class
};

// What a look at the IP headers of a burst has found.
struct burst_look {
	uint64_t ipv6; // bit i: packet i is of IPv6
	uint8_t syn;   // 0 = no packet is a TCP SYN segment
	bool unusual;  // one may not be plain: of IPv4 without options, between hosts
};

// Packet `index` of the burst, by its checked IP header: a plain one, or any.
static inline void burst_look_plain(struct burst_look *look, const uint8_t *ip)
{
	look->syn |= packet_plain_guess_syn(ip);
}
static inline void burst_look_any(struct burst_look *look, unsigned int index, const uint8_t *ip)
{
	burst_look_plain(look, ip);
	look->unusual = true;
	if (unlikely(ip[0] != RTE_IPV4_VHL_DEF)) {
		look->syn |= packet_guess_syn(ip);
		look->ipv6 |= (uint64_t)(ip[0] >> 4 != 4) << index;
	}
}

// Where a burst of cleartext is to go.
struct destinations {
	struct burst_look look;
	uint32_t ipv4[BURST_MAX]; // host order; of IPv6 packets, anything
};

struct worker_poll {
	struct port *port;
	uint16_t queue;
	uint32_t full; // bursts of at least SHARE_FULL in succession
};

// What a worker has to do with sharing, as receiver and as helper (share.h).
struct share {
	struct share_list list;
	uint64_t peers; // the other workers of its socket, a bit each
	// The receiver's:
	const struct worker_poll *poll; // the queue whose bursts go by the list; NULL = none
	uint64_t last_full;             // TSC of the last full burst
	uint64_t end_after;             // TSC cycles
	// The helper's:
	bool is_idle;
	unsigned int idle_loops;  // without a packet of its own
	unsigned int helped_last; // a worker
};

// Workers, a bit each, for all to see.
struct share_board {
	_Atomic uint64_t idle __rte_cache_aligned;    // have nothing to do
	_Atomic uint64_t sharing __rte_cache_aligned; // list bursts
};

// Frames of the burst under way that go out of one port.
struct worker_output {
	unsigned int count;
	struct rte_mbuf *packets[2 * BURST_MAX];
	uint32_t tunnels[2 * BURST_MAX]; // that drops count for, or NO_TUNNEL
};

// What a health probe holds: the far side returns it as it is, and has read it.
struct probe_payload {
	uint64_t magic;  // of this process
	uint64_t cookie; // of this attempt
	uint32_t tunnel;
	uint8_t padding[4];
};

// An answer that a worker received.
struct probe_answer {
	uint64_t received; // TSC
	uint64_t cookie;
	uint32_t tunnel;  // as it says
	uint32_t arrived; // the tunnel it came by, or NO_TUNNEL: in clear
	uint16_t probe;
	uint8_t padding[6];
};

// A probe that found the TX queue full.
struct late_frame {
	struct rte_mbuf *packet;
	uint32_t tunnel;
	uint32_t port; // index
};

// Tokens for packets, refilled by time.
struct token_bucket {
	uint64_t refilled; // TSC
	uint64_t cycles_per_token;
	uint32_t tokens, size;
};

// What is left to be done after the burst, see later.c.
enum later_kind {
	LATER_MESSAGE,         // an ICMP message of the gateway's own, to be sent
	LATER_SPLIT_TO_TUNNEL, // an IPv4 packet, to go into tunnel `index` in fragments
	LATER_SPLIT_TO_PORT,   // the same, to adjacency `index` in clear
};

struct later {
	struct rte_mbuf *packet; // data starts at the IP header
	struct telemetry_source *source;
	enum later_kind kind;
	uint32_t index, mtu;
	uint32_t tunnel; // that drops count for, or NO_TUNNEL
};

#define LATER_MAX (2 * BURST_MAX)

struct worker {
	unsigned int index;
	struct dataplane *dataplane;
	struct telemetry_slot *slot;
	struct telemetry_source *source; // where the burst under way came from
	struct esp_context *esp;
	struct stage_clock stages; // also the ESP context's
	struct share *share;       // NULL = off
	struct rte_ring *to_host, *from_host, *events;
	struct rte_ring *probes, *answers; // of health checks: mbufs to send, struct probe_answer
	unsigned int late_count;
	bool keeps_late; // what the TX queue does not take is kept
	struct late_frame late[LATE_MAX];
	struct rte_ring *fragments; // that other workers received; NULL = there are none
	struct reassembly *reassembly;
	struct token_bucket punt;
	uint32_t punt_reserve;    // the last tokens are for ARP, ND and IKE
	struct token_bucket icmp; // errors
	uint16_t identification;  // of the next packet of the gateway's own
	unsigned int later_count;
	struct later later[LATER_MAX];
	uint64_t event_next[WORKER_EVENT_KINDS]; // TSC from when this kind may be sent again
	uint64_t event_interval;                 // TSC
	unsigned int poll_count;
	struct worker_poll polls[CONFIG_PORTS * 64];
	unsigned int free_count;
	struct rte_mbuf *free_packets[BURST_MAX];
	uint64_t outputs; // bit p: outputs of port p are not empty
	struct worker_output output[CONFIG_PORTS];
	_Atomic bool running;
} __rte_cache_aligned;

struct underlay_route;

// The far sides' outside addresses: a hash table that is never changed once workers can see it.
struct far_ends {
	uint32_t mask;
	struct packet_address addresses[]; // family 0: free; at least half of them are
};

struct dataplane {
	// Control puts another one in its place (apply.c) and frees the old one when all workers
	// have passed a quiescent state. Workers read only what is the same in both.
	const struct config *config;
	_Atomic(const struct far_ends *) far_ends;
	struct reclaim *reclaim;
	struct telemetry *telemetry;
	struct route_table *routes;
	struct tunnel_table *tunnels;
	struct adjacency *adjacencies; // [max_neighbours]
	unsigned int port_count, worker_count;
	struct port ports[CONFIG_PORTS];
	struct worker *workers[CONFIG_WORKERS];
	_Atomic bool stopping;
	// By these, workers know the answers to our health probes.
	uint16_t probe_identifier;
	uint64_t probe_magic;
	struct share_board board;
	uint64_t fragment_keys[REASSEMBLY_WORDS]; // random; never change
	// Control's.
	struct config *owned;             // the configuration, unless it is the caller's first one
	bool *retiring;                   // [tunnel] was removed, and a worker may still know of it
	enum esp_crypto crypto;           // what the workers' contexts were created with
	struct rte_hash *adjacency_index; // port and address to entry
	uint32_t adjacency_end;           // one more than the highest entry that was ever used
	bool tuns_changed;                // tun_index is not of the present TUNs
	uint32_t *tun_index;              // TUNs by their interface: tunnel + 1, or 0
	struct underlay_route *underlay;  // routes by ports, for the way to tunnel endpoints
	unsigned int underlay_count, underlay_room;
	uint64_t resolved_generation; // of the routes when the tunnels' ways were resolved last
	bool underlay_changed;
	bool underlay_incomplete; // a route by an outside port found no room in the table
	bool reinstall;           // links changed: the kernel may have lost routes of ours
	struct host *host;
	unsigned int tun_room;
	struct host_interface *tuns; // [tunnel]; index 0: there is none
	struct event **tun_events;
	uint32_t *tun_mtus; // [tunnel]: of the TUN, in the kernel
	struct event_base *base;
	struct event *tick_event, *slow_event, *netlink_event;
	int tick_fd;
	struct filler *fillers; // [tunnel]
	bool any_dummies;       // some tunnel sends them
	struct prober *prober;
	uint64_t *no_sa_reported; // [tunnel] when, nanoseconds
	uint64_t unknown_spi_reported;
	uint64_t progress_reported; // nanoseconds; at first, when the start began
	dataplane_event_handler handler;
	void *handler_argument;
	bool running;
};

// ---- Worker steps. Packets are the callee's from the call on. ----

// receive.c: a burst of Ethernet frames from `port`, count <= BURST_MAX. Leaves frames to send in
// worker->output and drops in worker->free_packets.
void receive_burst(struct worker *worker, const struct port *port, struct rte_mbuf **packets,
	unsigned int count);
// The same for a frame that was put together of fragments: these are counted as received already.
void receive_whole(struct worker *worker, const struct port *port, struct rte_mbuf *frame);
// fragments.c: a fragment, from its Ethernet header to the end of its IP packet, that may be of
// ESP. Returns the whole frame that it completes, or NULL.
struct rte_mbuf *fragment_take(
	struct worker *worker, const struct port *port, struct rte_mbuf *frame);
// Those that other workers handed over. Returns how many; sends what becomes of them.
unsigned int fragments_receive(struct worker *worker);
void fragments_expire(struct worker *worker);
// Control. `fragments_stop` when all workers have ended: drops what is left.
bool fragments_create(struct worker *worker); // false when there is no memory
void fragments_stop(struct worker *worker);
void fragments_destroy(struct worker *worker);
// decapsulate.c: data starts at the SPI and holds ESP_HEADER_SIZE bytes at least; the outer header
// stands before it. Changes `outer`.
void decapsulate_burst(struct worker *worker, struct rte_mbuf **packets,
	struct outer_headers *outer, unsigned int count);
// forward.c: data starts at a checked IP header. Both change the arrays.
void forward_inside(struct worker *worker, const struct port *port, struct rte_mbuf **packets,
	const struct destinations *destinations, unsigned int count);
// Packet i came by tunnels[i]. `plain`: all are (see struct burst_look).
void forward_decapsulated(struct worker *worker, struct rte_mbuf **packets, uint32_t *tunnels,
	unsigned int count, bool plain);
// A packet of the gateway's own, wherever its destination is.
void forward_own(struct worker *worker, struct rte_mbuf *packet);
// mss.c: lowers the MSS of TCP SYN segments to that of the tunnels[i] they go or came by.
void mss_clamp(struct worker *worker, struct rte_mbuf *const *packets, const uint32_t *tunnels,
	unsigned int count);
// icmp.c: drops a packet, whose data starts at its checked IP header, and tells its sender why if
// it may be told. It counts for `tunnel` too, unless that is NO_TUNNEL. `arrived` is the tunnel it
// came by, or NO_TUNNEL: it came by the port that is the source, or by a tunnel that is not known.
void icmp_refuse(struct worker *worker, struct rte_mbuf *packet, enum drop_reason reason,
	uint32_t tunnel, enum packet_icmp_error error, uint32_t mtu, uint32_t arrived);
// later.c: an IPv4 packet is to leave in fragments of at most `mtu` bytes. False, and the packet is
// still the caller's, when there is no room.
bool later_split(struct worker *worker, struct rte_mbuf *packet, enum later_kind kind,
	uint32_t index, uint32_t mtu, uint32_t tunnel);
// Once the burst is sent: does what it left, and sends that.
void later_run(struct worker *worker);
// encapsulate.c: data starts at the inner IP header; packet i leaves by tunnels[i]. Changes both.
void encapsulate_burst(
	struct worker *worker, struct rte_mbuf **packets, uint32_t *tunnels, unsigned int count);
// transmit.c: data starts at an IP header, and all packets go to one adjacency. A drop counts for
// tunnels[i] too, unless that is NO_TUNNEL. Cleartext never leaves an outside port. Changes both.
enum transmit_content { TRANSMIT_CLEARTEXT, TRANSMIT_ESP };
void transmit_run(struct worker *worker, uint32_t adjacency, struct rte_mbuf **packets,
	uint32_t *tunnels, unsigned int count, enum transmit_content content);
// Cleartext: packet i goes to adjacencies[i].
void transmit_burst(struct worker *worker, struct rte_mbuf **packets, const uint32_t *adjacencies,
	uint32_t *tunnels, unsigned int count);
// A whole Ethernet frame, out of this port.
void transmit_frame(struct worker *worker, struct rte_mbuf *packet, const struct port *port);
void transmit_flush(struct worker *worker);
// punt.c: a token, if there are more than `reserve` of them.
bool token_take(struct token_bucket *bucket, uint32_t reserve);
// To the kernel by the port's TAP (data starts at the Ethernet header), or by the tunnel's
// TUN (data starts at the IP header). `urgent`: ARP, ND, IKE.
void punt_frame(
	struct worker *worker, struct rte_mbuf *packet, const struct port *port, bool urgent);
void punt_ip(struct worker *worker, struct rte_mbuf *packet, uint32_t tunnel);
// vlan.c: of ports whose tags_size is not 0. Takes the port's tags off, drops frames without them
// and closes the gaps; returns how many are left.
unsigned int vlan_strip_burst(struct worker *worker, const struct port *port,
	struct rte_mbuf **packets, unsigned int count);
// Gives a whole frame the port's tags; tags_size bytes are free before it.
void vlan_add(const struct port *port, struct rte_mbuf *packet);
// inject.c: what the kernel sent, from the ring that control fills.
unsigned int inject_burst(struct worker *worker);
// filler.c: sends a packet with HOST_DUMMY or HOST_KEEPALIVE.
void filler_send(struct worker *worker, struct rte_mbuf *packet);

// probe.c: sends the probes that control put on the worker's ring. Returns packets.
unsigned int probe_burst(struct worker *worker);
void probe_drain(struct worker *worker); // at the end
// A packet of the tunnel `arrived` that is not forwarded, with where its source and destination are
// routed to: takes it (true) when it belongs to a health check, one of ours or of the far side's.
bool probe_take(struct worker *worker, struct rte_mbuf *packet, struct route_target source,
	struct route_target target, uint32_t arrived);
// A frame for the host, with `size` bytes behind its Ethernet header: the same for what answers our
// unidirectional probes.
bool probe_take_clear(struct worker *worker, struct rte_mbuf *packet, uint32_t size);

// share.c: a queue that one worker does not keep up with.
#define SHARE_FULL  32u // packets: as many as any queue is asked for at least
#define SHARE_AFTER 8   // full bursts in succession: the worker does not keep up

// Control. False when there is no memory.
bool share_create(struct worker *worker);
// The worker has had full bursts of this queue for a while: shares it if that may help.
void share_consider(struct worker *worker, struct worker_poll *poll);
// Receives from the queue that is shared. Returns packets.
unsigned int share_receive(struct worker *worker, const struct worker_poll *poll);
// Once a loop, after `count` packets were received: runs and sends on what is shared, helps others.
// Returns packets that it helped with.
unsigned int share_step(struct worker *worker, unsigned int count);
// At the end: sends on what is left.
void share_drain(struct worker *worker);

// worker.c
int worker_main(void *worker);
// One loop: returns packets. And what is left to do after the last one.
unsigned int worker_loop(struct worker *worker);
void worker_drain(struct worker *worker);
void worker_event(struct worker *worker, enum worker_event_kind kind, uint32_t index,
	const struct packet_address *address, uint16_t port);
void worker_event_too_big(struct worker *worker, const struct packet_too_big *message);
void worker_free_drops(struct worker *worker);

// The worker has packets now.
static inline void worker_note_busy(struct worker *worker)
{
	if (unlikely(!telemetry_is_busy(worker->slot)))
		telemetry_begin_busy(worker->slot);
}

// Gives the buffer back when the burst ends. The packet has been counted.
static inline void worker_free_later(struct worker *worker, struct rte_mbuf *packet)
{
	if (unlikely(worker->free_count == BURST_MAX))
		worker_free_drops(worker);
	worker->free_packets[worker->free_count++] = packet;
}

static inline void worker_drop(
	struct worker *worker, struct rte_mbuf *packet, enum drop_reason reason)
{
	worker->source->drops[reason]++;
	worker_free_later(worker, packet);
}

static inline void worker_drop_of_tunnel(
	struct worker *worker, struct rte_mbuf *packet, enum drop_reason reason, uint32_t tunnel)
{
	if (tunnel != NO_TUNNEL)
		worker->slot->tunnels[tunnel].drops[reason]++;
	worker_drop(worker, packet, reason);
}

// On the rings to and from the host, mbuf->port is the telemetry source and mbuf->hash.usr says
// where to: a port index, or a tunnel index with this bit.
#define HOST_TUNNEL (UINT32_C(1) << 31)
// From control itself, with a tunnel index: what to make a dummy packet of; an outer packet that is
// a NAT keepalive.
#define HOST_DUMMY     (UINT32_C(1) << 30)
#define HOST_KEEPALIVE (UINT32_C(1) << 29)

// ---- Control. ----

// vlan.c: the tags of a port, from its configuration
void vlan_set_up(struct port *port);
// port.c
int ports_open(struct dataplane *dataplane, struct dataplane_error *error);
int ports_start(struct dataplane *dataplane, struct dataplane_error *error);
void ports_close(struct dataplane *dataplane);
void ports_watch(struct dataplane *dataplane); // once a second: links and removed devices
// neighbour.c
int neighbours_create(struct dataplane *dataplane, struct dataplane_error *error);
void neighbours_destroy(struct dataplane *dataplane);
// Index of the adjacency for this next hop, made when it is new; TUNNEL_NO_PATH when the table is
// full. `pin`: a route or tunnel depends on it, so the kernel is asked, and it stays while they do.
uint32_t neighbour_get(struct dataplane *dataplane, unsigned int port,
	const struct packet_address *address, bool pin);
// As above, but makes none.
uint32_t neighbour_find(
	const struct dataplane *dataplane, unsigned int port, const struct packet_address *address);
void neighbour_report(struct dataplane *dataplane, unsigned int port,
	const struct packet_address *address, const struct rte_ether_addr *mac);
// False when the table is full.
bool neighbour_set_static(struct dataplane *dataplane, unsigned int port,
	const struct packet_address *address, const struct rte_ether_addr *mac);
// The kernel is asked from now on.
void neighbour_unset_static(
	struct dataplane *dataplane, unsigned int port, const struct packet_address *address);
void neighbour_connected(
	struct dataplane *dataplane, unsigned int port, const struct packet_address *address);
void neighbour_wanted(struct dataplane *dataplane, uint32_t adjacency);
// A tunnel's route for this prefix has come: host routes within it that are not more specific go.
void neighbours_reroute(struct dataplane *dataplane, const struct packet_prefix *prefix);
// Every ten seconds: drops what is neither used nor resolved, nor any route's or tunnel's next hop.
void neighbours_age(struct dataplane *dataplane);
// A netlink dump of the kernel's neighbours begins and has ended: what it did not report is gone.
void neighbours_begin_dump(struct dataplane *dataplane);
void neighbours_end_dump(struct dataplane *dataplane);
// path.c: routes by ports, and the way to tunnel endpoints
int path_add(struct dataplane *dataplane, const struct packet_prefix *prefix,
	const struct route_path *route);
int path_delete(struct dataplane *dataplane, const struct packet_prefix *prefix,
	const struct route_target *target, enum route_origin origin);
// All paths to these tunnels ([tunnel_room]), whoever added them, to be deleted later. Looks at all
// routes. NULL without memory.
struct path_list *path_list_tunnels(const struct dataplane *dataplane, const bool *tunnels);
void path_list_delete(struct dataplane *dataplane, const struct path_list *list); // that are left
void path_list_free(struct path_list *list);                                      // also NULL
// The priority of a path that path_add has added. False when there is none.
bool path_priority(struct dataplane *dataplane, const struct packet_prefix *prefix,
	const struct route_target *target, enum route_origin origin, uint32_t *priority);
// Tries again what found no room in the workers' table.
void path_retry(struct dataplane *dataplane);
uint32_t path_resolve(void *dataplane, const struct packet_address *destination);
// filler.c: dummy packets, looked for every 10 ms, and NAT keepalives, every second. False: no
// memory.
bool filler_create(struct dataplane *dataplane);
void filler_chore(struct dataplane *dataplane);
void filler_second(struct dataplane *dataplane);
// health.c: probes, and what their outcomes mean. Control calls health_tick twice a millisecond.
int health_start(struct dataplane *dataplane, struct dataplane_error *error);
void health_tick(struct dataplane *dataplane);
void health_stop(struct dataplane *dataplane);
// Begins to check a tunnel, or goes on with other settings: its state and statistics stay. With
// enabled = false it ends, and the tunnel counts as healthy. 0, or -1 without memory and with
// nothing changed.
int health_tunnel_configure(
	struct dataplane *dataplane, unsigned int tunnel, const struct config_tunnel *config);
void health_tunnel_remove(struct dataplane *dataplane, unsigned int tunnel);
// mirror.c: netlink to neighbours and routes
int mirror_create(struct dataplane *dataplane, struct dataplane_error *error);
void mirror_destroy(struct dataplane *dataplane);
// host_path.c: TAPs and TUNs, their frames, worker events
int host_path_open(struct dataplane *dataplane, struct dataplane_error *error);
int host_path_start(struct dataplane *dataplane, struct dataplane_error *error);
void host_path_drain(struct dataplane *dataplane);
// Puts a packet on a worker's ring for frames to send or probes. A full ring drops it, and that
// counts for `tunnel` too, unless it is NO_TUNNEL.
void host_path_give(struct dataplane *dataplane, struct rte_ring *ring, struct rte_mbuf *packet,
	uint32_t tunnel);
void host_path_stop(struct dataplane *dataplane);
void host_path_close(struct dataplane *dataplane);
// A tunnel's TUN, read from if the host path runs. -1 with *error set and nothing left behind.
int host_path_open_tun(struct dataplane *dataplane, unsigned int tunnel,
	const struct config_tunnel *config, struct host_error *error);
// `remove`: from the kernel too.
void host_path_close_tun(struct dataplane *dataplane, unsigned int tunnel, bool remove);
int host_path_set_tun_mtu(
	struct dataplane *dataplane, unsigned int tunnel, uint32_t mtu, struct host_error *error);
// The tunnel whose TUN has this index in the kernel, or NO_TUNNEL.
uint32_t host_path_find_tun(struct dataplane *dataplane, unsigned int interface);
// tunnels.c: tunnels that come, change and go
int tunnels_create(struct dataplane *dataplane, struct dataplane_error *error);
void tunnels_destroy(struct dataplane *dataplane);
// NULL without memory.
struct far_ends *far_ends_create(const struct config *config);
// Worker.
bool far_ends_have(const struct dataplane *dataplane, const struct packet_address *address);
// What dataplane_create does for the tunnels of the configuration, too.
int tunnel_add_own_routes(struct dataplane *dataplane, unsigned int tunnel,
	const struct config_tunnel *config, struct dataplane_error *error);

// Gives a tunnel the configuration back that it had before dataplane_tunnel_change. Always done, so
// far as the kernel lets it be.
void tunnel_restore(
	struct dataplane *dataplane, unsigned int index, const struct config_tunnel *config);

// dataplane.c: static neighbours of the configuration
int dataplane_neighbour_set(struct dataplane *dataplane, const struct config_neighbour *neighbour,
	struct dataplane_error *error);
void dataplane_neighbour_remove(
	struct dataplane *dataplane, const struct config_neighbour *neighbour);
int dataplane_add_own(struct dataplane *dataplane, const struct packet_address *address,
	uint8_t length, uint32_t kind, uint32_t index);

// Room for what encapsulation adds, before the packet.
struct rte_mempool *host_path_pool(struct dataplane *dataplane);

// Installs the routes of configuration and agents in the kernel, where they may be gone with a
// link.
void dataplane_install_routes(struct dataplane *dataplane);
// Start: says how far it is, every two seconds.
void dataplane_progress(
	struct dataplane *dataplane, const char *what, unsigned int done, unsigned int all);
uint64_t dataplane_now(void); // CLOCK_MONOTONIC, nanoseconds
// Writes the message; returns -1.
int dataplane_fail(struct dataplane_error *error, const char *format, ...)
	__attribute__((format(printf, 2, 3)));
