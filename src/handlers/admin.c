/* admin: what the process tells of itself, over HTTP: health, readiness, metrics, and the configuration in force. */
#include "handlers/handlers.h"
#include "http/session.h"
#include "status.h"

#include <stdlib.h>
#include <string.h>

static void answer_text(struct http_reply *reply, const char *text)
{
    http_reply_add(reply, (struct bytes){ .data = text, .len = strlen(text) });
}

/* Answers with what one function of the status writes. */
static void answer_written(struct http_reply *reply, void (*write)(void *server, FILE *out), void *server)
{
    size_t len = 0;
    FILE *out = open_memstream(&reply->owned, &len);
    bool sound = out != NULL;
    if (sound) {
        write(server, out);
        sound = !ferror(out);
        sound = fclose(out) == 0 && sound;
    }
    if (sound) {
        http_reply_add(reply, (struct bytes){ .data = reply->owned, .len = len });
    } else {
        reply->status = 500;
        answer_text(reply, "500 Internal Server Error: out of memory\n");
    }
}

static void healthz(const struct conn *conn, const struct http_request *request, struct bytes none,
                    struct http_reply *reply, const void *shared)
{
    const struct status *status = conn->context->status;
    bool healthy = status->healthy(status->server);
    (void)request;
    (void)none;
    (void)shared;
    reply->status = healthy ? 200 : 503;
    answer_text(reply, healthy ? "ok\n" : "an event loop stands still\n");
}

static void readyz(const struct conn *conn, const struct http_request *request, struct bytes none,
                   struct http_reply *reply, const void *shared)
{
    const struct status *status = conn->context->status;
    bool ready = status->ready(status->server);
    (void)request;
    (void)none;
    (void)shared;
    reply->status = ready ? 200 : 503;
    answer_text(reply, ready ? "ready\n" : "stopping\n");
}

static void metrics(const struct conn *conn, const struct http_request *request, struct bytes none,
                    struct http_reply *reply, const void *shared)
{
    const struct status *status = conn->context->status;
    (void)request;
    (void)none;
    (void)shared;
    reply->type = "text/plain; version=0.0.4; charset=utf-8";
    answer_written(reply, status->metrics, status->server);
}

static void config(const struct conn *conn, const struct http_request *request, struct bytes none,
                   struct http_reply *reply, const void *shared)
{
    const struct status *status = conn->context->status;
    (void)request;
    (void)none;
    (void)shared;
    answer_written(reply, status->config, status->server);
}

static const struct http_route routes[] = {
    { "GET", "/healthz", healthz },
    { "GET", "/readyz", readyz },
    { "GET", "/metrics", metrics },
    { "GET", "/config", config },
    { 0 },
};

static const struct option_row admin_options[] = { HTTP_OPTIONS, { 0 } };

static int admin_start(const void *settings, void **shared, char *err, size_t errlen)
{
    struct http_service *service = malloc(sizeof *service);
    if (service == NULL) {
        snprintf(err, errlen, "out of memory");
        return -1;
    }
    *service = (struct http_service){ settings, routes };
    *shared = service;
    return 0;
}

const struct handler admin_handler = {
    .name = "admin",
    .options = admin_options,
    .settings_size = sizeof(struct http_settings),
    .operates = true,
    .start = admin_start,
    .stop = free,
    HTTP_HOOKS,
};
