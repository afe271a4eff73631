"""What --help, the manual pages and bash's completion say of the two programs is the same."""

import os
import re
import shutil
import subprocess
import tempfile
import unittest

from harness import SOURCE, run
from prober import probe

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
