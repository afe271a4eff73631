"""Socket options of listeners, read from the daemon's own sockets, and what they do."""

import contextlib
import ctypes
import os
import socket
import unittest

from harness import TIMEOUT, Echod, ini, recv_same, run_ini

PIDFD_GETFD = 438
LOOPBACK = 'lo'


def echoed(sock):
    sock.sendall(b'hello')
    recv_same(sock, b'hello', eof=False)


@contextlib.contextmanager
def sockets(d):
    """Those of the daemon, as ours.  Skips where that is not allowed."""
    libc, found = ctypes.CDLL(None, use_errno=True), []
    with contextlib.ExitStack() as stack:
        pidfd = os.pidfd_open(d.process.pid)
        stack.callback(os.close, pidfd)
        for number in os.listdir(f'/proc/{d.process.pid}/fd'):
            if os.readlink(f'/proc/{d.process.pid}/fd/{number}').startswith('socket:'):
                fd = libc.syscall(PIDFD_GETFD, pidfd, int(number), 0)
                if fd < 0:
                    raise unittest.SkipTest(f'no pidfd_getfd: {os.strerror(ctypes.get_errno())}')
                found.append(stack.enter_context(socket.socket(fileno=fd)))
        yield [sock for sock in found if sock.family in (socket.AF_INET, socket.AF_INET6)]


def options(d, where, level, name, size=0):
    """Of the sockets that listen there: the values of an option."""
    with sockets(d) as all_of_it:
        return [sock.getsockopt(level, name, size) if size else sock.getsockopt(level, name) for sock in all_of_it
                if sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN) and sock.getsockname()[:2] == where]


def of_connection(d, client, *names):
    """Of the daemon's end of a connection: the values of options (level, name)."""
    with sockets(d) as all_of_it:
        for sock in all_of_it:
            accepts = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
            if not accepts and sock.getpeername() == client.getsockname():
                return [sock.getsockopt(*name) for name in names]
    raise AssertionError('not found')


ALIVE = (socket.SOL_SOCKET, socket.SO_KEEPALIVE)
IDLE = (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE)
NODELAY = (socket.IPPROTO_TCP, socket.TCP_NODELAY)
DEFER = (socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT)
FASTOPEN = (socket.IPPROTO_TCP, socket.TCP_FASTOPEN)
DEVICE = (socket.SOL_SOCKET, socket.SO_BINDTODEVICE)


class Options(unittest.TestCase):

    def connected(self, d, listener='echo'):
        sock = d.connect(listener)
        echoed(sock)
        return sock

    def test_defaults(self):
        with Echod(server=dict(threads=2), echo={}) as d:
            for option in ALIVE, DEFER, FASTOPEN:
                self.assertEqual(options(d, d.addr('echo'), *option), [0, 0])
            self.assertEqual(of_connection(d, self.connected(d), ALIVE, NODELAY), [0, 1])

    def test_keepalive(self):
        with Echod(server=dict(threads=2), echo=dict(tcp_keepalive='90s'), most=dict(tcp_keepalive='32767s')) as d:
            old = self.connected(d)
            self.assertEqual(of_connection(d, old, ALIVE, IDLE), [1, 90])
            self.assertEqual(of_connection(d, self.connected(d, 'most'), ALIVE, IDLE), [1, 32767])
            d.reload(server=dict(threads=2), echo=dict(tcp_keepalive='5m'), most={})
            for _ in range(5):      # whichever thread takes it
                self.assertEqual(of_connection(d, self.connected(d), ALIVE, IDLE), [1, 300])
                self.assertEqual(of_connection(d, self.connected(d, 'most'), ALIVE), [0])
            self.assertEqual(of_connection(d, old, ALIVE, IDLE), [1, 90])

    def test_defer_accept(self):
        """A connection that says nothing is not accepted yet; one behind it is, and so is that when it speaks."""
        with Echod(echo=dict(tcp_defer_accept='1m'), admin={}) as d:
            self.assertGreaterEqual(options(d, d.addr('echo'), *DEFER)[0], 60)
            silent = d.connect('echo')
            self.connected(d)
            self.assertEqual(d.metrics().connections(listener='echo')[0], 1)
            echoed(silent)
            self.assertEqual(d.metrics().connections(listener='echo')[0], 2)
            d.reload(echo={}, admin={})
            self.assertEqual(options(d, d.addr('echo'), *DEFER), [0])
            d.connect('echo')
            d.wait_metrics(lambda m: m.connections(listener='echo')[0] == 3)

    def test_fastopen(self):
        with Echod(server=dict(threads=2), echo=dict(tcp_fastopen=100),
                   two=dict(address='127.0.0.2:0', tcp_fastopen=7)) as d:
            self.assertEqual(options(d, d.addr('echo'), *FASTOPEN), [100, 100])
            self.assertEqual(options(d, d.addr('two'), *FASTOPEN), [7, 7])
            with socket.socket() as sock:       # with bytes in the SYN, if the system's settings let it
                sock.sendto(b'early', socket.MSG_FASTOPEN, d.addr('echo'))
                sock.settimeout(TIMEOUT)
                recv_same(sock, b'early', eof=False)
            d.reload(server=dict(threads=2), echo=dict(tcp_fastopen=5), two=dict(address='127.0.0.2:0'))
            self.assertEqual(options(d, d.addr('echo'), *FASTOPEN), [5, 5])
            self.assertEqual(options(d, d.addr('two'), *FASTOPEN), [0, 0])

    def test_bounds(self):
        for key, values in dict(tcp_keepalive=('999ms', '32768s', '1500ms', '0', '30'),
                                tcp_fastopen=('0', '65536', 'on'),
                                tcp_defer_accept=('999ms', '61m', '1500ms'), freebind=('yes',),
                                interface=('x' * 16,), proxy_protocol=('on',)).items():
            for value in values:
                with self.subTest(key=key, value=value):
                    done = run_ini(ini(echo={key: value}), '-t')
                    self.assertEqual(done.returncode, 2, done.stderr)
                    self.assertRegex(done.stderr, rf'^echod\.ini:4: {key}: ')


class Places(unittest.TestCase):

    def test_freebind(self):
        """An address that is none of this machine's, of IPv4 and IPv6."""
        for address in ['192.0.2.1:0'] + ['[2001:db8::1]:0'] * os.path.exists('/proc/net/if_inet6'):
            with Echod(server=dict(threads=2), echo=dict(address=address, freebind='on')) as d:
                self.assertEqual(d.addr('echo')[0], address.rpartition(':')[0].strip('[]'))
            done = run_ini(ini(echo=dict(address=address)))
            self.assertEqual(done.returncode, 1)
            self.assertRegex(done.stderr, r'echod\.ini:2: address: cannot listen on .*: Cannot assign')

    def test_interface(self):
        try:
            with socket.socket() as sock:
                sock.setsockopt(*DEVICE, LOOPBACK.encode())
        except PermissionError:
            self.skipTest('not allowed')
        with Echod(server=dict(threads=2), echo=dict(interface=LOOPBACK)) as d:
            self.assertEqual([name.rstrip(b'\0') for name in options(d, d.addr('echo'), *DEVICE, 16)], [b'lo'] * 2)
            echoed(d.connect('echo'))
        done = run_ini(ini(echo=dict(interface='no-such-one')))
        self.assertEqual(done.returncode, 1)
        self.assertRegex(done.stderr, 'cannot listen on 127.0.0.1:0: No such device')

    def test_reload(self):
        """What belongs to the moment of binding cannot change with the socket that stays; with another it can."""
        with Echod(echo={}) as d:
            port = d.addr('echo')[1]
            d.reload_fails(r'/echod\.ini:\d+: freebind: cannot change without a restart', echo=dict(freebind='on'))
            d.reload_fails(r'/echod\.ini:\d+: interface: cannot change without', echo=dict(interface=LOOPBACK))
            echoed(d.connect('echo'))
            self.assertEqual(d.addr('echo')[1], port)
            d.reload(echo=dict(address='127.0.0.2:0', freebind='on'))
            echoed(d.connect('echo'))


if __name__ == '__main__':
    unittest.main()
