"""One list of cases, echo and HTTP, over every transport.

All transports are listeners of one daemon, so that each case also has the others beside it.
"""

import functools
import random
import re
import signal
import socket
import tempfile
import unittest

from harness import (LAST, REQUEST, SLOW, Echod, Sender, body, fill, header, instrumented, parse_answers, recv_all,
                     recv_same, reset, silent, wait_until)
from transport import TRANSPORTS

RANDOM = random.Random(862)
KIB, MIB = 1024, 1024 * 1024
SHORT = 0.4 * SLOW
MS = f'{round(SHORT * 1000)}ms'

# What listeners there are of each transport: kind, handler, keys
KINDS = (
    ('echo', 'echo', {}),
    ('idle', 'echo', dict(idle_timeout=f'{round(1000 + 400 * SLOW)}ms')),    # a handshake must be in time
    ('web', 'greeting', dict(max_body='1000')),
    ('slow', 'greeting', dict(header_timeout=MS)),
)


def daemon(test, kinds=KINDS, **server):
    """A running daemon with all of them, and "admin", until the test or the test class ends."""
    enter = test.enterClassContext if isinstance(test, type) else test.enterContext
    folder = enter(tempfile.TemporaryDirectory(prefix='echod-test-'))
    sections, activated = {}, []
    for t in TRANSPORTS:
        for kind, handler, keys in kinds:
            name = f'{kind}-{t}'
            sections[name] = t.keys(name, handler=handler, **keys)
            activated += t.activated(name, folder)
    for _, sock in activated:
        enter(sock)
    return enter(Echod(activated=activated, server=server, **sections, admin={}))


def each(kind):
    """Runs a test once a transport, with a function that connects to the listener of that kind."""
    def decorate(test):
        @functools.wraps(test)
        def run(self):
            for t in TRANSPORTS:
                with self.subTest(transport=t):
                    test(self, t, lambda t=t, **options: t.connect(self.d, f'{kind}-{t}', **options))
        return run
    return decorate


class Daemon(unittest.TestCase):

    @classmethod
    def setUpClass(cls):
        cls.d = daemon(cls, access_log='@FOLDER@/access')

    def closed(self, t, kind, sock, **fields):
        """Closes, and waits for the line of the end of the connection, which has both addresses."""
        peer = t.peer(sock)
        sock.close()
        line = self.d.wait_log('closed', listener=f'{kind}-{t}', peer=peer, **fields)
        self.assertEqual(line.level, 'debug')
        self.assertEqual(line.fields.get('told'), t.told)


class Echo(Daemon):

    SIZES = (0, 1, 2, 4095, 16384, 16385, 65535, 65536, 65537, MIB)

    @each('echo')
    def test_sizes(self, _, connect):
        data = RANDOM.randbytes(max(self.SIZES))
        for size in self.SIZES:
            sock, part = connect(), memoryview(data)[:size]
            sender = Sender(sock, part, fin=False)
            recv_same(sock, part, eof=False)
            sender.finish()
            sender = Sender(sock, part)     # once more on the same connection, half-closed behind it
            recv_same(sock, part)
            sender.finish()

    @each('echo')
    def test_half_close(self, t, connect):
        """Then everything, then the end; and the log says that both ended in order."""
        data = RANDOM.randbytes(300 * KIB)
        sock = connect()
        sender = Sender(sock, data)
        recv_same(sock, data)
        sender.finish()
        counts = {} if t.version else dict(bytes_in=len(data) + len(t.header), bytes_out=len(data))
        self.closed(t, 'echo', sock, reason='fin', **counts)

    @each('echo')
    def test_half_close_before_reading(self, _, connect):
        """Everything that was taken, wherever it lies when the end of a peer comes that has not read yet."""
        data, step = RANDOM.randbytes(8 * MIB), 2 * MIB
        for size in range(step, len(data), step):
            with connect(buffers=16 * KIB) as sock:
                sent, = fill([sock], data[:size], quiet=0.05)
                if sent < size:
                    break
                sock.shutdown(socket.SHUT_WR)
                recv_same(sock, memoryview(data)[:sent])

    @each('echo')
    def test_byte_by_byte(self, _, connect):
        data = bytes(range(256))
        sock = connect()
        for i in range(len(data)):
            sock.sendall(data[i:i + 1])
            recv_same(sock, data[i:i + 1], eof=False)
        sock.shutdown(socket.SHUT_WR)
        recv_same(sock, b'')

    def test_paused(self):
        """A peer that sends and does not read is paused, with 256 KiB at most held for it, and loses nothing."""
        data, more = RANDOM.randbytes(32 * MIB), MIB
        socks = [t.connect(self.d, f'echo-{t}', buffers=64 * KIB) for t in TRANSPORTS]
        before = self.d.rss()
        sent = fill(socks, data)
        self.assertLess(max(sent), len(data) - more, 'never paused')
        if not instrumented():
            self.assertLess(self.d.rss() - before, len(socks) * 256 * KIB + MIB)
        for t, sock, got in zip(TRANSPORTS, socks, sent):
            with self.subTest(transport=t):
                sender = Sender(sock, memoryview(data)[got:got + more])
                recv_same(sock, memoryview(data)[:got + more])
                sender.finish()

    @each('echo')
    def test_reset(self, t, connect):
        """In the middle of an echo and of a pause: nothing stays behind."""
        data = RANDOM.randbytes(MIB)
        self.d.turn('echo-plain')
        before = self.d.fds()
        socks = [connect() for _ in range(3)]
        socks[0].sendall(data[:10000])
        recv_same(socks[0], data[:10000], eof=False)
        socks[1].sendall(data[:50000])
        fill(socks[2:], data * 8, quiet=0.05)
        peers = [t.peer(sock) for sock in socks]
        for sock in socks:
            reset(sock)
        if not t.unix:
            for peer in peers:
                self.d.wait_log('closed', listener=f'echo-{t}', reason='reset', peer=peer)
        self.d.wait_fds(before)

    def test_idle(self):
        socks = [t.connect(self.d, f'idle-{t}') for t in TRANSPORTS]
        for t, sock in zip(TRANSPORTS, socks):
            with self.subTest(transport=t):
                self.assertEqual(recv_all(sock), b'')
                self.closed(t, 'idle', sock, reason='idle')


class Web(Daemon):

    @each('web')
    def test_pipelined(self, t, connect):
        requests = b''.join(b'GET /%d HTTP/1.1\r\nHost: x\r\n\r\n' % i for i in range(500)) + LAST
        sock = connect()
        sender = Sender(sock, requests, fin=False)
        answers = parse_answers(recv_all(sock))
        sender.finish()
        self.assertEqual([answer.body for answer in answers],
                         [b'Hello, %d' % i for i in range(500)] + [b'Hello, Ada'])
        self.assertEqual({header(answer, 'Connection') for answer in answers[:-1]}, {None})

    def test_pipelined_without_reading(self):
        """Answers of many times what the kernel takes: paused, and all in their places once they are read."""
        count, name = 1500, b'n' * 4000
        raw = count * (b'GET /' + name + b' HTTP/1.1\r\nHost: x\r\n\r\n')
        socks = [t.connect(self.d, f'web-{t}', buffers=64 * KIB) for t in TRANSPORTS]
        before = self.d.rss()
        sent = fill(socks, raw)
        self.assertLess(max(sent), len(raw), 'never paused')
        if not instrumented():
            self.assertLess(self.d.rss() - before, len(socks) * 256 * KIB + MIB)
        for t, sock, start in zip(TRANSPORTS, socks, sent):
            with self.subTest(transport=t):
                sender = Sender(sock, raw[start:])
                answers = recv_all(sock).split(b'HTTP/1.1 200 OK\r\n')
                sender.finish()
                self.assertEqual((len(answers), answers[0]), (1 + count, b''))
                self.assertEqual({answer.partition(b'\r\n\r\n')[2] for answer in answers[1:]}, {b'Hello, ' + name})

    @each('web')
    def test_keep_alive(self, _, connect):
        sock = connect()
        for _ in range(3):
            sock.sendall(REQUEST)
            self.assertEqual(body(sock), b'Hello, Ada')
        for i in range(len(REQUEST)):
            sock.sendall(REQUEST[i:i + 1])
        self.assertEqual(body(sock), b'Hello, Ada')
        sock.sendall(LAST)
        answer, = parse_answers(recv_all(sock))
        self.assertEqual((answer.body, header(answer, 'Connection')), (b'Hello, Ada', 'close'))

    @each('web')
    def test_head_and_chunked(self, _, connect):
        raw = (b'HEAD /Ada HTTP/1.1\r\nHost: x\r\n\r\n'
               b'GET /Ada HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n'
               b'3\r\nabc\r\n1;x=y\r\nd\r\n0\r\n\r\n')
        sock = connect()
        sock.sendall(raw + LAST)
        head, chunked, last = parse_answers(recv_all(sock), ['HEAD'])
        self.assertEqual([head.status, chunked.status, last.status], [200] * 3)
        self.assertEqual((head.body, chunked.body), (b'', b'Hello, Ada'))
        self.assertEqual(header(head, 'Content-Length'), '10')

    REFUSED = ((400, b'GET / HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n'),
               (413, b'POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n'),
               (501, b'BREW / HTTP/1.1\r\nHost: x\r\n\r\n'))

    @each('web')
    def test_refusals(self, _, connect):
        """The answer arrives although the client goes on sending: it is not lost in a reset."""
        for status, raw in self.REFUSED:
            with connect() as sock:
                sender = Sender(sock, raw + bytes(MIB), fin=False)
                answer, = parse_answers(recv_all(sock))
                sender.finish()
                self.assertEqual((answer.status, header(answer, 'Connection')), (status, 'close'))

    def test_timeout(self):
        socks = [t.connect(self.d, f'slow-{t}') for t in TRANSPORTS]
        for sock in socks:
            sock.sendall(REQUEST[:-1])
        for t, sock in zip(TRANSPORTS, socks):
            with self.subTest(transport=t):
                answer, = parse_answers(recv_all(sock))
                self.assertEqual((answer.status, header(answer, 'Connection')), (408, 'close'))

    def test_access_log(self):
        for t in TRANSPORTS:
            with t.connect(self.d, f'web-{t}') as sock:
                sock.sendall(f'GET /access-{t} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n'.encode())
                recv_all(sock)
        self.d.kill(signal.SIGUSR1)     # writes what it has first
        lines = ''

        def written():
            nonlocal lines
            with open(self.d.path('access'), encoding='utf-8') as file:
                lines = file.read()
            return lines.count(' target=/access-') == len(TRANSPORTS)
        wait_until(written, lambda: lines)
        for t in TRANSPORTS:
            with self.subTest(transport=t):
                line, = re.findall(f'.* target=/access-{t} .*', lines)
                self.assertEqual(dict(re.findall(r' (\w+)=(\S+)', line)).get('told'), t.told, line)
                self.assertRegex(line, f' listener=web-{t} peer=' + ('unix ' if t.unix else r'127\.0\.0\.1:\d+ '))


class Drain(unittest.TestCase):

    def test_drain(self):
        """Answers in flight are given, and close; echo streams end when their peers do; idle ones at once."""
        d = daemon(self, kinds=(('echo', 'echo', {}), ('web', 'greeting', {})), threads=2)
        streams, asked, idle = [], [], []
        for t in TRANSPORTS:
            streams.append(t.connect(d, f'echo-{t}'))
            streams[-1].sendall(b'before')
            recv_same(streams[-1], b'before', eof=False)
            asked.append(t.connect(d, f'web-{t}'))
            asked[-1].sendall(REQUEST + b'GET /late HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nab')
            self.assertEqual(body(asked[-1]), b'Hello, Ada')
            idle.append(t.connect(d, f'web-{t}'))
            idle[-1].sendall(REQUEST)
            self.assertEqual(body(idle[-1]), b'Hello, Ada')
        d.kill()
        for t, stream, ask, rest in zip(TRANSPORTS, streams, asked, idle):
            with self.subTest(transport=t):
                self.assertEqual(recv_all(rest), b'')
                ask.sendall(b'cd')
                answer, = parse_answers(recv_all(ask))
                self.assertEqual((answer.body, header(answer, 'Connection')), (b'Hello, late', 'close'))
                data = RANDOM.randbytes(100 * KIB)
                sender = Sender(stream, data)
                recv_same(stream, data)
                sender.finish()
        for sock in streams + asked + idle:
            sock.close()
        d.wait()
        self.assertEqual({line.fields['reason'] for line in d.log_lines('closed')}, {'fin', 'finished'})

    def test_cut(self):
        """Whoever is open after drain_timeout."""
        d = daemon(self, kinds=(('echo', 'echo', {}),), drain_timeout=MS)
        socks = [t.connect(d, f'echo-{t}') for t in TRANSPORTS]
        for sock in socks:
            sock.sendall(b'x')
            recv_same(sock, b'x', eof=False)
        d.expect_log('drain timed out|drain_timeout|cut')
        d.kill()
        d.wait()
        self.assertEqual([line.fields['reason'] for line in d.log_lines('closed')], ['drain'] * len(socks))


    def test_backlog(self):
        """Who is connected when the stop comes is served, although nobody has accepted it yet."""
        d, count = daemon(self, kinds=(('web', 'greeting', {}),)), 100      # more than are accepted at once
        ways = [t for t in TRANSPORTS if not t.version and not t.where.startswith('systemd')]
        d.kill(signal.SIGSTOP)
        socks = [(t, t.connect(d, f'web-{t}')) for t in ways for _ in range(count)]
        for _, sock in socks:
            sock.sendall(LAST)
        d.kill()
        d.kill(signal.SIGCONT)
        for t, sock in socks:
            with self.subTest(transport=t), sock:
                answer, = parse_answers(recv_all(sock))
                self.assertEqual(answer.body, b'Hello, Ada')
        d.wait()


class Limits(unittest.TestCase):

    def test_per_address(self):
        """The address that counts is the told one, where one is told."""
        d = daemon(self, kinds=(('echo', 'echo', {}),), max_connections_per_address=2)
        d.expect_log('connection refused')
        for t in TRANSPORTS:
            with self.subTest(transport=t):
                socks = [t.connect(d, f'echo-{t}') for _ in range(2)]
                for sock in socks:
                    sock.sendall(b'x')
                    recv_same(sock, b'x', eof=False)
                with self.assertRaises((ConnectionError, AssertionError)):
                    with t.connect(d, f'echo-{t}') as third:
                        third.sendall(b'x')
                        recv_same(third, b'x', eof=False)
                socks[0].close()
                d.wait_log('closed', count=1, listener=f'echo-{t}')
                again = None
                while again is None:    # the place is given back after the line
                    try:
                        again = t.connect(d, f'echo-{t}')
                        again.sendall(b'y')
                        recv_same(again, b'y', eof=False)
                    except (ConnectionError, AssertionError):
                        again = None
                again.close()
                socks[1].close()
                d.wait_metrics(lambda m: m.connections(listener=f'echo-{t}')[1] == 0)


class Metrics(Daemon):

    @each('echo')
    def test_balance(self, t, connect):
        """accepted is open and closed, and what came and went is counted."""
        data, labels = RANDOM.randbytes(5000), dict(listener=f'echo-{t}')
        socks = [connect() for _ in range(4)]
        for sock in socks:
            sock.sendall(data)
            recv_same(sock, data, eof=False)
        self.assertEqual(self.d.metrics().connections(**labels), (4, 4, 0))
        for sock in socks[:2]:
            sock.shutdown(socket.SHUT_WR)
            recv_same(sock, b'')
            sock.close()
        for sock in socks[2:]:
            reset(sock)
        m = self.d.wait_metrics(lambda m: m.connections(**labels) == (4, 0, 4))
        fins = 4 if t.unix and not t.version else 2     # a unix socket knows no reset
        self.assertEqual(m['echod_connections_closed_total', labels | dict(reason='fin')], fins)
        if not t.version:
            self.assertEqual(m['echod_bytes_received_total', labels], 4 * (len(data) + len(t.header)))
            self.assertEqual(m['echod_bytes_sent_total', labels], 4 * len(data))
        self.assertEqual(m['echod_connections_silent_total', labels], 0)


if __name__ == '__main__':
    unittest.main()
