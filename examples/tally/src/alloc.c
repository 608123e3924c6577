/* Memory: every allocation is checked here, so that no other file has to. */
#include "alloc.h"

#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ARENA_BLOCK_BYTES 32768

/* Strings need no alignment, so a block is a link and its bytes. */
struct ArenaBlock {
    struct ArenaBlock *next;
    char bytes[];
};

void fail(const char *format, ...)
{
    va_list arguments;

    fflush(stdout);
    fputs("tally: ", stderr);
    va_start(arguments, format);
    vfprintf(stderr, format, arguments);
    va_end(arguments);
    fputc('\n', stderr);
    exit(2);
}

/* The product, at least 1: malloc(0) may answer NULL, which would look like a failure. */
static size_t checked_size(size_t count, size_t size)
{
    if (size != 0 && count > SIZE_MAX / size)
        fail("out of memory: %zu items of %zu bytes", count, size);
    return count * size == 0 ? 1 : count * size;
}

void *allocate(size_t count, size_t size)
{
    return reallocate(NULL, count, size);
}

void *allocate_zeroed(size_t count, size_t size)
{
    size_t bytes = checked_size(count, size);
    void *memory = allocate(bytes, 1);

    memset(memory, 0, bytes);
    return memory;
}

void *reallocate(void *old, size_t count, size_t size)
{
    size_t bytes = checked_size(count, size);
    void *memory = realloc(old, bytes);

    if (memory == NULL)
        fail("out of memory: %zu bytes", bytes);
    return memory;
}

size_t grown_capacity(size_t capacity, size_t needed)
{
    if (capacity < 16)
        capacity = 16;
    while (capacity < needed) {
        if (capacity > SIZE_MAX / 2)
            fail("out of memory: %zu items", needed);
        capacity *= 2;
    }
    return capacity;
}

/* Put a new block first; what was left of the old one is given up. */
static void arena_add_block(struct Arena *arena, size_t capacity)
{
    struct ArenaBlock *block;

    if (capacity > SIZE_MAX - sizeof *block)
        fail("out of memory: %zu bytes", capacity);
    block = allocate(sizeof *block + capacity, 1);
    block->next = arena->blocks;
    arena->blocks = block;
    arena->used = 0;
    arena->capacity = capacity;
}

char *arena_copy(struct Arena *arena, const char *bytes, size_t length)
{
    char *copy;

    if (arena->blocks == NULL || arena->capacity - arena->used <= length)
        arena_add_block(arena, length < ARENA_BLOCK_BYTES ? ARENA_BLOCK_BYTES : length + 1);
    copy = arena->blocks->bytes + arena->used;
    if (length > 0)
        memcpy(copy, bytes, length);
    copy[length] = '\0';
    arena->used += length + 1;
    return copy;
}

void arena_free(struct Arena *arena)
{
    while (arena->blocks != NULL) {
        struct ArenaBlock *next = arena->blocks->next;

        free(arena->blocks);
        arena->blocks = next;
    }
    arena->used = 0;
    arena->capacity = 0;
}
