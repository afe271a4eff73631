/*
 * metrics: counters and histograms, and the text format in which Prometheus reads them (version 0.0.4).
 *
 * A counter belongs to the thread that writes it and may be read by any: it goes without locks and without atomic
 * read-modify-write. What several threads count is summed when somebody asks.
 */
#ifndef ECHOD_METRICS_H
#define ECHOD_METRICS_H

#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>

typedef _Atomic uint64_t counter;

/* Only in the thread that the counter belongs to. */
static inline void counter_add(counter *c, uint64_t n)
{
    atomic_store_explicit(c, atomic_load_explicit(c, memory_order_relaxed) + n, memory_order_relaxed);
}

static inline uint64_t counter_read(const counter *c)
{
    return atomic_load_explicit(c, memory_order_relaxed);
}

#define HISTOGRAM_BOUNDS 22

/* Durations. */
struct histogram {
    counter
        buckets[HISTOGRAM_BOUNDS + 1]; /* each what is over the bound before and not over its own; the last has none */
    counter sum;                       /* nanoseconds */
};

/* Adds a duration, so many times. Only in the thread that the histogram belongs to. */
void histogram_add(struct histogram *histogram, int64_t nanoseconds, uint64_t times);

/* Adds what another histogram has, whichever thread's, to one of the caller's own. */
void histogram_sum(struct histogram *sum, const struct histogram *other);

#define REQUEST_STATUSES 16

/* Requests answered in one thread. */
struct requests {
    struct {
        _Atomic unsigned status; /* 0: free */
        counter count;
    } answered[REQUEST_STATUSES]; /* in the order in which they came up; the last takes all that finds no room */
    struct histogram duration;
};

/* Adds so many answers with this status. Only in the thread that *requests belongs to. */
void requests_add(struct requests *requests, unsigned status, uint64_t n);

/* Counts an answer; mostly it has the status that came up first. */
static inline void requests_count(struct requests *requests, unsigned status)
{
    if (atomic_load_explicit(&requests->answered[0].status, memory_order_relaxed) == status)
        counter_add(&requests->answered[0].count, 1);
    else
        requests_add(requests, status, 1);
}

/* Adds what another thread has counted to a sum of the caller's own; durations too. */
void requests_sum(struct requests *sum, const struct requests *other);

/* One label; a list of them ends with one whose name is NULL. Values are escaped. */
struct label {
    const char *name, *value;
};

/* The two lines in front of a family. type: counter, gauge or histogram. */
void metrics_family(FILE *out, const char *name, const char *type, const char *help);

void metrics_value(FILE *out, const char *name, const struct label *labels, uint64_t value);

/* Seconds with all their digits, of a time in nanoseconds. */
void metrics_seconds(FILE *out, const char *name, const struct label *labels, int64_t nanoseconds);

/* Buckets, sum and count of a histogram. */
void metrics_histogram(FILE *out, const char *name, const struct label *labels, const struct histogram *histogram);

#endif
