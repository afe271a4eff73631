/*
 * listener: listening sockets, and accept. Sockets are bound and wrapped by the server's thread, then owned by one worker.
 */
#ifndef ECHOD_LISTENER_H
#define ECHOD_LISTENER_H

#include "address.h"
#include "admission.h"
#include "conn.h"
#include "metrics.h"

#include <stdbool.h>

struct listener;

/* What one listener section counts in one thread. */
struct listener_metrics {
    struct conn_metrics conn;
    counter refused[REFUSALS];
};

/* What the connections accepted on a socket get, in one thread. Outlives them. */
struct listener_terms {
    struct conn_settings conn; /* first; its ended is listener_ended() */
    const struct admission_limits *limits;
    struct admission *admission;
    struct admission_gate *gate;
    struct listener_metrics *metrics;
    atomic_size_t *users;      /* one more for each open connection */
    void (*unused)(void *arg); /* called when *users has become 0 */
    void *unused_arg;
};

/* Gives back the place of a connection that is gone, by its struct listener_terms. */
void listener_ended(const struct conn_settings *settings, void *ticket);

/*
 * Makes count listening sockets on one address, among which the kernel spreads the connections (SO_REUSEPORT). An
 * address on which another process listens is refused all the same. 0 and the descriptors, or -1 with errno.
 */
int listener_bind(const struct address *address, int *fds, size_t count);

/*
 * Wraps a listening socket, which it takes over. inherited: somebody else holds it too, and goes on listening when we
 * do not. NULL, fd closed, when memory ran out.
 */
struct listener *listener_new(int fd, bool inherited);

/* Starts to accept, in the thread of the pool. 0, or -1 when the system failed. */
int listener_start(struct listener *listener, struct conn_pool *pool, const struct listener_terms *terms);

/* What is accepted from now on gets other terms. */
void listener_set(struct listener *listener, const struct listener_terms *terms);

/*
 * Lets no new connection begin; those that have begun are still accepted. True when it is worth waiting for them before
 * listener_close(), for a client whose connection is established while the socket is closed would be reset.
 */
bool listener_mute(struct listener *listener);

/* Opens the connections that wait in the backlog, unless somebody else will, closes the socket and frees. NULL is fine. */
void listener_close(struct listener *listener);

#endif
