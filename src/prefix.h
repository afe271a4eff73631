/*
 * prefix: which peers a list of addresses and prefixes names, such as "127.0.0.0/8, ::1, unix". Pure, owns nothing.
 *
 * An IPv4 address that came over an IPv6 socket (::ffff:1.2.3.4, RFC 4291 section 2.5.5.2) is one of IPv4 here,
 * in the list as well as of a peer, so ::/0 is all of IPv6 and none of IPv4.
 */
#ifndef ECHOD_PREFIX_H
#define ECHOD_PREFIX_H

#include "address.h"

#include <stdbool.h>
#include <stddef.h>

struct prefix {
    sa_family_t family; /* AF_INET, AF_INET6, or AF_UNIX: every peer on a unix socket */
    unsigned bits;
    unsigned char host[sizeof(struct in6_addr)];
};

/*
 * Reads a list with commas of at most max items: an address, ADDRESS/BITS with no bit set behind so many, or "unix".
 * Names are not resolved, and an empty list names nobody. Returns how many, or -1 with a sentence in err.
 */
int prefix_parse(const char *text, struct prefix *list, int max, char *err, size_t errlen);

/* True when one of the list holds the address; its port does not matter. */
bool prefix_match(const struct prefix *list, int count, const struct address *a);

#endif
