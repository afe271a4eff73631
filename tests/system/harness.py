"""Runs the real echod and talks to it over real sockets.

    with Echod(server=dict(threads=2), echo=dict(idle_timeout='200ms')) as d:
        s = d.connect('echo')

The keywords are the sections of the INI file: "server", and one for each listener ("echo" and "web" when none is
named).  A listener binds 127.0.0.1:0 and its real port is read from the log, so any number of tests run side by side.
The names "web" and "admin" stand for the handlers greeting and admin, any other for echo.
No test sleeps: it waits for bytes, for a log line, for a metric or for a descriptor, always with a deadline.

Leaving the block closes the sockets made by connect(), stops the daemon with SIGTERM, and asserts exit status 0 and a
clean log: no sanitizer or valgrind report, no warning or error that was not announced by expect_log().

Environment: ECHOD, the binary (top_builddir/echod); ECHOD_WRAPPER, words in front of it, such as "valgrind -q
--error-exitcode=99"; ECHOD_TEST_SLOW, a factor for every deadline (1).
"""

import collections
import contextlib
import ctypes
import fcntl
import http.client
import json
import os
import re
import resource
import select
import shlex
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
import unittest

SOURCE = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BINARY = os.path.abspath(os.environ.get('ECHOD', os.path.join(os.environ.get('top_builddir', '.'), 'echod')))
COMMAND = shlex.split(os.environ.get('ECHOD_WRAPPER', '')) + [BINARY]
SLOW = float(os.environ.get('ECHOD_TEST_SLOW', '1'))
TIMEOUT = 10 * SLOW


def instrumented():
    """True under valgrind or a sanitizer, where memory and CPU figures say nothing about echod."""
    if len(COMMAND) > 1:
        return True
    with open(BINARY, 'rb') as binary:
        return re.search(rb'__(a|t|m|ub)san_', binary.read()) is not None


def wait_until(condition, why, timeout=TIMEOUT):
    """For what tells nobody that it has come.  WHY gives the sentence when it does not come."""
    end = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > end:
            raise AssertionError(why())
        time.sleep(0.001)


# Configuration and one-shot runs

HANDLERS = {'web': 'greeting', 'admin': 'admin'}


def ini(**sections):
    """The INI text of SECTIONS; their names choose the handlers, as above."""
    if not sections.keys() - {'server'}:
        sections.update(echo={}, web={})
    text = []
    for name, keys in sections.items():
        if name == 'server':
            text.append('[server]')
        else:
            text.append(f'[listener {name}]')
            keys = {'address': '127.0.0.1:0', 'handler': HANDLERS.get(name, 'echo')} | keys
        text += [f'{key} = {value}' for key, value in keys.items()]
    return '\n'.join(text) + '\n'


# valgrind's banner; a sanitizer's report has no space behind ==PID==.
BANNER = re.compile(r'==\d+==(?! ERROR SUMMARY: [1-9])( .*)?$')


def run(*args, timeout=TIMEOUT, **options):
    """Runs `echod ARGS` to its end and gives the CompletedProcess, as text, valgrind's banner taken off."""
    done = subprocess.run([*COMMAND, *args], stdin=subprocess.DEVNULL, capture_output=True, encoding='utf-8',
                          errors='backslashreplace', timeout=timeout, **options)
    done.stderr = ''.join(line for line in done.stderr.splitlines(True) if not BANNER.match(line.rstrip('\n')))
    return done


def run_ini(text, *args, **options):
    """run() with TEXT as the configuration file "echod.ini" of a current directory made for it."""
    with tempfile.TemporaryDirectory(prefix='echod-test-') as folder:
        with open(os.path.join(folder, 'echod.ini'), 'wb') as file:
            file.write(text if isinstance(text, bytes) else text.encode())
        return run('-c', 'echod.ini', *args, cwd=folder, **options)


# Log lines

Line = collections.namedtuple('Line', 'raw time level message fields')

JOURNAL_LINE = re.compile(r'<([3-7])>(.*)')
PRIORITIES = {'3': 'error', '4': 'warning', '5': 'notice', '6': 'info', '7': 'debug'}
TEXT_LINE = re.compile(r'(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z) (error|warning|notice|info|debug|access) (.*)')
FIELD = re.compile(r' (\w+)=("(?:[^"\\]|\\.)*"|[^ ]*)')


def parse_line(raw):
    """One line of stderr; its level is None if it is no log line."""
    match = JOURNAL_LINE.fullmatch(raw)
    if match:
        text = match[2] if match[2].startswith('{') else f'0000-00-00T00:00:00.000Z {PRIORITIES[match[1]]} {match[2]}'
        return parse_line(text)._replace(raw=raw)
    if raw.startswith('{'):
        fields = json.loads(raw)
        return Line(raw, *(fields.pop(key) for key in ('time', 'level', 'message')), fields)
    match = TEXT_LINE.fullmatch(raw)
    if not match:
        return Line(raw, None, None, None, {})
    message, *_ = re.split(FIELD, match[3], maxsplit=1)
    fields = {key: value.strip('"') for key, value in FIELD.findall(match[3])}
    return Line(raw, match[1], match[2], message, fields)


def matches(line, what, fields):
    """WHAT is the message or a predicate; FIELDS compare as text."""
    if not (what(line) if callable(what) else what in (None, line.message)):
        return False
    return all(str(line.fields.get(key)) == str(value) for key, value in fields.items())


# Hands over sockets as systemd does: as descriptors from 3 on, told by the environment (sd_listen_fds(3)).
ACTIVATE = """
import fcntl, os, sys
count = int(os.environ['LISTEN_FDS'])
for to, fd in enumerate([fcntl.fcntl(int(fd), fcntl.F_DUPFD, 100) for fd in sys.argv[1:1 + count]], 3):
    os.dup2(fd, to)
os.closerange(3 + count, 200)
os.environ['LISTEN_PID'] = str(os.getpid())
os.execvp(sys.argv[1 + count], sys.argv[1 + count:])
"""


def activation(activated):
    """The words in front of the command, and the options of Popen, that hand over ACTIVATED: pairs of name, socket."""
    fds = [sock.fileno() for _, sock in activated]
    names = dict(LISTEN_FDS=str(len(fds)), LISTEN_FDNAMES=':'.join(name for name, _ in activated))
    return [sys.executable, '-c', ACTIVATE, *map(str, fds)], dict(env=os.environ | names, pass_fds=fds)


class Echod:
    """One running daemon.

    NOFILE is its RLIMIT_NOFILE; ENVIRONMENT is added to ours; ACTIVATED are pairs of a name and a listening socket that
    are handed over as by systemd; WATCHDOG are the microseconds of WATCHDOG_USEC; NOTIFIED: what sd_notify(3) tells is
    kept, for wait_told().  SETUP is called in the child, and WORDS stand in front of the command.
    """

    def __init__(self, nofile=None, environment=None, activated=(), watchdog=None, notified=False, setup=None, words=(),
                 **sections):
        self.text = self.configuration(sections)
        self.nofile, self.setup, self.words = nofile, setup, words
        self.environment, self.activated = environment or {}, activated
        if watchdog:
            self.environment['WATCHDOG_USEC'] = str(watchdog)
        self.notified = notified or bool(watchdog)
        self.told = []                  # what sd_notify(3) told, one dict a message; guarded by news
        self.sockets = []               # to be closed before the daemon is stopped
        self.probe = None
        self.lines = []                 # guarded by news, like ended
        self.ended = False
        self.news = threading.Condition()
        self.announced, self.allowed = [], []

    # Life

    def __enter__(self):
        self.folder = tempfile.TemporaryDirectory(prefix='echod-test-')
        self.write_ini(self.text)
        words, options = activation(self.activated) if self.activated else (self.words, dict(env=dict(os.environ)))
        options['env'] |= self.environment
        if self.notified:
            self.listen_to_notices(options['env'])
        self.process = subprocess.Popen([*words, *COMMAND, '-c', self.path('echod.ini')], stdin=subprocess.DEVNULL,
                                        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, preexec_fn=self.prepare,
                                        **options)
        with contextlib.suppress(OSError):      # so that no line is lost while our reader stands still
            fcntl.fcntl(self.process.stderr, fcntl.F_SETPIPE_SZ, 1 << 20)
        self.reader = threading.Thread(target=self.read_stderr)
        self.reader.start()
        try:
            self.wait_log('ready')
        except BaseException:
            self.release()
            raise
        return self

    def __exit__(self, kind, error, traceback):
        try:
            if error:
                error.add_note(self.log())
            elif self.process.returncode is None:
                self.stop()
        finally:
            self.release()
        if not error:
            self.assert_clean()

    def release(self):
        for sock in self.sockets:
            sock.close()
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self.reader.join()
        if self.notified:
            self.notices.shutdown(socket.SHUT_RD)
            self.listener.join()
            self.notices.close()
        self.folder.cleanup()

    def prepare(self):
        """In the child, before it becomes echod."""
        if self.nofile:
            resource.setrlimit(resource.RLIMIT_NOFILE, (self.nofile, self.nofile))
        if self.setup:
            self.setup()

    def path(self, name):
        """A path in the daemon's own folder; in the configuration it is written @FOLDER@/NAME."""
        return os.path.join(self.folder.name, name)

    def kill(self, number=signal.SIGTERM):
        self.process.send_signal(number)

    def wait(self, status=0):
        """Waits for the end, asserts the exit status, and that stderr was read to its end."""
        try:
            got = self.process.wait(TIMEOUT)
        except subprocess.TimeoutExpired:
            raise AssertionError('echod does not stop\n' + self.log()) from None
        self.reader.join()
        if got != status:
            raise AssertionError(f'exit status {got}, not {status}\n{self.log()}')

    def stop(self, number=signal.SIGTERM, status=0):
        """Closes the sockets of connect(), then ends the daemon."""
        for sock in self.sockets:
            sock.close()
        self.kill(number)
        self.wait(status)

    # Configuration

    @staticmethod
    def configuration(sections):
        """SECTIONS as keywords, or a text as it is."""
        if isinstance(sections, str):
            return sections
        return ini(**sections | {'server': {'log_level': 'debug'} | sections.get('server', {})})

    def write_ini(self, text):
        """As a whole: who reads it meanwhile gets the old one."""
        with open(self.path('echod.ini.new'), 'w', encoding='utf-8') as file:
            file.write(text.replace('@FOLDER@', self.folder.name))
        os.replace(file.name, self.path('echod.ini'))

    def reload(self, text=None, **sections):
        """Reloads with another file, unless none is given, and waits until it is in force."""
        if text or sections:
            self.write_ini(self.configuration(text or sections))
        before = len(self.log_lines('reloaded'))
        self.kill(signal.SIGHUP)
        self.wait_log('reloaded', before + 1)

    def reload_fails(self, pattern, text=None, **sections):
        """Reloads with a file that is wrong; the log must say so."""
        if text or sections:
            self.write_ini(self.configuration(text or sections))
        before = len(self.log_lines('reload failed'))
        self.expect_log('reload failed')
        self.kill(signal.SIGHUP)
        line = self.wait_log('reload failed', before + 1)
        if not re.search(pattern, line.fields['error']):
            raise AssertionError(f'{line.raw}\n has no {pattern}')

    # What sd_notify(3) tells

    def listen_to_notices(self, environment):
        self.notices = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.notices.bind(self.path('notify'))
        environment['NOTIFY_SOCKET'] = self.path('notify')
        self.listener = threading.Thread(target=self.read_notices)
        self.listener.start()

    def read_notices(self):
        while message := self.notices.recv(4096):
            fields = dict(line.split('=', 1) for line in message.decode().splitlines())
            with self.news:
                self.told.append(fields | {'at': time.monotonic()})
                self.news.notify_all()

    def wait_told(self, since=0, **patterns):
        """Waits for a message that has these fields, from number SINCE on; gives its number and itself."""
        end = time.monotonic() + TIMEOUT
        with self.news:
            while True:
                for number, fields in enumerate(self.told[since:], since):
                    if all(re.fullmatch(pattern, fields.get(key, '')) for key, pattern in patterns.items()):
                        return number, fields
                if not self.news.wait(end - time.monotonic()):
                    raise AssertionError(f'not told: {patterns}, but {self.told[since:]}')

    # Log

    def read_stderr(self):
        with self.process.stderr as stream:
            for raw in stream:
                line = parse_line(raw.decode('utf-8', 'backslashreplace').rstrip('\n'))
                with self.news:
                    self.lines.append(line)
                    self.news.notify_all()
        with self.news:
            self.ended = True
            self.news.notify_all()

    def log(self):
        with self.news:
            return '--- log of echod\n' + '\n'.join(line.raw for line in self.lines)

    def log_lines(self, what=None, **fields):
        with self.news:
            return [line for line in self.lines if matches(line, what, fields)]

    def wait_log(self, what, count=1, **fields):
        """Waits for COUNT lines of that message (or predicate) and fields in the whole log; gives the last of them."""
        end = time.monotonic() + TIMEOUT
        with self.news:
            while True:
                found = [line for line in self.lines if matches(line, what, fields)]
                if len(found) >= count:
                    return found[count - 1]
                if self.ended or not self.news.wait(end - time.monotonic()):
                    break
        raise AssertionError(f'{len(found)} of {count} log lines {what} {fields}\n{self.log()}')

    def expect_log(self, pattern):
        """Announces lines that would make the log unclean; one at least must come."""
        self.announced.append(pattern)

    def may_log(self, pattern):
        """The same of lines that need not come."""
        self.allowed.append(pattern)

    def assert_clean(self):
        missing, dirty = set(self.announced), []
        for line in self.log_lines():
            found = [pattern for pattern in self.announced + self.allowed if re.search(pattern, line.raw)]
            missing.difference_update(found)
            if line.level in (None, 'error', 'warning') and not found and not BANNER.match(line.raw):
                dirty.append(line.raw)
        if dirty or missing:
            raise AssertionError('\n'.join(['unclean log:', *dirty, *(f'missing: {m}' for m in missing), self.log()]))

    # Sockets

    def addrs(self, listener):
        """Each (host, port), or path of a unix socket, that the listener has bound."""
        found = []
        for line in self.log_lines(lambda line: line.message in ('listening', 'listening no more'), listener=listener):
            host, _, port = line.fields['address'].rpartition(':')
            address = port if host == 'unix' else (host.strip('[]'), int(port))
            if line.message == 'listening':
                found.append(address)
            else:
                found.remove(address)
        return found

    def addr(self, listener):
        return self.addrs(listener)[0]

    def connect(self, where, **options):
        """A socket connected to a listener (its name), to a (host, port), or to a path or @NAME."""
        named = isinstance(where, str) and where[0] not in '/@'
        sock = connect(self.addr(where) if named else where, **options)
        self.sockets.append(sock)
        return sock

    def turn(self, listener='echo'):
        """Returns when what was sent before is read, what was closed before is freed.

        Holds for one thread: two echoes on a connection of the harness's own (from the first call on) mean that the
        event loop went round twice.
        """
        if not self.probe:
            self.probe = self.connect(listener)
        for _ in range(2):
            self.probe.sendall(b'.')
            recv_same(self.probe, b'.', eof=False)

    # The admin listener

    def get(self, target, listener='admin', method='GET'):
        """One HTTP answer."""
        with connect(self.addr(listener)) as sock:
            sock.sendall(f'{method} {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n'.encode())
            answer, = parse_answers(recv_all(sock), [method])
        return answer

    def metrics(self):
        return Metrics(self.get('/metrics').body.decode())

    def wait_metrics(self, condition):
        """Scrapes until the condition holds; gives the last scrape."""
        end = time.monotonic() + TIMEOUT
        while not condition(metrics := self.metrics()):
            if time.monotonic() > end:
                raise AssertionError(metrics.text + self.log())
        return metrics

    # The process

    def proc(self, name):
        with open(f'/proc/{self.process.pid}/{name}', encoding='utf-8') as file:
            return file.read()

    def rss(self):
        """Resident bytes."""
        return int(re.search(r'VmRSS:\s*(\d+) kB', self.proc('status'))[1]) * 1024

    def fds(self):
        return len(os.listdir(f'/proc/{self.process.pid}/fd'))

    def wait_fds(self, count):
        """Until it has so many descriptors; connections that we have closed take a moment to go."""
        wait_until(lambda: self.fds() == count, lambda: f'{self.fds()} descriptors, not {count}\n{self.log()}')

    def cpu(self):
        """Seconds of CPU used."""
        fields = self.proc('stat').rpartition(')')[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf('SC_CLK_TCK')


# Bytes over sockets

def connect(address, buffers=None):
    """BUFFERS bounds the kernel's buffers of this end, which then has the segments of an Ethernet: loopback's 64 KiB
    segments do not fit a small window, and stall for some 200 ms each."""
    family = socket.AF_UNIX if isinstance(address, str) else socket.AF_INET6 if ':' in address[0] else socket.AF_INET
    sock = socket.socket(family)
    try:
        sock.settimeout(TIMEOUT)
        if family != socket.AF_UNIX:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if buffers and family != socket.AF_UNIX:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, 1460)
        if buffers:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, buffers)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffers)
        sock.connect('\0' + address[1:] if address[0].startswith('@') else address)
    except BaseException:
        sock.close()
        raise
    return sock


def recv_all(sock):
    """What comes until EOF."""
    parts = []
    while part := sock.recv(1 << 16):
        parts.append(part)
    return b''.join(parts)


def recv_same(sock, want, eof=True):
    """Asserts that exactly WANT comes, and then, with EOF, the end."""
    want, got = memoryview(want), 0
    while got < len(want):
        part = sock.recv(min(1 << 16, len(want) - got))
        if part != want[got:got + len(part)]:
            raise AssertionError(f'other bytes between {got} and {got + len(part)}')
        if not part:
            raise AssertionError(f'{got} bytes of {len(want)}')
        got += len(part)
    if eof and (more := sock.recv(100)):
        raise AssertionError(f'{len(want)} bytes, then {more!r}')


def echoes(sock, data=b'x'):
    """True if the connection is served, False if it was closed."""
    try:
        sock.sendall(data)
        recv_same(sock, data, eof=False)
    except (ConnectionError, AssertionError):
        return False
    return True


class Sender(threading.Thread):
    """Sends from a thread of its own, then half-closes; finish() raises what went wrong there."""

    def __init__(self, sock, data, fin=True):
        super().__init__(daemon=True)
        self.sock, self.data, self.fin, self.error = sock, data, fin, None
        self.start()

    def run(self):
        try:
            self.sock.sendall(self.data)
            if self.fin:
                self.sock.shutdown(socket.SHUT_WR)
        except OSError as error:
            self.error = error

    def finish(self):
        self.join()
        if self.error:
            raise self.error


def fill(socks, data, quiet=0.3):
    """Sends DATA on each socket until none takes more for a while; gives the bytes sent on each.  Never reads.

    A connection that ends meanwhile takes no more either; that it did is for its reader to find.
    """
    view, sent = memoryview(data), [0] * len(socks)
    index = {sock: i for i, sock in enumerate(socks)}
    while index and (ready := select.select([], list(index), [], quiet * SLOW)[1]):
        for sock in ready:
            i = index[sock]
            try:
                sent[i] += sock.send(view[sent[i]:sent[i] + 16384], socket.MSG_DONTWAIT)
            except ConnectionError:
                del index[sock]
            else:
                if sent[i] == len(view):
                    del index[sock]
    return sent


def reset(sock):
    """Closes with RST."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 0))
    sock.close()


def silent(sock, seconds):
    """Asserts that nothing comes for a while: no byte, no EOF."""
    if select.select([sock], [], [], seconds)[0]:
        raise AssertionError(f'not silent: {sock.recv(1000)!r}')


def trickle(sock, data, pause):
    """Sends a byte a PAUSE (seconds; 0: waits instead) until the peer closes, which it must before DATA ends."""
    sock.settimeout(pause or TIMEOUT)
    for byte in data:
        try:
            got = sock.recv(100)
        except TimeoutError:
            sock.sendall(bytes([byte]))
        except ConnectionResetError:    # a byte has crossed the end
            if pause:
                return
            raise
        else:
            if got:
                raise AssertionError(f'answered: {got!r}')
            return
    raise AssertionError('not closed')


# HTTP answers

Answer = collections.namedtuple('Answer', 'status headers body')


def header(answer, name):
    """The one value of that field, or None; two are a fault."""
    values = [value for key, value in answer.headers if key.lower() == name.lower()]
    if len(values) > 1:
        raise AssertionError(f'{name} repeated: {values}')
    return values[0] if values else None


def parse_answers(raw, methods=()):
    """Every HTTP/1.1 answer in RAW, which must end with the last of them.  METHODS are those asked; GET beyond."""
    answers, methods = [], iter(methods)
    while raw:
        head, end, raw = raw.partition(b'\r\n\r\n')
        status, *fields = head.decode('ascii').split('\r\n')
        match = re.fullmatch(r'HTTP/1\.1 (\d{3}) [ -~]+', status)
        if not (end and match and all(re.fullmatch(r'[!-9;-~]+: [!-~]([ -~]*[!-~])?', field) for field in fields)):
            raise AssertionError(f'no answer: {head!r}')
        answer = Answer(int(match[1]), [tuple(field.split(': ', 1)) for field in fields], b'')
        if next(methods, 'GET') != 'HEAD':
            length = int(header(answer, 'Content-Length'))
            answer = answer._replace(body=raw[:length])
            if len(answer.body) != length:
                raise AssertionError(f'{len(answer.body)} of {length} bytes: {answer}')
            raw = raw[length:]
        answers.append(answer)
    return answers


# Clients that come and go

REQUEST = b'GET /Ada HTTP/1.1\r\nHost: localhost\r\n\r\n'
LAST = b'GET /Ada HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n'


def body(sock):
    """The content of one answer on a connection that goes on."""
    answer = http.client.HTTPResponse(sock)
    answer.begin()
    return answer.read()


def talk_echo(sock):
    data = os.urandom(5000)
    sock.sendall(data)
    sock.shutdown(socket.SHUT_WR)
    recv_same(sock, data)


def talk_http(sock, requests=(REQUEST, LAST)):
    for request in requests:
        sock.sendall(request)
        if body(sock) != b'Hello, Ada':
            raise AssertionError('another answer')


def talk_once(sock):
    talk_http(sock, [LAST])


class Clients:
    """Threads that connect, are served and close, until the block ends; the first thing wrong is raised there.

    TALK is called with a connected socket.  With MAY_BE_REFUSED a connect that fails ends a client in peace.
    """

    def __init__(self, address, talk, count=6, may_be_refused=False):
        self.address, self.talk, self.may_be_refused = address, talk, may_be_refused
        self.stopped, self.served, self.errors = threading.Event(), [0] * count, []
        self.threads = [threading.Thread(target=self.run, args=[i]) for i in range(count)]

    def run(self, index):
        try:
            while not self.stopped.is_set():
                try:
                    sock = connect(self.address)
                except ConnectionRefusedError:
                    if self.may_be_refused:
                        return
                    raise
                with sock:
                    self.talk(sock)
                self.served[index] += 1
        except (OSError, AssertionError) as error:
            self.errors.append(error)

    def __enter__(self):
        for thread in self.threads:
            thread.start()
        return self

    def stop(self):
        self.stopped.set()
        for thread in self.threads:
            thread.join()

    def __exit__(self, kind, error, traceback):
        self.stop()
        if not kind and self.errors:
            raise self.errors[0]

    def wait(self, more=1):
        """Until each has been served so many times more."""
        goals = [count + more for count in self.served]
        wait_until(lambda: self.errors or all(count >= goal for count, goal in zip(self.served, goals)),
                   lambda: f'{self.served} of {goals}')
        if self.errors:
            raise self.errors[0]


# Metrics

SAMPLE = re.compile(r'([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{(.*)\})? (\+Inf|[0-9.e+-]+)')
LABEL = re.compile(r'([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\\n]|\\["\\n])*)"(?:,|$)')


class Metrics:
    """One scrape, read strictly: the text format of Prometheus, version 0.0.4.

    m['echod_bytes_sent_total', {'listener': 'echo'}] is the sum of the samples that have these labels.
    """

    def __init__(self, text):
        self.text = text
        self.types = {}
        self.samples = {}       # (name, frozenset of labels) to value
        if not text.endswith('\n'):
            raise AssertionError(f'no newline at the end: {text[-80:]!r}')
        help_of = family = None
        for line in text[:-1].split('\n'):
            if line.startswith('# HELP '):
                help_of = line.split(' ')[2]
                self.must(len(line.split(' ')) > 3 and help_of not in self.types, line)
            elif line.startswith('# TYPE '):
                _, _, family, kind = line.split(' ')
                self.must(family == help_of and kind in ('counter', 'gauge', 'histogram'), line)
                self.types[family] = kind
            else:
                self.add(line, family)
        self.check_histograms()

    def must(self, holds, line):
        if not holds:
            raise AssertionError(f'metrics: {line!r} in\n{self.text}')

    def add(self, line, family):
        match = SAMPLE.fullmatch(line)
        self.must(match and family, line)
        name, labels, value = match.groups()
        pairs = LABEL.findall(labels or '')
        self.must(''.join(LABEL.sub('', labels or '')) == '' and len(dict(pairs)) == len(pairs), line)
        suffixes = ('_bucket', '_sum', '_count') if self.types[family] == 'histogram' else ('',)
        self.must(name in [family + suffix for suffix in suffixes], line)
        self.must((name, frozenset(pairs)) not in self.samples, line)
        self.must(self.types[family] != 'counter' or name.endswith('_total'), line)
        self.samples[name, frozenset(pairs)] = float(value)

    def check_histograms(self):
        """Buckets grow with their bounds, and the last, +Inf, is the count."""
        found = {}
        for (name, labels), value in self.samples.items():
            if name.endswith('_bucket'):
                bound = float(dict(labels)['le'].replace('+Inf', 'inf'))
                rest = frozenset(pair for pair in labels if pair[0] != 'le')
                found.setdefault((name.removesuffix('_bucket'), rest), []).append((bound, value))
        for (name, labels), buckets in found.items():
            self.must(buckets == sorted(buckets) and buckets[-1][0] == float('inf'), name)
            self.must([value for _, value in buckets] == sorted(value for _, value in buckets), name)
            self.must(buckets[-1][1] == self.samples[name + '_count', labels], name)
            self.must((name + '_sum', labels) in self.samples, name)

    def __getitem__(self, key):
        name, labels = key if isinstance(key, tuple) else (key, {})
        return sum(value for (n, pairs), value in self.samples.items()
                   if n == name and labels.items() <= dict(pairs).items())

    def labels(self, name):
        """The labels of each sample."""
        return [dict(pairs) for n, pairs in self.samples if n == name]

    def connections(self, **labels):
        """(accepted, open, closed)"""
        return tuple(self['echod_connections_' + name, labels] for name in ('accepted_total', 'open', 'closed_total'))


# One thread that stands still

PTRACE_DETACH, PTRACE_SEIZE, PTRACE_INTERRUPT = 17, 0x4206, 0x4207
EPOLL_WAIT = {'x86_64': ('232', '281'), 'aarch64': ('22',)}.get(os.uname().machine, ())


def ptrace(request, tid):
    libc = ctypes.CDLL(None, use_errno=True)
    libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
    if libc.ptrace(request, tid, None, None) != 0:
        raise OSError(ctypes.get_errno(), 'ptrace')


def worker_ids(d):
    """The threads whose event loop waits, but the main one."""
    found = []
    for tid in os.listdir(f'/proc/{d.process.pid}/task'):
        if int(tid) != d.process.pid and d.proc(f'task/{tid}/syscall').split()[0] in EPOLL_WAIT:
            found.append(int(tid))
    return sorted(found)


@contextlib.contextmanager
def stopped_worker(d):
    """Stops one worker inside the block, as a debugger does.  Skips where that cannot be."""
    workers = worker_ids(d) if 'valgrind' not in COMMAND[0] else []
    if not workers:
        raise unittest.SkipTest('no worker can be stopped here')
    try:
        ptrace(PTRACE_SEIZE, workers[-1])
    except OSError as error:
        raise unittest.SkipTest(f'no ptrace: {error}') from error
    try:
        ptrace(PTRACE_INTERRUPT, workers[-1])
        os.waitpid(workers[-1], 0x40000000)     # __WALL
        yield workers[-1]
    finally:
        ptrace(PTRACE_DETACH, workers[-1])
