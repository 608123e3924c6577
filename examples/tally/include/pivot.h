/* pivot: a long table to a wide one. */
#ifndef TALLY_PIVOT_H
#define TALLY_PIVOT_H

#include <stddef.h>

#include "table.h"

/*
 * A row for each value of down, a column for each value of across, and at their crossing one figure (sum, mean, …: see
 * summary_figure) of the numbers in value. Rows and columns are sorted; a crossing without numbers is empty.
 */
struct Table *pivot_table(const struct Table *table, size_t down, size_t across, size_t value, const char *figure);

#endif
