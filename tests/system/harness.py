"""Runs the real echod and talks to it over real sockets.

    with Echod(server=dict(threads=2), echo=dict(idle_timeout='200ms')) as d:
        s = d.connect('echo')

The keywords are the sections of the INI file: "server", and one for each listener ("echo" and "web" when none is
named).  A listener binds 127.0.0.1:0 and its real port is read from the log, so any number of tests run side by side.
Nothing here sleeps: a test waits for bytes, for a log line or for a descriptor, always with a deadline.

Leaving the block closes the sockets made by connect(), stops the daemon with SIGTERM, and asserts exit status 0 and a
clean log: no sanitizer or valgrind report, no warning or error that was not announced by expect_log().

Environment: ECHOD, the binary (top_builddir/echod); ECHOD_WRAPPER, words in front of it, such as "valgrind -q
--error-exitcode=99"; ECHOD_TEST_SLOW, a factor for every deadline (1).
"""

import collections
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
import tempfile
import threading
import time

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


# Configuration and one-shot runs

def ini(**sections):
    """The INI text of SECTIONS; "web" is a greeting listener, any other name an echo listener."""
    if not sections.keys() - {'server'}:
        sections.update(echo={}, web={})
    text = []
    for name, keys in sections.items():
        if name == 'server':
            text.append('[server]')
        else:
            text.append(f'[listener {name}]')
            keys = {'address': '127.0.0.1:0', 'handler': 'greeting' if name == 'web' else 'echo'} | keys
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

TEXT_LINE = re.compile(r'(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z) (error|warning|notice|info|debug|access) (.*)')
FIELD = re.compile(r' (\w+)=("(?:[^"\\]|\\.)*"|[^ ]*)')


def parse_line(raw):
    """One line of stderr; its level is None if it is no log line."""
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


class Echod:
    """One running daemon."""

    def __init__(self, nofile=None, **sections):
        sections['server'] = {'log_level': 'debug'} | sections.get('server', {})
        self.text = ini(**sections)
        self.nofile = nofile            # RLIMIT_NOFILE, or None
        self.sockets = []               # to be closed before the daemon is stopped
        self.probe = None
        self.lines = []                 # guarded by news, like ended
        self.ended = False
        self.news = threading.Condition()
        self.announced = []

    # Life

    def __enter__(self):
        self.folder = tempfile.TemporaryDirectory(prefix='echod-test-')
        path = self.path('echod.ini')
        with open(path, 'w', encoding='utf-8') as file:
            file.write(self.text.replace('@FOLDER@', self.folder.name))
        self.process = subprocess.Popen([*COMMAND, '-c', path], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                                        stderr=subprocess.PIPE, preexec_fn=self.limit if self.nofile else None)
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
        self.folder.cleanup()

    def limit(self):
        resource.setrlimit(resource.RLIMIT_NOFILE, (self.nofile, self.nofile))

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

    def assert_clean(self):
        missing, dirty = set(self.announced), []
        for line in self.log_lines():
            found = [pattern for pattern in self.announced if re.search(pattern, line.raw)]
            missing.difference_update(found)
            if line.level in (None, 'error', 'warning') and not found and not BANNER.match(line.raw):
                dirty.append(line.raw)
        if dirty or missing:
            raise AssertionError('\n'.join(['unclean log:', *dirty, *(f'missing: {m}' for m in missing), self.log()]))

    # Sockets

    def addrs(self, listener):
        """Each (host, port) that the listener bound."""
        found = []
        for line in self.log_lines('listening', listener=listener):
            host, _, port = line.fields['address'].rpartition(':')
            found.append((host.strip('[]'), int(port)))
        return found

    def addr(self, listener):
        return self.addrs(listener)[0]

    def connect(self, where, **options):
        """A socket connected to a listener (its name) or to a (host, port)."""
        sock = connect(self.addr(where) if isinstance(where, str) else where, **options)
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

    # The process

    def proc(self, name):
        with open(f'/proc/{self.process.pid}/{name}', encoding='utf-8') as file:
            return file.read()

    def rss(self):
        """Resident bytes."""
        return int(re.search(r'VmRSS:\s*(\d+) kB', self.proc('status'))[1]) * 1024

    def fds(self):
        return len(os.listdir(f'/proc/{self.process.pid}/fd'))

    def cpu(self):
        """Seconds of CPU used."""
        fields = self.proc('stat').rpartition(')')[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf('SC_CLK_TCK')


# Bytes over sockets

def connect(address, buffers=None):
    """BUFFERS bounds the kernel's buffers of this end, which then has the segments of an Ethernet: loopback's 64 KiB
    segments do not fit a small window, and stall for some 200 ms each."""
    sock = socket.socket(socket.AF_INET6 if ':' in address[0] else socket.AF_INET)
    try:
        sock.settimeout(TIMEOUT)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if buffers:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, 1460)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, buffers)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffers)
        sock.connect(address)
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
