// SPDX-License-Identifier: BSD-3-Clause
// Copyright (c) 2026 the espgw authors

// The MTU of the way to a tunnel's far end, as routers on it tell (RFC 4301 section 8.2).

#include "tunnel/table.h"

#define CHANGE_INTERVAL UINT64_C(100000000) // nanoseconds
#define IPV4_FLOOR      576
#define IPV6_FLOOR      1280 // no path over IPv6 is smaller (RFC 8200 section 5)

static uint32_t floor_of(const struct tunnel *tunnel, uint8_t family)
{
	uint32_t least = family == 4 ? IPV4_FLOOR : IPV6_FLOOR;
	uint32_t floor = tunnel->config->pmtu_floor;
	if (floor == 0 || (family == 6 && floor < least))
		return least;
	return floor;
}

static uint32_t limited(uint32_t mtu, uint32_t path_mtu, uint8_t family, bool udp)
{
	return path_mtu == 0 ? mtu : RTE_MIN(mtu, config_largest_inner(path_mtu, family, udp));
}

uint32_t tunnel_sa_mtu(const struct sa *sa)
{
	uint8_t family = sa->destination.family;
	bool udp = sa->udp_destination != 0;
	return limited(config_tunnel_mtu(sa->tunnel->config, family, udp), sa->tunnel->path.mtu,
		family, udp);
}

void tunnel_publish_mtu(struct tunnel *tunnel)
{
	const struct config_tunnel *config = tunnel->config;
	const struct sa *sa;
	uint32_t mtu = limited(config->mtu, tunnel->path.mtu, config->customer_endpoint.family,
		config->udp_encapsulation);
	__atomic_store_n(&tunnel->mtu, mtu, __ATOMIC_RELAXED);
	TAILQ_FOREACH (sa, &tunnel->sas, in_tunnel)
		if (sa->egress != NULL)
			atomic_store_explicit(
				&sa->egress->mtu, tunnel_sa_mtu(sa), memory_order_release);
}

static uint32_t offered(const struct tunnel *tunnel)
{
	return tunnel_offered_mtu(tunnel, tunnel->egress);
}

// Whether the message can be about a packet of this SA that was sent a short while ago. Who is not
// on the way can't know the SPI, nor where the numbers are.
static bool is_of(const struct packet_too_big *message, const struct sa *sa)
{
	return packet_address_equal(&message->source, &sa->source) &&
	       message->udp_source == sa->udp_source &&
	       message->udp_destination == sa->udp_destination && sa->state != SA_HARD_EXPIRED &&
	       esp_sa_out_has_sent(sa->out, message->sequence);
}

static bool is_sane(const struct packet_too_big *message, const struct tunnel *tunnel)
{
	return message->mtu >= floor_of(tunnel, message->destination.family) &&
	       message->mtu < message->size;
}

enum tunnel_path_verdict tunnel_path_consider(struct tunnel_table *table,
	const struct packet_too_big *message, uint64_t now, struct tunnel **of)
{
	const struct sa *sa = sa_find(table, SA_OUTBOUND, message->spi, &message->destination);
	*of = NULL;
	if (sa == NULL) {
		table->path_unknown++;
		return TUNNEL_PATH_REFUSED;
	}
	struct tunnel *tunnel = sa->tunnel;
	struct tunnel_path *path = &tunnel->path;
	*of = tunnel;
	if (!tunnel->config->pmtu || !is_of(message, sa) || !is_sane(message, tunnel) ||
		(path->mtu != 0 && now - path->learnt < CHANGE_INTERVAL)) {
		path->refused++;
		return TUNNEL_PATH_REFUSED;
	}
	path->believed++;
	if (limited(sa->egress->mtu, message->mtu, message->destination.family,
		    sa->udp_destination != 0) == sa->egress->mtu)
		return TUNNEL_PATH_UNCHANGED;
	table->paths += path->mtu == 0;
	path->mtu = message->mtu;
	path->learnt = now;
	path->sender = message->sender;
	tunnel_publish_mtu(tunnel);
	return TUNNEL_PATH_LOWERED;
}

bool tunnel_path_forget(struct tunnel_table *table, struct tunnel *tunnel)
{
	uint32_t before = offered(tunnel);
	if (tunnel->path.mtu == 0)
		return false;
	tunnel->path.mtu = 0;
	table->paths--;
	tunnel_publish_mtu(tunnel);
	return offered(tunnel) != before;
}

void path_configure(struct tunnel_table *table, struct tunnel *tunnel)
{
	const struct config_tunnel *config = tunnel->config;
	struct tunnel_path *path = &tunnel->path;
	bool holds = config != NULL && config->pmtu &&
		     path->mtu >= floor_of(tunnel, config->customer_endpoint.family);
	if (path->mtu != 0 && !holds) {
		path->mtu = 0;
		table->paths--;
	}
	if (config == NULL)
		*path = (struct tunnel_path){0};
	else
		tunnel_publish_mtu(tunnel);
}

struct tunnel *tunnel_path_expire(struct tunnel_table *table, uint64_t now)
{
	for (unsigned int i = 0; table->paths != 0 && i < table->tunnel_count; i++) {
		struct tunnel *tunnel = &table->tunnels[i];
		if (tunnel->path.mtu != 0 && now - tunnel->path.learnt >= TUNNEL_PATH_AGE &&
			tunnel_path_forget(table, tunnel))
			return tunnel;
	}
	return NULL;
}

uint64_t tunnel_path_unknown(const struct tunnel_table *table)
{
	return table->path_unknown;
}
