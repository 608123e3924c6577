/* Subcommands whose result is a figure, or a few. */
#include <stdlib.h>

#include "column.h"
#include "commands.h"
#include "histogram.h"
#include "number.h"
#include "quantile.h"
#include "reader.h"
#include "summary.h"
#include "unique.h"

#define BAR_WIDTH 50

/* One figure a line. */
static void print_number(double number)
{
    char text[NUMBER_TEXT_BYTES];
    struct Buffer line = {0};

    format_number(text, number);
    buffer_add_format(&line, "%s\n", text);
    print_buffer(&line);
    buffer_free(&line);
}

/* Rows of the file, or cells of a column that aren't missing. */
static int run_count(const struct Options *options, int count, char **arguments)
{
    struct Table *table = read_file(arguments[1], options->delimiter);
    size_t counted = table->rows;

    if (count > 2) {
        size_t column = table_need(table, arguments[2]);

        for (size_t row = 0; row < table->rows; row++)
            counted -= is_missing(table_cell(table, row, column));
    }
    print_number((double)counted);
    table_free(table);
    return 0;
}

/* sum, mean, min, max, stddev: the command's name is the figure's. */
static int run_figure(const struct Options *options, int count, char **arguments)
{
    struct Table *table = read_file(arguments[1], options->delimiter);
    struct Numbers numbers = column_some_numbers(table, table_need(table, arguments[2]));
    struct Summary summary = {0};
    double figure = 0;

    (void)count;
    summary_add_all(&summary, numbers.values, numbers.count);
    summary_figure(&summary, arguments[0], &figure);
    print_number(figure);
    numbers_free(&numbers);
    table_free(table);
    return 0;
}

/* median FILE COLUMN, and quantile FILE COLUMN PART ... */
static int run_quantile(const struct Options *options, int count, char **arguments)
{
    struct Table *table = read_file(arguments[1], options->delimiter);
    struct Numbers numbers = column_some_numbers(table, table_need(table, arguments[2]));

    if (count == 3)
        print_number(median(numbers.values, numbers.count));
    for (int i = 3; i < count; i++) {
        double part;

        if (!parse_number(arguments[i], &part) || part < 0 || part > 1)
            fail("PART must be a number from 0 to 1, not \"%s\"", arguments[i]);
        print_number(quantile(numbers.values, numbers.count, part));
    }
    numbers_free(&numbers);
    table_free(table);
    return 0;
}

static int run_histogram(const struct Options *options, int count, char **arguments)
{
    struct Table *table = read_file(arguments[1], options->delimiter);
    struct Numbers numbers = column_some_numbers(table, table_need(table, arguments[2]));
    size_t bins = count > 3 ? need_whole(arguments[3], "BINS", 2, HISTOGRAM_MAX_BINS)
                            : histogram_rule(numbers.count);
    struct Histogram histogram = histogram_of(numbers.values, numbers.count, bins);
    struct Buffer out = {0};

    histogram_draw(&out, &histogram, BAR_WIDTH);
    print_buffer(&out);
    buffer_free(&out);
    numbers_free(&numbers);
    table_free(table);
    return 0;
}

/* One row for a column of the file; a column of texts has only its counts. */
static void describe_column(struct Table *described, const struct Table *table, size_t column)
{
    static const char *const figures[] = {"mean", "stddev", "min", "max"};
    char texts[8][NUMBER_TEXT_BYTES] = {""};
    const char *cells[9] = {table->names[column]};
    struct Summary summary = {0};
    size_t missing = 0;

    for (size_t row = 0; row < table->rows; row++)
        missing += is_missing(table_cell(table, row, column));
    format_number(texts[0], (double)(table->rows - missing));
    format_number(texts[1], (double)missing);
    format_number(texts[2], (double)distinct_values(table, column));
    if (missing < table->rows && first_bad_row(table, column) == table->rows) {
        struct Numbers numbers = column_numbers(table, column);

        summary_add_all(&summary, numbers.values, numbers.count);
        for (size_t i = 0; i < 4; i++) {
            double figure = 0;

            summary_figure(&summary, figures[i], &figure);
            format_number(texts[3 + i], figure);
        }
        format_number(texts[7], median(numbers.values, numbers.count));
        numbers_free(&numbers);
    }
    for (size_t i = 0; i < 8; i++)
        cells[1 + i] = texts[i];
    table_add_row(described, cells);
}

static int run_describe(const struct Options *options, int count, char **arguments)
{
    static const char *const names[] = {"column", "count", "missing", "distinct", "mean",
                                        "stddev", "min",   "max",     "median"};
    struct Table *table = read_file(arguments[1], options->delimiter);
    struct Table *described = table_new(names, sizeof names / sizeof *names);

    (void)count;
    for (size_t i = 0; i < table->columns; i++)
        describe_column(described, table, i);
    print_and_free(described, options);
    table_free(table);
    return 0;
}

const struct Command figure_commands[] = {
    {"count", "FILE [COLUMN]", "rows, or cells that aren't missing", 1, 2, run_count},
    {"sum", "FILE COLUMN", "the sum, compensated for rounding", 2, 2, run_figure},
    {"mean", "FILE COLUMN", "the arithmetic mean", 2, 2, run_figure},
    {"min", "FILE COLUMN", "the smallest number", 2, 2, run_figure},
    {"max", "FILE COLUMN", "the largest number", 2, 2, run_figure},
    {"stddev", "FILE COLUMN", "the sample's standard deviation", 2, 2, run_figure},
    {"median", "FILE COLUMN", "the middle one", 2, 2, run_quantile},
    {"quantile", "FILE COLUMN PART ...", "quantiles; PART is 0 to 1", 3, ANY_NUMBER, run_quantile},
    {"histogram", "FILE COLUMN [BINS]", "how the numbers are spread, as bars", 2, 3, run_histogram},
    {"describe", "FILE", "all of it for every column", 1, 1, run_describe},
    {NULL, NULL, NULL, 0, 0, NULL},
};
