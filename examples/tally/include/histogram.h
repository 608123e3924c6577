/* histogram: how many values fall into each of some equal ranges. */
#ifndef TALLY_HISTOGRAM_H
#define TALLY_HISTOGRAM_H

#include <stddef.h>

#include "buffer.h"

#define HISTOGRAM_MAX_BINS 200

struct Histogram {
    double low;
    double width; /* of one bin */
    size_t bins;
    size_t counts[HISTOGRAM_MAX_BINS];
};

/* A rule of thumb (Sturges): 1 + log2 of the count, rounded up; at least 2. */
size_t histogram_rule(size_t count);

/* Bins from round bounds that cover all values; at most wanted of them. count > 0, 2 <= wanted <= the maximum.
   (Not 1: values on both sides of zero always take two bins, since zero is a round bound.) */
struct Histogram histogram_of(const double *values, size_t count, size_t wanted);

/* One line a bin: its bounds, its count, and a bar of at most that many characters. */
void histogram_draw(struct Buffer *out, const struct Histogram *histogram, size_t bar_width);

#endif
