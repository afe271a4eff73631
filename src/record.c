#include "record.h"

#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#define UPDATES_MAX 32 /* KeyUpdates, and answers to them, in what is read at once: nobody needs more */

struct record {
    SSL *ssl;
    struct bytes in;     /* during record_read() */
    struct output *wire; /* during a call */
};

/* --- A BIO that reads from the one and writes to the other ------------------------------------------------------ */

static BIO_METHOD *method;

static int on_read(BIO *bio, char *data, int size)
{
    struct record *record = BIO_get_data(bio);
    size_t n = record->in.len < (size_t)size ? record->in.len : (size_t)size;
    BIO_clear_retry_flags(bio);
    if (n == 0) {
        BIO_set_retry_read(bio);
        return -1;
    }
    memcpy(data, record->in.data, n);
    bytes_skip(&record->in, n);
    return (int)n;
}

/* Takes everything: when memory runs out the list says so to who sends it. */
static int on_write(BIO *bio, const char *data, int len)
{
    const struct record *record = BIO_get_data(bio);
    output_copy(record->wire, data, (size_t)len);
    return len;
}

static long on_control(BIO *bio, int command, long number, void *data)
{
    (void)bio;
    (void)number;
    (void)data;
    return command == BIO_CTRL_FLUSH ? 1 : 0;
}

static void make_method(void)
{
    method = BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, "record");
    if (method != NULL && (BIO_meth_set_read(method, on_read) != 1 || BIO_meth_set_write(method, on_write) != 1 ||
                           BIO_meth_set_ctrl(method, on_control) != 1)) {
        BIO_meth_free(method);
        method = NULL;
    }
}

struct record *record_open(const struct tls *tls)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, make_method);
    struct record *record = calloc(1, sizeof *record);
    BIO *bio = record != NULL && method != NULL ? BIO_new(method) : NULL;
    if (bio == NULL || (record->ssl = tls_accept(tls)) == NULL) {
        BIO_free(bio);
        free(record);
        ERR_clear_error();
        return NULL;
    }
    SSL_clear_mode(record->ssl, SSL_MODE_AUTO_RETRY); /* SSL_read() comes back after each message that is no data */
    BIO_set_data(bio, record);
    BIO_set_init(bio, 1);
    SSL_set_bio(record->ssl, bio, bio);
    return record;
}

void record_free(struct record *record)
{
    if (record != NULL)
        SSL_free(record->ssl);
    free(record);
}

bool record_ready(const struct record *record)
{
    return SSL_is_init_finished(record->ssl) == 1;
}

enum record_verdict record_read(struct record *record, struct bytes in, char *plain, size_t *len, struct output *wire)
{
    size_t room = in.len + RECORD_MAX;
    int n, error, updates = 0;
    *len = 0;
    record->in = in;
    record->wire = wire;
    ERR_clear_error();
    do {
        n = SSL_read(record->ssl, plain + *len, (int)(room - *len));
        error = SSL_get_error(record->ssl, n);
        *len += n > 0 ? (size_t)n : 0;
        updates += n <= 0;
    } while (n > 0 || (error == SSL_ERROR_WANT_READ && record->in.len > 0 && updates <= UPDATES_MAX));
    if (error == SSL_ERROR_WANT_READ && record->in.len == 0)
        return RECORD_MORE;
    if (error == SSL_ERROR_WANT_READ) /* each is work as for some KiB of data, and the other connections would wait */
        ERR_raise(ERR_LIB_SSL, SSL_R_TOO_MANY_KEY_UPDATES);
    return error == SSL_ERROR_ZERO_RETURN ? RECORD_CLOSED : RECORD_FAILED;
}

const char *record_reason(const struct record *record, char buf[TLS_REASON])
{
    return tls_reason(record->ssl, 0, buf);
}

static bool write_all(SSL *ssl, const char *data, size_t len)
{
    size_t written;
    while (len > 0) {
        if (SSL_write_ex(ssl, data, len, &written) != 1)
            return false;
        data += written;
        len -= written;
    }
    return true;
}

/* Several ranges: what does not fill a record is put together with what follows. */
static bool write_gathered(SSL *ssl, const struct output *plain)
{
    char part[RECORD_MAX];
    size_t used = 0;
    for (int i = 0; i < plain->count; i++) {
        const char *data = plain->vec[i].iov_base;
        for (size_t left = plain->vec[i].iov_len, n; left > 0; data += n, left -= n) {
            n = left < sizeof part - used ? left : sizeof part - used;
            memcpy(part + used, data, n);
            used += n;
            if (used == sizeof part && !write_all(ssl, part, used))
                return false;
            used %= sizeof part;
        }
    }
    return write_all(ssl, part, used);
}

bool record_write(struct record *record, const struct output *plain, struct output *wire)
{
    record->wire = wire;
    ERR_clear_error();
    if (plain->count == 1)
        return write_all(record->ssl, plain->vec[0].iov_base, plain->len);
    return write_gathered(record->ssl, plain);
}

void record_close(struct record *record, struct output *wire)
{
    record->wire = wire;
    ERR_clear_error();
    SSL_shutdown(record->ssl); /* fails, and writes nothing, where nothing is open */
    ERR_clear_error();
}
