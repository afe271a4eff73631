/* listener: accept. Sockets are wrapped by the server's thread, then owned by one worker. */
#ifndef ECHOD_LISTENER_H
#define ECHOD_LISTENER_H

#include "address.h"
#include "admission.h"
#include "bind.h"
#include "conn.h"
#include "metrics.h"
#include "prefix.h"

#include <stdbool.h>

struct listener;

/* What one listener section counts in one thread. */
struct listener_metrics {
    struct conn_metrics conn;
    counter refused[REFUSALS];
};

/* What the connections accepted on a socket get, in one thread. Outlives them. */
struct listener_terms {
    struct conn_settings conn;    /* first; its ended is listener_ended(), its told listener_told() */
    const struct prefix *trusted; /* who may send a PROXY header */
    int trusted_count;
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

/* Counts the address that a PROXY header told. False, and told, when it has too many connections. */
bool listener_told(const struct conn_settings *settings, const struct address *told, int64_t now, void **ticket);

/*
 * Wraps a listening socket, which it takes over. inherited: somebody else holds it too, and goes on listening when we
 * do not. path, unless NULL, is removed with it. NULL, fd closed, when memory ran out.
 */
struct listener *listener_new(int fd, bool inherited, const struct bind_path *path);

/* Sets the options that may change while it listens. 0, or -1 with errno. */
int listener_tune(const struct listener *listener, const struct bind_options *options);

/* True unless it has a path which somebody removed, so that no client finds it. */
bool listener_stands(const struct listener *listener);

/*
 * Starts to accept, in the thread of the pool; where the kernel lacks memory for it, as soon as it has some. 0, or -1
 * when libevent failed.
 */
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
