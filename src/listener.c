#include "listener.h"

#include "log.h"

#include <errno.h>
#include <event2/event.h>
#include <event2/event_struct.h>
#include <linux/filter.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#define BACKLOG      4096 /* the kernel lowers it to net.core.somaxconn */
#define ACCEPT_BATCH 64   /* connections a turn, so that those that are open get theirs */

struct listener {
    int fd;
    bool inherited;
    struct event acceptable;
    struct event retry;     /* ends a pause, and later the episode */
    struct conn_pool *pool; /* NULL: not started */
    const struct listener_terms *terms;
    bool starved; /* in an episode: accept has failed for want of descriptors or memory */
    bool paused;
};

static const struct timeval pause_time = { .tv_usec = 100000 };
static const struct timeval calm_time = { .tv_sec = 1 };

void listener_ended(const struct conn_settings *settings, void *ticket)
{
    const struct listener_terms *terms = (const struct listener_terms *)settings; /* its first member */
    void (*unused)(void *arg) = terms->unused;
    void *arg = terms->unused_arg;
    admission_release(terms->admission, terms->gate, ticket);
    /* the last one: the terms may be gone at once */
    if (atomic_fetch_sub(terms->users, 1) == 1)
        unused(arg);
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
static int open_all(const struct address *address, int *fds, size_t count, size_t *made)
{
    struct address bound = { .len = sizeof bound.sa }; /* port 0 becomes the kernel's choice */
    fds[0] = socket_open(address, false);
    if (fds[0] < 0)
        return -1;
    *made = 1;
    if (getsockname(fds[0], &bound.sa.any, &bound.len) < 0 ||
        (count > 1 && set_flag(fds[0], SOL_SOCKET, SO_REUSEPORT) < 0))
        return -1;
    for (; *made < count; ++*made)
        if ((fds[*made] = socket_open(&bound, true)) < 0)
            return -1;
    return 0;
}

int listener_bind(const struct address *address, int *fds, size_t count)
{
    size_t made = 0;
    int result = open_all(address, fds, count, &made), error = errno;
    while (result < 0 && made > 0)
        close(fds[--made]);
    errno = error;
    return result;
}

static const char *listener_name(const struct listener *listener)
{
    return listener->terms->conn.context.listener;
}

/* accept failed, mostly for want of descriptors or memory: it would fail again at once, so the listener rests. */
static void listener_rest(struct listener *listener, int error)
{
    if (!listener->starved && atomic_fetch_add(&listener->terms->admission->starved, 1) == 0)
        log_event(LEVEL_WARNING, "accept paused", log_text("listener", listener_name(listener)), log_errno(error));
    listener->starved = listener->paused = true;
    event_del(&listener->acceptable);
    evtimer_add(&listener->retry, &pause_time);
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

static void listener_refuse(const struct listener *listener, const struct address *peer, enum refusal refusal,
                            int64_t now)
{
    char text[ADDRESS_TEXT];
    counter_add(&listener->terms->metrics->refused[refusal], 1);
    if (admission_tells(listener->terms->admission, refusal, now))
        log_event(LEVEL_WARNING, "connection refused", log_text("listener", listener_name(listener)),
                  log_text("peer", address_format(peer, text)), log_text("reason", refusal_words[refusal]));
}

/* Opens an accepted connection, or closes it at once. */
static void listener_admit(struct listener *listener, int fd, const struct address *peer)
{
    const struct listener_terms *terms = listener->terms;
    struct admission_address *counted;
    int64_t now = deadline_now();
    enum refusal refusal = admission_take(terms->admission, terms->gate, terms->limits, peer, now, &counted);
    if (refusal == REFUSALS) {
        atomic_fetch_add(terms->users, 1);
        if (conn_open(listener->pool, &terms->conn, fd, peer, now, counted))
            return;
        listener_ended(&terms->conn, counted);
        refusal = REFUSED_MEMORY;
    }
    close(fd);
    listener_refuse(listener, peer, refusal, now);
}

/* Takes one connection off the backlog. False, with errno, when there is none, or none can be taken now. */
static bool listener_accept(struct listener *listener)
{
    struct address peer = { .len = sizeof peer.sa };
    int fd = accept4(listener->fd, &peer.sa.any, &peer.len, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd < 0)
        return accept_may_go_on(errno);
    if (peer.len > sizeof peer.sa) /* of a unix socket only the family is kept */
        peer.len = sizeof peer.sa;
    listener_admit(listener, fd, &peer);
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
    if (listener->starved && atomic_fetch_sub(&listener->terms->admission->starved, 1) == 1)
        log_event(LEVEL_NOTICE, "accept resumed", log_text("listener", listener_name(listener)));
    listener->starved = false;
}

static void on_retry(evutil_socket_t fd, short what, void *arg)
{
    struct listener *listener = arg;
    (void)fd;
    (void)what;
    if (listener->paused) {
        listener->paused = false;
        evtimer_add(&listener->retry, &calm_time);
        event_add(&listener->acceptable, NULL);
    } else {
        listener_calm(listener);
    }
}

struct listener *listener_new(int fd, bool inherited)
{
    struct listener *listener = calloc(1, sizeof *listener);
    if (listener == NULL) {
        close(fd);
        return NULL;
    }
    listener->fd = fd;
    listener->inherited = inherited;
    if (inherited)
        set_flag(fd, IPPROTO_TCP, TCP_NODELAY); /* as our own have it; a unix socket knows no delay */
    return listener;
}

int listener_start(struct listener *listener, struct conn_pool *pool, const struct listener_terms *terms)
{
    listener->terms = terms;
    if (evtimer_assign(&listener->retry, pool->base, on_retry, listener) < 0 ||
        event_assign(&listener->acceptable, pool->base, listener->fd, EV_READ | EV_PERSIST, on_acceptable, listener) <
            0 ||
        event_add(&listener->acceptable, NULL) < 0)
        return -1;
    listener->pool = pool;
    return 0;
}

void listener_set(struct listener *listener, const struct listener_terms *terms)
{
    listener->terms = terms;
}

bool listener_mute(struct listener *listener)
{
    /* drops a segment that has SYN set, and no other: its sender tries again, and is then refused or served elsewhere */
    static struct sock_filter drop_syn[] = {
        BPF_STMT(BPF_LD | BPF_B | BPF_ABS, 13), /* the flags in the TCP header */
        BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, 0x02, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, 0),
        BPF_STMT(BPF_RET | BPF_K, UINT32_MAX),
    };
    static const struct sock_fprog program = { .len = sizeof drop_syn / sizeof drop_syn[0], .filter = drop_syn };
    return !listener->inherited &&
           setsockopt(listener->fd, SOL_SOCKET, SO_ATTACH_FILTER, &program, sizeof program) == 0;
}

void listener_close(struct listener *listener)
{
    if (listener == NULL)
        return;
    for (int i = 0; listener->pool != NULL && !listener->inherited && i < BACKLOG && listener_accept(listener); i++)
        ; /* closing the socket resets what waits in the backlog */
    if (listener->starved)
        atomic_fetch_sub(&listener->terms->admission->starved, 1);
    if (listener->pool != NULL) {
        event_del(&listener->acceptable);
        event_del(&listener->retry);
    }
    close(listener->fd);
    free(listener);
}
