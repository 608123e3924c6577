/* join: two tables side by side where a column of the same name agrees. */
#ifndef TALLY_JOIN_H
#define TALLY_JOIN_H

#include <stdbool.h>

#include "table.h"

/*
 * Every pair of rows whose key cells are the same bytes: all columns of left, then those of right but the key. In the
 * order of left, and of right within it. keep_left: a row of left without a partner stays, with empty cells.
 * A name of right that left has too gets "right." before it. Empty keys never match.
 */
struct Table *join_tables(const struct Table *left, size_t left_key, const struct Table *right, size_t right_key,
                          bool keep_left);

#endif
