"""Reload by SIGHUP: as a whole or not at all, and nobody is refused or reset by it."""

import contextlib
import ctypes
import os
import re
import signal
import socket
import struct
import tempfile
import threading
import time
import unittest

from harness import (LAST, REQUEST, SLOW, TIMEOUT, Clients, Echod, body, connect, instrumented, parse_answers, recv_all,
                     recv_same, talk_echo, talk_http)


def greets(address):
    """The greeting that a new connection gets."""
    with connect(address) as sock:
        sock.sendall(LAST)
        return parse_answers(recv_all(sock))[0].body


def echoes(address, data=b'hello'):
    with connect(address) as sock:
        sock.sendall(data)
        sock.shutdown(socket.SHUT_WR)
        recv_same(sock, data)


def text_address(address):
    return ('[%s]:%d' if ':' in address[0] else '%s:%d') % address


def free_address():
    """An address that was free a moment ago, and of a host that the other tests leave alone."""
    with socket.create_server(('127.0.0.9', 0)) as sock:
        return sock.getsockname()


def talk_anything(sock):
    """HTTP or echo."""
    sock.sendall(LAST)
    sock.shutdown(socket.SHUT_WR)
    if not recv_all(sock):
        raise AssertionError('nothing')


class Changes(unittest.TestCase):

    def test_nothing(self):
        with Echod(admin={}) as d:
            address = d.addr('admin')
            d.reload()
            self.assertEqual((d.addr('admin'), len(d.log_lines('listening'))), (address, 1))
            self.assertEqual(d.wait_log('reloaded').fields, dict(listeners='1'))

    def test_settings(self):
        """New connections get them; one that is open finishes under those it began with."""
        for threads in 1, 3:
            with self.subTest(threads=threads), Echod(server=dict(threads=threads), web={}) as d:
                old = d.connect('web')
                old.sendall(REQUEST)
                self.assertEqual(body(old), b'Hello, Ada')
                d.reload(server=dict(threads=threads),
                         web=dict(greeting='Moin {name}', keepalive_timeout=f'{1000 + 200 * SLOW:.0f}ms'))
                for _ in range(8):
                    self.assertEqual(greets(d.addr('web')), b'Moin Ada')
                for _ in range(2):
                    old.sendall(REQUEST)
                    self.assertEqual(body(old), b'Hello, Ada')
                with d.connect('web') as new:       # the other new setting
                    self.assertEqual(recv_all(new), b'')
                old.sendall(LAST)
                self.assertEqual(body(old), b'Hello, Ada')

    def test_listeners_come_and_go(self):
        for threads in 1, 3:
            with self.subTest(threads=threads), Echod(server=dict(threads=threads), a={}, b={}) as d:
                a, b = d.addr('a'), d.addr('b')
                live = d.connect('b')
                live.sendall(b'before')
                recv_same(live, b'before', eof=False)
                d.reload(server=dict(threads=threads), a={}, web={})
                self.assertEqual((d.addr('a'), d.addrs('b')), (a, []))
                self.assertEqual(d.wait_log('listening no more').fields, dict(listener='b', address=text_address(b)))
                self.assertRaises(ConnectionRefusedError, connect, b)
                self.assertEqual(greets(d.addr('web')), b'Hello, Ada')
                echoes(a)
                live.sendall(b'after')
                live.shutdown(socket.SHUT_WR)
                recv_same(live, b'after')
                with socket.create_server(b):       # somebody else may have it now
                    pass

    def test_address_moves(self):
        """Also to a listener of another name or with another handler: the socket is kept."""
        one = two = free_address()
        while two == one:
            two = free_address()
        with Echod(echo=dict(address=text_address(one))) as d:
            live = d.connect('echo')
            d.reload(echo=dict(address=text_address(two)))
            echoes(two)
            self.assertRaises(ConnectionRefusedError, connect, one)
            d.reload(echo=dict(address=f'{text_address(one)}, {text_address(two)}'))
            echoes(one)
            with Clients(two, talk_anything, count=2) as clients:
                for handler in 'greeting', 'echo', 'admin', 'greeting':
                    d.reload(other=dict(address=text_address(two), handler=handler),
                             echo=dict(address=text_address(one)))
                    clients.wait()
            self.assertEqual(greets(two), b'Hello, Ada')
            self.assertEqual(len(d.log_lines('listening', address=text_address(two))), 1)
            live.sendall(b'x')
            live.shutdown(socket.SHUT_WR)
            recv_same(live, b'x')

    def test_port_of_the_kernels_choice(self):
        """The listener keeps it, several each theirs, wherever its section stands."""
        with Echod(a=dict(address='127.0.0.1:0, 127.0.0.1:0'), b={}) as d:
            a, b = d.addrs('a'), d.addrs('b')
            d.reload(b={}, c={}, a=dict(address='127.0.0.1:0, 127.0.0.1:0, 127.0.0.1:0'))
            self.assertEqual((d.addrs('a')[:2], d.addrs('b')), (a, b))
            self.assertEqual(len({*d.addrs('a'), *d.addrs('b'), *d.addrs('c')}), 5)
            for name in 'a', 'b', 'c':
                for address in d.addrs(name):
                    echoes(address)

    def test_limits(self):
        """Those of the server and the listener hold from the reload on, for what is open too."""
        with Echod(echo={}) as d:
            d.expect_log('connection refused')
            live = [d.connect('echo') for _ in range(3)]
            for sock in live:
                sock.sendall(b'x')
                recv_same(sock, b'x', eof=False)
            for keys in dict(server=dict(max_connections=3), echo={}), dict(echo=dict(max_connections=3)):
                d.reload(**keys)
                self.assertEqual(recv_all(d.connect('echo')), b'')
            d.reload(echo=dict(max_connections=4))
            self.assertEqual(len({line.fields['reason'] for line in d.log_lines('connection refused')}), 2)
            sock = d.connect('echo')
            sock.sendall(b'x')
            recv_same(sock, b'x', eof=False)

    def test_log(self):
        """Level, format and access log change, and no request is missing from one of the logs."""
        with Echod(web={}) as d:
            sock = d.connect('web')
            for number, keys in enumerate((dict(access_log='@FOLDER@/one'), dict(access_log='@FOLDER@/two'),
                                           dict(access_log='off'), dict(access_log='stderr', log_format='json'))):
                d.reload(server=keys, web={})
                sock.sendall(REQUEST.replace(b'Ada', b'%d' % number))
                self.assertEqual(body(sock), b'Hello, %d' % number)
            d.reload(server=dict(log_level='notice'), web={})
            d.wait_log('request', target='/3')
            closed = len(d.log_lines('closed'))
            d.stop()
            self.assertEqual(len(d.log_lines('closed')), closed)
            self.assertTrue(all(line.raw.startswith('{') for line in d.log_lines('request')))
            self.assertFalse(d.log_lines()[-1].raw.startswith('{'))
            self.assertFalse(d.log_lines('request', target='/2'))

    def test_access_log_files(self):
        with Echod(server=dict(access_log='@FOLDER@/one'), web={}) as d:
            sock = d.connect('web')
            for number, name in enumerate(('one', 'two', 'one')):
                if number:
                    d.reload(server=dict(access_log=f'@FOLDER@/{name}'), web={})
                sock.sendall(REQUEST.replace(b'Ada', b'%d' % number))
                body(sock)
            d.reload(server=dict(access_log='off'), web={})
            for name, targets in ('one', ['/0', '/2']), ('two', ['/1']):
                with open(d.path(name), encoding='ascii') as file:
                    self.assertEqual(re.findall(r' target=(\S+)', file.read()), targets)
            self.assertFalse([name for name in os.listdir(f'/proc/{d.process.pid}/fd')
                              if os.readlink(f'/proc/{d.process.pid}/fd/{name}').startswith(d.folder.name)])

    def test_restart_needed(self):
        """threads cannot change, unless it means the same number."""
        with Echod(server=dict(threads=2), echo={}) as d:
            d.reload_fails(r'echod\.ini:3: threads cannot change without a restart, from 2 to 3$',
                           server=dict(threads=3), echo={})
            d.reload_fails(r'echod\.ini:4: threads cannot change without a restart, from 2 to 1$', echo={})
            d.reload(server=dict(threads=2), echo={})
            cores = len(os.sched_getaffinity(0))
        with Echod(server=dict(threads=cores), echo={}) as d:
            d.reload(server=dict(threads='auto'), echo={})


class Load(unittest.TestCase):
    """Many clients while the configuration changes again and again: none is refused or reset, every byte comes back."""

    ROUNDS = 8 if instrumented() else 22

    def test_kept_address(self):
        for threads in 1, 3:
            keys = dict(threads=threads, log_level='info')
            with self.subTest(threads=threads), Echod(server=keys, echo={}, web={}) as d, \
                 Clients(d.addr('echo'), talk_echo, 4) as echo, Clients(d.addr('web'), talk_http, 4) as web:
                for number in range(self.ROUNDS):
                    more = {f'more{number % 3}': {}} if number % 2 else {}
                    d.reload(server=keys, echo=dict(idle_timeout=f'{number + 1}m'), **more, web={})
                echo.wait()
                web.wait()

    def test_removed_listener(self):
        """Who is connected when a listener goes is served; who comes later is refused, and nobody reset."""
        for threads in 1, 3:
            keys = dict(threads=threads, log_level='info')
            with self.subTest(threads=threads), Echod(server=keys, kept={}, echo={}) as d:
                for _ in range(2):
                    with Clients(d.addr('echo'), talk_echo, may_be_refused=True) as clients:
                        clients.wait()
                        d.reload(server=keys, kept={})
                    d.reload(server=keys, kept={}, echo={})


class Failures(unittest.TestCase):
    """Any fault in the new file: all is as it was, the log tells the line, the failure is counted, nothing is left."""

    def check(self, d, pattern, text, live):
        address, before = d.addr('web'), d.metrics()
        d.reload_fails(pattern, text)
        after = d.wait_metrics(lambda m: m['echod_reloads_total'] > before['echod_reloads_total'])
        for name, labels, more in (('echod_config_timestamp_seconds', {}, 0),
                                   ('echod_reloads_total', {'result': 'failure'}, 1),
                                   ('echod_reloads_total', {'result': 'success'}, 0)):
            self.assertEqual(after[name, labels], before[name, labels] + more)
        self.assertEqual(d.get('/config').body, self.config)
        self.assertEqual(d.get('/readyz').status, 200)
        self.assertEqual((d.addr('web'), greets(address)), (address, b'Hello, Ada'))
        live.sendall(REQUEST)
        self.assertEqual(body(live), b'Hello, Ada')
        d.wait_fds(self.fds)

    def test_every_fault(self):
        with socket.create_server(('127.0.0.1', 0)) as other, \
             Echod(server=dict(threads=2, max_connections=50), web={}, admin={}) as d:
            taken, free = text_address(other.getsockname()), text_address(free_address())
            good, ini, self.fds = d.text, re.escape(d.path('echod.ini')), d.fds() + 1
            live = d.connect('web')
            live.sendall(REQUEST)
            self.assertEqual(body(live), b'Hello, Ada')
            self.config = d.get('/config').body
            changed = good.replace('[listener web]', '[listener web]\ngreeting = Changed').replace('50', '1')
            lines = changed.count('\n')
            new = f'[listener new]\naddress = {free}\nhandler = echo\n'
            for pattern, text in (
                    (rf'^{ini}:{lines + 1}: ', changed + 'syntax\n'),
                    (rf'^{ini}:{lines + 1}: unknown key .*nonsense', changed + 'nonsense = 1\n'),
                    (rf'^{ini}:{lines + 2}: .*192\.0\.2\.1:1',
                     changed + '[listener x]\naddress = 192.0.2.1:1\nhandler = echo\n'),
                    (rf'^{ini}:{lines + 5}: address: cannot listen on {re.escape(taken)}: Address already in use',
                     changed + new + f'[listener x]\naddress = {taken}\nhandler = echo\n'),
                    (rf'^{ini}:{lines + 6}: address: cannot listen on {re.escape(taken)}: Address already in use',
                     (changed + new).replace('[server]\n', '[server]\naccess_log = @FOLDER@/log\n')
                     + f'[listener x]\naddress = {taken}\nhandler = echo\n'),
                    (rf'^{ini}:{lines + 2}: address: cannot listen on 0\.0\.0\.0:',
                     changed + f'[listener x]\naddress = 0.0.0.0:{d.addr("web")[1]}\nhandler = echo\n'),
                    (rf'^{ini}:3: threads cannot change', (changed + new).replace('threads = 2', 'threads = 1')),
                    (rf'^{ini}:2: access_log: cannot open /nonexistent/log: No such file',
                     (changed + new).replace('[server]\n', '[server]\naccess_log = /nonexistent/log\n')),
                    (rf'^{ini}:2: access_log: cannot open /: Is a directory',
                     (changed + new).replace('[server]\n', '[server]\naccess_log = /\n')),
                    (rf'^{ini}:{lines + 4}: .*greeting.*65536',
                     changed + new + '[listener x]\naddress = 127.0.0.1:0\nhandler = greeting\ngreeting = '
                     + '{name}' * 25 + '\nmax_target = 16k\n'),
                    (rf'^{ini}:{lines + 2}: address: .*no socket named',
                     changed + '[listener x]\naddress = systemd:x\nhandler = echo\n'),
                    (rf'^{ini}:0: cannot be read: Is a directory', None),
                    (rf'^{ini}:0: cannot be read: No such file', None)):
                with self.subTest(pattern=pattern):
                    if text is None:
                        if os.path.isdir(d.path('echod.ini')):
                            os.rmdir(d.path('echod.ini'))
                        else:
                            os.unlink(d.path('echod.ini'))
                            os.mkdir(d.path('echod.ini'))
                    self.check(d, pattern, text, live)
                    with socket.create_server((free.split(':')[0], int(free.split(':')[1]))):
                        pass
            for _ in range(5):      # max_connections = 1 has not been taken over
                d.connect('web')
            d.reload(good.replace('[listener web]', '[listener web]\ngreeting = Changed'))
            self.assertEqual(greets(d.addr('web')), b'Changed')

    def test_every_error_is_told(self):
        with Echod(echo={}) as d:
            d.expect_log('reload failed')
            d.write_ini(d.text + 'one = 1\ntwo = 2\n')
            d.kill(signal.SIGHUP)
            d.wait_log('reload failed', 2)
            self.assertEqual([re.search(r'unknown key "(\w+)"', line.fields['error'].replace('\\', ''))[1]
                              for line in d.log_lines('reload failed')], ['one', 'two'])


class Signals(unittest.TestCase):

    def test_many(self):
        """Signals that come during a reload make one more, which reads what was written last."""
        with Echod(web={}, admin={}) as d:
            for number in range(30):
                d.write_ini(d.configuration(dict(web=dict(greeting=f'Number {number}'), admin={})))
                d.kill(signal.SIGHUP)
            d.wait_metrics(lambda m: greets(d.addr('web')) == b'Number 29')
            self.assertEqual(d.metrics()['echod_reloads_total', {'result': 'failure'}], 0)
            self.assertLessEqual(d.metrics()['echod_reloads_total', {'result': 'success'}], 30)

    def test_while_draining(self):
        for keys in dict(drain_delay='1h'), dict(drain_timeout='1h'):
            with self.subTest(keys=keys), Echod(server=keys, echo={}) as d:
                sock = d.connect('echo')
                sock.sendall(b'x')
                recv_same(sock, b'x', eof=False)
                d.kill()
                d.wait_log('not ready' if 'drain_delay' in keys else 'draining')
                d.kill(signal.SIGHUP)
                self.assertEqual(d.wait_log('reload ignored').fields, dict(reason='stopping'))
                sock.sendall(b'x')
                recv_same(sock, b'x', eof=False)
                d.kill()
                d.wait()

    def test_stop_at_any_moment(self):
        """SIGTERM soon after SIGHUP: a clean end, wherever the reload is."""
        for number in range(6 if instrumented() else 12):
            with Echod(server=dict(threads=2), echo={}, web={}) as d:
                d.write_ini(d.configuration(dict(server=dict(threads=2), echo={}, more={})))
                d.kill(signal.SIGHUP)
                if number % 3:
                    d.wait_log('listening no more' if number % 3 == 1 else 'reloaded')
                d.stop()


class Left(unittest.TestCase):
    """What a reload leaves behind: nothing."""

    def test_descriptors_and_memory(self):
        rounds = 10 if instrumented() else 40
        with Echod(server=dict(threads=2), echo={}, web={}) as d:
            sizes, live, fds = [], [], d.fds()
            for number in range(rounds):
                d.reload(server=dict(threads=2, access_log='@FOLDER@/log' if number % 4 else 'off'), echo={}, web={},
                         **{f'x{number % 5}-{i}': {} for i in range(5 * (number % 2))})
                if number % 10 == 5:
                    live.append(d.connect('echo'))
                if number % 2:
                    d.reload(server=dict(threads=2), echo={}, web={})
                if number % 10 == 9:
                    for sock in live:
                        sock.sendall(b'x')
                        sock.shutdown(socket.SHUT_WR)
                        recv_same(sock, b'x')
                        sock.close()
                    live.clear()
                    d.wait_fds(fds)
                    sizes.append(d.rss())
            if not instrumented():
                self.assertLess(sizes[-1] - sizes[0], 1 << 20, sizes)

    def test_only_what_is_used(self):
        """A connection keeps the generation alive that it began in, and not those in between."""
        if instrumented():
            self.skipTest('memory under instruments')
        def sections(number):
            return {'server': {}, 'echo': {}} | {f'{number}-{i}': dict(handler='greeting', greeting='x' * 150)
                                                 for i in range(150)}
        with Echod(**sections(0)) as d:
            old = d.connect('echo')
            old.sendall(b'x')
            recv_same(old, b'x', eof=False)
            sizes = []
            for number in range(1, 13):
                d.reload(**sections(number))
                sizes.append(d.rss())
            self.assertLess(max(sizes[4:]), sizes[3] + (5 << 19), sizes)
            old.sendall(b'x')
            old.shutdown(socket.SHUT_WR)
            recv_same(old, b'x')


# A resolver that takes its time: mounted over /etc/resolv.conf for the daemon alone, it answers when it is told to.

MS_BIND, MS_REC, MS_PRIVATE, CLONE_NEWNS = 4096, 16384, 1 << 18, 0x20000


class Resolver:

    def __init__(self):
        self.sock = socket.socket(type=socket.SOCK_DGRAM)
        self.sock.settimeout(TIMEOUT)
        self.asked = []
        try:
            self.sock.bind(('127.53.53.53', 53))
        except OSError as error:
            self.sock.close()
            raise unittest.SkipTest(f'no port 53: {error}') from error
        self.file = tempfile.NamedTemporaryFile('w', suffix='.conf')
        self.file.write('nameserver 127.53.53.53\noptions timeout:30 attempts:1\n')
        self.file.flush()

    def mount(self):
        """In the child that becomes the daemon."""
        libc = ctypes.CDLL(None)
        if libc.unshare(CLONE_NEWNS) or libc.mount(None, b'/', None, MS_REC | MS_PRIVATE, None) or \
           libc.mount(self.file.name.encode(), b'/etc/resolv.conf', None, MS_BIND, None):
            raise OSError('no mount namespace')

    def wait(self):
        """Until a name is asked for, by both families."""
        while len(self.asked) < 2:
            self.asked.append(self.sock.recvfrom(512))

    def answer(self, address=None):
        """The IPv4 address of the name that was asked for, or that there is none."""
        for query, peer in self.asked:
            question = query[12:query.index(b'\0', 12) + 5]
            v4 = address and question.endswith(b'\0\1\0\1')
            reply = query[:2] + struct.pack('!HHHHH', 0x8180 if address else 0x8183, 1, 1 if v4 else 0, 0, 0) + question
            if v4:
                reply += struct.pack('!HHHIH4s', 0xC00C, 1, 1, 0, 4, socket.inet_aton(address))
            self.sock.sendto(reply, peer)
        self.asked.clear()

    def close(self):
        self.sock.close()
        self.file.close()


class SlowNames(unittest.TestCase):
    """A name that takes long to resolve stops nothing."""

    @contextlib.contextmanager
    def start(self):
        resolver = Resolver()
        self.addCleanup(resolver.close)
        with contextlib.ExitStack() as stack:
            try:
                d = stack.enter_context(Echod(setup=resolver.mount, server=dict(threads=2), echo={}, admin={}))
            except Exception as error:      # subprocess.SubprocessError
                if 'preexec_fn' in str(error):
                    raise unittest.SkipTest(f'no mount namespace: {error}') from error
                raise
            d.write_ini(d.configuration(dict(server=dict(threads=2), echo={}, admin={},
                                             named=dict(address='slow.example:0'))))
            d.kill(signal.SIGHUP)
            resolver.wait()
            yield d, resolver

    def test_serves_meanwhile(self):
        with self.start() as (d, resolver):
            for _ in range(20):
                echoes(d.addr('echo'))
            self.assertEqual((d.get('/healthz').status, d.get('/readyz').status), (200, 200))
            d.kill(signal.SIGHUP)
            resolver.answer('127.0.0.1')
            d.wait_log('reloaded')
            echoes(d.addr('named'))
            resolver.wait()
            d.expect_log('reload failed')
            resolver.answer()
            self.assertRegex(d.wait_log('reload failed').fields['error'], r'echod\.ini:\d+: address: .*slow\.example')
            echoes(d.addr('named'))

    def test_stop_meanwhile(self):
        """Without waiting for the name."""
        with self.start() as (d, _):
            start = time.monotonic()
            d.stop()
            self.assertLess(time.monotonic() - start, 5 * SLOW)
            self.assertEqual(d.log_lines()[-1].message, 'stopped')


if __name__ == '__main__':
    unittest.main()
