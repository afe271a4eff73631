/* main: echoprobe's command line and exit status. */
#include "probe/command.h"
#include "probe/run.h"

#include <errno.h>
#include <stdio.h>

static int print_and_exit(const struct command *command)
{
    if (command->help)
        command_usage(stdout);
    else
        fputs("echoprobe " PACKAGE_VERSION "\n", stdout);
    if (fflush(stdout) == 0)
        return VERDICT_OK;
    fprintf(stderr, "echoprobe: standard output: %s\n", failure_errno(errno));
    return VERDICT_CRITICAL;
}

int main(int argc, char **argv)
{
    struct command command;
    char err[1024];
    int status = RUN_UNKNOWN;
    if (command_parse(&command, argc, argv, err, sizeof err) < 0)
        fprintf(stderr, "echoprobe: %s (--help lists the options)\n", err);
    else if (command.help || command.version)
        status = print_and_exit(&command);
    else
        status = run_command(&command);
    command_free(&command);
    return status;
}
