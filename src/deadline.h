/*
 * deadline: many deadlines on one timer. Deadlines of one duration expire in the order in which they were set, so a
 * list for each duration is always sorted, and setting one again moves it to the tail: no heap, no timer a connection.
 *
 * Owned by one event loop; nothing here is thread-safe. Times are CLOCK_MONOTONIC nanoseconds.
 */
#ifndef ECHOD_DEADLINE_H
#define ECHOD_DEADLINE_H

#include <stdint.h>

struct event_base;
struct deadline_list;

/* Part of what expires; zeroed means not set. */
struct deadline {
    struct deadline *prev, *next;
    struct deadline_list *list; /* the list it was in last */
    int64_t due;
};

struct deadlines {
    struct deadline_list *lists; /* one a duration, few */
    struct event *timer;
    int64_t armed; /* when the timer fires */
    void (*expire)(struct deadline *);
};

/* The time now. */
int64_t deadline_now(void);

/* expire is called from the loop with a deadline that has been unset; it may set it again or free it. 0, or -1. */
int deadlines_init(struct deadlines *all, struct event_base *base, void (*expire)(struct deadline *));

/* Sets d to expire at now + duration (both nanoseconds), whether it was set or not. 0, or -1 when memory ran out. */
int deadline_set(struct deadlines *all, struct deadline *d, int64_t now, int64_t duration);

void deadline_unset(struct deadline *d);

/* No deadline may be set any more. */
void deadlines_free(struct deadlines *all);

#endif
