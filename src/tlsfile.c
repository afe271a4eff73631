#include "tlsfile.h"

#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/ui.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

const char *tlsfile_error_text(unsigned long code, char buf[TLSFILE_REASON])
{
    const char *reason = ERR_reason_error_string(code);
    if (ERR_SYSTEM_ERROR(code))
        reason = strerror_r(ERR_GET_REASON(code), buf, TLSFILE_REASON);
    if (reason == NULL)
        ERR_error_string_n(code, buf, TLSFILE_REASON);
    else if (reason != buf)
        snprintf(buf, TLSFILE_REASON, "%s", reason);
    return buf;
}

/* The ways in which OpenSSL says that a file has nothing of the kind in it. */
static bool means_nothing(unsigned long code)
{
    int lib = ERR_GET_LIB(code), reason = ERR_GET_REASON(code);
    return (lib == ERR_LIB_PEM && reason == PEM_R_NO_START_LINE) ||
           (lib == ERR_LIB_OSSL_DECODER && reason == ERR_R_UNSUPPORTED) ||
           (lib == ERR_LIB_X509 && reason == X509_R_NO_CERTIFICATE_OR_CRL_FOUND);
}

int tlsfile_refuse(const char *setting, const char *path, const char *lacks, char *err, size_t errlen)
{
    unsigned long code = ERR_peek_error(); /* the first is the cause, those behind it say who passed it on */
    char reason[TLSFILE_REASON];
    if (means_nothing(code))
        snprintf(err, errlen, "%s: \"%s\" has no %s in it", setting, path, lacks);
    else
        snprintf(err, errlen, "%s: \"%s\": %s", setting, path, tlsfile_error_text(code, reason));
    ERR_clear_error();
    return -1;
}

void tlsfile_ask_nobody(void)
{
    UI_set_default_method(UI_null());
}

/* Notes that a passphrase was asked for, and gives none. */
static int on_passphrase(char *buf, int size, int writing, void *asked)
{
    (void)writing;
    if (size > 0)
        buf[0] = '\0';
    *(bool *)asked = true;
    return -1;
}

__attribute__((format(printf, 3, 4))) static int refuse_key(char *err, size_t errlen, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    vsnprintf(err, errlen, format, args);
    va_end(args);
    ERR_clear_error();
    return -1;
}

int tlsfile_load_pair(SSL_CTX *context, const struct tlsfile_pair *pair, char *err, size_t errlen)
{
    bool asked = false;
    if (SSL_CTX_use_certificate_chain_file(context, pair->certificate) != 1)
        return tlsfile_refuse(pair->certificate_setting, pair->certificate, "certificate", err, errlen);
    SSL_CTX_set_default_passwd_cb(context, on_passphrase);
    SSL_CTX_set_default_passwd_cb_userdata(context, &asked);
    int used = SSL_CTX_use_PrivateKey_file(context, pair->key, SSL_FILETYPE_PEM);
    SSL_CTX_set_default_passwd_cb(context, NULL);
    SSL_CTX_set_default_passwd_cb_userdata(context, NULL);
    if (asked)
        return refuse_key(err, errlen, "%s: \"%s\" is encrypted, and nobody is there to give the passphrase",
                          pair->key_setting, pair->key);
    if (used != 1 && ERR_GET_LIB(ERR_peek_error()) != ERR_LIB_X509)
        return tlsfile_refuse(pair->key_setting, pair->key, "private key", err, errlen);
    if (SSL_CTX_check_private_key(context) != 1)
        return refuse_key(err, errlen, "%s: \"%s\" is not the key of the certificate in \"%s\"", pair->key_setting,
                          pair->key, pair->certificate);
    return 0;
}
