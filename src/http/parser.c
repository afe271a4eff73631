#include "http/parser.h"

#include "http/grammar.h"

#include <llhttp.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define METHOD_MAX 32 /* bytes; no registered method is longer */

/* Where the gate stands. */
enum gate {
    GATE_START,    /* one empty line in front is read past (RFC 9112 section 2.2) */
    GATE_START_LF, /* behind its CR */
    GATE_BEGIN,    /* behind the empty line */
    GATE_METHOD,   /* from here on a request has begun */
    GATE_TARGET,
    GATE_VERSION, /* "HTTP/1.1" CR LF, counted in parser->version */
    GATE_FIELD,   /* at the start of a field line, or of the empty line */
    GATE_NAME,
    GATE_VALUE,
    GATE_VALUE_LF, /* behind a CR */
    GATE_END_LF    /* behind the CR of the empty line */
};

enum body {
    BODY_NONE,
    BODY_LENGTH,
    BODY_CHUNKS,
    BODY_TRAILER /* behind the last chunk */
};

static enum http_parsed refuse(struct http_parser *parser, unsigned status, const char *why)
{
    parser->refusal = (struct http_refusal){ .status = status, .why = why };
    return HTTP_REFUSED;
}

/* --- The gate: the request line --------------------------------------------------------------------------------- */

static void gate_method(struct http_parser *parser, const unsigned char *p, size_t *i, size_t len)
{
    size_t begin = p[0] == '\r' ? 2 : 0;
    *i = grammar_span(p, *i, len, IN_TOKEN);
    if (*i - begin > METHOD_MAX) {
        refuse(parser, 501, "the method is longer than any that is known");
    } else if (*i < len) {
        if (p[*i] != ' ' || *i == begin)
            refuse(parser, 400, "the request does not begin with a method and one space");
        parser->head = *i - begin == 4 && memcmp(p + begin, "HEAD", 4) == 0;
        parser->gate = GATE_TARGET;
        *i += 1;
        parser->target_begin = (uint32_t)*i;
    }
}

static void gate_target(struct http_parser *parser, const struct http_limits *limits, const unsigned char *p, size_t *i,
                        size_t len)
{
    *i = grammar_span(p, *i, len, IN_TARGET);
    if (*i - parser->target_begin > limits->target) {
        refuse(parser, 414, "the request target is too long");
    } else if (*i < len) {
        if (p[*i] != ' ' || *i == parser->target_begin)
            refuse(parser, 400, "the request target is not a URI followed by one space");
        parser->gate = GATE_VERSION;
        *i += 1;
    }
}

static void gate_version(struct http_parser *parser, unsigned char byte)
{
    static const char expected[] = "HTTP/1.1\r\n";
    unsigned at = parser->version++;
    if (at == 5 || at == 7) { /* the two digits */
        if (byte < '0' || byte > '9')
            refuse(parser, 400, "the request line does not end with HTTP/1.1");
        else if (at == 5)
            parser->major = byte - '0';
        else
            parser->minor = byte - '0';
    } else if (byte != (unsigned char)expected[at]) {
        refuse(parser, 400,
               at < 8 ? "the request line does not end with HTTP/1.1" : "the request line does not end with CR LF");
    } else if (at == 8 && (parser->major != 1 || parser->minor > 1)) {
        refuse(parser, 505, "the version is neither HTTP/1.1 nor HTTP/1.0");
    } else if (at == 9) {
        parser->gate = GATE_FIELD;
    }
}

static void gate_line(struct http_parser *parser, const struct http_limits *limits, const unsigned char *p, size_t len)
{
    size_t i = parser->scanned;
    while (i < len && parser->gate < GATE_FIELD && parser->refusal.status == 0) {
        switch (parser->gate) {
        case GATE_START:
            parser->head = false;
            parser->gate = p[i] == '\r' ? GATE_START_LF : GATE_METHOD;
            i += p[i] == '\r';
            break;
        case GATE_START_LF:
            if (p[i++] != '\n')
                refuse(parser, 400, "a CR stands without its LF");
            parser->gate = GATE_BEGIN;
            break;
        case GATE_BEGIN:
            parser->gate = GATE_METHOD;
            break;
        case GATE_METHOD:
            gate_method(parser, p, &i, len);
            break;
        case GATE_TARGET:
            gate_target(parser, limits, p, &i, len);
            break;
        default:
            if (parser->version == 0 && len - i >= 10 && memcmp(p + i, "HTTP/1.1\r\n", 10) == 0) { /* the common case */
                parser->major = parser->minor = 1;
                parser->gate = GATE_FIELD;
                i += 10;
                break;
            }
            gate_version(parser, p[i++]);
        }
    }
    parser->scanned = (uint32_t)i;
    if (parser->gate == GATE_FIELD)
        parser->fields_begin = parser->scanned;
}

/* --- The gate: field lines -------------------------------------------------------------------------------------- */

static void gate_field_start(struct http_parser *parser, const struct http_limits *limits, unsigned char byte)
{
    parser->gate = GATE_NAME;
    if (byte == ' ' || byte == '\t')
        refuse(parser, 400, "a field line begins with white space (obs-fold)");
    else if ((grammar_sets[byte] & IN_TOKEN) == 0)
        refuse(parser, 400, "a field line does not begin with a name");
    else if (++parser->headers > limits->headers)
        refuse(parser, 431, "there are too many field lines");
}

/* If there is a byte at i, it must be this one, and the gate moves on. Returns the position behind it. */
static size_t gate_expect(struct http_parser *parser, const unsigned char *p, size_t i, size_t end, char byte,
                          enum gate next, const char *why)
{
    if (i == end)
        return i;
    parser->gate = (uint8_t)next;
    if (p[i] != (unsigned char)byte)
        refuse(parser, 400, why);
    return i + 1;
}

/* Field lines up to the empty line. True when they are complete; parser->scanned is behind them then. */
static bool gate_fields(struct http_parser *parser, const struct http_limits *limits, const unsigned char *p,
                        size_t len)
{
    size_t i = parser->scanned, end = len;
    size_t most = parser->fields_begin + (size_t)limits->header_size + strlen("\r\n"); /* of the empty line */
    bool done = false;
    if (end > most)
        end = most;
    while (i < end && !done && parser->refusal.status == 0) {
        switch (parser->gate) {
        case GATE_FIELD:
            if (p[i] == '\r')
                parser->gate = GATE_END_LF;
            else
                gate_field_start(parser, limits, p[i]);
            i++;
            break;
        case GATE_NAME:
            i = grammar_span(p, i, end, IN_TOKEN);
            i = gate_expect(parser, p, i, end, ':', GATE_VALUE, "a field name is not followed by a colon at once");
            break;
        case GATE_VALUE:
            i = grammar_span(p, i, end, IN_VALUE);
            i = gate_expect(parser, p, i, end, '\r', GATE_VALUE_LF,
                            "a field value holds a control character or a bare LF");
            break;
        default:
            done = parser->gate == GATE_END_LF;
            i = gate_expect(parser, p, i, end, '\n', GATE_FIELD, "a CR stands without its LF");
        }
    }
    parser->scanned = (uint32_t)i;
    if (!done && i == end && end < len && parser->refusal.status == 0)
        refuse(parser, 431, "the field lines are too large");
    return done && parser->refusal.status == 0;
}

/* --- llhttp ----------------------------------------------------------------------------------------------------- */

/* What the fields of a head say; one call of llhttp_execute() long. */
struct reading {
    struct bytes name, value; /* of the field that is being read */
    unsigned hosts, lengths, codings;
    bool host_bad, length_bad, coding_bad, coding_unknown, chunked;
    bool close, keep_alive, expect, expect_unknown;
    bool if_match_fails, if_none_match_fails;
    uint64_t length; /* Content-Length */
};

/* Every coding must be known to us, and chunked, once, be the last (RFC 9112 section 6.1). */
static void read_coding(struct reading *r, struct bytes list)
{
    struct bytes coding;
    while (grammar_list_next(&list, &coding)) {
        r->codings++;
        if (coding.len == 0 || r->chunked) /* nothing may follow chunked */
            r->coding_bad = true;
        else if (grammar_is(coding, "chunked"))
            r->chunked = true;
        else
            r->coding_unknown = true;
    }
}

static void read_connection(struct reading *r, struct bytes list)
{
    struct bytes option;
    while (grammar_list_next(&list, &option)) {
        r->close = r->close || grammar_is(option, "close");
        r->keep_alive = r->keep_alive || grammar_is(option, "keep-alive");
    }
}

static void read_expect(struct reading *r, struct bytes list)
{
    struct bytes expectation;
    while (grammar_list_next(&list, &expectation)) {
        r->expect = r->expect || expectation.len > 0;
        r->expect_unknown = r->expect_unknown || (expectation.len > 0 && !grammar_is(expectation, "100-continue"));
    }
}

/* A field is complete. */
static void read_field(struct reading *r)
{
    struct bytes port;
    size_t host_len;
    if (grammar_is(r->name, "host")) {
        r->hosts++;
        r->host_bad = r->host_bad || !grammar_host(r->value, &host_len, &port);
    } else if (grammar_is(r->name, "content-length")) {
        r->lengths++;
        r->length_bad = r->length_bad || !grammar_length(r->value, &r->length);
    } else if (grammar_is(r->name, "transfer-encoding")) {
        read_coding(r, r->value);
    } else if (grammar_is(r->name, "connection")) {
        read_connection(r, r->value);
    } else if (grammar_is(r->name, "expect")) {
        read_expect(r, r->value);
    } else if (grammar_is(r->name, "if-match")) {
        r->if_match_fails = !grammar_is(r->value, "*"); /* nothing here has an entity tag */
    } else if (grammar_is(r->name, "if-none-match")) {
        r->if_none_match_fails = grammar_is(r->value, "*");
    }
}

static int on_field(llhttp_t *llhttp, const char *at, size_t len)
{
    struct reading *r = llhttp->data;
    read_field(r);
    r->name = (struct bytes){ .data = at, .len = len };
    r->value = (struct bytes){ .data = "", .len = 0 };
    return 0;
}

/* In one piece: the gate lets no fold through. llhttp may leave out an empty value, and keep white space behind one. */
static int on_value(llhttp_t *llhttp, const char *at, size_t len)
{
    struct reading *r = llhttp->data;
    r->value = grammar_trim((struct bytes){ .data = at, .len = len });
    return 0;
}

static int on_headers_complete(llhttp_t *llhttp)
{
    read_field(llhttp->data);
    llhttp->upgrade = 0; /* no other protocol is spoken here, and Upgrade may be ignored (RFC 9110 section 7.8) */
    return HPE_PAUSED;
}

static const llhttp_settings_t callbacks = {
    .on_header_field = on_field,
    .on_header_value = on_value,
    .on_headers_complete = on_headers_complete,
};

/* --- A head ----------------------------------------------------------------------------------------------------- */

/* What llhttp did not take, although the gate did. */
static enum http_parsed refuse_llhttp(struct http_parser *parser, llhttp_errno_t error)
{
    switch (error) {
    case HPE_INVALID_METHOD:
    case HPE_INVALID_CONSTANT: /* a method of another protocol */
    case HPE_INVALID_VERSION:  /* a method of HTTP/2 */
    case HPE_PAUSED_H2_UPGRADE:
        return refuse(parser, 501, "the method is not known");
    case HPE_INTERNAL:
        return refuse(parser, 500, "out of memory");
    case HPE_INVALID_URL:
        return refuse(parser, 400, "the request target does not fit the method");
    case HPE_INVALID_CONTENT_LENGTH:
    case HPE_UNEXPECTED_CONTENT_LENGTH:
        return refuse(parser, 400, "Content-Length is not one whole number, alone");
    case HPE_INVALID_TRANSFER_ENCODING:
        return refuse(parser, 400, "chunked is not the last transfer coding");
    default:
        return refuse(parser, 400, "the request head is malformed");
    }
}

/* How long the body is (RFC 9112 section 6.3). */
static enum http_parsed head_framing(struct http_parser *parser, const struct http_limits *limits, struct reading *r)
{
    if (r->codings > 0 && r->lengths > 0)
        return refuse(parser, 400, "there are both Transfer-Encoding and Content-Length");
    if (r->codings > 0 && parser->minor == 0)
        return refuse(parser, 400, "HTTP/1.0 has no Transfer-Encoding");
    if (r->codings > 0 && (r->coding_bad || !r->chunked))
        return refuse(parser, 400, "chunked is not the last transfer coding, once");
    if (r->coding_unknown)
        return refuse(parser, 501, "a transfer coding other than chunked is not known");
    if (r->lengths > 1 || r->length_bad)
        return refuse(parser, 400, "Content-Length is not one whole number");
    if (r->length > limits->body)
        return refuse(parser, 413, "the content is too large");
    parser->body = r->codings > 0 ? BODY_CHUNKS : r->length > 0 ? BODY_LENGTH : BODY_NONE;
    parser->length = r->codings > 0 ? limits->body : r->length;
    return HTTP_COMPLETE;
}

/* What a complete head must be beyond its syntax. */
static enum http_parsed head_check(struct http_parser *parser, const struct http_limits *limits, struct reading *r,
                                   struct http_request *request)
{
    if (request->target.len > 8 && strncasecmp(request->target.data, "https://", 8) == 0)
        return refuse(parser, 421, "the connection is not secured, as https needs it"); /* RFC 9110 section 7.4 */
    if (!grammar_target(request->method, request->target, &request->uri))
        return refuse(parser, 400, "the request target is malformed");
    if (r->hosts > 1 || r->host_bad)
        return refuse(parser, 400, "Host is repeated or malformed");
    if (r->hosts == 0 && parser->minor > 0)
        return refuse(parser, 400, "Host is missing");
    if (head_framing(parser, limits, r) == HTTP_REFUSED)
        return HTTP_REFUSED;
    if (r->expect && r->expect_unknown && parser->minor > 0)
        return refuse(parser, 417, "the expectation is not 100-continue");
    request->minor = parser->minor;
    request->body = parser->body != BODY_NONE;
    request->expect = r->expect && request->body && parser->minor > 0;
    bool get = grammar_is(request->method, "GET") || parser->head;
    request->precondition = r->if_match_fails ? 412 : !r->if_none_match_fails ? 0 : get ? 304 : 412;
    request->keep_alive = !r->close && (parser->minor > 0 || r->keep_alive);
    return HTTP_COMPLETE;
}

static llhttp_errno_t llhttp_read(struct reading *r, const char *p, size_t len)
{
    llhttp_t llhttp;
    bool tabs = memchr(p, '\t', len) != NULL;
    char *spaced = tabs ? malloc(len) : NULL;
    if (tabs && spaced == NULL)
        return HPE_INTERNAL;
    /* llhttp 8.1 refuses a tab around Content-Length; white space is all one there (RFC 9110 section 5.6.3) */
    for (size_t i = 0; spaced != NULL && i < len; i++)
        spaced[i] = (char)(p[i] == '\t' ? ' ' : p[i]);
    llhttp_init(&llhttp, HTTP_REQUEST, &callbacks);
    llhttp.data = r;
    llhttp_errno_t error = llhttp_execute(&llhttp, spaced != NULL ? spaced : p, len);
    free(spaced);
    return error;
}

/* The request line lies in p. */
static void line_read(const struct http_parser *parser, const char *p, struct http_request *request)
{
    size_t begin = p[0] == '\r' ? 2 : 0, version = parser->fields_begin - strlen(" HTTP/1.1\r\n");
    request->method = (struct bytes){ .data = p + begin, .len = parser->target_begin - 1 - begin };
    request->target = (struct bytes){ .data = p + parser->target_begin, .len = version - parser->target_begin };
}

/* The whole head lies in p: takes it apart. */
static enum http_parsed head_read(struct http_parser *parser, const struct http_limits *limits, const char *p,
                                  struct http_request *request)
{
    struct reading r = { .hosts = 0 };
    line_read(parser, p, request);
    request->fields = (struct bytes){ .data = p + parser->fields_begin,
                                      .len = parser->scanned - parser->fields_begin - strlen("\r\n") };
    llhttp_errno_t error = llhttp_read(&r, p, parser->scanned);
    if (error != HPE_PAUSED)
        return refuse_llhttp(parser, error);
    return head_check(parser, limits, &r, request);
}

bool http_parser_begun(const struct http_parser *parser)
{
    return parser->gate >= GATE_METHOD || parser->body != BODY_NONE;
}

enum http_parsed http_parser_head(struct http_parser *parser, const struct http_limits *limits, struct bytes *in,
                                  struct http_request *request)
{
    const unsigned char *p = (const unsigned char *)in->data;
    if (parser->gate < GATE_FIELD)
        gate_line(parser, limits, p, in->len);
    bool complete =
        parser->gate >= GATE_FIELD && parser->refusal.status == 0 && gate_fields(parser, limits, p, in->len);
    if (parser->refusal.status != 0) {
        *request = (struct http_request){ 0 };
        if (parser->gate >= GATE_FIELD)
            line_read(parser, in->data, request);
        return HTTP_REFUSED;
    }
    if (!complete)
        return HTTP_MORE;
    enum http_parsed parsed = head_read(parser, limits, in->data, request);
    bytes_skip(in, parser->scanned);
    parser->gate = GATE_START;
    parser->scanned = parser->headers = parser->version = 0;
    return parsed;
}

/* --- A body ----------------------------------------------------------------------------------------------------- */

static enum http_parsed body_length(struct http_parser *parser, struct bytes *in)
{
    size_t n = in->len < parser->length ? in->len : (size_t)parser->length;
    bytes_skip(in, n);
    parser->length -= n;
    return parser->length == 0 ? HTTP_COMPLETE : HTTP_MORE;
}

/* A chunk's line. It must fit into what may still come on the wire; what is wrong in it is refused as soon as it comes. */
static enum http_parsed chunk_line(struct http_parser *parser, const struct http_limits *limits, struct bytes *in)
{
    size_t most = limits->header_size < parser->length ? (size_t)limits->header_size : (size_t)parser->length;
    struct bytes line = { .data = in->data, .len = in->len < most ? in->len : most };
    const char *end = memchr(line.data, '\n', line.len);
    uint64_t size;
    if (end != NULL)
        line.len = (size_t)(end - line.data);
    size_t len = line.len;
    bool cr = len > 0 && line.data[len - 1] == '\r';
    line.len -= cr;
    bool sound = grammar_chunk_line(&line, &size);
    if (end != NULL ? !sound || !cr : !sound && line.len > 0)
        return refuse(parser, 400, "the line of a chunk is malformed");
    if (end == NULL)
        return in->len <= most ? HTTP_MORE : refuse(parser, 413, "the content is too large");
    bytes_skip(in, len + 1);
    parser->length -= len + 1;
    if (size > limits->body)
        return refuse(parser, 413, "the content is too large");
    parser->chunk = size > 0 ? size + strlen("\r\n") : 0;
    return size > 0 ? HTTP_MORE : HTTP_COMPLETE;
}

/* Chunks, up to and with the line of the last one. parser->length is what may still come on the wire. */
static enum http_parsed body_chunks(struct http_parser *parser, const struct http_limits *limits, struct bytes *in)
{
    enum http_parsed parsed = HTTP_MORE;
    for (size_t before = 0; parsed == HTTP_MORE && in->len > 0 && in->len != before;) {
        before = in->len;
        if (parser->chunk == 0) {
            parsed = chunk_line(parser, limits, in);
        } else if (parser->length == 0) {
            parsed = refuse(parser, 413, "the content is too large");
        } else if (parser->chunk <= 2) { /* CRLF behind the data */
            if (!grammar_take(in, parser->chunk-- == 2 ? '\r' : '\n'))
                parsed = refuse(parser, 400, "a chunk is longer than its size");
            parser->length--;
        } else {
            uint64_t most = parser->chunk - 2 < parser->length ? parser->chunk - 2 : parser->length;
            size_t n = in->len < most ? in->len : (size_t)most;
            bytes_skip(in, n);
            parser->chunk -= n;
            parser->length -= n;
        }
    }
    if (parsed == HTTP_COMPLETE) {
        parser->body = BODY_TRAILER;
        parser->gate = GATE_FIELD;
    }
    return parsed;
}

/* A trailer field that says how to frame or route the message would be a second opinion (RFC 9110 section 6.5.1). */
static bool trailer_is_sound(struct bytes fields)
{
    static const char *const forbidden[] = { "content-length", "transfer-encoding", "host" };
    const struct http_request request = { .fields = fields };
    for (size_t i = 0; i < sizeof forbidden / sizeof forbidden[0]; i++)
        if (http_request_field(&request, forbidden[i]).data != NULL)
            return false;
    return true;
}

/* The trailer section goes through the gate as field lines do, and is then dropped. */
static enum http_parsed body_trailer(struct http_parser *parser, const struct http_limits *limits, struct bytes *in)
{
    parser->fields_begin = 0;
    bool complete = gate_fields(parser, limits, (const unsigned char *)in->data, in->len);
    if (parser->refusal.status != 0)
        return HTTP_REFUSED;
    if (!complete)
        return HTTP_MORE;
    struct bytes fields = { .data = in->data, .len = parser->scanned - strlen("\r\n") };
    if (!trailer_is_sound(fields))
        return refuse(parser, 400, "a trailer field says how to frame or route the message");
    bytes_skip(in, parser->scanned);
    parser->gate = GATE_START;
    parser->scanned = parser->headers = 0;
    return HTTP_COMPLETE;
}

enum http_parsed http_parser_body(struct http_parser *parser, const struct http_limits *limits, struct bytes *in)
{
    enum http_parsed parsed = HTTP_COMPLETE;
    if (parser->body == BODY_LENGTH)
        parsed = body_length(parser, in);
    if (parser->body == BODY_CHUNKS)
        parsed = body_chunks(parser, limits, in);
    if (parser->body == BODY_TRAILER && parsed == HTTP_COMPLETE)
        parsed = body_trailer(parser, limits, in);
    if (parsed == HTTP_COMPLETE)
        parser->body = BODY_NONE;
    return parsed;
}

struct bytes http_request_field(const struct http_request *request, const char *name)
{
    struct bytes rest = request->fields;
    size_t len = strlen(name);
    while (rest.len > 0) {
        const char *end = memchr(rest.data, '\n', rest.len); /* each line has one */
        size_t line = (size_t)(end - rest.data) + 1;
        if (line > len + 1 && rest.data[len] == ':' && strncasecmp(rest.data, name, len) == 0)
            return grammar_trim((struct bytes){ .data = rest.data + len + 1, .len = line - len - 1 - strlen("\r\n") });
        bytes_skip(&rest, line);
    }
    return (struct bytes){ 0 };
}
