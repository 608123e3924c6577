/* summary: count, sum, mean, spread and range in one pass. */
#ifndef TALLY_SUMMARY_H
#define TALLY_SUMMARY_H

#include <stdbool.h>
#include <stddef.h>

/* Starts as {0}. */
struct Summary {
    size_t count;
    double sum;
    double compensation; /* what the rounding of sum has lost so far */
    double mean;
    double squares; /* sum of squared distances from the mean */
    double smallest;
    double largest;
};

void summary_add(struct Summary *summary, double value);
void summary_add_all(struct Summary *summary, const double *values, size_t count);

/* The summary of both together, as if all had been added to one. */
struct Summary summary_merge(const struct Summary *left, const struct Summary *right);

double summary_sum(const struct Summary *summary);

/* The sample's standard deviation (n - 1); 0 for fewer than two values. */
double summary_deviation(const struct Summary *summary);

/* One figure by its name: count, sum, mean, min, max, stddev; false when there's no such name. */
bool summary_figure(const struct Summary *summary, const char *name, double *figure);

#endif
