/*
 * tlsfile: PEM files for a context of OpenSSL, and in words what is wrong with one; the same for daemon and client.
 * Sentences begin with the name of the setting at fault and a colon. Each call leaves the thread's queue of OpenSSL's
 * errors empty when it fails, and expects it to be empty.
 */
#ifndef ECHOD_TLSFILE_H
#define ECHOD_TLSFILE_H

#include <openssl/types.h>
#include <stddef.h>

#define TLSFILE_REASON 256 /* bytes that tlsfile_error_text() needs */

/* A certificate with its chain, and its key; both may be in one file. */
struct tlsfile_pair {
    const char *certificate_setting, *certificate; /* the name of the setting, and the file that it gives */
    const char *key_setting, *key;
};

/*
 * From now on nobody is asked for a passphrase, whatever is encrypted in a file: OpenSSL would ask on the terminal. For
 * the whole process; not while another thread loads a file.
 */
void tlsfile_ask_nobody(void);

/* Loads both, which must belong together. 0, or -1 with a sentence in err. */
int tlsfile_load_pair(SSL_CTX *context, const struct tlsfile_pair *pair, char *err, size_t errlen);

/* After OpenSSL has failed on a file: a sentence in err: what it lacks, or else OpenSSL's first reason. Returns -1. */
int tlsfile_refuse(const char *setting, const char *path, const char *lacks, char *err, size_t errlen);

/* The text of one error of OpenSSL, or of the system. Returns buf. */
const char *tlsfile_error_text(unsigned long code, char buf[TLSFILE_REASON]);

#endif
