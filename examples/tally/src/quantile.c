/*
 * Quantiles by selection: only the part that holds the wanted value is ever looked at again, so a median takes
 * linear time where a sort takes n log n. Equal values are split off in the middle (a column of readings
 * repeats itself), which keeps many equal values from going quadratic.
 */
#include "quantile.h"

#include <math.h>

static void swap(double *left, double *right)
{
    double held = *left;

    *left = *right;
    *right = held;
}

/* The middle one of three, a fair pivot also for values already in order. */
static double middle_of(double a, double b, double c)
{
    return fmax(fmin(a, b), fmin(fmax(a, b), c));
}

/*
 * Dijkstra's three-way split of values[low..high): smaller ones, equal ones, larger ones.
 * Afterwards the equal ones stand at [*equal_low, *equal_high).
 */
static void split(double *values, size_t low, size_t high, double pivot, size_t *equal_low, size_t *equal_high)
{
    size_t at = low;

    while (at < high) {
        if (values[at] < pivot)
            swap(&values[low++], &values[at++]);
        else if (values[at] > pivot)
            swap(&values[at], &values[--high]);
        else
            at++;
    }
    *equal_low = low;
    *equal_high = high;
}

double select_nth(double *values, size_t count, size_t index)
{
    size_t low = 0;
    size_t high = count;

    for (;;) {
        double pivot = middle_of(values[low], values[low + (high - low) / 2], values[high - 1]);
        size_t equal_low;
        size_t equal_high;

        split(values, low, high, pivot, &equal_low, &equal_high);
        if (index < equal_low)
            high = equal_low;
        else if (index >= equal_high)
            low = equal_high;
        else
            return pivot;
    }
}

double quantile(double *values, size_t count, double part)
{
    double place = fmin(fmax(part, 0), 1) * (double)(count - 1);
    size_t index = (size_t)place;
    double fraction = place - (double)index;
    double below = select_nth(values, count, index);

    if (fraction == 0 || index + 1 >= count)
        return below;
    /* Weights instead of a difference: the difference of two large values could overflow. */
    return below * (1 - fraction) + select_nth(values, count, index + 1) * fraction;
}

double median(double *values, size_t count)
{
    return quantile(values, count, 0.5);
}
