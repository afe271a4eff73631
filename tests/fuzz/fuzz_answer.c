/*
 * fuzz_answer: what echoprobe takes from strangers. Any bytes as the answers on an HTTP connection, fed whole, byte by
 * byte, and in parts of changing length: they must come to the same verdict, sentence, head, body and end. Input that
 * begins with "url:" is a URL instead: what is accepted must be fit to be sent.
 */
#include "must.h"

#include "probe/answer.h"
#include "text.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const struct answer_wish wishes[] = { { .max_size = 1 << 20 },
                                             { .status = "200,404,5xx", .expect = "x", .max_size = 20 } };

/* What a reader came to. */
struct outcome {
    struct exchange *x;
    enum exchange_next next;
    struct failure failure;
    size_t taken; /* bytes up to the end of the answer */
    bool keeps_alive;
};

/* Feeds first bytes, and then step more each time, from memory that ends there; then the end of the connection. */
static void feed(struct outcome *o, const struct answer_wish *wish, struct bytes raw, size_t first, size_t step)
{
    *o = (struct outcome){ .x = answer_new((struct bytes){ 0 }, wish, true) };
    must(o->x != NULL);
    for (size_t at = 0, len = first; at < raw.len && o->next == EXCHANGE_MORE; at += len, len = step) {
        len = len < raw.len - at ? len : raw.len - at;
        char *exact = malloc(len + 1);
        must(exact != NULL);
        memcpy(exact + 1, raw.data + at, len);
        struct bytes in = { .data = exact + 1, .len = len };
        o->next = answer_take(o->x, &in, &o->failure);
        o->taken = at + len - in.len;
        free(exact);
    }
    if (o->next == EXCHANGE_MORE)
        o->next = o->x->eof(o->x, true, &o->failure);
    o->keeps_alive = answer_keeps_alive(o->x);
}

static bool same_bytes(struct bytes a, struct bytes b)
{
    return a.len == b.len && (a.len == 0 || memcmp(a.data, b.data, a.len) == 0);
}

static void compare(const struct outcome *a, const struct outcome *b)
{
    must(a->next == b->next && a->failure.class == b->failure.class);
    must(strcmp(a->failure.text, b->failure.text) == 0);
    must(a->x->whole == b->x->whole && a->x->status == b->x->status);
    must(!a->x->whole || (a->taken == b->taken && a->keeps_alive == b->keeps_alive));
    must(same_bytes(a->x->head, b->x->head) && same_bytes(a->x->body, b->x->body));
}

static void check(const struct outcome *o, const struct answer_wish *wish, struct bytes raw)
{
    must((o->next == EXCHANGE_DONE) == (o->failure.class == FAILURE_NONE));
    must(o->next != EXCHANGE_DONE || o->x->whole);
    must(o->x->body.len <= wish->max_size && o->x->head.len <= ANSWER_HEAD);
    must(!text_has_control(o->failure.text, strlen(o->failure.text)));
    if (!o->x->whole)
        return;
    must(o->x->status >= 200 && o->x->status <= 599);
    must(o->x->head.len > 12 && memmem(raw.data, raw.len, o->x->head.data, o->x->head.len) != NULL);
}

static void fuzz_answer(struct bytes raw)
{
    const struct answer_wish *wish = &wishes[(unsigned char)raw.data[raw.len - 1] % 2];
    size_t steps[][2] = { { 1, 1 },
                          { 1 + (unsigned char)raw.data[raw.len / 2] % raw.len, 7 },
                          { 1 + (unsigned char)raw.data[0] % raw.len, raw.len } };
    struct outcome whole, parts;
    feed(&whole, wish, raw, raw.len, 1);
    check(&whole, wish, raw);
    for (size_t i = 0; i < sizeof steps / sizeof steps[0]; i++) {
        feed(&parts, wish, raw, steps[i][0], steps[i][1]);
        compare(&whole, &parts);
        parts.x->free(parts.x);
    }
    whole.x->free(whole.x);
}

static void fuzz_url(const char *url)
{
    struct target t;
    char err[256] = "";
    size_t len;
    if (target_parse(url, &t, err, sizeof err) < 0) {
        must(err[0] != '\0');
        return;
    }
    must(t.scheme == SCHEME_UNIX ? t.unix_len > 2 && t.unix_len <= sizeof t.unix_ : t.host[0] != '\0' && t.port != 0);
    must(!text_has_control(url, strlen(url)));
    char *request = answer_request(&t, &len);
    must(request != NULL && len == strlen(request));
    if (target_is_http(&t)) {
        must(t.path[0] == '/' && strpbrk(t.path, " #\r\n") == NULL && strpbrk(t.host, " /?#@\r\n") == NULL);
        must(strstr(request, "\r\n\r\n") == request + len - 4);
    }
    free(request);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0 || size > 8192)
        return 0;
    if (size >= 4 && memcmp(data, "url:", 4) == 0) {
        char *url = calloc(1, size - 4 + 1);
        must(url != NULL);
        memcpy(url, data + 4, size - 4);
        fuzz_url(url);
        free(url);
    } else {
        fuzz_answer((struct bytes){ .data = (const char *)data, .len = size });
    }
    return 0;
}
