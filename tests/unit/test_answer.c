#include "probe/answer.h"

#include "unit.h"

#include <stdio.h>
#include <string.h>

static const struct answer_wish any = { .max_size = 100 };

/* Feeds an answer in two parts, and its end when it asks for more. The caller frees. */
static struct exchange *feed(const struct answer_wish *wish, struct bytes raw, size_t cut, bool clean,
                             enum exchange_next *next, struct failure *f)
{
    struct exchange *x = answer_new((struct bytes){ 0 }, wish, true);
    char *part = malloc(raw.len + 1); /* exact copies: a sanitizer sees who reads further */
    ck_assert_ptr_nonnull(x);
    *f = (struct failure){ 0 };
    *next = EXCHANGE_MORE;
    for (size_t at = 0, len = cut; at < raw.len && *next == EXCHANGE_MORE; at += len, len = raw.len - at) {
        if (len == 0)
            continue;
        memcpy(part, raw.data + at, len);
        *next = x->input(x, (struct bytes){ .data = part, .len = len }, f);
    }
    if (*next == EXCHANGE_MORE)
        *next = x->eof(x, clean, f);
    free(part);
    return x;
}

static void check(const struct answer_wish *wish, const char *raw, enum failure_class want, const char *text)
{
    struct bytes bytes = { .data = raw, .len = strlen(raw) };
    for (size_t cut = 0; cut <= bytes.len; cut++) {
        enum exchange_next next;
        struct failure f;
        struct exchange *x = feed(wish, bytes, cut, true, &next, &f);
        ck_assert_msg(f.class == want, "%s: cut at %d: %s: %s", raw, (int)cut, failure_word(f.class), f.text);
        ck_assert_int_eq(next, want == FAILURE_NONE ? EXCHANGE_DONE : EXCHANGE_FAILED);
        if (want == FAILURE_NONE) {
            ck_assert_msg(x->body.len == strlen(text) &&
                              memcmp(x->body.data != NULL ? x->body.data : "", text, x->body.len) == 0,
                          "%s: cut at %d: body %.*s", raw, (int)cut, (int)x->body.len, x->body.data);
            ck_assert(x->whole && x->status >= 200);
        } else {
            ck_assert_msg(strstr(f.text, text) != NULL, "%s: cut at %d: %s", raw, (int)cut, f.text);
        }
        x->free(x);
    }
}

#define OK "HTTP/1.1 200 OK\r\n"

START_TEST(test_good)
{
    static const struct {
        const char *raw, *body;
    } cases[] = {
        { OK "Content-Length: 5\r\n\r\nHello", "Hello" },
        { OK "Content-Length: 0\r\n\r\n", "" },
        { OK "content-length:5\r\nX: y\r\n\r\nHello", "Hello" },
        { OK "\r\nall until the end", "all until the end" },
        { OK "Connection: close\r\n\r\n", "" },
        { "HTTP/1.0 200 OK\r\n\r\nold", "old" },
        { "HTTP/1.0 200 OK\r\nContent-Length: 3\r\n\r\nold", "old" },
        { "HTTP/1.1 200\r\nContent-Length: 1\r\n\r\nx", "x" },
        { "HTTP/1.1 200 \r\nContent-Length: 1\r\n\r\nx", "x" },
        { "HTTP/1.1 200 \tTr\xC3\xA8s \xE9\r\nContent-Length: 1\r\n\r\nx", "x" },
        { "HTTP/1.1 204 No Content\r\n\r\n", "" },
        { "HTTP/1.1 304 Not Modified\r\nContent-Length: 99999\r\n\r\n", "" },
        { OK "Transfer-Encoding: chunked\r\n\r\n5\r\nHello\r\n3;a=b\r\n, w\r\n0\r\n\r\n", "Hello, w" },
        { OK "Transfer-Encoding:  Chunked \r\n\r\n0\r\nTrailer: x\r\n\r\n", "" },
        { "HTTP/1.1 100 Continue\r\n\r\n" OK "Content-Length: 1\r\n\r\nx", "x" },
        { "HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 102 P\r\n\r\n" OK "Content-Length: 1\r\n\r\nx", "x" },
        { "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 204 N\r\n\r\n", "" },
        { "HTTP/1.1 301 Moved\r\nLocation: /\r\nContent-Length: 0\r\n\r\n", "" },
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        check(&any, cases[i].raw, FAILURE_NONE, cases[i].body);
}
END_TEST

START_TEST(test_malformed)
{
    static const struct {
        const char *raw, *sentence;
    } cases[] = {
        { "garbage\r\n\r\n", "malformed HTTP" },
        { "SSH-2.0-OpenSSH_9.2\r\n", "malformed HTTP" },
        { "HTTP/1.1 2000 OK\r\n\r\n", "malformed HTTP" },
        { "HTTP/1.1 20x OK\r\n\r\n", "malformed HTTP" },
        { "HTTP/2.0 200 OK\r\n\r\n", "" },
        { "HTTP/0.9 200 OK\r\n\r\n", "" },
        { "HTTP/1.1 099 X\r\n\r\n", "" },
        { "HTTP/1.1 600 X\r\n\r\n", "from 100 to 599" },
        { "HTTP/1.1 101 Switching\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n", "switches" },
        { OK "no colon\r\n\r\n", "malformed HTTP" },
        { OK ": y\r\nContent-Length: 0\r\n\r\n", "a field without a name" },
        { OK "Transfer-Encoding: chunked\r\n\r\n0\r\n: y\r\n\r\n", "a field without a name" },
        { "HTTP/1.1 200 O\1K\r\nContent-Length: 0\r\n\r\n", "in the reason phrase" },
        { "HTTP/1.1 200 \x7f\r\nContent-Length: 0\r\n\r\n", "in the reason phrase" },
        { OK "Content-Length: x\r\n\r\n", "malformed HTTP" },
        { OK "Content-Length: -1\r\n\r\n", "malformed HTTP" },
        { OK "Content-Length: 1\r\nContent-Length: 2\r\n\r\nx", "malformed HTTP" },
        { OK "Content-Length: 99999999999999999999\r\n\r\n", "malformed HTTP" },
        { OK "Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "" },
        { OK "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "" },
        { OK "Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", "nobody asked" },
        { OK "Transfer-Encoding: gzip\r\n\r\nx", "nobody asked" },
        { OK "Transfer-Encoding: chunked                          , gzip\r\n\r\nx", "nobody asked" },
        { OK "Transfer-Encoding:\r\n\r\nx", "nobody asked" },
        { OK "Transfer-Encoding:\r\nX-Y: chunked\r\n\r\n0\r\n\r\n", "nobody asked" },
        { OK "Transfer-Encoding: chunked\t\r\n\r\n400\r\nonly a part", "hides what it says" },
        { OK "Transfer-Encoding: chunked\r\n \r\n\r\n400\r\nonly a part", "" },
        { "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "HTTP/1.0" },
        { OK "Transfer-Encoding: chunked\r\n\r\nz\r\n", "malformed HTTP" },
        { OK "Transfer-Encoding: chunked\r\n\r\n5\r\nHelloX\r\n", "malformed HTTP" },
        { OK "Transfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\n", "malformed HTTP" },
        { OK "Content-Length: 101\r\n\r\n", "longer than 100 bytes" },
        { OK "Transfer-Encoding: chunked\r\n\r\n65\r\n"
             "0123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890123456789x",
          "longer than 100 bytes" },
        { OK "\r\n"
             "0123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890123456789x",
          "longer than 100 bytes" },
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        check(&any, cases[i].raw, FAILURE_PROTOCOL, cases[i].sentence);
}
END_TEST

START_TEST(test_short)
{
    check(&any, "", FAILURE_SHORT, "before an answer");
    check(&any, "HTTP/1.1 2", FAILURE_SHORT, "within the head");
    check(&any, OK "Content-Length: 5\r\n", FAILURE_SHORT, "within the head");
    check(&any, OK "Content-Length: 5\r\n\r\nHell", FAILURE_SHORT, "after 4 bytes of the body, before its end");
    check(&any, OK "Transfer-Encoding: chunked\r\n\r\n5\r\nHello\r\n", FAILURE_SHORT, "after 5 bytes");
    check(&any, OK "Transfer-Encoding: chunked\r\n\r\n0\r\n", FAILURE_SHORT, "after 0 bytes");
    check(&any, "HTTP/1.1 100 Continue\r\n\r\n", FAILURE_SHORT, "");
}
END_TEST

/* Behind the answer nothing may come. Seen only in the same part: the answer is done with its last byte. */
START_TEST(test_extra)
{
    static const char raw[] = OK "Content-Length: 1\r\n\r\nxy";
    enum exchange_next next;
    struct failure f;
    struct exchange *x = feed(&any, (struct bytes){ raw, sizeof raw - 1 }, 3, true, &next, &f);
    ck_assert_int_eq(f.class, FAILURE_PROTOCOL);
    ck_assert_ptr_nonnull(strstr(f.text, "follow the answer"));
    x->free(x);
}
END_TEST

/* An end of TLS without close_notify may have been forged: a body that only the end delimits is not whole. */
START_TEST(test_unclean_end)
{
    static const char raw[] = OK "\r\nbody";
    enum exchange_next next;
    struct failure f;
    struct exchange *x = feed(&any, (struct bytes){ raw, sizeof raw - 1 }, 0, false, &next, &f);
    ck_assert_int_eq(f.class, FAILURE_SHORT);
    ck_assert_ptr_nonnull(strstr(f.text, "close_notify"));
    ck_assert(!x->whole);
    x->free(x);
}
END_TEST

START_TEST(test_wishes)
{
    static const struct answer_wish ok = { "200,204", "ell", 100 }, teapot = { "418", NULL, 100 },
                                    errors = { "4xx, 5xx", NULL, 100 };
    check(&ok, OK "Content-Length: 5\r\n\r\nHello", FAILURE_NONE, "Hello");
    check(&ok, OK "Content-Length: 5\r\n\r\nHe110", FAILURE_MISMATCH, "--expect");
    check(&ok, "HTTP/1.1 204 N\r\n\r\n", FAILURE_MISMATCH, "--expect");
    check(&ok, "HTTP/1.1 201 C\r\nContent-Length: 0\r\n\r\n", FAILURE_MISMATCH, "the status is 201, not 200,204");
    check(&teapot, "HTTP/1.1 418 T\r\nContent-Length: 1\r\n\r\nx", FAILURE_NONE, "x");
    check(&errors, "HTTP/1.1 503 X\r\nContent-Length: 1\r\n\r\nx", FAILURE_NONE, "x");
    check(&errors, OK "Content-Length: 1\r\n\r\nx", FAILURE_MISMATCH, "the status is 200");
    check(&any, "HTTP/1.1 404 X\r\nContent-Length: 1\r\n\r\nx", FAILURE_MISMATCH, "the status is 404, not 2xx,3xx");
}
END_TEST

/* The head is the final answer's, as it came. */
START_TEST(test_head)
{
    static const char raw[] = "HTTP/1.1 103 E\r\nA: b\r\n\r\nHTTP/1.1 200 OK\r\nX-y:  Z \r\nContent-Length: 1\r\n\r\nx";
    static const char head[] = "HTTP/1.1 200 OK\r\nX-y:  Z \r\nContent-Length: 1\r\n\r\n";
    for (size_t cut = 0; cut < sizeof raw; cut++) {
        enum exchange_next next;
        struct failure f;
        struct exchange *x = feed(&any, (struct bytes){ raw, sizeof raw - 1 }, cut, true, &next, &f);
        ck_assert_msg(x->head.len == sizeof head - 1, "cut at %d: %.*s", (int)cut, (int)x->head.len, x->head.data);
        ck_assert_mem_eq(x->head.data, head, sizeof head - 1);
        x->free(x);
    }
}
END_TEST

/* Neither one long head nor many short ones. */
START_TEST(test_endless_head)
{
    static const char *const starts[] = { OK "X: ", OK, "" };
    static const char *const parts[] = { "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx", "X: y\r\n", "HTTP/1.1 100 C\r\n\r\n" };
    for (size_t i = 0; i < 3; i++) {
        struct exchange *x = answer_new((struct bytes){ 0 }, &any, false);
        struct failure f = { 0 };
        size_t sent = 0;
        enum exchange_next next = EXCHANGE_MORE;
        if (starts[i][0] != '\0')
            next = x->input(x, (struct bytes){ starts[i], strlen(starts[i]) }, &f);
        while (next == EXCHANGE_MORE && sent < 1 << 20) {
            next = x->input(x, (struct bytes){ parts[i], strlen(parts[i]) }, &f);
            sent += strlen(parts[i]);
        }
        ck_assert_int_eq(f.class, FAILURE_PROTOCOL);
        ck_assert_msg(strstr(f.text, "longer than 65536") != NULL, "%s", f.text);
        x->free(x);
    }
}
END_TEST

START_TEST(test_request)
{
    static const struct {
        const char *url, *host;
    } cases[] = {
        { "http://x/a?b", "Host: x\r\n" },          { "http://x:80/a?b", "Host: x\r\n" },
        { "http://x:81/a?b", "Host: x:81\r\n" },    { "http://x.:81/a?b", "Host: x.:81\r\n" },
        { "https://[::1]/a?b", "Host: [::1]\r\n" }, { "https://[::1]:80/a?b", "Host: [::1]:80\r\n" },
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct target t;
        char err[256];
        size_t len;
        ck_assert_int_eq(target_parse(cases[i].url, &t, err, sizeof err), 0);
        char *text = answer_request(&t, &len);
        ck_assert_uint_eq(strlen(text), len);
        ck_assert_int_eq(strncmp(text, "GET /a?b HTTP/1.1\r\n", 19), 0);
        ck_assert_msg(strstr(text, cases[i].host) != NULL, "%s", text);
        ck_assert_ptr_nonnull(strstr(text, "\r\nCache-Control: no-cache\r\n\r\n"));
        free(text);
    }
}
END_TEST

UNIT_MAIN("answer", test_good, test_malformed, test_short, test_extra, test_unclean_end, test_wishes, test_head,
          test_endless_head, test_request)
