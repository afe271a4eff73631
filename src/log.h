/*
 * log: one line an event on standard error, as text or JSON, with key=value fields.
 *
 * Every function may be called from any thread, does not wait for who reads, and leaves errno as it was. A line that
 * finds no room is lost; how many were is told in the next one that does. Bytes that come from strangers are
 * escaped, whatever they are; payload does not belong here.
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

/* Sets what is written from now on. Before the first call: notices and worse, as text. */
void log_setup(enum log_level level, enum log_format format);

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

/* Renders such a line, newline included, into buf (LOG_LINE bytes) under a word of your own; returns its length. */
size_t log_render(char *buf, const char *level, const char *message, const struct log_field *fields);

#endif
