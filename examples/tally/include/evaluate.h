/* evaluate: the value of an expression for one row. */
#ifndef TALLY_EVALUATE_H
#define TALLY_EVALUATE_H

#include <stdbool.h>
#include <stddef.h>

#include "node.h"
#include "table.h"

enum ValueKind { VALUE_MISSING, VALUE_NUMBER, VALUE_TEXT };

/* A text belongs to the table or to the tree. */
struct Value {
    enum ValueKind kind;
    double number;
    const char *text;
};

/*
 * Cells that read as numbers are numbers. What has a missing operand is missing, and so is what has no finite result
 * (1/0, sqrt(-1)) or makes no sense ('a' * 2). Comparisons, and, or, not: 1 or 0; a comparison with what is missing: 0.
 */
struct Value evaluate(const struct Node *node, const struct Table *table, size_t row);

/* Neither missing, nor 0, nor the empty text. */
bool value_is_true(struct Value value);

/* The rows for which the expression is true. */
struct Table *filter_rows(const struct Table *table, const struct Node *node);

#endif
