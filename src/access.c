#include "access.h"

#include "metrics.h"

#include <errno.h>
#include <event2/event.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define BUFFER_SIZE 32768

struct access {
    struct event *timer;
    int sink;     /* -1: none */
    bool regular; /* the sink is a file; else it may be a pipe */
    bool journal;
    bool torn;    /* the sink ends with a part of a line */
    bool failing; /* the last batch was lost: told once */
    size_t len, lines;
    uint64_t dropped; /* in this episode */
    counter lost;     /* ever */
    char buf[BUFFER_SIZE];
};

int access_sink_open(const char *where)
{
    if (strcmp(where, "off") == 0)
        return -1;
    /* O_NONBLOCK: a FIFO that nobody reads is an error, and nothing to wait for */
    int flags = O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC | O_NOCTTY | O_NONBLOCK;
    int fd = strcmp(where, "stderr") == 0 ? fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, 3) : open(where, flags, 0640);
    return fd >= 0 ? fd : -2;
}

/* The lines of the first `done` bytes are safe; the next batch begins a line. */
static void access_lose(struct access *access, size_t done, int error)
{
    for (size_t i = access->torn ? 1 : 0; i < done; i++) /* the first ends the torn line */
        access->lines -= access->buf[i] == '\n';
    access->torn = done > 0 ? access->buf[done - 1] != '\n' : access->torn;
    access->dropped += access->lines;
    counter_add(&access->lost, access->lines);
    if (!access->failing)
        log_event(LEVEL_WARNING, "access log lost", log_number("lines", access->lines), log_errno(error));
    access->failing = true;
}

/* Writes what a file takes, or as many whole lines as a pipe takes in one piece. How much that was, or -1 with errno. */
static ssize_t access_put(const struct access *access, const char *data, size_t len)
{
    if (access->regular)
        return write(access->sink, data, len);
    const char *end = len > PIPE_BUF ? memrchr(data, '\n', PIPE_BUF) : NULL;
    return log_put(access->sink, data, end != NULL ? (size_t)(end - data) + 1 : len);
}

static void access_flush(struct access *access)
{
    size_t done = 0;
    int error = 0;
    if (access->len == 0)
        return; /* the buffer was written when it was full */
    while (done < access->len && error == 0) {
        ssize_t n = access_put(access, access->buf + done, access->len - done);
        if (n >= 0)
            done += (size_t)n;
        else if (errno != EINTR)
            error = errno;
    }
    if (error != 0)
        access_lose(access, done, error);
    else
        access->torn = false;
    if (error == 0 && access->failing) {
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

struct access *access_new(struct event_base *base)
{
    struct access *access = calloc(1, sizeof *access);
    if (access == NULL)
        return NULL;
    access->sink = -1;
    access->timer = evtimer_new(base, access_timer, access);
    if (access->timer == NULL) {
        free(access);
        return NULL;
    }
    return access;
}

/* What the end of a sink leaves to be said and done. */
static void access_close(struct access *access)
{
    access_flush(access);
    if (access->failing)
        log_event(LEVEL_WARNING, "access log lost", log_number("dropped", access->dropped));
    if (access->sink >= 0)
        close(access->sink);
    access->failing = access->torn = false;
    access->dropped = 0;
}

void access_turn(struct access *access, int sink)
{
    struct stat status;
    access_close(access);
    access->sink = sink;
    access->regular = fstat(sink, &status) == 0 && S_ISREG(status.st_mode);
    access->journal = log_is_journal(sink);
}

bool access_is_on(const struct access *access)
{
    return access != NULL && access->sink >= 0;
}

uint64_t access_lost(const struct access *access)
{
    return counter_read(&access->lost);
}

void access_write(struct access *access, const struct log_field *fields)
{
    static const struct timeval moment = { .tv_usec = 200000 };
    if (!access_is_on(access))
        return;
    if (access->len == 0)
        evtimer_add(access->timer, &moment);
    if (access->len == 0 && access->torn)
        access->buf[access->len++] = '\n';
    access->len +=
        log_render(access->buf + access->len, (struct log_sink){ "access", '6', access->journal }, "request", fields);
    access->lines++;
    if (access->len > BUFFER_SIZE - LOG_LINE)
        access_flush(access);
}

void access_free(struct access *access)
{
    if (access == NULL)
        return;
    access_close(access);
    event_free(access->timer);
    free(access);
}
