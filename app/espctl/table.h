// SPDX-License-Identifier: BSD-3-Clause
// Copyright (c) 2026 the espgw authors

// A table of text that fits 100 columns, or as many as it is given.

#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#define TABLE_WIDTH         100
#define TABLE_WIDTH_TUNNELS 132
#define TABLE_COLUMNS_MAX   16
#define TABLE_CELL_BYTES    128

struct table {
	unsigned int width; // 0 = TABLE_WIDTH
	unsigned int columns, rows;
	const char *headings[TABLE_COLUMNS_MAX];
	bool right[TABLE_COLUMNS_MAX]; // numbers stand on the right
	char (*cells)[TABLE_CELL_BYTES];
};

void table_add_column(struct table *table, const char *heading, bool right);
// After all columns: a new row of empty cells; returns its first cell.
char (*table_add_row(struct table *table))[TABLE_CELL_BYTES];
// Prints. When the table is too wide, the widest text columns are cut, which a `~` shows.
void table_print(const struct table *table);
void table_free(struct table *table);

// For cells: 999, 12.3 k, 4.5 M, ...; with `unit` "B": 999 B, 12.3 kB. Units of 1000.
void human_amount(char *text, size_t size, int64_t amount, const char *unit);
// 12 s, 3 min, 2 h 05 min, 4 d 03 h
void human_seconds(char *text, size_t size, int64_t seconds);
// Prints words, broken into lines of TABLE_WIDTH, all but the first indented by `indent`;
// `column` is where the first begins.
void print_wrapped(FILE *stream, const char *text, unsigned int column, unsigned int indent);
