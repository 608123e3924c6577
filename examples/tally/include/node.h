/* node: the tree of an expression, and the spelling of what can stand in it. */
#ifndef TALLY_NODE_H
#define TALLY_NODE_H

#include <stddef.h>

#include "lexer.h"

enum NodeKind {
    NODE_NUMBER, NODE_TEXT, NODE_COLUMN,
    NODE_OR, NODE_AND, NODE_NOT,
    NODE_EQUAL, NODE_DIFFERENT, NODE_LESS, NODE_LESS_EQUAL, NODE_GREATER, NODE_GREATER_EQUAL, NODE_CONTAINS,
    NODE_ADD, NODE_SUBTRACT, NODE_MULTIPLY, NODE_DIVIDE, NODE_REMAINDER, NODE_NEGATE,
    NODE_ABS, NODE_SQRT, NODE_ROUND, NODE_LENGTH, NODE_MISSING
};

struct Node {
    enum NodeKind kind;
    double number;
    char *text; /* of a number, a text or a column, as it was written; else NULL */
    size_t column;
    struct Node *left; /* the only operand of not, - and functions */
    struct Node *right;
};

/* A node owns its operands and its text. */
struct Node *node_new(enum NodeKind kind, struct Node *left, struct Node *right);
void node_set_text(struct Node *node, const char *text, size_t length);
void node_free(struct Node *node);

/* Levels of binding, from loosest to tightest: 1 or, 2 and, 3 not, 4 comparisons, 5 + -, 6 * / %, 7 unary -. */
struct Spelling {
    const char *text;
    enum NodeKind kind;
    int level;
};

#define NOT_LEVEL 3
#define UNARY_LEVEL 7

/* The binary operator or the function that a token spells, or NULL. */
const struct Spelling *operator_spelled(const struct Token *token);
const struct Spelling *function_spelled(const struct Token *token);

#endif
