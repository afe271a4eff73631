"""echoprobe's load mode: every byte verified, every request accounted for, nothing hidden by a server that stalls."""

import itertools
import json
import re
import socket
import tempfile
import threading
import time
import unittest

from harness import SLOW, TIMEOUT, Echod, reset
from prober import HAVE_OPENSSL, Certificates, Running, Server, abort, echo, hang, on_terminal, probe, read_head
from test_probe import LIMIT, OK, PATIENCE, free_port

TIME = ['-d', '1']


def load(*args):
    """The Done, and the JSON that it said."""
    done = probe(*args, '--json')
    return done, json.loads(done.out)


class Good(unittest.TestCase):

    def check(self, *args, least=10):
        done, said = load(*args)
        self.assertEqual((done.status, done.err, said['lost'], said['mode']), (0, '', 0, 'load'), done)
        self.assertGreaterEqual(said['sent'], least)
        return said

    def test_echod(self):
        with Echod() as d:
            tcp, http = 'tcp://%s:%d' % d.addr('echo'), 'http://%s:%d/x' % d.addr('web')
            for args in ((tcp, '-n', '1'), (tcp, '-n', '64'), (tcp, '-n', '3', '-P', '16'), (tcp, '-s', '1', '-P', '1024'),
                         (tcp, '-s', '100000', '-P', '3'), (tcp, '-s', '4M', '-n', '2'), (http, '-n', '64'),
                         (http, '-n', '3', '-P', '16'), (http, '-P', '1024')):
                with self.subTest(args=args):
                    self.check(*args, *TIME, least=1)

    def test_several(self):
        with Echod() as d:
            urls = 'tcp://%s:%d' % d.addr('echo'), 'http://%s:%d/x' % d.addr('web')
            done = probe(*urls, '-n', '4', *TIME).succeeds(self)
        head, *lines = done.out.decode().splitlines()
        self.assertRegex(head, r'^ +answers +per second +lost +min ms +median +p90 +p99 +p99\.9 +max$')
        self.assertEqual(len(lines), 2)
        for line, url in zip(lines, urls):
            self.assertRegex(line, rf'^ +\d+ +\d+\.\d +0( +\d+\.\d{{3}}){{6}}  {url}$')

    def test_every_answer_is_counted(self):
        """What the server counted is what was sent; each connection has its own part of the stream."""
        counted, begins, lock = [0], [], threading.Lock()

        def handle(sock):
            first = True
            while data := sock.recv(64, socket.MSG_WAITALL):
                with lock:
                    counted[0] += 1
                    if first:
                        begins.append(data)
                    first = False
                sock.sendall(data)

        with Server(handle) as server:
            said = self.check(server.url(), '-n', '4', '-s', '64', *TIME)
            self.assertEqual(said['sent'], counted[0])
            self.assertEqual(len(set(begins)), 4)

    def test_tls(self):
        if not HAVE_OPENSSL:
            self.skipTest('no openssl')
        with Certificates() as certs:
            certs.issue('good')
            context, ca = certs.context('good'), '--ca=' + certs.path('ca.pem')
            with Server(echo, context=context) as server:
                self.check(server.url('tls'), ca, '-n', '3', '-P', '2', *TIME)
                self.check(server.url('tls'), ca, '-s', '300000', *TIME, least=1)

            def web(sock):
                while True:
                    read_head(sock)
                    sock.sendall(OK + b'Content-Length: 2\r\n\r\nhi')

            with Server(web, context=context) as server:
                self.check(server.url('https'), ca, '-n', '3', *TIME)

    def answers(self, *raws, count=None):
        """A server that answers on one connection with each of these in turn, COUNT times altogether."""
        def handle(sock):
            number = 0
            while number != count:
                read_head(sock)
                sock.sendall(raws[number % len(raws)])
                number += 1
        return Server(handle)

    def test_answers_that_change(self):
        """Longer, shorter, chunked, interim, split: whatever the one before was like."""
        raws = [OK + b'Content-Length: 2\r\n\r\nhi', OK + b'Content-Length: 3\r\n\r\nhi!',
                OK + b'Transfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n',
                b'HTTP/1.1 100 Continue\r\n\r\n' + OK + b'Content-Length: 2\r\n\r\nhi', b'HTTP/1.1 204 No Content\r\n\r\n',
                OK + b'Content-Length: 20000\r\n\r\n' + b'x' * 20000]
        with self.answers(*raws) as server:
            self.check(server.url('http'), '-n', '3', *TIME)
        with self.answers(raws[0], raws[0], raws[1], raws[0]) as server:
            self.check(server.url('http'), '-n', '3', *TIME)

        def dribble(sock):
            for number in itertools.count():
                read_head(sock)
                raw = raws[number % 2]
                for part in (raw[:5], raw[5:20], raw[20:-1], raw[-1:]):
                    sock.sendall(part)

        with Server(dribble) as server:
            self.check(server.url('http'), '-n', '3', *TIME)

    def test_server_that_closes(self):
        """HTTP/1.0, Connection: close, and an answer that the end ends: connects anew, and nothing is lost."""
        for raw in (b'HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nhi', b'HTTP/1.0 200 OK\r\n\r\nhi',
                    OK + b'Connection: close\r\nContent-Length: 2\r\n\r\nhi', OK + b'\r\nhi'):
            with self.subTest(raw=raw), self.answers(raw, count=1) as server:
                self.check(server.url('http'), '-n', '3', *TIME)
                self.assertGreater(server.count, 3)

    def test_pipelined_behind_the_last_answer(self):
        """What a server that announces its end has not answered is sent again."""
        def one_by_one(sock):
            buffered = b''
            for number in range(5):
                while b'\r\n\r\n' not in buffered:
                    buffered += sock.recv(65536) or b'\r\n\r\n'
                buffered = buffered.partition(b'\r\n\r\n')[2]
                sock.sendall(OK + b'Connection: close\r\n' * (number == 4) + b'Content-Length: 2\r\n\r\nhi')
            sock.shutdown(socket.SHUT_WR)
            hang(sock)

        with Server(one_by_one) as server:
            self.check(server.url('http'), '-n', '2', '-P', '4', *TIME)

    def test_many_connections(self):
        with Echod(echo={}) as d:
            said = self.check('tcp://%s:%d' % d.addr('echo'), '-n', '500', '-t', PATIENCE, *TIME, least=500)
            self.assertLess(said['elapsed_s'], 20 * SLOW)

    def test_proxy_header(self):
        heads = []

        def handle(sock):
            line = b''
            while not line.endswith(b'\r\n'):
                line += sock.recv(1)
            heads.append(line)
            echo(sock)

        with Server(handle) as server:
            self.check(server.url(), '-n', '3', '--proxy-v1', '--proxy-source=192.0.2.1:9', *TIME)
            self.assertEqual(heads, [b'PROXY TCP4 192.0.2.1 127.0.0.1 9 %d\r\n' % server.port] * 3)


class Rates(unittest.TestCase):

    def test_rate(self):
        with Echod() as d:
            for url in ('tcp://%s:%d' % d.addr('echo'), 'http://%s:%d/x' % d.addr('web')):
                done, said = load(url, '-n', '4', '-r', '500', '-d', '1')
                self.assertEqual((done.status, said['sent'], said['lost']), (0, 500, 0), done)

    def test_idle_connections_that_are_closed(self):
        """By a server with a short limit, before they were used, in silence or with a 408: that fails nothing."""
        def web(sock):
            while True:
                read_head(sock)
                sock.sendall(OK + b'Content-Length: 2\r\n\r\nhi')

        for scheme, serve, last in (('tcp', echo, b''), ('http', web, b''),
                                    ('http', web, b'HTTP/1.0 408 Request Time-out\r\nConnection: close\r\n\r\n')):
            opened, barrier = itertools.count(), threading.Barrier(4, timeout=TIMEOUT)

            def handle(sock, serve=serve, last=last, opened=opened, barrier=barrier):
                if next(opened) < 4:
                    barrier.wait()
                    sock.sendall(last)
                else:
                    serve(sock)

            with self.subTest(scheme=scheme, last=last), Server(handle) as server:
                done, said = load(server.url(scheme), '-n', '4', '-r', '20', '-d', '0.5')
                self.assertEqual((done.status, done.err, said['sent'], said['lost']), (0, '', 10, 0), done)
                self.assertLessEqual(server.count, 8)

    def test_answers_of_408(self):
        """One that announces no close is an answer, also on a connection that was idle."""
        asked = []

        def handle(sock):
            while True:
                asked.append(read_head(sock))
                sock.sendall(b'HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\n\r\n')

        with Server(handle) as server:
            done, said = load(server.url('http'), '-n', '1', '-r', '20', '-d', '0.5', '--expect-status', '408')
            self.assertEqual((done.status, done.err, said['sent'], said['lost']), (0, '', 10, 0), done)
            self.assertEqual((len(asked), server.count), (10, 1))

    def test_part_of_a_request(self):
        """The first one is due at the begin, so there is always one."""
        with Server(echo) as server:
            for rate, duration, sent in (('1', '0.1', 1), ('3', '0.5', 2), ('20', '0.1', 2)):
                done, said = load(server.url(), '-r', rate, '-d', duration)
                self.assertEqual((done.status, said['sent'], said['lost']), (0, sent, 0), done)

    def test_late_on_one_connection(self):
        """What is overdue is sent at once, as far as there is room: the server answers only when all has come."""
        def handle(sock):
            sock.sendall(sock.recv(64 * 1000, socket.MSG_WAITALL))
            hang(sock)

        with Server(handle) as server:
            args = '-n', '1', '-P', '1000', '-r', '100000', '-d', '10ms', '-s', '64', '-t', PATIENCE
            done, said = load(server.url(), *args)
            self.assertEqual((done.status, said['sent'], said['lost']), (0, 1000, 0), done)

    def test_no_coordinated_omission(self):
        """A server that stands still once: all that should have been sent meanwhile has waited, and it is counted so."""
        stall = 0.5

        def handle(sock):
            begun = time.monotonic()
            stalled = False
            while data := sock.recv(64, socket.MSG_WAITALL):
                if not stalled and time.monotonic() - begun > 0.2:
                    stalled = True
                    threading.Event().wait(stall)
                sock.sendall(data)

        with Server(handle) as server:
            done, said = load(server.url(), '-n', '1', '-r', '200', '-d', '1', '-s', '64')
            self.assertEqual((said['sent'], said['lost']), (200, 0), done)
            # about 100 of the 200 were to be sent while it stood still; on average they waited for half of that time
            self.assertGreater(said['latency_ms']['max'], 1000 * stall * 0.9)
            self.assertGreater(said['latency_ms']['p90'], 1000 * stall * 0.5)
            self.assertGreater(said['latency_ms']['mean'], 1000 * stall * 0.1)

    def test_too_slow(self):
        """What cannot be sent in time is lost, not forgotten."""
        def handle(sock):
            while data := sock.recv(64, socket.MSG_WAITALL):
                threading.Event().wait(0.1)
                sock.sendall(data)

        with Server(handle) as server:
            done, said = load(server.url(), '-n', '1', '-r', '1000', '-d', '0.5', '-t', '0.5')
            self.assertEqual((done.status, said['sent']), (2, 500), done)
            self.assertGreater(said['failures']['timeout'], 450)
            self.assertLess(done.seconds, 2 * max(SLOW, 2))
            self.assertRegex(done.err, r'\Aechoprobe: \S+: \d+ of 500 lost; the first: timeout: [^\n]*\n\Z')

    def test_late_answers(self):
        """One that had to wait for longer than the time limit is lost, however fast it was answered then."""
        def handle(sock):
            while data := sock.recv(64, socket.MSG_WAITALL):
                threading.Event().wait(0.1)
                sock.sendall(data)

        limit = round(max(1, 0.35 * SLOW), 2)
        with Server(handle) as server:
            for _ in range(5):
                done, said = load(server.url(), '-n', '1', '-r', '100', '-d', str(limit), '-t', str(limit))
                if 'no whole answer' not in done.err:   # else the server stood still for all of that time
                    break
            # request number n is due after 10 n ms, and answered after 100 (n + 1) ms at the earliest
            good = int((limit - 0.1) / 0.09) + 1
            self.assertEqual((done.status, said['sent']), (2, round(100 * limit)), done)
            self.assertGreaterEqual(said['lost'], said['sent'] - good)
            self.assertEqual(said['failures'], {'timeout': said['lost']})
            self.assertGreater(said['latency_ms']['max'], 1000 * limit)     # of those that were answered, but late
            self.assertRegex(done.err, r': timeout: answered, but not within \d+ ms of when it was to be sent\n\Z')

    def test_stalled(self):
        with Server(hang) as server:
            done, said = load(server.url(), '-n', '2', '-r', '100', '-d', '0.3', '-t', '0.3')
            self.assertEqual((done.status, said['sent'], said['lost']), (2, 30, 30), done)


class Bad(unittest.TestCase):

    def case(self, handle, word, scheme='tcp', args=()):
        with Server(handle) as server:
            limit = LIMIT if word == 'timeout' else PATIENCE
            done, said = load(server.url(scheme), '-n', '2', '-t', limit, *TIME, *args)
            self.assertEqual((done.status, said['verdict'], said['failure']), (2, 'critical', word), done)
            self.assertEqual(said['sent'] - said['lost'], said.get('good', said['sent'] - said['lost']))
            self.assertRegex(done.err, rf'\Aechoprobe: {server.url(scheme)}: (\d+ of \d+ lost; the first: )?{word}: [^\n]*\n\Z')
            return said

    def test_refused(self):
        with free_port() as sock:
            url = 'tcp://127.0.0.1:%d' % sock.getsockname()[1]
            done, said = load(url, '-n', '100', '-d', '10')
            self.assertEqual((done.status, said['failures'], said['sent']), (2, {'refused': 1}, 0))
            self.assertLess(done.seconds, 2 * max(SLOW, 2))

    def test_echoes(self):
        def wrong(sock):
            for number in range(10):
                data = sock.recv(64, socket.MSG_WAITALL)
                sock.sendall(data if number < 9 else bytes([data[0] ^ 1]) + data[1:])
            hang(sock)

        def swapped(sock):
            a, b = sock.recv(64, socket.MSG_WAITALL), sock.recv(64, socket.MSG_WAITALL)
            sock.sendall(b + a)
            hang(sock)

        def short(sock):
            sock.sendall(sock.recv(64, socket.MSG_WAITALL)[:63])

        def stalls(sock):
            sock.sendall(sock.recv(64, socket.MSG_WAITALL)[:63])
            hang(sock)

        def resets(sock):
            sock.sendall(sock.recv(64, socket.MSG_WAITALL))
            sock.recv(64, socket.MSG_WAITALL)
            reset(sock)

        self.case(wrong, 'mismatch')
        self.case(swapped, 'mismatch', args=['-P', '2'])
        self.case(lambda sock: sock.sendall(sock.recv(64, socket.MSG_WAITALL) * 2) or hang(sock), 'mismatch')
        self.case(short, 'short')
        self.case(resets, 'reset')
        self.case(stalls, 'timeout')
        self.case(lambda sock: sock.sendall(b'hello\r\n') or hang(sock), 'mismatch')

    def web(self, *raws, end=hang):
        def handle(sock):
            for raw in raws:
                read_head(sock)
                sock.sendall(raw)
            end(sock)
        return handle

    def test_web(self):
        good = OK + b'Content-Length: 2\r\n\r\nhi'
        self.case(self.web(good, good, b'garbage\r\n\r\n'), 'protocol', 'http')
        self.case(self.web(good, good, good[:-1]), 'timeout', 'http')
        self.case(self.web(good, good, good[:-1], end=lambda sock: None), 'short', 'http')
        self.case(self.web(good, good, good[:-1], end=reset), 'reset', 'http')
        self.case(self.web(good, b'HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n'), 'mismatch', 'http')
        self.case(self.web(good, OK + b'Content-Length: 2\r\n\r\nho'), 'mismatch', 'http', ['--expect=hi'])
        self.case(self.web(good, good + b'x'), 'protocol', 'http')
        self.case(self.web(good, OK + b'Content-Length: 9999999\r\n\r\n'), 'protocol', 'http')
        self.case(self.web(), 'timeout', 'http')
        self.case(abort, 'reset', 'http')

    def test_every_second_request_is_dropped(self):
        """By a server that has read it: that is no close of an idle connection, but a failure."""
        for end, word in ((lambda sock: None, 'short'), (reset, 'reset')):
            def handle(sock, end=end):
                read_head(sock)
                sock.sendall(OK + b'Content-Length: 2\r\n\r\nhi')
                read_head(sock)
                end(sock)
            self.case(handle, word, 'http')

    def test_a_request_into_a_close(self):
        """One that is sent on an idle connection, and gets nothing but the end, is sent once more, and not twice."""
        for answered, lost in (({2}, 0), ({3}, 1)):
            requests = []

            def handle(sock, answered=answered, requests=requests):
                requests.append(read_head(sock))
                if len(requests) in answered:
                    sock.sendall(OK + b'Content-Length: 2\r\n\r\nhi')
                    hang(sock)

            with self.subTest(answered=answered), Server(handle) as server:
                done, said = load(server.url('http'), '-r', '10', '-d', '50ms')
                self.assertEqual((said['sent'], said['lost'], len(requests)), (1, lost, 2), done)

    def test_recovers(self):
        """After a failure the connection is made anew, and goes on; the failure stays in the verdict."""
        served = []

        def handle(sock):
            served.append(1)
            if len(served) == 1:
                sock.sendall(sock.recv(64, socket.MSG_WAITALL))
                sock.recv(64, socket.MSG_WAITALL)
                reset(sock)
            echo(sock)

        with Server(handle) as server:
            done, said = load(server.url(), '-d', str(3 * SLOW))
            self.assertEqual((done.status, said['failures']), (2, {'reset': 1}), done)
            self.assertGreater(said['sent'], 10)
            self.assertEqual(len(served), 2)

    def test_connections_that_fail(self):
        """To a server that has gone: those that are tried in vain are told, and count for no requests."""
        def handle(sock):
            server.listener.shutdown(socket.SHUT_RDWR)
            sock.sendall(sock.recv(64, socket.MSG_WAITALL))

        with Server(handle) as server:
            done, said = load(server.url(), '-r', '10', '-d', '3', '-t', str(1 + 0.4 * SLOW))
        self.assertEqual((done.status, said['verdict'], said['sent'], said['lost']), (2, 'critical', 30, 29), done)
        self.assertGreater(said['failures']['refused'], 1)
        self.assertGreater(sum(said['failures'].values()), said['lost'])

    def test_tls(self):
        if not HAVE_OPENSSL:
            self.skipTest('no openssl')
        with Certificates() as certs:
            certs.issue('good')
            with Server(echo, context=certs.context('good')) as server:
                done, said = load(server.url('tls'), '-n', '3', *TIME)
                self.assertEqual((done.status, said['failures']), (2, {'tls': 1}), done)
            with Server(hang) as server:
                done, said = load(server.url('tls'), '--insecure', '-t', LIMIT, *TIME)
                self.assertEqual((done.status, said['failures']), (2, {'timeout': 1}), done)
                self.assertLess(done.seconds, 2 * max(SLOW, 2))


class Told(unittest.TestCase):

    def test_interrupted(self):
        """What is under way is waited for, and what it came to is told."""
        busy = threading.Event()

        def handle(sock):
            for _ in range(10):
                sock.sendall(sock.recv(64, socket.MSG_WAITALL))
            busy.set()
            echo(sock)

        with Server(handle) as server, Running(server.url(), '-n', '2', '-d', '1h', '--json') as running:
            self.assertTrue(busy.wait(TIMEOUT))
            running.interrupt()
            text, status = running.end()
            said = json.loads(text)
            self.assertEqual((status, said['interrupted'], said['lost']), (0, True, 0))
            self.assertGreaterEqual(said['sent'], 10)

    def test_progress(self):
        """On a terminal only, and it is gone at the end."""
        with Echod(echo={}) as d:
            url = 'tcp://%s:%d' % d.addr('echo')
            text, status = on_terminal(url, '-d', '1.5')
            self.assertEqual(status, 0)
            self.assertRegex(text, rb'\r\x1b\[K\x1b\[\?7l' + url.encode() +
                             rb': \d+ s, \d+ answers \(\d+/s\), 0 lost, p99 [\d.]+ ms\x1b\[\?7h')
            self.assertRegex(text, rb'7h\r\x1b\[K +answers')
            self.assertNotIn(b'\x1b', on_terminal(url, '-d', '1.5', '-q')[0])

    def test_no_answer(self):
        """There is no time where there was no answer."""
        done = probe('unix:/nowhere/x', '-d', '1')
        self.assertRegex(done.out, rb'\A[^\n]*\n +0 +0\.0 +0( +-){6}  unix:/nowhere/x\n\Z')

    def test_plot(self):
        with Echod(echo={}) as d, tempfile.NamedTemporaryFile('r') as file:
            url = 'tcp://%s:%d' % d.addr('echo')
            done, said = load(url, '--hdrplot', file.name, *TIME)
            self.assertEqual(done.status, 0, done)
            text = file.read()
            head, *lines = text.splitlines()
            self.assertEqual(head, '       Value     Percentile TotalCount 1/(1-Percentile)')
            rows = [list(map(float, line.split())) for line in lines if line and line[0] != '#']
            self.assertEqual(rows[-1][1:], [1, said['sent']])
            for before, row in zip(rows, rows[1:]):
                self.assertTrue(before[0] <= row[0] and before[1] < row[1] and before[2] <= row[2], (before, row))
            self.assertIn(f'Total count    = {said["sent"]:12}]\n', text)
            probe(url, '-d', '1', '--hdrplot', '/nowhere/x').usage(self, '--hdrplot: /nowhere/x: No such file')
            done = probe(url, '--hdrplot', '/dev/full', *TIME)
            self.assertEqual(done.status, 3)
            self.assertIn('echoprobe: /dev/full: No space left on device\n', done.err)

    def test_thresholds_and_formats(self):
        def slow(sock):
            while data := sock.recv(64, socket.MSG_WAITALL):
                threading.Event().wait(0.05)
                sock.sendall(data)

        with Server(slow) as server:
            done = probe(server.url(), '-w', '10', '--format=nagios', *TIME)
            self.assertEqual(done.status, 1)
            self.assertRegex(done.out.decode(), r'\AECHOPROBE WARNING - \S+ warning: the 99th percentile of [^|]* \| '
                                                r"'\S+'=\S+s;0\.010000;;0; '\S+ loss'=0%;;0;0;100\n\Z")
            done = probe(server.url(), '-C', '10', '--format=prometheus', *TIME)
            self.assertEqual(done.status, 2)
            self.assertIn(f'echoprobe_verdict{{url="{server.url()}"}} 2\n', done.out.decode())
            found = re.search(r'echoprobe_latency_seconds\{url="\S+",quantile="0.99"\} (\S+)', done.out.decode())
            self.assertGreaterEqual(float(found[1]), 0.05)


if __name__ == '__main__':
    unittest.main()
