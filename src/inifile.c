#include "inifile.h"

#include "text.h"

#include <ini.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LINE_MAX_BYTES \
    (INI_MAX_LINE - 2)       /* with its newline and NUL it fits inih's buffer; a longer one is split there */
#define SECTION_MAX_BYTES 49 /* inih cuts a longer name */

/* Behind a section line inih is given this key, as it calls back for keys only. No file can hold it. */
#define SECTION_MARK "\x01"

struct reader {
    struct inifile *file;
    struct inifile_section *section; /* the one that entries go to; NULL before the first */
    inifile_report *report;
    void *arg;
    unsigned line;
    bool heard;    /* inih has called back for this line */
    bool skipping; /* entries of a section whose line is wrong: one error is enough */
    bool no_memory;
};

__attribute__((format(printf, 2, 3))) static void complain(struct reader *r, const char *format, ...)
{
    char sentence[512];
    va_list args;
    va_start(args, format);
    vsnprintf(sentence, sizeof sentence, format, args);
    va_end(args);
    r->report(r->arg, r->line, sentence);
}

static void add_section(struct reader *r, const char *name)
{
    for (size_t i = 0; i < r->file->count; i++)
        if (strcmp(r->file->sections[i].name, name) == 0) {
            complain(r, "section [%s] is repeated; it began in line %u", name, r->file->sections[i].line);
            r->section = &r->file->sections[i];
            return;
        }
    struct inifile_section *grown = realloc(r->file->sections, (r->file->count + 1) * sizeof *grown);
    char *copy = strdup(name);
    if (grown != NULL)
        r->file->sections = grown;
    if (grown == NULL || copy == NULL) {
        free(copy);
        r->no_memory = true;
        return;
    }
    r->section = &grown[r->file->count++];
    *r->section = (struct inifile_section){ .name = copy, .line = r->line };
}

static void add_entry(struct reader *r, const char *key, const char *value)
{
    struct inifile_section *section = r->section;
    for (size_t i = 0; i < section->count; i++)
        if (strcmp(section->entries[i].key, key) == 0) {
            complain(r, "%s is repeated; it was set in line %u", key, section->entries[i].line);
            return;
        }
    struct inifile_entry *grown = realloc(section->entries, (section->count + 1) * sizeof *grown);
    if (grown != NULL)
        section->entries = grown;
    struct inifile_entry entry = { .key = strdup(key), .value = strdup(value), .line = r->line };
    if (grown == NULL || entry.key == NULL || entry.value == NULL) {
        free(entry.key);
        free(entry.value);
        r->no_memory = true;
        return;
    }
    grown[section->count++] = entry;
}

/* What inih calls for a key; for a section line it is the key that read_line() put behind it. */
static int on_key(void *arg, const char *section, const char *key, const char *value)
{
    struct reader *r = arg;
    r->heard = true;
    if (strcmp(key, SECTION_MARK) == 0)
        add_section(r, section);
    else if (key[0] == '\0')
        complain(r, "the name of the key is missing in front of \"%s\"", value);
    else if (r->skipping)
        return 1;
    else if (r->section == NULL)
        complain(r, "%s stands before the first section", key);
    else
        add_entry(r, key, value);
    return 1;
}

/* A section line is [NAME], and behind it nothing but a comment. */
static bool section_is_sound(struct reader *r, const char *line)
{
    const char *end = strchr(line, ']'), *comment = strchr(line, ';');
    bool in_name = comment != NULL && comment < end && (comment[-1] == ' ' || comment[-1] == '\t');
    if (end == NULL || in_name)
        complain(r, "\"%s\" lacks the closing bracket of a section", line);
    else if (end - line - 1 > SECTION_MAX_BYTES)
        complain(r, "the name of the section is too long");
    else if (end[1 + strspn(end + 1, " \t")] != '\0' && end[1 + strspn(end + 1, " \t")] != ';')
        complain(r, "\"%s\" stands behind a section; a key needs a line of its own", end + 1 + strspn(end + 1, " \t"));
    else
        return true;
    return false;
}

static bool bytes_are_sound(struct reader *r, const char *line, size_t len)
{
    if (len > LINE_MAX_BYTES) {
        complain(r, "the line is longer than %d bytes", LINE_MAX_BYTES);
    } else if (memchr(line, '\0', len) != NULL) {
        complain(r, "the line holds a NUL byte");
    } else if (!text_is_utf8(line, len)) {
        complain(r, "the line is not valid UTF-8");
    } else {
        for (size_t i = 0; i < len; i++)
            if (line[i] != '\t' && text_has_control(line + i, line[i] == '\xC2' ? 2 : 1)) {
                complain(r, "the line holds a control character");
                return false;
            }
        return true;
    }
    return false;
}

/* One line, without its line end. inih sees it alone and unindented: so it can be no continuation of the one before. */
static void read_line(struct reader *r, const char *line, size_t len)
{
    char text[LINE_MAX_BYTES + sizeof "\n" SECTION_MARK "=\n"];
    if (!bytes_are_sound(r, line, len))
        return;
    while (len > 0 && (line[0] == ' ' || line[0] == '\t')) {
        line++;
        len--;
    }
    if (len == 0 || line[0] == ';' || line[0] == '#')
        return;
    snprintf(text, sizeof text, "%.*s", (int)len, line);
    if (strncmp(text, "\xEF\xBB\xBF", 3) == 0) {
        complain(r, "the line holds a byte order mark");
        return;
    }
    if (text[0] == '[') {
        r->skipping = !section_is_sound(r, text);
        if (r->skipping)
            return;
        snprintf(text + len, sizeof text - len, "\n%s=\n", SECTION_MARK);
    }
    r->heard = false;
    if (text[0] == '[' || text[strcspn(text, "=:")] != ':') /* which inih takes for = */
        ini_parse_string(text, on_key, r);
    if (!r->heard)
        complain(r, "\"%s\" is neither a section nor KEY = VALUE", text);
}

int inifile_read(struct inifile *file, const char *text, size_t len, inifile_report *report, void *arg)
{
    struct reader r = { .file = file, .report = report, .arg = arg };
    const char *end = text + len;
    *file = (struct inifile){ 0 };
    if (len >= 3 && memcmp(text, "\xEF\xBB\xBF", 3) == 0)
        text += 3; /* a byte order mark may begin the file */
    while (text < end && !r.no_memory) {
        const char *newline = memchr(text, '\n', (size_t)(end - text));
        const char *stop = newline != NULL ? newline : end;
        r.line++;
        read_line(&r, text, (size_t)(stop - text) - (stop > text && stop[-1] == '\r' ? 1 : 0));
        text = stop + 1;
    }
    file->lines = r.line;
    return r.no_memory ? -1 : 0;
}

void inifile_free(struct inifile *file)
{
    for (size_t i = 0; i < file->count; i++) {
        struct inifile_section *section = &file->sections[i];
        for (size_t j = 0; j < section->count; j++) {
            free(section->entries[j].key);
            free(section->entries[j].value);
        }
        free(section->entries);
        free(section->name);
    }
    free(file->sections);
    *file = (struct inifile){ 0 };
}
