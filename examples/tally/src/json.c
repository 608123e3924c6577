/* JSON output, after RFC 8259. */
#include "json.h"

#include <stdbool.h>
#include <string.h>

#include "number.h"

/* JSON's own grammar of numbers: no "+5", no ".5", no "5.", no "05". */
static bool is_json_number(const char *text)
{
    text += *text == '-';
    if (*text == '0')
        text++;
    else if (*text >= '1' && *text <= '9')
        text += strspn(text, "0123456789");
    else
        return false;
    if (*text == '.') {
        size_t digits = strspn(text + 1, "0123456789");

        if (digits == 0)
            return false;
        text += 1 + digits;
    }
    if (*text == 'e' || *text == 'E') {
        text++;
        text += *text == '+' || *text == '-';
        if (strspn(text, "0123456789") == 0)
            return false;
        text += strspn(text, "0123456789");
    }
    return *text == '\0';
}

/* The length of the UTF-8 sequence at text, or 0: overlong, a surrogate, beyond U+10FFFF, cut off. */
static size_t sequence_length(const unsigned char *text)
{
    unsigned long code;
    size_t length;

    if (text[0] < 0x80)
        return 1;
    if (text[0] < 0xC2 || text[0] > 0xF4)
        return 0;
    length = text[0] < 0xE0 ? 2 : text[0] < 0xF0 ? 3 : 4;
    code = text[0] & (0xFFu >> (length + 1));
    for (size_t i = 1; i < length; i++) {
        /* The closing NUL is no continuation byte, so this never runs past it. */
        if ((text[i] & 0xC0) != 0x80)
            return 0;
        code = code << 6 | (text[i] & 0x3Fu);
    }
    if ((length == 3 && code < 0x800) || (length == 4 && code < 0x10000) || code > 0x10FFFF)
        return 0;
    return code >= 0xD800 && code <= 0xDFFF ? 0 : length;
}

void write_json_string(struct Buffer *out, const char *text)
{
    buffer_add_byte(out, '"');
    while (*text != '\0') {
        unsigned char byte = (unsigned char)*text;
        size_t length = sequence_length((const unsigned char *)text);

        if (length == 0) {
            buffer_add_text(out, "\xEF\xBF\xBD");
            length = 1;
        } else if (byte == '"' || byte == '\\') {
            buffer_add_format(out, "\\%c", byte);
        } else if (byte == '\n') {
            buffer_add_text(out, "\\n");
        } else if (byte == '\t') {
            buffer_add_text(out, "\\t");
        } else if (byte < 0x20 || byte == 0x7F) {
            buffer_add_format(out, "\\u%04x", (unsigned)byte);
        } else {
            buffer_add_bytes(out, text, length);
        }
        text += length;
    }
    buffer_add_byte(out, '"');
}

void write_json(struct Buffer *out, const struct Table *table)
{
    buffer_add_byte(out, '[');
    for (size_t row = 0; row < table->rows; row++) {
        buffer_add_text(out, row == 0 ? "\n  {" : ",\n  {");
        for (size_t i = 0; i < table->columns; i++) {
            const char *cell = table_cell(table, row, i);

            if (i > 0)
                buffer_add_text(out, ", ");
            write_json_string(out, table->names[i]);
            buffer_add_text(out, ": ");
            if (is_missing(cell))
                buffer_add_text(out, "null");
            else if (is_json_number(cell))
                buffer_add_text(out, cell);
            else
                write_json_string(out, cell);
        }
        buffer_add_byte(out, '}');
    }
    buffer_add_text(out, table->rows == 0 ? "]\n" : "\n]\n");
}
