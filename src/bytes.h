/*
 * bytes: what a handler reads from and writes to. Pure: no sockets, no events.
 *
 * A handler takes its input from a cursor over contiguous memory and queues its output on a gather list. Both belong
 * to the caller and are used by one thread.
 */
#ifndef ECHOD_BYTES_H
#define ECHOD_BYTES_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/uio.h>

/* A cursor over bytes that somebody else owns. */
struct bytes {
    const char *data;
    size_t len;
};

/* Moves the cursor over n bytes; n is at most b->len. */
static inline void bytes_skip(struct bytes *b, size_t n)
{
    b->data += n;
    b->len -= n;
}

#define OUTPUT_VECTORS 16
#define OUTPUT_ENOUGH  32768 /* bytes from which a handler should stop and let the output go out */

struct output_block;

/* A list of bytes to send, in order. */
struct output {
    struct iovec vec[OUTPUT_VECTORS];
    int count;
    size_t len;                 /* bytes queued */
    bool failed;                /* memory ran out; stays so until the reset */
    struct output_block *first; /* kept from reset to reset */
    struct output_block *last;  /* where copies go */
};

/* Makes an empty list. 0, or -1 when memory ran out. */
int output_init(struct output *out);

/* Queues a copy of the bytes. When memory runs out, out->failed is set and nothing more is queued. */
void output_copy(struct output *out, const void *data, size_t len);

/* Room to write at most len bytes in place; NULL when memory ran out. output_commit() queues those that were written. */
char *output_reserve(struct output *out, size_t len);
void output_commit(struct output *out, size_t len);

/* Queues the bytes themselves: they must stay valid until the handler's call has returned. */
void output_borrow(struct output *out, const void *data, size_t len);

/* True when so much is queued that a handler should leave its remaining input unread for now. */
static inline bool output_full(const struct output *out)
{
    return out->len >= OUTPUT_ENOUGH;
}

/* Empties the list; memory for the next copies stays. */
void output_reset(struct output *out);

/* Frees what the list holds. */
void output_free(struct output *out);

#endif
