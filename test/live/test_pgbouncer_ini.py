"""A pgbouncer.ini as people have it starts unchanged: ini/*.ini, each checked without a word,
started, and used; by Debian's PgBouncer too, where it is installed and the file is not newer."""
import glob
import hashlib
import os
import shutil
import signal
import subprocess
import tempfile

import psycopg
import pytest

import bouncer
from poll import until
from proxy import free_port, is_standin, program

pytestmark = pytest.mark.skipif(is_standin(), reason="the words are pgweave's")

HERE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "ini")
NAMES = sorted(os.path.basename(p)[:-4] for p in glob.glob(HERE + "/*.ini"))
NEWER = {"cloud", "peers", "every"}  # than Debian's 1.18
# Who logs in where, and what of; the md5 hash stands in for what people keep in userlist.txt.
USERS = {"alice": "pw-alice", "admin": "pw-admin", "pooler": "pw-pooler", "forced": "pw-forced",
         "bob": "md5" + hashlib.md5(b"pw-bobbob").hexdigest(), "stats": "pw-stats"}
HBA = """# TYPE  DATABASE  USER  ADDRESS  METHOD
local   all       all              trust
host    all       admin 127.0.0.1/32 md5
host    shop      alice 127.0.0.1/32 scram-sha-256
hostnossl other   all   127.0.0.1  255.255.255.255 trust
host    all       all   0.0.0.0/0  reject
"""
LOOKUP = """create or replace function pooler_lookup(in u text, out uname text, out phash text)
    returns record language sql security definer set search_path = pg_catalog, pg_temp as
    $$ select rolname, rolpassword from pg_authid where rolname = u and rolcanlogin $$"""


@pytest.fixture
def directory():
    """One that the user of the database may enter."""
    path = tempfile.mkdtemp(prefix="pgweave-ini-")
    os.chmod(path, 0o777)
    yield path
    shutil.rmtree(path)


@pytest.fixture(scope="module")
def pooled(pg):
    """The cluster with what the files expect there."""
    with pg.connect() as c:
        c.execute("do $$ begin create role pooler login superuser password 'pw-pooler'; "
                  "exception when duplicate_object then null; end $$")
        c.execute(LOOKUP)
    return pg


def write(name, pg, certs, directory):
    """The file with its places filled in; and its port."""
    port = free_port()
    with open(f"{HERE}/{name}.ini") as f:
        text = f.read()
    for key, value in (("DIR", directory), ("PORT", port), ("PG", pg.port), ("CERTS", certs)):
        text = text.replace(f"@{key}@", str(value))
    for file, content in (("p.ini", text), ("hba.conf", HBA), ("more.ini", "[users]\ncarol = pool_mode=session\n"),
                          ("userlist.txt", "".join(f'"{u}" "{p}"\n' for u, p in USERS.items()))):
        with open(os.path.join(directory, file), "w") as f:
            f.write(content)
    return os.path.join(directory, "p.ini"), port


def run(command, directory, port, database, **options):
    """Started as it stands, it serves; ended, it leaves no pidfile."""
    with open(directory + "/out", "wb") as out:
        p = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=out, cwd=directory)
    try:
        def connects():
            if p.poll() is not None:
                raise RuntimeError(open(directory + "/out").read())
            psycopg.connect(host="127.0.0.1", port=port, user="alice", password="pw-alice",
                            dbname=database, connect_timeout=5, **options).close()
            return True
        until(connects, 10, command[0])
        with psycopg.connect(host="127.0.0.1", port=port, user="alice", password="pw-alice",
                             dbname=database, autocommit=True, **options) as c:
            c.prepare_threshold = None
            assert c.execute("select 1").fetchone() == (1,)
    finally:
        # 1.18 knows no SIGQUIT, and a shell's background job ignores it.
        p.send_signal(signal.SIGTERM if command[0] == bouncer.PGBOUNCER else signal.SIGQUIT)
        p.wait(10)
    assert command[0] == bouncer.PGBOUNCER or not os.path.exists(directory + "/pgbouncer.pid")


def options_of(name):
    return {"sslmode": "require"} if name == "tls" else {}


@pytest.mark.parametrize("name", NAMES)
def test_it_starts_unchanged(name, pooled, certs, directory):
    path, port = write(name, pooled, certs, directory)
    said = subprocess.run([program(), "check", "--offline", path], text=True, timeout=20,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    assert said.returncode == 0 and "warning" not in said.stdout, said.stdout
    run([program(), "-q", path] if name in ("debian", "every") else [program(), path],
        directory, port, "shop", **options_of(name))
    if name in ("debian", "every"):
        assert "process up: pgweave" in open(directory + "/pgbouncer.log").read()


@pytest.mark.skipif(bouncer.PGBOUNCER is None, reason="pgbouncer is not installed")
@pytest.mark.parametrize("name", [n for n in NAMES if n not in NEWER])
def test_pgbouncer_starts_with_it(name, pooled, certs, directory):
    """What is tested above is no invention of ours."""
    directory = directory
    path, port = write(name, pooled, certs, directory)
    user = ["-u", "postgres"] if os.geteuid() == 0 else []
    run([bouncer.PGBOUNCER, *user, path], directory, port, "shop", **options_of(name))


def test_a_minimum_without_clients(pooled, certs, directory):
    """The forced user of star.ini: its pool fills itself."""
    directory = directory
    path, port = write("star", pooled, certs, directory)
    with open(directory + "/out", "wb") as out:
        p = subprocess.Popen([program(), path], stdin=subprocess.DEVNULL, stdout=out, stderr=out)
    try:
        def count():
            with pooled.connect() as c:
                return c.execute("select count(*) from pg_stat_activity where usename = 'forced' "
                                 "and application_name = ''").fetchone()[0]
        until(lambda: count() == 2, 10, "two connections of forced")
    finally:
        p.send_signal(signal.SIGQUIT)
        p.wait(10)


@pytest.mark.parametrize("line, why", [
    ("auth_type = ldap", "LDAP"), ("auth_type = pam", "PAM"),
    ("auth_ldap_options = ldapurl=x", "LDAP")])
def test_what_is_refused_says_why(line, why, pooled, certs, directory):
    path, _ = write("debian", pooled, certs, directory)
    with open(path, "a") as f:
        f.write(line + "\n")
    said = subprocess.run([program(), "check", "--offline", path], text=True, timeout=20,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    assert said.returncode == 1
    assert f"logins through {why} are not part of this version" in said.stdout


@pytest.mark.parametrize("line", ["pkt_buf = 8192", "sbuf_loopcnt = 2", "suspend_timeout = 3"])
def test_what_has_no_effect_says_so(line, pooled, certs, directory):
    path, _ = write("debian", pooled, certs, directory)
    with open(path, "a") as f:
        f.write(line + "\n")
    said = subprocess.run([program(), "check", "--offline", path], text=True, timeout=20,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    assert said.returncode == 0
    assert f"{line.split()[0]}: has no effect: " in said.stdout
