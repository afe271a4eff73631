#include "probe/screen.h"

#include "unit.h"

#include <string.h>

#define BYTES(literal)                                \
    {                                                 \
        .data = (literal), .len = sizeof(literal) - 1 \
    }

START_TEST(test_escaped)
{
    static const struct {
        struct bytes text;
        const char *want;
    } cases[] = {
        { BYTES("Hello, world!\n"), "Hello, world!\n" },
        { BYTES("a\tb\r\nc\n"), "a\tb\nc\n" },
        { BYTES("\033[2J\007"), "\\x1b[2J\\x07" },
        { BYTES("good\rbad"), "good\\x0dbad" },
        { BYTES("\r"), "\\x0d" },
        { BYTES("a\0b\x7F"), "a\\x00b\\x7f" },
        { BYTES("\xC3\xA9 \xE2\x82\xAC \xF0\x9F\x98\x80"), "\xC3\xA9 \xE2\x82\xAC \xF0\x9F\x98\x80" },
        { BYTES("\xC2\x9B"), "\\xc2\\x9b" },                            /* CSI, as UTF-8 writes it */
        { BYTES("\x9B"), "\\x9b" },                                     /* CSI itself */
        { BYTES("\xE2\x80\xAE"), "\\xe2\\x80\\xae" },                   /* right-to-left override */
        { BYTES("\xF3\xA0\x81\x81"), "\\xf3\\xa0\\x81\\x81" },          /* a tag, which nobody sees */
        { BYTES("\xE2\x82"), "\\xe2\\x82" },                            /* truncated */
        { BYTES("\xC0\xAF\xED\xA0\x80"), "\\xc0\\xaf\\xed\\xa0\\x80" }, /* overlong; a surrogate */
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char *text;
        size_t len;
        FILE *out = open_memstream(&text, &len);
        screen_write_escaped(out, cases[i].text);
        fclose(out);
        ck_assert_str_eq(text, cases[i].want);
        ck_assert_uint_eq(len, strlen(cases[i].want));
        free(text);
    }
}
END_TEST

/* What is no terminal gets the bytes as they are. */
START_TEST(test_file)
{
    static const struct bytes text = BYTES("\033[2J\0\xFF\r");
    char got[16];
    FILE *out = tmpfile();
    ck_assert_ptr_nonnull(out);
    screen_write(out, text);
    rewind(out);
    ck_assert_uint_eq(fread(got, 1, sizeof got, out), text.len);
    ck_assert_mem_eq(got, text.data, text.len);
    fclose(out);
}
END_TEST

UNIT_MAIN("screen", test_escaped, test_file)
