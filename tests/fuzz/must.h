/* must: what every fuzzer here has in common: a condition that is not so ends it, with its place. */
#ifndef ECHOD_MUST_H
#define ECHOD_MUST_H

#include <stdio.h>
#include <stdlib.h>

#define must(condition)                                                     \
    do {                                                                    \
        if (!(condition)) {                                                 \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition); \
            abort();                                                        \
        }                                                                   \
    } while (0)

#endif
