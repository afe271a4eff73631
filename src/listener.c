#include "listener.h"

#include "log.h"

#include <errno.h>
#include <event2/event.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#define BACKLOG       4096         /* the kernel lowers it to net.core.somaxconn */
#define ACCEPT_BATCH  64           /* connections a turn, so that those that are open get theirs */
#define EPISODE_QUIET 5000000000LL /* ns without a refusal that end an episode */

struct listener {
    int fd;
    struct event *acceptable;
    struct event *retry; /* ends a pause, and later the episode */
    struct conn_pool *pool;
    const struct conn_settings *settings;
    struct admission *admission;
    bool starved; /* in an episode: accept has failed for want of descriptors or memory */
    bool paused;
};

static const struct timeval pause_time = { .tv_usec = 100000 };
static const struct timeval calm_time = { .tv_sec = 1 };

void admission_release(void *admission)
{
    atomic_fetch_sub_explicit(&((struct admission *)admission)->open, 1, memory_order_relaxed);
}

/* Takes a slot. False when there is none; told once an episode. */
static bool admission_take(struct admission *admission)
{
    size_t open = atomic_load_explicit(&admission->open, memory_order_relaxed);
    while (open < admission->max_connections)
        if (atomic_compare_exchange_weak_explicit(&admission->open, &open, open + 1, memory_order_relaxed,
                                                  memory_order_relaxed))
            return true;
    int64_t now = deadline_now(), last = atomic_exchange(&admission->last_refusal, now);
    if (last == 0 || now - last > EPISODE_QUIET)
        log_event(LEVEL_WARNING, "connection refused", log_text("reason", "max_connections"),
                  log_number("limit", admission->max_connections));
    return false;
}

static int set_flag(int fd, int level, int name)
{
    return setsockopt(fd, level, name, &(int){ 1 }, sizeof(int));
}

static int socket_bind(int fd, const struct address *address, bool shared)
{
    bool v6 = address->sa.any.sa_family == AF_INET6;
    if (set_flag(fd, SOL_SOCKET, SO_REUSEADDR) < 0 || set_flag(fd, IPPROTO_TCP, TCP_NODELAY) < 0 ||
        (v6 && set_flag(fd, IPPROTO_IPV6, IPV6_V6ONLY) < 0) || (shared && set_flag(fd, SOL_SOCKET, SO_REUSEPORT) < 0))
        return -1;
    return bind(fd, &address->sa.any, address->len);
}

/* A new listening socket; accepted sockets inherit TCP_NODELAY from it. */
static int socket_open(const struct address *address, bool shared)
{
    int fd = socket(address->sa.any.sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd >= 0 && (socket_bind(fd, address, shared) < 0 || listen(fd, BACKLOG) < 0)) {
        int error = errno;
        close(fd);
        errno = error;
        return -1;
    }
    return fd;
}

/*
 * The first socket listens without SO_REUSEPORT, so that it fails when anybody else listens there. It gets the option
 * when the address is ours, so that the others can join it: two daemons that start at one moment cannot share.
 */
static int open_all(const struct address *address, int *fds, size_t count, size_t *made, struct address *bound)
{
    *bound = *address;
    bound->len = sizeof bound->sa;
    fds[0] = socket_open(address, false);
    if (fds[0] < 0)
        return -1;
    *made = 1;
    if (getsockname(fds[0], &bound->sa.any, &bound->len) < 0 ||
        (count > 1 && set_flag(fds[0], SOL_SOCKET, SO_REUSEPORT) < 0))
        return -1;
    for (; *made < count; ++*made)
        if ((fds[*made] = socket_open(bound, true)) < 0)
            return -1;
    return 0;
}

int listener_bind(const struct address *address, int *fds, size_t count, struct address *bound)
{
    size_t made = 0;
    int result = open_all(address, fds, count, &made, bound), error = errno;
    while (result < 0 && made > 0)
        close(fds[--made]);
    errno = error;
    return result;
}

/* accept failed, mostly for want of descriptors or memory: it would fail again at once, so the listener rests. */
static void listener_rest(struct listener *listener, int error)
{
    if (!listener->starved && atomic_fetch_add(&listener->admission->starved, 1) == 0)
        log_event(LEVEL_WARNING, "accept paused", log_text("listener", listener->settings->listener), log_errno(error));
    listener->starved = listener->paused = true;
    event_del(listener->acceptable);
    evtimer_add(listener->retry, &pause_time);
}

/* Errors of one connection that is gone already, as accept(2) lists them: the next may be sound. */
static bool accept_may_go_on(int error)
{
    static const int passing[] = { EINTR,       ECONNABORTED, EPROTO,       ENOPROTOOPT, ENETDOWN,
                                   ENETUNREACH, EHOSTDOWN,    EHOSTUNREACH, ENONET,      EOPNOTSUPP };
    for (size_t i = 0; i < sizeof passing / sizeof passing[0]; i++)
        if (passing[i] == error)
            return true;
    return false;
}

/* Takes one connection off the backlog. False, with errno, when there is none, or none can be taken now. */
static bool listener_accept(struct listener *listener)
{
    struct address peer = { .len = sizeof peer.sa };
    int fd = accept4(listener->fd, &peer.sa.any, &peer.len, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd < 0)
        return accept_may_go_on(errno);
    if (admission_take(listener->admission))
        conn_open(listener->pool, listener->settings, fd, &peer);
    else
        close(fd);
    return true;
}

static void on_acceptable(evutil_socket_t fd, short what, void *arg)
{
    struct listener *listener = arg;
    int taken = 0;
    (void)fd;
    (void)what;
    while (taken < ACCEPT_BATCH && listener_accept(listener))
        taken++;
    if (taken < ACCEPT_BATCH && errno != EAGAIN && errno != EWOULDBLOCK)
        listener_rest(listener, errno);
}

static void listener_calm(struct listener *listener)
{
    if (listener->starved && atomic_fetch_sub(&listener->admission->starved, 1) == 1)
        log_event(LEVEL_NOTICE, "accept resumed", log_text("listener", listener->settings->listener));
    listener->starved = false;
}

static void on_retry(evutil_socket_t fd, short what, void *arg)
{
    struct listener *listener = arg;
    (void)fd;
    (void)what;
    if (listener->paused) {
        listener->paused = false;
        evtimer_add(listener->retry, &calm_time);
        event_add(listener->acceptable, NULL);
    } else {
        listener_calm(listener);
    }
}

static void listener_free(struct listener *listener)
{
    if (listener->starved)
        atomic_fetch_sub(&listener->admission->starved, 1);
    if (listener->acceptable != NULL)
        event_free(listener->acceptable);
    if (listener->retry != NULL)
        event_free(listener->retry);
    close(listener->fd);
    free(listener);
}

struct listener *listener_start(struct conn_pool *pool, int fd, const struct conn_settings *settings,
                                struct admission *admission)
{
    struct listener *listener = calloc(1, sizeof *listener);
    if (listener == NULL) {
        close(fd);
        return NULL;
    }
    *listener = (struct listener){ .fd = fd, .pool = pool, .settings = settings, .admission = admission };
    listener->retry = evtimer_new(pool->base, on_retry, listener);
    listener->acceptable = event_new(pool->base, fd, EV_READ | EV_PERSIST, on_acceptable, listener);
    if (listener->retry == NULL || listener->acceptable == NULL || event_add(listener->acceptable, NULL) < 0) {
        listener_free(listener);
        return NULL;
    }
    return listener;
}

void listener_close(struct listener *listener)
{
    if (listener == NULL)
        return;
    for (int i = 0; i < BACKLOG && listener_accept(listener); i++)
        ; /* closing the socket resets what waits in the backlog */
    listener_free(listener);
}
