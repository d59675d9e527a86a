// SPDX-License-Identifier: GPL-2.0-or-later
// Copyright (c) 2026 the espgw authors

#include <limits.h>
#include <stdatomic.h>

#include <threading/thread.h>

#include "convert.h"
#include "gateway.h"
#include "kernel_ipsec.h"

#define SETTINGS        "%s.plugins.kernel-espgw."
#define TIMEOUT_SECONDS 2
#define REPEAT_MS       3000

typedef struct private_kernel_ipsec_t private_kernel_ipsec_t;

struct private_kernel_ipsec_t {
	kernel_ipsec_t public;
	struct gateway *gateway;
	struct traps *traps;
	thread_t *thread;
	rng_t *rng;
};

// ---- from the gateway to charon ----

static void tell_expire(uint32_t spi, const char *destination, bool hard)
{
	host_t *host = host_create_from_string((char *)destination, 0);
	if (host == NULL)
		return;
	charon->kernel->expire(charon->kernel, IPPROTO_ESP, htonl(spi), host, hard);
	host->destroy(host);
}

// Which packet it was is not known, so that the trap's own selectors hold.
static void tell_acquire(uint32_t reqid)
{
	kernel_acquire_data_t data = ACQUIRE_DATA;
	charon->kernel->acquire(charon->kernel, reqid, &data);
}

static void tell_mapping(uint32_t spi, const char *destination, const char *source, uint16_t port)
{
	host_t *host = host_create_from_string((char *)destination, 0);
	host_t *remote = host_create_from_string((char *)source, port);
	if (host != NULL && remote != NULL)
		charon->kernel->mapping(charon->kernel, IPPROTO_ESP, htonl(spi), host, remote);
	DESTROY_IF(host);
	DESTROY_IF(remote);
}

static void write_log(int level, const char *text)
{
	if (level == 1)
		DBG1(DBG_KNL, "%s", text);
	else
		DBG2(DBG_KNL, "%s", text);
}

static void *run(private_kernel_ipsec_t *this)
{
	// It is ended by gateway_stop(), never in the middle of something.
	thread_cancelability(FALSE);
	gateway_run(this->gateway);
	return NULL;
}

// ---- SAs ----

METHOD(kernel_ipsec_t, get_features, kernel_feature_t, private_kernel_ipsec_t *this)
{
	// TFC padding is trimmed on receipt. SAs are updated in place, and no policy names one.
	return KERNEL_ESP_V3_TFC | KERNEL_NO_POLICY_UPDATES | FEATURE_SA_USE_TIME;
}

METHOD(kernel_ipsec_t, get_spi, status_t, private_kernel_ipsec_t *this, host_t *src, host_t *dst,
	uint8_t protocol, uint32_t *spi)
{
	uint32_t number;
	if (!gateway_reserve_spi(this->gateway, &number)) {
		// Never in sequence: a counter would begin again with each start.
		if (!this->rng->get_bytes(this->rng, sizeof(number), (uint8_t *)&number))
			return FAILED;
		number = KERNEL_SPI_MIN | (number & (KERNEL_SPI_MAX - KERNEL_SPI_MIN));
	}
	*spi = htonl(number);
	return SUCCESS;
}

METHOD(kernel_ipsec_t, get_cpi, status_t, private_kernel_ipsec_t *this, host_t *src, host_t *dst,
	uint16_t *cpi)
{
	return NOT_SUPPORTED;
}

METHOD(kernel_ipsec_t, add_sa, status_t, private_kernel_ipsec_t *this, kernel_ipsec_sa_id_t *id,
	kernel_ipsec_add_sa_t *data)
{
	struct sa wanted;
	status_t status = NOT_SUPPORTED;
	if (convert_sa(&wanted, id, data))
		status = gateway_add_sa(this->gateway, &wanted) ? SUCCESS : FAILED;
	sa_wipe_key(&wanted);
	return status;
}

METHOD(kernel_ipsec_t, update_sa, status_t, private_kernel_ipsec_t *this, kernel_ipsec_sa_id_t *id,
	kernel_ipsec_update_sa_t *data)
{
	char destination[INET6_ADDRSTRLEN];
	struct sa_outer outer;
	convert_host(destination, id->dst);
	convert_outer(&outer, data->new_src, data->new_dst, data->new_encap);
	return gateway_update_sa(this->gateway, ntohl(id->spi), destination, &outer) ? SUCCESS
										     : NOT_FOUND;
}

METHOD(kernel_ipsec_t, query_sa, status_t, private_kernel_ipsec_t *this, kernel_ipsec_sa_id_t *id,
	kernel_ipsec_query_sa_t *data, uint64_t *bytes, uint64_t *packets, time_t *time)
{
	char destination[INET6_ADDRSTRLEN];
	uint64_t carried_bytes, carried_packets;
	int64_t used_at;
	convert_host(destination, id->dst);
	if (!gateway_query_sa(this->gateway, ntohl(id->spi), destination, &carried_bytes,
		    &carried_packets, &used_at))
		return NOT_FOUND;
	if (bytes != NULL)
		*bytes = carried_bytes;
	if (packets != NULL)
		*packets = carried_packets;
	if (time != NULL)
		*time = used_at;
	return SUCCESS;
}

METHOD(kernel_ipsec_t, del_sa, status_t, private_kernel_ipsec_t *this, kernel_ipsec_sa_id_t *id,
	kernel_ipsec_del_sa_t *data)
{
	char destination[INET6_ADDRSTRLEN];
	convert_host(destination, id->dst);
	return gateway_delete_sa(this->gateway, ntohl(id->spi), destination) ? SUCCESS : NOT_FOUND;
}

METHOD(kernel_ipsec_t, flush_sas, status_t, private_kernel_ipsec_t *this)
{
	gateway_flush_sas(this->gateway);
	return SUCCESS;
}

// ---- policies ----
// What goes into which tunnel is decided by espgw's routes. A policy is only looked at for whether
// charon wants to be asked for keys.

METHOD(kernel_ipsec_t, add_policy, status_t, private_kernel_ipsec_t *this,
	kernel_ipsec_policy_id_t *id, kernel_ipsec_manage_policy_t *data)
{
	struct trap trap;
	if (data->type == POLICY_DROP)
		DBG2(DBG_KNL, "espgw drops what has no route: the policy %R === %R is not needed",
			id->src_ts, id->dst_ts);
	if (convert_trap(&trap, id, data) && !traps_add(this->traps, &trap))
		return FAILED;
	return SUCCESS;
}

METHOD(kernel_ipsec_t, query_policy, status_t, private_kernel_ipsec_t *this,
	kernel_ipsec_policy_id_t *id, kernel_ipsec_query_policy_t *data, time_t *use_time)
{
	return NOT_SUPPORTED; // charon then asks query_sa, which knows
}

METHOD(kernel_ipsec_t, del_policy, status_t, private_kernel_ipsec_t *this,
	kernel_ipsec_policy_id_t *id, kernel_ipsec_manage_policy_t *data)
{
	struct trap trap;
	if (convert_trap(&trap, id, data))
		traps_remove(this->traps, &trap);
	return SUCCESS;
}

METHOD(kernel_ipsec_t, flush_policies, status_t, private_kernel_ipsec_t *this)
{
	traps_clear(this->traps);
	return SUCCESS;
}

// ---- sockets: espgw hands IKE to the host and keeps ESP, so that nothing is to be done ----

METHOD(kernel_ipsec_t, bypass_socket, bool, private_kernel_ipsec_t *this, int fd, int family)
{
	return TRUE;
}

METHOD(kernel_ipsec_t, enable_udp_decap, bool, private_kernel_ipsec_t *this, int fd, int family,
	uint16_t port)
{
	return TRUE;
}

// ---- life ----

METHOD(kernel_ipsec_t, destroy, void, private_kernel_ipsec_t *this)
{
	if (this->thread != NULL) {
		gateway_stop(this->gateway);
		this->thread->join(this->thread);
	}
	if (this->gateway != NULL)
		gateway_destroy(this->gateway);
	if (this->traps != NULL)
		traps_destroy(this->traps);
	DESTROY_IF(this->rng);
	free(this);
}

static struct gateway *create_gateway(struct traps *traps)
{
	const struct gateway_hooks hooks = {
		.expire = tell_expire,
		.acquire = tell_acquire,
		.mapping = tell_mapping,
		.log = write_log,
	};
	uint32_t seconds = lib->settings->get_time(
		lib->settings, SETTINGS "timeout", TIMEOUT_SECONDS, lib->ns);
	if (seconds == 0)
		seconds = TIMEOUT_SECONDS;
	const struct gateway_settings settings = {
		.socket = lib->settings->get_str(
			lib->settings, SETTINGS "socket", ESPGW_CLIENT_SOCKET, lib->ns),
		.timeout_ms = seconds > INT_MAX / 1000 ? INT_MAX : (int)seconds * 1000,
		.repeat_ms = REPEAT_MS,
	};
	return gateway_create(&settings, &hooks, traps);
}

kernel_ipsec_t *kernel_espgw_ipsec_create(void)
{
	private_kernel_ipsec_t *this;
	INIT(this,
		.public =
			{
				.get_features = _get_features,
				.get_spi = _get_spi,
				.get_cpi = _get_cpi,
				.add_sa = _add_sa,
				.update_sa = _update_sa,
				.query_sa = _query_sa,
				.del_sa = _del_sa,
				.flush_sas = _flush_sas,
				.add_policy = _add_policy,
				.query_policy = _query_policy,
				.del_policy = _del_policy,
				.flush_policies = _flush_policies,
				.bypass_socket = _bypass_socket,
				.enable_udp_decap = _enable_udp_decap,
				.destroy = _destroy,
			},
		.rng = lib->crypto->create_rng(lib->crypto, RNG_WEAK), );
	this->traps = traps_create();
	if (this->traps != NULL)
		this->gateway = create_gateway(this->traps);
	if (this->gateway != NULL && this->rng != NULL)
		this->thread = thread_create((thread_main_t)run, this);
	if (this->thread == NULL) {
		DBG1(DBG_KNL,
			"kernel-espgw can't start: no memory, or no plugin for random numbers");
		_destroy(this);
		return NULL;
	}
	return &this->public;
}
