/*
 * Sorting by several keys. qsort() may reorder equal rows, differently on each libc; a merge sort keeps them, so that
 * the output is the same bytes wherever the program runs.
 */
#include "order.h"

#include <stdlib.h>
#include <string.h>

#include "alloc.h"
#include "number.h"

struct Order {
    const struct Table *table;
    const struct OrderKey *keys;
    size_t count;
};

static int compare_rows(const struct Order *order, size_t left, size_t right)
{
    for (size_t i = 0; i < order->count; i++) {
        const struct OrderKey *key = &order->keys[i];
        const char *left_cell = table_cell(order->table, left, key->column);
        const char *right_cell = table_cell(order->table, right, key->column);
        int result = compare_cells(left_cell, right_cell);

        if (result != 0) {
            bool turn = key->descending && !is_missing(left_cell) && !is_missing(right_cell);

            return turn ? -result : result;
        }
    }
    return 0;
}

/* Merge rows[low..middle) and rows[middle..high), each in order, by way of spare. */
static void merge(const struct Order *order, size_t *rows, size_t *spare, size_t low, size_t middle, size_t high)
{
    size_t left = low;
    size_t right = middle;
    size_t to = low;

    while (left < middle && right < high) {
        /* The left one goes first when they are equal: that is what makes it stable. */
        if (compare_rows(order, rows[left], rows[right]) <= 0)
            spare[to++] = rows[left++];
        else
            spare[to++] = rows[right++];
    }
    while (left < middle)
        spare[to++] = rows[left++];
    while (right < high)
        spare[to++] = rows[right++];
    memcpy(rows + low, spare + low, (high - low) * sizeof *rows);
}

static void merge_sort(const struct Order *order, size_t *rows, size_t *spare, size_t low, size_t high)
{
    size_t middle = low + (high - low) / 2;

    if (high - low < 2)
        return;
    merge_sort(order, rows, spare, low, middle);
    merge_sort(order, rows, spare, middle, high);
    /* Already in order: common with real files, and it saves the merge. */
    if (compare_rows(order, rows[middle - 1], rows[middle]) > 0)
        merge(order, rows, spare, low, middle, high);
}

size_t *order_rows(const struct Table *table, const struct OrderKey *keys, size_t count)
{
    struct Order order = {table, keys, count};
    size_t *rows = allocate(table->rows, sizeof *rows);
    size_t *spare = allocate(table->rows, sizeof *spare);

    for (size_t i = 0; i < table->rows; i++)
        rows[i] = i;
    merge_sort(&order, rows, spare, 0, table->rows);
    free(spare);
    return rows;
}

struct Table *table_sorted(const struct Table *table, const struct OrderKey *keys, size_t count)
{
    size_t *rows = order_rows(table, keys, count);
    struct Table *sorted = table_like(table);

    for (size_t i = 0; i < table->rows; i++)
        table_add_row(sorted, table_row(table, rows[i]));
    free(rows);
    return sorted;
}
