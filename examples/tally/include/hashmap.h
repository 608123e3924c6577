/* hashmap: byte strings to numbers 0, 1, 2, … in the order in which they first came. */
#ifndef TALLY_HASHMAP_H
#define TALLY_HASHMAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "alloc.h"
#include "buffer.h"
#include "table.h"

#define NOT_THERE SIZE_MAX

struct HashEntry {
    uint64_t hash;
    const char *bytes;
    size_t length;
};

/* Starts as {0}. */
struct HashMap {
    struct HashEntry *entries; /* by number */
    size_t count;
    size_t capacity;
    size_t *slots; /* a number + 1, or 0 for free; a power of two of them */
    size_t slot_count;
    struct Arena keys;
};

/* The number of a key; a new key gets the next one. */
size_t hashmap_intern(struct HashMap *map, const char *bytes, size_t length);

/* The number of a key, or NOT_THERE. */
size_t hashmap_find(const struct HashMap *map, const char *bytes, size_t length);

void hashmap_free(struct HashMap *map);

/* Some cells of a row as one key: ("a", "bc") and ("ab", "c") differ. Replaces what key held. */
void row_key(struct Buffer *key, const struct Table *table, size_t row, const size_t *columns, size_t count);

#endif
