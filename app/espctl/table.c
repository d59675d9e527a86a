// SPDX-License-Identifier: BSD-3-Clause
// Copyright (c) 2026 the espgw authors

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "table.h"

#define GAP       2 // blanks between columns
#define NARROWEST 6 // a column is not cut below this

#define COUNT_EXACT_BELOW 10000000 // counts from here on are shortened

void table_add_column(struct table *table, const char *heading, bool right)
{
	if (table->columns == TABLE_COLUMNS_MAX)
		abort();
	table->headings[table->columns] = heading;
	table->right[table->columns++] = right;
}

char (*table_add_row(struct table *table))[TABLE_CELL_BYTES]
{
	size_t used = (size_t)table->rows * table->columns;
	// Capacity doubles: it is reached whenever the number of rows is a power of two.
	if ((table->rows & (table->rows - 1)) == 0) {
		size_t rows = table->rows == 0 ? 1 : 2 * (size_t)table->rows;
		table->cells =
			reallocarray(table->cells, rows * table->columns, sizeof(*table->cells));
		if (table->cells == NULL)
			abort();
	}
	memset(table->cells[used], 0, table->columns * sizeof(*table->cells));
	table->rows++;
	return &table->cells[used];
}

void table_free(struct table *table)
{
	free(table->cells);
	*table = (struct table){0};
}

// Cuts the widest text columns until the lines fit.
static void fit(const struct table *table, unsigned int *widths)
{
	unsigned int most = table->width != 0 ? table->width : TABLE_WIDTH;
	for (;;) {
		unsigned int total = GAP * (table->columns - 1), widest = table->columns;
		for (unsigned int c = 0; c < table->columns; c++) {
			total += widths[c];
			if (!table->right[c] &&
				(widest == table->columns || widths[c] > widths[widest]))
				widest = c;
		}
		if (total <= most || widest == table->columns || widths[widest] <= NARROWEST)
			return;
		widths[widest]--;
	}
}

static void print_cell(const char *text, unsigned int width, bool right, bool last)
{
	int length = (int)strlen(text);
	if (length > (int)width)
		printf("%.*s~", (int)width - 1, text);
	else if (right)
		printf("%*s", (int)width, text);
	else
		printf("%-*s", last ? 0 : (int)width, text);
	fputs(last ? "\n" : "  ", stdout);
}

void table_print(const struct table *table)
{
	unsigned int widths[TABLE_COLUMNS_MAX];
	for (unsigned int c = 0; c < table->columns; c++) {
		widths[c] = (unsigned int)strlen(table->headings[c]);
		for (unsigned int r = 0; r < table->rows; r++) {
			unsigned int width =
				(unsigned int)strlen(table->cells[r * table->columns + c]);
			if (width > widths[c])
				widths[c] = width;
		}
	}
	fit(table, widths);
	for (unsigned int c = 0; c < table->columns; c++)
		print_cell(table->headings[c], widths[c], table->right[c], c + 1 == table->columns);
	for (unsigned int r = 0; r < table->rows; r++) {
		unsigned int last = table->columns - 1; // with anything in it
		while (last > 0 && table->cells[r * table->columns + last][0] == '\0')
			last--;
		for (unsigned int c = 0; c <= last; c++)
			print_cell(table->cells[r * table->columns + c], widths[c], table->right[c],
				c == last);
	}
}

void human_amount(char *text, size_t size, int64_t amount, const char *unit)
{
	static const char *const prefixes[] = {"", "k", "M", "G", "T", "P", "E"};
	int64_t exact_below = unit[0] == '\0' ? COUNT_EXACT_BELOW : 1000;
	if (amount < exact_below) {
		snprintf(text, size, "%" PRId64 "%s%s", amount, unit[0] == '\0' ? "" : " ", unit);
		return;
	}
	double scaled = (double)amount;
	unsigned int p = 0;
	// 999.95 would be shown as 1000.0.
	for (; scaled >= 999.95; p++)
		scaled /= 1000;
	snprintf(text, size, "%.1f %s%s", scaled, prefixes[p], unit);
}

void human_seconds(char *text, size_t size, int64_t seconds)
{
	if (seconds < 60)
		snprintf(text, size, "%" PRId64 " s", seconds);
	else if (seconds < 3600)
		snprintf(text, size, "%" PRId64 " min", seconds / 60);
	else if (seconds < 86400)
		snprintf(text, size, "%" PRId64 " h %02d min", seconds / 3600,
			(int)(seconds % 3600 / 60));
	else
		snprintf(text, size, "%" PRId64 " d %02d h", seconds / 86400,
			(int)(seconds % 86400 / 3600));
}

void print_wrapped(FILE *stream, const char *text, unsigned int column, unsigned int indent)
{
	bool first = true;
	while (*text != '\0') {
		unsigned int length = (unsigned int)strcspn(text, " ");
		if (!first && column + 1 + length > TABLE_WIDTH) {
			fprintf(stream, "\n%*s", (int)indent, "");
			column = indent;
		} else if (!first) {
			putc(' ', stream);
			column++;
		}
		fprintf(stream, "%.*s", (int)length, text);
		column += length;
		text += length + strspn(text + length, " ");
		first = false;
	}
	putc('\n', stream);
}
