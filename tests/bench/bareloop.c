/*
 * bareloop: the yardstick of the benchmark.
 *
 *     bareloop [-t CERTIFICATE KEY] echo | http REPLY | close REPLY
 *
 * One thread, one epoll loop, non-blocking sockets, level triggered, and no protocol: what a server costs that does
 * nothing but the system calls. `echo` writes back what it read; `http` writes REPLY once for every end of a head (CRLF
 * CRLF) that it read; `close` does so and closes. One read an event, one write a read; only what the socket does not
 * take is kept, and nothing more is read from a connection until that is gone. With -t all of it goes through OpenSSL.
 *
 * It listens on 127.0.0.1 on a port that the kernel chooses, prints the port, and serves until it is killed.
 */
#include "secure.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
    READ_SIZE = 64 * 1024,
    TAIL_SIZE = 3,      /* CRLF CRLF less one byte: what may lie in the read before */
    BATCH = 4096,       /* replies that one write may hold; more heads than that in one read end the connection */
    MAX_FD = 64 * 1024, /* connections are found by descriptor */
    EVENTS = 256
};

struct conn {
    char *kept; /* bytes that the socket did not take, or NULL */
    size_t kept_size;
    size_t kept_sent;
    char tail[TAIL_SIZE]; /* http: the last bytes read */
    struct ssl_st *ssl;   /* NULL: plain */
};

static struct conn conns[MAX_FD];
static char buffer[TAIL_SIZE + READ_SIZE];

static const char *reply; /* NULL: echo */
static char *replies;     /* BATCH times reply */
static size_t reply_size;
static bool closes;
static bool secured;

static int epoll;

static void die(const char *what)
{
    fputs("bareloop: ", stderr);
    perror(what);
    exit(1);
}

static void conn_close(int fd)
{
    free(conns[fd].kept);
    if (conns[fd].ssl != NULL)
        secure_shutdown(conns[fd].ssl);
    secure_free(conns[fd].ssl);
    conns[fd] = (struct conn){ 0 };
    close(fd);
}

static void conn_watch(int fd, int op, uint32_t events)
{
    struct epoll_event event = { .events = events, .data.fd = fd };

    if (epoll_ctl(epoll, op, fd, &event) != 0)
        die("epoll_ctl");
}

/* Returns how much the socket took, 0 if it is full, -1 if the connection is broken. */
static ssize_t send_some(int fd, const char *data, size_t size)
{
    struct ssl_st *ssl = conns[fd].ssl;
    ssize_t n = ssl != NULL ? secure_send(ssl, data, size) : send(fd, data, size, MSG_NOSIGNAL);

    return n < 0 && (errno == EAGAIN || errno == EINTR) ? 0 : n;
}

static int conn_keep(int fd, const char *data, size_t size)
{
    struct conn *conn = &conns[fd];

    conn->kept = malloc(size);
    if (conn->kept == NULL)
        return -1;
    memcpy(conn->kept, data, size);
    conn->kept_size = size;
    conn->kept_sent = 0;
    conn_watch(fd, EPOLL_CTL_MOD, EPOLLOUT);
    return 0;
}

static int conn_send(int fd, const char *data, size_t size)
{
    ssize_t n = send_some(fd, data, size);

    if (n < 0)
        return -1;
    return (size_t)n < size ? conn_keep(fd, data + n, size - (size_t)n) : 0;
}

static int conn_writable(int fd)
{
    struct conn *conn = &conns[fd];
    ssize_t n = send_some(fd, conn->kept + conn->kept_sent, conn->kept_size - conn->kept_sent);

    if (n < 0)
        return -1;
    conn->kept_sent += (size_t)n;
    if (conn->kept_sent < conn->kept_size)
        return 0;
    free(conn->kept);
    conn->kept = NULL;
    conn_watch(fd, EPOLL_CTL_MOD, EPOLLIN);
    return 0;
}

/* Heads that end in the size bytes behind the tail of the read before.  A reply owed is a head that ended. */
static size_t count_heads(struct conn *conn, size_t size)
{
    const char *at = buffer, *end = buffer + TAIL_SIZE + size, *found;
    size_t count = 0;

    memcpy(buffer, conn->tail, TAIL_SIZE);
    while ((found = memmem(at, (size_t)(end - at), "\r\n\r\n", 4)) != NULL) {
        at = found + 4;
        count++;
    }
    memcpy(conn->tail, end - TAIL_SIZE, TAIL_SIZE);
    if (end - at < TAIL_SIZE) /* bytes that ended a head do not begin another */
        memset(conn->tail, 0, (size_t)(TAIL_SIZE - (end - at)));
    return count;
}

static int conn_readable(int fd)
{
    struct ssl_st *ssl = conns[fd].ssl;
    char *input = buffer + TAIL_SIZE;
    ssize_t n = ssl != NULL ? secure_recv(ssl, input, READ_SIZE) : recv(fd, input, READ_SIZE, 0);
    size_t count;

    if (n <= 0)
        return n < 0 && (errno == EAGAIN || errno == EINTR) ? 0 : -1;
    if (reply == NULL)
        return conn_send(fd, input, (size_t)n);
    count = count_heads(&conns[fd], (size_t)n);
    if (count > BATCH)
        return -1;
    if (count == 0)
        return 0;
    return conn_send(fd, replies, count * reply_size) != 0 || closes ? -1 : 0;
}

static void accept_all(int listener)
{
    int fd, on = 1;

    while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0) {
        if (fd >= MAX_FD) {
            close(fd);
            continue;
        }
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
        conns[fd].ssl = secured ? secure_new(fd) : NULL;
        conn_watch(fd, EPOLL_CTL_ADD, EPOLLIN);
    }
    if (errno != EAGAIN && errno != ECONNABORTED && errno != EINTR)
        die("accept4");
}

static int listen_local(void)
{
    struct sockaddr_in address = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    socklen_t size = sizeof address;
    int on = 1, fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

    if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) != 0 ||
        bind(fd, (struct sockaddr *)&address, size) != 0 || listen(fd, SOMAXCONN) != 0 ||
        getsockname(fd, (struct sockaddr *)&address, &size) != 0)
        die("listen");
    printf("%d\n", ntohs(address.sin_port));
    fflush(stdout);
    return fd;
}

static void prepare_replies(void)
{
    size_t i;

    reply_size = strlen(reply);
    replies = malloc(BATCH * reply_size);
    if (replies == NULL)
        die("malloc");
    for (i = 0; i < BATCH; i++)
        memcpy(replies + i * reply_size, reply, reply_size);
}

static void serve(int listener)
{
    struct epoll_event events[EVENTS];
    int i, n;

    for (;;) {
        n = epoll_wait(epoll, events, EVENTS, -1);
        for (i = 0; i < n; i++) {
            int fd = events[i].data.fd;

            if (fd == listener)
                accept_all(listener);
            else if ((conns[fd].kept != NULL ? conn_writable(fd) : conn_readable(fd)) != 0)
                conn_close(fd);
        }
    }
}

static void __attribute__((noreturn)) usage(void)
{
    fputs("usage: bareloop [-t CERTIFICATE KEY] echo | http REPLY | close REPLY\n", stderr);
    exit(2);
}

int main(int argc, char **argv)
{
    int listener;

    if (argc > 3 && strcmp(argv[1], "-t") == 0) {
        secured = true;
        secure_server(argv[2], argv[3]);
        argc -= 3;
        argv += 3;
    }
    closes = argc == 3 && strcmp(argv[1], "close") == 0;
    if (argc == 3 && (closes || strcmp(argv[1], "http") == 0))
        reply = argv[2];
    else if (argc != 2 || strcmp(argv[1], "echo") != 0)
        usage();
    if (reply != NULL)
        prepare_replies();
    signal(SIGPIPE, SIG_IGN);
    epoll = epoll_create1(EPOLL_CLOEXEC);
    if (epoll < 0)
        die("epoll_create1");
    listener = listen_local();
    conn_watch(listener, EPOLL_CTL_ADD, EPOLLIN);
    serve(listener);
}
