/* load: what its files share. Everything runs on one thread; whatever goes wrong ends the program with a message. */
#ifndef BENCH_LOAD_H
#define BENCH_LOAD_H

#include <stddef.h>

enum { PATIENCE = 20 }; /* seconds without end before a server counts as standing still */

void __attribute__((noreturn, format(printf, 1, 2))) fail(const char *format, ...);
void __attribute__((noreturn)) fail_errno(const char *what);

/* Zeroed. */
void *allocate(size_t size);

/* From 1 to max. */
unsigned long parse_number(const char *text, unsigned long max);

#endif
