#include "log.h"

#include "text.h"
#include "unit.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define STAMP "0000-00-00T00:00:00.000Z"
#define FIELDS(...)            \
    (const struct log_field[]) \
    {                          \
        __VA_ARGS__,           \
        {                      \
            0                  \
        }                      \
    }

static const struct log_field no_fields[] = { { 0 } };

/* Checks the form of the time at p, and writes 0 for its digits. */
static void mask(char *p)
{
    for (const char *form = STAMP; *form != '\0'; form++, p++) {
        ck_assert(*form == '0' ? isdigit((unsigned char)*p) : *p == *form);
        *p = *form;
    }
}

/* The line as log_render() makes it, its time masked. */
static const char *rendered(enum log_format format, const char *message, const struct log_field *fields)
{
    static char line[LOG_LINE + 1];
    log_setup(LEVEL_INFO, format);
    size_t len = log_render(line, (struct log_sink){ "info", '6', false }, message, fields);
    ck_assert_uint_le(len, LOG_LINE);
    line[len] = '\0';
    ck_assert_uint_eq(strlen(line), len);
    mask(line + (format == FORMAT_JSON ? strlen("{\"time\":\"") : 0));
    return line;
}

static void check(const struct log_field *fields, const char *text, const char *json)
{
    char expected[LOG_LINE + 1];
    snprintf(expected, sizeof expected, STAMP " info hello world%s\n", text);
    ck_assert_str_eq(rendered(FORMAT_TEXT, "hello world", fields), expected);
    snprintf(expected, sizeof expected, "{\"time\":\"" STAMP "\",\"level\":\"info\",\"message\":\"hello world\"%s}\n",
             json);
    ck_assert_str_eq(rendered(FORMAT_JSON, "hello world", fields), expected);
}

START_TEST(test_fields)
{
    check(no_fields, "", "");
    check(FIELDS(log_text("a", "b")), " a=b", ",\"a\":\"b\"");
    check(FIELDS(log_text("a", "b"), log_number("n", 0), log_text("c", "d e")), " a=b n=0 c=\"d e\"",
          ",\"a\":\"b\",\"n\":0,\"c\":\"d e\"");
    check(FIELDS(log_number("n", UINT64_MAX)), " n=18446744073709551615", ",\"n\":18446744073709551615");
    check(FIELDS(log_duration("d", 0)), " d=0.000000", ",\"d\":0.000000");
    check(FIELDS(log_duration("d", 999)), " d=0.000000", ",\"d\":0.000000");
    check(FIELDS(log_duration("d", 1000)), " d=0.000001", ",\"d\":0.000001");
    check(FIELDS(log_duration("d", 1999999999)), " d=1.999999", ",\"d\":1.999999");
    check(FIELDS(log_duration("d", INT64_C(86400000000000))), " d=86400.000000", ",\"d\":86400.000000");
    check(FIELDS(log_errno(ENOENT)), " error=\"No such file or directory\"",
          ",\"error\":\"No such file or directory\"");
    check(FIELDS(log_bytes("a", "bcd", 2)), " a=bc", ",\"a\":\"bc\"");
}
END_TEST

/* One text value in both formats. Text lines are for terminals: ASCII only. JSON keeps what is right UTF-8. */
START_TEST(test_escapes)
{
    static const struct {
        const char *data;
        size_t len;
        const char *text, *json;
    } cases[] = {
#define CASE(data, text, json) { (data), sizeof(data) - 1, (text), (json) }
        CASE("", "\"\"", "\"\""),
        CASE(" ", "\" \"", "\" \""),
        CASE("a=b", "\"a=b\"", "\"a=b\""), /* it would look like a field */
        CASE("a,b:c/{d}", "a,b:c/{d}", "\"a,b:c/{d}\""),
        CASE("say \"hi\"", "\"say \\\"hi\\\"\"", "\"say \\\"hi\\\"\""),
        CASE("\"", "\"\\\"\"", "\"\\\"\""),
        CASE("a\\b", "\"a\\\\b\"", "\"a\\\\b\""),
        CASE("a\nb\r\t", "\"a\\x0ab\\x0d\\x09\"", "\"a\\u000ab\\u000d\\u0009\""),
        CASE("\0", "\"\\x00\"", "\"\\u0000\""),
        CASE("\x1B[31m", "\"\\x1b[31m\"", "\"\\u001b[31m\""),
        CASE("\x7F", "\"\\x7f\"", "\"\\u007f\""),
        CASE("caf\xC3\xA9", "\"caf\\xc3\\xa9\"", "\"caf\xC3\xA9\""),
        CASE("\xF0\x9F\x98\x80", "\"\\xf0\\x9f\\x98\\x80\"", "\"\xF0\x9F\x98\x80\""),
        CASE("\xC2\x9B"
             "31m",
             "\"\\xc2\\x9b31m\"", "\"\\u00c2\\u009b31m\""), /* a C1 control */
        CASE("\xE9", "\"\\xe9\"", "\"\\u00e9\""),           /* no UTF-8 */
        CASE("\xC0\xAF", "\"\\xc0\\xaf\"", "\"\\u00c0\\u00af\""),
        CASE("\xED\xA0\x80", "\"\\xed\\xa0\\x80\"", "\"\\u00ed\\u00a0\\u0080\""),
#undef CASE
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char text[128], json[128];
        snprintf(text, sizeof text, " k=%s", cases[i].text);
        snprintf(json, sizeof json, ",\"k\":%s", cases[i].json);
        check(FIELDS(log_bytes("k", cases[i].data, cases[i].len)), text, json);
    }
}
END_TEST

/* Every byte alone: a line stays one line of printable characters. */
START_TEST(test_every_byte)
{
    for (int byte = 0; byte < 256; byte++)
        for (int format = FORMAT_TEXT; format <= FORMAT_JSON; format++) {
            const char *line =
                rendered((enum log_format)format, "m", FIELDS(log_bytes("k", (char[]){ (char)byte }, 1)));
            for (size_t i = 0; line[i] != '\n' || line[i + 1] != '\0'; i++)
                ck_assert_msg(line[i] >= 0x20 && line[i] < 0x7F, "byte %d: %s", byte, line);
        }
}
END_TEST

START_TEST(test_message_in_json)
{
    ck_assert_str_eq(rendered(FORMAT_JSON, "a \"b\"\\", no_fields),
                     "{\"time\":\"" STAMP "\",\"level\":\"info\",\"message\":\"a \\\"b\\\"\\\\\"}\n");
}
END_TEST

/* The end of the JSON string that begins at p; NULL when none does. */
static const char *after_string(const char *p)
{
    if (*p++ != '"')
        return NULL;
    while (*p != '"')
        if ((unsigned char)*p < 0x20) /* the NUL too */
            return NULL;
        else if (*p++ != '\\')
            continue;
        else if (*p == '"' || *p == '\\')
            p++;
        else if (*p == 'u' && strspn(p + 1, "0123456789abcdef") >= 4)
            p += 5;
        else
            return NULL;
    return p + 1;
}

/* True for one object of strings and numbers, and a newline. */
static bool is_json_line(const char *line)
{
    const char *p = line;
    char before = '{';
    for (const char *end; *p == before; p = end, before = ',') {
        end = after_string(p + 1);
        if (end == NULL || *end++ != ':')
            return false;
        size_t digits = strspn(end, "0123456789.");
        end = digits > 0 ? end + digits : after_string(end);
        if (end == NULL)
            return false;
    }
    return strcmp(p, "}\n") == 0 && text_is_utf8(line, strlen(line));
}

/* True for a line of KEY=WORD and KEY="..." behind the message; a mark may end it. */
static bool is_text_line(const char *p)
{
    static const char start[] = STAMP " info m";
    if (strncmp(p, start, strlen(start)) != 0)
        return false;
    for (p += strlen(start); *p == ' ' && strcmp(p, " ...\n") != 0;) {
        size_t key = strspn(++p, "abcdefghijklmnopqrstuvwxyz");
        if (key == 0 || p[key] != '=')
            return false;
        p += key + 1;
        if (*p != '"') {
            p += strcspn(p, " \n\"");
            continue;
        }
        for (p++; *p != '"'; p++)
            if (*p == '\0' || (*p == '\\' && *++p == '\0'))
                return false;
        p++;
    }
    return strcmp(p, "\n") == 0 || strcmp(p, " ...\n") == 0;
}

START_TEST(test_the_checkers_themselves)
{
    ck_assert(is_json_line("{\"a\":\"\\u00e9\\\"\",\"b\":1.5}\n"));
    ck_assert(!is_json_line("{\"a\":}\n"));
    ck_assert(!is_json_line("{\"a\":\"}\n"));
    ck_assert(!is_json_line("{\"a\":..\"}\n"));
    ck_assert(!is_json_line("{\"a\":1,\"}\n"));
    ck_assert(!is_json_line("{\"a\":\"\\u00\"}\n"));
    ck_assert(!is_json_line("{\"a\":1}"));
    ck_assert(!is_json_line("{\"a\":\"\xC3\"}\n"));
    ck_assert(is_text_line(STAMP " info m a=b c=\"d \\\" e\"\n"));
    ck_assert(!is_text_line(STAMP " info m a=\"b\n"));
    ck_assert(!is_text_line(STAMP " info m a\n"));
}
END_TEST

/*
 * Values of every length around the longest line, of bytes that are written as 1, 2, 4 or 6 characters, with fields
 * behind them that fit or not: a line ends as it should, and what was cut is marked.
 */
START_TEST(test_long_lines)
{
    static const struct {
        const char *piece;
        size_t step;
    } fillers[] = { { "x", 1 }, { "\"", 1 }, { "\x01", 1 }, { "\xC3\xA9", 2 }, { "\xF0\x9F\x98\x80", 4 }, { " ", 1 } };
    static char value[LOG_LINE + 64];
    for (size_t f = 0; f < sizeof fillers / sizeof fillers[0]; f++) {
        for (size_t i = 0; i + fillers[f].step <= sizeof value; i += fillers[f].step)
            memcpy(value + i, fillers[f].piece, fillers[f].step);
        for (size_t len = 200; len < sizeof value; len += fillers[f].step) {
            struct log_field fields[] = { log_bytes("key", value, len - len % fillers[f].step),
                                          log_number("number", 1234567890),
                                          log_text("word", "w"),
                                          log_text("last", "the end"),
                                          { 0 } };
            for (int format = FORMAT_TEXT; format <= FORMAT_JSON; format++) {
                const char *line = rendered((enum log_format)format, "m", fields);
                bool sound = format == FORMAT_JSON ? is_json_line(line) : is_text_line(line);
                bool whole = strstr(line, "the end") != NULL, marked = strstr(line, "...") != NULL;
                ck_assert_msg(sound, "%d of \"%s\" end in %s", (int)len, fillers[f].piece, line + strlen(line) - 40);
                ck_assert_msg(whole != marked, "%d of \"%s\" end in %s", (int)len, fillers[f].piece,
                              line + strlen(line) - 40);
            }
        }
    }
}
END_TEST

/* As much as possible of a long value is there, also of one without white space, and of one without ASCII. */
START_TEST(test_long_value_is_cut_late)
{
    static char word[5000], text[5000];
    for (size_t i = 0; i < sizeof text; i++) {
        word[i] = 'x';
        text[i] = (i % 2 == 0) ? '\xC3' : '\xA9';
    }
    const struct log_field *words = FIELDS(log_bytes("k", word, sizeof word));
    const struct log_field *texts = FIELDS(log_bytes("k", text, sizeof text));
    ck_assert_uint_gt(strlen(rendered(FORMAT_TEXT, "m", words)), LOG_LINE - 40);
    ck_assert_uint_gt(strlen(rendered(FORMAT_JSON, "m", words)), LOG_LINE - 40);
    ck_assert_uint_gt(strlen(rendered(FORMAT_TEXT, "m", texts)), LOG_LINE - 40);
    ck_assert_uint_gt(strlen(rendered(FORMAT_JSON, "m", texts)), LOG_LINE - 40);
}
END_TEST

/* Standard error goes to a pipe from here on. */
static int capture(void)
{
    int ends[2];
    ck_assert_int_eq(pipe2(ends, O_NONBLOCK), 0);
    ck_assert_int_eq(dup2(ends[1], STDERR_FILENO), STDERR_FILENO);
    close(ends[1]);
    return ends[0];
}

/* What was written since the last call, the time masked in text lines. */
static const char *captured(int end)
{
    static char text[65536];
    ssize_t n = read(end, text, sizeof text - 1);
    text[n > 0 ? n : 0] = '\0';
    for (char *line = text; *line != '\0'; line += strcspn(line, "\n") + 1)
        mask(line);
    return text;
}

START_TEST(test_before_setup)
{
    int end = capture();
    ck_assert(log_enabled(LEVEL_ERROR) && log_enabled(LEVEL_WARNING) && log_enabled(LEVEL_NOTICE));
    ck_assert(!log_enabled(LEVEL_INFO) && !log_enabled(LEVEL_DEBUG));
    log_event(LEVEL_NOTICE, "seen", log_number("n", 1));
    log_event(LEVEL_INFO, "not seen", log_number("n", 2));
    ck_assert_str_eq(captured(end), STAMP " notice seen n=1\n");
    close(end);
}
END_TEST

static unsigned asked;

static uint64_t count_asked(void)
{
    return ++asked;
}

START_TEST(test_levels)
{
    int end = capture();
    for (unsigned least = LEVEL_ERROR; least <= LEVEL_DEBUG; least++) {
        char expected[512] = "", line[64];
        asked = 0;
        log_setup((enum log_level)least, FORMAT_TEXT);
        for (unsigned level = LEVEL_ERROR; level <= LEVEL_DEBUG; level++) {
            ck_assert_int_eq(log_enabled((enum log_level)level), level <= least);
            log_event((enum log_level)level, "event", log_number("n", count_asked()));
            snprintf(line, sizeof line, STAMP " %s event n=%u\n", log_level_words[level], level + 1);
            if (level <= least)
                strcat(expected, line);
        }
        ck_assert_str_eq(captured(end), expected);
        ck_assert_uint_eq(asked, least + 1); /* what is not written costs nothing */
    }
    close(end);
}
END_TEST

START_TEST(test_words)
{
    static const char *const levels[] = { "error", "warning", "notice", "info", "debug" };
    for (int i = 0; i < 5; i++)
        ck_assert_str_eq(log_level_words[i], levels[i]);
    ck_assert_ptr_null(log_level_words[5]);
    ck_assert_str_eq(log_format_words[FORMAT_TEXT], "text");
    ck_assert_str_eq(log_format_words[FORMAT_JSON], "json");
    ck_assert_ptr_null(log_format_words[2]);
}
END_TEST

/* Whether the line could be written or not. */
START_TEST(test_errno_stays)
{
    int end = capture();
    log_setup(LEVEL_INFO, FORMAT_TEXT);
    errno = EXDEV;
    log_write(LEVEL_ERROR, "m", FIELDS(log_errno(errno)));
    ck_assert_int_eq(errno, EXDEV);
    ck_assert_str_eq(captured(end), STAMP " error m error=\"Invalid cross-device link\"\n");
    close(STDERR_FILENO);
    log_write(LEVEL_ERROR, "m", no_fields);
    ck_assert_int_eq(errno, EXDEV);
    close(end);
}
END_TEST

/* --- The journal ------------------------------------------------------------------------------------------------------ */

/* Says that this descriptor goes to the journal, with some text before, between and behind the numbers. */
static void set_stream(int fd, const char *before, const char *between, const char *behind)
{
    struct stat status;
    char stream[128];
    ck_assert_int_eq(fstat(fd, &status), 0);
    snprintf(stream, sizeof stream, "%s%llu%s%llu%s", before, (unsigned long long)status.st_dev, between,
             (unsigned long long)status.st_ino, behind);
    setenv("JOURNAL_STREAM", stream, 1);
}

START_TEST(test_journal_stream)
{
    static const char *const wrong[][3] = { { "x", ":", "" }, { "1", ":", "" }, { "", ":1", "" },   { "", ":", "1" },
                                            { "", ":", ":" }, { "", ":", " " }, { "", ":", "x" },   { "", " ", "" },
                                            { "", "", "" },   { ":", "", "" },  { "", ":x:", "x" }, { "", "::", "" } };
    int ends[2];
    ck_assert_int_eq(pipe(ends), 0);
    unsetenv("JOURNAL_STREAM");
    ck_assert(!log_is_journal(ends[1]));
    set_stream(ends[1], "", ":", "");
    errno = EXDEV;
    ck_assert(log_is_journal(ends[1]));
    ck_assert(!log_is_journal(STDIN_FILENO)); /* another */
    ck_assert(!log_is_journal(-1));
    ck_assert_int_eq(errno, EXDEV);
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        set_stream(ends[1], wrong[i][0], wrong[i][1], wrong[i][2]);
        ck_assert_msg(!log_is_journal(ends[1]), "%s", getenv("JOURNAL_STREAM"));
    }
    setenv("JOURNAL_STREAM", "", 1);
    ck_assert(!log_is_journal(ends[1]));
    close(ends[0]);
    close(ends[1]);
}
END_TEST

START_TEST(test_priorities)
{
    int end = capture();
    char text[512] = "";
    set_stream(STDERR_FILENO, "", ":", "");
    log_setup(LEVEL_DEBUG, FORMAT_TEXT);
    for (unsigned level = LEVEL_ERROR; level <= LEVEL_DEBUG; level++)
        log_event((enum log_level)level, "event", log_number("n", level));
    ck_assert_int_gt(read(end, text, sizeof text - 1), 0);
    ck_assert_str_eq(text, "<3>event n=0\n<4>event n=1\n<5>event n=2\n<6>event n=3\n<7>event n=4\n");
    setenv("JOURNAL_STREAM", "1:1", 1);
    log_setup(LEVEL_DEBUG, FORMAT_TEXT);
    log_event(LEVEL_INFO, "event", log_number("n", 5));
    ck_assert_str_eq(captured(end), STAMP " info event n=5\n");
    close(end);
}
END_TEST

/* The object is whole: who reads the journal's export has time and level in it. */
START_TEST(test_journal_in_json)
{
    int end = capture();
    char text[512] = "";
    static const char priorities[] = "34567";
    set_stream(STDERR_FILENO, "", ":", "");
    log_setup(LEVEL_DEBUG, FORMAT_JSON);
    for (unsigned level = LEVEL_ERROR; level <= LEVEL_DEBUG; level++) {
        char expected[128];
        log_event((enum log_level)level, "event", log_number("n", level));
        ssize_t n = read(end, text, sizeof text - 1);
        ck_assert_int_gt(n, 0);
        text[n] = '\0';
        snprintf(expected, sizeof expected,
                 "<%c>{\"time\":\"" STAMP "\",\"level\":\"%s\",\"message\":\"event\",\"n\":%u}\n", priorities[level],
                 log_level_words[level], level);
        mask(text + strlen("<3>{\"time\":\""));
        ck_assert_str_eq(text, expected);
    }
    close(end);
}
END_TEST

/* A reader that has stopped: nobody waits; what is lost is counted, and told in front of the next line. */
START_TEST(test_no_room)
{
    static char some[65536];
    int end = capture();
    uint64_t written = 0;
    log_setup(LEVEL_INFO, FORMAT_TEXT);
    ck_assert_uint_eq(log_lost(), 0);
    while (log_lost() == 0 && written < 100000) {
        log_event(LEVEL_INFO, "event", log_number("n", written));
        written++;
    }
    for (int i = 0; i < 41; i++)
        log_event(LEVEL_INFO, "event", log_number("n", written));
    ck_assert_uint_eq(log_lost(), 42);
    while (read(end, some, sizeof some) > 0)
        ;
    log_event(LEVEL_INFO, "event", log_number("n", 1));
    log_event(LEVEL_INFO, "event", log_number("n", 2));
    ck_assert_str_eq(captured(end),
                     STAMP " warning log lines lost lines=42\n" STAMP " info event n=1\n" STAMP " info event n=2\n");
    ck_assert_uint_eq(log_lost(), 42);
    close(end);
}
END_TEST

UNIT_MAIN("log", test_before_setup, test_fields, test_escapes, test_every_byte, test_message_in_json,
          test_the_checkers_themselves, test_long_lines, test_long_value_is_cut_late, test_levels, test_words,
          test_errno_stays, test_journal_stream, test_priorities, test_journal_in_json, test_no_room)
