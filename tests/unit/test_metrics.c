#include "metrics.h"

#include "unit.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#define US INT64_C(1000) /* nanoseconds */
#define MS (1000 * US)
#define S  (1000 * MS)

/* The bounds that are promised, beside which scrapes are stored for years. */
static const int64_t bounds[HISTOGRAM_BOUNDS] = {
    10 * US, 25 * US,  50 * US,  100 * US, 250 * US, 500 * US,  1 * MS, 2500 * US, 5 * MS, 10 * MS, 25 * MS,
    50 * MS, 100 * MS, 250 * MS, 500 * MS, 1 * S,    2500 * MS, 5 * S,  10 * S,    60 * S, 600 * S, 3600 * S,
};

static uint64_t bucket(const struct histogram *histogram, size_t i)
{
    return counter_read(&histogram->buckets[i]);
}

static uint64_t histogram_count(const struct histogram *histogram)
{
    uint64_t count = 0;
    for (size_t i = 0; i <= HISTOGRAM_BOUNDS; i++)
        count += bucket(histogram, i);
    return count;
}

START_TEST(test_counter)
{
    counter c = 0;
    ck_assert_uint_eq(counter_read(&c), 0);
    counter_add(&c, 1);
    counter_add(&c, 0);
    counter_add(&c, UINT64_C(1) << 40);
    ck_assert_uint_eq(counter_read(&c), (UINT64_C(1) << 40) + 1);
}
END_TEST

/* A duration of just a bound is within it, one nanosecond more is in the next. */
START_TEST(test_bounds)
{
    for (size_t i = 0; i < HISTOGRAM_BOUNDS; i++) {
        struct histogram h = { 0 };
        histogram_add(&h, bounds[i], 1);
        histogram_add(&h, bounds[i] + 1, 2);
        ck_assert_uint_eq(bucket(&h, i), 1);
        ck_assert_uint_eq(bucket(&h, i + 1), 2);
        ck_assert_uint_eq(histogram_count(&h), 3);
        ck_assert_uint_eq(counter_read(&h.sum), (uint64_t)(3 * bounds[i] + 2));
    }
}
END_TEST

START_TEST(test_ends)
{
    struct histogram h = { 0 };
    histogram_add(&h, 0, 1);
    histogram_add(&h, 1, 1);
    histogram_add(&h, -5, 1); /* a clock that stands is no reason to count backwards */
    histogram_add(&h, INT64_MIN, 1);
    ck_assert_uint_eq(bucket(&h, 0), 4);
    ck_assert_uint_eq(counter_read(&h.sum), 1);
    histogram_add(&h, 100 * 3600 * S, 1);
    ck_assert_uint_eq(bucket(&h, HISTOGRAM_BOUNDS), 1);
    histogram_add(&h, 5 * MS, 0);
    ck_assert_uint_eq(histogram_count(&h), 5);
    histogram_add(&h, 5 * MS, 1000000);
    ck_assert_uint_eq(bucket(&h, 8), 1000000);
    ck_assert_uint_eq(counter_read(&h.sum), (uint64_t)(1 + 100 * 3600 * S + 1000000 * 5 * MS));
}
END_TEST

START_TEST(test_histogram_sum)
{
    struct histogram a = { 0 }, b = { 0 }, sum = { 0 };
    histogram_add(&a, 1 * MS, 2);
    histogram_add(&b, 1 * MS, 3);
    histogram_add(&b, 4000 * S, 1);
    histogram_sum(&sum, &a);
    histogram_sum(&sum, &b);
    ck_assert_uint_eq(bucket(&sum, 6), 5);
    ck_assert_uint_eq(bucket(&sum, HISTOGRAM_BOUNDS), 1);
    ck_assert_uint_eq(counter_read(&sum.sum), (uint64_t)(5 * MS + 4000 * S));
    ck_assert_uint_eq(histogram_count(&a), 2);
}
END_TEST

/* --- Requests by status ---------------------------------------------------------------------------------------------- */

static void check_place(const struct requests *requests, size_t i, unsigned status, uint64_t count)
{
    ck_assert_uint_eq(requests->answered[i].status, status);
    ck_assert_uint_eq(counter_read(&requests->answered[i].count), count);
}

START_TEST(test_statuses)
{
    struct requests requests = { 0 };
    requests_count(&requests, 200);
    requests_count(&requests, 404);
    requests_count(&requests, 200);
    requests_count(&requests, 200);
    check_place(&requests, 0, 200, 3);
    check_place(&requests, 1, 404, 1);
    check_place(&requests, 2, 0, 0);
}
END_TEST

/* More statuses than places: the last takes them, and no answer is missing. */
START_TEST(test_statuses_overflow)
{
    struct requests requests = { 0 };
    uint64_t count = 0;
    for (unsigned round = 0; round < 2; round++)
        for (unsigned i = 0; i < REQUEST_STATUSES + 4; i++)
            requests_count(&requests, 200 + i);
    for (size_t i = 0; i < REQUEST_STATUSES - 1; i++)
        check_place(&requests, i, 200 + (unsigned)i, 2);
    check_place(&requests, REQUEST_STATUSES - 1, 200 + REQUEST_STATUSES - 1, 10);
    for (size_t i = 0; i < REQUEST_STATUSES; i++)
        count += counter_read(&requests.answered[i].count);
    ck_assert_uint_eq(count, 2 * (REQUEST_STATUSES + 4));
}
END_TEST

/* Threads have met the statuses in orders of their own. */
START_TEST(test_requests_sum)
{
    struct requests a = { 0 }, b = { 0 }, none = { 0 }, sum = { 0 };
    requests_count(&a, 200);
    requests_count(&a, 404);
    requests_count(&b, 404);
    requests_count(&b, 400);
    requests_count(&b, 200);
    requests_count(&b, 200);
    histogram_add(&a.duration, 1 * MS, 2);
    histogram_add(&b.duration, 1 * MS, 4);
    requests_sum(&sum, &none);
    requests_sum(&sum, &a);
    requests_sum(&sum, &b);
    check_place(&sum, 0, 200, 3);
    check_place(&sum, 1, 404, 2);
    check_place(&sum, 2, 400, 1);
    check_place(&sum, 3, 0, 0);
    ck_assert_uint_eq(histogram_count(&sum.duration), 6);
}
END_TEST

/* --- The text format --------------------------------------------------------------------------------------------------- */

static char *text;
static size_t text_len;
static FILE *out;

static void begin(void)
{
    out = open_memstream(&text, &text_len);
    ck_assert_ptr_nonnull(out);
}

static void check_text(const char *expected)
{
    ck_assert_int_eq(fclose(out), 0);
    ck_assert_str_eq(text, expected);
    ck_assert_uint_eq(strlen(text), text_len);
    free(text);
}

static const struct label none[] = { { 0 } };

START_TEST(test_family)
{
    begin();
    metrics_family(out, "a_total", "counter", "What there is.");
    check_text("# HELP a_total What there is.\n# TYPE a_total counter\n");
}
END_TEST

START_TEST(test_value)
{
    begin();
    metrics_value(out, "a", none, 0);
    metrics_value(out, "a", (const struct label[]){ { "b", "c" }, { 0 } }, UINT64_MAX);
    metrics_value(out, "a", (const struct label[]){ { "b", "" }, { "c", "{d=\"e\"},f" }, { 0 } }, 1);
    check_text("a 0\na{b=\"c\"} 18446744073709551615\na{b=\"\",c=\"{d=\\\"e\\\"},f\"} 1\n");
}
END_TEST

/* Backslash, quote and newline, and nothing else, are escaped. */
START_TEST(test_escapes)
{
    begin();
    metrics_value(out, "a", (const struct label[]){ { "b", "\\\"\n\\n" }, { 0 } }, 1);
    metrics_value(out, "a", (const struct label[]){ { "b", "\t'%s caf\xC3\xA9" }, { 0 } }, 1);
    check_text("a{b=\"\\\\\\\"\\n\\\\n\"} 1\na{b=\"\t'%s caf\xC3\xA9\"} 1\n");
}
END_TEST

START_TEST(test_seconds)
{
    static const struct {
        int64_t nanoseconds;
        const char *text;
    } cases[] = {
        { 0, "a 0\n" },
        { 1, "a 0.000000001\n" },
        { 10, "a 0.00000001\n" },
        { 500 * MS, "a 0.5\n" },
        { S, "a 1\n" },
        { 10 * S, "a 10\n" },
        { 100 * S + 10 * MS, "a 100.01\n" },
        { 1795661448 * S + 477936061, "a 1795661448.477936061\n" },
        { INT64_MAX, "a 9223372036.854775807\n" },
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        begin();
        metrics_seconds(out, "a", none, cases[i].nanoseconds);
        check_text(cases[i].text);
    }
}
END_TEST

START_TEST(test_histogram)
{
    struct histogram h = { 0 };
    histogram_add(&h, 10 * US, 1);
    histogram_add(&h, 1500 * MS, 2);
    histogram_add(&h, 3601 * S, 1);
    begin();
    metrics_histogram(out, "t", (const struct label[]){ { "x", "y" }, { 0 } }, &h);
    check_text("t_bucket{x=\"y\",le=\"0.00001\"} 1\n"
               "t_bucket{x=\"y\",le=\"0.000025\"} 1\n"
               "t_bucket{x=\"y\",le=\"0.00005\"} 1\n"
               "t_bucket{x=\"y\",le=\"0.0001\"} 1\n"
               "t_bucket{x=\"y\",le=\"0.00025\"} 1\n"
               "t_bucket{x=\"y\",le=\"0.0005\"} 1\n"
               "t_bucket{x=\"y\",le=\"0.001\"} 1\n"
               "t_bucket{x=\"y\",le=\"0.0025\"} 1\n"
               "t_bucket{x=\"y\",le=\"0.005\"} 1\n"
               "t_bucket{x=\"y\",le=\"0.01\"} 1\n"
               "t_bucket{x=\"y\",le=\"0.025\"} 1\n"
               "t_bucket{x=\"y\",le=\"0.05\"} 1\n"
               "t_bucket{x=\"y\",le=\"0.1\"} 1\n"
               "t_bucket{x=\"y\",le=\"0.25\"} 1\n"
               "t_bucket{x=\"y\",le=\"0.5\"} 1\n"
               "t_bucket{x=\"y\",le=\"1\"} 1\n"
               "t_bucket{x=\"y\",le=\"2.5\"} 3\n"
               "t_bucket{x=\"y\",le=\"5\"} 3\n"
               "t_bucket{x=\"y\",le=\"10\"} 3\n"
               "t_bucket{x=\"y\",le=\"60\"} 3\n"
               "t_bucket{x=\"y\",le=\"600\"} 3\n"
               "t_bucket{x=\"y\",le=\"3600\"} 3\n"
               "t_bucket{x=\"y\",le=\"+Inf\"} 4\n"
               "t_sum{x=\"y\"} 3604.00001\n"
               "t_count{x=\"y\"} 4\n");
}
END_TEST

START_TEST(test_histogram_without_labels)
{
    struct histogram h = { 0 };
    begin();
    metrics_histogram(out, "t", none, &h);
    ck_assert_int_eq(fclose(out), 0);
    ck_assert_ptr_eq(strstr(text, "t_bucket{le=\"0.00001\"} 0\nt_bucket{le=\"0.000025\"} 0\n"), text);
    ck_assert_ptr_nonnull(strstr(text, "t_bucket{le=\"+Inf\"} 0\nt_sum 0\nt_count 0\n"));
    free(text);
}
END_TEST

/* --- Read while it is written ------------------------------------------------------------------------------------------ */

#define ROUNDS 200000

static struct requests shared;

static void *count_much(void *arg)
{
    for (unsigned i = 0; i < ROUNDS; i++) {
        requests_count(&shared, 200 + i % 3);
        histogram_add(&shared.duration, (int64_t)i * US, 1);
    }
    return arg;
}

/* Sums never go back, and in the end nothing is missing. */
START_TEST(test_read_by_another_thread)
{
    pthread_t thread;
    uint64_t last = 0, count = 0;
    ck_assert_int_eq(pthread_create(&thread, NULL, count_much, NULL), 0);
    for (int i = 0; i < 1000 || count < 3; i++) {
        struct requests sum = { 0 };
        requests_sum(&sum, &shared);
        count = 0;
        for (size_t k = 0; k < REQUEST_STATUSES; k++)
            count += counter_read(&sum.answered[k].count);
        if (count < last)
            ck_abort_msg("%llu after %llu", (unsigned long long)count, (unsigned long long)last);
        last = count;
    }
    pthread_join(thread, NULL);
    ck_assert_uint_eq(histogram_count(&shared.duration), ROUNDS);
    ck_assert_uint_eq(shared.answered[0].count + shared.answered[1].count + shared.answered[2].count, ROUNDS);
}
END_TEST

UNIT_MAIN("metrics", test_counter, test_bounds, test_ends, test_histogram_sum, test_statuses, test_statuses_overflow,
          test_requests_sum, test_family, test_value, test_escapes, test_seconds, test_histogram,
          test_histogram_without_labels, test_read_by_another_thread)
