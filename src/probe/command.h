/* command: the command line of echoprobe as one struct; every error is told in one line. */
#ifndef ECHOPROBE_COMMAND_H
#define ECHOPROBE_COMMAND_H

#include "probe/report.h"
#include "probe/target.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>

#define COMMAND_URLS 64 /* the most that are probed at once */

struct command {
    enum report_mode mode; /* load with -n or -d, ping with -c or -I, else once */
    struct target *targets;
    size_t target_count;
    bool help, version;

    const char *message; /* NULL: a nonce */
    uint64_t size;       /* bytes of a nonce, or of a request of the load; 0: not given */
    bool half_close, include, quiet;
    int64_t timeout, connect_timeout; /* ns */

    uint64_t count;   /* of a ping; 0: until it is interrupted */
    int64_t interval; /* ns */

    uint64_t connections, rate, pipeline; /* rate 0: closed loop */
    int64_t duration;                     /* ns */
    const char *plot;                     /* file; NULL: none */

    const char *expect, *expect_status;
    uint64_t max_size;
    int64_t warning, critical; /* ns; 0: none */
    unsigned format;           /* enum report_format */

    bool insecure;
    const char *ca, *cert, *key, *sni;
    bool proxy_v1, proxy_v2;
    const char *proxy_source;
    struct sockaddr_storage source; /* family 0: not given */
};

/* Parses it; the texts stay argv's. 0, or -1 with a sentence in err. */
int command_parse(struct command *command, int argc, char **argv, char *err, size_t errlen);

void command_free(struct command *command);

/* Prints how it is called, with all options. */
void command_usage(FILE *out);

#endif
