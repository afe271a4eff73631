/*
 * exchange: what a connection of the load sends and must get back. To the engine an echo and a batch of HTTP requests
 * are the same.
 */
#ifndef BENCH_EXCHANGE_H
#define BENCH_EXCHANGE_H

#include <stdbool.h>
#include <stddef.h>

/* Bytes that repeat after `period`, of which `stored` are in memory; a run of them is compared or sent at once. */
struct message {
    char *data;
    size_t stored, period, size;
};

enum ending {
    ENDING_NONE,   /* the connection goes on with the next exchange */
    ENDING_CLIENT, /* the client closes its side, and the server then its own */
    ENDING_SERVER  /* the server closes behind its reply */
};

struct exchange {
    struct message request, reply;
    unsigned char *mask; /* http: 0 for bytes of the reply that may change (Date); NULL: none may */
    size_t shifts;       /* one request differs from the next by where in the message it starts; 1: they are alike */
    unsigned requests;   /* in one exchange */
    enum ending ending;
};

/* Sends `request`, and reads into text, of the given size, until `ended` says how long the whole is; returns that. */
typedef size_t exchange_ask(const char *request, char *text, size_t size, size_t (*ended)(const char *text));

/* Prepares what the workload says (see load.c), or ends the program. HTTP asks once what every reply must be. */
void exchange_prepare(struct exchange *exchange, const char *workload, unsigned port, exchange_ask *ask);

/* The bytes of a message from `at` on: *data, and how many of the `left` that are wanted lie there in one piece. */
size_t message_run(const struct message *message, size_t at, size_t left, char **data);

/* Compares bytes with what the reply is from `at` on, or ends the program; what may change and did is learnt. */
void exchange_check(const struct exchange *exchange, size_t at, const char *data, size_t size);

#endif
