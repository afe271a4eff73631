#include "http/session.h"

#include "access.h"
#include "deadline.h"
#include "metrics.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define FIRST_REQUEST 1000 /* ms that a stopping server waits for it: who has just connected is about to send it */

/* What a connection waits for, and so which time limit runs. */
enum phase {
    PHASE_NONE, /* no limit runs yet */
    PHASE_IDLE, /* the next request: keepalive_timeout */
    PHASE_HEAD, /* the rest of a head: header_timeout, from its first byte */
    PHASE_BODY, /* the rest of a body: body_timeout, from the end of the head */
    PHASE_BUSY  /* nothing: requests are there that wait for the output to go out */
};

/* What became of some input. */
enum step {
    STEP_MORE,  /* more bytes are needed */
    STEP_NEXT,  /* on to what comes next in the input */
    STEP_FINISH /* the connection's last answer was given */
};

struct http_held {
    size_t len;
    char head[];
};

static const struct http_limits *limits_of(const struct http_session *s)
{
    return &s->service->settings->limits;
}

static void log_request(const struct http_session *s, const struct conn *conn, const struct http_request *request,
                        unsigned status, size_t length)
{
    char peer[ADDRESS_TEXT], told[ADDRESS_TEXT];
    static const struct http_request unknown = { 0 };
    static const struct bytes none = { .data = "-", .len = 1 };
    if (request == NULL)
        request = &unknown;
    struct bytes agent = http_request_field(request, "user-agent");
    struct bytes method = request->method.len > 0 ? request->method : none;
    struct bytes target = request->target.len > 0 ? request->target : none;
    if (agent.len == 0)
        agent = none;
    const struct log_field fields[] = {
        log_text("listener", conn->context->listener),
        log_text("peer", address_format(&conn->peer, peer)),
        log_bytes("method", method.data, method.len),
        log_number("status", status),
        log_number("bytes", length),
        log_duration("duration", deadline_now() - (s->began != 0 ? s->began : conn->now)),
        log_bytes("target", target.data, target.len < 1024 ? target.len : 1024),
        log_bytes("agent", agent.data, agent.len < 256 ? agent.len : 256),
        conn->told.len > 0 ? log_text("told", address_format(&conn->told, told)) : (struct log_field){ 0 },
        { 0 },
    };
    access_write(conn->context->access, fields);
}

/* An answer goes into the counts and into the access log. request: what is known of it, or NULL. */
static void record(struct http_session *s, const struct conn *conn, const struct http_request *request, unsigned status,
                   size_t length)
{
    struct requests *requests = conn->context->requests;
    requests_count(requests, status);
    if (s->began == conn->now || s->began == 0)
        s->answered++;
    else
        histogram_add(&requests->duration, deadline_now() - s->began, 1);
    if (access_is_on(conn->context->access))
        log_request(s, conn, request, status, length);
}

/* The requests that came and were answered while one hook ran: one look at the clock serves them all. */
static void record_durations(struct http_session *s, const struct conn *conn)
{
    if (s->answered > 0)
        histogram_add(&conn->context->requests->duration, deadline_now() - conn->now, s->answered);
    s->answered = 0;
}

/*
 * Says why, and closes: nothing that follows on this connection is read as a request. request: what is known of it, or
 * NULL.
 */
static enum step refuse(struct http_session *s, struct conn *conn, const struct http_request *request,
                        struct http_refusal refusal, struct output *out)
{
    struct http_reply reply;
    char text[256];
    int len = snprintf(text, sizeof text, "%u %s: %s\n", refusal.status, http_phrase(refusal.status), refusal.why);
    http_reply_init(&reply, refusal.status);
    http_reply_add(&reply, (struct bytes){ .data = text, .len = (size_t)len });
    http_reply_send(&reply, HTTP_CONNECTION_CLOSE, s->parser.head, out);
    record(s, conn, request, refusal.status, s->parser.head ? 0 : reply.length);
    return STEP_FINISH;
}

static bool is_head(struct bytes method)
{
    return method.len == 4 && memcmp(method.data, "HEAD", 4) == 0;
}

/* Fills in an answer that no route gives. */
static void explain(struct http_reply *reply, unsigned status)
{
    static const struct {
        unsigned status;
        const char *text;
    } texts[] = {
        { 400, "400 Bad Request: the path is not UTF-8 text without control characters\n" },
        { 404, "404 Not Found: there is no such path\n" },
        { 405, "405 Method Not Allowed: see Allow\n" },
        { 412, "412 Precondition Failed: nothing here has an entity tag\n" },
    };
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++)
        if (texts[i].status == status)
            http_reply_add(reply, (struct bytes){ .data = texts[i].text, .len = strlen(texts[i].text) });
}

/*
 * The last head without a body that this thread has parsed, and where it leads. Clients send the same one again and
 * again, health checks and load tests above all; what a head means follows from its bytes and the limits alone, and its
 * route from the table, which is constant.
 */
static _Thread_local struct {
    struct http_limits limits;
    struct http_request request; /* its bytes lie in head */
    size_t len;                  /* 0: there is none */
    char head[1024];
    const struct http_route *routes; /* in which match was found; NULL: not yet */
    struct http_match match;
    char parameter[1024]; /* of the match, decoded */
} last;

/* The route of a request; of one that was recalled, found once. buf is memory for the parameter. */
static struct http_match find_route(const struct http_route *routes, const struct http_request *request, char *buf)
{
    bool recalled = request->method.data == last.request.method.data;
    if (recalled && last.routes == routes)
        return last.match;
    if (!recalled)
        return http_route_find(routes, request->method, request->uri, buf);
    last.routes = routes;
    last.match = http_route_find(routes, request->method, request->uri, last.parameter);
    return last.match;
}

/* Makes the reply to a request. decoded and allow are memory for it. */
static void respond(const struct http_service *service, const struct conn *conn, const struct http_request *request,
                    char *decoded, char *allow, struct http_reply *reply)
{
    struct http_match match = { .status = 405 };
    bool options = request->uri.len == 0 && request->method.data[0] == 'O'; /* OPTIONS *, RFC 9110 section 9.3.7 */
    if (options)
        match.status = 200;
    else if (request->uri.len > 0)
        match = find_route(service->routes, request, decoded);
    if (match.route != NULL && match.status == 200 && request->precondition != 0)
        match.status = request->precondition;
    http_reply_init(reply, match.status);
    if (match.status == 405 || options) {
        http_route_allow(service->routes, request->uri, allow, HTTP_ALLOW_MAX);
        reply->allow = allow;
    }
    if (match.route != NULL && (match.status == 200 || match.status == 304))
        match.route->answer(conn, request, match.parameter, reply, service);
    else
        explain(reply, match.status);
}

/* A whole request is there. */
static enum step answer(struct http_session *s, struct conn *conn, const struct http_request *request,
                        struct output *out)
{
    struct http_reply reply;
    static _Thread_local char decoded[HTTP_TARGET_LIMIT]; /* a stack so large would be probed page by page each time */
    char allow[HTTP_ALLOW_MAX];
    uint64_t most = s->service->settings->max_requests;
    bool tunnel = request->uri.len == 0 && request->method.data[0] == 'C'; /* CONNECT: what follows is no HTTP */
    bool keep = request->keep_alive && !conn->draining && !tunnel;
    s->requests++;
    keep = keep && (most == 0 || s->requests < most);
    respond(s->service, conn, request, decoded, allow, &reply);
    bool head_only = is_head(request->method) || reply.status == 304;
    http_reply_send(&reply,
                    !keep                 ? HTTP_CONNECTION_CLOSE
                    : request->minor == 0 ? HTTP_CONNECTION_KEEP_ALIVE
                                          : HTTP_CONNECTION_SILENT,
                    head_only, out);
    record(s, conn, request, reply.status, head_only ? 0 : reply.length);
    s->began = 0;
    s->phase = PHASE_NONE;
    return keep ? STEP_NEXT : STEP_FINISH;
}

/* Keeps the head until the body has been read: a request with a malformed body is refused as a whole. */
static enum step hold(struct http_session *s, struct conn *conn, struct bytes head, const struct http_request *request,
                      struct output *out)
{
    static const char go_on[] = "HTTP/1.1 100 Continue\r\n\r\n";
    s->held = malloc(sizeof *s->held + head.len);
    if (s->held == NULL)
        return refuse(s, conn, request, (struct http_refusal){ 500, "out of memory" }, out);
    s->held->len = head.len;
    memcpy(s->held->head, head.data, head.len);
    if (request->expect)
        output_copy(out, go_on, sizeof go_on - 1);
    return STEP_NEXT;
}

/* The request that waits for its body, taken apart again into *request; NULL when there is none, or no memory. */
static const struct http_request *held_request(const struct http_session *s, struct http_request *request)
{
    struct http_parser parser = { .scanned = 0 };
    if (s->held == NULL)
        return NULL;
    struct bytes head = { .data = s->held->head, .len = s->held->len };
    return http_parser_head(&parser, limits_of(s), &head, request) == HTTP_COMPLETE ? request : NULL;
}

static enum http_parsed recall_head(const struct http_limits *limits, struct bytes *in, struct http_request *request)
{
    if (last.len == 0 || in->len < last.len || memcmp(in->data, last.head, last.len) != 0 ||
        memcmp(limits, &last.limits, sizeof *limits) != 0)
        return HTTP_MORE;
    *request = last.request;
    bytes_skip(in, last.len);
    return HTTP_COMPLETE;
}

static void remember_head(const struct http_limits *limits, struct bytes head, const struct http_request *request)
{
    if (head.len > sizeof last.head)
        return;
    last.limits = *limits;
    last.routes = NULL;
    last.len = head.len;
    memcpy(last.head, head.data, head.len);
    last.request = *request;
    struct bytes *parts[] = { &last.request.method, &last.request.target, &last.request.uri, &last.request.fields };
    for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++)
        parts[i]->data = last.head + (parts[i]->data - head.data);
}

static enum http_parsed parse_head(struct http_session *s, struct bytes *in, struct http_request *request)
{
    struct bytes head = *in;
    if (s->parser.scanned == 0 && recall_head(limits_of(s), in, request) == HTTP_COMPLETE)
        return HTTP_COMPLETE;
    enum http_parsed parsed = http_parser_head(&s->parser, limits_of(s), in, request);
    head.len -= in->len;
    if (parsed == HTTP_COMPLETE && !request->body)
        remember_head(limits_of(s), head, request);
    return parsed;
}

static enum step take_head(struct http_session *s, struct conn *conn, struct bytes *in, struct output *out)
{
    struct http_request request;
    struct bytes head = *in;
    if (s->began == 0)
        s->began = conn->now;
    switch (parse_head(s, in, &request)) {
    case HTTP_MORE:
        if (!http_parser_begun(&s->parser))
            s->began = 0; /* that was an empty line */
        return STEP_MORE;
    case HTTP_REFUSED:
        return refuse(s, conn, &request, s->parser.refusal, out);
    default:
        head.len -= in->len;
        return request.body ? hold(s, conn, head, &request, out) : answer(s, conn, &request, out);
    }
}

static enum step take_body(struct http_session *s, struct conn *conn, struct bytes *in, struct output *out)
{
    struct http_request request;
    enum http_parsed parsed = http_parser_body(&s->parser, limits_of(s), in);
    if (parsed == HTTP_MORE)
        return STEP_MORE;
    const struct http_request *held = held_request(s, &request);
    if (parsed == HTTP_REFUSED)
        return refuse(s, conn, held, s->parser.refusal, out);
    if (held == NULL)
        return refuse(s, conn, NULL, (struct http_refusal){ 500, "out of memory" }, out);
    enum step step = answer(s, conn, held, out);
    free(s->held);
    s->held = NULL;
    return step;
}

/* Lets the time limit run that fits what is waited for; one that runs already runs on. */
static void set_phase(struct http_session *s, struct conn *conn, enum phase phase)
{
    const struct http_settings *settings = s->service->settings;
    if (s->phase == phase)
        return;
    s->phase = (uint8_t)phase;
    conn_timeout(conn, phase == PHASE_IDLE   ? settings->keepalive_timeout
                       : phase == PHASE_HEAD ? settings->header_timeout
                       : phase == PHASE_BODY ? settings->body_timeout
                                             : 0);
}

enum handler_next http_session_open(struct conn *conn, void *state, void *shared, struct output *out)
{
    struct http_session *s = state;
    (void)out;
    s->service = shared;
    set_phase(s, conn, PHASE_IDLE);
    return HANDLER_MORE;
}

enum handler_next http_session_input(struct conn *conn, void *state, struct bytes *in, struct output *out)
{
    struct http_session *s = state;
    enum step step = STEP_NEXT;
    while (step == STEP_NEXT && in->len > 0 && !output_full(out))
        step = s->held != NULL ? take_body(s, conn, in, out) : take_head(s, conn, in, out);
    record_durations(s, conn);
    if (step == STEP_FINISH)
        return HANDLER_FINISH;
    if (s->held != NULL)
        set_phase(s, conn, PHASE_BODY);
    else if (step == STEP_NEXT && in->len > 0)
        set_phase(s, conn, PHASE_BUSY);
    else
        set_phase(s, conn, http_parser_begun(&s->parser) ? PHASE_HEAD : PHASE_IDLE);
    if (conn->draining && s->phase == PHASE_IDLE)
        return HANDLER_FINISH;
    return HANDLER_MORE;
}

enum handler_next http_session_eof(struct conn *conn, void *state, struct output *out)
{
    struct http_session *s = state;
    struct http_request request;
    if (s->phase == PHASE_HEAD || s->phase == PHASE_BODY)
        refuse(s, conn, held_request(s, &request), (struct http_refusal){ 400, "the request is incomplete" }, out);
    record_durations(s, conn);
    return HANDLER_FINISH;
}

enum handler_next http_session_expire(struct conn *conn, void *state, struct output *out)
{
    struct http_session *s = state;
    struct http_request request;
    if (s->phase != PHASE_IDLE)
        refuse(s, conn, held_request(s, &request),
               (struct http_refusal){ 408, "the rest of the request did not come in time" }, out);
    record_durations(s, conn);
    return HANDLER_FINISH;
}

enum handler_next http_session_drain(struct conn *conn, void *state, struct output *out)
{
    const struct http_session *s = state;
    (void)out;
    if (s->phase != PHASE_IDLE)
        return HANDLER_MORE;
    if (s->requests > 0)
        return HANDLER_FINISH;
    conn_timeout(conn, FIRST_REQUEST);
    return HANDLER_MORE;
}

void http_session_close(void *state)
{
    struct http_session *s = state;
    free(s->held);
}
