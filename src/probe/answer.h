/*
 * answer: one GET, and the reader of the answer to it (RFC 9112), on llhttp: 1xx answers are passed over; a body is
 * chunked, has a length, or ends with the connection. Head and body are bounded. Pure.
 */
#ifndef ECHOPROBE_ANSWER_H
#define ECHOPROBE_ANSWER_H

#include "probe/exchange.h"
#include "probe/target.h"

#define ANSWER_HEAD 65536 /* bytes of status line and fields, those of 1xx answers included */

/* Which answers are good. */
struct answer_wish {
    const char *status; /* as answer_status_check() takes it; NULL: 2xx and 3xx */
    const char *expect; /* part of the body; NULL: anything */
    uint64_t max_size;  /* bytes of the body */
};

/* 0 if the text is a comma list of codes and classes such as "200,3xx"; or -1. */
int answer_status_check(const char *text);

/*
 * A reader that sends the request (borrowed, and so is the wish) first. With keep the body is kept, to be shown. NULL
 * when memory ran out.
 */
struct exchange *answer_new(struct bytes request, const struct answer_wish *wish, bool keep);

/* Makes it ready for the next answer on the same connection. */
void answer_reset(struct exchange *x);

/* After the answer: whether the connection can carry another one (RFC 9112 section 9.3). */
bool answer_keeps_alive(const struct exchange *x);

/* As exchange->input, but stops behind the answer: *in is left with what follows it. */
enum exchange_next answer_take(struct exchange *x, struct bytes *in, struct failure *f);

/* The text of a GET for t. NULL when memory ran out; the caller frees it. */
char *answer_request(const struct target *t, size_t *len);

#endif
