/* writer: a table to text, separated or aligned. */
#ifndef TALLY_WRITER_H
#define TALLY_WRITER_H

#include "buffer.h"
#include "table.h"

enum Format { FORMAT_SEPARATED, FORMAT_ALIGNED, FORMAT_JSON };

/* CSV that read_text() reads back as the same table; lines end in LF. */
void write_separated(struct Buffer *out, const struct Table *table, char delimiter);

/* Columns of equal width for a person to read; columns of numbers are set to the right. */
void write_aligned(struct Buffer *out, const struct Table *table);

/* A table, or what has been built in a buffer, to standard output; a write that fails ends the program. */
void print_table(const struct Table *table, enum Format format, char delimiter);
void print_buffer(const struct Buffer *buffer);

#endif
