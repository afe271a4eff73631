#include "probe/command.h"

#include "option.h"
#include "probe/answer.h"

#include <ctype.h>
#include <event2/util.h>
#include <getopt.h>
#include <stdlib.h>
#include <string.h>

#define MICROSECOND INT64_C(1000) /* ns */
#define MILLISECOND INT64_C(1000000)
#define SECOND      INT64_C(1000000000)
#define HOUR        (3600 * SECOND)

/* Of times: the unit that goes without saying. */
enum kind { FLAG, JSON, TEXT, NUMBER, SIZE, WORD, SECONDS, MILLISECONDS };

enum modes { ONCE = 1 << REPORT_ONCE, PING = 1 << REPORT_PING, LOAD = 1 << REPORT_LOAD, ANY = ONCE | PING | LOAD };
enum needs { NOTHING, AN_ECHO, AN_HTTP, A_TLS, A_UNIX };

struct row {
    int letter; /* or a number beyond letters, for an option that has only a name */
    enum kind kind;
    const char *name, *argument;
    enum modes modes;
    enum needs needs;
    size_t offset;
    int64_t min, max; /* of times in ns */
    const char *help;
};

enum { ONLY_NAME = 1000 };

#define FIELD(field) offsetof(struct command, field)

/* clang-format off */
static const struct row rows[] = {
    { 'm', TEXT, "message", "TEXT", ONCE | PING, AN_ECHO, FIELD(message), 0, 1 << 20,
      "send TEXT; else a nonce with a sequence number" },
    { 's', SIZE, "size", "SIZE", ANY, AN_ECHO, FIELD(size), 1, 1 << 24,
      "send SIZE bytes (512, 16k, 1M); a load sends 64 by itself" },
    { ONLY_NAME, FLAG, "half-close", NULL, ONCE | PING, AN_ECHO, FIELD(half_close), 0, 0,
      "close the sending side behind it, and wait for the end" },
    { 'i', FLAG, "include", NULL, ONCE, AN_HTTP, FIELD(include), 0, 0, "print the head of the HTTP answer too" },
    { 'q', FLAG, "quiet", NULL, ANY, NOTHING, FIELD(quiet), 0, 0, "print no answers, no line a probe, no progress" },
    { 't', SECONDS, "timeout", "TIME", ANY, NOTHING, FIELD(timeout), MILLISECOND, HOUR,
      "time for all of a probe or request [5s]" },
    { ONLY_NAME + 1, SECONDS, "connect-timeout", "TIME", ANY, NOTHING, FIELD(connect_timeout), MILLISECOND, HOUR,
      "time of this for resolve, connect and TLS" },
    { 'c', NUMBER, "count", "COUNT", PING, NOTHING, FIELD(count), 1, 1000000000,
      "ping: COUNT probes, one after the other" },
    { 'I', SECONDS, "interval", "TIME", PING, NOTHING, FIELD(interval), MILLISECOND, 24 * HOUR,
      "ping: begin one every TIME [1s]" },
    { 'n', NUMBER, "connections", "COUNT", LOAD, NOTHING, FIELD(connections), 1, 10000, "load: COUNT connections [1]" },
    { 'd', SECONDS, "duration", "TIME", LOAD, NOTHING, FIELD(duration), 10 * MILLISECOND, 24 * HOUR,
      "load: for TIME [10s]" },
    { 'r', NUMBER, "rate", "RATE", LOAD, NOTHING, FIELD(rate), 1, 10000000,
      "load: RATE requests a second; else as many as can be" },
    { 'P', NUMBER, "pipeline", "COUNT", LOAD, NOTHING, FIELD(pipeline), 1, 1024,
      "load: COUNT requests at once on a connection [1]" },
    { ONLY_NAME + 2, TEXT, "hdrplot", "FILE", LOAD, NOTHING, FIELD(plot), 1, 4096,
      "load: write the percentiles for HdrHistogram's plotter" },
    { 'w', MILLISECONDS, "warning", "MS", ANY, NOTHING, FIELD(warning), MICROSECOND, HOUR,
      "warn when it takes longer (of many the 99th percentile)" },
    { 'C', MILLISECONDS, "critical", "MS", ANY, NOTHING, FIELD(critical), MICROSECOND, HOUR,
      "critical when it takes longer" },
    { ONLY_NAME + 3, TEXT, "expect", "STRING", ANY, NOTHING, FIELD(expect), 1, 65536, "the answer must hold STRING" },
    { ONLY_NAME + 4, TEXT, "expect-status", "LIST", ANY, AN_HTTP, FIELD(expect_status), 1, 1024,
      "the status must be one of LIST [2xx,3xx]" },
    { ONLY_NAME + 5, SIZE, "max-size", "SIZE", ANY, AN_HTTP, FIELD(max_size), 1, 1 << 30,
      "the body may have SIZE bytes at most [1M]" },
    { 'f', WORD, "format", "FORMAT", ANY, NOTHING, FIELD(format), 0, 0, "text, json, nagios or prometheus [text]" },
    { ONLY_NAME + 6, JSON, "json", NULL, ANY, NOTHING, FIELD(format), 0, 0, "the same as --format=json" },
    { ONLY_NAME + 7, FLAG, "insecure", NULL, ANY, A_TLS, FIELD(insecure), 0, 0, "trust any certificate" },
    { ONLY_NAME + 8, TEXT, "ca", "FILE", ANY, A_TLS, FIELD(ca), 1, 4096,
      "trust FILE's certificates, not the system's" },
    { ONLY_NAME + 9, TEXT, "cert", "FILE", ANY, A_TLS, FIELD(cert), 1, 4096, "show FILE's certificate to the server" },
    { ONLY_NAME + 10, TEXT, "key", "FILE", ANY, A_TLS, FIELD(key), 1, 4096, "its key, where --cert does not hold it" },
    { ONLY_NAME + 11, TEXT, "sni", "NAME", ANY, A_TLS, FIELD(sni), 1, 253,
      "ask for, and verify, NAME instead of the host" },
    { ONLY_NAME + 12, FLAG, "proxy-v1", NULL, ANY, NOTHING, FIELD(proxy_v1), 0, 0, "send a PROXY header, version 1" },
    { ONLY_NAME + 13, FLAG, "proxy-v2", NULL, ANY, NOTHING, FIELD(proxy_v2), 0, 0, "send a PROXY header, version 2" },
    { ONLY_NAME + 14, TEXT, "proxy-source", "ADDRESS", ANY, NOTHING, FIELD(proxy_source), 1, 80,
      "with ADDRESS[:PORT] as its source" },
    { 'V', FLAG, "version", NULL, ANY, NOTHING, FIELD(version), 0, 0, "print the version" },
    { 'h', FLAG, "help", NULL, ANY, NOTHING, FIELD(help), 0, 0, "print this" },
};
/* clang-format on */

enum { ROWS = sizeof rows / sizeof rows[0] };

/* --- One value */

/* A decimal number with a unit (ms, s, m, h) or without; to nanoseconds. */
static bool time_parse(const char *text, int64_t unit, int64_t *ns)
{
    static const struct {
        const char *name;
        int64_t factor;
    } units[] = { { "ms", MILLISECOND }, { "s", SECOND }, { "m", 60 * SECOND }, { "h", HOUR } };
    size_t digits = strspn(text, "0123456789."), i = 0;
    char *end;
    if (!isdigit((unsigned char)text[0]))
        return false;
    double value = strtod(text, &end);
    if (end != text + digits)
        return false;
    while (i < sizeof units / sizeof units[0] && strcmp(units[i].name, end) != 0)
        i++;
    if (i < sizeof units / sizeof units[0])
        unit = units[i].factor;
    else if (*end != '\0')
        return false;
    value *= (double)unit;
    *ns = value < 1e18 ? (int64_t)(value + 0.5) : INT64_MAX;
    return true;
}

static int row_parse_time(const struct row *row, const char *text, int64_t *field, char *err, size_t errlen)
{
    bool sound = time_parse(text, row->kind == SECONDS ? SECOND : MILLISECOND, field);
    if (!sound)
        snprintf(err, errlen, "\"%.100s\" is not a time such as 250ms, 1.5s, 10m or 1h", text);
    else if (*field < row->min || *field > row->max)
        snprintf(err, errlen, "must be from %gms to %gh", (double)row->min / (double)MILLISECOND,
                 (double)row->max / (double)HOUR);
    return sound && *field >= row->min && *field <= row->max ? 0 : -1;
}

static int row_parse(const struct row *row, const char *text, struct command *c, char *err, size_t errlen)
{
    static const enum option_type types[] = {
        [TEXT] = OPTION_TEXT, [NUMBER] = OPTION_NUMBER, [SIZE] = OPTION_SIZE, [WORD] = OPTION_WORD
    };
    void *field = (char *)c + row->offset;
    if (row->kind == FLAG) {
        *(bool *)field = true;
        return 0;
    }
    if (row->kind == JSON) {
        c->format = REPORT_JSON;
        return 0;
    }
    if (row->kind == SECONDS || row->kind == MILLISECONDS)
        return row_parse_time(row, text, field, err, errlen);
    struct option_row option = { .name = row->name, .type = types[row->kind], .offset = row->offset };
    option.min = (uint64_t)row->min;
    option.max = (uint64_t)row->max;
    option.words = report_format_words;
    return option_parse(&option, text, c, err, errlen);
}

/* --- All options */

/* The names and letters for getopt_long(). */
static void options_build(struct option *names, char *letters)
{
    *letters++ = ':';
    for (size_t i = 0; i < ROWS; i++) {
        names[i] = (struct option){ rows[i].name, rows[i].argument != NULL, NULL, rows[i].letter };
        if (rows[i].letter >= ONLY_NAME)
            continue;
        *letters++ = (char)rows[i].letter;
        if (rows[i].argument != NULL)
            *letters++ = ':';
    }
    *letters = '\0';
}

static const struct row *row_find(int letter)
{
    for (size_t i = 0; i < ROWS; i++)
        if (rows[i].letter == letter)
            return &rows[i];
    return NULL;
}

/* Reads one option, and sets *given's bit of its row. */
static int letter_parse(struct command *c, int letter, char **argv, uint64_t *given, char *err, size_t errlen)
{
    const struct row *row = row_find(letter);
    char why[300];
    if (row == NULL && optopt != 0 && optopt < ONLY_NAME && letter == '?' && strncmp(argv[optind - 1], "--", 2) != 0)
        snprintf(err, errlen, "unknown option -%c", isprint(optopt) ? optopt : '?');
    else if (row == NULL)
        snprintf(err, errlen, "%s: %.100s", letter == ':' ? "an argument is missing" : "unknown option",
                 argv[optind - 1]);
    else if (row_parse(row, optarg, c, why, sizeof why) < 0)
        snprintf(err, errlen, "--%s: %s", row->name, why);
    else {
        *given |= UINT64_C(1) << (row - rows);
        return 0;
    }
    return -1;
}

/* Reads the options, those behind a wrong one too: the format in which it is told may be among them. */
static int options_parse(struct command *c, int argc, char **argv, uint64_t *given, char *err, size_t errlen)
{
    struct option names[ROWS + 1] = { 0 };
    char letters[2 * ROWS + 2], later[300];
    int letter, result = 0;
    options_build(names, letters);
    opterr = 0;
    while ((letter = getopt_long(argc, argv, letters, names, NULL)) != -1)
        if (result == 0)
            result = letter_parse(c, letter, argv, given, err, errlen);
        else
            letter_parse(c, letter, argv, given, later, sizeof later); /* the first one is told */
    return result;
}

/* --- What goes together */

static bool has_target(const struct command *c, enum needs needs)
{
    for (size_t i = 0; i < c->target_count; i++) {
        const struct target *t = &c->targets[i];
        if (needs == NOTHING || (needs == A_TLS && target_is_tls(t)) || (needs == AN_HTTP && target_is_http(t)) ||
            (needs == AN_ECHO && !target_is_http(t)) || (needs == A_UNIX && t->scheme == SCHEME_UNIX))
            return true;
    }
    return false;
}

/* The mode is that of the first option that is for one mode only, but for those of once. */
static void mode_choose(struct command *c, uint64_t given)
{
    for (size_t i = 0; i < ROWS && c->mode == REPORT_ONCE; i++)
        if ((given >> i & 1) != 0 && (rows[i].modes == PING || rows[i].modes == LOAD))
            c->mode = rows[i].modes == PING ? REPORT_PING : REPORT_LOAD;
}

static int options_check(const struct command *c, uint64_t given, char *err, size_t errlen)
{
    static const char *const modes[] = { "a single probe", "a ping", "a load" };
    static const char *const urls[] = { "", "a tcp, tls or unix", "an http or https", "a tls or https" };
    for (size_t i = 0; i < ROWS; i++) {
        if ((given >> i & 1) == 0)
            continue;
        if ((rows[i].modes & (1U << c->mode)) == 0)
            snprintf(err, errlen, "--%s is not for %s", rows[i].name, modes[c->mode]);
        else if (!has_target(c, rows[i].needs))
            snprintf(err, errlen, "--%s needs %s URL", rows[i].name, urls[rows[i].needs]);
        else
            continue;
        return -1;
    }
    return 0;
}

static const char *conflict(const struct command *c)
{
    if (c->message != NULL && c->size > 0)
        return "--message and --size exclude each other";
    if (c->message != NULL && c->message[0] == '\0' && !c->half_close)
        return "an empty --message needs --half-close: nothing else would end it";
    if (c->proxy_v1 && c->proxy_v2)
        return "--proxy-v1 and --proxy-v2 exclude each other";
    if (c->proxy_source != NULL && !c->proxy_v1 && !c->proxy_v2)
        return "--proxy-source needs --proxy-v1 or --proxy-v2";
    if (c->proxy_source != NULL && has_target(c, A_UNIX))
        return "--proxy-source is not for a unix URL: the header has no address to go with it";
    if (c->key != NULL && c->cert == NULL)
        return "--key needs --cert";
    if (c->insecure && c->ca != NULL)
        return "--insecure and --ca exclude each other";
    if (c->warning > 0 && c->critical > 0 && c->warning > c->critical)
        return "--warning is over --critical";
    if (c->expect_status != NULL && answer_status_check(c->expect_status) < 0)
        return "--expect-status is not a list such as 200,204,3xx";
    if (c->plot != NULL && c->target_count > 1)
        return "--hdrplot is for one URL";
    if (c->mode == REPORT_LOAD && c->expect != NULL && has_target(c, AN_ECHO))
        return "--expect is not for the load of an echo, which knows what must come back";
    return NULL;
}

/* A Prometheus metric must not come twice with the same labels. */
static bool is_repeated(const struct command *c)
{
    for (size_t i = 0; i < c->target_count; i++)
        for (size_t j = 0; j < i; j++)
            if (strcmp(c->targets[i].url, c->targets[j].url) == 0)
                return true;
    return false;
}

static int source_parse(struct command *c, char *err, size_t errlen)
{
    int len = sizeof c->source;
    if (c->proxy_source == NULL ||
        evutil_parse_sockaddr_port(c->proxy_source, (struct sockaddr *)&c->source, &len) == 0)
        return 0;
    snprintf(err, errlen, "--proxy-source: \"%.80s\" is not ADDRESS, ADDRESS:PORT or [V6]:PORT", c->proxy_source);
    return -1;
}

static int targets_parse(struct command *c, int count, char **urls, char *err, size_t errlen)
{
    char why[256];
    if (count == 0 || count > COMMAND_URLS) {
        snprintf(err, errlen, count == 0 ? "which URL?" : "more than 64 URLs");
        return -1;
    }
    c->targets = calloc((size_t)count, sizeof *c->targets);
    if (c->targets == NULL) {
        snprintf(err, errlen, "out of memory");
        return -1;
    }
    for (int i = 0; i < count; i++, c->target_count++)
        if (target_parse(urls[i], &c->targets[i], why, sizeof why) < 0) {
            snprintf(err, errlen, "\"%.200s\": %s", urls[i], why);
            return -1;
        }
    return 0;
}

static void defaults_fill(struct command *c)
{
    if (c->connect_timeout == 0 || c->connect_timeout > c->timeout)
        c->connect_timeout = c->timeout;
    if (c->mode == REPORT_LOAD && c->size == 0)
        c->size = 64;
}

int command_parse(struct command *c, int argc, char **argv, char *err, size_t errlen)
{
    uint64_t given = 0;
    *c = (struct command){ .timeout = 5 * SECOND,
                           .interval = SECOND,
                           .connections = 1,
                           .pipeline = 1,
                           .duration = 10 * SECOND,
                           .max_size = 1 << 20 };
    if (options_parse(c, argc, argv, &given, err, errlen) < 0)
        return -1;
    if (c->help || c->version)
        return 0;
    if (targets_parse(c, argc - optind, argv + optind, err, errlen) < 0)
        return -1;
    mode_choose(c, given);
    defaults_fill(c);
    if (options_check(c, given, err, errlen) < 0 || source_parse(c, err, errlen) < 0)
        return -1;
    const char *why = conflict(c);
    if (why == NULL && c->format == REPORT_PROMETHEUS && is_repeated(c))
        why = "with --format=prometheus each URL must be given once";
    if (why != NULL)
        snprintf(err, errlen, "%s", why);
    return why == NULL ? 0 : -1;
}

void command_free(struct command *c)
{
    free(c->targets);
    c->targets = NULL;
}

void command_usage(FILE *out)
{
    fputs("Usage: echoprobe [OPTION]... URL...\n"
          "Probes echo and HTTP servers, and verifies what they answer.\n"
          "\n"
          "URL: tcp://HOST[:PORT], tls://HOST:PORT, unix:PATH: an echo\n"
          "     http://HOST[:PORT][/PATH], https://HOST[:PORT][/PATH]\n"
          "\n",
          out);
    for (size_t i = 0; i < ROWS; i++) {
        char left[64];
        int n = rows[i].letter < ONLY_NAME ? snprintf(left, sizeof left, "-%c, ", rows[i].letter)
                                           : snprintf(left, sizeof left, "    ");
        snprintf(left + n, sizeof left - (size_t)n, "--%s%s%s", rows[i].name, rows[i].argument != NULL ? "=" : "",
                 rows[i].argument != NULL ? rows[i].argument : "");
        fprintf(out, "  %-26s %s\n", left, rows[i].help);
    }
    fputs("\n"
          "Exit status: 0 when all is well, 1 at a warning, 2 at a failure, 3 for a wrong\n"
          "command line, or output that cannot be written. See echoprobe(1).\n",
          out);
}
