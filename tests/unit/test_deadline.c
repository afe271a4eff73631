#include "deadline.h"

#include "unit.h"

#include <event2/event.h>

#define MS   INT64_C(1000000) /* in nanoseconds */
#define HOUR (3600000 * MS)

/* What is set here; expiring writes its name down. */
struct item {
    struct deadline deadline; /* first */
    char name;
    int64_t not_before;
    int again; /* how many times it is set again when it expires */
    struct item *unsets;
};

static struct event_base *base;
static struct deadlines all;
static char expired[4096];
static size_t expired_count;

static void set(struct item *item, int64_t duration)
{
    int64_t now = deadline_now();
    item->not_before = now + duration;
    ck_assert_int_eq(deadline_set(&all, &item->deadline, now, duration), 0);
}

static void expire(struct deadline *d)
{
    struct item *item = (struct item *)d;
    if (deadline_now() < item->not_before)
        ck_abort_msg("%c expired early", item->name);
    ck_assert_uint_lt(expired_count, sizeof expired - 1);
    expired[expired_count++] = item->name;
    expired[expired_count] = '\0';
    if (item->unsets != NULL)
        deadline_unset(&item->unsets->deadline);
    if (item->again-- > 0)
        set(item, MS);
}

static void begin(void)
{
    expired_count = 0;
    expired[0] = '\0';
    base = event_base_new();
    ck_assert_ptr_nonnull(base);
    ck_assert_int_eq(deadlines_init(&all, base, expire), 0);
}

static void end(void)
{
    deadlines_free(&all);
    event_base_free(base);
}

/* Runs the loop until so many have expired. Fails when the loop has nothing to wait for. */
static const char *expired_after(size_t count)
{
    while (expired_count < count)
        ck_assert_int_eq(event_base_loop(base, EVLOOP_ONCE), 0);
    ck_assert_uint_eq(expired_count, count);
    return expired;
}

/* Runs the loop until no timer is left, so that what should not expire had its time. */
static const char *expired_at_last(void)
{
    ck_assert_int_ge(event_base_dispatch(base), 0);
    return expired;
}

START_TEST(test_order)
{
    struct item a = { .name = 'a' }, b = { .name = 'b' }, c = { .name = 'c' };
    begin();
    set(&a, 5 * MS);
    set(&b, 5 * MS);
    set(&c, 5 * MS);
    ck_assert_str_eq(expired_after(3), "abc");
    ck_assert_str_eq(expired_at_last(), "abc");
    end();
}
END_TEST

START_TEST(test_setting_again_moves_to_the_tail)
{
    struct item a = { .name = 'a' }, b = { .name = 'b' }, c = { .name = 'c' };
    begin();
    set(&a, 5 * MS);
    set(&b, 5 * MS);
    set(&c, 5 * MS);
    set(&a, 5 * MS);
    set(&b, 5 * MS);
    ck_assert_str_eq(expired_at_last(), "cab");
    end();
}
END_TEST

START_TEST(test_unset)
{
    struct item a = { .name = 'a' }, b = { .name = 'b' }, c = { .name = 'c' }, d = { .name = 'd' };
    begin();
    deadline_unset(&a.deadline); /* was never set */
    set(&a, 5 * MS);
    set(&b, 5 * MS);
    set(&c, 5 * MS);
    set(&d, 5 * MS);
    deadline_unset(&b.deadline);
    deadline_unset(&a.deadline);
    deadline_unset(&a.deadline);
    deadline_unset(&d.deadline);
    ck_assert_str_eq(expired_at_last(), "c");
    deadline_unset(&c.deadline); /* has expired */
    set(&b, MS);                 /* as if new */
    set(&a, MS);
    ck_assert_str_eq(expired_at_last(), "cba");
    end();
}
END_TEST

START_TEST(test_nothing_left)
{
    struct item a = { .name = 'a' };
    begin();
    set(&a, MS);
    deadline_unset(&a.deadline);
    ck_assert_str_eq(expired_at_last(), "");
    end();
}
END_TEST

/* A shorter one is not kept waiting by a longer one that the timer was armed for. */
START_TEST(test_shorter_set_later)
{
    struct item longer = { .name = 'l' }, shorter = { .name = 's' };
    begin();
    set(&longer, HOUR);
    set(&shorter, MS);
    ck_assert_str_eq(expired_after(1), "s");
    deadline_unset(&longer.deadline);
    end();
}
END_TEST

START_TEST(test_other_duration)
{
    struct item a = { .name = 'a' }, b = { .name = 'b' }, c = { .name = 'c' };
    begin();
    set(&a, HOUR);
    set(&b, 30 * MS);
    set(&c, MS);
    set(&a, 30 * MS); /* to the tail of b's list */
    set(&c, 30 * MS);
    ck_assert_str_eq(expired_after(3), "bac");
    end();
}
END_TEST

START_TEST(test_long_duration_does_not_expire)
{
    struct item year = { .name = 'y' }, soon = { .name = 's' };
    begin();
    set(&year, 366 * 24 * HOUR);
    set(&soon, MS);
    ck_assert_str_eq(expired_after(1), "s");
    ck_assert_int_eq(event_base_loop(base, EVLOOP_NONBLOCK), 0);
    ck_assert_str_eq(expired, "s");
    deadline_unset(&year.deadline);
    end();
}
END_TEST

START_TEST(test_set_inside_expire)
{
    struct item a = { .name = 'a', .again = 2 }, b = { .name = 'b' };
    begin();
    set(&b, HOUR);
    set(&a, MS);
    ck_assert_str_eq(expired_after(3), "aaa");
    deadline_unset(&b.deadline);
    set(&a, MS); /* alone: only expiring arms the timer again */
    a.again = 1;
    ck_assert_str_eq(expired_after(5), "aaaaa");
    end();
}
END_TEST

START_TEST(test_unset_inside_expire)
{
    struct item a = { .name = 'a' }, b = { .name = 'b' }, c = { .name = 'c' };
    begin();
    set(&a, MS);
    set(&b, MS);
    set(&c, MS);
    a.unsets = &b; /* the next one in the list */
    ck_assert_str_eq(expired_at_last(), "ac");
    end();
}
END_TEST

static void expire_and_free(struct deadline *d)
{
    ck_assert_ptr_null(d->next); /* it has been unset */
    expired_count++;
    free(d);
}

START_TEST(test_free_inside_expire)
{
    begin();
    all.expire = expire_and_free;
    for (int i = 0; i < 100; i++) {
        struct item *item = calloc(1, sizeof *item);
        ck_assert_ptr_nonnull(item);
        set(item, MS);
    }
    expired_after(100);
    end();
}
END_TEST

/* As the caller says what time it is, a deadline may be over when it is set. */
START_TEST(test_already_over)
{
    struct item a = { .name = 'a' };
    begin();
    ck_assert_int_eq(deadline_set(&all, &a.deadline, deadline_now() - 100 * MS, MS), 0);
    ck_assert_str_eq(expired_after(1), "a");
    end();
}
END_TEST

/* 40 durations with 25 deadlines each, set in turn: all expire, none early, in each list in order. */
START_TEST(test_many_durations)
{
    static struct item items[40 * 25];
    char next[40] = { 0 };
    begin();
    for (int i = 0; i < 40 * 25; i++) {
        items[i].name = (char)('0' + i % 40);
        set(&items[i], (1 + i % 40) * MS / 2);
    }
    expired_after(40 * 25);
    for (size_t i = 0; i < expired_count; i++)
        next[expired[i] - '0']++;
    for (int i = 0; i < 40; i++)
        ck_assert_int_eq(next[i], 25);
    ck_assert_str_eq(expired_at_last(), expired);
    ck_assert_uint_eq(expired_count, 40 * 25);
    end();
}
END_TEST

START_TEST(test_now)
{
    int64_t before = deadline_now(), after = deadline_now();
    ck_assert_int_gt(before, 0);
    ck_assert_int_ge(after, before);
}
END_TEST

UNIT_MAIN("deadline", test_order, test_setting_again_moves_to_the_tail, test_unset, test_nothing_left,
          test_shorter_set_later, test_other_duration, test_long_duration_does_not_expire, test_set_inside_expire,
          test_unset_inside_expire, test_free_inside_expire, test_already_over, test_many_durations, test_now)
