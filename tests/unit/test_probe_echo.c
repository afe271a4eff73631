#include "probe/echo.h"

#include "unit.h"

#include <string.h>

static const struct bytes message = { .data = "Hello World!", .len = 12 };

static struct bytes text(const char *t)
{
    return (struct bytes){ .data = t, .len = strlen(t) };
}

/* Splits at every byte: the verdict on the whole must be the same. An answer that ends early is ended by end(). */
static void check(bool half_close, const char *expect, const char *answer, bool ends, enum failure_class want,
                  const char *sentence)
{
    for (size_t cut = 0; cut <= strlen(answer); cut++) {
        struct exchange *x = echo_new(message, half_close, expect);
        struct failure f = { 0 };
        enum exchange_next next = EXCHANGE_MORE;
        if (cut > 0)
            next = x->input(x, (struct bytes){ .data = answer, .len = cut }, &f);
        if (next == EXCHANGE_MORE && answer[cut] != '\0')
            next = x->input(x, text(answer + cut), &f);
        if (next == EXCHANGE_MORE && ends)
            next = x->eof(x, true, &f);
        enum exchange_next verdict = want == FAILURE_NONE ? EXCHANGE_DONE : EXCHANGE_FAILED;
        /* without a half-close the echo is done with its last byte: what comes later is not looked at */
        if (!half_close && want == FAILURE_MISMATCH && cut == message.len && strlen(answer) > cut)
            verdict = EXCHANGE_DONE;
        else
            ck_assert_int_eq(f.class, want);
        ck_assert_int_eq(next, verdict);
        ck_assert_msg(verdict == EXCHANGE_DONE || strstr(f.text, sentence) != NULL, "%s", f.text);
        ck_assert_int_eq(x->whole, next == EXCHANGE_DONE || expect != NULL);
        x->free(x);
    }
}

START_TEST(test_verdicts)
{
    check(false, NULL, "Hello World!", false, FAILURE_NONE, "");
    check(true, NULL, "Hello World!", true, FAILURE_NONE, "");
    check(false, "World", "Hello World!", false, FAILURE_NONE, "");
    check(false, "world", "Hello World!", false, FAILURE_MISMATCH, "--expect");
    check(false, NULL, "Hello World?", false, FAILURE_MISMATCH, "byte 12 of the echo is 0x3f, not 0x21");
    check(false, NULL, "hello World!", false, FAILURE_MISMATCH, "byte 1 of the echo is 0x68, not 0x48");
    check(true, NULL, "Hello World!!", true, FAILURE_MISMATCH, "more came back than the 12 bytes");
    check(false, NULL, "Hello World!!", true, FAILURE_MISMATCH, "more came back than the 12 bytes");
    check(false, NULL, "Hello", true, FAILURE_SHORT, "ended after 5 of 12 bytes");
    check(true, NULL, "", true, FAILURE_SHORT, "ended after 0 of 12 bytes");
}
END_TEST

START_TEST(test_empty)
{
    struct failure f = { 0 };
    struct exchange *x = echo_new((struct bytes){ .data = "", .len = 0 }, true, NULL);
    ck_assert_int_eq(x->eof(x, true, &f), EXCHANGE_DONE);
    x->free(x);
    x = echo_new((struct bytes){ .data = "", .len = 0 }, true, NULL);
    ck_assert_int_eq(x->input(x, text("x"), &f), EXCHANGE_FAILED);
    ck_assert_int_eq(f.class, FAILURE_MISMATCH);
    x->free(x);
}
END_TEST

START_TEST(test_nonce)
{
    size_t len, other;
    char *a = echo_nonce(17, 0, &len), *b = echo_nonce(17, 0, &other);
    ck_assert_uint_eq(len, other);
    ck_assert(memcmp(a, b, len) != 0);
    ck_assert_mem_eq(a, "echoprobe 17 ", 13);
    ck_assert_int_eq(a[len - 1], '\n');
    free(a);
    free(b);
    for (size_t size = 1; size <= 100; size++) {
        a = echo_nonce(1, size, &len);
        ck_assert_uint_eq(len, size);
        if (size >= ECHO_LINE)
            ck_assert_int_eq(a[len - 1], '\n');
        free(a);
    }
    a = echo_nonce(1, ECHO_LINE, &len);
    b = echo_nonce(1, ECHO_LINE, &len);
    ck_assert(memcmp(a, b, ECHO_LINE) != 0); /* 60 random bits */
    free(a);
    free(b);
}
END_TEST

/* Of 16 nonces of one byte, 15 are that of the first by chance only once in 2^120. */
START_TEST(test_short_nonce)
{
    size_t len, same = 0;
    char first = 0;
    for (uint64_t i = 0; i < 16; i++) {
        char *nonce = echo_nonce(i, 1, &len);
        first = i == 0 ? nonce[0] : first;
        same += nonce[0] == first;
        free(nonce);
    }
    ck_assert_uint_lt(same, 16);
}
END_TEST

UNIT_MAIN("echo", test_verdicts, test_empty, test_nonce, test_short_nonce)
