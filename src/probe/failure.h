/* failure: why a probe failed: a class that a monitor can act on, and a sentence. Pure. */
#ifndef ECHOPROBE_FAILURE_H
#define ECHOPROBE_FAILURE_H

enum failure_class {
    FAILURE_NONE,
    FAILURE_RESOLVE,  /* the name has no address, or nobody told it in time */
    FAILURE_REFUSED,  /* no connection could be made */
    FAILURE_TIMEOUT,  /* a time limit passed */
    FAILURE_RESET,    /* the connection broke */
    FAILURE_TLS,      /* no handshake, or a certificate that is not to be trusted */
    FAILURE_PROTOCOL, /* the answer breaks the rules of its protocol, or a limit */
    FAILURE_MISMATCH, /* the answer is whole, and not the one that was expected */
    FAILURE_SHORT,    /* the answer ended early */
    FAILURE_SYSTEM,   /* this end: memory, descriptors, ports */
    FAILURE_CLASSES
};

struct failure {
    enum failure_class class;
    char text[384]; /* no bytes of a stranger, no line end; there is room for the longest name of a host */
};

/* The word for a class, as messages, metrics and the manual have it; "none" for FAILURE_NONE. */
const char *failure_word(enum failure_class class);

/* The system's words for an errno. */
const char *failure_errno(int error);

/* Notes a failure, its sentence as by printf. The first one holds; later calls change nothing. */
void failure_set(struct failure *f, enum failure_class class, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

#endif
