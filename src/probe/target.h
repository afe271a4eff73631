/*
 * target: what a URL of the command line points at. Pure.
 *
 *     tcp://HOST[:PORT]           echo (RFC 862), port 7 by default
 *     tls://HOST:PORT             the same in TLS
 *     unix:PATH, unix:@NAME       the same on a Unix socket; @: in the abstract namespace
 *     http[s]://HOST[:PORT][/...]  HTTP (RFC 9110 section 4.2), port 80 or 443 by default
 */
#ifndef ECHOPROBE_TARGET_H
#define ECHOPROBE_TARGET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/un.h>

enum scheme { SCHEME_TCP, SCHEME_TLS, SCHEME_UNIX, SCHEME_HTTP, SCHEME_HTTPS };

#define TARGET_PATH 2048
#define TARGET_HOST 254 /* bytes of the longest name in DNS (RFC 1035 section 3.1), with its NUL */
#define TARGET_ZONE 16  /* bytes of the longest name of an interface, with its NUL */

struct target {
    enum scheme scheme;
    const char *url;          /* as it was given; borrowed. Printable, and well-formed UTF-8 */
    char host[TARGET_HOST];   /* name without a dot at its end, or address without brackets; "" of a Unix socket */
    char zone[TARGET_ZONE];   /* the interface of a link-local address: its name, or its number; "": none */
    bool absolute;            /* the dot was there: no search list counts (RFC 1034 section 3.1) */
    uint16_t port;            /* 0 of a Unix socket */
    bool port_is_default;     /* of the scheme */
    char path[TARGET_PATH];   /* HTTP: path and query; "/" where the URL has none */
    struct sockaddr_un unix_; /* of a Unix socket */
    size_t unix_len;          /* its length, for connect() */
};

/* Parses url, which must stay. 0, or -1 with a sentence in err that does not name the URL. */
int target_parse(const char *url, struct target *t, char *err, size_t errlen);

static inline bool target_is_http(const struct target *t)
{
    return t->scheme == SCHEME_HTTP || t->scheme == SCHEME_HTTPS;
}

static inline bool target_is_tls(const struct target *t)
{
    return t->scheme == SCHEME_TLS || t->scheme == SCHEME_HTTPS;
}

#endif
