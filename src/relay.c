#include "relay.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

/* So much is taken at once, and waits in memory for a peer that does not read. The kernel's default is half. */
#define PIPE_SIZE 131072

int relay_open(struct relay *relay)
{
    int ends[2];
    if (pipe2(ends, O_NONBLOCK | O_CLOEXEC) < 0)
        return -1;
    fcntl(ends[1], F_SETPIPE_SZ, PIPE_SIZE); /* a smaller one does as well */
    *relay = (struct relay){ .out = ends[0], .in = ends[1], .open = true };
    return 0;
}

ssize_t relay_take(struct relay *relay, int fd)
{
    if (!relay->open && relay_open(relay) < 0) {
        errno = EINVAL;
        return -1;
    }
    ssize_t n = splice(fd, NULL, relay->in, NULL, PIPE_SIZE, SPLICE_F_NONBLOCK | SPLICE_F_MOVE);
    if (n > 0)
        relay->held = (size_t)n;
    return n;
}

ssize_t relay_give(struct relay *relay, int fd)
{
    size_t had = relay->held;
    while (relay->held > 0) {
        ssize_t n = splice(relay->out, NULL, fd, NULL, relay->held, SPLICE_F_NONBLOCK | SPLICE_F_MOVE);
        if (n < 0 && relay->held == had && errno != EAGAIN && errno != EINTR && errno != ENOBUFS)
            return -1;
        if (n <= 0)
            break;
        relay->held -= (size_t)n;
    }
    return (ssize_t)(had - relay->held);
}

ssize_t relay_rest(struct relay *relay, char *buf, size_t size)
{
    ssize_t n = read(relay->out, buf, size < relay->held ? size : relay->held);
    if (n > 0)
        relay->held -= (size_t)n;
    return n;
}

void relay_close(struct relay *relay)
{
    if (relay->open) {
        close(relay->in);
        close(relay->out);
    }
    *relay = (struct relay){ .open = false };
}
