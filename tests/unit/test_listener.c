#include "listener.h"

#include "bind.h"
#include "handlers/handlers.h"
#include "log.h"
#include "unit.h"

#include <errno.h>
#include <event2/event.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define WAIT 10000 /* milliseconds after which something is given up */

static struct event_base *base;
static struct conn_pool pool;
static struct admission admission;
static struct admission_gate gate;
static struct admission_limits limits = { .prefix_v4 = 32, .prefix_v6 = 64 };
static struct listener_metrics metrics, later_metrics;
static atomic_size_t users = 1;
static int unused;
static struct listener_terms terms, later;
static struct address address;
static int fd; /* the listening socket */

static void on_unused(void *arg)
{
    ck_assert_ptr_eq(arg, &unused);
    unused++;
}

static struct listener_terms terms_with(struct listener_metrics *counts)
{
    return (struct listener_terms){ .conn = { .context = { .listener = "test", .requests = &counts->conn.requests },
                                              .handler = &echo_handler,
                                              .idle_timeout = 60000,
                                              .metrics = &counts->conn,
                                              .told = listener_told,
                                              .ended = listener_ended },
                                    .limits = &limits,
                                    .admission = &admission,
                                    .gate = &gate,
                                    .metrics = counts,
                                    .users = &users,
                                    .unused = on_unused,
                                    .unused_arg = &unused };
}

/* A listener of an echo on a port of the kernel's choice, not started yet. */
static struct listener *setup(bool inherited)
{
    static const struct bind_options options = { .interface = "", .owner = (uid_t)-1, .group = (gid_t)-1 };
    char err[256];
    log_setup(LEVEL_ERROR, FORMAT_TEXT); /* refusals are warnings */
    admission_init(&admission);
    terms = terms_with(&metrics);
    later = terms_with(&later_metrics);
    base = event_base_new();
    ck_assert_ptr_nonnull(base);
    ck_assert_int_eq(conn_pool_init(&pool, base), 0);
    ck_assert_int_eq(address_parse("127.77.0.1:0", &address, 1, err, sizeof err), 1);
    ck_assert_int_eq(bind_listen(&address, &options, &fd, 1), 0);
    ck_assert_int_eq(getsockname(fd, &address.sa.any, &address.len), 0);
    if (inherited) /* as a service manager makes it */
        ck_assert_int_eq(setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &(int){ 0 }, sizeof(int)), 0);
    struct listener *listener = listener_new(fd, inherited, NULL);
    ck_assert_ptr_nonnull(listener);
    return listener;
}

static void teardown(void)
{
    conn_pool_abort(&pool);
    ck_assert_uint_eq(pool.count, 0);
    ck_assert_uint_eq(atomic_load(&admission.open), 0);
    ck_assert_uint_eq(atomic_load(&gate.open), 0);
    ck_assert_int_eq(fcntl(fd, F_GETFD), -1);
    conn_pool_free(&pool);
    event_base_free(base);
    admission_destroy(&admission);
}

/* A client that may wait for its handshake. */
static int begin_connect(void)
{
    int client = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    ck_assert(connect(client, &address.sa.any, address.len) == 0 || errno == EINPROGRESS);
    return client;
}

/* True when the handshake ends within so many milliseconds, with success or not. */
static bool is_decided(int client, int milliseconds)
{
    return poll(&(struct pollfd){ .fd = client, .events = POLLOUT }, 1, milliseconds) == 1;
}

static int error_of(int client)
{
    int error = -1;
    socklen_t len = sizeof error;
    ck_assert_int_eq(getsockopt(client, SOL_SOCKET, SO_ERROR, &error, &len), 0);
    return error;
}

static int connected(void)
{
    int client = begin_connect();
    ck_assert(is_decided(client, WAIT));
    ck_assert_int_eq(error_of(client), 0);
    return client;
}

/* What the client reads next: as recv(), when the loop has turned until there is something. */
static ssize_t hear(int client, char *buf, size_t size)
{
    ssize_t n = -1;
    for (int i = 0; i < WAIT && n < 0; i++) {
        ck_assert_int_ge(event_base_loop(base, EVLOOP_NONBLOCK), 0);
        n = recv(client, buf, size, 0);
        ck_assert(n >= 0 || errno == EAGAIN);
        if (n < 0)
            poll(&(struct pollfd){ .fd = client, .events = POLLIN }, 1, 1);
    }
    return n;
}

static bool echoes(int client)
{
    char buf[8];
    ck_assert_int_eq(send(client, "hello", 5, MSG_NOSIGNAL), 5);
    return hear(client, buf, sizeof buf) == 5 && memcmp(buf, "hello", 5) == 0;
}

static uint64_t opened(const struct listener_metrics *counts)
{
    return counter_read(&counts->conn.opened);
}

START_TEST(test_serves)
{
    struct listener *listener = setup(false);
    ck_assert_int_eq(listener_start(listener, &pool, &terms), 0);
    int one = connected(), two = connected();
    ck_assert(echoes(one) && echoes(two));
    ck_assert_uint_eq(atomic_load(&users), 3);
    ck_assert_uint_eq(opened(&metrics), 2);
    listener_close(listener);
    ck_assert(echoes(one)); /* it lives on */
    close(one);
    close(two);
    teardown();
    ck_assert_uint_eq(atomic_load(&users), 1);
    ck_assert_int_eq(unused, 0);
}
END_TEST

/* Connections keep the terms that they began with; the last one of these tells that nobody uses them any more. */
START_TEST(test_other_terms)
{
    char buf[8];
    atomic_size_t later_users = 1;
    struct listener *listener = setup(false);
    later.users = &later_users;
    ck_assert_int_eq(listener_start(listener, &pool, &terms), 0);
    int one = connected();
    ck_assert(echoes(one));
    listener_set(listener, &later);
    int two = connected();
    ck_assert(echoes(two) && echoes(one));
    ck_assert_uint_eq(opened(&metrics), 1);
    ck_assert_uint_eq(opened(&later_metrics), 1);
    ck_assert_uint_eq(counter_read(&metrics.conn.bytes_in), 10);
    atomic_fetch_sub(&users, 1);
    ck_assert_int_eq(unused, 0);
    shutdown(one, SHUT_WR);
    ck_assert_int_eq(hear(one, buf, sizeof buf), 0);
    ck_assert_int_eq(unused, 1);
    ck_assert(echoes(two));
    listener_close(listener);
    close(one);
    close(two);
    teardown();
    ck_assert_uint_eq(atomic_load(&later_users), 1);
    ck_assert_int_eq(unused, 1);
}
END_TEST

/* What cannot be watched yet is tried again, and does not stay deaf. (epoll takes no file, as it would lack memory.) */
START_TEST(test_watched_late)
{
    struct listener *listener = setup(false);
    int socket = dup(fd), file = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
    log_setup(LEVEL_ERROR, FORMAT_TEXT);
    ck_assert_int_eq(dup2(file, fd), fd);
    close(file);
    ck_assert_int_eq(listener_start(listener, &pool, &terms), 0);
    ck_assert_int_eq(atomic_load(&admission.starved), 1);
    for (int i = 0; i < 2; i++) /* while it is paused, and when that is over: still in vain */
        ck_assert_int_ge(event_base_loop(base, EVLOOP_ONCE), 0);
    ck_assert_int_eq(atomic_load(&admission.starved), 1);
    ck_assert_int_eq(dup2(socket, fd), fd);
    close(socket);
    int one = connected();
    ck_assert(echoes(one));
    while (atomic_load(&admission.starved) > 0)
        ck_assert_int_ge(event_base_loop(base, EVLOOP_ONCE), 0);
    listener_close(listener);
    close(one);
    teardown();
}
END_TEST

/* Over a limit: closed without a byte, counted, and nothing is kept. */
START_TEST(test_refuses)
{
    char buf[8];
    struct listener *listener = setup(false);
    limits.listener_connections = 1;
    ck_assert_int_eq(listener_start(listener, &pool, &terms), 0);
    int one = connected();
    ck_assert(echoes(one));
    for (int i = 0; i < 3; i++) {
        int more = connected();
        ck_assert_int_eq(hear(more, buf, sizeof buf), 0);
        close(more);
    }
    ck_assert_uint_eq(counter_read(&metrics.refused[REFUSED_LISTENER]), 3);
    ck_assert_uint_eq(opened(&metrics), 1);
    ck_assert_uint_eq(atomic_load(&users), 2);
    ck_assert_uint_eq(pool.count, 1);
    listener_close(listener);
    close(one);
    teardown();
}
END_TEST

/*
 * From the mute on nobody gets in; who was in the backlog is served when the socket closes; and who has tried meanwhile
 * is refused then, when the SYN comes again.
 */
START_TEST(test_mute)
{
    struct listener *listener = setup(false);
    ck_assert_int_eq(listener_start(listener, &pool, &terms), 0);
    int early = connected(); /* waits in the backlog, for the loop does not turn */
    ck_assert_uint_eq(pool.count, 0);
    ck_assert(listener_mute(listener));
    int late = begin_connect();
    ck_assert(!is_decided(late, 200));
    ck_assert_int_eq(send(early, "x", 1, 0), 1); /* it is not cut off */
    listener_close(listener);
    ck_assert_uint_eq(pool.count, 1);
    ck_assert(is_decided(late, WAIT));
    ck_assert_int_eq(error_of(late), ECONNREFUSED);
    char buf[8];
    ck_assert_int_eq(hear(early, buf, sizeof buf), 1);
    ck_assert(echoes(early));
    close(early);
    close(late);
    teardown();
}
END_TEST

/* A muted listener still accepts what has come before, and its connections are not muted. */
START_TEST(test_muted_accepts)
{
    struct listener *listener = setup(false);
    ck_assert_int_eq(listener_start(listener, &pool, &terms), 0);
    int early = connected();
    ck_assert(listener_mute(listener));
    ck_assert(echoes(early));
    ck_assert_uint_eq(opened(&metrics), 1);
    listener_close(listener);
    ck_assert(echoes(early));
    close(early);
    teardown();
}
END_TEST

/* Somebody else goes on listening: nothing is dropped, and nobody is taken off the backlog. */
START_TEST(test_inherited)
{
    struct listener *listener = setup(true);
    int other = dup(fd), on = 0;
    socklen_t len = sizeof on;
    ck_assert_int_eq(getsockopt(other, IPPROTO_TCP, TCP_NODELAY, &on, &len), 0);
    ck_assert_int_eq(on, 1);
    ck_assert_int_eq(listener_start(listener, &pool, &terms), 0);
    int early = connected();
    ck_assert(!listener_mute(listener));
    int late = connected();
    listener_close(listener);
    ck_assert_uint_eq(pool.count, 0);
    for (int i = 0; i < 2; i++) {
        int accepted = accept(other, NULL, NULL);
        ck_assert_int_ge(accepted, 0);
        close(accepted);
    }
    close(early);
    close(late);
    close(other);
    teardown();
}
END_TEST

/* One that was bound for nothing. */
START_TEST(test_never_started)
{
    listener_close(NULL);
    struct listener *listener = setup(false);
    int early = connected();
    listener_close(listener);
    ck_assert_uint_eq(opened(&metrics), 0);
    close(early);
    teardown();
}
END_TEST

UNIT_MAIN("listener", test_serves, test_other_terms, test_watched_late, test_refuses, test_mute, test_muted_accepts,
          test_inherited, test_never_started)
