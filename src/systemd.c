#include "systemd.h"

#include <stdio.h>

#ifdef HAVE_LIBSYSTEMD

#include <fcntl.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <systemd/sd-daemon.h>

/* What was handed over, in the order of the descriptors from SD_LISTEN_FDS_START on. */
static struct {
    char **names;
    int count; /* -1: could not be read */
    bool read;
} handed;

void systemd_notify(const char *format, ...)
{
    char state[1024];
    va_list args;
    va_start(args, format);
    vsnprintf(state, sizeof state, format, args);
    va_end(args);
    sd_notify(0, state);
}

bool systemd_is_manager(void)
{
    return getenv("NOTIFY_SOCKET") != NULL; /* which nobody sets: NOLINT(concurrency-mt-unsafe) */
}

uint64_t systemd_watchdog(void)
{
    uint64_t microseconds = 0;
    return sd_watchdog_enabled(0, &microseconds) > 0 ? microseconds : 0;
}

static void read_handed(void)
{
    if (handed.read)
        return;
    handed.read = true;
    handed.count = sd_listen_fds_with_names(0, &handed.names);
}

/* A descriptor that can be accepted from. */
static bool make_ready(int fd)
{
    int flags = fcntl(fd, F_GETFL);
    return sd_is_socket(fd, AF_UNSPEC, SOCK_STREAM, 1) > 0 && flags >= 0 && fcntl(fd, F_SETFL, flags | O_NONBLOCK) == 0;
}

int systemd_sockets(const char *name, int *fds, char *err, size_t errlen)
{
    int found = 0;
    read_handed();
    for (int i = 0; i < handed.count; i++) {
        if (strcmp(handed.names[i], name) != 0)
            continue;
        if (found == SYSTEMD_SOCKETS_MAX || !make_ready(SD_LISTEN_FDS_START + i)) {
            snprintf(err, errlen, "%s \"%s\"",
                     found == SYSTEMD_SOCKETS_MAX ? "too many sockets are named"
                                                  : "what is handed over is no listening stream socket:",
                     name);
            return -1;
        }
        fds[found++] = SD_LISTEN_FDS_START + i;
    }
    if (found == 0)
        snprintf(err, errlen, "the service manager has handed over no socket named \"%s\"", name);
    return found > 0 ? found : -1;
}

void systemd_names(void (*tell)(void *arg, const char *name), void *arg)
{
    read_handed();
    for (int i = 0; i < handed.count; i++)
        tell(arg, handed.names[i]);
}

#else

void systemd_notify(const char *format, ...)
{
    (void)format;
}

bool systemd_is_manager(void)
{
    return false;
}

uint64_t systemd_watchdog(void)
{
    return 0;
}

int systemd_sockets(const char *name, int *fds, char *err, size_t errlen)
{
    (void)fds;
    snprintf(err, errlen, "\"%s\" cannot be handed over: echod was built without libsystemd", name);
    return -1;
}

void systemd_names(void (*tell)(void *arg, const char *name), void *arg)
{
    (void)tell;
    (void)arg;
}

#endif
