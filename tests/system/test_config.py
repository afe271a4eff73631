"""Configuration cases, and the proof that tables, sample file and manual agree.

A case is a folder under tests/config.  It holds echod.ini (without one the unreadable file is the case) and either
expected.error, all of stderr with exit status 2, or expected.dump, what -T prints for a valid file.
"""

import os
import re
import subprocess
import tempfile
import unittest

from harness import COMMAND, SOURCE, TIMEOUT, run

CASES = os.path.join(SOURCE, 'tests', 'config')
SAMPLE = os.path.join(SOURCE, 'conf', 'echod.ini')
MANUAL = os.path.join(SOURCE, 'conf', 'echod.ini.5')


def read(*path):
    with open(os.path.join(*path), encoding='utf-8') as file:
        return file.read()


class Cases(unittest.TestCase):
    """One test for each folder, made below."""

    maxDiff = None

    def ends(self, name, args, status, stdout, stderr):
        done = run(*args, '-c', 'echod.ini', cwd=os.path.join(CASES, name))
        self.assertEqual((done.returncode, done.stderr, done.stdout), (status, stderr, stdout), args)

    def reads_back(self, dumped):
        """What -T prints is a configuration with the same values."""
        def values(text):
            return [re.sub(' +; .*', '', line) for line in text.splitlines() if not line.startswith(';')]
        with tempfile.TemporaryDirectory() as folder:
            with open(os.path.join(folder, 'echod.ini'), 'w', encoding='utf-8') as file:
                file.write(dumped)
            done = run('-T', '-c', 'echod.ini', cwd=folder)
        self.assertEqual((done.returncode, done.stderr), (0, ''))
        self.assertEqual(values(done.stdout), values(dumped))

    def case(self, name):
        files = set(os.listdir(os.path.join(CASES, name)))
        self.assertIn(files - {'echod.ini'}, ({'expected.error'}, {'expected.dump'}))
        if 'expected.error' in files:
            stderr = read(CASES, name, 'expected.error')
            self.assertRegex(stderr, r'\A(echod\.ini:(\d+:)? .+\n)+\Z')
            for args in ['-t'], ['-T'], []:
                self.ends(name, args, 2, '', stderr)
        else:
            self.ends(name, ['-t'], 0, 'echod.ini: configuration is valid\n', '')
            self.ends(name, ['-T'], 0, read(CASES, name, 'expected.dump'), '')
            self.reads_back(read(CASES, name, 'expected.dump'))


for folder in sorted(os.listdir(CASES)):
    if os.path.isdir(os.path.join(CASES, folder)):
        setattr(Cases, 'test_' + folder.replace('-', '_'), lambda self, name=folder: self.case(name))


def dump(*args):
    """What -T prints: (section, key, value, origin) of each key; a listener's section without its name."""
    done = run('-T', *args)
    assert (done.returncode, done.stderr) == (0, ''), done
    rows, section = [], None
    for line in done.stdout.splitlines():
        if match := re.fullmatch(r'\[(.*)\]', line):
            section = match[1]
        elif line:
            key, value, origin = re.fullmatch(r'(\w+) = (.*?) *; (.*)', line).groups()
            rows.append((section, key, value, origin))
    return rows


def with_hosts(path, *args):
    """How to run ARGS where PATH is /etc/hosts."""
    return ['unshare', '-m', 'sh', '-c', 'mount --bind "$0" /etc/hosts && exec "$@"', path, *args]


def can_unshare():
    try:
        return subprocess.run(with_hosts('/dev/null', 'true'), capture_output=True, timeout=TIMEOUT).returncode == 0
    except OSError:
        return False


@unittest.skipUnless(can_unshare(), 'no mount namespaces')
class ManyAddresses(unittest.TestCase):
    """How many addresses a name has is not for who configures to say."""

    def load(self, count, *more):
        with tempfile.TemporaryDirectory() as folder:
            hosts, path = os.path.join(folder, 'hosts'), os.path.join(folder, 'echod.ini')
            with open(hosts, 'w', encoding='ascii') as file:
                file.writelines(f'127.0.9.{i + 1} many.example\n' for i in range(count))
            with open(path, 'w', encoding='ascii') as file:
                file.write('[listener echo]\nhandler = echo\naddress = ' + ', '.join(['many.example:0', *more]) + '\n')
            done = subprocess.run(with_hosts(hosts, *COMMAND, '-t', '-c', path), capture_output=True, encoding='utf-8',
                                  timeout=TIMEOUT)
        return done.returncode, done.stderr.count('echod.ini:3: address: more than 63 addresses\n')

    def test_most(self):
        self.assertEqual(self.load(63), (0, 0))
        self.assertEqual(self.load(62, 'unix:/run/a'), (0, 0))

    def test_one_more(self):
        """Each item for which there is no room is told."""
        self.assertEqual(self.load(64), (2, 1))
        self.assertEqual(self.load(63, '127.0.0.1:1'), (2, 1))
        self.assertEqual(self.load(100, 'unix:/run/a', 'systemd:b', '127.0.0.1:1', 'unix:@c'), (2, 5))


class Agreement(unittest.TestCase):
    """Option tables (as -T shows them), sample file and manual."""

    maxDiff = None

    def test_cases_exist(self):
        self.assertTrue([name for name in dir(Cases) if name.startswith('test_')])

    def test_sample_is_the_defaults(self):
        built_in = dump()
        if any(origin != 'default' for *_, origin in built_in):
            self.skipTest('a configuration file is installed')
        sample = [row[:3] for row in dump('-c', SAMPLE) if row[0] != 'listener admin']
        self.assertEqual(sample, [row[:3] for row in built_in])

    def test_sample_is_complete(self):
        """Each key stands in the sample file itself, in one section at least that may hold it."""
        rows = dump('-c', SAMPLE)
        stands = {(section.split()[0], key) for section, key, _, origin in rows if origin != 'default'}
        self.assertEqual([row for row in rows if (row[0].split()[0], row[1]) not in stands], [])

    def test_manual(self):
        """The manual heads an entry with each key and its default, as the tables have them, and each just once."""
        told, section = [], None
        for line in read(MANUAL).splitlines():
            if match := re.fullmatch(r'\.Ss (.*)', line):
                section = 'server' if match[1] == '[server]' else 'listener'
            elif match := re.fullmatch(r'\.It Ic (\w+) Li =(?: Ar .*| (.+)|)', line):
                told.append((section, match[1], match[2] or ''))
        required = ('address', 'handler')
        keys = {(section.split()[0], key, '' if key in required else value)
                for section, key, value, _ in dump('-c', SAMPLE)}
        self.assertEqual(sorted(told), sorted(keys))


if __name__ == '__main__':
    unittest.main()
