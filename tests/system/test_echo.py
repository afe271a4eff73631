"""TCP echo (RFC 862), as issue and manual promise it, over real sockets."""

import random
import re
import shutil
import signal
import socket
import subprocess
import time
import unittest

from harness import SLOW, TIMEOUT, Echod, Sender, fill, instrumented, recv_all, recv_same, reset, silent

RANDOM = random.Random(862)
KIB, MIB = 1024, 1024 * 1024
SIZES = (0, 1, 2, 4095, 4096, 4097, 65535, 65536, 65537, MIB, 16 * MIB)


def have_ipv6():
    try:
        with socket.socket(socket.AF_INET6) as sock:
            sock.bind(('::1', 0))
        return True
    except OSError:
        return False


class Bytes(unittest.TestCase):

    def test_sizes(self):
        data = RANDOM.randbytes(max(SIZES))
        with Echod(echo={}) as d:
            for size in SIZES:
                with self.subTest(size=size):
                    sock, part = d.connect('echo'), memoryview(data)[:size]
                    sender = Sender(sock, part, fin=False)
                    recv_same(sock, part, eof=False)
                    sender.finish()
                    silent(sock, 0)
                    sender = Sender(sock, part)     # once more on the same connection, half-closed behind it
                    recv_same(sock, part)
                    sender.finish()
                    d.wait_log('closed', reason='fin', bytes_in=2 * size, bytes_out=2 * size)

    def test_split_sends(self):
        data = bytes(range(256)) * 2
        with Echod(echo={}) as d:
            sock = d.connect('echo')
            for i in range(len(data)):
                sock.sendall(data[i:i + 1])
                recv_same(sock, data[i:i + 1], eof=False)
            sock = d.connect('echo')
            data = RANDOM.randbytes(MIB)
            view, sent = memoryview(data), 0
            while sent < len(data):
                part = view[sent:sent + RANDOM.choice((1, 2, 3, 100, 4095, 4096, 4097, 8192, 65537))]
                sender = Sender(sock, part, fin=False)
                recv_same(sock, part, eof=False)
                sender.finish()
                sent += len(part)

    def test_half_close_before_reading(self):
        """Everything, then FIN, wherever the bytes lie when the FIN of a peer that has not read yet comes (nmap#962).

        The amount grows in small steps: over what the kernel's buffers take, what the daemon holds, until it pauses.
        """
        data, step = memoryview(RANDOM.randbytes(64 * MIB)), 24 * KIB
        with Echod(echo={}) as d:
            for size in range(step, len(data), step):
                with d.connect('echo', buffers=16 * KIB) as sock:
                    sent, = fill([sock], data[:size])
                    sock.shutdown(socket.SHUT_WR)
                    d.turn()
                    recv_same(sock, data[:sent])
                if sent < size:
                    break
            self.assertLess(sent, size, 'never paused')

    def test_many_connections(self):
        with Echod(echo={}) as d:
            pairs = [(d.connect('echo'), RANDOM.randbytes(1 + 37 * i)) for i in range(300)]
            for sock, data in pairs:
                sock.sendall(data)
            for sock, data in reversed(pairs):
                recv_same(sock, data, eof=False)
            for sock, data in pairs:
                sock.shutdown(socket.SHUT_WR)
                recv_same(sock, b'')

    def test_netcat(self):
        """The line that the README shows."""
        if not shutil.which('nc') or '-N' not in subprocess.run(['nc', '-h'], capture_output=True, text=True).stderr:
            self.skipTest('no nc with -N')
        with Echod(echo={}) as d:
            host, port = d.addr('echo')
            done = subprocess.run(['nc', '-N', host, str(port)], input=b'hello', capture_output=True, timeout=TIMEOUT)
            self.assertEqual((done.returncode, done.stdout), (0, b'hello'))


class Addresses(unittest.TestCase):

    @unittest.skipUnless(have_ipv6(), 'no IPv6')
    def test_ipv6(self):
        with Echod(echo=dict(address='[::1]:0')) as d:
            line = d.log_lines('listening', listener='echo')[0]
            self.assertRegex(line.fields['address'], r'^\[::1\]:[1-9]\d*$')
            sock = d.connect('echo')
            sock.sendall(b'six')
            recv_same(sock, b'six', eof=False)
            sock.close()
            self.assertRegex(d.wait_log('closed').fields['peer'], r'^\[::1\]:[1-9]\d*$')

    def test_several(self):
        hosts = ['127.0.0.1', '127.0.0.2'] + ['::1'] * have_ipv6()
        address = ', '.join(f'[{host}]:0' if ':' in host else f'{host}:0' for host in hosts)
        with Echod(echo=dict(address=address)) as d:
            self.assertEqual([host for host, _ in d.addrs('echo')], hosts)
            for where in d.addrs('echo'):
                sock = d.connect(where)
                sock.sendall(b'several')
                recv_same(sock, b'several', eof=False)


class Peers(unittest.TestCase):
    """Peers that do not read, or are gone."""

    def test_paused(self):
        """64 MiB offered on each of 8 connections by peers that do not read: 256 KiB a connection at most."""
        data, count = RANDOM.randbytes(64 * MIB), 8
        with Echod(echo={}) as d:
            d.turn()
            before = d.rss()
            socks = [d.connect('echo', buffers=64 * KIB) for _ in range(count)]
            sent = fill(socks, data)
            self.assertLess(max(sent), len(data), 'never paused')
            grown = d.rss() - before
            if not instrumented():
                self.assertLess(grown, count * 256 * KIB + MIB)
            d.turn()    # the others are served
            sender = Sender(socks[0], memoryview(data)[sent[0]:])
            recv_same(socks[0], data)
            sender.finish()
            if not instrumented():
                self.assertLess(d.rss() - before, count * 256 * KIB + MIB)

    def test_reset_frees(self):
        """Resets, in the middle of an echo and of a pause, leave no descriptor and no connection behind."""
        data = RANDOM.randbytes(MIB)
        with Echod(echo={}) as d:
            d.turn()
            before = d.fds()
            socks = [d.connect('echo') for _ in range(50)]
            for i, sock in enumerate(socks):
                sock.sendall(data[:1 + 4000 * i])
            d.turn()
            self.assertEqual(d.fds(), before + len(socks))
            socks += [d.connect('echo', buffers=64 * KIB) for _ in range(4)]
            fill(socks[50:], data * 40)
            for sock in socks:
                reset(sock)
            d.wait_log('closed', reason='reset', count=len(socks))
            d.turn()
            self.assertEqual(d.fds(), before)

    def test_urgent(self):
        """Urgent data is not echoed, and hides nothing that follows it, however much came before."""
        with Echod(echo={}) as d:
            for size in 0, 200, 400 * KIB:
                with self.subTest(size=size), d.connect('echo') as sock:
                    sock.sendall(bytes(size))
                    recv_same(sock, bytes(size), eof=False)
                    d.kill(signal.SIGSTOP)      # so that what follows is there at once
                    sock.send(b'U', socket.MSG_OOB)
                    sock.sendall(b'b' * 1000)
                    sock.shutdown(socket.SHUT_WR)
                    d.kill(signal.SIGCONT)
                    recv_same(sock, b'b' * 1000)

    def test_close_unread(self):
        """A peer that closes with the echo unread resets us; that is no error either."""
        with Echod(echo={}) as d:
            d.turn()
            before = d.fds()
            for _ in range(20):
                with d.connect('echo') as sock:
                    sock.sendall(b'x' * 100 * KIB)
            d.wait_log('closed', count=20)
            d.turn()
            self.assertEqual(d.fds(), before)


class Idle(unittest.TestCase):

    def test_idle(self):
        """Also for a peer that sent without reading and then vanished: no byte moves, so it is idle."""
        idle = 0.6 * SLOW
        with Echod(echo=dict(idle_timeout=f'{round(idle * 1000)}ms'), steady={}) as d:
            d.turn('steady')
            before = d.fds()
            start = time.monotonic()
            self.assertEqual(recv_all(d.connect('echo')), b'')
            self.assertGreater(time.monotonic() - start, idle * 0.99)
            line = d.wait_log('closed', reason='idle')
            self.assertLess(float(line.fields['duration']), idle + 5 * SLOW)
            fill([d.connect('echo', buffers=64 * KIB)], bytes(64 * MIB))
            d.wait_log('closed', reason='idle', count=2)
            d.turn()
            self.assertEqual(d.fds(), before)

    def test_activity(self):
        idle = 2 * SLOW
        with Echod(echo=dict(idle_timeout=f'{round(idle * 1000)}ms')) as d:
            sock = d.connect('echo')
            for _ in range(3):
                sock.sendall(b'x')
                recv_same(sock, b'x', eof=False)
                silent(sock, 0.4 * idle)
            self.assertEqual(recv_all(sock), b'')
            d.wait_log('closed', reason='idle', bytes_in=3, bytes_out=3)


class Closed(unittest.TestCase):

    def test_line(self):
        with Echod(echo={}) as d:
            sock = d.connect('echo')
            peer = '%s:%d' % sock.getsockname()
            sock.sendall(b'hello')
            sock.shutdown(socket.SHUT_WR)
            recv_same(sock, b'hello')
            line = d.wait_log('closed')
            self.assertEqual(line.level, 'debug')
            duration = line.fields.pop('duration')
            self.assertEqual(line.fields, dict(listener='echo', peer=peer, reason='fin', bytes_in='5', bytes_out='5'))
            self.assertTrue(re.fullmatch(r'\d+\.\d{6}', duration) and 0 <= float(duration) < TIMEOUT, duration)


if __name__ == '__main__':
    unittest.main()
