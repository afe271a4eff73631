#include "bind.h"

#include "unit.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#define MANY 3

static const struct bind_options defaults = { .interface = "", .mode = 0660, .owner = (uid_t)-1, .group = (gid_t)-1 };

/* --- TCP ------------------------------------------------------------------------------------------------------------ */

static struct address loopback(void)
{
    struct address a = { .len = sizeof a.sa.v4 };
    a.sa.v4 = (struct sockaddr_in){ .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    return a;
}

static struct address bound_to(int fd)
{
    struct address a = { .len = sizeof a.sa };
    ck_assert_int_eq(getsockname(fd, &a.sa.any, &a.len), 0);
    return a;
}

static int option(int fd, int level, int name)
{
    int value = -1;
    socklen_t len = sizeof value;
    ck_assert_int_eq(getsockopt(fd, level, name, &value, &len), 0);
    return value;
}

static void close_all(const int *fds, size_t count)
{
    for (size_t i = 0; i < count; i++)
        close(fds[i]);
}

/* The lowest descriptor that is free: a leak would raise it. */
static int next_fd(void)
{
    int fd = dup(STDIN_FILENO);
    close(fd);
    return fd;
}

START_TEST(test_tcp)
{
    struct address a = loopback();
    int fds[MANY], free_fd = next_fd();
    ck_assert_int_eq(bind_listen(&a, &defaults, fds, MANY), 0);
    for (int i = 0; i < MANY; i++) {
        struct address one = bound_to(fds[i]), first = bound_to(fds[0]);
        ck_assert_uint_eq(address_port(&one), address_port(&first));
        ck_assert_int_eq(option(fds[i], SOL_SOCKET, SO_ACCEPTCONN), 1);
        ck_assert_int_eq(option(fds[i], IPPROTO_TCP, TCP_NODELAY), 1);
        ck_assert_int_eq(fcntl(fds[i], F_GETFD), FD_CLOEXEC);
        ck_assert_int_ne(fcntl(fds[i], F_GETFL) & O_NONBLOCK, 0);
    }
    a = bound_to(fds[0]);
    int more[MANY];
    ck_assert_int_eq(bind_listen(&a, &defaults, more, MANY), -1); /* not beside us, although the port is shared */
    ck_assert_int_eq(errno, EADDRINUSE);
    close_all(fds, MANY);
    ck_assert_int_eq(next_fd(), free_fd);
}
END_TEST

START_TEST(test_tcp_options)
{
    struct address a = loopback();
    struct bind_options options = defaults;
    int fd;
    options.keepalive = 30;
    options.defer_accept = 10;
    options.fastopen = 5;
    ck_assert_int_eq(bind_listen(&a, &options, &fd, 1), 0);
    ck_assert_int_eq(option(fd, SOL_SOCKET, SO_KEEPALIVE), 1);
    ck_assert_int_eq(option(fd, IPPROTO_TCP, TCP_KEEPIDLE), 30);
    ck_assert_int_ge(option(fd, IPPROTO_TCP, TCP_DEFER_ACCEPT), 10);
    ck_assert_int_eq(option(fd, IPPROTO_TCP, TCP_FASTOPEN), 5);
    ck_assert_int_eq(bind_tune(fd, &(struct bind_path){ .path = "" }, &defaults), 0);
    ck_assert_int_eq(option(fd, SOL_SOCKET, SO_KEEPALIVE), 0);
    ck_assert_int_eq(option(fd, IPPROTO_TCP, TCP_DEFER_ACCEPT), 0);
    ck_assert_int_eq(option(fd, IPPROTO_TCP, TCP_FASTOPEN), 0);
    close(fd);
}
END_TEST

START_TEST(test_tcp_failures)
{
    struct address a = loopback();
    struct bind_options options = defaults;
    int fds[MANY], free_fd = next_fd();
    a.sa.v4.sin_addr.s_addr = htonl(0xC0000201); /* 192.0.2.1 */
    ck_assert_int_eq(bind_listen(&a, &options, fds, MANY), -1);
    ck_assert_int_eq(errno, EADDRNOTAVAIL);
    options.freebind = true;
    ck_assert_int_eq(bind_listen(&a, &options, fds, MANY), 0);
    close_all(fds, MANY);
    options.interface = "no-such-one";
    ck_assert_int_eq(bind_listen(&a, &options, fds, MANY), -1);
    ck_assert(errno == ENODEV || errno == EPERM);
    ck_assert_int_eq(next_fd(), free_fd);
}
END_TEST

/* --- Unix sockets ----------------------------------------------------------------------------------------------------- */

static char folder[64], path[sizeof folder + 8];

static void make_folder(void)
{
    strcpy(folder, "/tmp/echod-unit-XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(folder));
    snprintf(path, sizeof path, "%s/sock", folder);
}

static void remove_folder(void)
{
    unlink(path);
    ck_assert_int_eq(rmdir(folder), 0);
}

static bool exists(void)
{
    struct stat status;
    return lstat(path, &status) == 0;
}

static mode_t mode_of_path(void)
{
    struct stat status;
    ck_assert_int_eq(lstat(path, &status), 0);
    return status.st_mode & 07777;
}

/* A socket of somebody else at the path, listening or not. */
static int other_socket(bool listening)
{
    struct sockaddr_un un = { .sun_family = AF_UNIX };
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    strcpy(un.sun_path, path);
    ck_assert_int_eq(bind(fd, (struct sockaddr *)&un, sizeof un), 0);
    ck_assert(!listening || listen(fd, 1) == 0);
    return fd;
}

START_TEST(test_unix)
{
    struct bind_path made;
    int fds[MANY], free_fd = next_fd();
    make_folder();
    mode_t mask = umask(0777);
    ck_assert_int_eq(bind_listen_unix(path, &defaults, fds, MANY, &made), 0);
    umask(mask);
    ck_assert_str_eq(made.path, path);
    ck_assert_uint_eq(mode_of_path(), 0660);
    for (int i = 0; i < MANY; i++) {
        ck_assert_int_eq(option(fds[i], SOL_SOCKET, SO_ACCEPTCONN), 1);
        ck_assert_int_eq(fcntl(fds[i], F_GETFD), FD_CLOEXEC);
        ck_assert_int_ne(fcntl(fds[i], F_GETFL) & O_NONBLOCK, 0);
    }
    int second[MANY];
    struct bind_path other;
    ck_assert_int_eq(bind_listen_unix(path, &defaults, second, MANY, &other), -1);
    ck_assert_int_eq(errno, EADDRINUSE);
    ck_assert_str_eq(other.path, "");
    ck_assert(exists());
    close_all(fds, MANY);
    ck_assert(exists());
    ck_assert_int_eq(bind_listen_unix(path, &defaults, fds, MANY, &made), 0); /* it was stale */
    close_all(fds, MANY);
    bind_unlink(&made);
    ck_assert(!exists());
    bind_unlink(&made);
    ck_assert_int_eq(next_fd(), free_fd);
    remove_folder();
}
END_TEST

START_TEST(test_unix_of_others)
{
    struct bind_path made;
    int fd, free_fd = next_fd();
    make_folder();
    int other = other_socket(true);
    ck_assert_int_eq(bind_listen_unix(path, &defaults, &fd, 1, &made), -1);
    ck_assert_int_eq(errno, EADDRINUSE);
    bind_unlink(&made);
    ck_assert(exists());
    close(other);
    unlink(path);
    other = open(path, O_CREAT | O_RDWR | O_CLOEXEC, 0600);
    ck_assert_int_eq(bind_listen_unix(path, &defaults, &fd, 1, &made), -1);
    ck_assert_int_eq(errno, EEXIST);
    bind_unlink(&made);
    ck_assert(exists());
    close(other);
    ck_assert_int_eq(next_fd(), free_fd);
    remove_folder();
}
END_TEST

/* What stands at the path now is not ours: it is neither removed nor given other rights. */
START_TEST(test_unix_replaced)
{
    struct bind_path made;
    struct bind_options options = defaults;
    int fd;
    make_folder();
    ck_assert_int_eq(bind_listen_unix(path, &defaults, &fd, 1, &made), 0);
    options.mode = 0600;
    ck_assert_int_eq(bind_tune(fd, &made, &options), 0);
    ck_assert_uint_eq(mode_of_path(), 0600);
    ck_assert(bind_stands(&made));
    unlink(path);
    ck_assert(!bind_stands(&made));
    ck_assert_int_eq(bind_tune(fd, &made, &options), -1);
    ck_assert_int_eq(errno, ENOENT);
    int other = other_socket(false);
    ck_assert_int_eq(chmod(path, 0640), 0);
    ck_assert_int_eq(bind_tune(fd, &made, &options), -1);
    ck_assert_int_eq(errno, ESTALE);
    ck_assert(!bind_stands(&made));
    ck_assert_uint_eq(mode_of_path(), 0640);
    bind_unlink(&made);
    ck_assert(exists());
    close(other);
    close(fd);
    remove_folder();
}
END_TEST

START_TEST(test_unix_failures)
{
    struct bind_path made;
    struct bind_options options = defaults;
    int fds[MANY], free_fd = next_fd();
    make_folder();
    ck_assert_int_eq(bind_listen_unix("/no/where", &defaults, fds, MANY, &made), -1);
    ck_assert_int_eq(errno, ENOENT);
    options.owner = 12345;
    if (geteuid() != 0) { /* who may not give it away leaves nothing behind */
        ck_assert_int_eq(bind_listen_unix(path, &options, fds, MANY, &made), -1);
        ck_assert_int_eq(errno, EPERM);
        ck_assert(!exists());
    }
    ck_assert_int_eq(next_fd(), free_fd);
    remove_folder();
}
END_TEST

START_TEST(test_unix_abstract)
{
    struct bind_path made;
    char name[64];
    int fds[MANY], fd;
    snprintf(name, sizeof name, "@echod-unit-%d", getpid());
    ck_assert_int_eq(bind_listen_unix(name, &defaults, fds, MANY, &made), 0);
    ck_assert_str_eq(made.path, "");
    ck_assert_int_eq(bind_tune(fds[0], &made, &defaults), 0);
    ck_assert(bind_stands(&made));
    bind_unlink(&made);
    ck_assert_int_eq(bind_listen_unix(name, &defaults, &fd, 1, &made), -1);
    ck_assert_int_eq(errno, EADDRINUSE);
    close_all(fds, MANY);
    ck_assert_int_eq(bind_listen_unix(name, &defaults, &fd, 1, &made), 0);
    close(fd);
}
END_TEST

static void *bind_once(void *arg)
{
    struct bind_path made;
    int fd = -1;
    (void)arg;
    int result = bind_listen_unix(path, &defaults, &fd, 1, &made);
    return (void *)(intptr_t)(result == 0 ? fd : -errno);
}

/* Of those that find a stale socket at one moment, one replaces it, and the others find that one. */
START_TEST(test_unix_at_one_moment)
{
    make_folder();
    for (int round = 0; round < 20; round++) {
        pthread_t threads[4];
        int won = 0, winner = -1;
        close(other_socket(false));
        for (int i = 0; i < 4; i++)
            ck_assert_int_eq(pthread_create(&threads[i], NULL, bind_once, NULL), 0);
        for (int i = 0; i < 4; i++) {
            void *result;
            pthread_join(threads[i], &result);
            ck_assert((intptr_t)result >= 0 || (intptr_t)result == -EADDRINUSE);
            won += (intptr_t)result >= 0;
            winner = (intptr_t)result >= 0 ? (int)(intptr_t)result : winner;
        }
        ck_assert_int_eq(won, 1);
        close(winner);
        unlink(path);
    }
    remove_folder();
}
END_TEST

UNIT_MAIN("bind", test_tcp, test_tcp_options, test_tcp_failures, test_unix, test_unix_of_others, test_unix_replaced,
          test_unix_failures, test_unix_abstract, test_unix_at_one_moment)
