"""The process: command line, exit status, signals and drain, threads, log."""

import http.client
import json
import os
import re
import signal
import socket
import subprocess
import tempfile
import time
import unittest

from harness import (COMMAND, REQUEST, SLOW, TIMEOUT, Clients, Echod, body, connect, echoes, fill, header, ini,
                     instrumented, parse_answers, parse_line, recv_all, recv_same, run, run_ini, silent,
                     stopped_worker, talk_echo, talk_once, wait_until)

KIB, MIB = 1024, 1024 * 1024


def gone(sock):
    """True if the peer closed the connection, in order or not, without a byte."""
    try:
        return sock.recv(1) == b''
    except ConnectionError:
        return True


class CommandLine(unittest.TestCase):

    def test_help(self):
        for option in '-h', '--help':
            done = run(option)
            self.assertEqual((done.returncode, done.stderr), (0, ''))
            for word in ('echod', '-c', '-t', '-T', '-V', '-h', '--config', '--test', '--dump', '--version', '--help'):
                self.assertIn(word, done.stdout)

    def test_version(self):
        for option in '-V', '--version':
            done = run(option)
            self.assertEqual((done.returncode, done.stderr), (0, ''))
            self.assertRegex(done.stdout, r'^echod \d+\.\d+')

    def test_wrong(self):
        """Status 2, at least one line on stderr, nothing on stdout."""
        for args in (['-x'], ['--nonsense'], ['-c'], ['--config'], ['operand'], ['-t', 'operand'], ['--test=x'],
                     ['-c', '/nonexistent/echod.ini'], ['-t', '-c', '/nonexistent/echod.ini'], ['-t', '-c', '/'],
                     ['-T', '-c', '']):
            with self.subTest(args=args):
                done = run(*args)
                self.assertEqual((done.returncode, done.stdout), (2, ''))
                self.assertRegex(done.stderr, r'\n\Z')

    def test_test(self):
        for option in '-t', '--test':
            done = run_ini(ini(), option)
            self.assertEqual((done.returncode, done.stderr), (0, ''))
            self.assertEqual(done.stdout, 'echod.ini: configuration is valid\n')

    def test_dump(self):
        """Every key, its value as parsed, where it came from; the dump is itself a valid file of the same values."""
        text = '[server]\n\nthreads = 3\n[listener echo]\naddress=127.0.0.1:0\nhandler=echo\n'
        dump = run_ini(text, '-T')
        self.assertEqual((dump.returncode, dump.stderr), (0, ''))
        self.assertEqual(dump.stdout, run_ini(text, '--dump').stdout)
        for line in ('[server]', 'threads = 3 ; echod.ini:3', 'max_connections = 10000 ; default', '[listener echo]',
                     'address = 127.0.0.1:0 ; echod.ini:5', 'handler = echo ; echod.ini:6'):
            self.assertIn(line, re.sub(' +;', ' ;', dump.stdout).splitlines())
        again = run_ini(dump.stdout, '-T')
        self.assertEqual((again.returncode, again.stderr), (0, ''))
        self.assertEqual(*(re.sub(' +; .*', '', text) for text in (again.stdout, dump.stdout)))

    def test_bad_configuration(self):
        done = run_ini(ini(server=dict(threads=0), echo={}))
        self.assertEqual((done.returncode, done.stdout), (2, ''))
        self.assertRegex(done.stderr, r'\Aechod\.ini:2: .*threads.*\n\Z')


class Failures(unittest.TestCase):
    """What fails at run time: status 1 and a sentence, not READY."""

    def fails(self, text, pattern):
        done = run_ini(text)
        self.assertEqual((done.returncode, done.stdout), (1, ''), done.stderr)
        self.assertRegex(done.stderr, pattern)
        self.assertNotIn(' ready ', done.stderr)

    def test_address_in_use(self):
        """Also by another echod with threads, whose sockets have SO_REUSEPORT: never shared with a second daemon."""
        for threads in 1, 2:
            with self.subTest(threads=threads), Echod(server=dict(threads=threads), echo={}) as d:
                address = '%s:%d' % d.addr('echo')
                self.fails(ini(server=dict(threads=threads), echo=dict(address=address)), re.escape(address))
        with socket.create_server(('127.0.0.1', 0)) as other:
            address = '%s:%d' % other.getsockname()
            self.fails(ini(server=dict(threads=2), echo=dict(address=address)), re.escape(address))

    def test_started_together(self):
        """Of several started at one moment on one address at most one gets it, with threads too."""
        for _ in range(2 if instrumented() else 20):
            with socket.socket() as sock, tempfile.NamedTemporaryFile('w', suffix='.ini') as file:
                sock.bind(('127.0.0.1', 0))
                file.write(ini(server=dict(threads=8), echo=dict(address='%s:%d' % sock.getsockname())))
                file.flush()
                sock.close()
                started = [subprocess.Popen([*COMMAND, '-c', file.name], stderr=subprocess.PIPE) for _ in range(4)]
                try:
                    ready = [any(b' ready ' in line for line in process.stderr) for process in started]
                finally:
                    for process in started:
                        process.terminate()
                        process.communicate(timeout=TIMEOUT)
                self.assertLessEqual(sum(ready), 1)

    def test_address_not_ours(self):
        self.fails(ini(echo=dict(address='192.0.2.1:0')), r'192\.0\.2\.1')

    def test_access_log(self):
        self.fails(ini(server=dict(access_log='/nonexistent/access.log'), web={}), '/nonexistent/access.log')

    def test_restart(self):
        """An address whose last connections are in TIME_WAIT is free at once (SO_REUSEADDR)."""
        with socket.socket() as held:       # so that nobody else gets the port in between
            held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            held.bind(('127.0.0.1', 0))
            address = held.getsockname()
            for _ in range(2):
                with Echod(web=dict(address='%s:%d' % address)) as d:
                    self.assertEqual(d.addr('web'), address)
                    sock = d.connect('web')
                    sock.sendall(b'GET / HTTP/1.0\r\n\r\n')
                    recv_all(sock)


class Stop(unittest.TestCase):

    def refused(self, address):
        """Waits until the listening socket is closed."""
        end = time.monotonic() + TIMEOUT
        while time.monotonic() < end:
            try:
                connect(address).close()
            except ConnectionRefusedError:
                return
            except ConnectionError:
                pass
        self.fail('still accepting')

    def test_signals(self):
        for number in signal.SIGTERM, signal.SIGINT:
            with self.subTest(number=number), Echod() as d:
                d.stop(number)
                self.assertEqual([line.message for line in d.log_lines()][-2:], ['draining', 'stopped'])

    def test_sigpipe_ignored(self):
        with Echod() as d:
            d.kill(signal.SIGPIPE)
            d.turn()

    def test_drain_finishes(self):
        """A request in flight is answered and told to close; new connections are refused; an idle one does not wait."""
        for threads in 1, 3:
            with self.subTest(threads=threads), Echod(server=dict(threads=threads)) as d:
                busy, idle = d.connect('web'), d.connect('web')
                for sock in busy, idle:
                    sock.sendall(REQUEST)
                    answer = b''
                    while not answer.endswith(b'Hello, Ada'):
                        answer += sock.recv(4096)
                busy.sendall(REQUEST[:20])
                if threads == 1:
                    d.turn()
                d.kill()
                d.wait_log('draining')
                self.refused(d.addr('web'))
                self.refused(d.addr('echo'))
                self.assertEqual(recv_all(idle), b'')
                idle.close()
                if threads == 1:        # else nothing tells whether the half was read before the signal
                    silent(busy, 0.1)
                    busy.sendall(REQUEST[20:])
                    answer, = parse_answers(recv_all(busy))
                    self.assertEqual(answer.body, b'Hello, Ada')
                    self.assertIn(('Connection', 'close'), answer.headers)
                busy.close()
                if d.probe:
                    d.probe.close()
                d.wait()

    def test_drain_first_request(self):
        """Who has just connected is about to ask, and is answered; a while later who did not ask is closed."""
        with Echod() as d:
            asked, asking, quiet = (d.connect('web') for _ in range(3))
            asked.sendall(REQUEST)
            http.client.HTTPResponse(asked).begin()
            d.turn()
            d.kill()
            recv_all(asked)             # idle, so that it closes when the others are told
            asking.sendall(REQUEST)
            answer, = parse_answers(recv_all(asking))
            self.assertEqual((answer.status, header(answer, 'Connection')), (200, 'close'))
            self.assertEqual(recv_all(quiet), b'')
            for sock in asked, asking, quiet, d.probe:
                sock.close()
            d.wait()

    def test_drain_queued(self):
        """Connections in the backlog and requests still unread when the signal comes are served, not reset."""
        for threads in 1, 3:
            with self.subTest(threads=threads), Echod(server=dict(threads=threads), web={}) as d:
                kept = [d.connect('web') for _ in range(4)]
                for sock in kept:
                    sock.sendall(REQUEST)
                    http.client.HTTPResponse(sock).begin()
                d.kill(signal.SIGSTOP)
                os.waitid(os.P_PID, d.process.pid, os.WSTOPPED | os.WNOWAIT)
                queued = kept + [d.connect('web') for _ in range(20)]
                for sock in queued:
                    sock.sendall(REQUEST)
                d.kill(signal.SIGTERM)
                d.kill(signal.SIGCONT)
                for sock in queued:
                    answer, = parse_answers(recv_all(sock))
                    self.assertEqual(answer.body, b'Hello, Ada')
                    sock.close()
                d.wait()

    def test_drain_echo(self):
        """A stream that its peer has ended comes back whole, though the peer reads only after the signal."""
        data = os.urandom(300 * KIB)
        with Echod(echo={}) as d:
            sock = d.connect('echo', buffers=16 * KIB)
            sent, = fill([sock], data)
            sock.shutdown(socket.SHUT_WR)
            d.turn()
            d.kill()
            d.wait_log('draining')
            recv_same(sock, data[:sent])
            sock.close()
            d.probe.close()
            d.wait()

    def test_under_load(self):
        """Who is connected while it stops is served in full; who comes later is refused; nobody is reset."""
        for threads, delay in ((1, '0'), (3, '0'), (2, f'{round(1000 * SLOW)}ms')):
            with self.subTest(threads=threads, delay=delay), \
                 Echod(server=dict(threads=threads, drain_delay=delay, log_level='info'), echo={}, web={}) as d, \
                 Clients(d.addr('echo'), talk_echo, 4, may_be_refused=True) as echo, \
                 Clients(d.addr('web'), talk_once, 4, may_be_refused=True) as web:
                echo.wait(3)
                web.wait(3)
                d.kill()
                if delay != '0':
                    echo.wait(3)
                d.wait()

    def test_new_connection(self):
        """One whose first request comes a moment after the signal is answered, and told that it is the last."""
        with Echod(web={}) as d:
            fds = d.fds()
            sock = d.connect('web')
            d.wait_fds(fds + 1)
            d.kill()
            d.wait_log('draining')
            d.wait_fds(fds)         # it has closed its listener, so it knows
            sock.sendall(REQUEST)
            answer, = parse_answers(recv_all(sock))
            self.assertIn(('Connection', 'close'), answer.headers)
            sock.close()
            d.wait()

    def test_drain_timeout(self):
        """What does not finish is cut, and the stop is still a clean one."""
        with Echod(server=dict(drain_timeout='300ms')) as d:
            web, echo = d.connect('web'), d.connect('echo', buffers=16 * KIB)
            web.sendall(REQUEST[:20])
            fill([echo], bytes(64 * MIB))
            d.turn()
            start = time.monotonic()
            d.kill()
            d.wait()
            self.assertTrue(0.29 < time.monotonic() - start < 0.3 + 5 * SLOW)
            for listener in 'web', 'echo':
                self.assertTrue(d.log_lines('closed', listener=listener, reason='drain'), listener)
            self.assertEqual(d.log_lines()[-1].message, 'stopped')

    def test_second_signal(self):
        for first, second in ((signal.SIGTERM, signal.SIGTERM), (signal.SIGINT, signal.SIGTERM)):
            with self.subTest(first=first, second=second), Echod(server=dict(drain_timeout='1h')) as d:
                sock = d.connect('web')
                sock.sendall(REQUEST[:20])
                d.turn()
                d.kill(first)
                line = d.wait_log('draining')
                self.assertIn('timeout', line.fields)
                self.assertGreaterEqual(int(line.fields['connections']), 1)
                silent(sock, 0.1)
                d.kill(second)
                d.wait(0)
                self.assertTrue(gone(sock))


class Threads(unittest.TestCase):

    def test_threads(self):
        with Echod(server=dict(threads=4)) as d:
            self.assertEqual(d.wait_log('ready').fields, dict(listeners='2', threads='4'))
            self.assertGreaterEqual(len(os.listdir(f'/proc/{d.process.pid}/task')), 4)
            socks = [(d.connect('echo'), d.connect('web')) for _ in range(64)]
            for echo, web in socks:
                echo.sendall(b'four')
                web.sendall(REQUEST)
                web.shutdown(socket.SHUT_WR)
            for echo, web in socks:
                recv_same(echo, b'four', eof=False)
                self.assertEqual(parse_answers(recv_all(web))[0].body, b'Hello, Ada')

    def test_auto(self):
        with Echod(server=dict(threads='auto')) as d:
            d.turn()
            self.assertGreaterEqual(int(d.wait_log('ready').fields['threads']), 1)


class Log(unittest.TestCase):

    def test_order(self):
        """The addresses really bound, then ready."""
        with Echod() as d:
            lines = d.log_lines()[:3]
            self.assertEqual([(line.level, line.message) for line in lines],
                             [('notice', 'listening'), ('notice', 'listening'), ('notice', 'ready')])
            self.assertEqual([line.fields.get('listener') for line in lines], ['echo', 'web', None])
            self.assertTrue(all(port > 0 for name in ('echo', 'web') for _, port in d.addrs(name)))

    def test_levels(self):
        """Each shows its own lines and those above it; at warning a clean run says nothing."""
        for level, closed in (('debug', 1), ('info', 0), ('notice', 0)):
            with self.subTest(level=level), Echod(server=dict(log_level=level), echo={}) as d:
                with d.connect('echo') as sock:
                    self.assertTrue(echoes(sock))
                d.stop()
                self.assertEqual(len(d.log_lines('closed')), closed)

    def test_json(self):
        with Echod(server=dict(log_format='json')) as d:
            with d.connect('web') as sock:
                sock.sendall(REQUEST.replace(b'1.1', b'1.0'))
                recv_all(sock)
            d.wait_log('closed')
            d.stop()
            objects = [json.loads(line.raw) for line in d.log_lines()]
            for item in objects:
                self.assertRegex(item['time'], r'^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$')
                self.assertIn(item['level'], ('notice', 'info', 'debug'))
            self.assertEqual(objects[0]['listener'], 'echo')
            self.assertEqual([item['message'] for item in objects if item['level'] != 'info'],
                             ['listening', 'listening', 'ready', 'closed', 'draining', 'stopped'])

    def test_finished(self):
        """What the server closes is told once, errors too."""
        for raw in REQUEST.replace(b'1.1', b'1.0'), REQUEST.replace(b'Ada', b'%zz'), b'nonsense\r\n\r\n':
            with self.subTest(raw=raw), Echod(web={}) as d:
                with d.connect('web') as sock:
                    sock.sendall(raw)
                    got = len(recv_all(sock))
                d.wait_log('closed', listener='web', reason='finished', bytes_in=len(raw), bytes_out=got)
                d.stop()
                self.assertEqual(len(d.log_lines('closed')), 1)


class Journal(unittest.TestCase):
    """Lines begin with their priority when the journal reads them, and only then (sd-daemon(3))."""

    WORDS = 'sh', '-c', 'JOURNAL_STREAM=$(stat -Lc %d:%i /proc/self/fd/2) exec "$@"', 'sh'

    def test_priorities(self):
        for log_format in 'text', 'json':
            server = dict(log_format=log_format, access_log='stderr', max_connections=1)
            with self.subTest(log_format=log_format), Echod(words=self.WORDS, server=server, web={}) as d:
                d.expect_log('connection refused')
                with d.connect('web') as sock:
                    sock.sendall(REQUEST)
                    self.assertEqual(body(sock), b'Hello, Ada')
                    recv_all(d.connect('web'))
                d.reload_fails('nonsense', d.text + 'nonsense = 1\n')
                d.stop()
                priorities = dict(listening='5', ready='5', request='6', closed='7', stopped='5')
                for message, priority in priorities.items() | {('connection refused', '4'), ('reload failed', '3')}:
                    line = d.log_lines(message)[0]
                    rest = '{"time":' if log_format == 'json' else message
                    self.assertTrue(line.raw.startswith(f'<{priority}>{rest}'), line.raw)
                self.assertTrue(all(re.match('<[3-7]>', line.raw) for line in d.log_lines()))

    def test_wrong_configuration(self):
        with tempfile.NamedTemporaryFile('w', suffix='.ini') as file:
            file.write('nonsense\n')
            file.flush()
            done = subprocess.run([*self.WORDS, *COMMAND, '-c', file.name], stderr=subprocess.PIPE, check=False)
        self.assertEqual(done.returncode, 2)
        self.assertIn(f'<3>{file.name}:1: '.encode(), done.stderr)

    def test_another_stream(self):
        with Echod(environment=dict(JOURNAL_STREAM='1:1'), web={}) as d:
            self.assertFalse(d.log_lines(lambda line: line.raw.startswith('<')))

    def test_file(self):
        """What goes to a file has its time, whoever reads stderr."""
        with Echod(words=self.WORDS, server=dict(access_log='@FOLDER@/log'), web={}) as d:
            with d.connect('web') as sock:
                sock.sendall(REQUEST)
                body(sock)
            d.stop()
            with open(d.path('log'), encoding='ascii') as file:
                self.assertRegex(file.read(), r'^\d{4}-')


class AccessLog(unittest.TestCase):
    """One line a request, to stderr or a file, and nothing from a stranger's request unescaped."""

    ASKED = ((b'/', '200'), (b'/Ada?x=1', '200'), (b'/a/b', '404'), (b'/%1b%0a', '400'))

    def ask(self, d):
        with d.connect('web') as sock:      # keep-alive, but for what ends the connection
            for target, _ in self.ASKED:
                sock.sendall(b'GET %s HTTP/1.1\r\nHost: localhost\r\n\r\n' % target)
            sock.shutdown(socket.SHUT_WR)
            self.assertEqual([str(a.status) for a in parse_answers(recv_all(sock))], [s for _, s in self.ASKED])

    def check(self, lines):
        self.assertEqual(len(lines), len(self.ASKED), lines)
        for line, (target, status) in zip(lines, self.ASKED):
            self.assertEqual((line.level, line.fields['method'], line.fields['target'], str(line.fields['status'])),
                             ('access', 'GET', target.decode(), status))
            self.assertRegex(line.fields['peer'], r'^127\.0\.0\.1:\d+$')
            self.assertRegex(line.raw, r'^[ -~]*$')

    def test_stderr(self):
        with Echod(server=dict(access_log='stderr'), web={}) as d:
            self.ask(d)
            d.stop()
            self.check([line for line in d.log_lines() if line.level == 'access'])

    def test_file(self):
        """Appended to, never cut."""
        for log_format in 'text', 'json':
            with Echod(server=dict(access_log='@FOLDER@/access.log', log_format=log_format), web={}) as d:
                for _ in range(2):
                    self.ask(d)
                d.stop()
                self.assertFalse([line for line in d.log_lines() if line.level == 'access'])
                with open(d.path('access.log'), encoding='ascii', newline='\n') as file:
                    lines = [parse_line(raw) for raw in file.read().splitlines()]
                self.check(lines[:len(self.ASKED)])
                self.check(lines[len(self.ASKED):])

    def test_refused(self):
        """As much as is known of the request."""
        short = f'{round(400 * SLOW)}ms'
        web = dict(max_target=64, max_body=10, max_header_size=256, header_timeout=short, body_timeout=short)
        put = b'PUT /put HTTP/1.1\r\nHost: a\r\nUser-Agent: me\r\n'
        cases = ((put + b'Content-Length: 11\r\n\r\n', ('PUT', '413', '/put', 'me')),
                 (put + b'Transfer-Encoding: chunked\r\n\r\nb\r\nhello world\r\n', ('PUT', '413', '/put', 'me')),
                 (put + b'Transfer-Encoding: chunked\r\n\r\nx', ('PUT', '400', '/put', 'me')),
                 (put + b'Content-Length: 5\r\n\r\n', ('PUT', '408', '/put', 'me')),
                 (b'GET /alone HTTP/1.1\r\nUser-Agent: me\r\n\r\n', ('GET', '400', '/alone', 'me')),
                 (b'BREW /pot HTTP/1.1\r\nHost: a\r\n\r\n', ('BREW', '501', '/pot', '-')),
                 (b'GET /bad HTTP/1.1\r\nUser-Agent: me\r\nHost\r\n\r\n', ('GET', '400', '/bad', '-')),
                 (b'\r\nGET /big HTTP/1.1\r\nX: ' + b'x' * 300, ('GET', '431', '/big', '-')),
                 (b'GET /' + b'x' * 70, ('-', '414', '-', '-')),
                 (b'GET / HTTP/1.2\r\n', ('-', '505', '-', '-')),
                 (b'GET / HTTP/1.1\r\nHo', ('-', '408', '-', '-')))
        with Echod(server=dict(access_log='stderr'), web=web) as d:
            for number, (sent, want) in enumerate(cases, 1):
                with self.subTest(sent=sent), d.connect('web') as sock:
                    sock.sendall(sent)
                    self.assertEqual(str(parse_answers(recv_all(sock))[0].status), want[1])
                    line = d.wait_log('request', number)
                    self.assertEqual(tuple(line.fields[key] for key in ('method', 'status', 'target', 'agent')), want)
            with d.connect('web') as sock:
                sock.sendall(put + b'Content-Length: 5\r\n\r\n1')
                sock.shutdown(socket.SHUT_WR)
                recv_all(sock)
            fields = d.wait_log('request', len(cases) + 1).fields
            self.assertEqual((fields['status'], fields['target']), ('400', '/put'))

    def test_silent(self):
        """Health checks that only connect leave no line, but at debug."""
        with Echod(server=dict(log_level='info', access_log='stderr')) as d:
            before = len(d.log_lines())
            for name in 'echo', 'web':
                for _ in range(3):
                    d.connect(name).close()
            d.turn()
            self.ask(d)
            d.wait_log('request', 4)
            d.stop()
            self.assertEqual({line.message for line in d.log_lines()[before:]}, {'request', 'draining', 'stopped'})

    def test_rotated(self):
        """SIGUSR1 after a rename: what comes then is in the new file, and no line is lost or cut."""
        for threads in 1, 3:
            server = dict(threads=threads, access_log='@FOLDER@/log')
            with self.subTest(threads=threads), Echod(server=server, web={}) as d:
                socks = [d.connect('web') for _ in range(6)]
                for number in range(1, 9):
                    for i, sock in enumerate(socks):
                        sock.sendall(b''.join(REQUEST.replace(b'Ada', b'%d-%d-%d' % (i, number, k)) for k in range(40)))
                    os.rename(d.path('log'), d.path(f'log.{number}'))
                    d.kill(signal.SIGUSR1)
                    d.wait_log('access log reopened', number, path=d.path('log'))
                    wait_until(lambda: os.path.exists(d.path('log')), lambda: 'not reopened')
                for sock in socks:
                    sock.shutdown(socket.SHUT_WR)
                    self.assertEqual(len(parse_answers(recv_all(sock))), 8 * 40)
                with d.connect('web') as sock:
                    sock.sendall(REQUEST)
                    body(sock)
                d.stop()
                names = [f'log.{number}' for number in range(1, 9)] + ['log']
                texts = [self.read(d, name) for name in names]
                self.assertIn('target=/Ada', texts[-1])
                self.assertTrue(all(text.endswith('\n') for text in texts if text))
                for i in range(6):
                    found = re.findall(rf' target=/{i}-(\d)-(\d+) ', ''.join(texts))
                    self.assertEqual(found, [(str(number), str(k)) for number in range(1, 9) for k in range(40)])

    def read(self, d, name):
        with open(d.path(name), encoding='ascii') as file:
            return file.read()

    def test_rotated_while_a_loop_stands(self):
        """Files that were opened for a thread that did not come round to them are closed again."""
        with Echod(server=dict(threads=2, access_log='@FOLDER@/log'), web={}) as d:
            fds = d.fds()
            with stopped_worker(d):
                for number in range(1, 4):
                    d.kill(signal.SIGUSR1)
                    d.wait_log('access log reopened', number)
            d.wait_fds(fds)
            self.ask(d)
            d.stop()
            self.assertEqual(self.read(d, 'log').count('\n'), len(self.ASKED))

    def test_cannot_be_reopened(self):
        """Then the old file goes on."""
        with Echod(server=dict(access_log='@FOLDER@/log'), web={}) as d:
            d.expect_log('cannot reopen the access log path=.*log error="Is a directory"')
            os.rename(d.path('log'), d.path('old'))
            os.mkdir(d.path('log'))
            d.kill(signal.SIGUSR1)
            d.wait_log('cannot reopen the access log')
            self.ask(d)
            d.stop()
            self.assertEqual(self.read(d, 'old').count('\n'), len(self.ASKED))

    def test_nothing_to_reopen(self):
        with Echod(web={}) as d:
            d.kill(signal.SIGUSR1)
            d.reload()
            d.stop()
            self.assertFalse(d.log_lines('access log reopened'))


if __name__ == '__main__':
    unittest.main()
