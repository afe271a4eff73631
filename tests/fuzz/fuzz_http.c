/*
 * fuzz_http: any bytes on an HTTP connection, through session, parser, routes and llhttp. Fed whole, byte by byte, and
 * in parts of changing length, they must come to the same output, verdict and time limit; and nothing may follow an
 * answer that closes.
 */
#include "must.h"

#include <stdio.h>
#include <stdlib.h>

/* What tests/unit/feed.h takes from Check */
#define ck_assert(condition) must(condition)
#define ck_assert_msg(condition, ...)     \
    do {                                  \
        if (!(condition)) {               \
            fprintf(stderr, __VA_ARGS__); \
            abort();                      \
        }                                 \
    } while (0)

#include "handlers/handlers.h"

#include "../unit/feed.h"

#include <stdint.h>

#define INPUT_MAX 4096

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* The handler with its settings; with tight limits, inputs that are short reach all of them. */
static void *greeting_with(const char *const (*settings)[2])
{
    void *filled = calloc(1, greeting_handler.settings_size), *shared;
    char err[256];
    must(filled != NULL);
    for (const struct option_row *row = greeting_handler.options; row->name != NULL; row++)
        must(option_parse(row, row->fallback, filled, err, sizeof err) == 0);
    for (; (*settings)[0] != NULL; settings++)
        must(option_parse(option_find(greeting_handler.options, (*settings)[0]), (*settings)[1], filled, err,
                          sizeof err) == 0);
    must(greeting_handler.start(filled, &shared, err, sizeof err) == 0);
    return shared;
}

/* An answer with "Connection: close" is the last, and then only the connection ends. */
static void check_end(const struct feed *f)
{
    const char *close = memmem(f->out, f->len, "\r\nConnection: close\r\n", 21);
    must((close != NULL) == (f->verdict == HANDLER_FINISH));
    must(close == NULL || memmem(close, f->len - (size_t)(close - f->out), "\r\nDate: ", 8) == NULL);
}

static void feed_parts(struct feed *f, void *shared, struct bytes raw, size_t first, size_t step)
{
    size_t cuts[INPUT_MAX], count = 0;
    for (size_t at = first; at > 0 && at < raw.len; at += step)
        cuts[count++] = at;
    feed_run(f, &greeting_handler, shared, raw, cuts, count, feed_nothing);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char *const defaults[][2] = { { NULL, NULL } };
    static const char *const tight[][2] = { { "max_target", "64" },  { "max_header_size", "256" },
                                            { "max_headers", "4" },  { "max_body", "32" },
                                            { "max_requests", "6" }, { NULL, NULL } };
    static void *shared[2];
    static struct feed whole, parts;
    if (shared[0] == NULL) {
        shared[0] = greeting_with(defaults);
        shared[1] = greeting_with(tight);
    }
    if (size == 0 || size > INPUT_MAX)
        return 0;
    /* the bytes decide, so that a finding can be replayed */
    void *one = shared[data[size - 1] % 2];
    struct bytes raw = { .data = (const char *)data, .len = size };
    feed_parts(&whole, one, raw, 0, 1);
    check_end(&whole);
    const size_t steps[][2] = { { 1, 1 }, { 1 + data[size / 2] % size, 7 }, { 1 + data[0] % size, size } };
    for (size_t i = 0; i < sizeof steps / sizeof steps[0]; i++) {
        feed_parts(&parts, one, raw, steps[i][0], steps[i][1]);
        feed_compare(&whole, &parts, raw, steps[i][0]);
    }
    return 0;
}
