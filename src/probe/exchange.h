/*
 * exchange: the contract of what is sent over a connection, and of how the answer to it is verified. Pure: bytes go in,
 * a verdict comes out, and who runs it sends, waits and closes.
 */
#ifndef ECHOPROBE_EXCHANGE_H
#define ECHOPROBE_EXCHANGE_H

#include "bytes.h"
#include "probe/failure.h"

#include <stdbool.h>
#include <stdint.h>

enum exchange_next {
    EXCHANGE_MORE,  /* the answer is not whole yet */
    EXCHANGE_DONE,  /* it is whole, and as it must be */
    EXCHANGE_FAILED /* the failure says why */
};

struct exchange {
    struct bytes request; /* to be sent as soon as there is a connection; stays until free() */
    bool half_close;      /* then the sending side is closed */
    bool whole;           /* the answer is whole: head and body hold it, and may be shown */
    struct bytes head;    /* HTTP: status line and fields as they came, up to the empty line; else empty */
    struct bytes body;
    unsigned status; /* HTTP, else 0 */

    /* All that came since the last call. Nothing may follow the answer: what is shown behind it makes it FAILED. */
    enum exchange_next (*input)(struct exchange *, struct bytes in, struct failure *);
    /* The server sends no more; clean is false where TLS was not ended as RFC 8446 section 6.1 has it. Never MORE. */
    enum exchange_next (*eof)(struct exchange *, bool clean, struct failure *);
    void (*free)(struct exchange *); /* the exchange itself too */
};

#endif
