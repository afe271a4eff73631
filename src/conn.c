#include "conn.h"

#include "log.h"

#include <errno.h>
#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <event2/event.h>
#include <stdalign.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

/*
 * How bytes move. A bufferevent reads at most 4096 bytes an event and writes only when the loop comes round. So what it
 * read is moved into the pool's one input buffer, and when it was that much the rest is received straight behind it;
 * and output is sent at once, only what the socket did not take goes through the bufferevent. An idle connection holds
 * no buffer at all.
 */
#define INPUT_SIZE       65536   /* what one call of input() sees at most */
#define BUFFEREVENT_READ 4096    /* what libevent 2.1 reads an event */
#define OUTPUT_HIGH      65536   /* unsent bytes from which nothing more is read */
#define LINGER_QUIET     5000    /* ms without a byte from the peer, after we closed our side */
#define LINGER_TOTAL     30000   /* ms altogether */
#define NANOSECONDS      1000000 /* in a millisecond */

enum phase {
    PHASE_OPEN,     /* the handler runs */
    PHASE_FLUSHING, /* the handler has finished; its output goes out */
    PHASE_LINGERING /* our side is closed; what the peer still sends is dropped until it closes too */
};

struct connection {
    struct conn face; /* what the handler sees */
    struct conn_pool *pool;
    const struct conn_settings *settings;
    struct connection *prev, *next; /* all of the pool */
    struct bufferevent *bev;
    struct deadline idle, timeout;
    int64_t opened;
    uint64_t bytes_in, bytes_out;
    size_t unread;     /* in the bufferevent's input, seen by the handler already */
    size_t unsent_was; /* in its output, when the idle deadline was set */
    enum phase phase;
    bool paused; /* for backpressure */
    bool eof;    /* the peer sends no more */
    alignas(max_align_t) char state[];
};

static const char *const reason_words[] = {
    [CONN_FIN] = "fin",     [CONN_FINISHED] = "finished", [CONN_RESET] = "reset",
    [CONN_IDLE] = "idle",   [CONN_DEADLINE] = "deadline", [CONN_LIMIT] = "limit",
    [CONN_DRAIN] = "drain", [CONN_ABORT] = "abort",       [CONN_ERROR] = "error",
};

static size_t conn_unsent(const struct connection *c)
{
    return evbuffer_get_length(bufferevent_get_output(c->bev));
}

static void conn_log(const struct connection *c, enum conn_reason reason)
{
    char peer[ADDRESS_TEXT];
    if (log_enabled(LEVEL_DEBUG))
        log_event(LEVEL_DEBUG, "closed", log_text("listener", c->face.listener),
                  log_text("peer", address_format(&c->face.peer, peer)), log_text("reason", reason_words[reason]),
                  log_number("bytes_in", c->bytes_in), log_number("bytes_out", c->bytes_out - conn_unsent(c)),
                  log_duration("duration", deadline_now() - c->opened));
}

/* The only exit. Nothing of c may be touched afterwards. */
static void conn_end(struct connection *c, enum conn_reason reason)
{
    struct conn_pool *pool = c->pool;
    const struct conn_settings *settings = c->settings;
    if (settings->handler->close != NULL)
        settings->handler->close(c->state);
    conn_log(c, reason);
    deadline_unset(&c->idle);
    deadline_unset(&c->timeout);
    if (c->next != NULL)
        c->next->prev = c->prev;
    *(c->prev != NULL ? &c->prev->next : &pool->first) = c->next;
    pool->count--;
    bufferevent_free(c->bev);
    free(c);
    settings->ended(settings->ended_arg);
}

/* A byte moved: the idle deadline starts anew. */
static void conn_touch(struct connection *c, uint64_t milliseconds)
{
    c->unsent_was = conn_unsent(c);
    deadline_set(&c->pool->idle, &c->idle, c->face.now, (int64_t)milliseconds * NANOSECONDS);
}

static void conn_set_timeout(struct connection *c, uint64_t milliseconds)
{
    if (milliseconds == 0)
        deadline_unset(&c->timeout);
    else
        deadline_set(&c->pool->timeout, &c->timeout, c->face.now, (int64_t)milliseconds * NANOSECONDS);
}

/* Closes our side, keeping what we sent safe from a reset: a socket closed with unread input resets (RFC 9112 9.6). */
static void conn_linger(struct connection *c)
{
    if (c->eof) {
        conn_end(c, CONN_FIN);
        return;
    }
    c->phase = PHASE_LINGERING;
    shutdown(bufferevent_getfd(c->bev), SHUT_WR);
    evbuffer_drain(bufferevent_get_input(c->bev), c->unread);
    conn_touch(c, LINGER_QUIET);
    conn_set_timeout(c, LINGER_TOTAL);
    bufferevent_enable(c->bev, EV_READ);
}

/* Sends what the socket takes of the list now. Returns how much that was, or -1 when the connection is broken. */
static ssize_t conn_send(struct connection *c, struct output *out)
{
    struct msghdr message = { .msg_iov = out->vec, .msg_iovlen = (size_t)out->count };
    int fd = bufferevent_getfd(c->bev), flags = MSG_NOSIGNAL | MSG_DONTWAIT;
    ssize_t n = out->count == 1 ? send(fd, out->vec[0].iov_base, out->len, flags) : sendmsg(fd, &message, flags);
    if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR || errno == ENOBUFS))
        return 0;
    return n;
}

/* Sends the output at once, or hands it to the bufferevent. False when the connection is broken. */
static bool conn_flush(struct connection *c, struct output *out)
{
    size_t sent = 0;
    if (conn_unsent(c) == 0) {
        ssize_t n = conn_send(c, out);
        if (n < 0)
            return false;
        sent = (size_t)n;
    }
    c->bytes_out += out->len;
    if (sent == out->len)
        return true;
    for (int i = 0; i < out->count; i++) {
        const char *data = out->vec[i].iov_base;
        size_t skip = sent < out->vec[i].iov_len ? sent : out->vec[i].iov_len;
        sent -= skip;
        if (skip < out->vec[i].iov_len && bufferevent_write(c->bev, data + skip, out->vec[i].iov_len - skip) < 0)
            return false;
    }
    return true;
}

/* Carries out a hook's verdict. False when the handler is not to be called any more; c may be gone then. */
static bool conn_act(struct connection *c, enum handler_next next, enum conn_reason aborted)
{
    struct output *out = &c->pool->output;
    bool failed = out->failed, sent = failed || next == HANDLER_ABORT || out->len == 0 || conn_flush(c, out);
    if (out->len > 0)
        output_reset(out);
    if (c->face.timeout_set) {
        c->face.timeout_set = false;
        conn_set_timeout(c, c->face.timeout);
    }
    if (failed || !sent) {
        conn_end(c, failed ? CONN_ERROR : CONN_RESET);
        return false;
    }
    if (next == HANDLER_ABORT) {
        conn_end(c, aborted);
        return false;
    }
    size_t unsent = conn_unsent(c);
    if (next == HANDLER_FINISH) {
        c->phase = PHASE_FLUSHING;
        conn_set_timeout(c, 0);
        if (unsent == 0)
            conn_linger(c);
        else
            bufferevent_disable(c->bev, EV_READ);
        return false;
    }
    if (unsent >= OUTPUT_HIGH && !c->paused) {
        c->paused = true;
        bufferevent_disable(c->bev, EV_READ);
    }
    return true;
}

/* Moves what has been read into the pool's input buffer, topped up from the socket when there is likely more. */
static struct bytes conn_receive(struct connection *c)
{
    char *input = c->pool->input;
    int taken = evbuffer_remove(bufferevent_get_input(c->bev), input, INPUT_SIZE);
    size_t len = taken > 0 ? (size_t)taken : 0;
    if (len >= BUFFEREVENT_READ && len < INPUT_SIZE && !c->eof) {
        /* an error or the end is left for the bufferevent to find */
        ssize_t n = recv(bufferevent_getfd(c->bev), input + len, INPUT_SIZE - len, MSG_DONTWAIT);
        len += n > 0 ? (size_t)n : 0;
    }
    c->bytes_in += len - c->unread;
    c->unread = 0;
    return (struct bytes){ .data = input, .len = len };
}

/* Gives the handler what has come. False when it is not to be called any more; c may be gone then. */
static bool conn_feed(struct connection *c)
{
    struct bytes in = conn_receive(c);
    bool again = in.len > 0;
    while (again) {
        enum handler_next next = c->settings->handler->input(&c->face, c->state, &in, &c->pool->output);
        bool full = output_full(&c->pool->output);
        if (!conn_act(c, next, CONN_ABORT))
            return false;
        again = full && in.len > 0 && !c->paused;
    }
    if (in.len == INPUT_SIZE && !c->paused) {
        conn_end(c, CONN_LIMIT);
        return false;
    }
    if (in.len > 0 && evbuffer_prepend(bufferevent_get_input(c->bev), in.data, in.len) < 0) {
        conn_end(c, CONN_ERROR);
        return false;
    }
    c->unread = in.len;
    return true;
}

/* The peer sends no more and the handler has seen every byte. */
static void conn_eof(struct connection *c)
{
    enum handler_next next = HANDLER_FINISH;
    if (c->settings->handler->eof != NULL)
        next = c->settings->handler->eof(&c->face, c->state, &c->pool->output);
    conn_act(c, next, CONN_ABORT);
}

static void on_read(struct bufferevent *bev, void *arg)
{
    struct connection *c = arg;
    c->face.now = deadline_now();
    if (c->phase == PHASE_LINGERING) {
        struct evbuffer *input = bufferevent_get_input(bev);
        c->bytes_in += evbuffer_get_length(input);
        evbuffer_drain(input, evbuffer_get_length(input));
        conn_touch(c, LINGER_QUIET);
    } else if (conn_feed(c)) {
        conn_touch(c, c->settings->idle_timeout);
    }
}

/* All output has gone out. */
static void on_write(struct bufferevent *bev, void *arg)
{
    struct connection *c = arg;
    c->face.now = deadline_now();
    if (c->phase == PHASE_FLUSHING) {
        conn_linger(c);
        return;
    }
    conn_touch(c, c->settings->idle_timeout);
    if (!c->paused)
        return;
    c->paused = false;
    if (!conn_feed(c) || c->paused)
        return;
    if (c->eof)
        conn_eof(c);
    else
        bufferevent_enable(bev, EV_READ);
}

static void on_event(struct bufferevent *bev, short what, void *arg)
{
    struct connection *c = arg;
    (void)bev;
    c->face.now = deadline_now();
    if (what & BEV_EVENT_ERROR) {
        conn_end(c, CONN_RESET);
    } else if (c->phase == PHASE_LINGERING) {
        conn_end(c, CONN_FINISHED);
    } else if (what & BEV_EVENT_EOF) {
        c->eof = true;
        if (!c->paused)
            conn_eof(c);
    }
}

static void on_timeout(struct deadline *d)
{
    struct connection *c = (struct connection *)((char *)d - offsetof(struct connection, timeout));
    enum handler_next next = HANDLER_ABORT;
    c->face.now = deadline_now();
    if (c->phase == PHASE_LINGERING) {
        conn_end(c, CONN_FINISHED);
        return;
    }
    if (c->settings->handler->expire != NULL)
        next = c->settings->handler->expire(&c->face, c->state, &c->pool->output);
    conn_act(c, next, CONN_DEADLINE);
}

static void on_idle(struct deadline *d)
{
    struct connection *c = (struct connection *)((char *)d - offsetof(struct connection, idle));
    c->face.now = deadline_now();
    if (c->phase == PHASE_LINGERING)
        conn_end(c, CONN_FINISHED);
    else if (conn_unsent(c) < c->unsent_was) /* a slow reader, but it reads */
        conn_touch(c, c->settings->idle_timeout);
    else
        conn_end(c, CONN_IDLE);
}

int conn_pool_init(struct conn_pool *pool, struct event_base *base, struct access *access)
{
    *pool = (struct conn_pool){ .base = base, .access = access };
    pool->input = malloc(INPUT_SIZE);
    if (pool->input == NULL || output_init(&pool->output) < 0 || deadlines_init(&pool->idle, base, on_idle) < 0 ||
        deadlines_init(&pool->timeout, base, on_timeout) < 0)
        return -1;
    return 0;
}

void conn_open(struct conn_pool *pool, const struct conn_settings *settings, int fd, const struct address *peer)
{
    struct connection *c = calloc(1, sizeof *c + settings->handler->state_size);
    if (c != NULL)
        c->bev = bufferevent_socket_new(pool->base, fd, BEV_OPT_CLOSE_ON_FREE);
    if (c == NULL || c->bev == NULL) {
        free(c);
        close(fd);
        settings->ended(settings->ended_arg);
        return;
    }
    c->face = (struct conn){ .peer = *peer, .listener = settings->listener, .access = pool->access };
    c->face.now = c->opened = deadline_now();
    c->pool = pool;
    c->settings = settings;
    c->next = pool->first;
    if (pool->first != NULL)
        pool->first->prev = c;
    pool->first = c;
    pool->count++;
    bufferevent_setcb(c->bev, on_read, on_write, on_event, c);
    conn_touch(c, settings->idle_timeout);
    if (settings->handler->open != NULL &&
        !conn_act(c, settings->handler->open(&c->face, c->state, settings->shared, &pool->output), CONN_ABORT))
        return;
    bufferevent_enable(c->bev, EV_READ);
}

void conn_pool_drain(struct conn_pool *pool)
{
    for (struct connection *c = pool->first, *next; c != NULL; c = next) {
        enum handler_next verdict = HANDLER_FINISH;
        next = c->next;
        c->face.now = deadline_now();
        c->face.draining = true;
        if (c->phase != PHASE_OPEN)
            continue;
        if (c->settings->handler->drain != NULL)
            verdict = c->settings->handler->drain(&c->face, c->state, &pool->output);
        conn_act(c, verdict, CONN_DRAIN);
    }
}

void conn_pool_abort(struct conn_pool *pool)
{
    while (pool->first != NULL)
        conn_end(pool->first, CONN_DRAIN);
}

void conn_pool_free(struct conn_pool *pool)
{
    deadlines_free(&pool->idle);
    deadlines_free(&pool->timeout);
    output_free(&pool->output);
    free(pool->input);
    pool->input = NULL;
}
