/*
 * histogram: how often which latency came, log-linear as HdrHistogram's: three significant digits from 1 us to 1 h, in
 * constant memory (270 KiB) and constant time. Values are nanoseconds. Not thread-safe.
 */
#ifndef ECHOPROBE_HISTOGRAM_H
#define ECHOPROBE_HISTOGRAM_H

#include <stdint.h>
#include <stdio.h>

#define HISTOGRAM_MAX 3600000000000 /* ns in an hour; a value beyond counts as this */

#define HISTOGRAM_HALF    1024 /* a bucket has 1024 steps (the first one 2048), each at most 1/1024 of its value */
#define HISTOGRAM_BUCKETS 32   /* each twice as wide as the one before: 2048 << 31 is over an hour */

struct histogram {
    uint64_t total;
    int64_t min, max; /* exact; of an empty one 0 */
    double sum, squares;
    uint64_t counts[HISTOGRAM_HALF * (HISTOGRAM_BUCKETS + 1)];
};

/* An empty one; zeroed memory is one too. NULL when memory ran out; free() frees it. */
struct histogram *histogram_new(void);

/* Counts a value; one below 0 counts as 0. */
void histogram_record(struct histogram *h, int64_t value);

/* The value that the fraction q (0 to 1) of all is at or below, at most one step too high; 0 of an empty one. */
int64_t histogram_quantile(const struct histogram *h, double q);

/* How many are at or below the value, or in the same step. */
uint64_t histogram_count_to(const struct histogram *h, int64_t value);

/* 0 of an empty one. */
double histogram_mean(const struct histogram *h);
double histogram_deviation(const struct histogram *h);

/* Writes the percentile distribution in milliseconds as HdrHistogram prints it, for its plotter. */
void histogram_plot(const struct histogram *h, FILE *out);

#endif
