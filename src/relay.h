/*
 * relay: sends back to a socket what came from it, through a pipe: the kernel then hands pages on and copies nothing
 * (splice(2)). It pays for bulk; for less, two more system calls cost more than a copy.
 *
 * One a thread. Between two turns the pipe is empty.
 */
#ifndef ECHOD_RELAY_H
#define ECHOD_RELAY_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

struct relay {
    int in, out; /* the ends of the pipe */
    bool open;
    size_t held; /* bytes in the pipe */
};

/* Opens the pipe of a relay that is zeroed or closed. 0, or -1 with errno. */
int relay_open(struct relay *relay);

/*
 * Takes what the socket has, as much as the pipe holds; opens it if it is closed. How much that is, or -1 with errno;
 * EINVAL when this cannot be done here. 0 when nothing can be taken so: at the end of the stream, but where urgent data
 * stands in front of it, too.
 */
ssize_t relay_take(struct relay *relay, int fd);

/* Gives the socket what it has room for. How much that was, or, if it was nothing, -1 with errno when it is broken. */
ssize_t relay_give(struct relay *relay, int fd);

/* Takes out what the socket had no room for, at most size bytes. How much that was, or -1 with errno. */
ssize_t relay_rest(struct relay *relay, char *buf, size_t size);

/* Closes the pipe, whatever it holds. */
void relay_close(struct relay *relay);

#endif
