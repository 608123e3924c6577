/* unique: the different rows, and how often each occurs. */
#ifndef TALLY_UNIQUE_H
#define TALLY_UNIQUE_H

#include <stddef.h>

#include "table.h"

/* The distinct combinations of those columns in the order of their first row, with a last column "count". */
struct Table *unique_rows(const struct Table *table, const size_t *columns, size_t count);

/* How many distinct values a column holds; what is missing isn't one. */
size_t distinct_values(const struct Table *table, size_t column);

#endif
