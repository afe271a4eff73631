#include "secure.h"

#include <errno.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <stdio.h>
#include <stdlib.h>

static SSL_CTX *context;
static SSL_SESSION *session; /* the last one; NULL: none, or it is not wanted */
static bool resuming;

static void complain(const char *what)
{
    fprintf(stderr, "TLS: %s: ", what);
    ERR_print_errors_fp(stderr);
}

static void require(bool good, const char *what)
{
    if (good)
        return;
    complain(what);
    exit(1);
}

static void new_context(const SSL_METHOD *method)
{
    context = SSL_CTX_new(method);
    require(context != NULL && SSL_CTX_set_min_proto_version(context, TLS1_3_VERSION) == 1 &&
                SSL_CTX_set_ciphersuites(context, "TLS_AES_128_GCM_SHA256") == 1 &&
                SSL_CTX_set1_groups_list(context, "X25519") == 1,
            "context");
    SSL_CTX_set_mode(context, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
}

static int on_session(SSL *ssl, SSL_SESSION *came)
{
    (void)ssl;
    SSL_SESSION_free(session);
    session = came;
    return 1; /* it is ours now */
}

void secure_client(bool resume)
{
    new_context(TLS_client_method());
    resuming = resume;
    if (!resume)
        return;
    SSL_CTX_set_session_cache_mode(context, SSL_SESS_CACHE_CLIENT | SSL_SESS_CACHE_NO_INTERNAL_STORE);
    SSL_CTX_sess_set_new_cb(context, on_session);
}

void secure_server(const char *certificate, const char *key)
{
    new_context(TLS_server_method());
    require(SSL_CTX_use_certificate_chain_file(context, certificate) == 1 &&
                SSL_CTX_use_PrivateKey_file(context, key, SSL_FILETYPE_PEM) == 1,
            certificate);
}

/* OpenSSL lets a client use a session of TLS 1.3 once; a copy is another one. */
static void resume_session(SSL *ssl)
{
    SSL_SESSION *copy = SSL_SESSION_dup(session);

    require(copy != NULL && SSL_set_session(ssl, copy) == 1, "session");
    SSL_SESSION_free(copy);
}

SSL *secure_new(int fd)
{
    SSL *ssl = SSL_new(context);

    require(ssl != NULL && SSL_set_fd(ssl, fd) == 1, "connection");
    if (SSL_is_server(ssl))
        SSL_set_accept_state(ssl);
    else
        SSL_set_connect_state(ssl);
    if (session != NULL)
        resume_session(ssl);
    return ssl;
}

/* What a call that moved n bytes is to recv or send. */
static ssize_t result(SSL *ssl, int n)
{
    int error = n > 0 ? SSL_ERROR_NONE : SSL_get_error(ssl, n);

    switch (error) {
    case SSL_ERROR_NONE:
        return n;
    case SSL_ERROR_ZERO_RETURN:
        return 0;
    case SSL_ERROR_WANT_READ:
    case SSL_ERROR_WANT_WRITE:
        errno = EAGAIN;
        return -1;
    case SSL_ERROR_SYSCALL:
        return -1; /* errno says why */
    default:
        complain("a connection");
        errno = EPROTO;
        return -1;
    }
}

ssize_t secure_recv(SSL *ssl, void *data, size_t size)
{
    ERR_clear_error();
    return result(ssl, SSL_read(ssl, data, size < INT32_MAX ? (int)size : INT32_MAX));
}

ssize_t secure_send(SSL *ssl, const void *data, size_t size)
{
    ERR_clear_error();
    return result(ssl, SSL_write(ssl, data, size < INT32_MAX ? (int)size : INT32_MAX));
}

bool secure_wants_read(const SSL *ssl)
{
    return SSL_want_read(ssl);
}

bool secure_resumed(const SSL *ssl)
{
    return SSL_session_reused(ssl) == 1;
}

void secure_shutdown(SSL *ssl)
{
    ERR_clear_error();
    (void)SSL_shutdown(ssl); /* 0: the peer's has not come, and is waited for elsewhere */
}

void secure_free(SSL *ssl)
{
    if (ssl != NULL && SSL_is_init_finished(ssl))
        SSL_set_shutdown(ssl, SSL_SENT_SHUTDOWN | SSL_RECEIVED_SHUTDOWN); /* else a session counts as broken */
    SSL_free(ssl);
}
