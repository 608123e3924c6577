/* Checks of everything that calculates. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "histogram.h"
#include "number.h"
#include "quantile.h"
#include "selftest.h"
#include "sha256.h"
#include "summary.h"

#define MANY 2000

/* A small generator of our own, so that every machine checks the same values (Numerical Recipes' constants). */
static unsigned long next_random(unsigned long *state)
{
    *state = (*state * 1664525UL + 1013904223UL) & 0xFFFFFFFFUL;
    return *state >> 16;
}

static int compare_doubles(const void *left, const void *right)
{
    double a = *(const double *)left;
    double b = *(const double *)right;

    return (a > b) - (a < b);
}

void check_number_text(void)
{
    static const char *const good[] = {"0", "-1.5", "+2", " 7 ", ".5", "5.", "1e3", "1E-3"};
    static const char *const bad[] = {"", "-", "1,5", "0x10", "inf", "nan", "1e999", "12 34", "1.2.3", "e5", "NA"};
    char text[NUMBER_TEXT_BYTES];
    double value = 0;

    for (size_t i = 0; i < sizeof good / sizeof *good; i++)
        CHECK(parse_number(good[i], &value));
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        CHECK(!parse_number(bad[i], &value));
    format_number(text, 0.1);
    CHECK_TEXT(text, "0.1");
    format_number(text, 0.1 + 0.2);
    CHECK_TEXT(text, "0.30000000000000004");
    format_number(text, -0.0);
    CHECK_TEXT(text, "0");
    CHECK(is_missing("") && is_missing(" NA ") && !is_missing("NAN") && !is_missing("0"));
    CHECK(compare_cells("9", "10") < 0 && compare_cells("10", "apple") < 0 && compare_cells("apple", "") < 0);
    CHECK(compare_cells("1.0", "1") == 0 && compare_cells("b", "a") > 0);
}

void check_summaries(void)
{
    struct Summary whole = {0}, first = {0}, second = {0}, merged, near = {0};
    double figure = 0;
    static const double values[] = {1e16, 1, -1e16, 2, 3, 4};

    summary_add_all(&whole, values, 6);
    CHECK(summary_sum(&whole) == 10);
    CHECK(whole.smallest == -1e16 && whole.largest == 1e16 && whole.count == 6);
    summary_add_all(&first, values, 2);
    summary_add_all(&second, values + 2, 4);
    merged = summary_merge(&first, &second);
    CHECK(merged.count == 6 && summary_sum(&merged) == 10 && merged.largest == 1e16);
    for (int i = 0; i < 4; i++)
        summary_add(&near, 1e9 + 3 * i);
    CHECK(fabs(summary_deviation(&near) - sqrt(15)) < 1e-9);
    CHECK(summary_figure(&near, "mean", &figure) && figure == 1e9 + 4.5);
    CHECK(!summary_figure(&near, "modus", &figure));
}

void check_quantiles(void)
{
    double few[] = {4, 1, 3, 2};
    double one[] = {7};
    double values[MANY], sorted[MANY];
    unsigned long state = 2022;
    bool same = true;

    CHECK(median(few, 4) == 2.5 && quantile(few, 4, 0) == 1 && quantile(few, 4, 1) == 4);
    CHECK(quantile(few, 4, 0.25) == 1.75 && median(one, 1) == 7);
    for (size_t i = 0; i < MANY; i++)
        values[i] = (double)(next_random(&state) % 500); /* many of them equal */
    memcpy(sorted, values, sizeof sorted);
    qsort(sorted, MANY, sizeof *sorted, compare_doubles);
    for (size_t i = 0; i < MANY; i += 37)
        same = same && select_nth(values, MANY, i) == sorted[i];
    CHECK(same);
}

void check_histograms(void)
{
    double values[MANY], equal[] = {5, 5, 5}, huge[] = {-1.7e308, 1.7e308};
    unsigned long state = 1;
    bool complete = true;
    struct Histogram histogram;

    for (size_t i = 0; i < MANY; i++)
        values[i] = (double)next_random(&state) / 100 - 300;
    for (size_t bins = 2; bins <= 60; bins++) {
        size_t sum = 0;

        histogram = histogram_of(values, MANY, bins);
        for (size_t i = 0; i < histogram.bins; i++)
            sum += histogram.counts[i];
        complete = complete && sum == MANY && histogram.bins <= bins;
    }
    CHECK(complete);
    histogram = histogram_of(equal, 3, 10);
    CHECK(histogram.bins == 1 && histogram.counts[0] == 3);
    histogram = histogram_of(huge, 2, 10);
    CHECK(histogram.bins == 1 && histogram.counts[0] == 2);
    CHECK(histogram_rule(1) == 2 && histogram_rule(64) == 7);
}

static void check_digest(const char *text, size_t repeat, const char *expected)
{
    struct Sha256 hash;
    char hex[SHA256_HEX_BYTES];

    sha256_start(&hash);
    for (size_t i = 0; i < repeat; i++)
        sha256_add(&hash, text, strlen(text));
    sha256_finish(&hash, hex);
    CHECK_TEXT(hex, expected);
}

/* The examples of FIPS 180-4; 56 bytes is the length whose padding needs a second block. */
void check_digests(void)
{
    check_digest("", 1, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    check_digest("abc", 1, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    check_digest("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq", 1,
                 "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
    check_digest("aaaaaaaaaa", 100000, "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
}
