/*
 * listener: listening sockets, accept, and admission. Bound by the server's thread, then owned by one worker.
 */
#ifndef ECHOD_LISTENER_H
#define ECHOD_LISTENER_H

#include "address.h"
#include "conn.h"

#include <stdatomic.h>
#include <stdbool.h>

struct listener;

/* What all listeners of the process admit together. */
struct admission {
    size_t max_connections;
    atomic_size_t open;
    atomic_int starved;           /* listeners that wait for descriptors or memory */
    _Atomic int64_t last_refusal; /* CLOCK_MONOTONIC nanoseconds */
};

/* Gives a slot back; a conn_settings.ended with the admission as its argument. */
void admission_release(void *admission);

/*
 * Makes count listening sockets on one address, among which the kernel spreads the connections (SO_REUSEPORT). An
 * address on which another process listens is refused all the same. *bound is the address they really have (port 0
 * becomes the kernel's choice). 0 and the descriptors, or -1 with errno.
 */
int listener_bind(const struct address *address, int *fds, size_t count, struct address *bound);

/* Starts to accept on fd, which it takes over. Everything it is given outlives it. NULL, fd closed, when memory ran out. */
struct listener *listener_start(struct conn_pool *pool, int fd, const struct conn_settings *settings,
                                struct admission *admission);

/* Opens the connections that wait in the backlog, so that none is reset, and closes the socket. NULL is fine. */
void listener_close(struct listener *listener);

#endif
