#include "probe/probe.h"

#include "deadline.h"
#include "probe/timer.h"

#include <errno.h>
#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <event2/event.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define NANOSECONDS 1000000 /* in a millisecond */

enum stage { STAGE_DIAL, STAGE_TLS, STAGE_EXCHANGE };

struct probe {
    const struct probe_settings *settings;
    const struct target *target;
    struct exchange *exchange;
    void (*done)(void *arg, const struct probe_result *);
    void *arg;
    struct dial *dial; /* that runs */
    struct bufferevent *connection;
    struct event *timer;
    enum stage stage;
    int64_t begun, ready; /* when the probe began, and its exchange */
    int64_t connected;
    struct probe_result result;
};

static void probe_free(struct probe *p)
{
    dial_cancel(p->dial);
    if (p->stage == STAGE_EXCHANGE && target_is_tls(p->target))
        tlsclient_half_close(p->connection); /* else the server must take the end for a cut */
    if (p->connection != NULL)
        bufferevent_free(p->connection);
    event_free(p->timer);
    p->exchange->free(p->exchange);
    free(p);
}

/* The only end that is told. */
static void probe_finish(struct probe *p)
{
    struct probe_result *result = &p->result;
    result->total = deadline_now() - p->begun;
    result->answer = p->stage == STAGE_EXCHANGE ? p->exchange : NULL;
    p->done(p->arg, result);
    probe_free(p);
}

static void probe_fail(struct probe *p, enum failure_class class, const char *text)
{
    failure_set(&p->result.failure, class, "%s", text);
    probe_finish(p);
}

/* The time limit, counted from the begin of the probe. */
static void probe_set_timer(struct probe *p, int64_t limit)
{
    timer_set(p->timer, p->begun + limit - deadline_now());
}

/* --- The exchange */

/* libevent shows a part of what has come, such as 4096 bytes. False when there is nothing behind it. */
static bool probe_peek(const struct probe *p, char *byte)
{
    if (target_is_tls(p->target))
        return tlsclient_peek(p->connection, byte);
    return recv(bufferevent_getfd(p->connection), byte, 1, MSG_PEEK | MSG_DONTWAIT) > 0;
}

static void on_input(struct bufferevent *b, void *arg)
{
    struct probe *p = arg;
    struct evbuffer *input = bufferevent_get_input(b);
    size_t len = evbuffer_get_length(input);
    if (p->result.first == PHASE_NEVER)
        p->result.first = deadline_now() - p->ready;
    struct bytes in = { .data = (const char *)evbuffer_pullup(input, -1), .len = len };
    enum exchange_next next = p->exchange->input(p->exchange, in, &p->result.failure);
    char byte;
    if (next == EXCHANGE_DONE && probe_peek(p, &byte))
        next = p->exchange->input(p->exchange, (struct bytes){ .data = &byte, .len = 1 }, &p->result.failure);
    if (next != EXCHANGE_MORE) {
        probe_finish(p);
        return;
    }
    evbuffer_drain(input, len);
}

/* All has been sent. Over TLS this comes with the end of the handshake too. */
static void on_sent(struct bufferevent *b, void *arg)
{
    struct probe *p = arg;
    if (p->stage != STAGE_EXCHANGE || !p->exchange->half_close || evbuffer_get_length(bufferevent_get_output(b)) > 0)
        return;
    bufferevent_disable(b, EV_WRITE);
    if (target_is_tls(p->target))
        tlsclient_half_close(b);
    else
        shutdown(bufferevent_getfd(b), SHUT_WR);
}

static void on_eof(struct probe *p)
{
    bool clean = !target_is_tls(p->target) || tlsclient_ended(p->connection);
    p->exchange->eof(p->exchange, clean, &p->result.failure);
    probe_finish(p);
}

/* What the connection broke with, when it is not TLS that says it. */
static void on_broken(struct probe *p, int error)
{
    if (error == ETIMEDOUT)
        probe_fail(p, FAILURE_TIMEOUT, "the server has vanished");
    else if (error == ECONNRESET || error == EPIPE)
        probe_fail(p, FAILURE_RESET, "the server reset the connection");
    else
        probe_fail(p, FAILURE_RESET, failure_errno(error));
}

/* Over TLS: an end without close_notify is an end; all else is an error of TLS or of the connection. */
static void on_tls_broken(struct probe *p)
{
    struct failure failure = { 0 };
    tlsclient_explain(p->connection, p->stage == STAGE_TLS, &failure);
    if (failure.class == FAILURE_SHORT && p->stage == STAGE_EXCHANGE) {
        on_eof(p);
        return;
    }
    p->result.failure = failure;
    probe_finish(p);
}

static void probe_exchange(struct probe *p)
{
    const struct bytes request = p->exchange->request;
    struct evbuffer *output = bufferevent_get_output(p->connection);
    p->stage = STAGE_EXCHANGE;
    p->ready = deadline_now();
    probe_set_timer(p, p->settings->timeout);
    if (bufferevent_enable(p->connection, EV_READ | EV_WRITE) < 0 ||
        (request.len > 0 && evbuffer_add_reference(output, request.data, request.len, NULL, NULL) < 0))
        probe_fail(p, FAILURE_SYSTEM, "out of memory");
    else if (request.len == 0)
        on_sent(p->connection, p);
}

static void on_event(struct bufferevent *b, short what, void *arg)
{
    struct probe *p = arg;
    int error = EVUTIL_SOCKET_ERROR();
    (void)b;
    if ((what & BEV_EVENT_CONNECTED) != 0) {
        p->result.tls = deadline_now() - p->connected;
        probe_exchange(p);
    } else if ((what & BEV_EVENT_EOF) != 0 && p->stage == STAGE_EXCHANGE) {
        on_eof(p);
    } else if (target_is_tls(p->target)) {
        on_tls_broken(p);
    } else {
        on_broken(p, error);
    }
}

/* --- Before it */

static void on_timer(evutil_socket_t fd, short what, void *arg)
{
    struct probe *p = arg;
    bool exchange = p->stage == STAGE_EXCHANGE;
    int64_t limit = exchange ? p->settings->timeout : p->settings->connect_timeout;
    (void)fd;
    (void)what;
    failure_set(&p->result.failure, FAILURE_TIMEOUT, "%s within %" PRId64 " ms",
                exchange ? "no whole answer" : "no TLS handshake", limit / NANOSECONDS);
    probe_finish(p);
}

static void on_dialled(void *arg, const struct dialled *d, const struct failure *failure)
{
    struct probe *p = arg;
    p->dial = NULL;
    if (d->resolved != 0)
        p->result.resolve = d->resolved - p->begun;
    if (d->fd < 0) {
        p->result.failure = *failure;
        probe_finish(p);
        return;
    }
    p->connected = d->connected;
    p->result.connect = d->connected - d->resolved;
    if (target_is_tls(p->target)) {
        p->stage = STAGE_TLS;
        probe_set_timer(p, p->settings->connect_timeout);
        p->connection =
            tlsclient_start(p->settings->tls, &p->settings->tls_settings, p->target, p->settings->dialer->base, d->fd);
    } else {
        p->connection = bufferevent_socket_new(p->settings->dialer->base, d->fd, BEV_OPT_CLOSE_ON_FREE);
    }
    if (p->connection == NULL) {
        close(d->fd);
        probe_fail(p, FAILURE_SYSTEM, "out of memory");
        return;
    }
    bufferevent_setcb(p->connection, on_input, on_sent, on_event, p);
    if (p->stage == STAGE_DIAL)
        probe_exchange(p);
}

struct probe *probe_start(const struct probe_settings *settings, const struct target *t, struct exchange *exchange,
                          void (*done)(void *arg, const struct probe_result *), void *arg)
{
    struct probe *p = calloc(1, sizeof *p);
    if (p == NULL) {
        exchange->free(exchange);
        return NULL;
    }
    *p = (struct probe){ .settings = settings, .target = t, .exchange = exchange, .done = done, .arg = arg };
    p->result = (struct probe_result){
        .resolve = PHASE_NEVER, .connect = PHASE_NEVER, .tls = PHASE_NEVER, .first = PHASE_NEVER
    };
    p->begun = deadline_now();
    p->timer = evtimer_new(settings->dialer->base, on_timer, p);
    if (p->timer == NULL) {
        exchange->free(exchange);
        free(p);
        return NULL;
    }
    p->dial = dial_start(settings->dialer, t, NULL, p->begun + settings->connect_timeout, on_dialled, p);
    if (p->dial != NULL)
        return p;
    probe_free(p);
    return NULL;
}

void probe_cancel(struct probe *p)
{
    if (p != NULL)
        probe_free(p);
}
