/*
 * lane: one connection of a load: requests out, answers verified, in order; connects anew where a server closes.
 *
 * A server may close a connection on which nothing is under way: that fails nothing, and the next request connects anew.
 * When such a request crosses the close, so that nothing comes of it but the end, it is sent once more (RFC 9112 section
 * 9.3.1); so is what was pipelined behind an answer that announced the close.
 *
 * It is told how many requests to begin, and tells which have come to an end. The way of the bytes is direct, as it is
 * in the daemon's connections (see src/conn.c): recv() into the load's one buffer, send() at once, and an event for
 * writing only when the socket is full. TLS goes through a bufferevent.
 */
#ifndef ECHOPROBE_LANE_H
#define ECHOPROBE_LANE_H

#include "probe/answer.h"
#include "probe/dial.h"
#include "probe/probe.h"
#include "probe/stream.h"

#include <event2/event_struct.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define LANES_BUFFER   262144
#define LANES_TEMPLATE 16384

struct lane;

/* What the lanes of one load share. */
struct lanes {
    const struct probe_settings *settings;
    const struct answer_wish *wish;
    const struct target *target;
    struct stream stream;
    unsigned pipeline; /* requests under way on one lane at most */
    struct lane *first;
    size_t count;
    bool placed; /* place is known: lanes after the first one need no look-up */
    struct place place;
    char *input; /* LANES_BUFFER bytes, for what a call received */
    /*
     * HTTP: the last good answer. An answer of the same bytes is as good, without parsing it: what llhttp says of an
     * answer depends on nothing but its bytes.
     */
    char *template_;
    size_t template_len;
    unsigned status;
    void *arg;
    void (*answered)(void *arg, int64_t intended, int64_t now); /* one request; from within lane's reading */
    void (*ready)(void *arg, struct lane *lane, int64_t now);   /* the lane can take more requests */
    void (*failed)(void *arg, struct lane *lane, uint64_t requests, const struct failure *f); /* it is closed */
};

/* A request under way. */
struct lane_request {
    int64_t intended; /* when it was to be sent */
    int64_t begun;    /* when it was given to the lane */
};

struct lane {
    struct lanes *lanes;
    struct dial *dial; /* that runs */
    int fd;            /* -1: not connected */
    bool open;         /* the connection can be used */
    bool idle;         /* it was left with nothing under way, and nothing has come since */
    bool lapsed;       /* the server closed it so: the next request connects anew */
    bool writing;      /* writable is set */
    bool parsing;      /* HTTP: the reader has the begin of the next answer; else it is the template's */
    struct event readable, writable;
    struct bufferevent *tls;
    struct exchange *reader;       /* HTTP */
    struct lane_request *requests; /* a ring of lanes->pipeline */
    unsigned oldest, under_way;
    uint64_t origin;    /* where its part of the stream begins */
    uint64_t goal;      /* bytes of the requests begun on this connection */
    uint64_t sent, got; /* bytes on this connection; got: of the echo */
    size_t matched;     /* HTTP: bytes that came of an answer that is the template's so far */
    int64_t dialled;    /* when it began to connect */
    int64_t retry;      /* when a failed lane may connect again; 0: it has not failed */
};

/* Prepares stream, buffers and count lanes; the fields above these must be filled. 0, or -1 when memory ran out. */
int lanes_init(struct lanes *all, size_t count, size_t size);
void lanes_free(struct lanes *all);

/* Connects; ready or failed is called from the loop. */
void lane_open(struct lane *lane);

/* How many more requests it can take. */
static inline unsigned lane_room(const struct lane *lane)
{
    return lane->open || lane->lapsed ? lane->lanes->pipeline - lane->under_way : 0;
}

/* Begins a request, which lane_send() sends. There must be room. */
void lane_begin(struct lane *lane, int64_t intended, int64_t now);

/* Sends what has begun; connects first, where the server has closed. */
void lane_send(struct lane *lane);

/* Gives up: the requests under way have failed. */
void lane_fail(struct lane *lane, enum failure_class class, const char *text);

#endif
