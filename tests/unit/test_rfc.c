/*
 * rfc: what RFC 9110 and RFC 9112 ask of an origin server. Runs each case of tests/http/cases, which says how it is
 * written, through the greeting handler: whole, cut before every byte, and byte by byte; alone, and twice in a row or
 * behind another request.
 */
#include "handlers/handlers.h"

#include "feed.h"
#include "unit.h"

#include <ctype.h>
#include <errno.h>
#include <stdbool.h>

#define CASES 1000
#define PARTS 16 /* lines of one kind in a case */

#define SYNC_LEN (sizeof sync_request - 1)

static const char sync_request[] = "GET /sync HTTP/1.1\r\nHost: x\r\n\r\n";
static const char sync_answer[] = "200 body=\"Hello, sync\"";

/* Something and how many times. Text is borrowed from the file. */
struct part {
    unsigned times;
    char *text;
};

struct rfc_case {
    const char *title;
    struct part sent[PARTS], answers[PARTS], settings[PARTS];
    unsigned sent_count, answer_count, setting_count;
};

static struct rfc_case cases[CASES];
static unsigned case_count;

/* --- The file ----------------------------------------------------------------------------------------------------- */

static void die(const char *what, const char *line)
{
    fprintf(stderr, "tests/http/cases: %s: %s\n", what, line);
    exit(EXIT_FAILURE);
}

static char *read_cases(void)
{
    const char *srcdir = getenv("srcdir");
    char path[4096], *text = NULL;
    size_t size = 0;
    snprintf(path, sizeof path, "%s/tests/http/cases", srcdir != NULL ? srcdir : ".");
    FILE *file = fopen(path, "r");
    if (file == NULL || getdelim(&text, &size, '\0', file) < 0)
        die(path, strerror(errno));
    fclose(file);
    return text;
}

/* A line behind its first character: "*N TEXT" or " TEXT". */
static void add_part(struct part *parts, unsigned *count, char *line)
{
    struct part part = { .times = 1, .text = line + 1 };
    if (*part.text == '*')
        part.times = (unsigned)strtoul(part.text + 1, &part.text, 10);
    if (*part.text != ' ' || part.times == 0 || *count == PARTS)
        die("no space behind the beginning, or too many lines", line);
    part.text++;
    parts[(*count)++] = part;
}

static void add_line(struct rfc_case *c, char *line)
{
    if (*line == '#')
        c->title = c->title != NULL ? c->title : line + 2;
    else if (*line == '>')
        add_part(c->sent, &c->sent_count, line);
    else if (*line == '<')
        add_part(c->answers, &c->answer_count, line);
    else if (*line == '!')
        add_part(c->settings, &c->setting_count, line);
    else
        die("neither # nor > nor < nor !", line);
}

/* A paragraph is over. */
static void add_case(struct rfc_case *c)
{
    bool comment = c->sent_count == 0 && c->answer_count == 0 && c->setting_count == 0;
    if (!comment && (c->title == NULL || c->sent_count == 0 || c->answer_count == 0))
        die("no title, nothing sent, or no answer", c->title != NULL ? c->title : c->sent[0].text);
    if (!comment && case_count == CASES)
        die("too many cases", c->title);
    if (!comment)
        cases[case_count++] = *c;
    *c = (struct rfc_case){ 0 };
}

static void parse_cases(char *text)
{
    struct rfc_case c = { 0 };
    for (char *line; (line = strsep(&text, "\n")) != NULL;)
        if (*line == '\0')
            add_case(&c);
        else
            add_line(&c, line);
    add_case(&c);
}

/* --- Escapes and words -------------------------------------------------------------------------------------------- */

/* The byte behind a backslash; *text is moved past it. */
static char unescape(const char **text)
{
    static const char names[] = "rnt0\\\"", bytes[] = "\r\n\t\0\\\"";
    char digits[3] = "";
    const char *name = strchr(names, **text);
    if (**text != '\0' && name != NULL) {
        ++*text;
        return bytes[name - names];
    }
    if (**text != 'x' || !isxdigit((unsigned char)(*text)[1]) || !isxdigit((unsigned char)(*text)[2]))
        die("no escape", *text);
    memcpy(digits, *text + 1, 2);
    *text += 3;
    return (char)strtol(digits, NULL, 16);
}

/* Puts what stands in front of the character end into buf, unescaped; text is moved past end. Returns its length. */
static size_t copy_unescaped(const char **text, char end, char *buf)
{
    size_t len = 0;
    while (**text != '\0' && **text != end) {
        char byte = *(*text)++;
        buf[len++] = byte == '\\' ? unescape(text) : byte;
    }
    *text += **text == end && end != '\0';
    return len;
}

/* A word of an expectation: NAME, NAME=VALUE or NAME="VALUE". */
struct word {
    size_t name_len, len;
    const char *name;
    char value[1024];
};

static bool next_word(const char **words, struct word *word)
{
    *words += strspn(*words, " ");
    *word = (struct word){ .name = *words, .name_len = strcspn(*words, " =") };
    *words += word->name_len;
    if (**words == '=') {
        ++*words;
        bool quoted = **words == '"';
        *words += quoted;
        word->len = copy_unescaped(words, quoted ? '"' : ' ', word->value);
    }
    return word->name_len > 0;
}

static bool word_is(const struct word *word, const char *name)
{
    return word->name_len == strlen(name) && memcmp(word->name, name, word->name_len) == 0;
}

static bool says(const char *words, const char *name)
{
    struct word word;
    while (next_word(&words, &word))
        if (word_is(&word, name))
            return true;
    return false;
}

/* --- Answers ------------------------------------------------------------------------------------------------------ */

struct answer {
    unsigned status;
    struct bytes fields; /* each with its CRLF */
    struct bytes body;
};

/* The value of the one field of that name; data NULL when there is none. */
static struct bytes field(const struct answer *answer, const char *name)
{
    struct bytes rest = answer->fields, value = { 0 };
    size_t len = strlen(name);
    while (rest.len > 0) {
        size_t line = (size_t)((const char *)memmem(rest.data, rest.len, "\r\n", 2) - rest.data);
        if (line > len + 1 && strncasecmp(rest.data, name, len) == 0 && rest.data[len] == ':') {
            ck_assert_msg(value.data == NULL, "%s twice", name);
            value = (struct bytes){ .data = rest.data + len + 2, .len = line - len - 2 };
        }
        bytes_skip(&rest, line + 2);
    }
    return value;
}

static bool field_is(const struct answer *answer, const char *name, const char *value)
{
    struct bytes found = field(answer, name);
    return found.data != NULL && found.len == strlen(value) && memcmp(found.data, value, found.len) == 0;
}

/* Takes the next answer off the output. */
static struct answer take_answer(struct bytes *out, bool no_body)
{
    static const char version[] = "HTTP/1.1 ";
    const char *end = memmem(out->data, out->len, "\r\n\r\n", 4);
    ck_assert_msg(end != NULL && memcmp(out->data, version, sizeof version - 1) == 0, "no answer, but: %s", out->data);
    const char *line = memmem(out->data, out->len, "\r\n", 2);
    struct answer answer = { .status = (unsigned)atoi(out->data + sizeof version - 1),
                             .fields = { .data = line + 2, .len = (size_t)(end - line) } };
    bytes_skip(out, (size_t)(end + 4 - out->data));
    struct bytes length = field(&answer, "Content-Length");
    answer.body.data = out->data;
    answer.body.len = length.data != NULL && !no_body ? strtoul(length.data, NULL, 10) : 0;
    ck_assert_uint_le(answer.body.len, out->len);
    bytes_skip(out, answer.body.len);
    return answer;
}

/* What holds for every answer. */
static void check_always(const struct answer *answer)
{
    bool interim = answer->status < 200;
    bool bare = interim || answer->status == 304;
    ck_assert_ptr_null(field(answer, "Transfer-Encoding").data);
    ck_assert_int_eq(field(answer, "Date").data == NULL, interim);
    ck_assert(!interim || answer->fields.len == 0);
    ck_assert(bare || field(answer, "Content-Length").data != NULL);
    ck_assert(bare || field_is(answer, "Content-Type", "text/plain; charset=utf-8"));
    ck_assert(bare || field_is(answer, "X-Content-Type-Options", "nosniff"));
}

static void check_word(const struct answer *answer, struct word *word)
{
    char *value = strstr(word->value, ": ");
    if (word_is(word, "body")) {
        ck_assert_msg(answer->body.len == word->len && memcmp(answer->body.data, word->value, word->len) == 0,
                      "body is: %.*s", (int)answer->body.len, answer->body.data);
    } else if (word_is(word, "header") && value != NULL) {
        *value = '\0';
        ck_assert_msg(field_is(answer, word->value, value + 2), "no %s: %s in:\n%.*s", word->value, value + 2,
                      (int)answer->fields.len, answer->fields.data);
    } else if (word_is(word, "no-header")) {
        ck_assert_msg(field(answer, word->value).data == NULL, "%s is there", word->value);
    } else {
        ck_assert_msg(word_is(word, "close") || word_is(word, "no-body"), "what is %s?", word->name);
    }
}

static void check_answer(const char *words, struct bytes *out)
{
    struct word word;
    struct answer answer = take_answer(out, says(words, "no-body"));
    check_always(&answer);
    ck_assert_msg(next_word(&words, &word) && answer.status == (unsigned)atoi(word.name), "%u instead of %s\n%.*s",
                  answer.status, word.name, (int)answer.body.len, answer.body.data);
    bool close = says(words, "close");
    ck_assert_msg(field_is(&answer, "Connection", "close") == close, "Connection: close is%s there",
                  close ? " not" : "");
    while (next_word(&words, &word))
        check_word(&answer, &word);
}

/* --- Cases -------------------------------------------------------------------------------------------------------- */

/* What the whole case sends is put behind what raw holds. */
static void add_sent(const struct rfc_case *c, struct bytes *raw)
{
    static char bytes[65536];
    for (unsigned i = 0; i < c->sent_count; i++) {
        const char *text = c->sent[i].text;
        size_t len = copy_unescaped(&text, '\0', bytes);
        char *data = realloc((char *)raw->data, raw->len + len * c->sent[i].times + SYNC_LEN);
        ck_assert_ptr_nonnull(data);
        raw->data = data;
        for (unsigned n = 0; n < c->sent[i].times; n++, raw->len += len)
            memcpy(data + raw->len, bytes, len);
    }
}

static void check_answers(const struct rfc_case *c, struct bytes *out)
{
    for (unsigned i = 0; i < c->answer_count; i++)
        for (unsigned n = 0; n < c->answers[i].times; n++)
            check_answer(c->answers[i].text, out);
}

/* The greeting with the settings of a case, filled into settings. */
static void *start(const struct rfc_case *c, void *settings)
{
    void *shared = NULL;
    char err[256] = "", key[64], value[64];
    ck_assert_ptr_nonnull(settings);
    for (const struct option_row *row = greeting_handler.options; row->name != NULL; row++)
        ck_assert_int_eq(option_parse(row, row->fallback, settings, err, sizeof err), 0);
    for (unsigned i = 0; i < c->setting_count; i++) {
        ck_assert_int_eq(sscanf(c->settings[i].text, "%63s = %63s", key, value), 2);
        const struct option_row *row = option_find(greeting_handler.options, key);
        ck_assert_ptr_nonnull(row);
        ck_assert_msg(option_parse(row, value, settings, err, sizeof err) == 0, "%s", err);
    }
    ck_assert_msg(greeting_handler.start(settings, &shared, err, sizeof err) == 0, "%s", err);
    return shared;
}

/* Feeds a case so many times in a row, behind so many other requests. */
static void run(const struct rfc_case *c, void *shared, unsigned times, bool closes, bool behind)
{
    static struct feed whole;
    struct bytes raw = { .data = malloc(SYNC_LEN), .len = behind ? SYNC_LEN : 0 };
    ck_assert_ptr_nonnull(raw.data);
    memcpy((char *)raw.data, sync_request, raw.len);
    for (unsigned i = 0; i < times; i++)
        add_sent(c, &raw);
    memcpy((char *)raw.data + raw.len, sync_request, SYNC_LEN);
    raw.len += SYNC_LEN;
    feed_every_way(&whole, &greeting_handler, shared, raw, feed_nothing);
    struct bytes out = { .data = whole.out, .len = whole.len };
    if (behind)
        check_answer(sync_answer, &out);
    for (unsigned i = 0; i < times; i++)
        check_answers(c, &out);
    if (!closes)
        check_answer(sync_answer, &out);
    ck_assert_msg(out.len == 0, "and then: %s", out.data);
    ck_assert_int_eq(whole.verdict, closes ? HANDLER_FINISH : HANDLER_MORE);
    ck_assert_uint_eq(whole.unread_len, 0);
    free((char *)raw.data);
}

START_TEST(test_case)
{
    const struct rfc_case *c = &cases[_i];
    void *settings = calloc(1, greeting_handler.settings_size), *shared = start(c, settings);
    bool closes = says(c->answers[c->answer_count - 1].text, "close"), counted = false;
    for (unsigned i = 0; i < c->setting_count; i++)
        counted = counted || strncmp(c->settings[i].text, "max_requests", strlen("max_requests")) == 0;
    run(c, shared, 1, closes, false);
    if (!counted)
        run(c, shared, closes ? 1 : 2, closes, closes);
    greeting_handler.stop(shared);
    free(settings);
}
END_TEST

int main(void)
{
    parse_cases(read_cases());
    Suite *suite = suite_create("rfc");
    for (int i = 0; i < (int)case_count; i++) {
        TCase *tcase = tcase_create(cases[i].title);
        tcase_add_loop_test(tcase, test_case, i, i + 1);
        tcase_set_timeout(tcase, 120);
        suite_add_tcase(suite, tcase);
    }
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner) + (srunner_ntests_run(runner) == 0);
    srunner_free(runner);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
