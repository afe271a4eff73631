#include "prefix.h"

#include <arpa/inet.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ITEM_MAX 64 /* an address has 45 characters at most, "/128" four */
#define V4_BITS  32
#define V6_BITS  128
#define MAPPED   96 /* bits in front of an IPv4 address in one of IPv6 */

/* Clears what is behind the first so many bits. */
static void mask(unsigned char host[sizeof(struct in6_addr)], unsigned bits)
{
    for (unsigned i = 0; i < sizeof(struct in6_addr); i++, bits -= bits < 8 ? bits : 8)
        if (bits < 8)
            host[i] &= (unsigned char)(0xFF00 >> bits);
}

/* Makes one of IPv4 of a v4-mapped one. */
static void unmap(struct prefix *p)
{
    static const unsigned char mapped[MAPPED / 8] = { [10] = 0xFF, [11] = 0xFF };
    if (p->family != AF_INET6 || p->bits < MAPPED || memcmp(p->host, mapped, sizeof mapped) != 0)
        return;
    struct prefix v4 = { .family = AF_INET, .bits = p->bits - MAPPED };
    memcpy(v4.host, p->host + sizeof mapped, sizeof(struct in_addr));
    *p = v4;
}

/* The bits behind the slash of an address with so many; -1 when they are none. */
static int parse_bits(const char *text, unsigned most)
{
    size_t digits = strspn(text, "0123456789");
    if (digits == 0 || digits > 3 || text[digits] != '\0' || (digits > 1 && text[0] == '0'))
        return -1;
    unsigned long bits = strtoul(text, NULL, 10);
    return bits <= most ? (int)bits : -1;
}

/* Refuses 10.1.2.3/8, of which one cannot know whether 10.0.0.0/8 or 10.1.2.3/32 is meant. */
static int check_tail(const struct prefix *p, const char *text, char *err, size_t errlen)
{
    struct prefix masked = *p;
    char meant[INET6_ADDRSTRLEN] = "";
    mask(masked.host, p->bits);
    if (memcmp(masked.host, p->host, sizeof p->host) == 0)
        return 0;
    inet_ntop(p->family, masked.host, meant, sizeof meant);
    snprintf(err, errlen, "\"%s\" has bits set behind the first %u; did you mean %s/%u?", text, p->bits, meant,
             p->bits);
    return -1;
}

/* Reads one item. */
static int parse_item(const char *text, struct prefix *p, char *err, size_t errlen)
{
    char host[ITEM_MAX];
    const char *slash = strchr(text, '/');
    *p = (struct prefix){ .family = AF_UNIX };
    if (strcmp(text, "unix") == 0)
        return 0;
    snprintf(host, sizeof host, "%.*s", (int)(slash != NULL ? slash - text : (ptrdiff_t)strlen(text)), text);
    p->family = strchr(host, ':') != NULL ? AF_INET6 : AF_INET;
    p->bits = p->family == AF_INET6 ? V6_BITS : V4_BITS;
    if (inet_pton(p->family, host, p->host) != 1) {
        snprintf(err, errlen, "\"%s\" is not an address, a prefix such as 10.0.0.0/8, or unix", text);
        return -1;
    }
    int bits = slash != NULL ? parse_bits(slash + 1, p->bits) : (int)p->bits;
    if (bits < 0) {
        snprintf(err, errlen, "\"%s\" does not end with a number from 0 to %u", text, p->bits);
        return -1;
    }
    p->bits = (unsigned)bits;
    if (check_tail(p, text, err, errlen) < 0)
        return -1;
    unmap(p);
    return 0;
}

/* Copies the item in front of the comma without the blanks around it. Returns where the next one begins, or NULL. */
static const char *next_item(const char *text, char item[ITEM_MAX], bool *cut)
{
    const char *begin = text + strspn(text, " \t"), *comma = strchr(begin, ',');
    size_t len = comma != NULL ? (size_t)(comma - begin) : strlen(begin);
    while (len > 0 && (begin[len - 1] == ' ' || begin[len - 1] == '\t'))
        len--;
    *cut = len >= ITEM_MAX;
    snprintf(item, ITEM_MAX, "%.*s", (int)(*cut ? ITEM_MAX - 1 : len), begin);
    return comma != NULL ? comma + 1 : NULL;
}

int prefix_parse(const char *text, struct prefix *list, int max, char *err, size_t errlen)
{
    int count = 0;
    if (text[strspn(text, " \t")] == '\0')
        return 0;
    while (text != NULL) {
        char item[ITEM_MAX];
        bool cut;
        text = next_item(text, item, &cut);
        if (count == max) {
            snprintf(err, errlen, "more than %d addresses and prefixes", max);
            return -1;
        }
        if (cut || item[0] == '\0') {
            snprintf(err, errlen, cut ? "\"%s...\" is too long for an address" : "nothing between two commas%s",
                     cut ? item : "");
            return -1;
        }
        if (parse_item(item, &list[count], err, errlen) < 0)
            return -1;
        count++;
    }
    return count;
}

/* An address as the prefix that holds nothing else. */
static struct prefix prefix_of(const struct address *a)
{
    struct prefix p = { .family = a->sa.any.sa_family };
    if (p.family == AF_INET) {
        p.bits = V4_BITS;
        memcpy(p.host, &a->sa.v4.sin_addr, sizeof a->sa.v4.sin_addr);
    } else if (p.family == AF_INET6) {
        p.bits = V6_BITS;
        memcpy(p.host, &a->sa.v6.sin6_addr, sizeof a->sa.v6.sin6_addr);
    }
    unmap(&p);
    return p;
}

bool prefix_match(const struct prefix *list, int count, const struct address *a)
{
    struct prefix peer = prefix_of(a);
    for (int i = 0; i < count; i++) {
        struct prefix cut = peer;
        mask(cut.host, list[i].bits);
        if (peer.family == list[i].family && memcmp(cut.host, list[i].host, sizeof cut.host) == 0)
            return true;
    }
    return false;
}
