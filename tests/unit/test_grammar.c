#include "http/grammar.h"

#include "unit.h"

#include <stdio.h>

#define BYTES(literal) ((struct bytes){ .data = "" literal, .len = sizeof(literal) - 1 })

static bool same(struct bytes b, const char *text)
{
    return b.len == strlen(text) && memcmp(b.data, text, b.len) == 0;
}

START_TEST(test_sets)
{
    ck_assert_uint_eq(grammar_span((const unsigned char *)"a-Z9(", 0, 5, IN_TOKEN), 4);
    ck_assert_uint_eq(grammar_span((const unsigned char *)"/a?b#c", 0, 6, IN_TARGET), 4);
    ck_assert_uint_eq(grammar_span((const unsigned char *)"a \t\xFF\x7F", 0, 5, IN_VALUE), 4);
    ck_assert_uint_eq(grammar_span((const unsigned char *)"a.b:80", 0, 6, IN_HOST), 3);
    ck_assert_uint_eq(grammar_span((const unsigned char *)"/a@%41", 0, 6, IN_PATH), 3);
    ck_assert_uint_eq(grammar_span((const unsigned char *)"aaaa", 1, 2, IN_TOKEN), 2);
}
END_TEST

START_TEST(test_words)
{
    ck_assert(grammar_is(BYTES("Close"), "close"));
    ck_assert(!grammar_is(BYTES("closed"), "close"));
    ck_assert(same(grammar_trim(BYTES(" \t a b\t ")), "a b"));
    ck_assert(same(grammar_trim(BYTES(" \t")), ""));
}
END_TEST

START_TEST(test_list)
{
    struct bytes list = BYTES("a , ,b,"), element;
    ck_assert(grammar_list_next(&list, &element) && same(element, "a"));
    ck_assert(grammar_list_next(&list, &element) && same(element, ""));
    ck_assert(grammar_list_next(&list, &element) && same(element, "b"));
    ck_assert(grammar_list_next(&list, &element) && same(element, ""));
    ck_assert(!grammar_list_next(&list, &element));
    list = BYTES("");
    ck_assert(grammar_list_next(&list, &element) && same(element, ""));
    ck_assert(!grammar_list_next(&list, &element));
}
END_TEST

START_TEST(test_length)
{
    uint64_t length;
    ck_assert(grammar_length(BYTES("0042"), &length) && length == 42);
    ck_assert(grammar_length(BYTES("9223372036854775807"), &length) && length == INT64_MAX);
    ck_assert(!grammar_length(BYTES("9223372036854775808"), &length));
    ck_assert(!grammar_length(BYTES(""), &length));
    ck_assert(!grammar_length(BYTES("+1"), &length));
    ck_assert(!grammar_length(BYTES("1 "), &length));
}
END_TEST

START_TEST(test_host)
{
    static const char *const sound[] = { "", "a", "a:", "a.b:80", "[::1]", "[::1]:8080", "[v1.a:b]:80", "%41" };
    static const char *const wrong[] = { "[::1",   "[]",  "[a]", "[v.a]", "a:b",   "a b",
                                         "u@host", "a/b", "%4",  "a:80:", "[::1]a" };
    struct bytes port;
    size_t len;
    for (size_t i = 0; i < sizeof sound / sizeof sound[0]; i++)
        ck_assert_msg(grammar_host((struct bytes){ sound[i], strlen(sound[i]) }, &len, &port), "%s", sound[i]);
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++)
        ck_assert_msg(!grammar_host((struct bytes){ wrong[i], strlen(wrong[i]) }, &len, &port), "%s", wrong[i]);
    ck_assert(grammar_host(BYTES("[::1]:8080"), &len, &port) && len == 5 && same(port, "8080"));
}
END_TEST

START_TEST(test_target)
{
    static const struct {
        const char *method, *target, *uri; /* uri NULL: refused */
    } cases[] = {
        { "GET", "/a?b", "/a?b" },     { "GET", "http://h/a", "/a" }, { "GET", "HTTP://h", "/" },
        { "GET", "http://h?q", "?q" }, { "OPTIONS", "http://h", "" }, { "OPTIONS", "*", "" },
        { "CONNECT", "h:80", "" },     { "GET", "*", NULL },          { "GET", "h:80", NULL },
        { "GET", "ftp://h/", NULL },   { "GET", "http:///a", NULL },  { "GET", "/%4", NULL },
        { "GET", "/[", NULL },         { "CONNECT", "h", NULL },      { "CONNECT", "h:65536", NULL },
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct bytes method = { cases[i].method, strlen(cases[i].method) }, uri;
        bool sound = grammar_target(method, (struct bytes){ cases[i].target, strlen(cases[i].target) }, &uri);
        ck_assert_msg(sound == (cases[i].uri != NULL), "%s %s", cases[i].method, cases[i].target);
        ck_assert_msg(!sound || same(uri, cases[i].uri), "%s %s", cases[i].method, cases[i].target);
    }
}
END_TEST

/* A line that is wrong stops at the byte that is; one that might go on is used up. */
START_TEST(test_chunk_line)
{
    static const struct {
        const char *line;
        bool sound;
        uint64_t size;
        size_t left;
    } cases[] = {
        { "5", true, 5, 0 },
        { "fF;a=b;c;d=\"e\\\"f\"", true, 255, 0 },
        { "1 ; a = b", true, 1, 0 },
        { "", false, 0, 0 },
        { "5;", false, 5, 0 },
        { "5;a=\"b", false, 5, 0 },
        { "g", false, 0, 1 },
        { "5 ", false, 5, 0 },
        { "5x", false, 5, 1 },
        { "-1", false, 0, 2 },
        { "5;=a", false, 5, 2 },
        { "5;a=\"\x01\"", false, 5, 2 },
        { "ffffffffffffffff", true, UINT64_MAX, 0 },
        { "10000000000000000", false, UINT64_MAX / 16 + 1, 1 },
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct bytes line = { cases[i].line, strlen(cases[i].line) };
        uint64_t size;
        ck_assert_msg(grammar_chunk_line(&line, &size) == cases[i].sound, "%s", cases[i].line);
        ck_assert_msg(size == cases[i].size, "%s: %llx", cases[i].line, (unsigned long long)size);
        ck_assert_msg(line.len == cases[i].left, "%s: %zu", cases[i].line, line.len);
    }
}
END_TEST

UNIT_MAIN("grammar", test_sets, test_words, test_list, test_length, test_host, test_target, test_chunk_line)
