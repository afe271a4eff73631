"""The service manager: what it is told (sd_notify(3)), its watchdog, the sockets it hands over (sd_listen_fds(3))."""

import os
import signal
import socket
import tempfile
import time
import unittest

from harness import (COMMAND, SLOW, Clients, Echod, activation, connect, ini, parse_answers, recv_all, recv_same, run,
                     stopped_worker, talk_echo, talk_once)

STUCK = 5       # seconds after which a loop counts as standing still
TICK = 1        # seconds from one ping to the next, at most


def has_libsystemd():
    """A build without libsystemd has nothing to tell, and takes no sockets."""
    with tempfile.NamedTemporaryFile('w', suffix='.ini') as file:
        file.write(ini(echo=dict(address='systemd:none')))
        file.flush()
        return 'without libsystemd' not in run('-c', file.name).stderr


@unittest.skipUnless(has_libsystemd(), 'built without libsystemd')
class Told(unittest.TestCase):

    def test_life(self):
        """Ready once all is bound, with what is served; stopping, with more time asked for while it lasts."""
        with Echod(notified=True, server=dict(drain_timeout='1500ms'), echo={}, web={}) as d:
            _, fields = d.wait_told(READY='1')
            self.assertEqual(fields['STATUS'], '2 listeners, 0 connections')
            sock = d.connect('echo')
            d.wait_told(STATUS='2 listeners, 1 connections')
            start = time.monotonic()
            d.kill()
            at, fields = d.wait_told(STOPPING='1')
            self.assertGreater(int(fields['EXTEND_TIMEOUT_USEC']), 2 * TICK * 1000000)
            d.wait()
            extended = [fields['at'] for fields in d.told[at:] if 'EXTEND_TIMEOUT_USEC' in fields]
            self.assertGreaterEqual(len(extended), 2)
            end = time.monotonic()
            for one, next_one in zip([start, *extended], [*extended, end]):
                self.assertLess(next_one - one, 10, 'longer than what was asked for')
            self.assertFalse([fields for fields in d.told[at:] if 'READY' in fields])
            sock.close()

    def test_not_ready(self):
        """An address that cannot be bound: never ready."""
        with socket.create_server(('127.0.0.1', 0)) as other, \
             socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as told, \
             tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, 'echod.ini')
            told.bind(os.path.join(folder, 'notify'))
            with open(path, 'w', encoding='utf-8') as file:
                file.write(ini(web={}, echo=dict(address='%s:%d' % other.getsockname())))
            done = run('-c', path, env=os.environ | dict(NOTIFY_SOCKET=os.path.join(folder, 'notify')))
            self.assertEqual(done.returncode, 1)
            told.setblocking(False)
            self.assertRaises(BlockingIOError, told.recv, 1000)

    def test_reload(self):
        """Reloading with the time, then ready again, with what is served now."""
        with Echod(notified=True, echo={}) as d:
            number, _ = d.wait_told(READY='1')
            before = time.monotonic_ns() // 1000
            d.reload(echo={}, web={})
            number, fields = d.wait_told(number + 1, RELOADING='1')
            self.assertTrue(before <= int(fields['MONOTONIC_USEC']) <= time.monotonic_ns() // 1000)
            number, fields = d.wait_told(number + 1, READY='1')
            self.assertEqual(fields['STATUS'], '2 listeners, 0 connections')

    def test_failed_reload(self):
        """Ready again too, and the status says where and why, until a reload is good."""
        with Echod(notified=True, echo={}) as d:
            good = d.text
            for text in good + 'nonsense = 1\n', good.replace('127.0.0.1:0', '192.0.2.1:1'):
                number = len(d.told)
                d.reload_fails(r'echod\.ini:\d: ', text)
                number, _ = d.wait_told(number, RELOADING='1')
                number, fields = d.wait_told(number + 1, READY='1')
                self.assertRegex(fields['STATUS'],
                                 r'^reload failed: /.*/echod\.ini:\d: .*; 1 listeners, 0 connections$')
            d.wait_told(number + 1, STATUS='reload failed: .*')     # and goes on saying so
            d.reload(good)
            _, fields = d.wait_told(number + 1, READY='1')
            self.assertEqual(fields['STATUS'], '1 listeners, 0 connections')

    def test_signal_at_start(self):
        """A reload that is asked for before the first configuration is in force comes after it."""
        def ask():
            signal.signal(signal.SIGHUP, signal.SIG_DFL)    # nohup(1), around the tests, ignores it
            signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGHUP])
            os.kill(os.getpid(), signal.SIGHUP)
        with Echod(notified=True, setup=ask, echo={}) as d:
            d.wait_log('reloaded')
            number, _ = d.wait_told(RELOADING='1')
            d.wait_told(number, READY='1')

    def test_stop_while_it_reloads(self):
        """What a reload still has to do is no reason to tell that it is ready, or to begin another."""
        with Echod(notified=True, echo={}, web={}) as d:
            sock = d.connect('echo')
            d.write_ini(ini(echo={}))
            d.kill(signal.SIGHUP)
            d.wait_log('listening no more')     # and 100 ms go by before it is closed
            d.kill(signal.SIGHUP)
            d.kill()
            number, _ = d.wait_told(STOPPING='1')
            d.wait_log('reloaded')
            sock.close()
            d.wait()
            self.assertFalse([fields for fields in d.told[number:] if 'READY' in fields or 'RELOADING' in fields])

    def test_watchdog(self):
        """Answered within a third of its time, and only when asked for."""
        start = time.monotonic()
        with Echod(watchdog=600000, server=dict(threads=2), echo={}) as d:
            number = 0
            for _ in range(4):
                number, fields = d.wait_told(number + 1, WATCHDOG='1')
            pings = [fields['at'] for fields in d.told if 'WATCHDOG' in fields]
            self.assertLess(pings[3] - pings[0], 3 * 0.2 + 5 * SLOW)
            self.assertLessEqual(len(pings), (time.monotonic() - start) / 0.1)
        with Echod(notified=True, environment=dict(WATCHDOG_USEC='0'), echo={}) as d:
            d.wait_told(1, STATUS='.*')
            self.assertFalse([fields for fields in d.told if 'WATCHDOG' in fields and fields['WATCHDOG'] != '1'])

    def none_in_a_tick(self, d, field):
        """Asserts that a field is not told while others are."""
        with d.news:
            number = len(d.told)
        first, _ = d.wait_told(number, STATUS='.*')     # what was told before may be read only now
        last, _ = d.wait_told(first + 1, STATUS='.*')
        d.wait_told(last + 1, STATUS='.*')
        with d.news:
            self.assertFalse([fields for fields in d.told[first:] if field in fields])

    def test_loops(self):
        """No pings while one loop of several stands still, nor more time; one that has drained does not stand still."""
        options = dict(watchdog=600000, server=dict(threads=3, drain_timeout='1h'), echo={})
        with Echod(**options) as drained, Echod(**options) as stuck, Echod(**options) as stopping:
            sock = drained.connect('echo')
            sock.sendall(b'x')
            recv_same(sock, b'x', eof=False)
            drained.kill()
            _, start = drained.wait_told(STOPPING='1')
            with stopped_worker(stuck), stopped_worker(stopping):
                stopping.kill()
                for d in stuck, stopping:
                    d.expect_log('an event loop stands still')
                    d.wait_log('an event loop stands still')
                    self.none_in_a_tick(d, 'WATCHDOG')
                self.none_in_a_tick(stopping, 'EXTEND_TIMEOUT_USEC')
            stuck.wait_told(len(stuck.told), WATCHDOG='1')
            stuck.wait_log('the event loops turn again')
            stopping.wait()
            number, fields = drained.wait_told(WATCHDOG='1')
            while fields['at'] - start['at'] < STUCK + 1:
                number, fields = drained.wait_told(number + 1, WATCHDOG='1')
            sock.close()
            drained.wait()


@unittest.skipUnless(has_libsystemd(), 'built without libsystemd')
class Activation(unittest.TestCase):

    def listen(self, family=socket.AF_INET, address=('127.0.0.1', 0)):
        sock = socket.socket(family)
        self.addCleanup(sock.close)
        sock.bind(address)
        sock.listen(100)
        return sock

    def unix(self):
        folder = tempfile.TemporaryDirectory(prefix='echod-test-')
        self.addCleanup(folder.cleanup)
        return self.listen(socket.AF_UNIX, os.path.join(folder.name, 'socket'))

    def echoed(self, address, data=b'hello'):
        with connect(address) as sock:
            sock.sendall(data)
            sock.shutdown(socket.SHUT_WR)
            recv_same(sock, data)

    def test_by_name(self):
        """TCP and unix, several under one name, beside an address of our own; each is told where it listens."""
        v4, v6, unix, web = self.listen(), self.listen(socket.AF_INET6, ('::1', 0)), self.unix(), self.listen()
        abstract = self.listen(socket.AF_UNIX, f'\0echod-test-{os.getpid()}')
        activated = [('a', v4), ('w', web), ('a', unix), ('a', v6), ('b', abstract)]
        for threads in 1, 3:
            with self.subTest(threads=threads), \
                 Echod(server=dict(threads=threads), activated=activated,
                       echo=dict(address='systemd:a, 127.0.0.1:0, systemd:b'), web=dict(address='systemd:w')) as d:
                self.assertEqual(d.wait_log('ready').fields['listeners'], '6')
                told = d.addrs('echo')
                self.assertEqual(told[:3], [v4.getsockname(), unix.getsockname(), v6.getsockname()[:2]])
                self.assertEqual(told[4], f'@echod-test-{os.getpid()}')
                for address in (v4.getsockname(), v6.getsockname()[:2], unix.getsockname(), told[3],
                                f'\0echod-test-{os.getpid()}'):
                    for _ in range(8):
                        self.echoed(address)
                with connect(web.getsockname()) as sock:
                    sock.sendall(b'GET /Ada HTTP/1.0\r\n\r\n')
                    self.assertEqual(parse_answers(recv_all(sock))[0].body, b'Hello, Ada')
                self.assertTrue(d.wait_log('closed', listener='echo', peer='unix'))
                self.assertEqual(v4.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY), 1)

    def test_unused(self):
        """What nobody asked for is told, by its name."""
        with Echod(activated=[('a', self.listen()), ('forgotten', self.listen())], echo=dict(address='systemd:a')) as d:
            d.expect_log('socket not used name=forgotten')
            self.assertEqual(len(d.log_lines('socket not used')), 1)
            d.reload(echo=dict(address='systemd:forgotten'))
            d.expect_log('socket not used name=a')
            self.assertEqual(len(d.log_lines('socket not used')), 2)

    def fails(self, activated, text, pattern):
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, 'echod.ini')
            with open(path, 'w', encoding='utf-8') as file:
                file.write(text)
            words, options = activation(activated)
            command = COMMAND[:]
            COMMAND[:0] = words
            try:
                done = run('-c', path, **options)
            finally:
                COMMAND[:] = command
        self.assertEqual((done.returncode, done.stdout), (1, ''), done.stderr)
        self.assertRegex(done.stderr, r'echod\.ini:2: address: .*' + pattern)
        self.assertNotIn(' ready ', done.stderr)

    def test_refused(self):
        """Status 1 and the line: a name that was not handed over, what does not listen, what is no stream."""
        text = ini(echo=dict(address='systemd:a'))
        self.fails([('b', self.listen())], text, 'no socket named \\W*a')
        with socket.socket() as idle, socket.socket(type=socket.SOCK_DGRAM) as datagrams, \
             open('/dev/null', encoding='utf-8') as file:
            idle.bind(('127.0.0.1', 0))
            datagrams.bind(('127.0.0.1', 0))
            for wrong in idle, datagrams, file:
                self.fails([('a', self.listen()), ('a', wrong)], text, 'no listening stream socket: \\W*a')
        done = run('-c', '/dev/stdin', '-t')
        self.assertNotIn('no socket named', done.stderr)

    def test_too_many(self):
        listening = self.listen()
        self.fails([('a', listening)] * 65, ini(echo=dict(address='systemd:a')), 'too many')

    def test_restart(self):
        """A stop takes nobody off the queue that it does not serve: they wait for the next process."""
        tcp, unix = self.listen(), self.unix()
        options = dict(activated=[('a', tcp), ('a', unix)], server=dict(threads=2), echo=dict(address='systemd:a'))
        waiting = []
        with Echod(**options) as d:
            self.echoed(tcp.getsockname())
        for _ in range(10):
            for address in tcp.getsockname(), unix.getsockname():
                sock = connect(address)
                sock.sendall(b'early')
                sock.shutdown(socket.SHUT_WR)
                waiting.append(sock)
        with Echod(**options) as d:
            for sock in waiting:
                recv_same(sock, b'early')
                sock.close()
            d.stop()

    def test_restart_under_load(self):
        """Nobody is refused, reset or left without an answer, however often it is restarted."""
        echo, web, unix = self.listen(), self.listen(), self.unix()
        options = dict(activated=[('e', echo), ('w', web), ('e', unix)], echo=dict(address='systemd:e'),
                       web=dict(address='systemd:w'), server=dict(threads=2, log_level='info'))
        with Clients(echo.getsockname(), talk_echo, 3) as one, Clients(web.getsockname(), talk_once, 3) as two, \
             Clients(unix.getsockname(), talk_echo, 3) as three:
            for _ in range(4):
                with Echod(**options) as d:
                    for clients in one, two, three:
                        clients.wait(3)
                    d.stop()
            with Echod(**options):
                for clients in one, two, three:
                    clients.wait()
                    clients.stop()

    def test_reload(self):
        """A name stays, goes, and comes back; what stays is not told anew."""
        a, b = self.listen(), self.listen()
        with Echod(activated=[('a', a), ('b', b)], echo=dict(address='systemd:a, systemd:b')) as d:
            kept = connect(b.getsockname())
            d.reload(echo=dict(address='systemd:a'))
            d.expect_log('socket not used name=b')
            self.assertEqual(d.addrs('echo'), [a.getsockname()])
            kept.sendall(b'still')
            kept.shutdown(socket.SHUT_WR)
            recv_same(kept, b'still')
            kept.close()
            self.echoed(a.getsockname())
            waiting = connect(b.getsockname())
            d.reload(echo=dict(address='systemd:a, systemd:b'))
            self.assertEqual(len(d.log_lines('listening', address='%s:%d' % a.getsockname())), 1)
            waiting.sendall(b'late')
            waiting.shutdown(socket.SHUT_WR)
            recv_same(waiting, b'late')
            waiting.close()
            d.reload_fails(r'echod\.ini:\d: address: .*no socket named', echo=dict(address='systemd:c'))
            self.echoed(a.getsockname())
            self.echoed(b.getsockname())

    def test_not_for_us(self):
        """Sockets that are meant for another process are none of ours (sd_listen_fds(3))."""
        with tempfile.NamedTemporaryFile('w', suffix='.ini') as file:
            file.write(ini(echo=dict(address='systemd:a')))
            file.flush()
            done = run('-c', file.name, env=os.environ | dict(LISTEN_PID='1', LISTEN_FDS='1', LISTEN_FDNAMES='a'))
        self.assertEqual(done.returncode, 1)
        self.assertIn('no socket named', done.stderr)


if __name__ == '__main__':
    unittest.main()
