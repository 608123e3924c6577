/* Writing: the shortest CSV that reads back the same, or columns for the eye. */
#include "writer.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "json.h"
#include "number.h"

/* A lone empty cell is quoted: bare it would be a blank line, which the reader skips. */
static bool needs_quotes(const char *cell, char delimiter, bool lone)
{
    if (*cell == '\0')
        return lone;
    return strchr(cell, delimiter) != NULL || strpbrk(cell, "\"\r\n") != NULL;
}

static void write_line(struct Buffer *out, const char *const *cells, size_t count, char delimiter)
{
    for (size_t i = 0; i < count; i++) {
        if (i > 0)
            buffer_add_byte(out, delimiter);
        if (!needs_quotes(cells[i], delimiter, count == 1)) {
            buffer_add_text(out, cells[i]);
            continue;
        }
        buffer_add_byte(out, '"');
        for (const char *at = cells[i]; *at != '\0'; at++) {
            if (*at == '"')
                buffer_add_byte(out, '"');
            buffer_add_byte(out, *at);
        }
        buffer_add_byte(out, '"');
    }
    buffer_add_byte(out, '\n');
}

void write_separated(struct Buffer *out, const struct Table *table, char delimiter)
{
    write_line(out, table->names, table->columns, delimiter);
    for (size_t row = 0; row < table->rows; row++)
        write_line(out, table_row(table, row), table->columns, delimiter);
}

/* Characters, not bytes: continuation bytes of UTF-8 take no room. */
static size_t display_width(const char *text)
{
    size_t width = 0;

    for (; *text != '\0'; text++)
        width += ((unsigned char)*text & 0xC0) != 0x80;
    return width;
}

static bool holds_numbers(const struct Table *table, size_t column)
{
    double ignored;

    for (size_t row = 0; row < table->rows; row++) {
        const char *cell = table_cell(table, row, column);

        if (!is_missing(cell) && !parse_number(cell, &ignored))
            return false;
    }
    return table->rows > 0;
}

static void write_padded(struct Buffer *out, const char *cell, size_t width, bool right, bool last)
{
    size_t padding = width - display_width(cell);

    if (right)
        buffer_add_repeated(out, ' ', padding);
    buffer_add_text(out, cell);
    if (!right && !last)
        buffer_add_repeated(out, ' ', padding);
    buffer_add_text(out, last ? "\n" : "  ");
}

void write_aligned(struct Buffer *out, const struct Table *table)
{
    size_t *widths = allocate(table->columns, sizeof *widths);
    bool *right = allocate(table->columns, sizeof *right);

    for (size_t i = 0; i < table->columns; i++) {
        widths[i] = display_width(table->names[i]);
        right[i] = holds_numbers(table, i);
        for (size_t row = 0; row < table->rows; row++) {
            size_t width = display_width(table_cell(table, row, i));

            widths[i] = width > widths[i] ? width : widths[i];
        }
    }
    for (size_t i = 0; i < table->columns; i++)
        write_padded(out, table->names[i], widths[i], right[i], i + 1 == table->columns);
    for (size_t row = 0; row < table->rows; row++)
        for (size_t i = 0; i < table->columns; i++)
            write_padded(out, table_cell(table, row, i), widths[i], right[i], i + 1 == table->columns);
    free(widths);
    free(right);
}

void print_table(const struct Table *table, enum Format format, char delimiter)
{
    struct Buffer out = {0};

    if (format == FORMAT_JSON)
        write_json(&out, table);
    else if (format == FORMAT_ALIGNED)
        write_aligned(&out, table);
    else
        write_separated(&out, table, delimiter);
    print_buffer(&out);
    buffer_free(&out);
}

/* Flushed here, so that a full disk is noticed while there's still a status to give. */
void print_buffer(const struct Buffer *buffer)
{
    fwrite(buffer_text(buffer), 1, buffer->length, stdout);
    if (fflush(stdout) != 0 || ferror(stdout))
        fail("cannot write the output");
}
