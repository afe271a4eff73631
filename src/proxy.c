#include "proxy.h"

#include "bytes.h"

#include <arpa/inet.h>
#include <stdint.h>
#include <string.h>

#define ADDRESS_MAX INET6_ADDRSTRLEN /* characters; inet_pton(3) takes no longer one */
#define PORT_DIGITS 5

#define SIGNATURE   "\r\n\r\n\0\r\nQUIT\n"
#define FIXED       16 /* bytes of version 2 in front of the addresses */
#define PATH_SIZE   108UL
#define TLV_HEAD    3
#define TLV_CRC32C  0x03
#define CRC32C_SIZE 4

enum { COMMAND_LOCAL, COMMAND_PROXY };
enum { FAMILY_UNSPEC, FAMILY_INET, FAMILY_INET6, FAMILY_UNIX };
enum { TRANSPORT_UNSPEC, TRANSPORT_STREAM, TRANSPORT_DGRAM };

const char *const proxy_reason_words[PROXY_REASONS] = {
    [PROXY_SOUND] = "sound",     [PROXY_SIGNATURE] = "signature", [PROXY_SYNTAX] = "syntax",
    [PROXY_ADDRESS] = "address", [PROXY_PORT] = "port",           [PROXY_LENGTH] = "length",
    [PROXY_VERSION] = "version", [PROXY_COMMAND] = "command",     [PROXY_FAMILY] = "family",
    [PROXY_TLV] = "tlv",         [PROXY_CHECKSUM] = "checksum",
};

static enum proxy_verdict refuse(struct proxy_header *header, enum proxy_reason reason, const char *sentence)
{
    header->reason = reason;
    header->sentence = sentence;
    return PROXY_REFUSED;
}

/* Takes a word off the front: PROXY_REFUSED when another byte stands there. */
static enum proxy_verdict take(struct bytes *in, const char *word, size_t len)
{
    size_t there = in->len < len ? in->len : len;
    if (memcmp(in->data, word, there) != 0)
        return PROXY_REFUSED;
    if (there < len)
        return PROXY_MORE;
    bytes_skip(in, len);
    return PROXY_DONE;
}

static void set_address(struct address *a, sa_family_t family, const void *host, in_port_t port)
{
    *a = (struct address){ .len = sizeof a->sa.any.sa_family };
    a->sa.any.sa_family = family;
    if (family == AF_INET) {
        a->len = sizeof a->sa.v4;
        a->sa.v4.sin_port = port;
        memcpy(&a->sa.v4.sin_addr, host, sizeof a->sa.v4.sin_addr);
    } else if (family == AF_INET6) {
        a->len = sizeof a->sa.v6;
        a->sa.v6.sin6_port = port;
        memcpy(&a->sa.v6.sin6_addr, host, sizeof a->sa.v6.sin6_addr);
    }
}

/* --- Version 1, a line of text: section 2.1 --------------------------------------------------------------------- */

/* Takes a field of at most max of these characters and the one byte that ends it. */
static enum proxy_verdict take_field(struct bytes *in, const char *characters, size_t max, char end,
                                     struct bytes *field)
{
    size_t len = 0;
    while (len < in->len && len <= max && in->data[len] != '\0' && strchr(characters, in->data[len]) != NULL)
        len++;
    if (len > max)
        return PROXY_REFUSED;
    if (len == in->len)
        return PROXY_MORE;
    if (len == 0 || in->data[len] != end)
        return PROXY_REFUSED;
    *field = (struct bytes){ .data = in->data, .len = len };
    bytes_skip(in, len + 1);
    return PROXY_DONE;
}

static enum proxy_verdict take_host(struct bytes *in, sa_family_t family, struct address *a)
{
    const char *characters = family == AF_INET ? "0123456789." : "0123456789abcdefABCDEF:.";
    char text[ADDRESS_MAX + 1] = "";
    unsigned char host[sizeof(struct in6_addr)];
    struct bytes field;
    enum proxy_verdict verdict = take_field(in, characters, ADDRESS_MAX, ' ', &field);
    if (verdict != PROXY_DONE)
        return verdict;
    memcpy(text, field.data, field.len);
    if (inet_pton(family, text, host) != 1)
        return PROXY_REFUSED;
    set_address(a, family, host, 0);
    return PROXY_DONE;
}

static enum proxy_verdict take_port(struct bytes *in, char end, struct address *a)
{
    struct bytes field;
    unsigned port = 0;
    enum proxy_verdict verdict = take_field(in, "0123456789", PORT_DIGITS, end, &field);
    if (verdict != PROXY_DONE)
        return verdict;
    for (size_t i = 0; i < field.len; i++)
        port = port * 10 + (unsigned)(field.data[i] - '0');
    if (port > UINT16_MAX || (field.len > 1 && field.data[0] == '0'))
        return PROXY_REFUSED;
    if (a->sa.any.sa_family == AF_INET)
        a->sa.v4.sin_port = htons((in_port_t)port);
    else
        a->sa.v6.sin6_port = htons((in_port_t)port);
    return PROXY_DONE;
}

/* The rest of a line of "TCP4" or "TCP6". */
static enum proxy_verdict parse_endpoints(struct bytes *in, sa_family_t family, struct proxy_header *header)
{
    struct address source, destination;
    enum proxy_verdict verdict = take_host(in, family, &source);
    if (verdict == PROXY_DONE)
        verdict = take_host(in, family, &destination);
    if (verdict == PROXY_REFUSED)
        return refuse(header, PROXY_ADDRESS, "an address is not one of the family announced");
    if (verdict == PROXY_DONE)
        verdict = take_port(in, ' ', &source);
    if (verdict == PROXY_DONE)
        verdict = take_port(in, '\r', &destination);
    if (verdict == PROXY_REFUSED)
        return refuse(header, PROXY_PORT, "a port is not a number from 0 to 65535");
    if (verdict == PROXY_DONE)
        verdict = take(in, "\n", 1);
    if (verdict == PROXY_REFUSED)
        return refuse(header, PROXY_SYNTAX, "the line does not end with CRLF");
    if (verdict == PROXY_DONE) {
        header->told = true;
        header->source = source;
        header->destination = destination;
    }
    return verdict;
}

/* The rest of a line of "UNKNOWN": CRLF, or a space and anything up to CRLF. The line has room for so many bytes. */
static enum proxy_verdict skip_unknown(struct bytes *in, size_t room, struct proxy_header *header)
{
    if (in->len == 0)
        return PROXY_MORE;
    if (in->data[0] != ' ') {
        enum proxy_verdict verdict = take(in, "\r\n", 2);
        return verdict != PROXY_REFUSED ? verdict
                                        : refuse(header, PROXY_SYNTAX, "neither a space nor CRLF after UNKNOWN");
    }
    size_t there = in->len < room ? in->len : room;
    const char *end = memmem(in->data, there, "\r\n", 2);
    if (end != NULL) {
        bytes_skip(in, (size_t)(end - in->data) + 2);
        return PROXY_DONE;
    }
    if (there == room || (there == room - 1 && in->data[there - 1] != '\r'))
        return refuse(header, PROXY_LENGTH, "the line has more than 107 bytes");
    return PROXY_MORE;
}

static enum proxy_verdict parse_line(struct bytes *in, struct proxy_header *header)
{
    static const struct {
        const char *word;
        sa_family_t family;
    } families[] = { { "TCP4 ", AF_INET }, { "TCP6 ", AF_INET6 }, { "UNKNOWN", AF_UNSPEC } };
    const char *begin = in->data;
    bool more = false;
    enum proxy_verdict verdict = take(in, "PROXY ", 6);
    if (verdict == PROXY_REFUSED)
        return refuse(header, PROXY_SIGNATURE, "no PROXY header");
    for (size_t i = 0; verdict == PROXY_DONE && i < sizeof families / sizeof families[0]; i++) {
        enum proxy_verdict word = take(in, families[i].word, strlen(families[i].word));
        if (word == PROXY_DONE && families[i].family == AF_UNSPEC)
            return skip_unknown(in, PROXY_LINE - (size_t)(in->data - begin), header);
        if (word == PROXY_DONE)
            return parse_endpoints(in, families[i].family, header);
        more = more || word == PROXY_MORE;
    }
    if (verdict == PROXY_DONE && !more)
        return refuse(header, PROXY_FAMILY, "neither TCP4, TCP6 nor UNKNOWN");
    return PROXY_MORE;
}

/* --- Version 2, binary: section 2.2 ----------------------------------------------------------------------------- */

static uint32_t crc32c(uint32_t crc, const unsigned char *data, size_t len)
{
    for (size_t i = 0; i < len; i++) {
        crc ^= data[i];
        for (int bit = 0; bit < 8; bit++)
            crc = (crc >> 1) ^ (0x82F63B78U & -(crc & 1U));
    }
    return crc;
}

/* Whether the four bytes at `at` are the checksum of the header with zeros in their place (section 2.2.3). */
static bool checksum_holds(const unsigned char *data, size_t len, size_t at)
{
    static const unsigned char zeros[CRC32C_SIZE];
    uint32_t told, crc = crc32c(UINT32_MAX, data, at);
    crc = crc32c(crc, zeros, sizeof zeros);
    crc = crc32c(crc, data + at + sizeof zeros, len - at - sizeof zeros);
    memcpy(&told, data + at, sizeof told);
    return ntohl(told) == ~crc;
}

/* Bytes of the addresses that are announced. 0 when the family or the transport is UNSPEC: nobody says then. */
static size_t endpoints_size(unsigned family, unsigned transport)
{
    static const size_t sizes[] = {
        [FAMILY_INET] = 2 * sizeof(struct in_addr) + 2 * sizeof(in_port_t),
        [FAMILY_INET6] = 2 * sizeof(struct in6_addr) + 2 * sizeof(in_port_t),
        [FAMILY_UNIX] = 2 * PATH_SIZE,
    };
    return transport == TRANSPORT_UNSPEC ? 0 : sizes[family];
}

/*
 * Walks over the TLVs from `at` to `end`, as far as their heads are among the len bytes that are there. Each fits, or
 * the header is malformed. *checksum is where the value of the checksum is; 0: there is none.
 */
static enum proxy_verdict walk_tlvs(const unsigned char *data, size_t len, size_t at, size_t end, size_t *checksum)
{
    while (at < end) {
        if (end - at < TLV_HEAD)
            return PROXY_REFUSED;
        if (len < at + TLV_HEAD)
            return PROXY_MORE;
        size_t size = (size_t)data[at + 1] << 8 | data[at + 2];
        bool sums = data[at] == TLV_CRC32C;
        at += TLV_HEAD;
        if (size > end - at || (sums && (size != CRC32C_SIZE || *checksum != 0)))
            return PROXY_REFUSED;
        if (sums)
            *checksum = at;
        at += size;
    }
    return PROXY_DONE;
}

/* The addresses stand one behind the other, then the ports. */
static void tell_endpoints(const unsigned char *data, unsigned family, struct proxy_header *header)
{
    static const sa_family_t families[] = {
        [FAMILY_INET] = AF_INET, [FAMILY_INET6] = AF_INET6, [FAMILY_UNIX] = AF_UNIX
    };
    size_t host = family == FAMILY_INET ? sizeof(struct in_addr) : sizeof(struct in6_addr);
    in_port_t ports[2] = { 0 };
    if (family != FAMILY_UNIX)
        memcpy(ports, data + 2 * host, sizeof ports);
    header->told = true;
    set_address(&header->source, families[family], data, ports[0]);
    set_address(&header->destination, families[family], data + host, ports[1]);
}

/* Judges the 13th to 16th byte. PROXY_DONE when they are there, with what they say. */
static enum proxy_verdict parse_fixed(const unsigned char *data, size_t len, struct proxy_header *header,
                                      size_t *endpoints, size_t *size)
{
    if (len > 12 && data[12] >> 4 != 2)
        return refuse(header, PROXY_VERSION, "the binary header is not of version 2");
    if (len > 12 && (data[12] & 15) > COMMAND_PROXY)
        return refuse(header, PROXY_COMMAND, "the command is neither LOCAL nor PROXY");
    header->local = len > 12 && (data[12] & 15) == COMMAND_LOCAL;
    if (len > 13 && !header->local && (data[13] >> 4 > FAMILY_UNIX || (data[13] & 15) > TRANSPORT_DGRAM))
        return refuse(header, PROXY_FAMILY, "the address family or the transport is not specified");
    /* LOCAL: the block is skipped, "including the family which is ignored" */
    *endpoints = len > 13 && !header->local ? endpoints_size(data[13] >> 4, data[13] & 15) : 0;
    *size = (len > 14 ? (size_t)data[14] << 8 : 0) | (len > 15 ? data[15] : 0);
    if (*size > PROXY_BLOCK)
        return refuse(header, PROXY_LENGTH, "the header has more than 4096 bytes of addresses and TLVs");
    if (len < FIXED)
        return PROXY_MORE;
    if (*size < *endpoints)
        return refuse(header, PROXY_LENGTH, "the header is too short for its addresses");
    return PROXY_DONE;
}

static enum proxy_verdict parse_binary(const unsigned char *data, size_t len, struct proxy_header *header)
{
    size_t endpoints, size, checksum = 0;
    enum proxy_verdict verdict = parse_fixed(data, len, header, &endpoints, &size);
    if (verdict != PROXY_DONE)
        return verdict;
    /* where TLVs begin is known only behind addresses of a known size */
    if (endpoints > 0 && walk_tlvs(data, len, FIXED + endpoints, FIXED + size, &checksum) == PROXY_REFUSED)
        return refuse(header, PROXY_TLV, "a TLV is malformed");
    if (len < FIXED + size)
        return PROXY_MORE;
    if (checksum != 0 && !checksum_holds(data, FIXED + size, checksum))
        return refuse(header, PROXY_CHECKSUM, "the checksum is wrong");
    /* DGRAM falls back to UNSPEC, as it may where it is not supported (section 2.2) */
    if (endpoints > 0 && (data[13] & 15) == TRANSPORT_STREAM)
        tell_endpoints(data + FIXED, data[13] >> 4, header);
    header->len = FIXED + size;
    return PROXY_DONE;
}

enum proxy_verdict proxy_parse(const void *data, size_t len, struct proxy_header *header)
{
    struct bytes in = { .data = data, .len = len };
    *header = (struct proxy_header){ .sentence = "" };
    if (len == 0)
        return PROXY_MORE;
    header->version = in.data[0] == 'P' ? 1 : 2;
    if (header->version == 1) {
        enum proxy_verdict verdict = parse_line(&in, header);
        header->len = verdict == PROXY_DONE ? len - in.len : 0;
        return verdict;
    }
    enum proxy_verdict signature = take(&in, SIGNATURE, sizeof SIGNATURE - 1);
    if (signature == PROXY_REFUSED)
        return refuse(header, PROXY_SIGNATURE, "no PROXY header");
    return signature == PROXY_DONE ? parse_binary(data, len, header) : signature;
}
