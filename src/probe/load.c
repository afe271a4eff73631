#include "probe/load.h"

#include "deadline.h"
#include "probe/lane.h"
#include "probe/timer.h"

#include <event2/event.h>
#include <inttypes.h>
#include <stdlib.h>

#define SECOND    INT64_C(1000000000)
#define RETRY     (SECOND / 10) /* a failed connection is made again after this */
#define SWEEP_MAX (SECOND / 10) /* time limits are looked at so often, or more often when they are short */
#define SWEEP_MIN (SECOND / 200)

struct load {
    const struct load_settings *settings;
    struct summary *summary;
    struct lanes lanes;
    struct event *tick;  /* at a rate: the next request is due */
    struct event *sweep; /* time limits, retries, progress, the end */
    bool running, over;  /* running: all connections were tried once, and time is counted */
    size_t settled;      /* lanes tried, until it runs */
    int64_t begin, end;  /* of the sending */
    int64_t told;        /* progress */
    uint64_t issued;     /* at a rate: requests begun */
    size_t turn;         /* at a rate: the lane to be asked first */
};

static void load_over(struct load *l)
{
    if (l->over)
        return;
    l->over = true;
    l->summary->elapsed = l->running ? deadline_now() - l->begin : 0;
    l->summary->status = l->lanes.status;
    evtimer_del(l->tick);
    evtimer_del(l->sweep);
    l->settings->ended(l->settings->arg);
}

/* --- When to send */

/* When request number n is due at a rate; exact for 292 years of nanoseconds at any rate. */
static int64_t load_due(const struct load *l, uint64_t n)
{
    uint64_t rate = l->settings->rate;
    return l->begin + (int64_t)(n / rate) * SECOND + (int64_t)(n % rate * (uint64_t)SECOND / rate);
}

/* At a rate: how many are to be sent altogether, which are those due before the end; the first is due at the begin. */
static uint64_t load_planned(const struct load *l)
{
    uint64_t time = (uint64_t)(l->end - l->begin), second = (uint64_t)SECOND, rate = l->settings->rate;
    return time / second * rate + (time % second * rate + second - 1) / second;
}

/* Whether another request is to be sent now, and when that should have been. */
static bool load_take(struct load *l, int64_t now, int64_t *intended)
{
    *intended = now;
    if (!l->running || l->over)
        return false;
    if (l->settings->rate == 0)
        return now < l->end;
    if (l->issued >= load_planned(l) || now >= l->end + l->settings->probe.timeout)
        return false;
    *intended = load_due(l, l->issued);
    if (*intended > now)
        return false;
    l->issued++;
    return true;
}

static void load_feed(struct load *l, struct lane *lane, int64_t now)
{
    int64_t intended;
    unsigned room = lane_room(lane);
    bool begun = false;
    for (; room > 0 && load_take(l, now, &intended); room--) {
        lane_begin(lane, intended, now);
        begun = true;
    }
    if (begun)
        lane_send(lane);
}

/* At a rate: gives what is due to lanes in turn, and waits for what is due next. */
static void on_tick(evutil_socket_t fd, short what, void *arg)
{
    struct load *l = arg;
    int64_t now = deadline_now(), intended;
    (void)fd;
    (void)what;
    for (size_t full = 0; full < l->lanes.count;) {
        struct lane *lane = &l->lanes.first[l->turn];
        l->turn = l->turn + 1 < l->lanes.count ? l->turn + 1 : 0;
        full = lane_room(lane) == 0 ? full + 1 : 0;
        if (full > 0)
            continue;
        if (!load_take(l, now, &intended))
            break;
        lane_begin(lane, intended, now);
        lane_send(lane);
    }
    /* what is overdue now waits for the next lane that has room */
    if (!l->over && l->issued < load_planned(l)) {
        int64_t due = load_due(l, l->issued);
        timer_set(l->tick, due > now ? due - now : SWEEP_MIN);
    }
}

/* --- Begin and end */

/* All connections have been tried: the time begins to count. */
static void load_run(struct load *l)
{
    int64_t now = deadline_now();
    l->running = true;
    l->begin = l->told = now;
    l->end = now + l->settings->duration;
    if (l->settings->rate > 0)
        timer_set(l->tick, 0);
    for (size_t i = 0; i < l->lanes.count && l->settings->rate == 0; i++)
        load_feed(l, &l->lanes.first[i], now);
}

/* The first connection says where the others go, and whether they need to be tried at all. */
static void load_settle(struct load *l)
{
    if (l->running || l->over)
        return;
    l->settled++;
    for (size_t i = 1; i < l->lanes.count && l->settled == 1; i++)
        lane_open(&l->lanes.first[i]);
    if (l->settled == l->lanes.count)
        load_run(l);
}

static bool load_is_idle(const struct load *l)
{
    for (size_t i = 0; i < l->lanes.count; i++)
        if (l->lanes.first[i].under_way > 0)
            return false;
    return true;
}

/* After the end: waits for what is under way; what was due and could not be sent in time is lost. */
static void load_check_end(struct load *l, int64_t now)
{
    struct failure f = { 0 };
    uint64_t planned = l->settings->rate > 0 ? load_planned(l) : 0;
    bool late = now >= l->end + l->settings->probe.timeout;
    if (!l->running || now < l->end || !load_is_idle(l) || (l->issued < planned && !late))
        return;
    failure_set(&f, FAILURE_TIMEOUT, "not sent within %" PRId64 " ms after the end",
                l->settings->probe.timeout / 1000000);
    if (l->issued < planned)
        summary_failure(l->summary, &f, planned - l->issued);
    load_over(l);
}

/* --- What lanes tell */

static void on_answered(void *arg, int64_t intended, int64_t now)
{
    struct load *l = arg;
    int64_t latency = now - intended, limit = l->settings->probe.timeout;
    struct failure f = { 0 };
    if (latency <= limit) {
        summary_success(l->summary, latency);
        return;
    }
    failure_set(&f, FAILURE_TIMEOUT, "answered, but not within %" PRId64 " ms of when it was to be sent",
                limit / 1000000);
    summary_late(l->summary, latency, &f);
}

static void on_ready(void *arg, struct lane *lane, int64_t now)
{
    struct load *l = arg;
    if (!l->running)
        load_settle(l);
    else
        load_feed(l, lane, now);
}

static void on_failed(void *arg, struct lane *lane, uint64_t requests, const struct failure *f)
{
    struct load *l = arg;
    lane->retry = deadline_now() + RETRY;
    if (l->over)
        return;
    summary_failure(l->summary, f, requests);
    if (!l->running && l->settled == 0) /* the very first connection */
        load_over(l);
    else
        load_settle(l);
}

/* --- The sweep */

static void sweep_lane(struct load *l, struct lane *lane, int64_t now)
{
    const struct probe_settings *settings = &l->settings->probe;
    bool handshake = !lane->open && lane->fd >= 0;
    char text[64];
    if (lane->under_way > 0 && now - lane->requests[lane->oldest].begun > settings->timeout) {
        snprintf(text, sizeof text, "no whole answer within %" PRId64 " ms", settings->timeout / 1000000);
        lane_fail(lane, FAILURE_TIMEOUT, text);
    } else if (handshake && now - lane->dialled > settings->connect_timeout) {
        snprintf(text, sizeof text, "no TLS handshake within %" PRId64 " ms", settings->connect_timeout / 1000000);
        lane_fail(lane, FAILURE_TIMEOUT, text);
    } else if (lane->retry != 0 && now >= lane->retry && l->running && now < l->end) {
        lane->retry = 0;
        lane_open(lane);
    }
}

static void on_sweep(evutil_socket_t fd, short what, void *arg)
{
    struct load *l = arg;
    int64_t now = deadline_now(), pause = l->settings->probe.connect_timeout / 8;
    (void)fd;
    (void)what;
    for (size_t i = 0; i < l->lanes.count && !l->over; i++)
        sweep_lane(l, &l->lanes.first[i], now);
    if (l->running && !l->over && now - l->told >= SECOND) {
        l->told = now;
        l->summary->elapsed = now - l->begin;
        l->settings->progress(l->settings->arg, l->summary);
    }
    load_check_end(l, now);
    if (l->over)
        return;
    pause = pause < SWEEP_MIN ? SWEEP_MIN : pause;
    pause = pause > SWEEP_MAX ? SWEEP_MAX : pause;
    if (l->running && l->end > now && l->end - now < pause)
        pause = l->end - now;
    else if (l->running && l->end <= now)
        pause = SWEEP_MIN;
    timer_set(l->sweep, pause);
}

struct load *load_start(const struct load_settings *settings, struct summary *summary)
{
    struct load *l = calloc(1, sizeof *l);
    if (l == NULL)
        return NULL;
    *l = (struct load){ .settings = settings, .summary = summary };
    l->lanes = (struct lanes){ .settings = &settings->probe,
                               .wish = &settings->wish,
                               .target = summary->target,
                               .pipeline = (unsigned)settings->pipeline,
                               .arg = l,
                               .answered = on_answered,
                               .ready = on_ready,
                               .failed = on_failed };
    l->tick = evtimer_new(settings->probe.dialer->base, on_tick, l);
    l->sweep = evtimer_new(settings->probe.dialer->base, on_sweep, l);
    if (l->tick == NULL || l->sweep == NULL || lanes_init(&l->lanes, settings->connections, settings->size) < 0) {
        load_free(l);
        return NULL;
    }
    timer_set(l->sweep, 0);
    lane_open(&l->lanes.first[0]);
    return l;
}

void load_stop(struct load *l)
{
    int64_t now = deadline_now();
    l->summary->interrupted = !l->over;
    if (!l->running)
        load_over(l);
    else if (now < l->end)
        l->end = now;
}

void load_free(struct load *l)
{
    if (l == NULL)
        return;
    l->over = true;
    lanes_free(&l->lanes);
    if (l->tick != NULL)
        event_free(l->tick);
    if (l->sweep != NULL)
        event_free(l->sweep);
    free(l);
}
