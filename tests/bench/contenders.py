"""Who is measured, and how each is started: the bare loop, echod, and the peers that are installed.

start() of each takes a protocol and a transport and returns a Server, or None if it does not do that:

    protocol   echo; http (keep-alive); once (HTTP, one request a connection)
    transport  plain; tls; costly (TLS with a long RSA key); proxy (each connection begins with a PROXY header); log (with
               an access log, to a file)
"""

import functools
import itertools
import os
import re
import shutil
import socket
import subprocess
from collections import namedtuple

from processes import Cores, Failed, Server, read

CONNECTIONS_MAX = 15000
REPLY = "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 12\r\n\r\nHello, world"  # without echod

class Lab:
    """What they all need: cores, a folder, the tools, a certificate, and the reply that HTTP must give."""

    def __init__(self, tools, folder):
        self.tools, self.folder = tools, folder
        self.numbers = itertools.count()
        self.cores = Cores()
        self.reply = REPLY
        self.certificate = self.make_certificate("ec", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256")
        os.mkdir(os.path.join(folder, "www"))
        with open(os.path.join(folder, "www", "world"), "w", encoding="utf-8") as file:
            file.write("Hello, world")

    def tool(self, name):
        path = os.path.join(self.tools, name)
        if not os.access(path, os.R_OK):
            raise Failed(f"{path} is not there: build it, or name its folder with --tools")
        return os.path.abspath(path)

    def file(self, text="", name=None):
        path = os.path.join(self.folder, name or f"file-{next(self.numbers)}")
        with open(path, "w", encoding="utf-8") as file:
            file.write(text and text + "\n")
        return path

    def make_certificate(self, name, *key_options):
        """(certificate, key, both in one file), or None without the openssl command."""
        if not shutil.which("openssl"):
            return None
        certificate, key = self.file(name=f"{name}-certificate.pem"), self.file(name=f"{name}-key.pem")
        subprocess.run(["openssl", "req", "-x509", *key_options, "-nodes", "-subj", "/CN=localhost", "-days", "30",
                        "-keyout", key, "-out", certificate], check=True, stderr=subprocess.DEVNULL)
        return certificate, key, self.file(read(certificate) + read(key), f"{name}-both.pem")

    @functools.cached_property
    def costly_certificate(self):
        """One with which a handshake costs the server many times what it costs the client."""
        return self.make_certificate("rsa", "-newkey", "rsa:6144")

    def start(self, name, argv, port, cores=None, environment=None):
        return Server(name, argv, cores or {self.cores.server}, self.file(), port, environment)


class Bare:
    """The bare epoll loop.  It takes no PROXY header and keeps no log: those are the others' to pay for."""

    is_peer = compiles = False
    version = ""

    def __init__(self, name="bare"):
        self.name = name

    def start(self, lab, protocol, transport):
        mode = {"echo": ["echo"], "http": ["http", lab.reply], "once": ["close", lab.reply]}[protocol]
        secure = ["-t", *lab.certificate[:2]] if transport == "tls" else []
        return lab.start(self.name, [lab.tool("bareloop"), *secure, *mode], r"^(\d+)\n")

    @staticmethod
    def understands(transport):
        return transport != "proxy"

    @staticmethod
    def stop(server):
        server.end()


class Echod:
    """A build of echod.  All that a service would turn on is on: limits, and a listener for metrics."""

    is_peer = compiles = False

    def __init__(self, path, name="echod"):
        self.path, self.name = path, name
        self.version = self.say("--version").split()[-1]
        self.keys = set(re.findall(r"^(\w+) =", self.say("--dump"), re.M))

    def say(self, option):
        try:
            return subprocess.run([self.path, option, "-c", "/dev/stdin"], text=True, stdout=subprocess.PIPE, check=True,
                                  input="[listener echo]\naddress = 127.0.0.1:0\nhandler = echo\n").stdout
        except (OSError, subprocess.CalledProcessError) as error:
            raise Failed(f"{self.path}: {error}") from None

    @staticmethod
    def understands(transport):
        return True

    def lacks(self, transport):
        """The key of a transport that this build does not have, or None."""
        key = {"tls": "tls_certificate", "costly": "tls_certificate", "proxy": "proxy_protocol"}.get(transport)
        return key if key not in self.keys else None

    def transport_keys(self, lab, transport):
        if transport in ("tls", "costly"):
            certificate, key, _ = lab.certificate if transport == "tls" else lab.costly_certificate
            return {"tls_certificate": certificate, "tls_key": key}
        return {"proxy_protocol": "required"} if transport == "proxy" else {}

    def configure(self, listeners, **server):
        """The text of a configuration; listeners: (name, handler, further keys)."""
        sections = [("server", {"max_connections": CONNECTIONS_MAX, "max_connections_per_address": CONNECTIONS_MAX,
                                **server})]
        for name, handler, keys in listeners:
            sections.append((f"listener {name}",
                             {"address": "127.0.0.1:0", "handler": handler, "accept_rate": 1000000, **keys}))
        return "\n".join(f"[{name}]\n" + "".join(f"{key} = {value}\n" for key, value in keys.items())
                         for name, keys in sections)

    def launch(self, lab, listeners, port_of, cores=None, environment=None, **server):
        argv = [self.path, "-c", lab.file(self.configure(listeners, **server))]
        port = rf"listening listener={port_of} address=127\.0\.0\.1:(\d+)\n.*\bready\b"
        return lab.start(self.name, argv, port, cores, environment)

    def start(self, lab, protocol, transport, **options):
        if self.lacks(transport):
            return None
        keys = self.transport_keys(lab, transport)
        if transport == "log":
            options["access_log"] = lab.file()
        listeners = [("echo", "echo", keys), ("web", "greeting", keys), ("admin", "admin", {})]
        return self.launch(lab, listeners, "echo" if protocol == "echo" else "web", **options)

    def stop(self, server):
        clean = server.end()
        complaints = re.findall(r"^\S+ (?:warning|error) .*|.*Sanitizer.*", read(server.log), re.M)
        if complaints or not clean:
            raise Failed(f"{self.name}: exit status {server.process.returncode}; {' '.join(complaints)[:500]}")


class EchodUnlogged(Echod):
    """The same without an access log, where the others have one: what the log costs."""

    def start(self, lab, protocol, transport, **options):
        return super().start(lab, protocol, "plain" if transport == "log" else transport, **options)


class Peer(namedtuple("Peer", "name protocols transports command version_command text compiles", defaults=(False,))):
    """Another server.  compiles: what runs often, so that it needs a longer warm-up.  In the command and the text FILE is
    a file of the text, DIR the folder for what it keeps, PORT, TLSPORT and PROXYPORT are free ports, CERT, KEY and PEM
    the certificate, its key, and both in one file."""

    is_peer = True

    @property
    def version(self):
        """Its version; '' if it is not installed."""
        try:
            said = subprocess.run(self.version_command, shell=True, text=True, stdout=subprocess.PIPE, timeout=20,
                                  stderr=subprocess.STDOUT, check=False)
        except subprocess.TimeoutExpired:
            return ""
        found = re.search(r"\d+\.[\d.]+\w*", said.stdout)
        return found.group() if found and said.returncode in (0, 1) else ""

    @staticmethod
    def understands(transport):
        return True

    def command_line(self, lab, transport):
        """(words to start it with, the port that it then listens on)"""
        ports = dict(zip(("tls", "proxy", "plain"), free_ports(3)))
        words = {"TLSPORT": ports["tls"], "PROXYPORT": ports["proxy"], "PORT": ports["plain"], "DIR": lab.folder}
        words.update(zip(("CERT", "KEY", "PEM"), lab.certificate or ("", "", "")))

        def fill(text):
            return re.sub("|".join(words), lambda match: str(words[match.group()]), text)

        path = lab.file(fill(self.text))
        return [fill(word).replace("FILE", path) for word in self.command.split()], ports[transport]

    def start(self, lab, protocol, transport):
        if protocol not in self.protocols or transport not in self.transports:
            return None
        return lab.start(self.name, *self.command_line(lab, transport))

    @staticmethod
    def stop(server):
        server.end()


def free_ports(count):
    """They are free again when the peer binds them, if nobody was quicker."""
    probes = [socket.socket() for _ in range(count)]
    for probe in probes:
        probe.bind(("127.0.0.1", 0))
    ports = [probe.getsockname()[1] for probe in probes]
    for probe in probes:
        probe.close()
    return ports


WEB = ("http", "once")
EVERY = ("plain", "tls", "proxy")
PEERS = (
    Peer("nginx", WEB, EVERY, "nginx -e stderr -p DIR -c FILE", "nginx -v", """
        daemon off; master_process off; pid DIR/nginx.pid;
        events { worker_connections 20000; }
        http { access_log off; keepalive_requests 100000000; client_body_temp_path DIR; proxy_temp_path DIR;
               fastcgi_temp_path DIR; uwsgi_temp_path DIR; scgi_temp_path DIR;
               ssl_certificate CERT; ssl_certificate_key KEY; ssl_protocols TLSv1.3; ssl_session_cache shared:tls:10m;
               server { listen 127.0.0.1:PORT backlog=4096; listen 127.0.0.1:TLSPORT ssl backlog=4096;
                        listen 127.0.0.1:PROXYPORT proxy_protocol backlog=4096; default_type text/plain;
                        location / { return 200 "Hello, world"; } } }"""),
    Peer("haproxy", WEB, EVERY, "haproxy -db -f FILE", "haproxy -v", """
        global
            nbthread 1
            maxconn 9000
        defaults
            mode http
            timeout client 1m
        frontend web
            bind 127.0.0.1:PORT
            bind 127.0.0.1:TLSPORT ssl crt PEM ssl-min-ver TLSv1.3
            bind 127.0.0.1:PROXYPORT accept-proxy
            http-request return status 200 content-type text/plain string "Hello, world"
        """),
    Peer("h2o", WEB, EVERY, "h2o -m worker -c FILE", "h2o -v", """
        listen: { host: 127.0.0.1, port: PORT }
        listen: { host: 127.0.0.1, port: TLSPORT, ssl: { certificate-file: CERT, key-file: KEY } }
        listen: { host: 127.0.0.1, port: PROXYPORT, proxy-protocol: ON }
        num-threads: 1
        max-connections: 15000
        user: root
        hosts: { default: { paths: { /: { file.dir: DIR/www } } } }"""),
    Peer("lighttpd", WEB, ("plain",), "lighttpd -D -f FILE", "lighttpd -v", """
        server.document-root = "DIR/www"
        server.bind = "127.0.0.1"
        server.port = PORT
        server.listen-backlog = 4096
        server.max-fds = 20000
        server.max-connections = 15000
        server.max-keep-alive-requests = 65535
        mimetype.assign = ("" => "text/plain")"""),
    Peer("aiohttp", WEB, ("plain",), "/usr/bin/python3 FILE",
         "/usr/bin/python3 -c 'import aiohttp; print(aiohttp.__version__)'", """
from aiohttp import web
async def greet(request): return web.Response(text="Hello, " + request.match_info["name"])
app = web.Application()
app.router.add_get("/{name}", greet)
web.run_app(app, host="127.0.0.1", port=PORT, backlog=4096, access_log=None, print=None)"""),
    Peer("node", WEB, ("plain",), "node FILE", "node -v", """
        const http = require('http'), body = 'Hello, world';
        const server = http.createServer((request, reply) => {
            reply.writeHead(200, {'Content-Type': 'text/plain', 'Content-Length': body.length}); reply.end(body); });
        server.keepAliveTimeout = 60000;
        server.listen({port: PORT, host: '127.0.0.1', backlog: 4096});""", True),
    Peer("node echo", ("echo",), ("plain",), "node FILE", "node -v", """
        require('net').createServer({allowHalfOpen: true, noDelay: true}, socket => {
            socket.on('error', () => {}); socket.pipe(socket);
        }).listen({port: PORT, host: '127.0.0.1', backlog: 4096});""", True),
    Peer("asyncio", ("echo",), ("plain",), "python3 FILE", "python3 -V", """
import asyncio
class Echo(asyncio.Protocol):
    def connection_made(self, transport): self.transport = transport
    def data_received(self, data): self.transport.write(data)
async def main():
    server = await asyncio.get_running_loop().create_server(Echo, '127.0.0.1', PORT, backlog=4096)
    await server.serve_forever()
asyncio.run(main())"""),
    Peer("socat", ("echo",), ("plain",),
         "socat TCP-LISTEN:PORT,bind=127.0.0.1,reuseaddr,fork,backlog=4096,nodelay PIPE", "socat -V", ""),
    Peer("xinetd", ("echo",), ("plain",), "xinetd -dontfork -f FILE -pidfile DIR/xinetd.pid", "xinetd -version", """
        defaults
        {
            instances = UNLIMITED
            per_source = UNLIMITED
            cps = 1000000 1
        }
        service echo
        {
            type = INTERNAL UNLISTED
            socket_type = stream
            protocol = tcp
            wait = no
            user = root
            bind = 127.0.0.1
            port = PORT
        }"""),
)
