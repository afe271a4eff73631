#include "tlsfile.h"

#include "pki.h"
#include "unit.h"

#include <errno.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <stdarg.h>
#include <string.h>

/* What is said of the two files; %s in the format stands for a file. */
__attribute__((format(printf, 3, 4))) static void refused(const char *certificate, const char *key, const char *format,
                                                          ...)
{
    const struct tlsfile_pair pair = { "cert", certificate, "key", key };
    SSL_CTX *context = SSL_CTX_new(TLS_method());
    char err[256] = "", want[256];
    va_list args;
    va_start(args, format);
    vsnprintf(want, sizeof want, format, args);
    va_end(args);
    ck_assert_int_eq(tlsfile_load_pair(context, &pair, err, sizeof err), -1);
    ck_assert_str_eq(err, want);
    ck_assert_uint_eq(ERR_peek_error(), 0);
    SSL_CTX_free(context);
}

START_TEST(test_pair)
{
    struct identity id = identity_make("DNS:a.example");
    const struct tlsfile_pair pair = { "cert", id.certificate_file, "key", id.key_file };
    SSL_CTX *context = SSL_CTX_new(TLS_method());
    char err[256] = "";
    ck_assert_int_eq(tlsfile_load_pair(context, &pair, err, sizeof err), 0);
    ck_assert_str_eq(err, "");
    ck_assert_int_eq(X509_cmp(SSL_CTX_get0_certificate(context), id.certificate), 0);
    ck_assert_uint_eq(ERR_peek_error(), 0);
    SSL_CTX_free(context);
    identity_free(&id);
}
END_TEST

START_TEST(test_refusals)
{
    struct identity id = identity_make("DNS:a.example"), other = identity_make("DNS:b.example");
    const char *certificate = id.certificate_file, *key = id.key_file;
    char encrypted[32];
    put_file(encrypted, write_encrypted, id.key);
    refused("/nonexistent", key, "cert: \"/nonexistent\": No such file or directory");
    refused(key, key, "cert: \"%s\" has no certificate in it", key);
    refused(certificate, "/nonexistent", "key: \"/nonexistent\": No such file or directory");
    refused(certificate, certificate, "key: \"%s\" has no private key in it", certificate);
    refused(certificate, encrypted, "key: \"%s\" is encrypted, and nobody is there to give the passphrase", encrypted);
    refused(certificate, other.key_file, "key: \"%s\" is not the key of the certificate in \"%s\"", other.key_file,
            certificate);
    identity_free(&id);
    identity_free(&other);
}
END_TEST

/* A sentence ends where its room does. */
START_TEST(test_little_room)
{
    char err[8];
    ck_assert_int_eq(tlsfile_refuse("cert", "/some/file", "certificate", err, sizeof err), -1);
    ck_assert_str_eq(err, "cert: \"");
}
END_TEST

START_TEST(test_error_text)
{
    char buf[TLSFILE_REASON];
    OPENSSL_init_ssl(OPENSSL_INIT_LOAD_SSL_STRINGS, NULL);
    ck_assert_str_eq(tlsfile_error_text(ERR_PACK(ERR_LIB_SSL, 0, SSL_R_NO_SHARED_CIPHER), buf), "no shared cipher");
    ck_assert_str_eq(tlsfile_error_text(ERR_SYSTEM_FLAG | ENOENT, buf), strerror(ENOENT));
    ck_assert_ptr_eq(tlsfile_error_text(ERR_PACK(ERR_LIB_SSL, 0, 0x7ffff), buf), buf);
    ck_assert_uint_gt(strlen(buf), 0);
}
END_TEST

UNIT_MAIN("tlsfile", test_pair, test_refusals, test_little_room, test_error_text)
