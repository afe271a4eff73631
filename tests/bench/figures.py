"""All that is measured and is not CPU a request: latency, memory, allocations, threads, starting, reloading.

Each function takes the Bench and returns what its table shows, as plain dictionaries.
"""

import contextlib
import itertools
import mmap
import os
import random
import signal
import statistics
import struct
import subprocess
import time

from contenders import Echod
from processes import Failed, Load, is_open, read, wait_for
from workloads import IDLE_CONNECTIONS, UNLIKE, WORKLOADS, quartiles

LATENCIES = ("p50", "p99", "p99.9", "p99.99")
LATENCY_TURNS = 1000
LATENCY_SECONDS = 0.02
LATENCY_CONNECTIONS = 64
QUIET = 100000  # nanoseconds: the load's turn beyond its work, and the server's wait for its core, in a round that nobody disturbed
ENOUGH = 50     # such rounds for a figure
STARTS = 25
RELOADS = 9
LISTENERS = 1000
PING_RATE = 2000  # a second, on the connection that lives through a reload


def spread(values):
    return dict(zip(("q1", "median", "q3"), quartiles(values)))


def own(bench):
    return [one for one in bench.contenders if isinstance(one, Echod)]


# --- Latency --------------------------------------------------------------------------------------------------------

# What a neighbour on a shared machine does to the load or the server, some milliseconds in every second, is a hundred
# times what is to be measured, and a median or a pool of long rounds shows that and nothing else.  So rounds are short,
# and only those count in which neither was kept from its core; the rule is the same for all.  A stall that is a
# server's own fault stays in, for then it runs, or sleeps.

def half_load(bench, load):
    """Half of what the bare loop does when all connections ask as fast as they can, requests a second."""
    load.run(f"{bench.options.warm_up}s")
    rounds = [load.run(f"{bench.options.seconds}s") for _ in range(9)]
    return max(each["requests"] / each["elapsed"] for each in rounds) / 2


def open_loads(bench, what, servers, load_word, stack):
    def begin(server):
        return stack.enter_context(Load(bench.lab.tool("load"), server, load_word, LATENCY_CONNECTIONS))

    loads = {contender: bench.guarded(contender, what, begin, server) for contender, server in servers.items()}
    return {contender: load for contender, load in loads.items() if load}


def latency_round(server, load, seconds, rate):
    load.run(f"{seconds / 4}s@{rate:.0f}")
    before = server.times()[1]
    result = load.run(f"{seconds}s@{rate:.0f}")
    waited = server.times()[1] - before
    return {**{key: result[key] for key in ("p50", "p99", "p99.9", "max")}, "missed": result["missed"],
            "quiet": result["stall"] < QUIET and waited < QUIET}


def latency_turn(bench, what, servers, loads, seconds, rate, number):
    results = {}
    for contender in bench.order(what, servers, number):
        result = bench.guarded(contender, what, latency_round, servers[contender], loads[contender], seconds, rate)
        if result:
            results[contender.name] = result
    return results


def percentiles(rounds, requests):
    """Of many short rounds: medians, but p99.99, which no request of a round may reach: all of a round's requests are
    below it in that share of the rounds."""
    maxima = sorted(each["max"] for each in rounds)
    figures = {key: statistics.median(each[key] for each in rounds) for key in LATENCIES[:3]}
    return {**figures, "p99.99": maxima[int(0.9999 ** requests * len(maxima))]}


def latency_summary(rounds, bare, requests):
    """Percentiles, and how far their ratios to the bare loop's go when the rounds are drawn again (bootstrap)."""
    chance, drawn = random.Random(999), []
    for _ in range(200):
        one, other = (percentiles(chance.choices(those, k=len(those)), requests) for those in (rounds, bare))
        drawn.append({key: one[key] / other[key] for key in LATENCIES})
    far = 5 * percentiles(bare, requests)["p99.9"]
    return {**percentiles(rounds, requests), "ratios": {key: spread([each[key] for each in drawn]) for key in LATENCIES},
            "slow": sum(each["p99.9"] > far for each in rounds) / len(rounds)}


def measure_latency(bench, protocol):
    """Open loop at half of the bare loop's rate, the same for all."""
    what, load_word = f"latency of {protocol}", "echo:64" if protocol == "echo" else "http"
    turns, seconds = (3, 0.02) if bench.options.short else (LATENCY_TURNS, LATENCY_SECONDS)
    with bench.servers(what, protocol, "plain") as servers, contextlib.ExitStack() as stack:
        loads = open_loads(bench, what, servers, load_word, stack)
        servers = {contender: servers[contender] for contender in loads}
        rate = half_load(bench, next(load for contender, load in loads.items() if contender.name == "bare"))
        all_rounds = [latency_turn(bench, what, servers, loads, seconds, rate, number) for number in range(turns)]
    rounds = {one.name: [each[one.name] for each in all_rounds if one.name in each] for one in servers
              if not bench.is_out(one, what)}
    quiet = {name: [each for each in those if each["quiet"] and not each["missed"]] for name, those in rounds.items()}
    results = {}
    for name, those in quiet.items():
        results[name] = {"rounds": len(rounds[name]), "quiet": len(those),
                         "late": sum(each["missed"] > 0 for each in rounds[name])}
        if min(len(those), len(quiet["bare"])) >= (1 if bench.options.short else ENOUGH):
            results[name].update(latency_summary(those, quiet["bare"], seconds * rate))
    return {"rate": rate, "seconds": seconds, "servers": results, "rounds": rounds}


# --- Memory ---------------------------------------------------------------------------------------------------------

def idle_memory(bench, server, load_word):
    """Bytes of resident memory a connection: just opened, and after one exchange on each."""
    count = 1000 if bench.options.short else IDLE_CONNECTIONS
    program = bench.lab.tool("load")
    with Load(program, server, load_word, 16) as few:  # what the first request brings in is not theirs
        few.run("1x")
    base = server.memory()
    with Load(program, server, load_word, count) as many:
        fresh = server.memory() - base
        many.run("1x")
        used = server.memory() - base
    return {"connections": count, "fresh_bytes": fresh / count, "used_bytes": used / count}


def measure_memory(bench, protocol):
    results, what = {}, f"memory of {protocol}"
    contenders = [one for one in bench.contenders if (one.name, "busy") not in UNLIKE]
    with bench.servers(what, protocol, "plain", contenders) as servers:
        for contender, server in servers.items():
            results[contender.name] = bench.guarded(contender, what, idle_memory, bench, server,
                                                    "echo:64" if protocol == "echo" else "http")
    return {name: result for name, result in results.items() if result}


# --- Allocations ----------------------------------------------------------------------------------------------------

NEVER_ALLOCATES = {"echo64", "echo1500", "echo16k", "echo60k", "http", "pipelined", "log"}


def calls_each(load, calls, amount):
    """Calls a request: the least of three rounds, for the event loop's own table grows a few times in its life."""
    least = None
    for _ in range(3):
        before = struct.unpack("Q", calls)[0]
        requests = load.run(amount)["requests"]
        each = (struct.unpack("Q", calls)[0] - before) / requests
        least = each if least is None else min(least, each)
    return least


def count_allocations(bench, echod, workload):
    """Calls of malloc, calloc and realloc a request, once every connection has had a few; None: it does not do that."""
    path = bench.lab.file("\0" * 8)
    server = echod.start(bench.lab, workload.protocol, workload.transport,
                         environment={"LD_PRELOAD": bench.lab.tool("allocs.so"), "ALLOCS": path})
    if not server:
        return None
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 8, prot=mmap.PROT_READ) as calls:
        with bench.load(workload, echod, server) as load:
            load.run(workload.amount or "20x")
            each = calls_each(load, calls, workload.amount or "100x")
            if struct.unpack("Q", calls)[0] == 0:
                raise Failed("the allocation counter counts nothing")
    echod.stop(server)
    if workload.key in NEVER_ALLOCATES and each > 0:
        raise Failed(f"{echod.name} allocates: {each:.3g} calls a request of {workload.title}")
    return each


def measure_allocations(bench):
    results = {}
    for echod, workload in itertools.product(own(bench), WORKLOADS):
        if not workload.active and not bench.why_not(workload):
            calls = count_allocations(bench, echod, workload)
            if calls is not None:
                results.setdefault(echod.name, {})[workload.title] = calls
    return results


# --- Threads --------------------------------------------------------------------------------------------------------

# protocol: (what the servers speak, over what, load, its flags).  A handshake costs the load next to nothing.
THREADS = {"echo": ("echo", "plain", "echo:64", ()), "http": ("http", "plain", "http", ()),
           "handshake": ("once", "costly", "once", ("-t",))}


def threads_round(bench, echod, protocol, threads, server_cores, load_cores):
    """CPU a request, requests a second, and the load's share of the CPU, with so many threads and as many loads."""
    speaks, transport, workload, flags = THREADS[protocol]
    server = echod.start(bench.lab, speaks, transport, threads=threads, cores=server_cores)
    loads = [Load(bench.lab.tool("load"), server, workload, 64, flags, cores={core}) for core in load_cores]
    try:
        for load in loads:
            load.expect("ready\n")
        for load in loads:
            load.begin(f"{bench.options.warm_up}s")
        _ = [load.finish() for load in loads]
        server_before, load_before = server.settled_times()[0], sum(load.ran() for load in loads)
        for load in loads:
            load.begin("0.1s" if bench.options.short else "1s")
        results = [load.finish() for load in loads]
        server_ran, load_ran = server.settled_times()[0] - server_before, sum(load.ran() for load in loads) - load_before
    finally:
        for load in loads:
            load.__exit__()
    echod.stop(server)
    requests = sum(each["requests"] for each in results)
    return {"cpu_ns": server_ran / requests, "requests_per_second": requests / max(each["elapsed"] for each in results),
            "load_share": load_ran / (server_ran + load_ran)}


def measure_threads(bench, protocol):
    """Two threads beside one.  Two cores of their own, and two for the load, let the throughput be seen; on fewer cores
    server and load share them all, and the throughput can be compared only where the load takes next to nothing."""
    cores = bench.lab.cores.all
    enough = len(cores) >= 4
    server_cores, load_cores = (set(cores[-2:]), cores[:2]) if enough else (set(cores), cores[:2])
    rounds = 1 if bench.options.short else 9
    results = {}
    for echod in own(bench):
        if THREADS[protocol][1] == "costly" and (not bench.lab.certificate or echod.lacks("costly")):
            continue
        pairs = [[threads_round(bench, echod, protocol, threads, server_cores, load_cores) for threads in (1, 2)]
                 for _ in range(rounds)]
        medians = [{key: statistics.median(one[key] for one in ones) for key in ones[0]} for ones in zip(*pairs)]
        results[echod.name] = {"cores": len(cores),
                               "says_work": enough or medians[1]["load_share"] < 0.1,
                               "cpu_ratio": spread([two["cpu_ns"] / one["cpu_ns"] for one, two in pairs]),
                               "work_ratio": spread([two["requests_per_second"] / one["requests_per_second"]
                                                     for one, two in pairs]),
                               "one": medians[0], "two": medians[1]}
    return results


# --- Starting -------------------------------------------------------------------------------------------------------

def start_once(bench, argv, ready):
    """Milliseconds from the fork to when ready(pipe) returns."""
    os.sched_setaffinity(0, {bench.lab.cores.server})  # inherited, so that the fork need not run Python
    try:
        begin = time.monotonic()
        process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    finally:
        os.sched_setaffinity(0, {bench.lab.cores.load})
    try:
        if not ready(process):
            raise Failed(f"{argv[0]} ended before it was ready")
        return 1000 * (time.monotonic() - begin)
    finally:
        process.kill()
        process.communicate()


def says(word):
    def ready(process):
        return any(word in line for line in process.stdout)  # a line at a time, as it comes
    return ready


def start_commands(bench):
    """{name: (command, how it is known to be ready)}"""
    lab = bench.lab
    commands = {"empty program": (["true"], lambda process: process.wait() == 0),
                "bare": ([lab.tool("bareloop"), "echo"], says(b"\n"))}
    for echod in own(bench):
        text = echod.configure([("echo", "echo", {}), ("web", "greeting", {}), ("admin", "admin", {})])
        commands[echod.name] = ([echod.path, "-c", lab.file(text)], says(b" ready "))
    for peer in bench.contenders:
        if peer.name == "nginx" and not bench.is_out(peer, "start"):
            argv, port = peer.command_line(lab, "plain")
            commands[peer.name] = (argv, lambda _: wait_for(lambda: is_open(port), 10, 0.0002))
    return commands


def measure_start(bench):
    times = {}
    for _ in range(2 if bench.options.short else STARTS):
        for name, (argv, ready) in start_commands(bench).items():
            times.setdefault(name, []).append(start_once(bench, argv, ready))
    return {name: spread(values) for name, values in times.items()}


# --- Reloading ------------------------------------------------------------------------------------------------------

def reload(server):
    """Milliseconds from SIGHUP until the log says that it is done."""
    said = read(server.log).count(" reloaded ")
    begin = time.monotonic()
    os.kill(server.process.pid, signal.SIGHUP)
    if not wait_for(lambda: read(server.log).count(" reloaded ") > said, 20, 0.0002):
        raise Failed(f"{server.name} did not reload: {server.last_words()}")
    return 1000 * (time.monotonic() - begin)


def reload_quietly(server):
    before = server.settled_times()[0]
    took = reload(server)
    return {"ms": took, "cpu_ms": (server.settled_times()[0] - before) / 1e6}


def stall(load, server, reloading):
    """The longest that a request on a live connection took in a second, in ms, without or with a reload."""
    load.begin(f"1s@{PING_RATE}")
    if reloading:
        time.sleep(0.2)
        reload(server)
    return load.finish()["max"] / 1e6


def measure_reload(bench):
    results, rounds = {}, 1 if bench.options.short else RELOADS
    for echod in own(bench):
        listeners = [("echo", "echo", {})] + [(f"more{i}", "echo", {}) for i in range(1, LISTENERS)]
        server = echod.launch(bench.lab, listeners, "echo")
        quiet = [reload_quietly(server) for _ in range(rounds)]
        with Load(bench.lab.tool("load"), server, "echo:64", 1) as load:
            still, stalls = zip(*[(stall(load, server, False), stall(load, server, True)) for _ in range(rounds)])
        echod.stop(server)
        results[echod.name] = {"listeners": LISTENERS, "ms": spread([each["ms"] for each in quiet]),
                               "cpu_ms": spread([each["cpu_ms"] for each in quiet]),
                               "stall_ms": spread(stalls), "stall_without_ms": spread(still)}
    return results
