/* server: the process. Binds, starts the workers, and sees to signals, drain and stop. One in a process. */
#ifndef ECHOD_SERVER_H
#define ECHOD_SERVER_H

#include "config.h"

/* Lets SIGTERM and SIGINT wait until server_run() takes them: a stop while it still starts is a clean one. */
void server_block_signals(void);

/* Serves until a signal stops it, from the calling thread. 0 after a clean stop, -1 after a failure that was logged. */
int server_run(const struct config *config);

#endif
