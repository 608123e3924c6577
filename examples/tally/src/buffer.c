/* A growing run of bytes: output is built here whole and written once. */
#include "buffer.h"

#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Make room for extra bytes and the closing NUL. */
static void reserve(struct Buffer *buffer, size_t extra)
{
    if (extra > SIZE_MAX - buffer->length - 1)
        fail("out of memory: %zu more bytes", extra);
    if (buffer->length + extra + 1 > buffer->capacity) {
        buffer->capacity = grown_capacity(buffer->capacity, buffer->length + extra + 1);
        buffer->bytes = reallocate(buffer->bytes, buffer->capacity, 1);
    }
}

void buffer_add_byte(struct Buffer *buffer, char byte)
{
    buffer_add_bytes(buffer, &byte, 1);
}

void buffer_add_bytes(struct Buffer *buffer, const char *bytes, size_t length)
{
    reserve(buffer, length);
    if (length > 0)
        memcpy(buffer->bytes + buffer->length, bytes, length);
    buffer->length += length;
    buffer->bytes[buffer->length] = '\0';
}

void buffer_add_text(struct Buffer *buffer, const char *text)
{
    buffer_add_bytes(buffer, text, strlen(text));
}

void buffer_add_repeated(struct Buffer *buffer, char byte, size_t count)
{
    reserve(buffer, count);
    memset(buffer->bytes + buffer->length, byte, count);
    buffer->length += count;
    buffer->bytes[buffer->length] = '\0';
}

/* Printed twice: once to learn the length, once into its place. */
void buffer_add_format(struct Buffer *buffer, const char *format, ...)
{
    va_list arguments;
    int length;

    va_start(arguments, format);
    length = vsnprintf(NULL, 0, format, arguments);
    va_end(arguments);
    if (length < 0)
        fail("cannot format \"%s\"", format);

    reserve(buffer, (size_t)length);
    va_start(arguments, format);
    vsnprintf(buffer->bytes + buffer->length, (size_t)length + 1, format, arguments);
    va_end(arguments);
    buffer->length += (size_t)length;
}

const char *buffer_text(const struct Buffer *buffer)
{
    return buffer->bytes == NULL ? "" : buffer->bytes;
}

/* Empty it and keep the memory, for a buffer used again in a loop. */
void buffer_clear(struct Buffer *buffer)
{
    buffer->length = 0;
    if (buffer->bytes != NULL)
        buffer->bytes[0] = '\0';
}

void buffer_free(struct Buffer *buffer)
{
    free(buffer->bytes);
    buffer->bytes = NULL;
    buffer->length = 0;
    buffer->capacity = 0;
}
