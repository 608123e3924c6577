/* A histogram whose bounds a person would choose: steps of 1, 2 or 5 times a power of ten. */
#include "histogram.h"

#include <float.h>
#include <math.h>

size_t histogram_rule(size_t count)
{
    return count < 2 ? 2 : 1 + (size_t)ceil(log2((double)count));
}

/* The smallest round step not below the given one. */
static double round_step(double step)
{
    static const double round[] = {1, 2, 5, 10};
    double power = pow(10, floor(log10(step)));

    for (size_t i = 0; i < sizeof round / sizeof *round; i++)
        if (round[i] * power >= step)
            return round[i] * power;
    return 10 * power;
}

/* How many bins of that width are needed from its multiple below smallest to beyond largest. */
static double bins_needed(double smallest, double largest, double width)
{
    return floor(largest / width) - floor(smallest / width) + 1;
}

static size_t bin_of(const struct Histogram *histogram, double value)
{
    double bin = floor((value - histogram->low) / histogram->width);

    if (!(bin > 0))
        return 0;
    return bin < (double)(histogram->bins - 1) ? (size_t)bin : histogram->bins - 1;
}

struct Histogram histogram_of(const double *values, size_t count, size_t wanted)
{
    struct Histogram histogram = {0};
    double smallest = values[0];
    double largest = values[0];
    double range;

    for (size_t i = 1; i < count; i++) {
        smallest = fmin(smallest, values[i]);
        largest = fmax(largest, values[i]);
    }
    range = largest - smallest;
    if (range < DBL_MIN || range > DBL_MAX / 1000) {
        /* All values equal, or so near or far apart that the arithmetic below would leave the doubles. */
        histogram.low = smallest;
        histogram.width = range < DBL_MIN ? 1 : range;
        histogram.bins = 1;
    } else {
        histogram.width = round_step(range / (double)wanted);
        /* Values at both edges of the range can take up one bin more than range / width. */
        while (bins_needed(smallest, largest, histogram.width) > (double)wanted)
            histogram.width = round_step(histogram.width * 1.5);
        histogram.low = floor(smallest / histogram.width) * histogram.width;
        histogram.bins = (size_t)bins_needed(smallest, largest, histogram.width);
    }
    for (size_t i = 0; i < count; i++)
        histogram.counts[bin_of(&histogram, values[i])]++;
    return histogram;
}

void histogram_draw(struct Buffer *out, const struct Histogram *histogram, size_t bar_width)
{
    size_t highest = 1;

    for (size_t i = 0; i < histogram->bins; i++)
        highest = histogram->counts[i] > highest ? histogram->counts[i] : highest;
    for (size_t i = 0; i < histogram->bins; i++) {
        double from = histogram->low + (double)i * histogram->width;
        double share = (double)histogram->counts[i] / (double)highest;

        buffer_add_format(out, "%10.6g .. %-10.6g %7zu", from, from + histogram->width, histogram->counts[i]);
        if (histogram->counts[i] > 0) {
            buffer_add_text(out, "  ");
            buffer_add_repeated(out, '#', (size_t)fmax(1, floor(share * (double)bar_width + 0.5)));
        }
        buffer_add_byte(out, '\n');
    }
}
