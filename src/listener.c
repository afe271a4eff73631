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

#define ACCEPT_BATCH 64   /* connections a turn, so that those that are open get theirs */
#define CLOSE_BATCH  4096 /* and at most before a socket is closed: no backlog is longer */

struct listener {
    int fd;
    bool inherited;
    struct bind_path path; /* to remove with it */
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

/* Waits for connections, and rests first where the kernel has no memory to watch the socket with. */
static void listener_watch(struct listener *listener)
{
    listener->paused = false;
    if (event_add(&listener->acceptable, NULL) < 0) {
        listener_rest(listener, errno);
        evtimer_add(&listener->retry, &calm_time); /* less often: libevent tells of each failure */
    }
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

/* Tells of a refusal, once an episode. who is the peer, or whom it told. */
static void log_refusal(const struct listener_terms *terms, const char *who, const struct address *address,
                        enum refusal refusal, int64_t now)
{
    char text[ADDRESS_TEXT];
    if (admission_tells(terms->gate, refusal, now))
        log_event(LEVEL_WARNING, "connection refused", log_text("listener", terms->conn.context.listener),
                  log_text(who, address_format(address, text)), log_text("reason", refusal_words[refusal]));
}

bool listener_told(const struct conn_settings *settings, const struct address *told, int64_t now, void **ticket)
{
    const struct listener_terms *terms = (const struct listener_terms *)settings; /* its first member */
    struct admission_address *counted;
    if (*ticket != NULL)
        return true; /* a spare place */
    enum refusal refusal = admission_take_address(terms->admission, terms->limits, told, &counted);
    *ticket = counted;
    if (refusal != REFUSALS)
        log_refusal(terms, "told", told, refusal, now);
    return refusal == REFUSALS;
}

/* Opens an accepted connection, or closes it at once. */
static void listener_admit(struct listener *listener, int fd, const struct address *peer)
{
    const struct listener_terms *terms = listener->terms;
    struct admission_address *counted;
    int64_t now = deadline_now();
    enum refusal refusal = REFUSED_UNTRUSTED;
    if (!terms->conn.proxy || prefix_match(terms->trusted, terms->trusted_count, peer))
        refusal = admission_take(terms->admission, terms->gate, terms->limits, terms->conn.proxy ? NULL : peer, now,
                                 &counted);
    if (refusal == REFUSALS) {
        atomic_fetch_add(terms->users, 1);
        if (conn_open(listener->pool, &terms->conn, fd, peer, now, counted))
            return;
        listener_ended(&terms->conn, counted);
        refusal = REFUSED_MEMORY;
    }
    close(fd);
    counter_add(&terms->metrics->refused[refusal], 1);
    log_refusal(terms, "peer", peer, refusal, now);
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
    if (!listener->paused) {
        listener_calm(listener);
        return;
    }
    listener_watch(listener);
    if (!listener->paused)
        evtimer_add(&listener->retry, &calm_time);
}

struct listener *listener_new(int fd, bool inherited, const struct bind_path *path)
{
    struct listener *listener = calloc(1, sizeof *listener);
    if (listener == NULL) {
        close(fd);
        return NULL;
    }
    listener->fd = fd;
    listener->inherited = inherited;
    if (path != NULL)
        listener->path = *path;
    if (inherited) /* as our own have it; a unix socket knows no delay */
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &(int){ 1 }, sizeof(int));
    return listener;
}

int listener_start(struct listener *listener, struct conn_pool *pool, const struct listener_terms *terms)
{
    listener->terms = terms;
    if (evtimer_assign(&listener->retry, pool->base, on_retry, listener) < 0 ||
        event_assign(&listener->acceptable, pool->base, listener->fd, EV_READ | EV_PERSIST, on_acceptable, listener) <
            0)
        return -1;
    listener->pool = pool;
    listener_watch(listener);
    return 0;
}

void listener_set(struct listener *listener, const struct listener_terms *terms)
{
    listener->terms = terms;
}

bool listener_mute(struct listener *listener)
{
    /* drops a segment with SYN, and no other: its sender tries again, and is then refused, or served elsewhere */
    static struct sock_filter drop_syn[] = {
        BPF_STMT(BPF_LD | BPF_B | BPF_ABS, 13), /* the flags in the TCP header */
        BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, 0x02, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, 0),
        BPF_STMT(BPF_RET | BPF_K, UINT32_MAX),
    };
    static const struct sock_fprog program = { .len = sizeof drop_syn / sizeof drop_syn[0], .filter = drop_syn };
    if (listener->inherited)
        return false;
    bind_unlink(&listener->path);
    return setsockopt(listener->fd, SOL_SOCKET, SO_ATTACH_FILTER, &program, sizeof program) == 0;
}

int listener_tune(const struct listener *listener, const struct bind_options *options)
{
    return bind_tune(listener->fd, &listener->path, options);
}

bool listener_stands(const struct listener *listener)
{
    return bind_stands(&listener->path);
}

void listener_close(struct listener *listener)
{
    if (listener == NULL)
        return;
    bind_unlink(&listener->path);
    for (int i = 0; listener->pool != NULL && !listener->inherited && i < CLOSE_BATCH && listener_accept(listener); i++)
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
