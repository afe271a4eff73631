/*
 * http/route: which callback answers a method and a path. Pure. A new page is one row and one function.
 */
#ifndef ECHOD_HTTP_ROUTE_H
#define ECHOD_HTTP_ROUTE_H

#include "bytes.h"

struct conn;
struct http_reply;
struct http_request;

/*
 * Answers one request, which came over conn. parameter is what matched :NAME, percent-decoded: valid UTF-8 without
 * control characters; empty when the pattern has none. shared is the handler's. All bytes stay valid until the reply is
 * sent.
 */
typedef void http_answer(const struct conn *conn, const struct http_request *request, struct bytes parameter,
                         struct http_reply *reply, const void *shared);

struct http_route {
    const char *method;  /* NULL ends a table. HEAD is answered as GET is. */
    const char *pattern; /* "/", "/healthz", or with one last segment as a parameter: "/:name" */
    http_answer *answer;
};

/* What was found for a request. */
struct http_match {
    unsigned status; /* 200; 404: no such path; 405: not with this method; 400: the parameter is no text */
    const struct http_route *route;
    struct bytes parameter; /* decoded, in the buffer given */
};

/*
 * Finds the route of a path (a query behind it is ignored) whose escapes are known to be whole. buf takes the decoded
 * parameter: at least uri.len bytes.
 */
struct http_match http_route_find(const struct http_route *table, struct bytes method, struct bytes uri, char *buf);

/* Lists the methods of a path, or of all paths when uri is empty, as Allow does. Cut at size. */
void http_route_allow(const struct http_route *table, struct bytes uri, char *list, size_t size);

#endif
