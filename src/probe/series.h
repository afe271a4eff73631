/* series: probes of one target, one after the other, at an interval; a single probe is a series of one. */
#ifndef ECHOPROBE_SERIES_H
#define ECHOPROBE_SERIES_H

#include "probe/answer.h"
#include "probe/probe.h"
#include "probe/summary.h"

#include <stdbool.h>
#include <stdint.h>

struct event;

/* What all series of a program share. */
struct series_settings {
    struct probe_settings probe;
    struct answer_wish wish; /* HTTP */
    const char *message;     /* echo; NULL: a nonce each */
    uint64_t size;           /* of a nonce; 0: as short as it can be */
    bool half_close;         /* echo */
    bool keep;               /* keep the bodies of answers, for the hook */
    uint64_t count;          /* 0: until series_stop() */
    int64_t interval;        /* ns from one begin to the next; one that takes longer delays the next */
    /* After each probe, with its number from 1; the summary counts it already. */
    void (*probed)(void *arg, struct summary *s, uint64_t seq, const struct probe_result *result);
    void (*ended)(void *arg);
    void *arg;
};

struct series {
    const struct series_settings *settings;
    struct summary *summary;
    struct probe *probe; /* that runs */
    char *request;       /* of the probe that runs */
    struct event *timer;
    int64_t begun, due; /* the series; its next probe */
    uint64_t seq;
    bool over;
};

/* Starts it; the summary is initialized, and like the settings must stay. 0, or -1 when memory ran out. */
int series_start(struct series *s, const struct series_settings *settings, struct summary *summary);

/* Ends it early: a probe that runs is not counted. Calls ended, if it was not over. */
void series_stop(struct series *s);

void series_free(struct series *s);

#endif
