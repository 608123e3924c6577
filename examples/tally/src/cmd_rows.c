/* Subcommands whose result is some rows or columns of the file. */
#include <stdlib.h>

#include "commands.h"
#include "evaluate.h"
#include "number.h"
#include "order.h"
#include "parser.h"
#include "reader.h"
#include "unique.h"

#define DEFAULT_ROWS 10
#define MOST_ROWS 1000000000

/* The rows from first up to, not including, end. */
static struct Table *rows_between(const struct Table *table, size_t first, size_t end)
{
    struct Table *part = table_like(table);

    for (size_t row = first; row < end; row++)
        table_add_row(part, table_row(table, row));
    return part;
}

/* head and tail differ in where they begin. */
static int run_ends(const struct Options *options, int count, char **arguments)
{
    struct Table *table = read_file(arguments[1], options->delimiter);
    size_t rows = count > 2 ? need_whole(arguments[2], "ROWS", 0, MOST_ROWS) : DEFAULT_ROWS;

    if (rows > table->rows)
        rows = table->rows;
    if (arguments[0][0] == 'h')
        print_and_free(rows_between(table, 0, rows), options);
    else
        print_and_free(rows_between(table, table->rows - rows, table->rows), options);
    table_free(table);
    return 0;
}

static int run_select(const struct Options *options, int count, char **arguments)
{
    struct Table *table = read_file(arguments[1], options->delimiter);
    size_t *columns = table_need_all(table, arguments + 2, (size_t)count - 2);

    print_and_free(table_select(table, columns, (size_t)count - 2), options);
    free(columns);
    table_free(table);
    return 0;
}

static int run_filter(const struct Options *options, int count, char **arguments)
{
    struct Table *table = read_file(arguments[1], options->delimiter);
    struct ParseError error;
    struct Node *node = parse_expression(arguments[2], table, &error);

    (void)count;
    if (node == NULL)
        fail("%s\n       %s\n       %*s^", error.message, arguments[2], (int)error.offset, "");
    print_and_free(filter_rows(table, node), options);
    node_free(node);
    table_free(table);
    return 0;
}

/* A key is a column, with a minus sign before it when large values come first. */
static int run_sort(const struct Options *options, int count, char **arguments)
{
    struct Table *table = read_file(arguments[1], options->delimiter);
    size_t key_count = (size_t)count - 2;
    struct OrderKey *keys = allocate(key_count, sizeof *keys);

    for (size_t i = 0; i < key_count; i++) {
        const char *name = arguments[i + 2];

        keys[i].column = table_find(table, name);
        keys[i].descending = keys[i].column == NO_COLUMN && name[0] == '-';
        if (keys[i].column == NO_COLUMN)
            keys[i].column = table_need(table, name + (name[0] == '-'));
    }
    print_and_free(table_sorted(table, keys, key_count), options);
    free(keys);
    table_free(table);
    return 0;
}

/* Without columns: all of them. */
static int run_unique(const struct Options *options, int count, char **arguments)
{
    struct Table *table = read_file(arguments[1], options->delimiter);
    size_t wanted = (size_t)count - 2;
    size_t *columns;

    if (wanted > 0) {
        columns = table_need_all(table, arguments + 2, wanted);
    } else {
        wanted = table->columns;
        columns = allocate(wanted, sizeof *columns);
        for (size_t i = 0; i < wanted; i++)
            columns[i] = i;
    }
    print_and_free(unique_rows(table, columns, wanted), options);
    free(columns);
    table_free(table);
    return 0;
}

const struct Command row_commands[] = {
    {"head", "FILE [ROWS]", "the first rows", 1, 2, run_ends},
    {"tail", "FILE [ROWS]", "the last rows", 1, 2, run_ends},
    {"select", "FILE COLUMN ...", "some columns, in that order", 2, ANY_NUMBER, run_select},
    {"filter", "FILE EXPR", "the rows for which EXPR is true", 2, 2, run_filter},
    {"sort", "FILE [-]COLUMN ...", "rows in order; - for descending", 2, ANY_NUMBER, run_sort},
    {"unique", "FILE [COLUMN ...]", "distinct rows and how often each occurs", 1, ANY_NUMBER, run_unique},
    {NULL, NULL, NULL, 0, 0, NULL},
};
