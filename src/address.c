#include "address.h"

#include "text.h"

#include <net/if.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/un.h>

#define HOST_MAX 256

/* Splits "HOST:PORT" or "[V6]:PORT"; port points into text. */
static int address_split(const char *text, char host[HOST_MAX], const char **port, char *err, size_t errlen)
{
    const char *begin = text, *end, *colon = strrchr(text, ':');
    bool sound = strpbrk(text, " \t") == NULL;
    if (text[0] == '[') {
        begin = text + 1;
        end = strchr(text, ']');
        colon = end != NULL && end[1] == ':' ? end + 1 : NULL;
    } else {
        end = colon;
        if (sound && colon != NULL && memchr(text, ':', (size_t)(colon - text)) != NULL) {
            snprintf(err, errlen, "\"%s\" needs brackets around the IPv6 address, as in [::1]:8888", text);
            return -1;
        }
    }
    if (!sound || colon == NULL || end == begin || colon[1] == '\0') {
        snprintf(err, errlen, "\"%s\" is not HOST:PORT or [V6]:PORT", text);
        return -1;
    }
    if (end - begin >= HOST_MAX) {
        snprintf(err, errlen, "the host name in \"%s\" is too long", text);
        return -1;
    }
    memcpy(host, begin, (size_t)(end - begin));
    host[end - begin] = '\0';
    *port = colon + 1;
    return 0;
}

static int port_check(const char *port, char *err, size_t errlen)
{
    size_t digits = strspn(port, "0123456789");
    if (port[digits] == '\0' && digits <= 5 && strtoul(port, NULL, 10) <= 65535)
        return 0;
    snprintf(err, errlen, "port \"%s\" is not a number from 0 to 65535", port);
    return -1;
}

static int address_add(struct address *list, int count, const struct addrinfo *info)
{
    struct address *a = &list[count];
    memset(a, 0, sizeof *a);
    memcpy(&a->sa, info->ai_addr, info->ai_addrlen);
    a->len = info->ai_addrlen;
    for (int i = 0; i < count; i++)
        if (list[i].len == a->len && memcmp(&list[i].sa, &a->sa, a->len) == 0)
            return count;
    return count + 1;
}

int address_parse(const char *text, struct address *list, int max, char *err, size_t errlen)
{
    char host[HOST_MAX];
    const char *port;
    if (address_split(text, host, &port, err, errlen) < 0 || port_check(port, err, errlen) < 0)
        return -1;

    struct addrinfo hints = { .ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE | AI_NUMERICSERV }, *found;
    if (text[0] == '[') {
        hints.ai_family = AF_INET6;
        hints.ai_flags |= AI_NUMERICHOST;
    }
    int error = getaddrinfo(host, port, &hints, &found);
    if (error != 0) {
        if (text[0] == '[')
            snprintf(err, errlen, "\"%s\" is not an IPv6 address", host);
        else
            snprintf(err, errlen, "\"%s\" does not resolve: %s", host, gai_strerror(error));
        return -1;
    }
    int count = 0;
    for (const struct addrinfo *i = found; i != NULL && count < max; i = i->ai_next)
        if (i->ai_family == AF_INET || i->ai_family == AF_INET6)
            count = address_add(list, count, i);
    freeaddrinfo(found);
    return count;
}

/* Without getnameinfo(), for an access log writes one a request. */
static void format_v4(const struct sockaddr_in *v4, char *at)
{
    const unsigned char *bytes = (const unsigned char *)&v4->sin_addr;
    for (size_t i = 0; i < 4; i++) {
        at += text_number(at, bytes[i]);
        *at++ = i < 3 ? '.' : ':';
    }
    at[text_number(at, ntohs(v4->sin_port))] = '\0';
}

const char *address_format(const struct address *a, char buf[ADDRESS_TEXT])
{
    char host[INET6_ADDRSTRLEN + 1 + IF_NAMESIZE] = "?"; /* with the scope of a link-local address */
    switch (a->sa.any.sa_family) {
    case AF_INET:
        format_v4(&a->sa.v4, buf);
        break;
    case AF_UNIX:
        snprintf(buf, ADDRESS_TEXT, "unix");
        break;
    default:
        getnameinfo(&a->sa.any, a->len, host, sizeof host, NULL, 0, NI_NUMERICHOST);
        snprintf(buf, ADDRESS_TEXT, "[%s]:%u", host, address_port(a));
    }
    return buf;
}

const char *address_of_socket(int fd, char buf[ADDRESS_SOCKET_TEXT])
{
    struct address a = { 0 };
    struct sockaddr_un un = { .sun_family = AF_UNSPEC };
    socklen_t len = sizeof un;
    getsockname(fd, (struct sockaddr *)&un, &len);
    if (len > sizeof un) /* Linux counts the NUL behind the longest path */
        len = sizeof un;
    size_t path = len > offsetof(struct sockaddr_un, sun_path) ? len - offsetof(struct sockaddr_un, sun_path) : 0;
    if (un.sun_family == AF_UNIX) {
        bool abstract = path > 0 && un.sun_path[0] == '\0';
        snprintf(buf, ADDRESS_SOCKET_TEXT, "unix:%s%.*s", abstract ? "@" : "", (int)(abstract ? path - 1 : path),
                 un.sun_path + abstract);
        return buf;
    }
    a.len = len < sizeof a.sa ? len : sizeof a.sa;
    memcpy(&a.sa, &un, a.len);
    return address_format(&a, buf);
}

static void mask_bits(unsigned char *bytes, size_t count, unsigned prefix)
{
    for (size_t i = 0; i < count; i++) {
        unsigned kept = prefix > 8 ? 8 : prefix;
        bytes[i] &= (unsigned char)(0xFF00 >> kept);
        prefix -= kept;
    }
}

struct address address_network(const struct address *a, unsigned prefix_v4, unsigned prefix_v6)
{
    struct address network;
    memset(&network, 0, sizeof network); /* all of the union, so that networks compare as bytes */
    network.len = a->sa.any.sa_family != AF_UNIX ? a->len : sizeof(sa_family_t); /* whatever name it has bound */
    network.sa.any.sa_family = a->sa.any.sa_family;
    if (a->sa.any.sa_family == AF_INET) {
        network.sa.v4.sin_addr = a->sa.v4.sin_addr;
    } else if (a->sa.any.sa_family == AF_INET6 && IN6_IS_ADDR_V4MAPPED(&a->sa.v6.sin6_addr)) {
        network.len = sizeof network.sa.v4;
        network.sa.v4.sin_family = AF_INET;
        memcpy(&network.sa.v4.sin_addr, &a->sa.v6.sin6_addr.s6_addr[12], sizeof network.sa.v4.sin_addr);
    } else if (a->sa.any.sa_family == AF_INET6) {
        network.sa.v6.sin6_addr = a->sa.v6.sin6_addr;
        network.sa.v6.sin6_scope_id = a->sa.v6.sin6_scope_id;
        mask_bits(network.sa.v6.sin6_addr.s6_addr, sizeof network.sa.v6.sin6_addr, prefix_v6);
    }
    if (network.sa.any.sa_family == AF_INET)
        mask_bits((unsigned char *)&network.sa.v4.sin_addr, sizeof network.sa.v4.sin_addr, prefix_v4);
    return network;
}

unsigned address_port(const struct address *a)
{
    return ntohs(a->sa.any.sa_family == AF_INET6 ? a->sa.v6.sin6_port : a->sa.v4.sin_port);
}

static bool address_is_wildcard(const struct address *a)
{
    if (a->sa.any.sa_family == AF_INET6)
        return memcmp(&a->sa.v6.sin6_addr, &in6addr_any, sizeof in6addr_any) == 0;
    return a->sa.v4.sin_addr.s_addr == htonl(INADDR_ANY);
}

bool address_overlaps(const struct address *a, const struct address *b)
{
    if (a->sa.any.sa_family != b->sa.any.sa_family || address_port(a) != address_port(b) || address_port(a) == 0)
        return false;
    if (address_is_wildcard(a) || address_is_wildcard(b))
        return true;
    if (a->sa.any.sa_family == AF_INET6)
        return memcmp(&a->sa.v6.sin6_addr, &b->sa.v6.sin6_addr, sizeof a->sa.v6.sin6_addr) == 0 &&
               a->sa.v6.sin6_scope_id == b->sa.v6.sin6_scope_id;
    return a->sa.v4.sin_addr.s_addr == b->sa.v4.sin_addr.s_addr;
}
