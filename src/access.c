#include "access.h"

#include <errno.h>
#include <event2/event.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define BUFFER_SIZE 32768

struct access {
    struct event *timer;
    int sink;
    size_t piece; /* bytes that one write may have */
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
    /* O_NONBLOCK: a FIFO that nobody reads is an error, and nothing to wait for */
    int flags = O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC | O_NOCTTY | O_NONBLOCK;
    int fd = strcmp(where, "stderr") == 0 ? fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, 3) : open(where, flags, 0640);
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

/* How much is written at once: whole lines, as many as a pipe takes in one piece, or all to a file. */
static size_t access_piece(const struct access *access, size_t done)
{
    size_t len = access->len - done;
    if (len <= access->piece)
        return len;
    const char *end = memrchr(access->buf + done, '\n', access->piece);
    return end != NULL ? (size_t)(end - (access->buf + done)) + 1 : len;
}

/* Writes what the sink takes at once. Returns how much that was, -1 with errno. */
static ssize_t access_put(const struct access *access, size_t done)
{
    struct pollfd fd = { .fd = access->sink, .events = POLLOUT };
    if (poll(&fd, 1, 0) > 0)
        return write(access->sink, access->buf + done, access_piece(access, done));
    errno = EAGAIN;
    return -1;
}

static void access_flush(struct access *access)
{
    size_t done = 0;
    int error = 0;
    if (access->len == 0)
        return; /* the buffer was written when it was full */
    while (done < access->len && error == 0) {
        ssize_t n = access_put(access, done);
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
    struct stat status;
    access->sink = sink;
    access->piece = fstat(sink, &status) == 0 && S_ISREG(status.st_mode) ? BUFFER_SIZE : PIPE_BUF;
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
