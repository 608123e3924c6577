/* Numbers: what counts as one, how it's printed, and how cells compare. */
#include "number.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "alloc.h"

static const char *skip_blanks(const char *text)
{
    while (*text == ' ' || *text == '\t')
        text++;
    return text;
}

bool is_missing(const char *cell)
{
    cell = skip_blanks(cell);
    if (strncmp(cell, "NA", 2) == 0)
        cell += 2;
    return *skip_blanks(cell) == '\0';
}

/* strtod() takes more than we want (0x1p3, inf, nan), so its input is looked at first. */
bool parse_number(const char *cell, double *value)
{
    const char *start = skip_blanks(cell);
    size_t length = strspn(start, "+-.0123456789eE");
    char *end;
    double number;

    if (length == 0 || *skip_blanks(start + length) != '\0')
        return false;
    number = strtod(start, &end);
    if (end != start + length || !isfinite(number))
        return false;
    *value = number;
    return true;
}

void format_number(char text[NUMBER_TEXT_BYTES], double value)
{
    if (value == 0)
        value = 0; /* minus zero prints as zero */
    for (int digits = 15; digits <= 17; digits++) {
        snprintf(text, NUMBER_TEXT_BYTES, "%.*g", digits, value);
        if (strtod(text, NULL) == value)
            return;
    }
}

size_t need_whole(const char *text, const char *what, size_t low, size_t high)
{
    double value;

    if (!parse_number(text, &value) || value != floor(value) || value < (double)low || value > (double)high)
        fail("%s must be a whole number from %zu to %zu, not \"%s\"", what, low, high, text);
    return (size_t)value;
}

/* A cell's place among the three kinds. */
static int cell_rank(const char *cell, double *value)
{
    if (is_missing(cell))
        return 2;
    return parse_number(cell, value) ? 0 : 1;
}

int compare_cells(const char *left, const char *right)
{
    double left_value = 0;
    double right_value = 0;
    int left_rank = cell_rank(left, &left_value);
    int right_rank = cell_rank(right, &right_value);

    if (left_rank != right_rank)
        return left_rank < right_rank ? -1 : 1;
    if (left_rank == 0)
        return (left_value > right_value) - (left_value < right_value);
    return left_rank == 1 ? strcmp(left, right) : 0;
}
