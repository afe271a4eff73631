/*
 * generation: one configuration in service: its sockets, and what the connections of its listeners share. A reload makes
 * the next one beside the one that serves; an address that both have keeps its sockets. Connections go on under the
 * generation that they began with, which lives as long as they do.
 *
 * Made, planned and freed by the server's thread; read-only in between, so that any thread may read it.
 */
#ifndef ECHOD_GENERATION_H
#define ECHOD_GENERATION_H

#include "config.h"
#include "listener.h"
#include "status.h"
#include "worker.h"

#include <stdatomic.h>

/* Counts of a listener in all threads. They outlast a reload that leaves it its name and its handler. */
struct endpoint {
    char *name;
    const char *handler;
    struct admission_gate gate;
    size_t generations; /* that have it */
    size_t workers;
    struct listener_metrics *metrics[]; /* one a worker */
};

struct generation_socket {
    const struct config_address *address;
    size_t listener;                /* whose section */
    int inherited;                  /* the descriptor that was handed over, -1: none */
    char text[ADDRESS_SOCKET_TEXT]; /* what it is bound to */
    struct listener **listeners;    /* one a worker; they belong to the workers once a plan is served */
    bool fresh;                     /* not taken from the generation before */
    bool claimed;                   /* by the generation that is being made */
};

struct generation {
    struct generation *before; /* for the server, who keeps them in a list */
    struct config *config;
    atomic_size_t users; /* connections, and one more until nothing new begins under it */
    size_t workers, count, socket_count;
    struct endpoint **endpoints;     /* one a listener section, of which there are count */
    struct admission_limits *limits; /* the same */
    struct listener_terms *terms;    /* of worker 0 for each section, then of worker 1, ... */
    struct generation_socket *sockets;
    struct worker_plan **plans; /* one a worker; NULL once it is served */
};

/* What a generation is put into. */
struct generation_place {
    struct worker *const *workers;
    size_t count;
    struct admission *admission;
    const struct status *status;
    void (*taken)(void *arg);  /* called in the thread of each worker that has taken its plan */
    void (*unused)(void *arg); /* called in any thread when users has become 0 */
    void *arg;
};

/*
 * Binds what before (or nothing, if NULL) does not have, and prepares everything: what comes after cannot fail. NULL
 * with a sentence in err, which names file and line where there is one; then all is as before, and config is still the
 * caller's.
 */
struct generation *generation_new(struct config *config, struct generation *before,
                                  const struct generation_place *place, char *err, size_t errlen);

/* Gives each worker its plan. */
void generation_serve(struct generation *generation, const struct generation_place *place);

/* Frees it and its configuration. Nobody uses it any more. NULL is fine. */
void generation_free(struct generation *generation);

#endif
