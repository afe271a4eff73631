#include "server.h"

#include "access.h"
#include "generation.h"
#include "log.h"
#include "scrape.h"
#include "systemd.h"

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
#include <time.h>
#include <unistd.h>

#define DESCRIPTORS_SPARE  64           /* beside one a connection and one a listening socket, */
#define DESCRIPTORS_WORKER 6            /* and these for the event loop and the relay of each worker */
#define MILLISECOND        1000000LL    /* ns */
#define STUCK              5000000000LL /* ns without a sign of life after which a loop stands still */
#define TICK               1000         /* ms between two looks at what the service manager should know, at most */
#define EXTEND             10000000     /* us that a drain asks the service manager for, at each tick */

/* What becomes of the newest generation. */
enum change {
    CHANGE_NONE,    /* it serves */
    CHANGE_LOADING, /* the next one is being read */
    CHANGE_TAKING   /* it is being taken by the workers */
};

enum stop { STOP_NONE, STOP_DELAY, STOP_DRAIN };

struct server {
    struct event_base *base;
    struct event *signalled, *news, *stop_timer, *tick;
    int signal_fd;
    int news_fd;                /* written when one of the next three changed, or a generation fell out of use */
    atomic_size_t ended, taken; /* workers that have ended, that have taken the newest generation */
    atomic_bool loaded, ready;
    struct admission admission;
    struct status status;
    struct worker **workers;
    size_t worker_count, running;
    struct generation_place place;
    struct loader loader;
    enum change change;
    bool started;
    bool change_again; /* a signal came meanwhile */
    enum stop stop;
    bool stuck;        /* an event loop stands still */
    char failure[600]; /* of the last reload; empty: it was good */

    pthread_mutex_t lock;           /* of what other threads read: the next four */
    struct generation *generations; /* the newest first */
    int64_t loaded_at;              /* CLOCK_REALTIME nanoseconds */
    uint64_t reloads, reloads_failed;
};

static const struct server_settings *settings_of(const struct server *server)
{
    return config_server(server->generations->config);
}

static size_t thread_count(const struct server_settings *settings)
{
    cpu_set_t cpus;
    if (settings->threads > 0)
        return (size_t)settings->threads;
    long cores = sched_getaffinity(0, sizeof cpus, &cpus) == 0 ? CPU_COUNT(&cpus) : sysconf(_SC_NPROCESSORS_ONLN);
    return cores < 1 ? 1 : cores > THREADS_MAX ? THREADS_MAX : (size_t)cores;
}

/* Raises the soft limit on descriptors to what a configuration may need. */
static void raise_descriptor_limit(const struct server *server, const struct server_settings *settings, size_t sockets)
{
    struct rlimit limit;
    rlim_t need = settings->max_connections + ADMISSION_SPARE + (sockets + DESCRIPTORS_WORKER) * server->worker_count +
                  DESCRIPTORS_SPARE;
    if (getrlimit(RLIMIT_NOFILE, &limit) < 0 || limit.rlim_cur >= need)
        return;
    limit.rlim_cur = limit.rlim_max < need ? limit.rlim_max : need;
    if (setrlimit(RLIMIT_NOFILE, &limit) < 0 || limit.rlim_cur < need)
        log_event(LEVEL_WARNING, "too few descriptors for max_connections", log_number("limit", limit.rlim_cur),
                  log_number("needed", need));
}

/* --- Called in other threads ------------------------------------------------------------------------------------ */

static void tell_news(void *arg)
{
    struct server *server = arg;
    uint64_t one = 1;
    if (write(server->news_fd, &one, sizeof one) < 0)
        log_event(LEVEL_ERROR, "the server cannot be woken", log_errno(errno));
}

static void tell_ended(void *arg)
{
    atomic_fetch_add(&((struct server *)arg)->ended, 1);
    tell_news(arg);
}

static void tell_taken(void *arg)
{
    atomic_fetch_add(&((struct server *)arg)->taken, 1);
    tell_news(arg);
}

static void tell_loaded(void *arg)
{
    atomic_store(&((struct server *)arg)->loaded, true);
    tell_news(arg);
}

static bool is_healthy(void *arg)
{
    const struct server *server = arg;
    int64_t now = deadline_now();
    for (size_t i = 0; i < server->worker_count; i++)
        if (now - worker_beat(server->workers[i]) > STUCK)
            return false;
    return true;
}

static bool is_ready(void *arg)
{
    return atomic_load(&((struct server *)arg)->ready);
}

static void write_metrics(void *arg, FILE *out)
{
    struct server *server = arg;
    pthread_mutex_lock(&server->lock);
    const struct scrape scrape = { .generations = server->generations,
                                   .workers = server->workers,
                                   .worker_count = server->worker_count,
                                   .admission = &server->admission,
                                   .loaded = server->loaded_at,
                                   .reloads = server->reloads,
                                   .reloads_failed = server->reloads_failed };
    scrape_write(&scrape, out);
    pthread_mutex_unlock(&server->lock);
}

static void write_config(void *arg, FILE *out)
{
    struct server *server = arg;
    pthread_mutex_lock(&server->lock);
    config_dump(server->generations->config, out);
    pthread_mutex_unlock(&server->lock);
}

/* --- What the service manager is told --------------------------------------------------------------------------- */

/* first: lines to tell with it, each with its line end. */
static void notify(const struct server *server, const char *first)
{
    size_t open = atomic_load(&server->admission.open);
    if (server->stop != STOP_NONE)
        systemd_notify("%sSTATUS=stopping, %zu connections", first, open);
    else
        systemd_notify("%sSTATUS=%s%zu listeners, %zu connections", first, server->failure,
                       server->generations->socket_count, open);
}

static void on_tick(evutil_socket_t fd, short what, void *arg)
{
    struct server *server = arg;
    bool healthy = is_healthy(server);
    (void)fd;
    (void)what;
    if (healthy)
        systemd_notify("WATCHDOG=1");
    if (!healthy && !server->stuck)
        log_event(LEVEL_ERROR, "an event loop stands still", log_duration("since", STUCK));
    else if (healthy && server->stuck)
        log_event(LEVEL_NOTICE, "the event loops turn again", log_number("threads", server->worker_count));
    server->stuck = !healthy;
    if (healthy && server->stop != STOP_NONE) /* a loop that stands still would never end */
        systemd_notify("EXTEND_TIMEOUT_USEC=%d", EXTEND);
    notify(server, "");
}

/* --- Stop ------------------------------------------------------------------------------------------------------- */

static void set_stop_timer(struct server *server, uint64_t ms)
{
    struct timeval tv = { .tv_sec = (time_t)(ms / 1000), .tv_usec = (suseconds_t)(ms % 1000 * 1000) };
    evtimer_add(server->stop_timer, &tv);
}

static void server_drain(struct server *server)
{
    uint64_t timeout = settings_of(server)->drain_timeout;
    server->stop = STOP_DRAIN;
    log_event(LEVEL_NOTICE, "draining", log_number("connections", atomic_load(&server->admission.open)),
              log_duration("timeout", (int64_t)timeout * MILLISECOND));
    set_stop_timer(server, timeout);
    for (size_t i = 0; i < server->running; i++)
        worker_drain(server->workers[i]);
}

static void server_stop(struct server *server)
{
    uint64_t delay = settings_of(server)->drain_delay;
    atomic_store(&server->ready, false);
    systemd_notify("STOPPING=1\nEXTEND_TIMEOUT_USEC=%d\nSTATUS=stopping", EXTEND);
    if (delay == 0) {
        server_drain(server);
        return;
    }
    server->stop = STOP_DELAY;
    log_event(LEVEL_NOTICE, "not ready", log_duration("delay", (int64_t)delay * MILLISECOND));
    set_stop_timer(server, delay);
}

static void on_stop_timer(evutil_socket_t fd, short what, void *arg)
{
    struct server *server = arg;
    (void)fd;
    (void)what;
    if (server->stop == STOP_DELAY) {
        server_drain(server);
        return;
    }
    log_event(LEVEL_NOTICE, "drain timed out", log_number("connections", atomic_load(&server->admission.open)));
    for (size_t i = 0; i < server->running; i++)
        worker_abort(server->workers[i]);
}

/* --- The access log --------------------------------------------------------------------------------------------- */

/* One sink for each worker. 0, or -1 with errno and nothing open. */
static int open_sinks(const struct server *server, const char *where, int *sinks)
{
    for (size_t i = 0; i < server->worker_count; i++) {
        sinks[i] = access_sink_open(where);
        if (sinks[i] >= -1)
            continue;
        int error = errno;
        while (i > 0)
            close(sinks[--i]);
        errno = error;
        return -1;
    }
    return 0;
}

static void turn_access(const struct server *server, const int *sinks)
{
    for (size_t i = 0; i < server->worker_count; i++)
        worker_turn_access(server->workers[i], sinks[i]);
}

static void reopen_access(struct server *server)
{
    const char *where = settings_of(server)->access_log;
    int sinks[THREADS_MAX] = { 0 };
    if (open_sinks(server, where, sinks) < 0) {
        log_event(LEVEL_WARNING, "cannot reopen the access log", log_text("path", where), log_errno(errno));
        return;
    }
    if (sinks[0] < 0)
        return; /* it is off */
    turn_access(server, sinks);
    log_event(LEVEL_INFO, "access log reopened", log_text("path", where));
}

/* --- Putting a configuration into service ----------------------------------------------------------------------- */

static void log_sockets(const struct generation *generation)
{
    for (size_t i = 0; i < generation->socket_count; i++)
        if (generation->sockets[i].fresh)
            log_event(LEVEL_NOTICE, "listening",
                      log_text("listener", generation->terms[generation->sockets[i].listener].conn.context.listener),
                      log_text("address", generation->sockets[i].text));
    for (size_t i = 0; generation->before != NULL && i < generation->before->socket_count; i++) {
        const struct generation_socket *socket = &generation->before->sockets[i];
        if (!socket->claimed)
            log_event(LEVEL_NOTICE, "listening no more",
                      log_text("listener", generation->before->terms[socket->listener].conn.context.listener),
                      log_text("address", socket->text));
    }
}

/* Who connects to a socket that was handed over, and that no listener has, waits in vain. */
static void log_unused(void *arg, const char *name)
{
    const struct generation *generation = arg;
    for (size_t i = 0; i < generation->socket_count; i++) {
        const char *used = generation->sockets[i].address->inherited;
        if (used != NULL && strcmp(used, name) == 0)
            return;
    }
    log_event(LEVEL_WARNING, "socket not used", log_text("name", name));
}

/* Nothing can fail any more: the workers get the generation. */
static void commit(struct server *server, struct generation *generation, const int *sinks)
{
    const struct server_settings *settings = config_server(generation->config);
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    pthread_mutex_lock(&server->lock);
    generation->before = server->generations;
    server->generations = generation;
    server->loaded_at = now.tv_sec * 1000 * MILLISECOND + now.tv_nsec;
    pthread_mutex_unlock(&server->lock);
    log_setup(settings->log_level, settings->log_format);
    log_sockets(generation);
    systemd_names(log_unused, generation);
    turn_access(server, sinks);
    atomic_store(&server->taken, 0);
    server->change = CHANGE_TAKING;
    generation_serve(generation, &server->place);
}

/* What cannot change while the process runs. 0, or -1 and a sentence. */
static int check_restart(const struct server *server, const struct config *config, char *err, size_t errlen)
{
    size_t threads = thread_count(config_server(config));
    if (threads == server->worker_count || config_server(config)->threads == settings_of(server)->threads)
        return 0;
    snprintf(err, errlen, "%s:%u: threads cannot change without a restart, from %zu to %zu", config_path(config),
             config_server_line(config, "threads"), server->worker_count, threads);
    return -1;
}

/* All or nothing. 0, or -1 and a sentence; then config is still the caller's. */
static int put_into_service(struct server *server, struct config *config, char *err, size_t errlen)
{
    const char *where = config_server(config)->access_log;
    int sinks[THREADS_MAX] = { 0 };
    if (server->generations != NULL && check_restart(server, config, err, errlen) < 0)
        return -1;
    if (open_sinks(server, where, sinks) < 0) {
        snprintf(err, errlen, "%s:%u: access_log: cannot open %s: %s", config_path(config),
                 config_server_line(config, "access_log"), where, log_errno(errno).text);
        return -1;
    }
    struct generation *generation = generation_new(config, server->generations, &server->place, err, errlen);
    if (generation == NULL) {
        for (size_t i = 0; i < server->worker_count; i++)
            if (sinks[i] >= 0)
                close(sinks[i]);
        return -1;
    }
    raise_descriptor_limit(server, config_server(config), generation->socket_count);
    commit(server, generation, sinks);
    return 0;
}

/* Frees the generations that nobody uses any more. */
static void free_unused(struct server *server)
{
    pthread_mutex_lock(&server->lock);
    for (struct generation **link = &server->generations->before; *link != NULL;) {
        struct generation *generation = *link;
        if (atomic_load(&generation->users) > 0) {
            link = &generation->before;
            continue;
        }
        *link = generation->before;
        generation_free(generation);
    }
    pthread_mutex_unlock(&server->lock);
}

/* The newest generation serves, or the one before serves on. */
static void end_change(struct server *server)
{
    server->change = CHANGE_NONE;
    if (server->stop == STOP_NONE)
        notify(server, "READY=1\n");
}

static void count_change(struct server *server, uint64_t *count)
{
    pthread_mutex_lock(&server->lock);
    ++*count;
    pthread_mutex_unlock(&server->lock);
}

static void fail_change(struct server *server, const char *error)
{
    snprintf(server->failure, sizeof server->failure, "reload failed: %s; ", error);
    count_change(server, &server->reloads_failed);
    end_change(server);
}

static void on_started(struct server *server)
{
    server->started = true;
    atomic_store(&server->ready, server->stop == STOP_NONE);
    log_event(LEVEL_NOTICE, "ready", log_number("listeners", server->generations->socket_count),
              log_number("threads", server->worker_count));
}

static void on_reloaded(struct server *server)
{
    server->failure[0] = '\0';
    atomic_fetch_sub(&server->generations->before->users, 1);
    count_change(server, &server->reloads);
    log_event(LEVEL_NOTICE, "reloaded", log_number("listeners", server->generations->socket_count));
}

/* Every worker serves the newest generation. */
static void on_taken(struct server *server)
{
    if (server->started)
        on_reloaded(server);
    else
        on_started(server);
    end_change(server);
}

static void start_change(struct server *server)
{
    server->change_again = false;
    server->change = CHANGE_LOADING;
    systemd_notify("RELOADING=1\nMONOTONIC_USEC=%lld\nSTATUS=reloading", (long long)deadline_now() / 1000);
    if (loader_start(&server->loader) == 0)
        return;
    log_event(LEVEL_ERROR, "reload failed", log_errno(errno));
    fail_change(server, "no thread can be started");
}

static void on_loaded(struct server *server)
{
    char err[512];
    struct config *config = loader_finish(&server->loader);
    if (server->stop != STOP_NONE) {
        config_free(config);
    } else if (config == NULL) {
        fail_change(server, server->loader.error);
    } else if (put_into_service(server, config, err, sizeof err) < 0) {
        log_event(LEVEL_ERROR, "reload failed", log_text("error", err));
        config_free(config);
        fail_change(server, err);
    }
}

static void on_reload_signal(struct server *server)
{
    if (server->stop != STOP_NONE)
        log_event(LEVEL_NOTICE, "reload ignored", log_text("reason", "stopping"));
    else if (server->change != CHANGE_NONE)
        server->change_again = true;
    else
        start_change(server);
}

/* --- Events ----------------------------------------------------------------------------------------------------- */

static void on_stop_signal(struct server *server)
{
    if (server->stop == STOP_NONE) {
        server_stop(server);
        return;
    }
    log_event(LEVEL_NOTICE, "stopped at once", log_number("connections", atomic_load(&server->admission.open)));
    _exit(0); /* whatever a worker does: the second signal waits for nobody */
}

static void on_signal(evutil_socket_t fd, short what, void *arg)
{
    struct server *server = arg;
    struct signalfd_siginfo info;
    (void)what;
    while (read(fd, &info, sizeof info) == (ssize_t)sizeof info) {
        if (info.ssi_signo == SIGHUP)
            on_reload_signal(server);
        else if (info.ssi_signo == SIGUSR1)
            reopen_access(server);
        else
            on_stop_signal(server);
    }
}

static void on_news(evutil_socket_t fd, short what, void *arg)
{
    struct server *server = arg;
    uint64_t count;
    (void)what;
    if (read(fd, &count, sizeof count) < 0)
        return;
    if (atomic_exchange(&server->loaded, false))
        on_loaded(server);
    if (server->change == CHANGE_TAKING && atomic_load(&server->taken) == server->worker_count)
        on_taken(server);
    if (server->change == CHANGE_NONE && server->change_again && server->stop == STOP_NONE)
        start_change(server);
    free_unused(server);
    size_t ended = atomic_load(&server->ended);
    if (ended > 0 && server->stop == STOP_NONE) /* only a failed loop ends by itself */
        server_stop(server);
    if (ended == server->worker_count)
        event_base_loopbreak(server->base);
}

/* --- The process ------------------------------------------------------------------------------------------------ */

/* The signals that are taken. They are read from a descriptor, so that no code of ours is ever interrupted. */
static sigset_t taken_signals(void)
{
    static const int numbers[] = { SIGTERM, SIGINT, SIGHUP, SIGUSR1 };
    sigset_t set;
    sigemptyset(&set);
    for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++)
        sigaddset(&set, numbers[i]);
    return set;
}

void server_block_signals(void)
{
    sigset_t set = taken_signals();
    pthread_sigmask(SIG_BLOCK, &set, NULL);
}

static int signals_open(void)
{
    sigset_t set = taken_signals();
    server_block_signals(); /* the workers inherit it */
    return signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC);
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

/* Looks after the service manager, if there is one. */
static int server_tick(struct server *server)
{
    uint64_t watchdog = systemd_watchdog(), us = (uint64_t)TICK * 1000;
    if (!systemd_is_manager())
        return 0;
    if (watchdog > 0 && watchdog / 3 < us)
        us = watchdog / 3;
    struct timeval tv = { .tv_sec = (time_t)(us / 1000000), .tv_usec = (suseconds_t)(us % 1000000) };
    server->tick = event_new(server->base, -1, EV_PERSIST, on_tick, server);
    return server->tick == NULL ? -1 : event_add(server->tick, &tv);
}

static int server_events(struct server *server)
{
    server->base = event_base_new();
    server->news_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    server->signal_fd = signals_open();
    if (server->base == NULL || server->news_fd < 0 || server->signal_fd < 0)
        return -1;
    server->signalled = event_new(server->base, server->signal_fd, EV_READ | EV_PERSIST, on_signal, server);
    server->news = event_new(server->base, server->news_fd, EV_READ | EV_PERSIST, on_news, server);
    server->stop_timer = evtimer_new(server->base, on_stop_timer, server);
    if (server->signalled == NULL || server->news == NULL || server->stop_timer == NULL || server_tick(server) < 0)
        return -1;
    return event_add(server->signalled, NULL) < 0 || event_add(server->news, NULL) < 0 ? -1 : 0;
}

static int server_init(struct server *server, const struct server_settings *settings)
{
    server->worker_count = thread_count(settings);
    server->workers = calloc(server->worker_count, sizeof(struct worker *));
    if (server->workers == NULL || server_events(server) < 0) {
        log_event(LEVEL_ERROR, "cannot start", log_errno(errno));
        return -1;
    }
    for (; server->running < server->worker_count; server->running++)
        if ((server->workers[server->running] = worker_start(tell_ended, server)) == NULL) {
            log_event(LEVEL_ERROR, "cannot start a worker", log_errno(errno));
            return -1;
        }
    server->status = (struct status){
        .server = server, .healthy = is_healthy, .ready = is_ready, .metrics = write_metrics, .config = write_config
    };
    server->place = (struct generation_place){ .workers = server->workers,
                                               .count = server->worker_count,
                                               .admission = &server->admission,
                                               .status = &server->status,
                                               .taken = tell_taken,
                                               .unused = tell_news,
                                               .arg = server };
    return 0;
}

static void log_stopped(const struct server *server, int result)
{
    if (result == 0)
        log_event(LEVEL_NOTICE, "stopped", log_number("threads", server->worker_count));
}

/* Ends the process under the thread that loads, which cannot be broken off and uses what would be freed. */
static void leave(const struct server *server, int result)
{
    log_stopped(server, result);
    _exit(result == 0 ? 0 : 1);
}

/* Joins the workers that run, and frees. result, or -1 when one of them had failed. */
static int server_free(struct server *server, int result)
{
    for (size_t i = 0; i < server->running; i++)
        worker_abort(server->workers[i]);
    for (size_t i = 0; i < server->running; i++)
        if (worker_join(server->workers[i]) < 0)
            result = -1;
    if (server->loader.running && !atomic_load(&server->loaded))
        leave(server, result); /* a name is being resolved, which nobody waits for */
    config_free(loader_finish(&server->loader));
    for (struct generation *next; server->generations != NULL; server->generations = next) {
        next = server->generations->before;
        generation_free(server->generations);
    }
    struct event *events[] = { server->signalled, server->news, server->stop_timer, server->tick };
    for (size_t i = 0; i < sizeof events / sizeof events[0]; i++)
        if (events[i] != NULL)
            event_free(events[i]);
    if (server->base != NULL)
        event_base_free(server->base);
    if (server->signal_fd >= 0)
        close(server->signal_fd);
    if (server->news_fd >= 0)
        close(server->news_fd);
    admission_destroy(&server->admission);
    pthread_mutex_destroy(&server->lock);
    free(server->workers);
    return result;
}

/* Starts, serves and drains. */
static int server_serve(struct server *server, struct config *config)
{
    char err[512];
    if (server_init(server, config_server(config)) < 0) {
        config_free(config);
        return -1;
    }
    if (put_into_service(server, config, err, sizeof err) < 0) {
        log_event(LEVEL_ERROR, "cannot serve", log_text("error", err));
        config_free(config);
        return -1;
    }
    return event_base_dispatch(server->base) < 0 ? -1 : 0;
}

int server_run(struct config *config, config_loader *load, void *load_arg)
{
    struct server server = { .news_fd = -1, .signal_fd = -1 };
    const struct server_settings *settings = config_server(config);
    signal(SIGPIPE, SIG_IGN);
    signal(SIGXFSZ, SIG_IGN); /* a log at its size limit is a failed write */
    log_setup(settings->log_level, settings->log_format);
    event_set_log_callback(log_libevent);
    event_set_fatal_callback(fail_libevent);
    admission_init(&server.admission);
    pthread_mutex_init(&server.lock, NULL);
    server.loader = (struct loader){ .load = load, .load_arg = load_arg, .done = tell_loaded, .done_arg = &server };
    int result = server_free(&server, server_serve(&server, config));
    log_stopped(&server, result);
    return result;
}
