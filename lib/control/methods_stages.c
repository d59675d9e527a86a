// SPDX-License-Identifier: BSD-3-Clause
// Copyright (c) 2026 the espgw authors

// stats.stages: where the cycles of the workers go. Workers count that while a connection wants it,
// so that nobody who goes away without a word leaves it switched on.

#include <rte_cycles.h>

#include "control/internal.h"

static void set_wanted(struct control *control, struct session *session, bool wanted)
{
	if (session->stages == wanted)
		return;
	session->stages = wanted;
	if (wanted)
		control->stages_sessions++;
	else
		control->stages_sessions--;
	atomic_store_explicit(&control->parts.telemetry->stages_wanted,
		control->stages_sessions != 0, memory_order_relaxed);
}

void stages_session_ended(struct control *control, struct session *session)
{
	set_wanted(control, session, false);
}

static json_t *stage_json(const struct telemetry_stage *stage, enum stage index)
{
	json_t *entry = json_object();
	json_put_text(entry, "stage", stage_name(index));
	json_put_text(entry, "sentence", stage_sentence(index));
	json_put_number(entry, "cycles", __atomic_load_n(&stage->cycles, __ATOMIC_RELAXED));
	json_put_number(entry, "bursts", __atomic_load_n(&stage->bursts, __ATOMIC_RELAXED));
	json_put_number(entry, "packets", __atomic_load_n(&stage->packets, __ATOMIC_RELAXED));
	return entry;
}

static json_t *worker_json(const struct control *control, unsigned int worker)
{
	const struct telemetry_slot *slot = control->parts.telemetry->slot[worker];
	json_t *list = json_array();
	for (unsigned int i = 0; i < STAGE_COUNT; i++)
		json_append(list, stage_json(&slot->stages[i], i));
	json_t *entry = json_object();
	json_put_number(entry, "worker", worker);
	json_put_number(entry, "core", control->parts.config->workers[worker].core);
	json_put_number(entry, "tsc", rte_rdtsc());
	json_put(entry, "stages", list);
	return entry;
}

static json_t *method_stages(struct request *request)
{
	struct control *control = request->control;
	struct scope scope = {request, request->params, ""};
	bool enable = request->session->stages;
	if (!scope_boolean(&scope, "enable", &enable))
		return NULL;
	set_wanted(control, request->session, enable);
	json_t *workers = json_array();
	for (unsigned int i = 0; i + 1 < control->parts.telemetry->slots; i++)
		json_append(workers, worker_json(control, i));
	json_t *result = json_object();
	json_put(result, "enabled", json_boolean(control->stages_sessions != 0));
	json_put_number(result, "tsc_hz", rte_get_tsc_hz());
	json_put(result, "workers", workers);
	return result;
}

static const char *const stages_parameters[] = {"enable", NULL};

const struct method methods_stages[] = {
	{"stats.stages", method_stages, stages_parameters},
	{NULL, NULL, NULL},
};
