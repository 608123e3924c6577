/* The table itself: what every other file reads or makes. */
#include "table.h"

#include <stdlib.h>
#include <string.h>

#include "buffer.h"

struct Table *table_new(const char *const *names, size_t columns)
{
    struct Table *table = allocate_zeroed(1, sizeof *table);

    table->columns = columns;
    table->names = allocate(columns, sizeof *table->names);
    for (size_t i = 0; i < columns; i++)
        table->names[i] = arena_copy(&table->strings, names[i], strlen(names[i]));
    return table;
}

struct Table *table_like(const struct Table *model)
{
    return table_new(model->names, model->columns);
}

void table_add_row(struct Table *table, const char *const *cells)
{
    const char **row;

    if (table->rows == table->row_capacity) {
        table->row_capacity = grown_capacity(table->row_capacity, table->rows + 1);
        if (table->columns != 0 && table->row_capacity > SIZE_MAX / table->columns)
            fail("too many rows");
        table->cells = reallocate(table->cells, table->row_capacity * table->columns, sizeof *table->cells);
    }
    row = table->cells + table->rows * table->columns;
    for (size_t i = 0; i < table->columns; i++)
        row[i] = arena_copy(&table->strings, cells[i], strlen(cells[i]));
    table->rows++;
}

void table_free(struct Table *table)
{
    if (table == NULL)
        return;
    arena_free(&table->strings);
    free(table->names);
    free(table->cells);
    free(table);
}

const char *const *table_row(const struct Table *table, size_t row)
{
    return table->cells + row * table->columns;
}

const char *table_cell(const struct Table *table, size_t row, size_t column)
{
    return table->cells[row * table->columns + column];
}

/* "%3" → 2; NO_COLUMN when it isn't such a number or there is no such column. */
static size_t column_by_number(const struct Table *table, const char *name)
{
    char *end;
    unsigned long number;

    if (name[0] != '%' || name[1] < '0' || name[1] > '9')
        return NO_COLUMN;
    number = strtoul(name + 1, &end, 10);
    if (*end != '\0' || number < 1 || number > table->columns)
        return NO_COLUMN;
    return (size_t)number - 1;
}

size_t table_find(const struct Table *table, const char *name)
{
    for (size_t i = 0; i < table->columns; i++)
        if (strcmp(table->names[i], name) == 0)
            return i;
    return column_by_number(table, name);
}

size_t table_need(const struct Table *table, const char *name)
{
    size_t column = table_find(table, name);

    if (column == NO_COLUMN) {
        struct Buffer known = {0};

        for (size_t i = 0; i < table->columns; i++)
            buffer_add_format(&known, "%s%s", i == 0 ? "" : ", ", table->names[i]);
        fail("no column \"%s\"; there are: %s", name, buffer_text(&known));
    }
    return column;
}

size_t *table_need_all(const struct Table *table, char *const *names, size_t count)
{
    size_t *columns = allocate(count, sizeof *columns);

    for (size_t i = 0; i < count; i++)
        columns[i] = table_need(table, names[i]);
    return columns;
}

struct Table *table_select(const struct Table *table, const size_t *columns, size_t count)
{
    const char **line = allocate(count, sizeof *line);
    struct Table *selected;

    for (size_t i = 0; i < count; i++)
        line[i] = table->names[columns[i]];
    selected = table_new(line, count);
    for (size_t row = 0; row < table->rows; row++) {
        for (size_t i = 0; i < count; i++)
            line[i] = table_cell(table, row, columns[i]);
        table_add_row(selected, line);
    }
    free(line);
    return selected;
}
