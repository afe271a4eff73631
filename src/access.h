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
 * Opens the sink that all workers share: "stderr", or the path of a file that is appended to. Returns a descriptor;
 * -1 for "off"; -2 on failure, with errno.
 */
int access_sink_open(const char *where);

/* One worker's buffer in front of the sink; NULL when memory ran out. */
struct access *access_new(struct event_base *base, int sink);

/* Adds one line. Does nothing when access is NULL. The fields end with one whose key is NULL. */
void access_write(struct access *access, const struct log_field *fields);

/* Writes what is buffered and frees. NULL is fine. */
void access_free(struct access *access);

#endif
