#include "server.h"

#include "access.h"
#include "conn.h"
#include "listener.h"
#include "log.h"
#include "worker.h"

#include <errno.h>
#include <event2/event.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <unistd.h>
#ifdef HAVE_LIBSYSTEMD
#include <systemd/sd-daemon.h>
#endif

#define DESCRIPTORS_SPARE  64 /* beside one a connection and one a listening socket, */
#define DESCRIPTORS_WORKER 4  /* and these for the event loop of each worker */
#define THREADS_MAX        256

struct server {
    const struct config *config;
    struct event_base *base;
    struct event *signalled, *worker_done, *drain_timer;
    int signal_fd; /* SIGTERM and SIGINT */
    int done_fd;   /* workers that have ended */
    struct admission admission;
    int access_sink;
    struct conn_settings *settings; /* one a listener section */
    struct worker_socket *sockets;  /* of worker 0, then of worker 1, ... */
    size_t socket_count;            /* a worker */
    struct worker **workers;
    size_t worker_count, running;
    bool draining;
};

/* Tells the service manager, if there is one. */
static void notify(const char *state)
{
#ifdef HAVE_LIBSYSTEMD
    sd_notify(0, state);
#else
    (void)state;
#endif
}

static size_t thread_count(const struct server_settings *settings)
{
    cpu_set_t cpus;
    if (settings->threads > 0)
        return (size_t)settings->threads;
    long cores = sched_getaffinity(0, sizeof cpus, &cpus) == 0 ? CPU_COUNT(&cpus) : sysconf(_SC_NPROCESSORS_ONLN);
    return cores < 1 ? 1 : cores > THREADS_MAX ? THREADS_MAX : (size_t)cores;
}

/* Raises the soft limit on descriptors to what the configuration may need. */
static void raise_descriptor_limit(const struct server *server)
{
    struct rlimit limit;
    rlim_t need = server->admission.max_connections +
                  (server->socket_count + DESCRIPTORS_WORKER) * server->worker_count + DESCRIPTORS_SPARE;
    if (getrlimit(RLIMIT_NOFILE, &limit) < 0 || limit.rlim_cur >= need)
        return;
    limit.rlim_cur = limit.rlim_max < need ? limit.rlim_max : need;
    if (setrlimit(RLIMIT_NOFILE, &limit) < 0 || limit.rlim_cur < need)
        log_event(LEVEL_WARNING, "too few descriptors for max_connections", log_number("limit", limit.rlim_cur),
                  log_number("needed", need));
}

static void on_drain_timeout(evutil_socket_t fd, short what, void *arg)
{
    struct server *server = arg;
    (void)fd;
    (void)what;
    log_event(LEVEL_NOTICE, "drain timed out", log_number("connections", atomic_load(&server->admission.open)));
    for (size_t i = 0; i < server->worker_count; i++)
        worker_abort(server->workers[i]);
}

static void server_drain(struct server *server)
{
    uint64_t ms = config_server(server->config)->drain_timeout;
    struct timeval timeout = { .tv_sec = (time_t)(ms / 1000), .tv_usec = (suseconds_t)(ms % 1000 * 1000) };
    server->draining = true;
    notify("STOPPING=1");
    log_event(LEVEL_NOTICE, "draining", log_number("connections", atomic_load(&server->admission.open)),
              log_duration("timeout", (int64_t)ms * 1000000));
    evtimer_add(server->drain_timer, &timeout);
    for (size_t i = 0; i < server->worker_count; i++)
        worker_drain(server->workers[i]);
}

static void on_signal(evutil_socket_t fd, short what, void *arg)
{
    struct server *server = arg;
    struct signalfd_siginfo info;
    (void)what;
    while (read(fd, &info, sizeof info) == (ssize_t)sizeof info) {
        if (server->draining) {
            log_event(LEVEL_NOTICE, "stopped at once", log_number("connections", atomic_load(&server->admission.open)));
            _exit(0); /* whatever a worker does: the second signal waits for nobody */
        }
        server_drain(server);
    }
}

/* In a worker's thread. */
static void tell_done(void *arg)
{
    struct server *server = arg;
    uint64_t one = 1;
    if (write(server->done_fd, &one, sizeof one) < 0)
        log_event(LEVEL_ERROR, "the server cannot be woken", log_errno(errno));
}

static void on_worker_done(evutil_socket_t fd, short what, void *arg)
{
    struct server *server = arg;
    uint64_t ended;
    (void)what;
    if (read(fd, &ended, sizeof ended) < 0)
        return;
    server->running -= (size_t)ended;
    if (!server->draining) /* only a failed loop ends by itself */
        server_drain(server);
    if (server->running == 0)
        event_base_loopbreak(server->base);
}

/* The signals that stop the server. They are read from a descriptor, so that no code of ours is ever interrupted. */
static sigset_t stop_signals(void)
{
    sigset_t stop;
    sigemptyset(&stop);
    sigaddset(&stop, SIGTERM);
    sigaddset(&stop, SIGINT);
    return stop;
}

void server_block_signals(void)
{
    sigset_t stop = stop_signals();
    pthread_sigmask(SIG_BLOCK, &stop, NULL);
}

static int signals_open(void)
{
    sigset_t stop = stop_signals();
    server_block_signals(); /* the workers inherit it */
    return signalfd(-1, &stop, SFD_NONBLOCK | SFD_CLOEXEC);
}

static void log_libevent(int severity, const char *message)
{
    log_event(severity == EVENT_LOG_ERR     ? LEVEL_ERROR
              : severity == EVENT_LOG_DEBUG ? LEVEL_DEBUG
                                            : LEVEL_WARNING,
              "libevent", log_text("says", message));
}

/* libevent cannot go on, and would end the process without a word in the log. */
static void fail_libevent(int error)
{
    log_event(LEVEL_ERROR, "libevent failed", log_number("code", (uint64_t)(unsigned)error));
    _exit(1);
}

static int server_events(struct server *server)
{
    server->base = event_base_new();
    server->done_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    server->signal_fd = signals_open();
    if (server->base == NULL || server->done_fd < 0 || server->signal_fd < 0)
        return -1;
    server->signalled = event_new(server->base, server->signal_fd, EV_READ | EV_PERSIST, on_signal, server);
    server->worker_done = event_new(server->base, server->done_fd, EV_READ | EV_PERSIST, on_worker_done, server);
    server->drain_timer = evtimer_new(server->base, on_drain_timeout, server);
    if (server->signalled == NULL || server->worker_done == NULL || server->drain_timer == NULL)
        return -1;
    return event_add(server->signalled, NULL) < 0 || event_add(server->worker_done, NULL) < 0 ? -1 : 0;
}

/* Binds one address for every worker, as socket `index` of each. */
static int server_bind(struct server *server, const struct config_listener *listener, size_t index,
                       const struct address *address, const struct conn_settings *settings)
{
    char text[ADDRESS_TEXT];
    struct address bound;
    int *fds = calloc(server->worker_count, sizeof *fds);
    if (fds == NULL || listener_bind(address, fds, server->worker_count, &bound) < 0) {
        int error = errno;
        log_event(LEVEL_ERROR, "cannot listen", log_text("listener", listener->name),
                  log_text("address", address_format(address, text)), log_errno(error));
        free(fds);
        return -1;
    }
    for (size_t w = 0; w < server->worker_count; w++)
        server->sockets[w * server->socket_count + index] = (struct worker_socket){ fds[w], settings };
    log_event(LEVEL_NOTICE, "listening", log_text("listener", listener->name),
              log_text("address", address_format(&bound, text)));
    free(fds);
    return 0;
}

static int server_listen(struct server *server)
{
    size_t count, index = 0;
    const struct config_listener *listeners = config_listeners(server->config, &count);
    for (size_t i = 0; i < count; i++) {
        const struct config_listener *listener = &listeners[i];
        server->settings[i] = (struct conn_settings){ .handler = listener->handler,
                                                      .shared = listener->shared,
                                                      .listener = listener->name,
                                                      .idle_timeout = listener->settings.idle_timeout,
                                                      .ended = admission_release,
                                                      .ended_arg = &server->admission };
        for (size_t a = 0; a < listener->address_count; a++)
            if (server_bind(server, listener, index++, &listener->addresses[a], &server->settings[i]) < 0)
                return -1;
    }
    return 0;
}

static int server_start_workers(struct server *server)
{
    while (server->running < server->worker_count) {
        const struct worker_settings settings = { .sockets = server->sockets + server->running * server->socket_count,
                                                  .count = server->socket_count,
                                                  .admission = &server->admission,
                                                  .access_sink = server->access_sink,
                                                  .done = tell_done,
                                                  .done_arg = server };
        server->workers[server->running] = worker_start(&settings);
        if (server->workers[server->running] == NULL)
            break;
        server->running++;
    }
    if (server->running == server->worker_count)
        return 0;
    log_event(LEVEL_ERROR, "cannot start a worker", log_errno(errno));
    return -1;
}

static int server_init(struct server *server, const struct config *config)
{
    const struct server_settings *settings = config_server(config);
    size_t count;
    const struct config_listener *listeners = config_listeners(config, &count);
    server->config = config;
    server->done_fd = server->signal_fd = -1;
    server->admission.max_connections = (size_t)settings->max_connections;
    server->worker_count = thread_count(settings);
    for (size_t i = 0; i < count; i++)
        server->socket_count += listeners[i].address_count;
    raise_descriptor_limit(server);
    server->settings = calloc(count, sizeof *server->settings);
    server->sockets = calloc(server->worker_count * server->socket_count, sizeof *server->sockets);
    server->workers = calloc(server->worker_count, sizeof(struct worker *));
    if (server->settings == NULL || server->sockets == NULL || server->workers == NULL || server_events(server) < 0) {
        log_event(LEVEL_ERROR, "cannot start", log_errno(errno));
        return -1;
    }
    server->access_sink = access_sink_open(settings->access_log);
    if (server->access_sink < -1) {
        log_event(LEVEL_ERROR, "cannot open the access log", log_text("path", settings->access_log), log_errno(errno));
        return -1;
    }
    return 0;
}

/* Joins the workers that run, and frees. 0, or -1 when one of them had failed. */
static int server_free(struct server *server, size_t started)
{
    int result = 0;
    for (size_t i = 0; i < started; i++)
        if (worker_join(server->workers[i]) < 0)
            result = -1;
    struct event *events[] = { server->signalled, server->worker_done, server->drain_timer };
    for (size_t i = 0; i < sizeof events / sizeof events[0]; i++)
        if (events[i] != NULL)
            event_free(events[i]);
    if (server->base != NULL)
        event_base_free(server->base);
    const int fds[] = { server->signal_fd, server->done_fd, server->access_sink };
    for (size_t i = 0; i < sizeof fds / sizeof fds[0]; i++)
        if (fds[i] >= 0)
            close(fds[i]);
    free(server->settings);
    free(server->sockets);
    free(server->workers);
    return result;
}

int server_run(const struct config *config)
{
    struct server server = { .access_sink = -1 };
    const struct server_settings *settings = config_server(config);
    size_t started = 0;
    int result = -1;
    signal(SIGPIPE, SIG_IGN);
    signal(SIGXFSZ, SIG_IGN); /* a log at its size limit is a failed write */
    log_setup(settings->log_level, settings->log_format);
    event_set_log_callback(log_libevent);
    event_set_fatal_callback(fail_libevent);
    if (server_init(&server, config) == 0 && server_listen(&server) == 0) {
        result = server_start_workers(&server);
        started = server.running;
    }
    if (result == 0) {
        log_event(LEVEL_NOTICE, "ready", log_number("listeners", server.socket_count),
                  log_number("threads", server.worker_count));
        notify("READY=1");
        result = event_base_dispatch(server.base) < 0 ? -1 : 0;
    }
    for (size_t i = 0; i < started; i++)
        worker_abort(server.workers[i]);
    if (server_free(&server, started) < 0)
        result = -1;
    if (result == 0)
        log_event(LEVEL_NOTICE, "stopped", log_number("threads", server.worker_count));
    return result;
}
