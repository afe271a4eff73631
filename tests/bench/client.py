#!/usr/bin/env python3
"""What a round trip costs a client: CPU of `echoprobe` in load mode, beside the bare epoll loop of tests/bench/load.

    client.py --echod ./echod --echoprobe ./echoprobe --tools tests/bench [--rounds N] [--seconds S]

Both ask the same echod (one thread, on a core of its own), in turns; user and system time of each run are divided by the
answers it verified. Prints the median of each, and of the ratios of neighbours; exits 1 when a ratio is over the limit.
"""

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile

LIMIT = 1.3
CONNECTIONS = 64
WORKLOADS = (('echo:64', 'echo', ['-s', '64'], 1), ('echo:16384', 'echo', ['-s', '16k'], 1), ('http', 'web', [], 1),
             ('http:16', 'web', ['-P', '16'], 1))
INI = '[server]\nthreads = 1\n' + ''.join(f'[listener {name}]\naddress = 127.0.0.1:0\nhandler = {handler}\n'
                                          for name, handler in (('echo', 'echo'), ('web', 'greeting')))


def start_echod(path, folder, core):
    config = os.path.join(folder, 'echod.ini')
    with open(config, 'w', encoding='ascii') as file:
        file.write(INI)
    process = subprocess.Popen([path, '-c', config], stderr=subprocess.PIPE, text=True,
                               preexec_fn=lambda: os.sched_setaffinity(0, {core}))
    ports = {}
    for line in process.stderr:
        if match := re.search(r'listening listener=(\w+) address=127\.0\.0\.1:(\d+)', line):
            ports[match[1]] = int(match[2])
        if ' ready ' in line:
            return process, ports
    sys.exit('client.py: echod did not start')


def cost(command, core, answers):
    """Seconds of CPU for one answer."""
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True,
                               preexec_fn=lambda: os.sched_setaffinity(0, {core}))
    out = process.stdout.read()
    process.stdout.close()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f'client.py: {command}: exit status {process.returncode}')
    return (usage.ru_utime + usage.ru_stime) / answers(json.loads(out))


def main():
    parser = argparse.ArgumentParser()
    for option in ('echod', 'echoprobe', 'tools'):
        parser.add_argument(f'--{option}', required=True)
    parser.add_argument('--rounds', type=int, default=7)
    parser.add_argument('--seconds', type=float, default=1)
    options = parser.parse_args()
    cores = sorted(os.sched_getaffinity(0))
    worst = 0
    with tempfile.TemporaryDirectory() as folder:
        echod, ports = start_echod(options.echod, folder, cores[0])
        try:
            print(f'{"workload":12} {"bare us":>9} {"probe us":>9} {"ratio":>7}')
            for workload, listener, words, _ in WORKLOADS:
                address = f'127.0.0.1:{ports[listener]}'
                scheme = 'tcp' if listener == 'echo' else 'http'
                bare, probe = [], []
                for _ in range(options.rounds):
                    bare.append(cost([os.path.join(options.tools, 'load'), workload, address, str(CONNECTIONS),
                                      f'{options.seconds}s'], cores[-1], lambda said: said['requests']))
                    path = '/world' if scheme == 'http' else ''
                    probe.append(cost([options.echoprobe, f'{scheme}://{address}{path}', '-n', str(CONNECTIONS), '-d',
                                       str(options.seconds), '--json', *words], cores[-1],
                                      lambda said: said['sent'] - said['lost']))
                ratio = statistics.median(p / b for p, b in zip(probe, bare))
                worst = max(worst, ratio)
                print(f'{workload:12} {statistics.median(bare) * 1e6:9.3f} {statistics.median(probe) * 1e6:9.3f} {ratio:7.3f}',
                      flush=True)
        finally:
            echod.terminate()
            echod.communicate()
    return 1 if worst > LIMIT else 0


sys.exit(main())
