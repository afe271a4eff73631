"""The PROXY protocol (haproxy's proxy-protocol.txt) on a listener: what is accepted, told, refused and counted."""

import os
import socket
import struct
import time
import unittest

from harness import (LAST, SLOW, TIMEOUT, Echod, parse_answers, recv_all, recv_same, reset, run_ini, silent,
                     trickle)
from transport import (NAME, TOLD, TlsSocket, Transport, V13, binary, client_context, proxy_v1, proxy_v2)

SHORT = 0.4 * SLOW
MS = f'{round(SHORT * 1000)}ms'
PORTS = struct.pack('!HH', 4711, 80)
REQUIRED = dict(proxy_protocol='required')


def tlv(kind, value):
    return struct.pack('!BH', kind, len(value)) + value


def crc32c(data):
    crc = 0xffffffff
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82f63b78 if crc & 1 else 0)
    return crc ^ 0xffffffff


def checked(tlvs=b'', wrong=0):
    """A header with a checksum (section 2.2.3)."""
    header = proxy_v2(tlvs=tlvs + tlv(3, bytes(4)))
    return header[:-4] + struct.pack('!I', crc32c(header) ^ wrong)


def block(family, *hosts):
    return b''.join(socket.inet_pton(family, host) for host in hosts) + PORTS


UNIX_BLOCK = b'/run/client'.ljust(108, b'\0') + b'/run/server'.ljust(108, b'\0')

# header, whom it tells
ACCEPTED = (
    (proxy_v1(), '192.0.2.7:4711'),
    (proxy_v1(('2001:db8::7', 4711), ('::1', 80)), '[2001:db8::7]:4711'),
    (proxy_v1(('::ffff:192.0.2.7', 4711), ('::1', 80)), '[::ffff:192.0.2.7]:4711'),
    (b'PROXY TCP4 0.0.0.0 255.255.255.255 0 65535\r\n', '0.0.0.0:0'),
    (b'PROXY UNKNOWN\r\n', None),
    (b'PROXY UNKNOWN ffff:f...f:ffff ffff:f...f:ffff 65535 65535\r\n', None),
    (proxy_v2(), '192.0.2.7:4711'),
    (proxy_v2(('2001:db8::7', 4711), ('::1', 80)), '[2001:db8::7]:4711'),
    (binary(1, 0x31, UNIX_BLOCK), 'unix'),
    (binary(0, 0x00, b''), None),
    (binary(0, 0x11, block(socket.AF_INET, '192.0.2.7', '192.0.2.8')), None),
    (binary(1, 0x00, b'anything'), None),
    (binary(1, 0x12, block(socket.AF_INET, '192.0.2.7', '192.0.2.8')), None),      # a datagram
    (proxy_v2(tlvs=tlv(2, b'a.example') + tlv(4, bytes(300)) + tlv(0x20, b'\0' * 5 + tlv(0x21, b'TLSv1.3'))),
     '192.0.2.7:4711'),
    (proxy_v2(tlvs=tlv(4, bytes(4096 - 12 - 3))), '192.0.2.7:4711'),
    (checked(), '192.0.2.7:4711'),
    (checked(tlv(2, b'a.example')), '192.0.2.7:4711'),
)

# what is sent, a part of what is said of it
REFUSED = (
    (b'hello', 'no PROXY header'),
    (b'GET / HTTP/1.1\r\nHost: x\r\n\r\n', 'no PROXY header'),
    (b'\x16\x03\x01\x02\x00', 'no PROXY header'),
    (b'\r\n\r\n\0\r\nQUIX', 'no PROXY header'),
    (b'PROXY TCP5 ', 'neither TCP4, TCP6 nor UNKNOWN'),
    (b'PROXY TCP4 192.0.2.777 192.0.2.8 1 2\r\n', 'an address'),
    (b'PROXY TCP4 ::1 ::1 1 2\r\n', 'an address'),
    (b'PROXY TCP4 192.0.2.7 192.0.2.8 1 65536\r\n', 'a port'),
    (b'PROXY TCP4 192.0.2.7 192.0.2.8 01 2\r\n', 'a port'),
    (b'PROXY TCP4 192.0.2.7 192.0.2.8 1 2\n', 'a port|CRLF'),
    (b'PROXY UNKNOWN ' + b'x' * 94, '107 bytes'),
    (b'PROXY UNKNOWN ' + b'x' * 2000, '107 bytes'),
    (binary(1, 0x11, PORTS), 'too short'),
    (binary(2, 0x11, bytes(12)), 'command'),
    (b'\r\n\r\n\0\r\nQUIT\n\x31', 'version'),
    (binary(1, 0x41, bytes(12)), 'family'),
    (binary(1, 0x11, bytes(4097))[:16], '4096 bytes'),
    (proxy_v2(tlvs=b'\x04\0'), 'TLV'),
    (proxy_v2(tlvs=b'\x04\0\x05abc'), 'TLV'),
    (checked(wrong=1), 'checksum'),
    (proxy_v2(tlvs=tlv(3, b'abc')), 'TLV'),
)


class Daemon(unittest.TestCase):

    @classmethod
    def setUpClass(cls):
        tls = Transport('tls', version=V13).keys('tls')
        cls.d = cls.enterClassContext(Echod(echo=REQUIRED, web=REQUIRED | dict(max_body=10), tls=tls | REQUIRED,
                                            off={}, late=REQUIRED | dict(handshake_timeout=MS), admin={}))

    def echoed(self, sock, data=b'hello'):
        sock.sendall(data)
        sock.shutdown(socket.SHUT_WR)
        recv_same(sock, data)

    def told(self, listener, sock):
        """Closes, and gives what the log says.  A port may come again, but not soon towards the same listener."""
        peer = '%s:%d' % sock.getsockname()
        sock.close()
        return self.d.wait_log('closed', listener=listener, peer=peer).fields.get('told')

    def quiet(self, since):
        """Nothing above debug was logged since so many lines."""
        self.assertEqual([line.raw for line in self.d.log_lines()[since:] if line.level != 'debug'], [])


class Headers(Daemon):

    def test_accepted(self):
        since = len(self.d.log_lines())
        for raw, told in ACCEPTED:
            with self.subTest(header=raw[:60]):
                sock = self.d.connect('echo')
                sock.sendall(raw)
                self.echoed(sock)
                self.assertEqual(self.told('echo', sock), told)
        self.quiet(since)

    def test_together(self):
        """The header and the first bytes in one segment; nothing of the header comes back."""
        data = os.urandom(60000)
        for raw, told in ACCEPTED:
            with self.subTest(header=raw[:60]):
                sock = self.d.connect('echo')
                sock.sendall(raw + data)
                sock.shutdown(socket.SHUT_WR)
                recv_same(sock, data)
                self.assertEqual(self.told('echo', sock), told)

    def test_split(self):
        for raw in proxy_v1(), checked(tlv(2, b'a.example')), binary(0, 0, b''):
            for at in range(1, len(raw) + 1):
                with self.subTest(header=raw[:20], at=at), self.d.connect('echo') as sock:
                    sock.sendall(raw[:at])
                    self.d.turn('off')
                    sock.sendall(raw[at:] + b'hello')
                    recv_same(sock, b'hello', eof=False)

    def test_byte_by_byte(self):
        for raw, _ in ACCEPTED[:4] + ACCEPTED[-2:]:
            sock = self.d.connect('echo')
            for byte in raw:
                sock.sendall(bytes([byte]))
            self.echoed(sock)

    def test_http(self):
        sock = self.d.connect('web')
        sock.sendall(proxy_v1() + LAST)
        answer, = parse_answers(recv_all(sock))
        self.assertEqual(answer.body, b'Hello, Ada')

    def test_client_hello_behind(self):
        """In one segment, also with a header that is long."""
        class Behind:
            """Sends a header in front of what is sent first."""
            def __init__(self, raw, front):
                self.raw, self.front = raw, front

            def sendall(self, data):
                self.raw.sendall(self.front + data)
                self.front = b''

            def __getattr__(self, name):
                return getattr(self.raw, name)

        for raw, told in ACCEPTED:
            with self.subTest(header=raw[:60]):
                sock = TlsSocket(Behind(self.d.connect('tls'), raw), client_context(), NAME)
                self.echoed(sock)
                self.assertEqual(self.told('tls', sock), told)

    def test_off(self):
        """Where none is wanted there is none."""
        self.echoed(self.d.connect('off'), proxy_v1() + b'hello')
        self.echoed(self.d.connect('off'), proxy_v2() + b'hello')


class Json(unittest.TestCase):

    def test_fields(self):
        """Both addresses are in the lines of JSON too, of the log and of the access log."""
        server = dict(log_format='json', access_log='stderr')
        with Echod(server=server, web=REQUIRED) as d:
            with d.connect('web') as sock:
                sock.sendall(proxy_v1() + LAST)
                recv_all(sock)
                peer = '%s:%d' % sock.getsockname()
            for line in d.wait_log('closed'), d.wait_log(lambda line: line.level == 'access'):
                self.assertEqual((line.fields['peer'], line.fields['told']), (peer, '%s:%d' % TOLD))


class Refusals(Daemon):

    def refused(self, listener, raw, want):
        lines = len(self.d.log_lines('PROXY header refused'))
        with self.d.connect(listener) as sock:
            peer = '%s:%d' % sock.getsockname()
            sock.sendall(raw)
            try:
                self.assertEqual(recv_all(sock), b'')
            except ConnectionResetError:
                pass
        line = self.d.wait_log('PROXY header refused', lines + 1)
        self.assertRegex(line.fields['error'], want)
        self.assertEqual((line.level, line.fields['listener'], line.fields['peer']), ('info', listener, peer))
        self.d.wait_log('closed', listener=listener, peer=peer, reason='proxy', bytes_out=0)
        self.assertEqual(len(self.d.log_lines('PROXY header refused')), lines + 1)

    def test_refused(self):
        for listener in 'echo', 'web', 'tls':
            before = self.d.metrics()
            for raw, want in REFUSED:
                with self.subTest(listener=listener, sent=raw[:60]):
                    self.refused(listener, raw, want)
            key = 'echod_connections_closed_total', dict(listener=listener, reason='proxy')
            self.d.wait_metrics(lambda m: m[key] - before[key] == len(REFUSED))

    def test_late(self):
        """The time is absolute, whatever trickles in."""
        for pause in 0, SHORT / 5:
            start = time.monotonic()
            with self.subTest(pause=pause), self.d.connect('late') as sock:
                trickle(sock, proxy_v1(), pause)
                self.assertGreater(time.monotonic() - start, SHORT * 0.95)
                self.assertLess(time.monotonic() - start, SHORT * 2 + 5 * SLOW)
                self.d.wait_log('closed', listener='late', peer='%s:%d' % sock.getsockname(), reason='deadline')

    def test_time_ends_with_the_header(self):
        with self.d.connect('late') as quiet, self.d.connect('late') as sock:
            quiet.sendall(proxy_v1())
            sock.sendall(proxy_v1() + b'x')
            recv_same(sock, b'x', eof=False)
            silent(sock, SHORT * 1.5)
            for one in quiet, sock:
                one.sendall(b'y')
                recv_same(one, b'y', eof=False)


class Checks(Daemon):
    """Health checks are no noise."""

    def test_header_and_close(self):
        since = len(self.d.log_lines())
        before = self.d.metrics()
        for listener in 'echo', 'web', 'tls':
            for raw in b'', proxy_v1(), proxy_v2(), binary(0, 0, b''), b'PROXY UNKNOWN\r\n':
                for end, reason in (socket.socket.close, 'fin'), (reset, 'reset'):
                    sock = self.d.connect(listener)
                    peer = '%s:%d' % sock.getsockname()
                    sock.sendall(raw)
                    self.d.turn('off')
                    end(sock)
                    with self.subTest(listener=listener, header=raw[:20], reason=reason):
                        self.d.wait_log('closed', listener=listener, peer=peer, reason=reason)
            key = 'echod_connections_silent_total', dict(listener=listener)
            self.assertEqual(self.d.metrics()[key] - before[key], 10)
        self.quiet(since)

    def test_half_a_header_and_close(self):
        since = len(self.d.log_lines())
        for raw in proxy_v1()[:20], proxy_v2()[:20]:
            sock = self.d.connect('echo')
            sock.sendall(raw)
            peer = '%s:%d' % sock.getsockname()
            sock.close()
            self.d.wait_log('closed', listener='echo', peer=peer, reason='cut')
        self.quiet(since)


class Trust(unittest.TestCase):

    def test_untrusted(self):
        """Closed at once, counted, told once an episode; its header is not read."""
        with Echod(echo=REQUIRED | dict(proxy_trusted='192.0.2.0/24, 127.0.0.2'), admin={},
                   both=REQUIRED | dict(address='127.0.0.2:0, unix:@FOLDER@/both')) as d:
            d.expect_log(r'warning connection refused listener=echo peer=127\.0\.0\.1:\d+ reason=proxy_trusted')
            for _ in range(5):
                with d.connect('echo') as sock:
                    try:
                        sock.sendall(proxy_v1())
                        self.assertEqual(recv_all(sock), b'')
                    except ConnectionError:
                        pass
            m = d.metrics()
            self.assertEqual(m['echod_connections_refused_total', dict(listener='echo', reason='proxy_trusted')], 5)
            self.assertEqual(m.connections(listener='echo'), (0, 0, 0))
            d.wait_log('connection refused')
            self.assertEqual(len(d.log_lines('connection refused')), 1)
            with socket.socket() as sock:       # one that is trusted
                sock.settimeout(TIMEOUT)
                sock.bind(('127.0.0.2', 0))
                sock.connect(d.addr('echo'))
                sock.sendall(proxy_v1() + b'x')
                recv_same(sock, b'x', eof=False)
            for where in d.addrs('both'):
                with d.connect(where) as sock:
                    sock.sendall(proxy_v1() + b'x')
                    recv_same(sock, b'x', eof=False)

    def test_unix_untrusted(self):
        with Echod(echo=REQUIRED | dict(address='unix:@FOLDER@/echo', proxy_trusted='127.0.0.1')) as d:
            d.expect_log('connection refused listener=echo peer=unix reason=proxy_trusted')
            with d.connect('echo') as sock:
                self.assertEqual(recv_all(sock), b'')

    def test_reload(self):
        """Who may send headers, and whether one comes, changes for connections that come."""
        with Echod(echo=REQUIRED) as d:
            old = d.connect('echo')
            old.sendall(proxy_v1() + b'x')
            recv_same(old, b'x', eof=False)
            d.reload(echo={})
            with d.connect('echo') as sock:
                sock.sendall(b'plain')
                recv_same(sock, b'plain', eof=False)
            d.reload(echo=REQUIRED | dict(proxy_trusted='192.0.2.1'))
            d.expect_log('reason=proxy_trusted')
            with d.connect('echo') as sock:
                self.assertEqual(recv_all(sock), b'')
            old.sendall(b'still')
            recv_same(old, b'still', eof=False)

    def test_list(self):
        for value in '127.0.0.1/33', 'localhost', '127.0.0.1/8':
            done = run_ini('[listener echo]\naddress = 127.0.0.1:0\nhandler = echo\n'
                           f'proxy_trusted = {value}\nproxy_protocol = required\n', '-t')
            self.assertEqual(done.returncode, 2)
            self.assertRegex(done.stderr, r'^echod\.ini:4: proxy_trusted: ')


class Limits(unittest.TestCase):

    def setUp(self):
        self.d = self.enterContext(Echod(server=dict(max_connections_per_address=2), echo=REQUIRED, admin={}))

    def open(self, header):
        sock = self.d.connect('echo')
        sock.sendall(header + b'x')
        recv_same(sock, b'x', eof=False)
        return sock

    def refused(self, header):
        sock = self.d.connect('echo')
        try:
            sock.sendall(header + b'x')
            self.assertEqual(recv_all(sock), b'')
        except ConnectionResetError:
            pass
        sock.close()

    def test_told(self):
        """Counted is who was told; a proxy itself has no such limit."""
        others = [self.open(proxy_v1((f'192.0.2.{i}', 1))) for i in range(20) for _ in range(2)]
        self.d.expect_log(r'connection refused listener=echo told=192\.0\.2\.7:\d+ reason=max_connections_per_')
        self.refused(proxy_v1())
        line = self.d.wait_log('closed', reason='refused')
        self.assertEqual(line.fields['told'], '%s:%d' % TOLD)
        self.assertRegex(line.fields['peer'], r'^127\.0\.0\.1:\d+$')
        local = [self.open(binary(0, 0, b'')) for _ in range(5)] + [self.open(b'PROXY UNKNOWN\r\n') for _ in range(5)]
        others[14].close()
        self.d.wait_metrics(lambda m: m.connections(listener='echo')[1] == 39 + 10)
        self.open(proxy_v2(('192.0.2.7', 99)))
        self.refused(proxy_v1())
        self.assertEqual(len(local), 10)

    def test_mapped(self):
        """::ffff:192.0.2.7 is 192.0.2.7 (RFC 4291 section 2.5.5.2), and IPv6 counts by its network."""
        self.open(proxy_v1())
        self.open(proxy_v1(('::ffff:192.0.2.7', 1), ('::1', 80)))
        self.d.expect_log('connection refused')
        self.refused(proxy_v2())
        self.refused(proxy_v2(('::ffff:192.0.2.7', 1), ('::1', 80)))
        for i in range(2):
            self.open(proxy_v2((f'2001:db8::{i}', 1), ('::1', 80)))
        self.refused(proxy_v2(('2001:db8::ffff', 1), ('::1', 80)))
        self.open(proxy_v2(('2001:db8:0:1::', 1), ('::1', 80)))

    def test_unix(self):
        for _ in range(2):
            self.open(binary(1, 0x31, UNIX_BLOCK))
        self.d.expect_log('connection refused listener=echo told=unix reason=max_connections_per_address')
        self.refused(binary(1, 0x31, b'/another'.ljust(216, b'\0')))


if __name__ == '__main__':
    unittest.main()
