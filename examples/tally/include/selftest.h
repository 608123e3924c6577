/* selftest: the program checks itself, on whatever machine it was compiled or runs. */
#ifndef TALLY_SELFTEST_H
#define TALLY_SELFTEST_H

#include <stdbool.h>

struct Table;

/* Run every group of checks, print a line for each, and return the exit status: 0 or 1. */
int selftest(void);

/* For the groups: note one result; what failed is printed at once, with its place in the source. */
#define CHECK(condition) check_that((condition), #condition, __FILE__, __LINE__)
#define CHECK_TEXT(actual, expected) check_text((actual), (expected), __FILE__, __LINE__)

void check_that(bool holds, const char *condition, const char *file, int line);
void check_text(const char *actual, const char *expected, const char *file, int line);

/* A table from its text; a text that can't be read is a failed check, and then there's an empty table. */
struct Table *table_of(const char *text);

/* Check that a table is written as that CSV text, and free it. */
#define CHECK_TABLE(table, expected) check_table((table), (expected), __FILE__, __LINE__)
void check_table(struct Table *table, const char *expected, const char *file, int line);

/* The groups in check_numbers.c and check_tables.c. */
void check_number_text(void);
void check_summaries(void);
void check_quantiles(void);
void check_histograms(void);
void check_digests(void);
void check_reading(void);
void check_writing(void);
void check_ordering(void);
void check_shapes(void);
void check_expressions(void);

#endif
