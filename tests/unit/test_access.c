#include "access.h"

#include "unit.h"

#include <ctype.h>
#include <errno.h>
#include <event2/event.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#define STAMP "0000-00-00T00:00:00.000Z"
#define LINE  STAMP " access request "

static FILE *sink_file, *stderr_file; /* without a name, so that nothing is left behind */
static struct event_base *base;
static struct access *access_log;

/* A nameless file, and a path that opens it. */
static FILE *open_file(char path[32])
{
    FILE *file = tmpfile();
    ck_assert_ptr_nonnull(file);
    snprintf(path, 32, "/proc/self/fd/%d", fileno(file));
    return file;
}

/* An access log into where, or into sink_file; standard error goes to stderr_file. Returns the sink. */
static int begin(const char *where)
{
    char path[32];
    stderr_file = open_file(path);
    ck_assert_int_eq(dup2(fileno(stderr_file), STDERR_FILENO), STDERR_FILENO);
    log_setup(LEVEL_INFO, FORMAT_TEXT);
    sink_file = open_file(path);
    int sink = access_sink_open(where != NULL ? where : path);
    ck_assert_int_ge(sink, 0);
    base = event_base_new();
    ck_assert_ptr_nonnull(base);
    access_log = access_new(base);
    ck_assert_ptr_nonnull(access_log);
    access_turn(access_log, sink);
    return sink;
}

/* What the file holds, each time masked. */
static const char *content(FILE *file)
{
    static char text[1 << 20];
    ssize_t len = pread(fileno(file), text, sizeof text - 1, 0);
    ck_assert_int_ge(len, 0);
    text[len] = '\0';
    for (char *line = text, *end; (end = strchr(line, '\n')) != NULL; line = end + 1)
        for (size_t i = 0; STAMP[i] != '\0' && (isdigit((unsigned char)line[i]) || line[i] == STAMP[i]); i++)
            line[i] = STAMP[i];
    return text;
}

static void write_number(uint64_t number)
{
    access_write(access_log, (const struct log_field[]){ log_number("n", number), { 0 } });
}

static void write_text(const char *text)
{
    access_write(access_log, (const struct log_field[]){ log_text("text", text), { 0 } });
}

/* Lets the timer fire, for which there must be a reason. */
static void wait_a_moment(void)
{
    ck_assert_int_eq(event_base_loop(base, EVLOOP_ONCE), 0);
}

/* Writes what is left, as a worker does when it ends. */
static void end(void)
{
    access_free(access_log);
    event_base_free(base);
}

START_TEST(test_off_and_failures)
{
    ck_assert_int_eq(access_sink_open("off"), -1);
    ck_assert_int_eq(access_sink_open("/nonexistent/access.log"), -2);
    ck_assert_int_eq(errno, ENOENT);
    ck_assert_int_eq(access_sink_open("/"), -2);
    ck_assert_int_eq(errno, EISDIR);
    ck_assert_int_eq(access_sink_open(""), -2);
    ck_assert_int_eq(errno, ENOENT);
}
END_TEST

START_TEST(test_created)
{
    char folder[] = "/tmp/echod-test-XXXXXX", path[64];
    struct stat status;
    ck_assert_ptr_nonnull(mkdtemp(folder));
    snprintf(path, sizeof path, "%s/access.log", folder);
    mode_t mask = umask(0);
    int sink = access_sink_open(path), missing = stat(path, &status);
    umask(mask);
    unlink(path);
    rmdir(folder);
    ck_assert_int_ge(sink, 0);
    ck_assert_int_eq(missing, 0);
    ck_assert_uint_eq(status.st_mode & 07777, 0640);
    ck_assert_int_ne(fcntl(sink, F_GETFL) & O_APPEND, 0); /* so that several processes and logrotate get along */
    ck_assert_int_ne(fcntl(sink, F_GETFD) & FD_CLOEXEC, 0);
    close(sink);
}
END_TEST

START_TEST(test_appends)
{
    begin(NULL);
    ck_assert_int_eq(pwrite(fileno(sink_file), "old\n", 4, 0), 4);
    write_number(1);
    write_text("a \"b\"");
    end();
    ck_assert_str_eq(content(sink_file), "old\n" LINE "n=1\n" LINE "text=\"a \\\"b\\\"\"\n");
    ck_assert_str_eq(content(stderr_file), "");
}
END_TEST

START_TEST(test_json)
{
    begin(NULL);
    log_setup(LEVEL_INFO, FORMAT_JSON);
    write_number(1);
    end();
    const char *line = content(sink_file), *rest = strstr(line, "Z\"");
    ck_assert_ptr_nonnull(rest);
    ck_assert_str_eq(rest, "Z\",\"level\":\"access\",\"message\":\"request\",\"n\":1}\n");
}
END_TEST

START_TEST(test_stderr)
{
    int sink = begin("stderr");
    ck_assert_int_gt(sink, STDERR_FILENO);
    ck_assert_int_ne(fcntl(sink, F_GETFD) & FD_CLOEXEC, 0);
    write_number(1);
    end();
    ck_assert_str_eq(content(stderr_file), LINE "n=1\n");
}
END_TEST

START_TEST(test_stderr_closed)
{
    int saved = dup(STDERR_FILENO);
    close(STDERR_FILENO);
    int sink = access_sink_open("stderr"), error = errno;
    dup2(saved, STDERR_FILENO);
    close(saved);
    ck_assert_int_eq(sink, -2);
    ck_assert_int_eq(error, EBADF);
}
END_TEST

/* No level of the log keeps a request out of the access log. */
START_TEST(test_level)
{
    begin(NULL);
    log_setup(LEVEL_ERROR, FORMAT_TEXT);
    write_number(1);
    end();
    ck_assert_str_eq(content(sink_file), LINE "n=1\n");
}
END_TEST

START_TEST(test_a_moment_later)
{
    begin(NULL);
    write_number(1);
    write_number(2);
    ck_assert_str_eq(content(sink_file), "");
    wait_a_moment();
    ck_assert_str_eq(content(sink_file), LINE "n=1\n" LINE "n=2\n");
    write_number(3);
    ck_assert_str_eq(content(sink_file), LINE "n=1\n" LINE "n=2\n");
    wait_a_moment();
    ck_assert_str_eq(content(sink_file), LINE "n=1\n" LINE "n=2\n" LINE "n=3\n");
    end();
}
END_TEST

/* A busy worker writes before the buffer is full: whole lines, in order, none lost. */
START_TEST(test_batches)
{
    static char expected[1 << 20];
    size_t len = 0, before = 0, batches = 0;
    begin(NULL);
    for (unsigned i = 0; i < 5000; i++) {
        struct stat status;
        write_number(i);
        len += (size_t)snprintf(expected + len, sizeof expected - len, LINE "n=%u\n", i);
        ck_assert_int_eq(fstat(fileno(sink_file), &status), 0);
        if ((size_t)status.st_size == before)
            continue;
        before = (size_t)status.st_size;
        batches++;
        ck_assert_uint_eq(before, len);
    }
    ck_assert_uint_gt(batches, 2);
    ck_assert_uint_lt(batches, 50);
    end();
    ck_assert_str_eq(content(sink_file), expected);
}
END_TEST

/* Lines of all lengths, also of the greatest, never step over the buffer. */
START_TEST(test_long_lines)
{
    char text[3001];
    begin(NULL);
    int lines = 0;
    memset(text, ' ', sizeof text); /* in quotes */
    for (size_t i = 0; i < 300; i++) {
        text[i * 10] = '\0';
        write_text(text);
        text[i * 10] = ' ';
    }
    end();
    for (const char *line = content(sink_file), *next; (next = strchr(line, '\n')) != NULL; line = next + 1, lines++) {
        ck_assert_int_le(next + 1 - line, LOG_LINE);
        ck_assert_int_eq(strncmp(line, LINE, strlen(LINE)), 0);
        ck_assert_int_eq(next[-1], '"');
    }
    ck_assert_int_eq(lines, 300);
}
END_TEST

START_TEST(test_none)
{
    access_write(NULL, (const struct log_field[]){ { 0 } });
    access_free(NULL);
}
END_TEST

/* Lost lines are told once, not with each batch, and in the end how many; nobody claims that it works again. */
START_TEST(test_lost)
{
    begin("/dev/full");
    write_number(1);
    write_number(2);
    wait_a_moment();
    ck_assert_str_eq(content(stderr_file),
                     STAMP " warning access log lost lines=2 error=\"No space left on device\"\n");
    write_number(3);
    wait_a_moment();
    write_number(4);
    wait_a_moment();
    end();
    ck_assert_str_eq(content(stderr_file),
                     STAMP " warning access log lost lines=2 error=\"No space left on device\"\n" STAMP
                           " warning access log lost dropped=4\n");
}
END_TEST

/* As above, where the batches are lost because the buffer is full, and the timer then finds nothing to write. */
START_TEST(test_lost_when_full)
{
    begin("/dev/full");
    while (content(stderr_file)[0] == '\0')
        write_number(1);
    wait_a_moment();
    end();
    ck_assert_ptr_null(strstr(content(stderr_file), "works again"));
}
END_TEST

START_TEST(test_works_again)
{
    int sink = begin("/dev/full"), full = dup(sink);
    write_number(1);
    wait_a_moment();
    write_number(2);
    write_number(3);
    wait_a_moment();
    ck_assert_int_eq(dup2(fileno(sink_file), sink), sink);
    write_number(4);
    wait_a_moment();
    ck_assert_str_eq(content(sink_file), LINE "n=4\n");
    ck_assert_str_eq(content(stderr_file),
                     STAMP " warning access log lost lines=1 error=\"No space left on device\"\n" STAMP
                           " notice access log works again dropped=3\n");
    ck_assert_int_eq(dup2(full, sink), sink); /* another time is told again */
    write_number(5);
    end();
    ck_assert_ptr_nonnull(strstr(content(stderr_file), "dropped=3\n" STAMP " warning access log lost lines=1 "));
    close(full);
}
END_TEST

/* The disk fills up in the middle of a line: what was written is not counted, and the next line begins a new one. */
START_TEST(test_part_of_a_batch)
{
    struct rlimit limit, whole;
    char text[401], line[512];
    static const char next[] = "\n" LINE "n=4\n";
    memset(text, 'x', sizeof text);
    text[400] = '\0';
    begin(NULL);
    int len = snprintf(line, sizeof line, LINE "text=%s\n", text);
    ck_assert_int_eq(getrlimit(RLIMIT_FSIZE, &whole), 0);
    limit = whole;
    limit.rlim_cur = (rlim_t)len * 3 / 2;
    signal(SIGXFSZ, SIG_IGN);
    ck_assert_int_eq(setrlimit(RLIMIT_FSIZE, &limit), 0);
    for (int i = 0; i < 3; i++)
        write_text(text);
    wait_a_moment();
    ck_assert_int_eq(setrlimit(RLIMIT_FSIZE, &whole), 0);
    write_number(4);
    end();
    const char *log = content(sink_file);
    ck_assert_int_eq(strncmp(log, line, (size_t)len), 0);
    ck_assert_str_eq(log + strlen(log) - strlen(next), next);
    ck_assert_str_eq(content(stderr_file), STAMP " warning access log lost lines=2 error=\"File too large\"\n" STAMP
                                                 " notice access log works again dropped=2\n");
}
END_TEST

/* --- Turned to another sink ------------------------------------------------------------------------------------------ */

/* What was written before goes to the old sink, and then to nobody else's descriptor. */
START_TEST(test_turn)
{
    char path[32];
    FILE *second = open_file(path);
    int first = begin(NULL), sink = access_sink_open(path);
    write_number(1);
    write_number(2);
    access_turn(access_log, sink);
    ck_assert_str_eq(content(sink_file), LINE "n=1\n" LINE "n=2\n");
    ck_assert_int_eq(fcntl(first, F_GETFD), -1);
    write_number(3);
    wait_a_moment();
    ck_assert_str_eq(content(second), LINE "n=3\n");
    write_number(4);
    end();
    ck_assert_str_eq(content(second), LINE "n=3\n" LINE "n=4\n");
    ck_assert_str_eq(content(sink_file), LINE "n=1\n" LINE "n=2\n");
    ck_assert_int_eq(fcntl(sink, F_GETFD), -1);
    ck_assert_str_eq(content(stderr_file), "");
}
END_TEST

START_TEST(test_turn_off)
{
    char path[32];
    begin(NULL);
    ck_assert(access_is_on(access_log));
    write_number(1);
    access_turn(access_log, -1);
    ck_assert(!access_is_on(access_log));
    ck_assert(!access_is_on(NULL));
    write_number(2);
    ck_assert_str_eq(content(sink_file), LINE "n=1\n");
    access_turn(access_log, -1);
    snprintf(path, sizeof path, "/proc/self/fd/%d", fileno(sink_file));
    access_turn(access_log, access_sink_open(path));
    ck_assert(access_is_on(access_log));
    write_number(3);
    end();
    ck_assert_str_eq(content(sink_file), LINE "n=1\n" LINE "n=3\n");
}
END_TEST

/* A line that was cut at the end of the old sink is not ended in the new one. */
START_TEST(test_turn_when_torn)
{
    char path[32], text[401];
    struct rlimit limit, whole;
    FILE *second = open_file(path);
    begin(NULL);
    memset(text, 'x', sizeof text);
    text[400] = '\0';
    ck_assert_int_eq(getrlimit(RLIMIT_FSIZE, &whole), 0);
    limit = whole;
    limit.rlim_cur = 200;
    signal(SIGXFSZ, SIG_IGN);
    ck_assert_int_eq(setrlimit(RLIMIT_FSIZE, &limit), 0);
    write_text(text);
    wait_a_moment();
    ck_assert_int_eq(setrlimit(RLIMIT_FSIZE, &whole), 0);
    access_turn(access_log, access_sink_open(path));
    write_number(2);
    end();
    ck_assert_str_eq(content(second), LINE "n=2\n");
    ck_assert_str_eq(content(stderr_file), STAMP " warning access log lost lines=1 error=\"File too large\"\n" STAMP
                                                 " warning access log lost dropped=1\n");
}
END_TEST

/* Each lost line once, for as long as the log lives. */
START_TEST(test_lost_is_counted)
{
    begin("/dev/full");
    ck_assert_uint_eq(access_lost(access_log), 0);
    write_number(1);
    write_number(2);
    ck_assert_uint_eq(access_lost(access_log), 0);
    wait_a_moment();
    ck_assert_uint_eq(access_lost(access_log), 2);
    for (int i = 0; i < 3000; i++) /* more than one buffer */
        write_number(3);
    wait_a_moment();
    ck_assert_uint_eq(access_lost(access_log), 3002);
    end();
}
END_TEST

START_TEST(test_lost_over_turns)
{
    char path[32];
    FILE *second = open_file(path);
    begin("/dev/full");
    write_number(1);
    access_turn(access_log, access_sink_open(path)); /* finds out that it is lost */
    ck_assert_uint_eq(access_lost(access_log), 1);
    ck_assert_str_eq(content(stderr_file),
                     STAMP " warning access log lost lines=1 error=\"No space left on device\"\n" STAMP
                           " warning access log lost dropped=1\n");
    write_number(2);
    access_turn(access_log, access_sink_open("/dev/full"));
    ck_assert_str_eq(content(second), LINE "n=2\n");
    write_number(3);
    wait_a_moment();
    ck_assert_uint_eq(access_lost(access_log), 2);
    end(); /* and nobody claims that it works again */
    ck_assert_ptr_null(strstr(content(stderr_file), "works again"));
}
END_TEST

/* A sink that is the journal's stream gets priorities; another does not, though stderr does. */
START_TEST(test_journal)
{
    char path[32], stream[64];
    struct stat status;
    begin(NULL);
    ck_assert_int_eq(fstat(STDERR_FILENO, &status), 0);
    snprintf(stream, sizeof stream, "%llu:%llu", (unsigned long long)status.st_dev, (unsigned long long)status.st_ino);
    setenv("JOURNAL_STREAM", stream, 1);
    snprintf(path, sizeof path, "/proc/self/fd/%d", fileno(sink_file));
    access_turn(access_log, access_sink_open(path));
    write_number(1);
    access_turn(access_log, access_sink_open("stderr"));
    write_number(2);
    access_turn(access_log, access_sink_open(path));
    write_number(3);
    end();
    ck_assert_str_eq(content(sink_file), LINE "n=1\n" LINE "n=3\n");
    ck_assert_str_eq(content(stderr_file), "<6>request n=2\n");
}
END_TEST

UNIT_MAIN("access", test_off_and_failures, test_created, test_appends, test_json, test_stderr, test_stderr_closed,
          test_level, test_a_moment_later, test_batches, test_long_lines, test_none, test_lost, test_lost_when_full,
          test_works_again, test_part_of_a_batch, test_turn, test_turn_off, test_turn_when_torn, test_lost_is_counted,
          test_lost_over_turns, test_journal)
