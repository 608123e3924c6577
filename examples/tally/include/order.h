/* order: the rows of a table in the order of some of its columns. */
#ifndef TALLY_ORDER_H
#define TALLY_ORDER_H

#include <stdbool.h>
#include <stddef.h>

#include "table.h"

struct OrderKey {
    size_t column;
    bool descending; /* what is missing stays last all the same */
};

/* Row numbers in order; rows that compare equal keep theirs. The caller frees it. */
size_t *order_rows(const struct Table *table, const struct OrderKey *keys, size_t count);

/* A new table with its rows in order. */
struct Table *table_sorted(const struct Table *table, const struct OrderKey *keys, size_t count);

#endif
