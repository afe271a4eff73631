"""Limits on who may come in: each refuses at once, is counted by its reason, told once an episode, and recovers."""

import resource
import socket
import threading
import time
import unittest

from harness import (COMMAND, SLOW, TIMEOUT, Echod, connect, echoes, instrumented, parse_answers, recv_all, recv_same,
                     silent, wait_until)

QUIET = 5       # seconds without a refusal that end an episode
SPARE = 32      # places for the admin listener beyond max_connections


def connect_from(source, address):
    sock = socket.socket(socket.AF_INET6 if ':' in address[0] else socket.AF_INET)
    sock.settimeout(TIMEOUT)
    sock.bind((source, 0))
    sock.connect(address)
    return sock


class Limits(unittest.TestCase):

    def served(self, d, count, name='echo', source=None):
        """Connects so often; gives those that are served."""
        address = d.addr(name)
        socks = [connect_from(source, address) if source else connect(address) for _ in range(count)]
        d.sockets += socks
        return [sock for sock in socks if echoes(sock)]

    def check(self, d, refused, reason, listener='echo', told=1):
        """So many were refused, and the log has told it; nothing was refused for another reason."""
        def settled(m):
            accepted, still_open, closed = m.connections(listener=listener)
            return (accepted == still_open + closed and
                    m['echod_connections_refused_total', dict(listener=listener)] >= refused)
        metrics = d.wait_metrics(settled)
        labels = dict(listener=listener, reason=reason)
        self.assertEqual(metrics['echod_connections_refused_total', labels], refused)
        self.assertEqual(metrics['echod_connections_refused_total'], refused)
        d.wait_log('connection refused', told)
        lines = d.log_lines('connection refused')
        self.assertEqual([line.fields['reason'] for line in lines], [reason] * told)
        self.assertEqual((lines[0].level, lines[0].fields['listener']), ('warning', listener))

    def test_max_connections(self):
        """Of the server: over all listeners; a slot that falls free is used again."""
        for threads in 1, 4:
            with self.subTest(threads=threads), \
                 Echod(server=dict(threads=threads, max_connections=4), echo={}, more={}, admin={}) as d:
                d.expect_log('connection refused.* reason=max_connections')
                other = self.served(d, 1, 'more')
                served = self.served(d, 10)
                self.assertEqual(len(served), 3)
                other[0].close()
                served.pop().close()
                d.wait_log('closed', count=2)
                self.check(d, 7, 'max_connections')
                wait_until(lambda: self.served(d, 1), lambda: 'refused' + d.log())
                self.assertEqual(len(d.log_lines('connection refused')), 1)

    def test_listener_max_connections(self):
        for threads in 1, 4:
            with self.subTest(threads=threads), \
                 Echod(server=dict(threads=threads), echo=dict(max_connections=3), more={}, admin={}) as d:
                d.expect_log('connection refused.* reason=listener_max_connections')
                served = self.served(d, 10)
                self.assertEqual(len(served), 3)
                self.assertEqual(len(self.served(d, 5, 'more')), 5)
                self.check(d, 7, 'listener_max_connections')
                served.pop().close()
                d.wait_metrics(lambda m: m['echod_connections_open', dict(listener='echo')] == 2)
                self.assertEqual(len(self.served(d, 2)), 1)
                self.check(d, 8, 'listener_max_connections')

    def test_per_address(self):
        """Over all listeners together; other addresses are not concerned."""
        for threads in 1, 4:
            with self.subTest(threads=threads), \
                 Echod(server=dict(threads=threads, max_connections_per_address=3), echo={}, more={},
                       v6=dict(address='[::1]:0'), admin={}) as d:
                d.expect_log('connection refused.* peer=127.0.0.2:.* reason=max_connections_per_address')
                served = self.served(d, 1, 'more', '127.0.0.2') + self.served(d, 8, source='127.0.0.2')
                self.assertEqual(len(served), 3)
                for last in range(3, 9):
                    self.assertEqual(len(self.served(d, 3, source=f'127.0.0.{last}')), 3)
                self.assertEqual(len(self.served(d, 3, 'v6', '::1')), 3)
                self.check(d, 6, 'max_connections_per_address')
                served.pop().close()
                d.wait_metrics(lambda m: m['echod_connections_open', dict(handler='echo')] == 23)
                self.assertEqual(len(self.served(d, 2, source='127.0.0.2')), 1)

    def test_prefix(self):
        """What counts as one address."""
        for prefix, same, other in ((32, '127.1.1.1', '127.1.1.2'), (24, '127.1.1.200', '127.1.2.1'),
                                    (23, '127.1.0.7', '127.1.2.1'), (9, '127.127.0.1', '127.128.0.1'),
                                    (8, '127.255.0.1', None)):
            server = dict(max_connections_per_address=2, address_prefix_v4=prefix)
            with self.subTest(prefix=prefix), Echod(server=server, echo={}) as d:
                d.expect_log('connection refused')
                self.assertEqual(len(self.served(d, 1, source='127.1.1.1')), 1)
                self.assertEqual(len(self.served(d, 2, source=same)), 1)
                if other:
                    self.assertEqual(len(self.served(d, 2, source=other)), 2)
        for prefix in 1, 64, 128:
            server = dict(max_connections_per_address=2, address_prefix_v6=prefix)
            with self.subTest(prefix=prefix), Echod(server=server, echo=dict(address='[::1]:0')) as d:
                d.expect_log('connection refused')
                self.assertEqual(len(self.served(d, 3, source='::1')), 2)

    def test_per_address_over_reloads(self):
        """Turned on, off and over to other prefixes while connections are open: what is given back was taken."""
        with Echod(echo={}, admin={}) as d:
            d.expect_log('connection refused')
            served = self.served(d, 2)
            for server in (dict(max_connections_per_address=3),
                           dict(max_connections_per_address=2, address_prefix_v4=8), {},
                           dict(max_connections_per_address=3, address_prefix_v4=16)):
                d.reload(server=server, echo={}, admin={})
                served += self.served(d, 2)
            for sock in served:
                sock.close()
            wait_until(lambda: len(self.served(d, 3, source='127.0.0.9')) == 3, lambda: 'refused' + d.log())

    def test_accept_rate(self):
        """A second's worth at once, then so many a second; the others are closed at once."""
        for threads in 1, 4:
            with self.subTest(threads=threads), \
                 Echod(server=dict(threads=threads), echo=dict(accept_rate=10), more={}, admin={}) as d:
                d.expect_log('connection refused.* reason=accept_rate')
                start = time.monotonic()
                count = len(self.served(d, 40))
                taken = time.monotonic() - start
                self.assertTrue(10 <= count <= 10 + 10 * taken + 1, (count, taken))
                self.check(d, 40 - count, 'accept_rate')
                self.assertEqual(len(self.served(d, 15, 'more')), 15)
                resumed, more = time.monotonic(), 0     # it goes on by itself, no faster than it may
                while more < 5:
                    more += len(self.served(d, 1))
                now = time.monotonic()
                self.assertLessEqual(count + more, 10 + 10 * (now - start) + 1)
                self.assertLess(now - resumed, 5 * SLOW)

    def test_refused_at_once(self):
        """Closed before a byte is read, and what is closed leaves no descriptor."""
        with Echod(echo=dict(max_connections=1)) as d:
            d.expect_log('connection refused')
            inside = self.served(d, 1)
            fds = d.fds()
            for _ in range(50):
                with d.connect('echo') as sock:
                    self.assertEqual(recv_all(sock), b'')
            d.wait_fds(fds)
            self.assertTrue(echoes(inside[0]))
            self.assertFalse(d.log_lines('closed'))

    def test_episodes(self):
        """One ends when there was no refusal for a while, and not while they go on."""
        with Echod(echo=dict(max_connections=1)) as busy, Echod(echo=dict(max_connections=1)) as calm:
            for d in busy, calm:
                d.expect_log('connection refused')
                self.assertEqual(len(self.served(d, 3)), 1)
            start = time.monotonic()
            while time.monotonic() - start < QUIET + 0.3:
                self.assertEqual(self.served(busy, 1), [])
                time.sleep(0.05)
            self.assertEqual(self.served(calm, 2), [])
            calm.wait_log('connection refused', 2)
            self.assertEqual([len(d.log_lines('connection refused')) for d in (busy, calm)], [1, 2])

    def test_episodes_of_listeners(self):
        """What is refused at one listener all the time hides nothing of another."""
        full = dict(max_connections=1)
        with Echod(one=full, two=full) as d:
            for name in 'one', 'two', 'one', 'two':
                d.expect_log(f'connection refused listener={name}')
                self.assertLessEqual(len(self.served(d, 3, name)), 1)
            d.stop()
            self.assertEqual(len(d.log_lines('connection refused')), 2)

    def test_full(self):
        """Who operates the server is served when it is full, at so many places that it stays bounded."""
        server = dict(max_connections=4, max_connections_per_address=3)
        with Echod(server=server, echo={}, more={}, admin={}) as d:
            d.expect_log('connection refused listener=echo.*reason=max_connections_per_address')
            d.expect_log('connection refused listener=more.*reason=max_connections$')
            d.expect_log('connection refused listener=admin.*reason=max_connections$')
            self.assertEqual(len(self.served(d, 4)), 3)
            self.assertEqual(len(self.served(d, 1, 'more', source='127.0.0.2')), 1)
            self.assertEqual(len(self.served(d, 1, 'more', source='127.0.0.3')), 0)
            self.assertEqual((d.get('/readyz').status, d.get('/healthz').status), (200, 200))
            labels = dict(listener='echo', reason='max_connections_per_address')
            self.assertEqual(d.metrics()['echod_connections_refused_total', labels], 1)
            asking = [d.connect('admin') for _ in range(SPARE + 1)]
            self.assertEqual(recv_all(asking.pop()), b'')
            self.assertEqual(len(self.served(d, 1, 'more', source='127.0.0.4')), 0)
            for sock in asking:
                sock.sendall(b'GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n')
                self.assertEqual(parse_answers(recv_all(sock))[0].status, 200)

    def test_spare_places(self):
        """Those that one address takes at the admin listener beyond its limit are nobody else's."""
        for proxy in {}, dict(proxy_protocol='required'):
            header = b'PROXY TCP4 192.0.2.7 192.0.2.8 1 2\r\n' if proxy else b''
            server = dict(max_connections=6, max_connections_per_address=3)
            with self.subTest(proxy=proxy), Echod(server=server, echo={}, admin=proxy) as d:
                for name in 'admin', 'echo':
                    d.expect_log(f'connection refused listener={name}')

                def asked(sock):
                    try:
                        sock.sendall(header + b'GET /readyz HTTP/1.1\r\nHost: localhost\r\n\r\n')
                        return sock.recv(9) == b'HTTP/1.1 '
                    except ConnectionError:
                        return False

                fds = d.fds()
                for _ in range(2):
                    socks = [d.connect('admin') for _ in range(3 + SPARE + 2)]
                    self.assertEqual(sum(map(asked, socks)), 3 + SPARE)
                    self.assertEqual(len(self.served(d, 4, source='127.0.0.2')), 3)
                    for sock in socks + d.sockets:
                        sock.close()
                    d.sockets.clear()
                    d.wait_fds(fds)

    def test_many_threads_of_clients(self):
        """However many come and go at once: never more than the limit, and none is lost from the count."""
        most = 5
        with Echod(server=dict(threads=4, max_connections_per_address=most, log_level='info'), echo={}, admin={}) as d:
            d.expect_log('connection refused')
            stop, errors, lock, inside = threading.Event(), [], threading.Lock(), [0, 0]

            def client(index):
                try:
                    while not stop.is_set():
                        with connect_from('127.0.0.7', d.addr('echo')) as sock:
                            if echoes(sock, b'%d' % index):
                                with lock:
                                    inside[0] += 1
                                    inside[1] = max(inside)
                                sock.sendall(b'again')
                                recv_same(sock, b'again', eof=False)
                                with lock:
                                    inside[0] -= 1
                except (OSError, AssertionError) as error:
                    if not isinstance(error, ConnectionError):
                        errors.append(error)

            threads = [threading.Thread(target=client, args=[i]) for i in range(16)]
            for thread in threads:
                thread.start()
            time.sleep(0.5 if instrumented() else 1)
            stop.set()
            for thread in threads:
                thread.join()
            self.assertEqual(errors, [])
            self.assertLessEqual(inside[1], most)
            metrics = d.wait_metrics(lambda m: m['echod_connections_open', dict(listener='echo')] == 0)
            accepted, _, closed = metrics.connections(listener='echo')
            self.assertEqual(accepted, closed)
            self.assertEqual(len(self.served(d, most + 3, source='127.0.0.7')), most)


@unittest.skipIf('valgrind' in COMMAND[0], 'valgrind has limits of its own, and closes what is over them')
class Descriptors(unittest.TestCase):

    def test_pause(self):
        """EMFILE: paused with one line and no spin, those inside are served, and it goes on by itself."""
        with Echod(nofile=64, echo={}, admin={}) as d:
            d.expect_log('too few descriptors for max_connections')
            d.expect_log('accept paused.*error="Too many open files"')
            operator = d.connect('admin')
            socks = [d.connect('echo') for _ in range(100)]
            d.wait_log('accept paused')
            operator.sendall(b'GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n')
            self.assertIn(b'\nechod_accept_paused 1\n', recv_all(operator))
            cpu = d.cpu()
            silent(socks[-1], 1.5)
            if not instrumented():
                self.assertLess(d.cpu() - cpu, 0.1)
            self.assertTrue(echoes(socks[0]))
            for sock in socks[:80]:
                sock.close()
            for sock in socks[80:]:
                self.assertTrue(echoes(sock))
            self.assertEqual(d.wait_log('accept resumed').level, 'notice')
            self.assertEqual(d.metrics()['echod_accept_paused'], 0)
            d.stop()
            self.assertEqual(len(d.log_lines('accept paused')), 1)

    def test_raised(self):
        """The soft limit follows max_connections, at a reload too."""
        def soft():
            for line in d.proc('limits').splitlines():
                if line.startswith('Max open files'):
                    return int(line.split()[3])
            return None
        def lower():
            resource.setrlimit(resource.RLIMIT_NOFILE, (200, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
        with Echod(setup=lower, server=dict(max_connections=500), echo={}) as d:
            self.assertTrue(500 < soft() < 700, soft())
            d.reload(server=dict(max_connections=900), echo={})
            self.assertTrue(900 < soft() < 1100, soft())


if __name__ == '__main__':
    unittest.main()
