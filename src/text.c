#include "text.h"

#include <string.h>

/* Length of the well-formed sequence of several bytes at p (RFC 3629 section 4), 0 when there is none. */
static size_t utf8_sequence(const unsigned char *p, size_t len)
{
    unsigned char low = 0x80, high = 0xBF;
    size_t n;
    if (p[0] >= 0xC2 && p[0] <= 0xDF)
        n = 2;
    else if ((p[0] & 0xF0) == 0xE0)
        n = 3;
    else if (p[0] >= 0xF0 && p[0] <= 0xF4)
        n = 4;
    else
        return 0;
    if (len < n)
        return 0;
    if (p[0] == 0xE0)
        low = 0xA0; /* else overlong */
    else if (p[0] == 0xED)
        high = 0x9F; /* else a surrogate */
    else if (p[0] == 0xF0)
        low = 0x90; /* else overlong */
    else if (p[0] == 0xF4)
        high = 0x8F; /* else over U+10FFFF */
    if (p[1] < low || p[1] > high)
        return 0;
    for (size_t i = 2; i < n; i++)
        if ((p[i] & 0xC0) != 0x80)
            return 0;
    return n;
}

bool text_is_utf8(const char *data, size_t len)
{
    const unsigned char *p = (const unsigned char *)data;
    for (size_t i = 0, n; i < len; i += n) {
        n = p[i] < 0x80 ? 1 : utf8_sequence(p + i, len - i);
        if (n == 0)
            return false;
    }
    return true;
}

bool text_has_control(const char *data, size_t len)
{
    const unsigned char *p = (const unsigned char *)data;
    for (size_t i = 0; i < len; i++) {
        if (p[i] < 0x20 || p[i] == 0x7F)
            return true;
        if (p[i] == 0xC2 && i + 1 < len && p[i + 1] >= 0x80 && p[i + 1] <= 0x9F)
            return true;
    }
    return false;
}

size_t text_number(char buf[TEXT_NUMBER], uint64_t number)
{
    char digits[TEXT_NUMBER];
    size_t at = sizeof digits;
    do
        digits[--at] = (char)('0' + number % 10);
    while ((number /= 10) > 0);
    memcpy(buf, digits + at, sizeof digits - at);
    return sizeof digits - at;
}

unsigned text_distance(const char *a, const char *b)
{
    size_t alen = strlen(a), blen = strlen(b);
    unsigned row[64];
    if (alen > 63 || blen > 63)
        return 99;
    for (size_t j = 0; j <= blen; j++)
        row[j] = (unsigned)j;
    for (size_t i = 1; i <= alen; i++) {
        unsigned diagonal = row[0];
        row[0] = (unsigned)i;
        for (size_t j = 1; j <= blen; j++) {
            unsigned replace = diagonal + (a[i - 1] != b[j - 1]);
            unsigned gap = (row[j] < row[j - 1] ? row[j] : row[j - 1]) + 1;
            diagonal = row[j];
            row[j] = replace < gap ? replace : gap;
        }
    }
    return row[blen];
}
