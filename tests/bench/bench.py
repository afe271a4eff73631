#!/usr/bin/env python3
"""Server CPU a request of echod, beside a bare epoll loop that does the same system calls and nothing else.

Servers run on one core and the load on another, in short rounds in turn: bare loop, echod, bare loop, echod ...  CPU is
what the kernel's scheduler counted for the server's threads (/proc/PID/task/*/schedstat), so it holds the system calls
too.  Each round has its own connections and a warm-up that does not count; the servers are started anew every few rounds,
because where the kernel happens to put a process is worth a per cent or two that no number of rounds averages out.

A figure is the median of the paired ratios: a server's round divided by the bare loop's in the same turn.  Noise on a
shared machine (other guests, clock changes) lasts from a second to minutes, so it hits both rounds of a short turn and
cancels.  Measured with a second bare loop in echod's place, 4.5 s of rounds each, resampled: the standard deviation of
the figure for echo 64 B was 0.002 with 45 rounds of 0.1 s, 0.005 with 18 of 0.25 s and 0.013 with 9 of 0.5 s; the ratio
of medians, which compares rounds that may lie a minute apart, gave 0.013, 0.008 and 0.016, and 0.15 at worst (60000 B).

The load verifies every byte.  When it or a server fails, there are no figures, a message and exit status 1.
"""

import argparse
import ctypes
import json
import os
import platform
import re
import resource
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections import namedtuple

Workload = namedtuple("Workload", "key title kind load connections")
WORKLOADS = (
    Workload("echo64", "echo 64 B", "echo", "echo:64", 64),
    Workload("echo1500", "echo 1500 B", "echo", "echo:1500", 64),
    Workload("echo16k", "echo 16 KiB", "echo", "echo:16384", 64),
    Workload("echo60k", "echo 60000 B", "echo", "echo:60000", 64),
    Workload("echo256k", "echo 256 KiB", "echo", "echo:262144", 16),
    Workload("http", "HTTP keep-alive", "http", "http", 64),
    Workload("pipelined", "HTTP pipelined x16", "http", "http:16", 64),
    Workload("close", "connect-echo-close", "echo", "close:64", 64),
)
IDLE = "idle"
IDLE_CONNECTIONS = 10000
WARM_UP = 0.05  # seconds
ROUNDS_A_START = 9
DISTURBED = 0.05  # share of the time that the bare loop waited for its core, from which on a note says so

ECHOD_INI = """\
[server]
log_level = notice
max_connections = 15000
[listener echo]
address = 127.0.0.1:0
handler = echo
[listener http]
address = 127.0.0.1:0
handler = greeting
max_requests = 1000000
"""

# Peers that run if --peers is given and their program is installed.  FILE is a file of the given text, DIR the folder it
# lies in, PORT a free port.
Peer = namedtuple("Peer", "name kind command text")
PEERS = (
    Peer("nginx", "http", "nginx -e stderr -p DIR -c FILE", """
        daemon off; master_process off; pid DIR/nginx.pid;
        events { worker_connections 20000; }
        http { access_log off; keepalive_requests 100000000; client_body_temp_path DIR; proxy_temp_path DIR;
               fastcgi_temp_path DIR; uwsgi_temp_path DIR; scgi_temp_path DIR;
               server { listen 127.0.0.1:PORT backlog=4096; default_type text/plain;
                        location / { return 200 "Hello, world"; } } }"""),
    Peer("haproxy", "http", "haproxy -db -f FILE", """
        global
            nbthread 1
            maxconn 1000
        defaults
            mode http
            timeout client 1m
        frontend web
            bind 127.0.0.1:PORT
            http-request return status 200 content-type text/plain string "Hello, world"
        """),
    Peer("node http", "http", "node FILE", """
        const http = require('http'), body = 'Hello, world';
        const server = http.createServer((request, reply) => {
            reply.writeHead(200, {'Content-Type': 'text/plain', 'Content-Length': body.length}); reply.end(body); });
        server.keepAliveTimeout = 60000;
        server.listen({port: PORT, host: '127.0.0.1', backlog: 4096});"""),
    Peer("node echo", "echo", "node FILE", """
        require('net').createServer({allowHalfOpen: true, noDelay: true}, socket => {
            socket.on('error', () => {}); socket.pipe(socket);
        }).listen({port: PORT, host: '127.0.0.1', backlog: 4096});"""),
    Peer("asyncio", "echo", "python3 FILE", """
import asyncio
class Echo(asyncio.Protocol):
    def connection_made(self, transport): self.transport = transport
    def data_received(self, data): self.transport.write(data)
async def main():
    server = await asyncio.get_running_loop().create_server(Echo, '127.0.0.1', PORT, backlog=4096)
    await server.serve_forever()
asyncio.run(main())"""),
    Peer("socat", "echo", "socat TCP-LISTEN:PORT,bind=127.0.0.1,reuseaddr,fork,backlog=4096,nodelay PIPE", ""),
)
NOT_IDLE = ("haproxy", "socat")  # two descriptors a connection reserved; a process each


class Failed(Exception):
    """A server or the load failed: no figures of it."""


def wait_for(condition, seconds):
    """The first true value of condition() within that time, else its last one."""
    end = time.monotonic() + seconds
    while True:
        value = condition()
        if value or time.monotonic() > end:
            return value
        time.sleep(0.002)


def read(path):
    with open(path, encoding="utf-8", errors="replace") as file:
        return file.read()


class Cores:
    """One core for the server and another for the load and this script."""

    def __init__(self):
        cores = sorted(os.sched_getaffinity(0))
        self.load, self.server = cores[0], cores[-1]
        if len(cores) == 1:
            print("bench: only one core: server and load share it, so the figures say little", file=sys.stderr)
        os.sched_setaffinity(0, {self.load})


class Server:
    """A running server in a process group of its own; its port is what `port` (a pattern) finds in what it prints."""

    running = []

    def __init__(self, name, argv, core, log, port):
        self.name, self.log = name, log
        with open(log, "wb") as output:
            self.process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=output, stderr=output,
                                            start_new_session=True, preexec_fn=lambda: self.prepare(core))
        Server.running.append(self)
        self.port = wait_for(lambda: self.process.poll() is not None or self.find_port(port), 10)
        if self.process.poll() is not None or not self.port:
            raise Failed(f"{name} did not start: {read(self.log)[-500:]}")

    @staticmethod
    def prepare(core):
        os.sched_setaffinity(0, {core})
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG: it never outlives this script

    def find_port(self, port):
        if isinstance(port, int):
            with socket.socket() as probe:
                return port if probe.connect_ex(("127.0.0.1", port)) == 0 else 0
        found = re.search(port, read(self.log), re.S)
        return int(found.group(1)) if found else 0

    def times(self):
        """Nanoseconds that its threads ran, and those that they waited for the core.  The threads of its children
        count (socat forks), and by the tick the children that have ended."""
        pid = self.process.pid
        ended = sum(map(int, read(f"/proc/{pid}/stat").rsplit(")", 1)[1].split()[13:15]))
        ran, waited = ended * (1000000000 // os.sysconf("SC_CLK_TCK")), 0
        for process in [pid] + read(f"/proc/{pid}/task/{pid}/children").split():
            try:
                for task in os.listdir(f"/proc/{process}/task"):
                    fields = read(f"/proc/{process}/task/{task}/schedstat").split()
                    ran, waited = ran + int(fields[0]), waited + int(fields[1])
            except (FileNotFoundError, ProcessLookupError):
                pass  # ended while we looked
        return ran, waited

    def settled_times(self):
        """The same once the server sleeps: until then the kernel's figures are behind."""
        seen = []
        try:
            wait_for(lambda: seen.append(self.times()) or len(seen) > 4 and seen[-1] == seen[-5], 2)
        except (FileNotFoundError, ProcessLookupError):
            raise Failed(f"{self.name} ended: {read(self.log)[-500:]}") from None
        return seen[-1]

    def memory(self):
        self.settled_times()
        return 1024 * int(re.search(r"^Rss:\s+(\d+) kB", read(f"/proc/{self.process.pid}/smaps_rollup"), re.M).group(1))

    def stop(self):
        """Ends it, by force if need be, with all it started; true if it went by itself with status 0."""
        Server.running.remove(self)
        if self.process.poll() is None:
            self.process.terminate()
        try:
            self.process.wait(5)
        except subprocess.TimeoutExpired:
            pass
        try:
            os.killpg(self.process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        return self.process.wait() == 0


class Load:
    """A running load with its connections open; run() is one round."""

    def __init__(self, program, workload, server, connections):
        self.process = subprocess.Popen([program, workload, f"127.0.0.1:{server.port}", str(connections)], text=True,
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        self.server = server

    def __enter__(self):
        self.expect("ready\n")
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.communicate()

    def expect(self, wanted=None):
        line = self.process.stdout.readline()  # load ends by itself when the server stands still
        if not line or wanted not in (None, line):
            raise Failed(f"{self.server.name}: {self.process.stderr.read().strip() or 'load ended'}")
        return line

    def run(self, amount):
        try:
            self.process.stdin.write(amount + "\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            pass  # what it said is read below
        return json.loads(self.expect())


class Bench:
    def __init__(self, options, folder):
        self.options, self.folder = options, folder
        self.cores = Cores()
        self.left_out = {}
        self.reply = []
        self.load_program = self.tool("load")
        self.starters = {"bare": self.start_bare}
        if options.echod != "none":
            self.starters["echod"] = lambda kind: self.start_echod("echod", options.echod, kind)
        if options.baseline:
            self.starters["baseline"] = lambda kind: self.start_echod("baseline", options.baseline, kind)
        if options.control:
            self.starters["control"] = self.start_bare
        for peer in PEERS if options.peers else ():
            self.add_peer(peer)
        if options.echod != "none":
            self.learn_reply()

    def tool(self, name):
        path = os.path.join(self.options.tools, name)
        if not os.access(path, os.X_OK):
            raise Failed(f"{path} is not there: build it, or name its folder with --tools")
        return path

    def file(self, text):
        handle, path = tempfile.mkstemp(dir=self.folder)
        with os.fdopen(handle, "w") as file:
            file.write(text and text + "\n")
        return path

    def start(self, name, argv, port):
        return Server(name, argv, self.cores.server, self.file(""), port)

    def start_bare(self, kind):
        return self.start("bare", [self.tool("bareloop"), kind] + (self.reply if kind == "http" else []), r"^(\d+)\n")

    def start_echod(self, name, path, kind):
        port = rf"listening listener={kind} address=127\.0\.0\.1:(\d+)\n.*\bready\b"
        return self.start(name, [path, "-c", self.file(ECHOD_INI)], port)

    def start_peer(self, peer):
        with socket.socket() as probe:  # the port is free again when the peer binds it, if nobody was quicker
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        fill = lambda text: text.replace("PORT", str(port)).replace("DIR", self.folder)
        path = self.file(fill(peer.text))
        return self.start(peer.name, [fill(word).replace("FILE", path) for word in peer.command.split()], port)

    def add_peer(self, peer):
        program = peer.command.split()[0]
        if shutil.which(program):
            self.starters[peer.name] = lambda kind: self.start_peer(peer) if kind == peer.kind else None
        else:
            self.left_out[peer.name] = "not installed"

    def learn_reply(self):
        """The bare loop answers with echod's own bytes, so both send the same."""
        server = self.start_echod("echod", self.options.echod, "http")
        with socket.create_connection(("127.0.0.1", server.port), 5) as client:
            client.sendall(b"GET /world HTTP/1.1\r\nHost: localhost\r\n\r\n")
            reply = b""
            while not reply.endswith(b"Hello, world"):
                data = client.recv(65536)
                if not data:
                    raise Failed(f"echod does not greet: {reply!r}")
                reply += data
        self.stop(server)
        self.reply = [reply.decode()]

    def stop(self, server):
        clean = server.stop()
        complaints = re.findall(r"^\S+ (?:warning|error) .*|.*Sanitizer.*", read(server.log), re.M)
        if server.name in ("echod", "baseline") and (complaints or not clean):
            raise Failed(f"{server.name}: exit status {server.process.returncode}; {' '.join(complaints)[:500]}")

    def guarded(self, name, action, *arguments):
        """A peer that fails is left out, and why is said; the others end the run."""
        try:
            return action(*arguments)
        except Failed as error:
            if name in ("bare", "control", "echod", "baseline"):
                raise
            self.left_out[name] = str(error)
            return None

    def start_all(self, kind):
        started = {}
        for name, starter in self.starters.items():
            server = None if name in self.left_out else self.guarded(name, starter, kind)
            if server:
                started[name] = server
        return started

    def round(self, workload, server):
        with Load(self.load_program, workload.load, server, workload.connections) as load:
            load.run(f"{WARM_UP}s")
            before = server.settled_times()
            result = load.run(f"{self.options.seconds}s")
            ran, waited = (now - then for now, then in zip(server.settled_times(), before))
        elapsed = result["elapsed"]
        return {"cpu_ns": ran / result["requests"], "requests_per_second": result["requests"] / elapsed,
                "busy": ran / 1e9 / elapsed, "waited": waited / 1e9 / elapsed}

    def turn(self, workload, servers, number, rounds):
        """One round of each server, each turn beginning with another one."""
        names = list(servers)
        for name in names[number % len(names):] + names[:number % len(names)]:
            if name not in self.left_out:
                result = self.guarded(name, self.round, workload, servers[name])
                if result:
                    rounds.setdefault(name, []).append(result)

    def measure(self, workload):
        rounds, servers = {}, {}
        for number in range(self.options.rounds):
            if number % ROUNDS_A_START == 0:
                for server in servers.values():
                    self.stop(server)
                servers = self.start_all(workload.kind)
            self.turn(workload, servers, number, rounds)
        for server in servers.values():
            self.stop(server)
        return {name: summary(rounds[name], rounds["bare"]) for name in rounds if name not in self.left_out}

    def idle_of(self, server, kind, load):
        """Bytes of resident memory a connection: just opened, and after one exchange on each."""
        count = min(IDLE_CONNECTIONS, resource.getrlimit(resource.RLIMIT_NOFILE)[0] - 200)
        with Load(self.load_program, load, server, 16) as few:  # what the first request brings in is not theirs
            few.run("1x")
        base = server.memory()
        with Load(self.load_program, load, server, count) as many:
            fresh = server.memory() - base
            many.run("1x")
            used = server.memory() - base
        return {"connections": count, "fresh_bytes": fresh / count, "used_bytes": used / count}

    def measure_idle(self, kind):
        results = {}
        for name, server in self.start_all(kind).items():
            if name not in NOT_IDLE:
                results[name] = self.guarded(name, self.idle_of, server, kind, "echo:64" if kind == "echo" else "http")
            self.stop(server)
        return {name: result for name, result in results.items() if result}


def summary(rounds, bare):
    ratios = [mine["cpu_ns"] / its["cpu_ns"] for mine, its in zip(rounds, bare)]
    low, _, high = statistics.quantiles(ratios, n=4, method="inclusive") if len(ratios) > 1 else ratios * 3
    middle = {key: statistics.median(each[key] for each in rounds) for key in rounds[0]}
    return {"ratio": statistics.median(ratios), "min": min(ratios), "q1": low, "q3": high, "max": max(ratios),
            **middle, "rounds": rounds}


COLUMNS = (("ratio", 1, "8.2f"), ("min", 1, "8.2f"), ("q1", 1, "7.2f"), ("q3", 1, "7.2f"), ("max", 1, "7.2f"),
           ("cpu_ns", 1, "10.0f"), ("requests_per_second", 1, "12.0f"), ("busy", 100, "9.0f"), ("waited", 100, "10.0f"))


def print_heading(options):
    print(f"Server CPU a request beside a bare epoll loop: median of {options.rounds} paired rounds, {options.seconds} s each.")
    print("busy, waited: per cent of the time that the server ran, and that it wanted to but another process did.")
    print(f"{'workload':20}{'server':10}   ratio     min     q1     q3    max    CPU ns  requests/s   busy %  waited %")


def print_workload(title, results):
    for name, one in results.items():
        figures = (format(scale * one[key], form) for key, scale, form in COLUMNS)
        print(f"{title:20}{name:10}" + "".join(figures), flush=True)
        title = ""
    if results["bare"]["waited"] > DISTURBED:
        print(f"{'':20}(rough: something else was busy on the server's core)")


def print_idle(kind, results):
    for name, one in results.items():
        print(f"{'idle ' + kind:20}{name:10}{one['fresh_bytes']:7.0f} bytes a connection fresh,"
              f"{one['used_bytes']:7.0f} after one request each ({one['connections']} connections)", flush=True)


def run(options, folder):
    bench = Bench(options, folder)
    wanted = options.only or [workload.key for workload in WORKLOADS] + [IDLE]
    report = {"rounds": options.rounds, "seconds": options.seconds, "kernel": platform.release(), "workloads": {},
              "idle": {}, "left_out": bench.left_out}
    print_heading(options)
    for workload in WORKLOADS:
        if workload.key in wanted:
            report["workloads"][workload.title] = bench.measure(workload)
            print_workload(workload.title, report["workloads"][workload.title])
    for kind in ("echo", "http") if IDLE in wanted else ():
        report["idle"][kind] = bench.measure_idle(kind)
        print_idle(kind, report["idle"][kind])
    for name, reason in bench.left_out.items():
        print(f"left out: {name}: {reason}")
    if options.json:
        with open(options.json, "w", encoding="utf-8") as file:
            json.dump(report, file, indent=1)
            file.write("\n")


def parse_options():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--echod", default=os.environ.get("ECHOD", "./echod"), metavar="PATH",
                        help="the server to measure (./echod); none: only the others")
    parser.add_argument("--baseline", metavar="PATH", help="another build of echod, to compare two")
    parser.add_argument("--control", action="store_true", help="a second bare loop: how far its ratio is from 1 is noise")
    parser.add_argument("--peers", action="store_true", help="other servers too, those that are installed")
    parser.add_argument("--tools", default="tests/bench", metavar="DIR", help="where bareloop and load are (tests/bench)")
    parser.add_argument("--rounds", type=int, default=45, help="rounds of each server (45)")
    parser.add_argument("--seconds", type=float, default=0.1, help="length of a round (0.1)")
    parser.add_argument("--short", action="store_true", help="2 rounds of 0.2 s: does it work? (the figures say little)")
    parser.add_argument("--only", action="append", choices=[workload.key for workload in WORKLOADS] + [IDLE])
    parser.add_argument("--json", metavar="FILE", help="write the results there too")
    options = parser.parse_args()
    if options.short:
        options.rounds, options.seconds = 2, 0.2
    if options.rounds < 1 or not 0.01 <= options.seconds <= 60:
        parser.error("at least one round, of 0.01 to 60 seconds")
    return options


def main():
    options = parse_options()
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: sys.exit(1))
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    with tempfile.TemporaryDirectory(prefix="echod-bench-") as folder:
        try:
            run(options, folder)
        except (Failed, OSError) as error:
            sys.exit(f"bench: {error}")
        finally:
            for server in list(Server.running):
                server.stop()


if __name__ == "__main__":
    main()
