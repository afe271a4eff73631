/*
 * secure: TLS 1.3 on a non-blocking socket for the benchmark's own programs, in the shape of recv(2) and send(2).
 *
 * All connections use one suite and one group, so that every server does the same arithmetic. An error of TLS is told
 * on standard error and given as -1 with errno EPROTO.
 */
#ifndef BENCH_SECURE_H
#define BENCH_SECURE_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

struct ssl_st;

/* What secure_new makes: one of the next two comes first. A failure is told and ends the program. */
void secure_client(bool resume); /* resume: each connection resumes the session that came last */
void secure_server(const char *certificate, const char *key);

/* The handshake is done by the first calls of secure_recv and secure_send. */
struct ssl_st *secure_new(int fd);

/* As recv; 0 is the peer's close_notify. */
ssize_t secure_recv(struct ssl_st *ssl, void *data, size_t size);

/* As send, of at most one record. EAGAIN: see secure_wants_read. */
ssize_t secure_send(struct ssl_st *ssl, const void *data, size_t size);

/* Whether the last call waits to read. */
bool secure_wants_read(const struct ssl_st *ssl);

/* Whether the handshake is over and resumed a session. */
bool secure_resumed(const struct ssl_st *ssl);

/* Says close_notify. */
void secure_shutdown(struct ssl_st *ssl);

/* Takes NULL. The socket stays open. */
void secure_free(struct ssl_st *ssl);

#endif
