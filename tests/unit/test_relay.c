#include "relay.h"

#include "unit.h"

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

static int ends[2];
static struct relay relay;
static char stream[300000], heard[300000];

static void setup(void)
{
    ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, ends), 0);
    for (size_t i = 0; i < sizeof stream; i++)
        stream[i] = (char)(i % 251);
}

static void teardown(void)
{
    relay_close(&relay);
    close(ends[0]);
    close(ends[1]);
}

START_TEST(test_there_and_back)
{
    setup();
    ck_assert_int_eq(relay_take(&relay, ends[0]), -1);
    ck_assert_int_eq(errno, EAGAIN);
    ck_assert_int_eq(write(ends[1], "hello", 5), 5);
    ck_assert_int_eq(relay_take(&relay, ends[0]), 5);
    ck_assert_uint_eq(relay.held, 5);
    ck_assert_int_eq(relay_give(&relay, ends[0]), 5);
    ck_assert_uint_eq(relay.held, 0);
    ck_assert_int_eq(read(ends[1], heard, sizeof heard), 5);
    ck_assert_mem_eq(heard, "hello", 5);
    shutdown(ends[1], SHUT_WR);
    ck_assert_int_eq(relay_take(&relay, ends[0]), 0);
    teardown();
}
END_TEST

/* What the socket has no room for comes out again, behind what it took. */
START_TEST(test_rest)
{
    int size = 1 << 17, small = 4096;
    setup();
    setsockopt(ends[1], SOL_SOCKET, SO_SNDBUF, &size, sizeof size);
    setsockopt(ends[0], SOL_SOCKET, SO_SNDBUF, &small, sizeof small);
    ssize_t said = write(ends[1], stream, 100000), taken = relay_take(&relay, ends[0]);
    ck_assert_int_eq(said, 100000);
    ck_assert_int_gt(taken, 0);
    ssize_t given = relay_give(&relay, ends[0]), rest = 0;
    ck_assert_int_lt(given, taken);
    ck_assert_int_eq(read(ends[1], heard, sizeof heard), given);
    while (relay.held > 0) {
        ssize_t n = relay_rest(&relay, heard + given + rest, 1000);
        ck_assert_int_gt(n, 0);
        rest += n;
    }
    ck_assert_int_eq(given + rest, taken);
    ck_assert_mem_eq(heard, stream, (size_t)taken);
    teardown();
}
END_TEST

START_TEST(test_broken)
{
    setup();
    ck_assert_int_eq(write(ends[1], "hello", 5), 5);
    close(ends[1]);
    ck_assert_int_eq(relay_take(&relay, ends[0]), 5);
    signal(SIGPIPE, SIG_IGN);
    ck_assert_int_eq(relay_give(&relay, ends[0]), -1);
    ck_assert_int_eq(errno, EPIPE);
    relay_close(&relay);
    ck_assert_uint_eq(relay.held, 0);
    teardown();
}
END_TEST

START_TEST(test_no_descriptors)
{
    struct rlimit limit;
    setup();
    ck_assert_int_eq(getrlimit(RLIMIT_NOFILE, &limit), 0);
    limit.rlim_cur = (rlim_t)ends[1] + 1;
    ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &limit), 0);
    ck_assert_int_eq(relay_take(&relay, ends[0]), -1);
    ck_assert_int_eq(errno, EINVAL);
    teardown();
}
END_TEST

UNIT_MAIN("relay", test_there_and_back, test_rest, test_broken, test_no_descriptors)
