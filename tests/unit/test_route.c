#include "http/route.h"

#include "unit.h"

#include <stdio.h>
#include <string.h>

/* The answers of a table are never called here: a match only names one. */
static void answer(const struct conn *conn, const struct http_request *request, struct bytes parameter,
                   struct http_reply *reply, const void *shared)
{
    (void)conn;
    (void)request;
    (void)parameter;
    (void)reply;
    (void)shared;
}

static const struct http_route table[] = {
    { "GET", "/", answer },         { "GET", "/healthz", answer },
    { "POST", "/healthz", answer }, { "PUT", "/only", answer },
    { "GET", "/:name", answer },    { "GET", "/deep/:name", answer },
    { "DELETE", "/:id", answer },   { 0 },
};

static struct bytes text(const char *string)
{
    return (struct bytes){ .data = string, .len = strlen(string) };
}

/* "200 /:name Ada": status, pattern, parameter. The URI and the buffer end where they must, for a sanitizer to see. */
static const char *found(const char *method, const char *uri)
{
    static char said[256];
    size_t len = strlen(uri);
    char *raw = malloc(len), *buf = malloc(len);
    ck_assert(raw != NULL && buf != NULL);
    memcpy(raw, uri, len);
    struct http_match match = http_route_find(table, text(method), (struct bytes){ raw, len }, buf);
    ck_assert((match.route != NULL) == (match.status == 200 || match.status == 400));
    if (match.status != 200)
        snprintf(said, sizeof said, "%u", match.status);
    else
        snprintf(said, sizeof said, "200 %s %.*s", match.route->pattern, (int)match.parameter.len,
                 match.parameter.data);
    free(raw);
    free(buf);
    return said;
}

static const char *allowed(const char *uri)
{
    static char list[128];
    http_route_allow(table, text(uri), list, sizeof list);
    return list;
}

START_TEST(test_paths)
{
    ck_assert_str_eq(found("GET", "/"), "200 / ");
    ck_assert_str_eq(found("GET", "/Ada"), "200 /:name Ada");
    ck_assert_str_eq(found("GET", "/deep/Ada"), "200 /deep/:name Ada");
    ck_assert_str_eq(found("GET", "/healthz"), "200 /healthz ");
    ck_assert_str_eq(found("GET", "/health"), "200 /:name health");
    ck_assert_str_eq(found("GET", "/healthzz"), "200 /:name healthzz");
    ck_assert_str_eq(found("GET", "/Healthz"), "200 /:name Healthz");
    ck_assert_str_eq(found("GET", "/deep"), "200 /:name deep");
    ck_assert_str_eq(found("GET", "/deep/"), "404");
    ck_assert_str_eq(found("GET", "/a/b"), "404");
    ck_assert_str_eq(found("GET", "/a/"), "404");
    ck_assert_str_eq(found("GET", "//"), "404");
    ck_assert_str_eq(found("GET", "//a"), "404");
    ck_assert_str_eq(found("GET", "/deep/a/b"), "404");
    ck_assert_str_eq(found("GET", "/."), "200 /:name .");
    ck_assert_str_eq(found("GET", "/.."), "200 /:name ..");
}
END_TEST

START_TEST(test_query_is_ignored)
{
    ck_assert_str_eq(found("GET", "/?"), "200 / ");
    ck_assert_str_eq(found("GET", "/?/a/b"), "200 / ");
    ck_assert_str_eq(found("GET", "/Ada?x=y?z"), "200 /:name Ada");
    ck_assert_str_eq(found("GET", "/Ada?%00"), "200 /:name Ada");
    ck_assert_str_eq(found("GET", "/a/b?"), "404");
    ck_assert_str_eq(found("GET", "?x"), "200 / "); /* of http://host?x */
}
END_TEST

START_TEST(test_methods)
{
    ck_assert_str_eq(found("HEAD", "/Ada"), "200 /:name Ada");
    ck_assert_str_eq(found("HEAD", "/a/b"), "404");
    ck_assert_str_eq(found("HEAD", "/only"), "200 /:name only");
    ck_assert_str_eq(found("POST", "/healthz"), "200 /healthz ");
    ck_assert_str_eq(found("POST", "/"), "405");
    ck_assert_str_eq(found("POST", "/Ada"), "405");
    ck_assert_str_eq(found("POST", "/a/b"), "404");
    ck_assert_str_eq(found("DELETE", "/healthz"), "200 /:id healthz");
    ck_assert_str_eq(found("GET", "/only"), "200 /:name only");
    ck_assert_str_eq(found("get", "/"), "405");
    ck_assert_str_eq(found("GE", "/"), "405");
    ck_assert_str_eq(found("GETS", "/"), "405");
}
END_TEST

/* RFC 3986 section 2.4: once, and after the path was taken apart. */
START_TEST(test_decoding)
{
    ck_assert_str_eq(found("GET", "/%41%64%61"), "200 /:name Ada");
    ck_assert_str_eq(found("GET", "/%2541"), "200 /:name %41");
    ck_assert_str_eq(found("GET", "/%252541"), "200 /:name %2541");
    ck_assert_str_eq(found("GET", "/a%2Fb"), "200 /:name a/b");
    ck_assert_str_eq(found("GET", "/%2f"), "200 /:name /");
    ck_assert_str_eq(found("GET", "/a%2Fb/c"), "404");
    ck_assert_str_eq(found("GET", "/a%3Fb"), "200 /:name a?b");
    ck_assert_str_eq(found("GET", "/a%23b"), "200 /:name a#b");
    ck_assert_str_eq(found("GET", "/a+b"), "200 /:name a+b");
    ck_assert_str_eq(found("GET", "/%20"), "200 /:name  ");
    ck_assert_str_eq(found("GET", "/%c3%Bc"), "200 /:name \xC3\xBC");
    ck_assert_str_eq(found("GET", "/%F0%9F%98%80"), "200 /:name \xF0\x9F\x98\x80");
    ck_assert_str_eq(found("GET", "/%7Ename%7d"), "200 /:name ~name}");
}
END_TEST

START_TEST(test_parameter_is_text)
{
    static const char *const bad[] = {
        "%00",          "%01",          "%09",       "%0A",       "%0D",       "%0d%0a",
        "%1B",          "%1F",          "%7F",       "%C2%80",    "%C2%85",    "%C2%9F",       /* control characters */
        "%80",          "%BF",          "%C3",       "%C3%28",    "%E2%82",    "%F0%9F%98",    /* cut short */
        "%C0%AF",       "%C1%BF",       "%C0%80",    "%E0%80%AF", "%E0%9F%BF", "%F0%80%80%AF", /* overlong */
        "%F0%8F%BF%BF", "%ED%A0%80",    "%ED%BF%BF",                                           /* surrogates */
        "%F4%90%80%80", "%F5%80%80%80", "%FE",       "%FF",                                    /* over U+10FFFF */
    };
    char uri[64];
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        snprintf(uri, sizeof uri, "/%s", bad[i]);
        ck_assert_msg(strcmp(found("GET", uri), "400") == 0, "%s", uri);
        snprintf(uri, sizeof uri, "/Ada%sx?y", bad[i]);
        ck_assert_msg(strcmp(found("HEAD", uri), "400") == 0, "%s", uri);
        ck_assert_msg(strcmp(found("POST", uri), "405") == 0, "%s", uri);
    }
}
END_TEST

/* The methods of a path, each once, HEAD with GET (RFC 9110 sections 9.3.2 and 10.2.1). */
START_TEST(test_allow)
{
    ck_assert_str_eq(allowed("/"), "GET, HEAD");
    ck_assert_str_eq(allowed("/healthz"), "GET, HEAD, POST, DELETE");
    ck_assert_str_eq(allowed("/only"), "PUT, GET, HEAD, DELETE");
    ck_assert_str_eq(allowed("/Ada?x"), "GET, HEAD, DELETE");
    ck_assert_str_eq(allowed("/deep/Ada"), "GET, HEAD");
    ck_assert_str_eq(allowed("/a/b"), "");
    ck_assert_str_eq(allowed(""), "GET, HEAD, POST, PUT, DELETE");
}
END_TEST

/* One method's name within another's. */
START_TEST(test_allow_names_every_method)
{
    static const struct http_route names[] = {
        { "UNLOCK", "/", answer }, { "LOCK", "/", answer },  { "PROPPATCH", "/", answer },
        { "PATCH", "/", answer },  { "PATCH", "/", answer }, { 0 },
    };
    char list[128];
    http_route_allow(names, text("/"), list, sizeof list);
    ck_assert_str_eq(list, "UNLOCK, LOCK, PROPPATCH, PATCH");
}
END_TEST

START_TEST(test_allow_is_cut)
{
    for (size_t size = 1; size < 40; size++) {
        char *list = malloc(size);
        http_route_allow(table, text(""), list, size);
        ck_assert_uint_lt(strlen(list), size);
        ck_assert_mem_eq(list, "GET, HEAD, POST, PUT, DELETE", strlen(list));
        free(list);
    }
}
END_TEST

START_TEST(test_empty_table)
{
    static const struct http_route empty[] = { { 0 } };
    char buf[8], list[8] = "x";
    ck_assert_uint_eq(http_route_find(empty, text("GET"), text("/"), buf).status, 404);
    http_route_allow(empty, text("/"), list, sizeof list);
    ck_assert_str_eq(list, "");
}
END_TEST

UNIT_MAIN("route", test_paths, test_query_is_ignored, test_methods, test_decoding, test_parameter_is_text, test_allow,
          test_allow_names_every_method, test_allow_is_cut, test_empty_table)
