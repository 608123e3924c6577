/* The expression's vocabulary is two tables: a new operator is a line here and a case in evaluate.c. */
#include "node.h"

#include <stdlib.h>
#include <string.h>

#include "alloc.h"

static const struct Spelling operators[] = {
    {"or", NODE_OR, 1},
    {"and", NODE_AND, 2},
    {"==", NODE_EQUAL, 4},
    {"!=", NODE_DIFFERENT, 4},
    {"<", NODE_LESS, 4},
    {"<=", NODE_LESS_EQUAL, 4},
    {">", NODE_GREATER, 4},
    {">=", NODE_GREATER_EQUAL, 4},
    {"~", NODE_CONTAINS, 4},
    {"+", NODE_ADD, 5},
    {"-", NODE_SUBTRACT, 5},
    {"*", NODE_MULTIPLY, 6},
    {"/", NODE_DIVIDE, 6},
    {"%", NODE_REMAINDER, 6},
};

static const struct Spelling functions[] = {
    {"abs", NODE_ABS, UNARY_LEVEL},
    {"sqrt", NODE_SQRT, UNARY_LEVEL},
    {"round", NODE_ROUND, UNARY_LEVEL},
    {"length", NODE_LENGTH, UNARY_LEVEL},
    {"missing", NODE_MISSING, UNARY_LEVEL},
};

struct Node *node_new(enum NodeKind kind, struct Node *left, struct Node *right)
{
    struct Node *node = allocate_zeroed(1, sizeof *node);

    node->kind = kind;
    node->text = NULL;
    node->left = left;
    node->right = right;
    return node;
}

void node_set_text(struct Node *node, const char *text, size_t length)
{
    node->text = allocate(length + 1, 1);
    memcpy(node->text, text, length);
    node->text[length] = '\0';
}

void node_free(struct Node *node)
{
    if (node == NULL)
        return;
    node_free(node->left);
    node_free(node->right);
    free(node->text);
    free(node);
}

const struct Spelling *operator_spelled(const struct Token *token)
{
    for (size_t i = 0; i < sizeof operators / sizeof *operators; i++)
        if (token_is(token, operators[i].text))
            return &operators[i];
    return NULL;
}

/* A function's name is a name like any column's: it's the bracket behind it that makes it a call. */
const struct Spelling *function_spelled(const struct Token *token)
{
    for (size_t i = 0; i < sizeof functions / sizeof *functions; i++)
        if (token->kind == TOKEN_NAME && strlen(functions[i].text) == token->length
            && memcmp(token->start, functions[i].text, token->length) == 0)
            return &functions[i];
    return NULL;
}
