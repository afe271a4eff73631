#include "text.h"

#include "unit.h"

#include <string.h>

/* Bytes of a literal, NULs included. */
#define BYTES(literal) (literal), sizeof(literal) - 1

/* Writes a code point in n bytes the way UTF-8 would, whether that is allowed or not. */
static void encode(unsigned long code, size_t n, char *out)
{
    static const unsigned char lead[] = { 0, 0x00, 0xC0, 0xE0, 0xF0 };
    for (size_t i = n - 1; i > 0; i--, code >>= 6)
        out[i] = (char)(0x80 | (code & 0x3F));
    out[0] = (char)(lead[n] | code);
}

/* Every number that one to four bytes can hold, right only in its shortest form. */
START_TEST(test_utf8_every_code_point)
{
    static const unsigned long end[] = { 0, 0x80, 0x800, 0x10000, 0x200000 };
    char bytes[4];
    for (size_t n = 1; n <= 4; n++)
        for (unsigned long code = 0; code < end[n]; code++) {
            bool surrogate = code >= 0xD800 && code <= 0xDFFF;
            bool right = code >= end[n - 1] && code <= 0x10FFFF && !surrogate;
            encode(code, n, bytes);
            if (text_is_utf8(bytes, n) != right)
                ck_abort_msg("U+%04lX in %d bytes is %s", code, (int)n, right ? "right" : "wrong");
            if (n > 1 && text_is_utf8(bytes, n - 1))
                ck_abort_msg("U+%04lX in %d bytes lacks the last one", code, (int)n);
        }
}
END_TEST

START_TEST(test_utf8)
{
    static const struct {
        const char *data;
        size_t len;
        bool right;
    } cases[] = {
        { BYTES(""), true },
        { BYTES("abc"), true },
        { BYTES("a\0b"), true },
        { BYTES("\xC3\xA9\xE2\x82\xAC\xF0\x9F\x98\x80!"), true },
        { BYTES("\xEF\xBB\xBF"), true },
        { BYTES("\xEF\xBF\xBF"), true },          /* a noncharacter is a scalar value */
        { BYTES("\xED\x9F\xBF"), true },          /* U+D7FF */
        { BYTES("\xED\xA0\x80"), false },         /* U+D800 */
        { BYTES("\xED\xBF\xBF"), false },         /* U+DFFF */
        { BYTES("\xEE\x80\x80"), true },          /* U+E000 */
        { BYTES("\xF4\x8F\xBF\xBF"), true },      /* U+10FFFF */
        { BYTES("\xF4\x90\x80\x80"), false },     /* U+110000 */
        { BYTES("\xF5\x80\x80\x80"), false },     /* no such lead byte */
        { BYTES("\xF8\x88\x80\x80\x80"), false }, /* five bytes */
        { BYTES("\xFE"), false },
        { BYTES("\xFF"), false },
        { BYTES("\xC0\x80"), false }, /* NUL, overlong */
        { BYTES("\xC1\xBF"), false },
        { BYTES("\xE0\x9F\xBF"), false },
        { BYTES("\xF0\x8F\xBF\xBF"), false },
        { BYTES("\x80"), false }, /* a continuation alone */
        { BYTES("a\xBF"), false },
        { BYTES("\xC3"), false }, /* truncated */
        { BYTES("\xE2\x82"), false },
        { BYTES("\xF0\x9F\x98"), false },
        { BYTES("\xC3(a"), false }, /* a lead byte and something else */
        { BYTES("\xE2(\xAC"), false },
        { BYTES("\xE2\x82("), false },
        { BYTES("\xE2\x82\xC3"), false },
        { BYTES("\xF0\x9F\x98("), false },
        { BYTES("\xF0\x9F(\x80"), false },
        { BYTES("good \xC3\xA9 bad \xE9"), false },
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        ck_assert_msg(text_is_utf8(cases[i].data, cases[i].len) == cases[i].right, "case %d", (int)i);
}
END_TEST

/* Only the bytes that belong to it are looked at. */
START_TEST(test_utf8_ends_in_time)
{
    ck_assert(!text_is_utf8("\xE2\x82\xAC", 2));
    ck_assert(text_is_utf8("a\xFF", 1));
}
END_TEST

START_TEST(test_control)
{
    static const struct {
        const char *data;
        size_t len;
        bool control;
    } cases[] = {
        { BYTES(""), false },
        { BYTES(" ~"), false },
        { BYTES("a\0b"), true },
        { BYTES("a\tb"), true },
        { BYTES("\n"), true },
        { BYTES("\x1F"), true },
        { BYTES("\x7F"), true },
        { BYTES("\xC2\x80"), true },  /* U+0080 */
        { BYTES("a\xC2\x9F"), true }, /* U+009F */
        { BYTES("\xC2\xA0"), false }, /* a no-break space is none */
        { BYTES("\xC3\x80"), false },
        { BYTES("\xE2\x82\x80"), false }, /* 0x80 to 0x9F inside other characters */
        { BYTES("\xF0\x9F\x98\x80"), false },
        { BYTES("\xC2"), false }, /* truncated */
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        ck_assert_msg(text_has_control(cases[i].data, cases[i].len) == cases[i].control, "case %d", (int)i);
    ck_assert(!text_has_control("\xC2\x80", 1));
}
END_TEST

START_TEST(test_control_every_ascii)
{
    for (int c = 0; c < 0x80; c++)
        ck_assert_int_eq(text_has_control((const char[]){ (char)c }, 1), c < 0x20 || c == 0x7F);
}
END_TEST

START_TEST(test_distance)
{
    static const struct {
        const char *a, *b;
        unsigned distance;
    } cases[] = {
        { "", "", 0 },
        { "", "abc", 3 },
        { "threads", "threads", 0 },
        { "thread", "threads", 1 },   /* insert */
        { "threadds", "threads", 1 }, /* delete */
        { "thraads", "threads", 1 },  /* replace */
        { "thraeds", "threads", 2 },  /* two swapped letters are two edits */
        { "hreads", "threads", 1 },
        { "Threads", "threads", 1 },
        { "kitten", "sitting", 3 },
        { "intention", "execution", 5 },
        { "abc", "xyz", 3 },
        { "abc", "bcd", 2 },
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        ck_assert_uint_eq(text_distance(cases[i].a, cases[i].b), cases[i].distance);
        ck_assert_uint_eq(text_distance(cases[i].b, cases[i].a), cases[i].distance);
    }
}
END_TEST

START_TEST(test_distance_of_long_texts)
{
    char longest[64], longer[65];
    memset(longest, 'x', 63);
    longest[63] = '\0';
    memset(longer, 'x', 64);
    longer[64] = '\0';
    ck_assert_uint_eq(text_distance(longest, longest), 0);
    ck_assert_uint_eq(text_distance(longest, ""), 63);
    ck_assert_uint_eq(text_distance("", longest), 63);
    ck_assert_uint_eq(text_distance(longer, longest), 99);
    ck_assert_uint_eq(text_distance(longest, longer), 99);
}
END_TEST

START_TEST(test_number)
{
    static const struct {
        uint64_t number;
        const char *text;
    } rows[] = {
        { 0, "0" },
        { 9, "9" },
        { 10, "10" },
        { 65535, "65535" },
        { 1000000, "1000000" },
        { UINT64_MAX, "18446744073709551615" },
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        char buf[TEXT_NUMBER];
        ck_assert_uint_eq(text_number(buf, rows[i].number), strlen(rows[i].text));
        ck_assert_mem_eq(buf, rows[i].text, strlen(rows[i].text));
    }
}
END_TEST

UNIT_MAIN("text", test_number, test_utf8_every_code_point, test_utf8, test_utf8_ends_in_time, test_control,
          test_control_every_ascii, test_distance, test_distance_of_long_texts)
