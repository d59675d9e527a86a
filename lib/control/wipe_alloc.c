// SPDX-License-Identifier: BSD-3-Clause
// Copyright (c) 2026 the espgw authors

#include <errno.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <event2/event.h>
#include <jansson.h>

#include "control/control.h"

// Before each block, its size; 16 bytes, so that the block stays aligned for any type.
union block_header {
	size_t size;
	max_align_t align;
};

static void *allocate(size_t size)
{
	if (size > SIZE_MAX - sizeof(union block_header)) {
		errno = ENOMEM;
		return NULL;
	}
	union block_header *header = malloc(sizeof(*header) + size);
	if (header == NULL)
		return NULL;
	header->size = size;
	return header + 1;
}

static void wipe_and_free(void *block)
{
	if (block == NULL)
		return;
	union block_header *header = (union block_header *)block - 1;
	explicit_bzero(block, header->size);
	free(header);
}

// realloc would leave the old contents behind where it moves the block.
static void *reallocate(void *block, size_t size)
{
	if (block == NULL)
		return allocate(size);
	const union block_header *header = (union block_header *)block - 1;
	void *larger = allocate(size);
	if (larger == NULL)
		return NULL;
	memcpy(larger, block, header->size < size ? header->size : size);
	wipe_and_free(block);
	return larger;
}

void control_memory_init(void)
{
	json_set_alloc_funcs(allocate, wipe_and_free);
	event_set_mem_functions(allocate, reallocate, wipe_and_free);
}
