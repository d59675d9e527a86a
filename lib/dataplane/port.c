// SPDX-License-Identifier: BSD-3-Clause
// Copyright (c) 2026 the espgw authors

// Ports: DPDK devices with a queue pair per worker.

#include <errno.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <rte_errno.h>

#include "internal.h"

// Frames may be longer than the MTU by the Ethernet header, VLAN tags and the checksum.
#define FRAME_OVERHEAD (ETHERNET_SIZE + VLAN_TAGS * VLAN_TAG_SIZE + RTE_ETHER_CRC_LEN)

// "net_af_packet0,iface=veth0" has the ethdev name "net_af_packet0".
static void device_name(const struct config_port *config, char name[CONFIG_DEVICE_SIZE])
{
	snprintf(name, CONFIG_DEVICE_SIZE, "%s", config->device);
	char *comma = strchr(name, ',');
	if (comma != NULL)
		*comma = '\0';
}

// The netdev that a driver such as net_af_packet sits on, from its "iface=".
static void find_kernel_device(struct port *port)
{
	const char *value = strstr(port->config->device, ",iface=");
	if (value == NULL || strncmp(port->config->device, "net_tap", 7) == 0)
		return;
	value += strlen(",iface=");
	size_t length = strcspn(value, ",");
	if (length < sizeof(port->kernel_device))
		memcpy(port->kernel_device, value, length);
}

// Two gateways on one device would each see half of the frames. An abstract socket of the device's
// name is a lock that ends with the process and is seen by this network namespace only.
static int lock_device(const struct port *port, struct dataplane_error *error)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	char name[CONFIG_DEVICE_SIZE];
	device_name(port->config, name);
	int length = snprintf(address.sun_path + 1, sizeof(address.sun_path) - 1, "espgw-device-%s",
		port->kernel_device[0] != '\0' ? port->kernel_device : name);
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	socklen_t size = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + (size_t)length);
	if (fd >= 0 && bind(fd, (struct sockaddr *)&address, size) == 0)
		return 0; // kept open until the process ends
	int cause = errno;
	if (fd >= 0)
		close(fd);
	if (cause == EADDRINUSE)
		return dataplane_fail(error,
			"port \"%s\": another espgw uses the device %s; stop it, or name another "
			"device",
			port->config->name, port->config->device);
	return dataplane_fail(error, "port \"%s\": can't lock its device: %s", port->config->name,
		strerror(cause));
}

static int on_removed(uint16_t id, enum rte_eth_event_type type, void *argument, void *result)
{
	(void)id;
	(void)type;
	(void)result;
	struct port *port = argument;
	atomic_store(&port->removed, true);
	atomic_store(&port->usable, false);
	return 0;
}

static uint32_t buffers_needed(const struct config *config)
{
	if (config->gateway.buffers != 0)
		return config->gateway.buffers;
	uint32_t count = 1024; // control's, and what rests in caches
	for (unsigned int i = 0; i < config->port_count; i++) {
		const struct config_port *port = &config->ports[i];
		count += port->rx_queues * port->rx_descriptors;
		count += port->tx_queues * port->tx_descriptors;
	}
	count += config->worker_count * REASSEMBLY_MEAN_FRAGMENTS *
		 config->gateway.reassembly_packets;
	return count + config->worker_count * (2 * HOST_RING_SIZE + 1024);
}

static uint16_t buffer_size(const struct config *config)
{
	if (config->gateway.buffer_size != 0)
		return (uint16_t)config->gateway.buffer_size;
	uint32_t size = RTE_MBUF_DEFAULT_DATAROOM;
	for (unsigned int i = 0; i < config->port_count; i++)
		size = RTE_MAX(size, config->ports[i].mtu + FRAME_OVERHEAD + ESP_TAILROOM_MAX);
	return (uint16_t)(RTE_PKTMBUF_HEADROOM + RTE_ALIGN_CEIL(size, 64));
}

static int create_pool(struct dataplane *dataplane, struct dataplane_error *error)
{
	uint32_t count = buffers_needed(dataplane->config);
	uint16_t size = buffer_size(dataplane->config);
	struct rte_mempool *pool =
		rte_pktmbuf_pool_create("espgw_packets", count, 256, 0, size, (int)rte_socket_id());
	if (pool == NULL)
		return dataplane_fail(error,
			"no memory for %u packet buffers of %u bytes: %s; reserve more hugepages, "
			"raise gateway.memory_mb, or lower gateway.buffers or the ports' "
			"descriptors",
			count, size, rte_strerror(rte_errno));
	for (unsigned int i = 0; i < dataplane->port_count; i++)
		dataplane->ports[i].pool = pool;
	return 0;
}

// Bytes that a frame has beside its packet, as the device counts them.
static uint32_t frame_overhead(const struct rte_eth_dev_info *info)
{
	bool tells = info->max_mtu != 0 && info->max_mtu != UINT16_MAX &&
		     info->max_rx_pktlen > info->max_mtu;
	return tells ? info->max_rx_pktlen - info->max_mtu : RTE_ETHER_HDR_LEN + RTE_ETHER_CRC_LEN;
}

static int check_limits(
	const struct port *port, const struct rte_eth_dev_info *info, struct dataplane_error *error)
{
	const struct config_port *config = port->config;
	if (config->rx_queues > info->max_rx_queues)
		return dataplane_fail(error,
			"port \"%s\": rx_queues = %u, but the device has at most %u; lower "
			"rx_queues, or give the device more (net_af_packet: qpairs=)",
			config->name, config->rx_queues, info->max_rx_queues);
	if (config->tx_queues > info->max_tx_queues)
		return dataplane_fail(error,
			"port \"%s\": tx_queues = %u, but the device has at most %u; use fewer "
			"workers, or give the device more (net_af_packet: qpairs=)",
			config->name, config->tx_queues, info->max_tx_queues);
	// Its fanout feeds all queues that there are, polled or not.
	if (strcmp(info->driver_name, "net_af_packet") == 0 &&
		config->rx_queues != info->max_rx_queues)
		return dataplane_fail(error,
			"port \"%s\": rx_queues = %u, but qpairs=%u of the device spreads frames "
			"over %u queues; make them equal",
			config->name, config->rx_queues, info->max_rx_queues, info->max_rx_queues);
	uint32_t overhead = frame_overhead(info), largest = UINT16_MAX;
	if (info->max_mtu != 0)
		largest = info->max_mtu;
	if (info->max_rx_pktlen > overhead)
		largest = RTE_MIN(largest, info->max_rx_pktlen - overhead);
	if (config->mtu > largest)
		return dataplane_fail(error,
			"port \"%s\": mtu = %u, but the device takes at most %u", config->name,
			config->mtu, largest);
	return 0;
}

// Frames over several buffers, which no step takes, come where one does not fit its buffer. The
// buffers are as large as the MTU wants them; a driver may want more.
static int check_buffers(const struct port *port, struct dataplane_error *error)
{
	struct rte_eth_rxq_info info;
	for (uint16_t i = 0; i < port->rx_queues; i++) {
		if (rte_eth_rx_queue_info_get(port->id, i, &info) != 0 || !info.scattered_rx)
			continue; // or the driver does not tell, and then does not scatter
		return dataplane_fail(error,
			"port \"%s\": the device spreads frames of MTU %u over several buffers; "
			"raise gateway.buffer_size, or lower mtu",
			port->config->name, port->config->mtu);
	}
	return 0;
}

// What the device is told: a device that leaves no room for VLAN tags beside its MTU gets a larger
// one, where it takes that.
static uint32_t device_mtu(const struct port *port, const struct rte_eth_dev_info *info)
{
	uint32_t mtu = port->config->mtu, wanted = mtu + port->tags_size;
	uint32_t overhead = frame_overhead(info);
	if (overhead >= (uint32_t)RTE_ETHER_HDR_LEN + RTE_ETHER_CRC_LEN + port->tags_size)
		return mtu;
	return wanted + overhead <= info->max_rx_pktlen ? wanted : mtu;
}

static struct rte_eth_conf port_conf(const struct port *port, const struct rte_eth_dev_info *info)
{
	struct rte_eth_conf conf = {0};
	conf.rxmode.mtu = device_mtu(port, info);
	conf.rxmode.offloads = info->rx_offload_capa & RTE_ETH_RX_OFFLOAD_IPV4_CKSUM;
	conf.txmode.offloads = info->tx_offload_capa & RTE_ETH_TX_OFFLOAD_MBUF_FAST_FREE;
	uint64_t rss = info->flow_type_rss_offloads &
		       (RTE_ETH_RSS_IP | RTE_ETH_RSS_TCP | RTE_ETH_RSS_UDP | RTE_ETH_RSS_ESP);
	if (port->rx_queues > 1 && rss != 0) {
		conf.rxmode.mq_mode = RTE_ETH_MQ_RX_RSS;
		conf.rx_adv_conf.rss_conf.rss_hf = rss;
	}
	return conf;
}

static int set_up_queues(struct port *port, struct dataplane_error *error)
{
	uint16_t rx = (uint16_t)port->config->rx_descriptors;
	uint16_t tx = (uint16_t)port->config->tx_descriptors;
	int socket = rte_eth_dev_socket_id(port->id);
	unsigned int socket_id = socket < 0 ? rte_socket_id() : (unsigned int)socket;
	int result = rte_eth_dev_adjust_nb_rx_tx_desc(port->id, &rx, &tx);
	if (result == -ENOTSUP)
		result = 0;
	for (uint16_t i = 0; result == 0 && i < port->rx_queues; i++)
		result = rte_eth_rx_queue_setup(port->id, i, rx, socket_id, NULL, port->pool);
	for (uint16_t i = 0; result == 0 && i < port->tx_queues; i++)
		result = rte_eth_tx_queue_setup(port->id, i, tx, socket_id, NULL);
	if (result == 0)
		return 0;
	return dataplane_fail(error, "port \"%s\": setting up its queues failed: %s",
		port->config->name, rte_strerror(-result));
}

static int set_mac(struct port *port, struct dataplane_error *error)
{
	int result = 0;
	if (port->config->has_mac) {
		struct rte_ether_addr mac = port->config->mac;
		result = rte_eth_dev_default_mac_addr_set(port->id, &mac);
	}
	if (result != 0)
		return dataplane_fail(error,
			"port \"%s\": the device does not take another MAC address: %s; leave "
			"out mac",
			port->config->name, rte_strerror(-result));
	rte_eth_macaddr_get(port->id, &port->mac);
	memcpy(&port->mac_word, port->mac.addr_bytes, sizeof(port->mac.addr_bytes));
	return 0;
}

static int open_port(struct port *port, struct dataplane_error *error)
{
	char name[CONFIG_DEVICE_SIZE];
	struct rte_eth_dev_info info;
	device_name(port->config, name);
	if (rte_eth_dev_get_port_by_name(name, &port->id) != 0)
		return dataplane_fail(error,
			"port \"%s\": DPDK found no device %s; is it bound to vfio-pci "
			"(dpdk-devbind.py --status), or misspelt?",
			port->config->name, name);
	int result = rte_eth_dev_info_get(port->id, &info);
	if (result != 0)
		return dataplane_fail(error, "port \"%s\": the device does not answer: %s",
			port->config->name, rte_strerror(-result));
	if (check_limits(port, &info, error) != 0)
		return -1;
	snprintf(port->driver, sizeof(port->driver), "%s", info.driver_name);
	port->rx_queues = (uint16_t)port->config->rx_queues;
	port->tx_queues = (uint16_t)port->config->tx_queues;
	struct rte_eth_conf conf = port_conf(port, &info);
	result = rte_eth_dev_configure(port->id, port->rx_queues, port->tx_queues, &conf);
	if (result != 0)
		return dataplane_fail(error,
			"port \"%s\": the device does not take %u RX and %u TX queues with MTU "
			"%u: %s",
			port->config->name, port->rx_queues, port->tx_queues, port->config->mtu,
			rte_strerror(-result));
	rte_eth_dev_callback_register(port->id, RTE_ETH_EVENT_INTR_RMV, on_removed, port);
	if (set_up_queues(port, error) != 0)
		return -1;
	return set_mac(port, error);
}

// As the workers want them: they look at the first IPv4 address without asking if there is one.
static void copy_addresses(struct port *port)
{
	port->own4[0] = UINT32_MAX; // no packet's that they look at so
	for (unsigned int i = 0; i < port->config->address_count; i++) {
		const struct packet_address *address = &port->config->addresses[i].address;
		if (address->family == 4)
			memcpy(&port->own4[port->own4_count++], address->bytes, 4);
		else
			memcpy(port->own6[port->own6_count++], address->bytes, 16);
	}
}

int ports_open(struct dataplane *dataplane, struct dataplane_error *error)
{
	const struct config *config = dataplane->config;
	dataplane->port_count = config->port_count;
	if (create_pool(dataplane, error) != 0)
		return -1;
	for (unsigned int i = 0; i < config->port_count; i++) {
		struct port *port = &dataplane->ports[i];
		port->config = &config->ports[i];
		port->index = (uint8_t)i;
		port->is_outside = port->config->side == CONFIG_SIDE_OUTSIDE;
		port->mtu = port->config->mtu;
		vlan_set_up(port);
		copy_addresses(port);
		find_kernel_device(port);
		if (lock_device(port, error) != 0 || open_port(port, error) != 0)
			return -1;
	}
	return 0;
}

int ports_start(struct dataplane *dataplane, struct dataplane_error *error)
{
	for (unsigned int i = 0; i < dataplane->port_count; i++) {
		struct port *port = &dataplane->ports[i];
		int result = rte_eth_dev_start(port->id);
		if (result != 0)
			return dataplane_fail(error, "port \"%s\": the device does not start: %s",
				port->config->name, rte_strerror(-result));
		if (check_buffers(port, error) != 0)
			return -1;
		// Groups (ND, OSPF) are the host's to choose from; not every driver can filter.
		rte_eth_allmulticast_enable(port->id);
		atomic_store(&port->usable, true);
		port->was_usable = true;
	}
	ports_watch(dataplane);
	return 0;
}

void ports_close(struct dataplane *dataplane)
{
	for (unsigned int i = 0; i < dataplane->port_count; i++) {
		struct port *port = &dataplane->ports[i];
		if (port->driver[0] == '\0')
			continue;
		rte_eth_dev_stop(port->id);
		rte_eth_dev_close(port->id);
	}
}

// The netdev below the driver, which does not tell of its carrier. False: there is none any more.
static bool kernel_device_state(const struct port *port, bool *running)
{
	struct ifreq request = {0};
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return if_nametoindex(port->kernel_device) != 0;
	memcpy(request.ifr_name, port->kernel_device, sizeof(request.ifr_name));
	bool present = ioctl(fd, SIOCGIFFLAGS, &request) == 0;
	*running = present && (request.ifr_flags & IFF_RUNNING) != 0;
	close(fd);
	return present;
}

static bool port_is_present(const struct port *port, bool *running)
{
	*running = true;
	if (atomic_load(&port->removed))
		return false;
	return port->kernel_device[0] == '\0' || kernel_device_state(port, running);
}

void ports_watch(struct dataplane *dataplane)
{
	for (unsigned int i = 0; i < dataplane->port_count; i++) {
		struct port *port = &dataplane->ports[i];
		struct rte_eth_link link = {0};
		bool running;
		bool usable = port_is_present(port, &running) && running &&
			      rte_eth_link_get_nowait(port->id, &link) == 0 &&
			      link.link_status == RTE_ETH_LINK_UP;
		atomic_store(&port->usable, usable);
		if (usable == port->was_usable)
			continue;
		port->was_usable = usable;
		if (dataplane->handler == NULL)
			continue;
		struct dataplane_event event = {.kind = DATAPLANE_PORT_STATE, .port = i};
		dataplane->handler(dataplane->handler_argument, &event);
	}
}

void dataplane_port_state(
	struct dataplane *dataplane, unsigned int index, struct dataplane_port_state *state)
{
	struct port *port = &dataplane->ports[index];
	struct rte_eth_link link = {0};
	struct rte_eth_stats stats = {0};
	bool running;
	*state = (struct dataplane_port_state){
		.config = port->config,
		.present = port_is_present(port, &running),
		.link_up = atomic_load(&port->usable),
		.mac = port->mac,
		.rx_queues = port->rx_queues,
		.tx_queues = port->tx_queues,
	};
	memcpy(state->driver, port->driver, sizeof(state->driver));
	if (!state->present)
		return;
	if (rte_eth_link_get_nowait(port->id, &link) == 0 &&
		link.link_speed != RTE_ETH_SPEED_NUM_UNKNOWN)
		state->link_mbps = link.link_speed;
	if (rte_eth_stats_get(port->id, &stats) != 0)
		return;
	state->rx_missed = stats.imissed;
	state->rx_errors = stats.ierrors;
	state->rx_no_buffer = stats.rx_nombuf;
	state->tx_errors = stats.oerrors;
}
