/* lexer: the text of an expression to its tokens. */
#ifndef TALLY_LEXER_H
#define TALLY_LEXER_H

#include <stddef.h>

enum TokenKind {
    TOKEN_END,
    TOKEN_NUMBER,
    TOKEN_TEXT,   /* 'text' or "text", without its quotes */
    TOKEN_NAME,   /* temperature, or [any name at all], without the brackets */
    TOKEN_WORD,   /* and, or, not */
    TOKEN_SYMBOL, /* + - * / % ( ) , < <= > >= == != ~ */
    TOKEN_BAD
};

struct Token {
    enum TokenKind kind;
    const char *start; /* in the text itself; not closed by a NUL */
    size_t length;
    size_t offset; /* where the token begins, for messages */
    double number;
};

/* The token at text[offset] or after the blanks there; *offset moves behind it. */
struct Token next_token(const char *text, size_t *offset);

/* Whether it's this symbol or word. */
int token_is(const struct Token *token, const char *spelling);

#endif
