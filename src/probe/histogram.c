#include "probe/histogram.h"

#include <inttypes.h>
#include <math.h>
#include <stdbool.h>
#include <stdlib.h>

#define SUB_BITS  11 /* log2(2 * HISTOGRAM_HALF) */
#define HALF_TICK 5  /* lines of a plot in which the distance to 100 % halves */
#define MS        1e6

/* Index = 1024 * bucket + value / 2^bucket, where the quotient is below 2048 and, but in bucket 0, at least 1024. */
static size_t index_of(int64_t value)
{
    uint64_t v = (uint64_t)value;
    int bits = 64 - __builtin_clzll(v | (2UL * HISTOGRAM_HALF - 1));
    int bucket = bits - SUB_BITS;
    return (size_t)bucket * HISTOGRAM_HALF + (size_t)(v >> bucket);
}

/* The highest value with this index. */
static int64_t value_at(size_t index)
{
    size_t bucket = index < (size_t)2 * HISTOGRAM_HALF ? 0 : index / HISTOGRAM_HALF - 1;
    size_t quotient = index - bucket * HISTOGRAM_HALF;
    return (int64_t)(((quotient + 1) << bucket) - 1);
}

struct histogram *histogram_new(void)
{
    return calloc(1, sizeof(struct histogram));
}

void histogram_record(struct histogram *h, int64_t value)
{
    if (value < 0)
        value = 0;
    else if (value > HISTOGRAM_MAX)
        value = HISTOGRAM_MAX;
    if (h->total == 0 || value < h->min)
        h->min = value;
    if (value > h->max)
        h->max = value;
    h->total++;
    h->sum += (double)value;
    h->squares += (double)value * (double)value;
    h->counts[index_of(value)]++;
}

int64_t histogram_quantile(const struct histogram *h, double q)
{
    uint64_t rank = (uint64_t)ceil(q * (double)h->total - 1e-9), seen = 0;
    size_t i = 0;
    if (h->total == 0)
        return 0;
    rank = rank > h->total ? h->total : rank;
    for (rank = rank > 0 ? rank : 1; seen < rank; i++)
        seen += h->counts[i];
    int64_t value = value_at(i - 1);
    return value < h->max ? value : h->max;
}

uint64_t histogram_count_to(const struct histogram *h, int64_t value)
{
    uint64_t count = 0;
    size_t last = index_of(value < HISTOGRAM_MAX ? value : HISTOGRAM_MAX);
    for (size_t i = 0; i <= last; i++)
        count += h->counts[i];
    return count;
}

double histogram_mean(const struct histogram *h)
{
    return h->total > 0 ? h->sum / (double)h->total : 0;
}

double histogram_deviation(const struct histogram *h)
{
    double mean = histogram_mean(h);
    double variance = h->total > 0 ? h->squares / (double)h->total - mean * mean : 0;
    return variance > 0 ? sqrt(variance) : 0;
}

/* One line of the plot. True when it covers all values. */
static bool plot_line(const struct histogram *h, double q, FILE *out)
{
    int64_t value = histogram_quantile(h, q);
    uint64_t count = histogram_count_to(h, value);
    if (q < 1)
        fprintf(out, "%12.3f %14.12f %10" PRIu64 " %14.2f\n", (double)value / MS, q, count, 1 / (1 - q));
    else
        fprintf(out, "%12.3f %14.12f %10" PRIu64 "\n", (double)value / MS, q, count);
    return count == h->total;
}

void histogram_plot(const struct histogram *h, FILE *out)
{
    bool all = h->total == 0;
    fprintf(out, "%12s %14s %10s %14s\n\n", "Value", "Percentile", "TotalCount", "1/(1-Percentile)");
    for (int line = 0; !all; line++) {
        double left = ldexp(1, -line / HALF_TICK); /* the distance to 100 % when it was halved last */
        all = plot_line(h, 1 - left + line % HALF_TICK * left / (2 * HALF_TICK), out);
    }
    if (h->total > 0)
        plot_line(h, 1, out);
    fprintf(out, "#[Mean    = %12.3f, StdDeviation   = %12.3f]\n", histogram_mean(h) / MS, histogram_deviation(h) / MS);
    fprintf(out, "#[Max     = %12.3f, Total count    = %12" PRIu64 "]\n", (double)h->max / MS, h->total);
    fprintf(out, "#[Buckets = %12d, SubBuckets     = %12d]\n", HISTOGRAM_BUCKETS, 2 * HISTOGRAM_HALF);
}
