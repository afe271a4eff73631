/* proxyheader: the header that a proxy sends before all else (PROXY protocol, versions 1 and 2). Pure. */
#ifndef ECHOPROBE_PROXYHEADER_H
#define ECHOPROBE_PROXYHEADER_H

#include <stddef.h>
#include <sys/socket.h>

#define PROXYHEADER_MAX 128 /* bytes of the longest that is written here */

/*
 * Writes the header of that version (1 or 2) for a connection from source to destination, and returns its length. When
 * the two are of different families, the IPv4 one is written as IPv6 (RFC 4291 section 2.5.5.2); when either is
 * neither, the header says that the addresses are unknown (UNKNOWN, or LOCAL).
 */
size_t proxyheader_write(char out[PROXYHEADER_MAX], int version, const struct sockaddr_storage *source,
                         const struct sockaddr_storage *destination);

#endif
