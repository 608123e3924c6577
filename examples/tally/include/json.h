/* json: a table as an array of objects. */
#ifndef TALLY_JSON_H
#define TALLY_JSON_H

#include "buffer.h"
#include "table.h"

/* Numbers stay numbers, digit for digit, where JSON can spell them; missing is null; all else is a string. */
void write_json(struct Buffer *out, const struct Table *table);

/* One quoted string. Bytes that are no UTF-8 become U+FFFD, since JSON has no way to carry them. */
void write_json_string(struct Buffer *out, const char *text);

#endif
