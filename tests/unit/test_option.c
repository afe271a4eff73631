#include "option.h"

#include "unit.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

struct settings {
    uint64_t number, size, time, huge;
    unsigned word;
    const char *text;
    char guard;
};

static const char *const words[] = { "error", "warning", "info", NULL };

static const struct option_row table[] = {
    NUMBER_ROW("count", struct settings, number, "10", 2, 256, NULL, "a number with bounds"),
    NUMBER_ROW("threads", struct settings, number, "1", 1, 256, "auto", "a number with a word for 0"),
    NUMBER_ROW("huge", struct settings, huge, "0", 0, UINT64_MAX, NULL, "any number"),
    SIZE_ROW("size", struct settings, size, "8k", 64, 1 << 30, NULL, "a size"),
    SIZE_ROW("odd", struct settings, size, "8k", 1000, 2000, NULL, "bounds that are no whole k"),
    TIME_ROW("time", struct settings, time, "30s", 1, OPTION_DAY, "never", "a time"),
    TIME_ROW("pause", struct settings, time, "0ms", 0, 1500, NULL, "may be 0"),
    WORD_ROW("level", struct settings, word, "info", words, "a word"),
    TEXT_ROW("text", struct settings, text, "x", 2, 5, "a text"),
    TEXT_ROW("any", struct settings, text, "", 0, 5, "may be empty"),
    { 0 },
};

static const struct option_row *row(const char *name)
{
    const struct option_row *found = option_find(table, name);
    ck_assert_ptr_nonnull(found);
    return found;
}

/* The number, size or time that `key = text` gives. */
static uint64_t scaled(const char *key, const char *text)
{
    struct settings settings = { .number = 77, .size = 77, .time = 77, .huge = 77 };
    char err[256] = "";
    ck_assert_msg(option_parse(row(key), text, &settings, err, sizeof err) == 0, "%s = %s: %s", key, text, err);
    return *(const uint64_t *)((const char *)&settings + row(key)->offset);
}

/* The sentence that `key = text` gets; nothing may have been written. */
static const char *refused(const char *key, const char *text)
{
    static char err[256];
    struct settings settings, untouched;
    memset(&settings, 0x55, sizeof settings);
    untouched = settings;
    err[0] = '\0';
    ck_assert_msg(option_parse(row(key), text, &settings, err, sizeof err) == -1, "%s = %s", key, text);
    ck_assert_mem_eq(&settings, &untouched, sizeof settings);
    return err;
}

START_TEST(test_values)
{
    static const struct {
        const char *key, *text;
        uint64_t value;
    } cases[] = {
        { "count", "2", 2 },
        { "count", "256", 256 },
        { "count", "0010", 10 },
        { "threads", "1", 1 },
        { "threads", "auto", 0 },
        { "huge", "0", 0 },
        { "huge", "18446744073709551609", UINT64_MAX - 6 },
        { "size", "64", 64 },
        { "size", "1k", 1024 },
        { "size", "16k", 16384 },
        { "size", "1M", 1 << 20 },
        { "size", "1G", 1 << 30 },
        { "size", "1024M", 1 << 30 },
        { "size", "1073741824", 1 << 30 },
        { "odd", "1000", 1000 },
        { "odd", "2000", 2000 },
        { "odd", "1k", 1024 },
        { "time", "1ms", 1 },
        { "time", "250ms", 250 },
        { "time", "30s", 30000 },
        { "time", "10m", 600000 },
        { "time", "24h", OPTION_DAY },
        { "time", "86400s", OPTION_DAY },
        { "time", "86400000ms", OPTION_DAY },
        { "time", "never", 0 },
        { "pause", "0ms", 0 },
        { "pause", "0h", 0 },
        { "pause", "1s", 1000 },
        { "pause", "1500ms", 1500 },
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        ck_assert_msg(scaled(cases[i].key, cases[i].text) == cases[i].value, "%s = %s", cases[i].key, cases[i].text);
}
END_TEST

START_TEST(test_out_of_bounds)
{
    static const char count[] = "must be from 2 to 256", threads[] = "must be from 1 to 256, or auto",
                      size[] = "must be from 64 to 1G", odd[] = "must be from 1000 to 2000",
                      time[] = "must be from 1ms to 24h, or never", pause[] = "must be from 0ms to 1500ms",
                      huge[] = "must be from 0 to 18446744073709551615";
    static const struct {
        const char *key, *text, *sentence;
    } cases[] = {
        { "count", "1", count },
        { "count", "257", count },
        { "count", "0", count },
        { "count", "18446744073709551618", count }, /* 2^64 + 2 */
        { "count", "99999999999999999999999999999999999999999", count },
        { "threads", "0", threads }, /* only the word says 0 */
        { "threads", "257", threads },
        { "huge", "18446744073709551616", huge }, /* 2^64 */
        { "huge", "18446744073709551620", huge },
        { "huge", "184467440737095516150", huge },
        { "huge", "184467440737095516160", huge },
        { "size", "63", size },
        { "size", "0", size },
        { "size", "1073741825", size },
        { "size", "1025M", size },
        { "size", "2G", size },
        { "size", "18014398509481984k", size }, /* 2^64 */
        { "size", "17179869185G", size },       /* 2^64 + 1G */
        { "odd", "999", odd },
        { "odd", "2001", odd },
        { "odd", "2k", odd },
        { "time", "0ms", time },
        { "time", "0h", time },
        { "time", "86400001ms", time },
        { "time", "86401s", time },
        { "time", "1441m", time },
        { "time", "25h", time },
        { "time", "5124095576031h", time }, /* more than 2^64 ms */
        { "pause", "1501ms", pause },
        { "pause", "2s", pause },
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        ck_assert_str_eq(refused(cases[i].key, cases[i].text), cases[i].sentence);
}
END_TEST

/* The largest value is in bounds when the bound is the largest value. */
START_TEST(test_edge_of_64_bits)
{
    for (uint64_t i = 0; i < 16; i++) {
        char text[32];
        snprintf(text, sizeof text, "%" PRIu64, UINT64_MAX - i);
        ck_assert_uint_eq(scaled("huge", text), UINT64_MAX - i);
    }
}
END_TEST

START_TEST(test_wrong_type_or_unit)
{
    static const char *const numbers[] = { "-",    " ",    "-1",  "+1",  "1.5", "1,000", "ten",
                                           "0x10", "1e3",  "10k", "10s", "10 ", " 10",   "1 0",
                                           "k",    "Auto", "10a", "a10", "٣",   "auto",  "never" };
    static const char *const sizes[] = { "k", "1K", "1kB", "1 k", "1m", "1g", "1.5k", "-1k", "1kk", "1s", "never" };
    static const char *const times[] = { "ms", "30",    "0",   "s",    "30S", "30 s",  "30sec", "1d",
                                         "1M", "1m30s", "-1s", "1.5s", "1us", "Never", "neve",  "1k" };
    char expected[128];
    for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++) {
        snprintf(expected, sizeof expected, "\"%s\" is not a whole number", numbers[i]);
        ck_assert_str_eq(refused("count", numbers[i]), expected);
    }
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        snprintf(expected, sizeof expected, "\"%s\" is not a size such as 512, 16k, 1M or 1G", sizes[i]);
        ck_assert_str_eq(refused("size", sizes[i]), expected);
    }
    for (size_t i = 0; i < sizeof times / sizeof times[0]; i++) {
        snprintf(expected, sizeof expected,
                 "\"%s\" is not a time with its unit, such as 250ms, 30s, 10m or 1h or never", times[i]);
        ck_assert_str_eq(refused("time", times[i]), expected);
    }
    ck_assert_str_eq(refused("threads", "all"), "\"all\" is not a whole number or auto");
    for (size_t i = 0; i < 4; i++)
        ck_assert_str_eq(refused((const char *const[]){ "count", "size", "time", "level" }[i], ""), "needs a value");
}
END_TEST

START_TEST(test_words)
{
    static const char *const wrong[] = { "loud", "Error", "err", "errors", "info ", "0" };
    struct settings settings = { 0 };
    char err[256], expected[128];
    for (unsigned i = 0; words[i] != NULL; i++) {
        ck_assert_int_eq(option_parse(row("level"), words[i], &settings, err, sizeof err), 0);
        ck_assert_uint_eq(settings.word, i);
    }
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        snprintf(expected, sizeof expected, "\"%s\" is not one of error, warning, info", wrong[i]);
        ck_assert_str_eq(refused("level", wrong[i]), expected);
    }
}
END_TEST

START_TEST(test_texts)
{
    static const char shortest[] = "ab", longest[] = "abcde";
    struct settings settings = { 0 };
    char err[256];
    ck_assert_int_eq(option_parse(row("text"), shortest, &settings, err, sizeof err), 0);
    ck_assert_ptr_eq(settings.text, shortest); /* borrowed */
    ck_assert_int_eq(option_parse(row("text"), longest, &settings, err, sizeof err), 0);
    ck_assert_ptr_eq(settings.text, longest);
    ck_assert_int_eq(option_parse(row("any"), "", &settings, err, sizeof err), 0);
    ck_assert_str_eq(settings.text, "");
    ck_assert_str_eq(refused("text", ""), "needs a value");
    ck_assert_str_eq(refused("text", "a"), "must have from 2 to 5 bytes");
    ck_assert_str_eq(refused("text", "abcdef"), "must have from 2 to 5 bytes");
    ck_assert_str_eq(refused("any", "abcdef"), "must have from 0 to 5 bytes");
}
END_TEST

/* What option_format() writes is the shortest exact form, and option_parse() reads it back. */
START_TEST(test_round_trip)
{
    static const struct {
        const char *key, *text, *same;
    } cases[] = {
        { "count", "0010", "10" },    { "threads", "auto", "auto" },
        { "threads", "256", "256" },  { "huge", "18446744073709551609", "18446744073709551609" },
        { "huge", "0", "0" },         { "size", "1023", "1023" },
        { "size", "1024", "1k" },     { "size", "1025", "1025" },
        { "size", "1536k", "1536k" }, { "size", "2048k", "2M" },
        { "size", "1024M", "1G" },    { "time", "999ms", "999ms" },
        { "time", "1000ms", "1s" },   { "time", "90s", "90s" },
        { "time", "120s", "2m" },     { "time", "90m", "90m" },
        { "time", "1440m", "24h" },   { "time", "never", "never" },
        { "pause", "0s", "0ms" },     { "level", "warning", "warning" },
        { "text", "a=;b", "a=;b" },   { "any", "", "" },
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct settings settings = { 0 };
        char text[64], again[64], err[256] = "";
        ck_assert_msg(option_parse(row(cases[i].key), cases[i].text, &settings, err, sizeof err) == 0, "%s", err);
        option_format(row(cases[i].key), &settings, text, sizeof text);
        ck_assert_str_eq(text, cases[i].same);
        ck_assert_msg(option_parse(row(cases[i].key), text, &settings, err, sizeof err) == 0, "%s", err);
        option_format(row(cases[i].key), &settings, again, sizeof again);
        ck_assert_str_eq(again, text);
    }
}
END_TEST

START_TEST(test_little_room)
{
    struct settings settings = { .text = "abcde", .time = 86399999 };
    char buf[8] = "1234567", err[8] = "1234567";
    option_format(row("text"), &settings, buf, 4);
    ck_assert_str_eq(buf, "abc");
    option_format(row("time"), &settings, buf, 4);
    ck_assert_str_eq(buf, "863");
    ck_assert_str_eq(buf + 4, "567");
    ck_assert_int_eq(option_parse(row("level"), "loud", &settings, err, 4), -1);
    ck_assert_str_eq(err, "\"lo");
    ck_assert_str_eq(err + 4, "567");
}
END_TEST

START_TEST(test_find)
{
    ck_assert_ptr_eq(option_find(table, "count"), &table[0]);
    ck_assert_ptr_eq(option_find(table, "any"), &table[9]);
    ck_assert_ptr_null(option_find(table, "Count"));
    ck_assert_ptr_null(option_find(table, "coun"));
    ck_assert_ptr_null(option_find(table, ""));
    ck_assert_ptr_null(option_find(NULL, "count")); /* a handler without keys */
}
END_TEST

UNIT_MAIN("option", test_values, test_out_of_bounds, test_edge_of_64_bits, test_wrong_type_or_unit, test_words,
          test_texts, test_round_trip, test_little_room, test_find)
