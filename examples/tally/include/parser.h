/*
 * parser: an expression to a tree. From loosest to tightest:
 *   or   and   not   == != < <= > >= ~ (contains)   + -   * / %   unary -   f(x)   (…)   number 'text' column
 */
#ifndef TALLY_PARSER_H
#define TALLY_PARSER_H

#include <stddef.h>

#include "node.h"
#include "table.h"

struct ParseError {
    size_t offset;
    const char *message;
};

/* The tree, its column names resolved in the table; NULL and *error when it's no expression. */
struct Node *parse_expression(const char *text, const struct Table *table, struct ParseError *error);

#endif
