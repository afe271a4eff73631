/*
 * fuzz_proxy: any bytes as the header of the PROXY protocol. However they are split the verdict is the same, and it
 * stays; a header that is accepted ends where it says; what it tells is told again when it is written anew.
 */
#include "must.h"

#include "proxy.h"

#include <arpa/inet.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* The verdict on the first len bytes, in memory that ends there. */
static enum proxy_verdict judge(const uint8_t *data, size_t len, struct proxy_header *header)
{
    char *exact = malloc(len + 1);
    must(exact != NULL);
    memcpy(exact + 1, data, len);
    enum proxy_verdict verdict = proxy_parse(exact + 1, len, header);
    free(exact);
    must((verdict == PROXY_REFUSED) == (header->reason != PROXY_SOUND));
    must((verdict == PROXY_REFUSED) == (header->sentence[0] != '\0'));
    must(header->len <= len && (header->len > 0) == (verdict == PROXY_DONE));
    must(!header->told || verdict == PROXY_DONE);
    must(verdict != PROXY_MORE || len < (len > 0 && data[0] == 'P' ? PROXY_LINE : PROXY_MAX));
    return verdict;
}

static bool same(const struct proxy_header *a, const struct proxy_header *b)
{
    return a->reason == b->reason && a->sentence == b->sentence && a->len == b->len && a->version == b->version &&
           a->told == b->told && a->local == b->local && memcmp(&a->source, &b->source, sizeof a->source) == 0 &&
           memcmp(&a->destination, &b->destination, sizeof a->destination) == 0;
}

/* Feeds what has come, first bytes and then step more each time. */
static void judge_parts(const uint8_t *data, size_t size, size_t first, size_t step, enum proxy_verdict verdict,
                        const struct proxy_header *whole)
{
    enum proxy_verdict was = PROXY_MORE;
    struct proxy_header part;
    for (size_t len = first; len < size; len += step) {
        enum proxy_verdict now = judge(data, len, &part);
        must(was == PROXY_MORE || now == was);
        must(now == PROXY_MORE || (now == verdict && same(&part, whole)));
        was = now;
    }
}

/* Writes the addresses as a line of version 1. */
static size_t write_line(const struct proxy_header *header, char line[PROXY_LINE + 64])
{
    char source[INET6_ADDRSTRLEN], destination[INET6_ADDRSTRLEN];
    bool v6 = header->source.sa.any.sa_family == AF_INET6;
    const struct address *s = &header->source, *d = &header->destination;
    must(inet_ntop(s->sa.any.sa_family, v6 ? (const void *)&s->sa.v6.sin6_addr : &s->sa.v4.sin_addr, source,
                   sizeof source) != NULL);
    must(inet_ntop(d->sa.any.sa_family, v6 ? (const void *)&d->sa.v6.sin6_addr : &d->sa.v4.sin_addr, destination,
                   sizeof destination) != NULL);
    return (size_t)snprintf(line, PROXY_LINE + 64, "PROXY TCP%d %s %s %u %u\r\n", v6 ? 6 : 4, source, destination,
                            address_port(s), address_port(d));
}

static void check_told(const struct proxy_header *header)
{
    char line[PROXY_LINE + 64];
    struct proxy_header again;
    sa_family_t family = header->source.sa.any.sa_family;
    must(header->destination.sa.any.sa_family == family && !header->local);
    if (family == AF_UNIX)
        return;
    must(family == AF_INET || family == AF_INET6);
    size_t len = write_line(header, line);
    must(judge((uint8_t *)line, len, &again) == PROXY_DONE && again.len == len && again.told);
    must(memcmp(&again.source, &header->source, sizeof again.source) == 0);
    must(memcmp(&again.destination, &header->destination, sizeof again.destination) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct proxy_header whole, end;
    if (size == 0 || size > 2 * PROXY_MAX)
        return 0;
    enum proxy_verdict verdict = judge(data, size, &whole);
    judge_parts(data, size, 0, size > 512 ? 1 + size / 256 : 1, verdict, &whole);
    judge_parts(data, size, 1 + data[size - 1] % size, 1 + data[size / 2], verdict, &whole);
    if (verdict == PROXY_DONE) {
        must(judge(data, whole.len, &end) == PROXY_DONE && same(&end, &whole));
        must(judge(data, whole.len - 1, &end) == PROXY_MORE);
    }
    if (whole.told)
        check_told(&whole);
    return 0;
}
