/*
 * log: one line an event on standard error, as text or JSON, with key=value fields.
 *
 * Every function may be called from any thread, does not wait for who reads, and leaves errno as it was. A line that
 * finds no room is lost; how many were is told in the next one that does. Bytes that come from strangers are
 * escaped, whatever they are; payload does not belong here.
 *
 * A line for the systemd journal begins with its priority, as sd-daemon(3) has it; time and level of a text line are
 * left out there, for the journal has both.
 */
#ifndef ECHOD_LOG_H
#define ECHOD_LOG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

enum log_level { LEVEL_ERROR, LEVEL_WARNING, LEVEL_NOTICE, LEVEL_INFO, LEVEL_DEBUG };
enum log_format { FORMAT_TEXT, FORMAT_JSON };

/* The words that stand for the two enums in the configuration, in their order, ended by NULL. */
extern const char *const log_level_words[];
extern const char *const log_format_words[];

#define LOG_LINE 2048 /* bytes of the longest line; a longer value is cut and marked with "..." */

/* One key with its value. The key and a text are borrowed for the call. */
struct log_field {
    const char *key;
    enum { LOG_TEXT, LOG_NUMBER, LOG_DURATION } type;
    const char *text;
    size_t len;
    uint64_t number;
};

struct log_field log_text(const char *key, const char *text);
struct log_field log_bytes(const char *key, const char *data, size_t len);
struct log_field log_number(const char *key, uint64_t number);
struct log_field log_duration(const char *key, int64_t nanoseconds); /* printed in seconds */
struct log_field log_errno(int error);                               /* error="..." */

/* Sets what is written from now on. Before the first call: notices and worse, as text, whoever reads. */
void log_setup(enum log_level level, enum log_format format);

/* True when what is written to this descriptor goes to the journal (JOURNAL_STREAM, systemd.exec(5)). */
bool log_is_journal(int fd);

bool log_enabled(enum log_level level);

/* log_event(LEVEL_INFO, "what happened", log_text("peer", p), ...): at least one field. */
#define log_event(level, message, ...)                                                       \
    do {                                                                                     \
        if (log_enabled(level))                                                              \
            log_write((level), (message), (const struct log_field[]){ __VA_ARGS__, { 0 } }); \
    } while (0)

/* Writes one line; the fields end with one whose key is NULL. */
void log_write(enum log_level level, const char *message, const struct log_field *fields);

/*
 * Writes at most PIPE_BUF bytes, in one piece, to a descriptor that may be a pipe, without waiting: -1 and EAGAIN when
 * it has no room.
 */
ssize_t log_put(int fd, const char *data, size_t len);

/* How many lines found no room so far. */
uint64_t log_lost(void);

/* Where a line goes, and the rank that it has there. */
struct log_sink {
    const char *level; /* the word for it */
    char priority;     /* of syslog(3), '0' to '7' */
    bool journal;
};

/* Renders such a line, newline included, into buf (LOG_LINE bytes); returns its length. */
size_t log_render(char *buf, struct log_sink sink, const char *message, const struct log_field *fields);

#endif
