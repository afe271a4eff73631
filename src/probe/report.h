/* report: what is said of summaries: for people, or in a format for programs. */
#ifndef ECHOPROBE_REPORT_H
#define ECHOPROBE_REPORT_H

#include "probe/summary.h"

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

enum report_format { REPORT_TEXT, REPORT_JSON, REPORT_NAGIOS, REPORT_PROMETHEUS };
enum report_mode { REPORT_ONCE, REPORT_PING, REPORT_LOAD };

/* The words of the first enum, in its order, ended by NULL. */
extern const char *const report_format_words[];

struct report {
    FILE *out;
    enum report_format format;
    enum report_mode mode;
    struct thresholds limits;
    int64_t timeout; /* ns; the most that a latency can be, but for one of a load, which may have waited before */
};

/* Writes what all summaries came to, once at the end. As text, REPORT_ONCE says nothing: the answer is the report. */
void report_summaries(const struct report *r, const struct summary *summaries, size_t count);

/* Writes what one probe of a ping came to, if the format has a line for that; seq counts from 1. */
void report_probe(const struct report *r, const struct target *t, uint64_t seq, const struct probe_result *result);

/* The formats: what report_summaries() calls. */
void report_json(const struct report *r, const struct summary *s);
void report_nagios(const struct report *r, const struct summary *summaries, size_t count);
void report_prometheus(const struct report *r, const struct summary *summaries, size_t count);

/* Writes, for monitoring plugins, why nothing was probed. They show standard output alone. */
void report_unknown(FILE *out, const char *why);

/* Writes text as a JSON string, or (the same escapes) as a label of Prometheus, with its quotes. */
void report_quote(FILE *out, const char *text);

#endif
