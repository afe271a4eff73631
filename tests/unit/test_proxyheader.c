#include "probe/proxyheader.h"

#include "unit.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <string.h>

static struct sockaddr_storage v4(const char *text, unsigned port)
{
    struct sockaddr_storage address = { 0 };
    struct sockaddr_in *in = (struct sockaddr_in *)&address;
    in->sin_family = AF_INET;
    in->sin_port = htons((in_port_t)port);
    ck_assert_int_eq(inet_pton(AF_INET, text, &in->sin_addr), 1);
    return address;
}

static struct sockaddr_storage v6(const char *text, unsigned port)
{
    struct sockaddr_storage address = { 0 };
    struct sockaddr_in6 *in = (struct sockaddr_in6 *)&address;
    in->sin6_family = AF_INET6;
    in->sin6_port = htons((in_port_t)port);
    ck_assert_int_eq(inet_pton(AF_INET6, text, &in->sin6_addr), 1);
    return address;
}

static void check(int version, struct sockaddr_storage source, struct sockaddr_storage destination, const char *want,
                  size_t len)
{
    char out[PROXYHEADER_MAX];
    ck_assert_uint_eq(proxyheader_write(out, version, &source, &destination), len);
    ck_assert_mem_eq(out, want, len);
}

#define CHECK(version, source, destination, want) check(version, source, destination, want, sizeof(want) - 1)
#define SIGNATURE                                 "\r\n\r\n\0\r\nQUIT\n"

START_TEST(test_v1)
{
    struct sockaddr_storage local = { .ss_family = AF_UNIX };
    CHECK(1, v4("192.0.2.1", 56324), v4("127.0.0.1", 7), "PROXY TCP4 192.0.2.1 127.0.0.1 56324 7\r\n");
    CHECK(1, v6("2001:db8::1", 65535), v6("::1", 1), "PROXY TCP6 2001:db8::1 ::1 65535 1\r\n");
    CHECK(1, v6("2001:db8::1", 1), v4("127.0.0.1", 7), "PROXY TCP6 2001:db8::1 ::ffff:127.0.0.1 1 7\r\n");
    CHECK(1, local, local, "PROXY UNKNOWN\r\n");
    CHECK(1, v4("192.0.2.1", 1), local, "PROXY UNKNOWN\r\n");
}
END_TEST

START_TEST(test_v2)
{
    struct sockaddr_storage local = { .ss_family = AF_UNIX };
    CHECK(2, v4("192.0.2.1", 0x1234), v4("127.0.0.1", 7), SIGNATURE "\x21\x11\0\x0C\xC0\0\2\1\x7F\0\0\1\x12\x34\0\7");
    CHECK(2, v6("2001:db8::1", 0x1234), v4("127.0.0.1", 7),
          SIGNATURE
          "\x21\x21\0\x24\x20\1\x0D\xB8\0\0\0\0\0\0\0\0\0\0\0\1\0\0\0\0\0\0\0\0\0\0\xFF\xFF\x7F\0\0\1\x12\x34\0\7");
    CHECK(2, local, local, SIGNATURE "\x20\0\0\0");
}
END_TEST

UNIT_MAIN("proxyheader", test_v1, test_v2)
