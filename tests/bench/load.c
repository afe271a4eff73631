/*
 * load: the client of the benchmark.  A closed loop on one thread: each connection sends a request when it has the whole
 * reply to the one before, and every byte of every reply is compared with what it must be.
 *
 *     load WORKLOAD HOST:PORT CONNECTIONS [AMOUNT]
 *
 *     echo:SIZE   send SIZE bytes, get them back
 *     http[:N]    keep-alive GET /world, N requests to a write (1)
 *     close:SIZE  connect, send SIZE bytes, get them back, shutdown, read the end of file, close
 *
 * AMOUNT is a time (0.5s) or requests on each connection (10x; with http:N writes of N requests).  One round of it prints
 * one line of JSON.  Without AMOUNT load prints `ready` once its connections are open, then reads amounts from stdin,
 * one a line, runs a round for each, and holds the connections until stdin ends: rounds with a warm-up before, and idle
 * connections, are made of that.
 *
 * A wrong byte, a short reply, a byte too much or a broken connection is a message and exit status 1, and so is a server
 * that stands still: figures from a failing server are never printed.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

enum {
    PATIENCE = 20,   /* seconds without end before a server counts as standing still */
    SHIFTS = 251,    /* echo: one request differs from the next by where in the pattern it starts */
    MAX_REPLY = 8192 /* http: one reply */
};

/* What a connection sends and gets: to the engine an echo and a batch of HTTP requests are the same. */
struct exchange {
    char *request;
    size_t request_size;
    char *reply;
    size_t reply_size;
    unsigned char *mask; /* http: 0 for bytes of the reply that may change (Date); NULL: none may */
    unsigned requests;   /* in one exchange */
    int close;           /* a connection for each exchange */
};

struct client {
    int fd; /* -1: not connected */
    int finishing;
    uint32_t events;
    uint64_t begun;
    size_t shift, sent, got;
};

struct round {
    double until;       /* a time on the monotonic clock, or */
    uint64_t exchanges; /* of each client, if not 0 */
    unsigned active;    /* clients with an exchange under way */
    uint64_t done, bytes;
};

static struct exchange exchange;
static struct sockaddr_in server;
static struct client *clients;
static unsigned client_count;
static struct round current;
static int epoll;
static char buffer[256 * 1024];

static void __attribute__((noreturn, format(printf, 1, 2))) fail(const char *format, ...)
{
    va_list args;

    fputs("load: ", stderr);
    va_start(args, format);
    vfprintf(stderr, format, args);
    va_end(args);
    fputc('\n', stderr);
    exit(1);
}

static void __attribute__((noreturn)) fail_errno(const char *what)
{
    fputs("load: ", stderr);
    perror(what);
    exit(1);
}

static void on_alarm(int number)
{
    static const char message[] = "load: the server stands still\n";

    (void)number;
    (void)!write(STDERR_FILENO, message, sizeof message - 1);
    _exit(1);
}

static double now(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void *allocate(size_t size)
{
    void *p = calloc(1, size);

    if (p == NULL)
        fail_errno("calloc");
    return p;
}

/* Connections block only here: on loopback connect() returns at once.  All input and output is MSG_DONTWAIT. */
static int connect_server(void)
{
    struct timeval patience = { .tv_sec = PATIENCE };
    int on = 1, fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    if (fd < 0)
        fail_errno("socket");
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    if (connect(fd, (struct sockaddr *)&server, sizeof server) != 0)
        fail_errno("connect");
    return fd;
}

static void client_watch(struct client *client, int op, uint32_t events)
{
    struct epoll_event event = { .events = events, .data.ptr = client };

    if (op == EPOLL_CTL_MOD && client->events == events)
        return;
    client->events = events;
    if (epoll_ctl(epoll, op, client->fd, &event) != 0)
        fail_errno("epoll_ctl");
}

static void client_connect(struct client *client)
{
    client->fd = connect_server();
    client->finishing = 0;
    client_watch(client, EPOLL_CTL_ADD, EPOLLIN);
}

static void client_send(struct client *client)
{
    ssize_t n = send(client->fd, exchange.request + client->shift + client->sent, exchange.request_size - client->sent,
                     MSG_NOSIGNAL | MSG_DONTWAIT);

    if (n < 0 && errno != EAGAIN)
        fail_errno("send");
    client->sent += n > 0 ? (size_t)n : 0;
    client_watch(client, EPOLL_CTL_MOD, client->sent < exchange.request_size ? EPOLLIN | EPOLLOUT : EPOLLIN);
}

/* The next exchange of a client, if the round has one for it. */
static void client_next(struct client *client)
{
    if (current.exchanges != 0 ? client->begun == current.exchanges : now() >= current.until) {
        current.active--;
        return;
    }
    if (client->fd < 0)
        client_connect(client);
    client->begun++;
    client->shift = exchange.mask == NULL ? (client->shift + 1) % SHIFTS : 0;
    client->sent = client->got = 0;
    client_send(client);
}

/* Compares size bytes of a reply from its byte `at` on; what may change and did is learnt. */
static void check_reply(size_t at, const char *data, size_t size)
{
    char *reply = exchange.reply + at;
    size_t i;

    if (memcmp(reply, data, size) == 0)
        return;
    for (i = 0; i < size; i++)
        if (data[i] != reply[i] && (exchange.mask == NULL || exchange.mask[at + i] != 0))
            fail("wrong byte in a reply: 0x%02x instead of 0x%02x", (unsigned char)data[i], (unsigned char)reply[i]);
    memcpy(reply, data, size);
}

static void client_close(struct client *client)
{
    close(client->fd); /* leaves the epoll set with it */
    client->fd = -1;
}

static void client_done(struct client *client)
{
    if (client->sent < exchange.request_size)
        fail("a reply to a request that was not yet sent");
    current.done += exchange.requests;
    current.bytes += exchange.reply_size;
    if (!exchange.close) {
        client_next(client);
        return;
    }
    client->finishing = 1;
    if (shutdown(client->fd, SHUT_WR) != 0)
        fail_errno("shutdown");
}

static void client_receive(struct client *client)
{
    ssize_t n = recv(client->fd, buffer, sizeof buffer, MSG_DONTWAIT);

    if (n < 0 && errno == EAGAIN)
        return;
    if (n < 0)
        fail_errno("recv");
    if (n == 0 && client->finishing) {
        client_close(client);
        client_next(client);
        return;
    }
    if (n == 0)
        fail("the server closed after %zu of %zu bytes", client->got, exchange.reply_size);
    if (client->finishing || (size_t)n > exchange.reply_size - client->got)
        fail("more bytes than were asked for");
    check_reply(client->shift + client->got, buffer, (size_t)n);
    client->got += (size_t)n;
    if (client->got == exchange.reply_size)
        client_done(client);
}

/* Between rounds a connection is silent. */
static void check_silence(void)
{
    unsigned i;
    char byte;

    for (i = 0; i < client_count; i++)
        if (clients[i].fd >= 0 && recv(clients[i].fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT) >= 0)
            fail("bytes or an end of file after the last reply");
}

static void run_round(void)
{
    struct epoll_event events[256];
    unsigned i;
    int n;

    current.active = client_count;
    for (i = 0; i < client_count; i++) {
        clients[i].begun = 0;
        client_next(&clients[i]);
    }
    while (current.active > 0) {
        n = epoll_wait(epoll, events, (int)(sizeof events / sizeof *events), -1);
        for (i = 0; n > 0 && i < (unsigned)n; i++) {
            struct client *client = events[i].data.ptr;

            if (events[i].events & EPOLLOUT)
                client_send(client);
            if (events[i].events & ~(uint32_t)EPOLLOUT)
                client_receive(client);
        }
    }
    check_silence();
}

static void measure(const char *amount)
{
    char *unit;
    double start, value = strtod(amount, &unit);

    if (!(value > 0 && value < 1e6) || (*unit != 's' && *unit != 'x') || strspn(unit + 1, "\n") != strlen(unit + 1))
        fail("bad amount: %s", amount);
    alarm(PATIENCE + (*unit == 's' ? (unsigned)value : 0));
    start = now();
    current = (struct round){ 0 };
    current.until = start + value;
    current.exchanges = *unit == 'x' ? (uint64_t)value : 0;
    run_round();
    printf("{\"requests\": %llu, \"bytes\": %llu, \"elapsed\": %.6f}\n", (unsigned long long)current.done,
           (unsigned long long)current.bytes, now() - start);
    fflush(stdout);
    alarm(0);
}

static void prepare_echo(size_t size)
{
    size_t i;
    uint32_t x = 2463534242u; /* xorshift32: a pattern that repeats nowhere */

    exchange.request_size = exchange.reply_size = size;
    exchange.request = exchange.reply = allocate(size + SHIFTS);
    for (i = 0; i < size + SHIFTS; i++) {
        x ^= x << 13;
        x ^= x >> 17;
        x ^= x << 5;
        exchange.request[i] = (char)(x >> 24);
    }
    exchange.requests = 1;
}

/* Size of the reply that `text` begins with, or 0 while its head is not complete. */
static size_t find_reply_size(const char *text)
{
    const char *end = strstr(text, "\r\n\r\n"), *length = strcasestr(text, "\r\nContent-Length:");

    if (end == NULL)
        return 0;
    if (strncmp(text, "HTTP/1.1 200 ", 13) != 0 || length == NULL || length > end)
        fail("not a 200 with Content-Length: %s", text);
    return (size_t)(end + 4 - text) + strtoul(length + 17, NULL, 10);
}

/* Asks once, to learn what every reply must be. */
static void learn_reply(const char *request, char *text)
{
    size_t got = 0, size = 0;
    ssize_t n;
    int fd = connect_server();

    if (send(fd, request, strlen(request), MSG_NOSIGNAL) != (ssize_t)strlen(request))
        fail_errno("send");
    while (size == 0 || got < size) {
        n = recv(fd, text + got, MAX_REPLY - got, 0);
        if (n <= 0)
            fail("no reply to the first request");
        got += (size_t)n;
        size = find_reply_size(text);
    }
    if (got > size)
        fail("the reply is longer than its Content-Length");
    close(fd);
    exchange.reply_size = size;
}

static void prepare_http(unsigned requests)
{
    static char request[128], text[MAX_REPLY + 1];
    const char *date;
    size_t i, size, length;

    snprintf(request, sizeof request, "GET /world HTTP/1.1\r\nHost: 127.0.0.1:%d\r\n\r\n", ntohs(server.sin_port));
    learn_reply(request, text);
    size = exchange.reply_size;
    length = strlen(request);
    exchange.request_size = requests * length;
    exchange.request = allocate(exchange.request_size);
    exchange.reply_size = requests * size;
    exchange.reply = allocate(exchange.reply_size);
    exchange.mask = allocate(exchange.reply_size);
    exchange.requests = requests;
    memset(exchange.mask, 1, exchange.reply_size);
    date = strcasestr(text, "\r\nDate:");
    for (i = 0; i < requests; i++) {
        memcpy(exchange.request + i * length, request, length);
        memcpy(exchange.reply + i * size, text, size);
        if (date != NULL)
            memset(exchange.mask + i * size + (date + 7 - text), 0, strcspn(date + 7, "\r"));
    }
}

static unsigned long parse_number(const char *text, unsigned long max)
{
    char *end;
    unsigned long value = strtoul(text, &end, 10);

    if (end == text || *end != '\0' || value == 0 || value > max)
        fail("bad number: %s", text);
    return value;
}

static void parse_server(char *text)
{
    char *colon = strrchr(text, ':');

    if (colon == NULL)
        fail("bad HOST:PORT: %s", text);
    *colon = '\0';
    server.sin_family = AF_INET;
    server.sin_port = htons((uint16_t)parse_number(colon + 1, 65535));
    if (inet_pton(AF_INET, text, &server.sin_addr) != 1)
        fail("bad IPv4 address: %s", text);
}

static void parse_workload(const char *text)
{
    if (strncmp(text, "echo:", 5) == 0)
        prepare_echo(parse_number(text + 5, 1ul << 30));
    else if (strncmp(text, "close:", 6) == 0)
        prepare_echo(parse_number(text + 6, 1ul << 30));
    else if (strcmp(text, "http") == 0)
        prepare_http(1);
    else if (strncmp(text, "http:", 5) == 0)
        prepare_http((unsigned)parse_number(text + 5, 1024));
    else
        fail("unknown workload: %s", text);
    exchange.close = text[0] == 'c';
}

static void open_clients(void)
{
    unsigned i;

    clients = allocate(client_count * sizeof *clients);
    for (i = 0; i < client_count; i++) {
        alarm(PATIENCE);
        clients[i].fd = -1;
        if (!exchange.close)
            client_connect(&clients[i]);
    }
    alarm(0);
}

int main(int argc, char **argv)
{
    char line[64];

    if (argc != 4 && argc != 5) {
        fprintf(stderr, "usage: load echo:SIZE|http[:N]|close:SIZE HOST:PORT CONNECTIONS [SECONDSs|COUNTx]\n");
        return 2;
    }
    signal(SIGALRM, on_alarm);
    alarm(PATIENCE);
    parse_server(argv[2]);
    client_count = (unsigned)parse_number(argv[3], 1000000);
    parse_workload(argv[1]);
    epoll = epoll_create1(EPOLL_CLOEXEC);
    if (epoll < 0)
        fail_errno("epoll_create1");
    open_clients();
    if (argc == 5) {
        measure(argv[4]);
        return 0;
    }
    puts("ready");
    fflush(stdout);
    while (fgets(line, sizeof line, stdin) != NULL)
        measure(line);
    return 0;
}
