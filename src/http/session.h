/*
 * http/session: HTTP/1.1 and 1.0 on top of the handler contract: one connection's requests in order, each routed and
 * answered; framing, keep-alive, pipelining, time limits, and every refusal. A handler that speaks HTTP gives a table of
 * routes and uses these hooks as its own; its settings begin with struct http_settings, its `shared` with struct
 * http_service, its state is struct http_session.
 */
#ifndef ECHOD_HTTP_SESSION_H
#define ECHOD_HTTP_SESSION_H

#include "handler.h"
#include "http/parser.h"
#include "http/reply.h"
#include "http/route.h"

struct http_settings {
    struct http_limits limits;
    uint64_t max_requests;      /* a connection */
    uint64_t header_timeout;    /* ms from a head's first byte to its last */
    uint64_t body_timeout;      /* ms from the end of a head to the end of its body */
    uint64_t keepalive_timeout; /* ms from an answer, or the accept, to the next request */
};

/* Option rows for the struct http_settings that is the first member of a handler's settings. */
/* clang-format off */
#define HTTP_OPTIONS                                                                                                   \
    SIZE_ROW("max_target", struct http_settings, limits.target, "8k", 64, HTTP_TARGET_LIMIT, NULL,                     \
             "bytes of a request target; more is 414"),                                                                \
    SIZE_ROW("max_header_size", struct http_settings, limits.header_size, "16k", 256, HTTP_HEADER_LIMIT, NULL,         \
             "bytes of all field lines of a request; more is 431"),                                                    \
    NUMBER_ROW("max_headers", struct http_settings, limits.headers, "100", 1, 1000, NULL,                              \
               "field lines of a request; more is 431"),                                                               \
    SIZE_ROW("max_body", struct http_settings, limits.body, "1M", 0, 1 << 30, NULL,                                    \
             "bytes of a request's content, chunk framing included; more is 413"),                                     \
    NUMBER_ROW("max_requests", struct http_settings, max_requests, "unlimited", 1, 1000000000, "unlimited",            \
               "requests a connection; the last answer closes it"),                                                    \
    TIME_ROW("header_timeout", struct http_settings, header_timeout, "20s", 1, OPTION_DAY, NULL,                       \
             "from a request's first byte to the end of its head; more is 408"),                                       \
    TIME_ROW("body_timeout", struct http_settings, body_timeout, "60s", 1, OPTION_DAY, NULL,                           \
             "from the end of a head to the end of the content; more is 408"),                                         \
    TIME_ROW("keepalive_timeout", struct http_settings, keepalive_timeout, "60s", 1, OPTION_DAY, NULL,                 \
             "how long a connection waits for its next request")
/* clang-format on */

/* What all connections of one listener share. */
struct http_service {
    const struct http_settings *settings;
    const struct http_route *routes;
};

struct http_held; /* the copy of a head whose body is still coming */

/* One connection. */
struct http_session {
    const struct http_service *service;
    struct http_parser parser;
    struct http_held *held;
    uint64_t requests;
    int64_t began;     /* when the first byte of the request came */
    uint32_t answered; /* in this call of a hook, with requests that began in it */
    uint8_t phase;     /* what the time limit is for; enum in session.c */
};

enum handler_next http_session_open(struct conn *conn, void *state, void *shared, struct output *out);
enum handler_next http_session_input(struct conn *conn, void *state, struct bytes *in, struct output *out);
enum handler_next http_session_eof(struct conn *conn, void *state, struct output *out);
enum handler_next http_session_expire(struct conn *conn, void *state, struct output *out);
enum handler_next http_session_drain(struct conn *conn, void *state, struct output *out);
void http_session_close(void *state);

/* The part of a struct handler that is the same for all that speak HTTP. */
#define HTTP_HOOKS                                                                                                    \
    .alpn = "http/1.1", .state_size = sizeof(struct http_session), .open = http_session_open,                         \
    .input = http_session_input, .eof = http_session_eof, .expire = http_session_expire, .drain = http_session_drain, \
    .close = http_session_close

#endif
