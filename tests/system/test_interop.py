"""echoprobe against echo and HTTP servers that others wrote. What is not installed is skipped, unless INTEROP=all."""

import contextlib
import json
import os
import resource
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
import unittest

from harness import SLOW, TIMEOUT
from prober import HAVE_OPENSSL, Certificates, probe

TIME = ['-n', '4', '-d', str(min(SLOW, 3))]


def accepts(port):
    with socket.socket() as sock:
        return sock.connect_ex(('127.0.0.1', port)) == 0


def few_descriptors():
    """xinetd goes through all that it might have, one by one."""
    resource.setrlimit(resource.RLIMIT_NOFILE, (1024, 1024))


@contextlib.contextmanager
def running(test, *command, port):
    """A server in the foreground, once it accepts connections; it and what it has started end behind the block."""
    program = command[0]
    if not shutil.which(program, path=os.environ['PATH'] + ':/usr/sbin'):
        if os.environ.get('INTEROP') == 'all':
            test.fail(f'{program} is not installed')
        test.skipTest(f'no {program}')
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                               env=os.environ | {'PATH': os.environ['PATH'] + ':/usr/sbin'}, start_new_session=True, preexec_fn=few_descriptors)
    said = []
    reader = threading.Thread(target=lambda: said.extend(process.stdout))
    reader.start()
    try:
        end = time.monotonic() + TIMEOUT
        while not accepts(port):
            if process.poll() is not None or time.monotonic() > end:
                test.fail(f'{program} does not start: {said}')
            threading.Event().wait(0.02)
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, 15)
        try:
            process.wait(TIMEOUT)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, 9)
            process.wait()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, 9)
        reader.join()
        process.stdout.close()


class Folder(unittest.TestCase):

    def setUp(self):
        folder = tempfile.TemporaryDirectory(prefix='echoprobe-test-')
        self.addCleanup(folder.cleanup)
        self.folder = folder.name
        os.chmod(self.folder, 0o755)    # nginx drops its rights
        held = socket.socket()          # keeps the port for the server, which binds with SO_REUSEADDR too
        self.addCleanup(held.close)
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        held.bind(('127.0.0.1', 0))
        self.port = held.getsockname()[1]

    def write(self, name, text):
        path = os.path.join(self.folder, name)
        with open(path, 'w', encoding='utf-8') as file:
            file.write(text)
        return path


class Echo(Folder):

    def check(self, *args, scheme='tcp', half_close=True):
        url = f'{scheme}://127.0.0.1:{self.port}'
        probe(url, *args, '-m', 'Hello World!').succeeds(self, b'Hello World!')
        probe(url, *args, '-s', '100000').succeeds(self)
        if half_close:
            probe(url, *args, '-s', '100000', '--half-close', '-t', str(20 * SLOW)).succeeds(self)
        probe(url, *args, '-c', '3', '-I', '10ms').succeeds(self)
        said = json.loads(probe(url, *args, *TIME, '--json').succeeds(self).out)
        self.assertGreater(said['sent'], 4)

    def test_xinetd(self):
        user = subprocess.run(['id', '-un'], capture_output=True, text=True).stdout.strip()
        config = self.write('xinetd.conf', f'''
defaults
{{
    instances = UNLIMITED
    cps = 100000 1
    log_type = FILE {self.folder}/log
}}
service echo
{{
    type = INTERNAL UNLISTED
    id = echo-stream
    socket_type = stream
    protocol = tcp
    bind = 127.0.0.1
    port = {self.port}
    wait = no
    user = {user}
}}
''')
        with running(self, 'xinetd', '-dontfork', '-syslog', 'daemon', '-f', config, '-pidfile', self.folder + '/pid', port=self.port):
            self.check()

    def test_ncat(self):
        with running(self, 'ncat', '-l', '127.0.0.1', str(self.port), '-k', '-e', '/bin/cat', port=self.port):
            self.check(half_close=False)    # it closes without waiting for what cat still has to say (nmap#962)

    def test_socat(self):
        with running(self, 'socat', '-t5', f'TCP-LISTEN:{self.port},bind=127.0.0.1,fork,reuseaddr,backlog=64', 'EXEC:cat', port=self.port):
            self.check()

    @unittest.skipUnless(HAVE_OPENSSL, 'no openssl')
    def test_socat_tls(self):
        with Certificates() as certs:
            certs.issue('good')
            listen = (f'OPENSSL-LISTEN:{self.port},bind=127.0.0.1,fork,reuseaddr,cert={certs.path("good.pem")},'
                      f'key={certs.path("good.key")},verify=0')
            with running(self, 'socat', '-t5', listen, 'EXEC:cat', port=self.port):
                self.check('--ca=' + certs.path('ca.pem'), scheme='tls', half_close=False)


class Web(Folder):

    def check(self, body, *args, scheme='http', path='/file'):
        url = f'{scheme}://127.0.0.1:{self.port}{path}'
        probe(url, *args).succeeds(self, body)
        probe(url, *args, '-c', '3', '-I', '10ms').succeeds(self)
        for pipeline in ('1', '4'):
            said = json.loads(probe(url, *args, *TIME, '-P', pipeline, '--json').succeeds(self).out)
            self.assertGreater(said['sent'], 4)
            self.assertEqual(said['status'], 200)

    def test_http_server(self):
        self.write('file', 'Hello from Python\n')
        with running(self, sys.executable, '-m', 'http.server', '-b', '127.0.0.1', '-d', self.folder, str(self.port),
                     port=self.port):
            self.check(b'Hello from Python\n')
            probe(f'http://127.0.0.1:{self.port}/nowhere').fails(self, 'mismatch', 'the status is 404')

    def nginx(self, listen='', more=''):
        self.write('file', 'Hello from nginx\n' * 3000)
        config = self.write('nginx.conf', f'''
            daemon off;
            pid {self.folder}/pid;
            error_log stderr;
            events {{ }}
            http {{
                access_log off;
                {''.join(f'{kind}_temp_path {self.folder}/{kind};' for kind in
                         ('client_body', 'proxy', 'fastcgi', 'uwsgi', 'scgi'))}
                keepalive_requests 100;
                server {{
                    listen 127.0.0.1:{self.port} {listen};
                    {more}
                    root {self.folder};
                    location = /chunked {{ ssi on; ssi_types *; try_files /chunked =404; }}
                    location = /small {{ return 200 "Hello"; }}
                }}
            }}''')
        return running(self, 'nginx', '-p', self.folder, '-c', config, port=self.port)

    def test_nginx(self):
        self.write('chunked', '<!--# set var="x" value="y" -->Hello <!--# echo var="x" -->\n')
        with self.nginx():
            self.check(b'Hello from nginx\n' * 3000)
            self.check(b'Hello', path='/small')
            self.check(b'Hello y\n', path='/chunked')
            head = probe(f'http://127.0.0.1:{self.port}/chunked', '-i').succeeds(self).out.lower()
            self.assertIn(b'\r\ntransfer-encoding: chunked\r\n', head)

    @unittest.skipUnless(HAVE_OPENSSL, 'no openssl')
    def test_nginx_tls(self):
        with Certificates() as certs:
            certs.issue('good')
            with self.nginx('ssl', f'ssl_certificate {certs.path("good.pem")}; ssl_certificate_key {certs.path("good.key")};'):
                self.check(b'Hello from nginx\n' * 3000, '--ca=' + certs.path('ca.pem'), scheme='https')

    def haproxy(self, accept=''):
        config = self.write('haproxy.cfg', f'''
defaults
    mode http
    timeout client 10s
    timeout server 10s
    timeout connect 10s
frontend web
    bind 127.0.0.1:{self.port} {accept}
    http-request return status 200 content-type text/plain lf-string "Hello %[src]:%[src_port]"
'''.replace(':%[src_port]', ' %[src_port]' if accept else ''))
        return running(self, 'haproxy', '-db', '-f', config, port=self.port)

    def test_haproxy(self):
        with self.haproxy():
            self.check(b'Hello 127.0.0.1')

    def test_haproxy_proxy_header(self):
        with self.haproxy('accept-proxy'):
            for version in ('--proxy-v1', '--proxy-v2'):
                self.check(b'Hello 192.0.2.7 99', version, '--proxy-source=192.0.2.7:99')
                self.check(b'Hello 2001:db8::7 99', version, '--proxy-source=[2001:db8::7]:99')
            done = probe(f'http://127.0.0.1:{self.port}/')
            self.assertEqual((done.status, done.out), (2, b''))


if __name__ == '__main__':
    unittest.main()
