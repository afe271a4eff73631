"""CPU a request: what is asked of the servers, in rounds in turn, and what comes of it.

Servers run on one core and the load on another, in short rounds in turn: bare loop, echod, bare loop, echod ...  CPU is
what the kernel's scheduler counted for the server's threads (/proc/PID/task/*/schedstat), so it holds the system calls
too.  Each round has its own connections and a warm-up that does not count; the servers are started anew every few
rounds, because where the kernel happens to put a process is worth a per cent or two that no number of rounds averages
out.

A figure is the median of the paired ratios: a server's round divided by the bare loop's in the same turn.  Noise on a
shared machine (other guests, clock changes) lasts from a second to minutes, so it hits both rounds of a short turn and
cancels.  Measured with a second bare loop in echod's place, 4.5 s of rounds each, resampled: the standard deviation of
the figure for echo 64 B was 0.002 with 45 rounds of 0.1 s, 0.005 with 18 of 0.25 s and 0.013 with 9 of 0.5 s; the ratio
of medians, which compares rounds that may lie a minute apart, gave 0.013, 0.008 and 0.016, and 0.15 at worst (60000 B).
"""

import contextlib
import statistics
from collections import namedtuple

from contenders import Echod, EchodUnlogged
from processes import Failed, Load

ROUNDS_A_START = 9
PEER_TURNS = 5  # peers, whose figures need fewer digits, take part in every fifth turn
IDLE_CONNECTIONS = 10000
STREAM = 1 << 30

BEST_PEER = "best peer"

# load, flags: see load.c.  amount: of a round; None: the usual time.  active: connections that are not idle; None: all.
# target: the ratio that echod should not exceed; BEST_PEER: what the best of the peers has.
Workload = namedtuple("Workload", "key title protocol load connections transport flags amount rounds active target",
                      defaults=(64, "plain", (), None, None, None, None))
WORKLOADS = (
    Workload("echo64", "echo 64 B", "echo", "echo:64", target=1.10),
    Workload("echo1500", "echo 1500 B", "echo", "echo:1500"),
    Workload("echo16k", "echo 16 KiB", "echo", "echo:16384", target=1.12),
    Workload("echo60k", "echo 60000 B", "echo", "echo:60000", target=1.10),
    Workload("echo256k", "echo 256 KiB", "echo", "echo:262144", 16, target=0.72),
    Workload("stream", "echo 1 GiB", "echo", f"echo:{STREAM}", 1, amount="1x", rounds=9, target=0.72),
    Workload("close", "connect-echo-close", "echo", "close:64", target=1.06),
    Workload("busy", "100 busy of 10,000", "echo", "echo:64", IDLE_CONNECTIONS, active=100),
    Workload("http", "HTTP keep-alive", "http", "http", target=1.10),
    Workload("pipelined", "HTTP pipelined x16", "http", "http:16", target=1.15),
    Workload("once", "HTTP 1 a connection", "once", "once"),
    Workload("log", "HTTP, access log", "http", "http", transport="log"),
    Workload("proxy1", "HTTP 1, PROXY v1", "once", "once", transport="proxy", flags=("-p1",)),
    Workload("proxy2", "HTTP 1, PROXY v2", "once", "once", transport="proxy", flags=("-p2",)),
    Workload("tls", "TLS 1 a connection", "once", "once", transport="tls", flags=("-t",), target=BEST_PEER),
    Workload("resumed", "TLS 1, resumed", "once", "once", transport="tls", flags=("-r",), target=BEST_PEER),
    Workload("tlshttp", "TLS HTTP keep-alive", "http", "http", transport="tls", flags=("-t",), target=BEST_PEER),
    Workload("tlsecho", "TLS echo 16 KiB", "echo", "echo:16384", transport="tls", flags=("-t",)),
)
UNLIKE = {("haproxy", "busy"), ("socat", "busy"), ("xinetd", "busy")}  # too few descriptors; a process a connection


class Bench:
    """The contenders, and what happens to all of them alike.  left_out says who is missing where, and why."""

    def __init__(self, lab, options, contenders):
        self.lab, self.options, self.contenders = lab, options, contenders
        self.left_out = {}

    def leave_out_missing(self):
        for contender in self.contenders:
            if contender.is_peer and not contender.version:
                self.leave_out(contender, "", "not installed")

    def leave_out(self, contender, what, reason):
        self.left_out[f"{contender.name}, {what}" if what else contender.name] = reason

    def is_out(self, contender, what):
        return contender.name in self.left_out or f"{contender.name}, {what}" in self.left_out

    def order(self, what, servers, number):
        """Who takes part in a turn, each turn beginning with another one."""
        those = [one for one in servers if not self.is_out(one, what)
                 and (not one.is_peer or number % PEER_TURNS == 0)]
        return those[number % len(those):] + those[:number % len(those)]

    def guarded(self, contender, what, action, *arguments, **named):
        """A peer that fails is left out, and why is said; any other ends the run."""
        try:
            return action(*arguments, **named)
        except Failed as error:
            if not contender.is_peer:
                raise
            self.leave_out(contender, what, str(error))
            return None

    @contextlib.contextmanager
    def servers(self, what, protocol, transport, contenders=None):
        """Those that do it, started: {contender: server}."""
        started = {}
        for contender in contenders or self.contenders:
            if not self.is_out(contender, what):
                server = self.guarded(contender, what, contender.start, self.lab, protocol, transport)
                if server:
                    started[contender] = server
        yield started
        for contender, server in started.items():
            contender.stop(server)

    def load(self, workload, contender, server):
        flags = [flag for flag in workload.flags if contender.understands(workload.transport)]
        if workload.active:
            flags.append(f"-a{min(workload.active, self.connections(workload))}")
        return Load(self.lab.tool("load"), server, workload.load, self.connections(workload), flags)

    def connections(self, workload):
        return workload.connections if not self.options.short else min(workload.connections, 1000)

    def why_not(self, workload):
        """Why nobody is asked for it, or None."""
        if workload.transport == "tls" and not self.lab.certificate:
            return "no openssl command to make a certificate with"
        lacking = {contender.lacks(workload.transport) for contender in self.contenders if hasattr(contender, "lacks")}
        return f"this echod has no key {lacking.pop()}" if lacking and None not in lacking else None


def measure_round(bench, workload, server, load):
    load.run("1x")  # with TLS, the handshakes
    if not workload.amount:
        load.run(f"{bench.options.warm_up}s")
    before = server.settled_times()
    result = load.run(workload.amount or f"{bench.options.seconds}s")
    ran, waited = (now - then for now, then in zip(server.settled_times(), before))
    elapsed = result["elapsed"]
    return {"cpu_ns": ran / result["requests"], "requests_per_second": result["requests"] / elapsed,
            "busy": ran / 1e9 / elapsed, "waited": waited / 1e9 / elapsed}


def fresh_round(bench, workload, contender, server):
    with bench.load(workload, contender, server) as load:
        return measure_round(bench, workload, server, load)


def turn(bench, workload, servers, loads, number):
    """One round of each: {name: figures}."""
    results = {}
    for contender in bench.order(workload.title, servers, number):
        if contender in loads:
            result = bench.guarded(contender, workload.title, measure_round, bench, workload, servers[contender],
                                   loads[contender])
        else:
            result = bench.guarded(contender, workload.title, fresh_round, bench, workload, contender,
                                   servers[contender])
        if result:
            results[contender.name] = result
    return results


def compile_all(bench, workload, servers):
    """Lets those who compile while they run come to an end with it."""
    for contender, server in servers.items():
        if contender.compiles and not bench.options.short:
            with bench.load(workload, contender, server) as load:
                bench.guarded(contender, workload.title, load.run, workload.amount or "1s")


def held_loads(bench, workload, servers, stack):
    """Connections by the thousand are opened once, and not for each round."""
    def hold(contender, server):
        return stack.enter_context(bench.load(workload, contender, server))

    loads = {}
    for contender, server in servers.items() if workload.active else ():
        load = bench.guarded(contender, workload.title, hold, contender, server)
        if load:
            loads[contender] = load
    return loads


def measure_cpu(bench, workload):
    """{name: summary} of all turns."""
    turns, rounds = [], min(bench.options.rounds, workload.rounds or bench.options.rounds)
    contenders = [one for one in bench.contenders if (one.name, workload.key) not in UNLIKE]
    if workload.transport == "log":
        contenders += [EchodUnlogged(one.path, f"{one.name} off") for one in contenders if isinstance(one, Echod)]
    for first in range(0, rounds, ROUNDS_A_START):
        with bench.servers(workload.title, workload.protocol, workload.transport, contenders) as servers:
            compile_all(bench, workload, servers)
            with contextlib.ExitStack() as stack:
                loads = held_loads(bench, workload, servers, stack)
                turns += [turn(bench, workload, servers, loads, number)
                          for number in range(first, min(first + ROUNDS_A_START, rounds))]
    results = {one.name: summary(one.name, turns) for one in contenders if any(one.name in each for each in turns)
               and not bench.is_out(one, workload.title)}
    for one in contenders:
        if isinstance(one, EchodUnlogged):
            logged = one.name.removesuffix(" off")
            results[logged]["log_adds"] = quartiles([(each[logged]["cpu_ns"] - each[one.name]["cpu_ns"])
                                                     / each["bare"]["cpu_ns"] for each in turns])
    return results


def quartiles(values):
    """(lower quartile, median, upper quartile)"""
    return statistics.quantiles(values, n=4, method="inclusive") if len(values) > 1 else list(values) * 3


def summary(name, turns):
    """Of the turns in which it took part: the paired ratios to the bare loop, and medians of the rest."""
    rounds = [each[name] for each in turns if name in each]
    ratios = [each[name]["cpu_ns"] / each["bare"]["cpu_ns"] for each in turns if name in each]
    low, middle, high = quartiles(ratios)
    medians = {key: statistics.median(each[key] for each in rounds) for key in rounds[0]}
    return {"ratio": middle, "q1": low, "q3": high, "min": min(ratios), "max": max(ratios), **medians, "rounds": rounds}
