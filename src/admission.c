#include "admission.h"

#include <search.h>
#include <stdlib.h>
#include <string.h>

#define SECOND        1000000000LL
#define EPISODE_QUIET (5 * SECOND) /* without a refusal ends an episode */

const char *const refusal_words[REFUSALS] = {
    [REFUSED_CONNECTIONS] = "max_connections",
    [REFUSED_LISTENER] = "listener_max_connections",
    [REFUSED_ADDRESS] = "max_connections_per_address",
    [REFUSED_RATE] = "accept_rate",
    [REFUSED_UNTRUSTED] = "proxy_trusted",
    [REFUSED_MEMORY] = "memory",
};

/* How many connections are open from one network. */
struct admission_address {
    struct address network;
    uint64_t open;
};

static struct admission_address spare_place; /* stands for a spare place: there is nothing to count in it */

static int compare_addresses(const void *a, const void *b)
{
    /* address_network() leaves no byte unset
     * NOLINTNEXTLINE(bugprone-suspicious-memory-comparison,cert-exp42-c,cert-flp37-c) */
    return memcmp(&((const struct admission_address *)a)->network, &((const struct admission_address *)b)->network,
                  sizeof(struct address));
}

void admission_init(struct admission *admission)
{
    memset(admission, 0, sizeof *admission);
    pthread_mutex_init(&admission->lock, NULL);
}

/* One more, unless that is too many. */
static bool count_take(atomic_size_t *count, uint64_t most)
{
    size_t open = atomic_load_explicit(count, memory_order_relaxed);
    while (most == 0 || open < most)
        if (atomic_compare_exchange_weak_explicit(count, &open, open + 1, memory_order_relaxed, memory_order_relaxed))
            return true;
    return false;
}

static void count_release(atomic_size_t *count)
{
    atomic_fetch_sub_explicit(count, 1, memory_order_relaxed);
}

/* A spare place for a listener that may have it where there is no other. */
static bool spare_take(struct admission *admission, const struct admission_limits *limits,
                       struct admission_address **address)
{
    if (!limits->operates || !count_take(&admission->spare, ADMISSION_SPARE))
        return false;
    *address = &spare_place;
    return true;
}

/*
 * The generic cell rate algorithm: a connection moves the due time on by its share of a second, and the due time may be
 * a second ahead of the clock. So a listener that was quiet takes a second's worth at once.
 */
static bool rate_take(struct admission_gate *gate, uint64_t rate, int64_t now)
{
    int64_t due = atomic_load_explicit(&gate->rate_due, memory_order_relaxed), next;
    if (rate == 0)
        return true;
    do {
        next = (due > now ? due : now) + SECOND / (int64_t)rate;
        if (next > now + SECOND)
            return false;
    } while (!atomic_compare_exchange_weak_explicit(&gate->rate_due, &due, next, memory_order_relaxed,
                                                    memory_order_relaxed));
    return true;
}

/* The count of a network, made when there is none. The lock is held. NULL when memory ran out. */
static struct admission_address *address_find(struct admission *admission, const struct address *network)
{
    struct admission_address wanted = { .network = *network }, *made;
    struct admission_address **found = tfind(&wanted, &admission->addresses, compare_addresses);
    if (found != NULL)
        return *found;
    made = malloc(sizeof *made);
    if (made == NULL)
        return NULL;
    *made = wanted;
    if (tsearch(made, &admission->addresses, compare_addresses) != NULL)
        return made;
    free(made);
    return NULL;
}

static enum refusal address_take(struct admission *admission, const struct admission_limits *limits,
                                 const struct address *peer, struct admission_address **address)
{
    *address = NULL;
    if (limits->address_connections == 0)
        return REFUSALS;
    struct address network = address_network(peer, limits->prefix_v4, limits->prefix_v6);
    enum refusal refusal = REFUSALS;
    pthread_mutex_lock(&admission->lock);
    struct admission_address *counted = address_find(admission, &network);
    if (counted == NULL) {
        refusal = REFUSED_MEMORY;
    } else if (counted->open >= limits->address_connections) {
        refusal = REFUSED_ADDRESS;
    } else {
        counted->open++;
        *address = counted;
    }
    pthread_mutex_unlock(&admission->lock);
    return refusal;
}

enum refusal admission_take_address(struct admission *admission, const struct admission_limits *limits,
                                    const struct address *peer, struct admission_address **address)
{
    enum refusal refusal = address_take(admission, limits, peer, address);
    if (refusal != REFUSED_ADDRESS || !spare_take(admission, limits, address))
        return refusal;
    count_release(&admission->open);
    return REFUSALS;
}

static void address_release(struct admission *admission, struct admission_address *address)
{
    pthread_mutex_lock(&admission->lock);
    if (--address->open == 0) {
        tdelete(address, &admission->addresses, compare_addresses);
        free(address);
    }
    pthread_mutex_unlock(&admission->lock);
}

enum refusal admission_take(struct admission *admission, struct admission_gate *gate,
                            const struct admission_limits *limits, const struct address *peer, int64_t now,
                            struct admission_address **address)
{
    enum refusal refusal = REFUSALS;
    *address = NULL;
    if (!count_take(&gate->open, limits->listener_connections))
        return REFUSED_LISTENER;
    if (!count_take(&admission->open, limits->connections) && !spare_take(admission, limits, address)) {
        count_release(&gate->open);
        return REFUSED_CONNECTIONS;
    }
    if (peer != NULL && *address == NULL)
        refusal = admission_take_address(admission, limits, peer, address);
    if (refusal == REFUSALS && !rate_take(gate, limits->rate, now))
        refusal = REFUSED_RATE;
    if (refusal != REFUSALS) {
        admission_release(admission, gate, *address);
        *address = NULL;
    }
    return refusal;
}

void admission_release(struct admission *admission, struct admission_gate *gate, struct admission_address *address)
{
    if (address != NULL && address != &spare_place)
        address_release(admission, address);
    count_release(&gate->open);
    count_release(address == &spare_place ? &admission->spare : &admission->open);
}

bool admission_tells(struct admission_gate *gate, enum refusal refusal, int64_t now)
{
    int64_t last = atomic_exchange(&gate->refused_last[refusal], now);
    return last == 0 || now - last > EPISODE_QUIET;
}

void admission_destroy(struct admission *admission)
{
    pthread_mutex_destroy(&admission->lock);
}
