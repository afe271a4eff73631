#include "probe/summary.h"

#include <inttypes.h>
#include <stdlib.h>

#define MS 1e6

const char *verdict_word(enum verdict verdict)
{
    static const char *const words[] = { "ok", "warning", "critical" };
    return words[verdict];
}

int summary_init(struct summary *s, const struct target *t)
{
    *s = (struct summary){ .target = t, .latency = histogram_new() };
    s->phases = (struct probe_result){
        .resolve = PHASE_NEVER, .connect = PHASE_NEVER, .tls = PHASE_NEVER, .first = PHASE_NEVER, .total = PHASE_NEVER
    };
    return s->latency != NULL ? 0 : -1;
}

void summary_free(struct summary *s)
{
    free(s->latency);
    s->latency = NULL;
}

static void latency_record(struct summary *s, int64_t latency)
{
    histogram_record(s->latency, latency);
    if (s->previous > 0) {
        s->jitter_sum += (double)(latency > s->previous ? latency - s->previous : s->previous - latency);
        s->jitter_count++;
    }
    s->previous = latency;
}

void summary_success(struct summary *s, int64_t latency)
{
    s->sent++;
    latency_record(s, latency);
}

void summary_late(struct summary *s, int64_t latency, const struct failure *f)
{
    latency_record(s, latency);
    summary_failure(s, f, 1);
}

void summary_failure(struct summary *s, const struct failure *f, uint64_t n)
{
    s->sent += n;
    s->lost += n;
    s->failures[f->class] += n > 0 ? n : 1;
    if (s->first.class == FAILURE_NONE)
        s->first = *f;
}

double summary_jitter(const struct summary *s)
{
    return s->jitter_count > 0 ? s->jitter_sum / (double)s->jitter_count : 0;
}

/* The latency that the limits are for. */
static int64_t summary_judged(const struct summary *s)
{
    return histogram_quantile(s->latency, 0.99);
}

enum verdict summary_verdict(const struct summary *s, const struct thresholds *limits)
{
    int64_t latency = summary_judged(s);
    if (s->latency->total == 0 || s->first.class != FAILURE_NONE ||
        (limits->critical > 0 && latency > limits->critical))
        return VERDICT_CRITICAL;
    return limits->warning > 0 && latency > limits->warning ? VERDICT_WARNING : VERDICT_OK;
}

void summary_explain(const struct summary *s, const struct thresholds *limits, char *text, size_t len)
{
    enum verdict verdict = summary_verdict(s, limits);
    int64_t limit = verdict == VERDICT_WARNING ? limits->warning : limits->critical;
    text[0] = '\0';
    if (verdict == VERDICT_OK)
        return;
    if (s->lost > 0 && s->sent > 1)
        snprintf(text, len, "%" PRIu64 " of %" PRIu64 " lost; the first: %s: %s", s->lost, s->sent,
                 failure_word(s->first.class), s->first.text);
    else if (s->first.class != FAILURE_NONE)
        snprintf(text, len, "%s: %s", failure_word(s->first.class), s->first.text);
    else if (s->sent == 0)
        snprintf(text, len, "%s: interrupted before there was a result", failure_word(FAILURE_TIMEOUT));
    else
        snprintf(text, len, "%s: %s%.3f ms is over %.3f ms", verdict_word(verdict),
                 s->sent > 1 ? "the 99th percentile of " : "", (double)summary_judged(s) / MS, (double)limit / MS);
}
