"""The tables for people, 80 columns wide, printed as the figures come."""

from contenders import PEERS
from workloads import BEST_PEER

DISTURBED = 0.05  # share of the time that the bare loop or echod waited for its core, from which on a note says so


def duration(nanoseconds):
    for unit, size in (("s", 1e9), ("ms", 1e6), ("us", 1e3)):
        if nanoseconds >= size:
            return f"{nanoseconds / size:#.3g}".rstrip(".") + " " + unit
    return f"{nanoseconds:.0f} ns"


def say(text=""):
    print(text, flush=True)


def rows(title, lines):
    """Lines (name, text), the title in front of the first."""
    for name, text in lines:
        say(f"{title:20}{name:10}{text}".rstrip())
        title = ""


def cpu_heading(options):
    if options.short:
        say("One short round of everything, only to see that it works: the figures say nothing.")
        say()
    say("Server CPU a request, beside a bare epoll loop that does the same system calls")
    say(f"and nothing else: median of up to {options.rounds} paired ratios, with their quartiles.")
    say()
    rows("", [("", " ratio  quartiles     goal CPU each   each second")])


def cpu_goal(workload, results):
    """What echod's ratio should be at most, or None."""
    if workload.target != BEST_PEER:
        return workload.target
    peers = {peer.name for peer in PEERS}
    return min((one["ratio"] for name, one in results.items() if name in peers), default=None)


def cpu_row(one, goal):
    rate = one["requests_per_second"]
    return (f"{one['ratio']:6.2f}  {one['q1']:.2f}-{one['q3']:.2f}".ljust(21) + (f"{goal:5.2f}" if goal else " " * 5)
            + f"{duration(one['cpu_ns']):>9}   " + (f"{rate:11,.0f}" if rate >= 100 else f"{rate:11.2f}"))


def cpu(workload, results, short):
    goal = cpu_goal(workload, results)
    rows(workload.title, [(name, cpu_row(one, goal if name == "echod" else None)) for name, one in results.items()])
    for name, one in results.items():
        if "log_adds" in one:
            low, middle, high = one["log_adds"]
            say(f"{'':20}the access log of {name} adds {middle:.2f}  {low:.2f}-{high:.2f}  (goal 0.10)")
    if max(one["waited"] for name, one in results.items() if name in ("bare", "echod")) > DISTURBED and not short:
        say(f"{'':20}(rough: something else was busy on the server's core)")


def latency_row(one):
    if "ratios" not in one:
        return f"undecided: {one['quiet']} quiet rounds of {one['rounds']}"
    ratio = one["ratios"]["p99.9"]
    return ("".join(f"{duration(one[key]):>9}" for key in ("p50", "p99", "p99.9", "p99.99"))
            + f"{ratio['median']:8.2f}  {ratio['q1']:.2f}-{ratio['q3']:.2f} {100 * one['slow']:5.1f} %{one['quiet']:6}")


def latency(protocol, results):
    say()
    say(f"Latency of {named(protocol)}, open loop at {results['rate']:,.0f} a second, half of what the")
    say("bare loop can do, for all alike; timed from when a request was due. Of rounds of")
    say(f"{1000 * results['seconds']:.0f} ms those count in which nothing else took a core; slow ones have a p99.9 of over")
    say("5 times the bare loop's.")
    say()
    say(f"{'':10}{'p50':>9}{'p99':>9}{'p99.9':>9}{'p99.99':>9}  p99.9 ratio    slow rounds")
    for name, one in results["servers"].items():
        say(f"{name:10}" + latency_row(one))
        if one["late"] > 0:
            say(f"{'':10}(in {one['late']} rounds it did not keep up with the rate)")


def named(protocol):
    return {"echo": "echo 64 B", "http": "HTTP keep-alive", "handshake": "TLS handshakes with RSA 6144"}[protocol]


def memory(protocol, results):
    count = next(iter(results.values()))["connections"]
    say()
    say(f"Resident memory of an idle connection, {protocol}, {count:,} open:")
    say()
    for name, one in results.items():
        say(f"{name:10}{one['fresh_bytes']:8,.0f} bytes fresh{one['used_bytes']:8,.0f} bytes after one request")


def allocations(results):
    say()
    say("Calls of malloc, calloc and realloc a request, in the steady state:")
    say()
    for name, figures in results.items():
        for title, calls in figures.items():
            say(f"{name:10}{title:20}{calls:8.3g}")


def spread(figure, form=".2f"):
    return f"{figure['median']:{form}} ({figure['q1']:{form}} - {figure['q3']:{form}})"


def threads(protocol, results):
    say()
    for name, one in results.items():
        say(f"Two threads of {name} beside one, {named(protocol)}, {one['cores']} cores:")
        say(f"CPU a request {spread(one['cpu_ratio'])}, throughput {spread(one['work_ratio'])}")
        if not one["says_work"]:
            say(f"(the load takes {one['two']['load_share']:.0%} of the cores, so the throughput says nothing)")


def start(results):
    say()
    say("From fork to ready, ms: median (q1 - q3)")
    say()
    for name, one in results.items():
        say(f"{name:15}{spread(one)}")


def reload(results):
    say()
    for name, one in results.items():
        say(f"Reload of {name} with {one['listeners']:,} listeners: {spread(one['ms'], '.1f')} ms, "
            f"CPU {spread(one['cpu_ms'], '.1f')} ms;")
        say(f"a request on a live connection took {spread(one['stall_ms'])} ms at most meanwhile,")
        say(f"{spread(one['stall_without_ms'])} ms without a reload.")


def ending(results):
    say()
    for name, reason in results["left_out"].items():
        say(f"left out: {name}: {reason}")
    say("versions: " + ", ".join(f"{name} {version}" for name, version in results["versions"].items() if version))
    say("machine: {processor}, {cores} cores, Linux {kernel}".format(**results["machine"]))
