/*
 * probe: one probe of one target: dial, TLS, exchange; its phases timed, its end absolute. Runs on one event loop.
 */
#ifndef ECHOPROBE_PROBE_H
#define ECHOPROBE_PROBE_H

#include "probe/dial.h"
#include "probe/exchange.h"
#include "probe/failure.h"
#include "probe/target.h"
#include "probe/tlsclient.h"

#include <stdint.h>

struct probe;

/* What all probes of a program share. */
struct probe_settings {
    struct dialer *dialer;
    struct ssl_ctx_st *tls; /* NULL: no target needs it */
    struct tlsclient_settings tls_settings;
    int64_t timeout;         /* ns for all of a probe */
    int64_t connect_timeout; /* ns of these for resolve, connect and TLS together */
};

#define PHASE_NEVER (-1) /* of a phase that was not reached, or is none */

/* What came of it. Phases are nanoseconds that each took. */
struct probe_result {
    struct failure failure;
    int64_t resolve, connect, tls; /* until there was an address, a connection, a handshake */
    int64_t first;                 /* from then to the first byte of the answer */
    int64_t total;                 /* from begin to end, also of a failure */
    const struct exchange *answer; /* for the call only; NULL when there is no connection */
};

/*
 * Starts a probe, which owns the exchange from now on. t and settings must stay. done is called from the loop, once,
 * never from within, and the probe is gone then. NULL when memory ran out; the exchange is gone too.
 */
struct probe *probe_start(const struct probe_settings *settings, const struct target *t, struct exchange *exchange,
                          void (*done)(void *arg, const struct probe_result *), void *arg);

/* Stops without a call of done; only before it was called. NULL is fine. */
void probe_cancel(struct probe *p);

#endif
