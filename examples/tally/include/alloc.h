/* alloc: memory that is there or the program ends, an arena for many small strings, and the one way to give up. */
#ifndef TALLY_ALLOC_H
#define TALLY_ALLOC_H

#include <stddef.h>

#if defined(__GNUC__)
#define TALLY_NORETURN __attribute__((noreturn))
#define TALLY_FORMAT(text, first) __attribute__((format(printf, text, first)))
#else
#define TALLY_NORETURN
#define TALLY_FORMAT(text, first)
#endif

/* Print "tally: MESSAGE" on standard error and exit with status 2. */
void fail(const char *format, ...) TALLY_NORETURN TALLY_FORMAT(1, 2);

/* Room for count items of size bytes; never NULL, also when count is 0. */
void *allocate(size_t count, size_t size);
void *allocate_zeroed(size_t count, size_t size);
void *reallocate(void *old, size_t count, size_t size);

/* The capacity to grow to, at least needed; doubles, and fails before it wraps. */
size_t grown_capacity(size_t capacity, size_t needed);

struct ArenaBlock;

/* An arena starts as {0}; everything taken from it is freed at once. */
struct Arena {
    struct ArenaBlock *blocks;
    size_t used;
    size_t capacity;
};

char *arena_copy(struct Arena *arena, const char *bytes, size_t length);
void arena_free(struct Arena *arena);

#endif
