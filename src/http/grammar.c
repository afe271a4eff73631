#include "http/grammar.h"

#include <arpa/inet.h>
#include <ctype.h>

const unsigned char grammar_sets[256] = {
    /* clang-format off */
     0,  0,  0,  0,  0,  0,  0,  0,  0,  4,  0,  0,  0,  0,  0,  0, /* 00 */
     0,  0,  0,  0,  0,  0,  0,  0,  0,  0,  0,  0,  0,  0,  0,  0, /* 10 */
     4, 31,  4,  5, 31, 15, 31, 31, 30, 30, 31, 31, 30, 31, 31, 22, /* 20 */
    31, 31, 31, 31, 31, 31, 31, 31, 31, 31, 22, 30,  4, 30,  4, 22, /* 30 */
    22, 31, 31, 31, 31, 31, 31, 31, 31, 31, 31, 31, 31, 31, 31, 31, /* 40 */
    31, 31, 31, 31, 31, 31, 31, 31, 31, 31, 31,  6,  4,  6,  5, 31, /* 50 */
     5, 31, 31, 31, 31, 31, 31, 31, 31, 31, 31, 31, 31, 31, 31, 31, /* 60 */
    31, 31, 31, 31, 31, 31, 31, 31, 31, 31, 31,  4,  5,  4, 31,  0, /* 70 */
     4,  4,  4,  4,  4,  4,  4,  4,  4,  4,  4,  4,  4,  4,  4,  4, /* 80 */
     4,  4,  4,  4,  4,  4,  4,  4,  4,  4,  4,  4,  4,  4,  4,  4, /* 90 */
     4,  4,  4,  4,  4,  4,  4,  4,  4,  4,  4,  4,  4,  4,  4,  4, /* A0 */
     4,  4,  4,  4,  4,  4,  4,  4,  4,  4,  4,  4,  4,  4,  4,  4, /* B0 */
     4,  4,  4,  4,  4,  4,  4,  4,  4,  4,  4,  4,  4,  4,  4,  4, /* C0 */
     4,  4,  4,  4,  4,  4,  4,  4,  4,  4,  4,  4,  4,  4,  4,  4, /* D0 */
     4,  4,  4,  4,  4,  4,  4,  4,  4,  4,  4,  4,  4,  4,  4,  4, /* E0 */
     4,  4,  4,  4,  4,  4,  4,  4,  4,  4,  4,  4,  4,  4,  4,  4, /* F0 */
    /* clang-format on */
};

struct bytes grammar_trim(struct bytes b)
{
    while (b.len > 0 && (b.data[0] == ' ' || b.data[0] == '\t'))
        bytes_skip(&b, 1);
    while (b.len > 0 && (b.data[b.len - 1] == ' ' || b.data[b.len - 1] == '\t'))
        b.len--;
    return b;
}

bool grammar_list_next(struct bytes *list, struct bytes *element)
{
    if (list->data == NULL)
        return false;
    const char *comma = memchr(list->data, ',', list->len);
    size_t len = comma != NULL ? (size_t)(comma - list->data) : list->len;
    *element = grammar_trim((struct bytes){ .data = list->data, .len = len });
    if (comma != NULL)
        bytes_skip(list, len + 1);
    else
        *list = (struct bytes){ 0 };
    return true;
}

bool grammar_length(struct bytes value, uint64_t *length)
{
    *length = 0;
    for (size_t i = 0; i < value.len; i++) {
        uint64_t digit = (uint64_t)(value.data[i] - '0');
        if (digit > 9 || *length > (INT64_MAX - digit) / 10)
            return false;
        *length = *length * 10 + digit;
    }
    return value.len > 0;
}

/* IPvFuture: "v" 1*HEXDIG "." and what may stand in a host, or colons (RFC 3986 section 3.2.2) */
static bool address_is_future(const char *begin, const char *end)
{
    const unsigned char *p = (const unsigned char *)begin;
    size_t i = 1, len = (size_t)(end - begin);
    while (i < len && isxdigit(p[i]))
        i++;
    if (len < 4 || (p[0] | 0x20) != 'v' || i == 1 || i + 1 >= len || p[i] != '.')
        return false;
    for (i++; i < len && p[i] != '%' && (p[i] == ':' || (grammar_sets[p[i]] & IN_HOST) != 0); i++)
        ;
    return i == len;
}

/* What stands between the brackets of an IP literal; end NULL: there is no closing bracket. */
static bool literal_is_sound(const char *begin, const char *end)
{
    char text[INET6_ADDRSTRLEN];
    struct in6_addr address;
    if (end == NULL)
        return false;
    if ((size_t)(end - begin) >= sizeof text)
        return address_is_future(begin, end);
    memcpy(text, begin, (size_t)(end - begin));
    text[end - begin] = '\0';
    return inet_pton(AF_INET6, text, &address) == 1 || address_is_future(begin, end);
}

/* Each % begins an escape of two digits (RFC 3986 section 2.1). */
static bool escapes_are_whole(struct bytes text)
{
    for (size_t i = 0; i < text.len; i++)
        if (text.data[i] == '%' && (text.len - i < 3 || !isxdigit((unsigned char)text.data[i + 1]) ||
                                    !isxdigit((unsigned char)text.data[i + 2])))
            return false;
    return true;
}

bool grammar_host(struct bytes host, size_t *host_len, struct bytes *port)
{
    const unsigned char *p = (const unsigned char *)host.data;
    size_t i = 0;
    if (host.len > 0 && p[0] == '[') {
        const char *end = memchr(host.data, ']', host.len);
        if (!literal_is_sound(host.data + 1, end))
            return false;
        i = (size_t)(end - host.data) + 1;
    } else {
        i = grammar_span(p, 0, host.len, IN_HOST);
    }
    *host_len = i;
    if (i < host.len && p[i++] != ':')
        return false;
    *port = (struct bytes){ .data = host.data + i, .len = host.len - i };
    while (i < host.len && isdigit(p[i]))
        i++;
    return i == host.len && escapes_are_whole((struct bytes){ .data = host.data, .len = *host_len });
}

/* Path and query: escapes are whole, and brackets stand in an authority only (RFC 3986 appendix A). */
static bool uri_is_sound(struct bytes uri)
{
    const unsigned char *p = (const unsigned char *)uri.data;
    size_t end = grammar_span(p, 0, uri.len, IN_PATH);
    while (end < uri.len && p[end] == '%')
        end = grammar_span(p, end + 1, uri.len, IN_PATH);
    return end == uri.len && escapes_are_whole(uri);
}

/* authority-form: host and port must both be there (RFC 9112 section 3.2.3). */
static bool authority_is_sound(struct bytes authority)
{
    struct bytes port;
    size_t host_len, digit = 0, number = 0;
    if (!grammar_host(authority, &host_len, &port) || host_len == 0 || port.len == 0)
        return false;
    while (digit < port.len && number <= 65535)
        number = number * 10 + (size_t)(port.data[digit++] - '0');
    return number <= 65535;
}

/* absolute-form; leaves path and query in *uri. */
static bool absolute_split(struct bytes target, struct bytes *uri)
{
    static const char scheme[] = "http://";
    struct bytes host, port;
    size_t host_len;
    if (target.len < sizeof scheme || strncasecmp(target.data, scheme, sizeof scheme - 1) != 0)
        return false;
    bytes_skip(&target, sizeof scheme - 1);
    host = *uri = target;
    while (uri->len > 0 && uri->data[0] != '/' && uri->data[0] != '?')
        bytes_skip(uri, 1);
    host.len -= uri->len;
    return grammar_host(host, &host_len, &port) && host_len > 0 && uri_is_sound(*uri);
}

bool grammar_target(struct bytes method, struct bytes target, struct bytes *uri)
{
    *uri = target;
    if (grammar_is(method, "CONNECT")) {
        uri->len = 0;
        return authority_is_sound(target);
    }
    if (target.data[0] == '/') /* origin-form */
        return uri_is_sound(target);
    if (target.len == 1 && target.data[0] == '*') { /* asterisk-form */
        uri->len = 0;
        return grammar_is(method, "OPTIONS");
    }
    if (!absolute_split(target, uri))
        return false;
    /* without a path, OPTIONS means the server as a whole, and any other method "/": here the scheme's last slash */
    if (uri->len == 0 && !grammar_is(method, "OPTIONS"))
        *uri = (struct bytes){ .data = target.data + strlen("http:/"), .len = 1 };
    return true;
}

bool grammar_take(struct bytes *line, char byte)
{
    bool there = line->len > 0 && line->data[0] == byte;
    if (there)
        bytes_skip(line, 1);
    return there;
}

static void take_white_space(struct bytes *line)
{
    while (grammar_take(line, ' ') || grammar_take(line, '\t'))
        ;
}

static bool take_token(struct bytes *line)
{
    size_t len = grammar_span((const unsigned char *)line->data, 0, line->len, IN_TOKEN);
    bytes_skip(line, len);
    return len > 0;
}

/* quoted-string, its opening quote taken already (RFC 9110 section 5.6.4) */
static bool take_quoted(struct bytes *line)
{
    while (line->len > 0 && (grammar_sets[(unsigned char)line->data[0]] & IN_VALUE) != 0) {
        if (grammar_take(line, '"'))
            return true;
        grammar_take(line, '\\');
        if (line->len > 0 && (grammar_sets[(unsigned char)line->data[0]] & IN_VALUE) != 0)
            bytes_skip(line, 1);
    }
    return false;
}

/* 1*HEXDIG, within 64 bits */
static bool take_size(struct bytes *line, uint64_t *size)
{
    size_t digits = 0;
    for (*size = 0; line->len > 0 && isxdigit((unsigned char)line->data[0]); digits++) {
        char digit = line->data[0];
        uint64_t value = (uint64_t)(digit <= '9' ? digit - '0' : (digit | 0x20) - 'a' + 10);
        if (*size > UINT64_MAX / 16)
            return false;
        *size = *size * 16 + value;
        bytes_skip(line, 1);
    }
    return digits > 0;
}

bool grammar_chunk_line(struct bytes *line, uint64_t *size)
{
    bool sound = take_size(line, size);
    while (sound && line->len > 0) {
        take_white_space(line);
        sound = grammar_take(line, ';');
        if (sound)
            take_white_space(line);
        sound = sound && take_token(line);
        struct bytes behind = *line;
        take_white_space(&behind);
        if (sound && grammar_take(&behind, '=')) {
            take_white_space(&behind);
            *line = behind;
            sound = grammar_take(line, '"') ? take_quoted(line) : take_token(line);
        }
    }
    return sound;
}
