#include "bytes.h"

#include "unit.h"

#include <stdio.h>
#include <string.h>

/* All that is queued, as one string. */
static const char *joined(const struct output *out)
{
    static char text[1 << 20];
    size_t len = 0;
    for (int i = 0; i < out->count; i++) {
        memcpy(text + len, out->vec[i].iov_base, out->vec[i].iov_len);
        len += out->vec[i].iov_len;
    }
    ck_assert_uint_eq(len, out->len);
    text[len] = '\0';
    return text;
}

START_TEST(test_skip)
{
    struct bytes b = { .data = "abc", .len = 3 };
    bytes_skip(&b, 2);
    ck_assert_uint_eq(b.len, 1);
    ck_assert_int_eq(b.data[0], 'c');
}
END_TEST

START_TEST(test_copy_and_borrow_keep_order)
{
    struct output out;
    char word[] = "one";
    ck_assert_int_eq(output_init(&out), 0);
    output_copy(&out, word, 3);
    word[0] = 'X'; /* a copy does not see this */
    output_borrow(&out, " two", 4);
    output_copy(&out, " three", 6);
    ck_assert_str_eq(joined(&out), "one two three");
    output_reset(&out);
    ck_assert_uint_eq(out.len, 0);
    output_copy(&out, "", 0);
    ck_assert_int_eq(out.count, 0);
    output_free(&out);
    output_free(&out); /* leaves nothing dangling */
}
END_TEST

START_TEST(test_copies_that_touch_are_one_vector)
{
    struct output out;
    ck_assert_int_eq(output_init(&out), 0);
    for (int i = 0; i < 1000; i++)
        output_copy(&out, "0123456789", 10);
    ck_assert_int_eq(out.count, 1);
    ck_assert_uint_eq(out.len, 10000);
    output_free(&out);
}
END_TEST

/* More borrowed pieces than there are vectors, and more copied bytes than one block holds: none is lost. */
START_TEST(test_more_than_fits)
{
    struct output out;
    char expected[200000] = "", piece[8];
    static const char letters[] = "abcdefghijklmnopqrstuvwxyz";
    size_t len = 0;
    ck_assert_int_eq(output_init(&out), 0);
    for (int i = 0; i < 20000; i++) {
        snprintf(piece, sizeof piece, "%07d", i);
        output_copy(&out, piece, 7);
        output_borrow(&out, letters + i % 24, 2);
        memcpy(expected + len, piece, 7);
        memcpy(expected + len + 7, letters + i % 24, 2);
        len += 9;
    }
    expected[len] = '\0';
    ck_assert(!out.failed);
    ck_assert_str_eq(joined(&out), expected);
    ck_assert(output_full(&out));
    output_reset(&out);
    ck_assert(!output_full(&out));
    output_free(&out);
}
END_TEST

/* Written in place, of which less is queued than there was room for; between all else, and when all vectors are taken. */
START_TEST(test_reserve)
{
    static char expected[1 << 20];
    static const char letters[] = "abcdefghijklmnopqrstuvwxyz";
    struct output out;
    size_t len = 0;
    ck_assert_int_eq(output_init(&out), 0);
    for (int i = 0; i < 2000; i++) {
        char *room = output_reserve(&out, 1024);
        ck_assert_ptr_nonnull(room);
        memset(room, '!', 1024);
        size_t n = (size_t)snprintf(room, 1024, "%d.", i);
        output_commit(&out, n);
        output_borrow(&out, letters + i % 24, 2);
        output_copy(&out, "-", 1);
        len += (size_t)snprintf(expected + len, sizeof expected - len, "%d.%.2s-", i, letters + i % 24);
    }
    ck_assert(!out.failed);
    ck_assert_str_eq(joined(&out), expected);
    out.failed = true;
    ck_assert_ptr_null(output_reserve(&out, 1));
    output_free(&out);
}
END_TEST

UNIT_MAIN("bytes", test_skip, test_copy_and_borrow_keep_order, test_copies_that_touch_are_one_vector,
          test_more_than_fits, test_reserve)
