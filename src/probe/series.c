#include "probe/series.h"

#include "deadline.h"
#include "probe/echo.h"
#include "probe/timer.h"

#include <event2/event.h>
#include <stdlib.h>
#include <string.h>

static void series_end(struct series *s)
{
    s->over = true;
    s->summary->elapsed = deadline_now() - s->begun;
    s->settings->ended(s->settings->arg);
}

/* Counts a probe that has ended. */
static void series_count(struct series *s, const struct probe_result *result)
{
    struct summary *summary = s->summary;
    if (result->failure.class != FAILURE_NONE) {
        summary_failure(summary, &result->failure, 1);
    } else {
        summary_success(summary, result->total);
        summary->phases = *result;
        summary->phases.answer = NULL;
    }
    if (result->answer != NULL && result->answer->status != 0)
        summary->status = result->answer->status;
    s->settings->probed(s->settings->arg, summary, s->seq, result);
}

static void on_probed(void *arg, const struct probe_result *result)
{
    struct series *s = arg;
    s->probe = NULL;
    series_count(s, result);
    if (s->over)
        return;
    if (s->seq == s->settings->count) {
        series_end(s);
        return;
    }
    s->due += s->settings->interval;
    if (s->due < deadline_now())
        s->due = deadline_now();
    timer_set(s->timer, s->due - deadline_now());
}

/* What the next probe sends and awaits; NULL when memory ran out. */
static struct exchange *series_exchange(struct series *s)
{
    const struct series_settings *settings = s->settings;
    const struct target *t = s->summary->target;
    size_t len = 0;
    free(s->request);
    if (target_is_http(t))
        s->request = answer_request(t, &len);
    else if (settings->message == NULL)
        s->request = echo_nonce(s->seq, settings->size, &len);
    else {
        s->request = strdup(settings->message);
        len = strlen(settings->message);
    }
    if (s->request == NULL)
        return NULL;
    struct bytes request = { .data = s->request, .len = len };
    return target_is_http(t) ? answer_new(request, &settings->wish, settings->keep)
                             : echo_new(request, settings->half_close, settings->wish.expect);
}

static void on_due(evutil_socket_t fd, short what, void *arg)
{
    struct series *s = arg;
    (void)fd;
    (void)what;
    s->seq++;
    struct exchange *exchange = series_exchange(s);
    if (exchange != NULL)
        s->probe = probe_start(&s->settings->probe, s->summary->target, exchange, on_probed, s);
    if (s->probe != NULL)
        return;
    struct probe_result result = { .failure = { .class = FAILURE_SYSTEM, .text = "out of memory" } };
    on_probed(s, &result);
}

int series_start(struct series *s, const struct series_settings *settings, struct summary *summary)
{
    *s = (struct series){ .settings = settings, .summary = summary, .begun = deadline_now() };
    s->due = s->begun;
    s->timer = evtimer_new(settings->probe.dialer->base, on_due, s);
    if (s->timer == NULL)
        return -1;
    timer_set(s->timer, s->due - deadline_now());
    return 0;
}

void series_stop(struct series *s)
{
    if (s->over)
        return;
    probe_cancel(s->probe);
    s->probe = NULL;
    evtimer_del(s->timer);
    s->summary->interrupted = true;
    series_end(s);
}

void series_free(struct series *s)
{
    if (s->timer != NULL)
        event_free(s->timer);
    s->timer = NULL;
    free(s->request);
    s->request = NULL;
}
