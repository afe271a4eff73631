#include "handlers/handlers.h"

#include "feed.h"
#include "unit.h"

static struct feed f;

/* --- The handler as a section of the configuration makes it ------------------------------------------------------- */

struct service {
    void *settings, *shared;
};

/* The defaults, but for keys and values in pairs that end with NULL. */
static struct service service_start(const char *const *pairs)
{
    struct service s = { .settings = calloc(1, greeting_handler.settings_size) };
    const struct option_row *options = greeting_handler.options;
    char err[256];
    for (const struct option_row *row = options; row->name != NULL; row++)
        ck_assert_msg(option_parse(row, row->fallback, s.settings, err, sizeof err) == 0, "%s: %s", row->name, err);
    for (; *pairs != NULL; pairs += 2)
        ck_assert_msg(option_parse(option_find(options, pairs[0]), pairs[1], s.settings, err, sizeof err) == 0,
                      "%s: %s", pairs[0], err);
    ck_assert_int_eq(greeting_handler.start(s.settings, &s.shared, err, sizeof err), 0);
    return s;
}

static void service_stop(struct service *s)
{
    greeting_handler.stop(s->shared);
    free(s->settings);
}

/* What raw comes to, fed in every way. */
static const char *talk_with(const char *const *pairs, struct bytes raw, feed_ending *ending)
{
    struct service s = service_start(pairs);
    feed_every_way(&f, &greeting_handler, s.shared, raw, ending);
    service_stop(&s);
    return f.out;
}

#define DEFAULTS          ((const char *const[]){ NULL })
#define WITH(...)         ((const char *const[]){ __VA_ARGS__, NULL })
#define TALK(raw)         talk_with(DEFAULTS, BYTES(raw), feed_nothing)
#define TALK_TO(raw, end) talk_with(DEFAULTS, BYTES(raw), end)

#define HOST               " HTTP/1.1\r\nHost: a\r\n"
#define GET(target)        "GET " target HOST "\r\n"
#define HEAD(target)       "HEAD " target HOST "\r\n"
#define POST(target, rest) "POST " target HOST rest
#define CHUNKED            "Transfer-Encoding: chunked\r\n\r\n"

#define ANSWER(status, fields, length, content)                                       \
    "HTTP/1.1 " status "\r\n" DATE_MASK "Content-Type: text/plain; charset=utf-8\r\n" \
    "X-Content-Type-Options: nosniff\r\n" fields "Content-Length: " length "\r\n\r\n" content
#define OK(length, content)   ANSWER("200 OK", "", length, content)
#define LAST(length, content) ANSWER("200 OK", "Connection: close\r\n", length, content)
#define HI                    OK("10", "Hello, Ada")
#define BYE                   LAST("10", "Hello, Ada")
#define NOT_ALLOWED \
    ANSWER("405 Method Not Allowed", "Allow: GET, HEAD\r\n", "34", "405 Method Not Allowed: see Allow\n")
#define NOT_FOUND ANSWER("404 Not Found", "", "37", "404 Not Found: there is no such path\n")
#define CONTINUE  "HTTP/1.1 100 Continue\r\n\r\n"

/* The only answer has that status, closes, and nothing but the end follows. */
static void check_refused(const char *status)
{
    const char *end = strstr(f.out, "\r\n\r\n");
    ck_assert_msg(end != NULL && strncmp(f.out + strlen("HTTP/1.1 "), status, strlen(status)) == 0, "%s", f.out);
    ck_assert_ptr_nonnull(strstr(f.out, "\r\nConnection: close\r\n"));
    ck_assert_ptr_nonnull(strstr(f.out, "\r\nX-Content-Type-Options: nosniff\r\n"));
    ck_assert_ptr_null(strstr(end, "\r\nDate: "));
    ck_assert_int_eq(f.verdict, HANDLER_FINISH);
}

/* The body of the only answer. */
static const char *body(void)
{
    const char *end = strstr(f.out, "\r\n\r\n");
    ck_assert_ptr_nonnull(end);
    return end + 4;
}

/* --- GET / and GET /<name> ------------------------------------------------------------------------------------------ */

START_TEST(test_anonymous)
{
    ck_assert_said(TALK(GET("/")), OK("16", "Hello, Anonymous"));
    ck_assert_int_eq(f.verdict, HANDLER_MORE);
}
END_TEST

START_TEST(test_name)
{
    ck_assert_said(TALK(GET("/Ada")), HI);
    ck_assert_said(TALK(GET("/healthz")), OK("14", "Hello, healthz"));
    ck_assert_said(TALK(GET("/-._~!$&'()*+,;=:@")), OK("24", "Hello, -._~!$&'()*+,;=:@"));
}
END_TEST

/* RFC 9112 section 3.2.2: a server takes the absolute form too; no path is the path "/". */
START_TEST(test_absolute_form)
{
    ck_assert_said(TALK(GET("http://b.example:80/Ada?x")), HI);
    ck_assert_said(TALK(GET("HTTP://b.example/Ada")), HI);
    ck_assert_said(TALK(GET("http://b.example")), OK("16", "Hello, Anonymous"));
    ck_assert_said(TALK(GET("http://b.example?Ada")), OK("16", "Hello, Anonymous"));
    TALK(GET("https://b.example/Ada") GET("/b"));
    check_refused("421 Misdirected Request");
}
END_TEST

START_TEST(test_query_is_ignored)
{
    ck_assert_said(TALK(GET("/?Ada")), OK("16", "Hello, Anonymous"));
    ck_assert_said(TALK(GET("/Ada?x=/a/b?c&d=%00")), HI);
    ck_assert_said(TALK(GET("/Ada?")), HI);
}
END_TEST

/* Once, never twice; an escaped slash is part of the name. */
START_TEST(test_decoding)
{
    ck_assert_said(TALK(GET("/%41%64%61")), HI);
    ck_assert_said(TALK(GET("/%2541da")), OK("12", "Hello, %41da"));
    ck_assert_said(TALK(GET("/a%2Fb")), OK("10", "Hello, a/b"));
    ck_assert_said(TALK(GET("/%2f")), OK("8", "Hello, /"));
    ck_assert_said(TALK(GET("/%3F%23%25")), OK("10", "Hello, ?#%"));
    ck_assert_said(TALK(GET("/a+b%20c")), OK("12", "Hello, a+b c"));
}
END_TEST

START_TEST(test_utf_8)
{
    ck_assert_said(TALK(GET("/J%C3%BCrgen")), OK("14", "Hello, J\xC3\xBCrgen"));
    ck_assert_said(TALK(GET("/%e5%b1%b1%F0%9F%98%80")), OK("14", "Hello, \xE5\xB1\xB1\xF0\x9F\x98\x80"));
    ck_assert_said(TALK(GET("/%F4%8F%BF%BF")), OK("11", "Hello, \xF4\x8F\xBF\xBF"));
}
END_TEST

/* Sound requests for a name that is none: a 400 on a connection that stays open, and the next one gets its answer. */
START_TEST(test_names_that_are_no_text)
{
    static const char *const bad[] = {
        "%00",
        "a%00b",
        "%0A",
        "%0d%0aX:y",
        "%09",
        "%1B%5B2J",
        "%7F",
        "%C2%85",
        "%80",
        "%C3",
        "%C3%28",
        "%C0%AF",
        "%C1%81",
        "%FF",
        "%E0%80%AF",
        "%ED%A0%80",
        "%F0%80%80%AF",
        "%F4%90%80%80",
        "%F8%88%80%80%80",
        "%E2%82",
    };
    char raw[256];
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        int len = snprintf(raw, sizeof raw, "GET /%s" HOST "\r\n" GET("/Ada"), bad[i]);
        talk_with(DEFAULTS, (struct bytes){ raw, (size_t)len }, feed_nothing);
        ck_assert_msg(strncmp(f.out, "HTTP/1.1 400 Bad Request\r\n", 26) == 0, "%s\n%s", bad[i], f.out);
        ck_assert_ptr_null(strstr(f.out, "\r\nX:y"));
        const char *next = f.out + f.len - strlen(HI);
        ck_assert_msg(next > f.out && strcmp(next, HI) == 0, "%s\n%s", bad[i], f.out);
    }
}
END_TEST

/* What is no escape, and what is no URI, may be read in two ways: a 400, and the end. */
START_TEST(test_targets_that_are_no_uri)
{
    static const char *const bad[] = { "/%",   "/%4",       "/%4G",  "/%G4",  "/%zz",  "/%%41", "/%u0041", "/a b",
                                       "/a#b", "/\xC3\xBC", "/\x7F", "/a\tb", "/a\\b", "/<b>",  "Ada",     "*" };
    char raw[256];
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        int len = snprintf(raw, sizeof raw, "GET %s" HOST "\r\n" GET("/Ada"), bad[i]);
        talk_with(DEFAULTS, (struct bytes){ raw, (size_t)len }, feed_nothing);
        check_refused("400 Bad Request");
    }
}
END_TEST

/* Nothing of a request is markup, or gets into a header, or is expanded. */
START_TEST(test_name_is_plain_text)
{
    ck_assert_said(TALK(GET("/%3Cscript%3E")), OK("15", "Hello, <script>"));
    ck_assert_said(TALK(GET("/%7Bname%7D")), OK("13", "Hello, {name}"));
    ck_assert_said(TALK(GET("/%25s%25n")), OK("11", "Hello, %s%n"));
}
END_TEST

START_TEST(test_other_paths)
{
    static const char *const paths[] = { "/a/b", "/a/", "//", "//a", "/a/b/c?d", "/a%2Fb/c", "/%00/a" };
    char raw[256];
    for (size_t i = 0; i < sizeof paths / sizeof paths[0]; i++) {
        int len = snprintf(raw, sizeof raw, "GET %s" HOST "\r\n" GET("/Ada"), paths[i]);
        ck_assert_said(talk_with(DEFAULTS, (struct bytes){ raw, (size_t)len }, feed_nothing), NOT_FOUND HI);
    }
}
END_TEST

START_TEST(test_settings)
{
    ck_assert_str_eq(
        talk_with(WITH("greeting", "Hi {name}, {name}!", "anonymous", "you"), BYTES(GET("/")), feed_nothing),
        OK("12", "Hi you, you!"));
    ck_assert_said(talk_with(WITH("greeting", "Hi {name}, {name}!"), BYTES(GET("/A%7Bname%7D")), feed_nothing),
                   OK("20", "Hi A{name}, A{name}!"));
    ck_assert_said(talk_with(WITH("greeting", "{name}"), BYTES(GET("/Ada")), feed_nothing), OK("3", "Ada"));
    ck_assert_said(talk_with(WITH("greeting", "Hi"), BYTES(GET("/Ada")), feed_nothing), OK("2", "Hi"));
    ck_assert_said(talk_with(WITH("greeting", "{Name} {name", "anonymous", "{name}"), BYTES(GET("/")), feed_nothing),
                   OK("12", "{Name} {name"));
}
END_TEST

/* As many names as fit in the longest greeting, and the longest name: nothing is lost. */
START_TEST(test_longest_greeting)
{
    static char raw[20000], greeting[256];
    for (int i = 0; i < 30; i++)
        strcat(greeting, "{name}");
    int len = snprintf(raw, sizeof raw, "GET /%02046d HTTP/1.1\r\nHost: a\r\n\r\n", 7);
    struct service s = service_start(WITH("greeting", greeting, "max_target", "2k"));
    feed_run(&f, &greeting_handler, s.shared, (struct bytes){ raw, (size_t)len }, NULL, 0, feed_nothing);
    ck_assert_ptr_nonnull(strstr(f.out, "\r\nContent-Length: 61380\r\n"));
    ck_assert_uint_eq(strlen(body()), 30 * 2046);
    service_stop(&s);
}
END_TEST

/* --- Methods ------------------------------------------------------------------------------------------------------- */

/* RFC 9110 section 9.3.2: every field that GET has, and no content. */
START_TEST(test_head)
{
    ck_assert_said(TALK(HEAD("/Ada") GET("/Ada")), OK("10", "") HI);
    ck_assert_said(TALK(HEAD("/")), OK("16", ""));
    ck_assert_said(TALK(HEAD("/a/b") GET("/Ada")), ANSWER("404 Not Found", "", "37", "") HI);
    TALK(HEAD("/%zz") GET("/Ada"));
    check_refused("400 Bad Request");
    ck_assert_str_eq(body(), "");
}
END_TEST

START_TEST(test_other_methods)
{
    static const char *const methods[] = { "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "PROPFIND" };
    char raw[256];
    for (size_t i = 0; i < sizeof methods / sizeof methods[0]; i++) {
        int len = snprintf(raw, sizeof raw, "%s /Ada" HOST "\r\n" GET("/Ada"), methods[i]);
        ck_assert_said(talk_with(DEFAULTS, (struct bytes){ raw, (size_t)len }, feed_nothing), NOT_ALLOWED HI);
    }
    ck_assert_said(TALK(POST("/", "\r\n")), NOT_ALLOWED);
    ck_assert_said(TALK(POST("/a/b", "\r\n")), NOT_FOUND);
    TALK("BREW /Ada" HOST "\r\n" GET("/Ada"));
    check_refused("501 Not Implemented");
}
END_TEST

/* RFC 9110 section 9.3.7: about the server as a whole. */
START_TEST(test_options)
{
    ck_assert_said(TALK("OPTIONS *" HOST "\r\n" GET("/Ada")), ANSWER("200 OK", "Allow: GET, HEAD\r\n", "0", "") HI);
}
END_TEST

/* RFC 9110 section 9.3.6: no tunnel; what follows would be no HTTP. */
START_TEST(test_connect)
{
    TALK("CONNECT b:80" HOST "\r\n" GET("/Ada"));
    check_refused("405 Method Not Allowed");
    ck_assert_ptr_nonnull(strstr(f.out, "\r\nAllow: GET, HEAD\r\n"));
    TALK("CONNECT b" HOST "\r\n" GET("/Ada"));
    check_refused("400 Bad Request");
}
END_TEST

/* --- Connections ----------------------------------------------------------------------------------------------------- */

START_TEST(test_pipelining)
{
    ck_assert_said(TALK(GET("/Ada") GET("/") HEAD("/Ada") GET("/a/b") POST("/", "\r\n") GET("/Ada")),
                   HI OK("16", "Hello, Anonymous") OK("10", "") NOT_FOUND NOT_ALLOWED HI);
    ck_assert_int_eq(f.verdict, HANDLER_MORE);
}
END_TEST

START_TEST(test_connection_close)
{
    static const char *const fields[] = {
        "Connection: close",
        "connection: CLOSE",
        "Connection: x, Close",
        "Connection: close,x",
        "Connection: a ,\tclose ",
        "Connection:,,close",
        "Connection: keep-alive, close",
        "Connection: x\r\nConnection: close",
    };
    char raw[256];
    for (size_t i = 0; i < sizeof fields / sizeof fields[0]; i++) {
        int len = snprintf(raw, sizeof raw, "GET /Ada" HOST "%s\r\n\r\n" GET("/b"), fields[i]);
        ck_assert_said(talk_with(DEFAULTS, (struct bytes){ raw, (size_t)len }, feed_nothing), BYE);
        ck_assert_int_eq(f.verdict, HANDLER_FINISH);
    }
    ck_assert_said(TALK("GET /Ada" HOST "Connection: closed\r\n\r\n" GET("/Ada")), HI HI);
    ck_assert_said(TALK("GET /Ada" HOST "X: close\r\n\r\n" GET("/Ada")), HI HI);
}
END_TEST

START_TEST(test_http_1_0)
{
    ck_assert_said(TALK("GET /Ada HTTP/1.0\r\n\r\n" GET("/b")), BYE);
    ck_assert_int_eq(f.verdict, HANDLER_FINISH);
    ck_assert_said(TALK("GET /Ada HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n" GET("/Ada")),
                   ANSWER("200 OK", "Connection: keep-alive\r\n", "10", "Hello, Ada") HI);
    ck_assert_said(TALK("HEAD /Ada HTTP/1.0\r\n\r\n"), LAST("10", ""));
    ck_assert_said(TALK("POST /Ada HTTP/1.0\r\nContent-Length: 3\r\n\r\nabc"),
                   ANSWER("405 Method Not Allowed", "Connection: close\r\nAllow: GET, HEAD\r\n", "34",
                          "405 Method Not Allowed: see Allow\n"));
}
END_TEST

START_TEST(test_max_requests)
{
    ck_assert_said(talk_with(WITH("max_requests", "2"), BYTES(GET("/Ada") GET("/Ada") GET("/b")), feed_nothing),
                   HI BYE);
    ck_assert_int_eq(f.verdict, HANDLER_FINISH);
}
END_TEST

/* --- Bodies -------------------------------------------------------------------------------------------------------------- */

/* Read past without losing sync, on GET too (RFC 9110 section 9.3.1): what looks like a request in them is none. */
START_TEST(test_bodies)
{
    ck_assert_said(TALK("GET /Ada" HOST "Content-Length: 28\r\n\r\n" GET("/x") GET("/Ada")), HI HI);
    ck_assert_said(TALK(POST("/", "Content-Length: 28\r\n\r\n" GET("/x")) GET("/Ada")), NOT_ALLOWED HI);
    ck_assert_said(TALK("GET /Ada" HOST "Content-Length: 0\r\n\r\n" GET("/Ada")), HI HI);
    ck_assert_said(TALK("HEAD /Ada" HOST CHUNKED "2\r\nab\r\n0\r\n\r\n" GET("/Ada")), OK("10", "") HI);
    ck_assert_str_eq(
        TALK("GET /Ada" HOST CHUNKED "1c;a=b;c=\"d\\\"\"\r\n" GET("/x") "\r\n0;e\r\nX: y\r\n\r\n" GET("/Ada")), HI HI);
    ck_assert_said(TALK("GET /Ada" HOST CHUNKED "0\r\n\r\n" GET("/Ada")), HI HI);
    ck_assert_said(TALK("GET /Ada" HOST "Connection: close\r\n" CHUNKED "0\r\n\r\n" GET("/b")), BYE);
}
END_TEST

/* After a malformed chunk or trailer there is a 400 and nothing else, not even the answer to its request. */
START_TEST(test_malformed_bodies)
{
    static const char *const bad[] = {
        "x\r\n",
        "-1\r\n",
        "0x1\r\na\r\n0\r\n\r\n",
        "1\na\n0\n\n",
        "1 \r\na\r\n",
        "1\r\nab\r\n",
        "1\r\na0\r\n\r\n",
        "1;\r\na\r\n0\r\n\r\n",
        "1;a=\"\n",
        "10000000000000000\r\na\r\n0\r\n\r\n",
        "0\r\nHost: b\r\n\r\n",
        "0\r\nContent-Length: 1\r\n\r\n",
        "0\r\nTransfer-Encoding: x\r\n\r\n",
        "0\r\n X: y\r\n\r\n",
        "0\r\nX : y\r\n\r\n",
        "0\r\nX\r\n\r\n",
        "0\r\n\n",
    };
    char raw[256];
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        int len = snprintf(raw, sizeof raw, "GET /Ada" HOST CHUNKED "%s" GET("/b"), bad[i]);
        talk_with(DEFAULTS, (struct bytes){ raw, (size_t)len }, feed_nothing);
        check_refused("400 Bad Request");
    }
}
END_TEST

START_TEST(test_ambiguous_framing)
{
    static const char *const bad[] = {
        "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n",
        "Content-Length: 5\r\nContent-Length: 5\r\n",
        "Content-Length: 5, 5\r\n",
        "Content-Length: +5\r\n",
        "Content-Length: -5\r\n",
        "Content-Length:\r\n",
        "Transfer-Encoding:\r\n",
        "Content-Length: 5\r\nTransfer-Encoding:\r\n",
        "Transfer-Encoding: , chunked\r\n",
        "Transfer-Encoding: chunked, chunked\r\n",
        "Transfer-Encoding: chunked, gzip\r\n",
        "Transfer-Encoding: gzip\r\n",
        "Transfer-Encoding: chunked\r\n gzip\r\n",
        "Content-Length: 1\r\n 0\r\n",
        "Content-Length : 5\r\n",
    };
    char raw[256];
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        int len = snprintf(raw, sizeof raw, "GET /Ada" HOST "%s\r\n0\r\n\r\n" GET("/b"), bad[i]);
        talk_with(DEFAULTS, (struct bytes){ raw, (size_t)len }, feed_nothing);
        check_refused("400 Bad Request");
    }
    TALK("GET /Ada" HOST "Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n" GET("/b"));
    check_refused("501 Not Implemented");
}
END_TEST

START_TEST(test_expect)
{
    ck_assert_said(TALK("GET /Ada" HOST "Expect: 100-continue\r\nContent-Length: 3\r\n\r\n"), CONTINUE);
    ck_assert_said(TALK("GET /Ada" HOST "Expect: 100-Continue\r\nContent-Length: 3\r\n\r\nabc" GET("/Ada")),
                   CONTINUE HI HI);
    ck_assert_said(TALK("GET /Ada" HOST "Expect: 100-continue\r\n" CHUNKED "0\r\n\r\n"), CONTINUE HI);
    ck_assert_said(TALK("GET /Ada" HOST "Expect: 100-continue\r\n\r\n"), HI);
    ck_assert_said(TALK("GET /Ada HTTP/1.0\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\nabc"), BYE);
    TALK("GET /Ada" HOST "Expect: 101-switch\r\n\r\n" GET("/b"));
    check_refused("417 Expectation Failed");
}
END_TEST

/* --- Limits ------------------------------------------------------------------------------------------------------------- */

START_TEST(test_limits)
{
    static const char *const few[] = { "max_target", "64", "max_header_size", "256", "max_headers", "3", "max_body",
                                       "16",         NULL };
    talk_with(few, BYTES(GET("/12345678901234567890123456789012345678901234567890123456789012345") GET("/b")),
              feed_nothing);
    check_refused("414 URI Too Long");
    talk_with(few, BYTES("GET /Ada" HOST "X:\r\nX:\r\nX:\r\n\r\n" GET("/b")), feed_nothing);
    check_refused("431 Request Header Fields Too Large");
    talk_with(few,
              BYTES("GET /Ada" HOST
                    "X: 12345678901234567890123456789012345678901234567890123456789012345678901234567890"
                    "12345678901234567890123456789012345678901234567890123456789012345678901234567890123456789012345678"
                    "12345678901234567890123456789012345678901234567890123456789012345678901234567890\r\n\r\n"),
              feed_nothing);
    check_refused("431 Request Header Fields Too Large");
    talk_with(few, BYTES(POST("/Ada", "Content-Length: 17\r\n\r\n12345678901234567") GET("/b")), feed_nothing);
    check_refused("413 Content Too Large");
    talk_with(few, BYTES(POST("/Ada", CHUNKED "4\r\nabcd\r\n4\r\nabcd\r\n0\r\n\r\n") GET("/b")), feed_nothing);
    check_refused("413 Content Too Large");
    talk_with(few, BYTES(POST("/Ada", CHUNKED "1;a=bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb")), feed_nothing);
    check_refused("413 Content Too Large");
    ck_assert_str_eq(
        talk_with(few, BYTES(POST("/Ada", "Content-Length: 16\r\n\r\n1234567890123456") GET("/Ada")), feed_nothing),
        NOT_ALLOWED HI);
}
END_TEST

/* --- Time, half-close, drain ------------------------------------------------------------------------------------------- */

START_TEST(test_time_limits)
{
    TALK("");
    ck_assert_uint_eq(f.timeout, 60000);
    TALK(GET("/Ada") "GET");
    ck_assert_uint_eq(f.timeout, 20000);
    struct service s = service_start(WITH("keepalive_timeout", "1s", "header_timeout", "2s", "body_timeout", "3s"));
    feed_open(&f, &greeting_handler, s.shared);
    ck_assert_uint_eq(f.timeout, 1000);
    feed_input(&f, "POST /", 6);
    ck_assert_uint_eq(f.timeout, 2000);
    feed_input(&f, HOST "Content-Length: 1\r\n\r\n", strlen(HOST "Content-Length: 1\r\n\r\n"));
    ck_assert_uint_eq(f.timeout, 3000);
    feed_input(&f, "x", 1);
    ck_assert_uint_eq(f.timeout, 1000);
    feed_close(&f);
    service_stop(&s);
}
END_TEST

START_TEST(test_expire)
{
    TALK_TO("GET /Ada" HOST, feed_expire); /* in a head */
    check_refused("408 Request Timeout");
    TALK_TO("GET /Ada" HOST "Content-Length: 9\r\n\r\nabc", feed_expire); /* in a body */
    check_refused("408 Request Timeout");
    ck_assert_said(TALK_TO(GET("/Ada"), feed_expire), HI); /* idle */
    ck_assert_int_eq(f.verdict, HANDLER_FINISH);
    ck_assert_said(TALK_TO("", feed_expire), "");
    ck_assert_int_eq(f.verdict, HANDLER_FINISH);
}
END_TEST

START_TEST(test_eof)
{
    ck_assert_said(TALK_TO(GET("/Ada") GET("/Ada"), feed_eof), HI HI);
    ck_assert_int_eq(f.verdict, HANDLER_FINISH);
    TALK_TO("GET /Ada", feed_eof);
    check_refused("400 Bad Request");
    TALK_TO("GET /Ada" HOST CHUNKED "5\r\nhell", feed_eof);
    check_refused("400 Bad Request");
}
END_TEST

START_TEST(test_drain)
{
    ck_assert_said(TALK_TO("", feed_drain), ""); /* it has just connected: a moment for its request */
    ck_assert_int_eq(f.verdict, HANDLER_MORE);
    ck_assert_uint_eq(f.timeout, 1000);
    ck_assert_said(TALK_TO(GET("/Ada"), feed_drain), HI); /* idle */
    ck_assert_int_eq(f.verdict, HANDLER_FINISH);
    struct service s = service_start(DEFAULTS); /* in flight */
    feed_open(&f, &greeting_handler, s.shared);
    feed_input(&f, "GET /Ada HT", 11);
    feed_drain(&f);
    ck_assert_int_eq(f.verdict, HANDLER_MORE);
    feed_input(&f, "TP/1.1\r\nHost: a\r\n\r\n" GET("/b"), strlen("TP/1.1\r\nHost: a\r\n\r\n" GET("/b")));
    ck_assert_int_eq(f.verdict, HANDLER_FINISH);
    feed_close(&f);
    service_stop(&s);
    ck_assert_said(f.out, BYE);
}
END_TEST

UNIT_MAIN("greeting", test_anonymous, test_name, test_absolute_form, test_query_is_ignored, test_decoding, test_utf_8,
          test_names_that_are_no_text, test_targets_that_are_no_uri, test_name_is_plain_text, test_other_paths,
          test_settings, test_longest_greeting, test_head, test_other_methods, test_options, test_connect,
          test_pipelining, test_connection_close, test_http_1_0, test_max_requests, test_bodies, test_malformed_bodies,
          test_ambiguous_framing, test_expect, test_limits, test_time_limits, test_expire, test_eof, test_drain)
