#include "worker.h"

#include "access.h"
#include "log.h"

#include <errno.h>
#include <event2/event.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

enum wish { WISH_NONE, WISH_DRAIN, WISH_ABORT };

struct worker {
    pthread_t thread;
    struct event_base *base;
    struct event *wake;
    int wake_fd;
    _Atomic enum wish wish; /* only grows */
    bool draining;
    bool failed;
    struct conn_pool pool;
    struct access *access;
    struct listener **listeners;
    size_t count;
    void (*done)(void *);
    void *done_arg;
};

static void close_listeners(struct worker *worker)
{
    for (size_t i = 0; i < worker->count; i++)
        listener_close(worker->listeners[i]);
    worker->count = 0;
}

static void on_wake(evutil_socket_t fd, short what, void *arg)
{
    struct worker *worker = arg;
    uint64_t count;
    (void)what;
    if (read(fd, &count, sizeof count) < 0)
        return;
    if (!worker->draining) {
        worker->draining = true;
        close_listeners(worker);
        conn_pool_drain(&worker->pool);
        event_base_loopbreak(worker->base);
    }
    if (atomic_load(&worker->wish) == WISH_ABORT)
        conn_pool_abort(&worker->pool);
}

static void *worker_run(void *arg)
{
    struct worker *worker = arg;
    worker->failed = event_base_dispatch(worker->base) < 0;
    /* draining: each round may be the one that closed the last connection */
    while (!worker->failed && worker->pool.count > 0)
        worker->failed = event_base_loop(worker->base, EVLOOP_ONCE) < 0;
    if (worker->failed)
        log_event(LEVEL_ERROR, "event loop failed", log_errno(errno));
    worker->done(worker->done_arg);
    return NULL;
}

static void worker_free(struct worker *worker)
{
    close_listeners(worker);
    conn_pool_abort(&worker->pool);
    conn_pool_free(&worker->pool);
    access_free(worker->access);
    if (worker->wake != NULL)
        event_free(worker->wake);
    if (worker->base != NULL)
        event_base_free(worker->base);
    if (worker->wake_fd >= 0)
        close(worker->wake_fd);
    free(worker->listeners);
    free(worker);
}

static int worker_listen(struct worker *worker, const struct worker_settings *settings)
{
    worker->listeners = calloc(settings->count, sizeof(struct listener *));
    for (size_t i = 0; i < settings->count; i++) {
        const struct worker_socket *socket = &settings->sockets[i];
        struct listener *listener = NULL;
        if (worker->listeners != NULL)
            listener = listener_start(&worker->pool, socket->fd, socket->settings, settings->admission);
        if (listener == NULL)
            return -1;
        worker->listeners[worker->count++] = listener;
    }
    return 0;
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

static int worker_init(struct worker *worker, const struct worker_settings *settings)
{
    worker->done = settings->done;
    worker->done_arg = settings->done_arg;
    worker->wake_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    worker->base = new_base();
    if (worker->wake_fd < 0 || worker->base == NULL)
        return -1;
    if (settings->access_sink >= 0 && (worker->access = access_new(worker->base, settings->access_sink)) == NULL)
        return -1;
    worker->wake = event_new(worker->base, worker->wake_fd, EV_READ | EV_PERSIST, on_wake, worker);
    if (worker->wake == NULL || event_add(worker->wake, NULL) < 0 ||
        conn_pool_init(&worker->pool, worker->base, worker->access) < 0 || worker_listen(worker, settings) < 0)
        return -1;
    errno = pthread_create(&worker->thread, NULL, worker_run, worker);
    return errno == 0 ? 0 : -1;
}

struct worker *worker_start(const struct worker_settings *settings)
{
    struct worker *worker = calloc(1, sizeof *worker);
    if (worker == NULL)
        return NULL;
    worker->wake_fd = -1;
    if (worker_init(worker, settings) < 0) {
        int error = errno;
        worker_free(worker);
        errno = error;
        return NULL;
    }
    return worker;
}

static void worker_wish(struct worker *worker, enum wish wish)
{
    uint64_t one = 1;
    atomic_store(&worker->wish, wish);
    if (write(worker->wake_fd, &one, sizeof one) < 0)
        log_event(LEVEL_ERROR, "a worker cannot be woken", log_errno(errno));
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
