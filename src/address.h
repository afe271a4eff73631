/* address: socket addresses from text and to text. Thread-safe, owns nothing. */
#ifndef ECHOD_ADDRESS_H
#define ECHOD_ADDRESS_H

#include <netinet/in.h>
#include <stdbool.h>
#include <stddef.h>
#include <sys/socket.h>

#define ADDRESS_TEXT 80 /* bytes that address_format() needs */

/* A connection has one, so it is small: of the address of a unix socket it holds that it is one, and no path. */
struct address {
    union {
        struct sockaddr any;
        struct sockaddr_in v4;
        struct sockaddr_in6 v6;
    } sa;
    socklen_t len;
};

/*
 * Resolves "HOST:PORT" or "[V6]:PORT" into at most max addresses. Port 0 lets the kernel choose. A name may have
 * several addresses; resolving one blocks. Returns how many, or -1 with a sentence in err.
 */
int address_parse(const char *text, struct address *list, int max, char *err, size_t errlen);

/* Writes "1.2.3.4:80", "[::1]:80" or "unix" and returns buf. */
const char *address_format(const struct address *a, char buf[ADDRESS_TEXT]);

#define ADDRESS_SOCKET_TEXT 128 /* bytes that address_of_socket() needs */

/* Writes what a socket is bound to; a unix socket is "unix:" and its path, or "unix:@" and its abstract name. */
const char *address_of_socket(int fd, char buf[ADDRESS_SOCKET_TEXT]);

/*
 * The network an address lies in: the port and all bits behind the prefix are 0. A v4-mapped address is one of IPv4, and
 * all unix sockets are one network.
 */
struct address address_network(const struct address *a, unsigned prefix_v4, unsigned prefix_v6);

/* The port, in host order. */
unsigned address_port(const struct address *a);

/* True when sockets bound to both would get in each other's way: same family and port, same host or one a wildcard. */
bool address_overlaps(const struct address *a, const struct address *b);

#endif
