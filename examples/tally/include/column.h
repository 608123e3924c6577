/* column: the numbers of one column, taken out of the table. */
#ifndef TALLY_COLUMN_H
#define TALLY_COLUMN_H

#include <stddef.h>

#include "table.h"

/* Starts as {0}; grows with numbers_add(). */
struct Numbers {
    double *values;
    size_t count;
    size_t capacity;
    size_t missing; /* cells that were empty or NA */
};

void numbers_add(struct Numbers *numbers, double value);
void numbers_free(struct Numbers *numbers);

/* The row of the first cell that is neither a number nor missing, or the number of rows. */
size_t first_bad_row(const struct Table *table, size_t column);

/* All numbers of a column; a cell that is neither a number nor missing ends the program, naming its place. */
struct Numbers column_numbers(const struct Table *table, size_t column);

/* Mean and so on need at least one number: end the program if there's none. */
struct Numbers column_some_numbers(const struct Table *table, size_t column);

#endif
