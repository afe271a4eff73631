#include "probe/screen.h"

#include "text.h"

#include <stdarg.h>
#include <unistd.h>

static bool shown; /* a live line is on the screen */

/* The code point of a well-formed sequence of len bytes. */
static unsigned long code_point(const char *p, size_t len)
{
    unsigned long code = (unsigned char)p[0] & (len > 1 ? 0x7FU >> len : 0x7FU);
    for (size_t i = 1; i < len; i++)
        code = code << 6 | ((unsigned char)p[i] & 0x3FU);
    return code;
}

/* Characters that change the direction of text, end a line, or are not seen: Bidi_Control, separators, BOM. */
static bool plays_tricks(unsigned long code)
{
    static const struct {
        unsigned long first, last;
    } ranges[] = { { 0x061C, 0x061C }, { 0x200B, 0x200F }, { 0x2028, 0x202E },
                   { 0x2060, 0x206F }, { 0xFEFF, 0xFEFF }, { 0xE0000, 0xE0FFF } };
    for (size_t i = 0; i < sizeof ranges / sizeof ranges[0]; i++)
        if (code >= ranges[i].first && code <= ranges[i].last)
            return true;
    return false;
}

/* How many bytes at p may be shown as they are; 0: the first must be escaped. */
static size_t harmless(const char *p, size_t left)
{
    if (p[0] == '\n' || p[0] == '\t')
        return 1;
    if (p[0] == '\r')
        return left > 1 && p[1] == '\n' ? 2 : 0;
    for (size_t len = 1; len <= 4 && len <= left; len++)
        if (text_is_utf8(p, len))
            return text_has_control(p, len) || plays_tricks(code_point(p, len)) ? 0 : len;
    return 0;
}

void screen_write_escaped(FILE *out, struct bytes text)
{
    while (text.len > 0) {
        size_t len = harmless(text.data, text.len);
        if (len == 2 && text.data[0] == '\r')
            fputc('\n', out);
        else if (len > 0)
            fwrite(text.data, 1, len, out);
        else
            fprintf(out, "\\x%02x", (unsigned char)text.data[0]);
        bytes_skip(&text, len > 0 ? len : 1);
    }
}

void screen_write(FILE *out, struct bytes text)
{
    if (text.len == 0)
        return;
    if (!isatty(fileno(out))) {
        fwrite(text.data, 1, text.len, out);
        return;
    }
    screen_write_escaped(out, text);
    if (text.data[text.len - 1] != '\n')
        fputc('\n', out);
}

bool screen_is_live(void)
{
    return isatty(STDERR_FILENO) == 1;
}

void screen_live(const char *format, ...)
{
    va_list args;
    char line[1024];
    if (!screen_is_live())
        return;
    va_start(args, format);
    vsnprintf(line, sizeof line, format, args);
    va_end(args);
    /* DECAWM off and on: of a line that wraps into two rows only the second could be taken away */
    fprintf(stderr, "\r\033[K\033[?7l%s\033[?7h", line);
    shown = true;
}

void screen_clear(void)
{
    if (shown)
        fputs("\r\033[K", stderr);
    shown = false;
}
