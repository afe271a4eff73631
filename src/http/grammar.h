/*
 * http/grammar: what RFC 9110, 9112 and 3986 allow where, on bytes. Pure; owns nothing, and all that it returns is
 * borrowed from what it is given.
 */
#ifndef ECHOD_HTTP_GRAMMAR_H
#define ECHOD_HTTP_GRAMMAR_H

#include "bytes.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <strings.h>

enum grammar_set {
    IN_TOKEN = 1,  /* tchar, RFC 9110 section 5.6.2 */
    IN_TARGET = 2, /* what RFC 3986 allows anywhere in a URI but a fragment */
    IN_VALUE = 4,  /* field-vchar, SP, HTAB: RFC 9110 section 5.5 */
    IN_HOST = 8,   /* reg-name, RFC 3986 section 3.2.2 */
    IN_PATH = 16   /* path and query, RFC 3986 sections 3.3 and 3.4, but for escapes */
};

/* The sets that each byte is in. */
extern const unsigned char grammar_sets[256];

/* The first position from i on that is not in the set, at most end. */
static inline size_t grammar_span(const unsigned char *p, size_t i, size_t end, unsigned set)
{
    while (i < end && (grammar_sets[p[i]] & set) != 0)
        i++;
    return i;
}

/* True when the bytes are this word, in any case. */
static inline bool grammar_is(struct bytes b, const char *word)
{
    return b.len == strlen(word) && strncasecmp(b.data, word, b.len) == 0;
}

/* The bytes without white space at either end. */
struct bytes grammar_trim(struct bytes b);

/* Takes the next element off a comma list, trimmed; false when the list is used up. An empty list has one that is empty. */
bool grammar_list_next(struct bytes *list, struct bytes *element);

/* 1*DIGIT (RFC 9110 section 8.6), within 63 bits. */
bool grammar_length(struct bytes value, uint64_t *length);

/* uri-host [ ":" port ] (RFC 9110 section 7.2). *host_len and *port take the lengths of host and port. */
bool grammar_host(struct bytes host, size_t *host_len, struct bytes *port);

/* The four forms of RFC 9112 section 3.2. Leaves path and query in *uri; len 0 when the form has none. */
bool grammar_target(struct bytes method, struct bytes target, struct bytes *uri);

/* Takes one byte off the line if it is this one. */
bool grammar_take(struct bytes *line, char byte);

/*
 * chunk-size [ chunk-ext ] (RFC 9112 section 7.1), without CRLF. False at the first byte that cannot stand where it does,
 * or with the line used up when it might go on.
 */
bool grammar_chunk_line(struct bytes *line, uint64_t *size);

#endif
