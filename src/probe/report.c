#include "probe/report.h"

#include <inttypes.h>

#define MS 1e6
#define S  1e9

const char *const report_format_words[] = { "text", "json", "nagios", "prometheus", NULL };

/* --- Text */

static void text_ping(const struct report *r, const struct summary *s)
{
    const struct histogram *h = s->latency;
    fprintf(r->out, "--- %s: %" PRIu64 " probes, %" PRIu64 " lost (%.1f %%)%s\n", s->target->url, s->sent, s->lost,
            s->sent > 0 ? 100.0 * (double)s->lost / (double)s->sent : 0.0, s->interrupted ? ", interrupted" : "");
    if (h->total > 0)
        fprintf(r->out, "min %.3f, median %.3f, p90 %.3f, p99 %.3f, max %.3f, jitter %.3f ms\n", (double)h->min / MS,
                (double)histogram_quantile(h, 0.5) / MS, (double)histogram_quantile(h, 0.9) / MS,
                (double)histogram_quantile(h, 0.99) / MS, (double)h->max / MS, summary_jitter(s) / MS);
}

/* A column of a load's table; without an answer there is no time. */
static void text_time(const struct report *r, const struct histogram *h, int64_t time)
{
    if (h->total > 0)
        fprintf(r->out, " %9.3f", (double)time / MS);
    else
        fprintf(r->out, " %9s", "-");
}

static void text_load(const struct report *r, const struct summary *s)
{
    static const double quantiles[] = { 0.5, 0.9, 0.99, 0.999 };
    const struct histogram *h = s->latency;
    fprintf(r->out, "%12" PRIu64 " %12.1f %8" PRIu64, h->total,
            s->elapsed > 0 ? (double)h->total / ((double)s->elapsed / S) : 0.0, s->lost);
    text_time(r, h, h->min);
    for (size_t i = 0; i < sizeof quantiles / sizeof quantiles[0]; i++)
        text_time(r, h, histogram_quantile(h, quantiles[i]));
    text_time(r, h, h->max);
    fprintf(r->out, "  %s%s\n", s->target->url, s->interrupted ? " (interrupted)" : "");
}

static void report_text(const struct report *r, const struct summary *summaries, size_t count)
{
    if (r->mode == REPORT_LOAD)
        fprintf(r->out, "%12s %12s %8s %9s %9s %9s %9s %9s %9s\n", "answers", "per second", "lost", "min ms", "median",
                "p90", "p99", "p99.9", "max");
    for (size_t i = 0; i < count; i++)
        if (r->mode == REPORT_LOAD)
            text_load(r, &summaries[i]);
        else if (r->mode == REPORT_PING)
            text_ping(r, &summaries[i]);
}

void report_summaries(const struct report *r, const struct summary *summaries, size_t count)
{
    switch (r->format) {
    case REPORT_TEXT:
        report_text(r, summaries, count);
        break;
    case REPORT_JSON:
        for (size_t i = 0; i < count; i++)
            report_json(r, &summaries[i]);
        break;
    case REPORT_NAGIOS:
        report_nagios(r, summaries, count);
        break;
    case REPORT_PROMETHEUS:
        report_prometheus(r, summaries, count);
        break;
    }
}

/* --- One probe of a ping: phases that were not reached, or that there are none of, are left out. */

static void text_phase(FILE *out, const char *name, int64_t took)
{
    if (took != PHASE_NEVER)
        fprintf(out, " %s=%.3f", name, (double)took / MS);
}

static void json_phase(FILE *out, const char *name, int64_t took)
{
    if (took != PHASE_NEVER)
        fprintf(out, ",\"%s_ms\":%.3f", name, (double)took / MS);
}

static void each_phase(FILE *out, const struct probe_result *p, void (*phase)(FILE *, const char *, int64_t))
{
    phase(out, "resolve", p->resolve);
    phase(out, "connect", p->connect);
    phase(out, "tls", p->tls);
    phase(out, "first", p->first);
    phase(out, "done", p->total);
}

void report_probe(const struct report *r, const struct target *t, uint64_t seq, const struct probe_result *result)
{
    bool good = result->failure.class == FAILURE_NONE;
    if (r->format == REPORT_TEXT && good) {
        fprintf(r->out, "%s: seq=%" PRIu64, t->url, seq);
        each_phase(r->out, result, text_phase);
        fputs(" ms\n", r->out);
    } else if (r->format == REPORT_JSON) {
        fputs("{\"url\":", r->out);
        report_quote(r->out, t->url);
        fprintf(r->out, ",\"seq\":%" PRIu64, seq);
        each_phase(r->out, result, json_phase);
        if (result->answer != NULL && result->answer->status != 0)
            fprintf(r->out, ",\"status\":%u", result->answer->status);
        fprintf(r->out, ",\"failure\":\"%s\",\"message\":", failure_word(result->failure.class));
        report_quote(r->out, result->failure.text);
        fputs("}\n", r->out);
    }
    fflush(r->out);
}

/* --- JSON (RFC 8259): one line a target */

void report_quote(FILE *out, const char *text)
{
    fputc('"', out);
    for (const char *p = text; *p != '\0'; p++) {
        if (*p == '"' || *p == '\\')
            fputc('\\', out);
        fputc(*p, out);
    }
    fputc('"', out);
}

static void json_latency(FILE *out, const struct summary *s)
{
    const struct histogram *h = s->latency;
    static const struct {
        const char *name;
        double q;
    } quantiles[] = { { "median", 0.5 }, { "p90", 0.9 }, { "p99", 0.99 }, { "p99_9", 0.999 } };
    if (h->total == 0)
        return;
    fprintf(out, ",\"latency_ms\":{\"min\":%.3f", (double)h->min / MS);
    for (size_t i = 0; i < sizeof quantiles / sizeof quantiles[0]; i++)
        fprintf(out, ",\"%s\":%.3f", quantiles[i].name, (double)histogram_quantile(h, quantiles[i].q) / MS);
    fprintf(out, ",\"max\":%.3f,\"mean\":%.3f,\"jitter\":%.3f}", (double)h->max / MS, histogram_mean(h) / MS,
            summary_jitter(s) / MS);
}

static void json_failures(FILE *out, const struct summary *s)
{
    const char *comma = "";
    fputs(",\"failures\":{", out);
    for (unsigned i = FAILURE_NONE + 1; i < FAILURE_CLASSES; i++)
        if (s->failures[i] > 0) {
            fprintf(out, "%s\"%s\":%" PRIu64, comma, failure_word(i), s->failures[i]);
            comma = ",";
        }
    fputc('}', out);
}

void report_json(const struct report *r, const struct summary *s)
{
    static const char *const modes[] = { "once", "ping", "load" };
    char why[512];
    summary_explain(s, &r->limits, why, sizeof why);
    fputs("{\"url\":", r->out);
    report_quote(r->out, s->target->url);
    fprintf(r->out, ",\"mode\":\"%s\",\"verdict\":\"%s\",\"failure\":\"%s\",\"message\":", modes[r->mode],
            verdict_word(summary_verdict(s, &r->limits)), failure_word(s->first.class));
    report_quote(r->out, why);
    fprintf(r->out, ",\"sent\":%" PRIu64 ",\"lost\":%" PRIu64, s->sent, s->lost);
    if (s->status != 0)
        fprintf(r->out, ",\"status\":%u", s->status);
    if (r->mode == REPORT_ONCE && s->lost == 0)
        each_phase(r->out, &s->phases, json_phase);
    json_latency(r->out, s);
    json_failures(r->out, s);
    if (r->mode == REPORT_LOAD)
        fprintf(r->out, ",\"rate\":%.1f", s->elapsed > 0 ? (double)s->latency->total / ((double)s->elapsed / S) : 0.0);
    fprintf(r->out, ",\"elapsed_s\":%.3f,\"interrupted\":%s}\n", (double)s->elapsed / S,
            s->interrupted ? "true" : "false");
}

/* --- Monitoring plugins: one line, and behind the bar values with their limits, by the plugins' guidelines */

static void nagios_limit(FILE *out, int64_t limit)
{
    if (limit > 0)
        fprintf(out, "%.6f", (double)limit / S);
    fputc(';', out);
}

/* The text without the bar, behind which the values begin, and without what ends the line. */
static void nagios_text(FILE *out, const char *text)
{
    for (const char *p = text; *p != '\0'; p++)
        fputc(*p == '|' || (*p > 0 && *p < ' ') ? '_' : *p, out);
}

void report_unknown(FILE *out, const char *why)
{
    fputs("ECHOPROBE UNKNOWN - ", out);
    nagios_text(out, why);
    fputc('\n', out);
}

/* A quote in a label is doubled; other characters would end it, or begin the values anew. */
static void nagios_label(FILE *out, const char *url, const char *suffix)
{
    fputs(" '", out);
    for (const char *p = url; *p != '\0'; p++) {
        if (*p == '\'')
            fputc('\'', out);
        fputc(*p == '=' || *p == '|' ? '_' : *p, out);
    }
    fprintf(out, "%s'=", suffix);
}

/* 'label'=value[unit];[warn];[crit];[min];[max] of the latency and of the loss; U where there is none. */
static void nagios_values(const struct report *r, const struct summary *s)
{
    nagios_label(r->out, s->target->url, "");
    if (s->latency->total > 0)
        fprintf(r->out, "%.6fs;", (double)histogram_quantile(s->latency, 0.99) / S);
    else
        fputs("U;", r->out);
    nagios_limit(r->out, r->limits.warning);
    nagios_limit(r->out, r->limits.critical);
    fputs("0;", r->out);
    if (r->mode != REPORT_LOAD)
        fprintf(r->out, "%.6f", (double)r->timeout / S);
    nagios_label(r->out, s->target->url, " loss");
    if (s->sent > 0)
        fprintf(r->out, "%.6g%%;;0;0;100", 100.0 * (double)s->lost / (double)s->sent);
    else
        fputs("U;;0;0;100", r->out);
}

void report_nagios(const struct report *r, const struct summary *summaries, size_t count)
{
    static const char *const words[] = { "OK", "WARNING", "CRITICAL" };
    enum verdict worst = VERDICT_OK;
    for (size_t i = 0; i < count; i++) {
        enum verdict verdict = summary_verdict(&summaries[i], &r->limits);
        worst = verdict > worst ? verdict : worst;
    }
    fprintf(r->out, "ECHOPROBE %s -", words[worst]);
    for (size_t i = 0; i < count; i++) {
        const struct summary *s = &summaries[i];
        char why[512];
        summary_explain(s, &r->limits, why, sizeof why);
        if (why[0] == '\0')
            snprintf(why, sizeof why, "%.3f ms", (double)histogram_quantile(s->latency, 0.99) / MS);
        fputs(i > 0 ? ", " : " ", r->out);
        nagios_text(r->out, s->target->url);
        fputc(' ', r->out);
        nagios_text(r->out, why);
        fputs(s->interrupted ? " (interrupted)" : "", r->out);
    }
    fputs(" |", r->out);
    for (size_t i = 0; i < count; i++)
        nagios_values(r, &summaries[i]);
    fputc('\n', r->out);
}

/* --- Prometheus text format, for the textfile collector: each metric once, with a line for each target */

static void metric_head(FILE *out, const char *name, const char *type, const char *help)
{
    fprintf(out, "# HELP echoprobe_%s %s\n# TYPE echoprobe_%s %s\n", name, help, name, type);
}

static void metric(FILE *out, const char *name, const struct summary *s, const char *label, const char *value,
                   double number)
{
    fprintf(out, "echoprobe_%s{url=", name);
    report_quote(out, s->target->url);
    if (label != NULL)
        fprintf(out, ",%s=\"%s\"", label, value);
    /* a counter keeps its digits; of a time a nanosecond is enough */
    fprintf(out, "} %.*g\n", number < 0x1p53 && number == (double)(int64_t)number ? 17 : 9, number);
}

static void metric_phases(FILE *out, const struct summary *s)
{
    const struct probe_result *p = &s->phases;
    const struct {
        const char *name;
        int64_t took;
    } phases[] = { { "resolve", p->resolve },
                   { "connect", p->connect },
                   { "tls", p->tls },
                   { "first", p->first },
                   { "done", p->total } };
    for (size_t i = 0; i < sizeof phases / sizeof phases[0]; i++)
        if (phases[i].took != PHASE_NEVER)
            metric(out, "phase_seconds", s, "phase", phases[i].name, (double)phases[i].took / S);
}

static void metric_latencies(FILE *out, const struct summary *s)
{
    static const struct {
        const char *name;
        double q;
    } quantiles[] = { { "0.5", 0.5 }, { "0.9", 0.9 }, { "0.99", 0.99 }, { "0.999", 0.999 }, { "1", 1 } };
    for (size_t i = 0; i < sizeof quantiles / sizeof quantiles[0]; i++)
        if (s->latency->total > 0)
            metric(out, "latency_seconds", s, "quantile", quantiles[i].name,
                   (double)histogram_quantile(s->latency, quantiles[i].q) / S);
    metric(out, "latency_seconds_sum", s, NULL, NULL, s->latency->sum / S);
    metric(out, "latency_seconds_count", s, NULL, NULL, (double)s->latency->total);
}

static void metric_failures(FILE *out, const struct summary *s)
{
    for (unsigned i = FAILURE_NONE + 1; i < FAILURE_CLASSES; i++)
        metric(out, "failures", s, "class", failure_word(i), (double)s->failures[i]);
}

void report_prometheus(const struct report *r, const struct summary *summaries, size_t count)
{
    FILE *out = r->out;
    metric_head(out, "verdict", "gauge", "0 ok, 1 warning, 2 critical.");
    for (size_t i = 0; i < count; i++)
        metric(out, "verdict", &summaries[i], NULL, NULL, summary_verdict(&summaries[i], &r->limits));
    metric_head(out, "sent", "gauge", "Probes or requests that came to an end.");
    for (size_t i = 0; i < count; i++)
        metric(out, "sent", &summaries[i], NULL, NULL, (double)summaries[i].sent);
    metric_head(out, "interrupted", "gauge", "1 where a signal ended the probes or the load early.");
    for (size_t i = 0; i < count; i++)
        metric(out, "interrupted", &summaries[i], NULL, NULL, summaries[i].interrupted);
    metric_head(out, "failures", "gauge", "Those that failed, by the class of the failure.");
    for (size_t i = 0; i < count; i++)
        metric_failures(out, &summaries[i]);
    metric_head(out, "latency_seconds", "summary", "Time of those that were answered, too late or not.");
    for (size_t i = 0; i < count; i++)
        metric_latencies(out, &summaries[i]);
    metric_head(out, "phase_seconds", "gauge", "Phases of the last probe that succeeded.");
    for (size_t i = 0; i < count; i++)
        metric_phases(out, &summaries[i]);
    metric_head(out, "http_status", "gauge", "Status of the last answer; 0 where there is none.");
    for (size_t i = 0; i < count; i++)
        metric(out, "http_status", &summaries[i], NULL, NULL, summaries[i].status);
}
