/* handlers: the handlers that are built in. A new one is one file beside this and one line here and in main.c. */
#ifndef ECHOD_HANDLERS_H
#define ECHOD_HANDLERS_H

#include "handler.h"

extern const struct handler admin_handler;    /* HTTP: health, readiness, metrics, configuration */
extern const struct handler echo_handler;     /* sends back what comes (RFC 862) */
extern const struct handler greeting_handler; /* HTTP: greets by name */

#endif
