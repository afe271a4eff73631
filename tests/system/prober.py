"""Runs the real echoprobe against real servers: echod, or one of a few lines that misbehaves in just one way.

    with Server(lambda sock: sock.sendall(b'HELLO')) as server:
        done = probe(server.url('tcp'), '-m', 'hello')
        done.fails(self, 'mismatch')

Environment as in harness.py; ECHOPROBE is the binary.
"""

import contextlib
import os
import pty
import re
import select
import shlex
import shutil
import signal
import socket
import ssl
import subprocess
import tempfile
import threading
import time

from harness import BANNER, SLOW, TIMEOUT, reset

BINARY = os.path.abspath(os.environ.get('ECHOPROBE', os.path.join(os.environ.get('top_builddir', '.'), 'echoprobe')))
PATIENCE = ['-t', str(5 * SLOW)] if SLOW > 1 else []     # instead of the default; a test's own -t comes later
COMMAND = shlex.split(os.environ.get('ECHOD_WRAPPER', '')) + [BINARY]


class Done:
    """What a run came to: status, out and err (bytes), seconds."""

    def __init__(self, status, out, err, seconds):
        self.status, self.out, self.seconds = status, out, seconds
        lines = err.decode('utf-8', 'backslashreplace').splitlines(True)
        self.err = ''.join(line for line in lines if not BANNER.match(line.rstrip('\n')))

    def __repr__(self):
        return f'exit status {self.status} after {self.seconds:.3f} s\n{self.out!r}\n{self.err}'

    def succeeds(self, test, out=None):
        test.assertEqual((self.status, self.err), (0, ''), self)
        if out is not None:
            test.assertEqual(self.out, out, self)
        return self

    def fails(self, test, word, text='', status=2, within=None):
        """One line on stderr that names the class; nothing on stdout; in time."""
        test.assertEqual((self.status, self.out), (status, b''), self)
        test.assertRegex(self.err, rf'\Aechoprobe: [^\n]*\b{word}: [^\n]*{text}[^\n]*\n\Z', self)
        if within:
            test.assertLess(self.seconds, within + 3 * SLOW, self)
        return self

    def usage(self, test, text):
        test.assertEqual((self.status, self.out), (3, b''), self)
        test.assertRegex(self.err, rf'\Aechoprobe: [^\n]*{text}[^\n]*\n\Z', self)


def probe(*args, **options):
    begun = time.monotonic()
    done = subprocess.run([*COMMAND, *PATIENCE, *args], stdin=subprocess.DEVNULL, capture_output=True, timeout=3 * TIMEOUT,
                          **options)
    return Done(done.returncode, done.stdout, done.stderr, time.monotonic() - begun)


class Running:
    """An echoprobe that runs; with terminal=True standard output and error are one."""

    def __init__(self, *args, terminal=False):
        self.begun = time.monotonic()
        self.text = b''
        if terminal:
            self.fd, slave = pty.openpty()
        else:
            self.fd, slave = os.pipe()
        self.process = subprocess.Popen([*COMMAND, *args], stdin=subprocess.DEVNULL, stdout=slave, stderr=slave)
        os.close(slave)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        os.close(self.fd)

    def read(self):
        """Some more of what it wrote; False at the end."""
        if not select.select([self.fd], [], [], TIMEOUT)[0]:
            raise AssertionError(f'echoprobe says no more than {self.text!r}')
        try:
            more = os.read(self.fd, 65536)
        except OSError:     # what the end of a terminal looks like
            more = b''
        self.text += more
        return bool(more)

    def wait_for(self, pattern):
        while not re.search(pattern, self.text):
            if not self.read():
                raise AssertionError(f'{pattern} is not in {self.text!r}')

    def interrupt(self, number=signal.SIGINT):
        self.process.send_signal(number)

    def end(self):
        """All that it wrote, and its exit status."""
        while self.read():
            pass
        return self.text, self.process.wait(TIMEOUT)


def on_terminal(*args):
    with Running(*args, terminal=True) as running:
        return running.end()


# Servers

class Server:
    """Calls handle(sock) in a thread for each connection, and closes the socket behind it."""

    def __init__(self, handle, family=socket.AF_INET, address=('127.0.0.1', 0), context=None):
        self.handle, self.context = handle, context
        self.listener = socket.socket(family)
        self.listener.bind(address)
        self.listener.listen(128)
        self.address = self.listener.getsockname()
        self.port = self.address[1] if family != socket.AF_UNIX else None
        self.count = 0
        self.open = set()
        self.thread = threading.Thread(target=self.accept, daemon=True)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        with contextlib.suppress(OSError):
            self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        self.thread.join()
        for sock in list(self.open):
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)

    def url(self, scheme='tcp', path=''):
        return f'{scheme}://127.0.0.1:{self.port}{path}'

    def accept(self):
        while True:
            try:
                sock = self.listener.accept()[0]
            except OSError:
                return
            self.count += 1
            threading.Thread(target=self.serve, args=(sock,), daemon=True).start()

    def serve(self, sock):
        self.open.add(sock)
        with contextlib.suppress(OSError, ValueError):  # the client has gone: a test looks at the client
            if sock.family != socket.AF_UNIX:
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self.context:
                sock = self.context.wrap_socket(sock, server_side=True, suppress_ragged_eofs=False)
                self.open.add(sock)
            self.handle(sock)
        self.open.discard(sock)
        sock.close()


def echo(sock):
    while data := sock.recv(65536):
        sock.sendall(data)


def hang(sock):
    """Reads, and never answers, until the peer has gone."""
    while sock.recv(65536):
        pass


def abort(sock):
    sock.recv(65536)
    reset(sock)


def read_head(sock):
    head = b''
    while b'\r\n\r\n' not in head:
        part = sock.recv(65536)
        if not part:
            raise ValueError
        head += part
    return head


def answer(raw, end='close'):
    """A handler that answers a request with these bytes; end: close, hang or reset."""
    def handle(sock):
        read_head(sock)
        sock.sendall(raw)
        if end == 'hang':
            hang(sock)
        elif end == 'reset':
            reset(sock)
    return handle


# Certificates

class Certificates:
    """A folder with an authority (ca.pem), and what issue() adds."""

    def __init__(self):
        self.folder = tempfile.TemporaryDirectory(prefix='echoprobe-test-')
        self.openssl('req', '-x509', *self.key('ca'), '-subj', '/CN=Test authority', '-days', '2', '-out', 'ca.pem',
                     '-addext', 'basicConstraints=critical,CA:TRUE')

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.folder.cleanup()

    def path(self, name):
        return os.path.join(self.folder.name, name)

    def openssl(self, *args):
        done = subprocess.run(['openssl', *args], cwd=self.folder.name, capture_output=True, text=True)
        if done.returncode:
            raise AssertionError(f'openssl {" ".join(args)}: {done.stderr}')

    @staticmethod
    def key(name):
        return ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes', '-keyout', f'{name}.key']

    def issue(self, name, alt='IP:127.0.0.1,DNS:localhost', expired=False):
        """NAME.pem and NAME.key, signed by the authority."""
        self.openssl('req', *self.key(name), '-subj', f'/CN={name}', '-out', f'{name}.csr')
        with open(self.path(f'{name}.ext'), 'w', encoding='ascii') as file:
            file.write(f'subjectAltName={alt}\n')
        if not expired:
            dates = ['-days', '2']
        else:
            dates = ['-days', '-1']
        self.openssl('x509', '-req', '-in', f'{name}.csr', '-CA', 'ca.pem', '-CAkey', 'ca.key', '-CAcreateserial',
                     '-extfile', f'{name}.ext', '-out', f'{name}.pem', *dates)

    def context(self, name, client_ca=False):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.path(f'{name}.pem'), self.path(f'{name}.key'))
        if client_ca:
            context.load_verify_locations(self.path('ca.pem'))
            context.verify_mode = ssl.CERT_REQUIRED
        return context


HAVE_OPENSSL = shutil.which('openssl') is not None
