"""echod as a service: runs as root in the container that `run` boots, against the systemd there.

Each test begins with the units stopped and as they were installed. What it changes is /etc/echod/echod.ini and
drop-ins below /run, and goes with it.
"""

import contextlib
import ctypes
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import traceback
import unittest

sys.path.insert(1, os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), 'system'))
from harness import TIMEOUT, Sender, header, ini, parse_answers, recv_all, recv_same  # noqa: E402

CONFIG = '/etc/echod/echod.ini'
SAMPLE = '/tests/echod.ini' # as it was installed
DROPINS = '/run/systemd/system'
SHIPPED = '/usr/share/echod/systemd'
SOCKETS = ['echod.socket', 'echod-web.socket']
ECHO, WEB = ('127.0.0.1', 8888), ('127.0.0.1', 8080)
ECHO_PATH, WEB_PATH = '/run/echod-echo.sock', '/run/echod-web.sock'
BOUND = dict(echo=dict(address='127.0.0.1:8888'), web=dict(address='127.0.0.1:8080'))
ACTIVATED = dict(echo=dict(address='systemd:echo'), web=dict(address='systemd:web'))


def run(*command, status=0):
    """stdout of COMMAND, which must end with that status; None: with any but 0."""
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=10 * TIMEOUT)
    if done.returncode == 0 if status is None else done.returncode != status:
        raise AssertionError(f'{command}: status {done.returncode}\n{done.stdout}{done.stderr}')
    return done.stdout


def systemctl(*args, **options):
    return run('systemctl', *args, **options)


def show(key, unit='echod.service'):
    return systemctl('show', '--value', '-p', key, unit).strip()


def configure(text):
    with open(CONFIG, 'w', encoding='utf-8') as file:
        file.write(text)


def drop_in(text, unit='echod.service', name='test.conf'):
    os.makedirs(f'{DROPINS}/{unit}.d', exist_ok=True)
    with open(f'{DROPINS}/{unit}.d/{name}', 'w', encoding='utf-8') as file:
        file.write(text)
    systemctl('daemon-reload')


def drop_in_shipped(name):
    with open(f'{SHIPPED}/{name}', encoding='utf-8') as file:
        drop_in(file.read(), name=name)


# Talking to it

def connect(address):
    """A socket connected to a (host, port) or to a path."""
    sock = socket.socket(socket.AF_UNIX if isinstance(address, str) else socket.AF_INET)
    try:
        sock.settimeout(TIMEOUT)
        sock.connect(address)
    except BaseException:
        sock.close()
        raise
    return sock


def echo(address, data=b'hello'):
    """Sends DATA, half-closes, and asserts that it comes back with the end."""
    with connect(address) as sock:
        sender = Sender(sock, data)
        recv_same(sock, data)
        sender.finish()


def greet(address):
    with connect(address) as sock:
        sock.sendall(b'GET /world HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n')
        answer, = parse_answers(recv_all(sock))
    if (answer.status, answer.body) != (200, b'Hello, world'):
        raise AssertionError(answer)


def wait_refused(address):
    """Waits until each event loop has closed its sockets."""
    end = time.monotonic() + TIMEOUT
    while time.monotonic() < end:
        try:
            connect(address).close()
        except ConnectionRefusedError:
            return
    raise AssertionError(f'{address} still accepts')


# Clients of a Load: what they do from one yield to the next is a turn

def visit(address):
    """A connection for each size, echoed to its end."""
    while True:
        for size in 1, 1000, 300_000:
            echo(address, os.urandom(size))
        yield


def ask(address):
    while True:
        greet(address)
        yield


def stay(address):
    """One connection for all turns, which the client ends."""
    with connect(address) as sock:
        try:
            while True:
                data = os.urandom(1000)
                sock.sendall(data)
                recv_same(sock, data, eof=False)
                yield
        except GeneratorExit:
            sock.shutdown(socket.SHUT_WR)
            recv_same(sock, b'')


class Load:
    """Runs clients, each with its address, in threads of their own while the block runs. It begins when each has had
    a turn; when it ends none of them may have failed."""

    def __init__(self, *clients):
        self.over, self.errors = threading.Event(), []
        self.begun = threading.Barrier(len(clients) + 1)
        self.threads = [threading.Thread(target=self.work, args=client) for client in clients]

    def work(self, client, address):
        try:
            with contextlib.closing(client(address)) as turns:
                next(turns)
                self.begun.wait(TIMEOUT)
                while not self.over.is_set():
                    next(turns)
        except Exception:
            self.errors.append(f'{client.__name__} {address}: {traceback.format_exc()}')
            self.begun.abort()

    def __enter__(self):
        for thread in self.threads:
            thread.start()
        try:
            self.begun.wait(TIMEOUT)
        except threading.BrokenBarrierError:
            self.finish()
            raise

    def __exit__(self, *exception):
        self.finish()

    def finish(self):
        self.over.set()
        for thread in self.threads:
            thread.join()
        if self.errors:
            raise AssertionError(f'{len(self.errors)} of {len(self.threads)} clients failed:\n' + self.errors[0])


# Stopping one thread, which no signal can

PTRACE_DETACH, PTRACE_SEIZE, PTRACE_INTERRUPT, WALL = 17, 0x4206, 0x4207, 0x40000000
libc = ctypes.CDLL(None, use_errno=True)
libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]


def ptrace(request, thread):
    if libc.ptrace(request, thread, None, None) < 0:
        raise OSError(ctypes.get_errno(), 'ptrace')


@contextlib.contextmanager
def frozen(thread):
    """Stops the thread; leaving the block waits for its death."""
    ptrace(PTRACE_SEIZE, thread)
    try:
        ptrace(PTRACE_INTERRUPT, thread)
        os.waitpid(thread, WALL)
        yield
        _, status = os.waitpid(thread, WALL)
        if not os.WIFSIGNALED(status):
            raise AssertionError(f'thread {thread}: status {status}')
    finally:
        with contextlib.suppress(OSError):
            ptrace(PTRACE_DETACH, thread)


class ServiceTest(unittest.TestCase):
    maxDiff = None

    def setUp(self):
        run('journalctl', '--sync')
        self.cursor = run('journalctl', '-n0', '--show-cursor').split('-- cursor: ')[1].strip()
        self.addCleanup(self.reset)
        configure(ini(**BOUND))

    def reset(self):
        systemctl('stop', *SOCKETS, 'echod.service')
        for unit in *SOCKETS, 'echod.service':
            shutil.rmtree(f'{DROPINS}/{unit}.d', ignore_errors=True)
        systemctl('daemon-reload')
        with contextlib.suppress(AssertionError): # not loaded any more, as one that was never started
            systemctl('reset-failed', *SOCKETS, 'echod.service')

    def run(self, result=None):
        """Shows what the journal has of a test that fails."""
        before = len(result.failures) + len(result.errors)
        super().run(result)
        if len(result.failures) + len(result.errors) > before:
            print(run('journalctl', '-o', 'short-precise', f'--after-cursor={self.cursor}'), file=sys.stderr)

    def start(self, *units, **sections):
        if sections:
            configure(ini(**sections))
        systemctl('start', *(units or ['echod.service']))

    def journal(self, *matches):
        """The entries of this test."""
        run('journalctl', '--sync')
        text = run('journalctl', '-o', 'json', f'--after-cursor={self.cursor}', *(matches or ['-u', 'echod.service']))
        return [json.loads(line) for line in text.splitlines()]

    def said(self, pattern):
        return [entry for entry in self.journal() if re.search(pattern, entry['MESSAGE'])]

    def wait_said(self, pattern, count=1):
        """Waits for COUNT entries of this test that match."""
        command = ['journalctl', '-fu', 'echod.service', '--no-tail', '-o', 'json', f'--after-cursor={self.cursor}']
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as follow:
            timer = threading.Timer(3 * TIMEOUT, follow.kill)
            timer.start()
            try:
                for line in follow.stdout:
                    count -= re.search(pattern, json.loads(line)['MESSAGE']) is not None
                    if count == 0:
                        return
            finally:
                timer.cancel()
                follow.kill()
        raise AssertionError(f'not said: {pattern}')

    def wait_status(self, text):
        """Waits until STATUS has TEXT; there is no event for that."""
        end = time.monotonic() + TIMEOUT
        while text not in (status := show('StatusText')):
            self.assertLess(time.monotonic(), end, f'no {text!r} in {status!r}')
            time.sleep(0.05)


class Start(ServiceTest):

    def test_sample_configuration(self):
        shutil.copy(SAMPLE, CONFIG)
        self.start()
        echo(ECHO)
        greet(WEB)

    def test_active_when_ready(self):
        gate = '/run/gate'
        os.mkfifo(gate)
        self.addCleanup(os.unlink, gate)
        drop_in(f'[Service]\nExecStart=\nExecStart=/bin/sh -c "read line <{gate}; exec /usr/sbin/echod"\n')
        systemctl('start', '--no-block', 'echod.service')
        with open(gate, 'w', encoding='ascii') as file: # opens when the shell does
            self.assertEqual(show('ActiveState'), 'activating')
            file.write('go\n')
        self.start()
        echo(ECHO)
        greet(WEB)

    def test_status(self):
        self.start()
        with connect(ECHO) as sock:
            sock.sendall(b'x')
            recv_same(sock, b'x', eof=False)
            self.wait_status('2 listeners, 1 connection')

    def test_wrong_configuration(self):
        """Fails with the place, and is not tried again; also where nothing tests it first."""
        configure('[listener echo]\nhandler = echo\naddress = 127.0.0.1\n')
        for key, text in ('ExecStartPre', ''), ('ExecStart', '[Service]\nExecStartPre=\n'):
            with self.subTest(key):
                drop_in(text)
                systemctl('start', 'echod.service', status=1)
                self.assertEqual((show('ActiveState'), show('NRestarts')), ('failed', '0'))
                self.assertRegex(show(key), r'code=exited ; status=2 ')
                run('journalctl', '--sync')
                self.assertIn(f'{CONFIG}:3: ', systemctl('status', 'echod.service', status=3))

    def test_killed(self):
        self.start()
        systemctl('kill', '--signal=KILL', 'echod.service')
        self.wait_said('^Started', count=2)
        echo(ECHO)

    def test_low_ports(self):
        """Refused without the drop-in, and tried again, for such a failure may pass."""
        configure(ini(echo=dict(address='127.0.0.1:7'), web=dict(address='127.0.0.1:80')))
        systemctl('start', 'echod.service', status=1)
        self.wait_said('cannot listen on 127.0.0.1:7: Permission denied', count=2)
        systemctl('stop', 'echod.service')      # else a third try may be under way, with the old settings
        drop_in_shipped('low-ports.conf')
        self.start()
        echo(('127.0.0.1', 7))
        greet(('127.0.0.1', 80))

    def test_unix_socket(self):
        """One of its own, also after it was killed."""
        path = '/run/echod/echo.sock'
        self.start(echo=dict(address=f'unix:{path}'))
        echo(path)
        systemctl('kill', '--signal=KILL', 'echod.service')
        self.wait_said('^Started', count=2)
        echo(path)
        systemctl('stop', 'echod.service')
        self.assertFalse(os.path.exists(path))

    def test_access_log(self):
        self.start(server=dict(access_log='/var/log/echod/access.log'), web=BOUND['web'])
        greet(WEB)
        systemctl('stop', 'echod.service')
        with open('/var/log/echod/access.log', encoding='ascii') as file:
            self.assertRegex(file.read(), r' method=GET status=200 .* target=/world ')


class Reload(ServiceTest):

    def test_under_load(self):
        server = dict(threads=2)
        self.start(server=server, **BOUND)
        main = show('MainPID')
        with Load((visit, ECHO), (visit, ECHO), (stay, ECHO), (ask, WEB), (ask, WEB)):
            for i in range(6):
                more = dict(more=dict(address='127.0.0.1:9999')) if i % 2 == 0 else {}
                configure(ini(server=server, **BOUND, **more))
                systemctl('reload', 'echod.service')
                self.wait_said('^reloaded ', count=i + 1)
                if more:
                    echo(('127.0.0.1', 9999))
                else:
                    self.assertRaises(ConnectionRefusedError, echo, ('127.0.0.1', 9999))
        self.assertEqual((show('MainPID'), show('ActiveState')), (main, 'active'))

    def assert_failed(self, place):
        """Says where, and serves as before."""
        run('journalctl', '--sync')
        self.assertIn(place, systemctl('status', 'echod.service'))
        self.assertEqual(show('ActiveState'), 'active')
        echo(ECHO)
        greet(WEB)

    def test_wrong_configuration(self):
        self.start()
        configure(ini(**BOUND) + 'greeting\n')
        line = ini(**BOUND).count('\n') + 1
        systemctl('reload', 'echod.service', status=1)
        self.assert_failed(f'{CONFIG}:{line}: ')

    def test_signal_with_wrong_configuration(self):
        """SIGHUP without the test in front of it: STATUS says it too."""
        self.start()
        configure(ini(**BOUND) + 'greeting\n')
        line = ini(**BOUND).count('\n') + 1
        systemctl('kill', '--signal=HUP', 'echod.service')
        self.wait_said('^reload failed ')
        self.wait_status(f'{CONFIG}:{line}: ')
        self.assert_failed(f'{CONFIG}:{line}: ')

    def test_configuration_gone(self):
        """The built-in defaults do not take the place of a file that was there."""
        self.start()
        os.remove(CONFIG)
        systemctl('reload', 'echod.service')
        self.wait_said(f'^reload failed .*{CONFIG}')
        self.assert_failed(f'{CONFIG}:0: ')

    def test_address_taken(self):
        """What only the running daemon can find out."""
        self.start()
        with socket.create_server(('127.0.0.1', 9999)):
            configure(ini(**BOUND, more=dict(address='127.0.0.1:9999')))
            systemctl('reload', 'echod.service')
            self.wait_said('^reload failed .*127.0.0.1:9999')
        self.assert_failed('127.0.0.1:9999')


class Activation(ServiceTest):

    def setUp(self):
        super().setUp()
        configure(ini(server=dict(threads=2), **ACTIVATED))

    def test_first_connection(self):
        for talk, address in (echo, ECHO), (echo, ECHO_PATH), (greet, WEB), (greet, WEB_PATH):
            with self.subTest(address=address):
                systemctl('start', *SOCKETS)
                self.assertEqual(show('ActiveState'), 'inactive')
                talk(address)
                systemctl('stop', *SOCKETS, 'echod.service')
                self.assertFalse(os.path.exists(ECHO_PATH))

    def test_restart_under_load(self):
        self.start(*SOCKETS)
        with Load((visit, ECHO), (visit, ECHO), (visit, ECHO_PATH), (ask, WEB), (ask, WEB_PATH)):
            for _ in range(4): # with the first start 5, as many as systemd allows in 10 s
                systemctl('restart', 'echod.service')

    def test_private_network(self):
        """Without a network of its own it serves, once its start has started its sockets."""
        drop_in_shipped('private-network.conf')
        self.start()
        for talk, address in (echo, ECHO), (echo, ECHO_PATH), (greet, WEB), (greet, WEB_PATH):
            talk(address)
        self.assertNotEqual(*(os.readlink(f'/proc/{pid}/ns/net') for pid in (1, show('MainPID'))))

    def test_low_port(self):
        """The service manager binds it, so the service needs no capability."""
        drop_in('[Socket]\nListenStream=\nListenStream=127.0.0.1:7\n', 'echod.socket')
        self.start(*SOCKETS)
        echo(('127.0.0.1', 7))


class Watchdog(ServiceTest):
    SECONDS = 4

    def setUp(self):
        super().setUp()
        drop_in(f'[Service]\nWatchdogSec={self.SECONDS}s\n')
        self.start()

    def threads(self):
        """The server's thread and the one worker's."""
        main = show('MainPID')
        return sorted(map(int, os.listdir(f'/proc/{main}/task')))

    def test_idle(self):
        time.sleep(2 * self.SECONDS) # nothing to wait for: it is time itself that must do no harm
        self.assertEqual((show('ActiveState'), show('NRestarts')), ('active', '0'))

    def test_frozen(self):
        for index in 0, 1:
            with self.subTest(thread=index), frozen(self.threads()[index]):
                self.wait_said('Watchdog timeout', count=index + 1)
            self.wait_said('^Started', count=index + 2)
            echo(ECHO)
        self.assertEqual(len(self.said('^an event loop stands still')), 1) # as the server's own cannot say


class Stop(ServiceTest):

    def test_under_load(self):
        """Connections end as their clients wish, an answer in flight is finished and closes its connection."""
        drop_in('[Service]\nExecStopPost=/bin/sh -c "echo ended $$SERVICE_RESULT $$EXIT_CODE $$EXIT_STATUS"\n')
        self.start()
        head = b'GET /world HTTP/1.1\r\nHost: localhost\r\n'
        with connect(WEB) as late, Load((stay, ECHO), (stay, ECHO), (stay, ECHO)):
            late.sendall(head + b'\r\n' + head)
            answer = late.recv(1000)
            systemctl('stop', '--no-block', 'echod.service')
            self.wait_said('^draining ')
            wait_refused(WEB)
            self.assertEqual(show('ActiveState'), 'deactivating')
            late.sendall(b'\r\n')
            first, second = parse_answers(answer + recv_all(late))
            self.assertEqual((first.status, header(first, 'Connection')), (200, None))
            self.assertEqual((second.status, header(second, 'Connection')), (200, 'close'))
        systemctl('stop', 'echod.service')
        self.assertEqual(len(self.said('^ended success exited 0$')), 1)
        self.assertEqual((len(self.said('^stopped')), self.said('timed out')), (1, []))

    def test_longer_than_timeout(self):
        """A drain that takes longer than the unit allows asks for more time."""
        drop_in('[Service]\nTimeoutStopSec=2s\n')
        self.start(server=dict(drain_timeout='10s'), **BOUND)
        with Load((stay, ECHO)):
            systemctl('stop', '--no-block', 'echod.service')
            self.wait_said('^draining ')
            time.sleep(3) # past the unit's limit, before that of the drain
        systemctl('stop', 'echod.service')
        self.assertEqual((len(self.said('Deactivated successfully')), self.said('timed out')), (1, []))


class Journal(ServiceTest):

    def test_priorities(self):
        """An entry a line, its level a priority and no part of its text."""
        self.start()
        configure('nonsense\n')
        systemctl('kill', '--signal=HUP', 'echod.service')
        self.wait_said('^reload failed ')
        systemctl('stop', 'echod.service')
        entries = [entry for entry in self.journal() if entry['_TRANSPORT'] == 'stdout']
        for pattern, priority in ('^listening ', 5), ('^ready ', 5), ('^reload failed ', 3), ('^stopped', 5):
            with self.subTest(pattern):
                found = [entry['PRIORITY'] for entry in entries if re.search(pattern, entry['MESSAGE'])]
                self.assertEqual(set(found), {str(priority)})
        for entry in entries:
            self.assertRegex(entry['MESSAGE'], r'\A[a-z/][ -~]+\Z')
            self.assertNotRegex(entry['MESSAGE'], r'notice|error ')

    def test_wrong_configuration(self):
        configure('nonsense\n')
        systemctl('start', 'echod.service', status=1)
        self.assertEqual({entry['PRIORITY'] for entry in self.said(f'^{CONFIG}:1: ')}, {'3'})


class Security(ServiceTest):

    def exposure(self):
        return float(re.search(r'Overall exposure level for echod.service: ([0-9.]+)',
                               run('systemd-analyze', 'security', '--no-pager', 'echod.service'))[1])

    def test_exposure(self):
        self.start()
        self.assertLessEqual(self.exposure(), 1.3)
        drop_in_shipped('private-network.conf')
        self.assertLessEqual(self.exposure(), 0.6)

    def test_process(self):
        self.start()
        with open(f'/proc/{show("MainPID")}/status', encoding='ascii') as file:
            status = dict(re.split(r':\s*', line.strip(), maxsplit=1) for line in file)
        for key in 'CapInh', 'CapPrm', 'CapEff', 'CapBnd', 'CapAmb':
            self.assertEqual(int(status[key], 16), 0, key)
        self.assertEqual((status['NoNewPrivs'], status['Seccomp']), ('1', '2'))
        self.assertNotIn('0', status['Uid'].split() + status['Gid'].split())


def main():
    """unittest, and a closing summary as automake writes it."""
    shutil.copy(CONFIG, SAMPLE)
    result = unittest.main(exit=False).result
    bad = len(result.failures) + len(result.errors)
    print('Testsuite summary for echod as a service')
    for word, count in ('TOTAL', result.testsRun), ('PASS', result.testsRun - bad), ('FAIL', bad):
        print(f'# {word}: {count}')
    return not result.wasSuccessful()


if __name__ == '__main__':
    sys.exit(main())
