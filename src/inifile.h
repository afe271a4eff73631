/*
 * inifile: the text of an INI file to sections and entries, each with its line. inih takes each line apart; what inih
 * would let pass in silence (long lines, repeats, continuation, text behind a section) is an error here. Pure.
 */
#ifndef ECHOD_INIFILE_H
#define ECHOD_INIFILE_H

#include <stddef.h>

struct inifile_entry {
    char *key, *value;
    unsigned line;
};

struct inifile_section {
    char *name;
    unsigned line;
    struct inifile_entry *entries;
    size_t count;
};

struct inifile {
    struct inifile_section *sections;
    size_t count;
    unsigned lines; /* of the text */
};

/* Is told every error: the line it is in, and a sentence. */
typedef void inifile_report(void *arg, unsigned line, const char *sentence);

/* Reads all of text. Errors are reported, and what is right beside them is still read. -1 when memory ran out. */
int inifile_read(struct inifile *file, const char *text, size_t len, inifile_report *report, void *arg);

void inifile_free(struct inifile *file);

#endif
