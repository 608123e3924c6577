/*
 * One pass over the values, without the two classic losses: a plain sum forgets small values beside large ones
 * (so we carry Neumaier's compensation), and "mean of squares less square of mean" cancels (so Welford's update).
 */
#include "summary.h"

#include <math.h>
#include <string.h>

/* Neumaier 1974: keep what the larger of the two operands swallowed. */
static void add_compensated(struct Summary *summary, double value)
{
    double total = summary->sum + value;

    if (fabs(summary->sum) >= fabs(value))
        summary->compensation += (summary->sum - total) + value;
    else
        summary->compensation += (value - total) + summary->sum;
    summary->sum = total;
}

void summary_add(struct Summary *summary, double value)
{
    double distance = value - summary->mean;

    add_compensated(summary, value);
    if (summary->count == 0 || value < summary->smallest)
        summary->smallest = value;
    if (summary->count == 0 || value > summary->largest)
        summary->largest = value;
    summary->count++;
    summary->mean += distance / (double)summary->count;
    summary->squares += distance * (value - summary->mean);
}

void summary_add_all(struct Summary *summary, const double *values, size_t count)
{
    for (size_t i = 0; i < count; i++)
        summary_add(summary, values[i]);
}

/* Chan, Golub and LeVeque 1979. */
struct Summary summary_merge(const struct Summary *left, const struct Summary *right)
{
    struct Summary both = *left;
    double distance = right->mean - left->mean;
    double total = (double)left->count + (double)right->count;

    if (left->count == 0)
        return *right;
    if (right->count == 0)
        return both;
    add_compensated(&both, right->sum);
    both.compensation += right->compensation;
    both.count += right->count;
    both.mean += distance * ((double)right->count / total);
    both.squares += right->squares + distance * distance * ((double)left->count * (double)right->count / total);
    both.smallest = fmin(left->smallest, right->smallest);
    both.largest = fmax(left->largest, right->largest);
    return both;
}

double summary_sum(const struct Summary *summary)
{
    /* Past the largest double the compensation is no number any more. */
    return isfinite(summary->sum) ? summary->sum + summary->compensation : summary->sum;
}

double summary_deviation(const struct Summary *summary)
{
    return summary->count < 2 ? 0 : sqrt(summary->squares / (double)(summary->count - 1));
}

bool summary_figure(const struct Summary *summary, const char *name, double *figure)
{
    if (strcmp(name, "count") == 0)
        *figure = (double)summary->count;
    else if (strcmp(name, "sum") == 0)
        *figure = summary_sum(summary);
    else if (strcmp(name, "mean") == 0)
        *figure = summary->count == 0 ? 0 : summary_sum(summary) / (double)summary->count;
    else if (strcmp(name, "min") == 0)
        *figure = summary->smallest;
    else if (strcmp(name, "max") == 0)
        *figure = summary->largest;
    else if (strcmp(name, "stddev") == 0)
        *figure = summary_deviation(summary);
    else
        return false;
    return true;
}
