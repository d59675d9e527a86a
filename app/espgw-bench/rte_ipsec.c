// SPDX-License-Identifier: BSD-3-Clause
// Copyright (c) 2026 the espgw authors

// DPDK's librte_ipsec with its AES-GCM software crypto device, by the synchronous calls, in the
// best case that it can meet: one thread alone (so its sequence numbers and windows need no
// atomics), prebuilt tunnel header, sessions and header lengths known, packets prefetched.

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <rte_cryptodev.h>
#include <rte_dev.h>
#include <rte_ether.h>
#include <rte_ip.h>
#include <rte_ipsec.h>
#include <rte_malloc.h>
#include <rte_prefetch.h>

#include "bench.h"

#define DEVICE_NAME "crypto_aesni_gcm0"
// Where a crypto operation would carry the nonce; the synchronous calls pass it by themselves.
#define IV_OFFSET (sizeof(struct rte_crypto_op) + sizeof(struct rte_crypto_sym_op))

static int start_device(struct bench_rte_ipsec *rte, struct bench_error *error)
{
	struct rte_cryptodev_config config = {.nb_queue_pairs = 1};
	struct rte_cryptodev_qp_conf queue = {.nb_descriptors = 256};
	int id = rte_cryptodev_get_dev_id(DEVICE_NAME);
	rte->device = (uint8_t)id;
	if (id < 0 || rte_cryptodev_configure(rte->device, &config) != 0 ||
		rte_cryptodev_queue_pair_setup(rte->device, 0, &queue, (int)rte_socket_id()) != 0 ||
		rte_cryptodev_start(rte->device) != 0)
		return bench_fail(error, "DPDK's crypto device " DEVICE_NAME " does not start");
	return 0;
}

static int create_tables(struct bench_rte_ipsec *rte, unsigned int sas, unsigned int frames,
	struct bench_error *error)
{
	rte->sas = sas;
	rte->pool = rte_cryptodev_sym_session_pool_create("bench_sessions", 2 * sas,
		rte_cryptodev_sym_get_private_session_size(rte->device), 0, 0,
		(int)rte_socket_id());
	rte->chosen = calloc(frames, sizeof(*rte->chosen));
	for (unsigned int i = 0; i < RTE_DIM(rte->sessions); i++)
		rte->sessions[i] = rte_zmalloc(
			"sessions", sas * sizeof(*rte->sessions[i]), RTE_CACHE_LINE_SIZE);
	if (rte->pool == NULL || rte->chosen == NULL || rte->sessions[0] == NULL ||
		rte->sessions[1] == NULL)
		return bench_fail(error, "no memory for %u SAs of rte_ipsec", sas);
	return 0;
}

// The cipher's key and shape; `key` must outlive *xform.
static struct rte_crypto_sym_xform describe_cipher(bool inbound, const uint8_t *key)
{
	return (struct rte_crypto_sym_xform){
		.type = RTE_CRYPTO_SYM_XFORM_AEAD,
		.aead = {.op = inbound ? RTE_CRYPTO_AEAD_OP_DECRYPT : RTE_CRYPTO_AEAD_OP_ENCRYPT,
			.algo = RTE_CRYPTO_AEAD_AES_GCM,
			.key = {.data = key, .length = ESP_KEY_SIZE},
			.iv = {.offset = IV_OFFSET, .length = GCM_NONCE_SIZE},
			.digest_length = ESP_ICV_SIZE,
			.aad_length = ESP_HEADER_SIZE},
	};
}

static struct rte_ipsec_sa *create_sa(
	bool inbound, unsigned int index, struct rte_crypto_sym_xform *cipher)
{
	// Addresses do not matter: the far side is told which SA a packet is for.
	const struct rte_ipv4_hdr outer = {
		.version_ihl = RTE_IPV4_VHL_DEF,
		.fragment_offset = RTE_BE16(RTE_IPV4_HDR_DF_FLAG),
		.time_to_live = 64,
		.next_proto_id = IPPROTO_ESP,
		.src_addr = RTE_BE32(RTE_IPV4(198, 51, 100, 1)),
		.dst_addr = RTE_BE32(RTE_IPV4(203, 0, 113, 9)),
	};
	struct rte_ipsec_sa_prm parameters = {
		.ipsec_xform = {.spi = bench_sa_spi(inbound, index),
			.direction = inbound ? RTE_SECURITY_IPSEC_SA_DIR_INGRESS
					     : RTE_SECURITY_IPSEC_SA_DIR_EGRESS,
			.proto = RTE_SECURITY_IPSEC_SA_PROTO_ESP,
			.mode = RTE_SECURITY_IPSEC_SA_MODE_TUNNEL,
			.tunnel.type = RTE_SECURITY_IPSEC_TUNNEL_IPV4,
			.replay_win_sz = inbound ? BENCH_WINDOW : 0},
		.crypto_xform = cipher,
		.tun = {.hdr_len = sizeof(outer), .next_proto = IPPROTO_IPIP, .hdr = &outer},
	};
	memcpy(&parameters.ipsec_xform.salt, bench_sa_salt, ESP_SALT_SIZE);
	int size = rte_ipsec_sa_size(&parameters);
	if (size < 0)
		return NULL;
	struct rte_ipsec_sa *sa = rte_zmalloc("rte_ipsec_sa", (size_t)size, RTE_CACHE_LINE_SIZE);
	if (sa != NULL && rte_ipsec_sa_init(sa, &parameters, (uint32_t)size) < 0) {
		rte_free(sa);
		return NULL;
	}
	return sa;
}

static int create_session(struct bench_rte_ipsec *rte, enum bench_path path, unsigned int index)
{
	bool inbound = path == BENCH_DECAP;
	struct rte_ipsec_session *session = &rte->sessions[path][index];
	uint8_t key[ESP_KEY_SIZE];
	bench_sa_key(inbound, index, key);
	struct rte_crypto_sym_xform cipher = describe_cipher(inbound, key);
	session->type = RTE_SECURITY_ACTION_TYPE_CPU_CRYPTO;
	session->crypto.dev_id = rte->device;
	session->crypto.ses = rte_cryptodev_sym_session_create(rte->device, &cipher, rte->pool);
	session->sa = create_sa(inbound, index, &cipher);
	if (session->crypto.ses == NULL || session->sa == NULL)
		return -1;
	return rte_ipsec_session_prepare(session);
}

int bench_rte_ipsec_create(struct bench_rte_ipsec *rte, unsigned int sas, unsigned int frames,
	struct bench_error *error)
{
	*rte = (struct bench_rte_ipsec){0};
	if (rte_eal_hotplug_add("vdev", DEVICE_NAME, "max_nb_queue_pairs=1") != 0)
		return 1;
	if (start_device(rte, error) != 0 || create_tables(rte, sas, frames, error) != 0)
		return -1;
	for (unsigned int i = 0; i < sas; i++)
		if (create_session(rte, BENCH_ENCAP, i) != 0 ||
			create_session(rte, BENCH_DECAP, i) != 0)
			return bench_fail(error, "rte_ipsec refuses SA %u", i);
	return 0;
}

static void destroy_session(struct bench_rte_ipsec *rte, struct rte_ipsec_session *session)
{
	if (session->sa != NULL)
		rte_ipsec_sa_fini(session->sa);
	rte_free(session->sa);
	if (session->crypto.ses != NULL)
		rte_cryptodev_sym_session_free(rte->device, session->crypto.ses);
}

void bench_rte_ipsec_destroy(struct bench_rte_ipsec *rte)
{
	for (unsigned int i = 0; i < RTE_DIM(rte->sessions); i++) {
		for (unsigned int j = 0; rte->sessions[i] != NULL && j < rte->sas; j++)
			destroy_session(rte, &rte->sessions[i][j]);
		rte_free(rte->sessions[i]);
	}
	free(rte->chosen);
	rte_mempool_free(rte->pool);
	if (rte_cryptodev_get_dev_id(DEVICE_NAME) >= 0) {
		rte_cryptodev_stop(rte->device);
		rte_eal_hotplug_remove("vdev", DEVICE_NAME);
	}
}

void bench_rte_ipsec_prepare(
	struct bench_rte_ipsec *rte, enum bench_path path, const struct bench_frames *frames)
{
	for (unsigned int i = 0; i < frames->count; i++) {
		struct rte_mbuf *packet = frames->packets[i];
		enum bench_path way = bench_frame_path(path, i, frames->count);
		rte_pktmbuf_adj(packet, sizeof(struct rte_ether_hdr));
		packet->l3_len = sizeof(struct rte_ipv4_hdr);
		rte->chosen[i] = &rte->sessions[way][frames->sas[i]];
	}
}

int bench_rte_ipsec_pass(struct bench_rte_ipsec *rte, const struct bench_frames *frames,
	unsigned int begin, unsigned int count)
{
	struct rte_mbuf **packets = frames->packets + begin;
	const struct rte_ipsec_session **chosen = rte->chosen + begin;
	unsigned int done = 0;
	for (unsigned int i = 0; i < count; i++)
		rte_prefetch0(rte_pktmbuf_mtod(packets[i], void *));
	// Neighbours of one session go together, as in DPDK's examples.
	for (unsigned int i = 0, group; i < count; i += group) {
		for (group = 1; i + group < count && chosen[i + group] == chosen[i];)
			group++;
		uint16_t ready = rte_ipsec_pkt_cpu_prepare(chosen[i], packets + i, (uint16_t)group);
		done += rte_ipsec_pkt_process(chosen[i], packets + i, ready);
	}
	return done == count ? 0 : -1;
}
