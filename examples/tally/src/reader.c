/*
 * Reading, after RFC 4180 and what people really write: LF or CRLF, an optional byte order mark, blank lines
 * skipped, short records filled up with empty cells. A record that is too long, a quote never closed and a NUL
 * byte are errors with their line: guessing would move cells under the wrong name.
 */
#include "reader.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "buffer.h"

struct Scanner {
    const char *at;
    const char *end;
    char delimiter;
    size_t line;
    struct Buffer text;   /* the fields of one record, each closed by a NUL */
    size_t fields;
    bool quoted;          /* whether any field of the record was quoted */
    const char *message;  /* what went wrong, else NULL */
};

static void scan_quoted(struct Scanner *scanner)
{
    scanner->quoted = true;
    scanner->at++;
    while (scanner->at < scanner->end) {
        char byte = *scanner->at++;

        if (byte == '"') {
            if (scanner->at == scanner->end || *scanner->at != '"')
                return;
            scanner->at++;
        } else if (byte == '\n') {
            scanner->line++;
        }
        buffer_add_byte(&scanner->text, byte);
    }
    scanner->message = "a quote is never closed";
}

static bool at_line_end(const struct Scanner *scanner)
{
    const char *at = scanner->at;

    return at == scanner->end || *at == '\n' || (*at == '\r' && at + 1 < scanner->end && at[1] == '\n');
}

/* One field, without the delimiter after it. Text after a closing quote is kept as it stands. */
static void scan_field(struct Scanner *scanner)
{
    if (scanner->at < scanner->end && *scanner->at == '"')
        scan_quoted(scanner);
    while (scanner->message == NULL && !at_line_end(scanner) && *scanner->at != scanner->delimiter)
        buffer_add_byte(&scanner->text, *scanner->at++);
    buffer_add_byte(&scanner->text, '\0');
    scanner->fields++;
}

/* One record with its line end. */
static void scan_record(struct Scanner *scanner)
{
    buffer_clear(&scanner->text);
    scanner->fields = 0;
    scanner->quoted = false;
    scan_field(scanner);
    while (scanner->message == NULL && !at_line_end(scanner)) {
        scanner->at++;
        scan_field(scanner);
    }
    if (scanner->at < scanner->end && *scanner->at == '\r')
        scanner->at++;
    if (scanner->at < scanner->end)
        scanner->at++;
}

/* Point cells at the fields of the record; the rest of them at "". */
static void spread_fields(const struct Scanner *scanner, const char **cells, size_t columns)
{
    const char *field = scanner->text.bytes;

    for (size_t i = 0; i < columns; i++) {
        cells[i] = i < scanner->fields ? field : "";
        if (i < scanner->fields)
            field += strlen(field) + 1;
    }
}

struct Table *read_text(const char *text, size_t length, char delimiter, struct ReadError *error)
{
    struct Scanner scanner = {.at = text, .end = text + length, .delimiter = delimiter, .line = 1};
    struct Table *table = NULL;
    const char **cells = NULL;
    size_t started = 1;

    if (length > 0 && memchr(text, '\0', length) != NULL)
        scanner.message = "a NUL byte: this is no text file";
    if (length >= 3 && memcmp(text, "\xEF\xBB\xBF", 3) == 0)
        scanner.at += 3;

    while (scanner.message == NULL && scanner.at < scanner.end) {
        started = scanner.line;
        scan_record(&scanner);
        scanner.line++;
        if (scanner.message != NULL || (scanner.fields == 1 && !scanner.quoted && scanner.text.length == 1))
            continue;
        if (table == NULL) {
            cells = allocate(scanner.fields, sizeof *cells);
            spread_fields(&scanner, cells, scanner.fields);
            table = table_new(cells, scanner.fields);
        } else if (scanner.fields > table->columns) {
            scanner.message = "more fields than the header has";
        } else {
            spread_fields(&scanner, cells, table->columns);
            table_add_row(table, cells);
        }
    }
    if (scanner.message == NULL && table == NULL)
        scanner.message = "no header line";
    if (scanner.message != NULL) {
        error->line = started;
        error->message = scanner.message;
        table_free(table);
        table = NULL;
    }
    free(cells);
    buffer_free(&scanner.text);
    return table;
}

struct Table *read_file(const char *path, char delimiter)
{
    bool standard_input = strcmp(path, "-") == 0;
    FILE *file = standard_input ? stdin : fopen(path, "rb");
    size_t name_length = strlen(path);
    struct Buffer text = {0};
    struct ReadError error;
    struct Table *table;
    char chunk[8192];
    size_t got;

    if (file == NULL)
        fail("%s: %s", path, strerror(errno));
    while ((got = fread(chunk, 1, sizeof chunk, file)) > 0)
        buffer_add_bytes(&text, chunk, got);
    if (ferror(file))
        fail("%s: cannot be read", path);
    if (!standard_input)
        fclose(file);
    if (delimiter == '\0')
        delimiter = name_length > 4 && strcmp(path + name_length - 4, ".tsv") == 0 ? '\t' : ',';
    table = read_text(buffer_text(&text), text.length, delimiter, &error);
    if (table == NULL)
        fail("%s:%zu: %s", path, error.line, error.message);
    buffer_free(&text);
    return table;
}
