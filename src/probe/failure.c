#include "probe/failure.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static const char *const words[FAILURE_CLASSES] = {
    [FAILURE_NONE] = "none",         [FAILURE_RESOLVE] = "resolve",   [FAILURE_REFUSED] = "refused",
    [FAILURE_TIMEOUT] = "timeout",   [FAILURE_RESET] = "reset",       [FAILURE_TLS] = "tls",
    [FAILURE_PROTOCOL] = "protocol", [FAILURE_MISMATCH] = "mismatch", [FAILURE_SHORT] = "short",
    [FAILURE_SYSTEM] = "system",
};

const char *failure_word(enum failure_class class)
{
    return words[class];
}

const char *failure_errno(int error)
{
    /* thread-safe in glibc 2.32 and later, and in musl: NOLINTNEXTLINE(concurrency-mt-unsafe) */
    return strerror(error);
}

void failure_set(struct failure *f, enum failure_class class, const char *format, ...)
{
    va_list args;
    if (f->class != FAILURE_NONE)
        return;
    f->class = class;
    va_start(args, format);
    vsnprintf(f->text, sizeof f->text, format, args);
    va_end(args);
}
