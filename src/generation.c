#include "generation.h"

#include "log.h"
#include "systemd.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* A generation under construction. */
struct maker {
    struct generation *generation, *before;
    const struct generation_place *place;
    char *err;
    size_t errlen;
};

static const struct config_listener *section(const struct generation *generation, size_t index)
{
    size_t count;
    return &config_listeners(generation->config, &count)[index];
}

static int no_memory(const struct maker *m)
{
    snprintf(m->err, m->errlen, "out of memory");
    return -1;
}

/* --- Endpoints -------------------------------------------------------------------------------------------------- */

static void endpoint_free(struct endpoint *endpoint)
{
    if (endpoint == NULL || --endpoint->generations > 0)
        return;
    for (size_t i = 0; i < endpoint->workers; i++)
        free(endpoint->metrics[i]);
    free(endpoint->name);
    free(endpoint);
}

static struct endpoint *endpoint_new(const struct config_listener *listener, size_t workers)
{
    struct endpoint *endpoint = calloc(1, sizeof *endpoint + workers * sizeof(struct listener_metrics *));
    if (endpoint == NULL)
        return NULL;
    endpoint->generations = 1;
    endpoint->handler = listener->handler->name;
    endpoint->name = strdup(listener->name);
    bool sound = endpoint->name != NULL;
    for (; sound && endpoint->workers < workers; endpoint->workers++) {
        struct listener_metrics *metrics = NULL; /* no two threads write to one cache line */
        sound = posix_memalign((void **)&metrics, 64, (sizeof *metrics + 63) / 64 * 64) == 0;
        if (sound)
            memset(metrics, 0, sizeof *metrics);
        endpoint->metrics[endpoint->workers] = metrics;
    }
    if (!sound) {
        endpoint_free(endpoint);
        return NULL;
    }
    return endpoint;
}

/* The endpoint of a listener in this generation or, while its connections live on, in one before it. */
static struct endpoint *endpoint_find(const struct generation *generation, const struct config_listener *listener)
{
    for (; generation != NULL; generation = generation->before)
        for (size_t i = 0; i < generation->count; i++)
            if (strcmp(generation->endpoints[i]->name, listener->name) == 0 &&
                strcmp(generation->endpoints[i]->handler, listener->handler->name) == 0)
                return generation->endpoints[i];
    return NULL;
}

static int make_endpoint(struct maker *m, const struct config_listener *listener)
{
    struct endpoint *endpoint = endpoint_find(m->before, listener);
    if (endpoint != NULL)
        endpoint->generations++;
    else if ((endpoint = endpoint_new(listener, m->place->count)) == NULL)
        return no_memory(m);
    m->generation->endpoints[m->generation->count++] = endpoint;
    return 0;
}

/* --- Terms ------------------------------------------------------------------------------------------------------ */

static struct admission_limits limits_of(const struct config *config, const struct config_listener *listener)
{
    const struct server_settings *server = config_server(config);
    return (struct admission_limits){ .connections = server->max_connections,
                                      .listener_connections = listener->settings.max_connections,
                                      .address_connections = server->max_connections_per_address,
                                      .prefix_v4 = (unsigned)server->address_prefix_v4,
                                      .prefix_v6 = (unsigned)server->address_prefix_v6,
                                      .rate = listener->settings.accept_rate,
                                      .operates = listener->handler->operates };
}

static void make_terms(const struct maker *m, size_t index, size_t worker)
{
    struct generation *generation = m->generation;
    const struct config_listener *listener = section(generation, index);
    struct endpoint *endpoint = generation->endpoints[index];
    struct listener_metrics *metrics = endpoint->metrics[worker];
    generation->terms[worker * generation->count + index] = (struct listener_terms){
        .conn = { .context = { .listener = listener->name,
                               .access = worker_access(m->place->workers[worker]),
                               .requests = &metrics->conn.requests,
                               .status = m->place->status },
                  .handler = listener->handler,
                  .shared = listener->shared,
                  .idle_timeout = listener->settings.idle_timeout,
                  .tls = listener->tls,
                  .proxy = listener->settings.proxy_protocol != 0,
                  .handshake_timeout = listener->settings.handshake_timeout,
                  .metrics = &metrics->conn,
                  .told = listener_told,
                  .ended = listener_ended },
        .trusted = listener->trusted,
        .trusted_count = listener->trusted_count,
        .limits = &generation->limits[index],
        .admission = m->place->admission,
        .gate = &endpoint->gate,
        .metrics = metrics,
        .users = &generation->users,
        .unused = m->place->unused,
        .unused_arg = m->place->arg,
    };
}

static int make_listeners(struct maker *m)
{
    struct generation *generation = m->generation;
    size_t count;
    const struct config_listener *listeners = config_listeners(generation->config, &count);
    generation->endpoints = calloc(count, sizeof(struct endpoint *));
    generation->limits = calloc(count, sizeof *generation->limits);
    generation->terms = calloc(count * m->place->count, sizeof *generation->terms);
    if (generation->endpoints == NULL || generation->limits == NULL || generation->terms == NULL)
        return no_memory(m);
    for (size_t i = 0; i < count; i++) {
        if (make_endpoint(m, &listeners[i]) < 0)
            return -1;
        generation->limits[i] = limits_of(generation->config, &listeners[i]);
    }
    for (size_t worker = 0; worker < m->place->count; worker++)
        for (size_t i = 0; i < count; i++)
            make_terms(m, i, worker);
    return 0;
}

/* --- Sockets ---------------------------------------------------------------------------------------------------- */

/* True when a socket of the generation before serves this address of a listener. */
static bool socket_fits(const struct generation *before, const struct generation_socket *old,
                        const struct generation_socket *socket, const char *listener)
{
    const struct config_address *a = old->address, *b = socket->address;
    if (old->claimed || old->inherited != socket->inherited || (a->path == NULL) != (b->path == NULL))
        return false;
    if (old->inherited >= 0)
        return true;
    if (a->path != NULL)
        return strcmp(a->path, b->path) == 0 && listener_stands(old->listeners[0]);
    return a->address.len == b->address.len && memcmp(&a->address.sa, &b->address.sa, a->address.len) == 0 &&
           (address_port(&a->address) != 0 || strcmp(section(before, old->listener)->name, listener) == 0);
}

static struct generation_socket *socket_find(const struct maker *m, const struct generation_socket *socket,
                                             const char *listener)
{
    for (size_t i = 0; m->before != NULL && i < m->before->socket_count; i++)
        if (socket_fits(m->before, &m->before->sockets[i], socket, listener))
            return &m->before->sockets[i];
    return NULL;
}

/* Names the key of a listener that is at fault. -1. */
static int blame(const struct maker *m, const struct config_listener *listener, const char *key, const char *why)
{
    snprintf(m->err, m->errlen, "%s:%u: %s: %s", config_path(m->generation->config),
             config_listener_line(m->generation->config, listener, key), key, why);
    return -1;
}

/* Sets the options that may change while a socket listens. 0, or -1 with errno. */
static int socket_tune(const struct generation_socket *socket, size_t workers, const struct bind_options *options)
{
    for (size_t i = 0; i < workers; i++)
        if (listener_tune(socket->listeners[i], options) < 0)
            return -1;
    return 0;
}

static bool tuned_alike(const struct bind_options *a, const struct bind_options *b)
{
    return a->keepalive == b->keepalive && a->defer_accept == b->defer_accept && a->fastopen == b->fastopen &&
           a->mode == b->mode && a->owner == b->owner && a->group == b->group;
}

/* Gives the sockets that were taken over the options of the generation that keeps them, which they once had. */
static void restore_kept(const struct generation *before)
{
    for (size_t i = 0; before != NULL && i < before->socket_count; i++) {
        const struct generation_socket *socket = &before->sockets[i];
        if (socket->claimed && socket->inherited < 0)
            socket_tune(socket, before->workers, &section(before, socket->listener)->bind);
    }
}

/* Takes a socket over from the generation before. What belongs to the moment of its making cannot change. */
static int socket_keep(const struct maker *m, struct generation_socket *socket, struct generation_socket *old,
                       const struct config_listener *listener)
{
    const struct bind_options *was = &section(m->before, old->listener)->bind, *is = &listener->bind;
    if (socket->inherited < 0 && was->freebind != is->freebind)
        return blame(m, listener, "freebind", "cannot change without a restart");
    if (socket->inherited < 0 && strcmp(was->interface, is->interface) != 0)
        return blame(m, listener, "interface", "cannot change without a restart");
    memcpy(socket->listeners, old->listeners, m->place->count * sizeof(struct listener *));
    memcpy(socket->text, old->text, sizeof socket->text);
    old->claimed = true;
    if (socket->inherited < 0 && !tuned_alike(was, is) && socket_tune(socket, m->place->count, is) < 0) {
        char why[256];
        snprintf(why, sizeof why, "cannot change the socket %s: %s", socket->text, log_errno(errno).text);
        return blame(m, listener, "address", why);
    }
    return 0;
}

/* The descriptors of a socket, one a worker. -1 with errno. */
static int socket_open_all(const struct generation_socket *socket, const struct bind_options *options, int *fds,
                           size_t count, struct bind_path *path)
{
    if (socket->address->path != NULL)
        return bind_listen_unix(socket->address->path, options, fds, count, path);
    if (socket->inherited < 0)
        return bind_listen(&socket->address->address, options, fds, count);
    size_t made = 0;
    while (made < count && (fds[made] = fcntl(socket->inherited, F_DUPFD_CLOEXEC, 3)) >= 0)
        made++;
    int error = errno;
    if (made == count)
        return 0;
    while (made > 0)
        close(fds[--made]);
    errno = error;
    return -1;
}

static int socket_bind(const struct maker *m, struct generation_socket *socket, const struct config_listener *listener)
{
    int fds[THREADS_MAX];
    struct bind_path path = { .path = "" };
    if (socket_open_all(socket, &listener->bind, fds, m->place->count, &path) < 0) {
        char why[256], text[ADDRESS_SOCKET_TEXT];
        const char *error = log_errno(errno).text;
        snprintf(why, sizeof why, "cannot listen on %s: %s", config_address_format(socket->address, text), error);
        return blame(m, listener, "address", why);
    }
    socket->fresh = true;
    address_of_socket(fds[0], socket->text);
    bool sound = true;
    for (size_t i = 0; i < m->place->count; i++) {
        socket->listeners[i] = listener_new(fds[i], socket->inherited >= 0, i == 0 ? &path : NULL);
        sound = sound && socket->listeners[i] != NULL;
    }
    return sound ? 0 : no_memory(m);
}

static int make_socket(struct maker *m, size_t index, const struct config_address *address, int inherited)
{
    struct generation *generation = m->generation;
    const struct config_listener *listener = section(generation, index);
    struct generation_socket *grown =
        realloc(generation->sockets, (generation->socket_count + 1) * sizeof *generation->sockets);
    if (grown == NULL)
        return no_memory(m);
    generation->sockets = grown;
    struct generation_socket *socket = &grown[generation->socket_count];
    *socket = (struct generation_socket){ .address = address, .listener = index, .inherited = inherited };
    socket->listeners = calloc(m->place->count, sizeof(struct listener *));
    if (socket->listeners == NULL)
        return no_memory(m);
    generation->socket_count++;
    struct generation_socket *old = socket_find(m, socket, listener->name);
    return old != NULL ? socket_keep(m, socket, old, listener) : socket_bind(m, socket, listener);
}

/* The sockets of one address: one of our own, or all that were handed over under a name. */
static int make_address(struct maker *m, size_t index, const struct config_address *address)
{
    int fds[SYSTEMD_SOCKETS_MAX], count;
    char err[256];
    if (address->inherited == NULL)
        return make_socket(m, index, address, -1);
    count = systemd_sockets(address->inherited, fds, err, sizeof err);
    if (count < 0)
        return blame(m, section(m->generation, index), "address", err);
    for (int i = 0; i < count; i++)
        if (make_socket(m, index, address, fds[i]) < 0)
            return -1;
    return 0;
}

static int make_sockets(struct maker *m)
{
    for (size_t i = 0; m->before != NULL && i < m->before->socket_count; i++)
        m->before->sockets[i].claimed = false;
    for (size_t i = 0; i < m->generation->count; i++) {
        const struct config_listener *listener = section(m->generation, i);
        for (size_t a = 0; a < listener->address_count; a++)
            if (make_address(m, i, &listener->addresses[a]) < 0)
                return -1;
    }
    return 0;
}

/* --- Plans ------------------------------------------------------------------------------------------------------ */

static struct worker_plan *plan_new(const struct maker *m, size_t worker)
{
    const struct generation *generation = m->generation;
    struct worker_plan *plan = malloc(sizeof *plan + generation->socket_count * sizeof plan->sockets[0]);
    if (plan == NULL)
        return NULL;
    *plan = (struct worker_plan){ .taken = m->place->taken, .arg = m->place->arg, .count = generation->socket_count };
    for (size_t i = 0; i < plan->count; i++) {
        const struct generation_socket *socket = &generation->sockets[i];
        plan->sockets[i] = (struct worker_socket){
            .listener = socket->listeners[worker],
            .terms = &generation->terms[worker * generation->count + socket->listener],
        };
    }
    return plan;
}

static int make_plans(struct maker *m)
{
    m->generation->plans = calloc(m->place->count, sizeof(struct worker_plan *));
    if (m->generation->plans == NULL)
        return no_memory(m);
    for (size_t i = 0; i < m->place->count; i++)
        if ((m->generation->plans[i] = plan_new(m, i)) == NULL)
            return no_memory(m);
    return 0;
}

/* --- A generation ----------------------------------------------------------------------------------------------- */

/* Closes the sockets that were bound for a generation that will not serve. */
static void close_fresh(const struct generation *generation)
{
    for (size_t i = 0; i < generation->socket_count; i++)
        for (size_t w = 0; generation->sockets[i].fresh && w < generation->workers; w++)
            listener_close(generation->sockets[i].listeners[w]);
}

struct generation *generation_new(struct config *config, struct generation *before,
                                  const struct generation_place *place, char *err, size_t errlen)
{
    struct generation *generation = calloc(1, sizeof *generation);
    struct maker m = { .generation = generation, .before = before, .place = place, .errlen = errlen };
    m.err = err;
    if (generation == NULL) {
        no_memory(&m);
        return NULL;
    }
    generation->config = config;
    generation->workers = place->count;
    atomic_store(&generation->users, 1);
    if (make_listeners(&m) == 0 && make_sockets(&m) == 0 && make_plans(&m) == 0)
        return generation;
    close_fresh(generation);
    restore_kept(before);
    generation->config = NULL;
    generation_free(generation);
    return NULL;
}

/* Who has a ticket of a listener's TLS may go on with it. */
static void keep_tickets(const struct generation *generation)
{
    size_t count, old_count;
    const struct config_listener *listeners = config_listeners(generation->config, &count);
    const struct config_listener *old = config_listeners(generation->before->config, &old_count);
    for (size_t i = 0; i < count; i++)
        for (size_t o = 0; o < old_count && listeners[i].tls != NULL; o++)
            if (old[o].tls != NULL && strcmp(old[o].name, listeners[i].name) == 0)
                tls_keep_tickets(listeners[i].tls, old[o].tls);
}

void generation_serve(struct generation *generation, const struct generation_place *place)
{
    if (generation->before != NULL)
        keep_tickets(generation);
    for (size_t i = 0; i < place->count; i++) {
        worker_serve(place->workers[i], generation->plans[i]);
        generation->plans[i] = NULL;
    }
}

void generation_free(struct generation *generation)
{
    if (generation == NULL)
        return;
    for (size_t i = 0; i < generation->count; i++)
        endpoint_free(generation->endpoints[i]);
    for (size_t i = 0; i < generation->socket_count; i++)
        free(generation->sockets[i].listeners);
    for (size_t i = 0; generation->plans != NULL && i < generation->workers; i++)
        free(generation->plans[i]);
    free(generation->endpoints);
    free(generation->limits);
    free(generation->terms);
    free(generation->sockets);
    free(generation->plans);
    config_free(generation->config);
    free(generation);
}
