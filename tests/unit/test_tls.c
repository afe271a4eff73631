#include "tls.h"

#include "pki.h"
#include "unit.h"

#include <errno.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

/* --- Loading */

static char said[8][256];
static int said_count;

static void on_warning(void *arg, const char *sentence)
{
    (void)arg;
    ck_assert_int_lt(said_count, 8);
    snprintf(said[said_count++], sizeof said[0], "%s", sentence);
}

static struct tls_settings defaults(void)
{
    struct tls_settings settings;
    char err[256];
    for (const struct option_row *row = tls_options; row->name != NULL; row++)
        ck_assert_int_eq(option_parse(row, row->fallback, &settings, err, sizeof err), 0);
    return settings;
}

static struct tls_settings settings_of(const struct identity *id)
{
    struct tls_settings settings = defaults();
    settings.certificates = id->certificate_file;
    settings.keys = id->key_file;
    return settings;
}

static struct tls *load(const struct tls_settings *settings, const char *alpn)
{
    struct tls *tls;
    char err[512] = "";
    said_count = 0;
    ck_assert_msg(tls_load(settings, "a", alpn, &tls, on_warning, NULL, err, sizeof err) == 0, "%s", err);
    ck_assert_ptr_nonnull(tls);
    ck_assert_uint_eq(ERR_peek_error(), 0);
    return tls;
}

/* The sentence must be this; %s in it stands for a file. */
__attribute__((format(printf, 2, 3))) static void refused(const struct tls_settings *settings, const char *format, ...)
{
    struct tls *tls;
    char err[512] = "", expected[512];
    va_list args;
    va_start(args, format);
    vsnprintf(expected, sizeof expected, format, args);
    va_end(args);
    ck_assert_int_eq(tls_load(settings, "a", NULL, &tls, on_warning, NULL, err, sizeof err), -1);
    ck_assert_str_eq(err, expected);
    ck_assert_ptr_null(tls);
    ck_assert_uint_eq(ERR_peek_error(), 0);
}

/* --- Handshakes */

struct pair {
    SSL *server, *client;
    SSL_CTX *context; /* the client's */
    int fds[2];
    int accepted, connected;                            /* 1 when that side is done */
    char server_reason[TLS_REASON], client_reason[256]; /* why it failed */
};

static SSL_CTX *client_context(void)
{
    SSL_CTX *context = SSL_CTX_new(TLS_client_method());
    SSL_CTX_set_security_level(context, 0); /* so that it offers what is to be refused */
    SSL_CTX_set_min_proto_version(context, TLS1_VERSION);
    return context;
}

static bool blocked(const SSL *ssl, int result)
{
    int error = SSL_get_error(ssl, result);
    return error == SSL_ERROR_WANT_READ || error == SSL_ERROR_WANT_WRITE;
}

static void client_step(struct pair *p)
{
    if (p->connected != 0)
        return;
    int result = SSL_do_handshake(p->client);
    p->connected = result == 1 ? 1 : blocked(p->client, result) ? 0 : -1;
    if (p->connected < 0)
        tls_reason(p->client, errno, p->client_reason);
    if (p->connected < 0)
        shutdown(p->fds[1], SHUT_WR);
}

static void server_step(struct pair *p)
{
    if (p->accepted != 0)
        return;
    errno = 0;
    int result = SSL_do_handshake(p->server);
    p->accepted = result == 1 ? 1 : blocked(p->server, result) ? 0 : -1;
    if (p->accepted < 0)
        tls_reason(p->server, errno, p->server_reason);
    if (p->accepted < 0)
        shutdown(p->fds[0], SHUT_WR);
    ck_assert_uint_eq(ERR_peek_error(), 0);
}

/* Takes over the context. name may be NULL, and so may session. */
static struct pair connect_with(const struct tls *tls, SSL_CTX *context, const char *name, SSL_SESSION *session)
{
    struct pair p = { .context = context };
    signal(SIGPIPE, SIG_IGN); /* as the daemon does */
    ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, p.fds), 0);
    p.server = tls_accept(tls);
    SSL_set_fd(p.server, p.fds[0]);
    p.client = SSL_new(context);
    SSL_set_fd(p.client, p.fds[1]);
    SSL_set_connect_state(p.client);
    if (name != NULL)
        SSL_set_tlsext_host_name(p.client, name);
    if (session != NULL)
        SSL_set_session(p.client, session);
    return p;
}

static void shake(struct pair *p)
{
    for (int i = 0; i < 20 && (p->accepted == 0 || p->connected == 0); i++) {
        client_step(p);
        server_step(p);
    }
}

static struct pair shaken(const struct tls *tls, SSL_CTX *context, const char *name)
{
    struct pair p = connect_with(tls, context, name, NULL);
    shake(&p);
    return p;
}

static void part(struct pair *p)
{
    /* else OpenSSL takes the session for broken */
    SSL_set_shutdown(p->client, SSL_SENT_SHUTDOWN | SSL_RECEIVED_SHUTDOWN);
    SSL_free(p->server);
    SSL_free(p->client);
    SSL_CTX_free(p->context);
    close(p->fds[0]);
    close(p->fds[1]);
}

/* Both sides are done, and a byte goes each way. */
static void check_open(struct pair *p)
{
    char byte = 0;
    ck_assert_msg(p->accepted == 1, "%s", p->server_reason);
    ck_assert_msg(p->connected == 1, "%s", p->client_reason);
    ck_assert_int_eq(SSL_write(p->server, "s", 1), 1);
    ck_assert_int_eq(SSL_read(p->client, &byte, 1), 1);
    ck_assert_int_eq(byte, 's');
    ck_assert_int_eq(SSL_write(p->client, "c", 1), 1);
    ck_assert_int_eq(SSL_read(p->server, &byte, 1), 1);
    ck_assert_int_eq(byte, 'c');
}

static void check_refused(struct pair *p, const char *reason)
{
    ck_assert_int_eq(p->accepted, -1);
    ck_assert_str_eq(p->server_reason, reason);
    part(p);
}

/* --- Settings */

START_TEST(test_off)
{
    struct tls_settings settings = defaults();
    struct tls *tls = (struct tls *)&settings;
    char err[256] = "";
    ck_assert_int_eq(tls_load(&settings, "a", NULL, &tls, NULL, NULL, err, sizeof err), 0);
    ck_assert_ptr_null(tls);
    tls_free(NULL);
}
END_TEST

START_TEST(test_settings_that_need_others)
{
    struct identity id = identity_make("DNS:a.example");
    struct tls_settings settings = defaults();
    settings.keys = id.key_file;
    refused(&settings, "tls_key: needs tls_certificate");
    settings = defaults();
    settings.client_ca = id.certificate_file;
    refused(&settings, "tls_client_ca: needs tls_certificate");
    settings = defaults();
    settings.verify = TLS_VERIFY_REQUIRED;
    refused(&settings, "tls_verify: needs tls_certificate");
    settings = settings_of(&id);
    settings.verify = TLS_VERIFY_OPTIONAL;
    refused(&settings, "tls_verify: needs tls_client_ca");
    settings = settings_of(&id);
    settings.client_ca = id.certificate_file;
    refused(&settings, "tls_client_ca: needs tls_verify = optional or required");
    settings = settings_of(&id);
    settings.keys = "";
    refused(&settings, "tls_certificate: needs tls_key");
    identity_free(&id);
}
END_TEST

START_TEST(test_files)
{
    struct identity id = identity_make("DNS:a.example"), other = identity_make("DNS:b.example");
    struct identity rsa = identity_issue("DNS:c.example", NULL, EVP_RSA_gen(2048), -DAY, 365 * DAY);
    struct identity weak = identity_issue("DNS:d.example", NULL, EVP_RSA_gen(1024), -DAY, 365 * DAY);
    char garbage[32], encrypted[32];
    put_file(garbage, write_text, "garbage\n");
    put_file(encrypted, write_encrypted, id.key);

    struct tls_settings settings = settings_of(&id);
    settings.certificates = "/nonexistent/a.pem";
    refused(&settings, "tls_certificate: \"/nonexistent/a.pem\": No such file or directory");
    settings.certificates = garbage;
    refused(&settings, "tls_certificate: \"%s\" has no certificate in it", garbage);
    settings.certificates = id.key_file;
    refused(&settings, "tls_certificate: \"%s\" has no certificate in it", id.key_file);
    settings.certificates = weak.certificate_file;
    refused(&settings, "tls_certificate: \"%s\": ee key too small", weak.certificate_file);

    settings = settings_of(&id);
    settings.keys = "/nonexistent/a.pem";
    refused(&settings, "tls_key: \"/nonexistent/a.pem\": No such file or directory");
    settings.keys = garbage;
    refused(&settings, "tls_key: \"%s\" has no private key in it", garbage);
    settings.keys = encrypted;
    refused(&settings, "tls_key: \"%s\" is encrypted, and nobody is there to give the passphrase", encrypted);
    settings.keys = other.key_file;
    refused(&settings, "tls_key: \"%s\" is not the key of the certificate in \"%s\"", other.key_file,
            id.certificate_file);
    settings.keys = rsa.key_file;
    refused(&settings, "tls_key: \"%s\" is not the key of the certificate in \"%s\"", rsa.key_file,
            id.certificate_file);

    settings = settings_of(&id);
    settings.verify = TLS_VERIFY_OPTIONAL;
    settings.client_ca = "/nonexistent/ca.pem";
    refused(&settings, "tls_client_ca: \"/nonexistent/ca.pem\": No such file or directory");
    settings.client_ca = garbage;
    refused(&settings, "tls_client_ca: \"%s\" has no certificate in it", garbage);
    settings = settings_of(&rsa);
    tls_free(load(&settings, NULL));
    identity_free(&id), identity_free(&other), identity_free(&rsa), identity_free(&weak);
}
END_TEST

START_TEST(test_lists)
{
    struct identity a = identity_make("DNS:a.example"), b = identity_make("DNS:b.example");
    char certificates[2048], keys[2048];
    struct tls_settings settings = defaults();
    settings.certificates = certificates;
    settings.keys = keys;
    snprintf(certificates, sizeof certificates, " %s\t, %s ", a.certificate_file, b.certificate_file);
    snprintf(keys, sizeof keys, "%s,%s", a.key_file, b.key_file);
    tls_free(load(&settings, NULL));
    snprintf(keys, sizeof keys, "%s,%s", b.key_file, a.key_file);
    refused(&settings, "tls_key: \"%s\" is not the key of the certificate in \"%s\"", b.key_file, a.certificate_file);
    snprintf(keys, sizeof keys, "%s,%s", a.key_file, a.key_file);
    refused(&settings, "tls_key: \"%s\" is not the key of the certificate in \"%s\"", a.key_file, b.certificate_file);
    snprintf(keys, sizeof keys, "%s", a.key_file);
    refused(&settings, "tls_key: 1 files for 2 certificates");
    snprintf(keys, sizeof keys, "%s,,%s", a.key_file, b.key_file);
    refused(&settings, "tls_key: nothing between two commas");
    snprintf(certificates, sizeof certificates, "%s,", a.certificate_file);
    refused(&settings, "tls_certificate: nothing between two commas");
    memset(certificates, 'x', 300);
    certificates[300] = '\0';
    refused(&settings, "tls_certificate: \"%.255s...\" is too long for the name of a file", certificates);
    for (size_t i = 0; i <= TLS_CERTIFICATES; i++)
        snprintf(certificates + 2 * i, 3, "x,");
    refused(&settings, "tls_certificate: more than 32 files");
    identity_free(&a), identity_free(&b);
}
END_TEST

START_TEST(test_ciphers)
{
    struct identity id = identity_make("DNS:a.example");
    struct tls_settings settings = settings_of(&id);
    settings.ciphers = "ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-TYPO";
    refused(&settings, "tls_ciphers: \"ECDHE-TYPO\" names no cipher");
    settings.ciphers = "ECDHE:!ECDHE";
    refused(&settings, "tls_ciphers: \"ECDHE:!ECDHE\" leaves no cipher");
    settings.ciphers = "TLS_AES_128_GCM_SHA256"; /* is one of TLS 1.3 */
    refused(&settings, "tls_ciphers: \"TLS_AES_128_GCM_SHA256\" names no cipher");
    settings = settings_of(&id);
    settings.ciphersuites = "TLS_AES_128_GCM_SHA256:TLS_TYPO";
    refused(&settings, "tls_ciphersuites: \"TLS_TYPO\" names no cipher");

    settings.ciphers = "ECDHE+AESGCM:!NOSUCH:-SHA1:@STRENGTH";
    settings.ciphersuites = "TLS_CHACHA20_POLY1305_SHA256";
    struct tls *tls = load(&settings, NULL);
    SSL_CTX *context = client_context();
    SSL_CTX_set_max_proto_version(context, TLS1_2_VERSION);
    struct pair p = shaken(tls, context, NULL);
    check_open(&p);
    ck_assert_str_eq(SSL_get_cipher(p.client), "ECDHE-ECDSA-AES256-GCM-SHA384");
    part(&p);
    p = shaken(tls, client_context(), NULL);
    check_open(&p);
    ck_assert_str_eq(SSL_get_cipher(p.client), "TLS_CHACHA20_POLY1305_SHA256");
    part(&p);
    context = client_context(); /* our order counts, not the client's */
    SSL_CTX_set_max_proto_version(context, TLS1_2_VERSION);
    SSL_CTX_set_cipher_list(context, "ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-ECDSA-AES256-GCM-SHA384");
    p = shaken(tls, context, NULL);
    check_open(&p);
    ck_assert_str_eq(SSL_get_cipher(p.client), "ECDHE-ECDSA-AES256-GCM-SHA384");
    part(&p);
    context = client_context();
    SSL_CTX_set_max_proto_version(context, TLS1_2_VERSION);
    SSL_CTX_set_cipher_list(context, "ECDHE-ECDSA-AES128-SHA");
    p = shaken(tls, context, NULL);
    check_refused(&p, "no shared cipher");
    tls_free(tls);
    identity_free(&id);
}
END_TEST

/* RFC 8996: neither TLS 1.0 nor 1.1; and not 1.2 either when the settings say so. */
START_TEST(test_versions)
{
    static const struct {
        enum tls_version min;
        int version;
        const char *reason;
    } cases[] = {
        { TLS_VERSION_1_2, TLS1_VERSION, "unsupported protocol" },
        { TLS_VERSION_1_2, TLS1_1_VERSION, "unsupported protocol" },
        { TLS_VERSION_1_2, TLS1_2_VERSION, NULL },
        { TLS_VERSION_1_2, TLS1_3_VERSION, NULL },
        { TLS_VERSION_1_3, TLS1_2_VERSION, "unsupported protocol" },
        { TLS_VERSION_1_3, TLS1_3_VERSION, NULL },
    };
    struct identity id = identity_make("DNS:a.example");
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct tls_settings settings = settings_of(&id);
        settings.min_version = cases[i].min;
        struct tls *tls = load(&settings, NULL);
        SSL_CTX *context = client_context();
        SSL_CTX_set_max_proto_version(context, cases[i].version);
        struct pair p = shaken(tls, context, NULL);
        if (cases[i].reason != NULL) {
            check_refused(&p, cases[i].reason);
        } else {
            check_open(&p);
            ck_assert_int_eq(SSL_version(p.server), cases[i].version);
            ck_assert_ptr_null(SSL_get_current_compression(p.server));
            part(&p);
        }
        tls_free(tls);
    }
    identity_free(&id);
}
END_TEST

/* RFC 6066 section 3, RFC 6125 section 6.4. */
START_TEST(test_server_names)
{
    static const struct {
        const char *name;
        int index;
    } cases[] = {
        { NULL, 0 },          { "a.example", 0 },  { "A.EXAMPLE", 0 }, { "x.w.example", 1 },   { "X.w.eXample", 1 },
        { "b.w.example", 2 }, /* it is spelled out there */
        { "c.example", 2 },   { "C.Example", 2 },  { "w.example", 0 }, { "y.x.w.example", 0 }, { "foo.part.test", 0 },
        { "a.example.", 0 },  { "other.test", 0 },
    };
    struct identity ids[] = { identity_make("DNS:a.example"), identity_make("DNS:*.w.example,DNS:f*.part.test"),
                              identity_make("DNS:c.example,DNS:b.w.example") };
    char certificates[128], keys[128];
    struct tls_settings settings = defaults();
    snprintf(certificates, sizeof certificates, "%s,%s,%s", ids[0].certificate_file, ids[1].certificate_file,
             ids[2].certificate_file);
    snprintf(keys, sizeof keys, "%s,%s,%s", ids[0].key_file, ids[1].key_file, ids[2].key_file);
    settings.certificates = certificates;
    settings.keys = keys;
    struct tls *tls = load(&settings, "http/1.1");
    for (int version = TLS1_2_VERSION; version <= TLS1_3_VERSION; version++)
        for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
            SSL_CTX *context = client_context();
            SSL_CTX_set_max_proto_version(context, version);
            SSL_CTX_set_alpn_protos(context, (const unsigned char *)"\x08http/1.1", 9);
            struct pair p = shaken(tls, context, cases[i].name);
            check_open(&p);
            ck_assert_msg(X509_cmp(SSL_get0_peer_certificate(p.client), ids[cases[i].index].certificate) == 0, "%s",
                          cases[i].name);
            part(&p);
        }
    tls_free(tls);
    for (int i = 0; i < 3; i++)
        identity_free(&ids[i]);
}
END_TEST

/* The chain behind the certificate is sent, so that a client that trusts the root alone is content. */
START_TEST(test_chain)
{
    struct identity root = identity_make(NULL),
                    middle = identity_issue(NULL, &root, EVP_EC_gen("P-256"), -DAY, 100 * DAY);
    X509_NAME_add_entry_by_txt(X509_get_subject_name(middle.certificate), "OU", MBSTRING_ASC,
                               (const unsigned char *)"middle", -1, -1, 0);
    X509_sign(middle.certificate, root.key, EVP_sha256());
    struct identity leaf = identity_issue("DNS:a.example", &middle, EVP_EC_gen("P-256"), -DAY, 365 * DAY);
    put_file(leaf.certificate_file, write_chain, (X509 *[]){ leaf.certificate, middle.certificate, NULL });
    struct tls_settings settings = settings_of(&leaf);
    struct tls *tls = load(&settings, NULL);
    ck_assert_int_le(labs(tls_expiry(tls) - (time(NULL) + 100 * DAY)), 60);
    SSL_CTX *context = client_context();
    SSL_CTX_set_verify(context, SSL_VERIFY_PEER, NULL);
    SSL_CTX_load_verify_file(context, root.certificate_file);
    struct pair p = shaken(tls, context, "a.example");
    check_open(&p);
    part(&p);
    tls_free(tls);
    identity_free(&root), identity_free(&middle), identity_free(&leaf);
}
END_TEST

/* --- Certificates of clients */

static struct pair connect_as(const struct tls *tls, const struct identity *id, int version)
{
    SSL_CTX *context = client_context();
    SSL_CTX_set_max_proto_version(context, version);
    if (id != NULL) {
        ck_assert_int_eq(SSL_CTX_use_certificate(context, id->certificate), 1);
        ck_assert_int_eq(SSL_CTX_use_PrivateKey(context, id->key), 1);
    }
    return shaken(tls, context, NULL);
}

START_TEST(test_client_certificates)
{
    struct identity server = identity_make("DNS:a.example"), authority = identity_make(NULL),
                    stranger = identity_make("DNS:client");
    struct identity client = identity_issue("DNS:client", &authority, EVP_EC_gen("P-256"), -DAY, DAY);
    struct identity late = identity_issue("DNS:client", &authority, EVP_EC_gen("P-256"), -2 * DAY, -DAY);
    static const char *const no_certificate = "peer did not return a certificate";
    static const char *const no_issuer = "certificate verify failed: self-signed certificate";
    static const char *const expired = "certificate verify failed: certificate has expired";
    const struct {
        enum tls_verify verify;
        const struct identity *id;
        const char *reason;
    } cases[] = {
        { TLS_VERIFY_OFF, NULL, NULL },
        { TLS_VERIFY_OFF, &stranger, NULL },
        { TLS_VERIFY_OPTIONAL, NULL, NULL },
        { TLS_VERIFY_OPTIONAL, &client, NULL },
        { TLS_VERIFY_OPTIONAL, &stranger, no_issuer },
        { TLS_VERIFY_OPTIONAL, &late, expired },
        { TLS_VERIFY_REQUIRED, NULL, no_certificate },
        { TLS_VERIFY_REQUIRED, &client, NULL },
        { TLS_VERIFY_REQUIRED, &stranger, no_issuer },
        { TLS_VERIFY_REQUIRED, &late, expired },
    };
    for (int version = TLS1_2_VERSION; version <= TLS1_3_VERSION; version++)
        for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
            struct tls_settings settings = settings_of(&server);
            settings.verify = cases[i].verify;
            settings.client_ca = cases[i].verify != TLS_VERIFY_OFF ? authority.certificate_file : "";
            struct tls *tls = load(&settings, NULL);
            struct pair p = connect_as(tls, cases[i].id, version);
            if (cases[i].reason != NULL) {
                check_refused(&p, cases[i].reason);
            } else {
                check_open(&p);
                ck_assert_int_eq(SSL_get0_peer_certificate(p.server) != NULL,
                                 cases[i].verify != TLS_VERIFY_OFF && cases[i].id != NULL);
                part(&p);
            }
            tls_free(tls);
        }
    identity_free(&server), identity_free(&authority), identity_free(&stranger), identity_free(&client),
        identity_free(&late);
}
END_TEST

/* --- ALPN: RFC 7301 section 3.2 */

static struct pair offer(const struct tls *tls, const char *protocols, int version)
{
    SSL_CTX *context = client_context();
    SSL_CTX_set_max_proto_version(context, version);
    if (protocols != NULL)
        SSL_CTX_set_alpn_protos(context, (const unsigned char *)protocols, (unsigned)strlen(protocols));
    return shaken(tls, context, NULL);
}

static void check_agreed(struct pair *p, const char *protocol)
{
    const unsigned char *agreed;
    unsigned len;
    check_open(p);
    SSL_get0_alpn_selected(p->client, &agreed, &len);
    ck_assert_uint_eq(len, strlen(protocol));
    ck_assert(len == 0 || memcmp(agreed, protocol, len) == 0);
    part(p);
}

START_TEST(test_alpn)
{
    struct identity id = identity_make("DNS:a.example");
    struct tls_settings settings = settings_of(&id);
    struct tls *http = load(&settings, "http/1.1"), *echo = load(&settings, NULL);
    for (int version = TLS1_2_VERSION; version <= TLS1_3_VERSION; version++) {
        struct pair p = offer(http, NULL, version);
        check_agreed(&p, "");
        p = offer(http, "\x08http/1.1", version);
        check_agreed(&p, "http/1.1");
        p = offer(http, "\x02h2\x08http/1.1\x08http/1.0", version);
        check_agreed(&p, "http/1.1");
        p = offer(echo, "\x02h2\x08http/1.1", version);
        check_agreed(&p, "");
        static const char *const others[] = { "\x02h2", "\x08http/1.0", "\x08HTTP/1.1", "\x07http/1.",
                                              "\x09http/1.11" };
        for (size_t i = 0; i < sizeof others / sizeof others[0]; i++) {
            p = offer(http, others[i], version);
            client_step(&p);
            ck_assert_str_eq(p.client_reason, "tlsv1 alert no application protocol");
            check_refused(&p, "no application protocol");
        }
    }
    tls_free(http);
    tls_free(echo);
    identity_free(&id);
}
END_TEST

/* --- Sessions */

/* A session of a first connection, as a client has it who has read something. */
static SSL_SESSION *session_from(const struct tls *tls, int version, const struct identity *id)
{
    struct pair p = connect_as(tls, id, version);
    check_open(&p);
    ck_assert(!SSL_session_reused(p.server));
    SSL_SESSION *session = SSL_get1_session(p.client);
    ck_assert(SSL_SESSION_is_resumable(session));
    part(&p);
    return session;
}

static bool resumes(const struct tls *tls, int version, SSL_SESSION *session, const struct identity *id)
{
    SSL_CTX *context = client_context();
    SSL_CTX_set_max_proto_version(context, version);
    if (id != NULL) {
        SSL_CTX_use_certificate(context, id->certificate);
        SSL_CTX_use_PrivateKey(context, id->key);
    }
    struct pair p = connect_with(tls, context, NULL, session);
    shake(&p);
    check_open(&p);
    bool reused = SSL_session_reused(p.server) == 1;
    part(&p);
    return reused;
}

START_TEST(test_resumption)
{
    struct identity id = identity_make("DNS:a.example");
    struct tls_settings settings = settings_of(&id);
    for (int version = TLS1_2_VERSION; version <= TLS1_3_VERSION; version++) {
        struct tls *tls = load(&settings, NULL), *again = load(&settings, NULL), *other;
        char err[256];
        SSL_SESSION *session = session_from(tls, version, NULL);
        ck_assert(resumes(tls, version, session, NULL));
        ck_assert(!resumes(again, version, session, NULL)); /* has keys of its own, */
        ck_assert_int_eq(tls_keep_tickets(again, tls), 0);
        ck_assert(resumes(again, version, session, NULL)); /* and now those of before */
        ck_assert_int_eq(tls_load(&settings, "b", NULL, &other, NULL, NULL, err, sizeof err), 0);
        ck_assert_int_eq(tls_keep_tickets(other, tls), 0);
        ck_assert(!resumes(other, version, session, NULL)); /* another listener */
        SSL_SESSION_free(session);
        tls_free(tls), tls_free(again), tls_free(other);
    }
    identity_free(&id);
}
END_TEST

/* A ticket is no way around a certificate that has come to be asked for, or other authorities. */
START_TEST(test_resumption_after_other_authorities)
{
    struct identity id = identity_make("DNS:a.example"), one = identity_make(NULL), two = identity_make(NULL);
    struct identity client = identity_issue("DNS:client", &one, EVP_EC_gen("P-256"), -DAY, DAY);
    struct tls_settings settings = settings_of(&id);
    for (int version = TLS1_2_VERSION; version <= TLS1_3_VERSION; version++) {
        settings.verify = TLS_VERIFY_OFF;
        settings.client_ca = "";
        struct tls *open = load(&settings, NULL);
        settings.verify = TLS_VERIFY_REQUIRED;
        settings.client_ca = one.certificate_file;
        struct tls *first = load(&settings, NULL), *same = load(&settings, NULL);
        settings.client_ca = two.certificate_file;
        struct tls *second = load(&settings, NULL);
        SSL_SESSION *stranger = session_from(open, version, NULL), *known = session_from(first, version, &client);
        tls_keep_tickets(same, first);
        ck_assert(resumes(same, version, known, &client));
        tls_keep_tickets(same, open);
        ck_assert(!resumes(same, version, stranger, &client));
        tls_keep_tickets(second, first);
        SSL_CTX *context = client_context();
        SSL_CTX_set_max_proto_version(context, version);
        struct pair p = connect_with(second, context, NULL, known);
        shake(&p);
        check_refused(&p, "peer did not return a certificate");
        SSL_SESSION_free(stranger), SSL_SESSION_free(known);
        tls_free(open), tls_free(first), tls_free(same), tls_free(second);
    }
    identity_free(&id), identity_free(&one), identity_free(&two), identity_free(&client);
}
END_TEST

/* Nor from where a certificate was optional to where it is required. */
START_TEST(test_resumption_without_certificate)
{
    struct identity id = identity_make("DNS:a.example"), authority = identity_make(NULL);
    struct tls_settings settings = settings_of(&id);
    settings.client_ca = authority.certificate_file;
    for (int version = TLS1_2_VERSION; version <= TLS1_3_VERSION; version++) {
        settings.verify = TLS_VERIFY_OPTIONAL;
        struct tls *optional = load(&settings, NULL);
        settings.verify = TLS_VERIFY_REQUIRED;
        struct tls *required = load(&settings, NULL);
        SSL_SESSION *session = session_from(optional, version, NULL);
        tls_keep_tickets(required, optional);
        SSL_CTX *context = client_context();
        SSL_CTX_set_max_proto_version(context, version);
        struct pair p = connect_with(required, context, NULL, session);
        shake(&p);
        check_refused(&p, "peer did not return a certificate");
        SSL_SESSION_free(session);
        tls_free(optional), tls_free(required);
    }
    identity_free(&id), identity_free(&authority);
}
END_TEST

/* --- A connection */

/* RFC 5246 section 7.2.2: a client that wants to is told no_renegotiation, and cannot go on. */
START_TEST(test_no_renegotiation)
{
    struct identity id = identity_make("DNS:a.example");
    struct tls_settings settings = settings_of(&id);
    struct tls *tls = load(&settings, NULL);
    SSL_CTX *context = client_context();
    SSL_CTX_set_max_proto_version(context, TLS1_2_VERSION);
    struct pair p = shaken(tls, context, NULL);
    char buf[16], reason[TLS_REASON];
    check_open(&p);
    ck_assert_int_eq(SSL_renegotiate(p.client), 1);
    SSL_do_handshake(p.client);
    ck_assert_int_eq(SSL_read(p.server, buf, sizeof buf), -1);
    int result = SSL_do_handshake(p.client);
    ck_assert_int_le(result, 0);
    ck_assert_int_eq(SSL_get_error(p.client, result), SSL_ERROR_SSL);
    ck_assert_str_eq(tls_reason(p.client, 0, reason), "no renegotiation");
    ck_assert_int_eq(SSL_num_renegotiations(p.server), 0);
    part(&p);
    tls_free(tls);
    identity_free(&id);
}
END_TEST

/* RFC 8446 section 6.1: close_notify closes one direction; what is still to be sent goes out, and then ours. */
START_TEST(test_half_close)
{
    struct identity id = identity_make("DNS:a.example");
    struct tls_settings settings = settings_of(&id);
    struct tls *tls = load(&settings, NULL);
    for (int version = TLS1_2_VERSION; version <= TLS1_3_VERSION; version++) {
        struct pair p = connect_as(tls, NULL, version);
        char buf[16];
        check_open(&p);
        ck_assert_int_eq(SSL_write(p.client, "last", 4), 4);
        ck_assert_int_eq(SSL_shutdown(p.client), 0);
        ck_assert_int_eq(SSL_read(p.server, buf, sizeof buf), 4);
        int result = SSL_read(p.server, buf, sizeof buf);
        ck_assert_int_eq(SSL_get_error(p.server, result), SSL_ERROR_ZERO_RETURN);
        ck_assert_int_eq(SSL_write(p.server, "last", 4), 4);
        ck_assert_int_eq(SSL_shutdown(p.server), 1);
        ck_assert_int_eq(SSL_read(p.client, buf, sizeof buf), 4);
        result = SSL_read(p.client, buf, sizeof buf);
        ck_assert_int_eq(SSL_get_error(p.client, result), SSL_ERROR_ZERO_RETURN);
        part(&p);
    }
    tls_free(tls);
    identity_free(&id);
}
END_TEST

/* What comes is not TLS, or ends too early; and one failure leaves nothing behind for the next connection. */
START_TEST(test_reasons)
{
    static const struct {
        const char *sent, *reason;
    } cases[] = {
        { "GET / HTTP/1.1\r\n\r\n", "http request" },
        { "hello, world", "wrong version number" },
        { "", "unexpected eof while reading" },
        { "\x16\x03\x01", "unexpected eof while reading" },
    };
    struct identity id = identity_make("DNS:a.example");
    struct tls_settings settings = settings_of(&id);
    struct tls *tls = load(&settings, NULL);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct pair p = connect_with(tls, client_context(), NULL, NULL);
        ck_assert_int_eq(send(p.fds[1], cases[i].sent, strlen(cases[i].sent), 0), (ssize_t)strlen(cases[i].sent));
        shutdown(p.fds[1], SHUT_WR);
        server_step(&p);
        check_refused(&p, cases[i].reason);
    }
    struct pair p = shaken(tls, client_context(), NULL);
    check_open(&p);
    part(&p);
    char reason[TLS_REASON];
    ck_assert_str_eq(tls_reason(NULL, ECONNRESET, reason), "Connection reset by peer");
    ck_assert_str_eq(tls_reason(NULL, 0, reason), "the peer hung up");
    tls_free(tls);
    identity_free(&id);
}
END_TEST

/* A reload frees the struct in the middle of a handshake, which still chooses by name. */
START_TEST(test_free_while_in_use)
{
    struct identity a = identity_make("DNS:a.example"), b = identity_make("DNS:b.example");
    char certificates[128], keys[128];
    struct tls_settings settings = defaults();
    snprintf(certificates, sizeof certificates, "%s,%s", a.certificate_file, b.certificate_file);
    snprintf(keys, sizeof keys, "%s,%s", a.key_file, b.key_file);
    settings.certificates = certificates;
    settings.keys = keys;
    struct tls *tls = load(&settings, "http/1.1");
    SSL_CTX *context = client_context();
    SSL_CTX_set_alpn_protos(context, (const unsigned char *)"\x08http/1.1", 9);
    struct pair p = connect_with(tls, context, "b.example", NULL);
    tls_free(tls);
    shake(&p);
    check_open(&p);
    ck_assert_int_eq(X509_cmp(SSL_get0_peer_certificate(p.client), b.certificate), 0);
    part(&p);
    identity_free(&a), identity_free(&b);
}
END_TEST

START_TEST(test_validity)
{
    static const struct {
        long from, to;
        const char *what;
    } cases[] = {
        { -365 * DAY, 15 * DAY, NULL },      { -365 * DAY, 13 * DAY, "expires on" },
        { -5 * DAY, 2 * DAY, NULL },         { -5 * DAY, DAY, "expires on" },
        { -5 * DAY, -60, "has expired on" }, { DAY, 365 * DAY, "is not valid before" },
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct identity id = identity_issue("DNS:a.example", NULL, EVP_EC_gen("P-256"), cases[i].from, cases[i].to);
        struct tls_settings settings = settings_of(&id);
        time_t told = time(NULL) + (cases[i].from > 0 ? cases[i].from : cases[i].to);
        struct tls *tls = load(&settings, NULL);
        ck_assert_int_le(labs(tls_expiry(tls) - (time(NULL) + cases[i].to)), 60);
        ck_assert_int_eq(said_count, cases[i].what != NULL);
        if (cases[i].what != NULL) {
            char date[32], sentence[256];
            strftime(date, sizeof date, "%Y-%m-%d", gmtime(&told));
            snprintf(sentence, sizeof sentence, "tls_certificate: \"%s\" %s %s", id.certificate_file, cases[i].what,
                     date);
            ck_assert_str_eq(said[0], sentence);
        }
        tls_free(tls);
        identity_free(&id);
    }
}
END_TEST

UNIT_MAIN("tls", test_off, test_settings_that_need_others, test_files, test_lists, test_ciphers, test_versions,
          test_server_names, test_chain, test_client_certificates, test_alpn, test_resumption,
          test_resumption_after_other_authorities, test_resumption_without_certificate, test_no_renegotiation,
          test_half_close, test_reasons, test_free_while_in_use, test_validity)
