/* A hash join: the right table's keys go into a map, and the left one is read once past it. */
#include "join.h"

#include <stdlib.h>
#include <string.h>

#include "buffer.h"
#include "hashmap.h"

/* The rows of each key as a list: head by the key's number, next by row; NOT_THERE ends it. */
struct Index {
    struct HashMap keys;
    size_t *head;
    size_t *next;
};

static struct Index index_rows(const struct Table *table, size_t column)
{
    struct Index index = {.head = allocate(table->rows, sizeof(size_t)),
                          .next = allocate(table->rows, sizeof(size_t))};

    /* Backwards, since each row is put before its list: the lists then run forwards. */
    for (size_t row = table->rows; row-- > 0;) {
        const char *cell = table_cell(table, row, column);
        size_t known = index.keys.count;
        size_t key;

        if (*cell == '\0')
            continue;
        key = hashmap_intern(&index.keys, cell, strlen(cell));
        index.next[row] = key == known ? NOT_THERE : index.head[key];
        index.head[key] = row;
    }
    return index;
}

static size_t first_match(const struct Index *index, const char *cell)
{
    size_t key = *cell == '\0' ? NOT_THERE : hashmap_find(&index->keys, cell, strlen(cell));

    return key == NOT_THERE ? NOT_THERE : index->head[key];
}

static void index_free(struct Index *index)
{
    hashmap_free(&index->keys);
    free(index->head);
    free(index->next);
}

/* An empty table with the columns of the result. */
static struct Table *joined_header(const struct Table *left, const struct Table *right, size_t right_key)
{
    const char **names = allocate(left->columns + right->columns, sizeof *names);
    struct Arena made = {0};
    struct Buffer name = {0};
    struct Table *header;
    size_t count = left->columns;

    if (count > 0)
        memcpy(names, left->names, count * sizeof *names);
    for (size_t i = 0; i < right->columns; i++) {
        if (i == right_key)
            continue;
        buffer_clear(&name);
        if (table_find(left, right->names[i]) != NO_COLUMN)
            buffer_add_text(&name, "right.");
        buffer_add_text(&name, right->names[i]);
        names[count++] = arena_copy(&made, buffer_text(&name), name.length);
    }
    header = table_new(names, count);
    free(names);
    arena_free(&made);
    buffer_free(&name);
    return header;
}

struct Table *join_tables(const struct Table *left, size_t left_key, const struct Table *right, size_t right_key,
                          bool keep_left)
{
    struct Table *joined = joined_header(left, right, right_key);
    struct Index index = index_rows(right, right_key);
    const char **line = allocate(left->columns + right->columns, sizeof *line);

    for (size_t row = 0; row < left->rows; row++) {
        size_t match = first_match(&index, table_cell(left, row, left_key));
        bool unmatched = match == NOT_THERE && keep_left;

        memcpy(line, table_row(left, row), left->columns * sizeof *line);
        while (match != NOT_THERE || unmatched) {
            size_t to = left->columns;

            for (size_t i = 0; i < right->columns; i++)
                if (i != right_key)
                    line[to++] = unmatched ? "" : table_cell(right, match, i);
            table_add_row(joined, line);
            match = unmatched ? NOT_THERE : index.next[match];
            unmatched = false;
        }
    }
    free(line);
    index_free(&index);
    return joined;
}
