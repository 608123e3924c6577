/* The self test's frame: groups, counting, and how a failure is shown. */
#include "selftest.h"

#include <stdio.h>
#include <string.h>

#include "buffer.h"
#include "reader.h"
#include "writer.h"

struct Group {
    const char *name;
    void (*run)(void);
};

static const struct Group groups[] = {
    {"numbers and their text", check_number_text},
    {"sums, means, deviations", check_summaries},
    {"quantiles", check_quantiles},
    {"histograms", check_histograms},
    {"digests", check_digests},
    {"reading", check_reading},
    {"writing and JSON", check_writing},
    {"sorting", check_ordering},
    {"unique, join, pivot", check_shapes},
    {"expressions", check_expressions},
};

/* The state of the run; one run a process, so it may as well be here. */
static int checks_done;
static int checks_failed;

void check_that(bool holds, const char *condition, const char *file, int line)
{
    checks_done++;
    if (!holds) {
        checks_failed++;
        printf("FAILED at %s:%d: %s\n", file, line, condition);
    }
}

void check_text(const char *actual, const char *expected, const char *file, int line)
{
    checks_done++;
    if (strcmp(actual, expected) != 0) {
        checks_failed++;
        printf("FAILED at %s:%d:\n  expected: %s\n  actual:   %s\n", file, line, expected, actual);
    }
}

struct Table *table_of(const char *text)
{
    static const char *const none[] = {"none"};
    struct ReadError error;
    struct Table *table = read_text(text, strlen(text), ',', &error);

    CHECK(table != NULL);
    return table != NULL ? table : table_new(none, 1);
}

void check_table(struct Table *table, const char *expected, const char *file, int line)
{
    struct Buffer out = {0};

    write_separated(&out, table, ',');
    check_text(buffer_text(&out), expected, file, line);
    buffer_free(&out);
    table_free(table);
}

int selftest(void)
{
    for (size_t i = 0; i < sizeof groups / sizeof *groups; i++) {
        int done_before = checks_done;
        int failed_before = checks_failed;

        groups[i].run();
        printf("%-24s %3d checks  %s\n", groups[i].name, checks_done - done_before,
               checks_failed == failed_before ? "ok" : "FAILED");
    }
    printf("%d checks, %d failed\n", checks_done, checks_failed);
    return checks_failed == 0 ? 0 : 1;
}
