"""Servers and loads as processes: started on their core, watched by what the kernel counts, and always stopped."""

import ctypes
import json
import os
import re
import signal
import socket
import subprocess
import time


class Failed(Exception):
    """A server or the load failed: no figures of it."""


def wait_for(condition, seconds, pause=0.002):
    """The first true value of condition() within that time, else its last one."""
    end = time.monotonic() + seconds
    while True:
        value = condition()
        if value or time.monotonic() > end:
            return value
        time.sleep(pause)


def read(path):
    with open(path, encoding="utf-8", errors="replace") as file:
        return file.read()


class Cores:
    """One core for the server and another for the load and this script."""

    def __init__(self):
        self.all = sorted(os.sched_getaffinity(0))
        self.load, self.server = self.all[0], self.all[-1]
        os.sched_setaffinity(0, {self.load})


def is_open(port):
    """Whether somebody listens there."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


class Server:
    """A running server in a process group of its own; its port is a number, or what a pattern finds in what it says."""

    running = []

    def __init__(self, name, argv, cores, log, port, environment=None):
        self.name, self.log = name, log
        with open(log, "wb") as output:
            self.process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=output, stderr=output,
                                            start_new_session=True, preexec_fn=lambda: self.prepare(cores),
                                            env={**os.environ, **(environment or {})})
        Server.running.append(self)
        self.port = wait_for(lambda: self.process.poll() is not None or self.find_port(port), 10)
        if self.process.poll() is not None or not self.port:
            self.end()
            raise Failed(f"{name} did not start: {self.last_words()}")

    @staticmethod
    def prepare(cores):
        os.sched_setaffinity(0, cores)
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG: it never outlives this script

    def find_port(self, port):
        if isinstance(port, int):
            return port if is_open(port) else 0
        found = re.search(port, read(self.log), re.S)
        return int(found.group(1)) if found else 0

    def ask(self, request, end):
        """The reply to a request, up to the bytes that end it."""
        reply = b""
        with socket.create_connection(("127.0.0.1", self.port), 5) as client:
            client.sendall(request)
            while not reply.endswith(end):
                data = client.recv(65536)
                if not data:
                    raise Failed(f"{self.name} answers {reply!r}")
                reply += data
        return reply

    def last_words(self):
        return (read(self.log).strip().splitlines() or ["it said nothing"])[-1][-300:]

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
            raise Failed(f"{self.name} ended: {self.last_words()}") from None
        return seen[-1]

    def memory(self):
        self.settled_times()
        return 1024 * int(re.search(r"^Rss:\s+(\d+) kB", read(f"/proc/{self.process.pid}/smaps_rollup"), re.M).group(1))

    def end(self):
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

    def __init__(self, program, server, workload, connections, flags=(), cores=None):
        argv = [program, *flags, workload, f"127.0.0.1:{server.port}", str(connections)]
        self.process = subprocess.Popen(argv, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                        stderr=subprocess.PIPE)
        self.server = server
        if cores:
            os.sched_setaffinity(self.process.pid, cores)

    def __enter__(self):
        try:
            self.expect("ready\n")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.communicate()

    def ran(self):
        """Nanoseconds that it ran."""
        return int(read(f"/proc/{self.process.pid}/schedstat").split()[0])

    def expect(self, wanted=None):
        line = self.process.stdout.readline()  # load ends by itself when the server stands still
        if not line or wanted not in (None, line):
            said = self.process.stderr.read().strip().splitlines()
            raise Failed(f"{self.server.name}: {said[-1] if said else 'load ended'}")
        return line

    def begin(self, amount):
        try:
            self.process.stdin.write(amount + "\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            pass  # what it said is read by finish()

    def finish(self):
        return json.loads(self.expect())

    def run(self, amount):
        self.begin(amount)
        return self.finish()
