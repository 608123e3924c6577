/* Open addressing with linear probing; keys are never removed, so there are no tombstones. */
#include "hashmap.h"

#include <stdlib.h>
#include <string.h>

/* FNV-1a: short, good enough for words, and the same on every machine. */
static uint64_t hash_of(const char *bytes, size_t length)
{
    uint64_t hash = UINT64_C(14695981039346656037);

    for (size_t i = 0; i < length; i++) {
        hash ^= (unsigned char)bytes[i];
        hash *= UINT64_C(1099511628211);
    }
    return hash;
}

/* The slot that holds the key, or the free one where it would go. There is always a free one. */
static size_t slot_of(const struct HashMap *map, uint64_t hash, const char *bytes, size_t length)
{
    size_t slot = (size_t)hash & (map->slot_count - 1);

    while (map->slots[slot] != 0) {
        const struct HashEntry *entry = &map->entries[map->slots[slot] - 1];

        if (entry->hash == hash && entry->length == length && memcmp(entry->bytes, bytes, length) == 0)
            break;
        slot = (slot + 1) & (map->slot_count - 1);
    }
    return slot;
}

/* Twice the slots. Keys differ from one another, so each goes to the first free slot. */
static void grow_slots(struct HashMap *map)
{
    free(map->slots);
    map->slot_count = map->slot_count == 0 ? 32 : map->slot_count * 2;
    map->slots = allocate_zeroed(map->slot_count, sizeof *map->slots);
    for (size_t i = 0; i < map->count; i++) {
        size_t slot = (size_t)map->entries[i].hash & (map->slot_count - 1);

        while (map->slots[slot] != 0)
            slot = (slot + 1) & (map->slot_count - 1);
        map->slots[slot] = i + 1;
    }
}

size_t hashmap_intern(struct HashMap *map, const char *bytes, size_t length)
{
    uint64_t hash = hash_of(bytes, length);
    size_t slot;

    /* At most three slots in four are taken. */
    if (map->count + 1 > map->slot_count / 4 * 3)
        grow_slots(map);
    slot = slot_of(map, hash, bytes, length);
    if (map->slots[slot] == 0) {
        if (map->count == map->capacity) {
            map->capacity = grown_capacity(map->capacity, map->count + 1);
            map->entries = reallocate(map->entries, map->capacity, sizeof *map->entries);
        }
        map->entries[map->count] = (struct HashEntry){hash, arena_copy(&map->keys, bytes, length), length};
        map->slots[slot] = ++map->count;
    }
    return map->slots[slot] - 1;
}

size_t hashmap_find(const struct HashMap *map, const char *bytes, size_t length)
{
    size_t slot;

    if (map->slot_count == 0)
        return NOT_THERE;
    slot = slot_of(map, hash_of(bytes, length), bytes, length);
    return map->slots[slot] == 0 ? NOT_THERE : map->slots[slot] - 1;
}

void hashmap_free(struct HashMap *map)
{
    free(map->entries);
    free(map->slots);
    arena_free(&map->keys);
    memset(map, 0, sizeof *map);
}

/* Cells hold no NUL (the reader refuses it), so one after each cell keeps them apart. */
void row_key(struct Buffer *key, const struct Table *table, size_t row, const size_t *columns, size_t count)
{
    buffer_clear(key);
    for (size_t i = 0; i < count; i++) {
        const char *cell = table_cell(table, row, columns[i]);

        buffer_add_bytes(key, cell, strlen(cell) + 1);
    }
}
