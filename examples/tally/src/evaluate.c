/* A walk over the tree. Values are small and passed by value; nothing is allocated. */
#include "evaluate.h"

#include <math.h>
#include <string.h>

#include "number.h"

static const struct Value missing_value = {VALUE_MISSING, 0, ""};

/* Whatever leaves the finite numbers is missing from there on. */
static struct Value number_value(double number)
{
    struct Value value = {VALUE_NUMBER, number, ""};

    return isfinite(number) ? value : missing_value;
}

static struct Value text_value(const char *text)
{
    struct Value value = {VALUE_TEXT, 0, text};

    return value;
}

static struct Value cell_value(const char *cell)
{
    double number;

    if (is_missing(cell))
        return missing_value;
    return parse_number(cell, &number) ? number_value(number) : text_value(cell);
}

bool value_is_true(struct Value value)
{
    return (value.kind == VALUE_NUMBER && value.number != 0) || (value.kind == VALUE_TEXT && *value.text != '\0');
}

static struct Value compare(enum NodeKind kind, struct Value left, struct Value right)
{
    int order;

    if (left.kind == VALUE_MISSING || right.kind == VALUE_MISSING)
        return number_value(0);
    /* A number and a text are different, and neither is less. */
    if (left.kind != right.kind)
        return number_value(kind == NODE_DIFFERENT);
    if (left.kind == VALUE_NUMBER)
        order = (left.number > right.number) - (left.number < right.number);
    else
        order = strcmp(left.text, right.text);
    switch (kind) {
    case NODE_EQUAL: return number_value(order == 0);
    case NODE_DIFFERENT: return number_value(order != 0);
    case NODE_LESS: return number_value(order < 0);
    case NODE_LESS_EQUAL: return number_value(order <= 0);
    case NODE_GREATER: return number_value(order > 0);
    default: return number_value(order >= 0);
    }
}

static struct Value arithmetic(enum NodeKind kind, struct Value left, struct Value right)
{
    if (left.kind != VALUE_NUMBER || right.kind != VALUE_NUMBER)
        return missing_value;
    switch (kind) {
    case NODE_ADD: return number_value(left.number + right.number);
    case NODE_SUBTRACT: return number_value(left.number - right.number);
    case NODE_MULTIPLY: return number_value(left.number * right.number);
    case NODE_DIVIDE: return right.number == 0 ? missing_value : number_value(left.number / right.number);
    default: return right.number == 0 ? missing_value : number_value(fmod(left.number, right.number));
    }
}

static struct Value function(enum NodeKind kind, struct Value operand)
{
    if (operand.kind != VALUE_NUMBER)
        return missing_value;
    switch (kind) {
    case NODE_NEGATE: return number_value(-operand.number);
    case NODE_ABS: return number_value(fabs(operand.number));
    case NODE_ROUND: return number_value(round(operand.number));
    default: return operand.number < 0 ? missing_value : number_value(sqrt(operand.number));
    }
}

/* Length and containment are about the text as it was written, also when it reads as a number. */
static const char *as_text(const struct Node *node, const struct Table *table, size_t row)
{
    if (node->kind == NODE_COLUMN)
        return table_cell(table, row, node->column);
    if (node->kind == NODE_NUMBER)
        return node->text;
    return evaluate(node, table, row).text;
}

/* The empty text, which a computed number has too, is contained in nothing: "always true" would surprise. */
static struct Value contains(const char *text, const char *part)
{
    return number_value(*part != '\0' && strstr(text, part) != NULL);
}

struct Value evaluate(const struct Node *node, const struct Table *table, size_t row)
{
    switch (node->kind) {
    case NODE_NUMBER:
        return number_value(node->number);
    case NODE_TEXT:
        return text_value(node->text);
    case NODE_COLUMN:
        return cell_value(table_cell(table, row, node->column));
    case NODE_OR:
        return number_value(value_is_true(evaluate(node->left, table, row))
                            || value_is_true(evaluate(node->right, table, row)));
    case NODE_AND:
        return number_value(value_is_true(evaluate(node->left, table, row))
                            && value_is_true(evaluate(node->right, table, row)));
    case NODE_NOT:
        return number_value(!value_is_true(evaluate(node->left, table, row)));
    case NODE_EQUAL: case NODE_DIFFERENT: case NODE_LESS: case NODE_LESS_EQUAL: case NODE_GREATER:
    case NODE_GREATER_EQUAL:
        return compare(node->kind, evaluate(node->left, table, row), evaluate(node->right, table, row));
    case NODE_CONTAINS:
        return contains(as_text(node->left, table, row), as_text(node->right, table, row));
    case NODE_ADD: case NODE_SUBTRACT: case NODE_MULTIPLY: case NODE_DIVIDE: case NODE_REMAINDER:
        return arithmetic(node->kind, evaluate(node->left, table, row), evaluate(node->right, table, row));
    case NODE_NEGATE: case NODE_ABS: case NODE_SQRT: case NODE_ROUND:
        return function(node->kind, evaluate(node->left, table, row));
    case NODE_LENGTH:
        return number_value((double)strlen(as_text(node->left, table, row)));
    case NODE_MISSING:
        return number_value(evaluate(node->left, table, row).kind == VALUE_MISSING);
    }
    return missing_value;
}

struct Table *filter_rows(const struct Table *table, const struct Node *node)
{
    struct Table *kept = table_like(table);

    for (size_t row = 0; row < table->rows; row++)
        if (value_is_true(evaluate(node, table, row)))
            table_add_row(kept, table_row(table, row));
    return kept;
}
