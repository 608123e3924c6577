/*
 * Recursive descent over one token of look-ahead. Binary operators have levels, and one function climbs them.
 * The depth is limited, for parsing as for the tree itself: evaluation and freeing recurse too, and a
 * thousand brackets should be an error, not a crash.
 */
#include "parser.h"

#include "lexer.h"
#include "node.h"

#define DEEPEST 200
#define MOST_NODES 1000

struct Parser {
    const char *text;
    const struct Table *table;
    struct Token token;
    size_t offset;
    size_t depth;
    size_t nodes;
    struct ParseError *error;
};

#define NOT_LEVEL 3
#define UNARY_LEVEL 7

static struct Node *parse_level(struct Parser *parser, int level);

static void advance(struct Parser *parser)
{
    parser->token = next_token(parser->text, &parser->offset);
}

/* The first error wins. Always NULL, so that callers can return it. */
static struct Node *refuse(struct Parser *parser, const char *message)
{
    if (parser->error->message == NULL) {
        parser->error->offset = parser->token.offset;
        parser->error->message = message;
    }
    return NULL;
}

/* A node over its operands, which it owns from here on; too many nodes and nothing is left. */
static struct Node *make(struct Parser *parser, enum NodeKind kind, struct Node *left, struct Node *right)
{
    if (++parser->nodes > MOST_NODES) {
        node_free(left);
        node_free(right);
        return refuse(parser, "the expression is too long");
    }
    return node_new(kind, left, right);
}

static struct Node *parse_bracket(struct Parser *parser)
{
    struct Node *inner;

    advance(parser);
    inner = parse_level(parser, 1);
    if (inner != NULL && !token_is(&parser->token, ")")) {
        node_free(inner);
        return refuse(parser, "expected )");
    }
    advance(parser);
    return inner;
}

/* A column, or a function when a bracket follows. */
static struct Node *parse_name(struct Parser *parser)
{
    struct Token name = parser->token;
    const struct Spelling *function = function_spelled(&name);
    struct Node *node;

    advance(parser);
    if (function != NULL && token_is(&parser->token, "(")) {
        node = parse_bracket(parser);
        return node == NULL ? NULL : make(parser, function->kind, node, NULL);
    }
    node = make(parser, NODE_COLUMN, NULL, NULL);
    if (node == NULL)
        return NULL;
    node_set_text(node, name.start, name.length);
    node->column = table_find(parser->table, node->text);
    if (node->column == NO_COLUMN) {
        node_free(node);
        parser->token = name;
        return refuse(parser, "no such column or function");
    }
    return node;
}

static struct Node *parse_primary(struct Parser *parser)
{
    struct Node *node;

    switch (parser->token.kind) {
    case TOKEN_NUMBER:
        node = make(parser, NODE_NUMBER, NULL, NULL);
        if (node != NULL) {
            node->number = parser->token.number;
            node_set_text(node, parser->token.start, parser->token.length);
        }
        advance(parser);
        return node;
    case TOKEN_TEXT:
        node = make(parser, NODE_TEXT, NULL, NULL);
        if (node != NULL)
            node_set_text(node, parser->token.start, parser->token.length);
        advance(parser);
        return node;
    case TOKEN_NAME:
        return parse_name(parser);
    case TOKEN_END:
        return refuse(parser, "the expression ends too early");
    default:
        if (token_is(&parser->token, "("))
            return parse_bracket(parser);
        return refuse(parser, "expected a number, a 'text', a column or (");
    }
}

/* "not" binds looser than comparisons, the minus sign tighter than any binary operator. */
static struct Node *parse_prefix(struct Parser *parser, int level)
{
    int is_not = level <= NOT_LEVEL && token_is(&parser->token, "not");
    struct Node *operand;

    if (!is_not && !token_is(&parser->token, "-"))
        return parse_primary(parser);
    advance(parser);
    operand = parse_level(parser, is_not ? NOT_LEVEL : UNARY_LEVEL);
    return operand == NULL ? NULL : make(parser, is_not ? NODE_NOT : NODE_NEGATE, operand, NULL);
}

/* Precedence climbing: an operand, then every operator of at least this level. */
static struct Node *parse_level(struct Parser *parser, int level)
{
    const struct Spelling *spelling;
    struct Node *left;

    if (++parser->depth > DEEPEST)
        return refuse(parser, "too many brackets");
    left = parse_prefix(parser, level);
    while (left != NULL && (spelling = operator_spelled(&parser->token)) != NULL && spelling->level >= level) {
        struct Node *right;

        advance(parser);
        right = parse_level(parser, spelling->level + 1);
        if (right == NULL) {
            node_free(left);
            return NULL;
        }
        left = make(parser, spelling->kind, left, right);
    }
    parser->depth--;
    return left;
}

struct Node *parse_expression(const char *text, const struct Table *table, struct ParseError *error)
{
    struct Parser parser = {.text = text, .table = table, .error = error};
    struct Node *node;

    error->offset = 0;
    error->message = NULL;
    advance(&parser);
    node = parse_level(&parser, 1);
    if (node != NULL && parser.token.kind != TOKEN_END) {
        node_free(node);
        return refuse(&parser, "expected an operator");
    }
    return node;
}
