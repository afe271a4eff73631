#include "record.h"

#include "pki.h"
#include "unit.h"

#include <openssl/err.h>
#include <openssl/ssl.h>
#include <stdbool.h>
#include <string.h>

#define BIG 70000

/* A client in memory beside a record. */
struct peers {
    struct record *server;
    SSL *client;
    BIO *from_server, *to_server;
    struct output wire;
    char *said; /* what the server has read */
    size_t said_len;
    enum record_verdict verdict;
};

static struct tls *tls;
static struct identity id;

static void setup_tls(void)
{
    struct tls_settings settings = { .certificates = "", .keys = "", .client_ca = "", .ciphersuites = "" };
    char err[512] = "";
    id = identity_make("DNS:a.example");
    settings.ciphers = "ECDHE+AESGCM";
    settings.certificates = id.certificate_file;
    settings.keys = id.key_file;
    ck_assert_msg(tls_load(&settings, "a", NULL, &tls, NULL, NULL, err, sizeof err) == 0, "%s", err);
}

static void free_tls(void)
{
    tls_free(tls);
    identity_free(&id);
}

static struct peers meet(int version)
{
    SSL_CTX *context = SSL_CTX_new(TLS_client_method());
    SSL_CTX_set_max_proto_version(context, version);
    struct peers p = { .server = record_open(tls), .client = SSL_new(context), .said = malloc(4 * BIG) };
    SSL_CTX_free(context);
    p.from_server = BIO_new(BIO_s_mem());
    p.to_server = BIO_new(BIO_s_mem());
    BIO_set_mem_eof_return(p.from_server, -1);
    SSL_set_bio(p.client, p.from_server, p.to_server);
    SSL_set_connect_state(p.client);
    ck_assert_ptr_nonnull(p.server);
    ck_assert_int_eq(output_init(&p.wire), 0);
    return p;
}

static void part(struct peers *p)
{
    record_free(p->server);
    SSL_free(p->client);
    output_free(&p->wire);
    free(p->said);
}

/* What the server has to say reaches the client. */
static void deliver(struct peers *p)
{
    for (int i = 0; i < p->wire.count; i++)
        BIO_write(p->from_server, p->wire.vec[i].iov_base, (int)p->wire.vec[i].iov_len);
    output_reset(&p->wire);
}

/* Gives the server these bytes, in memory of exactly their size, with room of exactly the size promised. */
static void give(struct peers *p, const char *data, size_t len)
{
    char *exact = malloc(len + 1), *plain = malloc(len + RECORD_MAX);
    size_t said;
    memcpy(exact, data, len);
    p->verdict = record_read(p->server, (struct bytes){ .data = exact, .len = len }, plain, &said, &p->wire);
    memcpy(p->said + p->said_len, plain, said);
    p->said_len += said;
    free(exact);
    free(plain);
}

/* What the client has to say reaches the server, in pieces of that size. */
static void carry(struct peers *p, size_t size)
{
    char *data;
    size_t len = (size_t)BIO_get_mem_data(p->to_server, &data);
    for (size_t at = 0; at < len; at += size)
        give(p, data + at, len - at < size ? len - at : size);
    (void)BIO_reset(p->to_server);
}

static void shake(struct peers *p, size_t size)
{
    for (int i = 0; i < 4; i++) {
        SSL_do_handshake(p->client);
        carry(p, size);
        deliver(p);
    }
    ck_assert_int_eq(p->verdict, RECORD_MORE);
    ck_assert(record_ready(p->server));
    ck_assert(SSL_is_init_finished(p->client));
}

/* How many records there are on the wire. */
static int count_records(const struct output *wire)
{
    int count = 0;
    ck_assert_int_eq(wire->count, 1);
    const unsigned char *p = wire->vec[0].iov_base;
    for (size_t at = 0; at < wire->len; at += 5U + ((size_t)p[at + 3] << 8 | p[at + 4]))
        count++;
    return count;
}

static void pattern(char *data, size_t len, unsigned seed)
{
    for (size_t i = 0; i < len; i++) {
        seed = seed * 1103515245 + 12345;
        data[i] = (char)(seed >> 16);
    }
}

static void client_reads(struct peers *p, const char *data, size_t len)
{
    char *got = malloc(len + 1);
    size_t at = 0;
    for (int n; at < len && (n = SSL_read(p->client, got + at, (int)(len + 1 - at))) > 0;)
        at += (size_t)n;
    ck_assert_uint_eq(at, len);
    ck_assert(memcmp(got, data, len) == 0);
    free(got);
}

/* Whole, and split everywhere; then bytes of every size both ways. */
START_TEST(test_both_ways)
{
    static const size_t sizes[] = { 1, 5, 16383, 16384, 16385, 2 * 16384, BIG }, pieces[] = { 1, 7, 4096, 1 << 20 };
    char *data = malloc(BIG);
    setup_tls();
    pattern(data, BIG, 1);
    for (int version = TLS1_2_VERSION; version <= TLS1_3_VERSION; version++)
        for (size_t k = 0; k < sizeof pieces / sizeof pieces[0]; k++) {
            struct peers p = meet(version);
            ck_assert(!record_ready(p.server));
            shake(&p, pieces[k]);
            ck_assert_int_eq(SSL_version(p.client), version);
            for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
                p.said_len = 0;
                ck_assert_int_eq(SSL_write(p.client, data, (int)sizes[i]), (int)sizes[i]);
                carry(&p, pieces[k]);
                ck_assert_int_eq(p.verdict, RECORD_MORE);
                ck_assert_uint_eq(p.said_len, sizes[i]);
                ck_assert(memcmp(p.said, data, sizes[i]) == 0);
                struct output plain;
                output_init(&plain);
                output_borrow(&plain, p.said, p.said_len);
                ck_assert(record_write(p.server, &plain, &p.wire));
                output_free(&plain);
                deliver(&p);
                client_reads(&p, data, sizes[i]);
            }
            part(&p);
        }
    free(data);
    free_tls();
}
END_TEST

/* A client may say something in one piece with the end of its handshake. */
START_TEST(test_bytes_behind_the_handshake)
{
    setup_tls();
    struct peers p = meet(TLS1_3_VERSION);
    SSL_do_handshake(p.client);
    carry(&p, 1 << 20);
    deliver(&p);
    ck_assert(!record_ready(p.server));
    ck_assert_int_eq(SSL_do_handshake(p.client), 1);
    ck_assert_int_eq(SSL_write(p.client, "early bird", 10), 10);
    carry(&p, 1 << 20);
    ck_assert(record_ready(p.server));
    ck_assert_uint_eq(p.said_len, 10);
    ck_assert(memcmp(p.said, "early bird", 10) == 0);
    part(&p);
    free_tls();
}
END_TEST

/* A record that lacks a byte, and then this byte with much behind it: more comes out than goes in, as promised. */
START_TEST(test_more_than_came)
{
    char *data = malloc(BIG), *wire;
    setup_tls();
    pattern(data, BIG, 2);
    struct peers p = meet(TLS1_3_VERSION);
    shake(&p, 1 << 20);
    SSL_write(p.client, data, BIG);
    size_t len = (size_t)BIO_get_mem_data(p.to_server, &wire), first = RECORD_MAX + 5 + 17;
    give(&p, wire, first - 1);
    ck_assert_uint_eq(p.said_len, 0);
    give(&p, wire + first - 1, len - first + 1);
    ck_assert_uint_eq(p.said_len, BIG);
    ck_assert(memcmp(p.said, data, BIG) == 0);
    part(&p);
    free(data);
    free_tls();
}
END_TEST

/* Small ranges go out in one record, and full ones in as many as they fill. */
START_TEST(test_gathers)
{
    static const struct {
        size_t sizes[OUTPUT_VECTORS];
        int records;
    } cases[] = {
        { { 1 }, 1 },
        { { 10, 20, 30 }, 1 },
        { { 16383, 1 }, 1 },
        { { 16383, 2 }, 2 },
        { { 16384, 1 }, 2 },
        { { 1, 32768 }, 3 },
        { { 1000, 1000, 1000, 1000, 1000, 1000, 1000, 1000, 1000, 1000, 1000, 1000, 1000, 1000, 1000, 1000 }, 1 },
        { { 40000 }, 3 },
    };
    static char data[OUTPUT_VECTORS][40001]; /* the ranges do not touch */
    char *all = malloc(BIG);
    setup_tls();
    struct peers p = meet(TLS1_3_VERSION);
    shake(&p, 1 << 20);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct output plain;
        size_t len = 0;
        output_init(&plain);
        for (int k = 0; k < OUTPUT_VECTORS && cases[i].sizes[k] > 0; k++) {
            pattern(data[k], cases[i].sizes[k], (unsigned)k);
            output_borrow(&plain, data[k], cases[i].sizes[k]);
            memcpy(all + len, data[k], cases[i].sizes[k]);
            len += cases[i].sizes[k];
        }
        ck_assert(record_write(p.server, &plain, &p.wire));
        ck_assert_int_eq(count_records(&p.wire), cases[i].records);
        deliver(&p);
        client_reads(&p, all, len);
        output_free(&plain);
    }
    part(&p);
    free(all);
    free_tls();
}
END_TEST

static void check_closed(struct peers *p)
{
    char byte;
    deliver(p);
    int n = SSL_read(p->client, &byte, 1);
    ck_assert_int_eq(SSL_get_error(p->client, n), SSL_ERROR_ZERO_RETURN);
}

/* RFC 8446 section 6.1: the peer's close_notify, then everything that is still to be said, then ours. */
START_TEST(test_half_close)
{
    setup_tls();
    for (int version = TLS1_2_VERSION; version <= TLS1_3_VERSION; version++) {
        struct peers p = meet(version);
        struct output plain;
        shake(&p, 1 << 20);
        SSL_write(p.client, "last", 4);
        SSL_shutdown(p.client);
        carry(&p, version == TLS1_2_VERSION ? 1 : 1 << 20);
        ck_assert_int_eq(p.verdict, RECORD_CLOSED);
        ck_assert_uint_eq(p.said_len, 4);
        give(&p, "ignored", 7);
        ck_assert_int_eq(p.verdict, RECORD_CLOSED);
        ck_assert_uint_eq(p.said_len, 4);
        output_init(&plain);
        output_borrow(&plain, "echo", 4);
        ck_assert(record_write(p.server, &plain, &p.wire));
        record_close(p.server, &p.wire);
        deliver(&p);
        client_reads(&p, "echo", 4);
        check_closed(&p);
        ck_assert(!record_write(p.server, &plain, &p.wire));
        output_free(&plain);
        part(&p);
    }
    free_tls();
}
END_TEST

/* Ours first. */
START_TEST(test_close)
{
    setup_tls();
    struct peers p = meet(TLS1_3_VERSION);
    record_close(p.server, &p.wire); /* nothing to close yet */
    ck_assert_uint_eq(p.wire.len, 0);
    shake(&p, 1 << 20);
    record_close(p.server, &p.wire);
    check_closed(&p);
    SSL_write(p.client, "still", 5);
    SSL_shutdown(p.client);
    carry(&p, 1 << 20);
    ck_assert_int_eq(p.verdict, RECORD_CLOSED);
    ck_assert_uint_eq(p.said_len, 5);
    part(&p);
    record_free(NULL);
    free_tls();
}
END_TEST

/* The reason is told, an alert is there to be sent, and another connection of the thread knows nothing of it. */
START_TEST(test_failures)
{
    static const struct {
        const char *sent;
        size_t len;
        const char *reason; /* NULL: releases of OpenSSL differ */
    } cases[] = {
        { "GET / HTTP/1.1\r\n\r\n", 18, "http request" },         { "hello, world", 12, "wrong version number" },
        { "\x16\x03\x01\x00\x05\x01\x00\x00\x01\xFF", 10, NULL }, { "\x17\x03\x03\x00\x01x", 6, NULL },
        { "\x16\x03\x01\xFF\xFFxxxxxxxxxx", 15, NULL },
    };
    char reason[TLS_REASON];
    setup_tls();
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        for (size_t size = 1; size <= 64; size += 63) {
            struct peers p = meet(TLS1_3_VERSION), other = meet(TLS1_3_VERSION);
            char *waiting;
            shake(&other, 1 << 20);
            SSL_write(other.client, "x", 1);
            size_t waiting_len = (size_t)BIO_get_mem_data(other.to_server, &waiting);
            p.verdict = RECORD_MORE;
            for (size_t at = 0; at < cases[i].len && p.verdict == RECORD_MORE; at += size)
                give(&p, cases[i].sent + at, cases[i].len - at < size ? cases[i].len - at : size);
            ck_assert_int_eq(p.verdict, RECORD_FAILED);
            if (size > 1) { /* nobody need ask */
                record_reason(p.server, reason);
                ck_assert_str_ne(reason, "the peer hung up");
                ck_assert(cases[i].reason == NULL || strcmp(reason, cases[i].reason) == 0);
            }
            ck_assert(!record_ready(p.server));
            give(&other, waiting, waiting_len - 1);
            ck_assert_int_eq(other.verdict, RECORD_MORE);
            size_t alert = p.wire.len;
            record_close(p.server, &p.wire);
            ck_assert_uint_eq(p.wire.len, alert);
            part(&p);
            part(&other);
        }
    ck_assert_uint_eq(ERR_peek_error(), 0);
    free_tls();
}
END_TEST

/* A client that does not like the certificate says so. */
START_TEST(test_alert_of_client)
{
    char reason[TLS_REASON];
    setup_tls();
    struct peers p = meet(TLS1_3_VERSION);
    SSL_set_verify(p.client, SSL_VERIFY_PEER, NULL);
    SSL_do_handshake(p.client);
    carry(&p, 1 << 20);
    deliver(&p);
    SSL_do_handshake(p.client);
    ERR_clear_error();
    carry(&p, 1 << 20);
    ck_assert_int_eq(p.verdict, RECORD_FAILED);
    ck_assert_str_eq(record_reason(p.server, reason), "tlsv1 alert unknown ca");
    part(&p);
    free_tls();
}
END_TEST

/* RFC 8446 section 4.6.3: new keys are taken, and ours changed where that is asked for. */
START_TEST(test_key_update)
{
    setup_tls();
    struct peers p = meet(TLS1_3_VERSION);
    struct output plain;
    shake(&p, 1 << 20);
    output_init(&plain);
    output_borrow(&plain, "after", 5);
    for (int i = 0; i < 3; i++) {
        ck_assert_int_eq(SSL_key_update(p.client, SSL_KEY_UPDATE_REQUESTED), 1);
        p.said_len = 0;
        SSL_write(p.client, "before", 6);
        carry(&p, 1);
        ck_assert_uint_eq(p.said_len, 6);
        ck_assert(record_write(p.server, &plain, &p.wire));
        ck_assert_int_eq(count_records(&p.wire), 2);
        deliver(&p);
        client_reads(&p, "after", 5);
    }
    output_free(&plain);
    part(&p);
    free_tls();
}
END_TEST

/* A flood of them would keep all other connections waiting. */
START_TEST(test_key_update_flood)
{
    char reason[TLS_REASON];
    setup_tls();
    for (int more = 0; more <= 1; more++)
        for (int kind = SSL_KEY_UPDATE_NOT_REQUESTED; kind <= SSL_KEY_UPDATE_REQUESTED; kind++) {
            struct peers p = meet(TLS1_3_VERSION);
            int count = (kind == SSL_KEY_UPDATE_REQUESTED ? 16 : 32) + more; /* to answer counts as well */
            shake(&p, 1 << 20);
            p.said_len = 0;
            for (int i = 0; i < count; i++) {
                ck_assert_int_eq(SSL_key_update(p.client, kind), 1);
                ck_assert_int_eq(SSL_do_handshake(p.client), 1);
            }
            SSL_write(p.client, "x", 1);
            carry(&p, 1 << 20);
            ck_assert_int_eq(p.verdict, more ? RECORD_FAILED : RECORD_MORE);
            ck_assert_uint_eq(p.said_len, !more);
            if (more)
                ck_assert_str_eq(record_reason(p.server, reason), "too many key updates");
            part(&p);
        }
    free_tls();
}
END_TEST

UNIT_MAIN("record", test_both_ways, test_bytes_behind_the_handshake, test_more_than_came, test_gathers, test_half_close,
          test_close, test_failures, test_alert_of_client, test_key_update, test_key_update_flood)
