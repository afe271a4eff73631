/*
 * loader: reads the configuration anew in a thread of its own, for names in it are resolved, which may take long. The
 * server's thread calls everything here.
 */
#ifndef ECHOD_LOADER_H
#define ECHOD_LOADER_H

#include "config.h"

#include <pthread.h>
#include <stdbool.h>

/* Loads the configuration; NULL when there is an error, which was reported. */
typedef struct config *config_loader(void *arg, config_report *report, void *report_arg);

struct loader {
    config_loader *load;
    void *load_arg;
    void (*done)(void *arg); /* called in the thread that loads, as the last thing */
    void *done_arg;
    pthread_t thread;
    bool running;
    struct config *config;
    char error[512]; /* the first that was reported; all go to the log */
};

/* Starts to load. The four first members are set. 0, or -1 with errno. */
int loader_start(struct loader *loader);

/* Waits until it is done. The configuration, which is the caller's, or NULL with a sentence in loader->error. */
struct config *loader_finish(struct loader *loader);

#endif
