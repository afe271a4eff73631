/*
 * server: the process. Starts the workers, puts the configuration into service, and sees to signals, reload, drain and
 * stop, and to what the service manager is told. One in a process.
 */
#ifndef ECHOD_SERVER_H
#define ECHOD_SERVER_H

#include "loader.h"

/* Lets the signals that the server takes wait until server_run(): a stop while it still starts is a clean one. */
void server_block_signals(void);

/*
 * Serves, from the calling thread, until a signal stops it. config is taken over; load is called for each reload, in
 * another thread. 0 after a clean stop, -1 after a failure that was logged.
 */
int server_run(struct config *config, config_loader *load, void *load_arg);

#endif
