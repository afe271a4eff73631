/* timer: an event's timer, in the nanoseconds that all else here counts in. */
#ifndef ECHOPROBE_TIMER_H
#define ECHOPROBE_TIMER_H

#include <event2/event.h>
#include <stdint.h>

/* Lets the timer fire in wait nanoseconds (at once, if there are none), a microsecond late rather than early. */
static inline int timer_set(struct event *timer, int64_t wait)
{
    int64_t us = wait > 0 ? wait / 1000 + 1 : 0;
    struct timeval tv = { .tv_sec = us / 1000000, .tv_usec = us % 1000000 };
    return evtimer_add(timer, &tv);
}

#endif
