"""TLS on a listener: certificates, versions, sessions, the end of a stream, and what is refused."""

import os
import shutil
import socket
import ssl
import time
import unittest
import warnings

from harness import (LAST, REQUEST, SLOW, Echod, body, header, parse_answers, recv_all, recv_same, reset, run_ini,
                     trickle)
from pki import Identity, authority, identity
from transport import NAME, V12, V13, Cut, TlsSocket, client_context

SHORT = 0.4 * SLOW
MS = f'{round(SHORT * 1000)}ms'


def tls(*identities, **keys):
    """The keys of a listener."""
    identities = identities or [identity(NAME)]
    return dict(tls_certificate=', '.join(i.certificate for i in identities),
                tls_key=', '.join(i.key for i in identities)) | keys


def anyone(version=None, ca=None):
    """A client that checks the authority, but no name."""
    context = client_context(version, ca)
    context.check_hostname = False
    return context


def greet(d, context=None, listener='echo', name=NAME, session=None):
    """A connection over which an echo went."""
    sock = TlsSocket(d.connect(listener), context or client_context(), name, session)
    sock.sendall(b'hello')
    recv_same(sock, b'hello', eof=False)
    return sock


def ask(d, context=None, listener='web', name=NAME, session=None):
    """A connection on which a request was answered."""
    sock = TlsSocket(d.connect(listener), context or client_context(), name, session)
    sock.sendall(REQUEST)
    if body(sock) != b'Hello, Ada':
        raise AssertionError('another answer')
    return sock


def names(sock):
    return [value for _, value in sock.tls.getpeercert()['subjectAltName']]


def client_hello(context=None):
    """The first bytes of a client."""
    out = ssl.MemoryBIO()
    with_name = (context or client_context()).wrap_bio(ssl.MemoryBIO(), out, server_hostname=NAME)
    try:
        with_name.do_handshake()
    except ssl.SSLWantReadError:
        pass
    return out.read()


class Certificates(unittest.TestCase):

    def test_by_name(self):
        """The first that has the name, else the first of all; also for a client that names nobody."""
        a, b, c = identity(NAME), identity('*.b.example'), identity('c.example', 'other.example')
        expected = {NAME: [NAME], 'x.b.example': ['*.b.example'], 'b.example': [NAME], 'x.y.b.example': [NAME],
                    'C.EXAMPLE': ['c.example', 'other.example'], 'other.example': ['c.example', 'other.example'],
                    'unknown.example': [NAME], None: [NAME]}
        with Echod(echo=tls(a, b, c)) as d:
            for version in (V12, V13):
                for name, want in expected.items():
                    with self.subTest(version=version, name=name):
                        self.assertEqual(names(greet(d, anyone(version), name=name)), want)

    def test_of_clients(self):
        theirs, others = authority('clients'), authority('others')
        mine, foreign = theirs.issue('client.example'), others.issue('foreign.example')
        old = theirs.issue('old.example', dates=('20200101000000Z', '20210101000000Z'))

        def outcome(d, listener, shown, version):
            context = client_context(version)
            if shown:
                context.load_cert_chain(shown.certificate, shown.key)
            before = len(d.log_lines('TLS failed'))
            try:
                ask(d, context, listener).close()
                self.assertEqual(len(d.log_lines('TLS failed')), before)
                return 'served'
            except (OSError, AssertionError):
                return d.wait_log('TLS failed', before + 1).fields['error']

        required = 'peer did not return a certificate'
        unknown, expired = (f'certificate verify failed: {why}'
                            for why in ('unable to get local issuer certificate', 'certificate has expired'))
        want = {'off': ['served'] * 4, 'optional': ['served', 'served', unknown, expired],
                'required': [required, 'served', unknown, expired]}
        keys = {listener: dict(tls_client_ca=theirs.certificate, tls_verify=listener) if listener != 'off' else {}
                for listener in want}
        with Echod(**{listener: tls(handler='greeting', **keys[listener]) for listener in want}) as d:
            for version in (V12, V13):
                for listener, outcomes in want.items():
                    for shown, expected in zip((None, mine, foreign, old), outcomes):
                        with self.subTest(version=version, verify=listener, shown=shown and shown.certificate):
                            self.assertEqual(outcome(d, listener, shown, version), expected)

    def test_expiry_metric(self):
        soon, late = authority().issue('soon.example', days=100), authority().issue('late.example', days=300)
        with Echod(soon=tls(late, soon), late=tls(late), plain={}, admin={}) as d:
            m = d.metrics()
            for listener, made in (('soon', soon), ('late', late)):
                want = ssl.cert_time_to_seconds(ssl._ssl._test_decode_cert(made.certificate)['notAfter'])
                self.assertEqual(m['echod_certificate_expiry_timestamp_seconds', {'listener': listener}], want)
            self.assertEqual(len(m.labels('echod_certificate_expiry_timestamp_seconds')), 2)


class Agreement(unittest.TestCase):
    """What client and server agree on, or not."""

    def refused(self, d, listener, context, want):
        before = len(d.log_lines('TLS failed', listener=listener))
        with self.assertRaises((ssl.SSLError, OSError)):
            greet(d, context, listener)
        self.assertRegex(d.wait_log('TLS failed', before + 1, listener=listener).fields['error'], want)

    def test_versions(self):
        old = anyone()
        old.set_ciphers('ALL:@SECLEVEL=0')
        with warnings.catch_warnings(action='ignore'):      # that they are old
            old.minimum_version, old.maximum_version = ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1
        with Echod(echo=tls(), new=tls(tls_min_version='1.3')) as d:
            for version in (V12, V13):
                self.assertEqual(greet(d, client_context(version)).tls.version(), version.name.replace('_', '.'))
            self.assertEqual(greet(d).tls.version(), 'TLSv1.3')
            greet(d, client_context(V13), 'new')
            self.refused(d, 'new', client_context(V12), 'unsupported protocol')
            self.refused(d, 'echo', old, 'unsupported protocol')

    def test_ciphers(self):
        """Forward secrecy and authenticated encryption alone, unless the file says otherwise."""
        rsa = authority().issue('rsa.example', rsa=True)
        with Echod(echo=tls(rsa), wide=tls(rsa, tls_ciphers='AES128-SHA256'),
                   one=tls(tls_ciphersuites='TLS_CHACHA20_POLY1305_SHA256')) as d:
            for cipher in ('AES128-SHA256', 'AES256-GCM-SHA384', 'ECDHE-RSA-AES128-SHA256',
                           'DHE-RSA-AES128-GCM-SHA256'):
                with self.subTest(cipher=cipher):
                    context = anyone(V12)
                    context.set_ciphers(cipher)
                    self.refused(d, 'echo', context, 'no shared cipher')
            context.set_ciphers('AES128-SHA256')
            self.assertEqual(greet(d, context, 'wide').tls.cipher()[0], 'AES128-SHA256')
            for cipher in ('ECDHE-RSA-AES128-GCM-SHA256', 'ECDHE-RSA-CHACHA20-POLY1305'):
                context.set_ciphers(cipher)
                self.assertEqual(greet(d, context).tls.cipher()[0], cipher)
            self.assertEqual(greet(d, listener='one').tls.cipher()[0], 'TLS_CHACHA20_POLY1305_SHA256')

    def test_protocols(self):
        """ALPN (RFC 7301): http/1.1 for HTTP, and none for echo, which takes no notice."""
        with Echod(echo=tls(), web=tls()) as d:
            for version in (V12, V13):
                for offered, want in (['http/1.1'], 'http/1.1'), (['h2', 'http/1.1'], 'http/1.1'), ([], None):
                    context = client_context(version)
                    context.set_alpn_protocols(offered)
                    self.assertEqual(ask(d, context).tls.selected_alpn_protocol(), want)
                    self.assertIsNone(greet(d, context).tls.selected_alpn_protocol())
                context.set_alpn_protocols(['h2', 'http/1.0'])
                self.refused(d, 'web', context, 'no application protocol')
                self.assertIsNone(greet(d, context).tls.selected_alpn_protocol())

    def test_no_compression(self):
        with Echod(echo=tls()) as d:
            context = client_context(V12)
            context.options &= ~ssl.OP_NO_COMPRESSION
            self.assertIsNone(greet(d, context).tls.compression())


class Sessions(unittest.TestCase):

    def resumed(self, d, version, context=None, session=None):
        """Whether a session was, and what is to be resumed next."""
        context = context or client_context(version)
        sock = greet(d, context, session=session)
        found = sock.tls.session_reused, sock.tls.session, context
        sock.shutdown(socket.SHUT_WR)
        recv_same(sock, b'')
        return found

    def test_tickets(self):
        for version in (V12, V13):
            with self.subTest(version=version), Echod(echo=tls()) as d:
                first, session, context = self.resumed(d, version)
                self.assertFalse(first)
                self.assertTrue(session.has_ticket)
                again, session, _ = self.resumed(d, version, context, session)
                self.assertTrue(again)
                d.reload()
                again, session, _ = self.resumed(d, version, context, session)
                self.assertTrue(again, 'over a reload')
                d.reload(echo=tls(authority().issue(NAME, file='renewed')))
                self.assertTrue(self.resumed(d, version, context, session)[0], 'over a reload with another')
                with Echod(echo=tls()) as other:
                    again, *_ = self.resumed(other, version, context, session)
                    self.assertFalse(again, 'over a restart')

    def test_of_another_listener(self):
        """Who was let in without a certificate is not let in elsewhere by the ticket."""
        required = tls(tls_client_ca=authority('clients').certificate, tls_verify='required')
        for version in (V12, V13):
            with self.subTest(version=version), Echod(echo=tls(), closed=required) as d:
                _, session, context = self.resumed(d, version)
                with self.assertRaises((OSError, AssertionError)):
                    greet(d, context, 'closed', session=session)
                d.wait_log('TLS failed', listener='closed')

    def test_stricter_after_a_reload(self):
        """A session of a client that had no certificate is worth nothing once one is required."""
        ca = authority('clients').certificate
        for before in {}, dict(tls_client_ca=ca, tls_verify='optional'):
            for version in (V12, V13):
                with self.subTest(before=before, version=version), Echod(echo=tls(**before)) as d:
                    _, session, context = self.resumed(d, version)
                    d.reload(echo=tls(tls_client_ca=ca, tls_verify='required'))
                    with self.assertRaises((OSError, AssertionError)):
                        greet(d, context, session=session)
                    d.wait_log('TLS failed', error='peer did not return a certificate')


class End(unittest.TestCase):
    """close_notify (RFC 8446 section 6.1) is the end; the end of TCP alone is none."""

    def test_cut(self):
        with Echod(echo=tls(), web=tls()) as d:
            for version in (V12, V13):
                for listener in ('echo', 'web'):
                    with self.subTest(version=version, listener=listener):
                        context = client_context(version)
                        sock = greet(d, context) if listener == 'echo' else ask(d, context)
                        peer = '%s:%d' % sock.getsockname()
                        sock.raw.shutdown(socket.SHUT_WR)
                        with self.assertRaises(Cut):
                            sock.recv(1)
                        d.wait_log('closed', listener=listener, peer=peer, reason='cut')

    def test_cut_request(self):
        """One that lasts until the end of the stream is none: no answer to what was cut."""
        with Echod(web=tls()) as d:
            sock = TlsSocket(d.connect('web'), client_context(), NAME)
            sock.sendall(b'POST /Ada HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nab')
            sock.raw.shutdown(socket.SHUT_WR)
            with self.assertRaises(Cut):
                sock.recv(1)
            d.wait_log('closed', reason='cut')

    def test_ours(self):
        """We say it when we close in order: behind an answer, when idle, and at a stop; not when a stream is cut."""
        with Echod(server=dict(drain_timeout=MS), echo=tls(), idle=tls(idle_timeout=f'{round(1000 + 400 * SLOW)}ms'), web=tls()) as d:
            sock = ask(d)
            sock.sendall(LAST)
            answer, = parse_answers(recv_all(sock))
            self.assertEqual(header(answer, 'Connection'), 'close')
            self.assertEqual(recv_all(greet(d, listener='idle')), b'')
            waiting, stream = ask(d), greet(d)
            d.expect_log('drain')
            d.kill()
            self.assertEqual(recv_all(waiting), b'')
            with self.assertRaises(Cut):
                stream.recv(1)
            d.wait()


class Failures(unittest.TestCase):
    """Each is one line at info with OpenSSL's reason, and counted; none is an error of ours."""

    def setUp(self):
        self.d = self.enterContext(Echod(echo=tls(), late=tls(handshake_timeout=MS), web=tls(), admin={}))

    def closed(self, reason):
        return self.d.metrics()['echod_connections_closed_total', dict(listener='echo', reason=reason)]

    def test_reasons(self):
        unknown = client_context(ca=authority('others'))
        weak = client_context(V12)
        weak.set_ciphers('ECDHE-ECDSA-AES128-SHA256')
        hello = bytearray(client_hello())
        hello[5] = 99
        for want, attempt in (
            ('http request', b'GET / HTTP/1.1\r\nHost: x\r\n\r\n'),
            ('https proxy request', b'CONNECT x:443 HTTP/1.1\r\n\r\n'),
            ('wrong version number|unsupported protocol', b'SSH-2.0-x\r\n' + bytes(100)),
            ('wrong version number|unsupported protocol|record layer failure', b'\xff' * 100),
            ('unexpected message', bytes(hello)),
            ('alert unknown ca', unknown),
            ('no shared cipher', weak),
        ):
            with self.subTest(want=want):
                lines, count = len(self.d.log_lines('TLS failed')), self.closed('tls')
                with self.d.connect('echo') as raw:
                    peer = '%s:%d' % raw.getsockname()
                    if isinstance(attempt, bytes):
                        raw.sendall(attempt)
                        recv_all(raw)
                    else:
                        with self.assertRaises(ssl.SSLError):
                            greet_on = TlsSocket(raw, attempt, NAME)
                            greet_on.recv(1)
                line = self.d.wait_log('TLS failed', lines + 1)
                self.assertRegex(line.fields['error'], want)
                self.assertEqual((line.level, line.fields['listener'], line.fields['peer']), ('info', 'echo', peer))
                self.d.wait_metrics(lambda _: self.closed('tls') == count + 1)
                self.assertEqual(len(self.d.log_lines('TLS failed')), lines + 1)

    def test_alert(self):
        """What the client is told arrives."""
        weak = client_context(V12)
        weak.set_ciphers('ECDHE-ECDSA-AES128-SHA256')
        with self.assertRaisesRegex(ssl.SSLError, 'HANDSHAKE_FAILURE'):
            TlsSocket(self.d.connect('echo'), weak, NAME)

    def test_deadline(self):
        """Half a ClientHello, then nothing, or a byte now and then: closed at one moment, without a line."""
        hello = client_hello()
        for pause in 0, SHORT / 5:
            start = time.monotonic()
            with self.subTest(pause=pause), self.d.connect('late') as sock:
                sock.sendall(hello[:100])
                trickle(sock, hello[100:], pause)
                passed = time.monotonic() - start
                self.assertGreater(passed, SHORT * 0.95)
                self.assertLess(passed, SHORT * 2 + 5 * SLOW)
                self.d.wait_log('closed', listener='late', peer='%s:%d' % sock.getsockname(), reason='deadline')
        self.assertEqual(self.d.log_lines('TLS failed'), [])

    def test_byte_by_byte(self):
        class Dribbler:
            def __init__(self, raw):
                self.raw = raw

            def sendall(self, data):
                for byte in data:
                    self.raw.sendall(bytes([byte]))

            def __getattr__(self, name):
                return getattr(self.raw, name)

        for version in (V12, V13):
            sock = TlsSocket(Dribbler(self.d.connect('web')), client_context(version), NAME)
            sock.sendall(LAST)
            answer, = parse_answers(recv_all(sock))
            self.assertEqual(answer.body, b'Hello, Ada')

    def test_vanished(self):
        """In the middle of a handshake, in order or by a reset, before it and between its flights: no line."""
        hello = client_hello()
        for sent, answered in ((b'', False), (hello[:100], False), (hello, True)):
            for end, reason in ((reset, 'reset'), (socket.socket.close, 'cut' if sent else 'fin')):
                with self.subTest(sent=len(sent), reason=reason):
                    sock = self.d.connect('echo')
                    peer = '%s:%d' % sock.getsockname()
                    sock.sendall(sent)
                    if answered:
                        self.assertTrue(sock.recv(1 << 16))
                    end(sock)
                    self.d.wait_log('closed', listener='echo', peer=peer, reason=reason)
        self.assertEqual(self.d.log_lines('TLS failed'), [])

    def test_half_done(self):
        """Hundreds of handshakes that do not go on hold nothing else up."""
        hello = client_hello()
        socks = [self.d.connect('web') for _ in range(400)]
        for i, sock in enumerate(socks):
            sock.sendall(hello[:-1] if i % 2 else hello)
        times = []
        for _ in range(20):
            start = time.monotonic()
            ask(self.d).close()
            times.append(time.monotonic() - start)
        self.assertLess(sorted(times)[10], SLOW)    # the machine may stand still in one of them
        for sock in socks:
            sock.close()
        self.d.wait_metrics(lambda m: m.connections(listener='web')[1] == 0)


class Files(unittest.TestCase):

    def check(self, want, status=2, **keys):
        """What -t says of a listener with these keys: WANT, behind the line that the first of them has."""
        text = '[listener echo]\naddress = 127.0.0.1:0\nhandler = echo\n'
        text += ''.join(f'{key} = {value}\n' for key, value in keys.items())
        done = run_ini(text, '-t')
        self.assertEqual(done.returncode, status, done.stderr)
        self.assertRegex(done.stderr, f'^{want}$')

    def test_refused(self):
        a, other = identity(NAME), identity('other.example')
        missing = a.certificate + '.missing'
        nothing = a.certificate + '.nothing'
        with open(nothing, 'w', encoding='ascii') as file:
            file.write('nothing\n')
        def pair(certificate, key):
            return dict(tls_certificate=certificate, tls_key=key)

        for want, keys in (
            ('echod.ini:4: tls_certificate: needs tls_key\n', dict(tls_certificate=a.certificate)),
            ('echod.ini:4: tls_key: needs tls_certificate\n', dict(tls_key=a.key)),
            (r'echod.ini:5: tls_key: ".*" is not the key of the certificate in .*\n', pair(a.certificate, other.key)),
            (r'echod.ini:4: tls_certificate: ".*": No such file or directory\n', pair(missing, a.key)),
            (r'echod.ini:5: tls_key: ".*": No such file or directory\n', pair(a.certificate, missing)),
            (r'echod.ini:4: tls_certificate: ".*" has no certificate in it\n', pair(nothing, a.key)),
            (r'echod.ini:5: tls_key: ".*" has no .*key in it\n', pair(a.certificate, nothing)),
            (r'echod.ini:6: tls_client_ca: .*\n', tls(tls_client_ca=nothing, tls_verify='required')),
            ('echod.ini:6: tls_verify: needs tls_client_ca\n', tls(tls_verify='required')),
            ('echod.ini:6: tls_ciphers: "NONE" names no cipher\n', tls(tls_ciphers='NONE')),
            ('echod.ini:6: tls_ciphersuites: "X" names no cipher\n', tls(tls_ciphersuites='X')),
            ('echod.ini:6: tls_min_version: .*\n', tls(tls_min_version='1.1')),
            ('echod.ini:5: tls_key: 1 files? for 2 certificates\n',
             dict(tls_certificate=f'{a.certificate}, {other.certificate}', tls_key=a.key)),
        ):
            with self.subTest(want=want):
                self.check(want, **keys)

    def test_asks_nobody(self):
        """Where OpenSSL would ask for a passphrase, nobody is asked: not on a terminal, and not on standard error."""
        encrypted = identity(NAME).certificate + '.encrypted'
        with open(identity(NAME).certificate, encoding='ascii') as file, open(encrypted, 'w', encoding='ascii') as made:
            begin, rest = file.read().split('\n', 1)
            made.write(f'{begin}\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,{"0" * 32}\n\n{rest}')
        self.check(f'echod.ini:4: tls_certificate: "{encrypted}": [a-z ]+\n',
                   **(tls() | dict(tls_certificate=encrypted)))
        self.check(f'echod.ini:6: tls_client_ca: "{encrypted}": [a-z ]+\n',
                   **tls(tls_client_ca=encrypted, tls_verify='required'))

    def test_expiry(self):
        """No error, but said."""
        past = authority().issue('past.example', dates=('20200101000000Z', '20210101000000Z'))
        future = authority().issue('future.example', dates=('21200101000000Z', '21210101000000Z'))
        end = time.gmtime(time.time() + 5 * 86400)
        soon = authority().issue('soon.example', dates=('20200101000000Z', time.strftime('%Y%m%d000000Z', end)))
        for made, want in ((past, 'has expired on 2021-01-01'), (future, 'is not valid before 2120-01-01'),
                           (soon, 'expires on ' + time.strftime('%Y-%m-%d', end))):
            want = f'tls_certificate: "{made.certificate}" {want}'
            self.check(f'echod.ini:4: warning: {want}\n.*', status=0, **tls(made))
        with Echod(echo=tls(past)) as d:
            d.expect_log('has expired on 2021-01-01')
            context = anyone()
            context.verify_mode = ssl.CERT_NONE
            greet(d, context)

    def test_reload(self):
        """New connections get what is new, those that are open live on; if it cannot be loaded all stays."""
        first, second = authority().issue('first.example'), authority().issue('second.example')
        live = Identity('live')
        for source, to in ((first.certificate, live.certificate), (first.key, live.key)):
            shutil.copy(source, to)
        with Echod(echo=tls(live), admin={}) as d:
            old = greet(d, anyone())
            shutil.copy(second.certificate, live.certificate)
            d.reload_fails(r'^.*/echod\.ini:\d+: tls_key: .* is not the key of the certificate')
            self.assertEqual(names(greet(d, anyone())), ['first.example'])
            shutil.copy(second.key, live.key)
            d.reload()
            self.assertEqual(names(greet(d, anyone())), ['second.example'])
            os.truncate(live.certificate, 100)
            d.reload_fails(r'^.*/echod\.ini:\d+: tls_certificate: ')
            os.remove(live.certificate)
            d.reload_fails(r'^.*/echod\.ini:\d+: tls_certificate: .*No such file')
            self.assertEqual(names(greet(d, anyone())), ['second.example'])
            old.sendall(b'still')
            recv_same(old, b'still', eof=False)
            old.shutdown(socket.SHUT_WR)
            recv_same(old, b'')

    def test_reload_in_a_handshake(self):
        """Whoever has begun goes on under what was there then."""
        first, second = authority().issue('first.example'), authority().issue('second.example')
        with Echod(echo=tls(first), plain={}) as d:
            sock = TlsSocket(d.connect('echo'), anyone(), NAME, handshake=False)
            with self.assertRaises(ssl.SSLWantReadError):
                sock.tls.do_handshake()
            hello = sock.outgoing.read()
            sock.raw.sendall(hello[:50])
            d.turn('plain')
            d.reload(echo=tls(second), plain={})
            sock.raw.sendall(hello[50:])
            sock.receive()
            sock.do_handshake()
            self.assertEqual(names(sock), ['first.example'])
            sock.sendall(b'x')
            recv_same(sock, b'x', eof=False)
            self.assertEqual(names(greet(d, anyone())), ['second.example'])

    def test_reload_between_tls_and_none(self):
        with Echod(echo=tls()) as d:
            old, where = greet(d), d.addr('echo')
            d.reload(echo={})
            with d.connect(where) as sock:
                sock.sendall(b'plain')
                recv_same(sock, b'plain', eof=False)
            old.sendall(b'still')
            recv_same(old, b'still', eof=False)
            d.reload(echo=tls())
            greet(d)


if __name__ == '__main__':
    unittest.main()
