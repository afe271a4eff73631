#include "probe/tlsclient.h"

#include "tlsfile.h"

#include <arpa/inet.h>
#include <errno.h>
#include <event2/bufferevent.h>
#include <event2/bufferevent_ssl.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <stdio.h>
#include <string.h>

static int load_trust(SSL_CTX *ctx, const struct tlsclient_settings *settings, char *err, size_t errlen)
{
    if (settings->ca == NULL)
        SSL_CTX_set_default_verify_paths(ctx);
    else if (SSL_CTX_load_verify_file(ctx, settings->ca) != 1)
        return tlsfile_refuse("--ca", settings->ca, "certificate", err, errlen);
    SSL_CTX_set_verify(ctx, settings->insecure ? SSL_VERIFY_NONE : SSL_VERIFY_PEER, NULL);
    return 0;
}

static int load_identity(SSL_CTX *ctx, const struct tlsclient_settings *settings, char *err, size_t errlen)
{
    const char *key = settings->key != NULL ? settings->key : settings->cert;
    const struct tlsfile_pair pair = { "--cert", settings->cert, settings->key != NULL ? "--key" : "--cert", key };
    return settings->cert != NULL ? tlsfile_load_pair(ctx, &pair, err, errlen) : 0;
}

SSL_CTX *tlsclient_load(const struct tlsclient_settings *settings, char *err, size_t errlen)
{
    char reason[TLSFILE_REASON];
    ERR_clear_error();
    tlsfile_ask_nobody(); /* a monitor has nobody to answer */
    SSL_CTX *ctx = SSL_CTX_new(TLS_client_method());
    if (ctx == NULL) {
        snprintf(err, errlen, "TLS does not start: %s", tlsfile_error_text(ERR_get_error(), reason));
        return NULL;
    }
    SSL_CTX_set_min_proto_version(ctx, TLS1_2_VERSION);
    if (load_trust(ctx, settings, err, errlen) < 0 || load_identity(ctx, settings, err, errlen) < 0) {
        SSL_CTX_free(ctx);
        return NULL;
    }
    return ctx;
}

/* Whose certificate it must be, and the name to ask for, which no address is (RFC 6066 section 3). */
static bool name_peer(SSL *ssl, const char *name)
{
    unsigned char address[sizeof(struct in6_addr)];
    X509_VERIFY_PARAM *param = SSL_get0_param(ssl);
    X509_VERIFY_PARAM_set_hostflags(param, X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS);
    if (inet_pton(AF_INET, name, address) == 1 || inet_pton(AF_INET6, name, address) == 1)
        return X509_VERIFY_PARAM_set1_ip_asc(param, name) == 1;
    return X509_VERIFY_PARAM_set1_host(param, name, 0) == 1 && SSL_set_tlsext_host_name(ssl, name) == 1;
}

struct bufferevent *tlsclient_start(SSL_CTX *ctx, const struct tlsclient_settings *settings, const struct target *t,
                                    struct event_base *base, int fd)
{
    static const unsigned char http[] = "\x08http/1.1"; /* RFC 7301 */
    struct bufferevent *b = NULL;
    SSL *ssl = SSL_new(ctx);
    ERR_clear_error();
    if (ssl != NULL && name_peer(ssl, settings->sni != NULL ? settings->sni : t->host) &&
        (t->scheme != SCHEME_HTTPS || SSL_set_alpn_protos(ssl, http, sizeof http - 1) == 0))
        b = bufferevent_openssl_socket_new(base, fd, ssl, BUFFEREVENT_SSL_CONNECTING, BEV_OPT_CLOSE_ON_FREE);
    if (b == NULL)
        SSL_free(ssl);
    return b;
}

void tlsclient_half_close(struct bufferevent *b)
{
    SSL_shutdown(bufferevent_openssl_get_ssl(b));
    ERR_clear_error();
}

bool tlsclient_peek(struct bufferevent *b, char *byte)
{
    bool came = SSL_peek(bufferevent_openssl_get_ssl(b), byte, 1) > 0;
    ERR_clear_error();
    return came;
}

bool tlsclient_ended(struct bufferevent *b)
{
    return (SSL_get_shutdown(bufferevent_openssl_get_ssl(b)) & SSL_RECEIVED_SHUTDOWN) != 0;
}

/* Where sending failed, an alert may still be there to be read, which says why. NULL: there is none. */
static const char *pending_alert(SSL *ssl)
{
    char byte;
    ERR_clear_error();
    unsigned long code = SSL_peek(ssl, &byte, 1) <= 0 ? ERR_peek_error() : 0;
    return ERR_GET_REASON(code) >= SSL_AD_REASON_OFFSET ? ERR_reason_error_string(code) : NULL;
}

void tlsclient_explain(struct bufferevent *b, bool handshake, struct failure *f)
{
    int error = EVUTIL_SOCKET_ERROR();
    unsigned long code = bufferevent_get_openssl_error(b);
    SSL *ssl = bufferevent_openssl_get_ssl(b);
    long verdict = SSL_get_verify_result(ssl);
    bool reset = error == ECONNRESET || error == EPIPE;
    const char *when = handshake ? "handshake: " : "", *reason = code != 0 ? ERR_reason_error_string(code) : NULL;
    if (reason == NULL && reset)
        reason = pending_alert(ssl);
    if (verdict != X509_V_OK && (SSL_get_verify_mode(ssl) & SSL_VERIFY_PEER) != 0)
        failure_set(f, FAILURE_TLS, "certificate: %s", X509_verify_cert_error_string(verdict));
    else if (reason != NULL && ERR_GET_REASON(code) != SSL_R_UNEXPECTED_EOF_WHILE_READING)
        failure_set(f, FAILURE_TLS, "%s%s", when, reason);
    else if (reset)
        failure_set(f, FAILURE_RESET, "%sthe server reset the connection", when);
    else
        failure_set(f, handshake ? FAILURE_TLS : FAILURE_SHORT, "%sthe connection ended", when);
    ERR_clear_error();
}
