#!/usr/bin/env python3
"""The benchmark of echod: what it costs beside a bare epoll loop, and beside other servers.

workloads.py says what is asked and how CPU is counted, figures.py measures all else, contenders.py says who is
measured, processes.py starts and watches them, report.py prints.  Every byte that a server answers is verified by the
load (load.c).  When the load, the bare loop or echod fails, there are no figures, a message and exit status 1; a peer that
fails is left out, and why is said.
"""

import argparse
import json
import os
import platform
import re
import resource
import signal
import sys
import tempfile

import figures
import report
from contenders import PEERS, Bare, Echod, Lab
from processes import Failed, Server, read
from workloads import WORKLOADS, Bench, measure_cpu

# (key, how it is measured, how it is printed, protocols that it is measured with)
FIGURES = (
    ("latency", figures.measure_latency, report.latency, ("echo", "http")),
    ("memory", figures.measure_memory, report.memory, ("echo", "http")),
    ("allocations", figures.measure_allocations, report.allocations, ()),
    ("threads", figures.measure_threads, report.threads, ("echo", "http", "handshake")),
    ("start", figures.measure_start, report.start, ()),
    ("reload", figures.measure_reload, report.reload, ()),
)
KEYS = [workload.key for workload in WORKLOADS] + [key for key, *_ in FIGURES]


def contenders_of(options):
    contenders = [Bare()]
    if options.echod != "none":
        contenders.append(Echod(options.echod))
    if options.baseline:
        contenders.append(Echod(options.baseline, "baseline"))
    if options.control:
        contenders.append(Bare("control"))
    return contenders + [peer for peer in PEERS if peer.name in options.peers]


def learn_reply(lab, contenders):
    """The bare loop answers with echod's own bytes, so both send the same."""
    for echod in [one for one in contenders if isinstance(one, Echod)][:1]:
        server = echod.start(lab, "http", "plain")
        lab.reply = server.ask(b"GET /world HTTP/1.1\r\nHost: localhost\r\n\r\n", b"Hello, world").decode()
        echod.stop(server)


def machine():
    model = re.search(r"model name\s*: (.*)", read("/proc/cpuinfo"))
    return {"kernel": platform.release(), "processor": model.group(1) if model else platform.machine()}


def run_workloads(bench, wanted):
    results = {}
    for workload in WORKLOADS:
        reason = bench.why_not(workload) if workload.key in wanted else None
        if reason:
            bench.left_out[workload.title] = reason
        elif workload.key in wanted:
            if not results:
                report.cpu_heading(bench.options)
            results[workload.key] = {"title": workload.title, "target": workload.target,
                                     "servers": measure_cpu(bench, workload)}
            report.cpu(workload, results[workload.key]["servers"], bench.options.short)
    return results


def run_figures(bench, wanted):
    results = {}
    for key, measure, tell, protocols in FIGURES:
        for protocol in protocols or (None,) if key in wanted else ():
            arguments = [protocol] if protocol else []
            result = measure(bench, *arguments)
            tell(*arguments, result)
            if protocol:
                results.setdefault(key, {})[protocol] = result
            else:
                results[key] = result
    return results


def run(options, folder):
    lab = Lab(options.tools, folder)
    contenders = contenders_of(options)
    learn_reply(lab, contenders)
    bench = Bench(lab, options, contenders)
    bench.leave_out_missing()
    if len(lab.cores.all) == 1:
        report.say("Only one core: server and load share it, so the figures say little.")
    wanted = options.only or KEYS
    versions = {one.name: one.version for one in bench.contenders}
    results = {"machine": {**machine(), "cores": len(lab.cores.all)}, "versions": versions, "rounds": options.rounds,
               "seconds": options.seconds, "workloads": run_workloads(bench, wanted), **run_figures(bench, wanted),
               "left_out": bench.left_out}
    report.ending(results)
    if options.json:
        with open(options.json, "w", encoding="utf-8") as file:
            json.dump(results, file, indent=1)
            file.write("\n")


def parse_options():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--echod", default=os.environ.get("ECHOD", "./echod"), metavar="PATH",
                        help="the server to measure (./echod); none: only the others")
    parser.add_argument("--baseline", metavar="PATH", help="another build of echod, to compare two")
    parser.add_argument("--control", action=argparse.BooleanOptionalAction,
                        help="a second bare loop: how far its ratio is from 1 is noise (on, but with --short)")
    parser.add_argument("--peers", metavar="NAMES",
                        help="other servers, with commas between; all, or none (all that are installed, but none with "
                        "--short): " + ", ".join(peer.name for peer in PEERS))
    parser.add_argument("--tools", default="tests/bench", metavar="DIR",
                        help="where the programs in C are (tests/bench)")
    parser.add_argument("--rounds", type=int, default=45, help="rounds of each server; a peer has a fifth of them (45)")
    parser.add_argument("--seconds", type=float, default=0.1, help="length of a round (0.1)")
    parser.add_argument("--short", action="store_true", help="only to see that it works: the figures say nothing")
    parser.add_argument("--only", action="append", choices=KEYS, help="this alone; may be repeated")
    parser.add_argument("--json", metavar="FILE", help="write the results there too")
    options = parser.parse_args()
    names = [peer.name for peer in PEERS]
    chosen = options.peers or ("none" if options.short else "all")
    options.peers = {"all": names, "none": []}.get(chosen, chosen.split(","))
    if not set(options.peers) <= set(names):
        parser.error("unknown among the peers: " + ", ".join(set(options.peers) - set(names)))
    options.warm_up = 0.05
    options.control = not options.short if options.control is None else options.control
    if options.short:
        options.rounds, options.seconds, options.warm_up = 1, 0.05, 0.02
    if options.rounds < 1 or not 0.01 <= options.seconds <= 60:
        parser.error("at least one round, of 0.01 to 60 seconds")
    return options


def main():
    options = parse_options()
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: sys.exit(1))
    os.environ["PATH"] += ":/usr/sbin:/sbin"  # where servers are, also for who is not root
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    with tempfile.TemporaryDirectory(prefix="echod-bench-") as folder:
        try:
            run(options, folder)
        except (Failed, OSError) as error:
            sys.exit(f"bench: {error}")
        finally:
            for server in list(Server.running):
                server.end()


if __name__ == "__main__":
    main()
