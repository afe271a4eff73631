/*
 * admission: who may come in. Counts what is open in the server, at each listener and from each address, and how fast
 * connections come; refuses what is over a limit. Every function may be called from any thread.
 */
#ifndef ECHOD_ADMISSION_H
#define ECHOD_ADMISSION_H

#include "address.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Places beyond the server's own limits for handlers that operate it: they tell what fills it. */
#define ADMISSION_SPARE 32

/* Why a connection is refused; the words are in the log, in the metrics and in the manual. */
enum refusal {
    REFUSED_CONNECTIONS, /* max_connections of the server */
    REFUSED_LISTENER,    /* max_connections of the listener */
    REFUSED_ADDRESS,     /* max_connections_per_address */
    REFUSED_RATE,        /* accept_rate of the listener */
    REFUSED_UNTRUSTED,   /* who sends PROXY headers must be one of proxy_trusted */
    REFUSED_MEMORY,      /* there is none left */
    REFUSALS             /* how many there are; not refused */
};

extern const char *const refusal_words[REFUSALS];

/* The limits at one listener, the server's own among them; read-only. 0: unlimited. */
struct admission_limits {
    uint64_t connections;
    uint64_t listener_connections;
    uint64_t address_connections;
    unsigned prefix_v4, prefix_v6; /* what counts as one address */
    uint64_t rate;                 /* connections a second */
    bool operates;                 /* may use the spare places */
};

/* What all listeners admit together. */
struct admission {
    atomic_size_t open, spare; /* spare: beside those that are open */
    atomic_int starved;        /* listeners that wait for descriptors or memory */
    pthread_mutex_t lock;      /* of the addresses */
    void *addresses;           /* a tree of those that are counted */
};

/* What one listener has admitted; zeroed at first. */
struct admission_gate {
    atomic_size_t open;
    _Atomic int64_t rate_due;               /* when the next connection would come if all came evenly */
    _Atomic int64_t refused_last[REFUSALS]; /* CLOCK_MONOTONIC nanoseconds; 0: never */
};

/* What an admitted connection has to give back. */
struct admission_address;

void admission_init(struct admission *admission);

/*
 * Takes a place for a connection from peer at the gate of a listener, at the time now (CLOCK_MONOTONIC nanoseconds).
 * REFUSALS, with *address to give back with the place (NULL where addresses are not counted), or why there is none.
 * peer NULL: it is not known yet.
 */
enum refusal admission_take(struct admission *admission, struct admission_gate *gate,
                            const struct admission_limits *limits, const struct address *peer, int64_t now,
                            struct admission_address **address);

/* Counts the address of a connection that has its place already, which may become a spare one. As above. */
enum refusal admission_take_address(struct admission *admission, const struct admission_limits *limits,
                                    const struct address *peer, struct admission_address **address);

/* Gives a place back. */
void admission_release(struct admission *admission, struct admission_gate *gate, struct admission_address *address);

/* True when this refusal begins an episode: there was none at the gate for this reason for a while. */
bool admission_tells(struct admission_gate *gate, enum refusal refusal, int64_t now);

/* No place may be taken any more. */
void admission_destroy(struct admission *admission);

#endif
