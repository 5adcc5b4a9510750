"""Throw-away PostgreSQL clusters in temporary directories, on a free port of 127.0.0.1 and a
unix socket; made from a template once per version, run as user postgres when we are root.

Roles: alice, bob, admin, stats, forced (trust, password pw-NAME) and md5_user, scram_user,
plain_user, whose name says how they log in (by TCP). Database: shop, owned by alice;
database tls_only can be reached by TLS alone."""
import functools
import hashlib
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time

import psycopg

import fetch
from poll import until
from proxy import free_port

ROLES = ["alice", "bob", "admin", "stats", "forced", "md5_user", "scram_user", "plain_user"]
HBA = """
local all all trust
hostnossl tls_only all 127.0.0.1/32 reject
host all md5_user 127.0.0.1/32 md5
host all scram_user 127.0.0.1/32 scram-sha-256
host all plain_user 127.0.0.1/32 password
host all all 127.0.0.1/32 trust
"""
CONF = """
listen_addresses = '127.0.0.1'
max_connections = 150
shared_buffers = 32MB
fsync = off
full_page_writes = off
synchronous_commit = off
autovacuum = off
wal_level = minimal
max_wal_senders = 0
max_wal_size = 4GB
log_min_messages = warning
logging_collector = off
timezone = 'UTC'
lc_messages = 'C'
"""


def _owner():
    """Keyword arguments of Popen: who runs PostgreSQL."""
    if os.geteuid() != 0:
        return {}
    pw = pwd.getpwnam("postgres")
    return {"user": pw.pw_uid, "group": pw.pw_gid, "extra_groups": []}


def _give(path):
    if os.geteuid() == 0:
        pw = pwd.getpwnam("postgres")
        os.chown(path, pw.pw_uid, pw.pw_gid)


def _run(cmd, env=None, **options):
    done = subprocess.run(cmd, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, cwd="/",
                          env=env, timeout=120, **_owner(), **options)
    if done.returncode:
        raise RuntimeError(f"{cmd}: {done.stdout.decode()}")


@functools.lru_cache(None)
def _template(version):
    """A stopped data directory of that version with the roles and databases in it; made once, and
    kept among what the tests fetch."""
    made_of = repr((ROLES, HBA, CONF, os.stat(fetch.binary(version, "postgres")).st_mtime_ns))
    name = f"template-{version}-"
    path = os.path.join(fetch.cache(), name + hashlib.sha256(made_of.encode()).hexdigest()[:12])
    with fetch.locked("template"):
        if not os.path.exists(path):
            _drop_old(name)
            with tempfile.TemporaryDirectory(prefix="making-", dir=fetch.cache()) as made:
                os.chmod(made, 0o755)
                os.rename(_make_template(version, os.path.join(made, "template")), path)
    return path


def _drop_old(name):
    """Those of before, but for what another run may copy just now."""
    for other in os.scandir(fetch.cache()):
        if other.name.startswith(name) and time.time() - other.stat().st_mtime > 86400:
            shutil.rmtree(other.path, ignore_errors=True)


def _make_template(version, base):
    os.mkdir(base, 0o755)
    _give(base)
    data = os.path.join(base, "data")
    _run([fetch.binary(version, "initdb"), "-D", data, "-U", "postgres", "-A", "trust", "-N",
          "-E", "UTF8", "--locale=C"], env=fetch.environment(version))
    with open(os.path.join(data, "postgresql.conf"), "a") as f:
        f.write(CONF)
    with open(os.path.join(data, "pg_hba.conf"), "w") as f:
        f.write(HBA)
    cluster = Cluster(version, base=base)
    with cluster.connect("postgres") as c:
        for name in ROLES:
            how = "md5" if name == "md5_user" else "scram-sha-256"
            c.execute(f"set password_encryption = '{how}'")
            c.execute(f"create role {name} login password 'pw-{name}'")
        c.execute("create database shop owner alice")
        c.execute("create database tls_only owner alice")
    with cluster.connect("shop") as c:
        c.execute("grant all on schema public to public")
    cluster.halt()
    os.unlink(os.path.join(data, "postmaster.opts"))
    return base


class Cluster:
    def __init__(self, version="15", base=None, certs=None):
        self.version = version
        if base is None:
            template = _template(version)
            base = tempfile.mkdtemp(prefix="pgweave-cluster-")
            os.chmod(base, 0o755)
            _give(base)
            _run(["cp", "-a", os.path.join(template, "data"), base])
        self.base, self.data = base, os.path.join(base, "data")
        self.port, self.process = free_port(), None
        self.log_path = os.path.join(base, "log")
        self.options = []
        if certs:
            for name in ("server.crt", "server.key", "ca.crt"):
                shutil.copy(os.path.join(certs, name), base)
                path = os.path.join(base, name)
                os.chmod(path, 0o600)
                _give(path)
            self.options = ["-c", "ssl=on", "-c", f"ssl_cert_file={base}/server.crt",
                            "-c", f"ssl_key_file={base}/server.key",
                            "-c", f"ssl_ca_file={base}/ca.crt"]
        self.start()

    @property
    def socket_dir(self):
        return self.base

    def start(self):
        with open(self.log_path, "ab") as log:
            self.process = subprocess.Popen(
                [fetch.binary(self.version, "postgres"), "-D", self.data, "-p", str(self.port),
                 "-c", f"unix_socket_directories={self.base}", *self.options],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd="/",
                env=fetch.environment(self.version), start_new_session=True, **_owner())

        def answers():
            if self.process.poll() is not None:
                raise RuntimeError("postgres exited: " + self.log())
            self.connect("postgres").close()
            return True
        until(answers, 30, "PostgreSQL answers")

    def log(self):
        with open(self.log_path, errors="replace") as f:
            return f.read()

    def connect(self, dbname="shop", user="postgres", **options):
        """A direct connection over the unix socket, in autocommit."""
        return psycopg.connect(host=self.base, port=self.port, dbname=dbname, user=user,
                               autocommit=True, connect_timeout=10, **options)

    def halt(self, how=signal.SIGINT):
        if self.process.poll() is None:
            self.process.send_signal(how)
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                self.kill()

    def kill(self):
        """kill -9 of the postmaster and, before they find out by themselves, of its children: a
        busy one would go on to the end of its statement."""
        with open(f"/proc/{self.process.pid}/task/{self.process.pid}/children") as f:
            children = [int(pid) for pid in f.read().split()]
        self.process.kill()
        for pid in children:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        self.process.wait()

        def gone():
            try:
                with socket.create_connection(("127.0.0.1", self.port), 0.2):
                    return False
            except OSError:
                return True
        until(gone, 10, "the port is free")

    def restart(self):
        """After kill() the orphans hold the shared memory for a moment: try until it starts."""
        def started():
            if self.process.poll() is not None:
                self.start()
            return True
        until(started, 40, "PostgreSQL starts again", step=0.2)

    def remove(self):
        self.halt()
        shutil.rmtree(self.base, ignore_errors=True)
