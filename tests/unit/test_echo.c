#include "handlers/handlers.h"

#include "feed.h"
#include "unit.h"

static struct feed f;

/* RFC 862: what comes goes back, however it is cut. */
START_TEST(test_bytes_come_back)
{
    static const struct bytes samples[] = {
        { "", 0 }, { "x", 1 }, { "hello\n", 6 }, { "\0\xFF\r\n\x80\0", 6 }, { "GET / HTTP/1.1\r\nHost: a\r\n\r\n", 27 },
    };
    for (size_t i = 0; i < sizeof samples / sizeof samples[0]; i++) {
        feed_every_way(&f, &echo_handler, NULL, samples[i], feed_nothing);
        ck_assert_uint_eq(f.len, samples[i].len);
        ck_assert_mem_eq(f.out, samples[i].data, f.len);
        ck_assert_int_eq(f.verdict, HANDLER_MORE);
        ck_assert_uint_eq(f.unread_len, 0);
    }
}
END_TEST

START_TEST(test_every_byte)
{
    char all[1024];
    for (size_t i = 0; i < sizeof all; i++)
        all[i] = (char)(i + i / 256);
    feed_every_way(&f, &echo_handler, NULL, (struct bytes){ all, sizeof all }, feed_nothing);
    ck_assert_uint_eq(f.len, sizeof all);
    ck_assert_mem_eq(f.out, all, sizeof all);
}
END_TEST

/* As much as the core shows at once, again and again: nothing stays unread. */
START_TEST(test_large_inputs)
{
    static char block[65536];
    feed_open(&f, &echo_handler, NULL);
    for (size_t round = 0; round < 16; round++) {
        memset(block, (int)('a' + round), sizeof block);
        feed_input(&f, block, sizeof block);
        ck_assert_uint_eq(f.unread_len, 0);
        ck_assert_uint_eq(f.len, (round + 1) * sizeof block);
        ck_assert_mem_eq(f.out + round * sizeof block, block, sizeof block);
    }
    feed_close(&f);
}
END_TEST

/* A peer that half-closes gets everything, and then the end. */
START_TEST(test_eof)
{
    feed_every_way(&f, &echo_handler, NULL, BYTES("hello"), feed_eof);
    ck_assert_str_eq(f.out, "hello");
    ck_assert_int_eq(f.verdict, HANDLER_FINISH);
}
END_TEST

/* A stopping server does not cut what is still being echoed. */
START_TEST(test_drain)
{
    feed_open(&f, &echo_handler, NULL);
    feed_input(&f, "one ", 4);
    feed_drain(&f);
    ck_assert_int_eq(f.verdict, HANDLER_MORE);
    feed_input(&f, "two", 3);
    feed_eof(&f);
    ck_assert_int_eq(f.verdict, HANDLER_FINISH);
    ck_assert_str_eq(f.out, "one two");
    feed_close(&f);
}
END_TEST

START_TEST(test_no_time_limit)
{
    feed_every_way(&f, &echo_handler, NULL, BYTES("hello"), feed_nothing);
    ck_assert_uint_eq(f.timeout, 0);
}
END_TEST

UNIT_MAIN("echo", test_bytes_come_back, test_every_byte, test_large_inputs, test_eof, test_drain, test_no_time_limit)
