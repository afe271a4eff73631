/*
 * status: what the process tells of itself to who asks over a connection. The server fills it in; each function may be
 * called from any thread, and does not wait.
 */
#ifndef ECHOD_STATUS_H
#define ECHOD_STATUS_H

#include <stdbool.h>
#include <stdio.h>

struct status {
    void *server;                             /* the first argument of them all */
    bool (*healthy)(void *server);            /* every event loop turns */
    bool (*ready)(void *server);              /* it serves, and does not mean to stop */
    void (*metrics)(void *server, FILE *out); /* in the text format of Prometheus */
    void (*config)(void *server, FILE *out);  /* the configuration in force, as echod -T prints it */
};

#endif
