#include "probe/report.h"

#include "unit.h"

#include <string.h>

/* Counters keep all their digits; times have those of a nanosecond at least. */
START_TEST(test_prometheus_numbers)
{
    struct target target = { .url = "tcp://x" };
    struct summary s;
    char *text = NULL;
    size_t len = 0;
    struct report r = { .out = open_memstream(&text, &len), .format = REPORT_PROMETHEUS };
    ck_assert_ptr_nonnull(r.out);
    ck_assert_int_eq(summary_init(&s, &target), 0);
    summary_success(&s, 1234567);
    s.sent = 12345678901234;
    report_summaries(&r, &s, 1);
    fclose(r.out);
    ck_assert_msg(strstr(text, "\nechoprobe_sent{url=\"tcp://x\"} 12345678901234\n") != NULL, "%s", text);
    ck_assert_msg(strstr(text, "\nechoprobe_latency_seconds_sum{url=\"tcp://x\"} 0.001234567\n") != NULL, "%s", text);
    free(text);
    summary_free(&s);
}
END_TEST

UNIT_MAIN("report", test_prometheus_numbers)
