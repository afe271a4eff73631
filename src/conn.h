/*
 * conn: live connections. Reads the PROXY header and speaks TLS where these are wanted, runs the handler, carries out its
 * verdicts, and owns deadlines, backpressure, half-close and the only exit. A pool is what the connections of one worker
 * share; everything runs in that worker's thread.
 */
#ifndef ECHOD_CONN_H
#define ECHOD_CONN_H

#include "address.h"
#include "bytes.h"
#include "deadline.h"
#include "handler.h"
#include "metrics.h"
#include "relay.h"
#include "tls.h"

#include <stddef.h>
#include <stdint.h>

struct connection;
struct event_base;

/* Why a connection ended; the words are in the log, in the metrics and in the manual. */
enum conn_reason {
    CONN_FIN,      /* the peer closed in order, and so did we */
    CONN_FINISHED, /* the handler closed in order */
    CONN_RESET,    /* the peer reset it, or vanished */
    CONN_CUT,      /* the peer closed without the end that TLS needs, or in the middle of a handshake or header */
    CONN_PROXY,    /* its PROXY header is wrong */
    CONN_TLS,      /* what came is not what TLS allows, or the handshake failed */
    CONN_REFUSED,  /* whom the proxy told has too many connections */
    CONN_IDLE,     /* no byte moved for idle_timeout */
    CONN_DEADLINE, /* another time limit passed */
    CONN_LIMIT,    /* the handler left more unread than is kept */
    CONN_DRAIN,    /* cut at the end of a drain */
    CONN_ABORT,    /* the handler gave it up */
    CONN_ERROR,    /* memory or the system failed */
    CONN_REASONS   /* how many there are */
};

extern const char *const conn_reason_words[CONN_REASONS];

/* Counts of the connections of one listener in one thread, and of what went over them. */
struct conn_metrics {
    counter opened, closed[CONN_REASONS];
    counter silent; /* closed without a byte from the peer, but for a PROXY header */
    counter bytes_in, bytes_out;
    struct histogram duration;
    struct requests requests;
};

/* What all connections of one listener in one thread have in common. Outlives them. */
struct conn_settings {
    struct conn_context context;
    const struct handler *handler;
    void *shared;               /* the handler's */
    uint64_t idle_timeout;      /* milliseconds without a byte in either direction */
    const struct tls *tls;      /* NULL: none is spoken */
    bool proxy;                 /* a PROXY header comes first */
    uint64_t handshake_timeout; /* milliseconds for both, from the accept on */
    struct conn_metrics *metrics;
    /* Whom a PROXY header told. False: it is refused. ticket may be set anew. */
    bool (*told)(const struct conn_settings *settings, const struct address *told, int64_t now, void **ticket);
    void (*ended)(const struct conn_settings *settings,
                  void *ticket); /* after each connection of conn_open() is gone */
};

struct conn_pool {
    struct event_base *base;
    struct deadlines idle, timeout;
    struct output output; /* of the hook that runs */
    char *input;          /* what was received */
    char *plain;          /* what records said; NULL before the first TLS connection, like */
    struct output wire;   /* the records to send */
    struct relay relay;
    struct connection *first;
    size_t count;
    bool draining; /* new connections too */
    bool drained;  /* conn_pool_drain() has told those that were open */
};

/* 0, or -1 when memory ran out. */
int conn_pool_init(struct conn_pool *pool, struct event_base *base);

/* The server is about to stop: whatever the handlers answer from now on, on any connection, is the last. */
void conn_pool_announce(struct conn_pool *pool);

/* Tells every connection that the server stops. */
void conn_pool_drain(struct conn_pool *pool);

/* Ends every connection now. */
void conn_pool_abort(struct conn_pool *pool);

/* No connection may be left. */
void conn_pool_free(struct conn_pool *pool);

/*
 * Takes over a connected, non-blocking socket that was accepted at the time now; ticket is handed back to ended(). False
 * when memory ran out: then nothing was taken over.
 */
bool conn_open(struct conn_pool *pool, const struct conn_settings *settings, int fd, const struct address *peer,
               int64_t now, void *ticket);

#endif
