/*
 * http/parser: bytes to one request at a time (RFC 9112). Pure: no sockets, no events.
 *
 * A head goes through two readers. The gate walks over every byte once and refuses what two parsers could read
 * differently: bare CR or LF, folds, control bytes, stray spaces, any version but 1.0 and 1.1, and whatever is over a
 * limit. llhttp then takes the whole head apart. So the verdict does not depend on how the bytes were split, nor on the
 * version of llhttp, except for which methods there are. Chunks are read here too: llhttp 8.1 takes lines that RFC 9112
 * section 7.1 forbids and refuses some that it allows.
 *
 * A head is shown from its first byte until it is complete; the bytes of a body are taken as they come.
 */
#ifndef ECHOD_HTTP_PARSER_H
#define ECHOD_HTTP_PARSER_H

#include "bytes.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* The most that limits may allow. A head stays unread until it is complete, and the core keeps 64 KiB at most. */
#define HTTP_TARGET_LIMIT 16384
#define HTTP_HEADER_LIMIT 32768

struct http_limits {
    uint64_t target;      /* bytes of the request target; more is 414 */
    uint64_t header_size; /* bytes of all field lines; more is 431 */
    uint64_t headers;     /* field lines; more is 431 */
    uint64_t body;        /* bytes on the wire behind the head, chunk framing included; more is 413 */
};

/* A request head. All bytes are borrowed from the input. */
struct http_request {
    struct bytes method;
    struct bytes target;
    struct bytes uri;      /* path and query of the target; len 0: it has none, as in OPTIONS * or CONNECT */
    struct bytes fields;   /* the field lines as they came, each with its CRLF */
    unsigned minor;        /* HTTP/1.minor: 0 or 1 */
    bool keep_alive;       /* the client would like to send another request */
    bool expect;           /* 100-continue */
    bool body;             /* content follows */
    unsigned precondition; /* instead of success: 412 or 304 (RFC 9110 section 13); 0: none fails */
};

/* A refusal: what to answer, and why. Status 0: none. */
struct http_refusal {
    unsigned status;
    const char *why; /* static */
};

enum http_parsed { HTTP_MORE, HTTP_COMPLETE, HTTP_REFUSED };

/* Parser of one connection; zeroed means ready for the first head. */
struct http_parser {
    uint32_t scanned;      /* bytes of the head that the gate has passed */
    uint32_t fields_begin; /* where the field lines begin */
    uint32_t target_begin; /* where the target begins */
    uint32_t headers;      /* field lines begun */
    uint8_t gate;          /* enum in parser.c */
    uint8_t version;       /* bytes of "HTTP/1.1" seen */
    uint8_t major, minor;  /* of the version */
    bool head;             /* the method of the request is HEAD; for a refusal, which has no content then */
    uint8_t body;          /* enum in parser.c */
    uint64_t length;       /* what may or must still come of the body */
    uint64_t chunk;        /* what must still come of a chunk, with the CRLF behind it; 0: its line comes */
    struct http_refusal refusal;
};

/*
 * Looks at a head that begins at in->data. HTTP_MORE: nothing was consumed; call again with the same bytes and more
 * behind them. HTTP_COMPLETE: the head was consumed, *request is filled and valid as long as the bytes are. If
 * request->body is true, http_parser_body() comes next, else http_parser_head() does. HTTP_REFUSED: see refusal; the
 * parser is of no more use; *request has method and target if the request line was whole, and fields if the head was.
 */
enum http_parsed http_parser_head(struct http_parser *parser, const struct http_limits *limits, struct bytes *in,
                                  struct http_request *request);

/* True from the first byte of a method to the end of the request; an empty line in front of one begins nothing. */
bool http_parser_begun(const struct http_parser *parser);

/* Consumes the bytes of a body, trailers included. What HTTP_MORE leaves unread is to be shown again. */
enum http_parsed http_parser_body(struct http_parser *parser, const struct http_limits *limits, struct bytes *in);

/* The value of the first field of that (lower case) name, len 0 and data NULL when there is none. */
struct bytes http_request_field(const struct http_request *request, const char *name);

#endif
