#include "probe/summary.h"

#include "unit.h"

#include <string.h>

#define MS INT64_C(1000000)

static const struct thresholds none = { 0, 0 }, limits = { 10 * MS, 20 * MS };
static struct target target = { .url = "tcp://x" };

static struct summary fresh(void)
{
    struct summary s;
    ck_assert_int_eq(summary_init(&s, &target), 0);
    return s;
}

static void check(const struct summary *s, const struct thresholds *t, enum verdict want, const char *sentence)
{
    char why[256];
    summary_explain(s, t, why, sizeof why);
    ck_assert_int_eq(summary_verdict(s, t), want);
    ck_assert_msg(strstr(why, sentence) != NULL, "%s", why);
    ck_assert_int_eq(why[0] == '\0', want == VERDICT_OK);
}

START_TEST(test_thresholds)
{
    struct summary s = fresh();
    summary_success(&s, 10 * MS);
    check(&s, &none, VERDICT_OK, "");
    check(&s, &limits, VERDICT_OK, "");
    summary_success(&s, 10 * MS + 100000);
    check(&s, &limits, VERDICT_WARNING, "warning: the 99th percentile of 10.100 ms is over 10.000 ms");
    summary_success(&s, 21 * MS);
    check(&s, &limits, VERDICT_CRITICAL, "critical: the 99th percentile of 21.000 ms is over 20.000 ms");
    check(&s, &none, VERDICT_OK, "");
    summary_free(&s);
}
END_TEST

START_TEST(test_failures)
{
    struct failure f = { FAILURE_RESET, "gone" }, other = { FAILURE_SHORT, "cut" };
    struct summary s = fresh();
    check(&s, &none, VERDICT_CRITICAL, "interrupted before there was a result");
    summary_failure(&s, &f, 1);
    check(&s, &none, VERDICT_CRITICAL, "reset: gone");
    summary_failure(&s, &other, 2);
    summary_success(&s, MS);
    check(&s, &none, VERDICT_CRITICAL, "3 of 4 lost; the first: reset: gone");
    ck_assert_uint_eq(s.failures[FAILURE_SHORT], 2);
    ck_assert_uint_eq(s.sent, 4);
    summary_free(&s);
}
END_TEST

/* A connection that failed is none that was sent, and critical all the same. */
START_TEST(test_connection)
{
    struct failure f = { FAILURE_REFUSED, "nobody" };
    struct summary s = fresh();
    summary_failure(&s, &f, 0);
    check(&s, &none, VERDICT_CRITICAL, "refused: nobody");
    summary_success(&s, MS);
    summary_success(&s, MS);
    check(&s, &none, VERDICT_CRITICAL, "refused: nobody");
    ck_assert_uint_eq(s.sent, 2);
    ck_assert_uint_eq(s.lost, 0);
    ck_assert_uint_eq(s.failures[FAILURE_REFUSED], 1);
    summary_free(&s);
}
END_TEST

/* What came too late is lost, and its latency is not. */
START_TEST(test_late)
{
    struct failure late = { FAILURE_TIMEOUT, "late" };
    struct summary s = fresh();
    summary_success(&s, MS);
    summary_late(&s, 30 * MS, &late);
    check(&s, &none, VERDICT_CRITICAL, "1 of 2 lost; the first: timeout: late");
    ck_assert_uint_eq(s.lost, 1);
    ck_assert_uint_eq(s.failures[FAILURE_TIMEOUT], 1);
    ck_assert_uint_eq(s.sent, 2);
    ck_assert_uint_eq(s.latency->total, 2);
    ck_assert_int_eq(s.latency->max, 30 * MS);
    ck_assert_double_eq_tol(summary_jitter(&s), 29e6, 1);
    summary_free(&s);
}
END_TEST

/* The mean of the differences between one and the next. */
START_TEST(test_jitter)
{
    struct summary s = fresh();
    ck_assert_double_eq_tol(summary_jitter(&s), 0, 1e-9);
    summary_success(&s, 5);
    ck_assert_double_eq_tol(summary_jitter(&s), 0, 1e-9);
    summary_success(&s, 8);
    summary_success(&s, 7);
    ck_assert_double_eq_tol(summary_jitter(&s), 2, 1e-9);
    summary_free(&s);
}
END_TEST

UNIT_MAIN("summary", test_thresholds, test_failures, test_connection, test_late, test_jitter)
