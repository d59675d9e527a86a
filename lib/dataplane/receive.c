// SPDX-License-Identifier: BSD-3-Clause
// Copyright (c) 2026 the espgw authors

// The first step: sorts a burst of Ethernet frames into cleartext to forward, ESP to decapsulate,
// and frames for the host.

#include <rte_prefetch.h>
#include <rte_vect.h>

#include "internal.h"

// What a frame turned out to be. Nearly all frames are plain (see sort_plain_esp) and don't get
// here.
enum arrival {
	ARRIVAL_FORWARD,     // an IP packet to route
	ARRIVAL_ESP,         // data starts at the SPI now
	ARRIVAL_HOST,        // the whole frame, to the kernel
	ARRIVAL_HOST_URGENT, // as above: ARP, ND, IKE
	ARRIVAL_FRAGMENT,    // may be of ESP
	ARRIVAL_TOO_BIG,     // for the host: ICMP that may be about ESP that was sent
	ARRIVAL_DROP,
};

// And what goes with that.
struct frame {
	enum drop_reason reason; // ARRIVAL_DROP
	uint32_t size;           // behind the Ethernet header, without link-layer padding
	// ARRIVAL_ESP
	uint8_t traffic_class;
	uint16_t outer_size; // from the IP header to the SPI
	uint32_t esp_size;   // from the SPI to the ICV
	uint32_t spi;        // network order
	uint64_t sender;     // see esp_sender_v4; 0 = no UDP
};

static enum arrival drop(struct frame *frame, enum drop_reason reason)
{
	frame->reason = reason;
	return ARRIVAL_DROP;
}

static enum arrival host(bool urgent)
{
	return urgent ? ARRIVAL_HOST_URGENT : ARRIVAL_HOST;
}

static bool is_own_address4(const struct port *port, uint32_t address)
{
	for (unsigned int i = 0; i < port->own4_count; i++)
		if (port->own4[i] == address)
			return true;
	return false;
}

static bool is_own_address6(const struct port *port, const uint8_t *address)
{
	if (address[0] == 0xfe && (address[1] & 0xc0) == 0x80)
		return true; // link-local, to our MAC
	for (unsigned int i = 0; i < port->own6_count; i++)
		if (memcmp(port->own6[i], address, 16) == 0)
			return true;
	return false;
}

static enum arrival take_esp(
	const uint8_t *ip, uint32_t esp_offset, uint32_t esp_size, struct frame *frame)
{
	if (unlikely(esp_size < ESP_HEADER_SIZE))
		return drop(frame, DROP_RUNT);
	frame->traffic_class = packet_ip_traffic_class(ip);
	frame->outer_size = (uint16_t)esp_offset;
	frame->esp_size = esp_size;
	memcpy(&frame->spi, ip + esp_offset, sizeof(frame->spi));
	return ARRIVAL_ESP;
}

static uint64_t sender_of(const uint8_t *ip, uint16_t udp_source)
{
	if (likely(ip[0] >> 4 == 4))
		return esp_sender_v4(((const struct rte_ipv4_hdr *)ip)->src_addr, udp_source);
	return esp_sender_v6(((const struct rte_ipv6_hdr *)ip)->src_addr, udp_source);
}

// A UDP packet to our endpoint on port 4500: ESP, IKE or a keepalive (RFC 3948 section 2).
static enum arrival classify_udp_esp(
	const uint8_t *ip, uint32_t size, const struct packet_ip_view *view, struct frame *frame)
{
	const struct rte_udp_hdr *udp = (const struct rte_udp_hdr *)(ip + view->header);
	uint32_t room = size - view->header;
	uint32_t length = rte_be_to_cpu_16(udp->dgram_len);
	if (length < sizeof(*udp) || length > room)
		return drop(frame, DROP_BAD_FRAME);
	const uint8_t *payload = (const uint8_t *)(udp + 1);
	uint32_t payload_size = length - (uint32_t)sizeof(*udp);
	if (payload_size == 1 && payload[0] == 0xff)
		return drop(frame, DROP_KEEPALIVE);
	static const uint8_t non_esp_marker[4];
	if (payload_size >= 4 && memcmp(payload, non_esp_marker, 4) == 0)
		return host(true);
	frame->sender = sender_of(ip, udp->src_port);
	return take_esp(ip, view->header + (uint32_t)sizeof(*udp), payload_size, frame);
}

static bool is_icmp6_nd(const uint8_t *upper, uint32_t size)
{
	return size >= 1 && upper[0] >= 133 && upper[0] <= 137; // RFC 4861
}

// A checked IP packet that is for the gateway itself.
static enum arrival classify_own(
	const struct port *port, const uint8_t *ip, uint32_t size, struct frame *frame)
{
	struct packet_ip_view view;
	if (!packet_ip_view(ip, size, &view))
		return drop(frame, DROP_BAD_HEADER);
	if (unlikely(view.is_fragment) && port->is_outside &&
		(view.protocol == IPPROTO_ESP || view.protocol == IPPROTO_UDP))
		return ARRIVAL_FRAGMENT;
	if (view.protocol == IPPROTO_ESP && port->is_outside) {
		frame->sender = 0;
		return take_esp(ip, view.header, size - view.header, frame);
	}
	uint32_t upper = size - view.header;
	if (view.protocol == IPPROTO_UDP && view.is_first && upper >= sizeof(struct rte_udp_hdr)) {
		const struct rte_udp_hdr *udp = (const struct rte_udp_hdr *)(ip + view.header);
		uint16_t destination = rte_be_to_cpu_16(udp->dst_port);
		if (destination == PACKET_UDP_ESP && port->is_outside)
			return classify_udp_esp(ip, size, &view, frame);
		return host(destination == PACKET_UDP_IKE);
	}
	if (port->is_outside && packet_is_too_big_message(ip, size, &view))
		return ARRIVAL_TOO_BIG;
	return host(view.protocol == IPPROTO_ICMPV6 && view.is_first &&
		    is_icmp6_nd(ip + view.header, upper));
}

static enum arrival classify_ipv4(
	const struct port *port, const uint8_t *ip, uint32_t size, struct frame *frame)
{
	if (is_own_address4(port, ((const struct rte_ipv4_hdr *)ip)->dst_addr))
		return classify_own(port, ip, size, frame);
	if (ip[offsetof(struct rte_ipv4_hdr, dst_addr)] >= 224) // multicast, broadcast
		return host(false);
	return ARRIVAL_FORWARD;
}

static enum arrival classify_ipv6(
	const struct port *port, const uint8_t *ip, uint32_t size, struct frame *frame)
{
	const uint8_t *destination = ip + offsetof(struct rte_ipv6_hdr, dst_addr);
	if (is_own_address6(port, destination))
		return classify_own(port, ip, size, frame);
	if (destination[0] == 0xff) {
		struct packet_ip_view view;
		return host(packet_ip_view(ip, size, &view) && view.protocol == IPPROTO_ICMPV6 &&
			    is_icmp6_nd(ip + view.header, size - view.header));
	}
	return ARRIVAL_FORWARD;
}

static __rte_always_inline bool must_verify_checksum(const struct rte_mbuf *packet)
{
	return (packet->ol_flags & RTE_MBUF_F_RX_IP_CKSUM_MASK) != RTE_MBUF_F_RX_IP_CKSUM_GOOD;
}

// A frame to a group address whose IP packet is for one host is not routed (RFC 1122 3.3.6).
static enum arrival classify_ip(const struct port *port, const struct rte_mbuf *packet,
	bool is_group, bool is_ipv4, struct frame *frame)
{
	const uint8_t *ip = rte_pktmbuf_mtod_offset(packet, const uint8_t *, ETHERNET_SIZE);
	enum drop_reason reason =
		packet_ip_check(ip, frame->size, must_verify_checksum(packet), &frame->size);
	if (reason != DROP_NONE)
		return drop(frame, reason);
	if ((ip[0] >> 4 == 4) != is_ipv4)
		return drop(frame, DROP_BAD_HEADER);
	enum arrival arrival = is_ipv4 ? classify_ipv4(port, ip, frame->size, frame)
				       : classify_ipv6(port, ip, frame->size, frame);
	if (is_group && arrival == ARRIVAL_FORWARD)
		return drop(frame, DROP_OTHER_MAC);
	return arrival;
}

static enum arrival classify(
	const struct port *port, const struct rte_mbuf *packet, struct frame *frame)
{
	if (packet->nb_segs != 1)
		return drop(frame, DROP_NOT_LINEAR);
	if (packet->data_len < ETHERNET_SIZE)
		return drop(frame, DROP_BAD_FRAME);
	frame->size = packet->data_len - ETHERNET_SIZE;
	const struct rte_ether_hdr *ethernet =
		rte_pktmbuf_mtod(packet, const struct rte_ether_hdr *);
	bool is_group = rte_is_multicast_ether_addr(&ethernet->dst_addr);
	if (!is_group && !rte_is_same_ether_addr(&ethernet->dst_addr, &port->mac))
		return drop(frame, DROP_OTHER_MAC);
	if (ethernet->ether_type == RTE_BE16(RTE_ETHER_TYPE_IPV4))
		return classify_ip(port, packet, is_group, true, frame);
	if (ethernet->ether_type == RTE_BE16(RTE_ETHER_TYPE_IPV6))
		return classify_ip(port, packet, is_group, false, frame);
	if (ethernet->ether_type == RTE_BE16(RTE_ETHER_TYPE_ARP))
		return host(true);
	if (ethernet->ether_type == RTE_BE16(RTE_ETHER_TYPE_VLAN) ||
		ethernet->ether_type == RTE_BE16(RTE_ETHER_TYPE_QINQ))
		return drop(frame, DROP_VLAN);
	return drop(frame, DROP_ETHERTYPE);
}

// Cleartext that nobody asked for from outside: said to be unroutable where it is.
static void refuse_from_outside(struct worker *worker, struct rte_mbuf *packet)
{
	const uint8_t *ip = rte_pktmbuf_mtod_offset(packet, const uint8_t *, ETHERNET_SIZE);
	struct packet_address destination = packet_ip_destination(ip);
	struct route_target target = route_lookup(worker->dataplane->routes, &destination, NULL);
	worker_drop(worker, packet,
		target.kind == ROUTE_NONE ? DROP_NO_ROUTE : DROP_CLEARTEXT_FROM_OUTSIDE);
}

static inline void set_data(struct rte_mbuf *packet, uint32_t offset, uint32_t size)
{
	packet->data_off = (uint16_t)(packet->data_off + offset);
	packet->data_len = (uint16_t)size;
	packet->pkt_len = size;
}

// The packets of a burst that are to be forwarded, and those that are ESP.
struct sorted {
	unsigned int forward_count, esp_count;
	struct rte_mbuf *forward[BURST_MAX], *esp[BURST_MAX];
	struct outer_headers outer;       // of the latter
	struct destinations destinations; // of the former
};

static __attribute__((noinline)) void hand_to_host(struct worker *worker, struct rte_mbuf *packet,
	const struct port *port, enum arrival arrival, uint32_t size)
{
	const struct rte_ether_hdr *ethernet =
		rte_pktmbuf_mtod(packet, const struct rte_ether_hdr *);
	bool is_arp = ethernet->ether_type == RTE_BE16(RTE_ETHER_TYPE_ARP);
	if (is_arp || !probe_take_clear(worker, packet, size))
		punt_frame(worker, packet, port, arrival == ARRIVAL_HOST_URGENT);
}

static __rte_always_inline void add_esp(
	struct sorted *sorted, struct rte_mbuf *packet, const struct frame *frame)
{
	unsigned int i = sorted->esp_count++;
	sorted->outer.classes[i] = frame->traffic_class;
	sorted->outer.sizes[i] = frame->outer_size;
	sorted->outer.senders[i] = frame->sender;
	sorted->outer.any_sender |= frame->sender;
	sorted->outer.spis[i] = frame->spi;
	sorted->esp[i] = packet;
	set_data(packet, ETHERNET_SIZE + frame->outer_size, frame->esp_size);
}

static __rte_always_inline void add_forward(
	struct sorted *sorted, struct rte_mbuf *packet, const uint8_t *ip, uint32_t size)
{
	unsigned int i = sorted->forward_count++;
	sorted->destinations.ipv4[i] =
		rte_be_to_cpu_32(((const struct rte_ipv4_hdr *)ip)->dst_addr);
	sorted->forward[i] = packet;
	set_data(packet, ETHERNET_SIZE, size);
}

// What was put together is ESP: its first fragment said so.
static void sort_whole(struct worker *worker, const struct port *port, struct rte_mbuf *packet,
	struct sorted *sorted)
{
	struct frame frame;
	enum arrival arrival = classify(port, packet, &frame);
	if (arrival == ARRIVAL_ESP)
		add_esp(sorted, packet, &frame);
	else
		worker_drop(
			worker, packet, arrival == ARRIVAL_DROP ? frame.reason : DROP_ESP_FRAGMENT);
}

static __attribute__((noinline)) void sort_fragment(struct worker *worker, const struct port *port,
	struct rte_mbuf *packet, struct sorted *sorted)
{
	struct rte_mbuf *whole = fragment_take(worker, port, packet);
	if (whole != NULL)
		sort_whole(worker, port, whole, sorted);
}

// Control is told, and the kernel hears of it too: it may be about a packet of its own.
static __attribute__((noinline)) void sort_too_big(
	struct worker *worker, const struct port *port, struct rte_mbuf *packet, uint32_t size)
{
	const uint8_t *ip = rte_pktmbuf_mtod_offset(packet, const uint8_t *, ETHERNET_SIZE);
	struct packet_too_big message;
	struct packet_ip_view view;
	if (packet_ip_view(ip, size, &view) && packet_too_big_parse(ip, size, &view, &message))
		worker_event_too_big(worker, &message);
	set_data(packet, 0, ETHERNET_SIZE + size);
	punt_frame(worker, packet, port, false);
}

static __attribute__((noinline)) void sort_any(struct worker *worker, const struct port *port,
	struct rte_mbuf *packet, struct sorted *sorted)
{
	struct frame frame;
	enum arrival arrival = classify(port, packet, &frame);
	if (arrival == ARRIVAL_FORWARD && !port->is_outside) {
		const uint8_t *ip = rte_pktmbuf_mtod_offset(packet, const uint8_t *, ETHERNET_SIZE);
		burst_look_any(&sorted->destinations.look, sorted->forward_count, ip);
		add_forward(sorted, packet, ip, frame.size);
	} else if (arrival == ARRIVAL_ESP) {
		add_esp(sorted, packet, &frame);
	} else if (arrival == ARRIVAL_FORWARD) {
		refuse_from_outside(worker, packet);
	} else if (arrival == ARRIVAL_DROP) {
		worker_drop(worker, packet, frame.reason);
	} else if (arrival == ARRIVAL_FRAGMENT) {
		set_data(packet, 0, ETHERNET_SIZE + frame.size);
		sort_fragment(worker, port, packet, sorted);
	} else if (arrival == ARRIVAL_TOO_BIG) {
		sort_too_big(worker, port, packet, frame.size);
	} else {
		set_data(packet, 0, ETHERNET_SIZE + frame.size);
		hand_to_host(worker, packet, port, arrival, frame.size);
	}
}

// The first 16 bytes of plain frames to a port: its MAC, EtherType, version and IHL. Bytes of the
// mask are 0 or 0xff.
struct plain {
	__m128i value, mask;
};

static inline struct plain plain_of(const struct port *port)
{
	const uint64_t start = RTE_BE16(RTE_ETHER_TYPE_IPV4) | RTE_IPV4_VHL_DEF << 16;
	return (struct plain){
		.value = _mm_set_epi64x((int64_t)(start << 32), (int64_t)port->mac_word),
		.mask = _mm_set_epi64x(0xffffffLL << 32, 0xffffffffffffLL),
	};
}

// The IP header of a frame that is one segment, to the port's MAC and of a whole IPv4 packet
// without options, between hosts, of at least `least` bytes: *size. NULL: it is none.
static __rte_always_inline const uint8_t *look_plain(
	const struct plain *plain, const struct rte_mbuf *packet, uint32_t least, uint32_t *size)
{
	const uint8_t *ethernet = rte_pktmbuf_mtod(packet, const uint8_t *);
	if (unlikely(packet->nb_segs != 1 || packet->data_len < ETHERNET_SIZE + least))
		return NULL;
	__m128i start = _mm_loadu_si128((const __m128i *)ethernet);
	if (unlikely(!_mm_testz_si128(_mm_xor_si128(start, plain->value), plain->mask)) ||
		unlikely(!packet_ipv4_is_plain(ethernet + ETHERNET_SIZE,
			packet->data_len - ETHERNET_SIZE, least, must_verify_checksum(packet),
			size)))
		return NULL;
	return ethernet + ETHERNET_SIZE;
}

// Neither UDP nor a fragment. Fragment field, TTL and protocol are one word.
static __rte_always_inline bool is_plain_esp(const uint8_t *ip)
{
	const uint32_t mask = (uint32_t)(uint16_t)~RTE_BE16(RTE_IPV4_HDR_DF_FLAG) | 0xff000000;
	uint32_t word;
	memcpy(&word, ip + offsetof(struct rte_ipv4_hdr, fragment_offset), sizeof(word));
	return (word & mask) == (uint32_t)IPPROTO_ESP << 24;
}

static __rte_always_inline bool is_one_of_own4(const struct port *port, uint32_t address)
{
	return likely(address == port->own4[0]) || // there is one, nearly always
	       (port->own4_count > 1 && is_own_address4(port, address));
}

// Takes what nearly all frames at an outside port are: plain, of ESP, to the port. False: sort_any
// has to, which comes to the same for these.
static __rte_always_inline bool sort_plain_esp(const struct port *port, const struct plain *plain,
	struct rte_mbuf *packet, struct sorted *sorted)
{
	const uint32_t before = sizeof(struct rte_ipv4_hdr), least = before + ESP_HEADER_SIZE;
	uint32_t size;
	const uint8_t *ip = look_plain(plain, packet, least, &size);
	if (unlikely(ip == NULL) || unlikely(!is_plain_esp(ip)) ||
		unlikely(!is_one_of_own4(port, ((const struct rte_ipv4_hdr *)ip)->dst_addr)))
		return false;
	struct frame frame = {
		.traffic_class = ip[offsetof(struct rte_ipv4_hdr, type_of_service)],
		.outer_size = (uint16_t)before,
		.esp_size = size - before,
	};
	memcpy(&frame.spi, ip + before, sizeof(frame.spi));
	add_esp(sorted, packet, &frame);
	return true;
}

// The same at an inside port: plain, to forward.
static __rte_always_inline bool sort_plain_clear(const struct port *port, const struct plain *plain,
	struct rte_mbuf *packet, struct sorted *sorted)
{
	uint32_t size;
	const uint8_t *ip = look_plain(plain, packet, sizeof(struct rte_ipv4_hdr), &size);
	if (unlikely(ip == NULL) ||
		unlikely(is_one_of_own4(port, ((const struct rte_ipv4_hdr *)ip)->dst_addr)))
		return false;
	burst_look_plain(&sorted->destinations.look, ip);
	add_forward(sorted, packet, ip, size);
	return true;
}

// Returns the frames' bytes. `is_outside`: the port's, as a constant.
static __rte_always_inline uint64_t sort_frames(struct worker *worker, const struct port *port,
	bool is_outside, struct rte_mbuf **packets, unsigned int count, struct sorted *sorted)
{
	const struct plain plain = plain_of(port);
	uint64_t bytes = 0;
	for (unsigned int i = 0; i < count; i++) {
		bytes += packets[i]->pkt_len;
		if (unlikely(!(is_outside ? sort_plain_esp(port, &plain, packets[i], sorted)
					  : sort_plain_clear(port, &plain, packets[i], sorted))))
			sort_any(worker, port, packets[i], sorted);
	}
	return bytes;
}

void receive_burst(struct worker *worker, const struct port *port, struct rte_mbuf **packets,
	unsigned int count)
{
	struct sorted sorted;

	stage_enter(&worker->stages, STAGE_CLASSIFY, count);
	sorted.forward_count = sorted.esp_count = 0;
	sorted.outer.any_sender = 0;
	sorted.destinations.look = (struct burst_look){0};
	worker->source = &worker->slot->sources[port->index];
	// The headers and what follows: short packets are in the next line, or two where they are
	// ESP. They come from the NIC, so that each line not fetched here is waited for later.
#pragma GCC unroll 4
	for (unsigned int i = 0; i < count; i++) {
		const uint8_t *frame = rte_pktmbuf_mtod(packets[i], const uint8_t *);
		rte_prefetch0_write(frame);
		rte_prefetch0_write(frame + RTE_CACHE_LINE_SIZE);
		if (port->is_outside)
			rte_prefetch0_write(frame + 2 * RTE_CACHE_LINE_SIZE);
	}
	if (unlikely(port->tags_size != 0))
		count = vlan_strip_burst(worker, port, packets, count);
	worker->source->received += count;
	worker->source->received_bytes +=
		port->is_outside ? sort_frames(worker, port, true, packets, count, &sorted)
				 : sort_frames(worker, port, false, packets, count, &sorted);
	if (sorted.esp_count != 0)
		decapsulate_burst(worker, sorted.esp, &sorted.outer, sorted.esp_count);
	if (sorted.forward_count != 0)
		forward_inside(
			worker, port, sorted.forward, &sorted.destinations, sorted.forward_count);
}

void receive_whole(struct worker *worker, const struct port *port, struct rte_mbuf *packet)
{
	struct sorted sorted;
	sorted.forward_count = sorted.esp_count = 0;
	sorted.outer.any_sender = 0;
	worker->source = &worker->slot->sources[port->index];
	sort_whole(worker, port, packet, &sorted);
	if (sorted.esp_count != 0)
		decapsulate_burst(worker, sorted.esp, &sorted.outer, sorted.esp_count);
	transmit_flush(worker);
}
