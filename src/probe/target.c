#include "probe/target.h"

#include "http/grammar.h"
#include "text.h"

#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#define LITERAL_MAX 128 /* bytes of an address in brackets with zone and port that are looked at */

static const struct {
    const char *prefix;
    enum scheme scheme;
    uint16_t port; /* the default; 0: there is none */
} schemes[] = {
    { "tcp://", SCHEME_TCP, 7 },    { "tls://", SCHEME_TLS, 0 },       { "unix:", SCHEME_UNIX, 0 },
    { "http://", SCHEME_HTTP, 80 }, { "https://", SCHEME_HTTPS, 443 },
};

/* unix:PATH, unix:///PATH (an empty authority, RFC 3986 section 3.2) or unix:@NAME */
static int parse_unix(const char *path, struct target *t, char *err, size_t errlen)
{
    if (strncmp(path, "///", 3) == 0)
        path += 2;
    size_t len = strlen(path);
    if (path[path[0] == '@'] == '\0') {
        snprintf(err, errlen, "names no socket");
        return -1;
    }
    if (len >= sizeof t->unix_.sun_path) {
        snprintf(err, errlen, "the path of a Unix socket has at most %zu bytes", sizeof t->unix_.sun_path - 1);
        return -1;
    }
    t->unix_.sun_family = AF_UNIX;
    memcpy(t->unix_.sun_path, path, len);
    t->unix_len = offsetof(struct sockaddr_un, sun_path) + len;
    if (path[0] == '@')
        t->unix_.sun_path[0] = '\0';
    else
        t->unix_len++;
    return 0;
}

/* Labels of 1 to 63 bytes between dots (RFC 1035 section 2.3.4). */
static bool labels_are_sound(struct bytes name)
{
    size_t len = 0; /* of the label so far */
    for (size_t i = 0; i < name.len; i++) {
        len = name.data[i] == '.' ? 0 : len + 1;
        if (len > 63 || (len == 0 && (i == 0 || name.data[i - 1] == '.')))
            return false;
    }
    return len > 0;
}

/* A port of 1 to 65535; empty is the default (RFC 3986 section 3.2.3). */
static int parse_port(struct bytes port, uint16_t fallback, struct target *t, char *err, size_t errlen)
{
    unsigned number = 0;
    for (size_t i = 0; i < port.len && number <= 65535; i++)
        number = number * 10 + (unsigned)(port.data[i] - '0');
    if (port.len == 0)
        number = fallback;
    if (port.len == 0 && fallback == 0)
        snprintf(err, errlen, "needs a port, as in tls://HOST:PORT");
    else if (number == 0 || number > 65535)
        snprintf(err, errlen, "the port is not a number from 1 to 65535");
    else {
        t->port = (uint16_t)number;
        t->port_is_default = number == fallback;
        return 0;
    }
    return -1;
}

static int parse_host(struct bytes host, struct target *t, char *err, size_t errlen)
{
    bool future = host.len > 2 && host.data[0] == '[' && (host.data[1] | 0x20) == 'v'; /* IPvFuture */
    if (host.len > 2 && host.data[0] == '[') {
        bytes_skip(&host, 1);
        host.len--;
    }
    t->absolute = host.len > 0 && host.data[host.len - 1] == '.';
    host.len -= t->absolute;
    if (host.len == 0)
        snprintf(err, errlen, "names no host");
    else if (future || memchr(host.data, '%', host.len) != NULL)
        snprintf(err, errlen, "the host is neither a name nor an address");
    else if (host.len >= sizeof t->host)
        snprintf(err, errlen, "the name of a host has at most %zu bytes", sizeof t->host - 1);
    else if (!labels_are_sound(host))
        snprintf(err, errlen, "the parts of a host's name between dots have 1 to 63 bytes");
    else {
        memcpy(t->host, host.data, host.len);
        t->host[host.len] = '\0';
        return 0;
    }
    return -1;
}

/*
 * Of [ADDRESS%ZONE], or %25ZONE (RFC 6874 section 2), moves the zone to *t, and what is left of it to plain. All else
 * stays as it is.
 */
static void take_zone(struct bytes *authority, char plain[LITERAL_MAX], struct target *t)
{
    const char *end = memchr(authority->data, ']', authority->len);
    const char *begin = end != NULL ? memchr(authority->data, '%', (size_t)(end - authority->data)) : NULL;
    if (begin == NULL || authority->data[0] != '[' || authority->len > LITERAL_MAX)
        return;
    const char *zone = begin + (strncmp(begin, "%25", 3) == 0 ? 3 : 1);
    size_t len = (size_t)(end - zone), before = (size_t)(begin - authority->data);
    if (len == 0 || len >= sizeof t->zone)
        return;
    memcpy(t->zone, zone, len);
    memcpy(plain, authority->data, before);
    memcpy(plain + before, end, authority->len - (size_t)(end - authority->data));
    authority->len -= (size_t)(end - begin);
    authority->data = plain;
}

static bool is_ascii(struct bytes text)
{
    size_t i = 0;
    while (i < text.len && (unsigned char)text.data[i] < 0x80)
        i++;
    return i == text.len;
}

/* HOST[:PORT], up to where a path, query or fragment begins. */
static int parse_authority(struct bytes authority, uint16_t port, struct target *t, char *err, size_t errlen)
{
    char plain[LITERAL_MAX];
    struct bytes port_text, host;
    if (memchr(authority.data, '@', authority.len) != NULL) {
        snprintf(err, errlen, "a user name does not belong in it");
        return -1;
    }
    if (!is_ascii(authority)) {
        snprintf(err, errlen, "the name of a host must be in ASCII, which for other names begins with xn--");
        return -1;
    }
    take_zone(&authority, plain, t);
    host = authority;
    if (!grammar_host(authority, &host.len, &port_text)) {
        snprintf(err, errlen, "\"%.*s\" is not HOST[:PORT]; an IPv6 address needs brackets, as in [::1]:7",
                 authority.len > 80 ? 80 : (int)authority.len, authority.data);
        return -1;
    }
    if (parse_host(host, t, err, errlen) < 0)
        return -1;
    return parse_port(port_text, port, t, err, errlen);
}

static int parse_path(const char *path, struct target *t, char *err, size_t errlen)
{
    static const struct bytes get = { .data = "GET", .len = 3 };
    struct bytes uri;
    int len = snprintf(t->path, sizeof t->path, "%s%s", path[0] == '/' ? "" : "/", path);
    if (!target_is_http(t)) {
        snprintf(err, errlen, "takes no path");
        return path[0] == '\0' ? 0 : -1;
    }
    if ((size_t)len >= sizeof t->path)
        snprintf(err, errlen, "the path has at most %zu bytes", sizeof t->path - 1);
    else if (strchr(path, '#') != NULL)
        snprintf(err, errlen, "a fragment (#) is not sent to a server");
    else if (!grammar_target(get, (struct bytes){ .data = t->path, .len = (size_t)len }, &uri))
        snprintf(err, errlen, "the path holds what must be escaped as %%XX");
    else
        return 0;
    return -1;
}

int target_parse(const char *url, struct target *t, char *err, size_t errlen)
{
    size_t i = 0, count = sizeof schemes / sizeof schemes[0], len = strlen(url);
    *t = (struct target){ .url = url };
    if (text_has_control(url, len) || !text_is_utf8(url, len)) {
        snprintf(err, errlen, "holds a control character, or is not UTF-8");
        return -1;
    }
    while (i < count && strncasecmp(url, schemes[i].prefix, strlen(schemes[i].prefix)) != 0)
        i++;
    if (i == count) {
        snprintf(err, errlen, "does not begin with tcp://, tls://, unix:, http:// or https://");
        return -1;
    }
    const char *rest = url + strlen(schemes[i].prefix);
    t->scheme = schemes[i].scheme;
    if (t->scheme == SCHEME_UNIX)
        return parse_unix(rest, t, err, errlen);
    struct bytes authority = { .data = rest, .len = strcspn(rest, "/?#") };
    if (parse_authority(authority, schemes[i].port, t, err, errlen) < 0)
        return -1;
    return parse_path(rest + authority.len, t, err, errlen);
}
