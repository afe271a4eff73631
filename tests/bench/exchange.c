#include "exchange.h"

#include "load.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    SHIFTS = 251,            /* echo */
    PERIOD = 1048573,        /* echo: a prime, so that what a server loses or doubles is hardly a multiple of it */
    OVERLAP = 256 * 1024,    /* what is stored beyond a period, so that runs are never short */
    MAX_REQUESTS = 1024,     /* http, in one exchange */
    MAX_REPLY = 8192,        /* http, one */
    MAX_MESSAGE = 1024 << 20 /* echo */
};

/* A pattern that repeats nowhere in itself: xorshift32 (Marsaglia, "Xorshift RNGs", 2003). */
static void message_fill(struct message *message)
{
    uint32_t x = 2463534242u;
    size_t i;

    for (i = 0; i < message->stored; i++) {
        if (i >= message->period) {
            message->data[i] = message->data[i - message->period];
            continue;
        }
        x ^= x << 13;
        x ^= x >> 17;
        x ^= x << 5;
        message->data[i] = (char)(x >> 24);
    }
}

static void prepare_echo(struct exchange *exchange, size_t size)
{
    struct message *message = &exchange->request;

    message->size = size;
    message->period = PERIOD;
    message->stored = size + SHIFTS < PERIOD + OVERLAP ? size + SHIFTS : PERIOD + OVERLAP;
    message->data = allocate(message->stored);
    message_fill(message);
    exchange->reply = *message;
    exchange->requests = 1;
    exchange->shifts = SHIFTS;
}

/* A message of `count` times the same. */
static struct message repeat(const char *text, size_t size, unsigned count)
{
    struct message message = { .size = count * size, .stored = count * size, .period = SIZE_MAX };
    unsigned i;

    message.data = allocate(message.size);
    for (i = 0; i < count; i++)
        memcpy(message.data + i * size, text, size);
    return message;
}

/* Size of the reply that `text` begins with, or 0 while its head is not complete. */
static size_t find_reply_size(const char *text)
{
    const char *end = strstr(text, "\r\n\r\n"), *length = strcasestr(text, "\r\nContent-Length:");

    if (end == NULL)
        return 0;
    if (strncmp(text, "HTTP/1.1 200 ", 13) != 0 || length == NULL || length > end)
        fail("not a 200 with Content-Length: %s", text);
    return (size_t)(end + 4 - text) + strtoul(length + 17, NULL, 10);
}

static void prepare_http(struct exchange *exchange, unsigned requests, unsigned port, exchange_ask *ask)
{
    static char request[128], text[MAX_REPLY + 1];
    const char *date;
    size_t i, size;

    snprintf(request, sizeof request, "GET /world HTTP/1.1\r\nHost: 127.0.0.1:%u\r\n%s\r\n", port,
             exchange->ending == ENDING_SERVER ? "Connection: close\r\n" : "");
    size = ask(request, text, MAX_REPLY, find_reply_size);
    if (memcmp(text + size - 12, "Hello, world", 12) != 0)
        fail("not a greeting: %s", text);
    exchange->request = repeat(request, strlen(request), requests);
    exchange->reply = repeat(text, size, requests);
    exchange->requests = requests;
    exchange->shifts = 1;
    exchange->mask = allocate(exchange->reply.size);
    memset(exchange->mask, 1, exchange->reply.size);
    date = strcasestr(text, "\r\nDate:");
    for (i = 0; date != NULL && i < requests; i++)
        memset(exchange->mask + i * size + (date + 7 - text), 0, strcspn(date + 7, "\r"));
}

void exchange_prepare(struct exchange *exchange, const char *workload, unsigned port, exchange_ask *ask)
{
    if (strncmp(workload, "close:", 6) == 0)
        exchange->ending = ENDING_CLIENT;
    else if (strcmp(workload, "once") == 0)
        exchange->ending = ENDING_SERVER;
    if (strncmp(workload, "echo:", 5) == 0 || exchange->ending == ENDING_CLIENT)
        prepare_echo(exchange, parse_number(strchr(workload, ':') + 1, MAX_MESSAGE));
    else if (strcmp(workload, "http") == 0 || exchange->ending == ENDING_SERVER)
        prepare_http(exchange, 1, port, ask);
    else if (strncmp(workload, "http:", 5) == 0)
        prepare_http(exchange, (unsigned)parse_number(workload + 5, MAX_REQUESTS), port, ask);
    else
        fail("unknown workload: %s", workload);
}

size_t message_run(const struct message *message, size_t at, size_t left, char **data)
{
    size_t offset = at % message->period, run = message->stored - offset;

    *data = message->data + offset;
    return run < left ? run : left;
}

static void check_run(const struct exchange *exchange, size_t at, char *wanted, const char *data, size_t size)
{
    size_t i;

    if (memcmp(wanted, data, size) == 0)
        return;
    for (i = 0; i < size; i++)
        if (data[i] != wanted[i] && (exchange->mask == NULL || exchange->mask[at + i] != 0))
            fail("wrong byte %zu in a reply: 0x%02x instead of 0x%02x", at + i, (unsigned char)data[i],
                 (unsigned char)wanted[i]);
    memcpy(wanted, data, size);
}

void exchange_check(const struct exchange *exchange, size_t at, const char *data, size_t size)
{
    size_t run;
    char *wanted;

    for (; size > 0; at += run, data += run, size -= run) {
        run = message_run(&exchange->reply, at, size, &wanted);
        check_run(exchange, at, wanted, data, run);
    }
}
