// SPDX-License-Identifier: BSD-3-Clause
// Copyright (c) 2026 the espgw authors

#include "process.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cap-ng.h>

void process_protect_memory(void)
{
	const struct rlimit none = {0, 0};
	setrlimit(RLIMIT_CORE, &none);
	prctl(PR_SET_DUMPABLE, 0);
	// On fault: pages that are never touched need no memory.
	if (mlockall(MCL_CURRENT | MCL_FUTURE | MCL_ONFAULT) != 0)
		fprintf(stderr, "espgw: warning: memory can be swapped out, keys with it: %s\n",
			strerror(errno));
}

// Like mkdir -p for the last part only: a missing parent is more likely a misspelt path.
static int make_directory(const char *path)
{
	if (mkdir(path, 0700) == 0 || errno == EEXIST)
		return 0;
	fprintf(stderr, "espgw: can't make the directory %s: %s\n", path, strerror(errno));
	return -1;
}

int process_raise_files(const struct config *config)
{
	const rlim_t others = 256; // devices, netlink, stores, the EAL's
	rlim_t wanted = config_tunnel_room(config) + config->gateway.max_clients + others;
	struct rlimit limit;
	if (getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur >= wanted)
		return 0;
	limit.rlim_cur = wanted;
	if (limit.rlim_max < wanted)
		limit.rlim_max = wanted;
	if (setrlimit(RLIMIT_NOFILE, &limit) == 0)
		return 0;
	fprintf(stderr,
		"espgw: %lu files may have to be open, one for each tunnel that "
		"gateway.max_tunnels "
		"allows among them, and the limit can't be raised: %s; set LimitNOFILE= of the "
		"service, or ulimit -n\n",
		wanted, strerror(errno));
	return -1;
}

int process_lock(const struct config *config)
{
	char path[sizeof(config->gateway.run_directory) + CONFIG_NAME_SIZE + 8];
	if (make_directory(config->gateway.run_directory) != 0 ||
		make_directory(config->gateway.state_directory) != 0)
		return -1;
	snprintf(path, sizeof(path), "%s/%s.lock", config->gateway.run_directory,
		config->gateway.name);
	int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (fd < 0) {
		fprintf(stderr, "espgw: can't open %s: %s\n", path, strerror(errno));
		return -1;
	}
	if (flock(fd, LOCK_EX | LOCK_NB) == 0)
		return 0; // kept open until the process ends
	fprintf(stderr,
		"espgw: another espgw named \"%s\" is running (it holds %s); stop it, or set "
		"another "
		"gateway.name and control_socket\n",
		config->gateway.name, path);
	close(fd);
	return -1;
}

void process_raise_priority(void)
{
	const struct sched_param first = {.sched_priority = 1};
	// Of this thread alone, and of none that it may start later.
	if (sched_setscheduler(0, SCHED_RR | SCHED_RESET_ON_FORK, &first) != 0)
		fprintf(stderr,
			"espgw: warning: the control thread has no real-time priority: %s\n",
			strerror(errno));
}

void process_lower_priority(void)
{
	const struct sched_param none = {0};
	sched_setscheduler(0, SCHED_OTHER, &none);
}

int process_drop_privileges(void)
{
	prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
	if (geteuid() != 0)
		return 0; // there is nothing to give up but what was granted
	capng_clear(CAPNG_SELECT_BOTH);
	// Netlink: addresses, routes, neighbours. Locking memory: what is mapped later. Raw
	// sockets: net_af_packet asks for its link's state by one.
	if (capng_updatev(CAPNG_ADD, CAPNG_EFFECTIVE | CAPNG_PERMITTED, CAP_NET_ADMIN, CAP_NET_RAW,
		    CAP_IPC_LOCK, -1) == 0 &&
		capng_apply(CAPNG_SELECT_BOTH) == 0)
		return 0;
	fprintf(stderr, "espgw: can't drop privileges: %s\n", strerror(errno));
	return -1;
}
