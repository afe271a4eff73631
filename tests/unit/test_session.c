#include "http/session.h"

#include "access.h"
#include "deadline.h"
#include "feed.h"
#include "unit.h"

#include <event2/event.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

/* --- A clock that stands still --------------------------------------------------------------------------------------- */

int clock_gettime(clockid_t id, struct timespec *now)
{
    if (id != CLOCK_MONOTONIC && id != CLOCK_MONOTONIC_COARSE)
        return (int)syscall(SYS_clock_gettime, id, now);
    *now = (struct timespec){ .tv_sec = 1000 };
    return 0;
}

/* A handler of three pages: what it is asked for, something large, and the request's own fields. */

static char large[20000];

static void answer_name(const struct conn *conn, const struct http_request *request, struct bytes name,
                        struct http_reply *reply, const void *shared)
{
    (void)conn;
    (void)request;
    (void)shared;
    http_reply_add(reply, name.len > 0 ? name : BYTES("root"));
}

static void answer_large(const struct conn *conn, const struct http_request *request, struct bytes none,
                         struct http_reply *reply, const void *shared)
{
    (void)conn;
    (void)request;
    (void)none;
    (void)shared;
    http_reply_add(reply, (struct bytes){ large, sizeof large });
}

static void answer_request(const struct conn *conn, const struct http_request *request, struct bytes none,
                           struct http_reply *reply, const void *shared)
{
    (void)conn;
    (void)none;
    (void)shared;
    http_reply_add(reply, request->method);
    http_reply_add(reply, BYTES(" "));
    http_reply_add(reply, request->target);
    http_reply_add(reply, BYTES(" "));
    http_reply_add(reply, http_request_field(request, "user-agent"));
}

static const struct http_route routes[] = {
    { "GET", "/", answer_name },           { "GET", "/large", answer_large },
    { "GET", "/request", answer_request }, { "POST", "/request", answer_request },
    { "GET", "/:name", answer_name },      { 0 },
};

static const struct handler handler = { .name = "pages", HTTP_HOOKS };

/* Time limits are told apart by their numbers. */
enum { HEADER = 2000, BODY = 3000, KEEPALIVE = 4000 };

static const struct http_settings usual = {
    .limits = { .target = 8192, .header_size = 16384, .headers = 100, .body = 1 << 20 },
    .header_timeout = HEADER,
    .body_timeout = BODY,
    .keepalive_timeout = KEEPALIVE,
};
static struct http_service service = { &usual, routes };

static struct feed f;

#define GET(target)        "GET " target " HTTP/1.1\r\nHost: a\r\n\r\n"
#define POST(target, rest) "POST " target " HTTP/1.1\r\nHost: a\r\n" rest
#define ANSWER(status)     "HTTP/1.1 " status "\r\n" DATE_MASK TYPE
#define TYPE               "Content-Type: text/plain; charset=utf-8\r\nX-Content-Type-Options: nosniff\r\n"
#define OK(length, text)   ANSWER("200 OK") "Content-Length: " length "\r\n\r\n" text
#define LAST(length, text) ANSWER("200 OK") "Connection: close\r\nContent-Length: " length "\r\n\r\n" text
#define CONTINUE           "HTTP/1.1 100 Continue\r\n\r\n"
#define CLOSING(status)    ANSWER(status) "Connection: close\r\nContent-Length: "

/* BYTES() for tables. */
#define RAW(literal)                                \
    {                                               \
        .data = literal, .len = sizeof(literal) - 1 \
    }

/* What raw comes to, fed in every way. */
static const char *talk(struct bytes raw, feed_ending *ending)
{
    feed_every_way(&f, &handler, &service, raw, ending);
    return f.out;
}

/* True when the output is that refusal, and nothing else; then the connection ends. */
static bool refused_by(const char *closing, bool content)
{
    const char *end = strstr(f.out, "\r\n\r\n");
    return strncmp(f.out, closing, strlen(closing)) == 0 && end != NULL && (strlen(end) > 4) == content &&
           strstr(end + 4, "\r\nDate: ") == NULL && f.verdict == HANDLER_FINISH;
}

#define ck_assert_refused(status) ck_assert_msg(refused_by(CLOSING(status), true), "%s", f.out)

/* --- Requests in a row -------------------------------------------------------------------------------------------- */

START_TEST(test_one_after_another)
{
    ck_assert_said(talk(BYTES(GET("/a") GET("/b") GET("/")), feed_nothing), OK("1", "a") OK("1", "b") OK("4", "root"));
    ck_assert_int_eq(f.verdict, HANDLER_MORE);
    ck_assert_uint_eq(f.unread_len, 0);
}
END_TEST

START_TEST(test_nothing_behind_close)
{
    ck_assert_said(talk(BYTES("GET /a HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n" GET("/b")), feed_nothing),
                   LAST("1", "a"));
    ck_assert_int_eq(f.verdict, HANDLER_FINISH);
    talk(BYTES(GET("/a") "GET /a b HTTP/1.1\r\n" GET("/b")), feed_nothing);
    ck_assert_ptr_nonnull(strstr(f.out, "HTTP/1.1 400 "));
    ck_assert_ptr_null(strstr(f.out, "\r\n\r\nb"));
    ck_assert_int_eq(f.verdict, HANDLER_FINISH);
}
END_TEST

/* RFC 9112 section 9.3: HTTP/1.0 is kept alive when it asks for it, and told so. */
START_TEST(test_http_1_0)
{
    ck_assert_said(talk(BYTES("GET /a HTTP/1.0\r\n\r\n" GET("/b")), feed_nothing), LAST("1", "a"));
    ck_assert_said(talk(BYTES("GET /a HTTP/1.0\r\nConnection: keep-alive\r\n\r\n" GET("/b")), feed_nothing),
                   ANSWER("200 OK") "Connection: keep-alive\r\nContent-Length: 1\r\n\r\na" OK("1", "b"));
}
END_TEST

START_TEST(test_max_requests)
{
    struct http_settings settings = usual;
    struct http_service three = { &settings, routes };
    settings.max_requests = 3;
    feed_every_way(&f, &handler, &three, BYTES(GET("/a") GET("/b") GET("/c") GET("/d")), feed_nothing);
    ck_assert_said(f.out, OK("1", "a") OK("1", "b") LAST("1", "c"));
    ck_assert_int_eq(f.verdict, HANDLER_FINISH);
    settings.max_requests = 1;
    feed_every_way(&f, &handler, &three, BYTES("GET /a HTTP/1.0\r\nConnection: keep-alive\r\n\r\n"), feed_nothing);
    ck_assert_said(f.out, LAST("1", "a"));
}
END_TEST

/* A thousand at once: all in order, and the output never grows by more than one answer over what is enough. */
START_TEST(test_a_thousand_pipelined)
{
    static char raw[1000 * 64];
    size_t len = 0;
    char name[16];
    for (int i = 0; i < 1000; i++)
        len += (size_t)sprintf(raw + len, "GET /%04d HTTP/1.1\r\nHost: a\r\n\r\n", i);
    feed_every_way(&f, &handler, &service, (struct bytes){ raw, len }, feed_nothing);
    const char *p = f.out;
    for (int i = 0; i < 1000; i++) {
        snprintf(name, sizeof name, "\r\n\r\n%04d", i);
        p = strstr(p, "\r\n\r\n");
        ck_assert_msg(p != NULL && strncmp(p, name, 8) == 0, "%s", name);
        p += 8;
    }
    ck_assert_str_eq(p, "");
}
END_TEST

/* When enough is queued, the rest of the input is left unread, however much there is. */
START_TEST(test_output_is_bounded)
{
    struct http_session session = { 0 };
    struct requests requests = { 0 };
    const struct conn_context context = { .listener = "test", .requests = &requests };
    struct conn conn = { .context = &context };
    struct output out;
    static char raw[1000 * 64];
    size_t len = 0;
    for (int i = 0; i < 1000; i++)
        len += (size_t)sprintf(raw + len, "GET /large HTTP/1.1\r\nHost: a\r\n\r\n");
    struct bytes in = { raw, len };
    ck_assert_int_eq(output_init(&out), 0);
    handler.open(&conn, &session, &service, &out);
    for (int calls = 0; in.len > 0; calls++) {
        ck_assert_int_lt(calls, 1000);
        ck_assert_int_eq(handler.input(&conn, &session, &in, &out), HANDLER_MORE);
        ck_assert_uint_lt(out.len, OUTPUT_ENOUGH + sizeof large + 512);
        output_reset(&out);
    }
    handler.close(&session);
    output_free(&out);
}
END_TEST

/* --- Bodies ---------------------------------------------------------------------------------------------------------- */

/* The answer waits for the body, and is made from the head that was held for it. */
START_TEST(test_held_head)
{
    ck_assert_str_eq(
        talk(BYTES(POST("/request?x", "User-Agent: u/1\r\nContent-Length: 5\r\n\r\nhello") GET("/b")), feed_nothing),
        OK("19", "POST /request?x u/1") OK("1", "b"));
    ck_assert_said(talk(BYTES("\r\n" POST("/request", "Transfer-Encoding: chunked\r\n\r\n5;x=y\r\nhello\r\n0\r\nA: "
                                                      "b\r\n\r\n") GET("/b")),
                        feed_nothing),
                   OK("14", "POST /request ") OK("1", "b"));
    ck_assert_said(talk(BYTES(POST("/request", "Content-Length: 5\r\n\r\nhell")), feed_nothing), "");
    ck_assert_int_eq(f.verdict, HANDLER_MORE);
}
END_TEST

/* A malformed body gets a 400, and the request no answer of its own. */
START_TEST(test_malformed_chunk)
{
    talk(BYTES(POST("/request", "Transfer-Encoding: chunked\r\n\r\n1\r\nab\r\n0\r\n\r\n") GET("/b")), feed_nothing);
    ck_assert_refused("400 Bad Request");
    talk(BYTES(POST("/request", "Transfer-Encoding: chunked\r\n\r\n0\r\nHost: b\r\n\r\n") GET("/b")), feed_nothing);
    ck_assert_refused("400 Bad Request");
}
END_TEST

START_TEST(test_expect)
{
    ck_assert_said(talk(BYTES(POST("/request", "Expect: 100-continue\r\nContent-Length: 2\r\n\r\n")), feed_nothing),
                   CONTINUE);
    ck_assert_str_eq(
        talk(BYTES(POST("/request", "Expect: 100-continue\r\nContent-Length: 2\r\n\r\nok") GET("/b")), feed_nothing),
        CONTINUE OK("14", "POST /request ") OK("1", "b"));
    talk(BYTES(POST("/request", "Expect: x\r\nContent-Length: 2\r\n\r\nok") GET("/b")), feed_nothing);
    ck_assert_refused("417 Expectation Failed");
    talk(BYTES(POST("/request", "Expect: 100-continue\r\nContent-Length: 2000000\r\n\r\n")), feed_nothing);
    ck_assert_refused("413 Content Too Large");
}
END_TEST

/* RFC 9110 section 13: nothing here has an entity tag, and every page exists. */
START_TEST(test_preconditions)
{
    const char *failed = ANSWER(
        "412 Precondition Failed") "Content-Length: 56\r\n\r\n412 Precondition Failed: nothing here has an entity tag\n";
    ck_assert_said(talk(BYTES("GET /a HTTP/1.1\r\nHost: a\r\nIf-Match: *\r\n\r\n" GET("/b")), feed_nothing),
                   OK("1", "a") OK("1", "b"));
    ck_assert_said(talk(BYTES("GET /a HTTP/1.1\r\nHost: a\r\nIf-Match: \"x\"\r\n\r\n"), feed_nothing), failed);
    ck_assert_said(talk(BYTES("GET /a HTTP/1.1\r\nHost: a\r\nIf-None-Match: \"x\"\r\n\r\n"), feed_nothing),
                   OK("1", "a"));
    ck_assert_said(talk(BYTES("GET /a HTTP/1.1\r\nHost: a\r\nIf-None-Match: *\r\n\r\n" GET("/b")), feed_nothing),
                   ANSWER("304 Not Modified") "Content-Length: 1\r\n\r\n" OK("1", "b"));
    ck_assert_said(talk(BYTES(POST("/request", "If-Match: \"x\"\r\n\r\n")), feed_nothing), failed);
    ck_assert_said(talk(BYTES(POST("/none/such", "If-Match: \"x\"\r\n\r\n")), feed_nothing),
                   ANSWER("404 Not Found") "Content-Length: 37\r\n\r\n404 Not Found: there is no such path\n");
    /* 304 is for GET and HEAD only */
    talk(BYTES(POST("/request", "If-None-Match: *\r\n\r\n")), feed_nothing);
    ck_assert_ptr_nonnull(strstr(f.out, "HTTP/1.1 412 "));
}
END_TEST

/* --- Refusals ---------------------------------------------------------------------------------------------------------- */

/* RFC 9110 section 9.3.2: what answers HEAD has no content, a refusal neither. */
START_TEST(test_refused_head)
{
    static const struct bytes heads[] = {
        RAW("HEAD / HTTP/1.1\r\n\r\n"),
        RAW("HEAD /%zz HTTP/1.1\r\nHost: a\r\n\r\n"),
        RAW("HEAD / HTTP/1.1\r\nHost: a\r\nX : y\r\n\r\n"),
        RAW("HEAD / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n"),
        RAW("\r\nHEAD / HTTP/1.1\r\n\r\n"),
        RAW("\r\nHEAD / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n"),
    };
    for (size_t i = 0; i < sizeof heads / sizeof heads[0]; i++) {
        talk(heads[i], feed_nothing);
        ck_assert_msg(refused_by(CLOSING("400 Bad Request"), false), "%s\n%s", heads[i].data, f.out);
    }
}
END_TEST

/* A HEAD that was answered has nothing to do with what comes behind it, wherever that breaks off. */
START_TEST(test_refused_behind_head)
{
    static const struct bytes rests[] = { RAW("G"), RAW("\r\n "), RAW("GET / HTTP/1.1\r\n\r\n"), RAW("\n") };
    char raw[128];
    for (size_t i = 0; i < sizeof rests / sizeof rests[0]; i++) {
        int len = snprintf(raw, sizeof raw, "HEAD / HTTP/1.1\r\nHost: a\r\n\r\n%s", rests[i].data);
        talk((struct bytes){ raw, (size_t)len }, feed_eof);
        const char *answer = OK("4", "");
        ck_assert_msg(strncmp(f.out, answer, strlen(answer)) == 0, "%s", f.out);
        ck_assert_ptr_nonnull(strstr(f.out + strlen(answer), "\r\n\r\n400 Bad Request: "));
    }
}
END_TEST

START_TEST(test_limits)
{
    struct http_settings settings = usual;
    struct http_service tight = { &settings, routes };
    settings.limits = (struct http_limits){ .target = 64, .header_size = 256, .headers = 2, .body = 10 };
    static const struct {
        struct bytes raw;
        const char *closing;
    } rows[] = {
        { RAW(GET("/6789012345678901234567890123456789012345678901234567890123456789")), CLOSING("414 URI Too Long") },
        { RAW("GET / HTTP/1.1\r\nHost: a\r\nX: y\r\nX: y\r\n\r\n"), CLOSING("431 Request Header Fields Too Large") },
        { RAW(POST("/", "Content-Length: 11\r\n\r\n")), CLOSING("413 Content Too Large") },
        { RAW(POST("/", "Transfer-Encoding: chunked\r\n\r\nb\r\n")), CLOSING("413 Content Too Large") },
        { RAW("BREW / HTTP/1.1\r\nHost: a\r\n\r\n"), CLOSING("501 Not Implemented") },
        { RAW("GET / HTTP/2.0\r\nHost: a\r\n\r\n"), CLOSING("505 HTTP Version Not Supported") },
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        feed_every_way(&f, &handler, &tight, rows[i].raw, feed_nothing);
        ck_assert_msg(refused_by(rows[i].closing, true), "%s\n%s", rows[i].raw.data, f.out);
    }
}
END_TEST

/* What one listener takes, another need not: verdicts on a head do not pass from one to the other. */
START_TEST(test_same_head_under_other_limits)
{
    struct http_settings settings = usual;
    struct http_service tight = { &settings, routes };
    settings.limits.target = 64;
    struct bytes raw = BYTES(GET("/6789012345678901234567890123456789012345678901234567890123456789"));
    for (int i = 0; i < 3; i++) {
        feed_run(&f, &handler, &service, raw, NULL, 0, feed_nothing);
        ck_assert_ptr_nonnull(strstr(f.out, "HTTP/1.1 200 "));
        feed_run(&f, &handler, &tight, raw, NULL, 0, feed_nothing);
        ck_assert_ptr_nonnull(strstr(f.out, "HTTP/1.1 414 "));
    }
}
END_TEST

/* The same head again and again, then one that only begins like it, or has other fields: each gets its own answer. */
START_TEST(test_same_head_again)
{
    ck_assert_said(talk(BYTES(GET("/a") GET("/a") GET("/ab") GET("/a") "\r\n" GET("/a")), feed_nothing),
                   OK("1", "a") OK("1", "a") OK("2", "ab") OK("1", "a") OK("1", "a"));
    ck_assert_said(talk(BYTES("GET /request HTTP/1.1\r\nHost: a\r\nUser-Agent: u\r\n\r\n"
                              "GET /request HTTP/1.1\r\nHost: a\r\nUser-Agent: u\r\n\r\n"
                              "GET /request HTTP/1.1\r\nHost: a\r\nUser-Agent: v\r\n\r\n"
                              "GET /request HTTP/1.1\r\nHost: a\r\nUser-Agent: u\r\nConnection: close\r\n\r\n"),
                        feed_nothing),
                   OK("14", "GET /request u") OK("14", "GET /request u") OK("14", "GET /request v")
                       LAST("14", "GET /request u"));
    /* one after which a body comes, and one that asks to close */
    for (int i = 0; i < 2; i++)
        ck_assert_said(talk(BYTES(POST("/request", "Content-Length: 3\r\n\r\nGET") POST("/request", "\r\n")
                                      POST("/request", "Content-Length: 3\r\n\r\nGET")
                                          POST("/request", "Connection: close\r\n\r\n")),
                            feed_nothing),
                       OK("14", "POST /request ") OK("14", "POST /request ") OK("14", "POST /request ")
                           LAST("14", "POST /request "));
}
END_TEST

/* The same head to listeners with other pages, in one thread: each finds its own, however often it came before. */
START_TEST(test_recalled_by_another_listener)
{
    static const struct http_route other_routes[] = { { "GET", "/:name", answer_request }, { 0 } };
    struct http_service other = { &usual, other_routes };
    for (int i = 0; i < 3; i++) {
        feed_run(&f, &handler, &service, BYTES(GET("/a%62") GET("/a%62") GET("/a%62")), NULL, 0, feed_nothing);
        ck_assert_said(f.out, OK("2", "ab") OK("2", "ab") OK("2", "ab"));
        feed_run(&f, &handler, &other, BYTES(GET("/a%62") GET("/a%62")), NULL, 0, feed_nothing);
        ck_assert_said(f.out, OK("10", "GET /a%62 ") OK("10", "GET /a%62 "));
    }
}
END_TEST

/* Heads of every size around the one up to which they are recalled. */
START_TEST(test_heads_of_every_size)
{
    static char raw[4096];
    for (size_t pad = 900; pad < 1100; pad++) {
        int len = snprintf(raw, sizeof raw, "GET /a HTTP/1.1\r\nHost: a\r\nX: %0*d\r\n\r\n", (int)pad, 0);
        memcpy(raw + len, raw, (size_t)len);
        feed_run(&f, &handler, &service, (struct bytes){ raw, 2 * (size_t)len }, NULL, 0, feed_nothing);
        ck_assert_said(f.out, OK("1", "a") OK("1", "a"));
    }
}
END_TEST

/* --- Time ------------------------------------------------------------------------------------------------------------ */

/* Feeds text, and tells what time limit the handler asked for meanwhile; 0: the one that ran runs on. */
static uint64_t limit_after(const char *text)
{
    f.timeout = 0;
    feed_input(&f, text, strlen(text));
    return f.timeout;
}

/* Each limit runs from its own beginning, and is not set anew by the bytes that follow. */
START_TEST(test_time_limits)
{
    feed_open(&f, &handler, &service);
    ck_assert_uint_eq(f.timeout, KEEPALIVE);
    ck_assert_uint_eq(limit_after("G"), HEADER);
    ck_assert_uint_eq(limit_after("E"), 0);
    ck_assert_uint_eq(limit_after("T / HTTP/1.1\r\n"), 0);
    ck_assert_uint_eq(limit_after("Host: a\r\n\r"), 0);
    ck_assert_uint_eq(limit_after("\n"), KEEPALIVE);
    ck_assert_uint_eq(limit_after(GET("/")), KEEPALIVE);
    ck_assert_uint_eq(limit_after("\r"), 0); /* an empty line is no request yet */
    ck_assert_uint_eq(limit_after("\n"), 0);
    ck_assert_uint_eq(limit_after("G"), HEADER);
    ck_assert_uint_eq(limit_after("ET / HTTP/1.1\r\nHost: a\r\n\r\n"), KEEPALIVE);
    ck_assert_uint_eq(limit_after(GET("/") "GET"), HEADER);
    ck_assert_uint_eq(limit_after(" / HTTP/1.1\r\nHost: a\r\n\r\nGET"), HEADER); /* of the next one */
    ck_assert_uint_eq(limit_after(" / HTTP/1.1\r\nHost: a\r\n\r\n"), KEEPALIVE);
    ck_assert_uint_eq(limit_after(POST("/", "Content-Length: 9\r\n\r\n")), BODY);
    ck_assert_uint_eq(limit_after("12345678"), 0);
    ck_assert_uint_eq(limit_after("9"), KEEPALIVE);
    ck_assert_uint_eq(limit_after("POST / HT"), HEADER);
    ck_assert_uint_eq(limit_after("TP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"), BODY);
    ck_assert_uint_eq(limit_after("1\r\na\r\n0\r\n"), 0);
    ck_assert_uint_eq(limit_after("X: y\r\n"), 0);
    ck_assert_uint_eq(limit_after("\r\n" POST("/", "Content-Length: 9\r\n\r\n1")), BODY); /* of the next one */
    ck_assert_uint_eq(limit_after("23456789"), KEEPALIVE);
    feed_close(&f);
}
END_TEST

/* RFC 9110 section 15.5.9: who has begun a request is told, who has not is not. */
START_TEST(test_expire)
{
    ck_assert_said(talk(BYTES(""), feed_expire), "");
    ck_assert_int_eq(f.verdict, HANDLER_FINISH);
    ck_assert_said(talk(BYTES(GET("/a")), feed_expire), OK("1", "a"));
    ck_assert_int_eq(f.verdict, HANDLER_FINISH);
    talk(BYTES("G"), feed_expire);
    ck_assert_refused("408 Request Timeout");
    talk(BYTES("GET / HTTP/1.1\r\nHost: a\r\n"), feed_expire);
    ck_assert_refused("408 Request Timeout");
    talk(BYTES(POST("/", "Content-Length: 9\r\n\r\n12345678")), feed_expire);
    ck_assert_refused("408 Request Timeout");
    talk(BYTES(POST("/", "Transfer-Encoding: chunked\r\n\r\n1\r\n")), feed_expire);
    ck_assert_refused("408 Request Timeout");
    talk(BYTES("HEAD / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n"), feed_expire);
    ck_assert_msg(refused_by(CLOSING("408 Request Timeout"), false), "%s", f.out);
}
END_TEST

/* RFC 9112 section 8: an incomplete request gets a 400; a connection that ends between requests just ends. */
START_TEST(test_eof)
{
    ck_assert_said(talk(BYTES(""), feed_eof), "");
    ck_assert_int_eq(f.verdict, HANDLER_FINISH);
    ck_assert_said(talk(BYTES(GET("/a")), feed_eof), OK("1", "a"));
    ck_assert_int_eq(f.verdict, HANDLER_FINISH);
    talk(BYTES("GET /"), feed_eof);
    ck_assert_refused("400 Bad Request");
    talk(BYTES("GET / HTTP/1.1\r\nHost: a\r\n\r"), feed_eof);
    ck_assert_refused("400 Bad Request");
    talk(BYTES(POST("/", "Content-Length: 9\r\n\r\n12345678")), feed_eof);
    ck_assert_refused("400 Bad Request");
    talk(BYTES(POST("/", "Transfer-Encoding: chunked\r\n\r\n0\r\n")), feed_eof);
    ck_assert_refused("400 Bad Request");
    talk(BYTES("HEAD / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n"), feed_eof);
    ck_assert_msg(refused_by(CLOSING("400 Bad Request"), false), "%s", f.out);
}
END_TEST

/* RFC 9112 section 2.2: an empty line behind a request is no beginning of the next one. */
START_TEST(test_stray_empty_line)
{
    ck_assert_said(talk(BYTES(GET("/a") "\r\n"), feed_eof), OK("1", "a"));
    ck_assert_int_eq(f.verdict, HANDLER_FINISH);
    ck_assert_said(talk(BYTES(GET("/a") "\r\n"), feed_expire), OK("1", "a"));
    ck_assert_int_eq(f.verdict, HANDLER_FINISH);
    ck_assert_said(talk(BYTES(POST("/request", "Content-Length: 1\r\n\r\nx") "\r\n"), feed_eof),
                   OK("14", "POST /request "));
}
END_TEST

/* A server that stops lets the request in flight finish, and closes with its answer. */
START_TEST(test_drain)
{
    static const struct {
        const char *before, *after, *answer;
    } rows[] = {
        { "", GET("/a") GET("/b"), LAST("1", "a") },
        { "G", "ET /a HTTP/1.1\r\nHost: a\r\n\r\n" GET("/b"), LAST("1", "a") },
        { POST("/request", "Content-Length: 9\r\n\r\n1"), "23456789" GET("/b"), LAST("14", "POST /request ") },
        { POST("/request", "Transfer-Encoding: chunked\r\n\r\n0\r\nX"), ":\r\n\r\n" GET("/b"),
          LAST("14", "POST /request ") },
    };
    ck_assert_said(talk(BYTES(GET("/a")), feed_drain), OK("1", "a"));
    ck_assert_int_eq(f.verdict, HANDLER_FINISH);
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        feed_open(&f, &handler, &service);
        feed_input(&f, rows[i].before, strlen(rows[i].before));
        feed_drain(&f);
        ck_assert_int_eq(f.verdict, HANDLER_MORE);
        feed_input(&f, rows[i].after, strlen(rows[i].after));
        ck_assert_int_eq(f.verdict, HANDLER_FINISH);
        feed_close(&f);
        ck_assert_said(f.out, rows[i].answer);
    }
}
END_TEST

/* --- The access log -------------------------------------------------------------------------------------------------- */

/* What is logged of raw, without the times. */
static const char *logged(struct bytes raw, feed_ending *ending)
{
    static char lines[8192];
    struct event_base *base = event_base_new();
    int ends[2];
    ck_assert_int_eq(pipe(ends), 0);
    struct access *access = access_new(base);
    access_turn(access, ends[1]);
    feed_open(&f, &handler, &service);
    f.context.access = access;
    f.conn.now = deadline_now();
    f.conn.peer.sa.v4.sin_family = AF_INET;
    feed_input(&f, raw.data, raw.len);
    ending(&f);
    feed_close(&f);
    access_free(access);
    event_base_free(base);
    ssize_t len = read(ends[0], lines, sizeof lines - 1);
    close(ends[0]);
    lines[len > 0 ? len : 0] = '\0';
    return lines;
}

START_TEST(test_access_log)
{
    const char *lines =
        logged(BYTES("GET /Ada?q HTTP/1.1\r\nHost: a\r\nUser-Agent: u\xFFv\"\r\n\r\n"
                     "HEAD /large HTTP/1.1\r\nHost: a\r\n\r\n" POST("/request", "Content-Length: 1\r\n\r\nx")
                         POST("/none/such", "\r\n") "GET /\n\n"),
               feed_nothing);
    const char *line = lines;
    static const char *const expected[][5] = {
        { "method=GET ", "status=200 ", "bytes=3 ", "target=/Ada?q ", "listener=test " },
        { "method=HEAD ", "status=200 ", "bytes=0 ", "target=/large ", "agent=-" },
        { "method=POST ", "status=200 ", "bytes=14 ", "target=/request ", "agent=-" },
        { "method=POST ", "status=404 ", "bytes=", "target=/none/such ", "agent=-" },
        { "method=- ", "status=400 ", "bytes=", "target=- ", "agent=-" },
    };
    for (size_t i = 0; i < 5; i++) {
        const char *end = strchr(line, '\n');
        ck_assert_msg(end != NULL, "line %zu of:\n%s", i, lines);
        for (size_t k = 0; k < 5; k++) {
            const char *at = strstr(line, expected[i][k]);
            ck_assert_msg(at != NULL && at < end, "%s in line %zu of:\n%s", expected[i][k], i, lines);
        }
        line = end + 1;
    }
    ck_assert_str_eq(line, "");
    ck_assert_ptr_null(strchr(lines, '\xFF'));
}
END_TEST

/* A long target and a long agent are cut, and the line still has its end. */
START_TEST(test_access_log_of_long_values)
{
    static char raw[8192];
    int len = snprintf(raw, sizeof raw, "GET /%04000d HTTP/1.1\r\nHost: a\r\nUser-Agent: %02000d\r\n\r\n", 0, 1);
    const char *lines = logged((struct bytes){ raw, (size_t)len }, feed_nothing);
    ck_assert_uint_lt(strlen(lines), LOG_LINE + 1);
    ck_assert_ptr_eq(strchr(lines, '\n'), lines + strlen(lines) - 1);
    ck_assert_ptr_nonnull(strstr(lines, "status=200 "));
}
END_TEST

/* --- Counts --------------------------------------------------------------------------------------------------------- */

static uint64_t counted(unsigned status)
{
    for (size_t i = 0; i < REQUEST_STATUSES; i++)
        if (f.requests.answered[i].status == status)
            return counter_read(&f.requests.answered[i].count);
    return 0;
}

/* Answers of all kinds; an interim one is none. That durations are as many is checked wherever a connection is fed. */
START_TEST(test_counts)
{
    talk(BYTES(GET("/a") GET("/b/c") GET("/%FF") "PUT /a HTTP/1.1\r\nHost: a\r\n\r\n" GET("/b") POST(
             "/request", "Expect: 100-continue\r\nContent-Length: 1\r\n\r\nx") "HEAD /a HTTP/1.1\r\nHost: a\r\n\r\n"
                                                                               "nonsense\r\n\r\n" GET("/never")),
         feed_eof);
    ck_assert_uint_eq(counted(200), 4);
    ck_assert_uint_eq(counted(404), 1);
    ck_assert_uint_eq(counted(405), 1);
    ck_assert_uint_eq(counted(400), 2);
    ck_assert_uint_eq(feed_answers(&f), 8);
}
END_TEST

START_TEST(test_counts_of_endings)
{
    talk(BYTES("GET /a HTTP"), feed_eof);
    ck_assert_uint_eq(counted(400), 1);
    talk(BYTES("GET /a HTTP"), feed_expire);
    ck_assert_uint_eq(counted(408), 1);
    talk(BYTES(POST("/request", "Content-Length: 5\r\n\r\nabc")), feed_expire);
    ck_assert_uint_eq(counted(408), 1);
    ck_assert_uint_eq(feed_answers(&f), 1);
    talk(BYTES(""), feed_expire);
    ck_assert_uint_eq(feed_answers(&f), 0);
    talk(BYTES("GET /a HTTP"), feed_nothing);
    ck_assert_uint_eq(feed_answers(&f), 0);
}
END_TEST

#define TENTH 100000000 /* nanoseconds */

/* Feeds a part that came so many tenths of a second ago. */
static void feed_ago(int tenths, struct bytes part)
{
    f.conn.now = deadline_now() - (int64_t)tenths * TENTH;
    feed_input(&f, part.data, part.len);
}

/* Tenths of a second that all requests together took. */
static uint64_t tenths(void)
{
    uint64_t sum = counter_read(&f.requests.duration.sum) / TENTH;
    feed_close(&f);
    return sum;
}

/* From the first byte of a request to its answer; of a batch each has the same. */
START_TEST(test_durations)
{
    feed_open(&f, &handler, &service);
    feed_ago(8, BYTES("G"));
    feed_ago(5, BYTES("ET /a HTTP/1.1\r\nHost: a\r\n"));
    feed_ago(0, BYTES("\r\n"));
    ck_assert_uint_eq(tenths(), 8);
    feed_open(&f, &handler, &service);
    feed_ago(5, BYTES(GET("/a") GET("/b") GET("/c")));
    ck_assert_uint_eq(tenths(), 15);
    feed_open(&f, &handler, &service);
    feed_ago(9, BYTES(POST("/request", "Content-Length: 3\r\n\r\n")));
    feed_ago(3, BYTES("abc" GET("/a"))); /* the rest of one, and a whole one */
    ck_assert_uint_eq(tenths(), 9 + 3);
    feed_open(&f, &handler, &service);
    feed_ago(5, BYTES("GET /a HT"));
    f.conn.now = deadline_now();
    feed_expire(&f);
    ck_assert_uint_eq(tenths(), 5);
}
END_TEST

/* Empty lines in front of a request (RFC 9112 section 2.2) are no part of it, nor is the time since. */
START_TEST(test_duration_behind_empty_lines)
{
    feed_open(&f, &handler, &service);
    feed_ago(50, BYTES("\r\n"));
    feed_ago(2, BYTES(GET("/a") "\r\n"));
    feed_ago(0, BYTES(GET("/b")));
    ck_assert_uint_eq(tenths(), 2);
}
END_TEST

/* --- Anything ------------------------------------------------------------------------------------------------------- */

/* Requests with a few bytes changed, cut at a few positions: the same comes out, and nothing behind a refusal. */
START_TEST(test_changed_bytes)
{
    static const char sound[] =
        GET("/a%20b?c") POST("/request", "Transfer-Encoding: chunked\r\n\r\n3;x=\"y\"\r\nabc\r\n0\r\nA: b\r\n\r\n")
            POST("/request", "Expect: 100-continue\r\nContent-Length: 4\r\n\r\nabcd") GET("/end");
    static const char bytes[] = "\r\n\t \0:;,\"\\%/0159afgFGT\x7F\x80\xFF";
    static struct feed part;
    char raw[sizeof sound];
    uint32_t seed = 1;
    for (int round = 0; round < 3000; round++) {
        memcpy(raw, sound, sizeof sound);
        size_t at[4];
        for (int i = 0; i < 4; i++) {
            seed = seed * 1664525 + 1013904223;
            at[i] = (seed >> 8) % (sizeof sound - 1);
            if (i < 2)
                raw[at[i]] = bytes[(seed >> 4) % (sizeof bytes - 1)];
        }
        struct bytes in = { raw, sizeof sound - 1 };
        size_t cuts[2] = { at[2] < at[3] ? at[2] : at[3], at[2] < at[3] ? at[3] : at[2] };
        feed_run(&f, &handler, &service, in, NULL, 0, feed_eof);
        feed_run(&part, &handler, &service, in, cuts, 2, feed_eof);
        feed_compare(&f, &part, in, cuts[0]);
        const char *close = strstr(f.out, "\r\nConnection: close\r\n");
        ck_assert(close == NULL || strstr(close, "\r\nDate: ") == NULL);
    }
}
END_TEST

UNIT_MAIN("session", test_one_after_another, test_recalled_by_another_listener, test_nothing_behind_close,
          test_http_1_0, test_max_requests, test_a_thousand_pipelined, test_output_is_bounded, test_held_head,
          test_malformed_chunk, test_expect, test_preconditions, test_refused_head, test_refused_behind_head,
          test_limits, test_same_head_under_other_limits, test_same_head_again, test_heads_of_every_size,
          test_time_limits, test_expire, test_eof, test_stray_empty_line, test_drain, test_access_log,
          test_access_log_of_long_values, test_counts, test_counts_of_endings, test_durations,
          test_duration_behind_empty_lines, test_changed_bytes)
