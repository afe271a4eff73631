#include "probe/dial.h"

#include "deadline.h"
#include "probe/proxyheader.h"
#include "probe/timer.h"

#include <arpa/inet.h>
#include <errno.h>
#include <event2/dns.h>
#include <event2/event.h>
#include <event2/util.h>
#include <net/if.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define PLACES_MAX   16                /* addresses of a name that are tried */
#define BACKLOG_WAIT INT64_C(10000000) /* ns until a Unix socket whose backlog was full is tried again */
#define ROUNDS_MAX   1000
#define RESOLV_CONF  "/etc/resolv.conf"

/* One look-up. It outlives a dial that was cancelled: evdns calls back later even then. */
struct lookup {
    struct dialer *dialer;
    struct dial *dial; /* NULL: nobody waits any more */
    struct evdns_getaddrinfo_request *request;
};

struct dial {
    struct dialer *dialer;
    const struct target *target;
    void (*done)(void *arg, const struct dialled *, const struct failure *);
    void *arg;
    int64_t deadline;
    struct lookup *lookup; /* that runs */
    struct place places[PLACES_MAX];
    int count, next; /* of the places; which is tried next */
    struct event *writable;
    struct event *timer; /* of the deadline, of an attempt, or of a failure that is already known */
    struct dialled result;
    struct failure failure;
};

/* Lets a look-up end by itself, unheard. */
static void dial_forget_lookup(struct dial *d)
{
    struct lookup *lookup = d->lookup;
    d->lookup = NULL;
    if (lookup == NULL)
        return;
    lookup->dial = NULL;
    evdns_getaddrinfo_cancel(lookup->request);
}

static void dial_free(struct dial *d)
{
    dial_forget_lookup(d);
    if (d->writable != NULL)
        event_free(d->writable);
    if (d->timer != NULL)
        event_free(d->timer);
    free(d);
}

static void dial_finish(struct dial *d)
{
    void (*done)(void *arg, const struct dialled *, const struct failure *) = d->done;
    void *arg = d->arg;
    struct dialled result = d->result;
    struct failure failure = d->failure;
    dial_free(d);
    done(arg, &result, &failure);
}

static void dial_close(struct dial *d)
{
    if (d->writable != NULL)
        event_free(d->writable);
    d->writable = NULL;
    if (d->result.fd >= 0)
        close(d->result.fd);
    d->result.fd = -1;
}

/* --- Connect */

static const char *place_format(const struct dial *d, char buf[128])
{
    const struct sockaddr_storage *a = &d->result.place.address;
    char host[INET6_ADDRSTRLEN] = "?";
    if (a->ss_family == AF_UNIX)
        snprintf(buf, 128, "%s%s", d->target->unix_.sun_path[0] == '\0' ? "@" : "",
                 d->target->unix_.sun_path + (d->target->unix_.sun_path[0] == '\0'));
    else if (a->ss_family == AF_INET6)
        snprintf(buf, 128, "[%s]:%u",
                 inet_ntop(AF_INET6, &((const struct sockaddr_in6 *)a)->sin6_addr, host, sizeof host), d->target->port);
    else
        snprintf(buf, 128, "%s:%u", inet_ntop(AF_INET, &((const struct sockaddr_in *)a)->sin_addr, host, sizeof host),
                 d->target->port);
    return buf;
}

/* An attempt went wrong: the timer goes on with the next address, or ends with this failure. */
static void dial_failed(struct dial *d, enum failure_class class, const char *why)
{
    char place[128];
    dial_close(d);
    d->failure.class = FAILURE_NONE;
    failure_set(&d->failure, class, "connect to %s: %s", place_format(d, place), why);
    timer_set(d->timer, 0);
}

/* What errno of connect() means. */
static enum failure_class connect_class(int error)
{
    switch (error) {
    case EMFILE:
    case ENFILE:
    case ENOMEM:
    case ENOBUFS:
    case EADDRNOTAVAIL: /* all local ports are in use */
        return FAILURE_SYSTEM;
    case ETIMEDOUT:
        return FAILURE_TIMEOUT;
    case ECONNRESET:
        return FAILURE_RESET;
    default:
        return FAILURE_REFUSED;
    }
}

/* The header is far smaller than the buffer of a new socket, so it goes out whole or not at all. */
static bool send_header(const struct dial *d)
{
    struct sockaddr_storage own = { 0 }, peer = { 0 };
    socklen_t own_len = sizeof own, peer_len = sizeof peer;
    char header[PROXYHEADER_MAX];
    int fd = d->result.fd;
    if (d->dialer->proxy_version == 0)
        return true;
    if (getsockname(fd, (struct sockaddr *)&own, &own_len) < 0 ||
        getpeername(fd, (struct sockaddr *)&peer, &peer_len) < 0)
        return false;
    if (d->dialer->source.ss_family != 0)
        own = d->dialer->source;
    size_t len = proxyheader_write(header, d->dialer->proxy_version, &own, &peer);
    return send(fd, header, len, MSG_NOSIGNAL | MSG_DONTWAIT) == (ssize_t)len;
}

static void on_writable(evutil_socket_t fd, short what, void *arg)
{
    struct dial *d = arg;
    int error = 0;
    socklen_t len = sizeof error;
    (void)what;
    if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &len) < 0)
        error = errno;
    if (error != 0) {
        dial_failed(d, connect_class(error), failure_errno(error));
        return;
    }
    d->result.connected = deadline_now();
    if (!send_header(d)) {
        dial_failed(d, FAILURE_RESET, "the PROXY header cannot be sent");
        return;
    }
    d->failure.class = FAILURE_NONE;
    dial_finish(d);
}

/* connect() to a Unix socket does not wait until there is room in its backlog: the timer tries again. */
static void dial_again(struct dial *d, int64_t left)
{
    if (left <= 0) {
        dial_failed(d, FAILURE_TIMEOUT, "its backlog is full");
        return;
    }
    dial_close(d);
    d->next--;
    timer_set(d->timer, left < BACKLOG_WAIT ? left : BACKLOG_WAIT);
}

/* Tries the next address. Each has an equal share of the time that is left. */
static void dial_attempt(struct dial *d)
{
    const struct place *place = &d->places[d->next++];
    int64_t left = d->deadline - deadline_now();
    int on = 1, family = place->address.ss_family;
    d->result.place = *place;
    timer_set(d->timer, left / (d->count - d->next + 1));
    d->result.fd = socket(family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (d->result.fd < 0) {
        dial_failed(d, FAILURE_SYSTEM, failure_errno(errno));
        return;
    }
    if (family != AF_UNIX)
        setsockopt(d->result.fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    if (connect(d->result.fd, (const struct sockaddr *)&place->address, place->len) < 0 && errno != EINPROGRESS) {
        if (family == AF_UNIX && errno == EAGAIN)
            dial_again(d, left);
        else
            dial_failed(d, connect_class(errno), failure_errno(errno));
        return;
    }
    d->writable = event_new(d->dialer->base, d->result.fd, EV_WRITE, on_writable, d);
    if (d->writable == NULL || event_add(d->writable, NULL) < 0)
        dial_failed(d, FAILURE_SYSTEM, "out of memory");
}

/* --- Resolve */

static void add_place(struct dial *d, const struct sockaddr *address, socklen_t len)
{
    struct place *place = &d->places[d->count];
    if (d->count == PLACES_MAX || len > sizeof place->address)
        return;
    *place = (struct place){ .len = len };
    memcpy(&place->address, address, len);
    d->count++;
}

/* Whether this host can send there at all: connect() of a datagram socket sends nothing. */
static bool has_route(const struct place *place)
{
    int fd = socket(place->address.ss_family, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    bool found = fd >= 0 && connect(fd, (const struct sockaddr *)&place->address, place->len) == 0;
    if (fd >= 0)
        close(fd);
    return found;
}

/* Of several places only those with a route count, if there is any: the others have no failure worth telling. */
static void drop_unroutable(struct dial *d)
{
    int kept = 0;
    for (int i = 0; i < d->count; i++)
        if (has_route(&d->places[i]))
            d->places[kept++] = d->places[i];
    if (kept > 0)
        d->count = kept;
}

static const char *resolve_error(int error)
{
    switch (error) {
    case EVUTIL_EAI_NONAME:
    case EVUTIL_EAI_NODATA:
        return "there is no such name";
    case EVUTIL_EAI_AGAIN:
    case EVUTIL_EAI_FAIL:
        return "the name servers give no usable answer";
    default:
        return evutil_gai_strerror(error);
    }
}

static void on_resolved(int error, struct evutil_addrinfo *found, void *arg)
{
    struct lookup *lookup = arg;
    struct dial *d = lookup->dial;
    lookup->dialer->lookups--;
    if (d != NULL) {
        d->lookup = NULL;
        for (const struct evutil_addrinfo *i = found; i != NULL; i = i->ai_next)
            add_place(d, i->ai_addr, (socklen_t)i->ai_addrlen);
        drop_unroutable(d);
        if (d->count > 0)
            d->result.resolved = deadline_now();
        else
            failure_set(&d->failure, FAILURE_RESOLVE, "%s: %s", d->target->host, resolve_error(error));
    }
    free(lookup);
    if (found != NULL)
        evutil_freeaddrinfo(found);
    if (d != NULL)
        timer_set(d->timer, 0); /* this may be a call from within dial_start() */
}

/*
 * A loop for names. Where /etc/resolv.conf says nothing else, a server has one second for an answer and is asked three
 * times; /etc/hosts counts. The absolute deadline holds in any case. That one address family has been answered for is
 * no reason to ask for the other one less often: the answer may be that there is none, and the other's packet lost. But
 * it must not wait for the other in vain: patience (ns) bounds that.
 */
static struct evdns_base *resolver_new(struct event_base *base, bool absolute, int64_t patience)
{
    char skew[32];
    struct evdns_base *dns = evdns_base_new(base, 0);
    if (dns == NULL)
        return NULL;
    evdns_base_set_option(dns, "timeout:", "1");
    evdns_base_set_option(dns, "attempts:", "3");
    snprintf(skew, sizeof skew, "%.3f", (double)patience / 1e9);
    evdns_base_set_option(dns, "getaddrinfo-allow-skew:", skew);
    evdns_base_resolv_conf_parse(dns, absolute ? DNS_OPTIONS_ALL & ~DNS_OPTION_SEARCH : DNS_OPTIONS_ALL, RESOLV_CONF);
    return dns;
}

static void dial_resolve(struct dial *d)
{
    struct evutil_addrinfo hints = { .ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM };
    char port[8];
    snprintf(port, sizeof port, "%u", d->target->port);
    struct lookup *lookup = calloc(1, sizeof *lookup);
    struct evdns_base **dns = &d->dialer->dns[d->target->absolute];
    if (*dns == NULL)
        *dns = resolver_new(d->dialer->base, d->target->absolute, (d->deadline - deadline_now()) / 2);
    if (lookup == NULL || *dns == NULL) {
        free(lookup);
        failure_set(&d->failure, FAILURE_SYSTEM, "the resolver does not start");
        timer_set(d->timer, 0);
        return;
    }
    *lookup = (struct lookup){ .dialer = d->dialer, .dial = d };
    d->lookup = lookup;
    d->dialer->lookups++;
    struct evdns_getaddrinfo_request *request =
        evdns_getaddrinfo(*dns, d->target->host, port, &hints, on_resolved, lookup);
    if (d->lookup != NULL) /* else it has been called already, and lookup is gone */
        lookup->request = request;
}

static void add_ipv6(struct dial *d, struct sockaddr_in6 *in6)
{
    const char *zone = d->target->zone;
    char *end;
    unsigned long number = strtoul(zone, &end, 10); /* of an interface, which is a zone too */
    in6->sin6_scope_id = if_nametoindex(zone);
    if (in6->sin6_scope_id == 0 && *end == '\0')
        in6->sin6_scope_id = (uint32_t)number;
    if (in6->sin6_scope_id == 0 && zone[0] != '\0')
        failure_set(&d->failure, FAILURE_RESOLVE, "there is no interface %s", zone);
    else
        add_place(d, (const struct sockaddr *)in6, sizeof *in6);
}

/* A place that needs no look-up: a Unix socket, or an address. */
static void dial_numeric(struct dial *d)
{
    const struct target *t = d->target;
    struct sockaddr_in in = { .sin_family = AF_INET, .sin_port = htons(t->port) };
    struct sockaddr_in6 in6 = { .sin6_family = AF_INET6, .sin6_port = htons(t->port) };
    if (t->scheme == SCHEME_UNIX)
        add_place(d, (const struct sockaddr *)&t->unix_, (socklen_t)t->unix_len);
    else if (inet_pton(AF_INET, t->host, &in.sin_addr) == 1)
        add_place(d, (const struct sockaddr *)&in, sizeof in);
    else if (inet_pton(AF_INET6, t->host, &in6.sin6_addr) == 1)
        add_ipv6(d, &in6);
    if (d->count > 0)
        d->result.resolved = deadline_now();
}

/* --- The timer: something has been decided, or time is up. */

static void on_timer(evutil_socket_t fd, short what, void *arg)
{
    struct dial *d = arg;
    (void)fd;
    (void)what;
    if (d->lookup != NULL) {
        dial_forget_lookup(d);
        failure_set(&d->failure, FAILURE_RESOLVE, "%s: no answer in time", d->target->host);
    }
    if (d->result.fd >= 0)
        dial_failed(d, FAILURE_TIMEOUT, "no answer in time");
    else if (d->next < d->count)
        dial_attempt(d);
    else
        dial_finish(d);
}

struct dial *dial_start(struct dialer *dialer, const struct target *t, const struct place *known, int64_t deadline,
                        void (*done)(void *arg, const struct dialled *, const struct failure *), void *arg)
{
    struct dial *d = calloc(1, sizeof *d);
    if (d == NULL)
        return NULL;
    *d = (struct dial){ .dialer = dialer, .target = t, .deadline = deadline, .done = done, .arg = arg };
    d->result.fd = -1;
    d->timer = evtimer_new(dialer->base, on_timer, d);
    if (d->timer == NULL) {
        free(d);
        return NULL;
    }
    if (known != NULL) {
        add_place(d, (const struct sockaddr *)&known->address, known->len);
        d->result.resolved = deadline_now();
    } else {
        dial_numeric(d);
    }
    bool settled = d->count > 0 || d->failure.class != FAILURE_NONE;
    timer_set(d->timer, settled ? 0 : deadline - deadline_now());
    if (!settled)
        dial_resolve(d);
    return d;
}

void dial_cancel(struct dial *d)
{
    if (d == NULL)
        return;
    dial_close(d);
    dial_free(d);
}

void dialer_free(struct dialer *dialer)
{
    /* what was cancelled is told from the loop only, some at a time, and needs the resolver for that */
    for (int round = 0; dialer->lookups > 0 && round < ROUNDS_MAX; round++)
        event_base_loop(dialer->base, EVLOOP_NONBLOCK);
    for (size_t i = 0; i < 2; i++) {
        if (dialer->dns[i] != NULL)
            evdns_base_free(dialer->dns[i], 0);
        dialer->dns[i] = NULL;
    }
}
