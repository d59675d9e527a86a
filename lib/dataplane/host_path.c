// SPDX-License-Identifier: BSD-3-Clause
// Copyright (c) 2026 the espgw authors

// The control thread's half of the host path: moves frames between the TAPs and TUNs and the rings
// of the workers, and acts on what workers report. A worker can't wake control without a system
// call, so a timer does, twice a millisecond.

#include <errno.h>
#include <stdlib.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include <event2/event.h>

#include "internal.h"

#define TICK_NANOSECONDS 500000
#define TICKS_PER_CHORE  20    // 10 ms: reclamation, ways to endpoints
#define TICKS_PER_WATCH  2000  // 1 s: links, ages of paths
#define TICKS_PER_AGE    20000 // 10 s: neighbours
#define FRAMES_PER_READ  64    // of one interface before others have their turn
#define IPV6_MTU_LEAST   1280  // RFC 8200 section 5

// Wide enough for every header that may be put before a packet from a TUN.
_Static_assert(RTE_PKTMBUF_HEADROOM >= ESP_HEADROOM_MAX + ETHERNET_SIZE, "headroom");

static struct telemetry_slot *control_slot(const struct dataplane *dataplane)
{
	return dataplane->telemetry->slot[dataplane->worker_count];
}

// Of a packet on the rings to and from the host.
static uint32_t tunnel_of(const struct rte_mbuf *packet)
{
	return packet->hash.usr & HOST_TUNNEL ? packet->hash.usr & ~HOST_TUNNEL : NO_TUNNEL;
}

static void drop(struct dataplane *dataplane, struct rte_mbuf *packet, uint32_t tunnel,
	enum drop_reason reason)
{
	control_slot(dataplane)->sources[packet->port].drops[reason]++;
	if (tunnel != NO_TUNNEL)
		control_slot(dataplane)->tunnels[tunnel].drops[reason]++;
	rte_pktmbuf_free(packet);
}

void host_path_give(struct dataplane *dataplane, struct rte_ring *ring, struct rte_mbuf *packet,
	uint32_t tunnel)
{
	if (rte_ring_sp_enqueue(ring, packet) != 0)
		drop(dataplane, packet, tunnel, DROP_HOST_RING_FULL);
}

// One frame from the descriptor into a buffer. NULL when there is none.
static struct rte_mbuf *read_frame(struct dataplane *dataplane, int fd, uint16_t source)
{
	struct telemetry_source *counters = &control_slot(dataplane)->sources[source];
	struct rte_mbuf *packet = rte_pktmbuf_alloc(dataplane->ports[0].pool);
	if (packet == NULL) {
		uint8_t discarded[64]; // the kernel cuts the rest off
		if (read(fd, discarded, sizeof(discarded)) > 0) {
			counters->received++;
			counters->drops[DROP_NO_BUFFER]++;
		}
		return NULL;
	}
	ssize_t size = read(fd, rte_pktmbuf_mtod(packet, void *), rte_pktmbuf_tailroom(packet));
	if (size <= 0) {
		rte_pktmbuf_free(packet);
		return NULL;
	}
	packet->data_len = (uint16_t)size;
	packet->pkt_len = (uint32_t)size;
	packet->port = source;
	counters->received++;
	counters->received_bytes += (uint64_t)size;
	return packet;
}

static void read_interface(struct dataplane *dataplane, int fd, uint16_t source, uint32_t from)
{
	struct worker *worker = dataplane->workers[(from & ~HOST_TUNNEL) % dataplane->worker_count];
	for (unsigned int i = 0; i < FRAMES_PER_READ; i++) {
		struct rte_mbuf *packet = read_frame(dataplane, fd, source);
		if (packet == NULL)
			return;
		packet->hash.usr = from;
		host_path_give(dataplane, worker->from_host, packet, tunnel_of(packet));
	}
}

// What libevent hands back for an interface.
struct reader {
	struct dataplane *dataplane;
	struct event *event;
	uint16_t source;
	uint32_t from;
};

static void on_readable(evutil_socket_t fd, short events, void *argument)
{
	(void)events;
	struct reader *reader = argument;
	errno = 0;
	read_interface(reader->dataplane, fd, reader->source, reader->from);
	// The interface was removed: its descriptor stays readable for ever, with nothing to read.
	if (errno == EBADFD)
		event_del(reader->event);
}

static void write_frame(struct dataplane *dataplane, struct rte_mbuf *packet)
{
	uint32_t to = packet->hash.usr;
	int fd = to & HOST_TUNNEL ? dataplane->tuns[to & ~HOST_TUNNEL].fd
				  : dataplane->ports[to].tap.fd;
	ssize_t written = write(fd, rte_pktmbuf_mtod(packet, void *), packet->data_len);
	if (written != packet->data_len) {
		drop(dataplane, packet, tunnel_of(packet), DROP_HOST_REFUSED);
		return;
	}
	control_slot(dataplane)->sources[packet->port].to_host++;
	rte_pktmbuf_free(packet);
}

static void report(struct dataplane *dataplane, const struct dataplane_event *event)
{
	if (dataplane->handler != NULL)
		dataplane->handler(dataplane->handler_argument, event);
}

static void report_mtu(struct dataplane *dataplane, const struct tunnel *tunnel)
{
	const struct dataplane_event event = {
		.kind = DATAPLANE_TUNNEL_MTU, .tunnel = tunnel->index};
	report(dataplane, &event);
}

static void consider_path(struct dataplane *dataplane, const struct packet_too_big *message)
{
	struct tunnel *tunnel;
	if (tunnel_path_consider(dataplane->tunnels, message, dataplane_now(), &tunnel) ==
		TUNNEL_PATH_LOWERED)
		report_mtu(dataplane, tunnel);
}

// Larger packets are tried again.
static void age_paths(struct dataplane *dataplane)
{
	const struct tunnel *tunnel;
	while ((tunnel = tunnel_path_expire(dataplane->tunnels, dataplane_now())) != NULL)
		report_mtu(dataplane, tunnel);
}

int host_path_set_tun_mtu(
	struct dataplane *dataplane, unsigned int tunnel, uint32_t mtu, struct host_error *error)
{
	int result = host_interface_set_mtu(dataplane->host, &dataplane->tuns[tunnel], mtu, error);
	if (result == 0)
		dataplane->tun_mtus[tunnel] = mtu;
	return result;
}

// What the kernel sends by a tunnel has no sender whom ICMP could tell, so its interface follows
// what is known of the path; but not under what IPv6 needs, or it would lose that.
static void follow_paths(struct dataplane *dataplane)
{
	struct host_error ignored; // tried again a second later
	for (unsigned int i = 0; i < tunnel_count(dataplane->tunnels); i++) {
		const struct tunnel *tunnel = tunnel_get(dataplane->tunnels, i);
		if (tunnel->config == NULL)
			continue;
		uint32_t least = RTE_MIN(tunnel->config->mtu, (uint32_t)IPV6_MTU_LEAST);
		uint32_t mtu = RTE_MAX(tunnel->mtu, least);
		if (mtu != dataplane->tun_mtus[i])
			host_path_set_tun_mtu(dataplane, i, mtu, &ignored);
	}
}

static void act_on_event(struct dataplane *dataplane, const struct worker_event *event)
{
	uint64_t now = dataplane_now();
	struct dataplane_event told = {0};
	switch (event->kind) {
	case WORKER_EVENT_CONNECTED:
		neighbour_connected(dataplane, event->index, &event->address);
		break;
	case WORKER_EVENT_WANTED:
		neighbour_wanted(dataplane, event->index);
		break;
	case WORKER_EVENT_UNKNOWN_SPI:
		if (now - dataplane->unknown_spi_reported < 100000000)
			break;
		dataplane->unknown_spi_reported = now;
		told.kind = DATAPLANE_UNKNOWN_SPI;
		told.spi = event->index;
		told.address = event->address;
		report(dataplane, &told);
		break;
	case WORKER_EVENT_NO_SA:
		if (dataplane->no_sa_reported[event->index] != 0 &&
			now - dataplane->no_sa_reported[event->index] < 1000000000)
			break;
		dataplane->no_sa_reported[event->index] = now;
		told.kind = DATAPLANE_NO_SA;
		told.tunnel = event->index;
		report(dataplane, &told);
		break;
	case WORKER_EVENT_PEER_MOVED:
		told.kind = DATAPLANE_PEER_MOVED;
		told.spi = event->index;
		told.address = event->address;
		told.udp_source = event->port;
		report(dataplane, &told);
		break;
	case WORKER_EVENT_TOO_BIG:
		consider_path(dataplane, &event->too_big);
		break;
	}
}

void host_path_drain(struct dataplane *dataplane)
{
	for (unsigned int i = 0; i < dataplane->worker_count; i++) {
		struct worker *worker = dataplane->workers[i];
		struct rte_mbuf *packets[BURST_MAX];
		struct worker_event event;
		unsigned int count = rte_ring_sc_dequeue_burst(
			worker->to_host, (void **)packets, BURST_MAX, NULL);
		for (unsigned int j = 0; j < count; j++)
			write_frame(dataplane, packets[j]);
		while (rte_ring_sc_dequeue_elem(worker->events, &event, sizeof(event)) == 0)
			act_on_event(dataplane, &event);
	}
}

static void on_tick(evutil_socket_t fd, short events, void *argument)
{
	(void)events;
	static uint64_t ticks;
	struct dataplane *dataplane = argument;
	uint64_t expired;
	if (read(fd, &expired, sizeof(expired)) != sizeof(expired))
		return;
	host_path_drain(dataplane);
	health_tick(dataplane);
	ticks++;
	if (ticks % TICKS_PER_CHORE == 0) {
		reclaim_poll(dataplane->reclaim);
		path_retry(dataplane);
		filler_chore(dataplane);
		if (dataplane->reinstall) {
			dataplane->reinstall = false;
			dataplane_install_routes(dataplane);
		}
		if (dataplane->underlay_changed) {
			dataplane->underlay_changed = false;
			tunnel_resolve_all(dataplane->tunnels);
		}
	}
	if (ticks % TICKS_PER_WATCH == 0) {
		ports_watch(dataplane);
		age_paths(dataplane);
		follow_paths(dataplane);
		filler_second(dataplane);
	}
	if (ticks % TICKS_PER_AGE == 0)
		neighbours_age(dataplane);
}

static void on_netlink(evutil_socket_t fd, short events, void *argument)
{
	(void)fd;
	(void)events;
	struct dataplane *dataplane = argument;
	host_receive(dataplane->host);
}

static int open_tap(struct dataplane *dataplane, struct port *port, struct host_error *error)
{
	if (host_interface_open(&port->tap, port->config->name, HOST_TAP, error) != 0 ||
		host_interface_configure(
			dataplane->host, &port->tap, &port->mac, port->mtu, error) != 0)
		return -1;
	host_watch(dataplane->host, port->tap.index);
	return host_interface_set_addresses(dataplane->host, &port->tap, port->config->addresses,
		port->config->address_count, error);
}

static struct event *watch(struct dataplane *dataplane, int fd, uint16_t source, uint32_t from)
{
	struct reader *reader = malloc(sizeof(*reader));
	if (reader == NULL)
		return NULL;
	*reader = (struct reader){.dataplane = dataplane, .source = source, .from = from};
	struct event *event =
		event_new(dataplane->base, fd, EV_READ | EV_PERSIST, on_readable, reader);
	reader->event = event;
	if (event == NULL || event_add(event, NULL) != 0) {
		free(reader);
		return NULL;
	}
	return event;
}

static void unwatch(struct event *event)
{
	if (event == NULL)
		return;
	free(event_get_callback_arg(event));
	event_free(event);
}

static bool watch_tun(struct dataplane *dataplane, unsigned int tunnel)
{
	dataplane->tun_events[tunnel] = watch(
		dataplane, dataplane->tuns[tunnel].fd, TELEMETRY_SOURCE_TUN, tunnel | HOST_TUNNEL);
	return dataplane->tun_events[tunnel] != NULL;
}

static int open_tun(struct dataplane *dataplane, unsigned int tunnel,
	const struct config_tunnel *config, struct host_error *error)
{
	struct host_interface *tun = &dataplane->tuns[tunnel];
	if (host_interface_configure(dataplane->host, tun, NULL, config->mtu, error) != 0)
		return -1;
	dataplane->tun_mtus[tunnel] = config->mtu;
	if (host_watch(dataplane->host, tun->index) != 0 ||
		(dataplane->netlink_event != NULL && !watch_tun(dataplane, tunnel))) {
		snprintf(error->text, sizeof(error->text), "no memory for tunnel %s", config->name);
		return -1;
	}
	int result = host_interface_set_addresses(
		dataplane->host, tun, &config->interface_address, 1, error);
	// At the start a dump follows.
	if (result == 0 && dataplane->running)
		host_watch_is_up(dataplane->host, tun->index);
	return result;
}

// A hash table, twice as large as there can be TUNs, made anew when it is asked after a change.
static uint32_t *tun_place(const struct dataplane *dataplane, unsigned int interface)
{
	uint32_t mask = rte_align32pow2(2 * dataplane->tun_room + 2) - 1;
	uint32_t place = interface * UINT32_C(2654435761) & mask;
	while (dataplane->tun_index[place] != 0 &&
		dataplane->tuns[dataplane->tun_index[place] - 1].index != interface)
		place = (place + 1) & mask;
	return &dataplane->tun_index[place];
}

uint32_t host_path_find_tun(struct dataplane *dataplane, unsigned int interface)
{
	if (dataplane->tuns_changed) {
		memset(dataplane->tun_index, 0,
			rte_align32pow2(2 * dataplane->tun_room + 2) *
				sizeof(*dataplane->tun_index));
		for (uint32_t i = 0; i < dataplane->tun_room; i++)
			if (dataplane->tuns[i].index != 0)
				*tun_place(dataplane, dataplane->tuns[i].index) = i + 1;
		dataplane->tuns_changed = false;
	}
	uint32_t found = *tun_place(dataplane, interface);
	return found == 0 ? NO_TUNNEL : found - 1;
}

int host_path_open_tun(struct dataplane *dataplane, unsigned int tunnel,
	const struct config_tunnel *config, struct host_error *error)
{
	bool is_new = if_nametoindex(config->name) == 0;
	dataplane->tuns_changed = true;
	if (host_interface_open(&dataplane->tuns[tunnel], config->name, HOST_TUN, error) != 0)
		return -1;
	if (open_tun(dataplane, tunnel, config, error) == 0)
		return 0;
	host_path_close_tun(dataplane, tunnel, is_new);
	return -1;
}

void host_path_close_tun(struct dataplane *dataplane, unsigned int tunnel, bool remove)
{
	struct host_interface *tun = &dataplane->tuns[tunnel];
	unwatch(dataplane->tun_events[tunnel]);
	dataplane->tun_events[tunnel] = NULL;
	struct host_error ignored;
	if (remove)
		host_interface_clear_addresses(dataplane->host, tun, &ignored);
	host_unwatch(dataplane->host, tun->index);
	if (remove)
		host_interface_discard(tun);
	else
		host_interface_close(tun);
	tun->index = 0;
	dataplane->tuns_changed = true;
}

int host_path_open(struct dataplane *dataplane, struct dataplane_error *error)
{
	struct host_error cause;
	unsigned int tunnels = tunnel_room(dataplane->tunnels);
	for (unsigned int i = 0; i < dataplane->port_count; i++)
		dataplane->ports[i].tap.fd = -1;
	dataplane->tun_room = tunnels; // the table of tunnels goes first
	dataplane->tuns = calloc(tunnels + 1, sizeof(*dataplane->tuns));
	dataplane->tun_events = calloc(tunnels + 1, sizeof(*dataplane->tun_events));
	dataplane->tun_mtus = calloc(tunnels + 1, sizeof(*dataplane->tun_mtus));
	dataplane->tun_index =
		calloc(rte_align32pow2(2 * tunnels + 2), sizeof(*dataplane->tun_index));
	dataplane->no_sa_reported = calloc(tunnels + 1, sizeof(*dataplane->no_sa_reported));
	if (dataplane->tuns == NULL || dataplane->tun_events == NULL ||
		dataplane->tun_mtus == NULL || dataplane->no_sa_reported == NULL ||
		dataplane->tun_index == NULL || !filler_create(dataplane))
		return dataplane_fail(error, "no memory for %u tunnels", tunnels);
	for (unsigned int i = 0; i < tunnels; i++)
		dataplane->tuns[i].fd = -1;
	for (unsigned int i = 0; i < dataplane->port_count; i++)
		if (open_tap(dataplane, &dataplane->ports[i], &cause) != 0)
			return dataplane_fail(error, "%s", cause.text);
	unsigned int all = dataplane->config->tunnel_count;
	for (unsigned int i = 0; i < all; i++) {
		if (host_path_open_tun(dataplane, i, &dataplane->config->tunnels[i], &cause) != 0)
			return dataplane_fail(error, "%s", cause.text);
		dataplane_progress(dataplane, "tunnels", i + 1, all);
	}
	if (host_route_remove_all(dataplane->host, &cause) != 0)
		return dataplane_fail(error, "%s", cause.text);
	return 0;
}

static int watch_interfaces(struct dataplane *dataplane)
{
	bool complete = true;
	for (unsigned int i = 0; i < dataplane->port_count; i++) {
		struct port *port = &dataplane->ports[i];
		port->tap_event =
			watch(dataplane, port->tap.fd, (uint16_t)(TELEMETRY_SOURCE_TAP + i), i);
		complete &= port->tap_event != NULL;
	}
	for (unsigned int i = 0; i < dataplane->config->tunnel_count; i++)
		complete &= watch_tun(dataplane, i);
	return complete ? 0 : -1;
}

int host_path_start(struct dataplane *dataplane, struct dataplane_error *error)
{
	const struct itimerspec interval = {
		.it_interval.tv_nsec = TICK_NANOSECONDS, .it_value.tv_nsec = TICK_NANOSECONDS};
	struct event_base *base = dataplane->base;
	dataplane->tick_fd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
	if (dataplane->tick_fd < 0 || timerfd_settime(dataplane->tick_fd, 0, &interval, NULL) != 0)
		return dataplane_fail(error, "no timer: %s", strerror(errno));
	dataplane->tick_event =
		event_new(base, dataplane->tick_fd, EV_READ | EV_PERSIST, on_tick, dataplane);
	dataplane->netlink_event = event_new(
		base, host_fd(dataplane->host), EV_READ | EV_PERSIST, on_netlink, dataplane);
	if (dataplane->tick_event == NULL || dataplane->netlink_event == NULL ||
		event_add(dataplane->tick_event, NULL) != 0 ||
		event_add(dataplane->netlink_event, NULL) != 0 || watch_interfaces(dataplane) != 0)
		return dataplane_fail(error, "the event loop does not take the host path");
	return 0;
}

void host_path_stop(struct dataplane *dataplane)
{
	if (dataplane->tick_event != NULL)
		event_free(dataplane->tick_event);
	if (dataplane->netlink_event != NULL)
		event_free(dataplane->netlink_event);
	dataplane->tick_event = dataplane->netlink_event = NULL;
	for (unsigned int i = 0; i < dataplane->port_count; i++) {
		unwatch(dataplane->ports[i].tap_event);
		dataplane->ports[i].tap_event = NULL;
	}
	for (unsigned int i = 0; dataplane->tun_events != NULL && i < dataplane->tun_room; i++) {
		unwatch(dataplane->tun_events[i]);
		dataplane->tun_events[i] = NULL;
	}
	if (dataplane->tick_fd >= 0)
		close(dataplane->tick_fd);
	dataplane->tick_fd = -1;
}

void host_path_close(struct dataplane *dataplane)
{
	for (unsigned int i = 0; i < dataplane->port_count; i++)
		if (dataplane->ports[i].tap.index != 0)
			host_interface_close(&dataplane->ports[i].tap);
	for (unsigned int i = 0; dataplane->tuns != NULL && i < dataplane->tun_room; i++)
		if (dataplane->tuns[i].index != 0)
			host_interface_close(&dataplane->tuns[i]);
	free(dataplane->tuns);
	free(dataplane->tun_events);
	free(dataplane->tun_mtus);
	free(dataplane->tun_index);
	free(dataplane->no_sa_reported);
	free(dataplane->fillers);
}
