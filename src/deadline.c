#include "deadline.h"

#include <event2/event.h>
#include <stdlib.h>
#include <time.h>

struct deadline_list {
    struct deadline_list *next;
    int64_t duration;
    struct deadline ring; /* its next is the earliest */
};

int64_t deadline_now(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

/* Arms the timer for `due`, a microsecond late rather than early. */
static void deadlines_arm(struct deadlines *all, int64_t now, int64_t due)
{
    int64_t wait = due > now ? (due - now) / 1000 + 1 : 0;
    struct timeval tv = { .tv_sec = wait / 1000000, .tv_usec = wait % 1000000 };
    all->armed = due;
    evtimer_add(all->timer, &tv);
}

static void deadlines_sweep(evutil_socket_t fd, short what, void *arg)
{
    struct deadlines *all = arg;
    int64_t now = deadline_now(), earliest = INT64_MAX;
    (void)fd;
    (void)what;
    all->armed = INT64_MAX;
    for (struct deadline_list *list = all->lists; list != NULL; list = list->next) {
        struct deadline *ring = &list->ring;
        while (ring->next != ring && ring->next->due <= now) {
            struct deadline *d = ring->next;
            deadline_unset(d);
            all->expire(d);
        }
    }
    /* a second pass: expiring may have set deadlines in any list */
    for (struct deadline_list *list = all->lists; list != NULL; list = list->next)
        if (list->ring.next != &list->ring && list->ring.next->due < earliest)
            earliest = list->ring.next->due;
    if (earliest < all->armed)
        deadlines_arm(all, now, earliest);
}

int deadlines_init(struct deadlines *all, struct event_base *base, void (*expire)(struct deadline *))
{
    *all = (struct deadlines){ .armed = INT64_MAX, .expire = expire };
    all->timer = evtimer_new(base, deadlines_sweep, all);
    return all->timer != NULL ? 0 : -1;
}

static struct deadline_list *list_for(struct deadlines *all, int64_t duration)
{
    struct deadline_list *list = all->lists;
    while (list != NULL && list->duration != duration)
        list = list->next;
    if (list == NULL && (list = calloc(1, sizeof *list)) != NULL) {
        list->duration = duration;
        list->ring.next = list->ring.prev = &list->ring;
        list->next = all->lists;
        all->lists = list;
    }
    return list;
}

int deadline_set(struct deadlines *all, struct deadline *d, int64_t now, int64_t duration)
{
    struct deadline_list *list = d->list;
    if (list == NULL || list->duration != duration)
        list = list_for(all, duration);
    if (list == NULL)
        return -1;
    deadline_unset(d);
    d->list = list;
    d->due = now + duration;
    d->next = &list->ring;
    d->prev = list->ring.prev;
    d->prev->next = d;
    list->ring.prev = d;
    if (d->due < all->armed)
        deadlines_arm(all, now, d->due);
    return 0;
}

void deadline_unset(struct deadline *d)
{
    if (d->next == NULL)
        return;
    d->prev->next = d->next;
    d->next->prev = d->prev;
    d->next = d->prev = NULL;
}

void deadlines_free(struct deadlines *all)
{
    while (all->lists != NULL) {
        struct deadline_list *next = all->lists->next;
        free(all->lists);
        all->lists = next;
    }
    if (all->timer != NULL)
        event_free(all->timer);
    all->timer = NULL;
}
