/* Pivoting: number the values of both directions, gather a summary at each crossing, then write them out in order. */
#include "pivot.h"

#include <stdlib.h>
#include <string.h>

#include "hashmap.h"
#include "number.h"
#include "summary.h"

/* Beyond that it's not a table for people any more, and the grid would eat the memory. */
#define MOST_CROSSINGS 4000000

static void intern_column(struct HashMap *map, const struct Table *table, size_t column)
{
    for (size_t row = 0; row < table->rows; row++) {
        const char *cell = table_cell(table, row, column);

        hashmap_intern(map, cell, strlen(cell));
    }
}

static int compare_entries(const void *left, const void *right)
{
    const struct HashEntry *left_entry = *(const struct HashEntry *const *)left;
    const struct HashEntry *right_entry = *(const struct HashEntry *const *)right;
    int result = compare_cells(left_entry->bytes, right_entry->bytes);

    /* "1" and "1.0" are equal as numbers; by their bytes the order is still the same everywhere. */
    return result != 0 ? result : strcmp(left_entry->bytes, right_entry->bytes);
}

/* Pointers to the entries of the map in order; entry - map->entries is the entry's number. */
static const struct HashEntry **sorted_entries(const struct HashMap *map)
{
    const struct HashEntry **entries = allocate(map->count, sizeof *entries);

    for (size_t i = 0; i < map->count; i++)
        entries[i] = &map->entries[i];
    qsort(entries, map->count, sizeof *entries, compare_entries);
    return entries;
}

/* The summaries, row after row of the result. */
static struct Summary *gather(const struct Table *table, const struct HashMap *downs, const struct HashMap *acrosses,
                              const size_t columns[3])
{
    struct Summary *grid = allocate(downs->count * acrosses->count, sizeof *grid);
    double number;

    for (size_t i = 0; i < downs->count * acrosses->count; i++)
        grid[i] = (struct Summary){0};
    for (size_t row = 0; row < table->rows; row++) {
        const char *down = table_cell(table, row, columns[0]);
        const char *across = table_cell(table, row, columns[1]);

        if (parse_number(table_cell(table, row, columns[2]), &number))
            summary_add(&grid[hashmap_find(downs, down, strlen(down)) * acrosses->count
                              + hashmap_find(acrosses, across, strlen(across))], number);
    }
    return grid;
}

struct Table *pivot_table(const struct Table *table, size_t down, size_t across, size_t value, const char *figure)
{
    struct HashMap downs = {0};
    struct HashMap acrosses = {0};
    const struct HashEntry **rows, **columns;
    struct Summary *grid;
    struct Table *wide;
    const char **line;
    char (*texts)[NUMBER_TEXT_BYTES];

    intern_column(&downs, table, down);
    intern_column(&acrosses, table, across);
    if (acrosses.count != 0 && downs.count > MOST_CROSSINGS / acrosses.count)
        fail("a pivot of %zu by %zu is too large", downs.count, acrosses.count);
    rows = sorted_entries(&downs);
    columns = sorted_entries(&acrosses);
    grid = gather(table, &downs, &acrosses, (const size_t[3]){down, across, value});
    line = allocate(acrosses.count + 1, sizeof *line);
    texts = allocate(acrosses.count, sizeof *texts);

    line[0] = table->names[down];
    for (size_t i = 0; i < acrosses.count; i++)
        line[i + 1] = columns[i]->bytes;
    wide = table_new(line, acrosses.count + 1);
    for (size_t row = 0; row < downs.count; row++) {
        line[0] = rows[row]->bytes;
        for (size_t i = 0; i < acrosses.count; i++) {
            size_t place = (size_t)(rows[row] - downs.entries) * acrosses.count
                           + (size_t)(columns[i] - acrosses.entries);
            double number = 0;

            texts[i][0] = '\0';
            if (!summary_figure(&grid[place], figure, &number))
                fail("no figure \"%s\"; there are: count, sum, mean, min, max, stddev", figure);
            if (grid[place].count > 0)
                format_number(texts[i], number);
            line[i + 1] = texts[i];
        }
        table_add_row(wide, line);
    }
    free(rows);
    free(columns);
    free(grid);
    free(line);
    free(texts);
    hashmap_free(&downs);
    hashmap_free(&acrosses);
    return wide;
}
