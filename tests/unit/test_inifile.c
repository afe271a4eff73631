#include "inifile.h"

#include "unit.h"

#include <stdio.h>
#include <string.h>

#define BOM "\xEF\xBB\xBF"

/* What was read, as "[section]1 key=value@2 ", and what was complained of, as "3: sentence\n". */
static char content[8192], errors[8192];
static unsigned lines;

static void append(char *text, const char *piece)
{
    ck_assert_uint_lt(strlen(text) + strlen(piece), sizeof content);
    strcat(text, piece);
}

static void report(void *arg, unsigned line, const char *sentence)
{
    char piece[600];
    ck_assert_ptr_eq(arg, errors);
    snprintf(piece, sizeof piece, "%u: %s\n", line, sentence);
    append(errors, piece);
}

/* The text is read from memory of just its size, so that a sanitizer sees a step over its end. */
static void read_bytes(const char *text, size_t len)
{
    struct inifile file;
    char piece[512], *exact = malloc(len > 0 ? len : 1);
    ck_assert_ptr_nonnull(exact);
    memcpy(exact, text, len);
    content[0] = errors[0] = '\0';
    ck_assert_int_eq(inifile_read(&file, exact, len, report, errors), 0);
    free(exact);
    for (size_t i = 0; i < file.count; i++) {
        const struct inifile_section *section = &file.sections[i];
        snprintf(piece, sizeof piece, "[%s]%u ", section->name, section->line);
        append(content, piece);
        for (size_t j = 0; j < section->count; j++) {
            const struct inifile_entry *entry = &section->entries[j];
            snprintf(piece, sizeof piece, "%s=%s@%u ", entry->key, entry->value, entry->line);
            append(content, piece);
        }
    }
    lines = file.lines;
    inifile_free(&file);
    ck_assert_uint_eq(file.count, 0);
    inifile_free(&file); /* leaves nothing dangling */
}

struct sample {
    const char *text, *content, *errors; /* content NULL: whatever it is */
};

static void check_samples(const struct sample *samples, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        read_bytes(samples[i].text, strlen(samples[i].text));
        if (samples[i].content != NULL)
            ck_assert_str_eq(content, samples[i].content);
        ck_assert_str_eq(errors, samples[i].errors);
    }
}

START_TEST(test_good)
{
    static const struct sample samples[] = {
        { "", "", "" },
        { "\n\n \n\t\n", "", "" },
        { "[a]", "[a]1 ", "" },
        { "[a]\nk=v", "[a]1 k=v@2 ", "" },
        { "[a]\nk = v\n\n[b c]\nl = w\nk = v\n", "[a]1 k=v@2 [b c]4 l=w@5 k=v@6 ", "" },
        { "[a]\r\nk = v\r\n\r\nl = w\r\n", "[a]1 k=v@2 l=w@4 ", "" },       /* CRLF */
        { "[a]\nk = v\r\nl = w\n", "[a]1 k=v@2 l=w@3 ", "" },               /* mixed */
        { BOM "[a]\nk = v\n", "[a]1 k=v@2 ", "" },                          /* a BOM begins the file */
        { BOM, "", "" },                                                    /* and may be all of it */
        { "  [a]\n\tk = v\n    l = w\n", "[a]1 k=v@2 l=w@3 ", "" },         /* no continuation lines */
        { "[a]\nk = v\n  ; w\n  # x\n  l = y\n", "[a]1 k=v@2 l=y@5 ", "" }, /* comments */
        { ";c\n#d\n[a] ; e\n[b]\t;f\nk = v ; g\nl = w\t; h\n", "[a]3 [b]4 k=v@5 l=w@6 ", "" },
        { "[a]\nk = v;w\nl = v # w\nm = v ;\n", "[a]1 k=v;w@2 l=v # w@3 m=v@4 ", "" },
        { "[a]\nk\t=\tv w \t\nl=  a  b  \n", "[a]1 k=v w@2 l=a  b@3 ", "" }, /* white space around */
        { "[a]\nk = v\tw\n", "[a]1 k=v\tw@2 ", "" },                         /* a tab is no control character */
        { "[a]\nk = a = b\nl == c\n", "[a]1 k=a = b@2 l== c@3 ", "" },       /* the first one counts */
        { "[a]\nk = [b]\nl = \"q\"\n", "[a]1 k=[b]@2 l=\"q\"@3 ", "" },      /* nothing else means anything */
        { "[a]\nk =\nl = ; c\n", "[a]1 k=@2 l=@3 ", "" },                    /* an empty value is the table's matter */
        { "[a]\n\xC3\xA9 = \xE2\x82\xAC\xC2\xA0\xF0\x9F\x98\x80\n",
          "[a]1 \xC3\xA9=\xE2\x82\xAC\xC2\xA0\xF0\x9F\x98\x80@2 ", "" },
        { "[]\nk = v\n", "[]1 k=v@2 ", "" }, /* a section's name too */
        { "[ a ]\n", "[ a ]1 ", "" },
    };
    check_samples(samples, sizeof samples / sizeof samples[0]);
}
END_TEST

START_TEST(test_repeated)
{
    static const struct sample samples[] = {
        { "[a]\nk=1\nl=2\nk=3\nk=4\n", "[a]1 k=1@2 l=2@3 ",
          "4: k is repeated; it was set in line 2\n5: k is repeated; it was set in line 2\n" },
        { "[a]\nk=1\n[b]\nk=2\nK=3\n", "[a]1 k=1@2 [b]3 k=2@4 K=3@5 ", "" },
        { "[a]\nk=1\n[b]\n\n[a]\nl=2\nk=3\n[b]\nk=4\n", "[a]1 k=1@2 l=2@6 [b]3 k=4@9 ",
          "5: section [a] is repeated; it began in line 1\n7: k is repeated; it was set in line 2\n"
          "8: section [b] is repeated; it began in line 3\n" },
        { "[a]\n[A]\n[a ]\n", "[a]1 [A]2 [a ]3 ", "" },
    };
    check_samples(samples, sizeof samples / sizeof samples[0]);
}
END_TEST

START_TEST(test_wrong_lines)
{
    static const struct sample samples[] = {
        { "k = v\n[a]\nl = w\n", "[a]2 l=w@3 ", "1: k stands before the first section\n" },
        { "\n; c\nnonsense\n[a]\n", "[a]4 ", "3: \"nonsense\" is neither a section nor KEY = VALUE\n" },
        { "[a]\n  k v\nl = w\n", "[a]1 l=w@3 ", "2: \"k v\" is neither a section nor KEY = VALUE\n" },
        { "[a]\nk ; = v\n", "[a]1 ", "2: \"k ; = v\" is neither a section nor KEY = VALUE\n" },
        { "[a]\n= v\n  =\n", "[a]1 ",
          "2: the name of the key is missing in front of \"v\"\n3: the name of the key is missing in front of \"\"\n" },
        { "[a]\nk=1\n  more\nl=2\n", "[a]1 k=1@2 l=2@4 ", "3: \"more\" is neither a section nor KEY = VALUE\n" },
        { "[a\n", "", "1: \"[a\" lacks the closing bracket of a section\n" },
        { "[\n", "", "1: \"[\" lacks the closing bracket of a section\n" },
        { "[a] junk\n", NULL, "1: \"junk\" stands behind a section; a key needs a line of its own\n" },
        { "[a]\tk = v\n", NULL, "1: \"k = v\" stands behind a section; a key needs a line of its own\n" },
        { "[a]]\n", NULL, "1: \"]\" stands behind a section; a key needs a line of its own\n" },
        { "[a] # c\n", NULL, "1: \"# c\" stands behind a section; a key needs a line of its own\n" },
        { "[a] [b]\n", NULL, "1: \"[b]\" stands behind a section; a key needs a line of its own\n" },
    };
    check_samples(samples, sizeof samples / sizeof samples[0]);
}
END_TEST

/* The keys below a section line that is wrong are not taken for another section's. */
START_TEST(test_keys_of_a_wrong_section)
{
    static const struct sample samples[] = {
        { "[a]\nk = 1\n[b\nk = 2\nl = 3\n[c]\nk = 4\n", "[a]1 k=1@2 [c]6 k=4@7 ",
          "3: \"[b\" lacks the closing bracket of a section\n" },
        { "[a\nk = 1\n", "", "1: \"[a\" lacks the closing bracket of a section\n" },
        { "[a] b\nk = 1\n", NULL, "1: \"b\" stands behind a section; a key needs a line of its own\n" },
    };
    check_samples(samples, sizeof samples / sizeof samples[0]);
}
END_TEST

/* What begins a comment inside the brackets leaves no section, and is told. */
START_TEST(test_comment_inside_brackets)
{
    static const char *const cases[] = { "[a ;b]", "[ ;]", "[a\t;b]", "[a ;b] ; c" };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        read_bytes(cases[i], strlen(cases[i]));
        ck_assert_str_eq(content, "");
        ck_assert_ptr_eq(strstr(errors, "1: "), errors);
    }
    read_bytes("[a;b]", 5);
    ck_assert_str_eq(content, "[a;b]1 ");
    ck_assert_str_eq(errors, "");
}
END_TEST

START_TEST(test_wrong_bytes)
{
    static const char nul[] = "1: the line holds a NUL byte\n", control[] = "1: the line holds a control character\n",
                      utf8[] = "1: the line is not valid UTF-8\n", bom[] = "1: the line holds a byte order mark\n";
    static const struct {
        const char *line;
        size_t len;
        const char *error;
    } cases[] = {
#define CASE(literal, error) { (literal), sizeof(literal) - 1, (error) }
        CASE("k = a\0b", nul),      CASE("\0k = v", nul),
        CASE("k = v\0", nul),       CASE("; \0", nul), /* a comment is no hiding place */
        CASE("k = \x01", control),  CASE("k\x02 = v", control),
        CASE("\x01=", control),     CASE("[a\x0B]", control),
        CASE("k = \x0C", control),  CASE("k = \x1B[31m", control),
        CASE("k = \x7F", control),  CASE("k = \xC2\x85", control), /* C1 */
        CASE("# \x08", control),    CASE("a\rk = v", control),     /* a CR that ends no line */
        CASE("k = v\r\r", control), CASE("k = \xE9", utf8),
        CASE("k = \xC0\xAF", utf8), CASE("k = \xED\xA0\x80", utf8),
        CASE("k = \xE2\x82", utf8), CASE("# \xFC", utf8),
        CASE("\xFF\xFE[", utf8),    CASE("  " BOM "k = v", bom),
        CASE(BOM BOM "k = v", bom),
#undef CASE
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char text[64];
        memcpy(text, cases[i].line, cases[i].len);
        memcpy(text + cases[i].len, "\n[b]\nl = w", 10);
        read_bytes(text, cases[i].len); /* without and with a line end */
        ck_assert_str_eq(content, "");
        ck_assert_str_eq(errors, cases[i].error);
        read_bytes(text, cases[i].len + 10); /* what follows is read */
        ck_assert_str_eq(content, "[b]2 l=w@3 ");
        ck_assert_str_eq(errors, cases[i].error);
    }
    read_bytes("[a]\n" BOM "k = v\n", 13);
    ck_assert_str_eq(errors, "2: the line holds a byte order mark\n");
}
END_TEST

/* 198 bytes are a line, whatever ends it and whatever they are; 199 are not. */
START_TEST(test_longest_line)
{
    static const char *const begins[] = { "k = ", "    k = ", "; ", "[a] ; " }, *const ends[] = { "", "\n", "\r\n" };
    for (size_t i = 0; i < 4; i++)
        for (size_t j = 0; j < 3; j++)
            for (int len = 197; len <= 199; len++) {
                char line[210], text[256];
                memset(line, 'x', sizeof line);
                memcpy(line, begins[i], strlen(begins[i]));
                snprintf(text, sizeof text, "[s]\n%.*s%s", len, line, ends[j]);
                read_bytes(text, strlen(text));
                ck_assert_str_eq(errors, len < 199 ? "" : "2: the line is longer than 198 bytes\n");
                char expected[256];
                snprintf(expected, sizeof expected, "[s]1 k=%.*s@2 ", len - (int)strlen(begins[i]),
                         line + strlen(begins[i]));
                if (i < 2)
                    ck_assert_str_eq(content, len < 199 ? expected : "[s]1 ");
                else
                    ck_assert_str_eq(content, i == 3 && len < 199 ? "[s]1 [a]2 " : "[s]1 ");
            }
}
END_TEST

START_TEST(test_lines)
{
    static const struct {
        const char *text;
        unsigned lines;
    } cases[] = {
        { "", 0 }, { "\n", 1 }, { "\r\n", 1 }, { "[a]", 1 }, { "[a]\n", 1 }, { "[a]\n ", 2 }, { "\n\n[a\nk", 4 },
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        read_bytes(cases[i].text, strlen(cases[i].text));
        ck_assert_uint_eq(lines, cases[i].lines);
    }
}
END_TEST

/* Text far behind a line that is too long is not taken for a line of its own. */
START_TEST(test_very_long_line)
{
    char text[2000];
    memset(text, ' ', sizeof text);
    for (size_t i = 0; i + 5 < sizeof text; i += 5)
        memcpy(text + i, "k = v", 5);
    memcpy(text, "[a]\n", 4);
    memcpy(text + sizeof text - 7, "\nl = w\n", 7);
    read_bytes(text, sizeof text);
    ck_assert_str_eq(content, "[a]1 l=w@3 ");
    ck_assert_str_eq(errors, "2: the line is longer than 198 bytes\n");
}
END_TEST

START_TEST(test_longest_section)
{
    char text[64], expected[64];
    snprintf(text, sizeof text, "[%049d]\nk=v", 7);
    snprintf(expected, sizeof expected, "[%049d]1 k=v@2 ", 7);
    read_bytes(text, strlen(text));
    ck_assert_str_eq(content, expected);
    ck_assert_str_eq(errors, "");
    snprintf(text, sizeof text, "[%050d]", 7);
    read_bytes(text, strlen(text));
    ck_assert_str_eq(content, "");
    ck_assert_str_eq(errors, "1: the name of the section is too long\n");
}
END_TEST

/* All errors of a file, each with its line, and all that is right beside them. */
START_TEST(test_every_error)
{
    static const char text[] = "early = 1\r\n"   /* 1 */
                               "[a]\r\n"         /* 2 */
                               "\r\n"            /* 3 */
                               "k = 1\r\n"       /* 4 */
                               "k = 2\r\n"       /* 5 */
                               "bad\xFF = 3\r\n" /* 6 */
                               "nul\0 = 4\r\n"   /* 7 */
                               "none\r\n"        /* 8 */
                               "l = 5\r\n"       /* 9 */
                               "[b] m = 6\r\n"   /* 10 */
                               "[c]\r\n"         /* 11 */
                               " = 7\r\n"        /* 12 */
                               "n = 8\r\n"       /* 13 */
                               "[a]\r\n"         /* 14 */
                               "\tbell = \a";    /* 15 */
    read_bytes(text, sizeof text - 1);
    ck_assert_str_eq(content, "[a]2 k=1@4 l=5@9 [c]11 n=8@13 ");
    ck_assert_str_eq(errors, "1: early stands before the first section\n"
                             "5: k is repeated; it was set in line 4\n"
                             "6: the line is not valid UTF-8\n"
                             "7: the line holds a NUL byte\n"
                             "8: \"none\" is neither a section nor KEY = VALUE\n"
                             "10: \"m = 6\" stands behind a section; a key needs a line of its own\n"
                             "12: the name of the key is missing in front of \"7\"\n"
                             "14: section [a] is repeated; it began in line 2\n"
                             "15: the line holds a control character\n");
}
END_TEST

UNIT_MAIN("inifile", test_good, test_repeated, test_wrong_lines, test_keys_of_a_wrong_section,
          test_comment_inside_brackets, test_wrong_bytes, test_longest_line, test_lines, test_very_long_line,
          test_longest_section, test_every_error)
