#include "probe/command.h"

#include "unit.h"

#include <getopt.h>
#include <netinet/in.h>
#include <string.h>

#define WORDS 24

/* Parses a command line of words between single spaces. */
static int parse(struct command *c, const char *line, char *err, size_t errlen)
{
    static char copy[1024];
    char *argv[WORDS + 1] = { (char[]){ "echoprobe" } };
    int argc = 1;
    snprintf(copy, sizeof copy, "%s", line);
    for (char *word = strtok(copy, " "); word != NULL && argc < WORDS; word = strtok(NULL, " "))
        argv[argc++] = word;
    optind = 0; /* glibc: begin anew */
    return command_parse(c, argc, argv, err, errlen);
}

static struct command parsed(const char *line)
{
    struct command c;
    char err[1024] = "";
    ck_assert_msg(parse(&c, line, err, sizeof err) == 0, "%s: %s", line, err);
    return c;
}

START_TEST(test_once)
{
    struct command c = parsed("tcp://x http://x/y -m Hi --half-close -i -q --expect=i -w 1.5 -C 20s");
    ck_assert_int_eq(c.mode, REPORT_ONCE);
    ck_assert_uint_eq(c.target_count, 2);
    ck_assert_str_eq(c.message, "Hi");
    ck_assert_str_eq(c.expect, "i");
    ck_assert(c.half_close && c.include && c.quiet);
    ck_assert_int_eq(c.warning, 1500000);
    ck_assert_int_eq(c.critical, 20000000000);
    ck_assert_int_eq(c.timeout, 5000000000);
    ck_assert_int_eq(c.connect_timeout, c.timeout);
    ck_assert_int_eq(c.format, REPORT_TEXT);
    command_free(&c);
}
END_TEST

START_TEST(test_ping)
{
    struct command c = parsed("-c 3 -I 0.25 -t 500ms --connect-timeout 1h unix:/x --json");
    ck_assert_int_eq(c.mode, REPORT_PING);
    ck_assert_uint_eq(c.count, 3);
    ck_assert_int_eq(c.interval, 250000000);
    ck_assert_int_eq(c.timeout, 500000000);
    ck_assert_int_eq(c.connect_timeout, c.timeout);
    ck_assert_int_eq(c.format, REPORT_JSON);
    command_free(&c);
    c = parsed("-I 2 tcp://x");
    ck_assert_int_eq(c.mode, REPORT_PING);
    ck_assert_uint_eq(c.count, 0);
    command_free(&c);
}
END_TEST

START_TEST(test_load)
{
    struct command c = parsed("-n 64 -d 1.5m -r 1000 -s 16k -P 16 --hdrplot=x tcp://x");
    ck_assert_int_eq(c.mode, REPORT_LOAD);
    ck_assert_uint_eq(c.connections, 64);
    ck_assert_int_eq(c.duration, 90000000000);
    ck_assert_uint_eq(c.rate, 1000);
    ck_assert_uint_eq(c.size, 16384);
    ck_assert_uint_eq(c.pipeline, 16);
    ck_assert_str_eq(c.plot, "x");
    command_free(&c);
    c = parsed("-d 1 tcp://x");
    ck_assert_int_eq(c.mode, REPORT_LOAD);
    ck_assert_uint_eq(c.connections, 1);
    ck_assert_uint_eq(c.size, 64);
    command_free(&c);
}
END_TEST

START_TEST(test_proxy_source)
{
    struct command c = parsed("--proxy-v2 --proxy-source=[2001:db8::1]:5 tcp://x");
    const struct sockaddr_in6 *in6 = (const struct sockaddr_in6 *)&c.source;
    ck_assert_int_eq(in6->sin6_family, AF_INET6);
    ck_assert_uint_eq(ntohs(in6->sin6_port), 5);
    command_free(&c);
    c = parsed("--proxy-v1 --proxy-source=192.0.2.1 tcp://x");
    ck_assert_int_eq(c.source.ss_family, AF_INET);
    command_free(&c);
}
END_TEST

/* The last one counts, before and behind what is wrong. */
START_TEST(test_format)
{
    static const struct {
        const char *line;
        unsigned format;
    } cases[] = {
        { "tcp://x --json -f nagios", REPORT_NAGIOS },    { "tcp://x -f nagios --json", REPORT_JSON },
        { "--json -y -f nagios tcp://x", REPORT_NAGIOS }, { "-f nagios -y tcp://x --json", REPORT_JSON },
        { "-f nagios --json -y tcp://x", REPORT_JSON },
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct command c;
        char err[1024];
        parse(&c, cases[i].line, err, sizeof err);
        ck_assert_msg(c.format == cases[i].format, "%s", cases[i].line);
        command_free(&c);
    }
}
END_TEST

START_TEST(test_wrong)
{
    static const struct {
        const char *line, *word;
    } cases[] = {
        { "", "which URL" },
        { "--nonsense tcp://x", "unknown option: --nonsense" },
        { "-y tcp://x", "unknown option -y" },
        { "tcp://x -c", "an argument is missing: -c" },
        { "ftp://x", "\"ftp://x\": does not begin" },
        { "-c 0 tcp://x", "--count: must be from 1" },
        { "-c -1 tcp://x", "--count: \"-1\" is not a whole number" },
        { "-c 1x tcp://x", "--count: \"1x\"" },
        { "-c 99999999999999999999 tcp://x", "--count: must be" },
        { "-I 0 tcp://x", "--interval: must be from 1ms to 24h" },
        { "-I 25h tcp://x", "--interval: must be" },
        { "-I 1d tcp://x", "--interval: \"1d\" is not a time" },
        { "-I 1.2.3 tcp://x", "is not a time" },
        { "-I nan tcp://x", "is not a time" },
        { "-I 0x1 tcp://x", "is not a time" },
        { "-I 1e3 tcp://x", "is not a time" },
        { "-t 2h tcp://x", "--timeout: must be" },
        { "-t 99999999999999999999999h tcp://x", "--timeout: must be" },
        { "-w 0 tcp://x", "--warning: must be" },
        { "-s 17M tcp://x", "--size: must be" },
        { "-n 10001 tcp://x", "--connections: must be" },
        { "-d 1ms tcp://x", "--duration: must be" },
        { "-r 0 tcp://x", "--rate: must be" },
        { "-P 1025 tcp://x", "--pipeline: must be" },
        { "-f xml tcp://x", "--format: \"xml\" is not one of" },
        { "-c 3 -n 4 tcp://x", "--connections is not for a ping" },
        { "-n 4 -m x tcp://x", "--message is not for a load" },
        { "-n 4 --half-close tcp://x", "--half-close is not for a load" },
        { "-i -c 1 http://x", "--include is not for a ping" },
        { "-i tcp://x", "--include needs an http or https URL" },
        { "-m x http://x", "--message needs a tcp, tls or unix URL" },
        { "--expect-status=200 tcp://x", "--expect-status needs an http" },
        { "--insecure tcp://x", "--insecure needs a tls or https URL" },
        { "-m x -s 5 tcp://x", "exclude each other" },
        { "--message= tcp://x", "needs --half-close" },
        { "--proxy-v1 --proxy-v2 tcp://x", "exclude each other" },
        { "--proxy-source=1.2.3.4 tcp://x", "needs --proxy-v1" },
        { "--proxy-v1 --proxy-source=x tcp://x", "is not ADDRESS" },
        { "--proxy-v2 --proxy-source=1.2.3.4 tcp://x unix:/x", "is not for a unix URL" },
        { "--key=x tls://x:1", "--key needs --cert" },
        { "--insecure --ca=x tls://x:1", "exclude each other" },
        { "-w 5 -C 4 tcp://x", "--warning is over --critical" },
        { "--expect-status=20 http://x", "is not a list" },
        { "--expect-status=100 http://x", "is not a list" },
        { "--expect-status=200,6xx http://x", "is not a list" },
        { "--expect-status=2xx,,3xx http://x", "is not a list" },
        { "-n 1 --hdrplot=x tcp://x tcp://y", "for one URL" },
        { "-n 1 --expect=x tcp://x", "which knows" },
        { "-f prometheus tcp://x tcp://x", "once" },
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct command c;
        char err[1024] = "";
        ck_assert_msg(parse(&c, cases[i].line, err, sizeof err) == -1, "%s", cases[i].line);
        ck_assert_msg(strstr(err, cases[i].word) != NULL, "%s: %s", cases[i].line, err);
        command_free(&c);
    }
}
END_TEST

UNIT_MAIN("command", test_once, test_ping, test_load, test_proxy_source, test_format, test_wrong)
