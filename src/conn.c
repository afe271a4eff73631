#include "conn.h"

#include "log.h"
#include "proxy.h"
#include "record.h"

#include <errno.h>
#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <event2/event.h>
#include <event2/event_struct.h>
#include <linux/sockios.h>
#include <stdalign.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

/*
 * How bytes move. What a socket has is received straight into the pool's one input buffer, and output is sent at once.
 * Only what the socket does not take gets a bufferevent, which holds it, waits and sends, and goes when it is empty. A
 * bufferevent for reading too would cost one more system call a read (FIONREAD) and read 4096 bytes at most, and one
 * that only waits would be most of the memory of an idle connection, which so holds no buffer at all. What a handler
 * that reflects would send back goes through the relay, uncopied, when much comes at once.
 */
#define INPUT_SIZE   65536   /* what is received at once */
#define BULK_BEGINS  32768   /* bytes at once from which a stream is bulk: the relay pays */
#define BULK_ENDS    16384   /* bytes at once below which it is not any more */
#define FLUSH_TOTAL  600000  /* ms in which the peer must take what is left when the handler has finished */
#define LINGER_QUIET 5000    /* ms without a byte from the peer, after we closed our side */
#define LINGER_DRAIN 1000    /* the same while the server stops */
#define LINGER_TOTAL 30000   /* ms altogether */
#define NANOSECONDS  1000000 /* in a millisecond */

enum phase {
    PHASE_PROXY,    /* the PROXY header comes */
    PHASE_TLS,      /* the handshake is under way */
    PHASE_OPEN,     /* the handler runs */
    PHASE_FLUSHING, /* the handler has finished; its output goes out */
    PHASE_LINGERING /* our side is closed; what the peer still sends is dropped until it closes too */
};

struct connection {
    struct conn face; /* what the handler sees */
    struct conn_pool *pool;
    const struct conn_settings *settings;
    void *ticket;                   /* for who is told of the end */
    struct connection *prev, *next; /* all of the pool */
    struct event readable;
    struct bufferevent *output; /* what the socket has not taken yet; while there is any, nothing more is read */
    struct record *record;      /* of TLS; NULL: none is spoken */
    char *unread;               /* what the handler left unread, or the beginning of a PROXY header; NULL: nothing */
    size_t unread_len;
    struct deadline idle, timeout;
    int64_t opened;
    uint64_t bytes_in, bytes_out; /* received, and given to the socket or to output */
    uint64_t timeout_wish;        /* ms; what the handler asked for, while its time stands still */
    uint64_t delivered_was;       /* bytes that had arrived when the idle deadline came last */
    unsigned looks;               /* how often it came since the last of them did */
    unsigned header;              /* bytes of the PROXY header */
    enum phase phase;
    enum conn_reason finished; /* why it ends when it has lingered */
    bool started;              /* the handler has been opened */
    bool ended;                /* the peer has said in TLS that no more comes, */
    bool eof;                  /* or at all, and so the handler knows */
    bool bulk;                 /* goes through the relay: the handler reflects, and much came at once */
    alignas(max_align_t) char state[];
};

const char *const conn_reason_words[CONN_REASONS] = {
    [CONN_FIN] = "fin",           [CONN_FINISHED] = "finished", [CONN_RESET] = "reset",     [CONN_CUT] = "cut",
    [CONN_PROXY] = "proxy",       [CONN_TLS] = "tls",           [CONN_REFUSED] = "refused", [CONN_IDLE] = "idle",
    [CONN_DEADLINE] = "deadline", [CONN_LIMIT] = "limit",       [CONN_DRAIN] = "drain",     [CONN_ABORT] = "abort",
    [CONN_ERROR] = "error",
};

static void on_drained(struct bufferevent *output, void *arg);
static void on_broken(struct bufferevent *output, short what, void *arg);

/* --- What is known of one --------------------------------------------------------------------------------------- */

static size_t conn_unsent(const struct connection *c)
{
    return c->output != NULL ? evbuffer_get_length(bufferevent_get_output(c->output)) : 0;
}

/* What the socket has taken. */
static uint64_t conn_sent(const struct connection *c)
{
    return c->bytes_out - conn_unsent(c);
}

static int conn_fd(const struct connection *c)
{
    return event_get_fd(&c->readable);
}

/* Whom the proxy told, as the last field of a line. */
static struct log_field log_told(const struct connection *c, char buf[ADDRESS_TEXT])
{
    return c->face.told.len > 0 ? log_text("told", address_format(&c->face.told, buf)) : (struct log_field){ 0 };
}

static void conn_log(const struct connection *c, enum conn_reason reason)
{
    char peer[ADDRESS_TEXT], told[ADDRESS_TEXT];
    if (log_enabled(LEVEL_DEBUG))
        log_event(LEVEL_DEBUG, "closed", log_text("listener", c->face.context->listener),
                  log_text("peer", address_format(&c->face.peer, peer)), log_text("reason", conn_reason_words[reason]),
                  log_number("bytes_in", c->bytes_in), log_number("bytes_out", conn_sent(c)),
                  log_duration("duration", deadline_now() - c->opened), log_told(c, told));
}

/* What a peer did wrong before the handler knew of it. */
static void conn_log_failure(const struct connection *c, const char *message, const char *why)
{
    char peer[ADDRESS_TEXT], told[ADDRESS_TEXT];
    log_event(LEVEL_INFO, message, log_text("listener", c->face.context->listener),
              log_text("peer", address_format(&c->face.peer, peer)), log_text("error", why), log_told(c, told));
}

static void conn_count_end(const struct connection *c, enum conn_reason reason)
{
    struct conn_metrics *metrics = c->settings->metrics;
    counter_add(&metrics->closed[reason], 1);
    counter_add(&metrics->silent, c->bytes_in == c->header);
    histogram_add(&metrics->duration, c->face.now - c->opened, 1);
}

/* --- The end ---------------------------------------------------------------------------------------------------- */

/*
 * Sends what the socket takes of the list now. Returns how much that was, or -1 when the connection is broken. last: our
 * side closes next, and its FIN goes into the segment of the last bytes, which wait for it.
 */
static ssize_t conn_send(struct connection *c, struct output *out, bool last)
{
    struct msghdr message = { .msg_iov = out->vec, .msg_iovlen = (size_t)out->count };
    int fd = conn_fd(c), flags = MSG_NOSIGNAL | MSG_DONTWAIT | (last ? MSG_MORE : 0);
    ssize_t n = out->count == 1 ? send(fd, out->vec[0].iov_base, out->len, flags) : sendmsg(fd, &message, flags);
    if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR || errno == ENOBUFS))
        return 0;
    return n;
}

/* A connection over TLS that is closed in order, without a last word of the handler, says so if there is room. */
static void conn_part(struct connection *c, enum conn_reason reason)
{
    struct output *wire = &c->pool->wire;
    bool in_order = reason == CONN_FINISHED || reason == CONN_IDLE;
    if (c->record == NULL || c->phase != PHASE_OPEN || c->output != NULL || !in_order)
        return;
    record_close(c->record, wire);
    if (wire->len > 0)
        conn_send(c, wire, false);
    output_reset(wire);
}

/* The only exit. Nothing of c may be touched afterwards. */
static void conn_end(struct connection *c, enum conn_reason reason)
{
    struct conn_pool *pool = c->pool;
    const struct conn_settings *settings = c->settings;
    void *ticket = c->ticket;
    if (c->started && settings->handler->close != NULL)
        settings->handler->close(c->state);
    conn_part(c, reason);
    conn_log(c, reason);
    conn_count_end(c, reason);
    deadline_unset(&c->idle);
    deadline_unset(&c->timeout);
    if (c->next != NULL)
        c->next->prev = c->prev;
    *(c->prev != NULL ? &c->prev->next : &pool->first) = c->next;
    pool->count--;
    event_del(&c->readable);
    if (c->output != NULL)
        bufferevent_free(c->output);
    close(conn_fd(c));
    record_free(c->record);
    free(c->unread);
    free(c);
    settings->ended(settings, ticket);
}

/* --- Deadlines, and the way to the end -------------------------------------------------------------------------- */

/* A byte moved: the idle deadline starts anew. False when memory ran out, which it can for a new duration only. */
static bool conn_touch(struct connection *c, uint64_t milliseconds)
{
    return deadline_set(&c->pool->idle, &c->idle, c->face.now, (int64_t)milliseconds * NANOSECONDS) == 0;
}

static bool conn_set_timeout(struct connection *c, uint64_t milliseconds)
{
    return deadline_set(&c->pool->timeout, &c->timeout, c->face.now, (int64_t)milliseconds * NANOSECONDS) == 0;
}

/*
 * Grants the handler's wish for a time limit. Its time stands still while output waits: nothing is read then, so the
 * peer cannot do what it has time for. False when memory ran out.
 */
static bool conn_grant_timeout(struct connection *c)
{
    bool wished = c->face.timeout_set;
    c->face.timeout_set = false;
    if (wished)
        c->timeout_wish = c->face.timeout;
    if (c->output != NULL || c->timeout_wish == 0) {
        deadline_unset(&c->timeout);
        return true;
    }
    return (!wished && c->timeout.next != NULL) || conn_set_timeout(c, c->timeout_wish);
}

/* Bytes that have not arrived: in output, or in the socket. */
static uint64_t conn_undelivered(const struct connection *c)
{
    int queued = 0;
    ioctl(conn_fd(c), SIOCOUTQ, &queued);
    queued -= c->phase == PHASE_LINGERING; /* our FIN */
    uint64_t most = conn_sent(c),
             sent = queued > 0 ? (uint64_t)queued : 0; /* a unix socket counts its own memory too */
    return conn_unsent(c) + (sent < most ? sent : most);
}

/* How long nothing may happen before we look what became of the peer. */
static uint64_t conn_quiet(const struct connection *c)
{
    uint64_t idle = c->settings->idle_timeout, linger = c->face.draining ? LINGER_DRAIN : LINGER_QUIET;
    return c->phase != PHASE_LINGERING || idle < linger ? idle : linger;
}

/*
 * Closes our side, and waits for the peer to close its own: a socket that is closed with input unread, or that more
 * comes for, resets, and that destroys what the peer has not read yet (RFC 9112 section 9.6).
 */
static void conn_linger(struct connection *c)
{
    if (c->eof) {
        conn_end(c, CONN_FIN);
        return;
    }
    shutdown(conn_fd(c), SHUT_WR);
    c->phase = PHASE_LINGERING;
    bool delivered = conn_undelivered(c) == 0;
    if (!conn_set_timeout(c, delivered ? LINGER_TOTAL : FLUSH_TOTAL) || !conn_touch(c, conn_quiet(c)) ||
        event_add(&c->readable, NULL) < 0)
        conn_end(c, CONN_ERROR);
}

/* The handler has finished: what waits goes out, within bounds, and then our side closes. */
static void conn_finish(struct connection *c)
{
    c->phase = PHASE_FLUSHING;
    if (c->output == NULL) {
        conn_linger(c);
        return;
    }
    event_del(&c->readable);
    if (!conn_set_timeout(c, FLUSH_TOTAL) || !conn_touch(c, c->settings->idle_timeout))
        conn_end(c, CONN_ERROR);
}

/* --- Output ----------------------------------------------------------------------------------------------------- */

/* Lets a bufferevent send what the socket did not take. False when memory ran out. */
static bool conn_queue(struct connection *c, const struct output *out, size_t sent)
{
    if (c->output == NULL) {
        c->output = bufferevent_socket_new(c->pool->base, conn_fd(c), 0);
        if (c->output == NULL)
            return false;
        bufferevent_setcb(c->output, NULL, on_drained, on_broken, c);
    }
    for (int i = 0; i < out->count; i++) {
        const char *data = out->vec[i].iov_base;
        size_t skip = sent < out->vec[i].iov_len ? sent : out->vec[i].iov_len;
        sent -= skip;
        if (skip < out->vec[i].iov_len && bufferevent_write(c->output, data + skip, out->vec[i].iov_len - skip) < 0)
            return false;
    }
    return true;
}

/* Sends the output at once, or queues it. False with *reason when that cannot be. */
static bool conn_flush(struct connection *c, struct output *out, bool last, enum conn_reason *reason)
{
    ssize_t sent = c->output == NULL ? conn_send(c, out, last) : 0;
    *reason = sent < 0 ? CONN_RESET : CONN_ERROR;
    if (sent < 0)
        return false;
    c->bytes_out += out->len;
    counter_add(&c->settings->metrics->bytes_out, out->len);
    return (size_t)sent == out->len || conn_queue(c, out, (size_t)sent);
}

/* The same, by way of the record layer if there is one; then with its end when this is the last output. */
static bool conn_put(struct connection *c, struct output *out, bool last, enum conn_reason *reason)
{
    if (c->record == NULL)
        return out->len == 0 || conn_flush(c, out, last, reason);
    struct output *wire = &c->pool->wire;
    bool sound = out->len == 0 || record_write(c->record, out, wire);
    if (last)
        record_close(c->record, wire);
    *reason = CONN_ERROR;
    sound = sound && !wire->failed && (wire->len == 0 || conn_flush(c, wire, last, reason));
    output_reset(wire);
    return sound;
}

/* Carries out a hook's verdict. False when the handler is not to be called any more; c may be gone then. */
static bool conn_act(struct connection *c, enum handler_next next, enum conn_reason aborted)
{
    struct output *out = &c->pool->output;
    enum conn_reason reason = out->failed ? CONN_ERROR : aborted;
    bool sound = next != HANDLER_ABORT && !out->failed && conn_put(c, out, next == HANDLER_FINISH, &reason);
    if (out->len > 0 || out->failed)
        output_reset(out);
    if (sound && next == HANDLER_FINISH) {
        conn_finish(c);
        return false;
    }
    if (sound && !conn_grant_timeout(c)) {
        sound = false;
        reason = CONN_ERROR;
    }
    if (!sound)
        conn_end(c, reason);
    else if (c->output != NULL)
        event_del(&c->readable); /* until it is drained */
    return sound;
}

/* --- Input ------------------------------------------------------------------------------------------------------ */

/* Keeps what the handler left unread. False when that is too much; c is gone then. */
static bool conn_keep(struct connection *c, struct bytes in)
{
    if (in.len >= INPUT_SIZE && c->output == NULL) {
        conn_end(c, CONN_LIMIT);
        return false;
    }
    char *kept = in.len > 0 ? realloc(c->unread, in.len) : NULL;
    if (in.len > 0 && kept == NULL) {
        conn_end(c, CONN_ERROR);
        return false;
    }
    if (in.len > 0)
        memcpy(kept, in.data, in.len);
    else
        free(c->unread);
    c->unread = kept;
    c->unread_len = in.len;
    return true;
}

/* Gives the handler what it left unread and what came. False when it is not to be called any more; c may be gone. */
static bool conn_feed(struct connection *c, struct bytes in)
{
    bool again = true;
    while (again) {
        enum handler_next next = c->settings->handler->input(&c->face, c->state, &in, &c->pool->output);
        bool full = output_full(&c->pool->output);
        if (!conn_act(c, next, CONN_ABORT))
            return false;
        again = full && in.len > 0 && c->output == NULL;
    }
    return (in.len == 0 && c->unread_len == 0) || conn_keep(c, in);
}

/* Puts what was left unread into a buffer of the pool; returns how much that is. */
static size_t conn_show(const struct connection *c, char *buf)
{
    if (c->unread_len > 0)
        memcpy(buf, c->unread, c->unread_len);
    return c->unread_len;
}

/* The peer sends no more and the handler has seen every byte. */
static void conn_eof(struct connection *c)
{
    enum handler_next next = HANDLER_FINISH;
    c->eof = true;
    event_del(&c->readable);
    if (c->settings->handler->eof != NULL)
        next = c->settings->handler->eof(&c->face, c->state, &c->pool->output);
    conn_act(c, next, CONN_ABORT);
}

/* The socket has no bytes to give: nothing yet (errno), its end, or an error. */
static void conn_no_input(struct connection *c, ssize_t n)
{
    if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR))
        return;
    /* who was sent an alert may well reset */
    if (c->phase == PHASE_LINGERING && (n == 0 || c->finished == CONN_TLS))
        conn_end(c, c->finished);
    else if (n < 0)
        conn_end(c, CONN_RESET);
    else if (c->phase < PHASE_OPEN)
        conn_end(c, c->bytes_in == c->header ? CONN_FIN : CONN_CUT);
    else if (c->record != NULL)
        conn_end(c, CONN_CUT);
    else
        conn_eof(c);
}

/* --- Bulk ------------------------------------------------------------------------------------------------------- */

/* Queues what the relay could not give to the socket. False when that cannot be. */
static bool conn_queue_rest(struct connection *c)
{
    struct conn_pool *pool = c->pool;
    while (pool->relay.held > 0) {
        ssize_t n = relay_rest(&pool->relay, pool->input, INPUT_SIZE);
        if (n <= 0)
            return false;
        output_borrow(&pool->output, pool->input, (size_t)n);
        bool queued = conn_queue(c, &pool->output, 0);
        output_reset(&pool->output);
        if (!queued)
            return false;
    }
    return true;
}

/* The connection ends while the relay holds what it could not give, which must not go to the next one. */
static void conn_end_relayed(struct connection *c, enum conn_reason reason)
{
    relay_close(&c->pool->relay);
    relay_open(&c->pool->relay); /* or later, when there are descriptors */
    conn_end(c, reason);
}

/* Does for a handler that reflects what input() and the flush would, with the same ends. */
static void conn_relay(struct connection *c)
{
    struct relay *relay = &c->pool->relay;
    struct conn_metrics *metrics = c->settings->metrics;
    ssize_t n = relay_take(relay, conn_fd(c));
    c->face.now = deadline_now();
    c->bulk = n >= BULK_ENDS;
    if (n == 0 || (n < 0 && errno == EINVAL))
        return; /* not here, or the end, or urgent data in front of it: the next turn goes the usual way, and can tell */
    if (n < 0) {
        conn_no_input(c, n);
        return;
    }
    c->bytes_in += (size_t)n;
    counter_add(&metrics->bytes_in, (size_t)n);
    if (relay_give(relay, conn_fd(c)) < 0) {
        conn_end_relayed(c, CONN_RESET);
        return;
    }
    c->bytes_out += (size_t)n;
    counter_add(&metrics->bytes_out, (size_t)n);
    if (!conn_queue_rest(c)) {
        conn_end_relayed(c, CONN_ERROR);
        return;
    }
    conn_touch(c, c->settings->idle_timeout);
    conn_act(c, HANDLER_MORE, CONN_ERROR);
}

static void conn_drain(struct connection *c)
{
    enum handler_next verdict = HANDLER_FINISH;
    c->face.now = deadline_now();
    if (c->settings->handler->drain != NULL)
        verdict = c->settings->handler->drain(&c->face, c->state, &c->pool->output);
    if (verdict == HANDLER_FINISH && c->pool->output.len == 0 && conn_undelivered(c) == 0)
        conn_end(c, CONN_FINISHED); /* the peer has everything, so there is nothing to linger for */
    else
        conn_act(c, verdict, CONN_DRAIN);
}

/* --- Below the handler: the PROXY header, then TLS -------------------------------------------------------------- */

/* The handler takes over. False when it is not to be called any more; c may be gone then. */
static bool conn_start(struct connection *c)
{
    const struct handler *handler = c->settings->handler;
    deadline_unset(&c->timeout);
    c->phase = PHASE_OPEN;
    c->started = true;
    return handler->open == NULL ||
           conn_act(c, handler->open(&c->face, c->state, c->settings->shared, &c->pool->output), CONN_ABORT);
}

/* Buffers for records, once a worker has a connection that needs them. */
static bool pool_prepare_tls(struct conn_pool *pool)
{
    if (pool->plain == NULL && (pool->wire.first != NULL || output_init(&pool->wire) == 0))
        pool->plain = malloc(2 * INPUT_SIZE + RECORD_MAX);
    return pool->plain != NULL;
}

/* What follows the PROXY header, or the accept. False when c is gone. */
static bool conn_begin(struct connection *c)
{
    if (c->settings->tls == NULL)
        return conn_start(c);
    c->phase = PHASE_TLS;
    if (pool_prepare_tls(c->pool))
        c->record = record_open(c->settings->tls);
    if (c->record != NULL)
        return true;
    conn_end(c, CONN_ERROR);
    return false;
}

/* Takes the PROXY header off. False when more is needed, or c is gone. */
static bool conn_take_header(struct connection *c, struct bytes *in)
{
    struct proxy_header header;
    switch (proxy_parse(in->data, in->len, &header)) {
    case PROXY_MORE:
        conn_keep(c, *in);
        return false;
    case PROXY_REFUSED:
        conn_log_failure(c, "PROXY header refused", header.sentence);
        conn_end(c, CONN_PROXY);
        return false;
    case PROXY_DONE:
        break;
    }
    bytes_skip(in, header.len);
    c->header = (unsigned)header.len;
    conn_keep(c, (struct bytes){ 0 });
    if (!header.told)
        return conn_begin(c);
    c->face.told = header.source;
    if (c->settings->told(c->settings, &c->face.told, c->face.now, &c->ticket))
        return conn_begin(c);
    conn_end(c, CONN_REFUSED);
    return false;
}

/* Gives what the record layer has to say to the socket. False when that cannot be; c is gone then. */
static bool conn_flush_wire(struct connection *c)
{
    struct output *wire = &c->pool->wire;
    enum conn_reason reason = CONN_ERROR;
    bool sound = !wire->failed && (wire->len == 0 || conn_flush(c, wire, false, &reason));
    output_reset(wire);
    if (!sound)
        conn_end(c, reason);
    else if (c->output != NULL)
        event_del(&c->readable);
    return sound;
}

/* Takes records apart. False when the handler is not to be called any more; c may be gone then. */
static bool conn_take_records(struct connection *c, struct bytes in)
{
    char why[TLS_REASON], *plain = c->pool->plain;
    size_t len, shown = conn_show(c, plain);
    enum record_verdict verdict = record_read(c->record, in, plain + shown, &len, &c->pool->wire);
    if (verdict == RECORD_FAILED)
        record_reason(c->record, why);
    if (!conn_flush_wire(c) || (c->phase == PHASE_TLS && record_ready(c->record) && !conn_start(c)))
        return false;
    if (verdict == RECORD_FAILED) {
        conn_log_failure(c, "TLS failed", why);
        c->finished = CONN_TLS;
        conn_finish(c); /* so that the alert arrives */
        return false;
    }
    if (c->phase == PHASE_TLS && verdict == RECORD_CLOSED) {
        conn_end(c, CONN_CUT);
        return false;
    }
    if (len > 0 && !conn_feed(c, (struct bytes){ .data = plain, .len = shown + len }))
        return false;
    c->ended = verdict == RECORD_CLOSED;
    if (!c->ended || c->output != NULL)
        return true;
    conn_eof(c);
    return false;
}

/* Takes off what is below the handler, and gives it the rest. */
static void conn_unwrap(struct connection *c, struct bytes in)
{
    bool new = !c->started, open = c->phase != PHASE_PROXY || conn_take_header(c, &in);
    if (open && in.len > 0)
        open = c->record != NULL ? conn_take_records(c, in) : conn_feed(c, in);
    if (open && new && c->started && c->pool->drained)
        conn_drain(c);
}

/* --- Events ----------------------------------------------------------------------------------------------------- */

static void on_readable(evutil_socket_t fd, short what, void *arg)
{
    struct connection *c = arg;
    (void)what;
    if (c->bulk && c->phase == PHASE_OPEN) {
        conn_relay(c);
        return;
    }
    size_t shown = c->phase <= PHASE_OPEN && c->record == NULL ? conn_show(c, c->pool->input) : 0;
    ssize_t n = recv(fd, c->pool->input + shown, INPUT_SIZE - shown, MSG_DONTWAIT);
    c->face.now = deadline_now();
    if (n <= 0) {
        conn_no_input(c, n);
        return;
    }
    c->bytes_in += (size_t)n;
    counter_add(&c->settings->metrics->bytes_in, (size_t)n);
    c->bulk = n >= BULK_BEGINS && c->settings->handler->reflects && c->phase == PHASE_OPEN && c->record == NULL;
    conn_touch(c, conn_quiet(c));
    const struct bytes in = { .data = c->pool->input, .len = shown + (size_t)n };
    if (c->phase == PHASE_OPEN && c->record == NULL)
        conn_feed(c, in);
    else if (c->phase <= PHASE_OPEN)
        conn_unwrap(c, in);
}

/* All output has gone out: the bufferevent is not needed any more, and what waited for this goes on. */
static void on_drained(struct bufferevent *output, void *arg)
{
    struct connection *c = arg;
    bufferevent_free(output);
    c->output = NULL;
    c->face.now = deadline_now();
    if (c->phase == PHASE_FLUSHING) {
        conn_linger(c);
        return;
    }
    conn_touch(c, c->settings->idle_timeout);
    char *buf = c->record != NULL ? c->pool->plain : c->pool->input; /* of TLS more than INPUT_SIZE may be unread */
    const struct bytes unread = { .data = buf, .len = conn_show(c, buf) };
    if ((unread.len > 0 && !conn_feed(c, unread)) || c->output != NULL)
        return;
    if (c->ended && !c->eof)
        conn_eof(c);
    else if ((c->phase == PHASE_OPEN && !conn_grant_timeout(c)) || (!c->eof && event_add(&c->readable, NULL) < 0))
        conn_end(c, CONN_ERROR);
}

/* The peer has reset the connection while output waited. */
static void on_broken(struct bufferevent *output, short what, void *arg)
{
    struct connection *c = arg;
    (void)output;
    (void)what;
    c->face.now = deadline_now();
    conn_end(c, CONN_RESET);
}

static void on_timeout(struct deadline *d)
{
    struct connection *c = (struct connection *)((char *)d - offsetof(struct connection, timeout));
    enum handler_next next = HANDLER_ABORT;
    c->face.now = deadline_now();
    c->timeout_wish = 0;
    if (c->phase != PHASE_OPEN) {
        conn_end(c, c->phase == PHASE_LINGERING ? c->finished : CONN_DEADLINE);
        return;
    }
    if (c->settings->handler->expire != NULL)
        next = c->settings->handler->expire(&c->face, c->state, &c->pool->output);
    conn_act(c, next, CONN_DEADLINE);
}

/* No call of ours has moved a byte for a while; but the peer may still be reading what was sent before. */
static void on_idle(struct deadline *d)
{
    struct connection *c = (struct connection *)((char *)d - offsetof(struct connection, idle));
    uint64_t undelivered = conn_undelivered(c), delivered = c->bytes_out - undelivered, was = c->delivered_was;
    uint64_t quiet = conn_quiet(c);
    bool moved = delivered > was && (undelivered > 0 || was > 0);
    c->face.now = deadline_now();
    c->delivered_was = undelivered > 0 ? delivered : 0;
    c->looks = moved ? 0 : c->looks + 1;
    if (moved || (undelivered > 0 && c->looks * quiet < c->settings->idle_timeout))
        conn_touch(c, quiet);
    else
        conn_end(c, c->phase == PHASE_LINGERING ? c->finished : CONN_IDLE);
}

/* --- A pool ----------------------------------------------------------------------------------------------------- */

int conn_pool_init(struct conn_pool *pool, struct event_base *base)
{
    *pool = (struct conn_pool){ .base = base };
    pool->input = malloc(INPUT_SIZE);
    if (pool->input == NULL || output_init(&pool->output) < 0 || deadlines_init(&pool->idle, base, on_idle) < 0 ||
        deadlines_init(&pool->timeout, base, on_timeout) < 0 || relay_open(&pool->relay) < 0)
        return -1;
    return 0;
}

/* Puts a new connection in front of the pool's list. */
static void conn_link(struct connection *c, struct conn_pool *pool)
{
    c->pool = pool;
    c->next = pool->first;
    if (pool->first != NULL)
        pool->first->prev = c;
    pool->first = c;
    pool->count++;
}

bool conn_open(struct conn_pool *pool, const struct conn_settings *settings, int fd, const struct address *peer,
               int64_t now, void *ticket)
{
    struct connection *c = calloc(1, sizeof *c + settings->handler->state_size);
    if (c == NULL || event_assign(&c->readable, pool->base, fd, EV_READ | EV_PERSIST, on_readable, c) < 0) {
        free(c);
        return false;
    }
    c->face = (struct conn){ .peer = *peer, .context = &settings->context, .now = now, .draining = pool->draining };
    c->opened = now;
    c->settings = settings;
    c->ticket = ticket;
    c->finished = CONN_FINISHED;
    conn_link(c, pool);
    counter_add(&settings->metrics->opened, 1);
    c->phase = PHASE_PROXY;
    if (!settings->proxy && !conn_begin(c))
        return true;
    if ((c->phase < PHASE_OPEN && !conn_set_timeout(c, settings->handshake_timeout)) ||
        !conn_touch(c, settings->idle_timeout) || (c->output == NULL && event_add(&c->readable, NULL) < 0))
        conn_end(c, CONN_ERROR);
    return true;
}

/* Whether bytes that come are for the handler, or for what is below it. */
static bool conn_listens(const struct connection *c)
{
    return c->phase <= PHASE_OPEN && c->output == NULL && !c->eof;
}

void conn_pool_announce(struct conn_pool *pool)
{
    pool->draining = true;
    for (struct connection *c = pool->first; c != NULL; c = c->next)
        c->face.draining = true;
}

void conn_pool_drain(struct conn_pool *pool)
{
    conn_pool_announce(pool);
    /* first what has come already: a request that waits in the socket is in flight */
    for (struct connection *c = pool->first, *next; c != NULL; c = next) {
        next = c->next;
        if (conn_listens(c))
            on_readable(conn_fd(c), EV_READ, c);
    }
    pool->drained = true;
    for (struct connection *c = pool->first, *next; c != NULL; c = next) {
        /* conn_end() has taken off this list what it freed: NOLINTNEXTLINE(clang-analyzer-unix.Malloc) */
        next = c->next;
        if (c->phase == PHASE_OPEN)
            conn_drain(c);
        else if (c->phase < PHASE_OPEN && c->bytes_in == c->header)
            conn_end(c, CONN_FINISHED); /* it has not begun to speak */
    }
}

void conn_pool_abort(struct conn_pool *pool)
{
    int64_t now = deadline_now();
    for (struct connection *c = pool->first, *next; c != NULL; c = next) {
        next = c->next;
        c->face.now = now;
        conn_end(c, c->phase == PHASE_LINGERING ? c->finished : CONN_DRAIN);
    }
}

void conn_pool_free(struct conn_pool *pool)
{
    deadlines_free(&pool->idle);
    deadlines_free(&pool->timeout);
    output_free(&pool->output);
    output_free(&pool->wire);
    relay_close(&pool->relay);
    free(pool->plain);
    free(pool->input);
    pool->input = NULL;
}
