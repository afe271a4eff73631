"""Unix sockets: the path, its rights, who may take it, when it goes."""

import contextlib
import errno
import grp
import os
import pwd
import signal
import socket
import stat
import subprocess
import tempfile
import threading
import unittest

from harness import COMMAND, TIMEOUT, Clients, Echod, ini, instrumented, recv_all, recv_same, run_ini, talk_echo, wait_until

NOBODY = pwd.getpwnam('nobody')
GROUP = grp.getgrgid(NOBODY.pw_gid).gr_name


def echoed(d, where='echo'):
    with d.connect(where) as sock:
        sock.sendall(b'hello')
        sock.shutdown(socket.SHUT_WR)
        recv_same(sock, b'hello')


class Folder(unittest.TestCase):

    def setUp(self):
        self.folder = self.enterContext(tempfile.TemporaryDirectory(prefix='echod-test-'))
        self.path = os.path.join(self.folder, 'echo')
        self.at = dict(address='unix:' + self.path)

    def fails(self, want, path=None, **keys):
        """A start on the path, which must not change what is there."""
        path = path or self.path
        before = os.lstat(path)
        done = run_ini(ini(echo=dict(address='unix:' + path) | keys))
        self.assertEqual(done.returncode, 1, done.stderr)
        self.assertRegex(done.stderr, want)
        self.assertEqual(os.lstat(path)[:3], before[:3])


class Lock(Folder):

    def test_held(self):
        """The name that two starts on one path agree by is anybody's: who holds it cannot keep echod from starting."""
        with socket.socket(socket.AF_UNIX) as lock:
            lock.bind(f'\0echod-bind:{self.path}')
            with Echod(echo=self.at) as d:
                echoed(d)


class Rights(Folder):

    def test_mode(self):
        for mode in '0660', '600', '0777', '0000':
            with self.subTest(mode=mode), Echod(echo=self.at | dict(socket_mode=mode)):
                status = os.stat(self.path)
                self.assertTrue(stat.S_ISSOCK(status.st_mode))
                self.assertEqual(stat.S_IMODE(status.st_mode), int(mode, 8))
        with Echod(echo=self.at):
            self.assertEqual(stat.S_IMODE(os.stat(self.path).st_mode), 0o660)

    def test_mode_is_not_the_mask(self):
        with Echod(echo=self.at | dict(socket_mode='0777'), setup=lambda: os.umask(0o777)):
            self.assertEqual(stat.S_IMODE(os.stat(self.path).st_mode), 0o777)

    @unittest.skipIf(os.getuid(), 'needs root')
    def test_owner(self):
        for owner, group in ((NOBODY.pw_name, GROUP), (str(NOBODY.pw_uid), str(NOBODY.pw_gid))):
            with Echod(echo=self.at | dict(socket_owner=owner, socket_group=group)) as d:
                status = os.stat(self.path)
                self.assertEqual((status.st_uid, status.st_gid), (NOBODY.pw_uid, NOBODY.pw_gid))
                echoed(d)
        with Echod(echo=self.at | dict(socket_group=GROUP)):
            status = os.stat(self.path)
            self.assertEqual((status.st_uid, status.st_gid), (os.getuid(), NOBODY.pw_gid))

    @unittest.skipIf(os.getuid(), 'needs root')
    def test_reload(self):
        """Rights and owner change with the same socket; clients may connect or not accordingly."""
        with Echod(echo=self.at | dict(socket_mode='0600')) as d:
            inode = os.stat(self.path).st_ino
            d.reload(echo=self.at | dict(socket_mode='0666', socket_owner='nobody'))
            status = os.stat(self.path)
            self.assertEqual((stat.S_IMODE(status.st_mode), status.st_uid), (0o666, NOBODY.pw_uid))
            self.assertEqual(status.st_ino, inode)
            echoed(d)

    @unittest.skipIf(os.getuid(), 'needs root')
    def test_reload_follows_nobody(self):
        """Whoever may write to the folder may put a link there: what it leads to is not touched."""
        victim = os.path.join(self.folder, 'victim')
        with open(victim, 'wb'):
            os.chmod(victim, 0o600)
        with Echod(echo=self.at) as d:
            os.remove(self.path)
            os.symlink(victim, self.path)
            d.reload_fails(r'/echod\.ini:\d+: address: cannot listen on unix:.*: File exists',
                           echo=self.at | dict(socket_mode='0666', socket_owner='nobody'))
            status = os.stat(victim)
            self.assertEqual((stat.S_IMODE(status.st_mode), status.st_uid), (0o600, os.getuid()))

    def test_reload_changes_all_or_nothing(self):
        """What cannot be made undoes the rights that were set."""
        first = os.path.join(self.folder, 'first')
        old = dict(first=dict(address=f'unix:{first}'), second=self.at)
        with Echod(**old) as d:
            os.remove(self.path)
            os.mkdir(self.path)
            d.reload_fails(r'/echod\.ini:\d+: address: cannot listen on unix:.*: File exists',
                           first=old['first'] | dict(socket_mode='0666'), second=self.at | dict(socket_mode='0666'))
            self.assertEqual(stat.S_IMODE(os.stat(first).st_mode), 0o660)
            os.rmdir(self.path)
            d.reload(first=old['first'] | dict(socket_mode='0666'), second=self.at)
            self.assertEqual(stat.S_IMODE(os.stat(first).st_mode), 0o666)

    def test_settings(self):
        for key, value, want in (('socket_mode', '0888', 'not an octal number'),
                                 ('socket_mode', '1777', 'not an octal number'),
                                 ('socket_owner', 'no-such-user', 'there is no user "no-such-user"'),
                                 ('socket_owner', '4294967295', 'there is no user'),     # chown(2) takes it for none
                                 ('socket_owner', '4294967296', 'there is no user'),     # 0, if it were cut
                                 ('socket_group', '99999999999999999999', 'there is no group'),
                                 ('socket_group', 'no-such-group', 'there is no group "no-such-group"')):
            with self.subTest(key=key, value=value):
                done = run_ini(ini(echo=self.at | {key: value}), '-t')
                self.assertEqual(done.returncode, 2)
                self.assertRegex(done.stderr, rf'^echod\.ini:4: {key}: .*{want}')
        with Echod(echo=self.at | dict(socket_mode='0600')) as d:
            d.reload_fails(r'/echod\.ini:\d+: socket_mode: ', echo=self.at | dict(socket_mode='x00'))
            echoed(d)


class Places(Folder):

    def test_stale(self):
        """One on which nobody listens is replaced."""
        with socket.socket(socket.AF_UNIX) as sock:
            sock.bind(self.path)
        with Echod(echo=self.at) as d:
            echoed(d)
        self.assertFalse(os.path.lexists(self.path))

    def test_live(self):
        with socket.socket(socket.AF_UNIX) as sock:
            sock.bind(self.path)
            sock.listen(0)
            self.fails('Address already in use')
            with contextlib.ExitStack() as stack:       # its backlog is full: it is alive all the same
                for _ in range(3):
                    client = stack.enter_context(socket.socket(socket.AF_UNIX))
                    client.setblocking(False)
                    if client.connect_ex(self.path) == errno.EAGAIN:
                        break
                self.fails('Address already in use')

    def test_bound_but_not_stream(self):
        """A datagram socket that is in use is no stale one."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
            sock.bind(self.path)
            self.fails('cannot listen on')

    def test_other_files(self):
        with open(self.path, 'wb'):
            self.fails('File exists')
        os.remove(self.path)
        os.mkdir(self.path)
        self.fails('File exists')
        os.rmdir(self.path)
        os.symlink('/nowhere', self.path)
        self.fails('File exists')
        os.remove(self.path)
        os.symlink(os.path.join(self.folder, 'other'), self.path)
        with socket.socket(socket.AF_UNIX) as sock:     # a link to a stale socket
            sock.bind(os.path.join(self.folder, 'other'))
        self.fails('File exists')

    def test_nowhere(self):
        done = run_ini(ini(echo=dict(address=f'unix:{self.folder}/no/where')))
        self.assertEqual(done.returncode, 1)
        self.assertRegex(done.stderr, 'cannot listen on unix:.*/no/where: No such file or directory')

    def test_length(self):
        """107 bytes fit, 108 do not; no name is cut."""
        path = self.path + 'x' * (107 - len(self.path))
        with Echod(echo=dict(address='unix:' + path)) as d:
            self.assertEqual(d.addr('echo'), path)
            echoed(d)
        name = f'@echod-test-{os.getpid()}-'
        name += 'x' * (107 - len(name))
        with Echod(echo=dict(address='unix:' + name)) as d:
            self.assertEqual(d.addr('echo'), name)
            echoed(d)
        for path in path + 'x', name + 'x':
            done = run_ini(ini(echo=dict(address='unix:' + path)), '-t')
            self.assertEqual(done.returncode, 2)
            self.assertRegex(done.stderr, r'^echod\.ini:2: address: "unix:.*" is longer than 107 bytes\n$')
        for address in 'unix:', 'unix:relative', 'unix:/', 'unix:@':
            done = run_ini(ini(echo=dict(address=address)), '-t')
            self.assertEqual(done.returncode, 2)
            self.assertRegex(done.stderr, r'^echod\.ini:2: address: ')

    def test_twice(self):
        done = run_ini(ini(echo=self.at, web=self.at), '-t')
        self.assertEqual(done.returncode, 2)
        self.assertRegex(done.stderr, r'address: unix:.* is taken by unix:.* of \[listener echo\]')

    def test_several(self):
        address = f'127.0.0.1:0, unix:{self.path}, unix:{self.path}2'
        with Echod(server=dict(threads=3), echo=dict(address=address)) as d:
            self.assertEqual(len(d.addrs('echo')), 3)
            for where in d.addrs('echo'):
                for _ in range(10):
                    echoed(d, where)

    def test_abstract(self):
        name = f'@echod-test-{os.getpid()}'
        with Echod(echo=dict(address='unix:' + name)) as d:
            echoed(d)
            done = run_ini(ini(echo=dict(address='unix:' + name)))
            self.assertEqual(done.returncode, 1)
            self.assertRegex(done.stderr, f'cannot listen on unix:{name}: Address already in use')
            d.reload()
            echoed(d)
        with Echod(echo=dict(address='unix:' + name)) as d:
            echoed(d)


class Ends(Folder):

    def test_removed(self):
        for number in signal.SIGTERM, signal.SIGINT:
            with Echod(server=dict(threads=2), echo=self.at) as d:
                echoed(d)
                d.stop(number)
            self.assertFalse(os.path.lexists(self.path))

    def test_second_signal(self):
        """A stop that does not wait leaves nothing either."""
        with Echod(echo=self.at) as d:
            with d.connect('echo') as sock:
                sock.sendall(b'x')
                recv_same(sock, b'x', eof=False)
                d.may_log('.')
                d.kill()
                wait_until(lambda: not os.path.lexists(self.path), d.log)
                d.kill()
                d.wait()
        self.assertFalse(os.path.lexists(self.path))

    def test_dropped_by_a_reload(self):
        with Echod(echo=self.at, other={}) as d:
            sock = d.connect('echo')
            sock.sendall(b'x')
            recv_same(sock, b'x', eof=False)
            d.reload(other={})
            wait_until(lambda: not os.path.lexists(self.path), d.log)
            sock.sendall(b'y')
            recv_same(sock, b'y', eof=False)
            d.reload(other={}, echo=self.at)
            echoed(d)
            d.reload(other=self.at)     # another listener, the same socket
            echoed(d, self.path)

    def test_kept_over_a_reload(self):
        """The socket itself, so that no client is ever refused."""
        with Echod(server=dict(threads=2), echo=self.at) as d:
            inode = os.stat(self.path).st_ino
            with Clients(self.path, talk_echo) as clients:
                for _ in range(3):
                    clients.wait()
                    d.reload()
            self.assertEqual(os.stat(self.path).st_ino, inode)

    def test_reload_that_fails(self):
        """What was bound for it goes, what served before stays."""
        other = self.path + '2'
        with open(self.path + '3', 'wb'), Echod(echo=self.at) as d:
            d.reload_fails('cannot listen on', echo=self.at, other=dict(address=f'unix:{other}, unix:{self.path}3'))
            self.assertEqual(sorted(os.listdir(self.folder)), ['echo', 'echo3'])
            echoed(d)

    def test_start_that_fails(self):
        with open(self.path + '3', 'wb'):
            done = run_ini(ini(echo=dict(address=f'unix:{self.path}, unix:{self.path}3')))
        self.assertEqual(done.returncode, 1)
        self.assertEqual(os.listdir(self.folder), ['echo3'])

    def test_another_took_the_path(self):
        """Whoever removed our socket and listens there now keeps its own."""
        with Echod(echo=self.at) as d:
            os.remove(self.path)
            with Echod(echo=self.at) as second:
                d.stop()
                self.assertTrue(os.path.lexists(self.path))
                echoed(second)
            self.assertFalse(os.path.lexists(self.path))

    def test_another_file_took_the_path(self):
        with Echod(echo=self.at):
            os.remove(self.path)
            with open(self.path, 'wb'):
                pass
        self.assertTrue(os.path.lexists(self.path))

    def test_lost(self):
        """A path that somebody removed does no harm at the end."""
        with Echod(echo=self.at):
            os.remove(self.path)

    def test_lost_comes_back(self):
        """A reload makes it anew; what came before it was lost lives on."""
        with Echod(server=dict(threads=2), echo=self.at) as d, d.connect('echo') as sock:
            sock.sendall(b'x')
            recv_same(sock, b'x', eof=False)
            os.remove(self.path)
            d.reload(server=dict(threads=2), echo=self.at)
            echoed(d, self.path)
            sock.sendall(b'y')
            recv_same(sock, b'y', eof=False)
        self.assertFalse(os.path.lexists(self.path))

    def test_two_at_once(self):
        """Of daemons that start on a stale path at one moment, one serves, and the others take nothing from it."""
        for _ in range(1 if instrumented() else 5):     # one that stands still for a second lets go
            with socket.socket(socket.AF_UNIX) as sock:
                sock.bind(self.path)
            config = os.path.join(self.folder, 'echod.ini')
            with open(config, 'w', encoding='ascii') as file:
                file.write(ini(echo=self.at))
            daemons = [subprocess.Popen([*COMMAND, '-c', config], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                                        stderr=subprocess.PIPE, text=True) for _ in range(4)]
            said = [[] for _ in daemons]

            def read(daemon, lines):
                for line in daemon.stderr:
                    lines.append(line)
                    if ' ready ' in line:
                        ready.release()
                ended.release()

            ready, ended = threading.Semaphore(0), threading.Semaphore(0)
            readers = [threading.Thread(target=read, args=pair) for pair in zip(daemons, said)]
            for reader in readers:
                reader.start()
            try:
                for _ in range(3):
                    self.assertTrue(ended.acquire(timeout=TIMEOUT), said)
                self.assertTrue(ready.acquire(timeout=TIMEOUT), said)
                with socket.socket(socket.AF_UNIX) as sock:
                    sock.settimeout(TIMEOUT)
                    sock.connect(self.path)
                    sock.sendall(b'x')
                    sock.shutdown(socket.SHUT_WR)
                    self.assertEqual(recv_all(sock), b'x')
            finally:
                for daemon in daemons:
                    daemon.terminate()
                for daemon, reader in zip(daemons, readers):
                    daemon.wait()
                    reader.join()
                    daemon.stderr.close()
            self.assertEqual(sorted(daemon.returncode for daemon in daemons), [0, 1, 1, 1], said)
            for daemon, lines in zip(daemons, said):
                if daemon.returncode:
                    self.assertRegex(''.join(lines), 'Address already in use')
            self.assertFalse(os.path.lexists(self.path))


class Peers(Folder):

    def test_one_address(self):
        """All count as one address, whatever name they have bound themselves."""
        with Echod(server=dict(max_connections_per_address=3), echo=self.at) as d:
            d.expect_log('reason=max_connections_per_address')
            socks = []
            for i, name in enumerate(('', os.path.join(self.folder, 'c'), os.path.join(self.folder, 'client'),
                                      f'\0echod-test-{os.getpid()}-client')):
                sock = self.enterContext(socket.socket(socket.AF_UNIX))
                sock.settimeout(TIMEOUT)
                if name:
                    sock.bind(name)
                sock.connect(self.path)
                if i < 3:
                    sock.sendall(b'x')
                    recv_same(sock, b'x', eof=False)
                socks.append(sock)
            self.assertEqual(socks[-1].recv(1), b'')
            for sock in socks:
                sock.close()
            d.wait_log('closed', 3, peer='unix', reason='fin')

    def test_configuration(self):
        """-T writes what is read back; neither it nor -t touches the path."""
        text = ini(echo=self.at | dict(socket_mode='0666', socket_owner='root', proxy_protocol='required'))
        dumped = run_ini(text, '-T').stdout
        self.assertRegex(dumped, f'\naddress = unix:{self.path} ')
        self.assertEqual(run_ini(dumped, '-T').stdout.count('\n'), dumped.count('\n'))
        self.assertEqual(run_ini(text, '-t').returncode, 0)
        self.assertFalse(os.path.lexists(self.path))


if __name__ == '__main__':
    unittest.main()
