#include "admission.h"

#include "unit.h"

#include <string.h>

#define SECOND INT64_C(1000000000)
#define START  (1000 * SECOND)
#define TAKEN  400 /* places that a test keeps at most */

static struct admission admission;
static struct admission_gate gate, other;
static struct admission_limits limits = { .prefix_v4 = 32, .prefix_v6 = 64 };
static struct admission_address *taken[TAKEN];
static size_t taken_count;

static struct address parsed(const char *text)
{
    struct address a;
    char err[256];
    if (strcmp(text, "unix") == 0) {
        memset(&a, 0, sizeof a);
        a.sa.any.sa_family = AF_UNIX;
        a.len = sizeof a.sa.any.sa_family;
        return a;
    }
    ck_assert_int_eq(address_parse(text, &a, 1, err, sizeof err), 1);
    return a;
}

static enum refusal take_at(struct admission_gate *at, const char *peer, int64_t now)
{
    struct address a = parsed(peer);
    struct admission_address *counted = (void *)&limits; /* must be set */
    enum refusal refusal = admission_take(&admission, at, &limits, &a, now, &counted);
    ck_assert_int_eq(counted != NULL, refusal == REFUSALS && limits.address_connections > 0);
    if (refusal == REFUSALS)
        taken[taken_count++] = counted;
    return refusal;
}

static enum refusal take(const char *peer)
{
    return take_at(&gate, peer, START);
}

/* Gives back the last place that was taken, or more. */
static void give_back(size_t count)
{
    while (count-- > 0)
        admission_release(&admission, &gate, taken[--taken_count]);
}

static void check_open(size_t server, size_t listener)
{
    ck_assert_uint_eq(atomic_load(&admission.open), server);
    ck_assert_uint_eq(atomic_load(&gate.open), listener);
}

/* All is given back: nothing is counted, and no address is kept. */
static void end(void)
{
    give_back(taken_count);
    check_open(0, 0);
    ck_assert_ptr_null(admission.addresses);
    admission_destroy(&admission);
}

START_TEST(test_unlimited)
{
    admission_init(&admission);
    for (int i = 0; i < TAKEN; i++)
        ck_assert_int_eq(take("10.0.0.1:1"), REFUSALS);
    check_open(TAKEN, TAKEN);
    ck_assert_ptr_null(admission.addresses);
    end();
}
END_TEST

START_TEST(test_server)
{
    admission_init(&admission);
    limits.connections = 2;
    ck_assert_int_eq(take("10.0.0.1:1"), REFUSALS);
    ck_assert_int_eq(take("10.0.0.1:1"), REFUSALS);
    ck_assert_int_eq(take("10.0.0.1:1"), REFUSED_CONNECTIONS);
    ck_assert_int_eq(take_at(&other, "10.0.0.1:1", START), REFUSED_CONNECTIONS);
    check_open(2, 2);
    give_back(1);
    ck_assert_int_eq(take("10.0.0.2:1"), REFUSALS);
    limits.connections = 1; /* a reload: what is open stays, and nothing comes until it is under the limit */
    ck_assert_int_eq(take("10.0.0.1:1"), REFUSED_CONNECTIONS);
    give_back(1);
    ck_assert_int_eq(take("10.0.0.1:1"), REFUSED_CONNECTIONS);
    end();
}
END_TEST

/* What the server has counted already is given back. */
START_TEST(test_listener)
{
    admission_init(&admission);
    limits.connections = 3;
    limits.listener_connections = 2;
    ck_assert_int_eq(take("10.0.0.1:1"), REFUSALS);
    ck_assert_int_eq(take("10.0.0.1:1"), REFUSALS);
    for (int i = 0; i < 5; i++)
        ck_assert_int_eq(take("10.0.0.1:1"), REFUSED_LISTENER);
    check_open(2, 2);
    ck_assert_int_eq(take_at(&other, "10.0.0.1:1", START), REFUSALS);
    ck_assert_uint_eq(atomic_load(&other.open), 1);
    admission_release(&admission, &other, taken[--taken_count]);
    end();
}
END_TEST

START_TEST(test_address)
{
    admission_init(&admission);
    limits.address_connections = 2;
    ck_assert_int_eq(take("10.0.0.1:1"), REFUSALS);
    ck_assert_int_eq(take("10.0.0.1:65535"), REFUSALS); /* whatever the port */
    for (int i = 0; i < 5; i++)
        ck_assert_int_eq(take("10.0.0.1:3"), REFUSED_ADDRESS);
    check_open(2, 2);
    ck_assert_int_eq(take("10.0.0.2:1"), REFUSALS);
    ck_assert_int_eq(take("[::1]:1"), REFUSALS);
    give_back(3);
    ck_assert_int_eq(take("10.0.0.1:1"), REFUSALS);
    ck_assert_int_eq(take("10.0.0.1:1"), REFUSED_ADDRESS);
    end();
}
END_TEST

/* Pairs that count as one address, or not. */
START_TEST(test_prefixes)
{
    static const struct {
        unsigned v4, v6;
        const char *a, *b;
        bool same;
    } cases[] = {
        { 32, 64, "10.0.0.1:1", "10.0.0.1:2", true },
        { 32, 64, "10.0.0.1:1", "10.0.0.0:1", false },
        { 31, 64, "10.0.0.1:1", "10.0.0.0:1", true },
        { 31, 64, "10.0.0.1:1", "10.0.0.2:1", false },
        { 24, 64, "10.0.0.1:1", "10.0.0.255:1", true },
        { 24, 64, "10.0.0.1:1", "10.0.1.1:1", false },
        { 9, 64, "10.127.0.1:1", "10.0.0.1:1", true },
        { 9, 64, "10.127.0.1:1", "10.128.0.1:1", false },
        { 1, 64, "1.0.0.1:1", "127.0.0.1:1", true },
        { 1, 64, "1.0.0.1:1", "128.0.0.1:1", false },
        { 32, 64, "[2001:db8::1]:1", "[2001:db8::ffff:1]:2", true },
        { 32, 64, "[2001:db8::1]:1", "[2001:db8:0:1::1]:1", false },
        { 32, 63, "[2001:db8::1]:1", "[2001:db8:0:1::1]:1", true },
        { 32, 128, "[2001:db8::1]:1", "[2001:db8::2]:1", false },
        { 32, 128, "[2001:db8::1]:1", "[2001:db8::1]:2", true },
        { 32, 1, "[2001:db8::1]:1", "[::1]:2", true },
        { 32, 1, "[2001:db8::1]:1", "[8000::1]:2", false },
        { 32, 64, "[::ffff:10.0.0.1]:1", "10.0.0.1:1", true }, /* the same host over a socket for both */
        { 32, 64, "[::ffff:10.0.0.1]:1", "[::ffff:10.0.0.2]:1", false },
        { 24, 128, "[::ffff:10.0.0.1]:1", "[::ffff:10.0.0.2]:1", true },
        { 32, 64, "[::1]:1", "0.0.0.1:1", false },
        { 32, 64, "unix", "unix", true },
        { 1, 1, "unix", "0.0.0.1:1", false },
        { 1, 1, "unix", "[::1]:1", false },
    };
    limits.address_connections = 1;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        admission_init(&admission);
        limits.prefix_v4 = cases[i].v4;
        limits.prefix_v6 = cases[i].v6;
        ck_assert_int_eq(take(cases[i].a), REFUSALS);
        ck_assert_msg((take(cases[i].b) == REFUSED_ADDRESS) == cases[i].same, "%zu", i);
        end();
    }
}
END_TEST

/* The count of an address that was taken under another prefix, or while none were counted, is given back all the same. */
START_TEST(test_settings_change)
{
    admission_init(&admission);
    ck_assert_int_eq(take("10.0.0.1:1"), REFUSALS);
    limits.address_connections = 1;
    ck_assert_int_eq(take("10.0.0.1:1"), REFUSALS);
    limits.prefix_v4 = 8;
    ck_assert_int_eq(take("10.0.0.1:1"), REFUSALS);
    ck_assert_int_eq(take("10.9.0.1:1"), REFUSED_ADDRESS);
    limits.address_connections = 0;
    ck_assert_int_eq(take("10.0.0.1:1"), REFUSALS);
    end();
}
END_TEST

/* --- Rate ---------------------------------------------------------------------------------------------------------------- */

/* How many of so many that come at one moment are served. */
static uint64_t burst(uint64_t count, int64_t now)
{
    struct address a = parsed("10.0.0.1:1");
    struct admission_address *counted;
    uint64_t served = 0, refused_by_rate = 0;
    for (uint64_t i = 0; i < count; i++) {
        enum refusal refusal = admission_take(&admission, &gate, &limits, &a, now, &counted);
        served += refusal == REFUSALS;
        refused_by_rate += refusal == REFUSED_RATE;
        if (refusal == REFUSALS)
            admission_release(&admission, &gate, counted);
    }
    ck_assert_uint_eq(served + refused_by_rate, count);
    check_open(0, 0);
    return served;
}

/* A second's worth at once, then nothing; then one whenever its time has come, and a second's worth after a second. */
START_TEST(test_rate)
{
    static const uint64_t rates[] = { 1, 2, 3, 7, 10, 999, 1000 };
    admission_init(&admission);
    for (size_t i = 0; i < sizeof rates / sizeof rates[0]; i++) {
        int64_t now = START, share = SECOND / (int64_t)rates[i];
        atomic_store(&gate.rate_due, 0);
        limits.rate = rates[i];
        ck_assert_uint_eq(burst(2 * rates[i], now), rates[i]);
        ck_assert_uint_eq(burst(5, now + share - 1 - SECOND % (int64_t)rates[i]), 0);
        for (int k = 0; k < 5; k++) {
            now += share;
            ck_assert_uint_eq(burst(2, now), 1);
        }
        ck_assert_uint_eq(burst(3 * rates[i], now + 2 * SECOND), rates[i]); /* and no more for a longer quiet */
    }
    end();
}
END_TEST

/* Over ten seconds in which more come than may, no more than eleven seconds' worth. */
START_TEST(test_rate_in_the_long_run)
{
    uint64_t served = 0;
    admission_init(&admission);
    limits.rate = 50;
    for (int64_t now = 0; now < 10 * SECOND; now += SECOND / 333)
        served += burst(1, START + now);
    ck_assert_uint_ge(served, 50 + 50 * 10 - 1);
    ck_assert_uint_le(served, 50 + 50 * 10);
    end();
}
END_TEST

START_TEST(test_highest_rate)
{
    admission_init(&admission);
    limits.rate = 1000000;
    ck_assert_uint_eq(burst(1000100, START), 1000000);
    end();
}
END_TEST

/* A place that was refused for the rate is free again, of the address too. */
START_TEST(test_rate_rolls_back)
{
    admission_init(&admission);
    limits.rate = 1;
    limits.address_connections = 2;
    limits.connections = 2;
    ck_assert_int_eq(take("10.0.0.1:1"), REFUSALS);
    for (int i = 0; i < 5; i++)
        ck_assert_int_eq(take("10.0.0.1:1"), REFUSED_RATE);
    check_open(1, 1);
    ck_assert_int_eq(take_at(&gate, "10.0.0.1:1", START + SECOND), REFUSALS);
    ck_assert_int_eq(take_at(&gate, "10.0.0.1:1", START + 2 * SECOND), REFUSED_CONNECTIONS);
    end();
}
END_TEST

/* What is refused for another limit does not count for the rate. */
START_TEST(test_rate_of_the_served)
{
    admission_init(&admission);
    limits.rate = 2;
    limits.address_connections = 1;
    ck_assert_int_eq(take("10.0.0.1:1"), REFUSALS);
    for (int i = 0; i < 5; i++)
        ck_assert_int_eq(take("10.0.0.1:1"), REFUSED_ADDRESS);
    ck_assert_int_eq(take("10.0.0.2:1"), REFUSALS);
    ck_assert_int_eq(take("10.0.0.3:1"), REFUSED_RATE);
    end();
}
END_TEST

/* --- Episodes -------------------------------------------------------------------------------------------------------- */

START_TEST(test_episodes)
{
    admission_init(&admission);
    int64_t now = START;
    for (int reason = 0; reason < REFUSALS; reason++)
        ck_assert(admission_tells(&gate, (enum refusal)reason, now));
    for (int i = 0; i < 10; i++)
        ck_assert(!admission_tells(&gate, REFUSED_RATE, now += 5 * SECOND)); /* one goes on */
    ck_assert(admission_tells(&gate, REFUSED_RATE, now += 5 * SECOND + 1));
    ck_assert(!admission_tells(&gate, REFUSED_RATE, now - SECOND)); /* threads look at the clock in any order */
    ck_assert(admission_tells(&gate, REFUSED_ADDRESS, now));
    admission_destroy(&admission);
}
END_TEST

START_TEST(test_words)
{
    for (int i = 0; i < REFUSALS; i++) {
        ck_assert_ptr_nonnull(refusal_words[i]);
        for (int k = 0; k < i; k++)
            ck_assert_str_ne(refusal_words[i], refusal_words[k]);
    }
}
END_TEST

/* --- Threads ------------------------------------------------------------------------------------------------------- */

#define THREADS 6
#define ROUNDS  4000

static atomic_size_t most_server, most_listener, refused;

static void note_most(atomic_size_t *most, size_t value)
{
    size_t old = atomic_load(most);
    while (value > old && !atomic_compare_exchange_weak(most, &old, value))
        ;
}

/* Takes up to three places at a time, from addresses that all threads share. */
static void *hammer(void *arg)
{
    unsigned seed = (unsigned)(size_t)arg;
    for (unsigned i = 0; i < ROUNDS; i++) {
        struct admission_address *counted[3];
        size_t count = 0;
        for (int k = 0; k < 3; k++) {
            struct address a = { .sa.v4 = { .sin_family = AF_INET }, .len = sizeof a.sa.v4 };
            seed = seed * 1664525 + 1013904223;
            a.sa.v4.sin_addr.s_addr = htonl(0x0A000000 + (seed >> 16) % 5);
            if (admission_take(&admission, &gate, &limits, &a, START + i * SECOND, &counted[count]) == REFUSALS)
                count++;
            else
                atomic_fetch_add(&refused, 1);
            note_most(&most_server, atomic_load(&admission.open));
            note_most(&most_listener, atomic_load(&gate.open));
        }
        while (count > 0)
            admission_release(&admission, &gate, counted[--count]);
    }
    return NULL;
}

START_TEST(test_threads)
{
    pthread_t threads[THREADS];
    admission_init(&admission);
    limits = (struct admission_limits){ .connections = 10,
                                        .listener_connections = 8,
                                        .address_connections = 2,
                                        .prefix_v4 = 32,
                                        .prefix_v6 = 64,
                                        .rate = 1000 };
    for (size_t i = 0; i < THREADS; i++)
        ck_assert_int_eq(pthread_create(&threads[i], NULL, hammer, (void *)i), 0);
    for (size_t i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    ck_assert_uint_le(atomic_load(&most_server), 10);
    ck_assert_uint_le(atomic_load(&most_listener), 8);
    ck_assert_uint_gt(atomic_load(&refused), 0);
    end();
}
END_TEST

UNIT_MAIN("admission", test_unlimited, test_server, test_listener, test_address, test_prefixes, test_settings_change,
          test_rate, test_rate_in_the_long_run, test_highest_rate, test_rate_rolls_back, test_rate_of_the_served,
          test_episodes, test_words, test_threads)
