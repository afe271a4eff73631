"""The admin listener: health, readiness, the configuration in force, and metrics that count exactly."""

import http.client
import os
import re
import select
import shutil
import socket
import subprocess
import time
import unittest

from harness import (SLOW, SOURCE, TIMEOUT, Echod, connect, fill, header, instrumented, parse_answers, recv_all,
                     recv_same, reset, run, silent, stopped_worker, wait_until)

STUCK = 5       # seconds after which a loop counts as standing still
PROMTOOL = os.environ.get('ECHOD_PROMTOOL') or shutil.which('promtool')


def answer(sock):
    """The status of an answer on a connection that goes on."""
    response = http.client.HTTPResponse(sock)
    response.begin()
    response.read()
    return response.status


def get(sock, target):
    sock.sendall(f'GET {target} HTTP/1.1\r\nHost: localhost\r\n\r\n'.encode())
    return answer(sock)


class Pages(unittest.TestCase):

    def test_answers(self):
        text = 'text/plain; charset=utf-8'
        with Echod(admin={}) as d:
            for target, body, kind in (('/healthz', b'ok\n', text), ('/readyz', b'ready\n', text),
                                       ('/metrics', None, 'text/plain; version=0.0.4; charset=utf-8'),
                                       ('/config', None, text), ('/healthz?verbose=1', b'ok\n', text)):
                got = d.get(target)
                self.assertEqual((got.status, header(got, 'Content-Type')), (200, kind), target)
                if body:
                    self.assertEqual(got.body, body)
                head = d.get(target, method='HEAD')
                self.assertEqual((head.status, head.body, header(head, 'Content-Type')), (200, b'', kind), target)
                if body:
                    self.assertEqual(header(head, 'Content-Length'), str(len(body)))
                for method in 'POST', 'DELETE':
                    refused = d.get(target, method=method)
                    self.assertEqual((refused.status, header(refused, 'Allow')), (405, 'GET, HEAD'), target)
            for target in '/', '/metrics/', '/Metrics', '/healthz/x', '/favicon.ico':
                self.assertEqual(d.get(target).status, 404)

    def test_many_listeners(self):
        """An answer has no size of its own that it could outgrow."""
        names = [f'{i:032}' for i in range(300)]
        with Echod(**{name: {} for name in names}, admin={}) as d:
            self.assertEqual(len(d.metrics().labels('echod_connections_open')), 301)
            self.assertEqual(d.get('/config').body.count(b'[listener '), 301)
            with connect(d.addr('admin')) as sock:      # and it may be asked for again before it was read
                sock.sendall(b'GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n' * 5)
                sock.shutdown(socket.SHUT_WR)
                answers = parse_answers(recv_all(sock))
            self.assertEqual([got.status for got in answers], [200] * 5)

    def test_config(self):
        """What echod -T prints of the file in force."""
        with Echod(server=dict(max_connections=77), echo={}, admin=dict(max_target=99)) as d:
            for _ in range(2):
                dump = run('-T', '-c', d.path('echod.ini'))
                self.assertEqual(dump.returncode, 0)
                self.assertEqual(d.get('/config').body.decode(), dump.stdout)
                d.reload(server=dict(max_connections=78), more={}, admin={})
            self.assertIn('max_connections = 78', dump.stdout)

    def test_ready(self):
        """Not ready from the signal on, but healthy, and serving until drain_delay is over."""
        delay = 1.5 + SLOW / 2
        for threads in 1, 3:
            with self.subTest(threads=threads), \
                 Echod(server=dict(threads=threads, drain_delay=f'{round(delay * 1000)}ms'), echo={}, admin={}) as d:
                kept = d.connect('admin')
                self.assertEqual(get(kept, '/readyz'), 200)
                fds = d.fds()
                start = time.monotonic()
                d.kill()
                self.assertEqual(d.wait_log('not ready').fields, dict(delay=f'{delay:.6f}'))
                self.assertEqual(get(kept, '/readyz'), 503)
                self.assertEqual([d.get(target).status for target in ('/readyz', '/healthz')], [503, 200])
                self.assertEqual(d.get('/readyz').body, b'stopping\n')
                with connect(d.addr('echo')) as sock:
                    sock.sendall(b'x')
                    sock.shutdown(socket.SHUT_WR)
                    recv_same(sock, b'x')
                late = connect(d.addr('admin'))
                late.sendall(b'GET /readyz HTTP/1.1\r\n')
                d.wait_log('draining')
                self.assertGreater(time.monotonic() - start, delay - 0.01)
                # every thread knows once its two listeners are closed; "late" has come, "kept" gone
                wait_until(lambda: d.fds() <= fds - 2 * threads, lambda: 'still listening')
                late.sendall(b'Host: localhost\r\n\r\n')
                last, = parse_answers(recv_all(late))
                late.close()
                self.assertEqual((last.status, header(last, 'Connection')), (503, 'close'))
                self.assertEqual(recv_all(kept), b'')
                d.wait()
                self.assertRaises(ConnectionRefusedError, connect, d.addr('echo'))

    def test_second_signal_while_not_ready(self):
        with Echod(server=dict(drain_delay='1h'), echo={}) as d:
            d.kill()
            d.wait_log('not ready')
            d.kill()
            d.wait()

    def test_stuck_loop(self):
        """503 when any loop stands still, 200 when it turns again."""
        with Echod(server=dict(threads=2), admin={}) as d:
            socks = [d.connect('admin') for _ in range(32)]
            self.assertEqual({get(sock, '/healthz') for sock in socks}, {200})
            with stopped_worker(d):
                for sock in socks:
                    sock.sendall(b'GET /readyz HTTP/1.1\r\nHost: a\r\n\r\n')
                served = select.select(socks, [], [], TIMEOUT)[0][0]
                self.assertEqual(answer(served), 200)
                start = time.monotonic()
                wait_until(lambda: get(served, '/healthz') == 503, lambda: 'healthy', TIMEOUT)
                self.assertGreater(time.monotonic() - start, STUCK - 2)
            wait_until(lambda: get(served, '/healthz') == 200, lambda: 'not healthy', TIMEOUT)


def series(metrics, name, label):
    """The values of a label, over all samples of a family."""
    return {labels[label] for labels in metrics.labels(name)}


class Metrics(unittest.TestCase):

    def balanced(self, metrics, **labels):
        accepted, still_open, closed = metrics.connections(**labels)
        self.assertEqual(accepted, still_open + closed)
        self.assertEqual(metrics['echod_connection_duration_seconds_count', labels], closed)

    def test_manual(self):
        """Families, reasons, results and logs are those of the manual."""
        with open(os.path.join(SOURCE, 'src', 'echod.8'), encoding='utf-8') as file:
            manual = file.read()
        with Echod(web={}, admin={}) as d:
            d.metrics()
            metrics = d.metrics()
        section = re.search(r'^\.Sh METRICS$(.*?)^\.Sh ', manual, re.S | re.M)[1]
        self.assertEqual(set(re.findall(r'\bechod_\w+', section)), set(metrics.types))
        for family, reasons in (('echod_connections_closed_total', '-width finished'),
                                ('echod_connections_refused_total', '-width listener_max_connections')):
            told = manual[manual.index(reasons):]
            self.assertEqual(set(re.findall(r'^\.It Li (\w+)$', told[:told.index('.El')], re.M)),
                             series(metrics, family, 'reason'))
        for family, kind in metrics.types.items():
            self.assertEqual(kind, 'histogram' if family.endswith('_seconds') and 'timestamp' not in family else
                             'counter' if family.endswith('_total') else 'gauge')

    @unittest.skipUnless(PROMTOOL, 'no promtool')
    def test_promtool(self):
        with Echod(server=dict(threads=2), echo={}, web={}, admin={}) as d:
            d.metrics()
            for text in d.metrics().text, d.metrics().text:
                done = subprocess.run([PROMTOOL, 'check', 'metrics'], input=text, capture_output=True, encoding='utf-8')
                self.assertEqual((done.returncode, done.stdout, done.stderr), (0, '', ''))

    def test_process(self):
        start = time.time()
        with Echod(server=dict(threads=3), admin={}) as d:
            metrics = d.metrics()
            version = run('--version').stdout.split()[1]
            self.assertEqual(metrics['echod_build_info', {'version': version}], 1)
            self.assertTrue(start - 1 <= metrics['echod_config_timestamp_seconds'] <= time.time() + 1)
            self.assertEqual(series(metrics, 'echod_event_loop_lag_seconds_count', 'thread'), {'0', '1', '2'})
            before = time.time()
            d.reload()
            again = d.metrics()
            self.assertGreater(again['echod_config_timestamp_seconds'], before - 0.01)
            self.assertEqual(again['echod_reloads_total', {'result': 'success'}], 1)
            self.assertEqual(again['echod_reloads_total'], 1)
            d.wait_metrics(lambda m: m['echod_event_loop_lag_seconds_count', {'thread': '2'}] >= 2)

    def test_endings(self):
        """Each connection is counted once, by the reason that the log tells; and each byte."""
        data = bytes(range(256)) * 1000
        for threads in 1, 3:
            server = dict(threads=threads)
            idle = dict(idle_timeout='150ms')
            with self.subTest(threads=threads), Echod(server=server, echo={}, idle=idle, web={}, slow={}, admin={}) as d:
                for _ in range(3):                  # fin
                    sock = d.connect('echo')
                    sock.sendall(data)
                    sock.shutdown(socket.SHUT_WR)
                    recv_same(sock, data)
                for _ in range(2):                  # reset
                    sock = d.connect('echo')
                    sock.sendall(b'x')
                    recv_same(sock, b'x', eof=False)
                    reset(sock)
                self.assertEqual(recv_all(d.connect('idle')), b'')      # idle, and silent
                d.connect('slow').close()           # silent
                sock = d.connect('web')             # finished
                sock.sendall(b'GET /Ada HTTP/1.0\r\n\r\n')
                answered = len(recv_all(sock))
                sock.close()
                held = d.connect('slow', buffers=16384)
                d.wait_log('closed', count=8)
                sent, = fill([held], bytes(1 << 24))
                metrics = d.wait_metrics(lambda m: m['echod_connections_open', {'handler': 'echo'}] == 1 and
                                         m['echod_connections_open', {'listener': 'web'}] == 0 and
                                         m['echod_bytes_sent_total', {'listener': 'slow'}] > 4096)
                for name, reasons in (('echo', dict(fin=3, reset=2)), ('idle', dict(idle=1)), ('web', dict(finished=1)),
                                      ('slow', dict(fin=1))):
                    listener = dict(listener=name)
                    for reason in series(metrics, 'echod_connections_closed_total', 'reason'):
                        count = metrics['echod_connections_closed_total', listener | dict(reason=reason)]
                        self.assertEqual(count, reasons.get(reason, 0), (name, reason))
                        self.assertEqual(count, len(d.log_lines('closed', listener=name, reason=reason)))
                    self.balanced(metrics, **listener)
                self.balanced(metrics)
                for name, count in ('echo', 0), ('idle', 1), ('slow', 1), ('web', 0):
                    self.assertEqual(metrics['echod_connections_silent_total', dict(listener=name)], count)
                for direction in 'received', 'sent':
                    family = f'echod_bytes_{direction}_total'
                    self.assertEqual(metrics[family, dict(listener='echo')], 3 * len(data) + 2)
                    self.assertTrue(4096 < metrics[family, dict(listener='slow')] <= sent)
                self.assertEqual(metrics['echod_bytes_received_total', dict(listener='web')], 21)
                self.assertEqual(metrics['echod_bytes_sent_total', dict(listener='web')], answered)
                self.assertEqual(metrics['echod_connections_refused_total'], 0)
                duration = 'echod_connection_duration_seconds'
                late = metrics[duration + '_bucket', dict(listener='idle', le='+Inf')] - \
                    metrics[duration + '_bucket', dict(listener='idle', le='0.1')]
                self.assertEqual(late, 1)
                self.assertGreater(metrics[duration + '_sum', dict(listener='idle')], 0.15)

    def test_requests(self):
        """By status, also those that were not understood; one duration each, from the first byte on."""
        with Echod(web=dict(header_timeout='200ms', max_target=64), admin={}) as d:
            asked = {200: b'GET /a HTTP/1.1\r\nHost: a\r\n\r\n', 404: b'GET /a/b HTTP/1.1\r\nHost: a\r\n\r\n',
                     405: b'PUT /a HTTP/1.1\r\nHost: a\r\n\r\n'}
            begun = time.monotonic()
            with connect(d.addr('web')) as sock:    # pipelined
                sock.sendall(asked[200] * 500 + asked[404] * 20 + asked[405] * 3)
                sock.shutdown(socket.SHUT_WR)
                self.assertEqual(len(parse_answers(recv_all(sock))), 523)
            piped = time.monotonic()
            for raw, status in ((b'nonsense\r\n\r\n', 400), (b'GET /%s HTTP/1.1\r\nHost: a\r\n\r\n' % (b'x' * 99), 414),
                                (b'GET /a HTTP/1.1\r\nHo', 408)):
                with connect(d.addr('web')) as sock:
                    sock.sendall(raw)
                    self.assertEqual(parse_answers(recv_all(sock))[0].status, status)
            with connect(d.addr('web')) as sock:    # the body comes late
                sock.sendall(b'GET /a HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 1\r\n\r\n')
                silent(sock, 0.3)
                sock.sendall(b'x')
                self.assertEqual(parse_answers(recv_all(sock))[0].status, 200)
            metrics = d.metrics()
            web = dict(listener='web', handler='greeting')
            counts = {int(labels['status']): metrics['echod_requests_total', labels]
                      for labels in metrics.labels('echod_requests_total') if labels['listener'] == 'web'}
            self.assertEqual(counts, {200: 501, 404: 20, 405: 3, 400: 1, 414: 1, 408: 1})
            name = 'echod_request_duration_seconds'
            self.assertEqual(metrics[name + '_count', web], 527)
            slow = metrics[name + '_count', web] - metrics[name + '_bucket', web | dict(le='0.1')]
            self.assertGreaterEqual(slow, 2)
            if piped - begun < 0.1:     # then no pipelined one is slow; two others are if the machine stood still
                self.assertLessEqual(slow, 4)
            self.assertGreater(metrics[name + '_sum', web], 0.5)
            # each of the pipelined ones counts the time of all of them at most
            self.assertLess(metrics[name + '_sum', web], 523 * (piped - begun) + time.monotonic() - piped)
            before = d.metrics()['echod_requests_total', dict(listener='admin')]
            d.get('/nonsense')
            self.assertEqual(d.metrics()['echod_requests_total', dict(listener='admin')], before + 2)

    def test_bounded_labels(self):
        """Nothing that a stranger sends makes a series."""
        with Echod(web={}, admin={}) as d:
            d.metrics()
            before = len(d.metrics().samples)
            with connect(d.addr('web')) as sock:
                sock.sendall(b'GET / HTTP/1.1\r\nHost: a\r\n\r\n')
                for i in range(50):
                    sock.sendall(b'GET /%d HTTP/1.1\r\nHost: h%d\r\nUser-Agent: a%d\r\n\r\n' % (i, i, i))
                sock.shutdown(socket.SHUT_WR)
                recv_all(sock)
            durations = len([1 for name, labels in d.metrics().samples
                             if 'request_duration' in name and ('listener', 'web') in labels])
            self.assertEqual(len(d.metrics().samples), before + 1 + durations)

    def test_over_reloads(self):
        """Counts go on for a listener that keeps name and handler; of one that is gone until its connections are."""
        with Echod(echo={}, gone={}, admin={}) as d:
            live = [d.connect(name) for name in ('echo', 'gone', 'gone')]
            for sock in live:
                sock.sendall(b'abc')
                recv_same(sock, b'abc', eof=False)
            for number in range(3):
                d.reload(admin=dict(max_headers=50 + number), echo=dict(address='127.0.0.1:0', idle_timeout='9m'))
                for sock in live:
                    sock.sendall(b'x')
                    recv_same(sock, b'x', eof=False)
                metrics = d.metrics()
                for name, count in ('echo', 1), ('gone', 2):
                    self.assertEqual(metrics.connections(listener=name), (count, count, 0))
                    self.assertEqual(metrics['echod_bytes_sent_total', dict(listener=name)], count * (4 + number))
            for sock in live:
                sock.close()
            d.wait_metrics(lambda m: 'gone' not in series(m, 'echod_connections_open', 'listener'))
            self.assertEqual(d.metrics().connections(listener='echo'), (1, 0, 1))
            d.reload(admin={}, echo=dict(handler='greeting'))
            metrics = d.wait_metrics(lambda m: len(m.labels('echod_connections_open')) == 2)
            self.assertIn(dict(listener='echo', handler='greeting'), metrics.labels('echod_connections_open'))
            self.assertEqual(metrics.connections(listener='echo'), (0, 0, 0))

    def test_lost_lines(self):
        """Of the access log."""
        with Echod(server=dict(access_log='/dev/full'), web={}, admin={}) as d:
            d.expect_log('access log lost')
            with connect(d.addr('web')) as sock:
                sock.sendall(b'GET / HTTP/1.1\r\nHost: a\r\n\r\n' * 300)
                sock.shutdown(socket.SHUT_WR)
                recv_all(sock)
            metrics = d.wait_metrics(lambda m: m['echod_log_lines_lost_total', dict(log='access')] >= 300)
            self.assertEqual(metrics['echod_log_lines_lost_total', dict(log='stderr')], 0)
            d.reload(server=dict(access_log='off'), web={}, admin={})
            lost = d.metrics()['echod_log_lines_lost_total']
            self.assertGreaterEqual(lost, 300)
            self.assertEqual(d.metrics()['echod_log_lines_lost_total'], lost)

    def test_under_load(self):
        """Scrapes while other threads count are whole, and never go back."""
        with Echod(server=dict(threads=3), echo={}, admin={}) as d:
            socks = [d.connect('echo') for _ in range(12)]
            last = 0
            for number in range(1, 5 if instrumented() else 30):
                for sock in socks:
                    sock.sendall(bytes(1000))
                now = d.metrics()['echod_bytes_sent_total', dict(listener='echo')]
                self.assertGreaterEqual(now, last)
                last = now
                for sock in socks:
                    recv_same(sock, bytes(1000), eof=False)
                d.wait_metrics(lambda m: m['echod_bytes_sent_total', dict(listener='echo')] == number * 12000)


if __name__ == '__main__':
    unittest.main()
