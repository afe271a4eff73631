/*
 * worker: one thread with one event base, its share of every listener, and its connections. Nothing of it is shared
 * with other workers but the admission and what is read-only.
 */
#ifndef ECHOD_WORKER_H
#define ECHOD_WORKER_H

#include "conn.h"
#include "listener.h"

#include <stddef.h>

struct worker;

/* One listening socket, and what its connections have in common. */
struct worker_socket {
    int fd;
    const struct conn_settings *settings;
};

struct worker_settings {
    const struct worker_socket *sockets; /* borrowed for the call; the descriptors are taken over */
    size_t count;
    struct admission *admission;
    int access_sink;      /* -1: no access log */
    void (*done)(void *); /* called in the worker's thread when its loop has ended; */
    void *done_arg;       /* with this */
};

/* Starts the thread. NULL when the system or memory failed; the process then ends, so that some descriptors may stay open. */
struct worker *worker_start(const struct worker_settings *settings);

/* From any thread: stop accepting, let what is in flight finish, then end the loop. */
void worker_drain(struct worker *worker);

/* From any thread: end every connection and the loop now. */
void worker_abort(struct worker *worker);

/* Waits for the thread and frees the worker. 0, or -1 when its event loop had failed. */
int worker_join(struct worker *worker);

#endif
