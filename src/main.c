/* main: the command line, the exit status, and the list of built-in handlers. */
#include "config.h"
#include "handlers/handlers.h"
#include "log.h"
#include "server.h"

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum exit_status { EXIT_CLEAN = 0, EXIT_FAILED = 1, EXIT_USAGE = 2 };

static const struct handler *const handlers[] = { &echo_handler, &greeting_handler, &admin_handler, NULL };

/* Served when there is no configuration file; conf/echod.ini says the same. */
static const char builtin[] = "[server]\n"
                              "[listener echo]\n"
                              "address = 127.0.0.1:8888\n"
                              "handler = echo\n"
                              "[listener web]\n"
                              "address = 127.0.0.1:8080\n"
                              "handler = greeting\n";

static const char usage[] = "Usage: echod [OPTION]...\n"
                            "TCP echo and HTTP greeting daemon. Stays in the foreground; SIGTERM stops it,\n"
                            "SIGHUP reloads the configuration, SIGUSR1 reopens the access log.\n"
                            "\n"
                            "  -c, --config=FILE  read FILE; the default is " DEFAULT_CONFIG "\n"
                            "                     if it exists, else echo on 127.0.0.1:8888 and\n"
                            "                     greeting on 127.0.0.1:8080\n"
                            "  -t, --test         test the configuration and exit\n"
                            "  -T, --dump         print the effective configuration and exit\n"
                            "  -V, --version      print the version and exit\n"
                            "  -h, --help         print this and exit\n"
                            "\n"
                            "Exit status: 0 after a clean stop, 1 after a failure at run time,\n"
                            "2 for a wrong command line or configuration.\n"
                            "See echod(8) and echod.ini(5).\n";

static void print_error(void *arg, bool warning, const char *line)
{
    const char *priority = warning ? "<4>" : "<3>"; /* sd-daemon(3) */
    (void)arg;
    fprintf(stderr, "%s%s\n", log_is_journal(STDERR_FILENO) ? priority : "", line);
}

/* What the command line asks for. */
struct command {
    const char *path; /* NULL: the default file, if there is one */
    bool test, dump, version, help;
};

static int command_parse(struct command *command, int argc, char **argv)
{
    static const struct option names[] = {
        { "config", required_argument, NULL, 'c' }, { "test", no_argument, NULL, 't' },
        { "dump", no_argument, NULL, 'T' },         { "version", no_argument, NULL, 'V' },
        { "help", no_argument, NULL, 'h' },         { 0 },
    };
    int letter;
    while ((letter = getopt_long(argc, argv, "c:tTVh", names, NULL)) != -1) {
        switch (letter) {
        case 'c':
            command->path = optarg;
            break;
        case 't':
            command->test = true;
            break;
        case 'T':
            command->dump = true;
            break;
        case 'V':
            command->version = true;
            break;
        case 'h':
            command->help = true;
            break;
        default: /* getopt_long has said what is wrong */
            return -1;
        }
    }
    if (optind == argc)
        return 0;
    fprintf(stderr, "%s: unexpected argument '%s'\n", argv[0], argv[optind]);
    return -1;
}

/*
 * The configuration of the command line: its file, else the default file, else the built-in defaults. Once it was a file
 * it stays that file: a reload that does not find it fails, and does not serve the defaults instead.
 */
static struct config *load(void *arg, config_report *report, void *report_arg)
{
    struct command *command = arg;
    const char *path = command->path;
    if (path == NULL && (access(DEFAULT_CONFIG, F_OK) == 0 || errno != ENOENT))
        path = DEFAULT_CONFIG;
    struct config *config = config_load(path, builtin, handlers, report, report_arg);
    if (config != NULL)
        command->path = path;
    return config;
}

/* A socket must not become what somebody takes for standard error. */
static void open_standard_descriptors(void)
{
    int fd;
    do
        fd = open("/dev/null", O_RDWR);
    while (fd >= 0 && fd <= STDERR_FILENO);
    if (fd >= 0)
        close(fd);
}

int main(int argc, char **argv)
{
    struct command command = { 0 };
    open_standard_descriptors();
    if (command_parse(&command, argc, argv) < 0) {
        fprintf(stderr, "Try '%s --help'.\n", argv[0]);
        return EXIT_USAGE;
    }
    if (command.help || command.version) {
        fputs(command.help ? usage : PACKAGE_STRING "\n", stdout);
        return fflush(stdout) == 0 ? EXIT_CLEAN : EXIT_FAILED;
    }
    if (!command.test && !command.dump)
        server_block_signals();
    struct config *config = load(&command, print_error, NULL);
    if (config == NULL)
        return EXIT_USAGE;
    if (!command.test && !command.dump)
        return server_run(config, load, &command) == 0 ? EXIT_CLEAN : EXIT_FAILED;
    if (command.dump)
        config_dump(config, stdout);
    else
        printf("%s: configuration is valid\n", config_path(config));
    config_free(config);
    return fflush(stdout) == 0 ? EXIT_CLEAN : EXIT_FAILED;
}
