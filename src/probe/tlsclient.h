/* tlsclient: TLS of a client (RFC 8446, 5246), on OpenSSL: what is trusted, who is meant, and what went wrong. */
#ifndef ECHOPROBE_TLSCLIENT_H
#define ECHOPROBE_TLSCLIENT_H

#include "probe/failure.h"
#include "probe/target.h"

#include <stdbool.h>
#include <stddef.h>

struct bufferevent;
struct event_base;
struct ssl_ctx_st;

struct tlsclient_settings {
    bool insecure;    /* trust anybody */
    const char *ca;   /* file of certificates to trust instead of the system's; NULL: the system's */
    const char *cert; /* file of our own certificate and its chain; NULL: none */
    const char *key;  /* file of its key; NULL: in the same file */
    const char *sni;  /* name to ask for and to verify; NULL: the host of the URL */
};

/* Loads it all; TLS 1.2 at least. NULL with a sentence in err. */
struct ssl_ctx_st *tlsclient_load(const struct tlsclient_settings *settings, char *err, size_t errlen);

/*
 * Begins a handshake on a connected socket, which belongs to the bufferevent from now on. A certificate must be for
 * settings->sni or the target's host (RFC 9525). NULL when memory ran out; the socket is then still the caller's.
 */
struct bufferevent *tlsclient_start(struct ssl_ctx_st *ctx, const struct tlsclient_settings *settings,
                                    const struct target *t, struct event_base *base, int fd);

/* Sends close_notify, once; data may still come. Only once all output has gone out, or is given up. */
void tlsclient_half_close(struct bufferevent *b);

/* Copies the next byte, if it has come already, and leaves it there. False: none has. */
bool tlsclient_peek(struct bufferevent *b, char *byte);

/* True when the peer's close_notify has come. */
bool tlsclient_ended(struct bufferevent *b);

/* Puts an error event of the bufferevent into words: a certificate, an alert, a connection that broke. */
void tlsclient_explain(struct bufferevent *b, bool handshake, struct failure *f);

#endif
