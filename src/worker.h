/*
 * worker: one thread with one event base, its share of every listener, and its connections. Nothing of it is shared
 * with other workers but the admission and what is read-only.
 *
 * The server's thread calls everything here; the worker's thread does what it is told when its loop comes round.
 */
#ifndef ECHOD_WORKER_H
#define ECHOD_WORKER_H

#include "listener.h"
#include "metrics.h"

#include <stddef.h>
#include <stdint.h>

struct worker;

#define WORKER_BEAT 1000 /* ms from one sign of life to the next */

struct worker_socket {
    struct listener *listener; /* new ones are taken over */
    const struct listener_terms *terms;
};

/* All that a worker is to serve from now on. */
struct worker_plan {
    void (*taken)(
        void *arg); /* called in the worker's thread when nothing of the plan before is used for new connections */
    void *arg;
    size_t count;
    struct worker_socket sockets[];
};

/* What happens in one thread and belongs to no listener. */
struct worker_metrics {
    struct histogram lag; /* how late the loop comes round to what is due */
};

/* Starts the thread, which calls ended(arg) when its loop has ended. NULL when the system or memory failed. */
struct worker *worker_start(void (*ended)(void *arg), void *arg);

/* Where lines of the access log go. Valid as long as the worker. */
struct access *worker_access(struct worker *worker);

const struct worker_metrics *worker_metrics(const struct worker *worker);

/* CLOCK_MONOTONIC nanoseconds of the last sign of life; INT64_MAX: the loop has ended. */
int64_t worker_beat(const struct worker *worker);

/*
 * Serves the plan, allocated with malloc and taken over: starts what is new in it, sets the terms of what it keeps, and
 * closes in order what it has no more. The plan before must have been taken.
 */
void worker_serve(struct worker *worker, struct worker_plan *plan);

/* Turns the access log to another sink, which is taken over; -1: off. */
void worker_turn_access(struct worker *worker, int sink);

/* Stops accepting, lets what is in flight finish, then ends the loop. */
void worker_drain(struct worker *worker);

/* Ends every connection and the loop now. */
void worker_abort(struct worker *worker);

/* Waits for the thread and frees the worker. 0, or -1 when its event loop had failed. */
int worker_join(struct worker *worker);

#endif
