#include "probe/lane.h"

#include "deadline.h"

#include <errno.h>
#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <event2/event.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

/* --- Its end */

static void lane_close(struct lane *lane)
{
    dial_cancel(lane->dial);
    lane->dial = NULL;
    if (lane->fd >= 0) {
        event_del(&lane->readable);
        event_del(&lane->writable);
    }
    if (lane->tls != NULL && lane->open)
        tlsclient_half_close(lane->tls);
    if (lane->tls != NULL)
        bufferevent_free(lane->tls);
    else if (lane->fd >= 0)
        close(lane->fd);
    lane->tls = NULL;
    lane->fd = -1;
    lane->open = lane->idle = lane->lapsed = lane->writing = lane->parsing = false;
    lane->goal = lane->sent = lane->got = 0;
    lane->matched = 0;
}

static void lane_fail_with(struct lane *lane, const struct failure *f)
{
    struct lanes *all = lane->lanes;
    unsigned lost = lane->under_way;
    lane_close(lane);
    lane->under_way = 0;
    all->failed(all->arg, lane, lost, f);
}

void lane_fail(struct lane *lane, enum failure_class class, const char *text)
{
    struct failure f = { 0 };
    failure_set(&f, class, "%s", text);
    lane_fail_with(lane, &f);
}

/* --- Requests */

void lane_begin(struct lane *lane, int64_t intended, int64_t now)
{
    unsigned last = lane->oldest + lane->under_way++;
    unsigned size = lane->lanes->pipeline;
    lane->requests[last < size ? last : last - size] = (struct lane_request){ intended, now };
    lane->goal += lane->lanes->stream.request;
}

/* The oldest request has its answer. */
static void lane_answered(struct lane *lane, int64_t now)
{
    struct lanes *all = lane->lanes;
    int64_t intended = lane->requests[lane->oldest].intended;
    lane->oldest = lane->oldest + 1 < all->pipeline ? lane->oldest + 1 : 0;
    lane->under_way--;
    all->answered(all->arg, intended, now);
}

/* Sends what the socket takes; false when that is not all. */
static bool lane_send_part(struct lane *lane, struct bytes part)
{
    ssize_t n = send(lane->fd, part.data, part.len, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (n == (ssize_t)part.len) {
        lane->sent += part.len;
        return true;
    }
    /* the socket is full, or broken: reading will tell that, and whether an answer came before it */
    lane->sent += n > 0 ? (uint64_t)n : 0;
    if (n >= 0 || errno == EAGAIN || errno == EINTR || errno == ENOBUFS)
        lane->writing = event_add(&lane->writable, NULL) == 0;
    return false;
}

/* TLS: the bufferevent takes what it is given, so it is given more only when that has gone out. */
static bool lane_send_tls(struct lane *lane, struct bytes part)
{
    if (evbuffer_get_length(bufferevent_get_output(lane->tls)) > 0)
        return false;
    if (bufferevent_write(lane->tls, part.data, part.len) < 0) {
        lane_fail(lane, FAILURE_SYSTEM, "out of memory");
        return false;
    }
    lane->sent += part.len;
    return true;
}

void lane_send(struct lane *lane)
{
    bool more = lane->open && !lane->writing;
    if (lane->lapsed) {
        lane->lapsed = false;
        lane_open(lane);
    }
    while (more && lane->sent < lane->goal) {
        struct bytes part = stream_at(&lane->lanes->stream, lane->origin + lane->sent, lane->goal - lane->sent);
        more = lane->tls != NULL ? lane_send_tls(lane, part) : lane_send_part(lane, part);
    }
}

/* Connects anew, and sends again what is under way. */
static void lane_reopen(struct lane *lane)
{
    unsigned again = lane->under_way;
    lane_close(lane);
    lane->goal = again * lane->lanes->stream.request;
    lane_open(lane);
}

/* The server has closed, or reset, a connection that was idle when it was used last. */
static void lane_lapse(struct lane *lane)
{
    if (lane->under_way > 0) {
        lane_reopen(lane); /* the request crossed the close on its way (RFC 9112 section 9.3.1) */
    } else {
        lane_close(lane);
        lane->lapsed = true;
    }
}

static void lane_broken(struct lane *lane, int error)
{
    if (lane->idle)
        lane_lapse(lane);
    else if (error == ETIMEDOUT)
        lane_fail(lane, FAILURE_TIMEOUT, "the server has vanished");
    else
        lane_fail(lane, FAILURE_RESET, "the server reset the connection");
}

/* --- Answers. Each returns false when the lane is closed. */

static bool echo_input(struct lane *lane, struct bytes in, int64_t now)
{
    const struct stream *stream = &lane->lanes->stream;
    uint64_t answers = lane->got / stream->request;
    while (in.len > 0) {
        struct bytes want = stream_at(stream, lane->origin + lane->got, lane->sent - lane->got);
        size_t len = in.len < want.len ? in.len : want.len;
        if (lane->got == lane->sent || memcmp(in.data, want.data, len) != 0) {
            lane_fail(lane, FAILURE_MISMATCH,
                      lane->got == lane->sent ? "more came back than was sent" : "a wrong byte came back");
            return false;
        }
        lane->got += len;
        bytes_skip(&in, len);
    }
    for (answers = lane->got / stream->request - answers; answers > 0; answers--)
        lane_answered(lane, now);
    return true;
}

/* Gives the reader the part of an answer that was like the template. */
static void lane_replay(struct lane *lane)
{
    struct failure f = { 0 };
    struct bytes begin = { .data = lane->lanes->template_, .len = lane->matched };
    answer_reset(lane->reader);
    answer_take(lane->reader, &begin, &f); /* it is the begin of a good answer */
    lane->matched = 0;
    lane->parsing = true;
}

/* Makes a whole answer the template. What other lanes have of the old one goes to their readers first. */
static void lanes_learn(struct lanes *all, const char *data, size_t len)
{
    if (len > LANES_TEMPLATE)
        return;
    for (size_t i = 0; i < all->count; i++)
        if (all->first[i].matched > 0)
            lane_replay(&all->first[i]);
    memcpy(all->template_, data, len);
    all->template_len = len;
}

/* Takes bytes that are as the template has them. False when there are none. */
static bool answer_match(struct lane *lane, struct bytes *in, int64_t now)
{
    const struct lanes *all = lane->lanes;
    size_t left = all->template_len - lane->matched, len = in->len < left ? in->len : left;
    if (lane->parsing || len == 0 || memcmp(all->template_ + lane->matched, in->data, len) != 0)
        return false;
    bytes_skip(in, len);
    lane->matched += len;
    if (lane->matched == all->template_len) {
        lane->matched = 0;
        lane_answered(lane, now);
    }
    return true;
}

/* Takes the bytes of one answer, or of its begin. */
static bool answer_parse(struct lane *lane, struct bytes *in, int64_t now)
{
    const char *begin = in->data;
    bool whole = !lane->parsing && lane->matched == 0; /* all of the answer will lie in this input, if it ends there */
    struct failure f = { 0 };
    if (!lane->parsing)
        lane_replay(lane);
    enum exchange_next next = answer_take(lane->reader, in, &f);
    if (next == EXCHANGE_FAILED) {
        lane_fail_with(lane, &f);
        return false;
    }
    if (next == EXCHANGE_MORE)
        return true;
    lane->parsing = false;
    lane->lanes->status = lane->reader->status;
    lane_answered(lane, now);
    bool alive = answer_keeps_alive(lane->reader);
    if (alive && whole)
        lanes_learn(lane->lanes, begin, (size_t)(in->data - begin));
    if (!alive)
        lane_reopen(lane);
    return alive;
}

static bool http_input(struct lane *lane, struct bytes in, int64_t now)
{
    while (in.len > 0) {
        if (lane->under_way == 0) {
            lane_fail(lane, FAILURE_PROTOCOL, "bytes follow the answer");
            return false;
        }
        if (!answer_match(lane, &in, now) && !answer_parse(lane, &in, now))
            return false;
    }
    return true;
}

/*
 * What servers such as haproxy say before they close an idle connection (RFC 9110 section 15.5.9). With a request under
 * way it is that only if it announces the close, and an answer else.
 */
static bool is_lapse(const struct lane *lane, struct bytes in)
{
    static const char close[] = "\r\nConnection: close\r\n";
    return in.len > 12 && memcmp(in.data, "HTTP/1.", 7) == 0 && memcmp(in.data + 8, " 408", 4) == 0 &&
           (lane->under_way == 0 || memmem(in.data, in.len, close, sizeof close - 1) != NULL);
}

static void lane_input(struct lane *lane, size_t len)
{
    struct lanes *all = lane->lanes;
    struct bytes in = { .data = all->input, .len = len };
    int64_t now = deadline_now();
    if (lane->idle && lane->reader != NULL && is_lapse(lane, in)) {
        lane_lapse(lane);
        return;
    }
    lane->idle = false;
    bool open = lane->reader != NULL ? http_input(lane, in, now) : echo_input(lane, in, now);
    if (!open)
        return;
    all->ready(all->arg, lane, now);
    lane->idle = lane->open && lane->under_way == 0;
}

/* The end may be that of an answer, too; else the connection must be idle. */
static void lane_eof(struct lane *lane, bool clean)
{
    struct failure f = { 0 };
    if (lane->matched > 0)
        lane_replay(lane);
    if (lane->parsing && lane->reader->eof(lane->reader, clean, &f) == EXCHANGE_DONE) {
        lane->lanes->status = lane->reader->status;
        lane_answered(lane, deadline_now());
        lane_reopen(lane);
    } else if (lane->parsing) {
        lane_fail_with(lane, &f);
    } else if (lane->idle) {
        lane_lapse(lane);
    } else {
        lane_fail(lane, FAILURE_SHORT, "the connection ended before an answer");
    }
}

/* --- The socket */

static void on_readable(evutil_socket_t fd, short what, void *arg)
{
    struct lane *lane = arg;
    ssize_t n = recv(fd, lane->lanes->input, LANES_BUFFER, MSG_DONTWAIT);
    (void)what;
    if (n > 0)
        lane_input(lane, (size_t)n);
    else if (n == 0)
        lane_eof(lane, true);
    else if (errno != EAGAIN && errno != EINTR)
        lane_broken(lane, errno);
}

static void on_writable(evutil_socket_t fd, short what, void *arg)
{
    struct lane *lane = arg;
    (void)fd;
    (void)what;
    lane->writing = false;
    lane_send(lane);
}

static void lane_connected(struct lane *lane)
{
    lane->open = true;
    lane->retry = 0;
    lane_send(lane); /* what has to be sent again */
    if (!lane->open)
        return;
    lane->lanes->ready(lane->lanes->arg, lane, deadline_now());
    lane->idle = lane->open && lane->under_way == 0;
}

/* --- TLS */

static void on_tls_input(struct bufferevent *b, void *arg)
{
    struct lane *lane = arg;
    int n = evbuffer_remove(bufferevent_get_input(b), lane->lanes->input, LANES_BUFFER);
    while (n > 0) {
        lane_input(lane, (size_t)n);
        n = lane->tls == b ? evbuffer_remove(bufferevent_get_input(b), lane->lanes->input, LANES_BUFFER) : 0;
    }
}

static void on_tls_output(struct bufferevent *b, void *arg)
{
    (void)b;
    lane_send(arg);
}

static void on_tls_event(struct bufferevent *b, short what, void *arg)
{
    struct lane *lane = arg;
    struct failure f = { 0 };
    if ((what & BEV_EVENT_CONNECTED) != 0) {
        lane_connected(lane);
        return;
    }
    if ((what & BEV_EVENT_EOF) != 0 && lane->open) {
        lane_eof(lane, tlsclient_ended(b));
        return;
    }
    tlsclient_explain(b, !lane->open, &f);
    if (f.class == FAILURE_SHORT)
        lane_eof(lane, false);
    else if (f.class == FAILURE_RESET && lane->idle)
        lane_lapse(lane);
    else
        lane_fail_with(lane, &f);
}

static void lane_handshake(struct lane *lane)
{
    const struct probe_settings *settings = lane->lanes->settings;
    lane->tls =
        tlsclient_start(settings->tls, &settings->tls_settings, lane->lanes->target, settings->dialer->base, lane->fd);
    if (lane->tls == NULL) {
        lane_fail(lane, FAILURE_SYSTEM, "out of memory");
        return;
    }
    bufferevent_setcb(lane->tls, on_tls_input, on_tls_output, on_tls_event, lane);
    bufferevent_enable(lane->tls, EV_READ | EV_WRITE);
}

static void on_dialled(void *arg, const struct dialled *d, const struct failure *f)
{
    struct lane *lane = arg;
    struct lanes *all = lane->lanes;
    lane->dial = NULL;
    if (d->fd < 0) {
        lane_fail_with(lane, f);
        return;
    }
    all->place = d->place;
    all->placed = true;
    lane->fd = d->fd;
    event_assign(&lane->readable, all->settings->dialer->base, d->fd, EV_READ | EV_PERSIST, on_readable, lane);
    event_assign(&lane->writable, all->settings->dialer->base, d->fd, EV_WRITE, on_writable, lane);
    if (target_is_tls(all->target))
        lane_handshake(lane);
    else if (event_add(&lane->readable, NULL) < 0)
        lane_fail(lane, FAILURE_SYSTEM, "out of memory");
    else
        lane_connected(lane);
}

void lane_open(struct lane *lane)
{
    const struct lanes *all = lane->lanes;
    const struct probe_settings *settings = all->settings;
    lane->dialled = deadline_now();
    lane->dial = dial_start(settings->dialer, all->target, all->placed ? &all->place : NULL,
                            lane->dialled + settings->connect_timeout, on_dialled, lane);
    if (lane->dial == NULL)
        lane_fail(lane, FAILURE_SYSTEM, "out of memory");
}

/* --- All of them */

static int lane_init(struct lane *lane, struct lanes *all, size_t index)
{
    *lane = (struct lane){ .lanes = all, .fd = -1, .origin = target_is_http(all->target) ? 0 : index * 61 };
    lane->requests = calloc(all->pipeline, sizeof *lane->requests);
    if (target_is_http(all->target))
        lane->reader = answer_new((struct bytes){ 0 }, all->wish, false);
    return lane->requests != NULL && (lane->reader != NULL || !target_is_http(all->target)) ? 0 : -1;
}

static int lanes_stream(struct lanes *all, size_t size)
{
    size_t len;
    if (!target_is_http(all->target))
        return stream_random(&all->stream, size, all->pipeline);
    char *text = answer_request(all->target, &len);
    int result =
        text != NULL ? stream_repeat(&all->stream, (struct bytes){ .data = text, .len = len }, all->pipeline) : -1;
    free(text);
    return result;
}

int lanes_init(struct lanes *all, size_t count, size_t size)
{
    all->input = malloc(LANES_BUFFER);
    all->template_ = malloc(LANES_TEMPLATE);
    all->first = calloc(count, sizeof *all->first);
    if (all->input == NULL || all->template_ == NULL || all->first == NULL || lanes_stream(all, size) < 0)
        return -1;
    for (; all->count < count; all->count++)
        if (lane_init(&all->first[all->count], all, all->count) < 0) {
            all->count++;
            return -1;
        }
    return 0;
}

void lanes_free(struct lanes *all)
{
    for (size_t i = 0; i < all->count; i++) {
        struct lane *lane = &all->first[i];
        lane_close(lane);
        free(lane->requests);
        if (lane->reader != NULL)
            lane->reader->free(lane->reader);
    }
    free(all->first);
    free(all->input);
    free(all->template_);
    stream_free(&all->stream);
}
