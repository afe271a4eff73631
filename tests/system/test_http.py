"""RFC 9110 and RFC 9112 over real sockets: each case of tests/http/cases, and what a list of bytes cannot say."""

import email.utils
import os
import re
import select
import socket
import threading
import time
import unittest

from harness import SLOW, SOURCE, Answer, Echod, Sender, fill, header, instrumented, parse_answers, recv_all, silent

KIB, MIB = 1024, 1024 * 1024
SYNC = b'GET /sync HTTP/1.1\r\nHost: x\r\n\r\n'
BIG = 4 * KIB   # bytes from which a case is not sent byte by byte

# All that an answer may have: nothing of a request comes back in a head.
FIELDS = {'Date', 'Content-Type', 'X-Content-Type-Options', 'Connection', 'Allow', 'Content-Length'}


# The list of cases, as its head describes it

ESCAPE = re.compile(rb'\\(?:x([0-9a-fA-F]{2})|(.))', re.DOTALL)
NAMES = {b'r': b'\r', b'n': b'\n', b't': b'\t', b'0': b'\0', b'\\': b'\\', b'"': b'"'}
LINE = re.compile(rb'([#!<>])(?:\*(\d+))? (.*)')
WORD = re.compile(rb' +([a-z-]+)(?:=(?:"((?:[^"\\]|\\.)*)"|([^ "]+)))?')


def unescape(text):
    return ESCAPE.sub(lambda match: bytes([int(match[1], 16)]) if match[1] else NAMES[match[2]], text)


class Expected:
    """A line "< STATUS WORDS"."""

    def __init__(self, line):
        status, words = re.fullmatch(rb'(\d{3})((?: .*)?)', line).groups()
        if WORD.sub(b'', words):
            raise ValueError(f'no words: {WORD.sub(b"", words)}')
        self.status = int(status)
        self.words = [(name.decode(), unescape(quoted or plain)) for name, quoted, plain in WORD.findall(words)]

    def __contains__(self, name):
        return name in dict(self.words)

    def check(self, test, answer):
        test.assertEqual(answer.status, self.status, answer)
        closes = (header(answer, 'Connection') or '').lower() == 'close'
        test.assertEqual(closes, 'close' in self, answer)
        for name, value in self.words:
            if name == 'body':
                test.assertEqual(answer.body, value)
            elif name == 'header':
                test.assertIn(tuple(value.decode().split(': ', 1)), answer.headers)
            elif name == 'no-header':
                test.assertIsNone(header(answer, value.decode()))
            else:
                test.assertIn(name, ('close', 'no-body'))


class Case:
    """A paragraph with something to send."""

    def __init__(self, lines):
        self.title = self.settings = self.raw = b''
        self.expected = []
        for line in lines:
            mark, times, text = LINE.fullmatch(line).groups()
            times = int(times or 1)
            if mark == b'#':
                self.title = self.title or text
            elif mark == b'!':
                self.settings += text + b'\n'
            elif mark == b'>':
                self.raw += unescape(text) * times
            else:
                self.expected += [Expected(text)] * times
        self.closes = 'close' in self.expected[-1]


def read_cases():
    with open(os.path.join(SOURCE, 'tests', 'http', 'cases'), 'rb') as file:
        paragraphs = [part.split(b'\n') for part in re.split(rb'\n\n+', file.read().strip(b'\n'))]
    return [Case(lines) for lines in paragraphs if any(line.startswith(b'>') for line in lines)]


CASES = read_cases()
SYNCED = Expected(b'200 body="Hello, sync"')


# Answers

def take_answer(test, raw, no_body):
    """The first answer in RAW, and what is behind it; None while it is not whole."""
    head, end, rest = raw.partition(b'\r\n\r\n')
    if not end:
        return None
    status, *fields = head.decode('ascii').split('\r\n')
    test.assertRegex(status, r'^HTTP/1\.1 \d{3} [ -~]+$')
    for field in fields:
        test.assertRegex(field, r'^[A-Za-z-]+: [!-~]([ -~]*[!-~])?$')
    answer = Answer(int(status[9:12]), [tuple(field.split(': ', 1)) for field in fields], b'')
    length = 0 if no_body else int(header(answer, 'Content-Length') or 0)
    if len(rest) < length:
        return None
    return answer._replace(body=rest[:length]), rest[length:]


def check_always(test, answer):
    """What holds for every answer."""
    names = [name for name, _ in answer.headers]
    test.assertLessEqual(set(names), FIELDS)
    test.assertEqual(len(names), len(set(names)), names)
    if answer.status < 200:
        test.assertEqual(names, [])
        return
    test.assertRegex(header(answer, 'Date'), r'^(Mon|Tue|Wed|Thu|Fri|Sat|Sun), \d\d [A-Z][a-z]{2} \d{4} '
                                             r'\d\d:\d\d:\d\d GMT$')
    if answer.status != 304:
        test.assertEqual(header(answer, 'Content-Type'), 'text/plain; charset=utf-8')
        test.assertEqual(header(answer, 'X-Content-Type-Options'), 'nosniff')
        test.assertRegex(header(answer, 'Content-Length'), r'^\d+$')
    if answer.status >= 400 and answer.body:
        test.assertTrue(answer.body.startswith(b'%d ' % answer.status) and answer.body.endswith(b'\n'), answer.body)


def receive(test, sock, expected, raw=b''):
    """Reads and checks just the answers that are EXPECTED; gives the bytes behind them that came too."""
    for one in expected:
        while not (taken := take_answer(test, raw, 'no-body' in one)):
            part = sock.recv(1 << 16)
            test.assertTrue(part, f'closed instead of {one.status}, behind {raw}')
            raw += part
        answer, raw = taken
        check_always(test, answer)
        one.check(test, answer)
    return raw


def request(target=b'/Ada', method=b'GET', *fields, body=b''):
    return b'\r\n'.join([method + b' ' + target + b' HTTP/1.1', b'Host: x', *fields, b'', body])


def send_parts(sock, raw, size):
    for start in range(0, len(raw), size):
        sock.sendall(raw[start:start + size])


class EndlessSender(threading.Thread):
    """Sends from a thread of its own until finish(), which raises what went wrong there."""

    def __init__(self, sock):
        super().__init__(daemon=True)
        self.sock, self.error, self.enough = sock, None, threading.Event()
        self.start()

    def run(self):
        try:
            while not self.enough.is_set():
                self.sock.sendall(bytes(64 * KIB))
        except OSError as error:
            self.error = error

    def finish(self):
        self.enough.set()
        self.join()
        if self.error:
            raise self.error


class Cases(unittest.TestCase):
    """Each case, on a listener with its settings."""

    @classmethod
    def setUpClass(cls):
        cls.listeners = {settings: f'l{i}' for i, settings in enumerate(sorted({case.settings for case in CASES}))}
        cls.d = cls.enterClassContext(Echod(**{
            name: {'handler': 'greeting'} | dict(line.split(' = ') for line in settings.decode().splitlines())
            for settings, name in cls.listeners.items()}))

    def talk(self, case, raw, expected, size=None):
        """Sends RAW and SYNC, in parts of SIZE if it is given, and checks all that comes until the connection ends."""
        with self.d.connect(self.listeners[case.settings]) as sock:
            raw += SYNC
            sender = None
            if size:
                send_parts(sock, raw, size)
            else:
                sender = Sender(sock, raw, fin=False)
            rest = receive(self, sock, expected)
            if sender:
                sender.finish()
            if not case.closes:
                self.assertEqual(receive(self, sock, [SYNCED], rest), b'')
                sock.sendall(SYNC)      # still open
                rest = receive(self, sock, [SYNCED])
                sock.shutdown(socket.SHUT_WR)
            self.assertEqual(rest + recv_all(sock), b'')

    def test_titles(self):
        """Each case is named, and named once."""
        titles = [case.title for case in CASES]
        self.assertGreater(len(titles), 500)
        self.assertEqual(len(titles), len(set(titles)))
        for title in titles:
            self.assertRegex(title, rb'^(RFC \d{4} [0-9A-Z.]+(, CVE-[0-9-]+)?|CVE-[0-9-]+|echod): ')

    def test_whole(self):
        for case in CASES:
            with self.subTest(case=case.title):
                self.talk(case, case.raw, case.expected)

    def test_bytes(self):
        for case in CASES:
            with self.subTest(case=case.title):
                if len(case.raw) < BIG:
                    self.talk(case, case.raw, case.expected, 1)
                else:
                    self.talk(case, case.raw, case.expected, len(case.raw) // 7 + 1)

    def test_pipelined(self):
        """Each case twice in a row; one that closes, behind another request."""
        for case in CASES:
            if b'max_requests' in case.settings:
                continue
            with self.subTest(case=case.title):
                if case.closes:
                    self.talk(case, SYNC + case.raw, [SYNCED] + case.expected)
                else:
                    self.talk(case, 2 * case.raw, 2 * case.expected)


class Daemon(unittest.TestCase):
    """One daemon for the tests of a class."""

    @classmethod
    def setUpClass(cls):
        cls.d = cls.enterClassContext(Echod())

    def only_answer(self, sock, *words):
        """Checks that this is all that comes until the server closes."""
        self.assertEqual(receive(self, sock, [Expected(' '.join(words).encode())]) + recv_all(sock), b'')


class Closing(Daemon):
    """RFC 9112, section 9.6: the last answer arrives, and so does every one that was owed."""

    REFUSED = (
        (request(b'/', b'POST', b'Content-Length: 5', b'Content-Length: 5'), '400 close'),
        (request(b'/', b'POST', b'Content-Length: 1000000000'), '413 close'),
        (request(b'/', b'POST', b'Transfer-Encoding: chunked') + b'3b9aca00\r\n', '413 close'),
        (request(b'/', b'POST', b'Transfer-Encoding: chunked') + b'x\r\n', '400 close'),
        (request(b'/', b'POST', b'Transfer-Encoding: gzip, chunked'), '501 close'),
        (request(b'/', b'POST', b'Expect: 200-ok', b'Content-Length: 1000000'), '417 close'),
        (request(b'/', b'BREW'), '501 close'),
        (request(b'/' + b'n' * 9000), '414 close'),
        (request(b'/', b'GET', *[b'A: b'] * 200), '431 close'),
        (request(b'/', b'GET', b'Connection: close'), '200 body="Hello, Anonymous" close'),
        (b'\x16\x03\x01', '400 close'),
    )

    def test_client_that_sends_on(self):
        """The answer is there for a client that reads only when it has sent all of its content, or its end."""
        for raw, words in self.REFUSED:
            for fin in (True, False):
                with self.subTest(raw=raw[:100], fin=fin), self.d.connect('web') as sock:
                    sender = Sender(sock, raw + bytes(4 * MIB), fin)
                    sender.finish()
                    self.only_answer(sock, words)

    def test_client_that_reads_and_sends(self):
        """The answer and the end come, and no reset, to a client that does not stop sending until it has them."""
        for raw, words in self.REFUSED:
            with self.subTest(raw=raw[:100]), self.d.connect('web') as sock:
                sock.sendall(raw)
                sender = EndlessSender(sock)
                self.only_answer(sock, words)
                sender.finish()

    def test_half_closed(self):
        """A client that has closed its side gets all of its answers."""
        for count in (1, 100):
            with self.subTest(count=count), self.d.connect('web') as sock:
                sock.sendall(count * request(b'/Ada', b'GET', b'Content-Length: 5', body=b'hello'))
                sock.shutdown(socket.SHUT_WR)
                rest = receive(self, sock, count * [Expected(b'200 body="Hello, Ada"')])
                self.assertEqual(rest + recv_all(sock), b'')

    def test_half_closed_within(self):
        """RFC 9112, section 8: half a request is answered with 400 at most, and that one says close."""
        whole = request(b'/Ada', b'HEAD', b'Expect: 100-continue', b'Transfer-Encoding: chunked',
                        body=b'5\r\nhello\r\n')
        head = whole.index(b'\r\n\r\n') + 4
        for length in (1, 10, 20, 40, head - 1, head, head + 1, head + 5, len(whole)):
            with self.subTest(raw=whole[:length]), self.d.connect('web') as sock:
                sock.sendall(SYNC + whole[:length])
                sock.shutdown(socket.SHUT_WR)
                continued = [Expected(b'100')] if length >= head else []
                rest = receive(self, sock, [SYNCED] + continued) + recv_all(sock)
                if rest:
                    # to HEAD without content, once it is known to be one
                    answer, rest = take_answer(self, rest, no_body=length >= 5)
                    check_always(self, answer)
                    Expected(b'400 close').check(self, answer)
                self.assertEqual(rest, b'')

    def test_half_closed_between(self):
        """An empty line behind a request, and then the end, is no request (RFC 9112, section 2.2)."""
        with self.d.connect('web') as sock:
            sock.sendall(SYNC + b'\r\n')
            sock.shutdown(socket.SHUT_WR)
            self.assertEqual(receive(self, sock, [SYNCED]) + recv_all(sock), b'')

    def test_nothing(self):
        """A client that sends nothing but its end is sent nothing."""
        with self.d.connect('web') as sock:
            sock.shutdown(socket.SHUT_WR)
            self.assertEqual(recv_all(sock), b'')


class Interim(Daemon):
    """RFC 9110, section 10.1.1."""

    def test_continue_comes_first(self):
        """A client that waits for 100 gets it without content, and the final answer only with it."""
        for fields, body in (((b'Content-Length: 5',), b'hello'),
                             ((b'Transfer-Encoding: chunked',), b'5\r\nhello\r\n0\r\n\r\n')):
            with self.subTest(fields=fields), self.d.connect('web') as sock:
                for _ in range(2):
                    sock.sendall(request(b'/Ada', b'GET', b'Expect: 100-continue', *fields))
                    self.assertEqual(receive(self, sock, [Expected(b'100')]), b'')
                    silent(sock, 0.05)
                    sock.sendall(body)
                    self.assertEqual(receive(self, sock, [Expected(b'200 body="Hello, Ada"')]), b'')

    def test_final_comes_at_once(self):
        """What the head alone decides is told without waiting for content."""
        for fields, words in (((b'Expect: 100-continue', b'Content-Length: 2000000'), '413 close'),
                              ((b'Expect: a miracle', b'Content-Length: 5'), '417 close'),
                              ((b'Expect: 100-continue', b'Content-Length: five'), '400 close')):
            with self.subTest(fields=fields), self.d.connect('web') as sock:
                sock.sendall(request(b'/Ada', b'GET', *fields))
                self.only_answer(sock, words)

    def test_no_answer_before_the_end(self):
        """RFC 9110, section 5.3: nothing is answered before the head is whole, and before the content is."""
        whole = request(b'/Ada', b'POST', b'Content-Length: 5', body=b'hello')
        for cut in (len(whole) - 1, len(whole) - 5, len(whole) - 6, 10):
            with self.subTest(cut=cut), self.d.connect('web') as sock:
                sock.sendall(whole[:cut])
                silent(sock, 0.05)
                sock.sendall(whole[cut:])
                self.assertEqual(receive(self, sock, [Expected(b'405')]), b'')


class Timeouts(unittest.TestCase):

    SHORT = 0.3 * SLOW
    LONG = SHORT + 1.2      # where a client must be in time, though it be stopped for a while

    @classmethod
    def setUpClass(cls):
        short = dict(handler='greeting') | {key: f'{round(60 * SLOW)}s' for key in (
            'header_timeout', 'body_timeout', 'keepalive_timeout')}
        limit, long = (f'{round(seconds * 1000)}ms' for seconds in (cls.SHORT, cls.LONG))
        cls.d = cls.enterClassContext(Echod(head=short | dict(header_timeout=limit),
                                            heads=short | dict(header_timeout=long),
                                            body=short | dict(body_timeout=limit),
                                            idle=short | dict(keepalive_timeout=limit),
                                            rest=short | dict(keepalive_timeout=long)))

    def dribble(self, sock, data, seconds):
        """Sends DATA byte by byte within SECONDS, until something comes."""
        start = time.monotonic()
        for i in range(len(data)):
            sock.sendall(data[i:i + 1])
            left = start + seconds * (i + 1) / len(data) - time.monotonic()
            if select.select([sock], [], [], max(left, 0))[0]:
                break

    def cut(self, sock, data, answer, begin=b''):
        """A client that would take ten times as long as it may for DATA, which it sends behind BEGIN, is cut in time."""
        start = time.monotonic()
        sock.sendall(begin)
        if SYNC in begin:
            self.assertEqual(receive(self, sock, [SYNCED]), b'')
        self.dribble(sock, data, 10 * self.SHORT)
        taken = time.monotonic() - start
        self.assertGreater(taken, 0.9 * self.SHORT)
        self.assertLess(taken, 3 * self.SHORT + 1.5)
        self.assertEqual(receive(self, sock, [Expected(answer)]) + recv_all(sock), b'')

    def test_header_timeout(self):
        """RFC 9110, section 15.5.9: absolute, from the first byte, whatever it is; a byte does not prolong it."""
        for data in (request(b'/Ada'), b'\r\n' + request(b'/Ada'), b'G' * 20, b'GET /' + b'n' * 30,
                     request(b'/Ada', b'GET', *[b'A: b'] * 10)):
            with self.subTest(data=data), self.d.connect('head') as sock:
                self.cut(sock, data[:-1], b'408 close')

    def test_header_timeout_of_head(self):
        with self.d.connect('head') as sock:
            # whoever is cut before the method is told with a body
            self.cut(sock, request(b'/Ada', b'HEAD')[5:-1], b'408 no-body close', b'HEAD ')

    def test_header_timeout_of_the_next(self):
        """The time begins with a request, not with the connection nor with the request before."""
        with self.d.connect('head') as early, self.d.connect('heads') as sock:
            silent(sock, 1.2 * self.LONG)
            for _ in range(3):
                self.dribble(sock, SYNC, 0.4 * self.LONG)
                self.assertEqual(receive(self, sock, [SYNCED]), b'')
            self.cut(early, request(b'/Ada')[:-1], b'408 close')

    def test_header_timeout_behind_another(self):
        """The beginning of a head that comes together with a whole request."""
        with self.d.connect('head') as sock:
            self.cut(sock, b'da HTTP/1.1\r\n' + 5 * b'A: b\r\n', b'408 close', SYNC + b'GET /A')

    def test_header_timeout_is_not_for_content(self):
        with self.d.connect('head') as sock:
            sock.sendall(request(b'/Ada', b'GET', b'Content-Length: 20'))
            self.dribble(sock, bytes(20), 1.5 * self.SHORT)
            self.assertEqual(receive(self, sock, [Expected(b'200 body="Hello, Ada"')]), b'')

    def test_body_timeout(self):
        """Absolute, from the end of the head."""
        for method, answer in ((b'POST', b'408 close'), (b'HEAD', b'408 no-body close')):
            for field, data in ((b'Content-Length: 40', b'b' * 39),
                                (b'Transfer-Encoding: chunked', 10 * b'1\r\nb\r\n'),
                                (b'Transfer-Encoding: chunked', b'1;' + b'a' * 40),
                                (b'Transfer-Encoding: chunked', b'0\r\n' + 10 * b'A: b\r\n')):
                with self.subTest(method=method, data=data), self.d.connect('body') as sock:
                    self.cut(sock, data, answer, request(b'/Ada', method, field))

    def test_body_timeout_without_content(self):
        """A client that sends a head and then nothing."""
        with self.d.connect('body') as sock:
            sock.sendall(request(b'/Ada', b'POST', b'Expect: 100-continue', b'Content-Length: 5'))
            rest = receive(self, sock, [Expected(b'100'), Expected(b'408 close')])
            self.assertEqual(rest + recv_all(sock), b'')

    def test_body_timeout_is_not_for_heads(self):
        with self.d.connect('body') as sock:
            for _ in range(2):
                self.dribble(sock, SYNC, 0.7 * self.SHORT)
                self.assertEqual(receive(self, sock, [SYNCED]), b'')

    def test_keepalive_timeout(self):
        """RFC 9112, section 9.5: a connection that waits for a request is closed without a word."""
        for requests in range(3):
            start = time.monotonic()
            with self.subTest(requests=requests), self.d.connect('idle') as sock:
                for _ in range(requests):
                    start = time.monotonic()
                    sock.sendall(SYNC)
                    self.assertEqual(receive(self, sock, [SYNCED]), b'')
                self.assertEqual(recv_all(sock), b'')
                taken = time.monotonic() - start
                self.assertGreater(taken, 0.9 * self.SHORT)
                self.assertLess(taken, 3 * self.SHORT + 1.5)

    def test_keepalive_timeout_begins_anew(self):
        """Requests that keep coming keep the connection; one that takes long is not idle."""
        with self.d.connect('rest') as sock:
            for _ in range(3):
                silent(sock, 0.4 * self.LONG)
                sock.sendall(SYNC)
                self.assertEqual(receive(self, sock, [SYNCED]), b'')
            self.dribble(sock, request(b'/Ada', b'GET', b'Content-Length: 20', body=bytes(20)), 1.5 * self.LONG)
            self.assertEqual(receive(self, sock, [Expected(b'200 body="Hello, Ada"')]), b'')


class Pipelines(Daemon):
    """RFC 9112, section 9.3.2: clients that send without reading."""

    def test_memory(self):
        """A thousand requests, answers of 4 MB: 256 KiB a connection at most, and all is answered once it is read."""
        count, clients, name = 1000, 4, b'n' * (4 * KIB)
        raw = count * request(b'/' + name)
        self.d.turn()
        before = self.d.rss()
        socks = [self.d.connect('web', buffers=64 * KIB) for _ in range(clients)]
        sent = fill(socks, raw)
        self.assertLess(max(sent), len(raw), 'never paused')
        if not instrumented():
            self.assertLess(self.d.rss() - before, clients * 256 * KIB + MIB)
        self.d.turn()   # others are served
        for sock, start in zip(socks, sent):
            sender = Sender(sock, raw[start:])
            answers = parse_answers(recv_all(sock))
            sender.finish()
            self.assertEqual([answer.status for answer in answers], count * [200])
            self.assertEqual({answer.body for answer in answers}, {b'Hello, ' + name})

    def test_small_requests(self):
        """A hundred thousand, each of which is answered in its place, wherever the pauses cut them."""
        count = 100000
        raw = b''.join(request(b'/%d' % i) for i in range(count))
        sock = self.d.connect('web', buffers=16 * KIB)
        sent, = fill([sock], raw)
        self.assertLess(sent, len(raw), 'never paused')
        sender = Sender(sock, raw[sent:])
        got = recv_all(sock)
        sender.finish()
        numbers = re.findall(rb'\r\n\r\nHello, (\d+)', got)
        self.assertEqual(numbers, [b'%d' % i for i in range(count)])


class Heads(Daemon):

    def ask(self, raw, method='GET'):
        with self.d.connect('web') as sock:
            sock.sendall(raw)
            sock.shutdown(socket.SHUT_WR)
            answer, = parse_answers(recv_all(sock), [method])
            return answer

    def test_head_is_get_without_content(self):
        """RFC 9110, section 9.3.2: the same status and the same fields."""
        for target in (b'/', b'/Ada', b'/' + b'n' * 2000, b'/a/b', b'/%00', b'/%zz', b'*', b'/' + b'n' * 9000):
            for fields in ((), (b'Connection: close',), (b'Content-Length: x',), (b'Expect: x',), (b'Host: y',),
                           (b'Content-Length: 2000000',), (b'A: b',) * 200):
                with self.subTest(target=target[:100], fields=fields[:1]):
                    get = self.ask(request(target, b'GET', *fields))
                    head = self.ask(request(target, b'HEAD', *fields), 'HEAD')
                    self.assertEqual(head.status, get.status)
                    self.assertEqual([field for field in head.headers if field[0] != 'Date'],
                                     [field for field in get.headers if field[0] != 'Date'])
                    self.assertEqual(header(head, 'Content-Length'), str(len(get.body)))

    def test_date(self):
        """RFC 9110, section 6.6.1: the time of the answer, also on a connection that stays."""
        with self.d.connect('web') as sock:
            for raw in (SYNC, b'', SYNC, request(b'/a/b'), request(b'/%zz')):
                if not raw:
                    silent(sock, 1.1)   # a second passes
                    continue
                before = int(time.time() - 0.05)    # the daemon's clock may be a coarse one
                sock.sendall(raw)
                data = b''
                while not (taken := take_answer(self, data, False)):
                    data += sock.recv(1 << 16)
                date = email.utils.parsedate_to_datetime(header(taken[0], 'Date')).timestamp()
                self.assertTrue(before <= date <= time.time(), (before, date))
                self.assertEqual(email.utils.formatdate(date, usegmt=True), header(taken[0], 'Date'))


if __name__ == '__main__':
    unittest.main()
