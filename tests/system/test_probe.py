"""echoprobe: one probe, and a ping: what is verified, printed and said, against good servers and bad ones."""

import contextlib
import json
import os
import re
import resource
import signal
import socket
import ssl
import struct
import subprocess
import sys
import tempfile
import threading
import time
import unittest

from harness import SLOW, TIMEOUT, Echod, instrumented, reset
from prober import (HAVE_OPENSSL, COMMAND, Certificates, Running, Server, abort, answer, echo, hang, on_terminal, probe,
                    read_head)
from pki import authority
from test_admin import PROMTOOL
from test_echo import have_ipv6
from transport import NAME, TOLD, TRANSPORTS

OK = b'HTTP/1.1 200 OK\r\n'
LITTLE_MEMORY = {} if instrumented() else {
    'preexec_fn': lambda: resource.setrlimit(resource.RLIMIT_DATA, (32 << 20, 32 << 20))}
LIMIT = str(0.4 * SLOW)     # seconds, where a probe must run into its time limit
PATIENCE = str(20 * SLOW)   # where it must not


def free_port():
    """A port that nobody listens on: bound for the while, so that nobody else gets it."""
    sock = socket.socket()
    sock.bind(('127.0.0.1', 0))
    return sock


class Echoes(unittest.TestCase):

    def test_echod(self):
        with Echod() as d:
            tcp, http = '%s:%d' % d.addr('echo'), '%s:%d' % d.addr('web')
            probe(f'tcp://{tcp}', '-m', 'Hello World!').succeeds(self, b'Hello World!')
            probe('-m', 'Hello World!', '--half-close', f'tcp://{tcp}').succeeds(self, b'Hello World!')
            probe('--message=', '--half-close', f'tcp://{tcp}').succeeds(self, b'')
            probe(f'http://{http}/world').succeeds(self, b'Hello, world')
            done = probe(f'http://{http}/world', '-i').succeeds(self)
            self.assertRegex(done.out, rb'\AHTTP/1\.1 200 OK\r\n([!-~ ]+\r\n)+\r\nHello, world\Z')

    def test_nonce(self):
        """Never the same twice, and with the number of the probe."""
        with Echod(echo={}) as d:
            url = 'tcp://%s:%d' % d.addr('echo')
            nonces = {probe(url).succeeds(self).out for _ in range(3)}
            self.assertEqual(len(nonces), 3)
            for nonce in nonces:
                self.assertRegex(nonce, rb'\Aechoprobe 1 [0-9a-f]{16}\n\Z')

        seen = []

        def collect(sock):
            seen.append(sock.recv(1000))
            sock.sendall(seen[-1])

        with Server(collect) as server:
            probe(server.url(), '-c', '3', '-I', '1ms', '-q').succeeds(self)
        self.assertEqual([re.match(rb'echoprobe (\d+)', nonce)[1] for nonce in seen], [b'1', b'2', b'3'])

    def test_cached_echo(self):
        """A server that gives everybody the first message back does not pass."""
        first = []

        def cached(sock):
            first.append(sock.recv(1000))
            sock.sendall(first[0])

        with Server(cached) as server:
            probe(server.url()).succeeds(self)
            probe(server.url()).fails(self, 'mismatch', r'byte \d+ of the echo')
            first.clear()
            done = probe(server.url(), '-s', '1', '-c', '16', '-I', '1ms')  # each is like the first once in 256 times
            self.assertIn('mismatch: byte 1 of the echo', done.err)

    def test_sizes(self):
        with Echod(echo={}) as d:
            url = 'tcp://%s:%d' % d.addr('echo')
            for size in ('1', '2', '4096', '65537', '16M'):
                for half_close in ([], ['--half-close']):
                    with self.subTest(size=size, half_close=half_close):
                        done = probe(url, '-s', size, '-t', PATIENCE, *half_close).succeeds(self)
                        self.assertEqual(len(done.out), 16 << 20 if size == '16M' else int(size))

    def test_half_close(self):
        """It is closed behind the message, and the end is waited for."""
        got = []

        def collect(sock):
            while data := sock.recv(1000):
                got.append(data)
            sock.sendall(b''.join(got))

        with Server(collect) as server:
            probe(server.url(), '-m', 'all', '--half-close').succeeds(self, b'all')
            probe(server.url(), '-m', 'all', '-t', LIMIT).fails(self, 'timeout')

        def never_closes(sock):
            sock.sendall(sock.recv(1000))
            hang(sock)
            threading.Event().wait(TIMEOUT)

        with Server(never_closes) as server:
            probe(server.url(), '-m', 'x', '--half-close', '-t', LIMIT).fails(self, 'timeout')

    def test_unix(self):
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, 'socket')
            with Server(echo, socket.AF_UNIX, path):
                probe(f'unix:{path}', '-m', 'x').succeeds(self, b'x')
                probe(f'unix://{path}', '-m', 'x').succeeds(self, b'x')
            probe(f'unix:{path}x').fails(self, 'refused', 'No such file')
        with Server(echo, socket.AF_UNIX, f'\0echoprobe-{os.getpid()}'):
            probe(f'unix:@echoprobe-{os.getpid()}', '-m', 'x').succeeds(self, b'x')

    def test_unix_backlog(self):
        """A full one is waited for, as connect() would."""
        with tempfile.TemporaryDirectory() as folder, socket.socket(socket.AF_UNIX) as listener:
            url = 'unix:' + os.path.join(folder, 'socket')
            listener.bind(url.removeprefix('unix:'))
            listener.listen(0)
            with socket.socket(socket.AF_UNIX) as filler:
                filler.connect(listener.getsockname())
                probe(url, '-t', LIMIT).fails(self, 'timeout', 'its backlog is full', within=float(LIMIT) + 1)
                with Running(url, '-m', 'x', '-t', PATIENCE) as running:
                    threading.Event().wait(0.2)
                    listener.accept()[0].close()
                    sock = listener.accept()[0]
                    sock.sendall(sock.recv(1000))
                    self.assertEqual(running.end(), (b'x', 0))
                    sock.close()

    @unittest.skipUnless(have_ipv6(), 'no IPv6')
    def test_ipv6(self):
        with Server(echo, socket.AF_INET6, ('::1', 0)) as server:
            probe(f'tcp://[::1]:{server.port}', '-m', 'x').succeeds(self, b'x')
            probe('tcp://[fe80::1%nosuch]:7').fails(self, 'resolve', 'there is no interface nosuch')
            probe('tcp://[fe80::1%1such]:7').fails(self, 'resolve', 'there is no interface 1such')

    def test_expect(self):
        with Server(echo) as server:
            probe(server.url(), '-m', 'needle in hay', '--expect', 'in').succeeds(self)
            probe(server.url(), '-m', 'needle in hay', '--expect', 'on').fails(self, 'mismatch', '--expect')

    def test_several(self):
        """At once, and printed in the order of the command line."""
        barrier = threading.Barrier(3, timeout=TIMEOUT)

        def together(sock):
            data = sock.recv(1000)
            barrier.wait()
            sock.sendall(data)

        with Server(together) as server, free_port() as refused:
            done = probe(*[f'tcp://localhost:{server.port}'] + [server.url()] * 2, '-m', 'x').succeeds(self, b'xxx')
            url = f'tcp://127.0.0.1:{refused.getsockname()[1]}'
            with Echod() as d:
                done = probe('http://%s:%d/b' % d.addr('web'), url, 'http://%s:%d/a' % d.addr('web'))
            self.assertEqual((done.status, done.out), (2, b'Hello, bHello, a'))
            self.assertRegex(done.err, rf'\Aechoprobe: {url}: refused: [^\n]*\n\Z')


class EchodTransports(unittest.TestCase):
    """Every way in which echod can be reached, probed, pinged and loaded."""

    def url(self, d, transport, scheme):
        where = d.addr(scheme)
        if transport.where == 'unix':
            return f'unix:{where}'
        if transport.where == 'abstract':
            return f'unix:{where}'
        secure = {'echo': 'tls', 'web': 'https'} if transport.version else {'echo': 'tcp', 'web': 'http'}
        return '%s://%s:%d' % (secure[scheme], *where) + '/world' * (scheme == 'web')

    def test_all(self):
        for t in TRANSPORTS:
            if t.where.startswith('systemd') or (t.version and t.where == 'unix'):
                continue
            args = ['--ca=' + authority().certificate, '--sni=' + NAME] if t.version else []
            if t.header:
                args += ['--proxy-v1' if t.header.startswith(b'PROXY') else '--proxy-v2']
                args += ['--proxy-source=%s:%d' % TOLD] if t.where == 'tcp' else []
            with self.subTest(transport=t), Echod(echo=t.keys('echo'), web=t.keys('web')) as d:
                echo_url = self.url(d, t, 'echo')
                urls = [echo_url] if t.where != 'tcp' else [echo_url, self.url(d, t, 'web')]
                probe(*urls, *args, '-m', 'x').succeeds(self, b'x' + b'Hello, world' * (len(urls) - 1))
                probe(echo_url, *args, '-s', '1M', '--half-close', '-t', PATIENCE).succeeds(self)
                probe(*urls, *args, '-c', '2', '-I', '1ms').succeeds(self)
                probe(*urls, *args, '-n', '3', '-P', '4', '-d', '0.2').succeeds(self)
                if t.where == 'tcp':    # in order, so that no log has to tell of a probe
                    closed = [d.wait_log('closed', count=count) for count in range(1, 13)]
                    self.assertEqual([line.fields['reason'] for line in closed], ['fin'] * 12)
                    self.assertEqual({line.fields.get('told') for line in closed}, {t.told})


class BadEchoes(unittest.TestCase):
    """Each fails in its own way, in one line, in time, and with nothing on standard output."""

    def case(self, handle, word, text, *args):
        with Server(handle) as server:
            limit = LIMIT if word == 'timeout' else PATIENCE
            probe(server.url(), '-m', 'Hello World!', '-t', limit, *args).fails(self, word, text, within=float(LIMIT) + 1)

    def test_refused(self):
        with free_port() as sock:
            url = 'tcp://127.0.0.1:%d' % sock.getsockname()[1]
            probe(url).fails(self, 'refused', 'Connection refused', within=1)

    def test_reset(self):
        self.case(abort, 'reset', 'reset the connection')

    def test_reset_within_the_echo(self):
        def handle(sock):
            sock.sendall(sock.recv(1000)[:5])
            reset(sock)
        self.case(handle, 'reset', 'reset the connection')

    def test_one_wrong_byte(self):
        self.case(lambda sock: sock.sendall(sock.recv(1000).replace(b'W', b'w')), 'mismatch',
                  'byte 7 of the echo is 0x77, not 0x57')

    def test_short(self):
        self.case(lambda sock: sock.sendall(sock.recv(1000)[:5]), 'short', 'after 5 of 12 bytes')

    def test_nothing(self):
        self.case(lambda sock: sock.recv(1000), 'short', 'after 0 of 12 bytes')

    def test_closed_at_once(self):
        with Server(lambda sock: None) as server:
            done = probe(server.url(), '-m', 'x')
        self.assertEqual((done.status, done.out), (2, b''))
        self.assertRegex(done.err, r'\Aechoprobe: [^\n]* (short|reset): [^\n]*\n\Z')     # which is a race of the two ends

    def test_extra_bytes(self):
        self.case(lambda sock: sock.sendall(sock.recv(1000) + b'!'), 'mismatch', 'more came back than the 12 bytes')

    def test_extra_bytes_behind_a_full_read(self):
        """libevent shows 4096 bytes at a time: what has come behind them is not overlooked."""
        for size in (4096, 65536):
            def handle(sock, size=size):
                sock.sendall(sock.recv(size, socket.MSG_WAITALL) + b'!')
            with self.subTest(size=size), Server(handle) as server:
                probe(server.url(), '-s', str(size), '-t', PATIENCE).fails(self, 'mismatch', 'more came back')

    def test_extra_bytes_later(self):
        def handle(sock):
            sock.sendall(sock.recv(1000))
            sock.recv(1000)     # the end of the client's side: its half-close
            sock.sendall(b'!')
        self.case(handle, 'mismatch', 'more came back', '--half-close')

    def test_banner(self):
        self.case(lambda sock: sock.sendall(b'220 hello\r\n') or hang(sock), 'mismatch', 'byte 1 of the echo')

    def test_stalled(self):
        self.case(hang, 'timeout', 'no whole answer within')

    def test_stalled_within_the_echo(self):
        self.case(lambda sock: sock.sendall(sock.recv(1000)[:5]) or hang(sock), 'timeout', 'no whole answer within')

    def test_a_byte_now_and_then(self):
        """What comes does not prolong the time that there is."""
        def handle(sock):
            data = sock.recv(1000)
            for byte in data:
                sock.sendall(bytes([byte]))
                threading.Event().wait(float(LIMIT) / 4)
        self.case(handle, 'timeout', 'no whole answer within', '-m', 'x' * 100)

    def test_endless(self):
        def handle(sock):
            while True:
                sock.sendall(b'Hello World!' * 1000)
        self.case(handle, 'mismatch', 'more came back')

    def test_endless_same_bytes(self):
        """An endless echo of the right bytes, while we still send."""
        def handle(sock):
            data = sock.recv(1)
            while True:
                sock.sendall(data * 65536)
        with Server(handle) as server:
            probe(server.url(), '-s', '16M', '-t', PATIENCE).fails(self, 'mismatch')

    @unittest.skipIf(instrumented(), 'what instruments it needs descriptors too')
    def test_no_descriptors(self):
        """What is wrong at this end is said to be, and is never taken for a verdict that it is not."""
        words = set()
        with Server(echo) as server:
            for limit in range(3, 30):
                done = probe(server.url(), preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit)))
                if done.status == 0:
                    break
                if done.status != 127:      # the loader could not open the libraries
                    self.assertIn(done.status, (2, 3), done)
                    self.assertRegex(done.err, r'\Aechoprobe: [^\n]*Too many open files\n\Z')
                    words.update(re.findall(r' system: ', done.err))
        self.assertEqual((done.status, words), (0, {' system: '}))

    def test_accepts_only(self):
        """As a load balancer without a backend does: in the backlog, never accepted."""
        with socket.create_server(('127.0.0.1', 0)) as sock:
            url = 'tcp://127.0.0.1:%d' % sock.getsockname()[1]
            probe(url, '-t', LIMIT).fails(self, 'timeout', within=float(LIMIT) + 1)

    def test_no_answer_to_syn(self):
        """A full backlog drops them; the connect must end in time."""
        with socket.socket() as sock:
            sock.bind(('127.0.0.1', 0))
            sock.listen(0)
            fillers = [socket.socket() for _ in range(4)]
            for filler in fillers:
                filler.setblocking(False)
                filler.connect_ex(sock.getsockname())
            url = 'tcp://127.0.0.1:%d' % sock.getsockname()[1]
            probe(url, '-t', PATIENCE, '--connect-timeout', LIMIT).fails(self, 'timeout', 'connect to',
                                                                              within=float(LIMIT) + 1)
            for filler in fillers:
                filler.close()


class Web(unittest.TestCase):

    def ask(self, raw, *args, end='close', path='/'):
        with Server(answer(raw, end)) as server:
            return probe(server.url('http', path), '-t', PATIENCE, *args)

    def test_request(self):
        heads = []

        def handle(sock):
            heads.append(read_head(sock))
            sock.sendall(OK + b'Content-Length: 0\r\n\r\n')

        with Server(handle) as server:
            probe(server.url('http', '/a?b=%20')).succeeds(self, b'')
            self.assertRegex(heads[0], rb'\AGET /a\?b=%%20 HTTP/1\.1\r\nHost: 127\.0\.0\.1:%d\r\n' % server.port)

    def test_bodies(self):
        for raw, body in (
                (OK + b'Content-Length: 2\r\n\r\nhi', b'hi'),
                (OK + b'Transfer-Encoding: chunked\r\n\r\n2;x=y\r\nhi\r\n1\r\n!\r\n0\r\nT: x\r\n\r\n', b'hi!'),
                (OK + b'\r\nuntil the end', b'until the end'),
                (b'HTTP/1.0 200 OK\r\n\r\nuntil the end', b'until the end'),
                (b'HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nhi', b'hi'),
                (b'HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\n\r\n' + OK + b'Content-Length: 1\r\n\r\nx', b'x'),
                (b'HTTP/1.1 204 No Content\r\n\r\n', b''),
                (OK + b'\r\n' + bytes(range(256)), bytes(range(256)))):
            with self.subTest(raw=raw):
                self.ask(raw).succeeds(self, body)

    def test_needs_no_end(self):
        """Where the length is known, it is not the end of the connection that ends the answer."""
        self.ask(OK + b'Content-Length: 2\r\n\r\nhi', end='hang').succeeds(self, b'hi')
        self.ask(OK + b'Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n', end='hang').succeeds(self, b'')

    def test_malformed(self):
        for raw in (b'garbage\r\n\r\n', b'HTTP/1.1 2x0 OK\r\n\r\n', OK + b'no colon\r\n\r\n', b'HTTP/3.0 200 OK\r\n\r\n',
                    OK + b'Content-Length: 1\r\nContent-Length: 2\r\n\r\nxx', OK + b'Content-Length: x\r\n\r\n',
                    OK + b'Transfer-Encoding: chunked\r\n\r\nzz\r\n', OK + b'Transfer-Encoding: gzip\r\n\r\nx',
                    b'HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n',
                    OK + b'Content-Length: 1\r\n\r\nx and more'):
            with self.subTest(raw=raw):
                self.ask(raw, end='hang').fails(self, 'protocol')

    def test_malformed_behind_a_full_read(self):
        head = OK + b'Content-Length: 4000\r\nX: '
        raw = head.ljust(92, b'x') + b'\r\n\r\n' + b'x' * 4000
        self.assertEqual(len(raw), 4096)
        self.ask(raw, '-q', end='hang').succeeds(self)
        self.ask(raw + b'y', end='hang').fails(self, 'protocol', 'bytes follow the answer')

    def test_short(self):
        for raw, text in ((b'', 'before an answer'), (b'HTTP/1.1 200', 'within the head'),
                          (OK + b'Content-Length: 5\r\n\r\nhi', 'after 2 bytes of the body'),
                          (OK + b'Transfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n', 'after 2 bytes of the body')):
            with self.subTest(raw=raw):
                self.ask(raw).fails(self, 'short', text)

    def test_reset(self):
        self.ask(OK + b'\r\nuntil the', end='reset').fails(self, 'reset')
        self.ask(OK + b'Content-Length: 5\r\n\r\nhi', end='reset').fails(self, 'reset')

    def test_stalled(self):
        for raw in (b'', b'HTTP/1.1 200', OK + b'Content-Length: 5\r\n\r\nhi', OK + b'\r\nuntil the end'):
            with self.subTest(raw=raw):
                self.ask(raw, '-t', LIMIT, end='hang').fails(self, 'timeout', 'no whole answer', within=float(LIMIT) + 1)

    def test_endless(self):
        """Each endless in another place; neither memory nor patience is."""
        def endless(start, part):
            def handle(sock):
                read_head(sock)
                sock.sendall(start)
                while True:
                    sock.sendall(part)
            return handle

        for start, part in ((OK + b'\r\n', b'x' * 65536), (OK + b'X: ', b'x' * 65536), (OK, b'X: y\r\n' * 1000),
                            (b'', b'HTTP/1.1 100 Continue\r\n\r\n' * 1000),
                            (OK + b'Transfer-Encoding: chunked\r\n\r\n', b'1000\r\n' + b'x' * 4096 + b'\r\n')):
            with self.subTest(part=part[:30]), Server(endless(start, part)) as server:
                probe(server.url('http'), '-t', PATIENCE, **LITTLE_MEMORY).fails(self, 'protocol', 'longer than')
        start = OK + b'Transfer-Encoding: chunked\r\n\r\n1;'
        with Server(endless(start, b'x' * 65536)) as server:
            probe(server.url('http'), '-t', LIMIT).fails(self, 'timeout', within=float(LIMIT) + 1)

    def test_max_size(self):
        raw = OK + b'Content-Length: 5\r\n\r\nhello'
        self.ask(raw, '--max-size=5').succeeds(self, b'hello')
        self.ask(raw, '--max-size=4').fails(self, 'protocol', r'longer than 4 bytes \(--max-size\)')

    def test_status(self):
        for status, good, args in ((200, True, []), (302, True, []), (404, False, []), (503, False, []),
                                   (503, True, ['--expect-status=5xx']), (503, True, ['--expect-status=200,503']),
                                   (200, False, ['--expect-status=201,4xx'])):
            with self.subTest(status=status, args=args):
                done = self.ask(b'HTTP/1.1 %d X\r\nContent-Length: 1\r\n\r\nx' % status, *args)
                if good:
                    done.succeeds(self, b'x')
                else:
                    done.fails(self, 'mismatch', f'the status is {status}, not ')

    def test_expect(self):
        raw = OK + b'Content-Length: 9\r\n\r\nall right'
        self.ask(raw, '--expect=right').succeeds(self, b'all right')
        self.ask(raw, '--expect=wrong').fails(self, 'mismatch', '--expect')
        self.ask(raw, '-q', '--expect=right').succeeds(self, b'')


class Terminal(unittest.TestCase):

    def test_escapes(self):
        """Bytes of a server cannot play with the terminal; a pipe gets them as they are."""
        body = b'\x1b[2J\x07caf\xc3\xa9\xc2\x9b1m\xe2\x80\xaegood\rbad\n'
        with Server(answer(OK + b'\r\n' + body)) as server:
            probe(server.url('http')).succeeds(self, body)
            text, status = on_terminal(server.url('http'))
        self.assertEqual(status, 0)
        self.assertEqual(text, b'\\x1b[2J\\x07caf\xc3\xa9\\xc2\\x9b1m\\xe2\\x80\\xaegood\\x0dbad\r\n')

    def test_escapes_in_the_head(self):
        with Server(answer(OK + b'X: \xc2\x9b2J\r\n\r\nx')) as server:
            text, status = on_terminal(server.url('http'), '-i')
        self.assertEqual((text, status), (b'HTTP/1.1 200 OK\r\nX: \\xc2\\x9b2J\r\n\r\nx\r\n', 0))

    def test_live_line(self):
        with Echod(echo={}) as d:
            url = 'tcp://%s:%d' % d.addr('echo')
            text, status = on_terminal(url, '-c', '2', '-I', '1ms')
            self.assertEqual(status, 0)
            self.assertIn(b'\r\x1b[K\x1b[?7l' + url.encode() + b': 2 probes, 0 lost, median', text)
            self.assertNotIn(b'\x1b', probe(url, '-c', '2', '-I', '1ms').succeeds(self).out)


class Ping(unittest.TestCase):

    LINE = r'tcp://\S+: seq={} resolve=\d+\.\d{{3}} connect=\d+\.\d{{3}} first=\d+\.\d{{3}} done=\d+\.\d{{3}} ms\n'
    SUMMARY = (r'--- tcp://\S+: {} probes, {} lost \({} %\)\n'
               r'min [\d.]+, median [\d.]+, p90 [\d.]+, p99 [\d.]+, max [\d.]+, jitter [\d.]+ ms\n')

    def test_lines(self):
        with Echod(echo={}) as d:
            url = 'tcp://%s:%d' % d.addr('echo')
            text = probe(url, '-c', '3', '-I', '10ms').succeeds(self).out.decode()
            self.assertRegex(text, ''.join(self.LINE.format(i) for i in (1, 2, 3)) + self.SUMMARY.format(3, 0, '0.0'))
            text = probe(url, '-c', '3', '-I', '10ms', '-q').succeeds(self).out.decode()
            self.assertRegex(text, r'\A' + self.SUMMARY.format(3, 0, '0.0') + r'\Z')

    def test_interval(self):
        with Server(echo) as server:
            done = probe(server.url(), '-c', '4', '-I', '0.1', '-q').succeeds(self)
            self.assertGreater(done.seconds, 0.3)

    def test_loss(self):
        """Every second one is reset: each is told, and the verdict is critical."""
        served = []

        def handle(sock):
            served.append(sock)
            (abort if len(served) % 2 == 0 else echo)(sock)

        with Server(handle) as server:
            done = probe(server.url(), '-c', '4', '-I', '1ms')
            self.assertEqual(done.status, 2, done)
            self.assertRegex(done.out.decode(), self.LINE.format(1) + self.LINE.format(3) + self.SUMMARY.format(4, 2, '50.0'))
            self.assertRegex(done.err, r'\A(echoprobe: \S+: seq=[24]: reset: [^\n]*\n){2}'
                                       r'echoprobe: \S+: 2 of 4 lost; the first: reset: [^\n]*\n\Z')

    def test_interrupted(self):
        with Echod(echo={}) as d:
            for number in (signal.SIGINT, signal.SIGTERM):
                with Running('tcp://%s:%d' % d.addr('echo'), '-I', '10ms') as running:
                    running.wait_for(rb'seq=3 ')
                    running.interrupt(number)
                    text, status = running.end()
                self.assertEqual(status, 0)
                self.assertRegex(text, rb'--- tcp://\S+: \d+ probes, 0 lost \(0\.0 %\), interrupted\nmin ')

    def test_interrupted_in_each_format(self):
        """What is only a part says so."""
        counted = []

        def handle(sock):
            counted.append(sock)
            echo(sock)

        for name, text in (('json', rb'"interrupted":true\}\n'), ('nagios', rb' ms \(interrupted\) \| '),
                           ('prometheus', rb'\necho\w+_interrupted\{url="[^"]*"\} 1\n')):
            counted.clear()
            with self.subTest(format=name), Server(handle) as server, \
                    Running(server.url(), '-I', '10ms', '-f', name) as running:
                while len(counted) < 2:     # the second is begun when the first has ended
                    threading.Event().wait(0.01)
                running.interrupt()
                said, status = running.end()
                self.assertEqual(status, 0, said)
                self.assertRegex(said, text)

    def test_interrupted_before_a_result(self):
        with Server(hang) as server, Running(server.url(), '-c', '3', '-t', '1h') as running:
            while not server.count:
                threading.Event().wait(0.01)
            running.interrupt()
            text, status = running.end()
        self.assertEqual(status, 2)
        self.assertIn(b'interrupted before there was a result', text)

    def test_several(self):
        with Echod() as d:
            urls = 'tcp://%s:%d' % d.addr('echo'), 'http://%s:%d/x' % d.addr('web')
            text = probe(*urls, '-c', '2', '-I', '1ms').succeeds(self).out.decode()
        for url in urls:
            self.assertEqual(text.count(f'{url}: seq='), 2)
            self.assertIn(f'--- {url}: 2 probes, 0 lost', text)


class Verdicts(unittest.TestCase):

    @staticmethod
    def slow(seconds):
        def handle(sock):
            data = sock.recv(1000)
            threading.Event().wait(seconds)
            sock.sendall(data)
        return handle

    def test_thresholds(self):
        with Server(self.slow(0.1)) as server:
            url = server.url()
            for args, status, text in ((['-w', '50'], 1, r'warning: \d+\.\d{3} ms is over 50.000 ms'),
                                       (['-w', '50', '-C', '60'], 2, r'critical: \d+\.\d{3} ms is over 60.000 ms'),
                                       (['-C', '60ms'], 2, r'critical: \d'),
                                       (['-w', '1m', '-C', '2m'], 0, None)):
                with self.subTest(args=args):
                    done = probe(url, '-m', 'x', *args, '-t', '1m')
                    self.assertEqual((done.status, done.out), (status, b'x'), done)
                    if text:
                        self.assertRegex(done.err, rf'\Aechoprobe: {url}: {text}[^\n]*\n\Z')
            done = probe(url, '-c', '2', '-I', '1ms', '-q', '-w', '50')
            self.assertEqual(done.status, 1)
            self.assertIn('warning: the 99th percentile of ', done.err)

    def test_worst_of_several(self):
        with Server(self.slow(0.1)) as slow, Server(echo) as good, Server(abort) as bad:
            self.assertEqual(probe(good.url(), slow.url(), '-w', '50').status, 1)
            self.assertEqual(probe(bad.url(), good.url(), slow.url(), '-w', '50').status, 2)

    def test_json(self):
        with Echod() as d, free_port() as refused:
            url = 'http://%s:%d/x' % d.addr('web')
            said = json.loads(probe(url, '--json').succeeds(self).out)
            self.assertEqual([said[key] for key in ('url', 'mode', 'verdict', 'failure', 'sent', 'lost', 'status')],
                             [url, 'once', 'ok', 'none', 1, 0, 200])
            self.assertGreater(said['done_ms'], 0)
            self.assertEqual(said['latency_ms']['max'], said['done_ms'])
            bad = 'tcp://127.0.0.1:%d' % refused.getsockname()[1]
            done = probe(bad, url, '--format=json')
            first, second = map(json.loads, done.out.splitlines())
            self.assertEqual((done.status, first['verdict'], first['failure'], second['verdict']),
                             (2, 'critical', 'refused', 'ok'))
            self.assertEqual(first['failures'], {'refused': 1})
            *probes, said = map(json.loads, probe(url, '-c', '2', '-I', '1ms', '--json').succeeds(self).out.splitlines())
            self.assertEqual([p['seq'] for p in probes], [1, 2])
            self.assertEqual((said['mode'], said['sent']), ('ping', 2))

    def test_json_quotes(self):
        path = '/nowhere/"\\'
        self.assertEqual(json.loads(probe(f'unix:{path}', '--json').out)['url'], f'unix:{path}')

    VALUE = (r"'[^'|=]+'=(\d+\.\d{6}s|U);(\d+\.\d{6})?;(\d+\.\d{6})?;0;\d+\.\d{6}"
             r" '[^'|=]+ loss'=\d+(\.\d+)?%;;0;0;100")

    def test_nagios(self):
        with Echod() as d, free_port() as refused:
            url, bad = 'http://%s:%d/x' % d.addr('web'), 'tcp://127.0.0.1:%d' % refused.getsockname()[1]
            text = probe(url, '--format=nagios', '-w', '30000', '-C', '1m', '-t', str(5 * SLOW)).succeeds(self).out.decode()
            self.assertRegex(text, rf'\AECHOPROBE OK - {url} \d+\.\d+ ms \| {self.VALUE}\n\Z')
            self.assertIn(f"s;30.000000;60.000000;0;{5 * SLOW:.6f} '{url} loss'=0%;;0;0;100\n", text)
            done = probe(url, bad, '--format=nagios')
            self.assertEqual(done.status, 2)
            self.assertRegex(done.out.decode(), rf'\AECHOPROBE CRITICAL - {url} \d+\.\d+ ms, {bad} refused: [^|]* '
                                                rf'\| {self.VALUE} {self.VALUE}\n\Z')
            self.assertIn(f" '{bad} loss'=100%;", done.out.decode())

    def test_nagios_bar(self):
        """Values begin behind the bar, so that there is no other one."""
        text = probe('unix:/nowhere/a|b', '--format=nagios').out.decode()
        self.assertRegex(text, rf'\AECHOPROBE CRITICAL - unix:/nowhere/a_b refused: [^|]* \| {self.VALUE}\n\Z')

    def test_prometheus(self):
        """By the text format: each metric once with its type, each line a sample of it, no sample twice."""
        with Echod() as d, free_port() as refused:
            urls = 'http://%s:%d/x' % d.addr('web'), 'tcp://127.0.0.1:%d' % refused.getsockname()[1]
            done = probe(*urls, '--format=prometheus')
        if PROMTOOL:
            checked = subprocess.run([PROMTOOL, 'check', 'metrics'], input=done.out, capture_output=True, timeout=TIMEOUT)
            self.assertEqual((checked.returncode, checked.stderr), (0, b''))
        metric, samples, types = None, {}, set()
        for line in done.out.decode().splitlines():
            if line.startswith('# HELP '):
                continue
            if line.startswith('# TYPE '):
                metric = line.split()[2]
                self.assertNotIn(metric, types)
                types.add(metric)
                continue
            name, labels, value = re.fullmatch(r'(\w+)(\{.*\}) (\S+)', line).groups()
            self.assertIn(name, (metric, f'{metric}_sum', f'{metric}_count'))
            self.assertNotIn((name, labels), samples)
            samples[name, labels] = float(value)
        self.assertEqual(samples['echoprobe_verdict', f'{{url="{urls[0]}"}}'], 0)
        self.assertEqual(samples['echoprobe_verdict', f'{{url="{urls[1]}"}}'], 2)
        self.assertEqual(samples['echoprobe_failures', f'{{url="{urls[1]}",class="refused"}}'], 1)
        self.assertEqual(samples['echoprobe_http_status', f'{{url="{urls[0]}"}}'], 200)

    def test_full_disk(self):
        """What could not be written was not said, so that its status is no verdict."""
        with Server(echo) as server, open('/dev/full', 'wb') as full:
            done = subprocess.run([*COMMAND, server.url(), '-m', 'x'], stdout=full, stderr=subprocess.PIPE)
            self.assertEqual(done.returncode, 3)
            self.assertIn(b'echoprobe: standard output: No space left on device\n', done.stderr)
            done = subprocess.run([*COMMAND, '--help'], stdout=full, stderr=subprocess.PIPE)
            self.assertEqual(done.returncode, 3)
            self.assertIn(b'echoprobe: standard output: No space left on device\n', done.stderr)

    def test_closed(self):
        """Nothing else takes the place of a descriptor that is not open."""
        with Server(echo) as server:
            done = probe(server.url(), '-m', 'x', preexec_fn=lambda: os.close(1))
        self.assertEqual((done.status, done.err), (3, 'echoprobe: standard output: Bad file descriptor\n'))

    def test_nobody_reads(self):
        """A ping without an end has one where its reader goes away."""
        with Server(echo) as server, Server(hang) as silent:
            done = subprocess.Popen([*COMMAND, server.url(), silent.url(), '-I', '10ms', '-t', '1h'],
                                    stdout=subprocess.PIPE, stderr=subprocess.PIPE)
            done.stdout.readline()
            done.stdout.close()
            said = done.stderr.read()
            self.assertEqual(done.wait(TIMEOUT), 3)
            done.stderr.close()
            self.assertIn(b'echoprobe: standard output: Broken pipe\n', said)


class Usage(unittest.TestCase):

    def test_wrong(self):
        for args, text in (([], 'which URL'), (['ftp://x'], 'does not begin with'), (['--foo', 'tcp://x'], 'unknown option'),
                           (['-y', 'tcp://x'], 'unknown option'), (['tcp://x', '-c'], 'argument is missing'),
                           (['-c', 'many', 'tcp://x'], 'not a whole number'), (['-t', '0', 'tcp://x'], 'must be from'),
                           (['-w', '0', 'tcp://x'], 'must be from 0.001ms to 1h'),
                           (['tcp://x:0'], 'port')):
            with self.subTest(args=args):
                probe(*args).usage(self, text)

    def test_nagios(self):
        """A plugin's words are those on standard output, wherever its format stands on the command line."""
        for args in ([], ['--foo', 'tcp://x'], ['-c', 'many', 'tcp://x'], ['tcp://x', '-c', '1', '--message=a', '--size=1'],
                     ['ftp://a|b\nc'], ['tls://127.0.0.1:1', '--ca=/nowhere'], ['tcp://x', '-d', '1', '--hdrplot=/nowhere/x']):
            for words in (['-f', 'nagios', *args], [*args, '--format=nagios']):
                with self.subTest(words=words):
                    done = probe(*words)
                    why = done.err.removeprefix('echoprobe: ').removesuffix('\n').replace('|', '_').replace('\n', '_')
                    self.assertEqual((done.status, done.out.decode()), (3, f'ECHOPROBE UNKNOWN - {why}\n'), done)
                    self.assertGreater(len(why), 10)

    def test_last_format(self):
        probe('--json', '-y', '-f', 'text', 'tcp://x').usage(self, 'unknown option')
        probe('-f', 'nagios', '-y', '--json', 'tcp://x').usage(self, 'unknown option')
        self.assertRegex(probe('--json', '-y', '-f', 'nagios', 'tcp://x').out, rb'\AECHOPROBE UNKNOWN - ')
        self.assertRegex(probe('--json', '-f', 'nagios', 'unix:/nowhere').out, rb'\AECHOPROBE CRITICAL - ')

    def test_nagios_first(self):
        """A plugin's line comes before all else, for who reads both streams, too."""
        with free_port() as refused:
            url = 'tcp://127.0.0.1:%d' % refused.getsockname()[1]
            for args in (['-y'], [url], [url, '-c', '2', '-I', '1ms'], [url, '-d', '50ms'], ['tls://x:1', '--ca=/nowhere']):
                with self.subTest(args=args), Running('-f', 'nagios', *args) as running:
                    said, _ = running.end()
                    self.assertRegex(said, rb'\AECHOPROBE (UNKNOWN|CRITICAL) - [^\n]*\nechoprobe: [^\n]*\n\Z')

    @unittest.skipIf(instrumented(), 'what instruments it needs descriptors too')
    def test_nagios_without_descriptors(self):
        for limit in range(3, 30):
            done = probe('-f', 'nagios', 'tcp://x',
                         preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit)))
            if done.status != 127:      # the loader could open the libraries
                break
        self.assertEqual(done.status, 3, done)
        self.assertRegex(done.out, rb'\AECHOPROBE UNKNOWN - .*Too many open files.*\n\Z')

    def test_help(self):
        text = probe('--help').succeeds(self).out.decode()
        self.assertRegex(text, r'\AUsage: echoprobe ')
        self.assertRegex(probe('--version').succeeds(self).out, rb'\Aechoprobe \d+\.\d+\.\d+\n\Z')


@unittest.skipUnless(HAVE_OPENSSL, 'no openssl')
class Tls(unittest.TestCase):

    @classmethod
    def setUpClass(cls):
        cls.certs = Certificates()
        cls.addClassCleanup(cls.certs.folder.cleanup)
        for name, options in (('good', {}), ('expired', {'expired': True}), ('other', {'alt': 'DNS:other.example'}),
                              ('client', {'alt': 'DNS:client'})):
            cls.certs.issue(name, **options)
        cls.ca = '--ca=' + cls.certs.path('ca.pem')

    def server(self, name='good', handle=echo, **options):
        return Server(handle, context=self.certs.context(name, **options))

    def test_good(self):
        with self.server() as server:
            probe(server.url('tls'), self.ca, '-m', 'x').succeeds(self, b'x')
            for name in ('localhost', 'localhost.'):
                probe(f'tls://{name}:{server.port}', self.ca, '-m', 'x').succeeds(self, b'x')
            text = probe(server.url('tls'), self.ca, '-c', '1').succeeds(self).out
            self.assertRegex(text, rb'connect=[\d.]+ tls=[\d.]+ first=')
            done = probe(server.url('tls'), self.ca, '-s', '4M', '-t', PATIENCE).succeeds(self)
            self.assertEqual(len(done.out), 4 << 20)

    def test_https(self):
        with self.server(handle=answer(OK + b'Content-Length: 2\r\n\r\nhi')) as server:
            probe(server.url('https'), self.ca).succeeds(self, b'hi')

    def test_not_trusted(self):
        with self.server() as server:
            probe(server.url('tls')).fails(self, 'tls', 'certificate: unable to get local issuer')
            probe(server.url('tls'), '--insecure', '-m', 'x').succeeds(self, b'x')

    def test_expired(self):
        with self.server('expired') as server:
            probe(server.url('tls'), self.ca).fails(self, 'tls', 'certificate: certificate has expired')

    def test_wrong_name(self):
        with self.server('other') as server:
            probe(server.url('tls'), self.ca).fails(self, 'tls', 'certificate: IP address mismatch')
            probe(f'tls://localhost:{server.port}', self.ca).fails(self, 'tls', 'certificate: hostname mismatch')
            probe(server.url('tls'), self.ca, '--sni=other.example', '-m', 'x').succeeds(self, b'x')

    def test_sni(self):
        names = []
        context = self.certs.context('other')
        context.sni_callback = lambda sock, name, context: names.append(name)
        with Server(echo, context=context) as server:
            probe(server.url('tls'), '--insecure').succeeds(self)
            probe(f'tls://localhost.:{server.port}', '--insecure').succeeds(self)
            probe(server.url('tls'), self.ca, '--sni=other.example').succeeds(self)
        self.assertEqual(names, [None, 'localhost', 'other.example'])

    def test_client_certificate(self):
        files = ['--cert=' + self.certs.path('client.pem'), '--key=' + self.certs.path('client.key')]
        with self.server(client_ca=True) as server:
            probe(server.url('tls'), self.ca, *files, '-m', 'x').succeeds(self, b'x')
            probe(server.url('tls'), self.ca, '-m', 'x').fails(self, 'tls', 'certificate required')

    def test_alert_before_a_reset(self):
        """Why the server breaks the connection is told, also when it is sending that fails."""
        context = self.certs.context('good', client_ca=True)

        def handle(sock):
            with contextlib.suppress(ssl.SSLError), context.wrap_socket(sock.dup(), server_side=True):
                pass
            reset(sock)

        with Server(handle) as server:
            for _ in range(10):
                probe(server.url('tls'), self.ca, '-s', '4M', '-t', PATIENCE).fails(self, 'tls', 'certificate required')
            done = probe(server.url('tls'), self.ca, '-s', '4M', '-d', '50ms', '-t', PATIENCE)
            self.assertIn('tls: tlsv13 alert certificate required', done.err)

    def test_files(self):
        """What is wrong with one is said as clearly as the daemon says it, and nobody is asked for a passphrase."""
        path = self.certs.path
        cert, key, encrypted, locked = path('client.pem'), path('client.key'), path('encrypted.key'), path('locked.pem')
        self.certs.openssl('pkey', '-in', key, '-aes128', '-passout', 'pass:secret', '-out', encrypted)
        with open(cert, encoding='ascii') as file, open(locked, 'w', encoding='ascii') as made:
            begin, rest = file.read().split('-----BEGIN CERTIFICATE-----\n', 1)
            made.write(f'{begin}-----BEGIN CERTIFICATE-----\nProc-Type: 4,ENCRYPTED\n'
                       f'DEK-Info: AES-128-CBC,{"0" * 32}\n\n{rest}')
        for args, text in (
                (['--ca=/nowhere'], '--ca: "/nowhere": No such file or directory'),
                ([f'--ca={key}'], f'--ca: "{key}" has no certificate in it'),
                ([f'--ca={locked}'], f'--ca: "{locked}": [a-z ]+'),
                (['--cert=/nowhere'], '--cert: "/nowhere": No such file or directory'),
                ([f'--cert={key}'], f'--cert: "{key}" has no certificate in it'),
                ([f'--cert={locked}'], f'--cert: "{locked}": [a-z ]+'),
                ([f'--cert={cert}'], f'--cert: "{cert}" has no private key in it'),
                ([f'--cert={cert}', '--key=/nowhere'], '--key: "/nowhere": No such file or directory'),
                ([f'--cert={cert}', f'--key={cert}'], f'--key: "{cert}" has no private key in it'),
                ([f'--cert={cert}', f'--key={encrypted}'],
                 f'--key: "{encrypted}" is encrypted, and nobody is there to give the passphrase'),
                ([f'--cert={cert}', f'--key={path("good.key")}'],
                 f'--key: "{path("good.key")}" is not the key of the certificate in "{cert}"')):
            with self.subTest(args=args):
                done = probe('tls://127.0.0.1:1', *args)
                self.assertEqual((done.status, done.out), (3, b''), done)
                self.assertRegex(done.err, rf'\Aechoprobe: {text}\n\Z')

    def test_no_tls(self):
        """What a server that does not speak it answers, and one that closes, resets or says nothing."""
        for handle, words, text in ((lambda sock: sock.recv(1000) and sock.sendall(b'HTTP/1.0 400 Bad\r\n\r\n'), 'tls', ''),
                                    (lambda sock: sock.recv(1000), 'tls', 'the connection ended'),
                                    (abort, 'reset', 'handshake'),
                                    (hang, 'timeout', 'no TLS handshake within')):
            with self.subTest(word=words, text=text), Server(handle) as server:
                limit = LIMIT if words == 'timeout' else PATIENCE
                probe(server.url('tls'), '--insecure', '-t', limit).fails(self, words, text, within=float(LIMIT) + 1)

    def test_proxy_header(self):
        """It comes before the handshake, in the clear."""
        context, lines = self.certs.context('good'), []

        def handle(sock):
            line = b''
            while not line.endswith(b'\r\n'):
                line += sock.recv(1)
            lines.append(line)
            with context.wrap_socket(sock, server_side=True) as tls:
                echo(tls)

        with Server(handle) as server:
            args = [server.url('tls'), self.ca, '--proxy-v1', '--proxy-source=192.0.2.1:9']
            probe(*args, '-m', 'x').succeeds(self, b'x')
            probe(*args, '-n', '1', '-d', '0.1').succeeds(self)
            self.assertEqual(lines, [b'PROXY TCP4 192.0.2.1 127.0.0.1 9 %d\r\n' % server.port] * 2)

    def test_extra_bytes(self):
        """In a record of their own, behind the one that ends the echo, and in one segment with it."""
        def handle(sock):
            data = sock.recv(16384)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, 1)
            sock.sendall(data)
            sock.sendall(b'!')
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, 0)
            hang(sock)

        with self.server(handle=handle) as server:
            probe(server.url('tls'), self.ca, '-s', '16384', '-q').fails(self, 'mismatch', 'more came back')

    def test_truncated(self):
        """An end without close_notify proves nothing: a body that it ends is not whole (RFC 9112 section 9.8)."""
        def cut(sock):
            read_head(sock)
            sock.sendall(OK + b'\r\nuntil the')
            socket.socket(fileno=sock.detach()).close()

        def clean(sock):
            read_head(sock)
            sock.sendall(OK + b'\r\nuntil the end')
            sock.unwrap()

        with self.server(handle=cut) as server:
            probe(server.url('https'), self.ca).fails(self, 'short', 'close_notify')
        with self.server(handle=clean) as server:
            probe(server.url('https'), self.ca).succeeds(self, b'until the end')

    def test_half_close(self):
        """close_notify goes out behind the message; the answer may come after it."""
        def collect(sock):
            got = b''
            while data := sock.recv(1000):
                got += data
            sock.sendall(got)

        with self.server(handle=collect) as server:
            probe(server.url('tls'), self.ca, '-m', 'all', '--half-close').succeeds(self, b'all')


class Proxy(unittest.TestCase):

    def header(self, *args, scheme='tcp'):
        """What comes first, from a server that takes the header off by length or line, and echoes the rest."""
        headers = []

        def handle(sock):
            head = sock.recv(16, socket.MSG_WAITALL)
            if head.startswith(b'PROXY'):
                while not head.endswith(b'\r\n'):
                    head += sock.recv(1)
            else:
                head += sock.recv(struct.unpack('>H', head[14:])[0], socket.MSG_WAITALL)
            headers.append(head)
            headers.append(sock.getsockname())
            headers.append(sock.getpeername())
            echo(sock)

        with Server(handle) as server:
            probe(server.url(scheme), '-m', 'x', *args).succeeds(self, b'x')
        return headers

    def test_v1(self):
        head, here, peer = self.header('--proxy-v1')
        self.assertEqual(head, b'PROXY TCP4 127.0.0.1 127.0.0.1 %d %d\r\n' % (peer[1], here[1]))
        head, here, peer = self.header('--proxy-v1', '--proxy-source=192.0.2.9:99')
        self.assertEqual(head, b'PROXY TCP4 192.0.2.9 127.0.0.1 99 %d\r\n' % here[1])

    def test_v2(self):
        head, here, _ = self.header('--proxy-v2', '--proxy-source=[2001:db8::9]:99')
        self.assertEqual(head, b'\r\n\r\n\0\r\nQUIT\n\x21\x21\0\x24' + socket.inet_pton(socket.AF_INET6, '2001:db8::9') +
                         socket.inet_pton(socket.AF_INET6, '::ffff:127.0.0.1') + struct.pack('>HH', 99, here[1]))


DNS_SERVER = r'''
import os, socket, struct, subprocess, sys, time
folder, prepare, *command = sys.argv[1:]
subprocess.run(['ip', 'link', 'set', 'lo', 'up'], check=True)
subprocess.run(['mount', '--bind', folder + '/resolv.conf', '/etc/resolv.conf'], check=True)
subprocess.run(['mount', '--bind', folder + '/hosts', '/etc/hosts'], check=True)
dns = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
dns.bind(('127.0.0.1', 53))
silent = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
silent.bind(('127.0.0.2', 53))
listener = socket.create_server(('127.0.0.1', 7))
if os.fork() == 0:
    while True:
        sock = listener.accept()[0]
        while data := sock.recv(1000):
            sock.sendall(data)
        sock.close()
if os.fork() == 0:
    dropped = 0
    while True:
        query, peer = dns.recvfrom(512)
        name = query[12:query.index(b'\0', 12)].lower()    # evdns plays with the case, and looks for the same
        kind = struct.unpack('>H', query[13 + len(name):15 + len(name)])[0]
        question = query[12:17 + len(name)]
        if name == b'\x05quiet' or name == b'\x04half' and kind == 28:
            continue
        if name == b'\x05lossy' and kind == 1 and dropped < 2:
            dropped += 1
            continue
        good = name in (b'\x04good', b'\x04half', b'\x05lossy', b'\x05short\x07example')
        code, answers = (0, b'') if good else (2, b'') if name == b'\x06broken' else (3, b'')
        if good and kind == 1:
            answers = b'\xc0\x0c\0\x01\0\x01\0\0\0\x3c\0\x04\x7f\0\0\x01'
        truncated = 0x200 if name == b'\x04huge' else 0
        head = query[:2] + struct.pack('>HHHHH', 0x8180 | truncated | code, 1, 1 if answers else 0, 0, 0)
        dns.sendto(head + question + answers, peer)
exec(prepare)
sys.exit(subprocess.run(command).returncode)
'''


HOSTS = '''
127.0.0.1 fromhosts both
::1 both
127.0.0.1 pair
127.0.0.9 pair
127.0.0.9 other
127.0.0.1 other
127.0.0.9 unroutable
192.0.2.1 unroutable
127.0.0.8 full
192.0.2.1 full
192.0.2.2 full
192.0.2.1 nowhere
192.0.2.2 nowhere
'''


UNSHARE = ['unshare', '-mnpf', '--mount-proc', '--kill-child']


def can_unshare():
    command = [*UNSHARE, 'sh', '-c', 'ip link set lo up && mount --bind /dev/null /etc/hosts']
    try:
        return subprocess.run(command, capture_output=True, timeout=TIMEOUT).returncode == 0
    except OSError:
        return False


@unittest.skipUnless(can_unshare(), 'no namespaces')
class Names(unittest.TestCase):
    """In namespaces of its own: /etc/resolv.conf names a server there, and /etc/hosts is another one."""

    def ask(self, url, *args, servers='nameserver 127.0.0.1\n', prepare=''):
        with tempfile.TemporaryDirectory() as folder:
            for name, text in (('resolv.conf', servers), ('hosts', HOSTS)):
                with open(os.path.join(folder, name), 'w', encoding='ascii') as file:
                    file.write(text)
            done = subprocess.run([*UNSHARE, sys.executable, '-c', DNS_SERVER, folder, prepare, *COMMAND, url, *args],
                                  capture_output=True, timeout=6 * TIMEOUT)
        return done.returncode, done.stdout, done.stderr.decode()

    def fails(self, url, text, *args):
        status, out, err = self.ask(url, *args)
        self.assertEqual((status, out), (2, b''), err)
        self.assertRegex(err, rf'\Aechoprobe: {url}: resolve: [^\n]*{text}[^\n]*\n\Z')

    def test_names(self):
        self.assertEqual(self.ask('tcp://good', '-m', 'x'), (0, b'x', ''))
        self.assertEqual(self.ask('tcp://fromhosts', '-m', 'x'), (0, b'x', ''))
        self.assertEqual(self.ask('tcp://fromhosts.', '-m', 'x'), (0, b'x', ''))
        for name in ('both', 'pair', 'other'):  # only one of its addresses answers
            self.assertEqual(self.ask(f'tcp://{name}', '-m', 'x'), (0, b'x', ''))

    def test_lost_queries(self):
        """An answer of one address family does not end the look-up while the other's is still asked for again."""
        servers = 'nameserver 127.0.0.1\noptions attempts:6\n'
        self.assertEqual(self.ask('tcp://lossy', '-m', 'x', '-t', PATIENCE, servers=servers), (0, b'x', ''))

    def test_family_without_an_answer(self):
        """The addresses of the other one are used in time, however long the servers would be asked."""
        servers = 'nameserver 127.0.0.1\noptions timeout:30\n'
        self.assertEqual(self.ask('tcp://half', '-m', 'x', '-t', f'{4 * SLOW + 4}s', servers=servers), (0, b'x', ''))

    def test_silent_server_before_a_good_one(self):
        for options in ('', 'options timeout:2 attempts:4\n'):
            servers = 'nameserver 127.0.0.2\nnameserver 127.0.0.1\n' + options
            self.assertEqual(self.ask('tcp://good', '-m', 'x', '-t', PATIENCE, servers=servers), (0, b'x', ''))

    def test_addresses_without_a_route(self):
        """They hide no failure of another one, and take nothing of its time; there is no route but that of lo."""
        status, out, err = self.ask('tcp://unroutable')
        self.assertEqual((status, out, err), (2, b'', 'echoprobe: tcp://unroutable: refused: connect to 127.0.0.9:7: '
                                                      'Connection refused\n'))
        fill = """
full = socket.create_server(('127.0.0.8', 7), backlog=0)
fillers = [socket.socket() for _ in range(4)]
for filler in fillers:
    filler.setblocking(False)
    filler.connect_ex(('127.0.0.8', 7))
"""
        begun = time.monotonic()
        status, out, err = self.ask('tcp://full', '-t', LIMIT, prepare=fill)
        self.assertEqual((status, out, err), (2, b'', 'echoprobe: tcp://full: timeout: connect to 127.0.0.8:7: '
                                                      'no answer in time\n'))
        self.assertGreater(time.monotonic() - begun, float(LIMIT))
        status, out, err = self.ask('tcp://nowhere')
        self.assertEqual((status, out, err), (2, b'', 'echoprobe: tcp://nowhere: refused: connect to 192.0.2.2:7: '
                                                      'Network is unreachable\n'))

    def test_no_port_is_left(self):
        """At this end: the server refuses nothing."""
        take_all = """
try:
    with open('/proc/sys/net/ipv4/ip_local_port_range', 'w') as file:
        file.write('50000 50001')
except OSError:
    sys.exit(77)
taken = [socket.create_connection(('127.0.0.1', 7)) for _ in range(2)]
"""
        status, out, err = self.ask('tcp://127.0.0.1', prepare=take_all)
        if status == 77:
            self.skipTest('the range of ports cannot be set')
        self.assertEqual((status, out), (2, b''), err)
        self.assertEqual(err, 'echoprobe: tcp://127.0.0.1: system: connect to 127.0.0.1:7: Cannot assign requested address\n')

    def test_no_such_name(self):
        self.fails('tcp://nosuch.example', 'nosuch.example: there is no such name')

    def test_broken_server(self):
        self.fails('tcp://broken', 'broken: the name servers give no usable answer', '-t', PATIENCE)

    def test_zone(self):
        """A link-local address, and the interface that it is one of, by name and by number."""
        prepare = """
if subprocess.run(['ip', 'address', 'add', 'fe80::7/64', 'dev', 'lo', 'nodad'], capture_output=True).returncode != 0:
    sys.exit(77)
number = socket.if_nametoindex('lo')
listener = socket.socket(socket.AF_INET6)
listener.bind(('fe80::7', 7, 0, number))
listener.listen()
if os.fork() == 0:
    while True:
        sock = listener.accept()[0]
        sock.sendall(sock.recv(1000))
        sock.close()
with socket.socket(socket.AF_INET6) as first:   # the kernel adds the route some time after the address
    while first.connect_ex(('fe80::7', 7, 0, number)) != 0:
        time.sleep(0.01)
command += [f'tcp://[fe80::7%{number}]']
"""
        status, out, err = self.ask('tcp://[fe80::7%lo]', '-m', 'x', 'tcp://[fe80::7%25lo]', prepare=prepare)
        if status == 77:
            self.skipTest('no IPv6')
        self.assertEqual((status, out, err), (0, b'xxx', ''))

    def test_search_list(self):
        """A dot at the end says that the name is whole."""
        servers = 'nameserver 127.0.0.1\nsearch example\n'
        self.assertEqual(self.ask('tcp://short', '-m', 'x', servers=servers), (0, b'x', ''))
        self.assertEqual(self.ask('tcp://good.', '-m', 'x', servers=servers), (0, b'x', ''))
        status, out, err = self.ask('tcp://short.', servers=servers)
        self.assertEqual((status, out, err), (2, b'', 'echoprobe: tcp://short.: resolve: short: there is no such name\n'))

    def test_longest_name(self):
        """It leaves room for what is wrong with it."""
        name = '.'.join(['a' * 63] * 3 + ['b' * 61])
        self.fails(f'tcp://{name}', f'{name}: there is no such name')

    def test_answer_that_does_not_fit(self):
        self.fails('tcp://huge', 'huge: the name servers give no usable answer', '-t', PATIENCE)

    def test_many_at_once(self):
        """More look-ups are given up at once than libevent ends in one turn of its loop."""
        urls = [f'tcp://quiet:{port}' for port in range(1, 64)]
        status, out, err = self.ask('tcp://quiet', *urls, '-t', '300ms')
        self.assertEqual((status, out), (2, b''), err)
        self.assertEqual(err.count('resolve: quiet: no answer in time\n'), 64, err)

    def test_silent_server(self):
        self.fails('tcp://quiet', 'quiet: no answer in time', '-t', '500ms')
        self.fails('tcp://quiet', 'quiet: the name servers give no usable answer', '-t', PATIENCE)


if __name__ == '__main__':
    unittest.main()
