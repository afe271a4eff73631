/*
 * http/reply: one answer and its bytes on the wire. Pure. A reply is made and sent within one call; what is put into
 * its body is borrowed until then.
 */
#ifndef ECHOD_HTTP_REPLY_H
#define ECHOD_HTTP_REPLY_H

#include "bytes.h"

#include <stdbool.h>

#define HTTP_REPLY_PIECES 64
#define HTTP_ALLOW_MAX    128 /* bytes of a list for Allow */

struct http_reply {
    unsigned status;
    const char *type;  /* Content-Type; NULL: UTF-8 text */
    const char *allow; /* of a 405, and of OPTIONS; else NULL */
    char *owned;       /* memory that a piece lies in; freed when the reply is sent */
    struct bytes body[HTTP_REPLY_PIECES];
    unsigned pieces;
    size_t length; /* of the body */
};

/* An empty reply of that status. */
void http_reply_init(struct http_reply *reply, unsigned status);

/* Adds to the body. At most HTTP_REPLY_PIECES times. */
void http_reply_add(struct http_reply *reply, struct bytes piece);

/* The reason phrase of a status (RFC 9110 section 15). */
const char *http_phrase(unsigned status);

/* What the connection has to say about itself. */
enum http_connection { HTTP_CONNECTION_SILENT, HTTP_CONNECTION_CLOSE, HTTP_CONNECTION_KEEP_ALIVE };

/* Queues head and body, without the body (but with its length) in answer to HEAD, and frees what the reply owns. */
void http_reply_send(struct http_reply *reply, enum http_connection connection, bool head_only, struct output *out);

#endif
