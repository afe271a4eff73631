/*
 * pki: certificates for tests, made on the spot, in files that exist as long as the test's process.
 */
#ifndef ECHOD_PKI_H
#define ECHOD_PKI_H

#include "unit.h"

#include <openssl/pem.h>
#include <openssl/x509v3.h>
#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>

#define DAY 86400L /* seconds */

struct identity {
    X509 *certificate;
    EVP_PKEY *key;
    char certificate_file[32], key_file[32];
};

static inline void put_file(char path[32], void (*write)(FILE *, const void *), const void *what)
{
    int fd = memfd_create("pem", 0);
    ck_assert_int_ge(fd, 0);
    FILE *f = fdopen(dup(fd), "w");
    write(f, what);
    fclose(f);
    snprintf(path, 32, "/proc/self/fd/%d", fd);
}

static inline void write_text(FILE *f, const void *text)
{
    fputs(text, f);
}

static inline void write_certificate(FILE *f, const void *certificate)
{
    ck_assert_int_eq(PEM_write_X509(f, certificate), 1);
}

static inline void write_key(FILE *f, const void *key)
{
    ck_assert_int_eq(PEM_write_PrivateKey(f, key, NULL, NULL, 0, NULL, NULL), 1);
}

static inline void write_encrypted(FILE *f, const void *key)
{
    ck_assert_int_eq(PEM_write_PrivateKey(f, key, EVP_aes_256_cbc(), (const unsigned char *)"secret", 6, NULL, NULL),
                     1);
}

/* A certificate and then that of who signed it. */
static inline void write_chain(FILE *f, const void *chain)
{
    for (X509 *const *one = chain; *one != NULL; one++)
        write_certificate(f, *one);
}

static inline void add_extension(X509 *certificate, X509 *issuer, int nid, const char *value)
{
    X509V3_CTX context;
    X509V3_set_ctx(&context, issuer, certificate, NULL, NULL, 0);
    X509_EXTENSION *extension = X509V3_EXT_conf_nid(NULL, &context, nid, value);
    ck_assert_ptr_nonnull(extension);
    ck_assert_int_eq(X509_add_ext(certificate, extension, -1), 1);
    X509_EXTENSION_free(extension);
}

/* names as in "DNS:a.example,DNS:b.example", or NULL for an authority; valid from and to so many seconds from now. */
static inline struct identity identity_issue(const char *names, const struct identity *issuer, EVP_PKEY *key, long from,
                                             long to)
{
    static long serial;
    struct identity id = { .certificate = X509_new(), .key = key };
    X509 *by = issuer != NULL ? issuer->certificate : id.certificate;
    X509_set_version(id.certificate, 2);
    ASN1_INTEGER_set(X509_get_serialNumber(id.certificate), ++serial);
    X509_gmtime_adj(X509_getm_notBefore(id.certificate), from);
    X509_gmtime_adj(X509_getm_notAfter(id.certificate), to);
    X509_set_pubkey(id.certificate, key);
    X509_NAME_add_entry_by_txt(X509_get_subject_name(id.certificate), "CN", MBSTRING_ASC,
                               (const unsigned char *)(names != NULL ? names : "authority"), -1, -1, 0);
    X509_set_issuer_name(id.certificate, X509_get_subject_name(by));
    if (names == NULL)
        add_extension(id.certificate, by, NID_basic_constraints, "critical,CA:TRUE");
    else
        add_extension(id.certificate, by, NID_subject_alt_name, names);
    ck_assert_int_gt(X509_sign(id.certificate, issuer != NULL ? issuer->key : key, EVP_sha256()), 0);
    put_file(id.certificate_file, write_certificate, id.certificate);
    put_file(id.key_file, write_key, key);
    return id;
}

static inline struct identity identity_make(const char *names)
{
    return identity_issue(names, NULL, EVP_EC_gen("P-256"), -DAY, 365 * DAY);
}

static inline void identity_free(struct identity *id)
{
    X509_free(id->certificate);
    EVP_PKEY_free(id->key);
}

#endif
