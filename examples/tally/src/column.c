/* From cells to numbers: the one place that decides what a bad cell means. */
#include "column.h"

#include <stdlib.h>

#include "alloc.h"
#include "number.h"

void numbers_add(struct Numbers *numbers, double value)
{
    if (numbers->count == numbers->capacity) {
        numbers->capacity = grown_capacity(numbers->capacity, numbers->count + 1);
        numbers->values = reallocate(numbers->values, numbers->capacity, sizeof *numbers->values);
    }
    numbers->values[numbers->count++] = value;
}

void numbers_free(struct Numbers *numbers)
{
    free(numbers->values);
    numbers->values = NULL;
    numbers->count = 0;
    numbers->capacity = 0;
    numbers->missing = 0;
}

size_t first_bad_row(const struct Table *table, size_t column)
{
    double ignored;

    for (size_t row = 0; row < table->rows; row++) {
        const char *cell = table_cell(table, row, column);

        if (!is_missing(cell) && !parse_number(cell, &ignored))
            return row;
    }
    return table->rows;
}

struct Numbers column_numbers(const struct Table *table, size_t column)
{
    struct Numbers numbers = {0};
    size_t bad = first_bad_row(table, column);
    double value;

    if (bad < table->rows)
        fail("column \"%s\", row %zu: \"%s\" is not a number", table->names[column], bad + 1,
             table_cell(table, bad, column));
    for (size_t row = 0; row < table->rows; row++) {
        if (parse_number(table_cell(table, row, column), &value))
            numbers_add(&numbers, value);
        else
            numbers.missing++;
    }
    return numbers;
}

struct Numbers column_some_numbers(const struct Table *table, size_t column)
{
    struct Numbers numbers = column_numbers(table, column);

    if (numbers.count == 0)
        fail("column \"%s\" holds no numbers", table->names[column]);
    return numbers;
}
