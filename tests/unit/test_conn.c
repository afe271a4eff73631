#include "conn.h"

#include "log.h"
#include "pki.h"
#include "unit.h"

#include <errno.h>
#include <event2/event.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <netinet/in.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define TURNS      100000  /* of the loop, after which a condition is given up */
#define MS         1000000 /* nanoseconds */
#define SECOND     1000    /* milliseconds */
#define CONN_BOUND 262144  /* the most that a connection may hold */
#define SHOWN_MAX  147456  /* the most that a handler sees at once, which is more over TLS */

/* --- A clock that stands still until it is told to go on; for libevent too -------------------------------------------- */

static int64_t clock_ns = 1000 * (int64_t)SECOND * MS;

int clock_gettime(clockid_t id, struct timespec *now)
{
    if (id != CLOCK_MONOTONIC && id != CLOCK_MONOTONIC_COARSE)
        return (int)syscall(SYS_clock_gettime, id, now);
    *now = (struct timespec){ .tv_sec = clock_ns / 1000000000, .tv_nsec = clock_ns % 1000000000 };
    return 0;
}

/* --- A handler that does as it is told ------------------------------------------------------------------------------ */

/* What a hook does: puts out so many letters, asks for a time limit, and decides. */
struct order {
    enum handler_next next;
    size_t put;
    char letter;
    bool limit;
    uint64_t milliseconds;
};

enum input_style {
    INPUT_ECHO,  /* sends everything back, borrowed */
    INPUT_ORDER, /* takes everything, and does as orders.input says */
    INPUT_LINES, /* takes whole lines, and sends them back */
    INPUT_NOTHING /* takes nothing */,
    INPUT_SLOWLY /* takes byte by byte, and puts out as much as is enough for each */
};

static struct {
    struct order open, input, eof, expire, drain;
    enum input_style style;
} orders;

static struct conn_settings settings;

/* What was called, in order. */
static char trace[1 << 16];
static size_t trace_len;

static struct {
    int opened, closed;
    size_t taken;                    /* bytes that input() took */
    const void *shared;              /* that open() was given */
    struct conn seen;                /* as a hook saw it last */
    char input[SHOWN_MAX], last[16]; /* what was shown last */
    size_t input_len;
} told;

/* The state of a connection. */
struct state {
    char was_zero; /* 0 at first */
    bool closed;
};

__attribute__((format(printf, 1, 2))) static void note(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    int n = vsnprintf(trace + trace_len, sizeof trace - trace_len, format, arguments);
    va_end(arguments);
    trace_len += (size_t)n;
    ck_assert_uint_lt(trace_len, sizeof trace);
}

static enum handler_next obey(const char *hook, const struct order *order, struct conn *conn, struct state *state,
                              struct output *out)
{
    ck_assert(!state->closed);
    ck_assert_int_le(conn->now, deadline_now());
    ck_assert_int_ge(conn->now, told.seen.now);
    ck_assert_uint_eq(out->len, 0);
    told.seen = *conn;
    note("%s ", hook);
    char *letters = malloc(order->put + 1);
    memset(letters, order->letter, order->put + 1);
    output_copy(out, letters, order->put);
    free(letters);
    if (order->limit)
        conn_timeout(conn, order->milliseconds);
    return order->next;
}

static enum handler_next hook_open(struct conn *conn, void *state, void *shared, struct output *out)
{
    struct state *s = state;
    ck_assert_int_eq(s->was_zero, 0);
    s->was_zero = 1;
    told.opened++;
    told.shared = shared;
    return obey("open", &orders.open, conn, state, out);
}

static void take_lines(struct bytes *in, struct output *out)
{
    const char *end;
    while ((end = memchr(in->data, '\n', in->len)) != NULL) {
        size_t len = (size_t)(end - in->data) + 1;
        output_copy(out, in->data, len);
        bytes_skip(in, len);
    }
}

static void take_slowly(struct bytes *in, struct output *out)
{
    static char letters[OUTPUT_ENOUGH];
    while (in->len > 0 && !output_full(out)) {
        memset(letters, in->data[0], sizeof letters);
        output_borrow(out, letters, sizeof letters); /* overwritten by the next call */
        bytes_skip(in, 1);
    }
}

static enum handler_next hook_input(struct conn *conn, void *state, struct bytes *in, struct output *out)
{
    enum handler_next next = HANDLER_MORE;
    size_t before = in->len;
    ck_assert(in->len > 0 && in->len <= (settings.tls != NULL ? SHOWN_MAX : 65536));
    told.input_len = in->len;
    memcpy(told.input, in->data, in->len);
    if (in->len < 40)
        note("input(%.*s) ", (int)in->len, in->data);
    switch (orders.style) {
    case INPUT_ECHO:
        output_borrow(out, in->data, in->len);
        bytes_skip(in, in->len);
        break;
    case INPUT_ORDER:
        bytes_skip(in, in->len);
        next = obey("input", &orders.input, conn, state, out);
        break;
    case INPUT_LINES:
        take_lines(in, out);
        break;
    case INPUT_SLOWLY:
        take_slowly(in, out);
        break;
    case INPUT_NOTHING:
        break;
    }
    told.seen = *conn;
    told.taken += before - in->len;
    return next;
}

static enum handler_next hook_eof(struct conn *conn, void *state, struct output *out)
{
    return obey("eof", &orders.eof, conn, state, out);
}

static enum handler_next hook_expire(struct conn *conn, void *state, struct output *out)
{
    return obey("expire", &orders.expire, conn, state, out);
}

static enum handler_next hook_drain(struct conn *conn, void *state, struct output *out)
{
    ck_assert(conn->draining);
    return obey("drain", &orders.drain, conn, state, out);
}

static void hook_close(void *state)
{
    struct state *s = state;
    ck_assert(!s->closed);
    s->closed = true;
    told.closed++;
    note("close ");
}

static const struct handler obedient = {
    .name = "obedient",
    .state_size = sizeof(struct state),
    .open = hook_open,
    .input = hook_input,
    .eof = hook_eof,
    .expire = hook_expire,
    .drain = hook_drain,
    .close = hook_close,
};

/* The hook that is required, and no other. */
static const struct handler plain = { .name = "plain", .input = hook_input };

/* --- One end of a socket pair is the peer, the other is given to the pool ------------------------------------------------ */

struct peer {
    int fd;
    size_t sent, got;
    bool ended, reset; /* what was read last */
    char first[1 << 16];
};

static struct event_base *base;
static struct conn_pool pool;
static struct conn_metrics metrics;
static int ended, expected_to_end;

static void on_ended(const struct conn_settings *given, void *ticket)
{
    ck_assert_ptr_eq(given, &settings);
    ck_assert_ptr_eq(ticket, &ended);
    ended++;
}

/* A world with handlers that say MORE, and FINISH at the end. */
static void setup(const struct handler *handler)
{
    orders.eof.next = HANDLER_FINISH;
    signal(SIGPIPE, SIG_IGN); /* as the server does */
    base = event_base_new();
    ck_assert_ptr_nonnull(base);
    ck_assert_int_eq(conn_pool_init(&pool, base), 0);
    settings = (struct conn_settings){ .handler = handler,
                                       .shared = &orders,
                                       .context = { .listener = "test", .requests = &metrics.requests },
                                       .idle_timeout = 60 * SECOND,
                                       .metrics = &metrics,
                                       .ended = on_ended };
}

/* How many connections are counted as ended, for whatever reason; each has left its duration. */
static uint64_t count_closed(void)
{
    uint64_t closed = 0, durations = 0;
    for (size_t i = 0; i < CONN_REASONS; i++)
        closed += counter_read(&metrics.closed[i]);
    for (size_t i = 0; i <= HISTOGRAM_BOUNDS; i++)
        durations += counter_read(&metrics.duration.buckets[i]);
    ck_assert_uint_eq(closed, durations);
    return closed;
}

static void teardown(void)
{
    conn_pool_abort(&pool);
    ck_assert_uint_eq(pool.count, 0);
    ck_assert_ptr_null(pool.first);
    ck_assert_int_eq(ended, expected_to_end);
    ck_assert_uint_eq(counter_read(&metrics.opened), (unsigned)ended);
    ck_assert_uint_eq(count_closed(), (unsigned)ended);
    ck_assert_int_eq(told.closed, told.opened);
    conn_pool_free(&pool);
    event_base_free(base);
}

static void join_ends(struct peer *peer, int ours, int theirs)
{
    struct address address = { .len = sizeof(struct sockaddr_in) };
    address.sa.v4 = (struct sockaddr_in){ .sin_family = AF_INET, .sin_port = htons(4711) };
    memset(peer, 0, sizeof *peer);
    peer->fd = theirs;
    expected_to_end++;
    ck_assert(conn_open(&pool, &settings, ours, &address, deadline_now(), &ended));
}

/* Small buffers in the kernel, so that little is needed to fill them. */
static void join(struct peer *peer)
{
    int ends[2], size = 16384;
    ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, ends), 0);
    setsockopt(ends[0], SOL_SOCKET, SO_SNDBUF, &size, sizeof size);
    setsockopt(ends[1], SOL_SOCKET, SO_SNDBUF, &size, sizeof size);
    join_ends(peer, ends[0], ends[1]);
}

static void join_tcp(struct peer *peer)
{
    struct sockaddr_in in = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    socklen_t len = sizeof in;
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), theirs = socket(AF_INET, SOCK_STREAM, 0);
    ck_assert_int_eq(bind(listener, (const struct sockaddr *)&in, len), 0);
    ck_assert_int_eq(listen(listener, 1), 0);
    ck_assert_int_eq(getsockname(listener, (struct sockaddr *)&in, &len), 0);
    ck_assert_int_eq(connect(theirs, (const struct sockaddr *)&in, len), 0);
    int ours = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    ck_assert_int_eq(fcntl(theirs, F_SETFL, O_NONBLOCK), 0);
    close(listener);
    join_ends(peer, ours, theirs);
}

/* Sends as much of it as the socket takes. */
static size_t say_some(struct peer *peer, const char *data, size_t len)
{
    ssize_t n = send(peer->fd, data, len, MSG_NOSIGNAL);
    ck_assert_msg(n >= 0 || errno == EAGAIN, "%s", strerror(errno));
    peer->sent += n > 0 ? (size_t)n : 0;
    return n > 0 ? (size_t)n : 0;
}

static void say(struct peer *peer, const char *text)
{
    ck_assert_uint_eq(say_some(peer, text, strlen(text)), strlen(text));
}

/* The byte at a position of a stream; its period is no power of two. */
static char pattern(size_t at)
{
    return (char)(at % 251 + at / 251 % 7);
}

/* Reads up to most bytes; if so told, each must be the one that the pattern has there. */
static void hear_some(struct peer *peer, size_t most, bool patterned)
{
    char buf[65536];
    size_t wrong = 0;
    ssize_t n = recv(peer->fd, buf, most < sizeof buf ? most : sizeof buf, 0);
    peer->ended = n == 0;
    peer->reset = n < 0 && errno != EAGAIN;
    for (ssize_t i = 0; i < n; i++, peer->got++) {
        if (peer->got < sizeof peer->first - 1)
            peer->first[peer->got] = buf[i];
        wrong += patterned && buf[i] != pattern(peer->got);
    }
    ck_assert_uint_eq(wrong, 0);
}

/* One turn of the loop, waiting for nothing; then all peers hear what there is. */
static void turn(struct peer *peer)
{
    ck_assert_int_ge(event_base_loop(base, EVLOOP_NONBLOCK), 0);
    if (peer != NULL && !peer->ended && !peer->reset)
        hear_some(peer, 65536, false);
}

static void turns(struct peer *peer, int count)
{
    while (count-- > 0)
        turn(peer);
}

/* Turns the loop until it is so. */
#define until(peer, condition)                                      \
    do {                                                            \
        for (int turn_ = 0; turn_ < TURNS && !(condition); turn_++) \
            turn(peer);                                             \
        ck_assert(condition);                                       \
    } while (0)

/* Lets so many milliseconds pass, and a little more: a deadline is due a microsecond late. */
static void pass(struct peer *peer, int milliseconds)
{
    clock_ns += (int64_t)milliseconds * MS + 2000;
    turns(peer, 3);
}

static void leave(struct peer *peer)
{
    close(peer->fd);
    peer->fd = -1;
}

/* --- Order ----------------------------------------------------------------------------------------------------------- */

START_TEST(test_order_of_hooks)
{
    struct peer peer;
    setup(&obedient);
    join(&peer);
    ck_assert_str_eq(trace, "open ");
    ck_assert_uint_eq(pool.count, 1);
    say(&peer, "one");
    until(&peer, peer.got == 3);
    say(&peer, "two");
    shutdown(peer.fd, SHUT_WR);
    until(&peer, peer.ended);
    until(NULL, ended == 1);
    ck_assert_str_eq(trace, "open input(one) input(two) eof close ");
    ck_assert_str_eq(peer.first, "onetwo");
    ck_assert_uint_eq(pool.count, 0);
    leave(&peer);
    teardown();
}
END_TEST

START_TEST(test_what_a_hook_sees)
{
    struct peer peer;
    setup(&obedient);
    join(&peer);
    ck_assert_ptr_eq(told.shared, &orders);
    ck_assert_ptr_eq(told.seen.context, &settings.context);
    ck_assert_uint_eq(address_port(&told.seen.peer), 4711);
    ck_assert(!told.seen.draining);
    leave(&peer);
    teardown();
}
END_TEST

/* Without hooks: MORE, FINISH, ABORT, FINISH, as the contract says. */
START_TEST(test_defaults)
{
    struct peer peer;
    setup(&plain);
    join(&peer); /* open, input, eof */
    say(&peer, "hello");
    until(&peer, peer.got == 5);
    shutdown(peer.fd, SHUT_WR);
    until(&peer, peer.ended && ended == 1);
    leave(&peer);
    join(&peer); /* drain */
    conn_pool_drain(&pool);
    until(&peer, peer.ended);
    ck_assert_int_eq(ended, 2); /* nothing was in flight, so nothing lingers */
    leave(&peer);
    teardown();
}
END_TEST

START_TEST(test_expire_default)
{
    struct handler handler = obedient;
    struct peer peer;
    handler.expire = NULL;
    setup(&handler);
    orders.open = (struct order){ .limit = true, .milliseconds = 10 };
    join(&peer);
    pass(&peer, 10);
    ck_assert_int_eq(ended, 1);
    ck_assert_str_eq(trace, "open close ");
    leave(&peer);
    teardown();
}
END_TEST

/* --- Finish, abort, reset ------------------------------------------------------------------------------------------- */

/* However much it is, all of the output reaches the peer; then the end; and what the peer still says is dropped. */
START_TEST(test_finish_sends_everything)
{
    struct peer peer;
    setup(&obedient);
    orders.style = INPUT_ORDER;
    orders.input = (struct order){ HANDLER_FINISH, 1 << 20, 'x', false, 0 };
    join(&peer);
    say(&peer, "go");
    turns(NULL, 100);
    ck_assert_int_eq(told.closed, 0);
    until(&peer, peer.ended);
    ck_assert_uint_eq(peer.got, 1 << 20);
    ck_assert_uint_eq(strspn(peer.first, "x"), sizeof peer.first - 1);
    for (int i = 0; i < 20; i++) {
        say(&peer, "is anybody there?");
        turns(NULL, 3);
    }
    ck_assert_int_eq(ended, 0);
    leave(&peer);
    until(NULL, ended == 1);
    ck_assert_str_eq(trace, "open input(go) input close ");
    teardown();
}
END_TEST

/* A peer that sends on and on while the last answer goes out loses nothing of it. */
START_TEST(test_finish_while_the_peer_sends)
{
    struct peer peer;
    static char flood[20000];
    setup(&obedient);
    orders.style = INPUT_ORDER;
    orders.input = (struct order){ HANDLER_FINISH, 300000, 'x', false, 0 };
    join(&peer);
    say(&peer, "go");
    for (int i = 0; i < 200; i++) {
        say_some(&peer, flood, sizeof flood);
        turn(i % 2 == 0 ? NULL : &peer);
    }
    until(&peer, peer.ended);
    ck_assert_uint_eq(peer.got, 300000);
    leave(&peer);
    until(NULL, ended == 1);
    teardown();
}
END_TEST

START_TEST(test_finish_at_once)
{
    struct peer peer;
    setup(&obedient);
    orders.open = (struct order){ HANDLER_FINISH, 3, 'x', false, 0 };
    join(&peer);
    say(&peer, "hello");
    until(&peer, peer.ended);
    ck_assert_str_eq(peer.first, "xxx");
    leave(&peer);
    until(NULL, ended == 1);
    ck_assert_str_eq(trace, "open close ");
    teardown();
}
END_TEST

START_TEST(test_abort)
{
    struct peer peer;
    setup(&obedient);
    orders.style = INPUT_ORDER;
    orders.input = (struct order){ HANDLER_ABORT, 100, 'x', false, 0 };
    join(&peer);
    say(&peer, "go");
    until(&peer, peer.ended || peer.reset);
    ck_assert_uint_eq(peer.got, 0);
    ck_assert_int_eq(ended, 1);
    ck_assert_str_eq(trace, "open input(go) input close ");
    leave(&peer);
    teardown();
}
END_TEST

START_TEST(test_abort_at_once)
{
    struct peer peer;
    setup(&obedient);
    orders.open = (struct order){ HANDLER_ABORT, 100, 'x', false, 0 };
    join(&peer);
    ck_assert_int_eq(ended, 1);
    ck_assert_uint_eq(pool.count, 0);
    until(&peer, peer.ended);
    ck_assert_uint_eq(peer.got, 0);
    leave(&peer);
    teardown();
}
END_TEST

/* A peer that goes with something unread resets the connection: no eof, and everything is freed. */
START_TEST(test_reset)
{
    struct peer peer;
    setup(&obedient);
    orders.open = (struct order){ HANDLER_MORE, 5, 'x', false, 0 };
    join(&peer);
    leave(&peer);
    until(NULL, ended == 1);
    ck_assert_str_eq(trace, "open close ");
    teardown();
}
END_TEST

START_TEST(test_reset_while_paused)
{
    struct peer peer;
    setup(&obedient);
    orders.open = (struct order){ HANDLER_MORE, 1 << 20, 'x', false, 0 };
    join(&peer);
    turns(NULL, 10);
    leave(&peer);
    until(NULL, ended == 1);
    ck_assert_str_eq(trace, "open close ");
    teardown();
}
END_TEST

START_TEST(test_reset_while_flushing)
{
    struct peer peer;
    setup(&obedient);
    orders.open = (struct order){ HANDLER_FINISH, 1 << 20, 'x', false, 0 };
    join(&peer);
    turns(NULL, 10);
    leave(&peer);
    until(NULL, ended == 1);
    ck_assert_str_eq(trace, "open close ");
    teardown();
}
END_TEST

/* --- Unread bytes -------------------------------------------------------------------------------------------------- */

START_TEST(test_unread_is_shown_again)
{
    struct peer peer;
    setup(&obedient);
    orders.style = INPUT_LINES;
    join(&peer);
    static const char *const parts[] = { "ab", "c\nde", "f", "\n\n", "g", "h" };
    for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++) {
        say(&peer, parts[i]);
        turns(&peer, 3);
    }
    ck_assert_str_eq(peer.first, "abc\ndef\n\n");
    ck_assert_str_eq(trace, "open input(ab) input(abc\nde) input(def) input(def\n\n) input(g) input(gh) ");
    shutdown(peer.fd, SHUT_WR);
    until(&peer, peer.ended);
    ck_assert_str_eq(trace + strlen(trace) - 10, "eof close ");
    leave(&peer);
    teardown();
}
END_TEST

/* The connections of a pool share its buffers, and nothing else. */
START_TEST(test_connections_do_not_mix)
{
    static struct peer peers[8];
    char expected[64] = "";
    setup(&obedient);
    orders.style = INPUT_LINES;
    for (int i = 0; i < 8; i++)
        join(&peers[i]);
    for (int round = 0; round < 10; round++)
        for (int i = 0; i < 8; i++) {
            char text[] = { (char)('a' + i), (char)('0' + round), round % 3 == i % 3 ? '\n' : '.', '\0' };
            say(&peers[i], text);
            turns(&peers[i], 2);
        }
    for (int i = 0; i < 8; i++) {
        say(&peers[i], "\n");
        until(&peers[i], peers[i].got == 31);
        char *p = expected;
        for (int round = 0; round < 10; round++)
            p += sprintf(p, "%c%d%c", 'a' + i, round, round % 3 == i % 3 ? '\n' : '.');
        strcpy(p, "\n");
        ck_assert_str_eq(peers[i].first, expected);
        leave(&peers[i]);
    }
    teardown();
}
END_TEST

/* 65535 bytes may stay unread; when one more comes, that is the limit. */
START_TEST(test_unread_limit)
{
    struct peer peer;
    static char bytes[65536];
    setup(&obedient);
    orders.style = INPUT_NOTHING;
    for (size_t i = 0; i < sizeof bytes; i++)
        bytes[i] = pattern(i);
    join(&peer);
    for (size_t at = 0; at < 65535; turn(NULL))
        at += say_some(&peer, bytes + at, 65535 - at);
    turns(NULL, 10);
    ck_assert_uint_eq(told.input_len, 65535);
    ck_assert_mem_eq(told.input, bytes, 65535);
    ck_assert_int_eq(ended, 0);
    say_some(&peer, bytes + 65535, 1);
    until(NULL, ended == 1);
    ck_assert_uint_eq(told.input_len, 65536);
    ck_assert_mem_eq(told.input, bytes, 65536);
    leave(&peer);
    teardown();
}
END_TEST

/* As much as may stay unread, then the end of the line and more behind it: nothing is stuck, nothing is lost. */
START_TEST(test_unread_up_to_the_limit)
{
    struct peer peer;
    static char bytes[65535 + 9000];
    setup(&obedient);
    orders.style = INPUT_LINES;
    memset(bytes, 'x', sizeof bytes);
    bytes[65535] = '\n';
    bytes[sizeof bytes - 1] = '\n';
    join(&peer);
    for (size_t at = 0; at < 65535; turn(&peer))
        at += say_some(&peer, bytes + at, 65535 - at);
    turns(&peer, 10);
    ck_assert_uint_eq(peer.got, 0);
    for (size_t at = 65535; at < sizeof bytes; turn(&peer))
        at += say_some(&peer, bytes + at, sizeof bytes - at);
    until(&peer, peer.got == sizeof bytes);
    shutdown(peer.fd, SHUT_WR);
    until(&peer, peer.ended);
    leave(&peer);
    teardown();
}
END_TEST

/* A handler that stops because enough is queued is called again, and all comes out in order. */
START_TEST(test_enough_output)
{
    struct peer peer;
    size_t wrong = 0;
    setup(&obedient);
    orders.style = INPUT_SLOWLY;
    join(&peer);
    say(&peer, "abcdefghijklmnopqrstuvwxyz");
    shutdown(peer.fd, SHUT_WR);
    for (int turns_left = TURNS; turns_left > 0 && !peer.ended; turns_left--) {
        size_t before = peer.got;
        peer.got = 0;
        turn(NULL);
        hear_some(&peer, 8192, false);
        for (size_t i = 0; i < peer.got; i++)
            wrong += peer.first[i] != (char)('a' + (before + i) / OUTPUT_ENOUGH);
        peer.got += before;
    }
    ck_assert_uint_eq(peer.got, 26 * OUTPUT_ENOUGH);
    ck_assert_uint_eq(wrong, 0);
    leave(&peer);
    teardown();
}
END_TEST

/* --- Backpressure --------------------------------------------------------------------------------------------------- */

static char stream[1 << 21];

/* Sends the pattern on from where it stopped, as far as the socket takes it. */
static void say_pattern(struct peer *peer, size_t total)
{
    for (size_t n = 1; n > 0 && peer->sent < total;)
        n = say_some(peer, stream + peer->sent, total - peer->sent);
}

static void fill_stream(void)
{
    for (size_t i = 0; i < sizeof stream; i++)
        stream[i] = pattern(i);
}

/* A peer sends and does not read: it is paused, and what is held for it is bounded. Then it reads: not a byte is lost. */
START_TEST(test_pause)
{
    struct peer peer;
    setup(&obedient);
    fill_stream();
    join(&peer);
    for (int i = 0; i < 1000; i++) {
        say_pattern(&peer, sizeof stream);
        turn(NULL);
    }
    size_t stopped = peer.sent, taken = told.taken;
    ck_assert_uint_lt(taken, CONN_BOUND);
    for (int i = 0; i < 1000; i++) {
        say_pattern(&peer, sizeof stream);
        turn(NULL);
    }
    ck_assert_uint_eq(peer.sent, stopped);
    ck_assert_uint_eq(told.taken, taken);
    for (int i = 0; i < TURNS && peer.got < sizeof stream; i++) {
        say_pattern(&peer, sizeof stream);
        turn(NULL);
        hear_some(&peer, 30011, true);
        ck_assert_uint_lt(told.taken - peer.got, CONN_BOUND);
    }
    ck_assert_uint_eq(peer.got, sizeof stream);
    ck_assert_int_eq(ended, 0);
    leave(&peer);
    teardown();
}
END_TEST

/* A peer sends, closes its side, and only then reads: everything, and then the end. */
START_TEST(test_half_close_while_paused)
{
    struct peer peer;
    setup(&obedient);
    fill_stream();
    join(&peer);
    for (int i = 0; i < 1000; i++) {
        say_pattern(&peer, sizeof stream);
        turn(NULL);
    }
    shutdown(peer.fd, SHUT_WR);
    turns(NULL, 100);
    ck_assert_str_eq(trace, "open ");
    for (int i = 0; i < TURNS && !peer.ended; i++) {
        turn(NULL);
        hear_some(&peer, 65536, true);
    }
    ck_assert_uint_eq(peer.got, peer.sent);
    ck_assert_str_eq(trace, "open eof close ");
    ck_assert_int_eq(ended, 1);
    leave(&peer);
    teardown();
}
END_TEST

/* --- The relay ------------------------------------------------------------------------------------------------------- */

static bool no_pipe;
static struct rlimit descriptors;

/* A peer that says much at once. */
static void join_bulk(struct peer *peer)
{
    int size = 1 << 17;
    join(peer);
    if (no_pipe) { /* and none can be opened */
        relay_close(&pool.relay);
        setrlimit(RLIMIT_NOFILE, &(const struct rlimit){ .rlim_max = descriptors.rlim_max });
    }
    setsockopt(peer->fd, SOL_SOCKET, SO_SNDBUF, &size, sizeof size);
    fill_stream();
}

/* Talks as above to a handler that reflects, whose input() then need not be called. Returns what input() took. */
static size_t reflect_stream(const struct handler *reflecting)
{
    struct peer peer;
    setup(reflecting);
    join_bulk(&peer);
    for (int i = 0; i < 1000; i++) {
        say_pattern(&peer, sizeof stream);
        turn(NULL);
    }
    ck_assert_uint_lt(counter_read(&metrics.bytes_in), CONN_BOUND);
    for (int i = 0; i < TURNS && !peer.ended; i++) {
        say_pattern(&peer, sizeof stream);
        if (peer.sent == sizeof stream)
            shutdown(peer.fd, SHUT_WR);
        turn(NULL);
        hear_some(&peer, 50021, true);
        ck_assert_uint_lt(counter_read(&metrics.bytes_in) - peer.got, CONN_BOUND);
    }
    ck_assert_uint_eq(peer.got, sizeof stream);
    ck_assert_uint_eq(counter_read(&metrics.bytes_in), sizeof stream);
    ck_assert_uint_eq(counter_read(&metrics.bytes_out), sizeof stream);
    ck_assert_int_eq(ended, 1);
    leave(&peer);
    teardown();
    return told.taken;
}

START_TEST(test_relay)
{
    struct handler reflecting = obedient;
    reflecting.reflects = true;
    ck_assert_uint_lt(reflect_stream(&reflecting), sizeof stream / 2);
    ck_assert_str_eq(trace, "open eof close ");
}
END_TEST

/* Where there can be no pipe, it goes the usual way. */
START_TEST(test_relay_without_pipe)
{
    struct handler reflecting = obedient;
    reflecting.reflects = true;
    no_pipe = true;
    ck_assert_int_eq(getrlimit(RLIMIT_NOFILE, &descriptors), 0);
    ck_assert_uint_eq(reflect_stream(&reflecting), sizeof stream);
    setrlimit(RLIMIT_NOFILE, &descriptors);
}
END_TEST

/* The peer goes while the relay holds what it said: none of that reaches the next connection. */
START_TEST(test_relay_reset)
{
    struct handler reflecting = obedient;
    struct peer peer;
    reflecting.reflects = true;
    setup(&reflecting);
    for (int round = 1; round <= 3; round++) {
        join_bulk(&peer);
        say_pattern(&peer, 65536); /* is bulk, so that more goes through the relay, */
        for (int i = 0; i < TURNS && peer.got < 65536; i++) {
            turn(NULL);
            hear_some(&peer, 65536, true);
        }
        say_pattern(&peer, 100000);
        leave(&peer); /* which cannot give it any more */
        until(NULL, ended == round);
    }
    ck_assert_uint_eq(counter_read(&metrics.closed[CONN_RESET]), 3);
    join_bulk(&peer);
    for (int i = 0; i < TURNS && peer.got < sizeof stream; i++) {
        say_pattern(&peer, sizeof stream);
        turn(NULL);
        hear_some(&peer, 65536, true);
    }
    ck_assert_uint_eq(peer.got, sizeof stream);
    leave(&peer);
    teardown();
}
END_TEST

/* Bytes that the handler left unread when it was paused are shown again once the output is out, with nothing new. */
START_TEST(test_unread_while_paused)
{
    struct peer peer;
    setup(&obedient);
    orders.style = INPUT_SLOWLY;
    join(&peer);
    say(&peer, "abcdefgh");
    turns(NULL, 100);
    ck_assert_uint_lt(told.taken, 8);
    until(&peer, peer.got == 8 * OUTPUT_ENOUGH);
    ck_assert_uint_eq(told.taken, 8);
    leave(&peer);
    teardown();
}
END_TEST

/* Output that open() queued counts as well: nothing is read before it is out. */
START_TEST(test_pause_from_the_beginning)
{
    struct peer peer;
    setup(&obedient);
    orders.open = (struct order){ HANDLER_MORE, 1 << 20, 'x', false, 0 };
    fill_stream();
    join(&peer);
    for (int i = 0; i < 1000; i++) {
        say_pattern(&peer, sizeof stream);
        turn(NULL);
    }
    ck_assert_uint_eq(told.taken, 0);
    until(&peer, peer.got > 1 << 20);
    leave(&peer);
    teardown();
}
END_TEST

/* eof() may stay: it is called once all the same, and what it put out is sent. */
START_TEST(test_eof_once)
{
    struct peer peer;
    setup(&obedient);
    orders.eof = (struct order){ HANDLER_MORE, 300000, 'x', false, 0 };
    join(&peer);
    shutdown(peer.fd, SHUT_WR);
    until(&peer, peer.got == 300000);
    turns(&peer, 10);
    ck_assert_str_eq(trace, "open eof ");
    pass(&peer, 60 * SECOND);
    ck_assert_str_eq(trace, "open eof close ");
    leave(&peer);
    teardown();
}
END_TEST

/* --- Time ------------------------------------------------------------------------------------------------------------ */

START_TEST(test_timeout)
{
    struct peer peer;
    setup(&obedient);
    orders.open = (struct order){ HANDLER_MORE, 0, 0, true, 20 * SECOND };
    orders.expire = (struct order){ HANDLER_FINISH, 4, 'x', false, 0 };
    join(&peer);
    pass(&peer, 20 * SECOND - 1);
    ck_assert_str_eq(trace, "open ");
    pass(&peer, 1);
    ck_assert_str_eq(trace, "open expire ");
    until(&peer, peer.ended);
    ck_assert_str_eq(peer.first, "xxxx");
    leave(&peer);
    until(NULL, ended == 1);
    teardown();
}
END_TEST

/* Bytes that come do not put it off. */
START_TEST(test_timeout_is_absolute)
{
    struct peer peer;
    setup(&obedient);
    orders.open = (struct order){ HANDLER_MORE, 0, 0, true, 20 * SECOND };
    orders.expire.next = HANDLER_ABORT;
    join(&peer);
    for (int i = 0; i < 20; i++) {
        ck_assert_int_eq(ended, 0);
        say(&peer, "x");
        pass(&peer, SECOND);
    }
    ck_assert_int_eq(ended, 1);
    leave(&peer);
    teardown();
}
END_TEST

/* A wish stands instead of an earlier one, be it for sooner, for later, or for never. */
START_TEST(test_timeout_set_anew)
{
    static const int wishes[] = { 5, 50 };
    struct peer peer;
    setup(&obedient);
    orders.style = INPUT_ORDER;
    orders.open = (struct order){ HANDLER_MORE, 0, 0, true, 20 * SECOND };
    for (size_t i = 0; i < 2; i++) {
        trace_len = 0;
        join(&peer);
        pass(&peer, 2 * SECOND);
        orders.input = (struct order){ HANDLER_MORE, 0, 0, true, (uint64_t)wishes[i] * SECOND };
        say(&peer, "go");
        pass(&peer, 0);
        pass(&peer, wishes[i] * SECOND - 1);
        ck_assert_str_eq(trace, "open input(go) input ");
        pass(&peer, 1);
        ck_assert_str_eq(trace, "open input(go) input expire ");
        leave(&peer);
        until(NULL, pool.count == 0);
    }
    trace_len = 0;
    join(&peer);
    orders.input.milliseconds = 0;
    say(&peer, "never");
    settings.idle_timeout = 3600 * SECOND;
    pass(&peer, 0);
    pass(&peer, 59 * SECOND);
    ck_assert_str_eq(trace, "open input(never) input ");
    leave(&peer);
    teardown();
}
END_TEST

/* expire() may stay, and ask again. */
START_TEST(test_timeout_again)
{
    struct peer peer;
    setup(&obedient);
    orders.open = (struct order){ HANDLER_MORE, 0, 0, true, SECOND };
    orders.expire = (struct order){ HANDLER_MORE, 1, 'x', true, SECOND };
    join(&peer);
    for (size_t i = 1; i < 10; i++) {
        pass(&peer, SECOND);
        ck_assert_uint_eq(peer.got, i);
    }
    leave(&peer);
    teardown();
}
END_TEST

/* Once it has finished, there is nothing left to expire. */
START_TEST(test_no_timeout_behind_finish)
{
    struct peer peer;
    setup(&obedient);
    orders.open = (struct order){ HANDLER_FINISH, 1 << 20, 'x', true, SECOND };
    join(&peer);
    pass(NULL, 2 * SECOND);
    until(&peer, peer.ended);
    ck_assert_uint_eq(peer.got, 1 << 20);
    leave(&peer);
    until(NULL, ended == 1);
    ck_assert_str_eq(trace, "open close ");
    teardown();
}
END_TEST

START_TEST(test_idle)
{
    struct peer peer;
    setup(&obedient);
    join(&peer);
    pass(&peer, 59999);
    ck_assert_int_eq(ended, 0);
    pass(&peer, 1);
    ck_assert_int_eq(ended, 1);
    ck_assert_str_eq(trace, "open close ");
    leave(&peer);
    teardown();
}
END_TEST

/* Who sends a byte now and then is not idle. */
START_TEST(test_not_idle)
{
    struct peer peer;
    setup(&obedient);
    join(&peer);
    for (int i = 0; i < 10; i++) {
        pass(&peer, 59 * SECOND);
        say(&peer, "x");
        pass(&peer, 0);
    }
    ck_assert_int_eq(ended, 0);
    pass(&peer, 60 * SECOND);
    ck_assert_int_eq(ended, 1);
    leave(&peer);
    teardown();
}
END_TEST

/* Nor is who reads slowly, even if the connection only waits for that; who stops reading is. */
START_TEST(test_slow_reader)
{
    static const enum handler_next verdicts[] = { HANDLER_MORE, HANDLER_FINISH };
    struct peer peer;
    setup(&obedient);
    for (int i = 0; i < 2; i++) {
        orders.open = (struct order){ verdicts[i], 1 << 20, 'x', false, 0 };
        join(&peer);
        for (int k = 0; k < 10; k++) {
            pass(NULL, 59 * SECOND);
            turn(&peer);
            turn(NULL);
        }
        ck_assert_int_eq(ended, i);
        ck_assert_uint_lt(peer.got, 1 << 20);
        pass(NULL, 60 * SECOND);
        pass(NULL, 60 * SECOND);
        ck_assert_int_eq(ended, i + 1);
        leave(&peer);
    }
    teardown();
}
END_TEST

/* After the end of our side, a peer that says nothing is waited for a little. */
START_TEST(test_quiet_linger)
{
    struct peer peer;
    setup(&obedient);
    orders.open.next = HANDLER_FINISH;
    join(&peer);
    until(&peer, peer.ended);
    pass(NULL, 4 * SECOND);
    say(&peer, "x");
    pass(NULL, 0);
    pass(NULL, 4999);
    ck_assert_int_eq(ended, 0);
    pass(NULL, 1);
    ck_assert_int_eq(ended, 1);
    leave(&peer);
    teardown();
}
END_TEST

/* The same of one that had not got everything when our side ended, as it is on any network. */
START_TEST(test_quiet_linger_of_slow_reader)
{
    struct peer peer;
    setup(&obedient);
    orders.open = (struct order){ HANDLER_FINISH, 1 << 20, 'x', false, 0 };
    join(&peer);
    until(&peer, peer.ended);
    ck_assert_uint_eq(peer.got, 1 << 20);
    ck_assert_int_eq(ended, 0);
    pass(NULL, 5 * SECOND);
    pass(NULL, 5 * SECOND);
    ck_assert_int_eq(ended, 1);
    leave(&peer);
    teardown();
}
END_TEST

/* One that has vanished has had everything, though it does not confirm our end. */
START_TEST(test_linger_for_nobody)
{
    static struct sock_filter drop[] = { BPF_STMT(BPF_RET | BPF_K, 0) };
    static const struct sock_fprog program = { .len = 1, .filter = drop };
    struct peer peer;
    setup(&obedient);
    orders.open.put = 10;
    orders.style = INPUT_ORDER;
    orders.input.next = HANDLER_FINISH;
    join_tcp(&peer);
    until(&peer, peer.got == 10);
    ck_assert_int_eq(setsockopt(peer.fd, SOL_SOCKET, SO_ATTACH_FILTER, &program, sizeof program), 0);
    say(&peer, "x");
    until(NULL, told.taken == 1);
    pass(NULL, 4999);
    ck_assert_int_eq(ended, 0);
    pass(NULL, 1);
    ck_assert_int_eq(ended, 1);
    leave(&peer);
    teardown();
}
END_TEST

/* And one that goes on and on, not much longer. */
START_TEST(test_loud_linger)
{
    struct peer peer;
    setup(&obedient);
    settings.idle_timeout = 3600 * SECOND;
    orders.open.next = HANDLER_FINISH;
    join(&peer);
    for (int i = 0; i < 30; i++) {
        ck_assert_int_eq(ended, 0);
        say(&peer, "is anybody there?");
        pass(NULL, SECOND);
    }
    ck_assert_int_eq(ended, 1);
    ck_assert_str_eq(trace, "open close ");
    leave(&peer);
    teardown();
}
END_TEST

/* --- The server stops ------------------------------------------------------------------------------------------------- */

/* What has come is shown first, for it is in flight; then drain() decides. */
START_TEST(test_drain)
{
    struct peer peer;
    setup(&obedient);
    join(&peer);
    say(&peer, "one");
    conn_pool_drain(&pool);
    ck_assert_str_eq(trace, "open input(one) drain ");
    say(&peer, "two");
    until(&peer, peer.got == 6);
    ck_assert(told.seen.draining);
    shutdown(peer.fd, SHUT_WR);
    until(&peer, peer.ended);
    ck_assert_str_eq(trace, "open input(one) drain input(two) eof close ");
    leave(&peer);
    teardown();
}
END_TEST

/* Handlers see it, of new connections too; but none is told or ended before the drain. */
START_TEST(test_announced)
{
    struct peer peer, newer;
    setup(&obedient);
    join(&peer);
    say(&peer, "one");
    until(&peer, peer.got == 3);
    ck_assert(!told.seen.draining);
    conn_pool_announce(&pool);
    say(&peer, "two");
    until(&peer, peer.got == 6);
    ck_assert(told.seen.draining);
    told.seen.draining = false;
    join(&newer);
    say(&newer, "three");
    until(&newer, newer.got == 5);
    ck_assert(told.seen.draining);
    ck_assert_str_eq(trace, "open input(one) input(two) open input(three) ");
    orders.drain.next = HANDLER_FINISH;
    conn_pool_drain(&pool);
    ck_assert_str_eq(trace, "open input(one) input(two) open input(three) drain close drain close ");
    until(&peer, peer.ended);
    until(&newer, newer.ended);
    leave(&peer);
    leave(&newer);
    teardown();
}
END_TEST

START_TEST(test_drain_finishes)
{
    struct peer peer;
    setup(&obedient);
    orders.drain = (struct order){ HANDLER_FINISH, 300000, 'x', false, 0 };
    join(&peer);
    conn_pool_drain(&pool);
    conn_pool_drain(&pool); /* again: it has finished already */
    until(&peer, peer.ended);
    ck_assert_uint_eq(peer.got, 300000);
    leave(&peer);
    until(NULL, ended == 1);
    ck_assert_str_eq(trace, "open drain close ");
    teardown();
}
END_TEST

START_TEST(test_drain_aborts)
{
    static struct peer peers[3];
    setup(&obedient);
    orders.drain.next = HANDLER_ABORT;
    for (int i = 0; i < 3; i++)
        join(&peers[i]);
    conn_pool_drain(&pool);
    ck_assert_int_eq(ended, 3);
    for (int i = 0; i < 3; i++)
        leave(&peers[i]);
    teardown();
}
END_TEST

/* A peer that has closed its side just before is not asked twice. */
START_TEST(test_drain_behind_the_end)
{
    struct peer peer;
    setup(&obedient);
    join(&peer);
    say(&peer, "one");
    turns(&peer, 3);
    shutdown(peer.fd, SHUT_WR);
    conn_pool_drain(&pool);
    until(&peer, peer.ended);
    ck_assert_int_eq(ended, 1);
    ck_assert_str_eq(trace, "open input(one) eof close ");
    leave(&peer);
    teardown();
}
END_TEST

/* Every connection, whatever it is doing: open, paused, flushing, lingering. */
START_TEST(test_abort_of_a_pool)
{
    static struct peer peers[4];
    setup(&obedient);
    join(&peers[0]);
    orders.open = (struct order){ HANDLER_MORE, 1 << 20, 'x', false, 0 };
    join(&peers[1]);
    orders.open = (struct order){ HANDLER_FINISH, 1 << 20, 'x', false, 0 };
    join(&peers[2]);
    orders.open = (struct order){ HANDLER_FINISH, 1, 'x', true, 10 };
    join(&peers[3]);
    turns(NULL, 10);
    ck_assert_uint_eq(pool.count, 4);
    ck_assert_int_eq(ended, 0);
    conn_pool_abort(&pool);
    ck_assert_uint_eq(pool.count, 0);
    ck_assert_int_eq(ended, 4);
    ck_assert_int_eq(told.closed, 4);
    turns(NULL, 10);
    conn_pool_abort(&pool);
    for (int i = 0; i < 4; i++)
        leave(&peers[i]);
    teardown();
}
END_TEST

/* From the middle of the list, its head and its end, in turn. */
START_TEST(test_many_come_and_go)
{
    static struct peer peers[100];
    setup(&obedient);
    for (int i = 0; i < 100; i++)
        join(&peers[i]);
    for (int i = 0; i < 100; i++) {
        leave(&peers[i * 37 % 100]);
        until(NULL, ended == i + 1);
        ck_assert_uint_eq(pool.count, 99 - (size_t)i);
    }
    teardown();
}
END_TEST

/* --- Why it ended -------------------------------------------------------------------------------------------------------- */

/* The log goes to standard error; here it is read back from there. */
static int log_pipe[2];

static void catch_log(void)
{
    ck_assert_int_eq(pipe2(log_pipe, O_NONBLOCK), 0);
    dup2(log_pipe[1], STDERR_FILENO);
    log_setup(LEVEL_DEBUG, FORMAT_TEXT);
}

/* The count of a reason by the word for it. */
static uint64_t count_reason(const char *reason)
{
    for (size_t i = 0; i < CONN_REASONS; i++)
        if (strcmp(conn_reason_words[i], reason) == 0)
            return counter_read(&metrics.closed[i]);
    ck_abort_msg("no reason: %s", reason);
    return 0;
}

/* One line for one connection, with this reason and these numbers of bytes; it is counted by the same. */
static void check_logged(const char *reason, size_t bytes_in, size_t bytes_out)
{
    char line[4096], expected[128];
    ck_assert_uint_eq(count_reason(reason), 1);
    ssize_t n = read(log_pipe[0], line, sizeof line - 1);
    line[n > 0 ? n : 0] = '\0';
    snprintf(expected, sizeof expected, "reason=%s bytes_in=%zu bytes_out=%zu duration=", reason, bytes_in, bytes_out);
    ck_assert_msg(strstr(line, expected) != NULL, "%s is not in %s", expected, line);
    ck_assert_ptr_nonnull(strstr(line, "listener=test peer=0.0.0.0:4711 "));
    ck_assert_ptr_eq(strchr(line, '\n'), line + n - 1);
}

START_TEST(test_reasons)
{
    struct peer peer;
    setup(&obedient);
    catch_log();

    join(&peer);
    say(&peer, "hello");
    shutdown(peer.fd, SHUT_WR);
    until(&peer, peer.ended);
    check_logged("fin", 5, 5);
    leave(&peer);

    orders.style = INPUT_ORDER;
    orders.input = (struct order){ HANDLER_FINISH, 3, 'x', false, 0 };
    join(&peer);
    say(&peer, "hello");
    until(&peer, peer.ended);
    say(&peer, "!");
    leave(&peer);
    until(NULL, ended == 2);
    check_logged("finished", 6, 3);

    orders.input.next = HANDLER_ABORT;
    join(&peer);
    say(&peer, "hello");
    until(NULL, ended == 3);
    check_logged("abort", 5, 0);
    leave(&peer);

    orders.style = INPUT_NOTHING;
    join(&peer);
    while (ended == 3) {
        say_some(&peer, trace, 8192);
        turn(NULL);
        ck_assert_uint_le(peer.sent, 1 << 17);
    }
    check_logged("limit", 65536, 0);
    leave(&peer);

    orders.open.put = 7;
    join(&peer);
    leave(&peer);
    until(NULL, ended == 5);
    check_logged("reset", 0, 7);

    join(&peer);
    conn_pool_abort(&pool);
    check_logged("drain", 0, 7);
    leave(&peer);

    orders.open.put = 0;
    join(&peer);
    pass(&peer, 60 * SECOND);
    check_logged("idle", 0, 0);
    leave(&peer);

    orders.open = (struct order){ HANDLER_MORE, 0, 0, true, 5 };
    orders.expire.next = HANDLER_ABORT;
    join(&peer);
    pass(&peer, 5);
    check_logged("deadline", 0, 0);
    leave(&peer);

    ck_assert_uint_eq(counter_read(&metrics.silent), 4);
    ck_assert_uint_eq(counter_read(&metrics.bytes_in), 5 + 6 + 5 + 65536);
    ck_assert_uint_eq(counter_read(&metrics.bytes_out), 5 + 3 + 7 + 7);
    teardown();
}
END_TEST

/* What was queued but never sent does not count as sent. */
START_TEST(test_bytes_that_were_sent)
{
    struct peer peer;
    setup(&obedient);
    catch_log();
    orders.open = (struct order){ HANDLER_MORE, 1 << 20, 'x', false, 0 };
    join(&peer);
    turns(NULL, 10);
    conn_pool_abort(&pool);
    while (!peer.ended && !peer.reset)
        hear_some(&peer, 65536, false);
    ck_assert_uint_gt(peer.got, 0);
    check_logged("drain", 0, peer.got);
    leave(&peer);
    teardown();
}
END_TEST

/* --- TLS --------------------------------------------------------------------------------------------------------------- */

/* A client that shakes hands over the peer's socket, and afterwards writes to memory. */
static SSL *shake(struct peer *peer)
{
    SSL_CTX *context = SSL_CTX_new(TLS_client_method());
    SSL *client = SSL_new(context);
    SSL_CTX_free(context);
    SSL_set_fd(client, peer->fd);
    for (int i = 0; i < TURNS && SSL_connect(client) != 1; i++)
        turn(NULL);
    ck_assert_int_eq(SSL_is_init_finished(client), 1);
    SSL_set0_wbio(client, BIO_new(BIO_s_mem()));
    return client;
}

/*
 * A record that lacks its last byte, then this and as much as one turn receives: more comes out than was received, and
 * nearly all of it stays unread while the output of one byte waits.
 */
START_TEST(test_much_unread_of_tls)
{
    struct identity id = identity_make("DNS:a.example");
    const struct tls_settings files = { .certificates = id.certificate_file,
                                        .keys = id.key_file,
                                        .client_ca = "",
                                        .ciphers = "ECDHE+AESGCM",
                                        .ciphersuites = "" };
    struct peer peer;
    struct tls *tls;
    char err[256] = "", *raw, data[80000];
    memset(data, 'x', sizeof data);
    setup(&obedient);
    ck_assert_msg(tls_load(&files, "test", NULL, &tls, NULL, NULL, err, sizeof err) == 0, "%s", err);
    settings.tls = tls;
    settings.handshake_timeout = SECOND;
    join(&peer);
    ck_assert_int_eq(setsockopt(peer.fd, SOL_SOCKET, SO_SNDBUF, &(int){ 1 << 20 }, sizeof(int)), 0);
    SSL *client = shake(&peer);
    orders.style = INPUT_SLOWLY;
    ck_assert_int_eq(SSL_write(client, data, sizeof data), (int)sizeof data);
    size_t len = (size_t)BIO_get_mem_data(SSL_get_wbio(client), &raw), first = 16384 + 5 + 17;
    ck_assert_uint_eq(say_some(&peer, raw, first - 1), first - 1);
    turns(NULL, 3);
    ck_assert_uint_eq(told.taken, 0);
    ck_assert_uint_eq(say_some(&peer, raw + first - 1, len - first + 1), len - first + 1);
    turns(NULL, 3);
    ck_assert_uint_eq(told.taken, 1);
    ck_assert_uint_eq(told.input_len, sizeof data);
    orders.style = INPUT_ORDER;
    until(&peer, told.taken == sizeof data);
    ck_assert_uint_eq(told.input_len, sizeof data - 1);
    ck_assert(memcmp(told.input, data, told.input_len) == 0);
    SSL_free(client);
    leave(&peer);
    teardown();
    tls_free(tls);
    identity_free(&id);
}
END_TEST

/* --- The PROXY header ------------------------------------------------------------------------------------------------- */

static const char line[] = "PROXY TCP4 192.0.2.7 198.51.100.1 4711 80\r\n";
static const char binary[] = "\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0F\xC0\0\x02\x07\xC6\x33\x64\x01\x12\x67\0\x50\x04\0\0";
static const char local[] = "\r\n\r\n\0\r\nQUIT\n\x20\0\0\0";

static struct {
    int times;
    bool refuses;
    struct address last;
} proxied;

static bool on_told(const struct conn_settings *given, const struct address *address, int64_t now, void **ticket)
{
    ck_assert_ptr_eq(given, &settings);
    ck_assert_int_eq(now, deadline_now());
    ck_assert_ptr_eq(*ticket, &ended);
    proxied.times++;
    proxied.last = *address;
    return !proxied.refuses;
}

static void setup_proxy(void)
{
    setup(&obedient);
    settings.proxy = true;
    settings.told = on_told;
    settings.handshake_timeout = 100;
    memset(&proxied, 0, sizeof proxied);
}

static void say_bytes(struct peer *peer, const char *data, size_t len)
{
    ck_assert_uint_eq(say_some(peer, data, len), len);
}

/* Split everywhere, and not: the handler is opened when the header is there, and sees what is behind it. */
static void split_header(const char *header, size_t len)
{
    char whole[256], address[ADDRESS_TEXT];
    memcpy(whole, header, len);
    memcpy(whole + len, "hello", 5);
    for (size_t at = 0; at <= len + 5; at++) {
        struct peer peer;
        trace_len = 0;
        join(&peer);
        if (at > 0)
            say_bytes(&peer, whole, at);
        turns(&peer, 2);
        ck_assert_int_eq(trace_len > 0, at >= len);
        if (at < len + 5)
            say_bytes(&peer, whole + at, len + 5 - at);
        until(&peer, peer.got == 5);
        ck_assert_str_eq(address_format(&told.seen.told, address), "192.0.2.7:4711");
        ck_assert_uint_eq(address_port(&told.seen.peer), 4711); /* that of the socket */
        shutdown(peer.fd, SHUT_WR);
        until(&peer, peer.ended);
        ck_assert_str_eq(peer.first, "hello");
        leave(&peer);
        until(NULL, pool.count == 0);
    }
}

START_TEST(test_header_split)
{
    setup_proxy();
    split_header(line, sizeof line - 1);
    split_header(binary, sizeof binary - 1);
    ck_assert_int_eq(proxied.times, told.opened);
    ck_assert_uint_eq(count_reason("fin"), (unsigned)ended);
    ck_assert_uint_eq(counter_read(&metrics.silent), 0);
    teardown();
}
END_TEST

START_TEST(test_header_byte_by_byte)
{
    struct peer peer;
    setup_proxy();
    join(&peer);
    for (size_t i = 0; i < sizeof binary - 1; i++) {
        ck_assert_int_eq(told.opened, 0);
        say_bytes(&peer, binary + i, 1);
        turns(&peer, 2);
    }
    ck_assert_str_eq(trace, "open ");
    leave(&peer);
    teardown();
}
END_TEST

/* LOCAL tells nobody. */
START_TEST(test_header_local)
{
    struct peer peer;
    setup_proxy();
    join(&peer);
    say_bytes(&peer, local, sizeof local - 1);
    say(&peer, "hello");
    until(&peer, peer.got == 5);
    ck_assert_int_eq(proxied.times, 0);
    ck_assert_uint_eq(told.seen.told.len, 0);
    leave(&peer);
    teardown();
}
END_TEST

/* Ends before the handler is opened: it is not closed either, and the ticket is given back once. */
START_TEST(test_header_failures)
{
    static const struct {
        const char *said;
        bool refuses;
        const char *reason;
        int silent;
    } cases[] = {
        { "", false, "fin", 1 },
        { "PROXY ", false, "cut", 0 },
        { "hello", false, "proxy", 0 },
        { "PROXY TCP4 192.0.2.7 198.51.100.1 4711 80\r\nhello", true, "refused", 0 },
    };
    setup_proxy();
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct peer peer;
        uint64_t silent = counter_read(&metrics.silent);
        proxied.refuses = cases[i].refuses;
        join(&peer);
        say(&peer, cases[i].said);
        shutdown(peer.fd, SHUT_WR);
        until(&peer, ended == (int)i + 1);
        ck_assert_uint_eq(count_reason(cases[i].reason), 1);
        ck_assert_uint_eq(counter_read(&metrics.silent) - silent, (unsigned)cases[i].silent);
        leave(&peer);
    }
    ck_assert_str_eq(trace, "");
    teardown();
}
END_TEST

/* A header and a close is a health check: in order, and silent. */
START_TEST(test_header_and_close)
{
    struct peer peer;
    setup_proxy();
    join(&peer);
    say(&peer, line);
    shutdown(peer.fd, SHUT_WR);
    until(&peer, ended == 1);
    ck_assert_str_eq(trace, "open eof close ");
    ck_assert_uint_eq(count_reason("fin"), 1);
    ck_assert_uint_eq(counter_read(&metrics.silent), 1);
    leave(&peer);
    teardown();
}
END_TEST

/* The time is absolute: bytes that come meanwhile do not prolong it; nor does it go on behind the header. */
START_TEST(test_header_deadline)
{
    struct peer peer;
    setup_proxy();
    join(&peer);
    for (int i = 0; i < 4; i++) {
        say_bytes(&peer, line + i, 1);
        turns(&peer, 2);
        ck_assert_int_eq(ended, 0);
        pass(&peer, 25);
    }
    ck_assert_int_eq(ended, 1);
    ck_assert_uint_eq(count_reason("deadline"), 1);
    leave(&peer);
    join(&peer);
    pass(&peer, 90);
    say(&peer, line);
    turns(&peer, 2);
    pass(&peer, 59 * SECOND);
    ck_assert_int_eq(ended, 1);
    ck_assert_str_eq(trace, "open ");
    leave(&peer);
    teardown();
}
END_TEST

/* A stop: who has said nothing is closed, who is in the middle of the header goes on, and is then told. */
START_TEST(test_drain_in_the_header)
{
    static struct peer peers[3];
    setup_proxy();
    for (int i = 0; i < 3; i++)
        join(&peers[i]);
    say_bytes(&peers[1], line, 10);
    turns(NULL, 3);
    say(&peers[2], line); /* has come, and nobody has looked yet */
    say(&peers[2], "hello");
    conn_pool_drain(&pool);
    until(&peers[0], peers[0].ended);
    ck_assert_int_eq(ended, 1);
    until(&peers[2], peers[2].got == 5);
    ck_assert_str_eq(trace, "open input(hello) drain ");
    trace_len = 0;
    say(&peers[1], line + 10);
    say(&peers[1], "hello");
    until(&peers[1], peers[1].got == 5);
    ck_assert_str_eq(trace, "open input(hello) drain ");
    ck_assert(told.seen.draining);
    for (int i = 0; i < 3; i++)
        leave(&peers[i]);
    teardown();
}
END_TEST

/* --- TLS, from the first byte to the end -------------------------------------------------------------------------- */

static struct identity id;

/* A peer that speaks TLS. What it has said in it, and heard. */
struct client {
    struct peer peer;
    SSL *ssl;
    BIO *in, *out;
    size_t said, heard;
    bool closed; /* by close_notify */
    char first[1 << 16];
};

static void setup_tls(const struct handler *handler)
{
    struct tls_settings files = { .certificates = "", .keys = "", .client_ca = "", .ciphersuites = "" };
    struct tls *tls;
    char err[512] = "";
    setup(handler);
    id = identity_make("DNS:a.example");
    files.ciphers = "ECDHE+AESGCM";
    files.certificates = id.certificate_file;
    files.keys = id.key_file;
    ck_assert_msg(tls_load(&files, "test", NULL, &tls, NULL, NULL, err, sizeof err) == 0, "%s", err);
    settings.tls = tls;
    settings.handshake_timeout = 100;
}

static void teardown_tls(void)
{
    teardown();
    tls_free((struct tls *)settings.tls);
    identity_free(&id);
}

static void join_tls(struct client *c, int version)
{
    SSL_CTX *context = SSL_CTX_new(TLS_client_method());
    SSL_CTX_set_max_proto_version(context, version);
    memset(c, 0, sizeof *c);
    join(&c->peer);
    c->ssl = SSL_new(context);
    SSL_CTX_free(context);
    c->in = BIO_new(BIO_s_mem());
    c->out = BIO_new(BIO_s_mem());
    BIO_set_mem_eof_return(c->in, -1);
    SSL_set_bio(c->ssl, c->in, c->out);
    SSL_set_connect_state(c->ssl);
}

static void leave_tls(struct client *c)
{
    leave(&c->peer);
    SSL_free(c->ssl);
}

/* Sends at most so many bytes of what is encrypted. */
static void push(struct client *c, size_t most)
{
    char *data;
    size_t len = (size_t)BIO_get_mem_data(c->out, &data), n = len < most ? len : most;
    static char part[1 << 20];
    if (n > sizeof part)
        n = sizeof part;
    if (n > 0)
        memcpy(part, data, n);
    n = n > 0 ? say_some(&c->peer, part, n) : 0;
    ck_assert(n == 0 || BIO_read(c->out, part, (int)n) == (int)n);
}

/* Receives what there is, at most so many bytes, and takes it apart; each byte must be the one that the pattern has. */
static void pull(struct client *c, size_t most, bool patterned)
{
    static char wire[1 << 16], buf[1 << 16];
    ssize_t got = recv(c->peer.fd, wire, most < sizeof wire ? most : sizeof wire, 0);
    size_t wrong = 0;
    int n;
    c->peer.ended = got == 0;
    c->peer.reset = got < 0 && errno != EAGAIN;
    if (got > 0)
        BIO_write(c->in, wire, (int)got);
    ERR_clear_error();
    while (SSL_is_init_finished(c->ssl) && (n = SSL_read(c->ssl, buf, sizeof buf)) > 0)
        for (int i = 0; i < n; i++, c->heard++) {
            if (c->heard < sizeof c->first - 1)
                c->first[c->heard] = buf[i];
            wrong += patterned && buf[i] != pattern(c->heard);
        }
    ck_assert_uint_eq(wrong, 0);
    c->closed = (SSL_get_shutdown(c->ssl) & SSL_RECEIVED_SHUTDOWN) != 0;
}

/* One turn in which the client sends at most so many bytes, and receives. */
static void exchange(struct client *c, size_t most)
{
    push(c, most);
    turn(NULL);
    if (!c->peer.ended && !c->peer.reset)
        pull(c, 65536, false);
}

#define until_tls(client, condition)                                \
    do {                                                            \
        for (int turn_ = 0; turn_ < TURNS && !(condition); turn_++) \
            exchange(client, 65536);                                \
        ck_assert(condition);                                       \
    } while (0)

static void shake_tls(struct client *c, size_t most)
{
    for (int i = 0; i < TURNS && (!SSL_is_init_finished(c->ssl) || BIO_pending(c->out) > 0); i++) {
        SSL_do_handshake(c->ssl);
        exchange(c, most);
    }
    ck_assert(SSL_is_init_finished(c->ssl));
    for (int i = 0; i < 3; i++)
        exchange(c, most);
}

static void say_tls(struct client *c, const char *data, size_t len)
{
    ck_assert_int_eq(SSL_write(c->ssl, data, (int)len), (int)len);
    c->said += len;
}

/* Hooks as without TLS; the end of the stream is answered with the end of the stream. */
START_TEST(test_tls_order)
{
    setup_tls(&obedient);
    for (int version = TLS1_2_VERSION; version <= TLS1_3_VERSION; version++)
        for (size_t size = 1; size < 100000; size *= 300) {
            static struct client c;
            trace_len = 0;
            join_tls(&c, version);
            ck_assert_uint_eq(trace_len, 0);
            shake_tls(&c, size);
            ck_assert_str_eq(trace, "open ");
            say_tls(&c, "one", 3);
            until_tls(&c, c.heard == 3);
            say_tls(&c, "two", 3);
            SSL_shutdown(c.ssl);
            until_tls(&c, c.peer.ended);
            ck_assert(c.closed);
            ck_assert_str_eq(c.first, "onetwo");
            leave_tls(&c);
            until(NULL, pool.count == 0);
            ck_assert_str_eq(trace, "open input(one) input(two) eof close ");
        }
    ck_assert_uint_eq(count_reason("fin"), (unsigned)ended);
    ck_assert_int_eq(ended, 6);
    teardown_tls();
}
END_TEST

/* A peer that ends TCP alone has cut the stream: the handler must not take it for the end. */
START_TEST(test_tls_cut)
{
    static struct client c;
    setup_tls(&obedient);
    join_tls(&c, TLS1_3_VERSION);
    shake_tls(&c, 65536);
    say_tls(&c, "one", 3);
    until_tls(&c, c.heard == 3);
    shutdown(c.peer.fd, SHUT_WR);
    until(NULL, ended == 1);
    ck_assert_str_eq(trace, "open input(one) close ");
    ck_assert_uint_eq(count_reason("cut"), 1);
    pull(&c, 65536, false);
    ck_assert(!c.closed);
    leave_tls(&c);
    teardown_tls();
}
END_TEST

/* What ends before the handler is opened: it is not closed either. */
START_TEST(test_tls_failures)
{
    static struct client c;
    setup_tls(&obedient);

    join_tls(&c, TLS1_3_VERSION); /* nothing, and the end */
    shutdown(c.peer.fd, SHUT_WR);
    until(NULL, ended == 1);
    ck_assert_uint_eq(count_reason("fin"), 1);
    ck_assert_uint_eq(counter_read(&metrics.silent), 1);
    leave_tls(&c);

    join_tls(&c, TLS1_3_VERSION); /* half a handshake, and the end */
    SSL_do_handshake(c.ssl);
    push(&c, 100);
    turns(NULL, 3);
    shutdown(c.peer.fd, SHUT_WR);
    until(NULL, ended == 2);
    ck_assert_uint_eq(count_reason("cut"), 1);
    leave_tls(&c);

    join_tls(&c, TLS1_3_VERSION); /* something else */
    say(&c.peer, "GET / HTTP/1.1\r\n\r\n");
    until(&c.peer, c.peer.ended);
    ck_assert_uint_eq(c.peer.got, 0);
    leave_tls(&c);
    until(NULL, ended == 3);
    ck_assert_uint_eq(count_reason("tls"), 1);

    for (int i = 0; i < 2; i++) { /* no cipher in common: an alert comes, which the peer reads or not */
        join_tls(&c, TLS1_2_VERSION);
        ck_assert_int_eq(SSL_set_cipher_list(c.ssl, "AES128-SHA256"), 1);
        SSL_do_handshake(c.ssl);
        push(&c, 65536);
        turns(NULL, 3);
        if (i == 0) {
            until(&c.peer, c.peer.ended);
            ck_assert_uint_eq(c.peer.got, 7);
            ck_assert_int_eq(c.peer.first[0], 21);
        }
        leave_tls(&c);
        until(NULL, ended == 4 + i);
        ck_assert_uint_eq(count_reason("tls"), 2 + (unsigned)i);
    }
    ck_assert_str_eq(trace, "");
    teardown_tls();
}
END_TEST

/* Absolute for the handshake, and then over: what the handler asks for holds. */
START_TEST(test_tls_deadline)
{
    static struct client c;
    setup_tls(&obedient);
    join_tls(&c, TLS1_3_VERSION);
    SSL_do_handshake(c.ssl);
    for (int i = 0; i < 4; i++) {
        ck_assert_int_eq(ended, 0);
        push(&c, 1);
        turns(NULL, 2);
        pass(NULL, 25);
    }
    ck_assert_int_eq(ended, 1);
    ck_assert_uint_eq(count_reason("deadline"), 1);
    leave_tls(&c);
    orders.open = (struct order){ .limit = true, .milliseconds = 150 };
    orders.expire.next = HANDLER_FINISH;
    join_tls(&c, TLS1_3_VERSION);
    pass(NULL, 50);
    shake_tls(&c, 65536);
    pass(NULL, 149);
    ck_assert_str_eq(trace, "open ");
    pass(NULL, 2);
    ck_assert_str_eq(trace, "open expire ");
    until_tls(&c, c.peer.ended);
    ck_assert(c.closed);
    leave_tls(&c);
    teardown_tls();
}
END_TEST

/* Encrypts the pattern on, a piece a call, and sends as much as goes. */
static void say_pattern_tls(struct client *c, size_t total)
{
    while (BIO_pending(c->out) == 0 && c->said < total) {
        say_tls(c, stream + c->said, total - c->said < 30000 ? total - c->said : 30000);
        push(c, 1 << 20);
    }
    push(c, 1 << 20);
}

/* A peer that does not read is paused, whatever the size of its records; then it reads, and not a byte is lost. */
START_TEST(test_tls_pause)
{
    setup_tls(&obedient);
    fill_stream();
    for (size_t record = 512; record <= 16384; record *= 32) {
        static struct client c;
        join_tls(&c, TLS1_3_VERSION);
        SSL_set_max_send_fragment(c.ssl, (long)record);
        shake_tls(&c, 65536);
        told.taken = 0;
        for (int i = 0; i < 500; i++) {
            say_pattern_tls(&c, sizeof stream);
            turn(NULL);
        }
        size_t taken = told.taken;
        ck_assert_uint_lt(taken, CONN_BOUND);
        for (int i = 0; i < TURNS && c.heard < sizeof stream; i++) {
            say_pattern_tls(&c, sizeof stream);
            turn(NULL);
            pull(&c, 30011, true);
            ck_assert_uint_lt(told.taken - c.heard, CONN_BOUND);
        }
        ck_assert_uint_eq(c.heard, sizeof stream);
        leave_tls(&c);
        until(NULL, pool.count == 0);
    }
    teardown_tls();
}
END_TEST

/* The end comes while output waits: everything, then the handler knows, then our end. */
START_TEST(test_tls_end_while_paused)
{
    static struct client c;
    setup_tls(&obedient);
    fill_stream();
    join_tls(&c, TLS1_3_VERSION);
    shake_tls(&c, 65536);
    for (size_t size = 1000; c.said < 150000; c.said += size) {
        ck_assert_int_eq(SSL_write(c.ssl, stream + c.said, (int)size), (int)size);
    }
    SSL_shutdown(c.ssl);
    for (int i = 0; i < 1000; i++) {
        push(&c, 65536);
        turn(NULL);
    }
    ck_assert_str_eq(trace, "open ");
    for (int i = 0; i < TURNS && !c.peer.ended; i++) {
        push(&c, 65536);
        turn(NULL);
        pull(&c, 4096, true);
    }
    ck_assert_uint_eq(c.heard, c.said);
    ck_assert(c.closed);
    ck_assert_str_eq(trace, "open eof close ");
    ck_assert_int_eq(ended, 1);
    leave_tls(&c);
    teardown_tls();
}
END_TEST

/* Who asks for new keys again and again is given up, and until then held as little for as anybody (RFC 8446 section 4.6.3). */
START_TEST(test_tls_key_updates)
{
    static struct client c;
    setup_tls(&obedient);
    join_tls(&c, TLS1_3_VERSION);
    shake_tls(&c, 65536);
    for (int i = 0; i < 2000; i++) {
        say_tls(&c, "x", 1);
        ck_assert_int_eq(SSL_key_update(c.ssl, SSL_KEY_UPDATE_REQUESTED), 1);
        SSL_do_handshake(c.ssl);
        push(&c, 65536);
        if (i % 50 == 0)
            turn(NULL);
    }
    leave_tls(&c);
    until(NULL, ended == 1);
    ck_assert_uint_eq(counter_read(&metrics.closed[CONN_TLS]), 1);
    ck_assert_uint_lt(counter_read(&metrics.bytes_out), CONN_BOUND);
    teardown_tls();
}
END_TEST

/* A header, the handshake and the first bytes behind it, whatever comes together. */
START_TEST(test_tls_behind_a_header)
{
    for (size_t size = 1; size < 10000; size *= 97) {
        static struct client c;
        if (size == 1)
            setup_tls(&obedient);
        settings.proxy = true;
        settings.told = on_told;
        trace_len = 0;
        join_tls(&c, TLS1_3_VERSION);
        BIO_write(c.out, binary, sizeof binary - 1);
        shake_tls(&c, size);
        say_tls(&c, "hello", 5);
        until_tls(&c, c.heard == 5);
        ck_assert_str_eq(trace, "open input(hello) ");
        ck_assert_uint_eq(address_port(&told.seen.told), 4711);
        leave_tls(&c);
        until(NULL, pool.count == 0);
    }
    teardown_tls();
}
END_TEST

/* The handler's last word arrives, and then the end. */
START_TEST(test_tls_finish)
{
    static struct client c;
    setup_tls(&obedient);
    orders.style = INPUT_ORDER;
    orders.input = (struct order){ HANDLER_FINISH, 300000, 'x', false, 0 };
    join_tls(&c, TLS1_2_VERSION);
    shake_tls(&c, 65536);
    say_tls(&c, "hello", 5);
    until_tls(&c, c.peer.ended);
    ck_assert_uint_eq(c.heard, 300000);
    ck_assert(c.closed);
    leave_tls(&c);
    until(NULL, ended == 1);
    ck_assert_uint_eq(count_reason("finished"), 1);
    teardown_tls();
}
END_TEST

/* A stop: in the handshake, and when it is done. */
START_TEST(test_tls_drain)
{
    static struct client c, quiet, idle;
    setup_tls(&obedient);
    join_tls(&quiet, TLS1_3_VERSION);
    join_tls(&idle, TLS1_3_VERSION);
    shake_tls(&idle, 65536);
    join_tls(&c, TLS1_3_VERSION);
    SSL_do_handshake(c.ssl);
    push(&c, 65536);
    turns(NULL, 3);
    trace_len = 0;
    orders.drain.next = HANDLER_FINISH;
    conn_pool_drain(&pool);
    ck_assert_str_eq(trace, "drain close ");
    until(&quiet.peer, quiet.peer.ended);
    until_tls(&idle, idle.peer.ended);
    ck_assert(idle.closed);
    shake_tls(&c, 65536);
    until_tls(&c, c.peer.ended);
    ck_assert(c.closed);
    leave_tls(&quiet);
    leave_tls(&idle);
    leave_tls(&c);
    until(NULL, ended == 3);
    teardown_tls();
}
END_TEST

UNIT_MAIN("conn", test_order_of_hooks, test_what_a_hook_sees, test_defaults, test_expire_default,
          test_finish_sends_everything, test_finish_while_the_peer_sends, test_finish_at_once, test_abort,
          test_abort_at_once, test_reset, test_reset_while_paused, test_reset_while_flushing,
          test_unread_is_shown_again, test_connections_do_not_mix, test_unread_limit, test_unread_up_to_the_limit,
          test_enough_output, test_pause, test_half_close_while_paused, test_relay, test_relay_without_pipe,
          test_relay_reset, test_unread_while_paused, test_pause_from_the_beginning, test_eof_once, test_timeout,
          test_timeout_is_absolute, test_timeout_set_anew, test_timeout_again, test_no_timeout_behind_finish, test_idle,
          test_not_idle, test_slow_reader, test_quiet_linger, test_quiet_linger_of_slow_reader, test_linger_for_nobody,
          test_loud_linger, test_drain, test_announced, test_drain_finishes, test_drain_aborts,
          test_drain_behind_the_end, test_abort_of_a_pool, test_many_come_and_go, test_reasons,
          test_bytes_that_were_sent, test_much_unread_of_tls, test_header_split, test_header_byte_by_byte,
          test_header_local, test_header_failures, test_header_and_close, test_header_deadline,
          test_drain_in_the_header, test_tls_order, test_tls_cut, test_tls_failures, test_tls_deadline, test_tls_pause,
          test_tls_end_while_paused, test_tls_key_updates, test_tls_behind_a_header, test_tls_finish, test_tls_drain)
