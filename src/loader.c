#include "loader.h"

#include "log.h"

#include <errno.h>
#include <stdio.h>

static void on_error(void *arg, bool warning, const char *line)
{
    struct loader *loader = arg;
    if (warning) {
        log_event(LEVEL_WARNING, "configuration", log_text("warning", line));
        return;
    }
    log_event(LEVEL_ERROR, "reload failed", log_text("error", line));
    if (loader->error[0] == '\0')
        snprintf(loader->error, sizeof loader->error, "%s", line);
}

static void *loader_run(void *arg)
{
    struct loader *loader = arg;
    loader->config = loader->load(loader->load_arg, on_error, loader);
    loader->done(loader->done_arg);
    return NULL;
}

int loader_start(struct loader *loader)
{
    loader->error[0] = '\0';
    errno = pthread_create(&loader->thread, NULL, loader_run, loader);
    loader->running = errno == 0;
    return loader->running ? 0 : -1;
}

struct config *loader_finish(struct loader *loader)
{
    if (!loader->running)
        return NULL;
    pthread_join(loader->thread, NULL);
    loader->running = false;
    return loader->config;
}
