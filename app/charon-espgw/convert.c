// SPDX-License-Identifier: GPL-2.0-or-later
// Copyright (c) 2026 the espgw authors

#include <arpa/inet.h>
#include <stdio.h>
#include <string.h>

#include "convert.h"

#define NAT_T_PORT             4500
#define REPLAY_WINDOW_SMALLEST 32
#define REPLAY_WINDOW_LARGEST  65536
// What charon gives when swanctl.conf does not say: far too small for several cores.
#define REPLAY_WINDOW_DEFAULT 32

// ---- addresses ----

void convert_host(char text[INET6_ADDRSTRLEN], host_t *host)
{
	text[0] = '\0';
	inet_ntop(host->get_family(host), host->get_address(host).ptr, text, INET6_ADDRSTRLEN);
}

static uint16_t nat_t_port(host_t *host)
{
	uint16_t port = host->get_port(host);
	return port == 0 ? NAT_T_PORT : port;
}

void convert_outer(struct sa_outer *outer, host_t *source, host_t *destination, bool encap)
{
	convert_host(outer->source, source);
	convert_host(outer->destination, destination);
	outer->source_port = encap ? nat_t_port(source) : 0;
	outer->destination_port = encap ? nat_t_port(destination) : 0;
}

// ---- traffic selectors ----

// The smallest prefix that covers the selector's addresses. True: it has no others.
static bool convert_addresses(char prefix[PREFIX_BYTES], traffic_selector_t *selector)
{
	host_t *net;
	uint8_t mask;
	char address[INET6_ADDRSTRLEN];
	bool exact = selector->to_subnet(selector, &net, &mask);
	convert_host(address, net);
	net->destroy(net);
	snprintf(prefix, PREFIX_BYTES, "%s/%u", address, mask);
	return exact;
}

// Port 0 alone and "opaque" ports (RFC 4301 section 4.4.1.1) are not to be said to the gateway:
// false, and any port.
static bool convert_ports(struct espgw_ports *ports, traffic_selector_t *selector)
{
	uint16_t from = selector->get_from_port(selector), to = selector->get_to_port(selector);
	*ports = (struct espgw_ports){0};
	if (from == 0 && to == UINT16_MAX)
		return true;
	if (from > to || to == 0)
		return false;
	*ports = (struct espgw_ports){from, to};
	return true;
}

static bool has_ports(uint8_t protocol)
{
	static const uint8_t with[] = {IPPROTO_ICMP, IPPROTO_TCP, IPPROTO_UDP, IPPROTO_DCCP,
		IPPROTO_ICMPV6, IPPROTO_SCTP, IPPROTO_UDPLITE};
	return memchr(with, protocol, sizeof(with)) != NULL;
}

static bool ports_equal(const struct espgw_ports *a, const struct espgw_ports *b)
{
	return a->first == b->first && a->last == b->last;
}

static bool selector_known(const struct sa *sa, const struct sa_prefixes *pair)
{
	for (size_t i = 0; i < sa->selector_count; i++) {
		const struct sa_prefixes *known = &sa->selectors[i];
		if (strcmp(known->local, pair->local) == 0 &&
			strcmp(known->remote, pair->remote) == 0 &&
			known->protocol == pair->protocol &&
			ports_equal(&known->local_ports, &pair->local_ports) &&
			ports_equal(&known->remote_ports, &pair->remote_ports))
			return true;
	}
	return false;
}

// False: there are too many.
static bool convert_pair(
	struct sa *sa, traffic_selector_t *local, traffic_selector_t *remote, bool *exact)
{
	struct sa_prefixes pair = {.protocol = local->get_protocol(local)};
	uint8_t remote_protocol = remote->get_protocol(remote);
	if (local->get_type(local) != remote->get_type(remote))
		return true;
	if (pair.protocol == 0)
		pair.protocol = remote_protocol;
	else if (remote_protocol != 0 && remote_protocol != pair.protocol)
		return true; // no packet is of both
	bool local_exact = convert_addresses(pair.local, local);
	bool remote_exact = convert_addresses(pair.remote, remote);
	*exact = *exact && local_exact && remote_exact;
	if (has_ports(pair.protocol)) {
		bool local_ports = convert_ports(&pair.local_ports, local);
		bool remote_ports = convert_ports(&pair.remote_ports, remote);
		*exact = *exact && local_ports && remote_ports;
	}
	if (selector_known(sa, &pair))
		return true;
	if (sa->selector_count == SELECTORS_MAX)
		return false;
	sa->selectors[sa->selector_count++] = pair;
	return true;
}

static void convert_selectors(struct sa *sa, linked_list_t *locals, linked_list_t *remotes)
{
	bool exact = true, fit = true;
	traffic_selector_t *local, *remote;
	enumerator_t *outer = locals->create_enumerator(locals);
	while (fit && outer->enumerate(outer, &local)) {
		enumerator_t *inner = remotes->create_enumerator(remotes);
		while (fit && inner->enumerate(inner, &remote))
			fit = convert_pair(sa, local, remote, &exact);
		inner->destroy(inner);
	}
	outer->destroy(outer);
	if (!fit) {
		DBG1(DBG_KNL,
			"more than %d pairs of traffic selectors: espgw is given none, and "
			"carries any traffic in this SA",
			SELECTORS_MAX);
		sa->selector_count = 0;
	} else if (!exact) {
		DBG1(DBG_KNL,
			"espgw knows prefixes and ranges of ports: for ranges of addresses in the "
			"traffic selectors the smallest prefix around each is enforced, for opaque "
			"ports none");
	}
}

// ---- SAs ----

static const char *unsupported(const kernel_ipsec_sa_id_t *id, const kernel_ipsec_add_sa_t *data)
{
	if (id->proto != IPPROTO_ESP)
		return "AH: write esp_proposals = aes256gcm16-modp2048";
	if (data->mode != MODE_TUNNEL)
		return "any mode but tunnel: write mode = tunnel";
	if (data->enc_alg != ENCR_AES_GCM_ICV16 ||
		data->enc_key.len != ESPGW_KEY_BYTES + ESPGW_SALT_BYTES)
		return "any algorithm but AES-256-GCM with a 16-byte ICV: write "
		       "esp_proposals = aes256gcm16-modp2048";
	if (data->ipcomp != IPCOMP_NONE)
		return "IPComp: write ipcomp = no";
	if (id->mark.value != 0 || data->mark.value != 0)
		return "marks: use if_id_in and if_id_out in place of mark_in, mark_out, "
		       "set_mark_in "
		       "and set_mark_out";
	if (data->hw_offload != HW_OFFLOAD_NO && data->hw_offload != HW_OFFLOAD_AUTO)
		return "hardware offload: write hw_offload = no";
	if (data->label != NULL)
		return "security labels: leave label out";
	return NULL;
}

static int32_t convert_replay_window(uint32_t window)
{
	if (window == 0)
		return ESPGW_REPLAY_WINDOW_OFF;
	if (window == REPLAY_WINDOW_DEFAULT)
		return ESPGW_REPLAY_WINDOW_OF_TUNNEL;
	int32_t size = REPLAY_WINDOW_SMALLEST;
	while (size < REPLAY_WINDOW_LARGEST && (uint32_t)size < window)
		size *= 2;
	return size;
}

static void convert_lifetime(struct sa *sa, const lifetime_cfg_t *lifetime)
{
	sa->soft = (struct espgw_lifetime){.seconds = lifetime->time.rekey,
		.bytes = lifetime->bytes.rekey,
		.packets = lifetime->packets.rekey};
	sa->hard = (struct espgw_lifetime){.seconds = lifetime->time.life,
		.bytes = lifetime->bytes.life,
		.packets = lifetime->packets.life};
}

static void note_tfc(const kernel_ipsec_add_sa_t *data)
{
	static bool noted;
	if (data->tfc == 0 || noted)
		return;
	noted = true;
	DBG1(DBG_KNL, "espgw does not send TFC padding yet: tfc_padding is ignored");
}

bool convert_sa(struct sa *sa, const kernel_ipsec_sa_id_t *id, const kernel_ipsec_add_sa_t *data)
{
	*sa = (struct sa){0};
	const char *why = unsupported(id, data);
	if (why != NULL) {
		DBG1(DBG_KNL, "espgw does not support %s in swanctl.conf", why);
		return false;
	}
	note_tfc(data);
	sa->direction = data->inbound ? ESPGW_IN : ESPGW_OUT;
	sa->spi = ntohl(id->spi);
	sa->if_id = id->if_id;
	sa->reqid = data->reqid;
	convert_outer(&sa->outer, id->src, id->dst, data->encap);
	memcpy(sa->key, data->enc_key.ptr, ESPGW_KEY_BYTES);
	memcpy(sa->salt, data->enc_key.ptr + ESPGW_KEY_BYTES, ESPGW_SALT_BYTES);
	sa->esn = data->esn;
	if (data->inbound)
		sa->replay_window = convert_replay_window(data->replay_window);
	convert_lifetime(sa, data->lifetime);
	convert_selectors(sa, data->inbound ? data->dst_ts : data->src_ts,
		data->inbound ? data->src_ts : data->dst_ts);
	return true;
}

// ---- policies ----

bool convert_trap(struct trap *trap, const kernel_ipsec_policy_id_t *id,
	const kernel_ipsec_manage_policy_t *data)
{
	if (data->type != POLICY_IPSEC || data->prio != POLICY_PRIORITY_ROUTED ||
		id->dir != POLICY_OUT || data->sa->reqid == 0)
		return false;
	*trap = (struct trap){.if_id = id->if_id, .reqid = data->sa->reqid};
	convert_host(trap->local, data->src);
	convert_host(trap->remote, data->dst);
	return true;
}
