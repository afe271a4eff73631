#include "probe/histogram.h"

#include "unit.h"

#include <stdbool.h>
#include <string.h>

START_TEST(test_empty)
{
    struct histogram *h = histogram_new();
    ck_assert_int_eq(histogram_quantile(h, 0.5), 0);
    ck_assert(histogram_mean(h) < 0.1 && histogram_deviation(h) < 0.1);
    ck_assert_uint_eq(histogram_count_to(h, HISTOGRAM_MAX), 0);
    free(h);
}
END_TEST

/* Every value comes out as itself or up to a thousandth higher, never lower, wherever a step begins or ends. */
START_TEST(test_three_digits)
{
    struct histogram *h = histogram_new();
    for (int64_t power = 1; power <= HISTOGRAM_MAX; power *= 2)
        for (int64_t value = power - 2; value <= power + 2; value++) {
            if (value < 0 || value > HISTOGRAM_MAX)
                continue;
            memset(h, 0, sizeof *h);
            histogram_record(h, value);
            histogram_record(h, HISTOGRAM_MAX); /* else the maximum, which is exact, is the answer */
            int64_t got = histogram_quantile(h, 0.5);
            ck_assert_msg(got >= value && got - value <= value / 1000, "%ld: %ld", (long)value, (long)got);
            ck_assert_uint_eq(histogram_count_to(h, value), value == HISTOGRAM_MAX ? 2 : 1);
        }
    free(h);
}
END_TEST

/* The rank of a quantile is the smallest whole number that is at least q * total. */
START_TEST(test_quantiles)
{
    struct histogram *h = histogram_new();
    for (int64_t i = 100; i >= 1; i--)
        histogram_record(h, i);
    for (int i = 1; i <= 100; i++)
        ck_assert_int_eq(histogram_quantile(h, i / 100.0), i);
    ck_assert_int_eq(histogram_quantile(h, 0), 1);
    ck_assert_int_eq(histogram_quantile(h, 0.001), 1);
    ck_assert_int_eq(histogram_quantile(h, 0.991), 100);
    ck_assert_int_eq(histogram_quantile(h, 1), 100);
    ck_assert_int_eq(h->min, 1);
    ck_assert_int_eq(h->max, 100);
    ck_assert_double_eq_tol(histogram_mean(h), 50.5, 1e-9);
    ck_assert_double_eq_tol(histogram_deviation(h), 28.866, 1e-3);
    free(h);
}
END_TEST

START_TEST(test_bounds)
{
    struct histogram *h = histogram_new();
    histogram_record(h, INT64_MAX);
    histogram_record(h, INT64_MIN);
    ck_assert_int_eq(h->min, 0);
    ck_assert_int_eq(h->max, HISTOGRAM_MAX);
    ck_assert_int_eq(histogram_quantile(h, 1), HISTOGRAM_MAX);
    ck_assert_int_eq(histogram_quantile(h, 0.5), 0);
    free(h);
}
END_TEST

static char *plot(const struct histogram *h)
{
    char *text;
    size_t len;
    FILE *out = open_memstream(&text, &len);
    histogram_plot(h, out);
    fclose(out);
    return text;
}

/* As HdrHistogram prints it: five lines until the distance to 100 % has halved, then five more, until all is told. */
START_TEST(test_plot)
{
    struct histogram *h = histogram_new();
    char *text = plot(h);
    ck_assert_ptr_nonnull(strstr(text, "Total count    =            0]\n"));
    free(text);
    for (int64_t i = 1; i <= 4; i++)
        histogram_record(h, i * 1000000);
    text = plot(h);
    static const char head[] = "       Value     Percentile TotalCount 1/(1-Percentile)\n\n";
    ck_assert_int_eq(strncmp(text, head, sizeof head - 1), 0);
    static const char *const lines[] = {
        "\n       1.000 0.000000000000          1           1.00\n",
        "\n       1.000 0.200000000000          1           1.25\n",
        "\n       4.000 0.775000000000          4           4.44\n",
        "\n       4.000 1.000000000000          4\n",
        "\n#[Mean    =        2.500, StdDeviation   =        1.118]\n",
        "\n#[Max     =        4.000, Total count    =            4]\n",
    };
    for (size_t i = 0; i < sizeof lines / sizeof lines[0]; i++)
        ck_assert_msg(strstr(text, lines[i]) != NULL, "%s is not in\n%s", lines[i], text);
    free(text);
    free(h);
}
END_TEST

UNIT_MAIN("histogram", test_empty, test_three_digits, test_quantiles, test_bounds, test_plot)
