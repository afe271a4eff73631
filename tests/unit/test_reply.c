#include "http/reply.h"

#include "unit.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

#define DATE_LENGTH 29 /* bytes of an IMF-fixdate */

static struct bytes text(const char *string)
{
    return (struct bytes){ .data = string, .len = strlen(string) };
}

/* True when the time that is written there is now, or was a moment ago. */
static bool is_now(const char *date)
{
    struct tm tm = { .tm_sec = -1 };
    const char *end = strptime(date, "%a, %d %b %Y %H:%M:%S GMT", &tm);
    time_t now = time(NULL);
    return end == date + DATE_LENGTH && timegm(&tm) <= now && timegm(&tm) >= now - 2;
}

/* All that is queued, as one string, its date checked and masked. */
static const char *sent(struct output *out)
{
    static char said[1 << 18];
    size_t len = 0;
    for (int i = 0; i < out->count; i++) {
        memcpy(said + len, out->vec[i].iov_base, out->vec[i].iov_len);
        len += out->vec[i].iov_len;
    }
    said[len] = '\0';
    ck_assert_uint_eq(len, out->len);
    char *date = strstr(said, "\r\nDate: ");
    ck_assert_ptr_nonnull(date);
    ck_assert_msg(is_now(date + 8), "%s", date);
    memmove(date + 8, date + 8 + DATE_LENGTH, strlen(date + 8 + DATE_LENGTH) + 1);
    output_reset(out);
    return said;
}

#define FIXED "Date: \r\nContent-Type: text/plain; charset=utf-8\r\nX-Content-Type-Options: nosniff\r\n"

START_TEST(test_a_reply)
{
    struct http_reply reply;
    struct output out;
    ck_assert_int_eq(output_init(&out), 0);
    http_reply_init(&reply, 200);
    http_reply_add(&reply, text("Hello, "));
    http_reply_add(&reply, text("Ada"));
    http_reply_add(&reply, text(""));
    http_reply_send(&reply, HTTP_CONNECTION_SILENT, false, &out);
    ck_assert_str_eq(sent(&out), "HTTP/1.1 200 OK\r\n" FIXED "Content-Length: 10\r\n\r\nHello, Ada");
    output_free(&out);
}
END_TEST

/* RFC 9110 section 9.3.2: the fields of GET, Content-Length too, and no content. */
START_TEST(test_head)
{
    struct http_reply reply;
    struct output out;
    ck_assert_int_eq(output_init(&out), 0);
    http_reply_init(&reply, 404);
    http_reply_add(&reply, text("no\n"));
    http_reply_send(&reply, HTTP_CONNECTION_SILENT, true, &out);
    ck_assert_str_eq(sent(&out), "HTTP/1.1 404 Not Found\r\n" FIXED "Content-Length: 3\r\n\r\n");
    output_free(&out);
}
END_TEST

START_TEST(test_an_empty_reply)
{
    struct http_reply reply;
    struct output out;
    ck_assert_int_eq(output_init(&out), 0);
    http_reply_init(&reply, 200);
    http_reply_send(&reply, HTTP_CONNECTION_SILENT, false, &out);
    ck_assert_str_eq(sent(&out), "HTTP/1.1 200 OK\r\n" FIXED "Content-Length: 0\r\n\r\n");
    output_free(&out);
}
END_TEST

START_TEST(test_connection)
{
    struct http_reply reply;
    struct output out;
    ck_assert_int_eq(output_init(&out), 0);
    http_reply_init(&reply, 200);
    http_reply_send(&reply, HTTP_CONNECTION_CLOSE, false, &out);
    ck_assert_str_eq(sent(&out), "HTTP/1.1 200 OK\r\n" FIXED "Connection: close\r\nContent-Length: 0\r\n\r\n");
    http_reply_send(&reply, HTTP_CONNECTION_KEEP_ALIVE, false, &out);
    ck_assert_str_eq(sent(&out), "HTTP/1.1 200 OK\r\n" FIXED "Connection: keep-alive\r\nContent-Length: 0\r\n\r\n");
    output_free(&out);
}
END_TEST

/* The status and reason phrase of everything that is answered here (RFC 9110 section 15, RFC 6585 section 5). */
START_TEST(test_phrases)
{
    static const struct {
        unsigned status;
        const char *phrase;
    } rows[] = {
        { 200, "OK" },
        { 304, "Not Modified" },
        { 400, "Bad Request" },
        { 404, "Not Found" },
        { 405, "Method Not Allowed" },
        { 408, "Request Timeout" },
        { 412, "Precondition Failed" },
        { 413, "Content Too Large" },
        { 414, "URI Too Long" },
        { 417, "Expectation Failed" },
        { 421, "Misdirected Request" },
        { 431, "Request Header Fields Too Large" },
        { 500, "Internal Server Error" },
        { 501, "Not Implemented" },
        { 505, "HTTP Version Not Supported" },
    };
    struct http_reply reply;
    struct output out;
    char expected[64];
    ck_assert_int_eq(output_init(&out), 0);
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        ck_assert_str_eq(http_phrase(rows[i].status), rows[i].phrase);
        http_reply_init(&reply, rows[i].status);
        http_reply_send(&reply, HTTP_CONNECTION_SILENT, false, &out);
        int len = snprintf(expected, sizeof expected, "HTTP/1.1 %u %s\r\n", rows[i].status, rows[i].phrase);
        ck_assert_mem_eq(sent(&out), expected, (size_t)len);
    }
    ck_assert_str_eq(http_phrase(299), "");
    output_free(&out);
}
END_TEST

/* The largest head: the longest phrase, Allow at its most, Connection, and a length of many digits. */
START_TEST(test_the_largest_head)
{
    struct http_reply reply;
    struct output out;
    char allow[2 * HTTP_ALLOW_MAX], expected[1024];
    ck_assert_int_eq(output_init(&out), 0);
    memset(allow, 'A', sizeof allow); /* does not end in time: cut */
    http_reply_init(&reply, 431);
    reply.allow = allow;
    http_reply_add(&reply, (struct bytes){ "", SIZE_MAX });
    http_reply_send(&reply, HTTP_CONNECTION_KEEP_ALIVE, true, &out);
    snprintf(expected, sizeof expected,
             "HTTP/1.1 431 Request Header Fields Too Large\r\n" FIXED
             "Connection: keep-alive\r\nAllow: %.*s\r\nContent-Length: 18446744073709551615\r\n\r\n",
             HTTP_ALLOW_MAX, allow);
    ck_assert_str_eq(sent(&out), expected);
    output_free(&out);
}
END_TEST

/* Bodies of every size around that of the head's memory, in one piece and in many: nothing is lost or moved. */
START_TEST(test_bodies_of_every_size)
{
    struct http_reply reply;
    struct output out;
    char body[1024], expected[64];
    ck_assert_int_eq(output_init(&out), 0);
    for (size_t i = 0; i < sizeof body; i++)
        body[i] = (char)('a' + i % 23);
    for (size_t len = 0; len < sizeof body; len++)
        for (size_t piece = 17; piece <= sizeof body; piece += 1007) {
            http_reply_init(&reply, 200);
            for (size_t at = 0; at < len; at += piece)
                http_reply_add(&reply, (struct bytes){ body + at, len - at < piece ? len - at : piece });
            http_reply_send(&reply, HTTP_CONNECTION_SILENT, false, &out);
            const char *said = sent(&out), *end = strstr(said, "\r\n\r\n");
            snprintf(expected, sizeof expected, "\r\nContent-Length: %zu\r\n\r\n", len);
            ck_assert(end != NULL && strncmp(strstr(said, "\r\nContent-Length"), expected, strlen(expected)) == 0);
            ck_assert_uint_eq(strlen(end + 4), len);
            ck_assert_mem_eq(end + 4, body, len);
        }
    output_free(&out);
}
END_TEST

START_TEST(test_a_long_body)
{
    struct http_reply reply;
    struct output out;
    static char piece[100000];
    ck_assert_int_eq(output_init(&out), 0);
    memset(piece, 'x', sizeof piece);
    http_reply_init(&reply, 200);
    http_reply_add(&reply, (struct bytes){ piece, sizeof piece });
    http_reply_add(&reply, text("end"));
    http_reply_send(&reply, HTTP_CONNECTION_SILENT, false, &out);
    const char *said = sent(&out), *end = strstr(said, "\r\n\r\n") + 4;
    ck_assert_ptr_nonnull(strstr(said, "\r\nContent-Length: 100003\r\n"));
    ck_assert_uint_eq(strlen(end), sizeof piece + 3);
    ck_assert_str_eq(end + sizeof piece, "end");
    output_free(&out);
}
END_TEST

/* What is too many is left out of body and length alike. */
START_TEST(test_pieces_are_bounded)
{
    struct http_reply reply;
    struct output out;
    ck_assert_int_eq(output_init(&out), 0);
    http_reply_init(&reply, 200);
    for (int i = 0; i < HTTP_REPLY_PIECES + 3; i++)
        http_reply_add(&reply, text("x"));
    http_reply_send(&reply, HTTP_CONNECTION_SILENT, false, &out);
    ck_assert_ptr_nonnull(strstr(sent(&out), "\r\nContent-Length: 64\r\n"));
    output_free(&out);
}
END_TEST

/* The pieces are borrowed until the reply is sent, and no longer. */
START_TEST(test_body_is_copied)
{
    struct http_reply reply;
    struct output out;
    char short_piece[] = "Ada", long_piece[] = "a long text that has no room left in the head's memory, for it is"
                                               "longer than what such a head can hold beside its own fields: "
                                               "0123456789012345678901234567890123456789012345678901234567890123"
                                               "0123456789012345678901234567890123456789012345678901234567890123"
                                               "0123456789012345678901234567890123456789012345678901234567890123"
                                               "0123456789012345678901234567890123456789012345678901234567890123"
                                               "0123456789012345678901234567890123456789012345678901234567890123"
                                               "0123456789012345678901234567890123456789012345678901234567890123";
    ck_assert_int_eq(output_init(&out), 0);
    http_reply_init(&reply, 200);
    http_reply_add(&reply, text(short_piece));
    http_reply_add(&reply, text(long_piece));
    http_reply_send(&reply, HTTP_CONNECTION_SILENT, false, &out);
    memset(short_piece, '-', sizeof short_piece - 1);
    memset(long_piece, '-', sizeof long_piece - 1);
    const char *said = sent(&out);
    ck_assert_ptr_nonnull(strstr(said, "\r\n\r\nAdaa long text"));
    ck_assert_ptr_null(strstr(said, "--"));
    output_free(&out);
}
END_TEST

UNIT_MAIN("reply", test_a_reply, test_head, test_an_empty_reply, test_connection, test_phrases, test_the_largest_head,
          test_bodies_of_every_size, test_a_long_body, test_pieces_are_bounded, test_body_is_copied)
