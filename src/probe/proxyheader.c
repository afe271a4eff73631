#include "probe/proxyheader.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

/* One end, as the header has it. */
struct end {
    struct in6_addr address; /* of IPv4 the first 4 bytes */
    in_port_t port;          /* in network order, as the address */
};

/* False when it is no internet address. */
static bool end_from(const struct sockaddr_storage *from, bool v6, struct end *end)
{
    static const unsigned char mapped[12] = { [10] = 0xFF, [11] = 0xFF };
    const struct sockaddr_in *in = (const struct sockaddr_in *)from;
    const struct sockaddr_in6 *in6 = (const struct sockaddr_in6 *)from;
    memset(end, 0, sizeof *end);
    if (from->ss_family == AF_INET6) {
        end->address = in6->sin6_addr;
        end->port = in6->sin6_port;
        return true;
    }
    if (from->ss_family != AF_INET)
        return false;
    if (v6)
        memcpy(&end->address, mapped, sizeof mapped);
    memcpy((char *)&end->address + (v6 ? sizeof mapped : 0), &in->sin_addr, sizeof in->sin_addr);
    end->port = in->sin_port;
    return true;
}

/* PROXY protocol section 2.1 */
static size_t write_v1(char *out, bool v6, const struct end *source, const struct end *destination)
{
    char from[INET6_ADDRSTRLEN], to[INET6_ADDRSTRLEN];
    int family = v6 ? AF_INET6 : AF_INET;
    inet_ntop(family, &source->address, from, sizeof from);
    inet_ntop(family, &destination->address, to, sizeof to);
    return (size_t)snprintf(out, PROXYHEADER_MAX, "PROXY TCP%c %s %s %u %u\r\n", v6 ? '6' : '4', from, to,
                            ntohs(source->port), ntohs(destination->port));
}

/* PROXY protocol section 2.2: signature, version and command, family and transport, length, addresses, ports */
static size_t write_v2(char *out, bool known, bool v6, const struct end *source, const struct end *destination)
{
    static const char signature[12] = "\r\n\r\n\0\r\nQUIT\n";
    size_t len = v6 ? sizeof(struct in6_addr) : sizeof(struct in_addr), at = 16;
    memcpy(out, signature, sizeof signature);
    out[12] = known ? 0x21 : 0x20; /* PROXY, or LOCAL */
    out[13] = (char)(known ? (v6 ? 0x21 : 0x11) : 0);
    out[14] = 0;
    out[15] = (char)(known ? 2 * len + 2 * sizeof(in_port_t) : 0);
    if (!known)
        return at;
    memcpy(out + at, &source->address, len);
    memcpy(out + at + len, &destination->address, len);
    at += 2 * len;
    memcpy(out + at, &source->port, sizeof(in_port_t));
    memcpy(out + at + sizeof(in_port_t), &destination->port, sizeof(in_port_t));
    return at + 2 * sizeof(in_port_t);
}

size_t proxyheader_write(char out[PROXYHEADER_MAX], int version, const struct sockaddr_storage *source,
                         const struct sockaddr_storage *destination)
{
    bool v6 = source->ss_family == AF_INET6 || destination->ss_family == AF_INET6;
    struct end from, to;
    bool known = end_from(source, v6, &from) && end_from(destination, v6, &to);
    if (version == 2)
        return write_v2(out, known, v6, &from, &to);
    return known ? write_v1(out, v6, &from, &to) : (size_t)snprintf(out, PROXYHEADER_MAX, "PROXY UNKNOWN\r\n");
}
