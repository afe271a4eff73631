#include "probe/run.h"

#include "deadline.h"
#include "probe/load.h"
#include "probe/screen.h"
#include "probe/series.h"

#include <errno.h>
#include <event2/event.h>
#include <inttypes.h>
#include <openssl/ssl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#define MS 1e6

struct run {
    const struct command *command;
    struct dialer dialer;
    struct series_settings settings;
    struct load_settings load_settings;
    struct report report;
    struct summary *summaries; /* one a target, as what follows */
    struct series *series;     /* these or loads */
    struct load **loads;
    struct bytes *answers; /* of single probes, to be printed in the order of the targets; owned */
    FILE *plot;            /* NULL: none */
    size_t running;
    int unwritten; /* errno with which the output broke; 0: it did not */
    struct event *signals[2];
};

/* --- While it runs */

static void complain(const struct target *t, const char *text)
{
    screen_clear();
    fflush(stdout);
    fprintf(stderr, "echoprobe: %s: %s\n", t->url, text);
}

/* A copy of what there is to print of the answer; data NULL when there is nothing, or memory ran out. */
static struct bytes answer_copy(const struct run *r, const struct exchange *x)
{
    struct bytes head = r->command->include ? x->head : (struct bytes){ 0 };
    char *copy = malloc(head.len + x->body.len + 1);
    if (copy != NULL && head.len > 0)
        memcpy(copy, head.data, head.len);
    if (copy != NULL && x->body.len > 0)
        memcpy(copy + head.len, x->body.data, x->body.len);
    return (struct bytes){ .data = copy, .len = copy != NULL ? head.len + x->body.len : 0 };
}

static void show_live(const struct run *r, const struct summary *s)
{
    if (r->command->mode == REPORT_PING && !r->command->quiet && s->latency->total > 0)
        screen_live("%s: %" PRIu64 " probes, %" PRIu64 " lost, median %.3f, max %.3f ms", s->target->url, s->sent,
                    s->lost, (double)histogram_quantile(s->latency, 0.5) / MS, (double)s->latency->max / MS);
}

static void run_stop(const struct run *r)
{
    for (size_t i = 0; i < r->command->target_count; i++)
        if (r->command->mode == REPORT_LOAD)
            load_stop(r->loads[i]);
        else
            series_stop(&r->series[i]);
}

/* A single probe keeps its answer, if it is good; a ping says a line, and ends where nobody can read it. */
static void on_probed(void *arg, struct summary *s, uint64_t seq, const struct probe_result *result)
{
    struct run *r = arg;
    bool good = result->failure.class == FAILURE_NONE;
    char text[sizeof result->failure.text + 64];
    if (r->command->mode == REPORT_ONCE && good && !r->command->quiet && r->command->format == REPORT_TEXT) {
        struct bytes *answer = &r->answers[s - r->summaries];
        *answer = answer_copy(r, result->answer);
        if (answer->data == NULL)
            summary_failure(s, &(struct failure){ FAILURE_SYSTEM, "out of memory" }, 1);
    }
    if (r->command->mode == REPORT_ONCE || r->command->quiet)
        return;
    screen_clear();
    report_probe(&r->report, s->target, seq, result);
    if (ferror(stdout) != 0 && r->unwritten == 0) {
        r->unwritten = errno;
        run_stop(r);
    }
    snprintf(text, sizeof text, "seq=%" PRIu64 ": %s: %s", seq, failure_word(result->failure.class),
             result->failure.text);
    if (!good && r->command->format != REPORT_NAGIOS) /* whose own line is to be the first */
        complain(s->target, text);
    show_live(r, s);
}

static void on_progress(void *arg, const struct summary *s)
{
    const struct run *r = arg;
    double seconds = (double)s->elapsed / 1e9;
    if (!r->command->quiet)
        screen_live("%s: %.0f s, %" PRIu64 " answers (%.0f/s), %" PRIu64 " lost, p99 %.3f ms", s->target->url, seconds,
                    s->latency->total, (double)s->latency->total / seconds, s->lost,
                    (double)histogram_quantile(s->latency, 0.99) / MS);
}

static void on_ended(void *arg)
{
    struct run *r = arg;
    if (--r->running == 0)
        event_base_loopbreak(r->dialer.base);
}

/* The first signal ends the probes, and what they came to is told; the second one ends the program. */
static void on_signal(evutil_socket_t number, short what, void *arg)
{
    struct run *r = arg;
    (void)number;
    (void)what;
    for (size_t i = 0; i < 2; i++)
        event_del(r->signals[i]);
    run_stop(r);
}

/* --- Before it */

int run_refuse(const struct command *command, const char *why)
{
    if (command->format == REPORT_NAGIOS)
        report_unknown(stdout, why);
    fflush(stdout); /* a plugin's line is to be the first also where both streams are one */
    fprintf(stderr, "echoprobe: %s\n", why);
    return RUN_UNKNOWN;
}

/* A single probe has nothing to tell when it is interrupted. */
static int watch_signals(struct run *r)
{
    static const int numbers[] = { SIGINT, SIGTERM };
    for (size_t i = 0; i < 2 && r->command->mode != REPORT_ONCE; i++) {
        r->signals[i] = evsignal_new(r->dialer.base, numbers[i], on_signal, r);
        if (r->signals[i] == NULL || event_add(r->signals[i], NULL) < 0)
            return -1;
    }
    return 0;
}

static int load_tls(struct run *r, char *err, size_t errlen)
{
    const struct command *c = r->command;
    struct probe_settings *settings = &r->settings.probe;
    settings->tls_settings = (struct tlsclient_settings){
        .insecure = c->insecure, .ca = c->ca, .cert = c->cert, .key = c->key, .sni = c->sni
    };
    for (size_t i = 0; i < c->target_count; i++)
        if (target_is_tls(&c->targets[i])) {
            settings->tls = tlsclient_load(&settings->tls_settings, err, errlen);
            return settings->tls != NULL ? 0 : -1;
        }
    return 0;
}

static const struct command *running; /* for these callbacks, which take no argument */

/* What libevent warns of, such as a silent name server, becomes a failure of a probe, and is told as one. */
static void on_libevent_log(int severity, const char *text)
{
    if (severity == EVENT_LOG_ERR)
        run_refuse(running, text);
}

/* libevent gives up without asking where it cannot begin, and has said why. */
static void on_libevent_fatal(int error)
{
    (void)error;
    _exit(RUN_UNKNOWN);
}

static struct event_base *base_new(void)
{
    struct event_config *config = event_config_new();
    struct event_base *base = NULL;
    if (config != NULL) {
        event_config_set_flag(config, EVENT_BASE_FLAG_NOLOCK | EVENT_BASE_FLAG_PRECISE_TIMER);
        base = event_base_new_with_config(config);
        event_config_free(config);
    }
    return base;
}

static void settings_fill(struct run *r)
{
    const struct command *c = r->command;
    bool once = c->mode == REPORT_ONCE;
    r->dialer.proxy_version = c->proxy_v1 ? 1 : (c->proxy_v2 ? 2 : 0);
    r->dialer.source = c->source;
    r->settings.probe.dialer = &r->dialer;
    r->settings.probe.timeout = c->timeout;
    r->settings.probe.connect_timeout = c->connect_timeout;
    r->settings.wish = (struct answer_wish){ c->expect_status, c->expect, c->max_size };
    r->settings.message = c->message;
    r->settings.size = c->size;
    r->settings.half_close = c->half_close;
    r->settings.keep = once && !c->quiet && c->format == REPORT_TEXT;
    r->settings.count = once ? 1 : c->count;
    r->settings.interval = c->interval;
    r->settings.probed = on_probed;
    r->settings.ended = on_ended;
    r->settings.arg = r;
    r->report = (struct report){ stdout, c->format, c->mode, { c->warning, c->critical }, c->timeout };
}

static void load_settings_fill(struct run *r)
{
    const struct command *c = r->command;
    r->load_settings = (struct load_settings){ .probe = r->settings.probe,
                                               .wish = r->settings.wish,
                                               .connections = c->connections,
                                               .pipeline = c->pipeline,
                                               .size = c->size,
                                               .rate = c->rate,
                                               .duration = c->duration,
                                               .progress = on_progress,
                                               .ended = on_ended,
                                               .arg = r };
}

/* Many connections need many descriptors; and what cannot be written should be known before. */
static int prepare_load(struct run *r, char *err, size_t errlen)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
        limit.rlim_cur = limit.rlim_max;
        setrlimit(RLIMIT_NOFILE, &limit);
    }
    load_settings_fill(r);
    if (r->command->plot == NULL)
        return 0;
    r->plot = fopen(r->command->plot, "we");
    if (r->plot == NULL)
        snprintf(err, errlen, "--hdrplot: %s: %s", r->command->plot, failure_errno(errno));
    return r->plot != NULL ? 0 : -1;
}

static int run_prepare(struct run *r, char *err, size_t errlen)
{
    size_t count = r->command->target_count;
    settings_fill(r);
    r->dialer.base = base_new();
    r->summaries = calloc(count, sizeof *r->summaries);
    r->series = calloc(count, sizeof *r->series);
    r->answers = calloc(count, sizeof *r->answers);
    snprintf(err, errlen, "out of memory");
    r->loads = calloc(count, sizeof(struct load *));
    if (r->loads == NULL || r->dialer.base == NULL || r->summaries == NULL || r->series == NULL || r->answers == NULL ||
        watch_signals(r) < 0)
        return -1;
    for (size_t i = 0; i < count; i++)
        if (summary_init(&r->summaries[i], &r->command->targets[i]) < 0)
            return -1;
    if (load_tls(r, err, errlen) < 0)
        return -1;
    return r->command->mode == REPORT_LOAD ? prepare_load(r, err, errlen) : 0;
}

static int run_start(struct run *r)
{
    bool started = true;
    for (size_t i = 0; i < r->command->target_count && started; i++, r->running++) {
        if (r->command->mode == REPORT_LOAD) {
            r->loads[i] = load_start(&r->load_settings, &r->summaries[i]);
            started = r->loads[i] != NULL;
        } else {
            started = series_start(&r->series[i], &r->settings, &r->summaries[i]) == 0;
        }
    }
    return started ? 0 : -1;
}

/* --- After it */

static void print_answers(const struct run *r)
{
    for (size_t i = 0; i < r->command->target_count; i++)
        screen_write(stdout, r->answers[i]);
}

/* Says why the verdict of each target is what it is, and returns the worst. */
static int judge(const struct run *r)
{
    int worst = VERDICT_OK;
    for (size_t i = 0; i < r->command->target_count; i++) {
        const struct summary *s = &r->summaries[i];
        int verdict = (int)summary_verdict(s, &r->report.limits);
        char why[512];
        summary_explain(s, &r->report.limits, why, sizeof why);
        if (why[0] != '\0')
            complain(s->target, why);
        worst = verdict > worst ? verdict : worst;
    }
    return worst;
}

/* False when it could not be written. */
static bool write_plot(struct run *r)
{
    FILE *plot = r->plot;
    r->plot = NULL;
    if (plot == NULL)
        return true;
    histogram_plot(r->summaries[0].latency, plot);
    bool written = ferror(plot) == 0;
    return fclose(plot) == 0 && written;
}

static int run_tell(struct run *r)
{
    screen_clear();
    print_answers(r);
    report_summaries(&r->report, r->summaries, r->command->target_count);
    int status = judge(r);
    const char *name = r->command->plot;
    if (write_plot(r)) {
        name = "standard output";
        if (fflush(stdout) == 0 && ferror(stdout) == 0)
            return status;
        errno = r->unwritten != 0 ? r->unwritten : errno;
    }
    fprintf(stderr, "echoprobe: %s: %s\n", name, failure_errno(errno));
    return RUN_UNKNOWN;
}

static void run_free(struct run *r)
{
    for (size_t i = 0; i < r->command->target_count; i++) {
        if (r->series != NULL)
            series_free(&r->series[i]);
        if (r->loads != NULL)
            load_free(r->loads[i]);
        if (r->summaries != NULL)
            summary_free(&r->summaries[i]);
        if (r->answers != NULL)
            free((char *)r->answers[i].data); /* made by answer_copy() */
    }
    if (r->plot != NULL)
        fclose(r->plot);
    free(r->series);
    free(r->loads);
    free(r->summaries);
    free(r->answers);
    for (size_t i = 0; i < 2; i++)
        if (r->signals[i] != NULL)
            event_free(r->signals[i]);
    dialer_free(&r->dialer);
    SSL_CTX_free(r->settings.probe.tls);
    if (r->dialer.base != NULL) {
        /* libevent frees bufferevents from the loop only */
        event_base_loop(r->dialer.base, EVLOOP_NONBLOCK);
        event_base_free(r->dialer.base);
    }
}

int run_command(const struct command *command)
{
    struct run r = { .command = command };
    char err[512];
    int status;
    running = command;
    event_set_log_callback(on_libevent_log);
    event_set_fatal_callback(on_libevent_fatal);
    signal(SIGPIPE, SIG_IGN); /* OpenSSL writes without MSG_NOSIGNAL */
    if (run_prepare(&r, err, sizeof err) < 0 || run_start(&r) < 0) {
        status = run_refuse(command, err);
    } else {
        event_base_dispatch(r.dialer.base);
        status = run_tell(&r);
    }
    run_free(&r);
    return status;
}
