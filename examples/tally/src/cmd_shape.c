/* Subcommands that give a file another shape, or look at it as a whole. */
#include <stdio.h>

#include "column.h"
#include "commands.h"
#include "join.h"
#include "pivot.h"
#include "reader.h"
#include "selftest.h"
#include "sha256.h"

static int run_columns(const struct Options *options, int count, char **arguments)
{
    static const char *const names[] = {"number", "name"};
    struct Table *table = read_file(arguments[1], options->delimiter);
    struct Table *listed = table_new(names, 2);

    (void)count;
    for (size_t i = 0; i < table->columns; i++) {
        char number[24];

        snprintf(number, sizeof number, "%zu", i + 1);
        table_add_row(listed, (const char *const[2]){number, table->names[i]});
    }
    print_and_free(listed, options);
    table_free(table);
    return 0;
}

/* join drops rows without a partner, leftjoin keeps those of the left file. */
static int run_join(const struct Options *options, int count, char **arguments)
{
    struct Table *left = read_file(arguments[1], options->delimiter);
    struct Table *right = read_file(arguments[2], options->delimiter);
    size_t left_key = table_need(left, arguments[3]);
    size_t right_key = table_need(right, arguments[count > 4 ? 4 : 3]);

    print_and_free(join_tables(left, left_key, right, right_key, arguments[0][0] == 'l'), options);
    table_free(left);
    table_free(right);
    return 0;
}

static int run_pivot(const struct Options *options, int count, char **arguments)
{
    struct Table *table = read_file(arguments[1], options->delimiter);
    size_t down = table_need(table, arguments[2]);
    size_t across = table_need(table, arguments[3]);
    size_t value = table_need(table, arguments[4]);
    size_t bad = first_bad_row(table, value);

    if (bad < table->rows)
        fail("column \"%s\", row %zu: \"%s\" is not a number", table->names[value], bad + 1,
             table_cell(table, bad, value));
    print_and_free(pivot_table(table, down, across, value, count > 5 ? arguments[5] : "mean"), options);
    table_free(table);
    return 0;
}

static int run_json(const struct Options *options, int count, char **arguments)
{
    struct Options as_json = *options;

    (void)count;
    as_json.format = FORMAT_JSON;
    print_and_free(read_file(arguments[1], options->delimiter), &as_json);
    return 0;
}

/*
 * Of the table, not of the file: the digest of its plain CSV form. Two files that differ in line ends, needless quotes or
 * their delimiter hold the same table and have the same checksum.
 */
static int run_checksum(const struct Options *options, int count, char **arguments)
{
    struct Table *table = read_file(arguments[1], options->delimiter);
    struct Buffer out = {0};
    struct Sha256 hash;
    char hex[SHA256_HEX_BYTES];

    (void)count;
    write_separated(&out, table, ',');
    sha256_start(&hash);
    sha256_add(&hash, buffer_text(&out), out.length);
    sha256_finish(&hash, hex);
    buffer_clear(&out);
    buffer_add_format(&out, "%s  %zu rows, %zu columns\n", hex, table->rows, table->columns);
    print_buffer(&out);
    buffer_free(&out);
    table_free(table);
    return 0;
}

static int run_selftest(const struct Options *options, int count, char **arguments)
{
    (void)options;
    (void)count;
    (void)arguments;
    return selftest();
}

const struct Command shape_commands[] = {
    {"columns", "FILE", "the names of the columns", 1, 1, run_columns},
    {"join", "LEFT RIGHT COLUMN [COLUMN]", "rows side by side where COLUMN agrees", 3, 4, run_join},
    {"leftjoin", "LEFT RIGHT COLUMN [COLUMN]", "the same; LEFT's rows without a partner stay", 3, 4, run_join},
    {"pivot", "FILE DOWN ACROSS COLUMN [FIGURE]", "long to wide; FIGURE is mean, sum, ...", 4, 5, run_pivot},
    {"json", "FILE", "an array of objects", 1, 1, run_json},
    {"checksum", "FILE", "SHA-256 of the table, however it is quoted", 1, 1, run_checksum},
    {"selftest", "", "check this very program", 0, 0, run_selftest},
    {NULL, NULL, NULL, 0, 0, NULL},
};
