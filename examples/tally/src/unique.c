/* Distinct rows: each key gets a number, and a counter at that number. */
#include "unique.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "hashmap.h"
#include "number.h"

/* Where each key was first seen, and how often it was seen. */
struct Groups {
    size_t *first_row;
    size_t *seen;
    size_t count;
};

static struct Groups group_rows(const struct Table *table, const size_t *columns, size_t count)
{
    struct Groups groups = {0};
    struct HashMap numbers = {0};
    struct Buffer key = {0};

    groups.first_row = allocate(table->rows, sizeof *groups.first_row);
    groups.seen = allocate_zeroed(table->rows, sizeof *groups.seen);
    for (size_t row = 0; row < table->rows; row++) {
        size_t number;

        row_key(&key, table, row, columns, count);
        number = hashmap_intern(&numbers, buffer_text(&key), key.length);
        if (number == groups.count)
            groups.first_row[groups.count++] = row;
        groups.seen[number]++;
    }
    buffer_free(&key);
    hashmap_free(&numbers);
    return groups;
}

struct Table *unique_rows(const struct Table *table, const size_t *columns, size_t count)
{
    struct Groups groups = group_rows(table, columns, count);
    const char **line = allocate(count + 1, sizeof *line);
    struct Table *unique;

    for (size_t i = 0; i < count; i++)
        line[i] = table->names[columns[i]];
    line[count] = "count";
    unique = table_new(line, count + 1);

    for (size_t group = 0; group < groups.count; group++) {
        char seen[NUMBER_TEXT_BYTES];

        for (size_t i = 0; i < count; i++)
            line[i] = table_cell(table, groups.first_row[group], columns[i]);
        snprintf(seen, sizeof seen, "%zu", groups.seen[group]);
        line[count] = seen;
        table_add_row(unique, line);
    }
    free(line);
    free(groups.first_row);
    free(groups.seen);
    return unique;
}

size_t distinct_values(const struct Table *table, size_t column)
{
    struct HashMap values = {0};
    size_t distinct;

    for (size_t row = 0; row < table->rows; row++) {
        const char *cell = table_cell(table, row, column);

        if (!is_missing(cell))
            hashmap_intern(&values, cell, strlen(cell));
    }
    distinct = values.count;
    hashmap_free(&values);
    return distinct;
}
