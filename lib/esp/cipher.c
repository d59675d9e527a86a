// SPDX-License-Identifier: BSD-3-Clause
// Copyright (c) 2026 the espgw authors

// The cipher, as a stage of the worker's time. In a file of its own, so that the loops of
// encapsulation and decapsulation keep their registers.

#include "sa.h"

void esp_encrypt_jobs(struct esp_context *context, unsigned int jobs)
{
	enum stage before = stage_enter(context->stages, STAGE_ENCRYPT, jobs);
	gcm_encrypt_burst(&context->gcm, context->jobs, jobs);
	stage_resume(context->stages, before);
}

void esp_decrypt_jobs(struct esp_context *context, unsigned int jobs)
{
	enum stage before = stage_enter(context->stages, STAGE_DECRYPT, jobs);
	gcm_decrypt_burst(&context->gcm, context->jobs, jobs);
	stage_resume(context->stages, before);
}
