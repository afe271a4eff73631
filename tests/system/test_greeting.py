"""The HTTP greeting, through http.client, curl and raw sockets."""

import calendar
import email.utils
import http.client
import re
import shutil
import socket
import subprocess
import time
import unittest

from harness import SLOW, TIMEOUT, Echod, Sender, header, parse_answers, recv_all, silent

# target, greeting
GREETED = (
    (b'/', 'Hello, Anonymous'),
    (b'/Ada', 'Hello, Ada'),
    (b'/' + b'n' * 1000, 'Hello, ' + 'n' * 1000),
    (b'/?name=Ada', 'Hello, Anonymous'),
    (b'/Ada?', 'Hello, Ada'),
    (b'/Ada?x=/a/b&y=%20?', 'Hello, Ada'),
    (b'/Ada%20Lovelace', 'Hello, Ada Lovelace'),
    (b'/%41%2541', 'Hello, A%41'),                      # decoded once
    (b'/a+b', 'Hello, a+b'),
    (b'/a%2Fb', 'Hello, a/b'),
    (b'/%2f', 'Hello, /'),
    (b'/Ada%3Fx', 'Hello, Ada?x'),
    (b'/J%C3%BCrgen', 'Hello, Jürgen'),
    (b'/%e5%b1%b1%f0%9f%98%80', 'Hello, 山😀'),
    (b'/%7Bname%7D', 'Hello, {name}'),                  # put in, not expanded again
    (b'/%3Cscript%3E', 'Hello, <script>'),
    (b'/healthz', 'Hello, healthz'),
    (b'/metrics', 'Hello, metrics'),
    (b"/-._~!$&'()*,;=:@", "Hello, -._~!$&'()*,;=:@"),
)

# target, status
REFUSED = (
    *((b'/x' + name, 400) for name in (
        b'%00', b'%0A', b'%0d%0aX:y', b'%09', b'%1B', b'%7F', b'%C2%80', b'%C2%9F',         # control characters
        b'%80', b'%C3', b'%C3%28', b'%C0%AF', b'%E0%80%AF', b'%ED%A0%80', b'%F4%90%80%80', b'%FF',  # no UTF-8
        b'%', b'%4', b'%4G', b'%G4', b'%zz', b'%u0041', b'%%41', b'%+1', b'% 1',            # no escape
        b'\xc3\xbc', b'\x7f', b'#f')),                                                      # no URI
    (b'/a/b', 404), (b'/a/', 404), (b'//', 404), (b'//a', 404), (b'/a/b/c?d', 404), (b'/a%2Fb/c', 404),
)

OTHER_METHODS = ('POST', 'PUT', 'DELETE', 'PATCH', 'OPTIONS', 'TRACE')


def request(target=b'/', method='GET', *fields, version='1.1', body=b''):
    lines = [b'%s %s HTTP/%s' % (method.encode(), target, version.encode()), b'Host: localhost',
             *(field.encode() for field in fields)]
    return b'\r\n'.join(lines) + b'\r\n\r\n' + body


def masked(raw):
    return re.sub(rb'\r\nDate: [^\r]*', b'\r\nDate: -', raw)


class Daemon(unittest.TestCase):
    """One daemon for the cases of a class."""

    @classmethod
    def setUpClass(cls):
        cls.d = cls.enterClassContext(Echod())

    def ask(self, raw, fin=True, pieces=()):
        """All that RAW is answered with until the server closes, RAW cut before each index in PIECES."""
        with self.d.connect('web') as sock:
            start = 0
            for cut in pieces:
                sock.sendall(raw[start:cut])
                self.d.turn()
                start = cut
            sock.sendall(raw[start:])
            if fin:
                sock.shutdown(socket.SHUT_WR)
            return recv_all(sock)

    def one(self, *args, **options):
        """The one answer to that request."""
        method = args[1] if len(args) > 1 else 'GET'
        answer, = parse_answers(self.ask(request(*args, **options)), [method])
        return answer


class Targets(Daemon):

    def test_greeted(self):
        for target, text in GREETED:
            with self.subTest(target=target):
                answer = self.one(target)
                self.assertEqual((answer.status, answer.body.decode()), (200, text))
                self.assertEqual(header(answer, 'Content-Type').lower(), 'text/plain; charset=utf-8')
                self.assertEqual(header(answer, 'X-Content-Type-Options'), 'nosniff')
                self.assertIsNone(header(answer, 'Transfer-Encoding'))

    def test_refused(self):
        for target, status in REFUSED:
            for method in ('GET', 'HEAD'):
                with self.subTest(target=target, method=method):
                    answer = self.one(target, method)
                    self.assertEqual(answer.status, status)
                    self.assertEqual(header(answer, 'X-Content-Type-Options'), 'nosniff')

    def test_split(self):
        """Each request cut at every byte, and sent byte by byte, is answered as it is whole."""
        cases = [request(target) for target, _ in GREETED if len(target) < 100]
        cases += [request(target) for target, _ in REFUSED]
        cases += [request(b'/Ada', method, 'X-Y: z') for method in ('HEAD', 'POST')]
        cases += [request(b'/Ada', version='1.0'), request(b'/a') + request(b'/b', 'HEAD') + request(b'/c')]
        for raw in cases:
            with self.subTest(raw=raw):
                whole = masked(self.ask(raw))
                self.assertIn(b'HTTP/1.1 ', whole)
                for i in range(1, len(raw)):
                    self.assertEqual(masked(self.ask(raw, pieces=[i])), whole, f'cut before byte {i}')
                self.assertEqual(masked(self.ask(raw, pieces=range(1, len(raw)))), whole, 'byte by byte')


class Methods(Daemon):

    def test_405(self):
        for target in (b'/', b'/Ada'):
            for method in OTHER_METHODS:
                with self.subTest(target=target, method=method):
                    answer = self.one(target, method)
                    self.assertEqual(answer.status, 405)
                    self.assertEqual(sorted(header(answer, 'Allow').split(', ')), ['GET', 'HEAD'])

    def test_404_before_405(self):
        self.assertEqual(self.one(b'/a/b', 'POST').status, 404)

    def test_body_is_no_request(self):
        body = request(b'/smuggled')
        for method in ('GET', 'POST'):
            with self.subTest(method=method):
                raw = request(b'/Ada', method, f'Content-Length: {len(body)}', body=body) + request(b'/next')
                answers = parse_answers(self.ask(raw))
                self.assertEqual(answers[0].status, 200 if method == 'GET' else 405)
                self.assertLess(len(answers), 3)
                if len(answers) == 2:
                    self.assertEqual(answers[1].body, b'Hello, next')
                else:
                    self.assertEqual(header(answers[0], 'Connection').lower(), 'close')

    def test_head(self):
        """The fields of GET, and no body (RFC 9110, section 9.3.2)."""
        for target in (b'/', b'/Ada', b'/%00', b'/a/b'):
            with self.subTest(target=target):
                head = masked(self.ask(request(target, 'HEAD')))
                get = masked(self.ask(request(target)))
                self.assertEqual(head, get[:get.index(b'\r\n\r\n') + 4])


class Connections(Daemon):

    def test_keep_alive(self):
        host, port = self.d.addr('web')
        client = http.client.HTTPConnection(host, port, timeout=TIMEOUT)
        self.addCleanup(client.close)
        client.connect()
        sock = client.sock
        for i in range(50):
            client.request('GET', f'/n{i}')
            answer = client.getresponse()
            self.assertEqual((answer.status, answer.read()), (200, b'Hello, n%d' % i))
            self.assertIs(client.sock, sock)
        silent(sock, 0)

    def test_pipelining(self):
        for depth in (2, 1000):
            with self.subTest(depth=depth), self.d.connect('web') as sock:
                sender = Sender(sock, b''.join(request(b'/n%d' % i) for i in range(depth)))
                answers = parse_answers(recv_all(sock))
                sender.finish()
                self.assertEqual([answer.body for answer in answers], [b'Hello, n%d' % i for i in range(depth)])

    def test_pipelined_error(self):
        """What follows a refused head is not answered."""
        answers = parse_answers(self.ask(request(b'/a') + b'GET /b HTTP/1.1\r\nHost : x\r\n\r\n' + request(b'/c')))
        self.assertEqual([answer.status for answer in answers], [200, 400])

    def test_closing(self):
        """Who closes: version and Connection of the request, Connection of the answer (RFC 9112, section 9.3)."""
        for version, fields, closes in (('1.1', [], False),
                                        ('1.1', ['Connection: close'], True),
                                        ('1.1', ['Connection: x, CLOSE'], True),
                                        ('1.1', ['Connection: keep-alive'], False),
                                        ('1.0', [], True),
                                        ('1.0', ['Connection: keep-alive'], False),
                                        ('1.0', ['Connection: Keep-Alive'], False),
                                        ('1.0', ['Connection: close'], True)):
            with self.subTest(version=version, fields=fields), self.d.connect('web') as sock:
                raw = request(b'/Ada', 'GET', *fields, version=version)
                if closes:
                    sock.sendall(raw + request(b'/lost'))
                else:
                    last = request(b'/last', 'GET', 'Connection: close', version=version)
                    sock.sendall(raw)
                    got = http.client.HTTPResponse(sock)
                    got.begin()
                    self.assertEqual(got.read(), b'Hello, Ada')
                    self.assertEqual(got.getheader('Connection', '').lower(), 'keep-alive' if version == '1.0' else '')
                    silent(sock, 0)
                    sock.sendall(last)
                answer, = parse_answers(recv_all(sock))
                self.assertEqual(answer.body, b'Hello, Ada' if closes else b'Hello, last')
                self.assertEqual(header(answer, 'Connection').lower(), 'close')

    def test_half_closed(self):
        """A client that sends FIN behind its request still gets the answer; half a request gets none, or an error."""
        self.assertEqual(self.one(b'/Ada').body, b'Hello, Ada')
        for answer in parse_answers(self.ask(request(b'/Ada')[:-2])):
            self.assertIn(answer.status, (400, 408))
        self.assertEqual(self.ask(b''), b'')

    def test_error_arrives(self):
        """The answer to a request that is refused at its head is not destroyed by a reset, though the body goes on."""
        length = 64 << 20
        for raw, status in ((request(b'/', 'POST', f'Content-Length: {length}'), (405, 413)),
                            (request(b'/', 'GET', 'bad field'), (400,)),
                            (request(b'/', 'GET', 'Content-Length: x'), (400,)),
                            (request(b'/%zz', 'GET', f'Content-Length: {length}'), (400, 413))):
            for early in (True, False):     # does the client read while it sends, or when it has sent 8 MiB
                with self.subTest(raw=raw, early=early), self.d.connect('web') as sock:
                    sender = Sender(sock, raw + bytes(length if early else 8 << 20), fin=not early)
                    if not early:
                        sender.finish()
                    answer, = parse_answers(recv_all(sock))
                    self.assertIn(answer.status, status)
                    self.assertEqual(header(answer, 'Connection').lower(), 'close')
                    sock.close()
                    sender.join()


class Date(Daemon):

    def check(self, answer, before):
        """IMF-fixdate (RFC 9110, section 5.6.7), not older than BEFORE."""
        date = header(answer, 'Date')
        self.assertRegex(date, r'^(Mon|Tue|Wed|Thu|Fri|Sat|Sun), \d\d (Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec)'
                               r' \d{4} \d\d:\d\d:\d\d GMT$')
        seconds = calendar.timegm(email.utils.parsedate(date))
        self.assertEqual(email.utils.formatdate(seconds, usegmt=True), date)
        self.assertTrue(int(before) - 1 <= seconds <= time.time(), f'{date}, asked at {before}')

    def test_date(self):
        for target in (b'/', b'/a/b', b'/%00'):
            self.check(self.one(target), time.time())

    def test_date_is_not_stale(self):
        with self.d.connect('web') as sock:
            for _ in range(2):
                before = time.time()
                sock.sendall(request())
                head = b''
                while not head.endswith(b'Hello, Anonymous'):
                    head += sock.recv(4096)
                self.check(parse_answers(head)[0], before)
                silent(sock, 2.1)


class Clients(Daemon):

    def curl(self, *args):
        done = subprocess.run(['curl', '-sS', '-m', str(TIMEOUT), *args], capture_output=True, timeout=2 * TIMEOUT)
        self.assertEqual((done.returncode, done.stderr), (0, b''))
        return done.stdout

    @unittest.skipUnless(shutil.which('curl'), 'no curl')
    def test_curl(self):
        url = 'http://%s:%d' % self.d.addr('web')
        for args, want in ((['/'], b'Hello, Anonymous'), (['/Ada?x=y'], b'Hello, Ada'),
                           (['/J%C3%BCrgen'], 'Hello, Jürgen'.encode()), (['/Ada', '-0'], b'Hello, Ada'),
                           (['/a/b', '-o', '/dev/null', '-w', '%{http_code}'], b'404'),
                           (['/', '-d', 'x=y', '-o', '/dev/null', '-w', '%{http_code}'], b'405')):
            with self.subTest(args=args):
                self.assertEqual(self.curl(url + args[0], *args[1:]), want)
        self.assertEqual(self.curl(url + '/Ada', url + '/Bob', '-w', ' %{num_connects} '),
                         b'Hello, Ada 1 Hello, Bob 0 ')
        self.assertRegex(self.curl('-I', url + '/Ada'), rb'^HTTP/1\.1 200 [^\0]*\r\nContent-Length: 10\r\n')


class Configured(unittest.TestCase):

    def test_texts(self):
        with Echod(web=dict(greeting='Grüezi {name}!', anonymous='Niemand')) as d:
            for target, want in ((b'/', 'Grüezi Niemand!'), (b'/Ada', 'Grüezi Ada!')):
                with d.connect('web') as sock:
                    sock.sendall(request(target, 'GET', 'Connection: close'))
                    answer, = parse_answers(recv_all(sock))
                    self.assertEqual(answer.body.decode(), want)

    def test_keepalive_timeout(self):
        idle = 0.3 * SLOW
        with Echod(web=dict(keepalive_timeout=f'{round(idle * 1000)}ms')) as d, d.connect('web') as sock:
            sock.sendall(request(b'/Ada'))
            answer, = parse_answers(recv_all(sock))
            self.assertEqual(answer.body, b'Hello, Ada')


if __name__ == '__main__':
    unittest.main()
