/*
 * config: one INI file to one immutable struct config. Every error is told with its line, all of them and not only the
 * first; nothing is ignored, clamped or cut. Used by one thread while it loads, by all once it is loaded.
 */
#ifndef ECHOD_CONFIG_H
#define ECHOD_CONFIG_H

#include "address.h"
#include "bind.h"
#include "handler.h"
#include "prefix.h"
#include "tls.h"

#include <stdio.h>

#define THREADS_MAX    256
#define CONFIG_TRUSTED 64 /* of one listener */

/* [server] */
struct server_settings {
    uint64_t threads; /* 0: one a core */
    uint64_t max_connections;
    uint64_t max_connections_per_address; /* 0: unlimited */
    uint64_t address_prefix_v4, address_prefix_v6;
    uint64_t drain_delay, drain_timeout; /* ms */
    unsigned log_level, log_format;
    const char *access_log;
};

/* [listener NAME]: the keys that every listener has */
struct listener_settings {
    const char *address;
    const char *handler;
    uint64_t idle_timeout;      /* ms */
    uint64_t max_connections;   /* 0: unlimited */
    uint64_t accept_rate;       /* a second; 0: unlimited */
    uint64_t handshake_timeout; /* ms */
    unsigned proxy_protocol;    /* 1: required */
    const char *proxy_trusted;
    const char *socket_mode, *socket_owner, *socket_group;
    const char *interface;
    unsigned freebind;
    uint64_t tcp_keepalive, tcp_defer_accept; /* ms; 0: off */
    uint64_t tcp_fastopen;                    /* 0: off */
};

/* Where to listen. */
struct config_address {
    struct address address;
    const char *path;      /* instead: of a unix socket, or its abstract name (@NAME); NULL: none */
    const char *inherited; /* instead: the name under which the service manager hands the sockets over; NULL: none */
};

struct config_listener {
    const char *name;
    struct listener_settings settings;
    struct config_address *addresses;
    size_t address_count;
    unsigned address_line; /* where they stand */
    char *address_list;    /* what the names in them are borrowed from */
    struct bind_options bind;
    struct prefix trusted[CONFIG_TRUSTED]; /* who may send PROXY headers */
    int trusted_count;
    struct tls_settings tls_settings;
    struct tls *tls; /* NULL: none */
    const struct handler *handler;
    void *handler_settings;
    void *shared; /* what handler->start() made of them */
};

struct config;

/* Is told every error, as "FILE:LINE: sentence", and what is no error yet, such as a certificate that expires soon. */
typedef void config_report(void *arg, bool warning, const char *line);

/*
 * Reads a file, or, when path is NULL, the text of the built-in defaults. handlers ends with NULL. NULL when there was
 * any error.
 */
struct config *config_load(const char *path, const char *builtin, const struct handler *const *handlers,
                           config_report *report, void *arg);

/* The file, or what stands for it in messages. */
const char *config_path(const struct config *config);

const struct server_settings *config_server(const struct config *config);

/* The line of a key in [server], or else of the section; 0: that is not there either. */
unsigned config_server_line(const struct config *config, const char *key);

/* The line of a key of a listener, or else of its section. */
unsigned config_listener_line(const struct config *config, const struct config_listener *listener, const char *key);

/* Writes an address as the file has it, but with names resolved, and returns buf. */
const char *config_address_format(const struct config_address *address, char buf[ADDRESS_SOCKET_TEXT]);
const struct config_listener *config_listeners(const struct config *config, size_t *count);

/* Writes every key with its value and where it came from, as a file that config_load() reads back. */
void config_dump(const struct config *config, FILE *out);

/* Stops the handlers and frees everything. NULL is fine. */
void config_free(struct config *config);

#endif
