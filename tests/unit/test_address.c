#include "address.h"

#include "unit.h"

#include <stdio.h>
#include <string.h>
#include <sys/un.h>
#include <unistd.h>

static struct address parsed(const char *text)
{
    struct address list[8];
    char err[256] = "";
    ck_assert_msg(address_parse(text, list, 8, err, sizeof err) == 1, "%s: %s", text, err);
    return list[0];
}

/* Numeric hosts only: names are the resolver's matter. */
START_TEST(test_parse)
{
    static const struct {
        const char *text, *same;
        int family;
        unsigned port;
    } cases[] = {
        { "127.0.0.1:8888", "127.0.0.1:8888", AF_INET, 8888 },
        { "0.0.0.0:0", "0.0.0.0:0", AF_INET, 0 },
        { "255.255.255.255:65535", "255.255.255.255:65535", AF_INET, 65535 },
        { "1.2.3.4:00080", "1.2.3.4:80", AF_INET, 80 },
        { "[::]:80", "[::]:80", AF_INET6, 80 },
        { "[::1]:65535", "[::1]:65535", AF_INET6, 65535 },
        { "[2001:DB8:0:0:0:0:0:1]:1", "[2001:db8::1]:1", AF_INET6, 1 },
        { "[::ffff:1.2.3.4]:1", "[::ffff:1.2.3.4]:1", AF_INET6, 1 },
        { "[ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff]:65535", "[ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff]:65535",
          AF_INET6, 65535 },
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct address a = parsed(cases[i].text);
        char text[ADDRESS_TEXT];
        ck_assert_str_eq(address_format(&a, text), cases[i].same);
        ck_assert_ptr_eq(address_format(&a, text), text);
        ck_assert_int_eq(a.sa.any.sa_family, cases[i].family);
        ck_assert_uint_eq(a.len, cases[i].family == AF_INET ? sizeof a.sa.v4 : sizeof a.sa.v6);
        ck_assert_uint_eq(address_port(&a), cases[i].port);
    }
}
END_TEST

START_TEST(test_parse_refuses)
{
    static const char shape[] = "is not HOST:PORT or [V6]:PORT", brackets[] = "needs brackets", port[] = "port",
                      v6[] = "is not an IPv6 address", any[] = "";
    static const struct {
        const char *text, *word;
    } cases[] = {
        { "", shape },
        { ":", shape },
        { "127.0.0.1", shape },
        { "8888", shape },
        { ":8888", shape },
        { "127.0.0.1:", shape },
        { "[]:80", shape },
        { "[::1]", shape },
        { "[::1]:", shape },
        { "[::1]80", shape },
        { "[::1]x:80", shape },
        { "[::1:80", shape },
        { "::1", brackets },
        { "::1:80", brackets },
        { "::", brackets },
        { "127.0.0.1:80:90", brackets },
        { "127.0.0.1:65536", port },
        { "127.0.0.1:99999999999999999999", port },
        { "127.0.0.1:000080", port },
        { "127.0.0.1:-1", port },
        { "127.0.0.1:+80", port },
        { "127.0.0.1: 80", any },
        { "127.0.0.1:80 ", any },
        { "127.0.0.1:80 127.0.0.1:81", any },
        { "127.0.0.1:0x50", port },
        { "127.0.0.1:http", port },
        { "[::1]:65536", port },
        { "[::1]:80]", port },
        { "[127.0.0.1]:80", v6 },
        { "[::1g]:80", v6 },
        { "[localhost]:80", v6 },
        { "[[::1]]:80", shape },
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct address list[8];
        char err[256] = "";
        ck_assert_msg(address_parse(cases[i].text, list, 8, err, sizeof err) == -1, "%s", cases[i].text);
        ck_assert_msg(strstr(err, cases[i].word) != NULL, "%s: %s", cases[i].text, err);
    }
}
END_TEST

START_TEST(test_host_too_long)
{
    char text[400], err[600];
    struct address list[8];
    memset(text, 'a', sizeof text);
    snprintf(text + 256, sizeof text - 256, ":80");
    ck_assert_int_eq(address_parse(text, list, 8, err, sizeof err), -1);
    ck_assert_ptr_nonnull(strstr(err, "too long"));
}
END_TEST

/* A sentence is cut where its buffer ends, and so is the list. */
START_TEST(test_little_room)
{
    char err[8] = "1234567";
    struct address one;
    ck_assert_int_eq(address_parse("nonsense", &one, 1, err, 5), -1);
    ck_assert_str_eq(err, "\"non");
    ck_assert_str_eq(err + 5, "67");
    memset(&one, 'x', sizeof one);
    ck_assert_int_eq(address_parse("127.0.0.1:80", &one, 0, err, sizeof err), 0);
    ck_assert_int_eq(((char *)&one)[0], 'x');
    ck_assert_int_eq(address_parse("127.0.0.1:80", &one, 1, err, sizeof err), 1);
}
END_TEST

START_TEST(test_port)
{
    static const char *const texts[] = { "127.0.0.1:0", "[::1]:0", "127.0.0.1:65535", "[::1]:65535" };
    for (int i = 0; i < 4; i++) {
        struct address a = parsed(texts[i]);
        char text[ADDRESS_TEXT];
        ck_assert_uint_eq(address_port(&a), i < 2 ? 0 : 65535);
        ck_assert_str_eq(address_format(&a, text), texts[i]);
    }
}
END_TEST

START_TEST(test_overlaps)
{
    static const struct {
        const char *a, *b;
        bool overlaps;
    } cases[] = {
        { "127.0.0.1:80", "127.0.0.1:80", true },
        { "127.0.0.1:80", "127.0.0.1:81", false },
        { "127.0.0.1:80", "127.0.0.2:80", false },
        { "127.0.0.1:80", "0.0.0.0:80", true },
        { "127.0.0.1:80", "0.0.0.0:81", false },
        { "0.0.0.0:80", "0.0.0.0:80", true },
        { "127.0.0.1:0", "127.0.0.1:0", false }, /* each gets a port of its own */
        { "0.0.0.0:0", "0.0.0.0:0", false },
        { "[::1]:80", "[::1]:80", true },
        { "[::1]:80", "[::2]:80", false },
        { "[::1]:80", "[::1]:81", false },
        { "[::1]:80", "[::]:80", true },
        { "[::]:80", "[::]:81", false },
        { "[::]:0", "[::1]:0", false },
        { "0.0.0.0:80", "[::]:80", false }, /* an IPv6 socket takes no IPv4 */
        { "127.0.0.1:80", "[::1]:80", false },
        { "127.0.0.1:80", "[::ffff:127.0.0.1]:80", false },
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct address a = parsed(cases[i].a), b = parsed(cases[i].b);
        ck_assert_msg(address_overlaps(&a, &b) == cases[i].overlaps, "%s %s", cases[i].a, cases[i].b);
        ck_assert_msg(address_overlaps(&b, &a) == cases[i].overlaps, "%s %s", cases[i].b, cases[i].a);
    }
}
END_TEST

/* A link-local address means another host on each interface. */
START_TEST(test_overlaps_by_scope)
{
    struct address a = parsed("[fe80::1]:80"), b = a;
    ck_assert(address_overlaps(&a, &b));
    b.sa.v6.sin6_scope_id = 2;
    ck_assert(!address_overlaps(&a, &b));
}
END_TEST

/* --- Networks -------------------------------------------------------------------------------------------------------- */

START_TEST(test_network)
{
    static const struct {
        const char *address;
        unsigned v4, v6;
        const char *network;
    } cases[] = {
        { "10.1.2.3:80", 32, 64, "10.1.2.3:0" },
        { "10.1.2.3:80", 31, 64, "10.1.2.2:0" },
        { "10.1.2.3:80", 25, 64, "10.1.2.0:0" },
        { "10.1.2.255:80", 25, 64, "10.1.2.128:0" },
        { "10.1.2.3:80", 24, 64, "10.1.2.0:0" },
        { "10.1.2.3:80", 8, 64, "10.0.0.0:0" },
        { "255.1.2.3:80", 1, 64, "128.0.0.0:0" },
        { "127.1.2.3:80", 1, 64, "0.0.0.0:0" },
        { "[2001:db8:1:2:3:4:5:6]:80", 32, 128, "[2001:db8:1:2:3:4:5:6]:0" },
        { "[2001:db8:1:2:3:4:5:7]:80", 32, 127, "[2001:db8:1:2:3:4:5:6]:0" },
        { "[2001:db8:1:2:3:4:5:6]:80", 32, 64, "[2001:db8:1:2::]:0" },
        { "[2001:db8:1:ffff:3:4:5:6]:80", 32, 56, "[2001:db8:1:ff00::]:0" },
        { "[2001:db8:1:ffff:3:4:5:6]:80", 32, 57, "[2001:db8:1:ff80::]:0" },
        { "[ffff::1]:80", 32, 1, "[8000::]:0" },
        { "[::ffff:10.1.2.3]:80", 32, 64, "10.1.2.3:0" },
        { "[::ffff:10.1.2.3]:80", 24, 128, "10.1.2.0:0" },
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct address a = parsed(cases[i].address), expected = parsed(cases[i].network);
        struct address network = address_network(&a, cases[i].v4, cases[i].v6);
        char text[ADDRESS_TEXT];
        ck_assert_str_eq(address_format(&network, text), cases[i].network);
        ck_assert_mem_eq(&network.sa, &expected.sa, expected.len); /* they are compared as bytes */
        ck_assert_uint_eq(network.len, expected.len);
    }
}
END_TEST

/* Whatever else a peer's address has in it: a flow, or what the kernel left behind a unix socket's family. */
START_TEST(test_network_compares_as_bytes)
{
    struct address a = parsed("[fe80::1]:80"), b = a, one, two;
    b.sa.v6.sin6_flowinfo = 5;
    b.sa.v6.sin6_port = 9;
    one = address_network(&a, 32, 64);
    two = address_network(&b, 32, 64);
    ck_assert_mem_eq(&one, &two, sizeof one);
    b.sa.v6.sin6_scope_id = 2; /* another link */
    two = address_network(&b, 32, 64);
    ck_assert_mem_ne(&one, &two, sizeof one);
    memset(&a, 'a', sizeof a);
    memset(&b, 'b', sizeof b);
    a.sa.any.sa_family = b.sa.any.sa_family = AF_UNIX;
    a.len = sizeof a.sa.any.sa_family;
    b.len = sizeof b.sa; /* of one that has bound a name */
    one = address_network(&a, 32, 64);
    two = address_network(&b, 32, 64);
    ck_assert_mem_eq(&one, &two, sizeof one);
}
END_TEST

/* --- Sockets --------------------------------------------------------------------------------------------------------- */

START_TEST(test_of_socket)
{
    static const char *const texts[] = { "127.0.0.1:0", "[::1]:0" };
    for (int i = 0; i < 2; i++) {
        struct address a = parsed(texts[i]);
        char text[ADDRESS_SOCKET_TEXT], expected[ADDRESS_TEXT];
        int fd = socket(a.sa.any.sa_family, SOCK_STREAM, 0);
        ck_assert_int_eq(bind(fd, &a.sa.any, a.len), 0);
        ck_assert_int_eq(getsockname(fd, &a.sa.any, &a.len), 0);
        ck_assert_uint_ne(address_port(&a), 0);
        ck_assert_ptr_eq(address_of_socket(fd, text), text);
        ck_assert_str_eq(text, address_format(&a, expected));
        close(fd);
    }
}
END_TEST

/* What a unix socket is called that is bound to these bytes of sun_path. */
static const char *unix_text(const char *path, size_t len)
{
    static char text[ADDRESS_SOCKET_TEXT];
    struct sockaddr_un un = { .sun_family = AF_UNIX };
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    memcpy(un.sun_path, path, len);
    if (len > 0)
        ck_assert_int_eq(bind(fd, (struct sockaddr *)&un, (socklen_t)(offsetof(struct sockaddr_un, sun_path) + len)),
                         0);
    address_of_socket(fd, text);
    close(fd);
    if (len > 0 && path[0] != '\0')
        unlink(path);
    return text;
}

START_TEST(test_of_unix_socket)
{
    struct sockaddr_un un;
    char folder[] = "/tmp/echod-test-XXXXXX", path[sizeof un.sun_path + 1], expected[256];
    ck_assert_ptr_nonnull(mkdtemp(folder));
    int n = snprintf(path, sizeof path, "%s/s", folder);
    snprintf(expected, sizeof expected, "unix:%s", path);
    ck_assert_str_eq(unix_text(path, (size_t)n + 1), expected);
    memset(path + n, 'x', sizeof path - (size_t)n); /* the longest, which no NUL ends */
    path[sizeof un.sun_path] = '\0';
    snprintf(expected, sizeof expected, "unix:%s", path);
    ck_assert_str_eq(unix_text(path, sizeof un.sun_path), expected);
    rmdir(folder);
    n = snprintf(path, sizeof path, "%cechod-test-%d", '\0', (int)getpid());
    snprintf(expected, sizeof expected, "unix:@%s", path + 1);
    ck_assert_str_eq(unix_text(path, (size_t)n), expected);
    ck_assert_str_eq(unix_text("", 0), "unix:");
}
END_TEST

START_TEST(test_format_of_unix)
{
    struct address a = { .sa.any.sa_family = AF_UNIX, .len = sizeof a.sa.any.sa_family };
    char text[ADDRESS_TEXT];
    ck_assert_str_eq(address_format(&a, text), "unix");
}
END_TEST

UNIT_MAIN("address", test_parse, test_parse_refuses, test_host_too_long, test_little_room, test_port, test_overlaps,
          test_overlaps_by_scope, test_network, test_network_compares_as_bytes, test_of_socket, test_of_unix_socket,
          test_format_of_unix)
