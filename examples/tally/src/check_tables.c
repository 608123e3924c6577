/* Checks of everything that reads, reshapes or writes tables. */
#include <string.h>

#include "evaluate.h"
#include "join.h"
#include "json.h"
#include "order.h"
#include "parser.h"
#include "pivot.h"
#include "reader.h"
#include "selftest.h"
#include "unique.h"
#include "writer.h"

/* Whether a text is refused with a message that contains that part. */
static bool refused(const char *text, size_t length, const char *part, size_t line)
{
    struct ReadError error;
    struct Table *table = read_text(text, length, ',', &error);
    bool was = table == NULL && strstr(error.message, part) != NULL && error.line == line;

    table_free(table);
    return was;
}

void check_reading(void)
{
    CHECK_TABLE(table_of("a,b\n1,2\n"), "a,b\n1,2\n");
    CHECK_TABLE(table_of("\xEF\xBB\xBF" "a,b\r\n1,2\r\n\r\n3"), "a,b\n1,2\n3,\n");
    CHECK_TABLE(table_of("a,b\n\"x,\"\"y\"\"\",\"two\nlines\"\n"), "a,b\n\"x,\"\"y\"\"\",\"two\nlines\"\n");
    CHECK_TABLE(table_of("a\n\"\"\n\nx\n"), "a\n\"\"\nx\n");
    CHECK_TABLE(table_of("a,b\n,\n"), "a,b\n,\n");
    CHECK(refused("", 0, "no header", 1));
    CHECK(refused("a,b\n\n1,2,3\n", 11, "more fields", 3));
    CHECK(refused("a\n\"two\nlines\n", 13, "never closed", 2));
    CHECK(refused("a\n\0\n", 4, "NUL", 1));
}

void check_writing(void)
{
    struct Table *table = table_of("name,n\nZoë,1\n\"q\"\"\",-0.5e2\nb\xFF,05\n\x01\\,NA\n");
    struct Buffer out = {0};

    write_json(&out, table);
    CHECK_TEXT(buffer_text(&out), "[\n  {\"name\": \"Zoë\", \"n\": 1},\n  {\"name\": \"q\\\"\", \"n\": -0.5e2},\n"
                                  "  {\"name\": \"b\xEF\xBF\xBD\", \"n\": \"05\"},\n"
                                  "  {\"name\": \"\\u0001\\\\\", \"n\": null}\n]\n");
    table_free(table);
    table = table_of("id,n\nZoë,1\nab,100\n");
    buffer_clear(&out);
    write_aligned(&out, table);
    CHECK_TEXT(buffer_text(&out), "id     n\nZoë    1\nab   100\n");
    table_free(table);
    buffer_free(&out);
}

void check_ordering(void)
{
    struct Table *table = table_of("k,v\nb,2\na,10\n,1\nb,1\na,9\nc,NA\n");
    struct OrderKey up = {0, false}, down = {1, true};
    struct OrderKey both[] = {{0, false}, {1, false}};

    CHECK_TABLE(table_sorted(table, &up, 1), "k,v\na,10\na,9\nb,2\nb,1\nc,NA\n,1\n");
    CHECK_TABLE(table_sorted(table, &down, 1), "k,v\na,10\na,9\nb,2\n,1\nb,1\nc,NA\n");
    CHECK_TABLE(table_sorted(table, both, 2), "k,v\na,9\na,10\nb,1\nb,2\nc,NA\n,1\n");
    table_free(table);
}

void check_shapes(void)
{
    struct Table *left = table_of("id,x\n1,a\n2,b\n3,c\n,d\n");
    struct Table *right = table_of("x,id\np,2\nq,1\nr,2\ns,\n");
    struct Table *sales = table_of("day,shop,n\n2,A,5\n10,B,1\n2,A,7\n2,B,\n");
    size_t id = 1;

    CHECK_TABLE(join_tables(left, 0, right, 1, false), "id,x,right.x\n1,a,q\n2,b,p\n2,b,r\n");
    CHECK_TABLE(join_tables(left, 0, right, 1, true), "id,x,right.x\n1,a,q\n2,b,p\n2,b,r\n3,c,\n,d,\n");
    CHECK_TABLE(unique_rows(right, &id, 1), "id,count\n2,2\n1,1\n,1\n");
    CHECK(distinct_values(right, 1) == 2);
    CHECK_TABLE(pivot_table(sales, 0, 1, 2, "sum"), "day,A,B\n2,12,\n10,,1\n");
    CHECK_TABLE(table_select(sales, (const size_t[]){2, 0}, 2), "n,day\n5,2\n1,10\n7,2\n,2\n");
    CHECK(table_find(sales, "%2") == 1 && table_find(sales, "%4") == NO_COLUMN);
    table_free(left);
    table_free(right);
    table_free(sales);
}

/* How an expression ends for the first row: 't'rue, 'f'alse, or 'e'rror in its text. */
static char outcome(const struct Table *table, const char *text)
{
    struct ParseError error;
    struct Node *node = parse_expression(text, table, &error);
    char result = 'e';

    if (node != NULL)
        result = value_is_true(evaluate(node, table, 0)) ? 't' : 'f';
    node_free(node);
    return result;
}

void check_expressions(void)
{
    static const char *const hold[] = {
        "n == 4", "1 + 2 * 3 == 7", "(1 + 2) * 3 == 9", "10 - 4 - 3 == 3", "-n * -n == 16", "not n == 5 and n",
        "n > 5 or n < 5 and name ~ 'ob'", "name == 'Bob'", "name != 4", "[with blank] == 'x'", "length(name) == 3",
        "missing(empty) and missing(1 / 0) and missing(name * 2)", "sqrt(n) == 2 and abs(-2) == 2", "round(2.5) == 3",
        "7 % 4 == 3", "not (empty < 1) and not (empty > 1)", ".5 + 1e1 == 10.5", "'a' < 'b'", "year ~ 19"};
    static const char *const wrong[] = {"", "n ==", "(n", "n)", "nobody > 1", "1 = 1", "'open", "n n", "n & 1",
                                        "1.2.3", "f(n)", "[n", "1 + not n"};
    struct Table *table = table_of("n,name,empty,with blank,year\n4,Bob,,x,1984.x19\n");
    struct Buffer deep = {0};

    for (size_t i = 0; i < sizeof hold / sizeof *hold; i++)
        check_that(outcome(table, hold[i]) == 't', hold[i], __FILE__, __LINE__);
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++)
        check_that(outcome(table, wrong[i]) == 'e', wrong[i], __FILE__, __LINE__);
    CHECK(outcome(table, "1 / 0") == 'f' && outcome(table, "name ~ (1 + 1)") == 'f');
    buffer_add_repeated(&deep, '(', 100000);
    CHECK(outcome(table, buffer_text(&deep)) == 'e');
    buffer_clear(&deep);
    for (int i = 0; i < 5000; i++)
        buffer_add_text(&deep, "1 + ");
    CHECK(outcome(table, buffer_text(&deep)) == 'e');
    buffer_free(&deep);
    table_free(table);
}
