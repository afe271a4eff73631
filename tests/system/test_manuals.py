"""What --help, the manual pages and bash's completion say of the two programs is the same."""

import json
import os
import re
import shutil
import subprocess
import tempfile
import unittest

from harness import SOURCE, run
from prober import COMMAND, HAVE_OPENSSL, Certificates, Server, answer, probe

PROGRAMS = {'echod': 'echod.8', 'echoprobe': 'echoprobe.1'}


def usage(program):
    return run('--help').stdout if program == 'echod' else probe('--help').out.decode()


def options(program):
    """Of --help: {long name: (letter or None, takes a value)}"""
    found = re.findall(r'^ +(?:-(\w), +)?--([\w-]+)(=)?', usage(program), re.M)
    return {name: (letter or None, bool(value)) for letter, name, value in found}


class Help(unittest.TestCase):

    def test_width(self):
        self.assertGreater(len(options('echoprobe')), 25)
        for line in usage('echoprobe').splitlines():
            self.assertLessEqual(len(line), 88, line)

    def test_manual_pages(self):
        for program, page in PROGRAMS.items():
            with open(os.path.join(SOURCE, 'src', page), encoding='utf-8') as file:
                text = file.read()
            # every option in an item of its own, with its letter if it has one; and none that --help does not know
            found = re.findall(r'(?:Fl (\w) , )?(?:Fl )?-([a-z][\w-]+)(?= |$)', '\n'.join(
                line for line in text.splitlines() if line.startswith('.It Fl')), re.M)
            want = {(letter or '', name) for name, (letter, _) in options(program).items()}
            self.assertEqual(set(found), want, program)


def section(title):
    """The items of a section or subsection of echoprobe(1), in their order: {name: (literal words, text)}"""
    with open(os.path.join(SOURCE, 'src', 'echoprobe.1'), encoding='utf-8') as file:
        text = re.search(rf'^\.S[hs] {title}\n(.*?)(?=^\.S[hs] )', file.read(), re.M | re.S)[1]
    items = {}
    for names, body in re.findall(r'^\.It Li (.*)\n((?:(?!\.It ).*\n)*)', text, re.M):
        words = ' '.join(re.findall(r'^\.Li (.*)$', body, re.M))
        items.update((name, (re.findall(r'\w+', words), body)) for name in names.split(' , '))
    return items


@unittest.skipUnless(HAVE_OPENSSL, 'no openssl')
class Fields(unittest.TestCase):
    """What echoprobe(1) says of JSON and Prometheus is what comes."""

    @classmethod
    def setUpClass(cls):
        """What a server with all phases and a status gets said of it, and one that is not there."""
        with Certificates() as certs:
            certs.issue('good')
            body = b'HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n'
            with Server(answer(body), context=certs.context('good')) as server:
                args = f'https://localhost:{server.port}/', 'unix:/nowhere/x', '--ca=' + certs.path('ca.pem')
                modes = [], ['-c', '1'], ['-d', '0.1', '-r', '20']
                cls.said = [[json.loads(line) for line in probe(*args, *mode, '--json').out.splitlines()] for mode in modes]
                cls.metrics = [probe(*args, *mode, '-f', 'prometheus').out.decode() for mode in modes]

    def check_order(self, said, page, left_out=()):
        """The fields in the order of the page, all but those that it says are left out."""
        self.assertEqual(list(said), [name for name in page if name not in left_out])

    def test_json(self):
        page = section('What a URL came to')
        phases = [name for name in page if re.fullmatch('[a-z]+_ms', name) and name != 'latency_ms']
        self.assertEqual(len(phases), 5)
        for mode, lines in zip(('once', 'ping', 'load'), self.said):
            good, bad = lines[-2:]
            with self.subTest(mode=mode):
                self.assertEqual((good['mode'], good['verdict'], bad['verdict']), (mode, 'ok', 'critical'), lines)
                rate = [] if mode == 'load' else ['rate']
                self.check_order(good, page, rate if mode == 'once' else rate + phases)
                self.check_order(bad, page, [*rate, *phases, 'latency_ms', 'status'])
                self.assertEqual(list(good['latency_ms']), page['latency_ms'][0])
                self.assertEqual(list(bad['failures']), [bad['failure']])
        self.assertEqual(page['mode'][0], ['once', 'ping', 'load'])
        self.assertEqual(page['verdict'][0], ['ok', 'warning', 'critical'])

    def test_json_of_a_probe(self):
        page = section('One probe of a ping')
        good, bad = sorted(self.said[1][:-2], key=lambda line: line['failure'] != 'none')
        self.check_order(good, page)
        self.assertLessEqual(set(bad), set(page))
        self.assertLessEqual({'url', 'seq', 'failure', 'message'}, set(bad))

    def test_metrics(self):
        """Each metric with its second label, and the values of that."""
        page = section('METRICS')
        values = {'class': set(section('DIAGNOSTICS'))}
        for label, metric in (('quantile', 'latency'), ('phase', 'phase')):
            text = page[f'echoprobe_{metric}_seconds'][1].splitlines()[2]
            values[label] = set(re.findall(r'\b(?:[\d.]*\d|resolve|connect|tls|first|done)\b', text))
        for text in self.metrics:
            samples = re.findall(r'^(\w+)\{url="[^"]+"(?:,(\w+)="([^"]+)")?\} ', text, re.M)
            self.assertEqual(len(samples), sum(line[:1] != '#' for line in text.splitlines()))
            self.assertLessEqual({name for name, _, _ in samples}, set(page))
            for name, label, _ in samples:
                self.assertEqual(page[name][0], [label] if label else [])
            if 'echoprobe_phase_seconds{' in text:
                self.assertEqual({name for name, _, _ in samples}, set(page))
            for label in {label for _, label, _ in samples if label}:
                self.assertEqual({value for _, which, value in samples if which == label}, values[label])


class Examples(unittest.TestCase):

    def test_textfile_collector(self):
        """Neither an empty nor a cut file takes the place of a whole one."""
        with open(os.path.join(SOURCE, 'src', 'echoprobe.1'), encoding='utf-8') as file:
            script = re.search(r'^For the textfile collector.*\n\.Bd .*\n((?:.*\n)*?)\.Ed', file.read(), re.M)[1]
        with tempfile.TemporaryDirectory() as folder, Server(answer(b'HTTP/1.1 200 OK\r\n\r\n')) as server:
            script = script.replace('/var/lib/node_exporter', folder).replace('tcp://echo.example', '"$URL"')
            script = script.replace('echoprobe ', '"$@" ').replace('>echo.$$', '>${FULL-echo.$$}')
            for url, full, whole in ((server.url('http'), None, True), ('unix:/nowhere', None, True), ('nonsense', None, False),
                                     (server.url('http'), '/dev/full', False)):
                with self.subTest(url=url, full=full):
                    with open(os.path.join(folder, 'echo.prom'), 'w', encoding='ascii') as file:
                        file.write('before\n')
                    env = os.environ | {'URL': url} | ({'FULL': full} if full else {})
                    subprocess.run(['sh', '-c', script, 'sh', *COMMAND], env=env, capture_output=True)
                    with open(os.path.join(folder, 'echo.prom'), encoding='ascii') as file:
                        self.assertEqual(file.read() != 'before\n', whole)
                    self.assertEqual(os.listdir(folder), ['echo.prom'])


@unittest.skipUnless(shutil.which('bash'), 'no bash')
class Completion(unittest.TestCase):

    def complete(self, program, *words, cwd=None):
        """What is offered for the last of the words, which are those that bash sees behind the program's name."""
        script = ('set -u; source "$1"; shift; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); "_$1"; '
                  'if ((${#COMPREPLY[@]})); then printf "%s\\n" "${COMPREPLY[@]}"; fi')
        file = os.path.join(SOURCE, 'src', 'completions', program)
        done = subprocess.run(['bash', '-c', script, 'bash', file, program, *words], capture_output=True, text=True, cwd=cwd)
        self.assertEqual((done.returncode, done.stderr), (0, ''))
        return done.stdout.split()

    def test_registers(self):
        for program in PROGRAMS:
            file = os.path.join(SOURCE, 'src', 'completions', program)
            done = subprocess.run(['bash', '-c', f'source "$0" && complete -p {program}', file], capture_output=True, text=True)
            self.assertEqual(done.stdout, f'complete -F _{program} {program}\n')

    def test_options(self):
        """All that --help lists, with = behind those that take a value."""
        for program in PROGRAMS:
            want = {f'--{name}' + '=' * value for name, (_, value) in options(program).items()}
            self.assertEqual(set(self.complete(program, '-')), want)
        self.assertEqual(self.complete('echoprobe', '--hal'), ['--half-close'])
        self.assertEqual(self.complete('echoprobe', 'tcp', ':', '//x', '--expect-'), ['--expect-status='])

    def test_values(self):
        for words in (['-f', ''], ['--format', ''], ['--format', '=']):
            self.assertEqual(self.complete('echoprobe', *words), ['text', 'json', 'nagios', 'prometheus'])
        self.assertEqual(self.complete('echoprobe', '--format', '=', 'j'), ['json'])
        for name, (letter, value) in options('echoprobe').items():
            if value and name not in ('format', 'ca', 'cert', 'key', 'hdrplot', 'expect-status'):
                for option in filter(None, (f'--{name}', letter and f'-{letter}')):
                    self.assertEqual(self.complete('echoprobe', option, ''), [], option)

    def test_urls(self):
        self.assertEqual(self.complete('echoprobe', ''), ['tcp://', 'tls://', 'unix:', 'http://', 'https://'])
        self.assertEqual(self.complete('echoprobe', '-q', 'ht'), ['http://', 'https://'])

    def test_files(self):
        with tempfile.TemporaryDirectory() as folder:
            for name in ('one.ini', 'two.ini'):
                open(os.path.join(folder, name), 'w', encoding='ascii').close()
            for program, option in (('echod', '-c'), ('echod', '--config'), ('echoprobe', '--ca'), ('echoprobe', '--hdrplot')):
                self.assertEqual(sorted(self.complete(program, option, '', cwd=folder)), ['one.ini', 'two.ini'])
                self.assertEqual(self.complete(program, option, 'o', cwd=folder), ['one.ini'])
            self.assertEqual(self.complete('echoprobe', '--ca', '=', 't', cwd=folder), ['two.ini'])


if __name__ == '__main__':
    unittest.main()
