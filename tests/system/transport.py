"""Ways to reach a handler: how a listener is configured for one, and how a client connects through it.

    for t in TRANSPORTS:
        ... Echod(activated=t.activated(), **{t.name: t.keys()}) ...
        sock = t.connect(d, t.name)

What connect() gives is a socket as far as harness.py needs one.  Over TLS, shutdown(SHUT_WR) sends close_notify and
recv() gives b'' for the peer's close_notify alone: a stream that ends otherwise raises Cut.
"""

import io
import os
import socket
import ssl
import struct
import threading

from pki import authority, identity

NAME = 'a.example'


class Cut(ConnectionError):
    """TCP has ended, but TLS has not."""


# The PROXY protocol

TOLD = '192.0.2.7', 4711
SIGNATURE = b'\r\n\r\n\0\r\nQUIT\n'


def proxy_v1(source=TOLD, destination=('198.51.100.1', 80)):
    family = 'TCP6' if ':' in source[0] else 'TCP4'
    return f'PROXY {family} {source[0]} {destination[0]} {source[1]} {destination[1]}\r\n'.encode()


def binary(command, family, block):
    return SIGNATURE + struct.pack('!BBH', 0x20 | command, family, len(block)) + block


def proxy_v2(source=TOLD, destination=('198.51.100.1', 80), tlvs=b''):
    family = socket.AF_INET6 if ':' in source[0] else socket.AF_INET
    block = b''.join(socket.inet_pton(family, host) for host, _ in (source, destination))
    block += struct.pack('!HH', source[1], destination[1]) + tlvs
    return binary(1, 0x21 if family == socket.AF_INET6 else 0x11, block)


# TLS

class Reader(io.RawIOBase):
    """What http.client reads from."""

    def __init__(self, sock):
        self.sock = sock

    def readable(self):
        return True

    def readinto(self, buffer):
        data = self.sock.recv(len(buffer))
        buffer[:len(data)] = data
        return len(data)


def client_context(version=None, ca=None):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations((ca or authority()).certificate)
    if version:
        context.minimum_version = context.maximum_version = version
    return context


class TlsSocket:
    """The client's end of TLS over a connected socket.  One thread may send while another receives."""

    def __init__(self, raw, context, name=NAME, session=None, handshake=True):
        self.raw, self.ended, self.plain = raw, False, b''
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self.incoming, self.outgoing, server_hostname=name, session=session)
        self.lock, self.sending = threading.Lock(), threading.Lock()
        self.pending = b''              # encrypted, but not sent; guarded by sending
        if handshake:
            self.do_handshake()

    def do_handshake(self):
        while True:
            try:
                self.tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                self.flush()
                self.receive()
            except ssl.SSLError:
                self.flush()            # the alert
                raise
        self.flush()

    def receive(self):
        data = self.raw.recv(1 << 16)
        if not data:
            raise Cut('the stream was cut')
        self.incoming.write(data)

    def encrypt(self, data):
        with self.lock:
            self.tls.write(data)

    def flush(self):
        """Sends all that is encrypted.  Nobody else sends."""
        self.pending += self.outgoing.read()
        self.raw.sendall(self.pending)
        self.pending = b''

    def sendall(self, data):
        view = memoryview(data)
        with self.sending:
            self.flush()
            for start in range(0, len(view), 1 << 16):
                self.encrypt(view[start:start + (1 << 16)])
                self.flush()

    def send(self, data, flags=0):
        """With MSG_DONTWAIT, 0 while bytes that were taken before still wait."""
        with self.sending:
            if not self.pending:
                self.encrypt(data)
                self.pending = self.outgoing.read()
                taken = len(data)
            else:
                taken = 0
            try:
                self.pending = self.pending[self.raw.send(self.pending, flags):]
            except BlockingIOError:
                pass
            return taken

    def decrypt(self, data=b''):
        """Of these bytes all that they say: nothing may be left where unwrap() would stumble over it."""
        with self.lock:
            self.incoming.write(data)
            try:
                while part := self.tls.read(1 << 16):
                    self.plain += part
            except ssl.SSLWantReadError:
                return
            except ssl.SSLZeroReturnError:
                pass
            self.ended = True

    def recv(self, size):
        self.decrypt()
        while not self.plain and not self.ended:
            if not (data := self.raw.recv(1 << 16)):
                raise Cut('the stream was cut')
            self.decrypt(data)
        data, self.plain = self.plain[:size], self.plain[size:]
        if not data and (more := self.raw.recv(100)):
            raise AssertionError(f'behind close_notify: {more!r}')
        return data

    def makefile(self, mode):
        assert mode == 'rb'
        return io.BufferedReader(Reader(self))

    def shutdown(self, how):
        """The sending side alone."""
        assert how == socket.SHUT_WR
        with self.sending:
            with self.lock:
                try:
                    self.tls.unwrap()
                except ssl.SSLError:    # the peer has not answered yet
                    pass
            self.flush()                # without the lock, for the peer may wait until it is read from

    def fileno(self):
        return self.raw.fileno()

    def __getattr__(self, name):
        return getattr(self.raw, name)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


# Transports

class Transport:
    """NAME is a listener's too; HEADER the PROXY header that a client sends; VERSION that of TLS; where: tcp, unix,
    abstract, or systemd-tcp and systemd-unix, whose sockets are handed over."""

    def __init__(self, name, where='tcp', version=None, header=b''):
        self.name, self.where, self.version, self.header = name, where, version, header

    def __repr__(self):
        return self.name

    @property
    def unix(self):
        return self.where in ('unix', 'abstract', 'systemd-unix')

    @property
    def told(self):
        return '%s:%d' % TOLD if self.header else None

    def keys(self, listener, **more):
        """Those of a listener of that name."""
        keys = dict(address={'tcp': '127.0.0.1:0', 'unix': f'unix:@FOLDER@/{listener}.sock',
                             'abstract': f'unix:@echod-test-{os.getpid()}-{listener}'}.get(self.where,
                                                                                          f'systemd:{listener}'))
        if self.version:
            keys |= dict(tls_certificate=identity(NAME).certificate, tls_key=identity(NAME).key)
        if self.header:
            keys |= dict(proxy_protocol='required')
        return keys | more

    def activated(self, listener, folder):
        """The socket to hand over: [(name, socket)] or []."""
        if not self.where.startswith('systemd-'):
            return []
        sock = socket.socket(socket.AF_UNIX if self.unix else socket.AF_INET)
        sock.bind(os.path.join(folder, listener) if self.unix else ('127.0.0.1', 0))
        sock.listen(1000)
        return [(listener, sock)]

    def connect(self, d, listener, header=None, name=NAME, context=None, **options):
        if self.version:
            context = context or client_context(self.version)   # which takes time, so before we connect
        raw = d.connect(listener, **options)
        header = self.header if header is None else header
        if header:
            raw.sendall(header)
        if not self.version:
            return raw
        return TlsSocket(raw, context, name)

    def peer(self, sock):
        """As the log has it."""
        return 'unix' if self.unix else '%s:%d' % sock.getsockname()


V12, V13 = ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3
PLAIN = Transport('plain')
TLS12, TLS13 = Transport('tls12', version=V12), Transport('tls13', version=V13)
TRANSPORTS = (
    PLAIN,
    Transport('unix', 'unix'),
    Transport('abstract', 'abstract'),
    Transport('systemd-tcp', 'systemd-tcp'),
    Transport('systemd-unix', 'systemd-unix'),
    TLS12,
    TLS13,
    Transport('unix-tls', 'unix', version=V13),
    Transport('proxy1', header=proxy_v1()),
    Transport('proxy2', header=proxy_v2()),
    Transport('proxy1-tls', version=V12, header=proxy_v1()),
    Transport('proxy2-tls', version=V13, header=proxy_v2()),
    Transport('unix-proxy', 'unix', header=proxy_v2()),
)
