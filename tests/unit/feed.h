/*
 * feed: drives a handler as the core does, without sockets. What the handler leaves unread is shown again in front of
 * what comes next, and at once when the output was full. Each call of input() gets memory of its own that ends with the
 * last byte shown and is freed afterwards: a sanitizer sees who reads further, or keeps a pointer.
 */
#ifndef ECHOD_FEED_H
#define ECHOD_FEED_H

#include "handler.h"
#include "metrics.h"

#ifndef ck_assert /* tests/fuzz has its own */
#include <check.h>
#endif
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Check writes to a pipe for each assertion, also for one that holds; and here some are made for each byte. */
#define feed_must(condition)      \
    do {                          \
        if (!(condition))         \
            ck_assert(condition); \
    } while (0)

#define FEED_OUT    (1 << 21) /* bytes of output that are kept */
#define FEED_UNREAD 65535     /* bytes that a handler may leave unread */

#define BYTES(literal) ((struct bytes){ .data = "" literal, .len = sizeof(literal) - 1 })

/* Date lines are masked with this, so that outputs of two seconds compare equal. */
#define DATE_MASK "Date: -----------------------------\r\n"

/* Compares text that is long, and says both when it fails. */
#define ck_assert_said(said, expected)                                                                        \
    do {                                                                                                      \
        const char *said_ = (said);                                                                           \
        ck_assert_msg(strcmp(said_, (expected)) == 0, "%.1500s\n-- instead of:\n%.1500s", said_, (expected)); \
    } while (0)

/* One connection. What it came to stays readable after feed_close(). */
struct feed {
    const struct handler *handler;
    void *state;
    struct conn conn;
    struct conn_context context;
    struct requests requests;
    struct output output;
    enum handler_next verdict;
    uint64_t timeout; /* what the handler asked for last */
    char *unread;
    size_t unread_len;
    size_t len; /* bytes in out */
    char out[FEED_OUT];
};

/* Takes what a hook has put out and how it decided. Nothing of an abort is sent. */
static inline void feed_act(struct feed *f, enum handler_next verdict)
{
    feed_must(!f->output.failed);
    for (int i = 0; i < f->output.count && verdict != HANDLER_ABORT; i++) {
        feed_must(f->len + f->output.vec[i].iov_len < sizeof f->out);
        memcpy(f->out + f->len, f->output.vec[i].iov_base, f->output.vec[i].iov_len);
        f->len += f->output.vec[i].iov_len;
    }
    f->out[f->len] = '\0';
    output_reset(&f->output);
    if (f->conn.timeout_set)
        f->timeout = f->conn.timeout;
    f->conn.timeout_set = false;
    f->verdict = verdict;
}

static inline void feed_open(struct feed *f, const struct handler *handler, void *shared)
{
    memset(f, 0, offsetof(struct feed, out));
    f->handler = handler;
    f->state = calloc(1, handler->state_size + 1);
    f->context = (struct conn_context){ .listener = "test", .requests = &f->requests };
    f->conn = (struct conn){ .context = &f->context, .now = 1 };
    feed_must(f->state != NULL);
    feed_must(output_init(&f->output) == 0);
    feed_act(f, handler->open != NULL ? handler->open(&f->conn, f->state, shared, &f->output) : HANDLER_MORE);
}

/* Bytes come; without any, what is unread is shown once more, as it is when output went out. */
static inline void feed_input(struct feed *f, const char *data, size_t len)
{
    struct bytes in = { .len = f->unread_len + len };
    if (f->verdict != HANDLER_MORE || in.len == 0)
        return;
    char *shown = malloc(in.len);
    feed_must(shown != NULL);
    memcpy(shown, f->unread_len > 0 ? f->unread : "", f->unread_len);
    memcpy(shown + f->unread_len, len > 0 ? data : "", len);
    in.data = shown;
    for (bool again = true; again;) {
        enum handler_next verdict = f->handler->input(&f->conn, f->state, &in, &f->output);
        again = verdict == HANDLER_MORE && output_full(&f->output) && in.len > 0;
        feed_act(f, verdict);
    }
    feed_must(in.data + in.len == shown + f->unread_len + len);
    free(f->unread);
    f->unread_len = f->verdict == HANDLER_MORE ? in.len : 0;
    feed_must(f->unread_len <= FEED_UNREAD);
    f->unread = malloc(f->unread_len + 1);
    feed_must(f->unread != NULL);
    memcpy(f->unread, in.data, f->unread_len);
    free(shown);
}

/* Endings: what happens behind the last byte. */
typedef void feed_ending(struct feed *f);

static inline void feed_nothing(struct feed *f)
{
    (void)f;
}

static inline void feed_eof(struct feed *f)
{
    const struct handler *handler = f->handler;
    if (f->verdict == HANDLER_MORE)
        feed_act(f, handler->eof != NULL ? handler->eof(&f->conn, f->state, &f->output) : HANDLER_FINISH);
}

static inline void feed_expire(struct feed *f)
{
    const struct handler *handler = f->handler;
    if (f->verdict == HANDLER_MORE)
        feed_act(f, handler->expire != NULL ? handler->expire(&f->conn, f->state, &f->output) : HANDLER_ABORT);
}

static inline void feed_drain(struct feed *f)
{
    const struct handler *handler = f->handler;
    f->conn.draining = true;
    if (f->verdict == HANDLER_MORE)
        feed_act(f, handler->drain != NULL ? handler->drain(&f->conn, f->state, &f->output) : HANDLER_FINISH);
}

/* Masks the dates in the output. */
static inline void feed_mask(struct feed *f)
{
    static const char line[] = "\r\n" DATE_MASK;
    for (char *p = f->out; (p = memmem(p, f->len - (size_t)(p - f->out), "\r\nDate: ", 8)) != NULL; p += 8)
        if (f->len - (size_t)(p - f->out) >= sizeof line - 1 && memcmp(p + 34, "GMT\r\n", 5) == 0)
            memcpy(p, line, sizeof line - 1);
}

/* Answers that were counted; each has left one duration. */
static inline uint64_t feed_answers(const struct feed *f)
{
    uint64_t answers = 0, durations = 0;
    for (size_t i = 0; i < REQUEST_STATUSES; i++)
        answers += counter_read(&f->requests.answered[i].count);
    for (size_t i = 0; i <= HISTOGRAM_BOUNDS; i++)
        durations += counter_read(&f->requests.duration.buckets[i]);
    feed_must(answers == durations);
    return answers;
}

static inline void feed_close(struct feed *f)
{
    feed_answers(f);
    if (f->handler->close != NULL)
        f->handler->close(f->state);
    output_free(&f->output);
    free(f->state);
    free(f->unread);
    f->unread = NULL;
    feed_mask(f);
}

/* One connection from its first byte to its end, the input cut before each byte whose number is in cuts. */
static inline void feed_run(struct feed *f, const struct handler *handler, void *shared, struct bytes raw,
                            const size_t *cuts, size_t count, feed_ending *ending)
{
    size_t at = 0;
    feed_open(f, handler, shared);
    for (size_t i = 0; i < count; at = cuts[i++]) {
        feed_input(f, raw.data + at, cuts[i] - at);
        feed_input(f, NULL, 0);
    }
    feed_input(f, raw.data + at, raw.len - at);
    ending(f);
    feed_close(f);
}

static inline void feed_compare(const struct feed *whole, const struct feed *f, struct bytes raw, size_t cut)
{
    bool same = feed_answers(f) == feed_answers(whole) && f->len == whole->len &&
                memcmp(f->out, whole->out, f->len) == 0 && f->verdict == whole->verdict &&
                f->unread_len == whole->unread_len && (f->verdict != HANDLER_MORE || f->timeout == whole->timeout);
    if (!same)
        ck_assert_msg(
            same,
            "cut before byte %zu (0: before each) of:\n%.*s\n-- whole, verdict %d, timeout %d, unread %zu:\n%s\n"
            "-- cut, verdict %d, timeout %d, unread %zu:\n%s",
            cut, (int)raw.len, raw.data, whole->verdict, (int)whole->timeout, whole->unread_len, whole->out, f->verdict,
            (int)f->timeout, f->unread_len, f->out);
}

/*
 * Feeds raw whole; byte by byte; and, unless it is long, in two parts at every position. All must come to the same:
 * output, verdict, time limit, bytes left unread. *whole is what it came to.
 */
static inline void feed_every_way(struct feed *whole, const struct handler *handler, void *shared, struct bytes raw,
                                  feed_ending *ending)
{
    static struct feed f;
    size_t *cuts = calloc(raw.len + 1, sizeof *cuts);
    feed_must(cuts != NULL);
    feed_run(whole, handler, shared, raw, NULL, 0, ending);
    for (size_t i = 1; i < raw.len; i++)
        cuts[i - 1] = i;
    feed_run(&f, handler, shared, raw, cuts, raw.len > 0 ? raw.len - 1 : 0, ending);
    feed_compare(whole, &f, raw, 0);
    for (size_t cut = 1; cut < raw.len && raw.len <= 4096; cut++) {
        feed_run(&f, handler, shared, raw, &cut, 1, ending);
        feed_compare(whole, &f, raw, cut);
    }
    free(cuts);
}

#endif
