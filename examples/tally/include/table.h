/* table: named columns and rows of text cells. A table owns every string in it. */
#ifndef TALLY_TABLE_H
#define TALLY_TABLE_H

#include <stddef.h>
#include <stdint.h>

#include "alloc.h"

#define NO_COLUMN SIZE_MAX

struct Table {
    size_t columns;
    size_t rows;
    size_t row_capacity;
    const char **names; /* columns of them */
    const char **cells; /* rows * columns, row after row */
    struct Arena strings;
};

/* The names are copied, and so are the cells of each row that is added. */
struct Table *table_new(const char *const *names, size_t columns);
struct Table *table_like(const struct Table *model);
void table_add_row(struct Table *table, const char *const *cells);
void table_free(struct Table *table);

const char *const *table_row(const struct Table *table, size_t row);
const char *table_cell(const struct Table *table, size_t row, size_t column);

/* The column of that name, or NO_COLUMN; "%3" is the third whatever its name. */
size_t table_find(const struct Table *table, const char *name);

/* The same, but a missing column ends the program with the names there are. */
size_t table_need(const struct Table *table, const char *name);

/* The columns of all those names; the caller frees it. */
size_t *table_need_all(const struct Table *table, char *const *names, size_t count);

/* Some columns of a table, in the order given. */
struct Table *table_select(const struct Table *table, const size_t *columns, size_t count);

#endif
