#include "probe/echo.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

struct echo {
    struct exchange exchange;
    const char *expect;
    size_t got;
};

/* The first byte that differs. */
static size_t first_difference(const char *a, const char *b)
{
    size_t i = 0;
    while (a[i] == b[i])
        i++;
    return i;
}

static enum exchange_next echo_complete(struct echo *e, struct failure *f)
{
    struct bytes sent = e->exchange.request;
    e->exchange.whole = true;
    e->exchange.body = sent;
    if (e->expect == NULL || memmem(sent.data, sent.len, e->expect, strlen(e->expect)) != NULL)
        return EXCHANGE_DONE;
    failure_set(f, FAILURE_MISMATCH, "the answer does not hold what --expect says");
    return EXCHANGE_FAILED;
}

static enum exchange_next echo_input(struct exchange *x, struct bytes in, struct failure *f)
{
    struct echo *e = (struct echo *)x;
    size_t left = x->request.len - e->got, len = in.len < left ? in.len : left;
    const char *want = x->request.data + e->got;
    if (len > 0 && memcmp(want, in.data, len) != 0) {
        size_t i = first_difference(want, in.data);
        failure_set(f, FAILURE_MISMATCH, "byte %zu of the echo is 0x%02x, not 0x%02x", e->got + i + 1,
                    (unsigned char)in.data[i], (unsigned char)want[i]);
        return EXCHANGE_FAILED;
    }
    if (in.len > left) {
        failure_set(f, FAILURE_MISMATCH, "more came back than the %zu bytes that were sent", x->request.len);
        return EXCHANGE_FAILED;
    }
    e->got += len;
    return e->got < x->request.len || x->half_close ? EXCHANGE_MORE : echo_complete(e, f);
}

/* That the end is not clean matters only where bytes could have been cut off. */
static enum exchange_next echo_eof(struct exchange *x, bool clean, struct failure *f)
{
    struct echo *e = (struct echo *)x;
    (void)clean;
    if (e->got == x->request.len)
        return echo_complete(e, f);
    failure_set(f, FAILURE_SHORT, "the connection ended after %zu of %zu bytes", e->got, x->request.len);
    return EXCHANGE_FAILED;
}

static void echo_free(struct exchange *x)
{
    free(x);
}

struct exchange *echo_new(struct bytes message, bool half_close, const char *expect)
{
    struct echo *e = calloc(1, sizeof *e);
    if (e == NULL)
        return NULL;
    e->exchange = (struct exchange){ .request = message, .half_close = half_close };
    e->exchange.input = echo_input;
    e->exchange.eof = echo_eof;
    e->exchange.free = echo_free;
    e->expect = expect;
    return &e->exchange;
}

char *echo_nonce(uint64_t seq, size_t size, size_t *len)
{
    uint64_t random[ECHO_LINE / sizeof(uint64_t)];
    char head[64];
    if (getrandom(random, sizeof random, 0) != sizeof random)
        return NULL;
    size_t n = (size_t)snprintf(head, sizeof head, "echoprobe %" PRIu64 " %016" PRIx64 "\n", seq, random[0]);
    *len = size > 0 ? size : n;
    char *nonce = malloc(*len);
    bool line = *len >= ECHO_LINE;
    /* a long one repeats what it begins with; of a short one the random end matters most */
    const char *from = line ? head + (*len < n ? n - *len : 0) : (const char *)random;
    for (size_t i = 0; nonce != NULL && i < *len; i++)
        nonce[i] = from[i % n];
    if (nonce != NULL && line)
        nonce[*len - 1] = '\n';
    return nonce;
}
