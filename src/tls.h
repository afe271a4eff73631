/*
 * tls: what one listener needs to speak TLS, made of its settings: certificates chosen by the name a client asks for,
 * client certificates, protocol versions, ciphers, ALPN, tickets. OpenSSL 3.
 *
 * A struct tls does not change once it is made, any thread may use it, and a connection keeps what it needs of it, so
 * it may be freed while connections are open. Fixed: TLS 1.2 and 1.3 alone, no renegotiation, no compression, the
 * server's order of ciphers, sessions in tickets alone and nothing kept here for them.
 */
#ifndef ECHOD_TLS_H
#define ECHOD_TLS_H

#include "option.h"
#include "tlsfile.h"

#include <openssl/types.h>
#include <stddef.h>
#include <time.h>

#define TLS_CERTIFICATES 32             /* at one listener */
#define TLS_REASON       TLSFILE_REASON /* bytes that tls_reason() needs */

enum tls_verify { TLS_VERIFY_OFF, TLS_VERIFY_OPTIONAL, TLS_VERIFY_REQUIRED };
enum tls_version { TLS_VERSION_1_2, TLS_VERSION_1_3 };

/* Filled by tls_options. Files are PEM; lists are separated by commas. */
struct tls_settings {
    const char *certificates; /* each with its chain behind it; the first is for all names; empty: no TLS */
    const char *keys;         /* one a certificate, in the same order */
    const char *client_ca;    /* who signs certificates of clients; empty: nobody */
    unsigned verify;          /* enum tls_verify */
    unsigned min_version;     /* enum tls_version */
    const char *ciphers;      /* of TLS 1.2, as openssl-ciphers(1) says */
    const char *ciphersuites; /* of TLS 1.3; empty: OpenSSL's */
};

extern const struct option_row tls_options[];

struct tls;

/* What is not wrong yet: a certificate that is not valid now, or not for long. */
typedef void tls_warn(void *arg, const char *sentence);

/*
 * Loads the files. name tells the listener's sessions from others'; alpn is the one protocol to agree on (RFC 7301),
 * NULL for none. 0 and *tls, which is NULL when the settings want no TLS; or -1 and a sentence in err. Sentences begin
 * with the key at fault and a colon.
 */
int tls_load(const struct tls_settings *settings, const char *name, const char *alpn, struct tls **tls, tls_warn *warn,
             void *warn_arg, char *err, size_t errlen);

/* Connections that are open keep what they use. NULL is fine. */
void tls_free(struct tls *tls);

/*
 * Lets a struct tls that is not in use yet accept the tickets of the one that it replaces. Who had to show a
 * certificate to other authorities than now must do so again all the same. 0, or -1.
 */
int tls_keep_tickets(struct tls *tls, const struct tls *old);

/* When the first of all certificates expires, chains included. */
time_t tls_expiry(const struct tls *tls);

/* The server's side of one connection, without any BIO yet; see record.h. NULL when memory ran out. */
SSL *tls_accept(const struct tls *tls);

/*
 * Writes why the last call on ssl in this thread failed, and empties OpenSSL's queue of errors, of which a thread has
 * only one. error is the errno of that call; ssl may be NULL. Returns buf.
 */
const char *tls_reason(const SSL *ssl, int error, char buf[TLS_REASON]);

#endif
