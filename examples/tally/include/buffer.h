/* buffer: bytes that grow at the end; always followed by a NUL, so that they can be read as text. */
#ifndef TALLY_BUFFER_H
#define TALLY_BUFFER_H

#include <stddef.h>

#include "alloc.h"

/* Starts as {0}. Before the first append bytes is NULL; buffer_text() is safe even then. */
struct Buffer {
    char *bytes;
    size_t length;
    size_t capacity;
};

void buffer_add_byte(struct Buffer *buffer, char byte);
void buffer_add_bytes(struct Buffer *buffer, const char *bytes, size_t length);
void buffer_add_text(struct Buffer *buffer, const char *text);
void buffer_add_repeated(struct Buffer *buffer, char byte, size_t count);
void buffer_add_format(struct Buffer *buffer, const char *format, ...) TALLY_FORMAT(2, 3);

const char *buffer_text(const struct Buffer *buffer);
void buffer_clear(struct Buffer *buffer);
void buffer_free(struct Buffer *buffer);

#endif
