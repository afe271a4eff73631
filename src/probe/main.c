/* main: echoprobe's command line and exit status. */
#include "probe/command.h"
#include "probe/run.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

static int print_and_exit(const struct command *command)
{
    if (command->help)
        command_usage(stdout);
    else
        fputs("echoprobe " PACKAGE_VERSION "\n", stdout);
    if (fflush(stdout) == 0)
        return VERDICT_OK;
    fprintf(stderr, "echoprobe: standard output: %s\n", failure_errno(errno));
    return RUN_UNKNOWN;
}

/* A socket must not become what is taken for standard output or error; and to write to this one is an error. */
static void open_standard_descriptors(void)
{
    int fd;
    do
        fd = open("/dev/null", O_RDONLY);
    while (fd >= 0 && fd <= STDERR_FILENO);
    if (fd >= 0)
        close(fd);
}

int main(int argc, char **argv)
{
    struct command command;
    char err[1024], why[sizeof err + 32];
    int status;
    open_standard_descriptors();
    if (command_parse(&command, argc, argv, err, sizeof err) < 0) {
        snprintf(why, sizeof why, "%s (--help lists the options)", err);
        status = run_refuse(&command, why);
    } else if (command.help || command.version) {
        status = print_and_exit(&command);
    } else {
        status = run_command(&command);
    }
    command_free(&command);
    return status;
}
