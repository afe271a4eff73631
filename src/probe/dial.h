/*
 * dial: from a target to a connected socket: resolves the name (evdns), tries its addresses one after the other, and
 * sends the PROXY header. Asynchronous, on one event loop, and never longer than to an absolute deadline.
 */
#ifndef ECHOPROBE_DIAL_H
#define ECHOPROBE_DIAL_H

#include "probe/failure.h"
#include "probe/target.h"

#include <stdint.h>
#include <sys/socket.h>

struct event_base;
struct evdns_base;
struct dial;

/* What all dials of a program share. */
struct dialer {
    struct event_base *base;
    struct evdns_base *dns[2];      /* for names, and for absolute ones; NULL until there is one */
    unsigned lookups;               /* that it has not told the end of */
    int proxy_version;              /* of the header to be sent; 0: none */
    struct sockaddr_storage source; /* that it tells; family 0: the socket's own */
};

/* Where a connection goes to. */
struct place {
    struct sockaddr_storage address;
    socklen_t len;
};

/* How it went. Times are deadline_now()'s nanoseconds. */
struct dialled {
    int fd;             /* connected, non-blocking, the taker's to close; -1: the failure says why */
    struct place place; /* the one connected to, or tried last */
    int64_t resolved;   /* when there was an address; 0: never */
    int64_t connected;  /* 0: never */
};

/*
 * Begins to dial t (which must stay), or the place where it is known already. done is called from the loop, once, never
 * from within. NULL when memory ran out.
 */
struct dial *dial_start(struct dialer *dialer, const struct target *t, const struct place *known, int64_t deadline,
                        void (*done)(void *arg, const struct dialled *, const struct failure *), void *arg);

/* Stops without a call of done; only before it was called. NULL is fine. */
void dial_cancel(struct dial *d);

/* Frees what the dialer holds, once no dial is left. Runs the loop. */
void dialer_free(struct dialer *dialer);

#endif
