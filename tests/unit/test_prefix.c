#include "prefix.h"

#include "unit.h"

#include <arpa/inet.h>
#include <string.h>

#define MAX 8

static struct address peer(const char *host)
{
    struct address a = { .len = sizeof a.sa.any.sa_family };
    a.sa.any.sa_family = AF_UNIX;
    if (inet_pton(AF_INET, host, &a.sa.v4.sin_addr) == 1) {
        a.sa.any.sa_family = AF_INET;
        a.sa.v4.sin_port = htons(80);
        a.len = sizeof a.sa.v4;
    } else if (inet_pton(AF_INET6, host, &a.sa.v6.sin6_addr) == 1) {
        a.sa.any.sa_family = AF_INET6;
        a.sa.v6.sin6_port = htons(80);
        a.sa.v6.sin6_scope_id = 3;
        a.len = sizeof a.sa.v6;
    }
    return a;
}

START_TEST(test_match)
{
    static const struct {
        const char *list, *peer;
        bool matches;
    } cases[] = {
        { "127.0.0.0/8, ::1, unix", "127.0.0.1", true },
        { "127.0.0.0/8, ::1, unix", "127.255.255.255", true },
        { "127.0.0.0/8, ::1, unix", "128.0.0.0", false },
        { "127.0.0.0/8, ::1, unix", "126.255.255.255", false },
        { "127.0.0.0/8, ::1, unix", "::1", true },
        { "127.0.0.0/8, ::1, unix", "::2", false },
        { "127.0.0.0/8, ::1, unix", "::ffff:127.0.0.1", true },
        { "127.0.0.0/8, ::1, unix", "::127.0.0.1", false },
        { "127.0.0.0/8, ::1, unix", "unix", true },
        { "127.0.0.0/8, ::1", "unix", false },
        { "unix", "0.0.0.0", false },
        { "unix", "::", false },
        { "", "127.0.0.1", false },
        { " \t", "unix", false },
        { "\t10.1.2.3\t,10.1.2.5 ", "10.1.2.5", true },
        { "10.1.2.3", "10.1.2.4", false },
        { "10.1.2.3/32", "10.1.2.3", true },
        { "10.1.2.2/31", "10.1.2.3", true },
        { "10.1.2.2/31", "10.1.2.1", false },
        { "10.128.0.0/9", "10.127.255.255", false },
        { "10.128.0.0/9", "10.128.0.0", true },
        { "0.0.0.0/0", "255.1.2.3", true },
        { "0.0.0.0/0", "::ffff:255.1.2.3", true },
        { "0.0.0.0/0", "2001:db8::1", false },
        { "::/0", "2001:db8::1", true },
        { "::/0", "10.0.0.1", false },
        { "::/0", "::ffff:10.0.0.1", false },
        { "::ffff:10.0.0.0/104", "10.9.9.9", true },
        { "::ffff:10.0.0.0/104", "::ffff:10.9.9.9", true },
        { "::ffff:10.0.0.0/104", "11.9.9.9", false },
        { "::ffff:0:0/96", "11.9.9.9", true },
        { "2001:DB8::/32", "2001:db8:ffff::1", true },
        { "2001:db8::/32", "2001:db9::", false },
        { "2001:db8::/33", "2001:db8:7fff::", true },
        { "2001:db8::/33", "2001:db8:8000::", false },
        { "fe80::/10", "febf::1", true },
        { "fe80::/10", "fec0::1", false },
        { "::1/128", "::1", true },
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct prefix list[MAX];
        char err[256] = "";
        struct address a = peer(cases[i].peer);
        int count = prefix_parse(cases[i].list, list, MAX, err, sizeof err);
        ck_assert_msg(count >= 0, "%s: %s", cases[i].list, err);
        ck_assert_msg(prefix_match(list, count, &a) == cases[i].matches, "%s: %s", cases[i].list, cases[i].peer);
    }
}
END_TEST

START_TEST(test_refuses)
{
    static const struct {
        const char *list, *sentence;
    } cases[] = {
        { "localhost", "\"localhost\" is not an address, a prefix such as 10.0.0.0/8, or unix" },
        { "UNIX", "\"UNIX\" is not an address, a prefix such as 10.0.0.0/8, or unix" },
        { "unix/8", "\"unix/8\" is not an address, a prefix such as 10.0.0.0/8, or unix" },
        { "10.0.0", "\"10.0.0\" is not an address, a prefix such as 10.0.0.0/8, or unix" },
        { "10.0.0.01", "\"10.0.0.01\" is not an address, a prefix such as 10.0.0.0/8, or unix" },
        { "[::1]", "\"[::1]\" is not an address, a prefix such as 10.0.0.0/8, or unix" },
        { "fe80::1%lo", "\"fe80::1%lo\" is not an address, a prefix such as 10.0.0.0/8, or unix" },
        { "10.0.0.0 8", "\"10.0.0.0 8\" is not an address, a prefix such as 10.0.0.0/8, or unix" },
        { "/8", "\"/8\" is not an address, a prefix such as 10.0.0.0/8, or unix" },
        { "10.0.0.0/", "\"10.0.0.0/\" does not end with a number from 0 to 32" },
        { "10.0.0.0/33", "\"10.0.0.0/33\" does not end with a number from 0 to 32" },
        { "10.0.0.0/-1", "\"10.0.0.0/-1\" does not end with a number from 0 to 32" },
        { "10.0.0.0/08", "\"10.0.0.0/08\" does not end with a number from 0 to 32" },
        { "10.0.0.0/8/8", "\"10.0.0.0/8/8\" does not end with a number from 0 to 32" },
        { "10.0.0.0/255.0.0.0", "\"10.0.0.0/255.0.0.0\" does not end with a number from 0 to 32" },
        { "::/129", "\"::/129\" does not end with a number from 0 to 128" },
        { "::/99999999999999999999", "\"::/99999999999999999999\" does not end with a number from 0 to 128" },
        { "10.1.2.3/8", "\"10.1.2.3/8\" has bits set behind the first 8; did you mean 10.0.0.0/8?" },
        { "2001:db8::1/64", "\"2001:db8::1/64\" has bits set behind the first 64; did you mean 2001:db8::/64?" },
        { "::ffff:10.1.0.0/104", "\"::ffff:10.1.0.0/104\" has bits set behind the first 104; did you mean "
                                 "::ffff:10.0.0.0/104?" },
        { "1.2.3.4/0", "\"1.2.3.4/0\" has bits set behind the first 0; did you mean 0.0.0.0/0?" },
        { ",", "nothing between two commas" },
        { "::1,", "nothing between two commas" },
        { "::1,,::2", "nothing between two commas" },
        { "1111111111111111111111111111111111111111111111111111111111111111",
          "\"111111111111111111111111111111111111111111111111111111111111111...\" is too long for an address" },
        { "::1,::2,::3,::4,::5,::6,::7,::8,::9", "more than 8 addresses and prefixes" },
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct prefix list[MAX];
        char err[256] = "";
        ck_assert_msg(prefix_parse(cases[i].list, list, MAX, err, sizeof err) == -1, "%s", cases[i].list);
        ck_assert_str_eq(err, cases[i].sentence);
    }
}
END_TEST

/* As many as there is room for, and a sentence cut where its buffer ends. */
START_TEST(test_little_room)
{
    struct prefix list[MAX];
    char err[8] = "1234567";
    ck_assert_int_eq(prefix_parse("::1,::2,::3,::4,::5,::6,::7,::8", list, MAX, err, sizeof err), MAX);
    ck_assert_int_eq(prefix_parse("x", list, MAX, err, 4), -1);
    ck_assert_str_eq(err, "\"x\"");
    ck_assert_str_eq(err + 4, "567");
    ck_assert_int_eq(prefix_parse("unix", list, 0, err, sizeof err), -1);
}
END_TEST

UNIT_MAIN("prefix", test_match, test_refuses, test_little_room)
