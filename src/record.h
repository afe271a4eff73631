/*
 * record: TLS on one connection (RFC 8446, RFC 5246), as a transformation: what came on the wire becomes what it says,
 * what is to be said becomes what goes on the wire. No sockets, no events, no waiting: records are read from memory,
 * and written to a list of output, which always has room.
 *
 * Used by one thread. An idle connection holds what OpenSSL keeps of it, some 13 KiB, and no buffer.
 */
#ifndef ECHOD_RECORD_H
#define ECHOD_RECORD_H

#include "bytes.h"
#include "tls.h"

#include <stdbool.h>
#include <stddef.h>

/* What one record holds at most (RFC 8446 section 5.1): so much may come out of what was read before. */
#define RECORD_MAX 16384

struct record;

enum record_verdict {
    RECORD_MORE,   /* all of it was read */
    RECORD_CLOSED, /* the peer says no more, in order: close_notify (RFC 8446 section 6.1) */
    RECORD_FAILED /* what came is not what should: record_reason() knows why, and the wire list has the alert, if any */
};

/* The server's side of a connection; nothing of tls need stay. NULL when memory ran out. */
struct record *record_open(const struct tls *tls);

/* NULL is fine. */
void record_free(struct record *record);

/* True once the handshake is done. */
bool record_ready(const struct record *record);

/*
 * Reads all that came. What it says is put to plain, which has room for in.len + RECORD_MAX bytes, and its length to
 * *len, whatever the verdict; what must be answered, as in a handshake, is appended to wire. A flood of KeyUpdate fails.
 */
enum record_verdict record_read(struct record *record, struct bytes in, char *plain, size_t *len, struct output *wire);

/* Why the last call failed: right after it, in the same thread. Returns buf. */
const char *record_reason(const struct record *record, char buf[TLS_REASON]);

/* Appends the bytes of a list to wire, encrypted, in as few records as can be. False when that failed. */
bool record_write(struct record *record, const struct output *plain, struct output *wire);

/* Appends close_notify, after which nothing can be written; nothing when there was no handshake. */
void record_close(struct record *record, struct output *wire);

#endif
