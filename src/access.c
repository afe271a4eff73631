#include "access.h"

#include <errno.h>
#include <event2/event.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define BUFFER_SIZE 32768

struct access {
    struct event *timer;
    int sink;
    bool torn;    /* the sink ends with a part of a line */
    bool failing; /* the last batch was lost: told once */
    size_t len, lines;
    uint64_t dropped;
    char buf[BUFFER_SIZE];
};

int access_sink_open(const char *where)
{
    if (strcmp(where, "off") == 0)
        return -1;
    int fd = strcmp(where, "stderr") == 0 ? fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, 3)
                                          : open(where, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC | O_NOCTTY, 0640);
    return fd >= 0 ? fd : -2;
}

/* The lines of the first `done` bytes are safe; the next batch begins a line. */
static void access_lost(struct access *access, size_t done, int error)
{
    for (size_t i = 0; i < done; i++)
        access->lines -= access->buf[i] == '\n';
    access->torn = done > 0 ? access->buf[done - 1] != '\n' : access->torn;
    access->dropped += access->lines;
    if (!access->failing)
        log_event(LEVEL_WARNING, "access log lost", log_number("lines", access->lines), log_errno(error));
    access->failing = true;
}

static void access_flush(struct access *access)
{
    size_t done = 0;
    int error = 0;
    if (access->len == 0)
        return; /* the buffer was written when it was full */
    while (done < access->len && error == 0) {
        ssize_t n = write(access->sink, access->buf + done, access->len - done);
        if (n >= 0)
            done += (size_t)n;
        else if (errno != EINTR)
            error = errno;
    }
    if (error != 0) {
        access_lost(access, done, error);
    } else if (access->failing) {
        log_event(LEVEL_NOTICE, "access log works again", log_number("dropped", access->dropped));
        access->failing = false;
        access->dropped = 0;
    }
    access->len = access->lines = 0;
}

static void access_timer(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    access_flush(arg);
}

struct access *access_new(struct event_base *base, int sink)
{
    struct access *access = calloc(1, sizeof *access);
    if (access == NULL)
        return NULL;
    access->sink = sink;
    access->timer = evtimer_new(base, access_timer, access);
    if (access->timer == NULL) {
        free(access);
        return NULL;
    }
    return access;
}

void access_write(struct access *access, const struct log_field *fields)
{
    static const struct timeval moment = { .tv_usec = 200000 };
    if (access == NULL)
        return;
    if (access->len == 0)
        evtimer_add(access->timer, &moment);
    if (access->len == 0 && access->torn) {
        access->buf[access->len++] = '\n';
        access->torn = false;
    }
    access->len += log_render(access->buf + access->len, "access", "request", fields);
    access->lines++;
    if (access->len > BUFFER_SIZE - LOG_LINE)
        access_flush(access);
}

void access_free(struct access *access)
{
    if (access == NULL)
        return;
    access_flush(access);
    if (access->failing)
        log_event(LEVEL_WARNING, "access log lost", log_number("dropped", access->dropped));
    event_free(access->timer);
    free(access);
}
