/*
 * systemd: what the service manager hands over and is told, by libsystemd. Without a service manager, and in a build
 * without libsystemd, nothing is handed over and nobody told. Used by the server's thread alone.
 */
#ifndef ECHOD_SYSTEMD_H
#define ECHOD_SYSTEMD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Tells one or more lines of NAME=VALUE (sd_notify(3)). */
__attribute__((format(printf, 1, 2))) void systemd_notify(const char *format, ...);

/* True when somebody listens to what is told. */
bool systemd_is_manager(void);

/* Microseconds within which WATCHDOG=1 must be told again and again; 0: not asked for. */
uint64_t systemd_watchdog(void);

#define SYSTEMD_SOCKETS_MAX 64 /* of one name */

/*
 * Finds the listening stream sockets that were handed over under a name (FileDescriptorName=), at most
 * SYSTEMD_SOCKETS_MAX. They stay open and non-blocking for the life of the process. Returns how many, or -1 with a
 * sentence in err when there is none, or one that cannot be served.
 */
int systemd_sockets(const char *name, int *fds, char *err, size_t errlen);

/* Calls tell with the name of each socket that was handed over. */
void systemd_names(void (*tell)(void *arg, const char *name), void *arg);

#endif
