#include "http/reply.h"

#include "text.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define HEAD_ROOM 1024 /* for a head, whose parts are all of bounded size, and behind it a body that is short */

/* A head under construction. */
struct head {
    size_t len;
    char *text;
};

static void put(struct head *head, const char *text, size_t len)
{
    memcpy(head->text + head->len, text, len);
    head->len += len;
}

#define PUT(head, literal) put((head), "" literal, sizeof(literal) - 1)

static void put_number(struct head *head, size_t number)
{
    head->len += text_number(head->text + head->len, number);
}

const char *http_phrase(unsigned status)
{
    static const struct {
        unsigned status;
        const char *phrase;
    } phrases[] = {
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
        { 503, "Service Unavailable" },
        { 505, "HTTP Version Not Supported" },
    };
    for (size_t i = 0; i < sizeof phrases / sizeof phrases[0]; i++)
        if (phrases[i].status == status)
            return phrases[i].phrase;
    return "";
}

void http_reply_init(struct http_reply *reply, unsigned status)
{
    reply->status = status;
    reply->type = NULL;
    reply->allow = NULL;
    reply->owned = NULL;
    reply->pieces = 0;
    reply->length = 0;
}

void http_reply_add(struct http_reply *reply, struct bytes piece)
{
    if (piece.len == 0 || reply->pieces == HTTP_REPLY_PIECES)
        return;
    reply->body[reply->pieces++] = piece;
    reply->length += piece.len;
}

static void put_status(struct head *head, unsigned status)
{
    if (status == 200) {
        PUT(head, "HTTP/1.1 200 OK\r\n");
        return;
    }
    PUT(head, "HTTP/1.1 ");
    put_number(head, status);
    PUT(head, " ");
    put(head, http_phrase(status), strlen(http_phrase(status)));
    PUT(head, "\r\n");
}

static void put_type(struct head *head, const char *type)
{
    if (type == NULL) {
        PUT(head, "Content-Type: text/plain; charset=utf-8\r\nX-Content-Type-Options: nosniff\r\n");
        return;
    }
    PUT(head, "Content-Type: ");
    put(head, type, strlen(type));
    PUT(head, "\r\nX-Content-Type-Options: nosniff\r\n");
}

/* What is the same for a second, in one thread. */
static _Thread_local struct {
    time_t made;
    size_t date_len, usual_len;
    char date[64];   /* the field, as IMF-fixdate (RFC 9110 section 5.6.7) */
    char usual[192]; /* the begin of the head of a 200 with text */
} second;

static void make_second(time_t now)
{
    static const char days[][4] = { "Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat" };
    static const char months[][4] = {
        "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"
    };
    struct head usual = { .text = second.usual };
    struct tm utc;
    gmtime_r(&now, &utc);
    int n =
        snprintf(second.date, sizeof second.date, "Date: %s, %02d %s %04d %02d:%02d:%02d GMT\r\n", days[utc.tm_wday],
                 utc.tm_mday, months[utc.tm_mon], utc.tm_year + 1900, utc.tm_hour, utc.tm_min, utc.tm_sec);
    second.date_len = n > 0 && (size_t)n < sizeof second.date ? (size_t)n : 0;
    put_status(&usual, 200);
    put(&usual, second.date, second.date_len);
    put_type(&usual, NULL);
    second.usual_len = usual.len;
    second.made = now;
}

/* Status line, Date, and what the content is. */
static void put_begin(struct head *head, unsigned status, const char *type)
{
    time_t now = time(NULL);
    if (now != second.made || second.usual_len == 0)
        make_second(now);
    if (status == 200 && type == NULL) {
        put(head, second.usual, second.usual_len);
        return;
    }
    put_status(head, status);
    put(head, second.date, second.date_len);
    put_type(head, type);
}

static void put_connection(struct head *head, enum http_connection connection)
{
    if (connection == HTTP_CONNECTION_CLOSE)
        PUT(head, "Connection: close\r\n");
    else if (connection == HTTP_CONNECTION_KEEP_ALIVE)
        PUT(head, "Connection: keep-alive\r\n");
}

/* Writes the head where it is sent from, and the body behind it, as far as there is room. */
static void put_reply(const struct http_reply *reply, enum http_connection connection, bool head_only,
                      struct output *out, struct head *head)
{
    put_begin(head, reply->status, reply->type);
    put_connection(head, connection);
    if (reply->allow != NULL) {
        PUT(head, "Allow: ");
        put(head, reply->allow, strnlen(reply->allow, HTTP_ALLOW_MAX));
        PUT(head, "\r\n");
    }
    PUT(head, "Content-Length: ");
    put_number(head, reply->length);
    PUT(head, "\r\n\r\n");
    unsigned i = 0, pieces = head_only ? 0 : reply->pieces;
    for (; i < pieces && head->len + reply->body[i].len <= HEAD_ROOM; i++)
        put(head, reply->body[i].data, reply->body[i].len);
    output_commit(out, head->len);
    for (; i < pieces; i++)
        output_copy(out, reply->body[i].data, reply->body[i].len);
}

void http_reply_send(struct http_reply *reply, enum http_connection connection, bool head_only, struct output *out)
{
    struct head head = { .text = output_reserve(out, HEAD_ROOM) };
    if (head.text != NULL)
        put_reply(reply, connection, head_only, out, &head);
    if (reply->owned != NULL)
        free(reply->owned);
    reply->owned = NULL;
}
