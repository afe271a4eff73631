#include "client.h"

#include "exchange.h"
#include "load.h"
#include "secure.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { EVENTS = 256 };
enum { WORK = 4000 }; /* nanoseconds that a request or a reply takes the load, at most */

struct client {
    int fd; /* -1: not connected */
    struct ssl_st *ssl;
    bool finishing; /* the exchange is over, and the end of file to come */
    uint32_t events;
    uint64_t begun;
    int64_t due; /* open loop: when the request should have gone out */
    size_t shift, sent, got;
};

static const struct client_settings *settings;
static struct exchange exchange;
static struct client *clients;
static struct round *current;
static unsigned busy;        /* clients with an exchange under way */
static struct client **idle; /* open loop: a ring of the others */
static unsigned idle_first, idle_count;
static int64_t until;
static int epoll;
static char buffer[256 * 1024];

static int64_t now(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

/* --- One connection --------------------------------------------------------------------------------------------- */

/* The PROXY header, version 1 or 2 (haproxy's specification, sections 2.1 and 2.2); it waits for what follows it. */
static void send_proxy_header(int fd)
{
    struct sockaddr_in me = { 0 };
    socklen_t length = sizeof me;
    unsigned char header[64] = "\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c"; /* PROXY, TCP over IPv4, 12 bytes */
    size_t size = 28;

    if (getsockname(fd, (struct sockaddr *)&me, &length) != 0)
        fail_errno("getsockname");
    memcpy(header + 16, &me.sin_addr, 4);
    memcpy(header + 20, &settings->server.sin_addr, 4);
    memcpy(header + 24, &me.sin_port, 2);
    memcpy(header + 26, &settings->server.sin_port, 2);
    if (settings->proxy == 1)
        size = (size_t)snprintf((char *)header, sizeof header, "PROXY TCP4 127.0.0.1 127.0.0.1 %u %u\r\n",
                                ntohs(me.sin_port), ntohs(settings->server.sin_port));
    if (send(fd, header, size, MSG_NOSIGNAL | MSG_MORE) != (ssize_t)size)
        fail_errno("send");
}

/* Connecting blocks, with patience: on loopback it returns at once. */
static void client_connect(struct client *client)
{
    struct timeval patience = { .tv_sec = PATIENCE };
    int on = 1;

    client->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (client->fd < 0)
        fail_errno("socket");
    setsockopt(client->fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
    setsockopt(client->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    if (connect(client->fd, (const struct sockaddr *)&settings->server, sizeof settings->server) != 0)
        fail_errno("connect");
    if (fcntl(client->fd, F_SETFL, O_NONBLOCK) != 0)
        fail_errno("fcntl");
    if (settings->proxy > 0)
        send_proxy_header(client->fd);
    client->ssl = settings->tls ? secure_new(client->fd) : NULL;
    client->finishing = false;
    client->events = 0;
}

static void client_close(struct client *client)
{
    secure_free(client->ssl);
    close(client->fd); /* leaves the epoll set with it */
    client->fd = -1;
}

static ssize_t client_send_some(const struct client *client, const char *data, size_t size)
{
    ssize_t n = client->ssl != NULL ? secure_send(client->ssl, data, size) : send(client->fd, data, size, MSG_NOSIGNAL);

    if (n < 0 && errno != EAGAIN)
        fail_errno("send");
    return n < 0 ? 0 : n;
}

/* What came, 0 at the end of file, -1 if there is nothing yet. */
static ssize_t client_receive_some(const struct client *client, char *data, size_t size)
{
    ssize_t n = client->ssl != NULL ? secure_recv(client->ssl, data, size) : recv(client->fd, data, size, 0);

    if (n < 0 && errno != EAGAIN)
        fail_errno("recv");
    return n;
}

static void client_watch(struct client *client)
{
    bool waits = client->sent < exchange.request.size && (client->ssl == NULL || !secure_wants_read(client->ssl));
    struct epoll_event event = { .events = waits ? EPOLLIN | EPOLLOUT : EPOLLIN, .data.ptr = client };

    if (client->events == event.events)
        return;
    if (epoll_ctl(epoll, client->events == 0 ? EPOLL_CTL_ADD : EPOLL_CTL_MOD, client->fd, &event) != 0)
        fail_errno("epoll_ctl");
    client->events = event.events;
}

static void client_send(struct client *client)
{
    char *data;
    size_t run =
        message_run(&exchange.request, client->shift + client->sent, exchange.request.size - client->sent, &data);

    client->sent += (size_t)client_send_some(client, data, run);
    client_watch(client);
}

static void client_begin(struct client *client)
{
    if (client->fd < 0)
        client_connect(client);
    client->begun++;
    client->shift = (client->shift + 1) % exchange.shifts;
    client->sent = client->got = 0;
    client_send(client);
}

/* --- A round ---------------------------------------------------------------------------------------------------- */

/* The exchange of a client is over: the next one of a closed loop, if the round has one for it, or rest. */
static void client_next(struct client *client)
{
    if (current->rate > 0)
        idle[(idle_first + idle_count++) % settings->active] = client;
    else if (current->exchanges != 0 ? client->begun < current->exchanges : now() < until) {
        client_begin(client);
        return;
    }
    busy--;
}

static void client_done(struct client *client)
{
    if (client->sent < exchange.request.size)
        fail("a reply to a request that was not yet sent");
    if (settings->resume && exchange.ending == ENDING_SERVER && !secure_resumed(client->ssl))
        fail("the server did not resume the session");
    current->done += exchange.requests;
    current->bytes += exchange.reply.size;
    if (current->rate > 0)
        histogram_add(&current->latencies, (uint64_t)(now() - client->due));
    if (exchange.ending == ENDING_NONE) {
        client_next(client);
        return;
    }
    client->finishing = true;
    if (exchange.ending == ENDING_SERVER)
        return;
    if (client->ssl != NULL)
        secure_shutdown(client->ssl);
    else if (shutdown(client->fd, SHUT_WR) != 0)
        fail_errno("shutdown");
}

static void client_receive(struct client *client)
{
    ssize_t n = client_receive_some(client, buffer, sizeof buffer);

    if (n < 0)
        return;
    if (n == 0 && client->finishing) {
        client_close(client);
        client_next(client);
        return;
    }
    if (n == 0)
        fail("the server closed after %zu of %zu bytes", client->got, exchange.reply.size);
    if (client->finishing || (size_t)n > exchange.reply.size - client->got)
        fail("more bytes than were asked for");
    exchange_check(&exchange, client->shift + client->got, buffer, (size_t)n);
    client->got += (size_t)n;
    if (client->got == exchange.reply.size)
        client_done(client);
}

/* Returns how many had something. */
static int clients_serve(int timeout)
{
    struct epoll_event events[EVENTS];
    int i, n = epoll_wait(epoll, events, EVENTS, timeout);

    for (i = 0; i < n; i++) {
        struct client *client = events[i].data.ptr;

        /* a handshake that went on as bytes came may let the request go */
        if (client->sent < exchange.request.size && (client->ssl != NULL || events[i].events & EPOLLOUT))
            client_send(client);
        if (events[i].events & ~(uint32_t)EPOLLOUT)
            client_receive(client);
    }
    return n;
}

static void run_closed(void)
{
    unsigned i;

    busy = settings->active;
    for (i = 0; i < settings->active; i++) {
        clients[i].begun = 0;
        client_next(&clients[i]);
    }
    while (busy > 0)
        clients_serve(-1);
}

/* Sends what is due, as far as there are connections for it; returns how much has been sent. */
static uint64_t send_due(uint64_t sent, uint64_t all, int64_t start)
{
    int64_t time = now(), due;

    while (idle_count > 0 && sent < all && (due = start + (int64_t)((double)sent * 1e9 / current->rate)) <= time) {
        struct client *client = idle[idle_first];

        idle_first = (idle_first + 1) % settings->active;
        idle_count--;
        busy++;
        client->due = due;
        client_begin(client);
        sent++;
    }
    return sent;
}

/* What is late goes out all the same, for as long again. Never sleeps, for waking up would take its time too. */
static void run_open(int64_t start)
{
    uint64_t sent = 0, before, all = (uint64_t)((double)current->length * current->rate / 1e9);
    int64_t turn = start, last, work;
    unsigned i;

    idle_first = idle_count = busy = 0;
    for (i = 0; i < settings->active; i++)
        idle[idle_count++] = &clients[i];
    while (busy > 0 || (sent < all && now() < until + current->length)) {
        before = sent;
        sent = send_due(sent, all, start);
        work = (int64_t)(sent - before) + clients_serve(0);
        last = turn;
        turn = now();
        /* after a stall of the server there is much work, and that is no stall of ours */
        if (turn - last - work * WORK > current->stall)
            current->stall = turn - last - work * WORK;
    }
    current->missed = all - sent;
}

/* Between rounds a connection is silent. */
static void check_silence(void)
{
    unsigned i;
    char byte;

    for (i = 0; i < settings->active; i++)
        if (clients[i].fd >= 0 && client_receive_some(&clients[i], &byte, 1) >= 0)
            fail("bytes or an end of file after the last reply");
}

void clients_run(struct round *round)
{
    int64_t start = now();

    current = round;
    until = start + round->length;
    if (round->rate > 0)
        run_open(start);
    else
        run_closed();
    round->elapsed = now() - start;
    check_silence();
}

/* --- Beginning -------------------------------------------------------------------------------------------------- */

static void wait_for(const struct client *client, short events)
{
    struct pollfd item = { .fd = client->fd, .events = events };

    if (poll(&item, 1, PATIENCE * 1000) != 1)
        fail("the server stands still");
}

/* Asks on a connection of its own; see exchange.h. */
static size_t ask(const char *request, char *text, size_t size, size_t (*ended)(const char *text))
{
    struct client client = { .fd = -1 };
    size_t got = 0, whole = 0, length = strlen(request), sent = 0;
    ssize_t n;

    client_connect(&client);
    while ((sent += (size_t)client_send_some(&client, request + sent, length - sent)) < length)
        wait_for(&client, client.ssl != NULL && secure_wants_read(client.ssl) ? POLLIN : POLLOUT);
    while (whole == 0 || got < whole) {
        wait_for(&client, POLLIN);
        n = client_receive_some(&client, text + got, size - got);
        if (n == 0)
            fail("no reply to the first request");
        got += n > 0 ? (size_t)n : 0;
        text[got] = '\0';
        whole = ended(text);
    }
    if (got > whole)
        fail("the reply is longer than its Content-Length");
    client_close(&client);
    return whole;
}

void clients_open(const struct client_settings *wanted)
{
    unsigned i;

    settings = wanted;
    epoll = epoll_create1(EPOLL_CLOEXEC);
    if (epoll < 0)
        fail_errno("epoll_create1");
    exchange_prepare(&exchange, settings->workload, ntohs(settings->server.sin_port), ask);
    clients = allocate(settings->count * sizeof *clients);
    idle = allocate(settings->active * sizeof(struct client *));
    for (i = 0; i < settings->count; i++) {
        clients[i].fd = -1;
        clients[i].sent = exchange.request.size;
        if (exchange.ending == ENDING_NONE) {
            client_connect(&clients[i]);
            client_watch(&clients[i]);
        }
    }
}
