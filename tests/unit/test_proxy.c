#include "proxy.h"

#include "unit.h"

#include <stdio.h>
#include <string.h>

#define SIGNATURE "\r\n\r\n\0\r\nQUIT\n"
#define RAW_MAX   5000

struct raw {
    unsigned char data[RAW_MAX];
    size_t len;
};

static struct raw text(const char *line)
{
    struct raw raw = { .len = strlen(line) };
    memcpy(raw.data, line, raw.len);
    return raw;
}

static void append(struct raw *raw, const void *data, size_t len)
{
    ck_assert_uint_le(raw->len + len, RAW_MAX);
    memcpy(raw->data + raw->len, data, len);
    raw->len += len;
}

/* A header of version 2 with len bytes behind the first 16. */
static struct raw binary(unsigned char command, unsigned char family, const void *block, size_t len)
{
    struct raw raw = { .len = 0 };
    append(&raw, SIGNATURE, 12);
    append(&raw, (unsigned char[]){ command, family, (unsigned char)(len >> 8), (unsigned char)len }, 4);
    append(&raw, block, len);
    return raw;
}

/* Feeds one byte more each time, in memory of exactly that size. Returns after how many bytes the verdict fell. */
static size_t judge(const struct raw *raw, enum proxy_verdict *verdict, struct proxy_header *header)
{
    size_t fell = 0;
    *verdict = PROXY_MORE;
    for (size_t len = 0; len <= raw->len; len++) {
        struct proxy_header one;
        void *exact = malloc(len + 1);
        memcpy(exact, raw->data, len);
        enum proxy_verdict now = proxy_parse((char *)exact, len, &one);
        free(exact);
        if (*verdict != PROXY_MORE) { /* then it stays */
            ck_assert_int_eq(now, *verdict);
            ck_assert_mem_eq(&one, header, sizeof one);
            continue;
        }
        *verdict = now;
        *header = one;
        fell = len;
    }
    ck_assert_int_lt(header->reason, PROXY_REASONS);
    ck_assert_int_eq(header->reason != PROXY_SOUND, *verdict == PROXY_REFUSED);
    ck_assert_int_eq(header->sentence[0] != '\0', *verdict == PROXY_REFUSED);
    return fell;
}

static struct proxy_header accepted(const struct raw *raw, size_t len)
{
    struct proxy_header header;
    enum proxy_verdict verdict;
    size_t fell = judge(raw, &verdict, &header);
    ck_assert_msg(verdict == PROXY_DONE, "%.*s: %s", (int)raw->len, (const char *)raw->data, header.sentence);
    ck_assert_uint_eq(fell, len);
    ck_assert_uint_eq(header.len, len);
    ck_assert_uint_eq(header.version, raw->data[0] == 'P' ? 1 : 2);
    return header;
}

/* The raw bytes are refused for this reason, by the byte with this number, counted from 1. */
static void refused(const struct raw *raw, enum proxy_reason reason, size_t at)
{
    struct proxy_header header;
    enum proxy_verdict verdict;
    size_t fell = judge(raw, &verdict, &header);
    ck_assert_msg(verdict == PROXY_REFUSED, "%.*s: not refused", (int)raw->len, (const char *)raw->data);
    ck_assert_msg(header.reason == reason, "%.*s: %s", (int)raw->len, (const char *)raw->data, header.sentence);
    ck_assert_msg(fell == at, "%.*s: refused after %zu bytes", (int)raw->len, (const char *)raw->data, fell);
}

static void check_told(const struct proxy_header *header, const char *source, const char *destination)
{
    char buf[ADDRESS_TEXT];
    ck_assert(header->told);
    ck_assert(!header->local);
    ck_assert_str_eq(address_format(&header->source, buf), source);
    ck_assert_str_eq(address_format(&header->destination, buf), destination);
}

/* Section 2.1: both families, upper and lower case, least and largest; then something of the connection's own. */
START_TEST(test_line)
{
    static const struct {
        const char *line, *source, *destination;
    } cases[] = {
        { "PROXY TCP4 192.168.0.1 192.168.0.11 56324 443\r\n", "192.168.0.1:56324", "192.168.0.11:443" },
        { "PROXY TCP4 0.0.0.0 0.0.0.0 0 0\r\n", "0.0.0.0:0", "0.0.0.0:0" },
        { "PROXY TCP4 255.255.255.255 255.255.255.255 65535 65535\r\n", "255.255.255.255:65535",
          "255.255.255.255:65535" },
        { "PROXY TCP6 ::1 :: 1 0\r\n", "[::1]:1", "[::]:0" },
        { "PROXY TCP6 2001:DB8::A 2001:db8:0:0:0:0:0:b 80 81\r\n", "[2001:db8::a]:80", "[2001:db8::b]:81" },
        { "PROXY TCP6 ::ffff:1.2.3.4 ::ffff:102:304 80 81\r\n", "[::ffff:1.2.3.4]:80", "[::ffff:1.2.3.4]:81" },
        { "PROXY TCP6 ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 65535 65535\r\n",
          "[ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff]:65535", "[ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff]:65535" },
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct raw raw = text(cases[i].line);
        size_t len = raw.len;
        append(&raw, "\x16\x03\x01", 3);
        struct proxy_header header = accepted(&raw, len);
        check_told(&header, cases[i].source, cases[i].destination);
        ck_assert_uint_eq(header.source.len, strstr(cases[i].line, "TCP4") != NULL ? sizeof header.source.sa.v4
                                                                                   : sizeof header.source.sa.v6);
    }
}
END_TEST

/* Section 2.1: "any sequence which does not exactly match the protocol must be discarded", as soon as possible. */
START_TEST(test_line_refused)
{
    static const struct {
        const char *line;
        enum proxy_reason reason;
        size_t at;
    } cases[] = {
        { "GET / HTTP/1.1\r\n", PROXY_SIGNATURE, 1 },
        { "\x16\x03\x01", PROXY_SIGNATURE, 1 },
        { "\n", PROXY_SIGNATURE, 1 },
        { "POST / HTTP/1.1\r\n", PROXY_SIGNATURE, 2 },
        { "proxy TCP4", PROXY_SIGNATURE, 1 },
        { "PROXX", PROXY_SIGNATURE, 5 },
        { "PROXY\tTCP4", PROXY_SIGNATURE, 6 },
        { "PROXY\r\n", PROXY_SIGNATURE, 6 },
        { "PROXY  TCP4", PROXY_FAMILY, 7 },
        { "PROXY TCP5", PROXY_FAMILY, 10 },
        { "PROXY tcp4", PROXY_FAMILY, 7 },
        { "PROXY UDP4", PROXY_FAMILY, 8 },
        { "PROXY TCP4\r\n", PROXY_FAMILY, 11 },
        { "PROXY TCP44", PROXY_FAMILY, 11 },
        { "PROXY TCP4  1.2.3.4 5.6.7.8 1 2\r\n", PROXY_ADDRESS, 12 },
        { "PROXY TCP4 \r\n", PROXY_ADDRESS, 12 },
        { "PROXY TCP4 ::1 ::1 1 2\r\n", PROXY_ADDRESS, 12 },
        { "PROXY TCP4 1.2.3.04 5.6.7.8 1 2\r\n", PROXY_ADDRESS, 20 },
        { "PROXY TCP4 1.2.3 5.6.7.8 1 2\r\n", PROXY_ADDRESS, 17 },
        { "PROXY TCP4 1.2.3.256 5.6.7.8 1 2\r\n", PROXY_ADDRESS, 21 },
        { "PROXY TCP4 1.2.3.4.5 5.6.7.8 1 2\r\n", PROXY_ADDRESS, 21 },
        { "PROXY TCP4 1..3.4 5.6.7.8 1 2\r\n", PROXY_ADDRESS, 18 },
        { "PROXY TCP4 1.2.3.4\t5.6.7.8 1 2\r\n", PROXY_ADDRESS, 19 },
        { "PROXY TCP4 1.2.3.4  5.6.7.8 1 2\r\n", PROXY_ADDRESS, 20 },
        { "PROXY TCP4 1.2.3.4\r\n", PROXY_ADDRESS, 19 },
        { "PROXY TCP4 0x1.2.3.4 5.6.7.8 1 2\r\n", PROXY_ADDRESS, 13 },
        { "PROXY TCP4 1.2.3.4 ::1 1 2\r\n", PROXY_ADDRESS, 20 },
        { "PROXY TCP4 1111111111111111111111111111111111111111111111111111111111", PROXY_ADDRESS, 11 + 47 },
        { "PROXY TCP6 1.2.3.4 5.6.7.8 1 2\r\n", PROXY_ADDRESS, 19 },
        { "PROXY TCP6 ::1::2 ::1 1 2\r\n", PROXY_ADDRESS, 18 },
        { "PROXY TCP6 1:2:3:4:5:6:7 ::1 1 2\r\n", PROXY_ADDRESS, 25 },
        { "PROXY TCP6 1:2:3:4:5:6:7:8:9 ::1 1 2\r\n", PROXY_ADDRESS, 29 },
        { "PROXY TCP6 ::12345 ::1 1 2\r\n", PROXY_ADDRESS, 19 },
        { "PROXY TCP6 [::1] ::1 1 2\r\n", PROXY_ADDRESS, 12 },
        { "PROXY TCP6 fe80::1%lo ::1 1 2\r\n", PROXY_ADDRESS, 19 },
        { "PROXY TCP6 ::g ::1 1 2\r\n", PROXY_ADDRESS, 14 },
        { "PROXY TCP4 1.2.3.4 5.6.7.8\r\n", PROXY_ADDRESS, 27 },
        { "PROXY TCP4 1.2.3.4 5.6.7.8 \r\n", PROXY_PORT, 28 },
        { "PROXY TCP4 1.2.3.4 5.6.7.8  1 2\r\n", PROXY_PORT, 28 },
        { "PROXY TCP4 1.2.3.4 5.6.7.8 01 2\r\n", PROXY_PORT, 30 },
        { "PROXY TCP4 1.2.3.4 5.6.7.8 00 2\r\n", PROXY_PORT, 30 },
        { "PROXY TCP4 1.2.3.4 5.6.7.8 65536 2\r\n", PROXY_PORT, 33 },
        { "PROXY TCP4 1.2.3.4 5.6.7.8 100000 2\r\n", PROXY_PORT, 33 },
        { "PROXY TCP4 1.2.3.4 5.6.7.8 -1 2\r\n", PROXY_PORT, 28 },
        { "PROXY TCP4 1.2.3.4 5.6.7.8 +1 2\r\n", PROXY_PORT, 28 },
        { "PROXY TCP4 1.2.3.4 5.6.7.8 1\r\n", PROXY_PORT, 29 },
        { "PROXY TCP4 1.2.3.4 5.6.7.8 1 \r\n", PROXY_PORT, 30 },
        { "PROXY TCP4 1.2.3.4 5.6.7.8 1 2x\r\n", PROXY_PORT, 31 },
        { "PROXY TCP4 1.2.3.4 5.6.7.8 1 2 \r\n", PROXY_PORT, 31 },
        { "PROXY TCP4 1.2.3.4 5.6.7.8 1 2\n", PROXY_PORT, 31 },
        { "PROXY TCP4 1.2.3.4 5.6.7.8 1 02\r\n", PROXY_PORT, 32 },
        { "PROXY TCP4 1.2.3.4 5.6.7.8 1 65536\r\n", PROXY_PORT, 35 },
        { "PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\r\n", PROXY_SYNTAX, 32 },
        { "PROXY TCP4 1.2.3.4 5.6.7.8 1 2\rGET", PROXY_SYNTAX, 32 },
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct raw raw = text(cases[i].line);
        refused(&raw, cases[i].reason, cases[i].at);
    }
}
END_TEST

/* A NUL ends no field. */
START_TEST(test_line_with_nul)
{
    struct raw raw = text("PROXY TCP4 1.2.3.4");
    append(&raw, "\0 5.6.7.8 1 2\r\n", 15);
    refused(&raw, PROXY_ADDRESS, 19);
    raw = text("PROXY TCP4 1.2.3.4 5.6.7.8 1 2");
    append(&raw, "\0\r\n", 3);
    refused(&raw, PROXY_PORT, 31);
}
END_TEST

/* Section 2.1: for UNKNOWN the receiver ignores what is presented before the CRLF, lone CR and LF among it. */
START_TEST(test_unknown)
{
    static const char *const lines[] = {
        "PROXY UNKNOWN\r\n",
        "PROXY UNKNOWN \r\n",
        "PROXY UNKNOWN ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 65535 65535\r\n",
        "PROXY UNKNOWN what\tever\x80\r\n",
        "PROXY UNKNOWN \r \n \r\r\n",
    };
    for (size_t i = 0; i < sizeof lines / sizeof lines[0]; i++) {
        struct raw raw = text(lines[i]);
        size_t len = raw.len;
        append(&raw, "more\r\n", 6);
        struct proxy_header header = accepted(&raw, len);
        ck_assert(!header.told);
        ck_assert(!header.local);
        ck_assert_uint_eq(header.source.len, 0);
    }
}
END_TEST

START_TEST(test_unknown_refused)
{
    static const struct {
        const char *line;
        enum proxy_reason reason;
        size_t at;
    } cases[] = {
        { "PROXY UNKNOWNS\r\n", PROXY_SYNTAX, 14 },
        { "PROXY UNKNOWN\n", PROXY_SYNTAX, 14 },
        { "PROXY UNKNOWN\r \r\n", PROXY_SYNTAX, 15 },
        { "PROXY UNKNOW\r\n", PROXY_FAMILY, 13 },
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct raw raw = text(cases[i].line);
        refused(&raw, cases[i].reason, cases[i].at);
    }
}
END_TEST

/* Section 2.1: a line that has not ended within 107 bytes is invalid; one byte earlier only a CR can save it. */
START_TEST(test_line_too_long)
{
    struct raw raw = text("PROXY UNKNOWN ");
    memset(raw.data + raw.len, 'x', 200);
    raw.len = 200;
    refused(&raw, PROXY_LENGTH, 106);
    raw.data[105] = '\r';
    refused(&raw, PROXY_LENGTH, 107);
    raw.data[106] = '\n';
    accepted(&raw, 107);
    memcpy(raw.data + 105, "x\r\n", 3);
    refused(&raw, PROXY_LENGTH, 106);
}
END_TEST

static const unsigned char inet[12] = { 192, 0, 2, 1, 198, 51, 100, 2, 0xC0, 0x01, 0x01, 0xBB };
static const unsigned char inet6[36] = { 0x20, 0x01,     0x0D,     0xB8, [15] = 1, [16] = 0xFE,
                                         0x80, [31] = 2, [32] = 0, 80,   0xFF,     0xFF };

/* Section 2.2: TCP over IPv4 and IPv6, and unix streams, with the data of the connection behind them. */
START_TEST(test_binary)
{
    struct raw raw = binary(0x21, 0x11, inet, sizeof inet);
    append(&raw, "GET /", 5);
    struct proxy_header header = accepted(&raw, 28);
    check_told(&header, "192.0.2.1:49153", "198.51.100.2:443");
    ck_assert_uint_eq(header.source.len, sizeof header.source.sa.v4);

    raw = binary(0x21, 0x21, inet6, sizeof inet6);
    header = accepted(&raw, 52);
    check_told(&header, "[2001:db8::1]:80", "[fe80::2]:65535");
    ck_assert_uint_eq(header.source.len, sizeof header.source.sa.v6);

    char paths[216] = "/run/client.sock";
    memset(paths + 108, 'x', 108); /* a path may fill its place, without a NUL */
    raw = binary(0x21, 0x31, paths, sizeof paths);
    header = accepted(&raw, 232);
    ck_assert(header.told);
    ck_assert_int_eq(header.source.sa.any.sa_family, AF_UNIX);
    ck_assert_int_eq(header.destination.sa.any.sa_family, AF_UNIX);
    ck_assert_uint_eq(header.source.len, sizeof(sa_family_t));
}
END_TEST

/* Section 2.2: signature, version and command, each at its byte. */
START_TEST(test_binary_refused)
{
    for (size_t at = 1; at < 12; at++) {
        struct raw raw = binary(0x21, 0x11, inet, sizeof inet);
        raw.data[at] ^= 0x20;
        refused(&raw, PROXY_SIGNATURE, at + 1);
    }
    for (unsigned version = 0; version < 16; version++)
        for (unsigned command = 0; command < 16; command++) {
            struct raw raw = binary((unsigned char)(version << 4 | command), 0x11, inet, sizeof inet);
            if (version != 2 || command > 1)
                refused(&raw, version != 2 ? PROXY_VERSION : PROXY_COMMAND, 13);
        }
}
END_TEST

/* Section 2.2: families and transports that are not specified "must be rejected as invalid by receivers". */
START_TEST(test_binary_families)
{
    static const size_t sizes[4][3] = { { 0, 0, 0 }, { 0, 12, 12 }, { 0, 36, 36 }, { 0, 216, 216 } };
    static const unsigned char block[216];
    for (unsigned byte = 0; byte < 256; byte++) {
        unsigned family = byte >> 4, transport = byte & 15;
        struct raw raw = binary(0x21, (unsigned char)byte, block, sizeof block);
        if (family > 3 || transport > 2) {
            refused(&raw, PROXY_FAMILY, 14);
            continue;
        }
        size_t size = sizes[family][transport];
        raw = binary(0x21, (unsigned char)byte, block, size);
        ck_assert_int_eq(accepted(&raw, 16 + size).told, family > 0 && transport == 1);
        if (size > 0) {
            raw = binary(0x21, (unsigned char)byte, block, size - 1);
            refused(&raw, PROXY_LENGTH, 16);
        }
    }
}
END_TEST

/* Section 2.2: LOCAL is accepted, its block skipped whatever is in it; UNSPEC and DGRAM tell nothing. */
START_TEST(test_nothing_told)
{
    static const unsigned char junk[300] = { 0xFF, 0xFF, 0xFF };
    static const unsigned char families[] = { 0x00, 0x11, 0x21, 0x31, 0x42, 0xFF };
    for (size_t i = 0; i < sizeof families; i++)
        for (size_t len = 0; len <= sizeof junk; len += 60) {
            struct raw raw = binary(0x20, families[i], junk, len);
            append(&raw, "x", 1);
            struct proxy_header header = accepted(&raw, 16 + len);
            ck_assert(header.local);
            ck_assert(!header.told);
            ck_assert_uint_eq(header.source.len, 0);
        }
    for (size_t len = 0; len <= sizeof junk; len += 60) { /* where TLVs begin behind UNSPEC nobody says */
        struct raw raw = binary(0x21, 0x00, junk, len);
        struct proxy_header header = accepted(&raw, 16 + len);
        ck_assert(!header.local);
        ck_assert(!header.told);
    }
    struct raw raw = binary(0x21, 0x12, inet, sizeof inet);
    ck_assert(!accepted(&raw, 28).told);
}
END_TEST

/* Our bound: known by the 15th byte, or by the 16th when only that goes beyond. */
START_TEST(test_binary_too_long)
{
    static unsigned char block[PROXY_BLOCK + 1];
    for (unsigned char command = 0x20; command <= 0x21; command++) {
        struct raw raw = binary(command, 0x00, block, PROXY_BLOCK);
        accepted(&raw, PROXY_MAX);
        raw = binary(command, 0x00, block, PROXY_BLOCK + 1);
        refused(&raw, PROXY_LENGTH, 16);
        raw.data[14] = 0x11;
        refused(&raw, PROXY_LENGTH, 15);
    }
}
END_TEST

/* A header with TLVs behind addresses of IPv4. */
static struct raw with_tlvs(const void *tlvs, size_t len)
{
    unsigned char block[RAW_MAX];
    memcpy(block, inet, sizeof inet);
    memcpy(block + sizeof inet, tlvs, len);
    return binary(0x21, 0x11, block, sizeof inet + len);
}

/* Section 2.2: TLVs are skipped: PP2_TYPE_NOOP and others, empty ones and unknown types among them. */
START_TEST(test_tlvs)
{
    static const unsigned char tlvs[] = {
        0x04, 0, 0, 0x04, 0, 2, 9, 9, 0x01, 0, 2, 'h', '2', 0xFF, 0, 1, 0, 0x05, 0, 0
    };
    struct raw raw = with_tlvs(tlvs, sizeof tlvs);
    append(&raw, "x", 1);
    struct proxy_header header = accepted(&raw, 28 + sizeof tlvs);
    check_told(&header, "192.0.2.1:49153", "198.51.100.2:443");

    unsigned char large[PROXY_BLOCK - 12] = { 0x04, (sizeof large - 3) >> 8, (unsigned char)(sizeof large - 3) };
    raw = with_tlvs(large, sizeof large);
    accepted(&raw, PROXY_MAX);
    memset(large, 0, sizeof large); /* as many as fit, and one byte left over */
    raw = with_tlvs(large, sizeof large - 1);
    accepted(&raw, PROXY_MAX - 1);
}
END_TEST

/* Section 2.2: a TLV is a type, two bytes of length, and so many bytes; all within the header. */
START_TEST(test_tlvs_malformed)
{
    static const struct {
        unsigned char tlvs[12];
        size_t len, at;
    } cases[] = {
        { { 0x04 }, 1, 16 },                         /* no TLV is so short: the length tells */
        { { 0x04, 0 }, 2, 16 },                      /* neither so */
        { { 0x04, 0, 1 }, 3, 31 },                   /* goes beyond by one */
        { { 0x04, 0xFF, 0xFF, 0 }, 4, 31 },          /* by far */
        { { 0x04, 0, 0, 0x04 }, 4, 31 },             /* what is left is none */
        { { 0x04, 0, 1, 0, 0x04, 0, 2, 0 }, 8, 35 }, /* the second goes beyond */
        { { 0x03, 0, 3, 0, 0, 0 }, 6, 31 },          /* a checksum of 3 bytes (section 2.2.3) */
        { { 0x03, 0, 5, 0, 0, 0, 0, 0 }, 8, 31 },    /* of 5 */
        { { 0x03, 0, 0 }, 3, 31 },                   /* of none */
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct raw raw = with_tlvs(cases[i].tlvs, cases[i].len);
        refused(&raw, PROXY_TLV, cases[i].at);
    }
    static const unsigned char twice[] = { 0x03, 0, 4, 0, 0, 0, 0, 0x03, 0, 4, 0, 0, 0, 0 };
    struct raw raw = with_tlvs(twice, sizeof twice);
    refused(&raw, PROXY_TLV, 38);
}
END_TEST

/* CRC-32C by the book, the most significant bit first: the polynomial is 0x1EDC6F41 (RFC 4960 appendix B). */
static unsigned long reference_crc32c(const unsigned char *data, size_t len)
{
    unsigned long crc = 0xFFFFFFFF, reflected = 0;
    for (size_t i = 0; i < 8 * len; i++) {
        unsigned long bit = data[i / 8] >> i % 8 & 1;
        crc = (crc << 1 ^ (((crc >> 31 & 1) ^ bit) ? 0x1EDC6F41UL : 0)) & 0xFFFFFFFF;
    }
    for (int i = 0; i < 32; i++)
        reflected |= (crc >> i & 1) << (31 - i);
    return ~reflected & 0xFFFFFFFF;
}

static void seal(struct raw *raw, size_t at)
{
    memset(raw->data + at, 0, 4);
    unsigned long crc = reference_crc32c(raw->data, raw->len);
    for (int i = 0; i < 4; i++)
        raw->data[at + (size_t)i] = (unsigned char)(crc >> (24 - 8 * i));
}

/* Section 2.2.3, with the check value that everybody has: "123456789" is E3069283. */
START_TEST(test_checksum)
{
    static const unsigned char tlvs[] = { 0x04, 0, 1, 7, 0x03, 0, 4, 0, 0, 0, 0, 0x04, 0, 2, 1, 2 };
    ck_assert_uint_eq(reference_crc32c((const unsigned char *)"123456789", 9), 0xE3069283);
    struct raw raw = with_tlvs(tlvs, sizeof tlvs);
    seal(&raw, 28 + 7);
    size_t len = raw.len;
    append(&raw, "not part of it", 14);
    struct proxy_header header = accepted(&raw, len);
    check_told(&header, "192.0.2.1:49153", "198.51.100.2:443");
    for (size_t at = 16; at < len; at++) { /* a bit of the TLVs' heads makes other TLVs of them */
        struct raw bad = raw;
        bad.data[at] ^= 0x10;
        if (at < 28 || at == 31 || (at >= 35 && at < 39) || at >= 42)
            refused(&bad, PROXY_CHECKSUM, len);
    }
}
END_TEST

/* Recorded of haproxy 2.6 with `send-proxy-v2 proxy-v2-options crc32c`. */
START_TEST(test_checksum_of_haproxy)
{
    static const unsigned char sent[] = { 0x0D, 0x0A, 0x0D, 0x0A, 0x00, 0x0D, 0x0A, 0x51, 0x55, 0x49, 0x54, 0x0A, 0x21,
                                          0x11, 0x00, 0x16, 0x7F, 0x00, 0x00, 0x01, 0x7F, 0x00, 0x00, 0x01, 0xD7, 0x8C,
                                          0xA9, 0x83, 0x03, 0x00, 0x04, 0x8E, 0x59, 0x1D, 0x18, 0x05, 0x00, 0x00 };
    struct raw raw = { .len = 0 };
    append(&raw, sent, sizeof sent);
    struct proxy_header header = accepted(&raw, sizeof sent);
    ck_assert(header.told);
}
END_TEST

START_TEST(test_words)
{
    for (int i = 0; i < PROXY_REASONS; i++)
        ck_assert_ptr_nonnull(proxy_reason_words[i]);
}
END_TEST

UNIT_MAIN("proxy", test_line, test_line_refused, test_line_with_nul, test_unknown, test_unknown_refused,
          test_line_too_long, test_binary, test_binary_refused, test_binary_families, test_nothing_told,
          test_binary_too_long, test_tlvs, test_tlvs_malformed, test_checksum, test_checksum_of_haproxy, test_words)
