#include "log.h"

#include "text.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

const char *const log_level_words[] = { "error", "warning", "notice", "info", "debug", NULL };
const char *const log_format_words[] = { "text", "json", NULL };

static atomic_uint current_level = LEVEL_NOTICE;
static atomic_uint current_format = FORMAT_TEXT;
static atomic_bool stderr_is_journal;
static atomic_ullong lost_lines; /* ever */

/* A line under construction. What does not fit is dropped, and the line then ends with a mark. */
struct line {
    char *buf;
    size_t len;
    bool cut, ended;
};

#define LINE_TAIL 16 /* kept free for what closes a line that was cut */

static void line_put(struct line *line, const char *data, size_t len)
{
    if (line->len + len > LOG_LINE - LINE_TAIL) {
        line->cut = true;
        return;
    }
    memcpy(line->buf + line->len, data, len);
    line->len += len;
}

static void line_puts(struct line *line, const char *text)
{
    line_put(line, text, strlen(text));
}

/* One byte inside quotes. Text lines are for terminals: all but printable ASCII is escaped. */
static void line_escape(struct line *line, unsigned char byte, bool json, bool raw_high)
{
    char escape[8];
    if (byte == '"' || byte == '\\') {
        line_put(line, (const char[]){ '\\', (char)byte }, 2);
    } else if ((byte >= 0x20 && byte < 0x7F) || (byte >= 0x80 && raw_high)) {
        line_put(line, (const char *)&byte, 1);
    } else {
        snprintf(escape, sizeof escape, json ? "\\u%04x" : "\\x%02x", byte);
        line_puts(line, escape);
    }
}

static void line_quote(struct line *line, const char *data, size_t len, bool json)
{
    bool raw_high = json && text_is_utf8(data, len) && !text_has_control(data, len);
    if (line->len == LOG_LINE - LINE_TAIL) {
        line->cut = true;
        return;
    }
    line_puts(line, "\"");
    for (size_t i = 0; i < len && !line->cut; i++)
        line_escape(line, (unsigned char)data[i], json, raw_high);
    if (line->cut) { /* drop the partial character and say so; LINE_TAIL has the room */
        while ((line->buf[line->len - 1] & 0xC0) == 0x80)
            line->len--;
        if ((unsigned char)line->buf[line->len - 1] >= 0xC0)
            line->len--;
        memcpy(line->buf + line->len, "...\"", 4);
        line->len += 4;
        line->ended = true;
    } else {
        line->buf[line->len++] = '"';
    }
}

static bool is_bare(const char *data, size_t len)
{
    for (size_t i = 0; i < len; i++)
        if (data[i] <= 0x20 || data[i] >= 0x7F || data[i] == '"' || data[i] == '=' || data[i] == '\\')
            return false;
    return len > 0;
}

/* A whole number, with zeros in front up to a width. */
static void line_number(struct line *line, uint64_t number, size_t width)
{
    char digits[TEXT_NUMBER];
    size_t len = text_number(digits, number);
    for (; width > len; width--)
        line_put(line, "0", 1);
    line_put(line, digits, len);
}

static void line_value(struct line *line, const struct log_field *field, bool json)
{
    switch (field->type) {
    case LOG_TEXT:
        if (!json && is_bare(field->text, field->len) && field->len < LOG_LINE - LINE_TAIL - line->len)
            line_put(line, field->text, field->len);
        else
            line_quote(line, field->text, field->len, json);
        break;
    case LOG_NUMBER:
        line_number(line, field->number, 1);
        break;
    case LOG_DURATION:
        line_number(line, field->number / 1000000000, 1);
        line_puts(line, ".");
        line_number(line, field->number / 1000 % 1000000, 6);
        break;
    }
}

/* All but the milliseconds is made once a second a thread. */
static void line_time(struct line *line)
{
    static _Thread_local char stamp[32];
    static _Thread_local size_t len;
    static _Thread_local time_t made;
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (now.tv_sec != made || len == 0) {
        struct tm utc;
        gmtime_r(&now.tv_sec, &utc);
        len = strftime(stamp, sizeof stamp, "%Y-%m-%dT%H:%M:%S.", &utc);
        made = now.tv_sec;
    }
    line_put(line, stamp, len);
    line_number(line, (uint64_t)now.tv_nsec / 1000000, 3);
    line_puts(line, "Z");
}

static void line_fields(struct line *line, const struct log_field *field, bool json)
{
    for (; field->key != NULL && !line->cut; field++) {
        size_t start = line->len;
        line_puts(line, json ? ",\"" : " ");
        line_puts(line, field->key);
        line_puts(line, json ? "\":" : "=");
        if (!line->cut)
            line_value(line, field, json);
        if (line->cut && !line->ended) {
            line->len = start;
            line->cut = false;
            memcpy(line->buf + line->len, json ? ",\"cut\":\"...\"" : " ...", json ? 12 : 4);
            line->len += json ? 12 : 4;
            return;
        }
    }
}

/* All in front of the message. */
static void line_begin(struct line *line, struct log_sink sink, bool json)
{
    if (sink.journal)
        line_put(line, (const char[]){ '<', sink.priority, '>' }, 3);
    if (sink.journal && !json)
        return;
    line_puts(line, json ? "{\"time\":\"" : "");
    line_time(line);
    line_puts(line, json ? "\",\"level\":\"" : " ");
    line_puts(line, sink.level);
    line_puts(line, json ? "\",\"message\":" : " ");
}

/* NOLINTNEXTLINE(readability-non-const-parameter): it is written to through struct line */
size_t log_render(char *buf, struct log_sink sink, const char *message, const struct log_field *fields)
{
    bool json = atomic_load_explicit(&current_format, memory_order_relaxed) == FORMAT_JSON;
    struct line line = { .buf = buf };
    line_begin(&line, sink, json);
    if (json)
        line_quote(&line, message, strlen(message), true);
    else
        line_puts(&line, message);
    line_fields(&line, fields, json);
    if (json)
        line.buf[line.len++] = '}';
    line.buf[line.len++] = '\n';
    return line.len;
}

ssize_t log_put(int fd, const char *data, size_t len)
{
    static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; /* else another thread takes the room that was found */
    struct pollfd room = { .fd = fd, .events = POLLOUT };
    ssize_t n = -1;
    pthread_mutex_lock(&lock);
    if (poll(&room, 1, 0) > 0)
        n = write(fd, data, len);
    else
        errno = EAGAIN;
    pthread_mutex_unlock(&lock);
    return n;
}

/* One line on standard error. False when it found no room. */
static bool log_put_line(enum log_level level, const char *message, const struct log_field *fields)
{
    static const char priorities[] = { '3', '4', '5', '6', '7' };
    char buf[LOG_LINE];
    size_t len = log_render(buf, (struct log_sink){ log_level_words[level], priorities[level], stderr_is_journal },
                            message, fields);
    return log_put(STDERR_FILENO, buf, len) >= 0;
}

void log_write(enum log_level level, const char *message, const struct log_field *fields)
{
    static atomic_ulong lost; /* and not told yet */
    int saved = errno;
    unsigned long count = atomic_exchange(&lost, 0);
    const struct log_field told[] = { log_number("lines", count), { 0 } };
    if (count > 0 && !log_put_line(LEVEL_WARNING, "log lines lost", told))
        atomic_fetch_add(&lost, count);
    if (!log_put_line(level, message, fields)) {
        atomic_fetch_add(&lost, 1);
        atomic_fetch_add(&lost_lines, 1);
    }
    errno = saved;
}

uint64_t log_lost(void)
{
    return atomic_load(&lost_lines);
}

bool log_is_journal(int fd)
{
    struct stat status;
    char actual[64];
    int saved = errno;
    const char *stream = getenv("JOURNAL_STREAM"); /* which nobody sets: NOLINT(concurrency-mt-unsafe) */
    bool is = stream != NULL && fstat(fd, &status) == 0;
    if (is) {
        snprintf(actual, sizeof actual, "%ju:%ju", (uintmax_t)status.st_dev, (uintmax_t)status.st_ino);
        is = strcmp(stream, actual) == 0;
    }
    errno = saved;
    return is;
}

void log_setup(enum log_level level, enum log_format format)
{
    atomic_store(&current_level, level);
    atomic_store(&current_format, format);
    atomic_store(&stderr_is_journal, log_is_journal(STDERR_FILENO));
}

bool log_enabled(enum log_level level)
{
    return (unsigned)level <= atomic_load_explicit(&current_level, memory_order_relaxed);
}

struct log_field log_text(const char *key, const char *text)
{
    return log_bytes(key, text, strlen(text));
}

struct log_field log_bytes(const char *key, const char *data, size_t len)
{
    return (struct log_field){ .key = key, .type = LOG_TEXT, .text = data, .len = len };
}

struct log_field log_number(const char *key, uint64_t number)
{
    return (struct log_field){ .key = key, .type = LOG_NUMBER, .number = number };
}

struct log_field log_duration(const char *key, int64_t nanoseconds)
{
    return (struct log_field){ .key = key, .type = LOG_DURATION, .number = (uint64_t)nanoseconds };
}

struct log_field log_errno(int error)
{
    /* thread-safe in glibc 2.32 and later, and in musl: NOLINTNEXTLINE(concurrency-mt-unsafe) */
    return log_text("error", strerror(error));
}
