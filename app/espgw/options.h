// SPDX-License-Identifier: BSD-3-Clause
// Copyright (c) 2026 the espgw authors

// The daemon's command line.

#pragma once

enum action { ACTION_RUN, ACTION_CHECK, ACTION_REMOVE_INTERFACES, ACTION_EXIT };

struct options {
	enum action action;
	const char *file; // of the configuration
	int exit_status;  // with ACTION_EXIT: help and version were printed, or an error
};

struct options options_parse(int argc, char **argv);
