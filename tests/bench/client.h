/*
 * client: the connections of the load, and the two ways to drive them.
 *
 * Closed loop: a connection sends its next request when it has the whole reply to the one before. Open loop: requests
 * are due at a fixed rate whatever the server does; each goes out on a connection that is free, and its time runs from
 * when it was due, so that a server that stalls is charged for all that should have been asked meanwhile.
 */
#ifndef BENCH_CLIENT_H
#define BENCH_CLIENT_H

#include "histogram.h"

#include <netinet/in.h>
#include <stdbool.h>
#include <stdint.h>

struct client_settings {
    struct sockaddr_in server;
    const char *workload;
    unsigned count;  /* connections */
    unsigned active; /* of them that take part in rounds */
    unsigned proxy;  /* version of the PROXY header that a connection begins with; 0: none */
    bool tls;
    bool resume;
};

struct round {
    int64_t length;     /* nanoseconds, or */
    uint64_t exchanges; /* of each connection, if not 0 */
    double rate;        /* exchanges a second, open loop; 0: closed loop */

    uint64_t done, bytes;       /* requests answered, and the bytes of their replies */
    uint64_t missed;            /* open loop: requests that were due, and still found no connection a round later */
    int64_t elapsed;            /* nanoseconds */
    int64_t stall;              /* open loop: nanoseconds that the load's longest turn took beyond its work */
    struct histogram latencies; /* open loop: nanoseconds */
};

/* Opens the connections; those of a workload with a connection for each exchange are opened by the exchange. */
void clients_open(const struct client_settings *wanted);

/* Runs one round. */
void clients_run(struct round *round);

#endif
