/*
 * option: one typed setting. A table of rows says all there is to know of the keys of a section: name, type, bounds,
 * default and meaning. The parser, the dump of -T, and the checks of sample file and manual all derive from it. Pure.
 */
#ifndef ECHOD_OPTION_H
#define ECHOD_OPTION_H

#include <stddef.h>
#include <stdint.h>

enum option_type {
    OPTION_NUMBER, /* uint64_t */
    OPTION_SIZE,   /* uint64_t, bytes: 512, 16k, 1M, 1G (powers of 1024) */
    OPTION_TIME,   /* uint64_t, milliseconds: 250ms, 30s, 10m, 1h */
    OPTION_WORD,   /* unsigned: the index of one of the row's words */
    OPTION_TEXT    /* const char *, borrowed from who gave it */
};

struct option_row {
    const char *name; /* NULL ends a table */
    enum option_type type;
    size_t offset;            /* of the field, by OPTION_FIELD() */
    const char *fallback;     /* the default as text; NULL: the key is required */
    uint64_t min, max;        /* of a number, size or time; bytes of a text */
    const char *zero;         /* a word that stands for 0, such as auto; NULL: none */
    const char *const *words; /* of an OPTION_WORD, ended by NULL */
    const char *help;         /* one line */
};

/* The offset of a field; does not compile unless the field has the C type that the row's type needs. */
/* NOLINTBEGIN(bugprone-macro-parentheses): a type in _Generic takes none */
#define OPTION_FIELD(struct_type, field, ctype) \
    (offsetof(struct_type, field) + 0 * sizeof(char[_Generic(&((struct_type *)0)->field, ctype * : 1)]))
/* NOLINTEND(bugprone-macro-parentheses) */

/* Rows: key, struct and field that it fills, default, least, most, ... */
#define OPTION_SCALED(kind, key, struct_type, field, fallback_text, least, most, zero_word, meaning)       \
    {                                                                                                      \
        .name = (key), .type = (kind), .offset = OPTION_FIELD(struct_type, field, uint64_t),               \
        .fallback = (fallback_text), .min = (least), .max = (most), .zero = (zero_word), .help = (meaning) \
    }
#define NUMBER_ROW(...) OPTION_SCALED(OPTION_NUMBER, __VA_ARGS__)
#define SIZE_ROW(...)   OPTION_SCALED(OPTION_SIZE, __VA_ARGS__)
#define TIME_ROW(...)   OPTION_SCALED(OPTION_TIME, __VA_ARGS__)
#define WORD_ROW(key, struct_type, field, fallback_text, word_list, meaning)                      \
    {                                                                                             \
        .name = (key), .type = OPTION_WORD, .offset = OPTION_FIELD(struct_type, field, unsigned), \
        .fallback = (fallback_text), .words = (word_list), .help = (meaning)                      \
    }
#define TEXT_ROW(key, struct_type, field, fallback_text, least, most, meaning)                        \
    {                                                                                                 \
        .name = (key), .type = OPTION_TEXT, .offset = OPTION_FIELD(struct_type, field, const char *), \
        .fallback = (fallback_text), .min = (least), .max = (most), .help = (meaning)                 \
    }

#define OPTION_DAY 86400000 /* ms; the most that a TIME_ROW usually allows */

/* Parses text into the field of *settings. 0, or -1 with a sentence in err and the field as it was. */
int option_parse(const struct option_row *row, const char *text, void *settings, char *err, size_t errlen);

/* Writes the field as text that option_parse() reads back. Cut at buflen. */
void option_format(const struct option_row *row, const void *settings, char *buf, size_t buflen);

/* The row of that name, or NULL. */
const struct option_row *option_find(const struct option_row *table, const char *name);

#endif
