"""Certificates for tests, made on the spot by openssl(1), in files that exist as long as the process.

    ca = authority('ca')
    a = ca.issue('a.example')       # a.certificate and a.key are paths

Names are those of DNS; the first is the common name too.
"""

import atexit
import functools
import os
import shutil
import subprocess
import tempfile
import unittest

CONFIG = """
[ca]
default_ca = test
[test]
database = {folder}/index
new_certs_dir = {folder}
rand_serial = yes
unique_subject = no
default_md = sha256
policy = any
copy_extensions = copy
[any]
commonName = supplied
"""


@functools.cache
def folder():
    if not shutil.which('openssl'):
        raise unittest.SkipTest('no openssl(1)')
    made = tempfile.TemporaryDirectory(prefix='echod-pki-')
    atexit.register(made.cleanup)
    with open(os.path.join(made.name, 'ca.conf'), 'w', encoding='ascii') as file:
        file.write(CONFIG.format(folder=made.name))
    with open(os.path.join(made.name, 'index'), 'w', encoding='ascii'):
        pass
    return made.name


def openssl(*words):
    subprocess.run(['openssl', *words], check=True, capture_output=True, stdin=subprocess.DEVNULL)


class Identity:

    def __init__(self, name):
        self.certificate = os.path.join(folder(), name + '.pem')
        self.key = os.path.join(folder(), name + '.key')

    def issue(self, *names, file=None, days=365, dates=None, rsa=False):
        """A certificate signed by this authority; DATES are (from, to) as YYYYMMDDHHMMSSZ."""
        made = Identity(file or names[0].replace('*', 'any'))
        request = made.certificate + '.request'
        kind = ['rsa:2048'] if rsa else ['ec', '-pkeyopt', 'ec_paramgen_curve:P-256']
        openssl('req', '-new', '-newkey', *kind, '-nodes', '-keyout', made.key, '-out', request,
                '-subj', '/CN=' + names[0], '-addext', 'subjectAltName=' + ','.join('DNS:' + name for name in names))
        validity = ['-startdate', dates[0], '-enddate', dates[1]] if dates else ['-days', str(days)]
        openssl('ca', '-batch', '-notext', '-config', os.path.join(folder(), 'ca.conf'), '-cert', self.certificate,
                '-keyfile', self.key, '-in', request, '-out', made.certificate, *validity)
        return made


@functools.cache
def authority(name='ca'):
    made = Identity(name)
    openssl('req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-days', '365',
            '-subj', '/CN=' + name, '-keyout', made.key, '-out', made.certificate)
    return made


@functools.cache
def identity(*names):
    """One of the authority "ca"."""
    return authority().issue(*names)
