#include "probe/answer.h"

#include "http/grammar.h"

#include <inttypes.h>
#include <llhttp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Bytes kept of an answer. */
struct store {
    char *data;
    size_t len, size;
};

struct answer {
    struct exchange exchange;
    const struct answer_wish *wish;
    struct failure *failure; /* of the call that is running */
    llhttp_t parser;
    struct store head, body;
    size_t head_len;   /* bytes of heads so far */
    uint64_t body_len; /* bytes of the body so far */
    char coding[32];   /* Transfer-Encoding, cut; one that fills it is none that is known */
    size_t coding_len;
    bool field_is_coding, coded;
    bool keep, in_body, complete, keeps_alive;
    char field[20]; /* the name of a field, cut */
    size_t field_len;
};

static bool store_add(struct store *s, const char *data, size_t len)
{
    if (s->size - s->len < len) {
        size_t size = 2 * (s->len + len);
        char *grown = realloc(s->data, size);
        if (grown == NULL)
            return false;
        s->data = grown;
        s->size = size;
    }
    if (len > 0)
        memcpy(s->data + s->len, data, len);
    s->len += len;
    return true;
}

static int fail(struct answer *a, enum failure_class class, const char *text)
{
    failure_set(a->failure, class, "%s", text);
    return -1;
}

/* Appends to a text that is cut at size. */
static void append_cut(char *text, size_t *len, size_t size, const char *data, size_t n)
{
    for (size_t i = 0; i < n && *len < size; i++)
        text[(*len)++] = data[i];
}

/* --- What llhttp tells */

/* reason-phrase (RFC 9112 section 4): llhttp takes anything but a line end. */
static int on_reason(llhttp_t *parser, const char *data, size_t len)
{
    if (grammar_span((const unsigned char *)data, 0, len, IN_VALUE) != len)
        return fail(parser->data, FAILURE_PROTOCOL, "malformed HTTP: a control character in the reason phrase");
    return 0;
}

static int on_field(llhttp_t *parser, const char *data, size_t len)
{
    struct answer *a = parser->data;
    append_cut(a->field, &a->field_len, sizeof a->field, data, len);
    return 0;
}

static int on_field_complete(llhttp_t *parser)
{
    struct answer *a = parser->data;
    if (a->field_len == 0)
        return fail(a, FAILURE_PROTOCOL, "malformed HTTP: a field without a name");
    a->field_is_coding = grammar_is((struct bytes){ a->field, a->field_len }, "Transfer-Encoding");
    a->field_len = 0;
    if (a->field_is_coding && a->coded)
        return fail(a, FAILURE_PROTOCOL, "Transfer-Encoding is repeated");
    a->coded = a->coded || a->field_is_coding;
    return 0;
}

static int on_value(llhttp_t *parser, const char *data, size_t len)
{
    struct answer *a = parser->data;
    if (a->field_is_coding)
        append_cut(a->coding, &a->coding_len, sizeof a->coding, data, len);
    return 0;
}

/* RFC 9112 section 6: what says where the body ends must leave no doubt. */
static int check_framing(struct answer *a)
{
    struct bytes coding = grammar_trim((struct bytes){ a->coding, a->coding_len });
    if (a->coded && (a->coding_len == sizeof a->coding || !grammar_is(coding, "chunked")))
        return fail(a, FAILURE_PROTOCOL, "a Transfer-Encoding that is not \"chunked\", which nobody asked for");
    if (a->coded && (a->parser.flags & F_CHUNKED) == 0) /* llhttp sees none behind some white space */
        return fail(a, FAILURE_PROTOCOL, "a Transfer-Encoding with a tab or a line end that hides what it says");
    if (a->coded && (a->parser.http_minor == 0 || (a->parser.flags & F_CONTENT_LENGTH) != 0))
        return fail(a, FAILURE_PROTOCOL, "Transfer-Encoding in HTTP/1.0 or beside Content-Length");
    return 0;
}

static int too_long(struct answer *a)
{
    failure_set(a->failure, FAILURE_PROTOCOL, "the body is longer than %" PRIu64 " bytes (--max-size)",
                a->wish->max_size);
    return -1;
}

static int on_headers_complete(llhttp_t *parser)
{
    struct answer *a = parser->data;
    if (parser->http_major != 1 || parser->http_minor > 1)
        return fail(a, FAILURE_PROTOCOL, "the answer is neither HTTP/1.1 nor HTTP/1.0");
    if (parser->status_code < 100 || parser->status_code > 599)
        return fail(a, FAILURE_PROTOCOL, "the status is not from 100 to 599");
    if (parser->status_code == 101)
        return fail(a, FAILURE_PROTOCOL, "the server switches to a protocol that nobody asked for");
    if (check_framing(a) < 0)
        return -1;
    if (parser->status_code < 200 || parser->status_code == 204 || parser->status_code == 304)
        parser->flags |= F_SKIPBODY; /* whatever its fields say (RFC 9112 section 6.3) */
    else if ((parser->flags & F_CONTENT_LENGTH) != 0 && parser->content_length > a->wish->max_size)
        return too_long(a);
    return HPE_PAUSED; /* so that answer_take() knows where the head ends */
}

static int on_body(llhttp_t *parser, const char *data, size_t len)
{
    struct answer *a = parser->data;
    a->body_len += len;
    if (a->body_len > a->wish->max_size)
        return too_long(a);
    if (a->keep && !store_add(&a->body, data, len))
        return fail(a, FAILURE_SYSTEM, "out of memory");
    return 0;
}

/* A 1xx answer is followed by another one (RFC 9110 section 15.2). */
static int on_message_complete(llhttp_t *parser)
{
    struct answer *a = parser->data;
    if (parser->status_code < 200) {
        a->head.len = 0;
        a->in_body = false;
        return 0;
    }
    a->complete = true;
    a->keeps_alive = llhttp_should_keep_alive(parser) != 0;
    return HPE_PAUSED;
}

static const llhttp_settings_t callbacks = {
    .on_status = on_reason,
    .on_header_field = on_field,
    .on_header_field_complete = on_field_complete,
    .on_header_value = on_value,
    .on_headers_complete = on_headers_complete,
    .on_body = on_body,
    .on_message_complete = on_message_complete,
};

/* --- The reader */

/* Counts and keeps bytes of a head. */
static bool take_head(struct answer *a, const char *data, size_t len)
{
    a->head_len += len;
    if (a->head_len > ANSWER_HEAD)
        fail(a, FAILURE_PROTOCOL, "the head of the answer is longer than 65536 bytes");
    else if (!store_add(&a->head, data, len))
        fail(a, FAILURE_SYSTEM, "out of memory");
    return a->failure->class == FAILURE_NONE;
}

/* Runs llhttp to its next stop, which *paused tells. False at a failure. */
static bool run_parser(struct answer *a, struct bytes *in, bool *paused)
{
    enum llhttp_errno error = llhttp_execute(&a->parser, in->data, in->len);
    size_t taken = in->len;
    if (error != HPE_OK)
        taken = (size_t)(llhttp_get_error_pos(&a->parser) - in->data);
    if (error != HPE_OK && error != HPE_PAUSED) {
        const char *reason = llhttp_get_error_reason(&a->parser);
        failure_set(a->failure, FAILURE_PROTOCOL, "malformed HTTP: %s",
                    reason != NULL && reason[0] != '\0' ? reason : llhttp_errno_name(error));
        return false;
    }
    if (!a->in_body && !take_head(a, in->data, taken))
        return false;
    *paused = error == HPE_PAUSED;
    if (*paused) {
        a->in_body = true;
        llhttp_resume(&a->parser);
    }
    bytes_skip(in, taken);
    return true;
}

/* One element of a list of codes: three digits, or a class such as 2xx; its first code and how many, or false. */
static bool status_range(struct bytes element, unsigned *first, unsigned *count)
{
    bool class = element.len == 3 && grammar_is((struct bytes){ element.data + 1, 2 }, "xx");
    uint64_t code = 0;
    if (element.len != 3 || !grammar_length((struct bytes){ element.data, class ? 1 : 3 }, &code))
        return false;
    *first = (unsigned)code * (class ? 100 : 1);
    *count = class ? 100 : 1;
    return *first >= 200 && *first <= 599;
}

int answer_status_check(const char *text)
{
    struct bytes list = { .data = text, .len = strlen(text) }, element;
    unsigned first, count;
    while (grammar_list_next(&list, &element))
        if (!status_range(element, &first, &count))
            return -1;
    return 0;
}

static bool status_is_good(unsigned status, const char *wish)
{
    struct bytes list = { .data = wish, .len = strlen(wish) }, element;
    unsigned first, count;
    while (grammar_list_next(&list, &element))
        if (status_range(element, &first, &count) && status >= first && status < first + count)
            return true;
    return false;
}

/* The answer is whole; is it the one that was wished for? */
static enum exchange_next answer_complete(struct answer *a)
{
    struct exchange *x = &a->exchange;
    const char *status = a->wish->status != NULL ? a->wish->status : "2xx,3xx";
    const char *expect = a->wish->expect;
    x->whole = true;
    x->head = (struct bytes){ .data = a->head.data, .len = a->head.len };
    x->body = (struct bytes){ .data = a->body.data, .len = a->body.len };
    x->status = a->parser.status_code;
    if (!status_is_good(x->status, status))
        failure_set(a->failure, FAILURE_MISMATCH, "the status is %u, not %s", x->status, status);
    else if (expect != NULL && (a->body.len == 0 || memmem(a->body.data, a->body.len, expect, strlen(expect)) == NULL))
        failure_set(a->failure, FAILURE_MISMATCH, "the body does not hold what --expect says");
    else
        return EXCHANGE_DONE;
    return EXCHANGE_FAILED;
}

enum exchange_next answer_take(struct exchange *x, struct bytes *in, struct failure *f)
{
    struct answer *a = (struct answer *)x;
    bool paused = false; /* behind a head that needs no body, llhttp has more to say without another byte */
    a->failure = f;
    while ((in->len > 0 || paused) && !a->complete)
        if (!run_parser(a, in, &paused))
            return EXCHANGE_FAILED;
    return a->complete ? answer_complete(a) : EXCHANGE_MORE;
}

static enum exchange_next answer_input(struct exchange *x, struct bytes in, struct failure *f)
{
    enum exchange_next next = answer_take(x, &in, f);
    if (next != EXCHANGE_DONE || in.len == 0)
        return next;
    failure_set(f, FAILURE_PROTOCOL, "bytes follow the answer");
    return EXCHANGE_FAILED;
}

/* Where nothing else says how long the body is, the end of the connection does (RFC 9112 section 6.3). */
static enum exchange_next answer_eof(struct exchange *x, bool clean, struct failure *f)
{
    struct answer *a = (struct answer *)x;
    a->failure = f;
    if (a->in_body && clean)
        llhttp_finish(&a->parser); /* calls on_message_complete(), if this may be the end */
    if (a->complete)
        return answer_complete(a);
    if (a->head_len == 0)
        failure_set(f, FAILURE_SHORT, "the connection ended before an answer");
    else if (!a->in_body)
        failure_set(f, FAILURE_SHORT, "the connection ended within the head of the answer");
    else
        failure_set(f, FAILURE_SHORT, "the connection ended after %" PRIu64 " bytes of the body, %s", a->body_len,
                    clean ? "before its end" : "without the close_notify of TLS that would say that they are all");
    return EXCHANGE_FAILED;
}

static void answer_free(struct exchange *x)
{
    struct answer *a = (struct answer *)x;
    free(a->head.data);
    free(a->body.data);
    free(a);
}

void answer_reset(struct exchange *x)
{
    struct answer *a = (struct answer *)x;
    llhttp_init(&a->parser, HTTP_RESPONSE, &callbacks);
    a->parser.data = a;
    a->head.len = a->body.len = a->head_len = a->coding_len = a->field_len = 0;
    a->body_len = 0;
    a->field_is_coding = a->coded = a->in_body = a->complete = a->keeps_alive = false;
    x->whole = false;
    x->status = 0;
    x->head = x->body = (struct bytes){ 0 };
}

struct exchange *answer_new(struct bytes request, const struct answer_wish *wish, bool keep)
{
    struct answer *a = calloc(1, sizeof *a);
    if (a == NULL)
        return NULL;
    a->exchange = (struct exchange){ .request = request };
    a->exchange.input = answer_input;
    a->exchange.eof = answer_eof;
    a->exchange.free = answer_free;
    a->wish = wish;
    a->keep = keep || wish->expect != NULL;
    answer_reset(&a->exchange);
    return &a->exchange;
}

bool answer_keeps_alive(const struct exchange *x)
{
    return ((const struct answer *)x)->keeps_alive;
}

char *answer_request(const struct target *t, size_t *len)
{
    static const char format[] = "GET %s HTTP/1.1\r\nHost: %s%s%s%s%s%s\r\nUser-Agent: echoprobe/" PACKAGE_VERSION
                                 "\r\nAccept: */*\r\nCache-Control: no-cache\r\n\r\n";
    bool v6 = strchr(t->host, ':') != NULL;
    char port[8] = "", *text = NULL;
    if (!t->port_is_default)
        snprintf(port, sizeof port, "%u", t->port);
    int n = asprintf(&text, format, t->path, v6 ? "[" : "", t->host, v6 ? "]" : "", t->absolute ? "." : "",
                     port[0] != '\0' ? ":" : "", port);
    *len = n >= 0 ? (size_t)n : 0;
    return n >= 0 ? text : NULL;
}
