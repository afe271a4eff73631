/* run: carries out a command: event loop, signals, one series or load a target, and what is said of them. */
#ifndef ECHOPROBE_RUN_H
#define ECHOPROBE_RUN_H

#include "probe/command.h"

/* The exit status when nothing was probed, or its result not written; monitoring plugins call it unknown. */
#define RUN_UNKNOWN 3

/* Says why nothing is probed, for a monitoring plugin on standard output first, and on standard error. RUN_UNKNOWN. */
int run_refuse(const struct command *command, const char *why);

/*
 * Returns the exit status: the worst verdict, or RUN_UNKNOWN when it could not begin, or its output not be written;
 * then it has said why.
 */
int run_command(const struct command *command);

#endif
