#include "worker.h"

#include "access.h"
#include "log.h"

#include <errno.h>
#include <event2/event.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

#define MILLISECOND 1000000 /* ns */

/* How long a listener that is muted waits for handshakes, and a stop for requests, that are under way. */
static const struct timeval grace = { .tv_usec = 100000 };

enum wish { WISH_NONE, WISH_DRAIN, WISH_ABORT };

/* What the server's thread asks for; guarded by the lock. */
struct orders {
    struct worker_plan *plan; /* NULL: as before */
    bool turn;                /* the access log, to */
    int sink;                 /* this */
    enum wish wish;           /* only grows */
};

struct worker {
    pthread_t thread;
    struct event_base *base;
    struct event *wake, *beat, *grace;
    int wake_fd;
    pthread_mutex_t lock;
    struct orders orders;
    struct worker_plan *plan; /* what is served; NULL: nothing */
    struct listener **muted;  /* to be closed after the grace */
    size_t muted_count;
    bool untold; /* that the plan is taken */
    bool draining, failed;
    struct conn_pool pool;
    struct access *access;
    struct worker_metrics metrics;
    _Atomic int64_t beaten; /* when the loop gave its last sign of life */
    void (*ended)(void *);
    void *ended_arg;
};

/* --- In the worker's thread ------------------------------------------------------------------------------------- */

/* Nothing uses the plan before any more. */
static void tell_taken(struct worker *worker)
{
    if (worker->untold)
        worker->plan->taken(worker->plan->arg);
    worker->untold = false;
}

static void close_muted(struct worker *worker)
{
    for (size_t i = 0; i < worker->muted_count; i++)
        listener_close(worker->muted[i]);
    worker->muted_count = 0;
    tell_taken(worker);
}

/* Takes a listener out of service: its socket closes at once, or after a grace. */
static void retire(struct worker *worker, struct listener *listener)
{
    struct listener **grown = NULL;
    if (listener_mute(listener))
        grown = realloc(worker->muted, (worker->muted_count + 1) * sizeof(struct listener *));
    if (grown == NULL) {
        listener_close(listener);
        return;
    }
    worker->muted = grown;
    worker->muted[worker->muted_count++] = listener;
    evtimer_add(worker->grace, &grace);
}

static bool plan_has(const struct worker_plan *plan, const struct listener *listener)
{
    for (size_t i = 0; plan != NULL && i < plan->count; i++)
        if (plan->sockets[i].listener == listener)
            return true;
    return false;
}

static void start_or_set(struct worker *worker, const struct worker_socket *socket)
{
    if (plan_has(worker->plan, socket->listener))
        listener_set(socket->listener, socket->terms);
    else if (listener_start(socket->listener, &worker->pool, socket->terms) < 0)
        log_event(LEVEL_ERROR, "cannot accept", log_text("listener", socket->terms->conn.context.listener),
                  log_errno(errno));
}

static void serve(struct worker *worker, struct worker_plan *plan)
{
    struct worker_plan *before = worker->plan;
    for (size_t i = 0; i < plan->count; i++)
        start_or_set(worker, &plan->sockets[i]);
    for (size_t i = 0; before != NULL && i < before->count; i++)
        if (!plan_has(plan, before->sockets[i].listener))
            retire(worker, before->sockets[i].listener);
    worker->plan = plan;
    worker->untold = true;
    free(before);
    if (worker->muted_count == 0)
        tell_taken(worker);
}

/* No listener is left: what is open finishes. */
static void drain_connections(struct worker *worker)
{
    conn_pool_drain(&worker->pool);
    event_base_loopbreak(worker->base);
}

/* What is on its way, a handshake or a request, has the grace to arrive. */
static void drain(struct worker *worker)
{
    worker->draining = true;
    for (size_t i = 0; worker->plan != NULL && i < worker->plan->count; i++)
        retire(worker, worker->plan->sockets[i].listener);
    if (worker->plan != NULL)
        worker->plan->count = 0;
    conn_pool_announce(&worker->pool);
    if (worker->muted_count == 0 && worker->pool.count == 0)
        drain_connections(worker);
    else
        evtimer_add(worker->grace, &grace);
}

static void on_grace(evutil_socket_t fd, short what, void *arg)
{
    struct worker *worker = arg;
    (void)fd;
    (void)what;
    close_muted(worker);
    if (worker->draining)
        drain_connections(worker);
}

static void on_wake(evutil_socket_t fd, short what, void *arg)
{
    struct worker *worker = arg;
    uint64_t count;
    (void)what;
    if (read(fd, &count, sizeof count) < 0)
        return;
    pthread_mutex_lock(&worker->lock);
    struct orders orders = worker->orders;
    worker->orders = (struct orders){ .wish = orders.wish };
    pthread_mutex_unlock(&worker->lock);
    if (orders.turn)
        access_turn(worker->access, orders.sink);
    if (orders.plan != NULL)
        serve(worker, orders.plan);
    if (orders.wish != WISH_NONE && !worker->draining)
        drain(worker);
    if (orders.wish == WISH_ABORT) {
        close_muted(worker);
        conn_pool_abort(&worker->pool);
        event_base_loopbreak(worker->base);
    }
}

/* The timer is set anew each time, so that lateness does not add up. */
static void on_beat(evutil_socket_t fd, short what, void *arg)
{
    static const struct timeval pause = { .tv_sec = WORKER_BEAT / 1000,
                                          .tv_usec = (suseconds_t)(WORKER_BEAT % 1000) * 1000 };
    struct worker *worker = arg;
    int64_t now = deadline_now();
    (void)fd;
    (void)what;
    histogram_add(&worker->metrics.lag, now - atomic_load(&worker->beaten) - (int64_t)WORKER_BEAT * MILLISECOND, 1);
    atomic_store(&worker->beaten, now);
    evtimer_add(worker->beat, &pause);
}

static void *worker_run(void *arg)
{
    struct worker *worker = arg;
    worker->failed = event_base_dispatch(worker->base) < 0;
    /* draining: each round may be the one that closed the last connection */
    while (!worker->failed && (worker->pool.count > 0 || worker->muted_count > 0))
        worker->failed = event_base_loop(worker->base, EVLOOP_ONCE) < 0;
    if (worker->failed)
        log_event(LEVEL_ERROR, "event loop failed", log_errno(errno));
    atomic_store(&worker->beaten, INT64_MAX); /* a loop that has ended does not stand still */
    worker->ended(worker->ended_arg);
    return NULL;
}

/* --- In the server's thread ------------------------------------------------------------------------------------- */

static void worker_free(struct worker *worker)
{
    close_muted(worker);
    for (size_t i = 0; worker->plan != NULL && i < worker->plan->count; i++)
        listener_close(worker->plan->sockets[i].listener);
    conn_pool_abort(&worker->pool);
    conn_pool_free(&worker->pool);
    access_free(worker->access);
    struct event *events[] = { worker->wake, worker->beat, worker->grace };
    for (size_t i = 0; i < sizeof events / sizeof events[0]; i++)
        if (events[i] != NULL)
            event_free(events[i]);
    if (worker->base != NULL)
        event_base_free(worker->base);
    if (worker->wake_fd >= 0)
        close(worker->wake_fd);
    pthread_mutex_destroy(&worker->lock);
    free(worker->plan);
    free(worker->muted);
    free(worker);
}

/* The event base is private to one thread, so it goes without locks. */
static struct event_base *new_base(void)
{
    struct event_config *config = event_config_new();
    struct event_base *base = NULL;
    if (config != NULL) {
        event_config_set_flag(config, EVENT_BASE_FLAG_NOLOCK);
        base = event_base_new_with_config(config);
        event_config_free(config);
    }
    return base;
}

static int worker_init(struct worker *worker)
{
    static const struct timeval at_once = { 0 };
    worker->wake_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    worker->base = new_base();
    if (worker->wake_fd < 0 || worker->base == NULL)
        return -1;
    worker->access = access_new(worker->base);
    worker->wake = event_new(worker->base, worker->wake_fd, EV_READ | EV_PERSIST, on_wake, worker);
    worker->beat = evtimer_new(worker->base, on_beat, worker);
    worker->grace = evtimer_new(worker->base, on_grace, worker);
    if (worker->access == NULL || worker->wake == NULL || worker->beat == NULL || worker->grace == NULL ||
        event_add(worker->wake, NULL) < 0 || evtimer_add(worker->beat, &at_once) < 0 ||
        conn_pool_init(&worker->pool, worker->base) < 0)
        return -1;
    atomic_store(&worker->beaten, deadline_now() - (int64_t)WORKER_BEAT * MILLISECOND);
    errno = pthread_create(&worker->thread, NULL, worker_run, worker);
    return errno == 0 ? 0 : -1;
}

struct worker *worker_start(void (*ended)(void *arg), void *arg)
{
    struct worker *worker = calloc(1, sizeof *worker);
    if (worker == NULL)
        return NULL;
    worker->wake_fd = -1;
    worker->ended = ended;
    worker->ended_arg = arg;
    pthread_mutex_init(&worker->lock, NULL);
    if (worker_init(worker) < 0) {
        int error = errno;
        worker_free(worker);
        errno = error;
        return NULL;
    }
    return worker;
}

struct access *worker_access(struct worker *worker)
{
    return worker->access;
}

const struct worker_metrics *worker_metrics(const struct worker *worker)
{
    return &worker->metrics;
}

int64_t worker_beat(const struct worker *worker)
{
    return atomic_load(&worker->beaten);
}

static void worker_wake(struct worker *worker)
{
    uint64_t one = 1;
    pthread_mutex_unlock(&worker->lock);
    if (write(worker->wake_fd, &one, sizeof one) < 0)
        log_event(LEVEL_ERROR, "a worker cannot be woken", log_errno(errno));
}

void worker_serve(struct worker *worker, struct worker_plan *plan)
{
    pthread_mutex_lock(&worker->lock);
    worker->orders.plan = plan;
    worker_wake(worker);
}

void worker_turn_access(struct worker *worker, int sink)
{
    pthread_mutex_lock(&worker->lock);
    int missed = worker->orders.turn ? worker->orders.sink : -1;
    worker->orders.turn = true;
    worker->orders.sink = sink;
    worker_wake(worker);
    if (missed >= 0)
        close(missed);
}

static void worker_wish(struct worker *worker, enum wish wish)
{
    pthread_mutex_lock(&worker->lock);
    worker->orders.wish = wish;
    worker_wake(worker);
}

void worker_drain(struct worker *worker)
{
    worker_wish(worker, WISH_DRAIN);
}

void worker_abort(struct worker *worker)
{
    worker_wish(worker, WISH_ABORT);
}

int worker_join(struct worker *worker)
{
    pthread_join(worker->thread, NULL);
    int result = worker->failed ? -1 : 0;
    worker_free(worker);
    return result;
}
