"""Anything at any time: signals, reloads with good and bad files, clients of every kind, limits on descriptors.

Afterwards every connection is accounted for, no descriptor is left, and the end is a clean one.  ECHOD_CHAOS_SECONDS is
how long it lasts (3); ECHOD_CHAOS_SEED repeats what each actor does, though not how their steps interleave.
"""

import os
import random
import resource
import select
import signal
import socket
import sys
import threading
import time
import types
import unittest

from harness import (COMMAND, LAST, REQUEST, SLOW, Echod, connect, parse_answers, recv_all, reset, wait_until)
from transport import TRANSPORTS

SECONDS = float(os.environ.get('ECHOD_CHAOS_SECONDS', '3'))
SEED = int(os.environ.get('ECHOD_CHAOS_SEED', random.randrange(1 << 32)))
NOFILE = 500    # the hard limit stays above it

BASE = dict(server=dict(threads=3, max_connections=400, log_level='info', access_log='@FOLDER@/log'),
            echo=dict(idle_timeout='300ms'), web=dict(header_timeout='100ms'), admin={})

# Listeners that are reached in other ways; more ways than these change nothing.
WAYS = {t.name: t for t in TRANSPORTS if t.name in ('tls13', 'unix-tls', 'proxy1', 'proxy2-tls')}
BASE |= {name: t.keys(name, handler='greeting' if name == 'proxy2-tls' else 'echo', handshake_timeout='500ms')
         for name, t in WAYS.items()}


def configurations(rng):
    """A file, mostly a good one, and always with the same addresses of the three that all clients know."""
    sections = {name: dict(keys) for name, keys in BASE.items()}
    sections['server'] |= rng.choice(({}, dict(max_connections=30), dict(max_connections_per_address=20),
                                      dict(access_log='off'), dict(access_log='stderr'), dict(log_format='json'),
                                      dict(log_level='debug'),
                                      dict(address_prefix_v4=8, max_connections_per_address=40)))
    sections['echo'] |= rng.choice(({}, dict(accept_rate=200), dict(max_connections=10), dict(idle_timeout='50ms')))
    sections['web'] |= rng.choice(({}, dict(greeting='{name}!'), dict(max_requests=2), dict(keepalive_timeout='20ms')))
    sections['tls13'] |= rng.choice(({}, dict(tls_min_version='1.3'), dict(max_connections=5)))
    sections['proxy1'] |= rng.choice(({}, dict(proxy_trusted='192.0.2.0/24')))
    for number in range(rng.randrange(3)):
        sections[f'more{rng.randrange(5)}'] = dict(handler=rng.choice(('echo', 'greeting', 'admin')))
    bad = rng.choice((None, None, None, ('server', dict(threads=2)), ('server', dict(access_log='/nonexistent/log')),
                      ('echo', dict(nonsense=1)), ('last', dict(address='192.0.2.1:1'))))
    if bad:
        sections[bad[0]] = sections.get(bad[0], {}) | bad[1]
    return sections


# Clients: each gets a connected socket and does one thing with it. What comes of it is not their matter.

def echo_some(rng, sock):
    data = bytes(rng.randrange(1, 200000))
    sock.sendall(data)
    sock.shutdown(socket.SHUT_WR)
    recv_all(sock)


def never_read(rng, sock):
    sock.setblocking(False)
    for _ in range(rng.randrange(50)):
        sock.send(bytes(65536))
    select.select([], [], [], rng.random() / 10)


def dribble(rng, sock):
    for byte in REQUEST[:rng.randrange(1, len(REQUEST))]:
        sock.sendall(bytes([byte]))
        select.select([sock], [], [], rng.random() / 100)


def pipeline(rng, sock):
    sock.sendall(REQUEST * rng.randrange(1, 300) + LAST)
    if rng.random() < 0.5:
        recv_all(sock)


def nonsense(rng, sock):
    sock.sendall(rng.randbytes(rng.randrange(1, 500)))
    recv_all(sock)


def hang(rng, sock):
    select.select([sock], [], [], rng.random() / 5)


def scrape(rng, sock):
    target = rng.choice(('/metrics', '/config', '/healthz', '/readyz', '/nonsense'))
    sock.sendall(f'GET {target} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n'.encode())
    parse_answers(recv_all(sock))


KINDS = echo_some, never_read, dribble, pipeline, nonsense, hang, scrape


class Chaos(unittest.TestCase):

    def start(self, actor, *args):
        """ACTOR in a thread of its own, again and again until the time is over."""
        rng = random.Random(f'{SEED} {len(self.threads)}')

        def loop():
            try:
                while time.monotonic() < self.end:
                    actor(rng, *args)
            except Exception as error:      # pylint: disable=broad-except
                self.errors.append(error)
        self.threads.append(threading.Thread(target=loop))
        self.threads[-1].start()

    def client(self, rng, addresses):
        name = rng.choice(list(addresses))
        try:
            with connect(addresses[name]) as raw:
                raw.settimeout(2 * SLOW)
                sock = raw
                if name in WAYS and rng.random() < 0.8:
                    sock = WAYS[name].connect(types.SimpleNamespace(connect=lambda _: raw), name)
                (scrape if name == 'admin' else rng.choice(KINDS))(rng, sock)
                if rng.random() < 0.3:
                    reset(sock)
        except (OSError, AssertionError):   # refused, reset, cut short: all may be
            pass

    def reloader(self, rng, d):
        d.write_ini(d.configuration(configurations(rng)))
        for _ in range(rng.choice((1, 1, 1, 5))):
            d.kill(signal.SIGHUP)
        select.select([], [], [], rng.random() / 10)

    def signaller(self, rng, d):
        d.kill(rng.choice((signal.SIGHUP, signal.SIGUSR1, signal.SIGPIPE)))
        select.select([], [], [], rng.random() / 20)

    def limiter(self, rng, d):
        """Few descriptors now and then, fewer than are open too."""
        resource.prlimit(d.process.pid, resource.RLIMIT_NOFILE, (rng.choice((3, 40, 60, NOFILE)), self.hard))
        select.select([], [], [], rng.random() / 5)

    def check_counts(self, d):
        """At rest: what was accepted has ended, but for the scrape's own connection."""
        metrics = d.wait_metrics(lambda m: m['echod_connections_open'] == 1)
        for labels in metrics.labels('echod_connections_open'):
            accepted, still_open, closed = metrics.connections(**labels)
            self.assertEqual(accepted, still_open + closed, labels)
            self.assertEqual(still_open, labels['listener'] == 'admin', labels)
            self.assertEqual(metrics['echod_connection_duration_seconds_count', labels], closed, labels)
            self.assertLessEqual(metrics['echod_connections_silent_total', labels], closed, labels)
            self.assertEqual(metrics['echod_request_duration_seconds_count', labels],
                             metrics['echod_requests_total', labels], labels)
        self.assertGreater(metrics['echod_connections_closed_total'], 10)
        for result in 'success', 'failure':
            self.assertGreater(metrics['echod_reloads_total', dict(result=result)], 0)

    def test_chaos(self):
        print(f'seed {SEED}, {SECONDS} s', file=sys.stderr)
        self.threads, self.errors = [], []
        with Echod(**BASE) as d:
            for pattern in ('reload failed', 'connection refused', 'accept paused', 'access log lost', 'lines lost',
                            'too few descriptors', 'cannot reopen'):
                d.may_log(pattern)
            self.hard = resource.prlimit(d.process.pid, resource.RLIMIT_NOFILE)[1]
            addresses = {name: d.addr(name) for name in BASE if name != 'server'}
            fds = d.fds()
            self.end = time.monotonic() + SECONDS
            for _ in range(12):
                self.start(self.client, addresses)
            self.start(self.reloader, d)
            self.start(self.signaller, d)
            if 'valgrind' not in COMMAND[0]:
                self.start(self.limiter, d)
            for thread in self.threads:
                thread.join()
            self.assertEqual(self.errors, [], f'seed {SEED}')
            resource.prlimit(d.process.pid, resource.RLIMIT_NOFILE, (NOFILE, self.hard))
            d.write_ini(d.text)
            for _ in range(2):      # the first may be one that has begun before
                d.reload()
            self.assertEqual({name: d.addrs(name) for name in addresses}, {name: [a] for name, a in addresses.items()})
            # none is left; the pipe of a worker may be missing, if it got none when it wanted one last
            wait_until(lambda: d.fds() <= fds, lambda: f'{d.fds()} descriptors, not {fds}')
            self.check_counts(d)
            d.stop()


if __name__ == '__main__':
    unittest.main()
