/* echo: sends a message and has every byte of it come back (RFC 862), and none beyond. Pure. */
#ifndef ECHOPROBE_ECHO_H
#define ECHOPROBE_ECHO_H

#include "probe/exchange.h"

#include <stddef.h>
#include <stdint.h>

/*
 * The message is borrowed. Without half_close the echo is whole with its last byte; with it, when the server has closed
 * its side too. expect (NULL: nothing) must be part of the echo. NULL when memory ran out.
 */
struct exchange *echo_new(struct bytes message, bool half_close, const char *expect);

#define ECHO_LINE 16 /* bytes of the shortest nonce that is a line */

/*
 * A message that was never sent before: SIZE bytes that begin with a sequence number and 64 random bits, and end with a
 * newline. With size 0 it is as long as it needs; below ECHO_LINE it is nothing but random bytes, for all are needed.
 * NULL when memory ran out; the caller frees it.
 */
char *echo_nonce(uint64_t seq, size_t size, size_t *len);

#endif
