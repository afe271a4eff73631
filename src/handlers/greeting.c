/* greeting: GET /NAME answers "Hello, NAME" over HTTP. */
#include "handlers/handlers.h"
#include "http/session.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PLACE      "{name}"
#define ANSWER_MAX 65536 /* what a connection holds is bounded, and so is an answer */

struct greeting_settings {
    struct http_settings http; /* first: see http/session.h */
    const char *greeting;
    const char *anonymous;
};

/* The text between the places, and behind the last one. */
struct greeting {
    struct http_service service; /* first: see http/session.h */
    struct bytes anonymous;
    struct bytes texts[HTTP_REPLY_PIECES / 2];
    unsigned places;
};

static const struct option_row greeting_options[] = {
    TEXT_ROW("greeting", struct greeting_settings, greeting, "Hello, {name}", 1, 180,
             "the text; {name} is who is greeted"),
    TEXT_ROW("anonymous", struct greeting_settings, anonymous, "Anonymous", 1, 180, "who is greeted at /"),
    HTTP_OPTIONS,
    { 0 },
};

static void greet(const struct conn *conn, const struct http_request *request, struct bytes name,
                  struct http_reply *reply, const void *shared)
{
    const struct greeting *greeting = shared;
    (void)conn;
    (void)request;
    for (unsigned i = 0; i < greeting->places; i++) {
        http_reply_add(reply, greeting->texts[i]);
        http_reply_add(reply, name);
    }
    http_reply_add(reply, greeting->texts[greeting->places]);
}

static void greet_anonymous(const struct conn *conn, const struct http_request *request, struct bytes none,
                            struct http_reply *reply, const void *shared)
{
    (void)none;
    greet(conn, request, ((const struct greeting *)shared)->anonymous, reply, shared);
}

static const struct http_route routes[] = {
    { "GET", "/", greet_anonymous },
    { "GET", "/:name", greet },
    { 0 },
};

static int greeting_start(const void *settings, void **shared, char *err, size_t errlen)
{
    const struct greeting_settings *s = settings;
    size_t longest = strlen(s->greeting);
    for (const char *place = s->greeting; (place = strstr(place, PLACE)) != NULL; place += strlen(PLACE))
        longest += (size_t)s->http.limits.target;
    if (longest > ANSWER_MAX) {
        snprintf(err, errlen, "greeting: with max_target bytes at each {name} it could have %zu bytes; at most %d",
                 longest, ANSWER_MAX);
        return -1;
    }
    struct greeting *greeting = calloc(1, sizeof *greeting);
    if (greeting == NULL) {
        snprintf(err, errlen, "out of memory");
        return -1;
    }
    *greeting =
        (struct greeting){ .service = { &s->http, routes }, .anonymous = { s->anonymous, strlen(s->anonymous) } };
    const char *rest = s->greeting; /* at most 180 bytes, so there are at most 30 places */
    for (const char *place; (place = strstr(rest, PLACE)) != NULL; rest = place + strlen(PLACE))
        greeting->texts[greeting->places++] = (struct bytes){ rest, (size_t)(place - rest) };
    greeting->texts[greeting->places] = (struct bytes){ rest, strlen(rest) };
    *shared = greeting;
    return 0;
}

const struct handler greeting_handler = {
    .name = "greeting",
    .options = greeting_options,
    .settings_size = sizeof(struct greeting_settings),
    .start = greeting_start,
    .stop = free,
    HTTP_HOOKS,
};
