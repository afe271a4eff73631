"""Programs that people have: openssl s_client, curl, haproxy and nginx, on both sides of them.

What is not installed is skipped, unless ECHOD_PEERS is set: then it is missed.
"""

import csv
import io
import os
import re
import shutil
import socket
import subprocess
import tempfile
import threading
import unittest

from harness import LAST, SLOW, TIMEOUT, Echod, Sender, parse_answers, recv_all, recv_same, wait_until
from pki import authority, identity
from transport import NAME, TlsSocket, client_context

NGINX_STREAM = '/usr/lib/nginx/modules/ngx_stream_module.so'
REQUIRED = dict(proxy_protocol='required')
INTERVAL = f'{round(30 * SLOW)}ms'       # of health checks, and their time limit


def tls(**keys):
    made = identity(NAME)
    return dict(tls_certificate=made.certificate, tls_key=made.key) | keys


def needs(program, there=True):
    return unittest.skipUnless('ECHOD_PEERS' in os.environ or shutil.which(program) and there, f'no {program}')


def reserved(listens):
    """A socket on a port for a proxy: to be handed over, or to keep the port until somebody listens there."""
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    sock.bind(('127.0.0.1', 0))
    if listens:
        sock.listen(100)
    return sock


class Running:
    """A program that runs until the block ends; its lines are kept."""

    def __init__(self, *words, **options):
        self.words, self.options, self.lines = words, options, []
        self.news = threading.Condition()

    def __enter__(self):
        self.process = subprocess.Popen(self.words, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                        stderr=subprocess.STDOUT, text=True, **self.options)
        self.reader = threading.Thread(target=self.read)
        self.reader.start()
        return self

    def read(self):
        for line in self.process.stdout:
            with self.news:
                self.lines.append(line)
                self.news.notify_all()

    def say(self, text):
        self.process.stdin.write(text)
        self.process.stdin.flush()

    def wait(self, pattern):
        with self.news:
            if not self.news.wait_for(lambda: re.search(pattern, ''.join(self.lines)), TIMEOUT):
                raise AssertionError(f'no {pattern} in {"".join(self.lines)}')

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait()
        self.reader.join()
        self.process.stdin.close()
        self.process.stdout.close()


@needs('openssl')
class Client(unittest.TestCase):
    """openssl s_client"""

    @classmethod
    def setUpClass(cls):
        cls.d = cls.enterClassContext(Echod(echo=tls(), web=tls(), admin={}))

    def client(self, *words, listener='echo'):
        host, port = self.d.addr(listener)
        return Running('openssl', 's_client', '-connect', f'{host}:{port}', '-servername', NAME,
                       '-CAfile', authority().certificate, *words)

    def test_echo(self):
        for version in '-tls1_2', '-tls1_3':
            with self.client(version, '-verify_return_error') as client:
                client.wait('Verify return code: 0 \\(ok\\)')
                client.wait('Compression: NONE')
                client.say('hello from s_client\n')
                client.wait('\nhello from s_client\n')
                client.say('Q\n')
                client.process.wait(TIMEOUT)

    def test_renegotiation(self):
        """Refused with an alert that is no end, which s_client takes for one."""
        with self.client('-tls1_2') as client:
            client.wait('Verify return code')
            client.say('R\n')
            client.wait('RENEGOTIATING')
            client.wait('no renegotiation')
        self.d.wait_log('TLS failed', listener='echo', error='sslv3 alert handshake failure')

    def test_key_update(self):
        with self.client('-tls1_3') as client:
            client.wait('Verify return code')
            for count, (letter, text) in enumerate((('K', 'one'), ('k', 'two'), ('K', 'three')), 1):
                client.say(letter + '\n')
                client.wait(r'(KEYUPDATE[\s\S]*){%d}' % count)     # what follows at once would be dropped
                client.say(text + '\n')
                client.wait(f'\n{text}\n')

    def test_refused(self):
        """What nobody should speak any more."""
        host, port = self.d.addr('web')
        attempts = [('-tls1',), ('-tls1_1',)]
        attempts += [('-tls1_2', '-cipher', cipher + ':@SECLEVEL=0')
                     for cipher in 'eNULL aNULL kRSA CAMELLIA DES 3DES SHA1 PSK ECDHE+AESCCM'.split()]
        for words in attempts:
            with self.subTest(words=words):
                words += () if '-cipher' in words else ('-cipher', 'ALL:@SECLEVEL=0')
                command = ['openssl', 's_client', '-connect', f'{host}:{port}', '-servername', NAME, *words]
                done = subprocess.run(command,
                                      stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=TIMEOUT)
                self.assertNotEqual(done.returncode, 0, done.stdout + done.stderr)
                self.assertRegex(done.stderr, 'alert|no cipher match|no ciphers available')

    def test_resumption(self):
        with tempfile.NamedTemporaryFile() as session:
            for version in '-tls1_2', '-tls1_3':
                for word, want in ('-sess_out', 'New'), ('-sess_in', 'Reused'):
                    with self.client(version, word, session.name) as client:
                        client.wait('Verify return code')
                        client.say('hello\n')
                        client.wait('\nhello\n')
                        client.wait(f'{want}, TLSv1.[23]')
                        client.say('Q\n')
                        client.process.wait(TIMEOUT)


@needs('curl')
class Curl(unittest.TestCase):

    def curl(self, *words):
        return subprocess.run(['curl', '-sS', '--max-time', str(TIMEOUT), *words], capture_output=True, text=True)

    def url(self, d, listener):
        return ['--cacert', authority().certificate, '--resolve', f'{NAME}:{d.addr(listener)[1]}:127.0.0.1',
                f'https://{NAME}:{d.addr(listener)[1]}/Ada']

    def test_client_certificates(self):
        theirs = authority('clients')
        mine, foreign = theirs.issue('curl.example'), authority('others').issue('foreign.example')
        with Echod(web=tls(tls_client_ca=theirs.certificate, tls_verify='required')) as d:
            for version in ['--tls-max', '1.2'], ['--tlsv1.3']:
                done = self.curl(*version, '--cert', mine.certificate, '--key', mine.key, '-w', ' %{http_version}',
                                 *self.url(d, 'web'))
                self.assertEqual((done.returncode, done.stdout), (0, 'Hello, Ada 1.1'), done.stderr)
                lines = len(d.log_lines('TLS failed'))
                self.assertNotEqual(self.curl(*version, *self.url(d, 'web')).returncode, 0)
                self.assertNotEqual(self.curl(*version, '--cert', foreign.certificate, '--key', foreign.key,
                                              *self.url(d, 'web')).returncode, 0)
                d.wait_log('TLS failed', lines + 2)

    def test_keep_alive(self):
        """Several requests on one connection, and a body."""
        with Echod(web=tls(), admin={}) as d:
            done = self.curl('-d', '@' + __file__, *self.url(d, 'web'), *self.url(d, 'web')[-1:])
            self.assertRegex(done.stdout, '^405')
            done = self.curl(*self.url(d, 'web'), *self.url(d, 'web')[-1:] * 9)
            self.assertEqual(done.stdout, 'Hello, Ada' * 10)
            self.assertEqual(d.metrics()['echod_requests_total', dict(listener='web', status='200')], 10)
            d.wait_log('closed', listener='web', reason='fin')

    def test_proxy_header(self):
        with Echod(web=tls() | REQUIRED) as d:
            done = self.curl('--haproxy-protocol', *self.url(d, 'web'))
            self.assertEqual((done.returncode, done.stdout), (0, 'Hello, Ada'), done.stderr)
            line = d.wait_log('closed')
            self.assertEqual(line.fields['told'], line.fields['peer'])

    def test_unix(self):
        with Echod(web=dict(address='unix:@FOLDER@/web')) as d:
            done = self.curl('--unix-socket', d.addr('web'), 'http://localhost/Ada')
            self.assertEqual((done.returncode, done.stdout), (0, 'Hello, Ada'), done.stderr)


# Each way to be in front of it: name, handler, keys of the listener, words of haproxy's server line
BEHIND = (
    ('plain', 'echo', {}, ''),
    ('unix', 'echo', dict(address='unix:@FOLDER@/unix'), ''),
    ('web', 'greeting', {}, ''),
    ('tls', 'echo', tls, 'ssl verify required ca-file {ca} check-ssl verifyhost a.example'),
    ('tls-bare', 'greeting', tls, 'ssl verify none no-check-ssl'),
    ('proxy1', 'echo', REQUIRED, 'send-proxy check-send-proxy'),
    ('proxy2', 'echo', REQUIRED, 'send-proxy-v2 check-send-proxy'),
    ('proxy2-crc', 'greeting', REQUIRED, 'send-proxy-v2 check-send-proxy proxy-v2-options crc32c,unique-id,ssl'),
    ('proxy1-tls', 'echo', lambda: tls() | REQUIRED, 'send-proxy check-send-proxy ssl verify none check-ssl'),
    ('proxy2-tls', 'greeting', lambda: tls() | REQUIRED, 'send-proxy-v2-ssl check-send-proxy ssl verify none'),
    ('proxy2-unix', 'echo', REQUIRED | dict(address='unix:@FOLDER@/proxy2'), 'send-proxy-v2 check-send-proxy'),
)


@needs('haproxy')
class Haproxy(unittest.TestCase):
    """In front, with its health checks."""

    def setUp(self):
        folder = self.enterContext(tempfile.TemporaryDirectory(prefix='echod-test-'))
        sections = {name: dict(handler=handler) | (keys() if callable(keys) else keys)
                    for name, handler, keys, _ in BEHIND}
        self.d = self.enterContext(Echod(**sections, admin={}))
        self.started = len(self.d.log_lines())
        self.fronts = {name: self.enterContext(reserved(True)) for name, *_ in BEHIND}
        self.stats = os.path.join(folder, 'stats')
        config = os.path.join(folder, 'haproxy.cfg')
        with open(config, 'w', encoding='ascii') as file:
            file.write(self.config())
        words = ['haproxy', '-db', '-f', config]
        proxy = self.enterContext(Running(*words, pass_fds=[sock.fileno() for sock in self.fronts.values()]))
        wait_until(self.all_up, lambda: ''.join(proxy.lines) + str(self.states()) + self.d.log())

    def config(self):
        text = f'''
global
    stats socket {self.stats} level admin
defaults
    mode tcp
    timeout connect 5s
    timeout client 10s
    timeout server 10s
    unique-id-format %pid-%rt
'''
        for name, _, _, words in BEHIND:
            where = self.d.addr(name)
            where = f'unix@{where}' if isinstance(where, str) else '%s:%d' % where
            text += f'listen {name}\n    bind fd@{self.fronts[name].fileno()}\n'
            if name == 'web':
                text += '    option httpchk GET /check HTTP/1.1\\r\\nHost:\\ check\n'
            text += f'    server s {where} check inter {INTERVAL} fall 20 {words.format(ca=authority().certificate)}\n'
        return text

    def states(self):
        with socket.socket(socket.AF_UNIX) as sock:
            try:
                sock.connect(self.stats)
            except OSError:
                return {}
            sock.sendall(b'show stat\n')
            table = csv.DictReader(io.StringIO(recv_all(sock).decode().removeprefix('# ')))
            return {row['pxname']: (row['status'], row['check_status'], row['last_chk'])
                    for row in table if row['svname'] == 's'}

    def all_up(self):
        """For long: with its last checks good, else it is "UP 7/20".  A star is that of a check under way."""
        states = self.states()
        return len(states) == len(BEHIND) and all(
            status == 'UP' and check.removeprefix('* ') not in ('', 'INI') for status, check, _ in states.values())

    def test_checks_are_no_noise(self):
        """Dozens of health checks leave nothing above debug, and no connection."""
        def checked(m):
            if any(m.connections(listener=name)[1] > 2 for name, *_ in BEHIND):
                return False
            return all(m['echod_connections_closed_total', dict(listener=name)] >= 10 for name, *_ in BEHIND
                       if name not in ('plain', 'tls-bare'))    # where a check resets before it is connected
        self.d.wait_metrics(checked)
        self.assertEqual([line.raw for line in self.d.log_lines()[self.started:] if line.level != 'debug'], [])
        reasons = {line.fields['reason'] for line in self.d.log_lines('closed')}
        self.assertLessEqual(reasons, {'fin', 'reset', 'cut', 'finished'})
        wait_until(self.all_up, lambda: str(self.states()))

    def test_served(self):
        """Bytes and the end pass through it, and we know who is behind it."""
        data = os.urandom(300000)
        for name, handler, keys, words in BEHIND:
            front = self.fronts[name].getsockname()
            with self.subTest(listener=name), socket.create_connection(front, TIMEOUT) as sock:
                us = '%s:%d' % sock.getsockname()
                if handler == 'greeting':
                    sock.sendall(LAST)
                    answer, = parse_answers(recv_all(sock))
                    self.assertEqual(answer.body, b'Hello, Ada')
                elif 'ssl' in words:    # which knows no half-close
                    sender = Sender(sock, data, fin=False)
                    recv_same(sock, data, eof=False)
                    sender.finish()
                else:
                    sender = Sender(sock, data)
                    recv_same(sock, data)
                    sender.finish()
                sock.close()
                if 'send-proxy' in words:
                    self.d.wait_log('closed', listener=name, told=us)

    def test_stop(self):
        """The checks tell haproxy that we have gone; what it has open is served to the end."""
        streams = {}
        for name, handler, *_ in BEHIND:
            if handler == 'echo':
                sock = streams[name] = socket.create_connection(self.fronts[name].getsockname(), TIMEOUT)
                self.enterContext(sock)
                sock.sendall(b'before')
                recv_same(sock, b'before', eof=False)
        self.d.kill()
        wait_until(lambda: all(status == 'DOWN' for status, *_ in self.states().values()), lambda: str(self.states()))
        for name, sock in streams.items():
            with self.subTest(listener=name):
                sock.sendall(b'behind')
                recv_same(sock, b'behind', eof=False)
                sock.close()
        self.d.wait()


@needs('nginx', os.path.exists(NGINX_STREAM))
class Nginx(unittest.TestCase):
    """stream with proxy_protocol, plain and to TLS."""

    def test_stream(self):
        data = os.urandom(300000)
        with Echod(echo=REQUIRED, web=REQUIRED, tls=tls() | REQUIRED) as d, tempfile.TemporaryDirectory() as folder:
            fronts = {name: self.enterContext(reserved(False)) for name in ('echo', 'web', 'tls')}
            config = os.path.join(folder, 'nginx.conf')
            with open(config, 'w', encoding='ascii') as file:
                file.write(f'load_module {NGINX_STREAM};\ndaemon off;\nmaster_process off;\npid {folder}/pid;\n'
                           f'error_log stderr notice;\nevents {{ }}\nstream {{\n')
                for name, sock in fronts.items():
                    file.write('server {\n listen %s:%d reuseport;\n proxy_pass %s:%d;\n proxy_protocol on;\n'
                               % (*sock.getsockname(), *d.addr(name)))
                    if name == 'tls':
                        file.write(' proxy_ssl on;\n proxy_ssl_verify on;\n proxy_ssl_name a.example;\n'
                                   f' proxy_ssl_trusted_certificate {authority().certificate};\n')
                    file.write('}\n')
                file.write('}\n')
            nginx = self.enterContext(Running('nginx', '-p', folder, '-c', config))
            nginx.wait('getrlimit')     # the last that it says of its start
            for name, sock in fronts.items():
                with self.subTest(listener=name), socket.create_connection(sock.getsockname(), TIMEOUT) as client:
                    us = '%s:%d' % client.getsockname()
                    if name == 'web':
                        client.sendall(LAST)
                        answer, = parse_answers(recv_all(client))
                        self.assertEqual(answer.body, b'Hello, Ada')
                    else:
                        sender = Sender(client, data, fin=False)
                        recv_same(client, data, eof=False)
                        sender.finish()
                    client.close()
                    d.wait_log('closed', listener=name, told=us)
            self.assertIsNone(nginx.process.poll(), ''.join(nginx.lines))


if __name__ == '__main__':
    unittest.main()
