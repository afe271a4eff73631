/* scrape: every figure that the process keeps, in the text format of Prometheus. */
#ifndef ECHOD_SCRAPE_H
#define ECHOD_SCRAPE_H

#include "generation.h"
#include "worker.h"

#include <stdint.h>
#include <stdio.h>

/* Where the figures are. */
struct scrape {
    const struct generation *generations; /* the one in force, and those before it that are still in use */
    struct worker *const *workers;
    size_t worker_count;
    const struct admission *admission;
    int64_t loaded; /* CLOCK_REALTIME nanoseconds at which the configuration in force was loaded */
    uint64_t reloads, reloads_failed;
};

/* Writes them. Nothing of it may be freed meanwhile; counters may go on. */
void scrape_write(const struct scrape *scrape, FILE *out);

#endif
