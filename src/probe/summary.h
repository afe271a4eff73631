/* summary: what the probes or requests of one target came to, and the verdict on it. Times are nanoseconds. */
#ifndef ECHOPROBE_SUMMARY_H
#define ECHOPROBE_SUMMARY_H

#include "probe/failure.h"
#include "probe/histogram.h"
#include "probe/probe.h"
#include "probe/target.h"

#include <stdbool.h>
#include <stdint.h>

/* In the order of their exit statuses, which are those of monitoring plugins. */
enum verdict { VERDICT_OK, VERDICT_WARNING, VERDICT_CRITICAL };

/* "ok", "warning", "critical" */
const char *verdict_word(enum verdict verdict);

/* Limits on a latency: on the one probe's, and of many on the 99th percentile. 0: none. */
struct thresholds {
    int64_t warning, critical;
};

struct summary {
    const struct target *target;
    struct histogram *latency;          /* of those that succeeded, or were answered too late */
    uint64_t sent;                      /* probes or requests that came to an end, one way or the other */
    uint64_t lost;                      /* those of them that failed */
    uint64_t failures[FAILURE_CLASSES]; /* those, and connections of a load that failed without a request */
    struct failure first;               /* the first failure */
    struct probe_result phases;         /* of the probe that succeeded last; its answer is NULL */
    unsigned status;                    /* the last answer's, of HTTP */
    int64_t previous;                   /* the latency before; 0: none */
    double jitter_sum;                  /* of the differences between consecutive latencies */
    uint64_t jitter_count;
    int64_t elapsed;
    bool interrupted; /* by a signal, before all was done */
};

/* 0, or -1 when memory ran out. */
int summary_init(struct summary *s, const struct target *t);
void summary_free(struct summary *s);

/* Counts one success. */
void summary_success(struct summary *s, int64_t latency);

/* Counts one failure whose only fault is its latency, which is so kept: else the slowest would be left out. */
void summary_late(struct summary *s, int64_t latency, const struct failure *f);

/* Counts n that failed in the same way; 0: a connection that failed with nothing under way. */
void summary_failure(struct summary *s, const struct failure *f, uint64_t n);

double summary_jitter(const struct summary *s);

/* Takes the limits into account: any failure is critical, and so is it when nothing succeeded. */
enum verdict summary_verdict(const struct summary *s, const struct thresholds *limits);

/* Why the verdict is not ok, as one sentence without URL; "" when it is. */
void summary_explain(const struct summary *s, const struct thresholds *limits, char *text, size_t len);

#endif
