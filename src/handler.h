/*
 * handler: the contract between the core and what speaks on a connection.
 *
 * Bytes and decisions move in one direction: the core gives a handler bytes and a place to put its answer, the handler
 * returns a verdict, the core carries it out. A handler never reads, writes, waits, closes, or frees what it did not
 * allocate. All hooks of one connection run in the thread of its worker; `shared` is seen by several threads at once
 * and is read-only between start and stop.
 */
#ifndef ECHOD_HANDLER_H
#define ECHOD_HANDLER_H

#include "address.h"
#include "bytes.h"
#include "option.h"

#include <stdbool.h>
#include <stdint.h>

struct access;
struct requests;
struct status;

enum handler_next {
    HANDLER_MORE,   /* stay open; call input() when bytes come */
    HANDLER_FINISH, /* send all of the output, then close in order */
    HANDLER_ABORT   /* close now; unsent output is lost */
};

/* What the connections of one listener in one thread have around them. */
struct conn_context {
    const char *listener;        /* the name of its section */
    struct access *access;       /* where requests are logged; NULL: nowhere */
    struct requests *requests;   /* where they are counted */
    const struct status *status; /* of the process */
};

/* A connection as its handler sees it. */
struct conn {
    struct address peer; /* the other end of the socket */
    struct address told; /* whom a proxy there speaks for, by its PROXY header; len 0: it told nobody */
    const struct conn_context *context;
    int64_t now;      /* CLOCK_MONOTONIC nanoseconds, when the hook was called */
    bool draining;    /* the server stops: finish with the answer in flight */
    bool timeout_set; /* set by conn_timeout(), taken by the core */
    uint64_t timeout;
};

/* Asks for expire() in so many milliseconds from now, instead of any earlier wish; 0: never. */
static inline void conn_timeout(struct conn *conn, uint64_t milliseconds)
{
    conn->timeout = milliseconds;
    conn->timeout_set = true;
}

struct handler {
    const char *name; /* as the INI file writes it */

    const struct option_row *options; /* keys that a section naming this handler may hold; NULL: none */
    size_t settings_size;             /* the struct filled from them */
    size_t state_size;                /* zeroed bytes a connection */
    const char *alpn;                 /* what is agreed on over TLS (RFC 7301); NULL: nothing */
    bool operates;                    /* it must answer when the server is full: see ADMISSION_SPARE */
    bool reflects; /* input() returns every byte as it came, and nothing else: the core may do so without calling it */

    /* Once a listener section, before anything is served. 0 and *shared, or -1 and a sentence in err. */
    int (*start)(const void *settings, void **shared, char *err, size_t errlen);
    /* No connection is left. */
    void (*stop)(void *shared);

    /* One connection: open, input*, then at most one eof, at any time expire or drain, last close. Hooks that are NULL
     * do what is said beside them. */

    /* Ready to speak. MORE. */
    enum handler_next (*open)(struct conn *conn, void *state, void *shared, struct output *out);
    /* Bytes are there; required. What is left unread is shown again, in front of what comes next; at once after the
     * output went out if the handler stopped because of output_full(). At most 64 KiB may stay unread. */
    enum handler_next (*input)(struct conn *conn, void *state, struct bytes *in, struct output *out);
    /* The peer sends no more, and input() has had every byte. FINISH. */
    enum handler_next (*eof)(struct conn *conn, void *state, struct output *out);
    /* The time asked for by conn_timeout() is over. ABORT. */
    enum handler_next (*expire)(struct conn *conn, void *state, struct output *out);
    /* The server stops; conn->draining has been true for a moment. FINISH. */
    enum handler_next (*drain)(struct conn *conn, void *state, struct output *out);
    /* Exactly once after open, to free what the handler allocated for this connection. Nothing. */
    void (*close)(void *state);
};

/* The handler of that name in a list ended by NULL, or NULL. */
const struct handler *handler_find(const struct handler *const *list, const char *name);

#endif
