/*
 * load: the client of the benchmark, on one thread. Every byte of every reply is compared with what it must be.
 *
 *     load [-t | -r] [-p VERSION] [-a ACTIVE] WORKLOAD HOST:PORT CONNECTIONS [AMOUNT]
 *
 *     echo:SIZE   send SIZE bytes, get them back, at the same time when they are many
 *     http[:N]    keep-alive GET /world, N requests to a write (1)
 *     close:SIZE  connect, send SIZE bytes, get them back, shutdown, read the end of file, close
 *     once        connect, GET /world with Connection: close, read the end of file, close
 *
 *     -t          over TLS;  -r  and each connection resumes the session that came last
 *     -p VERSION  each connection begins with a PROXY header, of version 1 or 2
 *     -a ACTIVE   only so many of the connections do anything
 *
 * AMOUNT is a time (0.5s), a time and a rate of requests a second, open loop (0.5s@1000), or requests on each
 * connection (10x; with http:N writes of N requests). One round of it prints one line of JSON. Without AMOUNT load prints
 * `ready` once its connections are open, then reads amounts from stdin, one a line, runs a round for each, and holds the
 * connections until stdin ends: rounds with a warm-up before, and idle connections, are made of that.
 *
 * A wrong byte, a short reply, a byte too much or a broken connection is a message and exit status 1, and so is a
 * server that stands still: figures from a failing server are never printed.
 */
#include "load.h"

#include "client.h"
#include "secure.h"

#include <arpa/inet.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static struct client_settings settings;

void fail(const char *format, ...)
{
    va_list args;

    fputs("load: ", stderr);
    va_start(args, format);
    vfprintf(stderr, format, args);
    va_end(args);
    fputc('\n', stderr);
    exit(1);
}

void fail_errno(const char *what)
{
    fputs("load: ", stderr);
    perror(what);
    exit(1);
}

void *allocate(size_t size)
{
    void *p = calloc(1, size);

    if (p == NULL)
        fail_errno("calloc");
    return p;
}

unsigned long parse_number(const char *text, unsigned long max)
{
    char *end;
    unsigned long value = strtoul(text, &end, 10);

    if (end == text || *end != '\0' || value == 0 || value > max)
        fail("bad number: %s", text);
    return value;
}

static void on_alarm(int number)
{
    static const char message[] = "load: the server stands still\n";

    (void)number;
    (void)!write(STDERR_FILENO, message, sizeof message - 1);
    _exit(1);
}

static struct round parse_amount(const char *amount)
{
    struct round round = { 0 };
    char *end;
    double value = strtod(amount, &end);
    char unit = *end++;

    if (!(value > 0 && value < 1e6) || (unit != 's' && unit != 'x'))
        fail("bad amount: %s", amount);
    if (unit == 's')
        round.length = (int64_t)(value * 1e9);
    else
        round.exchanges = (uint64_t)value;
    if (unit == 's' && *end == '@' && !((round.rate = strtod(end + 1, &end)) >= 1))
        fail("bad rate: %s", amount);
    if (strspn(end, "\n") != strlen(end))
        fail("bad amount: %s", amount);
    return round;
}

static void print_latencies(const struct histogram *latencies)
{
    printf(", \"p50\": %llu, \"p99\": %llu, \"p99.9\": %llu, \"p99.99\": %llu, \"max\": %llu",
           (unsigned long long)histogram_quantile(latencies, 0.5),
           (unsigned long long)histogram_quantile(latencies, 0.99),
           (unsigned long long)histogram_quantile(latencies, 0.999),
           (unsigned long long)histogram_quantile(latencies, 0.9999), (unsigned long long)latencies->max);
}

static void measure(const char *amount)
{
    static struct round round;

    round = parse_amount(amount);
    alarm(PATIENCE + (unsigned)(round.length / 1000000000));
    clients_run(&round);
    printf("{\"requests\": %llu, \"bytes\": %llu, \"elapsed\": %.6f", (unsigned long long)round.done,
           (unsigned long long)round.bytes, (double)round.elapsed / 1e9);
    if (round.rate > 0) {
        printf(", \"missed\": %llu, \"stall\": %lld", (unsigned long long)round.missed, (long long)round.stall);
        print_latencies(&round.latencies);
    }
    puts("}");
    fflush(stdout);
    alarm(0);
}

static void parse_server(char *text)
{
    char *colon = strrchr(text, ':');

    if (colon == NULL)
        fail("bad HOST:PORT: %s", text);
    *colon = '\0';
    settings.server.sin_family = AF_INET;
    settings.server.sin_port = htons((uint16_t)parse_number(colon + 1, 65535));
    if (inet_pton(AF_INET, text, &settings.server.sin_addr) != 1)
        fail("bad IPv4 address: %s", text);
}

static void __attribute__((noreturn)) usage(void)
{
    fputs("usage: load [-t | -r] [-p VERSION] [-a ACTIVE] echo:SIZE|http[:N]|close:SIZE|once HOST:PORT CONNECTIONS "
          "[SECONDSs[@RATE]|COUNTx]\n",
          stderr);
    exit(2);
}

static void parse_options(int argc, char **argv)
{
    int option;

    while ((option = getopt(argc, argv, "trp:a:")) != -1) {
        switch (option) {
        case 't':
        case 'r':
            settings.tls = true;
            settings.resume = option == 'r';
            secure_client(settings.resume);
            break;
        case 'p':
            settings.proxy = (unsigned)parse_number(optarg, 2);
            break;
        case 'a':
            settings.active = (unsigned)parse_number(optarg, 1000000);
            break;
        default:
            usage();
        }
    }
}

int main(int argc, char **argv)
{
    char line[64];

    parse_options(argc, argv);
    argv += optind;
    argc -= optind;
    if (argc != 3 && argc != 4)
        usage();
    signal(SIGPIPE, SIG_IGN);
    signal(SIGALRM, on_alarm);
    alarm(PATIENCE);
    settings.workload = argv[0];
    parse_server(argv[1]);
    settings.count = (unsigned)parse_number(argv[2], 1000000);
    if (settings.active == 0 || settings.active > settings.count)
        settings.active = settings.count;
    clients_open(&settings);
    alarm(0);
    if (argc == 4) {
        measure(argv[3]);
        return 0;
    }
    puts("ready");
    fflush(stdout);
    while (fgets(line, sizeof line, stdin) != NULL)
        measure(line);
    return 0;
}
