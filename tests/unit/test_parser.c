#include "http/parser.h"

#include "unit.h"

#include <stdio.h>
#include <string.h>

static const struct http_limits limits = { .target = 8192, .header_size = 16384, .headers = 100, .body = 1 << 20 };

/* --- What a stream of bytes comes to, as text ------------------------------------------------------------------- */

/* A parser and what it has made of its input so far. */
struct reader {
    struct http_parser parser;
    const struct http_limits *limits;
    bool body, refused;
    char *unread; /* shown again */
    size_t unread_len;
    size_t len; /* of text */
    char text[2048];
};

/* "GET /x?y 1.1 keep expect body", and "(/y)" behind the target where path and query are not the same as it. */
static void reader_tell(struct reader *r, const struct http_request *q)
{
    char uri[256] = "";
    if (q->uri.len != q->target.len)
        snprintf(uri, sizeof uri, " (%.*s)", (int)q->uri.len, q->uri.data);
    int n = snprintf(r->text + r->len, sizeof r->text - r->len, "%s%.*s %.*s%s 1.%u%s%s%s", r->len > 0 ? "; " : "",
                     (int)q->method.len, q->method.data, (int)q->target.len, q->target.data, uri, q->minor,
                     q->keep_alive ? " keep" : "", q->expect ? " expect" : "", q->body ? " body" : "");
    r->len += (size_t)n;
    ck_assert_uint_lt(r->len, sizeof r->text);
}

/* One step; false when more bytes are needed, or none can help. */
static bool reader_step(struct reader *r, struct bytes *in)
{
    struct http_request request;
    struct bytes before = *in;
    enum http_parsed parsed =
        r->body ? http_parser_body(&r->parser, r->limits, in) : http_parser_head(&r->parser, r->limits, in, &request);
    if (parsed == HTTP_MORE && !r->body)
        ck_assert(in->data == before.data && in->len == before.len);
    if (parsed == HTTP_REFUSED) {
        snprintf(r->text + r->len, sizeof r->text - r->len, "%s%u %s", r->len > 0 ? "; " : "", r->parser.refusal.status,
                 r->parser.refusal.why);
        r->refused = true;
    } else if (parsed == HTTP_COMPLETE && r->body) {
        r->body = false;
    } else if (parsed == HTTP_COMPLETE) {
        reader_tell(r, &request);
        r->body = request.body;
    }
    return parsed == HTTP_COMPLETE;
}

/* More bytes come, in memory that ends with the last of them and is gone afterwards. */
static void reader_feed(struct reader *r, const char *data, size_t len)
{
    struct bytes in = { .len = r->unread_len + len };
    char *shown = malloc(in.len > 0 ? in.len : 1);
    memcpy(shown, r->unread_len > 0 ? r->unread : "", r->unread_len);
    memcpy(shown + r->unread_len, data, len);
    in.data = shown;
    while (!r->refused && in.len > 0 && reader_step(r, &in))
        ;
    free(r->unread);
    r->unread_len = r->refused ? 0 : in.len;
    r->unread = malloc(r->unread_len + 1);
    ck_assert_ptr_nonnull(r->unread);
    memcpy(r->unread, in.data, r->unread_len);
    free(shown);
}

/* The stream ends: what was it in the middle of? */
static void reader_end(struct reader *r)
{
    const char *rest = r->refused ? "" : r->body ? "body" : r->unread_len > 0 ? "head" : "";
    snprintf(r->text + r->len + (r->refused ? strlen(r->text + r->len) : 0), 16, "%s%s",
             r->len > 0 && *rest != '\0' ? "; " : "", rest);
    free(r->unread);
    r->unread = NULL;
}

static void read_cut(struct reader *r, const struct http_limits *lim, struct bytes raw, size_t cut)
{
    memset(r, 0, sizeof *r);
    r->limits = lim;
    reader_feed(r, raw.data, cut);
    reader_feed(r, raw.data + cut, raw.len - cut);
    reader_end(r);
}

/* Step bytes at a time. */
static void read_steps(struct reader *r, const struct http_limits *lim, struct bytes raw, size_t step)
{
    memset(r, 0, sizeof *r);
    r->limits = lim;
    for (size_t at = 0; at < raw.len; at += step)
        reader_feed(r, raw.data + at, raw.len - at < step ? raw.len - at : step);
    reader_end(r);
}

/* True when raw comes to what is expected: whole, step by step, and, unless it is long, cut at every position. */
static bool comes_to(const char *name, const struct http_limits *lim, struct bytes raw, const char *expected)
{
    static struct reader whole, part;
    size_t step = raw.len > 4096 ? 997 : 1;
    read_cut(&whole, lim, raw, raw.len);
    read_steps(&part, lim, raw, step);
    bool split = strcmp(part.text, whole.text) != 0;
    for (size_t cut = 1; cut < raw.len && !split; cut += step) {
        read_cut(&part, lim, raw, cut);
        split = strcmp(part.text, whole.text) != 0;
    }
    if (split)
        fprintf(stderr, "%s: whole \"%s\", split \"%s\"\n", name, whole.text, part.text);
    /* the expectation names the status of a refusal, and leaves the sentence open */
    size_t len = strlen(expected);
    bool same = strncmp(whole.text, expected, len) == 0 && (whole.refused ? whole.text[len] == ' ' : !whole.text[len]);
    if (!same)
        fprintf(stderr, "%s: \"%s\" instead of \"%s\"\n", name, whole.text, expected);
    return same && !split;
}

/* --- Tables: name with its section of an RFC, bytes, what they come to -------------------------------------------- */

struct row {
    const char *name, *raw;
    size_t len;
    const char *expected;
};

#define ROW(name, raw, expected)                   \
    {                                              \
        (name), (raw), sizeof(raw) - 1, (expected) \
    }

#define NEXT     "GET /next HTTP/1.1\r\nHost: a\r\n\r\n"
#define THEN     "; GET /next 1.1 keep"
#define RAW_HEAD "POST / HTTP/1.1\r\nHost: a\r\n"
#define RAW_BODY RAW_HEAD "Transfer-Encoding: chunked\r\n\r\n"

/* One request that differs from others by its request line, its target, its fields, its Host, or its chunks. Another
 * one stands behind it, which must not be seen after a refusal. */
#define LINE(name, line, expected)          ROW(name, line "\r\nHost: a\r\n\r\n" NEXT, expected)
#define TARGET(name, method, uri, expected) LINE(name, method " " uri " HTTP/1.1", expected)
#define FIELDS(name, fields, expected)      ROW(name, RAW_HEAD fields "\r\n" NEXT, expected)
#define HOST(name, fields, expected)        ROW(name, "GET / HTTP/1.1\r\n" fields "\r\n" NEXT, expected)
#define LENGTH(name, value, expected)       ROW(name, RAW_HEAD "Content-Length:" value "\r\n\r\nhello" NEXT, expected)
#define CODING(name, value, expected)       ROW(name, RAW_HEAD "Transfer-Encoding:" value "\r\n\r\n0\r\n\r\n" NEXT, expected)
#define CHUNKS(name, chunks, expected)      ROW(name, RAW_BODY chunks NEXT, expected)

#define GET_OK  "GET / 1.1 keep" THEN
#define POST_OK "POST / 1.1 keep" THEN
#define BODY_OK "POST / 1.1 keep body" THEN
#define BAD     "POST / 1.1 keep body; 400" /* the head is fine, a chunk is not */

static void check_rows(const struct row *rows, size_t count)
{
    size_t wrong = 0;
    for (size_t i = 0; i < count; i++)
        wrong += !comes_to(rows[i].name, &limits, (struct bytes){ rows[i].raw, rows[i].len }, rows[i].expected);
    ck_assert_msg(wrong == 0, "%zu of %zu rows, listed above", wrong, count);
}

#define ROWS_TEST(name)                                     \
    START_TEST(test_##name)                                 \
    {                                                       \
        check_rows(name, sizeof name / sizeof(struct row)); \
    }                                                       \
    END_TEST

/* clang-format off */
static const struct row request_lines[] = {
    LINE("9112-3 a request", "GET / HTTP/1.1", GET_OK),
    LINE("9112-3 HTTP/1.0", "GET / HTTP/1.0", "GET / 1.0" THEN),
    ROW("9112-2.2 one empty line in front", "\r\n" NEXT, "GET /next 1.1 keep"),
    ROW("9112-2.2 one empty line between requests", NEXT "\r\n" NEXT, "GET /next 1.1 keep" THEN),
    ROW("9112-2.2 two empty lines in front", "\r\n\r\n" NEXT, "400"),
    ROW("9112-2.2 a bare LF in front", "\n" NEXT, "400"),
    ROW("9112-2.2 a bare CR in front", "\rX" NEXT, "400"),
    ROW("9112-2.2 white space in front", " " NEXT, "400"),
    ROW("9112-2.2 a byte order mark in front", "\xEF\xBB\xBF" NEXT, "400"),
    ROW("9112-3 nothing but an empty line", "\r\n", "head"),
    ROW("9112-8 half a request line", "GET / HT", "head"),
    ROW("9112-8 half a field", NEXT "GET / HTTP/1.1\r\nHos", "GET /next 1.1 keep; head"),
    ROW("9112-8 no empty line", "GET / HTTP/1.1\r\nHost: a\r\n", "head"),
    ROW("9112-8 half an empty line", "GET / HTTP/1.1\r\nHost: a\r\n\r", "head"),
    LINE("9112-3 two spaces behind the method", "GET  / HTTP/1.1", "400"),
    LINE("9112-3 two spaces behind the target", "GET /  HTTP/1.1", "400"),
    LINE("9112-3 a space at the end", "GET / HTTP/1.1 ", "400"),
    LINE("9112-3 a tab behind the method", "GET\t/ HTTP/1.1", "400"),
    LINE("9112-3 a tab behind the target", "GET /\tHTTP/1.1", "400"),
    LINE("9112-3 a vertical tab", "GET /\vHTTP/1.1", "400"),
    LINE("9112-3 a form feed", "GET\f/ HTTP/1.1", "400"),
    LINE("9112-3 no-break space", "GET\xA0/ HTTP/1.1", "400"),
    LINE("9112-3 no method", "/ HTTP/1.1", "400"),
    LINE("9112-3 no target", "GET HTTP/1.1", "400"),
    LINE("9112-3 an empty target", "GET  HTTP/1.1", "400"),
    LINE("9112-3 something behind the version", "GET / HTTP/1.1 x", "400"),
    ROW("9112-2.2 bare LF behind the version", "GET / HTTP/1.1\nHost: a\r\n\r\n" NEXT, "400"),
    ROW("9112-2.2 bare CR behind the version", "GET / HTTP/1.1\rHost: a\r\n\r\n" NEXT, "400"),
    ROW("9112-2.2 CR CR LF", "GET / HTTP/1.1\r\r\nHost: a\r\n\r\n" NEXT, "400"),
    LINE("9110-5.6.2 NUL in the method", "GE\0T / HTTP/1.1", "400"),
    LINE("9110-5.6.2 a delimiter in the method", "GE(T / HTTP/1.1", "400"),
    LINE("9110-5.6.2 CR in the method", "GE\rT / HTTP/1.1", "400"),
    LINE("9112-2.3 HTTP/0.9", "GET /", "400"),
    LINE("9112-2.3 HTTP/0.9, a space behind", "GET / ", "400"),
    LINE("9110-15.6.6 HTTP/0.9 with its version", "GET / HTTP/0.9", "505"),
    LINE("9110-15.6.6 HTTP/1.2", "GET / HTTP/1.2", "505"),
    LINE("9110-15.6.6 HTTP/1.9", "GET / HTTP/1.9", "505"),
    LINE("9110-15.6.6 HTTP/2.0", "GET / HTTP/2.0", "505"),
    LINE("9110-15.6.6 HTTP/3.0", "GET / HTTP/3.0", "505"),
    ROW("9113-3.4 the preface of HTTP/2", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "505"),
    LINE("9112-2.3 lower case", "GET / http/1.1", "400"),
    LINE("9112-2.3 one digit", "GET / HTTP/1", "400"),
    LINE("9112-2.3 two digits in front", "GET / HTTP/01.1", "400"),
    LINE("9112-2.3 two digits behind", "GET / HTTP/1.10", "400"),
    LINE("9112-2.3 no digit", "GET / HTTP/1.x", "400"),
    LINE("9112-2.3 a comma", "GET / HTTP/1,1", "400"),
    LINE("9112-2.3 a sign", "GET / HTTP/+1.1", "400"),
    LINE("9112-2.3 ICE", "GET / ICE/1.0", "400"),
    LINE("9112-2.3 ICE with a method of it", "SOURCE / ICE/1.0", "400"),
    LINE("9112-2.3 RTSP", "GET / RTSP/1.0", "400"),
    LINE("9112-2.3 RTSP with a method of it", "DESCRIBE / RTSP/1.0", "400"),
    ROW("8446-5.1 a TLS ClientHello", "\x16\x03\x01\x02\x00\x01\x00\x01\xFC\x03\x03", "400"),
    ROW("an SSH banner", "SSH-2.0-OpenSSH_9.2\r\n", "400"),
    ROW("a PROXY header", "PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n" NEXT, "400"),
};

static const struct row methods[] = {
    LINE("9110-9.3.2 HEAD", "HEAD / HTTP/1.1", "HEAD / 1.1 keep" THEN),
    LINE("9110-9.3.3 POST", "POST / HTTP/1.1", POST_OK),
    LINE("9110-9.3.4 PUT", "PUT / HTTP/1.1", "PUT / 1.1 keep" THEN),
    LINE("9110-9.3.5 DELETE", "DELETE / HTTP/1.1", "DELETE / 1.1 keep" THEN),
    LINE("9110-9.3.7 OPTIONS", "OPTIONS / HTTP/1.1", "OPTIONS / 1.1 keep" THEN),
    LINE("9110-9.3.8 TRACE", "TRACE / HTTP/1.1", "TRACE / 1.1 keep" THEN),
    LINE("5789-2 PATCH", "PATCH / HTTP/1.1", "PATCH / 1.1 keep" THEN),
    LINE("9110-9.1 lower case is another method", "get / HTTP/1.1", "501"),
    LINE("9110-9.1 mixed case too", "Get / HTTP/1.1", "501"),
    LINE("9110-9.1 unknown", "BREW / HTTP/1.1", "501"),
    LINE("9110-9.1 longer than a known one", "GETX / HTTP/1.1", "501"),
    LINE("9110-9.1 shorter than a known one", "GE / HTTP/1.1", "501"),
    LINE("9110-9.1 all that a token may hold", "!#$%&'*+-.^_`|~09AZaz / HTTP/1.1", "501"),
    LINE("9110-9.1 32 bytes", "ABCDEFGHIJABCDEFGHIJABCDEFGHIJAB / HTTP/1.1", "501"),
    LINE("9112-3 33 bytes", "ABCDEFGHIJABCDEFGHIJABCDEFGHIJABC", "501"),
    LINE("2326-10 a method of RTSP", "DESCRIBE / HTTP/1.1", "501"),
};

static const struct row targets[] = {
    TARGET("9112-3.2.1 origin-form", "GET", "/a/b", "GET /a/b 1.1 keep" THEN),
    TARGET("9112-3.2.1 with a query", "GET", "/a?b=c/d?e", "GET /a?b=c/d?e 1.1 keep" THEN),
    TARGET("9112-3.2.1 an empty query", "GET", "/?", "GET /? 1.1 keep" THEN),
    TARGET("3986-3.3 two slashes", "GET", "//a", "GET //a 1.1 keep" THEN),
    TARGET("3986-3.3 all that a path may hold", "GET", "/-._~!$&'()*+,;=:@09AZaz", "GET /-._~!$&'()*+,;=:@09AZaz 1.1 keep" THEN),
    TARGET("3986-3.4 all that a query may hold", "GET", "/?-._~!$&'()*+,;=:@/?09", "GET /?-._~!$&'()*+,;=:@/?09 1.1 keep" THEN),
    TARGET("3986-2.1 escapes", "GET", "/%00%ff%C3%bC%2F?%0d", "GET /%00%ff%C3%bC%2F?%0d 1.1 keep" THEN),
    TARGET("3986-2.1 an escape without digits", "GET", "/%", "400"),
    TARGET("3986-2.1 with one digit", "GET", "/%4", "400"),
    TARGET("3986-2.1 with a wrong first digit", "GET", "/%g0", "400"),
    TARGET("3986-2.1 with a wrong second digit", "GET", "/%0g", "400"),
    TARGET("3986-2.1 two percent signs", "GET", "/%%41", "400"),
    TARGET("3986-2.1 a sign for a digit", "GET", "/%+1", "400"),
    TARGET("3986-2.1 a slash for a digit", "GET", "/%4/", "400"),
    TARGET("3986-2.1 in a query", "GET", "/?%zz", "400"),
    TARGET("3986-2.1 not of JavaScript", "GET", "/%u0041", "400"),
    TARGET("9112-3.2 a fragment", "GET", "/a#b", "400"),
    TARGET("9112-3.2 nothing but a fragment", "GET", "#", "400"),
    TARGET("3986-A an opening bracket", "GET", "/a[b", "400"),
    TARGET("3986-A a closing bracket", "GET", "/?]", "400"),
    TARGET("3986-A a quote", "GET", "/\"", "400"),
    TARGET("3986-A less than", "GET", "/<", "400"),
    TARGET("3986-A greater than", "GET", "/>", "400"),
    TARGET("3986-A a backslash", "GET", "/a\\b", "400"),
    TARGET("3986-A a circumflex", "GET", "/^", "400"),
    TARGET("3986-A a back quote", "GET", "/`", "400"),
    TARGET("3986-A braces", "GET", "/{name}", "400"),
    TARGET("3986-A a bar", "GET", "/|", "400"),
    TARGET("3986-A NUL", "GET", "/\0", "400"),
    TARGET("3986-A SOH", "GET", "/\x01", "400"),
    TARGET("3986-A escape", "GET", "/\x1B[m", "400"),
    TARGET("3986-A DEL", "GET", "/\x7F", "400"),
    TARGET("3986-A bare CR", "GET", "/\rX", "400"),
    TARGET("3986-A UTF-8", "GET", "/J\xC3\xBCrgen", "400"),
    TARGET("3986-A a byte over 127", "GET", "/\xFF", "400"),
    TARGET("9112-3.2.2 absolute-form", "GET", "http://h/a?b", "GET http://h/a?b (/a?b) 1.1 keep" THEN),
    TARGET("9112-3.2.2 without a path", "GET", "http://h", "GET http://h (/) 1.1 keep" THEN),
    TARGET("9112-3.2.2 a query without a path", "GET", "http://h?b", "GET http://h?b (?b) 1.1 keep" THEN),
    TARGET("9112-3.2.2 upper case, port, IPv6", "GET", "HTTP://[::1]:80/a", "GET HTTP://[::1]:80/a (/a) 1.1 keep" THEN),
    TARGET("9110-7.4 https over a connection that is not secured", "GET", "HTTPS://[::1]:80/a", "421"),
    TARGET("9110-4.2.1 an empty host", "GET", "http:///a", "400"),
    TARGET("9110-4.2.1 a port but no host", "GET", "http://:80/", "400"),
    TARGET("9110-4.2.1 a port that is no number", "GET", "http://h:a/", "400"),
    TARGET("9110-4.2.4 user information", "GET", "http://u@h/", "400"),
    TARGET("9110-4.2.4 with a password", "GET", "http://u:p@h/", "400"),
    TARGET("3986-3.2.2 a bad escape in the host", "GET", "http://%zz/", "400"),
    TARGET("3986-3.2.2 a bad address", "GET", "http://[::1/", "400"),
    TARGET("9112-3.2.2 another scheme", "GET", "ftp://h/", "400"),
    TARGET("9112-3.2.2 no authority", "GET", "http:/a", "400"),
    TARGET("9112-3.2.2 a URN", "GET", "urn:a:b", "400"),
    TARGET("9112-3.2 a relative path", "GET", "a", "400"),
    TARGET("9112-3.2 nothing but a query", "GET", "?a", "400"),
    TARGET("9112-3.2.4 asterisk-form", "OPTIONS", "*", "OPTIONS * () 1.1 keep" THEN),
    TARGET("9112-3.2.4 for OPTIONS only", "GET", "*", "400"),
    TARGET("9112-3.2.4 with something behind", "OPTIONS", "*a", "400"),
    TARGET("9112-3.2.4 with a query", "OPTIONS", "*?", "400"),
    TARGET("9112-3.2.3 authority-form", "CONNECT", "h:80", "CONNECT h:80 () 1.1 keep" THEN),
    TARGET("9112-3.2.3 with an address", "CONNECT", "[::1]:443", "CONNECT [::1]:443 () 1.1 keep" THEN),
    TARGET("9112-3.2.3 for CONNECT only", "GET", "h:80", "400"),
    TARGET("9112-3.2.3 for CONNECT always", "CONNECT", "/", "400"),
    TARGET("9112-3.2.3 not absolute-form", "CONNECT", "http://h:80/", "400"),
    TARGET("9112-3.2.3 no port", "CONNECT", "h", "400"),
    TARGET("9112-3.2.3 no port behind an address", "CONNECT", "[::1]", "400"),
    TARGET("9112-3.2.3 no host", "CONNECT", ":80", "400"),
    TARGET("9110-9.3.6 an empty port", "CONNECT", "h:", "400"),
    TARGET("9110-9.3.6 a port over 65535", "CONNECT", "h:65536", "400"),
    TARGET("9110-9.3.6 a port that is no number", "CONNECT", "h:http", "400"),
    TARGET("9112-3.2.3 user information", "CONNECT", "u@h:80", "400"),
};

static const struct row hosts[] = {
    HOST("9112-3.2 missing", "", "400"),
    ROW("9112-3.2 missing in HTTP/1.0", "GET / HTTP/1.0\r\n\r\n" NEXT, "GET / 1.0" THEN),
    HOST("9112-3.2 repeated", "Host: a\r\nHost: a\r\n", "400"),
    HOST("9112-3.2 repeated in another case", "Host: a\r\nX: y\r\nhOST: b\r\n", "400"),
    ROW("9112-3.2 repeated in HTTP/1.0", "GET / HTTP/1.0\r\nHost: a\r\nHost: a\r\n\r\n" NEXT, "400"),
    ROW("9112-3.2 malformed in HTTP/1.0", "GET / HTTP/1.0\r\nHost: a b\r\n\r\n" NEXT, "400"),
    ROW("9112-3.2.2 missing beside absolute-form", "GET http://h/ HTTP/1.1\r\n\r\n" NEXT, "400"),
    ROW("9112-3.2.2 another than in absolute-form", "GET http://h/ HTTP/1.1\r\nHost: a\r\n\r\n" NEXT, "GET http://h/ (/) 1.1 keep" THEN),
    HOST("9112-3.2 empty", "Host:\r\n", GET_OK),
    HOST("9112-3.2 nothing but white space", "Host: \t \r\n", GET_OK),
    HOST("9110-7.2 with a port", "Host: a.example:8080\r\n", GET_OK),
    HOST("9110-7.2 with an empty port", "Host: a:\r\n", GET_OK),
    HOST("9110-7.2 white space around it", "Host:\t a \t\r\n", GET_OK),
    HOST("9110-7.2 no white space", "Host:a\r\n", GET_OK),
    HOST("3986-3.2.2 IPv4", "Host: 192.0.2.1:80\r\n", GET_OK),
    HOST("3986-3.2.2 IPv6", "Host: [2001:db8::1]\r\n", GET_OK),
    HOST("3986-3.2.2 IPv6 with a port", "Host: [::ffff:192.0.2.1]:80\r\n", GET_OK),
    HOST("3986-3.2.2 all that a name may hold", "Host: -._~!$&'()*+,;=%41AZaz09\r\n", GET_OK),
    HOST("3986-3.2.2 IPv6 that does not end", "Host: [::1\r\n", "400"),
    HOST("3986-3.2.2 an address of the future", "Host: [v1F.a:b]:80\r\n", GET_OK),
    HOST("3986-3.2.2 one without a version", "Host: [v.a]\r\n", "400"),
    HOST("3986-3.2.2 one without an address", "Host: [v1.]\r\n", "400"),
    HOST("3986-3.2.2 one with an escape", "Host: [v1.%41]\r\n", "400"),
    HOST("3986-3.2.2 no address in brackets", "Host: [a]\r\n", "400"),
    HOST("3986-3.2.2 nothing in brackets", "Host: []\r\n", "400"),
    HOST("3986-3.2.2 something behind the bracket", "Host: [::1]a\r\n", "400"),
    HOST("3986-3.2.2 IPv6 without brackets", "Host: ::1\r\n", "400"),
    HOST("3986-3.2.2 a bracket inside", "Host: a]\r\n", "400"),
    HOST("3986-3.2.2 a bad escape", "Host: a%zz\r\n", "400"),
    HOST("3986-3.2.2 half an escape", "Host: a%4\r\n", "400"),
    HOST("9110-7.2 a port that is no number", "Host: a:8x\r\n", "400"),
    HOST("9110-7.2 a port with a sign", "Host: a:-80\r\n", "400"),
    HOST("9110-7.2 two ports", "Host: a:80:80\r\n", "400"),
    HOST("9110-7.2 a path", "Host: a/b\r\n", "400"),
    HOST("9110-7.2 a URI", "Host: http://a\r\n", "400"),
    HOST("9110-7.2 user information", "Host: u@a\r\n", "400"),
    HOST("9110-7.2 two", "Host: a b\r\n", "400"),
    HOST("9110-7.2 a tab inside", "Host: a\tb\r\n", "400"),
    HOST("9110-7.2 a list", "Host: a, b\r\n", "400"),
    HOST("9110-7.2 a backslash", "Host: a\\b\r\n", "400"),
    HOST("9110-7.2 a quote", "Host: \"a\"\r\n", "400"),
    HOST("9110-7.2 a byte over 127", "Host: \xC3\xBC\r\n", "400"),
};

static const struct row field_lines[] = {
    FIELDS("9112-5 a field", "X: y\r\n", POST_OK),
    FIELDS("9112-5 no white space", "X:y\r\n", POST_OK),
    FIELDS("9112-5 an empty value", "X:\r\n", POST_OK),
    FIELDS("9110-5.6.2 all that a name may hold", "!#$%&'*+-.^_`|~09AZaz: y\r\n", POST_OK),
    FIELDS("9110-5.5 all that a value may hold", "X: !\t~ \x80\xFF\"(),/:;<=>?@[\\]{}\r\n", POST_OK),
    FIELDS("9110-5.5 colons", "X:::\r\n", POST_OK),
    FIELDS("9112-5.1 a space before the colon", "X : y\r\n", "400"),
    FIELDS("9112-5.1 a tab before the colon", "X\t: y\r\n", "400"),
    FIELDS("9112-2.2 a space before the first field", " X: y\r\n", "400"),
    ROW("9112-2.2 a space behind the request line", "GET / HTTP/1.1\r\n Host: a\r\n\r\n" NEXT, "400"),
    FIELDS("9112-5.2 obs-fold", "X: y\r\n z\r\n", "400"),
    FIELDS("9112-5.2 obs-fold by a tab", "X: y\r\n\tz\r\n", "400"),
    FIELDS("9112-5.2 obs-fold of nothing", "X: y\r\n \r\n", "400"),
    FIELDS("9112-5.2 a folded Content-Length", "Content-Length: 1\r\n 0\r\n", "400"),
    FIELDS("9112-5.2 a Content-Length behind a fold", "Content-Length:\r\n 5\r\n", "400"),
    FIELDS("9112-5.2 a folded Transfer-Encoding", "Transfer-Encoding: chun\r\n ked\r\n", "400"),
    FIELDS("9112-5.2 a Transfer-Encoding behind a fold", "Transfer-Encoding:\r\n chunked\r\n", "400"),
    FIELDS("9110-5.1 an empty name", ": y\r\n", "400"),
    FIELDS("9110-5.1 no colon", "X\r\n", "400"),
    FIELDS("9110-5.1 no colon, and a space", "X y\r\n", "400"),
    FIELDS("9110-5.1 a delimiter in the name", "X(: y\r\n", "400"),
    FIELDS("9110-5.1 a quote in the name", "\"X\": y\r\n", "400"),
    FIELDS("9110-5.1 NUL in the name", "X\0: y\r\n", "400"),
    FIELDS("9110-5.1 DEL in the name", "X\x7F: y\r\n", "400"),
    FIELDS("9110-5.1 UTF-8 in the name", "\xC3\xBC: y\r\n", "400"),
    FIELDS("9110-5.5 NUL", "X: \0\r\n", "400"),
    FIELDS("9110-5.5 SOH", "X: \x01\r\n", "400"),
    FIELDS("9110-5.5 vertical tab", "X: \v\r\n", "400"),
    FIELDS("9110-5.5 escape", "X: \x1B[2J\r\n", "400"),
    FIELDS("9110-5.5 DEL", "X: \x7F\r\n", "400"),
    FIELDS("9110-5.5 a bare CR", "X: y\rZ: w\r\n", "400"),
    FIELDS("9110-5.5 a bare LF", "X: y\nZ: w\r\n", "400"),
    FIELDS("9112-2.2 CR CR LF", "X: y\r\r\n", "400"),
    FIELDS("9112-2.2 LF CR", "X: y\n\rZ: w\r\n", "400"),
    FIELDS("9112-2.2 CR LF CR and another byte", "X: y\r\n\rZ", "400"),
    FIELDS("9112-2.2 an empty line of LF alone", "X: y\r\n\n", "400"),
    FIELDS("9112-2.2 a head of LF alone", "X: y\n\n", "400"),
    FIELDS("9112-2.2 a bare CR for the empty line", "X: y\r\n\r\r\n", "400"),
};

static const struct row lengths[] = {
    LENGTH("9112-6.2 a length", " 5", BODY_OK),
    LENGTH("9112-6.2 no white space", "5", BODY_OK),
    LENGTH("9110-5.6.3 spaces around it", "  5  ", BODY_OK),
    LENGTH("9110-5.6.3 tabs around it", "\t5\t", BODY_OK),
    LENGTH("9110-8.6 zeros in front", " 0005", BODY_OK),
    FIELDS("9110-8.6 zero", "Content-Length: 0\r\n", POST_OK),
    FIELDS("9110-8.6 many zeros", "Content-Length: 000000000000000000000000\r\n", POST_OK),
    ROW("9112-6.3 the body is no request", RAW_HEAD "Content-Length: 32\r\n\r\n" NEXT NEXT, "POST / 1.1 keep body; 501"),
    ROW("9112-6.3 one whole request is the body", RAW_HEAD "Content-Length: 31\r\n\r\n" NEXT NEXT, BODY_OK),
    ROW("9112-6.3 on GET", "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 31\r\n\r\n" NEXT NEXT, "GET / 1.1 keep body" THEN),
    ROW("9112-6.3 in HTTP/1.0", "POST / HTTP/1.0\r\nContent-Length: 1\r\n\r\n\n" NEXT, "POST / 1.0 body" THEN),
    ROW("9112-8 half a body", RAW_HEAD "Content-Length: 5\r\n\r\nhell", "POST / 1.1 keep body; body"),
    LENGTH("9110-8.6 empty", "", "400"),
    LENGTH("9110-8.6 nothing but white space", " \t ", "400"),
    LENGTH("9110-8.6 negative", " -5", "400"),
    LENGTH("9110-8.6 minus zero", " -0", "400"),
    LENGTH("9110-8.6 a plus sign", " +5", "400"),
    LENGTH("9110-8.6 hexadecimal", " 0x5", "400"),
    LENGTH("9110-8.6 a hexadecimal digit", " a", "400"),
    LENGTH("9110-8.6 a fraction", " 5.0", "400"),
    LENGTH("9110-8.6 an exponent", " 5e0", "400"),
    LENGTH("9110-8.6 a letter behind", " 5b", "400"),
    LENGTH("9110-8.6 a semicolon behind", " 5;", "400"),
    LENGTH("9110-8.6 a space inside", " 1 5", "400"),
    LENGTH("9110-8.6 an underscore inside", " 1_5", "400"),
    LENGTH("9110-8.6 a quoted string", " \"5\"", "400"),
    LENGTH("9110-8.6 a word", " five", "400"),
    LENGTH("9110-8.6 other digits", " \xD9\xA5", "400"),
    LENGTH("9110-8.6 NUL behind", " 5\0", "400"),
    LENGTH("9110-8.6 a list of equals", " 5, 5", "400"),
    LENGTH("9110-8.6 a list of equals, no space", " 5,5", "400"),
    LENGTH("9110-8.6 a list", " 5, 6", "400"),
    LENGTH("9110-8.6 a list that ends with nothing", " 5,", "400"),
    FIELDS("9110-8.6 repeated, equal", "Content-Length: 5\r\nContent-Length: 5\r\n", "400"),
    FIELDS("9110-8.6 repeated, not equal", "Content-Length: 5\r\nContent-Length: 6\r\n", "400"),
    FIELDS("9110-8.6 repeated, in another case", "Content-Length: 0\r\nX: y\r\nCONTENT-LENGTH: 5\r\n", "400"),
    FIELDS("9110-8.6 repeated, zero", "Content-Length: 0\r\nContent-Length: 0\r\n", "400"),
    LENGTH("9110-8.6 2^63", " 9223372036854775808", "400"),
    LENGTH("9110-8.6 2^64-1", " 18446744073709551615", "400"),
    LENGTH("9110-8.6 2^64", " 18446744073709551616", "400"),
    LENGTH("9110-8.6 2^64+5", " 18446744073709551621", "400"),
    LENGTH("9110-8.6 more", " 99999999999999999999999999999999999999999", "400"),
    LENGTH("9110-15.5.14 within 63 bits", " 922337203685477580", "413"),
    LENGTH("9110-15.5.14 one more than is allowed", " 1048577", "413"),
};

static const struct row codings[] = {
    CODING("9112-7.1 chunked", " chunked", BODY_OK),
    CODING("9112-7 in any case", " CHUnked", BODY_OK),
    CODING("9110-5.6.3 no white space", "chunked", BODY_OK),
    CODING("9110-5.6.3 spaces around it", "   chunked   ", BODY_OK),
    CODING("9110-5.6.3 tabs around it", "\tchunked\t", BODY_OK),
    CODING("9112-6.1 empty", "", "400"),
    CODING("9112-6.1 nothing but white space", " \t ", "400"),
    FIELDS("9112-6.1 empty, beside Content-Length", "Transfer-Encoding:\r\nContent-Length: 5\r\n", "400"),
    FIELDS("9112-6.1 empty, behind Content-Length", "Content-Length: 0\r\nTransfer-Encoding: \r\n", "400"),
    FIELDS("9112-6.1 beside Content-Length", "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n", "400"),
    FIELDS("9112-6.1 behind Content-Length", "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", "400"),
    FIELDS("9112-6.1 beside a bad Content-Length", "Content-Length: x\r\nTransfer-Encoding: chunked\r\n", "400"),
    ROW("9112-6.1 in HTTP/1.0", "POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" NEXT, "400"),
    ROW("9112-6.1 empty in HTTP/1.0", "POST / HTTP/1.0\r\nTransfer-Encoding:\r\n\r\n" NEXT, "400"),
    CODING("9112-7.1 twice", " chunked, chunked", "400"),
    FIELDS("9112-7.1 twice, in two fields", "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", "400"),
    CODING("9112-6.3 not last", " chunked, gzip", "400"),
    FIELDS("9112-6.3 not last, in two fields", "Transfer-Encoding: chunked\r\nTransfer-Encoding: gzip\r\n", "400"),
    CODING("9112-6.3 not at all", " gzip", "400"),
    CODING("9112-6.3 unknown alone", " identity", "400"),
    CODING("9112-7 gzip first", " gzip, chunked", "501"),
    CODING("9112-7 gzip first, white space", " gzip \t,\t chunked", "501"),
    FIELDS("9112-7 gzip first, in two fields", "Transfer-Encoding: gzip\r\ntransfer-encoding: chunked\r\n", "501"),
    CODING("9112-6.1 unknown first", " x, chunked", "501"),
    CODING("9112-7 identity is no coding any more", " identity, chunked", "501"),
    CODING("9112-6.1 an empty element in front", " , chunked", "400"),
    CODING("9112-6.1 an empty element in front, no space", ",chunked", "400"),
    CODING("9112-6.1 an empty element behind", " chunked,", "400"),
    FIELDS("9112-6.1 an empty field in front", "Transfer-Encoding:\r\nTransfer-Encoding: chunked\r\n", "400"),
    FIELDS("9112-6.1 an empty field behind", "Transfer-Encoding: chunked\r\nTransfer-Encoding:\r\n", "400"),
    CODING("9112-7.1 with a parameter", " chunked;q=1", "400"),
    CODING("9112-7 something in front", " xchunked", "400"),
    CODING("9112-7 something behind", " chunkedx", "400"),
    CODING("9112-7 a word in front", " x chunked", "400"),
    CODING("9112-7 a word behind", " chunked x", "400"),
    CODING("9112-7 a tab inside", " chun\tked", "400"),
    CODING("9112-7 a quoted string", " \"chunked\"", "400"),
    CODING("9110-5.5 a vertical tab", "\vchunked", "400"),
    CODING("9110-5.5 a vertical tab behind", " chunked\v", "400"),
    CODING("9110-5.5 NUL behind", " chunked\0", "400"),
    CODING("9110-5.5 a bare CR in front", "\rchunked", "400"),
    FIELDS("9112-5.1 a space before the colon", "Transfer-Encoding : chunked\r\n", "400"),
    FIELDS("9110-5.1 another name", "Transfer_Encoding: chunked\r\n", POST_OK),
};

static const struct row chunks[] = {
    CHUNKS("9112-7.1 none", "0\r\n\r\n", BODY_OK),
    CHUNKS("9112-7.1 two", "1\r\na\r\n2\r\nbc\r\n0\r\n\r\n", BODY_OK),
    CHUNKS("9112-7.1 hexadecimal", "0a\r\n0123456789\r\nB\r\n0123456789a\r\n00\r\n\r\n", BODY_OK),
    CHUNKS("9112-7.1 zeros in front", "00000000000000000000000001\r\na\r\n0000000000000000000000000\r\n\r\n", BODY_OK),
    CHUNKS("9112-7.1 framing as data", "7\r\n\r\n0\r\n\r\n\r\n0\r\n\r\n", BODY_OK),
    CHUNKS("9112-7.1 a request as data", "1f\r\n" NEXT "\r\n0\r\n\r\n", BODY_OK),
    ROW("9112-7.1 on GET", "GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" NEXT, "GET / 1.1 keep body" THEN),
    ROW("9112-7.1 on CONNECT", "CONNECT a:1 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" NEXT, "CONNECT a:1 () 1.1 keep body" THEN),
    ROW("9110-7.8 beside Upgrade", RAW_HEAD "Connection: upgrade\r\nUpgrade: h2c\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" NEXT, BODY_OK),
    ROW("9112-8 half a size", RAW_BODY "1", "POST / 1.1 keep body; body"),
    ROW("9112-8 half the data", RAW_BODY "2\r\na", "POST / 1.1 keep body; body"),
    ROW("9112-8 no last chunk", RAW_BODY "1\r\na\r\n", "POST / 1.1 keep body; body"),
    ROW("9112-8 no end of the trailers", RAW_BODY "0\r\n\r", "POST / 1.1 keep body; body"),
    CHUNKS("9112-7.1 no size", "\r\n0\r\n\r\n", BAD),
    CHUNKS("9112-7.1 no size but an extension", ";a\r\n0\r\n\r\n", BAD),
    CHUNKS("9112-7.1 no size for the last one", "\r\n\r\n", BAD),
    CHUNKS("9112-7.1 no size but an extension for the last one", ";a\r\n\r\n", BAD),
    CHUNKS("9112-7.1 plus zero", "+0\r\n\r\n", BAD),
    CHUNKS("9112-7.1 minus zero", "-0\r\n\r\n", BAD),
    CHUNKS("9112-7.1 0x0", "0x0\r\n\r\n", BAD),
    CHUNKS("9112-7.1 a letter behind zero", "0g\r\n\r\n", BAD),
    CHUNKS("9112-7.1 no digit", "g\r\na\r\n0\r\n\r\n", BAD),
    CHUNKS("9112-7.1 a plus sign", "+1\r\na\r\n0\r\n\r\n", BAD),
    CHUNKS("9112-7.1 a minus sign", "-1\r\na\r\n0\r\n\r\n", BAD),
    CHUNKS("9112-7.1 0x", "0x1\r\na\r\n0\r\n\r\n", BAD),
    CHUNKS("9112-7.1 0X", "0X1\r\na\r\n0\r\n\r\n", BAD),
    CHUNKS("9112-7.1 h behind", "1h\r\na\r\n0\r\n\r\n", BAD),
    CHUNKS("9112-7.1 an underscore", "0_1\r\na\r\n0\r\n\r\n", BAD),
    CHUNKS("9112-7.1 a fraction", "1.0\r\na\r\n0\r\n\r\n", BAD),
    CHUNKS("9112-7.1 a space in front", " 1\r\na\r\n0\r\n\r\n", BAD),
    CHUNKS("9112-7.1 a space behind", "1 \r\na\r\n0\r\n\r\n", BAD),
    CHUNKS("9112-7.1 a tab in front", "\t1\r\na\r\n0\r\n\r\n", BAD),
    CHUNKS("9112-7.1 a tab behind", "1\t\r\na\r\n0\r\n\r\n", BAD),
    CHUNKS("9112-7.1 a space behind zero", "0 \r\n\r\n", BAD),
    CHUNKS("9112-7.1 NUL behind", "1\0\r\na\r\n0\r\n\r\n", BAD),
    CHUNKS("9112-7.1 a vertical tab behind", "1\v\r\na\r\n0\r\n\r\n", BAD),
    CHUNKS("9112-7.1 a list", "1,1\r\na\r\n0\r\n\r\n", BAD),
    CHUNKS("9112-7.1 LF behind the size", "1\na\r\n0\r\n\r\n", BAD),
    CHUNKS("9112-7.1 CR behind the size", "1\ra\r\n0\r\n\r\n", BAD),
    CHUNKS("9112-7.1 CR CR LF behind the size", "1\r\r\na\r\n0\r\n\r\n", BAD),
    CHUNKS("9112-7.1 LF behind the data", "1\r\na\n0\r\n\r\n", BAD),
    CHUNKS("9112-7.1 CR behind the data", "1\r\na\r0\r\n\r\n", BAD),
    CHUNKS("9112-7.1 two wrong bytes behind the data", "1\r\naXX0\r\n\r\n", BAD),
    CHUNKS("9112-7.1 CR and a wrong byte behind the data", "1\r\na\rX0\r\n\r\n", BAD),
    CHUNKS("9112-7.1 nothing behind the data", "1\r\na0\r\n\r\n", BAD),
    CHUNKS("9112-7.1 more data than the size", "1\r\nab\r\n0\r\n\r\n", BAD),
    CHUNKS("9112-7.1 less data than the size", "3\r\na\r\n0\r\n\r\n", BAD),
    CHUNKS("9112-7.1 LF behind the last size", "0\n\r\n", BAD),
    CHUNKS("9112-7.1 LF at the end", "0\r\n\n", BAD),
    CHUNKS("9112-7.1 nothing but LF", "1\na\n0\n\n", BAD),
    CHUNKS("9112-7.1 a wrong byte at the end", "0\r\n\rX", BAD),
    CHUNKS("9112-7.1 2^64", "10000000000000000\r\na", BAD),
    CHUNKS("9112-7.1 2^64+1", "10000000000000001\r\na\r\n0\r\n\r\n", BAD),
    CHUNKS("9112-7.1 more", "ffffffffffffffffffffffffffffffff\r\na", BAD),
    CHUNKS("9112-7.1 2^64-1", "ffffffffffffffff\r\na", "POST / 1.1 keep body; 413"),
    CHUNKS("9112-7.1 2^63", "8000000000000000\r\na", "POST / 1.1 keep body; 413"),
    CHUNKS("9112-7.1 2^63-1", "7fffffffffffffff\r\na", "POST / 1.1 keep body; 413"),
    CHUNKS("9112-7.1 2^32+1", "100000001\r\na\r\n0\r\n\r\n", "POST / 1.1 keep body; 413"),
    CHUNKS("9112-7.1 one more than is allowed", "100001\r\na", "POST / 1.1 keep body; 413"),
};

static const struct row extensions[] = {
    CHUNKS("9112-7.1.1 a name", "1;a\r\nx\r\n0;b\r\n\r\n", BODY_OK),
    CHUNKS("9112-7.1.1 a value", "1;a=b\r\nx\r\n0\r\n\r\n", BODY_OK),
    CHUNKS("9112-7.1.1 several", "1;a=b;c;d=\"e\";f\r\nx\r\n0\r\n\r\n", BODY_OK),
    CHUNKS("9112-7.1.1 all that a token may hold", "1;!#$%&'*+-.^_`|~09AZ=!#$%&'*+-.^_`|~09AZ\r\nx\r\n0\r\n\r\n", BODY_OK),
    CHUNKS("9110-5.6.4 a quoted string", "1;a=\"b \t;=\r\"\r\nx\r\n0\r\n\r\n", BAD),
    CHUNKS("9110-5.6.4 all that it may hold", "1;a=\"!#[]~ \t;=,\x80\xFF\"\r\nx\r\n0\r\n\r\n", BODY_OK),
    CHUNKS("9110-5.6.4 an empty one", "1;a=\"\"\r\nx\r\n0\r\n\r\n", BODY_OK),
    CHUNKS("9110-5.6.4 a quoted pair", "1;a=\"\\\"\\\\\"\r\nx\r\n0\r\n\r\n", BODY_OK),
    CHUNKS("9110-5.6.4 one that does not end", "1;a=\"b\r\nx\r\n0\r\n\r\n", BAD),
    CHUNKS("9110-5.6.4 something behind it", "1;a=\"b\"c\r\nx\r\n0\r\n\r\n", BAD),
    CHUNKS("9110-5.6.4 LF in it", "1;a=\"\n\"\r\nx\r\n0\r\n\r\n", BAD),
    CHUNKS("9110-5.6.4 CR LF in it", "1;a=\"\r\n\"\r\nx\r\n0\r\n\r\n", BAD),
    CHUNKS("9110-5.6.4 a quoted LF", "1;a=\"\\\n\"\r\nx\r\n0\r\n\r\n", BAD),
    CHUNKS("9110-5.6.4 NUL in it", "1;a=\"\0\"\r\nx\r\n0\r\n\r\n", BAD),
    CHUNKS("9110-5.6.4 escape in it", "1;a=\"\x1B\"\r\nx\r\n0\r\n\r\n", BAD),
    CHUNKS("9110-5.6.4 DEL in it", "1;a=\"\x7F\"\r\nx\r\n0\r\n\r\n", BAD),
    CHUNKS("9112-7.1.1 nothing", "1;\r\nx\r\n0\r\n\r\n", BAD),
    CHUNKS("9112-7.1.1 nothing behind the last size", "0;\r\n\r\n", BAD),
    CHUNKS("9112-7.1.1 nothing in front", "1;;a\r\nx\r\n0\r\n\r\n", BAD),
    CHUNKS("9112-7.1.1 nothing between", "1;a;;b\r\nx\r\n0\r\n\r\n", BAD),
    CHUNKS("9112-7.1.1 no name", "1;=b\r\nx\r\n0\r\n\r\n", BAD),
    CHUNKS("9112-7.1.1 no value", "1;a=\r\nx\r\n0\r\n\r\n", BAD),
    CHUNKS("9112-7.1.1 no value, another behind", "1;a=;b\r\nx\r\n0\r\n\r\n", BAD),
    CHUNKS("9112-7.1.1 no name and no value", "1;=\r\nx\r\n0\r\n\r\n", BAD),
    CHUNKS("9112-7.1.1 two values", "1;a=b=c\r\nx\r\n0\r\n\r\n", BAD),
    CHUNKS("9112-7.1.1 a quote in a token", "1;a=b\"c\"\r\nx\r\n0\r\n\r\n", BAD),
    CHUNKS("9112-7.1.1 a quoted name", "1;\"a\"=b\r\nx\r\n0\r\n\r\n", BAD),
    CHUNKS("9112-7.1.1 a delimiter in a name", "1;a/b\r\nx\r\n0\r\n\r\n", BAD),
    CHUNKS("9112-7.1.1 NUL in a name", "1;a\0\r\nx\r\n0\r\n\r\n", BAD),
    CHUNKS("9112-7.1.1 SOH in a value", "1;a=\x01\r\nx\r\n0\r\n\r\n", BAD),
    CHUNKS("9112-7.1.1 a byte over 127 in a name", "1;\xFF\r\nx\r\n0\r\n\r\n", BAD),
    CHUNKS("9112-7.1.1 a byte over 127 in a value", "1;a=\xFF\r\nx\r\n0\r\n\r\n", BAD),
    CHUNKS("9112-7.1.1 LF behind a name", "1;a\nx\r\n0\r\n\r\n", BAD),
    CHUNKS("9112-7.1.1 LF behind a value", "1;a=b\nx\r\n0\r\n\r\n", BAD),
    CHUNKS("9112-7.1.1 CR in a name", "1;a\rb\r\nx\r\n0\r\n\r\n", BAD),
    CHUNKS("9112-7.1.1 CR and a wrong byte", "1;a=b\rX\nx\r\n0\r\n\r\n", BAD),
    CHUNKS("9110-5.6.3 bad white space around the semicolon", "1 \t;\t a\r\nx\r\n0\r\n\r\n", BODY_OK),
    CHUNKS("9110-5.6.3 bad white space around the equals sign", "1;a \t=\t b;c = \"d\" ;e\r\nx\r\n0\r\n\r\n", BODY_OK),
    CHUNKS("9112-7.1.1 white space between two names", "1;a b\r\nx\r\n0\r\n\r\n", BAD),
    CHUNKS("9112-7.1.1 white space between two values", "1;a=b c\r\nx\r\n0\r\n\r\n", BAD),
    CHUNKS("9112-7.1.1 white space behind a name", "1;a \r\nx\r\n0\r\n\r\n", BAD),
    CHUNKS("9112-7.1.1 white space behind a value", "1;a=b \r\nx\r\n0\r\n\r\n", BAD),
    CHUNKS("9112-7.1.1 white space behind a quoted string", "1;a=\"b\" \r\nx\r\n0\r\n\r\n", BAD),
    CHUNKS("9112-7.1.1 white space for a name", "1; \r\nx\r\n0\r\n\r\n", BAD),
    CHUNKS("9112-7.1.1 white space for a value", "1;a= \r\nx\r\n0\r\n\r\n", BAD),
};

static const struct row trailers[] = {
    CHUNKS("9112-7.1.2 one", "0\r\nX: y\r\n\r\n", BODY_OK),
    CHUNKS("9112-7.1.2 several", "1\r\na\r\n0;b\r\nX: y\r\nX:\r\nTrailer: z\r\n\r\n", BODY_OK),
    CHUNKS("9110-6.5.1 Connection is not heard", "0\r\nConnection: close\r\n\r\n", BODY_OK),
    CHUNKS("9110-6.5.1 Expect is not heard", "0\r\nExpect: x\r\n\r\n", BODY_OK),
    CHUNKS("9110-6.5.1 Content-Length", "0\r\nX: y\r\nContent-Length: 5\r\n\r\n", BAD),
    CHUNKS("9110-6.5.1 Content-Length in any case", "0\r\ncontent-LENGTH:\r\n\r\n", BAD),
    CHUNKS("9110-6.5.1 Transfer-Encoding", "0\r\nTransfer-Encoding: chunked\r\n\r\n", BAD),
    CHUNKS("9110-6.5.1 Host", "0\r\nHost: b\r\n\r\n", BAD),
    CHUNKS("9112-5.1 a space before the colon", "0\r\nX : y\r\n\r\n", BAD),
    CHUNKS("9112-5.2 obs-fold", "0\r\nX: y\r\n z\r\n\r\n", BAD),
    CHUNKS("9112-2.2 a space in front", "0\r\n X: y\r\n\r\n", BAD),
    CHUNKS("9110-5.1 an empty name", "0\r\n: y\r\n\r\n", BAD),
    CHUNKS("9110-5.1 no colon", "0\r\nX\r\n\r\n", BAD),
    CHUNKS("9110-5.5 NUL", "0\r\nX: \0\r\n\r\n", BAD),
    CHUNKS("9112-2.2 a bare CR", "0\r\nX: y\rZ: w\r\n\r\n", BAD),
    CHUNKS("9112-2.2 a bare LF", "0\r\nX: y\n\r\n", BAD),
    CHUNKS("9112-2.2 an empty line of LF alone", "0\r\nX: y\r\n\n", BAD),
};

static const struct row connections[] = {
    FIELDS("9112-9.6 close", "Connection: close\r\n", "POST / 1.1" THEN),
    FIELDS("9110-7.6.1 in any case", "cONNECTION: cLOSE\r\n", "POST / 1.1" THEN),
    FIELDS("9110-7.6.1 first of a list", "Connection: close, x\r\n", "POST / 1.1" THEN),
    FIELDS("9110-7.6.1 last of a list", "Connection: x,close\r\n", "POST / 1.1" THEN),
    FIELDS("9110-7.6.1 amid white space", "Connection: x ,\t close \t, y\r\n", "POST / 1.1" THEN),
    FIELDS("9110-5.6.1.2 amid empty elements", "Connection: ,, close,,\r\n", "POST / 1.1" THEN),
    FIELDS("9110-5.3 in a field of its own", "Connection: x\r\nConnection: close\r\n", "POST / 1.1" THEN),
    FIELDS("9112-9.3 beside keep-alive", "Connection: keep-alive, close\r\n", "POST / 1.1" THEN),
    FIELDS("9112-9.3 a part of a word", "Connection: closed, xclose\r\n", POST_OK),
    FIELDS("9112-9.3 in a quoted string", "Connection: \"close\"\r\n", POST_OK),
    FIELDS("9112-9.3 in another field", "Proxy-Connection: close\r\n", POST_OK),
    FIELDS("9110-5.6.1 an empty list", "Connection:\r\n", POST_OK),
    FIELDS("9110-7.8 an upgrade", "Connection: upgrade\r\nUpgrade: websocket\r\n", POST_OK),
    ROW("9112-9.3 HTTP/1.0 keep-alive", "GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n" NEXT, "GET / 1.0 keep" THEN),
    ROW("9112-9.3 HTTP/1.0 keep-alive in a list", "GET / HTTP/1.0\r\nConnection: x, keep-alive\r\n\r\n" NEXT, "GET / 1.0 keep" THEN),
    ROW("9112-9.3 HTTP/1.0 keep-alive and close", "GET / HTTP/1.0\r\nConnection: keep-alive, close\r\n\r\n" NEXT, "GET / 1.0" THEN),
    ROW("9112-9.3 HTTP/1.0 something else", "GET / HTTP/1.0\r\nConnection: x\r\n\r\n" NEXT, "GET / 1.0" THEN),
    ROW("9112-9.3.2 three in a row", NEXT NEXT NEXT, "GET /next 1.1 keep" THEN THEN),
};

#define EXPECT(name, fields, expected) ROW(name, RAW_HEAD "Content-Length: 1\r\n" fields "\r\na" NEXT, expected)
#define EXPECT_OK "POST / 1.1 keep expect body" THEN

static const struct row expectations[] = {
    EXPECT("9110-10.1.1 100-continue", "Expect: 100-continue\r\n", EXPECT_OK),
    EXPECT("9110-10.1.1 in any case", "expect: 100-CONTINUE\r\n", EXPECT_OK),
    EXPECT("9110-10.1.1 twice", "Expect: 100-continue\r\nExpect: 100-continue\r\n", EXPECT_OK),
    EXPECT("9110-5.6.1.2 amid empty elements", "Expect: , 100-continue ,\r\n", EXPECT_OK),
    EXPECT("9110-5.6.1 an empty list", "Expect:\r\n", BODY_OK),
    EXPECT("9110-10.1.1 something else", "Expect: 200-ok\r\n", "417"),
    EXPECT("9110-10.1.1 something more", "Expect: 100-continue, x\r\n", "417"),
    EXPECT("9110-10.1.1 with a parameter", "Expect: 100-continue;a=b\r\n", "417"),
    EXPECT("9110-10.1.1 a part of it", "Expect: 100\r\n", "417"),
    FIELDS("9110-10.1.1 without a body", "Expect: 100-continue\r\n", POST_OK),
    ROW("9110-10.1.1 in HTTP/1.0", "POST / HTTP/1.0\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\na" NEXT, "POST / 1.0 body" THEN),
    ROW("9110-10.1.1 another in HTTP/1.0", "POST / HTTP/1.0\r\nExpect: x\r\nContent-Length: 1\r\n\r\na" NEXT, "POST / 1.0 body" THEN),
    ROW("9110-10.1.1 chunked", RAW_HEAD "Expect: 100-continue\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" NEXT, EXPECT_OK),
};
/* clang-format on */

ROWS_TEST(request_lines)
ROWS_TEST(methods)
ROWS_TEST(targets)
ROWS_TEST(hosts)
ROWS_TEST(field_lines)
ROWS_TEST(lengths)
ROWS_TEST(codings)
ROWS_TEST(chunks)
ROWS_TEST(extensions)
ROWS_TEST(trailers)
ROWS_TEST(connections)
ROWS_TEST(expectations)

/* --- Limits: how much is still taken, and what one more is ------------------------------------------------------- */

static const struct http_limits few = { .target = 64, .header_size = 256, .headers = 3, .body = 100 };

/* Text of several parts: a literal, and a letter n times. */
struct text {
    size_t len;
    char data[100000];
};

static void add(struct text *t, const char *literal)
{
    memcpy(t->data + t->len, literal, strlen(literal));
    t->len += strlen(literal);
}

static void add_times(struct text *t, const char *piece, size_t n)
{
    for (size_t i = 0; i < n; i++)
        add(t, piece);
}

static void check_text(const char *name, const struct http_limits *lim, const struct text *t, const char *expected)
{
    ck_assert(t->len < sizeof t->data);
    ck_assert_msg(comes_to(name, lim, (struct bytes){ t->data, t->len }, expected), "%s", name);
}

/* Before + a letter n times + behind. */
static void check_filled(const char *name, const char *before, size_t n, const char *behind, const char *expected)
{
    static struct text t;
    t.len = 0;
    add(&t, before);
    add_times(&t, "a", n);
    add(&t, behind);
    check_text(name, &few, &t, expected);
}

START_TEST(test_target_limit)
{
    const char *behind = " HTTP/1.1\r\nHost: a\r\n\r\n";
    check_filled("9110-15.5.15 as long as allowed", "HEAD /", 63, behind,
                 "HEAD /aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa 1.1 keep");
    check_filled("9110-15.5.15 longer", "GET /", 64, behind, "414");
    check_filled("9110-15.5.15 longer, and not yet at its end", "GET /", 64, "", "414");
    check_filled("9110-15.5.15 as long as allowed, and not yet at its end", "GET /", 63, "", "head");
    check_filled("9110-15.5.15 much longer", "GET /", 9000, behind, "414");
    check_filled("9110-15.5.15 longer, with an empty line in front", "\r\nGET /", 64, behind, "414");
}
END_TEST

/* The field lines alone are counted: that of Host has 9 bytes, X: and its CRLF have 4; the empty line has 2 more. */
START_TEST(test_header_size_limit)
{
    const char *head = "GET / HTTP/1.1\r\nHost: a\r\nX:";
    check_filled("6585-5 as large as allowed", head, 256 - 13, "\r\n\r\n", "GET / 1.1 keep");
    check_filled("6585-5 larger", head, 257 - 13, "\r\n\r\n", "431");
    check_filled("6585-5 larger, and not yet at its end", head, 259 - 11, "", "431");
    check_filled("6585-5 a name that does not end", "GET / HTTP/1.1\r\n", 259, "", "431");
    check_filled("6585-5 not larger, and not yet at its end", "GET / HTTP/1.1\r\n", 258, "", "head");
    check_filled("6585-5 much larger", head, 9000, "\r\n\r\n", "431");
    check_filled("6585-5 trailers", RAW_BODY "0\r\nX:", 257 - 4, "\r\n\r\n", "POST / 1.1 keep body; 431");
    check_filled("6585-5 trailers within the limit", RAW_BODY "0\r\nX:", 256 - 4, "\r\n\r\n", "POST / 1.1 keep body");
}
END_TEST

START_TEST(test_headers_limit)
{
    check_filled("6585-5 as many as allowed", "GET / HTTP/1.1\r\nHost: a\r\nX: y\r\nX:", 0, "\r\n\r\n",
                 "GET / 1.1 keep");
    check_filled("6585-5 one more", "GET / HTTP/1.1\r\nHost: a\r\nX: y\r\nX:\r\nX:", 0, "\r\n\r\n", "431");
    check_filled("6585-5 one more, and not yet at its end", "GET / HTTP/1.1\r\nHost: a\r\nX: y\r\nX:\r\nX", 0, "",
                 "431");
    check_filled("6585-5 as many trailers", RAW_BODY "0\r\nX:\r\nX:\r\nX:\r\n\r\n", 0, "", "POST / 1.1 keep body");
    check_filled("6585-5 one trailer more", RAW_BODY "0\r\nX:\r\nX:\r\nX:\r\nX:\r\n\r\n", 0, "",
                 "POST / 1.1 keep body; 431");
    /* each request begins to count anew */
    check_filled("9112-9.3 requests in a row", NEXT NEXT NEXT NEXT NEXT, 0, "",
                 "GET /next 1.1 keep" THEN THEN THEN THEN);
}
END_TEST

START_TEST(test_body_limit)
{
    const char *more = "POST / 1.1 keep body; 413";
    check_filled("9110-15.5.14 as much as allowed", RAW_HEAD "Content-Length: 100\r\n\r\n", 100, NEXT, BODY_OK);
    check_filled("9110-15.5.14 more", RAW_HEAD "Content-Length: 101\r\n\r\n", 101, NEXT, "413");
    /* 4 + 89 + 2 + 5 bytes with the framing */
    check_filled("9112-7.1 a chunk as large as allowed", RAW_BODY "59\r\n", 89, "\r\n00\r\n\r\n" NEXT,
                 "POST / 1.1 keep body" THEN);
    check_filled("9112-7.1 a chunk that leaves no room for the last", RAW_BODY "60\r\n", 96, "\r\n0\r\n\r\n" NEXT,
                 more);
    check_filled("9112-7.1 a chunk that is too large", RAW_BODY "65\r\n", 0, "", more);
    check_filled("9112-7.1.1 an endless extension", RAW_BODY "1;", 200, "", more);
    check_filled("9112-7.1.1 an endless value", RAW_BODY "1;a=", 200, "", more);
    check_filled("9112-7.1.1 an endless quoted string", RAW_BODY "1;a=\"", 200, "", more);
    check_filled("9112-7.1 one chunk too many",
                 RAW_BODY
                 "1\r\na\r\n1\r\na\r\n1\r\na\r\n1\r\na\r\n1\r\na\r\n1\r\na\r\n1\r\na\r\n1\r\na\r\n1\r\na\r\n1\r\na\r\n"
                 "1\r\na\r\n1\r\na\r\n1\r\na\r\n1\r\na\r\n1\r\na\r\n1\r\na\r\n1\r\na\r\n",
                 0, "", more);
    /* each request begins to count anew */
    check_filled("9112-7.1 chunks of requests in a row",
                 RAW_BODY "40\r\n0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef\r\n0\r\n\r\n" RAW_BODY
                          "40\r\n0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef\r\n0\r\n\r\n",
                 0, "", "POST / 1.1 keep body; POST / 1.1 keep body");
}
END_TEST

START_TEST(test_endless_zeros_of_a_chunk_size)
{
    static struct text t;
    add(&t, RAW_BODY);
    add_times(&t, "0", 101);
    check_text("9112-7.1 endless zeros", &few, &t, "POST / 1.1 keep body; 413");
}
END_TEST

/* The largest head that limits may allow is taken, and fits in what the core keeps unread. */
START_TEST(test_largest_head)
{
    const struct http_limits most = { HTTP_TARGET_LIMIT, HTTP_HEADER_LIMIT, 1000, 0 };
    struct http_parser parser = { .scanned = 0 };
    struct http_request request;
    static struct text t;
    add(&t, "\r\nGET /");
    add_times(&t, "%", HTTP_TARGET_LIMIT - 1);
    for (size_t i = 0; i < HTTP_TARGET_LIMIT - 1; i += 3)
        memcpy(t.data + 7 + i, "%41", 3);
    add(&t, " HTTP/1.1\r\nHost: a\r\n");
    for (int i = 0; i < 998; i++)
        add(&t, "X-Thirty-Two: 0123456789abcde \r\n");
    add(&t, "Last: l\r\n\r\n");
    ck_assert_uint_le(t.len, 65535);
    struct bytes in = { t.data, t.len };
    ck_assert_int_eq(http_parser_head(&parser, &most, &in, &request), HTTP_COMPLETE);
    ck_assert_uint_eq(in.len, 0);
    ck_assert_uint_eq(request.uri.len, HTTP_TARGET_LIMIT);
    ck_assert_mem_eq(http_request_field(&request, "last").data, "l", 1);
}
END_TEST

/* --- Fields ------------------------------------------------------------------------------------------------------- */

START_TEST(test_request_fields)
{
    static const char fields[] =
        "Host: a\r\nX-Long: 1\r\nX:\t two \t\r\nx: three\r\nEmpty:\r\nBlank: \r\nQuery:?a:b\r\n";
    static const struct {
        const char *name, *value;
    } rows[] = {
        { "host", "a" },  { "x", "two" }, { "x-long", "1" }, { "empty", "" },   { "blank", "" }, { "query", "?a:b" },
        { "x-lo", NULL }, { "y", NULL },  { "hos", NULL },   { "hostx", NULL }, { "", NULL },    { "a", NULL },
    };
    char raw[256];
    struct http_parser parser = { .scanned = 0 };
    struct http_request request;
    int len = snprintf(raw, sizeof raw, "GET / HTTP/1.1\r\n%s\r\n", fields);
    struct bytes in = { raw, (size_t)len };
    ck_assert_int_eq(http_parser_head(&parser, &limits, &in, &request), HTTP_COMPLETE);
    ck_assert_uint_eq(request.fields.len, sizeof fields - 1);
    ck_assert_mem_eq(request.fields.data, fields, sizeof fields - 1);
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct bytes value = http_request_field(&request, rows[i].name);
        ck_assert_msg((value.data == NULL) == (rows[i].value == NULL), "%s", rows[i].name);
        if (rows[i].value == NULL)
            continue;
        ck_assert_uint_eq(value.len, strlen(rows[i].value));
        ck_assert_mem_eq(value.data, rows[i].value, value.len);
    }
}
END_TEST

START_TEST(test_no_fields)
{
    struct http_parser parser = { .scanned = 0 };
    struct http_request request;
    struct bytes in = { "GET / HTTP/1.0\r\n\r\n", 18 };
    ck_assert_int_eq(http_parser_head(&parser, &limits, &in, &request), HTTP_COMPLETE);
    ck_assert_uint_eq(request.fields.len, 0);
    ck_assert_ptr_null(http_request_field(&request, "host").data);
}
END_TEST

/* Every byte at a few places: the verdict on it does not depend on how the input was split. */
START_TEST(test_every_byte_everywhere)
{
    static const char request[] =
        "POST /a%41?b HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1;a=\"b\"\r\nx\r\n0\r\nY: z\r\n\r\n" NEXT;
    static struct reader whole, part;
    char raw[sizeof request];
    struct bytes in = { raw, sizeof request - 1 };
    for (size_t at = 0; at < in.len; at++)
        for (size_t byte = 0; byte < 256; byte++) {
            memcpy(raw, request, sizeof request);
            raw[at] = (char)byte;
            read_cut(&whole, &limits, in, in.len);
            read_cut(&part, &limits, in, (at * 7 + byte) % in.len);
            if (strcmp(whole.text, part.text) != 0)
                ck_abort_msg("byte %zu at %zu: whole \"%s\", split \"%s\"", byte, at, whole.text, part.text);
        }
}
END_TEST

UNIT_MAIN("parser", test_request_lines, test_methods, test_targets, test_hosts, test_field_lines, test_lengths,
          test_codings, test_chunks, test_extensions, test_trailers, test_connections, test_expectations,
          test_target_limit, test_header_size_limit, test_headers_limit, test_body_limit,
          test_endless_zeros_of_a_chunk_size, test_largest_head, test_request_fields, test_no_fields,
          test_every_byte_everywhere)
