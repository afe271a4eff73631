/*
 * proxy: the header of the PROXY protocol, versions 1 and 2. "Section" means one of haproxy's proxy-protocol.txt
 * (2020/03/05). Pure: it looks at the bytes received so far and keeps nothing.
 *
 * The verdict depends on the bytes alone, not on how they were split. What is wrong is refused as soon as it is seen,
 * as section 2.1 advises, for the sender then notices: a byte where it cannot stand, a field when its end has come, a
 * length when it is read. Nothing is guessed: where a header is required, all else is refused.
 */
#ifndef ECHOD_PROXY_H
#define ECHOD_PROXY_H

#include "address.h"

#include <stdbool.h>
#include <stddef.h>

#define PROXY_LINE  107                /* bytes of the longest line of version 1, CRLF included (section 2.1) */
#define PROXY_BLOCK 4096               /* bytes that may follow the first 16 of version 2; a sender has few hundred */
#define PROXY_MAX   (16 + PROXY_BLOCK) /* bytes of the longest header */

enum proxy_verdict {
    PROXY_MORE,   /* sound so far */
    PROXY_DONE,   /* complete, and accepted */
    PROXY_REFUSED /* to be aborted; more bytes would not change that */
};

enum proxy_reason {
    PROXY_SOUND,
    PROXY_SIGNATURE, /* neither version begins so (section 2.2) */
    PROXY_SYNTAX,    /* not the line of section 2.1 */
    PROXY_ADDRESS,   /* an address that is none of its family */
    PROXY_PORT,      /* a port that is none */
    PROXY_LENGTH,    /* over PROXY_LINE or PROXY_BLOCK, or too short for the addresses */
    PROXY_VERSION,   /* another number in the version field */
    PROXY_COMMAND,   /* neither LOCAL nor PROXY */
    PROXY_FAMILY,    /* a family or transport that is not specified */
    PROXY_TLV,       /* one that does not fit, or a checksum that is not 4 bytes, or is there twice */
    PROXY_CHECKSUM,  /* it is another (section 2.2.3) */
    PROXY_REASONS    /* how many there are */
};

/* The words for the reasons, in logs and metrics. */
extern const char *const proxy_reason_words[PROXY_REASONS];

struct proxy_header {
    enum proxy_reason reason;
    const char *sentence; /* what is wrong, or empty; static */

    /* Of an accepted one: */
    size_t len;                         /* bytes of the header; what follows them is the connection's own */
    unsigned char version;              /* 1 or 2 */
    bool local;                         /* the proxy connected on its own behalf, mostly for a health check */
    bool told;                          /* addresses are told; if not, those of the socket hold */
    struct address source, destination; /* who connected, and where to; of a unix socket the family alone */
};

/*
 * Judges the first len bytes of a connection, which may go on behind the header; at most PROXY_MAX are looked at. For
 * LOCAL, UNKNOWN, UNSPEC and DGRAM no addresses are told.
 */
enum proxy_verdict proxy_parse(const void *data, size_t len, struct proxy_header *header);

#endif
