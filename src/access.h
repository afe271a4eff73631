/*
 * access: the access log, one line a request. Each worker renders into a buffer of its own and writes it in batches:
 * when it is nearly full, and a moment after the first line in it. It never waits for who reads: lines that could not be
 * written are counted and told in the log.
 */
#ifndef ECHOD_ACCESS_H
#define ECHOD_ACCESS_H

#include "log.h"

struct access;
struct event_base;

/*
 * Opens a sink: "stderr", or the path of a file that is appended to. Returns a descriptor; -1 for "off"; -2 on failure,
 * with errno.
 */
int access_sink_open(const char *where);

/* One worker's buffer, without a sink yet; NULL when memory ran out. */
struct access *access_new(struct event_base *base);

/* Writes what is buffered to the old sink and goes on with this one, which it takes over; -1: the log is off. */
void access_turn(struct access *access, int sink);

/* True when lines are wanted. NULL is fine. */
bool access_is_on(const struct access *access);

/* Adds one line, while it is on. The fields end with one whose key is NULL. */
void access_write(struct access *access, const struct log_field *fields);

/* How many lines were lost so far; from any thread. */
uint64_t access_lost(const struct access *access);

/* Writes what is buffered, closes the sink and frees. NULL is fine. */
void access_free(struct access *access);

#endif
