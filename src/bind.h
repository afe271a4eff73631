/*
 * bind: listening sockets: where they are bound, what their connections inherit, and the paths of unix sockets. All are
 * non-blocking and closed on exec. Used by the server's thread but where it says so.
 */
#ifndef ECHOD_BIND_H
#define ECHOD_BIND_H

#include "address.h"

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

struct bind_options {
    const char *interface; /* connections come in over this one alone; empty: over any */
    bool freebind;         /* the address need not be one of this machine yet */
    unsigned keepalive;    /* seconds without a byte after which the kernel asks whether the peer is there; 0: never */
    unsigned defer_accept; /* seconds that a connection may wait for its first byte before it is accepted; 0: none */
    unsigned fastopen;     /* connections that may wait with their first bytes in the SYN; 0: off */
    mode_t mode;           /* of the path of a unix socket, */
    uid_t owner;           /* its owner */
    gid_t group;           /* and group; -1: as it comes */
};

/*
 * Makes count listening sockets on one address, among which the kernel spreads the connections (SO_REUSEPORT). An
 * address on which another process listens is refused all the same. 0 and the descriptors, or -1 with errno.
 */
int bind_listen(const struct address *address, const struct bind_options *options, int *fds, size_t count);

/* The path of a unix socket, and which file was made there. */
struct bind_path {
    char path[108]; /* empty: none, or an abstract name */
    dev_t device;
    ino_t inode;
};

/* Sets the options that may change while a socket listens, all but the first two. 0, or -1 with errno. */
int bind_tune(int fd, const struct bind_path *made, const struct bind_options *options);

/*
 * Makes a unix socket at a path, or with an abstract name (@NAME), and count descriptors of it. A socket there on which
 * nobody listens is replaced; any other file, and one on which somebody does, is not. 0, or -1 with errno.
 */
int bind_listen_unix(const char *path, const struct bind_options *options, int *fds, size_t count,
                     struct bind_path *made);

/* True unless somebody has removed the path, or put another file there. From any thread. */
bool bind_stands(const struct bind_path *made);

/* Removes a path if it is still the socket that was made there. From any thread. */
void bind_unlink(const struct bind_path *made);

#endif
