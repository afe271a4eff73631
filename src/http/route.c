#include "http/route.h"

#include "text.h"

#include <stdbool.h>
#include <stdio.h>
#include <string.h>

static bool is(struct bytes b, const char *word)
{
    return b.len == strlen(word) && memcmp(b.data, word, b.len) == 0;
}

/* The path in front of a query; "/" when there is none (RFC 9110 section 4.2.3). */
static struct bytes path_of(struct bytes uri)
{
    const char *query = memchr(uri.data, '?', uri.len);
    if (query != NULL)
        uri.len = (size_t)(query - uri.data);
    return uri.len > 0 ? uri : (struct bytes){ .data = "/", .len = 1 };
}

/* Matches byte by byte: an escaped slash is no separator. *parameter is what the pattern's :NAME stands for. */
static bool path_matches(const char *pattern, struct bytes path, struct bytes *parameter)
{
    *parameter = (struct bytes){ .data = "", .len = 0 };
    for (; *pattern != '\0' && *pattern != ':'; pattern++) {
        if (path.len == 0 || path.data[0] != *pattern)
            return false;
        bytes_skip(&path, 1);
    }
    if (*pattern == '\0')
        return path.len == 0;
    *parameter = path;
    return path.len > 0 && memchr(path.data, '/', path.len) == NULL;
}

static unsigned hex_value(char digit)
{
    return (unsigned)(digit <= '9' ? digit - '0' : (digit | 0x20) - 'a' + 10);
}

/* Percent-decodes once (RFC 3986 section 2.4). */
static struct bytes decode(struct bytes text, char *buf)
{
    size_t len = 0;
    for (size_t i = 0; i < text.len; i++)
        if (text.data[i] == '%') {
            buf[len++] = (char)(hex_value(text.data[i + 1]) << 4 | hex_value(text.data[i + 2]));
            i += 2;
        } else {
            buf[len++] = text.data[i];
        }
    return (struct bytes){ .data = buf, .len = len };
}

struct http_match http_route_find(const struct http_route *table, struct bytes method, struct bytes uri, char *buf)
{
    struct http_match match = { .status = 404 };
    struct bytes path = path_of(uri), raw;
    if (is(method, "HEAD"))
        method = (struct bytes){ .data = "GET", .len = 3 };
    for (const struct http_route *route = table; route->method != NULL; route++) {
        if (!path_matches(route->pattern, path, &raw))
            continue;
        match.status = 405;
        if (!is(method, route->method))
            continue;
        match.parameter = decode(raw, buf);
        match.route = route;
        bool text = text_is_utf8(buf, match.parameter.len) && !text_has_control(buf, match.parameter.len);
        match.status = text ? 200 : 400;
        break;
    }
    return match;
}

/* True when an earlier route of the table that is meant too has the method of this one. */
static bool is_listed(const struct http_route *table, const struct http_route *route, struct bytes uri)
{
    struct bytes raw;
    for (; table < route; table++)
        if (strcmp(table->method, route->method) == 0 &&
            (uri.len == 0 || path_matches(table->pattern, path_of(uri), &raw)))
            return true;
    return false;
}

void http_route_allow(const struct http_route *table, struct bytes uri, char *list, size_t size)
{
    size_t len = 0;
    struct bytes raw;
    list[0] = '\0';
    for (const struct http_route *route = table; route->method != NULL && len < size; route++) {
        if ((uri.len > 0 && !path_matches(route->pattern, path_of(uri), &raw)) || is_listed(table, route, uri))
            continue;
        const char *head = strcmp(route->method, "GET") == 0 ? ", HEAD" : "";
        int n = snprintf(list + len, size - len, "%s%s%s", len > 0 ? ", " : "", route->method, head);
        len += n > 0 ? (size_t)n : 0;
    }
}
