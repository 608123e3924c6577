/* quantile: the value below which a given part of the values lies. */
#ifndef TALLY_QUANTILE_H
#define TALLY_QUANTILE_H

#include <stddef.h>

/* The value that would stand at that index if the values were sorted. Reorders them; index < count. */
double select_nth(double *values, size_t count, size_t index);

/* The quantile at part (0 to 1), interpolated linearly between neighbours (R's type 7). Reorders; count > 0. */
double quantile(double *values, size_t count, double part);

double median(double *values, size_t count);

#endif
