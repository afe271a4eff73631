/*
 * histogram: counts of durations in log-linear buckets, 128 to a power of two, so that a percentile is off by less than
 * a hundredth of itself whatever its size.
 */
#ifndef BENCH_HISTOGRAM_H
#define BENCH_HISTOGRAM_H

#include <stdint.h>

enum { HISTOGRAM_STEPS = 128, HISTOGRAM_BUCKETS = (64 - 6) * HISTOGRAM_STEPS };

/* Zeroed means empty. */
struct histogram {
    uint64_t count, max;
    uint64_t buckets[HISTOGRAM_BUCKETS];
};

static inline unsigned histogram_bucket(uint64_t value)
{
    unsigned shift = value < 2 * HISTOGRAM_STEPS ? 0 : 56 - (unsigned)__builtin_clzll(value);

    return shift * HISTOGRAM_STEPS + (unsigned)(value >> shift);
}

static inline void histogram_add(struct histogram *histogram, uint64_t value)
{
    histogram->count++;
    histogram->max = value > histogram->max ? value : histogram->max;
    histogram->buckets[histogram_bucket(value)]++;
}

/* The largest value that lies in the bucket of the given quantile (0 to 1), but no larger than any that was added. */
static inline uint64_t histogram_quantile(const struct histogram *histogram, double quantile)
{
    uint64_t rank = (uint64_t)(quantile * (double)histogram->count), seen = 0, top;
    unsigned bucket = 0, shift;

    while (bucket < HISTOGRAM_BUCKETS - 1 && (seen += histogram->buckets[bucket]) <= rank)
        bucket++;
    shift = bucket < 2 * HISTOGRAM_STEPS ? 0 : bucket / HISTOGRAM_STEPS - 1;
    top = ((uint64_t)(bucket - shift * HISTOGRAM_STEPS + 1) << shift) - 1;
    return top < histogram->max ? top : histogram->max;
}

#endif
