/* reader: CSV or TSV text to a table. */
#ifndef TALLY_READER_H
#define TALLY_READER_H

#include <stddef.h>

#include "table.h"

struct ReadError {
    size_t line; /* from 1 */
    const char *message;
};

/* The table in the text, or NULL and *error filled in. The first record names the columns. */
struct Table *read_text(const char *text, size_t length, char delimiter, struct ReadError *error);

/* The table in a file ("-" is standard input); whatever goes wrong ends the program.
   A delimiter of 0 means: a tab when the name ends in .tsv, else a comma. */
struct Table *read_file(const char *path, char delimiter);

#endif
