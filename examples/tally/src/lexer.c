/* Tokens point into the expression: nothing is copied, so nothing is to be freed. */
#include "lexer.h"

#include <ctype.h>
#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

static bool starts_name(char byte)
{
    /* Bytes above ASCII belong to letters of other scripts. */
    return isalpha((unsigned char)byte) || byte == '_' || ((unsigned char)byte & 0x80) != 0;
}

static bool continues_name(char byte)
{
    return starts_name(byte) || isdigit((unsigned char)byte) || byte == '.';
}

/* The bytes between the first one and its closing one; a bad token when it isn't closed. */
static void take_enclosed(struct Token *token, enum TokenKind kind, char closing, size_t *offset)
{
    const char *end = strchr(token->start + 1, closing);

    if (end == NULL) {
        token->kind = TOKEN_BAD;
        token->length = strlen(token->start);
        *offset += token->length;
        return;
    }
    token->kind = kind;
    token->start++;
    token->length = (size_t)(end - token->start);
    *offset += token->length + 2;
}

/* Digits with at most one point and an exponent; strtod() alone would also take 0x10 and inf. */
static size_t number_length(const char *text)
{
    size_t length = strspn(text, "0123456789");

    if (text[length] == '.')
        length += 1 + strspn(text + length + 1, "0123456789");
    if (text[length] == 'e' || text[length] == 'E') {
        size_t sign = text[length + 1] == '+' || text[length + 1] == '-';
        size_t digits = strspn(text + length + 1 + sign, "0123456789");

        if (digits > 0)
            length += 1 + sign + digits;
    }
    return length;
}

static void take_number(struct Token *token, size_t *offset)
{
    char *end;

    token->length = number_length(token->start);
    token->number = strtod(token->start, &end);
    token->kind = end == token->start + token->length && isfinite(token->number) ? TOKEN_NUMBER : TOKEN_BAD;
    *offset += token->length;
}

static void take_name(struct Token *token, size_t *offset)
{
    while (continues_name(token->start[token->length]))
        token->length++;
    token->kind = TOKEN_WORD;
    if (!token_is(token, "and") && !token_is(token, "or") && !token_is(token, "not"))
        token->kind = TOKEN_NAME;
    *offset += token->length;
}

static void take_symbol(struct Token *token, size_t *offset)
{
    char first = token->start[0];

    if (strchr("<>=!", first) != NULL && token->start[1] == '=')
        token->length = 2;
    else
        token->length = 1;
    token->kind = token->length == 2 || strchr("+-*/%(),<>~", first) != NULL ? TOKEN_SYMBOL : TOKEN_BAD;
    *offset += token->length;
}

struct Token next_token(const char *text, size_t *offset)
{
    struct Token token = {0};

    *offset += strspn(text + *offset, " \t\r\n");
    token.offset = *offset;
    token.start = text + *offset;
    if (*token.start == '\0')
        token.kind = TOKEN_END;
    else if (*token.start == '\'' || *token.start == '"')
        take_enclosed(&token, TOKEN_TEXT, *token.start, offset);
    else if (*token.start == '[')
        take_enclosed(&token, TOKEN_NAME, ']', offset);
    else if (isdigit((unsigned char)*token.start)
             || (*token.start == '.' && isdigit((unsigned char)token.start[1])))
        take_number(&token, offset);
    else if (starts_name(*token.start))
        take_name(&token, offset);
    else
        take_symbol(&token, offset);
    return token;
}

int token_is(const struct Token *token, const char *spelling)
{
    return (token->kind == TOKEN_SYMBOL || token->kind == TOKEN_WORD) && strlen(spelling) == token->length
           && memcmp(token->start, spelling, token->length) == 0;
}
