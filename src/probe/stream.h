/*
 * stream: what a load sends on a connection, without an end and without a copy: a period of bytes, repeated. Of an echo
 * the period is random, and a prime number of bytes: requests differ from each other, and each connection begins at
 * another place, so that no answer can pass for another one. Of HTTP the period is the request. Pure.
 */
#ifndef ECHOPROBE_STREAM_H
#define ECHOPROBE_STREAM_H

#include "bytes.h"

#include <stddef.h>
#include <stdint.h>

struct stream {
    char *data; /* the period, and behind it as much of its repetition as one view can show */
    size_t period, view;
    size_t request; /* bytes of one request */
};

/* Requests of size bytes, of which count can be under way on one connection. 0, or -1 when that cannot be made. */
int stream_random(struct stream *s, size_t size, size_t count);

/* The text as the request. 0, or -1 when memory ran out. */
int stream_repeat(struct stream *s, struct bytes text, size_t count);

/* The bytes from a position of the endless stream on, len at most; at least one. */
static inline struct bytes stream_at(const struct stream *s, uint64_t position, uint64_t len)
{
    return (struct bytes){ .data = s->data + position % s->period, .len = len < s->view ? (size_t)len : s->view };
}

void stream_free(struct stream *s);

#endif
