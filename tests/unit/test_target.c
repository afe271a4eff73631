#include "probe/target.h"

#include "unit.h"

#include <string.h>

START_TEST(test_sound)
{
    static const struct {
        const char *url;
        enum scheme scheme;
        const char *host;
        unsigned port;
        const char *path;
        bool standard;
    } cases[] = {
        { "tcp://127.0.0.1:8888", SCHEME_TCP, "127.0.0.1", 8888, "/", false },
        { "tcp://echo.example", SCHEME_TCP, "echo.example", 7, "/", true },
        { "tcp://echo.example:", SCHEME_TCP, "echo.example", 7, "/", true },
        { "tcp://[::1]:65535", SCHEME_TCP, "::1", 65535, "/", false },
        { "tcp://[::1]", SCHEME_TCP, "::1", 7, "/", true },
        { "tcp://echo.example.:9", SCHEME_TCP, "echo.example", 9, "/", false },
        { "TCP://x:00007", SCHEME_TCP, "x", 7, "/", true },
        { "tls://a_b-c.example:1", SCHEME_TLS, "a_b-c.example", 1, "/", false },
        { "tls://vhost:1", SCHEME_TLS, "vhost", 1, "/", false },
        { "http://x", SCHEME_HTTP, "x", 80, "/", true },
        { "http://x/", SCHEME_HTTP, "x", 80, "/", true },
        { "http://x:80", SCHEME_HTTP, "x", 80, "/", true },
        { "http://x:8080/world", SCHEME_HTTP, "x", 8080, "/world", false },
        { "http://x?q=1", SCHEME_HTTP, "x", 80, "/?q=1", true },
        { "http://x/a%20b?c=/d?e", SCHEME_HTTP, "x", 80, "/a%20b?c=/d?e", true },
        { "http://x//y", SCHEME_HTTP, "x", 80, "//y", true },
        { "https://x", SCHEME_HTTPS, "x", 443, "/", true },
        { "https://[2001:db8::1]:443/x", SCHEME_HTTPS, "2001:db8::1", 443, "/x", true },
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct target t;
        char err[256] = "";
        ck_assert_msg(target_parse(cases[i].url, &t, err, sizeof err) == 0, "%s: %s", cases[i].url, err);
        ck_assert_msg(t.scheme == cases[i].scheme && t.port == cases[i].port, "%s", cases[i].url);
        ck_assert_msg(t.port_is_default == cases[i].standard, "%s", cases[i].url);
        ck_assert_str_eq(t.host, cases[i].host);
        ck_assert_str_eq(t.path, cases[i].path);
        ck_assert_ptr_eq(t.url, cases[i].url);
        ck_assert_int_eq(t.absolute, strstr(cases[i].url, ".:") != NULL);
    }
}
END_TEST

START_TEST(test_unix)
{
    static const struct {
        const char *url, *path;
        size_t len;
    } cases[] = {
        { "unix:/run/x", "/run/x", 7 },     { "unix:///run/x", "/run/x", 7 }, { "unix://x", "//x", 4 },
        { "unix:relative", "relative", 9 }, { "unix:@x", "\0x", 2 },          { "unix:/a b#c?d", "/a b#c?d", 9 },
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct target t;
        char err[256];
        ck_assert_int_eq(target_parse(cases[i].url, &t, err, sizeof err), 0);
        ck_assert_int_eq(t.scheme, SCHEME_UNIX);
        ck_assert_uint_eq(t.unix_len, offsetof(struct sockaddr_un, sun_path) + cases[i].len);
        ck_assert_mem_eq(t.unix_.sun_path, cases[i].path, cases[i].len);
    }
}
END_TEST

#define SIXTY "012345678901234567890123456789012345678901234567890123456789"

START_TEST(test_unsound)
{
    static const struct {
        const char *url, *word;
    } cases[] = {
        { "", "does not begin with" },
        { "127.0.0.1:80", "does not begin with" },
        { "ftp://x", "does not begin with" },
        { "tcp:/x", "does not begin with" },
        { " tcp://x", "does not begin with" },
        { "tcp://", "names no host" },
        { "tcp://:80", "names no host" },
        { "http:///x", "names no host" },
        { "tcp://[]", "is not HOST" },
        { "tcp://::1", "brackets" },
        { "tcp://[::1", "is not HOST" },
        { "tcp://[::1]x", "is not HOST" },
        { "tcp://[127.0.0.1]:7", "is not HOST" },
        { "tcp://[v1.x]:7", "neither a name" },
        { "tcp://[::1%]:7", "is not HOST" },
        { "tcp://[::1%25]:7", "is not HOST" },
        { "tcp://[::1%1234567890123456]:7", "is not HOST" },
        { "tcp://[fe80::1%eth0", "is not HOST" },
        { "tcp://x%eth0]", "is not HOST" },
        { "tcp://b\xC3\xBC"
          "cher.example",
          "xn--" },
        { "tcp://a%41", "neither a name" },
        { "tcp://a%4", "is not HOST" },
        { "tcp://a b", "is not HOST" },
        { "tcp://a..b", "between dots" },
        { "tcp://.a:7", "between dots" },
        { "tcp://.", "names no host" },
        { "tcp://..", "between dots" },
        { "tcp://a..:7", "between dots" },
        { "tcp://" SIXTY "1234.example", "between dots" },
        { "tcp://" SIXTY ".123" SIXTY "4.example", "between dots" },
        { "tcp://u@x", "user name" },
        { "tcp://x:0", "1 to 65535" },
        { "tcp://x:65536", "1 to 65535" },
        { "tcp://x:99999999999999999999", "1 to 65535" },
        { "tcp://x:-1", "is not HOST" },
        { "tcp://x:8x", "is not HOST" },
        { "tls://x", "needs a port" },
        { "tcp://x/", "takes no path" },
        { "tls://x:1?", "takes no path" },
        { "http://x/a#b", "fragment" },
        { "http://x#b", "fragment" },
        { "http://x/a b", "escaped" },
        { "http://x/%", "escaped" },
        { "http://x/%zz", "escaped" },
        { "http://x?\"", "escaped" },
        { "http://x/\xC3\xA9", "escaped" },
        { "http://x/\n", "control" },
        { "http://x/\xC3", "UTF-8" },
        { "unix:", "no socket" },
        { "unix:@", "no socket" },
        { "unix:/a\x1b[2J", "control" },
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct target t;
        char err[256] = "";
        ck_assert_msg(target_parse(cases[i].url, &t, err, sizeof err) == -1, "%s", cases[i].url);
        ck_assert_msg(strstr(err, cases[i].word) != NULL, "%s: %s", cases[i].url, err);
    }
}
END_TEST

START_TEST(test_zone)
{
    static const char *const urls[] = { "http://[fe80::1%eth0]:8080/x%20y", "http://[fe80::1%25eth0]:8080/x%20y" };
    for (size_t i = 0; i < 2; i++) {
        struct target t;
        char err[256] = "";
        ck_assert_msg(target_parse(urls[i], &t, err, sizeof err) == 0, "%s", err);
        ck_assert_str_eq(t.host, "fe80::1");
        ck_assert_str_eq(t.zone, "eth0");
        ck_assert_str_eq(t.path, "/x%20y");
        ck_assert_uint_eq(t.port, 8080);
    }
}
END_TEST

/* The longest of each part, and one byte more. */
static int parse_long(const char *before, size_t len, const char *behind)
{
    static char url[5000]; /* the target points into it */
    struct target t;
    char err[256];
    size_t at = strlen(before);
    memcpy(url, before, at);
    memset(url + at, 'a', len);
    strcpy(url + at + len, behind);
    return target_parse(url, &t, err, sizeof err);
}

START_TEST(test_longest)
{
    ck_assert_int_eq(parse_long("tcp://", 63, ":7"), 0);
    ck_assert_int_eq(parse_long("tcp://", 64, ":7"), -1);
    ck_assert_int_eq(parse_long("tcp://" SIXTY "." SIXTY "." SIXTY "." SIXTY ".", 9, ":7"), 0);
    ck_assert_int_eq(parse_long("tcp://" SIXTY "." SIXTY "." SIXTY "." SIXTY ".", 9, ".:7"), 0);
    ck_assert_int_eq(parse_long("tcp://" SIXTY "." SIXTY "." SIXTY "." SIXTY ".", 10, ":7"), -1);
    ck_assert_int_eq(parse_long("unix:/", 106, ""), 0);
    ck_assert_int_eq(parse_long("unix:/", 107, ""), -1);
    ck_assert_int_eq(parse_long("http://x/", 2046, ""), 0);
    ck_assert_int_eq(parse_long("http://x/", 2047, ""), -1);
    ck_assert_int_eq(parse_long("http://x?", 2045, ""), 0);
    ck_assert_int_eq(parse_long("http://x?", 2046, ""), -1);
}
END_TEST

UNIT_MAIN("target", test_sound, test_unix, test_unsound, test_zone, test_longest)
