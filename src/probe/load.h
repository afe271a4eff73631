/*
 * load: as many requests as one target answers, or as many as a rate says, over a number of connections for a time;
 * every byte of every answer is verified. At a rate a latency counts from when the request was to be sent, not from
 * when it could be: a server that stands still so delays all that should have been sent meanwhile, instead of hiding
 * it. What is not answered within the time limit, which counts from the same moment, is lost. A connection is given
 * up only when the server had a request for that long.
 *
 * One event loop; times are nanoseconds.
 */
#ifndef ECHOPROBE_LOAD_H
#define ECHOPROBE_LOAD_H

#include "probe/answer.h"
#include "probe/probe.h"
#include "probe/summary.h"

#include <stdint.h>

struct load;

/* What all loads of a program share. */
struct load_settings {
    struct probe_settings probe; /* timeout: of each request */
    struct answer_wish wish;     /* HTTP */
    uint64_t connections;
    uint64_t pipeline; /* requests under way on one connection */
    uint64_t size;     /* bytes of an echo */
    uint64_t rate;     /* requests a second; 0: each connection sends one when it has the answer to the one before */
    int64_t duration;
    /* About once a second. */
    void (*progress)(void *arg, const struct summary *s);
    void (*ended)(void *arg);
    void *arg;
};

/* Starts one; the summary is initialized, and like the settings must stay. NULL when memory ran out. */
struct load *load_start(const struct load_settings *settings, struct summary *summary);

/* Ends it early: sends nothing more, but still waits for the answers that are under way. */
void load_stop(struct load *l);

/* NULL is fine. */
void load_free(struct load *l);

#endif
