#include "tls.h"

#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LIST_MAX    1024
#define PATH_SIZE   256           /* of one file's name, in a list */
#define ALPN_MAX    255           /* RFC 7301 section 3.1 */
#define SOON        (14 * 86400L) /* seconds before its end in which a certificate is told of */
#define TICKET_KEYS 80            /* bytes that SSL_CTX_set_tlsext_ticket_keys(3) takes */

struct tls {
    SSL_CTX *contexts[TLS_CERTIFICATES]; /* one a certificate; they differ in that alone */
    size_t count;
    time_t expiry;
    char alpn[ALPN_MAX + 1]; /* empty: none */
};

/* What a load has at hand. */
struct loading {
    const struct tls_settings *settings;
    struct tls *tls;
    tls_warn *warn;
    void *warn_arg;
    char *err;
    size_t errlen;
};

static const char *const verify_words[] = { "off", "optional", "required", NULL };
static const char *const version_words[] = { "1.2", "1.3", NULL };

/* The ciphers of TLS 1.2 are those with forward secrecy and authenticated encryption (RFC 9325 section 4.2). */
const struct option_row tls_options[] = {
    TEXT_ROW("tls_certificate", struct tls_settings, certificates, "", 0, LIST_MAX - 1,
             "PEM files of certificates with their chains, chosen by the name asked for; empty: no TLS"),
    TEXT_ROW("tls_key", struct tls_settings, keys, "", 0, LIST_MAX - 1, "PEM files of their keys, in the same order"),
    TEXT_ROW("tls_client_ca", struct tls_settings, client_ca, "", 0, LIST_MAX - 1,
             "PEM file of the authorities that sign certificates of clients"),
    WORD_ROW("tls_verify", struct tls_settings, verify, "off", verify_words, "whether clients show a certificate"),
    WORD_ROW("tls_min_version", struct tls_settings, min_version, "1.2", version_words,
             "the oldest TLS that is spoken"),
    TEXT_ROW("tls_ciphers", struct tls_settings, ciphers, "ECDHE+AESGCM:ECDHE+CHACHA20", 1, LIST_MAX - 1,
             "ciphers of TLS 1.2, as openssl-ciphers(1) writes them"),
    TEXT_ROW("tls_ciphersuites", struct tls_settings, ciphersuites, "", 0, LIST_MAX - 1,
             "cipher suites of TLS 1.3; empty: those of OpenSSL"),
    { 0 },
};

/* --- Errors ----------------------------------------------------------------------------------------------------- */

const char *tls_reason(const SSL *ssl, int error, char buf[TLS_REASON])
{
    unsigned long code = ERR_get_error(); /* the first is the cause, those behind it say who passed it on */
    if (code != 0)
        tlsfile_error_text(code, buf);
    else
        snprintf(buf, TLS_REASON, "%s", error != 0 ? strerror_r(error, buf, TLS_REASON) : "the peer hung up");
    size_t len = strlen(buf);
    if (ssl != NULL && ERR_GET_LIB(code) == ERR_LIB_SSL && ERR_GET_REASON(code) == SSL_R_CERTIFICATE_VERIFY_FAILED)
        snprintf(buf + len, TLS_REASON - len, ": %s", X509_verify_cert_error_string(SSL_get_verify_result(ssl)));
    ERR_clear_error();
    return buf;
}

__attribute__((format(printf, 2, 3))) static int fail(const struct loading *l, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    vsnprintf(l->err, l->errlen, format, args);
    va_end(args);
    ERR_clear_error();
    return -1;
}

/* --- Lists: files and ciphers ----------------------------------------------------------------------------------- */

/* Copies the next word of a list, without blanks around it. Returns what is behind it; NULL at the end. */
static const char *next_word(const char *list, const char *separators, char *word, size_t size)
{
    list += strspn(list, " \t");
    size_t len = strcspn(list, separators), kept = len;
    while (kept > 0 && (list[kept - 1] == ' ' || list[kept - 1] == '\t'))
        kept--;
    snprintf(word, size, "%.*s", (int)(kept < size ? kept : size - 1), list);
    return list[len] != '\0' ? list + len + 1 : NULL;
}

/* The files of a list. How many, or -1. */
static int split_files(const struct loading *l, const char *key, const char *list, char files[][PATH_SIZE])
{
    int count = 0;
    while (list != NULL) {
        if (count == TLS_CERTIFICATES)
            return fail(l, "%s: more than %d files", key, TLS_CERTIFICATES);
        list = next_word(list, ",", files[count], PATH_SIZE);
        if (files[count][0] == '\0')
            return fail(l, "%s: nothing between two commas", key);
        if (strlen(files[count]) == PATH_SIZE - 1)
            return fail(l, "%s: \"%s...\" is too long for the name of a file", key, files[count]);
        count++;
    }
    return count;
}

typedef int set_list(SSL_CTX *, const char *);

/* OpenSSL skips a name that it does not know, so each is tried alone; one that takes away may find nothing. */
static int set_ciphers(const struct loading *l, SSL_CTX *context, const char *key, const char *list, set_list *set)
{
    char word[LIST_MAX];
    for (const char *rest = list; rest != NULL;) {
        rest = next_word(rest, ": ,;", word, sizeof word);
        if (word[0] != '\0' && strchr("!-+@", word[0]) == NULL && set(context, word) != 1)
            return fail(l, "%s: \"%s\" names no cipher", key, word);
    }
    if (set(context, list) != 1)
        return fail(l, "%s: \"%s\" leaves no cipher", key, list);
    return 0;
}

/* --- What a connection asks for while it shakes hands ----------------------------------------------------------- */

/* The certificate of this name; one that spells it out goes before one with a wildcard (RFC 6125 section 6.4). */
static SSL_CTX *find_context(const struct tls *tls, const char *name)
{
    static const unsigned ways[] = { X509_CHECK_FLAG_NO_WILDCARDS, X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS };
    for (size_t way = 0; way < sizeof ways / sizeof ways[0]; way++)
        for (size_t i = 0; i < tls->count; i++)
            if (X509_check_host(SSL_CTX_get0_certificate(tls->contexts[i]), name, 0,
                                ways[way] | X509_CHECK_FLAG_NEVER_CHECK_SUBJECT, NULL) == 1)
                return tls->contexts[i];
    return NULL;
}

/* A name that no certificate has gets the first one: RFC 6066 section 3 lets a server go on. */
static int on_server_name(SSL *ssl, int *alert, void *arg)
{
    const char *name = SSL_get_servername(ssl, TLSEXT_NAMETYPE_host_name);
    SSL_CTX *context = name != NULL ? find_context(arg, name) : NULL;
    if (context == NULL)
        return SSL_TLSEXT_ERR_NOACK;
    if (SSL_set_SSL_CTX(ssl, context) != NULL)
        return SSL_TLSEXT_ERR_OK;
    *alert = SSL_AD_INTERNAL_ERROR;
    return SSL_TLSEXT_ERR_ALERT_FATAL;
}

/* Agrees on our one protocol; who offers only others gets no_application_protocol (RFC 7301 section 3.2). */
static int on_alpn(SSL *ssl, const unsigned char **out, unsigned char *outlen, const unsigned char *in, unsigned inlen,
                   void *arg)
{
    const struct tls *tls = arg;
    size_t len = strlen(tls->alpn);
    (void)ssl;
    for (unsigned at = 0; at < inlen; at += 1U + in[at]) /* OpenSSL has checked that all fit */
        if (in[at] == len && memcmp(in + at + 1, tls->alpn, len) == 0) {
            *out = in + at + 1;
            *outlen = in[at];
            return SSL_TLSEXT_ERR_OK;
        }
    return SSL_TLSEXT_ERR_ALERT_FATAL;
}

/* --- One context ------------------------------------------------------------------------------------------------ */

static int load_pair(const struct loading *l, SSL_CTX *context, const char *certificate, const char *key)
{
    const struct tlsfile_pair pair = { "tls_certificate", certificate, "tls_key", key };
    return tlsfile_load_pair(context, &pair, l->err, l->errlen);
}

static int load_client_ca(const struct loading *l, SSL_CTX *context)
{
    const char *path = l->settings->client_ca;
    if (l->settings->verify == TLS_VERIFY_OFF)
        return 0;
    STACK_OF(X509_NAME) *names = SSL_load_client_CA_file(path);
    if (names == NULL || SSL_CTX_load_verify_file(context, path) != 1) {
        sk_X509_NAME_pop_free(names, X509_NAME_free);
        return tlsfile_refuse("tls_client_ca", path, "certificate", l->err, l->errlen);
    }
    SSL_CTX_set_client_CA_list(context, names);
    SSL_CTX_set_verify(
        context, SSL_VERIFY_PEER | (l->settings->verify == TLS_VERIFY_REQUIRED ? SSL_VERIFY_FAIL_IF_NO_PEER_CERT : 0),
        NULL);
    return 0;
}

/*
 * A session is good where it was made: at the listener of that name that asks clients for a certificate of the same
 * authorities in the same way. Else a ticket would let in who could not come in without it.
 */
static int set_session_context(SSL_CTX *context, const char *name, unsigned verify)
{
    unsigned char digest[EVP_MAX_MD_SIZE], one[EVP_MAX_MD_SIZE];
    unsigned len = 0;
    STACK_OF(X509_OBJECT) *all = X509_STORE_get0_objects(SSL_CTX_get_cert_store(context));
    EVP_MD_CTX *hash = EVP_MD_CTX_new();
    bool sound = hash != NULL && EVP_DigestInit_ex(hash, EVP_sha256(), NULL) == 1 &&
                 EVP_DigestUpdate(hash, name, strlen(name) + 1) == 1 &&
                 EVP_DigestUpdate(hash, &verify, sizeof verify) == 1;
    for (int i = 0; sound && i < sk_X509_OBJECT_num(all); i++) {
        const X509 *certificate = X509_OBJECT_get0_X509(sk_X509_OBJECT_value(all, i));
        if (certificate != NULL)
            sound = X509_digest(certificate, EVP_sha256(), one, &len) == 1 && EVP_DigestUpdate(hash, one, len) == 1;
    }
    sound = sound && EVP_DigestFinal_ex(hash, digest, &len) == 1 &&
            SSL_CTX_set_session_id_context(context, digest, len) == 1;
    EVP_MD_CTX_free(hash);
    return sound ? 0 : -1;
}

static void set_fixed(SSL_CTX *context, const struct tls_settings *settings)
{
    SSL_CTX_set_min_proto_version(context, settings->min_version == TLS_VERSION_1_3 ? TLS1_3_VERSION : TLS1_2_VERSION);
    SSL_CTX_set_options(context, SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION | SSL_OP_CIPHER_SERVER_PREFERENCE |
                                     SSL_OP_PRIORITIZE_CHACHA);
    SSL_CTX_set_mode(context, SSL_MODE_RELEASE_BUFFERS);         /* an idle connection holds none */
    SSL_CTX_set_session_cache_mode(context, SSL_SESS_CACHE_OFF); /* tickets need none */
}

/* Everything but the certificate. */
static int configure(const struct loading *l, SSL_CTX *context, const char *name)
{
    const struct tls_settings *settings = l->settings;
    set_fixed(context, settings);
    if (set_ciphers(l, context, "tls_ciphers", settings->ciphers, SSL_CTX_set_cipher_list) < 0 ||
        (settings->ciphersuites[0] != '\0' &&
         set_ciphers(l, context, "tls_ciphersuites", settings->ciphersuites, SSL_CTX_set_ciphersuites) < 0) ||
        load_client_ca(l, context) < 0)
        return -1;
    if (set_session_context(context, name, settings->verify) < 0)
        return fail(l, "tls_certificate: OpenSSL gives no SHA-256");
    SSL_CTX_set_tlsext_servername_callback(context, on_server_name);
    SSL_CTX_set_tlsext_servername_arg(context, l->tls);
    if (l->tls->alpn[0] != '\0')
        SSL_CTX_set_alpn_select_cb(context, on_alpn, l->tls);
    return 0;
}

/* --- How long certificates are valid ---------------------------------------------------------------------------- */

static time_t time_of(const ASN1_TIME *t)
{
    struct tm tm = { 0 };
    return ASN1_TIME_to_tm(t, &tm) == 1 ? timegm(&tm) : 0;
}

/* Warns where there is reason to: soon is the last quarter of a short life. */
static void note_validity(const struct loading *l, const X509 *certificate, const char *path)
{
    time_t begin = time_of(X509_get0_notBefore(certificate)), end = time_of(X509_get0_notAfter(certificate));
    time_t now = time(NULL), soon = (end - begin) / 4 < SOON ? (end - begin) / 4 : SOON;
    const char *what = now >= end ? "has expired on" : now < begin ? "is not valid before" : "expires on";
    char date[sizeof "2026-01-01"], sentence[PATH_SIZE + 64];
    if (l->tls->expiry == 0 || end < l->tls->expiry)
        l->tls->expiry = end;
    if (l->warn == NULL || (now >= begin && now < end - soon))
        return;
    strftime(date, sizeof date, "%F", gmtime_r(now < begin ? &begin : &end, &(struct tm){ 0 }));
    snprintf(sentence, sizeof sentence, "tls_certificate: \"%s\" %s %s", path, what, date);
    l->warn(l->warn_arg, sentence);
}

static void note_chain(const struct loading *l, SSL_CTX *context, const char *path)
{
    STACK_OF(X509) *chain = NULL;
    note_validity(l, SSL_CTX_get0_certificate(context), path);
    SSL_CTX_get0_chain_certs(context, &chain);
    for (int i = 0; i < sk_X509_num(chain); i++)
        note_validity(l, sk_X509_value(chain, i), path);
}

/* --- All of them ------------------------------------------------------------------------------------------------ */

static int owner_index;

/* The first context, which every connection holds until its end, owns the others and the struct. */
static void on_context_free(void *parent, void *data, CRYPTO_EX_DATA *all, int index, long number, void *arg)
{
    struct tls *tls = data;
    (void)parent;
    (void)all;
    (void)index;
    (void)number;
    (void)arg;
    for (size_t i = 1; tls != NULL && i < tls->count; i++)
        SSL_CTX_free(tls->contexts[i]);
    free(tls);
}

/* Once for the process. */
static void set_up(void)
{
    tlsfile_ask_nobody();
    owner_index = SSL_CTX_get_ex_new_index(0, NULL, NULL, NULL, on_context_free);
}

/* A new context at the end of the list. NULL when memory ran out. */
static SSL_CTX *add_context(struct tls *tls)
{
    SSL_CTX *context = SSL_CTX_new(TLS_server_method());
    if (context != NULL && tls->count == 0 && SSL_CTX_set_ex_data(context, owner_index, tls) != 1) {
        SSL_CTX_free(context);
        context = NULL;
    }
    if (context != NULL)
        tls->contexts[tls->count++] = context;
    return context;
}

/* Keys that mean nothing without others are refused, for who wrote them expects something of them. */
static int check_settings(const struct loading *l)
{
    const struct tls_settings *s = l->settings;
    bool tls = s->certificates[0] != '\0';
    if (!tls && s->keys[0] != '\0')
        return fail(l, "tls_key: needs tls_certificate");
    if (!tls && s->client_ca[0] != '\0')
        return fail(l, "tls_client_ca: needs tls_certificate");
    if (!tls && s->verify != TLS_VERIFY_OFF)
        return fail(l, "tls_verify: needs tls_certificate");
    if (s->verify != TLS_VERIFY_OFF && s->client_ca[0] == '\0')
        return fail(l, "tls_verify: needs tls_client_ca");
    if (s->verify == TLS_VERIFY_OFF && s->client_ca[0] != '\0')
        return fail(l, "tls_client_ca: needs tls_verify = optional or required");
    if (tls && s->keys[0] == '\0')
        return fail(l, "tls_certificate: needs tls_key");
    return 0;
}

static int load_all(const struct loading *l, const char *name)
{
    char certificates[TLS_CERTIFICATES][PATH_SIZE], keys[TLS_CERTIFICATES][PATH_SIZE];
    int count = split_files(l, "tls_certificate", l->settings->certificates, certificates);
    int key_count = count > 0 ? split_files(l, "tls_key", l->settings->keys, keys) : -1;
    if (key_count < 0)
        return -1;
    if (key_count != count)
        return fail(l, "tls_key: %d files for %d certificates", key_count, count);
    for (int i = 0; i < count; i++) {
        SSL_CTX *context = add_context(l->tls);
        if (context == NULL)
            return fail(l, "tls_certificate: no memory");
        if (configure(l, context, name) < 0 || load_pair(l, context, certificates[i], keys[i]) < 0)
            return -1;
        note_chain(l, context, certificates[i]);
    }
    return 0;
}

int tls_load(const struct tls_settings *settings, const char *name, const char *alpn, struct tls **tls, tls_warn *warn,
             void *warn_arg, char *err, size_t errlen)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    struct loading l = { .settings = settings, .warn = warn, .warn_arg = warn_arg, .errlen = errlen };
    l.err = err;
    *tls = NULL;
    pthread_once(&once, set_up);
    ERR_clear_error();
    if (check_settings(&l) < 0)
        return -1;
    if (settings->certificates[0] == '\0')
        return 0;
    l.tls = calloc(1, sizeof *l.tls);
    if (l.tls == NULL)
        return fail(&l, "tls_certificate: no memory");
    snprintf(l.tls->alpn, sizeof l.tls->alpn, "%s", alpn != NULL ? alpn : "");
    if (load_all(&l, name) < 0) {
        tls_free(l.tls);
        return -1;
    }
    *tls = l.tls;
    return 0;
}

void tls_free(struct tls *tls)
{
    if (tls != NULL && tls->count > 0)
        SSL_CTX_free(tls->contexts[0]);
    else
        free(tls);
}

int tls_keep_tickets(struct tls *tls, const struct tls *old)
{
    unsigned char keys[TICKET_KEYS];
    bool kept = SSL_CTX_get_tlsext_ticket_keys(old->contexts[0], keys, sizeof keys) == 1 &&
                SSL_CTX_set_tlsext_ticket_keys(tls->contexts[0], keys, sizeof keys) == 1;
    OPENSSL_cleanse(keys, sizeof keys);
    ERR_clear_error();
    return kept ? 0 : -1;
}

time_t tls_expiry(const struct tls *tls)
{
    return tls->expiry;
}

SSL *tls_accept(const struct tls *tls)
{
    SSL *ssl = SSL_new(tls->contexts[0]);
    if (ssl != NULL)
        SSL_set_accept_state(ssl);
    else
        ERR_clear_error();
    return ssl;
}
