/* number: cells to numbers and back, the same in every locale and on every machine. */
#ifndef TALLY_NUMBER_H
#define TALLY_NUMBER_H

#include <stdbool.h>
#include <stddef.h>

#define NUMBER_TEXT_BYTES 32

/* Whether a cell says "nothing was measured": empty, blank or NA. */
bool is_missing(const char *cell);

/* A decimal number with nothing but blanks around it; no hexadecimal, infinity or NaN. */
bool parse_number(const char *cell, double *value);

/* The shortest text that reads back as the same number. */
void format_number(char text[NUMBER_TEXT_BYTES], double value);

/* A whole number within low and high, from a command line; anything else ends the program, naming what. */
size_t need_whole(const char *text, const char *what, size_t low, size_t high);

/* How two cells sort: numbers by value, then texts by bytes, then what is missing. <0, 0 or >0. */
int compare_cells(const char *left, const char *right);

#endif
