#include "probe/stream.h"

#include "unit.h"

#include <stdbool.h>
#include <string.h>

/* Wherever a view begins, it shows the same endless stream. */
static void check(const struct stream *s, const char *period, uint64_t to)
{
    for (uint64_t at = 0; at < to; at++) {
        struct bytes view = stream_at(s, at, 100);
        ck_assert(view.len > 0 && view.len <= 100);
        for (size_t i = 0; i < view.len; i++)
            ck_assert_int_eq(view.data[i], period[(at + i) % s->period]);
    }
}

START_TEST(test_repeat)
{
    static const struct bytes text = { .data = "GET / HTTP/1.1\r\n\r\n", .len = 18 };
    struct stream s;
    ck_assert_int_eq(stream_repeat(&s, text, 4), 0);
    ck_assert_uint_eq(s.request, 18);
    ck_assert_uint_eq(stream_at(&s, 0, 1000).len, 4 * 18);
    ck_assert_uint_eq(stream_at(&s, 17, 1000).len, 4 * 18);
    check(&s, text.data, 100);
    stream_free(&s);
}
END_TEST

START_TEST(test_random)
{
    struct stream s, other;
    ck_assert_int_eq(stream_random(&s, 64, 16), 0);
    ck_assert_int_eq(stream_random(&other, 64, 16), 0);
    ck_assert(memcmp(s.data, other.data, s.period) != 0);
    char *period = malloc(s.period);
    memcpy(period, s.data, s.period);
    check(&s, period, 3 * s.period);
    /* requests that follow each other, and those of other lanes, are not the same */
    for (uint64_t at = 64; at < 20 * 64; at++)
        ck_assert(memcmp(stream_at(&s, 0, 64).data, stream_at(&s, at, 64).data, 64) != 0);
    free(period);
    stream_free(&s);
    stream_free(&other);
}
END_TEST

/* From one byte to far more than a view can show. */
START_TEST(test_sizes)
{
    static const size_t sizes[] = { 1, 4092, 4093, 4094, 65536, 1 << 24 };
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        struct stream s;
        ck_assert_int_eq(stream_random(&s, sizes[i], 1024), 0);
        size_t len = stream_at(&s, s.period - 1, UINT64_MAX).len;
        ck_assert(len > 0 && len <= 262144);
        ck_assert_int_eq(s.data[s.period - 1 + len - 1], s.data[(s.period - 1 + len - 1) % s.period]);
        stream_free(&s);
    }
}
END_TEST

UNIT_MAIN("stream", test_repeat, test_random, test_sizes)
