#include "option.h"

#include <ctype.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

struct unit {
    const char *name;
    uint64_t factor;
};

/* Largest first: a value is written in the largest unit that divides it. A plain number is a unit without name. */
static const struct unit number_units[] = { { "", 1 }, { NULL, 0 } };
static const struct unit size_units[] = {
    { "G", 1 << 30 }, { "M", 1 << 20 }, { "k", 1 << 10 }, { "", 1 }, { NULL, 0 }
};
static const struct unit time_units[] = { { "h", 3600000 }, { "m", 60000 }, { "s", 1000 }, { "ms", 1 }, { NULL, 0 } };

static const struct unit *option_units(const struct option_row *row)
{
    if (row->type == OPTION_TIME)
        return time_units;
    return row->type == OPTION_SIZE ? size_units : number_units;
}

/* Writes value in the largest unit that divides it. */
static void scaled_format(const struct unit *unit, uint64_t value, char *buf, size_t buflen)
{
    while (unit->factor > 1 && (value == 0 || value % unit->factor != 0))
        unit++;
    snprintf(buf, buflen, "%" PRIu64 "%s", value / unit->factor, unit->name);
}

static int bounds_error(const struct option_row *row, char *err, size_t errlen)
{
    char min[32], max[32];
    scaled_format(option_units(row), row->min, min, sizeof min);
    scaled_format(option_units(row), row->max, max, sizeof max);
    snprintf(err, errlen, "must be from %s to %s%s%s", min, max, row->zero != NULL ? ", or " : "",
             row->zero != NULL ? row->zero : "");
    return -1;
}

static int unit_error(const struct option_row *row, const char *text, char *err, size_t errlen)
{
    static const char *const expected[] = {
        [OPTION_NUMBER] = "a whole number",
        [OPTION_SIZE] = "a size such as 512, 16k, 1M or 1G",
        [OPTION_TIME] = "a time with its unit, such as 250ms, 30s, 10m or 1h",
    };
    snprintf(err, errlen, "\"%s\" is not %s%s%s", text, expected[row->type], row->zero != NULL ? " or " : "",
             row->zero != NULL ? row->zero : "");
    return -1;
}

static int scaled_parse(const struct option_row *row, const char *text, uint64_t *field, char *err, size_t errlen)
{
    uint64_t value = 0;
    const char *p = text;
    if (row->zero != NULL && strcmp(text, row->zero) == 0) {
        *field = 0;
        return 0;
    }
    bool over = false;
    for (; isdigit((unsigned char)*p); p++) {
        over = over || value > (UINT64_MAX - (uint64_t)(*p - '0')) / 10;
        value = over ? value : value * 10 + (uint64_t)(*p - '0');
    }
    const struct unit *unit = option_units(row);
    while (unit->name != NULL && strcmp(unit->name, p) != 0)
        unit++;
    if (p == text || unit->name == NULL)
        return unit_error(row, text, err, errlen);
    if (over || value > row->max / unit->factor || value * unit->factor < row->min)
        return bounds_error(row, err, errlen);
    *field = value * unit->factor;
    return 0;
}

static int word_parse(const struct option_row *row, const char *text, unsigned *field, char *err, size_t errlen)
{
    for (unsigned i = 0; row->words[i] != NULL; i++)
        if (strcmp(row->words[i], text) == 0) {
            *field = i;
            return 0;
        }
    int n = snprintf(err, errlen, "\"%s\" is not one of", text);
    for (unsigned i = 0; row->words[i] != NULL && n > 0 && (size_t)n < errlen; i++)
        n += snprintf(err + n, errlen - (size_t)n, "%s %s", i > 0 ? "," : "", row->words[i]);
    return -1;
}

static int text_parse(const struct option_row *row, const char *text, const char **field, char *err, size_t errlen)
{
    size_t len = strlen(text);
    if (len < row->min || len > row->max)
        snprintf(err, errlen, "must have from %" PRIu64 " to %" PRIu64 " bytes", row->min, row->max);
    else {
        *field = text;
        return 0;
    }
    return -1;
}

int option_parse(const struct option_row *row, const char *text, void *settings, char *err, size_t errlen)
{
    void *field = (char *)settings + row->offset;
    if (text[0] == '\0' && (row->type != OPTION_TEXT || row->min > 0)) {
        snprintf(err, errlen, "needs a value");
        return -1;
    }
    switch (row->type) {
    case OPTION_WORD:
        return word_parse(row, text, field, err, errlen);
    case OPTION_TEXT:
        return text_parse(row, text, field, err, errlen);
    default:
        return scaled_parse(row, text, field, err, errlen);
    }
}

void option_format(const struct option_row *row, const void *settings, char *buf, size_t buflen)
{
    const void *field = (const char *)settings + row->offset;
    uint64_t value;
    switch (row->type) {
    case OPTION_WORD:
        snprintf(buf, buflen, "%s", row->words[*(const unsigned *)field]);
        break;
    case OPTION_TEXT:
        snprintf(buf, buflen, "%s", *(const char *const *)field);
        break;
    default:
        value = *(const uint64_t *)field;
        if (value == 0 && row->zero != NULL)
            snprintf(buf, buflen, "%s", row->zero);
        else
            scaled_format(option_units(row), value, buf, buflen);
    }
}

const struct option_row *option_find(const struct option_row *table, const char *name)
{
    for (; table != NULL && table->name != NULL; table++)
        if (strcmp(table->name, name) == 0)
            return table;
    return NULL;
}
